//! What is known of a cluster, news by news.

use super::*;
use model::policy::select::{Requirement, Selector};
use model::policy::{Namespaces, Peer, Rule};

fn key(name: &str) -> PodKey {
    let (namespace, name) = name.split_once('/').expect("a namespace and a name");
    PodKey { namespace: namespace.into(), name: name.into() }
}

fn pod(app: &str, address: &str) -> Arc<Pod> {
    let addresses = address.parse().into_iter().collect();
    Pod { labels: Labels::from([("app", app)]), addresses, ports: [].into() }.into()
}

fn own_pod(pod: Arc<Pod>, uid: Option<&str>) -> OwnPod {
    OwnPod { pod, uid: uid.map(Box::from) }
}

fn selector(app: &str) -> Selector {
    [Requirement::equals("app", app)].into_iter().collect()
}

/// A policy for the pods of one app that lets those of another one of its namespace in.
fn policy(subjects: &str, peers: &str) -> Arc<Policy> {
    let peer = Peer::Pods { namespaces: Namespaces::Same, pods: selector(peers) };
    let rule = Rule { peers: vec![peer], ports: Vec::new() };
    Policy { subjects: selector(subjects), ingress: Some(vec![rule]), egress: None }.into()
}

fn one<K, V>(key: K, known: bool, now: Option<V>) -> Told<K, V> {
    Told { each: vec![Change { key, known, now }], complete: false }
}

fn all<K, V>(each: impl IntoIterator<Item = (K, V)>) -> Told<K, V> {
    let each = each.into_iter().map(|(key, value)| Change { key, known: false, now: Some(value) });
    Told { each: each.collect(), complete: true }
}

fn name(text: &str) -> PolicyKey {
    (key(text).namespace.to_string(), key(text).name)
}

fn watch(number: u64, namespace: &str, app: &str) -> Watch {
    Watch { selection: Selection { namespace: Some(namespace.into()), pods: selector(app) }, number }
}

/// A cluster that has told everything: pods of this node, and policies.
fn told(own: &[(&str, Arc<Pod>)], policies: &[(&str, Arc<Policy>)]) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.hear(ClusterNews::Namespaces(0, all([("web".to_owned(), Labels::default())])));
    cluster.hear(ClusterNews::Own(all(own.iter().map(|(name, pod)| (key(name), own_pod(pod.clone(), None))))));
    cluster.hear(ClusterNews::Policies(0, all(policies.iter().map(|(of, policy)| (name(of), policy.clone())))));
    cluster
}

fn wanted(cluster: &Cluster) -> Vec<String> {
    cluster.wanted().iter().map(ToString::to_string).collect()
}

fn has_policy(cluster: &Cluster, of: &str) -> bool {
    cluster.world().policies.contains_key(&name(of))
}

#[test]
fn nothing_is_known_before_everything_has_been_told_that_counts_here() {
    let own = [("web/a", pod("front", "10.0.0.1"))];
    let mut cluster = told(&own, &[("web/p", policy("front", "back"))]);
    assert!(!cluster.is_known() && !cluster.is_settled(&key("web/a")) && !has_policy(&cluster, "web/p"));
    assert_eq!(wanted(&cluster), ["web/app=back"]);
    let learned =
        cluster.hear(ClusterNews::Peers(watch(0, "web", "back"), all([(key("web/b"), pod("back", "10.0.1.1"))])));
    assert!(cluster.is_known() && cluster.is_settled(&key("web/a")) && has_policy(&cluster, "web/p"));
    assert_eq!(learned.policies, [(name("web/p"), None)]);
    assert_eq!(learned.pods, [(key("web/b"), None)]);
    assert!(learned.settled && !learned.wanted);
    assert!(!cluster.is_settled(&key("web/c")), "nobody has told of it");
    // A node whose pods no policy selects watches nothing and waits for nothing.
    let cluster = told(&own, &[("web/p", policy("other", "back")), ("data/p", policy("front", "back"))]);
    assert!(cluster.is_known() && cluster.is_settled(&key("web/a")) && cluster.wanted().is_empty());
}

