//! flock with the reference plugins behind it: host ports that pass traffic, bandwidth that is limited, settings that are
//! made, and nothing of it left after DEL.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::node::{
    MACHINE4, MACHINE6, NET_D, NEWEST, Node, RELEASES, Runtime, Service, at, flock, list, machine, newest_plugin,
};
use crate::support::host::{HOST4, HOST6, host_addresses};
use crate::support::machine::Machine;
use crate::support::pod::Pod;
use crate::support::programs::put_script;

/// Which build of the reference plugins, and which backend of portmap.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    debian: bool,
    backend: Option<&'static str>,
    /// The newest version of the specification that these plugins know.
    newest: &'static str,
    /// What CHECK finds wrong with a host port though nothing is: 1.1.1 looks for the rules of each family among those of
    /// the other, too.
    false_alarm: Option<&'static str>,
}

impl Kind {
    /// CHECK of a pod with a host port, to which nobody has done anything.
    #[track_caller]
    fn check(self, runtime: &Runtime<'_>, pod: &Pod<'_>, what: &str) {
        match self.false_alarm {
            None => runtime.check(pod),
            Some(text) => assert!(runtime.call("check", pod).failed().contains(text), "{what}"),
        }
    }
}

const NFTABLES: Kind =
    Kind { name: "1.9.1, nftables", debian: false, backend: Some("nftables"), newest: "1.1.0", false_alarm: None };
const KINDS: [Kind; 3] = [
    NFTABLES,
    Kind { name: "1.9.1, iptables", debian: false, backend: None, newest: "1.1.0", false_alarm: None },
    Kind {
        name: "Debian's 1.1.1, iptables",
        debian: true,
        backend: None,
        newest: "1.0.0",
        false_alarm: Some("could not check ipv"),
    },
];

const MBIT: u64 = 1_000_000;

/// The list [flock, portmap, bandwidth, tuning] with these plugins in place.
fn chain<'a>(node: &'a Node, kind: Kind, version: &str) -> Runtime<'a> {
    for name in ["portmap", "bandwidth", "tuning"] {
        if kind.debian {
            node.debian_plugin(name);
        } else {
            node.plugin(name, &newest_plugin(name));
        }
    }
    let mut portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    if let Some(backend) = kind.backend {
        portmap["backend"] = json!(backend);
    }
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    let tuning = json!({
        "type": "tuning", "mtu": 1400, "promisc": true, "dataDir": "/run/tuning",
        "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500"},
    });
    let conf = node.conf("chain.conflist", &list(version, &[flock(), portmap, bandwidth, tuning]));
    node.runtime(NEWEST).conf(&conf)
}

/// As kubelet's runtimes ask for bandwidth: both directions, in bits.
fn bandwidth() -> Value {
    json!({"ingressRate": 100 * MBIT, "ingressBurst": 10 * MBIT, "egressRate": 50 * MBIT, "egressBurst": 10 * MBIT})
}

/// The host's packet filter as text.
fn ruleset(node: &Node) -> String {
    // Counters of rules change with traffic and handles with time; what stands there does not.
    node.host.run("nft --stateless list ruleset")
}

/// Everything that passes through the host's port 8080 to the pod's port 80 does so, from wherever it comes.
#[track_caller]
fn assert_host_port_works(kind: &str, node: &Node, machine: &Machine<'_>, pod: &Pod<'_>, service: &Service) {
    let host = node.host.netns();
    let other = node.host.path(&format!("/run/netns/{}", pod.name));
    for to in [HOST4, HOST6] {
        let v6 = to.contains(':');
        let outside: IpAddr = if v6 { MACHINE6 } else { MACHINE4 }.parse().unwrap();
        let caller = service.called(&machine.netns(), at(to, 8080));
        assert_eq!(caller, Some(outside), "{kind}: from another machine to {to}, without hiding who calls");
        assert!(service.called(&host, at(to, 8080)).is_some(), "{kind}: from the host itself to {to}");
        assert!(service.called(&other, at(to, 8080)).is_some(), "{kind}: from the pod to itself by {to}");
    }
    // Of the loopback addresses, the plugin serves the old one only.
    assert!(service.called(&host, at("127.0.0.1", 8080)).is_some(), "{kind}: from the host by 127.0.0.1");
}

