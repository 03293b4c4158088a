//! Stories of a node: the real agent, the real plugin, real namespaces. Here: what a pod gets, and how it gives it back.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use model::addr::Attachment;
use serde_json::Value;

use crate::support::host::{HOST4, HOST6, Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config, node_config_spec};
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON of ip")
}

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

// covers: FM-B10
#[test]
fn the_very_first_packet_of_each_of_fifty_pods_arrives() {
    let host = Host::new();
    let _agent = host.agent().start();
    let mut before = host_addresses().to_vec();
    for n in 0..50 {
        let pod = host.pod(&format!("pod{n}"));
        let attached = host.add(&pod).result();
        // To the pod before this one, which has not said anything to it yet, and to the host.
        pod.assert_pings(before);
        pod.assert_pings(host_addresses());
        before = attached.ips();
    }
}

// covers: FM-B12
#[test]
fn a_pod_that_forgets_its_neighbours_finds_them_again() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let first = host.add(&a).result();
    let other = host.add(&b).result();
    for flush in ["ip neigh flush all nud all", "ip neigh flush dev eth0 nud permanent"] {
        for family in ["-4", "-6"] {
            a.script(&flush.replace("ip ", &format!("ip {family} ")));
        }
        assert_eq!(a.run("ip neigh show nud permanent"), "");
        a.assert_pings(host_addresses());
        a.assert_pings(other.ips());
    }
    // And the host's side of the same link.
    for family in ["-4", "-6"] {
        host.run(&format!("ip {family} neigh flush dev {} nud permanent", first.host_link()));
    }
    b.assert_pings(first.ips());
}

// covers: FM-B12
#[test]
fn a_machine_behind_a_bridge_in_the_pod_takes_over_the_pods_addresses() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (pod, vm) = (host.pod("pod"), host.pod("vm"));
    let attached = host.add(&pod).result();
    let mac = json(&pod.run("ip -j link show eth0"))[0]["address"].as_str().expect("a MAC").to_owned();
    let (v6, v4) = (attached.ipv6().expect("IPv6"), attached.ipv4().expect("IPv4"));
    pod.script(
        "ip addr flush dev eth0; ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; \
         ip link add br0 type bridge; ip link add v0 type veth peer name v1; ip link set v1 netns vm; \
         for l in eth0 v0; do ip link set $l master br0; ip link set $l up; done; ip link set br0 up",
    );
    vm.script(&format!(
        "ip link set v1 address {mac}; ip link set v1 up; ip addr add {v4}/32 dev v1; \
             ip -6 addr add {v6}/128 dev v1 nodad; \
             ip route add default via 169.254.1.1 dev v1 onlink; ip -6 route add default via fe80::1 dev v1"
    ));
    wait_for("the bridge to forward", || pod.script("bridge link show").matches("state forwarding").nth(1).map(|_| ()));
    wait_for("the machine's own link-local address", || {
        let shown = vm.run("ip -6 addr show dev v1 scope link");
        (shown.contains("fe80") && !shown.contains("tentative")).then_some(())
    });
    assert_eq!(vm.run("ip neigh show nud permanent"), "");
    vm.assert_pings(host_addresses());
}

// covers: FM-B22
#[test]
fn two_hundred_pods_at_once_get_addresses_of_their_own_and_give_them_all_back() {
    let host = Host::new();
    let _agent = host.agent().start();
    succeed(host.command("sh").args(["-ec", "for n in $(seq 200); do ip netns add p$n; done"]));
    let pods: Vec<Pod<'_>> = (1..=200).map(|n| Pod { host: &host, name: format!("p{n}") }).collect();
    let at_once = |work: &(dyn Fn(usize, &Pod<'_>) + Sync)| {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                        work(next.load(Ordering::Relaxed), pod);
                    }
                });
            }
        });
    };
    let results = std::sync::Mutex::new(HashMap::new());
    at_once(&|_, pod| {
        let attached = host.add(pod).result();
        results.lock().unwrap().insert(pod.name.clone(), attached.ips());
    });
    let results = results.into_inner().unwrap();
    let all: BTreeSet<IpAddr> = results.values().flatten().copied().collect();
    assert_eq!(all.len(), 400, "an address was given twice");
    assert_eq!(host.leases().len(), 200);
    assert_eq!(host.flock_links().len(), 200);
    for (n, pod) in pods.iter().enumerate().step_by(10) {
        pod.assert_pings(host_addresses());
        pod.assert_pings(results[&pods[(n + 77) % 200].name].iter().copied());
    }
    at_once(&|_, pod| host.del(pod).done());
    host.assert_empty();
}

