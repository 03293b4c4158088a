//! What an operator decides about the agent of a node, as values.
//!
//! Must not know how it is typed: `cli` does.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::agent::routing::bird::Places;
use crate::process::log::line::{Format, Level};

/// Everything that is decided before the agent starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where this node's NodeConfig comes from.
    pub source: ConfigSource,
    /// Whether a node without a NodeConfig in the API has the ranges of its Node, `spec.podCIDRs`.
    pub pod_cidrs: bool,
    /// This node's name; none for the host's.
    pub node_name: Option<String>,
    /// Where the agent listens for the plugin; an absolute path.
    pub socket: PathBuf,
    /// The directory in which it keeps the lease log.
    pub state_dir: PathBuf,
    /// The directory with the policies of a node without Kubernetes; none if there are no policies.
    pub policy_dir: Option<PathBuf>,
    /// The directory in which it writes the CNI configuration once it can serve; none if it is not to write one.
    pub cni_conf_dir: Option<PathBuf>,
    /// Allocations of the Go flock, taken over at the start if the file is there.
    pub import: PathBuf,
    /// Where BIRD is, for a node whose NodeConfig has peers.
    pub bird: Places,
    /// Where metrics can be asked for; none where nobody may.
    pub metrics: Option<SocketAddr>,
    /// What a line of the log looks like.
    pub log_format: Format,
    /// The least important lines that are written.
    pub log_level: Level,
}

/// Where the NodeConfig comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// A file, without Kubernetes.
    File(PathBuf),
    /// The API, reached as this kubeconfig says.
    Kubeconfig(PathBuf),
    /// The API, reached by the service account of the pod that the agent runs in.
    Pod,
}
