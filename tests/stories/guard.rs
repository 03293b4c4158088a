//! A pod sends as itself or not at all, and tells the host nothing about the network.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::raw::Listener;
use crate::support::waiting::wait_for;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

/// The NodeConfig with these fields beside the ranges.
fn config(more: &Value) -> String {
    let mut spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": ["2001:db8:f::/48", "203.0.113.0/28"]});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    node_config_spec(spec)
}

/// Gives the pod's interface a further address, as a pod with CAP_NET_ADMIN can.
fn takes(pod: &Pod<'_>, ip: IpAddr) {
    pod.run(&format!("ip addr add {ip} dev eth0{}", if ip.is_ipv6() { " nodad" } else { "" }));
}

/// Takes from the pod's interface what [`takes`] gave it.
fn gives_up(pod: &Pod<'_>, ip: IpAddr) {
    pod.run(&format!("ip addr del {ip} dev eth0"));
}

/// How many links are checked; none without a table.
fn checked(host: &Host) -> Option<usize> {
    host.nft_sets("inet", "flock").get("links").map(Vec::len)
}

/// How often packets of the pod's link were dropped for their source, as the set `links` of this family's table counts.
fn dropped(host: &Host, family: &str, attached: &Attached) -> u64 {
    let sets = host.nft_sets(family, "flock");
    let of = |link: &&Value| link["elem"]["val"] == attached.host_link().as_str();
    let link = sets["links"].iter().find(of).expect("the pod's link");
    link["elem"]["counter"]["packets"].as_u64().expect("a counter")
}

/// The addresses of the other pod, the host, and of nobody, of one family.
fn foreign(other: &Attached, v6: bool) -> Vec<IpAddr> {
    let all = other.ips().into_iter().chain(host_addresses()).chain([ip("198.51.100.7"), ip("2001:db8:99::7")]);
    all.filter(|ip| ip.is_ipv6() == v6).collect()
}

// covers: FM-T01 FM-F05
#[test]
fn a_pod_that_takes_others_addresses_reaches_nobody_with_them() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (p, own) = host.attach("p");
    let (q, other) = host.attach("q");
    let far = [ip("2001:db8:77::7"), ip("192.0.2.77")];
    far.iter().for_each(|ip| drop(host.run(&format!("ip addr add {ip} dev lo"))));
    for v6 in [true, false] {
        let pick = |ips: Vec<IpAddr>| ips.into_iter().find(|ip| ip.is_ipv6() == v6).expect("of this family");
        let lies = foreign(&other, v6);
        lies.iter().for_each(|ip| takes(&p, *ip));
        let sources: Vec<IpAddr> = lies.iter().copied().chain([pick(own.ips())]).collect();
        // To the other pod it would be its own address.
        let elsewhere: Vec<IpAddr> = sources.iter().copied().filter(|ip| !other.ips().contains(ip)).collect();
        let before = dropped(&host, "inet", &own);
        let to_host = Listener::at(&host.netns(), pick(far.to_vec()));
        assert_eq!(p.speaks_as(&sources, &to_host), [pick(own.ips())], "at the host");
        gives_up(&p, pick(other.ips()));
        let to_pod = Listener::at(&q.netns(), pick(other.ips()));
        assert_eq!(p.speaks_as(&elsewhere, &to_pod), [pick(own.ips())], "at another pod");
        let lost = (lies.len() + elsewhere.len() - 1) as u64;
        assert_eq!(dropped(&host, "inet", &own) - before, lost, "each is counted for its link");
        elsewhere.iter().filter(|ip| !own.ips().contains(ip)).for_each(|ip| gives_up(&p, *ip));
    }
    assert_eq!(dropped(&host, "inet", &other), 0, "and for no other");
    host.assert_sound("two pods");
}

