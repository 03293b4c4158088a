//! The NodeConfig manifest: its shape on the wire, and the checked value that the agent works with.
//!
//! Serde stops at [`Manifest`]; a [`NodeConfig`] has been checked and needs no second look. This file is strict on
//! purpose: a misspelt `cidr4` that is silently absent costs more than one that is refused, and a refused manifest
//! harms nobody, since the last good one stays in force. It must not know where the text came from.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::addr::{
    AddrError, Family, GATEWAY4, IfName, POD_LINKS, check_prefix4, check_prefix6, parse_prefix4, parse_prefix6,
};
use crate::annotations::{Defaults, IP_ALGO, of_the_node};
use crate::bgp::{Bgp, SpecBgp};
use crate::configerror::{ConfigError, FieldRule, TEXT_MAX};
use crate::excerpt::Excerpt;
use crate::notation;
use crate::policing::{self, Policing, SpecMasquerade, SpecPolicy};
use crate::text::{self, TextError};

/// The only `apiVersion`.
pub const API_VERSION: &str = "flock.fritzlab.net/v1alpha1";

/// The only `kind`.
pub const KIND: &str = "NodeConfig";

/// Smallest MTU with IPv6 (RFC 8200, section 5), in bytes.
pub const MTU_MIN6: u32 = 1280;

/// Smallest MTU without IPv6, in bytes: what every IPv4 host must be able to receive (RFC 791).
pub const MTU_MIN4: u32 = 576;

/// Largest MTU, in bytes: the longest packet that both families' headers can describe.
pub const MTU_MAX: u32 = 65535;

/// Most prefixes in `spec.extraPrefixes`.
pub const EXTRA_PREFIXES_MAX: usize = 64;

/// Most notes about one NodeConfig.
pub const NOTES_MAX: usize = 16;

/// Longest name of a node, in bytes.
pub const NODE_NAME_MAX: usize = 253;

/// Longest message of the YAML reader that is passed on, in characters.
const MESSAGE_MAX: usize = 400;

/// A manifest as it is written. Nothing is checked but types and names of fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Manifest {
    /// Must be [`API_VERSION`].
    #[serde(deserialize_with = "text::string")]
    pub api_version: String,
    /// Must be [`KIND`].
    #[serde(deserialize_with = "text::string")]
    pub kind: String,
    /// Fields beside the two that are used may have any name and type: the API server has many.
    pub metadata: Metadata,
    /// What the operator wants.
    pub spec: Spec,
    /// What an agent wrote back; not read.
    pub status: Option<IgnoredAny>,
}

/// The part of `metadata` that is used.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The node's name.
    #[serde(deserialize_with = "text::string")]
    pub name: String,
    /// Of these, only `ip-algo` is used.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// `spec` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// The node's IPv6 range.
    pub cidr6: Option<String>,
    /// The node's IPv4 range.
    pub cidr4: Option<String>,
    /// What holds for pods that say nothing.
    pub defaults: Option<SpecDefaults>,
    /// The MTU of pod links, in bytes.
    pub mtu: Option<i64>,
    /// The next hop of the pods' IPv4 default route.
    pub gateway4: Option<String>,
    /// Whether this node keeps routes to other nodes of its links.
    pub peers: Option<String>,
    /// What pods may claim beyond the node's ranges.
    pub extra_prefixes: Option<Vec<String>>,
    /// The link on which the host answers for its pods.
    pub proxy_neighbours: Option<String>,
    /// The routers that are told the node's routes.
    pub bgp: Option<SpecBgp>,
    /// Whether pods send with their own addresses only.
    #[serde(deserialize_with = "text::boolean")]
    pub source_check: Option<bool>,
    /// Whose pods may send with any address.
    pub source_any_namespaces: Option<Vec<String>>,
    /// What becomes of NetworkPolicies.
    pub policy: Option<SpecPolicy>,
    /// Whether pods hide behind the node's address.
    pub masquerade: Option<SpecMasquerade>,
}

impl Spec {
    /// The names of its fields, for readers that leave out what they do not know.
    pub const FIELDS: [&str; 13] = [
        "cidr6",
        "cidr4",
        "defaults",
        "mtu",
        "gateway4",
        "peers",
        "extraPrefixes",
        "proxyNeighbours",
        "bgp",
        "sourceCheck",
        "sourceAnyNamespaces",
        "policy",
        "masquerade",
    ];
}

/// `spec.defaults` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpecDefaults {
    /// Pods get an IPv6 address.
    #[serde(deserialize_with = "text::boolean")]
    pub ipv6: Option<bool>,
    /// Pods get an IPv4 address.
    #[serde(deserialize_with = "text::boolean")]
    pub ipv4: Option<bool>,
}

