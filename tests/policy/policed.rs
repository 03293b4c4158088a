//! A node whose agent reads policies from a directory, with everybody on it. What the policies are and who may talk then, the tests
//! say.

use std::fs;

use super::cluster::Cluster;
use super::node::Neighbours;
use super::support::agent::Agent;
use super::support::host::Host;

/// Where the agent finds the cluster.
pub const DIRECTORY: &str = "/run/policies";

/// The node.
pub struct Policed<'a> {
    pub agent: Agent<'a>,
    pub neighbours: Neighbours<'a>,
}

impl<'a> Policed<'a> {
    /// With nine pods and no policy.
    pub fn start(host: &'a Host) -> Policed<'a> {
        host.write(&format!("{DIRECTORY}/README"), "");
        let mut neighbours = Neighbours::new(host);
        for namespace in ["x", "y", "z"] {
            for name in ["a", "b", "c"] {
                neighbours.introduce(namespace, name);
            }
        }
        put(host, &neighbours.cluster);
        let agent = agent(host);
        neighbours.attach_nine();
        let mut policed = Policed { agent, neighbours };
        policed.enforce();
        policed
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.neighbours.cluster
    }

    /// Writes down what the cluster is by now, and waits until the agent has it in force.
    #[track_caller]
    pub fn enforce(&mut self) {
        put(self.neighbours.host, &self.neighbours.cluster);
        self.round();
    }

    /// Waits for a round of the agent, which begins with a look at the directory, to its end.
    #[track_caller]
    pub fn round(&self) {
        self.agent.rounds_of("policing/compare", 1);
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
pub fn put(host: &Host, cluster: &Cluster) {
    let (new, file) = (format!("{DIRECTORY}/.cluster.yaml.new"), format!("{DIRECTORY}/cluster.yaml"));
    host.write(&new, &cluster.documents());
    fs::rename(host.path(&new), host.path(&file)).expect("renamed");
}
