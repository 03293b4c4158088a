//! The node as requests see it: what new pods get, and whether the host is ready for them.
//!
//! Reads what the node's own thread has published. A request that finds the host not ready wakes that thread and waits for the
//! outcome of its next try, no longer than its deadline. Must not change the host or the published state itself.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use crate::agent::board::Board;
use crate::agent::fault::Cause;
use crate::agent::node::state::NodeState;
use crate::agent::node::wake::Wake;

/// The handle of requests.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Board<NodeState>,
    wake: Sender<Wake>,
}

impl Gate {
    /// A gate to the node that publishes on `state` and is woken by `wake`.
    pub fn new(state: Board<NodeState>, wake: Sender<Wake>) -> Gate {
        Gate { state, wake }
    }

    /// The node as it is now.
    pub fn state(&self) -> Arc<NodeState> {
        self.state.get()
    }

    /// Waits until the host is ready for pods, and has it made ready if it is not.
    ///
    /// # Errors
    /// Why it is not, or [`Cause::Late`].
    pub fn pass(&self, deadline: Instant) -> Result<(), Cause> {
        let before = self.state.get();
        if before.host.is_ready() {
            return Ok(());
        }
        // The node's thread ends only with the process.
        self.wake.send(Wake::Serve).ok();
        let tried =
            |state: &NodeState| (state.host.tries > before.host.tries).then(|| state.host.outcome.clone()).flatten();
        self.state.wait(deadline, tried).ok_or(Cause::Late)?.map_err(Cause::Request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::error::{Code, Error};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_request_waits_for_the_next_try_and_hears_its_outcome() {
        let refusal = Error::new(Code::TryAgainLater, "host cannot serve pods");
        for outcome in [Ok(()), Err(refusal)] {
            let board = Board::<NodeState>::default();
            let (wake, messages) = channel();
            let gate = Gate::new(board.clone(), wake);
            let expected = outcome.clone().err().map(|error| error.to_string());
            let node = thread::spawn(move || {
                assert_eq!(messages.recv(), Ok(Wake::Serve));
                let state = board.get();
                // Another piece of news is not what the request waits for.
                board.set(NodeState { host_notes: vec!["a note".into()], ..(*state).clone() });
                board.set(NodeState { host: state.host.after(outcome), ..(*state).clone() });
            });
            let heard = gate.pass(Instant::now() + Duration::from_secs(60));
            let heard = heard.err().map(|cause| match cause {
                Cause::Request(error) => error.to_string(),
                other => panic!("{other:?}"),
            });
            assert_eq!(heard, expected);
            node.join().expect("no panic");
        }
    }

    #[test]
    fn a_request_waits_no_longer_than_its_deadline_and_not_at_all_for_a_host_that_is_ready() {
        let (wake, messages) = channel();
        let gate = Gate::new(Board::default(), wake);
        let late = gate.pass(Instant::now() + Duration::from_millis(5));
        assert!(matches!(late, Err(Cause::Late)), "{late:?}");
        assert_eq!(messages.try_iter().collect::<Vec<_>>(), [Wake::Serve]);
        let host = gate.state().host.after(Ok(()));
        gate.state.set(NodeState { host, ..NodeState::default() });
        gate.pass(Instant::now()).expect("ready");
        assert_eq!(messages.try_iter().count(), 0);
    }
}
