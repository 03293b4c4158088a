//! `flock-agent diag`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::pages::check::STATE_DIR;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Diag,
    group: Group::Looking,
    word: "diag",
    summary: "collects what a report needs in one file, and no secret",
    about: Some(
        "What status, pods, check and the metrics say, the record, the flags of the agent, flock's links, routes and tables of the \
         packet filter, settings of the kernel, where the runtime looks, and the end of the agent's log. Not: kubeconfig, tokens, \
         certificates, passwords, files of others. Names of pods and namespaces and addresses are in it, so look through it before \
         you hand it on. What could not be collected stands in missing.txt. Works without an agent as well.",
    ),
    flags: &[&OUTPUT, &flags::RECORD_SOCKET, &STATE_DIR],
    operands: &[],
    examples: &[
        ("flock-agent diag", "into the current directory"),
        ("flock-agent diag -o - > diag.tar", "to standard output, as by kubectl exec from a pod without a shell"),
    ],
    files: &[
        ("/run/flock/flock.sock", "where the agent is asked; root only"),
        ("/run/flock/state", "the record of what pods have; root only"),
        ("/etc/default/flock-agent", "of it, the flags for the agent are collected and nothing else"),
    ],
    exits: &[
        (Exit::Done, "written; something may be missing, and missing.txt says what and why"),
        (Exit::Failed, "not written"),
        (Exit::Misused, "the command line is not understood; nothing was collected"),
        (Exit::Denied, "this user may not look"),
    ],
};

/// `--output` of `diag`
pub const OUTPUT: Flag = Flag {
    name: "--output",
    letter: Some('o'),
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("flock-diag-NODE-TIME.tar in the current directory"),
    }),
    help: "where it is written, with mode 0600; - is standard output",
    ..Flag::SWITCH
};
