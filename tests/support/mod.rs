//! A node to test on: private network and mount namespaces with a `/run` of their own, pods in them, the real agent, and
//! the real plugin exec'd as a runtime does it.
//!
//! Everything ends with the value that holds it: the namespaces live as long as one process whose standard input is a
//! pipe from the test, so they end with a killed test, too. Only an agent of a test that is killed lives on, in a namespace
//! that nobody else is in. Needs root, or the root of a user namespace.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::print_stderr,
    reason = "each test program uses its own part"
)]

pub mod dice;
pub mod failpoints;
pub mod oracle;
pub mod scripted;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flock::record::format::{Record, Sum, decode, encode};
use model::addr::Attachment;
use model::lease::Lease;
use serde_json::{Value, json};

pub const FLOCK: &str = env!("CARGO_BIN_EXE_flock");
pub const FLOCK_AGENT: &str = env!("CARGO_BIN_EXE_flock-agent");

/// Long enough for a loaded machine, short enough to end.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const CIDR6: &str = "2001:db8:1:f001::/64";
pub const CIDR4: &str = "10.25.214.0/24";
/// Addresses of the host itself, outside the pods' ranges.
pub const HOST6: &str = "2001:db8:0:1::1";
pub const HOST4: &str = "10.1.0.1";

/// Waits until `look` finds something, and panics with `what` when it does not.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The host's own addresses.
pub fn host_addresses() -> [IpAddr; 2] {
    [HOST6, HOST4].map(|ip| ip.parse().expect("literal"))
}

/// Whether there is only one user id, as `tests/sandbox` says of namespaces that an ordinary user has made.
pub fn one_user_only() -> bool {
    std::env::var_os("FLOCK_TEST_ONE_USER").is_some()
}

/// A NodeConfig manifest.
pub fn node_config(cidr6: &str, cidr4: &str) -> String {
    let mut spec = serde_json::Map::new();
    for (key, value) in [("cidr6", cidr6), ("cidr4", cidr4)] {
        if !value.is_empty() {
            spec.insert(key.into(), json!(value));
        }
    }
    node_config_spec(Value::from(spec))
}

/// A NodeConfig manifest with this spec.
pub fn node_config_spec(spec: Value) -> String {
    json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {"name": "host001"},
        "spec": spec,
    })
    .to_string()
}

/// A host.
pub struct Host {
    pid: u32,
    /// What of it commands enter.
    namespaces: &'static [&'static str],
    /// The file that moves a process into the group which ends with the host, for a host that shares our process ids.
    group: Option<&'static str>,
    holder: Child,
    stdin: Option<ChildStdin>,
}

/// Lines of a log that hold these records, behind the line of the checksum `after`.
pub fn log_of(records: impl IntoIterator<Item = Record>, mut after: Option<Sum>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let (line, sum) = encode(&record, after);
        bytes.extend(line);
        after = Some(sum);
    }
    bytes
}

