//! Policies judged three ways: by the text alone, by the model, and by what a kernel would do with the table. All have to agree, on
//! random clusters, for every connection that a node could have to forward, and after every change.
#![allow(unreachable_pub, reason = "what stands in the folder of the tests is for other tests as well")]

#[path = "../../../tests/policy/clusters.rs"]
mod clusters;
#[path = "../../../tests/support/dice.rs"]
#[allow(dead_code, reason = "not all dice are thrown here")]
mod dice;
#[path = "../../../tests/policy/filter.rs"]
mod filter;
#[path = "../../../tests/policy/oracle.rs"]
mod oracle;

use std::string::{String, ToString};
use std::vec::Vec;

use crate::addr::IfName;
use crate::guard::FILTER;
use crate::policy::compile::{Compiled, Log, Settings, compile};
use crate::policy::select::Pool;
use crate::policy::verdict::{self, Endpoint, Miss, Outcome, Question};
use crate::policy::{NamedPort, Pod, PodKey, Subject, Treatment, World, family, spec};
use crate::ruleset::diff::Change;
use crate::ruleset::{CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, Element, Statement, Table, Verdict};

use clusters::{member, policy, probes};
use dice::Dice;
use filter::{Connection, Packet, passes};
use oracle::{Cluster, Member, Probe, Side};

const SETTINGS: Settings = Settings { mask: 0x7fff_0000, epoch: Some(0x0005_0000), seals: true, log: None };

/// The node's own link to others.
const UPLINK: &str = "eth0";

fn key(member: &Member) -> PodKey {
    PodKey { namespace: member.namespace.as_str().into(), name: member.name.clone() }
}

fn pod(member: &Member) -> Pod {
    let port = |(name, protocol, port): &(String, u8, u16)| NamedPort {
        name: name.as_str().into(),
        protocol: *protocol,
        port: *port,
    };
    Pod {
        labels: member.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        addresses: member.addresses.clone(),
        ports: member.ports.iter().map(port).collect(),
    }
}

fn subject(member: &Member) -> Option<Subject> {
    Some(Subject {
        link: member.link.as_ref()?.parse().expect("a name"),
        pod: Some(key(member)),
        addresses: member.addresses.clone(),
        treatment: Treatment::Enforce,
    })
}

fn world(cluster: &Cluster) -> World {
    let mut pool = Pool::default();
    let mut world = World::default();
    for (name, labels) in &cluster.namespaces {
        let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        world.namespaces.insert(name.clone(), labels);
    }
    for policy in &cluster.policies {
        let read = spec::read(policy).expect("a policy");
        assert_eq!(read.faults, [], "{policy}");
        world.policies.insert((read.namespace, read.name), read.policy.into());
    }
    for member in &cluster.pods {
        let mut pod = pod(member);
        pod.labels = pool.shared(pod.labels);
        world.pods.insert(key(member), pod.into());
    }
    world
}

fn subjects(cluster: &Cluster) -> Vec<Subject> {
    cluster.pods.iter().filter_map(subject).collect()
}

fn compiled(cluster: &Cluster) -> Compiled {
    compile(&world(cluster), &subjects(cluster), &SETTINGS)
}

/// The first packet of a connection.
fn first(cluster: &Cluster, probe: &Probe) -> Packet {
    let link = |side: &Side| side.local.and_then(|pod| cluster.pods[pod].link.clone()).unwrap_or(UPLINK.into());
    Packet {
        by: link(&probe.from),
        to: link(&probe.to),
        family: family(probe.from.address),
        protocol: probe.protocol,
        state: CT_NEW,
        connection: Some(Connection {
            source: probe.from.address,
            destination: probe.to.address,
            port: probe.port,
            answer: false,
            mark: 0,
        }),
    }
}

/// The answer to a packet.
fn answer(packet: &Packet) -> Packet {
    let mut answer = packet.clone();
    (answer.by, answer.to) = (packet.to.clone(), packet.by.clone());
    answer.state = CT_ESTABLISHED;
    if let Some(connection) = &mut answer.connection {
        connection.answer = !connection.answer;
    }
    answer
}

fn shown(cluster: &Cluster, probe: &Probe) -> String {
    let policies: Vec<String> = cluster.policies.iter().map(ToString::to_string).collect();
    std::format!("{probe:?}\n{:#?}\n{:?}\n{}", cluster.pods, cluster.namespaces, policies.join("\n"))
}

