//! The metrics of the agent: everything that is counted or known, on one page for Prometheus.
//!
//! A look reads what other threads have published and counted, and asks only the ledger, for a moment. Must not decide anything,
//! keep anybody from anything, or make a series for each pod.

pub mod exposition;
pub mod families;
pub mod listener;
pub mod meters;
mod own;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crate::agent::boards::Boards;
use crate::agent::ledger::{Ledger, Usage};
use crate::agent::metrics::exposition::{Family, Page};
use crate::agent::metrics::families as of;
use crate::agent::metrics::meters::Meters;
use crate::agent::metrics::own::Own;
use crate::agent::verbs::status::unavailable;
use crate::agent::watched::Watched;
use crate::kube::client::Client;
use crate::process::dates::unix;
use crate::process::lock::Lock;
use crate::process::log;
use crate::process::log::line::Level;
use crate::record::boot_clock;
use crate::rpc::server::Load;
use cni::error::Code;
use cni::verb::Verb;
use model::routes::Stage;

/// Longest wait for the ledger, which may be waiting for its disk, 50 ms. Then its last answer is shown.
const LEDGER_LIMIT: Duration = Duration::from_millis(50);

/// Where the numbers come from.
#[derive(Debug)]
pub struct Metrics {
    /// What is counted.
    pub meters: Arc<Meters>,
    /// How full the node is.
    pub ledger: Ledger,
    /// The last answer of the ledger.
    pub usage: Lock<Option<Usage>>,
    /// What the agent's threads publish.
    pub boards: Boards,
    /// What is heard of the API server; nothing without Kubernetes.
    pub watched: Watched,
    /// The calls in service; nothing before the server has begun.
    pub load: OnceLock<Load>,
    /// Counts what the API server is asked; none without Kubernetes.
    pub client: Option<Arc<Client>>,
}

impl Metrics {
    /// The page, as everything is now.
    pub fn page(&self) -> String {
        let mut page = Page::default();
        page.sample(of::BUILD, &[&env!("CARGO_PKG_VERSION")], 1_u64);
        self.node(&mut page);
        self.calls(&mut page);
        self.leases(&mut page);
        self.rounds(&mut page);
        self.server(&mut page);
        self.routes(&mut page);
        self.policies(&mut page);
        logged(&mut page);
        process(&mut page);
        page.into_text()
    }

    fn node(&self, page: &mut Page) {
        let (node, policing) = (self.boards.state.get(), self.boards.policing.get());
        page.sample(of::READY, &[], unavailable(&node, &policing).is_none());
        page.sample(of::CONFIG_VALID, &[], node.view.is_some() && node.verdict.problem.is_none());
        if let Some(edit) = node.verdict.edit() {
            page.sample(of::CONFIG_GENERATION, &[], edit.generation);
        }
    }

    fn calls(&self, page: &mut Page) {
        // Success, and what a pod's owner can do wrong, from the start: an increase is not seen of a number that begins with 1.
        let told = |verb: Verb, code: u32| code == 0 || verb == Verb::Add && code == Code::InvalidConfig.number();
        for (verb, code, count) in self.meters.calls().filter(|(verb, code, count)| told(*verb, *code) || *count > 0) {
            page.sample(of::CALLS, &[&verb, &code], count);
        }
        self.meters.times().for_each(|(verb, times)| page.histogram(of::CALL_TIMES, &[&verb], &times.shown()));
        self.meters.steps().for_each(|(step, times)| page.histogram(of::STEP_TIMES, &[&step], &times.shown()));
        if let Some(load) = self.load.get() {
            page.sample(of::IN_FLIGHT, &[], load.in_service());
            page.sample(of::SLOTS, &[], load.most());
        }
    }

    fn leases(&self, page: &mut Page) {
        // A lock for a moment, and not while the ledger is waited for.
        let asked = self.ledger.usage(Instant::now() + LEDGER_LIMIT);
        let mut known = self.usage.lock();
        *known = asked.ok().or(*known);
        let known = *known;
        if let Some(usage) = known {
            page.sample(of::ATTACHMENTS, &[&"pending"], usage.pending);
            page.sample(of::ATTACHMENTS, &[&"committed"], usage.leases - usage.pending);
            let families = [("ipv4", usage.addresses.ipv4), ("ipv6", usage.addresses.ipv6)];
            for (family, counts) in &families {
                page.sample(of::ADDRESSES, &[family, &"allocated"], counts.allocated);
                page.sample(of::ADDRESSES, &[family, &"resting"], counts.resting);
                page.sample(of::ADDRESSES, &[family, &"free"], counts.free);
            }
            families.iter().for_each(|(family, counts)| page.sample(of::CAPACITY, &[family], counts.usable));
        }
        for (family, lack, count) in self.meters.refusals() {
            let family = family.to_string().to_ascii_lowercase();
            page.sample(of::REFUSALS, &[&family, &lack.name()], count);
        }
        page.sample(of::NOTES, &[], self.meters.notes.get());
        page.sample(of::REPLAYED, &[], self.meters.replayed.get());
        self.meters.all_ended().for_each(|(why, count)| page.sample(of::ENDED, &[&why.name()], count));
        self.meters.all_mended().for_each(|(what, count)| page.sample(of::MENDED, &[&what.name()], count));
        if let Some(usage) = known {
            page.sample(of::RECORDS, &[], usage.leases);
        }
        page.histogram(of::SYNCS, &[], &self.ledger.syncs().shown());
    }

