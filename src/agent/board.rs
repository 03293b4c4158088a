//! One place where a value is published and read: the board.
//!
//! What stands on a board is an immutable snapshot that is swapped as a whole. A reader holds the lock for the copy of a
//! pointer and never waits for a writer's work; what has to be read together belongs into one snapshot. Must not know what the
//! snapshots mean.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::process::lock::{Changed, Held, Lock};

/// A board with a snapshot of type `T`. Clones are the same board.
pub struct Board<T>(Arc<Place<T>>);

struct Place<T> {
    snapshot: Lock<Arc<T>>,
    swapped: Changed,
}

impl<T> Board<T> {
    /// A board on which `snapshot` stands.
    pub fn new(snapshot: T) -> Board<T> {
        Board(Arc::new(Place { snapshot: Lock::new(Arc::new(snapshot)), swapped: Changed::new() }))
    }

    fn lock(&self) -> Held<'_, Arc<T>> {
        self.0.snapshot.lock()
    }

    /// The snapshot that stands there now.
    pub fn get(&self) -> Arc<T> {
        self.lock().clone()
    }

    /// Puts another snapshot in its place, and wakes everybody who waits for one.
    pub fn set(&self, snapshot: impl Into<Arc<T>>) {
        *self.lock() = snapshot.into();
        self.0.swapped.wake_all();
    }

    /// What `find` finds in the present snapshot or in the first later one in which it finds something; none if it has found
    /// nothing until `deadline`. `find` runs under the lock: it looks, and does nothing else.
    pub fn wait<R>(&self, deadline: Instant, find: impl Fn(&T) -> Option<R>) -> Option<R> {
        let mut snapshot = self.lock();
        loop {
            if let Some(found) = find(&snapshot) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            snapshot = self.0.swapped.wait_for(snapshot, left);
        }
    }
}

impl<T> Clone for Board<T> {
    fn clone(&self) -> Board<T> {
        Board(self.0.clone())
    }
}

impl<T: Default> Default for Board<T> {
    fn default() -> Board<T> {
        Board::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Board<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_reader_keeps_its_snapshot_while_another_one_takes_its_place() {
        let board = Board::new(1);
        let (before, other) = (board.get(), board.clone());
        other.set(2);
        assert_eq!((*before, *board.get()), (1, 2));
    }

    #[test]
    fn whoever_waits_gets_the_first_snapshot_that_has_what_is_wanted() {
        let board = Board::new(0);
        let writer = board.clone();
        let even = |n: &u32| (*n > 0 && n.is_multiple_of(2)).then_some(*n);
        let waiting = thread::spawn(move || (1..=2).for_each(|n| writer.set(n)));
        assert_eq!(board.wait(Instant::now() + Duration::from_secs(60), even), Some(2));
        waiting.join().expect("no panic");
        assert_eq!(board.wait(Instant::now(), |n| (*n > 2).then_some(())), None, "nobody waits beyond the deadline");
    }

    #[test]
    fn whoever_waits_is_woken_by_the_snapshot_and_not_by_the_deadline() {
        let board = Board::new(0);
        let (looked, has_looked) = channel();
        let began = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                board.wait(began + Duration::from_secs(30), |n| {
                    looked.send(()).ok();
                    (*n == 1).then_some(())
                })
            });
            has_looked.recv().expect("a first look");
            // The look holds the lock until the reader waits, so no snapshot comes in between.
            board.set(1);
            assert_eq!(waiting.join().expect("no panic"), Some(()));
        });
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