#[test]
fn a_policy_counts_when_the_pods_that_it_is_about_are_known_and_not_before() {
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[]);
    assert!(cluster.is_known());
    let learned = cluster.hear(ClusterNews::Policies(0, one(name("web/p"), false, Some(policy("front", "back")))));
    assert!(learned.wanted && !learned.is_something() && !has_policy(&cluster, "web/p"));
    assert_eq!(cluster.missing(), ["the pods that NetworkPolicy web/p is about are missing"]);
    assert!(!cluster.is_settled(&key("web/a")), "a pod that comes now waits");
    cluster.hear(ClusterNews::Peers(watch(0, "web", "back"), all([(key("web/b"), pod("back", "10.0.1.1"))])));
    assert!(has_policy(&cluster, "web/p") && cluster.is_settled(&key("web/a")));

    // An edit that is about other pods: the policy is what it was until they are known.
    cluster.hear(ClusterNews::Policies(0, one(name("web/p"), true, Some(policy("front", "middle")))));
    assert_eq!(cluster.world().policies.get(&name("web/p")), Some(&policy("front", "back")));
    assert_eq!(wanted(&cluster), ["web/app=middle"]);
    let learned = cluster.hear(ClusterNews::Peers(watch(1, "web", "middle"), all([])));
    assert_eq!(learned.policies, [(name("web/p"), Some(policy("front", "back")))]);
    let learned = cluster.hear(ClusterNews::Ended(watch(0, "web", "back"), vec![key("web/b")]));
    assert_eq!(learned.pods, [(key("web/b"), Some(pod("back", "10.0.1.1")))]);

    // One that goes goes at once, be it waiting or not.
    cluster.hear(ClusterNews::Policies(0, one(name("web/q"), false, Some(policy("front", "late")))));
    assert!(!cluster.hear(ClusterNews::Policies(0, one(name("web/q"), true, None))).is_something());
    let learned = cluster.hear(ClusterNews::Policies(0, one(name("web/p"), true, None)));
    assert_eq!(learned.policies, [(name("web/p"), Some(policy("front", "middle")))]);
    assert!(learned.wanted && cluster.wanted().is_empty() && cluster.is_settled(&key("web/a")));
}

#[test]
fn a_pod_that_comes_under_a_policy_keeps_its_labels_until_the_peers_are_known() {
    let mut cluster = told(&[("web/a", pod("other", "10.0.0.1"))], &[("web/p", policy("front", "back"))]);
    assert!(has_policy(&cluster, "web/p"), "it selects nobody here");
    let relabelled = ClusterNews::Own(one(key("web/a"), true, Some(own_pod(pod("front", "10.0.0.2"), None))));
    let learned = cluster.hear(relabelled.clone());
    let labels = |cluster: &Cluster| cluster.world().pods.get(&key("web/a")).map(|pod| pod.labels.clone());
    assert_eq!(labels(&cluster), Some(Labels::from([("app", "other")])));
    assert_eq!(cluster.world().pods.get(&key("web/a")).map(|pod| pod.addresses.len()), Some(1));
    assert!(learned.wanted && learned.pods.len() == 1, "its address is another one at once");
    cluster.hear(ClusterNews::Peers(watch(0, "web", "back"), all([])));
    assert_eq!(labels(&cluster), Some(Labels::from([("app", "front")])));
    // A new pod of such labels is told at once, and waits by not being settled.
    let mut cluster = told(&[], &[("web/p", policy("front", "back"))]);
    cluster.hear(relabelled);
    assert!(labels(&cluster).is_some() && !cluster.is_settled(&key("web/a")));
    cluster.hear(ClusterNews::Peers(watch(0, "web", "back"), all([])));
    assert!(cluster.is_settled(&key("web/a")));
}

