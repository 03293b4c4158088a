//! The node of a story: the real agent, the real plugin, pods, and a look at what the kernel shows, without flock's own reading of
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use flock::record::format::{Record, decode};
use model::addr::Attachment;
use model::lease::{Lease, Phase};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::inside::Inside as _;
use crate::machine::{HOST4, HOST6, has_ipv6, links};
use crate::ping::Pinger;

/// The ranges of the pods.
pub const CIDR6: &str = "2001:db8:1:f001::/64";
pub const CIDR4: &str = "10.25.214.0/23";

/// How long a fact may take. A machine without hardware to help it shares a processor with others.
const PATIENCE: Duration = Duration::from_secs(60);

const ARMED: &str = "/run/failpoints";

const CONFIG: &str = "/run/node.yaml";

/// What the agents of this story have logged.
static LOG: Mutex<String> = Mutex::new(String::new());

pub fn log() -> String {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub fn forget_log() {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// Waits until `look` finds something, and panics with `what` when it does not.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The addresses of the host itself.
pub fn host_addresses() -> Vec<IpAddr> {
    let all = [HOST6, HOST4].map(|ip| ip.parse::<IpAddr>().expect("an address"));
    all.into_iter().filter(|ip| ip.is_ipv4() || has_ipv6()).collect()
}

/// Gives the node both ranges, or those that the kernel can bear, and these fields beside them.
pub fn configure(more: &Value) {
    let mut spec = more.clone();
    spec["cidr4"] = CIDR4.into();
    if has_ipv6() {
        spec["cidr6"] = CIDR6.into();
    }
    write_config(&spec);
}

/// Replaces the NodeConfig, as an editor does it.
fn write_config(spec: &Value) {
    let manifest = json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1",
        "kind": "NodeConfig",
        "metadata": {"name": "machine"},
        "spec": spec,
    });
    fs::write("/run/node.yaml.new", manifest.to_string()).expect("written");
    fs::rename("/run/node.yaml.new", CONFIG).expect("renamed");
}

/// A running agent. Killed when it is dropped.
pub struct Agent(Child);

impl Agent {
    /// An agent with both ranges, or with those that the kernel can bear, that listens.
    pub fn start() -> Agent {
        let ranges: &[&str] = if has_ipv6() { &[CIDR6, CIDR4] } else { &[CIDR4] };
        Agent::with(ranges)
    }

    pub fn with(ranges: &[&str]) -> Agent {
        Agent::listens(|| Agent::launch(ranges))
    }

    /// An agent that listens, with these fields of the NodeConfig beside the ranges and these arguments.
    pub fn of(more: &Value, arguments: &[&str]) -> Agent {
        configure(more);
        Agent::listens(|| Agent::run(arguments))
    }

    fn listens(launch: impl FnOnce() -> Agent) -> Agent {
        let before = log().matches("flock-agent listens").count();
        let mut agent = launch();
        wait_for("the agent to listen", || {
            assert_eq!(agent.0.try_wait().expect("waitable"), None, "the agent has ended");
            (log().matches("flock-agent listens").count() > before).then_some(())
        });
        agent
    }

    /// Without waiting until it listens.
    pub fn launch(ranges: &[&str]) -> Agent {
        let spec = ranges.iter().map(|range| (if range.contains(':') { "cidr6" } else { "cidr4" }, *range));
        write_config(&spec.collect::<BTreeMap<&str, &str>>().into_iter().collect());
        Agent::run(&[])
    }

