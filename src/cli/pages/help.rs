//! `flock-agent help`: its page. Must not hold a word about another program.

use crate::cli::table::{Group, Kind, Operand, Page, Program, Times};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Help,
    group: Group::Words,
    word: "help",
    summary: "lists the commands, or says everything about one",
    about: None,
    flags: &[],
    operands: &[Operand {
        name: "COMMAND",
        times: Times::Any,
        kind: Kind::Command,
        help: "the word or words of one command; without it, all are listed",
    }],
    examples: &[("flock-agent help explain", "the same as flock-agent explain --help")],
    files: &[],
    exits: &[(Exit::Done, "printed"), (Exit::Failed, "not printed"), (Exit::Misused, "there is no such command")],
};
