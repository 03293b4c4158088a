//! What leads from one ruleset to another: changes in an order that the kernel takes as one batch, and what they do.
//!
//! Must not know what the tables are for, so whether a change takes something away from a pod is for `policy` to say.

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::addr::IfName;
use crate::ruleset::{Base, Chain, Element, Form, Rule, Ruleset, Set, Statement, Table, TableKey, Verdict};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes an empty table, or finds it there.
    AddTable(TableKey),
    /// Removes a table with all that is in it.
    RemoveTable(TableKey),
    /// Makes an empty set.
    AddSet(TableKey, String, Form),
    /// Removes a set, to which no rule leads any more.
    RemoveSet(TableKey, String),
    /// Makes an empty map.
    AddMap(TableKey, String),
    /// Removes a map, to which no rule leads any more. It may still have links.
    RemoveMap(TableKey, String),
    /// Makes an empty chain.
    AddChain(TableKey, String, Option<Base>),
    /// Takes all rules out of a chain, and puts these in.
    PutRules(TableKey, String, Vec<Rule>),
    /// Removes a chain, to which nothing leads any more, with its rules.
    RemoveChain(TableKey, String),
    /// Puts elements into a set. None of them may be there.
    AddElements(TableKey, String, Form, Vec<Element>),
    /// Takes elements out of a set. Each has to be there.
    RemoveElements(TableKey, String, Form, Vec<Element>),
    /// Puts links into a map, with what becomes of their packets. None of them may be there.
    AddLinks(TableKey, String, Vec<(IfName, Verdict)>),
    /// Takes links out of a map. Each has to be there.
    RemoveLinks(TableKey, String, Vec<IfName>),
}

/// The changes that lead from `shown` to `wanted`, in an order that the kernel takes as one batch. Nothing for equal ones.
///
/// What is gone no longer leads anywhere before what is new does: the kernel looks for circles after each change, and would find
/// one where two chains change places. Behind that, what is new is there before anything leads to it, and what is gone goes last.
/// A set whose form changed, and a chain that packets enter elsewhere, have their whole table made anew. Only what differs is
/// copied; what is not wanted is not.
pub fn diff(wanted: &Ruleset, shown: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    let nothing = Table::default();
    let kept =
        |key: &TableKey| Some((wanted.get(key)?, shown.get(key)?)).filter(|(wanted, shown)| !is_anew(wanted, shown));
    changes.extend(shown.keys().filter(|key| kept(key).is_none()).map(|key| Change::RemoveTable(*key)));
    for (key, table) in wanted {
        let before = kept(key).map(|(_, shown)| shown);
        if before.is_none() {
            changes.push(Change::AddTable(*key));
        }
        let step = Step { key: *key, wanted: table, shown: before.unwrap_or(&nothing) };
        step.make(&mut changes);
        step.cut(&mut changes);
        step.fill(&mut changes);
        step.remove(&mut changes);
    }
    changes
}

/// Whether the kernel has no way from one to the other but to make the table anew: it changes neither the form of a set nor where
/// packets enter a chain, and keeps the names of sets and maps in one place.
fn is_anew(wanted: &Table, shown: &Table) -> bool {
    let other_form = |(name, set): (&String, &Set)| shown.sets.get(name).is_some_and(|shown| shown.form != set.form);
    let other_base =
        |(name, chain): (&String, &Chain)| shown.chains.get(name).is_some_and(|shown| shown.base != chain.base);
    wanted.sets.iter().any(other_form)
        || wanted.chains.iter().any(other_base)
        || wanted.sets.keys().any(|name| shown.maps.contains_key(name))
        || wanted.maps.keys().any(|name| shown.sets.contains_key(name))
}

/// The way from one table to another of the same identity.
struct Step<'a> {
    key: TableKey,
    wanted: &'a Table,
    shown: &'a Table,
}

