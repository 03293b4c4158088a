//! What an operator hears of a `bgp` block, and what becomes of a good one.

use super::*;
use crate::nodeconfig::{NodeConfig, parse};

const HEAD: &str = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: host001}\n";

fn config(bgp: &str) -> Result<NodeConfig, String> {
    parse(format!("{HEAD}spec: {{cidr4: 10.0.0.0/24, bgp: {bgp}}}\n")).map_err(|error| error.to_string())
}

fn bgp(text: &str) -> Bgp {
    config(text).unwrap_or_else(|error| panic!("{text}: {error}")).bgp.expect("a bgp block")
}

fn peer(fields: &str) -> Result<Peer, String> {
    let config = config(&format!("{{asn: 65001, peers: [{{{fields}}}]}}"))?;
    Ok(config.bgp.expect("a bgp block").peers[0].clone())
}

#[test]
fn a_full_block_becomes_values() {
    let bgp = bgp("{asn: 65001, routerID: 192.0.2.11, import: [10.0.0.0/8, 0.0.0.0/0, '::/0'], peers: [\
         {name: tor1, address: '2001:db8:a25::1', asn: 65100}, \
         {name: tor2, address: 'fe80::1', interface: eth1.100, asn: 4294967294, passwordFile: /etc/flock/bgp/tor2, bfd: {}}, \
         {name: tor_3, interface: eth2, asn: external, bfd: {interval: 50, multiplier: 5}}, \
         {name: far, address: 192.0.2.1, asn: 65001, multihop: 2, holdTime: 3}]}");
    assert_eq!((bgp.asn, bgp.router_id), (65001, "192.0.2.11".parse().ok()));
    assert_eq!(bgp.import.len(), 3);
    let names: Vec<&str> = bgp.peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["tor1", "tor2", "tor_3", "far"]);
    let [tor1, tor2, tor3, far] = &bgp.peers[..] else { panic!("four") };
    assert_eq!((tor1.hold_time, tor1.multihop, tor1.asn), (HOLD_TIME, None, PeerAsn::Is(65100)));
    let Neighbour::At { address, interface: Some(link) } = &tor2.neighbour else { panic!("{tor2:?}") };
    assert_eq!((address.to_string().as_str(), link.as_str()), ("fe80::1", "eth1.100"));
    assert_eq!(tor2.bfd, Some(Bfd { interval: BFD_INTERVAL, multiplier: BFD_MULTIPLIER }));
    assert_eq!(tor2.password_file.as_deref(), Some("/etc/flock/bgp/tor2"));
    assert!(matches!(&tor3.neighbour, Neighbour::On(link) if link.as_str() == "eth2"));
    assert_eq!((tor3.asn, tor3.bfd), (PeerAsn::External, Some(Bfd { interval: 50, multiplier: 5 })));
    assert_eq!((far.multihop, far.hold_time), (Some(2), 3));
}

#[test]
fn a_node_without_the_block_has_no_bgp() {
    for text in ["null", "~"] {
        assert_eq!(config(text).expect("valid").bgp, None);
    }
}

