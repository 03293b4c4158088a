//! Which addresses are taken, and which is next.
//!
//! ```text
//! free --allocate--> held --release--> resting --30 s--> free
//!   ^                 |                   |
//!   +----give_back----+    <--allocate----+  (only when nothing is free, or for whom it was)
//! ```
//!
//! Everything is in memory; the record is the truth, and at the start the agent puts its addresses in with [`Ipam::hold`]. Time
//! and randomness are arguments. This module must not know pods, links or files: who asks is a number here.

mod bitmap;
mod book;
#[cfg(test)]
mod tests;
mod v4;
mod v6;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::Family;
use crate::embed::{Algo, EmbedError, Identity};
use crate::ipam::book::{Rest, State};

/// How long a released address rests before it is used again, in milliseconds: longer than peers and routers
/// remember a neighbour that they do not confirm, so that late packets for the old pod do not reach a new one.
pub const REST_MS: u64 = 30_000;

/// Who asks for an address or had it: equal for the same one, and nothing else is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u64);

/// How many CIDRs of an annotation an error repeats.
const CIDRS_SHOWN: usize = 4;

/// Where randomness comes from.
pub trait Draw {
    /// 128 bits, uniform and independent of each other call's.
    fn draw(&mut self) -> u128;
}

/// What one pod is to get. A family that is `None` is not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Wants an IPv6 address.
    pub ipv6: Option<Want6>,
    /// Wants an IPv4 address.
    pub ipv4: Option<Want4>,
    /// Wants these very addresses, none twice, wherever they are. Of a family of which there is one here, nothing is taken from the
    /// node's range.
    pub fixed: Vec<IpAddr>,
}

impl Request {
    /// The first address of each family among those that the pod names.
    fn first(&self) -> (Option<Ipv6Addr>, Option<Ipv4Addr>) {
        let six = self.fixed.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None });
        let four = self.fixed.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
        (six, four)
    }
}

/// How an IPv6 address is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Want6 {
    /// Where from: the first that meets the node's range counts; empty: the node's range.
    pub cidrs: Vec<Ipv6Net>,
    /// What the host part is to show; `None`: it is random.
    pub embed: Option<(Algo, Identity)>,
}

/// How an IPv4 address is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Want4 {
    /// Where from: the first that meets the node's range counts; empty: the node's range.
    pub cidrs: Vec<Ipv4Net>,
}

/// What a pod got: exactly the families that it wanted. The addresses are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// The IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Those of [`Request::fixed`] that are neither of these two, in their order.
    pub extra: Vec<IpAddr>,
    /// What an operator should know about the choice.
    pub warnings: Vec<Warning>,
}

impl Allocation {
    /// The one of each family, IPv6 first.
    pub fn primary(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv6.map(IpAddr::V6).into_iter().chain(self.ipv4.map(IpAddr::V4))
    }
}

/// Something about an allocation that an operator should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The identity cannot be shown in this range or of this pod; the host part is random.
    NotEmbedded(EmbedError),
    /// All values of the last digit are taken for this identity in this range; the host part is random.
    EmbeddedExhausted(Ipv6Net),
    /// Nothing else was free, so an address that another owner had is used again before it rested for [`REST_MS`].
    RestReused {
        /// The address.
        address: IpAddr,
        /// How long it rested, in milliseconds.
        rested_ms: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NotEmbedded(why) => write!(f, "the host part is random: {why}"),
            Warning::EmbeddedExhausted(range) => {
                write!(f, "the host part is random: all 16 addresses of this identity in {range} are taken")
            }
            Warning::RestReused { address, rested_ms } => {
                write!(f, "{address} was another pod's and is used again after {rested_ms} ms, as nothing else is free")
            }
        }
    }
}

