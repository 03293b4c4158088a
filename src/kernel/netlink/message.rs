//! Reads what the kernel says: messages out of a datagram, and attributes out of a message; and writes an attribute.
//!
//! Each kernel release adds attributes, and drivers and users fill them as they like, so a reader that has to understand all
//! of them loses a link for something that flock never looks at. Here an attribute is a number and bytes; whoever wants one
//! takes it, and what is odd or unknown is passed over. Must not ask the kernel anything.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

use super::Cause;
use super::uapi::{
    AF_INET, AF_INET6, NLA_TYPE_MASK, NLM_F_ACK_TLVS, NLMSG_DONE, NLMSG_ERROR, NLMSG_MIN_TYPE, NLMSGERR_ATTR_MSG,
};

/// Size of the header of a message (`nlmsghdr`).
pub(in crate::kernel) const HEADER: usize = 16;

/// One message, not yet read any further.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Message {
    /// What it is about, `RTM_NEWLINK` for one.
    pub(in crate::kernel) kind: u16,
    pub(in crate::kernel) flags: u16,
    /// The sequence number of the request that it answers.
    pub(in crate::kernel) sequence: u32,
    /// The socket that it is for, or, of an announcement, whose change it tells of.
    pub(in crate::kernel) port: u32,
    pub(in crate::kernel) body: Vec<u8>,
}

/// The messages of one datagram, in order.
///
/// # Errors
/// [`Cause::Garbled`]: it does not consist of whole messages.
pub(in crate::kernel) fn messages(datagram: &[u8]) -> Result<Vec<Message>, Cause> {
    let mut rest = datagram;
    let mut messages = Vec::new();
    while let Some(length) = u32_at(rest, 0) {
        let length = length as usize;
        let Some(body) = rest.get(HEADER..length) else {
            return Err(Cause::Garbled(format!("a message of {length} bytes in {} bytes", rest.len())));
        };
        let (Some(kind), Some(flags), Some(sequence), Some(port)) =
            (u16_at(rest, 4), u16_at(rest, 6), u32_at(rest, 8), u32_at(rest, 12))
        else {
            break;
        };
        messages.push(Message { kind, flags, sequence, port, body: body.into() });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// A thing that the kernel shows: its fixed header and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kernel) struct Object {
    kind: u16,
    body: Vec<u8>,
}

impl Object {
    /// What it is about, `RTM_NEWLINK` for one.
    pub(in crate::kernel) fn kind(&self) -> u16 {
        self.kind
    }

    /// The fixed header of `SIZE` bytes, if it is an object of this kind.
    pub(in crate::kernel) fn of<const SIZE: usize>(&self, kind: u16) -> Option<&[u8; SIZE]> {
        self.body.first_chunk().filter(|_| self.kind == kind)
    }

    /// The attributes behind a fixed header of `size` bytes.
    pub(in crate::kernel) fn attributes(&self, size: usize) -> Attributes<'_> {
        Attributes(self.body.get(size..).unwrap_or_default())
    }
}

/// What a message means to whoever asked.
pub(in crate::kernel) enum Outcome {
    Object(Object),
    Accepted,
    Refused(Cause),
    Done,
    Nothing,
}

pub(in crate::kernel) fn outcome(message: Message) -> Outcome {
    let refused = |code: i32, attributes: usize| {
        let Some(errno) = Errno::from_io_error(&io::Error::from_raw_os_error(code.saturating_abs())) else {
            return Outcome::Refused(Cause::Garbled(format!("an error number of {code}")));
        };
        let attributes = message.body.get(attributes..).filter(|_| message.flags & NLM_F_ACK_TLVS != 0);
        Outcome::Refused(Cause::Kernel { errno, text: attributes.and_then(ack_text) })
    };
    let code = u32_at(&message.body, 0).map(u32::cast_signed);
    match (message.kind, code) {
        (NLMSG_MIN_TYPE.., _) => Outcome::Object(Object { kind: message.kind, body: message.body }),
        (NLMSG_ERROR, Some(0)) => Outcome::Accepted,
        // The attributes follow the header of the refused request, to which the connection has it cut.
        (NLMSG_ERROR, Some(code)) => refused(code, 4 + HEADER),
        // An empty table and a table that does not exist are the same to every caller.
        (NLMSG_DONE, Some(0)) => Outcome::Done,
        (NLMSG_DONE, Some(code)) if code == -Errno::NOENT.raw_os_error() => Outcome::Done,
        (NLMSG_DONE, Some(code)) => refused(code, 4),
        _ => Outcome::Nothing,
    }
}

