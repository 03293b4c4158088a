//! What a kernel does with packets, by a table as data: its forward chains in their order, rule by rule. It must know nothing of
//! policies, and stops the test where a table says what no kernel would take.

#[allow(unused_imports, reason = "one of the crates that look at this is without std")]
use std::{borrow::ToOwned, string::String, string::ToString, vec::Vec};

use std::net::IpAddr;

use model::addr::{Family, IfName};
use model::ruleset::diff::Change;
use model::ruleset::{Chain, Element, End, Field, Form, Hook, Op, Set, Statement, Table, TableKey, Value, Verdict};

/// A packet that is forwarded.
#[derive(Debug, Clone)]
pub struct Packet {
    pub by: String,
    pub to: String,
    pub family: Family,
    pub protocol: u8,
    /// `CT_*` bits.
    pub state: u32,
    /// None for a packet that belongs to no connection.
    pub connection: Option<Connection>,
}

/// What the kernel keeps of a connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who began it.
    pub source: IpAddr,
    /// Who answers.
    pub destination: IpAddr,
    /// At which port.
    pub port: u16,
    /// The packet is an answer.
    pub answer: bool,
    pub mark: u32,
}

/// Whether the packet passes. It may leave a mark in its connection.
pub fn passes(table: &Table, packet: &mut Packet) -> bool {
    let mut chains: Vec<&Chain> =
        table.chains.values().filter(|chain| chain.base.is_some_and(|base| base.hook == Hook::Forward)).collect();
    chains.sort_by_key(|chain| chain.base.expect("a base").priority);
    chains.into_iter().all(|chain| walk(table, chain, packet, 0) != Some(Verdict::Drop))
}

/// The verdict of a chain, if it comes to one.
fn walk(table: &Table, chain: &Chain, packet: &mut Packet, depth: usize) -> Option<Verdict> {
    assert!(depth < 16, "the kernel follows 16 jumps");
    let follow = |name: &String, packet: &mut Packet| walk(table, &table.chains[name], packet, depth + 1);
    for rule in &chain.rules {
        match verdict(table, rule, packet) {
            None => {}
            Some(Verdict::Jump(name)) => {
                if let Some(end) = follow(&name, packet) {
                    return Some(end);
                }
            }
            Some(Verdict::Goto(name)) => return follow(&name, packet),
            Some(Verdict::Return) => return None,
            Some(end) => return Some(end),
        }
    }
    None
}

fn verdict(table: &Table, rule: &[Statement], packet: &mut Packet) -> Option<Verdict> {
    for statement in rule {
        let holds = match statement {
            Statement::Is(field, op, value) => {
                read(*field, packet).is_some_and(|read| is(*op, read == Shown::of(value)))
            }
            Statement::NameBegins(end, op, start) => {
                let name = if *end == End::In { &packet.by } else { &packet.to };
                is(*op, name.starts_with(start))
            }
            Statement::Between(field, first, last) => match read(*field, packet) {
                Some(Shown::Short(number)) => (*first..=*last).contains(&number),
                Some(other) => panic!("{other:?} is no number"),
                None => false,
            },
            Statement::In(fields, op, set) => {
                let set = &table.sets[set];
                let read: Option<Vec<Shown>> = fields.iter().map(|field| read(*field, packet)).collect();
                read.is_some_and(|read| is(*op, is_in(&read, set)))
            }
            Statement::ByMap(end, map) => {
                let name = if *end == End::In { &packet.by } else { &packet.to };
                let link: IfName = name.parse().expect("a name");
                if let Some(verdict) = table.maps[map].get(&link) {
                    return Some(verdict.clone());
                }
                false
            }
            Statement::StateIn(bits) => packet.state & bits != 0,
            Statement::MarkIs { mask, value } => packet.connection.as_ref().is_some_and(|c| c.mark & mask == *value),
            Statement::SetMark { mask, value } => {
                if let Some(connection) = &mut packet.connection {
                    connection.mark = connection.mark & !mask | value;
                }
                true
            }
            Statement::Count | Statement::Log(_) | Statement::AtMost { .. } => true,
            Statement::Verdict(verdict) => return Some(verdict.clone()),
            other => panic!("{other:?} has no place in a forward chain of policies"),
        };
        if !holds {
            return None;
        }
    }
    None
}

fn is(op: Op, holds: bool) -> bool {
    holds == (op == Op::Eq)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Link(String),
    Byte(u8),
    Short(u16),
    Address(IpAddr),
}

impl Shown {
    fn of(value: &Value) -> Shown {
        match value {
            Value::Byte(byte) => Shown::Byte(*byte),
            Value::Short(short) => Shown::Short(*short),
            Value::V4(ip) => Shown::Address((*ip).into()),
            Value::V6(ip) => Shown::Address((*ip).into()),
        }
    }
}

fn read(field: Field, packet: &Packet) -> Option<Shown> {
    let connection = packet.connection.as_ref();
    let of = |family, ip: IpAddr| (packet.family == family).then_some(Shown::Address(ip));
    match field {
        Field::Link(End::In) => Some(Shown::Link(packet.by.clone())),
        Field::Link(End::Out) => Some(Shown::Link(packet.to.clone())),
        Field::Protocol => Some(Shown::Byte(packet.protocol)),
        Field::Direction => connection.map(|c| Shown::Byte(c.answer.into())),
        Field::ConnectionSource(family) => connection.and_then(|c| of(family, c.source)),
        Field::ConnectionDestination(family) => connection.and_then(|c| of(family, c.destination)),
        Field::ConnectionPort => connection.map(|c| Shown::Short(c.port)),
        other => panic!("{other:?} is of a packet, not of its connection"),
    }
}

