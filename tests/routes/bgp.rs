//! One `bgp` block in a NodeConfig: what the router's kernel has of a node then, and what it keeps while programs die. The
//! NodeConfig is a file, so no API server says which pods serve.

use crate::documented;
use crate::network::{Network, PACE, RANGES, ip};
use crate::router;
use crate::speaker::Speaker;
use crate::support::probe::{Echo, Probe};
use crate::support::routers::Daemon;

fn story(start_router: impl Fn(&Network) -> Daemon<'_>) {
    let network = Network::new();
    let _router = start_router(&network);
    let [one, two] =
        [&network.one, &network.two].map(|node| Speaker::start(node, documented::spec("BGP by flock", node)));

    // Pods of both nodes talk by way of the router.
    let (a, at_a) = one.node.attach("a", &[]);
    let (b, at_b) = two.node.attach("b", &[]);
    network.wait_learned(&RANGES);
    a.assert_pings(at_b.ips());
    b.assert_pings(at_a.ips());

    // An address that is a pod's own wherever it runs.
    let fixed = "2001:db8:f::7,203.0.113.7";
    let (pod, attached) = two.node.attach("db", &[("addresses", fixed)]);
    assert_eq!(attached.ips(), ["2001:db8:f::7", "203.0.113.7"].map(ip));
    let with_fixed = [&RANGES[..], &["2001:db8:f::7 via node2", "203.0.113.7 via node2"]].concat();
    network.wait_learned(&with_fixed);
    let _echo = Echo::start(&pod.netns(), "db", &attached.ips());
    let flows = Probe::start(&network.client.netns(), &attached.ips(), 1, PACE);
    flows.wait_answers(100);
    assert_eq!(flows.finish().lost, []);
    two.node.host.del(&pod).done();
    network.wait_learned(&RANGES);

    // It comes up on the other node, and is reached there.
    let (pod, _) = one.node.attach("db", &[("addresses", fixed)]);
    let with_fixed = [&RANGES[..], &["2001:db8:f::7 via node1", "203.0.113.7 via node1"]].concat();
    network.wait_learned(&with_fixed);
    let _echo = Echo::start(&pod.netns(), "db again", &attached.ips());
    let flows = Probe::start(&network.client.netns(), &attached.ips(), 1, PACE);
    flows.wait_only(&["db again"], 100);
    assert_eq!(flows.finish().lost, []);

    // Nobody of ours runs on that node any more, and a pod's link goes.
    let link = one.link_of("db");
    one.agent.kill();
    one.node.host.run(&format!("ip link del {link}"));
    network.wait_learned(&RANGES);
}

#[test]
fn a_router_that_runs_bird_has_ranges_fixed_and_anycast_addresses_as_long_as_they_are_there() {
    story(router::bird);
}

#[test]
fn a_router_that_runs_frr_has_ranges_fixed_and_anycast_addresses_as_long_as_they_are_there() {
    story(router::frr);
}
