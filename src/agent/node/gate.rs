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

    /// Waits until the host is ready for pods. If it is not, wakes the node's thread to make it ready.
    ///
    /// # Errors
    /// Why the host is not ready, or [`Cause::Late`].
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
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use cni::error::{Code, Error};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn broken(why: &str) -> Error {
        Error::new(Code::TryAgainLater, why)
    }

    /// What the node's thread publishes after a try.
    fn tried(board: &Board<NodeState>, outcome: Result<(), Error>) {
        let state = board.get();
        board.set(NodeState { host: state.host.after(outcome), ..(*state).clone() });
    }

    /// The outcome of an ADD that asks while the node's thread answers with `outcome`.
    fn asked(gate: &Gate, woken: &Receiver<Wake>, outcome: Result<(), Error>) -> Result<(), Cause> {
        thread::scope(|scope| {
            let add = scope.spawn(|| gate.pass(soon()));
            assert_eq!(woken.recv_timeout(Duration::from_secs(30)), Ok(Wake::Serve));
            // Another piece of news is not what the ADD waits for.
            gate.state.set(NodeState { host_notes: vec!["a note".into()], ..(*gate.state()).clone() });
            tried(&gate.state, outcome);
            add.join().expect("no panic")
        })
    }

    #[test]
    fn an_add_has_the_host_prepared_and_hears_how_that_went() {
        let (wake, woken) = channel();
        let gate = Gate::new(Board::default(), wake);
        let refused = asked(&gate, &woken, Err(broken("no forwarding")));
        assert!(matches!(&refused, Err(Cause::Request(error)) if error.msg() == "no forwarding"), "{refused:?}");
        assert!(!gate.state().host.is_ready());
        // The next one is not told what was wrong before, but what is now.
        let refused = asked(&gate, &woken, Err(broken("no IPv6")));
        assert!(matches!(&refused, Err(Cause::Request(error)) if error.msg() == "no IPv6"), "{refused:?}");
        let began = Instant::now();
        assert!(asked(&gate, &woken, Ok(())).is_ok());
        assert!(began.elapsed() < Duration::from_secs(20), "it was woken and did not wait for its deadline");
        assert!(gate.state().host.is_ready() && gate.state().host.problem().is_none());
        gate.pass(Instant::now()).expect("a host that is ready costs no waiting");
        assert!(woken.try_recv().is_err(), "nor another look");
    }

    #[test]
    fn an_add_of_a_host_that_nobody_prepares_ends_with_its_time() {
        let (wake, _woken) = channel();
        let gate = Gate::new(Board::default(), wake);
        let late = gate.pass(Instant::now() + Duration::from_millis(20));
        assert!(matches!(late, Err(Cause::Late)), "{late:?}");
        tried(&gate.state, Err(broken("no forwarding")));
        let late = gate.pass(Instant::now() + Duration::from_millis(20));
        assert!(matches!(late, Err(Cause::Late)), "the last outcome is not an answer to this ADD: {late:?}");
    }
}
