//! Writes messages and attributes into one buffer, and finds attributes in what the kernel shows.
//!
//! Owns lengths, padding and byte order. Must not know what an attribute means, and never fails: a value that is too long for an
//! attribute, which nothing of `model::ruleset` is, gives a message that the kernel refuses.

use super::uapi::{NFGEN_SIZE, NLA_F_NESTED};
use crate::kernel::netlink::message::{Attributes, HEADER};

/// Bytes that grow.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// A whole message: `kind` with `flags` and `sequence`, about `family` and `resource`, with the attributes that `fill` puts.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        (family, resource): (u8, u16),
        fill: impl FnOnce(&mut Writer),
    ) {
        let start = self.0.len();
        self.0.extend([0; 4]);
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(sequence.to_ne_bytes());
        self.0.extend([0; 4]);
        self.0.extend([family, 0]);
        self.0.extend(resource.to_be_bytes());
        debug_assert_eq!(self.0.len() - start, HEADER + NFGEN_SIZE);
        fill(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.patch(start, &length.to_ne_bytes());
    }

    /// An attribute with these bytes.
    pub(super) fn put(&mut self, number: u16, value: &[u8]) {
        let start = self.begin(number);
        self.0.extend(value);
        self.end(start);
    }

    /// An attribute with a number of four bytes.
    pub(super) fn put_u32(&mut self, number: u16, value: u32) {
        self.put(number, &value.to_be_bytes());
    }

    /// An attribute with a number of eight bytes.
    pub(super) fn put_u64(&mut self, number: u16, value: u64) {
        self.put(number, &value.to_be_bytes());
    }

    /// An attribute with a text and its end mark.
    pub(super) fn put_text(&mut self, number: u16, value: &str) {
        let start = self.begin(number);
        self.0.extend(value.as_bytes());
        self.0.push(0);
        self.end(start);
    }

    /// An attribute that holds others.
    pub(super) fn nest(&mut self, number: u16, fill: impl FnOnce(&mut Writer)) {
        let start = self.begin(number | NLA_F_NESTED);
        fill(self);
        self.end(start);
    }

    fn begin(&mut self, number: u16) -> usize {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(number.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.patch(start, &length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The value of the first attribute of this number.
pub(super) fn find(attributes: &[u8], number: u16) -> Option<&[u8]> {
    Attributes::nested(attributes).find(|(found, _)| *found == number).map(|(_, value)| value)
}

/// A number of four bytes.
pub(super) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// A number of eight bytes.
pub(super) fn be64(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}
