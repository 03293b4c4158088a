//! NetworkPolicy: which pod may send what to whom.
//!
//! A [`World`] is what the cluster says, a [`Subject`] one link of this node. `spec` reads policies as they are written, `compile`
//! makes tables of them, `verdict` answers for one connection from the world alone, and `explain` puts the answer into words. Must
//! not know where the world comes from, nor how tables reach the kernel.
//!
//! What Kubernetes leaves open is decided so:
//!
//! - Everything is judged by the connection: who began it, who answers behind any translation, and his port.
//! - A namespace that is not in the world has no label but its name, and what asks for another label does not select it, be it for
//!   the label's absence.
//! - An address of several pods is each of theirs: it is a peer as long as one of them is, and has each one's named ports.
//! - A named port of an egress rule means the peers that have one of that name; without peers, all pods that have; in a block,
//!   nobody, since a block knows no pods.

pub mod compile;
pub mod digest;
pub mod explain;
pub mod names;
pub mod select;
pub mod spec;
pub mod verdict;
pub mod watching;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::addr::{Family, IfName};
use crate::policy::select::{Labels, Operator, Requirement, Selector};

/// The label that each namespace has of itself, with its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A pod's identity. Pods of one namespace are neighbours in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod as a peer, or as what is behind a link: never one of the host's network, and never a finished one, whose address may be
/// another's by now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, none twice. IPv4 in the form of IPv4.
    pub addresses: Vec<IpAddr>,
    /// The ports of its containers that have a name, none twice. The pods of one workload have the same, which may be one piece of
    /// memory.
    pub ports: Arc<[NamedPort]>,
}

/// A port of a container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: Box<str>,
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// The number.
    pub port: u16,
}

/// A policy, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The pods of its namespace that it isolates.
    pub subjects: Selector,
    /// Who may begin connections to them; `None`: does not isolate them from anybody.
    pub ingress: Option<Vec<Rule>>,
    /// To whom they may begin connections; `None`: as above.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction; `None`: does not isolate.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Egress => self.egress.as_deref(),
            Direction::Ingress => self.ingress.as_deref(),
        }
    }

    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        let rules = [&self.ingress, &self.egress].into_iter().flatten().flatten();
        size_of::<Policy>() + self.subjects.size() + rules.map(Rule::size).sum::<usize>()
    }
}

/// What a piece of memory of its own costs beside what is in it, in bytes.
const PIECE: usize = 16;

impl Rule {
    /// About how much memory it takes, in bytes.
    pub fn size(&self) -> usize {
        let peers = self.peers.iter().map(|peer| match peer {
            Peer::Pods { namespaces: Namespaces::Same, pods } => pods.size(),
            Peer::Pods { namespaces: Namespaces::Selected(namespaces), pods } => namespaces.size() + pods.size(),
            Peer::Block { except, .. } => PIECE + size_of_val(&**except),
        });
        let ports = self.ports.iter().map(|port| match &port.ports {
            Ports::Named(name) => PIECE + name.len(),
            Ports::All | Ports::Numbers(..) => 0,
        });
        let lists = size_of_val(&*self.peers) + size_of_val(&*self.ports);
        size_of::<Rule>() + lists + peers.sum::<usize>() + ports.sum::<usize>()
    }
}

impl Selector {
    /// About how much memory it takes beside itself, in bytes.
    pub fn size(&self) -> usize {
        let each = self.requirements().iter().map(|requirement| {
            let values: &[Box<str>] = match &requirement.operator {
                Operator::In(values) | Operator::NotIn(values) => values,
                Operator::Exists | Operator::DoesNotExist => &[],
            };
            let texts: usize = values.iter().map(|value| PIECE + value.len()).sum();
            size_of::<Requirement>() + 2 * PIECE + requirement.key.len() + size_of_val(values) + texts
        });
        each.sum()
    }
}

/// Whom a pod begins connections with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The pod begins them.
    Egress,
    /// Others begin them.
    Ingress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        })
    }
}

/// What a policy allows: these peers on these ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// The peers; none: everybody.
    pub peers: Vec<Peer>,
    /// The ports; none: all of all protocols.
    pub ports: Vec<Port>,
}

/// A kind of peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Pods.
    Pods {
        /// Of which namespaces.
        namespaces: Namespaces,
        /// Which of them.
        pods: Selector,
    },
    /// Addresses, whoever has them.
    Block {
        /// The range, without host bits.
        cidr: IpNet,
        /// The parts of it that are not meant, each within it and without host bits.
        except: Vec<IpNet>,
    },
}

/// Which namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespaces {
    /// The policy's own.
    Same,
    /// Those with such labels.
    Selected(Selector),
}

/// Ports of one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Which.
    pub ports: Ports,
}

/// Which ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// All.
    All,
    /// From the first to the last, both included.
    Numbers(u16, u16),
    /// The one that has this name where the connection arrives.
    Named(Box<str>),
}

/// What the cluster says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// The labels of each namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// Policies by namespace and name. Whoever else knows them, or pods, has the same ones.
    pub policies: BTreeMap<(String, String), Arc<Policy>>,
    /// Pods.
    pub pods: BTreeMap<PodKey, Arc<Pod>>,
}

/// One link of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The host's end.
    pub link: IfName,
    /// Whose it is; `None`: not known.
    pub pod: Option<PodKey>,
    /// The addresses behind it.
    pub addresses: Vec<IpAddr>,
    /// What policies mean for it.
    pub treatment: Treatment,
}

/// What policies mean for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// What they do not allow is dropped. A link whose pod is not in the world gets nothing.
    Enforce,
    /// What they do not allow is counted, and passes.
    Audit,
    /// They mean nothing.
    Exempt,
    /// Nothing passes, since what holds for it is not known yet.
    Quarantine,
}

/// Whether namespaces are meant: `namespace`, whose labels are these if they are known, from the point of view of a policy of
/// `own`.
pub fn covers(namespaces: &Namespaces, own: &str, namespace: &str, labels: Option<&Labels>) -> bool {
    match (namespaces, labels) {
        (Namespaces::Same, _) => own == namespace,
        (Namespaces::Selected(selector), Some(labels)) => selector.matches(labels),
        (Namespaces::Selected(selector), None) => selector.matches_only(NAME_LABEL, namespace),
    }
}

/// The family of an address.
pub fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

#[cfg(test)]
mod tests;
