//! Where cyclonus reads policies otherwise than the documentation does, one row each, decided by the documentation's words. Each
//! row is asked of all three, so that a row which is no longer true is found out.

use serde_json::{Value, json};

use super::cluster::{End, Probe, Protocol, Who, key, labels};
use super::compare::assert_packets;
use super::cyclonus::Cyclonus;
use super::evaluator::allows;
use super::policed::Policed;
use super::support::host::Host;

/// A pod's right to talk to x/a at TCP port 80, or from it: what they say of it, and what decides.
struct Reading {
    what: &'static str,
    /// The words that decide, of the documentation of labels, of network policies, or of the API's fields.
    words: &'static str,
    namespace: &'static str,
    spec: fn() -> Value,
    /// The peer; none for the node itself.
    from: Option<(&'static str, &'static str)>,
    to: (&'static str, &'static str),
    allowed: bool,
}

/// What x/a lets in, from whoever of its namespace this selects.
fn lets_in(selector: &Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"podSelector": selector}]}]})
}

const READINGS: &[Reading] = &[
    Reading {
        what: "NotIn, where there is no such label",
        words: "selects all resources with key equal to tier and values distinct from frontend and backend, and all resources with \
                no labels with the tier key",
        namespace: "x",
        spec: || lets_in(&json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}]})),
        from: Some(("x", "b")),
        to: ("x", "a"),
        allowed: true,
    },
    Reading {
        what: "matchLabels with an empty value, where there is no such label",
        words: "equivalent to an element of matchExpressions, whose key field is \"key\", the operator is \"In\", and the values \
                array contains only \"value\"",
        namespace: "x",
        spec: || lets_in(&json!({"matchLabels": {"tier": ""}})),
        from: Some(("x", "b")),
        to: ("x", "a"),
        allowed: false,
    },
    Reading {
        what: "a named port in an egress rule with an ipBlock: a choice, as the words leave it open",
        words: "a numerical or named port on a pod",
        namespace: "x",
        spec: || {
            let all = ["0.0.0.0/0", "::/0"].map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
            let rule = json!({"to": all, "ports": [{"port": "serve-80-tcp"}]});
            json!({"podSelector": {"matchLabels": {"pod": "b"}}, "policyTypes": ["Egress"], "egress": [rule]})
        },
        from: Some(("x", "b")),
        to: ("x", "a"),
        allowed: false,
    },
    Reading {
        what: "what the node itself sends to its pods",
        words: "traffic to and from the node where a Pod is running is always allowed, regardless of the IP address of the Pod or \
                the node",
        namespace: "x",
        spec: || json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        from: None,
        to: ("x", "a"),
        allowed: true,
    },
    Reading {
        what: "a pod and itself",
        words: "a Pod cannot block access to itself",
        namespace: "x",
        spec: || json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        from: Some(("x", "a")),
        to: ("x", "a"),
        allowed: true,
    },
];

#[test]
fn where_cyclonus_reads_otherwise_packets_follow_the_documentation() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let mut cyclonus = Cyclonus::start();
    let first = policed.cluster().clone();
    for Reading { what, words, namespace, spec, from, to, allowed } in READINGS {
        *policed.cluster() = first.clone();
        policed.cluster().add_policy(namespace, "read", spec());
        policed.enforce();
        let ends = policed.neighbours.ends();
        let of = |who: &Who| ends.iter().filter(|end| end.who == *who).cloned().collect::<Vec<End>>();
        let pod = |(namespace, name): &(&str, &str)| Who::Pod(key(namespace, name));
        let (from, to) = (of(&from.as_ref().map_or(Who::Node, pod)), of(&pod(to)));
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
        let pairs = pairs.filter(|(from, to)| from.address.is_ipv6() == to.address.is_ipv6());
        let probe = |(from, to)| Probe { from, to, protocol: Protocol::Tcp, port: 80, through: None };
        let probes: Vec<Probe> = pairs.map(probe).collect();
        assert_eq!(probes.len(), 2, "{what}");
        for probe in &probes {
            assert_eq!(allows(&policed.neighbours.cluster, probe), *allowed, "{what}: {words}");
        }
        let said = cyclonus.allows(&policed.neighbours.cluster, &probes);
        assert_eq!(said, [!allowed; 2], "{what}: cyclonus has changed its mind, and the row can go");
        assert_packets(what, &mut policed.neighbours, &probes);
    }
}

#[test]
fn an_expression_selects_by_the_words_of_the_documentation() {
    let with = |pairs| labels(pairs);
    let expression = |operator: &str, values: &[&str]| {
        let mut one = json!({"key": "tier", "operator": operator});
        if !values.is_empty() {
            one["values"] = json!(values);
        }
        json!({"matchExpressions": [one]})
    };
    for (selector, front, empty, absent) in [
        (expression("In", &["front", "back"]), true, false, false),
        (expression("In", &["", "back"]), false, true, false),
        (expression("NotIn", &["front"]), false, true, true),
        (expression("NotIn", &[""]), true, false, true),
        (expression("Exists", &[]), true, true, false),
        (expression("DoesNotExist", &[]), false, false, true),
        (json!({}), true, true, true),
        (json!({"matchLabels": {"tier": "front"}}), true, false, false),
        (json!({"matchLabels": {"tier": ""}}), false, true, false),
        (json!({"matchLabels": {"tier": "front", "app": "shop"}}), false, false, false),
    ] {
        let selects = |labels| super::evaluator::selects(&selector, &labels);
        let all = [with(&[("tier", "front")]), with(&[("tier", "")]), with(&[("app", "shop")])].map(selects);
        assert_eq!(all, [front, empty, absent], "{selector}");
    }
}
