//! Compares what is recorded with what the kernel shows, and names the repairs. Decides nothing by time and does nothing
//! itself: the same comparison serves the start of the agent and the reconcile rounds, and running it twice is as good as
//! once.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Attachment, Family, GATEWAY4, LinkEnd, Mac};
use crate::lease::{Lease, Phase};
use crate::plan::{self, Change, Setting};

/// What the kernel shows of one link, at either end of a pair, with everything that leads through it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelLink {
    /// Its index.
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
    pub own: Vec<IpAddr>,
    /// Its permanent neighbours.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

impl KernelLink {
    /// Those of `changes` that the kernel does not show.
    pub fn lacks(&self, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        changes.into_iter().filter(|change| !self.has(change)).collect()
    }

    /// The addresses that flock gave the pod behind this link, as the host end shows them: a route alone can be anybody's, but the
    /// permanent neighbour is made together with the link.
    fn shown(&self, pod_mac: Mac) -> impl Iterator<Item = IpAddr> {
        self.addresses().filter(move |ip| self.neighbours.contains(&(*ip, pod_mac)))
    }

    /// The pod behind this link has another address than its record says: the record is of an earlier lease.
    fn contradicts(&self, lease: &Lease) -> bool {
        let Some(pod_mac) = lease.pod_mac else { return false };
        let shown: Vec<IpAddr> = self.shown(pod_mac).collect();
        let differs = |recorded: Option<IpAddr>, is_of_family: fn(&IpAddr) -> bool| {
            let lost = recorded.is_none_or(|ip| {
                self.addresses().all(|other| other != ip) && !self.neighbours.contains(&(ip, pod_mac))
            });
            lost && shown.iter().any(is_of_family)
        };
        differs(lease.ipv6.map(IpAddr::V6), IpAddr::is_ipv6) || differs(lease.ipv4.map(IpAddr::V4), IpAddr::is_ipv4)
    }

    fn has(&self, change: &Change) -> bool {
        match change {
            Change::Name(name) => self.name == name.as_str(),
            Change::Mac(mac) => self.mac == Some(*mac),
            Change::Alias(text) => self.alias.as_ref() == Some(text),
            Change::Setting(setting) => self.setting(setting).is_none_or(|value| value == setting.value),
            Change::Up => self.up,
            Change::Address { ip, .. } => self.own.contains(ip),
            Change::Neighbour { ip, mac } => self.neighbours.contains(&(*ip, *mac)),
            Change::Route { to, via, .. } => self.routes.contains(&(*to, *via)),
            // Matters only when a link comes up for the first time.
            Change::NoAutoAddress => true,
        }
    }

    /// None where the kernel does not know the setting.
    fn setting(&self, setting: &Setting) -> Option<i32> {
        let settings = match setting.family {
            Family::V4 => &self.settings4,
            Family::V6 => &self.settings6,
        };
        settings.get(setting.place).copied()
    }

    /// The single addresses that lead through it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let single = |to: &IpNet| to.prefix_len() == to.max_prefix_len();
        self.routes.iter().filter(move |(to, via)| single(to) && via.is_none()).map(|(to, _)| to.addr())
    }

    /// How surely this is the link of `lease`: 0 for no sign of it. Each sign is enough, since whoever changes one of them
    /// still has a pod behind the link. The index is the one that nobody can change; but a record may come to a host, or to a
    /// namespace, where that index is somebody else's, so the link must bear something of the lease with it.
    fn signs_of(&self, lease: &Lease) -> u8 {
        let alias = self.alias.as_deref().and_then(plan::attachment_of_alias).as_ref() == Some(&lease.attachment);
        let mac = self.mac == Some(lease.host_mac);
        let name = self.name == lease.host_link.as_str();
        let bears = || {
            lease
                .addresses()
                .any(|ip| self.own.contains(&plan::gateway(lease, ip)) || self.addresses().any(|routed| routed == ip))
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

/// The link of `lease` among `links`, whatever somebody has made of its name, its hardware address or its alias.
pub fn link_of<'a>(lease: &Lease, links: impl IntoIterator<Item = &'a KernelLink>) -> Option<&'a KernelLink> {
    let signs = links.into_iter().map(|link| (link.signs_of(lease), link)).filter(|(signs, _)| *signs > 0);
    signs.max_by_key(|(signs, _)| *signs).map(|(_, link)| link)
}

