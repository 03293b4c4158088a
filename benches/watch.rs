//! What it costs a node, and the API server, to know the pods that policies are about: a cluster of ten thousand pods on a thousand
//! nodes, with a real API server. Run by `make bench-watch`.
//!
//! Pods are objects and nothing more; what kubelet would say of them is written in its place. Nothing is asserted. Times include
//! the other programs of this machine, whose load the first line says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use flock::agent::policing::cluster::{Cluster, ClusterNews};
use flock::agent::policing::tell::Tell;
use flock::agent::policing::watches::Watches;
use flock::agent::watched::Watched;
use flock::kernel::netns::Netns;
use flock::kube::client::{Client, Download, Method, Watch};
use flock::kube::kind::{Form, Kind as _};
use flock::kube::kubeconfig::from_file;
use flock::kube::policy_objects::PeerPods;
use flock::kube::watch::Machine;
use model::policy::select::{Labels, Requirement, Selector};
use model::policy::watching::{Selection, WATCHES_MAX, selections, watches};
use model::policy::{self, spec};
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::moment::moment;
use crate::support::waiting::PATIENCE;

// As the agent has it, since memory is compared.
#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const PODS: usize = 10_000;
const NODES: usize = 1000;
const NAMESPACES: usize = 50;
/// Workloads of a namespace, each of as many pods.
const APPS: usize = 20;
const REPLICAS: usize = PODS / NAMESPACES / APPS;
/// Pods that start while watches are counted: one of each workload of every fifth namespace.
const STARTS: usize = APPS * NAMESPACES / 5;
/// Requests at a time while the cluster is made.
const WRITERS: usize = 6;

const TIERS: [&str; 4] = ["front", "back", "data", "jobs"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, view, kubeconfig, selections @ ..] = arguments.as_slice()
        && view == "view"
    {
        return child(Path::new(kubeconfig), selections);
    }
    println!("{}", moment());
    println!("| quantity | measured |\n|---|---|");
    one_change();
    cluster();
}

fn row(quantity: &str, measured: &str) {
    println!("| {quantity} | {measured} |");
}

fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn kib(bytes: u64) -> String {
    if bytes < 10 << 20 {
        format!("{:.1} KiB", bytes as f64 / 1024.0)
    } else {
        format!("{:.1} MiB", bytes as f64 / 1048576.0)
    }
}

/// A pod as a deployment makes it, some four kilobytes.
fn pod(namespace: usize, app: usize, replica: usize) -> Value {
    let name = format!("app-{app}-6d5f8c7b9d-{replica:05}");
    let mut labels = json!({
        "app": format!("app-{app}"),
        "app.kubernetes.io/name": format!("app-{app}"), "app.kubernetes.io/instance": format!("release-{namespace}-{app}"),
        "app.kubernetes.io/part-of": format!("product-{namespace}"), "app.kubernetes.io/managed-by": "Helm",
        "tier": TIERS[app % TIERS.len()], "pod-template-hash": "6d5f8c7b9d",
    });
    // A fifth of the workloads has labels that no two pods share.
    if app.is_multiple_of(5) {
        labels["statefulset.kubernetes.io/pod-name"] = json!(name);
        labels["apps.kubernetes.io/pod-index"] = json!(replica.to_string());
    }
    let env: Vec<Value> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": "http://service.example:8080/path"})).collect();
    let probe = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10, "timeoutSeconds": 1});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": format!("ns-{namespace}"), "labels": labels,
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": "0123456789abcdef0123456789abcdef0123456789abcdef"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("app-{app}-6d5f8c7b9d"),
                "uid": "11111111-2222-3333-4444-555555555555", "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {
            "nodeName": format!("node-{}", (namespace * 7919 + app * 104_729 + replica * 31) % NODES),
            "containers": [{
                "name": "app", "image": "registry.example/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "env": env, "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "livenessProbe": probe, "readinessProbe": probe,
                "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            }],
            "volumes": [
                {"name": "config", "configMap": {"name": "config"}},
                {"name": "token", "secret": {"secretName": "token-of-the-app", "defaultMode": 420}},
            ],
        },
    })
}

