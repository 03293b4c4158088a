//! What changes of the table cost: one peer, and all of it, beside nothing else and beside a proxy with five thousand Services.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flock::kernel::nftables::socket::Nftables;
use flock::kube::policy_objects::PodReader;
use model::guard::FILTER;
use model::policy::compile::{Compiled, Settings, compile};
use model::policy::{Pod, PodKey, Subject, Treatment, World, names, spec};
use model::ruleset::Ruleset;
use model::ruleset::diff::{Change, diff};
use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::api::Kind;
use crate::cluster::{self, About};
use crate::node::{Checks, Node, calm, host, in_netns, names as pods_of};
use crate::support::host::Host;
use crate::support::waiting::PATIENCE;
use crate::{median, ms, row, spread};

const PODS: usize = 110;
const PEERS: usize = 5000;
const SERVICES: usize = 5000;
/// Peers that come and go, one after the other.
const COMING: usize = 100;
/// Whole tables that are made.
const TABLES: usize = 15;

/// A table such as a proxy of Services makes: a map of all, and for each three chains.
fn proxy() -> String {
    let mut text = "table ip kube-proxy {\nchain marked {\nmeta mark set 0x4000\n}\n".to_owned();
    let mut entries = Vec::new();
    for n in 0..SERVICES {
        let (high, low) = (n / 250, n % 250);
        for end in 0..2 {
            text += &format!(
                "chain endpoint-{n}-{end} {{\nip saddr 10.2{end}.{high}.{low} jump marked\nmeta l4proto tcp dnat to 10.2{end}.{high}.{low}:8080\n}}\n"
            );
        }
        text += &format!(
            "chain service-{n} {{\nnumgen random mod 2 vmap {{ 0 : goto endpoint-{n}-0, 1 : goto endpoint-{n}-1 }}\n}}\n"
        );
        entries.push(format!("10.96.{high}.{low} . tcp . 80 : goto service-{n}"));
    }
    text += &format!(
        "map services {{\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}\n",
        entries.join(", ")
    );
    text += "chain entry {\ntype nat hook prerouting priority -100\nip daddr . meta l4proto . th dport vmap @services\n}\n}\n";
    text
}

fn load_proxy(host: &Host) {
    host.write("/run/proxy.nft", &proxy());
    host.run("nft -f /run/proxy.nft");
}

