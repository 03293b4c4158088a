//! What policies are about, as the API server has it: NetworkPolicies, namespaces, and pods as peers, reduced as they are decoded.
//!
//! Policies are watched in the whole cluster: they change rarely and are small, one watch costs less than one for each namespace
//! that has a pod here at the moment, and a pod of another namespace finds its policies known when it arrives. Must not decide
//! which pods are watched, nor what a policy means.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::kube::kind::{Form, Kind};
use crate::kube::url::encoded;
use model::annotations::{self, Defaults};
use model::policy::select::{Labels, Pool};
use model::policy::watching::Selection;
use model::policy::{self, NamedPort, Policy, Rule, spec};

/// Most named ports of a pod that are kept.
const PORTS_MAX: usize = 256;

/// Most addresses of a pod in its status that are kept. There is one of each family.
const STATUS_ADDRESSES_MAX: usize = 16;

/// Most memory that the policies of a cluster take, in bytes (64 MiB, a quarter of what the agent may take): some thirty of the
/// largest ones, or fifty thousand small ones. One beyond it is kept without its rules, so that it isolates its pods and allows
/// nothing, and is looked at again when it changes, or all are listed again, which is within half an hour.
pub const POLICIES_SIZE_MAX: usize = 64 << 20;

/// What is said of a policy that is kept without its rules.
const TOO_MANY: &str = "spec: all NetworkPolicies of the cluster come to more than 64 MiB of memory, so this one isolates its pods and \
                        allows nothing: delete policies, or write them with fewer blocks and values";

/// Names and maps that lead to a policy, in bytes.
const LED_TO: usize = 512;

/// The policies of the whole cluster.
#[derive(Debug)]
pub struct NetworkPolicies {
    kept: RefCell<Kept>,
    most: usize,
}

impl Default for NetworkPolicies {
    fn default() -> NetworkPolicies {
        NetworkPolicies { kept: RefCell::default(), most: POLICIES_SIZE_MAX }
    }
}

/// A copy has read nothing yet.
impl Clone for NetworkPolicies {
    fn clone(&self) -> NetworkPolicies {
        NetworkPolicies { kept: RefCell::default(), most: self.most }
    }
}

/// The policies that are in memory.
#[derive(Debug, Default)]
struct Kept {
    each: BTreeMap<(String, String), Weak<Held>>,
    total: Arc<AtomicUsize>,
    /// They are looked through when there are so many.
    sweep_at: usize,
}

/// A policy that counts as long as somebody has it.
#[derive(Debug)]
struct Held {
    policy: Arc<Policy>,
    size: usize,
    total: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// A policy, and what of it is not understood.
#[derive(Debug, Clone)]
pub struct PolicyObject {
    /// What holds.
    pub policy: Arc<Policy>,
    /// What less is allowed for than is written, one line each, at most [`spec::FAULTS_MAX`] and one.
    pub faults: Vec<String>,
    /// What counts it among those of the cluster.
    _held: Option<Arc<Held>>,
}

impl PartialEq for PolicyObject {
    fn eq(&self, other: &PolicyObject) -> bool {
        self.policy == other.policy && self.faults == other.faults
    }
}

impl PolicyObject {
    /// One that is not of a cluster.
    pub fn new(policy: Arc<Policy>, faults: Vec<String>) -> PolicyObject {
        PolicyObject { policy, faults, _held: None }
    }
}

impl Kept {
    /// The policy of this name as it is kept where all may take `most` bytes.
    fn keep(&mut self, key: (String, String), mut object: PolicyObject, most: usize) -> PolicyObject {
        let known = self.each.get(&key).and_then(Weak::upgrade);
        // A list shows again what is there already.
        let again = |object: &PolicyObject| known.clone().filter(|known| known.policy == object.policy);
        let held = again(&object).unwrap_or_else(|| {
            let others = self.total.load(Ordering::Relaxed) - known.as_ref().map_or(0, |known| known.size);
            if others + object.policy.size() + LED_TO > most {
                object.policy = closed(&object.policy).into();
                object.faults.push(TOO_MANY.into());
            }
            again(&object).unwrap_or_else(|| self.hold(key, object.policy.clone()))
        });
        PolicyObject { policy: held.policy.clone(), _held: Some(held), ..object }
    }

    fn hold(&mut self, key: (String, String), policy: Arc<Policy>) -> Arc<Held> {
        let size = policy.size() + LED_TO;
        self.total.fetch_add(size, Ordering::Relaxed);
        let held = Arc::new(Held { policy, size, total: self.total.clone() });
        self.each.insert(key, Arc::downgrade(&held));
        if self.each.len() > self.sweep_at {
            self.each.retain(|_, held| held.strong_count() > 0);
            self.sweep_at = 2 * self.each.len() + 64;
        }
        held
    }
}

/// What isolates the same pods and allows nothing.
fn closed(policy: &Policy) -> Policy {
    let nothing = |rules: &Option<Vec<Rule>>| rules.as_ref().map(|_| Vec::new());
    Policy { subjects: policy.subjects.clone(), ingress: nothing(&policy.ingress), egress: nothing(&policy.egress) }
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
        let (key, object) = policy(&object)?;
        Ok(Some(self.kept.borrow_mut().keep(key, object, self.most)))
    }
}

