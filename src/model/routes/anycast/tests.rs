//! Random histories against a plain model of the kernel and of what should be, then the rules one by one.

use alloc::string::{String, ToString};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::*;
use crate::examples::lease;
use crate::routes::{Stage, Step, steps};

const NONE: Foreign = Foreign { numbers: BTreeSet::new(), routes: BTreeMap::new() };

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// The pod number `n`, which shares `addresses`.
fn pod(n: u8, addresses: &[&str]) -> Lease {
    let mut lease = lease(&format!("pod{n}/eth0"));
    lease.ipv6 = format!("2001:db8::{n:x}").parse().ok();
    lease.ipv4 = format!("10.0.0.{n}").parse().ok();
    lease.host_index = Some(100 + u32::from(n));
    lease.since = n.into();
    lease.anycast = addresses.iter().map(|text| ip(text)).collect();
    lease
}

/// The kernel as far as it matters here: what it refuses, and what goes along with what.
#[derive(Debug, Default)]
struct Kernel {
    shown: Routes,
    foreign: BTreeSet<u32>,
    dead: BTreeSet<u32>,
    /// Links that stand and have no carrier.
    silent: BTreeSet<u32>,
}

impl Kernel {
    /// Carries a step out, or says why not.
    fn take(&mut self, step: &Step) -> Result<(), String> {
        let shown = &mut self.shown;
        let refuse = |why: &str| Err(format!("{step}: {why}"));
        let exists = |shown: &Routes, id: &u32| shown.nexthops.contains_key(id) || shown.groups.contains_key(id);
        match step {
            Step::PutNexthop(id, _) | Step::PutGroup(id, _) if self.foreign.contains(id) => {
                return refuse("somebody else's");
            }
            Step::PutNexthop(id, hop) => {
                if self.dead.contains(&hop.link) || self.silent.contains(&hop.link) || shown.groups.contains_key(id) {
                    return refuse("no link, no carrier, or a group");
                }
                shown.nexthops.insert(*id, *hop);
            }
            Step::PutGroup(id, group) => {
                let members: BTreeSet<u32> = group.members.iter().map(|(id, _)| *id).collect();
                let whole = !members.is_empty() && members.len() == group.members.len();
                if !whole || !members.iter().all(|member| shown.nexthops.contains_key(member)) {
                    return refuse("not its members");
                }
                if shown.nexthops.contains_key(id)
                    || shown.groups.get(id).is_some_and(|old| old.resilient != group.resilient)
                {
                    return refuse("another kind");
                }
                shown.groups.insert(*id, group.clone());
            }
            Step::TakeRoute(..) => return refuse("nobody has left anything"),
            Step::AddRoute(key, way) | Step::ReplaceRoute(key, way) => {
                if matches!(step, Step::AddRoute(..)) == shown.routes.contains_key(key) {
                    return refuse("there already, or not there");
                }
                if let Way::Nexthop(id) = way
                    && !exists(shown, id)
                {
                    return refuse("no such nexthop");
                }
                shown.routes.insert(*key, *way);
            }
            Step::DeleteRoute(key, _) => {
                shown.routes.remove(key);
            }
            Step::DeleteGroup(id) | Step::DeleteNexthop(id) => self.lose(*id),
        }
        Ok(())
    }

    /// An object goes, and what leads there with it.
    fn lose(&mut self, id: u32) {
        self.shown.nexthops.remove(&id);
        self.shown.groups.remove(&id);
        for group in self.shown.groups.values_mut() {
            group.members.retain(|(member, _)| *member != id);
        }
        let empty: Vec<u32> =
            self.shown.groups.iter().filter(|(_, group)| group.members.is_empty()).map(|(id, _)| *id).collect();
        self.shown.routes.retain(|_, way| *way != Way::Nexthop(id));
        empty.into_iter().for_each(|id| self.lose(id));
    }

