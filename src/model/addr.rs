//! Addresses, prefixes, hardware addresses and names: parsed once at the door, printed one way.
//!
//! A value of one of these types has been checked and cannot become unchecked again. This file must not
//! do I/O and must not know who uses it.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::notation::{self, Slip};

/// Longest container id that is accepted, in bytes. The CNI specification sets no limit; containerd and CRI-O
/// use 64. The id becomes part of file names of runtimes, which end at 255 bytes.
pub const CONTAINER_ID_MAX: usize = 128;

/// Longest interface name, in bytes (the kernel's `IFNAMSIZ` less the final zero).
pub const IF_NAME_MAX: usize = 15;

/// The pod's IPv6 gateway: the same link-local address on every host end.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The pod's IPv4 gateway, on link by decree.
pub const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// One of the two address families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Why a text is not the thing that it should be. Says the rule, and for prefixes what was probably meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddrError {
    /// Nothing where something is required.
    Empty,
    /// Longer than allowed: the limit in bytes.
    TooLong(usize),
    /// A byte that may not occur, or a first byte that may not come first.
    BadCharacter(&'static str),
    /// A name that the kernel or the host uses for something else.
    Reserved,
    /// Not an address followed by `/` and a prefix length, of this family if one is meant; why not.
    NotAPrefix(Option<Family>, Slip),
    /// A prefix of the other family; what was probably meant.
    OtherFamily(IpNet),
    /// Bits are set behind the prefix length; the prefix that was probably meant.
    HostBits(String),
    /// A range that no pod can live in; which one it touches.
    NotUnicast(&'static str),
    /// A prefix length outside the bounds for its use.
    PrefixLength(String),
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddrError::Empty => f.write_str("is empty"),
            AddrError::TooLong(max) => write!(f, "is longer than {max} bytes"),
            AddrError::BadCharacter(rule) => f.write_str(rule),
            AddrError::Reserved => f.write_str("is a reserved name"),
            AddrError::NotAPrefix(None, Slip::Other) => {
                f.write_str("is not a prefix such as 10.0.0.0/8 or 2001:db8::/32")
            }
            AddrError::NotAPrefix(Some(family), Slip::Other) => {
                write!(f, "is not an {family} prefix such as {}", example(*family))
            }
            AddrError::NotAPrefix(_, slip) => slip.fmt(f),
            AddrError::OtherFamily(net @ IpNet::V4(_)) => write!(f, "is an IPv4 prefix: write cidr4: {net}"),
            AddrError::OtherFamily(net @ IpNet::V6(_)) => write!(f, "is an IPv6 prefix: write cidr6: '{net}'"),
            AddrError::HostBits(meant) => write!(f, "has bits set behind the prefix length (did you mean {meant}?)"),
            AddrError::NotUnicast(what) => write!(f, "overlaps {what}, where no pod can live"),
            AddrError::PrefixLength(rule) => f.write_str(rule),
        }
    }
}

impl core::error::Error for AddrError {}

fn example(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.0.0.0/24",
        Family::V6 => "2001:db8::/64",
    }
}

/// A container id by the rule of the CNI specification (section 2, Parameters): a letter or digit, then letters,
/// digits, `_`, `.` and `-`; 1 to [`CONTAINER_ID_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(Box<str>);

impl ContainerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        check_identifier(text)?;
        if text.len() > CONTAINER_ID_MAX {
            return Err(AddrError::TooLong(CONTAINER_ID_MAX));
        }
        Ok(ContainerId(text.into()))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The character rule that container ids and network names share. No length limit.
///
/// # Errors
/// [`AddrError::Empty`] or [`AddrError::BadCharacter`].
pub fn check_identifier(text: &str) -> Result<(), AddrError> {
    let mut bytes = text.bytes();
    let first = bytes.next().ok_or(AddrError::Empty)?;
    if !first.is_ascii_alphanumeric() {
        return Err(AddrError::BadCharacter("must begin with a letter or digit"));
    }
    if !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Err(AddrError::BadCharacter("may hold only letters, digits, '_', '.' and '-'"));
    }
    Ok(())
}

