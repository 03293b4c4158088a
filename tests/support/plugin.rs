//! The real plugin, exec'd as a runtime does it: an environment with nothing else in it, and a configuration. What it left is an
//! outcome, which is a file of its own.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::host::Host;
use super::outcome::{Attached, CniError, Outcome};
use super::pod::Pod;
use super::programs::FLOCK;

impl Host {
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

    /// A new pod of this name with an interface.
    pub fn attach(&self, name: &str) -> (Pod<'_>, Attached) {
        let pod = self.pod(name);
        let attached = self.add(&pod).result();
        (pod, attached)
    }

    /// New pods of these names, each with an interface.
    pub fn attach_all<N: AsRef<str>>(&self, names: impl IntoIterator<Item = N>) -> Vec<(Pod<'_>, Attached)> {
        names.into_iter().map(|name| self.attach(name.as_ref())).collect()
    }

    /// DEL of what [`Host::add`] made.
    pub fn del(&self, pod: &Pod<'_>) -> Cni<'_> {
        self.cni("DEL").container(&pod.name).netns(&pod.path()).ifname("eth0").kubernetes("default", &pod.name)
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
