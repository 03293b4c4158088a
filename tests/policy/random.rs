//! Random sets of policies, one after another on the same node, so that each is reached from another one. A seed makes the same
//! ones again.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::cluster::{Cluster, Labels, NamedPort, Protocol};
use super::compare::{Asked, assert_agreement};
use super::cyclonus::Cyclonus;
use super::node::{REMOTE, STRANGER};
use super::policed::Policed;
use super::support::dice::Dice;
use super::support::host::Host;
use super::support::share::{SEED, share};

const SETS: u64 = 100;

/// The seed that the environment names, or another one each time.
pub fn seed() -> u64 {
    let named = std::env::var(SEED).ok().filter(|text| !text.is_empty());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() % 1_000_000;
    named.map_or_else(now, |text| text.parse().unwrap_or_else(|_| panic!("{SEED}={text}: it is a whole number")))
}

#[test]
fn random_sets_of_policies() {
    let seed = seed();
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let mut cyclonus = Cyclonus::start();
    let addresses: Vec<String> = policed.neighbours.ends().iter().map(|end| end.address.to_string()).collect();
    for number in share("random policies", 0..SETS) {
        // What cyclonus is known to read otherwise is in every third set, on which it is not asked.
        let asked = if number % 3 == 2 { Asked::PacketsAlone } else { Asked::All };
        let mut chance = Chance { dice: Dice::new(seed, number), plain: asked == Asked::All, addresses: &addresses };
        chance.change(policed.cluster());
        policed.enforce();
        let when = format!("random set {number} of {SEED}={seed}");
        assert_agreement(&when, &mut policed.neighbours, &mut cyclonus, asked);
    }
    eprintln!("{SEED}={seed}; {} questions were asked twice", policed.neighbours.prober.repeated);
}

/// Decides what a cluster holds.
pub struct Chance<'a> {
    pub dice: Dice,
    /// Without what cyclonus reads otherwise.
    pub plain: bool,
    pub addresses: &'a [String],
}

const NAMES: [&str; 3] = ["web", "metrics", "call"];

