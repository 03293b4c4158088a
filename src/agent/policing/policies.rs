//! The policies' part of the table: what is known of the cluster, compiled for the links of this node, and kept up change by
//! change.
//!
//! `model::policy` decides what policies mean; this file knows which links there are and what is to hold for each, and when a
//! change takes something away. Must not ask the kernel or an API server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::agent::policing::cluster::{
    Change as News, Cluster, ClusterNews, Learned, OwnPod, Told, Watch, misunderstood,
};
use crate::agent::policing::epoch::Epoch;
use crate::agent::policing::state::{Ails, Counts};
use crate::agent::policing::watches::Wish;
use crate::process::log;
use model::addr::{Attachment, IfName};
use model::lease::{Lease, PodName};
use model::policing::{Mode, Policing as Wishes};
use model::policy::compile::{Compiled, Log, Settings, Step, compile};
use model::policy::watching::Selection;
use model::policy::{Pod, PodKey, Subject, Treatment};
use model::ruleset::Table;
use model::ruleset::diff::Change;

/// Lines of the kernel's log for each link and direction.
const LOG: Log = Log { rate: 2, burst: 8 };

/// Most addresses of pods that are gone that are remembered one by one.
const LEFT_MAX: usize = 1024;

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
    /// Links of containers whose pod is not known any more, and that had policies.
    orphans: BTreeSet<IfName>,
    /// The addresses of pods that are gone.
    left: Left,
    /// The epoch has moved, and nothing is remembered yet that the rules since then have allowed.
    unsealed: bool,
    /// It has moved since somebody last asked.
    revoked: bool,
    /// The epoch has moved while nobody knew what should stand.
    moved: bool,
    /// Of a directory: the pods that it tells of, which do not say of which node they are.
    written: BTreeMap<PodKey, Arc<Pod>>,
}

