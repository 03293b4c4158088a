//! Sets of policies that somebody thought of: each operator, each kind of peer and of port, alone and together, and what policies
//! leave out. What chance finds is in `random`.

use serde_json::{Value, json};

use super::cluster::{NamedPort, Protocol, labels};
use super::compare::{Asked, assert_agreement};
use super::cyclonus::Cyclonus;
use super::node::STRANGER;
use super::policed::Policed;
use super::support::host::Host;

/// The policies of a set, by their namespaces.
type Set = Vec<(&'static str, Value)>;

fn a_in(rules: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": rules})
}

fn a_out(rules: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": rules})
}

fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    if values.is_empty() {
        return json!({"matchExpressions": [{"key": key, "operator": operator}]});
    }
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

fn from_pods(selector: Value) -> Set {
    vec![("x", a_in(json!([{"from": [{"podSelector": selector, "namespaceSelector": {}}]}])))]
}

fn ports(ports: Value) -> Set {
    vec![("x", a_in(json!([{"ports": ports}]))), ("y", a_out(json!([{"ports": ports}])))]
}

fn blocks(blocks: Value) -> Set {
    vec![("x", a_in(json!([{"from": blocks}]))), ("y", a_out(json!([{"to": blocks}])))]
}

#[test]
fn everything_that_a_policy_can_say() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let mut cyclonus = Cyclonus::start();
    let first = policed.cluster().clone();
    let a = policed.neighbours.ips("z", "a");
    let ranges: Vec<Value> = ["10.25.214.0/24", "2001:db8:1:f001::/64"]
        .iter()
        .zip(&a)
        .map(|(cidr, ip)| json!({"ipBlock": {"cidr": cidr, "except": [format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 })]}}))
        .collect();
    let one: Vec<Value> = a
        .iter()
        .map(|ip| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 })}}))
        .collect();
    let strangers =
        STRANGER.map(|ip| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })}}));
    let everywhere = json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}, {"ipBlock": {"cidr": "::/0"}}]);
    let no_pods = json!([
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.25.214.0/24"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["2001:db8:1::/48"]}},
    ]);
    let sets: Vec<(&str, Set)> = vec![
        ("nothing is said of the directions", vec![("x", json!({"podSelector": {}}))]),
        ("both directions, no rules", vec![("x", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))]),
        ("an empty list of rules", vec![("x", json!({"podSelector": {}, "ingress": [], "egress": []}))]),
        ("a rule that says nothing", vec![("x", json!({"podSelector": {}, "ingress": [{}], "egress": [{}]}))]),
        (
            "rules for a direction that is not named",
            vec![("x", json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}))],
        ),
        ("empty lists of peers and ports", vec![("x", a_in(json!([{"from": [], "ports": []}])))]),
        (
            "null is as if nothing was said",
            vec![(
                "x",
                json!({"podSelector": {}, "policyTypes": null, "ingress": [{"from": null, "ports": null}], "egress": null}),
            )],
        ),
        ("the own namespace", vec![("x", a_in(json!([{"from": [{"podSelector": {}}]}])))]),
        ("all namespaces", vec![("x", a_in(json!([{"from": [{"namespaceSelector": {}}]}])))]),
        (
            "one namespace by its name",
            vec![(
                "x",
                a_in(json!([{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "z"}}}]}])),
            )],
        ),
        (
            "pods and namespaces in one peer",
            vec![(
                "x",
                a_in(
                    json!([{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}, "namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]),
                ),
            )],
        ),
        (
            "pods and namespaces in two peers",
            vec![(
                "x",
                a_in(
                    json!([{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}, {"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]),
                ),
            )],
        ),
        (
            "a selector of nobody",
            vec![("x", a_in(json!([{"from": [{"podSelector": {"matchLabels": {"pod": "nobody"}}}]}])))],
        ),
        ("In", from_pods(expression("pod", "In", &["a", "c"]))),
        ("NotIn", from_pods(expression("pod", "NotIn", &["a", "c"]))),
        ("Exists", from_pods(expression("tier", "Exists", &[]))),
        ("DoesNotExist", from_pods(expression("tier", "DoesNotExist", &[]))),
        (
            "labels and expressions together",
            from_pods(
                json!({"matchLabels": {"pod": "b"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
            ),
        ),
        ("the remote pod and nobody of this node", from_pods(json!({"matchLabels": {"far": "yes"}}))),
        ("a port without a protocol", ports(json!([{"port": 80}]))),
        ("a protocol without a port", ports(json!([{"protocol": "SCTP"}]))),
        (
            "a port of each protocol",
            ports(
                json!([{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 81}, {"protocol": "SCTP", "port": 80}]),
            ),
        ),
        ("a range of ports", ports(json!([{"protocol": "UDP", "port": 80, "endPort": 81}]))),
        (
            "ranges that touch and overlap",
            ports(json!([{"port": 1, "endPort": 80}, {"port": 80, "endPort": 80}, {"port": 82, "endPort": 65_535}])),
        ),
        ("a named port", ports(json!([{"port": "web"}]))),
        ("a named port of another protocol", ports(json!([{"protocol": "UDP", "port": "web"}]))),
        ("a named port of nobody", ports(json!([{"port": "nobody"}]))),
        (
            "a named port of some peers",
            vec![(
                "y",
                a_out(
                    json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}}], "ports": [{"port": "web"}]}]),
                ),
            )],
        ),
        ("named ports and numbers", ports(json!([{"port": "web"}, {"protocol": "SCTP", "port": 81}]))),
        ("everywhere", blocks(everywhere.clone())),
        ("everywhere but where pods are", blocks(no_pods)),
        ("all pods but one", blocks(Value::from(ranges.clone()))),
        ("one address", blocks(Value::from(one.clone()))),
        ("an exception that another peer takes back", blocks(Value::from([ranges, one].concat()))),
        ("a stranger", blocks(json!(strangers))),
        ("a block and pods", blocks(json!([strangers[0], strangers[1], {"podSelector": {}}]))),
        ("pods by labels that strangers' pods bear", from_pods(json!({"matchLabels": {"pod": "a"}}))),
        (
            "two policies for one pod",
            vec![
                (
                    "x",
                    a_in(
                        json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 80}]}]),
                    ),
                ),
                (
                    "x",
                    a_in(
                        json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}}], "ports": [{"port": 81}]}]),
                    ),
                ),
            ],
        ),
        ("one allows, another one allows nothing", vec![("x", a_in(json!([{}]))), ("x", json!({"podSelector": {}}))]),
        (
            "out of one and into another",
            vec![
                (
                    "x",
                    a_out(
                        json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": [{"port": 80}, {"port": 81}]}]),
                    ),
                ),
                (
                    "y",
                    a_in(
                        json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}}], "ports": [{"port": 81}, {"protocol": "UDP"}]}]),
                    ),
                ),
            ],
        ),
        (
            "everybody is closed, and one way is open",
            vec![
                ("x", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
                ("y", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
                ("z", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
                (
                    "x",
                    a_out(
                        json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "z"}}, "podSelector": {"matchLabels": {"pod": "a"}}}]}]),
                    ),
                ),
                ("z", a_in(json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}}]}]))),
            ],
        ),
    ];
    for (what, set) in sets {
        *policed.cluster() = first.clone();
        for ((_, name), pod) in &mut policed.cluster().pods {
            // The same name is of different ports here and there, and some pods have none of it.
            pod.ports.clear();
            match name.as_str() {
                "a" => pod.ports.extend([port("web", 80), port("other", 81)]),
                "b" | "remote" => pod.ports.push(port("web", 81)),
                _ => {}
            }
            if name != "c" {
                pod.labels.insert("tier".into(), "front".into());
            }
            if name == "remote" {
                pod.labels.extend(labels(&[("far", "yes")]));
            }
        }
        for (number, (namespace, spec)) in set.into_iter().enumerate() {
            policed.cluster().add_policy(namespace, &format!("policy-{number}"), spec);
        }
        policed.enforce();
        assert_agreement(what, &mut policed.neighbours, &mut cyclonus, Asked::All);
    }
}

fn port(name: &str, port: u16) -> NamedPort {
    NamedPort { name: name.into(), protocol: Protocol::Tcp, port }
}
