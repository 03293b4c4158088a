//! What the thread that keeps policies knows of the cluster: the world as its policies see it, kept by news of single changes.
//!
//! Nothing that was allowed is taken away for want of knowledge. A policy of a pod of this node that is about pods of which not
//! all are known yet waits until they are, and so does a pod of this node that comes under such a policy by other labels; a pod
//! that is new here is not settled meanwhile, which says the same to whoever opens its link. What a piece of news costs does not
//! grow with the number of pods. Must not ask an API server or read a file, nor decide what becomes of a packet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::policy::select::Labels;
use model::policy::watching::{Selection, selections, watches};
use model::policy::{Pod, PodKey, Policy, World};

/// Most watches that have ended of which what they have shown counts on.
const ENDED_MAX: usize = 8;

/// A policy by its namespace and name.
pub type PolicyKey = (String, String);

/// One piece of news. A number is that of the watch that tells; a watch that begins later has a higher one.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterNews {
    /// Of policies.
    Policies(u64, Told<PolicyKey, Arc<Policy>>),
    /// Of namespaces and their labels.
    Namespaces(u64, Told<String, Labels>),
    /// Of the pods of this node.
    Own(Told<PodKey, OwnPod>),
    /// Of the pods of a selection, as one watch shows them.
    Peers(Watch, Told<PodKey, Arc<Pod>>),
    /// A watch has ended that showed these pods.
    Ended(Watch, Vec<PodKey>),
    /// What of a policy is not understood; none if all of it is, or there is no such policy.
    Faults(u64, PolicyKey, Option<String>),
    /// What the API server refuses to tell a watch, why, and what to do; none if it tells.
    Refusal(u64, Option<String>),
    /// Somebody has heard that nothing is wished ([`Cluster::forget`]), and all watches below this number are on their end.
    Cleared(u64),
}

impl ClusterNews {
    /// The watch that tells; none where it is not one that was wished.
    fn number(&self) -> Option<u64> {
        match self {
            ClusterNews::Policies(number, _) | ClusterNews::Namespaces(number, _) | ClusterNews::Refusal(number, _) => {
                Some(*number)
            }
            ClusterNews::Faults(number, ..) => Some(*number),
            ClusterNews::Peers(watch, _) | ClusterNews::Ended(watch, _) => Some(watch.number),
            ClusterNews::Own(_) | ClusterNews::Cleared(_) => None,
        }
    }
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnPod {
    /// What policies see.
    pub pod: Arc<Pod>,
    /// Tells it from others that have had its name; none where any uid of a runtime means it, as with a static pod.
    pub uid: Option<Box<str>>,
}

/// One watch of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watch {
    /// Which pods.
    pub selection: Selection,
    /// Tells it from others of the same pods, of which one may end while another begins.
    pub number: u64,
}

/// Changes of things of one kind, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Told<K, V> {
    /// Each thing that is new, another than before, or gone.
    pub each: Vec<Change<K, V>>,
    /// With these, all are told.
    pub complete: bool,
}

/// What has become of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Change<K, V> {
    /// Which.
    pub key: K,
    /// It was there before, as far as the source of this news has told.
    pub known: bool,
    /// What it is; none for one that is gone.
    pub now: Option<V>,
}

/// What a piece of news has changed in the world. What each thing is now stands in the world; what it was stands here, none for
/// one that is new. A thing may stand here twice, the earlier state first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learned {
    /// Policies.
    pub policies: Vec<(PolicyKey, Option<Arc<Policy>>)>,
    /// Namespaces.
    pub namespaces: Vec<(String, Option<Labels>)>,
    /// Pods, of this node and of others.
    pub pods: Vec<(PodKey, Option<Arc<Pod>>)>,
    /// Pods of this node may be settled now that were not before, or the other way round.
    pub settled: bool,
    /// [`Cluster::wanted`] is another than before.
    pub wanted: bool,
}

impl Learned {
    /// Whether the world is another than before.
    pub fn is_something(&self) -> bool {
        !(self.policies.is_empty() && self.namespaces.is_empty() && self.pods.is_empty())
    }
}

