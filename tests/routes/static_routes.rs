//! Networks whose routers know nothing but what somebody wrote into them.

use std::time::Duration;

use serde_json::json;

use crate::documented;
use crate::network::Network;
use crate::support::probe::{Echo, Probe};

#[test]
fn a_client_reaches_pods_of_nodes_that_its_router_has_a_route_for() {
    let network = Network::new();
    let nodes = [&network.one, &network.two];
    let _agents = nodes.map(|node| node.start(json!({})));
    let (pods, attached): (Vec<_>, Vec<_>) = nodes.map(|node| node.attach("web", &[])).into_iter().unzip();
    let addresses: Vec<_> = attached.iter().flat_map(|attached| attached.ips()).collect();
    let _echoes = [0, 1].map(|at| Echo::start(&pods[at].netns(), &nodes[at].name, &attached[at].ips()));
    for node in nodes {
        documented::commands("Static routes", node).iter().for_each(|line| drop(network.router.run(line)));
    }
    let probe = Probe::start(&network.client.netns(), &addresses, 1, Duration::from_millis(2));
    probe.wait_answers(100);
    let tally = probe.finish();
    assert_eq!((tally.lost.as_slice(), tally.names().len()), (&[][..], 2), "{tally:?}");
    // By way of the router, which sends both nodes to each other.
    pods[0].assert_pings(attached[1].ips());

    // A cable that is drawn and put back changes nothing that anybody has to repair.
    let probe = Probe::start(&network.client.netns(), &addresses, 1, Duration::from_millis(2));
    probe.wait_answers(50);
    network.switch.cut(&network.one.host);
    probe.wait_only(&["node2"], 50);
    network.switch.mend(&network.one.host);
    let before = probe.so_far().by["node1"];
    let again = || (probe.so_far().by["node1"] > before + 20).then_some(());
    crate::support::waiting::wait_for("answers from node1", again);
}
