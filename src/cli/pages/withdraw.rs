//! `flock-agent withdraw`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::process::exit::Exit;

/// Longest wait, in seconds.
const WAIT_MAX: u64 = 60;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Withdraw,
    group: Group::Draining,
    word: "withdraw",
    summary: "takes the node out of the network before it stops",
    about: Some(
        "Routers are told to prefer other nodes, and a moment later that nothing is here any more. Pods keep running, and \
         the node announces itself again after `announce` or a reboot. With or without the agent; may be repeated.",
    ),
    flags: &[&flags::AGENT_SOCKET, &WAIT],
    operands: &[],
    examples: &[("flock-agent withdraw --wait 5", "for routers that take their time")],
    files: &[("/run/flock/drain", "says that the node is withdrawn")],
    exits: &[
        (Exit::Done, "the node announces nothing"),
        (Exit::Failed, "not done to the end; the next run finishes it"),
        (Exit::Misused, "the command line is not understood"),
    ],
};

/// `--wait`
pub const WAIT: Flag = Flag {
    name: "--wait",
    value: Some(Value { name: "SECONDS", kind: Kind::Seconds(WAIT_MAX), default: Default::Value("1") }),
    help: "how long routers have for turning to other nodes",
    ..Flag::SWITCH
};
