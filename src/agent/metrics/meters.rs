//! What is counted where it happens, for whoever reads the metrics: one value that all threads share.
//!
//! Only what no state tells: how often, how long, since when. Must not decide anything, nor wait for anybody.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::agent::fault::{Cause, Fault, Step};
use crate::process::dates::unix;
use crate::process::meter::{Histogram, Meter, Tally};
use cni::error::Code;
use cni::verb::Verb;
use model::addr::Family;
use model::desired::Difference;
use model::ipam::IpamError;
use model::plan::Change;

/// Ends of the ranges of a call, in microseconds: an ADD takes 2 ms on an idle machine, and no call is waited for longer than 30 s.
const CALLS: &[u64] =
    &[1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000, 30_000_000];

/// Ends of the ranges of a step and of a round.
const PARTS: &[u64] = &[1_000, 5_000, 25_000, 100_000, 1_000_000, 10_000_000];

/// Codes that a call can end with, success included.
const CODES: usize = Code::ALL.len() + 1;

/// The calls that the agent serves. VERSION is answered by the plugin.
pub const CALLED: [Verb; 5] = [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status];

/// The families, each of which has addresses of its own.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// The steps whose times are kept: where the time of a call goes.
pub const STEPS: [Step; 7] =
    [Step::Intent, Step::Reserve, Step::Wire, Step::Commit, Step::Unwire, Step::Release, Step::Compare];

/// The meters of the agent.
#[derive(Debug)]
pub struct Meters {
    calls: [Tally<CODES>; CALLED.len()],
    times: [Histogram; CALLED.len()],
    steps: [Histogram; STEPS.len()],
    refusals: [Tally<{ Lack::ALL.len() }>; 2],
    mended: Tally<{ Mended::ALL.len() }>,
    ended: Tally<{ Ending::ALL.len() }>,
    /// Delete notes that wait.
    pub notes: Meter,
    /// Delete notes that were carried out.
    pub replayed: Meter,
    /// How long a comparison of record and kernel took.
    pub rounds: Histogram,
    /// When the last one has succeeded, in seconds since 1970; 0 before the first.
    pub compared: Meter,
    /// Changes of the packet filter, each as a whole in force or not at all.
    pub batches: Meter,
    /// Rules of flock's in the packet filter.
    pub rules: Meter,
    /// Connections that were allowed have been judged anew so often, since something was taken away.
    pub revocations: Meter,
}

impl Default for Meters {
    fn default() -> Meters {
        Meters {
            calls: std::array::from_fn(|_| Tally::default()),
            times: std::array::from_fn(|_| Histogram::new(CALLS)),
            steps: std::array::from_fn(|_| Histogram::new(PARTS)),
            refusals: Default::default(),
            mended: Tally::default(),
            ended: Tally::default(),
            notes: Meter::default(),
            replayed: Meter::default(),
            rounds: Histogram::new(PARTS),
            compared: Meter::default(),
            batches: Meter::default(),
            rules: Meter::default(),
            revocations: Meter::default(),
        }
    }
}

/// Why there was no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Pods hold them all.
    Exhausted,
    /// The one that was asked for is somebody's, or was until just now.
    Taken,
    /// The pod asks for what the node's range does not have.
    NotInRange,
}

impl Lack {
    /// Each of them.
    pub const ALL: [Lack; 3] = [Lack::Exhausted, Lack::Taken, Lack::NotInRange];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Lack::Exhausted => "exhausted",
            Lack::Taken => "taken",
            Lack::NotInRange => "not_in_range",
        }
    }

    /// Of which family there was none, and why.
    fn of(error: &IpamError) -> (Family, Lack) {
        match error {
            IpamError::NoRange(family) => (*family, Lack::NotInRange),
            IpamError::Disjoint { node, .. } | IpamError::NotForPods { node, .. } => {
                (family(node.addr()), Lack::NotInRange)
            }
            IpamError::TooSmall(_) => (Family::V4, Lack::NotInRange),
            IpamError::Held(ip) | IpamError::Reserved(ip) => (family(*ip), Lack::Taken),
            IpamError::Resting { address, .. } => (family(*address), Lack::Taken),
            IpamError::Exhausted { range, .. } => (family(range.addr()), Lack::Exhausted),
        }
    }
}