// covers: FM-T01
#[test]
fn a_pod_sends_with_its_further_and_shared_addresses_and_those_of_its_other_interface() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&config(&json!({})))).start();
    let pod = host.pod("p");
    let named = [("addresses", "203.0.113.5,2001:db8:f::5"), ("anycast", "203.0.113.9,2001:db8:f::9")];
    let first = host.add(&pod).annotations(&named).result();
    let second = host.add(&pod).ifname("net1").result();
    let mut mine = first.ips();
    mine.extend(["203.0.113.5", "2001:db8:f::5", "203.0.113.9", "2001:db8:f::9"].map(ip));
    // The way out of the pod is eth0's, also for an answer to what came by net1.
    mine.extend(second.ips());
    for v6 in [true, false] {
        let sources: Vec<IpAddr> = mine.iter().copied().filter(|ip| ip.is_ipv6() == v6).collect();
        let at = host_addresses().into_iter().find(|ip| ip.is_ipv6() == v6).expect("of this family");
        assert_eq!(pod.speaks_as(&sources, &Listener::at(&host.netns(), at)), sources);
    }
    assert_eq!(dropped(&host, "inet", &first), 0);
    host.assert_sound("a pod with two interfaces");
    host.del(&pod).ifname("net1").done();
    host.assert_sound("one interface less");
    let sources = [second.ipv4().expect("IPv4"), first.ipv4().expect("IPv4")];
    takes(&pod, sources[0]);
    let heard = pod.speaks_as(&sources, &Listener::at(&host.netns(), host_addresses()[1]));
    assert_eq!(heard, sources[1..], "what the other interface had is nobody's");
}

// covers: FM-T02
#[test]
fn who_asks_for_neighbours_with_changing_senders_leaves_no_trace_in_the_hosts_table() {
    let host = Host::new();
    let agent = host.agent().start();
    let (p, attached) = host.attach("p");
    let gateway = ip("169.254.1.1");
    let known = || {
        let text = host.run(&format!("ip neigh show dev {}", attached.host_link()));
        // The pod itself is known by its link-local address, which its kernel speaks with.
        let strange = |line: &&str| !line.contains("PERMANENT") && !line.contains("NOARP");
        text.lines().filter(strange).map(str::to_owned).collect::<Vec<String>>()
    };
    let before = known();
    p.floods_arp(gateway, 100);
    p.floods_solicitations(100);
    assert_eq!(known(), before);
    assert_eq!((dropped(&host, "arp", &attached), dropped(&host, "inet", &attached)), (100, 100));
    p.assert_pings(host_addresses());
    // Without the check each of them is somebody whom the host has to remember.
    agent.edit_config(&config(&json!({"sourceCheck": false})));
    wait_for("the check to be off", || checked(&host).is_none().then_some(()));
    p.floods_arp(gateway, 100);
    p.floods_solicitations(100);
    wait_for("the flood to arrive", || (known().len() >= 200).then_some(()));
}

#[test]
fn what_a_pod_says_of_routers_is_dropped_before_the_host_looks_at_it() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (p, _) = host.attach("p");
    let counted = || host.run("nft list chain inet flock guard").matches("packets 1 ").count();
    assert_eq!(counted(), 0);
    p.advertises_itself_as_a_router();
    assert_eq!(counted(), 2, "{}", host.run("nft list chain inet flock guard"));
}

// covers: FM-B07 FM-B24
#[test]
fn somebody_who_flushes_the_ruleset_is_answered_at_once_and_said() {
    for damage in [
        "flush ruleset",
        "delete table inet flock",
        "delete table arp flock",
        "flush set inet flock src4",
        "flush chain inet flock source",
        "add element inet flock src4 { flock00000000 . 192.0.2.1 }",
        "insert rule inet flock source accept",
        "add chain inet flock foreign",
    ] {
        let host = Host::new();
        let agent = host.agent().start();
        let pods = host.attach_all(["p", "q"]);
        host.run_nft(damage);
        agent.wait_log("somebody has changed flock's tables, they are put back");
        host.assert_sound(damage);
        let rules = host.run("nft list table inet flock");
        assert!(!rules.contains("foreign") && rules.matches("accept").count() >= 5, "{damage}: {rules}");
        pods[0].0.assert_pings(pods[1].1.ips());
        // Another's table is another's.
        host.run_nft("add table inet flock_of_somebody; add set inet flock_of_somebody links { type ifname; }");
        host.assert_sound("a foreign table");
        host.run("nft list table inet flock_of_somebody");
    }
}

