//! The last good NodeConfig of the API, kept in the state directory for a start without an API server.
//!
//! Must not judge a NodeConfig; what is read back passes the same checks as any other.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::process::log;
use crate::record::disk::{Directory, Disk as _, DiskError};
use model::annotations::IP_ALGO;
use model::nodeconfig::{self, API_VERSION, KIND, NodeConfig};

/// Name of the file in the state directory.
const FILE: &str = "node-config.json";

/// Name of a new file until it is whole and takes the place of the old one.
const FILE_NEW: &str = "node-config.new";

/// The file, and what it is known to hold.
#[derive(Debug)]
pub struct LastGood {
    state_dir: PathBuf,
    /// What the file holds, as far as this run of the agent knows.
    kept: Option<NodeConfig>,
}

impl LastGood {
    /// The file in `state_dir`. This call does not look at it.
    pub fn new(state_dir: &Path) -> LastGood {
        LastGood { state_dir: state_dir.into(), kept: None }
    }

    /// The NodeConfig that an earlier run has kept for `node`, if there is one and it can be used. Says in the log which.
    pub fn recall(&mut self, node: &str) -> Option<NodeConfig> {
        let read = Directory::open(&self.state_dir).and_then(|mut disk| disk.read(FILE));
        match nodeconfig::parse(read.ok()??) {
            Ok(config) if config.name != node => {
                log::warn("NodeConfig of the last run is of another node and not used")
                    .with("name", &config.name)
                    .with("node", node)
                    .write();
                None
            }
            Ok(config) => {
                log::info("NodeConfig of the last run is in force until the API server is heard").write();
                self.kept = Some(config.clone());
                Some(config)
            }
            Err(error) => {
                log::warn("NodeConfig of the last run cannot be used").with("err", error).write();
                None
            }
        }
    }

    /// Keeps `config` for the next start, unless the file holds it already. A failure is logged, and the next
    /// call tries again.
    pub fn keep(&mut self, config: &NodeConfig) {
        if self.kept.as_ref() == Some(config) {
            return;
        }
        match self.write(config) {
            Ok(()) => self.kept = Some(config.clone()),
            Err(error) => {
                // The old or the new one may be in the file.
                self.kept = None;
                log::warn("NodeConfig cannot be kept for the next start").with("err", error).write_limited();
            }
        }
    }

    fn write(&self, config: &NodeConfig) -> Result<(), DiskError> {
        Directory::open(&self.state_dir)?.replace(FILE_NEW, FILE, manifest(config).as_bytes())
    }
}

/// The manifest that gives this NodeConfig again.
fn manifest(config: &NodeConfig) -> String {
    let mut annotations = serde_json::Map::new();
    if let Some(algo) = &config.defaults.ip_algo {
        annotations.insert(IP_ALGO.into(), json!(algo));
    }
    let mut spec = serde_json::Map::new();
    spec.insert("defaults".into(), json!({"ipv6": config.defaults.ipv6, "ipv4": config.defaults.ipv4}));
    let texts = [
        ("cidr6", config.cidr6.map(|cidr| json!(cidr.to_string()))),
        ("cidr4", config.cidr4.map(|cidr| json!(cidr.to_string()))),
    ];
    for (key, value) in texts
        .into_iter()
        .chain([("mtu", config.mtu.map(|mtu| json!(mtu))), ("gateway4", Some(json!(config.gateway4.to_string())))])
    {
        spec.extend(value.map(|value| (key.to_owned(), value)));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": config.name, "annotations": annotations},
        "spec": spec,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: FM-D10
    #[test]
    fn the_last_good_node_config_comes_back_as_it_was() {
        for spec in [
            "{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24, mtu: 1400}",
            "{cidr4: 10.0.0.0/24, defaults: {ipv4: false}}",
            "{cidr4: 10.0.0.0/24, gateway4: 169.254.7.7}",
            "{cidr6: '2001:db8::/64'}",
        ] {
            let text = format!(
                "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: n, annotations: {{{IP_ALGO}: app}}}}\nspec: {spec}\n"
            );
            let config = nodeconfig::parse(&text).expect("valid");
            assert_eq!(nodeconfig::parse(manifest(&config)).expect("valid"), config, "{spec}");
        }
    }
}
