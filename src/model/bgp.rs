//! `spec.bgp` of a NodeConfig: its shape on the wire, and the checked value from which a routing daemon is configured.
//!
//! A checked value is harmless in any configuration: names are symbols, links and files hold no character that ends a quotation,
//! numbers are in bounds. Must not know how a daemon wants to be told, and reads no file: a password is a file's name here.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use crate::addr::{IF_NAME_MAX, IfName};
use crate::excerpt::Excerpt;
use crate::notation::{self, Slip};
use crate::text;

/// Most peers of a node.
pub const PEERS_MAX: usize = 16;

/// Most prefixes that peers may give.
pub const IMPORT_MAX: usize = 256;

/// Longest name of a peer, in bytes.
pub const PEER_NAME_MAX: usize = 31;

/// Longest name of a password file, in bytes.
pub const PASSWORD_FILE_MAX: usize = 255;

/// The largest AS number that can be somebody's (RFC 7300).
pub const ASN_MAX: u32 = 4_294_967_294;

/// Hold time that holds if none is given, in seconds (RFC 4271, section 10).
pub const HOLD_TIME: u16 = 90;

/// Interval between the packets of BFD that holds if none is given, in milliseconds. Each side takes the slower one's.
pub const BFD_INTERVAL: u16 = 300;

/// Number of lost packets of BFD after which a peer is gone, if none is given.
pub const BFD_MULTIPLIER: u8 = 3;

/// `spec.bgp` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpecBgp {
    /// The node's AS number.
    pub asn: Option<i64>,
    /// The node's router id, in the form of an IPv4 address.
    #[serde(rename = "routerID")]
    pub router_id: Option<String>,
    /// Prefixes that peers may give to this host.
    pub import: Option<Vec<String>>,
    /// The routers.
    pub peers: Option<Vec<SpecPeer>>,
}

impl SpecBgp {
    /// The names of its fields, for readers that leave out what they do not know.
    pub const FIELDS: [&str; 4] = ["asn", "routerID", "import", "peers"];
}

/// One of `spec.bgp.peers` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpecPeer {
    /// What the operator calls it.
    #[serde(deserialize_with = "text::string")]
    pub name: String,
    /// Its address.
    pub address: Option<String>,
    /// The link on which it is.
    pub interface: Option<String>,
    /// Its AS number.
    pub asn: Option<SpecAsn>,
    /// Number of hops to it.
    pub multihop: Option<i64>,
    /// Time without a message after which it is gone, in seconds.
    pub hold_time: Option<i64>,
    /// The file that has the password of the session.
    pub password_file: Option<String>,
    /// Whether and how BFD watches it.
    pub bfd: Option<SpecBfd>,
}

impl SpecPeer {
    /// The names of its fields.
    pub const FIELDS: [&str; 8] =
        ["name", "address", "interface", "asn", "multihop", "holdTime", "passwordFile", "bfd"];
}

/// `bfd` of a peer as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpecBfd {
    /// Interval between packets, in milliseconds.
    pub interval: Option<i64>,
    /// Number of lost packets after which the peer is gone.
    pub multiplier: Option<i64>,
}

impl SpecBfd {
    /// The names of its fields.
    pub const FIELDS: [&str; 2] = ["interval", "multiplier"];
}

/// `asn` of a peer as it is written: a number or a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecAsn {
    /// A number.
    Number(i64),
    /// A word.
    Word(String),
}