#[test]
fn a_pod_that_two_watches_show_is_gone_with_the_last_of_them() {
    let (b, c) = (key("web/b"), key("web/c"));
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[]);
    let (one_watch, other) = (watch(0, "web", "x"), watch(1, "web", "y"));
    let peer =
        |watch: &Watch, key: &PodKey, known, now| ClusterNews::Peers(watch.clone(), one(key.clone(), known, now));
    cluster.hear(peer(&one_watch, &b, false, Some(pod("x", "10.0.1.1"))));
    assert!(!cluster.hear(peer(&other, &b, false, Some(pod("x", "10.0.1.1")))).is_something());
    // An edit is no further watch.
    assert_eq!(cluster.hear(peer(&other, &b, true, Some(pod("x", "10.0.1.2")))).pods.len(), 1);
    assert!(!cluster.hear(peer(&one_watch, &b, true, None)).is_something());
    assert_eq!(cluster.world().pods.get(&b), Some(&pod("x", "10.0.1.2")));
    assert_eq!(cluster.hear(peer(&other, &b, true, None)).pods, [(b.clone(), Some(pod("x", "10.0.1.2")))]);

    // A pod of this node is as the watch of this node's pods tells it, and may be a peer beside that.
    cluster.hear(peer(&one_watch, &c, false, Some(pod("x", "10.0.1.3"))));
    cluster.hear(ClusterNews::Own(one(c.clone(), false, Some(own_pod(pod("x", "10.0.1.4"), None)))));
    assert!(!cluster.hear(peer(&one_watch, &c, true, Some(pod("late", "10.0.1.3")))).is_something());
    assert!(!cluster.hear(peer(&other, &c, false, Some(pod("late", "10.0.1.3")))).is_something());
    assert_eq!(cluster.world().pods.get(&c), Some(&pod("x", "10.0.1.4")));
    cluster.hear(ClusterNews::Own(one(c.clone(), true, None)));
    cluster.hear(peer(&one_watch, &c, true, None));
    assert!(cluster.world().pods.contains_key(&c) && cluster.shared.is_empty());
    cluster.hear(ClusterNews::Ended(other, vec![c.clone()]));
    assert!(!cluster.world().pods.contains_key(&c));
}

#[test]
fn a_pod_that_is_made_anew_under_its_name_has_nothing_of_the_former_one() {
    let policies = [("web/p", policy("front", "back"))];
    let mut cluster = told(&[], &policies);
    let own =
        |app, address, uid| ClusterNews::Own(one(key("web/a"), true, Some(own_pod(pod(app, address), Some(uid)))));
    let a = key("web/a");
    cluster.hear(own("other", "10.0.0.1", "u1"));
    assert!(cluster.is_settled(&a) && !cluster.is_other(&a, Some("u1")) && !cluster.is_other(&a, None));
    assert!(cluster.is_other(&a, Some("u2")), "a runtime may know of it before this");
    // Its own labels count at once for others, be they those of a policy of which the peers are not known yet.
    let learned = cluster.hear(own("front", "10.0.0.2", "u2"));
    assert_eq!(cluster.world().pods.get(&a), Some(&pod("front", "10.0.0.2")));
    assert_eq!(learned.pods, [(a.clone(), Some(pod("other", "10.0.0.1")))]);
    assert!(learned.settled && !cluster.is_settled(&a) && cluster.is_other(&a, Some("u1")));
    // Alike in all but the uid, its links have to be looked at.
    let learned = cluster.hear(own("front", "10.0.0.2", "u3"));
    assert_eq!(learned.pods, [(a.clone(), Some(pod("front", "10.0.0.2")))]);
    // A static pod is meant by any uid.
    cluster.hear(ClusterNews::Own(one(a.clone(), true, Some(own_pod(pod("front", "10.0.0.2"), None)))));
    assert!(!cluster.is_other(&a, Some("u2")));
}

