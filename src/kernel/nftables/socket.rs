//! The one socket to the packet filter: it stays open, since the kernel makes whoever closes one wait after removals.
//!
//! Owns sequence numbers, deadlines, and the reading of answers: acknowledgements, the kernel's own error texts, lists. Must not
//! know what is asked for. Never cloned, as the crate's socket closes its descriptor once per clone.

use std::io::{self, ErrorKind};
use std::time::Instant;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use super::uapi::*;
use super::wire::{Writer, find};
use super::{Cause, NftError};
use crate::kernel::netlink::message::{HEADER, Message, messages, number, text};
use crate::process::failpoint;

/// The kernel sends lists in pieces of at most 32 KiB, and single messages below 64 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Room for answers: each refused message of a batch has one, for which the kernel takes about a KiB.
const ANSWERS: usize = 1024 * 1024;

/// Most bytes of one batch. The kernel takes none of this before it is sent.
const BATCH: usize = 64 * 1024 * 1024;

/// The packet filter of one network namespace, whatever thread uses it later.
pub struct Nftables {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Nftables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nftables").field("port", &self.port).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// What the kernel answers to a request.
pub(super) enum Answer {
    /// It has been carried out; of a list: that was all.
    Done,
    /// It was refused, because of what is at this offset of the request, if the kernel says so.
    Refused { errno: Errno, text: Option<String>, offset: Option<usize> },
    /// What it asked for: the attributes of an object, behind its fixed header.
    Object(Vec<u8>),
    /// Nothing that anybody waits for.
    Nothing,
}

impl Nftables {
    /// Opens a socket in the calling thread's network namespace. A kernel that has a part of netfilter, but not nf_tables, is known
    /// by the first request.
    ///
    /// # Errors
    /// [`Cause::Absent`]: this kernel has nothing of netfilter. The socket could not be made.
    pub fn open() -> Result<Nftables, NftError> {
        let opened = failpoint::pass("nftables.open").and_then(|()| Socket::new(NETLINK_NETFILTER));
        let made = opened.and_then(|mut socket| {
            let address = socket.bind_auto()?;
            // Connected to the kernel, which then refuses what others send to this socket.
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            // Without this the kernel sends the whole refused request back.
            socket.set_cap_ack(true)?;
            // Beyond the host's own bounds where this process may; otherwise as much as they let.
            if sockopt::set_socket_send_buffer_size_force(&socket, BATCH).is_err() {
                sockopt::set_socket_send_buffer_size(&socket, BATCH)?;
            }
            if sockopt::set_socket_recv_buffer_size_force(&socket, ANSWERS).is_err() {
                sockopt::set_socket_recv_buffer_size(&socket, ANSWERS)?;
            }
            Ok((socket, address.port_number()))
        });
        let (socket, port) = made.map_err(|error| {
            let absent = Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT);
            let cause = if absent { Cause::Absent } else { Cause::Socket(error) };
            NftError { what: "open a socket to the packet filter".into(), cause }
        })?;
        Ok(Nftables::of(socket, port))
    }

    /// Speaks by this socket, which has this port.
    pub(super) fn of(socket: Socket, port: u32) -> Nftables {
        Nftables { socket, port, sequence: 0, buffer: vec![0; RECEIVE_BYTES] }
    }

    /// Its netlink port, by which a listener knows what is changed by it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The next sequence number.
    pub(super) fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sequence numbers up to before this one have been used.
    pub(super) fn used(&mut self, next: u32) {
        self.sequence = next.wrapping_sub(1);
    }

    /// One request for one object: its attributes. `None` if there is no such thing.
    pub(super) fn get(
        &mut self,
        (kind, family): (u16, u8),
        fill: impl FnOnce(&mut Writer),
        (what, deadline): (&str, Instant),
    ) -> Result<Option<Vec<u8>>, NftError> {
        let sequence = self.next();
        let mut request = Writer::default();
        request.message(kind, NLM_F_REQUEST, sequence, (family, 0), fill);
        self.send(&request.0, what, deadline)?;
        loop {
            for message in self.receive(what, deadline)?.into_iter().filter(|message| message.sequence == sequence) {
                match answer(&message).map_err(|cause| NftError { what: what.into(), cause })? {
                    Answer::Object(object) => return Ok(Some(object)),
                    Answer::Refused { errno: Errno::NOENT, .. } => return Ok(None),
                    Answer::Refused { errno, text, .. } => return Err(refused(what.into(), errno, text, None)),
                    Answer::Done | Answer::Nothing => {}
                }
            }
        }
    }

