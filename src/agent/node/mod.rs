//! Keeps the agent's view of the node up to date, and the host as pods need it: its NodeConfig, what the host looks like,
//! and the list of `desired`. One thread, the only writer of the host's settings and of the node's own routes.
//!
//! A bad or vanished NodeConfig never harms: the last good one stays in force, and the log and the status say what is wrong
//! with the new one. The last good one of the API is also kept on disk, for a start without an API server.

pub mod cluster;
pub mod conflist;
pub mod gate;
pub mod pods;
pub mod portmap;
pub mod source;
pub mod status;
pub mod survey;

use std::collections::BTreeSet;
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::fault::{Fault, Step};
use crate::agent::ledger::Ranges;
use crate::agent::node::conflist::Conflist;
use crate::agent::node::gate::HostGate;
use crate::agent::node::portmap::Search;
use crate::agent::node::source::{Found, Source};
use crate::agent::node::status::{Verdict, Verdicts};
use crate::agent::node::survey::Host;
use crate::agent::suspicion::{Budget, Suspicions};
use crate::agent::verbs::Verbs;
use crate::agent::view::{Present, View};
use crate::process::log;
use crate::process::progress::Pulse;
use crate::record::disk::{Directory, Disk as _, DiskError};
use cni::error::{Code, Error};
use model::annotations::IP_ALGO;
use model::desired::{Difference, Policy, Wants, differences};
use model::nodeconfig::{self, API_VERSION, KIND, NodeConfig};

/// Between two looks without being woken.
const INTERVAL: Duration = Duration::from_millis(500);

/// Between two looks at the host's addresses and routes that nobody asked for. They are kept out of the pods' ranges.
const HOST_INTERVAL: Duration = Duration::from_secs(10);

/// A host with a full table of the internet's routes takes seconds to be read. It is read so rarely that this thread spends
/// no more than a twentieth of its time with it.
const HOST_LOOK_SHARE: u32 = 20;

/// Between two comparisons of the host with what pods need, without being woken.
const KEEP_INTERVAL: Duration = Duration::from_secs(20);

/// Comparisons at once, when somebody keeps changing the host; then one in each interval.
const COMPARISONS: u32 = 10;
/// Between two looks at the CNI configuration. Without it no pod can be started or stopped.
const CONFLIST_INTERVAL: Duration = Duration::from_secs(5);

/// For one look at the host, and for preparing it.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// The last good NodeConfig, in the state directory.
const LAST_GOOD: &str = "node-config.json";
/// It, before it takes its name.
const LAST_GOOD_NEW: &str = "node-config.new";

/// Where things are.
#[derive(Debug)]
pub struct Places {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Where the CNI configuration goes, if anywhere.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Why the thread is woken. It ends when nobody can wake it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something has changed.
    Look,
    /// Somebody wants everything to be read again.
    Again,
    /// The agent ends.
    Stop,
}

/// The thread's state.
#[derive(Debug)]
pub struct Node {
    source: Source,
    places: Places,
    verbs: Arc<Verbs>,
    present: Present,
    verdicts: Verdicts,
    config: Option<NodeConfig>,
    host: Option<Host>,
    /// When the host is looked at although nobody has asked, and when it may be looked at again at the earliest.
    look_due: Instant,
    look_allowed: Instant,
    gate: HostGate,
    /// What the kernel has announced of the host.
    suspicions: Suspicions,
    /// When the host is to be compared with what pods need.
    keep_due: Instant,
    budget: Budget,
    /// What was last said of the host, and of the NodeConfig on this host, which need not be said again.
    said: BTreeSet<String>,
    noted: BTreeSet<String>,
    conflist: Conflist,
    /// When the CNI configuration was last as it should be, as far as is known.
    settled: Option<Instant>,
    pulse: Pulse,
    /// The NodeConfig in force could not be kept for the next start.
    unkept: bool,
    /// What was said about it.
    notes: Vec<String>,
}

impl Node {
    /// A node of which nothing is known yet. The calls of its runtime are heard by `search`.
    pub fn new(
        source: Source,
        places: Places,
        verbs: Arc<Verbs>,
        present: Present,
        verdicts: Verdicts,
        search: Search,
        suspicions: Suspicions,
    ) -> Node {
        let now = Instant::now();
        let gate = verbs.host_gate().clone();
        if places.cni_conf_dir.is_some() {
            gate.serve();
        }
        let conflist = Conflist::new(&places.socket, search);
        Node {
            source,
            places,
            verbs,
            present,
            verdicts,
            config: None,
            host: None,
            look_due: now,
            look_allowed: now,
            gate,
            suspicions,
            keep_due: now,
            budget: Budget::new(COMPARISONS, KEEP_INTERVAL, now),
            said: BTreeSet::new(),
            noted: BTreeSet::new(),
            conflist,
            settled: None,
            pulse: Pulse::default(),
            unkept: false,
            notes: Vec::new(),
        }
    }

