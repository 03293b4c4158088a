//! What pods may send and receive, by packets: sources, policies, masquerade, and the table of neighbours, which here a pod may
//! fill, since nobody else runs on the machine.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use flock::kernel::nftables::socket::Nftables;
use model::guard;
use rustix::net::{AddressFamily, SendFlags, SocketType, bind, ipproto, sendto, socket, sockopt};
use serde_json::{Value, json};

use crate::ip::{Ip, index};
use crate::machine::has_ipv6;
use crate::node::{Agent, Attached, Pod, assert_empty, assert_sound, configure, host_addresses, wait_for};
use crate::ping::Pinger;

/// How long a packet may take that has to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long somebody waits for an answer that does not have to come.
const BRIEFLY: Duration = Duration::from_secs(2);

const PORT: u16 = 7070;

/// The families of this kernel.
fn families() -> &'static [bool] {
    if has_ipv6() { &[false, true] } else { &[false] }
}

fn of_family(ips: Vec<IpAddr>, v6: bool) -> IpAddr {
    ips.into_iter().find(|ip| ip.is_ipv6() == v6).expect("of this family")
}

fn open(ip: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((ip, port)).unwrap_or_else(|error| panic!("{ip}: {error}"));
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

/// The sender of the next packet.
#[track_caller]
fn heard(socket: &UdpSocket) -> SocketAddr {
    socket.recv_from(&mut [0; 8]).expect("a packet arrives").1
}

/// The number `host` on the network at the host's link `lan0`. There is somebody from 1 to 40, and the host at the end.
fn on_link(v6: bool, host: u32) -> IpAddr {
    let text = if v6 { format!("2001:db8:60::{host:x}") } else { format!("10.60.{}.{}", host >> 8, host & 255) };
    text.parse().expect("an address")
}

const HOST_THERE: u32 = 0xff01;

/// A network at the host's link `lan0` with somebody in it, who has a default route to the host.
fn lan() -> Pod {
    let lan = Pod::new("lan");
    let mut ip = Ip::new();
    ip.add_pair("lan0", &Netns::open(Path::new(&lan.path())).expect("a namespace"));
    ip.up("lan0");
    for (v6, prefix_len) in [(false, 16), (true, 64)] {
        ip.add_network("lan0", on_link(v6, HOST_THERE), prefix_len);
    }
    lan.inside(|| {
        let mut ip = Ip::new();
        ip.up("lo");
        ip.up("eth0");
        for (v6, prefix_len) in [(false, 16), (true, 64)] {
            (1..=40).for_each(|host| ip.add_network("eth0", on_link(v6, host), prefix_len));
            ip.add_default_route(on_link(v6, HOST_THERE));
        }
    });
    lan
}

/// A source that is nobody's.
fn lie(v6: bool) -> IpAddr {
    if v6 { "2001:db8:99::7" } else { "10.99.0.7" }.parse().expect("an address")
}

fn takes(pod: &Pod, ip: IpAddr) {
    pod.inside(|| Ip::new().add_address("eth0", ip));
}

/// Whether the host knows a neighbour of this address, as /proc shows those of IPv4.
fn is_known(ip: IpAddr) -> bool {
    let text = fs::read_to_string("/proc/net/arp").expect("readable");
    text.lines().any(|line| line.split_whitespace().next() == Some(ip.to_string().as_str()))
}

/// Has the pod ask by ARP who has the gateway, with this sender.
fn asks_for_gateway(pod: &Pod, sender: IpAddr, to: IpAddr) {
    let gateway = model::addr::GATEWAY4.into();
    pod.inside(|| {
        Ip::new().delete_neighbour("eth0", gateway);
        open(sender, 0).send_to(b"?", (to, 9)).expect("sent");
    });
}

pub fn sources() {
    let agent = Agent::start();
    let (p, q) = (Pod::new("p"), Pod::new("q"));
    let (own, other) = (p.add(), q.add());
    for &v6 in families() {
        let (mine, lie) = (of_family(own.ips(), v6), lie(v6));
        takes(&p, lie);
        let host = open(of_family(host_addresses(), v6), PORT);
        let neighbour = q.inside(|| open(of_family(other.ips(), v6), PORT));
        for listener in [&host, &neighbour] {
            let to = listener.local_addr().expect("bound");
            for source in [lie, mine] {
                p.inside(|| open(source, 0)).send_to(b"?", to).expect("sent");
            }
            assert_eq!(heard(listener).ip(), mine, "and never {lie}");
        }
    }
    let (lie, host) = (lie(false), of_family(host_addresses(), false));
    asks_for_gateway(&p, lie, host);
    // The pod has to ask again, and this time as itself.
    p.inside(|| Ip::new().delete_address("eth0", lie));
    p.pings([host]);
    assert!(!is_known(lie), "who asks as somebody else is not learnt");
    // Without the check it is.
    configure(&json!({"sourceCheck": false}));
    wait_for("the check to be off", || table().is_none().then_some(()));
    takes(&p, lie);
    asks_for_gateway(&p, lie, host);
    wait_for("the sender to be learnt", || is_known(lie).then_some(()));
    [&p, &q].into_iter().for_each(Pod::del);
    assert_empty();
    agent.stop();
}

/// The names of the chains of `table inet flock`; none without a table.
fn table() -> Option<Vec<String>> {
    let mut nft = Nftables::open().expect("a socket");
    let shown = nft.read(guard::FILTER, Instant::now() + PATIENCE).expect("read")?;
    Some(
        shown
            .outline(&model::ruleset::Table::default())
            .expect("a table of flock's forms")
            .chains
            .into_keys()
            .collect(),
    )
}

/// Brings into force, under this name, that the pod `web` takes packets of pods with the label `role` alone, and `mute` sends none.
fn enforce(agent: &Agent, name: &str, role: &str) {
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name, "labels": {"role": name}},
            "spec": {"containers": [{"name": "main"}]}})
    };
    let policy = |name: &str, spec: Value| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": name}, "spec": spec})
    };
    let labelled = |role: &str| json!({"matchLabels": {"role": role}});
    let mut all = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})];
    all.extend(["web", "client", "other", "mute"].map(pod));
    let from = json!([{"from": [{"podSelector": labelled(role)}]}]);
    all.push(policy(name, json!({"podSelector": labelled("web"), "ingress": from})));
    all.push(policy("mute", json!({"podSelector": labelled("mute"), "policyTypes": ["Egress"]})));
    let text: String = all.iter().map(|document| format!("---\n{document}\n")).collect();
    fs::create_dir_all("/run/policies").expect("made");
    fs::write("/run/policies/.new", text).expect("written");
    fs::rename("/run/policies/.new", "/run/policies/all.yaml").expect("renamed");
    agent.look_again();
    let chain = format!("policy/default/{name}/in");
    wait_for(&chain, || table().is_some_and(|chains| chains.contains(&chain)).then_some(()));
}