/// A network interface name that the kernel takes and that is safe in `/proc/sys/net` paths: 1 to
/// [`IF_NAME_MAX`] bytes; none of `/`, `:`, `%`, white space and control characters; not `.`, `..`, `lo`, `all`, `default`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName(Box<str>);

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        if text.is_empty() {
            return Err(AddrError::Empty);
        }
        if text.len() > IF_NAME_MAX {
            return Err(AddrError::TooLong(IF_NAME_MAX));
        }
        // `%` is a pattern for the kernel's own numbering; `all` and `default` are directories in /proc/sys/net.
        if text.chars().any(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
            return Err(AddrError::BadCharacter("may not hold '/', ':', '%', white space or control characters"));
        }
        if matches!(text, "." | ".." | "lo" | "all" | "default") {
            return Err(AddrError::Reserved);
        }
        Ok(IfName(text.into()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the names of all host ends of pods' links begin with. A link of somebody else may be named so, too.
pub const POD_LINKS: &str = "flock";

/// What all state is keyed by: one interface of one container (CNI specification, section 2: one attachment).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The container.
    pub container_id: ContainerId,
    /// The interface inside it.
    pub ifname: IfName,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

impl FromStr for Attachment {
    type Err = AddrError;

    /// The reverse of `Display`: `CONTAINER_ID/IFNAME`.
    fn from_str(text: &str) -> Result<Self, AddrError> {
        let (id, ifname) = text.split_once('/').ok_or(AddrError::BadCharacter("must be CONTAINER_ID/IFNAME"))?;
        Ok(Attachment { container_id: id.parse()?, ifname: ifname.parse()? })
    }
}

impl Attachment {
    /// The least attachment of the same container, in the order of attachments.
    pub fn first_of_container(&self) -> Attachment {
        Attachment { container_id: self.container_id.clone(), ifname: IfName("".into()) }
    }

    /// The name of the host end of this attachment's link: `flock` and the FNV-1a-32 of the container id in eight
    /// hex digits for `eth0`, of `CONTAINER_ID/IFNAME` for any other interface.
    ///
    /// Two attachments can meet in 32 bits. Then `attempt` 1, 2, ... give further names; 0 is the ordinary one.
    pub fn host_link(&self, attempt: u8) -> IfName {
        let mut text = match self.ifname.as_str() {
            "eth0" => self.container_id.to_string(),
            other => format!("{}/{other}", self.container_id),
        };
        if attempt > 0 {
            text.push_str(&format!("#{attempt}"));
        }
        IfName(format!("{POD_LINKS}{:08x}", fnv1a32(text.as_bytes())).into())
    }

    /// The hardware address of one end: locally administered, unicast, the same for the same attachment, so that
    /// a link can be recognised as this attachment's from the kernel alone.
    pub fn mac(&self, end: LinkEnd) -> Mac {
        let role = match end {
            LinkEnd::Host => "host",
            LinkEnd::Pod => "pod",
        };
        let [a, b, c, d, e, f, ..] = fnv1a64(format!("{self}#{role}").as_bytes()).to_be_bytes();
        Mac([(a & 0xfc) | 0x02, b, c, d, e, f])
    }
}

/// One end of a veth pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// The end in the host's network namespace.
    Host,
    /// The end in the pod's.
    Pod,
}

/// An Ethernet hardware address, printed in lower case with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The link-local IPv6 address with the modified EUI-64 interface identifier (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 0x02, b), word(c, 0xff), word(0xfe, d), word(e, f))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let bad = AddrError::BadCharacter("must be six hex pairs with colons");
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(|| bad.clone())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad.clone())?;
        }
        if parts.next().is_some() { Err(bad) } else { Ok(Mac(bytes)) }
    }
}

/// A prefix of either family without host bits.
///
/// # Errors
/// [`AddrError::NotAPrefix`] and [`AddrError::HostBits`].
pub fn parse_prefix(text: &str) -> Result<IpNet, AddrError> {
    let net = notation::prefix(text.trim()).map_err(|slip| AddrError::NotAPrefix(None, slip))?;
    if net.trunc() == net { Ok(net) } else { Err(AddrError::HostBits(net.trunc().to_string())) }
}

