//! The one connection type: a netlink socket of one network namespace, with sequence numbers, acknowledgements, the
//! kernel's own error texts, deadlines, and dumps that are repeated when the table changed meanwhile.
//!
//! Whoever asks the kernel something does it here; `changes` and `removal` only listen. Must not know what is asked for. A
//! connection is never cloned, as the crate's socket closes its descriptor once per clone.

use std::io::{self, ErrorKind};
use std::time::Instant;

use netlink_packet_core::{Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::message::{HEADER, Message, Object, Outcome, messages, outcome};
use super::{Cause, NetlinkError};
use crate::process::failpoint;

/// The kernel sends dumps in pieces of at most 32 KiB, and single messages far below. What is never written costs no memory.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How often an interrupted dump is repeated before the table counts as restless. Sixteen times were too few for 300 links
/// on a loaded machine where others came and went all the time; the deadline of the connection holds all the same.
const DUMP_TRIES: u32 = 64;

/// One request: the message, flags beyond request and acknowledgement, and words for the error.
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
    pub(super) what: String,
}

/// The same with a message in bytes, for what the packet crate does not know.
pub(super) struct Encoded {
    /// What it asks for, `RTM_NEWNEXTHOP` for one.
    pub(super) kind: u16,
    /// The fixed header of its kind, and attributes.
    pub(super) body: Vec<u8>,
    pub(super) flags: u16,
    pub(super) what: String,
}

impl From<Request> for Encoded {
    fn from(request: Request) -> Encoded {
        let Request { message, flags, what } = request;
        Encoded { kind: message.message_type(), body: body(&message), flags, what }
    }
}

fn body(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    body
}

