//! The kinds of objects that an agent reads, reduced to what it needs as they are decoded.
//!
//! Unknown fields are ignored here: the API server has pruned what its schema does not know, and a newer schema must not stop
//! an older agent. What the node's configuration means is decided in `model::nodeconfig`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::kube::kind::{Kind, REASON_MAX};
use crate::kube::policy_objects::PodReader;
use crate::kube::url::encoded;
use model::annotations;
use model::embed::app_name;
use model::excerpt::Excerpt;
use model::nodeconfig::{self, KIND, NodeConfig, range4, range6};
use model::peers::own::is_reachable;
use model::peers::{CLAIMS_MAX, Claim, NEXT_HOPS_MAX, NextHop, Owner, Peer};
use model::policy;

/// The NodeConfig of one node. The server filters.
#[derive(Debug, Clone)]
pub struct NodeConfigs {
    /// The node's name, which is the object's.
    pub node: String,
}

/// A NodeConfig as the API server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfigObject {
    /// Tells this object from an earlier one of the same name.
    pub uid: String,
    /// Which edit of `spec` this is.
    pub generation: i64,
    /// The configuration, or what is wrong with it, in words for an operator.
    pub config: Result<NodeConfig, String>,
    /// What an operator should know about one that can be used, one line each, at most [`nodeconfig::NOTES_MAX`].
    pub notes: Vec<String>,
    /// The part of the object that counts, as a manifest in JSON: read again, it is the same configuration. Empty for one that
    /// cannot be used.
    pub manifest: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Meta {
    uid: String,
    generation: i64,
}

#[derive(Deserialize)]
struct HasMeta {
    #[serde(default)]
    metadata: Meta,
}

impl Kind for NodeConfigs {
    type Object = NodeConfigObject;

    fn path(&self) -> String {
        format!("{}?fieldSelector=metadata.name%3D{}", collection(), encoded(&self.node))
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<NodeConfigObject>, String> {
        let meta: HasMeta = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let (config, notes, manifest) = match config(raw.get()) {
            Ok((config, notes, manifest)) => (Ok(config), notes, manifest),
            Err(why) => (Err(why), Vec::new(), String::new()),
        };
        let Meta { uid, generation } = meta.metadata;
        Ok(Some(NodeConfigObject { uid, generation, config, notes, manifest }))
    }
}

/// Path of all NodeConfigs.
pub fn collection() -> String {
    format!("/apis/{}/nodeconfigs", model::nodeconfig::API_VERSION)
}

/// What is kept of a NodeConfig: what a manifest has. Whatever else the server sends is passed over unread.
#[derive(Deserialize, Serialize)]
struct Kept {
    #[serde(rename = "apiVersion", skip_serializing_if = "Option::is_none")]
    api_version: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<Value>,
}

fn config(text: &str) -> Result<(NodeConfig, Vec<String>, String), String> {
    let mut kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(metadata) = kept.metadata.as_mut().and_then(Value::as_object_mut) {
        metadata.retain(|key, _| ["name", "annotations"].contains(&key.as_str()));
        // The API server lets nothing but texts in; should it ever, the other annotations still count.
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|_, value| value.is_string());
        }
    }
    let manifest = serde_json::to_string(&kept).map_err(|error| error.to_string())?;
    let (config, notes) = nodeconfig::read_published(&manifest)
        .map_err(|error| String::from(Excerpt::line(&error.to_string(), REASON_MAX)))?;
    Ok((config, notes, manifest))
}

/// The Node of one node, as Kubernetes itself has it. The server filters.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// The node's name.
    pub node: String,
}

/// Ranges that are kept of a Node: it has one of each family.
const POD_CIDRS_MAX: usize = 4;

/// What is needed of a Node, which also tells of images, volumes and much else.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeObject {
    /// Tells this Node from an earlier one of the same name.
    pub uid: String,
    /// `spec.podCIDRs`, at most `POD_CIDRS_MAX`; empty as long as nobody has given it any.
    pub pod_cidrs: Vec<String>,
}