fn address(namespace: usize, app: usize, replica: usize) -> [String; 2] {
    let number = (namespace * APPS + app) * 100 + replica;
    [
        format!("10.{}.{}.{}", 64 + number / 65_536, number / 256 % 256, number % 256),
        format!("2001:db8::{:x}:{:x}", number >> 16, number & 0xffff),
    ]
}

/// What kubelet says of a pod, one after the other: it is being made, it runs, it is ready.
fn statuses(addresses: &[String; 2]) -> [Value; 3] {
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": "2026-11-26T12:00:00Z"});
    let conditions = |ready: &str| {
        json!(
            ["Initialized", "PodReadyToStartContainers", "PodScheduled"]
                .map(|kind| condition(kind, "True"))
                .into_iter()
                .chain(["Ready", "ContainersReady"].map(|kind| condition(kind, ready)))
                .collect::<Vec<_>>()
        )
    };
    let container = |ready: bool, state: Value| {
        json!([{"name": "app", "ready": ready, "started": ready, "restartCount": 0, "state": state,
            "image": "registry.example/team/app:1", "imageID": "registry.example/team/app@sha256:0123456789abcdef",
            "containerID": "containerd://0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}])
    };
    let running = json!({"running": {"startedAt": "2026-11-26T12:00:00Z"}});
    let told = json!({
        "phase": "Running", "hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}], "startTime": "2026-11-26T12:00:00Z",
        "podIP": addresses[0], "podIPs": [{"ip": addresses[0]}, {"ip": addresses[1]}],
    });
    let with = |conditions: Value, containers: Value| {
        let mut status = told.clone();
        (status["conditions"], status["containerStatuses"]) = (conditions, containers);
        json!({"status": status})
    };
    [
        json!({"status": {"phase": "Pending", "hostIP": "192.0.2.1", "startTime": "2026-11-26T12:00:00Z", "conditions": conditions("False"),
            "containerStatuses": container(false, json!({"waiting": {"reason": "ContainerCreating"}}))}}),
        with(conditions("False"), container(false, running.clone())),
        with(conditions("True"), container(true, running)),
    ]
}

fn in_netns<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(&host.netns()).expect("the host's namespace").run(work).expect("entered")
}

fn client(kubeconfig: &Path) -> Client {
    Client::new(&from_file(kubeconfig).expect("readable"), "bench").expect("usable")
}

/// Makes pods, and says of each what `statuses` picks of what kubelet says.
fn start_pods(client: &Client, pods: &[(usize, usize, usize)], statuses_of: fn([Value; 3]) -> Vec<Value>) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                while let Some((namespace, app, replica)) = pods.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let pod = pod(namespace, app, replica);
                    let path = format!("/api/v1/namespaces/ns-{namespace}/pods");
                    write(client, Method::Post, &path, "application/json", &pod);
                    let path = format!("{path}/{}/status", pod["metadata"]["name"].as_str().expect("a name"));
                    for status in statuses_of(statuses(&address(namespace, app, replica))) {
                        write(client, Method::Patch, &path, "application/merge-patch+json", &status);
                    }
                }
            });
        }
    });
}

fn write(client: &Client, method: Method, path: &str, content: &str, body: &Value) {
    let answer = client.send(method, path, content, body.to_string().as_bytes()).expect("an answer");
    assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
}

fn selection(namespace: Option<usize>, key: &str, value: &str) -> Selection {
    let pods: Selector = [Requirement::equals(key, value)].into_iter().collect();
    Selection { namespace: namespace.map(|n| format!("ns-{n}").into()), pods }
}