/// A NetworkPolicy with its namespace and name.
///
/// # Errors
/// It is none, or has no name.
pub fn policy(object: &Value) -> Result<((String, String), PolicyObject), String> {
    let read = spec::read(object).map_err(|fault| fault.to_string())?;
    let faults = read.faults.iter().map(ToString::to_string).collect();
    Ok(((read.namespace, read.name), PolicyObject::new(read.policy.into(), faults)))
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
    use crate::kube::kind::Objects;
    use crate::kube::watch::{Machine, Order};

    /// A NetworkPolicy with so many blocks.
    fn blocks(name: &str, blocks: usize) -> Value {
        let peers: Vec<Value> =
            (0..blocks).map(|n| json!({"ipBlock": {"cidr": format!("10.{}.{}.0/24", n / 256, n % 256)}})).collect();
        json!({"metadata": {"name": name, "namespace": "web", "uid": name},
            "spec": {"podSelector": {"matchLabels": {"app": name}}, "ingress": [{"from": peers}]}})
    }

    #[test]
    fn policies_beyond_what_a_node_can_keep_isolate_their_pods_and_allow_nothing_until_there_is_room() {
        let large = blocks("a", 1000);
        let size = policy_of(&large).policy.size() + LED_TO;
        let most = 2 * size + 3 * LED_TO;
        let mut machine = Machine::new(NetworkPolicies { kept: RefCell::default(), most });
        let list = |machine: &mut Machine<NetworkPolicies>, items: &[Value]| {
            while !matches!(machine.next(u64::MAX, 0), Order::List(_)) {
                machine.elsewhere();
            }
            let body = json!({"metadata": {"resourceVersion": "7"}, "items": items}).to_string();
            let listing = machine.read(body.as_bytes());
            machine.listed(Ok(listing.expect("a list")), 0, 0);
            drop(machine.changes());
        };
        let peers = |objects: &Objects<PolicyObject>| -> Vec<(String, Option<usize>, bool)> {
            let of = |object: &PolicyObject| {
                let peers = object.policy.ingress.iter().flatten().map(|rule| rule.peers.len()).sum();
                (object.policy.ingress.is_some() && object.policy.egress.is_none()).then_some(peers)
            };
            objects.iter().map(|(name, o)| (name.name.clone(), of(o), o.faults.is_empty())).collect()
        };
        let all = [large, blocks("b", 1000), blocks("c", 1000), blocks("d", 1)];
        let expected = [("a", 1000, true), ("b", 1000, true), ("c", 0, false), ("d", 1, true)];
        let expected = expected.map(|(name, peers, good)| (name.to_owned(), Some(peers), good));
        // Listed again and again, each is what it was.
        for _ in 0..3 {
            list(&mut machine, &all);
            assert_eq!(peers(machine.objects()), expected);
        }
        let closed = machine.objects().values().nth(2).expect("c");
        assert!(closed.policy.subjects.to_string() == "app=c" && closed.faults == [TOO_MANY]);
        // One that changes takes no more than it did.
        let event = |machine: &mut Machine<NetworkPolicies>, kind: &str, object: &Value| {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = "8".into();
            assert!(matches!(machine.next(u64::MAX, 0), Order::Watch(_)));
            machine.line(json!({"type": kind, "object": object}).to_string().as_bytes(), 0, 0);
            drop(machine.changes());
        };
        event(&mut machine, "MODIFIED", &blocks("b", 999));
        assert_eq!(peers(machine.objects())[1], ("b".into(), Some(999), true));
        event(&mut machine, "DELETED", &blocks("a", 1000));
        event(&mut machine, "MODIFIED", &blocks("c", 1000));
        assert_eq!(peers(machine.objects())[1], ("c".into(), Some(1000), true));
        // Nothing is counted for what is gone.
        for name in ["b", "c", "d"] {
            event(&mut machine, "DELETED", &blocks(name, 1));
        }
        list(&mut machine, &[blocks("x", 2000)]);
        assert_eq!(peers(machine.objects()), [("x".into(), Some(2000), true)]);
    }

    fn policy_of(object: &Value) -> PolicyObject {
        let raw = to_raw_value(object).expect("JSON");
        NetworkPolicies::default().reduce(&raw).expect("readable").expect("one that counts")
    }

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
