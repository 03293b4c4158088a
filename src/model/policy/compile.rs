//! From the world to the policy's part of the table, as a whole and change by change.
//!
//! A link leads to the chain of its set of policies, that to the chains of the policies, and those to lists of ports and sets of
//! addresses, which all who need them share. What nobody needs any more goes. Both ways, the whole and the change, are the same
//! code, so that after any changes the table is what compiling anew would give. It must not know how tables reach the kernel, nor
//! what the epoch was before.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::addr::{Family, IfName, POD_LINKS};
use crate::excerpt::cut;
use crate::guard::FILTER;
use crate::policy::names;
use crate::policy::select::{Labels, Selector};
use crate::policy::{
    Direction, NamedPort, Namespaces, Peer, Pod, PodKey, Policy, Port, Ports, Subject, Treatment, World, covers, family,
};
use crate::protocol::{ICMP, ICMP6};
use crate::ruleset::diff::Change;
use crate::ruleset::{
    Base, CT_ESTABLISHED, CT_NEW, CT_RELATED, Chain, ChainKind, Element, End, Field, Form, Hook, Op, Rule, Set,
    Statement, Table, Value, Verdict,
};

/// Longest text before a line of the kernel's log, in bytes.
const PREFIX_MAX: usize = 127;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// What holds for the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The bits of the connection mark that are flock's.
    pub mask: u32,
    /// Their value for connections that were allowed since the last revocation; `None`, or none of the bits: no connection is
    /// remembered, and each packet is judged.
    pub epoch: Option<u32>,
    /// What is allowed is remembered. Right behind a revocation it is not: a packet that was judged by the former rules may not
    /// have reached the end of its way when the new ones come, and would be remembered as judged by these.
    pub seals: bool,
    /// What is dropped, or would be, is written to the kernel's log.
    pub log: Option<Log>,
}

/// How much is logged for each link and direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Lines per second.
    pub rate: u32,
    /// How many may come at once.
    pub burst: u32,
}

/// The policy's part of the table, and what is needed to change it.
///
/// Of changes that come together, those of pods are told first, then those of namespaces, then policies, then links, with the world
/// as it is behind all of them: a set that is new takes what the world has, and would count what is told of it afterwards twice.
#[derive(Debug, Clone)]
pub struct Compiled {
    settings: Settings,
    table: Table,
    /// The labels of each namespace.
    namespaces: BTreeMap<String, Labels>,
    /// How many rules lead to each chain and each set.
    uses: BTreeMap<String, u32>,
    /// What the sets of pods mean, by their names without the family.
    selections: BTreeMap<String, Selection>,
    /// How many more pods than one have an element, for those that several have, by set.
    shared: BTreeMap<String, BTreeMap<Element, u32>>,
    /// The links.
    subjects: BTreeMap<IfName, Placed>,
    /// The links of each pod.
    links: BTreeMap<PodKey, BTreeSet<IfName>>,
}

/// What a change of the world comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The changes of the table, in an order that the kernel takes.
    pub changes: Vec<Change>,
    /// Something is taken away that a live connection may need: the epoch has to move with the changes.
    pub revokes: bool,
}

/// What a set of pods means.
#[derive(Debug, Clone)]
enum Selection {
    /// The addresses of pods, or with `port` the ports of that name and protocol that they have.
    Peers { own: String, namespaces: Namespaces, pods: Selector, port: Option<(Box<str>, u8)> },
    /// The ports of that name and protocol that the pods behind links of this node have.
    Local { namespace: String, port: (Box<str>, u8) },
}

/// A link, and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    subject: Subject,
    /// The named ports of its pod.
    ports: Arc<[NamedPort]>,
    fates: [Fate; 2],
}

/// What becomes of the connections of a link in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// They pass.
    Open,
    /// They do not.
    Quarantine,
    /// These policies of its namespace say it, by name.
    Isolated(Vec<String>),
}

/// The policy's part of the table for this world and these links. Empty when no policy selects any of them.
pub fn compile(world: &World, subjects: &[Subject], settings: &Settings) -> Compiled {
    let mut compiled = Compiled {
        settings: *settings,
        table: Table::default(),
        namespaces: world.namespaces.clone(),
        uses: BTreeMap::new(),
        selections: BTreeMap::new(),
        shared: BTreeMap::new(),
        subjects: BTreeMap::new(),
        links: BTreeMap::new(),
    };
    let crowd = Crowd::of(world);
    for subject in subjects {
        let placed = placed(world, subject);
        compiled.remember(&subject.link, Some(placed));
    }
    for (link, placed) in compiled.subjects.clone() {
        compiled.lead(&crowd, &link, [&Fate::Open; 2], Some(&placed), &mut Changes(None));
    }
    compiled
}

impl Compiled {
    /// The table's part.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The pods that policies isolate, in one direction at least, and whether what these forbid is dropped.
    pub fn isolated(&self) -> BTreeMap<&PodKey, Treatment> {
        let isolated = |placed: &Placed| placed.fates.iter().any(|fate| matches!(fate, Fate::Isolated(_)));
        let placed = self.subjects.values().filter(|placed| isolated(placed));
        placed.filter_map(|placed| Some((placed.subject.pod.as_ref()?, placed.subject.treatment))).collect()
    }

    /// The links of a pod.
    pub fn links_of(&self, pod: &PodKey) -> impl Iterator<Item = &IfName> {
        self.links.get(pod).into_iter().flatten()
    }