impl Step<'_> {
    /// What is new, and empty still.
    fn make(&self, changes: &mut Vec<Change>) {
        let (wanted, shown) = (self.wanted, self.shown);
        let sets = wanted.sets.iter().filter(|(name, _)| !shown.sets.contains_key(*name));
        changes.extend(sets.map(|(name, set)| Change::AddSet(self.key, name.clone(), set.form)));
        let maps = wanted.maps.keys().filter(|name| !shown.maps.contains_key(*name));
        changes.extend(maps.map(|name| Change::AddMap(self.key, name.clone())));
        let chains = wanted.chains.iter().filter(|(name, _)| !shown.chains.contains_key(*name));
        changes.extend(chains.map(|(name, chain)| Change::AddChain(self.key, name.clone(), chain.base)));
    }

    /// What leads on and will not, and elements that go.
    fn cut(&self, changes: &mut Vec<Change>) {
        for (name, chain) in &self.shown.chains {
            let cut = match self.wanted.chains.get(name) {
                None => !chain.rules.is_empty(),
                Some(wanted) => wanted.rules != chain.rules && (wanted.rules.is_empty() || leads_on(&chain.rules)),
            };
            if cut {
                changes.push(Change::PutRules(self.key, name.clone(), Vec::new()));
            }
        }
        for (name, map) in &self.shown.maps {
            let wanted = self.wanted.maps.get(name);
            let gone = map.iter().filter(|(link, verdict)| wanted.and_then(|map| map.get(*link)) != Some(*verdict));
            let gone: Vec<IfName> = gone.map(|(link, _)| link.clone()).collect();
            if !gone.is_empty() {
                changes.push(Change::RemoveLinks(self.key, name.clone(), gone));
            }
        }
        // Before the new ones come: a range that grows overlaps what it was.
        for (name, set) in &self.shown.sets {
            let Some(wanted) = self.wanted.sets.get(name) else { continue };
            let gone: Vec<Element> = set.elements.difference(&wanted.elements).cloned().collect();
            if !gone.is_empty() {
                changes.push(Change::RemoveElements(self.key, name.clone(), set.form, gone));
            }
        }
    }

    /// Elements, rules and links that are new.
    fn fill(&self, changes: &mut Vec<Change>) {
        for (name, set) in &self.wanted.sets {
            let new: Vec<Element> = match self.shown.sets.get(name) {
                Some(shown) => set.elements.difference(&shown.elements).cloned().collect(),
                None => set.elements.iter().cloned().collect(),
            };
            if !new.is_empty() {
                changes.push(Change::AddElements(self.key, name.clone(), set.form, new));
            }
        }
        for (name, chain) in &self.wanted.chains {
            let before = self.shown.chains.get(name).map_or(&[][..], |shown| &shown.rules);
            if chain.rules != before && !chain.rules.is_empty() {
                changes.push(Change::PutRules(self.key, name.clone(), chain.rules.clone()));
            }
        }
        for (name, map) in &self.wanted.maps {
            let shown = self.shown.maps.get(name);
            let new = map.iter().filter(|(link, verdict)| shown.and_then(|map| map.get(*link)) != Some(*verdict));
            let new: Vec<(IfName, Verdict)> = new.map(|(link, verdict)| (link.clone(), verdict.clone())).collect();
            if !new.is_empty() {
                changes.push(Change::AddLinks(self.key, name.clone(), new));
            }
        }
    }

    /// What is gone, to which nothing leads any more.
    fn remove(&self, changes: &mut Vec<Change>) {
        let (wanted, shown) = (self.wanted, self.shown);
        let chains = shown.chains.keys().filter(|name| !wanted.chains.contains_key(*name));
        changes.extend(chains.map(|name| Change::RemoveChain(self.key, name.clone())));
        let maps = shown.maps.keys().filter(|name| !wanted.maps.contains_key(*name));
        changes.extend(maps.map(|name| Change::RemoveMap(self.key, name.clone())));
        let sets = shown.sets.keys().filter(|name| !wanted.sets.contains_key(*name));
        changes.extend(sets.map(|name| Change::RemoveSet(self.key, name.clone())));
    }
}

