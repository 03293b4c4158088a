//! What docs/reachability.md tells an operator to paste and to run, so that the stories do exactly that. What it does, they see.

use serde_json::Value;

use crate::network::Node;
use crate::support::page;

const PAGE: &str = include_str!("../../docs/reachability.md");

/// The first code block of this language under the heading of this text, for this node: the page has it for the first one.
pub(crate) fn block(heading: &str, language: &str, node: &Node) -> String {
    let text = page::block(PAGE, heading, language);
    let own = [
        ("node1", &node.name),
        ("2001:db8:a25::11", &node.ip6),
        ("192.0.2.11", &node.ip4),
        ("2001:db8:1:1::/64", &node.cidr6),
        ("10.25.1.0/24", &node.cidr4),
    ];
    own.into_iter().fold(text, |text, (documented, own)| text.replace(documented, own))
}

/// The `spec` of the NodeConfig under the heading.
pub(crate) fn spec(heading: &str, node: &Node) -> Value {
    let config: Value = yaml_serde::from_str(&block(heading, "yaml", node)).expect("YAML");
    config["spec"].clone()
}

/// The command lines of that block.
pub(crate) fn commands(heading: &str, node: &Node) -> Vec<String> {
    block(heading, "sh", node).lines().map(str::to_owned).collect()
}
