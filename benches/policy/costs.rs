//! What it costs to make a pod, what an agent remembers, and what passes behind a revocation.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::api::Kind;
use crate::cluster::{self, About, POLICIES};
use crate::node::{Checks, Node, calm, host, in_netns, names};
use crate::support::agent::Agent;
use crate::support::waiting::{PATIENCE, wait_for};
use crate::{median, ms, row};

/// Pods that are there while others come and go.
const STANDING: usize = 250;
/// Pods that come and go, on each node.
const CALLS: usize = 200;
const PODS: usize = 110;
const PEERS: usize = 10_000;
/// Revocations, in each direction.
const REVOCATIONS: usize = 10;

/// ADD on a node that has all of it, and on one that has none, in turn.
pub fn add() {
    let hosts = [host(), host()];
    let all = [("sourceCheck false, mode none", Checks::Nothing, 0), ("all of it", Checks::All, PEERS)];
    let mut nodes: Vec<Node<'_>> = Vec::new();
    for (host, (_, checks, peers)) in hosts.iter().zip(all) {
        // Those behind the standing ones come and go, each once: the address of one that is gone costs more.
        let mut node = Node::start(host, checks, &names(STANDING + CALLS), peers, About::Workloads);
        node.attach(STANDING);
        node.wait_peers(peers);
        nodes.push(node);
    }
    let from: Vec<usize> = nodes.iter().map(|node| served(node.agent()).len()).collect();
    let mut calls = [Vec::new(), Vec::new()];
    for round in 0..CALLS {
        for side in [round % 2, 1 - round % 2] {
            let node = &nodes[side];
            let (number, name) = (STANDING + round, format!("pod-{}", STANDING + round));
            let pod = node.host.pod(&name);
            calm();
            let outcome = node.host.add(&pod).kubernetes(&cluster::namespace(number), &name).run();
            outcome.succeeded();
            calls[side].push(ms(outcome.elapsed));
            node.host.del(&pod).kubernetes(&cluster::namespace(number), &name).done();
            pod.vanish();
        }
    }
    let calls = calls.map(median);
    let agents: Vec<f64> =
        nodes.iter().zip(from).map(|(node, from)| median(served(node.agent()).split_off(from))).collect();
    row(
        &format!(
            "ADD with {STANDING} pods there, as the agent counts, p50: without, and with all of it and {PEERS} peers"
        ),
        "+0.1 ms",
        &format!("{:.2} ms, {:.2} ms: {:+.2} ms", agents[0], agents[1], agents[1] - agents[0]),
    );
    row(
        "the same, the whole call of the plugin, p50",
        "",
        &format!("{:.2} ms, {:.2} ms: {:+.2} ms", calls[0], calls[1], calls[1] - calls[0]),
    );
}

/// The time that each ADD took so far, in milliseconds, as the agent tells it.
fn served(agent: &Agent<'_>) -> Vec<f64> {
    let log = agent.log();
    let adds = log.lines().filter(|line| line.contains("request served") && line.contains("op=ADD"));
    let took = |line: &str| line.split(" ms=").nth(1)?.split_whitespace().next()?.parse().ok();
    adds.map(|line| took(line).expect("a time")).collect()
}

/// A flow whose policy is taken away.
pub fn revocation() {
    let host = host();
    let mut node = Node::start(&host, Checks::All, &names(2), PEERS, About::Workloads);
    node.attach(2);
    node.wait_peers(PEERS);
    let policy = cluster::policy(&cluster::namespace(0), POLICIES - 1, About::Workloads);
    let changes = node.changes();
    for (what, is_answers) in [("questions", false), ("answers", true)] {
        let (mut after, mut sent_after, mut last) = (0, 0, Vec::new());
        for round in 0..REVOCATIONS {
            let flow = Flow::open(&node, round % 2, is_answers);
            let (told, at, sent, arrived) = flow.during(|| {
                changes.try_iter().for_each(drop);
                let told = node.api.tell(Kind::Policies, "DELETED", &policy);
                (told, changes.recv_timeout(PATIENCE).expect("a change of the table"))
            });
            sent_after += sent.iter().filter(|sent| **sent > at).count();
            let passed: Vec<Instant> = arrived.iter().map(|number| sent[*number]).collect();
            after += passed.iter().filter(|sent| **sent > at).count();
            assert!(passed.first().is_some_and(|first| *first < told), "it was allowed before");
            let end = passed.last().expect("some").saturating_duration_since(told);
            last.push(ms(end));
            node.api.tell(Kind::Policies, "ADDED", &policy);
            changes.recv_timeout(PATIENCE).expect("a change of the table");
        }
        row(
            &format!(
                "revocation, flow of {what} at 1 kHz: packets that still arrive behind the batch; the last one that does, after the server's event, p50"
            ),
            "0",
            &format!("{after} of {sent_after}; {:.1} ms", median(last)),
        );
    }
}

