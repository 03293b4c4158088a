//! A private host with real container runtimes on it, and containerd as kubelet sees it: through the CRI. The host ends with the value
//! and with the test's process, and every process on it with the host.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::assets::assets;
use crate::support::host::{HOST4, HOST6, Host};
use crate::support::log::Log;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, put_script, succeed};
use crate::support::waiting::wait_for;

/// The one image there is.
pub(crate) const IMAGE: &str = "flock.test/guest:1";

/// Where each release of containerd finds its configuration of CNI.
pub(crate) const CONF_DIR: &str = "/etc/cni/net.d";

/// The configuration that the documents give under this heading.
pub(crate) fn documented(heading: &str) -> &'static str {
    let page = include_str!("../../docs/runtimes.md");
    let part = page.split(&format!("\n## {heading}\n")).nth(1).expect("the heading is there");
    let block = part.split("```toml\n").nth(1).expect("a configuration");
    block.split("```").next().expect("its end")
}

impl Host {
    /// A host with the packages laid over its own, no CNI configuration and nothing running.
    pub(crate) fn with_runtimes() -> Host {
        let mut boot = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/runtimes/host"));
        boot.args([assets("runtimes"), &format!("{HOST6}/128"), &format!("{HOST4}/32")]);
        Host::made_by(&mut boot)
    }

    /// A program that makes containers: in the namespace of the host's groups. The kernel lets nobody in there move in from
    /// outside, so that comes first.
    pub(crate) fn daemon(&self, program: &str) -> Command {
        let mut command = self.command("nsenter");
        let namespace = format!("--cgroup=/proc/{}/ns/cgroup", self.pid());
        command.args([&namespace, "--", program]).env("TMPDIR", "/run/tmp");
        command
    }

    /// All rules of the host's packet filter and address translation, without counters.
    pub(crate) fn ruleset(&self) -> String {
        self.run("nft --stateless list ruleset")
    }

    /// What someone hears who connects to this address and port, from the host itself or from a namespace of it.
    fn hears(&self, from: Option<&str>, to: IpAddr, port: u16) -> String {
        let inside: Vec<&str> = from.map(|name| vec!["ip", "netns", "exec", name]).unwrap_or_default();
        let script = format!("exec 3<>/dev/tcp/{to}/{port} && cat <&3");
        let mut command = self.command("env");
        command.args(inside).args(["timeout", "3", "bash", "-c", &script]).stdin(Stdio::null());
        String::from_utf8_lossy(&command.output().expect("bash starts").stdout).trim().to_owned()
    }

    /// What the host hears that connects to this address and port; nothing, if there is nobody.
    pub(crate) fn connects_to(&self, to: IpAddr, port: u16) -> String {
        self.hears(None, to, port)
    }

    /// What someone in this namespace hears who does so.
    pub(crate) fn connects_from(&self, namespace: &str, to: IpAddr, port: u16) -> String {
        self.hears(Some(namespace), to, port)
    }
}

/// containerd 2 asks for a share of the processor whatever its configuration says, and runc fails where the machine lends
/// no controller for that.
const RUNC_WITHOUT_SHARES: &str = r#"previous=
for word; do
    if [ "$previous" = --bundle ]; then sed -i 's/"cpu":{[^}]*}/"cpu":{}/' "$word/config.json"; fi
    previous=$word
done
exec /usr/sbin/runc "$@""#;

/// Which containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerdRelease {
    /// Debian's, with Debian's configuration: one directory of plugins, and STATUS is unknown to it.
    One,
    /// The newest.
    Two,
}

impl ContainerdRelease {
    pub(crate) const ALL: [ContainerdRelease; 2] = [ContainerdRelease::One, ContainerdRelease::Two];

    /// The directory of plugins in which flock is installed.
    pub(crate) fn plugins(self) -> &'static str {
        match self {
            ContainerdRelease::One => "/usr/lib/cni",
            ContainerdRelease::Two => "/opt/cni/bin",
        }
    }

    fn program(self) -> String {
        match self {
            ContainerdRelease::One => "/usr/bin/containerd".to_owned(),
            ContainerdRelease::Two => format!("{}/bin/containerd", assets("runtimes")),
        }
    }

    /// Its own client.
    pub(crate) fn ctr(self) -> String {
        match self {
            ContainerdRelease::One => "/usr/bin/ctr".to_owned(),
            ContainerdRelease::Two => format!("{}/bin/ctr", assets("runtimes")),
        }
    }

    /// What `/etc/containerd/config.toml` says. Beside the directories of CNI it is about the private host, which may be a
    /// container itself: it cannot lower anybody's score at the end of memory, and has no cgroup controllers. The handler
    /// `broken` gets as far as the network and fails then.
    fn config(self) -> String {
        match self {
            ContainerdRelease::One => format!(
                r#"{}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  disable_cgroup = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.broken]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.broken.options]
  BinaryName = "/run/broken-runtime"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
"#,
                documented("containerd 1.x")
            ),
            ContainerdRelease::Two => format!(
                r"{}
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'native'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '/run/runc-without-shares'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.broken]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.broken.options]
  BinaryName = '/run/broken-runtime'
",
                documented("containerd 2.x")
            ),
        }
    }
}

