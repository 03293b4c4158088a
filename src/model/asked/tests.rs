//! What is asked about pods of one node and others, and what the answer says.

use std::collections::BTreeSet;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::examples::lease;
use crate::policy::{Pod, Treatment, spec};

/// A node with the pods `shop/web`, of both families, and `shop/db`, of IPv4; `far/app` is on another node.
struct Node {
    world: World,
    subjects: Vec<Subject>,
    sources: Ruleset,
    node: BTreeSet<IpAddr>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

fn key(text: &str) -> PodKey {
    let (namespace, name) = text.split_once('/').expect("literal");
    PodKey { namespace: namespace.into(), name: name.into() }
}

impl Node {
    fn new() -> Node {
        let mut node = Node {
            world: World::default(),
            subjects: Vec::new(),
            sources: Ruleset::new(),
            node: [ip("192.0.2.1"), ip("2001:db8::1")].into(),
        };
        let mut leases = Vec::new();
        for (pod, link, addresses) in
            [("shop/web", "flockweb", &["10.0.0.1", "fd00::1"][..]), ("shop/db", "flockdb", &["10.0.0.2"])]
        {
            let addresses: Vec<IpAddr> = addresses.iter().copied().map(ip).collect();
            let link: IfName = link.parse().expect("literal");
            let mut lease = lease(&format!("{}/eth0", link.as_str()));
            (lease.ipv4, lease.ipv6) = (None, None);
            for address in &addresses {
                match address {
                    IpAddr::V4(ip) => lease.ipv4 = Some(*ip),
                    IpAddr::V6(ip) => lease.ipv6 = Some(*ip),
                }
            }
            lease.host_link = link.clone();
            leases.push(lease);
            node.pod(pod, &addresses);
            let treatment = Treatment::Enforce;
            node.subjects.push(Subject { link, pod: Some(key(pod)), addresses, treatment });
        }
        node.pod("far/app", &[ip("10.0.9.9"), ip("fd00:9::9")]);
        guard::check_sources(&mut node.sources, leases.iter());
        node
    }

    fn pod(&mut self, pod: &str, addresses: &[IpAddr]) {
        let key = key(pod);
        let labels = [("app", key.name.as_str())].into();
        self.world.pods.insert(key.clone(), Pod { labels, addresses: addresses.to_vec(), ports: [].into() }.into());
    }

    fn policy(&mut self, name: &str, spec: serde_json::Value) {
        let object = serde_json::json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": name}, "spec": spec});
        self.world.policies.insert(("shop".into(), name.into()), spec::read(&object).expect("a policy").policy.into());
    }

    fn facts(&self) -> Facts<'_> {
        let Node { world, subjects, sources, node } = self;
        Facts { world, subjects, sources, node, known_by: "here" }
    }

    fn ask(&self, from: &str, to: &str, port: &str) -> Answer {
        let asked = Asked::read(from, to, Some(port)).expect("a question");
        answer(&asked, &self.facts()).expect("an answer")
    }

    fn refusal(&self, from: &str, to: &str) -> String {
        let asked = Asked::read(from, to, None).expect("a question");
        answer(&asked, &self.facts()).expect_err("none can be given").to_string()
    }
}

fn only_web() -> serde_json::Value {
    serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]})
}

#[test]
fn the_words_of_a_question_are_names_addresses_and_ports() {
    let read = |from: &str, to: &str, port: Option<&str>| Asked::read(from, to, port).expect("a question");
    let asked = read("shop/web", "192.0.2.9", Some("tcp/80"));
    assert_eq!(asked.from, Party::Pod(key("shop/web"), None));
    assert_eq!((asked.to, asked.port), (Party::Address(ip("192.0.2.9")), Some((TCP, 80))));
    let asked = read("shop/web@10.0.0.1", "node", Some("ICMP"));
    assert_eq!(asked.from, Party::Pod(key("shop/web"), Some(ip("10.0.0.1"))));
    assert_eq!((asked.to, asked.port), (Party::Node, None));
    let asked = read("::ffff:10.0.0.1", "fd00::1", Some("SCTP/65535"));
    assert_eq!((asked.from, asked.port), (Party::Address(ip("10.0.0.1")), Some((SCTP, 65535))));
    for word in [
        "",
        "web",
        "shop/",
        "/web",
        "a/b/c",
        "shop/web@",
        "shop/web@x",
        "Shop/web",
        "10.0.0.0/8",
        "a b/c",
        "a-/b",
        "-a/b",
        "a.b/c",
        "a/b-",
        "a/b..c",
        "a/.b",
    ] {
        let refusal = Asked::read(word, "node", None).expect_err(word).to_string();
        assert!(refusal.starts_with(&format!("FROM {word:?}: must be NAMESPACE/POD")), "{refusal}");
        Asked::read("node", word, None).expect_err(word);
    }
    let long = "a".repeat(WORD_MAX);
    let refusal = Asked::read("node", &format!("a/{long}"), None).expect_err("too long").to_string();
    assert!(refusal.starts_with("TO ") && refusal.len() < 600, "{refusal}");
    for (namespace, name, fits) in [(63, 253, true), (64, 253, false), (63, 254, false)] {
        let word = format!("{}/{}", "a".repeat(namespace), "b".repeat(name));
        assert_eq!(Asked::read(&word, "node", None).is_ok(), fits, "{namespace} {name}");
    }
    for word in ["", "80", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/+80", "gre/1", "tcp/80/81", "icmp/1"] {
        let refusal = Asked::read("node", "node", Some(word)).expect_err(word).to_string();
        assert!(refusal.starts_with(&format!("PROTO/PORT {word:?}: must be TCP/PORT")), "{refusal}");
    }
}

