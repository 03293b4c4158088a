//! What a node announces: table 102, whoever takes it up, and what happens to it when the agent, the NodeConfig or somebody else
//! changes something.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::host::Host;
use crate::support::manifests::{node_config, node_config_spec};
use crate::support::pod::Pod;
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;

/// More often than whole rounds come in the time: what is put back so often is put back at once.
const OFTEN: usize = 4;

/// What as many rounds take, which come every twenty seconds.
const ROUNDS: Duration = Duration::from_secs(60);

const CIDR6: &str = "2001:db8:7::/64";
const CIDR4: &str = "10.7.0.0/24";

/// Table 102 as `ip` shows it, both families, one line a route.
pub(crate) fn announced(host: &Host) -> Vec<String> {
    // The kernel makes a table with its first route.
    let script = "for family in -4 -6; do ip $family route show table 102 2>/dev/null || true; done";
    let shown = succeed(host.command("sh").args(["-c", script]));
    let mut lines: Vec<String> = shown.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// The beginnings of the lines, destination and metric, once they are these.
#[track_caller]
fn wait_announced(host: &Host, expected: &[&str]) {
    let of = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "unreachable").collect();
        let metric = words.iter().position(|word| *word == "metric").and_then(|at| words.get(at + 1));
        format!("{} {}", words.first().unwrap_or(&""), metric.unwrap_or(&"-"))
    };
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    expected.sort();
    let mut shown = Vec::new();
    wait_for(&format!("table 102 to hold {expected:?}"), || {
        shown = announced(host).iter().map(|line| of(line)).collect();
        shown.sort();
        (shown == expected).then_some(())
    });
}

const BOTH: [&str; 2] = ["10.7.0.0/24 1", "2001:db8:7::/64 1"];

// covers: FM-H02
#[test]
fn a_node_announces_its_ranges_from_the_moment_that_it_serves_pods() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config(CIDR6, CIDR4))).start();
    // Without a CNI configuration to write, the first pod says that there are pods to serve.
    assert_eq!(announced(&host), Vec::<String>::new());
    host.attach("p");
    wait_announced(&host, &BOTH);
    for line in announced(&host) {
        assert!(line.starts_with("unreachable ") && line.contains("proto 102"), "{line}");
    }
    // Nothing is forwarded by that table.
    assert!(!host.run("ip rule").contains("102") && !host.run("ip -6 rule").contains("102"));
    // Another range, and one family less.
    agent.edit_config(&node_config_spec(json!({"cidr4": "10.8.0.0/24"})));
    wait_announced(
        &host,
        &["10.8.0.0/24 1", &format!("{} 1", host_address(&host, "-4")), &format!("{} 1", host_address(&host, "-6"))],
    );
    host.assert_sound("after another range");
}

/// The address of the only pod, which its lease says.
fn host_address(host: &Host, family: &str) -> String {
    let lease = host.leases().into_iter().next().expect("a lease");
    match family {
        "-4" => lease.ipv4.expect("IPv4").to_string(),
        _ => lease.ipv6.expect("IPv6").to_string(),
    }
}

#[test]
fn what_somebody_takes_from_the_announcements_is_back_at_once_and_what_he_adds_stays() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config(CIDR6, CIDR4))).start();
    host.attach("p");
    wait_announced(&host, &BOTH);
    host.run("ip route add blackhole 192.0.2.0/24 table 102 proto static");
    let foreign = ["10.7.0.0/24 1", "192.0.2.0/24 -", "2001:db8:7::/64 1"];
    wait_for("the foreign route", || (announced(&host).len() == 3).then_some(()));
    for damage in [
        "ip route flush table 102 proto 102",
        "ip -6 route flush table 102",
        "ip route del unreachable 10.7.0.0/24 table 102 metric 1",
    ] {
        host.run(damage);
        wait_for(damage, || (announced(&host).len() == 3).then_some(()));
    }
    agent.wait_log("routes were changed by somebody, and are put back");
    // A route of flock's that nobody wants is what a killed agent or a hand has left.
    host.run("ip route add unreachable 10.99.0.0/24 table 102 proto 102 metric 7");
    agent.signal("HUP");
    wait_for("the leftover to go", || (announced(&host).len() == foreign.len()).then_some(()));
    assert!(announced(&host).iter().any(|line| line.contains("192.0.2.0/24")), "somebody else's stays");
}

