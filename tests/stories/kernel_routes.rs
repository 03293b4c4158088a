//! Announcements, routes to other nodes and nexthop objects on the real kernel: fresh, again, something of somebody else's in the
//! way, the thing gone; and what is read back, which `ip` judges.

use std::net::{IpAddr, UdpSocket};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use flock::agent::node::reach::OnLink;
use flock::kernel::netlink::changes::{Announcement, Announcements};
use flock::kernel::netlink::conn::Conn;
use flock::kernel::netns::Netns;
use ipnet::IpNet;
use model::lease::Lease;
use model::routes::anycast::{Foreign, Standing, Support, wanted};
use model::routes::{ANNOUNCED, Group, MAIN, Nexthop, RouteKey, Routes, Step, Way, steps};
use serde_json::Value;

use crate::kernel::lease;
use crate::support::host::{HOST4, HOST6, Host};
use crate::support::inside::Inside as _;
use crate::support::programs::succeed;
use crate::support::waiting::{PATIENCE, wait_for};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn key(table: u32, to: &str, metric: u32) -> RouteKey {
    RouteKey { table, to: to.parse().expect("a prefix"), metric }
}

fn via(gateway: &str, link: u32) -> Way {
    Way::Gateway { via: ip(gateway), link }
}

/// A host with two links, `one` and `two`, that are up, and an address of each family on `one`.
fn host() -> (Host, Conn, [u32; 2]) {
    let host = Host::new();
    for line in [
        "ip link add one type veth peer name one2",
        "ip link add two type veth peer name two2",
        "ip addr add 192.0.2.1/24 dev one",
        "ip addr add 2001:db8:a::1/64 dev one nodad",
    ] {
        host.run(line);
    }
    for link in ["one", "one2", "two", "two2"] {
        // Without the address that the kernel makes by itself, at a time of its own.
        host.run(&format!("ip link set {link} addrgenmode none up"));
    }
    let mut conn = conn(&host);
    let [a, b] = ["one", "two"].map(|name| conn.link_named(name).expect("asked").expect("found").index);
    (host, conn, [a, b])
}

fn in_host<T: Send>(host: &Host, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(&host.netns()).expect("a namespace").run(work).expect("entered")
}

fn conn(host: &Host) -> Conn {
    in_host(host, || Conn::open(Instant::now() + PATIENCE)).expect("a socket")
}

/// Carries out all steps, none of which may be refused.
#[track_caller]
fn carry_out(conn: &mut Conn, steps: &[Step]) {
    let results = conn.carry_out(steps);
    let refused: Vec<String> = results.iter().filter_map(|result| Some(result.as_ref().err()?.to_string())).collect();
    assert_eq!((results.len(), refused), (steps.len(), vec![]), "{steps:?}");
}

#[track_caller]
fn shown(conn: &mut Conn) -> Routes {
    conn.shown_routes().expect("read")
}