/// `nft` in the host's namespace, without a program around it.
fn nft(host: &Host, arguments: &[&str]) -> Duration {
    in_netns(&host.netns(), || {
        let began = Instant::now();
        let output = Command::new("nft").args(arguments).output().expect("starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        began.elapsed()
    })
}

/// A pod comes somewhere that policies are about, and goes.
pub fn one_peer() {
    let host = host();
    let mut node = Node::start(&host, Checks::All, &pods_of(PODS), PEERS, About::Workloads);
    node.attach(PODS);
    // Those of this node are peers as well: of one workload, and of their neighbours.
    let all = PEERS + 2 * PODS;
    node.wait_peers(all);
    let set = names::pods("", &model::policy::Namespaces::Selected(Default::default()), &selector("app-0"));
    let beside = format!(" beside {SERVICES} Services");
    for what in ["", &beside] {
        if !what.is_empty() {
            load_proxy(&host);
        }
        let changes = node.changes();
        let (mut come, mut gone) = (Vec::new(), Vec::new());
        for round in 0..COMING {
            for (verb, times) in [("ADDED", &mut come), ("DELETED", &mut gone)] {
                calm();
                changes.try_iter().for_each(drop);
                let told = node.api.tell(Kind::Peers, verb, &cluster::peer(PEERS + round));
                let at = changes.recv_timeout(PATIENCE).expect("a change of the table");
                times.push(at.saturating_duration_since(told));
            }
        }
        assert_eq!(node.peers(), all, "all that came have gone");
        row(
            &format!("one peer pod{what}: the server's event to the kernel's announcement, p50 / p99"),
            "1 ms",
            &spread(&come),
        );
        row(&format!("the same{what}, gone"), "", &spread(&gone));
    }
    node.end_agent();
    let mut times = Vec::new();
    for round in 0..20 {
        let element = format!("{{ 10.199.0.{round} }}");
        times.push(nft(&host, &["add", "element", "inet", "flock", &format!("{set}/4"), &element]));
    }
    row(&format!("`nft add element` of one address{beside}, p50 / slowest"), "", &spread(&times));
    host.run("nft delete table ip kube-proxy");
    let mut times = Vec::new();
    for round in 0..20 {
        let element = format!("{{ 10.199.1.{round} }}");
        times.push(nft(&host, &["add", "element", "inet", "flock", &format!("{set}/4"), &element]));
    }
    row("the same without them", "", &spread(&times));
}

fn selector(app: &str) -> model::policy::select::Selector {
    [model::policy::select::Requirement::equals("app", app)].into_iter().collect()
}

/// The cluster as the agent knows it, and the links of this node.
pub fn world() -> (World, Vec<Subject>) {
    let mut world = World::default();
    for object in cluster::namespaces() {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        world.namespaces.insert(name, spec::labels(&object));
    }
    for object in cluster::policies(About::Workloads) {
        let read = spec::read(&object).expect("a policy");
        assert!(read.faults.is_empty());
        world.policies.insert((read.namespace, read.name), read.policy.into());
    }
    let reader = PodReader::default();
    let mut subjects = Vec::new();
    for number in 0..PODS {
        let ips = [format!("10.25.208.{number}"), format!("2001:db8:1:f001::{:x}", number + 1)];
        let ips = ips.map(|ip| ip.parse().expect("an address"));
        let (key, pod) = pod(&reader, &cluster::own(number, &format!("pod-{number}"), &ips));
        subjects.push(Subject {
            link: format!("flock{number:08x}").parse().expect("a name"),
            pod: Some(key.clone()),
            addresses: ips.into(),
            treatment: Treatment::Enforce,
        });
        world.pods.insert(key, pod);
    }
    world.pods.extend((0..PEERS).map(|n| pod(&reader, &cluster::peer(n))));
    (world, subjects)
}

fn pod(reader: &PodReader, object: &Value) -> (PodKey, Arc<Pod>) {
    let text = |key: &str| object["metadata"][key].as_str().expect("text").to_owned();
    let pod = reader.pod(&to_raw_value(object).expect("JSON")).expect("a pod").expect("one that counts");
    (PodKey { namespace: text("namespace").into(), name: text("name") }, pod.into())
}

/// The whole policies' part of the table, made and read back.
pub fn whole_table() {
    let (world, subjects) = world();
    let settings = Settings { mask: 0x7fff_0000, epoch: Some(0x1_0000), seals: true, log: None };
    let mut compiling = Vec::new();
    let mut compiled: Option<Compiled> = None;
    for _ in 0..TABLES {
        let began = Instant::now();
        compiled = Some(compile(&world, &subjects, &settings));
        compiling.push(ms(began.elapsed()));
    }
    let table = compiled.expect("several").table().clone();
    let (chains, sets) = (table.chains.len(), table.sets.len());
    let elements: usize = table.sets.values().map(|set| set.elements.len()).sum();
    let ruleset = Ruleset::from([(FILTER, table)]);
    let mut diffing = Vec::new();
    let mut changes = Vec::new();
    for _ in 0..TABLES {
        let began = Instant::now();
        changes = diff(&ruleset, &Ruleset::new());
        diffing.push(ms(began.elapsed()));
    }
    let (compiling, diffing) = (median(compiling), median(diffing));
    let host = host();
    let wanted = &ruleset[&FILTER];
    for beside in [false, true] {
        if beside {
            load_proxy(&host);
        }
        let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        in_netns(&host.netns(), || {
            let mut nft = Nftables::open().expect("a socket");
            for _ in 0..TABLES {
                let began = Instant::now();
                nft.apply(&changes, Instant::now() + PATIENCE).expect("taken");
                times.entry("written").or_default().push(ms(began.elapsed()));
                let began = Instant::now();
                let shown = nft.read(FILTER, Instant::now() + PATIENCE).expect("readable").expect("there");
                let differs = shown.differs(wanted);
                times.entry("read").or_default().push(ms(began.elapsed()));
                assert_eq!(differs, None);
                nft.apply(&[Change::RemoveTable(FILTER)], Instant::now() + PATIENCE).expect("taken");
            }
        });
        let [written, read] = ["written", "read"].map(|what| median(times[what].clone()));
        let what = if beside { format!(" beside {SERVICES} Services") } else { String::new() };
        row(
            &format!(
                "whole table{what}, {PODS} pods x {} policies x {PEERS} peers of two families ({chains} chains, {sets} sets, {elements} elements): compiled + compared + written",
                cluster::POLICIES
            ),
            "50 ms",
            &format!("{compiling:.1} + {diffing:.1} + {written:.1} = {:.1} ms", compiling + diffing + written),
        );
        row(&format!("the same{what}, read back and compared"), "", &format!("{read:.1} ms"));
        // What `nft` lists, it takes: the text is its own.
        in_netns(&host.netns(), || {
            let mut nft = Nftables::open().expect("a socket");
            nft.apply(&changes, Instant::now() + PATIENCE).expect("taken");
        });
        host.script("nft list table inet flock >/run/whole.nft; nft delete table inet flock");
        let path = host.path("/run/whole.nft");
        let path = path.to_str().expect("text");
        let mut times = Vec::new();
        for _ in 0..TABLES {
            times.push(nft(&host, &["-f", path]));
            nft(&host, &["delete", "table", "inet", "flock"]);
        }
        row(&format!("`nft -f` of the same{what}, p50 / slowest"), "", &spread(&times));
    }
}
