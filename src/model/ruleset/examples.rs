//! Random rulesets, the same for the same seed, for tests of this crate and of the main one, which includes this file as well. All
//! of them are such as the kernel takes: every form of set and statement occurs. Must not be in any product.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::string::{String, ToString as _};
use std::vec;
use std::vec::Vec;

use model::addr::{Family, IfName};
use model::ruleset::*;

/// A stream of decisions (SplitMix64).
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % u64::from(bound)).expect("below")
    }

    fn byte(&mut self, bound: u32) -> u8 {
        u8::try_from(self.below(bound)).expect("a byte")
    }

    fn short(&mut self, bound: u32) -> u16 {
        u16::try_from(self.below(bound)).expect("two bytes")
    }

    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(u32::try_from(choices.len()).expect("few")) as usize].clone()
    }

    fn op(&mut self) -> Op {
        self.pick(&[Op::Eq, Op::Ne])
    }

    fn family(&mut self) -> Family {
        self.pick(&[Family::V4, Family::V6])
    }

    fn end(&mut self) -> End {
        self.pick(&[End::In, End::Out])
    }
}

pub(crate) const INET: TableKey = TableKey { family: TableFamily::Inet, name: "flock" };
pub(crate) const ARP: TableKey = TableKey { family: TableFamily::Arp, name: "flock" };
pub(crate) const NAT: TableKey = TableKey { family: TableFamily::Inet, name: "flock_masquerade" };

/// A ruleset of any of the tables.
pub(crate) fn ruleset(seed: u64) -> Ruleset {
    let mut dice = Dice(seed);
    let mut ruleset = Ruleset::new();
    if dice.below(8) > 0 {
        ruleset.insert(INET, inet(&mut dice));
    }
    if dice.below(2) > 0 {
        ruleset.insert(ARP, arp(&mut dice));
    }
    if dice.below(2) > 0 {
        ruleset.insert(NAT, nat(&mut dice));
    }
    ruleset
}

fn link(dice: &mut Dice) -> IfName {
    std::format!("flock{}", dice.below(6)).parse().expect("a name")
}

fn address(dice: &mut Dice, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 0, dice.byte(2), dice.byte(8)).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, dice.short(2), dice.short(8)).into(),
    }
}

/// Ranges that neither touch nor overlap, of one address, a prefix, or neither.
fn ranges(dice: &mut Dice, family: Family) -> BTreeSet<Element> {
    let mut found = BTreeSet::new();
    let mut next = dice.below(300);
    for _ in 0..dice.below(5) {
        let last = next + dice.below(9);
        let at = |number: u32| match family {
            Family::V4 => IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number)),
            Family::V6 => Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number)).into(),
        };
        found.insert(Element::Range(at(next), at(last)));
        next = last + 2 + dice.below(40);
    }
    found
}

fn set(dice: &mut Dice, form: Form) -> Set {
    let mut elements = BTreeSet::new();
    let count = dice.below(5);
    for _ in 0..count {
        elements.extend(match form {
            Form::Links { .. } => Some(Element::Link(link(dice))),
            Form::LinkPairs => Some(Element::Links(link(dice), link(dice))),
            Form::Addresses(family) => Some(Element::Address(address(dice, family))),
            Form::LinkAddresses(family) => Some(Element::LinkAddress(link(dice), address(dice, family))),
            Form::Ports(family) => {
                let protocol = dice.pick(&[6, 17, 132]);
                Some(Element::Port(address(dice, family), protocol, dice.pick(&[53, 80, 443, 8080, 65535])))
            }
            Form::Ranges(_) | Form::Recent { .. } | Form::Rates { .. } => None,
        });
    }
    if let Form::Ranges(family) = form {
        elements = ranges(dice, family);
    }
    Set { form, elements }
}

fn form(dice: &mut Dice) -> Form {
    match dice.below(8) {
        0 => Form::Links { counted: dice.below(2) > 0 },
        1 => Form::LinkPairs,
        2 => Form::Addresses(dice.family()),
        3 => Form::LinkAddresses(dice.family()),
        4 => Form::Ports(dice.family()),
        5 => Form::Ranges(dice.family()),
        6 => Form::Recent { family: dice.family(), seconds: 10 + dice.below(2), size: 1024 },
        _ => Form::Rates { seconds: 60 + dice.below(2), size: 64 },
    }
}

fn of(family: Family) -> Statement {
    Statement::of_family(family)
}

fn value(ip: IpAddr) -> Value {
    match ip {
        IpAddr::V4(ip) => Value::V4(ip),
        IpAddr::V6(ip) => Value::V6(ip),
    }
}

