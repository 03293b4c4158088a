//! Carries out a list of [`Change`]s on one link, in one system call.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressScope};
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
use crate::plan::{Change, ROUTE_PROTOCOL, Reach, UNREACHABLE_METRIC};

impl Conn {
    /// Carries out `changes` on the link `index` (named `name` in errors). Safe to repeat.
    ///
    /// # Errors
    /// The first change that was refused; the ones behind it were tried all the same, and removing the link removes
    /// whatever of it took effect.
    pub fn apply(&mut self, index: u32, name: &str, changes: &[Change]) -> Result<(), NetlinkError> {
        let requests = changes.iter().map(|change| request(index, name, change)).collect();
        let results = self.batch(requests)?;
        for (result, change) in results.into_iter().zip(changes) {
            match (result, change) {
                (Ok(()), _) => {}
                // Without IPv6 in the kernel there is no address to suppress.
                (Err(error), Change::NoAutoAddress) if error.is_unsupported() => {}
                // A route is never replaced, since it could be somebody else's: if it is there, it must be this one.
                (Err(error), Change::Route { to, .. }) if error.is_exists() => {
                    if !self.has_route(index, to)? {
                        return Err(error);
                    }
                }
                (Err(error), _) => return Err(error),
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

fn request(index: u32, name: &str, change: &Change) -> Request {
    let (message, flags, what) = match change {
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
        Change::Neighbour { ip, mac } => {
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
    Request { message, flags, what }
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
            Reach::Global => AddressScope::Universe,
            Reach::Link => AddressScope::Link,
            Reach::Host => AddressScope::Host,
        },
        ..Default::default()
    };
    message.attributes = vec![
        AddressAttribute::Local(ip),
        AddressAttribute::Address(ip),
        AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute),
    ];
    message
}

fn route(to: IpNet) -> RouteMessage {
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
