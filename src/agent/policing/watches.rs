//! The watches that tell what the cluster holds for policies, each with a thread of its own, and the thread that begins and ends
//! them as they are wanted.
//!
//! A watch of pods that is wanted no more goes on for some minutes: the pod that it was for may be about to be made anew, and a
//! list costs the server more than a watch. It goes on for longer until everything has come that is wanted instead. All that has
//! bounds, whoever writes policies and however often. Must not know what a policy means, nor decide what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::agent::node::cluster::{Hearing, advice};
use crate::agent::policing::cluster::{ClusterNews, Watch};
use crate::agent::policing::tell::{Keys, Tell, told};
use crate::agent::threads::spawn;
use crate::agent::watched::Watched;
use crate::kube::client::Client;
use crate::kube::kind::{Kind, Name, Objects};
use crate::kube::policy_objects::{Namespaces, NetworkPolicies, PeerPods, PolicyObject};
use crate::kube::reflect::{Audience, is_dropped, reflect};
use crate::kube::watch::{Changes, WatchNotice};
use crate::process::log;
use model::excerpt::Excerpt;
use model::policy::Pod;
use model::policy::select::Labels;
use model::policy::watching::{Selection, WATCHES_MAX};

/// How long a watch goes on that is wanted no more, 5 min.
const KEEP: Duration = Duration::from_secs(300);

/// Most watches of pods at once, those that are wanted no more among them.
const RUNNING_MAX: usize = 2 * WATCHES_MAX;

/// Most pods that watches show together which are wanted no more, if they are several: some hundred bytes each.
const KEPT_PODS_MAX: usize = 20_000;

/// Most threads of watches of pods, those among them that are on their end: one that was told to end hears of it with the next line
/// of its stream, which is a minute at most.
const THREADS_MAX: usize = 2 * RUNNING_MAX;

/// Most pods that watches on their end show together, if they are several, for another one to begin.
const ENDING_PODS_MAX: usize = 2 * KEPT_PODS_MAX;

/// Interval between looks at what can end, or could not begin, 5 s.
const INTERVAL: Duration = Duration::from_secs(5);

/// Most pods of one piece of news. A list may have ten thousand, which need not be in memory once more in one piece.
const AT_ONCE: usize = 512;

/// Longest text of a selection that is refused, in bytes.
const SAID_MAX: usize = 256;

/// What is to be watched, all of it each time: the pods that policies are about, and policies and namespaces in any case; `None`:
/// nothing, since no policies are kept.
pub type Wish = Option<BTreeSet<Selection>>;

#[derive(Debug)]
struct PolicyAudience {
    number: u64,
    tell: Tell,
    hearing: Hearing,
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
                let after = Some(after).filter(|faults| !faults.is_empty());
                self.tell.tell(ClusterNews::Faults(self.number, key(&change.name), after));
            }
        }
        self.tell.tell(ClusterNews::Policies(self.number, told(changes, key, |object| Some(object.policy.clone()))));
    }

    fn notice(&mut self, notice: WatchNotice) {
        hear(&mut self.hearing, &self.tell, self.number, "", &notice);
    }

    fn heard(&mut self) {
        self.hearing.heard();
    }
}

/// Logs what the watch `number` of `which` of a resource tells, and passes on what an operator has to see to. A server that is
/// merely away takes nothing away.
fn hear(hearing: &mut Hearing, tell: &Tell, number: u64, which: &str, notice: &WatchNotice) {
    hearing.report(notice);
    let resource = hearing.resource();
    let refusal = match notice {
        WatchNotice::Synced { .. } => None,
        WatchNotice::Failed { verb, code: Some(code), message } => {
            let Some(advice) = advice(verb, resource, *code, message) else { return };
            // What is wrong with the question is of one watch, and anything else of all.
            let asked = match code {
                400 | 414 => format!("{resource} {}", Excerpt::line(which, SAID_MAX)),
                _ => resource.into(),
            };
            Some(format!("{asked}: {}: {}", advice.what, advice.remedy))
        }
        WatchNotice::Failed { .. } | WatchNotice::Unusable { .. } => return,
    };
    tell.tell(ClusterNews::Refusal(number, refusal));
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
    number: u64,
    tell: Tell,
    hearing: Hearing,
}

impl Audience<Labels> for NamespaceAudience {
    fn changed(&mut self, changes: Changes<Labels>, _: &Arc<Objects<Labels>>) {
        let told = told(changes, |name| name.name.clone(), |labels| Some(Labels::clone(labels)));
        self.tell.tell(ClusterNews::Namespaces(self.number, told));
    }

