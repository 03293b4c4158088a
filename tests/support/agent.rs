//! The real agent on a host: how it is started, what it says, and how it ends. Ends with the value that holds it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use super::failpoints;
use super::host::Host;
use super::log::{Log, each_line, wait_line};
use super::manifests::{CIDR4, CIDR6, NODE, node_config};
use super::programs::{FLOCK_AGENT, succeed};
use super::waiting::{wait_for, wait_or};

impl Host {
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
            node: NODE.into(),
        }
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
    node: String,
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

    /// As the agent of the node of this name.
    pub fn node(mut self, name: &str) -> Self {
        self.node = name.to_owned();
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
            .args(["--node-name", &self.node, "--log-level", "debug"])
            .args(["--import", "/run/allocations.json"])
            .env("FLOCK_FAILPOINTS", failpoints::ARMED)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stderr(self.stderr.unwrap_or_else(Stdio::piped))
            .spawn()
            .expect("flock-agent starts");
        let log = Log::default();
        if let Some(stderr) = child.stderr.take() {
            match self.audience {
                Some(audience) => each_line(stderr, move |line| audience(line)),
                None => log.keep(stderr),
            }
        }
        let agent = Agent { host: self.host, child, log };
        if self.wait {
            agent.wait_log("flock-agent listens");
        }
        agent
    }
}

/// Threads that rest when there is nothing to do, by name, and how many of each.
const RESTING: [(&str, usize); 3] = [("conn", 9), ("netns", 4), ("remove", 8)];

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
    log: Log,
}

impl Agent<'_> {
    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until a line of the log holds `text`, and returns the line.
    #[track_caller]
    pub fn wait_log(&self, text: &str) -> String {
        self.wait_log_times(text, 1)
    }

    /// Waits until `times` lines of the log hold `text`, and returns the last of them.
    #[track_caller]
    pub fn wait_log_times(&self, text: &str, times: usize) -> String {
        wait_line(|| self.log(), text, times)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it holds at this moment, but for the few threads that rest between two requests and their way home from a pod.
    pub fn holds(&self) -> Holds {
        let entries = |what: &str| {
            let entries = std::fs::read_dir(format!("/proc/{}/{what}", self.pid())).expect("it runs");
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<PathBuf>>()
        };
        let own = std::fs::read_link(format!("/proc/{}/ns/net", self.pid())).expect("it runs");
        let descriptors = entries("fd").iter().filter(|fd| std::fs::read_link(fd).is_ok_and(|to| to != own)).count();
        let names = entries("task").into_iter().filter_map(|task| std::fs::read_to_string(task.join("comm")).ok());
        let mut threads: BTreeMap<String, usize> = BTreeMap::new();
        names.for_each(|name| *threads.entry(name.trim().to_owned()).or_default() += 1);
        let beyond = |(name, count): (&String, &usize)| {
            let resting = RESTING.iter().find(|(crew, _)| crew == name).map_or(0, |(_, most)| *most);
            count.saturating_sub(resting)
        };
        Holds { descriptors, threads: threads.iter().map(beyond).sum() }
    }

    /// Waits until it holds no more than that.
    #[track_caller]
    pub fn comes_back_to(&self, before: Holds) {
        // A thread of an earlier request may have been on its way out when it was counted.
        let settled = |now: Holds| now.descriptors <= before.descriptors && now.threads <= before.threads;
        wait_or(|| format!("{:?} instead of {before:?}", self.holds()), || settled(self.holds()).then_some(()));
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

    /// So many rounds, from begin to end.
    pub fn rounds(&self, times: usize) {
        self.rounds_of("reconcile/compare", times);
    }

    /// So many rounds of the thread that passes this point in each, from begin to end.
    pub fn rounds_of(&self, point: &str, times: usize) {
        self.host.start_trace();
        let begun = || self.host.trace().lines().filter(|line| *line == point).count();
        // Each signal is sent when the round before has begun, and the last round begins when those that count are over.
        for _ in 0..=times {
            let before = begun();
            self.signal("HUP");
            wait_for("a round", || (begun() > before).then_some(()));
        }
        self.host.end_trace();
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
