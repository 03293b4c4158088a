//! Keeps the routes of the node that are no pod's link's: what it announces in table 102, how it reaches other nodes, and where
//! anycast addresses lead. One thread, the only writer of these routes.
//!
//! Each round compares what is wanted with what the kernel shows and carries out the difference, in the order in which nothing is
//! announced that cannot be reached. `model::routes` decides what is wanted and in which order; this file asks, carries out and
//! says. Must not touch the routes of pods' links or the host's settings.

pub mod anycast;
pub mod bird;
pub mod commands;
pub mod condition;
pub mod drain;
pub mod flaps;
pub mod news;
pub mod others;
pub mod pace;
pub mod remedy;
pub mod restart;
pub mod state;

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::agent::board::Board;
use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::ledger::Ledger;
use crate::agent::metrics::meters::{Mended, Meters};
use crate::agent::neighbours::Neighbours;
use crate::agent::node::state::{NodeState, View};
use crate::agent::routing::anycast::Anycast;
use crate::agent::routing::drain::DrainFile;
use crate::agent::routing::news::{Heard, News};
use crate::agent::routing::others::{Judgement, Others};
use crate::agent::routing::pace::{INTERVAL, Pace, Round};
use crate::agent::routing::remedy::remedy;
use crate::agent::routing::state::RoutesState;
use crate::agent::suspicion::{Budget, Suspicions};
use crate::kernel::netlink::Cause::Occupied;
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netlink::{Hop, NetlinkError};
use crate::process::failpoint;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::process::progress::Progress;
use model::lease::Lease;
use model::peers::summary;
use model::plan::ROUTE_PROTOCOL;
use model::routes::{self, ANNOUNCED, MAIN, RouteKey, Routes, Stage, Way, announce, steps};

/// Rounds that put something back out of turn at once; then there is one in each [`INTERVAL`].
const REPAIRS: u32 = 10;

/// Deadline for one round, 10 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Pause after a round in which the kernel refused something, 5 s.
const RETRY_REFUSED: Duration = Duration::from_secs(5);

/// Most lines about ranges and addresses that other nodes have, too.
const TOLD_MAX: usize = 8;

/// Most failures of one round that are told one by one.
const FAILURES_TOLD: usize = 4;

/// The thread's state.
#[derive(Debug)]
pub struct Routing {
    ledger: Ledger,
    node: Board<NodeState>,
    /// What the kernel has announced of the routes.
    suspicions: Suspicions,
    drain: DrainFile,
    /// The other nodes; none without Kubernetes.
    others: Option<Others>,
    anycast: Anycast,
    pace: Pace,
    /// The overlaps of ranges that the log has, which need no second line.
    overlaps: BTreeSet<String>,
    /// The routes that are not made, as somebody else's stands in their place and leads to the same node.
    led: BTreeSet<RouteKey>,
    /// Whether the host has been ready for pods: nothing is announced before.
    serving: bool,
    /// A digest of what was wanted at the end of the last round that succeeded. The routes themselves are in the kernel.
    wanted: Option<u64>,
    neighbours: Neighbours,
    budget: Budget,
    state: RoutesState,
    meters: Arc<Meters>,
    uncompared: Lasting,
    unproxied: Lasting,
    unstaged: Lasting,
    unset: Lasting,
    board: Board<RoutesState>,
    progress: Progress,
}

impl Routing {
    /// Routes of which nothing is known yet. The outcome is published on `board`.
    pub fn new(
        ledger: Ledger,
        node: Board<NodeState>,
        suspicions: Suspicions,
        drain: DrainFile,
        others: Option<Others>,
        anycast: Anycast,
        board: Board<RoutesState>,
    ) -> Routing {
        Routing {
            ledger,
            node,
            suspicions,
            drain,
            others,
            anycast,
            pace: Pace::new(Instant::now()),
            overlaps: BTreeSet::new(),
            led: BTreeSet::new(),
            serving: false,
            wanted: None,
            neighbours: Neighbours::default(),
            budget: Budget::new(REPAIRS, INTERVAL, Instant::now()),
            state: RoutesState::default(),
            meters: Arc::default(),
            uncompared: Lasting::default(),
            unproxied: Lasting::default(),
            unstaged: Lasting::default(),
            unset: Lasting::default(),
            board,
            progress: Progress::default(),
        }
    }

