//! How fast routes are where they should be, and what is lost meanwhile: two nodes, a router and a client, with BIRD and a real API
//! server. Run by `make bench-routes`.
//!
//! Everything is measured at the router's kernel and with packets, in one run; nothing is asserted. Times include the other
//! programs of this machine, whose load the first line says: read medians.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]

#[path = "../tests/routes/network.rs"]
mod network;
#[path = "../tests/routes/router.rs"]
mod router;
#[path = "../tests/routes/speaker.rs"]
mod speaker;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use flock::kube::client::{Client, Watch};
use flock::kube::kind::Form;
use flock::kube::kubeconfig::from_file;
use serde_json::{Value, json};

use crate::network::{ANYCAST, Network, Node, RANGES, ip};
use crate::speaker::{EXTRA, Speaker, spec};
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::fib::RouteEvent;
use crate::support::inside::Inside as _;
use crate::support::moment::moment;
use crate::support::probe::{Echo, Probe};
use crate::support::programs::FLOCK_AGENT;
use crate::support::routers::Debian;
use crate::support::waiting::{PATIENCE, wait_for};

/// Pods that come and go, one after the other.
const ROUNDS: usize = 100;

/// Further nodes of the cluster.
const PEERS: usize = 1000;

/// The table of announcements.
const ANNOUNCED: u32 = 102;

/// The table by which packets go.
const MAIN: u32 = 254;

fn main() {
    println!("{}", moment());
    println!("| quantity | target | measured |\n|---|---|---|");
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, fn()); 7] = [
        ("one_by_one", one_by_one),
        ("drain", drain),
        ("restarts", restarts),
        ("link_gone", link_gone),
        ("cut_off", cut_off),
        ("peers", peers),
        ("add_cost", add_cost),
    ];
    let meant = |(name, _): &&(&str, fn())| named.is_empty() || named.iter().any(|named| named == name);
    parts.iter().filter(meant).for_each(|(_, part)| part());
}

fn row(quantity: &str, target: &str, measured: &str) {
    println!("| {quantity} | {target} | {measured} |");
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// Median and 99th percentile.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("{} / {}", ms(times[times.len() / 2]), ms(times[times.len() * 99 / 100]))
}

/// A pod with an address of its own comes and goes.
fn one_by_one() {
    let network = Network::new();
    let _router = router::bird(&network);
    let speaker = Speaker::start(&network.one, spec(json!({})));
    speaker.node.attach("first", &[]);
    network.wait_learned(&RANGES[..1].iter().chain(&RANGES[2..3]).copied().collect::<Vec<_>>());
    let (here, there) = (network.one.host.route_events().told(), network.router.route_events().told());
    let address = ip("2001:db8:f::7");
    let heard = |events: &Receiver<RouteEvent>, gone: bool, tables: &[u32]| loop {
        let event = events.recv_timeout(PATIENCE).expect("the route");
        if event.to == address && event.gone == gone && tables.contains(&event.table) {
            return event.at;
        }
    };
    let (mut announce, mut withdraw, mut add, mut del) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let pod = network.one.host.pod("web");
    for _ in 0..ROUNDS {
        let began = Instant::now();
        network.one.host.add(&pod).annotations(&[("addresses", "2001:db8:f::7")]).result();
        let (from, to) = (heard(&here, false, &[ANNOUNCED]), heard(&there, false, &[MAIN]));
        announce.push(to.saturating_duration_since(from));
        add.push(to - began);
        let began = Instant::now();
        network.one.host.del(&pod).done();
        let (from, to) = (heard(&here, true, &[ANNOUNCED]), heard(&there, true, &[MAIN]));
        withdraw.push(to.saturating_duration_since(from));
        del.push(to - began);
    }
    row("announce: table 102 to the router's kernel, p50 / p99", "1 ms / 10 ms", &spread(announce));
    row("withdraw: table 102 to the router's kernel, p50 / p99", "1 ms / 10 ms", &spread(withdraw));
    row("ADD, from the plugin's start to the router's kernel, p50 / p99", "", &spread(add));
    row("DEL, from the plugin's start to the router's kernel, p50 / p99", "", &spread(del));
}

/// Two nodes with an anycast address.
fn pair(network: &Network, peer: Value) -> ([Speaker<'_>; 2], Vec<Echo>) {
    let speakers = [&network.one, &network.two].map(|node| Speaker::start(node, spec(peer.clone())));
    let echo = |speaker: &Speaker<'_>| {
        let (pod, _) = speaker.node.attach("any", &[("anycast", &ANYCAST.join(","))]);
        Echo::start(&pod.netns(), &speaker.node.name, &ANYCAST.map(ip))
    };
    let echoes = speakers.iter().map(echo).collect();
    network.wait_anycast("node1 and node2");
    (speakers, echoes)
}