    fn notice(&mut self, notice: WatchNotice) {
        hear(&mut self.hearing, &self.tell, self.number, "", &notice);
    }

    fn heard(&mut self) {
        self.hearing.heard();
    }
}

/// The thread that begins and ends watches. It begins with none.
#[derive(Debug)]
pub struct Watches {
    client: Arc<Client>,
    tell: Tell,
    watched: Watched,
    /// Of policies, and of namespaces. A watch ends when its sender is gone.
    basics: Vec<Sender<()>>,
    pods: BTreeMap<Selection, Running>,
    /// The watches of pods that have been told to end; gone with their threads.
    ending: Vec<Weak<Shown>>,
    /// How many watches have been begun.
    begun: u64,
}

/// A watch of pods.
#[derive(Debug)]
struct Running {
    /// The watch ends when this is gone.
    _stop: Sender<()>,
    shown: Arc<Shown>,
    /// Since when it is wanted no more.
    unwanted: Option<Instant>,
}

/// What a watch of pods has shown.
#[derive(Debug, Default)]
struct Shown {
    complete: AtomicBool,
    pods: AtomicUsize,
}

impl Shown {
    fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    fn pods(&self) -> usize {
        self.pods.load(Ordering::Relaxed)
    }
}

impl Watches {
    /// Watches of this client's server, which tell what they see. `watched` keeps when they did.
    pub fn new(client: Arc<Client>, tell: Tell, watched: Watched) -> Watches {
        Watches { client, tell, watched, basics: Vec::new(), pods: BTreeMap::new(), ending: Vec::new(), begun: 0 }
    }