    /// The same, counted by these meters.
    #[must_use]
    pub fn counted_by(self, meters: &Arc<Meters>) -> Routing {
        Routing { neighbours: self.neighbours.counted_by(meters), meters: meters.clone(), ..self }
    }

    /// The thread's sign of life.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Makes a round at each message and after each interval, until [`News::Stop`] comes or nobody can send any more. What the
    /// kernel announces is answered no more than a twentieth of the time.
    pub fn run(mut self, messages: &Receiver<News>) {
        loop {
            let limit = self.pace.wait(self.state.stage, Instant::now());
            let mut heard = self.progress.resting(|| Heard::wait(messages, limit));
            // On most nodes no pod shares an address, and pods come and go all the time.
            heard.look |= heard.pods && self.anycast.is_shared();
            if heard.stop {
                return;
            }
            let (turned, began) = (self.stage() != self.state.stage, Instant::now());
            let Some(round) = self.pace.round(heard, turned, began) else {
                if heard.proxies {
                    self.keep_neighbours(false);
                }
                continue;
            };
            // Before the looks: what is announced from now on makes others.
            self.suspicions.take_routes();
            self.keep_neighbours(round.due);
            match self.round(round) {
                Ok(again_at) => {
                    self.pace.succeeded(began, again_at, Instant::now());
                    self.uncompared.over(|| log::info("routes can be compared again"));
                }
                Err(cause) => {
                    let fault = Fault { step: Step::Compare, cause };
                    self.pace.failed(round, began, Instant::now());
                    self.state.problem = Some(fault.to_string());
                    self.uncompared.met(fault, || log::warn("routes cannot be compared"));
                }
            }
            self.board.set(self.state.clone());
        }
    }

    /// One comparison of the neighbour proxies, also of a node that has no NodeConfig yet or does not serve.
    fn keep_neighbours(&mut self, due: bool) {
        let state = self.node.get();
        let config = state.view.as_ref().map(|view| &view.config);
        let deadline = Instant::now() + LIMIT;
        match self.neighbours.keep(config, due, || self.ledger.leases(deadline), deadline) {
            Ok(()) => self.unproxied.over(|| log::info("neighbour proxies can be compared again")),
            Err(cause) => {
                let fault = Fault { step: Step::Compare, cause };
                self.unproxied.met(fault, || log::warn("neighbour proxies cannot be compared"));
            }
        }
    }

    fn stage(&mut self) -> Stage {
        match self.drain.stage() {
            Ok(stage) => {
                self.unstaged.over(|| log::info("whether this node is withdrawn can be read again"));
                stage
            }
            Err(error) => {
                self.unstaged.met(error, || log::warn("whether this node is withdrawn cannot be read"));
                self.state.stage
            }
        }
    }

    /// Takes up `stage`, and says so if it is another one.
    fn enter(&mut self, stage: Stage) {
        if stage != self.state.stage {
            say_stage(stage);
        }
        self.state.stage = stage;
    }

