//! The policies' part of the table: what is known of the cluster, compiled for the links of this node, and kept up change by
//! change.
//!
//! `model::policy` decides what policies mean; this file knows which links there are and what is to hold for each, and when a
//! change takes something away. Must not ask the kernel or an API server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::Sender;

use crate::agent::policing::cluster::{Change as News, Cluster, ClusterNews, Learned, Told, Watch};
use crate::agent::policing::epoch::Epoch;
use crate::agent::policing::watches::Wish;
use model::addr::IfName;
use model::lease::Lease;
use model::policing::{Mode, Policing as Wishes};
use model::policy::compile::{Compiled, Log, Settings, Step, compile};
use model::policy::watching::Selection;
use model::policy::{Pod, PodKey, Subject, Treatment};
use model::ruleset::Table;
use model::ruleset::diff::Change;

/// Lines of the kernel's log for each link and direction.
const LOG: Log = Log { rate: 2, burst: 8 };

/// Where the news of the cluster come from.
#[derive(Debug)]
pub enum Origin {
    /// There are no policies on this node.
    Nowhere,
    /// The API server, which is asked for what is wished.
    Api(Sender<Wish>),
    /// A directory of manifests.
    Directory,
}

/// The policies' part.
#[derive(Debug)]
pub struct Policies {
    origin: Origin,
    cluster: Cluster,
    epoch: Epoch,
    mask: u32,
    /// The part, of these settings and this world; none until all is known that counts for this node.
    compiled: Option<Compiled>,
    /// What was last asked of the API server.
    wished: Option<Wish>,
    /// The links of which it has been known once what holds for them.
    settled: BTreeSet<IfName>,
    /// Of a directory: the pods that it tells of, which do not say of which node they are.
    written: BTreeMap<PodKey, Pod>,
}

/// What a piece of news comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Same,
    /// These changes of what is in force.
    Changes(Vec<Change>),
    /// The part is another as a whole.
    Anew,
}

impl Policies {
    /// Of which nothing is known yet. The epoch is kept in `state_dir`; `mask` has the bits of the connection mark that are flock's.
    pub fn new(origin: Origin, state_dir: &Path, mask: u32) -> Policies {
        Policies {
            origin,
            cluster: Cluster::default(),
            epoch: Epoch::open(state_dir, mask),
            mask,
            compiled: None,
            wished: None,
            settled: BTreeSet::new(),
            written: BTreeMap::new(),
        }
    }

    /// Whether there may be policies for the pods of this node.
    pub fn are_kept(&self, wishes: &Wishes) -> bool {
        !matches!(self.origin, Origin::Nowhere) && wishes.mode != Mode::None
    }

    /// The part of the table; none until it is known.
    pub fn part(&self) -> Option<&Table> {
        self.compiled.as_ref().map(Compiled::table)
    }

    /// What is known.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What stands in the kernel from before may have marked connections so.
    pub fn marks_may_be(&mut self, mark: u32) {
        self.epoch.at_least(mark);
    }

    /// The bits of the connection mark that are flock's.
    pub fn mask(&self) -> u32 {
        self.mask
    }

    /// Forgets what was compiled, so that it is compiled again. Whatever is allowed then is judged anew.
    pub fn forget_compiled(&mut self) {
        self.compiled = None;
    }

    /// Asks for the watches that are needed, if they are others than before.
    pub fn wish(&mut self, wishes: &Wishes) {
        let wish = self.are_kept(wishes).then(|| self.cluster.wanted().clone());
        let Origin::Api(ask) = &self.origin else { return };
        if self.wished.as_ref() != Some(&wish) {
            if wish.is_none() {
                self.cluster.forget();
                self.compiled = None;
                self.settled.clear();
            }
            // It ends only with the agent.
            ask.send(wish.clone()).ok();
            self.wished = Some(wish);
        }
    }