#[test]
fn announcements_outlive_the_agent_and_its_successor_changes_none() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config(CIDR6, CIDR4))).start();
    host.attach("p");
    wait_announced(&host, &BOTH);
    let announcements = host.route_events();
    agent.kill();
    wait_announced(&host, &BOTH);
    let agent = host.agent().keep_config().start();
    host.attach("q");
    agent.rounds(2);
    wait_announced(&host, &BOTH);
    announcements.assert_unheard(102);
}

#[test]
fn a_node_that_is_withdrawn_stays_so_whatever_becomes_of_the_agent() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config(CIDR6, CIDR4))).start();
    host.attach("p");
    wait_announced(&host, &BOTH);
    host.write("/run/flock/drain", "draining\n");
    agent.signal("HUP");
    wait_announced(&host, &["10.7.0.0/24 4001", "2001:db8:7::/64 4001"]);
    host.write("/run/flock/drain", "withdrawn\n");
    wait_announced(&host, &[]);
    agent.kill();
    let agent = host.agent().keep_config().start();
    host.attach("q");
    agent.rounds(1);
    assert_eq!(announced(&host), Vec::<String>::new());
    host.run("rm /run/flock/drain");
    wait_announced(&host, &BOTH);
}

/// A node whose pods may share addresses of these prefixes.
fn sharing() -> String {
    node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": ["2001:db8:f::/48", "203.0.113.0/28"]}))
}

const SHARED: [&str; 2] = ["2001:db8:f::53", "203.0.113.5"];

#[test]
fn a_shared_address_is_back_at_once_when_somebody_takes_its_pods_link_down() {
    let host = Host::new();
    let agent = host.agent().config(Some(&sharing())).start();
    let (client, _) = host.attach("client");
    let pod = host.pod("p");
    let attached = host.add(&pod).annotations(&[("anycast", &SHARED.join(","))]).result();
    let shared: Vec<IpAddr> = SHARED.iter().map(|ip| ip.parse().expect("literal")).collect();
    let answers = |when: &str| {
        wait_for(when, || shared.iter().all(|ip| client.pings(*ip)).then_some(()));
        wait_announced(&host, &[BOTH[0], BOTH[1], "2001:db8:f::53 1", "203.0.113.5 1"]);
    };
    answers("the pod to answer for what it shares");
    let began = Instant::now();
    for _ in 0..OFTEN {
        host.run(&format!("ip link set {} down", attached.host_link()));
        answers("the pod to answer again");
    }
    assert!(began.elapsed() < ROUNDS, "{:?}", began.elapsed());
    host.del(&pod).done();
    wait_announced(&host, &BOTH);
    drop(agent);
    assert_eq!(host.run("ip nexthop show proto 102"), "", "nothing leads to a pod that is gone");
    assert_eq!(host.run("ip route show 203.0.113.5"), "");
}

#[test]
fn an_announcement_that_is_missing_or_too_much_is_found_by_the_oracle() {
    let host = Host::new();
    let agent = host.agent().config(Some(&sharing())).start();
    let pod = host.pod("p");
    let attached = host.add(&pod).annotations(&[("addresses", "203.0.113.6"), ("anycast", "2001:db8:f::53")]).result();
    host.assert_sound("all is announced");
    agent.kill();
    let (own, link) = (attached.ipv6().expect("dual stack"), attached.host_link());
    for (damage, repair) in [
        (
            "ip route del 203.0.113.6 table 102",
            format!("ip route add 203.0.113.6 dev {link} table 102 metric 1 proto 102"),
        ),
        (
            "ip -6 route del 2001:db8:f::53 table 102",
            format!("ip route add 2001:db8:f::53 dev {link} table 102 metric 1 proto 102"),
        ),
        (
            &format!("ip route add {own} dev {link} table 102 metric 1 proto 102"),
            format!("ip -6 route del {own} table 102"),
        ),
    ] {
        host.run(damage);
        let found = host.differences();
        assert!(found.len() == 1 && found[0].starts_with("I6: "), "{damage}: {found:?}");
        host.run(&repair);
        assert_eq!(host.differences(), Vec::<String>::new(), "{damage}");
    }
}

/// The links that an address is announced by.
fn announcers(host: &Host, ip: &str) -> BTreeSet<String> {
    let lines = announced(host);
    let of_address = lines.iter().filter(|line| line.split_whitespace().next() == Some(ip));
    of_address.filter_map(|line| Some(line.split_whitespace().nth(2)?.to_owned())).collect()
}

/// A pod that shares both addresses, with what it needs to have its interface back.
struct Sharer<'a> {
    pod: Pod<'a>,
    link: String,
    own: Vec<IpAddr>,
}

