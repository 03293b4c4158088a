//! NodeConfigs as text, and the pods' ranges that they usually name. Whether an agent takes them is for the tests to see.

use serde_json::{Value, json};

use super::host::Host;

pub const CIDR6: &str = "2001:db8:1:f001::/64";
pub const CIDR4: &str = "10.25.214.0/24";
/// The node's name where there is only one.
pub const NODE: &str = "host001";

/// A NodeConfig manifest.
pub fn node_config(cidr6: &str, cidr4: &str) -> String {
    let mut spec = serde_json::Map::new();
    for (key, value) in [("cidr6", cidr6), ("cidr4", cidr4)] {
        if !value.is_empty() {
            spec.insert(key.into(), json!(value));
        }
    }
    node_config_spec(Value::from(spec))
}

/// A NodeConfig manifest with this spec.
pub fn node_config_spec(spec: Value) -> String {
    node_config_of(NODE, spec)
}

/// The NodeConfig manifest of the node of this name, with this spec.
pub fn node_config_of(name: &str, spec: Value) -> String {
    json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {"name": name},
        "spec": spec,
    })
    .to_string()
}

impl Host {
    /// Replaces the agent's NodeConfig file, as an editor does it.
    pub fn edit_config(&self, text: &str) {
        std::fs::write(self.path("/run/node.yaml.new"), text).expect("writable");
        std::fs::rename(self.path("/run/node.yaml.new"), self.path("/run/node.yaml")).expect("renamed");
    }
}
