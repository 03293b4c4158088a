//! How flock comes to the nodes: by the commands of the documents, each where they say that it is typed.

use std::fmt;
use std::process::Command;

use serde_json::json;

use crate::cluster::Cluster;
use crate::support::manifests::node_config_of;
use crate::support::page::blocks;
use crate::support::programs::{FLOCK, FLOCK_AGENT, put_copy, succeed};

const START: &str = include_str!("../../docs/start.md");
const DEPLOY: &str = include_str!("../../deploy/README.md");

/// What of flock's own is outside of the nodes' ranges, for pods that name it.
const EXTRA: [&str; 2] = ["203.0.113.0/28", "2001:db8:f::/64"];

/// Which of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installation {
    /// With the ranges that Kubernetes gives to nodes.
    DaemonSet,
    /// With NodeConfigs. Kubernetes gives nodes no ranges.
    Systemd,
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Installation::DaemonSet => "DaemonSet",
            Installation::Systemd => "systemd",
        })
    }
}

impl Installation {
    /// What the controller manager is told of pods' ranges.
    pub(crate) fn controllers(self) -> &'static [&'static str] {
        match self {
            Installation::DaemonSet => &["--allocate-node-cidrs=true", "--cluster-cidr=10.25.0.0/16,2001:db8:1::/56"],
            Installation::Systemd => &["--allocate-node-cidrs=false"],
        }
    }

    /// Does what the documents say, up to where the node is asked how it is.
    pub(crate) fn carry_out(self, cluster: &Cluster<'_>) {
        match self {
            Installation::DaemonSet => {
                load(cluster, env!("CARGO_PKG_VERSION"));
                cluster.administrator(&section(DEPLOY, "As a DaemonSet", "kubectl apply -k"));
            }
            Installation::Systemd => {
                cluster.administrator(&section(START, "kubeadm, two nodes", "kubectl apply -k"));
                for node in &cluster.nodes {
                    let [range4, range6] = &node.ranges;
                    let spec = json!({"cidr4": range4, "cidr6": range6, "extraPrefixes": EXTRA});
                    cluster.plane.apply(&node_config_of(&node.name, spec)).expect("accepted");
                    for (program, name) in [(FLOCK, "flock"), (FLOCK_AGENT, "flock-agent")] {
                        node.host.script("mkdir -p /root /etc/default");
                        put_copy(program, node.host.path(&format!("/root/{name}")));
                    }
                    let commands = section(START, "kubeadm, two nodes", "./flock-agent install");
                    // A NodeConfig wins in any case; without ranges of Kubernetes the flag would only wait for them.
                    succeed(node.host.inside("env --chdir=/root sh -ec").arg(commands.replace(" --pod-cidrs", "")));
                }
            }
        }
    }

    /// Asks what the documents have the administrator ask at the end.
    pub(crate) fn confirm(self, cluster: &Cluster<'_>) {
        match self {
            Installation::DaemonSet => {
                cluster.administrator(&section(DEPLOY, "As a DaemonSet", "kubectl --namespace kube-system rollout"))
            }
            Installation::Systemd => {
                for node in &cluster.nodes {
                    succeed(&mut node.host.inside("flock-agent status"));
                    succeed(&mut node.host.inside("flock-agent check"));
                }
            }
        }
    }
}

/// The commands of a section of which the first begins so.
fn section(page: &str, heading: &str, first: &str) -> String {
    let found = blocks(page, heading, "sh").into_iter().find(|block| block.starts_with(first));
    found.unwrap_or_else(|| panic!("{heading} has no block that begins with {first}"))
}

/// Loads the image of this build into the nodes, as of this version.
pub(crate) fn load(cluster: &Cluster<'_>, version: &str) {
    // Without what debuggers read, which is nine tenths of it.
    let script = "dir=$(mktemp -d); trap 'rm -rf \"$dir\"' EXIT; mkdir \"$dir/stage\"; \
                  strip -o \"$dir/stage/flock\" \"$1\"; strip -o \"$dir/stage/flock-agent\" \"$2\"; \
                  \"$0\" \"$dir/image.tar\" amd64=\"$dir/stage\"; shift 2; for to; do cp \"$dir/image.tar\" \"$to\"; done";
    let mut command = Command::new("bash");
    command.args(["-ec", script, concat!(env!("CARGO_MANIFEST_DIR"), "/dist/image"), FLOCK, FLOCK_AGENT]);
    command.args(cluster.nodes.iter().map(|node| node.host.path(IMAGE)));
    succeed(command.env("SOURCE_DATE_EPOCH", "0").env("FLOCK_VERSION", version).env("FLOCK_REVISION", "a test"));
    cluster.nodes.iter().for_each(|node| node.import(IMAGE));
}

/// Where a node has it.
const IMAGE: &str = "/var/tmp/flock.tar";
