//! Operators who run BIRD or FRR themselves: it takes what a node announces from kernel table 102, with the blocks of
//! docs/reachability.md. The agent knows nothing of the daemon.

use std::time::Duration;

use serde_json::json;

use crate::documented;
use crate::network::{ANYCAST, Network, Node, RANGES, ip};
use crate::restart::bird_comes_and_goes;
use crate::router;
use crate::support::agent::Agent;
use crate::support::probe::{Echo, Probe};
use crate::support::routers::{Daemon, Debian};

/// Starts the daemon on the node as the page says.
fn operate<'a>(node: &'a Node, debian: Debian, heading: &str) -> Daemon<'a> {
    match heading {
        BIRD => Daemon::Bird(node.host.bird(debian, &documented::block(heading, "bird", node))),
        _ => Daemon::Frr(node.host.frr(debian, &documented::block(heading, "frr", node))),
    }
}

const BIRD: &str = "Your own BIRD";
const FRR: &str = "Your own FRR";

/// The ranges of both nodes, and these lines more.
fn ranges_and(more: &[&'static str]) -> Vec<&'static str> {
    [&RANGES[..], more].concat()
}

/// Table 102 has a route of somebody else beside those of the agent.
fn add_foreign_route(node: &Node) {
    node.host.run("ip route add 10.99.0.0/24 via 192.0.2.1 table 102 proto static");
}

/// A node that lets a pod send from addresses that the agent does not know: the stories announce these themselves.
fn start(node: &Node) -> Agent<'_> {
    node.start(json!({"sourceCheck": false}))
}

/// A pod that has the anycast address and that its node knows, which it does not announce yet.
struct Member<'a> {
    node: &'a Node,
    link: String,
    _echo: Echo,
}

impl<'a> Member<'a> {
    fn new(node: &'a Node) -> Member<'a> {
        let (pod, attached) = node.attach("web", &[]);
        let link = attached.host_link();
        for (address, via) in ANYCAST.into_iter().zip(attached.ips()) {
            pod.run(&format!("ip addr add {address} dev lo"));
            node.host.run(&format!("ip route add {address} via {via} dev {link} onlink"));
        }
        Member { node, link, _echo: Echo::start(&pod.netns(), &node.name, &ANYCAST.map(ip)) }
    }

    fn announce(&self, metric: u32) {
        for address in ANYCAST {
            self.node
                .host
                .run(&format!("ip route add {address} dev {} table 102 proto 102 metric {metric}", self.link));
        }
    }

    fn withdraw(&self, metric: u32) {
        for address in ANYCAST {
            self.node.host.run(&format!("ip route del {address} dev {} table 102 metric {metric}", self.link));
        }
    }
}

/// The same with every daemon that takes the whole table.
fn story(debian: Debian, heading: &str, start_router: impl Fn(&Network) -> Daemon<'_>) {
    let network = Network::new();
    let nodes = [&network.one, &network.two];
    let _router = start_router(&network);
    let agents = nodes.map(start);
    let _daemons = nodes.map(|node| operate(node, debian, heading));
    nodes.into_iter().for_each(add_foreign_route);
    let [one, two] = nodes.map(Member::new);
    network.wait_learned(&ranges_and(&[]));
    // Nobody of ours runs from now on: the kernel alone has what is announced.
    agents.into_iter().for_each(Agent::kill);
    one.announce(2);
    network.wait_learned(&ranges_and(&["2001:db8:f::5 via node1", "203.0.113.5 via node1"]));
    let probe = Probe::start(&network.client.netns(), &ANYCAST.map(ip), 20, Duration::from_millis(2));
    probe.wait_only(&["node1"], 50);

    // A pod's number on its node is nobody else's business.
    two.announce(7);
    let both = ["2001:db8:f::5 via node1 and node2", "203.0.113.5 via node1 and node2"];
    network.wait_learned(&ranges_and(&both));
    probe.wait_answers(200);
    assert_eq!(probe.so_far().names().len(), 2, "both nodes answer: {:?}", probe.so_far());

    // In order: the announcement goes, and what still comes is still answered.
    let only_two = ranges_and(&["2001:db8:f::5 via node2", "203.0.113.5 via node2"]);
    if heading == BIRD {
        // Before that, peers are asked to prefer others, while the way here is still good.
        one.announce(4002);
        one.withdraw(2);
        network.wait_learned(&only_two);
        probe.wait_only(&["node2"], 100);
        one.withdraw(4002);
    } else {
        one.withdraw(2);
    }
    network.wait_learned(&only_two);
    probe.wait_only(&["node2"], 100);
    let tally = probe.finish();
    assert_eq!(tally.lost, [], "{tally:?}");

    // The kernel takes the announcement away together with the pod's link.
    two.node.host.run(&format!("ip link del {}", two.link));
    network.wait_learned(&ranges_and(&[]));
}

#[test]
fn an_operator_s_own_bird_announces_what_stands_in_table_102() {
    story(Debian::Bookworm, BIRD, router::bird);
}

#[test]
fn an_operator_s_own_bird_of_a_later_release_does_the_same() {
    story(Debian::Trixie, BIRD, router::bird);
}

#[test]
fn an_operator_s_own_bird_says_it_to_an_frr_as_well() {
    story(Debian::Bookworm, BIRD, router::frr);
}

#[test]
fn an_operator_s_own_frr_announces_what_stands_in_table_102() {
    story(Debian::Trixie, FRR, router::bird);
}

fn restarts(start_router: impl Fn(&Network) -> Daemon<'_>) -> usize {
    let network = Network::new();
    let nodes = [&network.one, &network.two];
    let _router = start_router(&network);
    let agents = nodes.map(start);
    let [one, _two] = nodes.map(|node| operate(node, Debian::Bookworm, BIRD));
    nodes.into_iter().for_each(add_foreign_route);
    let members = nodes.map(Member::new);
    agents.into_iter().for_each(Agent::kill);
    members.iter().for_each(|member| member.announce(2));
    network.wait_anycast("node1 and node2");
    let Daemon::Bird(mut bird) = one else { panic!("it is BIRD") };
    bird_comes_and_goes(&network, &mut bird, "uplink")
}

#[test]
fn an_operator_s_own_bird_is_restarted_without_a_lost_packet() {
    restarts(router::bird);
}

#[test]
fn an_operator_s_own_bird_is_restarted_without_a_lost_packet_where_the_router_runs_frr() {
    assert_eq!(restarts(router::frr), 0, "every flow stays where it is");
}

#[test]
fn an_older_frr_announces_the_nodes_ranges() {
    let network = Network::new();
    let nodes = [&network.one, &network.two];
    let _router = router::bird(&network);
    let _agents = nodes.map(start);
    let _daemons = nodes.map(|node| operate(node, Debian::Bookworm, "An older FRR"));
    network.wait_learned(&ranges_and(&[]));
    let (pod, attached) = network.one.attach("web", &[]);
    let _echo = Echo::start(&pod.netns(), "web", &attached.ips());
    let probe = Probe::start(&network.client.netns(), &attached.ips(), 1, Duration::from_millis(5));
    probe.wait_answers(20);
    assert_eq!(probe.finish().lost, []);
}