#[test]
fn a_wrong_field_of_the_block_is_refused_by_path_value_and_remedy() {
    let many = |count: usize, item: fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let peers = many(17, |n| format!("{{name: p{n}, address: 192.0.2.{}, asn: 1}}", n + 1));
    let nets = many(257, |n| format!("10.{}.{}.0/24", n / 256, n % 256));
    let one = "peers: [{name: a, address: 192.0.2.1, asn: 1}]";
    for (text, says) in [
        ("{}", "spec.bgp.asn is missing: write the node's own AS number"),
        ("{asn: 65001}", "spec.bgp.peers is missing: write at least one router"),
        ("{asn: 65001, peers: []}", "spec.bgp.peers is empty: write at least one router"),
        (&format!("{{asn: 65001, peers: [{peers}]}}"), "spec.bgp.peers has 17 entries, and at most 16 are allowed"),
        (&format!("{{asn: 0, {one}}}"), "spec.bgp.asn: 0 must be between 1 and 4294967294"),
        (&format!("{{asn: 4294967295, {one}}}"), "spec.bgp.asn: 4294967295 must be between"),
        (&format!("{{asn: -1, {one}}}"), "spec.bgp.asn: -1 must be"),
        (
            &format!("{{asn: 1, routerID: 0.0.0.0, {one}}}"),
            "spec.bgp.routerID: \"0.0.0.0\" must be written like an IPv4",
        ),
        (&format!("{{asn: 1, routerID: '2001:db8::1', {one}}}"), "spec.bgp.routerID: \"2001:db8::1\""),
        (
            &format!("{{asn: 1, import: [{nets}], {one}}}"),
            "spec.bgp.import has 257 entries, and at most 256 are allowed",
        ),
        (
            &format!("{{asn: 1, import: [10.0.0.1/8], {one}}}"),
            "spec.bgp.import[0]: \"10.0.0.1/8\" has bits set behind the prefix length (did you mean 10.0.0.0/8?)",
        ),
        (&format!("{{asn: 1, import: [10.0.0.1], {one}}}"), "spec.bgp.import[0]: \"10.0.0.1\" has no prefix length"),
        (
            &format!("{{asn: 1, import: [10.0.0.0/8, 'fe80::/64'], {one}}}"),
            "spec.bgp.import[1]: \"fe80::/64\" is loopback, link-local",
        ),
        (
            &format!("{{asn: 1, import: [10.0.0.0/8, 10.0.0.0/8], {one}}}"),
            "spec.bgp.import[1]: \"10.0.0.0/8\" stands there twice",
        ),
    ] {
        let error = config(text).expect_err(text);
        assert!(error.starts_with(&format!("line 4: {says}")), "{text}: {error}");
    }
    for net in ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/24", "240.0.0.0/4", "0.1.0.0/16", "ff02::/16", "::1/128"] {
        let error = config(&format!("{{asn: 1, import: ['{net}'], {one}}}")).expect_err(net);
        assert!(error.contains("never taken from a peer"), "{error}");
    }
}

