//! Keeps the node as its NodeConfig says: follows the source of the NodeConfig, keeps the host and the CNI configuration as pods
//! need them, and publishes the outcome. One thread, the only writer of the published state, of the host's settings and of the
//! node's own routes.
//!
//! A bad or vanished NodeConfig never harms: the last good one stays in force, and the log and the status say what is wrong
//! with the new one. Must not serve requests; those read what is published.

pub mod cluster;
pub mod conflist;
pub mod credentials;
pub mod gate;
pub mod host;
pub mod last_good;
pub mod own_peer;
pub mod peers;
pub mod pods;
pub mod portmap;
pub mod reach;
pub mod report;
pub mod source;
pub mod state;
pub mod status;
pub mod survey;
pub mod wake;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::agent::ledger::{Ledger, Ranges};
use crate::agent::node::conflist::Conflist;
use crate::agent::node::host::Host;
use crate::agent::node::source::{Seen, Source};
use crate::agent::node::state::{Basis, NodeState, Verdict, View};
use crate::agent::node::wake::{Wake, Woken};
use crate::agent::policing::handle::Police;
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::news::News;
use crate::process::log;
use crate::process::progress::Progress;
use crate::record::boot_clock;
use model::nodeconfig::{self, NodeConfig};

/// Interval between rounds without being woken, 500 ms.
const INTERVAL: Duration = Duration::from_millis(500);

/// Deadline for the ledger's list of leases, 5 s.
const LEDGER_LIMIT: Duration = Duration::from_secs(5);

/// The thread's state.
#[derive(Debug)]
pub struct Node {
    source: Source,
    host: Host,
    /// The CNI configuration; none where the settings name no directory for it.
    conflist: Option<Conflist>,
    ledger: Ledger,
    /// The NodeConfig in force, or about to be.
    config: Option<NodeConfig>,
    /// Notes about it that the log has, which need no second line.
    noted: Vec<String>,
    /// What is published, and where.
    state: NodeState,
    board: Board<NodeState>,
    /// Wakes the thread that keeps the node's routes.
    routing: Sender<News>,
    /// Keeps what pods may send and receive.
    police: Police,
    /// How that is.
    policing: Board<PolicingState>,
    progress: Progress,
}

impl Node {
    /// A node of which nothing is known yet, and which will publish on `board` and then wake `routing` and tell `police`.
    pub fn new(
        source: Source,
        mut host: Host,
        conflist: Option<Conflist>,
        ledger: Ledger,
        board: Board<NodeState>,
        routing: Sender<News>,
        (police, policing): (Police, Board<PolicingState>),
    ) -> Node {
        // A runtime that finds the CNI configuration sends pods. Without one, the first request says that there are pods to serve.
        if conflist.is_some() {
            host.serve();
        }
        let cni = conflist.as_ref().map(|conflist| conflist.state().clone()).unwrap_or_default();
        Node {
            source,
            host,
            conflist,
            ledger,
            config: None,
            noted: Vec::new(),
            state: NodeState { cni, ..NodeState::default() },
            board,
            routing,
            police,
            policing,
            progress: Progress::default(),
        }
    }

    /// The thread's sign of life.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Makes a round at each message and after each interval, until [`Wake::Stop`] comes or nobody can send any more.
    pub fn run(mut self, messages: &Receiver<Wake>) {
        loop {
            let woken = self.progress.resting(|| Woken::wait(messages, INTERVAL));
            if woken.stop {
                return;
            }
            if woken.serve {
                self.host.serve();
            }
            if woken.again {
                self.source.forget();
                self.host.hurry();
                self.conflist.iter_mut().for_each(Conflist::hurry);
            }
            self.round();
            self.settle_conflist();
        }
    }

    /// Takes up the last good NodeConfig of an earlier run, if there is one. For the start, when nothing newer is known.
    pub fn recall(&mut self) {
        let Some(config) = self.source.recall() else { return };
        self.config = Some(config);
        self.survey_host();
        self.put_in_force();
    }

    /// One look at NodeConfig and host. Does something only when something has changed or is due.
    pub fn round(&mut self) {
        let config_changed = self.look_at_config();
        if let Some(config) = &self.config {
            self.source.keep_for_next_start(config);
        }
        if config_changed || self.host.survey_is_due() {
            let host_changed = self.survey_host();
            if config_changed || host_changed {
                self.put_in_force();
            }
        }
        self.keep_host();
    }

    /// Waits until it is known whether the kernel takes what pods may send and receive, where there is a CNI configuration that has
    /// to wait for that, and no longer than `limit`.
    pub fn wait_for_tables(&self, limit: Duration) {
        if self.conflist.is_some() && self.state.view.is_some() {
            self.policing.wait(Instant::now() + limit, |policing| policing.looked.then_some(()));
        }
    }

    /// Writes the CNI configuration where it is missing or outdated, once pods can be served. Apart from [`Node::round`], since
    /// it may ask a plugin that hangs, and requests are to be served meanwhile.
    pub fn settle_conflist(&mut self) {
        // A runtime that finds the configuration sends pods.
        if self.state.view.is_some()
            && self.state.host.is_ready()
            && self.policing.get().is_ready()
            && let Some(conflist) = &mut self.conflist
        {
            conflist.settle();
            if self.state.cni != *conflist.state() {
                self.state.cni = conflist.state().clone();
                // Nobody waits for this word.
                self.board.set(self.state.clone());
            }
        }
    }

    fn publish(&self) {
        self.board.set(self.state.clone());
        // It ends only with the agent.
        self.routing.send(News::Look).ok();
        self.police.look();
    }

