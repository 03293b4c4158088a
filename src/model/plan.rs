//! From a lease to an ordered list of changes in the kernel: what both ends of the pod's link look like.
//!
//! Pure data, so that the order and the reasons can be read in one place; `netlink` carries it out, and `observed` compares it
//! with the kernel for recovery, repairs and CHECK. Must not ask the kernel.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{Attachment, Family, GATEWAY6, IfName, LinkEnd, Mac, fnv1a32};
use crate::lease::Lease;

/// The route protocol number that marks every route of flock (`proto 102` in `ip route`). Free in the kernel's and in
/// iproute2's tables; only routes that bear it are ever changed or removed.
pub const ROUTE_PROTOCOL: u8 = 102;

/// The metric of the unreachable routes of the node's prefixes: the last choice, so that any other route wins.
pub const UNREACHABLE_METRIC: u32 = u32::MAX;

/// A kernel setting of one link that no default of the host may decide.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// The family that it belongs to.
    pub family: Family,
    /// Its name below `/proc/sys/net/ipv4/conf/LINK` or `/proc/sys/net/ipv6/conf/LINK`.
    pub key: &'static str,
    /// Its place among the settings of a link message: `IPV4_DEVCONF_*` less one (linux/ip.h), `DEVCONF_*`
    /// (linux/ipv6.h).
    pub place: usize,
    /// What it has to be.
    pub value: i32,
    /// Whether it matters only to a pod that has an address of the family. The others keep a pod of either kind from
    /// changing the host.
    pub for_addresses: bool,
    /// Whether it is kept for as long as the link stands. The others are made with the link and belong to later plugins of
    /// the chain from then on.
    pub kept: bool,
}

const fn setting(family: Family, key: &'static str, place: usize, value: i32) -> Setting {
    Setting { family, key, place, value, for_addresses: false, kept: true }
}

const fn setting_for_addresses(family: Family, key: &'static str, place: usize, value: i32) -> Setting {
    Setting { family, key, place, value, for_addresses: true, kept: true }
}

/// The settings of each host end, in the order in which they are made. `docs/design.md` argues each, and what is left to
/// the host.
pub const SETTINGS: [Setting; 16] = [
    // What the pod's packets need: without these the kernel drops what the pod sends.
    setting_for_addresses(Family::V4, "forwarding", 0, 1),
    setting_for_addresses(Family::V6, "disable_ipv6", 26, 0),
    setting_for_addresses(Family::V6, "forwarding", 0, 1),
    // What a pod could tell the host: routes, prefixes, addresses and an MTU by router advertisement, routes by redirect.
    setting(Family::V6, "accept_ra", 3, 0),
    setting(Family::V6, "accept_redirects", 4, 0),
    setting(Family::V4, "accept_redirects", 3, 0),
    // What a pod could make the host do with its packets: route them as the pod says, or take them for its own.
    setting(Family::V4, "accept_source_route", 8, 0),
    setting(Family::V6, "seg6_enabled", 44, 0),
    setting(Family::V6, "rpl_seg_enabled", 51, 0),
    setting(Family::V4, "accept_local", 22, 0),
    // portmap sets it for host ports that are called by 127.0.0.1, and guards that with a rule of its own.
    Setting { family: Family::V4, key: "route_localnet", place: 25, value: 0, for_addresses: false, kept: false },
    // What the host answers for others, and learns from answers that nobody asked for.
    setting(Family::V4, "arp_ignore", 18, 0),
    setting(Family::V4, "proxy_arp", 2, 0),
    setting(Family::V4, "arp_accept", 20, 0),
    setting(Family::V6, "proxy_ndp", 22, 0),
    setting(Family::V6, "accept_untracked_na", 57, 0),
];

/// One change of one link, in words that both families share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Give the link its name back. The kernel refuses that for a link that is up before Linux 6.2.
    Name(IfName),
    /// Give the link its hardware address back, to which the other end sends.
    Mac(Mac),
    /// Write a text beside the link, where `ip link` and recovery can read it.
    Alias(String),
    /// Switch off the link-local address that the kernel would make by itself, and its duplicate address detection.
    NoAutoAddress,
    /// Take a setting out of the hands of the host's defaults.
    Setting(&'static Setting),
    /// Bring the link up.
    Up,
    /// Give the link an address, without duplicate address detection and without a prefix route.
    Address {
        /// The address.
        ip: IpAddr,
        /// Its prefix length.
        prefix_len: u8,
        /// Who may use it.
        reach: Reach,
    },
    /// A permanent neighbour, so that the first packet waits for nobody.
    Neighbour {
        /// Who.
        ip: IpAddr,
        /// Where.
        mac: Mac,
        /// It is one of the pod's further addresses. The kernel keeps that with it, so that what is read back from there has the
        /// pod's first addresses first.
        further: bool,
    },
    /// A route through this link, in the main table.
    Route {
        /// The destination.
        to: IpNet,
        /// The gateway, taken to be on link; none for a direct route.
        via: Option<IpAddr>,
        /// The metric; none for the kernel's default.
        metric: Option<u32>,
    },
}

