//! What the root of a pod sends or does, the host keeps its own network.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::Path;

use flock::kernel::netns::Netns;
use rustix::net::sockopt::{set_ipv6_multicast_hops, set_ipv6_unicast_hops};
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, bind, ipproto, sendto, socket};

use crate::support::host::{HOST4, HOST6, Host};
use crate::support::inside::Inside as _;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;

/// Sends one ICMPv6 message from `from` on the link of this index, with the hop limit that neighbour discovery asks for. The
/// kernel adds the checksum.
fn send_icmp6(netns: &Path, index: u32, from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) {
    let netns = Netns::open(netns).expect("a namespace");
    let sent = netns.run(|| -> rustix::io::Result<usize> {
        let icmp6: Protocol = ipproto::ICMPV6;
        let raw: OwnedFd = socket(AddressFamily::INET6, SocketType::RAW, Some(icmp6))?;
        set_ipv6_multicast_hops(&raw, 255)?;
        set_ipv6_unicast_hops(&raw, Some(255))?;
        bind(&raw, &SocketAddrV6::new(from, 0, 0, index))?;
        sendto(&raw, message, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, index))
    });
    assert_eq!(sent.expect("entered").expect("sent"), message.len());
}

/// A router advertisement with everything in it that a host may take from one: a default route, a prefix with an address to
/// make, a route, an MTU (RFC 4861, RFC 4191).
fn router_advertisement() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    // Prefix information: /64, on link and for addresses, lives for an hour.
    message.extend([3, 4, 64, 0xc0]);
    message.extend([3600u32.to_be_bytes(), 3600u32.to_be_bytes(), [0; 4]].concat());
    message.extend("2001:db8:bad::".parse::<Ipv6Addr>().expect("literal").octets());
    // Route information: 2001:db8:bad:1::/64, high preference.
    message.extend([24, 2, 64, 0x08]);
    message.extend(3600u32.to_be_bytes());
    message.extend("2001:db8:bad:1::".parse::<Ipv6Addr>().expect("literal").octets().iter().take(8));
    // MTU.
    message.extend([5, 1, 0, 0]);
    message.extend(1280u32.to_be_bytes());
    message
}

/// A redirect: `2001:db8:ffff::1` is better reached by the sender (RFC 4861, section 4.5).
fn redirect(target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend("2001:db8:ffff::1".parse::<Ipv6Addr>().expect("literal").octets());
    message
}

/// Everything that a packet could change, neighbours of the link left out: the sender is one.
fn network(host: &Host) -> String {
    let lines = [
        "ip -6 route show table all",
        "ip -4 route show table all",
        "ip -o addr",
        "grep -r . /proc/sys/net/ipv6/conf --include=mtu",
    ];
    // Lifetimes count down by themselves.
    lines.map(|line| host.run(line).replace("expires", "")).concat()
}

// covers: FM-F05 FM-L01
#[test]
fn no_advertisement_or_redirect_of_a_pod_gives_the_host_a_route_an_address_or_an_mtu() {
    for (cidr6, cidr4) in [("", CIDR4), (CIDR6, CIDR4), (CIDR6, "")] {
        // As distributions, images and other people have them.
        for defaults in [
            "",
            "net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.all.accept_ra=2",
            "net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.default.accept_ra_rt_info_max_plen=64 net.ipv6.conf.default.accept_ra_rtr_pref=1",
            "net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.default.autoconf=1",
            "net.ipv6.conf.default.forwarding=0 net.ipv6.conf.default.accept_redirects=1 net.ipv6.conf.default.accept_ra_from_local=1",
        ] {
            let host = Host::new();
            if !defaults.is_empty() {
                host.run(&format!("sysctl -q {defaults}"));
            }
            let agent = host.agent().config(Some(&node_config(cidr6, cidr4))).start();
            let (pod, attached) = host.attach("p");
            pod.run("ip -6 addr add fe80::bad/64 dev eth0 nodad");
            // A link of somebody else, on which the host listens to routers: the same message must have its effect there.
            host.pod("c");
            let script = "ip link add control type veth peer name eth0 netns c; ip link set control addrgenmode none; \
                 sysctl -q net.ipv6.conf.control.accept_ra=2 net.ipv6.conf.control.disable_ipv6=0; ip link set control up; \
                 ip -n c link set eth0 addrgenmode none; ip -n c link set eth0 up; ip -n c -6 addr add fe80::bad/64 dev eth0 nodad";
            succeed(host.command("sh").args(["-ec", script]));
            wait_for("the link", || host.run("ip link show control").contains("state UP").then_some(()));
            let index = |pod: &str| -> u32 {
                let shown = host.run(&format!("ip -n {pod} -o link show eth0"));
                shown.split(':').next().expect("an index").parse().expect("a number")
            };
            let netns = |pod: &str| host.path(&format!("/run/netns/{pod}"));
            let bad: Ipv6Addr = "fe80::bad".parse().expect("literal");
            let all_nodes: Ipv6Addr = "ff02::1".parse().expect("literal");

            let before = network(&host);
            for message in [router_advertisement(), redirect(bad)] {
                send_icmp6(&netns("p"), index("p"), bad, all_nodes, &message);
            }
            // What comes behind them on the same link has been answered, so they have been dealt with.
            let reached = attached.ips().into_iter().map(|ip| if ip.is_ipv6() { HOST6 } else { HOST4 });
            pod.assert_pings(reached.map(|ip| ip.parse().expect("literal")));
            assert_eq!(network(&host), before, "{cidr6} {cidr4} {defaults}");
            agent.rounds(1);
            assert_eq!(network(&host), before, "{cidr6} {cidr4} {defaults}: after a round");

            send_icmp6(&netns("c"), index("c"), bad, all_nodes, &router_advertisement());
            wait_for("the control to be heard", || {
                host.run("ip -6 route show").contains("via fe80::bad dev control").then_some(())
            });
        }
    }
}

