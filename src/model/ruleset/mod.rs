//! nftables tables as data: what flock wants in the kernel's packet filter, in the dozen forms that it uses.
//!
//! `tables` and `policy` say what is wanted, `diff` what leads from one ruleset to another, `text` how `nft list` shows it, and
//! `kernel::nftables` carries it out and reads it back. Must not know what a table is for.
//!
//! Everything is by name and in a stable order, so equal wishes are equal values. Names are at most [`NAME_MAX`] bytes, begin with
//! a letter and go on with letters, digits and `/`, `-`, `_` or `.`, as `nft` reads them without quotation marks.

pub mod diff;
#[cfg(test)]
pub(crate) mod examples;
pub mod ranges;
pub mod text;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{Family, IfName};

/// Longest name of a table, set, map or chain, in bytes: what the kernel takes (`NFT_NAME_MAXLEN`), less its end.
pub const NAME_MAX: usize = 255;

/// A table's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey {
    /// Which packets its chains can see.
    pub family: TableFamily,
    /// Its name.
    pub name: &'static str,
}

impl fmt::Display for TableKey {
    /// As `nft` names it: `table inet flock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Arp => "arp",
        };
        write!(f, "table {family} {}", self.name)
    }
}

/// A table's family (`NFPROTO_*`, linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4 alone.
    Ip,
    /// IPv6 alone.
    Ip6,
    /// ARP.
    Arp,
}

/// Tables by their identity.
pub type Ruleset = BTreeMap<TableKey, Table>;

/// The content of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The sets.
    pub sets: BTreeMap<String, Set>,
    /// Maps from a link's name to what becomes of its packets.
    pub maps: BTreeMap<String, BTreeMap<IfName, Verdict>>,
    /// The chains.
    pub chains: BTreeMap<String, Chain>,
}

/// A set: elements of one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What its elements are like.
    pub form: Form,
    /// The elements, all of that form. A set whose form is [`Form::Recent`] or [`Form::Rates`] is filled by packets, and has none
    /// here.
    pub elements: BTreeSet<Element>,
}

/// What the elements of a set are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Form {
    /// [`Element::Link`], each with a counter of the packets that matched it if so wanted.
    Links {
        /// `counter` of the set.
        counted: bool,
    },
    /// [`Element::Links`].
    LinkPairs,
    /// [`Element::Address`] of this family.
    Addresses(Family),
    /// [`Element::LinkAddress`] of this family.
    LinkAddresses(Family),
    /// [`Element::Port`] of this family.
    Ports(Family),
    /// [`Element::Range`] of this family, of which no two touch or overlap.
    Ranges(Family),
    /// (link, address) pairs that packets add (`flags dynamic,timeout`).
    Recent {
        /// Of the address.
        family: Family,
        /// How long each is remembered, in seconds.
        seconds: u32,
        /// Most of them.
        size: u32,
    },
    /// A limit for each link, which packets add (`flags dynamic,timeout`).
    Rates {
        /// How long each stays behind the last packet that it was asked about, in seconds. Links that are gone would fill the set
        /// otherwise.
        seconds: u32,
        /// Most links.
        size: u32,
    },
}

/// One element of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// A link.
    Link(IfName),
    /// Two links.
    Links(IfName, IfName),
    /// An address.
    Address(IpAddr),
    /// A link and an address.
    LinkAddress(IfName, IpAddr),
    /// An address, a protocol's number and a port.
    Port(IpAddr, u8, u16),
    /// From the first to the last address, both included.
    Range(IpAddr, IpAddr),
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where packets enter it; none for one that only other chains lead to.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain. What reaches its end goes on (`policy accept`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What kind of chain.
    pub kind: ChainKind,
    /// Where.
    pub hook: Hook,
    /// Order among the chains of the hook, lowest first.
    pub priority: i32,
}

/// The kind of a base chain (`type` in nft).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Passes and drops.
    Filter,
    /// Translates addresses, of the first packet of each connection.
    Nat,
}

/// Where packets enter (`NF_INET_*`, linux/netfilter.h; for `arp` there is only input and output).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// For this host.
    Input,
    /// Between two links.
    Forward,
    /// Behind the routing decision.
    Postrouting,
}

/// A rule: statements in order, each of which sees only what all before it let by.
pub type Rule = Vec<Statement>;