#[test]
fn the_first_pods_of_a_node_may_come_all_at_once() {
    for _ in 0..8 {
        let host = Host::new();
        let agent = host.agent().start();
        let pods: Vec<Pod<'_>> = (0..16).map(|n| host.pod(&format!("p{n}"))).collect();
        thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| host.add(pod).result());
            }
        });
        let forwarding = host.run("grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf --include=forwarding");
        let off: Vec<&str> = forwarding.lines().filter(|line| line.ends_with(":0")).collect();
        assert_eq!(off, Vec::<&str>::new(), "the host does not forward everywhere");
        assert_eq!(agent.log().matches("host prepared").count(), 1, "{}", agent.log());
    }
}

// covers: FM-B18
#[test]
fn pod_links_have_the_mtu_of_the_node_config() {
    let host = Host::new();
    let config = node_config_spec(serde_json::json!({"cidr6": CIDR6, "cidr4": CIDR4, "mtu": 1380}));
    let _agent = host.agent().config(Some(&config)).start();
    let pod = host.pod("p");
    let attached = host.add(&pod).result();
    assert_eq!(json(&pod.run("ip -j link show eth0"))[0]["mtu"], 1380);
    assert_eq!(json(&host.run(&format!("ip -j link show {}", attached.host_link())))[0]["mtu"], 1380);
}

// covers: FM-B18
#[test]
fn pod_links_have_the_mtu_of_the_uplink_where_the_node_config_has_none() {
    let host = Host::new();
    for line in [
        "ip link add up0 mtu 1400 type veth peer name up1 mtu 1400",
        "ip link set up0 up",
        "ip link set up1 up",
        "ip addr add 192.0.2.1/24 dev up0",
        "ip route add default via 192.0.2.254",
    ] {
        host.run(line);
    }
    let _agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    assert_eq!(json(&pod.run("ip -j link show eth0"))[0]["mtu"], 1400);
}

// covers: FM-B10
#[test]
fn no_address_is_tentative_when_add_returns() {
    let host = Host::new();
    let _agent = host.agent().start();
    for n in 0..10 {
        let pod = host.pod(&format!("p{n}"));
        pod.script("cd /proc/sys/net/ipv6/conf/default; echo 2 >accept_dad; echo 3 >dad_transmits; echo 0 >optimistic_dad || :",
        );
        let attached = host.add(&pod).result();
        let shown = pod.run("ip -6 addr show tentative") + &pod.run("ip -6 addr show dadfailed");
        assert_eq!(shown, "");
        assert_eq!(host.run(&format!("ip -6 addr show dev {} tentative", attached.host_link())), "");
    }
}

// covers: FM-B19
#[test]
fn a_pod_whose_namespace_has_ipv6_off_by_default_gets_ipv6() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    pod.script(
        "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
    );
    let attached = host.add(&pod).result();
    assert!(attached.ipv6().is_some());
    pod.assert_pings(host_addresses());
}

