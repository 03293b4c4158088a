//! What a verdict on new connections does not show: connections that are there when a policy changes, what belongs to them, what
//! comes through a Service, pods that are just being made, and an agent that is away.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use super::cluster::{Cluster, Probe, Protocol, Who, key, labels};
use super::compare::{Asked, assert_agreement, assert_packets};
use super::cyclonus::Cyclonus;
use super::node::{STRANGER, addresses};
use super::policed::{DIRECTORY, Policed, put};
use super::streams::{Place, Streams, WAYS, Way};
use super::support::host::{HOST4, HOST6, Host};
use super::support::manifests::{CIDR4, CIDR6, node_config_spec};
use super::support::waiting::wait_for;
use crate::support::inside::Inside as _;

/// Everybody of a namespace.
pub fn all_of(namespace: &str) -> Value {
    json!({"namespaceSelector": {"matchLabels": {"ns": namespace}}})
}

/// A policy's spec that lets these peers in to x/a.
pub fn lets_in(peers: &[Value]) -> Value {
    let ingress = if peers.is_empty() { json!([]) } else { json!([{"from": peers}]) };
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"], "ingress": ingress})
}

/// Where a pod is, by each family.
fn places(policed: &Policed<'_>, namespace: &str, name: &str) -> Vec<Place> {
    let (pod, _) = &policed.neighbours.pods[&key(namespace, name)];
    policed.neighbours.ips(namespace, name).into_iter().map(|ip| (pod.netns(), ip)).collect()
}

/// Connections of each way and family between two pods.
pub fn connections(policed: &Policed<'_>, from: (&str, &str), to: (&str, &str)) -> Vec<(Place, Place, Way)> {
    let ends: Vec<(Place, Place)> =
        places(policed, from.0, from.1).into_iter().zip(places(policed, to.0, to.1)).collect();
    ends.iter().flat_map(|(from, to)| WAYS.map(|way| (from.clone(), to.clone(), way))).collect()
}

/// Nothing is missing from the first number on.
#[track_caller]
fn assert_whole(what: &str, received: &[u64]) {
    assert!(!received.is_empty(), "{what}: nothing arrived");
    let missing: Vec<&[u64]> = received.windows(2).filter(|two| two[1] != two[0] + 1).collect();
    assert!(missing.is_empty(), "{what}: lost behind {missing:?}");
}

type Change = fn(&mut Cluster);

/// What takes a pod's right to talk to x/a away while z/a keeps its own: how it was before, and what changes.
const REVOCATIONS: &[(&str, Change, Change)] = &[
    (
        "the policy names the peer no more",
        |cluster| cluster.add_policy("x", "web", lets_in(&[all_of("y"), all_of("z")])),
        |cluster| cluster.add_policy("x", "web", lets_in(&[all_of("z")])),
    ),
    (
        "the policy that allowed it goes, and another one stays",
        |cluster| {
            cluster.add_policy("x", "web", lets_in(&[all_of("z")]));
            cluster.add_policy("x", "more", lets_in(&[all_of("y")]));
        },
        |cluster| drop(cluster.policies.remove(&key("x", "more"))),
    ),
    ("a first policy selects the pod", |_| {}, |cluster| cluster.add_policy("x", "web", lets_in(&[all_of("z")]))),
    (
        "a policy for what goes out selects the peer",
        |cluster| cluster.add_policy("x", "web", lets_in(&[all_of("y"), all_of("z")])),
        |cluster| {
            let nothing = json!({"podSelector": {}, "policyTypes": ["Egress"]});
            cluster.add_policy("y", "closed", nothing);
        },
    ),
    (
        "the peer loses its label",
        |cluster| {
            for namespace in ["y", "z"] {
                cluster.pods.get_mut(&key(namespace, "a")).unwrap().labels.insert("role".into(), "client".into());
            }
            let clients = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "client"}}});
            cluster.add_policy("x", "web", lets_in(&[clients]));
        },
        |cluster| drop(cluster.pods.get_mut(&key("y", "a")).unwrap().labels.remove("role")),
    ),
    (
        "the peer's namespace gets a label",
        |cluster| {
            let good = json!({"matchExpressions": [{"key": "bad", "operator": "DoesNotExist"}]});
            cluster.add_policy("x", "web", lets_in(&[json!({"namespaceSelector": good})]));
        },
        |cluster| cluster.set_namespace("y", labels(&[("ns", "y"), ("bad", "")])),
    ),
];

