//! The watches that tell what the cluster holds for policies, each with a thread of its own, and the thread that begins and ends
//! them as they are wanted.
//!
//! A watch of pods that is wanted no more goes on for some minutes: the pod that it was for may be about to be made anew, and a
//! list costs the server more than a watch. It never ends before everything has come that is wanted instead. Must not know what a
//! policy means, nor decide what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use crate::agent::node::cluster::{advice, report};
use crate::agent::policing::cluster::{ClusterNews, Watch};
use crate::agent::policing::tell::{Keys, Tell, told};
use crate::agent::threads::spawn;
use crate::kube::client::Client;
use crate::kube::kind::{Kind, Name, Objects};
use crate::kube::policy_objects::{Namespaces, NetworkPolicies, PeerPods, PolicyObject};
use crate::kube::reflect::{Audience, reflect};
use crate::kube::watch::{Changes, WatchNotice};
use crate::process::log;
use model::policy::Pod;
use model::policy::select::Labels;
use model::policy::watching::{Selection, WATCHES_MAX};

/// How long a watch goes on that is wanted no more, 5 min.
const KEEP: Duration = Duration::from_secs(300);

/// Most watches of pods at once, those that are wanted no more among them.
const RUNNING_MAX: usize = 2 * WATCHES_MAX;

/// Interval between looks at what can end, or could not begin, 5 s.
const INTERVAL: Duration = Duration::from_secs(5);

/// Most pods of one piece of news. A list may have ten thousand, which need not be in memory once more in one piece.
const AT_ONCE: usize = 512;

/// What is to be watched, all of it each time: the pods that policies are about, and policies and namespaces in any case; `None`:
/// nothing, since no policies are kept.
pub type Wish = Option<BTreeSet<Selection>>;

#[derive(Debug)]
struct PolicyAudience {
    tell: Tell,
}

impl Audience<PolicyObject> for PolicyAudience {
    fn changed(&mut self, changes: Changes<PolicyObject>, _: &Arc<Objects<PolicyObject>>) {
        let key = |name: &Name| (name.namespace.clone(), name.name.clone());
        for change in &changes.each {
            change.after.iter().for_each(|object| report_faults(&change.name.namespace, &change.name.name, object));
            let faults = |object: &Option<Arc<PolicyObject>>| {
                object.as_ref().map(|object| object.faults.join("; ")).unwrap_or_default()
            };
            let (before, after) = (faults(&change.before), faults(&change.after));
            if before != after {
                self.tell.tell(ClusterNews::Faults(key(&change.name), Some(after).filter(|faults| !faults.is_empty())));
            }
        }
        self.tell.tell(ClusterNews::Policies(told(changes, key, |object| Some(object.policy.clone()))));
    }

    fn notice(&mut self, notice: WatchNotice) {
        hear(&self.tell, "networkpolicies", &notice);
    }
}

/// Logs what a watch of `resource` tells, and passes on what an operator has to see to. A server that is merely away takes nothing
/// away.
fn hear(tell: &Tell, resource: &'static str, notice: &WatchNotice) {
    report(resource, notice);
    let refusal = match notice {
        WatchNotice::Synced { .. } => None,
        WatchNotice::Failed { verb, code: Some(code), message } => match advice(verb, resource, *code, message) {
            Some(advice) => Some(format!("{resource}: {}: {}", advice.what, advice.remedy)),
            None => return,
        },
        WatchNotice::Failed { .. } | WatchNotice::Unusable { .. } => return,
    };
    tell.tell(ClusterNews::Refusal(resource, refusal));
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
        let told = told(changes, |name| name.name.clone(), |labels| Some(Labels::clone(labels)));
        self.tell.tell(ClusterNews::Namespaces(told));
    }

    fn notice(&mut self, notice: WatchNotice) {
        hear(&self.tell, "namespaces", &notice);
    }
}

/// The thread that begins and ends watches. It begins with none.
#[derive(Debug)]
pub struct Watches {
    client: Arc<Client>,
    tell: Tell,
    /// Of policies, and of namespaces.
    basics: Vec<Basic>,
    pods: BTreeMap<Selection, Running>,
    /// How many watches of pods have been begun.
    begun: u64,
}

/// A watch of all things of a kind.
#[derive(Debug)]
struct Basic {
    /// The watch ends when this is gone.
    _stop: Sender<()>,
    /// It may tell.
    live: Arc<AtomicBool>,
}

/// What it was about to tell comes from nobody any more.
impl Drop for Basic {
    fn drop(&mut self) {
        self.live.store(false, Ordering::Relaxed);
    }
}

/// A watch of pods.
#[derive(Debug)]
struct Running {
    /// The watch ends when this is gone.
    _stop: Sender<()>,
    complete: Arc<AtomicBool>,
    /// Since when it is wanted no more.
    unwanted: Option<Instant>,
}

