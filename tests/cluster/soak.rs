//! The soak of a cluster: `SOAK_MINUTES=60 make soak-cluster`. Pods come and go on both nodes without a pause, and something is
//! killed, taken away or forbidden again and again. After each time, both nodes are compared by the oracle, and a prober, who knows
//! who should reach whom, asks all of them. Every decision comes from one seed, which is printed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::asking::PORT;
use crate::cluster::{Cluster, Ground, Pod};
use crate::faults::{kill_api, netns, under_churn};
use crate::installation::Installation;
use crate::node::Proxy;
use crate::pods::of_family;
use crate::support::dice::Dice;
use crate::support::probe::{Echo, Probe};
use crate::workload::{pod, service, set};
use crate::{dns, joining};

/// Who stays, two on each node.
const RESIDENTS: [(&str, &str); 4] = [("ann", "node1"), ("bob", "node1"), ("cid", "node2"), ("dot", "node2")];

/// What happens, each as often as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// A daemon is killed on one node.
    Kill(&'static str),
    /// The API server is killed and comes back.
    ApiServer,
    /// flock's tables of the packet filter are taken away on a node, as a firewall's service does it.
    Flush,
    /// A policy says that those on the second node hear each other, and nobody else.
    Wall,
    /// It is taken away.
    NoWall,
    /// A node is drained of those who come and go, and takes them again.
    Drain,
}

const TROUBLE: [Trouble; 9] = [
    Trouble::Kill("kubelet"),
    Trouble::Kill("containerd"),
    Trouble::Kill("flock-agent"),
    Trouble::Kill("kube-proxy"),
    Trouble::ApiServer,
    Trouble::Flush,
    Trouble::Wall,
    Trouble::NoWall,
    Trouble::Drain,
];

/// Runs it, and prints a verdict.
pub(crate) fn run() -> ExitCode {
    let number = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?}: a whole number is wanted, such as 60")))
    };
    let minutes: u64 = number("SOAK_MINUTES").unwrap_or(60);
    let seed = number("SOAK_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
    });
    println!("soak of a cluster, {minutes} minutes, SOAK_SEED={seed}");
    let ground = Ground::new();
    let mut cluster = Cluster::start(&ground, Proxy::Nftables, Installation::DaemonSet);
    joining::ready(&mut cluster);
    dns::found(&mut cluster);
    let mut soak = Soak::begin(cluster, Dice::new(seed, 0));
    let deadline = Instant::now() + Duration::from_secs(60 * minutes);
    while Instant::now() < deadline {
        if let Err(finding) = catch_unwind(AssertUnwindSafe(|| soak.round())) {
            soak.cluster.tell();
            resume_unwind(finding);
        }
    }
    soak.end();
    println!("verdict: sound");
    ExitCode::SUCCESS
}

struct Soak<'a> {
    cluster: Cluster<'a>,
    residents: BTreeMap<&'static str, Pod>,
    dice: Dice,
    /// Whether those on the second node hear nobody of the first.
    walled: bool,
    counts: BTreeMap<Trouble, usize>,
    asked: usize,
    pods: AtomicUsize,
    probe: Probe,
    _echo: Echo,
}