    fn run(arguments: &[&str]) -> Agent {
        let mut child = Command::new("/bin/flock-agent")
            .args(["--node-name", "machine", "--node-config", CONFIG, "--import", "/run/none"])
            .args(arguments)
            .env("FLOCK_FAILPOINTS", ARMED)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        Agent(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// Has it look at everything now.
    pub fn look_again(&self) {
        self.signal(Signal::HUP);
    }

    /// Ends it in order.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.0.wait().expect("waitable");
        assert!(status.success(), "{status}");
    }

    pub fn kill(mut self) {
        self.0.kill().expect("killable");
        self.0.wait().expect("waitable");
    }

    /// Waits for an end that nobody asked for, and tells whether it was a success.
    pub fn ends(&mut self) -> bool {
        wait_for("the agent's end", || self.0.try_wait().expect("waitable")).success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Has the agent pass its named points as these lines say (`src/process/failpoint.rs`).
pub fn arm(lines: &str) {
    fs::write("/run/failpoints.new", lines).expect("written");
    fs::rename("/run/failpoints.new", ARMED).expect("renamed");
}

/// A process that one of the points kills takes the file with it.
pub fn is_armed() -> bool {
    fs::exists(ARMED).expect("readable")
}

/// A pod: a network namespace with a name, as runtimes make them.
pub struct Pod {
    pub name: String,
}

impl Pod {
    pub fn new(name: &str) -> Pod {
        let pod = Pod { name: name.to_owned() };
        let path = pod.path();
        fs::write(&path, "").expect("made");
        thread::scope(|scope| {
            scope.spawn(|| {
                // The function is deprecated for what it does to descriptors with another flag than this one.
                #[allow(deprecated)]
                rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("a namespace of its own");
                mount_bind("/proc/thread-self/ns/net", &path).expect("kept");
            });
        });
        pod
    }

    pub fn many(prefix: &str, count: usize) -> Vec<Pod> {
        (0..count).map(|n| Pod::new(&format!("{prefix}{n}"))).collect()
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Netns::open(Path::new(&self.path())).expect("a namespace").run(work).expect("entered")
    }

    /// What the pod sends its packets with. It stays in the pod, whoever uses it.
    pub fn pinger(&self) -> Pinger {
        self.inside(Pinger::here)
    }

    /// One packet to each and back.
    #[track_caller]
    pub fn pings(&self, to: impl IntoIterator<Item = IpAddr>) {
        let mut pinger = self.pinger();
        for ip in to {
            assert!(pinger.ping(ip), "{} cannot reach {ip}", self.name);
        }
    }

    /// The names of the pod's links.
    pub fn links(&self) -> BTreeSet<String> {
        let text = self.inside(|| fs::read_to_string("/proc/thread-self/net/dev").expect("readable"));
        let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
        names.map(|name| name.trim().to_owned()).filter(|name| name != "lo").collect()
    }

    /// Its namespace ends, without a DEL.
    pub fn vanish(&self) {
        unmount(self.path(), UnmountFlags::DETACH).expect("unmounted");
        fs::remove_file(self.path()).expect("removed");
    }

    fn call(&self, verb: &str, more: &[(&str, Value)]) -> Call {
        let mut env =
            vec![("CNI_CONTAINERID", self.name.clone()), ("CNI_NETNS", self.path()), ("CNI_IFNAME", "eth0".into())];
        env.push(("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", self.name)));
        call(verb, &env, more)
    }

    /// ADD, again as long as the agent of this slow machine does not answer in time, as a kubelet does it.
    #[track_caller]
    pub fn add(&self) -> Attached {
        let said = wait_for("an answer to ADD", || {
            let call = self.call("ADD", &[]);
            (call.success || !call.said.contains("did not answer in time")).then_some(call)
        });
        Attached { result: serde_json::from_str(&said.succeeded()).expect("JSON") }
    }

    /// ADD, whatever becomes of it.
    pub fn try_add(&self) -> Call {
        self.call("ADD", &[])
    }

    #[track_caller]
    pub fn check(&self, attached: &Attached) {
        self.call("CHECK", &[("prevResult", attached.result.clone())]).succeeded();
    }

    #[track_caller]
    pub fn del(&self) {
        assert_eq!(self.call("DEL", &[]).succeeded(), "");
    }
}

/// A call of the plugin that has ended.
pub struct Call {
    pub success: bool,
    pub said: String,
}

impl Call {
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(self.success, "{}", self.said);
        self.said
    }

    #[track_caller]
    pub fn failed(self) -> String {
        assert!(!self.success, "{}", self.said);
        self.said
    }
}

/// Runs the plugin as a runtime does it.
pub fn call(verb: &str, env: &[(&str, String)], more: &[(&str, Value)]) -> Call {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "flock", "type": "flock"});
    for (key, value) in more {
        conf[key] = value.clone();
    }
    let mut child = Command::new("/bin/flock")
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_PATH", "/bin")
        .envs(env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the plugin starts");
    child.stdin.take().expect("piped").write_all(conf.to_string().as_bytes()).ok();
    let output = child.wait_with_output().expect("waitable");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Call { success: output.status.success(), said }
}

/// GC that keeps these pods.
#[track_caller]
pub fn collect_garbage(keep: &[&Pod]) {
    let keep: Vec<Value> = keep.iter().map(|pod| json!({"containerID": pod.name, "ifname": "eth0"})).collect();
    call("GC", &[], &[("cni.dev/valid-attachments", keep.into())]).succeeded();
}

/// A result of ADD.
pub struct Attached {
    pub result: Value,
}

