//! Stories of a node: the real agent, the real plugin, real namespaces.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

mod support;

use support::*;

#[test]
fn a_pod_gets_an_address_of_each_family_and_its_first_packets_arrive() {
    let host = Host::new();
    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let attached = host.add(&a).result();
    for ip in [HOST6, HOST4] {
        assert!(a.pings(ip.parse().expect("literal")), "{ip}");
    }
    for ip in host.add(&b).result().ips() {
        assert!(a.pings(ip), "{ip}");
    }
    assert_eq!(attached.ips().len(), 2);
    host.del(&a).done();
    host.del(&b).done();
    host.assert_empty();
    agent.stop();
}
