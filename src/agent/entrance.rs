//! The agent's socket while it runs: looks at it in every round, binds it again where it is gone, and says so in the log.
//!
//! Whoever tidies up `/run` can remove the socket, and an agent that nobody can call looks healthy from inside. Must not know what
//! callers ask.

use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::rpc::listener::BindError;
use crate::rpc::server::Door;

/// Most looks in a row that may fail because the system refuses. After that the agent ends: a service manager gives the next
/// agent its directories anew, and this one cannot make them, since under the shipped unit all of `/run` but its own directory
/// is read-only.
const REFUSALS: u32 = 3;

/// The socket, and how often in a row it could not be put back.
#[derive(Debug)]
pub struct Entrance {
    door: Door,
    refused: u32,
    unreachable: Lasting,
}

/// The agent cannot be called and cannot help itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deaf;

impl Entrance {
    /// The entrance that `door` keeps. No look has failed yet.
    pub fn new(door: Door) -> Entrance {
        Entrance { door, refused: 0, unreachable: Lasting::default() }
    }

    /// Looks at the socket once, which costs one file's metadata when all is well.
    ///
    /// # Errors
    /// [`Deaf`] when looks in a row have failed for reasons that a new process may not have.
    pub fn keep(&mut self) -> Result<(), Deaf> {
        let error = match self.door.keep_bound() {
            Ok(bound) => {
                self.refused = 0;
                self.unreachable.over(|| log::info("callers reach the agent again"));
                if bound {
                    log::warn("socket was gone from its place, and is bound again").write_limited();
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let refused = matches!(error, BindError::Directory(_) | BindError::Io { .. });
        self.refused = if refused { self.refused + 1 } else { 0 };
        self.unreachable.met(error, || log::error("callers cannot reach the agent"));
        if self.refused < REFUSALS { Ok(()) } else { Err(Deaf) }
    }
}