/// Every table, way, family and kind of group that flock uses.
fn everything([a, b]: [u32; 2]) -> Routes {
    let mut all = Routes::default();
    let hop = |gateway: &str, link| Nexthop { via: ip(gateway), link };
    all.nexthops.extend([
        (0x666c_0001, hop("2001:db8:9::5", a)),
        (0x666c_0002, hop("2001:db8:9::5", a)),
        (0x666c_0003, hop("fe80::6", b)),
        (0x666c_0004, hop("10.25.0.5", b)),
    ]);
    let group = |members: &[(u32, u8)], resilient| Group { members: members.to_vec(), resilient };
    all.groups.extend([
        (0x666c_0010, group(&[(0x666c_0001, 1), (0x666c_0002, 1)], true)),
        (0x666c_0011, group(&[(0x666c_0001, 127), (0x666c_0003, 1)], true)),
        (0x666c_0012, group(&[(0x666c_0001, 255), (0x666c_0003, 1)], false)),
        (0x666c_0013, group(&[(0x666c_0004, 7)], false)),
    ]);
    all.routes.extend([
        (key(ANNOUNCED, "2001:db8:1:1::/64", 1), Way::Unreachable),
        (key(ANNOUNCED, "10.25.1.0/24", 1), Way::Unreachable),
        (key(ANNOUNCED, "2001:db8:f::1/128", 1), Way::Link(a)),
        (key(ANNOUNCED, "2001:db8:f::1/128", 2), Way::Link(b)),
        (key(ANNOUNCED, "2001:db8:f::1/128", 4001), Way::Link(b)),
        (key(ANNOUNCED, "203.0.113.1/32", 1), Way::Link(a)),
        (key(ANNOUNCED, "203.0.113.1/32", 2), Way::Link(b)),
        (key(ANNOUNCED, "203.0.113.1/32", 4002), Way::Link(b)),
        // Other nodes: on the link, on the link by its link-local address, and IPv4 by way of IPv6.
        (key(MAIN, "2001:db8:1:2::/64", 1024), via("2001:db8:a::2", a)),
        (key(MAIN, "2001:db8:1:3::/64", 1024), via("fe80::2", a)),
        (key(MAIN, "10.25.2.0/24", 0), via("192.0.2.2", a)),
        (key(MAIN, "10.25.3.0/24", 0), via("2001:db8:a::3", a)),
        (key(MAIN, "10.25.4.0/24", 0), via("fe80::4", b)),
        (key(MAIN, "0.0.0.0/0", 77), via("198.51.100.1", b)),
        (key(MAIN, "::/0", 77), via("2001:db8:77::1", b)),
        // Anycast: one IPv6 object for both families, and what a pod without IPv6 has.
        (key(MAIN, "2001:db8:f::1/128", 1024), Way::Nexthop(0x666c_0010)),
        (key(MAIN, "203.0.113.1/32", 0), Way::Nexthop(0x666c_0010)),
        (key(MAIN, "2001:db8:f::2/128", 1024), Way::Nexthop(0x666c_0011)),
        (key(MAIN, "203.0.113.2/32", 0), Way::Nexthop(0x666c_0012)),
        (key(MAIN, "203.0.113.3/32", 0), Way::Nexthop(0x666c_0013)),
        (key(MAIN, "203.0.113.4/32", 0), Way::Nexthop(0x666c_0004)),
        (key(MAIN, "2001:db8:f::4/128", 1024), Way::Nexthop(0x666c_0003)),
    ]);
    all
}

#[test]
fn every_way_is_read_back_as_it_was_written_however_often_it_is_written() {
    let (host, mut conn, links) = host();
    assert_eq!(shown(&mut conn), Routes::default(), "tables that nobody has made are empty");
    let wanted = everything(links);
    let make = steps(&wanted, &Routes::default());
    for time in ["fresh", "again"] {
        carry_out(&mut conn, &make);
        assert_eq!(shown(&mut conn), wanted, "{time}");
    }
    assert_eq!(steps(&wanted, &shown(&mut conn)), []);

    let announced = |family| host.run(&format!("ip {family} route show table 102"));
    let lines = |text: String| {
        let mut lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        lines(announced("-4")),
        [
            "203.0.113.1 dev one proto 102 scope link metric 1",
            "203.0.113.1 dev two proto 102 scope link metric 2",
            "203.0.113.1 dev two proto 102 scope link metric 4002",
            "unreachable 10.25.1.0/24 proto 102 metric 1",
        ]
    );
    assert_eq!(
        lines(announced("-6")),
        [
            "2001:db8:f::1 dev one proto 102 metric 1 pref medium",
            "2001:db8:f::1 dev two proto 102 metric 2 pref medium",
            "2001:db8:f::1 dev two proto 102 metric 4001 pref medium",
            "unreachable 2001:db8:1:1::/64 dev lo proto 102 metric 1 pref medium",
        ]
    );
    for (to, expected) in [
        ("10.25.3.0/24", "10.25.3.0/24 via inet6 2001:db8:a::3 dev one proto 102 onlink"),
        ("2001:db8:1:3::/64", "2001:db8:1:3::/64 via fe80::2 dev one proto 102 metric 1024 onlink pref medium"),
    ] {
        let family = if to.contains(':') { "-6" } else { "-4" };
        assert_eq!(lines(host.run(&format!("ip {family} route show {to}"))), [expected]);
    }
    let objects: Value = serde_json::from_str(&host.run("ip -j nexthop show")).expect("JSON");
    let object = |id: u32| {
        let all = objects.as_array().expect("a list");
        all.iter().find(|object| object["id"] == id).unwrap_or_else(|| panic!("{id} in {objects}")).clone()
    };
    assert_eq!(object(0x666c_0011)["type"], "resilient");
    let settings = object(0x666c_0011)["resilient_args"].clone();
    assert_eq!((&settings["buckets"], &settings["idle_timer"]), (&128.into(), &2.into()), "{settings}");
    assert_eq!(object(0x666c_0012)["group"][0]["weight"], 255);
    assert_eq!(object(0x666c_0001)["flags"], serde_json::json!(["onlink"]));

    for time in ["there", "gone"] {
        carry_out(&mut conn, &steps(&Routes::default(), &wanted));
        assert_eq!(shown(&mut conn), Routes::default(), "{time}");
    }
    assert_eq!(host.run("ip nexthop show"), "");
}

