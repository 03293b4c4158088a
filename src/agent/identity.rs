//! Who this node is: its name in the API, and where its NodeConfig comes from.
//!
//! Both are found out before anything is touched: where that fails, the settings were a mistake. Must not talk to the API.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::agent::settings::{ConfigSource, Settings};
use crate::kube::access::{Access, AccessError};
use crate::kube::account;
use crate::kube::explained;
use crate::kube::kubeconfig;
use model::excerpt::Excerpt;
use model::nodeconfig::check_node_name;

/// The node, as the agent serves it.
#[derive(Debug)]
pub struct Identity {
    /// Its name.
    pub node_name: String,
    /// Where its NodeConfig comes from.
    pub origin: Origin,
}

/// Where the NodeConfig comes from.
#[derive(Debug)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The API, and how to reach it.
    Api(Box<Access>),
}

/// Settings with which no agent can be meant to start.
#[derive(Debug)]
pub enum Mistake {
    /// The API cannot be reached as the settings say.
    Access(AccessError),
    /// This cannot be the name of a node.
    NodeName {
        /// Whether it is from the settings; else it is the host's.
        given: bool,
        /// The name.
        name: Excerpt,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Access(AccessError::NotInPod(_)) => f.write_str(
                "neither --kubeconfig nor --node-config is given, and this is not a pod of a cluster; flock-agent run --help \
                 lists the flags",
            ),
            Mistake::Access(error) => f.write_str(&explained(error)),
            Mistake::NodeName { given: true, name, why } => {
                write!(f, "--node-name: {name} {why}; give the name that `kubectl get nodes` shows")
            }
            Mistake::NodeName { given: false, name, why } => write!(
                f,
                "this host's name cannot be that of a node: {name} {why}; give --node-name, with the name that `kubectl get nodes` \
                 shows"
            ),
        }
    }
}

impl Identity {
    /// The node that the settings mean, on this host.
    ///
    /// # Errors
    /// There is no usable source of its NodeConfig, or its name cannot be a node's.
    pub fn of(settings: &Settings) -> Result<Identity, Mistake> {
        let origin = origin(&settings.source).map_err(Mistake::Access)?;
        let node_name = node_name(settings.node_name.as_deref(), &host_name(), matches!(origin, Origin::Api(_)))?;
        Ok(Identity { node_name, origin })
    }
}

/// The name of this host, made into a node's as kubelet does it. It may be none that a node can have.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_lowercase()
}

fn origin(source: &ConfigSource) -> Result<Origin, AccessError> {
    let access = match source {
        ConfigSource::File(path) => return Ok(Origin::File(path.clone())),
        ConfigSource::Kubeconfig(path) => kubeconfig::from_file(path),
        ConfigSource::Pod => account::in_pod(Path::new("/"), &|name| std::env::var(name).ok()),
    };
    access.map(|access| Origin::Api(Box::new(access)))
}

/// The name under which the node's objects stand in the API. A name from the settings is taken as it is, or refused; the host
/// name is made into a node's as kubelet does it. Without the API nobody asks for the name, and a host whose name no node can
/// have serves all the same.
fn node_name(given: Option<&str>, host: &str, api: bool) -> Result<String, Mistake> {
    let name = given.map_or_else(|| host.trim().to_lowercase(), str::to_owned);
    match check_node_name(&name) {
        Err(why) if api || given.is_some() => {
            Err(Mistake::NodeName { given: given.is_some(), name: Excerpt::of(&name), why })
        }
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_called_as_kubelet_calls_it() {
        for (given, host, want) in [
            (None, "Node-A\n", "node-a"),
            (None, " HOST.Example.COM \n", "host.example.com"),
            (None, "host001", "host001"),
            (Some("other"), "Node-A\n", "other"),
            (Some("other"), "", "other"),
        ] {
            for api in [true, false] {
                assert_eq!(node_name(given, host, api).ok().as_deref(), Some(want), "{host:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_node_is_refused_with_value_reason_and_remedy() {
        for (given, host, words) in [
            (Some("Node-A"), "", ["--node-name: \"Node-A\"", "'N'", "kubectl get nodes"]),
            (Some(""), "h", ["--node-name: \"\"", "is empty", "kubectl get nodes"]),
            (Some(" a"), "h", ["--node-name", "' '", "kubectl get nodes"]),
            (None, "my_host", ["host's name", "\"my_host\" has '_'", "give --node-name"]),
            (None, "(none)", ["host's name", "'('", "give --node-name"]),
            (None, "\n", ["host's name", "is empty", "give --node-name"]),
        ] {
            let text = node_name(given, host, true).expect_err("refused").to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            // A file is for whoever reads it.
            assert_eq!(node_name(given, host, false).is_err(), given.is_some(), "{host:?}");
        }
    }
}
