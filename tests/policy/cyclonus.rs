//! What cyclonus says: its generated cases, and its own verdicts, asked of one program that runs as long as the test does. Which of
//! its verdicts count, the comparison says.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::cluster::{Cluster, End, Probe, Protocol, Who};
use super::support::assets::assets;
use super::support::programs::succeed;

fn program() -> String {
    format!("{}/cyclonus", assets("policy"))
}

/// A generated case: what it is called, and what changes at each step.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    /// The actions of each step, as cyclonus says them.
    pub steps: Vec<Vec<Value>>,
}

/// All cases, for a cluster whose pod z/c has this address.
pub fn cases(address: IpAddr) -> Vec<Case> {
    let text = succeed(Command::new(program()).args(["cases", &address.to_string()]));
    let all: Vec<Value> = serde_json::from_str(&text).expect("a list");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let case = |case: &Value| Case {
        name: case["Description"].as_str().expect("a name").to_owned(),
        steps: list(&case["Steps"]).iter().map(|step| list(&step["Actions"])).collect(),
    };
    all.iter().map(case).collect()
}

/// The matcher. It ends with the value.
pub struct Cyclonus {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Cyclonus {
    pub fn start() -> Cyclonus {
        let mut command = Command::new(program());
        let mut child =
            command.arg("verdicts").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cyclonus starts");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Cyclonus { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// Its verdict on each of these probes.
    pub fn allows(&mut self, cluster: &Cluster, probes: &[Probe]) -> Vec<bool> {
        let mut ends: Vec<&End> = probes.iter().flat_map(|probe| [&probe.from, &probe.to]).collect();
        ends.sort_unstable();
        ends.dedup();
        let place = |end: &End| ends.binary_search(&end).expect("collected");
        let asked = |probe: &Probe| {
            json!({
                "from": place(&probe.from),
                "to": place(&probe.to),
                "port": probe.port,
                "name": name_of(cluster, probe),
                "protocol": probe.protocol.name(),
            })
        };
        let probes: Vec<Value> = probes.iter().map(asked).collect();
        let ends: Vec<Value> = ends.iter().map(|end| described(cluster, end)).collect();
        let policies: Vec<Value> = cluster.policies.values().map(|policy| with_defaults(policy.clone())).collect();
        let question = json!({"namespaces": cluster.namespaces, "policies": policies, "ends": ends, "probes": probes});
        self.ask(&question)
    }

    fn ask(&mut self, question: &Value) -> Vec<bool> {
        let stdin = self.stdin.as_mut().expect("open while it runs");
        stdin.write_all(format!("{question}\n").as_bytes()).expect("cyclonus reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("cyclonus answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let allowed = answer["allowed"].as_array().unwrap_or_else(|| panic!("{answer} to {question}"));
        allowed.iter().map(|verdict| verdict.as_bool().expect("a verdict")).collect()
    }
}

impl Drop for Cyclonus {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.stdin.take();
        self.child.wait().ok();
    }
}

fn described(cluster: &Cluster, end: &End) -> Value {
    let Who::Pod(key) = &end.who else { return json!({"address": end.address}) };
    json!({"address": end.address, "namespace": key.0, "labels": cluster.pods[key].labels})
}

/// What the pod calls the port that the probe goes to; cyclonus wants to be told.
fn name_of(cluster: &Cluster, probe: &Probe) -> String {
    let Who::Pod(key) = &probe.to.who else { return String::new() };
    let is_it = |protocol: Protocol, port: u16| protocol == probe.protocol && port == probe.port;
    let named = cluster.pods[key].ports.iter().find(|port| is_it(port.protocol, port.port));
    named.map(|port| port.name.clone()).unwrap_or_default()
}

/// What the API server adds, without which cyclonus takes a policy for invalid.
fn with_defaults(mut policy: Value) -> Value {
    let spec = &mut policy["spec"];
    if spec["policyTypes"].as_array().is_none_or(Vec::is_empty) {
        let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
        spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    policy
}
