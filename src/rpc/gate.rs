//! The gate of the server, which decides who may be inside at once. It counts the requests in service, makes room where a caller
//! holds a place without having sent its request, bounds the large requests in memory, and closes for good.
//!
//! Must not read what callers send, and never cuts off a request in service.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::process::lock::{Changed, Held, Lock};

/// Most requests at once that are longer than [`super::server::SMALL_REQUEST`], each from its first byte beyond that to its answer;
/// others wait. So the memory of all requests together is bounded far below the product of their number and their longest size.
pub const LARGE_REQUESTS: usize = 4;

/// Time that every caller gets to send its request after it has connected, 10 ms. It is not cut off for others before, lest many
/// honest callers at once cut each other off.
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

    /// Waits for room, and makes it where a request has not arrived yet: a caller that is silent or slow must not keep
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
                    // The thread of the oldest one leaves, or it turns out that its request had arrived.
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

    /// Notes that the request on `stream` has arrived, or never will.
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

    /// How many are inside.
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    pub(super) fn leave(&self) {
        self.lock().count -= 1;
        self.changed.wake_all();
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // A caller whose request has not arrived is not waited for; a plugin asks the next agent.
        while !state.arriving.is_empty() {
            state.cut_off_oldest();
        }
        drop(state);
        self.changed.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until all requests have left, or until the deadline. Returns how many are still inside.
    pub(super) fn drained(&self, deadline: Instant) -> usize {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.changed.wait_while(self.lock(), left, |s| s.count > 0);
        state.count
    }
}
