//! What the node's own thread publishes of the node: one value for requests, for the status in the API and for the watchdog,
//! so that no two of them see different truths.
//!
//! Values only. Must not decide anything, and must not know who reads them.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use cni::error::Error;
use model::hostfacts::SeenUplink;
use model::nodeconfig::NodeConfig;
use model::peers::{NextHop, Surroundings};

/// The node at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeState {
    /// What new pods get; none before the first good NodeConfig.
    pub view: Option<Arc<View>>,
    /// Which edit that is of, and since when.
    pub in_force: InForce,
    /// The judgement of the newest NodeConfig, which need not be the one in force.
    pub verdict: Verdict,
    /// What an operator should know about the NodeConfig in force on this host.
    pub host_notes: Vec<String>,
    /// Where the host is among others; as it was at the last survey.
    pub whereabouts: Arc<Whereabouts>,
    /// Whether the host is ready for pods.
    pub host: Readiness,
    /// The link by which packets leave the host; as of the last survey.
    pub uplink: Option<SeenUplink>,
    /// The CNI configuration.
    pub cni: CniConf,
}

/// Which NodeConfig is in force, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InForce {
    /// `metadata.generation`; none for a file, and for one of an earlier run.
    pub generation: Option<i64>,
    /// It is no NodeConfig, but `spec.podCIDRs` of the Node.
    pub pod_cidrs: bool,
    /// Since when, in milliseconds of the boot clock: this agent, or a later edit of what it says.
    pub since: u64,
}

/// The file with the CNI configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CniConf {
    /// The settings name no directory for it.
    #[default]
    Nowhere,
    /// It waits until pods can be served, or could be looked at.
    NotYet(PathBuf),
    /// It is as it should be.
    Stands(PathBuf),
    /// An operator has made it his own.
    Edited(PathBuf),
    /// It cannot be looked at or written; why.
    Failed(PathBuf, String),
}

/// Where the host is among others: what other nodes reach it by, and what a route to them must not take from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The addresses by which other nodes reach this one, best first.
    pub next_hops: Vec<NextHop>,
    /// What the host is connected to.
    pub host: Surroundings,
}

/// The node as it is configured now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The last good NodeConfig.
    pub config: NodeConfig,
    /// MTU for new links, in bytes.
    pub mtu: u32,
    /// The next hop of new pods' IPv4 default route.
    pub gateway4: Ipv4Addr,
}

/// The judgement of the newest NodeConfig, or of what stands for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What was judged.
    pub basis: Basis,
    /// Why it is not in force, or why there is none; none if it is.
    pub problem: Option<String>,
    /// What an operator should know about it though it is in force.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether the newest word about this node is in force. If it is not, an earlier one may be.
    pub fn is_good(&self) -> bool {
        self.basis != Basis::Nothing && self.problem.is_none()
    }

    /// Which edit of which NodeConfig; none when there is none in the API to report on.
    pub fn edit(&self) -> Option<&Edit> {
        match &self.basis {
            Basis::NodeConfig(edit) => Some(edit),
            Basis::Nothing | Basis::File | Basis::PodCidrs(_) => None,
        }
    }
}

/// Where the newest word about this node's ranges comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Basis {
    /// Nobody says any.
    #[default]
    Nothing,
    /// A file.
    File,
    /// This edit of its NodeConfig in the API.
    NodeConfig(Edit),
    /// `spec.podCIDRs` of its Node, which has this uid.
    PodCidrs(String),
}

/// One edit of an object of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.generation`
    pub generation: i64,
}

/// How often the host has been prepared for pods, and with what outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Tries so far.
    pub tries: u64,
    /// The outcome of the latest try; none before the first one.
    pub outcome: Option<Result<(), Error>>,
}

impl Readiness {
    /// Whether the host was ready when it was last looked at.
    pub fn is_ready(&self) -> bool {
        matches!(self.outcome, Some(Ok(())))
    }

    /// Why no pod can be served, as far as anybody has tried.
    pub fn problem(&self) -> Option<&Error> {
        self.outcome.as_ref()?.as_ref().err()
    }

    /// The next readiness, after a try with this outcome.
    #[must_use]
    pub fn after(&self, outcome: Result<(), Error>) -> Readiness {
        Readiness { tries: self.tries + 1, outcome: Some(outcome) }
    }
}
