//! What the router of the stories runs: BIRD or FRR, which take everything from both nodes and give them nothing. What they should
//! have taken, the stories say.

use crate::network::Network;
use crate::support::routers::{BIRD, Daemon, Debian};

const FRR: &str = "
router bgp 65100
 bgp router-id 192.0.2.1
 bgp graceful-restart
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor nodes peer-group
 neighbor nodes remote-as 65001
 neighbor nodes capability extended-nexthop
 neighbor nodes timers connect 1
 neighbor 2001:db8:a25::11 peer-group nodes
 neighbor 2001:db8:a25::12 peer-group nodes
 address-family ipv4 unicast
  neighbor nodes activate
 exit-address-family
 address-family ipv6 unicast
  neighbor nodes activate
 exit-address-family
";

/// The router runs BIRD.
pub(crate) fn bird(network: &Network) -> Daemon<'_> {
    Daemon::Bird(network.router.bird(Debian::Bookworm, BIRD))
}

/// The router runs BIRD, and watches the nodes closely.
pub(crate) fn bird_with_bfd(network: &Network) -> Daemon<'_> {
    let bfd = "protocol bfd { interface \"eth0\" { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }; }\n";
    let config = BIRD.replace("template bgp node {", &format!("{bfd}template bgp node {{\n  bfd on;"));
    Daemon::Bird(network.router.bird(Debian::Bookworm, &config))
}

/// The router runs FRR.
pub(crate) fn frr(network: &Network) -> Daemon<'_> {
    Daemon::Frr(network.router.frr(Debian::Bookworm, FRR))
}