/// The selections of two policies for each of `namespaces`, as a chart has them: the ingress controller, the namespace itself, the
/// data tier, and DNS.
fn needed(namespaces: &[usize]) -> BTreeSet<Selection> {
    let known: BTreeMap<String, Labels> = (0..NAMESPACES)
        .map(|n| (format!("ns-{n}"), Labels::from([(policy::NAME_LABEL.to_owned(), format!("ns-{n}"))])))
        .collect();
    let named = |n: usize| json!({"matchLabels": {policy::NAME_LABEL: format!("ns-{n}")}});
    let app = |name: &str| json!({"matchLabels": {"app": name}});
    let of = |name: &str, spec: Value| {
        let object = json!({"apiVersion": spec::API_VERSION, "kind": spec::KIND, "metadata": {"name": "p", "namespace": name}, "spec": spec});
        spec::read(&object).expect("a policy").policy
    };
    let mut found = BTreeSet::new();
    for n in namespaces {
        let name = format!("ns-{n}");
        let ingress = of(
            &name,
            json!({"podSelector": {}, "ingress": [{"from": [
            {"namespaceSelector": named(0), "podSelector": app("app-1")}, {"podSelector": {"matchLabels": {"tier": "front"}}}]}]}),
        );
        let egress = of(
            &name,
            json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [
            {"namespaceSelector": named(1), "podSelector": app("app-2")}, {"podSelector": {"matchLabels": {"tier": "data"}}}]}]}),
        );
        found.extend(selections(&name, &ingress, &known));
        found.extend(selections(&name, &egress, &known));
    }
    found
}

fn cluster() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    let admin = host.path(&plane.kubeconfig("bench", "admin-token"));
    let kubeconfig = host.path(&plane.kubeconfig("agent", &plane.agent_token()));
    let writer = client(&admin);
    let all: Vec<(usize, usize, usize)> = (0..NAMESPACES)
        .flat_map(|n| (0..APPS).flat_map(move |app| (0..REPLICAS).map(move |replica| (n, app, replica))))
        .collect();
    let began = Instant::now();
    in_netns(&host, || {
        for n in 0..NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{n}")}});
            write(&writer, Method::Post, "/api/v1/namespaces", "application/json", &namespace);
        }
        start_pods(&writer, &all, |[_, _, ready]| vec![ready]);
    });
    eprint_line(&format!("{PODS} pods were made in {} s", began.elapsed().as_secs()));

    // Thirty pods of a node, all of few products; and of as many as chance brings together.
    let few = needed(&[2, 3]);
    let many: BTreeSet<Selection> = needed(&(2..12).collect::<Vec<_>>());
    assert_eq!(watches(many.clone(), &BTreeSet::new()), many, "no more than {WATCHES_MAX}");
    let sets: [(String, BTreeSet<Selection>); 3] = [
        ("one watch of all pods".into(), BTreeSet::from([Selection::all()])),
        (format!("{} selector watches (pods of 2 namespaces, 4 policies)", few.len()), few),
        (format!("{} selector watches (pods of 10 namespaces, 20 policies)", many.len()), many),
    ];
    let everything = "/api/v1/pods".to_owned();
    let (bytes, time) = in_netns(&host, || list(&client(&kubeconfig), &everything));
    row("list of all pods without any selector", &format!("{}, {}", kib(bytes), ms(time)));
    for (what, set) in &sets {
        let (bytes, time) = in_netns(&host, || {
            let client = client(&kubeconfig);
            let each = set.iter().map(|selection| list(&client, &PeerPods::new(selection.clone()).path()));
            each.fold((0, Duration::ZERO), |(bytes, time), (more, longer)| (bytes + more, time + longer))
        });
        row(&format!("lists of {what}"), &format!("{}, {}", kib(bytes), ms(time)));
        let words: Vec<String> = set.iter().map(ToString::to_string).collect();
        let mut command = host.command(std::env::current_exe().expect("known").to_str().expect("text"));
        let output = command.arg("view").arg(kubeconfig_inside(&kubeconfig)).args(&words).output().expect("started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        row(&format!("view of {what}"), String::from_utf8_lossy(&output.stdout).trim());
    }

    // Pods start, each with what kubelet says: some watch everything, as one without selectors would.
    let mut watched: Vec<(String, Vec<String>)> = vec![("one watch without any selector".into(), vec![everything])];
    watched.extend(
        sets.iter().map(|(what, set)| (what.clone(), set.iter().map(|s| PeerPods::new(s.clone()).path()).collect())),
    );
    let counts: Vec<(String, Arc<(AtomicU64, AtomicU64)>)> =
        watched.iter().map(|(what, _)| (what.clone(), Arc::default())).collect();
    in_netns(&host, || {
        let (ready, is_ready) = channel();
        let mut expected = 0;
        for ((_, paths), (_, count)) in watched.iter().zip(&counts) {
            for path in paths {
                expected += 1;
                let (path, count, ready, kubeconfig) = (path.clone(), count.clone(), ready.clone(), kubeconfig.clone());
                std::thread::spawn(move || {
                    follow(&client(&kubeconfig), &path, &count, || ready.send(()).expect("heard"))
                });
            }
        }
        (0..expected).for_each(|_| is_ready.recv_timeout(PATIENCE * 10).expect("watching"));
        let new: Vec<(usize, usize, usize)> =
            (0..NAMESPACES).step_by(5).flat_map(|n| (0..APPS).map(move |app| (n, app, REPLICAS))).collect();
        assert_eq!(new.len(), STARTS);
        start_pods(&writer, &new, |all| all.to_vec());
        // What was told of the last one has come when the counts stand still.
        let mut before = Vec::new();
        support::waiting::wait_for("the last event", || {
            let now: Vec<u64> = counts.iter().map(|(_, count)| count.1.load(Ordering::Relaxed)).collect();
            std::thread::sleep(Duration::from_millis(500));
            let still = before == now;
            before = now;
            still.then_some(())
        });
    });
    for (what, count) in &counts {
        let (events, bytes) = (count.0.load(Ordering::Relaxed), count.1.load(Ordering::Relaxed));
        let each = |n: u64| n as f64 / STARTS as f64;
        row(
            &format!("a pod starts somewhere, {what}: events and bytes per node"),
            &format!(
                "{:.2}, {}; all {NODES} nodes {}",
                each(events),
                kib(bytes / STARTS as u64),
                kib(bytes * NODES as u64 / STARTS as u64)
            ),
        );
    }
}

