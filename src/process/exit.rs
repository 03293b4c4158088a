//! How a program ends: the exit codes, each with one meaning for every program of `flock-agent`.
//!
//! The plugin's codes are those of the CNI specification, and stand in `plugin`. Must not end the process by itself.

use std::process::ExitCode;

/// The end of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// What was asked for is not done, or not to the end.
    Failed,
    /// The command line cannot be what was meant; nothing was touched.
    Misused,
    /// Nobody is there who could tell, or he cannot tell yet.
    Unanswered,
    /// Whoever could tell does not tell this user.
    Denied,
}

impl Exit {
    /// The number that the parent process sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Misused => 2,
            Exit::Unanswered => 3,
            Exit::Denied => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