impl Chance<'_> {
    pub fn change(&mut self, cluster: &mut Cluster) {
        for name in ["x", "y", "z", "far"] {
            let mut labels = Labels::from([("ns".to_owned(), name.to_owned())]);
            self.label(&mut labels, "team", &["red", "blue", ""]);
            cluster.set_namespace(name, labels);
        }
        let names: Vec<_> = cluster.pods.keys().cloned().collect();
        for key in names {
            let ports = self.ports_of_a_pod();
            let pod = cluster.pods.get_mut(&key).expect("just listed");
            pod.labels.retain(|key, _| key == "pod");
            self.label(&mut pod.labels, "tier", &["front", "back", ""]);
            self.label(&mut pod.labels, "app", &["shop", "mail"]);
            pod.ports = ports;
        }
        cluster.policies.clear();
        for number in 0..1 + self.dice.below(6) {
            let namespace = *self.dice.pick(&["x", "y", "z"]);
            let spec = self.spec();
            cluster.add_policy(namespace, &format!("policy-{number}"), spec);
        }
    }

    fn label(&mut self, labels: &mut Labels, key: &str, values: &[&str]) {
        if self.dice.chance(70) {
            labels.insert(key.into(), (*self.dice.pick(values)).into());
        }
    }

    /// No port has two names, but a name may be of several ports in several pods, and of another protocol there.
    fn ports_of_a_pod(&mut self) -> Vec<NamedPort> {
        let mut ports = Vec::new();
        let mut free: Vec<&str> = NAMES.to_vec();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for port in [80, 81] {
                if !free.is_empty() && self.dice.chance(40) {
                    let name = free.swap_remove(self.dice.below(free.len())).to_owned();
                    ports.push(NamedPort { name, protocol, port });
                }
            }
        }
        ports
    }

    fn spec(&mut self) -> Value {
        let mut spec = Map::new();
        spec.insert("podSelector".into(), self.selector(&["pod", "tier", "app"]));
        for (field, peers) in [("ingress", "from"), ("egress", "to")] {
            match self.dice.below(10) {
                0..4 => {}
                4 => drop(spec.insert(field.into(), json!([]))),
                _ => {
                    let rules: Vec<Value> = (0..1 + self.dice.below(3)).map(|_| self.rule(peers)).collect();
                    spec.insert(field.into(), Value::from(rules));
                }
            }
        }
        let types = *self.dice.pick::<&[&str]>(&[
            &["Ingress"],
            &["Egress"],
            &["Ingress", "Egress"],
            &["Egress", "Ingress"],
            &[],
        ]);
        if !types.is_empty() {
            spec.insert("policyTypes".into(), json!(types));
        }
        spec.into()
    }

    fn rule(&mut self, peers: &str) -> Value {
        let mut rule = Map::new();
        let mut blocks = false;
        match self.dice.below(8) {
            0 => {}
            1 => drop(rule.insert(peers.into(), json!([]))),
            _ => {
                let all: Vec<Value> = (0..1 + self.dice.below(3)).map(|_| self.peer()).collect();
                blocks = all.iter().any(|peer| !peer["ipBlock"].is_null());
                rule.insert(peers.into(), Value::from(all));
            }
        }
        match self.dice.below(8) {
            0..3 => {}
            3 => drop(rule.insert("ports".into(), json!([]))),
            _ => {
                let names = !(self.plain && blocks);
                let all: Vec<Value> = (0..1 + self.dice.below(3)).map(|_| self.port(names)).collect();
                rule.insert("ports".into(), Value::from(all));
            }
        }
        rule.into()
    }

    fn peer(&mut self) -> Value {
        match self.dice.below(5) {
            0 => json!({"podSelector": self.selector(&["pod", "tier", "app"])}),
            1 => json!({"namespaceSelector": self.selector(&["ns", "team", "kubernetes.io/metadata.name"])}),
            2 => json!({
                "namespaceSelector": self.selector(&["ns", "team", "kubernetes.io/metadata.name"]),
                "podSelector": self.selector(&["pod", "tier", "app"]),
            }),
            3 => {
                // One address, or all but some.
                let address = self.dice.pick(self.addresses).clone();
                json!({"ipBlock": {"cidr": format!("{address}/{}", if address.contains(':') { 128 } else { 32 })}})
            }
            _ => self.block(),
        }
    }

    fn block(&mut self) -> Value {
        let v6 = self.dice.chance(50);
        let place = usize::from(v6);
        let wide: &[&str] = if v6 {
            &["::/0", "2001:db8::/32", "2001:db8:1:f001::/64", "2001:db8:9::/64"]
        } else {
            &["0.0.0.0/0", "10.0.0.0/8", "10.25.214.0/24", "192.0.2.0/24"]
        };
        let cidr = *self.dice.pick(wide);
        let range: ipnet::IpNet = cidr.parse().expect("a prefix");
        let all = self.addresses.iter().map(String::as_str).chain([STRANGER[place], REMOTE[place]]);
        let inside = |text: &&str| text.parse().is_ok_and(|ip: std::net::IpAddr| range.contains(&ip));
        let inside: Vec<&str> = all.filter(inside).collect();
        let mut except = Vec::new();
        for _ in 0..self.dice.below(3) {
            if !inside.is_empty() {
                let address = *self.dice.pick(&inside);
                // A range that other excepts may be in or overlap; the bits behind its length are cleared.
                let length = if v6 { *self.dice.pick(&[128, 127, 112]) } else { *self.dice.pick(&[32, 31, 29]) };
                let net = ipnet::IpNet::new(address.parse().expect("an address"), length).expect("a length");
                except.push(net.trunc().to_string());
            }
        }
        if except.is_empty() {
            json!({"ipBlock": {"cidr": cidr}})
        } else {
            json!({"ipBlock": {"cidr": cidr, "except": except}})
        }
    }

    fn port(&mut self, names: bool) -> Value {
        let mut port = Map::new();
        if self.dice.chance(70) {
            port.insert("protocol".into(), json!(self.dice.pick(&["TCP", "UDP", "SCTP"])));
        }
        match self.dice.below(6) {
            0 => {}
            1 | 2 if names => drop(port.insert("port".into(), json!(self.dice.pick(&NAMES)))),
            3 => {
                let (from, to) = *self.dice.pick(&[(80, 81), (1, 80), (81, 65_535), (82, 90), (80, 80)]);
                port.insert("port".into(), json!(from));
                port.insert("endPort".into(), json!(to));
            }
            _ => drop(port.insert("port".into(), json!(self.dice.pick(&[80, 81, 443])))),
        }
        port.into()
    }

    fn selector(&mut self, keys: &[&str]) -> Value {
        let mut selector = Map::new();
        if self.dice.chance(40) {
            let key = *self.dice.pick(keys);
            let value = self.value(key, self.plain);
            selector.insert("matchLabels".into(), json!({key: value}));
        }
        if self.dice.chance(50) {
            let all: Vec<Value> = (0..1 + self.dice.below(2)).map(|_| self.expression(keys)).collect();
            selector.insert("matchExpressions".into(), Value::from(all));
        }
        selector.into()
    }

    fn expression(&mut self, keys: &[&str]) -> Value {
        let key = *self.dice.pick(keys);
        // Cyclonus takes `NotIn` for false where the key is absent. Everybody has the first key.
        let operators: &[&str] = if self.plain && key != keys[0] {
            &["In", "Exists", "DoesNotExist"]
        } else {
            &["In", "NotIn", "Exists", "DoesNotExist"]
        };
        let operator = *self.dice.pick(operators);
        if operator.ends_with("In") {
            let values: Vec<String> = (0..1 + self.dice.below(2)).map(|_| self.value(key, false)).collect();
            return json!({"key": key, "operator": operator, "values": values});
        }
        json!({"key": key, "operator": operator})
    }

    /// One that somebody may have, or nobody.
    fn value(&mut self, key: &str, not_empty: bool) -> String {
        let values: &[&str] = match key {
            "pod" => &["a", "b", "c", "d"],
            "tier" => &["front", "back", ""],
            "app" => &["shop", "mail", "chat"],
            "team" => &["red", "blue", ""],
            _ => &["x", "y", "z", "far", "w"],
        };
        let values = if not_empty && values.contains(&"") { &values[..2] } else { values };
        (*self.dice.pick(values)).to_owned()
    }
}
