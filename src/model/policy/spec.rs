//! NetworkPolicy as it is written: from JSON or YAML to a checked [`Policy`].
//!
//! A policy is never treated as absent because of what it says: where a direction cannot be understood, the policy isolates its
//! pods there and allows nothing, and where its pods cannot be understood, it does so for all of its namespace. Fields that are not
//! known are passed over, as the API server has more of them with each version. It must not read files.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use crate::excerpt::Excerpt;
use crate::policy::select::{Labels, Operator, Requirement, Selector};
use crate::policy::{NamedPort, Namespaces, Peer, Policy, Port, Ports, Rule};
use crate::protocol::{SCTP, TCP, UDP};

/// The `apiVersion`.
pub const API_VERSION: &str = "networking.k8s.io/v1";

/// The `kind`.
pub const KIND: &str = "NetworkPolicy";

/// Longest name of a namespace, in bytes (a label of RFC 1123).
pub const NAMESPACE_MAX: usize = 63;

/// What is wrong with a text that [`is_namespace`] refuses. Reads on from the text.
pub const NAMESPACE_RULE: &str =
    "is no name of a namespace: 1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends";

/// Longest name of a policy or pod, in bytes (a subdomain of RFC 1123).
pub const NAME_MAX: usize = 253;

/// Longest name of a port, in bytes (RFC 6335).
pub const PORT_NAME_MAX: usize = 15;

/// Longest value of a label, and longest name in its key, in bytes.
pub const LABEL_MAX: usize = 63;

/// Most matches that one direction of a policy may come to: peers times ports that have a name, and one for each other peer. The
/// API server has no such bound, but the size of an object bounds peers and ports one by one, and their product could be anything.
pub const MATCHES_MAX: usize = 16_384;

/// Most memory that the rules of one direction may come to, in bytes (1 MiB): some ten thousand blocks or peers. A node keeps the
/// policies of the whole cluster, and an object of the API may come to twenty times its length.
pub const RULES_SIZE_MAX: usize = 1 << 20;

/// Most memory that the selector of a policy's own pods may come to, in bytes (16 KiB).
pub const SUBJECTS_SIZE_MAX: usize = 16 << 10;

/// Most faults of a policy that are told.
pub const FAULTS_MAX: usize = 16;

/// A policy that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What holds.
    pub policy: Policy,
    /// What could not be understood, so that less is allowed than is written: at most [`FAULTS_MAX`].
    pub faults: Vec<Fault>,
}

/// A field whose value breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, such as `spec.ingress[0].from[1].ipBlock.cidr`.
    pub path: String,
    /// The value.
    pub value: Excerpt,
    /// What is wrong with it, and what would do. Reads on from the value.
    pub rule: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.path, self.value, self.rule)
    }
}

impl core::error::Error for Fault {}

/// Reads a NetworkPolicy of the API or of a file. One of a file without a namespace is of `default`, as for `kubectl`.
///
/// # Errors
/// It is no NetworkPolicy, or has no name by which it could be known. Everything else is in [`Read::faults`].
pub fn read(object: &Value) -> Result<Read, Fault> {
    let place = Place::Root;
    for (key, wanted, rule) in
        [("apiVersion", API_VERSION, "must be networking.k8s.io/v1"), ("kind", KIND, "must be NetworkPolicy")]
    {
        if object.get(key).and_then(Value::as_str) != Some(wanted) {
            return Err(place.field(key).fault(object.get(key).unwrap_or(&Value::Null), rule));
        }
    }
    let (namespace, name) = identity(object)?;
    let mut reader = Reader { faults: Vec::new() };
    let policy = reader.policy(&place.field("spec"), object.get("spec").unwrap_or(&Value::Null));
    Ok(Read { namespace, name, policy, faults: reader.faults })
}

/// The namespace, `default` if none is given, and the name in the metadata of an object.
///
/// # Errors
/// One of them is no name, or there is no name.
pub fn identity(object: &Value) -> Result<(String, String), Fault> {
    let (root, none) = (Place::Root, Value::Null);
    let metadata = root.field("metadata");
    let given = |key| object.get("metadata").and_then(|metadata| metadata.get(key)).unwrap_or(&none);
    let namespace = match given("namespace") {
        Value::Null => "default",
        Value::String(text) if text.is_empty() => "default",
        Value::String(text) if is_namespace(text) => text,
        other => {
            return Err(metadata.field("namespace").fault(other, NAMESPACE_RULE));
        }
    };
    match given("name") {
        Value::String(name) if is_subdomain(name) => Ok((namespace.into(), name.clone())),
        other => Err(metadata.field("name").fault(
            other,
            "is no name of an object: 1 to 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
        )),
    }
}

