//! Each netlink verb on the real kernel: fresh, again, something in the way, the thing gone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use flock::kernel::netlink::NetlinkError;
use flock::kernel::netlink::conn::Conn;
use flock::kernel::netlink::link::Pair;
use flock::kernel::netlink::removal::LinkRemover;
use flock::kernel::netns::{Netns, NetnsError, Visitors};
use ipnet::IpNet;
use model::addr::{Attachment, GATEWAY4, GATEWAY6, LinkEnd};
use model::lease::{Lease, Phase};
use model::plan::{self, Change, Wiring};
use model::proxy::{Proxy, Shown};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use serde_json::Value;

use crate::support::host::{HOST4, HOST6, Host};
use crate::support::inside::Inside as _;
use crate::support::pod::Pod;
use crate::support::programs::succeed;
use crate::support::waiting::{PATIENCE, wait_for};

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// The lease number `n` of container `id`.
pub(crate) fn lease(id: &str, n: u16) -> Lease {
    let attachment: Attachment = format!("{id}/eth0").parse().expect("a key");
    Lease {
        phase: Phase::Committed,
        network: "flock".into(),
        netns: String::new(),
        host_link: attachment.host_link(0),
        host_mac: attachment.mac(LinkEnd::Host),
        pod_mac: Some(attachment.mac(LinkEnd::Pod)),
        mtu: 1500,
        ipv6: Some(format!("2001:db8:1:f001::{n:x}").parse().expect("an address")),
        ipv4: Some(format!("10.25.{}.{}", n >> 8, n & 255).parse().expect("an address")),
        extra: Vec::new(),
        anycast: Vec::new(),
        any_source: false,
        audit: false,
        gateway4: GATEWAY4,
        host_index: None,
        pod: None,
        since: 0,
        call: None,
        attachment,
    }
}

fn wiring(id: &str, n: u16) -> Wiring {
    plan::wiring(&lease(id, n))
}

/// The namespace of a host, or of one of its pods.
fn netns(path: &Path) -> Netns {
    Netns::open(path).expect("a namespace")
}

fn conn(path: &Path) -> Conn {
    netns(path).run(|| Conn::open(deadline())).expect("entered").expect("a socket")
}

fn pod_path(pod: &Pod<'_>) -> std::path::PathBuf {
    pod.host.path(&pod.path())
}

fn create(host: &mut Conn, wiring: &Wiring, pod: &Pod<'_>) -> Result<Pair, NetlinkError> {
    host.create_pair(wiring, netns(&pod_path(pod)).fd())
}

/// Makes both ends as ADD does.
fn wire(host: &mut Conn, wiring: &Wiring, pod: &Pod<'_>) -> Pair {
    let pair = create(host, wiring, pod).expect("made");
    host.apply(pair.host, wiring.host_link.as_str(), &wiring.host).expect("host end");
    conn(&pod_path(pod)).apply(pair.pod, wiring.ifname.as_str(), &wiring.pod).expect("pod end");
    pair
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON of ip")
}

#[test]
fn only_the_kernel_answers_in_a_namespace_where_somebody_else_may_send() {
    let host = Host::new();
    let refused = netns(&host.netns()).run(|| {
        // The socket that asks, found as a pod's root would find it, and one of his own that sends to it.
        let listed = || std::fs::read_to_string("/proc/thread-self/net/netlink").expect("listed");
        let before = listed();
        let _asking = Conn::open(deadline()).expect("a socket");
        let now = listed();
        let new = now.lines().find(|line| !before.contains(*line)).expect("a new socket");
        let port = new.split_whitespace().nth(2).and_then(|port| port.parse().ok()).expect("a port");
        let [mut forger, mut careless] = [(); 2].map(|()| Socket::new(NETLINK_ROUTE).expect("a socket"));
        forger.bind_auto().expect("bound");
        let theirs = careless.bind_auto().expect("bound");
        forger.send_to(&[0; 16], &theirs, 0).expect("he may send to sockets that do not mind");
        forger.send_to(&[0; 16], &SocketAddr::new(port, 0), 0).expect_err("refused")
    });
    assert_eq!(refused.expect("entered").raw_os_error(), Some(Errno::CONNREFUSED.raw_os_error()));
}

