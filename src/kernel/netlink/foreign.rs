//! Reads what others have made the kernel do with packets: their routes with every next hop, nexthop objects, and the
//! neighbours of the host. For learning which addresses are somebody's; must not change anything.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteHeader;

use super::conn::Conn;
use super::message::{Attributes, Object, address, number, other_family};
use super::read::{Neighbour, as_neighbour};
use super::uapi::{
    AF_INET, AF_INET6, NEXTHOP_SIZE, NHA_GATEWAY, NHA_GROUP, NHA_ID, NHA_OIF, NUD_DELAY, NUD_PERMANENT, NUD_PROBE,
    NUD_REACHABLE, NUD_STALE, ROUTE_SIZE, RTA_DST, RTA_GATEWAY, RTA_MULTIPATH, RTA_NH_ID, RTA_OIF, RTA_PRIORITY,
    RTA_TABLE, RTA_VIA, RTM_GETNEXTHOP, RTM_NEWNEXTHOP, RTM_NEWROUTE, RTN_UNICAST, RTPROT_RA,
};
use super::{Hop, NetlinkError};
use model::plan::ROUTE_PROTOCOL;

/// The states in which a neighbour is known to be there, or was lately.
const NUD_KNOWN: u16 = NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT;

/// A route that does not bear flock's mark, of any table and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRoute {
    /// The destination.
    pub to: IpNet,
    /// Every next hop; none for a route that leads nowhere.
    pub hops: Vec<Hop>,
    /// The metric, 0 when the kernel shows none.
    pub metric: u32,
    /// It stands in the main table.
    pub in_main_table: bool,
    /// It came by router advertisement.
    pub advertised: bool,
}

/// Nexthop objects without flock's mark by their numbers: `ip nexthop`, since Linux 5.3.
#[derive(Debug, Default)]
pub struct NexthopObjects {
    hops: HashMap<u32, Hop>,
    groups: HashMap<u32, Vec<u32>>,
}

impl NexthopObjects {
    /// The gateways of all of them, used by a route or not.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.hops.values().filter_map(|(_, via)| *via)
    }

    /// The numbers of all of them, groups among them.
    pub fn numbers(&self) -> BTreeSet<u32> {
        self.hops.keys().chain(self.groups.keys()).copied().collect()
    }

    /// What the object of this number leads to. Groups hold no groups.
    fn resolve(&self, id: u32) -> impl Iterator<Item = Hop> {
        let members = self.groups.get(&id).into_iter().flatten().copied();
        let hops = members.chain([id]).filter_map(|id| self.hops.get(&id).copied());
        hops.filter(|(link, via)| link.is_some() || via.is_some())
    }
}

impl Conn {
    /// All routes of all tables that do not bear flock's mark, of both families. As long as the tables: not for the path
    /// of an ADD.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn foreign_routes(&mut self, objects: &NexthopObjects) -> Result<Vec<ForeignRoute>, NetlinkError> {
        let all = self.route_objects(RouteHeader::default())?;
        Ok(all.iter().filter_map(|object| as_foreign_route(object, objects)).collect())
    }

    /// The route by which a packet to `ip` would leave this host, with every next hop; none if there is none, or if it is flock's.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn foreign_route_for(
        &mut self,
        ip: IpAddr,
        objects: &NexthopObjects,
    ) -> Result<Option<ForeignRoute>, NetlinkError> {
        let leaves = |object: &&Object| {
            object.of::<ROUTE_SIZE>(RTM_NEWROUTE).is_some_and(|&[_, _, _, _, _, _, _, kind, ..]| kind == RTN_UNICAST)
        };
        Ok(self.look_up(ip)?.iter().filter(leaves).find_map(|object| as_foreign_route(object, objects)))
    }

    /// The nexthop objects; none on a kernel without them.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn nexthop_objects(&mut self) -> Result<NexthopObjects, NetlinkError> {
        let shown = match self.dump_kind(RTM_GETNEXTHOP, &[0; NEXTHOP_SIZE], "list nexthop objects") {
            Err(error) if error.is_unsupported() => return Ok(NexthopObjects::default()),
            other => other?,
        };
        let mut objects = NexthopObjects::default();
        for object in &shown {
            add_nexthop(object, &mut objects);
        }
        Ok(objects)
    }

    /// The neighbours, of all links and both families, that the host knows to be there or has lately known.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn known_neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let all = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        Ok(self.dump(all, "list neighbours")?.iter().filter_map(|object| as_neighbour(object, NUD_KNOWN)).collect())
    }
}