impl Policies {
    /// Of which nothing is known yet. The epoch is kept in `state_dir`; `mask` has flock's bits of the connection mark.
    pub fn new(origin: Origin, state_dir: &Path, mask: u32) -> Policies {
        Policies {
            origin,
            cluster: Cluster::default(),
            epoch: Epoch::open(state_dir, mask),
            mask,
            compiled: None,
            wished: None,
            settled: BTreeSet::new(),
            orphans: BTreeSet::new(),
            left: Left::default(),
            unsealed: false,
            revoked: false,
            moved: false,
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

    /// Whether anybody tells of policies at all.
    pub fn have_an_origin(&self) -> bool {
        !matches!(self.origin, Origin::Nowhere)
    }

    /// The value by which connections are known that were allowed; none while each is judged packet by packet.
    pub fn epoch(&self) -> Option<u32> {
        self.epoch.value()
    }

    /// How many policies that select pods of this node are in force, and how many pods they isolate; nothing else is counted.
    pub fn counts(&self, wishes: &Wishes) -> Counts {
        let Some(compiled) = self.compiled.as_ref().filter(|_| self.are_kept(wishes)) else { return Counts::default() };
        let isolated = compiled.isolated();
        let audited = isolated.values().filter(|treatment| **treatment == Treatment::Audit).count();
        Counts { policies: self.cluster.in_force(), isolated: isolated.len(), audited, ..Counts::default() }
    }

    /// What is wrong with policies, but for pods in quarantine.
    pub fn ails(&self, wishes: &Wishes) -> Ails {
        if !self.are_kept(wishes) {
            return Ails::default();
        }
        let faults = self.cluster.faults().map(|(key, why)| misunderstood(key, why));
        Ails {
            refused: self.cluster.refusals().map(str::to_owned).collect(),
            missing: self.cluster.missing(),
            quarantined: Vec::new(),
            misunderstood: faults.collect(),
        }
    }

    /// Which pod a lease is of that is in quarantine, and what is missing, in words for an operator.
    pub fn why_quarantined(&self, lease: &Lease) -> (String, String) {
        let pod = self.pod_of(lease);
        let (name, missing) = match pod {
            Some(pod) => (pod.to_string(), self.cluster.missing_of(&pod)),
            None => (format!("container {}", lease.attachment.container_id), self.cluster.missing().into_iter().next()),
        };
        (name, missing.unwrap_or_else(|| "nothing is missing, and its link is about to be opened".into()))
    }

    /// What stands in the kernel from before may have marked connections so.
    pub fn marks_may_be(&mut self, mark: u32) {
        self.epoch.at_least(mark);
    }

    /// Learns that what stands in the kernel from before has policies for these links. Those of `leases` whose pod nobody knows, as
    /// the record was lost, are closed until they are made anew. True if that is news.
    pub fn were_led<'a, 'b>(
        &mut self,
        led: impl Iterator<Item = &'a IfName>,
        leases: impl Iterator<Item = &'b Lease>,
        wishes: &Wishes,
    ) -> bool {
        if wishes.mode != Mode::Enforce || wishes.unknown_open {
            return false;
        }
        let led: BTreeSet<&IfName> = led.collect();
        let nameless = leases.filter(|lease| led.contains(&lease.host_link) && self.pod_of(lease).is_none());
        let more: Vec<Lease> = nameless.cloned().collect();
        let before = self.orphans.len();
        for lease in more {
            if self.orphans.insert(lease.host_link.clone()) {
                log::error("pod of a link that had policies is not known, so nothing reaches it: delete the pod")
                    .about(&lease)
                    .with("link", &lease.host_link)
                    .write_limited();
            }
        }
        self.orphans.len() > before
    }

    /// The bits of the connection mark that are flock's.
    pub fn mask(&self) -> u32 {
        self.mask
    }

    /// The value of the mark from now on, if it has moved while what stands was an earlier agent's.
    pub fn take_moved(&mut self) -> Option<Option<u32>> {
        std::mem::take(&mut self.moved).then(|| self.epoch.value())
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

    /// Compiles the part for these leases, as soon as all is known that counts.
    pub fn compile<'a>(&mut self, leases: impl Iterator<Item = &'a Lease>, wishes: &Wishes) {
        if !self.are_kept(wishes) {
            self.compiled = None;
            return;
        }
        let leases: Vec<&Lease> = leases.collect();
        if matches!(self.origin, Origin::Directory) {
            self.tell_all_own(&leases);
        }
        if !self.cluster.is_known() {
            return;
        }
        let subjects: Vec<Subject> = leases.iter().map(|lease| self.subject(lease, wishes)).collect();
        let links: BTreeSet<&IfName> = subjects.iter().map(|subject| &subject.link).collect();
        self.settled.retain(|link| links.contains(link));
        let seals = !self.unsealed;
        let settings = |epoch| Settings { mask: self.mask, epoch, seals, log: wishes.log.then_some(LOG) };
        let fresh = compile(self.cluster.world(), &subjects, &settings(self.epoch.value()));
        let revokes = self.compiled.as_ref().is_some_and(|before| fresh.revokes(before));
        self.compiled = Some(fresh);
        if revokes {
            self.revoke();
        }
    }

    /// Has every connection judged anew. Returns what that changes in the part.
    pub fn revoke(&mut self) -> Vec<Change> {
        self.unsealed = self.compiled.is_some();
        self.revoked = self.unsealed;
        let epoch = self.epoch.advance();
        self.left = Left { addresses: VecDeque::new(), others: false };
        self.compiled.as_mut().map(|compiled| compiled.epoch_changed(epoch)).unwrap_or_default()
    }

    /// Whether the epoch has moved since the last call, so that [`Policies::seal`] is due some time behind the change.
    pub fn take_revoked(&mut self) -> bool {
        std::mem::take(&mut self.revoked)
    }

    /// Has remembered from now on what is allowed. Returns what that changes in the part.
    pub fn seal(&mut self) -> Vec<Change> {
        self.unsealed = false;
        self.compiled.as_mut().map(Compiled::seals_again).unwrap_or_default()
    }

    /// A link is about to be made for `lease`, which is one of `leases`. Returns what that changes, as far as the part is known.
    pub fn link_comes(&mut self, lease: &Lease, leases: &BTreeMap<Attachment, Lease>, wishes: &Wishes) -> Vec<Change> {
        let mut changes = self.own_changed(lease, leases, wishes);
        let subject = self.subject(lease, wishes);
        if let Some(compiled) = &mut self.compiled {
            let step = compiled.subject_changed(self.cluster.world(), &subject.link, Some(&subject));
            let led = leads(compiled, &subject.link);
            let shares = sharing(lease, leases).any(|other| led || leads(compiled, &other.host_link));
            changes.extend(self.with_epoch(step));
            if led && self.left.has_any(&subject.addresses) || shares {
                changes.extend(self.revoke());
            }
        } else if self.is_quarantined(lease, wishes) && self.left.has_any(&subject.addresses) {
            self.revoke();
            self.moved = true;
        }
        changes
    }

    /// The link of `lease`, which is none of `leases` any more, has gone.
    pub fn link_goes(&mut self, lease: &Lease, leases: &BTreeMap<Attachment, Lease>, wishes: &Wishes) -> Vec<Change> {
        self.forget(lease);
        let mut changes = Vec::new();
        if let Some(compiled) = &mut self.compiled {
            let step = compiled.subject_changed(self.cluster.world(), &lease.host_link, None);
            // The kernel leads to them what it has led to this one.
            let shares = sharing(lease, leases).any(|other| leads(compiled, &other.host_link));
            changes = self.with_epoch(step);
            if shares {
                changes.extend(self.revoke());
            }
        }
        changes.extend(self.own_changed(lease, leases, wishes));
        changes
    }

    /// `lease` has ended, and the part is about to be compiled for those that are left. One of the same link may have begun.
    pub fn forget(&mut self, lease: &Lease) {
        self.settled.remove(&lease.host_link);
        self.orphans.remove(&lease.host_link);
        self.left.add(lease.all_addresses());
    }

    /// Of a directory: the pod of `lease` is what its leases say.
    fn own_changed(&mut self, lease: &Lease, leases: &BTreeMap<Attachment, Lease>, wishes: &Wishes) -> Vec<Change> {
        let Origin::Directory = self.origin else { return Vec::new() };
        let Some(name) = &lease.pod else { return Vec::new() };
        let siblings: Vec<&Lease> = leases.values().filter(|other| is_of(other, name)).collect();
        let now = own_pods(siblings.iter().copied(), &self.written).into_values().next();
        let learned = self.tell_own(vec![News { key: key_of(name), known: true, now }]);
        // The links of the pod are looked at by whoever asks.
        self.step(&learned, &[], wishes)
    }

    /// Whether a link that is made for `lease` now is closed: nobody knows yet what holds for it or, as long as anything is
    /// missing for any pod, there is no part that could say it.
    pub fn is_quarantined(&self, lease: &Lease, wishes: &Wishes) -> bool {
        self.are_kept(wishes)
            && match self.treatment(lease, self.pod_of(lease).as_ref(), wishes) {
                Treatment::Quarantine => true,
                Treatment::Enforce => self.compiled.is_none() && !wishes.unknown_open,
                Treatment::Audit | Treatment::Exempt => false,
            }
    }

    /// Takes news in. Returns what they change in force, for these leases; none if the part becomes known only now, or has to be
    /// compiled first.
    pub fn hear(
        &mut self,
        news: Vec<ClusterNews>,
        leases: &BTreeMap<Attachment, Lease>,
        wishes: Option<&Wishes>,
    ) -> Option<Vec<Change>> {
        let mut learned = Learned::default();
        for news in news {
            let news = if matches!(self.origin, Origin::Directory) { self.read(news, leases) } else { vec![news] };
            for news in news {
                let more = self.cluster.hear(news);
                if self.compiled.is_none() {
                    // It is about to be compiled from the world as it is then.
                    continue;
                }
                learned.policies.extend(more.policies);
                learned.namespaces.extend(more.namespaces);
                learned.pods.extend(more.pods);
                learned.settled |= more.settled;
                learned.wanted |= more.wanted;
            }
        }
        // Before the first NodeConfig nothing is asked for, and this node's own pods are told all the same.
        let Some(wishes) = wishes else { return Some(Vec::new()) };
        self.wish(wishes);
        if self.compiled.is_none() {
            return (!self.cluster.is_known()).then(Vec::new);
        }
        let leases: Vec<&Lease> = leases.values().collect();
        Some(self.step(&learned, &leases, wishes))
    }

    /// What was learned, as changes: of pods, which are elements of the sets that there are, then of namespaces, then of policies,
    /// which make other sets of the pods that there are now, and last of links.
    fn step(&mut self, learned: &Learned, leases: &[&Lease], wishes: &Wishes) -> Vec<Change> {
        let Some(compiled) = &mut self.compiled else { return Vec::new() };
        let world = self.cluster.world();
        let mut whole = Step { changes: Vec::new(), revokes: false };
        let mut add = |step: Step| {
            whole.changes.extend(step.changes);
            whole.revokes |= step.revokes;
        };
        let mut touched: BTreeSet<IfName> = BTreeSet::new();
        // Of a thing that has changed several times, what it was before all of these news counts.
        let mut seen: BTreeSet<&PodKey> = BTreeSet::new();
        for (key, before) in learned.pods.iter().filter(|(key, _)| seen.insert(key)) {
            let [before, after] = [before.as_ref(), world.pods.get(key)].map(|pod| pod.map(|pod| (key, &**pod)));
            add(compiled.pod_changed(before, after));
            touched.extend(compiled.links_of(key).cloned());
        }
        let namespaces: BTreeSet<&String> = learned.namespaces.iter().map(|(name, _)| name).collect();
        for name in namespaces {
            add(compiled.namespace_changed(world, name, world.namespaces.get(name)));
        }
        let policies: BTreeSet<&(String, String)> = learned.policies.iter().map(|(key, _)| key).collect();
        for (namespace, name) in policies {
            add(compiled.policy_changed(world, namespace, name));
        }
        let concerned: Vec<&Lease> = leases
            .iter()
            .filter(|lease| {
                touched.contains(&lease.host_link) || learned.settled && !self.settled.contains(&lease.host_link)
            })
            .copied()
            .collect();
        for lease in concerned {
            let subject = self.subject(lease, wishes);
            let Some(compiled) = &mut self.compiled else { break };
            let step = compiled.subject_changed(self.cluster.world(), &subject.link, Some(&subject));
            whole.changes.extend(step.changes);
            whole.revokes |= step.revokes;
        }
        self.with_epoch(whole)
    }

    fn with_epoch(&mut self, step: Step) -> Vec<Change> {
        let Step { mut changes, revokes } = step;
        if revokes {
            changes.extend(self.revoke());
        }
        changes
    }

    /// What holds for the link of `lease`, which is noted if it is settled.
    fn subject(&mut self, lease: &Lease, wishes: &Wishes) -> Subject {
        let subject = self.subject_of(lease, wishes);
        let is_settled = || subject.pod.as_ref().is_none_or(|pod| self.is_known(lease, pod));
        if subject.treatment != Treatment::Quarantine && is_settled() {
            self.settled.insert(lease.host_link.clone());
        }
        subject
    }

    /// What holds for the link of `lease`.
    pub fn subject_of(&self, lease: &Lease, wishes: &Wishes) -> Subject {
        let pod = self.pod_of(lease);
        let treatment = match self.are_kept(wishes) {
            true => self.treatment(lease, pod.as_ref(), wishes),
            false => Treatment::Exempt,
        };
        Subject { link: lease.host_link.clone(), pod, addresses: lease.all_addresses().collect(), treatment }
    }

    fn treatment(&self, lease: &Lease, pod: Option<&PodKey>, wishes: &Wishes) -> Treatment {
        let Some(pod) = pod else {
            // A container that is no pod's has no policies.
            let had_some = self.orphans.contains(&lease.host_link)
                || self.compiled.as_ref().is_some_and(|compiled| leads(compiled, &lease.host_link));
            let is_closed = had_some && wishes.mode == Mode::Enforce && !wishes.unknown_open;
            return if is_closed { Treatment::Quarantine } else { Treatment::Exempt };
        };
        let treatment = match wishes.mode {
            Mode::Enforce if lease.audit && wishes.audit.contains(&*pod.namespace) => Treatment::Audit,
            Mode::Enforce => Treatment::Enforce,
            Mode::Audit => Treatment::Audit,
            Mode::None => Treatment::Exempt,
        };
        let is_unknown = !self.settled.contains(&lease.host_link) && !self.is_known(lease, pod);
        match treatment {
            // What nobody knows closes nothing where nothing is forbidden.
            Treatment::Audit if is_unknown => Treatment::Exempt,
            _ if is_unknown && wishes.unknown_open => Treatment::Exempt,
            _ if is_unknown => Treatment::Quarantine,
            // Another pod has its name, whose policies mean nothing for one that is gone.
            Treatment::Enforce if self.is_another(lease, pod) => Treatment::Quarantine,
            Treatment::Audit if self.is_another(lease, pod) => Treatment::Exempt,
            treatment => treatment,
        }
    }

    /// Whether it is known what holds for `pod`, which is the one of `lease`.
    fn is_known(&self, lease: &Lease, pod: &PodKey) -> bool {
        self.cluster.is_settled(pod) && !self.is_another(lease, pod)
    }

    /// Whether the pod that is known as `pod` is not the one of `lease`, but one that has its name after it or had it before.
    fn is_another(&self, lease: &Lease, pod: &PodKey) -> bool {
        self.cluster.is_other(pod, lease.pod.as_ref().and_then(|pod| pod.uid.as_deref()))
    }

    /// The pod of `lease`: the one that the runtime has named or, where that was lost, the one of this node that has its address.
    fn pod_of(&self, lease: &Lease) -> Option<PodKey> {
        if let Some(pod) = &lease.pod {
            return Some(key_of(pod));
        }
        let has = |pod: &Pod| lease.primary().any(|ip| pod.addresses.contains(&ip));
        self.cluster.own().find(|(_, pod)| has(pod)).map(|(key, _)| key.clone())
    }

    /// Of a directory: the pods of this node are those of these leases.
    fn tell_all_own(&mut self, leases: &[&Lease]) {
        let pods = own_pods(leases.iter().copied(), &self.written);
        let gone = self.cluster.own().map(|(key, _)| key).filter(|key| !pods.contains_key(key));
        let gone: Vec<_> = gone.map(|key| News { key: key.clone(), known: true, now: None }).collect();
        let come = pods.into_iter().map(|(key, pod)| News { key, known: false, now: Some(pod) });
        self.tell_own(gone.into_iter().chain(come).collect());
    }

    /// Of a directory: tells of pods of this node. One that is none any more is what is written of it.
    fn tell_own(&mut self, each: Vec<News<PodKey, Arc<Pod>>>) -> Learned {
        let gone = each.iter().filter(|change| change.now.is_none());
        let written = gone.filter_map(|change| Some((change.key.clone(), self.written.get(&change.key)?.clone())));
        let written: Vec<_> = written.map(|(key, pod)| News { key, known: true, now: Some(pod) }).collect();
        let mut learned = self.cluster.hear(own_news(each));
        if !written.is_empty() {
            let watch = Watch { selection: Selection::all(), number: 0 };
            let told = Told { each: written, complete: false };
            learned.pods.extend(self.cluster.hear(ClusterNews::Peers(watch, told)).pods);
        }
        learned
    }

    /// Of a directory: what it says of a pod of this node is told as of one of its own.
    fn read(&mut self, news: ClusterNews, leases: &BTreeMap<Attachment, Lease>) -> Vec<ClusterNews> {
        let ClusterNews::Peers(watch, told) = news else { return vec![news] };
        for change in &told.each {
            match &change.now {
                Some(pod) => self.written.insert(change.key.clone(), pod.clone()),
                None => self.written.remove(&change.key),
            };
        }
        let own = own_pods(leases.values(), &self.written);
        let here = told.each.iter().filter_map(|change| {
            let now = own.get(&change.key)?.clone();
            Some(News { key: change.key.clone(), known: true, now: Some(now) })
        });
        let here = own_news(here);
        vec![ClusterNews::Peers(watch, told), here]
    }
}

/// Addresses that pods have left. A connection of such a pod that somebody keeps alive from the other end was allowed to that pod,
/// and must not reach the next one that has the address.
#[derive(Debug)]
struct Left {
    addresses: VecDeque<IpAddr>,
    /// There may be others: those of pods that went before this agent.
    others: bool,
}

impl Default for Left {
    fn default() -> Left {
        Left { addresses: VecDeque::new(), others: true }
    }
}

impl Left {
    fn add(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        for ip in addresses.filter(|ip| !self.addresses.contains(ip)).collect::<Vec<_>>() {
            if self.addresses.len() == LEFT_MAX {
                self.addresses.pop_front();
                self.others = true;
            }
            self.addresses.push_back(ip);
        }
    }

    /// Whether a former pod may have had one of these addresses since all connections were last judged anew.
    fn has_any(&self, addresses: &[IpAddr]) -> bool {
        self.others || addresses.iter().any(|ip| self.addresses.contains(ip))
    }
}

/// Those of `leases` that share an address with `lease`: a connection to that address may come to one after it came to another.
fn sharing<'a>(lease: &Lease, leases: &'a BTreeMap<Attachment, Lease>) -> impl Iterator<Item = &'a Lease> {
    let shares = |other: &Lease| other.anycast.iter().any(|ip| lease.anycast.contains(ip));
    leases.values().filter(move |other| other.attachment != lease.attachment && shares(other))
}

