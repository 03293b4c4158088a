//! A hoster's prefix that is on the link itself: the router knows of no node, and asks on the link for each address.

use std::time::Duration;

use serde_json::json;

use crate::documented;
use crate::network::Network;
use crate::support::probe::{Echo, Probe};

#[test]
fn pods_answer_at_addresses_of_a_prefix_that_is_on_the_node_s_link() {
    let network = Network::new();
    let node = &network.one;
    let _agent =
        node.agent(json!({})).config(Some(&documented::block("A prefix on the node's own link", "yaml", node))).start();
    let (pod, attached) = node.attach("web", &[]);
    let addresses = attached.ips();
    assert!(
        addresses
            .iter()
            .all(|ip| ["2001:db8:a25:", "192.0.2."].iter().any(|on_link| ip.to_string().starts_with(on_link))),
        "{addresses:?}"
    );
    let _echo = Echo::start(&pod.netns(), "web", &addresses);
    for from in [&network.client, &network.two.host] {
        let probe = Probe::start(&from.netns(), &addresses, 1, Duration::from_millis(2));
        probe.wait_answers(50);
        assert_eq!(probe.finish().lost, [], "from the first packet on");
    }
    // Nobody is answered for any more who is not there.
    assert_eq!(node.host.run("ip neigh show proxy").lines().count(), addresses.len());
    node.host.del(&pod).done();
    assert_eq!(node.host.run("ip neigh show proxy"), "");
}
