//! `spec.bgp` of a NodeConfig: the checked value from which a routing daemon is configured, and how it is read.
//!
//! A checked value is harmless in any configuration: names are symbols, links and files hold no character that ends a quotation,
//! numbers are in bounds. Must not know how a daemon wants to be told, and reads no file: a password is a file's name here.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::addr::{IF_NAME_MAX, IfName, parse_prefix};
use crate::fields::{Fields, Value};
use crate::notation::{self, Slip};
use crate::tree::Tree;
use ipnet::IpNet;

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

/// Reads `spec.bgp`. None: something is wrong with it, and has been said.
pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Bgp> {
    let asn = fields.required("asn", "write the node's own AS number, such as 65001");
    let asn = asn.and_then(|value| value.within(1, ASN_MAX));
    let router_id = fields.get("routerID").and_then(|value| value.parsed(router_id));
    let import = fields.get("import").map(|value| value.set(IMPORT_MAX, import)).unwrap_or_default();
    let written = fields.required("peers", "write at least one router; a node without any has no bgp")?;
    let mut peers: Vec<Written<'_>> = Vec::new();
    let items = written.items(PEERS_MAX)?;
    if items.is_empty() {
        written.wrong("is empty: write at least one router, or remove bgp");
    }
    for item in items {
        if let Some(peer) = item.object(peer).flatten() {
            peer.check_unique(&peers);
            peers.push(peer);
        }
    }
    Some(Bgp { asn: asn?, router_id, import, peers: peers.into_iter().map(|written| written.peer).collect() })
}

/// A peer, and where its name and its neighbour are written.
struct Written<'a> {
    peer: Peer,
    name: Value<'a>,
    neighbour: Value<'a>,
}

impl Written<'_> {
    fn check_unique(&self, others: &[Written<'_>]) {
        let twice = |value: &Value<'_>, other: &Value<'_>| {
            value.wrong(format_args!("is {} already: remove one of them", other.path()));
        };
        if let Some(other) = others.iter().find(|other| other.peer.name == self.peer.name) {
            twice(&self.name, &other.name);
        }
        if let Some(other) = others.iter().find(|other| other.peer.neighbour.is(&self.peer.neighbour)) {
            twice(&self.neighbour, &other.neighbour);
        }
    }
}

fn peer<'a>(fields: &mut Fields<'a>) -> Option<Written<'a>> {
    let name = fields.required("name", format_args!("write {NAME_RULE}"));
    let peer_name = name.as_ref().and_then(|value| value.parsed(peer_name));
    let (at, on) = (fields.get("address"), fields.get("interface"));
    let address = at.as_ref().and_then(|value| value.parsed(address));
    let interface = on.as_ref().and_then(|value| value.parsed(link));
    let neighbour = match (&at, &on) {
        (None, None) => {
            fields.lack("has neither address nor interface, and one of them is needed");
            None
        }
        (Some(at), None) if address.is_some_and(is_link_local) => {
            at.wrong("is link-local, and the peer has no interface: name the link there");
            None
        }
        (Some(_), _) => address.map(|address| Neighbour::At { address, interface }),
        (None, Some(_)) => interface.map(Neighbour::On),
    };
    let asn =
        fields.required("asn", "write the router's AS number, or the word external").and_then(|asn| peer_asn(&asn));
    let hops = fields.get("multihop");
    let multihop: Option<u8> = hops.as_ref().and_then(|hops| hops.within(1, u8::MAX.into()));
    if let (Some(hops), Some(neighbour)) = (hops.as_ref().filter(|_| multihop.is_some()), &neighbour)
        && !matches!(neighbour, Neighbour::At { address, interface: None } if !is_link_local(*address))
    {
        hops.wrong(
            "is for a peer behind routers, and this one has a link-local address or none: remove multihop, or give its global \
             address",
        );
    }
    let hold_time = fields.get("holdTime").and_then(|time| time.within(3, u16::MAX.into())).unwrap_or(HOLD_TIME);
    let password_file = fields.get("passwordFile").and_then(|path| path.parsed(file));
    let watched = fields.get("bfd");
    if let (Some(watched), Some(_)) = (&watched, &hops) {
        watched.wrong(
            "is for a peer on a link of this host, and this one has multihop: remove one of them; holdTime tells how soon a \
             peer that is far away is gone",
        );
    }
    let bfd = watched.and_then(|value| value.object(bfd));
    let (name, neighbour_value) = (name?, at.or(on)?);
    let peer = Peer { name: peer_name?, neighbour: neighbour?, asn: asn?, multihop, hold_time, password_file, bfd };
    Some(Written { peer, name, neighbour: neighbour_value })
}

