//! A node's BIRD that is killed, stopped and started anew under traffic, whoever configures it. What is announced is the caller's.

use crate::network::Network;
use crate::support::probe::Probe;
use crate::support::routers::Bird;

/// Waits until both nodes have answered, and some more.
pub(crate) fn wait_both(flows: &Probe) {
    flows.wait_answers(200);
    assert_eq!(flows.so_far().names().len(), 2, "both nodes answer: {:?}", flows.so_far());
}

/// This BIRD of a node, whose session has this name, is killed and stopped and started anew while there is traffic to both nodes,
/// and no packet is lost. The number of flows that another node answers than before: a router that runs BIRD prefers nodes whose
/// session stands to those that are expected back, and FRR treats them alike.
pub(crate) fn bird_comes_and_goes(network: &Network, bird: &mut Bird<'_>, session: &str) -> usize {
    let flows = network.anycast_probe(20);
    wait_both(&flows);
    let events = network.router.route_events();

    // It is killed, and started anew at once as its unit does it.
    bird.signal("KILL");
    bird.wait();
    bird.start(&["-R"]);
    bird.wait_established(session);
    bird.wait_recovered(1);

    // It is stopped as its unit does it, and started.
    bird.command("graceful restart");
    bird.wait();
    flows.wait_answers(500);
    bird.start(&["-R"]);
    bird.wait_established(session);
    bird.wait_recovered(2);
    let tally = flows.finish();
    assert_eq!(tally.lost, [], "{tally:?}");
    let gone: Vec<_> = events.drain().into_iter().filter(|event| event.gone).collect();
    assert_eq!(gone, [], "the router never loses a route");
    network.wait_anycast("node1 and node2");
    tally.moved()
}
