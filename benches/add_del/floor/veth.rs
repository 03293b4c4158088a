//! The floor of the kernel's part: what a pod's link costs when one process that keeps its socket open makes it in as few calls as the
//! kernel allows.
//!
//! Both indexes are given, so nothing is asked; the pod's end is born in the pod's namespace under its last name; one queue; everything
//! else of an end in one message each, in one batch; the kernel is asked to confirm the last one only. `alike.rs` compares what comes
//! of it with what flock makes: it has to be the same to the last setting, or it would be no floor of flock's.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{
    Batch, CREATE, EXCLUSIVE, REPLACE, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE,
};
use super::netlink::{RTM_SETLINK, Socket};

const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const GATEWAY4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `IFF_UP`.
const UP: u32 = 1;
/// The mark that flock's routes bear.
const PROTOCOL: u8 = 102;
/// `IFA_F_NODAD | IFA_F_NOPREFIXROUTE`.
const QUIET: u32 = 0x202;

/// IPv4 settings of the host end by their numbers (linux/ip.h), which fit into a message.
const SETTINGS4: [(u16, u32); 8] = [(1, 1), (3, 0), (4, 0), (9, 0), (19, 0), (21, 0), (23, 0), (26, 0)];

/// IPv6 settings of the host end, which the kernel takes by `/proc` alone.
const SETTINGS6: [(&str, &str); 8] = [
    ("disable_ipv6", "0"),
    ("forwarding", "1"),
    ("accept_ra", "0"),
    ("accept_redirects", "0"),
    ("seg6_enabled", "0"),
    ("rpl_seg_enabled", "0"),
    ("proxy_ndp", "0"),
    ("accept_untracked_na", "0"),
];

/// A pod's link: what has to be known to make it.
#[derive(Debug, Clone)]
pub struct Link {
    pub name: String,
    pub alias: String,
    /// The index of both ends, each in its namespace.
    pub index: u32,
    pub host_mac: [u8; 6],
    pub pod_mac: [u8; 6],
    pub ip6: Ipv6Addr,
    pub ip4: Ipv4Addr,
    pub mtu: u32,
}

impl Link {
    /// The link of the pod of this number, as no other one is.
    pub fn of(number: u32) -> Link {
        let [_, a, b, c] = number.to_be_bytes();
        Link {
            name: format!("flock{number:08x}"),
            alias: format!("flock:{number:064x}/eth0"),
            index: 1_000_000 + number,
            host_mac: [2, 0, 1, a, b, c],
            pod_mac: [2, 0, 2, a, b, c],
            ip6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0xf001, 0, 0, a.into(), u16::from_be_bytes([b, c])),
            ip4: Ipv4Addr::new(10, 64 | a, b, c),
            mtu: 1500,
        }
    }
}

/// What one thread needs to make links: a socket on the host, and the way back to it.
pub struct Maker {
    socket: Socket,
    host: OwnedFd,
    /// Those IPv6 settings that this host's links are not born with.
    settings6: Vec<(&'static str, &'static str)>,
}

impl Maker {
    /// On the calling thread's host.
    pub fn here() -> Maker {
        let host = fs::File::open("/proc/thread-self/ns/net").expect("readable").into();
        let born = |key: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/default/{key}"));
        let lacks = |(key, value): &(&str, &str)| born(key).is_ok_and(|born| born.trim() != *value);
        Maker { socket: Socket::open(), host, settings6: SETTINGS6.into_iter().filter(lacks).collect() }
    }

    /// The link, its pod's end in the namespace of this path. The calling thread has to be on the host, and is there again.
    pub fn add(&self, link: &Link, netns: &str) {
        let netns: OwnedFd = fs::File::open(netns).expect("a namespace").into();
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(netns.as_fd(), network).expect("entered");
        let inside = Socket::open();
        move_into_link_name_space(self.host.as_fd(), network).expect("came back");

        self.socket.send(&pair(link, netns.as_raw_fd()));
        for (key, value) in &self.settings6 {
            fs::write(format!("/proc/sys/net/ipv6/conf/{}/{key}", link.name), value).expect("a setting");
        }
        self.socket.confirmed(host_end(link)).expect("the host's end");
        inside.confirmed(pod_end(link)).expect("the pod's end");
    }
}

/// The removal of a link. Whoever sends it waits for the kernel's grace periods.
pub fn removal(index: u32) -> Batch {
    let mut batch = Batch::default();
    batch.message(RTM_DELLINK, 0, &link_header(index, 0));
    batch
}

fn pair(link: &Link, netns: i32) -> Batch {
    let end = |batch: &mut Batch, name: &str, mac: &[u8; 6]| {
        batch.attribute(3, &text(name)).attribute(1, mac).attribute(4, &link.mtu.to_ne_bytes());
        // Queues to send and to receive.
        batch.attribute(31, &1u32.to_ne_bytes()).attribute(32, &1u32.to_ne_bytes());
    };
    let mut batch = Batch::default();
    batch.message(RTM_NEWLINK, CREATE | EXCLUSIVE, &link_header(link.index, 0));
    end(&mut batch, &link.name, &link.host_mac);
    batch.nest(18, |info| {
        info.attribute(1, b"veth").nest(2, |data| {
            data.nest(1, |peer| {
                peer.raw(&link_header(link.index, 0));
                end(peer, "eth0", &link.pod_mac);
                peer.attribute(28, &netns.to_ne_bytes());
            });
        });
    });
    batch
}

