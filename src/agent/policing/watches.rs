//! The watches that tell what the cluster holds for policies, each with a thread of its own, and the thread that begins and ends those
//! of pods as they are wanted.
//!
//! A watch of pods that is wanted no more goes on for some minutes: the pod that it was for may be about to be made anew, and a list
//! costs the server more than a watch. It never ends before everything has come that is wanted instead. Must not know what a policy
//! means, nor decide what is wanted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::agent::node::cluster::report;
use crate::agent::policing::cluster::{Change, ClusterNews, Told, Watch};
use crate::agent::threads::{Threads, spawn};
use crate::kube::client::Client;
use crate::kube::kind::{Name, Objects};
use crate::kube::objects::Pod as OwnPod;
use crate::kube::policy_objects::{Namespaces, NetworkPolicies, PeerPods, PolicyObject};
use crate::kube::reflect::{Audience, reflect};
use crate::kube::watch::{self, Changes, WatchNotice};
use crate::process::log;
use model::policy::select::Labels;
use model::policy::watching::{Selection, WATCHES_MAX};
use model::policy::{Pod, PodKey};

/// How long a watch goes on that is wanted no more, 5 min.
const KEEP: Duration = Duration::from_secs(300);

/// Most watches of pods at once, those that are wanted no more among them.
const RUNNING_MAX: usize = 2 * WATCHES_MAX;

/// Interval between looks at what can end, or could not begin, 5 s.
const INTERVAL: Duration = Duration::from_secs(5);

/// Takes news. It may make its caller wait, and must not fail.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(ClusterNews) + Send + Sync>);

impl Tell {
    /// Hands each piece of news to `hear`.
    pub fn new(hear: impl Fn(ClusterNews) + Send + Sync + 'static) -> Tell {
        Tell(Arc::new(hear))
    }

