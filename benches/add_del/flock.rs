//! flock: its plugin and a running agent, from a directory that has both binaries.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::call::{Verb, call};
use crate::contestant::Contestant;
use crate::host::{Host, Pod, unique};

/// What of flock is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// Neither source check nor policies.
    Off,
    /// All that a node's file can turn on: source check, policies of pods, masquerade, further and shared addresses.
    On,
}

/// Ranges that no benchmark fills.
pub const WIDE: (&str, &str) = ("2001:db8:1:f001::/64", "10.64.0.0/12");

/// flock on a host of its own.
pub struct Flock {
    name: String,
    host: Host,
    /// Both binaries.
    binaries: PathBuf,
    /// Socket and NodeConfig.
    directory: PathBuf,
    /// The record.
    pub state: PathBuf,
    arguments: Vec<String>,
    input: Vec<u8>,
    agent: Mutex<Option<Child>>,
}

impl Flock {
    /// With these ranges, IPv6 and IPv4.
    pub fn start(name: &str, binaries: &Path, features: Features, ranges: (&str, &str)) -> Flock {
        let flock = Flock::prepare(name, binaries, features, ranges);
        flock.start_agent();
        flock
    }

    /// Without an agent yet.
    pub fn prepare(name: &str, binaries: &Path, features: Features, (cidr6, cidr4): (&str, &str)) -> Flock {
        let key = unique(name);
        let directory = PathBuf::from(format!("/run/flock/{key}"));
        fs::create_dir_all(&directory).expect("made");
        let mut spec = json!({"cidr6": cidr6, "cidr4": cidr4, "sourceCheck": false, "policy": {"mode": "none"}});
        let mut arguments = Vec::new();
        let mut annotations = foreign_annotations();
        if features == Features::On {
            spec = json!({
                "cidr6": cidr6, "cidr4": cidr4, "sourceCheck": true, "policy": {"mode": "enforce"},
                "masquerade": {"ipv4": true}, "extraPrefixes": ["2001:db8:f::/48", "203.0.113.0/24"],
            });
            annotations["flock.fritzlab.net/anycast"] = json!("2001:db8:f::53,203.0.113.53");
            fs::create_dir_all(directory.join("policies")).expect("made");
            fs::write(directory.join("policies/all.yaml"), policies()).expect("written");
            arguments.extend(["--policy-dir".to_owned(), directory.join("policies").display().to_string()]);
        }
        let node = json!({"apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig", "metadata": {"name": "n"}, "spec": spec});
        fs::write(directory.join("node.yaml"), node.to_string()).expect("written");
        let input = json!({
            "cniVersion": "1.0.0", "name": "flock", "type": "flock", "socket": directory.join("flock.sock"),
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
        });
        Flock {
            name: name.to_owned(),
            host: Host::new(&key),
            binaries: binaries.into(),
            state: directory.join("state"),
            directory,
            arguments,
            input: input.to_string().into_bytes(),
            agent: Mutex::new(None),
        }
    }

    /// Starts the agent, and returns when it serves.
    pub fn start_agent(&self) -> Duration {
        let began = Instant::now();
        let mut agent = self.host.inside(|| {
            let mut command = Command::new(self.binaries.join("flock-agent"));
            command.arg("--node-config").arg(self.directory.join("node.yaml")).args(["--node-name", "n"]);
            command.arg("--socket").arg(self.directory.join("flock.sock")).arg("--state-dir").arg(&self.state);
            command.arg("--import").arg(self.directory.join("none")).args(&self.arguments);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().expect("flock-agent starts")
        });
        let mut log = BufReader::new(agent.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.contains("flock-agent listens") {
            assert!(log.read_line(&mut said).expect("readable") > 0, "the agent ended:\n{said}");
        }
        let took = began.elapsed();
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            while log.read(&mut bytes).is_ok_and(|length| length > 0) {}
        });
        *self.agent.lock().expect("no panic") = Some(agent);
        took
    }

    /// Ends the agent at once.
    pub fn kill_agent(&self) {
        if let Some(mut agent) = self.agent.lock().expect("no panic").take() {
            agent.kill().expect("killable");
            agent.wait().expect("waitable");
        }
    }

    /// The process id of the agent, which runs.
    pub fn pid(&self) -> u32 {
        self.agent.lock().expect("no panic").as_ref().expect("it runs").id()
    }

    /// Whether STATUS says by then that an ADD can be served.
    pub fn serves(&self, within: Duration) -> bool {
        let input = json!({"cniVersion": "1.1.0", "name": "flock", "type": "flock", "socket": self.directory.join("flock.sock")});
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            let mut command = Command::new(self.plugin());
            command.env_clear().env("CNI_COMMAND", "STATUS").env("CNI_PATH", &self.binaries);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().expect("it starts");
            child.stdin.take().expect("piped").write_all(input.to_string().as_bytes()).expect("it reads");
            if child.wait().expect("waitable").success() {
                return true;
            }
        }
        false
    }

    /// The plugin's binary.
    pub fn plugin(&self) -> PathBuf {
        self.binaries.join("flock")
    }

    /// What `flock-agent` prints with these arguments, asked of this agent.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.binaries.join("flock-agent"));
        command.args(arguments).arg("--socket").arg(self.directory.join("flock.sock"));
        command.arg("--state-dir").arg(&self.state);
        String::from_utf8(call(&mut command, &[]).1).expect("text")
    }

    /// Kibibytes that the agent has in memory.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("readable");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
    }

    /// A call, ready to be started.
    pub fn command(&self, verb: Verb, pod: &Pod) -> Command {
        let mut command = Command::new(self.plugin());
        let name = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=p{}", pod.number);
        as_a_runtime(&mut command, verb, pod, &self.binaries).env("CNI_ARGS", name);
        command
    }

    /// What a runtime sends with it.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// A call, and what it printed.
    pub fn answer(&self, verb: Verb, pod: &Pod) -> Value {
        let printed = call(&mut self.command(verb, pod), &self.input).1;
        serde_json::from_slice(&printed).unwrap_or_default()
    }
}

/// The environment of a call.
pub fn as_a_runtime<'a>(command: &'a mut Command, verb: Verb, pod: &Pod, binaries: &Path) -> &'a mut Command {
    command.env_clear().env("CNI_COMMAND", verb.name()).env("CNI_CONTAINERID", pod.container());
    command.env("CNI_NETNS", &pod.path).env("CNI_IFNAME", "eth0").env("CNI_PATH", binaries);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// What other programs write beside a pod, which a runtime hands over as well: two kilobytes in all.
fn foreign_annotations() -> Value {
    let applied = format!("{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"spec\":\"{}\"}}", "x".repeat(1400));
    json!({"kubectl.kubernetes.io/last-applied-configuration": applied, "kubernetes.io/config.source": "api"})
}

/// A hundred policies, some of which select each pod, and the namespace.
fn policies() -> String {
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})];
    for number in 0..100 {
        let selector = if number % 20 == 0 { json!({}) } else { json!({"matchLabels": {"app": format!("a{number}")}}) };
        objects.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("p{number}"), "namespace": "bench"},
            "spec": {
                "podSelector": selector, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"ipBlock": {"cidr": format!("10.{number}.0.0/16")}}], "ports": [{"port": 80 + number}]}],
                "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
            },
        }));
    }
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

impl Contestant for Flock {
    fn name(&self) -> &str {
        &self.name
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn call(&self, verb: Verb, pod: &Pod) -> Duration {
        call(&mut self.command(verb, pod), &self.input).0
    }

    fn resident(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("readable");
        // User and system time behind the name, which may hold blanks, in hundredths of a second.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        self.kill_agent();
    }
}
