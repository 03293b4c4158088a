//! Compares what is recorded with what the kernel shows, and names the repairs. Decides nothing by time and does nothing
//! itself: the same comparison serves the start of the agent and the reconcile rounds, and running it twice is as good as
//! once.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::addr::{Attachment, GATEWAY4, LinkEnd, Mac};
use crate::lease::{Lease, Phase};
use crate::observed::{Observed, host_end_of};
use crate::plan::{self, Change};

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// An ADD did not get to its end: take it back, as DEL does.
    Undo(Attachment),
    /// Only the record of the end of an ADD is missing: the pod works, and may have been told so. Record that.
    Commit(Attachment),
    /// The link shows what its record does not have, as the record is of an earlier lease or was written by an older flock: record
    /// this in its place, in one piece.
    Amend(Box<Lease>),
    /// This record is in the way of others, since pods have exchanged their addresses unrecorded: end it, without touching the
    /// link. What stands is adopted as soon as its addresses are free.
    Forget(Attachment),
    /// The link is gone and with it the pod's namespace: the addresses are free.
    Release(Attachment),
    /// The link stands and its host end lacks something: carry out the host end's changes again.
    Rewire(Attachment),
    /// The link stands, and nothing is recorded of it: the state was lost. Record it.
    Adopt(Box<Lease>),
    /// The link stands without record and without addresses: nobody can use it. Remove it.
    Remove(Attachment),
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

impl Repair {
    /// Whether it is about this attachment.
    pub fn is_about(&self, attachment: &Attachment) -> bool {
        match self {
            Repair::Undo(of)
            | Repair::Commit(of)
            | Repair::Forget(of)
            | Repair::Release(of)
            | Repair::Rewire(of)
            | Repair::Remove(of) => of == attachment,
            Repair::Amend(lease) | Repair::Adopt(lease) => lease.attachment == *attachment,
            Repair::Conflict { attachment: of, holder, .. } => of == attachment || holder == attachment,
        }
    }
}

/// What sets record and kernel apart, in the order in which it is to be put right: ends before beginnings, as the former may
/// set addresses free that the latter have. Attachments that are `busy` have a request in service and are left to it. `began`
/// is when this agent began and `now` is for leases that are made anew, both in milliseconds of the boot clock.
///
/// The kernel is believed before the record, of which the newest lines, or all but the oldest, can have been lost without
/// a trace: no pod whose link stands loses it or its addresses.
pub fn repairs<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    links: &[Observed],
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
    // Records that the kernel contradicts, each with what it shows.
    let mut doubted: Vec<(&Lease, Lease)> = Vec::new();
    for lease in leases {
        known.insert(&lease.attachment);
        let attachment = lease.attachment.clone();
        let link = host_end_of(lease, index.candidates(lease));
        let is_busy = busy(&attachment);
        match (lease.phase, link) {
            _ if is_busy => {}
            (_, Some(link)) if contradicts(link, lease) => {
                if let Some(shown) = successor(lease, link, now) {
                    doubted.push((lease, shown));
                    continue;
                }
            }
            (Phase::Pending, Some(link)) if lease.since < began && link.carrier && is_made(link, lease) => {
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
                if !link.lacks(&plan::kept_host_end(lease)).is_empty() {
                    repairs.push(Repair::Rewire(attachment));
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
            None => repairs.push(Repair::Remove(attachment)),
        }
    }
    // What cannot be adopted is not forgotten either: a pod whose link stands never loses its record. What stays recorded may be
    // in the way of others.
    while let Some(at) = doubted.iter().position(|(_, shown)| contested(shown, &holders).is_some()) {
        let (lease, shown) = doubted.swap_remove(at);
        repairs.extend(contested(&shown, &holders));
        holders.extend(lease.addresses().map(|ip| (ip, &lease.attachment)));
    }
    for lease in unrecorded {
        repairs.push(contested(&lease, &holders).unwrap_or_else(|| Repair::Adopt(Box::new(lease))));
    }
    // Hash order must not show in logs.
    ends.sort_by_cached_key(|repair| format!("{repair:?}"));
    repairs.sort_by_cached_key(|repair| format!("{repair:?}"));
    ends.extend(amendments(doubted));
    ends.extend(repairs);
    ends
}

/// How records give way to what the kernel shows: each in one piece, so that no pod is without record for a moment, and behind
/// those of which it takes an address over.
fn amendments(mut doubted: Vec<(&Lease, Lease)>) -> Vec<Repair> {
    doubted.sort_by(|(one, _), (other, _)| one.attachment.cmp(&other.attachment));
    let mut recorded: BTreeMap<IpAddr, &Attachment> = BTreeMap::new();
    recorded.extend(doubted.iter().flat_map(|(lease, _)| lease.addresses().map(|ip| (ip, &lease.attachment))));
    let mut doubted: VecDeque<(Option<&Lease>, Lease)> =
        doubted.into_iter().map(|(lease, shown)| (Some(lease), shown)).collect();
    let mut amendments = Vec::new();
    while !doubted.is_empty() {
        let is_free = |shown: &Lease| {
            shown.addresses().all(|ip| recorded.get(&ip).is_none_or(|holder| **holder == shown.attachment))
        };
        let first = doubted.iter().position(|(_, shown)| is_free(shown)).and_then(|at| doubted.remove(at));
        let gives_way = match first {
            Some((None, shown)) => {
                amendments.push(Repair::Adopt(Box::new(shown)));
                continue;
            }
            Some((Some(lease), shown)) => {
                amendments.push(Repair::Amend(Box::new(shown)));
                lease
            }
            // Each waits for another one.
            None => {
                let Some(lease) = doubted.iter_mut().find_map(|(lease, _)| lease.take()) else { break };
                amendments.push(Repair::Forget(lease.attachment.clone()));
                lease
            }
        };
        recorded.retain(|_, holder| **holder != gives_way.attachment);
    }
    amendments
}

/// Why `lease` cannot be adopted: the first of its addresses that is recorded for somebody else. None if it can.
fn contested(lease: &Lease, holders: &BTreeMap<IpAddr, &Attachment>) -> Option<Repair> {
    let (ip, holder) = lease.addresses().find_map(|ip| Some((ip, *holders.get(&ip)?)))?;
    Some(Repair::Conflict { attachment: lease.attachment.clone(), ip, holder: holder.clone() })
}

/// What a lease could know its link by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Index(u32),
    Mac(Mac),
    Alias(Attachment),
}

