//! Hears what the kernel announces and flock did not do: settings, routes and addresses of the host, and what its own links
//! have lost. So a node does not wait for the next round while its pods are cut off.
//!
//! Owns a socket that only listens, and says that somebody should look. Must not decide what is wrong, nor keep any state;
//! removals that flock itself waits for are heard in `removal`.

use std::io;
use std::net::IpAddr;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::message::{Object, Outcome, address, messages, number, outcome, text, u32_at};
use super::read::as_address_of;
use super::uapi::{
    AF_INET, AF_INET6, IFF_UP, IFLA_IFALIAS, IFLA_IFNAME, LINK_SIZE, NETCONF_SIZE, NETCONFA_FORWARDING,
    NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL, ROUTE_SIZE, RT_TABLE_LOCAL, RTA_DST, RTA_TABLE, RTM_DELADDR,
    RTM_DELNEXTHOP, RTM_DELROUTE, RTM_F_CLONED, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNETCONF, RTM_NEWNEXTHOP, RTM_NEWROUTE,
    RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK, RTNLGRP_NEXTHOP,
};
use super::{Cause, NetlinkError};
use crate::process::failpoint;
use model::plan::ROUTE_PROTOCOL;

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
    /// A single route with flock's mark is gone.
    OwnRoute(IpAddr),
    /// The link of this index has lost an address or a setting, is down, or has another name.
    OwnLink(u32),
    /// Announcements were lost: anything may have changed.
    Lost,
}

/// Hears the announcements of the namespace in which it was opened.
pub struct Announcements {
    socket: Socket,
    buffer: Vec<u8>,
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
        Ok(Announcements { socket, buffer: vec![0; 32 * 1024] })
    }

    /// Waits for the next announcements. None when the socket is of no more use.
    pub fn wait(&mut self) -> Option<Vec<Announcement>> {
        loop {
            let mut space = self.buffer.as_mut_slice();
            let received = self.socket.recv(&mut space, 0);
            match received.and_then(|length| failpoint::pass("netlink.change").map(|()| length)) {
                Ok(length) => return Some(changes(self.buffer.get(..length).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                    return Some(vec![Announcement::Lost]);
                }
                Err(_) => return None,
            }
        }
    }
}

/// What one datagram of announcements is about. Most of them are about what flock itself does, and about nothing here.
pub fn changes(datagram: &[u8]) -> Vec<Announcement> {
    // One that is not whole says nothing of what else it may have said.
    let Ok(messages) = messages(datagram) else { return vec![Announcement::Lost] };
    let objects = messages.into_iter().filter_map(|message| match outcome(message) {
        Outcome::Object(object) => change(&object),
        _ => None,
    });
    objects.collect()
}

fn change(object: &Object) -> Option<Announcement> {
    match object.kind() {
        RTM_NEWNETCONF => setting(object),
        RTM_NEWROUTE | RTM_DELROUTE => route(object),
        RTM_NEWADDR | RTM_DELADDR => {
            let address = as_address_of(object, object.kind())?;
            let link_local = match address.ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.is_unicast_link_local(),
            };
            // No pod can get a link-local one; a host end has no others.
            match (link_local, object.kind()) {
                (false, _) => Some(Announcement::Surroundings),
                (true, RTM_DELADDR) => Some(Announcement::OwnLink(address.link)),
                (true, _) => None,
            }
        }
        RTM_NEWLINK => link(object),
        RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Announcement::Surroundings),
        _ => None,
    }
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

fn route(object: &Object) -> Option<Announcement> {
    let &[family, prefix_len, _, _, table, protocol, _, _, a, b, c, d] = object.of::<ROUTE_SIZE>(object.kind())?;
    let (mut to, mut table) = (None, u32::from(table));
    for (attribute, value) in object.attributes(ROUTE_SIZE) {
        match attribute {
            RTA_DST => to = address(family, value),
            RTA_TABLE => table = number(value).unwrap_or(table),
            _ => {}
        }
    }
    if table == RT_TABLE_LOCAL || u32::from_ne_bytes([a, b, c, d]) & RTM_F_CLONED != 0 {
        return None;
    }
    let single = match family {
        AF_INET => prefix_len == 32,
        AF_INET6 => prefix_len == 128,
        _ => return None,
    };
    match (protocol == ROUTE_PROTOCOL, object.kind()) {
        (false, _) => Some(Announcement::Surroundings),
        (true, RTM_DELROUTE) if single => to.map(Announcement::OwnRoute),
        (true, RTM_DELROUTE) => Some(Announcement::Host),
        (true, _) => None,
    }
}

fn link(object: &Object) -> Option<Announcement> {
    let header = object.of::<LINK_SIZE>(RTM_NEWLINK)?;
    let (index, flags, changed) = (u32_at(header, 4)?, u32_at(header, 8)?, u32_at(header, 12)?);
    let (mut named, mut marked) = (false, false);
    for (attribute, value) in object.attributes(LINK_SIZE) {
        match attribute {
            IFLA_IFNAME => named = value.starts_with(b"flock"),
            IFLA_IFALIAS => marked = text(value).starts_with("flock:"),
            _ => {}
        }
    }
    // One that has just been made says that all has changed, and is not up yet.
    let taken_down = flags & IFF_UP == 0 && changed & IFF_UP != 0 && changed != u32::MAX;
    (named && taken_down || marked && !named).then_some(Announcement::OwnLink(index))
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
            message(
                RTM_NEWLINK,
                &[0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
                &[(IFLA_IFNAME, b"flock1\0"), (IFLA_IFALIAS, b"flock:a/eth0\0")],
            ),
            message(RTM_NEWLINK, &[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[(IFLA_IFNAME, b"eth0\0")]),
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
            assert_eq!(changes(&heard), [change], "{heard:?}");
        }
    }
}