impl<'de> Deserialize<'de> for SpecAsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SpecAsn, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = SpecAsn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number or the word external")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<SpecAsn, E> {
                Ok(SpecAsn::Number(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<SpecAsn, E> {
                Ok(SpecAsn::Number(i64::try_from(number).unwrap_or(i64::MAX)))
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<SpecAsn, E> {
                Ok(SpecAsn::Word(word.into()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A checked `spec.bgp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bgp {
    /// The node's AS number, 1 to [`ASN_MAX`].
    pub asn: u32,
    /// The node's router id, not 0.0.0.0; `None`: one is chosen.
    pub router_id: Option<Ipv4Addr>,
    /// Prefixes that peers may give to this host, with the longer ones in them; a default route is meant as it stands. No two are
    /// equal, at most [`IMPORT_MAX`].
    pub import: Vec<IpNet>,
    /// The routers, 1 to [`PEERS_MAX`], in the order in which they are written. No two have one name or are one neighbour.
    pub peers: Vec<Peer>,
}

/// A router that is told the node's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What the operator calls it.
    pub name: PeerName,
    /// Where it is.
    pub neighbour: Neighbour,
    /// Its AS number.
    pub asn: PeerAsn,
    /// Number of hops to it, 1 to 255; `None`: it is on a link of the host.
    pub multihop: Option<u8>,
    /// Time without a message after which it is gone, at least 3 seconds.
    pub hold_time: u16,
    /// The absolute path of the file that has the password of the session.
    pub password_file: Option<String>,
    /// BFD watches it.
    pub bfd: Option<Bfd>,
}

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Neighbour {
    /// At an address, which can be a single host's.
    At {
        /// The address.
        address: IpAddr,
        /// The link; always there for a link-local address.
        interface: Option<LinkName>,
    },
    /// Whoever is at the other end of this link.
    On(LinkName),
}

/// The AS number of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAsn {
    /// This one, 1 to [`ASN_MAX`].
    Is(u32),
    /// Any but the node's own.
    External,
}

/// How BFD watches a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfd {
    /// Interval between packets, 10 to 60000 milliseconds.
    pub interval: u16,
    /// Number of lost packets after which the peer is gone, 2 to 255.
    pub multiplier: u8,
}

/// The name of a peer: a small letter, then small letters, digits and `_`; at most [`PEER_NAME_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerName(String);

impl PeerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a link of the host: letters, digits, `_`, `.` and `-`, so that it is neither a pattern nor the end of a quotation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkName(IfName);

impl LinkName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A field of `spec.bgp` whose value breaks a rule. One line that begins with the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BgpError {
    /// Where, such as `spec.bgp.peers[1].address`, counted from 0.
    pub path: String,
    /// The value; none where there is none, or too many.
    pub value: Option<Excerpt>,
    /// What is wrong with it.
    pub rule: BgpRule,
}

/// A rule that a field's value breaks. The text reads on from the value, and says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BgpRule {
    /// Nothing is there.
    Required(&'static str),
    /// Outside these bounds.
    Between(u32, u32),
    /// More than so many.
    AtMost(usize),
    /// Neither a number of an AS nor the word.
    Asn,
    /// Not written as an IPv4 address, or 0.0.0.0.
    RouterId,
    /// Not a prefix; why not.
    Prefix(Slip),
    /// Bits are set behind the prefix length; the prefix that was probably meant.
    HostBits(IpNet),
    /// A prefix that no peer may give.
    Reserved,
    /// Another value of the list is the same: which one.
    Twice(String),
    /// Not a name.
    Name,
    /// Not an address; why not.
    Address(Slip),
    /// An address that no router can have.
    NotUnicast,
    /// Not the name of a link.
    Link,
    /// Neither `address` nor `interface`.
    NoNeighbour,
    /// A link-local address without a link.
    NoLink,
    /// A peer on a link of the host that is several hops away.
    Hops,
    /// BFD of a peer that is several hops away.
    BfdHops,
    /// Not the absolute path of a file.
    File,
}

impl fmt::Display for BgpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value} {}", self.path, self.rule),
            None => write!(f, "{} {}", self.path, self.rule),
        }
    }
}

impl fmt::Display for BgpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BgpRule::Required(what) => write!(f, "is required: {what}"),
            BgpRule::Between(min, max) => write!(f, "must be between {min} and {max}"),
            BgpRule::AtMost(max) => write!(f, "has too many entries: at most {max} are allowed"),
            BgpRule::Asn => write!(f, "must be an AS number, from 1 to {ASN_MAX}, or the word external"),
            BgpRule::RouterId => f.write_str("must be written like an IPv4 address, such as 192.0.2.11, and not be 0.0.0.0"),
            BgpRule::Prefix(Slip::Other) => f.write_str("is not a prefix such as 10.0.0.0/8 or 2001:db8::/32"),
            BgpRule::Prefix(slip) => slip.fmt(f),
            BgpRule::HostBits(meant) => write!(f, "has bits set behind the prefix length (did you mean {meant}?)"),
            BgpRule::Reserved => {
                f.write_str("is loopback, link-local, multicast or reserved, and is never taken from a peer: remove it")
            }
            BgpRule::Twice(other) => write!(f, "is {other} already: remove one of them"),
            BgpRule::Name => write!(
                f,
                "must be a small letter, then small letters, digits and _, {PEER_NAME_MAX} at most: it names the session in the \
                 routing daemon"
            ),
            BgpRule::Address(Slip::Zone | Slip::Other) => f.write_str(
                "is not an IP address such as 192.0.2.1, 2001:db8::1 or fe80::1; the link of a link-local one belongs into \
                 interface",
            ),
            BgpRule::Address(slip) => slip.fmt(f),
            BgpRule::NotUnicast => {
                f.write_str("is no address of a router: it is unspecified, loopback, multicast or broadcast")
            }
            BgpRule::Link => write!(
                f,
                "must be the name of a link of the host: letters, digits, '_', '.' and '-', {IF_NAME_MAX} at most, and not lo, all or \
                 default"
            ),
            BgpRule::NoNeighbour => f.write_str("has neither address nor interface, and one of them is needed"),
            BgpRule::NoLink => f.write_str("is link-local, and the peer has no interface: name the link there"),
            BgpRule::Hops => f.write_str(
                "is for a peer behind routers, and this one has a link-local address or none: remove multihop, or give its global \
                 address",
            ),
            BgpRule::BfdHops => f.write_str(
                "is for a peer on a link of this host, and this one has multihop: remove one of them; holdTime tells how soon a \
                 peer that is far away is gone",
            ),
            BgpRule::File => write!(
                f,
                "must be the absolute path of a file, of at most {PASSWORD_FILE_MAX} bytes without control characters"
            ),
        }
    }
}