// covers: FM-B19
#[test]
fn a_host_with_ipv6_off_for_new_links_serves_pods_of_both_families() {
    let host = Host::new();
    succeed(host.command("sh").args(["-ec", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"]));
    let _agent = host.agent().start();
    let pod = host.pod("p");
    assert_eq!(host.add(&pod).result().ips().len(), 2);
    pod.assert_pings(host_addresses());
    let only4 = host.pod("q");
    host.add(&only4).annotations(&[("ipv6", "false")]).result();
    assert!(only4.pings(HOST4.parse().expect("literal")));
}

#[test]
fn an_interface_name_that_the_pod_uses_already_is_refused_and_the_interface_stays() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (first, pod) = (host.pod("first"), host.pod("p"));
    host.add(&first).result();
    pod.run("ip link add eth0 type veth peer name other");
    let looks =
        || [host.run("ip -d link"), host.run("ip route show table all"), host.run("ip -6 route show table all")];
    wait_for("the first pod's link to be in state UP", || {
        looks()[0].contains("@if2: <BROADCAST,MULTICAST,UP,LOWER_UP>").then_some(())
    });
    // The routes that tell others of the node's ranges come beside the first ADD.
    wait_for("table 102", || looks()[1..].iter().all(|routes| routes.contains("table 102")).then_some(()));
    let links = pod.run("ip -d link");
    let (routes, leases) = (looks()[1..].to_vec(), host.leases());
    let error = host.add(&pod).error();
    assert_eq!(error.code, 4, "{error:?}");
    assert!(error.text().contains("eth0"), "{error:?}");
    assert_eq!(host.flock_links().len(), 1);
    assert_eq!((looks()[1..].to_vec(), host.leases()), (routes, leases));
    host.del(&pod).done();
    assert_eq!(pod.run("ip -d link"), links);
    // The name becomes free, and the same ADD works.
    pod.run("ip link del eth0");
    host.add(&pod).result();
}

// covers: FM-A11
#[test]
fn a_foreign_link_with_the_name_of_a_pods_host_end_survives_add_and_del() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let name = "p/eth0".parse::<Attachment>().expect("a key").host_link(0);
    host.run(&format!("ip link add {name} type veth peer name other"));
    let before = host.run("ip -d link");
    let error = host.add(&pod).error();
    assert!(error.text().contains(name.as_str()), "{error:?}");
    assert_eq!(host.leases(), []);
    host.del(&pod).done();
    assert_eq!(host.run("ip -d link"), before);
    assert_eq!(pod.run("ip -o link").lines().count(), 1, "the pod has lo and nothing else");
}

#[test]
fn a_second_add_is_refused_and_the_first_keeps_working() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (pod, other) = (host.pod("p"), host.pod("other"));
    let attached = host.add(&pod).result();
    for again in [host.add(&pod), host.add(&pod).netns(&other.path())] {
        let error = again.error();
        assert_eq!(error.code, 4, "{error:?}");
        assert!(error.text().contains("attached already"), "{error:?}");
    }
    assert_eq!(host.leases().len(), 1);
    assert_eq!(other.run("ip -o link").lines().count(), 1);
    pod.assert_pings(host_addresses());
    host.add(&other).result();
    other.assert_pings(attached.ips());
}

// covers: FM-A11
#[test]
fn two_containers_whose_link_names_meet_live_side_by_side() {
    // Some 77 000 ids make a meeting in 32 bits as likely as not; this walk is the same each time.
    let mut seen = HashMap::new();
    let (one, two) = (0u32..)
        .find_map(|n| {
            let id = format!("c{n}");
            let name = format!("{id}/eth0").parse::<Attachment>().expect("a key").host_link(0);
            seen.insert(name, id.clone()).map(|other| (other, id))
        })
        .expect("there are more ids than names");
    let host = Host::new();
    let agent = host.agent().start();
    let (a, b) = (host.pod(&one), host.pod(&two));
    let first = host.add(&a).result();
    let second = host.add(&b).result();
    assert_ne!(first.host_link(), second.host_link());
    a.assert_pings(second.ips());
    agent.kill();
    let _agent = host.agent().start();
    a.assert_pings(second.ips());
    host.del(&a).done();
    b.assert_pings(host_addresses());
    host.del(&b).done();
    host.assert_empty();
}

