//! What a packet costs between two pods of one node: a question and its answer by UDP, by one thread, so that nobody has to be
//! woken.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::cluster::{About, PORT};
use crate::node::{Checks, Node, host, in_netns, names};
use crate::support::host::Host;
use crate::support::waiting::wait_for;
use crate::{median, row};

/// Turns of each node and family.
const ROUNDS: usize = 400;
/// Questions of a turn: so few that other programs of the machine seldom come between them.
const QUESTIONS: usize = 60;
/// The peers that the policies are about.
const PEERS: usize = 5000;

/// What a node has, by which its row is named.
const KINDS: [(&str, Checks); 8] = [
    ("no table at all", Checks::Nothing),
    ("sourceCheck false, mode none", Checks::Nothing),
    ("an empty chain in forward", Checks::Nothing),
    ("connections tracked, and nothing else", Checks::Nothing),
    ("source check", Checks::Source),
    ("source check and limit of sweeps", Checks::Source),
    ("all of it, 20 policies, allowed before (epoch)", Checks::All),
    ("all of it, 20 policies, each packet judged anew", Checks::All),
];
const EMPTY: usize = 2;
const TRACKED: usize = 3;
const NO_SWEEPS: usize = 4;
const NO_EPOCH: usize = 7;

/// The two ends of a family.
struct Ends {
    client: UdpSocket,
    server: UdpSocket,
}

impl Ends {
    fn of(node: &Node<'_>, family: usize) -> Ends {
        let socket = |number: usize, port: u16| {
            let ip: IpAddr = node.ips(number)[family];
            let socket =
                in_netns(&node.pods[number].0.netns(), || UdpSocket::bind((ip, port)).expect("an own address"));
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("settable");
            socket
        };
        // Both are pods of one namespace.
        let (client, server) = (socket(0, 0), socket(1, PORT));
        client.connect(server.local_addr().expect("bound")).expect("a route");
        server.connect(client.local_addr().expect("bound")).expect("a route");
        Ends { client, server }
    }

    fn ask(&self, questions: usize) {
        let mut bytes = [0; 64];
        for _ in 0..questions {
            self.client.send(&bytes).expect("sent");
            self.server.recv(&mut bytes).expect("it passes");
            self.server.send(&bytes).expect("sent");
            self.client.recv(&mut bytes).expect("it passes");
        }
    }
}

pub fn measure() {
    let hosts: Vec<Host> = (0..KINDS.len()).map(|kind| if kind == NO_SWEEPS { Host::new() } else { host() }).collect();
    let nodes: Vec<Node<'_>> = hosts.iter().enumerate().map(|(kind, host)| ready(kind, host, KINDS[kind].1)).collect();
    let ends: Vec<[Ends; 2]> = nodes.iter().map(|node| [0, 1].map(|family| Ends::of(node, family))).collect();
    let mut times = vec![[Vec::new(), Vec::new()]; KINDS.len()];
    for round in 0..ROUNDS {
        for turn in 0..KINDS.len() {
            let kind = (round + turn) % KINDS.len();
            for (ends, times) in ends[kind].iter().zip(&mut times[kind]) {
                std::thread::yield_now();
                ends.ask(8);
                let began = Instant::now();
                ends.ask(QUESTIONS);
                // Per packet, in microseconds.
                times.push(began.elapsed().as_secs_f64() * 1e6 / QUESTIONS as f64 / 2.0);
            }
        }
    }
    let medians: Vec<[f64; 2]> = times.into_iter().map(|times| times.map(median)).collect();
    let base = medians[EMPTY];
    for ((name, _), times) in KINDS.iter().zip(&medians) {
        let [v4, v6] = [0, 1].map(|family| format!("{:.2} us ({:+.2})", times[family], times[family] - base[family]));
        let target = match *name {
            "sourceCheck false, mode none" => "as no table",
            name if name.ends_with("(epoch)") => "+1.0 us",
            _ => "",
        };
        row(&format!("packet, IPv4 and IPv6: {name}"), target, &format!("{v4}, {v6}"));
    }
}

/// A node of this kind, whose agent has ended, as it would put back what is changed by hand.
fn ready<'a>(kind: usize, host: &'a Host, checks: Checks) -> Node<'a> {
    let peers = if checks == Checks::All { PEERS } else { 0 };
    let mut node = Node::start(host, checks, &names(2), peers, About::Workloads);
    node.attach(2);
    if checks == Checks::All {
        node.wait_peers(PEERS);
        // For a moment behind a revocation, nothing is.
        wait_for("connections to be remembered", || {
            host.run("nft list chain inet flock seal").contains("ct mark set").then_some(())
        });
    }
    let tables = host.run("nft list ruleset");
    assert_eq!(tables.is_empty(), checks == Checks::Nothing, "{tables}");
    assert_eq!(tables.contains("chain sweep"), checks != Checks::Nothing && kind != NO_SWEEPS, "{tables}");
    node.end_agent();
    let forward = |rule: &str| {
        let text = format!("table inet bench {{\nchain f {{\ntype filter hook forward priority 0\n{rule}\n}}\n}}\n");
        host.write("/run/bench.nft", &text);
        host.run("nft -f /run/bench.nft");
    };
    match kind {
        EMPTY => forward(""),
        TRACKED => forward("ct state invalid drop"),
        NO_EPOCH => {
            ["epoch", "seal"].iter().for_each(|chain| drop(host.run(&format!("nft flush chain inet flock {chain}"))))
        }
        _ => {}
    }
    node
}
