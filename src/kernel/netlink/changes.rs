//! Hears what the kernel announces and flock did not do: settings, routes and addresses of the host, and what its own links
//! have lost. So a node does not wait for the next round while its pods are cut off.
//!
//! Owns a socket that only listens, and says that somebody should look. Must not decide what is wrong, nor keep any state;
//! removals that flock itself waits for are heard in `removal`.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::hearing::{Hearing, Unheard, rest};
use super::message::{Object, Outcome, address, messages, number, outcome, text, u32_at};
use super::read::as_address_of;
use super::uapi::{
    AF_INET, AF_INET6, AF_UNSPEC, IFF_UP, IFLA_IFALIAS, IFLA_IFNAME, LINK_SIZE, NETCONF_SIZE, NETCONFA_FORWARDING,
    NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL, NEXTHOP_SIZE, ROUTE_SIZE, RT_TABLE_LOCAL, RTA_DST, RTA_GATEWAY, RTA_NH_ID,
    RTA_TABLE, RTA_VIA, RTM_DELADDR, RTM_DELLINK, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_F_CLONED, RTM_NEWADDR, RTM_NEWLINK,
    RTM_NEWNETCONF, RTM_NEWNEXTHOP, RTM_NEWROUTE, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_NETCONF, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK, RTNLGRP_NEXTHOP,
};
use super::{Cause, NetlinkError};
use model::addr::{GATEWAY6, POD_LINKS, is_link_local};
use model::plan::ROUTE_PROTOCOL;
use model::routes::{ANNOUNCED, MAIN};

const GROUPS: [u32; 7] = [
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
];

/// One thing that somebody should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announcement {
    /// A setting of the host as a whole, or a route of flock's that belongs to the host.
    Host,
    /// An address or route of somebody else.
    Surroundings,
    /// What the routes to other nodes, the announcements and the ways to anycast addresses consist of or rest on: one of them is
    /// gone, somebody else is at the announcements, a link of the host went up or down, or an address came or went.
    Routes,
    /// A route of somebody else's to this destination came to the main table or went, perhaps in the place of one of flock's.
    Place(IpNet),
    /// A single route with flock's mark is gone.
    OwnRoute(IpAddr),
    /// The link of this index, the host end of a pod's, may have got or lost its carrier: the pod's end went up or down.
    Carrier(u32),
    /// A link of somebody else is new, gone, up, down or changed in another way.
    Link,
    /// The link of this index has lost an address or a setting, is down, or has another name.
    OwnLink(u32),
    /// Announcements were lost: anything may have changed.
    Lost,
}

/// Hears the announcements of the namespace in which it was opened.
pub struct Announcements {
    hearing: Hearing,
}

impl std::fmt::Debug for Announcements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcements").finish_non_exhaustive()
    }
}

impl Announcements {
    /// Begins to listen.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn open() -> Result<Announcements, NetlinkError> {
        let fail = |error| NetlinkError { what: "listen for changes of the host".into(), cause: Cause::Socket(error) };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(fail)?;
        socket.bind_auto().map_err(fail)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(fail)?;
        }
        // Without nexthop objects there is nothing to hear of them.
        socket.add_membership(RTNLGRP_NEXTHOP).ok();
        Ok(Announcements { hearing: Hearing::new(socket, 32 * 1024, "netlink.change") })
    }

    /// Waits for the next announcements. None when the socket is of no more use.
    pub fn wait(&mut self) -> Option<Vec<Announcement>> {
        match self.hearing.next(rest) {
            Ok(datagram) => Some(changes(datagram)),
            Err(Unheard::Lost) => Some(vec![Announcement::Lost]),
            Err(Unheard::Over) => None,
        }
    }
}

/// What one datagram of announcements is about. Most of them are about what flock itself does, and about nothing here.
pub fn changes(datagram: &[u8]) -> Vec<Announcement> {
    // One that is not whole says nothing of what else it may have said.
    let Ok(messages) = messages(datagram) else { return vec![Announcement::Lost] };
    let objects = messages.into_iter().filter_map(|message| match outcome(message) {
        Outcome::Object(object) => Some(object),
        _ => None,
    });
    objects.flat_map(|object| [change(&object), routing(&object)]).flatten().collect()
}

