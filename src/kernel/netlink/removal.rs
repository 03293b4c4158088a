//! Tells when a link has left the namespace, which is some 20 ms before the call that removes it returns.
//!
//! One thread reads the kernel's link announcements and wakes whoever waits for that index. It holds no other state.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use super::conn::Conn;
use super::hearing::{Hearing, PAUSE, Unheard};
use super::uapi::{AF_UNSPEC, RTM_DELLINK, RTNLGRP_LINK};
use super::{Cause, NetlinkError};
use crate::process::crew::{Afterwards, Crew};
use crate::process::lock::{Changed, Held, Lock};

/// `sizeof(nlmsghdr)`; the link index stands four bytes into the `ifinfomsg` behind it.
const HEADER: usize = 16;

/// Threads that may sit in a removal at once. One more, and the caller sits in the call itself: slower, still correct.
const MAX_REMOVERS: usize = 256;

/// Threads for removals that stay when there is none to make. Each sits in its call for some 40 ms, so a row of DELs needs several.
const REMOVERS_AT_REST: usize = 8;

/// Announcements that the kernel keeps for the reader, in bytes of its own reckoning, which counts some 4 KiB for each: those of a
/// host that loses a thousand links at once. Nothing is taken before it is needed.
const QUEUE_BYTES: usize = 8 << 20;

enum Signal {
    /// The link has left the namespace.
    Announced,
    /// Announcements were lost: look for yourself.
    Lost,
    /// The removing call has returned.
    Returned(Result<(), NetlinkError>),
}

#[derive(Debug, Default)]
struct Waiting {
    /// Who waits for which link.
    senders: Lock<HashMap<u32, Vec<Sender<Signal>>>>,
    /// Somebody waits who did not before.
    begun: Changed,
}

/// Removes links and knows when they are gone.
#[derive(Debug, Clone)]
pub struct LinkRemover {
    waiting: Arc<Waiting>,
    crew: Crew,
    removers: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signal")
    }
}

impl LinkRemover {
    /// Starts the reading thread, in the calling thread's namespace.
    ///
    /// # Errors
    /// The socket or the thread could not be made.
    pub fn start() -> Result<LinkRemover, NetlinkError> {
        let fail = |error| NetlinkError { what: "listen for link announcements".into(), cause: Cause::Socket(error) };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail)?;
        enlarge(&socket);
        socket.bind_auto().and_then(|_| socket.add_membership(RTNLGRP_LINK)).map_err(fail)?;
        let hearing = Hearing::new(socket, 32 * 1024, "netlink.event");
        let waiting: Arc<Waiting> = Arc::default();
        let shared = waiting.clone();
        thread::Builder::new().name("link-events".into()).spawn(move || listen(hearing, &shared)).map_err(fail)?;
        Ok(LinkRemover { waiting, crew: Crew::new("remove", REMOVERS_AT_REST), removers: Arc::default() })
    }

    /// Removes the link `index` and returns as soon as it has left the namespace. The kernel gives no index twice before
    /// it has counted through all of them, so an announcement that is read late never speaks of a younger link.
    ///
    /// # Errors
    /// The kernel refused, or the link was still there at `deadline`.
    pub fn remove(&self, index: u32, deadline: Instant) -> Result<(), NetlinkError> {
        let (sender, signals) = channel();
        self.lock().entry(index).or_default().push(sender.clone());
        self.waiting.begun.wake_one();
        let outcome = self.remove_and_wait(index, deadline, sender, &signals);
        drop(signals);
        let mut waiting = self.lock();
        if let Some(senders) = waiting.get_mut(&index) {
            // Ours is the one whose receiver has just been dropped; a probe of it fails.
            senders.retain(|sender| sender.send(Signal::Lost).is_ok());
            if senders.is_empty() {
                waiting.remove(&index);
            }
        }
        outcome
    }

    fn remove_and_wait(
        &self,
        index: u32,
        deadline: Instant,
        sender: Sender<Signal>,
        signals: &Receiver<Signal>,
    ) -> Result<(), NetlinkError> {
        if self.removers.fetch_add(1, Ordering::Relaxed) >= MAX_REMOVERS {
            self.removers.fetch_sub(1, Ordering::Relaxed);
            return Conn::open(deadline)?.delete_link(index);
        }
        let removers = self.removers.clone();
        let begun = self.crew.begin(move || {
            let result = Conn::open(deadline).and_then(|mut conn| conn.delete_link(index));
            removers.fetch_sub(1, Ordering::Relaxed);
            // Nobody listens any more when the announcement came first, as it should.
            sender.send(Signal::Returned(result)).ok();
            Afterwards::Stay
        });
        if begun.is_err() {
            self.removers.fetch_sub(1, Ordering::Relaxed);
            return Conn::open(deadline)?.delete_link(index);
        }
        loop {
            match signals.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Signal::Announced | Signal::Returned(Ok(()))) => return Ok(()),
                // The answer may be lost, and the link gone all the same.
                Ok(Signal::Returned(Err(_))) if has_left(index, deadline) => return Ok(()),
                Ok(Signal::Returned(Err(error))) => return Err(error),
                Ok(Signal::Lost) if has_left(index, deadline) => return Ok(()),
                Ok(Signal::Lost) => {}
                Err(_) => return Err(NetlinkError { what: format!("delete link {index}"), cause: Cause::Late }),
            }
        }
    }

    fn lock(&self) -> Held<'_, HashMap<u32, Vec<Sender<Signal>>>> {
        self.waiting.senders.lock()
    }
}

