//! Random clusters that have whatever a NetworkPolicy can say: all operators, nothing and null and empty, blocks with holes, ranges
//! and names of ports, three protocols, shared addresses, namespaces of which nothing is known. It must not know what is allowed.

#[allow(unused_imports, reason = "one of the crates that look at this is without std")]
use std::{borrow::ToOwned, string::String, string::ToString, vec::Vec};

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::dice::Dice;
use super::oracle::{Cluster, Member, Probe, Side};

/// Namespaces; of the last, only the pods are known.
const NAMESPACES: [&str; 4] = ["a", "b", "c", "d"];

/// Labels of pods and of namespaces.
const LABELS: [(&str, [&str; 3]); 3] =
    [("app", ["web", "db", "api"]), ("tier", ["1", "2", "3"]), ("env", ["dev", "prod", "ci"])];

/// Ports of containers, of which several have one name.
const PORTS: [(&str, u8, u16); 7] = [
    ("http", 6, 80),
    ("http", 6, 8080),
    ("http", 17, 80),
    ("dns", 17, 53),
    ("dns", 6, 53),
    ("sig", 132, 2905),
    ("sig", 132, 80),
];

/// What connections are tried with.
pub const TRIED: [(u8, u16); 13] = [
    (6, 80),
    (6, 81),
    (6, 8080),
    (6, 8085),
    (6, 53),
    (17, 53),
    (17, 80),
    (17, 81),
    (132, 80),
    (132, 2905),
    (132, 53),
    (1, 0),
    (58, 0),
];

/// Addresses that are no pod's.
const OUTSIDE: [&str; 4] = ["192.0.2.7", "198.51.100.9", "2001:db8:ffff::7", "2001:db8:a::9"];

/// Addresses of several pods.
const SHARED: [&str; 2] = ["10.9.9.9", "2001:db8:9::9"];

/// A cluster.
pub fn cluster(dice: &mut Dice) -> Cluster {
    let mut cluster = Cluster::default();
    for name in &NAMESPACES[..3] {
        let mut labels = labels(dice);
        labels.insert("kubernetes.io/metadata.name".into(), (*name).into());
        cluster.namespaces.insert((*name).into(), labels);
    }
    for number in 0..4 + dice.below(8) {
        let member = member(dice, number);
        cluster.pods.push(member);
    }
    for number in 0..dice.below(7) {
        cluster.policies.push(policy(dice, number));
    }
    cluster
}

/// A pod, whose name has this number in it.
pub fn member(dice: &mut Dice, number: usize) -> Member {
    let namespace = dice.pick(&NAMESPACES).to_string();
    let mut addresses: Vec<IpAddr> = Vec::new();
    let own = [format!("10.0.{}.{}", number / 200, number % 200 + 1), format!("2001:db8:0:{number}::1")];
    let families = dice.below(4);
    for (family, address) in own.iter().enumerate() {
        if families != family {
            addresses.push(address.parse().expect("an address"));
        }
        if dice.chance(20) {
            addresses.push(SHARED[family].parse().expect("an address"));
        }
    }
    let mut ports: Vec<(String, u8, u16)> = Vec::new();
    for (name, protocol, port) in PORTS {
        if dice.chance(30) {
            ports.push((name.into(), protocol, port));
        }
    }
    let link = dice.chance(60).then(|| format!("flock{number:08x}"));
    Member { namespace, name: format!("pod-{number}"), labels: labels(dice), addresses, ports, link }
}

fn labels(dice: &mut Dice) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, values) in LABELS {
        if dice.chance(60) {
            labels.insert(key.to_owned(), (*dice.pick(&values)).to_owned());
        }
    }
    labels
}

/// A policy, whose name has this number in it.
pub fn policy(dice: &mut Dice, number: usize) -> Value {
    let mut spec = json!({});
    if dice.chance(90) {
        spec["podSelector"] = selector(dice);
    }
    match dice.below(7) {
        0 => spec["policyTypes"] = json!(["Ingress"]),
        1 => spec["policyTypes"] = json!(["Egress"]),
        2 | 3 => spec["policyTypes"] = json!(["Ingress", "Egress"]),
        4 => spec["policyTypes"] = json!([]),
        5 => spec["policyTypes"] = Value::Null,
        _ => {}
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        match dice.below(6) {
            0 => {}
            1 => spec[rules] = json!([]),
            2 => spec[rules] = Value::Null,
            _ => spec[rules] = (0..1 + dice.below(3)).map(|_| rule(dice, peers)).collect(),
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": dice.pick(&NAMESPACES), "name": format!("policy-{number}")},
        "spec": spec,
    })
}