impl Watches {
    /// Watches of this client's server, which tell what they see.
    pub fn new(client: Arc<Client>, tell: Tell) -> Watches {
        Watches { client, tell, basics: Vec::new(), pods: BTreeMap::new(), begun: 0 }
    }

    /// Begins and ends watches until nobody can wish any more.
    pub fn run(mut self, wishes: &Receiver<Wish>) {
        let mut wanted = None;
        loop {
            match wishes.recv_timeout(INTERVAL) {
                Ok(newer) => wanted = wishes.try_iter().last().unwrap_or(newer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            match &wanted {
                Some(wanted) => {
                    if let Err(error) = self.begin(wanted) {
                        // The next look tries again.
                        log::error("what policies need of the cluster cannot be watched")
                            .with("err", error)
                            .write_limited();
                    }
                    self.end(wanted, Instant::now());
                }
                None => {
                    self.basics.clear();
                    self.pods.clear();
                }
            }
        }
    }

    fn begin(&mut self, wanted: &BTreeSet<Selection>) -> io::Result<()> {
        if self.basics.is_empty() {
            let policies = self.basic("watch-policies", NetworkPolicies, |tell| PolicyAudience { tell })?;
            let namespaces = self.basic("watch-spaces", Namespaces, |tell| NamespaceAudience { tell })?;
            self.basics = vec![policies, namespaces];
        }
        for selection in wanted {
            if !self.pods.contains_key(selection) {
                let running = self.watch(selection)?;
                log::debug("pods are watched for policies").with("selection", selection).write_limited();
                self.pods.insert(selection.clone(), running);
            }
        }
        Ok(())
    }

    fn basic<K, A>(&self, name: &str, kind: K, audience: impl FnOnce(Tell) -> A) -> io::Result<Basic>
    where
        K: Kind + Send + 'static,
        A: Audience<K::Object> + Send + 'static,
    {
        let (stop, stopped) = channel();
        let live = Arc::new(AtomicBool::new(true));
        let (may, tell) = (live.clone(), self.tell.clone());
        let mut audience = audience(Tell::new(move |news| {
            if may.load(Ordering::Relaxed) {
                tell.tell(news);
            }
        }));
        let client = self.client.clone();
        spawn(name, move || drop(reflect(&client, kind, &stopped, &mut audience)))?;
        Ok(Basic { _stop: stop, live })
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
            // What was known when the agent ends is true for its successor.
            if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                let gone = left.keys().map(|name| audience.keys.key(name)).collect();
                audience.tell.tell(ClusterNews::Ended(watch, gone));
            }
        })?;
        Ok(Running { _stop: stop, complete, unwanted: None })
    }

    /// Ends what has been wanted no more for some time, or is too much, once everything is there that is wanted instead.
    fn end(&mut self, wanted: &BTreeSet<Selection>, now: Instant) {
        for (selection, running) in &mut self.pods {
            let since = running.unwanted.unwrap_or(now);
            running.unwanted = (!wanted.contains(selection)).then_some(since);
        }
        let is_there = |running: &Running| running.complete.load(Ordering::Relaxed);
        if !wanted.iter().all(|selection| self.pods.get(selection).is_some_and(is_there)) {
            return;
        }
        let unwanted = self.pods.iter().filter_map(|(selection, running)| Some((running.unwanted?, selection.clone())));
        let mut unwanted: Vec<(Instant, Selection)> = unwanted.collect();
        unwanted.sort();
        for (since, selection) in unwanted {
            if now.saturating_duration_since(since) < KEEP && self.pods.len() <= RUNNING_MAX {
                break;
            }
            self.pods.remove(&selection);
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
        let Changes { each, complete } = changes;
        let mut each = each.into_iter().peekable();
        loop {
            let some: Vec<_> = each.by_ref().take(AT_ONCE).collect();
            let is_last = each.peek().is_none();
            let some = Changes { each: some, complete: complete && is_last };
            let told = told(some, |name| self.keys.key(name), |pod| Some(pod.clone()));
            self.tell.tell(ClusterNews::Peers(self.watch.clone(), told));
            if is_last {
                break;
            }
        }
        if complete {
            self.complete.store(true, Ordering::Relaxed);
        }
    }

    fn notice(&mut self, notice: WatchNotice) {
        hear(&self.tell, "pods", &notice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policing::cluster::Cluster;
    use crate::kube::kubeconfig::from_text;
    use crate::kube::watch;

    fn selection(namespace: &str) -> Selection {
        Selection { namespace: Some(namespace.into()), ..Selection::default() }
    }

    /// Watches that nobody answers, of which some are complete.
    fn watches(of: &[(&str, bool)]) -> Watches {
        let config = "current-context: c\nclusters: [{name: k, cluster: {server: 'http://192.0.2.1:1'}}]\nusers: []\n\
                      contexts: [{name: c, context: {cluster: k}}]\n";
        let access = from_text(config, std::path::Path::new("/")).expect("a kubeconfig");
        let client = Arc::new(Client::new(&access, "test").expect("a client"));
        let mut watches = Watches::new(client, Tell::new(drop));
        for (namespace, complete) in of {
            let (stop, _) = channel();
            let complete = Arc::new(AtomicBool::new(*complete));
            watches.pods.insert(selection(namespace), Running { _stop: stop, complete, unwanted: None });
        }
        watches
    }

    fn there(watches: &Watches) -> Vec<String> {
        watches.pods.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_watch_that_is_wanted_no_more_goes_on_until_everything_is_there_that_is_wanted_and_some_minutes() {
        let mut watches = watches(&[("old", true), ("new", false)]);
        let (wanted, began) = (BTreeSet::from([selection("new")]), Instant::now());
        watches.end(&wanted, began);
        watches.end(&wanted, began + KEEP);
        assert_eq!(there(&watches), ["new/", "old/"], "what it shows is shown by nobody else yet");
        watches.pods[&selection("new")].complete.store(true, Ordering::Relaxed);
        watches.end(&wanted, began + KEEP - Duration::from_secs(1));
        assert_eq!(there(&watches).len(), 2);
        // Wanted again, it begins its minutes anew when it is not.
        watches.end(&BTreeSet::from([selection("new"), selection("old")]), began + KEEP);
        watches.end(&wanted, began + KEEP);
        assert_eq!(there(&watches).len(), 2);
        watches.end(&wanted, began + 2 * KEEP);
        assert_eq!(there(&watches), ["new/"]);
        watches.end(&BTreeSet::new(), began + 2 * KEEP);
        watches.end(&BTreeSet::new(), began + 3 * KEEP);
        assert!(there(&watches).is_empty());
    }

    #[test]
    fn no_more_watches_go_on_than_so_many() {
        let names: Vec<String> = (0..RUNNING_MAX + 5).map(|n| format!("n{n:02}")).collect();
        let all: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
        let mut watches = watches(&all);
        watches.end(&BTreeSet::from([selection("n00")]), Instant::now());
        assert_eq!(watches.pods.len(), RUNNING_MAX);
        assert!(watches.pods.contains_key(&selection("n00")));
    }

    #[test]
    fn a_long_list_is_told_in_pieces_and_what_is_known_of_a_pod_is_in_memory_once() {
        let (tell, told) = channel();
        let mut audience = PeerAudience {
            watch: Watch { selection: selection("web"), number: 0 },
            tell: Tell::new(move |news| _ = tell.send(news)),
            complete: Arc::default(),
            keys: Keys::default(),
        };
        let name = |n: usize| Arc::new(Name { namespace: "web".into(), name: format!("pod-{n:04}") });
        let objects: Objects<Pod> = (0..2 * AT_ONCE + 1).map(|n| (name(n), Arc::default())).collect();
        let new = |(name, pod): (&Arc<Name>, &Arc<Pod>)| watch::Change {
            name: name.clone(),
            before: None,
            after: Some(pod.clone()),
        };
        let objects = Arc::new(objects);
        audience.changed(Changes { each: objects.iter().map(new).collect(), complete: true }, &objects);
        let news: Vec<ClusterNews> = told.try_iter().collect();
        let of = |news: &ClusterNews| match news {
            ClusterNews::Peers(_, told) => (told.each.len(), told.complete),
            other => panic!("{other:?}"),
        };
        assert_eq!(news.iter().map(of).collect::<Vec<_>>(), [(AT_ONCE, false), (AT_ONCE, false), (1, true)]);
        let mut cluster = Cluster::default();
        news.into_iter().for_each(|news| _ = cluster.hear(news));
        let pods = cluster.world().pods.iter().zip(objects.iter());
        for ((key, known), (name, pod)) in pods {
            assert!(key.name == name.name && Arc::ptr_eq(known, pod), "{key}");
        }
        assert_eq!(cluster.world().pods.len(), objects.len());

        // A list of nothing is a list.
        audience.changed(Changes { each: Vec::new(), complete: true }, &Arc::default());
        assert_eq!(told.try_iter().map(|news| of(&news)).collect::<Vec<_>>(), [(0, true)]);
    }

    #[test]
    fn a_policy_is_in_memory_once_be_it_of_this_node_or_not() {
        let (tell, told) = channel();
        let mut audience = PolicyAudience { tell: Tell::new(move |news| _ = tell.send(news)) };
        let object = Arc::new(PolicyObject { policy: Arc::default(), faults: Vec::new() });
        let name = Arc::new(Name { namespace: "web".into(), name: "p".into() });
        let new = watch::Change { name, before: None, after: Some(object.clone()) };
        audience.changed(Changes { each: vec![new], complete: true }, &Arc::default());
        let mut cluster = Cluster::default();
        told.try_iter().for_each(|news| _ = cluster.hear(news));
        let known: Vec<_> = cluster.world().policies.values().collect();
        assert!(matches!(*known, [known] if Arc::ptr_eq(known, &object.policy)));
    }
}
