//! From any ruleset to any other, in an order that a kernel takes which looks at every single change; and small ways for small
//! differences.

use alloc::string::ToString as _;
use alloc::vec::Vec;
use std::collections::HashSet;

use super::*;
use crate::addr::Family;
use crate::ruleset::examples::{ARP, INET, ruleset};
use crate::ruleset::{ChainKind, End, Hook};

/// Carries out one change after the other, and says which one was refused.
#[track_caller]
fn one_by_one(shown: &Ruleset, changes: &[Change]) -> Ruleset {
    let mut ruleset = shown.clone();
    for change in changes {
        if let Err(why) = apply(&mut ruleset, core::slice::from_ref(change)) {
            panic!("{change:?}: {why}\nin {changes:#?}\nfrom {shown:#?}");
        }
    }
    ruleset
}

#[test]
fn any_ruleset_becomes_any_other_by_changes_each_of_which_the_kernel_takes() {
    let (mut anew, mut swapped) = (0, 0);
    for seed in 0..4000 {
        let (a, b) = (ruleset(seed), ruleset(seed + 4000));
        let changes = diff(&b, &a);
        assert_eq!(one_by_one(&a, &changes), b, "seed {seed}");
        let [mut at_once, mut noted] = [a.clone(), a.clone()];
        apply(&mut at_once, &changes).expect("taken");
        assert_eq!(at_once, b, "seed {seed}");
        carried_out(&mut noted, &changes).expect("the same");
        assert_eq!(noted, b, "seed {seed}");
        assert_eq!(diff(&b, &b), [], "seed {seed}");
        anew +=
            usize::from(a.contains_key(&INET) && changes.contains(&Change::RemoveTable(INET)) && b.contains_key(&INET));
        swapped += usize::from(
            changes.iter().any(|change| matches!(change, Change::PutRules(_, _, rules) if rules.is_empty())),
        );
    }
    assert!(anew > 100 && swapped > 1000, "the examples have too little in them: {anew} {swapped}");
}

#[test]
fn what_the_examples_hold_is_every_form_of_set() {
    let mut forms = HashSet::new();
    for seed in 0..200 {
        for table in ruleset(seed).values() {
            forms.extend(table.sets.values().map(|set| core::mem::discriminant(&set.form)));
        }
    }
    assert_eq!(forms.len(), 8);
}

fn jump(to: &str) -> Rule {
    vec![Statement::Verdict(Verdict::Jump(to.to_string()))]
}

fn link(name: &str) -> IfName {
    name.parse().expect("a name")
}

fn address(number: u32) -> Element {
    Element::Address(core::net::Ipv4Addr::from(number).into())
}

/// A table with a map, two chains behind it, and a set that the last one uses.
fn small() -> Ruleset {
    let mut table = Table::default();
    let base = Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0 });
    table
        .chains
        .insert("in".to_string(), Chain { base, rules: vec![vec![Statement::ByMap(End::In, "m".to_string())]] });
    table.chains.insert("a".to_string(), Chain { base: None, rules: vec![jump("b")] });
    let in_set = Statement::In(vec![], crate::ruleset::Op::Eq, "s".to_string());
    table.chains.insert("b".to_string(), Chain { base: None, rules: vec![vec![in_set]] });
    table.maps.insert("m".to_string(), [(link("flock1"), Verdict::Goto("a".to_string()))].into());
    let elements = (0..100_000).map(address).collect();
    table.sets.insert("s".to_string(), Set { form: Form::Addresses(Family::V4), elements });
    [(INET, table)].into()
}

/// What leads from the small ruleset to one that differs a little.
fn way(change: impl FnOnce(&mut Table)) -> Vec<Change> {
    let (shown, mut wanted) = (small(), small());
    change(wanted.get_mut(&INET).expect("there"));
    let changes = diff(&wanted, &shown);
    assert_eq!(one_by_one(&shown, &changes), wanted);
    changes
}