    /// One comparison, with what it puts right. Returns when to look again without any news.
    fn round(&mut self, Round { due, kernel }: Round) -> Result<Option<Instant>, Cause> {
        let state = self.node.get();
        self.serving |= state.host.is_ready();
        let Some(view) = state.view.as_ref().filter(|_| self.serving) else {
            return self.before_serving(state.view.as_deref()).map(|()| None);
        };
        let deadline = Instant::now() + LIMIT;
        failpoint::pass("routes.compare").ok();
        let mut conn = Conn::open(deadline)?;
        // Routes before leases: what is shown of a link that goes in between is wanted no more, and its removal finds nothing.
        let shown = conn.shown_routes()?;
        // Behind the routes: whoever withdraws the node says so before he takes its announcements away.
        let stage = self.stage();
        let (leases, busy) = self.ledger.leases(deadline)?;
        let mut others = match &mut self.others {
            Some(others) => others.judge(&mut conn, (&state, view), &leases, &shown, kernel || due)?,
            None => Judgement::default(),
        };
        self.state.reached = others.direct.then_some(others.routes.routes.len());
        let mut wanted = wanted(view, &leases, &mut others);
        let anycast = self.anycast.wanted(&mut conn, &leases, &shown)?;
        let shared: BTreeSet<RouteKey> = anycast.routes.keys().filter(|key| key.table == MAIN).copied().collect();
        wanted.extend(anycast);
        // An address that some pod of another node had alone before pods here came to share it.
        wanted.routes.retain(|key, _| key.table != ANNOUNCED || !is_lost(&others, key.to));
        let wanted = wanted.at(stage);
        let mut steps = steps(&wanted, &shown);
        let led = self.led.clone();
        let is_led = |step: &routes::Step| added(step).is_some_and(|key| led.contains(&key));
        // That such a route is another one, or gone, is news of the kernel's.
        if !(kernel || due) {
            steps.retain(|step| !is_led(step));
        }
        self.enter(stage);
        self.state.announced = Some(announced(&wanted));
        let again_at = [others.again_at, self.anycast.again_at()].into_iter().flatten().min();
        self.stand(&others);
        // A request that removes a link, or makes one, is at work on its routes as well.
        let busy = leases.iter().filter(|lease| busy.contains(&lease.attachment));
        let passing = Passing::new(busy.filter_map(|lease| lease.host_index), &wanted);
        // What was in force and is wanted still was taken away by somebody.
        let own_work = |step: &routes::Step| passing.concerns(step) || is_led(step);
        let digest = digest(&wanted);
        let lost = self.wanted == Some(digest) && !steps.iter().all(own_work);
        if lost && !due && !self.budget.take(Instant::now()) {
            log::warn("somebody keeps changing the routes of this node; they are put back in rounds only")
                .number("seconds", INTERVAL.as_secs())
                .write_limited();
            return Ok(again_at);
        }
        if self.wanted != Some(digest) {
            self.suspicions.keep_places(places(&wanted));
        }
        let listed = self.others.as_ref().map(Others::listed);
        let peers = LazyCell::new(|| listed.as_ref().map(|listed| listed.peers()).unwrap_or_default());
        let place = |key: RouteKey, way, hops: &[Hop]| match key.table == MAIN && !shared.contains(&key) {
            false => Place::OfPods,
            true if others::leads_there(&peers, way, hops) => Place::Led,
            true => Place::OfNode,
        };
        let Outcome { problem, led, done } = carry_out(&mut conn, &steps, &passing, lost, place);
        if lost {
            self.meters.mended(Mended::NodeRoute, done);
        }
        let tried: BTreeSet<RouteKey> = steps.iter().filter_map(added).collect();
        self.led.retain(|key| wanted.routes.contains_key(key) && !tried.contains(key));
        self.led.extend(led);
        match &problem {
            Some(problem) => self.unset.met(problem, || log::error("routes cannot be set")),
            None => self.unset.over(|| log::info("routes are set again")),
        }
        let retry = problem.is_some().then(|| Instant::now() + RETRY_REFUSED);
        self.wanted = problem.is_none().then_some(digest);
        self.state.problem = problem;
        Ok(again_at.into_iter().chain(retry).min())
    }

    /// What there is to do before the node has a NodeConfig and its host has been ready.
    fn before_serving(&mut self, view: Option<&View>) -> Result<(), Cause> {
        let stage = self.stage();
        self.enter(stage);
        // Others may have to know the way to pods that are there, whatever ails the host.
        if let (Some(others), Some(view)) = (&self.others, view) {
            others.tell(&self.ledger.leases(Instant::now() + LIMIT)?.0, view);
        }
        self.state.problem = None;
        Ok(())
    }

