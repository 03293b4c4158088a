//! The configuration for every kind of peer, against texts that BIRD has taken.
//!
//! `FLOCK_BLESS=1` writes the texts anew, for a reviewer to see the difference; tests/routes lets BIRD read them.

use std::fs;

use super::*;

const HEAD: &str = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: host001}\n";

fn bgp(block: &str) -> Bgp {
    let text = format!("{HEAD}spec: {{cidr4: 10.25.1.0/24, bgp: {block}}}\n");
    model::nodeconfig::parse(text).unwrap_or_else(|error| panic!("{block}: {error}")).bgp.expect("a block")
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn facts() -> Facts {
    Facts {
        node: "host001".into(),
        router_id: Ipv4Addr::new(192, 0, 2, 11),
        own: nets(&["2001:db8:1:1::/64", "10.25.1.0/24"]),
        connected: nets(&["192.0.2.0/24", "192.0.2.11/32", "2001:db8:a25::/64"]).into_iter().collect(),
        extra: None,
    }
}

fn password(text: &str) -> Password {
    let path = std::env::temp_dir().join(format!("flock-conf-{}-{:08x}", std::process::id(), fnv1a32(text.as_bytes())));
    fs::write(&path, text).expect("written");
    let (password, _) = Password::in_file(&path).expect("good");
    fs::remove_file(&path).expect("removable");
    password
}

#[track_caller]
fn golden(name: &str, found: &Configuration) {
    let path = format!("{}/tests/data/bird/{name}.conf", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("FLOCK_BLESS").is_some() {
        fs::write(&path, found.expose()).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).expect("a golden file"), found.expose(), "{name}");
}

#[test]
fn one_router_and_nothing_else_is_a_short_text() {
    let bgp = bgp("{asn: 65001, peers: [{name: tor1, address: '2001:db8:a25::1', asn: 65100}]}");
    golden("one", &with_peers(&bgp, &facts(), &BTreeMap::new()));
}

#[test]
fn every_kind_of_peer_has_its_block() {
    let bgp = bgp(
        "{asn: 65001, routerID: 198.51.100.7, import: [10.0.0.0/8, '::/0', 0.0.0.0/0, '2001:db8::/32'], peers: [\
         {name: tor1, address: 192.0.2.1, asn: 65100, holdTime: 3}, \
         {name: tor2, address: 'fe80::1', interface: eth1, asn: 65100, passwordFile: /etc/flock/bgp/tor2}, \
         {name: tor3, interface: eth2, asn: external, bfd: {interval: 50, multiplier: 4}}, \
         {name: far, address: '2001:db8:ffff::1', asn: 65001, multihop: 4}, \
         {name: bgp, address: '2001:db8:a25::1', interface: eth0, asn: 4200000000, passwordFile: /etc/flock/bgp/other}]}",
    );
    let secrets = ["hunter2", "a b;c{}#/*"].map(password);
    let names = ["tor2", "bgp"].map(|name| bgp.peers.iter().find(|peer| peer.name.as_str() == name).expect("a peer"));
    let passwords = names.map(|peer| peer.name.clone()).into_iter().zip(secrets).collect();
    let facts = Facts { extra: Some("/etc/flock/bird/extra.conf".into()), ..facts() };
    golden("every", &with_peers(&bgp, &facts, &passwords));
}

#[test]
fn a_node_whose_block_is_gone_has_no_peers() {
    golden("none", &without_peers("host001", Ipv4Addr::new(192, 0, 2, 11)));
}

#[test]
fn bird_has_something_to_start_with_before_any_agent() {
    let first = Configuration { text: before_any_agent(), passwords: Vec::new() };
    golden("first", &first);
    assert_eq!(router_id_in(first.expose(), "host001"), None, "the router id of no node");
}

#[test]
fn what_is_never_taken_is_refused_before_what_is_listed() {
    let text = |import: &str, facts: &Facts| {
        let bgp = bgp(&format!("{{asn: 1, import: [{import}], peers: [{{name: a, address: 192.0.2.1, asn: 2}}]}}"));
        with_peers(&bgp, facts, &BTreeMap::new()).expose().to_owned()
    };
    let listed = text("'2001:db8::/32'", &facts());
    let (refused, accepted) =
        (listed.find("2001:db8:1:1::/64+").expect("own"), listed.find("2001:db8::/32+").expect("listed"));
    assert!(refused < accepted, "{listed}");
    assert!(listed.contains("2001:db8:a25::/64+") && listed.contains("fe80::/10+"), "{listed}");
    assert!(!listed.contains("main4") && !listed.contains("import4"), "nothing of the other family: {listed}");
    assert!(text("0.0.0.0/0", &facts()).contains("[ 0.0.0.0/0 ] then accept"));
    assert!(!text("", &facts()).contains("kernel table 254"));
}

#[test]
fn what_a_peer_cannot_give_anyway_is_no_part_of_the_text() {
    let text = |import: &str, connected: BTreeSet<IpNet>| {
        let bgp = bgp(&format!("{{asn: 1, import: [{import}], peers: [{{name: a, address: 192.0.2.1, asn: 2}}]}}"));
        with_peers(&bgp, &Facts { connected, ..facts() }, &BTreeMap::new()).expose().to_owned()
    };
    let services = |count: usize| -> BTreeSet<IpNet> {
        let first = u32::from(Ipv4Addr::new(10, 96, 0, 0));
        (first..).take(count).map(|ip| IpNet::from(IpAddr::from(Ipv4Addr::from(ip)))).collect()
    };
    let none = || text("0.0.0.0/0, '::/0', 172.16.0.0/12", BTreeSet::new());
    assert_eq!(text("0.0.0.0/0, '::/0', 172.16.0.0/12", services(CONNECTED_MAX + 1)), none());
    // One that is in a listed prefix, and one that a listed prefix is in.
    for import in ["10.96.0.0/12", "10.96.0.0/32"] {
        let connected = nets(&["10.96.0.0/31", "10.0.0.0/9", "192.0.2.0/24"]).into_iter().collect();
        assert!(
            text(import, connected).contains("[ 0.0.0.0/8+, 10.0.0.0/9+, 10.25.1.0/24+, 10.96.0.0/31+, "),
            "{import}"
        );
    }
    assert!(text("10.96.0.0/12", services(CONNECTED_MAX)).contains("[ 10.96.0.0/12+ ] then accept"));
    let too_many = text("10.96.0.0/12, 0.0.0.0/0", services(CONNECTED_MAX + 1));
    assert!(too_many.contains("[ 0.0.0.0/0 ] then accept") && !too_many.contains("10.96."), "{too_many}");
}

#[test]
fn an_operator_is_told_that_a_distant_peer_gives_nothing() {
    let of = |import: &str, more: &str| {
        distant(&bgp(&format!(
            "{{asn: 1, import: [{import}], peers: [{{name: far, address: 192.0.2.1, asn: 2{more}}}]}}"
        )))
    };
    assert!(of("0.0.0.0/0", ", multihop: 3").is_some_and(|said| said.contains("imported from far,")));
    assert_eq!([of("", ", multihop: 3"), of("0.0.0.0/0", "")], [None, None]);
}

#[test]
fn a_router_id_stays_what_it_was() {
    let [one, other] = [Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(192, 0, 2, 12)];
    assert_eq!(router_id("n", &[one, other], None), one);
    assert_eq!(router_id("n", &[one, other], Some(other)), other);
    let of = |id| {
        with_peers(
            &bgp("{asn: 1, peers: [{name: a, address: 192.0.2.1, asn: 2}]}"),
            &Facts { router_id: id, ..facts() },
            &BTreeMap::new(),
        )
    };
    let kept = |id: Ipv4Addr, addresses: &[Ipv4Addr], borne: &[Ipv4Addr]| {
        kept_router_id(of(id).expose(), "host001", addresses, &borne.iter().copied().collect())
    };
    assert_eq!(kept(other, &[one, other], &[one, other]), Some(other), "one address more is no reason for a change");
    assert_eq!(kept(other, &[one], &[one, other]), Some(other), "nor is another way out, or a peer less");
    assert_eq!(kept(other, &[], &[]), Some(other), "before the host has its addresses");
    assert_eq!(kept(other, &[one], &[one]), None, "it may be another router's now");
    let of_name = router_id("host001", &[], None);
    assert_eq!(kept(of_name, &[one], &[one]), Some(of_name), "a first IPv4 address is no reason for a change, either");
    let silent = without_peers("host001", of_name);
    assert_eq!(kept_router_id(silent.expose(), "host001", &[one], &BTreeSet::from([one])), None, "nobody knows it");
    let hash = router_id("n", &[], None);
    assert_eq!(hash, router_id("n", &[], None));
    assert_ne!(hash, router_id("m", &[], None));
    let text = without_peers("host001", other);
    assert_eq!(router_id_in(text.expose(), "host001"), Some(other));
    assert_eq!(router_id_in(text.expose(), "host002"), None, "the file of a machine that this one is a copy of");
    assert_eq!(router_id_in("router id 192.0.2.1;", "host001"), None);
}

#[test]
fn nobody_prints_a_password() {
    let bgp = bgp("{asn: 1, peers: [{name: a, address: 192.0.2.1, asn: 2, passwordFile: /p}]}");
    let passwords = [(bgp.peers[0].name.clone(), password("hunter2"))].into_iter().collect();
    let configuration = with_peers(&bgp, &facts(), &passwords);
    assert!(configuration.expose().contains("hunter2"));
    assert!(!format!("{configuration:?}").contains("hunter2"));
    let said = configuration.without_passwords("/f:3:1 syntax error near \"hunter2\"");
    assert_eq!(said.as_ref(), "/f:3:1 syntax error near \"<password>\"");
}
