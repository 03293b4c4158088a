//! `flock-agent check`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Check,
    group: Group::Looking,
    word: "check",
    summary: "looks for what is wrong on this node, with the remedy",
    about: Some(
        "Compares record and kernel, and looks at what is not flock's and keeps pods from talking: settings, routes, packet filters, \
         programs that manage links, kube-proxy, the runtime, credentials. Each line names what and where, and what to do. Works \
         without an agent as well. Nothing is changed, and with --repair nothing that is not flock's.",
    ),
    flags: &[&REPAIR, &OUTPUT, &KUBECONFIG, &flags::RECORD_SOCKET, &STATE_DIR],
    operands: &[],
    examples: &[
        ("flock-agent check", "the whole node"),
        ("flock-agent check --repair", "what the agent would put right in its next round, now"),
        ("flock-agent check -o json", "for a program: failures, warnings and findings"),
    ],
    files: &[
        ("/run/flock/flock.sock", "where the agent is asked; root only"),
        ("/run/flock/state", "the record of what pods have; root only"),
    ],
    exits: &[
        (Exit::Done, "nothing has failed; there may be warnings"),
        (Exit::Failed, "something has"),
        (Exit::Misused, "the command line is not understood; nothing was looked at"),
        (Exit::Unanswered, "no agent answers; everything else was looked at"),
        (Exit::Denied, "this user may not look"),
    ],
};

/// `--repair`
pub const REPAIR: Flag =
    Flag { name: "--repair", help: "have the agent put right at once what is its own, and look then", ..Flag::SWITCH };

/// `--output` of `check`
pub const OUTPUT: Flag = Flag {
    name: "--output",
    letter: Some('o'),
    value: Some(Value { name: "FORMAT", kind: Kind::OneOf(&["json"]), default: Default::Unset("lines for people") }),
    help: "how it is told",
    ..Flag::SWITCH
};

/// `--kubeconfig` of `check`
pub const KUBECONFIG: Flag = Flag {
    name: "--kubeconfig",
    value: Some(Value { name: "FILE", kind: Kind::File, default: Default::Unset("the agent's") }),
    help: "look at the credentials that FILE names",
    ..Flag::SWITCH
};

/// `--state-dir` of `check`
pub const STATE_DIR: Flag = Flag {
    name: "--state-dir",
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Unset("as the agent's flags say") }),
    help: "where the agent keeps what it records",
    ..Flag::SWITCH
};