fn eprint_line(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").ok();
}

/// The place of a file of the host as a program on the host sees it.
fn kubeconfig_inside(path: &Path) -> String {
    let text = path.to_str().expect("text");
    text[text.find("/root/").expect("a place below the host's root") + 5..].to_owned()
}

fn list(client: &Client, path: &str) -> (u64, Duration) {
    let began = Instant::now();
    let Download::Body(mut body) = client.download(path, Form::Whole, 1 << 30).expect("an answer") else {
        panic!("refused")
    };
    let (mut bytes, mut buffer) = (0, vec![0; 65_536]);
    while let Ok(length @ 1..) = body.read(&mut buffer) {
        bytes += length as u64;
    }
    (bytes, began.elapsed())
}

/// Counts what a watch from now on says, until the client is gone.
fn follow(client: &Client, path: &str, count: &(AtomicU64, AtomicU64), ready: impl Fn()) {
    let sign = if path.contains('?') { '&' } else { '?' };
    let answer = client.get(&format!("{path}{sign}limit=1"), 1 << 20).expect("an answer");
    let list: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
    let path = format!("{path}{sign}watch=1&resourceVersion={version}");
    let Watch::Stream(mut lines) = client.watch(&path, Form::Whole, PATIENCE * 10).expect("an answer") else {
        panic!("refused")
    };
    ready();
    while let Ok(Some(line)) = lines.next() {
        count.0.fetch_add(1, Ordering::Relaxed);
        count.1.fetch_add(line.len() as u64 + 1, Ordering::Relaxed);
    }
}

