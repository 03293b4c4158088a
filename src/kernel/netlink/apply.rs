//! Carries out a list of [`Change`]s on one link, in one system call.
//!
//! Owns how a change is encoded and which refusals mean that it stands already. Must not decide what a link needs.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::NetlinkError;
use super::conn::{Conn, Request};
use super::message::attribute;
use super::uapi::{AF_INET, IFLA_AF_SPEC, IFLA_INET_CONF};
use model::addr::Family;
use model::plan::{Change, ROUTE_PROTOCOL, Reach, Setting, UNREACHABLE_METRIC};

impl Conn {
    /// Carries out `changes` on the link `index` (named `name` in errors), all but the IPv6 settings, which the kernel takes
    /// by `/proc` alone. Safe to repeat.
    ///
    /// # Errors
    /// The first change that was refused; the ones behind it were tried all the same, and removing the link removes
    /// whatever of it took effect.
    pub fn apply(&mut self, index: u32, name: &str, changes: &[Change]) -> Result<(), ApplyError> {
        let (requests, of): (Vec<Request>, Vec<&Change>) = requests(index, name, changes).into_iter().unzip();
        let results = self.batch(requests)?;
        for (result, change) in results.into_iter().zip(of) {
            match (result, change) {
                (Ok(()), _) => {}
                // Without IPv6 in the kernel there is no address to suppress.
                (Err(error), Change::NoAutoAddress) if error.is_unsupported() => {}
                // A route is never replaced, since it could be somebody else's: if it is there, it must be this one.
                (Err(error), Change::Route { to, .. }) if error.is_exists() => {
                    if !self.has_route(index, to)? {
                        return Err(ApplyError { taken: Some(to.addr()), error });
                    }
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A pod's own address is asked for directly; only its default routes, in its own small table, need a dump.
    fn has_route(&mut self, index: u32, to: &IpNet) -> Result<bool, NetlinkError> {
        let found = if to.prefix_len() == to.max_prefix_len() {
            self.route_for(to.addr())?.into_iter().collect()
        } else {
            self.own_routes()?
        };
        Ok(found.iter().any(|route| route.to == *to && route.link == Some(index)))
    }

    /// Makes the unreachable route of a node prefix, so that a packet to an address that no pod has ends here instead
    /// of going back to the router. An equal one of somebody else is left and does the same.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn add_unreachable(&mut self, to: IpNet) -> Result<(), NetlinkError> {
        match self.run(unreachable(to, Verb::Add)) {
            Err(error) if !error.is_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes an unreachable route that flock made.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_unreachable(&mut self, to: IpNet) -> Result<(), NetlinkError> {
        match self.run(unreachable(to, Verb::Delete)) {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A change of a link that was refused.
#[derive(Debug)]
pub struct ApplyError {
    /// Somebody else has a route to this address, which is to lead through the link.
    pub taken: Option<IpAddr>,
    /// What was asked for, and the kernel's reason.
    pub error: NetlinkError,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for ApplyError {}

impl From<NetlinkError> for ApplyError {
    fn from(error: NetlinkError) -> ApplyError {
        ApplyError { taken: None, error }
    }
}

enum Verb {
    Add,
    Delete,
}

fn unreachable(to: IpNet, verb: Verb) -> Request {
    let mut message = route(to);
    message.header.kind = RouteType::Unreachable;
    message.attributes.push(RouteAttribute::Priority(UNREACHABLE_METRIC));
    match verb {
        Verb::Add => Request {
            message: RouteNetlinkMessage::NewRoute(message),
            flags: NLM_F_CREATE | NLM_F_EXCL,
            what: format!("add unreachable route {to}"),
        },
        Verb::Delete => Request {
            message: RouteNetlinkMessage::DelRoute(message),
            flags: 0,
            what: format!("delete unreachable route {to}"),
        },
    }
}

/// The requests for `changes`, each with the change that its refusal is of. All IPv4 settings travel in the place of the
/// first one.
fn requests<'a>(index: u32, name: &str, changes: &'a [Change]) -> Vec<(Request, &'a Change)> {
    let settings = || {
        changes.iter().filter_map(|change| if let Change::Setting(setting) = change { Some(*setting) } else { None })
    };
    let settings4: Vec<&Setting> = settings().filter(|setting| setting.family == Family::V4).collect();
    let mut settings4 = (!settings4.is_empty()).then_some(settings4);
    let request = |change: &'a Change| match change {
        Change::Setting(_) => Some((request_settings4(index, name, &settings4.take()?), change)),
        change => Some((request(index, name, change)?, change)),
    };
    changes.iter().filter_map(request).collect()
}

/// `IFLA_AF_SPEC` with `AF_INET` and `IFLA_INET_CONF` in it, each setting by its number (linux/if_link.h, linux/ip.h). The
/// packet crate knows them only in the shape in which the kernel shows them.
fn request_settings4(index: u32, name: &str, settings: &[&Setting]) -> Request {
    let values: Vec<u8> = settings
        .iter()
        // The numbers begin with 1, and the places, as the kernel shows them, with 0.
        .flat_map(|setting| {
            attribute(u16::try_from(setting.place + 1).unwrap_or(u16::MAX), &setting.value.to_ne_bytes())
        })
        .collect();
    let spec = attribute(AF_INET.into(), &attribute(IFLA_INET_CONF, &values));
    let set = set_link(index, LinkAttribute::Other(DefaultNla::new(IFLA_AF_SPEC, spec)));
    Request { message: set, flags: 0, what: format!("set IPv4 settings of link {name}") }
}

/// None for a setting.
fn request(index: u32, name: &str, change: &Change) -> Option<Request> {
    let (message, flags, what) = match change {
        Change::Setting(_) => return None,
        Change::Name(wanted) => {
            let set = set_link(index, LinkAttribute::IfName(wanted.to_string()));
            (set, 0, format!("give link {name} its name {wanted} back"))
        }
        Change::Mac(mac) => {
            let set = set_link(index, LinkAttribute::Address(mac.0.to_vec()));
            (set, 0, format!("set hardware address of link {name}"))
        }
        Change::Alias(text) => {
            let set = set_link(index, LinkAttribute::IfAlias(text.clone()));
            (set, 0, format!("set alias of link {name}"))
        }
        Change::NoAutoAddress => {
            let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            let set = set_link(index, LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
            (set, 0, format!("set IPv6 address generation of link {name}"))
        }
        Change::Up => {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            (RouteNetlinkMessage::SetLink(message), 0, format!("set link {name} up"))
        }
        Change::Address { ip, prefix_len, reach } => (
            RouteNetlinkMessage::NewAddress(address(index, *ip, *prefix_len, *reach)),
            NLM_F_CREATE | NLM_F_REPLACE,
            format!("add address {ip}/{prefix_len} to link {name}"),
        ),
        Change::Neighbour { ip, mac, further } => {
            let mut message = NeighbourMessage::default();
            message.header = NeighbourHeader {
                family: family(*ip),
                ifindex: index,
                state: NeighbourState::Permanent,
                ..Default::default()
            };
            let to = match ip {
                IpAddr::V4(ip) => NeighbourAddress::Inet(*ip),
                IpAddr::V6(ip) => NeighbourAddress::Inet6(*ip),
            };
            message.attributes =
                vec![NeighbourAttribute::Destination(to), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
            if *further {
                message.attributes.push(NeighbourAttribute::Protocol(ROUTE_PROTOCOL.into()));
            }
            (
                RouteNetlinkMessage::NewNeighbour(message),
                NLM_F_CREATE | NLM_F_REPLACE,
                format!("add neighbour {ip} on link {name}"),
            )
        }
        Change::Route { to, via, metric } => {
            let mut message = route(*to);
            message.attributes.push(RouteAttribute::Oif(index));
            match via {
                Some(via) => {
                    message.attributes.push(RouteAttribute::Gateway((*via).into()));
                    // The gateway is inside no prefix of the link: it is on link because we say so.
                    message.header.flags |= RouteFlags::Onlink;
                }
                None if to.addr().is_ipv4() => message.header.scope = RouteScope::Link,
                None => {}
            }
            message.attributes.extend(metric.map(RouteAttribute::Priority));
            (
                RouteNetlinkMessage::NewRoute(message),
                NLM_F_CREATE | NLM_F_EXCL,
                format!("add route {to} on link {name}"),
            )
        }
    };
    Some(Request { message, flags, what })
}

fn set_link(index: u32, attribute: LinkAttribute) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(attribute);
    RouteNetlinkMessage::SetLink(message)
}

fn address(index: u32, ip: IpAddr, prefix_len: u8, reach: Reach) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: family(ip),
        prefix_len,
        index,
        scope: match reach {
            Reach::Global | Reach::Further => AddressScope::Universe,
            Reach::Link => AddressScope::Link,
            // In IPv4 no address of this scope is chosen as a source. In IPv6 the scope follows from the address.
            Reach::Host | Reach::Shared => AddressScope::Host,
        },
        ..Default::default()
    };
    message.attributes = vec![
        AddressAttribute::Local(ip),
        AddressAttribute::Address(ip),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    if matches!(reach, Reach::Further | Reach::Shared) && ip.is_ipv6() {
        // Deprecated: chosen as a source when there is no other one (RFC 6724, rule 3), and valid for ever.
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    }
    message
}

pub(super) fn route(to: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(to.addr()),
        destination_prefix_length: to.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(ROUTE_PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..Default::default()
    };
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.addr().into()));
    }
    message
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;

    use super::*;
    use model::addr::Mac;
    use model::plan::SETTINGS;

    /// The message behind the netlink header, in words of four bytes as they stand in a little-endian machine's memory.
    #[track_caller]
    fn check(change: &Change, kind: u16, flags: u16, words: &[u32]) {
        let requests = requests(7, "x", std::slice::from_ref(change));
        let [(request, _)] = requests.as_slice() else { panic!("{change:?}") };
        let mut bytes = vec![0; request.message.buffer_len()];
        request.message.emit(&mut bytes);
        let expected: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!((request.message.message_type(), request.flags), (kind, flags), "{change:?}");
        assert_eq!(bytes, expected, "{change:?}");
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn requests_are_encoded_as_the_kernel_reads_them() {
        const CREATE_REPLACE: u16 = 0x400 | 0x100;
        const CREATE_EXCL: u16 = 0x400 | 0x200;
        check(
            &Change::Address { ip: ip("2001:db8::5"), prefix_len: 128, reach: Reach::Global },
            20, // RTM_NEWADDR
            CREATE_REPLACE,
            &[
                0x0a80_0000, // AF_INET6, /128, no flags, scope universe
                0x0700_0000, // link 7
                0x1400_0200, // IFA_LOCAL, 20 bytes
                0x2001_0db8,
                0,
                0,
                5,
                0x1400_0100, // IFA_ADDRESS, 20 bytes
                0x2001_0db8,
                0,
                0,
                5,
                0x0800_0800, // IFA_FLAGS, 8 bytes
                0x0202_0000, // IFA_F_NODAD, IFA_F_NOPREFIXROUTE
            ],
        );
        check(
            &Change::Address { ip: ip("169.254.1.1"), prefix_len: 32, reach: Reach::Host },
            20,
            CREATE_REPLACE,
            &[
                0x0220_00fe, // AF_INET, /32, no flags, scope host
                0x0700_0000, // link 7
                0x0800_0200, // IFA_LOCAL
                0xa9fe_0101,
                0x0800_0100, // IFA_ADDRESS
                0xa9fe_0101,
                0x0800_0800, // IFA_FLAGS
                0x0202_0000,
            ],
        );
        check(
            &Change::Address { ip: ip("203.0.113.53"), prefix_len: 32, reach: Reach::Shared },
            20,
            CREATE_REPLACE,
            &[
                0x0220_00fe, // AF_INET, /32, no flags, scope host
                0x0700_0000, // link 7
                0x0800_0200, // IFA_LOCAL
                0xcb00_7135,
                0x0800_0100, // IFA_ADDRESS
                0xcb00_7135,
                0x0800_0800, // IFA_FLAGS
                0x0202_0000,
            ],
        );
        check(
            &Change::Address { ip: ip("2001:db8:f::53"), prefix_len: 128, reach: Reach::Shared },
            20,
            CREATE_REPLACE,
            &[
                0x0a80_00fe, // AF_INET6, /128, no flags, scope host, which the kernel does not read here
                0x0700_0000, // link 7
                0x1400_0200, // IFA_LOCAL, 20 bytes
                0x2001_0db8,
                0x000f_0000,
                0,
                0x0000_0053,
                0x1400_0100, // IFA_ADDRESS, 20 bytes
                0x2001_0db8,
                0x000f_0000,
                0,
                0x0000_0053,
                0x0800_0800, // IFA_FLAGS
                0x0202_0000,
                0x1400_0600, // IFA_CACHEINFO, 20 bytes
                0,           // preferred for 0 s
                0xffff_ffff, // valid for ever
                0,
                0,
            ],
        );
        check(
            &Change::Setting(&SETTINGS[0]),
            19, // RTM_SETLINK
            0,
            &[
                0,           // AF_UNSPEC
                0x0700_0000, // link 7
                0,           // no flags
                0,
                0x1400_1a00, // IFLA_AF_SPEC, 20 bytes
                0x1000_0200, // AF_INET, 16 bytes
                0x0c00_0100, // IFLA_INET_CONF, 12 bytes
                0x0800_0100, // IPV4_DEVCONF_FORWARDING
                0x0100_0000,
            ],
        );
        check(
            &Change::Neighbour { ip: ip("fe80::1"), mac: Mac([2, 1, 2, 3, 4, 5]), further: false },
            28, // RTM_NEWNEIGH
            CREATE_REPLACE,
            &[
                0x0a00_0000, // AF_INET6
                0x0700_0000, // link 7
                0x8000_0000, // NUD_PERMANENT, no flags, no type
                0x1400_0100, // NDA_DST, 20 bytes
                0xfe80_0000,
                0,
                0,
                1,
                0x0a00_0200, // NDA_LLADDR, 10 bytes and padding
                0x0201_0203,
                0x0405_0000,
            ],
        );
        check(
            &Change::Neighbour { ip: ip("203.0.113.6"), mac: Mac([2, 1, 2, 3, 4, 5]), further: true },
            28,
            CREATE_REPLACE,
            &[
                0x0200_0000, // AF_INET
                0x0700_0000, // link 7
                0x8000_0000, // NUD_PERMANENT
                0x0800_0100, // NDA_DST
                0xcb00_7106,
                0x0a00_0200, // NDA_LLADDR, 10 bytes and padding
                0x0201_0203,
                0x0405_0000,
                0x0500_0c00, // NDA_PROTOCOL, 5 bytes and padding
                0x6600_0000, // 102
            ],
        );
        check(
            &Change::Route { to: "10.0.0.5/32".parse().expect("literal"), via: None, metric: None },
            24, // RTM_NEWROUTE
            CREATE_EXCL,
            &[
                0x0220_0000, // AF_INET, to /32, from /0, no tos
                0xfe66_fd01, // table main, protocol 102, scope link, unicast
                0,           // no flags
                0x0800_0100, // RTA_DST
                0x0a00_0005,
                0x0800_0400, // RTA_OIF
                0x0700_0000,
            ],
        );
        check(
            &Change::Route { to: "::/0".parse().expect("literal"), via: Some(ip("fe80::1")), metric: Some(2049) },
            24,
            CREATE_EXCL,
            &[
                0x0a00_0000, // AF_INET6, to /0
                0xfe66_0001, // table main, protocol 102, scope universe, unicast
                0x0400_0000, // RTNH_F_ONLINK
                0x0800_0400, // RTA_OIF
                0x0700_0000,
                0x1400_0500, // RTA_GATEWAY, 20 bytes
                0xfe80_0000,
                0,
                0,
                1,
                0x0800_0600, // RTA_PRIORITY
                0x0108_0000,
            ],
        );
        check(
            &Change::Up,
            19, // RTM_SETLINK
            0,
            &[
                0,           // AF_UNSPEC
                0x0700_0000, // link 7
                0x0100_0000, // IFF_UP
                0x0100_0000, // and nothing but IFF_UP
            ],
        );
        check(
            &Change::NoAutoAddress,
            19,
            0,
            &[
                0,
                0x0700_0000,
                0,
                0,
                0x1000_1a00, // IFLA_AF_SPEC, 16 bytes
                0x0c00_0a00, // AF_INET6, 12 bytes
                0x0500_0800, // IFLA_INET6_ADDR_GEN_MODE, 5 bytes and padding
                0x0100_0000, // none
            ],
        );
        check(
            &Change::Alias("flock:a/eth0".into()),
            19,
            0,
            &[
                0,
                0x0700_0000,
                0,
                0,
                0x1100_1400, // IFLA_IFALIAS, 17 bytes and padding
                0x666c_6f63,
                0x6b3a_612f,
                0x6574_6830,
                0,
            ],
        );
    }
}