impl SpecDefaults {
    /// The names of its fields.
    pub const FIELDS: [&str; 2] = ["ipv6", "ipv4"];
}

/// A checked NodeConfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name. Not empty.
    pub name: String,
    /// The IPv6 range, /16 to /126. At least one of the two ranges is there.
    pub cidr6: Option<Ipv6Net>,
    /// The IPv4 range, /8 to /30.
    pub cidr4: Option<Ipv4Net>,
    /// The MTU of pod links in bytes, up to [`MTU_MAX`], at least [`MTU_MIN6`] (without `cidr6`: [`MTU_MIN4`]);
    /// `None`: the uplink's.
    pub mtu: Option<u32>,
    /// The next hop of new pods' IPv4 default route, a link-local address that each host end bears;
    /// [`GATEWAY4`] if not given.
    pub gateway4: Ipv4Addr,
    /// What holds for pods that say nothing. A family without a range is off here, so that such pods live on the
    /// other; a pod that asks for it by annotation is refused by the allocator. Both may be off: then each pod
    /// must say what it wants.
    pub defaults: Defaults,
    /// Whether this node keeps routes to other nodes; `None`: the operator leaves it to flock.
    pub peers: Option<Peers>,
    /// The prefixes from which pods may claim addresses by the annotations `addresses` and `anycast`, at most
    /// [`EXTRA_PREFIXES_MAX`]. With none, no pod may.
    pub extra_prefixes: Vec<IpNet>,
    /// The link on which the host answers ARP and neighbour solicitations for its pods.
    pub proxy_neighbours: Option<IfName>,
    /// The routers that are told the node's routes; `None`: flock configures no routing daemon.
    pub bgp: Option<Bgp>,
    /// What pods may send and receive.
    pub policing: Policing,
}

/// Whether a node keeps routes to other nodes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// To each node that is on one of this node's links.
    Direct,
    /// To none: somebody else routes.
    None,
}

impl NodeConfig {
    /// The node's ranges, IPv6 first.
    pub fn prefixes(&self) -> Vec<IpNet> {
        let v6 = self.cidr6.map(IpNet::from);
        let v4 = self.cidr4.map(IpNet::from);
        v6.into_iter().chain(v4).collect()
    }
}

/// Reads a manifest in YAML or JSON, and checks it.
///
/// # Errors
/// [`ConfigError`]; errors of syntax, type and field names carry the line.
pub fn parse(text: impl AsRef<[u8]>) -> Result<NodeConfig, ConfigError> {
    read(text).map(|(config, _)| config)
}

/// The same, with what an operator should know about it though it is in force: at most [`NOTES_MAX`] texts of one line.
///
/// # Errors
/// As [`parse`].
pub fn read(text: impl AsRef<[u8]>) -> Result<(NodeConfig, Vec<String>), ConfigError> {
    let bytes = text.as_ref();
    if bytes.len() > TEXT_MAX {
        return Err(ConfigError::TooLong(bytes.len()));
    }
    let text = text::decoded(bytes).map_err(unusable)?;
    // A Deployment given by mistake must hear that its kind is wrong, not that `spec.replicas` does not exist. So
    // the head is read, leniently, before the whole.
    let head: Head = document(&text)?;
    check_head(&head.api_version, &head.kind)?;
    document::<Manifest>(&text)?.check()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default, deserialize_with = "text::string")]
    api_version: String,
    #[serde(default, deserialize_with = "text::string")]
    kind: String,
}

/// The document of a text.
fn document<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    text::document(text).map_err(unusable)?.ok_or(ConfigError::Empty)
}

fn unusable(error: TextError) -> ConfigError {
    match error {
        TextError::Encoding(at) => ConfigError::Encoding(at),
        TextError::ManyDocuments => ConfigError::ManyDocuments,
        TextError::Yaml(_) | TextError::Merged(_) => unreadable(&error),
    }
}

fn unreadable(error: &TextError) -> ConfigError {
    let place = match error {
        TextError::Yaml(error) => error.location(),
        _ => None,
    };
    ConfigError::Unreadable {
        line: place.map(|place| place.line()),
        // The message repeats parts of the text.
        message: Excerpt::line(&error.to_string(), MESSAGE_MAX).into(),
    }
}

fn check_head(api_version: &str, kind: &str) -> Result<(), ConfigError> {
    for (path, value, want) in [("apiVersion", api_version, API_VERSION), ("kind", kind, KIND)] {
        if value != want {
            return Err(ConfigError::Field { path, value: Excerpt::of(value), rule: FieldRule::MustBe(want) });
        }
    }
    Ok(())
}