impl Host {
    /// A host with one address per family and nothing else, not even the plugins that this machine may have.
    pub fn new() -> Host {
        let script = format!(
            "set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/netns /run/flock; mount -t sysfs sysfs /sys 2>/dev/null || true; \
             for dir in /opt/cni/bin /usr/lib/cni; do if [ -d $dir ]; then mount -t tmpfs tmpfs $dir; fi; done; \
             ip link set lo up; ip addr add {HOST6}/128 dev lo; ip addr add {HOST4}/32 dev lo; echo ready; exec cat >/dev/null"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script]);
        let (mut host, line) = Host::held_by(&mut unshare);
        assert_eq!(
            line, "ready\n",
            "namespaces cannot be made: run the tests by `make test`, which becomes root of a user namespace"
        );
        host.pid = host.holder.id();
        host
    }

    /// A host that stands as long as the standard input of this command is open, and the first line that it prints.
    fn held_by(command: &mut Command) -> (Host, String) {
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the holder starts");
        let stdin = holder.stdin.take();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        (Host { pid: 0, namespaces: &["--net", "--mount"], group: None, holder, stdin }, line)
    }

    /// A host that `command` makes: it prints the process id of one of the host's processes, and ends the host when its
    /// standard input ends.
    pub fn made_by(command: &mut Command) -> Host {
        let (mut host, line) = Host::held_by(command);
        host.pid = line.trim().parse().unwrap_or_else(|_| panic!("{command:?} made no host: {line:?}"));
        let pids = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid")).expect("readable");
        if pids(&host.pid.to_string()) != pids("self") {
            // It has a /proc of its own, in which only its own processes find themselves.
            host.namespaces = &["--net", "--mount", "--pid"];
        } else {
            host.group = Some("/sys/fs/cgroup/host/cgroup.procs");
        }
        host
    }

    /// A process of the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The host's file `path`, as the test can open it.
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.pid).into()
    }

    /// The file that stands for the host's network namespace.
    pub fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid).into()
    }

    /// `program` on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]).args(self.namespaces).arg("--");
        if let Some(group) = self.group {
            command.args(["sh", "-c", "echo 0 >\"$0\" && exec \"$@\"", group]);
        }
        command.arg(program);
        command
    }

    /// Runs a command line (split at blanks) on this host, which must succeed, and returns what it printed.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        succeed(command.args(words))
    }

    /// A new pod: a network namespace with a name, as runtimes make them.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.run(&format!("ip netns add {name}"));
        Pod { host: self, name: name.into() }
    }

    /// An agent that is about to be started.
    pub fn agent(&self) -> AgentBuilder<'_> {
        AgentBuilder {
            host: self,
            config: Some(node_config(CIDR6, CIDR4)),
            keep_config: false,
            kubeconfig: None,
            arguments: Vec::new(),
            wait: true,
            audience: None,
            stderr: None,
            program: FLOCK_AGENT.into(),
        }
    }

    /// Replaces the agent's NodeConfig file, as an editor does it.
    pub fn edit_config(&self, text: &str) {
        std::fs::write(self.path("/run/node.yaml.new"), text).expect("writable");
        std::fs::rename(self.path("/run/node.yaml.new"), self.path("/run/node.yaml")).expect("renamed");
    }

    /// A call of the plugin.
    pub fn cni(&self, verb: &str) -> Cni<'_> {
        Cni {
            host: self,
            env: vec![("CNI_COMMAND".into(), verb.into()), ("CNI_PATH".into(), "/opt/cni/bin".into())],
            conf: json!({"cniVersion": "1.1.0", "name": "flock", "type": "flock"}),
            stdin: None,
            program: FLOCK.into(),
        }
    }

    /// ADD of `eth0` for a container of the same name as the pod.
    pub fn add(&self, pod: &Pod<'_>) -> Cni<'_> {
        self.cni("ADD").container(&pod.name).netns(&pod.path()).ifname("eth0").kubernetes("default", &pod.name)
    }

    /// DEL of what [`Host::add`] made.
    pub fn del(&self, pod: &Pod<'_>) -> Cni<'_> {
        self.cni("DEL").container(&pod.name).netns(&pod.path()).ifname("eth0").kubernetes("default", &pod.name)
    }

    /// A file of the host, with the directories above it.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// How many delete notes wait for an agent.
    pub fn notes(&self) -> usize {
        let entries = std::fs::read_dir(self.path("/run/flock/deletes")).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("readable").file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".delete")).count()
    }

    /// The leases on disk, replayed from the log by the library's own decoder.
    pub fn leases(&self) -> Vec<Lease> {
        let bytes = std::fs::read(self.path("/run/flock/state/leases.log")).unwrap_or_default();
        let mut leases = std::collections::BTreeMap::<Attachment, Lease>::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            match decode(line).map(|line| line.record) {
                Some(Record::Put(lease)) => drop(leases.insert(lease.attachment.clone(), *lease)),
                Some(Record::Free(freed)) => drop(leases.remove(&freed.attachment)),
                _ => {}
            }
        }
        leases.into_values().collect()
    }

    /// Writes further records behind those of the log, as an agent would have.
    pub fn append_to_log(&self, records: impl IntoIterator<Item = Record>) {
        let path = self.path("/run/flock/state/leases.log");
        let mut bytes = std::fs::read(&path).expect("there is a log");
        let last = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let after = last.and_then(decode).expect("its last line is whole").sum;
        bytes.extend(log_of(records, Some(after)));
        std::fs::write(path, bytes).expect("writable");
    }

    /// The links of flock on this host.
    pub fn flock_links(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.run("ip -j link")).expect("JSON of ip");
        let names =
            links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str().map(str::to_owned));
        names.filter(|name| name.starts_with("flock")).collect()
    }

    /// Nothing of any pod is left: links, addresses, routes, neighbours, leases. (The unreachable routes of the node stay.)
    #[track_caller]
    pub fn assert_empty(&self) {
        self.assert_sound("at the end");
        assert_eq!(self.flock_links(), Vec::<String>::new(), "links are left");
        for family in ["-4", "-6"] {
            let routes = self.run(&format!("ip {family} route show proto 102"));
            let left: Vec<&str> = routes.lines().filter(|line| !line.starts_with("unreachable ")).collect();
            assert_eq!(left, Vec::<&str>::new(), "routes are left");
        }
        assert_eq!(self.leases(), Vec::new(), "leases are left");
    }

    /// Everything of the host that a CNI could touch, as text. Two of them are equal if nothing was.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for line in [
            "ip -d -j link",
            "ip -j addr",
            "ip -j -4 route show table all",
            "ip -j -6 route show table all",
            "ip -j -4 rule",
            "ip -j -6 rule",
            "ip -j neigh",
            "nft list ruleset",
        ] {
            text.push_str(&format!("## {line}\n{}\n", self.run(line)));
        }
        let sysctls = succeed(self.command("sh").args([
            "-c",
            "cd /proc/sys/net && find . -type f -perm -400 | sort | grep -v -e nf_conntrack_count -e random -e secret | \
             while read -r f; do printf '%s=' \"$f\"; cat \"$f\" 2>/dev/null || echo; done",
        ]));
        text.push_str("## sysctl\n");
        text.push_str(&sysctls);
        text.push_str("## mounts\n");
        // Namespaces of pods are mounts, too, which come and go with the runtime.
        text.push_str(&self.run("grep -v /run/netns /proc/self/mountinfo"));
        text.push_str("## CNI configurations\n");
        text.push_str(&succeed(self.command("sh").args([
            "-c",
            "find /etc/cni /run/net.d -exec stat -c '%n %F %a %s %y' {} + -type f -exec cat {} + 2>/dev/null | sort",
        ])));
        text
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The end of its standard input ends the holder, in its own way.
        self.stdin.take();
        self.holder.wait().ok();
    }
}