/// How far an address is meant to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// A pod's own address.
    Global,
    /// A further one: the pod answers to it, and speaks with it only where it says so itself.
    Further,
    /// A link-local address.
    Link,
    /// Answers ARP for pods, and must never become the source address of the host's own packets.
    Host,
    /// An address that the pod shares with others: it answers to it, and what it begins itself never comes from there, as the
    /// answer could go to another one.
    Shared,
}

impl Change {
    /// What a link is known by. It is made with the link, and given back only to a link that lacks it: repeating it is not
    /// free, and refused on some kernels.
    pub fn is_identity(&self) -> bool {
        matches!(self, Change::Name(_) | Change::Mac(_))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Name(name) => write!(f, "name {name}"),
            Change::Mac(mac) => write!(f, "hardware address {mac}"),
            Change::Alias(text) => write!(f, "alias {text}"),
            Change::Setting(Setting { family, key, value, .. }) => write!(f, "{family} {key}={value}"),
            Change::NoAutoAddress => f.write_str("no address generation"),
            Change::Up => f.write_str("up"),
            Change::Address { ip, .. } => write!(f, "address {ip}"),
            Change::Neighbour { ip, .. } => write!(f, "neighbour {ip}"),
            Change::Route { to, .. } => write!(f, "route {to}"),
        }
    }
}

/// The whole link of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Name of the host end.
    pub host_link: IfName,
    /// Hardware address of the host end.
    pub host_mac: Mac,
    /// Name of the pod end.
    pub ifname: IfName,
    /// Hardware address of the pod end.
    pub pod_mac: Mac,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// What happens to the host end after creation, in order.
    pub host: Vec<Change>,
    /// What happens to the pod end after that, in order.
    pub pod: Vec<Change>,
}

/// The link that `lease` asks for.
pub fn wiring(lease: &Lease) -> Wiring {
    let pod_mac = lease.pod_mac.unwrap_or_else(|| lease.attachment.mac(LinkEnd::Pod));
    Wiring {
        host_link: lease.host_link.clone(),
        host_mac: lease.host_mac,
        ifname: lease.attachment.ifname.clone(),
        pod_mac,
        mtu: lease.mtu,
        host: host_changes(lease, |_| true),
        pod: pod_end(lease, pod_mac),
    }
}

/// Everything that the host end keeps for as long as the pod lives, its identity first. All but the identity may be repeated on
/// a link that has it already.
pub fn kept_host_end(lease: &Lease) -> Vec<Change> {
    let mut changes = vec![Change::Mac(lease.host_mac), Change::Name(lease.host_link.clone())];
    changes.extend(host_changes(lease, |setting| setting.kept));
    changes
}

/// Everything that the pod end keeps, as far as flock made it.
pub fn kept_pod_end(lease: &Lease) -> Vec<Change> {
    let Some(pod_mac) = lease.pod_mac else {
        // The Go flock made this link, and left neighbours and a link-local address to the kernel.
        let mut changes = pod_end(lease, lease.attachment.mac(LinkEnd::Pod));
        changes.retain(|change| match change {
            // It had the anycast addresses on `lo`.
            Change::Address { ip, .. } => lease.addresses().any(|own| own == *ip),
            other => !matches!(other, Change::Neighbour { .. }),
        });
        return changes;
    };
    let mut changes = vec![Change::Mac(pod_mac)];
    changes.extend(pod_end(lease, pod_mac));
    changes
}

fn host_changes(lease: &Lease, wanted: fn(&Setting) -> bool) -> Vec<Change> {
    let mut changes = vec![Change::Alias(alias(&lease.attachment)), Change::NoAutoAddress];
    // Before the link is up: from then on the pod's packets are judged by them.
    changes.extend(settings(lease).filter(|setting| wanted(setting)).map(Change::Setting));
    changes.push(Change::Up);
    // The gateway addresses stand on the host end itself: the permanent neighbours below make the first packet fast, and
    // these make the link heal when something in the pod drops them or asks by itself. A /128 rather than fe80::1/64:
    // the latter joins a list of equal prefix routes that every further link has to walk, and doubles the time to
    // delete a link. Proxy ARP would answer too, but only after up to 0.8 s.
    for ip in lease.primary() {
        let reach = if ip.is_ipv6() { Reach::Link } else { Reach::Host };
        changes.push(Change::Address { ip: gateway(lease, ip), prefix_len: IpNet::from(ip).prefix_len(), reach });
    }
    for ip in lease.addresses() {
        if let Some(mac) = lease.pod_mac {
            changes.push(Change::Neighbour { ip, mac, further: lease.extra.contains(&ip) });
        }
        changes.push(Change::Route { to: IpNet::from(ip), via: None, metric: None });
    }
    changes
}