impl core::error::Error for BgpError {}

impl SpecBgp {
    /// The checked value.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn check(self) -> Result<Bgp, BgpError> {
        let path = |field: &str| format!("spec.bgp.{field}");
        let asn = self.asn.ok_or_else(|| missing(path("asn"), "the node's own AS number, such as 65001"))?;
        let asn = within(|| path("asn"), asn, 1, ASN_MAX)?;
        let router_id = self.router_id.map(|text| router_id(path("routerID"), &text)).transpose()?;
        let import = import(self.import.unwrap_or_default())?;
        let written = self.peers.unwrap_or_default();
        if written.is_empty() {
            return Err(missing(path("peers"), "at least one router; a node without any has no bgp"));
        }
        bounded(path("peers"), written.len(), PEERS_MAX)?;
        let mut peers = Vec::new();
        for (index, peer) in written.into_iter().enumerate() {
            let peer = peer.check(|field| format!("spec.bgp.peers[{index}]{field}"))?;
            check_unique(&peers, &peer, index)?;
            peers.push(peer);
        }
        Ok(Bgp { asn, router_id, import, peers })
    }
}

impl SpecPeer {
    fn check(self, path: impl Fn(&str) -> String) -> Result<Peer, BgpError> {
        let name = name(|| path(".name"), &self.name)?;
        let address = self.address.map(|text| address(|| path(".address"), &text)).transpose()?;
        let interface = self.interface.map(|text| link(|| path(".interface"), &text)).transpose()?;
        let neighbour = match (address, interface) {
            (Some(address), None) if is_link_local(address) => {
                return Err(broken(path(".address"), &address.to_string(), BgpRule::NoLink));
            }
            (Some(address), interface) => Neighbour::At { address, interface },
            (None, Some(interface)) => Neighbour::On(interface),
            (None, None) => return Err(BgpError { path: path(""), value: None, rule: BgpRule::NoNeighbour }),
        };
        let asn = match self.asn {
            None => return Err(missing(path(".asn"), "the router's AS number, or the word external")),
            Some(SpecAsn::Word(word)) if word == "external" => PeerAsn::External,
            Some(SpecAsn::Word(word)) => return Err(broken(path(".asn"), &word, BgpRule::Asn)),
            Some(SpecAsn::Number(number)) => {
                let asn = u32::try_from(number).ok().filter(|asn| (1..=ASN_MAX).contains(asn));
                PeerAsn::Is(asn.ok_or_else(|| broken(path(".asn"), &number.to_string(), BgpRule::Asn))?)
            }
        };
        let multihop = self.multihop.map(|hops| within(|| path(".multihop"), hops, 1, u8::MAX)).transpose()?;
        if let Some(hops) = multihop
            && !matches!(neighbour, Neighbour::At { address, interface: None } if !is_link_local(address))
        {
            return Err(broken(path(".multihop"), &hops.to_string(), BgpRule::Hops));
        }
        let hold_time = self.hold_time.map(|time| within(|| path(".holdTime"), time, 3, u16::MAX)).transpose()?;
        let password_file = self.password_file.map(|text| file(|| path(".passwordFile"), text)).transpose()?;
        let bfd = self.bfd.map(|bfd| bfd.check(|field| path(&format!(".bfd.{field}")))).transpose()?;
        if bfd.is_some() && multihop.is_some() {
            return Err(BgpError { path: path(".bfd"), value: None, rule: BgpRule::BfdHops });
        }
        Ok(Peer { name, neighbour, asn, multihop, hold_time: hold_time.unwrap_or(HOLD_TIME), password_file, bfd })
    }
}