/// What a rule, or a link of a map, leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target<'a> {
    Chain(&'a str),
    Map(&'a str),
    Set(&'a str),
}

fn target_of(verdict: &Verdict) -> Option<Target<'_>> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(Target::Chain(chain)),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}

fn targets(rules: &[Rule]) -> impl Iterator<Item = Target<'_>> {
    rules.iter().flatten().filter_map(|statement| match statement {
        Statement::Verdict(verdict) => target_of(verdict),
        Statement::ByMap(_, map) => Some(Target::Map(map)),
        Statement::In(_, _, set) | Statement::Remember(_, _, set) | Statement::FasterThan { set, .. } => {
            Some(Target::Set(set))
        }
        Statement::Is(..)
        | Statement::NameBegins(..)
        | Statement::Between(..)
        | Statement::StateIn(_)
        | Statement::MarkIs { .. }
        | Statement::SetMark { .. }
        | Statement::AtMost { .. }
        | Statement::Count
        | Statement::Log(_)
        | Statement::Masquerade => None,
    })
}

/// Whether packets can come from these rules to other ones.
fn leads_on(rules: &[Rule]) -> bool {
    targets(rules).any(|target| matches!(target, Target::Chain(_) | Target::Map(_)))
}

/// Why the kernel would refuse a change. The name is that of the table, set, map or chain, or of the first element or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is not there.
    Absent(String),
    /// It is there already, or overlaps something that is.
    Present(String),
    /// Something still leads there.
    InUse(String),
    /// It has another form, or is filled by packets alone.
    OtherForm(String),
    /// Packets enter there, and so no rule and no link may lead there.
    Entered(String),
    /// Packets would come back to where they were.
    Circle(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Absent(name) => write!(f, "{name} is not there"),
            Refused::Present(name) => write!(f, "{name} is there already"),
            Refused::InUse(name) => write!(f, "something still leads to {name}"),
            Refused::OtherForm(name) => write!(f, "{name} has another form"),
            Refused::Entered(name) => write!(f, "packets enter at {name}, so nothing else can lead there"),
            Refused::Circle(name) => write!(f, "packets would come back to {name}"),
        }
    }
}

impl core::error::Error for Refused {}

/// Does to `ruleset` what the kernel does for these changes, one behind the other.
///
/// # Errors
/// What the kernel would not do. `ruleset` then has some of the changes and not others, where the kernel would have none: it is
/// worth nothing any more.
pub fn apply(ruleset: &mut Ruleset, changes: &[Change]) -> Result<(), Refused> {
    carry_out(ruleset, changes, Judge::Here)
}

/// The same for changes that the kernel has carried out. It has followed all rules to see where they lead, which costs far more
/// than the changes, so nobody does it again.
///
/// # Errors
/// As [`apply`], where something is not there that changes, or is there already: `ruleset` is not what the kernel had.
pub fn carried_out(ruleset: &mut Ruleset, changes: &[Change]) -> Result<(), Refused> {
    carry_out(ruleset, changes, Judge::Kernel)
}

/// Who says that rules lead to what is there, and not in a circle, and that nothing leads to what goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judge {
    /// This file.
    Here,
    /// The kernel has.
    Kernel,
}

fn carry_out(ruleset: &mut Ruleset, changes: &[Change], judge: Judge) -> Result<(), Refused> {
    // Of the table that removals are just going on in: what something there leads to.
    let mut used: Option<(TableKey, BTreeSet<(u8, String)>)> = None;
    for change in changes {
        match change {
            Change::RemoveChain(key, name) => {
                if judge == Judge::Here && is_used(ruleset, &mut used, *key, Target::Chain(name))? {
                    return Err(Refused::InUse(name.clone()));
                }
                let chain = table(ruleset, *key)?.chains.remove(name).ok_or_else(|| Refused::Absent(name.clone()))?;
                if !chain.rules.is_empty() {
                    used = None;
                }
            }
            Change::RemoveMap(key, name) => {
                if judge == Judge::Here && is_used(ruleset, &mut used, *key, Target::Map(name))? {
                    return Err(Refused::InUse(name.clone()));
                }
                let map = table(ruleset, *key)?.maps.remove(name).ok_or_else(|| Refused::Absent(name.clone()))?;
                if !map.is_empty() {
                    used = None;
                }
            }
            Change::RemoveSet(key, name) => {
                if judge == Judge::Here && is_used(ruleset, &mut used, *key, Target::Set(name))? {
                    return Err(Refused::InUse(name.clone()));
                }
                table(ruleset, *key)?.sets.remove(name).ok_or_else(|| Refused::Absent(name.clone()))?;
            }
            other => {
                used = None;
                add_or_cut(ruleset, other, judge)?;
            }
        }
    }
    Ok(())
}