/// Why a pod gets no address. Nothing was taken, in either family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpamError {
    /// The node has no range of this family.
    NoRange(Family),
    /// None of the pod's ranges meets the node's.
    Disjoint {
        /// The node's range.
        node: IpNet,
        /// The pod's ranges, all of the same family.
        wanted: Vec<IpNet>,
    },
    /// An IPv4 block without a usable address: a /31, or a node's range that is longer than /30.
    TooSmall(Ipv4Net),
    /// The pod asks for one single address of the node's range, which no pod can have.
    NotForPods {
        /// The node's range.
        node: IpNet,
        /// The address.
        address: IpAddr,
    },
    /// The pod asks for one single address, which somebody holds.
    Held(IpAddr),
    /// The pod asks for one single address, which is not for pods now: the host has it, or somebody else on a network of the host.
    Reserved(IpAddr),
    /// The pod asks for one single address, which another pod had until just now.
    Resting {
        /// The effective range.
        range: IpNet,
        /// The address.
        address: IpAddr,
        /// How long it still rests, in milliseconds.
        left_ms: u64,
    },
    /// Every usable address of the range is taken. In a very small IPv6 range none may be usable at all.
    Exhausted {
        /// The effective range.
        range: IpNet,
        /// How many addresses of it a pod may have, saturating.
        usable: u128,
        /// How many of those pods hold.
        held: u64,
        /// How many of those the host itself has.
        reserved: u64,
    },
}

impl fmt::Display for IpamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpamError::NoRange(family) => {
                let field = match family {
                    Family::V6 => "cidr6",
                    Family::V4 => "cidr4",
                };
                write!(f, "the pod wants {family}, but this node has no {family} range (spec.{field} is absent)")
            }
            IpamError::Disjoint { node, wanted } => {
                write!(f, "the node's range {node} has nothing in common with the pod's ")?;
                for (place, cidr) in wanted.iter().take(CIDRS_SHOWN).enumerate() {
                    write!(f, "{}{cidr}", if place > 0 { ", " } else { "" })?;
                }
                match wanted.len().saturating_sub(CIDRS_SHOWN) {
                    0 => {}
                    more => write!(f, " and {more} more")?,
                }
                write!(f, " (its annotation {})", if node.addr().is_ipv6() { "cidr6" } else { "cidr4" })
            }
            // The node's own range is never that small.
            IpamError::TooSmall(block) => write!(
                f,
                "{block} (the pod's annotation cidr4) is too small: network, gateway and broadcast address leave nothing for a pod, \
                 and the smallest block is /30, or a /32 for one address"
            ),
            IpamError::NotForPods { node, address } => {
                let what = match address {
                    IpAddr::V6(_) => "an anycast address of routers (RFC 4291, RFC 2526)",
                    IpAddr::V4(_) => "the network, gateway or broadcast address",
                };
                write!(f, "{address} (the pod names it by annotation) is {what} in the node's range {node}")
            }
            IpamError::Held(address) => write!(f, "{address} (the pod names it by annotation) is held by another pod"),
            IpamError::Reserved(address) => write!(
                f,
                "{address} (the pod names it by annotation) is an address of the host, or somebody else's on a network of the host"
            ),
            IpamError::Resting { range, address, left_ms } => write!(
                f,
                "no address is free in {range}, the pod's own range: {address} was another pod's and rests for another {} s",
                left_ms.div_ceil(1000)
            ),
            IpamError::Exhausted { range, usable, held, reserved } => write!(
                f,
                "no address is free in {range}: of {usable} usable, pods hold {held} and the host has {reserved}"
            ),
        }
    }
}

impl core::error::Error for IpamError {}

/// Counts per family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// IPv6.
    pub ipv6: FamilyCounts,
    /// IPv4.
    pub ipv4: FamilyCounts,
}

/// Counts of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FamilyCounts {
    /// Held addresses, also those outside the node's range.
    pub allocated: u64,
    /// Addresses of the node's range that a pod may have and that are neither held, resting nor the host's;
    /// saturating.
    pub free: u64,
    /// Addresses of the node's range that pods may have; saturating.
    pub usable: u64,
    /// Resting addresses, also those outside the node's range.
    pub resting: u64,
}

/// The addresses of one node.
///
/// All times are milliseconds of one clock that the caller chooses. It should not go backwards; if it does, a rest
/// lasts at most [`REST_MS`] longer.
#[derive(Debug, Clone, Default)]
pub struct Ipam {
    v6: v6::Pool6,
    v4: v4::Pool4,
}

impl Ipam {
    /// An empty table. An IPv4 range costs up to an eighth of a byte of memory per address, as far as it is used.
    pub fn new(cidr6: Option<Ipv6Net>, cidr4: Option<Ipv4Net>) -> Self {
        let mut ipam = Ipam::default();
        ipam.set_ranges(cidr6, cidr4);
        ipam
    }

