//! Whether a connection is allowed, and by what or why not, told from the world alone.
//!
//! The table is not read for it, so that the two can be compared. It must not put anything into words: that is for `explain`.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::addr::IfName;
use crate::policy::names;
use crate::policy::select::Selector;
use crate::policy::{
    Direction, Namespaces, Peer, Pod, PodKey, Policy, Port, Ports, Rule, Subject, Treatment, World, covers, family,
};

/// Somebody who begins or gets a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address that policies see: of who begins as he wrote it, of who answers behind any translation.
    pub address: IpAddr,
    /// The link of this node that it is behind.
    pub link: Option<IfName>,
}

/// A connection that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Who begins it.
    pub from: Endpoint,
    /// Who gets it.
    pub to: Endpoint,
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Where it arrives; 0 for a protocol without ports.
    pub port: u16,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A pod and itself: always allowed.
    Itself,
    /// What the policies of both say.
    Judged {
        /// Of who begins it.
        egress: Side,
        /// Of who gets it.
        ingress: Side,
    },
}

impl Verdict {
    /// Whether packets pass.
    pub fn passes(&self) -> bool {
        match self {
            Verdict::Itself => true,
            Verdict::Judged { egress, ingress } => egress.passes() && ingress.passes(),
        }
    }
}

/// What the policies of one of the two say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// He is not behind a link of this node: his own node judges, if he is a pod.
    Elsewhere,
    /// No policy holds for this link.
    Exempt,
    /// Nothing passes, since it is not known what holds. The pod, if that is known.
    Quarantined(Option<PodKey>),
    /// No policy selects the pod in this direction.
    Free(PodKey),
    /// Policies select it.
    Isolated {
        /// The pod.
        pod: PodKey,
        /// What is not allowed passes all the same.
        audit: bool,
        /// The chain of its set of policies in the kernel.
        chain: String,
        /// Each of them in the order of their names, up to the first that allows it.
        policies: Vec<Tried>,
    },
}

impl Side {
    /// Whether packets pass.
    pub fn passes(&self) -> bool {
        match self {
            Side::Elsewhere | Side::Exempt | Side::Free(_) => true,
            Side::Quarantined(_) => false,
            Side::Isolated { audit, .. } => *audit || self.allowed().is_some(),
        }
    }

    /// The policy that allows it, and how.
    pub fn allowed(&self) -> Option<(&Tried, &Allowance)> {
        let Side::Isolated { policies, .. } = self else { return None };
        policies.iter().find_map(|tried| match &tried.outcome {
            Outcome::Allows(allowance) => Some((tried, allowance)),
            Outcome::Denies(_) => None,
        })
    }
}

/// A policy that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Its name.
    pub policy: String,
    /// Its chain in the kernel.
    pub chain: String,
    /// What it says.
    pub outcome: Outcome,
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It allows it.
    Allows(Allowance),
    /// It does not: why, rule by rule. Without a rule, it allows nothing.
    Denies(Vec<Miss>),
}

/// How a policy allows a connection. Numbers count from 0, as paths of fields do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// The rule.
    pub rule: usize,
    /// Which of its peers; `None`: it allows everybody.
    pub peer: Option<usize>,
    /// Which of its ports; `None`: it allows all.
    pub port: Option<usize>,
    /// The sets and the list of ports in the kernel that say so.
    pub names: Vec<String>,
}

/// Why a rule does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// The other one is none of its peers.
    Peer {
        /// The sets that were looked at, if there are any of this family.
        sets: Vec<String>,
        /// Why he is none, peer by peer.
        strangers: Vec<Stranger>,
    },
    /// The other one is a peer; which. The port is none of its ports.
    Port(Option<usize>),
}

/// Why somebody is none of the peers that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stranger {
    /// His address is not in this block.
    Outside(IpNet),
    /// His address is in this range, which the block leaves out.
    Excepted(IpNet),
    /// Pods are meant, and no known pod has his address.
    NoPod,
    /// Pods of the policy's own namespace are meant, and he is this pod.
    Elsewhere(PodKey),
    /// Pods of other namespaces are meant: this selector does not match the namespace of this pod.
    Namespace(Selector, PodKey),
    /// Other pods are meant: this selector does not match this pod.
    Labels(Selector, PodKey),
}

/// What the policies say about a connection.
pub fn verdict(world: &World, subjects: &[Subject], question: &Question) -> Verdict {
    let Question { from, to, .. } = question;
    let found = |end: &Endpoint| {
        let link = end.link.as_ref()?;
        subjects.iter().find(|subject| subject.link == *link)
    };
    if from.link.is_some() && from.link == to.link && found(from).is_some() {
        return Verdict::Itself;
    }
    let side = |end, direction| {
        found(end).map_or(Side::Elsewhere, |subject| side(world, subjects, subject, direction, question))
    };
    Verdict::Judged { egress: side(from, Direction::Egress), ingress: side(to, Direction::Ingress) }
}

