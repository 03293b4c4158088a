//! What the parts of the policy's table are called: for who compiles it, and for who explains it.
//!
//! Names of sets, of lists of ports and of groups are hashes of what they mean, so equal content has equal names and a small change
//! of the world is a small change of the table. It must not read the world.

use alloc::boxed::Box;
use alloc::string::String;

use ipnet::IpNet;

use crate::addr::{Family, IfName};
use crate::policy::digest::Content;
use crate::policy::select::{Operator, Selector};
use crate::policy::{Direction, Namespaces, Port, Ports};

/// The set of (link, link) of a pod and itself.
pub const SELF: &str = "self";
/// The chain that lets connections by that were allowed since the last revocation.
pub const EPOCH: &str = "epoch";
/// The chain that drops.
pub const QUARANTINE: &str = "quarantine";
/// The base chain that judges who begins a connection.
pub const EGRESS: &str = "egress";
/// The base chain that judges who answers.
pub const INGRESS: &str = "ingress";
/// The base chain that remembers what both let by.
pub const SEAL: &str = "seal";
/// The beginning of the names of the sets of pods' addresses.
pub const PODS: &str = "pods/";
/// The beginning of the names of the sets of named ports.
pub const NAMED: &str = "named/";
/// The beginning of the names of the chains of policies.
pub const POLICY: &str = "policy/";
/// The beginning of the names of the sets of blocks.
pub const BLOCK: &str = "block/";

/// Longest part of a chain's name that policies and links make up, in bytes.
const FREE_MAX: usize = 200;

/// The map, from link to what becomes of its packets, of a direction. Also the end of the names of its chains.
pub fn map(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "out",
        Direction::Ingress => "in",
    }
}

/// The chain of a link.
pub fn link(link: &IfName, direction: Direction) -> String {
    format!("{}/{}", fitting(link.as_str()), map(direction))
}

/// The chain of a policy.
pub fn policy(namespace: &str, name: &str, direction: Direction) -> String {
    format!("{POLICY}{}/{}", fitting(&format!("{namespace}/{name}")), map(direction))
}

/// The chain of a set of policies, by their namespace and names in order.
pub fn group<'a>(namespace: &str, names: impl Iterator<Item = &'a str>, direction: Direction) -> String {
    let mut content = Content::default();
    content.part(namespace.as_bytes());
    names.for_each(|name| _ = content.part(name.as_bytes()));
    format!("group/{}/{}", content.name(), map(direction))
}

/// The chain of a list of ports, which is sorted.
pub fn ports(ports: &[Port]) -> String {
    let mut content = Content::default();
    for Port { protocol, ports } in ports {
        content.part(&[*protocol]);
        match ports {
            Ports::All => content.part(b"all"),
            Ports::Numbers(first, last) => content.part(&first.to_be_bytes()).part(&last.to_be_bytes()),
            Ports::Named(name) => content.part(b"named").part(name.as_bytes()),
        };
    }
    format!("ports/{}", content.name())
}

/// The set of the addresses of pods, for a policy of the namespace `own`, without its family.
pub fn pods(own: &str, namespaces: &Namespaces, pods: &Selector) -> String {
    let mut content = Content::default();
    of_pods(&mut content, own, namespaces, pods);
    format!("{PODS}{}", content.name())
}

/// The set of the ports of this name that peers have, without its family.
pub fn named(own: &str, namespaces: &Namespaces, pods: &Selector, name: &str, protocol: u8) -> String {
    let mut content = Content::default();
    content.part(b"peers").part(name.as_bytes()).part(&[protocol]);
    of_pods(&mut content, own, namespaces, pods);
    format!("{NAMED}{}", content.name())
}

/// The set of the ports of this name that pods of this node in a namespace have, without its family.
pub fn local(namespace: &str, name: &str, protocol: u8) -> String {
    let mut content = Content::default();
    content.part(b"local").part(name.as_bytes()).part(&[protocol]).part(namespace.as_bytes());
    format!("{NAMED}{}", content.name())
}