#[test]
fn any_way_can_take_the_place_of_any_other() {
    let (_host, mut conn, [a, b]) = host();
    let objects = everything([a, b]);
    carry_out(&mut conn, &steps(&Routes { routes: [].into(), ..objects.clone() }, &Routes::default()));
    for (to, gateways) in
        [("2001:db8:f::9/128", ["2001:db8:a::2", "fe80::2"]), ("203.0.113.9/32", ["192.0.2.2", "fe80::2"])]
    {
        for table in [ANNOUNCED, MAIN] {
            let ways = [
                via(gateways[0], a),
                Way::Nexthop(0x666c_0010),
                via(gateways[1], b),
                Way::Nexthop(0x666c_0012),
                via(gateways[1], a),
                Way::Link(a),
                Way::Unreachable,
                Way::Link(b),
                Way::Nexthop(0x666c_0003),
            ];
            // In the main table, routes that lead nowhere or out of a link are others'.
            let ways = ways
                .into_iter()
                .filter(|way| table == ANNOUNCED || matches!(way, Way::Gateway { .. } | Way::Nexthop(_)));
            let ways: Vec<Way> = ways.collect();
            let key = key(table, to, 7);
            for before in &ways {
                for after in ways.iter().filter(|after| *after != before) {
                    carry_out(&mut conn, &[Step::AddRoute(key, *before), Step::ReplaceRoute(key, *after)]);
                    assert_eq!(shown(&mut conn).routes, [(key, *after)].into(), "{before} to {after}");
                    carry_out(&mut conn, &[Step::DeleteRoute(key, *after)]);
                }
                // What was there when it was read may be gone.
                carry_out(&mut conn, &[Step::ReplaceRoute(key, *before)]);
                assert_eq!(shown(&mut conn).routes, [(key, *before)].into(), "{before} anew");
                carry_out(&mut conn, &[Step::DeleteRoute(key, *before)]);
            }
        }
    }
    assert_eq!(shown(&mut conn), Routes { routes: [].into(), ..objects });
}

#[test]
fn objects_and_groups_get_other_content_in_place() {
    let (_host, mut conn, [a, b]) = host();
    let mut wanted = everything([a, b]);
    carry_out(&mut conn, &steps(&wanted, &Routes::default()));
    wanted.nexthops.insert(0x666c_0001, Nexthop { via: ip("2001:db8:9::7"), link: b });
    wanted.groups.insert(0x666c_0010, Group { members: vec![(0x666c_0001, 127), (0x666c_0003, 1)], resilient: true });
    wanted.groups.insert(0x666c_0011, Group { members: vec![(0x666c_0001, 1)], resilient: true });
    wanted.groups.insert(0x666c_0012, Group { members: vec![(0x666c_0002, 3), (0x666c_0003, 2)], resilient: false });
    let change = steps(&wanted, &shown(&mut conn));
    assert_eq!(change.len(), 4, "{change:?}");
    carry_out(&mut conn, &change);
    assert_eq!(shown(&mut conn), wanted);
}

