//! An address that pods of both nodes share, by BIRD on the nodes and on the router: whoever is left answers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use crate::asking::PORT;
use crate::cluster::Cluster;
use crate::support::programs::succeed;
use crate::support::routers::{BIRD, Debian};
use crate::support::waiting::wait_for;
use crate::workload::pod;

const ADDRESSES: [&str; 2] = ["203.0.113.9", "2001:db8:f::9"];

pub(crate) fn shared(cluster: &mut Cluster<'_>) {
    let control = &cluster.ground.control;
    for family in ["ipv4", "ipv6"] {
        control.setting(&format!("{family}/fib_multipath_hash_policy"), "1");
    }
    let _router = control.bird(Debian::Bookworm, BIRD);
    for node in &cluster.nodes {
        node.host.put_bird();
        let said = succeed(&mut node.host.inside("flock-agent install --bird"));
        let next = said.lines().last().and_then(|line| line.strip_prefix("next: ")).expect("what to do next");
        next.split(" && ").for_each(|line| drop(succeed(&mut node.host.inside(line))));
        let bgp = json!({"spec": {"bgp": {"asn": 65001, "peers": [{"name": "tor1", "address": "2001:db8:a25::10", "asn": 65100}]}}});
        let patch = bgp.to_string();
        let patched = cluster.plane.kubectl(&["patch", "nodeconfig", &node.name, "--type=merge", "-p", &patch]);
        assert!(patched.status.success(), "{patched:?}");
    }
    let shares = |name: &str, node: &str| {
        let mut manifest = pod(name, "shares", node);
        manifest["metadata"]["annotations"] = json!({"flock.fritzlab.net/anycast": ADDRESSES.join(",")});
        manifest
    };
    cluster.apply(&[shares("any1", "node1"), shares("any2", "node2")]);
    ["any1", "any2"].iter().for_each(|name| drop(cluster.wait_ready(name)));
    let client = &cluster.ground.client;
    let answers = |ip: IpAddr| client.asks(ip, PORT, "/hostname");
    let all = ADDRESSES.map(|text| text.parse::<IpAddr>().expect("an address"));
    for ip in all {
        // Each connection is a flow of its own, and goes to either.
        let mut who = BTreeSet::new();
        wait_for("answers of both pods", || {
            who.extend(answers(ip).ok());
            (who.len() == 2).then_some(())
        });
    }
    cluster.plane.wait("delete pod any1");
    for ip in all {
        let mut row = 0;
        wait_for("answers of the one that is left, and of nobody else", || {
            row = if answers(ip).as_deref() == Ok("any2") { row + 1 } else { 0 };
            (row == 20).then_some(())
        });
    }
    // The whole node, by its administrator.
    cluster.apply(&[shares("any1", "node1")]);
    cluster.wait_ready("any1");
    succeed(&mut cluster.nodes[1].host.inside("flock-agent withdraw"));
    for ip in all {
        let mut row = 0;
        wait_for("answers of the node that was not withdrawn", || {
            row = if answers(ip).as_deref() == Ok("any1") { row + 1 } else { 0 };
            (row == 20).then_some(())
        });
    }
    succeed(&mut cluster.nodes[1].host.inside("flock-agent announce"));
    cluster.plane.wait("delete pod -l app=shares");
}