impl SpecBfd {
    fn check(self, path: impl Fn(&str) -> String) -> Result<Bfd, BgpError> {
        let interval = self.interval.map(|ms| within(|| path("interval"), ms, 10, 60_000)).transpose()?;
        let multiplier = self.multiplier.map(|n| within(|| path("multiplier"), n, 2, u8::MAX)).transpose()?;
        Ok(Bfd { interval: interval.unwrap_or(BFD_INTERVAL), multiplier: multiplier.unwrap_or(BFD_MULTIPLIER) })
    }
}

impl Neighbour {
    /// The one address, if it is known.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Neighbour::At { address, .. } => Some(*address),
            Neighbour::On(_) => None,
        }
    }

    fn is(&self, other: &Neighbour) -> bool {
        match (self, other) {
            (Neighbour::At { address: one, interface: on }, Neighbour::At { address: other, interface: at }) => {
                one == other && (!is_link_local(*one) || on == at)
            }
            (one, other) => one == other,
        }
    }
}

fn missing(path: String, what: &'static str) -> BgpError {
    BgpError { path, value: None, rule: BgpRule::Required(what) }
}

fn broken(path: String, value: &str, rule: BgpRule) -> BgpError {
    BgpError { path, value: Some(Excerpt::of(value)), rule }
}

fn bounded(path: String, count: usize, max: usize) -> Result<(), BgpError> {
    if count > max { Err(BgpError { path, value: None, rule: BgpRule::AtMost(max) }) } else { Ok(()) }
}

fn within<T: TryFrom<i64> + Into<u32> + Copy>(
    path: impl FnOnce() -> String,
    value: i64,
    min: u32,
    max: T,
) -> Result<T, BgpError> {
    let most = max.into();
    let fits = |value: &T| (min..=most).contains(&(*value).into());
    let found = T::try_from(value).ok().filter(fits);
    found.ok_or_else(|| broken(path(), &value.to_string(), BgpRule::Between(min, most)))
}

fn router_id(path: String, text: &str) -> Result<Ipv4Addr, BgpError> {
    let found = text.parse().ok().filter(|id: &Ipv4Addr| !id.is_unspecified());
    found.ok_or_else(|| broken(path, text, BgpRule::RouterId))
}