/// The labels in the metadata of an object; those that are no texts are left out.
pub fn labels(object: &Value) -> Labels {
    let labels = object.get("metadata").and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
    labels.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

/// The named ports of the containers in the `spec` of a pod; those that no policy can mean are left out. Init containers that go on
/// running count as containers.
pub fn named_ports(pod: &Value) -> Vec<NamedPort> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let spec = pod.get("spec");
    let mut containers = list(spec.and_then(|spec| spec.get("containers")));
    let init = list(spec.and_then(|spec| spec.get("initContainers")));
    containers
        .extend(init.into_iter().filter(|container| container.get("restartPolicy").is_some_and(|p| p == "Always")));
    let ports = containers.iter().flat_map(|container| list(container.get("ports")));
    let mut found: Vec<NamedPort> = ports
        .filter_map(|port| {
            let name = port.get("name")?.as_str().filter(|name| is_port_name(name))?;
            let protocol = protocol(port.get("protocol").unwrap_or(&Value::Null))?;
            let number = port.get("containerPort")?.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)?;
            Some(NamedPort { name: name.into(), protocol, port: number })
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Where in an object.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    fn field(&'a self, name: &'a str) -> Place<'a> {
        Place::Field(self, name)
    }

    fn item(&'a self, number: usize) -> Place<'a> {
        Place::Item(self, number)
    }

    fn fault(&self, value: &Value, rule: &'static str) -> Fault {
        let value = match value {
            Value::String(text) => Excerpt::of(text),
            Value::Array(_) => Excerpt::line("the list", 16),
            Value::Object(_) => Excerpt::line("the object", 16),
            other => Excerpt::line(&other.to_string(), 32),
        };
        Fault { path: Excerpt::line(&self.to_string(), 512).into(), value, rule }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Field(Place::Root, name) => f.write_str(name),
            Place::Field(outer, name) => write!(f, "{outer}.{name}"),
            Place::Item(outer, number) => write!(f, "{outer}[{number}]"),
        }
    }
}

/// Reads on where something is not understood, and keeps what that was.
struct Reader {
    faults: Vec<Fault>,
}

/// Something is not understood; it has been told.
struct Unclear;

