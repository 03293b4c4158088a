//! What there is to say about each program: one file each, with the flags that only it has.
//!
//! A new program is a file here, its line in [`PAGES`] and its variant of `Program`. Must not hold a flag of several programs.

pub mod agent;
pub mod announce;
pub mod bird_stop;
pub mod check;
pub mod completion;
pub mod diag;
pub mod explain;
pub mod help;
pub mod install;
pub mod pods;
pub mod status;
pub mod uninstall;
pub mod validate;
pub mod version;
pub mod withdraw;

use crate::cli::flags;
use crate::cli::table::{Flag, Page, Program};
use crate::process::exit::Exit;

/// Every program, in the order of the help within its group.
pub const PAGES: &[Page] = &[
    // The daemon.
    agent::PAGE,
    // Looking.
    status::PAGE,
    pods::PAGE,
    check::PAGE,
    explain::PAGE,
    validate::PAGE,
    diag::PAGE,
    // Installing.
    install::PAGE,
    uninstall::PAGE,
    // Draining.
    withdraw::PAGE,
    announce::PAGE,
    bird_stop::PAGE,
    // About this command line.
    help::PAGE,
    version::PAGE,
    completion::PAGE,
];

/// How programs end. What a code means for one of them, its page says.
pub const EXITS: &[(Exit, &str)] = &[
    (Exit::Done, "done, ready, or yes"),
    (Exit::Failed, "not done, not ready, or no"),
    (Exit::Misused, "the command line is not understood; nothing was touched"),
    (Exit::Unanswered, "the agent does not answer, or cannot tell yet"),
    (Exit::Denied, "this user may not ask"),
];

impl Program {
    /// What there is to say about it.
    pub fn page(self) -> Option<&'static Page> {
        PAGES.iter().find(|page| page.program == self)
    }

    /// The flags that it has, in the order of the help.
    pub fn flags(self) -> impl Iterator<Item = &'static Flag> {
        let own = self.page().map_or(&[][..], |page| page.flags);
        own.iter().copied().chain([&flags::HELP])
    }
}

/// Every flag of every program.
pub fn every_flag() -> impl Iterator<Item = &'static Flag> {
    PAGES.iter().flat_map(|page| page.program.flags())
}
