//! Whom the outside sees, from a real agent: the node's address in place of the pod's where the node's owner asks, and what that
//! does to policies, to connections that are there, and to addresses that are announced.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use super::cluster::{End, Probe, Protocol, Who, key};
use super::compare::assert_packets;
use super::node::{Neighbours, REMOTE, STRANGER, addresses};
use super::policed::Policed;
use super::streams::{Streams, Way};
use super::support::host::Host;
use super::support::manifests::{CIDR4, CIDR6, node_config_spec};
use super::support::pod::Pod;
use super::support::waiting::{PATIENCE, wait_for};
use crate::support::inside::Inside as _;

/// The node's addresses on the way to the outside.
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:9::1"];

fn config(masquerade: Value) -> String {
    let mut spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": ["2001:db8:f::/48", "203.0.113.0/28"]});
    if !masquerade.is_null() {
        spec["masquerade"] = masquerade;
    }
    node_config_spec(spec)
}

fn open(netns: &Path, ip: IpAddr) -> UdpSocket {
    let bind = || UdpSocket::bind((ip, 0)).unwrap_or_else(|error| panic!("{ip}: {error}"));
    let socket = Netns::open(netns).expect("a namespace").run(bind).expect("entered");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

/// Whom `there` sees when `here` asks it, once the answer has come back.
#[track_caller]
fn seen(here: &UdpSocket, there: &UdpSocket) -> IpAddr {
    let mut packet = [0; 8];
    here.send_to(b"?", there.local_addr().expect("bound")).expect("sent");
    let (_, who) = there.recv_from(&mut packet).expect("the question arrives");
    there.send_to(b"!", who).expect("answered");
    let (_, from) = here.recv_from(&mut packet).expect("the answer comes back");
    assert_eq!(from, there.local_addr().expect("bound"));
    who.ip()
}

fn of(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn tables(host: &Host) -> Vec<String> {
    let listed = host.run("nft list tables");
    listed.lines().filter(|line| line.contains("flock_masquerade")).map(str::to_owned).collect()
}

#[test]
fn the_outside_sees_the_node_and_whoever_has_a_way_back_sees_the_pod() {
    let host = Host::new();
    let except = json!({"ipv4": true, "except": ["192.0.2.77/32", "2001:db8:9::77/128"]});
    let agent = host.agent().config(Some(&config(except.clone()))).start();
    let outside = Neighbours::new(&host).outside;
    // The outside has a way back to each address.
    outside.run("ip route add 203.0.113.0/28 via 192.0.2.1");
    let (pod, other) = (host.pod("p"), host.pod("q"));
    let named = [("addresses", "203.0.113.5,2001:db8:f::5"), ("anycast", "203.0.113.9,2001:db8:f::9")];
    let own = host.add(&pod).result();
    let further = host.add(&other).annotations(&named).result();
    let stranger = STRANGER.map(|ip| open(&outside.netns(), of(ip)));
    let excepted = REMOTE.map(|ip| open(&outside.netns(), of(ip)));
    let at = |pod: &Pod<'_>, ip: IpAddr| open(&pod.netns(), ip);
    let own = [own.ipv4().expect("IPv4"), own.ipv6().expect("IPv6")];
    let asked = |pod: &Pod<'_>, ip: IpAddr| seen(&at(pod, ip), &stranger[usize::from(ip.is_ipv6())]);
    assert_eq!(own.map(|ip| asked(&pod, ip)), [of(NODE[0]), own[1]], "IPv4 alone was asked for");
    for ip in own {
        let family = usize::from(ip.is_ipv6());
        assert_eq!(seen(&at(&pod, ip), &excepted[family]), ip, "what is excepted");
        let there = further.ips().into_iter().find(|other| other.is_ipv6() == ip.is_ipv6()).expect("of this family");
        assert_eq!(seen(&at(&pod, ip), &at(&other, there)), ip, "another pod");
    }
    for ip in ["203.0.113.5", "2001:db8:f::5", "203.0.113.9", "2001:db8:f::9"].map(of) {
        assert_eq!(asked(&other, ip), ip, "an address that is announced stays itself");
    }
    assert_eq!(tables(&host), ["table ip flock_masquerade"]);

    agent.edit_config(&config(json!({"ipv4": true, "ipv6": true})));
    wait_for("the other table", || (tables(&host).len() == 2).then_some(()));
    assert_eq!(own.map(|ip| asked(&pod, ip)), NODE.map(of));
    agent.edit_config(&config(Value::Null));
    wait_for("the tables to go", || tables(&host).is_empty().then_some(()));
    assert_eq!(own.map(|ip| asked(&pod, ip)), own);
    host.assert_sound("switched off");
}

/// The kernel translates by connections, and does so as long as there is any translation: also by somebody else's table.
#[test]
fn what_is_switched_off_ends_its_connections_unless_a_proxy_translates_as_well() {
    for proxy in [false, true] {
        let host = Host::new();
        let agent = host.agent().config(Some(&config(json!({"ipv4": true})))).start();
        let outside = Neighbours::new(&host).outside;
        if proxy {
            host.run_nft(
                "add table ip proxy; add chain ip proxy services { type nat hook prerouting priority dstnat; }",
            );
        }
        let pod = host.pod("p");
        let own = host.add(&pod).result().ipv4().expect("IPv4");
        let (here, there) = (open(&pod.netns(), own), open(&outside.netns(), of(STRANGER[0])));
        assert_eq!(seen(&here, &there), of(NODE[0]));
        agent.edit_config(&config(Value::Null));
        wait_for("the table to go", || tables(&host).is_empty().then_some(()));
        let fresh = open(&pod.netns(), own);
        assert_eq!(seen(&fresh, &there), own, "a new connection");
        // Answers to a pod that is translated no more belong to no connection that the kernel knows, and it drops them.
        here.send_to(b"?", there.local_addr().expect("bound")).expect("sent");
        let (_, who) = there.recv_from(&mut [0; 8]).expect("the next one arrives");
        assert_eq!(who.ip(), if proxy { of(NODE[0]) } else { own }, "an established one; a proxy: {proxy}");
    }
}

#[test]
fn a_policy_judges_by_the_pods_own_address_whatever_the_outside_sees() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    policed.agent.edit_config(&config(json!({"ipv4": true, "ipv6": true})));
    wait_for("the tables", || (tables(&host).len() == 2).then_some(()));
    let web = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]});
    let blocks = |ips: [&str; 2]| -> Vec<Value> {
        let block =
            |ip: &str| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })}});
        ips.map(block).into()
    };
    let out = |ips| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": blocks(ips)}]});
    // Whoever masquerades: the node's own address opens nothing, as it is not who sends.
    policed.cluster().add_policy("x", "web", web);
    policed.cluster().add_policy("y", "out", out(STRANGER));
    policed.cluster().add_policy("z", "node", json!({"podSelector": {}, "ingress": [{"from": blocks(NODE)}]}));
    policed.enforce();
    let probes = policed.neighbours.probes();
    assert_packets("masqueraded", &mut policed.neighbours, &probes);
    // Of what is revoked nothing arrives any more, and nothing comes back.
    let (pod, _) = &policed.neighbours.pods[&key("y", "a")];
    let places =
        [(pod.netns(), policed.neighbours.ips("y", "a")), (policed.neighbours.outside.netns(), addresses(STRANGER))];
    let mut all = Vec::new();
    for family in [0, 1] {
        let [from, to] = places.each_ref().map(|(netns, ips)| (netns.clone(), ips[family]));
        all.extend(
            [Way::Requests, Way::Answers, Way::Upload, Way::Download].map(|way| (from.clone(), to.clone(), way)),
        );
    }
    let streams = Streams::start(&all);
    // Requests go to a socket that takes them from anybody.
    (0..all.len()).for_each(|one| streams.wait_received(one, 20));
    policed.cluster().add_policy("y", "out", out(REMOTE));
    policed.enforce();
    let next = streams.next();
    streams.wait_sent(next + 100);
    super::stories::assert_revoked("masqueraded", &streams, &all, all.len(), next);
    let stranger = End { who: Who::Stranger, address: addresses(STRANGER)[0] };
    let from = End { who: Who::Pod(key("x", "b")), address: policed.neighbours.ips("x", "b")[0] };
    let probe = Probe { from, to: stranger, protocol: Protocol::Udp, port: 80, through: None };
    assert_packets("somebody else's go on", &mut policed.neighbours, &[probe]);
}