/// The links by each sign, so that a node with many pods does not compare each with each.
struct Index<'a>(BTreeMap<Sign, Vec<&'a Observed>>);

impl<'a> Index<'a> {
    fn new(links: &'a [Observed]) -> Index<'a> {
        let mut index: BTreeMap<Sign, Vec<&Observed>> = BTreeMap::new();
        for link in links {
            let alias = link.alias.as_deref().and_then(plan::attachment_of_alias).map(Sign::Alias);
            for sign in [Some(Sign::Index(link.index)), link.mac.map(Sign::Mac), alias].into_iter().flatten() {
                index.entry(sign).or_default().push(link);
            }
        }
        Index(index)
    }

    fn candidates(&self, lease: &Lease) -> impl Iterator<Item = &'a Observed> {
        let index = lease.host_index.map(Sign::Index);
        let signs = [index, Some(Sign::Mac(lease.host_mac)), Some(Sign::Alias(lease.attachment.clone()))];
        signs.into_iter().flatten().filter_map(|sign| self.0.get(&sign)).flatten().copied()
    }
}

/// An ADD came to its end at this host end. Who renamed it since did not undo that.
fn is_made(link: &Observed, lease: &Lease) -> bool {
    link.lacks(&plan::kept_host_end(lease)).into_iter().all(Change::is_identity)
}

/// The pod behind this link has an address of which its record does not know.
fn contradicts(link: &Observed, lease: &Lease) -> bool {
    is_of_another(link, lease)
        || !unrecorded_extra(link, lease).is_empty()
        || lease.phase == Phase::Committed && !unrecorded_anycast(link, lease).is_empty()
}