#[test]
fn a_container_can_have_two_interfaces_and_lose_one() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (pod, other) = (host.pod("p"), host.pod("other"));
    let eth0 = host.add(&pod).result();
    let net1 = host.add(&pod).ifname("net1").result();
    host.add(&other).result();
    let all: BTreeSet<IpAddr> = eth0.ips().into_iter().chain(net1.ips()).collect();
    assert_eq!(all.len(), 4);
    other.assert_pings(all);
    host.del(&pod).ifname("net1").done();
    assert_eq!(host.flock_links().len(), 2);
    other.assert_pings(eth0.ips());
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    host.del(&other).done();
    host.assert_empty();
}

// covers: FM-B20
#[test]
fn del_works_whatever_became_of_the_namespace_and_never_looks_into_another() {
    let host = Host::new();
    let _agent = host.agent().start();
    let bystander = host.pod("bystander");
    let kept = host.add(&bystander).result();
    type Spoiler = fn(Cni<'_>) -> Cni<'_>;
    let spoilers: [(&str, Spoiler); 4] = [
        ("empty", |del| del.netns("")),
        ("absent", |del| del.no_env("CNI_NETNS")),
        ("elsewhere", |del| del.netns("/run/netns/nowhere")),
        ("another", |del| del.netns("/run/netns/bystander")),
    ];
    for (name, spoil) in spoilers {
        let pod = host.pod(name);
        host.add(&pod).result();
        // In containerd's words: the same delete may come any number of times.
        for _ in 0..3 {
            spoil(host.del(&pod)).done();
        }
        assert_eq!(host.leases().len(), 1, "{name}");
        assert_eq!(host.flock_links(), [kept.host_link()], "{name}");
        bystander.assert_pings(host_addresses());
    }
    let gone = host.pod("gone");
    host.add(&gone).result();
    gone.vanish();
    host.del(&gone).done();
    host.cni("DEL").container("never-seen").ifname("eth0").done();
    assert_eq!(host.leases().len(), 1);
    host.del(&bystander).done();
    host.assert_empty();
}

// covers: FM-B20
#[test]
fn a_namespace_path_that_cannot_hold_a_pod_is_refused_and_nothing_is_allocated() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    host.run("mkfifo /run/fifo");
    host.run("ln -s /proc/self/ns/uts /run/uts");
    for (path, code) in [("/run/netns/nowhere", 4), ("/run/fifo", 4), ("/run/node.yaml", 4), ("/proc/self/ns/net", 8)] {
        let error = host.add(&pod).netns(path).error();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.text().contains(path), "{error:?}");
    }
    assert_eq!((host.leases(), host.flock_links()), (vec![], vec![]));
    host.add(&pod).result();
}

// covers: FM-B01
#[test]
fn a_foreign_route_for_the_only_free_address_fails_the_add_and_stays() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&node_config("", "10.25.214.0/30"))).start();
    host.run("ip route add 10.25.214.2/32 dev lo proto static");
    let before = host.run("ip route show 10.25.214.2");
    let pod = host.pod("p");
    let error = host.add(&pod).error();
    assert_eq!(error.msg, "no free address");
    assert!(error.details.contains("10.25.214.0/30") && error.details.contains("the host has 1"), "{error:?}");
    host.assert_empty();
    assert_eq!(host.run("ip route show 10.25.214.2"), before);
    host.run("ip route del 10.25.214.2");
    let attached = wait_for("the address to be free again", || {
        let outcome = host.add(&pod).run();
        outcome.output.status.success().then(|| outcome.succeeded())
    });
    assert!(attached.contains("10.25.214.2/32"), "{attached}");
}