#[test]
fn what_somebody_else_has_in_the_way_is_named_and_stays() {
    let (host, mut conn, [a, _]) = host();
    for line in [
        "ip route add 10.25.2.0/24 dev two proto static",
        "ip -6 route add 2001:db8:1:2::/64 dev two proto static metric 1024",
        "ip route add unreachable 203.0.113.1/32 table 102 proto static metric 1",
        "ip -6 route add 2001:db8:f::1/128 dev two table 102 proto static metric 1",
        "ip nexthop add id 1718353937 via 2001:db8:9::9 dev two onlink",
    ] {
        host.run(line);
    }
    let all =
        || ["ip -4 route show table all", "ip -6 route show table all", "ip nexthop show"].map(|line| host.run(line));
    let before = all();
    let (hop, group) =
        (Nexthop { via: ip("2001:db8:9::5"), link: a }, Group { members: vec![(0x666c_0011, 1)], resilient: false });
    let ways: [(RouteKey, Way, &str); 4] = [
        (key(MAIN, "10.25.2.0/24", 0), via("192.0.2.2", a), "proto 4 leads it by link "),
        (key(MAIN, "2001:db8:1:2::/64", 1024), via("fe80::2", a), "proto 4 leads it by link "),
        (key(ANNOUNCED, "203.0.113.1/32", 1), Way::Link(a), "proto 4 leads it unreachable"),
        (key(ANNOUNCED, "2001:db8:f::1/128", 1), Way::Link(a), "proto 4 leads it by link "),
    ];
    for (key, way, named) in ways {
        for step in [Step::AddRoute(key, way), Step::ReplaceRoute(key, way)] {
            let refused = conn.carry_out(std::slice::from_ref(&step)).pop().expect("a result").expect_err("in the way");
            assert!(refused.is_exists(), "{refused}");
            let text = refused.to_string();
            assert!(text.starts_with(&format!("{step}: ")) && text.contains(named), "{text}");
        }
        // What stands there is somebody else's, so the removal of flock's own finds nothing to do.
        carry_out(&mut conn, &[Step::DeleteRoute(key, way)]);
    }
    for step in [Step::PutNexthop(0x666c_0011, hop), Step::PutGroup(0x666c_0011, group)] {
        let refused = conn.carry_out(std::slice::from_ref(&step)).pop().expect("a result").expect_err("in the way");
        let text = refused.to_string();
        assert!(refused.is_exists() && text.contains("somebody else has that number"), "{text}");
    }
    carry_out(&mut conn, &[Step::DeleteNexthop(0x666c_0011), Step::DeleteGroup(0x666c_0011)]);
    assert_eq!(all(), before);
    assert_eq!(shown(&mut conn), Routes::default());
}