fn side(world: &World, subjects: &[Subject], subject: &Subject, direction: Direction, question: &Question) -> Side {
    let audit = subject.treatment == Treatment::Audit;
    let known = subject.pod.as_ref().and_then(|key| Some((key, world.pods.get(key)?)));
    let (key, pod) = match (subject.treatment, known) {
        (Treatment::Exempt, _) => return Side::Exempt,
        (Treatment::Enforce | Treatment::Audit, Some(known)) => known,
        (Treatment::Audit, None) => return Side::Exempt,
        (Treatment::Quarantine, _) | (Treatment::Enforce, None) => return Side::Quarantined(subject.pod.clone()),
    };
    let isolating: Vec<(&String, &Policy)> = world
        .policies
        .iter()
        .filter(|((namespace, _), policy)| {
            **namespace == *key.namespace && policy.rules(direction).is_some() && policy.subjects.matches(&pod.labels)
        })
        .map(|((_, name), policy)| (name, &**policy))
        .collect();
    if isolating.is_empty() {
        return Side::Free(key.clone());
    }
    let chain = names::group(&key.namespace, isolating.iter().map(|(name, _)| name.as_str()), direction);
    let other = match direction {
        Direction::Egress => question.to.address,
        Direction::Ingress => question.from.address,
    };
    let pods = world.pods.iter().map(|(key, pod)| (key, &**pod));
    let there = pods.filter(|(_, pod)| pod.addresses.contains(&other)).collect();
    let asked = Asked { world, subjects, own: &key.namespace, direction, question, other, there };
    let mut policies = Vec::new();
    for (name, policy) in isolating {
        let outcome = asked.outcome(policy.rules(direction).unwrap_or_default());
        let allows = matches!(outcome, Outcome::Allows(_));
        let chain = names::policy(&key.namespace, name, direction);
        policies.push(Tried { policy: name.clone(), chain, outcome });
        if allows {
            break;
        }
    }
    Side::Isolated { pod: key.clone(), audit, chain, policies }
}

/// A question to the policies of one namespace, in one direction.
struct Asked<'a> {
    world: &'a World,
    subjects: &'a [Subject],
    own: &'a str,
    direction: Direction,
    question: &'a Question,
    /// The address of the other one.
    other: IpAddr,
    /// The pods that have it.
    there: Vec<(&'a PodKey, &'a Pod)>,
}

