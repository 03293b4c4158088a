//! What happens to nodes: they are drained, lose processes and power, and get new versions, while pods come and go.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Pod};
use crate::installation::{Installation, load};
use crate::node::Node;
use crate::support::probe::{Echo, Probe};
use crate::support::waiting::wait_for;
use crate::workload::{pod, set};

pub(crate) fn drain(cluster: &mut Cluster<'_>) {
    cluster.apply(&[set("Deployment", "moves", 6)]);
    cluster.plane.wait("rollout status deployment/moves");
    let node = &cluster.nodes[1];
    cluster.plane.wait(&format!("drain {} --ignore-daemonsets --force", node.name));
    wait_for("the last pod to go", || node.host.flock_links().is_empty().then_some(()));
    node.host.assert_sound("after the drain");
    assert_eq!(node.host.leases(), Vec::new(), "leases are left");
    cluster.plane.wait("rollout status deployment/moves");
    assert!(cluster.ready("app=moves").values().all(|pod| pod.node == "node1"));
    cluster.plane.run(&format!("uncordon {}", node.name));
    cluster.apply(&[pod("back", "back", &node.name)]);
    cluster.wait_ready("back");
    cluster.plane.wait("delete deployment moves --cascade=foreground");
    cluster.plane.wait("delete pod back");
}

/// A Deployment whose pods are replaced all the time, and how often they were.
fn churn(cluster: &Cluster<'_>, over: &AtomicBool, rounds: &AtomicUsize) {
    while !over.load(Ordering::Relaxed) {
        // Whatever is away is told so by an error, and asked again.
        cluster.plane.kubectl(&["rollout", "restart", "deployment/churn"]);
        let status = ["rollout", "status", "deployment/churn", "--timeout=20s", "--request-timeout=0"];
        if cluster.plane.kubectl(&status).status.success() {
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The pod's network namespace, on its node.
pub(crate) fn netns(node: &Node, name: &str) -> std::path::PathBuf {
    let leases = node.host.leases();
    let lease = leases.iter().find(|lease| lease.pod.as_ref().is_some_and(|pod| pod.name == name)).expect("a lease");
    node.host.path(&lease.netns)
}

pub(crate) fn die(cluster: &mut Cluster<'_>) {
    cluster.apply(&[pod("talks", "talks", "node1"), pod("answers", "answers", "node2"), set("Deployment", "churn", 6)]);
    let [talks, answers]: [Pod; 2] = ["talks", "answers"].map(|name| cluster.wait_ready(name));
    cluster.plane.wait("rollout status deployment/churn");
    let _echo = Echo::start(&netns(cluster.node(&answers.node), "answers"), "answers", &answers.ips);
    let probe = Probe::start(&netns(cluster.node(&talks.node), "talks"), &answers.ips, 1, Duration::from_millis(5));
    probe.wait_answers(100);
    let rounds = AtomicUsize::new(0);
    for who in ["kubelet", "containerd", "flock-agent", "kube-apiserver"] {
        let before = rounds.load(Ordering::Relaxed);
        under_churn(cluster, &rounds, |cluster| {
            if who == "kube-apiserver" {
                kill_api(cluster);
            } else {
                cluster.nodes.iter().for_each(|node| node.kill(who));
            }
        });
        if who == "kube-apiserver" {
            cluster.plane.stop_api("KILL");
            cluster.plane.start_api();
        }
        under_churn(cluster, &rounds, |_| ());
        println!("{who} was killed, and {} rounds of six pods went by", rounds.load(Ordering::Relaxed) - before);
    }
    let tally = probe.finish();
    assert!(tally.lost.is_empty(), "{tally:?}");
    cluster.plane.wait("delete deployment churn --cascade=foreground");
    cluster.plane.wait("delete pod talks answers");
    cluster.nodes.iter().for_each(|node| node.host.assert_sound("after all of it"));
}

/// The API server is gone; who has the cluster to itself starts it again.
pub(crate) fn kill_api(cluster: &Cluster<'_>) {
    cluster.plane.signal_api("KILL");
    wait_for("its end", || (!cluster.plane.kubectl(&["version"]).status.success()).then_some(()));
}

/// Replaces pods, waits for a whole round of it, and does this amid the next one.
pub(crate) fn under_churn(cluster: &Cluster<'_>, rounds: &AtomicUsize, then: impl FnOnce(&Cluster<'_>)) {
    let over = AtomicBool::new(false);
    let before = rounds.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| churn(cluster, &over, rounds));
        let _over = Over(&over);
        cluster.wait("pods to be replaced", || (rounds.load(Ordering::Relaxed) > before).then_some(()));
        then(cluster);
    });
}

