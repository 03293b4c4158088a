//! A sign of life of a thread that works in rounds and rests in between: since when it has been at work.
//!
//! For the watchdog, which must tell a thread that waits for its next round from one that is stuck in a round. Decides nothing.

use std::sync::Arc;
use std::time::Instant;

use crate::process::lock::Lock;

/// One thread's. Clones are the same pulse. At rest until the first [`Pulse::resting`] has returned.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Lock<Option<Instant>>>);

impl Pulse {
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
        let pulse = Pulse::default();
        assert_eq!(pulse.at_work_since(), None);
        let before = Instant::now();
        pulse.resting(|| assert_eq!(pulse.at_work_since(), None));
        let since = pulse.clone().at_work_since().expect("at work");
        assert!(since >= before);
        pulse.resting(|| assert_eq!(pulse.at_work_since(), None));
        assert!(pulse.at_work_since().expect("at work") >= since);
    }
}