/// A flow between two pods, of which one alone sends.
struct Flow {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Flow {
    fn open(node: &Node<'_>, family: usize, is_answers: bool) -> Flow {
        let socket = |number: usize| {
            let ip: IpAddr = node.ips(number)[family];
            in_netns(&node.pods[number].0.netns(), || UdpSocket::bind((ip, 0)).expect("an own address"))
        };
        let (client, server) = (socket(0), socket(1));
        client.connect(server.local_addr().expect("bound")).expect("a route");
        server.connect(client.local_addr().expect("bound")).expect("a route");
        // What was allowed just now may not be in force yet.
        server.set_read_timeout(Some(Duration::from_millis(20))).expect("settable");
        wait_for("the first packet", || {
            client.send(&[0; 4]).expect("sent");
            server.recv(&mut [0; 8]).ok()
        });
        let (sender, receiver) = if is_answers { (server, client) } else { (client, server) };
        Flow { sender, receiver }
    }

    /// Does something in the middle of the flow. Returns the two moments that it says, those at which each packet was sent, and
    /// which of them arrived.
    fn during(self, work: impl FnOnce() -> (Instant, Instant)) -> (Instant, Instant, Vec<Instant>, Vec<usize>) {
        let over = AtomicBool::new(false);
        let Flow { sender, receiver } = self;
        receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("settable");
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let (began, mut sent) = (Instant::now(), Vec::new());
                while !over.load(Ordering::Relaxed) {
                    sent.push(Instant::now());
                    // A packet that is dropped on its way out is no error of the sender.
                    sender.send(&(sent.len() as u64 - 1).to_be_bytes()).ok();
                    let next = began + Duration::from_millis(sent.len() as u64);
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
                sent
            });
            let receiving = scope.spawn(|| {
                let (mut arrived, mut bytes) = (Vec::new(), [0; 8]);
                loop {
                    match receiver.recv(&mut bytes) {
                        Ok(4) => {}
                        Ok(_) => arrived.push(usize::try_from(u64::from_be_bytes(bytes)).expect("small")),
                        Err(_) if over.load(Ordering::Relaxed) => return arrived,
                        Err(_) => {}
                    }
                }
            });
            std::thread::sleep(Duration::from_millis(100));
            let (told, at) = work();
            std::thread::sleep(Duration::from_millis(200));
            over.store(true, Ordering::Relaxed);
            (told, at, sending.join().expect("no panic"), receiving.join().expect("no panic"))
        })
    }
}

/// What an agent holds that has started with its pods there and has nothing to do.
pub fn memory() {
    let host = host();
    let mut node = Node::start(&host, Checks::Nothing, &names(PODS), 0, About::All);
    node.attach(PODS);
    let mut rest = |checks: Checks, peers: usize| {
        node.api.have(Kind::Peers, (0..peers).map(cluster::peer).collect());
        node.restart(checks);
        if checks == Checks::All {
            wait_for("the watch of policies", || node.api.is_watched(Kind::Policies).then_some(()));
            node.wait_peers(peers.max(1) * usize::from(peers > 0));
        }
        at_rest(node.agent())
    };
    let bare = rest(Checks::Nothing, 0);
    row(
        &format!("memory of an agent at rest with {PODS} pods, sourceCheck false, mode none (most since its start)"),
        "",
        &kib(bare),
    );
    let mut more = |what: &str, target: &str, checks: Checks, peers: usize| {
        let (now, most) = rest(checks, peers);
        row(
            what,
            target,
            &format!("{} KiB more ({} KiB more)", now.saturating_sub(bare.0), most.saturating_sub(bare.1)),
        );
    };
    more("the same with the checks of sources", "", Checks::Source, 0);
    more(&format!("the same with {POLICIES} policies for each pod"), "", Checks::All, 0);
    more(&format!("the same with {PEERS} peer pods in one selection"), "8 MB more", Checks::All, PEERS);
}

fn kib((now, most): (u64, u64)) -> String {
    format!("{now} KiB ({most} KiB)")
}

/// What it holds when that does not change any more, and what it held at most, in KiB.
fn at_rest(agent: &Agent<'_>) -> (u64, u64) {
    let status = |key: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("readable");
        let line = status.lines().find(|line| line.starts_with(key)).expect("a line").to_owned();
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    };
    let mut before = 0;
    wait_for("rest", || {
        std::thread::sleep(Duration::from_secs(2));
        let now: u64 = status("VmRSS:");
        let same = now == before;
        before = now;
        same.then_some((now, status("VmHWM:")))
    })
}