#[test]
fn a_full_range_says_so_and_takes_the_next_pod_when_one_has_gone() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&node_config("", "10.25.214.0/30"))).start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let attached = host.add(&a).result();
    assert_eq!(attached.ips(), ["10.25.214.2".parse::<IpAddr>().expect("literal")]);
    for _ in 0..3 {
        let error = host.add(&b).error();
        assert_eq!(error.code, 11, "{error:?}");
        assert!(error.text().contains("no free address") && error.text().contains("10.25.214.0/30"), "{error:?}");
        host.del(&b).done();
    }
    host.cni("STATUS").done();
    host.del(&a).done();
    assert_eq!(host.add(&b).result().ips(), attached.ips());
    b.assert_pings([HOST4.parse().expect("literal")]);
}

// covers: FM-A12
#[test]
fn when_one_family_is_exhausted_the_other_gives_nothing_away() {
    for (cidr6, cidr4, full, left) in [
        // 10.25.214.0/30 has one address; 2001:db8:1:f001::/126 has a few.
        ("2001:db8:1:f001::/64", "10.25.214.0/30", "ipv4", "ipv6"),
        ("2001:db8:1:f001::/126", "10.25.214.0/29", "ipv6", "ipv4"),
    ] {
        let host = Host::new();
        let _agent = host.agent().config(Some(&node_config(cidr6, cidr4))).start();
        let mut count = 0;
        loop {
            let pod = host.pod(&format!("full{count}"));
            if host.add(&pod).annotations(&[(left, "false")]).run().output.status.success() {
                count += 1;
            } else {
                break;
            }
        }
        assert!((1..=4).contains(&count), "{count} addresses of {full}");
        let before = host.leases();
        let pod = host.pod("both");
        for _ in 0..20 {
            let error = host.add(&pod).error();
            assert_eq!(error.code, 11, "{error:?}");
        }
        assert_eq!(host.leases(), before);
        // All five of the /29 are still to be had, the first one included.
        if left == "ipv4" {
            let ips: BTreeSet<IpAddr> = (0..5)
                .flat_map(|n| host.add(&host.pod(&format!("v4-{n}"))).annotations(&[("ipv6", "false")]).result().ips())
                .collect();
            assert_eq!(ips.len(), 5);
        } else {
            host.add(&pod).annotations(&[("ipv4", "false")]).result();
        }
    }
}

// covers: FM-A07
#[test]
fn garbage_collection_removes_the_dead_keeps_the_living_and_minds_its_own_network() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pods = ["valid", "alive", "dead", "foreign"].map(|name| host.pod(name));
    let [valid, alive, dead, foreign] = &pods;
    for pod in [valid, alive, dead] {
        host.add(pod).result();
    }
    host.add(foreign).conf("name", "other".into()).result();
    for pod in [dead, foreign] {
        pod.vanish();
    }
    wait_for("the links to go with their namespaces", || (host.flock_links().len() == 2).then_some(()));
    let list = serde_json::json!([{"containerID": "valid", "ifname": "eth0"}]);
    let error = host.cni("GC").conf("cni.dev/valid-attachments", list).error();
    assert!(error.text().contains("alive/eth0 is alive"), "{error:?}");
    let left: Vec<String> = host.leases().iter().map(|lease| lease.attachment.to_string()).collect();
    assert_eq!(left, ["alive/eth0", "foreign/eth0", "valid/eth0"]);
    for pod in [valid, alive] {
        pod.assert_pings(host_addresses());
    }
    let all = serde_json::json!([
        {"containerID": "valid", "ifname": "eth0"},
        {"containerID": "alive", "ifname": "eth0"},
    ]);
    host.cni("GC").conf("cni.dev/valid-attachments", all).done();
    host.cni("GC").conf("name", "other".into()).conf("cni.dev/valid-attachments", serde_json::json!([])).done();
    assert_eq!(host.leases().len(), 2);
}