// covers: FM-B02 FM-B06
#[test]
fn a_pair_is_born_in_place_with_the_given_names_macs_mtu_and_one_queue() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut conn = conn(&host.netns());
    let mut wiring = wiring("abc", 5);
    wiring.mtu = 1437;
    let pair = create(&mut conn, &wiring, &pod).expect("made");

    let ends = [
        (json(&host.run(&format!("ip -d -j link show {}", wiring.host_link))), pair.host, wiring.host_mac),
        (json(&pod.run("ip -d -j link show eth0")), pair.pod, wiring.pod_mac),
    ];
    for (shown, index, mac) in ends {
        let shown = &shown[0];
        assert_eq!(shown["ifindex"], index);
        assert_eq!(shown["address"], mac.to_string());
        assert_eq!(shown["mtu"], 1437);
        assert_eq!((&shown["num_tx_queues"], &shown["num_rx_queues"]), (&1.into(), &1.into()));
        assert_eq!(shown["linkinfo"]["info_kind"], "veth");
    }
    // "Set by the user", so that no daemon of the host gives them others.
    assert_eq!(host.run(&format!("cat /sys/class/net/{}/addr_assign_type", wiring.host_link)), "3\n");

    let seen = conn.link_named(wiring.host_link.as_str()).expect("asked").expect("found");
    assert_eq!(conn.link_at(pair.host).expect("asked"), Some(seen.clone()));
    assert_eq!((seen.mac, seen.mtu, seen.peer), (Some(wiring.host_mac), 1437, Some(pair.pod)));
    assert!(seen.veth && !seen.up && !seen.carrier && seen.alias.is_none(), "{seen:?}");
}

// covers: FM-B01
#[test]
fn both_ends_get_what_the_plan_says_and_saying_it_again_changes_nothing() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut host_conn = conn(&host.netns());
    let mut pod_conn = conn(&pod_path(&pod));
    let wiring = wiring("abc", 5);
    let pair = wire(&mut host_conn, &wiring, &pod);

    let seen = host_conn.link_at(pair.host).expect("asked").expect("found");
    assert!(seen.up && seen.carrier, "{seen:?}");
    assert_eq!(seen.alias.as_deref(), Some("flock:abc/eth0"));

    let ips = |conn: &mut Conn, index| {
        let all = conn.addresses(Some(index)).expect("asked");
        assert!(all.iter().all(|a| !a.tentative && a.link == index), "{all:?}");
        all.into_iter().map(|a| (a.ip, a.prefix_len)).collect::<BTreeSet<_>>()
    };
    let expected = BTreeSet::from([(GATEWAY6.into(), 128), (GATEWAY4.into(), 32)]);
    assert_eq!(ips(&mut host_conn, pair.host), expected);
    let expected = BTreeSet::from([
        (wiring.pod_mac.link_local().into(), 64),
        (ip("2001:db8:1:f001::5"), 128),
        (ip("10.25.0.5"), 32),
    ]);
    assert_eq!(ips(&mut pod_conn, pair.pod), expected);

    let routes = |conn: &mut Conn| {
        let all = conn.own_routes().expect("asked");
        all.into_iter().map(|r| (r.to.to_string(), r.link, r.via)).collect::<BTreeSet<_>>()
    };
    let through = |index, to: &str, via| (to.to_owned(), Some(index), via);
    let expected =
        BTreeSet::from([through(pair.host, "2001:db8:1:f001::5/128", None), through(pair.host, "10.25.0.5/32", None)]);
    assert_eq!(routes(&mut host_conn), expected);
    let expected = BTreeSet::from([
        through(pair.pod, "::/0", Some(GATEWAY6.into())),
        through(pair.pod, "0.0.0.0/0", Some(GATEWAY4.into())),
    ]);
    assert_eq!(routes(&mut pod_conn), expected);

    for (shown, who, mac) in [
        (host.run("ip -j neigh show nud permanent"), ["10.25.0.5", "2001:db8:1:f001::5"], wiring.pod_mac),
        (pod.run("ip -j neigh show nud permanent"), ["169.254.1.1", "fe80::1"], wiring.host_mac),
    ] {
        let shown = json(&shown);
        let found: BTreeSet<&str> =
            shown.as_array().expect("a list").iter().filter_map(|n| n["dst"].as_str()).collect();
        assert_eq!(found, BTreeSet::from(who));
        assert!(shown.as_array().expect("a list").iter().all(|n| n["lladdr"] == mac.to_string()), "{shown}");
    }

    let everything = || {
        ["ip -d addr", "ip -4 route show table all", "ip -6 route show table all", "ip neigh show nud permanent"]
            .map(|line| host.run(line) + &pod.run(line))
    };
    // The kernel tells the state of a new link a little later than it works.
    wait_for("both ends in state UP", || {
        let up = |text: String| text.contains("state UP").then_some(());
        up(host.run(&format!("ip link show {}", wiring.host_link))).and(up(pod.run("ip link show eth0")))
    });
    let before = everything();
    for _ in 0..3 {
        host_conn.apply(pair.host, "host end", &wiring.host).expect("again");
        pod_conn.apply(pair.pod, "pod end", &wiring.pod).expect("again");
    }
    assert_eq!(everything(), before);
}