/// What somebody had changed, and flock has put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// A pod's route.
    Route,
    /// A pod's neighbour entry.
    Neighbour,
    /// An address of a pod's host end.
    Address,
    /// The text beside a link.
    Alias,
    /// Another property of a link.
    Link,
    /// A kernel setting.
    Sysctl,
    /// The route that keeps packets to free addresses here.
    Unreachable,
    /// An announcement, or a route to another node.
    NodeRoute,
    /// A neighbour proxy.
    Proxy,
    /// A table of the packet filter.
    Table,
}

impl Mended {
    /// Each of them.
    pub const ALL: [Mended; 10] = [
        Mended::Route,
        Mended::Neighbour,
        Mended::Address,
        Mended::Alias,
        Mended::Link,
        Mended::Sysctl,
        Mended::Unreachable,
        Mended::NodeRoute,
        Mended::Proxy,
        Mended::Table,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Mended::Route => "route",
            Mended::Neighbour => "neighbour",
            Mended::Address => "address",
            Mended::Alias => "alias",
            Mended::Link => "link",
            Mended::Sysctl => "sysctl",
            Mended::Unreachable => "unreachable",
            Mended::NodeRoute => "node_route",
            Mended::Proxy => "proxy",
            Mended::Table => "table",
        }
    }
}

impl From<&Change> for Mended {
    fn from(change: &Change) -> Mended {
        match change {
            Change::Route { .. } => Mended::Route,
            Change::Neighbour { .. } => Mended::Neighbour,
            Change::Address { .. } => Mended::Address,
            Change::Alias(_) => Mended::Alias,
            Change::Setting(_) => Mended::Sysctl,
            Change::Name(_) | Change::Mac(_) | Change::NoAutoAddress | Change::Up => Mended::Link,
        }
    }
}

impl From<&Difference> for Mended {
    fn from(difference: &Difference) -> Mended {
        match difference {
            Difference::Reachable(_) | Difference::Unreachable(_) => Mended::Unreachable,
            _ => Mended::Sysctl,
        }
    }
}

/// Why a lease has ended without its DEL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its link had gone, and with it the pod.
    LinkGone,
    /// Its ADD was never finished.
    Pending,
    /// A note told of its DEL.
    Note,
    /// The runtime did not know it any more.
    Unknown,
}

impl Ending {
    /// Each of them.
    pub const ALL: [Ending; 4] = [Ending::LinkGone, Ending::Pending, Ending::Note, Ending::Unknown];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Ending::LinkGone => "link_gone",
            Ending::Pending => "pending",
            Ending::Note => "note",
            Ending::Unknown => "gc",
        }
    }
}

impl Meters {
    /// A call of this kind has ended.
    pub fn called(&self, verb: Verb, took: Duration, fault: Option<&Fault>) {
        let Some(of) = place(&CALLED, &verb) else { return };
        let code = fault.map(|fault| fault.to_error().code());
        let code = code.and_then(|code| place(&Code::ALL, &code)).map_or(0, |code| code + 1);
        self.calls.get(of).into_iter().for_each(|calls| calls.add(code, 1));
        self.times.get(of).into_iter().for_each(|times| times.took(took));
        if let Some(Cause::Ipam(error)) = fault.map(|fault| &fault.cause) {
            let (family, lack) = Lack::of(error);
            let refusals = self.refusals.iter().zip(FAMILIES).find(|(_, of)| *of == family);
            refusals.into_iter().for_each(|(refusals, _)| refusals.add(lack as usize, 1));
        }
    }

    /// A step that began then is over.
    pub fn step(&self, step: Step, began: Instant) {
        let times = self.steps.iter().zip(STEPS).find(|(_, of)| *of == step);
        times.into_iter().for_each(|(times, _)| times.took(began.elapsed()));
    }

    /// Something was put back.
    pub fn mended(&self, what: Mended, times: u64) {
        self.mended.add(what as usize, times);
    }

