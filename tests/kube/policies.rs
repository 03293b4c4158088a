//! Stories of what a node hears from a real API server for its policies: one piece of news for each thing that happens, and none
//! for what does not matter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use flock::agent::policing::cluster::{Change, Cluster, ClusterNews};
use flock::agent::policing::tell::Tell;
use flock::agent::policing::watches::{Watches, Wish};
use flock::agent::watched::Watched;
use flock::kernel::netns::Netns;
use flock::kube::client::Client;
use flock::kube::kubeconfig::from_file;
use model::policy::select::{Operator, Requirement, Selector};
use model::policy::watching::{Selection, selections};
use model::policy::{Namespaces, Peer, Policy, Rule};
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::waiting::PATIENCE;

/// What a node with the rights of `deploy/` hears.
struct Ears {
    wishes: Sender<Wish>,
    news: Receiver<ClusterNews>,
    client: Arc<Client>,
}

impl Ears {
    fn new(host: &Host, plane: &ControlPlane<'_>) -> Ears {
        let kubeconfig = host.path(&plane.kubeconfig("agent", &plane.agent_token()));
        let client = Arc::new(Client::new(&from_file(&kubeconfig).expect("readable"), "test").expect("usable"));
        let (wishes, wished) = channel();
        let (tell, news) = channel();
        let watches = Watches::new(client.clone(), Tell::new(move |news| _ = tell.send(news)), Watched::default());
        // The threads that it starts are where it is.
        let start = move || _ = std::thread::spawn(move || watches.run(&wished));
        Netns::open(&host.netns()).expect("the host's namespace").run(start).expect("entered");
        Ears { wishes, news, client }
    }

    fn wish(&self, selections: &[&Selection]) {
        let wanted: BTreeSet<Selection> = selections.iter().map(|selection| (*selection).clone()).collect();
        self.wishes.send(Some(wanted)).expect("heard");
    }

    /// The next piece of news of the cluster. What an operator is told beside it is of other tests.
    fn next(&self) -> ClusterNews {
        loop {
            let news = self.news.recv_timeout(PATIENCE).expect("news");
            if !matches!(news, ClusterNews::Faults(..) | ClusterNews::Refusal(..)) {
                return news;
            }
        }
    }

    /// Hears until everything has been told once, of policies, of namespaces, and of so many watches of pods. Then nothing is on
    /// its way.
    fn complete(&self, cluster: &mut Cluster, pods: usize) {
        let (mut policies, mut namespaces, mut watches) = (false, false, 0);
        while !policies || !namespaces || watches < pods {
            let news = self.next();
            match &news {
                ClusterNews::Policies(_, told) => policies |= told.complete,
                ClusterNews::Namespaces(_, told) => namespaces |= told.complete,
                ClusterNews::Peers(_, told) => watches += usize::from(told.complete),
                _ => {}
            }
            cluster.hear(news);
        }
    }

    /// The next piece of news, in few words.
    #[track_caller]
    fn hears(&self, words: &str) {
        let heard = in_words(&self.next());
        assert_eq!(heard, words);
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.client.shutdown();
    }
}

