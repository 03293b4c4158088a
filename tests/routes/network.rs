//! Two nodes and a router on one switch, and a client behind the router, each a host of its own and all with both families. What
//! runs on them, the stories say.
//!
//! ```text
//!  node1 ─┐          2001:db8:a25::/64, 192.0.2.0/24        2001:db8:c::/64, 198.51.100.0/24
//!         ├─ switch ───────────────────────────── router ───────────────────────────── client
//!  node2 ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::agent::{Agent, AgentBuilder};
use crate::support::fib::Routes;
use crate::support::host::Host;
use crate::support::manifests::node_config_of;
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::probe::Probe;
use crate::support::switch::{Switch, cable};
use crate::support::waiting::wait_or;

/// The anycast address of the stories, of both families.
pub(crate) const ANYCAST: [&str; 2] = ["2001:db8:f::5", "203.0.113.5"];

/// Between two packets of a flow that must lose none.
pub(crate) const PACE: Duration = Duration::from_millis(1);

pub(crate) const RANGES: [&str; 4] =
    ["10.25.1.0/24 via node1", "10.25.2.0/24 via node2", "2001:db8:1:1::/64 via node1", "2001:db8:1:2::/64 via node2"];

/// A node: a host with a name and ranges of its own for pods.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) ip6: String,
    pub(crate) ip4: String,
    pub(crate) cidr6: String,
    pub(crate) cidr4: String,
}

pub(crate) struct Network {
    pub(crate) switch: Switch,
    pub(crate) one: Node,
    pub(crate) two: Node,
    pub(crate) router: Host,
    pub(crate) client: Host,
}

impl Network {
    pub(crate) fn new() -> Network {
        let (router, client) = (Host::with(&[]), Host::with(&[]));
        let switch = Switch::new();
        switch.plug(&router, "eth0", &["2001:db8:a25::1/64", "192.0.2.1/24"]);
        let outside = ["2001:db8:c::1/64", "198.51.100.1/24"];
        cable((&router, "eth1", &outside), (&client, "eth0", &["2001:db8:c::2/64", "198.51.100.2/24"]));
        for key in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv4/fib_multipath_hash_policy",
            "ipv6/fib_multipath_hash_policy",
        ] {
            router.setting(key, "1");
        }
        default_ways(&client, ["2001:db8:c::1", "198.51.100.1"]);
        let [one, two] = [1, 2].map(|number| Node::join(&switch, number));
        Network { switch, one, two, router, client }
    }

    /// A further node on the switch, after `node1` and `node2`.
    pub(crate) fn join(&self, number: u8) -> Node {
        Node::join(&self.switch, number)
    }

    /// What the router's kernel has from routing daemons: a line for each prefix, with the nodes that it leads to.
    pub(crate) fn learned(&self) -> BTreeSet<String> {
        let mut routes = Routes::new();
        for protocol in ["bird", "bgp"] {
            for (to, ways) in self.router.routes(&format!("proto {protocol}")) {
                routes.entry(to).or_default().extend(ways);
            }
        }
        let owner = |node: &Node| node.addresses().into_iter().map(|ip| (ip, node.name.clone())).collect::<Vec<_>>();
        let owners: BTreeMap<String, String> = [&self.one, &self.two].into_iter().flat_map(owner).collect();
        let line = |(to, ways): (String, BTreeSet<String>)| {
            let nodes: BTreeSet<String> =
                ways.into_iter().map(|way| owners.get(&way).unwrap_or(&way).clone()).collect();
            format!("{to} via {}", nodes.into_iter().collect::<Vec<_>>().join(" and "))
        };
        routes.into_iter().map(line).collect()
    }

    /// Waits until that is all that the router's kernel has from routing daemons.
    #[track_caller]
    pub(crate) fn wait_learned(&self, lines: &[&str]) {
        let wanted: BTreeSet<String> = lines.iter().map(|&line| line.to_owned()).collect();
        wait_or(
            || format!("the router has {:#?} instead of {wanted:#?}", self.learned()),
            || (self.learned() == wanted).then_some(()),
        );
    }

    /// Waits until the router has the ranges of both nodes, the anycast address by way of these nodes, and nothing else.
    #[track_caller]
    pub(crate) fn wait_anycast(&self, nodes: &str) {
        let anycast = ANYCAST.map(|address| format!("{address} via {nodes}"));
        let lines: Vec<&str> = RANGES.into_iter().chain(anycast.iter().map(String::as_str)).collect();
        self.wait_learned(&lines);
    }

    /// Traffic from the client to the anycast address.
    pub(crate) fn anycast_probe(&self, flows: usize) -> Probe {
        Probe::start(&self.client.netns(), &ANYCAST.map(ip), flows, PACE)
    }
}

/// Default routes by these routers.
fn default_ways(host: &Host, [six, four]: [&str; 2]) {
    host.run(&format!("ip -6 route add default via {six}"));
    host.run(&format!("ip -4 route add default via {four}"));
}

impl Node {
    fn join(switch: &Switch, number: u8) -> Node {
        let node = Node {
            host: Host::with(&[]),
            name: format!("node{number}"),
            ip6: format!("2001:db8:a25::1{number}"),
            ip4: format!("192.0.2.1{number}"),
            cidr6: format!("2001:db8:1:{number}::/64"),
            cidr4: format!("10.25.{number}.0/24"),
        };
        switch.plug(&node.host, "eth0", &[&format!("{}/64", node.ip6), &format!("{}/24", node.ip4)]);
        default_ways(&node.host, ["2001:db8:a25::1", "192.0.2.1"]);
        node
    }

    /// The addresses of its link to the switch, with the link-local one.
    fn addresses(&self) -> Vec<String> {
        let shown: Value = serde_json::from_str(&self.host.run("ip -j addr show dev eth0")).expect("JSON");
        let infos = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
        infos.iter().filter_map(|info| info["local"].as_str().map(str::to_owned)).collect()
    }

    /// Its NodeConfig, with these further fields.
    pub(crate) fn config(&self, more: Value) -> String {
        let mut spec = json!({"cidr6": self.cidr6, "cidr4": self.cidr4});
        for (key, value) in more.as_object().expect("fields") {
            spec[key] = value.clone();
        }
        node_config_of(&self.name, spec)
    }

    /// Its agent, about to be started with that NodeConfig in a file.
    pub(crate) fn agent(&self, more: Value) -> AgentBuilder<'_> {
        self.host.agent().node(&self.name).config(Some(&self.config(more)))
    }

    /// Its agent, started with that NodeConfig in a file.
    pub(crate) fn start(&self, more: Value) -> Agent<'_> {
        self.agent(more).start()
    }

    /// A new pod of this name with these annotations.
    pub(crate) fn attach(&self, name: &str, annotations: &[(&str, &str)]) -> (Pod<'_>, Attached) {
        let pod = self.host.pod(name);
        let attached = self.host.add(&pod).annotations(annotations).result();
        (pod, attached)
    }
}

/// An address of a test.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
