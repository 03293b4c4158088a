//! Bounds how many threads at once are at something that serves one at a time, such as a lock of the kernel: each thread that waits
//! there slows the others down, and one that waits here does not.
//!
//! A turn is no lock: several threads have one, and the wait for one has a deadline. Must not know what is done in a turn.

use std::time::Instant;

use crate::process::lock::{Changed, Lock};

/// The turns.
#[derive(Debug)]
pub struct Turns {
    left: Lock<usize>,
    given_back: Changed,
}

/// One turn, which ends with this.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.left.lock() += 1;
        self.0.given_back.wake_one();
    }
}

impl Turns {
    /// So many at once.
    pub const fn new(at_once: usize) -> Turns {
        Turns { left: Lock::new(at_once), given_back: Changed::new() }
    }

    /// Waits for a turn. None at `deadline`.
    pub fn take(&self, deadline: Instant) -> Option<Turn<'_>> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let mut left = self.given_back.wait_while(self.left.lock(), patience, |left| *left == 0);
        left.checked_sub(1).map(|rest| {
            *left = rest;
            Turn(self)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_finds_no_turn_waits_for_one_and_not_beyond_its_time() {
        let turns = Arc::new(Turns::new(2));
        let long = || Instant::now() + Duration::from_secs(60);
        let first = turns.take(long()).expect("a turn");
        let second = turns.take(Instant::now()).expect("a turn that is free needs no time");
        assert!(turns.take(Instant::now() + Duration::from_millis(20)).is_none());
        let (tell, told) = channel();
        let theirs = turns.clone();
        let waiting = thread::spawn(move || {
            let turn = theirs.take(Instant::now() + Duration::from_secs(60));
            tell.send(turn.is_some()).expect("heard");
        });
        assert!(told.try_recv().is_err());
        drop(first);
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok(true));
        waiting.join().expect("no panic");
        drop(second);
        let both = [turns.take(Instant::now()), turns.take(Instant::now())];
        assert!(both.iter().all(Option::is_some), "all have been given back");
    }
}
