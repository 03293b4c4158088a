//! Neighbour proxies: a router that has pods' addresses on its own link, and no route to the node, reaches them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::failpoints::passes;
use crate::support::host::Host;
use crate::support::manifests::node_config_spec;
use crate::support::outcome::Attached;
use crate::support::share::share;
use crate::support::waiting::wait_for;

/// The ranges of the link, of which the pods have the second half each.
const ON_LINK: [&str; 2] = ["2001:db8:1:f001::", "10.25.214."];

/// What the thread passes that compares proxies.
const COMPARES: &str = "routing/neighbours.compare";

/// A node and a router on the link `up0`. There is a second link between them, `up1`.
struct Segment {
    host: Host,
    router: Host,
}

/// The link is up, and has the addresses that end with `last`, which the kernel may have taken away.
fn settle(host: &Host, link: &str, last: u8) {
    host.run(&format!("ip link set {link} up"));
    host.run(&format!("ip addr replace {}{last}/64 dev {link} nodad", ON_LINK[0]));
    host.run(&format!("ip addr replace {}{last}/24 dev {link}", ON_LINK[1]));
    for via in ON_LINK.iter().filter(|_| last != 1) {
        host.run(&format!("ip route replace default via {via}1"));
    }
}

impl Segment {
    fn new() -> Segment {
        let (host, router) = (Host::new(), Host::new());
        for link in ["up0", "up1"] {
            host.run(&format!("ip link add {link} type veth peer name {link} netns {}", router.pid()));
        }
        for (host, last) in [(&router, 1), (&host, 2)] {
            settle(host, "up0", last);
            host.run("ip link set up1 up");
        }
        let segment = Segment { host, router };
        for ip in ON_LINK {
            wait_for("the link to work", || segment.reaches(format!("{ip}2").parse().expect("literal")).then_some(()));
        }
        segment
    }

    /// Whether the router gets an answer to a single packet. It waits for its neighbours as long as for the answer.
    fn reaches(&self, ip: IpAddr) -> bool {
        let mut ping = self.router.command("ping");
        ping.args(["-n", "-c", "1", "-W", "2", &ip.to_string()]).stdin(Stdio::null());
        ping.output().expect("ping (iputils-ping) starts").status.success()
    }

    #[track_caller]
    fn assert_reaches(&self, attached: &Attached, when: &str) {
        for ip in attached.ips() {
            assert!(self.reaches(ip), "the router does not reach {ip}, {when}");
        }
    }

    /// The router knows nobody any more, and has to ask.
    fn forget(&self) {
        self.router.run("ip neigh flush all");
    }
}

/// The NodeConfig of a node whose pods live in the ranges of the link.
fn config(link: Option<&str>) -> String {
    let mut spec = json!({"cidr6": "2001:db8:1:f001:8000::/65", "cidr4": "10.25.214.128/25"});
    if let Some(link) = link {
        spec["proxyNeighbours"] = Value::from(link);
    }
    node_config_spec(spec)
}

fn start<'a>(host: &'a Host, link: Option<&str>) -> Agent<'a> {
    host.agent().config(Some(&config(link))).start()
}

/// The link of each address for which the host answers, as flock's or as anybody's.
fn proxies(host: &Host, ours: bool) -> BTreeSet<(String, IpAddr)> {
    host.proxies().into_iter().filter(|proxy| proxy.ours == ours).map(|proxy| (proxy.link, proxy.ip)).collect()
}

fn on(link: &str, attached: &[&Attached]) -> BTreeSet<(String, IpAddr)> {
    attached.iter().flat_map(|attached| attached.ips()).map(|ip| (link.to_owned(), ip)).collect()
}

/// Flock's proxies become these by themselves.
#[track_caller]
fn wait_proxies(host: &Host, expected: &BTreeSet<(String, IpAddr)>, when: &str) {
    wait_for(&format!("the proxies {expected:?}, {when}"), || (proxies(host, true) == *expected).then_some(()));
}

