//! The answer for one connection in words, for people who want to know why it does not work, or why it does.
//!
//! Says of each side which policies were asked and what each said, by the paths of fields that a manifest has, with the names under
//! which `nft` shows it. It must not decide anything.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::IpAddr;

use crate::excerpt::{Excerpt, VALUE_MAX};
use crate::policy::select::Selector;
use crate::policy::verdict::{Allowance, Endpoint, Miss, Outcome, Question, Side, Stranger, Tried, Verdict};
use crate::policy::{Direction, names};
use crate::protocol::{ICMP, ICMP6, SCTP, TCP, UDP};

/// Most policies that are told of one by one, and most rules of each.
pub const TOLD_MAX: usize = 64;

/// Most names of sets, and most peers, that are told for one rule.
const NAMES_MAX: usize = 8;

/// What decides it, as lines of text, without the verdict. What `nft` shows stands behind `kernel:`.
pub fn sides(question: &Question, verdict: &Verdict) -> String {
    let mut text = String::new();
    let Question { from, to, .. } = question;
    match verdict {
        Verdict::Itself => line(&mut text, 0, "a pod always reaches itself, by way of a Service as well"),
        Verdict::Judged { egress, ingress } => {
            side(&mut text, question, from, egress, Direction::Egress);
            side(&mut text, question, to, ingress, Direction::Ingress);
        }
    }
    text
}

fn side(text: &mut String, question: &Question, end: &Endpoint, side: &Side, direction: Direction) {
    let chain = |end: &Endpoint| end.link.as_ref().map(|link| names::link(link, direction)).unwrap_or_default();
    let map = names::map(direction);
    match side {
        Side::Elsewhere => {
            // A node without an address of this family has none that could be shown.
            let none = end.address.is_unspecified();
            let who = if none { "the node".into() } else { end.address.to_string() };
            line(
                text,
                0,
                &format!("{direction}: {who} is behind no link of this node, which judges only its own pods"),
            );
        }
        Side::Exempt => line(
            text,
            0,
            &format!(
                "{direction}: no policy holds for this link (mode: none; a pod that is not known, with mode: audit or unknown: open; or \
                 no pod of Kubernetes)"
            ),
        ),
        Side::Quarantined(pod) => {
            let who = pod.as_ref().map_or("the pod".into(), ToString::to_string);
            line(text, 0, &format!("{direction}: nothing passes, since {who} or its policies are not known yet"));
            line(text, 2, &format!("kernel: map {map}, chain {}", names::QUARANTINE));
        }
        Side::Free(pod) => line(text, 0, &format!("{direction}: no policy selects {pod}, so everything passes")),
        Side::Isolated { pod, audit, chain: group, policies } => {
            let said = match (side.allowed(), audit) {
                (Some((tried, _)), _) => format!("the policy {} allows it", tried.policy),
                (None, true) => "no policy allows it, and it passes since the pod is audited".into(),
                (None, false) => "no policy allows it".into(),
            };
            let number = policies.len();
            let asked = if number == 1 { "1 policy was".into() } else { format!("{number} policies were") };
            line(text, 0, &format!("{direction} of {pod}: {said}; {asked} asked"));
            line(text, 2, &format!("kernel: map {map}, chains {}, {group}", chain(end)));
            for tried in policies.iter().take(TOLD_MAX) {
                policy(text, question, tried, direction);
            }
            more(text, 2, number, "policies");
        }
    }
}

fn policy(text: &mut String, question: &Question, tried: &Tried, direction: Direction) {
    let Tried { policy, chain, outcome } = tried;
    let (rules, peers) = match direction {
        Direction::Egress => ("spec.egress", "to"),
        Direction::Ingress => ("spec.ingress", "from"),
    };
    let other = match direction {
        Direction::Egress => question.to.address,
        Direction::Ingress => question.from.address,
    };
    match outcome {
        Outcome::Allows(Allowance { rule, peer, port, names }) => {
            let peer = peer.map_or("everybody".into(), |peer| format!("{peers}[{peer}]"));
            let port = port.map_or("all ports".into(), |port| format!("ports[{port}]"));
            line(text, 2, &format!("policy {policy} allows it: {rules}[{rule}], {peer}, {port}"));
            line(text, 4, &format!("kernel: {}", list([chain].into_iter().chain(names))));
        }
        Outcome::Denies(misses) => {
            let why = if misses.is_empty() { ": it has no rule" } else { "" };
            line(text, 2, &format!("policy {policy} does not allow it{why}"));
            line(text, 4, &format!("kernel: {chain}"));
            for (rule, miss) in misses.iter().enumerate().take(TOLD_MAX) {
                let port = what(question.protocol, question.port);
                let why = match miss {
                    Miss::Peer { sets, .. } if sets.is_empty() => format!("{other} is none of its peers"),
                    Miss::Peer { sets, .. } => {
                        format!("{other} is none of its peers (kernel: not in {})", list(sets.iter()))
                    }
                    Miss::Port(None) => format!("it is for everybody, but {port} is none of its ports"),
                    Miss::Port(Some(peer)) => format!("{other} is {peers}[{peer}], but {port} is none of its ports"),
                };
                line(text, 4, &format!("{rules}[{rule}]: {why}"));
                if let Miss::Peer { strangers, .. } = miss {
                    for (number, stranger) in strangers.iter().enumerate().take(NAMES_MAX) {
                        line(text, 6, &format!("{peers}[{number}]: {}", unlike(stranger, other)));
                    }
                    let untold = strangers.len().saturating_sub(NAMES_MAX);
                    if untold > 0 {
                        line(text, 6, &format!("and {untold} more peers"));
                    }
                }
            }
            more(text, 4, misses.len(), "rules");
        }
    }
}

