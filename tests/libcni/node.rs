//! A node with a runtime on it: a directory of plugins, a directory of configurations, and the drivers that call libcni as
//! a runtime of that release does.
//!
//! The programs come from `tests/libcni/assets`, and Debian's plugins from its package. What is chained is what the test has
//! put in place.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::assets::assets;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::machine::Machine;
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, put_copy, succeed};
use crate::support::waiting::{PATIENCE, wait_for};

/// A release of libcni.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LibcniRelease {
    pub name: &'static str,
    /// The newest version of the specification that it knows.
    pub newest: &'static str,
    /// Whether it chooses from `cniVersions`, and has GC and STATUS.
    pub modern: bool,
}

/// Every release that is driven, oldest first. `tests/libcni/assets` builds the same ones.
pub const RELEASES: [LibcniRelease; 6] = [
    LibcniRelease { name: "v0.8.1", newest: "0.4.0", modern: false },
    LibcniRelease { name: "v1.0.1", newest: "1.0.0", modern: false },
    LibcniRelease { name: "v1.1.2", newest: "1.0.0", modern: false },
    LibcniRelease { name: "v1.2.3", newest: "1.1.0", modern: true },
    LibcniRelease { name: "v1.3.0", newest: "1.1.0", modern: true },
    LibcniRelease { name: "v1.3.1", newest: "1.1.0", modern: true },
];

/// The newest release.
pub const NEWEST: LibcniRelease = RELEASES[5];

/// Every version of the specification that flock serves, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

impl LibcniRelease {
    /// Whether it can decode a result of this version.
    pub fn knows(self, version: &str) -> bool {
        // The texts of these versions sort as the versions do.
        version <= self.newest
    }
}

/// A program of the test tools.
pub fn tool(name: &str) -> PathBuf {
    Path::new(assets("libcni")).join(name)
}

/// A reference plugin of the pinned release.
pub fn newest_plugin(name: &str) -> PathBuf {
    tool(&format!("plugins/{name}"))
}

/// Where plugins are on the node: a directory that the agent looks at, too.
const PLUGINS: &str = "/usr/lib/cni";
/// Where configurations are on the node.
pub const NET_D: &str = "/run/net.d";
const LOG: &str = "/run/calls.log";

/// A host with a runtime, and flock's plugin where the runtime looks for it.
pub struct Node {
    pub host: Host,
}

impl Node {
    pub fn new() -> Node {
        let host = Host::new();
        assert!(
            Path::new(PLUGINS).join("portmap").exists(),
            "the package containernetworking-plugins is missing: run these tests by `make test-libcni`"
        );
        host.run("mkdir /run/net.d");
        let node = Node { host };
        node.plugin("flock", Path::new(FLOCK));
        node
    }

    /// Puts a plugin in place under this name, whatever had it before.
    pub fn plugin(&self, name: &str, program: &Path) {
        let place = format!("{PLUGINS}/{name}");
        succeed(self.host.command("ln").arg("-sfn").arg(program).arg(place));
    }

    /// Puts a plugin in place as Debian ships it. The node does not see the machine's, so it gets a copy.
    pub fn debian_plugin(&self, name: &str) {
        put_copy(Path::new(PLUGINS).join(name), self.host.path(&format!("{PLUGINS}/{name}")));
    }

    /// Writes a configuration into the runtime's directory.
    pub fn conf(&self, file: &str, list: &Value) -> String {
        let path = format!("{NET_D}/{file}");
        fs::write(self.host.path(&path), list.to_string()).expect("writable");
        path
    }

    /// An agent that installs itself as the node's CNI and has done so.
    pub fn installed_agent(&self) -> Agent<'_> {
        let agent = self.host.agent().args(&["--cni-conf-dir", NET_D]).start();
        agent.wait_log("CNI configuration written");
        agent
    }

    /// Waits until the agent has found out by itself that the last pod, whose namespace was removed, is gone.
    pub fn wait_freed(&self, agent: &Agent<'_>) {
        wait_for("the end of the lease", || {
            // A lease ends when two rounds have missed its link, and the kernel takes a namespace down in its own time.
            agent.signal("HUP");
            self.host.leases().is_empty().then_some(())
        });
        self.host.assert_empty();
    }

    /// The list that a runtime takes: the first by name.
    pub fn first_conf(&self) -> String {
        let mut names: Vec<String> = fs::read_dir(self.host.path(NET_D))
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .filter(|name| name.ends_with(".conflist"))
            .collect();
        names.sort();
        format!("{NET_D}/{}", names.first().expect("a configuration"))
    }

    /// A runtime of this release.
    pub fn runtime(&self, release: LibcniRelease) -> Runtime<'_> {
        Runtime {
            node: self,
            release,
            conf: None,
            cache: format!("/run/cache-{}", release.name),
            capabilities: json!({}),
            env: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// The calls that recorders have written down since the last look.
    pub fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.host.path(LOG)).unwrap_or_default();
        fs::remove_file(self.host.path(LOG)).ok();
        text.lines().map(|line| Call(serde_json::from_str(line).expect("JSON of the recorder"))).collect()
    }

    /// The verbs and plugins of those calls, such as `ADD flock`.
    pub fn order(&self) -> Vec<String> {
        self.calls().iter().map(Call::name).collect()
    }
}

