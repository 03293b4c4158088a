//! The one connection type: a netlink socket of one network namespace, with sequence numbers, acknowledgements, the
//! kernel's own error texts, deadlines, and dumps that are repeated when the table changed meanwhile.
//!
//! The only user of the raw socket. Never cloned: the crate's socket closes its descriptor once per clone.

use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::net::RecvFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::{Cause, NetlinkError};

/// The kernel sends dumps in pieces of at most 32 KiB, and single messages far below.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How often an interrupted dump is repeated before the table counts as restless.
const DUMP_TRIES: u32 = 16;

/// Attribute of an extended acknowledgement that holds a text (`NLMSGERR_ATTR_MSG`).
const ACK_TEXT: u16 = 1;

/// One request: the message, flags beyond request and acknowledgement, and words for the error.
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
    pub(super) what: String,
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
            socket.set_ext_ack(true)?;
            // Without this the kernel sends the whole refused request back.
            socket.set_cap_ack(true)?;
            // Lets the kernel filter dumps, and refuse requests with filters that it does not know.
            socket.set_netlink_get_strict_chk(true)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => Ok(Conn { socket, sequence: 0, deadline, buffer: vec![0; RECEIVE_BYTES] }),
            Err(error) => Err(NetlinkError { what: "open a netlink socket".into(), cause: Cause::Socket(error) }),
        }
    }

    /// One request, acknowledged. The messages that came before the acknowledgement: the object asked for, or an echo.
    pub(super) fn run(&mut self, request: Request) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
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
    pub(super) fn batch(&mut self, requests: Vec<Request>) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        self.exchange(requests, &mut Vec::new())
    }

    /// All objects of a table. Repeated while the kernel says that the table changed under it.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if let Some(objects) = self.dump_once(message.clone(), what)? {
                return Ok(objects);
            }
        }
        Err(NetlinkError { what: what.into(), cause: Cause::Restless })
    }

    fn exchange(
        &mut self,
        requests: Vec<Request>,
        answers: &mut Vec<RouteNetlinkMessage>,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        let mut whats = Vec::with_capacity(requests.len());
        for request in requests {
            self.encode(request.message, request.flags | NLM_F_ACK, &mut bytes);
            whats.push(request.what);
        }
        let all = || whats.first().cloned().unwrap_or_default();
        self.send(&bytes, &all())?;

        let mut results: Vec<Option<Result<(), NetlinkError>>> = whats.iter().map(|_| None).collect();
        while results.iter().any(Option::is_none) {
            for message in self.receive(&all())? {
                let position = message.header.sequence_number.wrapping_sub(first) as usize;
                // A late answer to an earlier request of this socket: not ours to read.
                let (Some(slot), Some(what)) = (results.get_mut(position), whats.get(position)) else { continue };
                match outcome(message) {
                    Outcome::Object(object) => answers.push(*object),
                    Outcome::Done | Outcome::Nothing => {}
                    Outcome::Accepted => *slot = Some(Ok(())),
                    Outcome::Refused(cause) => *slot = Some(Err(NetlinkError { what: what.clone(), cause })),
                }
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// `None` when the kernel marked the dump as interrupted.
    fn dump_once(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let mut bytes = Vec::new();
        let mine = self.encode(message, NLM_F_DUMP, &mut bytes);
        self.send(&bytes, what)?;
        let mut objects = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive(what)? {
                if message.header.sequence_number != mine {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match outcome(message) {
                    Outcome::Object(object) => objects.push(*object),
                    Outcome::Done => return Ok((!interrupted).then_some(objects)),
                    Outcome::Refused(cause) => return Err(NetlinkError { what: what.into(), cause }),
                    Outcome::Accepted | Outcome::Nothing => {}
                }
            }
        }
    }

    /// Appends the message to `bytes` and returns its sequence number.
    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        if let Some(space) = bytes.get_mut(start..) {
            message.serialize(space);
        }
        self.sequence
    }

    fn send(&self, bytes: &[u8], what: &str) -> Result<(), NetlinkError> {
        match self.socket.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(error) => Err(NetlinkError { what: what.into(), cause: Cause::Socket(error) }),
        }
    }

    /// The messages of one datagram, in order. One that cannot be decoded is left out, so that an odd link of somebody
    /// else never hides the others.
    fn receive(&mut self, what: &str) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
        let fail = |cause| NetlinkError { what: what.into(), cause };
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(fail(Cause::Late));
        }
        // A timeout of zero would mean "for ever", and the kernel rounds down.
        let left = left.max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, Timeout::Recv, Some(left)).map_err(|e| fail(Cause::Socket(e.into())))?;
        let length = loop {
            let mut space = self.buffer.as_mut_slice();
            match self.socket.recv(&mut space, RecvFlags::TRUNC.bits().cast_signed()) {
                Ok(length) => break length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(fail(Cause::Late)),
                Err(error) => return Err(fail(Cause::Socket(error))),
            }
        };
        let Some(mut rest) = self.buffer.get(..length) else {
            return Err(fail(Cause::Garbled(format!("a datagram of {length} bytes"))));
        };
        let mut messages = Vec::new();
        while let Some(&[a, b, c, d]) = rest.get(..4) {
            let length = u32::from_ne_bytes([a, b, c, d]) as usize;
            let Some(one) = rest.get(..length).filter(|one| one.len() >= 16) else {
                return Err(fail(Cause::Garbled(format!("a message of {length} bytes in {} bytes", rest.len()))));
            };
            messages.extend(NetlinkMessage::deserialize(one));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

enum Outcome {
    Object(Box<RouteNetlinkMessage>),
    Accepted,
    Refused(Cause),
    Done,
    Nothing,
}

fn outcome(message: NetlinkMessage<RouteNetlinkMessage>) -> Outcome {
    let has_text = message.header.flags & NLM_F_ACK_TLVS != 0;
    match message.payload {
        NetlinkPayload::InnerMessage(object) => Outcome::Object(Box::new(object)),
        NetlinkPayload::Error(error) => match error.code {
            None => Outcome::Accepted,
            Some(code) => Outcome::Refused(Cause::Kernel {
                errno: code.get().abs(),
                // The attributes follow the header of the refused request, which capping cut to 16 bytes.
                text: error.header.get(16..).filter(|_| has_text).and_then(ack_text),
            }),
        },
        NetlinkPayload::Done(done) => match done.code {
            // An empty table and a table that does not exist are the same to every caller.
            0 => Outcome::Done,
            code if code == -super::ENOENT => Outcome::Done,
            code => Outcome::Refused(Cause::Kernel { errno: code.abs(), text: ack_text(&done.extended_ack) }),
        },
        _ => Outcome::Nothing,
    }
}

/// The kernel's words in an extended acknowledgement. The packet crate leaves its attributes undecoded.
fn ack_text(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes).flatten().find(|nla: &NlaBuffer<&[u8]>| nla.kind() == ACK_TEXT).map(|nla| {
        let text = nla.value();
        String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
    })
}
