//! What the kernel announces over netlink, of its own accord and of links that go: any datagram. In the byte order of this machine;
//! the seeds are of a little-endian one. How answers are read is tried beside that code, where it can be reached.

use flock::kernel::netlink::changes::{Announcement, changes};
use flock::kernel::netlink::removal::removed_links;

/// The header of a message.
const HEADER: usize = 16;

pub(crate) fn check(data: &[u8]) {
    let heard = changes(data);
    // Each message may say two things: one of the pods or the host, and one of the routes.
    assert!(
        heard == [Announcement::Lost] || heard.len() <= 2 * (data.len() / HEADER),
        "{heard:?} in {} bytes",
        data.len()
    );
    assert!(heard.len() == 1 || !heard.contains(&Announcement::Lost), "{heard:?}");
    assert_eq!(removed_links(data), removed_by_the_book(data));
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