#[test]
fn a_node_without_pods_or_without_the_check_has_no_table() {
    let host = Host::new();
    let agent = host.agent().start();
    assert_eq!(host.run("nft list ruleset"), "");
    let (p, own) = host.attach("p");
    assert_eq!(checked(&host), Some(1));
    agent.edit_config(&config(&json!({"sourceCheck": false})));
    wait_for("the check to be off", || host.run("nft list ruleset").is_empty().then_some(()));
    let (_q, other) = host.attach("q");
    assert_eq!(host.run("nft list ruleset"), "");
    // The host takes nothing from an address of its own.
    let lies: Vec<IpAddr> = foreign(&other, false).into_iter().filter(|ip| !host_addresses().contains(ip)).collect();
    lies.iter().for_each(|ip| takes(&p, *ip));
    let sources: Vec<IpAddr> = lies.into_iter().chain(own.ipv4()).collect();
    assert_eq!(
        p.speaks_as(&sources, &Listener::at(&host.netns(), host_addresses()[1])),
        sources,
        "as the owner wants it"
    );
    sources.iter().filter(|ip| own.ipv4() != Some(**ip)).for_each(|ip| gives_up(&p, *ip));
    agent.edit_config(&config(&json!({})));
    wait_for("the check to be on", || (checked(&host) == Some(2)).then_some(()));
    host.assert_sound("switched on");
}

#[test]
fn a_router_pod_sends_for_others_where_the_owner_lists_its_namespace() {
    let host = Host::new();
    let agent = host.agent().config(Some(&config(&json!({"sourceAnyNamespaces": ["vpn"]})))).start();
    let any = [("source", "any")];
    let pod = host.pod("p");
    let refused = host.add(&pod).annotations(&any).error();
    assert!(refused.text().contains("spec.sourceAnyNamespaces of NodeConfig host001"), "{refused:?}");
    let own = host.add(&pod).kubernetes("vpn", "p").annotations(&any).result();
    let stranger = ip("198.51.100.7");
    takes(&pod, stranger);
    let sources = [stranger, own.ipv4().expect("IPv4")];
    let listener = Listener::at(&host.netns(), host_addresses()[1]);
    assert_eq!(pod.speaks_as(&sources, &listener), sources);
    // That is remembered.
    agent.kill();
    let _agent = host.agent().keep_config().start();
    let (_q, _) = host.attach("q");
    assert_eq!(pod.speaks_as(&sources, &listener), sources);
    gives_up(&pod, stranger);
    host.assert_sound("the next agent");
}

#[test]
fn the_check_goes_on_while_the_agent_is_away_and_the_next_one_finds_it() {
    let host = Host::new();
    let agent = host.agent().start();
    let (p, own) = host.attach("p");
    let handle = || host.run("nft -a list chain inet flock source");
    let before = handle();
    agent.kill();
    let stranger = ip("198.51.100.7");
    takes(&p, stranger);
    let sources = [stranger, own.ipv4().expect("IPv4")];
    let listener = Listener::at(&host.netns(), host_addresses()[1]);
    assert_eq!(p.speaks_as(&sources, &listener), sources[1..]);
    gives_up(&p, stranger);
    let agent = host.agent().start();
    let (q, _) = host.attach("q");
    assert_eq!(handle(), before, "nothing is made anew that stands");
    host.del(&q).done();
    host.del(&p).done();
    host.assert_empty();
    agent.rounds_of("policing/tables.compare", 1);
    assert_eq!(host.run("nft list ruleset"), "");
}

/// A kernel without nf_tables.
const NO_TABLES: &str = "*/nftables.open * errno 93\n";