impl TryFrom<Manifest> for NodeConfig {
    type Error = ConfigError;

    fn try_from(manifest: Manifest) -> Result<Self, ConfigError> {
        manifest.check().map(|(config, _)| config)
    }
}

impl Manifest {
    /// The checked value, and what an operator should know about it: at most [`NOTES_MAX`] texts of one line.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(self) -> Result<(NodeConfig, Vec<String>), ConfigError> {
        let Manifest { api_version, kind, metadata, spec, status: _ } = self;
        check_head(&api_version, &kind)?;
        if metadata.name.is_empty() {
            let value = Excerpt::of(&metadata.name);
            return Err(ConfigError::Field { path: "metadata.name", value, rule: FieldRule::Required });
        }
        let cidr6 = spec.cidr6.map(|text| prefix("spec.cidr6", &text, range6)).transpose()?;
        let cidr4 = spec.cidr4.map(|text| prefix("spec.cidr4", &text, range4)).transpose()?;
        if cidr6.is_none() && cidr4.is_none() {
            return Err(ConfigError::NoRange);
        }
        let mtu_min = if cidr6.is_some() { MTU_MIN6 } else { MTU_MIN4 };
        let mtu = spec.mtu.map(|value| mtu(value, mtu_min)).transpose()?;
        let gateway4 = spec.gateway4.map_or(Ok(GATEWAY4), |text| gateway(&text))?;
        let peers = spec.peers.map(|text| peers(&text)).transpose()?;
        let extra_prefixes = extra_prefixes(&spec.extra_prefixes.unwrap_or_default())?;
        let proxy_neighbours = spec.proxy_neighbours.map(|text| uplink(&text)).transpose()?;
        let bgp = spec.bgp.map(SpecBgp::check).transpose().map_err(ConfigError::Bgp)?;
        let policing = policing::Written {
            source_check: spec.source_check,
            source_any_namespaces: spec.source_any_namespaces,
            policy: spec.policy,
            masquerade: spec.masquerade,
        };
        let policing = policing.check()?;

        let asked = spec.defaults.unwrap_or_default();
        let default = |family, asked: Option<bool>, has_range: bool| match (asked, has_range) {
            (Some(true), false) => Err(ConfigError::DefaultWithoutRange(family)),
            (asked, _) => Ok(asked.unwrap_or(has_range)),
        };
        let mut annotations = metadata.annotations.unwrap_or_default();
        let mut notes: Vec<String> = of_the_node(&annotations).iter().map(ToString::to_string).collect();
        notes.truncate(NOTES_MAX);
        let defaults = Defaults {
            ipv6: default(Family::V6, asked.ipv6, cidr6.is_some())?,
            ipv4: default(Family::V4, asked.ipv4, cidr4.is_some())?,
            ip_algo: annotations.remove(IP_ALGO),
        };
        let config = NodeConfig {
            name: metadata.name,
            cidr6,
            cidr4,
            mtu,
            gateway4,
            defaults,
            peers,
            extra_prefixes,
            proxy_neighbours,
            bgp,
            policing,
        };
        Ok((config, notes))
    }
}

/// What to say of an `spec.mtu` that the uplink, by which pods reach everybody else, cannot carry. Both in bytes.
pub fn mtu_note(asked: Option<u32>, uplink: u32) -> Option<String> {
    let asked = asked.filter(|asked| *asked > uplink)?;
    Some(format!(
        "spec.mtu is {asked} and the uplink's MTU is {uplink}: longer packets of pods do not get out; remove spec.mtu to \
         take the uplink's, or raise the uplink's"
    ))
}

/// What to say of a NodeConfig that bears another name than the node that reads it.
pub fn name_note(name: &str, node: &str) -> Option<String> {
    let [named, own] = [name, node].map(Excerpt::of);
    if name == node {
        None
    } else if name.to_lowercase() == node.to_lowercase() {
        Some(format!(
            "metadata.name is {named} and this node is {own}: they differ in case only, and names of nodes are in lower case"
        ))
    } else {
        Some(format!("metadata.name is {named} and this node is {own}: is it the file of another node?"))
    }
}

/// Why a text cannot be the name of a node in Kubernetes; the text reads on from the name.
///
/// # Errors
/// It is no RFC 1123 subdomain of at most [`NODE_NAME_MAX`] bytes.
pub fn check_node_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if name.len() > NODE_NAME_MAX {
        return Err(format!("has {} bytes, and {NODE_NAME_MAX} are allowed", name.len()));
    }
    let wrong = |c: &char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.'));
    if let Some(c) = name.chars().find(wrong) {
        return Err(format!("has {c:?} in it, and names of nodes consist of a to z, 0 to 9, - and ."));
    }
    if name.split('.').any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-')) {
        return Err("has a part between dots that is empty, or begins or ends with -".into());
    }
    Ok(())
}

