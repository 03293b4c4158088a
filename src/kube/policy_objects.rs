//! What policies are about, as the API server has it: NetworkPolicies, namespaces, and pods as peers, reduced as they are decoded.
//!
//! Policies are watched in the whole cluster: they change rarely and are small, one watch costs less than one for each namespace
//! that has a pod here at the moment, and a pod of another namespace finds its policies known when it arrives. Must not decide
//! which pods are watched, nor what a policy means.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::kube::kind::{Form, Kind};
use crate::kube::url::encoded;
use model::annotations::{self, Defaults};
use model::policy::select::{Labels, Pool};
use model::policy::watching::Selection;
use model::policy::{self, NamedPort, Policy, spec};

/// Most named ports of a pod that are kept.
const PORTS_MAX: usize = 256;

/// Most addresses of a pod in its status that are kept. There is one of each family.
const STATUS_ADDRESSES_MAX: usize = 16;

/// The policies of the whole cluster.
#[derive(Debug, Clone, Copy)]
pub struct NetworkPolicies;

/// A policy, and what of it is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyObject {
    /// What holds.
    pub policy: Arc<Policy>,
    /// What less is allowed for than is written, one line each, at most [`spec::FAULTS_MAX`].
    pub faults: Vec<String>,
}

impl Kind for NetworkPolicies {
    type Object = PolicyObject;

    fn path(&self) -> String {
        format!("/apis/{}/networkpolicies", spec::API_VERSION)
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<PolicyObject>, String> {
        let mut object: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        // The API server writes the kind of a list once, and none with its items.
        if let Some(fields) = object.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| spec::API_VERSION.into());
            fields.entry("kind").or_insert_with(|| spec::KIND.into());
        }
        policy(&object).map(|(_, policy)| Some(policy))
    }
}

/// A NetworkPolicy with its namespace and name.
///
/// # Errors
/// It is none, or has no name.
pub fn policy(object: &Value) -> Result<((String, String), PolicyObject), String> {
    let read = spec::read(object).map_err(|fault| fault.to_string())?;
    let faults = read.faults.iter().map(ToString::to_string).collect();
    Ok(((read.namespace, read.name), PolicyObject { policy: read.policy.into(), faults }))
}

/// The namespaces of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Namespaces;

impl Kind for Namespaces {
    type Object = Labels;

    fn path(&self) -> String {
        "/api/v1/namespaces".into()
    }

    fn form(&self) -> Form {
        Form::Metadata
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<Labels>, String> {
        let object: Value = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let (_, name) = spec::identity(&object).map_err(|fault| fault.to_string())?;
        Ok(Some(namespace_labels(&object, &name)))
    }
}

/// The labels of a namespace of this name, which is one of them whether it is written or not.
pub fn namespace_labels(object: &Value, name: &str) -> Labels {
    let written = spec::labels(object);
    written.iter().chain([(policy::NAME_LABEL, name)]).collect()
}

/// Pods of a selection, as peers. Of pods that have no address yet, or have finished, the server tells nothing.
#[derive(Debug, Clone)]
pub struct PeerPods {
    /// Which.
    pub selection: Selection,
    reader: PodReader,
}

impl PeerPods {
    /// The pods of a selection.
    pub fn new(selection: Selection) -> PeerPods {
        PeerPods { selection, reader: PodReader::default() }
    }
}

impl Kind for PeerPods {
    type Object = policy::Pod;

    fn path(&self) -> String {
        let namespace = self.selection.namespace.as_ref().map(|name| format!("/namespaces/{}", encoded(name)));
        let counts = encoded("status.podIP!=,status.phase!=Succeeded,status.phase!=Failed");
        let mut path = format!("/api/v1{}/pods?fieldSelector={counts}", namespace.unwrap_or_default());
        if !self.selection.pods.is_empty() {
            path.push_str(&format!("&labelSelector={}", encoded(&self.selection.pods.to_string())));
        }
        path
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<policy::Pod>, String> {
        Ok(self.reader.pod(raw)?.filter(|pod| !pod.addresses.is_empty()))
    }
}

/// Reads pods as policies see them. Equal labels of pods that it has read share their memory, and so do equal ports.
#[derive(Debug, Clone, Default)]
pub struct PodReader(RefCell<Shared>);

#[derive(Debug, Clone, Default)]
struct Shared {
    labels: Pool,
    ports: BTreeSet<Arc<[NamedPort]>>,
    /// Both are looked through when they have so many.
    sweep_at: usize,
}

impl PodReader {
    /// A pod, as JSON, be it without an address yet; none for one that policies know nothing of: one of the host's network, and one
    /// that has finished.
    ///
    /// # Errors
    /// Which field cannot be read, and why.
    pub fn pod(&self, raw: &RawValue) -> Result<Option<policy::Pod>, String> {
        let pod: RawPod = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        Ok(self.counting(pod))
    }