/// What the host end of `lease` lacks, by everything that the plan says of it.
pub fn host_end_lacks(lease: &Lease, link: &KernelLink) -> Vec<Change> {
    link.lacks(plan::host_identity(lease).into_iter().chain(plan::host_end(lease)))
}

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// An ADD did not get to its end: take it back, as DEL does.
    Undo(Attachment),
    /// Only the record of the end of an ADD is missing: the pod works, and may have been told so. Record that.
    Commit(Attachment),
    /// The record is of an earlier lease of this attachment, whose addresses it has no more: end that one, without touching the
    /// link. What stands is adopted.
    Forget(Attachment),
    /// The link is gone and with it the pod's namespace: the addresses are free.
    Release(Attachment),
    /// The link stands and its host end lacks something: carry out the host end's changes again.
    Rewire {
        /// Whose link.
        attachment: Attachment,
        /// Its index.
        index: u32,
        /// What it lacks.
        lacks: Vec<Change>,
    },
    /// The link stands, and nothing is recorded of it: the state was lost. Record it.
    Adopt(Box<Lease>),
    /// The link stands without record and without addresses: nobody can use it. Remove it.
    Remove {
        /// Whose link it was.
        attachment: Attachment,
        /// Its index.
        index: u32,
    },
    /// A link without record leads to an address that is recorded for somebody else. For a person to see.
    Conflict {
        /// Whose link it says it is.
        attachment: Attachment,
        /// The contested address.
        ip: IpAddr,
        /// Who holds it by record.
        holder: Attachment,
    },
}

/// What sets record and kernel apart, in the order in which it is to be put right: ends before beginnings, as the former
/// may set addresses free that the latter have. Attachments that are `busy` have a request in service and are left to it. `began` is when this
/// agent began and `now` is for leases that are made anew, both in milliseconds of the boot clock.
///
/// The kernel is believed before the record, of which the newest lines, or all but the oldest, can have been lost without
/// a trace: no pod whose link stands loses it or its addresses.
pub fn repairs<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    links: &[KernelLink],
    busy: impl Fn(&Attachment) -> bool,
    began: u64,
    now: u64,
) -> Vec<Repair> {
    let index = Index::new(links);
    let mut known: BTreeSet<&Attachment> = BTreeSet::new();
    let mut holders: BTreeMap<IpAddr, &Attachment> = BTreeMap::new();
    let mut ends = Vec::new();
    let mut repairs = Vec::new();
    // Links that stand without the record that they should have.
    let mut unrecorded: Vec<Lease> = Vec::new();
    for lease in leases {
        known.insert(&lease.attachment);
        let attachment = lease.attachment.clone();
        let link = link_of(lease, index.candidates(lease));
        let is_busy = busy(&attachment);
        match (lease.phase, link) {
            _ if is_busy => {}
            (_, Some(link)) if link.contradicts(lease) => {
                let (network, pod) = (lease.network.clone(), lease.pod.clone());
                let shown = adopted(attachment.clone(), link, now);
                unrecorded.extend(shown.map(|shown| Lease { network, pod, ..shown }));
                ends.push(Repair::Forget(attachment));
                continue;
            }
            (Phase::Pending, Some(link))
                if lease.since < began && link.carrier && link.lacks(plan::host_end(lease)).is_empty() =>
            {
                repairs.push(Repair::Commit(attachment));
            }
            (Phase::Pending, _) => {
                ends.push(Repair::Undo(attachment));
                continue;
            }
            (Phase::Committed, None) => {
                ends.push(Repair::Release(attachment));
                continue;
            }
            (Phase::Committed, Some(link)) => {
                let lacks = host_end_lacks(lease, link);
                if !lacks.is_empty() {
                    repairs.push(Repair::Rewire { attachment, index: link.index, lacks });
                }
            }
        }
        holders.extend(lease.addresses().map(|ip| (ip, &lease.attachment)));
    }
    for link in links {
        let Some(attachment) = link.alias.as_deref().and_then(plan::attachment_of_alias) else { continue };
        // Anybody can write a text beside a link. The hardware address was given when flock made it.
        if link.mac != Some(attachment.mac(LinkEnd::Host)) || known.contains(&attachment) || busy(&attachment) {
            continue;
        }
        match adopted(attachment.clone(), link, now) {
            Some(lease) => unrecorded.push(lease),
            None => repairs.push(Repair::Remove { attachment, index: link.index }),
        }
    }
    for lease in unrecorded {
        let contested = lease.addresses().find_map(|ip| holders.get(&ip).map(|holder| (ip, (*holder).clone())));
        repairs.push(match contested {
            Some((ip, holder)) => Repair::Conflict { attachment: lease.attachment, ip, holder },
            None => Repair::Adopt(Box::new(lease)),
        });
    }
    // Hash order must not show in logs.
    ends.sort_by_cached_key(|repair| format!("{repair:?}"));
    repairs.sort_by_cached_key(|repair| format!("{repair:?}"));
    ends.extend(repairs);
    ends
}