#[test]
fn an_interface_that_the_pod_has_already_is_in_the_way_and_stays() {
    let host = Host::new();
    let pod = host.pod("p");
    pod.run("ip link add eth0 type veth peer name other");
    let before = pod.run("ip -d link");
    let mut conn = conn(&host.netns());
    let wiring = wiring("abc", 5);
    let error = create(&mut conn, &wiring, &pod).expect_err("eth0 is taken");
    assert!(error.is_exists(), "{error}");
    assert!(error.to_string().starts_with(&format!("create link {} with peer eth0: ", wiring.host_link)), "{error}");
    assert_eq!(conn.link_named(wiring.host_link.as_str()).expect("asked"), None, "half a pair was left");
    assert_eq!(pod.run("ip -d link"), before);
}

// covers: FM-B01
#[test]
fn a_foreign_host_link_of_the_same_name_is_in_the_way_and_stays() {
    let host = Host::new();
    let pod = host.pod("p");
    let wiring = wiring("abc", 5);
    host.run(&format!("ip link add {} type veth peer name other", wiring.host_link));
    let before = (host.run("ip -d link"), pod.run("ip -d link"));
    let error = create(&mut conn(&host.netns()), &wiring, &pod).expect_err("the name is taken");
    assert!(error.is_exists(), "{error}");
    assert_eq!((host.run("ip -d link"), pod.run("ip -d link")), before);
}

#[test]
fn a_foreign_route_for_a_pods_address_is_an_error_and_is_not_replaced() {
    for route in ["10.25.0.5/32", "2001:db8:1:f001::5/128"] {
        let host = Host::new();
        let pod = host.pod("p");
        let family = if route.contains(':') { "-6" } else { "-4" };
        host.run("ip link add foreign type veth peer name other");
        host.run("ip link set foreign up");
        host.run("ip link set other up");
        host.run(&format!("ip {family} route add {route} dev foreign proto static"));
        let before = host.run(&format!("ip {family} route show {route}"));
        let mut conn = conn(&host.netns());
        let wiring = wiring("abc", 5);
        let pair = create(&mut conn, &wiring, &pod).expect("made");
        let error = conn.apply(pair.host, wiring.host_link.as_str(), &wiring.host).expect_err("a route is in the way");
        assert!(error.error.is_exists(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("add route ") && text.contains(route) && text.contains(wiring.host_link.as_str()),
            "{text}"
        );
        assert_eq!(host.run(&format!("ip {family} route show {route}")), before);
        conn.delete_link(pair.host).expect("removed");
        assert_eq!(host.run(&format!("ip {family} route show {route}")), before);
    }
}

#[test]
fn two_links_never_share_one_address() {
    let host = Host::new();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let mut conn = conn(&host.netns());
    wire(&mut conn, &wiring("abc", 5), &a);
    let other = wiring("def", 5);
    let pair = create(&mut conn, &other, &b).expect("made");
    let error = conn.apply(pair.host, other.host_link.as_str(), &other.host).expect_err("the route is the first one's");
    assert!(error.error.is_exists(), "{error}");
}

#[test]
fn the_kernels_own_words_are_part_of_an_error() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut conn = conn(&host.netns());
    let wiring = wiring("abc", 5);
    let pair = create(&mut conn, &wiring, &pod).expect("made");
    conn.apply(pair.host, "x", &wiring.host).expect("host end");
    // A gateway that is an address of this very host.
    for (to, via) in [("2001:db8:9::/64", HOST6), ("10.99.0.0/16", HOST4)] {
        let route = Change::Route { to: net(to), via: Some(ip(via)), metric: None };
        let error = conn.apply(pair.host, "x", &[route]).expect_err("refused").to_string();
        assert!(error.starts_with(&format!("add route {to} on link x: ")), "{error}");
        assert!(error.to_lowercase().contains("gateway"), "{error}");
    }
}

