//! Whose address the outside sees, with real packets: a node with two pods' links, a link that is no pod's, and a router outside.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use flock::kernel::netns::Netns;
use ipnet::IpNet;
use model::masquerade::masquerade;
use model::policing::Masquerade;
use model::ruleset::Ruleset;

use crate::ruleset_text::carry_out;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::waiting::PATIENCE;

/// Addresses, IPv4 and IPv6 each.
pub(crate) type Both = [&'static str; 2];

const NODE: Both = ["192.0.2.1", "2001:db8:a::1"];
const ROUTER: Both = ["192.0.2.2", "2001:db8:a::2"];
const POD: Both = ["10.25.1.5", "2001:db8:1:1::5"];
/// An address of the other pod that is outside the ranges.
const FURTHER: Both = ["198.51.100.7", "2001:db8:f::7"];
/// What sits at a link that is no pod's, within the node's ranges.
const GUEST: Both = ["10.25.1.9", "2001:db8:1:1::9"];
/// A pod of another node, behind the router.
const REMOTE: Both = ["10.25.2.5", "2001:db8:1:2::5"];
/// What the node's owner has excepted, behind the router.
const EXCEPTED: Both = ["203.0.113.5", "2001:db8:e::5"];

/// A network namespace of this name, with these addresses on `eth0`, whose other end is the host's link of that name, and with
/// default routes by these gateways on that link, as a pod has them.
pub(crate) fn wire(host: &Host, name: &str, link: &str, addresses: &[String], gateways: Both) {
    host.run(&format!("ip netns add {name}"));
    host.run(&format!("ip link add {link} type veth peer name eth0 netns {name}"));
    host.run(&format!("ip link set {link} up"));
    host.run(&format!("ip addr add fe80::1/64 dev {link} nodad"));
    let mut inside = "link set lo up\nlink set eth0 up\n".to_owned();
    for ip in addresses {
        inside += &format!("addr add {ip} dev eth0 {}\n", if ip.contains(':') { "nodad" } else { "" });
    }
    for gateway in gateways {
        inside += &format!("route add default via {gateway} dev eth0 onlink\n");
    }
    host.script(&format!("ip -n {name} -batch - <<end\n{inside}end"));
}

/// A pod: the host has routes to its addresses, and is its gateway.
pub(crate) fn wire_pod(host: &Host, name: &str, link: &str, addresses: Both) {
    wire(host, name, link, &addresses.map(str::to_owned), ["169.254.1.1", "fe80::1"]);
    host.run(&format!("ip addr add 169.254.1.1/32 dev {link}"));
    for ip in addresses {
        host.run(&format!("ip route add {ip} dev {link}"));
    }
}

/// The node, and the network namespaces `router`, `pod`, `other` and `guest` beside it.
fn node() -> Host {
    let host = Host::with(&[]);
    let outside = [ROUTER, REMOTE, EXCEPTED].concat();
    wire(&host, "router", "up0", &outside.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>(), NODE);
    host.run(&format!("ip addr add {}/24 dev up0", NODE[0]));
    host.run(&format!("ip addr add {}/64 dev up0 nodad", NODE[1]));
    wire_pod(&host, "pod", "flock1", POD);
    wire_pod(&host, "other", "flock2", FURTHER);
    wire_pod(&host, "guest", "tap0", GUEST);
    for (to, via) in [("10.25.2.0/24", 0), ("203.0.113.0/24", 0), ("2001:db8:1:2::/64", 1), ("2001:db8:e::/64", 1)] {
        host.run(&format!("ip route add {to} via {}", ROUTER[via]));
    }
    host.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    host
}

pub(crate) fn in_pod<T: Send>(host: &Host, name: &str, work: impl FnOnce() -> T + Send) -> T {
    let netns = host.path(&format!("/run/netns/{name}"));
    Netns::open(Path::new(&netns)).expect("a namespace").run(work).expect("entered")
}

/// Whom `to` sees when `from` sends it a packet, each with the name of its namespace, once it has answered and the answer has come
/// back.
#[track_caller]
fn seen(host: &Host, from: (&str, &str), to: (&str, &str)) -> String {
    let open = |(name, ip): (&str, &str)| {
        let ip: IpAddr = ip.parse().expect("an address");
        let socket = in_pod(host, name, || UdpSocket::bind((ip, 0)).expect("an own address"));
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket
    };
    let (here, there) = (open(from), open(to));
    here.connect(there.local_addr().expect("bound")).expect("a way");
    here.send(b"?").expect("sent");
    let mut packet = [0; 8];
    let (_, source) = there.recv_from(&mut packet).expect("received");
    there.send_to(b"!", source).expect("answered");
    here.recv(&mut packet).expect("the answer comes back");
    source.ip().to_string()
}

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn wanted(ipv4: bool, ipv6: bool) -> Ruleset {
    let except = nets(&["203.0.113.0/24", "2001:db8:e::/64"]);
    let mut ruleset = Ruleset::new();
    let own = nets(&["10.25.1.0/24", "2001:db8:1:1::/64"]);
    let others = nets(&["10.25.2.0/24", "2001:db8:1:2::/64"]);
    masquerade(&mut ruleset, &Masquerade { ipv4, ipv6, except }, &own, &others);
    ruleset
}

#[test]
fn the_outside_sees_the_node_in_the_families_that_are_asked_for_and_the_pod_once_it_is_switched_off() {
    let host = node();
    let mut shown = Ruleset::new();
    for asked in [[false, false], [true, false], [true, true], [false, true], [false, false]] {
        let wanted = wanted(asked[0], asked[1]);
        carry_out(&host, &shown, &wanted);
        shown = wanted;
        for (family, asked) in asked.into_iter().enumerate() {
            let expected = if asked { NODE } else { POD };
            assert_eq!(
                seen(&host, ("pod", POD[family]), ("router", ROUTER[family])),
                expected[family],
                "asked: {asked}"
            );
        }
    }
    assert_eq!(host.run("nft list ruleset"), "", "and nothing is left");
}

#[test]
fn whoever_has_a_way_back_to_the_pod_sees_its_own_address() {
    let host = node();
    carry_out(&host, &Ruleset::new(), &wanted(true, true));
    for family in [0, 1] {
        assert_eq!(seen(&host, ("pod", POD[family]), ("router", ROUTER[family])), NODE[family], "the outside does not");
        assert_eq!(seen(&host, ("pod", POD[family]), ("router", REMOTE[family])), POD[family], "a pod of another node");
        assert_eq!(seen(&host, ("pod", POD[family]), ("router", EXCEPTED[family])), POD[family], "what is excepted");
        assert_eq!(
            seen(&host, ("pod", POD[family]), ("other", FURTHER[family])),
            POD[family],
            "a pod of this node, by any address"
        );
        assert_eq!(
            seen(&host, ("other", FURTHER[family]), ("router", ROUTER[family])),
            FURTHER[family],
            "by an address that is announced"
        );
        assert_eq!(
            seen(&host, ("guest", GUEST[family]), ("router", ROUTER[family])),
            GUEST[family],
            "what is no pod is left alone"
        );
        assert_eq!(
            seen(&host, ("router", ROUTER[family]), ("pod", POD[family])),
            ROUTER[family],
            "a pod sees who asks it"
        );
    }
}
