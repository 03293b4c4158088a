//! Where anycast addresses lead on this node, and which of them it announces: from the pods that share them and whether each may
//! be sent traffic.
//!
//! The kernel is the only memory: who served, which pod was reachable, which numbers nexthop objects have and which metric a pod's
//! announcement has is read from what is shown. So a restarted agent finds what it would have made, and changes nothing. Must
//! not ask the kernel, nor decide which addresses a pod may share.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use ipnet::IpNet;

use crate::lease::{Lease, Phase};
use crate::routes::{ANNOUNCED, DRAINING, Group, MAIN, METRIC_MAX, Nexthop, RouteKey, Routes, Way};

/// The numbers of flock's nexthop objects and groups, far from those that people and routing daemons choose.
pub const NUMBERS: RangeInclusive<u32> = 0x666c_0000..=0x666c_ffff;

/// Weight of a pod that may be sent traffic.
const SERVING: u8 = 127;

/// Weight of a pod that keeps the flows that it has while others take the new ones.
const LEAVING: u8 = 1;

/// Weight of a pod that was the last one to serve. Another one than [`SERVING`], so that the kernel shows who serves whatever
/// became of the announcements; and nearly the same, so that hardly anything moves.
const LAST: u8 = 126;

/// What a kernel knows of nexthop objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Nothing. One pod of an address is reached, and only that one is announced.
    Absent,
    /// Objects and plain groups, since Linux 5.3. Flows move when pods come and go.
    Plain,
    /// Groups in which flows stay where they are, too: since Linux 5.12.
    Resilient,
}

impl Support {
    /// How many objects lead to one pod. A resilient group of a single object does not see which flows are alive, so the next pod
    /// would take half of them; and no object may leave the group while its pod stays, since its flows would move. So each pod has
    /// two, from its first moment to its last.
    fn objects(self) -> usize {
        if self == Support::Resilient { 2 } else { 1 }
    }
}

/// What is known of a pod that shares addresses, beside its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It may be sent traffic: ready, and not about to go. None where nobody can say, since the API server is away: then it is as
    /// it was.
    pub serves: Option<bool>,
    /// Its link can send: both of its ends are up. Over any other the kernel keeps no nexthop object, and makes none.
    pub reachable: bool,
}

/// What others have in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foreign {
    /// The numbers of their nexthop objects and groups.
    pub numbers: BTreeSet<u32>,
    /// For anycast addresses to which somebody leads where flock's own route belongs, in the way of the Go flock: the links.
    pub routes: BTreeMap<IpAddr, BTreeSet<u32>>,
}

/// A pod that shares addresses, and how packets for them get to it.
struct Backend<'a> {
    lease: &'a Lease,
    link: u32,
    serves: Option<bool>,
}

impl Backend<'_> {
    /// By its own address, whose neighbour entry is permanent; by the IPv6 one for both families, if it has one and the kernel
    /// can.
    fn via(&self, to: IpAddr, support: Support) -> Option<IpAddr> {
        let v6 = self.lease.ipv6.map(IpAddr::V6);
        match to {
            IpAddr::V6(_) => v6,
            IpAddr::V4(_) => v6.filter(|_| support != Support::Absent).or(self.lease.ipv4.map(IpAddr::V4)),
        }
    }
}

/// How one pod is led to.
#[derive(Clone, Copy)]
struct Path {
    hop: Nexthop,
    weight: u8,
    serves: bool,
}

/// What leads to the anycast addresses of `leases`, and what of it is announced.
///
/// - While pods serve, each of them is announced, with a metric of its own. Those that do not any more keep their flows and get
///   hardly any new ones.
/// - When the last one stops serving, nothing is announced any more, and packets that are under way are led to it all the same,
///   until its lease ends.
/// - A pod that has never served gets nothing.
/// - A pod whose link cannot send is as if it were not there. It comes back as one that has never served.
///
/// - A route of the Go flock's, which leads to pods of `leases` that share the address and to nobody else, is taken over: those
///   pods count as serving where nobody can say, and keep their flows.
///
/// `shown` is what the kernel shows of flock, and `foreign` what of others. An address that is some pod's alone is left out.
pub fn wanted<'a>(
    leases: impl IntoIterator<Item = (&'a Lease, Standing)>,
    shown: &Routes,
    foreign: &Foreign,
    support: Support,
) -> Routes {
    let (mut backends, mut alone) = (Vec::new(), BTreeSet::new());
    let mut links: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
    for (lease, standing) in leases.into_iter().filter(|(lease, _)| lease.phase == Phase::Committed) {
        alone.extend(lease.addresses());
        lease.anycast.iter().for_each(|ip| links.entry(*ip).or_default().extend(lease.host_index));
        let link = lease.host_index.filter(|_| standing.reachable);
        backends.extend(link.map(|link| Backend { lease, link, serves: standing.serves }));
    }
    // The order decides only what is new: its numbers and metrics.
    backends.sort_by_key(|backend| (backend.lease.since, &backend.lease.attachment));
    let mut sharers: BTreeMap<IpAddr, Vec<&Backend<'_>>> = BTreeMap::new();
    for backend in &backends {
        for ip in backend.lease.anycast.iter().filter(|ip| !alone.contains(ip)) {
            sharers.entry(*ip).or_default().push(backend);
        }
    }
    let mut numbers = Numbers::new(shown, &foreign.numbers);
    let mut wanted = Routes::default();
    for (ip, pods) in sharers {
        let own = |left: &&BTreeSet<u32>| links.get(&ip).is_some_and(|links| left.is_subset(links));
        let left = foreign.routes.get(&ip).filter(own);
        lead(ip, &pods, &Before::of(ip, shown, left), support, &mut numbers, &mut wanted);
    }
    wanted
}

