//! Waiting for a fact with a deadline: the only way in which a test waits. What the fact is, the caller says.

use std::thread;
use std::time::{Duration, Instant};

/// For hangs, and not for timing: far longer than anything takes on a machine that has ten times as much to do as it can.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something, and panics with `what` when it does not.
#[track_caller]
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_or(|| format!("waited in vain for {what}"), look)
}

/// Waits until `look` finds something, and panics with the complaint when it does not.
#[track_caller]
pub fn wait_or<T>(complaint: impl FnOnce() -> String, look: impl FnMut() -> Option<T>) -> T {
    wait_at_most(PATIENCE, complaint, look)
}

/// The same for what takes long by its nature.
#[track_caller]
pub fn wait_at_most<T>(limit: Duration, complaint: impl FnOnce() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{}", complaint());
        thread::sleep(Duration::from_millis(2));
    }
}
