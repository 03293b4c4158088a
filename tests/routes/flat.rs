//! A switch and nothing else: nodes that find each other by the API server, and no router that anybody configured.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::documented;
use crate::network::{Network, Node};
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::fib::Routes;
use crate::support::outcome::Attached;
use crate::support::probe::{Echo, Probe};
use crate::support::waiting::{PATIENCE, wait_at_most};

/// The node's agent, which the API server tells everything.
fn start<'a>(plane: &ControlPlane<'_>, node: &'a Node) -> Agent<'a> {
    let kubeconfig = plane.kubeconfig_on(&node.host);
    plane.apply(&documented::block("Other nodes", "yaml", node)).expect("accepted");
    // Its pods are containers that the API server does not know.
    let open = r#"{"spec":{"policy":{"unknown":"open"}}}"#;
    let patched = plane.kubectl(&["patch", "nodeconfig", &node.name, "--type", "merge", "-p", open]);
    assert!(patched.status.success(), "{patched:?}");
    let agent = node.host.agent().node(&node.name).config(None).kubeconfig(&kubeconfig).start();
    agent.wait_log("NodeConfig in force");
    agent
}

impl Node {
    /// Waits until it sends packets for pods of these nodes to them, and for those of no others.
    #[track_caller]
    fn wait_peers(&self, peers: &[&Node]) {
        let way = |to: &str, via: &str| (to.to_owned(), BTreeSet::from([via.to_owned()]));
        let ways = |peer: &&Node| [way(&peer.cidr6, &peer.ip6), way(&peer.cidr4, &peer.ip4)];
        let wanted: Routes = peers.iter().flat_map(ways).collect();
        // Its own pods' routes lead to links, and its ranges nowhere.
        let is_gateway = |ways: &BTreeSet<String>| ways.iter().all(|way| way.parse::<IpAddr>().is_ok());
        let shown =
            || self.host.routes("proto 102").into_iter().filter(|(_, ways)| is_gateway(ways)).collect::<Routes>();
        wait_at_most(
            GRACE + PATIENCE,
            || format!("{} has {:?} instead of {wanted:?}", self.name, shown()),
            || (shown() == wanted).then_some(()),
        );
    }
}

/// How long the routes to a node stay that is gone.
const GRACE: Duration = Duration::from_secs(60);

#[test]
fn pods_of_nodes_on_one_switch_talk_when_their_node_configs_are_applied() {
    let network = Network::new();
    let (one, two) = (&network.one, &network.two);
    for node in [one, two] {
        // Nobody is asked the way.
        node.host.run("ip -4 route del default");
        node.host.run("ip -6 route del default");
    }
    let mut plane = ControlPlane::start_at(&network.router, "192.0.2.1");
    let first = start(&plane, one);
    let _second = start(&plane, two);
    let [(a, at_a), (b, at_b)] = [one, two].map(|node| node.attach("web", &[]));
    one.wait_peers(&[two]);
    two.wait_peers(&[one]);
    a.assert_pings(at_b.ips());
    b.assert_pings(at_a.ips());
    let echo =
        |node: &Node, attached: &Attached| Echo::start(&node.host.path("/run/netns/web"), &node.name, &attached.ips());
    let _echo = echo(two, &at_b);
    let probe = Probe::start(&a.netns(), &at_b.ips(), 1, Duration::from_millis(2));
    probe.wait_answers(100);

    // A third one comes, and all find all.
    let three = &network.join(3);
    let third = start(&plane, three);
    one.wait_peers(&[two, three]);
    two.wait_peers(&[one, three]);
    let (c, at_c) = three.attach("web", &[]);
    three.wait_peers(&[one, two]);
    c.assert_pings(at_a.ips().into_iter().chain(at_b.ips()));
    a.assert_pings(at_c.ips());

    // The API server goes, and an agent is killed and comes back without it.
    plane.stop_api("KILL");
    first.kill();
    let kubeconfig = "/run/k8s/agent.kubeconfig";
    let first = one.host.agent().node(&one.name).config(None).kubeconfig(kubeconfig).start();
    first.wait_log("NodeConfig of the last run is in force");
    first.wait_log("API server cannot be asked");
    probe.wait_answers(200);
    one.wait_peers(&[two, three]);

    // And the third one goes for good.
    plane.start_api();
    third.stop();
    plane.run("delete nodeconfig node3");
    plane.run("delete nodepeer node3");
    let tally = probe.finish();
    assert_eq!(tally.lost, [], "{tally:?}");
    // Objects are deleted and made again, so its routes stay for a while, and then they go.
    one.wait_peers(&[two]);
    two.wait_peers(&[one]);
}