    /// Its sign of life.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Looks whenever it is woken, and now and then.
    pub fn keep(mut self, wake: &Receiver<Wake>) {
        loop {
            let first = match self.pulse.resting(|| wake.recv_timeout(INTERVAL)) {
                Ok(wake) => wake,
                Err(RecvTimeoutError::Timeout) => Wake::Look,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // However often something was asked for meanwhile, once is enough.
            let (mut again, mut stop) = (false, false);
            for wake in iter::once(first).chain(wake.try_iter()) {
                again |= wake == Wake::Again;
                stop |= wake == Wake::Stop;
            }
            if stop {
                return;
            }
            if again {
                self.source.forget();
                (self.look_due, self.keep_due) = (Instant::now(), Instant::now());
                self.settled = None;
            }
            self.round();
            self.settle_conflist();
        }
    }

    /// One look. Does something only when something has changed.
    pub fn round(&mut self) {
        let config_changed = self.look_at_config();
        if self.unkept && !config_changed {
            self.remember();
        }
        if config_changed || self.look_is_due() {
            let host_changed = self.look_at_host();
            if config_changed || host_changed {
                self.put_in_force();
            }
        }
        self.keep_host();
    }

    fn look_is_due(&mut self) -> bool {
        let now = Instant::now();
        now >= self.look_due || now >= self.look_allowed && self.suspicions.take_surroundings()
    }

    /// Takes up the last good NodeConfig of an earlier run, if there is one and nothing newer is known.
    pub fn recall(&mut self) {
        let read = Directory::open(&self.places.state_dir).and_then(|mut disk| disk.read(LAST_GOOD));
        let Ok(Some(bytes)) = read else { return };
        match nodeconfig::parse(&bytes) {
            Ok(config) if config.name != self.source.node() => {
                log::warn("NodeConfig of the last run is of another node and not used")
                    .with("name", &config.name)
                    .with("node", self.source.node())
                    .write();
            }
            Ok(config) => {
                log::info("NodeConfig of the last run is in force until the API server is heard").write();
                self.config = Some(config);
                self.look_at_host();
                self.put_in_force();
            }
            Err(error) => log::warn("NodeConfig of the last run cannot be used").with("err", error).write(),
        }
    }

    fn look_at_config(&mut self) -> bool {
        let in_force = if self.config.is_some() { "the last good one" } else { "none" };
        match self.source.look() {
            Found::Nothing => false,
            Found::Gone(why) => {
                log::warn("NodeConfig is missing").with("err", why).with("in_force", in_force).write_limited();
                self.verdicts.set(Verdict::default());
                false
            }
            Found::Unreadable(why) => {
                log::warn("NodeConfig cannot be read").with("err", why).with("in_force", in_force).write_limited();
                false
            }
            Found::Config { config: Err(why), edit, .. } => {
                log::error("NodeConfig is not valid").with("err", &why).with("in_force", in_force).write_limited();
                self.verdicts.set(Verdict { edit, problem: Some(why), notes: Vec::new() });
                false
            }
            Found::Config { config: Ok(config), notes, edit } => {
                let changed = self.config.as_ref() != Some(&*config);
                self.config = Some(*config);
                if changed && edit.is_some() {
                    self.remember();
                }
                if self.notes != notes {
                    notes.iter().for_each(|note| remark(note));
                    self.notes.clone_from(&notes);
                }
                self.verdicts.set(Verdict { edit, problem: None, notes });
                changed
            }
        }
    }

    fn remember(&mut self) {
        let Some(config) = &self.config else { return };
        let kept = keep_last_good(&self.places, config);
        self.unkept = kept.is_err();
        if let Err(error) = kept {
            log::warn("NodeConfig cannot be kept for the next start").with("err", error).write_limited();
        }
    }

    /// True if the host is another than before.
    fn look_at_host(&mut self) -> bool {
        let Some(config) = &self.config else { return false };
        let began = Instant::now();
        let looked = survey::look(&config.prefixes(), config.gateway4, began + KERNEL_LIMIT);
        let (took, now) = (began.elapsed(), Instant::now());
        self.look_allowed = now + took * HOST_LOOK_SHARE;
        let changed = match looked {
            Ok(host) => {
                self.look_due = now + HOST_INTERVAL.max(took * HOST_LOOK_SHARE);
                let changed = self.host.as_ref() != Some(&host);
                self.host = Some(host);
                changed
            }
            Err(error) => {
                // Without these facts no pod is served, so it is tried again with the next look.
                self.look_due = now;
                log::warn("host cannot be read").with("err", error).write_limited();
                false
            }
        };
        if let (Some(config), Some(host)) = (&self.config, &self.host) {
            // With each look, also when it shows what the one before it did: an ADD may have met a route that came and went
            // in between, and its address is free again.
            let taken = host.facts.taken.keys().copied().collect();
            self.verbs.ledger().configure(Ranges { cidr6: config.cidr6, cidr4: config.cidr4, host: taken });
        }
        changed
    }

    fn put_in_force(&mut self) {
        let (Some(config), Some(host)) = (&self.config, &self.host) else { return };
        let facts = host.facts.clone();
        let view = View { config: config.clone(), mtu: config.mtu.unwrap_or(facts.mtu), gateway4: config.gateway4 };
        let same = self.present.get().is_some_and(|present| *present == view);
        let mtu_note =
            config.mtu.filter(|_| facts.has_uplink).and_then(|asked| nodeconfig::mtu_note(Some(asked), facts.mtu));
        let notes: BTreeSet<String> = mtu_note.into_iter().chain(facts.remarks.iter().cloned()).collect();
        for note in notes.difference(&self.noted) {
            remark(note);
        }
        self.verdicts.set_host_note((!notes.is_empty()).then(|| notes.iter().cloned().collect::<Vec<_>>().join("; ")));
        self.noted = notes;
        self.warn_of_pods_in_the_way();
        // Before the view: with it come requests.
        self.keep_due = Instant::now();
        self.keep_host();
        self.present.set(view.clone());
        if !same {
            log::info("NodeConfig in force")
                .with_some("cidr6", view.config.cidr6)
                .with_some("cidr4", view.config.cidr4)
                .with("mtu", view.mtu)
                .write_limited();
        }
        self.settled = None;
    }

    /// A pod that has an address which turns out to be somebody else's keeps it, as nothing living is harmed. Somebody has
    /// to know.
    fn warn_of_pods_in_the_way(&self) {
        let Some(host) = &self.host else { return };
        let Ok((leases, _)) = self.verbs.ledger().leases(Instant::now() + KERNEL_LIMIT) else { return };
        for lease in &leases {
            for (ip, holder) in lease.addresses().filter_map(|ip| host.facts.taken.get_key_value(&ip)) {
                log::error("a pod has an address that is somebody else's: delete the pod")
                    .with("addr", ip)
                    .with("is", holder)
                    .with("cid", &lease.attachment.container_id)
                    .with_some("pod", lease.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)))
                    .write_limited();
            }
        }
    }

    /// Compares the host with what pods need, once pods are to be served: whenever it is due, when the kernel has announced
    /// a change, and when somebody waits for it.
    fn keep_host(&mut self) {
        let now = Instant::now();
        let announced = self.suspicions.take_host();
        let due = now >= self.keep_due || !self.gate.is_ready();
        if !self.gate.is_serving() || !(due || announced) {
            return;
        }
        let (Some(config), Some(host)) = (&self.config, &self.host) else { return };
        let wants = Wants { prefixes: config.prefixes(), gateway4_taken: host.facts.gateway4_taken.clone() };
        let deadline = now + KERNEL_LIMIT;
        let differences = match survey::shows(host, deadline) {
            Ok(shows) => differences(&wants, &shows),
            Err(cause) => {
                let fault = Fault { step: Step::Host, cause };
                log::warn("host cannot be compared with what pods need").with("err", &fault).write_limited();
                // What was ready is not known to be anything else.
                if !self.gate.is_ready() {
                    self.gate.tried(Err(fault.to_error()));
                }
                return;
            }
        };
        let lost = differences.iter().any(|difference| difference.policy() == Policy::PutBack);
        if lost && !due && !self.budget.take(now) {
            log::warn("somebody keeps changing what pods need of this host; it is put back in rounds only")
                .with("seconds", KEEP_INTERVAL.as_secs())
                .write_limited();
            return;
        }
        self.keep_due = now + KEEP_INTERVAL;
        let outcome = self.put_right(&differences, deadline);
        self.say(said(&differences));
        // Tried again and again until it is done, and said once.
        if let Err(error) = &outcome
            && self.gate.problem().as_ref() != Some(error)
        {
            log::error("host cannot be prepared").with("err", error).write();
        }
        self.verdicts.set_host(outcome.clone().map_err(|error| error.to_string()));
        self.gate.tried(outcome);
    }

    /// Puts back what is flock's, in order. The first failure counts, and the rest is tried all the same.
    fn put_right(&self, differences: &[Difference], deadline: Instant) -> Result<(), Error> {
        let mut changed = Vec::new();
        let mut outcome = Ok(());
        for difference in differences {
            let done = match difference.policy() {
                Policy::Say => continue,
                Policy::NotReady => {
                    Err(Error::new(Code::TryAgainLater, "host cannot serve pods").with_details(difference.to_string()))
                }
                Policy::PutBack => survey::put_back(difference, deadline).map_err(|fault| fault.to_error()),
            };
            match done {
                Ok(()) => changed.push(difference.to_string()),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        if !changed.is_empty() {
            // A host that was ready had all this; one that was not gets it now.
            let line = if self.gate.is_ready() {
                log::warn("host had lost what pods need, and has it again")
            } else {
                log::info("host prepared")
            };
            line.with("changed", changed.join(", ")).write_limited();
        }
        outcome
    }

    /// Says what an operator should know, once.
    fn say(&mut self, remarks: BTreeSet<String>) {
        for remark in remarks.difference(&self.said) {
            log::warn("host is not as pods need it, or as they could do with").with("what", remark).write_limited();
        }
        self.said = remarks;
    }

    /// Writes the CNI configuration where it is missing or outdated, once pods can be served. Apart from [`Node::round`], since
    /// it may ask a plugin that hangs, and requests are to be served meanwhile.
    pub fn settle_conflist(&mut self) {
        let Some(dir) = &self.places.cni_conf_dir else { return };
        let settled = self.settled.is_some_and(|settled| settled.elapsed() < CONFLIST_INTERVAL);
        // A runtime that finds it sends pods.
        if settled || self.present.get().is_none() || !self.gate.is_ready() {
            return;
        }
        match self.conflist.keep(dir) {
            Ok(_) => self.settled = Some(Instant::now()),
            Err(error) => log::error("CNI configuration cannot be written").with("err", error).write_limited(),
        }
    }
}

fn said(differences: &[Difference]) -> BTreeSet<String> {
    differences.iter().filter(|difference| difference.policy() == Policy::Say).map(ToString::to_string).collect()
}

fn remark(note: &str) {
    log::warn("NodeConfig is in force, and part of it does not do what it says").with("note", note).write_limited();
}

fn keep_last_good(places: &Places, config: &NodeConfig) -> Result<(), DiskError> {
    Directory::open(&places.state_dir)?.replace(LAST_GOOD_NEW, LAST_GOOD, manifest(config).as_bytes())
}

/// The manifest that gives this NodeConfig again.
fn manifest(config: &NodeConfig) -> String {
    let mut annotations = serde_json::Map::new();
    if let Some(algo) = &config.defaults.ip_algo {
        annotations.insert(IP_ALGO.into(), json!(algo));
    }
    let mut spec = serde_json::Map::new();
    spec.insert("defaults".into(), json!({"ipv6": config.defaults.ipv6, "ipv4": config.defaults.ipv4}));
    let texts = [
        ("cidr6", config.cidr6.map(|cidr| json!(cidr.to_string()))),
        ("cidr4", config.cidr4.map(|cidr| json!(cidr.to_string()))),
    ];
    for (key, value) in texts
        .into_iter()
        .chain([("mtu", config.mtu.map(|mtu| json!(mtu))), ("gateway4", Some(json!(config.gateway4.to_string())))])
    {
        spec.extend(value.map(|value| (key.to_owned(), value)));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": config.name, "annotations": annotations},
        "spec": spec,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: FM-D10
    #[test]
    fn the_last_good_node_config_comes_back_as_it_was() {
        for spec in [
            "{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24, mtu: 1400}",
            "{cidr4: 10.0.0.0/24, defaults: {ipv4: false}}",
            "{cidr4: 10.0.0.0/24, gateway4: 169.254.7.7}",
            "{cidr6: '2001:db8::/64'}",
        ] {
            let text = format!(
                "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: n, annotations: {{{IP_ALGO}: app}}}}\nspec: {spec}\n"
            );
            let config = nodeconfig::parse(&text).expect("valid");
            assert_eq!(nodeconfig::parse(manifest(&config)).expect("valid"), config, "{spec}");
        }
    }
}
