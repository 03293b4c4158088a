//! `flock-agent bird stop`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Group, Page, Program};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::BirdStop,
    group: Group::Draining,
    word: "bird stop",
    summary: "ends BIRD in the way that loses nothing",
    about: Some(
        "Peers keep the routes until BIRD is back, for two minutes at most; on a node that is withdrawn they drop them at \
         once. flock-bird.service ends BIRD by this.",
    ),
    flags: &[&flags::BIRD_SOCKET, &flags::AGENT_SOCKET],
    operands: &[],
    examples: &[],
    files: &[("/run/flock/drain", "says that the node is withdrawn")],
    exits: &[
        (Exit::Done, "BIRD has ended, or was not there"),
        (Exit::Failed, "BIRD does not end"),
        (Exit::Misused, "the command line is not understood"),
    ],
};
