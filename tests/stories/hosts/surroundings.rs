//! What the host is connected to: addresses that are somebody's already, gateways, uplinks of every kind.

use serde_json::json;

use crate::support::host::{HOST4, Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config, node_config_spec};
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;

fn config(cidr4: &str) -> String {
    node_config("", cidr4)
}

// covers: FM-M01 FM-M02
#[test]
fn a_pod_never_gets_the_address_of_a_router() {
    // Of 192.0.2.248/29, pods can have .250 to .254.
    for (name, route, gateway) in [
        ("the default gateway", "ip route add default via 192.0.2.254", "192.0.2.254"),
        (
            "one of two next hops",
            "ip route add 198.51.100.0/24 nexthop via 192.0.2.1 nexthop via 192.0.2.253",
            "192.0.2.253",
        ),
        ("a route of another table", "ip route add 198.51.100.0/24 via 192.0.2.252 table 77", "192.0.2.252"),
        ("a nexthop object without a route", "ip nexthop add id 7 via 192.0.2.251 dev up0", "192.0.2.251"),
        (
            "a static route of a daemon",
            "ip route add 198.51.100.0/24 via 192.0.2.250 proto bird metric 32",
            "192.0.2.250",
        ),
    ] {
        let host = Host::new();
        let _router = host.machine("up0", &["192.0.2.10/24"], &["192.0.2.254/24"]);
        host.run(route);
        let agent = host.agent().config(Some(&config("192.0.2.248/29"))).start();
        let pods = host.attach_all(["a", "b", "c", "d"]);
        let got: Vec<String> = pods.iter().flat_map(|(_, attached)| attached.ips()).map(|ip| ip.to_string()).collect();
        assert!(!got.contains(&gateway.to_owned()), "{name}: {got:?}");
        let error = host.add(&host.pod("e")).error();
        assert!(error.msg == "no free address" && error.details.contains("the host has 1"), "{name}: {error:?}");
        // And the range is said to be somebody else's network, with the remedy.
        let line = agent.wait_log("spec.cidr4 192.0.2.248/29 meets 192.0.2.0/24, the network of link up0");
        assert!(line.contains("use a range of the node's own"), "{line}");
    }
}

// covers: FM-M01
#[test]
fn a_pod_never_gets_the_address_of_an_ipv6_router_however_it_was_learned() {
    for route in [
        "ip -6 route add default via 2001:db8:5::3 dev up0",
        "ip -6 route add default via 2001:db8:5::3 dev up0 proto ra metric 1024",
        "ip route add 198.51.100.0/24 via inet6 2001:db8:5::3 dev up0",
    ] {
        let host = Host::new();
        let _router = host.machine("up0", &["2001:db8:5::2/64"], &["2001:db8:5::3/64"]);
        host.run(route);
        // Of a /126, ::0 is the router anycast address, and ::2 the host's.
        let _agent = host.agent().config(Some(&node_config("2001:db8:5::/126", ""))).start();
        let pods = host.attach_all(["a"]);
        assert_eq!(pods[0].1.ipv6(), "2001:db8:5::1".parse().ok(), "{route}");
        assert_eq!(host.add(&host.pod("b")).error().msg, "no free address", "{route}");
    }
}

// covers: FM-M01
#[test]
fn a_router_that_comes_later_is_no_pods_either_and_a_pod_in_its_way_is_named() {
    let host = Host::new();
    let _router = host.machine("up0", &["192.0.2.10/24"], &["192.0.2.254/24"]);
    let agent = host.agent().config(Some(&config("192.0.2.248/29"))).start();
    let pods = host.attach_all(["a"]);
    let held = pods[0].1.ipv4().expect("IPv4");
    // The next pod would get the next address.
    host.run("ip route add default via 192.0.2.251");
    host.run(&format!("ip route add 198.51.100.0/24 via {held} dev up0 onlink"));
    let line = agent.wait_log("a pod has an address that is somebody else's");
    assert!(
        line.contains(&format!("addr={held}")) && line.contains("pod=default/a") && line.contains("next hop"),
        "{line}"
    );
    assert_eq!(host.attach_all(["b"])[0].1.ipv4(), "192.0.2.252".parse().ok());
    pods[0].0.assert_pings([HOST4.parse().expect("literal")]);
}

// covers: FM-M02
#[test]
fn a_machine_that_the_host_knows_as_a_neighbour_keeps_its_address() {
    let host = Host::new();
    let router = host.machine("up0", &["192.0.2.1/24"], &["192.0.2.3/24", "192.0.2.2/24"]);
    router.assert_pings(["192.0.2.1".parse().expect("literal")]);
    host.run("ip neigh replace 192.0.2.3 dev up0 lladdr 02:00:00:00:00:03 nud stale");
    host.run("ip neigh replace 192.0.2.2 dev up0 lladdr 02:00:00:00:00:03 nud stale");
    let agent = host.agent().config(Some(&config("192.0.2.0/24"))).start();
    agent.wait_log("spec.cidr4 192.0.2.0/24 meets 192.0.2.0/24");
    assert_eq!(host.attach_all(["a"])[0].1.ipv4(), "192.0.2.4".parse().ok());
}