impl<'a> Soak<'a> {
    fn begin(cluster: Cluster<'a>, dice: Dice) -> Soak<'a> {
        let resident =
            |(name, node): (&'static str, &str)| pod(name, if node == "node1" { "one" } else { "two" }, node);
        cluster.apply(&RESIDENTS.map(resident));
        cluster.apply(&[set("Deployment", "churn", 6), service("first", "one", json!({}))]);
        let residents: BTreeMap<&str, Pod> = RESIDENTS.map(|(name, _)| (name, cluster.wait_ready(name))).into();
        // Of those whom no wall is between.
        let (from, to) = (&residents["dot"], &residents["ann"]);
        let echo = Echo::start(&netns(cluster.node(&to.node), "ann"), "ann", &to.ips);
        let probe = Probe::start(&netns(cluster.node(&from.node), "dot"), &to.ips, 1, Duration::from_millis(10));
        Soak {
            cluster,
            residents,
            dice,
            walled: false,
            counts: BTreeMap::new(),
            asked: 0,
            pods: AtomicUsize::new(0),
            probe,
            _echo: echo,
        }
    }

    /// One thing happens while pods come and go; then all pause, and everything is compared.
    fn round(&mut self) {
        let trouble = *self.dice.pick(&TROUBLE);
        let node = self.dice.below(2);
        *self.counts.entry(trouble).or_default() += 1;
        println!("{trouble:?} at node{}", node + 1);
        under_churn(&self.cluster, &self.pods, |_| self.meet(trouble, node));
        if trouble == Trouble::ApiServer {
            self.cluster.plane.stop_api("KILL");
            self.cluster.plane.start_api();
        }
        self.walled = match trouble {
            Trouble::Wall => true,
            Trouble::NoWall => false,
            _ => self.walled,
        };
        self.cluster.plane.wait("rollout status deployment/churn");
        self.cluster.nodes.iter().for_each(|node| node.host.assert_sound("in a pause"));
        self.ask_all();
    }

    fn meet(&self, trouble: Trouble, node: usize) {
        let (plane, node) = (&self.cluster.plane, &self.cluster.nodes[node]);
        match trouble {
            Trouble::Kill(daemon) => node.kill(daemon),
            Trouble::ApiServer => kill_api(&self.cluster),
            Trouble::Flush => drop(node.host.script(
                "nft list tables | grep -w flock | while read -r table; do nft \"flush $table\"; nft \"delete $table\"; done",
            )),
            Trouble::Wall => self.cluster.apply(&[json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "wall"},
                "spec": {"podSelector": {"matchLabels": {"app": "two"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "two"}}}]}]},
            })]),
            Trouble::NoWall => drop(plane.run("delete networkpolicy wall --ignore-not-found")),
            Trouble::Drain => {
                plane.wait(&format!("drain {} --ignore-daemonsets --force --pod-selector=app=churn", node.name));
                plane.run(&format!("uncordon {}", node.name));
            }
        }
    }

    /// Each asks each, and a Service, in both families, under the addresses that all have now: containerd and kubelet may have made a
    /// sandbox anew.
    fn ask_all(&mut self) {
        for (name, resident) in &mut self.residents {
            let now = self.cluster.wait_ready(name);
            if now != *resident {
                println!("{name} has {:?} in place of {:?}", now.ips, resident.ips);
                *resident = now;
            }
        }
        for v6 in [false, true] {
            let service = self.cluster.cluster_ip("first", v6).to_string();
            for (from_name, from) in &self.residents {
                for (to_name, to) in &self.residents {
                    let may = !self.walled || to.node == "node1" || from.node == "node2";
                    let expected: &[&str] = if may { &[to_name] } else { &[] };
                    self.ask((from_name, from), &of_family(&to.ips, v6).to_string(), PORT, expected);
                    self.asked += 1;
                }
                self.ask((from_name, from), &service, 80, &["ann", "bob"]);
                self.asked += 1;
            }
        }
    }

    /// One of these answers, or nobody where there are none. What was decided a moment ago holds within the time that somebody needs to
    /// hear of it.
    fn ask(&self, (name, from): (&str, &Pod), ip: &str, port: u16, expected: &[&str]) {
        self.cluster.wait(&format!("{name} to hear {expected:?} from {ip}"), || {
            match self.cluster.pod_asks(from, ip, port, "hostname") {
                Ok(who) => expected.contains(&who.as_str()).then_some(()),
                Err(_) => expected.is_empty().then_some(()),
            }
        });
    }

    /// All goes, and nothing is left.
    fn end(mut self) {
        let tally = self.probe.finish();
        println!("{} packets between two pods, {} lost", tally.sent, tally.lost.len());
        let times: Vec<u128> = tally.lost.iter().map(Duration::as_millis).take(50).collect();
        assert!(tally.lost.is_empty(), "lost at {times:?} ms");
        println!("{:?}", self.counts);
        println!(
            "{} times six pods were replaced, {} questions answered as they should be",
            self.pods.into_inner(),
            self.asked
        );
        joining::empty(&mut self.cluster);
    }
}