/// The settings of the host end of `lease`.
pub fn settings(lease: &Lease) -> impl Iterator<Item = &'static Setting> {
    let (v4, v6) = (lease.ipv4.is_some(), lease.ipv6.is_some());
    SETTINGS.iter().filter(move |setting| {
        !setting.for_addresses
            || match setting.family {
                Family::V4 => v4,
                Family::V6 => v6,
            }
    })
}

/// The next hop of the pod's default route for the family of its address `ip`.
pub fn gateway(lease: &Lease, ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(_) => GATEWAY6.into(),
        IpAddr::V4(_) => lease.gateway4.into(),
    }
}

fn pod_end(lease: &Lease, pod_mac: Mac) -> Vec<Change> {
    let mut changes = vec![Change::NoAutoAddress, Change::Up];
    // An IPv6 host needs a link-local address (RFC 4291, section 2.1); made here, it is usable at once.
    if lease.ipv6.is_some() {
        changes.push(Change::Address { ip: pod_mac.link_local().into(), prefix_len: 64, reach: Reach::Link });
    }
    let metric = default_route_metric(&lease.attachment.ifname);
    for ip in lease.primary() {
        let gateway = gateway(lease, ip);
        let everywhere = match ip {
            IpAddr::V6(_) => IpNet::from(Ipv6Net::default()),
            IpAddr::V4(_) => IpNet::from(Ipv4Net::default()),
        };
        changes.push(Change::Address { ip, prefix_len: IpNet::from(ip).prefix_len(), reach: Reach::Global });
        changes.push(Change::Neighbour { ip: gateway, mac: lease.host_mac, further: false });
        changes.push(Change::Route { to: everywhere, via: Some(gateway), metric });
    }
    // Behind the first ones: of IPv4 addresses that are alike, the kernel speaks with the one that came first.
    for ip in &lease.extra {
        changes.push(Change::Address { ip: *ip, prefix_len: IpNet::from(*ip).prefix_len(), reach: Reach::Further });
    }
    // On the interface and not on `lo`: runtimes run the plugin `loopback` beside this one, and it fails the whole pod when it
    // finds another address there than a loopback one. And what is on the interface goes with it, so of two interfaces of a pod
    // each has its own, and a DEL takes nothing from the other.
    for ip in &lease.anycast {
        changes.push(Change::Address { ip: *ip, prefix_len: IpNet::from(*ip).prefix_len(), reach: Reach::Shared });
    }
    changes
}

/// `eth0` gets the ordinary metric. Further interfaces of the same pod get worse ones, different by name, since two
/// default routes with one metric cannot stand side by side.
fn default_route_metric(ifname: &IfName) -> Option<u32> {
    match ifname.as_str() {
        "eth0" => None,
        other => Some(2048 + fnv1a32(other.as_bytes()) % 2048),
    }
}

/// The text beside the host end, from which recovery reads whose link it is.
pub fn alias(attachment: &Attachment) -> String {
    format!("flock:{attachment}")
}