impl Reader {
    fn unclear(&mut self, place: &Place<'_>, value: &Value, rule: &'static str) -> Unclear {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(place.fault(value, rule));
        }
        Unclear
    }

    fn policy(&mut self, place: &Place<'_>, spec: &Value) -> Policy {
        let none = serde_json::Map::new();
        let (spec, known) = match spec {
            Value::Object(spec) => (spec, true),
            Value::Null => (&none, true),
            other => {
                self.unclear(place, other, "must be an object");
                (&none, false)
            }
        };
        let given = |key| spec.get(key).unwrap_or(&Value::Null);
        let subjects = match given("podSelector") {
            Value::Null => Ok(Selector::default()),
            selector => self.selector(&place.field("podSelector"), selector),
        };
        let subjects = match subjects {
            Ok(subjects) if subjects.size() > SUBJECTS_SIZE_MAX => {
                let rule = "comes to more than 16 KiB of keys and values: label the pods that are meant, and select that label";
                Err(self.unclear(&place.field("podSelector"), given("podSelector"), rule))
            }
            subjects => subjects,
        };
        let [ingress, egress] = self.types(&place.field("policyTypes"), given("policyTypes"), given("egress"));
        let mut direction = |isolates: bool, key, peers| {
            // The rules are looked at even where they do not count, so that their faults are told.
            let rules = self.rules(&place.field(key), given(key), peers);
            isolates.then(|| rules.unwrap_or_default())
        };
        let ingress = direction(ingress, "ingress", "from");
        let egress = direction(egress, "egress", "to");
        match subjects {
            Ok(subjects) if known => Policy { subjects, ingress, egress },
            Ok(_) => Policy { subjects: Selector::default(), ingress: Some(Vec::new()), egress: Some(Vec::new()) },
            // All pods of the namespace: what is allowed to some is not allowed to all.
            Err(Unclear) => Policy {
                subjects: Selector::default(),
                ingress: ingress.map(|_| Vec::new()),
                egress: egress.map(|_| Vec::new()),
            },
        }
    }

    /// Whether ingress and egress are isolated.
    fn types(&mut self, place: &Place<'_>, types: &Value, egress: &Value) -> [bool; 2] {
        let named = match types {
            Value::Null => &Vec::new(),
            Value::Array(types) => types,
            other => {
                self.unclear(place, other, "must be a list of Ingress and Egress");
                return [true, true];
            }
        };
        if named.is_empty() {
            // An object in the place of a list is no rule, but something was meant.
            let has_egress = egress.as_array().map_or(!egress.is_null(), |rules| !rules.is_empty());
            return [true, has_egress];
        }
        let mut isolated = [false, false];
        for (number, kind) in named.iter().enumerate() {
            match kind.as_str() {
                Some("Ingress") => isolated[0] = true,
                Some("Egress") => isolated[1] = true,
                _ => {
                    self.unclear(&place.item(number), kind, "must be Ingress or Egress");
                    isolated = [true, true];
                }
            }
        }
        isolated
    }

    /// The rules of a direction.
    fn rules(&mut self, place: &Place<'_>, rules: &Value, peers: &str) -> Result<Vec<Rule>, Unclear> {
        let (mut matches, mut size) = (0_usize, 0_usize);
        let mut read = Vec::new();
        for (number, rule) in self.list(place, rules)?.iter().enumerate() {
            let place = place.item(number);
            if !rule.is_object() {
                return Err(self.unclear(&place, rule, "must be an object with ports and peers"));
            }
            let given = |key| rule.get(key).unwrap_or(&Value::Null);
            let (peers_place, ports_place) = (place.field(peers), place.field("ports"));
            let mut rule = Rule::default();
            for (number, peer) in self.list(&peers_place, given(peers))?.iter().enumerate() {
                rule.peers.push(self.peer(&peers_place.item(number), peer)?);
            }
            for (number, port) in self.list(&ports_place, given("ports"))?.iter().enumerate() {
                rule.ports.push(self.port(&ports_place.item(number), port)?);
            }
            let named = rule.ports.iter().filter(|port| matches!(port.ports, Ports::Named(_))).count();
            matches += rule.peers.len().max(1) * (named + 1);
            if matches > MATCHES_MAX {
                let rule = "comes to more than 16384 matches of a peer and a named port: write several policies, or numbers of ports";
                return Err(self.unclear(&place, given(peers), rule));
            }
            size += rule.size();
            if size > RULES_SIZE_MAX {
                let (place, value) = match size_of_val(&*rule.ports) > rule.size() / 2 {
                    true => (ports_place, given("ports")),
                    false => (peers_place, given(peers)),
                };
                let rule = "comes, with what is before it, to more than 1 MiB of peers, excepts, values and ports: write wider blocks \
                            and fewer values, or several policies";
                return Err(self.unclear(&place, value, rule));
            }
            read.push(rule);
        }
        Ok(read)
    }

    /// The items of a list; none where nothing is given.
    fn list<'a>(&mut self, place: &Place<'_>, list: &'a Value) -> Result<&'a [Value], Unclear> {
        match list {
            Value::Null => Ok(&[]),
            Value::Array(items) => Ok(items),
            other => Err(self.unclear(place, other, "must be a list")),
        }
    }

    fn peer(&mut self, place: &Place<'_>, peer: &Value) -> Result<Peer, Unclear> {
        let given = |key| peer.get(key).unwrap_or(&Value::Null);
        let (pods, namespaces, block) = (given("podSelector"), given("namespaceSelector"), given("ipBlock"));
        if !block.is_null() {
            if !pods.is_null() || !namespaces.is_null() {
                let rule = "must have ipBlock alone: write it as a peer of its own";
                return Err(self.unclear(place, peer, rule));
            }
            return self.block(&place.field("ipBlock"), block);
        }
        if pods.is_null() && namespaces.is_null() {
            let rule =
                "must have podSelector, namespaceSelector or ipBlock: leave out the whole list to mean everybody";
            return Err(self.unclear(place, peer, rule));
        }
        let mut selector = |key: &str, value: &Value| match value {
            Value::Null => Ok(None),
            value => self.selector(&place.field(key), value).map(Some),
        };
        let pods = selector("podSelector", pods)?.unwrap_or_default();
        let namespaces = selector("namespaceSelector", namespaces)?.map_or(Namespaces::Same, Namespaces::Selected);
        Ok(Peer::Pods { namespaces, pods })
    }

    fn block(&mut self, place: &Place<'_>, block: &Value) -> Result<Peer, Unclear> {
        let given = |key| block.get(key).unwrap_or(&Value::Null);
        let cidr = self.net(&place.field("cidr"), given("cidr"))?;
        let place = place.field("except");
        let mut except = Vec::new();
        for (number, net) in self.list(&place, given("except"))?.iter().enumerate() {
            let (place, value) = (place.item(number), net);
            let net = self.net(&place, value)?;
            if !cidr.contains(&net) || cidr == net {
                return Err(self.unclear(&place, value, "must be a part of cidr: name a longer prefix within it"));
            }
            except.push(net);
        }
        Ok(Peer::Block { cidr, except })
    }

    fn net(&mut self, place: &Place<'_>, value: &Value) -> Result<IpNet, Unclear> {
        let net = value.as_str().and_then(net);
        net.ok_or_else(|| self.unclear(place, value, "is no prefix such as 10.0.0.0/24 or 2001:db8::/64"))
    }

    fn port(&mut self, place: &Place<'_>, port: &Value) -> Result<Port, Unclear> {
        if !port.is_object() {
            return Err(self.unclear(place, port, "must be an object with protocol and port"));
        }
        let given = |key| port.get(key).unwrap_or(&Value::Null);
        let number = |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        let Some(protocol) = protocol(given("protocol")) else {
            return Err(self.unclear(&place.field("protocol"), given("protocol"), "must be TCP, UDP or SCTP"));
        };
        let (first, last) = (given("port"), given("endPort"));
        let ports = match (first, last) {
            (Value::Null, Value::Null) => Ports::All,
            (Value::String(name), Value::Null) if is_port_name(name) => Ports::Named(name.as_str().into()),
            (Value::Number(_), last) => {
                let Some(from) = number(first) else {
                    return Err(self.unclear(&place.field("port"), first, "must be from 1 to 65535"));
                };
                let to = if last.is_null() { Some(from) } else { number(last).filter(|to| *to >= from) };
                let Some(to) = to else {
                    return Err(self.unclear(&place.field("endPort"), last, "must be from port to 65535"));
                };
                Ports::Numbers(from, to)
            }
            (_, Value::Null) => {
                let rule = "is neither a number nor a port's name: up to 15 lower-case letters, digits and single '-', one letter \
                            at least; write a number without quotation marks";
                return Err(self.unclear(&place.field("port"), first, rule));
            }
            (_, last) => {
                return Err(self.unclear(&place.field("endPort"), last, "needs the number of the first port in port"));
            }
        };
        Ok(Port { protocol, ports })
    }

    fn selector(&mut self, place: &Place<'_>, selector: &Value) -> Result<Selector, Unclear> {
        if !selector.is_object() {
            return Err(self.unclear(place, selector, "must be an object with matchLabels or matchExpressions"));
        }
        let given = |key| selector.get(key).unwrap_or(&Value::Null);
        let mut requirements = Vec::new();
        let labels_place = place.field("matchLabels");
        match given("matchLabels") {
            Value::Null => {}
            Value::Object(labels) => {
                for (key, value) in labels {
                    let place = labels_place.field(key);
                    self.key(&place, key)?;
                    requirements.push(Requirement::equals(key.as_str(), self.value(&place, value)?));
                }
            }
            other => return Err(self.unclear(&labels_place, other, "must be keys with their values")),
        }
        let place = place.field("matchExpressions");
        for (number, expression) in self.list(&place, given("matchExpressions"))?.iter().enumerate() {
            requirements.push(self.expression(&place.item(number), expression)?);
        }
        Ok(requirements.into_iter().collect())
    }

    fn expression(&mut self, place: &Place<'_>, expression: &Value) -> Result<Requirement, Unclear> {
        let given = |key| expression.get(key).unwrap_or(&Value::Null);
        let key = self.key(&place.field("key"), given("key").as_str().unwrap_or_default())?;
        let values_place = place.field("values");
        let mut values: Vec<Box<str>> = Vec::new();
        for (number, value) in self.list(&values_place, given("values"))?.iter().enumerate() {
            values.push(self.value(&values_place.item(number), value)?);
        }
        let operator = given("operator");
        let operator = match (operator.as_str(), values.is_empty()) {
            (Some("In"), false) => Operator::In(values.into()),
            (Some("NotIn"), false) => Operator::NotIn(values.into()),
            (Some("Exists"), true) => Operator::Exists,
            (Some("DoesNotExist"), true) => Operator::DoesNotExist,
            (Some("In" | "NotIn"), true) => {
                return Err(self.unclear(&values_place, given("values"), "must have a value for In and NotIn"));
            }
            (Some("Exists" | "DoesNotExist"), false) => {
                let rule = "must be absent for Exists and DoesNotExist";
                return Err(self.unclear(&values_place, given("values"), rule));
            }
            _ => {
                let rule = "must be In, NotIn, Exists or DoesNotExist";
                return Err(self.unclear(&place.field("operator"), operator, rule));
            }
        };
        Ok(Requirement { key, operator })
    }

    /// The key of a label.
    fn key(&mut self, place: &Place<'_>, key: &str) -> Result<Box<str>, Unclear> {
        if is_label_key(key) {
            return Ok(key.into());
        }
        let rule =
            "is no key of a label: up to 63 letters, digits, '-', '_' and '.', behind a domain and '/' if there is one";
        Err(self.unclear(place, &Value::String(key.into()), rule))
    }

    /// The value of a label. One that no label can have selects nothing, and is none of anybody's.
    fn value(&mut self, place: &Place<'_>, value: &Value) -> Result<Box<str>, Unclear> {
        match value {
            Value::String(text) => Ok(text.as_str().into()),
            other => Err(self.unclear(place, other, "must be a text: write it in quotation marks")),
        }
    }
}