pub fn policies() {
    fs::create_dir_all("/run/policies").expect("made");
    let agent = Agent::of(&json!({"policy": {"log": true}}), &["--policy-dir", "/run/policies"]);
    let pods = ["web", "client", "other", "mute"].map(Pod::new);
    let attached: Vec<Attached> = pods.iter().map(Pod::add).collect();
    let [web, client, other, mute] = &pods;
    enforce(&agent, "first", "client");
    for &v6 in families() {
        let ip = |n: usize| of_family(attached[n].ips(), v6);
        let server = web.inside(|| open(ip(0), PORT));
        let from = |pod: &Pod, own: usize| pod.inside(|| open(ip(own), 0));
        let (allowed, denied, muted) = (from(client, 1), from(other, 2), from(mute, 3));
        // What is denied would be heard before what is sent behind it.
        let to = server.local_addr().expect("bound");
        denied.send_to(b"?", to).expect("sent");
        allowed.send_to(b"?", to).expect("sent");
        assert_eq!(heard(&server), allowed.local_addr().expect("bound"));
        server.send_to(b"!", allowed.local_addr().expect("bound")).expect("sent");
        assert_eq!(heard(&allowed), to, "answers pass");
        let there = client.inside(|| open(ip(1), PORT));
        muted.send_to(b"?", there.local_addr().expect("bound")).expect("sent");
        server.send_to(b"?", there.local_addr().expect("bound")).expect("sent");
        assert_eq!(heard(&there), to, "who is mute says nothing");
        web.pings([ip(1), ip(2), ip(3)]);

        enforce(&agent, if v6 { "second6" } else { "second4" }, "other");
        let host = open(of_family(host_addresses(), v6), 0);
        allowed.send_to(b"?", to).expect("sent");
        host.send_to(b"?", to).expect("sent");
        assert_eq!(heard(&server).ip(), host.local_addr().expect("bound").ip(), "what is revoked has ended");
        // In the other direction as well: nothing comes before what somebody sends who may.
        server.send_to(b"!", allowed.local_addr().expect("bound")).expect("sent");
        host.send_to(b"?", allowed.local_addr().expect("bound")).expect("sent");
        assert_eq!(heard(&allowed).ip(), host.local_addr().expect("bound").ip(), "also for what is sent back");
        denied.send_to(b"?", to).expect("sent");
        assert_eq!(heard(&server), denied.local_addr().expect("bound"), "and what is granted has begun");
        enforce(&agent, if v6 { "third6" } else { "third4" }, "client");
    }
    wait_for("a line in the kernel's log", || kernel_log().contains("flock drop ingress default/web").then_some(()));
    pods.iter().for_each(Pod::del);
    assert_empty();
    agent.stop();
}