/// Memory of this process, in KiB.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Keeps the view of some selections as an agent does, and says what it took.
fn child(kubeconfig: &Path, words: &[String]) {
    let wanted: BTreeSet<Selection> = words
        .iter()
        .map(|words| {
            let (namespace, pair) = words.split_once('/').expect("a namespace and a selector");
            let pods = pair.split_once('=').map(|(key, value)| Requirement::equals(key, value)).into_iter().collect();
            Selection { namespace: (namespace != "*").then(|| namespace.into()), pods }
        })
        .collect();
    let client = Arc::new(client(kubeconfig));
    let (tell, told) = channel();
    let (wishes, wished) = channel();
    let following = Watches::new(client.clone(), Tell::new(move |news| _ = tell.send(news)), Watched::default());
    std::thread::spawn(move || following.run(&wished));
    let mut cluster = Cluster::default();
    cluster.hear(ClusterNews::Own(flock::agent::policing::cluster::Told { each: Vec::new(), complete: true }));
    // The watches of policies and namespaces are there before memory is measured.
    wishes.send(Some(BTreeSet::new())).expect("heard");
    while !cluster.is_known() {
        cluster.hear(told.recv_timeout(PATIENCE * 10).expect("news"));
    }
    let (before, began) = (memory(), Instant::now());
    wishes.send(Some(wanted.clone())).expect("heard");
    let mut left = wanted.len();
    while left > 0 {
        let news = told.recv_timeout(PATIENCE * 10).expect("news");
        left -= usize::from(matches!(&news, ClusterNews::Peers(_, told) if told.complete));
        cluster.hear(news);
    }
    let took = began.elapsed();
    println!(
        "{} pods, complete after {}, {} KiB more than {before} KiB",
        cluster.world().pods.len(),
        ms(took),
        memory().saturating_sub(before)
    );
    client.shutdown();
}

/// One change among ten thousand pods, where somebody keeps the set that was before, and where nobody does.
fn one_change() {
    let object = |n: usize, version: usize| {
        let mut pod = pod(n / APPS % NAMESPACES, n % APPS, n);
        pod["metadata"]["uid"] = json!(format!("uid-{n}"));
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        pod["status"] =
            json!({"phase": "Running", "podIPs": [{"ip": format!("10.{}.{}.{}", version % 250, n / 250, n % 250)}]});
        pod
    };
    let mut machine = Machine::new(PeerPods::new(Selection::all()));
    let items: Vec<Value> = (0..PODS).map(|n| object(n, 1)).collect();
    let list = json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
    machine.next(0, 0);
    let listing = machine.read(list.as_bytes()).expect("a list");
    machine.listed(Ok(listing), 0, 0);
    machine.changes();
    machine.next(0, 0);
    let lines = |version: usize, count: usize| -> Vec<String> {
        (0..count).map(|n| json!({"type": "MODIFIED", "object": object(n * 7, version)}).to_string()).collect()
    };
    let mut cluster = Cluster::default();
    for (version, kept, count) in [(2, false, 1000), (3, true, 100)] {
        let lines = lines(version, count);
        let mut set = None;
        let began = Instant::now();
        for line in &lines {
            machine.line(line.as_bytes(), 0, 0);
            let changes = machine.changes().expect("a change");
            let key = |name: &flock::kube::kind::Name| policy::PodKey {
                namespace: name.namespace.as_str().into(),
                name: name.name.clone(),
            };
            let told = flock::agent::policing::tell::told(changes, key, |pod| Some(pod.clone()));
            let watch = flock::agent::policing::cluster::Watch { selection: Selection::all(), number: 0 };
            cluster.hear(ClusterNews::Peers(watch, told));
            set = kept.then(|| machine.objects().clone());
        }
        let each = began.elapsed().as_secs_f64() * 1e6 / lines.len() as f64;
        drop(set);
        let what = if kept { "the set before is kept, which copies it" } else { "no set is kept" };
        row(&format!("one event of {PODS} pods, from its line to the view, {what}"), &format!("{each:.0} us"));
    }
}