    /// A lease has ended without its DEL.
    pub fn ended(&self, why: Ending) {
        self.ended.add(why as usize, 1);
    }

    /// Record and kernel were compared, from then on.
    pub fn compared(&self, began: Instant) {
        self.rounds.took(began.elapsed());
        self.compared.set(unix(SystemTime::now()));
    }

    /// How many calls have ended with each code, 0 for success, by their verbs.
    pub fn calls(&self) -> impl Iterator<Item = (Verb, u32, u64)> {
        let codes = || [0].into_iter().chain(Code::ALL.map(Code::number)).enumerate();
        let each = CALLED.into_iter().zip(&self.calls);
        each.flat_map(move |(verb, calls)| codes().map(move |(place, code)| (verb, code, calls.get(place))))
    }

    /// How long calls took, by their verbs.
    pub fn times(&self) -> impl Iterator<Item = (Verb, &Histogram)> {
        CALLED.into_iter().zip(&self.times)
    }

    /// How long steps took.
    pub fn steps(&self) -> impl Iterator<Item = (Step, &Histogram)> {
        STEPS.into_iter().zip(&self.steps)
    }

    /// How often there was no address.
    pub fn refusals(&self) -> impl Iterator<Item = (Family, Lack, u64)> {
        let each = FAMILIES.into_iter().zip(&self.refusals);
        each.flat_map(|(family, tally)| Lack::ALL.map(|lack| (family, lack, tally.get(lack as usize))))
    }

    /// How often something was put back.
    pub fn all_mended(&self) -> impl Iterator<Item = (Mended, u64)> {
        Mended::ALL.into_iter().map(|what| (what, self.mended.get(what as usize)))
    }

    /// How often a lease has ended without its DEL.
    pub fn all_ended(&self) -> impl Iterator<Item = (Ending, u64)> {
        Ending::ALL.into_iter().map(|why| (why, self.ended.get(why as usize)))
    }
}

fn family(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn place<T: PartialEq>(all: &[T], one: &T) -> Option<usize> {
    all.iter().position(|other| other == one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::error::Error;

    #[test]
    fn a_call_counts_by_its_code_and_a_full_range_by_its_family() {
        let meters = Meters::default();
        let took = Duration::from_millis(3);
        meters.called(Verb::Add, took, None);
        let full = IpamError::Exhausted {
            range: "10.0.0.0/24".parse().expect("literal"),
            usable: 253,
            held: 253,
            reserved: 0,
        };
        meters.called(Verb::Add, took, Some(&Fault::new(Step::Reserve, full)));
        meters.called(Verb::Del, took, Some(&Fault::new(Step::Receive, Error::new(Code::Internal, "x"))));
        meters.called(Verb::Version, took, None);
        let counted: Vec<_> = meters.calls().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counted, [(Verb::Add, 0, 1), (Verb::Add, 11, 1), (Verb::Del, 999, 1)]);
        let times: Vec<u64> = meters.times().map(|(_, times)| times.shown().count).collect();
        assert_eq!(times, [2, 1, 0, 0, 0]);
        let refused: Vec<_> = meters.refusals().filter(|(.., count)| *count > 0).collect();
        assert_eq!(refused, [(Family::V4, Lack::Exhausted, 1)]);
    }

    #[test]
    fn every_kind_is_at_its_place() {
        assert!(Mended::ALL.iter().enumerate().all(|(place, what)| *what as usize == place));
        assert!(Ending::ALL.iter().enumerate().all(|(place, why)| *why as usize == place));
        assert!(Lack::ALL.iter().enumerate().all(|(place, lack)| *lack as usize == place));
        let meters = Meters::default();
        meters.mended(Mended::Table, 2);
        meters.ended(Ending::Note);
        assert_eq!(meters.all_mended().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [(Mended::Table, 2)]);
        assert_eq!(meters.all_ended().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [(Ending::Note, 1)]);
        meters.step(Step::Wire, Instant::now());
        meters.step(Step::Answer, Instant::now());
        let steps: Vec<u64> = meters.steps().map(|(_, times)| times.shown().count).collect();
        assert_eq!(steps, [0, 0, 1, 0, 0, 0, 0]);
    }
}