#[derive(Deserialize)]
struct RawNode {
    #[serde(default)]
    metadata: Meta,
    #[serde(default, deserialize_with = "null_is_default")]
    spec: RawNodeSpec,
}

#[derive(Deserialize, Default)]
struct RawNodeSpec {
    #[serde(default, rename = "podCIDRs", deserialize_with = "null_is_default")]
    pod_cidrs: Vec<String>,
}

impl Kind for Nodes {
    type Object = NodeObject;

    fn path(&self) -> String {
        format!("/api/v1/nodes?fieldSelector=metadata.name%3D{}", encoded(&self.node))
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<NodeObject>, String> {
        let raw: RawNode = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let pod_cidrs = raw.spec.pod_cidrs.into_iter().take(POD_CIDRS_MAX).collect();
        Ok(Some(NodeObject { uid: raw.metadata.uid, pod_cidrs }))
    }
}

/// What the nodes of the cluster say of themselves for each other: all of them.
#[derive(Debug, Clone, Copy)]
pub struct NodePeers;

/// Path of all NodePeers.
pub fn node_peers() -> String {
    format!("/apis/{}/nodepeers", model::nodeconfig::API_VERSION)
}

/// Things that are wrong with one NodePeer, of which the reasons are kept.
const PROBLEMS_MAX: usize = 4;

/// Longest text of a claim that is kept, in bytes: a namespace and a name of a pod.
const CLAIM_TEXT_MAX: usize = 320;

#[derive(Deserialize)]
struct RawPeer {
    #[serde(default)]
    metadata: RawPeerMeta,
    #[serde(default)]
    spec: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPeerMeta {
    owner_references: Value,
}

impl Kind for NodePeers {
    type Object = Peer;

    fn path(&self) -> String {
        node_peers()
    }

    /// Each field is read by itself: one that cannot be read is absent, and its reason stands among the problems.
    fn reduce(&self, raw: &RawValue) -> Result<Option<Peer>, String> {
        let raw: RawPeer = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let mut peer = Peer { owner: owner(&raw.metadata.owner_references), ..Peer::default() };
        let mut wrong = |field: &str, value: &Value, why: &str| {
            if peer.problems.len() < PROBLEMS_MAX {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                peer.problems.push(format!("spec.{field}: {} {why}", Excerpt::of(&value)));
            }
        };
        for (field, value) in fields(&raw.spec, &["cidr6", "cidr4"]) {
            let text = value.as_str().unwrap_or_default();
            let read = match field {
                "cidr6" => range6(text).map(|net| peer.cidr6 = Some(net)),
                _ => range4(text).map(|net| peer.cidr4 = Some(net)),
            };
            if let Err(error) = read {
                wrong(field, value, &error.to_string());
            }
        }
        for (field, value) in fields(&raw.spec, &["nextHops", "claims"]) {
            let Some(items) = value.as_array() else {
                wrong(field, value, "is not a list");
                continue;
            };
            let most = if field == "claims" { CLAIMS_MAX } else { NEXT_HOPS_MAX };
            if items.len() > most {
                wrong(field, &Value::from(items.len()), &format!("entries are too many, and the first {most} count"));
            }
            for item in items.iter().take(most) {
                let read = match field {
                    "claims" => claim(item).map(|claim| peer.claims.push(claim)),
                    _ => next_hop(item).map(|hop| peer.next_hops.push(hop)),
                };
                if let Err(why) = read {
                    wrong(field, item, why);
                }
            }
        }
        // A cluster has many nodes, and each has few of these.
        peer.next_hops.shrink_to_fit();
        peer.claims.shrink_to_fit();
        Ok(Some(peer))
    }
}

/// The fields of `object` among `names` that are there.
fn fields<'a>(object: &'a Value, names: &[&'static str]) -> Vec<(&'static str, &'a Value)> {
    let there = |name: &&'static str| Some((*name, object.get(*name).filter(|value| !value.is_null())?));
    names.iter().filter_map(there).collect()
}

fn owner(references: &Value) -> Option<Owner> {
    let references = references.as_array()?;
    let of = |kind: &str| {
        let found = references.iter().find(|owner| owner.get("kind").and_then(Value::as_str) == Some(kind))?;
        Some(Box::from(found.get("uid")?.as_str()?))
    };
    of(KIND).map(Owner::NodeConfig).or_else(|| of("Node").map(Owner::Node))
}

fn next_hop(item: &Value) -> Result<NextHop, &'static str> {
    let address = address(item)?;
    if !is_reachable(address) {
        return Err("is no address that a node can be reached by");
    }
    let link_local = match fields(item, &["linkLocal"])[..] {
        [(_, value)] => {
            let ip = value.as_str().and_then(|text| text.parse().ok());
            Some(ip.filter(std::net::Ipv6Addr::is_unicast_link_local).ok_or("has a linkLocal that is none")?)
        }
        _ => None,
    };
    Ok(NextHop { address, link_local })
}

fn claim(item: &Value) -> Result<Claim, &'static str> {
    let text = |key: &str| item.get(key).and_then(Value::as_str).filter(|text| text.len() <= CLAIM_TEXT_MAX);
    let (Some(pod), Some(since)) = (text("pod"), text("since")) else { return Err("has no pod or no since") };
    let clean = |text: &str| Box::from(Excerpt::line(text, CLAIM_TEXT_MAX).as_ref());
    let shared = match fields(item, &["shared"])[..] {
        [(_, value)] => value.as_bool().ok_or("has a shared that is neither true nor false")?,
        _ => false,
    };
    Ok(Claim { address: address(item)?, pod: clean(pod), since: clean(since), shared })
}