    /// With the carrier of a link go the objects behind it, and no route that names the link itself.
    fn lose_carrier(&mut self, link: u32) {
        self.silent.insert(link);
        let behind: Vec<u32> =
            self.shown.nexthops.iter().filter(|(_, hop)| hop.link == link).map(|(id, _)| *id).collect();
        behind.into_iter().for_each(|id| self.lose(id));
    }

    fn lose_link(&mut self, link: u32) {
        self.lose_carrier(link);
        self.silent.remove(&link);
        self.dead.insert(link);
        self.shown.routes.retain(|_, way| !matches!(way, Way::Link(l) | Way::Gateway { link: l, .. } if *l == link));
    }

    /// The links that packets to `ip` go out of.
    fn reaches(&self, ip: IpAddr) -> BTreeSet<u32> {
        match self.shown.routes.get(&leads(ip)) {
            Some(Way::Nexthop(id)) => {
                let members = self.shown.groups.get(id).into_iter().flat_map(|group| &group.members);
                members.filter_map(|(id, _)| Some(self.shown.nexthops.get(id)?.link)).collect()
            }
            Some(Way::Gateway { link, .. }) => [*link].into(),
            _ => BTreeSet::new(),
        }
    }

    fn weight(&self, ip: IpAddr, link: u32) -> Option<u8> {
        let Some(Way::Nexthop(id)) = self.shown.routes.get(&leads(ip)) else { return None };
        let mut members = self.shown.groups.get(id)?.members.iter();
        members
            .find(|(id, _)| self.shown.nexthops.get(id).is_some_and(|hop| hop.link == link))
            .map(|(_, weight)| *weight)
    }

    /// The links that `ip` is announced by, with their metrics.
    fn announces(&self, ip: IpAddr) -> Vec<(u32, u32)> {
        let of = |(key, way): (&RouteKey, &Way)| match way {
            Way::Link(link) if key.table == ANNOUNCED && key.to == IpNet::from(ip) => Some((*link, key.metric)),
            _ => None,
        };
        self.shown.routes.iter().filter_map(of).collect()
    }
}

const ADDRESSES: [&str; 4] = ["2001:db8:f::1", "2001:db8:f::2", "203.0.113.1", "203.0.113.2"];

#[derive(Debug, Clone)]
enum Event {
    /// A pod comes, which shares the addresses of these bits and lacks a family, or none.
    Add(u8, u8, u8),
    Says(u8, Option<bool>),
    /// Its link goes, and its lease with it.
    Gone(u8),
    /// Somebody takes its end of the link down, or up again.
    Carrier(u8, bool),
    /// Somebody else takes the number that would be the next but so many.
    Taken(u8),
    Stage(Stage),
    /// The agent is killed after so many steps.
    Killed(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let n = 1..6u8;
    let says = prop_oneof![4 => Just(Some(true)), 3 => Just(Some(false)), 1 => Just(None)];
    let stage = prop_oneof![3 => Just(Stage::Announcing), 1 => Just(Stage::Draining), 1 => Just(Stage::Withdrawn)];
    let event = prop_oneof![
        3 => (n.clone(), 1..16u8, 0..4u8).prop_map(|(n, shares, lacks)| Event::Add(n, shares, lacks)),
        8 => (n.clone(), says).prop_map(|(n, says)| Event::Says(n, says)),
        2 => n.clone().prop_map(Event::Gone),
        4 => (n, any::<bool>()).prop_map(|(n, up)| Event::Carrier(n, up)),
        1 => (0..4u8).prop_map(Event::Taken),
        1 => stage.prop_map(Event::Stage),
        3 => (0..8u8).prop_map(Event::Killed),
    ];
    proptest::collection::vec(event, 1..60)
}

struct World {
    support: Support,
    kernel: Kernel,
    pods: BTreeMap<u8, (Lease, Option<bool>)>,
    /// The addresses that each pod has been reached by.
    reached: BTreeSet<(u8, IpAddr)>,
    /// Those that it served at the last pass.
    served: BTreeSet<(u8, IpAddr)>,
    stage: Stage,
    next_link: u32,
    /// The links that lost their carrier since the last whole pass, whether or not they have it again.
    lost: BTreeSet<u32>,
    /// After how many steps the next pass with any ends.
    killed: Option<usize>,
}

impl World {
    fn new(support: Support) -> World {
        let (kernel, pods) = (Kernel::default(), BTreeMap::new());
        let (reached, served) = (BTreeSet::new(), BTreeSet::new());
        World {
            support,
            kernel,
            pods,
            reached,
            served,
            stage: Stage::Announcing,
            next_link: 100,
            lost: BTreeSet::new(),
            killed: None,
        }
    }