/// A netlink socket of the namespace that it was opened in, whatever thread uses it later.
pub struct Conn {
    socket: Socket,
    sequence: u32,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Conn {
    /// Opens a socket in the calling thread's network namespace. Every verb on it ends by `deadline`.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn open(deadline: Instant) -> Result<Conn, NetlinkError> {
        let made = Socket::new(NETLINK_ROUTE).and_then(|mut socket| {
            socket.bind_auto()?;
            // Connected to the kernel, which then refuses what others send to this socket: in a pod's namespace the pod
            // itself may be allowed to send, and could forge answers.
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            // Without this the kernel sends the whole refused request back.
            socket.set_cap_ack(true)?;
            // Lets the kernel filter dumps, and refuse requests with filters that it does not know.
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => Ok(Conn { socket, sequence: 0, deadline, buffer: Vec::with_capacity(RECEIVE_BYTES) }),
            Err(error) => Err(NetlinkError { what: "open a netlink socket".into(), cause: Cause::Socket(error) }),
        }
    }

    /// One request, acknowledged. The messages that came before the acknowledgement: the object asked for, or an echo.
    pub(super) fn run(&mut self, request: impl Into<Encoded>) -> Result<Vec<Object>, NetlinkError> {
        let request = request.into();
        let what = request.what.clone();
        let mut answers = Vec::new();
        let mut results = self.exchange(vec![request], &mut answers)?;
        match results.pop() {
            Some(Ok(())) => Ok(answers),
            Some(Err(error)) => Err(error),
            None => Err(NetlinkError { what, cause: Cause::Garbled("no acknowledgement".into()) }),
        }
    }

    /// Several requests in one system call, in order. The kernel goes on after a refused one, so each has its own
    /// result, in the order of the requests.
    pub(super) fn batch(
        &mut self,
        requests: Vec<impl Into<Encoded>>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        self.exchange(requests.into_iter().map(Into::into).collect(), &mut Vec::new())
    }

    /// All objects of a table. Repeated while the kernel says that the table changed under it.
    pub(super) fn dump(&mut self, message: RouteNetlinkMessage, what: &str) -> Result<Vec<Object>, NetlinkError> {
        self.dump_kind(message.message_type(), &body(&message), what)
    }

    /// As [`Conn::dump`], for a table that the packet crate does not know: `kind` of the request, and what follows its header.
    pub(super) fn dump_kind(&mut self, kind: u16, body: &[u8], what: &str) -> Result<Vec<Object>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let mut bytes = Vec::new();
            let sequence = self.encode(kind, NLM_F_DUMP, body, &mut bytes);
            if let Some(objects) = self.dump_once(sequence, &bytes, what)? {
                return Ok(objects);
            }
        }
        Err(NetlinkError { what: what.into(), cause: Cause::Interrupted })
    }

    fn exchange(
        &mut self,
        requests: Vec<Encoded>,
        answers: &mut Vec<Object>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut whats = Vec::with_capacity(requests.len());
        let mut results: Vec<Option<Result<(), NetlinkError>>> = Vec::with_capacity(requests.len());
        // Where the last request that is sent begins, and which one it is.
        let mut last = None;
        for (position, request) in requests.into_iter().enumerate() {
            let before = bytes.len();
            self.encode(request.kind, request.flags, &request.body, &mut bytes);
            results.push(match failpoint::pass("netlink.request") {
                Ok(()) => None,
                Err(error) => {
                    bytes.truncate(before);
                    let cause = Cause::Kernel { errno: Errno::from_io_error(&error).unwrap_or(Errno::IO), text: None };
                    Some(Err(NetlinkError { what: request.what.clone(), cause }))
                }
            });
            if bytes.len() > before {
                last = Some((before, position));
            }
            whats.push(request.what);
        }
        let all = || whats.first().cloned().unwrap_or_default();
        // Empty only where a test has refused every request.
        if let Some((at, _)) = last {
            acknowledge(&mut bytes, at);
            self.send(&bytes, &all())?;
        }

        while let Some((_, last)) = last
            && results.get(last).is_some_and(Option::is_none)
        {
            for message in self.receive(&all())? {
                let position = message.sequence.wrapping_sub(first) as usize;
                // A late answer to an earlier request of this socket: not ours to read.
                let (Some(slot), Some(what)) = (results.get_mut(position), whats.get(position)) else { continue };
                match outcome(message) {
                    Outcome::Object(object) => answers.push(object),
                    Outcome::Done | Outcome::Nothing => {}
                    Outcome::Accepted => *slot = Some(Ok(())),
                    Outcome::Refused(cause) => *slot = Some(Err(NetlinkError { what: what.clone(), cause })),
                }
            }
        }
        // The answers come in the order of the requests, so whatever has none by now was accepted.
        Ok(results.into_iter().map(|result| result.unwrap_or(Ok(()))).collect())
    }

    /// `None` when the kernel marked the dump as interrupted.
    fn dump_once(&mut self, mine: u32, bytes: &[u8], what: &str) -> Result<Option<Vec<Object>>, NetlinkError> {
        self.send(bytes, what)?;
        let mut objects = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive(what)? {
                if message.sequence != mine {
                    continue;
                }
                interrupted |= failpoint::pass("netlink.dump").is_err();
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match outcome(message) {
                    Outcome::Object(object) => objects.push(object),
                    Outcome::Done => return Ok((!interrupted).then_some(objects)),
                    Outcome::Refused(cause) => return Err(NetlinkError { what: what.into(), cause }),
                    Outcome::Accepted | Outcome::Nothing => {}
                }
            }
        }
    }

    /// Appends the message to `bytes` and returns its sequence number.
    fn encode(&mut self, kind: u16, flags: u16, body: &[u8], bytes: &mut Vec<u8>) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        // A request is some hundred bytes long.
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.sequence
    }

    /// Hands the requests to the kernel, which carries them out inside this very call, one after the other, and puts the answers
    /// into the socket's queue. Whoever changes or looks at links meanwhile holds the one lock of the kernel that this needs
    /// (rtnl), mostly for microseconds, but for as long as a driver takes. A thread that waits for it can be woken by nothing,
    /// not even by the end of its process, so there is no deadline to set: it is looked at before. Lists are the same, piece by
    /// piece as they are read. Hence callers hold nothing meanwhile that another request needs in order to fail in time.
    fn send(&self, bytes: &[u8], what: &str) -> Result<(), NetlinkError> {
        let fail = |cause| NetlinkError { what: what.into(), cause };
        if Instant::now() >= self.deadline {
            return Err(fail(Cause::Late));
        }
        match failpoint::pass("netlink.send").and_then(|()| self.socket.send(bytes, 0)) {
            Ok(_) => Ok(()),
            Err(error) => Err(fail(Cause::Socket(error))),
        }
    }

    /// The messages of the next datagram.
    fn receive(&mut self, what: &str) -> Result<Vec<Message>, NetlinkError> {
        let fail = |cause| NetlinkError { what: what.into(), cause };
        // Mostly the answer is there when the request has been sent.
        let length = loop {
            self.buffer.clear();
            let flags = (RecvFlags::TRUNC | RecvFlags::DONTWAIT).bits().cast_signed();
            match failpoint::pass("netlink.receive").and_then(|()| self.socket.recv(&mut self.buffer, flags)) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !ready(&self.socket, self.deadline).map_err(|e| fail(Cause::Socket(e)))? {
                        return Err(fail(Cause::Late));
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(fail(Cause::Late)),
                Err(error) => return Err(fail(Cause::Socket(error))),
            }
        };
        match self.buffer.get(..length) {
            Some(datagram) => messages(datagram).map_err(fail),
            None => Err(fail(Cause::Garbled(format!("a datagram of {length} bytes")))),
        }
    }
}