#[test]
fn the_table_lets_by_what_the_policies_allow_and_nothing_else() {
    let (mut tried, mut passed) = (0, 0);
    for seed in 0..150 {
        let cluster = clusters::cluster(&mut Dice::new(seed, 1));
        let compiled = compiled(&cluster);
        for probe in probes(&cluster) {
            let allowed = oracle::allowed(&cluster, &probe);
            tried += 1;
            passed += usize::from(allowed);
            let mut packet = first(&cluster, &probe);
            let through = passes(compiled.table(), &mut packet);
            assert_eq!(through, allowed, "seed {seed}: {}", shown(&cluster, &probe));
            // An answer passes as the first packet did, whether or not the connection is remembered.
            let mut answer = answer(&packet);
            assert_eq!(passes(compiled.table(), &mut answer), allowed, "seed {seed}: {}", shown(&cluster, &probe));
            answer.connection.as_mut().expect("one").mark = 0;
            assert_eq!(passes(compiled.table(), &mut answer), allowed, "seed {seed}: {}", shown(&cluster, &probe));
        }
    }
    // Neither answer is rare.
    assert!(passed > tried / 5 && passed < tried * 4 / 5, "{passed} of {tried}");
}

/// The same question in the words of the model.
fn question(cluster: &Cluster, probe: &Probe) -> Question {
    let end = |side: &Side| Endpoint {
        address: side.address,
        link: side.local.and_then(|pod| cluster.pods[pod].link.as_ref()).map(|link| link.parse().expect("a name")),
    };
    Question { from: end(&probe.from), to: end(&probe.to), protocol: probe.protocol, port: probe.port }
}

#[test]
fn the_model_s_own_answer_is_that_of_the_policies_and_names_what_the_kernel_has() {
    let (mut named, mut missed) = (0, 0);
    for seed in 0..40 {
        let cluster = clusters::cluster(&mut Dice::new(seed, 4));
        let (world, subjects) = (world(&cluster), subjects(&cluster));
        let table = compile(&world, &subjects, &SETTINGS).table().clone();
        let there = |name: &String| assert!(table.chains.contains_key(name) || table.sets.contains_key(name), "{name}");
        for probe in probes(&cluster) {
            let answer = verdict::verdict(&world, &subjects, &question(&cluster, &probe));
            let allowed = oracle::allowed(&cluster, &probe);
            assert_eq!(answer.passes(), allowed, "seed {seed}: {answer:#?}\n{}", shown(&cluster, &probe));
            let verdict::Verdict::Judged { egress, ingress } = answer else { continue };
            assert_eq!(egress.passes(), oracle::may_send(&cluster, &probe));
            assert_eq!(ingress.passes(), oracle::may_receive(&cluster, &probe));
            for side in [egress, ingress] {
                let verdict::Side::Isolated { chain, policies, .. } = side else { continue };
                there(&chain);
                for tried in &policies {
                    there(&tried.chain);
                    match &tried.outcome {
                        Outcome::Allows(allowance) => allowance.names.iter().for_each(&there),
                        Outcome::Denies(misses) => {
                            for miss in misses {
                                if let Miss::Peer { sets, .. } = miss {
                                    sets.iter().for_each(&there);
                                    missed += 1;
                                }
                            }
                        }
                    }
                    named += 1;
                }
            }
        }
    }
    assert!(named > 1000 && missed > 1000, "{named}, {missed}");
}

/// Whether the first packet of a connection passes.
fn begins(table: &Table, cluster: &Cluster, probe: &Probe) -> bool {
    passes(table, &mut first(cluster, probe))
}

/// Carries a step out on a table, which is then what compiling anew gives.
fn check(compiled: &Compiled, table: &Table, cluster: &Cluster, why: &str) {
    assert!(compiled.table() == table, "{why}: the changes do not lead to the table");
    let anew = self::compiled(cluster);
    assert_eq!(table, anew.table(), "{why}");
}