fn flows(network: &Network, per_second: u32) -> Probe {
    let probe = Probe::start(&network.client.netns(), &ANYCAST.map(ip), 20, Duration::from_secs(1) / per_second);
    probe.wait_answers(u64::from(per_second) / 2);
    probe
}

fn drain() {
    [1_000, 10_000].into_iter().for_each(drain_at);
}

fn drain_at(per_second: u32) {
    let network = Network::new();
    let _router = router::bird(&network);
    let _pair = pair(&network, json!({}));
    let second = u64::from(per_second);
    let calm = flows(&network, per_second);
    calm.wait_answers(second);
    let calm = calm.finish();
    let probe = flows(&network, per_second);
    network.one.host.run(&format!("{FLOCK_AGENT} withdraw"));
    probe.wait_only(&["node2"], second / 4);
    let tally = probe.finish();
    row(
        &format!("drain of a node, lost at {per_second} packets/s, as far as this machine sends them"),
        "0",
        &format!("{} of {} (without a drain {} of {})", tally.lost.len(), tally.sent, calm.lost.len(), calm.sent),
    );
}

fn restarts() {
    let network = Network::new();
    let _router = router::bird(&network);
    let ([mut one, _two], _echoes) = pair(&network, json!({}));
    let probe = flows(&network, 1000);
    one.bird.signal("KILL");
    one.bird.wait();
    one.bird.start(&["-R"]);
    one.bird.wait_recovered(1);
    let tally = probe.finish();
    row("restart of BIRD after kill -9, lost", "0", &format!("{} of {}", tally.lost.len(), tally.sent));
    let (probe, events) = (flows(&network, 1000), network.router.route_events());
    one.agent.kill();
    let _agent = Speaker::agent(one.node, spec(json!({})));
    probe.wait_answers(2000);
    let tally = probe.finish();
    let events = events.drain().len();
    row(
        "restart of the agent after kill -9, lost",
        "0",
        &format!("{} of {}, {events} events at the router", tally.lost.len(), tally.sent),
    );
}

fn link_gone() {
    let (mut whole, mut after) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let network = Network::new();
        let _router = router::bird(&network);
        let ([one, _two], _echoes) = pair(&network, json!({}));
        let link = one.link_of("any");
        let (here, there) = (network.one.host.route_events().told(), network.router.route_events().told());
        let heard = |events: &Receiver<RouteEvent>, table: u32| loop {
            let event = events.recv_timeout(PATIENCE).expect("the route");
            if event.to == ip(ANYCAST[0]) && event.table == table {
                return event.at;
            }
        };
        one.agent.kill();
        let began = Instant::now();
        network.one.host.run(&format!("ip link del {link}"));
        let (from, to) = (heard(&here, ANNOUNCED), heard(&there, MAIN));
        whole.push(to - began);
        after.push(to.saturating_duration_since(from));
    }
    [&mut whole, &mut after].into_iter().for_each(|times| times.sort_unstable());
    row(
        "link of a pod gone, agent dead: the kernel's announcement of it to the router's kernel",
        "50 ms",
        &of_five(&after),
    );
    row("the same, from the start of `ip link del`", "", &of_five(&whole));
}

fn of_five(times: &[Duration]) -> String {
    format!("{}, of 5 the slowest {}", ms(times[2]), ms(times[4]))
}

fn cut_off() {
    let network = Network::new();
    let _router = router::bird_with_bfd(&network);
    let _pair = pair(&network, json!({"bfd": {"interval": 50, "multiplier": 3}}));
    let mut times = Vec::new();
    for _ in 0..5 {
        let events = network.router.route_events();
        let began = Instant::now();
        network.switch.cut(&network.one.host);
        times.push(events.wait("the route", |event| ANYCAST.map(ip).contains(&event.to)).at - began);
        network.switch.mend(&network.one.host);
        network.wait_anycast("node1 and node2");
    }
    times.sort_unstable();
    row("node cut off, BFD 50 ms x 3", "200 ms", &of_five(&times));
}