    fn wanted(&self) -> Routes {
        let leases = self.pods.values().map(|(lease, serves)| {
            let reachable = lease.host_index.is_some_and(|link| !self.kernel.silent.contains(&link));
            (lease, Standing { serves: *serves, reachable })
        });
        let foreign = Foreign { numbers: self.kernel.foreign.clone(), ..NONE };
        wanted(leases, &self.kernel.shown, &foreign, self.support).at(self.stage)
    }

    fn lease_of(&self, link: u32) -> Option<(u8, &Lease)> {
        self.pods.iter().find(|(_, (lease, _))| lease.host_index == Some(link)).map(|(n, (lease, _))| (*n, lease))
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Add(n, shares, lacks) if !self.pods.contains_key(n) => {
                let shared = ADDRESSES.iter().enumerate().filter(|(bit, _)| shares >> bit & 1 == 1);
                let shared: Vec<&str> = shared.map(|(_, address)| *address).collect();
                let mut lease = pod(*n, &shared);
                match lacks {
                    0 => lease.ipv6 = None,
                    1 => lease.ipv4 = None,
                    _ => {}
                }
                let (v6, v4) = (lease.ipv6.is_some(), lease.ipv4.is_some());
                lease.anycast.retain(|ip| if ip.is_ipv6() { v6 } else { v4 });
                self.next_link += 1;
                lease.host_index = Some(self.next_link);
                self.pods.insert(*n, (lease, Some(false)));
            }
            Event::Says(n, says) => {
                if let Some((_, serves)) = self.pods.get_mut(n) {
                    *serves = *says;
                }
            }
            Event::Gone(n) => {
                if let Some((lease, _)) = self.pods.remove(n) {
                    self.kernel.lose_link(lease.host_index.expect("it has a link"));
                    self.reached.retain(|(of, _)| of != n);
                    self.served.retain(|(of, _)| of != n);
                }
            }
            Event::Carrier(n, up) => {
                if let Some(link) = self.pods.get(n).and_then(|(lease, _)| lease.host_index) {
                    if *up {
                        self.kernel.silent.remove(&link);
                    } else {
                        self.kernel.lose_carrier(link);
                        self.lost.insert(link);
                        // Without objects the kernel goes on showing where it would lead.
                        if self.support != Support::Absent {
                            self.reached.retain(|(of, _)| of != n);
                            self.served.retain(|(of, _)| of != n);
                        }
                    }
                }
            }
            Event::Taken(skip) => {
                let free = NUMBERS.filter(|id| {
                    let shown = &self.kernel.shown;
                    !shown.nexthops.contains_key(id)
                        && !shown.groups.contains_key(id)
                        && !self.kernel.foreign.contains(id)
                });
                let taken: Vec<u32> = free.skip(usize::from(*skip)).take(1).collect();
                self.kernel.foreign.extend(taken);
            }
            Event::Stage(stage) => self.stage = *stage,
            Event::Killed(after) => self.killed = Some((*after).into()),
            Event::Add(..) => {}
        }
    }