/// Why somebody is not the peer that is meant.
fn unlike(stranger: &Stranger, other: IpAddr) -> String {
    let of = |selector: &Selector| Excerpt::line(&selector.to_string(), VALUE_MAX);
    match stranger {
        Stranger::Outside(cidr) => format!("{other} is not in {cidr}"),
        Stranger::Excepted(net) => format!("{other} is in {net}, which is excepted"),
        Stranger::NoPod => format!("pods are meant, and no known pod has {other}"),
        Stranger::Elsewhere(pod) => format!("pods of the policy's own namespace are meant, and it is {pod}"),
        Stranger::Namespace(selector, pod) => {
            format!("namespaceSelector {} does not match the namespace of {pod}", of(selector))
        }
        Stranger::Labels(selector, pod) => format!("podSelector {} does not match {pod}", of(selector)),
    }
}

/// A protocol and port as people write them.
pub fn what(protocol: u8, port: u16) -> String {
    match protocol {
        TCP => format!("TCP/{port}"),
        UDP => format!("UDP/{port}"),
        SCTP => format!("SCTP/{port}"),
        ICMP | ICMP6 => "ICMP".into(),
        other => format!("protocol {other}"),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let mut text = names.join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more"); // a String takes everything
    }
    text
}

fn more(text: &mut String, indent: usize, number: usize, what: &str) {
    if number > TOLD_MAX {
        line(text, indent, &format!("and {} more {what}", number - TOLD_MAX));
    }
}