// covers: C-04
#[test]
fn host_ports_bandwidth_and_settings_work_behind_flock_and_leave_nothing() {
    let node = Node::new();
    let machine = machine(&node.host);
    let _agent = node.host.agent().start();
    for kind in KINDS {
        for version in ["0.4.0", "1.0.0", "1.1.0"].into_iter().filter(|version| *version <= kind.newest) {
            for release in RELEASES.into_iter().filter(|release| release.knows(version)) {
                let what = format!("{}, {version}, libcni {}", kind.name, release.name);
                let runtime = chain(&node, kind, version).release(release);
                let runtime = runtime.host_port(8080, 80).capability("bandwidth", bandwidth());
                let pod = node.host.pod("a");
                let links = node.host.run("ip -br link");
                let attached = runtime.add(&pod);
                kind.check(&runtime, &pod, &what);
                let service = Service::on(&pod, 80);
                assert_host_port_works(&what, &node, &machine, &pod, &service);

                let host_link = node.host.flock_links().pop().expect("a link");
                let queue = node.host.run(&format!("tc qdisc show dev {host_link}"));
                assert!(queue.contains("tbf") && queue.contains("100Mbit"), "{what}: {queue}");
                let limited = node.host.run("ip -br link show type ifb");
                let (limiter, _) = limited.split_once(char::is_whitespace).expect("a link for the other direction");
                let queue = node.host.run(&format!("tc qdisc show dev {limiter}"));
                assert!(queue.contains("tbf") && queue.contains("50Mbit"), "{what}: {queue}");
                assert!(pod.run("ip link show eth0").contains("mtu 1400"), "{what}");
                assert_eq!(pod.run("sysctl -n net.core.somaxconn").trim(), "500", "{what}");
                pod.assert_pings(host_addresses());

                runtime.del(&pod);
                node.host.assert_empty();
                assert_eq!(node.host.run("ip -br link"), links, "{what}");
                let left = ruleset(&node);
                for ip in attached.ips() {
                    assert!(!left.contains(&ip.to_string()), "{what}: {left}");
                }
                assert!(!left.contains("8080"), "{what}: {left}");
                assert_eq!(service.called(&machine.netns(), at(HOST4, 8080)), None, "{what}");
                // A second DEL, of nothing, is as good.
                runtime.del(&pod);
                pod.vanish();
            }
        }
    }
}

// covers: C-04
#[test]
fn pods_come_and_go_and_the_packet_filter_does_not_grow() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for kind in KINDS {
        let runtime = chain(&node, kind, "1.0.0").capability("bandwidth", bandwidth());
        let round = |n: u16| {
            let pod = node.host.pod("a");
            let runtime = runtime.clone().host_port(8000 + n, 80);
            runtime.add(&pod);
            let loaded = ruleset(&node);
            runtime.del(&pod);
            pod.vanish();
            node.host.assert_empty();
            (loaded, ruleset(&node))
        };
        // The first pod leaves the chains that all pods share.
        let (loaded, empty) = round(0);
        assert_ne!(loaded, empty);
        for n in 1..10 {
            assert_eq!(round(n).1, empty, "{}", kind.name);
        }
    }
}

// covers: C-04
#[test]
fn check_names_what_is_missing_behind_flock() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    let runtime = chain(&node, NFTABLES, "1.1.0").host_port(8080, 80).capability("bandwidth", bandwidth());
    let pod = node.host.pod("a");
    runtime.add(&pod);
    runtime.check(&pod);
    node.host.run("nft flush chain ip cni_hostport hostports");
    assert!(runtime.call("check", &pod).failed().contains("hostport"));
    runtime.del(&pod);
    node.host.assert_empty();
}

// covers: C-02 C-06
#[test]
fn the_list_that_is_shipped_has_host_ports_where_portmap_is_installed() {
    let node = Node::new();
    let machine = machine(&node.host);
    node.plugin("portmap", &newest_plugin("portmap"));
    let _agent = node.installed_agent();
    for release in RELEASES {
        let runtime = node.runtime(release).host_port(8080, 80);
        let pod = node.host.pod("a");
        runtime.add(&pod);
        runtime.check(&pod);
        assert_host_port_works(release.name, &node, &machine, &pod, &Service::on(&pod, 80));
        if release.modern {
            runtime.status().done();
            runtime.gc(&["a"]).done();
        }
        runtime.del(&pod);
        node.host.assert_empty();
        pod.vanish();
    }
}