/// The kernel's words in an extended acknowledgement.
fn ack_text(attributes: &[u8]) -> Option<String> {
    Attributes(attributes).find(|(number, _)| *number == NLMSGERR_ATTR_MSG).map(|(_, value)| text(value))
}

/// The attributes of an object, each a number and a value. Ends where the bytes do not hold a whole one any more.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The attributes inside the value of one.
    pub(in crate::kernel) fn nested(value: &'a [u8]) -> Attributes<'a> {
        Attributes(value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let (length, kind) = (usize::from(u16_at(self.0, 0)?), u16_at(self.0, 2)?);
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & NLA_TYPE_MASK, value))
    }
}

/// An attribute with its padding, as it is sent.
pub(in crate::kernel) fn attribute(number: u16, value: &[u8]) -> Vec<u8> {
    // What flock sends is a few hundred bytes long.
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [&length.to_ne_bytes()[..], &number.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A number of four bytes.
pub(in crate::kernel) fn number(value: &[u8]) -> Option<u32> {
    u32_at(value, 0).filter(|_| value.len() == 4)
}

/// A text up to its end mark, if it has one. What is not UTF-8 is shown as such and never an error: the kernel takes any
/// bytes for a name or an alias.
pub(in crate::kernel) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// An address of the family that the object's header names.
pub(in crate::kernel) fn address(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        AF_INET6 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

pub(in crate::kernel) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

/// A gateway of the other family: two bytes that name it, then the address.
pub(in crate::kernel) fn other_family(value: &[u8]) -> Option<IpAddr> {
    let (family, ip) = value.split_first_chunk()?;
    address(u8::try_from(u16::from_ne_bytes(*family)).ok()?, ip)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::NetlinkError;
    use super::super::foreign::{NexthopObjects, add_nexthop, as_foreign_route};
    use super::super::link::as_link;
    use super::super::nexthop::{Content, as_nexthop};
    use super::super::proxy::as_proxy;
    use super::super::read::{as_address, as_permanent_neighbour, as_route};
    use super::super::route::as_shown;
    use super::*;

    /// Values that no attribute should have, of whatever size it is.
    pub(in super::super) const ODD: [&[u8]; 6] = [&[], &[1], &[0xff; 3], &[0xff; 4], &[0xff; 65], &[0; 2000]];

    /// The object that a message of this kind with these parts shows.
    pub(in super::super) fn object(kind: u16, parts: &[&[u8]]) -> Object {
        let body = parts.concat();
        let length = u32::try_from(HEADER + body.len()).expect("short");
        let datagram = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat();
        let mut messages = messages(&datagram).expect("a whole message");
        let Some(Outcome::Object(object)) = messages.pop().map(outcome) else { panic!("an object") };
        object
    }

    /// Reads `datagram` as every table that flock asks for.
    fn read_all(datagram: &[u8]) {
        let Ok(messages) = messages(datagram) else { return };
        assert!(messages.len() <= datagram.len() / HEADER);
        let mut objects = NexthopObjects::default();
        for message in messages {
            match outcome(message) {
                Outcome::Object(object) => {
                    let link = as_link(&object);
                    // Bytes that are no text become three bytes each.
                    let texts = link.map_or(0, |link| link.name.len() + link.alias.unwrap_or_default().len());
                    assert!(texts <= 3 * datagram.len());
                    as_address(&object);
                    as_permanent_neighbour(&object);
                    as_proxy(&object);
                    let net = as_route(&object).map(|route| route.to);
                    assert!(net.is_none_or(|net| net.prefix_len() <= net.max_prefix_len()));
                    add_nexthop(&object, &mut objects);
                    as_foreign_route(&object, &objects);
                    let net = as_shown(&object).map(|route| route.key.to);
                    assert!(net.is_none_or(|net| net.prefix_len() <= net.max_prefix_len()));
                    if let Some((_, _, Content::Group(group))) = as_nexthop(&object) {
                        assert!(group.members.is_sorted() && group.members.len() <= datagram.len() / 8);
                    }
                }
                Outcome::Refused(cause) => {
                    assert!(!NetlinkError { what: "do it".into(), cause }.to_string().is_empty())
                }
                Outcome::Accepted | Outcome::Done | Outcome::Nothing => {}
            }
        }
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_read() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/netlink");
        let seeds: Vec<Vec<u8>> = fs::read_dir(seeds)
            .expect("a directory")
            .map(|seed| fs::read(seed.expect("an entry").path()).expect("a file"))
            .collect();
        assert!(seeds.len() > 20);
        for mut seed in seeds {
            for end in 0..=seed.len() {
                read_all(&seed[..end]);
            }
            for at in 0..seed.len() {
                let whole = seed[at];
                for odd in [0, 1, 4, 0x7f, 0xff, whole ^ 1, whole ^ 0x80] {
                    seed[at] = odd;
                    read_all(&seed);
                }
                seed[at] = whole;
            }
        }
    }

    #[test]
    fn an_error_number_that_no_kernel_has_is_told_and_no_panic() {
        let refusal = |kind, code: i32| {
            let datagram = [&36u32.to_ne_bytes()[..], &u16::to_ne_bytes(kind), &[0; 10], &code.to_ne_bytes(), &[0; 16]];
            match messages(&datagram.concat()).expect("a whole message").pop().map(outcome) {
                Some(Outcome::Refused(cause)) => NetlinkError { what: "do it".into(), cause }.to_string(),
                _ => panic!("refused"),
            }
        };
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            for (code, told) in [
                (-16, "Device or resource busy (os error 16)"),
                (16, "Device or resource busy (os error 16)"),
                (-4096, "the kernel's answer could not be read: an error number of -4096"),
                (i32::MIN, "the kernel's answer could not be read: an error number of -2147483648"),
            ] {
                assert_eq!(refusal(kind, code), format!("do it: {told}"));
            }
        }
    }

    #[test]
    fn attributes_are_read_up_to_the_first_that_is_not_whole() {
        let whole = [&[8, 0, 1, 0][..], &7u32.to_ne_bytes(), &[7, 0, 2, 0x80], b"abc\0"].concat();
        let read = |bytes: &[u8]| Attributes(bytes).map(|(kind, value)| (kind, value.to_vec())).collect::<Vec<_>>();
        let expected = vec![(1, 7u32.to_ne_bytes().to_vec()), (2, b"abc".to_vec())];
        assert_eq!(read(&whole), expected, "the bit of a nested attribute is not part of its number");
        // The padding of the last one may be missing.
        assert_eq!(read(&whole[..15]), expected);
        for cut in 0..15 {
            assert_eq!(read(&whole[..cut]), expected[..usize::from(cut >= 8)], "{cut} bytes");
        }
        for length in [0u8, 1, 3] {
            assert_eq!(read(&[&[length, 0, 3, 0], &whole[..]].concat()), [], "less than its own header: {length}");
        }
        assert_eq!(read(&[&[4, 0, 3, 0], &whole[..]].concat()).len(), 3, "an empty one is one");
    }

    #[test]
    fn a_text_ends_at_its_mark_and_is_never_an_error() {
        for (value, expected) in [
            (&b"eth0\0"[..], "eth0"),
            (b"eth0", "eth0"),
            (b"", ""),
            (b"\0\0", ""),
            (b"a\0b", "a"),
            (b"caf\xe9", "caf\u{fffd}"),
            (b"\xff\xfe\0", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(text(value), expected);
        }
    }
}
