//! Neighbour proxies: the addresses of pods for which the host answers on its uplink, when a router looks for them there.
//!
//! A proxy entry is wanted for each address of each lease, on the one link that the NodeConfig names. This file compares that with
//! what the kernel shows. Pure: reads and changes nothing, and never asks for the removal of what somebody else has made.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

/// An address for which the host answers on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proxy {
    /// Index of the link.
    pub link: u32,
    /// The address.
    pub ip: IpAddr,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on link {}", self.ip, self.link)
    }
}

/// A proxy entry that the kernel shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// What it answers for, and where.
    pub proxy: Proxy,
    /// It bears flock's mark.
    pub ours: bool,
}

/// Where proxies are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// No NodeConfig is known yet: what living pods have stays.
    Unknown,
    /// Nowhere: the NodeConfig names no link, or one that is not there.
    Nowhere,
    /// On the link of this index.
    Link(u32),
}

/// One change of the kernel's proxy entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make this one.
    Add(Proxy),
    /// Remove this one, which is flock's.
    Remove(Proxy),
}

/// The addresses of all leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leased {
    /// Of leases that nobody works on.
    pub settled: BTreeSet<IpAddr>,
    /// Of leases that a request works on, which sees to their entries itself.
    pub busy: BTreeSet<IpAddr>,
}

/// What makes `shown` into one entry at `place` for each address that is leased. What is new comes first, so that an address that
/// moves from one link to another is answered for all the while.
///
/// An equal entry of somebody else is enough, and stays when it is no longer wanted.
pub fn steps(place: Place, leased: &Leased, shown: &[Shown]) -> Vec<Step> {
    let there: BTreeSet<Proxy> = shown.iter().map(|entry| entry.proxy).collect();
    let stays = |proxy: &Proxy| {
        let settled = leased.settled.contains(&proxy.ip);
        leased.busy.contains(&proxy.ip)
            || match place {
                Place::Unknown => settled,
                Place::Nowhere => false,
                Place::Link(link) => settled && proxy.link == link,
            }
    };
    let link = if let Place::Link(link) = place { Some(link) } else { None };
    let new = link.into_iter().flat_map(|link| leased.settled.iter().map(move |ip| Proxy { link, ip: *ip }));
    let new = new.filter(|proxy| !there.contains(proxy)).map(Step::Add);
    let idle = shown.iter().filter(|entry| entry.ours && !stays(&entry.proxy));
    new.chain(idle.map(|entry| Step::Remove(entry.proxy))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    use super::*;

    fn ips() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0..6u8).prop_map(|(v6, last)| match v6 {
            false => IpAddr::from([10, 0, 0, last]),
            true => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)]),
        })
    }

    fn places() -> impl Strategy<Value = Place> {
        prop_oneof![Just(Place::Unknown), Just(Place::Nowhere), (1..4u32).prop_map(Place::Link)]
    }

    /// The kernel has one entry for each link and address.
    fn kernels() -> impl Strategy<Value = Vec<Shown>> {
        let entries = btree_map((1..4u32, ips()), any::<bool>(), 0..12);
        entries.prop_map(|entries| {
            entries.into_iter().map(|((link, ip), ours)| Shown { proxy: Proxy { link, ip }, ours }).collect()
        })
    }

    /// The kernel after these steps.
    fn after(shown: &[Shown], steps: &[Step]) -> Vec<Shown> {
        let mut entries = shown.to_vec();
        for step in steps {
            match step {
                Step::Add(proxy) => {
                    assert!(entries.iter().all(|entry| entry.proxy != *proxy), "{proxy} is there already");
                    entries.push(Shown { proxy: *proxy, ours: true });
                }
                Step::Remove(proxy) => {
                    let at = entries.iter().position(|entry| entry.proxy == *proxy).expect("there");
                    assert!(entries.remove(at).ours, "{proxy} is somebody else's");
                }
            }
        }
        entries
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_stands_there_the_host_answers_for_pods_on_one_link_and_nothing_foreign_is_touched(
            place in places(), addresses in btree_map(ips(), any::<bool>(), 0..8), shown in kernels(),
        ) {
            let of = |busy: bool| addresses.iter().filter(|(_, b)| **b == busy).map(|(ip, _)| *ip).collect();
            let leased = Leased { settled: of(false), busy: of(true) };
            let left = after(&shown, &steps(place, &leased, &shown));
            for entry in shown.iter().filter(|entry| !entry.ours) {
                prop_assert!(left.contains(entry), "somebody else's is gone: {}", entry.proxy);
            }
            for entry in shown.iter().chain(&left).filter(|entry| leased.busy.contains(&entry.proxy.ip)) {
                prop_assert!(left.contains(entry) && shown.contains(entry), "a request works on {}", entry.proxy);
            }
            for entry in left.iter().filter(|entry| entry.ours && !leased.busy.contains(&entry.proxy.ip)) {
                prop_assert!(leased.settled.contains(&entry.proxy.ip), "no pod has {}", entry.proxy);
                match place {
                    Place::Unknown => prop_assert!(shown.contains(entry), "{} is made without a reason", entry.proxy),
                    Place::Nowhere => prop_assert!(false, "{} is left", entry.proxy),
                    Place::Link(link) => prop_assert_eq!(entry.proxy.link, link),
                }
            }
            if let Place::Link(link) = place {
                for ip in &leased.settled {
                    let answers = |entry: &&Shown| entry.proxy == Proxy { link, ip: *ip };
                    prop_assert_eq!(left.iter().filter(answers).count(), 1, "{}", ip);
                }
            }
            if place == Place::Unknown {
                for entry in shown.iter().filter(|entry| leased.settled.contains(&entry.proxy.ip)) {
                    prop_assert!(left.contains(entry), "a living pod is cut off: {}", entry.proxy);
                }
            }
            prop_assert_eq!(steps(place, &leased, &left), [], "a second look finds nothing to do");
        }
    }

    #[test]
    fn an_address_that_moves_to_another_link_is_answered_for_all_the_while() {
        let ip = IpAddr::from([10, 0, 0, 5]);
        let shown = [Shown { proxy: Proxy { link: 2, ip }, ours: true }];
        let leased = Leased { settled: BTreeSet::from([ip]), ..Leased::default() };
        let moved = steps(Place::Link(3), &leased, &shown);
        assert_eq!(moved, [Step::Add(Proxy { link: 3, ip }), Step::Remove(Proxy { link: 2, ip })]);
    }
}