#[test]
fn after_any_changes_the_table_is_what_compiling_anew_would_give() {
    let mut revoked = 0;
    for seed in 0..40 {
        let mut dice = Dice::new(seed, 2);
        let mut cluster = clusters::cluster(&mut dice);
        while cluster.policies.len() < 4 {
            let policy = policy(&mut dice, cluster.policies.len());
            cluster.policies.push(policy);
        }
        let mut compiled = compiled(&cluster);
        let mut table = compiled.table().clone();
        for round in 0..8 {
            let before = cluster.clone();
            let was = table.clone();
            let number = dice.below(cluster.pods.len() + 1);
            let new = member(&mut dice, 20 + seed as usize + round);
            let of_policy = dice.below(cluster.policies.len().max(1));
            match (cluster.pods.get_mut(number), dice.below(11)) {
                (None, _) | (Some(_), 0) => cluster.pods.push(new),
                (_, 6) => cluster.policies.push(policy(&mut dice, 50 + round)),
                (_, 7) if !cluster.policies.is_empty() => _ = cluster.policies.remove(of_policy),
                (_, 8) if !cluster.policies.is_empty() => {
                    let other = policy(&mut dice, 0);
                    cluster.policies[of_policy]["spec"] = other["spec"].clone();
                }
                (_, 9) => _ = cluster.namespaces.insert((*dice.pick(&["a", "b", "d"])).into(), new.labels),
                (_, 10) => _ = cluster.namespaces.remove(*dice.pick(&["a", "b", "c"])),
                (Some(_), 1) => _ = cluster.pods.remove(number),
                (Some(pod), 2) => pod.ports = new.ports,
                (Some(pod), 3) => pod.addresses = new.addresses,
                (Some(pod), 4) => pod.link = if pod.link.is_some() { None } else { new.link },
                (Some(pod), _) => pod.labels = new.labels,
            }
            let world = world(&cluster);
            let (old, now) = (self::world(&before), &world);
            let mut revokes = false;
            for key in old.pods.keys().chain(now.pods.keys()).collect::<std::collections::BTreeSet<_>>() {
                let [was, is] = [&old, now].map(|world| Some((key, &**world.pods.get(key)?)));
                if was != is {
                    let step = compiled.pod_changed(was, is);
                    filter::apply(&mut table, &step.changes, FILTER);
                    revokes |= step.revokes;
                    let elements =
                        |change: &Change| matches!(change, Change::AddElements(..) | Change::RemoveElements(..));
                    assert!(step.changes.iter().all(elements), "{:?}", step.changes);
                }
            }
            for name in old.namespaces.keys().chain(now.namespaces.keys()) {
                if old.namespaces.get(name) != now.namespaces.get(name) {
                    let step = compiled.namespace_changed(now, name, now.namespaces.get(name));
                    filter::apply(&mut table, &step.changes, FILTER);
                    revokes |= step.revokes;
                }
            }
            for key in old.policies.keys().chain(now.policies.keys()).collect::<std::collections::BTreeSet<_>>() {
                if old.policies.get(key) != now.policies.get(key) {
                    let step = compiled.policy_changed(now, &key.0, &key.1);
                    filter::apply(&mut table, &step.changes, FILTER);
                    revokes |= step.revokes;
                }
            }
            let [had, has] = [&before, &cluster].map(subjects);
            let links: std::collections::BTreeSet<&IfName> =
                had.iter().chain(&has).map(|subject| &subject.link).collect();
            for link in links {
                let after = has.iter().find(|subject| subject.link == *link);
                let step = compiled.subject_changed(now, link, after);
                filter::apply(&mut table, &step.changes, FILTER);
                revokes |= step.revokes;
            }
            check(&compiled, &table, &cluster, &std::format!("seed {seed}, round {round}"));
            revoked += usize::from(revokes);
            // What begins no more must have been revoked, unless one of the two is gone.
            let stay = |side: &Side| match side.local {
                Some(pod) => {
                    cluster.pods.iter().position(|p| p.name == before.pods[pod].name && p.link == before.pods[pod].link)
                }
                None => None,
            };
            let gone = |side: &Side| {
                let had =
                    |cluster: &Cluster| cluster.pods.iter().filter(|pod| pod.addresses.contains(&side.address)).count();
                side.local.is_some() && stay(side).is_none() || had(&cluster) < had(&before)
            };
            let all = if revokes { Vec::new() } else { probes(&before) };
            for probe in all.iter().filter(|probe| !gone(&probe.from) && !gone(&probe.to)) {
                let now = Probe {
                    from: Side { local: stay(&probe.from), ..probe.from },
                    to: Side { local: stay(&probe.to), ..probe.to },
                    ..*probe
                };
                let ends = begins(&was, &before, probe) && !begins(&table, &cluster, &now);
                assert!(!ends, "seed {seed}, round {round}: not revoked: {}", shown(&cluster, &now));
            }
        }
    }
    assert!(revoked > 20, "{revoked}");
}