fn prefix<N>(path: &'static str, text: &str, parse: fn(&str) -> Result<N, AddrError>) -> Result<N, ConfigError> {
    let wrong = |why| ConfigError::Field { path, value: Excerpt::of(text), rule: FieldRule::Prefix(why) };
    parse(text).map_err(wrong)
}

/// A node's IPv6 range for pods: what [`parse_prefix6`] takes, of /16 to /126.
///
/// # Errors
/// As there, and [`AddrError::PrefixLength`].
pub fn range6(text: &str) -> Result<Ipv6Net, AddrError> {
    let net = parse_prefix6(text)?;
    let rule = match net.prefix_len() {
        16..=126 => return Ok(net),
        127.. => "is too small: it leaves no address for a pod, and the smallest range is /126",
        _ => "is too large for one node: the largest range is /16",
    };
    Err(AddrError::PrefixLength(rule.into()))
}

/// The IPv4 twin of [`range6`], of /8 to /30.
///
/// # Errors
/// As there.
pub fn range4(text: &str) -> Result<Ipv4Net, AddrError> {
    let net = parse_prefix4(text)?;
    let rule = match net.prefix_len() {
        8..=30 => return Ok(net),
        31.. => {
            "is too small: network, gateway and broadcast address leave nothing for a pod, \
             and the smallest range is /30"
        }
        _ => "is too large for one node: the largest range is /8",
    };
    Err(AddrError::PrefixLength(rule.into()))
}

/// RFC 3927 leaves the first and last 256 addresses of the block to future use. An address of any other kind could be
/// somebody's whom the host has to reach.
fn gateway(text: &str) -> Result<Ipv4Addr, ConfigError> {
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let fits = |ip: &Ipv4Addr| ip.is_link_local() && (1..=254).contains(&ip.octets()[2]) && *ip != metadata;
    text.parse().ok().filter(fits).ok_or_else(|| ConfigError::Field {
        path: "spec.gateway4",
        value: Excerpt::of(text),
        rule: FieldRule::Gateway,
    })
}

fn peers(text: &str) -> Result<Peers, ConfigError> {
    match text {
        "direct" => Ok(Peers::Direct),
        "none" => Ok(Peers::None),
        _ => {
            let rule = FieldRule::OneOf(&["direct", "none"]);
            Err(ConfigError::Field { path: "spec.peers", value: Excerpt::of(text), rule })
        }
    }
}

fn extra_prefixes(texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    const PATH: &str = "spec.extraPrefixes";
    let wrong = |value: &str, rule| ConfigError::Field { path: PATH, value: Excerpt::of(value), rule };
    if texts.len() > EXTRA_PREFIXES_MAX {
        return Err(wrong(&texts.len().to_string(), FieldRule::AtMost(EXTRA_PREFIXES_MAX)));
    }
    let mut prefixes: Vec<IpNet> = Vec::new();
    for text in texts {
        let net = notation::prefix(text.trim()).map_err(|slip| wrong(text, FieldRule::AnyPrefix(slip)))?;
        let checked = match net {
            IpNet::V6(net) => check_prefix6(net),
            IpNet::V4(net) => check_prefix4(net),
        };
        checked.map_err(|why| wrong(text, FieldRule::Prefix(why)))?;
        if prefixes.contains(&net) {
            return Err(wrong(text, FieldRule::Twice));
        }
        prefixes.push(net);
    }
    Ok(prefixes)
}

fn uplink(text: &str) -> Result<IfName, ConfigError> {
    let wrong = |rule| ConfigError::Field {
        path: "spec.proxyNeighbours",
        value: Excerpt::of(text),
        rule: FieldRule::Link(rule),
    };
    if text.starts_with(POD_LINKS) {
        return Err(wrong("is a pod's link: give the link by which the router reaches this host, such as eth0"));
    }
    text.parse().map_err(|_| wrong("is no name of a link by which a router reaches this host, such as eth0"))
}

