//! A node with nine pods in three namespaces, a machine outside, and somebody who sends packets between all of them. Brings no
//! policy into force by itself: an agent that reads a directory does it, or a ruleset that a test writes by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::cluster::{Cluster, End, Key, NamedPort, Pod, Probe, Protocol, Who, key, labels};
use super::prober::{PORTS, Prober};
use super::support::host::{Host, host_addresses};
use super::support::machine::Machine;
use super::support::outcome::Attached;
use super::support::pod;

/// On the machine outside: of somebody whom no cluster knows, and of a pod of another node.
pub const STRANGER: [&str; 2] = ["192.0.2.9", "2001:db8:9::9"];
pub const REMOTE: [&str; 2] = ["192.0.2.77", "2001:db8:9::77"];

/// Addresses from texts.
pub fn addresses(texts: [&str; 2]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// The ports of a pod of the cyclonus suite, with the names that it gives them.
pub fn usual_ports() -> Vec<NamedPort> {
    let named = |port: u16, protocol: Protocol| {
        let name = format!("serve-{port}-{}", protocol.name().to_lowercase());
        NamedPort { name, protocol, port }
    };
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    PORTS.iter().flat_map(|&port| all.map(|protocol| named(port, protocol))).collect()
}

/// Everybody, with sockets.
pub struct Neighbours<'a> {
    pub host: &'a Host,
    pub outside: Machine<'a>,
    pub pods: BTreeMap<Key, (pod::Pod<'a>, Attached)>,
    pub cluster: Cluster,
    pub prober: Prober,
}

impl<'a> Neighbours<'a> {
    /// The machine outside and no pod yet.
    pub fn new(host: &'a Host) -> Neighbours<'a> {
        let outside = host.machine(
            "outside0",
            &["192.0.2.1/24", "2001:db8:9::1/64", "fe80::1:1/64"],
            &["192.0.2.9/24", "192.0.2.77/24", "2001:db8:9::9/64", "2001:db8:9::77/64", "fe80::1:2/64"],
        );
        outside.run("ip route add default via 192.0.2.1");
        outside.run("ip -6 route add default via 2001:db8:9::1");
        // A proxy of Services has connections tracked on each node, whether there are policies or not.
        host.write(
            "/run/tracked.nft",
            "table inet tracked {\nchain forwarded {\ntype filter hook forward priority 10\nct state new counter\n}\n}\n",
        );
        host.run("nft -f /run/tracked.nft");
        let mut prober = Prober::new();
        for all in [STRANGER, REMOTE] {
            prober.settle(&outside.netns(), &addresses(all));
        }
        prober.settle(&host.netns(), &host_addresses());
        let mut cluster = Cluster::of_three();
        let remote = Pod {
            labels: labels(&[("pod", "b")]),
            ports: usual_ports(),
            status_addresses: addresses(REMOTE),
            ..Pod::default()
        };
        // Its own policies are for its own node to see to, so its namespace has none.
        cluster.set_namespace("far", labels(&[("ns", "far")]));
        cluster.pods.insert(key("far", "remote"), remote);
        // What runs on the network of another node, and what has ended there, bears labels and is no peer.
        for (name, host_network, finished) in [("daemon", true, false), ("job", false, true)] {
            let status_addresses = addresses(STRANGER);
            let pod =
                Pod { labels: labels(&[("pod", "a")]), ports: usual_ports(), status_addresses, host_network, finished };
            cluster.pods.insert(key("y", name), pod);
        }
        Neighbours { host, outside, pods: BTreeMap::new(), cluster, prober }
    }

    /// Those of nine pods, which the agent attaches one by one: a, b and c in each of three namespaces.
    pub fn attach_nine(&mut self) {
        for namespace in ["x", "y", "z"] {
            for name in ["a", "b", "c"] {
                self.attach(namespace, name);
            }
        }
    }

    /// A pod that the cluster knows from now on, labelled by its name, unless it knew it before.
    pub fn introduce(&mut self, namespace: &str, name: &str) {
        let pod = Pod { labels: labels(&[("pod", name)]), ports: usual_ports(), ..Pod::default() };
        self.cluster.pods.entry(key(namespace, name)).or_insert(pod);
    }

    /// One more pod on this node.
    pub fn attach(&mut self, namespace: &str, name: &str) {
        self.introduce(namespace, name);
        let key = key(namespace, name);
        let pod = self.host.pod(&format!("{namespace}-{name}"));
        pod.run("ip link set lo up");
        let attached = self.host.add(&pod).kubernetes(namespace, name).result();
        self.prober.settle(&pod.netns(), &attached.ips());
        self.pods.insert(key, (pod, attached));
    }

    /// Ends a pod as a runtime does.
    pub fn detach(&mut self, namespace: &str, name: &str) {
        let key = key(namespace, name);
        let (pod, attached) = self.pods.remove(&key).expect("it is there");
        self.prober.leave(&attached.ips());
        self.host.del(&pod).kubernetes(namespace, name).done();
        pod.vanish();
        self.cluster.pods.remove(&key);
    }

    /// The address of a pod in each family, IPv4 first.
    pub fn ips(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        let (_, attached) = &self.pods[&key(namespace, name)];
        attached.ipv4().into_iter().chain(attached.ipv6()).collect()
    }

    /// A pod's host end.
    pub fn link(&self, namespace: &str, name: &str) -> String {
        self.pods[&key(namespace, name)].1.host_link()
    }

    /// Everybody's addresses.
    pub fn ends(&self) -> Vec<End> {
        let of = |who: Who, all: Vec<IpAddr>| all.into_iter().map(move |address| End { who: who.clone(), address });
        let pods = self.pods.iter().flat_map(|(key, (_, attached))| of(Who::Pod(key.clone()), attached.ips()));
        let others = of(Who::Node, host_addresses().into())
            .chain(of(Who::Stranger, addresses(STRANGER)))
            .chain(of(Who::Pod(super::cluster::key("far", "remote")), addresses(REMOTE)));
        pods.chain(others).collect()
    }

    /// Every question that concerns a pod of this node: from everybody to everybody else, of every kind.
    pub fn probes(&self) -> Vec<Probe> {
        let ends = self.ends();
        let local = |end: &End| matches!(&end.who, Who::Pod(key) if self.pods.contains_key(key));
        let mut kinds = vec![(Protocol::Echo, 0)];
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            kinds.extend(PORTS.map(|port| (protocol, port)));
        }
        let mut probes = Vec::new();
        for from in &ends {
            for to in &ends {
                let one_family = from.address.is_ipv6() == to.address.is_ipv6();
                if one_family && from.who != to.who && (local(from) || local(to)) {
                    let probe =
                        |&(protocol, port)| Probe { from: from.clone(), to: to.clone(), protocol, port, through: None };
                    probes.extend(kinds.iter().map(probe));
                }
            }
        }
        probes
    }
}