    /// A list of objects, each by its attributes. `None` if it changed while it was sent.
    pub(super) fn list(
        &mut self,
        (kind, family): (u16, u8),
        fill: impl FnOnce(&mut Writer),
        (what, deadline): (&str, Instant),
    ) -> Result<Option<Vec<Vec<u8>>>, NftError> {
        let sequence = self.next();
        let mut request = Writer::default();
        request.message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, (family, 0), fill);
        self.send(&request.0, what, deadline)?;
        let (mut objects, mut interrupted) = (Vec::new(), false);
        loop {
            for message in self.receive(what, deadline)?.into_iter().filter(|message| message.sequence == sequence) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match answer(&message).map_err(|cause| NftError { what: what.into(), cause })? {
                    Answer::Object(object) => objects.push(object),
                    Answer::Done => return Ok((!interrupted).then_some(objects)),
                    // It is gone, which a list of what it was in shows.
                    Answer::Refused { errno: Errno::NOENT | Errno::INTR | Errno::AGAIN, .. } => return Ok(None),
                    Answer::Refused { errno, text, .. } => return Err(refused(what.into(), errno, text, None)),
                    Answer::Nothing => {}
                }
            }
        }
    }

    /// Hands requests to the kernel, which carries them out inside this very call. A batch waits in it for the batches of others;
    /// nothing can wake a thread from that, so the deadline is looked at before.
    pub(super) fn send(&self, bytes: &[u8], what: &str, deadline: Instant) -> Result<(), NftError> {
        let fail = |cause| NftError { what: what.into(), cause };
        if Instant::now() >= deadline {
            return Err(fail(Cause::Late));
        }
        match failpoint::pass("nftables.send").and_then(|()| self.socket.send(bytes, 0)) {
            Ok(_) => Ok(()),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                Err(fail(Cause::TooLarge(bytes.len())))
            }
            Err(error) => Err(fail(Cause::Socket(error))),
        }
    }

    /// The messages of the next datagram.
    pub(super) fn receive(&mut self, what: &str, deadline: Instant) -> Result<Vec<Message>, NftError> {
        let fail = |cause| NftError { what: what.into(), cause };
        let length = loop {
            let mut space = self.buffer.as_mut_slice();
            let flags = (RecvFlags::TRUNC | RecvFlags::DONTWAIT).bits().cast_signed();
            match failpoint::pass("nftables.receive").and_then(|()| self.socket.recv(&mut space, flags)) {
                Ok(length) => break length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !ready(&self.socket, deadline).map_err(|error| fail(Cause::Socket(error)))? {
                        return Err(fail(Cause::Late));
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(fail(Cause::Late)),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => return Err(fail(Cause::Lost)),
                Err(error) => return Err(fail(Cause::Socket(error))),
            }
        };
        match self.buffer.get(..length) {
            Some(datagram) => {
                messages(datagram).map_err(|_| fail(Cause::Garbled(format!("{length} bytes, and not whole messages"))))
            }
            None => Err(fail(Cause::Garbled(format!("a datagram of {length} bytes")))),
        }
    }
}

/// The error of a refused request.
pub(super) fn refused(what: String, errno: Errno, text: Option<String>, part: Option<String>) -> NftError {
    NftError { what, cause: Cause::Kernel { errno, text, part } }
}

/// What a message means to whoever asked.
///
/// # Errors
/// [`Cause::Garbled`]: it is no whole answer.
pub(super) fn answer(message: &Message) -> Result<Answer, Cause> {
    let code = message.body.first_chunk().copied().map(i32::from_ne_bytes);
    let attributes = match (message.kind, code) {
        (NLMSG_ERROR | NLMSG_DONE, Some(0)) => return Ok(Answer::Done),
        // They follow the header of the refused request, to which the socket has it cut.
        (NLMSG_ERROR, Some(_)) => 4 + HEADER,
        (NLMSG_DONE, Some(_)) => 4,
        (NLMSG_ERROR | NLMSG_DONE, None) => return Err(Cause::Garbled("an answer without a number".into())),
        (kind, _) if kind >> 8 == NFNL_SUBSYS_NFTABLES => {
            return Ok(Answer::Object(message.body.get(NFGEN_SIZE..).unwrap_or_default().into()));
        }
        _ => return Ok(Answer::Nothing),
    };
    let code = code.unwrap_or_default();
    let Some(errno) = Errno::from_io_error(&io::Error::from_raw_os_error(code.saturating_abs())) else {
        return Err(Cause::Garbled(format!("an error number of {code}")));
    };
    let attributes = message.body.get(attributes..).filter(|_| message.flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
    Ok(Answer::Refused {
        errno,
        text: find(attributes, NLMSGERR_ATTR_MSG).map(text),
        offset: find(attributes, NLMSGERR_ATTR_OFFS).and_then(number).map(|offset| offset as usize),
    })
}

/// Waits until there is something to read, or an error to fetch. False at `deadline`.
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