/// Runs a command that must succeed, and returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// A pod's network namespace.
pub struct Pod<'a> {
    pub host: &'a Host,
    pub name: String,
}

impl Pod<'_> {
    /// The namespace as a runtime names it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs a command line (split at blanks) in the pod, which must succeed.
    pub fn run(&self, line: &str) -> String {
        self.host.run(&format!("ip netns exec {} {line}", self.name))
    }

    /// One packet there and back within a second, without a second try.
    pub fn pings(&self, to: IpAddr) -> bool {
        let to = to.to_string();
        let mut command = self.host.command("ip");
        command.args(["netns", "exec", &self.name, "ping", "-n", "-c", "1", "-W", "1", &to]).stdin(Stdio::null());
        command.output().expect("ping (iputils-ping) starts").status.success()
    }

    /// One packet to each and back.
    #[track_caller]
    pub fn assert_pings(&self, to: impl IntoIterator<Item = IpAddr>) {
        for ip in to {
            assert!(self.pings(ip), "{} cannot reach {ip}", self.name);
        }
    }

    /// Runs a shell script in the pod, which must succeed, and returns what it printed.
    pub fn script(&self, text: &str) -> String {
        succeed(self.host.command("ip").args(["netns", "exec", &self.name, "sh", "-ec", text]))
    }

    /// Removes the namespace by hand, as nobody should.
    pub fn vanish(&self) {
        self.host.run(&format!("ip netns del {}", self.name));
    }
}