// covers: FM-H06
#[test]
fn what_is_revoked_ends_with_the_next_packet_of_either_direction_and_nothing_else_is_lost() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let first = policed.cluster().clone();
    for (what, before, after) in REVOCATIONS {
        *policed.cluster() = first.clone();
        before(policed.cluster());
        policed.enforce();
        let revoked = connections(&policed, ("y", "a"), ("x", "a"));
        let kept = connections(&policed, ("z", "a"), ("x", "a"));
        let all = [revoked.clone(), kept].concat();
        let streams = Streams::start(&all);
        (0..all.len()).for_each(|one| streams.wait_received(one, 20));

        after(policed.cluster());
        policed.enforce();
        let next = streams.next();
        streams.wait_sent(next + 100);
        assert_revoked(what, &streams, &all, revoked.len(), next);
    }
}

/// Of these connections, on as many as are revoked nothing arrives that was sent from this number on, and all of it on the others.
#[track_caller]
pub fn assert_revoked(what: &str, streams: &Streams, all: &[(Place, Place, Way)], revoked: usize, next: u64) {
    for (one, (_, to, way)) in all.iter().enumerate() {
        let told = format!("{what}: {way:?} to {}", to.1);
        if one >= revoked {
            streams.wait_received(one, next + 100);
            assert_whole(&told, &streams.received(one));
            continue;
        }
        let last = streams.received(one).last().copied();
        assert!(last.is_some_and(|last| last < next), "{told}: {last:?} arrived, and {next} was the next to be sent");
    }
}

// covers: FM-H06
#[test]
fn the_first_policy_of_a_node_ends_what_it_does_not_allow() {
    let host = Host::new();
    let mut policed = Policed::without_policies(&host);
    let revoked = connections(&policed, ("y", "a"), ("x", "a"));
    let all = [revoked.clone(), connections(&policed, ("z", "a"), ("x", "a"))].concat();
    let streams = Streams::start(&all);
    (0..all.len()).for_each(|one| streams.wait_received(one, 20));
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("z")]));
    put(&host, &policed.neighbours.cluster.documents());
    policed.agent.signal("HUP");
    policed.wait_policy("x", "web");
    let next = streams.next();
    streams.wait_sent(next + 100);
    assert_revoked("the first policy", &streams, &all, revoked.len(), next);
}

// covers: FM-H06
#[test]
fn what_changes_while_the_agent_is_away_holds_when_it_is_back_and_until_then_nothing_opens_or_closes() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("y"), all_of("z")]));
    policed.enforce();
    let revoked = connections(&policed, ("y", "a"), ("x", "a"));
    let kept = connections(&policed, ("z", "a"), ("x", "a"));
    // Nobody answers these, as they never arrive.
    let mut closed = connections(&policed, ("x", "b"), ("x", "a"));
    closed.retain(|(_, _, way)| *way == Way::Requests);
    let all = [revoked.clone(), kept.clone(), closed].concat();
    let streams = Streams::start(&all);
    let (revoked, open) = (0..revoked.len(), 0..revoked.len() + kept.len());
    open.clone().for_each(|one| streams.wait_received(one, 20));

    policed.agent.signal("KILL");
    policed.agent.wait();
    let away = streams.next();
    open.clone().for_each(|one| streams.wait_received(one, away + 50));
    // One of those that are open loses its right meanwhile.
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("z")]));
    policed.write();
    policed.restart();
    policed.enforce();
    let back = streams.next();
    streams.wait_sent(back + 100);
    for (one, (_, to, way)) in all.iter().enumerate() {
        let told = format!("{way:?} to {}", to.1);
        let received = streams.received(one);
        if revoked.contains(&one) {
            assert!(received.iter().all(|number| *number < back), "{told} goes on");
        } else if open.contains(&one) {
            streams.wait_received(one, back + 100);
            assert_whole(&told, &streams.received(one));
        } else {
            assert!(received.is_empty(), "{told} opened");
        }
    }
}