// covers: FM-M03
#[test]
fn an_address_with_a_route_of_somebody_else_is_passed_over() {
    for route in [
        "ip route add 10.25.214.2/32 dev lo proto static",
        "ip route add blackhole 10.25.214.2/32",
        "ip route add unreachable 10.25.214.2/32 metric 7",
        "ip route add 10.25.214.2/32 dev lo table 99",
    ] {
        let host = Host::new();
        host.run(route);
        let _agent = host.agent().config(Some(&config("10.25.214.0/29"))).start();
        let before = host.run("ip route show table all 10.25.214.2");
        let got = host.attach_all(["a", "b"]);
        let got: Vec<String> = got.iter().flat_map(|(_, attached)| attached.ips()).map(|ip| ip.to_string()).collect();
        assert_eq!(got, ["10.25.214.3", "10.25.214.4"], "{route}");
        assert_eq!(host.run("ip route show table all 10.25.214.2"), before, "{route}");
    }
}

// covers: FM-M03
#[test]
fn an_address_to_which_somebody_makes_a_route_in_mid_add_is_his_and_the_pod_gets_another() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config(CIDR6, "10.25.214.0/29"))).start();
    let pod = host.pod("p");
    host.start_trace();
    host.arm("conn/wire 1 hang 60000");
    let attached = std::thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&pod).result());
        host.wait_point("conn/wire", 1);
        let ipv6 = host.leases()[0].ipv6.expect("IPv6");
        host.run("ip route add 10.25.214.2/32 dev lo proto static");
        host.run(&format!("ip -6 route add {ipv6}/128 dev lo proto static"));
        host.disarm();
        let attached = adding.join().expect("no panic");
        assert_ne!(attached.ipv6(), Some(ipv6.into()));
        attached
    });
    host.end_trace();
    assert_eq!(attached.ipv4(), "10.25.214.3".parse().ok());
    pod.assert_pings(host_addresses());
    agent.wait_log("address is somebody else's, the pod gets another one");
    host.assert_sound("with two addresses given up");
    host.del(&pod).done();
    host.assert_empty();
}

// covers: FM-M03
#[test]
fn an_address_whose_foreign_route_came_and_went_between_two_looks_is_free_again() {
    let host = Host::new();
    // What comes and goes is announced when it is over, so each look at the host shows what the one before it did. From the start
    // on, as what was announced before makes one more look.
    host.arm("host/netlink.change * hang 60000");
    let agent = host.agent().config(Some(&config("10.25.214.0/30"))).start();
    host.run("ip route add 10.25.214.2/32 dev lo proto static");
    let pod = host.pod("p");
    assert_eq!(host.add(&pod).error().msg, "no free address");
    agent.wait_log("address is somebody else's");
    host.run("ip route del 10.25.214.2");
    host.disarm();
    let attached = wait_for("the address to be free again", || {
        let outcome = host.add(&pod).run();
        outcome.output.status.success().then(|| outcome.succeeded())
    });
    assert!(attached.contains("10.25.214.2/32"), "{attached}");
}

// covers: FM-M04
#[test]
fn a_host_whose_own_gateway_is_that_of_pods_serves_no_ipv4_until_it_is_told_another() {
    for routes in [
        // As in a pod of Calico, of a cloud's CNI, or of flock itself.
        "ip route add 169.254.1.1 dev up0 scope link; ip route add default via 169.254.1.1 dev up0",
        "ip route add default via 169.254.1.1 dev up0 onlink",
        "ip nexthop add id 9 via 169.254.1.1 dev up0 onlink; ip route add default nhid 9",
    ] {
        let host = Host::new();
        let router = host.machine("up0", &["192.0.2.10/32"], &["169.254.1.1/32"]);
        router.run("ip route add 192.0.2.10 dev up0");
        succeed(host.command("sh").args(["-ec", routes]));
        let agent = host.agent().start();
        let pod = host.pod("p");
        let error = host.add(&pod).error();
        assert!(
            error.text().contains("169.254.1.1 is ") && error.text().contains("spec.gateway4"),
            "{routes}: {error:?}"
        );
        let status = host.cni("STATUS").error();
        assert!(status.code == 50 && status.details.contains("spec.gateway4"), "{routes}: {status:?}");
        assert_eq!(host.flock_links(), Vec::<String>::new());
        // The host still has its gateway.
        host.run("ip route replace 203.0.113.0/24 via 169.254.1.1 dev up0 onlink");
        host.run("ping -n -c 1 -W 5 169.254.1.1");

        agent.edit_config(&node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "gateway4": "169.254.1.2"})));
        wait_for("the node to be ready", || host.cni("STATUS").run().output.status.success().then_some(()));
        let attached = host.add(&pod).result();
        assert_eq!(attached.result["ips"][1]["gateway"], "169.254.1.2");
        pod.assert_pings(host_addresses());
        host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0").conf("prevResult", attached.result).done();
        pod.run("ip neigh flush all nud permanent");
        pod.assert_pings(host_addresses());
        host.run("ip route replace 203.0.113.0/24 via 169.254.1.1 dev up0 onlink");
        host.run("ping -n -c 1 -W 5 169.254.1.1");
    }
}