    /// Compiles the part for these leases, as far as all is known that counts. With `anew` something that is not known may have been
    /// in force before.
    pub fn compile<'a>(&mut self, leases: impl Iterator<Item = &'a Lease>, wishes: &Wishes) {
        if !self.are_kept(wishes) {
            self.compiled = None;
            return;
        }
        let leases: Vec<&Lease> = leases.collect();
        if matches!(self.origin, Origin::Directory) {
            self.tell_own(&leases);
        }
        if !self.cluster.is_known() {
            return;
        }
        let subjects: Vec<Subject> = leases.iter().map(|lease| self.subject(lease, wishes)).collect();
        let links: BTreeSet<&IfName> = subjects.iter().map(|subject| &subject.link).collect();
        self.settled.retain(|link| links.contains(link));
        let settings = |epoch| Settings { mask: self.mask, epoch, log: wishes.log.then_some(LOG) };
        let fresh = compile(self.cluster.world(), &subjects, &settings(self.epoch.value()));
        let revokes = self.compiled.as_ref().is_some_and(|before| fresh.revokes(before));
        self.compiled = Some(fresh);
        if revokes {
            self.revoke();
        }
    }

    /// Has every connection judged anew. Returns what that changes in the part.
    pub fn revoke(&mut self) -> Vec<Change> {
        let epoch = self.epoch.advance();
        self.compiled.as_mut().map(|compiled| compiled.epoch_changed(epoch)).unwrap_or_default()
    }

    /// A link is about to be made for `lease`, or is another pod's now. Returns what that changes, as far as the part is known.
    pub fn link_comes(&mut self, lease: &Lease, wishes: &Wishes) -> Vec<Change> {
        if matches!(self.origin, Origin::Directory) {
            let learned = self.tell_own(&[lease]);
            // Of a link that is not there yet, nothing else depends.
            let changes = self.step(&learned, &[], wishes);
            if let Outcome::Changes(mut changes) = changes {
                changes.extend(self.place(lease, wishes));
                return changes;
            }
        }
        self.place(lease, wishes)
    }

    fn place(&mut self, lease: &Lease, wishes: &Wishes) -> Vec<Change> {
        let subject = self.subject(lease, wishes);
        let Some(compiled) = &mut self.compiled else { return Vec::new() };
        let step = compiled.subject_changed(self.cluster.world(), &subject.link, Some(&subject));
        self.with_epoch(step)
    }

    /// The link of `lease` has gone.
    pub fn link_goes(&mut self, lease: &Lease) -> Vec<Change> {
        self.settled.remove(&lease.host_link);
        let Some(compiled) = &mut self.compiled else { return Vec::new() };
        let step = compiled.subject_changed(self.cluster.world(), &lease.host_link, None);
        self.with_epoch(step)
    }

    /// Whether the pod of `lease` is closed, as nobody knows yet what holds for it.
    pub fn is_quarantined(&self, lease: &Lease, wishes: &Wishes) -> bool {
        self.are_kept(wishes) && self.treatment(lease, self.pod_of(lease).as_ref(), wishes) == Treatment::Quarantine
    }

    /// Takes news in. Returns what they change in force, for these leases.
    pub fn hear(&mut self, news: Vec<ClusterNews>, leases: &[&Lease], wishes: &Wishes) -> Outcome {
        let mut learned = Learned::default();
        for news in news {
            let news = if matches!(self.origin, Origin::Directory) { self.written(news, leases) } else { vec![news] };
            for news in news {
                let more = self.cluster.hear(news);
                learned.policies.extend(more.policies);
                learned.namespaces.extend(more.namespaces);
                learned.pods.extend(more.pods);
                learned.settled |= more.settled;
                learned.wanted |= more.wanted;
            }
        }
        self.wish(wishes);
        self.step(&learned, leases, wishes)
    }

    fn step(&mut self, learned: &Learned, leases: &[&Lease], wishes: &Wishes) -> Outcome {
        let Some(compiled) = &mut self.compiled else {
            return if self.cluster.is_known() { Outcome::Anew } else { Outcome::Same };
        };
        if !learned.policies.is_empty() || !learned.namespaces.is_empty() {
            return Outcome::Anew;
        }
        let mut whole = Step { changes: Vec::new(), revokes: false };
        let mut touched: BTreeSet<IfName> = BTreeSet::new();
        let mut seen: BTreeSet<&PodKey> = BTreeSet::new();
        let world = self.cluster.world();
        for (key, before) in &learned.pods {
            // What it was before all of these news counts.
            if !seen.insert(key) {
                continue;
            }
            let (before, after) = (before.as_ref().map(|pod| (key, pod)), world.pods.get(key).map(|pod| (key, pod)));
            let Step { changes, revokes } = compiled.pod_changed(before, after);
            whole.changes.extend(changes);
            whole.revokes |= revokes;
            touched.extend(compiled.links_of(key).cloned());
        }
        let quarantined = |lease: &&&Lease| learned.settled && !self.settled.contains(&lease.host_link);
        let concerned: Vec<&Lease> =
            leases.iter().filter(|lease| touched.contains(&lease.host_link) || quarantined(lease)).copied().collect();
        for lease in concerned {
            let subject = self.subject(lease, wishes);
            let Some(compiled) = &mut self.compiled else { break };
            let Step { changes, revokes } =
                compiled.subject_changed(self.cluster.world(), &subject.link, Some(&subject));
            whole.changes.extend(changes);
            whole.revokes |= revokes;
        }
        match self.with_epoch(whole) {
            changes if changes.is_empty() => Outcome::Same,
            changes => Outcome::Changes(changes),
        }
    }

    fn with_epoch(&mut self, step: Step) -> Vec<Change> {
        let Step { mut changes, revokes } = step;
        if revokes {
            changes.extend(self.revoke());
        }
        changes
    }

    /// What holds for the link of `lease`.
    fn subject(&mut self, lease: &Lease, wishes: &Wishes) -> Subject {
        let pod = self.pod_of(lease);
        let treatment = self.treatment(lease, pod.as_ref(), wishes);
        if treatment != Treatment::Quarantine && pod.as_ref().is_none_or(|pod| self.cluster.is_settled(pod)) {
            self.settled.insert(lease.host_link.clone());
        }
        let addresses = lease.addresses().chain(lease.anycast.iter().copied()).collect();
        Subject { link: lease.host_link.clone(), pod, addresses, treatment }
    }

    fn treatment(&self, lease: &Lease, pod: Option<&PodKey>, wishes: &Wishes) -> Treatment {
        // A container that is no pod's has no policies.
        let Some(pod) = pod else { return Treatment::Exempt };
        if !self.settled.contains(&lease.host_link) && !self.cluster.is_settled(pod) {
            return if wishes.unknown_open { Treatment::Exempt } else { Treatment::Quarantine };
        }
        match wishes.mode {
            Mode::Enforce if lease.audit && wishes.audit.contains(&*pod.namespace) => Treatment::Audit,
            Mode::Enforce => Treatment::Enforce,
            Mode::Audit => Treatment::Audit,
            Mode::None => Treatment::Exempt,
        }
    }

    /// The pod of `lease`: the one that the runtime has named or, where that was lost, the one of this node that has its address.
    fn pod_of(&self, lease: &Lease) -> Option<PodKey> {
        if let Some(pod) = &lease.pod {
            return Some(PodKey { namespace: pod.namespace.as_str().into(), name: pod.name.clone() });
        }
        let has = |pod: &Pod| lease.primary().any(|ip| pod.addresses.contains(&ip));
        self.cluster.own().find(|(_, pod)| has(pod)).map(|(key, _)| key.clone())
    }

    /// Of a directory: the pods of this node are those of its leases, with what is written of them.
    fn tell_own(&mut self, leases: &[&Lease]) -> Learned {
        let mut each = Vec::new();
        for (key, pod) in own_pods(leases, &self.written) {
            each.push(News { key, known: false, now: Some(pod) });
        }
        self.cluster.hear(ClusterNews::Own(Told { each, complete: false }))
    }

    /// Of a directory: what it tells of a pod of this node is told as of one of its own.
    fn written(&mut self, news: ClusterNews, leases: &[&Lease]) -> Vec<ClusterNews> {
        let ClusterNews::Peers(watch, told) = news else { return vec![news] };
        for change in &told.each {
            match &change.now {
                Some(pod) => self.written.insert(change.key.clone(), pod.clone()),
                None => self.written.remove(&change.key),
            };
        }
        let own: BTreeMap<PodKey, Pod> = own_pods(leases, &self.written);
        let is_own = |key: &PodKey| own.contains_key(key);
        let (here, elsewhere): (Vec<_>, Vec<_>) = told.each.into_iter().partition(|change| is_own(&change.key));
        let here = here.into_iter().filter_map(|change| {
            let now = own.get(&change.key).cloned()?;
            Some(News { now: Some(now), ..change })
        });
        let own = ClusterNews::Own(Told { each: here.collect(), complete: false });
        let watch = Watch { selection: Selection::all(), ..watch };
        vec![own, ClusterNews::Peers(watch, Told { each: elsewhere, complete: told.complete })]
    }
}

/// The pods of these leases, with the addresses that they have and the labels and ports that are written.
fn own_pods(leases: &[&Lease], written: &BTreeMap<PodKey, Pod>) -> BTreeMap<PodKey, Pod> {
    let mut pods: BTreeMap<PodKey, Pod> = BTreeMap::new();
    for lease in leases {
        let Some(name) = &lease.pod else { continue };
        let key = PodKey { namespace: name.namespace.as_str().into(), name: name.name.clone() };
        let known = written.get(&key);
        let pod = pods.entry(key).or_insert_with(|| Pod {
            labels: known.map(|pod| pod.labels.clone()).unwrap_or_default(),
            ports: known.map(|pod| pod.ports.clone()).unwrap_or_default(),
            addresses: Vec::new(),
        });
        pod.addresses.extend(lease.addresses().chain(lease.anycast.iter().copied()));
    }
    pods
}
