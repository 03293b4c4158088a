//! What the kernel shows of one end of a pod's link, and what that end lacks of what the plan says.
//!
//! The one comparison of the start, the rounds, repairs and CHECK. Values that somebody else read; it must not decide what is
//! done about a difference.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, Mac};
use crate::lease::Lease;
use crate::plan::{self, Change, Setting};

/// One end of a pair of links, host's or pod's, with everything that leads through it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its index in its own namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// The text beside it.
    pub alias: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// Both ends are up.
    pub carrier: bool,
    /// Its IPv4 settings, each at its [`Setting::place`]; empty where the kernel has none.
    pub settings4: Vec<i32>,
    /// Its IPv6 settings; empty where the kernel, or this link, is without IPv6.
    pub settings6: Vec<i32>,
    /// The routes through it, with their gateways.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
    /// The addresses that it bears itself and that can be used.
    pub addresses: Vec<IpAddr>,
    /// Its permanent neighbours.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// Those of its permanent neighbours that were made as further addresses of a pod.
    pub further: Vec<IpAddr>,
    /// Addresses that are announced for the pod behind it without being its own.
    pub shared: Vec<IpAddr>,
}

impl Observed {
    /// Those of `changes` that the kernel does not show, in their order.
    pub fn lacks<'a>(&self, changes: &'a [Change]) -> Vec<&'a Change> {
        changes.iter().filter(|change| !self.has(change)).collect()
    }

    fn has(&self, change: &Change) -> bool {
        match change {
            Change::Name(name) => self.name == name.as_str(),
            Change::Mac(mac) => self.mac == Some(*mac),
            Change::Alias(text) => self.alias.as_ref() == Some(text),
            Change::Setting(setting) => self.setting(setting).is_none_or(|value| value == setting.value),
            Change::Up => self.up,
            Change::Address { ip, .. } => self.addresses.contains(ip),
            Change::Neighbour { ip, mac, .. } => self.neighbours.contains(&(*ip, *mac)),
            Change::Route { to, via, .. } => self.routes.contains(&(*to, *via)) || via.is_none() && self.leads_on(to),
            // Matters only when a link comes up for the first time.
            Change::NoAutoAddress => true,
        }
    }

    /// Whether it leads to `to` by way of another address that leads through it directly: to the same pod, as the Go flock's
    /// routes of further addresses do.
    fn leads_on(&self, to: &IpNet) -> bool {
        let vias = self.routes.iter().filter(|(other, _)| other == to).filter_map(|(_, via)| *via);
        vias.into_iter().any(|via| self.routed().any(|routed| routed == via))
    }

    /// None where the kernel does not know the setting.
    fn setting(&self, setting: &Setting) -> Option<i32> {
        let settings = match setting.family {
            Family::V4 => &self.settings4,
            Family::V6 => &self.settings6,
        };
        settings.get(setting.place).copied()
    }

    /// The single addresses that lead through it without a gateway.
    pub fn routed(&self) -> impl Iterator<Item = IpAddr> {
        let single = |to: &IpNet| to.prefix_len() == to.max_prefix_len();
        self.routes.iter().filter(move |(to, via)| single(to) && via.is_none()).map(|(to, _)| to.addr())
    }

    /// The addresses that flock gave the pod of hardware address `pod_mac`, as its host end shows them: a route alone can be
    /// anybody's, but the permanent neighbour is made together with the link.
    pub fn given(&self, pod_mac: Mac) -> impl Iterator<Item = IpAddr> {
        self.routed().filter(move |ip| self.neighbours.contains(&(*ip, pod_mac)))
    }

    /// How surely this is the host end of `lease`: 0 for no sign of it. Each sign is enough, since whoever changes one of them
    /// still has a pod behind the link. The index is the one that nobody can change; but a record may come to a host, or to a
    /// namespace, where that index is somebody else's, so the link must bear something of the lease with it.
    fn signs_of(&self, lease: &Lease) -> u8 {
        let alias = self.alias.as_deref().and_then(plan::attachment_of_alias).as_ref() == Some(&lease.attachment);
        let mac = self.mac == Some(lease.host_mac);
        let name = self.name == lease.host_link.as_str();
        let bears = || {
            lease.addresses().any(|ip| {
                self.addresses.contains(&plan::gateway(lease, ip)) || self.routed().any(|routed| routed == ip)
            })
        };
        let index = lease.host_index == Some(self.index) && (alias || mac || name || bears());
        // The name alone is no sign: it is what somebody else's link would have in common with ours.
        if index || alias || mac {
            u8::from(index) * 8 + u8::from(alias) * 4 + u8::from(mac) * 2 + u8::from(name)
        } else {
            0
        }
    }
}