// covers: FM-L04
#[test]
fn check_tells_a_working_pod_from_a_damaged_one() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let attached = host.add(&pod).result();
    let check = || {
        let call = host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0").kubernetes("default", "p");
        call.conf("prevResult", attached.result.clone())
    };
    check().done();
    let v4 = attached.ipv4().expect("IPv4");
    let link = attached.host_link();
    // Later plugins of a chain may set another MTU.
    pod.run("ip link set eth0 mtu 1300");
    check().done();
    let v6 = attached.ipv6().expect("IPv6");
    let mac = |interface: usize| attached.result["interfaces"][interface]["mac"].as_str().expect("a MAC").to_owned();
    let (host_mac, pod_mac) = (mac(0), mac(1));
    let neighbours = format!(
        "ip neigh replace 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent; ip neigh replace fe80::1 lladdr {host_mac} dev eth0 nud permanent"
    );
    let default4 = "ip route replace default via 169.254.1.1 dev eth0 onlink";
    let link_local = pod.run("ip -6 -o addr show dev eth0 scope link");
    let link_local = link_local.split_whitespace().nth(3).expect("an address").to_owned();
    // What the kernel announces of the host end is put back at once; the damages there are such as it does not announce.
    for (where_, harm, heal, why) in [
        (
            "pod",
            format!("ip addr del {v4}/32 dev eth0"),
            // The kernel takes the default route and the neighbours along with the last address.
            format!("ip addr add {v4}/32 dev eth0; {default4}; {neighbours}"),
            "lacks the address",
        ),
        (
            "pod",
            "ip -6 route del default".into(),
            "ip -6 route add default via fe80::1 dev eth0".into(),
            "default route",
        ),
        (
            "pod",
            "ip link set eth0 down".into(),
            format!(
                "ip link set eth0 up; ip -6 addr replace {link_local} dev eth0 nodad; ip -6 addr replace {v6}/128 dev eth0 nodad; \
                 ip -6 route replace default via fe80::1 dev eth0; {default4}; {neighbours}"
            ),
            "is down",
        ),
        ("pod", "ip neigh del fe80::1 dev eth0".into(), neighbours.clone(), "lacks the neighbour fe80::1"),
        ("pod", "ip neigh flush all nud permanent".into(), neighbours.clone(), "lacks the neighbour 169.254.1.1"),
        (
            "pod",
            "ip link set eth0 address 02:00:00:00:00:01".into(),
            format!("ip link set eth0 address {pod_mac}; {neighbours}"),
            "lacks the hardware address",
        ),
        (
            "host",
            format!("ip link set {link} address 02:00:00:00:00:02"),
            // The kernel takes the neighbours along with the old one.
            format!(
                "ip link set {link} address {host_mac}; ip neigh replace {v4} dev {link} lladdr {pod_mac} nud permanent; \
                 ip neigh replace {v6} dev {link} lladdr {pod_mac} nud permanent"
            ),
            "lacks the hardware address",
        ),
        (
            "host",
            format!("ip neigh del {v4} dev {link}"),
            format!("ip neigh replace {v4} dev {link} lladdr {pod_mac} nud permanent"),
            "lacks the neighbour",
        ),
        (
            "host",
            format!("sysctl -q net.ipv6.conf.{link}.accept_ra=2"),
            format!("sysctl -q net.ipv6.conf.{link}.accept_ra=0"),
            "lacks the IPv6 accept_ra=0",
        ),
        (
            "host",
            format!("sysctl -q net.ipv4.conf.{link}.accept_local=1"),
            format!("sysctl -q net.ipv4.conf.{link}.accept_local=0"),
            "lacks the IPv4 accept_local=0",
        ),
        (
            "host",
            format!("ip link set {link} alias x"),
            format!("ip link set {link} alias flock:p/eth0"),
            "lacks the alias",
        ),
    ] {
        let run = |line: &str| match where_ {
            "pod" => pod.script(line),
            _ => succeed(host.command("sh").args(["-ec", line])),
        };
        run(&harm);
        let error = check().error();
        assert!(error.text().contains(why), "{harm}: {error:?}");
        run(&heal);
        check().done();
    }
    host.del(&pod).done();
    assert_eq!(check().error().code, 3);
}
