//! Who may be inside at once: it counts the requests in service, makes room where somebody holds a place without having said what he
//! wants, bounds the large ones in memory, and closes for good.
//!
//! Must not read what callers send, and never cuts off a request in service.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::lock::{Changed, Held, Lock};

/// Most larger requests at once, from the first byte beyond [`super::server::SMALL_REQUEST`] to the answer; more wait. With it the memory of all
/// requests together has a bound that is far below the product of their number and their longest size.
pub const LARGE_REQUESTS: usize = 4;

/// Time within which nobody is cut off, 10 ms: a caller sends its request right after it has connected. One that has not been given this time is not cut off
/// for others, lest many honest ones at once cut each other off.
const GRACE: Duration = Duration::from_millis(10);

/// Counts what is in service, knows what is still arriving, and closes for good.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Lock<Inside>,
    changed: Changed,
}

#[derive(Debug, Default)]
struct Inside {
    count: usize,
    closed: bool,
    /// Connections whose request has not arrived in full, the oldest first.
    arriving: VecDeque<(Instant, Arc<UnixStream>)>,
    /// Requests that have been admitted as large.
    large: usize,
}

impl Inside {
    fn is_arriving(&self, stream: &UnixStream) -> bool {
        self.arriving.iter().any(|(_, arriving)| std::ptr::eq(&**arriving, stream))
    }

    /// Ends the arrival of the oldest connection; what its caller has sent in full is served all the same, since the kernel
    /// hands that over before it tells of the end.
    fn cut_off_oldest(&mut self) {
        if let Some((_, stream)) = self.arriving.pop_front() {
            // A connection that has ended by itself needs no end.
            stream.shutdown(Shutdown::Read).ok();
        }
    }
}

/// The right of one large request to be in memory, while held.
pub(super) struct Large<'a>(&'a Gate);

impl Drop for Large<'_> {
    fn drop(&mut self) {
        self.0.lock().large -= 1;
        self.0.changed.wake_all();
    }
}

impl Gate {
    fn lock(&self) -> Held<'_, Inside> {
        self.state.lock()
    }

    /// Waits for room, and makes it where somebody has not said yet what he wants: who is silent or slow must not keep
    /// others out. Requests in service are never cut off. False when the gate is closed.
    pub(super) fn enter(&self, room: usize) -> bool {
        let mut state = self.lock();
        while !state.closed && state.count >= room {
            let grace = state.arriving.front().map(|(since, _)| GRACE.saturating_sub(since.elapsed()));
            state = match grace {
                None => self.changed.wait(state),
                Some(left) if !left.is_zero() => self.changed.wait_for(state, left),
                Some(_) => {
                    state.cut_off_oldest();
                    self.changed.wake_all();
                    // Its thread leaves, or it turns out that its request had arrived.
                    self.changed.wait_for(state, GRACE)
                }
            };
        }
        if state.closed {
            return false;
        }
        state.count += 1;
        true
    }

    pub(super) fn arrives(&self, stream: &Arc<UnixStream>) {
        self.lock().arriving.push_back((Instant::now(), stream.clone()));
    }

    /// The request has arrived, or never will.
    pub(super) fn arrived(&self, stream: &UnixStream) {
        self.lock().arriving.retain(|(_, arriving)| !std::ptr::eq(&**arriving, stream));
    }

    /// Waits for the right to be large. None when `until` has come, or the connection is cut off.
    pub(super) fn admit_large(&self, stream: &UnixStream, until: Instant) -> Option<Large<'_>> {
        let left = until.saturating_duration_since(Instant::now());
        let full = |state: &mut Inside| state.large >= LARGE_REQUESTS && state.is_arriving(stream);
        let mut state = self.changed.wait_while(self.lock(), left, full);
        (state.large < LARGE_REQUESTS).then(|| {
            state.large += 1;
            Large(self)
        })
    }

    pub(super) fn leave(&self) {
        self.lock().count -= 1;
        self.changed.wake_all();
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Who has not said what he wants is not waited for; a plugin asks our successor.
        while !state.arriving.is_empty() {
            state.cut_off_oldest();
        }
        drop(state);
        self.changed.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many are inside when all have left or the deadline has come.
    pub(super) fn drained(&self, deadline: Instant) -> usize {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.changed.wait_while(self.lock(), left, |s| s.count > 0);
        state.count
    }
}