/// What leads to a set of this form.
fn through(dice: &mut Dice, name: &str, form: Form) -> Rule {
    let name = name.to_string();
    match form {
        Form::Links { .. } => vec![Statement::In(vec![Field::Link(dice.end())], dice.op(), name)],
        Form::LinkPairs => vec![Statement::In(vec![Field::Link(End::In), Field::Link(End::Out)], dice.op(), name)],
        Form::Addresses(family) => match dice.below(3) {
            0 => vec![of(family), Statement::In(vec![Field::Source(family)], dice.op(), name)],
            1 => vec![Statement::In(vec![Field::ConnectionSource(family)], dice.op(), name)],
            _ => vec![Statement::In(vec![Field::ConnectionDestination(family)], dice.op(), name)],
        },
        Form::LinkAddresses(family) => {
            vec![of(family), Statement::In(vec![Field::Link(End::In), Field::Source(family)], dice.op(), name)]
        }
        Form::Ports(family) => {
            let fields = vec![Field::ConnectionDestination(family), Field::Protocol, Field::ConnectionPort];
            vec![Statement::In(fields, dice.op(), name)]
        }
        Form::Ranges(family) => vec![of(family), Statement::In(vec![Field::Destination(family)], dice.op(), name)],
        Form::Recent { family, .. } => match dice.below(2) {
            0 => {
                let span = dice.pick(&[Span::FromFirst, Span::FromLast]);
                let fields = match dice.below(2) {
                    0 => vec![Field::Link(End::In), Field::Destination(family)],
                    _ => vec![Field::Link(End::Out), Field::Source(family)],
                };
                vec![of(family), Statement::Remember(fields, span, name)]
            }
            _ => {
                vec![of(family), Statement::In(vec![Field::Link(End::In), Field::Destination(family)], dice.op(), name)]
            }
        },
        Form::Rates { .. } => {
            vec![Statement::FasterThan { set: name, rate: 1 + dice.below(100), burst: 1 + dice.below(100) }]
        }
    }
}

/// Statements that lead nowhere.
fn match_of(dice: &mut Dice) -> Rule {
    let family = dice.family();
    let protocol = |number| Statement::Is(Field::Protocol, Op::Eq, Value::Byte(number));
    match dice.below(16) {
        0 => vec![of(family), Statement::Is(Field::Source(family), dice.op(), value(address(dice, family)))],
        1 => vec![of(family), Statement::Is(Field::Destination(family), dice.op(), value(address(dice, family)))],
        2 => vec![Statement::Is(Field::Protocol, dice.op(), Value::Byte(dice.pick(&[1, 6, 17, 58, 132, 200])))],
        3 => vec![protocol(6), Statement::Is(Field::DestinationPort, dice.op(), Value::Short(dice.short(65536)))],
        4 => vec![protocol(17), Statement::Between(Field::SourcePort, 1 + dice.short(100), 200 + dice.short(100))],
        5 => {
            vec![protocol(1), Statement::Is(Field::IcmpType, dice.op(), Value::Byte(dice.pick(&[0, 3, 5, 8, 11, 200])))]
        }
        6 => vec![protocol(58), Statement::Between(Field::Icmp6Type, 133, 134 + dice.short(4))],
        7 => vec![Statement::Is(Field::Direction, dice.op(), Value::Byte(dice.byte(2)))],
        8 => vec![Statement::Is(Field::ConnectionSource(family), dice.op(), value(address(dice, family)))],
        9 => vec![
            protocol(dice.pick(&[6, 17, 132])),
            Statement::Is(Field::ConnectionPort, dice.op(), Value::Short(dice.short(65536))),
        ],
        10 => vec![
            protocol(dice.pick(&[6, 17, 132])),
            Statement::Between(Field::ConnectionPort, dice.short(1000), 1000 + dice.short(60000)),
        ],
        11 => vec![Statement::NameBegins(dice.end(), dice.op(), "flock")],
        12 => vec![Statement::StateIn(1 + dice.below(15))],
        13 => {
            let value = dice.below(0x8000) << 16;
            vec![Statement::MarkIs { mask: 0x7fff_0000, value }]
        }
        14 => vec![Statement::Is(Field::Family, dice.op(), Value::Byte(dice.pick(&[2, 10])))],
        _ => vec![Statement::AtMost { rate: 1 + dice.below(100), burst: 1 + dice.below(100) }],
    }
}

/// Statements that let everything by.
fn effect(dice: &mut Dice) -> Statement {
    match dice.below(3) {
        0 => Statement::Count,
        1 => Statement::Log(dice.pick(&["flock drop ", "flock: a/b "]).to_string()),
        _ => Statement::SetMark { mask: 0x7fff_0000, value: dice.below(0x8000) << 16 },
    }
}

fn end(dice: &mut Dice, chains: &[String]) -> Verdict {
    match dice.below(if chains.is_empty() { 3 } else { 7 }) {
        0 => Verdict::Accept,
        1 => Verdict::Drop,
        2 => Verdict::Return,
        3 => Verdict::Goto(dice.pick(chains)),
        _ => Verdict::Jump(dice.pick(chains)),
    }
}

