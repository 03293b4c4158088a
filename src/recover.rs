//! Compares what is recorded with what the kernel shows, and names the repairs. Decides nothing by time and does nothing
//! itself: the same comparison serves the start of the agent and the reconcile rounds, and running it twice is as good as
//! once.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::addr::{Attachment, IfName, LinkEnd, Mac};
use crate::lease::{Lease, Phase};
use crate::plan::{self, Change};

/// A link of the host that could be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelLink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: IfName,
    /// Its hardware address.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// The text beside it.
    pub alias: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// The single addresses that lead through it.
    pub addresses: Vec<IpAddr>,
    /// The addresses that it bears itself.
    pub own: Vec<IpAddr>,
    /// Its permanent neighbours.
    pub neighbours: Vec<(IpAddr, Mac)>,
}

impl KernelLink {
    /// The kernel shows what this change asks for.
    fn has(&self, change: &Change) -> bool {
        match change {
            Change::Alias(text) => self.alias.as_ref() == Some(text),
            Change::Up => self.up,
            Change::Address { ip, .. } => self.own.contains(ip),
            Change::Neighbour { ip, mac } => self.neighbours.contains(&(*ip, *mac)),
            Change::Route { to, .. } => self.addresses.contains(&to.addr()),
            // Matters only when a link comes up for the first time.
            Change::NoAutoAddress => true,
        }
    }
}

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// An ADD did not get to its end: take it back, as DEL does.
    Undo(Attachment),
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

/// What sets record and kernel apart. Leases in `busy` have a request in service and are left to it. `now` is in
/// milliseconds of the boot clock, for leases that are made anew.
pub fn repairs<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    links: &[KernelLink],
    busy: &HashSet<Attachment>,
    now: u64,
) -> Vec<Repair> {
    let by_name: HashMap<&IfName, &KernelLink> = links.iter().map(|link| (&link.name, link)).collect();
    let mut known: HashSet<&Attachment> = HashSet::new();
    let mut holders: HashMap<IpAddr, &Attachment> = HashMap::new();
    let mut repairs = Vec::new();
    for lease in leases {
        known.insert(&lease.attachment);
        holders.extend(lease.addresses().map(|ip| (ip, &lease.attachment)));
        if busy.contains(&lease.attachment) {
            continue;
        }
        let attachment = lease.attachment.clone();
        let link = by_name.get(&lease.host_link).filter(|link| link.mac == lease.host_mac);
        match (lease.phase, link) {
            (Phase::Pending, _) => repairs.push(Repair::Undo(attachment)),
            (Phase::Committed, None) => repairs.push(Repair::Release(attachment)),
            (Phase::Committed, Some(link)) => {
                let mut lacks = plan::host_end(lease);
                lacks.retain(|change| !link.has(change));
                if !lacks.is_empty() {
                    repairs.push(Repair::Rewire { attachment, index: link.index, lacks });
                }
            }
        }
    }
    for link in links {
        let Some(attachment) = link.alias.as_deref().and_then(plan::attachment_of_alias) else { continue };
        // Anybody can write a text beside a link. The hardware address was given when flock made it.
        if link.mac != attachment.mac(LinkEnd::Host) || known.contains(&attachment) || busy.contains(&attachment) {
            continue;
        }
        if link.addresses.is_empty() {
            repairs.push(Repair::Remove { attachment, index: link.index });
            continue;
        }
        let contested = link.addresses.iter().find_map(|ip| holders.get(ip).map(|holder| (*ip, (*holder).clone())));
        repairs.push(match contested {
            Some((ip, holder)) => Repair::Conflict { attachment, ip, holder },
            None => Repair::Adopt(Box::new(adopted(attachment, link, now))),
        });
    }
    // Hash order must not show in logs.
    repairs.sort_by_cached_key(|repair| format!("{repair:?}"));
    repairs
}