#[test]
fn a_revoked_connection_ends_with_the_next_packet_of_either_side_and_an_allowed_one_goes_on() {
    let (mut ended, mut went_on) = (0, 0);
    for seed in 0..100 {
        let mut dice = Dice::new(seed, 3);
        let mut cluster = clusters::cluster(&mut dice);
        let mut before = compiled(&cluster);
        let live: Vec<(Probe, Packet)> = probes(&cluster)
            .into_iter()
            .filter_map(|probe| {
                let mut packet = first(&cluster, &probe);
                passes(before.table(), &mut packet).then_some((probe, packet))
            })
            .collect();
        let judged_anew = policy(&mut dice, 99);
        match dice.below(4) {
            0 => cluster.policies.push(judged_anew),
            1 => _ = cluster.policies.pop(),
            2 if !cluster.policies.is_empty() => {
                for rules in ["ingress", "egress"] {
                    cluster.policies[0]["spec"][rules] = judged_anew["spec"][rules].clone();
                }
            }
            _ => {
                let labels = cluster.namespaces["c"].clone();
                cluster.namespaces.insert("b".into(), labels);
            }
        }
        let mut after = compiled(&cluster);
        let revokes = after.revokes(&before);
        let epoch = if revokes { 0x0006_0000 } else { 0x0005_0000 };
        after.epoch_changed(Some(epoch));
        for (probe, packet) in &live {
            let allowed = oracle::allowed(&cluster, probe);
            ended += usize::from(!allowed);
            went_on += usize::from(allowed);
            for mut packet in [packet.clone(), answer(packet), Packet { state: CT_ESTABLISHED, ..packet.clone() }] {
                assert_eq!(passes(after.table(), &mut packet), allowed, "seed {seed}: {}", shown(&cluster, probe));
            }
        }
        before.epoch_changed(Some(epoch));
    }
    assert!(ended > 500 && went_on > 500, "{ended}, {went_on}");
}

/// A cluster of two pods of this node, a pod elsewhere, and policies.
fn two_pods(policies: &[serde_json::Value]) -> Cluster {
    let member = |name: &str, address: &str, link: Option<&str>| Member {
        namespace: "a".into(),
        name: name.into(),
        labels: [("app".into(), name.into())].into(),
        addresses: std::vec![address.parse().expect("an address")],
        ports: Vec::new(),
        link: link.map(Into::into),
    };
    Cluster {
        namespaces: Default::default(),
        policies: policies.to_vec(),
        pods: std::vec![
            member("web", "10.0.0.1", Some("flock00000001")),
            member("db", "10.0.0.2", Some("flock00000002")),
            member("far", "10.0.0.3", None),
        ],
    }
}

/// A policy of the namespace `a`.
fn of_a(name: &str, spec: serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "a", "name": name}, "spec": spec,
    })
}

fn probe(cluster: &Cluster, from: usize, to: usize) -> Probe {
    let side = |pod: usize| {
        let member = &cluster.pods[pod];
        Side { address: member.addresses[0], local: member.link.is_some().then_some(pod) }
    };
    Probe { from: side(from), to: side(to), protocol: 6, port: 80 }
}

fn nobody_in() -> serde_json::Value {
    of_a(
        "closed",
        serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]}),
    )
}

#[test]
fn a_node_without_a_selected_pod_has_no_chain() {
    let elsewhere = of_a("far", serde_json::json!({"podSelector": {"matchLabels": {"app": "far"}}}));
    assert_eq!(compiled(&two_pods(&[elsewhere])).table(), &Table::default());
    let mut isolated = compiled(&two_pods(&[nobody_in()]));
    assert!(isolated.table().chains.contains_key("egress"));
    let cluster = two_pods(&[nobody_in()]);
    isolated.subject_changed(&world(&cluster), &"flock00000002".parse().expect("a name"), None);
    assert_eq!(isolated.table(), &Table::default());
}

