//! Reads addresses and routes: for CHECK, for recovery, and to learn about the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::NetlinkError;
use super::apply::family;
use super::conn::{Conn, Request};
use super::message::Object;
use crate::addr::Mac;
use crate::plan::ROUTE_PROTOCOL;

/// Between two questions whether an address is taken in.
const TAKEN_IN_INTERVAL: Duration = Duration::from_micros(100);

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
    /// Its prefix length.
    pub prefix_len: u8,
    /// Not yet usable: duplicate address detection is under way, or has failed.
    pub tentative: bool,
}

/// A permanent neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the link that it is behind.
    pub link: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: Mac,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub to: IpNet,
    /// Index of the link that it leads through, if it leads anywhere.
    pub link: Option<u32>,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The metric, 0 when the kernel shows none.
    pub metric: u32,
    /// Who made it (`proto` in `ip route`).
    pub protocol: u8,
    /// An unreachable route.
    pub unreachable: bool,
}

impl Conn {
    /// The addresses of one link, or of all.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn addresses(&mut self, link: Option<u32>) -> Result<Vec<Address>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = link.unwrap_or(0);
        let answers = match self.dump(RouteNetlinkMessage::GetAddress(message), "list addresses") {
            Err(error) if error.is_gone() => Vec::new(),
            other => other?,
        };
        Ok(answers.iter().filter_map(as_address).collect())
    }

    /// The permanent neighbours of all links, of both families.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn permanent_neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        Ok(self.dump(all, "list neighbours")?.iter().filter_map(as_permanent_neighbour).collect())
    }

    /// The routes that bear flock's protocol number, of both families.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn own_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        self.routes(RouteProtocol::from(ROUTE_PROTOCOL))
    }

    /// The routes that bear nobody's number (`proto boot`), as those of the Go flock.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn unmarked_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        self.routes(RouteProtocol::Boot)
    }

    /// All routes of the main table, of both families. As long as the table: not for the path of an ADD.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn all_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        self.routes(RouteProtocol::Unspec)
    }

    /// The routes that came by router advertisement.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn advertised_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        self.routes(RouteProtocol::Ra)
    }

    fn routes(&mut self, protocol: RouteProtocol) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = Vec::new();
        for address_family in [AddressFamily::Inet6, AddressFamily::Inet] {
            let mut message = RouteMessage::default();
            message.header =
                RouteHeader { address_family, table: RouteHeader::RT_TABLE_MAIN, protocol, ..Default::default() };
            match self.dump(RouteNetlinkMessage::GetRoute(message), "list routes") {
                Ok(answers) => routes.extend(answers.iter().filter_map(as_route)),
                Err(error) if error.is_unsupported() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(routes)
    }

    /// The route that a packet to `ip` would take, as it stands in the table; none if there is none.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn route_for(&mut self, ip: IpAddr) -> Result<Option<Route>, NetlinkError> {
        Ok(self.look_up(ip)?.iter().find_map(as_route))
    }

    /// Waits until this namespace takes in packets to its own address `ip`. The kernel enters a new IPv6 address into the
    /// table of local addresses a little later than it shows it, duplicate address detection or not; until then it drops
    /// what comes for it: mostly for microseconds, but for long on a host where many links come and go.
    ///
    /// # Errors
    /// It does not by the deadline.
    pub fn wait_until_taken_in(&mut self, ip: IpAddr) -> Result<(), NetlinkError> {
        let local = |answer: &Object| matches!(answer.decoded(), Some(RouteNetlinkMessage::NewRoute(route)) if route.header.kind == RouteType::Local);
        while !self.look_up(ip)?.iter().any(local) {
            thread::sleep(TAKEN_IN_INTERVAL);
        }
        Ok(())
    }

    fn look_up(&mut self, ip: IpAddr) -> Result<Vec<Object>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: family(ip),
            destination_prefix_length: if ip.is_ipv6() { 128 } else { 32 },
            flags: RouteFlags::FibMatch,
            ..Default::default()
        };
        message.attributes.push(RouteAttribute::Destination(ip.into()));
        let what = format!("look up the route to {ip}");
        match self.run(Request { message: RouteNetlinkMessage::GetRoute(message), flags: 0, what }) {
            // Besides "no route" these are the errors that an unreachable, prohibit or blackhole route answers with.
            Err(error) if error.is_gone() || error.is_no_route() => Ok(Vec::new()),
            other => other,
        }
    }
}

impl NetlinkError {
    fn is_no_route(&self) -> bool {
        const EACCES: i32 = 13;
        const EINVAL: i32 = 22;
        const ENETUNREACH: i32 = 101;
        const EHOSTUNREACH: i32 = 113;
        matches!(self.errno(), Some(EACCES | EINVAL | ENETUNREACH | EHOSTUNREACH))
    }
}

pub(super) fn as_address(object: &Object) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = object.decoded()? else { return None };
    let (mut address, mut local, mut flags) = (None, None, AddressFlags::empty());
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(ip),
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Flags(bits) => flags = bits,
            _ => {}
        }
    }
    Some(Address {
        link: message.header.index,
        ip: local.or(address)?,
        prefix_len: message.header.prefix_len,
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    })
}

pub(super) fn as_permanent_neighbour(object: &Object) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = object.decoded()? else { return None };
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour { link: message.header.ifindex, ip: ip?, mac: mac? })
}

pub(super) fn as_route(object: &Object) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = object.decoded()? else { return None };
    let header = message.header;
    let mut destination: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        to: IpNet::from(destination),
        link: None,
        via: None,
        metric: 0,
        protocol: header.protocol.into(),
        unreachable: header.kind == RouteType::Unreachable,
    };
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = ip(&to)?,
            RouteAttribute::Oif(index) => route.link = Some(index),
            RouteAttribute::Gateway(via) => route.via = ip(&via),
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    route.to = IpNet::new(destination, header.destination_prefix_length).ok()?;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
