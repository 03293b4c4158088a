//! A cluster of two nodes on one switch, with a control plane beside them, which is also the way to a client, and who may ask what
//! of it. What runs in it, the stories say.
//!
//! ```text
//!  node1 ──┐
//!  node2 ──┼─ switch, 192.0.2.0/24 and 2001:db8:a25::/64
//!  control ┤
//!  client ─┘
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::installation::Installation;
use crate::node::{Node, Proxy};
use crate::support::assets::assets;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::programs::succeed;
use crate::support::switch::Switch;
use crate::support::waiting::wait_at_most;

/// What takes seconds on a quiet machine, and starts processes of ten programs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// What the agents say that run in containers.
const LOGS: &str = "-n kube-system logs -l app.kubernetes.io/name=flock --tail=8 --prefix";

/// What the nodes of a cluster are beside.
pub(crate) struct Ground {
    pub(crate) switch: Switch,
    pub(crate) control: Host,
    pub(crate) client: Host,
}

impl Ground {
    pub(crate) fn new() -> Ground {
        let ground = Ground { switch: Switch::new(), control: Host::with(&[]), client: Host::with(&[]) };
        for (host, number) in [(&ground.control, 10), (&ground.client, 50)] {
            ground.switch.plug(host, "eth0", &[&format!("192.0.2.{number}/24"), &format!("2001:db8:a25::{number}/64")]);
        }
        ground.control.setting("ipv4/ip_forward", "1");
        ground.control.setting("ipv6/conf/all/forwarding", "1");
        ground.client.run("ip route add default via 192.0.2.10");
        ground.client.run("ip -6 route add default via 2001:db8:a25::10");
        ground
    }
}

/// A cluster.
pub(crate) struct Cluster<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) plane: ControlPlane<'a>,
    pub(crate) nodes: [Node; 2],
    pub(crate) installation: Installation,
}

impl<'a> Cluster<'a> {
    /// One whose nodes have registered, and wait for a network.
    pub(crate) fn start(ground: &'a Ground, proxy: Proxy, installation: Installation) -> Cluster<'a> {
        let plane = ControlPlane::whole_at(&ground.control, "192.0.2.10", installation.controllers());
        let nodes = [1, 2].map(|number| Node::join(&ground.switch, number, proxy));
        let cluster = Cluster { ground, plane, nodes, installation };
        thread::scope(|scope| {
            for node in &cluster.nodes {
                scope.spawn(|| node.set_up(&cluster.plane));
            }
        });
        for node in &cluster.nodes {
            cluster.wait(&node.name, || cluster.get(&format!("node {}", node.name)));
        }
        cluster
    }

    /// What the administrator types, in a directory that has `deploy/`, with kubectl as it is set up there.
    pub(crate) fn administrator(&self, commands: &str) {
        let mut command = self.ground.control.command("env");
        let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", assets("kube"));
        let kubeconfig = format!("KUBECONFIG={}", self.plane.admin_kubeconfig());
        let chdir = format!("--chdir={}", env!("CARGO_MANIFEST_DIR"));
        succeed(command.args([&chdir, &path, &kubeconfig, "sh", "-ec", commands]));
    }

    /// Tells the one router that there is the way to the node's pods.
    #[track_caller]
    pub(crate) fn lead(&self, node: &Node) {
        let peer = self.wait("its NodePeer", || self.get(&format!("nodepeer {}", node.name)));
        for (family, via) in [("cidr4", &node.ip4), ("cidr6", &node.ip6)] {
            let range = peer["spec"][family].as_str().expect("a range");
            self.ground.control.run(&format!("ip route replace {range} via {via}"));
        }
    }

    /// What the node's agent has said since it was started.
    pub(crate) fn agent_log(&self, node: &Node) -> String {
        match self.installation {
            Installation::Systemd => node.log("flock-agent"),
            Installation::DaemonSet => {
                let pods = format!(
                    "-n kube-system get pods -l app.kubernetes.io/name=flock --field-selector spec.nodeName={} -o name",
                    node.name
                );
                self.plane.run(&format!("-n kube-system logs {} -c agent", self.plane.run(&pods).trim()))
            }
        }
    }

    /// What there is, and what has happened, for whoever has to find out what was wrong.
    pub(crate) fn tell(&self) {
        for line in ["get nodes -o wide", "get pods -A -o wide", "get events -A --sort-by=.lastTimestamp", LOGS] {
            let output = self.plane.kubectl(&line.split(' ').collect::<Vec<_>>());
            let text = String::from_utf8_lossy(&output.stdout);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("{line}:");
            lines.iter().skip(lines.len().saturating_sub(25)).for_each(|line| eprintln!("  {line}"));
        }
        self.nodes.iter().for_each(Node::tell);
    }

    /// Waits until `look` finds something.
    #[track_caller]
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        // Each look starts a program, which on two processors is in the way of what is waited for.
        let look = || {
            look().or_else(|| {
                thread::sleep(Duration::from_millis(200));
                None
            })
        };
        wait_at_most(PATIENCE, || format!("waited in vain for {what}"), look)
    }

    /// An object of the default namespace, or another one that the line names, if there is one.
    pub(crate) fn get(&self, line: &str) -> Option<Value> {
        let args: Vec<&str> = ["get", "-o", "json"].into_iter().chain(line.split(' ')).collect();
        let output = self.plane.kubectl(&args);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// Whether a condition of the node of this name is True.
    pub(crate) fn is_ready(&self, node: &str) -> bool {
        self.get(&format!("node {node}")).is_some_and(|node| condition(&node, "Ready"))
    }

    /// Applies manifests, as many as there are.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &[Value]) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": manifests});
        self.plane.apply(&list.to_string()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until this pod of the default namespace is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&self, pod: &str) -> Pod {
        self.wait(&format!("pod {pod}"), || {
            let found = self.get(&format!("pod {pod}"))?;
            condition(&found, "Ready").then(|| Pod::of(&found))
        })
    }

    /// The pods with this label that are ready and not about to end, by name.
    pub(crate) fn ready(&self, label: &str) -> BTreeMap<String, Pod> {
        let list = self.get(&format!("pods -l {label}")).expect("a list");
        let all = list["items"].as_array().expect("items").iter();
        let ready = all.filter(|pod| condition(pod, "Ready") && pod["metadata"]["deletionTimestamp"].is_null());
        ready.map(|pod| (pod["metadata"]["name"].as_str().expect("a name").to_owned(), Pod::of(pod))).collect()
    }

    /// What is said of sandboxes that could not be made.
    pub(crate) fn failed_sandboxes(&self) -> Vec<String> {
        let list = self.get("events -A --field-selector reason=FailedCreatePodSandBox").expect("a list");
        let text = |event: &Value| format!("{} {}", event["metadata"]["name"], event["message"]);
        list["items"].as_array().expect("items").iter().map(text).collect()
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).expect("a node")
    }
}

/// Whether a condition of an object is True.
pub(crate) fn condition(object: &Value, name: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == name && condition["status"] == "True")
}

/// A pod as the API server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) node: String,
    /// Its addresses, the first of which is `status.podIP`.
    pub(crate) ips: Vec<IpAddr>,
}

impl Pod {
    fn of(object: &Value) -> Pod {
        let ips = object["status"]["podIPs"].as_array().into_iter().flatten();
        Pod {
            node: object["spec"]["nodeName"].as_str().expect("scheduled").to_owned(),
            ips: ips.map(|ip| ip["ip"].as_str().expect("text").parse().expect("an address")).collect(),
        }
    }
}