// covers: FM-L02 FM-B09
#[test]
fn no_default_of_the_host_keeps_pods_from_talking() {
    for defaults in [
        "net.ipv4.conf.default.forwarding=0",
        "net.ipv6.conf.default.forwarding=0",
        "net.ipv4.conf.default.forwarding=0 net.ipv6.conf.default.forwarding=0 net.ipv6.conf.default.disable_ipv6=1",
        "net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.all.rp_filter=1",
        "net.ipv4.conf.default.rp_filter=2 net.ipv4.conf.default.arp_filter=1 net.ipv4.conf.default.arp_announce=2",
        "net.ipv4.conf.default.arp_ignore=8",
        "net.ipv4.conf.default.arp_ignore=3 net.ipv4.conf.default.log_martians=1 net.ipv4.conf.default.proxy_arp=1",
        "net.ipv6.conf.default.accept_dad=2 net.ipv6.conf.default.dad_transmits=3 net.ipv6.conf.default.optimistic_dad=1",
        "net.ipv6.conf.default.proxy_ndp=1 net.ipv6.conf.default.addr_gen_mode=3",
        "net.ipv4.conf.default.accept_local=1 net.ipv4.conf.default.route_localnet=1 net.ipv4.conf.default.accept_source_route=1",
    ] {
        let host = Host::new();
        // Forwarding as a whole is on, and stays so: only what links inherit is odd.
        host.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        host.run(&format!("sysctl -q {defaults}"));
        let agent = host.agent().start();
        let pods = host.attach_all(["p", "q"]);
        for (n, (pod, attached)) in pods.iter().enumerate() {
            pod.assert_pings(pods[1 - n].1.ips());
            // Something in the pod forgets its neighbours and asks for the gateway by itself.
            pod.run("ip neigh flush all nud permanent");
            pod.assert_pings(pods[1 - n].1.ips());
            for key in [
                "ipv4/conf/L/route_localnet",
                "ipv4/conf/L/accept_local",
                "ipv4/conf/L/proxy_arp",
                "ipv6/conf/L/proxy_ndp",
            ] {
                let file = format!("cat /proc/sys/net/{}", key.replace('L', &attached.host_link()));
                assert_eq!(host.run(&file), "0\n", "{defaults}: {key}");
            }
        }
        assert!(!agent.log().contains("lacks"), "{defaults}: {}", agent.log());
    }
}

// covers: FM-L03
#[test]
fn a_host_that_answers_no_arp_for_the_pods_gateway_says_so() {
    for (value, said) in [(0, false), (1, false), (2, true), (3, true), (8, true)] {
        let host = Host::new();
        host.run(&format!("sysctl -q net.ipv4.conf.all.arp_ignore={value}"));
        let agent = host.agent().start();
        let pods = host.attach_all(["p", "q"]);
        let (pod, _) = &pods[0];
        pod.assert_pings(pods[1].1.ips());
        agent.rounds(1);
        let line = "net.ipv4.conf.all.arp_ignore is";
        assert_eq!(agent.log().contains(line), said, "{value}: {}", agent.log());
        pod.run("ip neigh del 169.254.1.1 dev eth0");
        let heals = pod.pings(pods[1].1.ipv4().expect("IPv4"));
        assert_eq!(heals, !said, "{value}: what is said is true");
    }
}

// covers: FM-Q01
#[test]
fn a_pod_that_takes_its_interface_down_or_away_while_add_waits_fails_at_once() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    // An ADD waits for the link to send, and then for each address to be taken in.
    for point in ["conn/link.operational", "conn/link.local"] {
        for (time, harm) in
            [(60_001, "ip link set eth0 down"), (60_002, "ip link del eth0"), (60_003, "ip addr flush dev eth0")]
        {
            host.start_trace();
            host.arm(&format!("{point} 1 hang {time}"));
            let adding = host.add(&pod);
            let outcome = std::thread::scope(|scope| {
                let adding = scope.spawn(|| adding.run());
                host.wait_point(point, 1);
                pod.script(harm);
                host.disarm();
                adding.join().expect("no panic")
            });
            host.end_trace();
            // An address that goes in the last moment, when everything was seen to be there, is the pod's own affair.
            if outcome.output.status.success() {
                assert!(harm.contains("addr"), "{harm}: {}", outcome.stdout());
            } else {
                let error = outcome.failed();
                assert!(outcome.elapsed.as_secs() < 15, "{harm}: {:?} {error:?}", outcome.elapsed);
                assert!(!error.text().contains("time limit"), "{harm}: {error:?}");
                // Which end is waited for is said by its own name.
                assert!(!error.text().contains("until link eth0"), "{harm}: {error:?}");
            }
            host.del(&pod).done();
            host.assert_empty();
            pod.vanish();
            host.pod("p");
        }
    }
}