/// Adds what one address needs.
fn lead(
    ip: IpAddr,
    pods: &[&Backend<'_>],
    before: &Before,
    support: Support,
    numbers: &mut Numbers<'_>,
    wanted: &mut Routes,
) {
    let served = |pod: &Backend<'_>| before.weights.get(&pod.link) == Some(&SERVING);
    let serves = |pod: &Backend<'_>| pod.serves.unwrap_or_else(|| served(pod));
    let any_serves = pods.iter().any(|pod| serves(pod));
    let ways = pods.iter().filter_map(|pod| {
        let weight = match (serves(pod), before.weights.get(&pod.link)) {
            (true, _) => SERVING,
            (false, Some(_)) if any_serves => LEAVING,
            (false, Some(weight)) => LAST.min(*weight),
            (false, None) => return None,
        };
        let hop = Nexthop { via: pod.via(ip, support)?, link: pod.link };
        Some(Path { hop, weight, serves: serves(pod) })
    });
    let mut ways: Vec<Path> = ways.collect();
    let way = if support == Support::Absent {
        ways.retain(|path| path.serves || !any_serves);
        // The one that is led to already, rather than another one.
        let former = ways.iter().find(|path| before.weights.contains_key(&path.hop.link));
        let Some(one) = former.or(ways.first()).copied() else { return };
        ways = vec![one];
        Way::Gateway { via: one.hop.via, link: one.hop.link }
    } else {
        let mut members = Vec::new();
        // Where numbers have run out, the pods that have theirs go on.
        ways.retain(|path| {
            let Some(objects) = numbers.objects(path.hop, support.objects()) else { return false };
            wanted.nexthops.extend(objects.iter().map(|id| (*id, path.hop)));
            members.extend(objects.iter().map(|id| (*id, path.weight)));
            true
        });
        if members.is_empty() {
            return;
        }
        members.sort_unstable();
        let resilient = support == Support::Resilient;
        // A group cannot become one of the other kind.
        let former = before.group.filter(|(_, same)| *same == resilient).map(|(id, _)| id);
        let group = Group { members, resilient };
        let Some(id) = numbers.group(former, &group) else { return };
        wanted.groups.insert(id, group);
        Way::Nexthop(id)
    };
    wanted.routes.insert(leads(ip), way);
    wanted.left.extend(before.left.clone().map(|left| (leads(ip), left)));
    let serving = ways.iter().filter(|path| path.serves).map(|path| path.hop.link);
    for (link, metric) in metrics(serving, &before.metrics) {
        wanted.routes.insert(RouteKey { table: ANNOUNCED, to: ip.into(), metric }, Way::Link(link));
    }
}

/// The route that leads to `ip`.
pub fn leads(ip: IpAddr) -> RouteKey {
    // What the kernel itself takes where no metric is said.
    RouteKey { table: MAIN, to: ip.into(), metric: if ip.is_ipv6() { 1024 } else { 0 } }
}

/// The metric of each link's announcement: what it had, or the smallest that is free.
fn metrics(links: impl Iterator<Item = u32>, former: &BTreeMap<u32, u32>) -> Vec<(u32, u32)> {
    let links: Vec<u32> = links.collect();
    let mut taken: BTreeSet<u32> = links.iter().filter_map(|link| former.get(link)).copied().collect();
    let mut metric_of = |link: &u32| {
        former.get(link).copied().or_else(|| {
            let free = (1..=METRIC_MAX).find(|metric| !taken.contains(metric))?;
            taken.insert(free);
            Some(free)
        })
    };
    links.iter().filter_map(|link| Some((*link, metric_of(link)?))).collect()
}

/// What the kernel shows of one address.
#[derive(Default)]
struct Before {
    /// The group that leads to it, and whether it is a resilient one.
    group: Option<(u32, bool)>,
    /// The links that it is led to, each with its weight.
    weights: BTreeMap<u32, u8>,
    /// The links that it is announced by, each with its metric as it is while the node does not drain.
    metrics: BTreeMap<u32, u32>,
    /// The links of a route of the Go flock's that stands in the place of flock's own.
    left: Option<BTreeSet<u32>>,
}

impl Before {
    fn of(ip: IpAddr, shown: &Routes, left: Option<&BTreeSet<u32>>) -> Before {
        let mut before = Before::default();
        match shown.routes.get(&leads(ip)) {
            Some(Way::Nexthop(id)) => {
                let group = shown.groups.get(id);
                before.group = group.map(|group| (*id, group.resilient));
                for (member, weight) in group.map_or(&[][..], |group| &group.members) {
                    if let Some(hop) = shown.nexthops.get(member) {
                        before.weights.insert(hop.link, *weight);
                    }
                }
            }
            Some(Way::Gateway { link, .. }) => {
                before.weights.insert(*link, SERVING);
            }
            Some(Way::Link(_) | Way::Unreachable) => {}
            None => {
                before.left = left.cloned();
                before.weights.extend(left.into_iter().flatten().map(|link| (*link, SERVING)));
            }
        }
        let of_metric = |metric| RouteKey { table: ANNOUNCED, to: IpNet::from(ip), metric };
        for (key, way) in shown.routes.range(of_metric(0)..=of_metric(u32::MAX)) {
            let metric = key.metric.checked_sub(DRAINING).filter(|metric| *metric > 0).unwrap_or(key.metric);
            if let Way::Link(link) = way
                && (1..=METRIC_MAX).contains(&metric)
                && !before.metrics.values().any(|taken| *taken == metric)
            {
                before.metrics.entry(*link).or_insert(metric);
            }
        }
        before
    }
}

/// Which number stands for what. What is there keeps its number, and no number gets another meaning.
struct Numbers<'a> {
    shown: &'a Routes,
    foreign: &'a BTreeSet<u32>,
    next: Option<u32>,
    objects: BTreeMap<(IpAddr, u32), Vec<u32>>,
    groups: BTreeSet<u32>,
    /// Those that a route leads to.
    led: BTreeSet<u32>,
}