/// One change that removes no chain, map or set by itself.
fn add_or_cut(ruleset: &mut Ruleset, change: &Change, judge: Judge) -> Result<(), Refused> {
    match change {
        Change::AddTable(key) => {
            ruleset.entry(*key).or_default();
        }
        Change::RemoveTable(key) => {
            ruleset.remove(key).ok_or_else(|| Refused::Absent(key.name.to_owned()))?;
        }
        Change::AddSet(key, name, form) => {
            let table = vacant(ruleset, *key, name)?;
            table.sets.insert(name.clone(), Set { form: *form, elements: BTreeSet::new() });
        }
        Change::AddMap(key, name) => {
            vacant(ruleset, *key, name)?.maps.insert(name.clone(), Default::default());
        }
        Change::AddChain(key, name, base) => {
            let chains = &mut table(ruleset, *key)?.chains;
            if chains.contains_key(name) {
                return Err(Refused::Present(name.clone()));
            }
            chains.insert(name.clone(), Chain { base: *base, rules: Vec::new() });
        }
        Change::PutRules(key, name, rules) => put_rules(table(ruleset, *key)?, name, rules, judge)?,
        Change::AddElements(key, name, form, elements) => {
            let set = set_of(ruleset, *key, name, *form)?;
            for element in elements {
                add_element(set, element)?;
            }
        }
        Change::RemoveElements(key, name, form, elements) => {
            let set = set_of(ruleset, *key, name, *form)?;
            for element in elements {
                if !set.elements.remove(element) {
                    return Err(Refused::Absent(alloc::format!("{element:?} of {name}")));
                }
            }
        }
        Change::AddLinks(key, name, links) => add_links(table(ruleset, *key)?, name, links, judge)?,
        Change::RemoveLinks(key, name, links) => {
            let map = table(ruleset, *key)?.maps.get_mut(name).ok_or_else(|| Refused::Absent(name.clone()))?;
            for link in links {
                map.remove(link).ok_or_else(|| Refused::Absent(alloc::format!("{link} of {name}")))?;
            }
        }
        Change::RemoveChain(..) | Change::RemoveMap(..) | Change::RemoveSet(..) => {}
    }
    Ok(())
}

fn table(ruleset: &mut Ruleset, key: TableKey) -> Result<&mut Table, Refused> {
    ruleset.get_mut(&key).ok_or_else(|| Refused::Absent(key.name.to_owned()))
}

/// The table, in which no set and no map has this name.
fn vacant<'a>(ruleset: &'a mut Ruleset, key: TableKey, name: &str) -> Result<&'a mut Table, Refused> {
    let table = table(ruleset, key)?;
    if table.sets.contains_key(name) || table.maps.contains_key(name) {
        return Err(Refused::Present(name.to_owned()));
    }
    Ok(table)
}

/// The set of this name, which has this form.
fn set_of<'a>(ruleset: &'a mut Ruleset, key: TableKey, name: &str, form: Form) -> Result<&'a mut Set, Refused> {
    let set = table(ruleset, key)?.sets.get_mut(name).ok_or_else(|| Refused::Absent(name.to_owned()))?;
    if set.form != form {
        return Err(Refused::OtherForm(name.to_owned()));
    }
    Ok(set)
}

fn add_element(set: &mut Set, element: &Element) -> Result<(), Refused> {
    if !fits(element, set.form) {
        return Err(Refused::OtherForm(alloc::format!("{element:?}")));
    }
    let overlaps = match element {
        // The ranges are in order and apart, so only the two next to its place can touch it.
        Element::Range(first, last) => {
            let before = set.elements.range(..element).next_back();
            let behind = set.elements.range(element..).next();
            before
                .into_iter()
                .chain(behind)
                .any(|other| matches!(other, Element::Range(a, b) if a <= last && first <= b))
        }
        other => set.elements.contains(other),
    };
    if overlaps {
        return Err(Refused::Present(alloc::format!("{element:?}")));
    }
    set.elements.insert(element.clone());
    Ok(())
}