    /// Nothing is announced that packets would not arrive at. An announcement of a pod whose link has lost its carrier is one that
    /// the next pass withdraws, or gives its way back if the carrier is there again by then: a kernel drops the way and keeps the
    /// announcement, and an agent that is killed between the two leaves that to the next one.
    fn assert_led(&self, when: &str) {
        for ip in ADDRESSES.map(ip) {
            let mut announced = self.kernel.announces(ip);
            announced.retain(|(link, _)| !self.lost.contains(link));
            let reaches = self.kernel.reaches(ip);
            let arrives = reaches.iter().any(|link| !self.kernel.silent.contains(link));
            assert!(announced.is_empty() || arrives, "{ip} is announced and leads nowhere {when}");
            for link in reaches {
                assert!(!self.kernel.dead.contains(&link), "{ip} leads to a link that is gone {when}");
            }
        }
    }

    /// One pass of the routing thread, looked at after each of its steps.
    fn pass(&mut self) {
        let serves: BTreeMap<(u8, IpAddr), bool> = self.serving();
        let metrics = ADDRESSES.map(|address| self.kernel.announces(ip(address)));
        let all = steps(&self.wanted(), &self.kernel.shown);
        let killed = self.killed.take_if(|after| *after < all.len());
        for step in all.into_iter().take(killed.unwrap_or(usize::MAX)) {
            let led: Vec<(IpAddr, BTreeSet<u32>)> = ADDRESSES.map(|a| (ip(a), self.kernel.reaches(ip(a)))).into();
            self.kernel.take(&step).expect("the kernel takes it");
            let when = format!("after {step}");
            self.assert_led(&when);
            for (ip, before) in led.iter().filter(|_| self.support != Support::Absent) {
                for link in before.difference(&self.kernel.reaches(*ip)) {
                    let lease = self.lease_of(*link).map(|(_, lease)| lease);
                    assert!(!lease.is_some_and(|lease| lease.anycast.contains(ip)), "{ip} lost a living pod {when}");
                }
            }
        }
        if killed.is_some() {
            self.remember();
            return;
        }
        self.lost.retain(|link| self.kernel.silent.contains(link));
        self.assert_led("after a whole pass");
        assert_eq!(steps(&self.wanted(), &self.kernel.shown), [], "a second pass, or one after a restart, finds work");
        self.assert_right(&serves, &metrics);
        self.served = serves.into_iter().filter(|(_, serves)| *serves).map(|(of, _)| of).collect();
    }

    /// After half a pass, what is so is what the kernel says.
    fn remember(&mut self) {
        (self.reached, self.served) = (BTreeSet::new(), BTreeSet::new());
        for ip in ADDRESSES.map(ip) {
            for link in self.kernel.reaches(ip) {
                let Some((n, _)) = self.lease_of(link) else { continue };
                self.reached.insert((n, ip));
                if self.kernel.weight(ip, link) == Some(SERVING) {
                    self.served.insert((n, ip));
                }
            }
        }
    }

    /// Which pods serve which address; where nobody can say, it is as it was.
    fn serving(&self) -> BTreeMap<(u8, IpAddr), bool> {
        let all = self.pods.iter().flat_map(|(n, (lease, serves))| {
            let as_it_was = |ip: IpAddr| match self.support {
                Support::Absent => lease.host_index.is_some_and(|link| self.kernel.reaches(ip).contains(&link)),
                Support::Plain | Support::Resilient => self.served.contains(&(*n, ip)),
            };
            let reachable = lease.host_index.is_none_or(|link| !self.kernel.silent.contains(&link));
            lease.anycast.iter().map(move |ip| ((*n, *ip), reachable && serves.unwrap_or_else(|| as_it_was(*ip))))
        });
        all.collect()
    }