fn address(item: &Value) -> Result<IpAddr, &'static str> {
    item.get("address").and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or("has no address")
}

/// The pods of one node. The server filters.
#[derive(Debug, Clone)]
pub struct Pods {
    /// The node's name.
    pub node: String,
    /// Reads what policies need of a pod; none where there are no policies.
    pub policing: Option<PodReader>,
}

/// What an agent needs of a pod: a few hundred bytes, whatever the pod weighs.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Tells this pod from an earlier one of the same name.
    pub uid: String,
    /// For the mirror of a static pod: the hash that kubelet uses as its uid.
    pub config_hash: Option<String>,
    /// Annotations under flock's prefix.
    pub annotations: BTreeMap<String, String>,
    /// Its controller's name without what differs between replicas; the pod's own name if nobody controls it.
    pub app: String,
    /// The first container's image, as written.
    pub image: Option<String>,
    /// Whether it may be sent traffic of others: its condition Ready is True, and it is not about to go.
    pub serving: bool,
    /// What policies need of it; none where there are no policies, and for a pod that they know nothing of.
    pub policing: Option<Arc<policy::Pod>>,
}

impl Pod {
    /// Whether a call of the runtime for `uid` means this pod. For a static pod the runtime knows only the hash of its file,
    /// and the pod in the API is a mirror with a uid of its own.
    pub fn is_meant_by(&self, uid: Option<&str>) -> bool {
        uid.is_none_or(|uid| uid == self.uid || self.config_hash.is_some())
    }
}

#[derive(Deserialize)]
struct RawPod {
    metadata: RawPodMeta,
    #[serde(default)]
    spec: RawPodSpec,
    #[serde(default, deserialize_with = "null_is_default")]
    status: RawPodStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPodMeta {
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default, deserialize_with = "ours")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "hash_label")]
    labels: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    owner_references: Vec<RawOwner>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
struct RawPodSpec {
    #[serde(default, deserialize_with = "null_is_default")]
    containers: Vec<Container>,
}

