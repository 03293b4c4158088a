//! `flock-agent announce`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Group, Page, Program};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Announce,
    group: Group::Draining,
    word: "announce",
    summary: "ends what withdraw has begun",
    about: Some("The agent announces the node again as soon as it runs."),
    flags: &[&flags::AGENT_SOCKET],
    operands: &[],
    examples: &[],
    files: &[("/run/flock/drain", "is removed")],
    exits: &[
        (Exit::Done, "the node is not withdrawn any more"),
        (Exit::Failed, "not done"),
        (Exit::Misused, "the command line is not understood"),
    ],
};