    fn assert_right(&mut self, serves: &BTreeMap<(u8, IpAddr), bool>, metrics_before: &[Vec<(u32, u32)>; 4]) {
        for (address, before) in ADDRESSES.iter().zip(metrics_before) {
            let ip = ip(address);
            let links = |wanted: &dyn Fn(u8) -> bool| -> BTreeSet<u32> {
                let all = self.pods.iter().filter(|(n, (lease, _))| lease.anycast.contains(&ip) && wanted(**n));
                all.filter_map(|(_, (lease, _))| lease.host_index).collect()
            };
            let serving = links(&|n| serves[&(n, ip)]);
            let reached = links(&|n| self.reached.contains(&(n, ip)));
            let announced = self.kernel.announces(ip);
            let by: BTreeSet<u32> = announced.iter().map(|(link, _)| *link).collect();
            let reaches = self.kernel.reaches(ip);
            match self.stage {
                Stage::Withdrawn => assert!(by.is_empty(), "{announced:?}"),
                _ if self.support == Support::Absent => {
                    assert_eq!(by.len(), usize::from(!serving.is_empty()), "one pod, if any serves");
                    assert!(by.is_subset(&serving) && by.is_subset(&reaches), "{by:?} of {serving:?}");
                }
                _ => assert_eq!(by, serving, "who serves {ip} is announced"),
            }
            assert_eq!(by.len(), announced.len(), "one announcement for each: {announced:?}");
            for (link, metric) in &announced {
                let base = metric % DRAINING;
                assert_eq!(*metric > DRAINING, self.stage == Stage::Draining, "{announced:?}");
                assert!((1..=METRIC_MAX).contains(&base) && base <= 5, "small numbers: {announced:?}");
                let former = before.iter().find(|(of, _)| of == link);
                assert!(former.is_none_or(|(_, former)| former % DRAINING == base), "{former:?} became {metric}");
            }
            if self.support == Support::Absent {
                assert_eq!(reaches.len(), usize::from(!serving.is_empty() || !reached.is_disjoint(&reaches)), "{ip}");
            } else {
                let led: BTreeSet<u32> = serving.union(&reached).copied().collect();
                assert_eq!(reaches, led, "{ip} leads to who serves, and to who did");
                self.assert_weights(ip, &serving);
            }
            assert!(reaches.is_disjoint(&self.kernel.silent), "{ip} leads to a link that cannot send");
            for link in &reaches {
                let (n, _) = self.lease_of(*link).expect("no pod");
                self.reached.insert((n, ip));
            }
            let lost: Vec<(u8, IpAddr)> = self
                .reached
                .iter()
                .filter(|(n, of)| *of == ip && self.pods[n].0.host_index.is_none_or(|link| !reaches.contains(&link)))
                .copied()
                .collect();
            lost.iter().for_each(|of| {
                self.reached.remove(of);
            });
        }
    }

    fn assert_weights(&self, ip: IpAddr, serving: &BTreeSet<u32>) {
        let Some(Way::Nexthop(id)) = self.kernel.shown.routes.get(&leads(ip)) else { return };
        let group = &self.kernel.shown.groups[id];
        assert_eq!(group.resilient, self.support == Support::Resilient);
        let mut objects: BTreeMap<u32, usize> = BTreeMap::new();
        for (member, weight) in &group.members {
            let hop = self.kernel.shown.nexthops[member];
            *objects.entry(hop.link).or_default() += 1;
            assert!(NUMBERS.contains(member) && NUMBERS.contains(id));
            if !serving.is_empty() {
                let expected = if serving.contains(&hop.link) { SERVING } else { LEAVING };
                assert_eq!(*weight, expected, "{group:?}");
            }
            let (_, lease) = self.lease_of(hop.link).expect("a living pod");
            let own = [lease.ipv6.map(IpAddr::V6), lease.ipv4.map(IpAddr::V4)];
            assert_eq!(Some(hop.via), own.into_iter().flatten().next(), "by IPv6 if it has that");
            assert!(ip.is_ipv4() || hop.via.is_ipv6());
        }
        assert!(objects.values().all(|count| *count == self.support.objects()), "{group:?}");
    }
}