#[test]
fn a_route_that_the_go_flock_left_is_replaced_in_place_and_nobody_elses() {
    let (host, mut conn, [a, b]) = host();
    // What stands behind the address, of each family, and the links that it is said to lead to, if it may be the Go flock's.
    let by = |to: &str, links: &[&str]| {
        let gateway = if to.contains(':') { "fe80::9" } else { "192.0.2.9" };
        let hops: String = links.iter().map(|link| format!(" nexthop via {gateway} dev {link} onlink")).collect();
        format!("ip route add {to}{hops}")
    };
    let all = || ["ip -4 route", "ip -6 route show table main"].map(|line| host.run(line));
    for (prefix, family, metric) in [("203.0.113.", "-4", 0), ("2001:db8:f::", "-6", 1024)] {
        let to = |n: u8| format!("{prefix}{n}");
        let route = |n: u8| key(MAIN, &format!("{}/{}", to(n), if metric == 0 { 32 } else { 128 }), metric);
        let way = if metric == 0 { via("192.0.2.8", a) } else { via("2001:db8:a::8", a) };
        let take = |conn: &mut Conn, n: u8, links: &[u32]| {
            let step = Step::TakeRoute(route(n), way, links.iter().copied().collect());
            conn.carry_out(&[step]).pop().expect("a result")
        };
        host.run(&by(&to(1), &["one"]));
        host.run(&by(&to(2), &["one", "two"]));
        host.run(&by(&to(4), &["one"]).replace(&to(4), &format!("{} proto static", to(4))));
        host.run(&by(&to(5), &["one"]));
        host.run(&format!("ip {family} route append {} dev two proto static", to(5)));
        let left = |conn: &mut Conn, n: u8| {
            conn.left_route(route(n)).expect("asked").map(|links| links.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(left(&mut conn, 1), Some(vec![a]));
        assert_eq!(left(&mut conn, 2), Some(vec![a, b]));
        assert_eq!((left(&mut conn, 4), left(&mut conn, 9)), (None, None), "another's, and none");
        // More than it was read to lead to, another's, and one that has another's beside it.
        let before = all();
        for (n, links) in [(2, &[a][..]), (4, &[a]), (5, &[a, b])] {
            let refused = take(&mut conn, n, links).expect_err("in the way");
            assert!(refused.is_exists(), "{n}: {refused}");
        }
        assert_eq!(all(), before);
        take(&mut conn, 1, &[a]).expect("taken");
        take(&mut conn, 2, &[a, b]).expect("taken");
        take(&mut conn, 9, &[a]).expect("made, as nothing is left");
        for n in [1, 2, 9] {
            assert_eq!(shown(&mut conn).routes.get(&route(n)), Some(&way));
            let line = host.run(&format!("ip {family} route show {}", to(n)));
            assert!(line.lines().count() == 1 && line.contains("proto 102"), "nothing is left beside it: {line}");
        }
    }
}

#[test]
fn what_rests_on_a_refused_step_is_not_tried() {
    let (host, mut conn, [a, _]) = host();
    let no_link = 4000;
    let (main, announced) = (key(MAIN, "203.0.113.1/32", 0), key(ANNOUNCED, "203.0.113.1/32", 1));
    let other = key(ANNOUNCED, "203.0.113.2/32", 1);
    let hop = |link| Nexthop { via: ip("2001:db8:9::5"), link };
    let made = [
        Step::PutNexthop(0x666c_0001, hop(no_link)),
        Step::AddRoute(main, Way::Nexthop(0x666c_0001)),
        Step::AddRoute(announced, Way::Link(a)),
        Step::AddRoute(other, Way::Link(a)),
    ];
    let said = |results: Vec<Result<(), flock::kernel::netlink::NetlinkError>>| {
        results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect::<Vec<_>>()
    };
    let results = said(conn.carry_out(&made));
    assert!(results[0].is_err() && results[1].is_err() && results[3].is_ok(), "{results:?}");
    assert_eq!(
        results[2].as_ref().expect_err("held back"),
        &format!("{}: not tried, since what it rests on was refused", made[2])
    );
    assert_eq!(shown(&mut conn).routes, [(other, Way::Link(a))].into());

    // What cannot be withdrawn is still led to its pod, and its objects stay.
    carry_out(&mut conn, &[Step::PutNexthop(0x666c_0001, hop(a)), Step::AddRoute(main, Way::Nexthop(0x666c_0001))]);
    let removed = [
        Step::ReplaceRoute(announced, Way::Link(no_link)),
        Step::DeleteRoute(main, Way::Nexthop(0x666c_0001)),
        Step::DeleteNexthop(0x666c_0001),
        Step::DeleteRoute(other, Way::Link(a)),
    ];
    let results = said(conn.carry_out(&removed));
    assert!(results[..3].iter().all(Result::is_err) && results[3].is_ok(), "{results:?}");
    let left = shown(&mut conn);
    assert_eq!((left.routes, left.nexthops.len()), ([(main, Way::Nexthop(0x666c_0001))].into(), 1));
    assert!(host.run("ip nexthop show").contains("via 2001:db8:9::5"));
}

#[test]
fn with_a_pods_link_all_that_leads_to_it_goes_and_the_rest_stays() {
    let (host, mut conn, [a, b]) = host();
    let mut wanted = everything([a, b]);
    carry_out(&mut conn, &steps(&wanted, &Routes::default()));
    let before = wanted.clone();
    host.run("ip link del two");
    wanted.nexthops.retain(|_, hop| hop.link != b);
    wanted.groups.retain(|_, group| {
        group.members.retain(|(id, _)| wanted.nexthops.contains_key(id));
        !group.members.is_empty()
    });
    let stands = |way: &Way| match way {
        Way::Unreachable => true,
        Way::Link(link) | Way::Gateway { link, .. } => *link != b,
        Way::Nexthop(id) => wanted.nexthops.contains_key(id) || wanted.groups.contains_key(id),
    };
    wanted.routes.retain(|_, way| stands(way));
    assert_eq!(shown(&mut conn), wanted);
    // Whoever has not heard of it yet finds all of it gone.
    carry_out(
        &mut conn,
        &steps(&wanted, &before).into_iter().filter(|step| !matches!(step, Step::PutGroup(..))).collect::<Vec<_>>(),
    );
    assert_eq!(shown(&mut conn), wanted);
}

#[test]
fn routes_to_a_thousand_nodes_come_and_go() {
    let (_host, mut conn, [a, _]) = host();
    let mut wanted = Routes::default();
    for node in 0..1000u32 {
        let (high, low) = (node >> 8, node & 255);
        let gateway = via(&format!("2001:db8:a::{:x}", node + 2), a);
        wanted.routes.insert(key(MAIN, &format!("2001:db8:1:{node:x}::/64"), 1024), gateway);
        wanted.routes.insert(key(MAIN, &format!("10.{}.{low}.0/24", 64 + high), 0), gateway);
    }
    carry_out(&mut conn, &steps(&wanted, &Routes::default()));
    assert_eq!(shown(&mut conn), wanted);
    carry_out(&mut conn, &steps(&Routes::default(), &wanted));
    assert_eq!(shown(&mut conn), Routes::default());
}

#[test]
fn an_address_is_on_the_link_when_packets_to_it_go_straight_out() {
    let (host, mut conn, [a, b]) = host();
    for line in [
        "ip route add 198.51.100.0/24 via 192.0.2.9",
        "ip -6 route add 2001:db8:b::/64 via 2001:db8:a::9",
        "ip route add unreachable 198.51.101.0/24",
        "ip -6 route add unreachable 2001:db8:c::/64",
        "ip route add 198.51.102.0/24 via inet6 fe80::9 dev two",
        "ip route add 198.51.103.7/32 dev two proto 102",
        "ip route add 198.51.104.0/24 nexthop dev one nexthop via 198.51.105.1 dev two onlink",
        "ip route add 198.51.106.0/24 dev two",
        "ip -6 route add 2001:db8:d::/64 dev two",
    ] {
        host.run(line);
    }
    for (address, link) in [
        ("192.0.2.77", Some(a)),
        ("2001:db8:a::77", Some(a)),
        ("198.51.106.1", Some(b)),
        ("2001:db8:d::1", Some(b)),
        ("198.51.100.1", None),
        ("2001:db8:b::1", None),
        ("198.51.101.1", None),
        ("2001:db8:c::1", None),
        ("198.51.102.1", None),
        ("198.51.103.7", None),
        ("198.51.104.1", None),
        (HOST4, None),
        (HOST6, None),
        ("192.0.2.1", None),
        ("10.9.9.9", None),
        ("2001:db8:9999::1", None),
    ] {
        let reach = OnLink::default().among([ip(address)].into_iter(), &mut conn).expect("asked");
        assert_eq!(reach.get(&ip(address)).copied(), link, "{address}");
    }
}

#[test]
fn a_pod_behind_an_object_of_flocks_is_no_gateway_of_somebody_else() {
    let (host, mut conn, links) = host();
    host.run("ip nexthop add id 7 via 192.0.2.9 dev one");
    carry_out(&mut conn, &steps(&everything(links), &Routes::default()));
    let objects = conn.nexthop_objects().expect("read");
    assert_eq!(objects.gateways().collect::<Vec<_>>(), [ip("192.0.2.9")]);
    host.run("ip nexthop add id 8 group 7");
    host.run("ip nexthop add id 9 blackhole");
    assert_eq!(conn.nexthop_objects().expect("read").numbers(), [7, 8, 9].into());
}

#[test]
fn this_kernel_knows_groups_in_which_flows_stay() {
    let (host, mut conn, _) = host();
    assert_eq!(conn.nexthop_support().expect("asked"), Support::Resilient);
    assert_eq!(host.run("ip nexthop show"), "", "asking leaves nothing behind");
}

#[test]
fn flocks_own_work_on_routes_makes_nobody_look_and_a_loss_does() {
    let (host, mut conn, [a, b]) = host();
    wait_for("the addresses to have settled", || {
        (!conn.addresses(None).expect("asked").iter().any(|address| address.tentative)).then_some(())
    });
    let mut heard = in_host(&host, Announcements::open).expect("a socket");
    // Everything that is heard until the loss of a single route, which is the mark.
    let mut until_mark = |n: u32| {
        let mark = format!("192.168.0.{n}");
        host.run(&format!("ip route add blackhole {mark} proto 102"));
        host.run(&format!("ip route del blackhole {mark} proto 102"));
        let mut all = Vec::new();
        while !all.contains(&Announcement::OwnRoute(ip(&mark))) {
            all.extend(heard.wait().expect("a socket"));
        }
        all.pop();
        // The kernel tells of the new links' carrier at a time of its own.
        all.retain(|announcement| *announcement != Announcement::Link);
        all
    };
    until_mark(1);
    let mut wanted = everything([a, b]);
    carry_out(&mut conn, &steps(&wanted, &Routes::default()));
    assert_eq!(until_mark(2), []);
    wanted.routes.insert(key(MAIN, "10.25.2.0/24", 0), via("192.0.2.7", a));
    wanted.groups.insert(0x666c_0010, Group { members: vec![(0x666c_0001, 127), (0x666c_0003, 1)], resilient: true });
    let change = steps(&wanted, &shown(&mut conn));
    carry_out(&mut conn, &change);
    assert_eq!(until_mark(3), []);

    for (n, line) in [
        (4, "ip route del 203.0.113.1/32 metric 1 table 102"),
        (5, "ip -6 route del 2001:db8:1:1::/64 table 102"),
        (6, "ip route del 10.25.2.0/24"),
        (7, "ip nexthop del id 1718353924"),
        (8, "ip link set two down"),
    ] {
        host.run(line);
        let heard = until_mark(n);
        assert!(heard.contains(&Announcement::Routes), "{line}: {heard:?}");
        assert!(!heard.contains(&Announcement::Host), "{line}: {heard:?}");
    }
    let net = |text: &str| text.parse::<IpNet>().expect("a prefix");
    assert!(!shown(&mut conn).routes.keys().any(|key| key.to == net("10.25.2.0/24")));
}

/// Pods that share an address of each family, on a host whose kernel chooses among them by ports, too.
struct Service<'a> {
    host: &'a Host,
    conn: Conn,
    pods: Vec<(Lease, Option<bool>)>,
    /// The sockets of each pod at the shared addresses.
    listening: Vec<[UdpSocket; 2]>,
}

const SHARED: [&str; 2] = ["203.0.113.1", "2001:db8:f::1"];

impl<'a> Service<'a> {
    fn new(host: &'a Host) -> Service<'a> {
        let by_ports = "for family in 4 6; do echo 1 >/proc/sys/net/ipv$family/fib_multipath_hash_policy; done";
        succeed(host.command("sh").args(["-ec", by_ports]));
        Service { host, conn: conn(host), pods: Vec::new(), listening: Vec::new() }
    }

    /// A pod comes, and is not ready yet.
    fn comes(&mut self) {
        let n = self.pods.len() + 1;
        let pod = self.host.pod(&format!("p{n}"));
        let (host_mac, pod_mac) = (format!("02:00:00:00:01:{n:02}"), format!("02:00:00:00:02:{n:02}"));
        self.host.run(&format!(
            "ip link add pod{n} address {host_mac} type veth peer name eth0 address {pod_mac} netns p{n}"
        ));
        pod.run("ip link set lo up");
        pod.run("ip link set eth0 up");
        for line in [
            format!("ip link set pod{n} up"),
            format!("ip -6 addr add fe80::1/128 dev pod{n} nodad"),
            format!("ip neigh add 2001:db8:1::{n} lladdr {pod_mac} dev pod{n} nud permanent"),
        ] {
            self.host.run(&line);
        }
        for line in [
            format!("ip -6 addr add 2001:db8:1::{n}/128 dev eth0 nodad"),
            format!("ip neigh add fe80::1 lladdr {host_mac} dev eth0 nud permanent"),
            "ip -4 route add default via inet6 fe80::1 dev eth0 onlink".into(),
            "ip -6 route add default via fe80::1 dev eth0".into(),
        ] {
            pod.run(&line);
        }
        let listen = |address: &str| {
            pod.run(&format!("ip addr add {address} dev lo"));
            let netns = Netns::open(&pod.netns()).expect("a namespace");
            // The kernel takes an IPv6 address in a little later than it shows it.
            let socket = wait_for("the shared address", || {
                netns.run(|| UdpSocket::bind((ip(address), 7))).expect("entered").ok()
            });
            socket.set_nonblocking(true).expect("set");
            socket
        };
        self.listening.push(SHARED.map(listen));
        let link = self.conn.link_named(&format!("pod{n}")).expect("asked").expect("found").index;
        let mut lease = lease(&format!("p{n}"), u16::try_from(n).expect("few"));
        lease.ipv6 = format!("2001:db8:1::{n}").parse().ok();
        lease.host_index = Some(link);
        lease.anycast = SHARED.map(ip).into();
        self.pods.push((lease, Some(false)));
    }

    /// Pod `n`, from 0, says whether it serves, and one pass follows. Who is announced then.
    fn says(&mut self, n: usize, serves: bool) -> Vec<u32> {
        self.pods[n].1 = Some(serves);
        let standing: Vec<_> = self.pods.iter().filter(|(lease, _)| lease.host_index.is_some()).collect();
        let leases = standing.iter().map(|(lease, serves)| (lease, Standing { serves: *serves, reachable: true }));
        let before = shown(&mut self.conn);
        let wanted = wanted(leases, &before, &Foreign::default(), Support::Resilient);
        carry_out(&mut self.conn, &steps(&wanted, &before));
        let now = shown(&mut self.conn);
        assert_eq!(steps(&wanted, &now), []);
        let announced = now.routes.iter().filter(|(key, _)| key.table == ANNOUNCED && key.to.addr().is_ipv4());
        announced.map(|(key, _)| key.metric).collect()
    }

    /// The pod that each of these flows arrives at, by both families.
    fn arrive(&self, flows: &[Flow]) -> Vec<[usize; 2]> {
        let mut at = vec![[None; 2]; flows.len()];
        wait_for("every packet to arrive", || {
            for (n, flow) in flows.iter().enumerate().filter(|(n, _)| at[*n].contains(&None)) {
                flow.send(u8::try_from(n).expect("few"));
            }
            for (pod, sockets) in self.listening.iter().enumerate() {
                for (family, socket) in sockets.iter().enumerate() {
                    let mut packet = [0; 2];
                    while let Ok((_, from)) = socket.recv_from(&mut packet) {
                        // Of earlier flows there may be some packets left.
                        let of = flows.get(usize::from(packet[0]));
                        if of.is_some_and(|flow| flow.ports[family] == from.port()) {
                            at[usize::from(packet[0])][family] = Some(pod);
                        }
                    }
                }
            }
            at.iter().map(|[a, b]| Some([(*a)?, (*b)?])).collect::<Option<Vec<_>>>()
        })
    }

    /// Throws away what has arrived.
    fn forget(&self) {
        for socket in self.listening.iter().flatten() {
            while socket.recv_from(&mut [0; 2]).is_ok() {}
        }
    }

    fn flows(&self) -> Vec<Flow> {
        in_host(self.host, || (0..64).map(|_| Flow::new()).collect())
    }
}

/// A client, with a socket of each family.
struct Flow {
    sockets: [UdpSocket; 2],
    ports: [u16; 2],
}

impl Flow {
    fn new() -> Flow {
        let sockets = [HOST4, HOST6].map(|own| UdpSocket::bind((ip(own), 0)).expect("bound"));
        let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        Flow { sockets, ports }
    }

    fn send(&self, n: u8) {
        for (socket, to) in self.sockets.iter().zip(SHARED) {
            socket.send_to(&[n, 0], (ip(to), 7)).expect("there is a way");
        }
    }
}

#[test]
fn flows_stay_at_their_pod_while_pods_come_and_stop_serving_and_one_that_goes_takes_no_other_along() {
    let host = Host::new();
    let mut service = Service::new(&host);
    service.comes();
    assert_eq!(service.says(0, true), [1]);
    let old = service.flows();
    assert_eq!(service.arrive(&old), [[0, 0]; 64]);

    // What is busy stays where it is: a packet in each 2 s is enough.
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        let flows = &old;
        let busy = scope.spawn(move || {
            while stopped.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
                flows.iter().for_each(|flow| flow.send(u8::MAX));
            }
        });
        service.comes();
        assert_eq!(service.says(1, true), [1, 2], "each has an announcement of its own");
        service.forget();
        assert_eq!(service.arrive(&old), [[0, 0]; 64], "a pod joins");
        let new = service.flows();
        assert!(service.arrive(&new).contains(&[1, 1]), "it gets flows that begin now");
        assert_eq!(service.says(0, false), [2]);
        service.forget();
        assert_eq!(service.arrive(&old), [[0, 0]; 64], "a pod stops serving");
        drop(stop);
        busy.join().expect("no panic");
    });

    // Its link goes, and nobody of ours runs.
    host.run("ip link del pod1");
    service.pods[0].0.host_index = None;
    assert_eq!(service.arrive(&old), [[1, 1]; 64]);
    // The last one is withdrawn, and what is under way arrives.
    assert!(service.says(1, false).is_empty());
    assert_eq!(service.arrive(&old), [[1, 1]; 64]);
}
