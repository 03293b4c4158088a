//! What others have at the forward hook: their tables as the kernel shows them, and what each chain there does with a packet.
//!
//! Owns which tables are read, and which of their sets. Reads only, and must not judge what a table is for. What `registers`
//! does not understand of a rule makes it one that may fit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::batch::family;
use super::foreign_set::{ForeignSet, as_element};
use super::registers::{Registers, Step, marks};
use super::socket::Nftables;
use super::uapi::*;
use super::wire::{be32, find};
use super::{Cause, NftError};
use crate::kernel::netlink::message::{Attributes, text};
use model::forwarding::{Chains, Fate, Packet, Rule, fate};
use model::ruleset::{TableFamily, TableKey};

/// The families whose chains see what the host forwards.
const FAMILIES: [TableFamily; 3] = [TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6];

/// A table of somebody else with a chain at the forward hook.
#[derive(Debug)]
pub struct ForeignTable {
    /// Its family.
    pub family: TableFamily,
    /// Its name.
    pub name: String,
    /// Where packets enter it: the chains at the forward hook.
    pub entrances: Vec<Entrance>,
    /// The expressions of each rule of each chain.
    chains: BTreeMap<String, Vec<Vec<Vec<u8>>>>,
    sets: BTreeMap<String, ForeignSet>,
    /// A rule of it gives packets a mark, so nobody knows which one a packet has.
    marks: bool,
}

/// A chain at the forward hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Its name.
    pub chain: String,
    /// What no rule decides is dropped.
    pub drops: bool,
}

impl ForeignTable {
    /// The names of its chains.
    pub fn chains(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }

    /// Its packets are of this family, too.
    pub fn sees(&self, packet: &Packet) -> bool {
        match self.family {
            TableFamily::Inet => true,
            TableFamily::Ip => packet.source.is_ipv4(),
            TableFamily::Ip6 => packet.source.is_ipv6(),
            TableFamily::Arp => false,
        }
    }

    /// What becomes of a packet that enters here.
    pub fn fate(&self, entrance: &Entrance, packet: &Packet) -> Fate {
        let rules = |rules: &Vec<Vec<Vec<u8>>>| rules.iter().flat_map(|rule| self.rule(rule, packet)).collect();
        let chains: Chains = self.chains.iter().map(|(name, of)| (name.clone(), rules(of))).collect();
        fate(&chains, &entrance.chain, entrance.drops)
    }

    /// A rule, which is as many as it has different ends.
    fn rule(&self, expressions: &[Vec<u8>], packet: &Packet) -> Vec<Rule> {
        let mut registers = Registers::of(packet, self.marks);
        for expression in expressions {
            match registers.take(expression, &self.sets) {
                Step::On => {}
                Step::Ends(rules) => return rules,
            }
        }
        Vec::new()
    }
}

impl Nftables {
    /// The tables at the forward hook but for these, which are flock's own.
    ///
    /// # Errors
    /// As [`Nftables::read`].
    pub fn foreign_tables(&mut self, own: &[TableKey], deadline: Instant) -> Result<Vec<ForeignTable>, NftError> {
        let what = "read the tables of others at the forward hook";
        // The first answer of a kernel without nf_tables is the one that says so.
        self.generation(deadline)?;
        loop {
            match self.foreign_once(own, (what, deadline))? {
                Some(tables) => return Ok(tables),
                None if Instant::now() < deadline => {}
                None => return Err(NftError { what: what.into(), cause: Cause::Restless }),
            }
        }
    }

    /// `None` if they changed while they were read.
    fn foreign_once(&mut self, own: &[TableKey], to: (&str, Instant)) -> Result<Option<Vec<ForeignTable>>, NftError> {
        let mut found = Vec::new();
        for of in FAMILIES {
            let number = family(TableKey { family: of, name: "" });
            let Some(tables) = self.list((NFT_MSG_GETTABLE, number), |_| {}, to)? else { return Ok(None) };
            let sleeps = |table: &Vec<u8>| {
                find(table, NFTA_TABLE_FLAGS).and_then(be32).unwrap_or_default() & NFT_TABLE_F_DORMANT != 0
            };
            let asleep: BTreeSet<String> = tables
                .iter()
                .filter(|table| sleeps(table))
                .filter_map(|table| find(table, NFTA_TABLE_NAME).map(text))
                .collect();
            let Some(chains) = self.list((NFT_MSG_GETCHAIN, number), |_| {}, to)? else { return Ok(None) };
            let mut of_family: BTreeMap<String, ForeignTable> = BTreeMap::new();
            for chain in &chains {
                let (Some(table), Some(entrance)) = (find(chain, NFTA_CHAIN_TABLE).map(text), entrance(chain)) else {
                    continue;
                };
                let is_own = own.iter().any(|own| own.family == of && own.name == table);
                if is_own || asleep.contains(&table) {
                    continue;
                }
                let new = || ForeignTable {
                    family: of,
                    name: table.clone(),
                    entrances: Vec::new(),
                    chains: BTreeMap::new(),
                    sets: BTreeMap::new(),
                    marks: false,
                };
                of_family.entry(table.clone()).or_insert_with(new).entrances.push(entrance);
            }
            for mut table in of_family.into_values() {
                if !self.fill(&mut table, number, to)? {
                    return Ok(None);
                }
                found.push(table);
            }
        }
        Ok(Some(found))
    }

