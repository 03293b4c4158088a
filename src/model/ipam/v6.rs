//! The IPv6 pool: random host parts, or embedded ones, in a range that is too large for a bitmap.
//!
//! Only what is not free is stored. A random choice is repeated a few times; in a range so full or so small that
//! this fails, a walk over the neighbours finds what is free, and its length is bounded by what is not. Picking changes
//! nothing but what time has freed, as in the IPv4 pool.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::book::{Book, Rest, State};
use super::{Draw, FamilyCounts, IpamError, Owner, Pick, Want6, Warning, effective};
use crate::addr::Family;
use crate::embed::{self, Algo, Identity};

/// How often a random host part is drawn before the walk.
const DRAWS: usize = 16;

/// Host parts at the top of a subnet that RFC 2526 reserves for anycast.
const ANYCAST: u128 = 128;

/// Where a /64 has the same ones when its interface identifiers are in EUI-64 format (RFC 2526, section 2).
const ANYCAST_EUI64: (u128, u128) = (0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff);

#[derive(Debug, Clone, Default)]
pub(super) struct Pool6 {
    book: Book<u128>,
    range: Option<Ipv6Net>,
}

impl Pool6 {
    /// Replaces the range. What is held or rests keeps doing so.
    pub(super) fn set_range(&mut self, net: Option<Ipv6Net>) {
        self.range = net.map(|net| net.trunc());
    }

    pub(super) fn reserve(&mut self, new: BTreeSet<u128>) {
        self.book.reserve(new);
    }

    pub(super) fn hold(&mut self, at: u128) {
        self.book.hold(at);
    }

    pub(super) fn holds(&self, at: u128) -> bool {
        self.book.holds(at)
    }

    pub(super) fn release(&mut self, at: u128, owner: Owner, now: u64) -> bool {
        self.book.release(at, owner, now)
    }

    pub(super) fn give_back(&mut self, at: u128) -> bool {
        self.book.give_back(at)
    }

    pub(super) fn restore_rest(&mut self, at: u128, rest: Rest) {
        self.book.restore_rest(at, rest);
    }

    /// What a pod that names this address would find.
    pub(super) fn state(&self, at: u128, now: u64) -> Result<State, IpamError> {
        self.range.as_ref().ok_or(IpamError::NoRange(Family::V6))?;
        Ok(self.book.state(at, now))
    }

    /// Chooses an address without taking it.
    pub(super) fn pick(
        &mut self,
        want: &Want6,
        asker: Owner,
        now: u64,
        draw: &mut impl Draw,
        warnings: &mut Vec<Warning>,
    ) -> Result<Pick<Ipv6Addr>, IpamError> {
        while self.book.pop_rested(now).is_some() {}
        let range = self.range.ok_or(IpamError::NoRange(Family::V6))?;
        let block = Block::new(range, effective(range, &want.cidrs)?);
        if block.mask() == 0 && block.usable() == 0 {
            return Err(IpamError::NotForPods { node: range.into(), address: block.net.network().into() });
        }
        if let Some((algo, id)) = &want.embed {
            match self.embedded(&block, algo, id, draw) {
                Ok(at) => return Ok(Pick::free(Ipv6Addr::from_bits(at))),
                Err(warning) => warnings.push(warning),
            }
        }
        if let Some(at) = self.random(&block, draw) {
            return Ok(Pick::free(Ipv6Addr::from_bits(at)));
        }
        if let Some((at, rest)) = self.book.best_resting(asker, |at| block.allows(at)) {
            let single = block.net != range && block.usable() == 1;
            return Pick::resting(Ipv6Addr::from_bits(at), rest, asker, block.net, single, now);
        }
        let tally = self.book.tally(now, |at| block.allows(at));
        if block.mask() == 0 {
            return Err(tally.of_one(block.net.network().into()));
        }
        Err(IpamError::Exhausted {
            range: block.net.into(),
            usable: block.usable(),
            held: tally.held,
            reserved: tally.reserved,
        })
    }

    /// Takes what was picked.
    pub(super) fn take(&mut self, address: Ipv6Addr) {
        self.book.hold(address.to_bits());
    }

