//! Reads addresses, neighbours and routes: for CHECK, for recovery, and to learn about the host.
//!
//! Owns how the kernel shows them. Must not change anything, nor judge what it reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::apply::family;
use super::conn::{Conn, Request};
use super::message::{Object, address, number};
use super::uapi::{
    ADDRESS_SIZE, AF_INET, AF_INET6, IFA_ADDRESS, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_OPTIMISTIC, IFA_F_SECONDARY,
    IFA_F_TENTATIVE, IFA_FLAGS, IFA_LOCAL, NDA_DST, NDA_LLADDR, NDA_PROTOCOL, NEIGHBOUR_SIZE, NUD_PERMANENT,
    ROUTE_SIZE, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PRIORITY, RTA_TABLE, RTM_NEWADDR, RTM_NEWNEIGH, RTM_NEWROUTE,
    RTN_LOCAL, RTN_UNREACHABLE,
};
use super::{Cause, NetlinkError};
use crate::process::failpoint;
use model::addr::Mac;
use model::plan::ROUTE_PROTOCOL;
use model::routes::ANNOUNCED;

/// Wait between two questions whether an address is in the table of local addresses, 0.1 ms.
const LOCAL_INTERVAL: Duration = Duration::from_micros(100);

/// The flags of an address that may go or change its meaning by itself.
const PASSING: u32 = IFA_F_SECONDARY | IFA_F_OPTIMISTIC | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE;

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
    /// It is there to stay, as far as the kernel knows: neither tentative nor deprecated, no temporary IPv6 address, and no second
    /// IPv4 address of a network.
    pub lasting: bool,
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
    /// It bears flock's protocol number.
    pub marked: bool,
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

    /// The permanent neighbour `ip` behind the link `link`, if there is one.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn permanent_neighbour(&mut self, link: u32, ip: IpAddr) -> Result<Option<Neighbour>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = link;
        message.attributes.push(NeighbourAttribute::Destination(match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
        let what = format!("look up neighbour {ip}");
        match self.run(Request { message: RouteNetlinkMessage::GetNeighbour(message), flags: 0, what }) {
            Err(error) if error.is_gone() => Ok(None),
            other => Ok(other?.iter().find_map(as_permanent_neighbour)),
        }
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

    /// The unreachable routes that bear flock's protocol number, of both families. The kernel leaves the others out.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn own_unreachable_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let filter = RouteHeader {
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::from(ROUTE_PROTOCOL),
            kind: RouteType::Unreachable,
            ..Default::default()
        };
        let routes = self.route_objects(filter)?.iter().filter_map(as_route).collect::<Vec<_>>();
        Ok(routes.into_iter().filter(|route| route.unreachable).collect())
    }

    /// The routes of the table of announcements that bear flock's protocol number and lead out of a link, of both families.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn announced_routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        // The number fits into the byte of the header.
        let table = u8::try_from(ANNOUNCED).unwrap_or_default();
        let filter = RouteHeader {
            table,
            protocol: RouteProtocol::from(ROUTE_PROTOCOL),
            kind: RouteType::Unicast,
            ..Default::default()
        };
        Ok(self.route_objects(filter)?.iter().filter_map(|object| as_route_of(object, table)).collect())
    }

    fn routes(&mut self, protocol: RouteProtocol) -> Result<Vec<Route>, NetlinkError> {
        let filter = RouteHeader { table: RouteHeader::RT_TABLE_MAIN, protocol, ..Default::default() };
        Ok(self.route_objects(filter)?.iter().filter_map(as_route).collect())
    }

    /// The routes of both families that pass `filter`, as the kernel shows them.
    pub(super) fn route_objects(&mut self, filter: RouteHeader) -> Result<Vec<Object>, NetlinkError> {
        let mut routes = Vec::new();
        for address_family in [AddressFamily::Inet6, AddressFamily::Inet] {
            let mut message = RouteMessage::default();
            message.header = RouteHeader { address_family, ..filter.clone() };
            match self.dump(RouteNetlinkMessage::GetRoute(message), "list routes") {
                Ok(answers) => routes.extend(answers),
                // The kernel has no table but the main one until the first route is put into it.
                Err(error) if error.is_unsupported() || error.is_gone() => {}
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

    /// Waits until this namespace takes in packets to its own address `ip` on the link `index`. The kernel enters a new
    /// IPv6 address into the table of local addresses a little later than it shows it, duplicate address detection or not;
    /// until then it drops what comes for it: mostly for microseconds, but for long on a host where many links come and go.
    ///
    /// # Errors
    /// It does not by the deadline, or somebody has taken the link down or the address away: it would not, however long
    /// one waits.
    pub fn wait_until_local(&mut self, index: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        failpoint::pass("link.local").ok();
        while !self.look_up(ip)?.iter().any(is_local) {
            let altered =
                |part| Err(NetlinkError { what: format!("wait until {ip} is taken in"), cause: Cause::Altered(part) });
            match self.link_at(index)? {
                Some(link) if link.up => {}
                _ => return altered("the pod's interface"),
            }
            if !self.has_address(index, ip)? {
                return altered("the address");
            }
            thread::sleep(LOCAL_INTERVAL);
        }
        Ok(())
    }

    /// Whether the link bears this address. The kernel answers for one address in IPv6 only; an IPv4 address is taken in at once.
    fn has_address(&mut self, index: u32, ip: IpAddr) -> Result<bool, NetlinkError> {
        if ip.is_ipv4() {
            return Ok(true);
        }
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.index = index;
        message.attributes.push(AddressAttribute::Address(ip));
        let what = format!("look up address {ip}");
        match self.run(Request { message: RouteNetlinkMessage::GetAddress(message), flags: 0, what }) {
            Err(error) if error.is_gone() => Ok(false),
            other => other.map(|_| true),
        }
    }

    pub(super) fn look_up(&mut self, ip: IpAddr) -> Result<Vec<Object>, NetlinkError> {
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
            // Besides "no route" these are the errors that an unreachable, prohibit or blackhole route answers with. A family that
            // the kernel lacks has no routes either.
            Err(error) if error.is_gone() || error.is_no_route() || error.is_unsupported() => Ok(Vec::new()),
            other => other,
        }
    }
}

impl NetlinkError {
    fn is_no_route(&self) -> bool {
        matches!(self.errno(), Some(Errno::ACCESS | Errno::INVAL | Errno::NETUNREACH | Errno::HOSTUNREACH))
    }
}

/// The address that an object is, if it is one. Here and below, attributes that flock does not need are passed over, and odd
/// ones count as absent: what stands in the kernel is never hidden by something beside it.
pub(super) fn as_address(object: &Object) -> Option<Address> {
    as_address_of(object, RTM_NEWADDR)
}

/// The address that an announcement of this kind is about.
pub(super) fn as_address_of(object: &Object, kind: u16) -> Option<Address> {
    let &[family, prefix_len, old_flags, _, ref link @ ..] = object.of::<ADDRESS_SIZE>(kind)?;
    let (mut peer, mut local, mut flags) = (None, None, u32::from(old_flags));
    for (attribute, value) in object.attributes(ADDRESS_SIZE) {
        match attribute {
            IFA_ADDRESS => peer = address(family, value),
            IFA_LOCAL => local = address(family, value),
            IFA_FLAGS => flags = number(value).unwrap_or(flags),
            _ => {}
        }
    }
    Some(Address {
        link: u32::from_ne_bytes(*link),
        ip: local.or(peer)?,
        prefix_len,
        tentative: flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0,
        lasting: flags & PASSING == 0,
    })
}

pub(super) fn as_permanent_neighbour(object: &Object) -> Option<Neighbour> {
    as_neighbour(object, NUD_PERMANENT)
}

/// The neighbour that an object is, if its state is one of `states`.
pub(super) fn as_neighbour(object: &Object, states: u16) -> Option<Neighbour> {
    let &[family, _, _, _, a, b, c, d, e, f, ..] = object.of::<NEIGHBOUR_SIZE>(RTM_NEWNEIGH)?;
    if u16::from_ne_bytes([e, f]) & states == 0 {
        return None;
    }
    let (mut ip, mut mac, mut marked) = (None, None, false);
    for (attribute, value) in object.attributes(NEIGHBOUR_SIZE) {
        match attribute {
            NDA_DST => ip = address(family, value),
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            NDA_PROTOCOL => marked = value == [ROUTE_PROTOCOL],
            _ => {}
        }
    }
    Some(Neighbour { link: u32::from_ne_bytes([a, b, c, d]), ip: ip?, mac: mac?, marked })
}

pub(super) fn as_route(object: &Object) -> Option<Route> {
    as_route_of(object, RouteHeader::RT_TABLE_MAIN)
}

/// The route that an object is, if it is one of this table.
fn as_route_of(object: &Object, of: u8) -> Option<Route> {
    let &[family, prefix_len, _, _, table, protocol, _, kind, ..] = object.of::<ROUTE_SIZE>(RTM_NEWROUTE)?;
    let mut destination: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut route = Route {
        to: IpNet::from(destination),
        link: None,
        via: None,
        metric: 0,
        protocol,
        unreachable: kind == RTN_UNREACHABLE,
    };
    let mut table = u32::from(table);
    for (attribute, value) in object.attributes(ROUTE_SIZE) {
        match attribute {
            RTA_DST => destination = address(family, value)?,
            RTA_OIF => route.link = number(value),
            RTA_GATEWAY => route.via = address(family, value),
            RTA_PRIORITY => route.metric = number(value).unwrap_or_default(),
            RTA_TABLE => table = number(value).unwrap_or(table),
            _ => {}
        }
    }
    route.to = IpNet::new(destination, prefix_len).ok()?;
    (table == u32::from(of)).then_some(route)
}

/// A route to an address of this namespace itself.
fn is_local(object: &Object) -> bool {
    matches!(object.of::<ROUTE_SIZE>(RTM_NEWROUTE), Some([_, _, _, _, _, _, _, RTN_LOCAL, ..]))
}

#[cfg(test)]
mod tests {
    use super::super::message::attribute;
    use super::super::message::tests::{ODD, object};
    use super::*;

    /// An object stays what it is, whatever stands before and behind the `known` attributes, which are all that is looked at.
    #[track_caller]
    fn check<T: std::fmt::Debug + PartialEq>(
        (kind, header): (u16, &[u8]),
        known: &[(u16, &[u8])],
        passed_over: &[u16],
        read: fn(&Object) -> Option<T>,
        expected: &T,
    ) {
        let attributes: Vec<u8> = known.iter().flat_map(|(number, value)| attribute(*number, value)).collect();
        let needed: Vec<u16> = known.iter().map(|(number, _)| *number).chain(passed_over.iter().copied()).collect();
        for number in (0..0x4000).filter(|number| !needed.contains(number)) {
            for value in ODD {
                let odd = attribute(number, value);
                let seen = read(&object(kind, &[header, &odd, &attributes, &odd]));
                assert_eq!(seen.as_ref(), Some(expected), "{number}: {value:?}");
            }
        }
        for other in (16..120).filter(|other| *other != kind) {
            assert_eq!(read(&object(other, &[header, &attributes])), None, "a message of kind {other}");
        }
        for cut in 0..header.len() {
            assert_eq!(read(&object(kind, &[&header[..cut]])), None, "a header of {cut} bytes");
        }
    }

    #[test]
    fn no_attribute_that_flock_does_not_need_hides_an_address_a_route_or_a_neighbour() {
        let seven = 7u32.to_ne_bytes();
        let ip = [10, 0, 0, 5];
        check(
            (RTM_NEWADDR, &[&[AF_INET, 32, 0, 0][..], &seven].concat()),
            &[(IFA_LOCAL, &ip), (IFA_FLAGS, &IFA_F_TENTATIVE.to_ne_bytes())],
            &[IFA_ADDRESS],
            as_address,
            &Address { link: 7, ip: ip.into(), prefix_len: 32, tentative: true, lasting: false },
        );
        check(
            (RTM_NEWROUTE, &[AF_INET, 32, 0, 0, RouteHeader::RT_TABLE_MAIN, 102, 0, 1, 0, 0, 0, 0]),
            &[(RTA_DST, &ip), (RTA_OIF, &seven), (RTA_PRIORITY, &seven)],
            &[RTA_GATEWAY, RTA_TABLE],
            as_route,
            &Route {
                to: IpNet::from(IpAddr::from(ip)),
                link: Some(7),
                via: None,
                metric: 7,
                protocol: 102,
                unreachable: false,
            },
        );
        check(
            (RTM_NEWNEIGH, &[&[AF_INET, 0, 0, 0][..], &seven, &NUD_PERMANENT.to_ne_bytes(), &[0, 0]].concat()),
            &[(NDA_DST, &ip), (NDA_LLADDR, &[2, 1, 2, 3, 4, 5]), (NDA_PROTOCOL, &[ROUTE_PROTOCOL])],
            &[],
            as_permanent_neighbour,
            &Neighbour { link: 7, ip: ip.into(), mac: Mac([2, 1, 2, 3, 4, 5]), marked: true },
        );
    }

    #[test]
    fn a_route_of_another_table_whose_number_needs_four_bytes_is_not_of_the_main_table() {
        let header = [AF_INET6, 0, 0, 0, RouteHeader::RT_TABLE_MAIN, 2, 0, 1, 0, 0, 0, 0];
        let table =
            |number: u32| as_route(&object(RTM_NEWROUTE, &[&header, &attribute(RTA_TABLE, &number.to_ne_bytes())]));
        assert!(table(254).is_some_and(|route| route.to.prefix_len() == 0));
        assert_eq!((table(255), table(1000)), (None, None));
    }
}