// covers: FM-H03
#[test]
fn nothing_opens_when_the_files_are_away_or_broken() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let mut cyclonus = Cyclonus::start();
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("y")]));
    policed.cluster().add_policy("z", "closed", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    policed.enforce();
    assert_agreement("as it should be", &mut policed.neighbours, &mut cyclonus, Asked::All);

    let file = host.path(&format!("{DIRECTORY}/cluster.yaml"));
    let (directory, aside) = (host.path(DIRECTORY), host.path("/run/aside"));
    let garbage = "kind: NetworkPolicy\nmetadata: [\n";
    for state in ["broken", "half", "away"] {
        let whole = fs::read_to_string(&file).expect("readable");
        match state {
            "broken" => fs::write(&file, garbage).expect("written"),
            "half" => fs::write(&file, &whole[..whole.len() / 2]).expect("written"),
            _ => fs::rename(&directory, &aside).expect("renamed"),
        }
        policed.agent.signal("HUP");
        let complaint =
            if state == "away" { "directory of policies cannot be used" } else { "file of policies cannot be used" };
        policed.agent.wait_log(complaint);
        policed.neighbours.assert_nothing_opened(&format!("while the files are {state}"));
        policed.agent.signal("KILL");
        policed.agent.wait();
        policed.restart();
        policed.agent.wait_log(complaint);
        policed.neighbours.assert_nothing_opened(&format!("after a restart while the files are {state}"));
        if state == "away" {
            fs::rename(&aside, &directory).expect("renamed");
        }
        policed.enforce();
        assert_agreement("when they are back", &mut policed.neighbours, &mut cyclonus, Asked::All);
    }
}

// covers: FM-H04
#[test]
fn errors_that_belong_to_an_allowed_connection_pass_so_that_a_narrow_path_is_found() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    // Behind the machine outside is a narrow path, of which it tells whoever sends too much.
    let outside = &policed.neighbours.outside;
    outside.run("ip link add narrow0 mtu 1400 type veth peer name narrow1 mtu 1400");
    outside.run("ip link set narrow1 up");
    outside.run("ip link set narrow0 up");
    outside.run("ip addr add 198.51.100.1/24 dev narrow0");
    outside.run("ip addr add 2001:db8:10::1/64 dev narrow0 nodad");
    outside.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    host.run("ip route add 198.51.100.0/24 via 192.0.2.9");
    host.run("ip -6 route add 2001:db8:10::/64 via 2001:db8:9::9");
    let far: [IpAddr; 2] = ["198.51.100.9", "2001:db8:10::9"].map(|text| text.parse().expect("an address"));
    let blocks = ["198.51.100.0/24", "2001:db8:10::/64"].map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
    // Nobody may begin anything with this pod, and so the machine may not; what it says belongs to what the pod began.
    let spec = json!({
        "podSelector": {"matchLabels": {"pod": "a"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": blocks, "ports": [{"protocol": "UDP", "port": 9}]}],
    });
    policed.cluster().add_policy("x", "narrow", spec);
    policed.enforce();
    let (pod, _) = &policed.neighbours.pods[&key("x", "a")];
    for (from, to) in policed.neighbours.ips("x", "a").into_iter().zip(far) {
        let socket = within(&pod.netns(), || UdpSocket::bind((from, 0)).expect("an own address"));
        socket.connect((to, 9)).expect("a route");
        wait_for("the narrow path to be known", || {
            // Too much for it once it is known, which the sender is told then.
            socket.send(&[0; 1420]).ok();
            pod.run(&format!("ip route get {to}")).contains("mtu 1400").then_some(())
        });
        // What comes back is of nobody's policy, so the same from a connection that is not allowed is not even asked for.
        let closed = within(&pod.netns(), || UdpSocket::bind((from, 0)).expect("an own address"));
        let stranger = addresses(STRANGER).into_iter().find(|ip| ip.is_ipv6() == from.is_ipv6()).expect("both");
        closed.connect((stranger, 9)).expect("a route");
        closed.send(&[0; 10]).expect("sent");
        let open = within(&pod.netns(), || UdpSocket::bind((from, 0)).expect("an own address"));
        let machine: IpAddr =
            if from.is_ipv6() { "2001:db8:10::1" } else { "198.51.100.1" }.parse().expect("an address");
        open.connect((machine, 9)).expect("a route");
        wait_for("word that nobody listens there", || {
            open.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
            open.send(&[0; 10]).err().or_else(|| open.recv(&mut [0; 10]).err()).filter(refused).map(drop)
        });
        closed.set_nonblocking(true).expect("set");
        let heard = closed.recv(&mut [0; 10]).expect_err("nobody answers");
        assert!(!refused(&heard), "{from} heard of {stranger}, where it may not send");
    }
}

fn refused(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionRefused
}

fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(netns).expect("a namespace").run(work).expect("entered")
}