#[test]
fn an_error_in_the_middle_is_reported_and_the_others_are_tried_all_the_same() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut conn = conn(&host.netns());
    let wiring = wiring("abc", 5);
    let pair = create(&mut conn, &wiring, &pod).expect("made");
    // The link is down, so the route cannot be made yet.
    let changes = [
        Change::Route { to: net("10.25.0.5/32"), via: None, metric: None },
        Change::Alias("behind it".into()),
        Change::Up,
    ];
    let error = conn.apply(pair.host, "x", &changes).expect_err("link is down").to_string();
    assert!(error.contains("add route 10.25.0.5/32 on link x: Network is down"), "{error}");
    let link = conn.link_at(pair.host).expect("asked").expect("found");
    assert_eq!((link.alias.as_deref(), link.up), (Some("behind it"), true));
    // Answers are told apart: the same connection goes on with right answers.
    assert_eq!(conn.link_named("lo").expect("asked").map(|lo| lo.index), Some(1));
}

// covers: FM-A16
#[test]
fn what_is_gone_is_no_error_to_delete_and_is_not_found() {
    let host = Host::new();
    let pod = host.pod("p");
    let ns = netns(&host.netns());
    let mut conn = conn(&host.netns());
    let wiring = wiring("abc", 5);
    let pair = wire(&mut conn, &wiring, &pod);
    for _ in 0..2 {
        conn.delete_link(pair.host).expect("gone or going");
        assert_eq!(conn.link_at(pair.host).expect("asked"), None);
    }
    assert_eq!(conn.link_named(wiring.host_link.as_str()).expect("asked"), None);
    assert_eq!(conn.addresses(Some(pair.host)).expect("asked"), []);
    let error = conn.apply(pair.host, "x", &wiring.host).expect_err("there is no such link");
    assert!(error.error.is_gone(), "{error}");
    ns.run(|| LinkRemover::start().expect("starts").remove(pair.host, deadline()))
        .expect("entered")
        .expect("gone already");
    for prefix in ["10.25.214.0/24", "2001:db8:1:f001::/64"] {
        conn.delete_unreachable(net(prefix)).expect("there is none");
    }
}

#[test]
fn a_removal_returns_when_the_link_its_peer_and_its_routes_have_left() {
    let host = Host::new();
    let pod = host.pod("p");
    let ns = netns(&host.netns());
    let mut host_conn = conn(&host.netns());
    let mut pod_conn = conn(&pod_path(&pod));
    let remover = ns.run(|| LinkRemover::start().expect("starts")).expect("entered");
    for round in 0..20 {
        let wiring = wiring("abc", 5);
        let pair = wire(&mut host_conn, &wiring, &pod);
        ns.run(|| remover.remove(pair.host, deadline())).expect("entered").expect("removed");
        assert_eq!(host_conn.link_at(pair.host).expect("asked"), None, "round {round}");
        assert_eq!(pod_conn.link_named("eth0").expect("asked"), None, "round {round}");
        assert_eq!(host_conn.own_routes().expect("asked"), [], "round {round}");
    }
}

#[test]
fn an_index_that_comes_back_is_removed_again() {
    let host = Host::new();
    let ns = netns(&host.netns());
    let remover = ns.run(|| LinkRemover::start().expect("starts")).expect("entered");
    for round in 0..20 {
        host.run("ip link add again index 4711 type veth peer name other");
        ns.run(|| {
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| remover.remove(4711, deadline()).expect("removed"));
                }
            });
        })
        .expect("entered");
        // An announcement that was read late could belong to the one before; the removal goes on all the same.
        wait_for("the link to leave", || host.run("ip link").lines().all(|l| !l.contains("again")).then_some(()));
        assert!(!host.run("ip link").contains("other"), "round {round}");
    }
}