// A list that offers 1.1.0 is taken in that version by every runtime since libcni 1.2, and a portmap that ends at 1.0.0, such
// as Debian's, then refused every pod of the node.
// covers: C-02 FM-C08
#[test]
fn pods_start_where_portmap_is_older_than_the_runtime() {
    let node = Node::new();
    node.debian_plugin("portmap");
    let _agent = node.installed_agent();
    for release in RELEASES {
        let pod = node.host.pod("a");
        let plain = node.runtime(release);
        let added = plain.call("add", &pod);
        added.done();
        assert_eq!(added.version(), if release.modern { "1.0.0" } else { "0.4.0" });
        plain.check(&pod);
        plain.del(&pod);
        let runtime = plain.host_port(8080, 80);
        runtime.add(&pod);
        let service = Service::on(&pod, 80);
        assert!(service.called(&node.host.netns(), at(HOST4, 8080)).is_some());
        runtime.del(&pod);
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: C-02
#[test]
fn a_portmap_that_cannot_run_is_left_out_and_said_and_pods_start() {
    let node = Node::new();
    std::fs::write(node.host.path("/usr/lib/cni/portmap"), "").unwrap();
    let agent = node.installed_agent();
    let line = agent.wait_log("portmap does not say which CNI versions it knows");
    assert!(line.contains("warn") && line.contains("/usr/lib/cni/portmap"), "{line}");
    let pod = node.host.pod("a");
    let runtime = node.runtime(NEWEST);
    assert_eq!(runtime.call("add", &pod).version(), "1.1.0");
    pod.assert_pings(host_addresses());
    runtime.del(&pod);
    node.host.assert_empty();
}

// covers: FM-C15
#[test]
fn a_portmap_that_hangs_keeps_no_call_waiting_while_the_agent_starts() {
    let node = Node::new();
    put_script(node.host.path("/usr/lib/cni/portmap"), "exec sleep 60");
    let agent = node.host.agent().args(&["--cni-conf-dir", NET_D]).no_wait().start();
    agent.wait_log("NodeConfig in force");
    // It is given up after five seconds, and READY is told after that. Calls are served before.
    node.host.cni("STATUS").done();
    assert!(!agent.log().contains("flock-agent listens"), "{}", agent.log());
    agent.wait_log("flock-agent listens");
    assert!(agent.log().contains("portmap does not say which CNI versions it knows"), "{}", agent.log());
}

// covers: K-03
#[test]
fn a_hardware_address_that_tuning_gives_cuts_the_pod_off_and_check_says_why() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    node.plugin("tuning", &newest_plugin("tuning"));
    let tuning = json!({"type": "tuning", "mac": "02:00:00:00:00:07", "dataDir": "/run/tuning"});
    let runtime = node.runtime(NEWEST).conf(&node.conf("mac.conflist", &list("1.1.0", &[flock(), tuning])));
    let pod = node.host.pod("a");
    runtime.add(&pod);
    // The host's neighbour entries are permanent and hold the address that flock gave: the price of the first packet's
    // speed, and the reason why this one setting of tuning cannot be used.
    assert!(!pod.pings(host_addresses()[0]));
    let check = runtime.call("check", &pod);
    assert!(check.failed().contains("hardware address 02:00:00:00:00:07"), "{check:?}");
    runtime.del(&pod);
    node.host.assert_empty();
}

// covers: C-04
#[test]
fn a_pod_of_one_family_has_host_ports_of_that_family() {
    let node = Node::new();
    let machine = machine(&node.host);
    let _agent = node.host.agent().start();
    for kind in KINDS {
        for (without, with, other) in [("ipv4", HOST6, HOST4), ("ipv6", HOST4, HOST6)] {
            let annotation = format!("flock.fritzlab.net/{without}");
            let runtime = chain(&node, kind, "1.0.0").host_port(8080, 80);
            let runtime = runtime.capability("io.kubernetes.cri.pod-annotations", json!({annotation: "false"}));
            let pod = node.host.pod("a");
            runtime.add(&pod);
            kind.check(&runtime, &pod, kind.name);
            let service = Service::on(&pod, 80);
            assert!(service.called(&machine.netns(), at(with, 8080)).is_some(), "{} by {with}", kind.name);
            assert_eq!(service.called(&machine.netns(), at(other, 8080)), None, "{} by {other}", kind.name);
            runtime.del(&pod);
            node.host.assert_empty();
            pod.vanish();
        }
    }
}