/// The host end of `lease` among `links`, whatever somebody has made of its name, its hardware address or its alias.
pub fn host_end_of<'a>(lease: &Lease, links: impl IntoIterator<Item = &'a Observed>) -> Option<&'a Observed> {
    let signs = links.into_iter().map(|link| (link.signs_of(lease), link)).filter(|(signs, _)| *signs > 0);
    signs.max_by_key(|(signs, _)| *signs).map(|(_, link)| link)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::addr::{GATEWAY4, GATEWAY6, LinkEnd};
    use crate::examples::{lease, link_of};
    use crate::plan::{SETTINGS, kept_host_end, kept_pod_end};

    fn settings_of(link: &mut Observed, family: Family) -> &mut Vec<i32> {
        match family {
            Family::V4 => &mut link.settings4,
            Family::V6 => &mut link.settings6,
        }
    }

    fn pod_end_of(lease: &Lease) -> Observed {
        let pod_mac = lease.attachment.mac(LinkEnd::Pod);
        let gateways = [GATEWAY6.into(), GATEWAY4.into()];
        let everywhere = |net: &str| net.parse().expect("a prefix");
        Observed {
            mac: Some(pod_mac),
            up: true,
            addresses: lease.addresses().chain([pod_mac.link_local().into()]).collect(),
            routes: vec![(everywhere("::/0"), Some(gateways[0])), (everywhere("0.0.0.0/0"), Some(gateways[1]))],
            neighbours: gateways.map(|ip| (ip, lease.host_mac)).into(),
            ..Observed::default()
        }
    }

    #[track_caller]
    fn check(mut end: Observed, wanted: &[Change], damage: fn(&mut Observed), expected: &[&str]) {
        damage(&mut end);
        assert_eq!(end.lacks(wanted).iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn whatever_the_host_end_has_lost_is_named() {
        let lease = lease("abc/eth0");
        let lacks = |damage: fn(&mut Observed), expected: &str| {
            check(link_of(&lease), &kept_host_end(&lease), damage, &[expected]);
        };
        lacks(|link| link.alias = None, "alias flock:abc/eth0");
        lacks(|link| link.up = false, "up");
        lacks(|link| link.routes.truncate(1), "route 10.0.0.5/32");
        lacks(|link| link.routes.retain(|(to, _)| to.addr().is_ipv4()), "route 2001:db8::5/128");
        lacks(|link| link.routes[1].1 = Some(GATEWAY4.into()), "route 10.0.0.5/32");
        lacks(|link| link.mac = Some(Mac([2, 9, 9, 9, 9, 9])), "hardware address ba:79:2b:9b:22:d8");
        lacks(|link| link.name = "x".into(), "name flock1a47e90b");
        lacks(|link| link.addresses.truncate(1), "address 169.254.1.1");
        lacks(|link| link.addresses.retain(IpAddr::is_ipv4), "address fe80::1");
        lacks(|link| link.neighbours.truncate(1), "neighbour 10.0.0.5");
        lacks(|link| link.neighbours[0].1 = Mac([2, 9, 9, 9, 9, 9]), "neighbour 2001:db8::5");
    }

    #[test]
    fn a_route_by_way_of_another_address_of_the_pod_is_as_good() {
        let mut lease = lease("abc/eth0");
        lease.extra = vec!["203.0.113.6".parse().expect("literal")];
        let wanted = kept_host_end(&lease);
        check(link_of(&lease), &wanted, |link| link.routes[2].1 = Some(link.routes[1].0.addr()), &[]);
        check(link_of(&lease), &wanted, |link| link.routes[2].1 = Some(GATEWAY4.into()), &["route 203.0.113.6/32"]);
    }

    #[test]
    fn whatever_the_pod_end_has_lost_is_named() {
        let lease = lease("abc/eth0");
        let wanted = kept_pod_end(&lease);
        let lacks = |damage: fn(&mut Observed), expected: &str| check(pod_end_of(&lease), &wanted, damage, &[expected]);
        check(pod_end_of(&lease), &wanted, |_| {}, &[]);
        lacks(|end| end.up = false, "up");
        lacks(|end| end.addresses.retain(|ip| ip.to_string() != "10.0.0.5"), "address 10.0.0.5");
        lacks(|end| end.addresses.truncate(2), "address fe80::7485:eaff:fe53:c5f4");
        lacks(|end| end.routes.truncate(1), "route 0.0.0.0/0");
        lacks(|end| end.routes[0].1 = None, "route ::/0");
        lacks(|end| end.neighbours.truncate(1), "neighbour 169.254.1.1");
        lacks(|end| end.mac = Some(Mac([2, 9, 9, 9, 9, 9])), "hardware address 76:85:ea:53:c5:f4");
    }

    #[test]
    fn of_a_link_of_the_go_flock_only_what_it_made_is_asked_for() {
        let mut lease = lease("abc/eth0");
        lease.pod_mac = None;
        let bare = |end: &mut Observed| {
            (end.mac, end.neighbours) = (None, vec![]);
            end.addresses.truncate(2);
        };
        check(pod_end_of(&lease), &kept_pod_end(&lease), bare, &[]);
        check(
            pod_end_of(&lease),
            &kept_pod_end(&lease),
            |end| end.addresses.clear(),
            &["address 2001:db8::5", "address 10.0.0.5"],
        );
    }

    #[test]
    fn every_setting_that_a_default_of_the_host_could_decide_is_compared() {
        let both = lease("abc/eth0");
        let wanted = kept_host_end(&both);
        for setting in &SETTINGS {
            let mut link = link_of(&both);
            settings_of(&mut link, setting.family)[setting.place] += 1;
            // What a later plugin of the chain may set is its own.
            let expected: &[&Change] = if setting.kept { &[&Change::Setting(setting)] } else { &[] };
            assert_eq!(link.lacks(&wanted), expected, "{setting:?}");
        }
        // An older kernel that does not know the last ones, and one without IPv6.
        let mut old = link_of(&both);
        old.settings4.truncate(10);
        old.settings6.clear();
        assert_eq!(old.lacks(&wanted), [] as [&Change; 0]);
    }
}