/// The reverse of [`alias`]; none for a text that flock did not write.
pub fn attachment_of_alias(alias: &str) -> Option<Attachment> {
    alias.strip_prefix("flock:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::addr::GATEWAY4;
    use crate::examples::lease;

    #[test]
    fn an_alias_leads_back_to_its_attachment() {
        let lease = lease("abc/eth0");
        assert_eq!(attachment_of_alias(&alias(&lease.attachment)), Some(lease.attachment));
        for foreign in ["", "flock", "flock:", "flock:a", "other:abc/eth0", "flock:../x/eth0"] {
            assert_eq!(attachment_of_alias(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_link_is_quiet_before_it_is_up_and_has_addresses_before_routes() {
        let wiring = wiring(&lease("abc/eth0"));
        for changes in [&wiring.host, &wiring.pod] {
            let at = |wanted: fn(&Change) -> bool| changes.iter().position(wanted).expect("present");
            assert!(at(|c| *c == Change::NoAutoAddress) < at(|c| *c == Change::Up));
            assert!(at(|c| *c == Change::Up) < at(|c| matches!(c, Change::Address { .. })));
            assert!(at(|c| matches!(c, Change::Address { .. })) < at(|c| matches!(c, Change::Route { .. })));
        }
    }

    #[test]
    fn a_family_that_the_pod_lacks_leaves_no_trace() {
        let mut single = lease("abc/eth0");
        single.ipv4 = None;
        let text = format!("{:?}", wiring(&single));
        assert!(!text.contains("169.254") && !text.contains("10.0.0.5"), "{text}");
    }

    #[test]
    fn further_addresses_are_routed_to_the_pod_shared_ones_are_not_and_gateways_stand_once() {
        let mut lease = lease("abc/eth0");
        let ips = |texts: [&str; 2]| texts.map(|text| text.parse::<IpAddr>().expect("literal")).to_vec();
        lease.extra = ips(["2001:db8:f::6", "203.0.113.6"]);
        lease.anycast = ips(["2001:db8:f::53", "203.0.113.53"]);
        let plain = wiring(&crate::examples::lease("abc/eth0"));
        let wiring = wiring(&lease);
        let added = |now: &[Change], before: &[Change]| {
            let new = now.iter().filter(|change| !before.contains(change));
            new.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            added(&wiring.host, &plain.host),
            ["neighbour 2001:db8:f::6", "route 2001:db8:f::6/128", "neighbour 203.0.113.6", "route 203.0.113.6/32",]
        );
        // Behind the first ones, with which the pod speaks.
        let all = ["2001:db8:f::6", "203.0.113.6", "2001:db8:f::53", "203.0.113.53"].map(|ip| format!("address {ip}"));
        assert_eq!(added(&wiring.pod, &plain.pod), all);
        assert!(wiring.pod.starts_with(&plain.pod) && wiring.host.starts_with(&plain.host));
        // The Go flock had the shared ones elsewhere.
        lease.pod_mac = None;
        assert_eq!(added(&kept_pod_end(&lease), &plain.pod), all[..2]);
    }

    #[test]
    fn a_second_interface_has_a_worse_default_route() {
        let metric = |key: &str| default_route_metric(&key.parse().expect("name"));
        assert_eq!(metric("eth0"), None);
        assert!(metric("net1") > Some(1024));
        assert_ne!(metric("net1"), metric("net2"));
    }

    #[test]
    fn the_hosts_own_packets_never_have_the_gateway_of_pods_for_their_source() {
        let reach = |wanted: IpAddr| {
            let mut reaches = wiring(&lease("abc/eth0")).host.into_iter().filter_map(|change| match change {
                Change::Address { ip, reach, .. } if ip == wanted => Some(reach),
                _ => None,
            });
            reaches.next().expect("present")
        };
        assert_eq!(reach(GATEWAY4.into()), Reach::Host, "the kernel takes no address of this reach for a source");
        assert_eq!(reach(GATEWAY6.into()), Reach::Link);
    }

    #[test]
    fn a_pod_is_judged_by_flocks_settings_from_its_first_packet_on() {
        let host = wiring(&lease("abc/eth0")).host;
        let up = host.iter().position(|change| *change == Change::Up).expect("present");
        let settings = host.iter().enumerate().filter(|(_, change)| matches!(change, Change::Setting(_)));
        let places: Vec<usize> = settings.map(|(place, _)| place).collect();
        assert_eq!(places.len(), SETTINGS.len());
        assert!(places.iter().all(|place| *place < up), "{host:?}");
    }

    #[test]
    fn no_packet_waits_for_a_neighbour() {
        let lease = lease("abc/eth0");
        let wiring = wiring(&lease);
        for ip in lease.addresses() {
            let known = |ip, mac| Change::Neighbour { ip, mac, further: false };
            assert!(wiring.host.contains(&known(ip, wiring.pod_mac)), "the host knows {ip}");
            assert!(wiring.pod.contains(&known(gateway(&lease, ip), lease.host_mac)), "the pod knows its gateway");
        }
    }

    #[test]
    fn what_a_later_plugin_may_set_is_made_with_the_link_and_not_put_back() {
        let sets = |changes: &[Change]| {
            changes.iter().any(|change| matches!(change, Change::Setting(setting) if setting.key == "route_localnet"))
        };
        let lease = lease("abc/eth0");
        assert!(sets(&wiring(&lease).host));
        assert!(!sets(&kept_host_end(&lease)), "portmap needs it for host ports on 127.0.0.1");
    }

    #[test]
    fn a_pod_with_ipv6_has_a_link_local_address_and_one_without_has_none() {
        let mut lease = lease("abc/eth0");
        let own = |lease: &Lease| {
            let wiring = wiring(lease);
            let ip = IpAddr::from(wiring.pod_mac.link_local());
            wiring.pod.contains(&Change::Address { ip, prefix_len: 64, reach: Reach::Link })
        };
        assert!(own(&lease));
        lease.ipv6 = None;
        assert!(!own(&lease));
    }
}