fn rule(dice: &mut Dice, peers: &str) -> Value {
    let mut rule = json!({});
    match dice.below(7) {
        0 => {}
        1 => rule[peers] = json!([]),
        2 => rule[peers] = Value::Null,
        _ => rule[peers] = (0..1 + dice.below(3)).map(|_| peer(dice)).collect(),
    }
    match dice.below(6) {
        0 => {}
        1 => rule["ports"] = json!([]),
        2 => rule["ports"] = Value::Null,
        _ => rule["ports"] = (0..1 + dice.below(3)).map(|_| port(dice)).collect(),
    }
    rule
}

fn peer(dice: &mut Dice) -> Value {
    match dice.below(6) {
        0 | 1 => json!({"podSelector": selector(dice)}),
        2 => json!({"namespaceSelector": selector(dice)}),
        3 => json!({"namespaceSelector": selector(dice), "podSelector": selector(dice), "ipBlock": null}),
        _ => {
            let blocks = [
                json!({"cidr": "10.0.0.0/8"}),
                json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/30", "10.0.0.2/31", "10.9.0.0/16"]}),
                json!({"cidr": "10.0.0.0/29", "except": []}),
                json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.4/30", "192.0.2.0/24"]}),
                json!({"cidr": "0.0.0.0/0", "except": null}),
                json!({"cidr": "::/0", "except": ["2001:db8::/62", "2001:db8:ffff::7/128"]}),
                json!({"cidr": "2001:db8::/32"}),
                json!({"cidr": "10.0.0.3/32"}),
                json!({"cidr": "192.0.2.77/24"}),
            ];
            json!({"ipBlock": dice.pick(&blocks)})
        }
    }
}

fn port(dice: &mut Dice) -> Value {
    let mut port = match dice.below(8) {
        0 => json!({}),
        1 => json!({"port": 80}),
        2 => json!({"port": 53, "endPort": null}),
        3 => json!({"port": 80, "endPort": 8080}),
        4 => json!({"port": 2905, "endPort": 2905}),
        5 => json!({"port": "http"}),
        6 => json!({"port": "dns"}),
        _ => json!({"port": "sig"}),
    };
    match dice.below(5) {
        0 => {}
        1 => port["protocol"] = json!("UDP"),
        2 => port["protocol"] = json!("SCTP"),
        3 => port["protocol"] = Value::Null,
        _ => port["protocol"] = json!("TCP"),
    }
    port
}

fn selector(dice: &mut Dice) -> Value {
    let key = |dice: &mut Dice| *dice.pick(&LABELS);
    let mut selector = json!({});
    if dice.chance(25) {
        let (key, values) = key(dice);
        selector["matchLabels"] = json!({key: dice.pick(&values)});
    }
    if dice.chance(10) {
        selector["matchLabels"] = Value::Null;
    }
    if dice.chance(60) {
        selector["matchExpressions"] = (0..1 + dice.below(2))
            .map(|_| {
                let (key, values) =
                    if dice.chance(10) { ("kubernetes.io/metadata.name", ["a", "b", "d"]) } else { key(dice) };
                let some = &values[..1 + dice.below(2)];
                match dice.below(4) {
                    0 => json!({"key": key, "operator": "In", "values": some}),
                    1 => json!({"key": key, "operator": "NotIn", "values": some}),
                    2 => json!({"key": key, "operator": "Exists", "values": []}),
                    _ => json!({"key": key, "operator": "DoesNotExist"}),
                }
            })
            .collect();
    }
    selector
}

/// Everybody who can begin or get a connection.
pub fn sides(cluster: &Cluster) -> Vec<Side> {
    let mut sides: Vec<Side> =
        OUTSIDE.iter().map(|text| Side { address: text.parse().expect("an address"), local: None }).collect();
    for (number, pod) in cluster.pods.iter().enumerate() {
        let local = pod.link.is_some().then_some(number);
        sides.extend(pod.addresses.iter().map(|address| Side { address: *address, local }));
    }
    sides
}

/// Every connection that this node could have to forward.
pub fn probes(cluster: &Cluster) -> Vec<Probe> {
    let sides = sides(cluster);
    let mut probes = Vec::new();
    for from in &sides {
        for to in &sides {
            let forwarded = from.local.is_some() || to.local.is_some();
            if !forwarded || from.address.is_ipv4() != to.address.is_ipv4() {
                continue;
            }
            for (protocol, port) in TRIED {
                probes.push(Probe { from: *from, to: *to, protocol, port });
            }
        }
    }
    probes
}