/// An agent that is about to be started.
pub struct AgentBuilder<'a> {
    host: &'a Host,
    config: Option<String>,
    keep_config: bool,
    kubeconfig: Option<String>,
    arguments: Vec<String>,
    wait: bool,
    audience: Option<LogAudience>,
    stderr: Option<Stdio>,
    program: String,
}

/// Hears each line of an agent's log.
pub type LogAudience = Arc<dyn Fn(&str) + Send + Sync>;

impl<'a> AgentBuilder<'a> {
    /// With this text as the NodeConfig file; none for no file.
    pub fn config(mut self, config: Option<&str>) -> Self {
        self.config = config.map(str::to_owned);
        self
    }

    /// With the NodeConfig file as it lies there, or does not.
    pub fn keep_config(mut self) -> Self {
        self.keep_config = true;
        self
    }

    /// This program instead of the one that was built.
    pub fn program(mut self, path: &str) -> Self {
        self.program = path.to_owned();
        self
    }

    /// With the log told to `audience`, line by line, instead of kept: for agents that live long. Does not wait until it
    /// listens, which is for the audience to hear.
    pub fn log_to(mut self, audience: LogAudience) -> Self {
        self.audience = Some(audience);
        self.no_wait()
    }

    /// With the log written there, where only the test can read it. Does not wait until it listens.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self.no_wait()
    }

    /// With the Kubernetes API, as this kubeconfig on the host reaches it, instead of a file.
    pub fn kubeconfig(mut self, path: &str) -> Self {
        self.kubeconfig = Some(path.to_owned());
        self
    }

    /// With further arguments.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// Without waiting until it listens: it is expected to end, or to take long.
    pub fn no_wait(mut self) -> Self {
        self.wait = false;
        self
    }

    pub fn start(self) -> Agent<'a> {
        match &self.config {
            _ if self.keep_config => {}
            Some(config) => std::fs::write(self.host.path("/run/node.yaml"), config).expect("writable"),
            None => drop(std::fs::remove_file(self.host.path("/run/node.yaml"))),
        }
        let source = match &self.kubeconfig {
            Some(kubeconfig) => ["--kubeconfig", kubeconfig],
            None => ["--node-config", "/run/node.yaml"],
        };
        let mut child = self
            .host
            .command(&self.program)
            .args(source)
            .args(["--node-name", "host001", "--log-level", "debug"])
            .args(["--import", "/run/allocations.json"])
            .env("FLOCK_FAILPOINTS", failpoints::ARMED)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stderr(self.stderr.unwrap_or_else(Stdio::piped))
            .spawn()
            .expect("flock-agent starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().map(BufReader::new);
        let (sink, audience) = (log.clone(), self.audience);
        thread::spawn(move || {
            for line in stderr.into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
                if let Some(audience) = &audience {
                    audience(&line);
                    continue;
                }
                let mut log = sink.lock().expect("unpoisoned");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let agent = Agent { host: self.host, child, log };
        if self.wait {
            agent.wait_log("flock-agent listens");
        }
        agent
    }
}

/// What an agent holds at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    pub descriptors: usize,
    pub threads: usize,
}

