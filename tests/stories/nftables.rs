//! The packet filter on the real kernel: what flock writes is what `nft` lists, is read back equal, and is all or nothing; what
//! somebody else changes is found, and heard of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use flock::kernel::netns::Netns;
use flock::kernel::nftables::Cause;
use flock::kernel::nftables::changes::{Heard, Listener};
use flock::kernel::nftables::socket::Nftables;
use ipnet::IpNet;
use model::addr::{Family, IfName};
use model::ruleset::diff::{Change, diff};
use model::ruleset::{
    Base, CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_RELATED, Chain, ChainKind, Element, End, Field, Form, Hook, Op, Rule,
    Ruleset, Set, Span, Statement, Table, TableFamily, TableKey, Value, Verdict,
};

use serde_json::Value as Value_;

use crate::support::dice::Dice;
use crate::support::host::{HOST4, Host};
use crate::support::inside::Inside as _;
use crate::support::waiting::PATIENCE;

const INET: TableKey = TableKey { family: TableFamily::Inet, name: "flock" };
const ARP: TableKey = TableKey { family: TableFamily::Arp, name: "flock" };
const IP: TableKey = TableKey { family: TableFamily::Ip, name: "flock-nat" };
const IP6: TableKey = TableKey { family: TableFamily::Ip6, name: "flock-nat" };

/// The link by which a packet leaves, and where to.
fn to(family: Family) -> Vec<Field> {
    vec![Field::Link(End::Out), Field::Destination(family)]
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

fn in_host<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(&host.netns()).expect("a namespace").run(work).expect("entered")
}

fn open(host: &Host) -> Nftables {
    in_host(host, Nftables::open).expect("a socket")
}

fn link(name: &str) -> IfName {
    name.parse().expect("a name")
}

fn v6(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).into()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn write(nft: &mut Nftables, key: TableKey, table: &Table) {
    nft.apply(&diff(&Ruleset::from([(key, table.clone())]), &Ruleset::new()), deadline()).expect("written");
}

#[track_caller]
fn holds(nft: &mut Nftables, key: TableKey, table: &Table) {
    let mut look = || nft.read(key, deadline()).expect("read").expect("there").differs(table);
    if let Some(difference) = look() {
        // While the kernel makes room in a large set, a list of it may lack elements.
        let again = look();
        assert_ne!(again, Some(difference));
        assert_eq!(again.and_then(|_| look()), None);
    }
}

fn set(form: Form, elements: impl IntoIterator<Item = Element>) -> Set {
    Set { form, elements: elements.into_iter().collect() }
}

fn chain(base: Option<(ChainKind, Hook, i32)>, rules: Vec<Rule>) -> Chain {
    Chain { base: base.map(|(kind, hook, priority)| Base { kind, hook, priority }), rules }
}

fn is(field: Field, value: Value) -> Statement {
    Statement::Is(field, Op::Eq, value)
}

fn is_not(field: Field, value: Value) -> Statement {
    Statement::Is(field, Op::Ne, value)
}

fn is_in(fields: &[Field], set: &str) -> Statement {
    Statement::In(fields.to_vec(), Op::Eq, set.into())
}