#[test]
fn whatever_settles_a_pod_of_this_node_is_told_be_the_world_another_or_not() {
    let a = key("web/a");
    let own =
        |known, uid| ClusterNews::Own(one(key("web/a"), known, Some(own_pod(pod("back", "10.0.0.1"), Some(uid)))));
    let shown = ClusterNews::Peers(watch(0, "web", "back"), all([(a.clone(), pod("back", "10.0.0.1"))]));
    let mut cluster = told(&[], &[]);
    cluster.hear(shown);
    assert!(!cluster.is_settled(&a), "it may be a pod of another node");
    let learned = cluster.hear(own(false, "u1"));
    assert!(cluster.is_settled(&a) && learned.settled && !learned.is_something());
    assert!(!cluster.hear(own(true, "u1")).settled);
    assert!(cluster.hear(own(true, "u2")).settled);
    assert!(cluster.hear(ClusterNews::Own(one(a.clone(), true, None))).settled && !cluster.is_settled(&a));

    // Of the lists, the last one settles what was told before it.
    let lists = [ClusterNews::Policies(0, all([])), ClusterNews::Namespaces(0, all([])), ClusterNews::Own(all([]))];
    for last in &lists {
        let mut cluster = Cluster::default();
        cluster.hear(own(false, "u1"));
        lists.iter().filter(|list| *list != last).for_each(|list| _ = cluster.hear(list.clone()));
        assert!(!cluster.is_settled(&a));
        assert!(cluster.hear(last.clone()).settled && cluster.is_settled(&a), "{last:?}");
    }
}

#[test]
fn a_pod_that_is_made_anew_on_another_node_is_what_its_watch_says_in_whatever_order_that_is_heard() {
    let here = ClusterNews::Own(one(key("web/a"), false, Some(own_pod(pod("back", "10.0.0.1"), Some("u1")))));
    let gone = ClusterNews::Own(one(key("web/a"), true, None));
    let peers = |known, now| ClusterNews::Peers(watch(0, "web", "back"), one(key("web/a"), known, now));
    let (old, new) = (pod("back", "10.0.0.1"), pod("back", "10.0.1.1"));
    let orders = [
        [
            here.clone(),
            peers(false, Some(old.clone())),
            peers(true, None),
            peers(false, Some(new.clone())),
            gone.clone(),
        ],
        [
            here.clone(),
            peers(false, Some(old.clone())),
            peers(true, None),
            gone.clone(),
            peers(false, Some(new.clone())),
        ],
        [
            here.clone(),
            peers(false, Some(old.clone())),
            peers(true, Some(new.clone())),
            gone.clone(),
            peers(true, Some(new.clone())),
        ],
        [peers(false, Some(old.clone())), here.clone(), peers(true, Some(new.clone())), here.clone(), gone.clone()],
    ];
    for order in orders {
        let mut cluster = told(&[], &[]);
        for news in order.clone() {
            cluster.hear(news);
        }
        assert_eq!(cluster.world().pods.get(&key("web/a")), Some(&new), "{order:?}");
        cluster.hear(peers(true, None));
        assert_eq!(cluster.world().pods.get(&key("web/a")), None, "{order:?}");
    }
}

#[test]
fn a_wider_watch_takes_the_place_of_others_without_a_gap() {
    let own: Vec<(String, Arc<Pod>)> = (0..33).map(|n| (format!("n{n}/a"), pod("front", "10.0.0.1"))).collect();
    let own: Vec<(&str, Arc<Pod>)> = own.iter().map(|(name, pod)| (name.as_str(), pod.clone())).collect();
    let mut cluster = told(&own, &[]);
    for n in 0..32 {
        cluster.hear(ClusterNews::Policies(0, one(name(&format!("n{n}/p")), false, Some(policy("front", "back")))));
        cluster.hear(ClusterNews::Peers(watch(n, &format!("n{n}"), "back"), all([])));
    }
    assert_eq!((cluster.wanted().len(), cluster.world().policies.len()), (32, 32));
    cluster.hear(ClusterNews::Policies(0, one(name("n32/p"), false, Some(policy("front", "back")))));
    assert_eq!(wanted(&cluster), ["*/"]);
    assert_eq!(cluster.world().policies.len(), 32);
    assert!(cluster.is_settled(&key("n0/a")) && !cluster.is_settled(&key("n32/a")));
    let everything = Watch { selection: Selection::all(), number: 32 };
    cluster.hear(ClusterNews::Peers(everything, all([])));
    assert!(has_policy(&cluster, "n32/p") && cluster.is_settled(&key("n32/a")));
    for n in 0..32 {
        assert!(!cluster.hear(ClusterNews::Ended(watch(n, &format!("n{n}"), "back"), Vec::new())).wanted);
    }
    assert!(own.iter().all(|(name, _)| cluster.is_settled(&key(name))));
}