/// The addresses of a Service.
const SERVICE: [&str; 2] = ["10.96.0.10", "2001:db8:96::10"];
const SERVICE_PORT: u16 = 8080;

#[test]
fn what_comes_through_a_service_is_judged_by_the_pod_behind_it() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let behind = policed.neighbours.ips("x", "a");
    // As a proxy of Services does it, and as it hides a pod from itself.
    let mut rules = String::from("table inet proxy {\nchain services {\ntype nat hook prerouting priority dstnat\n");
    for (family, (service, pod)) in ["ip", "ip6"].iter().zip(SERVICE.iter().zip(&behind)) {
        let to = if pod.is_ipv6() { format!("[{pod}]:80") } else { format!("{pod}:80") };
        for protocol in ["tcp", "udp", "sctp"] {
            rules += &format!("{family} daddr {service} {protocol} dport {SERVICE_PORT} dnat {family} to {to}\n");
        }
    }
    rules += "}\nchain hairpin {\ntype nat hook postrouting priority srcnat\n";
    for (family, (own, pod)) in ["ip", "ip6"].iter().zip([HOST4, HOST6].iter().zip(&behind)) {
        rules += &format!("{family} saddr {pod} {family} daddr {pod} ct status dnat snat {family} to {own}\n");
    }
    host.write("/run/proxy.nft", &(rules + "}\n}\n"));
    host.run("nft -f /run/proxy.nft");

    let only_by = |port: u16| {
        json!({
            "podSelector": {"matchLabels": {"pod": "a"}},
            "policyTypes": ["Egress"],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": port}, {"protocol": "UDP", "port": port}]}],
        })
    };
    let to_the_service = json!({
        "podSelector": {},
        "policyTypes": ["Egress"],
        "egress": [{"to": SERVICE.map(|ip| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })}}))}],
    });
    let named =
        json!({"podSelector": {}, "egress": [{"ports": [{"port": "serve-80-tcp"}]}], "policyTypes": ["Egress"]});
    let web = json!({"podSelector": {}, "ingress": [{"from": [all_of("y")], "ports": [{"port": 80}]}]});
    let isolated = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let first = policed.cluster().clone();
    for (what, namespace, spec) in [
        ("no policy", "z", json!({"podSelector": {"matchLabels": {"pod": "nobody"}}})),
        ("ingress names the pod's port", "x", web),
        ("egress names the pod's port", "y", only_by(80)),
        ("egress names the Service's port, which is nobody's", "y", only_by(SERVICE_PORT)),
        ("egress names the Service's address, which is nobody's", "y", to_the_service),
        ("egress names the pod's port by name", "y", named),
        ("the pod is alone with itself", "x", isolated),
    ] {
        *policed.cluster() = first.clone();
        policed.cluster().add_policy(namespace, "web", spec);
        policed.enforce();
        let mut probes = Vec::new();
        for from in policed.neighbours.ends().into_iter().filter(|end| end.who != Who::Node) {
            let family = usize::from(from.address.is_ipv6());
            let to = super::cluster::End { who: Who::Pod(key("x", "a")), address: behind[family] };
            let through = Some(SocketAddr::new(SERVICE[family].parse().expect("an address"), SERVICE_PORT));
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                probes.push(Probe { from: from.clone(), to: to.clone(), protocol, port: 80, through });
            }
        }
        assert_packets(what, &mut policed.neighbours, &probes);
    }
}