/// An IPv6 prefix without host bits that lies wholly in space where a pod can have a unicast address.
///
/// # Errors
/// Every variant that names a prefix; the message reads on from the value (`"… is not an IPv6 prefix"`).
pub fn parse_prefix6(text: &str) -> Result<Ipv6Net, AddrError> {
    match notation::prefix(text.trim()) {
        Ok(IpNet::V6(net)) => check_prefix6(net).map(|()| net),
        Ok(net @ IpNet::V4(_)) => Err(AddrError::OtherFamily(net)),
        Err(Slip::Mapped(net)) => Err(AddrError::OtherFamily(net.into())),
        Err(slip) => Err(AddrError::NotAPrefix(Some(Family::V6), slip)),
    }
}

/// The rule of [`parse_prefix6`], for a prefix that has been read elsewhere.
///
/// # Errors
/// [`AddrError::HostBits`] and [`AddrError::NotUnicast`].
pub fn check_prefix6(net: Ipv6Net) -> Result<(), AddrError> {
    if net.trunc() != net {
        return Err(AddrError::HostBits(net.trunc().to_string()));
    }
    let overlaps = |base: Ipv6Addr, len: u8| {
        Ipv6Net::new(base, len).is_ok_and(|other| other.contains(&net) || net.contains(&other))
    };
    if overlaps(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8) {
        return Err(AddrError::NotUnicast("the multicast range ff00::/8"));
    }
    if overlaps(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10) {
        return Err(AddrError::NotUnicast("the link-local range fe80::/10"));
    }
    // ::/8 holds the unspecified and the loopback address and IPv4-mapped ones, which Go programs print as IPv4.
    if overlaps(Ipv6Addr::UNSPECIFIED, 8) {
        return Err(AddrError::NotUnicast("the reserved range ::/8"));
    }
    Ok(())
}

/// The IPv4 twin of [`parse_prefix6`].
///
/// # Errors
/// As there.
pub fn parse_prefix4(text: &str) -> Result<Ipv4Net, AddrError> {
    match notation::prefix(text.trim()) {
        Ok(IpNet::V4(net)) => check_prefix4(net).map(|()| net),
        Ok(net @ IpNet::V6(_)) => Err(AddrError::OtherFamily(net)),
        Err(slip) => Err(AddrError::NotAPrefix(Some(Family::V4), slip)),
    }
}

/// The IPv4 twin of [`check_prefix6`].
///
/// # Errors
/// As there.
pub fn check_prefix4(net: Ipv4Net) -> Result<(), AddrError> {
    if net.trunc() != net {
        return Err(AddrError::HostBits(net.trunc().to_string()));
    }
    let overlaps = |base: Ipv4Addr, len: u8| {
        Ipv4Net::new(base, len).is_ok_and(|other| other.contains(&net) || net.contains(&other))
    };
    for (base, len, what) in [
        (Ipv4Addr::new(0, 0, 0, 0), 8, "the reserved range 0.0.0.0/8"),
        (Ipv4Addr::new(127, 0, 0, 0), 8, "the loopback range 127.0.0.0/8"),
        (Ipv4Addr::new(169, 254, 0, 0), 16, "the link-local range 169.254.0.0/16"),
        (Ipv4Addr::new(224, 0, 0, 0), 4, "the multicast range 224.0.0.0/4"),
        (Ipv4Addr::new(240, 0, 0, 0), 4, "the reserved range 240.0.0.0/4"),
    ] {
        if overlaps(base, len) {
            return Err(AddrError::NotUnicast(what));
        }
    }
    Ok(())
}

/// Whether `ip` is the first or, in IPv4, the last address of `net`: the subnet-router anycast address of a network, its number
/// and its broadcast address are not a machine's where that network is on a link. Two addresses are a point-to-point link, which
/// has no edges (RFC 3021, RFC 6164), and one is itself.
pub fn is_edge(net: &IpNet, ip: IpAddr) -> bool {
    let has_edges = net.max_prefix_len() - net.prefix_len() > 1;
    has_edges && (ip == net.network() || ip.is_ipv4() && ip == net.broadcast())
}