    fn stand(&mut self, others: &Judgement) {
        let contests: Vec<String> = others.contests.iter().take(TOLD_MAX).map(ToString::to_string).collect();
        let news = contests.iter().filter(|line| !self.state.contests.contains(line));
        news.for_each(|line| log::error("an address has two pods").with("what", line).write_limited());
        let news = others.astray.iter().filter(|line| !self.state.contests.contains(line));
        news.for_each(|line| log::error("an address is not its pod's alone").with("what", line).write_limited());
        let contests = contests.into_iter().chain(others.astray.iter().cloned()).collect();
        let overlaps: BTreeSet<String> = others.overlaps.iter().take(TOLD_MAX).map(ToString::to_string).collect();
        let news = overlaps.difference(&self.overlaps);
        news.for_each(|line| log::error("a range has two nodes").with("what", line).write_limited());
        let unreached = others.remarks.as_deref().map(summary);
        let known = self.state.unreached.iter().flatten();
        let news: Vec<&String> =
            unreached.iter().flatten().filter(|line| !known.clone().any(|old| old == *line)).collect();
        news.iter()
            .for_each(|line| log::warn("other nodes are not reached directly").with("what", line).write_limited());
        (self.state.contests, self.state.unreached, self.overlaps) = (contests, unreached, overlaps);
    }
}

/// What this node announces, and the routes to others, which are taken out of the judgement.
fn wanted(view: &View, leases: &[Lease], others: &mut Judgement) -> Routes {
    let mut wanted = announce::own(&view.config.prefixes(), leases, |ip| is_lost(others, ip.into()));
    wanted.extend(std::mem::take(&mut others.routes));
    wanted
}

fn digest(wanted: &Routes) -> u64 {
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    hasher.finish()
}

/// Whether `to` is an address that counts as another node's.
fn is_lost(others: &Judgement, to: IpNet) -> bool {
    others.contests.iter().any(|contest| contest.lost && IpNet::from(contest.ours.address) == to)
}

fn added(step: &routes::Step) -> Option<RouteKey> {
    if let routes::Step::AddRoute(key, _) = step { Some(*key) } else { None }
}

/// The route that a step makes or leads elsewhere.
fn put(step: &routes::Step) -> Option<(RouteKey, Way)> {
    match step {
        routes::Step::AddRoute(key, way)
        | routes::Step::TakeRoute(key, way, _)
        | routes::Step::ReplaceRoute(key, way) => Some((*key, *way)),
        _ => None,
    }
}

/// The destinations in the main table.
fn places(wanted: &Routes) -> BTreeSet<IpNet> {
    wanted.routes.keys().filter(|key| key.table == MAIN).map(|key| key.to).collect()
}

/// What became of steps.
#[derive(Debug, Default)]
struct Outcome {
    /// What failed, in words for an operator.
    problem: Option<String>,
    /// The routes in whose place somebody else's stands that leads to the same node.
    led: BTreeSet<RouteKey>,
    /// How many steps were done.
    done: u64,
}

/// What a route of somebody else's stands in the place of.
enum Place {
    /// A route to another node, to which that one leads, too.
    Led,
    /// A route to another node.
    OfNode,
    /// A route to this node's pods, or what it announces.
    OfPods,
}