fn line(text: &mut String, indent: usize, line: &str) {
    let _ = writeln!(text, "{:indent$}{line}", ""); // a String takes everything
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::policy::verdict::verdict;
    use crate::policy::{Pod, PodKey, Subject, Treatment, World, spec};

    /// Two pods of one node, and policies of theirs.
    fn explain(policies: &[(&str, serde_json::Value)], treatment: Treatment, to: u8, port: u16) -> Vec<String> {
        let mut world = World::default();
        for (name, spec) in policies {
            let object = serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "a", "name": name}, "spec": spec});
            world.policies.insert(("a".into(), (*name).into()), spec::read(&object).expect("a policy").policy.into());
        }
        let mut subjects = Vec::new();
        for (number, name) in [(1, "web"), (2, "db")] {
            let pod = PodKey { namespace: "a".into(), name: name.into() };
            let addresses = vec![core::net::IpAddr::from([10, 0, 0, number])];
            let known = Pod { labels: [("app", name)].into(), addresses: addresses.clone(), ports: [].into() };
            world.pods.insert(pod.clone(), known.into());
            let link = format!("flock0000000{number}").parse().expect("a name");
            subjects.push(Subject { link, pod: Some(pod), addresses, treatment });
        }
        let end = |number: u8| Endpoint {
            address: [10, 0, 0, number].into(),
            link: subjects.get(usize::from(number) - 1).map(|subject| subject.link.clone()),
        };
        let question = Question { from: end(1), to: end(to), protocol: TCP, port };
        let verdict = verdict(&world, &subjects, &question);
        let passes = if verdict.passes() { "passes\n" } else { "is dropped\n" };
        let text = String::from(passes) + &sides(&question, &verdict);
        // Hashes of names say nothing here.
        let short = |word: &str| {
            let hash = word.split('/').find(|part| part.len() == 24);
            hash.map_or(word.into(), |hash| word.replace(hash, "HASH"))
        };
        text.lines().map(|line| line.split(' ').map(short).collect::<Vec<_>>().join(" ")).collect()
    }

    fn policies() -> [(&'static str, serde_json::Value); 3] {
        let db = serde_json::json!({"matchLabels": {"app": "db"}});
        [
            ("closed", serde_json::json!({"podSelector": db, "policyTypes": ["Ingress"]})),
            (
                "by-block",
                serde_json::json!({"podSelector": db, "ingress": [
                {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"podSelector": {"matchLabels": {"app": "x"}}}]},
                {"ports": [{"port": 443}]}]}),
            ),
            (
                "open",
                serde_json::json!({"podSelector": db, "ingress": [
                {"from": [{"ipBlock": {"cidr": "::/0"}}]},
                {"from": [{"podSelector": {"matchLabels": {"app": "x"}}}, {"podSelector": {}}],
                 "ports": [{"port": 53, "protocol": "UDP"}, {"port": 80, "endPort": 90}]}]}),
            ),
        ]
    }

    #[test]
    fn a_connection_that_is_allowed_says_by_which_rule() {
        assert_eq!(
            explain(&policies(), Treatment::Enforce, 2, 80),
            [
                "passes",
                "egress: no policy selects a/web, so everything passes",
                "ingress of a/db: the policy open allows it; 3 policies were asked",
                "  kernel: map in, chains flock00000002/in, group/HASH/in",
                "  policy by-block does not allow it",
                "    kernel: policy/a/by-block/in",
                "    spec.ingress[0]: 10.0.0.1 is none of its peers (kernel: not in block/HASH/4, pods/HASH/4)",
                "      from[0]: 10.0.0.1 is not in 192.0.2.0/24",
                "      from[1]: podSelector app=x does not match a/web",
                "    spec.ingress[1]: it is for everybody, but TCP/80 is none of its ports",
                "  policy closed does not allow it: it has no rule",
                "    kernel: policy/a/closed/in",
                "  policy open allows it: spec.ingress[1], from[1], ports[1]",
                "    kernel: policy/a/open/in, pods/HASH/4, ports/HASH",
            ]
        );
    }

    #[test]
    fn a_connection_that_is_dropped_says_what_each_policy_lacks() {
        let text = explain(&policies(), Treatment::Enforce, 2, 22);
        assert_eq!(text[0], "is dropped");
        assert_eq!(text[2], "ingress of a/db: no policy allows it; 3 policies were asked");
        assert_eq!(
            text[text.len() - 5..],
            [
                "  policy open does not allow it",
                "    kernel: policy/a/open/in",
                "    spec.ingress[0]: 10.0.0.1 is none of its peers",
                "      from[0]: 10.0.0.1 is not in ::/0",
                "    spec.ingress[1]: 10.0.0.1 is from[1], but TCP/22 is none of its ports",
            ]
        );
        let audited = explain(&policies(), Treatment::Audit, 2, 22);
        assert_eq!(audited[0], "passes");
        assert!(audited[2].contains("no policy allows it, and it passes since the pod is audited"), "{audited:?}");
    }

    #[test]
    fn what_no_policy_decides_is_said_as_well() {
        let quarantined = explain(&[], Treatment::Quarantine, 3, 80);
        assert_eq!(
            quarantined,
            [
                "is dropped",
                "egress: nothing passes, since a/web or its policies are not known yet",
                "  kernel: map out, chain quarantine",
                "ingress: 10.0.0.3 is behind no link of this node, which judges only its own pods",
            ]
        );
        let itself = explain(&policies(), Treatment::Enforce, 1, 80);
        assert_eq!(itself[1], "a pod always reaches itself, by way of a Service as well");
        let exempt = explain(&policies(), Treatment::Exempt, 2, 22);
        assert_eq!(
            exempt[2],
            "ingress: no policy holds for this link (mode: none; a pod that is not known, with mode: audit or unknown: open; or no pod of Kubernetes)"
        );
    }

    #[test]
    fn hundreds_of_policies_and_rules_do_not_fill_the_screen() {
        let rules: Vec<_> = (0..200).map(|_| serde_json::json!({"ports": [{"port": 443}]})).collect();
        let spec = serde_json::json!({"ingress": rules});
        let names: Vec<String> = (0..100).map(|n| format!("p{n:03}")).collect();
        let policies: Vec<(&str, serde_json::Value)> = names.iter().map(|name| (name.as_str(), spec.clone())).collect();
        let text = explain(&policies, Treatment::Enforce, 2, 80);
        assert!(text.len() < TOLD_MAX * (TOLD_MAX + 4), "{}", text.len());
        assert!(text.contains(&"  and 36 more policies".into()) && text.contains(&"    and 136 more rules".into()));
    }
}