/// Whether `ip` means something on one link only (RFC 3927, RFC 4291 section 2.5.6).
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// FNV-1a, 32 bits. Not a defence against anybody: a name that is easy to recompute by hand.
pub fn fnv1a32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

/// FNV-1a, 64 bits.
pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(text: &str) -> Attachment {
        text.parse().expect("a well-formed attachment")
    }

    #[test]
    fn fnv_agrees_with_its_published_vectors() {
        assert_eq!(fnv1a32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a32(b"foobar"), 0xbf9c_f968);
        assert_eq!(fnv1a64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_host_link_is_named_by_the_container_and_for_other_interfaces_by_both() {
        let eth0 = attachment("abc/eth0");
        assert_eq!(eth0.host_link(0).as_str(), format!("flock{:08x}", fnv1a32(b"abc")));
        let net1 = attachment("abc/net1");
        assert_eq!(net1.host_link(0).as_str(), format!("flock{:08x}", fnv1a32(b"abc/net1")));
        assert_ne!(eth0.host_link(0), eth0.host_link(1));
    }

    #[test]
    fn macs_are_unicast_locally_administered_and_differ_by_end() {
        let one = attachment("abc/eth0");
        for end in [LinkEnd::Host, LinkEnd::Pod] {
            assert_eq!(one.mac(end).0[0] & 0x03, 0x02);
            assert_eq!(one.mac(end).to_string().parse(), Ok(one.mac(end)));
        }
        assert_ne!(one.mac(LinkEnd::Host), one.mac(LinkEnd::Pod));
        assert_eq!(Mac([2, 0, 0, 0, 0, 1]).link_local(), "fe80::ff:fe00:1".parse::<Ipv6Addr>().expect("literal"));
    }

    // covers: FM-F01
    #[test]
    fn container_ids_follow_the_specification() {
        for good in ["a", "A9_.-", "0", &"f".repeat(128)] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "_a", "a/b", "../x", "a b", "a\n", "é", &"f".repeat(129)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
    }

    // covers: FM-F01
    #[test]
    fn interface_names_are_those_that_kernel_and_sysctl_paths_can_bear() {
        for good in ["eth0", "net1", "a", "fifteen-bytes-x"] {
            assert!(good.parse::<IfName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "sixteen-bytes-xx",
            "éééééééé",
            "a/b",
            "a:b",
            "a b",
            "a\u{a0}b",
            ".",
            "..",
            "lo",
            "all",
            "default",
            "e%d",
            "a\u{7}",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefixes_say_what_is_wrong_and_what_was_meant() {
        assert!(parse_prefix6("2001:db8::/64").is_ok());
        assert_eq!(parse_prefix6("2001:db8::1/64"), Err(AddrError::HostBits("2001:db8::/64".into())));
        let why = |refused: AddrError| refused.to_string();
        let other = parse_prefix6("10.0.0.0/8").map_err(why);
        assert_eq!(other, Err("is an IPv4 prefix: write cidr4: 10.0.0.0/8".into()));
        let mapped = parse_prefix6("::ffff:10.25.214.0/120").map_err(why);
        assert_eq!(mapped, Err("is an IPv4 prefix: write cidr4: 10.25.214.0/24".into()));
        let other = parse_prefix4("2001:db8::/64").map_err(why);
        assert_eq!(other, Err("is an IPv6 prefix: write cidr6: '2001:db8::/64'".into()));
        assert!(parse_prefix4("10.0.0.0/24").is_ok());
        assert_eq!(parse_prefix4("10.0.0.9/24"), Err(AddrError::HostBits("10.0.0.0/24".into())));
        for bad in ["fe80::/64", "ff02::/16", "::/0", "::fffe:0:0/96", "fe00::/8"] {
            assert!(matches!(parse_prefix6(bad), Err(AddrError::NotUnicast(_))), "{bad}");
        }
        for bad in ["127.0.0.0/24", "169.254.0.0/24", "224.0.0.0/24", "0.0.0.0/0", "255.255.255.0/24"] {
            assert!(matches!(parse_prefix4(bad), Err(AddrError::NotUnicast(_))), "{bad}");
        }
    }
}