    /// Walks N through all its values from a random one. A resting address counts as taken here: a random one that
    /// has no history is better than a readable one that peers may still remember as somebody else.
    fn embedded(&self, block: &Block, algo: &Algo, id: &Identity, draw: &mut impl Draw) -> Result<u128, Warning> {
        // The low four bits cannot fail to fit.
        let start = u8::try_from(draw.draw() & 0x0f).unwrap_or(0);
        for step in 0..embed::N_VALUES {
            let n = (start + step) % embed::N_VALUES;
            let at = embed::address(block.net, algo, id, n).map_err(Warning::NotEmbedded)?.to_bits();
            if self.accepts(block, at) {
                return Ok(at);
            }
        }
        Err(Warning::EmbeddedExhausted(block.net))
    }

    fn random(&self, block: &Block, draw: &mut impl Draw) -> Option<u128> {
        let mut at = block.first;
        for _ in 0..DRAWS {
            at = block.first | (draw.draw() & block.mask());
            if self.accepts(block, at) {
                return Some(at);
            }
        }
        // One step more than there are obstacles passes them all, so a walk of this length that finds nothing has
        // seen every address of the block.
        let obstacles = self.book.entries().saturating_add(block.forbidden());
        let mut steps = 0;
        while steps <= obstacles && steps <= block.mask() {
            at = if at == block.last() { block.first } else { at + 1 };
            if self.accepts(block, at) {
                return Some(at);
            }
            steps += 1;
        }
        None
    }

    fn accepts(&self, block: &Block, at: u128) -> bool {
        block.allows(at) && self.book.is_free(at)
    }

    pub(super) fn counts(&self, now: u64) -> FamilyCounts {
        let (usable, free) = self.range.map_or((0, 0), |range| {
            let block = Block::new(range, range);
            let tally = self.book.tally(now, |at| block.allows(at));
            let without =
                |some: u64| u64::try_from(block.usable().saturating_sub(u128::from(some))).unwrap_or(u64::MAX);
            (without(tally.reserved), without(tally.blocked))
        });
        FamilyCounts { allocated: self.book.held(), free, usable, resting: self.book.resting(now) }
    }
}

/// An effective range and what in it no pod may have.
struct Block {
    net: Ipv6Net,
    first: u128,
    /// Inclusive, ascending, apart from each other.
    holes: Vec<(u128, u128)>,
}

impl Block {
    /// `net` must lie in `range`, the node's: what is special in either is special here.
    fn new(range: Ipv6Net, net: Ipv6Net) -> Self {
        let mut block = Block { net, first: net.network().to_bits(), holes: Vec::new() };
        let mut special = special(range);
        special.extend(self::special(net));
        special.sort_unstable();
        for (from, to) in special {
            let (from, to) = (from.max(block.first), to.min(block.last()));
            if from > to {
                continue;
            }
            match block.holes.last_mut().filter(|(_, end)| from <= end.saturating_add(1)) {
                Some((_, end)) => *end = to.max(*end),
                None => block.holes.push((from, to)),
            }
        }
        block
    }

    fn last(&self) -> u128 {
        self.first | self.mask()
    }

    /// The host bits; as a number, one less than the size.
    fn mask(&self) -> u128 {
        u128::MAX.checked_shr(u32::from(self.net.prefix_len())).unwrap_or(0)
    }

    fn allows(&self, at: u128) -> bool {
        (self.first..=self.last()).contains(&at) && !self.holes.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }

    fn forbidden(&self) -> u128 {
        self.holes.iter().map(|(from, to)| to - from + 1).fold(0, u128::saturating_add)
    }

    fn usable(&self) -> u128 {
        self.mask().saturating_add(1).saturating_sub(self.forbidden())
    }
}

/// Why no pod gets this address of the node's range; none if one may.
pub(super) fn rule(range: Ipv6Net, at: u128) -> Option<&'static str> {
    let hole = special(range).into_iter().find(|(from, to)| (*from..=*to).contains(&at))?;
    Some(if hole.0 == range.network().to_bits() {
        "the subnet-router anycast address of the range (RFC 4291)"
    } else {
        "an anycast address that RFC 2526 reserves at the end of a range"
    })
}

/// The addresses of one subnet that are anycast by RFC 4291 (subnet-router) and RFC 2526. A subnet of one or two
/// addresses has none: a /127 is a point-to-point link (RFC 6164), a /128 one address.
fn special(net: Ipv6Net) -> Vec<(u128, u128)> {
    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
    let host_bits = 128 - net.prefix_len();
    let mut special = Vec::new();
    if host_bits >= 2 {
        special.push((first, first));
    }
    if host_bits >= 8 {
        special.push((last - (ANYCAST - 1), last));
    }
    if host_bits == 64 {
        special.push((first | ANYCAST_EUI64.0, first | ANYCAST_EUI64.1));
    }
    special
}