/// Each form of a set, with elements.
fn forms() -> BTreeMap<String, Set> {
    use Family::{V4, V6};
    let (a, b) = (link("flock1a2b3c4d"), link("eth0.1234567890"));
    let (first4, first6) = (ip("10.0.0.1"), ip("2001:db8::1"));
    let range = |first: &str, last: &str| Element::Range(ip(first), ip(last));
    [
        ("links", set(Form::Links { counted: false }, [Element::Link(a.clone()), Element::Link(b.clone())])),
        ("counted", set(Form::Links { counted: true }, [Element::Link(a.clone()), Element::Link(b.clone())])),
        ("self", set(Form::LinkPairs, [Element::Links(a.clone(), a.clone()), Element::Links(a.clone(), b.clone())])),
        ("pods/4", set(Form::Addresses(V4), [Element::Address(first4), Element::Address(ip("0.0.0.0"))])),
        ("pods/6", set(Form::Addresses(V6), [Element::Address(first6), Element::Address(ip("::"))])),
        ("src4", set(Form::LinkAddresses(V4), [Element::LinkAddress(a.clone(), first4)])),
        ("src6", set(Form::LinkAddresses(V6), [Element::LinkAddress(b.clone(), first6)])),
        ("named/4", set(Form::Ports(V4), [Element::Port(first4, 6, 80), Element::Port(first4, 132, 65535)])),
        ("named/6", set(Form::Ports(V6), [Element::Port(first6, 17, 53)])),
        (
            "block/4",
            set(
                Form::Ranges(V4),
                [range("10.0.0.0", "10.0.0.9"), range("10.0.0.11", "10.0.0.11"), range("192.0.2.0", "192.0.2.255")],
            ),
        ),
        ("block/6", set(Form::Ranges(V6), [range("2001:db8::", "2001:db8::ffff"), range("fe80::1", "fe80::1")])),
        ("all/4", set(Form::Ranges(V4), [range("0.0.0.0", "255.255.255.255")])),
        (
            "edges/6",
            set(Form::Ranges(V6), [range("::", "::5"), range("ffff::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]),
        ),
        ("recent4", set(Form::Recent { family: V4, seconds: 60, size: 1000 }, [])),
        ("recent6", set(Form::Recent { family: V6, seconds: 90, size: 2000 }, [])),
        ("rates", set(Form::Rates { seconds: 60, size: 500 }, [])),
        ("none", set(Form::Addresses(V4), [])),
    ]
    .map(|(name, set)| (name.to_owned(), set))
    .into()
}

/// Each statement about each field, in a table of this family, and how `nft` shows the rule.
fn rules() -> Vec<(Rule, &'static str)> {
    use Family::{V4, V6};
    let [v4, v6] = [2, 10].map(|family| is(Field::Family, Value::Byte(family)));
    let [icmp, tcp, udp, icmp6] = [1, 6, 17, 58].map(|protocol| is(Field::Protocol, Value::Byte(protocol)));
    let (one4, one6) = (Value::V4(Ipv4Addr::new(192, 0, 2, 1)), Value::V6("2001:db8::1".parse().expect("literal")));
    let name = |name: &str| Statement::In(vec![Field::Link(End::In)], Op::Eq, name.into());
    vec![
        (vec![v4.clone()], "meta nfproto ipv4"),
        (vec![is_not(Field::Family, Value::Byte(10))], "meta nfproto != ipv6"),
        (vec![is_not(Field::Protocol, Value::Byte(6))], "meta l4proto != tcp"),
        (vec![v4.clone(), is(Field::Source(V4), one4.clone())], "ip saddr 192.0.2.1"),
        (vec![v6.clone(), is_not(Field::Source(V6), one6.clone())], "ip6 saddr != 2001:db8::1"),
        (vec![v4.clone(), is_not(Field::Destination(V4), one4.clone())], "ip daddr != 192.0.2.1"),
        (vec![v6.clone(), is(Field::Destination(V6), one6.clone())], "ip6 daddr 2001:db8::1"),
        (vec![tcp.clone(), is(Field::SourcePort, Value::Short(80))], "tcp sport 80"),
        (vec![udp.clone(), is_not(Field::DestinationPort, Value::Short(53))], "udp dport != 53"),
        (vec![tcp.clone(), Statement::Between(Field::DestinationPort, 8000, 8010)], "tcp dport 8000-8010"),
        (vec![icmp.clone(), is(Field::IcmpType, Value::Byte(8))], "icmp type echo-request"),
        (vec![icmp6.clone(), is(Field::Icmp6Type, Value::Byte(135))], "icmpv6 type nd-neighbor-solicit"),
        (vec![icmp6, Statement::Between(Field::Icmp6Type, 133, 137)], "icmpv6 type 133-137"),
        (vec![is(Field::Direction, Value::Byte(1))], "ct direction reply"),
        (vec![is_not(Field::Direction, Value::Byte(0))], "ct direction != original"),
        (vec![is(Field::ConnectionSource(V4), one4.clone())], "ct original ip saddr 192.0.2.1"),
        (vec![is(Field::ConnectionSource(V6), one6.clone())], "ct original ip6 saddr 2001:db8::1"),
        (vec![is(Field::ConnectionDestination(V4), one4)], "ct reply ip saddr 192.0.2.1"),
        (vec![is_not(Field::ConnectionDestination(V6), one6)], "ct reply ip6 saddr != 2001:db8::1"),
        (vec![tcp.clone(), is(Field::ConnectionPort, Value::Short(80))], "meta l4proto tcp ct reply proto-src 80"),
        (
            vec![udp, Statement::Between(Field::ConnectionPort, 8000, 8010)],
            "meta l4proto udp ct reply proto-src 8000-8010",
        ),
        (vec![Statement::NameBegins(End::In, Op::Eq, "flock")], "iifname \"flock*\""),
        (vec![Statement::NameBegins(End::Out, Op::Ne, "flock")], "oifname != \"flock*\""),
        (vec![name("links")], "iifname @links"),
        (vec![name("counted")], "iifname @counted"),
        (vec![is_in(&[Field::Link(End::In), Field::Link(End::Out)], "self")], "iifname . oifname @self"),
        (
            vec![v4.clone(), Statement::In(vec![Field::Link(End::In), Field::Source(V4)], Op::Ne, "src4".into())],
            "iifname . ip saddr != @src4",
        ),
        (vec![v6.clone(), is_in(&[Field::Link(End::In), Field::Source(V6)], "src6")], "iifname . ip6 saddr @src6"),
        (vec![is_in(&[Field::ConnectionSource(V4)], "pods/4")], "ct original ip saddr @pods/4"),
        (vec![is_in(&[Field::ConnectionDestination(V6)], "block/6")], "ct reply ip6 saddr @block/6"),
        (
            vec![is_in(&[Field::ConnectionDestination(V4), Field::Protocol, Field::ConnectionPort], "named/4")],
            "ct reply ip saddr . meta l4proto . ct reply proto-src @named/4",
        ),
        (
            vec![is_in(&[Field::ConnectionDestination(V6), Field::Protocol, Field::ConnectionPort], "named/6")],
            "ct reply ip6 saddr . meta l4proto . ct reply proto-src @named/6",
        ),
        (vec![Statement::ByMap(End::In, "out".into())], "iifname vmap @out"),
        (
            vec![is(Field::Direction, Value::Byte(1)), Statement::ByMap(End::Out, "out".into())],
            "ct direction reply oifname vmap @out",
        ),
        (vec![Statement::StateIn(CT_RELATED)], "ct state related"),
        (vec![Statement::StateIn(CT_NEW | CT_ESTABLISHED | CT_INVALID)], "ct state invalid,established,new"),
        (
            vec![Statement::MarkIs { mask: 0x7fff_0000, value: 0x5_0000 }, Statement::Verdict(Verdict::Accept)],
            "ct mark & 0x7fff0000 == 0x00050000 accept",
        ),
        (
            vec![Statement::SetMark { mask: 0x7fff_0000, value: 0x5_0000 }],
            "ct mark set ct mark & 0x8005ffff | 0x00050000",
        ),
        (
            vec![v4, Statement::Remember(to(V4), Span::FromFirst, "recent4".into())],
            "add @recent4 { oifname . ip daddr }",
        ),
        (
            vec![v6, Statement::Remember(to(V6), Span::FromLast, "recent6".into())],
            "update @recent6 { oifname . ip6 daddr }",
        ),
        (
            vec![Statement::FasterThan { set: "rates".into(), rate: 100, burst: 200 }],
            "update @rates { iifname limit rate over 100/second burst 200 packets }",
        ),
        (vec![Statement::AtMost { rate: 10, burst: 20 }], "limit rate 10/second burst 20 packets"),
        (vec![Statement::Log("flock policy: ".into())], "log prefix \"flock policy: \""),
        (vec![Statement::Count, Statement::Verdict(Verdict::Drop)], "counter packets 0 bytes 0 drop"),
        (vec![Statement::Verdict(Verdict::Jump("other".into()))], "jump other"),
        (vec![Statement::Verdict(Verdict::Goto("group/0/out".into()))], "goto group/0/out"),
        (vec![Statement::Verdict(Verdict::Return)], "return"),
    ]
}

/// Everything that a table of the family `inet` can have.
fn everything() -> Table {
    let chains = [
        ("raw", chain(Some((ChainKind::Filter, Hook::Prerouting, -300)), vec![])),
        ("guard", chain(Some((ChainKind::Filter, Hook::Input, -1)), vec![])),
        ("egress", chain(Some((ChainKind::Filter, Hook::Forward, 0)), vec![])),
        ("after", chain(Some((ChainKind::Nat, Hook::Postrouting, 101)), vec![vec![Statement::Masquerade]])),
        ("every", chain(None, rules().into_iter().map(|(rule, _)| rule).collect())),
        ("other", chain(None, vec![])),
        ("group/0/out", chain(None, vec![])),
    ];
    let verdicts = [
        ("a", Verdict::Accept),
        ("b", Verdict::Drop),
        ("c", Verdict::Jump("other".into())),
        ("d", Verdict::Goto("group/0/out".into())),
        ("e", Verdict::Return),
    ];
    Table {
        sets: forms(),
        maps: [("out".to_owned(), verdicts.map(|(name, verdict)| (link(name), verdict)).into())].into(),
        chains: chains.map(|(name, chain)| (name.to_owned(), chain)).into(),
    }
}

fn list(host: &Host, table: &str) -> String {
    host.run(&format!("nft list table {table}"))
}

/// Lines without what is between them.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn each_statement_is_listed_by_nft_as_an_operator_would_have_written_it() {
    let host = Host::new();
    let mut nft = open(&host);
    let table = everything();
    write(&mut nft, INET, &table);
    holds(&mut nft, INET, &table);
    let text = list(&host, "inet flock");
    let body = text.split_once("chain every {").expect("the chain").1.split_once('}').expect("its end");
    for (line, (rule, expected)) in
        lines(&text).into_iter().skip_while(|line| *line != "chain every {").skip(1).zip(rules())
    {
        assert_eq!(line, expected, "{rule:?}\n{}", body.0);
    }
}

/// What `nft` shows of an element of this form.
fn element(form: Form, shown: &Value_) -> Element {
    let shown = shown.get("elem").map_or(shown, |elem| &elem["val"]);
    let text = |shown: &Value_| shown.as_str().unwrap_or_else(|| panic!("{shown}")).to_owned();
    let parts: Vec<&Value_> =
        shown.get("concat").and_then(Value_::as_array).map_or(vec![shown], |parts| parts.iter().collect());
    match form {
        Form::Links { .. } | Form::Rates { .. } => Element::Link(link(&text(parts[0]))),
        Form::LinkPairs => Element::Links(link(&text(parts[0])), link(&text(parts[1]))),
        Form::Addresses(_) => Element::Address(ip(&text(parts[0]))),
        Form::LinkAddresses(_) | Form::Recent { .. } => {
            Element::LinkAddress(link(&text(parts[0])), ip(&text(parts[1])))
        }
        Form::Ports(_) => {
            let number = |shown: &Value_| shown.as_u64().unwrap_or_else(|| panic!("{shown}"));
            let protocol = u8::try_from(number(parts[1])).expect("a protocol");
            Element::Port(ip(&text(parts[0])), protocol, u16::try_from(number(parts[2])).expect("a port"))
        }
        Form::Ranges(_) => {
            if let Some(range) = shown.get("range") {
                return Element::Range(ip(&text(&range[0])), ip(&text(&range[1])));
            }
            let Some(prefix) = shown.get("prefix") else { return Element::Range(ip(&text(shown)), ip(&text(shown))) };
            let net = IpNet::new(
                ip(&text(&prefix["addr"])),
                u8::try_from(prefix["len"].as_u64().expect("a length")).expect("short"),
            );
            let net = net.expect("a prefix");
            Element::Range(net.network(), net.broadcast())
        }
    }
}

/// `nft` lists each set, map and chain of the table, with each element and as many rules.
#[track_caller]
fn listed(host: &Host, key: TableKey, table: &Table) {
    let family = match key.family {
        TableFamily::Inet => "inet",
        TableFamily::Ip => "ip",
        TableFamily::Ip6 => "ip6",
        TableFamily::Arp => "arp",
    };
    let list: Value_ =
        serde_json::from_str(&host.run(&format!("nft -n -j list table {family} {}", key.name))).expect("JSON");
    let objects = list["nftables"].as_array().expect("a list");
    let all = |kind: &str| objects.iter().filter_map(|object| object.get(kind)).collect::<Vec<_>>();
    let named = |object: &Value_| object["name"].as_str().expect("a name").to_owned();
    let sets: BTreeMap<String, BTreeSet<Element>> = all("set")
        .into_iter()
        .map(|shown| {
            let form = table.sets[&named(shown)].form;
            let elements = shown.get("elem").and_then(Value_::as_array).map_or(&[][..], Vec::as_slice);
            (named(shown), elements.iter().map(|shown| element(form, shown)).collect())
        })
        .collect();
    let wanted: BTreeMap<String, BTreeSet<Element>> =
        table.sets.iter().map(|(name, set)| (name.clone(), set.elements.clone())).collect();
    assert_eq!(sets, wanted);
    let maps: BTreeMap<String, BTreeMap<IfName, String>> = all("map")
        .into_iter()
        .map(|shown| {
            let elements = shown.get("elem").and_then(Value_::as_array).map_or(&[][..], Vec::as_slice);
            let verdict = |shown: &Value_| {
                let (kind, target) = shown.as_object().expect("a verdict").iter().next().expect("one");
                target["target"].as_str().map_or(kind.clone(), |target| format!("{kind} {target}"))
            };
            let pair = |shown: &Value_| (link(shown[0].as_str().expect("a link")), verdict(&shown[1]));
            (named(shown), elements.iter().map(pair).collect())
        })
        .collect();
    let word = |verdict: &Verdict| match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    };
    let wanted: BTreeMap<String, BTreeMap<IfName, String>> = table
        .maps
        .iter()
        .map(|(name, links)| {
            (name.clone(), links.iter().map(|(link, verdict)| (link.clone(), word(verdict))).collect())
        })
        .collect();
    assert_eq!(maps, wanted);
    let rules = all("rule");
    let chains: BTreeMap<String, usize> = all("chain")
        .into_iter()
        .map(|shown| (named(shown), rules.iter().filter(|rule| rule["chain"] == shown["name"]).count()))
        .collect();
    let wanted: BTreeMap<String, usize> =
        table.chains.iter().map(|(name, chain)| (name.clone(), chain.rules.len())).collect();
    assert_eq!(chains, wanted);
}

#[test]
fn each_form_of_a_set_is_listed_by_nft_with_all_its_elements() {
    let host = Host::new();
    let mut nft = open(&host);
    let table = everything();
    write(&mut nft, INET, &table);
    listed(&host, INET, &table);
    let text = list(&host, "inet flock");
    for part in [
        "set counted {\n\t\ttype ifname\n\t\tcounter",
        "set self {\n\t\ttype ifname . ifname\n",
        "set named/4 {\n\t\ttype ipv4_addr . inet_proto . inet_service\n\t\telements = { 10.0.0.1 . ",
        "set block/4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.0.0.0-10.0.0.9, 10.0.0.11,\n\t\t\t     192.0.2.0/24 }",
        "set all/4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 0.0.0.0/0 }",
        "set recent4 {\n\t\ttype ifname . ipv4_addr\n\t\tsize 1000\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n",
        "set rates {\n\t\ttype ifname\n\t\tsize 500\n\t\tflags dynamic,timeout\n\t\ttimeout 1m\n",
        "map out {\n\t\ttype ifname : verdict\n\t\telements = { \"a\" : accept,\n",
        "type filter hook prerouting priority raw; policy accept;",
        "type filter hook input priority filter - 1; policy accept;",
        "type filter hook forward priority filter; policy accept;",
        "type nat hook postrouting priority srcnat + 1; policy accept;\n\t\tmasquerade",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn tables_of_one_family_hold_what_is_of_that_family() {
    let host = Host::new();
    let mut nft = open(&host);
    let nat = |rules| Table {
        chains: [("after".to_owned(), chain(Some((ChainKind::Nat, Hook::Postrouting, 100)), rules))].into(),
        ..Table::default()
    };
    let (one4, one6) = (Value::V4(Ipv4Addr::new(192, 0, 2, 1)), Value::V6("2001:db8::1".parse().expect("literal")));
    let arp = Table {
        sets: [(
            "src4".to_owned(),
            set(Form::LinkAddresses(Family::V4), [Element::LinkAddress(link("flock1"), ip("10.0.0.1"))]),
        )]
        .into(),
        chains: [(
            "source".to_owned(),
            chain(
                Some((ChainKind::Filter, Hook::Input, 0)),
                vec![
                    vec![is_in(&[Field::Link(End::In), Field::ArpSource], "src4"), Statement::Verdict(Verdict::Accept)],
                    vec![is_not(Field::ArpSource, one4.clone()), Statement::Count, Statement::Verdict(Verdict::Drop)],
                ],
            ),
        )]
        .into(),
        ..Table::default()
    };
    for (key, table, named, expected) in [
        (
            IP,
            nat(vec![vec![is_not(Field::Destination(Family::V4), one4), Statement::Masquerade]]),
            "ip flock-nat",
            &["type nat hook postrouting priority srcnat; policy accept;", "ip daddr != 192.0.2.1 masquerade"],
        ),
        (
            IP6,
            nat(vec![vec![is(Field::Source(Family::V6), one6), Statement::Masquerade]]),
            "ip6 flock-nat",
            &["type nat hook postrouting priority srcnat; policy accept;", "ip6 saddr 2001:db8::1 masquerade"],
        ),
        (
            ARP,
            arp,
            "arp flock",
            &["iifname . arp saddr ip @src4 accept", "arp saddr ip != 192.0.2.1 counter packets 0 bytes 0 drop"],
        ),
    ] {
        write(&mut nft, key, &table);
        holds(&mut nft, key, &table);
        listed(&host, key, &table);
        let text = list(&host, named);
        assert!(expected.iter().all(|line| lines(&text).contains(line)), "{text}");
        assert_eq!(nft.read(INET, deadline()).expect("read"), None, "no other table");
    }
}

#[test]
fn each_change_is_carried_out_and_undone() {
    let host = Host::new();
    let mut nft = open(&host);
    let all = Ruleset::from([(INET, everything())]);
    nft.apply(&diff(&all, &Ruleset::new()), deadline()).expect("written");
    // A table of the same name and nothing in it.
    let bare = Ruleset::from([(INET, Table::default())]);
    let away = diff(&bare, &all);
    let kinds: BTreeSet<String> = diff(&all, &bare)
        .iter()
        .chain(&away)
        .map(|change| format!("{change:?}").split('(').next().expect("a name").into())
        .collect();
    assert!(kinds.len() >= 9, "{kinds:?}");
    nft.apply(&away, deadline()).expect("removed");
    holds(&mut nft, INET, &Table::default());
    nft.apply(&diff(&all, &bare), deadline()).expect("written again");
    holds(&mut nft, INET, &all[&INET]);
    // Elements and links alone.
    let mut fewer = all.clone();
    let table = fewer.get_mut(&INET).expect("there");
    table.sets.values_mut().for_each(|set| drop(set.elements.pop_first()));
    table.maps.values_mut().for_each(|links| drop(links.pop_first()));
    for (to, from) in [(&fewer, &all), (&all, &fewer)] {
        let changes = diff(to, from);
        assert!(changes.iter().all(|change| matches!(
            change,
            Change::AddElements(..) | Change::RemoveElements(..) | Change::AddLinks(..) | Change::RemoveLinks(..)
        )));
        nft.apply(&changes, deadline()).expect("changed");
        holds(&mut nft, INET, &to[&INET]);
        listed(&host, INET, &to[&INET]);
    }
    nft.apply(&[Change::RemoveTable(INET)], deadline()).expect("removed");
    assert_eq!(nft.read(INET, deadline()).expect("read"), None);
}

#[test]
fn a_refused_batch_changes_nothing_and_names_what_was_refused() {
    let host = Host::new();
    let mut nft = open(&host);
    let table = everything();
    write(&mut nft, INET, &table);
    let generation = nft.generation(deadline()).expect("asked");
    let text = list(&host, "inet flock");
    let name = |name: &str| name.to_owned();
    let new = Change::AddChain(INET, name("new"), None);
    let pair = |n: u8| Element::LinkAddress(link("flock1"), IpAddr::from([10, 9, 9, n]));
    for (change, words) in [
        (
            Change::AddSet(INET, name("links"), Form::LinkPairs),
            "add set links to table inet flock: File exists (os error 17)",
        ),
        (
            Change::RemoveSet(INET, name("src4")),
            "remove set src4 from table inet flock: Device or resource busy (os error 16)",
        ),
        (
            Change::RemoveChain(INET, name("other")),
            "remove chain other from table inet flock: Device or resource busy (os error 16)",
        ),
        (
            Change::RemoveChain(INET, name("nowhere")),
            "remove chain nowhere from table inet flock: No such file or directory (os error 2)",
        ),
        (
            Change::AddElements(
                INET,
                name("src4"),
                Form::LinkAddresses(Family::V4),
                vec![pair(1), Element::LinkAddress(link("flock1a2b3c4d"), ip("10.0.0.1")), pair(2)],
            ),
            "add elements to set src4 of table inet flock: flock1a2b3c4d . 10.0.0.1: File exists (os error 17)",
        ),
        (
            Change::RemoveElements(INET, name("src4"), Form::LinkAddresses(Family::V4), vec![pair(7)]),
            "remove elements from set src4 of table inet flock: flock1 . 10.9.9.7: No such file or directory (os error 2)",
        ),
        (
            Change::RemoveLinks(INET, name("out"), vec![link("a"), link("nobody")]),
            "remove links from map out of table inet flock: nobody: No such file or directory (os error 2)",
        ),
        (
            Change::AddLinks(INET, name("out"), vec![(link("f"), Verdict::Goto(name("nowhere")))]),
            "add links to map out of table inet flock: f: No such file or directory (os error 2)",
        ),
        (
            Change::PutRules(
                INET,
                name("other"),
                vec![vec![Statement::Count], vec![Statement::Count, is_in(&[Field::ConnectionPort], "nowhere")]],
            ),
            "put rules into chain other of table inet flock: rule 2, expression 3 (lookup): No such file or directory (os error 2)",
        ),
        (Change::RemoveTable(ARP), "remove table arp flock: No such file or directory (os error 2)"),
    ] {
        let error =
            nft.apply(&[new.clone(), change, Change::RemoveChain(INET, name("new"))], deadline()).expect_err("refused");
        assert_eq!(error.to_string(), words);
        assert!(!error.is_transient() && !error.is_absent());
        assert_eq!(error.is_exists(), words.contains("exists"));
        assert_eq!(error.is_gone(), words.contains("No such"));
    }
    // So many refused messages that the answers have no room: the first is told all the same.
    let many: Vec<Change> = (0..20_000).map(|n| Change::RemoveChain(INET, format!("nowhere-{n}"))).collect();
    let error = nft.apply(&many, deadline()).expect_err("refused").to_string();
    assert_eq!(error, "remove chain nowhere-0 from table inet flock: No such file or directory (os error 2)");
    assert_eq!(list(&host, "inet flock"), text);
    assert_eq!(nft.generation(deadline()).expect("asked"), generation);
    holds(&mut nft, INET, &table);
}

/// What somebody else may do to the table, and what is said of it.
const FOREIGN: [(&str, &str); 21] = [
    ("nft delete table inet flock", "gone"),
    ("nft flush table inet flock", "chain after has 0 rules instead of 1"),
    ("nft add table inet flock '{ flags dormant; }'", "somebody has switched the table off (flags dormant)"),
    ("nft add element inet flock src4 { eth0 . 10.0.0.9 }", "set src4 has eth0 . 10.0.0.9, which nobody wants"),
    ("nft delete element inet flock pods/4 { 10.0.0.1 }", "set pods/4 lacks 10.0.0.1"),
    ("nft flush set inet flock links", "set links lacks eth0.1234567890"),
    (
        "nft add element inet flock block/4 { 10.0.0.20-10.0.0.22 }",
        "set block/4 has 10.0.0.20-10.0.0.22, which nobody wants",
    ),
    ("nft add element inet flock links { lo }", "set links has an element that flock never makes"),
    ("nft delete element inet flock out { a }", "map out lacks a : accept"),
    ("nft add element inet flock out { z : drop }", "map out has z : drop, which nobody wants"),
    (
        "nft delete element inet flock out { b }; nft add element inet flock out { b : accept }",
        "map out lacks b : drop",
    ),
    ("nft insert rule inet flock egress accept", "chain egress has 1 rules instead of 0"),
    ("nft add rule inet flock every accept", "chain every has 48 rules instead of 47"),
    (
        "nft delete rule inet flock after handle $(nft -a list chain inet flock after | sed -n 's/.*masquerade # handle //p')",
        "chain after has 0 rules instead of 1",
    ),
    (
        "nft replace rule inet flock after handle $(nft -a list chain inet flock after | sed -n 's/.*masquerade # handle //p') accept",
        "rule 1 of chain after is another one",
    ),
    ("nft add chain inet flock more", "there is a chain more that nobody wants"),
    (
        "nft chain inet flock egress '{ policy drop; }'",
        "packets enter chain egress elsewhere, or what reaches its end does not go on",
    ),
    ("nft add set inet flock more '{ type ifname; }'", "there is a set or map more that nobody wants"),
    ("nft delete set inet flock none", "set none is missing"),
    (
        "nft delete set inet flock none; nft add set inet flock none '{ type ipv4_addr; flags interval; }'",
        "set none has another form",
    ),
    ("nft flush chain inet flock group/0/out; nft rename chain inet flock egress ingress", "chain egress is missing"),
];

#[test]
fn what_somebody_else_changes_is_found_and_heard_of_and_what_flock_changes_is_not() {
    const OTHER: TableKey = TableKey { family: TableFamily::Ip, name: "other" };
    let host = Host::new();
    let mut nft = open(&host);
    let table = everything();
    let all = Ruleset::from([(INET, table.clone())]);
    let (port, mut listener) = (nft.port(), in_host(&host, Listener::open).expect("a socket"));
    let (told, heard) = channel();
    thread::spawn(move || {
        while let Some(heard) = listener.wait(&[port], &[INET, OTHER]) {
            if told.send(heard).is_err() {
                break;
            }
        }
    });
    host.run("nft add table ip other");
    let mut marks = 0;
    // What was heard before a change of the other table, and that.
    let mut heard_until_now = || {
        host.run(&format!("nft add chain ip other mark{marks}"));
        marks += 1;
        let mut before = BTreeSet::new();
        loop {
            match &heard.recv_timeout(PATIENCE).expect("heard")[..] {
                [Heard::Changed(OTHER)] => return before,
                all => before.extend(all.iter().map(|heard| format!("{heard:?}"))),
            }
        }
    };
    let changed = |key| BTreeSet::from([format!("{:?}", Heard::Changed(key))]);
    assert_eq!(heard.recv_timeout(PATIENCE).expect("heard"), [Heard::Changed(OTHER)]);
    for (foreign, words) in FOREIGN {
        nft.apply(&diff(&all, &Ruleset::new()), deadline()).expect("written");
        holds(&mut nft, INET, &table);
        // Somebody's tables of another name and of another family.
        host.run("nft add table inet flocks");
        host.run("nft add table ip flock");
        assert_eq!(heard_until_now(), BTreeSet::new(), "before {foreign}");
        host.script(foreign);
        assert_eq!(heard_until_now(), changed(INET), "{foreign}");
        let shown = nft.read(INET, deadline()).expect("read");
        let difference = shown.map_or(Some("gone".into()), |shown| shown.differs(&table));
        assert_eq!(difference.as_deref(), Some(words), "{foreign}");
        nft.apply(&[Change::AddTable(INET), Change::RemoveTable(INET)], deadline()).expect("removed");
    }
    nft.apply(&diff(&all, &Ruleset::new()), deadline()).expect("written");
    assert_eq!(heard_until_now(), BTreeSet::new());
    host.run("nft flush ruleset");
    let mut gone = BTreeSet::new();
    while !gone.is_superset(&changed(INET)) {
        gone.extend(heard.recv_timeout(PATIENCE).expect("heard").iter().map(|heard| format!("{heard:?}")));
    }
    assert_eq!(nft.read(INET, deadline()).expect("read"), None);
}

#[test]
fn a_table_that_was_switched_off_is_switched_on_again() {
    let host = Host::new();
    let mut nft = open(&host);
    let table = everything();
    write(&mut nft, INET, &table);
    host.script("nft add table inet flock '{ flags dormant; }'");
    nft.apply(&[Change::AddTable(INET)], deadline()).expect("on again");
    holds(&mut nft, INET, &table);
}

#[test]
fn packets_find_what_nft_lists() {
    const OTHERS: [&str; 5] = ["10.2.0.1", "10.2.0.2", "10.2.0.3", "10.2.0.4", "10.2.0.5"];
    let host = Host::new();
    host.script("ip link set lo down; ip link set lo name flock0; ip link set flock0 up; ip addr add 2001:db8::1 dev flock0 nodad");
    OTHERS.iter().for_each(|ip| drop(host.run(&format!("ip addr add {ip}/32 dev flock0"))));
    let mut nft = open(&host);
    let udp = || vec![is(Field::Family, Value::Byte(2)), is(Field::Protocol, Value::Byte(17))];
    let counting = |statement: Statement| {
        let mut rule = udp();
        rule.extend([statement, Statement::Count]);
        rule
    };
    let source = |set: &str, op| Statement::In(vec![Field::Source(Family::V4)], op, set.into());
    let cases = [
        (source("block", Op::Eq), 2..=2),
        (source("block", Op::Ne), 3..=3),
        (source("up", Op::Eq), 1..=1),
        (source("down", Op::Eq), 2..=2),
        (is_in(&[Field::Link(End::In), Field::Source(Family::V4)], "src4"), 1..=1),
        (is_in(&[Field::ConnectionDestination(Family::V4), Field::Protocol, Field::ConnectionPort], "named"), 5..=5),
        (is_in(&[Field::Link(End::In)], "counted"), 5..=5),
        (Statement::NameBegins(End::In, Op::Eq, "flock"), 5..=5),
        (Statement::NameBegins(End::In, Op::Eq, "flocks"), 0..=0),
        (Statement::Between(Field::DestinationPort, 8000, 8010), 5..=5),
        (Statement::Between(Field::DestinationPort, 8002, 8010), 0..=0),
        (Statement::StateIn(CT_NEW), 5..=5),
        (Statement::StateIn(CT_ESTABLISHED | CT_RELATED), 0..=0),
        (Statement::SetMark { mask: 0xff00, value: 0x500 }, 5..=5),
        (Statement::MarkIs { mask: 0xff00, value: 0x500 }, 5..=5),
        (Statement::MarkIs { mask: 0xff00, value: 0x600 }, 0..=0),
        // Five of them come in less than five seconds, or the other way round.
        (Statement::AtMost { rate: 1, burst: 1 }, 1..=5),
        (Statement::FasterThan { set: "rates".into(), rate: 1, burst: 1 }, 0..=4),
    ];
    let range = |first: &str, last: &str| Element::Range(ip(first), ip(last));
    let ranges = |ranges: &[Element]| set(Form::Ranges(Family::V4), ranges.to_vec());
    let named = |pairs: Vec<(&str, Set)>| pairs.into_iter().map(|(name, set)| (name.to_owned(), set)).collect();
    let table = Table {
        sets: named(vec![
            ("block", ranges(&[range("10.2.0.2", "10.2.0.3"), range("10.3.0.0", "10.3.0.9")])),
            ("up", ranges(&[range("10.2.0.5", "255.255.255.255")])),
            ("down", ranges(&[range("0.0.0.0", "10.2.0.2"), range("10.2.0.6", "10.2.0.9")])),
            ("src4", set(Form::LinkAddresses(Family::V4), [Element::LinkAddress(link("flock0"), ip("10.2.0.4"))])),
            (
                "named",
                set(Form::Ports(Family::V4), [Element::Port(ip(HOST4), 17, 8001), Element::Port(ip(HOST4), 6, 80)]),
            ),
            (
                "counted",
                set(Form::Links { counted: true }, [Element::Link(link("flock0")), Element::Link(link("flock1"))]),
            ),
            ("recent", set(Form::Recent { family: Family::V4, seconds: 3600, size: 4 }, [])),
            ("rates", set(Form::Rates { seconds: 3600, size: 4 }, [])),
        ]),
        chains: [
            (
                "in",
                chain(
                    Some((ChainKind::Filter, Hook::Input, 0)),
                    cases.iter().map(|(statement, _)| counting(statement.clone())).collect(),
                ),
            ),
            (
                "out",
                chain(
                    Some((ChainKind::Filter, Hook::Postrouting, 0)),
                    vec![counting(Statement::Remember(to(Family::V4), Span::FromFirst, "recent".into()))],
                ),
            ),
        ]
        .map(|(name, chain)| (name.to_owned(), chain))
        .into(),
        ..Table::default()
    };
    write(&mut nft, INET, &table);
    in_host(&host, || {
        for from in OTHERS {
            let socket = UdpSocket::bind((from, 0)).expect("bound");
            assert_eq!(socket.send_to(b"1234", (HOST4, 8001)).expect("sent"), 4);
        }
    });
    let counts = nft.rule_counts(INET, "in", deadline()).expect("read");
    assert_eq!(counts.len(), cases.len());
    for ((statement, packets), count) in cases.iter().zip(counts) {
        let count = count.expect("a counter");
        assert!(packets.contains(&count.packets), "{statement:?}: {count:?}");
        assert_eq!(count.bytes, count.packets * 32, "{statement:?}");
    }
    let counts: BTreeMap<Element, u64> = nft
        .element_counts(INET, "counted", deadline())
        .expect("read")
        .into_iter()
        .map(|(element, count)| (element, count.packets))
        .collect();
    assert_eq!(counts, [(Element::Link(link("flock0")), 5), (Element::Link(link("flock1")), 0)].into());
    // What packets did is no difference, and there to see.
    holds(&mut nft, INET, &table);
    let text = list(&host, "inet flock");
    assert!(text.contains("elements = { \"flock0\" . 10.1.0.1 "), "{text}");
    assert!(text.contains("elements = { \"flock0\" limit rate over 1/second burst 1 packets "), "{text}");
    assert_eq!(nft.rule_counts(INET, "nowhere", deadline()).expect("read"), []);
    assert_eq!(nft.rule_counts(ARP, "in", deadline()).expect("read"), []);
}

/// A table with all sets that rules refer to, with other elements, and some rules in some chains, in any order.
fn some(dice: &mut Dice) -> Table {
    let mut table = everything();
    let name = |dice: &mut Dice| link(&format!("flock{:x}", dice.below(300)));
    let address = |dice: &mut Dice, family| match family {
        Family::V4 => IpAddr::from([
            10,
            0,
            u8::try_from(dice.below(3)).expect("small"),
            u8::try_from(dice.below(256)).expect("a byte"),
        ]),
        Family::V6 => v6((0x2001_0db8 << 96) | dice.below(700) as u128),
    };
    for set in table.sets.values_mut() {
        set.elements.clear();
        let count = dice.below(200);
        let mut start = dice.below(40) as u128;
        for _ in 0..count {
            let element = match set.form {
                Form::Links { .. } => Element::Link(name(dice)),
                Form::LinkPairs => Element::Links(name(dice), name(dice)),
                Form::Addresses(family) => Element::Address(address(dice, family)),
                Form::LinkAddresses(family) => Element::LinkAddress(name(dice), address(dice, family)),
                Form::Ports(family) => {
                    let port = u16::try_from(dice.below(65536)).expect("a port");
                    Element::Port(address(dice, family), *dice.pick(&[6, 17, 132]), port)
                }
                Form::Ranges(family) => {
                    let (first, last) = (start, start + dice.below(300) as u128);
                    start = last + 2 + dice.below(50) as u128;
                    let ip = |number: u128| match family {
                        Family::V4 => Ipv4Addr::from_bits(u32::try_from(number).expect("small")).into(),
                        Family::V6 => v6(number),
                    };
                    Element::Range(ip(first), ip(last))
                }
                Form::Recent { .. } | Form::Rates { .. } => break,
            };
            set.elements.insert(element);
        }
    }
    let verdicts = [
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Return,
        Verdict::Jump("other".into()),
        Verdict::Goto("group/0/out".into()),
    ];
    let links = (0..dice.below(100)).map(|_| (name(dice), dice.pick(&verdicts).clone()));
    *table.maps.get_mut("out").expect("there") = links.collect();
    let rules: Vec<Rule> = rules().into_iter().map(|(rule, _)| rule).collect();
    for number in 0..dice.below(30) {
        let rules = (0..dice.below(12)).map(|_| dice.pick(&rules).clone()).collect();
        table.chains.insert(format!("chain/{}", number + dice.below(9)), chain(None, rules));
    }
    table
}

#[test]
fn any_table_becomes_any_other_in_one_batch_and_is_read_back_equal() {
    let host = Host::new();
    let mut nft = open(&host);
    let mut before = Ruleset::new();
    for round in 0..12 {
        let mut dice = Dice::new(20_261_126, round);
        let wanted = Ruleset::from([(INET, some(&mut dice))]);
        nft.apply(&diff(&wanted, &before), deadline()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        holds(&mut nft, INET, &wanted[&INET]);
        listed(&host, INET, &wanted[&INET]);
        if let Some(old) = before.get(&INET) {
            assert!(nft.read(INET, deadline()).expect("read").expect("there").differs(old).is_some(), "round {round}");
        }
        before = wanted;
    }
}

/// The table of 110 pods, each with policies of its own choice, of 20 policies with 250 peers of each family each.
fn large() -> Table {
    let mut table = Table::default();
    let byte = |number: usize| u8::try_from(number % 250).expect("a byte");
    let jump = |name: String| vec![Statement::Verdict(Verdict::Jump(name))];
    let end = || vec![Statement::Count, Statement::Verdict(Verdict::Drop)];
    for way in ["in", "out"] {
        let field = |family| match way {
            "in" => Field::ConnectionSource(family),
            _ => Field::ConnectionDestination(family),
        };
        for policy in 0..20 {
            let peers = format!("pods/{way}/{policy}");
            let ips = |family| {
                let of = |n: usize| match family {
                    Family::V4 => IpAddr::from([10, byte(policy), 0, byte(n)]),
                    Family::V6 => v6((0x2001_0db8 << 96) | ((policy as u128) << 32) | n as u128),
                };
                set(Form::Addresses(family), (0..250).map(|n| Element::Address(of(n))))
            };
            table.sets.insert(format!("{peers}/4"), ips(Family::V4));
            table.sets.insert(format!("{peers}/6"), ips(Family::V6));
            let rule = |family, name: &str| {
                vec![is_in(&[field(family)], &format!("{peers}/{name}")), Statement::Verdict(Verdict::Accept)]
            };
            let rules = vec![rule(Family::V4, "4"), rule(Family::V6, "6")];
            table.chains.insert(format!("policy/default/{policy}/{way}"), chain(None, rules));
        }
        let mut links = BTreeMap::new();
        for pod in 0..110 {
            let (name, group) = (format!("flock{pod:08x}"), format!("group/{pod}/{way}"));
            let mut rules: Vec<Rule> = (0..20).map(|policy| jump(format!("policy/default/{policy}/{way}"))).collect();
            rules.push(vec![Statement::Count]);
            table.chains.insert(group.clone(), chain(None, rules));
            table.chains.insert(format!("{name}/{way}"), chain(None, vec![jump(group), end()]));
            links.insert(link(&name), Verdict::Goto(format!("{name}/{way}")));
        }
        table.maps.insert(way.into(), links);
        let rules = vec![vec![Statement::ByMap(if way == "in" { End::Out } else { End::In }, way.into())]];
        table.chains.insert(format!("entry-{way}"), chain(Some((ChainKind::Filter, Hook::Forward, 0)), rules));
    }
    table
}

/// Whether all user ids of the host are the same here.
fn is_root_of_the_host() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("readable");
    map.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"]
}

#[test]
fn a_large_table_and_thousands_of_elements_are_one_batch_each() {
    let host = Host::new();
    let mut nft = open(&host);
    let all = Ruleset::from([(INET, large())]);
    let took = |what: &str, began: Instant| println!("{what}: {:?}", began.elapsed());
    let began = Instant::now();
    let changes = diff(&all, &Ruleset::new());
    took("110 pods x 20 policies x 5000 peers of each family: difference", began);
    let began = Instant::now();
    match nft.apply(&changes, deadline()) {
        // Whoever is root of a user namespace alone has no more room for a batch than the host gives to everybody.
        Err(error) if matches!(error.cause, Cause::TooLarge(_)) && !is_root_of_the_host() => {
            changes.chunks(20).for_each(|some| nft.apply(some, deadline()).expect("written in parts"));
        }
        written => written.expect("written"),
    }
    took("written", began);
    let began = Instant::now();
    let shown = nft.read(INET, deadline()).expect("read").expect("there");
    took("read", began);
    let began = Instant::now();
    assert_eq!(shown.differs(&all[&INET]), None);
    took("compared", began);

    let one = |n: u8| vec![Element::Address(IpAddr::from([192, 0, 2, n]))];
    let (name, form) = ("pods/in/7/4".to_owned(), Form::Addresses(Family::V4));
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..200 {
        for (times, change) in times.iter_mut().zip([
            Change::AddElements(INET, name.clone(), form, one(n)),
            Change::RemoveElements(INET, name.clone(), form, one(n)),
        ]) {
            let began = Instant::now();
            nft.apply(&[change], deadline()).expect("changed");
            times.push(began.elapsed());
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    println!("one address into a set: {:?}, out of it: {:?} (medians)", times[0][100], times[1][100]);

    let byte = |n: u32, shift: u32| u8::try_from(n >> shift & 0xff).expect("a byte");
    let address = |n: u32| IpAddr::from([10, byte(n, 16), byte(n, 8), byte(n, 0)]);
    let many: Vec<Element> = (0..20_000).map(|n| Element::Address(address(n))).collect();
    let ranges: Vec<Element> = (0..8_000).map(|n| Element::Range(address(4 * n), address(4 * n + 1))).collect();
    let mut table = Table::default();
    for (name, form, elements) in
        [("many", Form::Addresses(Family::V4), many), ("ranges", Form::Ranges(Family::V4), ranges)]
    {
        let began = Instant::now();
        nft.apply(
            &[
                Change::AddTable(IP),
                Change::AddSet(IP, name.into(), form),
                Change::AddElements(IP, name.into(), form, elements.clone()),
            ],
            deadline(),
        )
        .expect("written");
        took(&format!("{} elements of {name}", elements.len()), began);
        table.sets.insert(name.into(), set(form, elements));
        let began = Instant::now();
        holds(&mut nft, IP, &table);
        took("read and compared", began);
    }
    listed(&host, IP, &table);
    let began = Instant::now();
    nft.apply(&[Change::RemoveTable(INET), Change::RemoveTable(IP)], deadline()).expect("removed");
    took("both tables removed", began);
}

#[test]
fn the_value_that_the_connection_s_mark_is_compared_with_is_read_back() {
    let host = Host::new();
    let mut nft = open(&host);
    let marks =
        |mask, value| vec![Statement::Count, Statement::MarkIs { mask, value }, Statement::Verdict(Verdict::Accept)];
    let rules = vec![vec![Statement::Count], marks(0xff, 0x7), marks(0x7fff_0000, 0x1234_0000), marks(0x7fff_0000, 0)];
    let chains = [("epoch".to_owned(), chain(None, rules.clone())), ("other".to_owned(), chain(None, vec![]))];
    write(&mut nft, INET, &Table { chains: chains.into(), ..Table::default() });
    let shown = nft.read(INET, deadline()).expect("read").expect("there");
    assert_eq!(shown.mark("epoch", 0x7fff_0000), Some(0x1234_0000));
    assert_eq!(shown.mark("epoch", 0xff), Some(0x7));
    assert_eq!(shown.mark("epoch", 0xfff), None);
    assert_eq!(shown.mark("other", 0xff), None);
    assert_eq!(shown.mark("nowhere", 0xff), None);
}

#[test]
fn a_table_is_read_though_others_change_theirs_all_the_time() {
    let host = Host::new();
    let (mut nft, mut other) = (open(&host), open(&host));
    let table = everything();
    write(&mut nft, INET, &table);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                other.apply(&[Change::AddTable(IP), Change::RemoveTable(IP)], deadline()).expect("changed");
            }
        });
        // Those beside which others changed something.
        let (until, mut disturbed) = (deadline(), 0);
        let read = || -> Result<(), String> {
            while disturbed < 20 && Instant::now() < until {
                let before = nft.generation(deadline()).map_err(|error| error.to_string())?;
                let shown = nft.read(INET, deadline()).map_err(|error| error.to_string())?.ok_or("gone")?;
                shown.differs(&table).map_or(Ok(()), Err)?;
                disturbed += u32::from(nft.generation(deadline()).map_err(|error| error.to_string())? != before);
            }
            Ok(())
        };
        let outcome = { read }();
        done.store(true, Ordering::Relaxed);
        assert_eq!((outcome, disturbed), (Ok(()), 20));
    });
}