    /// A pod came, changed, or is gone, be it from a view of chosen pods only, and still there. Changes elements of sets
    /// only. If the pod has links here ([`Compiled::links_of`]), each of them has to be looked at as well, by
    /// [`Compiled::subject_changed`].
    pub fn pod_changed(&mut self, before: Option<(&PodKey, &Pod)>, after: Option<(&PodKey, &Pod)>) -> Step {
        let mut changes = Changes(Some(Vec::new()));
        let selections = core::mem::take(&mut self.selections);
        let mut takes = false;
        for (name, selection) in &selections {
            let [old, new] = [before, after].map(|pod| match pod {
                Some((key, pod)) if self.selects(selection, key, &pod.labels) => selection.elements(pod),
                _ => BTreeSet::new(),
            });
            takes |= self.exchange(name, selection, &old, &new, &mut changes);
        }
        self.selections = selections;
        changes.step(takes)
    }

    /// A namespace came, is gone, or has other labels. Changes elements of sets only.
    pub fn namespace_changed(&mut self, world: &World, namespace: &str, after: Option<&Labels>) -> Step {
        let mut changes = Changes(Some(Vec::new()));
        let before = match after {
            Some(labels) => self.namespaces.insert(namespace.into(), labels.clone()),
            None => self.namespaces.remove(namespace),
        };
        let first = PodKey { namespace: namespace.into(), name: String::new() };
        let members = || world.pods.range(&first..).take_while(|(key, _)| *key.namespace == *namespace);
        let selections = core::mem::take(&mut self.selections);
        let mut takes = false;
        for (name, selection) in &selections {
            let Selection::Peers { own, namespaces, pods, .. } = selection else { continue };
            let [was, is] = [before.as_ref(), after].map(|labels| covers(namespaces, own, namespace, labels));
            for (_, pod) in members().filter(|(_, pod)| was != is && pods.matches(&pod.labels)) {
                let (these, none) = (selection.elements(pod), BTreeSet::new());
                let (old, new) = if was { (&these, &none) } else { (&none, &these) };
                takes |= self.exchange(name, selection, old, new, &mut changes);
            }
        }
        self.selections = selections;
        changes.step(takes)
    }

    /// A policy came, changed, or is gone from `world`.
    pub fn policy_changed(&mut self, world: &World, namespace: &str, name: &str) -> Step {
        let mut changes = Changes(Some(Vec::new()));
        let crowd = Crowd::of(world);
        let mut revokes = false;
        if let Some(policy) = world.policies.get(&(namespace.to_string(), name.to_string())) {
            for direction in DIRECTIONS {
                let chain = names::policy(namespace, name, direction);
                let Some(old) = self.table.chains.get(&chain).map(|chain| chain.rules.clone()) else { continue };
                let rules = self.policy(&crowd, namespace, policy, direction, &mut changes);
                revokes |= !only_more(&old, &rules);
                self.put_chain(&chain, rules, &mut changes);
            }
        }
        let of_namespace =
            |placed: &&Placed| placed.subject.pod.as_ref().is_some_and(|pod| *pod.namespace == *namespace);
        let links: Vec<Subject> =
            self.subjects.values().filter(of_namespace).map(|placed| placed.subject.clone()).collect();
        for subject in links {
            revokes |= self.replace(&crowd, &subject.link, Some(placed(world, &subject)), &mut changes);
        }
        changes.step(revokes)
    }

    /// A link came, is gone, or its pod or what is known of it changed. The chains and sets that only this link needs come and go
    /// with it.
    pub fn subject_changed(&mut self, world: &World, link: &IfName, after: Option<&Subject>) -> Step {
        let mut changes = Changes(Some(Vec::new()));
        let after = after.map(|subject| placed(world, subject));
        let revokes = self.replace(&Crowd::of(world), link, after, &mut changes);
        changes.step(revokes)
    }

    /// A link is what it is from now on. Whether that takes something from it that it could before.
    fn replace(&mut self, crowd: &Crowd<'_>, link: &IfName, after: Option<Placed>, changes: &mut Changes) -> bool {
        let before = self.remember(link, after.clone());
        if before == after {
            return false;
        }
        let selections = core::mem::take(&mut self.selections);
        let mut takes = false;
        for (name, selection) in selections.iter().filter(|(_, selection)| matches!(selection, Selection::Local { .. }))
        {
            let [old, new] = [&before, &after].map(|placed| selection.local(placed.as_ref()));
            takes |= self.exchange(name, selection, &old, &new, changes);
        }
        self.selections = selections;
        let old = before.as_ref().map_or([&Fate::Open; 2], |placed| placed.fates.each_ref());
        self.lead(crowd, link, old, after.as_ref(), changes);
        before.zip(after).is_some_and(|(before, after)| takes || before.may_more_than(&after))
    }

    /// Whether something that `before` allowed to a link that is still there is not allowed any more, or may not be: policies
    /// that changed other than by addition, addresses that are in a set no more, a link that is isolated now. True in doubt.
    pub fn revokes(&self, before: &Compiled) -> bool {
        let links = before.subjects.iter().filter_map(|(link, old)| Some((old, self.subjects.get(link)?)));
        let mut both = links.peekable();
        if both.peek().is_none() {
            return false;
        }
        if both.any(|(old, new)| old.may_more_than(new)) {
            return true;
        }
        let chains = before.table.chains.iter().filter(|(name, _)| name.starts_with(names::POLICY));
        let mut chains = chains.filter_map(|(name, chain)| Some((chain, self.table.chains.get(name)?)));
        let sets = before.table.sets.iter().filter(|(name, _)| *name != names::SELF);
        let mut sets = sets.filter_map(|(name, set)| Some((set, self.table.sets.get(name)?)));
        chains.any(|(old, new)| !only_more(&old.rules, &new.rules))
            || sets.any(|(old, new)| !old.elements.is_subset(&new.elements))
    }