fn adopted(attachment: Attachment, link: &KernelLink, now: u64) -> Lease {
    Lease {
        phase: Phase::Committed,
        network: "flock".into(),
        netns: String::new(),
        host_link: link.name.clone(),
        host_mac: link.mac,
        pod_mac: Some(attachment.mac(LinkEnd::Pod)),
        mtu: link.mtu,
        ipv6: link.addresses.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }),
        ipv4: link.addresses.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }),
        pod: None,
        since: now,
        call: None,
        attachment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{GATEWAY4, GATEWAY6};
    use crate::plan::tests::lease;

    fn link_of(lease: &Lease) -> KernelLink {
        KernelLink {
            index: 7,
            name: lease.host_link.clone(),
            mac: lease.host_mac,
            mtu: lease.mtu,
            alias: Some(plan::alias(&lease.attachment)),
            up: true,
            addresses: lease.addresses().collect(),
            own: vec![GATEWAY6.into(), GATEWAY4.into()],
            neighbours: lease.addresses().map(|ip| (ip, lease.pod_mac.expect("given"))).collect(),
        }
    }

    fn found(leases: &[Lease], links: &[KernelLink]) -> Vec<Repair> {
        repairs(leases.iter(), links, &HashSet::new(), 1)
    }

    #[test]
    fn a_node_in_order_needs_nothing() {
        let lease = lease("abc/eth0");
        assert_eq!(found(std::slice::from_ref(&lease), &[link_of(&lease)]), []);
    }

    #[test]
    fn an_add_that_was_cut_off_is_undone_whether_its_link_stands_or_not() {
        let mut lease = lease("abc/eth0");
        lease.phase = Phase::Pending;
        let undo = [Repair::Undo(lease.attachment.clone())];
        assert_eq!(found(std::slice::from_ref(&lease), &[]), undo);
        assert_eq!(found(std::slice::from_ref(&lease), &[link_of(&lease)]), undo);
    }

    #[test]
    fn a_pod_whose_namespace_vanished_gives_its_addresses_back() {
        let lease = lease("abc/eth0");
        let release = [Repair::Release(lease.attachment.clone())];
        assert_eq!(found(std::slice::from_ref(&lease), &[]), release);
        let mut foreign = link_of(&lease);
        foreign.mac = Mac([2, 9, 9, 9, 9, 9]);
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
        check(|link| link.addresses.truncate(1), "route 10.0.0.5/32");
        check(|link| link.addresses.retain(IpAddr::is_ipv4), "route 2001:db8::5/128");
        check(|link| link.own.truncate(1), "address 169.254.1.1");
        check(|link| link.own.retain(IpAddr::is_ipv4), "address fe80::1");
        check(|link| link.neighbours.truncate(1), "neighbour 10.0.0.5");
        check(|link| link.neighbours[0].1 = Mac([2, 9, 9, 9, 9, 9]), "neighbour 2001:db8::5");
    }

    #[test]
    fn lost_state_is_read_back_from_the_kernel() {
        let lease = lease("abc/eth0");
        let repairs = found(&[], &[link_of(&lease)]);
        let [Repair::Adopt(adopted)] = repairs.as_slice() else { panic!("{repairs:?}") };
        assert_eq!((adopted.ipv6, adopted.ipv4), (lease.ipv6, lease.ipv4));
        assert_eq!(found(&[(**adopted).clone()], &[link_of(&lease)]), [], "and then all is in order");
        let mut bare = link_of(&lease);
        bare.addresses.clear();
        assert_eq!(found(&[], &[bare]), [Repair::Remove { attachment: lease.attachment, index: 7 }]);
    }

    #[test]
    fn a_link_that_only_says_that_it_is_ours_is_left_alone() {
        let mut link = link_of(&lease("abc/eth0"));
        link.mac = Mac([2, 9, 9, 9, 9, 9]);
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
        let busy = HashSet::from([lease.attachment.clone()]);
        assert_eq!(repairs([lease].iter(), &[], &busy, 1), []);
    }
}
