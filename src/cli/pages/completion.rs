//! `flock-agent completion`: its page. Must not know what a shell is told.

use crate::cli::table::{Group, Kind, Operand, Page, Program, Times};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Completion,
    group: Group::Words,
    word: "completion",
    summary: "prints what a shell needs to complete command lines",
    about: Some("The packages of flock bring these files already."),
    flags: &[],
    operands: &[Operand {
        name: "SHELL",
        times: Times::Once,
        kind: Kind::OneOf(&["bash", "zsh", "fish"]),
        help: "whose script it is to be",
    }],
    examples: &[
        ("flock-agent completion bash > /etc/bash_completion.d/flock-agent", "needs the package bash-completion"),
        ("flock-agent completion zsh > /usr/local/share/zsh/site-functions/_flock-agent", "for every user of zsh"),
        ("flock-agent completion fish > /etc/fish/completions/flock-agent.fish", "for every user of fish"),
    ],
    files: &[],
    exits: &[
        (Exit::Done, "printed"),
        (Exit::Failed, "not printed"),
        (Exit::Misused, "the command line is not understood, or the shell is none of these"),
    ],
};