    /// Another value says from now on which connections were allowed: each is judged anew by its next packet. None is remembered
    /// until [`Compiled::seals_again`].
    pub fn epoch_changed(&mut self, epoch: Option<u32>) -> Vec<Change> {
        (self.settings.epoch, self.settings.seals) = (epoch, false);
        self.base_changed()
    }

    /// What is allowed is remembered from now on. To be said when the last packet that the former rules have judged has gone its
    /// way.
    pub fn seals_again(&mut self) -> Vec<Change> {
        self.settings.seals = true;
        self.base_changed()
    }

    fn base_changed(&mut self) -> Vec<Change> {
        let mut changes = Changes(Some(Vec::new()));
        for (name, chain) in base_chains(&self.settings) {
            let known = self.table.chains.get_mut(name).filter(|known| known.rules != chain.rules);
            if let Some(known) = known {
                known.rules = chain.rules.clone();
                changes.push(|| Change::PutRules(FILTER, name.into(), chain.rules));
            }
        }
        changes.0.unwrap_or_default()
    }

    fn selects(&self, selection: &Selection, key: &PodKey, labels: &Labels) -> bool {
        match selection {
            Selection::Peers { own, namespaces, pods, .. } => {
                let known = self.namespaces.get(&*key.namespace);
                covers(namespaces, own, &key.namespace, known) && pods.matches(labels)
            }
            Selection::Local { .. } => false,
        }
    }

    /// Keeps a link, or forgets it, and says what it was.
    fn remember(&mut self, link: &IfName, placed: Option<Placed>) -> Option<Placed> {
        let pod = placed.as_ref().and_then(|placed| placed.subject.pod.clone());
        let before = match placed {
            Some(placed) => self.subjects.insert(link.clone(), placed),
            None => self.subjects.remove(link),
        };
        if let Some(pod) = before.as_ref().and_then(|before| before.subject.pod.as_ref())
            && let Some(links) = self.links.get_mut(pod)
        {
            links.remove(link);
            if links.is_empty() {
                self.links.remove(pod);
            }
        }
        if let Some(pod) = pod {
            self.links.entry(pod).or_default().insert(link.clone());
        }
        before
    }

    /// Takes elements that are a pod's no more out of a set of each family, and puts new ones in. Whether any was taken out.
    fn exchange(
        &mut self,
        name: &str,
        selection: &Selection,
        old: &BTreeSet<Element>,
        new: &BTreeSet<Element>,
        changes: &mut Changes,
    ) -> bool {
        let mut takes = false;
        if old == new {
            return takes;
        }
        for family in FAMILIES {
            let of_family = |element: &&Element| element_family(element) == Some(family);
            let set = names::of_family(name, family);
            let gone: Vec<Element> =
                old.difference(new).filter(of_family).filter(|element| self.take(&set, element)).cloned().collect();
            let come: Vec<Element> =
                new.difference(old).filter(of_family).filter(|element| self.put(&set, element)).cloned().collect();
            let form = selection.form(family);
            if !gone.is_empty() {
                takes = true;
                changes.push(|| Change::RemoveElements(FILTER, set.clone(), form, gone));
            }
            if !come.is_empty() {
                changes.push(|| Change::AddElements(FILTER, set, form, come));
            }
        }
        takes
    }

    /// One more pod has the element; whether it is new.
    fn put(&mut self, set: &str, element: &Element) -> bool {
        let Some(known) = self.table.sets.get_mut(set) else { return false };
        let new = known.elements.insert(element.clone());
        if !new {
            *self.shared.entry(set.into()).or_default().entry(element.clone()).or_default() += 1;
        }
        new
    }

    /// One pod less has the element; whether it was the last.
    fn take(&mut self, set: &str, element: &Element) -> bool {
        if let Some(shared) = self.shared.get_mut(set)
            && let Some(more) = shared.get_mut(element)
        {
            *more -= 1;
            if *more == 0 {
                shared.remove(element);
            }
            if shared.is_empty() {
                self.shared.remove(set);
            }
            return false;
        }
        self.table.sets.get_mut(set).is_some_and(|known| known.elements.remove(element))
    }