// covers: FM-B22
#[test]
fn sixty_four_removals_at_once_all_return_and_nothing_is_left() {
    let host = Host::new();
    let pod = host.pod("p");
    let ns = netns(&host.netns());
    let mut host_conn = conn(&host.netns());
    let pairs: Vec<Pair> = (1..=64)
        .map(|n| {
            let mut wiring = wiring(&format!("c{n}"), n);
            wiring.ifname = format!("net{n}").parse().expect("a name");
            let pair = create(&mut host_conn, &wiring, &pod).expect("made");
            host_conn.apply(pair.host, "x", &wiring.host).expect("host end");
            pair
        })
        .collect();
    assert_eq!(host.flock_links().len(), 64);
    ns.run(|| {
        let remover = LinkRemover::start().expect("starts");
        thread::scope(|scope| {
            // Each twice: two callers may want the same link gone.
            for pair in pairs.iter().chain(&pairs) {
                let remover = &remover;
                scope.spawn(move || remover.remove(pair.host, deadline()).expect("removed"));
            }
        });
    })
    .expect("entered");
    assert_eq!(host.flock_links(), Vec::<String>::new());
    assert_eq!(host_conn.own_routes().expect("asked"), []);
}

// covers: FM-B04
#[test]
fn a_list_of_three_hundred_links_is_whole_even_while_others_come_and_go() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut host_conn = conn(&host.netns());
    let mut expected = BTreeSet::new();
    for n in 1..=300u16 {
        let mut wiring = wiring(&format!("c{n}"), n);
        wiring.ifname = format!("net{n}").parse().expect("a name");
        let pair = create(&mut host_conn, &wiring, &pod).expect("made");
        host_conn.apply(pair.host, "x", &wiring.host).expect("host end");
        expected.insert((pair.host, wiring.host_link.to_string(), format!("flock:c{n}/eth0")));
    }
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                host.run("ip link add noise type veth peer name other");
                host.run("ip link del noise");
            }
        });
        let done = (0..20).try_for_each(|_| {
            let links = host_conn.links()?;
            let found: BTreeSet<_> =
                links.into_iter().filter_map(|link| Some((link.index, link.name, link.alias?))).collect();
            assert_eq!(found, expected);
            let routes = host_conn.own_routes()?;
            assert_eq!(routes.len(), 600);
            assert_eq!(host_conn.addresses(None)?.iter().filter(|a| a.ip == IpAddr::from(GATEWAY4)).count(), 300);
            Ok::<(), NetlinkError>(())
        });
        over.store(true, Ordering::Relaxed);
        done.expect("all lists");
    });
}

#[test]
fn the_route_to_an_address_is_the_one_that_a_packet_takes() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut conn = conn(&host.netns());
    for nowhere in ["2001:db8:1:f001::5", "10.25.0.5"] {
        assert_eq!(conn.route_for(ip(nowhere)).expect("asked"), None, "{nowhere}");
    }
    for prefix in ["2001:db8:1:f001::/64", "10.25.0.0/24"] {
        conn.add_unreachable(net(prefix)).expect("added");
    }
    for nowhere in ["2001:db8:1:f001::5", "10.25.0.5"] {
        let found = conn.route_for(ip(nowhere)).expect("asked");
        assert!(found.as_ref().is_none_or(|route| route.unreachable), "{nowhere}: {found:?}");
    }
    let pair = wire(&mut conn, &wiring("abc", 5), &pod);
    for (pods, single) in [("2001:db8:1:f001::5", "2001:db8:1:f001::5/128"), ("10.25.0.5", "10.25.0.5/32")] {
        let found = conn.route_for(ip(pods)).expect("asked").expect("a route");
        assert_eq!((found.to, found.link, found.via), (net(single), Some(pair.host), None));
        assert_eq!(found.protocol, plan::ROUTE_PROTOCOL);
    }
    host.run("ip link add up0 type veth peer name up1");
    for line in ["ip link set up0 up", "ip link set up1 up", "ip addr add 192.0.2.1/24 dev up0"] {
        host.run(line);
    }
    host.run("ip route add default via 192.0.2.254");
    let up0 = conn.link_named("up0").expect("asked").expect("found").index;
    let found = conn.route_for(ip("1.0.0.1")).expect("asked").expect("a route");
    assert_eq!((found.to, found.link, found.via), (net("0.0.0.0/0"), Some(up0), Some(ip("192.0.2.254"))));
}