#[test]
fn a_watch_that_ends_while_a_policy_needs_it_takes_no_peers_away() {
    let (b, c) = (key("web/b"), key("web/c"));
    let peers = |number, pods: &[&PodKey]| {
        let pods = pods.iter().map(|key| ((*key).clone(), pod("back", "10.0.1.1")));
        ClusterNews::Peers(watch(number, "web", "back"), all(pods))
    };
    let ended = |number, pods: &[&PodKey]| {
        ClusterNews::Ended(watch(number, "web", "back"), pods.iter().copied().cloned().collect())
    };
    let all_of = |cluster: &Cluster| cluster.world().pods.keys().map(ToString::to_string).collect::<Vec<_>>();
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[]);
    cluster.hear(peers(0, &[&b, &c]));
    // It was told to end just before the policy came, and says so behind that.
    cluster.hear(ClusterNews::Policies(0, one(name("web/p"), false, Some(policy("front", "back")))));
    assert!(has_policy(&cluster, "web/p") && cluster.is_settled(&key("web/a")));
    let learned = cluster.hear(ended(0, &[&b, &c]));
    assert!(!learned.is_something() && learned.settled && !cluster.is_settled(&key("web/a")));
    assert_eq!(all_of(&cluster), ["web/a", "web/b", "web/c"]);
    // What its successor does not show goes when that has told everything.
    let learned = cluster.hear(peers(1, &[&b]));
    assert_eq!(learned.pods.iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), ["web/c"]);
    assert!(all_of(&cluster) == ["web/a", "web/b"] && cluster.shared.is_empty() && cluster.ended.is_empty());
    // Nobody needs it any more: what it has shown goes.
    cluster.hear(ended(1, &[&b]));
    assert_eq!(all_of(&cluster), ["web/a", "web/b"]);
    cluster.hear(ClusterNews::Policies(0, one(name("web/p"), true, None)));
    assert!(all_of(&cluster) == ["web/a"] && cluster.ended.is_empty());
}

#[test]
fn of_watches_that_have_ended_only_the_last_few_count_on() {
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[("web/p", policy("front", "back"))]);
    for n in 0..100 {
        let b = key(&format!("web/b{n}"));
        cluster.hear(ClusterNews::Peers(watch(n, "web", "back"), all([(b.clone(), pod("back", "10.0.1.1"))])));
        cluster.hear(ClusterNews::Ended(watch(n, "web", "back"), vec![b]));
    }
    assert!(has_policy(&cluster, "web/p") && cluster.world().pods.contains_key(&key("web/b99")));
    assert!(cluster.world().pods.len() <= ENDED_MAX + 1);
}

#[test]
fn a_namespace_that_comes_under_a_selector_takes_nothing_away() {
    let peer = Peer::Pods { namespaces: Namespaces::Selected(selector("yes")), pods: Selector::default() };
    let open = Policy {
        subjects: selector("front"),
        ingress: Some(vec![Rule { peers: vec![peer], ports: Vec::new() }]),
        egress: None,
    };
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[("web/p", open.into())]);
    assert!(cluster.is_known() && cluster.wanted().is_empty() && has_policy(&cluster, "web/p"));
    let labels = Labels::from([("app", "yes")]);
    let learned = cluster.hear(ClusterNews::Namespaces(0, one("data".to_owned(), false, Some(labels))));
    assert_eq!((learned.namespaces, learned.wanted), (vec![("data".to_owned(), None)], true));
    assert!(has_policy(&cluster, "web/p") && !cluster.is_settled(&key("web/a")));
    assert_eq!(wanted(&cluster), ["data/"]);
    let learned = cluster.hear(ClusterNews::Namespaces(0, one("data".to_owned(), true, None)));
    assert!(learned.wanted && cluster.wanted().is_empty());
}