#[test]
fn living_pods_keep_the_gateway_that_they_have() {
    let host = Host::new();
    let agent = host.agent().start();
    let (p, p_got) = host.attach("p");
    agent.edit_config(&node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "gateway4": "169.254.7.7"})));
    agent.wait_log_times("NodeConfig in force", 2);
    agent.rounds(1);
    agent.kill();
    let agent = host.agent().keep_config().start();
    let (q, q_got) = host.attach("q");
    agent.rounds(1);
    assert!(!agent.log().contains("lacks"), "{}", agent.log());
    for (pod, gateway, other) in [(&p, "169.254.1.1", &q_got), (&q, "169.254.7.7", &p_got)] {
        assert!(pod.run("ip route show default").contains(gateway));
        pod.run("ip neigh flush all nud permanent");
        pod.assert_pings(host_addresses());
        pod.assert_pings(other.ips());
    }
}

// covers: FM-M04
#[test]
fn a_host_whose_gateway_is_fe80_1_keeps_it() {
    // As hosting companies have it: the same link-local address that every host end of a pod bears.
    let host = Host::new();
    let router = host.machine("up0", &["2001:db8:7::2/64"], &["fe80::1/64", "2001:db8:9::9/128"]);
    router.run("ip -6 route add 2001:db8:7::/64 dev up0");
    router.run(&format!("ip -6 route add {CIDR6} via 2001:db8:7::2 dev up0"));
    host.run("ip -6 addr add fe80::2/64 dev up0 nodad");
    host.run("ip -6 route add default via fe80::1 dev up0");
    let agent = host.agent().start();
    let pods = host.attach_all(["p", "q"]);
    let outside = "2001:db8:9::9".parse().expect("literal");
    host.run("ping -n -c 1 -W 5 2001:db8:9::9");
    host.run("ip -6 neigh flush dev up0");
    host.run("ping -n -c 1 -W 5 2001:db8:9::9");
    for (pod, _) in &pods {
        wait_for("the pod to reach the outside", || pod.pings(outside).then_some(()));
    }
    host.run("ip -6 route replace default via fe80::1 dev up0");
    agent.rounds(1);
    assert!(!agent.log().contains("level=error") && !agent.log().contains("gateway4"), "{}", agent.log());
}

// covers: FM-N01 FM-N02
#[test]
fn pods_get_the_smallest_mtu_of_the_links_that_packets_leave_by() {
    for (routes, mtu) in [
        ("ip route add default nexthop via 192.0.2.1 dev up0 nexthop via 198.51.100.1 dev up1", 1400),
        ("ip -6 route add default nexthop via 2001:db8:7::1 dev up0 nexthop via 2001:db8:8::1 dev up1", 1400),
        ("ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8:8::1", 1400),
        (
            "ip nexthop add id 1 via 192.0.2.1 dev up0; ip nexthop add id 2 via 198.51.100.1 dev up1; ip nexthop add id 3 group 1/2; ip route add default nhid 3",
            1400,
        ),
        (
            "sysctl -q net.ipv4.nexthop_compat_mode=0; ip nexthop add id 2 via 198.51.100.1 dev up1; ip route add default nhid 2",
            1400,
        ),
        ("ip route add default via 192.0.2.1; ip route add default via 198.51.100.1 metric 7", 1500),
        // A default route to the host itself says nothing of the way out.
        ("ip route add default dev lo; ip route add default via 198.51.100.1 metric 9", 1400),
        ("ip -6 route add default dev lo metric 1; ip route add default via 198.51.100.1", 1400),
        ("ip route add default dev lo", 1500),
        ("ip route add 0.0.0.0/1 via 198.51.100.1; ip route add default via 192.0.2.1", 1400),
    ] {
        let host = Host::new();
        let _routers = [
            host.machine("up0", &["192.0.2.10/24", "2001:db8:7::2/64"], &[]),
            host.machine("up1", &["198.51.100.10/24", "2001:db8:8::2/64"], &[]),
        ];
        host.run("ip link set up1 mtu 1400");
        succeed(host.command("sh").args(["-ec", routes]));
        let agent = host.agent().start();
        let (pod, _) = host.attach("p");
        let shown = pod.run("cat /sys/class/net/eth0/mtu");
        assert_eq!(shown, format!("{mtu}\n"), "{routes}: {}", agent.log());
    }
}

#[test]
fn an_uplink_that_forwards_nothing_is_said_and_left() {
    let host = Host::new();
    let _router = host.machine("up0", &["192.0.2.10/24"], &["192.0.2.1/24"]);
    host.run("ip route add default via 192.0.2.1");
    host.run("sysctl -q net.ipv4.ip_forward=1");
    host.run("sysctl -q net.ipv4.conf.up0.forwarding=0");
    let agent = host.agent().start();
    host.attach("p");
    let line = agent.wait_log("link up0 does not forward IPv4");
    assert!(line.contains("sysctl -w net/ipv4/conf/up0/forwarding=1"), "{line}");
    assert_eq!(host.run("cat /proc/sys/net/ipv4/conf/up0/forwarding"), "0\n");
}