/// A running agent. Killed when dropped.
pub struct Agent<'a> {
    pub host: &'a Host,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Agent<'_> {
    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("unpoisoned").clone()
    }

    /// Waits until a line of the log holds `text`, and returns the line.
    pub fn wait_log(&self, text: &str) -> String {
        self.wait_log_times(text, 1)
    }

    /// Waits until `times` lines of the log hold `text`, and returns the last of them.
    pub fn wait_log_times(&self, text: &str, times: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().lines().filter(|line| line.contains(text)).nth(times - 1) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "the agent never logged {text:?}:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it holds at this moment.
    pub fn holds(&self) -> Holds {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", self.pid())).expect("it runs").count();
        Holds { descriptors: count("fd"), threads: count("task") }
    }

    /// Waits until it holds no more than that.
    #[track_caller]
    pub fn comes_back_to(&self, before: Holds) {
        let deadline = Instant::now() + PATIENCE;
        // A thread of an earlier request may have been on its way out when it was counted.
        let settled = |now: Holds| now.descriptors <= before.descriptors && now.threads <= before.threads;
        while !settled(self.holds()) {
            assert!(Instant::now() < deadline, "{:?} instead of {before:?}", self.holds());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Replaces its NodeConfig file, as an editor does it.
    pub fn edit_config(&self, text: &str) {
        self.host.edit_config(text);
    }

    /// How it ended, unless it still runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("waitable")
    }

    /// Sends a signal by name, such as `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        succeed(Command::new("kill").args(["-s", name, &self.child.id().to_string()]));
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the agent's end", || self.child.try_wait().expect("waitable"))
    }

    /// Ends it in order, and returns its log.
    pub fn stop(mut self) -> String {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.log()
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        self.child.kill().expect("killable");
        self.child.wait().expect("waitable");
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            eprintln!("log of the agent:\n{}", self.log());
        }
    }
}

/// A call of the plugin in the making: an environment with nothing else in it, and a configuration.
#[derive(Clone)]
pub struct Cni<'a> {
    host: &'a Host,
    env: Vec<(String, OsString)>,
    conf: Value,
    stdin: Option<Vec<u8>>,
    program: String,
}