// covers: FM-T03
#[test]
fn a_router_without_any_route_reaches_a_pod_right_after_its_add_and_no_more_after_its_del() {
    let segment = Segment::new();
    let host = &segment.host;
    let agent = start(host, Some("up0"));
    let (p, first) = host.attach("p");
    segment.assert_reaches(&first, "right after ADD");
    let (q, second) = host.attach("q");
    segment.assert_reaches(&second, "right after ADD");
    p.assert_pings(ON_LINK.map(|ip| format!("{ip}1").parse().expect("literal")));
    assert_eq!(proxies(host, true), on("up0", &[&first, &second]));
    // What the kernel does by default is to wait for somebody with a better answer.
    for setting in ["ipv4/neigh/up0/proxy_delay", "ipv6/neigh/up0/proxy_delay"] {
        assert_eq!(host.run(&format!("cat /proc/sys/net/{setting}")), "0\n");
    }
    host.assert_sound("two pods");
    host.del(&p).done();
    assert_eq!(proxies(host, true), on("up0", &[&second]), "gone with DEL");
    segment.forget();
    for ip in first.ips() {
        assert!(!segment.reaches(ip), "{ip} is nobody's");
    }
    segment.assert_reaches(&second, "while others go");
    host.del(&q).done();
    assert_eq!(proxies(host, true), BTreeSet::new());
    host.assert_empty();
    agent.stop();
}

// covers: FM-T05
#[test]
fn what_the_node_config_switches_off_or_moves_goes_and_what_it_switches_on_is_there_for_living_pods() {
    let segment = Segment::new();
    let host = &segment.host;
    let agent = start(host, None);
    let (_p, first) = host.attach("p");
    assert_eq!(proxies(host, true), BTreeSet::new());
    for (link, expected) in [
        (Some("up0"), on("up0", &[&first])),
        (Some("up1"), on("up1", &[&first])),
        (None, BTreeSet::new()),
        (Some("up0"), on("up0", &[&first])),
    ] {
        agent.edit_config(&config(link));
        wait_proxies(host, &expected, &format!("with {link:?}"));
        host.assert_sound(&format!("with {link:?}"));
    }
    segment.forget();
    wait_for("the router to reach the pod", || first.ips().into_iter().all(|ip| segment.reaches(ip)).then_some(()));
    agent.stop();
    // Switched off while no agent runs.
    let agent = start(host, None);
    wait_proxies(host, &BTreeSet::new(), "after a start");
    agent.stop();
}

// covers: FM-T04
#[test]
fn a_link_that_does_not_exist_keeps_no_pod_waiting_and_gets_its_proxies_when_it_comes() {
    let segment = Segment::new();
    let host = &segment.host;
    let agent = start(host, Some("wan"));
    let said = agent.wait_log("spec.proxyNeighbours: wan is no link of this host (yet)");
    assert!(said.contains("name the link on which routers look for pods"), "{said}");
    host.cni("STATUS").done();
    let (p, first) = host.attach("p");
    assert_eq!(proxies(host, true), BTreeSet::new());
    host.assert_sound("without the link");

    host.run("ip link set up0 down");
    host.run("ip link set up0 name wan");
    settle(host, "wan", 2);
    wait_proxies(host, &on("wan", &[&first]), "as soon as the link is there");
    wait_for("the router to reach the pod", || first.ips().into_iter().all(|ip| segment.reaches(ip)).then_some(()));
    let (_q, second) = host.attach("q");
    let both = on("wan", &[&first, &second]);
    assert_eq!(proxies(host, true), both);

    // The kernel forgets them with each of these.
    host.run("ip link set wan down");
    host.run("ip link set wan up");
    wait_proxies(host, &both, "taken down and up");
    host.run("ip link set wan down");
    host.run("ip link set wan name other");
    host.run("ip link set other up");
    wait_proxies(host, &BTreeSet::new(), "its name is another");
    host.run("ip link del other");
    host.run(&format!("ip link add wan type veth peer name up0 netns {}", segment.router.pid()));
    settle(&segment.router, "up0", 1);
    settle(host, "wan", 2);
    wait_proxies(host, &both, "another link has taken its place");
    wait_for("the router to reach the pod", || second.ips().into_iter().all(|ip| segment.reaches(ip)).then_some(()));
    host.assert_sound("with another link");
    host.del(&p).done();
    assert_eq!(proxies(host, true), on("wan", &[&second]));
    agent.stop();
}