// covers: FM-H03
#[test]
fn a_pod_that_is_being_made_sends_and_receives_nothing_before_its_policy() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let closed = json!({"podSelector": {"matchLabels": {"role": "closed"}}, "policyTypes": ["Ingress", "Egress"]});
    policed.cluster().add_policy("x", "closed", closed);
    policed.enforce();
    let outside = policed.neighbours.outside.netns();
    for number in 0..6 {
        let name = format!("new-{number}");
        // Every other one is made while the agent cannot know its policies.
        let known = number % 2 == 0;
        let role = |policed: &mut Policed<'_>, role: &str| {
            policed.neighbours.introduce("x", &name);
            let pod = policed.cluster().pods.get_mut(&key("x", &name)).expect("introduced");
            pod.labels = labels(&[("role", role)]);
            policed.enforce();
        };
        let (directory, aside) = (host.path(DIRECTORY), host.path("/run/aside"));
        if known {
            role(&mut policed, "closed");
        } else {
            policed.agent.signal("KILL");
            policed.agent.wait();
            fs::rename(&directory, &aside).expect("renamed");
            policed.restart();
        }
        let pod = host.pod(&format!("x-{name}"));
        pod.run("ip link set lo up");
        let mut outwards = Flood::start(&pod.netns(), &outside, &addresses(STRANGER));
        // The next address of IPv4 is one of these, and that of IPv6 is asked to be.
        let few = |last: u16| IpAddr::from([0x2001, 0xdb8, 1, 0xf001, 7, 0, number, last]);
        let next: Vec<IpAddr> = (2..60).map(|last| IpAddr::from([10, 25, 214, last])).chain((0..16).map(few)).collect();
        let inwards = Flood::start(&outside, &pod.netns(), &next);
        outwards.wait_sent(20);
        inwards.wait_sent(20);
        let range = format!("{}/124", few(0));
        let attached = host.add(&pod).kubernetes("x", &name).annotations(&[("cidr6", &range)]).result();
        outwards.wait_gone(20);
        inwards.wait_sent(200);
        assert_eq!((outwards.arrived(), inwards.arrived()), (0, 0), "{name} {:?}", attached.ips());
        // Had it been open, they would have arrived: they do as soon as it is.
        if !known {
            fs::rename(&aside, &directory).expect("renamed");
        }
        role(&mut policed, "open");
        outwards.wait_arrived();
        inwards.wait_arrived();
        outwards.end();
        drop((outwards, inwards));
        host.del(&pod).kubernetes("x", &name).done();
        policed.cluster().pods.remove(&key("x", &name));
    }
}

// covers: FM-H06
#[test]
fn a_pod_that_is_made_anew_has_none_of_the_connections_that_it_had_before() {
    const SAME: [&str; 2] = ["203.0.113.5", "2001:db8:f::5"];
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let prefixes = ["203.0.113.0/28", "2001:db8:f::/64"];
    let config = json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": prefixes});
    policed.agent.edit_config(&node_config_spec(config));
    policed.agent.wait_log_times("NodeConfig in force", 2);
    let closed = json!({"podSelector": {"matchLabels": {"role": "closed"}}, "policyTypes": ["Ingress", "Egress"]});
    policed.cluster().add_policy("x", "closed", closed);
    let role = |policed: &mut Policed<'_>, role: &str| {
        policed.neighbours.introduce("x", "again");
        policed.cluster().pods.get_mut(&key("x", "again")).expect("introduced").labels = labels(&[("role", role)]);
        policed.enforce();
    };
    role(&mut policed, "open");
    let peer = policed.neighbours.pods[&key("z", "a")].0.netns();
    let senders = SAME.map(|to| {
        let to: IpAddr = to.parse().expect("an address");
        let any: IpAddr = if to.is_ipv6() { "::" } else { "0.0.0.0" }.parse().expect("an address");
        let sender = within(&peer, || UdpSocket::bind((any, 0)).expect("a free port"));
        sender.connect((to, FLOOD)).expect("a route");
        sender
    });
    // The same pod by its name, and so with the same addresses, as a StatefulSet makes them.
    let attach = |name: &str| {
        let pod = host.pod(name);
        host.add(&pod).kubernetes("x", "again").annotations(&[("addresses", &SAME.join(","))]).result();
        let receivers = SAME.map(|at| {
            let receiver = within(&pod.netns(), || UdpSocket::bind((at, FLOOD)).expect("an own address"));
            receiver.set_nonblocking(true).expect("set");
            receiver
        });
        (pod, receivers)
    };
    let arrives = |receiver: &UdpSocket| receiver.recv(&mut [0; 8]).is_ok().then_some(());
    let (pod, receivers) = attach("former");
    for (sender, receiver) in senders.iter().zip(&receivers) {
        wait_for("a datagram to the former pod", || {
            sender.send(&[1]).ok();
            arrives(receiver)
        });
    }
    host.del(&pod).kubernetes("x", "again").done();
    role(&mut policed, "closed");
    let (pod, receivers) = attach("latter");
    // The same connections as before, by what tells connections apart.
    let mut heard = 0;
    for _ in 0..200 {
        for (sender, receiver) in senders.iter().zip(&receivers) {
            sender.send(&[2]).ok();
            heard += usize::from(arrives(receiver).is_some());
        }
    }
    role(&mut policed, "open");
    for (sender, receiver) in senders.iter().zip(&receivers) {
        wait_for("a datagram to the latter pod", || {
            sender.send(&[3]).ok();
            let mut byte = [0];
            let arrived = receiver.recv(&mut byte).is_ok();
            heard += usize::from(arrived && byte == [2]);
            (arrived && byte == [3]).then_some(())
        });
    }
    assert_eq!(heard, 0, "the latter pod heard what the former one had been allowed to");
    host.del(&pod).kubernetes("x", "again").done();
}