#[test]
fn the_answer_names_both_ends_and_what_decides_between_them() {
    let mut node = Node::new();
    node.policy("db", only_web());
    let answer = node.ask("shop/web", "shop/db", "TCP/5432");
    assert!(answer.passes);
    let lines: Vec<&str> = answer.text.lines().collect();
    let head = "TCP/5432 from shop/web (10.0.0.1, link flockweb) to shop/db (10.0.0.2, link flockdb) passes";
    assert_eq!(lines[..2], [head, "egress: no policy selects shop/web, so everything passes"]);
    assert!(lines[2].starts_with("ingress of shop/db: the policy db allows it"), "{}", answer.text);
    let counted: Vec<&Counted> = answer.counters.iter().map(|counter| &counter.place).collect();
    let link: IfName = "flockweb".parse().expect("literal");
    assert_eq!(counted, [&Counted::Link(link), &Counted::Chain("flockdb/in".into())]);

    let dropped = node.ask("shop/web", "shop/db", "TCP/22");
    assert!(!dropped.passes && dropped.text.contains("but TCP/22 is none of its ports"), "{}", dropped.text);
    // Of each family that both have, and all have to pass.
    node.policy(
        "web",
        serde_json::json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}], "policyTypes": ["Egress"]}),
    );
    let both = node.ask("shop/web", "far/app", "TCP/80");
    let verdicts: Vec<&str> = both.text.lines().filter(|line| line.starts_with("TCP/80")).collect();
    assert!(!both.passes && verdicts.len() == 2, "{}", both.text);
    assert!(verdicts[0].ends_with("to far/app (10.0.9.9) passes"), "{}", both.text);
    assert!(verdicts[1].ends_with("to far/app (fd00:9::9) is dropped"), "{}", both.text);
    assert!(node.ask("shop/web", "far/app@10.0.9.9", "TCP/80").passes);
}

#[test]
fn a_source_that_is_not_the_pods_own_is_dropped_before_policies_are_asked() {
    let node = Node::new();
    let answer = node.ask("shop/db@10.0.0.77", "192.0.2.99", "UDP/53");
    assert!(!answer.passes);
    assert_eq!(
        answer.text,
        "UDP/53 from shop/db (10.0.0.77, link flockdb) to somebody who is no known pod (192.0.2.99) is dropped\n\
         source: shop/db may not send as 10.0.0.77, only as 10.0.0.2\n  \
         kernel: chain source, flockdb . 10.0.0.77 is not in set src4\n"
    );
    assert_eq!(answer.counters.len(), 1);
    let unchecked = Node { sources: Ruleset::new(), ..Node::new() }.ask("shop/db@10.0.0.77", "192.0.2.99", "UDP/53");
    assert!(unchecked.passes && unchecked.text.contains("source: not checked for this link\n"), "{}", unchecked.text);
    assert!(node.refusal("node", "shop/db@10.0.0.77").contains("the pod has 10.0.0.2"));
}