impl Sharer<'_> {
    fn new<'a>(host: &'a Host, name: &str) -> Sharer<'a> {
        let pod = host.pod(name);
        let attached = host.add(&pod).annotations(&[("anycast", &SHARED.join(","))]).result();
        Sharer { pod, link: attached.host_link(), own: attached.ips() }
    }

    /// With the interface go the pod's own routes, and its IPv6 addresses.
    fn goes_down(&self) {
        self.pod.run("ip link set eth0 down");
    }

    fn comes_up(&self) {
        let mut script = String::from("ip link set eth0 up; ");
        let shared = SHARED.map(|ip| ip.parse().expect("literal"));
        for ip in self.own.iter().chain(&shared).filter(|ip| ip.is_ipv6()) {
            script += &format!("ip -6 addr replace {ip}/128 dev eth0 nodad; ");
        }
        script += "ip -6 route replace default via fe80::1 dev eth0; ";
        script += "ip route replace default via 169.254.1.1 dev eth0 onlink";
        self.pod.script(&script);
    }
}

#[test]
fn a_pod_that_takes_its_interface_down_leaves_a_shared_address_to_the_other_until_it_is_up_again() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&sharing())).start();
    let (client, _) = host.attach("client");
    let sharers = ["p", "q"].map(|name| Sharer::new(&host, name));
    // Those that are up, and nobody else, are led to and announced.
    let assert_served_by = |serving: &[&Sharer<'_>]| {
        let links: BTreeSet<&str> = serving.iter().map(|sharer| sharer.link.as_str()).collect();
        wait_for("those that are up to be announced, and nobody else", || {
            SHARED
                .iter()
                .all(|ip| announcers(&host, ip) == links.iter().map(ToString::to_string).collect())
                .then_some(())
        });
        for line in host.run("ip -o nexthop show proto 102").lines().filter(|line| line.contains(" via ")) {
            assert!(links.iter().any(|link| line.contains(link)), "{line}");
        }
        for ip in SHARED.iter().filter(|_| !serving.is_empty()).map(|ip| ip.parse().expect("literal")) {
            wait_for("somebody to answer", || client.pings(ip).then_some(()));
            (0..4).for_each(|_| client.assert_pings([ip]));
        }
    };
    let [p, q] = &sharers;
    let began = Instant::now();
    for _ in 0..OFTEN {
        assert_served_by(&[p, q]);
        p.goes_down();
        assert_served_by(&[q]);
        q.goes_down();
        assert_served_by(&[]);
        p.comes_up();
        assert_served_by(&[p]);
        q.comes_up();
    }
    assert_served_by(&[p, q]);
    assert!(began.elapsed() < ROUNDS, "{:?}", began.elapsed());
    sharers.iter().for_each(|sharer| host.del(&sharer.pod).done());
    wait_announced(&host, &BOTH);
    assert_eq!(host.run("ip nexthop show proto 102"), "", "nothing leads to a pod that is gone");
}

#[test]
fn a_pod_whose_interface_comes_and_goes_all_the_time_bothers_routers_only_now_and_then() {
    let host = Host::new();
    let agent = host.agent().config(Some(&sharing())).start();
    let sharer = Sharer::new(&host, "p");
    let is_announced = || (SHARED.iter().all(|ip| announcers(&host, ip).len() == 1)).then_some(());
    wait_for("the shared addresses to be announced", is_announced);
    let (events, began) = (host.route_events(), Instant::now());
    let shared: IpAddr = SHARED[1].parse().expect("literal");
    for _ in 0..20 {
        sharer.goes_down();
        wait_for("the announcement to be gone", || announcers(&host, SHARED[1]).is_empty().then_some(()));
        sharer.comes_up();
        // Whether it is announced now or later, the agent has looked.
        agent.rounds_of("routing/routes.compare", 1);
    }
    wait_for("the shared addresses to be announced at last", is_announced);
    let times = events.drain().iter().filter(|event| !event.gone && event.table == 102 && event.to == shared).count();
    let allowed = 5 + began.elapsed().as_secs() / 10;
    assert!((1..=allowed).contains(&(times as u64)), "{times} times in {:?}", began.elapsed());
    // A line each time that it has to wait, which it has if there are fewer announcements than returns.
    let log = agent.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("again and again")).collect();
    assert!(told.len() as u64 <= allowed - 4 && (times >= 20 || !told.is_empty()), "{times} times: {told:?}");
    for line in told {
        assert!(["cid=", "ifname=eth0", "remedy="].iter().all(|words| line.contains(words)), "{line}");
    }
}