fn peers() {
    let network = Network::new();
    let node = &network.one;
    let plane = ControlPlane::start_at(&network.router, "192.0.2.1");
    let kubeconfig = plane.kubeconfig_on(&node.host);
    plane.apply(&node.config(json!({"extraPrefixes": EXTRA}))).expect("accepted");
    let start = || node.host.agent().node(&node.name).config(None).kubeconfig(&kubeconfig).start();
    let agent = start();
    agent.wait_log("NodeConfig in force");
    node.attach("web", &[]);
    ready(node, &plane, &kubeconfig);
    let before = rss_kib(agent.pid());
    make_peers(&network, &plane);
    wait_for("all routes", || (routes_to_others(node) >= 2 * PEERS).then_some(()));
    let after = rss_kib(agent.pid());
    let one = json!({"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer", "metadata": {"name": "late"},
        "spec": {"cidr4": "10.99.0.0/24", "nextHops": [{"address": "192.0.2.201"}]}});
    let told = api_events(node, &kubeconfig, "/apis/flock.fritzlab.net/v1alpha1/nodepeers?watch=1");
    event_with(&told, "peer999");
    let events = node.host.route_events();
    plane.apply(&one.to_string()).expect("accepted");
    let said = event_with(&told, "10.99.0.0");
    let at = events.wait("the late one", |event| event.to == ip("10.99.0.0")).at;
    row("a peer node appears: routed, after the API server's event", "100 ms", &ms(at.saturating_duration_since(said)));
    agent.kill();
    for family in ["-4", "-6"] {
        let shown = node.host.run(&format!("ip {family} route show proto 102"));
        let lines = shown.lines().filter(|line| line.contains(" via "));
        let batch: String = lines.map(|line| format!("route del {line}\n")).collect();
        node.host.write("/run/batch", &batch);
        node.host.run(&format!("ip {family} -batch /run/batch"));
    }
    let events = node.host.route_events();
    let began = Instant::now();
    let agent = start();
    // Pods come one after the other meanwhile, and once more in calm, to compare with.
    let pod = node.host.pod("meanwhile");
    let calls = |times: &mut dyn Iterator<Item = ()>| {
        let from = served(&agent).len();
        for () in times {
            node.host.add(&pod).annotations(&[]).result();
            node.host.del(&pod).done();
        }
        let mut times = served(&agent).split_off(from);
        times.sort_by(f64::total_cmp);
        times
    };
    let mut left = 2 * PEERS + 1;
    let mut last = began;
    let mut unfinished = std::iter::from_fn(|| {
        let made: Vec<_> = events.drain().into_iter().filter(|event| event.table == MAIN && !event.gone).collect();
        let of_others = made.iter().filter(|event| is_range_of_others(event.to));
        left = left.saturating_sub(of_others.inspect(|event| last = last.max(event.at)).count());
        (left > 0).then_some(())
    });
    let meanwhile = calls(&mut unfinished);
    let calm = calls(&mut std::iter::repeat_n((), 40));
    row(&format!("routes to {PEERS} peers from zero, from the agent's start"), "", &ms(last - began));
    let of = |times: &[f64]| match times.last() {
        Some(last) => format!("p50 {:.1} ms, slowest {last:.1} ms of {}", times[times.len() / 2], times.len()),
        None => "none".into(),
    };
    row("ADD meanwhile, as the agent counts", "some ms more", &format!("{}; in calm {}", of(&meanwhile), of(&calm)));
    row(
        &format!("memory of the agent: {PEERS} peers more"),
        "1 MB",
        &format!("{} KiB more than {before} KiB", after.saturating_sub(before)),
    );
    agent.stop();
}

/// Makes [`PEERS`] further nodes.
fn make_peers(network: &Network, plane: &ControlPlane<'_>) {
    let items: Vec<Value> = (0..PEERS)
        .map(|n| {
            json!({
                "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer", "metadata": {"name": format!("peer{n}")},
                "spec": {"cidr6": format!("2001:db8:2:{n:x}::/64"), "cidr4": format!("10.{}.{}.0/24", 30 + n / 250, n % 250),
                         "nextHops": [{"address": format!("2001:db8:a25::5:{n:x}")}, {"address": "192.0.2.200"}]},
            })
        })
        .collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    network.router.write("/run/k8s/list.json", &list.to_string());
    plane.run("create -f /run/k8s/list.json");
}

fn is_range_of_others(to: std::net::IpAddr) -> bool {
    let text = to.to_string();
    text.starts_with("2001:db8:2:") || ["10.3", "10.99."].iter().any(|start| text.starts_with(start))
}

/// Number of routes to other nodes.
fn routes_to_others(node: &Node) -> usize {
    let shown = node.host.run("ip -6 route show proto 102") + &node.host.run("ip -4 route show proto 102");
    shown.lines().filter(|line| line.contains(" via ")).count()
}

/// The time that each ADD took so far, in milliseconds, as the agent tells it.
fn served(agent: &Agent<'_>) -> Vec<f64> {
    let log = agent.log();
    let adds = log.lines().filter(|line| line.contains("request served") && line.contains("op=ADD"));
    let took = |line: &str| line.split(" ms=").nth(1)?.split_whitespace().next()?.parse().ok();
    adds.map(|line| took(line).expect("a time")).collect()
}