/// What is known of the cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    world: World,
    /// The pods of this node, with their uids.
    own: BTreeMap<PodKey, Option<Box<str>>>,
    /// What watches of peers show of pods of this node. It counts when they are none of this node any more.
    also: BTreeMap<PodKey, Arc<Pod>>,
    /// Pods that more than one source shows, and how many more.
    shared: BTreeMap<PodKey, u16>,
    listed: Listed,
    /// The watches of which all pods are known.
    complete: BTreeSet<Watch>,
    /// Policies that wait for pods that they are about. The world has what they were before, if they were.
    held_policies: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Labels of pods of this node that wait for pods that their policies are about. The world has the former ones.
    held_labels: BTreeMap<PodKey, Labels>,
    /// The policies that select pods of this node.
    needs: BTreeMap<PolicyKey, Need>,
    wanted: BTreeSet<Selection>,
    known: bool,
    /// What of policies is not understood.
    faults: BTreeMap<PolicyKey, String>,
    /// What the API server refuses to tell, by the number of the watch that it is refused to.
    refusals: BTreeMap<u64, String>,
    /// What watches have shown that have ended, the oldest first. It counts as long as a policy needs it and nobody else shows it.
    ended: Vec<(Selection, Vec<PodKey>)>,
    /// Watches below this number have been forgotten.
    forgotten: u64,
    /// How many times everything was forgotten without an answer yet. Until then, all news are of what was.
    forgetting: u64,
}

/// What has been told as a whole.
#[derive(Debug, Clone, Copy, Default)]
struct Listed {
    policies: bool,
    namespaces: bool,
    own: bool,
}

/// Which pods a policy is about.
#[derive(Debug, PartialEq, Eq)]
struct Need {
    selections: BTreeSet<Selection>,
    /// All of them are known.
    met: bool,
}

impl Cluster {
    /// The world. Whatever is in it counts.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The pods of this node.
    pub fn own(&self) -> impl Iterator<Item = (&PodKey, &Pod)> {
        self.own.keys().filter_map(|key| Some((key, &**self.world.pods.get(key)?)))
    }

    /// Whether everything has been told once that counts for this node: policies, namespaces, its own pods, and the pods that
    /// its policies are about. Until then, what an earlier agent left in the kernel is better than the world.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether it is known what holds for a pod of this node: its labels, its policies, and the pods that these are about. One
    /// that is not settled and was before keeps what it had; it is for a new one that this is asked.
    pub fn is_settled(&self, pod: &PodKey) -> bool {
        self.unlisted().is_none() && self.own.contains_key(pod) && self.unmet(pod).next().is_none()
    }

    /// Whether the pod of this node that is known by this name is another one than that of this uid, which has had the name before
    /// or is about to.
    pub fn is_other(&self, pod: &PodKey, uid: Option<&str>) -> bool {
        let known = self.own.get(pod).and_then(|known| known.as_deref());
        known.zip(uid).is_some_and(|(known, uid)| known != uid)
    }

    /// The watches of pods that are wanted, so that the policies of this node's pods are known to be right.
    pub fn wanted(&self) -> &BTreeSet<Selection> {
        &self.wanted
    }

    /// How many policies that select pods of this node count; others wait for the pods that they are about.
    pub fn in_force(&self) -> usize {
        self.needs.keys().filter(|key| self.world.policies.contains_key(*key)).count()
    }

    /// What of the policies that select pods of this node is not understood.
    pub fn faults(&self) -> impl Iterator<Item = (&PolicyKey, &str)> {
        self.needs.keys().filter_map(|key| Some((key, self.faults.get(key)?.as_str())))
    }