    /// Reads chains, rules and the sets that rules name. False if they changed meanwhile.
    fn fill(&mut self, table: &mut ForeignTable, of: u8, to: (&str, Instant)) -> Result<bool, NftError> {
        let name = table.name.clone();
        let mine = |list: &[u8], number| find(list, number).map(text).as_deref() == Some(&*name);
        let rules = self.list((NFT_MSG_GETRULE, of), |to| to.put_text(NFTA_RULE_TABLE, &name), to)?;
        let Some(rules) = rules else { return Ok(false) };
        let mut named = BTreeSet::new();
        for rule in rules.iter().filter(|rule| mine(rule, NFTA_RULE_TABLE)) {
            let Some(chain) = find(rule, NFTA_RULE_CHAIN).map(text) else { continue };
            let list = find(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
            let expressions: Vec<Vec<u8>> = Attributes::nested(list).map(|(_, expression)| expression.into()).collect();
            named.extend(expressions.iter().filter_map(|expression| looked_up(expression)));
            table.marks |= expressions.iter().any(|expression| marks(expression));
            table.chains.entry(chain).or_default().push(expressions);
        }
        let sets = self.list((NFT_MSG_GETSET, of), |to| to.put_text(NFTA_SET_TABLE, &name), to)?;
        let Some(sets) = sets else { return Ok(false) };
        for set in sets.iter().filter(|set| mine(set, NFTA_SET_TABLE)) {
            let Some(set_name) = find(set, NFTA_SET_NAME).map(text).filter(|set| named.contains(set)) else { continue };
            let messages = self.list(
                (NFT_MSG_GETSETELEM, of),
                |to| {
                    to.put_text(NFTA_SET_ELEM_LIST_TABLE, &name);
                    to.put_text(NFTA_SET_ELEM_LIST_SET, &set_name);
                },
                to,
            )?;
            let Some(messages) = messages else { return Ok(false) };
            let lists = messages.iter().filter_map(|message| find(message, NFTA_SET_ELEM_LIST_ELEMENTS));
            let elements = lists.flat_map(Attributes::nested).filter_map(|(_, element)| as_element(element));
            let flags = find(set, NFTA_SET_FLAGS).and_then(be32).unwrap_or_default();
            let fields = find(set, NFTA_SET_DESC).and_then(|desc| find(desc, NFTA_SET_DESC_CONCAT)).unwrap_or_default();
            let fields = Attributes::nested(fields)
                .filter_map(|(_, field)| find(field, NFTA_SET_FIELD_LEN).and_then(be32))
                .map(|bytes| bytes as usize)
                .collect();
            let read = ForeignSet { ranges: flags & NFT_SET_INTERVAL != 0, fields, elements: elements.collect() };
            table.sets.insert(set_name, read);
        }
        Ok(true)
    }
}

/// The entrance that a chain is, if packets enter it that the host forwards.
fn entrance(chain: &[u8]) -> Option<Entrance> {
    let hook = find(chain, NFTA_CHAIN_HOOK)?;
    (find(hook, NFTA_HOOK_HOOKNUM).and_then(be32)? == NF_INET_FORWARD).then_some(())?;
    let policy = find(chain, NFTA_CHAIN_POLICY).and_then(be32).unwrap_or(NF_ACCEPT);
    Some(Entrance { chain: find(chain, NFTA_CHAIN_NAME).map(text)?, drops: policy == NF_DROP })
}

/// The set that an expression looks into.
fn looked_up(expression: &[u8]) -> Option<String> {
    (find(expression, NFTA_EXPR_NAME).map(text)? == "lookup").then_some(())?;
    find(find(expression, NFTA_EXPR_DATA)?, NFTA_LOOKUP_SET).map(text)
}