/// The set of a block, without its family.
pub fn block(cidr: &IpNet, except: &[IpNet]) -> String {
    let mut content = Content::default();
    content.part(format!("{cidr}").as_bytes());
    let except: alloc::collections::BTreeSet<&IpNet> = except.iter().collect();
    except.iter().for_each(|net| _ = content.part(format!("{net}").as_bytes()));
    format!("{BLOCK}{}", content.name())
}

/// The set of one family.
pub fn of_family(set: &str, family: Family) -> String {
    let number = match family {
        Family::V4 => '4',
        Family::V6 => '6',
    };
    format!("{set}/{number}")
}

fn of_pods(content: &mut Content, own: &str, namespaces: &Namespaces, pods: &Selector) {
    match namespaces {
        Namespaces::Same => {
            content.part(b"same").part(own.as_bytes());
        }
        Namespaces::Selected(selector) => {
            content.part(b"selected");
            of_selector(content, selector);
        }
    }
    content.part(b"pods");
    of_selector(content, pods);
}

fn of_selector(content: &mut Content, selector: &Selector) {
    for requirement in selector.requirements() {
        content.part(b"key").part(requirement.key.as_bytes());
        let none: &[Box<str>] = &[];
        let (operator, values) = match &requirement.operator {
            Operator::In(values) => ("in", &**values),
            Operator::NotIn(values) => ("notin", &**values),
            Operator::Exists => ("exists", none),
            Operator::DoesNotExist => ("doesnotexist", none),
        };
        content.part(operator.as_bytes());
        values.iter().for_each(|value| _ = content.part(b"value").part(value.as_bytes()));
    }
}

/// The text where it can be part of a chain's name; else its beginning, and a hash of the whole.
fn fitting(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    if text.len() <= FREE_MAX && text.chars().all(fits) && text.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return text.into();
    }
    let mut content = Content::default();
    let hash = content.part(text.as_bytes()).name();
    let start: String = text.chars().map(|c| if fits(c) { c } else { '_' }).take(FREE_MAX - hash.len() - 2).collect();
    format!("x{start}_{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::select::Requirement;
    use crate::ruleset::NAME_MAX;

    #[test]
    fn policies_are_called_what_they_are_called_as_long_as_it_fits() {
        assert_eq!(policy("default", "web-1.x", Direction::Ingress), "policy/default/web-1.x/in");
        let long = "n".repeat(253);
        let cut = policy("default", &long, Direction::Egress);
        assert!(cut.starts_with("policy/xdefault/nnn") && cut.ends_with("/out") && cut.len() <= NAME_MAX, "{cut}");
        assert_ne!(cut, policy("default", &format!("{}m", "n".repeat(252)), Direction::Egress));
        // A namespace may begin with a digit, which is no trouble in the middle of a name.
        assert!(policy("7", "web", Direction::Egress).starts_with("policy/"));
        let odd: IfName = "eth\"0".parse().expect("a name");
        let name = link(&odd, Direction::Egress);
        assert!(name.starts_with("xeth_0_") && name.ends_with("/out"), "{name}");
    }

    #[test]
    fn values_with_commas_are_no_two_values() {
        let selector = |values: &[&str]| {
            let values = values.iter().map(|value| Box::from(*value)).collect();
            Selector::from_iter([Requirement { key: "k".into(), operator: Operator::In(values) }])
        };
        let name = |values: &[&str]| pods("a", &Namespaces::Same, &selector(values));
        assert_ne!(name(&["a,b"]), name(&["a", "b"]));
        assert_eq!(name(&["b", "a"]), name(&["a", "b"]));
        assert_ne!(pods("a", &Namespaces::Same, &selector(&["x"])), pods("b", &Namespaces::Same, &selector(&["x"])));
    }
}