#[test]
fn a_node_that_keeps_no_policies_any_more_forgets_all_but_its_own_pods() {
    let (a, b) = (key("web/a"), key("web/b"));
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[("web/p", policy("front", "back"))]);
    let before = watch(3, "web", "back");
    cluster.hear(ClusterNews::Peers(
        before.clone(),
        all([(b.clone(), pod("back", "10.0.1.1")), (a.clone(), pod("late", "10.0.0.1"))]),
    ));
    cluster.forget();
    assert!(!cluster.is_known() && cluster.wanted().is_empty() && cluster.world().policies.is_empty());
    assert_eq!(cluster.world().pods.keys().collect::<Vec<_>>(), [&a]);
    // Watches that were on their end say so later.
    assert!(
        !cluster
            .hear(ClusterNews::Peers(before.clone(), one(b.clone(), true, Some(pod("back", "10.0.1.2")))))
            .is_something()
    );
    assert!(!cluster.hear(ClusterNews::Ended(before, vec![a.clone(), b.clone()])).is_something());
    // So may those that have begun before anybody heard that nothing is wished, and of which nothing has been heard yet.
    let ghosts = [
        ClusterNews::Policies(4, all([(name("web/ghost"), policy("front", "back"))])),
        ClusterNews::Namespaces(5, all([("ghost".to_owned(), Labels::default())])),
        ClusterNews::Faults(4, name("web/ghost"), Some("nonsense".into())),
        ClusterNews::Refusal(4, Some("no".into())),
        ClusterNews::Peers(watch(6, "web", "back"), all([(key("web/ghost"), pod("back", "10.0.1.1"))])),
    ];
    for late in [false, true] {
        if late {
            cluster.hear(ClusterNews::Cleared(7));
        }
        for news in &ghosts {
            let learned = cluster.hear(news.clone());
            assert!(!learned.is_something() && !learned.settled && cluster.refusals().count() == 0, "{news:?}");
        }
    }
    // Twice forgotten, the first answer is not the last.
    cluster.forget();
    cluster.forget();
    cluster.hear(ClusterNews::Cleared(7));
    assert!(!cluster.hear(ClusterNews::Policies(8, all([(name("web/p"), policy("front", "back"))]))).settled);
    cluster.hear(ClusterNews::Cleared(9));
    cluster.hear(ClusterNews::Namespaces(9, all([])));
    cluster.hear(ClusterNews::Policies(10, all([(name("web/p"), policy("front", "back"))])));
    cluster.hear(ClusterNews::Peers(watch(11, "web", "back"), all([(b, pod("back", "10.0.1.1"))])));
    assert!(cluster.is_known() && cluster.is_settled(&a) && cluster.world().pods.len() == 2);
}

// covers: FM-H05
#[test]
fn news_of_one_pod_touches_no_other_of_ten_thousand() {
    let mut cluster = told(&[("web/a", pod("front", "10.0.0.1"))], &[("web/p", policy("front", "back"))]);
    let of = watch(0, "web", "back");
    let many = (0..10_000).map(|n| (key(&format!("web/b{n}")), pod("back", &format!("10.1.{}.{}", n / 250, n % 250))));
    let learned = cluster.hear(ClusterNews::Peers(of.clone(), all(many)));
    assert_eq!((learned.pods.len(), cluster.world().pods.len()), (10_000, 10_001));
    let place = cluster.world().pods.get(&key("web/b7")).map(std::ptr::from_ref);
    let news = one(key("web/b8"), true, Some(pod("back", "10.2.0.1")));
    assert_eq!(cluster.hear(ClusterNews::Peers(of, news)).pods.len(), 1);
    assert_eq!(cluster.world().pods.get(&key("web/b7")).map(std::ptr::from_ref), place, "nobody else moves");
}
