//! One answer from a thread to one caller, with an end: either the caller gets the answer, or it has given up and the thread
//! knows that.
//!
//! A channel would lose what comes just as its reader gives up, and a claim must not be lost. Must not know what is asked.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use crate::process::lock::{Changed, Lock};

#[derive(Debug)]
enum State<T> {
    Open,
    Answered(T),
    Over,
}

#[derive(Debug)]
struct Slot<T> {
    state: Lock<State<T>>,
    answered: Changed,
}

/// The thread's end.
#[derive(Debug)]
pub struct Reply<T>(Arc<Slot<T>>);

/// The caller's end.
#[derive(Debug)]
pub struct Answer<T>(Arc<Slot<T>>);

/// Both ends of one answer.
pub fn pair<T>() -> (Reply<T>, Answer<T>) {
    let slot = Arc::new(Slot { state: Lock::new(State::Open), answered: Changed::new() });
    (Reply(slot.clone()), Answer(slot))
}

impl<T> Reply<T> {
    /// Whether the caller has given up, so that nothing need be done for it.
    pub fn is_given_up(&self) -> bool {
        matches!(*self.0.state.lock(), State::Over)
    }

    /// Hands the answer over. True if the caller has it; false if it has given up, and never learns of it.
    pub fn send(self, answer: T) -> bool {
        let mut state = self.0.state.lock();
        if matches!(*state, State::Over) {
            return false;
        }
        *state = State::Answered(answer);
        drop(state);
        self.0.answered.wake_one();
        true
    }
}

impl<T> Answer<T> {
    /// The answer, or none at `deadline`, after which there will be none.
    pub fn wait(self, deadline: Instant) -> Option<T> {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.0.state.lock();
        let mut state = self.0.answered.wait_while(state, left, |state| matches!(state, State::Open));
        match mem::replace(&mut *state, State::Over) {
            State::Answered(answer) => Some(answer),
            State::Open | State::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_reaches_its_caller_or_the_thread_knows_that_it_did_not() {
        let (reply, answer) = pair();
        assert!(!reply.is_given_up());
        assert!(reply.send(7));
        // The time is over, and the answer is there all the same.
        assert_eq!(answer.wait(Instant::now()), Some(7));
        let (reply, answer) = pair();
        assert_eq!(answer.wait(Instant::now()), None);
        assert!(reply.is_given_up());
        assert!(!reply.send(7));
    }

    #[test]
    fn an_answer_ends_the_wait() {
        let (reply, answer) = pair();
        std::thread::scope(|scope| {
            scope.spawn(|| reply.send("now"));
            assert_eq!(answer.wait(Instant::now() + Duration::from_secs(60)), Some("now"));
        });
    }
}
