//! What the kernel says over netlink: any datagram, as an answer and as an announcement. In the byte order of this machine; the seeds
//! are of a little-endian one.

use flock::kernel::netlink::answer::{Fact, facts};
use flock::kernel::netlink::removal::removed_links;
use flock::kernel::netlink::{Cause, NetlinkError};

/// The header of a message.
const HEADER: usize = 16;

pub(crate) fn check(data: &[u8]) {
    match facts(data) {
        Ok(facts) => {
            assert!(facts.len() <= data.len() / HEADER, "{} facts in {} bytes", facts.len(), data.len());
            facts.iter().for_each(|fact| sound(fact, data));
        }
        Err(Cause::Garbled(why)) => super::assert_one_line(&why, 200),
        Err(other) => panic!("only bytes were read: {other:?}"),
    }
    assert_eq!(removed_links(data), removed_by_the_book(data));
}

fn sound(fact: &Fact, data: &[u8]) {
    match fact {
        Fact::Link(link) => {
            let alias = link.alias.as_deref().unwrap_or_default();
            // Bytes that are no text become three bytes each.
            assert!(link.name.len() + alias.len() <= 3 * data.len());
        }
        Fact::Address(address) => assert!(!format!("{}/{}", address.ip, address.prefix_len).is_empty()),
        Fact::Route(route) => {
            assert!(route.to.prefix_len() <= route.to.max_prefix_len());
            assert!(!route.to.to_string().is_empty());
        }
        Fact::Refused(Cause::Kernel { errno, text }) => {
            assert!(*errno > 0, "an error number is positive: {errno}");
            assert!(text.as_ref().is_none_or(|text| text.len() <= 3 * data.len()));
            let error =
                NetlinkError { what: "do it".into(), cause: Cause::Kernel { errno: *errno, text: text.clone() } };
            assert!(error.to_string().starts_with("do it: "));
        }
        Fact::Refused(other) => panic!("the kernel refuses in its own words: {other:?}"),
        Fact::Neighbour(neighbour) => assert!(!neighbour.mac.to_string().is_empty()),
        Fact::Accepted | Fact::Done | Fact::Other => {}
    }
}

/// The plain reading: whole messages only, `RTM_DELLINK` of no family, the index four bytes into the `ifinfomsg`.
fn removed_by_the_book(mut rest: &[u8]) -> Vec<u32> {
    let word = |bytes: &[u8], at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut removed = Vec::new();
    while rest.len() >= HEADER {
        let length = word(rest, 0) as usize;
        if length < HEADER || length > rest.len() {
            break;
        }
        let (kind, family) = (u16::from_ne_bytes([rest[4], rest[5]]), rest.get(HEADER).copied());
        if kind == 17 && family == Some(0) && length >= HEADER + 8 {
            removed.push(word(rest, HEADER + 4));
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    removed
}