/// Ends the churn also when the story fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn reboot(cluster: &mut Cluster<'_>) {
    cluster.apply(&[pod("stays", "stays", "node1"), pod("restarts", "restarts", "node2")]);
    let [stays, before] = ["stays", "restarts"].map(|name| cluster.wait_ready(name));
    let ground = cluster.ground;
    cluster.nodes[1].reboot(&ground.switch);
    // kubelet finds its pod without a sandbox, and makes one.
    let after = cluster.wait("the pod on the node that came back", || {
        let pods = cluster.ready("app=restarts");
        let found = pods.get("restarts")?.clone();
        let answers = cluster.pod_asks(&stays, &found.ips[0].to_string(), crate::asking::PORT, "hostname");
        (answers.as_deref() == Ok("restarts")).then_some(found)
    });
    println!("{:?} before, {:?} after", before.ips, after.ips);
    cluster.wait("the node to be ready", || cluster.is_ready("node2").then_some(()));
    cluster.nodes[1].host.assert_sound("after the boot");
    cluster.plane.wait("delete pod stays restarts");
}

/// The longest time for which nobody listened on this node until it was `over`.
fn longest_silence(node: &Node, over: &AtomicBool) -> Duration {
    let socket = node.host.path("/run/flock/flock.sock");
    let (mut heard, mut longest) = (Instant::now(), Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        longest = longest.max(heard.elapsed());
        if UnixStream::connect(&socket).is_ok() {
            heard = Instant::now();
        }
        thread::sleep(Duration::from_millis(50));
    }
    longest
}

pub(crate) fn roll_out(cluster: &mut Cluster<'_>) {
    assert_eq!(cluster.installation, Installation::DaemonSet);
    load(cluster, "next");
    cluster.apply(&[set("Deployment", "churn", 6)]);
    cluster.plane.wait("rollout status deployment/churn");
    let failed = cluster.failed_sandboxes();
    let rounds = AtomicUsize::new(0);
    let mut silence = Duration::ZERO;
    under_churn(cluster, &rounds, |cluster| {
        let over = AtomicBool::new(false);
        silence = thread::scope(|scope| {
            let listening = cluster.nodes.iter().map(|node| scope.spawn(|| longest_silence(node, &over)));
            let listening: Vec<_> = listening.collect();
            let until = Over(&over);
            let image = "flock.fritzlab.net/flock:next";
            cluster.plane.run(&format!("-n kube-system set image daemonset/flock-agent agent={image} plugin={image}"));
            cluster.plane.wait("-n kube-system rollout status daemonset/flock-agent");
            drop(until);
            listening.into_iter().map(|thread| thread.join().expect("no panic")).max().expect("two nodes")
        });
    });
    under_churn(cluster, &rounds, |_| ());
    println!("a node was without an agent for {} ms at most", silence.as_millis());
    // An ADD waits five seconds for the next agent, and kubelet repeats it where the next container took longer.
    let waited = |event: &String| silence > Duration::from_millis(4500) && event.contains("flock-agent does not ");
    let since = cluster.failed_sandboxes().into_iter().filter(|event| !failed.contains(event));
    assert_eq!(since.filter(|event| !waited(event)).collect::<Vec<_>>(), Vec::<String>::new(), "no sandbox failed");
    cluster.plane.wait("delete deployment churn --cascade=foreground");
}