/// A prefix as the API server takes it: zeros before a number of IPv4 mean nothing, bits behind the length are cleared, and one
/// of IPv4 in the form of IPv6 is of IPv4.
pub fn net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.bytes().all(|b| b.is_ascii_digit()).then(|| length.parse().ok())??;
    match ip(address)? {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) if length >= 96 => Ipv4Net::new(v4, length - 96).ok().map(IpNet::from),
            _ => IpNet::new(v6.into(), length).ok(),
        },
        v4 => IpNet::new(v4, length).ok(),
    }
    .map(|net| net.trunc())
}

fn ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let plain = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => String::from("0"),
        digits => digits.into(),
    };
    text.split('.').map(plain).collect::<Vec<_>>().join(".").parse().ok()
}

/// `IPPROTO_*` of a protocol's name, TCP if none is given.
fn protocol(name: &Value) -> Option<u8> {
    match name {
        Value::Null => Some(TCP),
        Value::String(name) => BTreeMap::from([("TCP", TCP), ("UDP", UDP), ("SCTP", SCTP)]).get(name.as_str()).copied(),
        _ => None,
    }
}

/// Whether a namespace can have this name: one label of RFC 1123, of at most [`NAMESPACE_MAX`] bytes.
pub fn is_namespace(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.as_bytes().first().zip(text.as_bytes().last());
    text.len() <= NAMESPACE_MAX
        && ends.is_some_and(|(first, last)| plain(*first) && plain(*last))
        && text.bytes().all(|b| plain(b) || b == b'-')
}

