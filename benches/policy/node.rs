//! A node with the real agent, whose API server is the bench's.

use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use flock::kernel::nftables::changes::Listener;
use flock::kernel::nftables::socket::Nftables;
use model::addr::Family;
use model::guard::FILTER;
use model::ruleset::Form;
use serde_json::{Value, json};

use crate::api::{Api, Kind};
use crate::cluster::{self, About};
use crate::support::agent::Agent;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::manifests::node_config_spec;
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::waiting::{PATIENCE, wait_for};

/// A host that has prefixes on a link, as nodes have.
pub fn host() -> Host {
    let host = Host::new();
    host.run("ip link add lan0 type veth peer name lan1");
    host.run("ip addr add 192.0.2.1/24 dev lan0");
    host.run("ip addr add 2001:db8:9::1/64 dev lan0 nodad");
    host.run("ip link set lan1 up");
    host.run("ip link set lan0 up");
    host
}

pub fn in_netns<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(netns).expect("a namespace").run(work).expect("entered")
}

/// What of the checks a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    Nothing,
    Source,
    All,
}

fn config(checks: Checks) -> Value {
    let mode = if checks == Checks::All { "enforce" } else { "none" };
    let spec = json!({
        "cidr6": "2001:db8:1:f001::/64", "cidr4": "10.25.208.0/20",
        "sourceCheck": checks != Checks::Nothing, "policy": {"mode": mode},
    });
    let mut object: Value = serde_json::from_str(&node_config_spec(spec)).expect("JSON");
    let metadata = json!({"uid": "u1", "generation": 1, "resourceVersion": "1"});
    object["metadata"].as_object_mut().expect("an object").extend(metadata.as_object().expect("an object").clone());
    object
}

/// A node.
pub struct Node<'a> {
    pub host: &'a Host,
    pub api: Api,
    agent: Option<Agent<'a>>,
    pub pods: Vec<(Pod<'a>, Attached)>,
    expected: Vec<String>,
}

impl<'a> Node<'a> {
    /// A node whose pods will have these names, of the namespaces that [`cluster::namespace`] gives them, in a cluster with so many
    /// others.
    pub fn start(host: &'a Host, checks: Checks, names: &[String], peers: usize, about: About) -> Node<'a> {
        let api = Api::start(host);
        api.have(Kind::NodeConfigs, vec![config(checks)]);
        api.have(Kind::Namespaces, cluster::namespaces());
        api.have(Kind::Policies, cluster::policies(about));
        api.have(Kind::Own, names.iter().enumerate().map(|(n, name)| cluster::own(n, name, &[])).collect());
        api.have(Kind::Peers, (0..peers).map(cluster::peer).collect());
        let agent = agent(host, &api);
        Node { host, api, agent: Some(agent), pods: Vec::new(), expected: names.to_vec() }
    }

    /// Attaches the first so many of its pods, and has them known with their addresses.
    pub fn attach(&mut self, count: usize) {
        for (number, name) in self.expected.iter().take(count).enumerate() {
            let pod = self.host.pod(name);
            let attached = self.host.add(&pod).kubernetes(&cluster::namespace(number), name).result();
            self.api.tell(Kind::Own, "MODIFIED", &cluster::own(number, name, &attached.ips()));
            self.pods.push((pod, attached));
        }
    }

    /// The agent starts anew, with other checks.
    pub fn restart(&mut self, checks: Checks) {
        self.end_agent();
        self.api.have(Kind::NodeConfigs, vec![config(checks)]);
        self.agent = Some(agent(self.host, &self.api));
    }

    /// The agent, which runs.
    pub fn agent(&self) -> &Agent<'a> {
        self.agent.as_ref().expect("it runs")
    }

    /// Ends the agent at once. What it has made in the kernel stays.
    pub fn end_agent(&mut self) {
        self.agent.take().expect("it runs").kill();
    }

    /// Waits until so many peers of IPv4 are in the sets.
    pub fn wait_peers(&self, count: usize) {
        wait_for("all peers in the kernel", || (self.peers() >= count).then_some(()));
    }

    /// How many peers of IPv4 are in the sets.
    pub fn peers(&self) -> usize {
        in_netns(&self.host.netns(), || {
            let mut nft = Nftables::open().expect("a socket");
            let Some(shown) = nft.read(FILTER, Instant::now() + PATIENCE).expect("readable") else { return 0 };
            let table = shown.outline(&model::ruleset::Table::default()).expect("flock's own table");
            let sets = table.sets.iter().filter(|(_, set)| set.form == Form::Addresses(Family::V4));
            sets.map(|(_, set)| set.elements.len()).sum()
        })
    }

    /// The addresses of a pod, IPv4 first.
    pub fn ips(&self, number: usize) -> [IpAddr; 2] {
        let (_, attached) = &self.pods[number];
        [attached.ipv4(), attached.ipv6()].map(|ip| ip.expect("an address of each family"))
    }

    /// What is told to whoever listens to the packet filter: the moments in which flock's table has just changed.
    pub fn changes(&self) -> Receiver<Instant> {
        let (send, heard) = channel();
        let (ready, listening) = channel();
        let netns = self.host.netns();
        std::thread::spawn(move || {
            in_netns(&netns, || {
                let mut listener = Listener::open().expect("a socket");
                ready.send(()).expect("heard");
                while listener.wait(&[], &[FILTER]).is_some() {
                    if send.send(Instant::now()).is_err() {
                        return;
                    }
                }
            });
        });
        listening.recv_timeout(PATIENCE).expect("a thread");
        heard
    }
}

fn agent<'a>(host: &'a Host, api: &Api) -> Agent<'a> {
    let agent = host.agent().config(None).kubeconfig(api.kubeconfig(host)).start();
    agent.wait_log("NodeConfig in force");
    agent
}

/// Names of so many pods.
pub fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("pod-{n}")).collect()
}

/// Leaves the machine to others for a moment, so that what is measured next begins in calm.
pub fn calm() {
    std::thread::sleep(Duration::from_millis(5));
}