#[test]
fn an_error_of_icmp_passes_and_does_not_revive_what_was_revoked() {
    let cluster = two_pods(&[nobody_in()]);
    let compiled = compiled(&cluster);
    let mut packet = first(&cluster, &probe(&cluster, 2, 1));
    assert!(!passes(compiled.table(), &mut packet));
    for protocol in [1, 58] {
        let mut error = Packet { protocol, state: CT_RELATED, ..packet.clone() };
        assert!(passes(compiled.table(), &mut error));
        assert_eq!(error.connection.as_ref().expect("one").mark, 0);
        packet.connection = error.connection;
        assert!(!passes(compiled.table(), &mut packet));
    }
    // What else belongs to another connection, such as the data of FTP, is judged as itself.
    assert!(!passes(compiled.table(), &mut Packet { state: CT_RELATED, ..packet.clone() }));
}

#[test]
fn an_isolated_pod_gets_no_packet_that_belongs_to_no_connection() {
    let some = of_a(
        "some",
        serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80}]}]}),
    );
    let cluster = two_pods(&[some]);
    let compiled = compiled(&cluster);
    let stray =
        |from, to| Packet { state: CT_INVALID, connection: None, ..first(&cluster, &probe(&cluster, from, to)) };
    assert!(begins(compiled.table(), &cluster, &probe(&cluster, 2, 1)));
    assert!(!passes(compiled.table(), &mut stray(2, 1)));
    assert!(passes(compiled.table(), &mut stray(2, 0)));
}

#[test]
fn a_pod_that_reaches_itself_through_a_service_is_never_cut_off() {
    let cluster = two_pods(&[nobody_in()]);
    let compiled = compiled(&cluster);
    assert!(begins(compiled.table(), &cluster, &probe(&cluster, 1, 1)));
    assert!(!begins(compiled.table(), &cluster, &probe(&cluster, 0, 1)));
}

#[test]
fn a_link_whose_pod_is_not_known_passes_nothing_until_it_is() {
    let cluster = two_pods(&[]);
    let (world, link) = (world(&cluster), "flock00000002".parse::<IfName>().expect("a name"));
    let known = subjects(&cluster).remove(1);
    let unknown = Subject { pod: None, ..known.clone() };
    let not_in_the_world =
        Subject { pod: Some(PodKey { namespace: "a".into(), name: "late".into() }), ..known.clone() };
    let told_to = Subject { treatment: Treatment::Quarantine, ..known.clone() };
    for closed in [unknown, not_in_the_world, told_to] {
        let mut compiled = compile(&world, std::slice::from_ref(&closed), &SETTINGS);
        for (from, to) in [(2, 1), (1, 2)] {
            assert!(!begins(compiled.table(), &cluster, &probe(&cluster, from, to)), "{closed:?}");
        }
        let mut table = compiled.table().clone();
        let step = compiled.subject_changed(&world, &link, Some(&known));
        filter::apply(&mut table, &step.changes, FILTER);
        assert!(table == Table::default() && !step.revokes, "{step:?}");
        let step = compiled.subject_changed(&world, &link, Some(&closed));
        assert!(step.revokes, "an open link that is closed");
        // Where nothing is enforced, there is nothing to wait for.
        let exempt = Subject { treatment: Treatment::Exempt, ..closed };
        assert_eq!(compile(&world, &[exempt], &SETTINGS).table(), &Table::default());
    }
    let audited = Subject { pod: None, treatment: Treatment::Audit, ..known };
    assert_eq!(compile(&world, &[audited], &SETTINGS).table(), &Table::default());
}

#[test]
fn an_audited_pod_loses_nothing_and_what_it_would_lose_is_counted_and_logged() {
    let cluster = two_pods(&[nobody_in()]);
    let (world, subject) = (world(&cluster), subjects(&cluster).remove(1));
    let settings = Settings { log: Some(Log { rate: 5, burst: 10 }), ..SETTINGS };
    let audited = compile(&world, &[Subject { treatment: Treatment::Audit, ..subject.clone() }], &settings);
    assert!(begins(audited.table(), &cluster, &probe(&cluster, 2, 1)));
    let rules = &audited.table().chains["flock00000002/in"].rules;
    let logged = Statement::Log("flock would drop ingress a/db: ".into());
    assert_eq!(rules[1], [Statement::AtMost { rate: 5, burst: 10 }, logged]);
    assert_eq!(rules[2], [Statement::Count, Statement::Verdict(Verdict::Accept)]);

    let mut enforced = audited.clone();
    let step = enforced.subject_changed(&world, &subject.link, Some(&subject));
    assert!(step.revokes && !begins(enforced.table(), &cluster, &probe(&cluster, 2, 1)));
    let rules = &enforced.table().chains["flock00000002/in"].rules;
    assert_eq!(rules[1][1], Statement::Log("flock drop ingress a/db: ".into()));
    assert!(!enforced.revokes(&enforced) && enforced.revokes(&audited) && !audited.revokes(&enforced));
}

