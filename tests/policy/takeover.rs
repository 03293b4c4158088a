//! A node whose policies the Go flock has enforced: its table goes when ours holds all that it held, and not before.

use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use flock::kernel::netns::Netns;

use super::compare::assert_packets;
use super::node::Neighbours;
use super::policed::{DIRECTORY, put};
use super::stories::{all_of, lets_in};
use super::streams::{Place, Streams, Way};
use super::support::host::Host;
use super::support::waiting::wait_for;
use crate::support::inside::Inside as _;

/// The table as the Go flock writes it, of the policy that lets only y/a in to x/a.
fn former(neighbours: &Neighbours<'_>) -> String {
    let (link, own, peer) = (neighbours.link("x", "a"), neighbours.ips("x", "a"), neighbours.ips("y", "a"));
    format!(
        "table inet flock_netpol {{
         chain pod_1f2e3d4c_ingress {{
         ip saddr {} accept
         ip6 saddr {} accept
         drop
         }}
         chain forward {{
         type filter hook forward priority filter; policy accept;
         ct state established,related accept
         oifname \"{link}\" ip daddr {} jump pod_1f2e3d4c_ingress
         oifname \"{link}\" ip6 daddr {} jump pod_1f2e3d4c_ingress
         }}
         }}\n",
        peer[0], peer[1], own[0], own[1]
    )
}

fn stands(host: &Host) -> bool {
    host.run("nft list tables").contains("table inet flock_netpol")
}

/// Packets as fast as they go, each of a new connection, until it ends; and how many of them arrive.
struct Flood {
    ended: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<u64>>,
}

impl Flood {
    fn start(all: &[(Place, Place)]) -> Flood {
        let (ended, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = all.iter().map(|((from, source), (to, address))| {
            let (source, from) = (*source, from.clone());
            let listener = within(to, || UdpSocket::bind((*address, 0)).expect("an own address"));
            listener.set_nonblocking(true).expect("set");
            let (ended, sent) = (ended.clone(), sent.clone());
            thread::spawn(move || {
                let mut heard = 0;
                let to = listener.local_addr().expect("bound");
                while !ended.load(Ordering::Relaxed) {
                    let socket = within(&from, || UdpSocket::bind((source, 0)).expect("an own address"));
                    (0..8).for_each(|_| drop(socket.send_to(b"?", to)));
                    sent.fetch_add(8, Ordering::Relaxed);
                    heard += u64::from(listener.recv(&mut [0; 8]).is_ok());
                }
                heard
            })
        });
        let threads = threads.collect();
        Flood { ended, sent, threads }
    }

    fn goes_on(&self, more: u64) {
        let before = self.sent.load(Ordering::Relaxed);
        wait_for("a flood", || (self.sent.load(Ordering::Relaxed) > before + more).then_some(()));
    }

    /// How many have arrived.
    fn end(self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    }
}

fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(netns).expect("a namespace").run(work).expect("entered")
}

fn places(neighbours: &Neighbours<'_>, namespace: &str) -> Vec<Place> {
    let (pod, _) = &neighbours.pods[&super::cluster::key(namespace, "a")];
    neighbours.ips(namespace, "a").into_iter().map(|ip| (pod.netns(), ip)).collect()
}

#[test]
fn the_table_of_the_go_flock_goes_when_its_policies_are_in_force_and_no_denied_packet_passes() {
    let host = Host::new();
    let agent = host.agent().start();
    let mut neighbours = Neighbours::new(&host);
    ["x", "y", "z"].iter().for_each(|namespace| neighbours.attach(namespace, "a"));
    host.write("/run/former.nft", &former(&neighbours));
    host.run("nft -f /run/former.nft");
    let pairs = |from: &str| -> Vec<(Place, Place)> {
        places(&neighbours, from).into_iter().zip(places(&neighbours, "x")).collect()
    };
    let allowed: Vec<_> = pairs("y").into_iter().map(|(from, to)| (from, to, Way::Download)).collect();
    let streams = Streams::start(&allowed);
    let flood = Flood::start(&pairs("z"));
    // On a node without policies nothing takes its place.
    agent.rounds_of("policing/tables.compare", 1);
    agent.wait_log("a table of the Go flock goes on to filter, and nobody keeps it up");
    assert!(stands(&host));
    agent.kill();

    // As long as it is not known what holds, neither.
    neighbours.cluster.add_policy("x", "web", lets_in(&[all_of("y")]));
    put(&host, "kind: [\n");
    let agent = host.agent().args(&["--policy-dir", DIRECTORY]).start();
    // A new pod is closed for the time being.
    neighbours.attach("x", "b");
    assert!(stands(&host));
    flood.goes_on(2000);
    put(&host, &neighbours.cluster.documents());
    agent.signal("HUP");
    agent.wait_log("the policies of the Go flock are taken over, and its table is gone");
    assert!(!stands(&host));
    flood.goes_on(2000);
    let next = streams.next();
    (0..allowed.len()).for_each(|one| streams.wait_received(one, next + 20));
    assert_eq!(flood.end(), 0, "at no time a denied packet passes");
    for one in 0..allowed.len() {
        let received = streams.received(one);
        assert!(received.windows(2).all(|two| two[1] == two[0] + 1), "what is allowed goes on");
    }
    let probes = neighbours.probes();
    assert_packets("taken over", &mut neighbours, &probes);
    host.assert_sound("taken over");
}