/// The links by each sign that a lease could know them by, so that a node with many pods does not compare each with each.
struct Index<'a> {
    by_index: BTreeMap<u32, &'a KernelLink>,
    by_mac: BTreeMap<Mac, Vec<&'a KernelLink>>,
    by_alias: BTreeMap<Attachment, Vec<&'a KernelLink>>,
}

impl<'a> Index<'a> {
    fn new(links: &'a [KernelLink]) -> Index<'a> {
        let mut index = Index { by_index: BTreeMap::new(), by_mac: BTreeMap::new(), by_alias: BTreeMap::new() };
        for link in links {
            index.by_index.insert(link.index, link);
            if let Some(mac) = link.mac {
                index.by_mac.entry(mac).or_default().push(link);
            }
            if let Some(attachment) = link.alias.as_deref().and_then(plan::attachment_of_alias) {
                index.by_alias.entry(attachment).or_default().push(link);
            }
        }
        index
    }

    fn candidates(&self, lease: &Lease) -> impl Iterator<Item = &'a KernelLink> {
        let by_index = lease.host_index.and_then(|index| self.by_index.get(&index));
        let by_mac = self.by_mac.get(&lease.host_mac).into_iter().flatten();
        let by_alias = self.by_alias.get(&lease.attachment).into_iter().flatten();
        by_index.into_iter().chain(by_mac).chain(by_alias).copied()
    }
}

