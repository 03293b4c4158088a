//! `flock-agent pods`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::operator::pods::Output;
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Pods,
    group: Group::Looking,
    word: "pods",
    summary: "lists the pods of this node, with or without an agent",
    about: Some(
        "Comes from what the agent has recorded and from what the links show. STATE is committed, pending while an ADD is at \
         work, delete noted if the runtime has deleted the pod while no agent ran, link missing, or not recorded.",
    ),
    flags: &[&NAMESPACE, &OUTPUT, &NO_HEADERS, &flags::RECORD_DIR, &flags::RECORD_SOCKET],
    operands: &[],
    examples: &[
        ("flock-agent pods -n shop", "the pods of one namespace"),
        ("flock-agent pods -o wide", "with further and anycast addresses, MTU, network and container"),
        ("flock-agent pods -o json", "for programs: names and meanings of keys stay as they are"),
    ],
    files: &[
        ("/run/flock/state", "what the agent has recorded; root only"),
        ("/run/flock/deletes", "deletes that wait for an agent; root only"),
    ],
    exits: &[
        (Exit::Done, "the pods were listed, also if there are none"),
        (Exit::Failed, "the record cannot be read"),
        (Exit::Misused, "the command line is not understood"),
        (Exit::Denied, "the record is not for this user"),
    ],
};

/// `--namespace`
pub const NAMESPACE: Flag = Flag {
    name: "--namespace",
    letter: Some('n'),
    value: Some(Value { name: "NAMESPACE", kind: Kind::Text, default: Default::Nothing }),
    help: "only pods of this namespace",
    ..Flag::SWITCH
};

/// `--output` of `pods`
pub const OUTPUT: Flag = Flag {
    name: "--output",
    letter: Some('o'),
    value: Some(Value { name: "FORMAT", kind: Kind::OneOf(&Output::NAMES), default: Default::Unset("a table") }),
    help: "how the pods are told: wide is a table with more columns, name is a pod a line",
    ..Flag::SWITCH
};

/// `--no-headers`
pub const NO_HEADERS: Flag = Flag { name: "--no-headers", help: "a table without its line of heads", ..Flag::SWITCH };
