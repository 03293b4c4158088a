//! A pod that sends to every address of a prefix on the host's link, with real packets, and whoever else needs the table of
//! neighbours.
//!
//! All network namespaces of a kernel share that table, so no story may fill it: others that run beside it would fail. What happens
//! without the guard is told by how many entries an unguarded pod makes, of which there need only be more for the table to be full.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flock::kernel::netns::Netns;
use model::ruleset::Ruleset;
use model::sweep::limit_sweeps;
use serde_json::json;

use crate::masquerade::{in_pod, nets, wire, wire_pod};
use crate::ruleset_text::carry_out;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::probe::{Echo, Probe};
use crate::support::waiting::{PATIENCE, wait_for};

/// Most addresses that one pod holds in the table, as `model::sweep` has it.
const HELD: usize = 97;
/// Addresses that an unguarded pod tries here: a quarter of what the table takes.
const SOME: u32 = 256;

/// The number `host` within the prefix on the link of this host, in this family. There is somebody from 1 to 60.
fn on_link(v6: bool, host: u32) -> IpAddr {
    let text = if v6 { format!("2001:db8:60::{host:x}") } else { format!("10.60.{}.{}", host >> 8, host & 255) };
    text.parse().expect("an address")
}

/// The node with the pods `p` and `q` and the link `lan0`, behind which somebody has the addresses 1 to 60.
fn node() -> Host {
    let host = Host::with(&[]);
    let there: Vec<String> =
        (1..=60).flat_map(|n| [on_link(false, n), on_link(true, n)]).map(|ip| ip.to_string()).collect();
    wire(&host, "lan", "lan0", &there, ["10.60.255.1", "2001:db8:60::ffff:1"]);
    host.run("ip addr add 10.60.255.1/16 dev lan0");
    host.run("ip addr add 2001:db8:60::ffff:1/64 dev lan0 nodad");
    wire_pod(&host, "p", "flock1", ["10.25.1.5", "2001:db8:1:1::5"]);
    wire_pod(&host, "q", "flock2", ["10.25.1.6", "2001:db8:1:1::6"]);
    host.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    host
}

#[test]
fn a_pod_that_sends_for_others_is_limited_where_it_is_alone() {
    let host = Host::new();
    host.run("ip link add lan0 type veth peer name lan1");
    host.run("ip addr add 10.60.255.1/16 dev lan0");
    host.run("ip link set lan0 up");
    let config = node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "sourceAnyNamespaces": ["vpn"]}));
    let _agent = host.agent().config(Some(&config)).start();
    let pod = host.pod("p");
    host.add(&pod).kubernetes("vpn", "p").annotations(&[("source", "any")]).result();
    let limits = host.run("nft list table inet flock");
    assert!(limits.contains("@onlink4"), "{limits}");
    host.assert_sound("alone");
    host.del(&pod).done();
    wait_for("the tables to go with the last pod", || host.run("nft list tables").is_empty().then_some(()));
}

fn guard(host: &Host) {
    let mut ruleset = Ruleset::new();
    limit_sweeps(&mut ruleset, &nets(&["10.60.0.0/16", "2001:db8:60::/64"]));
    carry_out(host, &Ruleset::new(), &ruleset);
}

fn netns(host: &Host, name: &str) -> PathBuf {
    host.path(&format!("/run/netns/{name}"))
}

/// How many addresses on `lan0` are in these states of the host's table.
fn asked_for(host: &Host, v6: bool, state: &str) -> usize {
    let family = if v6 { "-6" } else { "-4" };
    host.run(&format!("ip {family} neigh show dev lan0 {state}")).lines().count()
}

/// The packets that the guard has dropped.
fn dropped(host: &Host) -> u64 {
    let listed = host.run("nft list chain inet flock sweep/trial");
    let counts = listed.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next());
    counts.map(|count| count.parse::<u64>().expect("a number")).sum()
}

fn socket(ip: &str) -> UdpSocket {
    let socket = UdpSocket::bind((ip.parse::<IpAddr>().expect("an address"), 0)).expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    socket
}

/// One packet from there to whoever answers at that address, and back.
#[track_caller]
fn asks(from: &UdpSocket, to: IpAddr) {
    from.send_to(&7_u64.to_be_bytes(), (to, 7777)).unwrap_or_else(|error| panic!("to {to}: {error}"));
    let (_, who) = from.recv_from(&mut [0; 64]).unwrap_or_else(|error| panic!("no answer of {to}: {error}"));
    assert_eq!(who.ip(), to);
}