/// Asks for an acknowledgement of the message that begins at this byte. Refusals come unasked, so a batch needs one, for its last
/// message: each further one costs a call and tells nothing.
fn acknowledge(bytes: &mut [u8], at: usize) {
    // The flags stand behind the length and the kind.
    if let Some([low, high]) = bytes.get_mut(at + 6..at + 8) {
        let [asks_low, asks_high] = NLM_F_ACK.to_ne_bytes();
        *low |= asks_low;
        *high |= asks_high;
    }
}

/// Waits until there is something to read, or an error to fetch. False at `deadline`.
///
/// Not by the socket's own time limit, which the kernel's coarse timers let be late by as much as an eighth.
fn ready(socket: &Socket, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use netlink_packet_route::link::LinkMessage;
    use netlink_sys::protocols::NETLINK_USERSOCK;

    use super::*;

    const ERROR: u16 = 2;
    const DONE: u16 = 3;

    /// A connection whose other side is not the kernel but the test.
    fn scripted() -> (Conn, Socket) {
        let open = || {
            let mut socket = Socket::new(NETLINK_USERSOCK).expect("a socket");
            let address = socket.bind_auto().expect("bound");
            (socket, address)
        };
        let ((kernel, kernel_address), (socket, address)) = (open(), open());
        socket.connect(&kernel_address).expect("connected");
        kernel.connect(&address).expect("connected");
        let deadline = Instant::now() + Duration::from_secs(20);
        (Conn { socket, sequence: 0, deadline, buffer: Vec::with_capacity(RECEIVE_BYTES) }, kernel)
    }

    /// One message with a number behind its header: an acknowledgement or the end of a list.
    fn message(kind: u16, flags: u16, sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(36u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]); // port
        bytes.extend(code.to_ne_bytes());
        bytes.resize(36, 0); // the header of the request
        bytes
    }

    fn says(kernel: &Socket, bytes: &[u8]) {
        assert_eq!(kernel.send(bytes, 0).expect("sent"), bytes.len());
    }

    // covers: FM-B05
    #[test]
    fn a_late_answer_is_never_taken_for_the_answer_to_the_next_request() {
        let (mut conn, kernel) = scripted();
        let later = std::mem::replace(&mut conn.deadline, Instant::now());
        let error = conn.delete_link(7).expect_err("nobody answers");
        assert_eq!(error.to_string(), "delete link 7: the kernel did not answer in time");
        assert!(error.is_transient());
        conn.deadline = later;
        says(&kernel, &message(ERROR, 0, 1, 0));
        says(&kernel, &message(ERROR, 0, 2, -16));
        let error = conn.delete_link(8).expect_err("busy, whatever became of link 7");
        assert!(error.to_string().starts_with("delete link 8: Device or resource busy"), "{error}");
    }

    #[test]
    fn of_a_batch_the_refusals_and_the_last_acknowledgement_tell_of_all() {
        let (mut conn, kernel) = scripted();
        let request = |index: u32| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            Request { message: RouteNetlinkMessage::SetLink(message), flags: 0, what: format!("link {index}") }
        };
        says(&kernel, &message(ERROR, 0, 2, -16));
        says(&kernel, &message(ERROR, 0, 4, 0));
        let results = conn.batch((1..=4).map(request).collect()).expect("answered");
        let told: Vec<String> =
            results.into_iter().map(|result| result.map_or_else(|e| e.what, |()| "done".into())).collect();
        assert_eq!(told, ["done", "link 2", "done", "done"]);
        let mut sent = Vec::with_capacity(1024);
        kernel.recv(&mut sent, 0).expect("sent");
        let asked: Vec<bool> =
            messages(&sent).expect("whole").iter().map(|message| message.flags & NLM_F_ACK != 0).collect();
        assert_eq!(asked, [false, false, false, true]);
        // Refused itself, the last one needs no other acknowledgement.
        says(&kernel, &message(ERROR, 0, 6, -16));
        let results = conn.batch(vec![request(5), request(6)]).expect("answered");
        assert!(matches!(results.as_slice(), [Ok(()), Err(_)]));
    }

    // covers: FM-B05
    #[test]
    fn a_late_list_is_never_taken_for_the_next_one() {
        let (mut conn, kernel) = scripted();
        let later = std::mem::replace(&mut conn.deadline, Instant::now());
        conn.links().expect_err("nobody answers");
        conn.deadline = later;
        says(&kernel, &message(DONE, 0, 1, 0));
        says(&kernel, &message(DONE, 0, 2, -12));
        let error = conn.links().expect_err("out of memory, whatever the first one said");
        assert!(error.to_string().starts_with("list links: Cannot allocate memory"), "{error}");
    }

    // covers: FM-B04 FM-Q07
    #[test]
    fn an_answer_that_never_comes_is_waited_for_to_the_deadline_and_not_an_eighth_longer() {
        let (mut conn, _kernel) = scripted();
        // The kernel's own timer for a limit of this length is late by 228 ms.
        let limit = Duration::from_millis(2300);
        let began = Instant::now();
        conn.deadline = began + limit;
        let error = conn.link_at(7).expect_err("nobody answers");
        let took = began.elapsed();
        assert!(error.to_string().ends_with("the kernel did not answer in time"), "{error}");
        assert!(took >= limit && took < limit + Duration::from_millis(150), "{took:?}");
    }

    #[test]
    fn no_request_is_sent_when_its_time_is_over() {
        let (mut conn, kernel) = scripted();
        conn.deadline = Instant::now();
        conn.delete_link(7).expect_err("late");
        let mut space = [0u8; 64];
        let heard = kernel.recv(&mut &mut space[..], RecvFlags::DONTWAIT.bits().cast_signed());
        assert_eq!(heard.expect_err("nothing").kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn an_interrupted_list_is_asked_for_again_and_not_for_ever() {
        let (mut conn, kernel) = scripted();
        says(&kernel, &message(DONE, NLM_F_DUMP_INTR, 1, 0));
        says(&kernel, &message(DONE, 0, 2, 0));
        let all = || RouteNetlinkMessage::GetLink(LinkMessage::default());
        assert_eq!(conn.dump(all(), "list links").expect("the second one is whole"), []);
        for sequence in 3..3 + DUMP_TRIES {
            says(&kernel, &message(DONE, NLM_F_DUMP_INTR, sequence, 0));
        }
        let error = conn.dump(all(), "list links").expect_err("never whole").to_string();
        assert_eq!(error, "list links: the table kept changing while it was read");
    }

    // covers: FM-B03
    #[test]
    fn what_does_not_fit_or_was_cut_off_is_an_error_and_never_half_an_answer() {
        let (mut conn, kernel) = scripted();
        let mut long = message(ERROR, 0, 1, 0);
        long.resize(RECEIVE_BYTES + 1, 0);
        says(&kernel, &long);
        let error = conn.delete_link(7).expect_err("it does not fit").to_string();
        assert_eq!(error, "delete link 7: the kernel's answer could not be read: a datagram of 65537 bytes");
        says(&kernel, &message(ERROR, 0, 2, 0)[..30]);
        let error = conn.delete_link(7).expect_err("it was cut off").to_string();
        assert_eq!(error, "delete link 7: the kernel's answer could not be read: a message of 36 bytes in 30 bytes");
    }

    // covers: FM-B05
    #[test]
    fn a_link_that_is_there_and_is_not_shown_is_not_a_link_that_is_gone() {
        let (mut conn, kernel) = scripted();
        says(&kernel, &message(ERROR, 0, 1, 0));
        let error = conn.link_at(7).expect_err("no answer").to_string();
        assert_eq!(error, "look up link 7: the kernel's answer could not be read: the link cannot be read");
        says(&kernel, &message(ERROR, 0, 2, -Errno::NODEV.raw_os_error()));
        assert_eq!(conn.link_at(7).expect("an answer"), None);
    }

    #[test]
    fn nobody_but_the_kernel_can_answer() {
        let conn = Conn::open(Instant::now()).expect("a socket");
        let mut address = SocketAddr::new(0, 0);
        conn.socket.get_address(&mut address).expect("its address");
        let stranger = Socket::new(NETLINK_ROUTE).expect("a socket");
        let refused = stranger.send_to(&message(ERROR, 0, 1, 0), &address, 0).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    }
}