    fn rounds(&self, page: &mut Page) {
        // Before the first success, the agent's start: an agent that never has any is late, too.
        match self.meters.compared.get() {
            0 => Own::now().began.into_iter().for_each(|began| page.sample(of::COMPARED, &[], began)),
            compared => page.sample(of::COMPARED, &[], compared),
        }
        page.histogram(of::ROUNDS, &[], &self.meters.rounds.shown());
    }

    fn server(&self, page: &mut Page) {
        let (watched, now) = (self.watched.told(), unix(SystemTime::now()));
        for (resource, heard) in &watched {
            page.sample(of::WATCH_UP, &[resource], heard.last.is_some() && heard.failing.is_none());
        }
        for (resource, last) in watched.iter().filter_map(|(resource, heard)| Some((resource, heard.last?))) {
            let ago = boot_clock::now_ms().saturating_sub(last) / 1000;
            page.sample(of::WATCH_HEARD, &[resource], now.saturating_sub(ago));
        }
        let Some(client) = &self.client else { return };
        for (verb, code, count) in client.asked() {
            match code {
                Some(code) => page.sample(of::ASKED, &[&verb, &code], count),
                None => page.sample(of::ASKED, &[&verb, &"error"], count),
            }
        }
        // There are two kinds, and of several of a kind the first to end counts.
        let ends = self.boards.ends.get();
        for kind in crate::kube::expiry::Kind::ALL {
            let first = ends.all.iter().filter(|expiry| expiry.kind == kind).map(|expiry| expiry.until).min();
            first.into_iter().for_each(|until| page.sample(of::EXPIRY, &[&kind.name()], unix(until)));
        }
        page.sample(of::ENDING, &[], ends.near.len());
    }

    fn routes(&self, page: &mut Page) {
        let (routes, node) = (self.boards.routes.get(), self.boards.state.get());
        some(page, of::ANNOUNCED, routes.announced);
        some(page, of::REACHED, routes.reached);
        page.sample(of::CONTESTS, &[], routes.contests.len());
        page.sample(of::ANNOUNCING, &[], routes.stage == Stage::Announcing);
        page.sample(of::ROUTES_SET, &[], routes.problem.is_none());
        if let Some(bgp) = node.view.as_ref().and_then(|view| view.config.bgp.as_ref()) {
            let speaking = self.boards.speaking.get();
            let established = speaking.sessions.iter().filter(|session| session.is_established()).count();
            page.sample(of::SESSIONS, &[&"established"], established);
            // Of those that are wanted: a BIRD that does not answer names none.
            page.sample(of::SESSIONS, &[&"down"], bgp.peers.len().saturating_sub(established));
        }
    }

    fn policies(&self, page: &mut Page) {
        let policing = self.boards.policing.get();
        let counts = &policing.counts;
        page.sample(of::POLICY_PODS, &[&"isolated"], counts.isolated);
        page.sample(of::POLICY_PODS, &[&"audited"], counts.audited);
        page.sample(of::POLICY_PODS, &[&"quarantined"], counts.quarantined);
        page.sample(of::POLICIES, &[], counts.policies);
        page.sample(of::POLICY_FAULTS, &[], policing.ails.misunderstood.len());
        page.sample(of::POLICY_SET, &[], policing.problem.is_none());
        page.sample(of::RULES, &[], self.meters.rules.get());
        page.sample(of::BATCHES, &[], self.meters.batches.get());
        page.sample(of::REVOCATIONS, &[], self.meters.revocations.get());
    }
}

fn some(page: &mut Page, family: &'static Family, number: Option<usize>) {
    number.into_iter().for_each(|number| page.sample(family, &[], number));
}

fn logged(page: &mut Page) {
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug];
    let counts = levels.map(|level| (level.name(), log::counts(level)));
    counts.iter().for_each(|(level, counts)| page.sample(of::LOGGED, &[level], counts.written));
    counts.iter().for_each(|(level, counts)| page.sample(of::HELD_BACK, &[level], counts.held_back));
    page.sample(of::DROPPED, &[], log::dropped());
}