#[test]
fn an_address_of_two_pods_stays_a_peer_as_long_as_one_of_them_is() {
    let from_web = of_a(
        "some",
        serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "client"}}}]}]}),
    );
    let mut cluster = two_pods(&[from_web]);
    let anycast = "10.9.9.9".parse().expect("an address");
    for pod in [0, 2] {
        cluster.pods[pod].addresses.push(anycast);
        cluster.pods[pod].labels.insert("role".into(), "client".into());
    }
    let mut compiled = compiled(&cluster);
    let set = compiled.table().sets.keys().find(|name| name.starts_with("pods/") && name.ends_with("/4")).cloned();
    let set = set.expect("a set");
    let holds = |compiled: &Compiled| compiled.table().sets[&set].elements.contains(&Element::Address(anycast));
    let [web, far] = [0, 2].map(|number| (key(&cluster.pods[number]), pod(&cluster.pods[number])));
    let step = compiled.pod_changed(Some((&web.0, &web.1)), None);
    assert!(
        holds(&compiled) && step.revokes,
        "it may have left the view only, and its own address is no peer's: {step:?}"
    );
    compiled.pod_changed(None, Some((&web.0, &web.1)));
    let other = |pod: &Pod| Pod { labels: Default::default(), ..pod.clone() };
    compiled.pod_changed(Some((&far.0, &far.1)), Some((&far.0, &other(&far.1))));
    assert!(holds(&compiled));
    let step = compiled.pod_changed(Some((&web.0, &web.1)), Some((&web.0, &other(&web.1))));
    assert!(!holds(&compiled) && step.revokes, "{step:?}");
}

#[test]
fn no_pod_s_name_breaks_a_line_of_the_log() {
    let mut cluster = two_pods(&[nobody_in()]);
    cluster.pods[1].name = "n".repeat(253);
    let settings = Settings { log: Some(Log { rate: 5, burst: 10 }), ..SETTINGS };
    let compiled = compile(&world(&cluster), &subjects(&cluster), &settings);
    let rule = &compiled.table().chains["flock00000002/out"].rules[1];
    let Statement::Log(prefix) = &rule[1] else { panic!("{rule:?}") };
    assert!(prefix.len() <= 127 && prefix.ends_with(": ") && prefix.is_ascii(), "{prefix}");
}

#[test]
fn without_an_epoch_every_packet_is_judged() {
    let cluster = two_pods(&[nobody_in()]);
    let mut compiled = compiled(&cluster);
    let mut table = compiled.table().clone();
    filter::apply(&mut table, &compiled.epoch_changed(None), FILTER);
    assert_eq!(table, *compiled.table());
    // Nor is any remembered by the mark of a connection that nobody marked.
    assert_eq!(compiled.epoch_changed(Some(0x8000_0000)), []);
    let mut packet = first(&cluster, &probe(&cluster, 0, 2));
    assert!(passes(&table, &mut packet));
    assert_eq!(packet.connection.expect("one").mark, 0);
    // What bears a number loses it, judged one way or the other: numbers come again some day.
    for (to, passed) in [(2, true), (1, false)] {
        let mut packet = first(&cluster, &probe(&cluster, 0, to));
        packet.connection.as_mut().expect("one").mark = 0x8007_1234;
        assert_eq!(passes(&table, &mut packet), passed);
        assert_eq!(packet.connection.expect("one").mark, 0x8000_1234);
    }
    filter::apply(&mut table, &compiled.epoch_changed(Some(0x0007_0000)), FILTER);
    let marked = |table: &Table| {
        let mut packet = first(&cluster, &probe(&cluster, 0, 2));
        packet.connection.as_mut().expect("one").mark = 0x8000_1234;
        assert!(passes(table, &mut packet));
        packet.connection.expect("one").mark
    };
    // A packet that the former rules have judged may just be behind them.
    assert_eq!(marked(&table), 0x8000_1234, "nothing is remembered right behind a revocation");
    filter::apply(&mut table, &compiled.seals_again(), FILTER);
    assert_eq!(marked(&table), 0x8007_1234, "the bits of others stay");
    assert_eq!((&table, compiled.seals_again()), (compiled.table(), vec![]));
}