    fn counting(&self, pod: RawPod) -> Option<policy::Pod> {
        let RawPod { metadata, spec: of, status } = pod;
        if of.host_network || matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            return None;
        }
        let told = status.pod_ips.into_iter().map(|item| item.ip).chain([status.pod_ip]);
        let told = told.take(STATUS_ADDRESSES_MAX).filter_map(|ip| ip.parse::<IpAddr>().ok());
        let mut addresses: Vec<IpAddr> = Vec::new();
        told.map(|ip| ip.to_canonical()).for_each(|ip| add(&mut addresses, ip));
        // A pod that its node has refused for them has no address.
        if !addresses.is_empty() {
            further(&metadata.annotations).into_iter().for_each(|ip| add(&mut addresses, ip));
        }
        addresses.shrink_to_fit();
        let mut ports = spec::named_ports(&json!({"spec": {
            "containers": of.containers.into_iter().map(RawContainer::again).collect::<Vec<_>>(),
            "initContainers": of.init_containers.into_iter().map(RawContainer::again).collect::<Vec<_>>(),
        }}));
        ports.truncate(PORTS_MAX);
        let (labels, ports) = self.0.borrow_mut().shared(metadata.labels.into_iter().collect(), ports.into());
        Some(policy::Pod { labels, addresses, ports })
    }
}

impl Shared {
    /// The copies of these labels and ports that all pods share.
    fn shared(&mut self, labels: Labels, ports: Arc<[NamedPort]>) -> (Labels, Arc<[NamedPort]>) {
        let labels = self.labels.shared(labels);
        let known = self.ports.get(&ports).cloned();
        let ports = known.unwrap_or_else(|| {
            self.ports.insert(ports.clone());
            ports
        });
        if self.labels.len() + self.ports.len() > self.sweep_at {
            self.labels.sweep();
            self.ports.retain(|ports| Arc::strong_count(ports) > 1);
            self.sweep_at = 2 * (self.labels.len() + self.ports.len()) + 64;
        }
        (labels, ports)
    }
}

fn add(addresses: &mut Vec<IpAddr>, ip: IpAddr) {
    if !addresses.contains(&ip) {
        addresses.push(ip);
    }
}

/// The addresses that a pod has by its annotations beside those in its status.
fn further(annotations: &BTreeMap<String, String>) -> Vec<IpAddr> {
    if annotations.is_empty() {
        return Vec::new();
    }
    let both = Defaults { ipv6: true, ipv4: true, ip_algo: None };
    let intent = annotations::intent(annotations, &both).map(|(intent, _)| intent);
    intent.map(|intent| [intent.addresses, intent.anycast].concat()).unwrap_or_default()
}

#[derive(Deserialize)]
struct RawPod {
    #[serde(default)]
    metadata: RawPodMeta,
    #[serde(default, deserialize_with = "null_is_default")]
    spec: RawPodSpec,
    #[serde(default, deserialize_with = "null_is_default")]
    status: RawPodStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPodMeta {
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<Box<str>, Box<str>>,
    #[serde(deserialize_with = "ours")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPodSpec {
    #[serde(deserialize_with = "null_is_default")]
    host_network: bool,
    #[serde(deserialize_with = "null_is_default")]
    containers: Vec<RawContainer>,
    #[serde(deserialize_with = "null_is_default")]
    init_containers: Vec<RawContainer>,
}

/// What of a container concerns its ports, as it is written: the rest may be long.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    restart_policy: Value,
    ports: Value,
}

impl RawContainer {
    fn again(self) -> Value {
        json!({"restartPolicy": self.restart_policy, "ports": self.ports})
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPodStatus {
    #[serde(deserialize_with = "null_is_default")]
    phase: String,
    #[serde(rename = "podIP", deserialize_with = "null_is_default")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pod_ips: Vec<RawAddress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAddress {
    ip: String,
}

/// Annotations under flock's prefix; the others may be large, and may be anything.
fn ours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let all: Option<BTreeMap<String, Value>> = Option::deserialize(deserializer)?;
    let texts = all.unwrap_or_default().into_iter().filter(|(key, _)| key.starts_with(annotations::PREFIX));
    Ok(texts.filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect())
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::*;

    #[test]
    fn pods_of_one_workload_share_the_memory_of_their_labels_and_ports() {
        let reader = PodReader::default();
        let pod = |port: u16, ip: &str| {
            let container = json!({"name": "c", "ports": [{"name": "http", "containerPort": port}]});
            let object = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}, "status": {"podIP": ip}});
            reader.pod(&to_raw_value(&object).expect("JSON")).expect("readable").expect("one that counts")
        };
        let [one, other, third] = [pod(80, "10.0.0.1"), pod(80, "10.0.0.2"), pod(81, "10.0.0.3")];
        assert!(one.labels.is(&other.labels) && Arc::ptr_eq(&one.ports, &other.ports));
        assert!(one.labels.is(&third.labels) && one.ports != third.ports);
        assert_ne!(one.addresses, other.addresses);
        // What nobody has any more is forgotten in time.
        drop((one, other, third));
        for port in 0..1000 {
            pod(port, "10.0.0.1");
        }
        assert!(reader.0.borrow().ports.len() < 200);
    }
}
