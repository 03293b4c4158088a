//! What the tables are to hold, put together: the checks of sources, the limit of sweeps, masquerading, and the policies' part, be
//! it compiled or left by an earlier agent.
//!
//! Must not ask the kernel or change anything.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::agent::node::peers::Listed;
use crate::agent::node::state::NodeState;
use crate::kernel::nftables::shown::{Shown, unknown_rules};
use model::addr::IfName;
use model::guard::{self, FILTER};
use model::lease::{Lease, Phase};
use model::masquerade::masquerade;
use model::policing::Policing as Wishes;
use model::policy::compile::{Settings, compile};
use model::policy::{Direction, Subject, Treatment, World, names};
use model::ruleset::diff::Change;
use model::ruleset::{Element, Ruleset, Set, Table, TableKey, Verdict};
use model::sweep::{self, limit_sweeps};

/// Everything but policies.
pub fn whole<'a>(
    wishes: &Wishes,
    state: &NodeState,
    peers: Option<&Listed>,
    leases: impl Iterator<Item = &'a Lease>,
) -> Ruleset {
    let mut wanted = Ruleset::new();
    let checked = checked(wishes, leases);
    guard::check_sources(&mut wanted, checked.iter().map(AsRef::as_ref));
    // Those too that may send from any address.
    if !checked.is_empty() {
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

/// What `leases` may send from, as the sets that say so.
pub fn sources<'a>(wishes: &Wishes, leases: impl Iterator<Item = &'a Lease>) -> Ruleset {
    guard::sets_of(checked(wishes, leases).iter().map(AsRef::as_ref))
}

/// The leases whose sources are to be checked: none where nothing is checked. The node's owner may have taken back what a pod was
/// allowed when it was made.
fn checked<'a>(wishes: &Wishes, leases: impl Iterator<Item = &'a Lease>) -> Vec<Cow<'a, Lease>> {
    let listed = |lease: &Lease| lease.pod.as_ref().is_some_and(|pod| wishes.source_any.contains(&pod.namespace));
    let leases = leases.filter(|_| wishes.source_check);
    leases
        .map(|lease| match lease.any_source && !listed(lease) {
            true => Cow::Owned(Lease { any_source: false, ..lease.clone() }),
            false => Cow::Borrowed(lease),
        })
        .collect()
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
    /// The table as the kernel has shown it; none if there was none, or if somebody has changed it since.
    shown: Option<Shown>,
    part: Table,
    /// The links that were there: one of which nothing was said was open.
    made_before: BTreeSet<IfName>,
    /// Links that it was about and that it does not keep any more.
    closed: BTreeSet<IfName>,
}

