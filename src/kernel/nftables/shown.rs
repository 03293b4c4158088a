//! What the kernel shows of one table, and whether it is what is wanted.
//!
//! Owns the comparison, which is of bytes: rules are brought into one form on both sides, so nothing has to understand them. Must
//! not ask the kernel anything, and knows no order among sets, maps or chains.

use std::collections::{BTreeMap, BTreeSet};

use super::Count;
use super::batch::{base_from, base_of};
use super::expr;
use super::form::{self, Elements, Shape, count, link};
use super::uapi::*;
use super::wire::{Writer, be32, find};
use crate::kernel::netlink::message::{Attributes, text};
use model::addr::IfName;
use model::ruleset::{Chain, Element, Form, Rule, Set, Statement, Table, TableKey, Verdict};

/// One table as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub(super) key: TableKey,
    /// Somebody has put it to sleep: none of its chains sees packets.
    pub(super) dormant: bool,
    pub(super) sets: BTreeMap<String, ShownSet>,
    pub(super) chains: BTreeMap<String, ShownChain>,
}

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownSet {
    pub(super) shape: Shape,
    pub(super) elements: BTreeSet<Element>,
    pub(super) links: BTreeMap<IfName, Verdict>,
    /// How many elements are not such as flock makes.
    pub(super) odd: usize,
}