    /// True if another NodeConfig is to be put in force.
    fn look_at_config(&mut self) -> bool {
        let in_force = if self.config.is_some() { "the last good one" } else { "none" };
        let (verdict, changed) = match self.source.look() {
            Seen::Unchanged => return false,
            Seen::Unreadable(why) => {
                log::warn("NodeConfig cannot be read").with("err", why).with("in_force", in_force).write_limited();
                return false;
            }
            Seen::Gone(why) => {
                log::warn("NodeConfig is missing").with("err", &why).with("in_force", in_force).write_limited();
                (Verdict { problem: Some(why), ..Verdict::default() }, false)
            }
            Seen::Config { config: Err(why), basis, .. } => {
                let line = match &basis {
                    Basis::PodCidrs(_) => log::error("podCIDRs of the Node cannot be used"),
                    Basis::Nothing | Basis::File | Basis::NodeConfig(_) => log::error("NodeConfig is not valid"),
                };
                line.with("err", &why).with("in_force", in_force).write_limited();
                (Verdict { basis, problem: Some(why), notes: Vec::new() }, false)
            }
            Seen::Config { config: Ok(config), notes, basis } => {
                let changed = self.config.as_ref() != Some(&*config);
                self.config = Some(*config);
                (self.state.in_force.generation, self.state.in_force.pod_cidrs) = match &basis {
                    Basis::NodeConfig(edit) => (Some(edit.generation), false),
                    Basis::PodCidrs(_) => (None, true),
                    Basis::Nothing | Basis::File => (None, false),
                };
                if self.noted != notes {
                    notes.iter().for_each(|note| remark(note));
                    self.noted.clone_from(&notes);
                }
                (Verdict { basis, problem: None, notes }, changed)
            }
        };
        tell_of_another_basis(&self.state.verdict.basis, &verdict.basis);
        self.state.verdict = verdict;
        self.publish();
        changed
    }

    /// True if the host is another than before.
    fn survey_host(&mut self) -> bool {
        let Some(config) = &self.config else { return false };
        let changed = self.host.survey(config);
        if let Some(facts) = self.host.facts() {
            // With each survey, also when it shows what the one before it did: an ADD may have met a route that came and went
            // in between, and its address is free again.
            let taken = facts.taken.keys().copied().collect();
            self.ledger.configure(Ranges { cidr6: config.cidr6, cidr4: config.cidr4, host: taken });
        }
        changed
    }

    fn put_in_force(&mut self) {
        let (Some(config), Some(facts)) = (&self.config, self.host.facts()) else { return };
        let view = View { config: config.clone(), mtu: config.mtu.unwrap_or(facts.mtu), gateway4: config.gateway4 };
        let mtu_note = config
            .mtu
            .filter(|_| facts.uplink.is_some())
            .and_then(|asked| nodeconfig::mtu_note(Some(asked), facts.mtu));
        let mut notes: Vec<String> =
            mtu_note.into_iter().chain(facts.remarks.iter().map(|remark| remark.text.clone())).collect();
        notes.sort();
        notes.dedup();
        notes.iter().filter(|note| !self.state.host_notes.contains(note)).for_each(|note| remark(note));
        self.state.host_notes = notes;
        self.state.uplink.clone_from(&facts.uplink);
        if let Some(whereabouts) = self.host.whereabouts().filter(|found| **found != *self.state.whereabouts) {
            self.state.whereabouts = Arc::new(whereabouts.clone());
        }
        self.warn_of_pods_in_the_way();
        // Before the view is published: requests come with it.
        self.host.compare_soon();
        self.keep_host();
        if self.state.view.as_deref() != Some(&view) {
            log::info("NodeConfig in force")
                .with_some("cidr6", view.config.cidr6)
                .with_some("cidr4", view.config.cidr4)
                .number("mtu", view.mtu)
                .write_limited();
            if let Some(note) = nodeconfig::defaults_note(&view.config) {
                log::info("pods that ask for no address are refused, as the NodeConfig says")
                    .with("note", note)
                    .write_limited();
            }
            self.state.view = Some(Arc::new(view));
            self.state.in_force.since = boot_clock::now_ms();
        }
        self.publish();
        self.conflist.iter_mut().for_each(Conflist::hurry);
    }

    fn keep_host(&mut self) {
        if let Some(config) = &self.config
            && self.host.keep(config)
        {
            self.state.host = self.host.readiness().clone();
            self.publish();
        }
    }

    /// Logs which pods have an address that turns out to be somebody else's. They keep it, since no living pod is ever harmed.
    fn warn_of_pods_in_the_way(&self) {
        let Some(facts) = self.host.facts() else { return };
        let Ok((leases, _)) = self.ledger.leases(Instant::now() + LEDGER_LIMIT) else { return };
        for lease in &leases {
            for (ip, holder) in lease.addresses().filter_map(|ip| facts.taken.get_key_value(&ip)) {
                log::error("a pod has an address that is somebody else's: delete the pod")
                    .about(lease)
                    .with("addr", ip)
                    .with("is", holder)
                    .write_limited();
            }
        }
    }
}

/// Says in the log that the node's ranges come from its Node now, or do no longer: the ranges alone may not show it.
fn tell_of_another_basis(former: &Basis, now: &Basis) {
    match (former, now) {
        (Basis::PodCidrs(_), Basis::PodCidrs(_)) => {}
        (_, Basis::PodCidrs(_)) => {
            log::info("the ranges are the podCIDRs of the Node, as there is no NodeConfig").write_limited()
        }
        (Basis::PodCidrs(_), Basis::NodeConfig(_)) => {
            log::info("the ranges are those of the NodeConfig, and not the podCIDRs of the Node any more")
                .write_limited();
        }
        _ => {}
    }
}

fn remark(note: &str) {
    log::warn("NodeConfig is in force, and part of it does not do what it says").with("note", note).write_limited();
}
