//! Announcements, routes to other nodes, and nexthop objects with groups, as each kernel has them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use flock::kernel::netlink::conn::Conn;
use model::routes::anycast::Support;
use model::routes::{ANNOUNCED, Group, MAIN, Nexthop, RouteKey, Routes, Step, Way, steps};

use crate::ip::index;
use crate::machine::has_ipv6;

/// What flock makes on a kernel with this support, of the families that it has.
fn everything(link: u32, resilient: bool) -> Routes {
    let via = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let key = |table, to: &str, metric| RouteKey { table, to: to.parse().expect("a prefix"), metric };
    let mut all = Routes::default();
    all.nexthops.insert(1, Nexthop { via: via("10.25.0.5"), link });
    all.groups.insert(9, Group { members: vec![(1, 127)], resilient });
    all.routes.extend([
        (key(ANNOUNCED, "10.25.0.0/24", 1), Way::Unreachable),
        (key(ANNOUNCED, "203.0.113.1/32", 2), Way::Link(link)),
        (key(ANNOUNCED, "203.0.113.1/32", 4002), Way::Link(link)),
        (key(MAIN, "203.0.113.1/32", 0), Way::Nexthop(9)),
        (key(MAIN, "203.0.113.2/32", 0), Way::Nexthop(1)),
        (key(MAIN, "10.25.1.0/24", 0), Way::Gateway { via: via("192.0.2.7"), link }),
    ]);
    if has_ipv6() {
        let hop = Nexthop { via: via("2001:db8:1::5"), link };
        all.nexthops.extend([(2, hop), (3, hop)]);
        all.groups.insert(8, Group { members: vec![(2, 127), (3, 127)], resilient });
        all.routes.extend([
            (key(ANNOUNCED, "2001:db8:1:1::/64", 1), Way::Unreachable),
            (key(ANNOUNCED, "2001:db8:f::1/128", 2), Way::Link(link)),
            (key(MAIN, "2001:db8:f::1/128", 1024), Way::Nexthop(8)),
            (key(MAIN, "203.0.113.3/32", 0), Way::Nexthop(8)),
            (key(MAIN, "2001:db8:1:2::/64", 1024), Way::Gateway { via: via("fe80::7"), link }),
            (key(MAIN, "10.25.2.0/24", 0), Way::Gateway { via: via("fe80::7"), link }),
        ]);
    }
    all
}

#[track_caller]
fn carry_out(conn: &mut Conn, wanted: &Routes) {
    let steps = steps(wanted, &conn.shown_routes().expect("read"));
    let refused: Vec<String> =
        conn.carry_out(&steps).into_iter().filter_map(|result| result.err()).map(|error| error.to_string()).collect();
    assert_eq!(refused, Vec::<String>::new());
    assert_eq!(conn.shown_routes().expect("read"), *wanted);
}

/// Everything is made, changed in place and removed, and read back as it was written.
pub fn written_and_read() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let mut conn = Conn::open(Instant::now() + Duration::from_secs(120)).expect("a socket");
    let support = conn.nexthop_support().expect("asked");
    let expected = if release.starts_with("5.10.") { Support::Plain } else { Support::Resilient };
    assert_eq!(support, expected, "Linux {release}");

    let link = index("up0");
    let mut wanted = everything(link, support == Support::Resilient);
    carry_out(&mut conn, &wanted);
    wanted.nexthops.insert(4, Nexthop { via: "10.25.0.6".parse().expect("an address"), link });
    wanted.groups.get_mut(&9).expect("a group").members = vec![(1, 1), (4, 127)];
    carry_out(&mut conn, &wanted);
    if support == Support::Plain {
        let group = Group { members: vec![(1, 1)], resilient: true };
        let refused = conn.carry_out(&[Step::PutGroup(7, group)]).pop().expect("a result").expect_err("not known");
        assert!(refused.to_string().starts_with("nexthop group 7 of 1x1: "), "{refused}");
    }
    carry_out(&mut conn, &Routes::default());
}