#[test]
fn an_unreachable_route_can_be_made_and_taken_away_repeatedly() {
    let host = Host::new();
    let mut conn = conn(&host.netns());
    for prefix in ["2001:db8:1:f001::/64", "10.25.0.0/24"] {
        for _ in 0..2 {
            conn.add_unreachable(net(prefix)).expect("added, or there already");
            let own = conn.own_routes().expect("asked");
            assert_eq!(own.len(), 1, "{own:?}");
            assert!(own[0].unreachable && own[0].to == net(prefix) && own[0].metric == u32::MAX, "{own:?}");
        }
        for _ in 0..2 {
            conn.delete_unreachable(net(prefix)).expect("removed, or gone already");
            assert_eq!(conn.own_routes().expect("asked"), []);
        }
    }
}

// covers: FM-B13
#[test]
fn somebody_elses_unreachable_route_is_good_enough_and_never_removed() {
    let host = Host::new();
    let mut conn = conn(&host.netns());
    for (family, prefix) in [("-6", "2001:db8:1:f001::/64"), ("-4", "10.25.0.0/24")] {
        host.run(&format!("ip {family} route add unreachable {prefix} proto static metric 4294967295"));
        let before = host.run(&format!("ip {family} route"));
        conn.add_unreachable(net(prefix)).expect("an equal one stands");
        assert_eq!(host.run(&format!("ip {family} route")), before);
        conn.delete_unreachable(net(prefix)).expect("not ours, nothing to do");
        assert_eq!(host.run(&format!("ip {family} route")), before);
    }
}

// covers: FM-B27
#[test]
fn a_verb_whose_time_is_over_says_so_instead_of_waiting() {
    let host = Host::new();
    let mut late = netns(&host.netns()).run(|| Conn::open(Instant::now())).expect("entered").expect("a socket");
    let error = late.link_named("lo").expect_err("late").to_string();
    assert_eq!(error, "look up link lo: the kernel did not answer in time");
}

// covers: FM-B20
#[test]
fn only_another_network_namespace_can_be_opened_as_a_pods() {
    let host = Host::new();
    let open = |path: &Path| Netns::open(path).expect_err("refused");
    assert!(matches!(open(Path::new("/proc/self/ns/net")), NetnsError::Own(_)));
    assert!(matches!(open(Path::new("/proc/self/status")), NetnsError::NotANamespace(_)));
    assert!(matches!(open(&host.path("/run/netns/none")), NetnsError::Open { .. }));
    host.run("mkfifo /run/fifo");
    assert!(matches!(open(&host.path("/run/fifo")), NetnsError::NotANamespace(_)), "and it did not block");
    // A namespace of another kind opens, and lets nobody in.
    let other = netns(Path::new("/proc/self/ns/uts"));
    let visitors = Visitors::new().expect("a descriptor");
    let visit = visitors.visit(&other, || panic!("must not run")).expect("begun");
    assert!(matches!(visit.wait(), Err(NetnsError::NotANamespace(_))));
}

#[test]
fn a_wait_for_a_link_that_sends_and_an_address_that_is_taken_in_ends() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut host_conn = conn(&host.netns());
    let mut pod_conn = conn(&pod_path(&pod));
    let wiring = wiring("abc", 5);
    let pair = wire(&mut host_conn, &wiring, &pod);
    host_conn.wait_until_operational(pair.host, "x").expect("both ends are up");
    for own in ["2001:db8:1:f001::5", "10.25.0.5"] {
        pod_conn.wait_until_local(pair.pod, ip(own)).expect("it has the address");
    }
    let seen = host_conn.link_at(pair.host).expect("asked").expect("found");
    assert!(seen.operational && seen.carrier, "{seen:?}");

    // Nothing is waited for that would not come however long one waits.
    let error = pod_conn.wait_until_local(pair.pod, ip("2001:db8:1:f001::6")).expect_err("somebody else's address");
    assert_eq!(
        error.to_string(),
        "wait until 2001:db8:1:f001::6 is taken in: the address was taken down or changed by somebody else meanwhile"
    );
    pod.run("ip link set eth0 down");
    let error =
        pod_conn.wait_until_local(pair.pod, ip("2001:db8:1:f001::5")).expect_err("the link is down").to_string();
    assert!(error.contains("the pod's interface was taken down"), "{error}");
    let error = host_conn.wait_until_operational(pair.host, "x").expect_err("the other end is down").to_string();
    assert!(error.starts_with("wait until link x sends: its other end, in the pod, was taken down"), "{error}");
    host.run(&format!("ip link set {} down", wiring.host_link));
    let error = host_conn.wait_until_operational(pair.host, "x").expect_err("it is down").to_string();
    assert!(error.starts_with("wait until link x sends: it was taken down"), "{error}");
    host_conn.delete_link(pair.host).expect("removed");
    let error = host_conn.wait_until_operational(pair.host, "x").expect_err("the link is gone");
    assert!(error.is_gone(), "{error}");
}