    /// Leads the packets of a link to what is wanted, where they went to what was.
    fn lead(
        &mut self,
        crowd: &Crowd<'_>,
        link: &IfName,
        old: [&Fate; 2],
        wanted: Option<&Placed>,
        changes: &mut Changes,
    ) {
        let open = [&Fate::Open; 2];
        let new = wanted.map_or(open, |placed| placed.fates.each_ref());
        if new != open {
            self.enter(changes);
        }
        let mut leaving = Vec::new();
        for (direction, (old, new)) in DIRECTIONS.into_iter().zip(old.into_iter().zip(new)) {
            let chain = names::link(link, direction);
            if let (Fate::Isolated(policies), Some(placed)) = (new, wanted) {
                let group = self.group(crowd, placed, policies, direction, changes);
                let rules = self.link_rules(placed, group, direction);
                self.put_chain(&chain, rules, changes);
            }
            let target = |fate: &Fate| match fate {
                Fate::Open => None,
                Fate::Quarantine => Some(Verdict::Goto(names::QUARANTINE.into())),
                Fate::Isolated(_) => Some(Verdict::Goto(chain.clone())),
            };
            let (from, to) = (target(old), target(new));
            if from != to {
                let map = names::map(direction);
                let links = self.table.maps.entry(map.into()).or_default();
                if from.is_some() {
                    links.remove(link);
                    changes.push(|| Change::RemoveLinks(FILTER, map.into(), vec![link.clone()]));
                }
                if let Some(to) = to {
                    links.insert(link.clone(), to.clone());
                    changes.push(|| Change::AddLinks(FILTER, map.into(), vec![(link.clone(), to)]));
                }
            }
            if matches!(old, Fate::Isolated(_)) && !matches!(new, Fate::Isolated(_)) {
                leaving.push(chain);
            }
        }
        for chain in leaving {
            self.remove_chain(&chain, changes);
        }
        self.pair(link, new != open, changes);
        self.leave(changes);
    }

    /// Puts (link, link) into the set of pods and themselves, or takes it out.
    fn pair(&mut self, link: &IfName, wanted: bool, changes: &mut Changes) {
        let Some(set) = self.table.sets.get_mut(names::SELF) else { return };
        let pair = Element::Links(link.clone(), link.clone());
        if wanted && set.elements.insert(pair.clone()) {
            changes.push(|| Change::AddElements(FILTER, names::SELF.into(), Form::LinkPairs, vec![pair]));
        } else if !wanted && set.elements.remove(&pair) {
            changes.push(|| Change::RemoveElements(FILTER, names::SELF.into(), Form::LinkPairs, vec![pair]));
        }
    }

    /// Makes what every table with policies has.
    fn enter(&mut self, changes: &mut Changes) {
        if self.table.chains.contains_key(names::EGRESS) {
            return;
        }
        self.add_set(names::SELF, Form::LinkPairs, BTreeSet::new(), changes);
        for direction in DIRECTIONS {
            let map = names::map(direction);
            self.table.maps.entry(map.into()).or_default();
            changes.push(|| Change::AddMap(FILTER, map.into()));
        }
        for (name, chain) in base_chains(&self.settings) {
            changes.push(|| Change::AddChain(FILTER, name.into(), chain.base));
            changes.push(|| Change::PutRules(FILTER, name.into(), chain.rules.clone()));
            self.table.chains.insert(name.into(), chain);
        }
    }

    /// Removes that when no link needs it any more.
    fn leave(&mut self, changes: &mut Changes) {
        if self.table.maps.values().any(|links| !links.is_empty()) || self.table.maps.is_empty() {
            return;
        }
        for (name, _) in base_chains(&self.settings).into_iter().rev() {
            self.table.chains.remove(name);
            changes.push(|| Change::RemoveChain(FILTER, name.into()));
        }
        for direction in DIRECTIONS {
            let map = names::map(direction);
            self.table.maps.remove(map);
            changes.push(|| Change::RemoveMap(FILTER, map.into()));
        }
        self.remove_set(names::SELF, changes);
    }

    fn link_rules(&self, placed: &Placed, group: String, direction: Direction) -> Vec<Rule> {
        let mut rules = vec![vec![Statement::Verdict(Verdict::Jump(group))]];
        if let Some(Log { rate, burst }) = self.settings.log {
            let pod = placed.subject.pod.as_ref().map(ToString::to_string).unwrap_or_default();
            let what = if placed.audit() { "would drop" } else { "drop" };
            let prefix = log_prefix(&format!("flock {what} {direction} {pod}"));
            rules.push(vec![Statement::AtMost { rate, burst }, Statement::Log(prefix)]);
        }
        let verdict = if placed.audit() { Verdict::Accept } else { Verdict::Drop };
        rules.push(vec![Statement::Count, Statement::Verdict(verdict)]);
        rules
    }

    /// The chain of a set of policies, made if it is not there.
    fn group(
        &mut self,
        crowd: &Crowd<'_>,
        placed: &Placed,
        policies: &[String],
        direction: Direction,
        changes: &mut Changes,
    ) -> String {
        let namespace = placed.subject.pod.as_ref().map_or("", |pod| &pod.namespace);
        let name = names::group(namespace, policies.iter().map(String::as_str), direction);
        if !self.table.chains.contains_key(&name) {
            let mut rules = Vec::new();
            for policy in policies {
                let chain = names::policy(namespace, policy, direction);
                if !self.table.chains.contains_key(&chain) {
                    let key = (namespace.to_string(), policy.clone());
                    let found = crowd.world.policies.get(&key);
                    let allowed = found.map(|found| self.policy(crowd, namespace, found, direction, changes));
                    self.put_chain(&chain, allowed.unwrap_or_default(), changes);
                }
                rules.push(vec![Statement::Verdict(Verdict::Jump(chain))]);
            }
            self.put_chain(&name, rules, changes);
        }
        name
    }