fn host_end(link: &Link) -> Batch {
    let mut batch = Batch::default();
    batch.message(RTM_SETLINK, 0, &link_header(link.index, 0)).attribute(20, link.alias.as_bytes());
    batch.nest(26, |families| {
        families.nest(AF_INET.into(), |inet| {
            inet.nest(1, |settings| {
                for (number, value) in SETTINGS4 {
                    settings.attribute(number, &value.to_ne_bytes());
                }
            });
        });
        no_address_of_its_own(families);
    });
    batch.message(RTM_SETLINK, 0, &link_header(link.index, UP));
    address6(&mut batch, link.index, GATEWAY6, 128, 253);
    address4(&mut batch, link.index, GATEWAY4, 254);
    neighbour(&mut batch, AF_INET6, link.index, &link.ip6.octets(), &link.pod_mac);
    route(&mut batch, AF_INET6, link.index, Some(&link.ip6.octets()), None);
    neighbour(&mut batch, AF_INET, link.index, &link.ip4.octets(), &link.pod_mac);
    route(&mut batch, AF_INET, link.index, Some(&link.ip4.octets()), None);
    batch
}

fn pod_end(link: &Link) -> Batch {
    let mut batch = Batch::default();
    batch.message(RTM_SETLINK, 0, &link_header(link.index, 0)).nest(26, no_address_of_its_own);
    batch.message(RTM_SETLINK, 0, &link_header(link.index, UP));
    address6(&mut batch, link.index, link_local(link.pod_mac), 64, 253);
    address6(&mut batch, link.index, link.ip6, 128, 0);
    neighbour(&mut batch, AF_INET6, link.index, &GATEWAY6.octets(), &link.host_mac);
    route(&mut batch, AF_INET6, link.index, None, Some(&GATEWAY6.octets()));
    address4(&mut batch, link.index, link.ip4, 0);
    neighbour(&mut batch, AF_INET, link.index, &GATEWAY4.octets(), &link.host_mac);
    route(&mut batch, AF_INET, link.index, None, Some(&GATEWAY4.octets()));
    batch
}

fn no_address_of_its_own(families: &mut Batch) {
    families.nest(AF_INET6.into(), |inet6| {
        // IN6_ADDR_GEN_MODE_NONE.
        inet6.attribute(8, &[1]);
    });
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[0] = AF_UNSPEC;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn address6(batch: &mut Batch, index: u32, ip: Ipv6Addr, prefix: u8, scope: u8) {
    address(batch, [AF_INET6, prefix, 0, scope], index, &ip.octets());
}

fn address4(batch: &mut Batch, index: u32, ip: Ipv4Addr, scope: u8) {
    address(batch, [AF_INET, 32, 0, scope], index, &ip.octets());
}

/// `struct ifaddrmsg`, of which `head` is the first half.
fn address(batch: &mut Batch, head: [u8; 4], index: u32, ip: &[u8]) {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&head);
    header[4..].copy_from_slice(&index.to_ne_bytes());
    batch.message(RTM_NEWADDR, CREATE | REPLACE, &header);
    batch.attribute(2, ip).attribute(1, ip).attribute(8, &QUIET.to_ne_bytes());
}

/// `struct ndmsg`, permanent.
fn neighbour(batch: &mut Batch, family: u8, index: u32, ip: &[u8], mac: &[u8; 6]) {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&0x80u16.to_ne_bytes());
    batch.message(RTM_NEWNEIGH, CREATE | REPLACE, &header).attribute(1, ip).attribute(2, mac);
}

/// `struct rtmsg` in the main table: to one address, or by a gateway to everywhere.
fn route(batch: &mut Batch, family: u8, index: u32, to: Option<&[u8]>, via: Option<&[u8]>) {
    let length = u8::try_from(to.map_or(0, |to| to.len() * 8)).expect("a byte");
    let scope = if family == AF_INET && via.is_none() { 253 } else { 0 };
    let onlink = if via.is_some() { 4u32 } else { 0 };
    let mut header = [family, length, 0, 0, 254, PROTOCOL, scope, 1, 0, 0, 0, 0];
    header[8..].copy_from_slice(&onlink.to_ne_bytes());
    batch.message(RTM_NEWROUTE, CREATE | EXCLUSIVE, &header);
    // RTA_DST and RTA_GATEWAY.
    for (number, ip) in [(1, to), (5, via)] {
        if let Some(ip) = ip {
            batch.attribute(number, ip);
        }
    }
    batch.attribute(4, &index.to_ne_bytes());
}

/// The address that an interface gives itself by its hardware address (RFC 4291).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}
