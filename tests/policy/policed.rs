//! A node whose agent reads policies from a directory, with everybody on it. What the policies are and who may talk then, the tests
//! say.
//!
//! When they are in force, the kernel shows: each time, one more policy selects a pod that nobody else knows of, and is the last
//! that the agent learns of. It takes nothing away from anybody, so that it ends no connection which the tested policies should.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use super::cluster::{Cluster, key};
use super::node::Neighbours;
use super::support::agent::Agent;
use super::support::host::Host;
use super::support::pod;
use super::support::waiting::wait_for;

/// Where the agent finds the cluster.
pub const DIRECTORY: &str = "/run/policies";

/// The namespace of the pod that shows how far the agent is.
const MARK: &str = "mark";

/// The node.
pub struct Policed<'a> {
    pub agent: Agent<'a>,
    pub neighbours: Neighbours<'a>,
    /// How often policies were brought in force.
    generation: usize,
    _marker: pod::Pod<'a>,
}

impl<'a> Policed<'a> {
    /// With nine pods and no policy, but for one of the pod that nobody knows.
    pub fn start(host: &'a Host) -> Policed<'a> {
        let mut policed = Policed::without_policies(host);
        policed.enforce();
        policed
    }

    /// With nine pods and no policy at all.
    pub fn without_policies(host: &'a Host) -> Policed<'a> {
        let mut neighbours = Neighbours::new(host);
        for namespace in ["x", "y", "z"] {
            for name in ["a", "b", "c"] {
                neighbours.introduce(namespace, name);
            }
        }
        neighbours.cluster.set_namespace(MARK, super::cluster::labels(&[]));
        neighbours.introduce(MARK, "marker");
        put(host, &neighbours.cluster.documents());
        let agent = agent(host);
        neighbours.attach_nine();
        let marker = host.pod("marker");
        host.add(&marker).kubernetes(MARK, "marker").result();
        Policed { agent, neighbours, generation: 0, _marker: marker }
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.neighbours.cluster
    }

    /// Writes down what the cluster is by now, and waits until the agent has it in force.
    #[track_caller]
    pub fn enforce(&mut self) {
        self.write();
        self.agent.signal("HUP");
        self.wait_policy(MARK, &format!("generation-{}", self.generation));
    }

    /// Writes down what the cluster is by now, and one more policy of the pod that nobody knows.
    pub fn write(&mut self) {
        self.generation += 1;
        let mut whole = self.neighbours.cluster.clone();
        let (namespace, name) = key(MARK, "marker");
        whole.namespaces.entry(MARK.into()).or_default();
        whole.pods.entry((namespace, name)).or_default();
        for generation in 1..=self.generation {
            let spec = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
            whole.add_policy(MARK, &format!("generation-{generation}"), spec);
        }
        put(self.neighbours.host, &whole.documents());
    }

    /// Waits until the kernel shows a policy of this name.
    #[track_caller]
    pub fn wait_policy(&self, namespace: &str, name: &str) {
        let chain = format!("policy/{namespace}/{name}/in");
        let shown = || {
            let mut nft = self.neighbours.host.command("nft");
            nft.args(["list", "chain", "inet", "flock", &chain]).stdout(Stdio::null()).stderr(Stdio::null());
            nft.status().expect("nft (nftables) starts").success()
        };
        wait_for(&format!("{chain} to be in force"), || shown().then_some(()));
    }

    /// Starts the agent again, which has ended.
    pub fn restart(&mut self) {
        self.agent = agent(self.neighbours.host);
    }
}

fn agent(host: &Host) -> Agent<'_> {
    host.agent().args(&["--policy-dir", DIRECTORY]).start()
}

/// Replaces the file, as an editor does it.
pub fn put(host: &Host, documents: &str) {
    let (new, file) = (format!("{DIRECTORY}/.cluster.yaml.new"), format!("{DIRECTORY}/cluster.yaml"));
    host.write(&new, documents);
    fs::rename(host.path(&new), host.path(&file)).expect("renamed");
}
