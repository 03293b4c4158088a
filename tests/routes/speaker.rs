//! A node that speaks BGP: its agent configures BIRD, which runs as its unit runs it. What the router has of it, the stories say.

use serde_json::{Value, json};

use crate::network::Node;
use crate::support::agent::Agent;
use crate::support::routers::{Bird, Debian};
use crate::support::waiting::wait_for;

/// Prefixes that annotations may name.
pub(crate) const EXTRA: [&str; 2] = ["2001:db8:f::/48", "203.0.113.0/28"];

/// A block for the router of the stories, and these further fields of the peer.
pub(crate) fn spec(peer: Value) -> Value {
    let mut router = json!({"name": "tor1", "address": "2001:db8:a25::1", "asn": 65100});
    for (key, value) in peer.as_object().expect("fields") {
        router[key] = value.clone();
    }
    json!({"extraPrefixes": EXTRA, "bgp": {"asn": 65001, "peers": [router]}})
}

/// A node whose agent configures BIRD, which runs.
pub(crate) struct Speaker<'a> {
    pub(crate) node: &'a Node,
    pub(crate) agent: Agent<'a>,
    pub(crate) bird: Bird<'a>,
}

impl<'a> Speaker<'a> {
    pub(crate) fn start(node: &'a Node, spec: Value) -> Speaker<'a> {
        let agent = Speaker::agent(node, spec);
        let mut bird = node.host.bird_of(Debian::Bookworm, CONFIG, SOCKET);
        bird.start(&[]);
        Speaker { node, agent, bird }
    }

    /// Its agent alone, which has configured BIRD.
    pub(crate) fn agent(node: &'a Node, spec: Value) -> Agent<'a> {
        node.host.run("mkdir -p /run/flock/bird");
        let agent = node.agent(spec).args(&["--bird-config", CONFIG, "--bird-socket", SOCKET]).start();
        let is_there = || node.host.path(CONFIG).exists().then_some(());
        wait_for("the configuration of BIRD", is_there);
        agent
    }

    /// The host end of the link of this container.
    pub(crate) fn link_of(&self, container: &str) -> String {
        let shown = self.node.host.run("ip -j link show type veth");
        let links: Value = serde_json::from_str(&shown).expect("JSON");
        let mut links = links.as_array().expect("a list").iter();
        let found = links.find(|link| link["ifalias"].as_str().is_some_and(|alias| alias.contains(container)));
        found.and_then(|link| link["ifname"].as_str()).unwrap_or_else(|| panic!("{container}: {shown}")).to_owned()
    }
}

pub(crate) const CONFIG: &str = "/run/flock/bird/bird.conf";
pub(crate) const SOCKET: &str = "/run/flock/bird.ctl";