    /// Begins and ends watches until nobody can wish any more.
    pub fn run(mut self, wishes: &Receiver<Wish>) {
        let mut wanted = None;
        loop {
            let newer = match wishes.recv_timeout(INTERVAL) {
                Ok(newer) => Some(newer),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for wish in newer.into_iter().chain(wishes.try_iter()) {
                // Whoever wishes nothing has forgotten everything, be it that he wishes something again by now.
                if wish.is_none() {
                    self.clear();
                }
                wanted = wish;
            }
            if let Some(wanted) = &wanted {
                if let Err(error) = self.begin(wanted) {
                    // The next look tries again.
                    log::error("what policies need of the cluster cannot be watched")
                        .with("err", error)
                        .write_limited();
                }
                self.end(wanted, Instant::now());
            }
        }
    }

    fn clear(&mut self) {
        self.basics.clear();
        let pods = std::mem::take(&mut self.pods).into_values();
        self.ending.extend(pods.map(|running| Arc::downgrade(&running.shown)));
        self.tell.tell(ClusterNews::Cleared(self.begun));
    }

    fn begin(&mut self, wanted: &BTreeSet<Selection>) -> io::Result<()> {
        self.ending.retain(|shown| shown.strong_count() > 0);
        if self.basics.is_empty() {
            let watched = self.watched.clone();
            let policies = self.basic("watch-policies", NetworkPolicies::default(), |number, tell| {
                let hearing = Hearing::new("networkpolicies", &watched);
                PolicyAudience { number, tell, hearing }
            })?;
            let namespaces = self.basic("watch-spaces", Namespaces, |number, tell| {
                let hearing = Hearing::new("namespaces", &watched);
                NamespaceAudience { number, tell, hearing }
            })?;
            self.basics = vec![policies, namespaces];
        }
        for selection in wanted {
            if self.pods.contains_key(selection) {
                continue;
            }
            if !self.have_room() {
                log::warn(
                    "too many watches of pods are on their end; the next one begins when some of them have ended",
                )
                .with("selection", selection)
                .write_limited();
                break;
            }
            let running = self.watch(selection)?;
            log::debug("pods are watched for policies").with("selection", selection).write_limited();
            self.pods.insert(selection.clone(), running);
        }
        Ok(())
    }

    /// Whether one more watch of pods can begin.
    fn have_room(&self) -> bool {
        let pods: usize = self.ending.iter().filter_map(Weak::upgrade).map(|shown| shown.pods()).sum();
        let ending = self.ending.iter().filter(|shown| shown.strong_count() > 0).count();
        self.pods.len() + ending < THREADS_MAX && (ending < 2 || pods <= ENDING_PODS_MAX)
    }

    fn basic<K, A>(&mut self, name: &str, kind: K, audience: impl FnOnce(u64, Tell) -> A) -> io::Result<Sender<()>>
    where
        K: Kind + Send + 'static,
        A: Audience<K::Object> + Send + 'static,
    {
        let (stop, stopped) = channel();
        let mut audience = audience(self.begun, self.tell.clone());
        self.begun += 1;
        let client = self.client.clone();
        spawn(name, move || drop(reflect(&client, kind, &stopped, &mut audience)))?;
        Ok(stop)
    }

    fn watch(&mut self, selection: &Selection) -> io::Result<Running> {
        let watch = Watch { selection: selection.clone(), number: self.begun };
        self.begun += 1;
        let (stop, stopped) = channel();
        let shown = Arc::<Shown>::default();
        let keys = Keys::default();
        let mut audience = PeerAudience {
            watch: watch.clone(),
            tell: self.tell.clone(),
            shown: shown.clone(),
            keys,
            hearing: Hearing::new("pods", &self.watched),
        };
        let (client, kind) = (self.client.clone(), PeerPods::new(selection.clone()));
        spawn("watch-pods-of", move || {
            let left = reflect(&client, kind, &stopped, &mut audience);
            // What was known when the agent ends is true for its successor.
            if is_dropped(&stopped) {
                let gone = left.keys().map(|name| audience.keys.key(name)).collect();
                audience.tell.tell(ClusterNews::Ended(watch, gone));
            }
        })?;
        Ok(Running { _stop: stop, shown, unwanted: None })
    }

    /// Ends what has been wanted no more for some time, or is too much. What shows pods of something that is wanted and not there
    /// yet stays for as long as there is room. What has not shown anything yet is of no use to anybody.
    fn end(&mut self, wanted: &BTreeSet<Selection>, now: Instant) {
        for (selection, running) in &mut self.pods {
            let since = running.unwanted.unwrap_or(now);
            running.unwanted = (!wanted.contains(selection)).then_some(since);
        }
        let is_there = |one: &&Selection| self.pods.get(one).is_some_and(|running| running.shown.is_complete());
        let missing: Vec<&Selection> = wanted.iter().filter(|one| !is_there(one)).collect();
        let stands_in = |selection: &Selection| missing.iter().any(|missing| missing.meets(selection));
        let unwanted = self.pods.iter().filter_map(|(selection, running)| {
            Some((running.shown.is_complete(), stands_in(selection), running.unwanted?, selection.clone()))
        });
        let mut unwanted: Vec<(bool, bool, Instant, Selection)> = unwanted.collect();
        unwanted.sort();
        let mut kept = unwanted.len();
        let shown = |selection: &Selection| self.pods.get(selection).map_or(0, |running| running.shown.pods());
        let mut pods: usize = unwanted.iter().map(|(.., selection)| shown(selection)).sum();
        for (is_complete, stands_in, since, selection) in unwanted {
            let too_many = self.pods.len() > RUNNING_MAX || kept > 1 && pods > KEPT_PODS_MAX;
            let of_use = is_complete && (stands_in || now.saturating_duration_since(since) < KEEP);
            if of_use && !too_many {
                continue;
            }
            if let Some(running) = self.pods.remove(&selection) {
                pods -= running.shown.pods().min(pods);
                self.ending.push(Arc::downgrade(&running.shown));
            }
            kept -= 1;
        }
    }
}

#[derive(Debug)]
struct PeerAudience {
    watch: Watch,
    tell: Tell,
    shown: Arc<Shown>,
    keys: Keys,
    hearing: Hearing,
}

impl Audience<Pod> for PeerAudience {
    fn changed(&mut self, changes: Changes<Pod>, objects: &Arc<Objects<Pod>>) {
        let Changes { each, complete } = changes;
        self.shown.pods.store(objects.len(), Ordering::Relaxed);
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
            self.shown.complete.store(true, Ordering::Relaxed);
        }
    }

    fn notice(&mut self, notice: WatchNotice) {
        let selection = self.watch.selection.to_string();
        hear(&mut self.hearing, &self.tell, self.watch.number, &selection, &notice);
    }