/// Whether a pod or a policy can have this name: a subdomain of RFC 1123, of at most [`NAME_MAX`] bytes.
pub fn is_subdomain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |part: &str| {
        let ends = part.as_bytes().first().zip(part.as_bytes().last());
        ends.is_some_and(|(first, last)| plain(*first) && plain(*last)) && part.bytes().all(|b| plain(b) || b == b'-')
    };
    text.len() <= NAME_MAX && text.split('.').all(part)
}

/// Whether a label can have this key.
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && is_label_name(name)
}

/// Whether a label can have this value.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_label_name(value)
}

fn is_label_name(text: &str) -> bool {
    let ends = text.as_bytes().first().zip(text.as_bytes().last());
    text.len() <= LABEL_MAX
        && ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_port_name(text: &str) -> bool {
    text.len() <= PORT_NAME_MAX
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--")
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use super::*;
    use crate::text;

    fn policy(spec: &str) -> Read {
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: ns, name: web}}\nspec: {spec}\n"
        );
        read(&text::document(&text).expect("yaml").expect("content")).expect("a policy")
    }

    fn good(spec: &str) -> Policy {
        let read = policy(spec);
        assert_eq!(read.faults, [], "{spec}");
        read.policy
    }

    #[test]
    fn a_policy_of_a_file_isolates_by_the_rules_it_has_unless_it_names_its_types() {
        for (spec, ingress, egress) in [
            ("{}", true, false),
            ("null", true, false),
            ("{policyTypes: []}", true, false),
            ("{policyTypes: null, egress: []}", true, false),
            ("{egress: null}", true, false),
            ("{egress: [{}]}", true, true),
            ("{ingress: [{}]}", true, false),
            ("{policyTypes: [Egress]}", false, true),
            ("{policyTypes: [Ingress], egress: [{}]}", true, false),
            ("{policyTypes: [Egress, Ingress]}", true, true),
        ] {
            let policy = good(spec);
            assert_eq!((policy.ingress.is_some(), policy.egress.is_some()), (ingress, egress), "{spec}");
        }
    }

    #[test]
    fn nothing_null_and_empty_mean_what_kubernetes_says() {
        let everything = Some(vec![Rule::default()]);
        for rule in ["{}", "{from: []}", "{from: null, ports: null}", "{ports: []}", "{future: 1}"] {
            assert_eq!(good(&format!("{{ingress: [{rule}]}}")).ingress, everything, "{rule}");
        }
        let peer =
            |text: &str| good(&format!("{{ingress: [{{from: [{text}]}}]}}")).ingress.unwrap()[0].peers[0].clone();
        let all = || Namespaces::Selected(Selector::default());
        let any = Selector::default;
        assert_eq!(peer("{podSelector: {}}"), Peer::Pods { namespaces: Namespaces::Same, pods: any() });
        assert_eq!(peer("{podSelector: {}, namespaceSelector: null}"), peer("{podSelector: {}, ipBlock: null}"));
        assert_eq!(peer("{namespaceSelector: {}}"), Peer::Pods { namespaces: all(), pods: any() });
        assert_eq!(peer("{namespaceSelector: {}, podSelector: {matchLabels: null}}"), peer("{namespaceSelector: {}}"));
        let labelled =
            "{podSelector: {matchLabels: {app: web}, matchExpressions: [{key: app, operator: In, values: [web]}]}}";
        let web: Selector = [Requirement::equals("app", "web")].into_iter().collect();
        assert_eq!(peer(labelled), Peer::Pods { namespaces: Namespaces::Same, pods: web });
    }

    #[test]
    fn ports_are_of_tcp_unless_it_is_said_and_may_be_all_a_range_or_a_name() {
        for (text, protocol, ports) in [
            ("{}", TCP, Ports::All),
            ("{protocol: UDP}", UDP, Ports::All),
            ("{port: 80}", TCP, Ports::Numbers(80, 80)),
            ("{port: 80, endPort: 80, protocol: SCTP}", SCTP, Ports::Numbers(80, 80)),
            ("{port: 1, endPort: 65535}", TCP, Ports::Numbers(1, 65535)),
            ("{port: http-2}", TCP, Ports::Named("http-2".into())),
        ] {
            let rules = good(&format!("{{egress: [{{ports: [{text}]}}]}}")).egress.expect("egress");
            assert_eq!(rules[0].ports, [Port { protocol, ports }], "{text}");
        }
    }

    #[test]
    fn blocks_are_read_as_the_api_server_reads_them() {
        for (text, net) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("010.001.0.0/016", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/64", "::/64"),
        ] {
            let rules = good(&format!("{{ingress: [{{from: [{{ipBlock: {{cidr: '{text}'}}}}]}}]}}")).ingress;
            let cidr = net.parse().expect("a net");
            assert_eq!(rules.unwrap()[0].peers, [Peer::Block { cidr, except: vec![] }], "{text}");
        }
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "1.2.3.4.5/8",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "x/8",
            "::/129",
            "..0.0/8",
        ] {
            assert_eq!(net(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_understood_allows_nothing_and_says_where_and_why() {
        let rule = |rule: &str| format!("{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{}}, {rule}]}}");
        let from = |peer: &str| rule(&format!("{{from: [{peer}]}}"));
        let port = |port: &str| rule(&format!("{{ports: [{port}]}}"));
        for (spec, says) in [
            (from("{}"), "spec.ingress[1].from[0]: the object must have podSelector, namespaceSelector or ipBlock"),
            (from("{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}"), "must have ipBlock alone"),
            (from("{ipBlock: {}}"), "spec.ingress[1].from[0].ipBlock.cidr: null is no prefix such as"),
            (from("{ipBlock: {cidr: nonsense}}"), "ipBlock.cidr: \"nonsense\" is no prefix such as 10.0.0.0/24"),
            (
                from("{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}"),
                "except[0]: \"11.0.0.0/9\" must be a part of cidr",
            ),
            (from("{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}"), "must be a part of cidr"),
            (from("{ipBlock: {cidr: 10.0.0.0/8, except: ['::/64']}}"), "must be a part of cidr"),
            (
                from("{podSelector: {matchExpressions: [{key: a, operator: Like, values: [b]}]}}"),
                "from[0].podSelector.matchExpressions[0].operator: \"Like\" must be In, NotIn, Exists or DoesNotExist",
            ),
            (from("{podSelector: {matchExpressions: [{key: a, operator: In}]}}"), "values: null must have a value"),
            (
                from("{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}"),
                "values: the list must be absent",
            ),
            (from("{podSelector: {matchExpressions: [{operator: Exists}]}}"), "key: \"\" is no key of a label"),
            (from("{podSelector: {matchLabels: {'a b': x}}}"), "\"a b\" is no key of a label"),
            (
                from("{podSelector: {matchLabels: {a: 1}}}"),
                "matchLabels.a: 1 must be a text: write it in quotation marks",
            ),
            (from("{podSelector: [a]}"), "podSelector: the list must be an object"),
            (port("{port: 0}"), "ports[0].port: 0 must be from 1 to 65535"),
            (port("{port: 65536}"), "ports[0].port: 65536 must be from 1 to 65535"),
            (port("{port: '80'}"), "port: \"80\" is neither a number nor a port's name"),
            (port("{port: this-name-is-too-long}"), "is neither a number nor a port's name"),
            (port("{port: 80, endPort: 79}"), "endPort: 79 must be from port to 65535"),
            (port("{port: http, endPort: 90}"), "endPort: 90 needs the number of the first port"),
            (port("{endPort: 90}"), "endPort: 90 needs the number of the first port"),
            (port("{protocol: ICMP}"), "protocol: \"ICMP\" must be TCP, UDP or SCTP"),
            (rule("{from: {podSelector: {}}}"), "spec.ingress[1].from: the object must be a list"),
            (rule("7"), "spec.ingress[1]: 7 must be an object"),
        ] {
            let read = policy(&spec);
            assert_eq!(read.policy.ingress, Some(vec![]), "{spec}");
            assert_eq!(read.policy.subjects.to_string(), "app=web", "{spec}");
            assert_eq!(read.policy.egress, None, "{spec}");
            assert!(read.faults.len() == 1 && read.faults[0].to_string().contains(says), "{spec}: {:?}", read.faults);
        }
    }

    #[test]
    fn one_direction_that_is_not_understood_leaves_the_other_as_it_is() {
        let read = policy("{ingress: [{from: 7}], egress: [{}]}");
        assert_eq!((read.policy.ingress, read.policy.egress), (Some(vec![]), Some(vec![Rule::default()])));
    }

    #[test]
    fn where_its_pods_are_not_understood_a_policy_closes_its_namespace() {
        let read = policy("{podSelector: {matchLabels: 7}, ingress: [{}]}");
        assert_eq!(read.policy, Policy { subjects: Selector::default(), ingress: Some(vec![]), egress: None });
        assert_eq!(read.faults[0].to_string(), "spec.podSelector.matchLabels: 7 must be keys with their values");
        let both = Policy { subjects: Selector::default(), ingress: Some(vec![]), egress: Some(vec![]) };
        assert_eq!(policy("7").policy, both);
        assert_eq!(policy("{policyTypes: [Ingress, Sideways]}").policy, both);
        assert_eq!(policy("{policyTypes: Ingress}").policy, both);
    }

    #[test]
    fn an_object_that_cannot_be_known_by_a_name_is_refused() {
        let object = |text: &str| read(&text::document(text).expect("yaml").expect("content"));
        let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
        for (text, says) in [
            ("kind: NetworkPolicy".into(), "apiVersion: null must be networking.k8s.io/v1"),
            ("apiVersion: networking.k8s.io/v1\nkind: Pod".into(), "kind: \"Pod\" must be NetworkPolicy"),
            (format!("{head}metadata: {{}}"), "metadata.name: null is no name of an object"),
            (format!("{head}metadata: {{name: a_b}}"), "metadata.name: \"a_b\" is no name of an object"),
            (
                format!("{head}metadata: {{name: a, namespace: A}}"),
                "metadata.namespace: \"A\" is no name of a namespace",
            ),
            (format!("{head}metadata: {{name: {}}}", "a".repeat(254)), "is no name of an object"),
        ] {
            let fault = object(&text).expect_err("must be refused").to_string();
            assert!(fault.contains(says), "{text}: {fault}");
        }
        let read = object(&format!("{head}metadata: {{name: a}}")).expect("a policy");
        assert_eq!((read.namespace.as_str(), read.name.as_str()), ("default", "a"));
    }

    #[test]
    fn many_faults_are_told_up_to_a_bound_and_products_have_one() {
        let faults = policy(&format!("{{policyTypes: [{}]}}", vec!["x"; 100].join(","))).faults;
        assert_eq!(faults.len(), FAULTS_MAX);
        let (peers, ports) = (vec!["{podSelector: {}}"; 200].join(","), vec!["{port: http}"; 100].join(","));
        let read = policy(&format!("{{egress: [{{to: [{peers}], ports: [{ports}]}}]}}"));
        assert_eq!(read.policy.egress, Some(vec![]));
        assert!(read.faults[0].to_string().contains("16384"), "{:?}", read.faults);
    }

    #[test]
    fn whatever_makes_a_policy_large_closes_its_direction_with_the_name_of_the_field() {
        let many = |one: &dyn Fn(usize) -> String, n: usize| (0..n).map(one).collect::<Vec<_>>().join(",");
        let values = many(&|n| format!("v{n}"), 40_000);
        let keys = many(&|n| format!("k{n}: a"), 10_000);
        let peer = |n: usize| format!("{{ipBlock: {{cidr: 10.{}.{}.0/24}}}}", n / 256, n % 256);
        let labelled = |n: usize| format!("{{podSelector: {{matchLabels: {{app: web-{n}}}}}}}");
        let excepts = many(&|n| format!("10.{}.{}.0/24", n / 256, n % 256), 60_000);
        for (rule, field) in [
            (format!("{{from: [{}]}}", many(&labelled, 12_000)), "from: the list"),
            (format!("{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [{excepts}]}}}}]}}"), "from: the list"),
            (
                format!(
                    "{{from: [{{podSelector: {{matchExpressions: [{{key: a, operator: In, values: [{values}]}}]}}}}]}}"
                ),
                "from: the list",
            ),
            (format!("{{from: [{{namespaceSelector: {{matchLabels: {{{keys}}}}}}}]}}"), "from: the list"),
            (
                format!("{{from: [{{podSelector: {{matchLabels: {{a: {}}}}}}}]}}", "x".repeat(RULES_SIZE_MAX)),
                "from: the list",
            ),
            (format!("{{ports: [{}]}}", many(&|n| format!("{{port: {}}}", n + 1), 60_000)), "ports: the list"),
        ] {
            let read = policy(&format!(
                "{{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{}}, {rule}], egress: [{{}}]}}"
            ));
            let text: String = rule.chars().take(40).collect();
            let rules = [&read.policy.ingress, &read.policy.egress].map(|rules| rules.as_ref().map(Vec::len));
            assert_eq!(rules, [Some(0), Some(1)], "{text}");
            let [fault] = &*read.faults else { panic!("{text}: {:?}", read.faults) };
            let said = fault.to_string();
            assert!(said.contains(&format!("spec.ingress[1].{field} comes")) && said.contains("1 MiB"), "{said}");
        }
        // Many rules that are not large one by one.
        let read = policy(&format!("{{ingress: [{}]}}", vec!["{}"; 60_000].join(",")));
        assert_eq!(read.policy.ingress.map(|rules| rules.len()), Some(0));
        // Lists of blocks as there are, of countries and of providers.
        let blocks = format!("{{ingress: [{{from: [{}]}}]}}", many(&peer, 5000));
        assert_eq!(good(&blocks).ingress.map(|rules| rules[0].peers.len()), Some(5000));

        let read = policy(&format!("{{podSelector: {{matchLabels: {{{keys}}}}}, ingress: [{{}}]}}"));
        assert_eq!(read.policy, Policy { subjects: Selector::default(), ingress: Some(vec![]), egress: None });
        assert!(read.faults[0].to_string().starts_with("spec.podSelector: the object comes to more than 16 KiB"));
    }

    #[test]
    fn named_ports_are_those_of_the_containers_that_run() {
        let pod = serde_json::json!({"spec": {
            "containers": [{"ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "http", "containerPort": 8080}]}, {}],
            "initContainers": [
                {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 15}]},
                {"ports": [{"name": "once", "containerPort": 16}]}]}});
        let shown: Vec<(String, u8, u16)> =
            named_ports(&pod).into_iter().map(|port| (port.name.into(), port.protocol, port.port)).collect();
        assert_eq!(shown, [("dns".into(), UDP, 53), ("http".into(), TCP, 8080), ("side".into(), TCP, 15)]);
        assert_eq!(named_ports(&Value::Null), []);
    }
}