#[test]
fn a_small_difference_is_a_short_way() {
    let (form, s, m) = (Form::Addresses(Family::V4), "s".to_string(), "m".to_string());
    let elements = |table: &mut Table| {
        let set = table.sets.get_mut("s").expect("there");
        set.elements.remove(&address(50_000));
        set.elements.insert(address(200_000));
    };
    let gone = Change::RemoveElements(INET, s.clone(), form, vec![address(50_000)]);
    assert_eq!(way(elements), [gone, Change::AddElements(INET, s.clone(), form, vec![address(200_000)])]);

    let other_verdict = |table: &mut Table| {
        table.maps.get_mut("m").expect("there").insert(link("flock1"), Verdict::Goto("b".to_string()));
        table.maps.get_mut("m").expect("there").insert(link("flock2"), Verdict::Drop);
    };
    let new = vec![(link("flock1"), Verdict::Goto("b".to_string())), (link("flock2"), Verdict::Drop)];
    let gone = Change::RemoveLinks(INET, m.clone(), vec![link("flock1")]);
    assert_eq!(way(other_verdict), [gone, Change::AddLinks(INET, m.clone(), new)]);

    let rules = vec![vec![Statement::Count]];
    let put = rules.clone();
    let changes = way(|table| table.chains.get_mut("b").expect("there").rules = put);
    assert_eq!(changes, [Change::PutRules(INET, "b".to_string(), rules)], "what led nowhere needs no step of its own");

    let places = |table: &mut Table| {
        table.maps.get_mut("m").expect("there").insert(link("flock1"), Verdict::Goto("b".to_string()));
        table.chains.get_mut("a").expect("there").rules.clear();
        table.chains.get_mut("b").expect("there").rules = vec![jump("a")];
    };
    let changes = way(places);
    assert_eq!(changes.len(), 4, "two chains change places: {changes:?}");
}

#[test]
fn what_goes_goes_after_all_that_led_there() {
    let changes = way(|table| *table = Table::default());
    let named = |name: &str| name.to_string();
    let expected = [
        Change::PutRules(INET, named("a"), vec![]),
        Change::PutRules(INET, named("b"), vec![]),
        Change::PutRules(INET, named("in"), vec![]),
        Change::RemoveLinks(INET, named("m"), vec![link("flock1")]),
        Change::RemoveChain(INET, named("a")),
        Change::RemoveChain(INET, named("b")),
        Change::RemoveChain(INET, named("in")),
        Change::RemoveMap(INET, named("m")),
        Change::RemoveSet(INET, named("s")),
    ];
    assert_eq!(changes, expected, "and no element of a set that goes is named");
    assert_eq!(diff(&Ruleset::new(), &small()), [Change::RemoveTable(INET)]);
}

#[test]
fn what_the_kernel_cannot_change_has_its_table_made_anew_and_no_other_one() {
    for change in [
        (|table: &mut Table| {
            table.sets.get_mut("s").expect("there").form = Form::Recent { family: Family::V4, seconds: 1, size: 1 }
        }) as fn(&mut Table),
        |table| table.chains.get_mut("in").expect("there").base.as_mut().expect("entered").priority = 1,
        |table| table.chains.get_mut("in").expect("there").base = None,
        |table| {
            table.maps.clear();
            table.chains.get_mut("in").expect("there").rules.clear();
            table.sets.insert("m".to_string(), Set { form: Form::LinkPairs, elements: BTreeSet::new() });
        },
        |table| {
            table.sets.clear();
            table.chains.get_mut("b").expect("there").rules.clear();
            table.maps.insert("s".to_string(), Default::default());
        },
    ] {
        let (mut shown, mut wanted) = (small(), small());
        shown.insert(ARP, Table::default());
        wanted.insert(ARP, Table::default());
        let table = wanted.get_mut(&INET).expect("there");
        table.sets.values_mut().for_each(|set| set.elements.clear());
        change(table);
        let changes = diff(&wanted, &shown);
        assert_eq!(changes[..2], [Change::RemoveTable(INET), Change::AddTable(INET)], "{changes:?}");
        assert!(!changes.contains(&Change::RemoveTable(ARP)));
        assert_eq!(one_by_one(&shown, &changes), wanted);
    }
}

