//! Neighbour proxies: entries that make the host answer on a link when somebody looks for an address there that is not its own
//! (`ip neigh show proxy`).
//!
//! Owns how an entry bears flock's mark. Must not decide which are wanted, and removes and overwrites no entry of somebody else.
//!
//! The kernel announces neither the making nor the end of such entries, and forgets all of a link that is taken down. Asked to make
//! one that is there already, it succeeds and writes the new mark over the old one, whatever the request says of that. So each
//! request looks first.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteProtocol;

use super::NetlinkError;
use super::apply::family;
use super::conn::{Conn, Request};
use super::message::{Object, address};
use super::uapi::{NDA_DST, NDA_PROTOCOL, NEIGHBOUR_SIZE, NTF_PROXY, RTM_NEWNEIGH};
use model::plan::ROUTE_PROTOCOL;
use model::proxy::{Proxy, Shown};

impl Conn {
    /// The proxy entries of all links and both families, whoever made them.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn proxies(&mut self) -> Result<Vec<Shown>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.flags = NeighbourFlags::Proxy;
        let all = self.dump(RouteNetlinkMessage::GetNeighbour(message), "list neighbour proxies")?;
        Ok(all.iter().filter_map(as_proxy).collect())
    }

    /// Makes a proxy entry. One that is there already is enough, whoever made it.
    ///
    /// # Errors
    /// The kernel refused, or the link is not there.
    pub fn add_proxy(&mut self, proxy: Proxy) -> Result<(), NetlinkError> {
        if self.proxy(proxy)?.is_some() {
            return Ok(());
        }
        let mut message = about(proxy);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
        let what = format!("add neighbour proxy {proxy}");
        self.run(Request { message: RouteNetlinkMessage::NewNeighbour(message), flags: NLM_F_CREATE, what }).map(drop)
    }

    /// Removes a proxy entry, if it is flock's.
    ///
    /// # Errors
    /// It may still be there.
    pub fn remove_proxy(&mut self, proxy: Proxy) -> Result<(), NetlinkError> {
        if !self.proxy(proxy)?.is_some_and(|shown| shown.ours) {
            return Ok(());
        }
        let what = format!("remove neighbour proxy {proxy}");
        match self.run(Request { message: RouteNetlinkMessage::DelNeighbour(about(proxy)), flags: 0, what }) {
            Err(error) if !error.is_gone() => Err(error),
            _ => Ok(()),
        }
    }

    fn proxy(&mut self, proxy: Proxy) -> Result<Option<Shown>, NetlinkError> {
        let what = format!("look up neighbour proxy {proxy}");
        match self.run(Request { message: RouteNetlinkMessage::GetNeighbour(about(proxy)), flags: 0, what }) {
            Err(error) if error.is_gone() => Ok(None),
            other => Ok(other?.iter().find_map(as_proxy)),
        }
    }
}

fn about(proxy: Proxy) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(proxy.ip);
    message.header.ifindex = proxy.link;
    message.header.flags = NeighbourFlags::Proxy;
    message.attributes.push(NeighbourAttribute::Destination(match proxy.ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }));
    message
}

/// The proxy entry that an object is, if it is one of a link.
pub(super) fn as_proxy(object: &Object) -> Option<Shown> {
    let &[family, _, _, _, a, b, c, d, _, _, flags, _] = object.of::<NEIGHBOUR_SIZE>(RTM_NEWNEIGH)?;
    let link = u32::from_ne_bytes([a, b, c, d]);
    if flags & NTF_PROXY == 0 || link == 0 {
        return None;
    }
    let (mut ip, mut ours) = (None, false);
    for (attribute, value) in object.attributes(NEIGHBOUR_SIZE) {
        match attribute {
            NDA_DST => ip = address(family, value),
            NDA_PROTOCOL => ours = value == [ROUTE_PROTOCOL],
            _ => {}
        }
    }
    Some(Shown { proxy: Proxy { link, ip: ip? }, ours })
}
