//! The NodeConfig manifest: from its text to the checked value that the agent works with.
//!
//! A [`NodeConfig`] has been checked and needs no second look. This file is strict on purpose: a misspelt `cidr4` that is silently
//! absent costs more than one that is refused, and a refused manifest harms nobody, since the last good one stays in force. It must
//! not know where the text came from.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{
    AddrError, GATEWAY4, IfName, POD_LINKS, check_prefix4, check_prefix6, parse_prefix, parse_prefix4, parse_prefix6,
};
use crate::annotations::{Defaults, IP_ALGO, PREFIX, of_the_node};
use crate::bgp::{self, Bgp};
use crate::configerror::{ConfigError, Located, TEXT_MAX};
use crate::excerpt::{Excerpt, cut};
use crate::fields::{Fields, Findings, UnknownField, Value};
use crate::policing::{self, Policing};
use crate::syntax::{self, Advice};
use crate::text::{self, TextError};
use crate::tree::Tree;

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

/// Longest part of a line that is repeated, in bytes.
const LINE_MAX: usize = 120;

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

/// Reads a manifest in YAML or JSON that somebody wrote, and checks it.
///
/// # Errors
/// [`ConfigError`], with the lines.
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
        return Err(ConfigError::of_all(format!("it has {} bytes, and {TEXT_MAX} are allowed", bytes.len())));
    }
    let text = text::decoded(bytes).map_err(|error| unreadable(bytes, "", &error))?;
    let tree = text::tree(&text).map_err(|error| unreadable(bytes, &text, &error))?;
    let empty = || ConfigError::of_all("it is empty: a NodeConfig begins with apiVersion and kind".into());
    let (found, findings) = document(&tree.ok_or_else(empty)?);
    let line = |at| text::line_of(&text, at);
    judged(found, findings.into_problems().into_iter().map(|found| Located { line: line(found.at), text: found.text }))
}

/// Reads a manifest in JSON that the API server has, or that was kept of it. Fields that are not known are those of a newer schema:
/// they are noted, and count for nothing.
///
/// # Errors
/// [`ConfigError`], without lines.
pub fn read_published(json: impl AsRef<[u8]>) -> Result<(NodeConfig, Vec<String>), ConfigError> {
    let text = text::decoded(json.as_ref()).map_err(|error| unreadable(json.as_ref(), "", &error))?;
    let tree = text::tree(&text).map_err(|error| unreadable(json.as_ref(), "", &error))?;
    let (found, findings) = document(&tree.unwrap_or(Tree::Null));
    let unknown = findings.take_unknown();
    let problems = findings.into_problems().into_iter().map(|found| Located { line: None, text: found.text });
    let (config, mut notes) = judged(found, problems)?;
    notes.extend(unknown.into_iter().map(|UnknownField { of, name, .. }| {
        format!("{of}: the field {} is ignored: this version of flock-agent does not know it", Excerpt::of(&name))
    }));
    notes.truncate(NOTES_MAX);
    Ok((config, notes))
}

fn judged<T>(found: Option<T>, problems: impl Iterator<Item = Located>) -> Result<T, ConfigError> {
    let mut problems = problems;
    match (problems.next(), found) {
        (None, Some(found)) => Ok(found),
        (None, None) => Err(ConfigError::of_all("it is no NodeConfig".into())),
        (Some(first), _) => Err(ConfigError::new(first, problems.collect())),
    }
}

/// Why the reader refused `bytes`, or `text`, which they are. What was written is no secret here.
fn unreadable(bytes: &[u8], text: &str, error: &TextError) -> ConfigError {
    if matches!(error, TextError::ManyDocuments) {
        let words = "there is more than one YAML document with content, and one file describes one node: leave one";
        return ConfigError::of_all(words.into());
    }
    let Advice { line, words } = syntax::explained(error, bytes, text);
    let written = text.lines().nth(line.unwrap_or_default().saturating_sub(1)).unwrap_or_default().trim();
    let text = match line {
        Some(_) if !written.is_empty() => format!("{}: {words}", Excerpt::of(&cut(written.into(), LINE_MAX))),
        _ => words,
    };
    ConfigError::new(Located { line, text }, Vec::new())
}

