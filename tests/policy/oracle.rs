//! What NetworkPolicies allow, told from their text as the documentation of Kubernetes has it: for each question all policies are
//! gone through, and nothing is prepared. It must share no code with the program, and knows no node but this one.

#[allow(unused_imports, reason = "one of the crates that look at this is without std")]
use std::{borrow::ToOwned, string::String, string::ToString, vec::Vec};

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Namespaces whose labels are known.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// NetworkPolicies as the API has them, with defaults or without.
    pub policies: Vec<Value>,
    /// Pods that are neither finished nor of their host's network.
    pub pods: Vec<Member>,
}

/// A pod.
#[derive(Debug, Clone)]
pub struct Member {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<IpAddr>,
    /// Name, `IPPROTO_*`, number.
    pub ports: Vec<(String, u8, u16)>,
    /// The host's end of its link, for one of this node.
    pub link: Option<String>,
}

/// Somebody who begins or gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side {
    pub address: IpAddr,
    /// Which of the pods, for one of this node.
    pub local: Option<usize>,
}

/// A connection.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    pub from: Side,
    pub to: Side,
    pub protocol: u8,
    /// 0 for a protocol without ports.
    pub port: u16,
}

/// Whether both ends may have the connection.
pub fn allowed(cluster: &Cluster, probe: &Probe) -> bool {
    let to_itself = probe.from.local.is_some() && probe.from.local == probe.to.local;
    to_itself || (may_send(cluster, probe) && may_receive(cluster, probe))
}

/// Whether the policies of who begins allow it.
pub fn may_send(cluster: &Cluster, probe: &Probe) -> bool {
    probe.from.local.is_none_or(|pod| passes(cluster, &cluster.pods[pod], "Egress", probe))
}

/// Whether the policies of who gets it allow it.
pub fn may_receive(cluster: &Cluster, probe: &Probe) -> bool {
    probe.to.local.is_none_or(|pod| passes(cluster, &cluster.pods[pod], "Ingress", probe))
}

fn passes(cluster: &Cluster, pod: &Member, kind: &str, probe: &Probe) -> bool {
    let mut isolated = false;
    for policy in &cluster.policies {
        let spec = &policy["spec"];
        let concerns = policy["metadata"]["namespace"] == pod.namespace.as_str()
            && (spec["podSelector"].is_null() || selects(&spec["podSelector"], &pod.labels))
            && kinds(spec).contains(&kind);
        if !concerns {
            continue;
        }
        isolated = true;
        let (rules, peers) = if kind == "Egress" { ("egress", "to") } else { ("ingress", "from") };
        for rule in list(&spec[rules]) {
            let other = if kind == "Egress" { probe.to.address } else { probe.from.address };
            let peers = list(&rule[peers]);
            let is_peer = peers.is_empty() || peers.iter().any(|peer| is_peer(cluster, pod, peer, other));
            let ports = list(&rule["ports"]);
            let is_port = ports.is_empty() || ports.iter().any(|port| is_port(cluster, pod, kind, peers, port, probe));
            if is_peer && is_port {
                return true;
            }
        }
    }
    !isolated
}

fn kinds(spec: &Value) -> Vec<&str> {
    let named: Vec<&str> = list(&spec["policyTypes"]).iter().map(|kind| kind.as_str().expect("a text")).collect();
    match named.is_empty() {
        false => named,
        true if list(&spec["egress"]).is_empty() => vec!["Ingress"],
        true => vec!["Ingress", "Egress"],
    }
}

fn is_peer(cluster: &Cluster, own: &Member, peer: &Value, address: IpAddr) -> bool {
    if peer["ipBlock"].is_object() {
        let within = |net: &Value| net.as_str().expect("a text").parse::<IpNet>().expect("a prefix").contains(&address);
        return within(&peer["ipBlock"]["cidr"]) && !list(&peer["ipBlock"]["except"]).iter().any(within);
    }
    cluster.pods.iter().any(|pod| pod.addresses.contains(&address) && is_selected(cluster, own, peer, pod))
}

fn is_selected(cluster: &Cluster, own: &Member, peer: &Value, pod: &Member) -> bool {
    let (namespaces, pods) = (&peer["namespaceSelector"], &peer["podSelector"]);
    let of_namespace = if namespaces.is_null() {
        pod.namespace == own.namespace
    } else {
        match cluster.namespaces.get(&pod.namespace) {
            Some(labels) => selects(namespaces, labels),
            // All that is certain is its name.
            None => {
                let name = "kubernetes.io/metadata.name";
                let labels = BTreeMap::from([(name.to_owned(), pod.namespace.clone())]);
                let asked = list(&namespaces["matchExpressions"]).iter().map(|e| e["key"].as_str().expect("a key"));
                let asked: Vec<&str> = namespaces["matchLabels"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(k, _)| k.as_str())
                    .chain(asked)
                    .collect();
                asked.iter().all(|key| *key == name) && selects(namespaces, &labels)
            }
        }
    };
    of_namespace && (pods.is_null() || selects(pods, &pod.labels))
}

fn is_port(cluster: &Cluster, own: &Member, kind: &str, peers: &[Value], port: &Value, probe: &Probe) -> bool {
    let protocol = match port["protocol"].as_str() {
        None | Some("TCP") => 6,
        Some("UDP") => 17,
        Some("SCTP") => 132,
        Some(other) => panic!("{other}"),
    };
    if protocol != probe.protocol {
        return false;
    }
    match &port["port"] {
        Value::Null => true,
        Value::String(name) => cluster.pods.iter().any(|pod| {
            let has = pod.addresses.contains(&probe.to.address)
                && pod.ports.contains(&(name.clone(), probe.protocol, probe.port));
            let counts = if kind == "Ingress" {
                pod.link.is_some() && pod.namespace == own.namespace
            } else {
                let selectors = || peers.iter().filter(|peer| peer["ipBlock"].is_null());
                peers.is_empty() || selectors().any(|peer| is_selected(cluster, own, peer, pod))
            };
            has && counts
        }),
        number => {
            let first = number.as_u64().expect("a number");
            let last = port["endPort"].as_u64().unwrap_or(first);
            (first..=last).contains(&u64::from(probe.port))
        }
    }
}

fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let by_labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels_hold = by_labels.into_iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    let expressions_hold = list(&selector["matchExpressions"]).iter().all(|expression| {
        let value = labels.get(expression["key"].as_str().expect("a key"));
        let named = || value.is_some_and(|value| list(&expression["values"]).iter().any(|v| v == value.as_str()));
        match expression["operator"].as_str().expect("an operator") {
            "In" => named(),
            "NotIn" => !named(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("{other}"),
        }
    });
    labels_hold && expressions_hold
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