fn change(object: &Object) -> Option<Announcement> {
    match object.kind() {
        RTM_NEWNETCONF => setting(object),
        RTM_NEWROUTE | RTM_DELROUTE => route(object),
        RTM_NEWADDR | RTM_DELADDR => {
            let address = as_address_of(object, object.kind())?;
            // No pod can get a link-local one; a host end has no others.
            match (is_link_local(address.ip), object.kind()) {
                (false, _) => Some(Announcement::Surroundings),
                (true, RTM_DELADDR) => Some(Announcement::OwnLink(address.link)),
                (true, _) => None,
            }
        }
        RTM_NEWLINK | RTM_DELLINK => link(object),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => {
            let &[_, _, protocol, ..] = object.of::<NEXTHOP_SIZE>(object.kind())?;
            (protocol != ROUTE_PROTOCOL).then_some(Announcement::Surroundings)
        }
        _ => None,
    }
}

/// Whether the routes have to be looked at, whoever else has to look, too. What flock adds or changes is its own work; what it
/// removes cannot be told from what is lost.
fn routing(object: &Object) -> Option<Announcement> {
    let concerned = match object.kind() {
        RTM_NEWROUTE | RTM_DELROUTE => {
            let route = Heard::of(object)?;
            match (route.marked, object.kind()) {
                (true, RTM_DELROUTE) => route.table == ANNOUNCED || route.indirect,
                (true, _) => false,
                (false, _) if route.table == MAIN => return route.to.map(Announcement::Place),
                (false, _) => route.table == ANNOUNCED,
            }
        }
        // Those of the host ends of pods' links are all alike.
        RTM_NEWADDR | RTM_DELADDR => match as_address_of(object, object.kind())?.ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => ip != GATEWAY6,
        },
        RTM_NEWLINK => {
            let link = HeardLink::of(object)?;
            link.turned && !link.named
        }
        RTM_DELNEXTHOP => matches!(object.of::<NEXTHOP_SIZE>(RTM_DELNEXTHOP)?, [_, _, ROUTE_PROTOCOL, ..]),
        _ => false,
    };
    concerned.then_some(Announcement::Routes)
}

fn setting(object: &Object) -> Option<Announcement> {
    let (mut link, mut forwards) = (None, None);
    for (attribute, value) in object.attributes(NETCONF_SIZE) {
        match attribute {
            NETCONFA_IFINDEX => link = number(value),
            NETCONFA_FORWARDING => forwards = number(value),
            _ => {}
        }
    }
    match (link?, forwards?) {
        (NETCONFA_IFINDEX_ALL, _) => Some(Announcement::Host),
        (link, 0) => Some(Announcement::OwnLink(link)),
        _ => None,
    }
}

/// What is said of a route.
struct Heard {
    /// None for a default route.
    to: Option<IpNet>,
    table: u32,
    marked: bool,
    /// It is to one address.
    single: bool,
    /// It leads to a gateway, or by a nexthop object.
    indirect: bool,
}

impl Heard {
    /// None for what the kernel makes for its own use.
    fn of(object: &Object) -> Option<Heard> {
        let &[family, prefix_len, _, _, table, protocol, _, _, a, b, c, d] = object.of::<ROUTE_SIZE>(object.kind())?;
        let single = match family {
            AF_INET => prefix_len == 32,
            AF_INET6 => prefix_len == 128,
            _ => return None,
        };
        let marked = protocol == ROUTE_PROTOCOL;
        let mut heard = Heard { to: None, table: table.into(), marked, single, indirect: false };
        for (attribute, value) in object.attributes(ROUTE_SIZE) {
            match attribute {
                RTA_DST => heard.to = address(family, value).and_then(|ip| IpNet::new(ip, prefix_len).ok()),
                RTA_TABLE => heard.table = number(value).unwrap_or(heard.table),
                RTA_GATEWAY | RTA_VIA | RTA_NH_ID => heard.indirect = true,
                _ => {}
            }
        }
        let cloned = u32::from_ne_bytes([a, b, c, d]) & RTM_F_CLONED != 0;
        (heard.table != RT_TABLE_LOCAL && !cloned).then_some(heard)
    }
}

