//! What the tool `ip` does on other hosts: makes and takes away links, addresses, routes and neighbours by rtnetlink, without any
//! of flock's code.

use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use flock::kernel::netns::Netns;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::machine::has_ipv6;

/// A socket in the namespace of the thread that made it.
pub struct Ip(Socket);

impl Ip {
    pub fn new() -> Ip {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        socket.bind_auto().expect("bound");
        Ip(socket)
    }

    /// The kernel's answer to one request: zero, or the number of an error.
    fn answer(&mut self, message: RouteNetlinkMessage, flags: u16) -> i32 {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.ask(&bytes)
    }

    fn ask(&mut self, bytes: &[u8]) -> i32 {
        self.0.send(bytes, 0).expect("sent");
        let (answer, _) = self.0.recv_from_full().expect("answered");
        let word = |at: usize| i32::from_ne_bytes(answer[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(answer[4], 2, "an acknowledgement");
        -word(16)
    }

    #[track_caller]
    fn run(&mut self, message: RouteNetlinkMessage, flags: u16) {
        let words = format!("{message:?}");
        let errno = self.answer(message, flags);
        assert_eq!(errno, 0, "{}: {words}", std::io::Error::from_raw_os_error(errno));
    }

    #[track_caller]
    pub fn add_dummy(&mut self, name: &str) {
        let mut link = LinkMessage::default();
        link.attributes =
            vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)])];
        self.run(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
    }

    /// A pair of links: this one, and `eth0` in the namespace.
    #[track_caller]
    pub fn add_pair(&mut self, name: &str, netns: &Netns) {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::NetNsFd(netns.fd().as_raw_fd())];
        let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))];
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)];
        self.run(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL);
    }

    pub fn delete(&mut self, name: &str) {
        let mut link = LinkMessage::default();
        link.header.index = index(name);
        // The other end of a pair may have taken it along.
        self.answer(RouteNetlinkMessage::DelLink(link), 0);
    }

    #[track_caller]
    fn set(&mut self, name: &str, up: bool) {
        let mut link = LinkMessage::default();
        link.header.index = index(name);
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        self.run(RouteNetlinkMessage::SetLink(link), 0);
    }

    #[track_caller]
    pub fn up(&mut self, name: &str) {
        self.set(name, true);
    }

    #[track_caller]
    pub fn down(&mut self, name: &str) {
        self.set(name, false);
    }

    /// An alias of any bytes, in a message that is put together by hand.
    #[track_caller]
    pub fn alias(&mut self, name: &str, text: &[u8]) {
        let length = 4 + text.len();
        let total = u32::try_from(32 + length).expect("short");
        let mut bytes = Vec::new();
        bytes.extend(total.to_ne_bytes());
        bytes.extend(19u16.to_ne_bytes()); // RTM_SETLINK
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend([0; 8]); // sequence number, port
        bytes.extend([0; 4]); // no family, no device type
        bytes.extend(index(name).to_ne_bytes());
        bytes.extend([0; 8]); // no flags
        bytes.extend(u16::try_from(length).expect("short").to_ne_bytes());
        bytes.extend(20u16.to_ne_bytes()); // IFLA_IFALIAS
        bytes.extend(text);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        assert_eq!(self.ask(&bytes), 0);
    }

    fn address(name: &str, ip: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = bits(ip);
        message.header.index = index(name);
        message.attributes = vec![
            AddressAttribute::Local(ip),
            AddressAttribute::Address(ip),
            AddressAttribute::Flags(AddressFlags::Nodad),
        ];
        message
    }

    /// Without IPv6 in the kernel, an IPv6 address is nobody's.
    #[track_caller]
    pub fn add_address(&mut self, name: &str, ip: IpAddr) {
        if ip.is_ipv4() || has_ipv6() {
            self.run(RouteNetlinkMessage::NewAddress(Ip::address(name, ip)), NLM_F_CREATE | NLM_F_EXCL);
        }
    }

    /// An address of a network that this link leads to.
    #[track_caller]
    pub fn add_network(&mut self, name: &str, ip: IpAddr, prefix_len: u8) {
        if ip.is_ipv4() || has_ipv6() {
            let mut message = Ip::address(name, ip);
            message.header.prefix_len = prefix_len;
            self.run(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
        }
    }

    /// A default route by this router.
    #[track_caller]
    pub fn add_default_route(&mut self, via: IpAddr) {
        if via.is_ipv4() || has_ipv6() {
            let mut message = RouteMessage::default();
            message.header.address_family = family(via);
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.header.kind = RouteType::Unicast;
            message.attributes = vec![RouteAttribute::Gateway(via.into())];
            self.run(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
        }
    }

    #[track_caller]
    pub fn delete_address(&mut self, name: &str, ip: IpAddr) {
        self.run(RouteNetlinkMessage::DelAddress(Ip::address(name, ip)), 0);
    }

    fn route(ip: IpAddr, prefix_len: u8) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = prefix_len;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.scope = RouteScope::NoWhere;
        message.attributes = vec![RouteAttribute::Destination(ip.into())];
        message
    }

    /// The route to one address.
    #[track_caller]
    pub fn delete_route(&mut self, ip: IpAddr) {
        self.run(RouteNetlinkMessage::DelRoute(Ip::route(ip, bits(ip))), 0);
    }

    /// The unreachable routes of the pods' ranges, if they are there.
    pub fn delete_unreachable(&mut self) {
        for range in [crate::node::CIDR6, crate::node::CIDR4] {
            let range: ipnet::IpNet = range.parse().expect("a prefix");
            let mut message = Ip::route(range.addr(), range.prefix_len());
            message.header.kind = RouteType::Unreachable;
            self.answer(RouteNetlinkMessage::DelRoute(message), 0);
        }
    }

    #[track_caller]
    pub fn delete_neighbour(&mut self, name: &str, ip: IpAddr) {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = index(name);
        message.attributes = vec![NeighbourAttribute::Destination(match ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        })];
        self.run(RouteNetlinkMessage::DelNeighbour(message), 0);
    }
}

/// The index of a link in the namespace of this thread; zero if there is none.
pub fn index(name: &str) -> u32 {
    let any =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).expect("a socket");
    rustix::net::netdevice::name_to_index(any, name).unwrap_or_default()
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
