//! The progress of a thread that works in rounds and rests in between: since when it has been at work.
//!
//! The watchdog needs it, to tell a thread that waits for its next round from one that is stuck in a round. Must not decide
//! what is too long.

use std::sync::Arc;
use std::time::Instant;

use crate::process::lock::Lock;

/// The progress of one thread, which counts as resting until the first [`Progress::resting`] has returned. Clones are of the same
/// thread.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Lock<Option<Instant>>>);

impl Progress {
    /// Does `wait`, which may last for ever: the thread is at rest during it and at work from its end on.
    pub fn resting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.set(None);
        let waited = wait();
        self.set(Some(Instant::now()));
        waited
    }

    /// Since when the thread has been at work without a rest; none while it rests.
    pub fn at_work_since(&self) -> Option<Instant> {
        *self.0.lock()
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_at_work_from_the_end_of_a_rest_to_the_next() {
        let progress = Progress::default();
        assert_eq!(progress.at_work_since(), None);
        let before = Instant::now();
        progress.resting(|| assert_eq!(progress.at_work_since(), None));
        let since = progress.clone().at_work_since().expect("at work");
        assert!(since >= before);
        progress.resting(|| assert_eq!(progress.at_work_since(), None));
        assert!(progress.at_work_since().expect("at work") >= since);
    }
}