fn route(object: &Object) -> Option<Announcement> {
    let route = Heard::of(object)?;
    match (route.marked, object.kind()) {
        (false, _) => Some(Announcement::Surroundings),
        (true, RTM_DELROUTE) if route.table == ANNOUNCED || route.indirect => None,
        (true, RTM_DELROUTE) if route.single => route.to.map(|to| Announcement::OwnRoute(to.addr())),
        (true, RTM_DELROUTE) => Some(Announcement::Host),
        (true, _) => None,
    }
}

/// What is said of a link.
struct HeardLink {
    index: u32,
    /// It was taken up or down. One that has just been made says that all has changed, and is not up yet.
    turned: bool,
    up: bool,
    /// Nothing is said to have changed, as of a link that has got or lost its carrier.
    settled: bool,
    /// It is named as the host end of a pod's link.
    named: bool,
    marked: bool,
    /// It is not the link that is told of, but its part in a bridge.
    port: bool,
}

impl HeardLink {
    fn of(object: &Object) -> Option<HeardLink> {
        let header = object.of::<LINK_SIZE>(object.kind())?;
        let (index, flags, changed) = (u32_at(header, 4)?, u32_at(header, 8)?, u32_at(header, 12)?);
        let turned = changed & IFF_UP != 0 && changed != u32::MAX;
        let port = header.first() != Some(&AF_UNSPEC);
        let (up, settled) = (flags & IFF_UP != 0, changed == 0);
        let mut link = HeardLink { index, turned, up, settled, named: false, marked: false, port };
        for (attribute, value) in object.attributes(LINK_SIZE) {
            match attribute {
                IFLA_IFNAME => link.named = value.starts_with(POD_LINKS.as_bytes()),
                IFLA_IFALIAS => link.marked = text(value).starts_with("flock:"),
                _ => {}
            }
        }
        Some(link)
    }
}

