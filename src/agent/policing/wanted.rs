//! What the tables are to hold, put together: the checks of sources, the limit of sweeps, masquerading, and the policies' part, be
//! it compiled or left by an earlier agent.
//!
//! Must not ask the kernel or change anything.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::agent::node::peers::Listed;
use crate::agent::node::state::NodeState;
use model::addr::IfName;
use model::guard::{self, FILTER};
use model::lease::{Lease, Phase};
use model::masquerade::masquerade;
use model::policing::Policing as Wishes;
use model::policy::compile::{Settings, compile};
use model::policy::{Direction, Subject, Treatment, World, names};
use model::ruleset::diff::Change;
use model::ruleset::{Element, Ruleset, Set, Table, TableKey};
use model::sweep::{self, limit_sweeps};

/// Everything but policies.
pub fn whole<'a>(
    wishes: &Wishes,
    state: &NodeState,
    peers: Option<&Listed>,
    leases: impl Iterator<Item = &'a Lease>,
) -> Ruleset {
    let mut wanted = guarded(wishes, leases);
    if wanted.contains_key(&FILTER) {
        let networks = &state.whereabouts.host.networks;
        let on_link: Vec<IpNet> =
            networks.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).copied().collect();
        limit_sweeps(&mut wanted, &on_link);
    }
    if let Some(view) = &state.view {
        let nodes = peers.iter().flat_map(|listed| listed.nodes.iter().flat_map(|nodes| nodes.values()));
        let others = nodes.flat_map(|node| node.cidr6.map(IpNet::from).into_iter().chain(node.cidr4.map(IpNet::from)));
        let others: Vec<IpNet> = match wishes.masquerade.ipv4 || wishes.masquerade.ipv6 {
            true => others.collect(),
            false => Vec::new(),
        };
        masquerade(&mut wanted, &wishes.masquerade, &view.config.prefixes(), &others);
    }
    wanted
}

/// What checks the sources of `leases`. The node's owner may have taken back what a pod was allowed when it was made.
pub fn guarded<'a>(wishes: &Wishes, leases: impl Iterator<Item = &'a Lease>) -> Ruleset {
    let mut own = Ruleset::new();
    if wishes.source_check {
        let listed = |lease: &Lease| lease.pod.as_ref().is_some_and(|pod| wishes.source_any.contains(&pod.namespace));
        let leases: Vec<Cow<'_, Lease>> = leases
            .map(|lease| match lease.any_source && !listed(lease) {
                true => Cow::Owned(Lease { any_source: false, ..lease.clone() }),
                false => Cow::Borrowed(lease),
            })
            .collect();
        guard::check_sources(&mut own, leases.iter().map(AsRef::as_ref));
    }
    own
}

/// Adds the policies' part.
pub fn add(wanted: &mut Ruleset, part: &Table) {
    if part == &Table::default() {
        return;
    }
    let table = wanted.entry(FILTER).or_default();
    table.sets.extend(part.sets.iter().map(|(name, set)| (name.clone(), set.clone())));
    table.maps.extend(part.maps.iter().map(|(name, map)| (name.clone(), map.clone())));
    table.chains.extend(part.chains.iter().map(|(name, chain)| (name.clone(), chain.clone())));
}

/// The elements that are in the sets of one ruleset and not of the other, as changes that lead from the first to the second.
pub fn elements(before: &Ruleset, after: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    let nothing = Table::default();
    let keys: BTreeSet<&TableKey> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (before, after) = (before.get(key).unwrap_or(&nothing), after.get(key).unwrap_or(&nothing));
        let sets: BTreeMap<&String, &Set> = before.sets.iter().chain(&after.sets).collect();
        for (name, Set { form, .. }) in sets {
            let of = |table: &'_ Table| table.sets.get(name).map(|set| set.elements.clone()).unwrap_or_default();
            let (old, new) = (of(before), of(after));
            let gone: Vec<Element> = old.difference(&new).cloned().collect();
            if !gone.is_empty() {
                changes.push(Change::RemoveElements(*key, name.clone(), *form, gone));
            }
            let come: Vec<Element> = new.difference(&old).cloned().collect();
            if !come.is_empty() {
                changes.push(Change::AddElements(*key, name.clone(), *form, come));
            }
        }
    }
    changes
}

