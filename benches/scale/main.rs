//! What a thousand agents cost the API server: at a start of all, at rest, for each pod, edit and policy, and when the server
//! itself comes back. Run by `make bench-scale`.
//!
//! API server and etcd are real. A thousand agents are the threads of the product that talk to it, with its own client, and nothing
//! of the host behind them (`agents`); one more is a real agent, which shows that they ask what it asks. What they ask in an
//! hour at rest is reckoned by the product's own schedule (`schedule`). The numbers are the server's own. Nothing is asserted.
//! Arguments: how many agents there are, and `kill` to have the server killed at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs
)]

mod agents;
mod schedule;
mod server;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use flock::kube::client::{Client, Method};
use flock::kube::kubeconfig::from_file;
use serde_json::{Value, json};

use crate::agents::Agents;
use crate::server::Server;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::moment::moment;
use crate::support::programs::FLOCK_AGENT;
use crate::support::waiting::wait_at_most;

/// Pods that are there before anything is measured.
const PODS: usize = 1000;
/// Pods that come and go while that is measured.
const COMING: usize = 100;
const NAMESPACES: usize = 20;
/// Requests at a time while the cluster is made.
const WRITERS: usize = 8;
/// How long the agents are watched at rest.
const REST: Duration = Duration::from_secs(30);
/// Longest time in which counts of policies are written: 60 s and half of it.
const COUNTS: Duration = Duration::from_secs(95);
/// Watches of each agent: five, and two of the pods that its policies are about.
const WATCHES: usize = 7;
const LIMIT: Duration = Duration::from_secs(400);

const CONFIGS: &str = "/apis/flock.fritzlab.net/v1alpha1/nodeconfigs";
const PEERS: &str = "/apis/flock.fritzlab.net/v1alpha1/nodepeers";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, kubeconfig, count] = arguments.as_slice()
        && word == "agents"
    {
        return agents::run(Path::new(kubeconfig), count.parse().expect("a number"));
    }
    let asked: Vec<&String> = arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let nodes = asked.iter().find_map(|word| word.parse().ok()).unwrap_or(1000);
    let is_killed = asked.iter().any(|word| *word == "kill");
    println!("{}", moment());
    println!("\nAn hour at rest, for each agent\n");
    schedule::print();
    println!("\n| {nodes} agents | what the API server did |\n|---|---|");
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    // Whatever is started from here on talks from the host.
    let netns = Netns::open(&host.netns()).expect("the host's namespace");
    netns.run(|| Cluster::new(&host, plane, nodes).measure(is_killed)).expect("entered");
}

pub fn name(node: usize) -> String {
    format!("node-{node:04}")
}

fn row(quantity: &str, measured: &str) {
    println!("| {quantity} | {measured} |");
}

struct Cluster<'a> {
    host: &'a Host,
    plane: ControlPlane<'a>,
    admin: Client,
    kubeconfig: String,
    nodes: usize,
}