/// A call as a recorder saw it.
pub struct Call(Value);

impl Call {
    pub fn name(&self) -> String {
        format!("{} {}", self.verb(), self.0["plugin"].as_str().expect("a name"))
    }

    pub fn verb(&self) -> &str {
        self.0["verb"].as_str().expect("a verb")
    }

    pub fn env(&self) -> &Value {
        &self.0["env"]
    }

    pub fn stdin(&self) -> &Value {
        &self.0["stdin"]
    }
}

/// A list with this version of the specification and these plugins.
pub fn list(version: &str, plugins: &[Value]) -> Value {
    json!({"cniVersion": version, "name": "flock", "plugins": plugins})
}

/// The entry of flock in a list, as it is shipped.
pub fn flock() -> Value {
    json!({"type": "flock", "capabilities": {"io.kubernetes.cri.pod-annotations": true}})
}

/// A runtime in the making: a release of libcni and what it calls it with.
#[derive(Clone)]
pub struct Runtime<'a> {
    pub node: &'a Node,
    pub release: LibcniRelease,
    conf: Option<String>,
    pub cache: String,
    capabilities: Value,
    env: Vec<(String, OsString)>,
    arguments: Vec<String>,
}

impl Runtime<'_> {
    /// With this file instead of the one that the agent has written.
    pub fn conf(mut self, path: &str) -> Self {
        self.conf = Some(path.into());
        self
    }

    /// Of another release.
    pub fn release(mut self, release: LibcniRelease) -> Self {
        self.release = release;
        self
    }

    /// With a capability argument.
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities[name] = value;
        self
    }

    /// With the pod's port on a port of the host.
    pub fn host_port(self, host: u16, pod: u16) -> Self {
        self.capability("portMappings", json!([{"hostPort": host, "containerPort": pod, "protocol": "tcp"}]))
    }

    /// With a variable for the plugins.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With a recorder under flock's name that hands each call on to flock.
    pub fn recorded(self) -> Self {
        self.node.plugin("flock", &tool("recorder"));
        self.env("RECORDER_REAL_flock", FLOCK)
    }

    /// With the result in another version than the list's.
    pub fn converted(mut self, version: &str) -> Self {
        self.arguments = vec!["-as".into(), version.into()];
        self
    }

    /// Calls libcni for a pod.
    pub fn call(&self, verb: &str, pod: &Pod<'_>) -> Answer {
        self.call_with(verb, &["-id", &pod.name, "-netns", &pod.path(), "-args", &kubernetes(&pod.name)])
    }

    /// Calls libcni with further arguments of the driver.
    pub fn call_with(&self, verb: &str, arguments: &[&str]) -> Answer {
        let conf = self.conf.clone().unwrap_or_else(|| format!("{NET_D}/01-flock.conflist"));
        let driver = tool(&format!("driver-{}", self.release.name));
        let mut command = self.node.host.command("env");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("RECORDER_LOG", LOG);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg(driver).args([verb, "-conf", &conf, "-path", PLUGINS, "-cache", &self.cache]);
        command.args(["-cap", &self.capabilities.to_string()]).args(&self.arguments).args(arguments);
        let text = succeed(&mut command);
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Answer { release: self.release, verb: verb.into(), answer }
    }

    /// ADD that must succeed.
    #[track_caller]
    pub fn add(&self, pod: &Pod<'_>) -> Attached {
        Attached { result: self.call("add", pod).done() }
    }

    /// CHECK that must succeed.
    #[track_caller]
    pub fn check(&self, pod: &Pod<'_>) {
        self.call("check", pod).done();
    }

    /// DEL that must succeed.
    #[track_caller]
    pub fn del(&self, pod: &Pod<'_>) {
        self.call("del", pod).done();
    }

    /// GC with `eth0` of these containers as what is valid.
    pub fn gc(&self, valid: &[&str]) -> Answer {
        let valid: Vec<Value> = valid.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
        self.call_with("gc", &["-valid", &Value::from(valid).to_string()])
    }

    /// GC without a list, as `cnitool gc` does it.
    pub fn gc_without_list(&self) -> Answer {
        self.call_with("gc", &[])
    }

    pub fn status(&self) -> Answer {
        self.call_with("status", &[])
    }

    /// The files in its cache.
    pub fn cached(&self) -> Vec<String> {
        let results = self.node.host.path(&format!("{}/results", self.cache));
        let entries = fs::read_dir(results).into_iter().flatten();
        entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect()
    }

    /// The file in its cache that stands for this pod.
    pub fn cache_file(&self, pod: &Pod<'_>) -> PathBuf {
        self.node.host.path(&format!("{}/results/flock-{}-eth0", self.cache, pod.name))
    }
}

