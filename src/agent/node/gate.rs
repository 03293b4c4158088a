//! Whether the host is ready for pods, as requests may ask: said by the node's own thread, which makes it so.
//!
//! A request that finds it not ready asks for another try and waits for its outcome, no longer than its deadline. Nothing
//! is done under the lock but a look.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::agent::fault::Cause;
use crate::agent::node::Wake;
use cni::error::Error;

/// The handle.
#[derive(Debug, Clone)]
pub struct HostGate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    wake: Sender<Wake>,
}

#[derive(Debug, Default)]
struct State {
    /// Pods are to be served: from now on the host is prepared and kept so.
    serving: bool,
    /// The outcome of the last try, if there was one.
    outcome: Option<Result<(), Error>>,
    /// Tries so far.
    tries: u64,
}

impl HostGate {
    /// A gate that nobody has asked for yet. `wake` reaches the node's thread.
    pub fn new(wake: Sender<Wake>) -> HostGate {
        HostGate(Arc::new(Inner { state: Mutex::default(), changed: Condvar::new(), wake }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the host is ready, and has it made so if it is not.
    ///
    /// # Errors
    /// Why it is not, or [`Cause::Late`].
    pub fn pass(&self, deadline: Instant) -> Result<(), Cause> {
        let mut state = self.lock();
        if matches!(state.outcome, Some(Ok(()))) {
            return Ok(());
        }
        state.serving = true;
        // The node's thread ends only with the process.
        self.0.wake.send(Wake::Look).ok();
        let (before, left) = (state.tries, deadline.saturating_duration_since(Instant::now()));
        let (state, _) = self
            .0
            .changed
            .wait_timeout_while(state, left, |state| state.tries == before)
            .unwrap_or_else(PoisonError::into_inner);
        match &state.outcome {
            Some(outcome) if state.tries > before => outcome.clone().map_err(Cause::Request),
            _ => Err(Cause::Late),
        }
    }

    /// Why no pod can be served, as far as anybody has tried.
    pub fn problem(&self) -> Option<Error> {
        self.lock().outcome.clone()?.err()
    }

    /// Says that pods are to be served from now on.
    pub fn serve(&self) {
        self.lock().serving = true;
    }

    /// Whether pods are to be served.
    pub fn is_serving(&self) -> bool {
        self.lock().serving
    }

    /// Whether the host was ready when it was last looked at.
    pub fn is_ready(&self) -> bool {
        matches!(self.lock().outcome, Some(Ok(())))
    }

    /// Says how the latest try went.
    pub fn tried(&self, outcome: Result<(), Error>) {
        let mut state = self.lock();
        state.tries += 1;
        state.outcome = Some(outcome);
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use cni::error::Code;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn broken(why: &str) -> Error {
        Error::new(Code::TryAgainLater, why)
    }

    /// The outcome of an ADD that asks while the node's thread answers with `outcome`.
    fn asked(gate: &HostGate, woken: &Receiver<Wake>, outcome: Result<(), Error>) -> Result<(), Cause> {
        thread::scope(|scope| {
            let add = scope.spawn(|| gate.pass(soon()));
            // Under the lock of the state, so whoever was woken is waiting by the time that the lock is free.
            assert_eq!(woken.recv_timeout(Duration::from_secs(30)), Ok(Wake::Look));
            gate.tried(outcome);
            add.join().expect("no panic")
        })
    }

    #[test]
    fn an_add_has_the_host_prepared_and_hears_how_that_went() {
        let (wake, woken) = channel();
        let gate = HostGate::new(wake);
        assert!(!gate.is_serving() && gate.problem().is_none());
        let refused = asked(&gate, &woken, Err(broken("no forwarding")));
        assert!(matches!(&refused, Err(Cause::Request(error)) if error.msg() == "no forwarding"), "{refused:?}");
        assert!(gate.is_serving(), "from the first ADD on");
        assert!(!gate.is_ready());
        // The next one is not told what was wrong before, but what is now.
        let refused = asked(&gate, &woken, Err(broken("no IPv6")));
        assert!(matches!(&refused, Err(Cause::Request(error)) if error.msg() == "no IPv6"), "{refused:?}");
        let began = Instant::now();
        assert!(asked(&gate, &woken, Ok(())).is_ok());
        assert!(began.elapsed() < Duration::from_secs(20), "it was woken and did not wait for its deadline");
        assert!(gate.is_ready() && gate.problem().is_none());
        gate.pass(Instant::now()).expect("a host that is ready costs no waiting");
        assert!(woken.try_recv().is_err(), "nor another look");
    }

    #[test]
    fn an_add_of_a_host_that_nobody_prepares_ends_with_its_time() {
        let (wake, _woken) = channel();
        let gate = HostGate::new(wake);
        let late = gate.pass(Instant::now() + Duration::from_millis(20));
        assert!(matches!(late, Err(Cause::Late)), "{late:?}");
        gate.tried(Err(broken("no forwarding")));
        let late = gate.pass(Instant::now() + Duration::from_millis(20));
        assert!(matches!(late, Err(Cause::Late)), "the last outcome is not an answer to this ADD: {late:?}");
    }
}