impl Cni<'_> {
    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.retain(|(present, _)| present != name);
        self.env.push((name.into(), value.into()));
        self
    }

    /// This program instead of the one that was built.
    pub fn program(mut self, path: &str) -> Self {
        self.program = path.to_owned();
        self
    }

    /// Takes a variable away.
    pub fn no_env(mut self, name: &str) -> Self {
        self.env.retain(|(present, _)| present != name);
        self
    }

    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    pub fn ifname(self, name: &str) -> Self {
        self.env("CNI_IFNAME", name)
    }

    pub fn netns(self, path: &str) -> Self {
        self.env("CNI_NETNS", path)
    }

    /// The arguments that kubelet's runtimes send.
    pub fn kubernetes(self, namespace: &str, pod: &str) -> Self {
        self.env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod}"))
    }

    /// Sets a key of the configuration.
    pub fn conf(mut self, key: &str, value: Value) -> Self {
        self.conf.as_object_mut().expect("an object").insert(key.into(), value);
        self
    }

    /// Takes a key of the configuration away.
    pub fn no_conf(mut self, key: &str) -> Self {
        self.conf.as_object_mut().expect("an object").remove(key);
        self
    }

    pub fn version(self, version: &str) -> Self {
        self.conf("cniVersion", json!(version))
    }

    /// With pod annotations, as a runtime hands them over by the capability.
    pub fn annotations(self, annotations: &[(&str, &str)]) -> Self {
        let map: serde_json::Map<String, Value> =
            annotations.iter().map(|(k, v)| (format!("flock.fritzlab.net/{k}"), json!(v))).collect();
        self.conf("runtimeConfig", json!({"io.kubernetes.cri.pod-annotations": map}))
    }

    /// These bytes on standard input instead of the configuration.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// The command, with standard streams left to the caller.
    pub fn command(&self) -> Command {
        let mut command = self.host.command("env");
        command.arg("-i");
        for (name, value) in &self.env {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            command.arg(pair);
        }
        command.arg(&self.program);
        command
    }

    /// The bytes for standard input.
    pub fn input(&self) -> Vec<u8> {
        self.stdin.clone().unwrap_or_else(|| self.conf.to_string().into_bytes())
    }

    fn spawn(&self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> (Child, ChildStdin) {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().expect("the plugin starts");
        let stdin = child.stdin.take().expect("piped");
        (child, stdin)
    }

    /// Starts it and does not wait for its end; nobody hears what it prints.
    pub fn launch(&self) -> Child {
        self.launch_into(Stdio::null(), Stdio::null())
    }

    /// Starts it and does not wait for its end. It may end before it has read its input.
    pub fn launch_into(&self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Child {
        let (child, mut stdin) = self.spawn(stdout, stderr);
        stdin.write_all(&self.input()).ok();
        child
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        let began = Instant::now();
        let (child, mut stdin) = self.spawn(Stdio::piped(), Stdio::piped());
        let input = self.input();
        // A plugin may end without reading all of it.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("waitable");
        writer.join().expect("no panic");
        Outcome { output, elapsed: began.elapsed() }
    }

    /// Runs it with a standard input that stays open behind these bytes, as at a terminal.
    pub fn run_without_end(&self, input: &[u8]) -> Outcome {
        let began = Instant::now();
        let (child, mut stdin) = self.spawn(Stdio::piped(), Stdio::piped());
        stdin.write_all(input).expect("it reads");
        let output = child.wait_with_output().expect("waitable");
        drop(stdin);
        Outcome { output, elapsed: began.elapsed() }
    }

    /// Runs an ADD that must succeed.
    pub fn result(&self) -> Attached {
        let outcome = self.run();
        let text = outcome.succeeded();
        let result: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Attached { result }
    }

    /// Runs a verb without a result that must succeed and print nothing.
    pub fn done(&self) {
        assert_eq!(self.run().succeeded(), "");
    }

    /// Runs a call that must fail as CNI says: exit code, and one error object on standard output.
    pub fn error(&self) -> CniError {
        self.run().failed()
    }
}

/// What a run of the plugin left.
pub struct Outcome {
    pub output: Output,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("UTF-8 on standard output")
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Standard output of a success.
    pub fn succeeded(&self) -> String {
        assert!(self.output.status.success(), "{}{}", self.stdout(), self.stderr());
        assert_eq!(self.stderr(), "", "a success says nothing on standard error");
        self.stdout()
    }

    /// The error object of a failure.
    pub fn failed(&self) -> CniError {
        let stdout = self.stdout();
        assert_eq!(self.output.status.code(), Some(1), "{stdout}{}", self.stderr());
        let object: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout:?}"));
        let text = |key: &str| object[key].as_str().unwrap_or_else(|| panic!("{key}: {stdout}")).to_owned();
        let code = object["code"].as_u64().unwrap_or_else(|| panic!("code: {stdout}"));
        CniError { version: text("cniVersion"), code, msg: text("msg"), details: text("details") }
    }
}

/// An error object.
#[derive(Debug, PartialEq, Eq)]
pub struct CniError {
    pub version: String,
    pub code: u64,
    pub msg: String,
    pub details: String,
}

impl CniError {
    /// Message and details in one.
    pub fn text(&self) -> String {
        format!("{}; {}", self.msg, self.details)
    }
}

/// A result of ADD.
#[derive(Debug, Clone)]
pub struct Attached {
    pub result: Value,
}

impl Attached {
    fn address(&self, v6: bool) -> Option<IpAddr> {
        let texts = self.result["ips"].as_array()?.iter().filter_map(|ip| ip["address"].as_str());
        let ips = texts.filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        ips.into_iter().find(|ip| ip.is_ipv6() == v6)
    }

    pub fn ipv6(&self) -> Option<IpAddr> {
        self.address(true)
    }

    pub fn ipv4(&self) -> Option<IpAddr> {
        self.address(false)
    }

    /// All addresses.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.ipv6().into_iter().chain(self.ipv4()).collect()
    }

    /// The name of the host end.
    pub fn host_link(&self) -> String {
        self.result["interfaces"][0]["name"].as_str().expect("a name").to_owned()
    }
}

/// Reads a stream to its end on a thread.
pub fn drain(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        bytes
    })
}

/// A directory that ends with the test.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        let unique = format!("flock-{name}-{}-{:?}", std::process::id(), thread::current().id());
        let path = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