impl Attached {
    pub fn ips(&self) -> Vec<IpAddr> {
        let ips = self.result["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str());
        ips.map(|text| text.split('/').next().expect("an address").parse().expect("an address")).collect()
    }

    pub fn host_link(&self) -> String {
        self.result["interfaces"][0]["name"].as_str().expect("a name").to_owned()
    }
}

/// The links of flock on this host.
pub fn flock_links() -> BTreeSet<String> {
    links().into_iter().filter(|name| name.starts_with("flock")).collect()
}

/// The leases on disk.
pub fn leases() -> Vec<Lease> {
    let bytes = fs::read("/run/flock/state/leases.log").unwrap_or_default();
    let mut leases = BTreeMap::<Attachment, Lease>::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        match decode(line).map(|line| line.record) {
            Some(Record::Put(lease)) => drop(leases.insert(lease.attachment.clone(), *lease)),
            Some(Record::Free(freed)) => drop(leases.remove(&freed.attachment)),
            _ => {}
        }
    }
    leases.into_values().collect()
}

/// The routes of the host to single addresses through links of flock, as /proc shows them.
pub fn routes() -> BTreeSet<(IpAddr, String)> {
    let mut routes = BTreeSet::new();
    for line in fs::read_to_string("/proc/net/route").expect("readable").lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = u32::from_str_radix(words[1], 16).expect("hexadecimal").to_ne_bytes();
        routes.insert((Ipv4Addr::from(ip).into(), words[0].to_owned()));
    }
    for line in fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = Ipv6Addr::from(u128::from_str_radix(words[0], 16).expect("hexadecimal"));
        // Of the kernel's own routes, those of link-local and multicast addresses are of no interest.
        if words[1] == "80" && !ip.is_unicast_link_local() && !ip.is_multicast() {
            routes.insert((ip.into(), words[9].to_owned()));
        }
    }
    routes.into_iter().filter(|(_, link)| link.starts_with("flock")).collect()
}

/// The addresses that the host answers to on links of flock.
pub fn gateways() -> BTreeSet<(IpAddr, String)> {
    let mut found = BTreeSet::new();
    for line in fs::read_to_string("/proc/net/if_inet6").unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = Ipv6Addr::from(u128::from_str_radix(words[0], 16).expect("hexadecimal"));
        found.insert((ip.into(), words[5].to_owned()));
    }
    found.into_iter().filter(|(_, link)| link.starts_with("flock")).collect()
}

/// The permanent neighbours of IPv4, as /proc shows them. It shows none of IPv6.
pub fn neighbours() -> BTreeSet<(IpAddr, String)> {
    let text = fs::read_to_string("/proc/net/arp").expect("readable");
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let permanent = rows.filter(|words| words[2] == "0x6");
    permanent.map(|words| (words[0].parse().expect("an address"), words[5].to_owned())).collect()
}

/// Where leases and kernel differ: each lease has its link, routes and neighbours, nothing else bears flock's names, and no address
/// is there twice.
pub fn differences() -> Vec<String> {
    let leases = leases();
    let mut found = Vec::new();
    let mut differs = |what: &str, seen: String, expected: String| {
        if seen != expected {
            found.push(format!("{what}: {seen} instead of {expected}"));
        }
    };
    let (mut expected, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for lease in &leases {
        let link = lease.host_link.to_string();
        differs("phase", format!("{:?}", lease.phase), format!("{:?}", Phase::Committed));
        differs(&link, shown(&link, "address"), lease.host_mac.to_string());
        differs(&link, shown(&link, "operstate"), "up".into());
        differs(&link, shown(&link, "ifalias"), format!("flock:{}", lease.attachment));
        for ip in lease.addresses() {
            differs(
                "times that an address is there",
                if taken.insert(ip) { "1".into() } else { ip.to_string() },
                "1".into(),
            );
            expected.insert((ip, link.clone()));
        }
    }
    let names: BTreeSet<String> = leases.iter().map(|lease| lease.host_link.to_string()).collect();
    differs("links", format!("{:?}", flock_links()), format!("{names:?}"));
    differs("routes", format!("{:?}", routes()), format!("{expected:?}"));
    expected.retain(|(ip, _)| ip.is_ipv4());
    differs("neighbours", format!("{:?}", neighbours()), format!("{expected:?}"));
    found
}

/// What /sys shows of a link; bytes that are no text as such.
pub fn shown(link: &str, file: &str) -> String {
    let bytes = fs::read(format!("/sys/class/net/{link}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Leases and kernel agree.
#[track_caller]
pub fn assert_sound(when: &str) {
    assert_eq!(differences(), Vec::<String>::new(), "{when}");
}

/// The same, of a machine so slow that an ADD may not be served in time: it is undone behind its answer.
#[track_caller]
pub fn wait_sound(when: &str) {
    wait_for(&format!("all to be sound {when}"), || differences().is_empty().then_some(()));
}

/// Nothing of any pod is left.
#[track_caller]
pub fn assert_empty() {
    // A DEL that this slow machine did not serve in time is noted, and carried out in a round.
    wait_for("all leases and links to go", || (leases().is_empty() && flock_links().is_empty()).then_some(()));
    assert_sound("at the end");
}
