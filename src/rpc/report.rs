//! How a node is, as the agent answers `NODE` and `flock-agent status -o json` prints it, its metrics, and what it alone knows of
//! an address.
//!
//! Keys are a promise: further ones may come, and none of these changes its name or its meaning. What an earlier agent does not
//! say reads as not there, and what a later one says beyond this is passed over. Values only: must not judge anything.

use serde::{Deserialize, Serialize};

use crate::rpc::message::Answer;

impl Answer for NodeReport {}
impl Answer for Rounds {}
impl Answer for MetricsPage {}

/// The answer to `METRICS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsPage {
    /// The page, as Prometheus reads it.
    pub text: String,
}

impl Answer for WhoseReport {}

/// The node at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeReport {
    /// The node's name.
    pub node: String,
    /// The version of the agent.
    pub version: String,
    /// How long the agent has run.
    pub up_seconds: u64,
    /// Who holds the socket: `agent`, or `service manager`, where callers wait while the agent restarts.
    pub socket: String,
    /// Whether pods get addresses.
    pub ready: bool,
    /// Why, in one line.
    pub why: String,
    /// Where the NodeConfig comes from: a file, or an API server.
    pub source: String,
    /// The NodeConfig in force; none before the first good one.
    pub node_config: Option<ConfigInForce>,
    /// What holds of the node, in the words of its status in the API.
    pub conditions: Vec<Condition>,
    /// What somebody should see to, a line each.
    pub warnings: Vec<String>,
    /// What is heard of the API server; empty without Kubernetes.
    pub api: Vec<Watch>,
    /// Of what the agent proves itself with, what ends first; none if nothing of it ends.
    pub credentials: Option<Credential>,
    /// The host.
    pub host: Host,
    /// The comparisons of record and kernel.
    pub rounds: Rounds,
    /// Recorded attachments.
    pub attachments: u64,
    /// The node's ranges.
    pub families: Vec<Family>,
    /// What the node announces, and how it reaches others.
    pub routing: Routing,
    /// What pods may send and receive.
    pub policy: Policy,
    /// Requests that failed lately, the newest first.
    pub failures: Vec<Failure>,
}

/// The NodeConfig in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigInForce {
    /// `metadata.generation`; none for a file, and for one that is recalled from an earlier run.
    pub generation: Option<i64>,
    /// How long it has been in force, or how long the agent has run.
    pub in_force_seconds: u64,
    /// MTU of new pods, in bytes.
    pub mtu: u32,
}

/// One condition, as in the status of the NodeConfig.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// What is heard of one kind of object of the API server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Watch {
    /// The kind, as RBAC names it.
    pub resource: String,
    /// How long ago the server last said anything of it; none if it never has.
    pub heard_seconds: Option<u64>,
    /// For how long requests have failed; none if they do not.
    pub failing_seconds: Option<u64>,
    /// How the last one failed.
    pub problem: Option<String>,
}

/// A token or certificate that ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credential {
    /// Where it stands.
    pub origin: String,
    /// When it ends, in RFC 3339.
    pub ends: String,
    /// How long it is good until then.
    pub left_seconds: u64,
}

/// The host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Host {
    /// Whether it forwards, and has whatever else pods need of it; none as long as nobody has looked.
    pub prepared: Option<bool>,
    /// Why not.
    pub problem: Option<String>,
    /// The link that packets leave by; none where none do.
    pub uplink: Option<String>,
    /// Its MTU, in bytes.
    pub uplink_mtu: Option<u32>,
    /// The file with the CNI configuration; none where the agent is not to write one.
    pub cni_configuration: Option<String>,
    /// How that is: `in force`, `edited`, `not written yet`, or why it cannot be written.
    pub cni_configuration_state: Option<String>,
}

/// The comparisons of record and kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rounds {
    /// How long ago the last one ended; none before the first.
    pub last_seconds: Option<u64>,
    /// Why the last one failed.
    pub problem: Option<String>,
    /// What was put right since the agent began.
    pub repairs: u64,
    /// How long ago the last repair was.
    pub last_repair_seconds: Option<u64>,
    /// What it was.
    pub last_repair: Option<String>,
}

/// One family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Family {
    /// `ipv6` or `ipv4`.
    pub family: String,
    /// The node's range.
    pub range: String,
    /// Addresses that pods have.
    pub allocated: u64,
    /// Addresses that pods had until just now.
    pub resting: u64,
    /// Addresses that a pod can get at once; the largest number where there are more.
    pub free: u64,
}

/// What the node announces, and how it reaches others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Routing {
    /// `announcing`, `draining` or `withdrawn`.
    pub stage: String,
    /// Prefixes that the node announces; none before it serves pods.
    pub announced: Option<u64>,
    /// Routes to pods of other nodes; none where the node keeps no such routes.
    pub reached: Option<u64>,
    /// The sessions with the peers of `spec.bgp`.
    pub peers: Vec<Peer>,
}

/// A peer of `spec.bgp`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether the session is established.
    pub established: bool,
    /// Prefixes that were sent to it.
    pub sent: u64,
    /// Prefixes of it that are in use.
    pub accepted: u64,
    /// What last ended the session.
    pub last_error: Option<String>,
}

/// What pods may send and receive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// `enforce`, `audit` or `none`; none of them as long as nothing is known.
    pub mode: Option<String>,
    /// Policies in force that select pods of this node.
    pub policies: u64,
    /// Of those, how many are not understood in part.
    pub not_understood: u64,
    /// Pods that they isolate.
    pub isolated_pods: u64,
    /// Of those, pods of which nothing is dropped.
    pub audited: u64,
    /// Pods that send and receive nothing until their policies are known.
    pub quarantined: u64,
    /// Links that are checked for the source of what they send.
    pub checked_links: u64,
}

/// A request that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    /// How long ago it last failed so.
    pub seconds: u64,
    /// How often it failed so in a row.
    pub times: u64,
    /// The verb.
    pub op: String,
    /// The pod, if one was named.
    pub namespace: Option<String>,
    /// The pod, if one was named.
    pub pod: Option<String>,
    /// The container, if one was named.
    pub container_id: Option<String>,
    /// The interface, if one was named.
    pub interface: Option<String>,
    /// The CNI code.
    pub code: u32,
    /// Why.
    pub why: String,
}

/// What the agent alone knows of an address, or of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WhoseReport {
    /// The node's name.
    pub node: String,
    /// The node's ranges.
    pub ranges: Vec<String>,
    /// Other nodes that have the address, as far as they have said so.
    pub others: Vec<OtherNode>,
    /// Whether other nodes were heard; none without Kubernetes, where nobody tells of others.
    pub others_heard: Option<bool>,
    /// What stands for the pod's workload in an address, if the API server has told of the pod.
    pub app: Option<String>,
    /// The pod's first image, if the API server has told of it.
    pub image: Option<String>,
}

/// A node that has an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OtherNode {
    /// Its name.
    pub node: String,
    /// Its range that holds the address.
    pub range: Option<String>,
    /// The pod there that has named the address.
    pub pod: Option<String>,
    /// Whether that pod shares it with others.
    pub shared: bool,
}