fn history(support: Support, events: &[Event]) {
    let mut world = World::new(support);
    for event in events {
        world.happens(event);
        world.assert_led("after what happened");
        world.pass();
    }
    // Everything goes with the last pod.
    for n in 1..6 {
        world.happens(&Event::Gone(n));
    }
    world.pass();
    assert_eq!(world.kernel.shown, Routes::default());
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn at_no_moment_is_anything_announced_that_leads_nowhere_and_a_quiet_pass_changes_nothing(events in events()) {
        for support in [Support::Resilient, Support::Plain, Support::Absent] {
            history(support, &events);
        }
    }
}

/// Found by chance: the way is gone with the carrier, the announcement is not, and the agent dies before it has looked.
#[test]
fn a_carrier_that_comes_and_goes_while_no_agent_runs_is_put_right_by_the_next_pass() {
    let events = [
        Event::Add(3, 1, 0),
        Event::Add(2, 3, 1),
        Event::Says(2, Some(true)),
        Event::Killed(0),
        Event::Carrier(2, false),
        Event::Carrier(2, true),
        Event::Stage(Stage::Announcing),
    ];
    for support in [Support::Resilient, Support::Plain, Support::Absent] {
        history(support, &events);
    }
}

/// What the main table and the announcements say of one address, with each pod by its number.
fn said(routes: &Routes, address: &str) -> String {
    let kernel = Kernel { shown: routes.clone(), ..Kernel::default() };
    let mut text = String::new();
    if let Some(Way::Nexthop(id)) = routes.routes.get(&leads(ip(address))) {
        for (member, weight) in &routes.groups[id].members {
            text += &format!("{}x{weight} ", routes.nexthops[member].link - 100);
        }
    }
    text += "announced";
    for (link, metric) in kernel.announces(ip(address)) {
        text += &format!(" {}@{metric}", link - 100);
    }
    text
}

/// Pods whose links all can send.
fn up<'a>(pods: &[(&'a Lease, Option<bool>)]) -> Vec<(&'a Lease, Standing)> {
    pods.iter().map(|(lease, serves)| (*lease, Standing { serves: *serves, reachable: true })).collect()
}

#[test]
fn a_pod_whose_link_cannot_send_leaves_the_address_to_the_others_until_it_can() {
    let address = "203.0.113.1";
    let [a, b] = [1, 2].map(|n| pod(n, &[address]));
    for (support, both, one) in [
        (Support::Resilient, "1x127 1x127 2x127 2x127 announced 1@1 2@2", "2x127 2x127 announced 2@2"),
        (Support::Plain, "1x127 2x127 announced 1@1 2@2", "2x127 announced 2@2"),
    ] {
        let mut kernel = Kernel::default();
        let pass = |kernel: &mut Kernel, [of_a, of_b]: [bool; 2], expected: &str| {
            let pods = [(&a, of_a), (&b, of_b)];
            let pods = pods.map(|(lease, reachable)| (lease, Standing { serves: Some(true), reachable }));
            let wanted = wanted(pods, &kernel.shown, &NONE, support);
            for step in steps(&wanted, &kernel.shown.clone()) {
                kernel.take(&step).expect("the kernel takes it");
            }
            assert_eq!(said(&kernel.shown, address), expected);
        };
        pass(&mut kernel, [true, true], both);
        kernel.lose_carrier(101);
        pass(&mut kernel, [false, true], one);
        kernel.lose_carrier(102);
        pass(&mut kernel, [false, false], "announced");
        assert_eq!(kernel.shown, Routes::default());
        kernel.silent.clear();
        pass(&mut kernel, [true, true], both);
    }
}

