//! A list of everything that has to end when the API client is shut down: sockets, name lookups, programs.
//!
//! The HTTP library (ureq) keeps such a list for each of its clients. This list outlives them, since a changed certificate
//! means a new client while watches of the old one go on, and it also holds what is no socket. A list may be part of another.
//! Must not know how a part ends.

use std::fmt;
use std::sync::Weak;

use crate::process::lock::Lock;

/// The client was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Something that another thread may be blocked on.
pub trait Stoppable: Send + Sync {
    /// Lets a thread that is blocked on it continue, at once.
    fn stop(&self);
}

/// The list, and whether it is closed.
#[derive(Default)]
pub struct Stop(Lock<Parts>);

#[derive(Default)]
struct Parts {
    stopped: bool,
    parts: Vec<Weak<dyn Stoppable>>,
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

/// A list can be part of another: what belongs to one server ends with that server or with everything.
impl Stoppable for Stop {
    fn stop(&self) {
        Stop::stop(self);
    }
}

impl Stop {
    /// Adds a part for as long as it lives. Call it before blocking.
    ///
    /// # Errors
    /// The list is closed: do not block.
    pub fn register(&self, part: Weak<dyn Stoppable>) -> Result<(), Stopped> {
        let mut state = self.0.lock();
        if state.stopped {
            return Err(Stopped);
        }
        state.parts.retain(|part| part.strong_count() > 0);
        state.parts.push(part);
        Ok(())
    }

    /// Whether the list is closed.
    pub fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }

    /// Ends everything that is there, and refuses what comes later.
    pub fn stop(&self) {
        let parts = {
            let mut state = self.0.lock();
            state.stopped = true;
            std::mem::take(&mut state.parts)
        };
        for part in parts.iter().filter_map(Weak::upgrade) {
            part.stop();
        }
    }
}