/// What a watch of `path` says, beside the agent's: each event with the moment at which it came.
fn api_events(node: &Node, kubeconfig: &str, path: &'static str) -> Receiver<(Instant, String)> {
    let (netns, file) = (node.host.netns(), node.host.path(kubeconfig));
    let (send, told) = channel();
    // It ends with the API server.
    std::thread::spawn(move || {
        let watch = || {
            let client = Client::new(&from_file(&file).expect("readable"), "bench").expect("usable");
            let Watch::Stream(mut lines) = client.watch(path, Form::Whole, PATIENCE * 10).expect("an answer") else {
                panic!("refused")
            };
            while let Ok(Some(line)) = lines.next() {
                send.send((Instant::now(), String::from_utf8(line).expect("text"))).ok();
            }
        };
        Netns::open(&netns).expect("the host's namespace").run(watch).expect("entered");
    });
    told
}

/// When the first event came that has this text.
fn event_with(told: &Receiver<(Instant, String)>, text: &str) -> Instant {
    loop {
        let (at, event) = told.recv_timeout(PATIENCE).expect("the event");
        if event.contains(text) {
            return at;
        }
    }
}

/// ADD on a node that has everything, and on one that has nothing of it, in turn.
fn add_cost() {
    let network = Network::new();
    let _router = router::bird(&network);
    let plane = ControlPlane::start_at(&network.router, "192.0.2.1");
    make_peers(&network, &plane);
    let (bare, full) = (&network.one, &network.two);
    let kubeconfig = plane.kubeconfig_on(&full.host);
    let mut spec = spec(json!({}));
    spec["peers"] = json!("direct");
    spec["proxyNeighbours"] = json!("eth0");
    plane.apply(&full.config(spec)).expect("accepted");
    full.host.run("mkdir -p /run/flock/bird");
    let args = ["--bird-config", speaker::CONFIG, "--bird-socket", speaker::SOCKET];
    let agent = full.host.agent().node(&full.name).config(None).kubeconfig(&kubeconfig).args(&args).start();
    agent.wait_log("NodeConfig in force");
    wait_for("the configuration of BIRD", || full.host.path(speaker::CONFIG).exists().then_some(()));
    let mut bird = full.host.bird_of(Debian::Bookworm, speaker::CONFIG, speaker::SOCKET);
    bird.start(&[]);
    let nodes = [(bare, bare.start(json!({"extraPrefixes": EXTRA}))), (full, agent)];
    nodes.iter().for_each(|(node, _)| _ = node.attach("first", &[]));
    wait_for("all routes", || (routes_to_others(full) >= 2 * PEERS).then_some(()));
    let pods = nodes.each_ref().map(|(node, _)| node.host.pod("one"));
    for (what, annotations) in [("a pod", &[][..]), ("a pod with an anycast address", &[("anycast", ANYCAST[0])][..])] {
        let from = nodes.each_ref().map(|(_, agent)| served(agent).len());
        for round in 0..2 * ROUNDS {
            for side in [round % 2, 1 - round % 2] {
                let host = &nodes[side].0.host;
                host.add(&pods[side]).annotations(annotations).result();
                host.del(&pods[side]).done();
            }
        }
        let [bare, full] = [0, 1].map(|side| {
            let mut times = served(&nodes[side].1).split_off(from[side]);
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        });
        let measured = format!("{bare:.2} ms, and {full:.2} ms: {:+.1} %", 100.0 * (full / bare - 1.0));
        row(
            &format!(
                "ADD of {what} without and with bgp, proxyNeighbours and {PEERS} direct peers, as the agents count, p50"
            ),
            "5 % more",
            &measured,
        );
    }
}

/// A pod with an anycast address is said to be Ready, and not to be so.
fn ready(node: &Node, plane: &ControlPlane<'_>, kubeconfig: &str) {
    let annotations = json!({"flock.fritzlab.net/anycast": ANYCAST[0]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "any", "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": node.name, "containers": [{"name": "c", "image": "registry.example/web:1"}]}});
    plane.apply(&pod.to_string()).expect("accepted");
    let (attached, _) = node.attach("any", &[("anycast", ANYCAST[0])]);
    let told = api_events(node, kubeconfig, "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dnode1");
    let events = node.host.route_events().told();
    let mut times = Vec::new();
    for round in 0..40 {
        let is_ready = if round % 2 == 0 { "True" } else { "False" };
        // The reason tells the events of the rounds apart.
        let reason = format!("Round{round}.");
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": is_ready, "reason": "Said", "message": reason}]}});
        let args = ["patch", "pod", "any", "--subresource=status", "--type=merge", "-p", &status.to_string()];
        let patched = plane.kubectl(&args);
        assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stderr));
        let said = event_with(&told, &reason);
        let at = loop {
            let event = events.recv_timeout(PATIENCE).expect("the route");
            if event.to == ip(ANYCAST[0]) && event.table == ANNOUNCED {
                break event.at;
            }
        };
        times.push(at.saturating_duration_since(said));
    }
    node.host.del(&attached).done();
    row(
        "a pod becomes Ready, or is not so any more: in table 102, after the API server's event, p50 / slowest of 40",
        "50 ms",
        &spread(times),
    );
}

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