/// None for a link that leads to no address.
fn adopted(attachment: Attachment, link: &KernelLink, now: u64) -> Option<Lease> {
    let pod_mac = attachment.mac(LinkEnd::Pod);
    // What flock gave comes before routes that may be anybody's.
    let addresses = || link.shown(pod_mac).chain(link.addresses());
    let v6 = addresses().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    let v4 = addresses().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
    let gateway4 = link.own.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
    (v6.is_some() || v4.is_some()).then_some(())?;
    Some(Lease {
        phase: Phase::Committed,
        network: "flock".into(),
        netns: String::new(),
        // One that somebody has renamed to what flock would not take for a name gets its own name back.
        host_link: link.name.parse().unwrap_or_else(|_| attachment.host_link(0)),
        host_mac: link.mac?,
        pod_mac: Some(pod_mac),
        mtu: link.mtu,
        ipv6: v6,
        ipv4: v4,
        gateway4: gateway4.unwrap_or(GATEWAY4),
        host_index: Some(link.index),
        pod: None,
        since: now,
        call: None,
        attachment,
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::addr::GATEWAY6;
    use crate::plan::SETTINGS;
    use crate::plan::tests::lease;

    /// The host end of the link of `lease` as an ADD leaves it.
    fn link_of(lease: &Lease) -> KernelLink {
        let mut link = KernelLink {
            index: 7,
            name: lease.host_link.to_string(),
            mac: Some(lease.host_mac),
            mtu: lease.mtu,
            alias: Some(plan::alias(&lease.attachment)),
            up: true,
            carrier: true,
            settings4: vec![-1; 33],
            settings6: vec![-1; 60],
            routes: lease.addresses().map(|ip| (ip.into(), None)).collect(),
            own: vec![GATEWAY6.into(), GATEWAY4.into()],
            neighbours: lease.addresses().filter_map(|ip| Some((ip, lease.pod_mac?))).collect(),
        };
        for setting in &SETTINGS {
            settings_of(&mut link, setting.family)[setting.place] = setting.value;
        }
        link
    }

    fn settings_of(link: &mut KernelLink, family: Family) -> &mut Vec<i32> {
        match family {
            Family::V4 => &mut link.settings4,
            Family::V6 => &mut link.settings6,
        }
    }

    fn found(leases: &[Lease], links: &[KernelLink]) -> Vec<Repair> {
        repairs(leases.iter(), links, |_| false, 100, 1)
    }

    #[test]
    fn a_node_in_order_needs_nothing() {
        let lease = lease("abc/eth0");
        assert_eq!(found(std::slice::from_ref(&lease), &[link_of(&lease)]), []);
    }

    #[test]
    fn an_add_that_was_cut_off_is_undone_unless_only_its_last_line_is_missing() {
        let mut lease = lease("abc/eth0");
        lease.phase = Phase::Pending;
        let undo = [Repair::Undo(lease.attachment.clone())];
        assert_eq!(found(std::slice::from_ref(&lease), &[]), undo);
        let halves: [fn(&mut KernelLink); 6] = [
            |link| link.carrier = false,
            |link| link.up = false,
            |link| link.alias = None,
            |link| link.routes.truncate(1),
            |link| link.own.clear(),
            |link| link.neighbours.clear(),
        ];
        for half in halves {
            let mut link = link_of(&lease);
            half(&mut link);
            assert_eq!(found(std::slice::from_ref(&lease), &[link]), undo);
        }
        let commit = [Repair::Commit(lease.attachment.clone())];
        assert_eq!(found(std::slice::from_ref(&lease), &[link_of(&lease)]), commit);
        // What this agent itself has not brought to its end has failed, and its caller knows.
        lease.since = 100;
        assert_eq!(found(std::slice::from_ref(&lease), &[link_of(&lease)]), undo);
    }

    #[test]
    fn a_record_of_an_earlier_lease_gives_way_to_what_the_kernel_shows() {
        let stands = lease("abc/eth0");
        let older = |change: fn(&mut Lease)| {
            let mut older = lease("abc/eth0");
            older.network = "pods".into();
            change(&mut older);
            older
        };
        let check = |record: &Lease| {
            let repairs = found(std::slice::from_ref(record), &[link_of(&stands)]);
            let [Repair::Forget(forgotten), Repair::Adopt(adopted)] = repairs.as_slice() else { panic!("{repairs:?}") };
            assert_eq!(*forgotten, stands.attachment);
            assert_eq!((adopted.ipv6, adopted.ipv4, adopted.network.as_str()), (stands.ipv6, stands.ipv4, "pods"));
        };
        check(&older(|lease| lease.ipv4 = "10.0.0.9".parse().ok()));
        check(&older(|lease| lease.ipv6 = "2001:db8::9".parse().ok()));
        check(&older(|lease| lease.ipv4 = None));
        // Somebody's route is no address of the pod, and a pod that lost its own route gets it back.
        let mut link = link_of(&stands);
        link.routes.retain(|(to, _)| to.addr().is_ipv6());
        link.routes.push(("10.0.0.77/32".parse().expect("literal"), None));
        let repairs = found(std::slice::from_ref(&stands), &[link]);
        assert!(matches!(repairs.as_slice(), [Repair::Rewire { .. }]), "{repairs:?}");
    }

    #[test]
    fn an_address_of_a_lease_that_ended_unrecorded_stays_with_the_pod_that_has_it_now() {
        let mut ended = [lease("old/eth0"), lease("cut-off/eth0")];
        ended[1].phase = Phase::Pending;
        let stands = lease("new/eth0");
        for ended in ended {
            let repairs = found(std::slice::from_ref(&ended), &[link_of(&stands)]);
            let [Repair::Release(first) | Repair::Undo(first), Repair::Adopt(adopted)] = repairs.as_slice() else {
                panic!("{repairs:?}")
            };
            assert_eq!((first, &adopted.attachment), (&ended.attachment, &stands.attachment));
        }
    }

    #[test]
    fn a_pod_whose_namespace_vanished_gives_its_addresses_back() {
        let lease = lease("abc/eth0");
        let release = [Repair::Release(lease.attachment.clone())];
        assert_eq!(found(std::slice::from_ref(&lease), &[]), release);
        let mut foreign = link_of(&lease);
        (foreign.mac, foreign.alias) = (Some(Mac([2, 9, 9, 9, 9, 9])), None);
        assert_eq!(found(&[lease], &[foreign]), release, "a link of that name with another hardware address is not it");
    }

    #[test]
    fn whatever_the_host_end_has_lost_is_named() {
        let lease = lease("abc/eth0");
        let check = |damage: fn(&mut KernelLink), expected: &str| {
            let mut link = link_of(&lease);
            damage(&mut link);
            let repairs = found(std::slice::from_ref(&lease), &[link]);
            let [Repair::Rewire { lacks, .. }] = repairs.as_slice() else { panic!("{repairs:?}") };
            assert_eq!(lacks.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        };
        check(|link| link.alias = None, "alias flock:abc/eth0");
        check(|link| link.up = false, "up");
        check(|link| link.routes.truncate(1), "route 10.0.0.5/32");
        check(|link| link.routes.retain(|(to, _)| to.addr().is_ipv4()), "route 2001:db8::5/128");
        check(|link| link.routes[1].1 = Some(GATEWAY4.into()), "route 10.0.0.5/32");
        check(|link| link.mac = Some(Mac([2, 9, 9, 9, 9, 9])), "hardware address ba:79:2b:9b:22:d8");
        check(|link| link.name = "x".into(), "name flock1a47e90b");
        check(|link| link.own.truncate(1), "address 169.254.1.1");
        check(|link| link.own.retain(IpAddr::is_ipv4), "address fe80::1");
        check(|link| link.neighbours.truncate(1), "neighbour 10.0.0.5");
        check(|link| link.neighbours[0].1 = Mac([2, 9, 9, 9, 9, 9]), "neighbour 2001:db8::5");
    }

    #[test]
    fn every_setting_that_a_default_of_the_host_could_decide_is_compared() {
        let both = lease("abc/eth0");
        for setting in SETTINGS.iter().filter(|setting| setting.kept) {
            let mut link = link_of(&both);
            settings_of(&mut link, setting.family)[setting.place] += 1;
            let repairs = found(std::slice::from_ref(&both), &[link]);
            let [Repair::Rewire { lacks, .. }] = repairs.as_slice() else { panic!("{setting:?}: {repairs:?}") };
            assert_eq!(lacks, &[Change::Setting(setting)]);
        }
        // What a later plugin of the chain may set is its own.
        for setting in SETTINGS.iter().filter(|setting| !setting.kept) {
            let mut link = link_of(&both);
            settings_of(&mut link, setting.family)[setting.place] += 1;
            assert_eq!(found(std::slice::from_ref(&both), &[link]), [], "{setting:?}");
        }
        // An older kernel that does not know the last ones, and one without IPv6.
        let mut old = link_of(&both);
        old.settings4.truncate(10);
        old.settings6.clear();
        assert_eq!(found(&[both], &[old]), []);
    }

    #[test]
    fn a_link_is_its_pods_whatever_somebody_has_changed_of_it() {
        let mut mine = lease("abc/eth0");
        mine.host_index = Some(7);
        let other = link_of(&lease("def/eth0"));
        let damages: [fn(&mut KernelLink); 3] = [
            |link| link.name = "renamed".into(),
            |link| link.mac = None,
            |link| link.alias = Some("somebody's".into()),
        ];
        for bits in 0..8 {
            let mut link = link_of(&mine);
            let applied = damages.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
            applied.for_each(|(_, damage)| damage(&mut link));
            let repairs = repairs([mine.clone()].iter(), &[other.clone(), link], |_| false, 100, 1);
            assert!(!repairs.contains(&Repair::Release(mine.attachment.clone())), "{bits:03b}: {repairs:?}");
        }
        // A link of its index that bears nothing of the lease is of another namespace, or of another time.
        let other = KernelLink { index: 7, name: "uplink".into(), ..KernelLink::default() };
        assert_eq!(found(&[mine.clone()], &[other]), [Repair::Release(mine.attachment.clone())]);
        // A link of its name alone is somebody else's.
        let named = KernelLink { name: mine.host_link.to_string(), index: 8, ..KernelLink::default() };
        assert_eq!(found(&[mine.clone()], &[named]), [Repair::Release(mine.attachment)]);
    }

    #[test]
    fn lost_state_is_read_back_from_the_kernel() {
        let lease = lease("abc/eth0");
        let repairs = found(&[], &[link_of(&lease)]);
        let [Repair::Adopt(adopted)] = repairs.as_slice() else { panic!("{repairs:?}") };
        assert_eq!(adopted.host_index, Some(7));
        assert_eq!((adopted.ipv6, adopted.ipv4), (lease.ipv6, lease.ipv4));
        assert_eq!(found(&[(**adopted).clone()], &[link_of(&lease)]), [], "and then all is in order");
        let mut bare = link_of(&lease);
        bare.routes.clear();
        assert_eq!(found(&[], &[bare]), [Repair::Remove { attachment: lease.attachment, index: 7 }]);
    }

    #[test]
    fn a_link_that_only_says_that_it_is_ours_is_left_alone() {
        let mut link = link_of(&lease("abc/eth0"));
        link.mac = Some(Mac([2, 9, 9, 9, 9, 9]));
        assert_eq!(found(&[], &[link]), []);
    }

    #[test]
    fn an_address_of_two_links_is_reported_and_not_given_to_the_second() {
        let mine = lease("abc/eth0");
        let other = lease("def/eth0");
        let repairs = found(std::slice::from_ref(&mine), &[link_of(&mine), link_of(&other)]);
        assert!(
            matches!(repairs.as_slice(), [Repair::Conflict { holder, .. }] if *holder == mine.attachment),
            "{repairs:?}"
        );
    }

    #[test]
    fn requests_in_service_are_left_to_themselves() {
        let lease = lease("abc/eth0");
        let attachment = lease.attachment.clone();
        assert_eq!(repairs([lease].iter(), &[], |busy| *busy == attachment, 100, 1), []);
    }
}