    /// Replaces the node's ranges. Held addresses stay held, resting ones rest on, wherever they are; later
    /// allocations come from the new ranges.
    pub fn set_ranges(&mut self, cidr6: Option<Ipv6Net>, cidr4: Option<Ipv4Net>) {
        self.v6.set_range(cidr6);
        self.v4.set_range(cidr4);
    }

    /// Replaces the set of addresses that are the host's own, which no pod may get. One that a pod holds already
    /// stays held.
    pub fn reserve(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let (mut six, mut four) = (BTreeSet::new(), BTreeSet::new());
        for address in addresses {
            match address {
                IpAddr::V6(address) => six.insert(address.to_bits()),
                IpAddr::V4(address) => four.insert(address.to_bits()),
            };
        }
        self.v6.reserve(six);
        self.v4.reserve(four);
    }

    /// Marks an address as in use, whatever it was, also outside the ranges. Holding twice is holding.
    pub fn hold(&mut self, address: IpAddr) {
        match address {
            IpAddr::V6(address) => self.v6.hold(address.to_bits()),
            IpAddr::V4(address) => self.v4.hold(address.to_bits()),
        }
    }

    /// Whether somebody has the address.
    pub fn holds(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V6(address) => self.v6.holds(address.to_bits()),
            IpAddr::V4(address) => self.v4.holds(address.to_bits()),
        }
    }

    /// A held address begins to rest after `owner` had it; any other stays what it is. Says whether it was held.
    pub fn release(&mut self, address: IpAddr, owner: Owner, now: u64) -> bool {
        match address {
            IpAddr::V6(address) => self.v6.release(address.to_bits(), owner, now),
            IpAddr::V4(address) => self.v4.release(address.to_bits(), owner, now),
        }
    }

    /// Puts in, at start, an address that `owner` released at `since`. A held one stays held, and of two releases the later
    /// counts.
    pub fn restore_rest(&mut self, address: IpAddr, owner: Owner, since: u64) {
        let rest = Rest { since, owner };
        match address {
            IpAddr::V6(address) => self.v6.restore_rest(address.to_bits(), rest),
            IpAddr::V4(address) => self.v4.restore_rest(address.to_bits(), rest),
        }
    }

    /// A held address is free at once: for one that no packet ever carried. Any other stays what it is. Says whether
    /// it was held.
    pub fn give_back(&mut self, address: IpAddr) -> bool {
        match address {
            IpAddr::V6(address) => self.v6.give_back(address.to_bits()),
            IpAddr::V4(address) => self.v4.give_back(address.to_bits()),
        }
    }

    /// Takes an address of each family that is wanted and all that are named, or none at all.
    ///
    /// A named address is taken if nobody holds it, it is not reserved, and it does not rest after another owner than `asker` had
    /// it. For the others:
    ///
    /// It fails for want of addresses only when the effective range has none that is free or resting. When none is free, a
    /// resting one is used: before all others one that `asker` had, which is no cause for a warning. Only where the pod itself asks
    /// for a single address is one that another owner had left to rest, since whoever names an address that somebody else
    /// had can as well be early by mistake, and nothing is lost by asking again.
    ///
    /// # Errors
    /// [`IpamError`], for the named ones and then for IPv6 first.
    pub fn allocate(
        &mut self,
        want: &Request,
        asker: Owner,
        now: u64,
        draw: &mut impl Draw,
    ) -> Result<Allocation, IpamError> {
        let mut warnings = Vec::new();
        // Both are chosen before either is taken, so that a failure of one leaves no trace of the other: not even
        // a resting address loses its rest.
        for ip in &want.fixed {
            self.named(*ip, asker, now)?;
        }
        let (first6, first4) = want.first();
        let want6 = want.ipv6.as_ref().filter(|_| first6.is_none());
        let want4 = want.ipv4.as_ref().filter(|_| first4.is_none());
        let six = want6.map(|want| self.v6.pick(want, asker, now, draw, &mut warnings)).transpose()?;
        let four = want4.map(|want| self.v4.pick(&want.cidrs, asker, now)).transpose()?;
        if let Some(pick) = &six {
            self.v6.take(pick.address);
            warnings.extend(pick.reused(now));
        }
        if let Some(pick) = &four {
            self.v4.take(pick.address);
            warnings.extend(pick.reused(now));
        }
        want.fixed.iter().for_each(|ip| self.hold(*ip));
        let is_first = |ip: &&IpAddr| match ip {
            IpAddr::V6(ip) => first6 == Some(*ip),
            IpAddr::V4(ip) => first4 == Some(*ip),
        };
        Ok(Allocation {
            ipv6: first6.or(six.map(|pick| pick.address)),
            ipv4: first4.or(four.map(|pick| pick.address)),
            extra: want.fixed.iter().filter(|ip| !is_first(ip)).copied().collect(),
            warnings,
        })
    }

    /// Whether `asker` can have this very address at `now`.
    fn named(&self, ip: IpAddr, asker: Owner, now: u64) -> Result<(), IpamError> {
        // A node without a range of the family does not forward it.
        let state = match ip {
            IpAddr::V6(ip) => self.v6.state(ip.to_bits(), now)?,
            IpAddr::V4(ip) => self.v4.state(ip.to_bits(), now)?,
        };
        match state {
            State::Held => Err(IpamError::Held(ip)),
            State::Reserved => Err(IpamError::Reserved(ip)),
            State::Resting(rest) => Pick::resting(ip, rest, asker, ip, true, now).map(drop),
            State::Free => Ok(()),
        }
    }

    /// How full the node is at `now`. Costs a pass over all held addresses.
    pub fn counts(&self, now: u64) -> Counts {
        Counts { ipv6: self.v6.counts(now), ipv4: self.v4.counts(now) }
    }
}