fn bfd(fields: &mut Fields<'_>) -> Bfd {
    Bfd {
        interval: fields.get("interval").and_then(|ms| ms.within(10, 60_000)).unwrap_or(BFD_INTERVAL),
        multiplier: fields.get("multiplier").and_then(|n| n.within(2, u8::MAX.into())).unwrap_or(BFD_MULTIPLIER),
    }
}

fn peer_asn(value: &Value<'_>) -> Option<PeerAsn> {
    match value.tree() {
        Tree::Text(word) if word == "external" => return Some(PeerAsn::External),
        Tree::Text(text) if text.parse::<u32>().is_ok() => {
            value.wrong(format_args!("is a text between quotes: write {text} without them"));
        }
        Tree::Integer(number) if u32::try_from(*number).is_ok_and(|number| (1..=ASN_MAX).contains(&number)) => {
            return u32::try_from(*number).ok().map(PeerAsn::Is);
        }
        Tree::Text(_) | Tree::Integer(_) | Tree::Number(_) | Tree::Boolean(_) => {
            value.wrong(format_args!("must be an AS number, from 1 to {ASN_MAX}, or the word external"));
        }
        _ => value.wrong_kind("an AS number or the word external is meant"),
    }
    None
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

fn router_id(text: &str) -> Result<Ipv4Addr, &'static str> {
    let found = text.parse().ok().filter(|id: &Ipv4Addr| !id.is_unspecified());
    found.ok_or("must be written like an IPv4 address, such as 192.0.2.11, and not be 0.0.0.0")
}

fn import(text: &str) -> Result<IpNet, String> {
    let net = parse_prefix(text).map_err(|why| why.to_string())?;
    if is_reserved(&net) {
        return Err("is loopback, link-local, multicast or reserved, and is never taken from a peer: remove it".into());
    }
    Ok(net)
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

/// What a name of a peer is.
const NAME_RULE: &str =
    "a small letter, then small letters, digits and _, 31 at most: it names the session in the routing daemon";

fn peer_name(text: &str) -> Result<PeerName, String> {
    let good = |text: &&str| {
        let mut bytes = text.bytes();
        text.len() <= PEER_NAME_MAX
            && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let found = Some(text).filter(good).map(|text| PeerName(text.into()));
    found.ok_or_else(|| format!("must be {NAME_RULE}"))
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address = notation::address(text).map_err(|slip| match slip {
        Slip::Zone | Slip::Other => {
            "is not an IP address such as 192.0.2.1, 2001:db8::1 or fe80::1; the link of a link-local one belongs into interface"
                .into()
        }
        slip => slip.to_string(),
    })?;
    let unicast = match address {
        IpAddr::V4(ip) => !(ip.octets()[0] == 0 || ip.is_loopback() || ip.is_multicast() || ip.octets()[0] >= 240),
        // ::/8 holds the unspecified and the loopback address.
        IpAddr::V6(ip) => !(ip.octets()[0] == 0 || ip.is_multicast()),
    };
    if unicast {
        Ok(address)
    } else {
        Err("is no address of a router, but unspecified, loopback, multicast or broadcast: write the router's own"
            .into())
    }
}

fn link(text: &str) -> Result<LinkName, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    let name = Some(text).filter(|_| plain).and_then(|text| text.parse().ok());
    name.map(LinkName).ok_or_else(|| {
        format!(
            "must be the name of a link of the host: letters, digits, '_', '.' and '-', {IF_NAME_MAX} at most, and not lo, all or \
             default"
        )
    })
}

fn file(text: &str) -> Result<String, String> {
    let good = text.starts_with('/') && text.len() <= PASSWORD_FILE_MAX && !text.chars().any(char::is_control);
    let rule = || {
        format!("must be the absolute path of a file, of at most {PASSWORD_FILE_MAX} bytes without control characters")
    };
    if good { Ok(text.into()) } else { Err(rule()) }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests;