impl<'a> Cluster<'a> {
    fn new(host: &'a Host, plane: ControlPlane<'a>, nodes: usize) -> Cluster<'a> {
        let admin = from_file(&host.path(&plane.admin_kubeconfig())).expect("readable");
        let admin = Client::new(&admin, "bench").expect("usable");
        let kubeconfig = plane.kubeconfig("agent", &plane.agent_token());
        Cluster { host, plane, admin, kubeconfig, nodes }
    }

    fn measure(mut self, is_killed: bool) {
        let began = Instant::now();
        self.each(NAMESPACES, |n| {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{n}")}});
            self.write(Method::Post, "/api/v1/namespaces", "application/json", &namespace);
        });
        self.each(self.nodes, |n| {
            let config = self.write(Method::Post, CONFIGS, "application/json", &config(&name(n), n));
            let path = format!("{PEERS}/{}?fieldManager=flock-agent&force=true", name(n));
            let peer = peer(n, config["metadata"]["uid"].as_str().expect("a uid"));
            self.write(Method::Patch, &path, "application/apply-patch+yaml", &peer);
        });
        self.write(Method::Post, CONFIGS, "application/json", &config("host001", self.nodes));
        self.each(10, |n| {
            self.write(Method::Post, &format!("{POLICIES}/ns-{n}/networkpolicies"), "application/json", &policy("p"));
        });
        self.each(PODS, |n| self.start(n));
        eprintln_line(&format!("the cluster was made in {} s", began.elapsed().as_secs()));
        Server::weigh(&self.admin);
        let quiet = self.seen();
        std::thread::sleep(Duration::from_secs(5));
        row("no agent: CPU, memory", &self.seen().since(&quiet).rest(5));

        // As after a power cut: everything is known, and nobody has to tell the others anything new.
        let before = self.seen();
        let began = Instant::now();
        let mut agents = Agents::start(self.host, &self.kubeconfig, self.nodes);
        self.wait_reported(&before);
        let reported = began.elapsed().as_secs();
        self.wait_watches(self.nodes * WATCHES);
        let watching = began.elapsed().as_secs();
        row(
            &format!("start of all: reported after {reported} s, all watches after {watching} s"),
            &self.seen().since(&before).told(),
        );
        self.real_agent(&mut agents);

        Server::weigh(&self.admin);
        let before = self.seen();
        std::thread::sleep(REST);
        row(&format!("at rest, {} s", REST.as_secs()), &self.seen().since(&before).rest(REST.as_secs()));

        let before = self.seen();
        self.each(COMING, |n| self.start(PODS + n));
        self.settle();
        let come = self.seen();
        row("a pod comes (4 writes)", &come.since(&before).each(COMING));
        for n in 0..NAMESPACES {
            let late = "gracePeriodSeconds=0&labelSelector=late%3Dyes";
            self.plane.run(&format!("delete --raw {}?{late}", pods(n)));
        }
        self.settle();
        row("a pod goes", &self.seen().since(&come).each(COMING));

        self.edit("an edit of a NodeConfig", 50, |_| json!({"mtu": 1400}));
        self.edit("another range of a node", 10, |n| json!({"cidr4": format!("10.127.{n}.0/24")}));

        let before = self.seen();
        self.write(Method::Post, &format!("{POLICIES}/ns-15/networkpolicies"), "application/json", &policy("late"));
        agents.tell("policies 2");
        let (mut most, mut last, began) = (0.0_f64, 0.0, Instant::now());
        while began.elapsed() < COUNTS && last < self.nodes as f64 {
            std::thread::sleep(Duration::from_secs(5));
            let now = self.seen().since(&before).of("PATCH", "nodeconfigs/status");
            most = most.max((now - last) / 5.0);
            last = now;
        }
        let told = self.seen().since(&before).told();
        row(&format!("a policy that pods of each node have; at most {most:.0} reports a second"), &told);

        if !is_killed {
            return;
        }
        self.plane.stop_api("KILL");
        let began = Instant::now();
        self.plane.start_api();
        let ready = began.elapsed();
        self.wait_watches(self.nodes * WATCHES);
        let again = self.seen();
        row(
            &format!(
                "the server is killed: ready after {} s, all watches after {} s",
                ready.as_secs(),
                began.elapsed().as_secs()
            ),
            &again.told(),
        );
    }

    /// What a real agent asks at its start, beside what one of the others asks.
    fn real_agent(&self, agents: &mut Agents) {
        let _agent = self.host.agent().config(None).kubeconfig(&self.kubeconfig).start();
        self.wait("the report of the real agent", || {
            !self.plane.run("get nodeconfig host001 -o jsonpath={.status.lastHeard}").is_empty()
        });
        let output = self.host.command(FLOCK_AGENT).args(["status", "-o", "prometheus"]).output().expect("started");
        let text = String::from_utf8_lossy(&output.stdout);
        let asked: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("flock_kube_requests_total")).collect();
        row("requests of a real agent at its start", &asked.join(", "));
        row("the same of one of the others", &agents.asked());
    }

    fn each(&self, count: usize, work: impl Fn(usize) + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= count {
                            break;
                        }
                        work(n);
                    }
                });
            }
        });
    }

    fn write(&self, method: Method, path: &str, content: &str, body: &Value) -> Value {
        let answer = self.admin.send(method, path, content, body.to_string().as_bytes()).expect("an answer");
        assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// A pod as a scheduler and kubelet make it: bound, being made, running, ready.
    fn start(&self, n: usize) {
        let path = pods(n);
        self.write(Method::Post, &path, "application/json", &pod(n, self.nodes));
        let path = format!("{path}/{}/status", pod_name(n));
        let ready =
            |ready: &str| json!([{"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-26T12:00:00Z"}]);
        let ip = format!("10.{}.{}.{}", 64 + n / 65_536, n / 256 % 256, n % 256);
        let told = |phase: &str, is_ready: &str| json!({"status": {"phase": phase, "conditions": ready(is_ready), "podIP": ip, "podIPs": [{"ip": ip}]}});
        for status in [
            json!({"status": {"phase": "Pending", "conditions": ready("False")}}),
            told("Running", "False"),
            told("Running", "True"),
        ] {
            self.write(Method::Patch, &path, "application/merge-patch+json", &status);
        }
    }

    fn seen(&self) -> Server {
        Server::look(&self.admin)
    }

    /// What an edit of so many NodeConfigs costs, each.
    fn edit(&self, what: &str, count: usize, spec: fn(usize) -> Value) {
        let before = self.seen();
        for n in 0..count {
            let edit = json!({"spec": spec(n)});
            self.write(Method::Patch, &format!("{CONFIGS}/{}", name(n)), "application/merge-patch+json", &edit);
        }
        let reports = || self.seen().since(&before).of("PATCH", "nodeconfigs/status");
        self.wait("reports of the edits", || reports() >= count as f64);
        self.settle();
        row(what, &self.seen().since(&before).each(count));
    }

    /// Waits until each agent has written a report.
    fn wait_reported(&self, before: &Server) {
        self.wait("reports of all", || {
            self.seen().since(before).of("PATCH", "nodeconfigs/status") >= self.nodes as f64
        });
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        wait_at_most(
            LIMIT,
            || format!("waited in vain for {what}"),
            || {
                std::thread::sleep(Duration::from_secs(2));
                is_so().then_some(())
            },
        );
    }

    /// Waits until the server sends nothing any more for a while.
    fn settle(&self) {
        let mut before = self.seen().events;
        wait_at_most(
            LIMIT,
            || "events never end".into(),
            || {
                std::thread::sleep(Duration::from_secs(1));
                let now = self.seen().events;
                let is_still = now - before < 20.0;
                before = now;
                is_still.then_some(())
            },
        );
    }

    /// Waits until there are so many watches, but for those that have just ended in order.
    fn wait_watches(&self, count: usize) {
        self.wait(&format!("{count} watches"), || self.seen().watches as usize + 20 >= count);
    }
}

