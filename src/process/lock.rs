//! A lock, and the wait for what it guards to change.
//!
//! A panic aborts the process, so no thread ever finds a lock that a panicking thread has left behind. A lock must not be held
//! while a thread waits for anything but [`Changed`].

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A value that one thread at a time may see.
#[derive(Default)]
pub struct Lock<T>(Mutex<T>);

/// The value, for as long as this is held.
pub type Held<'a, T> = MutexGuard<'a, T>;

impl<T> Lock<T> {
    /// A lock around a value.
    pub const fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    /// Waits until no other thread holds the value.
    pub fn lock(&self) -> Held<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Wakes threads that wait for a locked value to change. Each has to look at the value again: it may be woken for nothing.
#[derive(Debug, Default)]
pub struct Changed(Condvar);

impl Changed {
    /// Nobody waits yet.
    pub const fn new() -> Changed {
        Changed(Condvar::new())
    }

    /// Wakes one of those who wait.
    pub fn wake_one(&self) {
        self.0.notify_one();
    }

    /// Wakes everybody who waits.
    pub fn wake_all(&self) {
        self.0.notify_all();
    }

    /// Lets go of the value until somebody wakes this thread.
    pub fn wait<'a, T>(&self, held: Held<'a, T>) -> Held<'a, T> {
        self.0.wait(held).unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the value until somebody wakes this thread, and no longer than `limit`.
    pub fn wait_for<'a, T>(&self, held: Held<'a, T>, limit: Duration) -> Held<'a, T> {
        self.0.wait_timeout(held, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets go of the value as long as it is `so`, and no longer than `limit`.
    pub fn wait_while<'a, T>(&self, held: Held<'a, T>, limit: Duration, so: impl FnMut(&mut T) -> bool) -> Held<'a, T> {
        self.0.wait_timeout_while(held, limit, so).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn whoever_waits_sees_the_change() {
        let place = Arc::new((Lock::new(0), Changed::new()));
        let writer = place.clone();
        let writing = thread::spawn(move || {
            for number in 1..=3 {
                *writer.0.lock() = number;
                writer.1.wake_all();
            }
        });
        let (lock, changed) = &*place;
        assert!(*changed.wait_while(lock.lock(), LONG, |number| *number < 2) >= 2);
        let mut held = lock.lock();
        while *held < 3 {
            held = changed.wait_for(held, LONG);
        }
        assert_eq!(*held, 3);
        drop(held);
        writing.join().expect("no panic");
        assert_eq!(*changed.wait_while(lock.lock(), Duration::ZERO, |_| true), 3, "nobody waits beyond the limit");
    }
}