fn each<K, V>(each: &[Change<K, V>], words: impl Fn(&K, Option<&V>) -> String) -> String {
    let one = |change: &Change<K, V>| {
        let what = match (change.known, &change.now) {
            (false, Some(_)) => "new",
            (true, Some(_)) => "changed",
            (_, None) => "gone",
        };
        format!("{what} {}", words(&change.key, change.now.as_ref()))
    };
    each.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn in_words(news: &ClusterNews) -> String {
    match news {
        ClusterNews::Policies(_, told) => {
            let rules = |rules: &Option<Vec<_>>| rules.as_ref().map_or("-".into(), |rules| rules.len().to_string());
            each(&told.each, |(namespace, name), policy| {
                let text = policy.map(|policy| format!(" in {} out {}", rules(&policy.ingress), rules(&policy.egress)));
                format!("policy {namespace}/{name}{}", text.unwrap_or_default())
            })
        }
        ClusterNews::Namespaces(_, told) => each(&told.each, |name, labels| {
            let team = labels.map(|labels| format!(" of {}", labels.get("team").unwrap_or("nobody")));
            format!("namespace {name}{}", team.unwrap_or_default())
        }),
        ClusterNews::Own(told) => each(&told.each, |key, _| format!("own {key}")),
        ClusterNews::Peers(watch, told) => {
            let pods = each(&told.each, |key, pod| {
                let addresses: Vec<String> =
                    pod.into_iter().flat_map(|pod| &pod.addresses).map(ToString::to_string).collect();
                let ports = pod.into_iter().flat_map(|pod| pod.ports.iter());
                let ports: Vec<String> = ports.map(|port| format!("{} {}", port.name, port.port)).collect();
                format!("{key} [{}] [{}]", addresses.join(" "), ports.join(" "))
            });
            format!("{}: {pods}", watch.selection)
        }
        ClusterNews::Ended(watch, pods) => format!("ended {} with {}", watch.selection, pods.len()),
        ClusterNews::Faults(_, (namespace, name), faults) => format!("faults of {namespace}/{name}: {faults:?}"),
        ClusterNews::Refusal(number, refusal) => format!("refusal of watch {number}: {refusal:?}"),
        ClusterNews::Cleared(below) => format!("cleared below {below}"),
    }
}

fn selection(namespace: &str, app: &str) -> Selection {
    let pods: Selector = [Requirement::equals("app", app)].into_iter().collect();
    Selection { namespace: Some(namespace.into()), pods }
}

fn make_pod(plane: &ControlPlane<'_>, name: &str, app: &str, extra: Value) {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "web", "labels": {"app": app}},
        "spec": {"nodeName": "elsewhere", "containers": [
            {"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}]}]},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    plane.apply(&pod.to_string()).expect("accepted");
}

/// Says in the name of kubelet how a pod is.
fn status(plane: &ControlPlane<'_>, name: &str, phase: &str, addresses: &[&str]) {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"status": {"phase": phase, "podIP": addresses.first(), "podIPs": ips}}).to_string();
    let output =
        plane.kubectl(&["-n", "web", "patch", "pod", name, "--subresource=status", "--type=merge", "-p", &status]);
    assert!(output.status.success(), "{output:?}");
}

fn policy(plane: &ControlPlane<'_>, spec: Value) {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "web"}, "spec": spec,
    });
    plane.apply(&object.to_string()).expect("accepted");
}

#[test]
fn what_happens_in_the_cluster_arrives_as_one_piece_of_news_each() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.run("create namespace web");
    for name in ["default", "kube-public", "kube-node-lease"] {
        crate::wait_for(name, || plane.kubectl(&["get", "namespace", name]).status.success().then_some(()));
    }
    make_pod(&plane, "first", "db", json!({}));
    status(&plane, "first", "Running", &["10.0.0.1", "2001:db8::1"]);
    let ears = Ears::new(&host, &plane);
    let db = selection("web", "db");
    ears.wish(&[&db]);
    let mut cluster = Cluster::default();
    ears.complete(&mut cluster, 1);
    let names: Vec<&str> = cluster.world().namespaces.keys().map(String::as_str).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system", "web"]);
    assert_eq!(cluster.world().pods.len(), 1);

    policy(&plane, json!({"podSelector": {}}));
    ears.hears("new policy web/p in 0 out -");
    policy(&plane, json!({"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]}));
    ears.hears("changed policy web/p in - out 1");
    plane.run("label networkpolicy -n web p colour=red");
    plane.run("annotate namespace web colour=red");
    plane.run("label namespace web team=a");
    ears.hears("changed namespace web of a");
    plane.run("delete networkpolicy -n web p");
    ears.hears("gone policy web/p");

    // Before a pod has an address, nobody can hear from it.
    make_pod(&plane, "second", "db", json!({}));
    make_pod(&plane, "other", "front", json!({}));
    make_pod(&plane, "host", "db", json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x"}]}));
    status(&plane, "other", "Running", &["10.0.0.3"]);
    status(&plane, "host", "Running", &["192.0.2.1"]);
    status(&plane, "second", "Pending", &["10.0.0.2"]);
    ears.hears("web/app=db: new web/second [10.0.0.2] [http 8080]");
    status(&plane, "second", "Running", &["10.0.0.2", "2001:db8::2"]);
    ears.hears("web/app=db: changed web/second [10.0.0.2 2001:db8::2] [http 8080]");
    plane.run("annotate pod -n web second colour=red");
    plane.run("annotate pod -n web second flock.fritzlab.net/addresses=203.0.113.7");
    ears.hears("web/app=db: changed web/second [10.0.0.2 2001:db8::2 203.0.113.7] [http 8080]");

    // Labels lead out of a selection and into it.
    plane.run("label pod -n web --overwrite second app=front");
    ears.hears("web/app=db: gone web/second [] []");
    plane.run("label pod -n web --overwrite other app=db");
    ears.hears("web/app=db: new web/other [10.0.0.3] [http 8080]");
    status(&plane, "other", "Succeeded", &["10.0.0.3"]);
    ears.hears("web/app=db: gone web/other [] []");
    // One that is about to end is there until it has.
    plane.run("delete pod -n web first --wait=false --grace-period=300");
    plane.run("label pod -n web first colour=red");
    ears.hears("web/app=db: changed web/first [10.0.0.1 2001:db8::1] [http 8080]");
    plane.run("delete pod -n web first --force --grace-period=0");
    ears.hears("web/app=db: gone web/first [] []");

    // Another selection is told as a whole. One that is wanted no more ends when nothing is, after one more line.
    let front = selection("web", "front");
    ears.wish(&[&front]);
    ears.hears("web/app=front: new web/second [10.0.0.2 2001:db8::2 203.0.113.7] [http 8080]");
    ears.wishes.send(None).expect("heard");
    let mut count = 0;
    crate::wait_for("the end", || {
        count += 1;
        plane.run(&format!("annotate pod -n web second --overwrite count={count}"));
        ears.news.try_iter().find(|news| in_words(news) == "ended web/app=front with 1")
    });
}

#[test]
fn whatever_a_policy_selects_by_the_api_server_takes_the_question() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    plane.run("create namespace web");
    make_pod(&plane, "first", "in", json!({}));
    status(&plane, "first", "Running", &["10.0.0.1"]);
    let long = "x".repeat(64);
    let values = ["my app", "", "in", "notin", "a,b", "a)", "=", "!", "-", "a_b.C-1", "ä", &long];
    let keys = ["app", "in", "notin", "exists", "example.org/in", "a b", "A.b/c", "", &long];
    let mut asked = BTreeSet::new();
    let mut ask = |requirements: Vec<Requirement>| {
        let peer = Peer::Pods { namespaces: Namespaces::Same, pods: requirements.into_iter().collect() };
        let rule = Rule { peers: vec![peer], ports: Vec::new() };
        let policy = Policy { ingress: Some(vec![rule]), ..Policy::default() };
        asked.extend(selections("web", &policy, &Default::default()));
    };
    for key in keys {
        let requirement = |operator| Requirement { key: key.into(), operator };
        let exists = || Requirement { key: "app".into(), operator: Operator::Exists };
        ask(vec![requirement(Operator::Exists)]);
        ask(vec![requirement(Operator::DoesNotExist), exists()]);
        for value in values {
            let both = || Box::new([Box::from("a"), Box::from(value)]);
            ask(vec![Requirement::equals(key, value)]);
            ask(vec![requirement(Operator::In(both()))]);
            ask(vec![requirement(Operator::NotIn(both())), exists()]);
            ask(vec![requirement(Operator::NotIn(Box::new([value.into()]))), exists()]);
        }
    }
    assert!(asked.len() > 60, "{}", asked.len());
    let ears = Ears::new(&host, &plane);
    let asked: Vec<&Selection> = asked.iter().collect();
    for some in asked.chunks(16) {
        let mut missing: BTreeSet<&Selection> = some.iter().copied().collect();
        ears.wish(some);
        while !missing.is_empty() {
            match ears.news.recv_timeout(PATIENCE).expect("news") {
                ClusterNews::Peers(watch, told) if told.complete => _ = missing.remove(&watch.selection),
                ClusterNews::Refusal(_, Some(why)) => panic!("{why}"),
                _ => {}
            }
        }
    }
}

#[test]
fn an_api_server_that_starts_again_loses_nothing_and_invents_nothing() {
    let host = Host::new();
    let mut plane = ControlPlane::start(&host);
    plane.run("create namespace web");
    for name in ["default", "kube-public", "kube-node-lease"] {
        crate::wait_for(name, || plane.kubectl(&["get", "namespace", name]).status.success().then_some(()));
    }
    for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2")] {
        make_pod(&plane, name, "db", json!({}));
        status(&plane, name, "Running", &[address]);
    }
    policy(&plane, json!({"podSelector": {}}));
    plane.stop_api("TERM");
    plane.stop_etcd();
    plane.backup();
    plane.start_etcd();
    plane.start_api();
    let ears = Ears::new(&host, &plane);
    ears.wish(&[&selection("web", "db")]);
    let mut cluster = Cluster::default();
    ears.complete(&mut cluster, 1);
    let before = cluster.world().clone();
    let hear = |cluster: &mut Cluster, words: &str| {
        let news = ears.next();
        assert_eq!(in_words(&news), words);
        cluster.hear(news);
    };

    // Killed and started: all is as it was, also for a watch whose version the server has forgotten.
    for compacted in [false, true] {
        plane.stop_api("KILL");
        if compacted {
            plane.compact();
        }
        plane.start_api();
        let team = if compacted { "b" } else { "a" };
        plane.run(&format!("label namespace web --overwrite team={team}"));
        hear(&mut cluster, &format!("changed namespace web of {team}"));
        make_pod(&plane, "c", "db", json!({}));
        status(&plane, "c", "Running", &["10.0.0.3"]);
        hear(&mut cluster, "web/app=db: new web/c [10.0.0.3] [http 8080]");
        plane.run("delete pod -n web c --force --grace-period=0");
        hear(&mut cluster, "web/app=db: gone web/c [] []");
        policy(&plane, json!({"podSelector": {}, "ingress": [{}]}));
        hear(&mut cluster, "changed policy web/p in 1 out -");
        policy(&plane, json!({"podSelector": {}, "ingress": []}));
        hear(&mut cluster, "changed policy web/p in 0 out -");
    }

    // Restored to what it was before: what has changed since is told back, and nothing else.
    plane.run("delete pod -n web a --force --grace-period=0");
    hear(&mut cluster, "web/app=db: gone web/a [] []");
    plane.run("delete networkpolicy -n web p");
    hear(&mut cluster, "gone policy web/p");
    plane.stop_api("TERM");
    plane.stop_etcd();
    plane.restore();
    plane.start_etcd();
    plane.start_api();
    // A server that is older than a watch may take it and be silent: 150 s are a dead connection, and the second time a reason to list.
    crate::wait_for_long("the world as it was", 400, || {
        while let Ok(news) = ears.news.try_recv() {
            assert!(!in_words(&news).contains("web/b"), "nothing has happened to it: {news:?}");
            cluster.hear(news);
        }
        (*cluster.world() == before).then_some(())
    });
}