/// What a document says. It counts only if there are no problems.
fn document(tree: &Tree) -> (Option<(NodeConfig, Vec<String>)>, Findings) {
    // A Deployment given by mistake must hear that its kind is wrong, not that `spec.replicas` does not exist.
    let head = Findings::default();
    head.document(tree).object(check_head);
    if head.are_bad() {
        return (None, head);
    }
    let findings = Findings::default();
    let found = findings.document(tree).object(manifest).flatten();
    (found, findings)
}

fn check_head(fields: &mut Fields<'_>) {
    fields.all();
    let kind = fields.get("kind");
    if let Some(list) = kind.filter(|kind| matches!(kind.tree(), Tree::Text(kind) if kind.ends_with("List"))) {
        list.wrong("holds several objects: take one item, as kubectl get nodeconfigs NAME -o yaml shows it");
        return;
    }
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let value = fields.required(name, format_args!("write {name}: {wanted}"));
        value.and_then(|value| value.word(&[(wanted, ())]));
    }
}

fn manifest(fields: &mut Fields<'_>) -> Option<(NodeConfig, Vec<String>)> {
    fields.ignore(["apiVersion", "kind", "status"]);
    let metadata = fields.object("metadata", metadata);
    let spec = fields.object("spec", spec);
    let (name, annotations) = metadata?;
    let config = spec?;
    let mut notes: Vec<String> = of_the_node(&annotations).iter().map(ToString::to_string).collect();
    notes.truncate(NOTES_MAX);
    let defaults = Defaults { ip_algo: annotations.get(IP_ALGO).cloned(), ..config.defaults };
    Some((NodeConfig { name: name?, defaults, ..config }, notes))
}

/// The name, and the annotations: of those of others only the keys.
fn metadata(fields: &mut Fields<'_>) -> (Option<String>, BTreeMap<String, String>) {
    // The API server has many more.
    let all = fields.all();
    if let Some((_, spec)) = all.iter().find(|(name, _)| *name == "spec") {
        spec.wrong("stands below metadata, and belongs beside it: indent it as metadata is");
    }
    let present =
        |text: &str| if text.is_empty() { Err("is empty: write the name of the node") } else { Ok(text.into()) };
    let name = fields.required("name", "write the name of the node").and_then(|name| name.parsed(present));
    let text = |(key, value): (&str, Value<'_>)| {
        let ours = key.starts_with(PREFIX).then(|| value.text()).flatten();
        (key.to_string(), ours.unwrap_or_default().to_string())
    };
    let annotations = fields.object("annotations", |all| all.all().into_iter().map(text).collect());
    (name, annotations.unwrap_or_default())
}

/// All but the name and the annotations.
fn spec(fields: &mut Fields<'_>) -> NodeConfig {
    let [six, four] = ["cidr6", "cidr4"].map(|name| fields.get(name));
    let [has6, has4] = [&six, &four].map(Option::is_some);
    if !has6 && !has4 {
        fields.lack("has neither cidr6 nor cidr4, and at least one is needed: write the range that pods of the node take addresses of");
    }
    let defaults = fields.object("defaults", |fields| Defaults {
        ipv6: default(fields, "ipv6", "spec.cidr6", has6),
        ipv4: default(fields, "ipv4", "spec.cidr4", has4),
        ip_algo: None,
    });
    let mtu_min = if has6 { MTU_MIN6 } else { MTU_MIN4 };
    let peers = [("direct", Peers::Direct), ("none", Peers::None)];
    NodeConfig {
        name: String::new(),
        cidr6: six.and_then(|value| value.parsed(range6)),
        cidr4: four.and_then(|value| value.parsed(range4)),
        mtu: fields.get("mtu").and_then(|value| value.within(mtu_min, MTU_MAX)),
        gateway4: fields.get("gateway4").and_then(|value| value.parsed(gateway)).unwrap_or(GATEWAY4),
        defaults: defaults.unwrap_or(Defaults { ipv6: has6, ipv4: has4, ip_algo: None }),
        peers: fields.get("peers").and_then(|value| value.word(&peers)),
        extra_prefixes: fields
            .get("extraPrefixes")
            .map(|value| value.set(EXTRA_PREFIXES_MAX, pod_prefix))
            .unwrap_or_default(),
        proxy_neighbours: fields.get("proxyNeighbours").and_then(|value| value.parsed(uplink)),
        bgp: fields.get("bgp").and_then(|value| value.object(bgp::read)).flatten(),
        policing: policing::read(fields),
    }
}