    fn heard(&mut self) {
        self.hearing.heard();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policing::cluster::Cluster;
    use crate::kube::kubeconfig::from_text;
    use crate::kube::watch;
    use model::policy::select::Requirement;

    fn selection(namespace: &str) -> Selection {
        Selection { namespace: Some(namespace.into()), ..Selection::default() }
    }

    fn running(complete: bool, pods: usize) -> Running {
        let shown = Shown { complete: AtomicBool::new(complete), pods: AtomicUsize::new(pods) };
        Running { _stop: channel().0, shown: shown.into(), unwanted: None }
    }

    /// Watches that nobody answers, of which some are complete.
    fn watches(of: &[(&str, bool)]) -> Watches {
        let config = "current-context: c\nclusters: [{name: k, cluster: {server: 'http://192.0.2.1:1'}}]\nusers: []\n\
                      contexts: [{name: c, context: {cluster: k}}]\n";
        let access = from_text(config, std::path::Path::new("/")).expect("a kubeconfig");
        let client = Arc::new(Client::new(&access, "test").expect("a client"));
        let mut watches = Watches::new(client, Tell::new(drop), Watched::default());
        for (namespace, complete) in of {
            watches.pods.insert(selection(namespace), running(*complete, 1));
        }
        watches
    }

    fn there(watches: &Watches) -> Vec<String> {
        watches.pods.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_watch_that_is_wanted_no_more_goes_on_until_everything_is_there_that_is_wanted_and_some_minutes() {
        let mut watches = watches(&[("old", true), ("other", true)]);
        watches.pods.insert(Selection::all(), running(false, 0));
        let (wanted, began) = (BTreeSet::from([Selection::all()]), Instant::now());
        watches.end(&wanted, began);
        watches.end(&wanted, began + KEEP);
        assert_eq!(there(&watches), ["*/", "old/", "other/"], "what they show is shown by nobody else yet");
        watches.pods[&Selection::all()].shown.complete.store(true, Ordering::Relaxed);
        watches.end(&wanted, began + KEEP - Duration::from_secs(1));
        assert_eq!(there(&watches).len(), 3);
        // Wanted again, it begins its minutes anew when it is not.
        watches.end(&BTreeSet::from([Selection::all(), selection("old")]), began + KEEP);
        watches.end(&wanted, began + KEEP);
        assert_eq!(there(&watches), ["*/", "old/"]);
        watches.end(&wanted, began + 2 * KEEP);
        assert_eq!(there(&watches), ["*/"]);
        // What is missing of other namespaces is none of its concern.
        let wanted = BTreeSet::from([selection("new")]);
        watches.pods = BTreeMap::from([(selection("old"), running(true, 1)), (selection("new"), running(false, 0))]);
        watches.end(&wanted, began);
        watches.end(&wanted, began + KEEP);
        assert_eq!(there(&watches), ["new/"]);
        watches.pods[&selection("new")].shown.complete.store(true, Ordering::Relaxed);
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
    fn however_often_another_selection_is_wanted_watches_and_their_pods_have_bounds() {
        let began = Instant::now();
        let second = |n: u64| began + Duration::from_secs(n);
        // All in one namespace, so that each may show the pods of any other.
        let nth = |n: u64| Selection {
            pods: [Requirement::equals(format!("k{n}"), "a")].into_iter().collect(),
            ..selection("web")
        };
        // The last one is never there; the former ones are, or all are, or none is.
        for (complete, pods) in [(true, 10), (true, KEPT_PODS_MAX), (false, 10)] {
            let mut watches = watches(&[]);
            for n in 0..600 {
                watches.pods.insert(nth(n), running(false, pods));
                if n > 0 {
                    let former = watches.pods.get(&nth(n - 1));
                    former.into_iter().for_each(|former| former.shown.complete.store(complete, Ordering::Relaxed));
                }
                watches.end(&BTreeSet::from([nth(n)]), second(n));
                let kept: usize =
                    watches.pods.values().filter(|one| one.unwanted.is_some()).map(|one| one.shown.pods()).sum();
                assert!(watches.pods.len() <= RUNNING_MAX && kept <= KEPT_PODS_MAX, "{n}: {}", watches.pods.len());
                assert!(watches.pods.contains_key(&nth(n)), "what is wanted goes on");
            }
            assert!(watches.have_room(), "those that have ended take no room");
        }
    }

    #[test]
    fn nothing_begins_while_too_much_is_on_its_end() {
        let mut watches = watches(&[]);
        let ends = |watches: &mut Watches, each: &[usize]| -> Vec<Arc<Shown>> {
            let threads: Vec<_> = each.iter().map(|pods| running(true, *pods).shown).collect();
            watches.ending = threads.iter().map(Arc::downgrade).collect();
            threads
        };
        let threads = ends(&mut watches, &[10 * ENDING_PODS_MAX]);
        assert!(watches.have_room(), "a large cluster has one large watch");
        drop(threads);
        let threads = ends(&mut watches, &[ENDING_PODS_MAX, 1]);
        assert!(!watches.have_room());
        watches.begin(&BTreeSet::from([selection("web")])).expect("threads");
        assert!(watches.pods.is_empty());
        drop(threads);
        assert!(watches.have_room());
        let threads = ends(&mut watches, &[0; THREADS_MAX]);
        assert!(!watches.have_room());
        drop(threads);
        watches.begin(&BTreeSet::from([selection("web")])).expect("threads");
        assert_eq!(there(&watches), ["web/"]);
        watches.client.shutdown();
    }

    #[test]
    fn whoever_wishes_nothing_and_something_at_once_is_told_everything_again() {
        let (tell, told) = channel();
        let Watches { client, .. } = watches(&[]);
        let watches = Watches::new(client.clone(), Tell::new(move |news| _ = tell.send(news)), Watched::default());
        let (ask, asked) = channel();
        for wish in [Some(BTreeSet::from([selection("web")])), None, Some(BTreeSet::new()), None, None] {
            ask.send(wish).expect("heard");
        }
        drop(ask);
        watches.run(&asked);
        client.shutdown();
        let news: Vec<ClusterNews> = told.iter().collect();
        assert_eq!(news.iter().filter(|news| matches!(news, ClusterNews::Cleared(_))).count(), 3, "{news:?}");
    }

    #[test]
    fn a_refusal_is_of_one_watch_and_ends_with_it() {
        let (tell, told) = channel();
        let tell = Tell::new(move |news| _ = tell.send(news));
        let failed = |code| WatchNotice::Failed { verb: "list", code: Some(code), message: "no".into() };
        let mut cluster = Cluster::default();
        let mut hears = |number, which: &Selection, notice: &WatchNotice| {
            hear(&mut Hearing::new("pods", &Watched::default()), &tell, number, &which.to_string(), notice);
            told.try_iter().for_each(|news| _ = cluster.hear(news));
            cluster.refusals().map(str::to_owned).collect::<Vec<_>>()
        };
        let (web, data) = (selection("web"), selection("data"));
        assert!(hears(1, &web, &failed(403))[0].starts_with("pods: API server forbids it: RBAC is too small"));
        assert_eq!(hears(2, &data, &failed(403)).len(), 1, "the same is said once");
        assert_eq!(hears(2, &data, &WatchNotice::Synced { objects: 1 }).len(), 1, "the other one is refused still");
        assert_eq!(hears(2, &data, &failed(503)).len(), 1, "a server that is away refuses nothing");
        assert!(hears(2, &data, &failed(400))[0].starts_with("pods data/: "), "that is of its selector");
        cluster.hear(ClusterNews::Ended(Watch { selection: web, number: 1 }, Vec::new()));
        assert_eq!(cluster.refusals().count(), 1);
        cluster.hear(ClusterNews::Ended(Watch { selection: data, number: 2 }, Vec::new()));
        assert_eq!(cluster.refusals().count(), 0);
    }

    #[test]
    fn a_long_list_is_told_in_pieces_and_what_is_known_of_a_pod_is_in_memory_once() {
        let (tell, told) = channel();
        let mut audience = PeerAudience {
            watch: Watch { selection: selection("web"), number: 0 },
            tell: Tell::new(move |news| _ = tell.send(news)),
            shown: Arc::default(),
            keys: Keys::default(),
            hearing: Hearing::new("pods", &Watched::default()),
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
        let mut audience = PolicyAudience {
            number: 0,
            tell: Tell::new(move |news| _ = tell.send(news)),
            hearing: Hearing::new("networkpolicies", &Watched::default()),
        };
        let object = Arc::new(PolicyObject::new(Arc::default(), Vec::new()));
        let name = Arc::new(Name { namespace: "web".into(), name: "p".into() });
        let new = watch::Change { name, before: None, after: Some(object.clone()) };
        audience.changed(Changes { each: vec![new], complete: true }, &Arc::default());
        let mut cluster = Cluster::default();
        told.try_iter().for_each(|news| _ = cluster.hear(news));
        let known: Vec<_> = cluster.world().policies.values().collect();
        assert!(matches!(*known, [known] if Arc::ptr_eq(known, &object.policy)));
    }
}