#[test]
fn a_route_of_the_go_flock_is_taken_over_if_it_leads_to_pods_of_the_address_only() {
    let address = "203.0.113.1";
    let [a, b, c] = [1, 2, 3].map(|n| pod(n, &[address]));
    let pods = up(&[(&a, None), (&b, Some(false)), (&c, Some(false))]);
    let left =
        |links: &[u32]| Foreign { routes: BTreeMap::from([(ip(address), links.iter().copied().collect())]), ..NONE };
    let pass = |foreign: &Foreign, shown: &Routes| wanted(pods.iter().copied(), shown, foreign, Support::Plain);
    let taken = pass(&left(&[101, 102]), &Routes::default());
    assert_eq!(said(&taken, address), "1x127 2x1 announced 1@1", "who had flows keeps them");
    let way = taken.routes[&leads(ip(address))];
    let all = steps(&taken, &Routes::default());
    assert!(all.contains(&Step::TakeRoute(leads(ip(address)), way, [101, 102].into())), "{all:?}");
    // With the route it is as it was, whatever is said to be left.
    let shown = Routes { left: BTreeMap::new(), ..taken };
    assert_eq!(steps(&pass(&left(&[101]), &shown), &shown), []);
    // Another pod's link, or nobody's, is not flock's to judge about.
    assert_eq!(pass(&left(&[101, 104]), &Routes::default()), Routes::default());
    // A pod that cannot be sent anything now is one of the address all the same.
    let silent = Standing { serves: Some(true), reachable: false };
    let some = [(&a, silent), (&b, Standing { reachable: true, ..silent })];
    let taken = wanted(some, &Routes::default(), &left(&[101, 102]), Support::Plain);
    assert_eq!((said(&taken, address).as_str(), taken.left.len()), ("2x127 announced 2@1", 1));
}

#[test]
fn a_route_that_is_refused_leaves_no_other_work_for_the_next_pass() {
    let a = pod(1, &["203.0.113.1", "203.0.113.2"]);
    let pass = |shown: &Routes| wanted(up(&[(&a, Some(true))]), shown, &NONE, Support::Resilient);
    let mut shown = pass(&Routes::default());
    shown.routes.retain(|key, _| key.to.addr() == ip("203.0.113.2"));
    let all = steps(&pass(&shown), &shown);
    assert!(all.iter().all(|step| matches!(step, Step::AddRoute(..))), "{all:?}");
}

#[test]
fn a_service_lives_through_a_rollout() {
    let address = "203.0.113.1";
    let [a, b] = [1, 2].map(|n| pod(n, &[address]));
    let mut shown = Routes::default();
    let mut pass = |pods: &[(&Lease, Option<bool>)], expected: &str| {
        shown = wanted(up(pods), &shown, &NONE, Support::Resilient);
        assert_eq!(said(&shown, address), expected);
    };
    pass(&[(&a, Some(false))], "announced");
    // Alone, and by two objects.
    pass(&[(&a, Some(true))], "1x127 1x127 announced 1@1");
    pass(&[(&a, Some(true)), (&b, Some(false))], "1x127 1x127 announced 1@1");
    pass(&[(&a, Some(true)), (&b, Some(true))], "1x127 1x127 2x127 2x127 announced 1@1 2@2");
    pass(&[(&a, Some(false)), (&b, Some(true))], "1x1 1x1 2x127 2x127 announced 2@2");
    pass(&[(&a, None), (&b, None)], "1x1 1x1 2x127 2x127 announced 2@2");
    // The last one: what is under way still arrives, most of it where it did.
    pass(&[(&a, Some(false)), (&b, Some(false))], "1x1 1x1 2x126 2x126 announced");
    pass(&[(&a, None), (&b, None)], "1x1 1x1 2x126 2x126 announced");
    pass(&[(&b, Some(false))], "2x126 2x126 announced");
    pass(&[(&b, Some(true))], "2x127 2x127 announced 2@1");
    pass(&[], "announced");
}

#[test]
fn both_families_of_a_pod_are_led_to_it_by_the_same_objects() {
    let both = pod(1, &["203.0.113.1", "2001:db8:f::1"]);
    let routes = wanted(up(&[(&both, Some(true))]), &Routes::default(), &NONE, Support::Resilient);
    assert_eq!((routes.nexthops.len(), routes.groups.len()), (2, 2));
    assert!(routes.nexthops.values().all(|hop| hop.via == ip("2001:db8::1")), "{routes:?}");
}