#[test]
fn somebodys_own_proxy_entries_stay_also_those_of_an_address_that_a_pod_gets() {
    let segment = Segment::new();
    let host = &segment.host;
    let agent = start(host, Some("up0"));
    let (p, first) = host.attach("p");
    let (v6, v4) = (first.ipv6().expect("dual"), first.ipv4().expect("dual"));
    host.del(&p).done();
    for ip in [v6.to_string(), v4.to_string(), "10.25.214.9".into(), "2001:db8:1:f001::9".into()] {
        host.run(&format!("ip neigh add proxy {ip} dev up0"));
    }
    let foreign = proxies(host, false);
    assert_eq!(foreign.len(), 4);
    let again = host.add(&p).annotations(&[("cidr6", &format!("{v6}/128"))]).result();
    assert_eq!(again.ipv6(), Some(v6));
    segment.assert_reaches(&again, "by somebody's entry and by flock's");
    agent.rounds_of(COMPARES, 1);
    host.del(&p).done();
    agent.edit_config(&config(None));
    wait_proxies(host, &BTreeSet::new(), "switched off");
    agent.rounds_of(COMPARES, 1);
    assert_eq!(proxies(host, false), foreign);
    agent.stop();
}

// covers: FM-T05
#[test]
fn a_proxy_or_a_setting_that_somebody_takes_away_is_back_after_a_round_and_said() {
    let segment = Segment::new();
    let host = &segment.host;
    let agent = start(host, Some("up0"));
    let (_p, first) = host.attach("p");
    agent.rounds_of(COMPARES, 1);
    for ip in first.ips() {
        host.run(&format!("ip neigh del proxy {ip} dev up0"));
    }
    // Somebody makes one with flock's mark that no pod has.
    host.run("ip neigh add proxy 10.25.214.77 dev up1 protocol 102");
    host.run("sysctl -q net.ipv6.conf.up0.proxy_ndp=0 net.ipv4.neigh.up0.proxy_delay=80");
    agent.signal("HUP");
    agent.wait_log("neighbour proxies were changed by somebody, and are put back");
    wait_proxies(host, &on("up0", &[&first]), "after a round");
    host.assert_sound("after a round");
    let said = agent.wait_log("host had lost what pods need, and has it again");
    assert!(said.contains("net/ipv6/conf/up0/proxy_ndp=1") && said.contains("ipv4/neigh/up0/proxy_delay=0"), "{said}");
    segment.forget();
    segment.assert_reaches(&first, "after a round");
    host.run("sysctl -q net.ipv6.conf.up0.forwarding=0");
    agent.wait_log("sysctl -w net/ipv6/conf/up0/forwarding=1");
    agent.stop();
}

// covers: FM-T05
#[test]
fn an_agent_killed_at_any_point_between_link_and_record_leaves_no_proxy_without_a_pod() {
    let segment = Segment::new();
    let host = &segment.host;
    let mut agent = start(host, Some("up0"));
    let witness = host.attach("witness");
    let pod = host.pod("p");
    let near = |trace: &str, from: &str, to: &str| {
        let points = passes(trace.lines().filter(|point| point.starts_with("conn/")));
        let at = |name: &str| points.iter().position(|(point, _)| *point == format!("conn/{name}")).expect("passed");
        let (from, to) = (at(from), at(to));
        points[from..=to].to_vec()
    };
    host.start_trace();
    host.add(&pod).result();
    let added = near(&host.end_trace(), "neighbours.add", "answer");
    host.start_trace();
    host.del(&pod).done();
    let removed = near(&host.end_trace(), "unwire", "release");
    assert!(added.len() > 6 && removed.len() > 6, "{added:?} {removed:?}");
    for (operation, points) in [("ADD", added), ("DEL", removed)] {
        for (point, nth) in share(&format!("killed beside a proxy in {operation}"), &points) {
            if operation == "DEL" {
                host.add(&pod).result();
            }
            host.arm(&format!("{point} {nth} kill\n"));
            let mut caller = if operation == "ADD" { host.add(&pod).launch() } else { host.del(&pod).launch() };
            wait_for("the agent's death or the caller's end", || {
                (!host.is_armed() || caller.try_wait().expect("waitable").is_some()).then_some(())
            });
            if host.is_armed() {
                assert!(*nth > 1, "{point} was passed while it was traced, and not any more");
                host.disarm();
                agent.kill();
            } else {
                agent.wait();
            }
            caller.kill().ok();
            caller.wait().expect("waitable");
            let when = format!("killed in {operation} at {point} {nth}");
            agent = host.agent().keep_config().start();
            host.assert_sound(&format!("{when}, restarted"));
            host.del(&pod).done();
            wait_proxies(host, &on("up0", &[&witness.1]), &when);
            segment.assert_reaches(&witness.1, &when);
        }
    }
    host.del(&witness.0).done();
    host.assert_empty();
    agent.stop();
}