#[test]
fn a_wrong_field_of_a_peer_is_refused_by_path_value_and_remedy() {
    let at = "address: 192.0.2.1, asn: 1";
    for (fields, says) in [
        ("name: a, asn: 1", "spec.bgp.peers[0] has neither address nor interface"),
        ("address: 192.0.2.1, asn: 1", "spec.bgp.peers[0].name is missing: write a small letter"),
        ("name: a, address: 192.0.2.1", "spec.bgp.peers[0].asn is missing: write the router's AS number"),
        ("name: a, address: 192.0.2.1, asn: 0", "spec.bgp.peers[0].asn: 0 must be an AS number"),
        ("name: a, address: 192.0.2.1, asn: 4294967295", "spec.bgp.peers[0].asn: 4294967295 must be"),
        ("name: a, address: 192.0.2.1, asn: 18446744073709551615", "spec.bgp.peers[0].asn"),
        (
            "name: a, address: 192.0.2.1, asn: '65100'",
            "spec.bgp.peers[0].asn: \"65100\" is a text between quotes: write 65100 without them",
        ),
        ("name: a, address: 192.0.2.1, asn: internal", "or the word external"),
        (
            "name: a, address: fe80::1, asn: 1",
            "spec.bgp.peers[0].address: \"fe80::1\" is link-local, and the peer has no interface",
        ),
        (
            "name: a, address: 'fe80::1%eth0', asn: 1",
            "spec.bgp.peers[0].address: \"fe80::1%eth0\" is not an IP address",
        ),
        ("name: a, address: 192.0.2.1/24, asn: 1", "\"192.0.2.1/24\" has a prefix length, and one address is meant"),
        ("name: a, address: router, asn: 1", "is not an IP address"),
        ("name: a, address: 'ff02::1', interface: eth0, asn: 1", "is no address of a router"),
        ("name: a, address: '::1', asn: 1", "is no address of a router"),
        ("name: a, address: '::ffff:192.0.2.1', asn: 1", "is IPv4 written as IPv6: write 192.0.2.1"),
        ("name: a, address: 192.0.2.001, asn: 1", "take for octal: write 192.0.2.1"),
        ("name: a, address: 0.0.0.0, asn: 1", "is no address of a router"),
        ("name: a, address: 255.255.255.255, asn: 1", "is no address of a router"),
        ("name: a, interface: lo, asn: 1", "spec.bgp.peers[0].interface: \"lo\" must be the name of a link"),
        ("name: a, interface: sixteen-bytes-xx, asn: 1", "must be the name of a link"),
        ("name: a, interface: 'eth*', asn: 1", "must be the name of a link"),
        ("name: a, interface: 'x\"; }', asn: 1", "must be the name of a link"),
        ("name: a, interface: eth0, asn: 1, multihop: 2", "spec.bgp.peers[0].multihop: 2 is for a peer behind routers"),
        ("name: a, address: fe80::1, interface: eth0, asn: 1, multihop: 2", "is for a peer behind routers"),
        (&format!("name: a, {at}, multihop: 0"), "spec.bgp.peers[0].multihop: 0 must be between 1 and 255"),
        (&format!("name: a, {at}, multihop: 256"), "must be between 1 and 255"),
        (&format!("name: a, {at}, holdTime: 2"), "spec.bgp.peers[0].holdTime: 2 must be between 3 and 65535"),
        (
            &format!("name: a, {at}, passwordFile: secret"),
            "spec.bgp.peers[0].passwordFile: \"secret\" must be the absolute path",
        ),
        (&format!("name: a, {at}, passwordFile: \"/a\\nb\""), "must be the absolute path"),
        (
            &format!("name: a, {at}, bfd: {{interval: 9}}"),
            "spec.bgp.peers[0].bfd.interval: 9 must be between 10 and 60000",
        ),
        (
            &format!("name: a, {at}, bfd: {{multiplier: 1}}"),
            "spec.bgp.peers[0].bfd.multiplier: 1 must be between 2 and 255",
        ),
        (
            &format!("name: a, {at}, multihop: 2, bfd: {{}}"),
            "spec.bgp.peers[0].bfd is for a peer on a link of this host, and this one has multihop",
        ),
        (&format!("name: a, {at}, bfd: true"), "spec.bgp.peers[0].bfd"),
        (
            &format!("name: a, {at}, password: x"),
            "peers[0].password is no field of a NodeConfig: the fields here are address, asn,",
        ),
    ] {
        let error = peer(fields).expect_err(fields);
        assert!(error.contains(says), "{fields}: {error}");
    }
    for name in ["A", "1a", "_a", "a-b", "a b", "a\\\"", "é", &"a".repeat(32)] {
        let error = peer(&format!("name: \"{name}\", {at}")).expect_err(name);
        assert!(error.contains("must be a small letter"), "{error}");
    }
    assert!(peer(&format!("name: {}, {at}", "a".repeat(31))).is_ok());
}

#[test]
fn two_peers_are_two_neighbours_with_two_names() {
    let two = |one: &str, other: &str| config(&format!("{{asn: 1, peers: [{{asn: 2, {one}}}, {{asn: 3, {other}}}]}}"));
    for (one, other, says) in [
        (
            "name: a, address: 192.0.2.1",
            "name: a, address: 192.0.2.2",
            "spec.bgp.peers[1].name: \"a\" is spec.bgp.peers[0].name already",
        ),
        (
            "name: a, address: 192.0.2.1",
            "name: b, address: 192.0.2.1",
            "spec.bgp.peers[1].address: \"192.0.2.1\" is spec.bgp.peers[0].address already",
        ),
        (
            "name: a, address: '2001:db8::1'",
            "name: b, address: '2001:db8:0::1', interface: eth0",
            "is spec.bgp.peers[0].address already",
        ),
        ("name: a, address: 'fe80::1', interface: eth0", "name: b, address: 'fe80::1', interface: eth0", "already"),
        (
            "name: a, interface: eth0",
            "name: b, interface: eth0",
            "spec.bgp.peers[1].interface: \"eth0\" is spec.bgp.peers[0].interface already",
        ),
    ] {
        assert!(two(one, other).expect_err(other).contains(says), "{one} {other}: {:?}", two(one, other));
    }
    assert!(
        two("name: a, address: 'fe80::1', interface: eth0", "name: b, address: 'fe80::1', interface: eth1").is_ok()
    );
    assert!(two("name: a, interface: eth0", "name: b, interface: eth1").is_ok());
}