/// The record is of an earlier lease: the pod has another first address than it says. A further one that is shown in its place
/// does not prove that.
fn is_of_another(link: &Observed, lease: &Lease) -> bool {
    lease.pod_mac.is_some_and(|pod_mac| {
        let differs = |recorded: Option<IpAddr>, is_of_family: fn(&IpAddr) -> bool| {
            let mut given = link.given(pod_mac).filter(is_of_family);
            match recorded {
                Some(ip) => !stands(link, pod_mac, ip) && given.any(|ip| !link.further.contains(&ip)),
                // With an address of a family comes its gateway. Somebody's route and neighbour come without.
                None => link.addresses.iter().any(is_of_family) && given.next().is_some(),
            }
        };
        differs(lease.ipv6.map(IpAddr::V6), IpAddr::is_ipv6) || differs(lease.ipv4.map(IpAddr::V4), IpAddr::is_ipv4)
    })
}

/// The pod of `pod_mac` has `ip`. Its permanent neighbour was made together with the link, so somebody may have taken the route.
fn stands(link: &Observed, pod_mac: Mac, ip: IpAddr) -> bool {
    link.routed().any(|routed| routed == ip) || link.neighbours.contains(&(ip, pod_mac))
}

/// What flock gave the pod of `pod_mac` and somebody has taken the route of.
fn unrouted(link: &Observed, pod_mac: Mac) -> impl Iterator<Item = IpAddr> {
    let neighbours = link.neighbours.iter().filter(move |(_, mac)| *mac == pod_mac).map(|(ip, _)| *ip);
    neighbours.filter(|ip| link.routed().all(|routed| routed != *ip))
}

/// Whether the pod has an address of the family of `ip` for itself, without which it has none beside.
fn has_family(lease: &Lease, ip: IpAddr) -> bool {
    if ip.is_ipv6() { lease.ipv6.is_some() } else { lease.ipv4.is_some() }
}

/// Further addresses of the pod that its record does not have: nobody holds them, so they could be given to another pod. They bear
/// flock's mark; a neighbour without it is somebody else's.
fn unrecorded_extra(link: &Observed, lease: &Lease) -> Vec<IpAddr> {
    let Some(pod_mac) = lease.pod_mac else { return Vec::new() };
    let is_unknown =
        |ip: &IpAddr| link.further.contains(ip) && has_family(lease, *ip) && lease.addresses().all(|own| own != *ip);
    link.given(pod_mac).chain(unrouted(link, pod_mac)).filter(is_unknown).collect()
}

/// Addresses that are announced for the pod by flock and that its record does not have. One with a neighbour is the pod's own.
fn unrecorded_anycast(link: &Observed, lease: &Lease) -> Vec<IpAddr> {
    let is_unknown = |ip: &&IpAddr| {
        has_family(lease, **ip)
            && !lease.anycast.contains(ip)
            && lease.addresses().all(|own| own != **ip)
            && lease.pod_mac.is_none_or(|pod_mac| !stands(link, pod_mac, **ip))
    };
    link.shared.iter().filter(is_unknown).copied().collect()
}

/// The lease that the kernel shows in the place of `lease`, which it contradicts; none if it shows too little. Where the record is
/// not of an earlier lease, it is kept and what it lacks is added.
fn successor(lease: &Lease, link: &Observed, now: u64) -> Option<Lease> {
    if lease.phase == Phase::Committed && !is_of_another(link, lease) {
        let mut whole = lease.clone();
        whole.extra.extend(unrecorded_extra(link, lease));
        whole.anycast.extend(unrecorded_anycast(link, lease));
        return Some(whole);
    }
    let (network, pod) = (lease.network.clone(), lease.pod.clone());
    adopted(lease.attachment.clone(), link, now).map(|shown| Lease { network, pod, ..shown })
}