fn mtu(value: i64, min: u32) -> Result<u32, ConfigError> {
    u32::try_from(value).ok().filter(|mtu| (min..=MTU_MAX).contains(mtu)).ok_or_else(|| ConfigError::Field {
        path: "spec.mtu",
        value: Excerpt::of(&value.to_string()),
        rule: FieldRule::Between(min, MTU_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: host001}\n";
    const CIDR6: &str = "2001:db8:1:f001::/64";

    fn spec(spec: &str) -> Result<NodeConfig, ConfigError> {
        parse(format!("{HEAD}spec: {spec}\n"))
    }

    fn refusal(text: &str) -> String {
        parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn what_a_node_does_with_routes_is_said_in_its_own_fields() {
        let plain = spec("{cidr4: 10.0.0.0/24}").expect("valid");
        assert_eq!((plain.peers, plain.extra_prefixes.len(), plain.proxy_neighbours), (None, 0, None));
        let all = spec(
            "{cidr4: 10.0.0.0/24, peers: direct, extraPrefixes: ['2001:db8:f::/48', 203.0.113.0/28], proxyNeighbours: eth0}",
        )
        .expect("valid");
        assert_eq!(all.peers, Some(Peers::Direct));
        let shown: Vec<String> = all.extra_prefixes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["2001:db8:f::/48", "203.0.113.0/28"]);
        assert_eq!(all.proxy_neighbours.as_ref().map(IfName::as_str), Some("eth0"));
        assert_eq!(spec("{cidr4: 10.0.0.0/24, peers: none}").expect("valid").peers, Some(Peers::None));
        let many: Vec<String> = (0..65).map(|n| format!("10.1.{n}.0/24")).collect();
        for (fields, expected) in [
            ("peers: Direct", "spec.peers: \"Direct\" must be direct or none"),
            ("peers: ''", "spec.peers: \"\" must be direct or none"),
            (
                "extraPrefixes: [10.1.0.1/24]",
                "spec.extraPrefixes: \"10.1.0.1/24\" has bits set behind the prefix length (did you mean 10.1.0.0/24?)",
            ),
            ("extraPrefixes: [10.1.0.1]", "spec.extraPrefixes: \"10.1.0.1\" has no prefix length"),
            (
                "extraPrefixes: ['fe80::/64']",
                "spec.extraPrefixes: \"fe80::/64\" overlaps the link-local range fe80::/10",
            ),
            ("extraPrefixes: [10.1.0.0/24, 10.1.0.0/24]", "spec.extraPrefixes: \"10.1.0.0/24\" stands there twice"),
            (
                &format!("extraPrefixes: [{}]", many.join(",")),
                "spec.extraPrefixes: \"65\" are too many: at most 64 are allowed",
            ),
            ("proxyNeighbours: lo", "spec.proxyNeighbours: \"lo\" is no name of a link"),
            ("proxyNeighbours: flock12", "spec.proxyNeighbours: \"flock12\" is a pod's link"),
            ("proxyNeighbours: ../eth0", "spec.proxyNeighbours: \"../eth0\" is no name of a link"),
        ] {
            let refusal = spec(&format!("{{cidr4: 10.0.0.0/24, {fields}}}")).expect_err("must be refused").to_string();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
    }

    #[test]
    fn a_gateway_of_pods_is_a_link_local_address_that_nobody_else_can_have() {
        let of = |text: &str| spec(&format!("{{cidr4: 10.0.0.0/24, gateway4: '{text}'}}"));
        assert_eq!(spec("{cidr4: 10.0.0.0/24}").expect("valid").gateway4, GATEWAY4);
        for good in ["169.254.1.2", "169.254.254.255", "169.254.169.253"] {
            assert_eq!(of(good).expect("valid").gateway4.to_string(), good);
        }
        for bad in ["169.254.169.254", "169.254.0.1", "169.254.255.1", "10.0.0.1", "fe80::1", "169.254.1.1/32", "", "x"]
        {
            let refusal = of(bad).expect_err("must be refused").to_string();
            assert!(
                refusal.starts_with(&format!("spec.gateway4: \"{bad}\" must be a link-local IPv4 address")),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_full_manifest_becomes_a_node_config() {
        let text = "---\n\
            apiVersion: flock.fritzlab.net/v1alpha1\n\
            kind: NodeConfig\n\
            metadata:\n\
            \x20 name: host001\n\
            \x20 uid: 7b3c\n\
            \x20 generation: 4\n\
            \x20 managedFields: [{manager: kubectl, fieldsV1: {'f:spec': {}}}]\n\
            \x20 annotations:\n\
            \x20   flock.fritzlab.net/ip-algo: namespace,app,image\n\
            \x20   example.com/note: x\n\
            spec:\n\
            \x20 cidr6: 2001:db8:1:f001::/64\n\
            \x20 cidr4: 10.25.214.0/24\n\
            \x20 defaults: {ipv6: true, ipv4: false}\n\
            \x20 mtu: 1500\n\
            status: {conditions: [{type: Ready}], observedGeneration: 3}\n";
        let want = NodeConfig {
            name: "host001".into(),
            cidr6: CIDR6.parse().ok(),
            cidr4: "10.25.214.0/24".parse().ok(),
            mtu: Some(1500),
            gateway4: GATEWAY4,
            defaults: Defaults { ipv6: true, ipv4: false, ip_algo: Some("namespace,app,image".into()) },
            peers: None,
            extra_prefixes: Vec::new(),
            proxy_neighbours: None,
            bgp: None,
            policing: Policing::default(),
        };
        assert_eq!(parse(text), Ok(want));
    }

    #[test]
    fn json_is_read_too() {
        let text = r#"{"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig",
            "metadata": {"name": "h", "annotations": null}, "spec": {"cidr4": "10.0.0.0/8", "mtu": 9000}}"#;
        let config = parse(text).expect("well-formed");
        assert_eq!((config.name.as_str(), config.cidr6, config.mtu), ("h", None, Some(9000)));
        let manifest: Manifest = serde_json::from_str(text).expect("the same shape for a JSON reader");
        assert_eq!(NodeConfig::try_from(manifest), Ok(config));
    }

    // What other programs write without being asked is not always YAML.
    #[test]
    fn json_that_a_yaml_reader_refuses_is_read() {
        let note = |key: &str, value: &str| {
            format!(
                r#"{{"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "spec": {{"cidr4": "10.0.0.0/8"}},
                "metadata": {{"name": "h", "annotations": {{"{key}": "{value}"}}}}}}"#
            )
        };
        for text in [note("bird", r"\ud83d\udc26"), note("odd", "\u{7f}\u{85}"), note(&"k".repeat(1100), "long")] {
            assert_eq!(parse(&text).map(|config| config.name).as_deref(), Ok("h"), "{text}");
        }
        let wrong = note("bird", r"\ud83d\udc26").replace("10.0.0.0", "10.0.0.1");
        assert!(refusal(&wrong).contains("spec.cidr4"), "{}", refusal(&wrong));
    }

    #[test]
    fn defaults_are_the_families_that_the_node_has() {
        for (text, ipv6, ipv4) in [
            ("{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24}", true, true),
            ("{cidr6: '2001:db8::/64'}", true, false),
            ("{cidr4: 10.0.0.0/24}", false, true),
            ("{cidr4: 10.0.0.0/24, defaults: {ipv6: false}}", false, true),
            ("{cidr4: 10.0.0.0/24, defaults: {}}", false, true),
            ("{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24, defaults: {ipv4: false}}", true, false),
            ("{cidr4: 10.0.0.0/24, defaults: {ipv4: false}}", false, false),
        ] {
            let defaults = spec(text).expect("well-formed").defaults;
            assert_eq!((defaults.ipv6, defaults.ipv4), (ipv6, ipv4), "{text}");
        }
    }

    #[test]
    fn a_wrong_field_is_refused_by_path_value_and_rule() {
        for (text, says) in [
            ("{}", "spec has neither cidr6 nor cidr4"),
            ("{cidr6: null}", "spec has neither"),
            ("{cidr6: '2001:db8::1/64'}", "spec.cidr6: \"2001:db8::1/64\" has bits set behind"),
            ("{cidr6: 10.0.0.0/24}", "spec.cidr6: \"10.0.0.0/24\" is an IPv4 prefix: write cidr4: 10.0.0.0/24"),
            ("{cidr4: 10.025.214.0/24}", "which some programs take for octal: write 10.25.214.0/24"),
            ("{cidr6: '2001:db8::/127'}", "the smallest range is /126"),
            ("{cidr6: '2000::/15'}", "the largest range is /16"),
            ("{cidr6: 'fe80::/64'}", "overlaps the link-local range"),
            ("{cidr4: ''}", "spec.cidr4: \"\" is not an IPv4 prefix"),
            ("{cidr4: 10.0.0.0/31}", "network, gateway and broadcast address leave nothing"),
            ("{cidr4: 10.0.0.0/32}", "the smallest range is /30"),
            ("{cidr4: 10.0.0.0/7}", "the largest range is /8"),
            ("{cidr6: '2001:db8::/64', mtu: 1279}", "spec.mtu: \"1279\" must be between 1280 and 65535"),
            ("{cidr4: 10.0.0.0/24, mtu: 575}", "spec.mtu: \"575\" must be between 576 and 65535"),
            ("{cidr4: 10.0.0.0/24, mtu: 65536}", "spec.mtu: \"65536\" must be"),
            ("{cidr4: 10.0.0.0/24, mtu: -1}", "spec.mtu: \"-1\" must be"),
            ("{cidr4: 10.0.0.0/24, defaults: {ipv6: true}}", "spec.defaults.ipv6 is true but spec.cidr6 is absent"),
            ("{cidr6: '2001:db8::/64', defaults: {ipv4: true}}", "spec.defaults.ipv4 is true but spec.cidr4 is absent"),
        ] {
            let error = spec(text).expect_err("must be refused").to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        for good in ["{cidr4: 10.0.0.0/30, mtu: 576}", "{cidr4: 10.0.0.0/8}", "{cidr6: '2001:db8::/126', mtu: 1280}"] {
            assert!(spec(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn another_kind_of_object_hears_so_first() {
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {replicas: 3}\n";
        assert_eq!(refusal(deployment), format!("apiVersion: \"apps/v1\" must be {API_VERSION}"));
        let other = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfigList\n";
        assert_eq!(refusal(other), "kind: \"NodeConfigList\" must be NodeConfig");
        assert_eq!(refusal("{}"), format!("apiVersion: \"\" must be {API_VERSION}"));
        let manifest = Manifest { kind: KIND.into(), ..Manifest::default() };
        assert!(NodeConfig::try_from(manifest).is_err());
    }

    #[test]
    fn the_name_is_required() {
        let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nspec: {{cidr4: 10.0.0.0/24}}\n");
        assert_eq!(refusal(&text), "metadata.name: \"\" is required");
    }

    #[test]
    fn errors_of_syntax_and_type_carry_their_line() {
        for (tail, line, says) in [
            ("spec:\n  cidr4: 10.0.0.0/24\n  cird6: x\n", 6, "cird6"),
            ("spec:\n  cidr4: 10.0.0.0/24\n  defaults:\n    ipv7: true\n", 7, "ipv7"),
            ("spec:\n  cidr4: 10.0.0.0/24\n  defaults: {ipv4: yes please}\n", 6, "spec.defaults.ipv4"),
            ("spec:\n  cidr4: 10.0.0.0/24\n  mtu: large\n", 6, "spec.mtu"),
            ("spec:\n  cidr4: [10.0.0.0/24]\n", 5, "spec.cidr4"),
            ("spec:\n  cidr4: 10.0.0.0/24\n  cidr4: 10.0.1.0/24\n", 5, "duplicate"),
            ("sepc: {}\n", 4, "sepc"),
            ("spec: {cidr4: 10.0.0.0/24\n", 5, "did not find"),
            ("spec:\n\tcidr4: 10.0.0.0/24\n", 5, "cannot start any token"),
        ] {
            let error = parse(format!("{HEAD}{tail}")).expect_err("must be refused");
            let ConfigError::Unreadable { line: Some(at), message } = error else { panic!("{tail}: {error:?}") };
            assert!(message.contains(says) && message.contains("line"), "{tail}: {message}");
            assert_eq!(at, line, "{tail}: {message}");
        }
    }

    #[test]
    fn one_text_holds_one_document() {
        let one = format!("{HEAD}spec: {{cidr4: 10.0.0.0/24}}\n");
        assert!(parse(format!("# a comment\n---\n{one}...\n")).is_ok());
        assert_eq!(parse(format!("{one}---\n{one}")), Err(ConfigError::ManyDocuments));
        assert!(parse(format!("---\n# old\n---\n{one}---\n# new\n---\n")).is_ok());
        for empty in ["", "\n", "# nothing\n", "---\n", "null\n"] {
            assert_eq!(parse(empty), Err(ConfigError::Empty), "{empty:?}");
        }
    }

    #[test]
    fn a_file_that_windows_wrote_is_taken() {
        let text = format!("{HEAD}spec: {{cidr4: 10.0.0.0/24}}\n").replace('\n', "\r\n");
        let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [text.as_bytes(), format!("\u{feff}{text}").as_bytes(), &utf16] {
            assert_eq!(parse(bytes).map(|config| config.name).as_deref(), Ok("host001"), "{bytes:?}");
        }
        assert_eq!(parse([text.as_bytes(), b"# caf\xe9"].concat()), Err(ConfigError::Encoding(text.len() + 5)));
        assert!(ConfigError::Encoding(7).to_string().contains("byte 7"));
    }

    #[test]
    fn a_manifest_may_have_anchors_merge_keys_and_the_booleans_of_yaml_1_1() {
        let text = format!(
            "x: 1\n{HEAD}spec:\n  <<: &base {{cidr4: 10.0.0.0/24, cidr6: '2001:db8::/64'}}\n  defaults: {{ipv6: no, ipv4: On}}\n"
        );
        assert!(refusal(&text).contains('x'), "unknown fields are still refused");
        let config = parse(text.replace("x: 1\n", "")).expect("valid");
        assert_eq!((config.cidr4.is_some(), config.cidr6.is_some()), (true, true));
        assert_eq!((config.defaults.ipv6, config.defaults.ipv4), (false, true));
    }

    #[test]
    fn null_is_no_name() {
        for null in ["null", "~", ""] {
            let text = HEAD.replace("host001", null);
            assert_eq!(refusal(&format!("{text}spec: {{cidr4: 10.0.0.0/24}}")), "metadata.name: \"\" is required");
        }
    }

    fn notes(annotations: &str) -> Vec<String> {
        let head = HEAD.replace("host001", &format!("host001, annotations: {annotations}"));
        read(format!("{head}spec: {{cidr4: 10.0.0.0/24}}")).expect("valid").1
    }

    #[test]
    fn what_is_accepted_and_wrong_is_noted() {
        for (annotations, says) in [
            ("{flock.fritzlab.net/ip-algo: 'namespace,owner'}", r#""namespace,owner" has the unknown field "owner""#),
            ("{flock.fritzlab.net/ip-algo: ''}", "has an empty field"),
            ("{flock.fritzlab.net/ip-alg: app}", r#""flock.fritzlab.net/ip-alg" of the NodeConfig is ignored"#),
            ("{flock.fritzlab.net/IP-ALGO: app}", "the key here is flock.fritzlab.net/ip-algo"),
            ("{flock.fritzlab.net/ipv4: 'false'}", "it is for pods, and for the node there is spec.defaults.ipv4"),
            ("{flock.fritzlab.net/cidr6: x}", "it is for pods, and for the node there is spec.cidr6"),
            ("{flock.fritzlab.com/ip-algo: app}", "the key here is flock.fritzlab.net/ip-algo"),
            ("{ip-algo: app}", "the key here is flock.fritzlab.net/ip-algo"),
        ] {
            let notes = notes(annotations);
            assert!(notes.len() == 1 && notes[0].contains(says), "{annotations}: {notes:?}");
        }
        for good in
            ["{flock.fritzlab.net/ip-algo: app}", "{example.com/note: x, kubectl.kubernetes.io/last-applied: y}"]
        {
            assert_eq!(notes(good), Vec::<String>::new(), "{good}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("flock.fritzlab.net/k{n}: x")).collect();
        assert_eq!(notes(&format!("{{{}}}", many.join(","))).len(), NOTES_MAX);
    }

    #[test]
    fn an_mtu_that_the_uplink_cannot_carry_is_noted() {
        for (asked, uplink) in [(None, 1500), (Some(1500), 1500), (Some(1400), 1500), (Some(9000), 9000)] {
            assert_eq!(mtu_note(asked, uplink), None);
        }
        let note = mtu_note(Some(9000), 1500).expect("a note");
        assert!(note.contains("spec.mtu is 9000") && note.contains("1500") && note.contains("remove"), "{note}");
        assert!(mtu_note(Some(1501), 1500).is_some());
    }

    #[test]
    fn a_file_of_another_node_is_noted() {
        assert_eq!(name_note("host001", "host001"), None);
        assert!(name_note("Host001", "host001").expect("a note").contains("differ in case only"));
        assert!(name_note("host002", "host001").expect("a note").contains("another node"));
    }

    #[test]
    fn names_of_nodes_are_what_kubernetes_takes() {
        for good in ["a", "7", "host001", "host-1.example.com", "10.0.0.1", &"a".repeat(253)] {
            assert_eq!(check_node_name(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("", "empty"),
            ("Node-A", "'N'"),
            ("my_host", "'_'"),
            ("(none)", "'('"),
            ("a b", "' '"),
            ("h\u{f6}st", "'\u{f6}'"),
            ("a/b", "'/'"),
            ("a\n", "'\\n'"),
            ("-a", "begins or ends with -"),
            ("a-.b", "begins or ends with -"),
            ("a..b", "is empty"),
            ("a.", "is empty"),
            (".", "is empty"),
            (&"a".repeat(254), "254 bytes"),
        ] {
            let why = check_node_name(bad).expect_err(bad);
            assert!(why.contains(says), "{bad:?}: {why}");
        }
    }

    #[test]
    fn hostile_texts_are_refused_without_harm() {
        assert!(matches!(parse(" ".repeat(TEXT_MAX + 1)), Err(ConfigError::TooLong(_))));
        let deep = format!("{HEAD}spec: {}", "[".repeat(10_000));
        let mut laughs = String::from("a0: &a0 [x, x]\n");
        for n in 1..60 {
            laughs.push_str(&format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
        }
        for text in [deep, format!("{HEAD}{laughs}"), "hello".into(), "[]".into(), format!("{HEAD}\u{0}")] {
            let error = parse(&text).expect_err("must be refused");
            assert!(error.to_string().chars().count() <= MESSAGE_MAX, "{error}");
        }
    }
}