/// Carries out `steps`, and says so. `place` tells in whose place somebody else's route by these hops stands.
fn carry_out(
    conn: &mut Conn,
    steps: &[routes::Step],
    passing: &Passing,
    lost: bool,
    place: impl Fn(RouteKey, Way, &[Hop]) -> Place,
) -> Outcome {
    let mut outcome = Outcome::default();
    if steps.is_empty() {
        return outcome;
    }
    failpoint::pass("routes.change").ok();
    let mut failures = Vec::new();
    for (result, step) in conn.carry_out(steps).into_iter().zip(steps) {
        match result {
            Ok(()) => outcome.done += 1,
            Err(error) if has_passed(step, &error) || passing.concerns(step) => {}
            Err(error) => match (put(step), &error.cause) {
                (Some((key, way)), Occupied { protocol, hops }) if *protocol != ROUTE_PROTOCOL => {
                    let to_node = match place(key, way, hops) {
                        Place::Led => {
                            outcome.led.insert(key);
                            continue;
                        }
                        Place::OfNode => true,
                        Place::OfPods => false,
                    };
                    failures.push(format!("{error}: {}", remedy(key, *protocol, to_node)));
                }
                _ => failures.push(error.to_string()),
            },
        }
    }
    failpoint::pass("routes.changed").ok();
    if outcome.done > 0 {
        let line = match lost {
            true => log::warn("routes were changed by somebody, and are put back"),
            false => log::info("routes changed"),
        };
        let first = steps.first().map(ToString::to_string);
        line.number("changes", outcome.done).with_some("first", first).write_limited();
    }
    if failures.is_empty() {
        return outcome;
    }
    let more = failures.len().saturating_sub(FAILURES_TOLD);
    failures.truncate(FAILURES_TOLD);
    let mut told = failures.join("; ");
    if more > 0 {
        told.push_str(&format!("; and {more} more"));
    }
    outcome.problem = Some(told);
    outcome
}

/// The links that requests are at work on, and the nexthop objects and groups that lead there.
#[derive(Debug, Default)]
struct Passing {
    links: BTreeSet<u32>,
    objects: BTreeSet<u32>,
}

impl Passing {
    fn new(links: impl Iterator<Item = u32>, wanted: &Routes) -> Passing {
        let links: BTreeSet<u32> = links.collect();
        let there = wanted.nexthops.iter().filter(|(_, nexthop)| links.contains(&nexthop.link)).map(|(id, _)| *id);
        let mut objects: BTreeSet<u32> = there.collect();
        let groups = wanted.groups.iter().filter(|(_, group)| group.members.iter().any(|(id, _)| objects.contains(id)));
        let groups: Vec<u32> = groups.map(|(id, _)| *id).collect();
        objects.extend(groups);
        Passing { links, objects }
    }

    /// Whether what becomes of a step is the matter of such a request, which wakes this thread at its end.
    fn concerns(&self, step: &routes::Step) -> bool {
        match step {
            routes::Step::AddRoute(_, way)
            | routes::Step::TakeRoute(_, way, _)
            | routes::Step::ReplaceRoute(_, way)
            | routes::Step::DeleteRoute(_, way) => match way {
                Way::Link(link) | Way::Gateway { link, .. } => self.links.contains(link),
                Way::Nexthop(id) => self.objects.contains(id),
                Way::Unreachable => false,
            },
            routes::Step::PutNexthop(id, _) | routes::Step::DeleteNexthop(id) => self.objects.contains(id),
            routes::Step::PutGroup(id, _) | routes::Step::DeleteGroup(id) => self.objects.contains(id),
        }
    }
}

/// Whether a refusal only says that the link has gone: the end of its lease is under way, and with it that of its routes.
fn has_passed(step: &routes::Step, error: &NetlinkError) -> bool {
    match step {
        routes::Step::DeleteRoute(..) | routes::Step::DeleteGroup(_) | routes::Step::DeleteNexthop(_) => {
            error.is_gone()
        }
        _ => error.is_no_device(),
    }
}

/// Number of different prefixes among the announcements.
fn announced(wanted: &Routes) -> usize {
    let mut prefixes: Vec<_> =
        wanted.routes.keys().filter(|key: &&RouteKey| key.table == ANNOUNCED).map(|key| key.to).collect();
    prefixes.dedup();
    prefixes.len()
}

fn say_stage(stage: Stage) {
    match stage {
        Stage::Announcing => log::info("node announces itself again").write(),
        Stage::Draining => log::info("node announces that others are to be preferred, as `withdraw` asked").write(),
        Stage::Withdrawn => {
            log::info("node announces nothing, as `withdraw` asked; `flock-agent announce` ends that").write()
        }
    }
}