#[derive(Deserialize, Default)]
struct RawPodStatus {
    #[serde(default, deserialize_with = "null_is_default")]
    conditions: Vec<RawCondition>,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    image: Option<String>,
}

#[derive(Deserialize)]
struct RawOwner {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    controller: Option<bool>,
}

/// Annotation with the hash of a static pod's file, which kubelet uses as its uid.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation that marks the mirror of a static pod, with the same hash.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// The annotations that are used; the others may be large, and may be anything.
fn ours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let all: Option<BTreeMap<String, Value>> = Option::deserialize(deserializer)?;
    let used = |key: &str| key.starts_with(annotations::PREFIX) || key == CONFIG_HASH || key == CONFIG_MIRROR;
    let texts = all.unwrap_or_default().into_iter().filter(|(key, _)| used(key));
    Ok(texts.filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect())
}

fn hash_label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let all: Option<BTreeMap<String, Value>> = Option::deserialize(deserializer)?;
    Ok(all.and_then(|all| all.get("pod-template-hash")?.as_str().map(str::to_owned)))
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Kind for Pods {
    type Object = Pod;

    fn path(&self) -> String {
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", encoded(&self.node))
    }

    fn reduce(&self, raw: &RawValue) -> Result<Option<Pod>, String> {
        let pod: RawPod = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
        let mut annotations = pod.metadata.annotations;
        let hash = annotations.remove(CONFIG_HASH);
        let mirror = annotations.remove(CONFIG_MIRROR);
        let controller = pod.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        let controller = controller.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        let ready = pod.status.conditions.iter().any(|found| found.kind == "Ready" && found.status == "True");
        Ok(Some(Pod {
            uid: pod.metadata.uid,
            config_hash: mirror.or(hash),
            annotations,
            app: app_name(controller, pod.metadata.labels.as_deref(), &pod.metadata.name),
            image: pod.spec.containers.into_iter().next().and_then(|container| container.image),
            serving: ready && pod.metadata.deletion_timestamp.is_none(),
            policing: self.policing.as_ref().map(|reader| reader.pod(raw)).transpose()?.flatten().map(Arc::new),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use serde_json::json;

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).expect("JSON")
    }

    fn node_config(value: &Value) -> NodeConfigObject {
        NodeConfigs { node: "n".into() }.reduce(&raw(value)).expect("an object").expect("one that counts")
    }

    fn pod(value: &Value) -> Pod {
        Pods { node: "n".into(), policing: None }.reduce(&raw(value)).expect("a pod").expect("one that counts")
    }

    fn peer(spec: &Value) -> Peer {
        let metadata = json!({"name": "n", "ownerReferences": [{"kind": "Node", "uid": "x"}, {"kind": "NodeConfig", "uid": "u7"}]});
        NodePeers
            .reduce(&raw(&json!({"metadata": metadata, "spec": spec})))
            .expect("an object")
            .expect("one that counts")
    }

    #[test]
    fn a_node_peer_is_reduced_to_what_others_need() {
        let all = peer(&json!({
            "cidr6": "2001:db8:2::/64", "cidr4": "10.2.0.0/24", "newer": {"a": 1},
            "nextHops": [{"address": "192.0.2.2", "linkLocal": "fe80::2"}, {"address": "2001:db8::2", "linkLocal": null, "newer": 1}],
            "claims": [{"address": "203.0.113.7", "pod": "web/a", "since": "2026-11-26T12:00:00Z", "newer": 1}],
        }));
        assert_eq!(
            all,
            Peer {
                cidr6: "2001:db8:2::/64".parse().ok(),
                cidr4: "10.2.0.0/24".parse().ok(),
                next_hops: vec![
                    NextHop { address: IpAddr::from([192, 0, 2, 2]), link_local: "fe80::2".parse().ok() },
                    NextHop { address: "2001:db8::2".parse().expect("literal"), link_local: None },
                ],
                claims: vec![Claim {
                    address: IpAddr::from([203, 0, 113, 7]),
                    pod: "web/a".into(),
                    since: "2026-11-26T12:00:00Z".into(),
                    shared: false,
                }],
                owner: Some(Owner::NodeConfig("u7".into())),
                problems: Vec::new(),
            }
        );
        assert_eq!(peer(&json!({"cidr6": null, "nextHops": null})).ranges().count(), 0);
    }

    #[test]
    fn of_a_node_its_ranges_are_kept() {
        let node = |value: Value| {
            Nodes { node: "n".into() }.reduce(&raw(&value)).expect("an object").expect("one that counts")
        };
        let cidrs = ["10.244.1.0/24", "fd00:10:244:1::/64"];
        let full = json!({
            "metadata": {"name": "n", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs, "taints": [{"key": "x"}]},
            "status": {"images": [{"names": ["a"]}]},
        });
        assert_eq!(node(full), NodeObject { uid: "u1".into(), pod_cidrs: cidrs.map(str::to_owned).to_vec() });
        for spec in [json!({}), json!({"podCIDRs": null}), json!({"podCIDRs": []}), Value::Null] {
            assert_eq!(node(json!({"metadata": {"uid": "u1"}, "spec": spec})).pod_cidrs, [""; 0]);
        }
        let many: Vec<String> = (0..999).map(|n| format!("10.0.{n}.0/24")).collect();
        assert_eq!(node(json!({"metadata": {}, "spec": {"podCIDRs": many}})).pod_cidrs.len(), POD_CIDRS_MAX);
    }

    #[test]
    fn who_owns_what_a_node_says_of_itself() {
        let of = |kinds: &[&str]| {
            owner(&Value::from(kinds.iter().map(|kind| json!({"kind": kind, "uid": kind})).collect::<Vec<_>>()))
        };
        assert_eq!(of(&["Node", "NodeConfig"]), Some(Owner::NodeConfig("NodeConfig".into())));
        assert_eq!(of(&["Pod", "Node"]), Some(Owner::Node("Node".into())));
        assert_eq!((of(&["Pod"]), of(&[])), (None, None));
    }

    #[test]
    fn a_field_of_a_node_peer_that_cannot_be_read_is_absent_and_the_reason_says_which() {
        let good = json!({"cidr6": "2001:db8:2::/64", "nextHops": [{"address": "192.0.2.2"}], "claims": []});
        for (field, value, why) in [
            ("cidr6", json!("2001:db8::1/64"), "2001:db8::/64"),
            ("cidr6", json!("::/0"), "::/8"),
            ("cidr6", json!(7), "\"7\" is not an IPv6 prefix"),
            ("cidr4", json!("0.0.0.0/0"), "0.0.0.0/8"),
            ("cidr4", json!("10.0.0.0/32"), "too small"),
            ("nextHops", json!("192.0.2.2"), "not a list"),
            ("nextHops", json!([{"address": "fe80::1"}]), "reached by"),
            ("nextHops", json!([{"address": "224.0.0.1"}]), "reached by"),
            ("nextHops", json!([{"address": "::ffff:192.0.2.2"}]), "reached by"),
            ("nextHops", json!([{"address": "192.0.2.2", "linkLocal": "2001:db8::1"}]), "linkLocal"),
            ("nextHops", json!([{"address": "\u{1b}[2J"}]), "has no address"),
            ("nextHops", json!([[], null, 7, {}]), "has no address"),
            ("claims", json!([{"address": "203.0.113.7", "pod": "web/a"}]), "no since"),
        ] {
            let mut spec = good.clone();
            spec[field] = value.clone();
            let read = peer(&spec);
            let problem = read.problems.first().unwrap_or_else(|| panic!("{field} {value} is taken"));
            assert!(problem.starts_with(&format!("spec.{field}: ")) && problem.contains(why), "{problem}");
            assert!(!problem.contains('\u{1b}') && problem.len() < 1000, "{problem}");
            assert_eq!(read.cidr6.is_some(), field != "cidr6");
            assert_eq!(read.next_hops.len(), usize::from(field != "nextHops"));
        }
        assert_eq!(peer(&json!("text")), peer(&json!({})));
        assert!(NodePeers.reduce(&raw(&json!(7))).is_err());
    }

    #[test]
    fn nothing_in_a_node_peer_is_kept_without_a_bound() {
        let hops: Vec<Value> =
            (0..999).map(|n| json!({"address": format!("10.0.{}.{}", n / 250, n % 250 + 1)})).collect();
        let claims: Vec<Value> =
            (0..999).map(|_| json!({"address": "10.0.0.1", "pod": "p".repeat(9999), "since": "x"})).collect();
        let read = peer(&json!({"nextHops": hops, "claims": claims, "cidr6": "x".repeat(1 << 20), "cidr4": []}));
        assert_eq!((read.next_hops.len(), read.claims.len()), (NEXT_HOPS_MAX, 0));
        assert!(read.problems.len() == PROBLEMS_MAX && read.problems.iter().all(|problem| problem.len() < 500));
    }

    // covers: FM-D07 FM-E03
    #[test]
    fn the_server_is_asked_for_one_node_only() {
        let node = "host-1.example".to_owned();
        assert_eq!(
            NodeConfigs { node: node.clone() }.path(),
            "/apis/flock.fritzlab.net/v1alpha1/nodeconfigs?fieldSelector=metadata.name%3Dhost-1.example"
        );
        assert_eq!(Nodes { node: node.clone() }.path(), "/api/v1/nodes?fieldSelector=metadata.name%3Dhost-1.example");
        assert_eq!(Pods { node, policing: None }.path(), "/api/v1/pods?fieldSelector=spec.nodeName%3Dhost-1.example");
    }

    #[test]
    fn every_field_of_the_schema_counts() {
        let both = include_str!("../../deploy/base/crds/nodeconfigs-crd.yaml");
        let crd = both.split("\n---\n").next().expect("a document");
        let crd: Value = model::text::document(crd).expect("YAML").expect("a document");
        let properties = |place: &str| -> BTreeSet<String> {
            let at = format!("/spec/versions/0/schema/openAPIV3Schema/properties/{place}/properties");
            crd.pointer(&at).and_then(Value::as_object).expect("properties").keys().cloned().collect()
        };
        let peer = "spec/properties/bgp/properties/peers/items";
        // The strict reader of files names the fields that it knows when it meets another one.
        let head = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\nspec:\n";
        for (text, place) in [
            ("  x: 1", "spec"),
            ("  defaults: {x: true}", "spec/properties/defaults"),
            ("  policy: {x: true}", "spec/properties/policy"),
            ("  masquerade: {x: true}", "spec/properties/masquerade"),
            ("  bgp: {x: true}", "spec/properties/bgp"),
            ("  bgp: {peers: [{x: 1}]}", peer),
            ("  bgp: {peers: [{bfd: {x: 1}}]}", &format!("{peer}/properties/bfd")),
        ] {
            let refusal = nodeconfig::parse(format!("{head}{text}\n")).expect_err("refused").to_string();
            let (_, fields) = refusal.split_once("the fields here are ").unwrap_or_else(|| panic!("{text}: {refusal}"));
            let fields = fields.split(" (and ").next().expect("fields").replace(" and ", ", ");
            assert_eq!(fields.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), properties(place), "{text}");
        }
        let object = node_config(&json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1",
            "kind": "NodeConfig",
            "metadata": {"name": "host001"},
            "spec": {"cidr4": "10.25.0.0/24", "gateway4": "169.254.1.77"},
        }));
        assert_eq!(object.config.expect("valid").gateway4.to_string(), "169.254.1.77");
    }

    #[test]
    fn a_pod_serves_from_ready_until_it_is_about_to_go() {
        let of = |status: Value, deleted: Value| {
            pod(&json!({"metadata": {"name": "web-0", "uid": "u", "deletionTimestamp": deleted}, "status": status}))
                .serving
        };
        let ready = |status: &str| json!({"conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": status}]});
        assert!(of(ready("True"), Value::Null));
        assert!(!of(ready("True"), json!("2026-11-26T13:00:00Z")), "it may be ready still, and its end has begun");
        for status in [ready("False"), ready("Unknown"), json!({}), json!({"conditions": null}), Value::Null] {
            assert!(!of(status.clone(), Value::Null), "{status}");
        }
    }

    // covers: FM-D10
    #[test]
    fn what_is_kept_of_a_node_config_gives_all_of_it_again() {
        let peer =
            json!({"name": "tor1", "address": "2001:db8:a25::1", "asn": 65100, "bfd": {"interval": 100}, "later": 1});
        for spec in [
            json!({"cidr6": "2001:db8::/64", "cidr4": "10.0.0.0/24", "mtu": 1400, "later": {"field": 1}}),
            json!({"cidr4": "10.0.0.0/24", "defaults": {"ipv4": false}, "gateway4": "169.254.7.7"}),
            json!({"cidr6": "2001:db8::/64", "peers": "none", "extraPrefixes": ["2001:db8:f::/48"], "proxyNeighbours": "eth0"}),
            json!({"cidr6": "2001:db8::/64", "bgp": {"asn": 65001, "import": ["10.0.0.0/8"], "peers": [peer]}}),
        ] {
            let object = node_config(&json!({
                "apiVersion": "flock.fritzlab.net/v1alpha1",
                "kind": "NodeConfig",
                "metadata": {"name": "n", "uid": "u", "annotations": {"flock.fritzlab.net/ip-algo": "app"}},
                "spec": spec,
            }));
            let again = nodeconfig::read_published(&object.manifest).expect("as it was").0;
            assert_eq!(Ok(again), object.config, "{}", object.manifest);
        }
    }

    // covers: FM-G05
    #[test]
    fn a_newer_schema_does_not_stop_an_older_agent() {
        let object = node_config(&json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig",
            "metadata": {"name": "n", "uid": "u", "generation": 3, "managedFields": [{"a": 1}],
                "annotations": {"flock.fritzlab.net/ip-algo": "app", "odd": 7}},
            "spec": {"cidr6": "2001:db8::/64", "weather": {"mode": "odd"}, "defaults": {"ipv6": true, "ipv9": true},
                "bgp": {"asn": 1, "confederation": 7, "peers": [
                    {"name": "a", "address": "192.0.2.1", "asn": 2, "role": "x", "bfd": {"interval": 50, "echo": true}}]}},
            "status": {"conditions": []},
        }));
        assert_eq!((object.uid.as_str(), object.generation), ("u", 3));
        let config = object.config.expect("valid");
        assert_eq!(config.defaults.ip_algo.as_deref(), Some("app"));
        assert_eq!(config.cidr6.map(|cidr| cidr.to_string()).as_deref(), Some("2001:db8::/64"));
        let says = |place: &str| object.notes.iter().any(|note| note.starts_with(place) && note.contains("ignored"));
        assert_eq!(config.bgp.map(|bgp| bgp.peers.len()), Some(1));
        for place in [
            "spec: the field \"weather\"",
            "spec.defaults: the field \"ipv9\"",
            "spec.bgp: the field \"confederation\"",
            "spec.bgp.peers[0]: the field \"role\"",
            "spec.bgp.peers[0].bfd: the field \"echo\"",
        ] {
            assert!(says(place), "{place}: {:?}", object.notes);
        }
        assert_eq!(object.notes.len(), 5);
    }

    #[test]
    fn what_is_accepted_and_wrong_in_the_api_is_noted() {
        let object = node_config(&json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig",
            "metadata": {"name": "n", "annotations": {"flock.fritzlab.net/ip-algo": "owner", "flock.fritzlab.net/ip-alg": "app"}},
            "spec": {"cidr6": "2001:db8::/64"},
        }));
        assert!(object.config.is_ok());
        assert!(object.notes.len() == 2 && object.notes[0].contains("owner") && object.notes[1].contains("ip-alg"));
        let many: serde_json::Map<String, Value> = (0..100).map(|n| (format!("k{n}"), json!(n))).collect();
        let mut spec = json!({"cidr6": "2001:db8::/64"});
        spec.as_object_mut().expect("an object").extend(many);
        let object = node_config(&json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "n"}, "spec": spec,
        }));
        assert_eq!(object.notes.len(), nodeconfig::NOTES_MAX);
    }

    #[test]
    fn a_bad_configuration_is_an_object_with_a_reason() {
        for (spec, why) in [
            (json!({"cidr6": "2001:db8::1/64"}), "2001:db8::/64"),
            (json!({"cidr4": 7}), "spec.cidr4: 7 is a number"),
            (json!({}), "cidr"),
            (json!("x"), "spec"),
        ] {
            let object = node_config(&json!({
                "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "n"}, "spec": spec,
            }));
            let error = object.config.expect_err("refused");
            assert!(error.contains(why) && !error.contains("line "), "{error}");
        }
    }

    #[test]
    fn the_reason_fits_into_the_status() {
        let object = node_config(&json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "n"},
            "spec": {"cidr4": "10.0.0.0/8", "mtu": "x".repeat(1 << 20)},
        }));
        let reason = object.config.expect_err("refused");
        assert!(reason.len() < 1000, "{} bytes", reason.len());
    }

    // covers: FM-E03
    #[test]
    fn a_pod_is_reduced_to_a_few_hundred_bytes() {
        let reduced = pod(&json!({
            "metadata": {"name": "web-789df685f-x2x4z", "uid": "u1",
                "annotations": {"flock.fritzlab.net/ipv4": "false", "big": "x".repeat(1_000_000), "flock.fritzlab.net/odd": 5},
                "labels": {"pod-template-hash": "789df685f", "app": "other"},
                "ownerReferences": [{"kind": "Node", "name": "n"}, {"kind": "ReplicaSet", "name": "web-789df685f", "controller": true}]},
            "spec": {"containers": [{"image": "registry/web:1", "name": "a"}, {"image": "side"}]},
        }));
        assert_eq!(
            reduced,
            Pod {
                uid: "u1".into(),
                config_hash: None,
                annotations: BTreeMap::from([("flock.fritzlab.net/ipv4".into(), "false".into())]),
                app: "web".into(),
                image: Some("registry/web:1".into()),
                serving: false,
                policing: None,
            }
        );
        let bare =
            pod(&json!({"metadata": {"name": "p", "annotations": null, "labels": null, "ownerReferences": null}}));
        assert_eq!((bare.app.as_str(), bare.image), ("p", None));
    }

    // covers: E-25
    #[test]
    fn a_static_pod_is_known_by_its_mirror() {
        let ordinary = pod(&json!({"metadata": {"name": "p", "uid": "u1"}}));
        assert!(ordinary.is_meant_by(Some("u1")) && ordinary.is_meant_by(None));
        assert!(!ordinary.is_meant_by(Some("u0")), "a pod of the same name that was deleted");
        let annotations = json!({"kubernetes.io/config.mirror": "h4sh", "kubernetes.io/config.hash": "h4sh"});
        let mirror = pod(&json!({"metadata": {"name": "p", "uid": "u1", "annotations": annotations}}));
        assert!(mirror.is_meant_by(Some("h4sh")) && mirror.is_meant_by(Some("u1")));
        assert_eq!(mirror.annotations.len(), 0);
    }
}