/// A running containerd. Killed when dropped; what it runs ends with the machine.
pub(crate) struct Containerd<'a> {
    pub(crate) host: &'a Host,
    pub(crate) release: ContainerdRelease,
    child: Mutex<Child>,
    log: Log,
}

impl<'a> Containerd<'a> {
    /// One with the image imported and flock installed among its plugins, which has no network yet.
    pub(crate) fn start(host: &'a Host, release: ContainerdRelease) -> Containerd<'a> {
        match release {
            ContainerdRelease::One => Containerd::start_with(host, release, release.plugins()),
            ContainerdRelease::Two => Containerd::start_with(host, release, &format!("{}/cni", assets("runtimes"))),
        }
    }

    /// The same, with the reference plugins of this directory.
    pub(crate) fn start_with(host: &'a Host, release: ContainerdRelease, reference: &str) -> Containerd<'a> {
        host.write("/etc/containerd/config.toml", &release.config());
        put_script(host.path("/run/broken-runtime"), "echo 'no such thing' >&2\nexit 1");
        put_script(host.path("/run/runc-without-shares"), RUNC_WITHOUT_SHARES);
        if reference != release.plugins() {
            // As after an installation by hand: there are no others.
            host.run(&format!("install -m 0755 -t {0} {reference}/loopback {reference}/portmap", release.plugins()));
            host.run("rm -r /usr/lib/cni");
        }
        host.run(&format!("install -m 0755 -t {} {FLOCK}", release.plugins()));
        let containerd = Containerd::run(host, release);
        let import = match release {
            ContainerdRelease::One => "images import --snapshotter native",
            ContainerdRelease::Two => "images import --local --snapshotter native",
        };
        host.run(&format!("{} -n k8s.io {import} {}/image.tar", release.ctr(), assets("runtimes")));
        wait_for("the image to be known", || {
            let images = containerd.crictl(&["images", "-o", "json"]);
            images.contains(IMAGE).then_some(())
        });
        containerd
    }

    /// One with what the last one has left.
    pub(crate) fn run(host: &'a Host, release: ContainerdRelease) -> Containerd<'a> {
        let log = Log::default();
        let child = Containerd::spawn(host, release, &log);
        let containerd = Containerd { host, release, child: Mutex::new(child), log };
        containerd.wait_until_it_answers();
        containerd
    }

    fn spawn(host: &Host, release: ContainerdRelease, log: &Log) -> Child {
        let path = format!("{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", assets("runtimes"));
        let mut command = host.daemon(&release.program());
        if release == ContainerdRelease::Two {
            command.env("PATH", path);
        }
        let mut child = command
            .args(["--log-level", "debug"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("containerd starts");
        log.keep(child.stderr.take().expect("piped"));
        child
    }

    /// Waits until the CRI is there.
    pub(crate) fn wait_until_it_answers(&self) {
        wait_for("containerd to answer", || self.try_crictl(&["version"]).status.success().then_some(()));
    }

    /// What it has logged so far, through all its lives.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().expect("unpoisoned")
    }

    /// Sends it a signal by name and waits for its end. Its containers stay.
    pub(crate) fn end(&self, signal: &str) {
        succeed(Command::new("kill").args(["-s", signal, &self.child().id().to_string()]));
        wait_for("containerd's end", || self.ended());
    }

    /// How it ended, unless it still runs.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().expect("waitable")
    }

    /// Starts it again after its end.
    pub(crate) fn again(&self) {
        *self.child() = Containerd::spawn(self.host, self.release, &self.log);
        self.wait_until_it_answers();
    }

    /// `crictl` with these arguments, about to be started.
    fn crictl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(&format!("{}/bin/crictl", assets("runtimes")));
        command.args(["--config", "/dev/null", "--timeout", "60s"]);
        for endpoint in ["--runtime-endpoint", "--image-endpoint"] {
            command.args([endpoint, "unix:///run/containerd/containerd.sock"]);
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// What `crictl` with these arguments does.
    pub(crate) fn try_crictl(&self, arguments: &[&str]) -> Output {
        self.crictl_command(arguments).output().expect("crictl starts")
    }

    /// The same, which must succeed.
    #[track_caller]
    pub(crate) fn crictl(&self, arguments: &[&str]) -> String {
        let output = self.try_crictl(arguments);
        assert!(
            output.status.success(),
            "{:?}: crictl {arguments:?}: {}",
            self.release,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// What its runtime says of itself.
    pub(crate) fn info(&self) -> Info {
        let began = Instant::now();
        let text = self.crictl(&["info"]);
        Info { value: serde_json::from_str(&text).expect("JSON"), elapsed: began.elapsed() }
    }

    /// Waits until kubelet would take the node's network for ready.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        wait_for("the network to be ready", || self.info().network().is_ok().then_some(()));
    }

    /// Waits until it is not, and returns why.
    #[track_caller]
    pub(crate) fn wait_until_not_ready(&self) -> String {
        wait_for("the network not to be ready", || self.info().network().err())
    }

    /// A pod in the making: its first sandbox, without annotations.
    pub(crate) fn pod(&self, name: &str) -> PodConfig<'_, 'a> {
        // kubelet makes the UID of a static pod from the file: 32 digits, no dashes.
        let uid = format!("{:032x}", name.bytes().fold(0u128, |sum, byte| sum * 256 + u128::from(byte)));
        let config = json!({
            "metadata": {"name": name, "namespace": "default", "uid": uid, "attempt": 0},
            "hostname": name,
            "log_directory": "/run/tmp",
            "annotations": {},
            "linux": {},
        });
        PodConfig { containerd: self, config, handler: None }
    }

    /// The ids of the sandboxes that it knows.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        self.crictl(&["pods", "--quiet"]).lines().map(str::to_owned).collect()
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        self.child().kill().ok();
        self.child().wait().ok();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log
                .lines()
                .filter(|line| !line.contains("level=info") && !line.contains("level=debug"))
                .rev()
                .take(40)
                .collect();
            eprintln!("{:?}: log of containerd:", self.release);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// What `crictl info` says.
pub(crate) struct Info {
    pub(crate) value: Value,
    pub(crate) elapsed: Duration,
}

impl Info {
    /// Whether the network is ready, or what is said against it.
    pub(crate) fn network(&self) -> Result<(), String> {
        let conditions = self.value["status"]["conditions"].as_array().expect("conditions");
        let network = conditions.iter().find(|condition| condition["type"] == "NetworkReady").expect("NetworkReady");
        if network["status"] == true {
            return Ok(());
        }
        Err(network["message"].as_str().unwrap_or_default().to_owned())
    }

    /// The names of the networks that are loaded, without that of `lo`.
    pub(crate) fn networks(&self) -> Vec<String> {
        let networks = self.value["cniconfig"]["Networks"].as_array().cloned().unwrap_or_default();
        let names = networks.iter().filter_map(|network| network["Config"]["Name"].as_str().map(str::to_owned));
        names.filter(|name| name != "cni-loopback").collect()
    }

    /// How loading the configuration went the last time.
    pub(crate) fn load_status(&self) -> String {
        self.value["lastCNILoadStatus"].as_str().unwrap_or_default().to_owned()
    }
}

/// The configuration of a sandbox, as kubelet sends it.
pub(crate) struct PodConfig<'c, 'a> {
    containerd: &'c Containerd<'a>,
    config: Value,
    handler: Option<&'static str>,
}

impl<'c, 'a> PodConfig<'c, 'a> {
    /// With an annotation of flock's.
    pub(crate) fn annotation(mut self, key: &str, value: &str) -> Self {
        self.config["annotations"][format!("flock.fritzlab.net/{key}")] = json!(value);
        self
    }

    /// The sandbox with this number of the same pod.
    pub(crate) fn attempt(mut self, attempt: u32) -> Self {
        self.config["metadata"]["attempt"] = json!(attempt);
        self
    }

    /// With a port of the host that leads to a port of the pod.
    pub(crate) fn host_port(mut self, host: u16, container: u16) -> Self {
        self.config["port_mappings"] = json!([{"protocol": 0, "container_port": container, "host_port": host}]);
        self
    }

    /// By a runtime that fails behind the network.
    pub(crate) fn broken(mut self) -> Self {
        self.handler = Some("broken");
        self
    }

    fn file(&self) -> String {
        let metadata = &self.config["metadata"];
        let path = format!("/run/tmp/{}-{}.json", metadata["name"].as_str().expect("text"), metadata["attempt"]);
        self.containerd.host.write(&path, &self.config.to_string());
        path
    }

    fn arguments<'f>(&self, file: &'f str) -> Vec<&'f str> {
        let handler = self.handler.map(|handler| ["--runtime", handler]);
        std::iter::once("runp").chain(handler.into_iter().flatten()).chain([file]).collect()
    }

    /// RunPodSandbox, as a process that goes on beside the test.
    pub(crate) fn begin(&self) -> Child {
        let mut command = self.containerd.crictl_command(&self.arguments(&self.file()));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("crictl starts")
    }

    /// RunPodSandbox: the sandbox, or what kubelet hears.
    pub(crate) fn try_run(self) -> Result<Sandbox<'c, 'a>, String> {
        let file = self.file();
        let output = self.containerd.try_crictl(&self.arguments(&file));
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let id = String::from_utf8(output.stdout).expect("text").trim().to_owned();
        Ok(Sandbox { containerd: self.containerd, id, file })
    }

    /// RunPodSandbox, which must succeed.
    #[track_caller]
    pub(crate) fn run(self) -> Sandbox<'c, 'a> {
        self.try_run().unwrap_or_else(|error| panic!("no sandbox: {error}"))
    }
}

/// A sandbox.
pub(crate) struct Sandbox<'c, 'a> {
    pub(crate) containerd: &'c Containerd<'a>,
    pub(crate) id: String,
    file: String,
}

impl<'c> Sandbox<'c, '_> {
    /// What the runtime says of it.
    pub(crate) fn inspect(&self) -> Value {
        serde_json::from_str(&self.containerd.crictl(&["inspectp", &self.id])).expect("JSON")
    }

    /// The addresses that kubelet hears, the first of which becomes the pod's.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let network = &self.inspect()["status"]["network"];
        let further = network["additionalIps"].as_array().into_iter().flatten().map(|ip| &ip["ip"]);
        let texts = std::iter::once(&network["ip"]).chain(further).filter_map(Value::as_str);
        texts.filter(|text| !text.is_empty()).map(|text| text.parse().expect("an address")).collect()
    }

    /// Its network namespace.
    pub(crate) fn pod(&self) -> Pod<'c> {
        let sandbox = self.inspect();
        let namespaces = sandbox["info"]["runtimeSpec"]["linux"]["namespaces"].as_array().expect("namespaces").clone();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network").expect("a namespace");
        let name = Path::new(network["path"].as_str().expect("a path")).file_name().expect("a name");
        Pod { host: self.containerd.host, name: name.to_str().expect("text").to_owned() }
    }

    /// The global addresses of its `eth0`, as the kernel shows them.
    pub(crate) fn kernel_ips(&self) -> Vec<IpAddr> {
        let links: Value =
            serde_json::from_str(&self.pod().run("ip -j addr show dev eth0 scope global")).expect("JSON");
        let addresses = links[0]["addr_info"].as_array().expect("addresses");
        addresses
            .iter()
            .filter_map(|address| address["local"].as_str())
            .map(|text| text.parse().expect("valid"))
            .collect()
    }

    /// Starts a container in it that says the pod's name to whoever connects to this port.
    pub(crate) fn serve(&self, port: u16) {
        let config = json!({
            "metadata": {"name": "server"},
            "image": {"image": IMAGE},
            "args": ["serve", port.to_string()],
            "log_path": format!("{}.log", self.id),
            "linux": {},
        });
        let path = format!("/run/tmp/{}-container.json", self.id);
        self.containerd.host.write(&path, &config.to_string());
        let id = self.containerd.crictl(&["create", "--no-pull", &self.id, &path, &self.file]);
        self.containerd.crictl(&["start", &id]);
    }

    /// StopPodSandbox.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.containerd.crictl(&["stopp", &self.id]);
    }

    /// StopPodSandbox: nothing, or what kubelet hears.
    pub(crate) fn try_stop(&self) -> Result<(), String> {
        let output = self.containerd.try_crictl(&["stopp", &self.id]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// RemovePodSandbox.
    #[track_caller]
    pub(crate) fn remove(&self) {
        self.containerd.crictl(&["rmp", &self.id]);
    }

    /// Both.
    #[track_caller]
    pub(crate) fn end(&self) {
        self.stop();
        self.remove();
    }
}