#[test]
fn the_node_outsiders_and_the_pod_itself_are_no_matter_of_policies() {
    let mut node = Node::new();
    node.policy("none", serde_json::json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    for (from, to, passes, said) in [
        ("node", "shop/db", true, "the node itself reaches its pods"),
        ("192.0.2.1", "shop/db", true, "the node itself reaches its pods"),
        ("shop/db", "node", true, "nothing for what is sent to the pod's own node"),
        ("shop/db", "2001:db8::1", false, "they have no family in common: 10.0.0.2 and 2001:db8::1"),
        ("shop/db", "shop/db", true, "a pod always reaches itself"),
        ("shop/web", "shop/db", false, "policy none does not allow it: it has no rule"),
        ("198.51.100.9", "shop/db", false, "from somebody who is no known pod (198.51.100.9) to shop/db"),
        ("198.51.100.9", "far/app", true, "this one has no part in it"),
    ] {
        let answer = node.ask(from, to, "ICMP");
        assert!(answer.passes == passes && answer.text.contains(said), "{from} {to}: {}", answer.text);
    }
    for (treatment, passes, said) in [
        (Treatment::Audit, true, "passes since the pod is audited"),
        (
            Treatment::Exempt,
            true,
            "ingress: no policy holds for this link (mode: none; a pod that is not known, with mode: audit or unknown: open; or no pod of Kubernetes)",
        ),
        (Treatment::Quarantine, false, "shop/db or its policies are not known yet"),
    ] {
        node.subjects.iter_mut().for_each(|subject| subject.treatment = treatment);
        let answer = node.ask("192.0.2.99", "shop/db", "TCP/80");
        assert!(answer.passes == passes && answer.text.contains(said), "{}", answer.text);
        assert_eq!(answer.counters.iter().any(|counter| counter.audit), treatment == Treatment::Audit);
    }
}

#[test]
fn of_a_pod_of_another_node_this_node_says_nothing_on_its_own_behalf() {
    let mut node = Node::new();
    node.policy("none", serde_json::json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    for own in ["node", "192.0.2.1"] {
        for other in ["far/app", "far/app@10.0.9.9", "10.0.9.9", "198.51.100.9"] {
            for (from, to) in [(own, other), (other, own)] {
                let text = node.ask(from, to, "TCP/80").text;
                let is_said = text.contains("ask on the nodes of the two") && !text.contains("policies: ");
                assert!(is_said, "{from} {to}: {text}");
            }
        }
    }
    let both = node.ask("node", "far/app", "TCP/80").text;
    assert_eq!(both.matches("ask on the nodes of the two").count(), 2, "of each family: {both}");
    // A node without an address of the family is named, since there is none to show.
    node.node.clear();
    let text = node.ask("far/app@10.0.9.9", "node", "TCP/80").text;
    assert!(text.contains("ingress: the node is behind no link") && !text.contains("0.0.0.0"), "{text}");
    // The node and itself.
    let text = node.ask("node", "node", "TCP/80").text;
    assert!(text.contains("policies: ") && !text.contains("ask on the nodes"), "{text}");
    // What is behind a link of this node is its own, a pod or not, known or not.
    node.subjects.iter_mut().for_each(|subject| subject.pod = None);
    for (from, to) in [("node", "10.0.0.2"), ("10.0.0.2", "node")] {
        assert!(node.ask(from, to, "TCP/80").text.contains("policies: "), "{from} {to}");
    }
}

#[test]
fn who_is_not_known_or_may_be_several_is_said() {
    let mut node = Node::new();
    assert_eq!(
        node.refusal("shop/nobody", "node"),
        "FROM \"shop/nobody\": no such pod is known here: ask with its address; a pod of the host's network is the node"
    );
    node.pod("far/new", &[]);
    assert!(node.refusal("node", "far/new").contains("the pod has no address here"));
    node.subjects.iter_mut().for_each(|subject| subject.addresses.push(ip("203.0.113.53")));
    let several = node.refusal("node", "203.0.113.53");
    assert!(
        several.contains("several pods have this address") && several.contains("shop/web@203.0.113.53"),
        "{several}"
    );
    assert!(node.ask("node", "shop/web@203.0.113.53", "TCP/53").passes);
    // Several containers that are no pod's, too.
    node.subjects.iter_mut().for_each(|subject| subject.pod = None);
    assert!(node.refusal("203.0.113.53", "node").contains("several pods have this address"));
    // Of other nodes' pods that share one, policies ask whether any is meant.
    node.pod("far/more", &[ip("10.0.9.9")]);
    let text = node.ask("10.0.0.1", "10.0.9.9", "TCP/53").text;
    assert!(text.contains("to far/app and others (10.0.9.9)"), "{text}");
    let text = node.ask("10.0.0.1", "fd00:9::9", "TCP/53").text;
    assert!(!text.contains("and others"), "{text}");
}

#[test]
fn an_answer_ends_somewhere() {
    let mut node = Node::new();
    let long = "x".repeat(200);
    let rules: Vec<_> = (0..100)
        .map(|_| {
            serde_json::json!({"from": [
        {"podSelector": {"matchLabels": {"app": "x"}}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]})
        })
        .collect();
    for number in 0..100 {
        let both = serde_json::json!({"podSelector": {}, "ingress": rules, "egress": []});
        node.policy(&format!("{long}{number}"), both);
    }
    let text = node.ask("shop/web", "shop/db", "TCP/80").text;
    assert!(text.len() > TEXT_MAX / 2 && text.len() <= TEXT_MAX + 100, "{}", text.len());
    assert!(text.ends_with("and more, which is left out\n") && text.lines().all(|line| line.len() < 600));
}