pub(super) fn as_foreign_route(object: &Object, objects: &NexthopObjects) -> Option<ForeignRoute> {
    let &[family, prefix_len, _, _, table, protocol, ..] = object.of::<ROUTE_SIZE>(RTM_NEWROUTE)?;
    let mut to: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    if protocol == ROUTE_PROTOCOL {
        return None;
    }
    let (mut metric, mut table, mut by_number) = (0, u32::from(table), None);
    for (attribute, value) in object.attributes(ROUTE_SIZE) {
        match attribute {
            RTA_DST => to = address(family, value)?,
            RTA_PRIORITY => metric = number(value).unwrap_or_default(),
            RTA_TABLE => table = number(value).unwrap_or(table),
            RTA_NH_ID => by_number = number(value),
            _ => {}
        }
    }
    let mut hops = hops_of(family, object);
    // The kernel shows what an object leads to beside its number, unless `nexthop_compat_mode` is off.
    if hops.is_empty()
        && let Some(id) = by_number
    {
        hops.extend(objects.resolve(id));
    }
    let in_main_table = table == u32::from(RouteHeader::RT_TABLE_MAIN);
    let to = IpNet::new(to, prefix_len).ok()?;
    Some(ForeignRoute { to, hops, metric, in_main_table, advertised: protocol == RTPROT_RA })
}

/// Every next hop that the kernel shows of a route, of one by a nexthop object, too.
pub(super) fn hops_of(family: u8, object: &Object) -> Vec<Hop> {
    let several = object.attributes(ROUTE_SIZE).filter(|(attribute, _)| *attribute == RTA_MULTIPATH);
    let mut hops: Vec<Hop> = several.flat_map(|(_, value)| next_hops(family, value)).collect();
    hops.extend(hop(family, object.attributes(ROUTE_SIZE)));
    hops
}

/// The entries of a route with several next hops (`rtnexthop`): length, flags, weight, link, and attributes of their own.
fn next_hops(family: u8, mut rest: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let Some(&[a, b, _, _, c, d, e, f]) = rest.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(attributes) = rest.get(8..length) else { break };
        let via = hop(family, Attributes::nested(attributes)).and_then(|(_, via)| via);
        hops.push((Some(u32::from_ne_bytes([c, d, e, f])), via));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

fn hop(family: u8, attributes: Attributes<'_>) -> Option<Hop> {
    let (mut link, mut via) = (None, None);
    for (attribute, value) in attributes {
        match attribute {
            RTA_OIF => link = number(value),
            RTA_GATEWAY => via = address(family, value),
            RTA_VIA => via = other_family(value),
            _ => {}
        }
    }
    (link.is_some() || via.is_some()).then_some((link, via))
}

pub(super) fn add_nexthop(object: &Object, objects: &mut NexthopObjects) {
    let Some(&[family, _, protocol, ..]) = object.of::<NEXTHOP_SIZE>(RTM_NEWNEXTHOP) else { return };
    // Those of flock lead to its own pods.
    if protocol == ROUTE_PROTOCOL {
        return;
    }
    let (mut id, mut link, mut via, mut members) = (None, None, None, Vec::new());
    for (attribute, value) in object.attributes(NEXTHOP_SIZE) {
        match attribute {
            NHA_ID => id = number(value),
            NHA_OIF => link = number(value),
            NHA_GATEWAY => via = address(family, value),
            // Entries of eight bytes, each beginning with a number.
            NHA_GROUP => {
                let (entries, _) = value.as_chunks::<8>();
                members.extend(entries.iter().map(|[a, b, c, d, ..]| u32::from_ne_bytes([*a, *b, *c, *d])));
            }
            _ => {}
        }
    }
    let Some(id) = id else { return };
    if !members.is_empty() {
        objects.groups.insert(id, members);
    } else {
        objects.hops.insert(id, (link, via));
    }
}