/// Whether pods get an address of a family if they say nothing: if the node has a range of it, and its owner does not say no.
fn default(fields: &mut Fields<'_>, name: &'static str, range: &str, has_range: bool) -> bool {
    let Some(value) = fields.get(name) else { return has_range };
    let asked = value.boolean();
    if asked == Some(true) && !has_range {
        value.wrong(format_args!("needs {range}, which is missing: add the range, or remove this"));
    }
    asked.unwrap_or(has_range)
}

/// The configuration of a node of this name that has no NodeConfig but the ranges `cidrs` of its Node in Kubernetes, and as a
/// manifest in JSON that reads as the same. Further ranges of a family do not count, and Kubernetes gives none.
///
/// # Errors
/// Why one of them cannot be a node's range, or that there is none.
pub fn of_pod_cidrs(node: &str, cidrs: &[String]) -> Result<(NodeConfig, String), String> {
    let (mut cidr6, mut cidr4) = (None, None);
    for text in cidrs {
        let wrong = |why: AddrError| format!("spec.podCIDRs: {} {why}", Excerpt::of(text));
        match text.contains(':') {
            true if cidr6.is_none() => cidr6 = Some(range6(text).map_err(wrong)?.to_string()),
            false if cidr4.is_none() => cidr4 = Some(range4(text).map_err(wrong)?.to_string()),
            _ => {}
        }
    }
    // Neither the name of a node nor a range has a character that JSON escapes.
    let fields = [("cidr6", cidr6), ("cidr4", cidr4)].into_iter();
    let fields = fields.filter_map(|(name, range)| Some(format!("\"{name}\":\"{}\"", range?)));
    let text = format!(
        "{{\"apiVersion\":\"{API_VERSION}\",\"kind\":\"{KIND}\",\"metadata\":{{\"name\":\"{node}\"}},\"spec\":{{{}}}}}",
        fields.collect::<Vec<_>>().join(",")
    );
    let (config, _) = read_published(&text).map_err(|error| error.to_string())?;
    Ok((config, text))
}

/// What to say of an `spec.mtu` that the uplink, by which pods reach everybody else, cannot carry. Both in bytes.
pub fn mtu_note(asked: Option<u32>, uplink: u32) -> Option<String> {
    let asked = asked.filter(|asked| *asked > uplink)?;
    Some(format!(
        "spec.mtu is {asked} and the uplink's MTU is {uplink}: longer packets of pods do not get out; remove spec.mtu to \
         take the uplink's, or raise the uplink's"
    ))
}

/// What to say of a NodeConfig by which pods get no address unless they ask for one.
pub fn defaults_note(config: &NodeConfig) -> Option<String> {
    let note =
        "spec.defaults: ipv6 and ipv4 are both false, so a pod that does not ask for one by annotation does not start";
    (!config.defaults.ipv6 && !config.defaults.ipv4).then(|| note.into())
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
fn gateway(text: &str) -> Result<Ipv4Addr, &'static str> {
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let fits = |ip: &Ipv4Addr| ip.is_link_local() && (1..=254).contains(&ip.octets()[2]) && *ip != metadata;
    text.parse().ok().filter(fits).ok_or(
        "must be a link-local IPv4 address, from 169.254.1.0 to 169.254.254.255, and not 169.254.169.254, where clouds have their \
         metadata",
    )
}

/// A prefix of either family in which pods can have addresses.
fn pod_prefix(text: &str) -> Result<IpNet, AddrError> {
    let net = parse_prefix(text)?;
    match net {
        IpNet::V6(net) => check_prefix6(net)?,
        IpNet::V4(net) => check_prefix4(net)?,
    }
    Ok(net)
}

fn uplink(text: &str) -> Result<IfName, &'static str> {
    if text.starts_with(POD_LINKS) {
        return Err("is a pod's link: write the link by which the router reaches this host, such as eth0");
    }
    text.parse().map_err(|_| "is no name of a link by which a router reaches this host: write one, such as eth0")
}

#[cfg(test)]
mod tests;