impl ShownSet {
    /// A set of this shape with elements that are given by their attributes.
    pub(super) fn read(shape: Shape, list: &[Vec<u8>]) -> ShownSet {
        let mut set = ShownSet { shape, elements: BTreeSet::new(), links: BTreeMap::new(), odd: 0 };
        let list = list.iter().map(Vec::as_slice);
        if shape.is_map() {
            for element in list {
                match link(element) {
                    Some((link, verdict)) => drop(set.links.insert(link, verdict)),
                    None => set.odd += 1,
                }
            }
        } else if let Some(form) = shape.form() {
            let Elements { known, odd } = form::elements(form, list);
            set.elements = known.into_iter().map(|(element, _)| element).collect();
            set.odd = odd;
        }
        set
    }
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ShownChain {
    /// Type, hook, priority and policy.
    pub(super) base: Option<(String, u32, i32, u32)>,
    pub(super) rules: Vec<ShownRule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownRule {
    /// Its expressions, each in the one form.
    pub(super) expressions: Vec<Vec<u8>>,
}

impl ShownChain {
    /// A chain without its rules, from its attributes.
    pub(super) fn read(attributes: &[u8]) -> ShownChain {
        let Some(hook) = find(attributes, NFTA_CHAIN_HOOK) else { return ShownChain::default() };
        let number = |list, number| find(list, number).and_then(be32);
        let base = (
            find(attributes, NFTA_CHAIN_TYPE).map(text).unwrap_or_default(),
            number(hook, NFTA_HOOK_HOOKNUM).unwrap_or(u32::MAX),
            number(hook, NFTA_HOOK_PRIORITY).unwrap_or_default().cast_signed(),
            number(attributes, NFTA_CHAIN_POLICY).unwrap_or(NF_ACCEPT),
        );
        ShownChain { base: Some(base), rules: Vec::new() }
    }
}

impl ShownRule {
    /// From its attributes.
    pub(super) fn read(attributes: &[u8]) -> ShownRule {
        let list = find(attributes, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
        ShownRule { expressions: expr::normal_all(list) }
    }

    fn wanted(rule: &Rule) -> ShownRule {
        let mut to = Writer::default();
        expr::encode(rule, &mut to);
        ShownRule { expressions: expr::normal_all(&to.0) }
    }
}

/// The count of a rule, from its attributes: that of its first counter.
pub(super) fn rule_count(attributes: &[u8]) -> Option<Count> {
    let list = find(attributes, NFTA_RULE_EXPRESSIONS)?;
    Attributes::nested(list).find_map(|(_, expression)| count(expression))
}

impl Shown {
    /// The elements of a set that has just this form; `None` if there is no such set, or if it has elements that are not such as
    /// flock makes.
    pub fn elements(&self, set: &str, form: Form) -> Option<&BTreeSet<Element>> {
        let set = self.sets.get(set)?;
        (set.odd == 0 && set.shape == Shape::of(form)).then_some(&set.elements)
    }

    /// The links of a map; `None` if there is no such map, or if it has elements that are not such as flock makes.
    pub fn links(&self, map: &str) -> Option<&BTreeMap<IfName, Verdict>> {
        let map = self.sets.get(map)?;
        (map.odd == 0 && map.shape.is_map()).then_some(&map.links)
    }

    /// The chain is there, and has just these rules.
    pub fn has_rules(&self, chain: &str, rules: &[Rule]) -> bool {
        let of_chain = self.chains.get(chain).map(|chain| &chain.rules);
        of_chain.is_some_and(|shown| shown.iter().cloned().eq(rules.iter().map(ShownRule::wanted)))
    }

    /// Whether the chain is the same in both, with all its rules.
    pub fn has_chain_of(&self, other: &Shown, chain: &str) -> bool {
        self.chains.get(chain).is_some_and(|shown| other.chains.get(chain) == Some(shown))
    }

    /// The value with which the first rule that does so compares the connection's mark within `mask`
    /// ([`Statement::MarkIs`]); `None` if no rule of this chain does.
    pub fn mark(&self, chain: &str, mask: u32) -> Option<u32> {
        let wanted = |value| ShownRule::wanted(&vec![Statement::MarkIs { mask, value }]).expressions;
        let like = wanted(0);
        let rules = self.chains.get(chain)?.rules.iter();
        rules.flat_map(|rule| rule.expressions.windows(like.len())).find_map(|expressions| {
            let data = find(expressions.last()?, NFTA_CMP_DATA)?;
            let value = u32::from_ne_bytes(find(data, NFTA_DATA_VALUE)?.try_into().ok()?);
            (*expressions == *wanted(value)).then_some(value)
        })
    }

    /// Somebody has put the table to sleep: none of its chains sees packets.
    pub fn is_dormant(&self) -> bool {
        self.dormant
    }

    /// The table as far as it can be told: its sets, its maps, and its chains. Nobody reads rules back: a chain has those of
    /// `known` where it shows just them, and [`unknown_rules`] otherwise. `None` if something in it is not such as flock makes.
    pub fn outline(&self, known: &Table) -> Option<Table> {
        if self.dormant {
            return None;
        }
        let mut table = Table::default();
        for (name, set) in &self.sets {
            if set.odd > 0 {
                return None;
            }
            if set.shape.is_map() {
                table.maps.insert(name.clone(), set.links.clone());
            } else {
                table.sets.insert(name.clone(), Set { form: set.shape.form()?, elements: set.elements.clone() });
            }
        }
        for (name, chain) in &self.chains {
            let base = match &chain.base {
                Some((kind, hook, priority, NF_ACCEPT)) => Some(base_from(self.key, kind, *hook, *priority)?),
                Some(_) => return None,
                None => None,
            };
            let known = known.chains.get(name).map(|chain| &chain.rules).filter(|rules| self.has_rules(name, rules));
            table.chains.insert(name.clone(), Chain { base, rules: known.cloned().unwrap_or_else(unknown_rules) });
        }
        Some(table)
    }

    /// The first difference to what is wanted, in words for an operator; `None` if the kernel shows exactly that. What packets have
    /// put into sets, and counters, are no difference.
    pub fn differs(&self, wanted: &Table) -> Option<String> {
        self.differs_from(wanted, None)
    }

    /// As [`Shown::differs`], where the rules that nobody knows ([`unknown_rules`]) are to be those of `before`.
    pub fn differs_from(&self, wanted: &Table, before: Option<&Shown>) -> Option<String> {
        if self.dormant {
            return Some("somebody has switched the table off (flags dormant)".into());
        }
        let sets = wanted.sets.iter().map(|(name, set)| self.set_differs(name, set));
        let maps = wanted.maps.iter().map(|(name, links)| self.map_differs(name, links));
        let missing = sets.chain(maps).find_map(|difference| difference);
        let known = |name: &String| wanted.sets.contains_key(name) || wanted.maps.contains_key(name);
        let foreign = || {
            let name = self.sets.keys().find(|name| !known(name));
            name.map(|name| format!("there is a set or map {name} that nobody wants"))
        };
        missing.or_else(foreign).or_else(|| self.chains_differ(wanted, before))
    }

    fn set_differs(&self, name: &str, wanted: &Set) -> Option<String> {
        let Some(shown) = self.sets.get(name) else { return Some(format!("set {name} is missing")) };
        if shown.shape != Shape::of(wanted.form) {
            return Some(format!("set {name} has another form"));
        }
        // Packets fill them.
        if matches!(wanted.form, Form::Recent { .. } | Form::Rates { .. }) {
            return None;
        }
        let words = |element: &Element| form::words(element);
        differ(
            &format!("set {name}"),
            missing(&wanted.elements, &shown.elements).map(words),
            missing(&shown.elements, &wanted.elements).map(words),
            shown.odd,
        )
    }

    fn map_differs(&self, name: &str, wanted: &BTreeMap<IfName, Verdict>) -> Option<String> {
        let Some(shown) = self.sets.get(name) else { return Some(format!("map {name} is missing")) };
        if !shown.shape.is_map() {
            return Some(format!("map {name} has another form"));
        }
        let first = |these: &BTreeMap<IfName, Verdict>, others: &BTreeMap<IfName, Verdict>| {
            let missing = these.iter().find(|(link, verdict)| others.get(*link) != Some(*verdict));
            missing.map(|(link, verdict)| format!("{link} : {}", expr::words(verdict)))
        };
        differ(&format!("map {name}"), first(wanted, &shown.links), first(&shown.links, wanted), shown.odd)
    }

    fn chains_differ(&self, wanted: &Table, before: Option<&Shown>) -> Option<String> {
        for (name, chain) in &wanted.chains {
            let Some(shown) = self.chains.get(name) else { return Some(format!("chain {name} is missing")) };
            let base = chain.base.map(|base| {
                let (kind, hook) = base_of(self.key, base);
                (kind.to_owned(), hook, base.priority, NF_ACCEPT)
            });
            if shown.base != base {
                return Some(format!("packets enter chain {name} elsewhere, or what reaches its end does not go on"));
            }
            if chain.rules == unknown_rules() {
                match before.is_some_and(|before| self.has_chain_of(before, name)) {
                    true => continue,
                    false => return Some(format!("the rules of chain {name} are others than an earlier agent's")),
                }
            }
            let rules = chain.rules.iter().zip(&shown.rules);
            if let Some(number) = rules.into_iter().position(|(rule, shown)| *shown != ShownRule::wanted(rule)) {
                return Some(format!("rule {} of chain {name} is another one", number + 1));
            }
            if chain.rules.len() != shown.rules.len() {
                return Some(format!("chain {name} has {} rules instead of {}", shown.rules.len(), chain.rules.len()));
            }
        }
        let foreign = self.chains.keys().find(|name| !wanted.chains.contains_key(*name));
        foreign.map(|name| format!("there is a chain {name} that nobody wants"))
    }
}

/// The rules of a chain that nobody knows: one without a statement, which is never made.
pub fn unknown_rules() -> Vec<Rule> {
    vec![Vec::new()]
}

/// The first of these that is not among the others.
fn missing<'a>(these: &'a BTreeSet<Element>, others: &BTreeSet<Element>) -> Option<&'a Element> {
    these.iter().find(|element| !others.contains(element))
}

fn differ(what: &str, missing: Option<String>, foreign: Option<String>, odd: usize) -> Option<String> {
    match (missing, foreign, odd) {
        (Some(missing), ..) => Some(format!("{what} lacks {missing}")),
        (None, Some(foreign), _) => Some(format!("{what} has {foreign}, which nobody wants")),
        (None, None, 1..) => Some(format!("{what} has an element that flock never makes")),
        (None, None, 0) => None,
    }
}