/// What takes everything of one link out of the sets and maps of what stands.
pub fn of_link(standing: &Ruleset, link: &IfName) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, table) in standing {
        for (name, set) in &table.sets {
            let is_of = |element: &&Element| match element {
                Element::Link(of) | Element::LinkAddress(of, _) => of == link,
                Element::Links(one, other) => one == link || other == link,
                Element::Address(_) | Element::Port(..) | Element::Range(..) => false,
            };
            let gone: Vec<Element> = set.elements.iter().filter(is_of).cloned().collect();
            if !gone.is_empty() {
                changes.push(Change::RemoveElements(*key, name.clone(), set.form, gone));
            }
        }
        let maps = table.maps.iter().filter(|(_, map)| map.contains_key(link));
        changes.extend(maps.map(|(name, _)| Change::RemoveLinks(*key, name.clone(), vec![link.clone()])));
    }
    changes
}

/// The policies' part that an earlier agent has left. Its rules are not known, and stay as they are.
#[derive(Debug, Default)]
pub struct Inherited {
    part: Table,
    /// The links that were there: one of which nothing was said was open.
    made_before: BTreeSet<IfName>,
    /// The links of which something was said.
    led: BTreeSet<IfName>,
}

impl Inherited {
    /// Beside the links of these leases, of which those that are committed were made before.
    pub fn by<'a>(leases: impl Iterator<Item = &'a Lease>) -> Inherited {
        let committed = leases.filter(|lease| lease.phase == Phase::Committed);
        let made_before = committed.map(|lease| lease.host_link.clone()).collect();
        Inherited { made_before, ..Inherited::default() }
    }

    /// Takes the outline of the table that stands now.
    pub fn stands(&mut self, standing: Option<&Table>) {
        let mut part = standing.cloned().unwrap_or_default();
        let others = |name: &str| guard::NAMES.contains(&name) || sweep::is_name(name);
        part.sets.retain(|name, _| !others(name));
        part.chains.retain(|name, _| !others(name));
        self.led.extend(part.maps.values().flat_map(|map| map.keys().cloned()));
        self.part = part;
    }

    /// Whether there are rules that would be lost with the table.
    pub fn is_something(&self) -> bool {
        !self.part.chains.is_empty()
    }

    /// Adds the part to what is wanted: with the links of `leases`, and those that are `closed` in quarantine, as far as it says
    /// nothing of them.
    pub fn go_on<'a>(
        &self,
        wanted: &mut Ruleset,
        leases: impl Iterator<Item = &'a Lease>,
        closed: impl Fn(&Lease) -> bool,
        mask: u32,
    ) {
        let mut part = self.part.clone();
        let leases: Vec<&Lease> = leases.collect();
        let links: BTreeSet<&IfName> = leases.iter().map(|lease| &lease.host_link).collect();
        part.maps.values_mut().for_each(|map| map.retain(|link, _| links.contains(link)));
        let known = |link: &IfName| {
            let maps = [Direction::Egress, Direction::Ingress].map(names::map);
            maps.iter().any(|map| self.part.maps.get(*map).is_some_and(|map| map.contains_key(link)))
        };
        // What was said of a link is lost where somebody has taken it away, so nothing is left but to close it.
        let lost = |link: &IfName| self.led.contains(link);
        let is_new = |lease: &Lease| !self.made_before.contains(&lease.host_link) && closed(lease);
        let unknown =
            leases.iter().filter(|lease| !known(&lease.host_link) && (lost(&lease.host_link) || is_new(lease)));
        let subjects: Vec<Subject> = unknown
            .map(|lease| Subject {
                link: lease.host_link.clone(),
                pod: None,
                addresses: Vec::new(),
                treatment: Treatment::Quarantine,
            })
            .collect();
        let settings = Settings { mask, epoch: None, log: None };
        let quarantine = compile(&World::default(), &subjects, &settings);
        for (name, chain) in &quarantine.table().chains {
            part.chains.entry(name.clone()).or_insert_with(|| chain.clone());
        }
        for (name, set) in &quarantine.table().sets {
            part.sets.entry(name.clone()).or_insert_with(|| set.clone());
        }
        for (name, map) in &quarantine.table().maps {
            part.maps.entry(name.clone()).or_default().extend(map.clone());
        }
        add(wanted, &part);
    }
}