    /// Tells.
    pub fn tell(&self, news: ClusterNews) {
        (self.0)(news);
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// The threads at work.
#[derive(Debug)]
pub struct Watching {
    /// Takes the selections that are to be watched, all of them each time. The watches end some time after it is gone.
    pub wanted: Sender<BTreeSet<Selection>>,
    /// The watches of policies and of namespaces end when these are gone.
    pub stops: Vec<Sender<()>>,
}

/// Starts the threads. `ended` is called when the watch of policies or that of namespaces has ended.
///
/// # Errors
/// A thread could not be started.
pub fn follow(
    client: &Arc<Client>,
    threads: &Threads,
    tell: &Tell,
    ended: impl Fn() + Clone + Send + 'static,
) -> io::Result<Watching> {
    let (stop_policies, stopped) = channel();
    let (watch, mut audience, of_policies) = (client.clone(), PolicyAudience { tell: tell.clone() }, ended.clone());
    threads.start("watch-policies", move || {
        reflect(&watch, NetworkPolicies, &stopped, &mut audience);
        of_policies();
    })?;
    let (stop_namespaces, stopped) = channel();
    let (watch, mut audience) = (client.clone(), NamespaceAudience { tell: tell.clone() });
    threads.start("watch-spaces", move || {
        reflect(&watch, Namespaces, &stopped, &mut audience);
        ended();
    })?;
    let (wanted, wishes) = channel();
    let peers = Peers { client: client.clone(), tell: tell.clone(), running: BTreeMap::new(), begun: 0 };
    threads.start("watch-peers", move || peers.run(&wishes))?;
    Ok(Watching { wanted, stops: vec![stop_policies, stop_namespaces] })
}

/// Makes keys of pods, of which those of one namespace share its name.
#[derive(Debug, Default)]
struct Keys(RefCell<BTreeSet<Arc<str>>>);

impl Keys {
    fn key(&self, name: &Name) -> PodKey {
        let mut namespaces = self.0.borrow_mut();
        let known = namespaces.get(name.namespace.as_str()).cloned();
        let namespace = known.unwrap_or_else(|| {
            // A new namespace is rare enough to forget those that are gone.
            namespaces.retain(|namespace| Arc::strong_count(namespace) > 1);
            let namespace: Arc<str> = name.namespace.as_str().into();
            namespaces.insert(namespace.clone());
            namespace
        });
        PodKey { namespace, name: name.name.clone() }
    }
}

/// Changes that a watch tells, with other keys and other values.
fn told<T, K, V>(changes: Changes<T>, key: impl Fn(&Name) -> K, value: impl Fn(&T) -> Option<V>) -> Told<K, V> {
    let one = |change: watch::Change<T>| {
        let known = change.before.as_deref().and_then(&value).is_some();
        let now = change.after.as_deref().and_then(&value);
        (known || now.is_some()).then(|| Change { key: key(&change.name), known, now })
    };
    Told { each: changes.each.into_iter().filter_map(one).collect(), complete: changes.complete }
}

#[derive(Debug)]
struct PolicyAudience {
    tell: Tell,
}

impl Audience<PolicyObject> for PolicyAudience {
    fn changed(&mut self, changes: Changes<PolicyObject>, _: &Arc<Objects<PolicyObject>>) {
        for change in &changes.each {
            change.after.iter().for_each(|object| report_faults(&change.name.namespace, &change.name.name, object));
        }
        let key = |name: &Name| (name.namespace.clone(), name.name.clone());
        self.tell.tell(ClusterNews::Policies(told(changes, key, |object| Some(object.policy.clone()))));
    }

    fn notice(&mut self, notice: WatchNotice) {
        report("networkpolicies", &notice);
    }
}

/// Logs what of a policy is not understood.
pub fn report_faults(namespace: &str, name: &str, object: &PolicyObject) {
    for fault in &object.faults {
        log::warn("NetworkPolicy is not understood in part, and allows less than it says")
            .with("policy", format!("{namespace}/{name}"))
            .with("err", fault)
            .write_limited();
    }
}

#[derive(Debug)]
struct NamespaceAudience {
    tell: Tell,
}

impl Audience<Labels> for NamespaceAudience {
    fn changed(&mut self, changes: Changes<Labels>, _: &Arc<Objects<Labels>>) {
        let told = told(changes, |name| name.name.clone(), |labels| Some(labels.clone()));
        self.tell.tell(ClusterNews::Namespaces(told));
    }

    fn notice(&mut self, notice: WatchNotice) {
        report("namespaces", &notice);
    }
}

/// Tells what policies need to know of this node's own pods.
#[derive(Debug)]
pub struct OwnPods {
    tell: Tell,
    keys: Keys,
}

impl OwnPods {
    /// Of which nothing has been told yet.
    pub fn new(tell: Tell) -> OwnPods {
        OwnPods { tell, keys: Keys::default() }
    }

    /// Tells the changes that concern policies.
    pub fn changed(&mut self, mut changes: Changes<OwnPod>) {
        // Whether a pod serves concerns nobody here.
        changes.each.retain(|change| {
            change.before.as_ref().map(|pod| &pod.policing) != change.after.as_ref().map(|pod| &pod.policing)
        });
        let told = told(changes, |name| self.keys.key(name), |pod| pod.policing.clone());
        if told.complete || !told.each.is_empty() {
            self.tell.tell(ClusterNews::Own(told));
        }
    }
}

/// The thread that begins and ends watches of pods.
#[derive(Debug)]
struct Peers {
    client: Arc<Client>,
    tell: Tell,
    running: BTreeMap<Selection, Running>,
    /// How many watches have been begun.
    begun: u64,
}

#[derive(Debug)]
struct Running {
    /// The watch ends when this is gone.
    _stop: Sender<()>,
    complete: Arc<AtomicBool>,
    /// Since when it is wanted no more.
    unwanted: Option<Instant>,
}

impl Peers {
    fn run(mut self, wishes: &Receiver<BTreeSet<Selection>>) {
        let mut wanted = BTreeSet::new();
        loop {
            match wishes.recv_timeout(INTERVAL) {
                Ok(newer) => wanted = wishes.try_iter().last().unwrap_or(newer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.begin(&wanted);
            self.end(&wanted, Instant::now());
        }
    }

    fn begin(&mut self, wanted: &BTreeSet<Selection>) {
        for selection in wanted {
            if self.running.contains_key(selection) {
                continue;
            }
            match self.watch(selection) {
                Ok(running) => {
                    log::debug("pods are watched for policies").with("selection", selection).write_limited();
                    self.running.insert(selection.clone(), running);
                }
                // The next look tries again.
                Err(error) => {
                    log::error("pods cannot be watched for policies, which wait for it")
                        .with("err", error)
                        .write_limited();
                }
            }
        }
    }

    fn watch(&mut self, selection: &Selection) -> io::Result<Running> {
        let watch = Watch { selection: selection.clone(), number: self.begun };
        self.begun += 1;
        let (stop, stopped) = channel();
        let complete = Arc::<AtomicBool>::default();
        let keys = Keys::default();
        let mut audience =
            PeerAudience { watch: watch.clone(), tell: self.tell.clone(), complete: complete.clone(), keys };
        let (client, kind) = (self.client.clone(), PeerPods::new(selection.clone()));
        spawn("watch-pods-of", move || {
            let left = reflect(&client, kind, &stopped, &mut audience);
            let gone = left.keys().map(|name| audience.keys.key(name)).collect();
            audience.tell.tell(ClusterNews::Ended(watch, gone));
        })?;
        Ok(Running { _stop: stop, complete, unwanted: None })
    }

    /// Ends what has been wanted no more for some time, or is too much, once everything is there that is wanted instead.
    fn end(&mut self, wanted: &BTreeSet<Selection>, now: Instant) {
        for (selection, running) in &mut self.running {
            let since = running.unwanted.unwrap_or(now);
            running.unwanted = (!wanted.contains(selection)).then_some(since);
        }
        let is_there = |running: &Running| running.complete.load(Ordering::Relaxed);
        if !wanted.iter().all(|selection| self.running.get(selection).is_some_and(is_there)) {
            return;
        }
        let mut unwanted: Vec<(Instant, Selection)> = self
            .running
            .iter()
            .filter_map(|(selection, running)| Some((running.unwanted?, selection.clone())))
            .collect();
        unwanted.sort();
        for (since, selection) in unwanted {
            if now.saturating_duration_since(since) < KEEP && self.running.len() <= RUNNING_MAX {
                break;
            }
            self.running.remove(&selection);
        }
    }
}

#[derive(Debug)]
struct PeerAudience {
    watch: Watch,
    tell: Tell,
    complete: Arc<AtomicBool>,
    keys: Keys,
}

impl Audience<Pod> for PeerAudience {
    fn changed(&mut self, changes: Changes<Pod>, _: &Arc<Objects<Pod>>) {
        let complete = changes.complete;
        let told = told(changes, |name| self.keys.key(name), |pod| Some(pod.clone()));
        self.tell.tell(ClusterNews::Peers(self.watch.clone(), told));
        if complete {
            self.complete.store(true, Ordering::Relaxed);
        }
    }

    fn notice(&mut self, notice: WatchNotice) {
        report("pods", &notice);
    }
}