/// Whether a set of this form can hold the element.
fn fits(element: &Element, form: Form) -> bool {
    use crate::addr::Family::{V4, V6};
    let is = |ip: &core::net::IpAddr, family| match family {
        V4 => ip.is_ipv4(),
        V6 => ip.is_ipv6(),
    };
    match (element, form) {
        (Element::Link(_), Form::Links { .. }) | (Element::Links(..), Form::LinkPairs) => true,
        (Element::Address(ip), Form::Addresses(family))
        | (Element::LinkAddress(_, ip), Form::LinkAddresses(family))
        | (Element::Port(ip, ..), Form::Ports(family)) => is(ip, family),
        (Element::Range(first, last), Form::Ranges(family)) => is(first, family) && is(last, family) && first <= last,
        _ => false,
    }
}

fn put_rules(table: &mut Table, name: &str, rules: &[Rule], judge: Judge) -> Result<(), Refused> {
    let chain = table.chains.get_mut(name).ok_or_else(|| Refused::Absent(name.to_owned()))?;
    chain.rules = Vec::new();
    if judge == Judge::Here {
        for target in targets(rules) {
            check(table, target)?;
        }
        if reaches(table, targets(rules), Target::Chain(name)) {
            return Err(Refused::Circle(name.to_owned()));
        }
    }
    if let Some(chain) = table.chains.get_mut(name) {
        chain.rules = rules.to_vec();
    }
    Ok(())
}

fn add_links(table: &mut Table, name: &str, links: &[(IfName, Verdict)], judge: Judge) -> Result<(), Refused> {
    if judge == Judge::Here {
        for (_, verdict) in links {
            if let Some(target) = target_of(verdict) {
                check(table, target)?;
            }
        }
        if reaches(table, links.iter().filter_map(|(_, verdict)| target_of(verdict)), Target::Map(name)) {
            return Err(Refused::Circle(name.to_owned()));
        }
    }
    let map = table.maps.get_mut(name).ok_or_else(|| Refused::Absent(name.to_owned()))?;
    for (link, verdict) in links {
        if map.insert(link.clone(), verdict.clone()).is_some() {
            return Err(Refused::Present(alloc::format!("{link} of {name}")));
        }
    }
    Ok(())
}

/// Whether something may lead there.
fn check(table: &Table, target: Target<'_>) -> Result<(), Refused> {
    let (there, name) = match target {
        Target::Chain(name) => {
            let chain = table.chains.get(name);
            if chain.is_some_and(|chain| chain.base.is_some()) {
                return Err(Refused::Entered(name.to_owned()));
            }
            (chain.is_some(), name)
        }
        Target::Map(name) => (table.maps.contains_key(name), name),
        Target::Set(name) => (table.sets.contains_key(name), name),
    };
    if there { Ok(()) } else { Err(Refused::Absent(name.to_owned())) }
}

/// Whether packets can come to `end` from one of these.
fn reaches<'a>(table: &'a Table, from: impl Iterator<Item = Target<'a>>, end: Target<'_>) -> bool {
    let mut seen: BTreeSet<Target<'a>> = BTreeSet::new();
    let mut left: Vec<Target<'a>> = from.collect();
    while let Some(target) = left.pop() {
        if target == end {
            return true;
        }
        if !seen.insert(target) {
            continue;
        }
        match target {
            Target::Chain(name) => {
                left.extend(table.chains.get(name).into_iter().flat_map(|chain| targets(&chain.rules)))
            }
            Target::Map(name) => {
                left.extend(table.maps.get(name).into_iter().flat_map(|map| map.values().filter_map(target_of)))
            }
            Target::Set(_) => {}
        }
    }
    false
}

/// Whether something leads to `target`. `used` spares removals in a row to look at all rules again.
fn is_used(
    ruleset: &mut Ruleset,
    used: &mut Option<(TableKey, BTreeSet<(u8, String)>)>,
    key: TableKey,
    target: Target<'_>,
) -> Result<bool, Refused> {
    let named = |target: Target<'_>| match target {
        Target::Chain(name) => (0, name.to_owned()),
        Target::Map(name) => (1, name.to_owned()),
        Target::Set(name) => (2, name.to_owned()),
    };
    let table = table(ruleset, key)?;
    let known = match used.take() {
        Some((of, names)) if of == key => names,
        _ => {
            let rules = table.chains.values().flat_map(|chain| targets(&chain.rules));
            let links = table.maps.values().flat_map(|map| map.values().filter_map(target_of));
            rules.chain(links).map(named).collect()
        }
    };
    let found = known.contains(&named(target));
    *used = Some((key, known));
    Ok(found)
}

#[cfg(test)]
mod tests;