#[test]
fn what_the_kernel_refuses_is_refused_and_named() {
    let named = |name: &str| name.to_string();
    let form = Form::Addresses(Family::V4);
    let range =
        |a: u32, b: u32| Element::Range(core::net::Ipv4Addr::from(a).into(), core::net::Ipv4Addr::from(b).into());
    let ranges = Form::Ranges(Family::V4);
    let before = [
        Change::AddSet(INET, named("r"), ranges),
        Change::AddElements(INET, named("r"), ranges, vec![range(10, 20), range(30, 30)]),
    ];
    let mut shown = small();
    apply(&mut shown, &before).expect("taken");
    for (change, why) in [
        (Change::RemoveTable(ARP), "flock is not there"),
        (Change::AddChain(ARP, named("x"), None), "flock is not there"),
        (Change::AddChain(INET, named("a"), None), "a is there already"),
        (Change::AddSet(INET, named("m"), form), "m is there already"),
        (Change::AddMap(INET, named("s")), "s is there already"),
        (Change::PutRules(INET, named("x"), vec![]), "x is not there"),
        (Change::PutRules(INET, named("a"), vec![jump("x")]), "x is not there"),
        (Change::PutRules(INET, named("a"), vec![vec![Statement::ByMap(End::In, named("x"))]]), "x is not there"),
        (
            Change::PutRules(
                INET,
                named("a"),
                vec![vec![Statement::Remember(vec![], crate::ruleset::Span::FromLast, named("x"))]],
            ),
            "x is not there",
        ),
        (Change::PutRules(INET, named("b"), vec![jump("a")]), "packets would come back to b"),
        (
            Change::PutRules(INET, named("b"), vec![vec![Statement::ByMap(End::In, named("m"))]]),
            "packets would come back to b",
        ),
        (Change::PutRules(INET, named("b"), vec![jump("in")]), "packets enter at in, so nothing else can lead there"),
        (Change::RemoveChain(INET, named("a")), "something still leads to a"),
        (Change::RemoveChain(INET, named("b")), "something still leads to b"),
        (Change::RemoveChain(INET, named("x")), "x is not there"),
        (Change::RemoveMap(INET, named("m")), "something still leads to m"),
        (Change::RemoveSet(INET, named("s")), "something still leads to s"),
        (Change::AddLinks(INET, named("m"), vec![(link("flock1"), Verdict::Drop)]), "flock1 of m is there already"),
        (Change::AddLinks(INET, named("m"), vec![(link("f"), Verdict::Goto(named("x")))]), "x is not there"),
        (Change::AddLinks(INET, named("x"), vec![]), "x is not there"),
        (Change::RemoveLinks(INET, named("m"), vec![link("flock9")]), "flock9 of m is not there"),
        (Change::AddElements(INET, named("s"), ranges, vec![]), "s has another form"),
        (
            Change::AddElements(INET, named("s"), form, vec![Element::Link(link("a"))]),
            "Link(IfName(\"a\")) has another form",
        ),
        (Change::AddElements(INET, named("s"), form, vec![address(7)]), "Address(0.0.0.7) is there already"),
        (
            Change::RemoveElements(INET, named("s"), form, vec![address(u32::MAX)]),
            "Address(255.255.255.255) of s is not there",
        ),
        (
            Change::AddElements(INET, named("r"), ranges, vec![range(5, 10)]),
            "Range(0.0.0.5, 0.0.0.10) is there already",
        ),
        (
            Change::AddElements(INET, named("r"), ranges, vec![range(20, 25)]),
            "Range(0.0.0.20, 0.0.0.25) is there already",
        ),
        (Change::AddElements(INET, named("r"), ranges, vec![range(9, 8)]), "Range(0.0.0.9, 0.0.0.8) has another form"),
        (
            Change::RemoveElements(INET, named("r"), ranges, vec![range(10, 19)]),
            "Range(0.0.0.10, 0.0.0.19) of r is not there",
        ),
    ] {
        let refused = apply(&mut shown.clone(), core::slice::from_ref(&change)).map_err(|why| why.to_string());
        assert_eq!(refused, Err(why.to_string()), "{change:?}");
    }
    let taken = [
        Change::AddTable(INET),
        Change::AddElements(INET, named("r"), ranges, vec![range(21, 29), range(5, 9)]),
        Change::RemoveElements(INET, named("r"), ranges, vec![range(10, 20)]),
        Change::PutRules(INET, named("a"), vec![]),
        Change::RemoveChain(INET, named("b")),
        Change::RemoveSet(INET, named("s")),
        Change::PutRules(INET, named("in"), vec![]),
        Change::RemoveMap(INET, named("m")),
        Change::RemoveChain(INET, named("a")),
    ];
    apply(&mut shown, &taken).expect("taken");
}