/// The arguments that kubelet's runtimes send.
fn kubernetes(pod: &str) -> String {
    format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}")
}

/// What libcni returned.
#[derive(Debug)]
pub struct Answer {
    release: LibcniRelease,
    verb: String,
    answer: Value,
}

impl Answer {
    /// The version that libcni chose from the list.
    pub fn version(&self) -> &str {
        self.answer["version"].as_str().unwrap_or_default()
    }

    /// The result of a success; null for verbs without one.
    #[track_caller]
    pub fn done(&self) -> Value {
        let Answer { release, verb, answer } = self;
        assert_eq!(answer["error"], Value::Null, "{verb} by libcni {}", release.name);
        answer["result"].clone()
    }

    /// The text of a failure, as a runtime shows it; none of a success.
    pub fn error(&self) -> Option<&str> {
        self.answer["error"]["text"].as_str()
    }

    /// The text of what must be a failure.
    #[track_caller]
    pub fn failed(&self) -> &str {
        self.error().unwrap_or_else(|| panic!("{self:?} is no failure"))
    }

    /// The code of the plugin's error object, and its message.
    #[track_caller]
    pub fn plugin_error(&self) -> (u64, &str) {
        self.failed();
        let error = &self.answer["error"];
        (error["code"].as_u64().expect("a code"), error["msg"].as_str().expect("a message"))
    }
}

/// A port that listens in a network namespace.
pub struct Service(TcpListener);

impl Service {
    /// Listens for both families.
    pub fn on(pod: &Pod<'_>, port: u16) -> Service {
        let listener = inside(&pod.host.path(&pod.path()), || TcpListener::bind(format!("[::]:{port}")));
        let listener = listener.expect("it listens");
        listener.set_nonblocking(true).expect("it does not block");
        Service(listener)
    }

    /// Says something from the namespace `from` to `to`, which shall end here, and hears it come back. Tells who the
    /// service takes the caller for; none when nothing came through.
    pub fn called(&self, from: &Path, to: SocketAddr) -> Option<IpAddr> {
        let mut near = inside(from, || TcpStream::connect_timeout(&to, Duration::from_secs(1))).ok()?;
        near.set_read_timeout(Some(PATIENCE)).ok()?;
        // The caller's end of the handshake is done, and its last packet is on its way, unless somebody else has taken the call.
        let deadline = Instant::now() + Duration::from_secs(1);
        let (mut far, caller) = loop {
            match self.0.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                }
                other => break other.ok()?,
            }
        };
        far.set_nonblocking(false).ok()?;
        far.set_read_timeout(Some(PATIENCE)).ok()?;
        near.write_all(b"there").ok()?;
        let mut heard = [0; 5];
        far.read_exact(&mut heard).ok()?;
        far.write_all(&heard).ok()?;
        near.read_exact(&mut heard).ok()?;
        assert_eq!(&heard, b"there");
        Some(caller.ip().to_canonical())
    }
}

/// Does something in a network namespace.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    Netns::open(netns).expect("a namespace").run(work).expect("it can be entered")
}

/// The addresses of another machine, whose way to everything is the host.
pub const MACHINE4: &str = "192.0.2.2";
pub const MACHINE6: &str = "2001:db8:ffff::2";

/// That machine, behind the host's link `uplink`.
pub fn machine(host: &Host) -> Machine<'_> {
    let [ours4, ours6] = ["192.0.2.1", "2001:db8:ffff::1"];
    // What the host forwards to a neighbour over IPv6, it asks for from a link-local address.
    let here = [&format!("{ours4}/24"), &format!("{ours6}/64"), "fe80::1:1/64"];
    let machine =
        host.machine("uplink", &here, &[&format!("{MACHINE4}/24"), &format!("{MACHINE6}/64"), "fe80::1:2/64"]);
    for ours in [ours4, ours6] {
        machine.run(&format!("ip route add default via {ours}"));
    }
    machine
}

/// `address` and port.
pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}