impl Inherited {
    /// Of the table that stands, beside the links of these leases, of which those that are committed were made before. None if it
    /// is not such as this flock makes, and cannot be gone on with.
    pub fn of<'a>(standing: Option<Shown>, leases: impl Iterator<Item = &'a Lease>) -> Option<Inherited> {
        let committed = leases.filter(|lease| lease.phase == Phase::Committed);
        let made_before = committed.map(|lease| lease.host_link.clone()).collect();
        let mut inherited = Inherited { made_before, ..Inherited::default() };
        let Some(shown) = standing else { return Some(inherited) };
        if shown.is_dormant() {
            // It keeps nothing, and what it kept can be told.
            inherited.closed.extend(led(&shown).cloned());
            return Some(inherited);
        }
        let mut part = shown.outline(&Table::default())?;
        let others = |name: &str| guard::NAMES.contains(&name) || sweep::is_name(name);
        part.sets.retain(|name, _| !others(name));
        part.chains.retain(|name, _| !others(name));
        if !part.chains.is_empty() || !part.maps.is_empty() {
            // What is closed from now on is closed by these.
            let known = quarantine(BTreeSet::from([any_link()?]), (0, None));
            let is_same = |name: &str| known.chains.get(name).is_some_and(|chain| shown.has_rules(name, &chain.rules));
            if ![names::EGRESS, names::INGRESS, names::QUARANTINE].into_iter().all(is_same) {
                return None;
            }
        }
        Some(Inherited { shown: Some(shown), part, ..inherited })
    }

    /// The table as the kernel has shown it, as long as it goes on.
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }

    /// Compares with what stands now. If somebody has changed what an earlier agent has left, nobody knows any more what it said:
    /// the links that it was about are closed. True in that case.
    pub fn look<'a>(&mut self, standing: Option<Shown>, leases: impl Iterator<Item = &'a Lease>) -> bool {
        let Some(before) = self.shown.take() else { return false };
        let links: BTreeSet<&IfName> = leases.map(|lease| &lease.host_link).collect();
        let is_same = |now: &Shown| {
            let mut unknown = self.part.chains.iter().filter(|(_, chain)| chain.rules == unknown_rules());
            let chains = unknown.all(|(chain, _)| now.has_chain_of(&before, chain));
            let sets = self.part.sets.iter().all(|(name, set)| now.elements(name, set.form) == Some(&set.elements));
            let maps = self.part.maps.iter().all(|(name, map)| {
                let mut map = map.iter().filter(|(link, _)| links.contains(link));
                now.links(name).is_some_and(|now| map.all(|(link, verdict)| now.get(link) == Some(verdict)))
            });
            chains && sets && maps && now.outline(&Table::default()).is_some()
        };
        self.shown = standing.filter(is_same);
        if self.shown.is_none() {
            let part = std::mem::take(&mut self.part);
            self.closed.extend(part.maps.into_values().flat_map(BTreeMap::into_keys));
        }
        self.shown.is_none()
    }

    /// Connections that were allowed before are judged anew by their next packet. `epoch` is their mask and value.
    pub fn moves(&mut self, epoch: (u32, Option<u32>)) {
        let known = quarantine(any_link().into_iter().collect(), epoch);
        for name in [names::EPOCH, names::SEAL] {
            if let Some((chain, known)) = self.part.chains.get_mut(name).zip(known.chains.get(name)) {
                chain.rules.clone_from(&known.rules);
            }
        }
    }

    /// A link has gone: one of this name is another one.
    pub fn forget(&mut self, link: &IfName) {
        self.part.maps.values_mut().for_each(|map| drop(map.remove(link)));
        self.made_before.remove(link);
        self.closed.remove(link);
    }

    /// Adds the part to what is wanted: with the links of `leases`, and those that are to be `closed` in quarantine, as far as it
    /// says nothing of them.
    pub fn go_on<'a>(
        &self,
        wanted: &mut Ruleset,
        leases: impl Iterator<Item = &'a Lease>,
        closed: impl Fn(&Lease) -> bool,
    ) {
        let mut part = self.part.clone();
        let leases: Vec<&Lease> = leases.collect();
        let links: BTreeSet<&IfName> = leases.iter().map(|lease| &lease.host_link).collect();
        part.maps.values_mut().for_each(|map| map.retain(|link, _| links.contains(link)));
        let known = |link: &IfName| {
            let maps = [Direction::Egress, Direction::Ingress].map(names::map);
            maps.iter().any(|map| self.part.maps.get(*map).is_some_and(|map| map.contains_key(link)))
        };
        let is_new = |link: &IfName| !known(link) && !self.made_before.contains(link);
        let is_closed =
            |lease: &Lease| self.closed.contains(&lease.host_link) || is_new(&lease.host_link) && closed(lease);
        let unknown = leases.iter().filter(|lease| is_closed(lease)).map(|lease| lease.host_link.clone()).collect();
        let quarantine = quarantine(unknown, (0, None));
        for (name, chain) in &quarantine.chains {
            part.chains.entry(name.clone()).or_insert_with(|| chain.clone());
        }
        for (name, set) in &quarantine.sets {
            part.sets.entry(name.clone()).or_insert_with(|| set.clone());
        }
        for (name, map) in &quarantine.maps {
            part.maps.entry(name.clone()).or_default().extend(map.clone());
        }
        add(wanted, &part);
    }
}

/// Whether the maps of the table lead a link to where everything is dropped.
pub fn is_closed(filter: &Table, link: &IfName) -> bool {
    let closed = Verdict::Goto(names::QUARANTINE.into());
    filter.maps.values().any(|map| map.get(link) == Some(&closed))
}

/// The links that the maps of the table lead somewhere, as far as they can be read.
pub fn led(shown: &Shown) -> impl Iterator<Item = &IfName> {
    let maps = [Direction::Egress, Direction::Ingress].map(|direction| shown.links(names::map(direction)));
    maps.into_iter().flatten().flat_map(BTreeMap::keys)
}

/// The part of a node whose policies nobody knows, with these links closed. Empty for none.
fn quarantine(links: BTreeSet<IfName>, (mask, epoch): (u32, Option<u32>)) -> Table {
    let closed = |link| Subject { link, pod: None, addresses: Vec::new(), treatment: Treatment::Quarantine };
    let subjects: Vec<Subject> = links.into_iter().map(closed).collect();
    compile(&World::default(), &subjects, &Settings { mask, epoch, seals: true, log: None }).table().clone()
}

/// Some link.
fn any_link() -> Option<IfName> {
    "flock0".parse().ok()
}