fn import(written: Vec<String>) -> Result<Vec<IpNet>, BgpError> {
    bounded("spec.bgp.import".into(), written.len(), IMPORT_MAX)?;
    let mut import: Vec<IpNet> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let wrong = |rule| broken(format!("spec.bgp.import[{index}]"), text, rule);
        let net = notation::prefix(text).map_err(|slip| wrong(BgpRule::Prefix(slip)))?;
        if net.trunc() != net {
            return Err(wrong(BgpRule::HostBits(net.trunc())));
        }
        if is_reserved(&net) {
            return Err(wrong(BgpRule::Reserved));
        }
        if let Some(other) = import.iter().position(|other| *other == net) {
            return Err(wrong(BgpRule::Twice(format!("spec.bgp.import[{other}]"))));
        }
        import.push(net);
    }
    Ok(import)
}

/// Wholly in a range of which no peer has to tell a host anything.
fn is_reserved(net: &IpNet) -> bool {
    let within = |base: IpAddr, len: u8| IpNet::new(base, len).is_ok_and(|range| range.contains(net));
    match net.addr() {
        IpAddr::V4(_) => {
            let v4 = |a, b, len| within(IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), len);
            (v4(0, 0, 8) && net.prefix_len() > 0) || v4(127, 0, 8) || v4(169, 254, 16) || v4(224, 0, 3)
        }
        IpAddr::V6(_) => {
            let v6 = |first, len| within(IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0)), len);
            v6(0, 8) || v6(0xfe80, 10) || v6(0xff00, 8)
        }
    }
}

fn name(path: impl FnOnce() -> String, text: &str) -> Result<PeerName, BgpError> {
    let good = |text: &&str| {
        let mut bytes = text.bytes();
        text.len() <= PEER_NAME_MAX
            && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let found = Some(text).filter(good).map(|text| PeerName(text.into()));
    found.ok_or_else(|| broken(path(), text, BgpRule::Name))
}

fn address(path: impl FnOnce() -> String, text: &str) -> Result<IpAddr, BgpError> {
    let address = match notation::address(text) {
        Ok(address) => address,
        Err(slip) => return Err(broken(path(), text, BgpRule::Address(slip))),
    };
    let unicast = match address {
        IpAddr::V4(ip) => !(ip.octets()[0] == 0 || ip.is_loopback() || ip.is_multicast() || ip.octets()[0] >= 240),
        // ::/8 holds the unspecified and the loopback address.
        IpAddr::V6(ip) => !(ip.octets()[0] == 0 || ip.is_multicast()),
    };
    if unicast { Ok(address) } else { Err(broken(path(), text, BgpRule::NotUnicast)) }
}

fn link(path: impl FnOnce() -> String, text: &str) -> Result<LinkName, BgpError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    let name = Some(text).filter(|_| plain).and_then(|text| text.parse().ok());
    name.map(LinkName).ok_or_else(|| broken(path(), text, BgpRule::Link))
}

fn file(path: impl FnOnce() -> String, text: String) -> Result<String, BgpError> {
    let good = text.starts_with('/') && text.len() <= PASSWORD_FILE_MAX && !text.chars().any(char::is_control);
    if good { Ok(text) } else { Err(broken(path(), &text, BgpRule::File)) }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn check_unique(peers: &[Peer], peer: &Peer, index: usize) -> Result<(), BgpError> {
    let same = |field: &str, value: &str, other: usize| {
        let rule = BgpRule::Twice(format!("spec.bgp.peers[{other}]{field}"));
        Err(broken(format!("spec.bgp.peers[{index}]{field}"), value, rule))
    };
    if let Some(other) = peers.iter().position(|other| other.name == peer.name) {
        return same(".name", peer.name.as_str(), other);
    }
    match peers.iter().position(|other| other.neighbour.is(&peer.neighbour)) {
        None => Ok(()),
        Some(other) => match &peer.neighbour {
            Neighbour::At { address, .. } => same(".address", &address.to_string(), other),
            Neighbour::On(link) => same(".interface", link.as_str(), other),
        },
    }
}

#[cfg(test)]
mod tests;