    /// The rules of one direction of a policy.
    fn policy(
        &mut self,
        crowd: &Crowd<'_>,
        own: &str,
        policy: &Policy,
        direction: Direction,
        changes: &mut Changes,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        for rule in policy.rules(direction).unwrap_or_default() {
            let numbers: BTreeSet<&Port> =
                rule.ports.iter().filter(|port| !matches!(port.ports, Ports::Named(_))).collect();
            let named: BTreeSet<(&str, u8)> = rule.ports.iter().filter_map(named_port).collect();
            let listed = if rule.ports.is_empty() {
                Some(Verdict::Accept)
            } else if numbers.is_empty() {
                None
            } else {
                Some(Verdict::Jump(self.ports(&numbers, changes)))
            };
            let mut peers = Vec::new();
            if rule.peers.is_empty() {
                peers.push((None, Vec::new()));
            }
            // A named port of an egress rule is asked for together with its pods.
            let by_address = listed.is_some() || direction == Direction::Ingress;
            for peer in rule.peers.iter().filter(|_| by_address) {
                for (family, set) in self.peer(crowd, own, peer, changes) {
                    let field = match direction {
                        Direction::Egress => Field::ConnectionDestination(family),
                        Direction::Ingress => Field::ConnectionSource(family),
                    };
                    peers.push((Some(family), vec![Statement::In(vec![field], Op::Eq, set)]));
                }
            }
            for (family, is_peer) in peers {
                let is_peer = || is_peer.iter().cloned();
                if let Some(verdict) = &listed {
                    rules.push(is_peer().chain([Statement::Verdict(verdict.clone())]).collect());
                }
                if direction == Direction::Ingress {
                    for port in &named {
                        for family in family.map_or_else(|| FAMILIES.to_vec(), |family| vec![family]) {
                            let set = self.local_ports(own, *port, changes);
                            rules.push(is_peer().chain(has_port(&set, family)).collect());
                        }
                    }
                }
            }
            if direction == Direction::Egress {
                let anybody =
                    [Peer::Pods { namespaces: Namespaces::Selected(Selector::default()), pods: Selector::default() }];
                for peer in if rule.peers.is_empty() { &anybody } else { &*rule.peers } {
                    for port in &named {
                        let Peer::Pods { namespaces, pods } = peer else { continue };
                        let set = self.peer_ports(crowd, own, namespaces, pods, *port, changes);
                        rules.extend(FAMILIES.map(|family| has_port(&set, family).into()));
                    }
                }
            }
        }
        rules
    }

    /// The chain of a list of numbered ports, made if it is not there.
    fn ports(&mut self, ports: &BTreeSet<&Port>, changes: &mut Changes) -> String {
        let ports: Vec<Port> = ports.iter().copied().cloned().collect();
        let name = names::ports(&ports);
        if !self.table.chains.contains_key(&name) {
            let rules = ports.iter().map(|Port { protocol, ports }| {
                let mut rule = vec![Statement::Is(Field::Protocol, Op::Eq, Value::Byte(*protocol))];
                match *ports {
                    Ports::Numbers(first, last) if first == last => {
                        rule.push(Statement::Is(Field::ConnectionPort, Op::Eq, Value::Short(first)));
                    }
                    Ports::Numbers(first, last) => rule.push(Statement::Between(Field::ConnectionPort, first, last)),
                    Ports::All | Ports::Named(_) => {}
                }
                rule.push(Statement::Verdict(Verdict::Accept));
                rule
            });
            self.put_chain(&name, rules.collect(), changes);
        }
        name
    }

    /// The sets of a peer's addresses, made if they are not there.
    fn peer(&mut self, crowd: &Crowd<'_>, own: &str, peer: &Peer, changes: &mut Changes) -> Vec<(Family, String)> {
        match peer {
            Peer::Pods { namespaces, pods } => {
                let name = names::pods(own, namespaces, pods);
                let selection = || Selection::Peers {
                    own: own.into(),
                    namespaces: namespaces.clone(),
                    pods: pods.clone(),
                    port: None,
                };
                self.select(crowd, &name, selection, changes);
                FAMILIES.map(|family| (family, names::of_family(&name, family))).into()
            }
            Peer::Block { cidr, except } => {
                let family = family(cidr.network());
                let set = names::of_family(&names::block(cidr, except), family);
                if !self.table.sets.contains_key(&set) {
                    self.add_set(&set, Form::Ranges(family), ranges(cidr, except), changes);
                }
                vec![(family, set)]
            }
        }
    }

    /// The sets of the ports of this name that peers have, made if they are not there; their name without the family.
    fn peer_ports(
        &mut self,
        crowd: &Crowd<'_>,
        own: &str,
        namespaces: &Namespaces,
        pods: &Selector,
        (port, protocol): (&str, u8),
        changes: &mut Changes,
    ) -> String {
        let name = names::named(own, namespaces, pods, port, protocol);
        let selection = || Selection::Peers {
            own: own.into(),
            namespaces: namespaces.clone(),
            pods: pods.clone(),
            port: Some((port.into(), protocol)),
        };
        self.select(crowd, &name, selection, changes);
        name
    }

    /// The sets of the ports of this name that pods of this node in the namespace have, made if they are not there; as above.
    fn local_ports(&mut self, namespace: &str, (port, protocol): (&str, u8), changes: &mut Changes) -> String {
        let name = names::local(namespace, port, protocol);
        if !self.selections.contains_key(&name) {
            let selection = Selection::Local { namespace: namespace.into(), port: (port.into(), protocol) };
            let mut found = Vec::new();
            self.subjects.values().for_each(|placed| found.extend(selection.local(Some(placed))));
            self.add_selection(&name, selection, found, changes);
        }
        name
    }