/// One statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The field has this value, or has not.
    Is(Field, Op, Value),
    /// A link's name begins so, or does not. `End` says of which link.
    NameBegins(End, Op, &'static str),
    /// A port or type from the first to the last number, both included.
    Between(Field, u16, u16),
    /// The fields, side by side, are an element of the set, or are not.
    In(Vec<Field>, Op, String),
    /// What becomes of the packet is in this map, by a link's name; it goes on if the link is not there.
    ByMap(End, String),
    /// The state of the packet's connection is one of these (`CT_STATE_*` bits).
    StateIn(u32),
    /// The connection's mark has this value in the bits of `mask`.
    MarkIs {
        /// The bits that count.
        mask: u32,
        /// The value, within the mask.
        value: u32,
    },
    /// Gives the connection's mark this value in the bits of `mask`, and leaves the others.
    SetMark {
        /// The bits that change.
        mask: u32,
        /// The value, within the mask.
        value: u32,
    },
    /// Has the fields, side by side, in a set of the form [`Form::Recent`]. Goes on unless there is no room.
    Remember(Vec<Field>, Span, String),
    /// Goes on only for packets of an incoming link that come faster than so many per second, with a set of the form
    /// [`Form::Rates`]. Does not go on for a link for which there is no room.
    FasterThan {
        /// The set.
        set: String,
        /// Packets per second.
        rate: u32,
        /// How many may come at once.
        burst: u32,
    },
    /// Goes on for so many packets per second at most.
    AtMost {
        /// Packets per second.
        rate: u32,
        /// How many may come at once.
        burst: u32,
    },
    /// Counts packets and bytes.
    Count,
    /// Writes to the kernel's log, after this prefix of at most 127 bytes.
    Log(String),
    /// Gives the connection the outgoing link's address for a source.
    Masquerade,
    /// What becomes of the packet. The last statement of its rule.
    Verdict(Verdict),
}

/// From when on it counts how long something is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// From the first packet that is to be remembered (`add`).
    FromFirst,
    /// From the last one (`update`).
    FromLast,
}

impl Statement {
    /// The packet is of this family (`NFPROTO_*`, linux/netfilter.h).
    pub fn of_family(family: Family) -> Statement {
        let number = match family {
            Family::V4 => 2,
            Family::V6 => 10,
        };
        Statement::Is(Field::Family, Op::Eq, Value::Byte(number))
    }
}

/// Whether something has to hold, or not to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It has to.
    Eq,
    /// It may not.
    Ne,
}

/// One of the two links of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one by which it came in.
    In,
    /// The one by which it goes out.
    Out,
}

/// Something of a packet or its connection. Where a packet has none (no connection, another family or protocol), no statement
/// about it holds, neither the one that asks for a value nor the one that asks for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `iifname`, `oifname`.
    Link(End),
    /// `meta nfproto`.
    Family,
    /// `meta l4proto`.
    Protocol,
    /// `ip saddr`, `ip6 saddr`: only behind a statement that the packet is of that family, except within a table of one family.
    Source(Family),
    /// `ip daddr`, `ip6 daddr`: as above.
    Destination(Family),
    /// The source port of TCP, UDP and others (`th sport`): only behind a statement about the protocol.
    SourcePort,
    /// The destination port (`th dport`): as above.
    DestinationPort,
    /// `icmp type`: only behind a statement that the protocol is ICMP.
    IcmpType,
    /// `icmpv6 type`: only behind a statement that the protocol is ICMPv6.
    Icmp6Type,
    /// `arp saddr ip`.
    ArpSource,
    /// `ct direction`: 0 for packets of whoever began the connection, 1 for the answers.
    Direction,
    /// `ct original ip saddr`, `ct original ip6 saddr`: who began the connection, as he wrote it.
    ConnectionSource(Family),
    /// `ct reply ip saddr`, `ct reply ip6 saddr`: who answers, which is the destination behind any translation.
    ConnectionDestination(Family),
    /// `ct reply proto-src`: the port of who answers, behind any translation.
    ConnectionPort,
}

/// What a field is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Numbers of one byte: protocol, family, types of ICMP, direction.
    Byte(u8),
    /// Ports.
    Short(u16),
    /// Addresses.
    V4(Ipv4Addr),
    /// Addresses.
    V6(Ipv6Addr),
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It has passed this base chain.
    Accept,
    /// It ends here.
    Drop,
    /// On to another chain, and back from its end.
    Jump(String),
    /// On to another chain.
    Goto(String),
    /// Back to where the chain was jumped to from.
    Return,
}

/// `ct state` bits (`NF_CT_STATE_BIT`, linux/netfilter/nf_conntrack_common.h): no connection can be told.
pub const CT_INVALID: u32 = 1;
/// Has seen packets both ways.
pub const CT_ESTABLISHED: u32 = 2;
/// Speaks of another connection: an ICMP error, for one.
pub const CT_RELATED: u32 = 4;
/// The first packets of a connection.
pub const CT_NEW: u32 = 8;
