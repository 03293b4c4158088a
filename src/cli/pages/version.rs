//! `flock-agent version`: its page. Must not know the version.

use crate::cli::table::{Group, Page, Program};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Version,
    group: Group::Words,
    word: "version",
    summary: "prints the version of this program",
    about: None,
    flags: &[],
    operands: &[],
    examples: &[],
    files: &[],
    exits: &[
        (Exit::Done, "printed"),
        (Exit::Failed, "not printed"),
        (Exit::Misused, "the command line is not understood"),
    ],
};