/// A pod that sends to one address of both prefixes after the other, as fast as it can, until it is dropped.
struct Sweeper {
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    fn start(host: &Host, pod: &str) -> Sweeper {
        let sockets = in_pod(host, pod, || [socket("0.0.0.0"), socket("::")]);
        let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let state = (ended.clone(), sent.clone());
        let run = move || {
            for number in (0x1000..0xf000).cycle() {
                for (socket, v6) in sockets.iter().zip([false, true]) {
                    state.1.fetch_add(
                        u64::from(socket.send_to(b"?", (on_link(v6, number), 9)).is_ok()),
                        Ordering::Relaxed,
                    );
                }
                if state.0.load(Ordering::Relaxed) {
                    break;
                }
            }
        };
        Sweeper { ended, sent, thread: Some(thread::spawn(run)) }
    }

    /// Waits until so many more packets are sent.
    fn goes_on(&self, more: u64) {
        let before = self.sent.load(Ordering::Relaxed);
        wait_for("a pod that sweeps", || (self.sent.load(Ordering::Relaxed) > before + more).then_some(()));
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().expect("once").join().expect("no panic");
    }
}

// covers: FM-B15
#[test]
fn a_pod_holds_few_entries_of_the_table_of_neighbours_and_without_the_guard_as_many_as_it_likes() {
    for (v6, guarded) in [(false, false), (false, true), (true, false), (true, true)] {
        let host = node();
        if guarded {
            guard(&host);
        }
        let pod = in_pod(&host, "p", || socket(if v6 { "::" } else { "0.0.0.0" }));
        for number in 0x1000..0x1000 + SOME {
            pod.send_to(b"?", (on_link(v6, number), 9)).expect("sent");
        }
        if guarded {
            let held = asked_for(&host, v6, "nud incomplete");
            assert!((1..=HELD).contains(&held), "{held}");
            assert!(dropped(&host) >= u64::from(SOME) / 2, "{} are dropped", dropped(&host));
        } else {
            let held = asked_for(&host, v6, "nud incomplete nud failed");
            assert_eq!(held, SOME as usize, "nothing keeps it from filling the table");
        }
    }
}

// covers: FM-B15
#[test]
fn while_a_pod_sweeps_host_and_other_pods_find_new_neighbours_and_whoever_asks_it_is_answered() {
    let host = node();
    guard(&host);
    let all = [false, true].into_iter().flat_map(|v6| (1..=20).map(move |number| on_link(v6, number)));
    let _lan = Echo::start(&netns(&host, "lan"), "lan", &all.collect::<Vec<_>>());
    let pod = ["10.25.1.5", "2001:db8:1:1::5"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    let _p = Echo::start(&netns(&host, "p"), "p", &pod);
    let sweeper = Sweeper::start(&host, "p");
    sweeper.goes_on(20_000);
    for (v6, any) in [(false, "0.0.0.0"), (true, "::")] {
        let of_host = Netns::open(&host.netns()).expect("a namespace").run(|| socket(any)).expect("entered");
        let of_q = in_pod(&host, "q", || socket(any));
        for number in 1..=10 {
            asks(&of_host, on_link(v6, number));
            asks(&of_q, on_link(v6, 10 + number));
            // Whom the pod has never sent anything, as it has used up what it may try.
            let client = in_pod(&host, "lan", || socket(&on_link(v6, 20 + number).to_string()));
            asks(&client, pod[usize::from(v6)]);
            let held = asked_for(&host, v6, "nud incomplete");
            assert!(held <= HELD, "{held}");
        }
    }
    sweeper.goes_on(1000);
    assert!(dropped(&host) > 10_000, "it went on all the time: {}", dropped(&host));
}

#[test]
fn a_pod_with_much_to_say_to_twenty_neighbours_loses_nothing() {
    let host = node();
    guard(&host);
    for v6 in [false, true] {
        let there: Vec<IpAddr> = (1..=20).map(|number| on_link(v6, number)).collect();
        let echo = Echo::start(&netns(&host, "lan"), "lan", &there);
        let probe = Probe::start(&netns(&host, "p"), &there, 1, Duration::from_micros(500));
        probe.wait_answers(4000);
        let tally = probe.finish();
        assert_eq!(tally.lost, [], "of {}", tally.sent);
        drop(echo);
        // And to such as only listen.
        let sinks: Vec<UdpSocket> =
            in_pod(&host, "lan", || (21..=32).map(|number| socket(&on_link(v6, number).to_string())).collect());
        let pod = in_pod(&host, "q", || socket(if v6 { "::" } else { "0.0.0.0" }));
        for _ in 0..50 {
            for sink in &sinks {
                pod.send_to(b"!", sink.local_addr().expect("bound")).expect("sent");
            }
        }
        for sink in &sinks {
            (0..50).for_each(|_| assert_eq!(sink.recv(&mut [0; 8]).expect("received"), 1));
        }
    }
    assert_eq!(dropped(&host), 0);
}