fn inet(dice: &mut Dice) -> Table {
    let mut table = Table::default();
    for name in ["links", "self", "src4", "pods/1a2b/4", "named/77/6", "recent.6", "x-y"] {
        if dice.below(3) > 0 {
            // Mostly the same form under the same name, so that few pairs of tables have to be made anew.
            let usual = form(&mut Dice(name.len() as u64 * 7919));
            let form = if dice.below(30) == 0 { form(dice) } else { usual };
            table.sets.insert(name.to_string(), set(dice, form));
        }
    }
    // Each leads only to such as are behind it here, so there are no circles; the order is another one in every ruleset.
    let mut places: Vec<String> = vec![];
    for chain in 0..7 {
        places.push(std::format!("policy/ns/{chain}.p/in"));
    }
    for map in ["out", "in"] {
        places.push(map.to_string());
    }
    for last in (1..places.len()).rev() {
        let other = dice.below(u32::try_from(last).expect("few") + 1) as usize;
        places.swap(last, other);
    }
    places.retain(|_| dice.below(4) > 0);
    let (mut chains, mut maps): (Vec<String>, Vec<String>) = (vec![], vec![]);
    for place in places.iter().rev() {
        if !place.contains('/') {
            let links = (0..dice.below(4)).map(|_| (link(dice), end(dice, &chains))).collect::<BTreeMap<_, _>>();
            table.maps.insert(place.clone(), links);
            maps.push(place.clone());
        } else {
            let rules = rules(dice, &table, &chains, &maps);
            table.chains.insert(place.clone(), Chain { base: None, rules });
            chains.push(place.clone());
        }
    }
    for (name, hook, priority) in
        [("source", Hook::Prerouting, -300), ("guard", Hook::Input, 0), ("egress", Hook::Forward, -1)]
    {
        if dice.below(3) > 0 {
            let priority = if dice.below(30) == 0 { priority + 7 } else { priority };
            let base = Some(Base { kind: ChainKind::Filter, hook, priority });
            let rules = rules(dice, &table, &chains, &maps);
            table.chains.insert(name.to_string(), Chain { base, rules });
        }
    }
    table
}

fn rules(dice: &mut Dice, table: &Table, chains: &[String], maps: &[String]) -> Vec<Rule> {
    let sets: Vec<(String, Form)> = table.sets.iter().map(|(name, set)| (name.clone(), set.form)).collect();
    let mut rules = vec![];
    for _ in 0..dice.below(6) {
        let mut rule = Rule::new();
        match dice.below(5) {
            0 if !sets.is_empty() => {
                let (name, form) = dice.pick(&sets);
                rule.extend(through(dice, &name, form));
            }
            1 => {}
            _ => rule.extend(match_of(dice)),
        }
        if dice.below(3) == 0 {
            rule.push(effect(dice));
        }
        match dice.below(4) {
            0 if !maps.is_empty() => rule.push(Statement::ByMap(dice.end(), dice.pick(maps))),
            1 if !rule.is_empty() => {}
            _ => rule.push(Statement::Verdict(end(dice, chains))),
        }
        rules.push(rule);
    }
    rules
}

fn arp(dice: &mut Dice) -> Table {
    let mut table = Table::default();
    let form = Form::LinkAddresses(Family::V4);
    table.sets.insert("src4".to_string(), set(dice, form));
    table
        .sets
        .insert("rates".to_string(), Set { form: Form::Rates { seconds: 60, size: 64 }, elements: BTreeSet::new() });
    let mut rules = vec![vec![Statement::NameBegins(End::In, Op::Ne, "flock"), Statement::Verdict(Verdict::Accept)]];
    if dice.below(2) > 0 {
        let fields = vec![Field::Link(End::In), Field::ArpSource];
        let verdict = Statement::Verdict(Verdict::Accept);
        rules.push(vec![Statement::In(fields, Op::Eq, "src4".to_string()), verdict]);
    }
    if dice.below(2) > 0 {
        let ip = value(address(dice, Family::V4));
        rules.push(vec![Statement::Is(Field::ArpSource, dice.op(), ip), Statement::Count]);
    }
    rules.push(through(dice, "rates", Form::Rates { seconds: 60, size: 64 }));
    let base = Some(Base { kind: ChainKind::Filter, hook: Hook::Input, priority: 0 });
    table.chains.insert("source".to_string(), Chain { base, rules });
    table
}

fn nat(dice: &mut Dice) -> Table {
    let mut table = Table::default();
    let mut rules = vec![];
    for family in [Family::V4, Family::V6] {
        let name = if family == Family::V4 { "own4" } else { "own6" };
        table.sets.insert(name.to_string(), set(dice, Form::Ranges(family)));
        let mut rule = through(dice, name, Form::Ranges(family));
        rule.push(Statement::Masquerade);
        rules.push(rule);
    }
    let base = Some(Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 100 });
    table.chains.insert("postrouting".to_string(), Chain { base, rules });
    table
}