    /// The sets of what pods have, made if they are not there.
    fn select(&mut self, crowd: &Crowd<'_>, name: &str, selection: impl FnOnce() -> Selection, changes: &mut Changes) {
        if self.selections.contains_key(name) {
            return;
        }
        let selection = selection();
        let mut found = Vec::new();
        if let Selection::Peers { own, namespaces, pods, .. } = &selection {
            for (namespace, groups) in crowd.namespaces() {
                if covers(namespaces, own, namespace, self.namespaces.get(*namespace)) {
                    let selected = groups.iter().filter(|alike| pods.matches(alike.labels));
                    let selected = selected.flat_map(|alike| &alike.pods);
                    selected.for_each(|pod| selection.each_element(pod, |element| found.push(element)));
                }
            }
        }
        self.add_selection(name, selection, found, changes);
    }

    /// Makes the sets of a selection, of elements that may be there several times.
    fn add_selection(&mut self, name: &str, selection: Selection, found: Vec<Element>, changes: &mut Changes) {
        let (mut v4, mut v6) = (found, Vec::new());
        v4.retain(|element| {
            let is_v4 = element_family(element) == Some(Family::V4);
            if !is_v4 {
                v6.push(element.clone());
            }
            is_v4
        });
        for (family, mut elements) in [(Family::V4, v4), (Family::V6, v6)] {
            let set = names::of_family(name, family);
            elements.sort_unstable();
            for same in elements.chunk_by(|a, b| a == b) {
                if let ([element, _, ..], Ok(more)) = (same, u32::try_from(same.len() - 1)) {
                    self.shared.entry(set.clone()).or_default().insert(element.clone(), more);
                }
            }
            elements.dedup();
            self.add_set(&set, selection.form(family), elements.into_iter().collect(), changes);
        }
        self.selections.insert(name.into(), selection);
    }

    fn add_set(&mut self, name: &str, form: Form, elements: BTreeSet<Element>, changes: &mut Changes) {
        changes.push(|| Change::AddSet(FILTER, name.into(), form));
        if !elements.is_empty() {
            changes.push(|| Change::AddElements(FILTER, name.into(), form, elements.iter().cloned().collect()));
        }
        self.table.sets.insert(name.into(), Set { form, elements });
    }

    fn remove_set(&mut self, name: &str, changes: &mut Changes) {
        self.table.sets.remove(name);
        self.shared.remove(name);
        changes.push(|| Change::RemoveSet(FILTER, name.into()));
    }

    /// Gives a chain these rules, and makes it if it is not there. What its old rules led to and nobody needs any more goes.
    fn put_chain(&mut self, name: &str, rules: Vec<Rule>, changes: &mut Changes) {
        for led_to in targets(&rules) {
            match self.uses.get_mut(counted(led_to)) {
                Some(uses) => *uses += 1,
                None => _ = self.uses.insert(counted(led_to).into(), 1),
            }
        }
        let old = match self.table.chains.get_mut(name) {
            Some(chain) if chain.rules == rules => rules,
            Some(chain) => {
                changes.push(|| Change::PutRules(FILTER, name.into(), rules.clone()));
                core::mem::replace(&mut chain.rules, rules)
            }
            None => {
                changes.push(|| Change::AddChain(FILTER, name.into(), None));
                if !rules.is_empty() {
                    changes.push(|| Change::PutRules(FILTER, name.into(), rules.clone()));
                }
                self.table.chains.insert(name.into(), Chain { base: None, rules });
                Vec::new()
            }
        };
        self.release(&old, changes);
    }

    fn remove_chain(&mut self, name: &str, changes: &mut Changes) {
        if let Some(chain) = self.table.chains.remove(name) {
            changes.push(|| Change::RemoveChain(FILTER, name.into()));
            self.release(&chain.rules, changes);
        }
    }

    /// Rules are no more: what only they led to goes.
    fn release(&mut self, rules: &[Rule], changes: &mut Changes) {
        for name in targets(rules) {
            let counted = counted(name);
            let Some(uses) = self.uses.get_mut(counted) else { continue };
            *uses -= 1;
            if *uses > 0 {
                continue;
            }
            self.uses.remove(counted);
            if self.selections.remove(counted).is_some() {
                FAMILIES.iter().for_each(|family| self.remove_set(&names::of_family(counted, *family), changes));
            } else if self.table.sets.contains_key(name) {
                self.remove_set(name, changes);
            } else {
                self.remove_chain(name, changes);
            }
        }
    }
}

/// The name by which the uses of a chain or set are counted: the two families of what is selected are one.
fn counted(name: &str) -> &str {
    let selected = name.starts_with(names::PODS) || name.starts_with(names::NAMED);
    name.rsplit_once('/').filter(|_| selected).map_or(name, |(both, _)| both)
}

impl Selection {
    fn form(&self, family: Family) -> Form {
        match self {
            Selection::Peers { port: None, .. } => Form::Addresses(family),
            Selection::Peers { .. } | Selection::Local { .. } => Form::Ports(family),
        }
    }

    /// The elements of a pod that is selected.
    fn elements(&self, pod: &Pod) -> BTreeSet<Element> {
        let mut found = BTreeSet::new();
        self.each_element(pod, |element| _ = found.insert(element));
        found
    }

    /// The same, without an order.
    fn each_element(&self, pod: &Pod, mut found: impl FnMut(Element)) {
        match self {
            Selection::Peers { port: None, .. } => pod.addresses.iter().map(|ip| Element::Address(*ip)).for_each(found),
            Selection::Peers { port: Some((name, protocol)), .. } => {
                for port in pod.ports.iter().filter(|port| port.name == *name && port.protocol == *protocol) {
                    pod.addresses.iter().for_each(|ip| found(Element::Port(*ip, *protocol, port.port)));
                }
            }
            Selection::Local { .. } => {}
        }
    }

