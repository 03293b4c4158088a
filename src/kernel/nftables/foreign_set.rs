//! A set or map of somebody else, as the kernel shows it, and what a key finds in it.
//!
//! Owns ranges of one field and of several. Must not ask the kernel anything, nor know what a key means.

use super::uapi::*;
use super::wire::{be32, find};

/// A set or map, as far as it tells whether a key is in it.
#[derive(Debug, Default)]
pub(super) struct ForeignSet {
    /// Elements are the begins and ends of ranges.
    pub(super) ranges: bool,
    /// Bytes of each field of a key of several; empty for one field.
    pub(super) fields: Vec<usize>,
    pub(super) elements: Vec<ForeignElement>,
}

/// One of its elements.
#[derive(Debug)]
pub(super) struct ForeignElement {
    /// None for the element that stands for all others.
    pub(super) key: Option<Vec<u8>>,
    /// The last key of a range of several fields.
    pub(super) last: Option<Vec<u8>>,
    /// The range ends before it.
    pub(super) ends: bool,
    /// What a map has for it.
    pub(super) data: Option<Vec<u8>>,
}

impl ForeignSet {
    /// The element that a key falls under.
    pub(super) fn find(&self, key: &[u8]) -> Option<&ForeignElement> {
        let exact = || self.elements.iter().find(|element| element.key.as_deref() == Some(key));
        let found = match (self.ranges, self.fields.len() > 1) {
            (false, _) => exact(),
            (true, true) => self.elements.iter().find(|element| self.holds(element, key)),
            (true, false) => {
                // Ranges that touch have an end and a begin at the same key, of which the begin counts.
                let begun = self.elements.iter().filter(|element| element.key.as_deref().is_some_and(|at| at <= key));
                begun.max_by_key(|element| (&element.key, !element.ends)).filter(|element| !element.ends)
            }
        };
        found.or_else(|| self.elements.iter().find(|element| element.key.is_none()))
    }

    /// Each field of the key, which is padded to whole words, is between those of the element.
    fn holds(&self, element: &ForeignElement, key: &[u8]) -> bool {
        let Some(first) = &element.key else { return false };
        let last = element.last.as_ref().unwrap_or(first);
        let mut at = 0;
        self.fields.iter().all(|bytes| {
            let field = at..at + bytes;
            at += bytes.next_multiple_of(4);
            let of = |whole: &[u8]| whole.get(field.clone()).map(<[u8]>::to_vec);
            let (first, key, last) = (of(first), of(key), of(last));
            key.is_some() && first <= key && key <= last
        })
    }
}

/// Reads one element.
pub(super) fn as_element(element: &[u8]) -> Option<ForeignElement> {
    let value = |number| find(element, number).and_then(|data| find(data, NFTA_DATA_VALUE)).map(<[u8]>::to_vec);
    let flags = find(element, NFTA_SET_ELEM_FLAGS).and_then(be32).unwrap_or_default();
    let key = value(NFTA_SET_ELEM_KEY);
    if key.is_none() && flags & NFT_SET_ELEM_CATCHALL == 0 {
        return None;
    }
    Some(ForeignElement {
        key,
        last: value(NFTA_SET_ELEM_KEY_END),
        ends: flags & NFT_SET_ELEM_INTERVAL_END != 0,
        data: find(element, NFTA_SET_ELEM_DATA).map(<[u8]>::to_vec),
    })
}