/// What the kernel has logged, as far as it remembers.
fn kernel_log() -> String {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
    let file = rustix::fs::open("/dev/kmsg", flags, rustix::fs::Mode::empty()).expect("readable");
    let (mut file, mut text, mut record) = (fs::File::from(file), String::new(), [0; 8192]);
    // One record with each read, and an error behind the last one.
    while let Ok(length) = file.read(&mut record) {
        text += &String::from_utf8_lossy(&record[..length]);
    }
    text
}

pub fn masquerade() {
    let lan = lan();
    let agent = Agent::of(&json!({"masquerade": {"ipv4": true, "ipv6": true}}), &[]);
    let pod = Pod::new("p");
    let own = pod.add();
    // Whether a server outside sees this address, which then also gets the answer. Any other may have none: with the rule, the
    // kernel forgets how it had translated.
    let outside_sees = |v6: bool, expected: IpAddr| {
        let (from, to) = (of_family(own.ips(), v6), on_link(v6, 1));
        let (here, there) = (pod.inside(|| open(from, 0)), lan.inside(|| open(to, PORT)));
        here.send_to(b"?", (to, PORT)).expect("sent");
        let who = heard(&there);
        there.send_to(b"!", who).expect("sent");
        who.ip() == expected && {
            assert_eq!(heard(&here).ip(), to, "the answer comes back");
            true
        }
    };
    for &v6 in families() {
        assert!(outside_sees(v6, on_link(v6, HOST_THERE)));
    }
    configure(&json!({}));
    for &v6 in families() {
        wait_for("the pod's own address", || outside_sees(v6, of_family(own.ips(), v6)).then_some(()));
    }
    pod.del();
    assert_empty();
    agent.stop();
}