impl Asked<'_> {
    fn outcome(&self, rules: &[Rule]) -> Outcome {
        let mut misses = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            match self.rule(number, rule) {
                Ok(allowance) => return Outcome::Allows(allowance),
                Err(miss) => misses.push(miss),
            }
        }
        Outcome::Denies(misses)
    }

    /// How a rule allows it, or why it does not.
    fn rule(&self, number: usize, rule: &Rule) -> Result<Allowance, Miss> {
        // Without peers, everybody is one.
        let everybody = rule.peers.is_empty().then_some((None, None));
        let listed = rule.peers.iter().enumerate().map(|(number, peer)| (Some(number), Some(peer)));
        let mut hit = None;
        for (at, peer) in everybody.into_iter().chain(listed) {
            if !peer.is_none_or(|peer| self.is_peer(peer)) {
                continue;
            }
            hit = hit.or(Some(at));
            let set = || peer.map(|peer| self.set(peer));
            let allowance = |port, names| Allowance { rule: number, peer: at, port, names };
            if rule.ports.is_empty() {
                return Ok(allowance(None, set().into_iter().collect()));
            }
            for (port, wanted) in rule.ports.iter().enumerate() {
                if let Some(by) = self.is_port(rule, peer, wanted) {
                    // The set of the named ports of peers says both.
                    let both = self.direction == Direction::Egress && is_named(wanted);
                    let set = if both { None } else { set() };
                    return Ok(allowance(Some(port), set.into_iter().chain([by]).collect()));
                }
            }
        }
        let strangers = || rule.peers.iter().map(|peer| self.stranger(peer)).collect();
        Err(hit.map_or_else(|| Miss::Peer { sets: self.peer_sets(rule), strangers: strangers() }, Miss::Port))
    }

    /// Why the other one is not this peer.
    fn stranger(&self, peer: &Peer) -> Stranger {
        match peer {
            Peer::Block { cidr, except } => match except.iter().find(|net| net.contains(&self.other)) {
                Some(net) => Stranger::Excepted(*net),
                None => Stranger::Outside(*cidr),
            },
            Peer::Pods { namespaces, pods } => {
                let Some((key, _)) = self.there.first() else { return Stranger::NoPod };
                let key = (*key).clone();
                let labels = self.world.namespaces.get(&*key.namespace);
                match (covers(namespaces, self.own, &key.namespace, labels), namespaces) {
                    (true, _) => Stranger::Labels(pods.clone(), key),
                    (false, Namespaces::Same) => Stranger::Elsewhere(key),
                    (false, Namespaces::Selected(selector)) => Stranger::Namespace(selector.clone(), key),
                }
            }
        }
    }

    /// The sets in which the kernel looks for a rule's peers.
    fn peer_sets(&self, rule: &Rule) -> Vec<String> {
        let by_address =
            self.direction == Direction::Ingress || rule.ports.is_empty() || !rule.ports.iter().all(is_named);
        let mut sets = Vec::new();
        for peer in rule.peers.iter().filter(|peer| self.is_of_family(peer)) {
            if by_address {
                sets.push(self.set(peer));
            }
            let ports = rule.ports.iter().filter(|_| self.direction == Direction::Egress);
            if let Peer::Pods { namespaces, pods } = peer {
                let named = ports.filter_map(|port| match &port.ports {
                    Ports::Named(name) => Some(names::named(self.own, namespaces, pods, name, port.protocol)),
                    Ports::All | Ports::Numbers(..) => None,
                });
                sets.extend(named.map(|set| names::of_family(&set, family(self.other))));
            }
        }
        sets
    }

    fn is_of_family(&self, peer: &Peer) -> bool {
        !matches!(peer, Peer::Block { cidr, .. } if family(cidr.network()) != family(self.other))
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Block { cidr, except } => {
                cidr.contains(&self.other) && !except.iter().any(|net| net.contains(&self.other))
            }
            Peer::Pods { namespaces, pods } => self.selected(namespaces, pods).next().is_some(),
        }
    }

    /// Those of the pods with the other one's address that are selected.
    fn selected(&self, namespaces: &Namespaces, pods: &Selector) -> impl Iterator<Item = &Pod> {
        let selected = self.there.iter().filter(move |(key, pod)| {
            let labels = self.world.namespaces.get(&*key.namespace);
            pods.matches(&pod.labels) && covers(namespaces, self.own, &key.namespace, labels)
        });
        selected.map(|(_, pod)| *pod)
    }

    /// The name of the set, or of the list of ports, that has the port, for a peer of the rule that the other one is.
    fn is_port(&self, rule: &Rule, peer: Option<&Peer>, port: &Port) -> Option<String> {
        let Question { to, protocol, port: number, .. } = self.question;
        if port.protocol != *protocol {
            return None;
        }
        let name = match &port.ports {
            Ports::All => return Some(self.list(rule)),
            Ports::Numbers(first, last) => return (first..=last).contains(&number).then(|| self.list(rule)),
            Ports::Named(name) => name,
        };
        let has_it = |pod: &Pod| {
            let mut ports = pod.ports.iter();
            ports.any(|has| has.name == *name && has.protocol == *protocol && has.port == *number)
        };
        let (has, set) = match (self.direction, peer) {
            (Direction::Ingress, _) => {
                let own = self.subjects.iter().filter(|subject| subject.addresses.contains(&to.address));
                let keys = own.filter_map(|subject| subject.pod.as_ref());
                let mut pods =
                    keys.filter(|key| *key.namespace == *self.own).filter_map(|key| self.world.pods.get(key));
                (pods.any(|pod| has_it(pod)), names::local(self.own, name, *protocol))
            }
            (Direction::Egress, Some(Peer::Block { .. })) => return None,
            (Direction::Egress, peer) => {
                let anybody = (Namespaces::Selected(Selector::default()), Selector::default());
                let (namespaces, pods) = match peer {
                    Some(Peer::Pods { namespaces, pods }) => (namespaces, pods),
                    _ => (&anybody.0, &anybody.1),
                };
                let has = self.selected(namespaces, pods).any(has_it);
                (has, names::named(self.own, namespaces, pods, name, *protocol))
            }
        };
        has.then(|| names::of_family(&set, family(to.address)))
    }

    /// The set of a peer in the kernel.
    fn set(&self, peer: &Peer) -> String {
        let set = match peer {
            Peer::Pods { namespaces, pods } => names::pods(self.own, namespaces, pods),
            Peer::Block { cidr, except } => names::block(cidr, except),
        };
        names::of_family(&set, family(self.other))
    }

    /// The list of a rule's ports that have numbers.
    fn list(&self, rule: &Rule) -> String {
        let mut ports: Vec<Port> = rule.ports.iter().filter(|port| !is_named(port)).cloned().collect();
        ports.sort_unstable();
        ports.dedup();
        names::ports(&ports)
    }
}

fn is_named(port: &Port) -> bool {
    matches!(port.ports, Ports::Named(_))
}