    /// The elements of a link of this node.
    fn local(&self, placed: Option<&Placed>) -> BTreeSet<Element> {
        match (self, placed) {
            (Selection::Local { namespace, port: (name, protocol) }, Some(placed))
                if placed.subject.pod.as_ref().is_some_and(|pod| *pod.namespace == **namespace) =>
            {
                let meant = placed.ports.iter().filter(|port| port.name == *name && port.protocol == *protocol);
                meant
                    .flat_map(|port| placed.subject.addresses.iter().map(|ip| Element::Port(*ip, *protocol, port.port)))
                    .collect()
            }
            _ => BTreeSet::new(),
        }
    }
}

/// The pods of the world, put in order as soon as somebody asks for them.
struct Crowd<'a> {
    world: &'a World,
    namespaces: OnceCell<Vec<(&'a str, Vec<Alike<'a>>)>>,
}

/// The pods of one namespace that share their labels: one look tells of all of them.
struct Alike<'a> {
    labels: &'a Labels,
    pods: Vec<&'a Pod>,
}

impl<'a> Crowd<'a> {
    fn of(world: &'a World) -> Crowd<'a> {
        Crowd { world, namespaces: OnceCell::new() }
    }

    /// The pods of each namespace.
    fn namespaces(&self) -> &[(&'a str, Vec<Alike<'a>>)] {
        self.namespaces.get_or_init(|| {
            let mut namespaces: Vec<(&str, Vec<&Pod>)> = Vec::new();
            for (key, pod) in &self.world.pods {
                match namespaces.last_mut() {
                    Some((namespace, pods)) if *namespace == &*key.namespace => pods.push(pod),
                    _ => namespaces.push((&key.namespace, vec![&**pod])),
                }
            }
            let grouped = |mut pods: Vec<&'a Pod>| {
                pods.sort_unstable_by_key(|pod| pod.labels.place());
                let same = pods.chunk_by(|a, b| a.labels.is(&b.labels));
                same.filter_map(|same| Some(Alike { labels: &same.first()?.labels, pods: same.to_vec() })).collect()
            };
            namespaces.into_iter().map(|(namespace, pods)| (namespace, grouped(pods))).collect()
        })
    }
}

/// Changes, where somebody wants to know them.
struct Changes(Option<Vec<Change>>);

impl Changes {
    fn push(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.0 {
            changes.push(change());
        }
    }

    fn step(self, revokes: bool) -> Step {
        Step { changes: self.0.unwrap_or_default(), revokes }
    }
}

impl Placed {
    fn audit(&self) -> bool {
        self.subject.treatment == Treatment::Audit
    }

    /// Whether connections may pass that do not if `new` takes its place, as far as that is up to the link.
    fn may_more_than(&self, new: &Placed) -> bool {
        let passes = |placed: &Placed, fate: &Fate| match fate {
            Fate::Open => true,
            Fate::Isolated(_) => placed.audit(),
            Fate::Quarantine => false,
        };
        self.fates.iter().zip(&new.fates).any(|(old, now)| match (old, now) {
            (Fate::Quarantine, _) => false,
            (_, now) if passes(new, now) => false,
            (Fate::Isolated(old), Fate::Isolated(now)) if !self.audit() => {
                old.iter().any(|policy| !now.contains(policy))
            }
            _ => true,
        })
    }
}

/// What a link is, as far as the world knows it.
fn placed(world: &World, subject: &Subject) -> Placed {
    let key = subject.pod.as_ref();
    let pod = key.and_then(|key| world.pods.get(key));
    let fates = match (subject.treatment, key.zip(pod)) {
        (Treatment::Exempt, _) | (Treatment::Audit, None) => [Fate::Open, Fate::Open],
        (Treatment::Quarantine, _) | (Treatment::Enforce, None) => [Fate::Quarantine, Fate::Quarantine],
        (Treatment::Enforce | Treatment::Audit, Some((key, pod))) => DIRECTIONS.map(|direction| {
            let policies: Vec<String> =
                selecting(world, key, &pod.labels, direction).map(|(name, _)| name.into()).collect();
            if policies.is_empty() { Fate::Open } else { Fate::Isolated(policies) }
        }),
    };
    let ports = pod.map(|pod| pod.ports.clone()).unwrap_or_default();
    Placed { subject: subject.clone(), ports, fates }
}

/// Whether all rules are there yet, in their order, with others among them or without.
fn only_more(old: &[Rule], new: &[Rule]) -> bool {
    let mut new = new.iter();
    old.iter().all(|rule| new.any(|other| other == rule))
}

/// The policies that isolate a pod in a direction, by name.
pub(crate) fn selecting<'a>(
    world: &'a World,
    pod: &PodKey,
    labels: &Labels,
    direction: Direction,
) -> impl Iterator<Item = (&'a str, &'a Policy)> {
    let first = (pod.namespace.to_string(), String::new());
    let own = world.policies.range(first..).take_while(|((namespace, _), _)| **namespace == *pod.namespace);
    own.filter(move |(_, policy)| policy.rules(direction).is_some() && policy.subjects.matches(labels))
        .map(|((_, name), policy)| (name.as_str(), &**policy))
}