/// Sends, in the namespace of this thread, to one address of both networks after the other, until it has ended.
fn sweep(ended: &AtomicBool, sent: &AtomicU64) {
    let sockets: Vec<(bool, UdpSocket)> =
        families().iter().map(|&v6| (v6, open(if v6 { "::" } else { "0.0.0.0" }.parse().expect("any"), 0))).collect();
    for number in (0x1000..0xf000).cycle() {
        for (v6, socket) in &sockets {
            socket.send_to(b"?", (on_link(*v6, number), 9)).ok();
        }
        sent.fetch_add(1, Ordering::Relaxed);
        if ended.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Solicits the gateway, in the namespace of this thread, with one source after the other, until it has ended.
fn solicit(ended: &AtomicBool, sent: &AtomicU64) {
    let link = index("eth0");
    let gateway = SocketAddrV6::new(model::addr::GATEWAY6, 0, 0, link);
    let mut packet = vec![135, 0, 0, 0, 0, 0, 0, 0];
    packet.extend(model::addr::GATEWAY6.octets());
    packet.extend([1, 1, 2, 0, 0, 0, 0, 7]);
    for number in (1..=0xffff).cycle() {
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xaa, number);
        let raw: OwnedFd = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).expect("a raw socket");
        sockopt::set_ipv6_freebind(&raw, true).expect("set");
        sockopt::set_ipv6_unicast_hops(&raw, Some(255)).expect("set");
        bind(&raw, &SocketAddrV6::new(source, 0, 0, link)).expect("bound");
        sendto(&raw, &packet, SendFlags::empty(), &gateway).ok();
        sent.fetch_add(1, Ordering::Relaxed);
        if ended.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// How often the kernel had no room for a neighbour of this family.
fn times_full(v6: bool) -> u64 {
    let file = if v6 { "/proc/net/stat/ndisc_cache" } else { "/proc/net/stat/arp_cache" };
    let text = fs::read_to_string(file).expect("readable");
    let (head, rows) = text.split_once('\n').expect("a head");
    let column = head.split_whitespace().position(|name| name == "table_fulls").expect("a column");
    let count =
        |row: &str| u64::from_str_radix(row.split_whitespace().nth(column).expect("a number"), 16).expect("a number");
    rows.lines().map(count).sum()
}

type Flood = fn(&AtomicBool, &AtomicU64);

pub fn neighbours() {
    let _lan = lan();
    let floods: &[(Flood, &[bool])] =
        if has_ipv6() { &[(sweep, &[false, true]), (solicit, &[true])] } else { &[(sweep, &[false])] };
    let (p, q) = (Pod::new("p"), Pod::new("q"));
    let mut fresh = 1..=40;
    for &(flood, families) in floods {
        let agent = Agent::start();
        [&p, &q].into_iter().for_each(|pod| drop(pod.add()));
        assert_sound("with two pods");
        let (ended, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let _ends = Ends(&ended);
            scope.spawn(|| p.inside(|| flood(&ended, &sent)));
            let full: Vec<u64> = families.iter().map(|&v6| times_full(v6)).collect();
            wait_for("a flood", || (sent.load(Ordering::Relaxed) > 3000).then_some(()));
            let (mut host, mut pod) = (Pinger::here(), q.pinger());
            let (first, second): (Vec<u32>, Vec<u32>) =
                (fresh.by_ref().take(5).collect(), fresh.by_ref().take(5).collect());
            for (&v6, full) in families.iter().zip(&full) {
                let found =
                    |pinger: &mut Pinger, all: &[u32]| all.iter().filter(|n| pinger.ping(on_link(v6, **n))).count();
                assert_eq!((found(&mut host, &first), found(&mut pod, &second)), (5, 5), "new neighbours, v6: {v6}");
                assert_eq!(times_full(v6), *full, "it was never full");
            }
            // Without the check, and what limits sweeps, the same flood fills the table.
            configure(&json!({"sourceCheck": false}));
            for (&v6, full) in families.iter().zip(&full) {
                wait_for("a full table", || (times_full(v6) > *full).then_some(()));
                wait_for("a neighbour that is not found", || {
                    let number = fresh.next().expect("one of them is not found");
                    (!host.ping_within(on_link(v6, number), BRIEFLY)).then_some(())
                });
            }
        });
        [&p, &q].into_iter().for_each(Pod::del);
        assert_empty();
        agent.stop();
    }
}

/// Ends a flood also when the story fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