// covers: FM-K03
#[test]
fn the_links_of_pods_are_found_among_hundreds_of_others_without_reading_those() {
    let host = Host::new();
    let pod = host.pod("p");
    let mut conn = conn(&host.netns());
    assert_eq!(conn.pairs().expect("asked"), [], "none but lo");
    // Not thousands: their end would hold up every other namespace of this machine for seconds.
    let script = "for n in $(seq 300); do echo link add b$n type bridge; done | ip -batch -";
    succeed(host.command("sh").args(["-ec", script]));
    assert_eq!(conn.pairs().expect("asked"), [], "bridges only");
    host.run("ip link add foreign type veth peer name other");
    let wiring = wiring("abc", 5);
    let pair = wire(&mut conn, &wiring, &pod);
    // Nothing of it changes any more between two lists.
    conn.wait_until_operational(pair.host, wiring.host_link.as_str()).expect("both ends are up");
    let names = |links: Vec<flock::kernel::netlink::link::Link>| {
        links.into_iter().map(|link| link.name).collect::<BTreeSet<_>>()
    };
    let expected = ["foreign", "other", wiring.host_link.as_str()].map(str::to_owned);
    assert_eq!(names(conn.pairs().expect("asked")), BTreeSet::from(expected));
    let all = conn.links().expect("asked");
    assert_eq!(all.len(), 304);
    let (mut pairs, mut of_all) = (conn.pairs().expect("asked"), all);
    of_all.retain(|link| link.veth);
    pairs.sort_by_key(|link| link.index);
    of_all.sort_by_key(|link| link.index);
    assert_eq!(pairs, of_all);
}

/// What `ip` shows of the proxy entries on the link `up0`, address and protocol.
fn proxies_on_up0(host: &Host) -> BTreeSet<(String, Option<String>)> {
    let entries = ["-4", "-6"].map(|family| host.run(&format!("ip {family} neigh show proxy dev up0")));
    let lines = entries.iter().flat_map(|text| text.lines());
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let protocol = words.iter().position(|word| *word == "proto").map(|at| words[at + 1].to_owned());
            (words[0].to_owned(), protocol)
        })
        .collect()
}

#[test]
fn a_neighbour_proxy_bears_flocks_mark_and_somebody_elses_is_enough_and_stays() {
    let host = Host::new();
    host.run("ip link add up0 type veth peer name up1");
    host.run("ip link set up0 up");
    let index: u32 = json(&host.run("ip -j link show up0"))[0]["ifindex"].as_u64().expect("a number") as u32;
    let on = |text: &str| Proxy { link: index, ip: ip(text) };
    let mut conn = conn(&host.netns());
    for (ours, foreign) in [("10.25.0.7", "10.25.0.8"), ("2001:db8::7", "2001:db8::8")] {
        let mark = |text: &str, protocol: Option<&str>| (text.to_owned(), protocol.map(str::to_owned));
        host.run(&format!("ip neigh add proxy {foreign} dev up0"));
        let before = proxies_on_up0(&host);
        assert!(before.contains(&mark(foreign, None)), "{before:?}");
        conn.remove_proxy(on(ours)).expect("absent is success");
        for _ in 0..2 {
            conn.add_proxy(on(ours)).expect("made");
            conn.add_proxy(on(foreign)).expect("there");
        }
        let both = proxies_on_up0(&host);
        assert!(both.contains(&mark(ours, Some("102"))) && both.contains(&mark(foreign, None)), "{both:?}");
        let shown = conn.proxies().expect("listed");
        assert!(shown.contains(&Shown { proxy: on(ours), ours: true }), "{shown:?}");
        assert!(shown.contains(&Shown { proxy: on(foreign), ours: false }), "{shown:?}");
        for _ in 0..2 {
            conn.remove_proxy(on(ours)).expect("removed");
            conn.remove_proxy(on(foreign)).expect("left");
        }
        assert_eq!(proxies_on_up0(&host), before);
    }
    let gone = Proxy { link: 4_000_000, ip: ip("10.25.0.7") };
    assert!(conn.add_proxy(gone).expect_err("no such link").is_no_device());
    conn.remove_proxy(gone).expect("what is on no link is gone");
}