fn is_in(read: &[Shown], set: &Set) -> bool {
    match (set.form, read) {
        (Form::Addresses(_), [Shown::Address(ip)]) => set.elements.contains(&Element::Address(*ip)),
        (Form::Ranges(_), [Shown::Address(ip)]) => set.elements.iter().any(|element| match element {
            Element::Range(first, last) => (first..=last).contains(&ip),
            other => panic!("{other:?} is no range"),
        }),
        (Form::Ports(_), [Shown::Address(ip), Shown::Byte(protocol), Shown::Short(port)]) => {
            set.elements.contains(&Element::Port(*ip, *protocol, *port))
        }
        (Form::LinkPairs, [Shown::Link(by), Shown::Link(to)]) => {
            let [by, to] = [by, to].map(|name| name.parse().expect("a name"));
            set.elements.contains(&Element::Links(by, to))
        }
        (form, read) => panic!("{read:?} is none of {form:?}"),
    }
}

/// Carries changes out, as strictly as a kernel.
pub fn apply(table: &mut Table, changes: &[Change], of: TableKey) {
    for change in changes {
        let key = match change {
            Change::AddSet(key, name, form) => {
                let new = table.sets.insert(name.clone(), Set { form: *form, elements: Default::default() });
                assert!(new.is_none(), "{change:?}: it is there");
                key
            }
            Change::RemoveSet(key, name) => {
                assert!(!led_to(table, name), "{change:?}: rules lead to it");
                table.sets.remove(name).expect("a set");
                key
            }
            Change::AddMap(key, name) => {
                assert!(table.maps.insert(name.clone(), Default::default()).is_none(), "{change:?}: it is there");
                key
            }
            Change::RemoveMap(key, name) => {
                assert!(!led_to(table, name), "{change:?}: rules lead to it");
                table.maps.remove(name).expect("a map");
                key
            }
            Change::AddChain(key, name, base) => {
                let new = table.chains.insert(name.clone(), Chain { base: *base, rules: Vec::new() });
                assert!(new.is_none(), "{change:?}: it is there");
                key
            }
            Change::PutRules(key, name, rules) => {
                table.chains.get_mut(name).expect("a chain").rules = rules.clone();
                for rule in rules {
                    rule.iter()
                        .flat_map(names)
                        .for_each(|name| assert!(is_there(table, name), "{change:?}: no {name}"));
                }
                key
            }
            Change::RemoveChain(key, name) => {
                assert!(!led_to(table, name), "{change:?}: something leads to it");
                table.chains.remove(name).expect("a chain");
                key
            }
            Change::AddElements(key, name, form, elements) => {
                let set = table.sets.get_mut(name).expect("a set");
                assert_eq!(set.form, *form);
                assert!(!elements.is_empty());
                elements
                    .iter()
                    .for_each(|element| assert!(set.elements.insert(element.clone()), "{element:?} is there"));
                key
            }
            Change::RemoveElements(key, name, form, elements) => {
                let set = table.sets.get_mut(name).expect("a set");
                assert_eq!(set.form, *form);
                assert!(!elements.is_empty());
                elements.iter().for_each(|element| assert!(set.elements.remove(element), "{element:?} is not there"));
                key
            }
            Change::AddLinks(key, name, links) => {
                for (link, verdict) in links {
                    if let Verdict::Goto(chain) | Verdict::Jump(chain) = verdict {
                        assert!(is_there(table, chain), "{change:?}: no {chain}");
                    }
                    let map = table.maps.get_mut(name).expect("a map");
                    assert!(map.insert(link.clone(), verdict.clone()).is_none(), "{change:?}: it is there");
                }
                key
            }
            Change::RemoveLinks(key, name, links) => {
                let map = table.maps.get_mut(name).expect("a map");
                links.iter().for_each(|link| assert!(map.remove(link).is_some(), "{change:?}: it is not there"));
                key
            }
            Change::AddTable(key) | Change::RemoveTable(key) => panic!("{key:?} is there for others as well"),
        };
        assert_eq!(*key, of);
    }
}

fn names(statement: &Statement) -> impl Iterator<Item = &String> {
    match statement {
        Statement::In(_, _, name) | Statement::ByMap(_, name) => Some(name),
        Statement::Verdict(Verdict::Jump(name) | Verdict::Goto(name)) => Some(name),
        _ => None,
    }
    .into_iter()
}

fn is_there(table: &Table, name: &String) -> bool {
    table.chains.contains_key(name) || table.sets.contains_key(name) || table.maps.contains_key(name)
}

fn led_to(table: &Table, name: &String) -> bool {
    let by_rules =
        table.chains.values().flat_map(|chain| chain.rules.iter().flatten()).flat_map(names).any(|n| n == name);
    let by_links = table.maps.values().flat_map(|links| links.values());
    by_rules || by_links.into_iter().any(|verdict| matches!(verdict, Verdict::Goto(n) | Verdict::Jump(n) if n == name))
}