/// What the agent of this node says to the others.
fn peer(n: usize, uid: &str) -> Value {
    let owner = json!({"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "name": name(n), "uid": uid});
    let mut spec = config(&name(n), n)["spec"].clone();
    spec.as_object_mut().expect("an object").remove("peers");
    let hops = next_hops(n).map(|(address, local)| json!({"address": address, "linkLocal": local}));
    spec["nextHops"] = json!(hops);
    json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer",
        "metadata": {"name": name(n), "ownerReferences": [owner]}, "spec": spec,
    })
}

/// The addresses by which the node is reached, with the link-local one of their link.
pub fn next_hops(n: usize) -> [(String, String); 2] {
    let local = format!("fe80::{:x}", n + 1);
    [(format!("2001:db8:9::{:x}", n + 16), local.clone()), (format!("192.0.{}.{}", 3 + n / 250, n % 250 + 1), local)]
}

fn config(name: &str, n: usize) -> Value {
    json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "metadata": {"name": name},
        "spec": {
            "cidr6": format!("2001:db8:1{n:03x}::/64"), "cidr4": format!("10.{}.{}.0/24", 64 + n / 250, n % 250),
            "peers": "none",
        },
    })
}

fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": "front"}}}]}]},
    })
}

fn pods(n: usize) -> String {
    format!("/api/v1/namespaces/ns-{}/pods", n % NAMESPACES)
}

fn pod_name(n: usize) -> String {
    format!("app-6d5f8c7b9d-{n:05}")
}

/// A pod of some two kilobytes.
fn pod(n: usize, nodes: usize) -> Value {
    let env: Vec<Value> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": "http://service.example:8080/path"})).collect();
    let tier = ["front", "back", "data", "jobs"][n % 4];
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": pod_name(n), "labels": {"app": format!("app-{}", n % 40), "tier": tier, "late": if n < PODS { "no" } else { "yes" }, "pod-template-hash": "6d5f8c7b9d"},
            "annotations": {"prometheus.io/scrape": "true", "checksum/config": "0123456789abcdef0123456789abcdef0123456789abcdef"},
        },
        "spec": {
            "nodeName": name(n % nodes),
            "containers": [{"name": "app", "image": "registry.example/team/app:1", "env": env, "ports": [{"name": "http", "containerPort": 8080}]}],
        },
    })
}

fn eprintln_line(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").ok();
}