/// Whether policies are about a link.
fn leads(compiled: &Compiled, link: &IfName) -> bool {
    compiled.table().maps.values().any(|map| map.contains_key(link))
}

fn key_of(name: &PodName) -> PodKey {
    PodKey { namespace: name.namespace.as_str().into(), name: name.name.clone() }
}

fn is_of(lease: &Lease, pod: &PodName) -> bool {
    lease.pod.as_ref().is_some_and(|name| name.namespace == pod.namespace && name.name == pod.name)
}

/// The pods of these leases, with the addresses that they have and the labels and ports that are written.
fn own_pods<'a>(
    leases: impl Iterator<Item = &'a Lease>,
    written: &BTreeMap<PodKey, Arc<Pod>>,
) -> BTreeMap<PodKey, Arc<Pod>> {
    let mut pods: BTreeMap<PodKey, Pod> = BTreeMap::new();
    for lease in leases {
        let Some(name) = &lease.pod else { continue };
        let key = key_of(name);
        let known = written.get(&key);
        let pod = pods.entry(key).or_insert_with(|| Pod {
            labels: known.map(|pod| pod.labels.clone()).unwrap_or_default(),
            ports: known.map(|pod| pod.ports.clone()).unwrap_or_default(),
            addresses: Vec::new(),
        });
        pod.addresses.extend(lease.all_addresses());
    }
    pods.into_iter().map(|(key, pod)| (key, pod.into())).collect()
}

/// Of a directory, which knows nothing of uids.
fn own_news(each: impl IntoIterator<Item = News<PodKey, Arc<Pod>>>) -> ClusterNews {
    let one = |News { key, known, now }| News { key, known, now: now.map(|pod| OwnPod { pod, uid: None }) };
    ClusterNews::Own(Told { each: each.into_iter().map(one).collect(), complete: false })
}

#[cfg(test)]
mod tests;