/// As the plugin portmap does it, and beside it.
#[test]
fn a_host_port_and_masquerade_leave_each_other_alone() {
    let host = Host::new();
    let agent = host.agent().config(Some(&config(json!({"ipv4": true})))).start();
    let outside = Neighbours::new(&host).outside;
    let pod = host.pod("p");
    let own = host.add(&pod).result().ipv4().expect("IPv4");
    let conf = json!({
        "cniVersion": "1.0.0", "name": "flock", "type": "portmap", "capabilities": {"portMappings": true}, "snat": true,
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}]},
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": pod.path()}], "ips": [{"address": format!("{own}/32"), "interface": 0}]},
    });
    // A test host sees none of this machine's plugins.
    std::fs::copy("/usr/lib/cni/portmap", host.path("/run/portmap")).expect("portmap (containernetworking-plugins)");
    let portmap = |verb: &str| {
        host.write("/run/portmap.json", &conf.to_string());
        host.script(&format!(
            "CNI_COMMAND={verb} CNI_CONTAINERID=p CNI_NETNS={} CNI_IFNAME=eth0 CNI_PATH=/run exec /run/portmap </run/portmap.json",
            pod.path()
        ))
    };
    portmap("ADD");
    let server = || {
        let bind = || UdpSocket::bind((own, 80)).expect("bound");
        Netns::open(&pod.netns()).expect("a namespace").run(bind).expect("entered")
    };
    let server = server();
    server.set_read_timeout(Some(PATIENCE)).expect("set");
    let client = open(&outside.netns(), of(STRANGER[0]));
    let answered = || {
        let mut packet = [0; 8];
        client.send_to(b"?", (NODE[0], 8080)).expect("sent");
        let (_, who) = server.recv_from(&mut packet).expect("the question arrives");
        server.send_to(b"!", who).expect("answered");
        let (_, from) = client.recv_from(&mut packet).expect("the answer comes back");
        assert_eq!(from, SocketAddr::new(of(NODE[0]), 8080));
        who.ip()
    };
    assert_eq!(answered(), of(STRANGER[0]), "the pod sees who asks");
    let to_outside = || seen(&open(&pod.netns(), own), &open(&outside.netns(), of(STRANGER[0])));
    assert_eq!(to_outside(), of(NODE[0]));
    let of_portmap = || {
        let saved = host.run("iptables-save");
        saved.lines().filter(|line| line.contains("CNI-")).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = of_portmap();
    assert!(!before.is_empty());
    agent.edit_config(&config(Value::Null));
    wait_for("the table to go", || tables(&host).is_empty().then_some(()));
    assert_eq!((answered(), of_portmap()), (of(STRANGER[0]), before));
    agent.edit_config(&config(json!({"ipv4": true})));
    wait_for("the table", || (!tables(&host).is_empty()).then_some(()));
    portmap("DEL");
    assert_eq!(to_outside(), of(NODE[0]), "it is not flock's that goes");
}