/// Why no pod ever gets this address of the node's range, in words for an operator; none if one may.
pub fn rule(range: &IpNet, ip: IpAddr) -> Option<&'static str> {
    match (range, ip) {
        (IpNet::V6(range), IpAddr::V6(ip)) => v6::rule(*range, ip.to_bits()),
        (IpNet::V4(range), IpAddr::V4(ip)) => v4::rule(range, ip.to_bits()),
        _ => None,
    }
}

/// An address that was chosen and not yet taken.
struct Pick<A> {
    address: A,
    /// When it was released, if it still rests after another owner had it.
    rested_since: Option<u64>,
}

impl<A: Copy + Into<IpAddr>> Pick<A> {
    fn free(address: A) -> Pick<A> {
        Pick { address, rested_since: None }
    }

    /// A resting address of `range`, which is a range of the pod's own that has this one address if `single`.
    fn resting(
        address: A,
        rest: Rest,
        asker: Owner,
        range: impl Into<IpNet>,
        single: bool,
        now: u64,
    ) -> Result<Pick<A>, IpamError> {
        if rest.owner == asker {
            return Ok(Pick::free(address));
        }
        if single {
            let left_ms = rest.since.saturating_add(REST_MS).saturating_sub(now);
            return Err(IpamError::Resting { range: range.into(), address: address.into(), left_ms });
        }
        Ok(Pick { address, rested_since: Some(rest.since) })
    }
}

impl<A: Copy + Into<IpAddr>> Pick<A> {
    fn reused(&self, now: u64) -> Option<Warning> {
        let since = self.rested_since?;
        Some(Warning::RestReused { address: self.address.into(), rested_ms: now.saturating_sub(since) })
    }
}

/// What the range arithmetic needs of a network of either family. A wrong family cannot occur: both sides have one
/// type.
trait Net: Copy + Into<IpNet> {
    fn covers(&self, other: &Self) -> bool;
    fn trunc(&self) -> Self;
}

impl Net for Ipv4Net {
    fn covers(&self, other: &Self) -> bool {
        self.contains(other)
    }

    fn trunc(&self) -> Self {
        Ipv4Net::trunc(self)
    }
}

impl Net for Ipv6Net {
    fn covers(&self, other: &Self) -> bool {
        self.contains(other)
    }

    fn trunc(&self) -> Self {
        Ipv6Net::trunc(self)
    }
}

/// Where an allocation comes from: the node's range, or the first of the pod's that meets it if that is narrower.
fn effective<N: Net>(node: N, wanted: &[N]) -> Result<N, IpamError> {
    if wanted.is_empty() {
        return Ok(node);
    }
    for cidr in wanted {
        let cidr = cidr.trunc();
        if cidr.covers(&node) {
            return Ok(node);
        }
        if node.covers(&cidr) {
            return Ok(cidr);
        }
    }
    Err(IpamError::Disjoint { node: node.into(), wanted: wanted.iter().map(|cidr| (*cidr).into()).collect() })
}