fn link(object: &Object) -> Option<Announcement> {
    let link = HeardLink::of(object)?;
    if !link.named && !link.marked {
        return (!link.port).then_some(Announcement::Link);
    }
    // The end of a pod's own link is for whoever waits for that, or for a round.
    if object.kind() == RTM_DELLINK {
        return None;
    }
    if link.marked && !link.named {
        return Some(Announcement::OwnLink(link.index));
    }
    match (link.turned, link.up) {
        (true, false) => Some(Announcement::OwnLink(link.index)),
        (false, true) if link.settled => Some(Announcement::Carrier(link.index)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, header: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = header.to_vec();
        for (kind, value) in attributes {
            body.extend(u16::try_from(4 + value.len()).expect("short").to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = u32::try_from(16 + body.len()).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn route(kind: u16, prefix_len: u8, table: u8, protocol: u8) -> Vec<u8> {
        message(kind, &[AF_INET, prefix_len, 0, 0, table, protocol, 0, 1, 0, 0, 0, 0], &[(RTA_DST, &[10, 0, 0, 5])])
    }

    #[test]
    fn what_flock_does_itself_makes_nobody_look() {
        for quiet in [
            route(RTM_NEWROUTE, 32, 254, ROUTE_PROTOCOL),
            route(RTM_NEWROUTE, 24, 254, ROUTE_PROTOCOL),
            // The kernel's own, for an address of a host end.
            route(RTM_NEWROUTE, 32, 255, 2),
            message(RTM_NEWADDR, &[AF_INET, 32, 0, 0, 7, 0, 0, 0], &[(2, &[169, 254, 1, 1])]),
            message(RTM_NEWLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], &[(IFLA_IFNAME, b"flock1\0")]),
            route(RTM_NEWROUTE, 32, 102, ROUTE_PROTOCOL),
            message(RTM_NEWNEXTHOP, &[AF_INET6, 0, ROUTE_PROTOCOL, 0, 0, 0, 0, 0], &[]),
            message(RTM_NEWADDR, &[AF_INET6, 128, 0, 0, 7, 0, 0, 0], &[(1, &GATEWAY6.octets())]),
            message(RTM_DELLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[(IFLA_IFNAME, b"flock1\0")]),
            // The port of a bridge.
            message(RTM_NEWLINK, &[7, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[(IFLA_IFNAME, b"eth0\0")]),
            // Made, and then given an alias, before it is up.
            message(
                RTM_NEWLINK,
                &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255],
                &[(IFLA_IFNAME, b"flock1\0")],
            ),
            message(RTM_NEWLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[(IFLA_IFNAME, b"flock1\0")]),
            message(
                RTM_NEWNETCONF,
                &[AF_INET, 0, 0, 0],
                &[(NETCONFA_IFINDEX, &7u32.to_ne_bytes()), (NETCONFA_FORWARDING, &1u32.to_ne_bytes())],
            ),
            message(
                RTM_NEWNETCONF,
                &[AF_INET, 0, 0, 0],
                &[(NETCONFA_IFINDEX, &NETCONFA_IFINDEX_ALL.to_ne_bytes()), (3, &1u32.to_ne_bytes())],
            ),
        ] {
            assert_eq!(changes(&quiet), [], "{quiet:?}");
        }
    }

    #[test]
    fn what_others_do_is_heard() {
        let all = |family, value: u32| {
            message(
                RTM_NEWNETCONF,
                &[family, 0, 0, 0],
                &[(NETCONFA_IFINDEX, &NETCONFA_IFINDEX_ALL.to_ne_bytes()), (NETCONFA_FORWARDING, &value.to_ne_bytes())],
            )
        };
        for (heard, change) in [
            (all(AF_INET, 0), Announcement::Host),
            (all(AF_INET6, 1), Announcement::Host),
            (route(RTM_DELROUTE, 24, 254, ROUTE_PROTOCOL), Announcement::Host),
            (
                route(RTM_DELROUTE, 32, 254, ROUTE_PROTOCOL),
                Announcement::OwnRoute("10.0.0.5".parse().expect("literal")),
            ),
            (route(RTM_NEWROUTE, 24, 254, 16), Announcement::Surroundings),
            (route(RTM_DELROUTE, 0, 77, 186), Announcement::Surroundings),
            (
                message(RTM_DELADDR, &[AF_INET, 32, 0, 0, 7, 0, 0, 0], &[(2, &[169, 254, 1, 1])]),
                Announcement::OwnLink(7),
            ),
            (
                message(RTM_NEWADDR, &[AF_INET, 24, 0, 0, 7, 0, 0, 0], &[(2, &[192, 0, 2, 1])]),
                Announcement::Surroundings,
            ),
            (message(RTM_NEWNEXTHOP, &[0; 8], &[]), Announcement::Surroundings),
            (
                message(RTM_NEWLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[(IFLA_IFNAME, b"flock1\0")]),
                Announcement::OwnLink(7),
            ),
            (
                message(
                    RTM_NEWLINK,
                    &[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
                    &[(IFLA_IFNAME, b"x\0"), (IFLA_IFALIAS, b"flock:a/eth0\0")],
                ),
                Announcement::OwnLink(7),
            ),
            // Its other end went up or down; so ends the making of one, too.
            (
                message(
                    RTM_NEWLINK,
                    &[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
                    &[(IFLA_IFNAME, b"flock1\0"), (IFLA_IFALIAS, b"flock:a/eth0\0")],
                ),
                Announcement::Carrier(7),
            ),
            (
                message(
                    RTM_NEWNETCONF,
                    &[AF_INET, 0, 0, 0],
                    &[(NETCONFA_IFINDEX, &7u32.to_ne_bytes()), (NETCONFA_FORWARDING, &0u32.to_ne_bytes())],
                ),
                Announcement::OwnLink(7),
            ),
            (vec![40, 0, 0, 0], Announcement::Lost),
        ] {
            let of_routing = |heard: &Announcement| matches!(heard, Announcement::Routes | Announcement::Place(_));
            let of_pods_and_host = changes(&heard).into_iter().filter(|heard| !of_routing(heard));
            assert_eq!(of_pods_and_host.collect::<Vec<_>>(), [change], "{heard:?}");
        }
    }

    #[test]
    fn what_the_routes_to_nodes_and_anycast_addresses_rest_on_is_heard() {
        use Announcement::{Host, Link, OwnLink, OwnRoute, Place, Routes, Surroundings};
        let lost = |attribute: (u16, &[u8])| {
            let header = [AF_INET, 32, 0, 0, 254, ROUTE_PROTOCOL, 0, 1, 0, 0, 0, 0];
            message(RTM_DELROUTE, &header, &[(RTA_DST, &[10, 0, 0, 5]), attribute])
        };
        let address = |kind, ip: &str| {
            let ip: std::net::Ipv6Addr = ip.parse().expect("literal");
            message(kind, &[AF_INET6, 64, 0, 0, 2, 0, 0, 0], &[(1, &ip.octets())])
        };
        let link = |flags, name: &[u8]| {
            message(RTM_NEWLINK, &[0, 0, 0, 0, 7, 0, 0, 0, flags, 0, 0, 0, 1, 0, 0, 0], &[(IFLA_IFNAME, name)])
        };
        for (heard, announced) in [
            (route(RTM_DELROUTE, 32, 102, ROUTE_PROTOCOL), vec![Routes]),
            (route(RTM_DELROUTE, 24, 102, ROUTE_PROTOCOL), vec![Routes]),
            (route(RTM_NEWROUTE, 32, 102, 4), vec![Surroundings, Routes]),
            (route(RTM_DELROUTE, 32, 102, 4), vec![Surroundings, Routes]),
            (route(RTM_NEWROUTE, 32, 103, 4), vec![Surroundings]),
            (route(RTM_NEWROUTE, 32, 254, 4), vec![Surroundings, Place("10.0.0.5/32".parse().expect("literal"))]),
            (route(RTM_DELROUTE, 32, 254, 4), vec![Surroundings, Place("10.0.0.5/32".parse().expect("literal"))]),
            (lost((RTA_GATEWAY, &[10, 0, 0, 1])), vec![Routes]),
            (lost((RTA_VIA, &[0; 18])), vec![Routes]),
            (lost((RTA_NH_ID, &9u32.to_ne_bytes())), vec![Routes]),
            (lost((4, &7u32.to_ne_bytes())), vec![OwnRoute("10.0.0.5".parse().expect("literal"))]),
            (route(RTM_DELROUTE, 24, 254, ROUTE_PROTOCOL), vec![Host]),
            (message(RTM_DELNEXTHOP, &[AF_INET6, 0, ROUTE_PROTOCOL, 0, 0, 0, 0, 0], &[]), vec![Routes]),
            (message(RTM_DELNEXTHOP, &[AF_INET6, 0, 4, 0, 0, 0, 0, 0], &[]), vec![Surroundings]),
            (address(RTM_NEWADDR, "2001:db8::1"), vec![Surroundings, Routes]),
            (address(RTM_DELADDR, "2001:db8::1"), vec![Surroundings, Routes]),
            // What other nodes may be given for a next hop.
            (address(RTM_NEWADDR, "fe80::5"), vec![Routes]),
            (link(0, b"eth0\0"), vec![Link, Routes]),
            (link(1, b"eth0\0"), vec![Link, Routes]),
            // Named otherwise, which says of nothing that it has changed; gone.
            (
                message(RTM_NEWLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], &[(IFLA_IFNAME, b"eth0\0")]),
                vec![Link],
            ),
            (
                message(RTM_DELLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[(IFLA_IFNAME, b"eth0\0")]),
                vec![Link],
            ),
            (link(0, b"flock1\0"), vec![OwnLink(7)]),
        ] {
            assert_eq!(changes(&heard), announced, "{heard:?}");
        }
    }
}