    /// What of the policies of a namespace is not understood, a line for each.
    pub fn misunderstood<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = String> + 'a {
        let faults = self.faults.range((namespace.to_owned(), String::new())..);
        faults.take_while(move |((of, _), _)| of == namespace).map(|(key, why)| misunderstood(key, why))
    }

    /// What the API server refuses to tell, with what to do; each once.
    pub fn refusals(&self) -> impl Iterator<Item = &str> {
        let distinct: BTreeSet<&str> = self.refusals.values().map(String::as_str).collect();
        distinct.into_iter()
    }

    /// What has not been told yet that [`Cluster::is_known`] asks for, and the policies that wait for the pods that they are about,
    /// a line each, in words for an operator.
    pub fn missing(&self) -> Vec<String> {
        let waiting = || self.needs.iter().filter(|(_, need)| !need.met).map(|(key, _)| waits(key)).collect();
        self.unlisted().map_or_else(waiting, |list| vec![list.to_owned()])
    }

    /// What has not been told yet that [`Cluster::is_settled`] asks for of this pod of this node, in words for an operator. None if
    /// nothing is missing.
    pub fn missing_of(&self, pod: &PodKey) -> Option<String> {
        let untold = || (!self.own.contains_key(pod)).then_some("nobody has told of it, and of its labels");
        let text = self.unlisted().or_else(untold).map(str::to_owned);
        text.or_else(|| self.unmet(pod).next().map(waits))
    }

    /// The first of the lists that has not been told as a whole.
    fn unlisted(&self) -> Option<&'static str> {
        match self.listed {
            Listed { policies: false, .. } => Some("the list of NetworkPolicies is missing"),
            Listed { namespaces: false, .. } => Some("the list of namespaces is missing"),
            Listed { own: false, .. } => Some("the list of this node's pods is missing"),
            Listed { .. } => None,
        }
    }

    /// The policies of a pod of this node, by the labels that it has or waits for, that are about pods of which not all are known.
    fn unmet<'a>(&'a self, pod: &'a PodKey) -> impl Iterator<Item = &'a PolicyKey> {
        let labels = self.held_labels.get(pod).or_else(|| self.world.pods.get(pod).map(|pod| &pod.labels));
        let of_pod = |labels: &'a Labels| self.candidates(&pod.namespace).filter(|(_, p)| p.subjects.matches(labels));
        let policies = labels.into_iter().flat_map(of_pod).map(|(key, _)| key);
        policies.filter(|key| self.needs.get(*key).is_some_and(|need| !need.met))
    }

    /// Forgets everything but the pods of this node, as when no policies are kept any more. What is on its way from watches is
    /// not looked at, and what is watched after [`ClusterNews::Cleared`] tells everything again.
    pub fn forget(&mut self) {
        let Cluster { world, own, held_labels, listed, forgotten, forgetting, .. } = std::mem::take(self);
        let World { mut pods, .. } = world;
        pods.retain(|key, _| own.contains_key(key));
        for (key, labels) in held_labels {
            pods.entry(key).and_modify(|pod| Arc::make_mut(pod).labels = labels);
        }
        *self = Cluster {
            world: World { pods, ..World::default() },
            own,
            listed: Listed { own: listed.own, ..Listed::default() },
            forgotten,
            forgetting: forgetting + 1,
            ..Cluster::default()
        };
    }

    /// Takes news in.
    pub fn hear(&mut self, news: ClusterNews) -> Learned {
        let mut learned = Learned::default();
        if news.number().is_some_and(|number| self.forgetting > 0 || number < self.forgotten) {
            return learned;
        }
        let unsettles = match news {
            ClusterNews::Policies(_, told) => {
                learned.settled |= told.complete;
                self.listed.policies |= told.complete;
                told.each.into_iter().for_each(|change| self.policy(change, &mut learned));
                true
            }
            ClusterNews::Namespaces(_, told) => {
                learned.settled |= told.complete;
                self.listed.namespaces |= told.complete;
                for Change { key, now, .. } in told.each {
                    let before = match now {
                        Some(labels) => self.world.namespaces.insert(key.clone(), labels),
                        None => self.world.namespaces.remove(&key),
                    };
                    learned.namespaces.push((key, before));
                }
                true
            }
            ClusterNews::Own(told) => {
                learned.settled |= told.complete;
                self.listed.own |= told.complete;
                let mut unsettles = told.complete;
                for change in told.each {
                    unsettles |= self.own_pod(change, &mut learned);
                }
                unsettles
            }
            ClusterNews::Peers(watch, told) => {
                told.each.into_iter().for_each(|change| self.peer(change, &mut learned));
                told.complete && self.complete.insert(watch)
            }
            ClusterNews::Faults(_, key, why) => {
                match why {
                    Some(why) => self.faults.insert(key, why),
                    None => self.faults.remove(&key),
                };
                false
            }
            ClusterNews::Refusal(number, why) => {
                match why {
                    Some(why) => self.refusals.insert(number, why),
                    None => self.refusals.remove(&number),
                };
                false
            }
            ClusterNews::Ended(watch, pods) => {
                self.refusals.remove(&watch.number);
                let was_complete = self.complete.remove(&watch);
                match was_complete {
                    true => self.ended.push((watch.selection, pods)),
                    false => self.gone(pods, &mut learned),
                }
                was_complete
            }
            ClusterNews::Cleared(below) => {
                self.forgotten = below;
                self.forgetting = self.forgetting.saturating_sub(1);
                false
            }
        };
        if unsettles {
            self.settle(&mut learned);
        }
        learned
    }

    fn policy(&mut self, change: Change<PolicyKey, Arc<Policy>>, learned: &mut Learned) {
        let Change { key, now, .. } = change;
        match now {
            Some(policy) => _ = self.held_policies.insert(key, policy),
            None => {
                self.held_policies.remove(&key);
                if let Some(before) = self.world.policies.remove(&key) {
                    learned.policies.push((key, Some(before)));
                }
            }
        }
    }

    /// Whether other policies may hold for the pod than before.
    fn own_pod(&mut self, change: Change<PodKey, OwnPod>, learned: &mut Learned) -> bool {
        let Change { key, now, .. } = change;
        let Some(OwnPod { mut pod, uid }) = now else {
            self.held_labels.remove(&key);
            return self.own.remove(&key).is_some() && {
                learned.settled = true;
                let also = self.also.remove(&key);
                self.release(key.clone(), learned);
                also.into_iter().for_each(|pod| self.put(key.clone(), pod, learned));
                true
            };
        };
        let former = self.own.insert(key.clone(), uid.clone());
        if former.is_none()
            && let Some(shown) = self.world.pods.get(&key)
        {
            *self.shared.entry(key.clone()).or_default() += 1;
            self.also.insert(key.clone(), shown.clone());
        }
        let is_same = former.as_ref() == Some(&uid);
        learned.settled |= !is_same;
        let before = self.world.pods.get(&key).filter(|_| former.is_some());
        if let Some(before) = before.filter(|before| !is_same && **before == pod) {
            // Nobody sees a difference but who looks at its links.
            learned.pods.push((key.clone(), Some(before.clone())));
        }
        let labels = before.filter(|_| is_same).map(|before| before.labels.clone());
        let unsettles = labels.as_ref() != Some(&pod.labels) || self.held_labels.contains_key(&key);
        self.held_labels.remove(&key);
        if let Some(labels) = labels.filter(|_| unsettles) {
            self.held_labels.insert(key.clone(), std::mem::replace(&mut Arc::make_mut(&mut pod).labels, labels));
        }
        self.put(key, pod, learned);
        unsettles
    }

    fn peer(&mut self, change: Change<PodKey, Arc<Pod>>, learned: &mut Learned) {
        let Change { key, known, now } = change;
        let is_own = self.own.contains_key(&key);
        let Some(pod) = now else {
            self.release(key.clone(), learned);
            if is_own && !self.shared.contains_key(&key) {
                self.also.remove(&key);
            }
            return;
        };
        if !known && self.world.pods.contains_key(&key) {
            *self.shared.entry(key.clone()).or_default() += 1;
        }
        // Of its own pods, the watch of them tells more, and sooner.
        if is_own {
            self.also.insert(key, pod);
        } else {
            self.put(key, pod, learned);
        }
    }

    fn put(&mut self, key: PodKey, pod: Arc<Pod>, learned: &mut Learned) {
        if self.world.pods.get(&key) != Some(&pod) {
            let before = self.world.pods.insert(key.clone(), pod);
            learned.pods.push((key, before));
        }
    }

    /// One source does not show the pod any more.
    fn release(&mut self, key: PodKey, learned: &mut Learned) {
        match self.shared.get_mut(&key) {
            Some(1) => _ = self.shared.remove(&key),
            Some(more) => *more -= 1,
            None => {
                if let Some(before) = self.world.pods.remove(&key) {
                    learned.pods.push((key, Some(before)));
                }
            }
        }
    }

    /// The policies of a namespace, as they are told, be they in the world yet or not.
    fn candidates<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (&'a PolicyKey, &'a Policy)> + use<'a> {
        fn within<'a>(
            policies: &'a BTreeMap<PolicyKey, Arc<Policy>>,
            namespace: &str,
        ) -> impl Iterator<Item = (&'a PolicyKey, &'a Policy)> + use<'a> {
            let namespace = namespace.to_owned();
            let from = (namespace.clone(), String::new());
            let within = policies.range(from..).take_while(move |((other, _), _)| *other == namespace);
            within.map(|(key, policy)| (key, &**policy))
        }
        let held = within(&self.held_policies, namespace);
        let rest = within(&self.world.policies, namespace).filter(|(key, _)| !self.held_policies.contains_key(*key));
        held.chain(rest)
    }

    /// Finds out what is needed, and puts into the world what waits no more.
    fn settle(&mut self, learned: &mut Learned) {
        let needs = self.find_needs();
        learned.settled |= needs != self.needs || !self.held_labels.is_empty() || !self.held_policies.is_empty();
        self.needs = needs;
        let met = |needs: &BTreeMap<PolicyKey, Need>, key: &PolicyKey| needs.get(key).is_none_or(|need| need.met);

        let free = |key: &PodKey, labels: &Labels| {
            self.candidates(&key.namespace).all(|(of, policy)| !policy.subjects.matches(labels) || met(&self.needs, of))
        };
        let freed: Vec<PodKey> =
            self.held_labels.iter().filter(|(key, labels)| free(key, labels)).map(|(key, _)| key.clone()).collect();
        for key in freed {
            if let (Some(labels), Some(pod)) = (self.held_labels.remove(&key), self.world.pods.get(&key)) {
                let pod = Pod { labels, ..Pod::clone(pod) };
                self.put(key, pod.into(), learned);
            }
        }
        for (key, policy) in std::mem::take(&mut self.held_policies) {
            if met(&self.needs, &key) {
                let before = self.world.policies.get(&key);
                if before != Some(&policy) {
                    let before = self.world.policies.insert(key.clone(), policy);
                    learned.policies.push((key, before));
                }
            } else {
                self.held_policies.insert(key, policy);
            }
        }
        let wanted = watches(self.needs.values().flat_map(|need| need.selections.clone()), &self.wanted);
        if wanted != self.wanted {
            self.wanted = wanted;
            learned.wanted = true;
        }
        let Listed { policies, namespaces, own } = self.listed;
        self.known |= policies && namespaces && own && self.needs.values().all(|need| need.met);
        self.let_go(learned);
    }

    /// Takes away what watches have shown that have ended, but for what a policy needs that no other watch has told yet: it may be
    /// in force, and would lose its peers for as long as a list takes.
    fn let_go(&mut self, learned: &mut Learned) {
        let mut ended = std::mem::take(&mut self.ended);
        let missed: BTreeSet<&Selection> = match ended.is_empty() {
            true => BTreeSet::new(),
            false => {
                let unmet = self.needs.values().filter(|need| !need.met).flat_map(|need| &need.selections);
                unmet.filter(|needed| !self.is_told(needed)).collect()
            }
        };
        let is_missed = |(selection, _): &(Selection, _)| missed.iter().any(|missed| selection.covers(missed));
        let mut gone: Vec<PodKey> =
            ended.extract_if(.., |ended| !is_missed(ended)).flat_map(|(_, pods)| pods).collect();
        let more = ended.len().saturating_sub(ENDED_MAX);
        gone.extend(ended.drain(..more).flat_map(|(_, pods)| pods));
        self.ended = ended;
        self.gone(gone, learned);
    }

    /// A watch does not show these pods any more.
    fn gone(&mut self, pods: Vec<PodKey>, learned: &mut Learned) {
        for key in pods {
            self.peer(Change { key, known: true, now: None }, learned);
        }
    }

    /// Whether a watch has told of all pods of a selection.
    fn is_told(&self, needed: &Selection) -> bool {
        self.complete.iter().any(|watch| watch.selection.covers(needed))
    }

    fn find_needs(&self) -> BTreeMap<PolicyKey, Need> {
        // A pod with labels that wait counts with either.
        let mut labels: BTreeMap<&Arc<str>, Vec<&Labels>> = BTreeMap::new();
        for key in self.own.keys() {
            let both = self.world.pods.get(key).map(|pod| &pod.labels).into_iter().chain(self.held_labels.get(key));
            labels.entry(&key.namespace).or_default().extend(both);
        }
        let mut needs = BTreeMap::new();
        for (namespace, labels) in labels {
            for (key, policy) in self.candidates(namespace) {
                if labels.iter().any(|labels| policy.subjects.matches(labels)) {
                    let selections = selections(namespace, policy, &self.world.namespaces);
                    let met = selections.iter().all(|needed| self.is_told(needed));
                    needs.insert(key.clone(), Need { selections, met });
                }
            }
        }
        needs
    }
}

/// That a policy waits, in words for an operator.
fn waits((namespace, name): &PolicyKey) -> String {
    format!("the pods that NetworkPolicy {namespace}/{name} is about are missing")
}

/// That a policy is not understood in part, in words for an operator.
pub fn misunderstood((namespace, name): &PolicyKey, why: &str) -> String {
    format!("NetworkPolicy {namespace}/{name} is not understood in part, and allows less than it says: {why}")
}

#[cfg(test)]
mod tests;
