//! Who may talk to whom, as the Kubernetes documentation says it, for one probe at a time and by loops alone.
//!
//! Reads the documents themselves. Shares no code and no idea with what flock compiles: where both are wrong, they are wrong in
//! different ways. Where the documentation leaves a choice, the comment says which one this is.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::cluster::{Cluster, End, Key, Labels, Pod, Probe, Protocol, Who};

/// Whether the cluster's policies let this connection be opened.
///
/// # Panics
/// A policy is none: the tests write only valid ones.
pub fn allows(cluster: &Cluster, probe: &Probe) -> bool {
    let Probe { from, to, .. } = probe;
    // What a node does with its own pods, and a pod with itself, is nothing to policies.
    if from.who == Who::Node || to.who == Who::Node || from.who == to.who {
        return true;
    }
    one_way(cluster, probe, Way::Egress) && one_way(cluster, probe, Way::Ingress)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Ingress,
    Egress,
}

impl Way {
    /// As `policyTypes` says it, the field with the rules, and the field of a rule with the peers.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Way::Ingress => ("Ingress", "ingress", "from"),
            Way::Egress => ("Egress", "egress", "to"),
        }
    }
}

/// Whether the policies of one end allow it: those for what goes out at its begin, those for what comes in at its end.
fn one_way(cluster: &Cluster, probe: &Probe, way: Way) -> bool {
    let (subject, peer) = match way {
        Way::Ingress => (&probe.to, &probe.from),
        Way::Egress => (&probe.from, &probe.to),
    };
    let Some((key, pod)) = pod_of(cluster, subject) else { return true };
    let mut isolated = false;
    for ((namespace, _), policy) in &cluster.policies {
        let spec = &policy["spec"];
        if *namespace != key.0 || !selects(&spec["podSelector"], &pod.labels) || !concerns(spec, way) {
            continue;
        }
        isolated = true;
        for rule in list(&spec[way.names().1]) {
            if rule_allows(cluster, namespace, rule, way, peer, probe) {
                return true;
            }
        }
    }
    !isolated
}

/// The pod that an end is. What is on the network of its node, or has ended, is none.
fn pod_of<'a>(cluster: &'a Cluster, end: &'a End) -> Option<(&'a Key, &'a Pod)> {
    let Who::Pod(key) = &end.who else { return None };
    cluster.pods.get_key_value(key).filter(|(_, pod)| !pod.host_network && !pod.finished)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn concerns(spec: &Value, way: Way) -> bool {
    let types = list(&spec["policyTypes"]);
    if types.is_empty() {
        // "If this field is not specified, it will default based on the existence of ingress or egress rules": those with a rule
        // for egress concern it, and ingress is always concerned.
        return way == Way::Ingress || !list(&spec["egress"]).is_empty();
    }
    types.iter().any(|one| one == way.names().0)
}

fn rule_allows(cluster: &Cluster, namespace: &str, rule: &Value, way: Way, peer: &End, probe: &Probe) -> bool {
    let peers = list(&rule[way.names().2]);
    if peers.is_empty() {
        return ports_allow(cluster, rule, probe, true);
    }
    let matches = |one: &&Value| {
        if one["ipBlock"].is_null() {
            pods_match(cluster, namespace, one, peer)
        } else {
            block_matches(&one["ipBlock"], peer.address)
        }
    };
    peers.iter().filter(matches).any(|one| {
        // A block knows addresses and no pods. So no port behind it has a name, unless the port is the subject's own.
        let names_known = way == Way::Ingress || one["ipBlock"].is_null();
        ports_allow(cluster, rule, probe, names_known)
    })
}

fn pods_match(cluster: &Cluster, namespace: &str, selectors: &Value, peer: &End) -> bool {
    let Some((key, pod)) = pod_of(cluster, peer) else { return false };
    let in_namespace = match &selectors["namespaceSelector"] {
        Value::Null => key.0 == namespace,
        selector => cluster.namespaces.get(&key.0).is_some_and(|labels| selects(selector, labels)),
    };
    let selected = match &selectors["podSelector"] {
        Value::Null => true,
        selector => selects(selector, &pod.labels),
    };
    in_namespace && selected
}

fn block_matches(block: &Value, address: IpAddr) -> bool {
    let net = |value: &Value| value.as_str().and_then(|text| text.parse::<IpNet>().ok()).expect("a prefix");
    net(&block["cidr"]).contains(&address) && !list(&block["except"]).iter().any(|one| net(one).contains(&address))
}

/// Whether the rule's ports are open to the probe. Without a list, all are, and so is what has no ports.
fn ports_allow(cluster: &Cluster, rule: &Value, probe: &Probe, names_known: bool) -> bool {
    let ports = list(&rule["ports"]);
    ports.is_empty() || ports.iter().any(|one| port_allows(cluster, one, probe, names_known))
}

fn port_allows(cluster: &Cluster, one: &Value, probe: &Probe, names_known: bool) -> bool {
    if probe.protocol == Protocol::Echo || one["protocol"].as_str().unwrap_or("TCP") != probe.protocol.name() {
        return false;
    }
    match (&one["port"], one["endPort"].as_u64()) {
        (Value::Null, _) => true,
        (Value::String(name), _) => names_known && has_port(cluster, name, probe),
        (number, end) => {
            let number = number.as_u64().expect("a port");
            (number..=end.unwrap_or(number)).contains(&u64::from(probe.port))
        }
    }
}

/// Whether the pod that the probe goes to calls its port so.
fn has_port(cluster: &Cluster, name: &str, probe: &Probe) -> bool {
    let Some((_, pod)) = pod_of(cluster, &probe.to) else { return false };
    pod.ports.iter().any(|port| port.name == name && port.protocol == probe.protocol && port.port == probe.port)
}

/// Whether a selector selects what has these labels.
pub fn selects(selector: &Value, labels: &Labels) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten();
    let equal = equal.map(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    let expressions = list(&selector["matchExpressions"]).iter().map(|expression| {
        let label = labels.get(expression["key"].as_str().expect("a key"));
        let among = |label: &String| list(&expression["values"]).iter().any(|value| value == label);
        match expression["operator"].as_str().expect("an operator") {
            "In" => label.is_some_and(among),
            // Who has no such label at all is selected, too.
            "NotIn" => !label.is_some_and(among),
            "Exists" => label.is_some(),
            "DoesNotExist" => label.is_none(),
            other => panic!("{other} is no operator"),
        }
    });
    equal.chain(expressions).all(|holds| holds)
}