/// The kernel shows no such link. Not to be known is not to have left.
fn has_left(index: u32, deadline: Instant) -> bool {
    matches!(Conn::open(deadline).and_then(|mut conn| conn.link_at(index)), Ok(None))
}

/// Has the kernel keep more for the reader than usual. More than the host allows to everybody needs CAP_NET_ADMIN of the host
/// itself; where that is refused, as much as everybody may have is what there is, and losing announcements is no error.
fn enlarge(socket: &Socket) {
    if set_socket_recv_buffer_size_force(socket, QUEUE_BYTES).is_err() {
        set_socket_recv_buffer_size(socket, QUEUE_BYTES).ok();
    }
}

fn listen(mut hearing: Hearing, waiting: &Waiting) {
    // The kernel says once that its queue has overrun, and drops everything until the reader has emptied it. So those who wait
    // look at once, for what was dropped by then, and once more when the queue is dry, for what was dropped meanwhile.
    let mut overrun = false;
    loop {
        let heard = hearing.next(|| {
            if mem::take(&mut overrun) {
                wake_all(waiting);
            }
            // Who waits for the end of a link ends the rest.
            drop(waiting.begun.wait_while(waiting.senders.lock(), PAUSE, |senders| senders.is_empty()));
        });
        match heard {
            Ok(datagram) => {
                for index in removed_links(datagram) {
                    let senders = waiting.senders.lock().remove(&index);
                    for sender in senders.into_iter().flatten() {
                        sender.send(Signal::Announced).ok();
                    }
                }
            }
            Err(Unheard::Lost) => {
                overrun = true;
                wake_all(waiting);
            }
            // Those who wait look for themselves, and later ones get the call's return.
            Err(Unheard::Over) => return wake_all(waiting),
        }
    }
}

fn wake_all(waiting: &Waiting) {
    let senders = waiting.senders.lock();
    for sender in senders.values().flatten() {
        sender.send(Signal::Lost).ok();
    }
}

/// The indexes of removed links in one datagram; a message that is not whole ends it. Reads two fixed fields instead of
/// decoding a message of 1.4 KiB for every change of any link of the host.
pub fn removed_links(datagram: &[u8]) -> Vec<u32> {
    let mut indexes = Vec::new();
    let mut rest = datagram;
    while let Some(&[a, b, c, d, ref kind @ ..]) = rest.get(..6) {
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(body) = rest.get(HEADER..length) else { break };
        // The same message type with another family says that a link has left its bridge.
        if *kind == RTM_DELLINK.to_ne_bytes()
            && let Some(&[AF_UNSPEC, _, _, _, a, b, c, d]) = body.get(..8)
        {
            indexes.push(u32::from_ne_bytes([a, b, c, d]));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    indexes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removal(length: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(RTM_DELLINK.to_ne_bytes());
        bytes.extend([0; 10]); // flags, sequence number, port
        bytes.extend(body);
        bytes
    }

    #[test]
    fn no_link_is_announced_by_half_a_message() {
        let body = [&[AF_UNSPEC, 0, 0, 0][..], &7u32.to_ne_bytes(), &[0; 8]].concat();
        let whole = removal(32, &body);
        assert_eq!(removed_links(&[&whole[..], &whole].concat()), [7, 7]);
        // A message without a body: what stands behind it is the next one.
        assert_eq!(removed_links(&[&removal(16, &[])[..], &whole].concat()), [7]);
        for (length, why) in [(33, "there is less than it says"), (u32::MAX, "much less"), (20, "no index in it")] {
            assert_eq!(removed_links(&removal(length, &body)).len(), 0, "{why}");
        }
    }
}
