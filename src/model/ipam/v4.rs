//! The IPv4 pool: a linear scan with a moving hint over a bitmap of the node's range.
//!
//! The hint makes a released address the last to come back, and the bitmap makes the scan cost the same at any fill.
//! Addresses outside the range (held from before an edit of it) are in the book only. Picking changes nothing but
//! what time has freed; taking is a second call, so that a request for both families takes both or neither.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::bitmap::Bitmap;
use super::book::{Book, Rest, State};
use super::{FamilyCounts, IpamError, Owner, Pick, effective};
use crate::addr::Family;

/// The longest prefix length of a block with a usable address: network, gateway, one pod, broadcast.
pub(super) const LONGEST: u8 = 30;

#[derive(Debug, Clone, Default)]
pub(super) struct Pool4 {
    book: Book<u32>,
    range: Option<Range>,
}

/// The node's range.
#[derive(Debug, Clone)]
struct Range {
    net: Ipv4Net,
    /// A bit per address, set when it is not free.
    taken: Bitmap,
    /// Where the next scan begins, as an offset.
    hint: u64,
}

impl Range {
    fn offset(&self, at: u32) -> Option<u64> {
        contains(&self.net, at).then(|| u64::from(at) - u64::from(self.net.network().to_bits()))
    }

    fn set(&mut self, at: u32) {
        if let Some(offset) = self.offset(at) {
            self.taken.set(offset);
        }
    }
}

impl Pool4 {
    /// Replaces the range. What is held or rests keeps doing so.
    pub(super) fn set_range(&mut self, net: Option<Ipv4Net>) {
        let net = net.map(|net| net.trunc());
        if net == self.range.as_ref().map(|range| range.net) {
            return;
        }
        self.range = net.map(|net| {
            let size = u64::from(net.broadcast().to_bits()) - u64::from(net.network().to_bits()) + 1;
            let mut range = Range { net, taken: Bitmap::new(size), hint: 0 };
            for at in self.book.taken() {
                range.set(at);
            }
            range
        });
    }

    pub(super) fn reserve(&mut self, new: BTreeSet<u32>) {
        let changed = {
            let (old, new) = self.book.reserve(new);
            old.symmetric_difference(new).copied().collect::<Vec<_>>()
        };
        for at in changed {
            self.mark(at);
        }
    }

    pub(super) fn hold(&mut self, at: u32) {
        self.book.hold(at);
        self.mark(at);
    }

    pub(super) fn holds(&self, at: u32) -> bool {
        self.book.holds(at)
    }

    pub(super) fn release(&mut self, at: u32, owner: Owner, now: u64) -> bool {
        self.book.release(at, owner, now)
    }

    pub(super) fn give_back(&mut self, at: u32) -> bool {
        let was_held = self.book.give_back(at);
        self.mark(at);
        was_held
    }

    pub(super) fn restore_rest(&mut self, at: u32, rest: Rest) {
        self.book.restore_rest(at, rest);
        self.mark(at);
    }

    /// What a pod that names this address would find.
    pub(super) fn state(&self, at: u32, now: u64) -> Result<State, IpamError> {
        self.range.as_ref().ok_or(IpamError::NoRange(Family::V4))?;
        Ok(self.book.state(at, now))
    }

    /// Makes the bit say what the book says.
    fn mark(&mut self, at: u32) {
        let free = self.book.is_free(at);
        if let Some(range) = &mut self.range
            && let Some(offset) = range.offset(at)
        {
            if free { range.taken.clear(offset) } else { range.taken.set(offset) }
        }
    }

    /// Chooses an address without taking it.
    pub(super) fn pick(&mut self, cidrs: &[Ipv4Net], asker: Owner, now: u64) -> Result<Pick<Ipv4Addr>, IpamError> {
        while let Some(at) = self.book.pop_rested(now) {
            self.mark(at);
        }
        let range = self.range.as_ref().ok_or(IpamError::NoRange(Family::V4))?;
        let block = effective(range.net, cidrs)?;
        let one = block.network();
        let (first, last) = match block.prefix_len() {
            // One address of the node's range.
            32 if range.net.prefix_len() <= LONGEST => (one.to_bits(), one.to_bits()),
            ..=LONGEST => usable(&block),
            _ => return Err(IpamError::TooSmall(block)),
        };
        let (first_of_node, last_of_node) = usable(&range.net);
        if first < first_of_node || last > last_of_node {
            return Err(IpamError::NotForPods { node: range.net.into(), address: one.into() });
        }
        let base = u64::from(range.net.network().to_bits());
        let (from, to) = (u64::from(first) - base, u64::from(last) - base + 1);
        let hint = if (from..to).contains(&range.hint) { range.hint } else { from };
        let found = range.taken.first_clear(hint, to).or_else(|| range.taken.first_clear(from, hint));
        if let Some(at) = found.and_then(|offset| u32::try_from(base + offset).ok()) {
            return Ok(Pick::free(Ipv4Addr::from_bits(at)));
        }
        let fits = |at: u32| (first..=last).contains(&at);
        if let Some((at, rest)) = self.book.best_resting(asker, fits) {
            let single = block != range.net && first == last;
            return Pick::resting(Ipv4Addr::from_bits(at), rest, asker, block, single, now);
        }
        let tally = self.book.tally(now, fits);
        if block.prefix_len() == 32 {
            return Err(tally.of_one(one.into()));
        }
        Err(IpamError::Exhausted {
            range: block.into(),
            usable: u128::from(to - from),
            held: tally.held,
            reserved: tally.reserved,
        })
    }

    /// Takes what was picked.
    pub(super) fn take(&mut self, address: Ipv4Addr) {
        self.hold(address.to_bits());
        if let Some(range) = &mut self.range {
            range.hint = range.offset(address.to_bits()).map_or(0, |offset| offset + 1);
        }
    }

    pub(super) fn counts(&self, now: u64) -> FamilyCounts {
        let (usable, free) = match &self.range {
            Some(range) if range.net.prefix_len() <= LONGEST => {
                let (first, last) = usable(&range.net);
                let tally = self.book.tally(now, |at| (first..=last).contains(&at));
                let all = u64::from(last) - u64::from(first) + 1;
                (all.saturating_sub(tally.reserved), all.saturating_sub(tally.blocked))
            }
            _ => (0, 0),
        };
        FamilyCounts { allocated: self.book.held(), free, usable, resting: self.book.resting(now) }
    }
}

/// First and last address that a pod may have: neither the network, the gateway, nor the broadcast address. The block
/// must have at least four addresses. Since blocks nest on powers of two, those three of the node's range are also
/// those of a block at its edge.
fn usable(block: &Ipv4Net) -> (u32, u32) {
    (block.network().to_bits().saturating_add(2), block.broadcast().to_bits().saturating_sub(1))
}

/// Why no pod gets this address of the node's range; none if one may.
pub(super) fn rule(range: &Ipv4Net, at: u32) -> Option<&'static str> {
    let (first, last) = usable(range);
    match () {
        () if (first..=last).contains(&at) || !contains(range, at) => None,
        () if at == range.network().to_bits() => Some("the network address of the range"),
        () if at > last => Some("the broadcast address of the range"),
        () => Some("the first address of the range, which is left to a gateway"),
    }
}

fn contains(net: &Ipv4Net, at: u32) -> bool {
    net.contains(&Ipv4Addr::from_bits(at))
}
