//! What a cluster holds as far as policies can see it: namespaces, pods and policies, as values that a test changes and as the
//! documents that an agent reads. Judges nothing and sends nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

pub type Labels = BTreeMap<String, String>;

/// A namespace, and the name of a pod or of a policy in it.
pub type Key = (String, String);

/// Labels from pairs.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A key from two texts.
pub fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// One that no list of ports can name, since it has none: echoes, ICMP or ICMPv6.
    Echo,
}

impl Protocol {
    /// As a policy names it; for echoes, as none can.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            Protocol::Echo => "ICMP",
        }
    }
}

/// A port of a pod that has a name.
#[derive(Debug, Clone)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, Default)]
pub struct Pod {
    pub labels: Labels,
    pub ports: Vec<NamedPort>,
    /// What its status says; none for a pod of this node, whose attachment says it.
    pub status_addresses: Vec<IpAddr>,
    pub host_network: bool,
    /// It has ended, and its addresses may be another's.
    pub finished: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub namespaces: BTreeMap<String, Labels>,
    pub pods: BTreeMap<Key, Pod>,
    /// Whole documents.
    pub policies: BTreeMap<Key, Value>,
}

impl Cluster {
    /// With the namespaces x, y and z, which are labelled with their own names as those of the cyclonus suite are.
    pub fn of_three() -> Cluster {
        let mut cluster = Cluster::default();
        for name in ["x", "y", "z"] {
            cluster.set_namespace(name, labels(&[("ns", name)]));
        }
        cluster
    }

    /// A namespace of these labels, and of the one that the API server gives to each.
    pub fn set_namespace(&mut self, name: &str, mut labels: Labels) {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
        self.namespaces.insert(name.into(), labels);
    }

    /// Puts in a policy, or replaces the one of its name.
    pub fn set_policy(&mut self, mut policy: Value) {
        let text = |field: &str| policy["metadata"][field].as_str().expect("a policy has it").to_owned();
        let key = (text("namespace"), text("name"));
        policy["apiVersion"] = json!("networking.k8s.io/v1");
        policy["kind"] = json!("NetworkPolicy");
        self.policies.insert(key, policy);
    }

    /// A policy of this spec.
    pub fn add_policy(&mut self, namespace: &str, name: &str, spec: Value) {
        self.set_policy(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}));
    }

    /// Everything as one file of documents, as an agent reads it.
    pub fn documents(&self) -> String {
        let namespaces = self.namespaces.iter().map(|(name, labels)| {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        });
        let pods = self.pods.iter().map(|((namespace, name), pod)| pod.document(namespace, name));
        let all = namespaces.chain(pods).chain(self.policies.values().cloned());
        all.map(|document| format!("---\n{document}\n")).collect()
    }
}

impl Pod {
    fn document(&self, namespace: &str, name: &str) -> Value {
        let ports: Vec<Value> = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "containerPort": port.port, "protocol": port.protocol.name()}))
            .collect();
        let addresses: Vec<Value> = self.status_addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": self.labels},
            "spec": {"containers": [{"name": "main", "ports": ports}]},
            "status": {"phase": if self.finished { "Succeeded" } else { "Running" }},
        });
        if self.host_network {
            pod["spec"]["hostNetwork"] = json!(true);
        }
        if !addresses.is_empty() {
            pod["status"]["podIPs"] = Value::from(addresses);
        }
        pod
    }
}

/// Whose address it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Pod(Key),
    /// The node that the pods are on.
    Node,
    /// Nobody whom the cluster knows as a pod.
    Stranger,
}

/// One address of somebody: where a probe comes from, or where it goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub who: Who,
    pub address: IpAddr,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Pod((namespace, name)) => write!(f, "{namespace}/{name} {}", self.address),
            Who::Node => write!(f, "node {}", self.address),
            Who::Stranger => write!(f, "stranger {}", self.address),
        }
    }
}

/// One question: may `from` open a connection to this port of `to`?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub from: End,
    pub to: End,
    pub protocol: Protocol,
    /// 0 for echoes.
    pub port: u16,
    /// Where the packets go when the host translates, as for a Service; `to` and `port` are who is behind it.
    pub through: Option<SocketAddr>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} {}/{}", self.from, self.to, self.protocol.name(), self.port)?;
        self.through.map_or(Ok(()), |through| write!(f, " through {through}"))
    }
}
