//! Threads that the agent starts by name and waits for at its end, and the end that does not wait.
//!
//! Must not know what the threads do.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use crate::process::log;

/// The threads that are waited for.
#[derive(Debug)]
pub struct Threads {
    /// Each thread holds one until it has ended.
    alive: Sender<Infallible>,
    ended: Receiver<Infallible>,
}

/// No thread has been started yet.
impl Default for Threads {
    fn default() -> Threads {
        let (alive, ended) = channel();
        Threads { alive, ended }
    }
}

impl Threads {
    /// Starts a thread.
    ///
    /// # Errors
    /// The system has none to spare.
    pub fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let alive = self.alive.clone();
        spawn(name, move || {
            work();
            drop(alive);
        })
    }

    /// Waits until all have ended, or until the deadline.
    pub fn wait(self, until: Instant) {
        drop(self.alive);
        self.ended.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
    }
}

/// Starts a thread that nobody waits for.
///
/// # Errors
/// The system has none to spare.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// The end of the process for a reason that its successor may not have.
pub fn end(why: &'static str) -> ! {
    log::error(why).write();
    log::flush();
    std::process::exit(1)
}