impl Numbers<'_> {
    fn new<'a>(shown: &'a Routes, foreign: &'a BTreeSet<u32>) -> Numbers<'a> {
        let by_number = |way: &Way| if let Way::Nexthop(id) = way { Some(*id) } else { None };
        let led = shown.routes.values().filter_map(by_number).collect();
        Numbers { shown, foreign, next: Some(*NUMBERS.start()), objects: BTreeMap::new(), groups: BTreeSet::new(), led }
    }

    /// The numbers of so many objects that lead to `hop`. None when numbers have run out.
    fn objects(&mut self, hop: Nexthop, count: usize) -> Option<Vec<u32>> {
        if let Some(known) = self.objects.get(&(hop.via, hop.link)) {
            return Some(known.clone());
        }
        let ours = self.shown.nexthops.iter().filter(|(id, found)| **found == hop && NUMBERS.contains(id));
        let mut found: Vec<u32> = ours.map(|(id, _)| *id).take(count).collect();
        while found.len() < count {
            found.push(self.fresh()?);
        }
        self.objects.insert((hop.via, hop.link), found.clone());
        Some(found)
    }

    /// The number of a group: `former`, unless another one has it; or that of an equal one that nothing leads to, as where the
    /// route was refused.
    fn group(&mut self, former: Option<u32>, group: &Group) -> Option<u32> {
        let idle = self.shown.groups.iter().filter(|(id, found)| *found == group && !self.led.contains(id));
        let mut known = former.into_iter().chain(idle.map(|(id, _)| *id));
        let known = known.find(|id| NUMBERS.contains(id) && !self.groups.contains(id));
        let id = known.or_else(|| self.fresh())?;
        self.groups.insert(id);
        Some(id)
    }

    fn fresh(&mut self) -> Option<u32> {
        loop {
            let id = self.next.filter(|id| NUMBERS.contains(id))?;
            self.next = id.checked_add(1);
            let shown = self.shown.nexthops.contains_key(&id) || self.shown.groups.contains_key(&id);
            if !shown && !self.foreign.contains(&id) {
                return Some(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