#[test]
fn a_number_of_somebody_else_is_passed_over_and_those_that_are_shown_stay() {
    let (a, b) = (pod(1, &["203.0.113.1"]), pod(2, &["203.0.113.1"]));
    let first = *NUMBERS.start();
    let foreign = Foreign { numbers: BTreeSet::from([first, first + 2]), ..NONE };
    let before = wanted(up(&[(&a, Some(true))]), &Routes::default(), &foreign, Support::Resilient);
    assert_eq!(before.nexthops.keys().copied().collect::<Vec<_>>(), [first + 1, first + 3]);
    assert_eq!(before.groups.keys().copied().collect::<Vec<_>>(), [first + 4]);
    let after = wanted(up(&[(&a, Some(true)), (&b, Some(true))]), &before, &foreign, Support::Resilient);
    assert_eq!(after.nexthops.keys().copied().collect::<Vec<_>>(), [1, 3, 5, 6].map(|n| first + n));
    assert_eq!(after.groups.keys().copied().collect::<Vec<_>>(), [first + 4]);
}

#[test]
fn where_all_numbers_are_taken_nothing_is_announced_that_leads_nowhere() {
    let a = pod(1, &["203.0.113.1"]);
    // Two for the objects, none for the group.
    let foreign = Foreign { numbers: NUMBERS.skip(2).collect(), ..NONE };
    let routes = wanted(up(&[(&a, Some(true))]), &Routes::default(), &foreign, Support::Resilient);
    assert_eq!(routes.routes, BTreeMap::new());
}

#[test]
fn an_address_that_is_a_pods_alone_leads_to_nobody_else() {
    let (mut owner, other) = (pod(1, &[]), pod(2, &["203.0.113.1", "203.0.113.2"]));
    owner.extra = vec![ip("203.0.113.1")];
    let routes = wanted(up(&[(&owner, Some(true)), (&other, Some(true))]), &Routes::default(), &NONE, Support::Plain);
    assert!(routes.routes.keys().all(|key| key.to.to_string() == "203.0.113.2/32"), "{routes:?}");
}

#[test]
fn a_group_of_the_other_kind_makes_way_for_a_new_one() {
    let a = pod(1, &["203.0.113.1"]);
    let plain = wanted(up(&[(&a, Some(true))]), &Routes::default(), &NONE, Support::Plain);
    let resilient = wanted(up(&[(&a, Some(true))]), &plain, &NONE, Support::Resilient);
    let mut kernel = Kernel { shown: plain, ..Kernel::default() };
    for step in steps(&resilient, &kernel.shown.clone()) {
        kernel.take(&step).expect("the kernel takes it");
        assert_eq!(kernel.reaches(ip("203.0.113.1")), [101].into(), "after {step}");
    }
    assert_eq!(kernel.shown, resilient);
}

#[test]
fn without_nexthop_objects_one_pod_is_led_to_until_another_has_to_be() {
    let address = "203.0.113.1";
    let [a, b] = [1, 2].map(|n| pod(n, &[address]));
    let mut shown = Routes::default();
    let mut pass = |pods: &[(&Lease, Option<bool>)], to: &str, announced: &str| {
        shown = wanted(up(pods), &shown, &NONE, Support::Absent);
        let way = shown.routes.get(&leads(ip(address))).map(ToString::to_string).unwrap_or_default();
        assert_eq!((way.as_str(), said(&shown, address).as_str()), (to, announced));
    };
    pass(&[(&b, Some(true))], "via 10.0.0.2 on link 102", "announced 2@1");
    pass(&[(&a, Some(true)), (&b, Some(true))], "via 10.0.0.2 on link 102", "announced 2@1");
    pass(&[(&a, Some(true)), (&b, Some(false))], "via 10.0.0.1 on link 101", "announced 1@1");
    pass(&[(&a, Some(false)), (&b, Some(false))], "via 10.0.0.1 on link 101", "announced");
}