/// None for a link that leads to no address.
fn adopted(attachment: Attachment, link: &Observed, now: u64) -> Option<Lease> {
    let pod_mac = attachment.mac(LinkEnd::Pod);
    // What flock gave comes before routes that may be anybody's, and of that the first address of each family.
    let is_further = |ip: &IpAddr| link.further.contains(ip);
    // With an address of a family comes its gateway. Somebody's neighbour comes without.
    let has_gateway = |ip: &IpAddr| link.addresses.iter().any(|gateway| gateway.is_ipv6() == ip.is_ipv6());
    let first = || link.given(pod_mac).chain(unrouted(link, pod_mac).filter(has_gateway)).filter(|ip| !is_further(ip));
    let addresses = || first().chain(link.given(pod_mac)).chain(link.routed());
    let v6 = addresses().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    let v4 = addresses().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
    let has_family = |ip: &IpAddr| if ip.is_ipv6() { v6.is_some() } else { v4.is_some() };
    let is_first = |ip: &IpAddr| v6.map(IpAddr::V6) == Some(*ip) || v4.map(IpAddr::V4) == Some(*ip);
    let further = unrouted(link, pod_mac).filter(|ip| is_further(ip) && has_family(ip));
    let gateway4 = link.addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
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
        extra: link.given(pod_mac).chain(further).filter(|ip| !is_first(ip)).collect(),
        anycast: link.shared.iter().filter(|ip| has_family(ip) && !stands(link, pod_mac, **ip)).copied().collect(),
        // No link shows it, and to check one pod too many harms less than to check one too few.
        any_source: false,
        audit: false,
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
    use crate::examples::{lease, link_of};

    fn found(leases: &[Lease], links: &[Observed]) -> Vec<Repair> {
        repairs(leases.iter(), links, |_| false, 100, 1)
    }

    #[test]
    fn a_node_in_order_needs_nothing() {
        let lease = lease("abc/eth0");
        assert_eq!(found(std::slice::from_ref(&lease), &[link_of(&lease)]), []);
    }

    #[test]
    fn a_host_end_that_lacks_something_gets_it_back() {
        let lease = lease("abc/eth0");
        let damages: [fn(&mut Observed); 3] =
            [|link| link.up = false, |link| link.name = "x".into(), |link| link.routes.truncate(1)];
        for damage in damages {
            let mut link = link_of(&lease);
            damage(&mut link);
            assert_eq!(found(std::slice::from_ref(&lease), &[link]), [Repair::Rewire(lease.attachment.clone())]);
        }
    }

    #[test]
    fn an_add_that_was_cut_off_is_undone_unless_only_its_last_line_is_missing() {
        let mut lease = lease("abc/eth0");
        lease.phase = Phase::Pending;
        let undo = [Repair::Undo(lease.attachment.clone())];
        assert_eq!(found(std::slice::from_ref(&lease), &[]), undo);
        let halves: [fn(&mut Observed); 6] = [
            |link| link.carrier = false,
            |link| link.up = false,
            |link| link.alias = None,
            |link| link.routes.truncate(1),
            |link| link.addresses.clear(),
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
            let [Repair::Amend(adopted)] = repairs.as_slice() else { panic!("{repairs:?}") };
            assert_eq!(adopted.attachment, stands.attachment);
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
        assert!(matches!(repairs.as_slice(), [Repair::Rewire(_)]), "{repairs:?}");
    }

    #[test]
    fn a_route_and_a_neighbour_of_somebody_else_on_a_pods_link_are_no_address_of_the_pod() {
        let both = lease("abc/eth0");
        let mut single = lease("abc/eth0");
        single.ipv4 = None;
        for lease in [both, single] {
            let mut link = link_of(&lease);
            link.addresses.retain(|ip| ip.is_ipv6() || lease.ipv4.is_some());
            for ip in ["10.0.0.77", "2001:db8::77"] {
                let ip: IpAddr = ip.parse().expect("literal");
                link.routes.push((ip.into(), None));
                link.neighbours.extend(lease.pod_mac.map(|mac| (ip, mac)));
            }
            assert_eq!(found(&[lease], &[link]), []);
        }
    }

    #[test]
    fn a_record_is_forgotten_only_where_another_takes_its_place() {
        let (holder, mut moved) = (lease("abc/eth0"), lease("def/eth0"));
        // The kernel shows the pod with addresses that are recorded for the other one.
        let link = link_of(&moved);
        (moved.ipv6, moved.ipv4) = ("2001:db8::9".parse().ok(), "10.0.0.9".parse().ok());
        let leases = [holder.clone(), moved.clone()];
        let repairs = found(&leases, &[link_of(&holder), link.clone()]);
        assert!(
            matches!(repairs.as_slice(), [Repair::Conflict { attachment, .. }] if *attachment == moved.attachment),
            "{repairs:?}"
        );
        // What stays recorded is nobody else's: a third pod is not adopted with it.
        let mut third = lease("ghi/eth0");
        let of_third = {
            let mut shown = third.clone();
            (shown.ipv6, shown.ipv4) = (moved.ipv6, moved.ipv4);
            link_of(&shown)
        };
        (third.ipv6, third.ipv4) = ("2001:db8::a".parse().ok(), "10.0.0.10".parse().ok());
        let leases = [holder.clone(), moved.clone(), third];
        let repairs = found(&leases, &[link_of(&holder), link.clone(), of_third]);
        assert!(repairs.iter().all(|repair| matches!(repair, Repair::Conflict { .. })), "{repairs:?}");
        assert_eq!(repairs.len(), 2);
        // A link that does not show enough to be adopted.
        let nameless = Observed { mac: None, ..link };
        let gives_way = |repair: &Repair| matches!(repair, Repair::Forget(_) | Repair::Amend(_));
        assert!(!found(&[moved], &[nameless]).iter().any(gives_way));
    }

    #[test]
    fn a_record_gives_way_in_one_piece_behind_those_whose_addresses_its_pod_has_now() {
        let with = |key: &str, n: u8| {
            let mut lease = lease(key);
            (lease.ipv6, lease.ipv4) = (format!("2001:db8::{n}").parse().ok(), format!("10.0.0.{n}").parse().ok());
            lease
        };
        // Each has the address by record that the one before it has in the kernel, but for the last one.
        let recorded = [with("a/eth0", 1), with("b/eth0", 2), with("c/eth0", 3)];
        let moved = [with("a/eth0", 2), with("b/eth0", 3), with("c/eth0", 4)];
        let repairs = found(&recorded, &moved.each_ref().map(link_of));
        let amended = |repair: &Repair| match repair {
            Repair::Amend(lease) => lease.addresses().collect(),
            other => panic!("{other:?}"),
        };
        let order: Vec<Vec<IpAddr>> = repairs.iter().map(amended).collect();
        assert_eq!(order, [2, 1, 0].map(|n: usize| moved[n].addresses().collect::<Vec<_>>()));
        // Where each waits for another one, one record ends, and no more than one.
        let exchanged = [with("a/eth0", 2), with("b/eth0", 3), with("c/eth0", 1)];
        let repairs = found(&recorded, &exchanged.each_ref().map(link_of));
        let [Repair::Forget(a), Repair::Amend(c), Repair::Amend(b), Repair::Adopt(again)] = repairs.as_slice() else {
            panic!("{repairs:?}")
        };
        let keys = [a, &c.attachment, &b.attachment, &again.attachment].map(ToString::to_string);
        assert_eq!(keys, ["a/eth0", "c/eth0", "b/eth0", "a/eth0"]);
    }

    // covers: FM-G09
    #[test]
    fn what_an_older_flock_left_out_of_the_record_is_added_from_the_kernel_and_the_rest_is_kept() {
        let mut whole = lease("abc/eth0");
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("literal")).collect::<Vec<IpAddr>>();
        whole.extra = ips(&["203.0.113.6"]);
        whole.anycast = ips(&["2001:db8:f::53", "203.0.113.53"]);
        let mut link = link_of(&whole);
        link.shared = whole.anycast.clone();
        let mut older = whole.clone();
        (older.extra, older.anycast) = (vec![], vec![]);
        let repairs = found(&[older.clone()], &[link.clone()]);
        assert_eq!(repairs, [Repair::Amend(Box::new(whole.clone()))], "in one piece, namespace and times included");
        assert_eq!(found(&[whole.clone()], &[link.clone()]), [], "and then all is in order");
        // What somebody has taken meanwhile comes back with the record, and is not taken for the end of what was recorded.
        let taken: [fn(&mut Observed); 4] = [
            |link| link.routes.retain(|(to, _)| to.addr().is_ipv6()),
            |link| link.routes.clear(),
            |link| {
                link.routes.remove(1);
                link.neighbours.remove(1);
            },
            // An address of the pod that is announced and has no route looks like a shared one.
            |link| {
                link.routes.remove(2);
                link.shared.push(link.further[0]);
            },
        ];
        for (n, take) in taken.iter().enumerate() {
            let mut link = link.clone();
            take(&mut link);
            let repairs = found(&[older.clone()], &[link.clone()]);
            assert_eq!(repairs, [Repair::Amend(Box::new(whole.clone()))], "{n}");
            let repairs = found(&[whole.clone()], &[link]);
            assert_eq!(repairs, [Repair::Rewire(whole.attachment.clone())], "{n}");
        }
        // One that has not come to its end is undone, whatever is announced.
        older.extra = ips(&["203.0.113.6"]);
        (older.phase, older.since) = (Phase::Pending, 100);
        assert_eq!(found(&[older.clone()], &[link]), [Repair::Undo(older.attachment)]);
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
    fn a_link_is_its_pods_whatever_somebody_has_changed_of_it() {
        let mut mine = lease("abc/eth0");
        mine.host_index = Some(7);
        let other = link_of(&lease("def/eth0"));
        let damages: [fn(&mut Observed); 3] = [
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
        let other = Observed { index: 7, name: "uplink".into(), ..Observed::default() };
        assert_eq!(found(&[mine.clone()], &[other]), [Repair::Release(mine.attachment.clone())]);
        // A link of its name alone is somebody else's.
        let named = Observed { name: mine.host_link.to_string(), index: 8, ..Observed::default() };
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
        (bare.routes, bare.neighbours) = (vec![], vec![]);
        assert_eq!(found(&[], &[bare]), [Repair::Remove(lease.attachment)]);
    }

    #[test]
    fn what_is_read_back_has_all_addresses_of_its_pod_the_first_ones_first() {
        let mut lease = lease("abc/eth0");
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("literal")).collect::<Vec<IpAddr>>();
        lease.extra = ips(&["2001:db8::1", "10.0.0.1", "2001:db8::9"]);
        lease.anycast = ips(&["2001:db8:f::53"]);
        let mut link = link_of(&lease);
        link.shared = lease.anycast.clone();
        link.routes.reverse();
        // Somebody's route through the link is no address of the pod.
        link.routes.push(("203.0.113.9/32".parse().expect("literal"), None));
        let repairs = found(&[], &[link.clone()]);
        let [Repair::Adopt(adopted)] = repairs.as_slice() else { panic!("{repairs:?}") };
        assert_eq!((adopted.ipv6, adopted.ipv4), (lease.ipv6, lease.ipv4));
        assert_eq!(adopted.extra, ips(&["2001:db8::9", "10.0.0.1", "2001:db8::1"]));
        assert_eq!(adopted.anycast, lease.anycast);
        assert_eq!(found(&[(**adopted).clone()], &[link.clone()]), [], "and then all is in order");
        // A record that lacks one of them is of an earlier lease.
        let mut earlier = lease.clone();
        earlier.extra.pop();
        let repairs = found(&[earlier], &[link.clone()]);
        assert!(matches!(repairs.as_slice(), [Repair::Amend(_)]), "{repairs:?}");
        // Whatever routes somebody has taken, the first address stays the first.
        for bits in 0..32 {
            let mut link = link.clone();
            let mut bit = 0;
            link.routes.retain(|_| {
                bit += 1;
                bits & (1 << (bit - 1)) != 0
            });
            let repairs = found(&[], &[link]);
            let [Repair::Adopt(adopted)] = repairs.as_slice() else { panic!("{bits:05b}: {repairs:?}") };
            assert_eq!((adopted.ipv6, adopted.ipv4), (lease.ipv6, lease.ipv4), "{bits:05b}");
            let extra = |lease: &Lease| lease.extra.iter().copied().collect::<BTreeSet<IpAddr>>();
            assert_eq!((extra(adopted), &adopted.anycast), (extra(&lease), &lease.anycast), "{bits:05b}");
        }
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

    #[test]
    fn what_is_read_back_has_the_gateway_that_its_pod_was_given() {
        let mut lease = lease("abc/eth0");
        lease.gateway4 = "169.254.9.9".parse().expect("literal");
        let mut link = link_of(&lease);
        link.addresses = vec![GATEWAY6.into(), lease.gateway4.into()];
        let repairs = found(&[], &[link]);
        let [Repair::Adopt(adopted)] = repairs.as_slice() else { panic!("{repairs:?}") };
        assert_eq!(adopted.gateway4, lease.gateway4);
    }

    #[test]
    fn a_link_without_record_is_left_to_the_request_that_works_on_it() {
        let lease = lease("abc/eth0");
        let busy = |attachment: &Attachment| *attachment == lease.attachment;
        assert_eq!(repairs([].iter(), &[link_of(&lease)], busy, 100, 1), [], "an ADD makes it, or a DEL removes it");
    }
}
