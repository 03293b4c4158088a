//! What the router's kernel has of two nodes that speak BGP while an agent or a whole node is gone.

use serde_json::{Value, json};

use crate::documented;
use crate::network::{ANYCAST, Network, PACE, RANGES, ip};
use crate::restart::wait_both;
use crate::router;
use crate::speaker::{Speaker, spec};
use crate::support::probe::{Echo, Probe};
use crate::support::programs::FLOCK_AGENT;
use crate::support::routers::Daemon;

// covers: FM-H01
#[test]
fn an_agent_that_is_killed_and_comes_back_is_no_event_for_the_router() {
    let network = Network::new();
    let _router = router::bird(&network);
    let [one, two] = [&network.one, &network.two].map(|node| Speaker::start(node, spec(json!({}))));
    let fixed = ["2001:db8:f::7,203.0.113.7", "2001:db8:f::8,203.0.113.8"];
    let [(pod, attached), _] = [(&one, fixed[0]), (&two, fixed[1])]
        .map(|(speaker, addresses)| speaker.node.attach("web", &[("addresses", addresses)]));
    let of_pods =
        ["2001:db8:f::7 via node1", "203.0.113.7 via node1", "2001:db8:f::8 via node2", "203.0.113.8 via node2"];
    network.wait_learned(&[&RANGES[..], &of_pods].concat());
    let _echo = Echo::start(&pod.netns(), "web", &attached.ips());
    let flows = Probe::start(&network.client.netns(), &attached.ips(), 1, PACE);
    flows.wait_answers(100);
    let (there, here) = (network.router.route_events(), one.node.host.route_events());
    one.agent.kill();
    flows.wait_answers(100);
    let agent = Speaker::agent(one.node, spec(json!({})));
    agent.signal("HUP");
    agent.wait_log("looking again");
    flows.wait_answers(500);
    let tally = flows.finish();
    assert_eq!(tally.lost, [], "{tally:?}");
    assert_eq!(there.drain(), []);
    assert_eq!(here.drain(), [], "nothing that stands is written again");
}

/// An address that pods of both nodes share: one node is drained, and then a pod's link goes while nobody of ours runs.
fn anycast(start_router: impl Fn(&Network) -> Daemon<'_>) {
    let network = Network::new();
    let _router = start_router(&network);
    let [one, two] = [&network.one, &network.two].map(|node| Speaker::start(node, spec(json!({}))));
    let pod = |speaker: &Speaker<'_>| {
        let (pod, _) = speaker.node.attach("any", &[("anycast", &ANYCAST.join(","))]);
        Echo::start(&pod.netns(), &speaker.node.name, &ANYCAST.map(ip))
    };
    two.node.attach("other", &[]);
    let _first = pod(&one);
    network.wait_anycast("node1");
    let _second = pod(&two);
    network.wait_anycast("node1 and node2");
    let flows = network.anycast_probe(20);
    wait_both(&flows);

    for line in documented::commands("BGP by flock", one.node) {
        one.node.host.run(&line.replace("flock-agent", FLOCK_AGENT));
    }
    flows.wait_only(&["node2"], 500);
    assert!(!network.learned().iter().any(|line| line.contains("node1")), "{:?}", network.learned());
    one.node.host.run(&format!("{FLOCK_AGENT} announce"));
    network.wait_anycast("node1 and node2");
    wait_both(&flows);
    let tally = flows.finish();
    assert_eq!(tally.lost, [], "{tally:?}");

    let link = one.link_of("any");
    one.agent.kill();
    one.node.host.run(&format!("ip link del {link}"));
    network.wait_anycast("node2");
}

// covers: FM-H02
#[test]
fn an_anycast_address_goes_from_a_drained_node_to_another_without_a_lost_packet() {
    anycast(router::bird);
}

#[test]
fn an_anycast_address_goes_from_a_drained_node_to_another_where_the_router_runs_frr() {
    anycast(router::frr);
}

/// The node is not there any more from one moment to the next, and the router's own link stays up.
fn node_is_cut_off(peer: Value, start_router: impl Fn(&Network) -> Daemon<'_>) {
    let network = Network::new();
    let _router = start_router(&network);
    let speakers = [&network.one, &network.two].map(|node| Speaker::start(node, spec(peer.clone())));
    speakers.iter().for_each(|speaker| drop(speaker.node.attach("web", &[])));
    network.wait_learned(&RANGES);
    speakers[0].bird.wait_established("peer_tor1");
    network.switch.cut(&network.one.host);
    network.wait_learned(&["10.25.2.0/24 via node2", "2001:db8:1:2::/64 via node2"]);
    network.switch.mend(&network.one.host);
    network.wait_learned(&RANGES);
}

#[test]
fn a_node_that_is_cut_off_is_left_when_bfd_says_so() {
    // With the hold time alone, nothing would happen for far longer than the story waits.
    node_is_cut_off(json!({"bfd": {"interval": 50, "multiplier": 3}, "holdTime": 600}), router::bird_with_bfd);
}

#[test]
fn a_node_that_is_cut_off_is_left_when_the_hold_time_is_over() {
    node_is_cut_off(json!({"holdTime": 3}), router::bird);
}
