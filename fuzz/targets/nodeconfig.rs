//! The NodeConfig: as a file in YAML or JSON, and as the API server sends it.

use flock::kube::kind::Kind as _;
use flock::kube::objects::NodeConfigs;
use model::addr::{parse_prefix4, parse_prefix6};
use model::annotations::IP_ALGO;
use model::bgp::{Bgp, Neighbour, Peer, PeerAsn};
use model::configerror::ConfigError;
use model::nodeconfig::{
    API_VERSION, KIND, MTU_MAX, MTU_MIN4, MTU_MIN6, NOTES_MAX, NodeConfig, parse, read, read_published,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::assert_one_line;

/// The condition of a NodeConfig's status has room for 32 KiB, and an operator for less.
const REASON_MAX: usize = 2048;

pub(crate) fn check(data: &[u8]) {
    let outcome = parse(data);
    if let Ok((_, notes)) = read(data) {
        assert!(notes.len() <= NOTES_MAX);
        notes.iter().for_each(|note| assert_one_line(note, REASON_MAX));
    }
    match &outcome {
        Ok(config) => {
            assert_bounds(config);
            assert_eq!(parse(manifest(config)).as_ref(), Ok(config));
        }
        Err(error) => assert_explained(error),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        from_json(text, &outcome);
    }
}

fn assert_bounds(config: &NodeConfig) {
    assert!(!config.name.is_empty());
    assert!(config.cidr6.is_some() || config.cidr4.is_some());
    if let Some(cidr6) = config.cidr6 {
        assert!((16..=126).contains(&cidr6.prefix_len()));
        assert_eq!(parse_prefix6(&cidr6.to_string()), Ok(cidr6));
    }
    if let Some(cidr4) = config.cidr4 {
        assert!((8..=30).contains(&cidr4.prefix_len()));
        assert_eq!(parse_prefix4(&cidr4.to_string()), Ok(cidr4));
    }
    let smallest = if config.cidr6.is_some() { MTU_MIN6 } else { MTU_MIN4 };
    assert!(config.mtu.is_none_or(|mtu| (smallest..=MTU_MAX).contains(&mtu)), "{:?}", config.mtu);
    assert!(!config.defaults.ipv6 || config.cidr6.is_some());
    assert!(!config.defaults.ipv4 || config.cidr4.is_some());
}

fn assert_explained(error: &ConfigError) {
    assert_one_line(&error.to_string(), REASON_MAX);
    for problem in error.problems() {
        assert_one_line(&problem.to_string(), REASON_MAX);
        assert!(!problem.text.is_empty() && problem.line != Some(0), "{problem:?}");
    }
}

/// The same object in JSON: read as a manifest, and as the API server sends it.
fn from_json(text: &str, outcome: &Result<NodeConfig, ConfigError>) {
    let Ok(raw) = serde_json::from_str::<&RawValue>(text) else { return };
    let Ok(Some(object)) = (NodeConfigs { node: "n".into() }).reduce(raw) else { return };
    if let Err(reason) = &object.config {
        assert_one_line(reason, REASON_MAX);
    }
    if let Ok(config) = &object.config {
        let again = read_published(&object.manifest).map(|(config, _)| config);
        assert_eq!(again.as_ref(), Ok(config), "what is kept gives it again");
    }
    if let Ok(config) = outcome {
        assert_eq!(object.config.as_ref(), Ok(config), "the API server's is not read less kindly than a file");
    }
}

/// The manifest of a NodeConfig, in YAML.
fn manifest(config: &NodeConfig) -> String {
    let mut text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata:\n  name: {}\n", quoted(&config.name));
    if let Some(algo) = &config.defaults.ip_algo {
        text.push_str(&format!("  annotations: {{{IP_ALGO}: {}}}\n", quoted(algo)));
    }
    let defaults = &config.defaults;
    text.push_str(&format!("spec:\n  defaults: {{ipv6: {}, ipv4: {}}}\n", defaults.ipv6, defaults.ipv4));
    for (key, value) in [
        ("cidr6", config.cidr6.map(|cidr| cidr.to_string())),
        ("cidr4", config.cidr4.map(|cidr| cidr.to_string())),
        ("mtu", config.mtu.map(|mtu| mtu.to_string())),
    ] {
        text.extend(value.map(|value| format!("  {key}: {value}\n")));
    }
    text.extend(config.bgp.iter().map(|bgp| format!("  bgp: {}\n", block(bgp))));
    text
}

/// A `bgp` block, in JSON, every field of it written out.
fn block(bgp: &Bgp) -> Value {
    let peer = |peer: &Peer| {
        let mut fields = json!({"name": peer.name.as_str(), "holdTime": peer.hold_time});
        fields["asn"] = match peer.asn {
            PeerAsn::Is(asn) => json!(asn),
            PeerAsn::External => json!("external"),
        };
        let (address, link) = match &peer.neighbour {
            Neighbour::At { address, interface } => (Some(address), interface.as_ref()),
            Neighbour::On(link) => (None, Some(link)),
        };
        let bfd = peer.bfd.map(|bfd| json!({"interval": bfd.interval, "multiplier": bfd.multiplier}));
        for (key, value) in [
            ("address", address.map(|address| json!(address.to_string()))),
            ("interface", link.map(|link| json!(link.as_str()))),
            ("multihop", peer.multihop.map(|hops| json!(hops))),
            ("passwordFile", peer.password_file.as_ref().map(|file| json!(file))),
            ("bfd", bfd),
        ] {
            if let Some(value) = value {
                fields[key] = value;
            }
        }
        fields
    };
    let import: Vec<String> = bgp.import.iter().map(ToString::to_string).collect();
    let mut block = json!({"asn": bgp.asn, "import": import, "peers": bgp.peers.iter().map(peer).collect::<Vec<_>>()});
    if let Some(id) = bgp.router_id {
        block["routerID"] = json!(id.to_string());
    }
    block
}

/// A text as YAML writes it when it takes no chances.
fn quoted(text: &str) -> String {
    let escaped = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\U{:08x}", u32::from(c)) };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}