/// Datagrams from one namespace to these addresses, one after another without a pause, counted where they leave and arrive.
struct Flood {
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    tried: AtomicU64,
    /// The kernel took them, for there was a way.
    gone: AtomicU64,
    arrived: AtomicU64,
    ended: AtomicBool,
}

/// Where they go.
const FLOOD: u16 = 9000;

impl Flood {
    fn start(from: &Path, to: &Path, addresses: &[IpAddr]) -> Flood {
        let counts = Arc::new(Counts::default());
        let bind = |port: u16| move || UdpSocket::bind(("::", port)).expect("a free port");
        let (sender, receiver) = (within(from, bind(0)), within(to, bind(FLOOD)));
        receiver.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        let targets: Vec<SocketAddr> = addresses.iter().map(|ip| SocketAddr::new(mapped(*ip), FLOOD)).collect();
        let (sending, receiving) = (counts.clone(), counts.clone());
        let send = move || {
            while !sending.ended.load(Ordering::Relaxed) {
                for target in &targets {
                    let gone = sender.send_to(&[1; 10], target).is_ok();
                    sending.tried.fetch_add(1, Ordering::Relaxed);
                    sending.gone.fetch_add(u64::from(gone), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(200));
            }
        };
        let receive = move || {
            while !receiving.ended.load(Ordering::Relaxed) {
                let arrived = receiver.recv(&mut [0; 16]).is_ok();
                receiving.arrived.fetch_add(u64::from(arrived), Ordering::Relaxed);
            }
        };
        Flood { counts, threads: vec![thread::spawn(send), thread::spawn(receive)] }
    }

    fn wait_for(&self, what: &str, count: &AtomicU64, more: u64) {
        let before = count.load(Ordering::Relaxed);
        wait_for(what, || (count.load(Ordering::Relaxed) >= before + more).then_some(()));
    }

    fn wait_sent(&self, more: u64) {
        self.wait_for("datagrams to be tried", &self.counts.tried, more);
    }

    fn wait_gone(&self, more: u64) {
        self.wait_for("datagrams to leave", &self.counts.gone, more);
    }

    fn wait_arrived(&self) {
        self.wait_for("datagrams to arrive", &self.counts.arrived, 1);
    }

    fn arrived(&self) -> u64 {
        self.counts.arrived.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.counts.ended.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("no panic"));
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// An address as a socket of both families takes it.
fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

#[test]
fn an_audited_node_lets_everything_pass_and_counts_what_it_would_have_dropped() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    policed.cluster().add_policy("x", "closed", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    policed.enforce();
    let mut cyclonus = Cyclonus::start();
    assert_agreement("while it is enforced", &mut policed.neighbours, &mut cyclonus, Asked::All);
    let mode = |mode: &str| node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "policy": {"mode": mode}}));
    policed.agent.edit_config(&mode("audit"));
    policed.agent.wait_log_times("NodeConfig in force", 2);
    policed.enforce();
    let before = counted(&policed);
    policed.neighbours.assert_all_pass("while it is audited");
    let after = counted(&policed);
    assert!(after > before, "{after} packets would have been dropped after {before}");
    policed.agent.edit_config(&mode("enforce"));
    policed.agent.wait_log_times("NodeConfig in force", 3);
    policed.enforce();
    assert_agreement("when it is enforced again", &mut policed.neighbours, &mut cyclonus, Asked::All);
}

/// How many packets the rules counted that end the way to x/a and from it.
fn counted(policed: &Policed<'_>) -> u64 {
    let link = policed.neighbours.link("x", "a");
    let table: Value =
        serde_json::from_str(&policed.neighbours.host.run("nft -j list table inet flock")).expect("JSON of nft");
    let lists = table["nftables"].as_array().cloned().unwrap_or_default().into_iter();
    let rules = lists.map(|one| one["rule"].clone());
    let of_link = rules.filter(|rule| rule["chain"].as_str().is_some_and(|chain| chain.contains(&link)));
    let expressions = of_link.flat_map(|rule| rule["expr"].as_array().cloned().unwrap_or_default());
    expressions.filter_map(|one| one["counter"]["packets"].as_u64()).sum()
}