fn process(page: &mut Page) {
    let own = Own::now();
    own.cpu.into_iter().for_each(|seconds| page.sample(of::CPU, &[], seconds));
    own.resident.into_iter().for_each(|bytes| page.sample(of::RESIDENT, &[], bytes));
    own.began.into_iter().for_each(|seconds| page.sample(of::BEGAN, &[], seconds));
    own.descriptors.into_iter().for_each(|number| page.sample(of::DESCRIPTORS, &[], number));
    own.descriptors_max.into_iter().for_each(|number| page.sample(of::DESCRIPTORS_MAX, &[], number));
    own.threads.into_iter().for_each(|number| page.sample(of::THREADS, &[], number));
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::agent::draw::KernelDraw;
    use crate::agent::fault::{Fault, Step};
    use crate::agent::ledger::Ranges;
    use crate::agent::metrics::exposition::SERIES_MAX;
    use crate::agent::metrics::meters::{CALLED, Ending, Mended, STEPS};
    use crate::agent::routing::state::RoutesState;
    use crate::agent::watched::Ear;
    use crate::record::disk::Directory;
    use crate::record::store::Store;
    use crate::rpc::listener::Listener;
    use crate::rpc::server::{Limits, Server, Unready};
    use cni::error::Error;

    /// Metrics of an agent that serves nobody, with so many leases.
    struct Scene {
        metrics: Metrics,
        _server: Server,
        directory: PathBuf,
    }

    impl Scene {
        fn new(name: &str, leases: usize) -> Scene {
            let directory = std::env::temp_dir().join(format!("flock-metrics-{name}-{}", std::process::id()));
            crate::record::disk::make_private_dir(&directory).expect("made");
            let store = Store::open(Directory::open(&directory).expect("a directory"), "boot", 0).0;
            let ledger = Ledger::start(store, KernelDraw).expect("a thread");
            let cidr4 = Some("10.0.0.0/16".parse().expect("literal"));
            ledger.configure(Ranges {
                cidr6: Some("2001:db8::/64".parse().expect("literal")),
                cidr4,
                host: Vec::new(),
            });
            let soon = || Instant::now() + Duration::from_secs(60);
            for n in 0..leases {
                let mut lease = crate::record::examples::lease(&format!("c{n}/eth0"));
                let [high, low] = u16::try_from(n + 2).expect("few").to_be_bytes();
                (lease.ipv4, lease.ipv6) = (Some([10, 0, high, low].into()), None);
                let claim = ledger.claim(&lease.attachment, soon()).expect("in time");
                assert!(claim.adopt(lease, soon()).expect("recorded"));
            }
            let listener = Listener::bind(&directory.join("flock.sock")).expect("bound");
            let server =
                Server::start(listener, Arc::new(Unready), Limits::default(), Arc::new(drop)).expect("a thread");
            let metrics = Metrics {
                meters: Arc::default(),
                ledger,
                usage: Lock::default(),
                boards: Boards::default(),
                watched: Watched::default(),
                load: OnceLock::from(server.load()),
                client: None,
            };
            Scene { metrics, _server: server, directory }
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.directory).ok();
        }
    }

    #[test]
    fn a_page_of_everything_that_can_be_has_no_more_series_than_promised() {
        let scene = Scene::new("most", 1);
        let meters = &scene.metrics.meters;
        let took = Duration::from_millis(1);
        for verb in CALLED {
            meters.called(verb, took, None);
            for code in Code::ALL {
                meters.called(verb, took, Some(&Fault::new(Step::Wire, Error::new(code, "x"))));
            }
        }
        STEPS.iter().for_each(|step| meters.step(*step, Instant::now()));
        Mended::ALL.iter().for_each(|what| meters.mended(*what, 1));
        Ending::ALL.iter().for_each(|why| meters.ended(*why));
        meters.compared(Instant::now());
        let resources = ["nodeconfigs", "pods", "nodepeers", "networkpolicies", "namespaces"];
        let ears = resources.map(|resource| scene.metrics.watched.begin(resource));
        ears.iter().for_each(Ear::heard);
        scene.metrics.boards.routes.set(RoutesState { announced: Some(1), reached: Some(1), ..RoutesState::default() });
        let page = scene.metrics.page();
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        // What an API server adds: its answers by kind, two credentials, the generation; and two states of sessions.
        let more = 40 + 2 + 1 + 1 + 2;
        assert!(series + more <= SERIES_MAX, "{series} and {more}");
        assert!(page.contains("\nprocess_threads "), "the last one is there: {page}");
    }

    #[test]
    fn a_page_of_a_full_node_is_made_in_less_than_5_ms() {
        let scene = Scene::new("fast", 250);
        // The best of some: others use this machine, too.
        let times = (0..50).map(|_| {
            let began = Instant::now();
            let page = scene.metrics.page();
            assert!(page.contains("flock_attachments{phase=\"committed\"} 250\n"), "{page}");
            began.elapsed()
        });
        let best = times.min().expect("some");
        assert!(best < Duration::from_millis(5), "{best:?}");
    }
}