fn named_port(port: &Port) -> Option<(&str, u8)> {
    match &port.ports {
        Ports::Named(name) => Some((name, port.protocol)),
        Ports::All | Ports::Numbers(..) => None,
    }
}

/// The connection arrives at a port in the set, and so passes.
fn has_port(set: &str, family: Family) -> [Statement; 2] {
    let fields = vec![Field::ConnectionDestination(family), Field::Protocol, Field::ConnectionPort];
    [Statement::In(fields, Op::Eq, names::of_family(set, family)), Statement::Verdict(Verdict::Accept)]
}

/// The chains and sets that rules lead to.
fn targets(rules: &[Rule]) -> impl Iterator<Item = &str> {
    rules.iter().flatten().filter_map(|statement| match statement {
        Statement::In(_, _, name) | Statement::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => {
            Some(name.as_str())
        }
        _ => None,
    })
}

fn element_family(element: &Element) -> Option<Family> {
    match element {
        Element::Address(ip) | Element::Port(ip, ..) => Some(family(*ip)),
        _ => None,
    }
}

/// The chains that every table with policies has, in the order in which they can be made.
fn base_chains(settings: &Settings) -> Vec<(&'static str, Chain)> {
    let plain = |rules| Chain { base: None, rules };
    let base = |priority, rules| {
        let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority };
        Chain { base: Some(base), rules }
    };
    let accept = || Statement::Verdict(Verdict::Accept);
    let remembered = || Statement::Verdict(Verdict::Jump(names::EPOCH.into()));
    // A connection that nobody marked has 0, and would pass for one that was allowed.
    let mark = settings.epoch.map(|epoch| (settings.mask, epoch & settings.mask)).filter(|(_, value)| *value != 0);
    let epoch = match mark {
        Some((mask, value)) => Some(vec![Statement::MarkIs { mask, value }, accept()]),
        // Connections lose the marks that they bear, as numbers come again some day: one that is kept alive would keep its own.
        None if settings.mask != 0 => Some(vec![Statement::SetMark { mask: settings.mask, value: 0 }]),
        None => None,
    };
    // An error of ICMP belongs to a connection that was allowed, and the sender of long packets has to hear it.
    let error = |protocol| {
        vec![Statement::Is(Field::Protocol, Op::Eq, Value::Byte(protocol)), Statement::StateIn(CT_RELATED), accept()]
    };
    let judged = |direction| {
        // An answer goes the other way: it comes to a pod by the link by which the pod's own packets go.
        let (own, of_answers) = match direction {
            Direction::Egress => (End::In, End::Out),
            Direction::Ingress => (End::Out, End::In),
        };
        let map = || String::from(names::map(direction));
        let answer = || Statement::Is(Field::Direction, Op::Eq, Value::Byte(1));
        vec![
            vec![remembered()],
            error(ICMP),
            error(ICMP6),
            vec![
                Statement::In(vec![Field::Link(End::In), Field::Link(End::Out)], Op::Eq, names::SELF.into()),
                accept(),
            ],
            vec![answer(), Statement::ByMap(of_answers, map())],
            vec![answer(), accept()],
            vec![Statement::ByMap(own, map())],
        ]
    };
    let seal = mark.filter(|_| settings.seals).map(|(mask, value)| {
        [End::In, End::Out].map(|end| {
            vec![
                Statement::StateIn(CT_NEW | CT_ESTABLISHED),
                Statement::NameBegins(end, Op::Eq, POD_LINKS),
                Statement::SetMark { mask, value },
            ]
        })
    });
    let seal = seal.map(|[by, to]| vec![vec![remembered()], by, to]);
    vec![
        (names::EPOCH, plain(epoch.into_iter().collect())),
        (names::QUARANTINE, plain(vec![vec![Statement::Count, Statement::Verdict(Verdict::Drop)]])),
        (names::EGRESS, base(-1, judged(Direction::Egress))),
        (names::INGRESS, base(0, judged(Direction::Ingress))),
        (names::SEAL, base(1, seal.unwrap_or_default())),
    ]
}

/// A prefix of the kernel's log: nothing in it ends a quotation or a line.
fn log_prefix(text: &str) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_graphic() && c != '"' || c == ' ' { c } else { '_' }).collect();
    format!("{}: ", cut(plain, PREFIX_MAX - 2).replace('…', "..."))
}

/// The addresses of a block less its excepts, as ranges of which no two touch.
pub(crate) fn ranges(cidr: &IpNet, except: &[IpNet]) -> BTreeSet<Element> {
    let is_v4 = cidr.network().is_ipv4();
    let bounds = |net: &IpNet| (number(net.network()), number(net.broadcast()));
    let (first, last) = bounds(cidr);
    let mut left = Vec::new();
    let mut holes: Vec<(u128, u128)> =
        except.iter().filter(|net| net.network().is_ipv4() == is_v4).map(bounds).collect();
    holes.sort_unstable();
    // The first address that no hole covers as yet, if there is one.
    let mut next = Some(first);
    for (from, to) in holes {
        let Some(start) = next.filter(|start| to >= *start) else { continue };
        if from > last {
            break;
        }
        if from > start {
            left.push((start, from - 1));
        }
        next = to.checked_add(1);
    }
    if let Some(start) = next.filter(|start| *start <= last) {
        left.push((start, last));
    }
    left.into_iter().map(|(from, to)| Element::Range(address(from, is_v4), address(to, is_v4))).collect()
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, is_v4: bool) -> IpAddr {
    if is_v4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}