// covers: FM-K04
#[test]
fn a_node_whose_kernel_lacks_nf_tables_is_not_ready_and_serves_once_it_is_loaded() {
    let host = Host::new();
    host.run("mkdir -p /run/net.d");
    host.arm(NO_TABLES);
    let agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    agent.wait_log("what pods may send and receive cannot be set");
    let remedy = "source check and policies cannot be set; open a socket to the packet filter: this kernel lacks nf_tables: \
                  modprobe nf_tables, or let pods send and receive what they like: spec.sourceCheck: false and spec.policy.mode: none \
                  of the NodeConfig";
    let error = host.cni("STATUS").error();
    assert_eq!((error.code, error.details.as_str()), (50, remedy));
    let pod = host.pod("p");
    assert_eq!(host.add(&pod).error().text(), remedy);
    host.assert_empty();
    let conflist = host.path("/run/net.d/01-flock.conflist");
    assert!(!conflist.exists(), "a runtime that finds it takes the node for ready");
    host.disarm();
    agent.signal("HUP");
    wait_for("the CNI configuration", || conflist.exists().then_some(()));
    host.cni("STATUS").done();
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
    host.assert_sound("once it is loaded");
    let log = agent.stop();
    assert_eq!(log.matches("what pods may send and receive cannot be set").count(), 1, "{log}");
}

// covers: FM-K04
#[test]
fn a_node_that_checks_nothing_needs_no_nf_tables_until_it_checks_again() {
    let host = Host::new();
    host.arm(NO_TABLES);
    host.start_trace();
    let off = config(&json!({"sourceCheck": false, "policy": {"mode": "none"}}));
    let agent = host.agent().config(Some(&off)).start();
    host.wait_point("policing/nftables.open", 1);
    host.cni("STATUS").done();
    let (p, _) = host.attach("p");
    p.assert_pings(host_addresses());
    host.del(&p).done();
    let asked = || host.end_trace().lines().filter(|point| point.starts_with("policing/nftables.")).count();
    assert_eq!(asked(), 1, "whether there is anything to remove, once");
    host.start_trace();
    agent.signal("HUP");
    host.wait_point("policing/tables.compare", 1);
    assert_eq!(asked(), 0);
    let ready = || host.cni("STATUS").run().output.status.success();
    agent.edit_config(&config(&json!({})));
    wait_for("the node not to be ready", || (!ready()).then_some(()));
    host.disarm();
    agent.signal("HUP");
    wait_for("the node to be ready", || ready().then_some(()));
    let (q, _) = host.attach("q");
    q.assert_pings(host_addresses());
    host.assert_sound("checked again");
}

// covers: FM-T02
#[test]
fn a_kernel_that_remembers_too_few_neighbours_for_the_pods_is_said_with_the_setting() {
    let host = Host::new();
    // Only the first network namespace shows it.
    let neighbours = "/proc/sys/net/ipv4/neigh";
    host.script(&format!(
        "mount -t tmpfs tmpfs {neighbours}; mkdir {neighbours}/default; echo 512 >{neighbours}/default/gc_thresh3"
    ));
    let agent = host.agent().start();
    let line = agent.wait_log("net.ipv4.neigh.default.gc_thresh3 is 512");
    assert!(line.contains("256 pods") && line.contains("sysctl -w net.ipv4.neigh.default.gc_thresh3=1024"), "{line}");
    assert!(!agent.stop().contains("ipv6.neigh"), "what is not shown is not judged");
}

/// What a link is called says nothing.
#[test]
fn a_link_of_somebody_else_that_is_named_like_a_pods_is_left_alone() {
    let host = Host::new();
    let _agent = host.agent().start();
    let _pods = host.attach_all(["p"]);
    host.run("ip netns add other");
    host.run("ip link add flock7 type veth peer name eth0 netns other");
    host.run("ip link set flock7 up");
    host.run("ip addr add 192.0.2.1/24 dev flock7");
    let other = Pod { host: &host, name: "other".into() };
    other.run("ip link set eth0 up");
    other.run("ip addr add 192.0.2.2/24 dev eth0");
    wait_for("the link to work", || other.pings(ip("192.0.2.1")).then_some(()));
    let listener = Listener::at(&host.netns(), ip("192.0.2.1"));
    assert_eq!(other.speaks_as(&[ip("192.0.2.2")], &listener), [ip("192.0.2.2")]);
}
