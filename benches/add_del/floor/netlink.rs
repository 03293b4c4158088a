//! rtnetlink in bytes: a batch of messages, and a socket that sends it in one call and hears of what was refused and of the last one.
//!
//! Owns nothing of flock's: a floor that shared its code would share its faults.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_SETLINK: u16 = 19;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_NEWROUTE: u16 = 24;
pub const RTM_NEWNEIGH: u16 = 28;
pub const CREATE: u16 = 0x400;
pub const EXCLUSIVE: u16 = 0x200;
pub const REPLACE: u16 = 0x100;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;
/// `sizeof(nlmsghdr)`.
const HEADER: usize = 16;
/// `RTMGRP_LINK`.
const LINKS: u32 = 1;

/// Messages that are sent at once.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    count: u32,
}

impl Batch {
    /// Begins a message: its kind, its flags, and its fixed header.
    pub fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> &mut Batch {
        self.last = self.bytes.len();
        self.count += 1;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.raw(fixed)
    }

    /// Bytes of the message, padded.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Batch {
        self.bytes.extend(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.close(self.last, self.bytes.len() - self.last);
        self
    }

    /// An attribute of the message.
    pub fn attribute(&mut self, number: u16, value: &[u8]) -> &mut Batch {
        let length = u16::try_from(value.len() + 4).expect("short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(number.to_ne_bytes());
        self.raw(value)
    }

    /// An attribute that has others inside.
    pub fn nest(&mut self, number: u16, inside: impl FnOnce(&mut Batch)) -> &mut Batch {
        let at = self.bytes.len();
        self.attribute(number, &[]);
        inside(self);
        let length = u16::try_from(self.bytes.len() - at).expect("short");
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn close(&mut self, at: usize, length: usize) {
        let length = u32::try_from(length).expect("short");
        self.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A socket of the namespace in which it was opened.
pub struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> Socket {
        Socket::of_groups(0)
    }

    /// One that hears which links come and go.
    pub fn listening() -> Socket {
        let socket = Socket::of_groups(LINKS);
        // As a daemon has it, which must not lose one when a thousand go at once.
        set_socket_recv_buffer_size_force(&socket.0, 8 << 20).ok();
        socket
    }

    fn of_groups(groups: u32) -> Socket {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // The protocol of routes and links is the one of number 0.
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).expect("a netlink socket");
        bind(&socket, &SocketAddrNetlink::new(0, groups)).expect("bound");
        Socket(socket)
    }

    /// Sends messages, of which none is confirmed: the kernel has carried them out when this returns, and the next [`Socket::confirmed`]
    /// hears of it if it has not.
    pub fn send(&self, batch: &Batch) {
        let sent = send(&self.0, &batch.bytes, SendFlags::empty()).expect("sent");
        assert_eq!(sent, batch.bytes.len());
    }

    /// Sends messages, and waits for the answer to the last one.
    pub fn confirmed(&self, mut batch: Batch) -> Result<(), Errno> {
        let flags = batch.last + 6;
        batch.bytes[flags] |= u8::try_from(ACKNOWLEDGE).expect("a byte");
        self.send(&batch);
        let mut buffer = [0; 8192];
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).expect("an answer");
            for message in messages(&buffer[..length]).filter(|message| message.kind == ERROR) {
                match i32::from_ne_bytes(message.body[..4].try_into().expect("a number")) {
                    0 if message.sequence == batch.count => return Ok(()),
                    0 => {}
                    code => return Err(Errno::from_raw_os_error(-code)),
                }
            }
        }
    }

    /// Waits for announcements, and gives the index of each link that has gone.
    pub fn hear(&self, mut gone: impl FnMut(u32)) {
        let mut buffer = [0; 16384];
        let length = match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(Errno::NOBUFS) => panic!("announcements were lost"),
            Err(error) => panic!("{error}"),
        };
        for message in messages(&buffer[..length]).filter(|message| message.kind == RTM_DELLINK) {
            gone(u32::from_ne_bytes(message.body[4..8].try_into().expect("a number")));
        }
    }
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let number = |at: usize| Some(u32::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let (length, sequence) = (number(0)? as usize, number(8)?);
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, body })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn messages_attributes_and_their_padding_are_as_the_kernel_reads_them() {
        let mut batch = Batch::default();
        batch.message(RTM_NEWLINK, CREATE, &[0; 16]).attribute(3, b"abcde").nest(18, |inside| {
            inside.attribute(1, b"veth");
        });
        batch.message(RTM_DELLINK, 0, &[7; 16]);
        let hex: String = batch.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let words = [
            "38000000100001040100000000000000",
            "00000000000000000000000000000000",
            "090003006162636465000000",
            "0c001200",
            "0800010076657468",
            "20000000110001000200000000000000",
            "07070707070707070707070707070707",
        ];
        assert_eq!(hex, words.concat());
    }

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        let mut batch = Batch::default();
        batch.message(2, 0, &[1, 0, 0, 0, 9]).message(17, 0, &[0; 16]);
        let read: Vec<_> = messages(&batch.bytes).map(|message| (message.kind, message.sequence)).collect();
        assert_eq!(read, [(2, 1), (17, 2)]);
        assert_eq!(messages(&batch.bytes[..batch.bytes.len() - 1]).count(), 1);
    }
}
