//! What others want of the node's own thread, and the wait of that thread for it.
//!
//! A message says "look again" and never what is to be found. Must not know who sends it or what the thread does.

use std::iter;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Why the thread is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something has changed.
    Look,
    /// A request waits for a host that is ready for pods.
    Serve,
    /// Everything is to be read again, as at SIGHUP.
    Again,
    /// The agent ends.
    Stop,
}

/// All that the thread was woken for since it last waited. However often it was woken for one reason meanwhile, once is enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Woken {
    /// A request waits for a host that is ready for pods.
    pub serve: bool,
    /// Everything is to be read again.
    pub again: bool,
    /// The thread is to end: [`Wake::Stop`] came, or nobody can wake it any more.
    pub stop: bool,
}

impl Woken {
    /// Waits for a message, and no longer than `limit`.
    pub fn wait(messages: &Receiver<Wake>, limit: Duration) -> Woken {
        let first = match messages.recv_timeout(limit) {
            Ok(wake) => wake,
            Err(RecvTimeoutError::Timeout) => Wake::Look,
            Err(RecvTimeoutError::Disconnected) => Wake::Stop,
        };
        let mut woken = Woken::default();
        for wake in iter::once(first).chain(messages.try_iter()) {
            woken.serve |= wake == Wake::Serve;
            woken.again |= wake == Wake::Again;
            woken.stop |= wake == Wake::Stop;
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn everything_that_was_asked_for_meanwhile_is_done_at_once() {
        let (wake, messages) = channel();
        assert_eq!(Woken::wait(&messages, Duration::ZERO), Woken::default(), "a look when nobody has asked");
        for message in [Wake::Look, Wake::Serve, Wake::Again, Wake::Serve] {
            wake.send(message).expect("heard");
        }
        let woken = Woken::wait(&messages, Duration::ZERO);
        assert_eq!(woken, Woken { serve: true, again: true, stop: false });
        drop(wake);
        assert!(Woken::wait(&messages, Duration::from_secs(60)).stop);
    }
}
