//! The node daemon: its threads, and how its parts are put together.
//!
//! | thread | owns |
//! |---|---|
//! | main | the start, signals, the end |
//! | `ledger` | allocator and store; the single writer |
//! | `accept`, one `conn` per request (at most 384) | nothing: values in, values out |
//! | `log` | standard error: the one thread that may wait for whoever reads it |
//! | `link-events` | the kernel's announcements of removed links |
//! | `host-events` | the kernel's announcements of what others change; wakes `node` and `reconcile` |
//! | `remove-N`, one per removal (at most 256) | the wait in the kernel |
//! | `node` | the NodeConfig and the host's facts; writes the view, the host's settings and the node's own routes |
//! | `watch-nodeconfigs`, `watch-pods` | one watch machine each; only with Kubernetes |
//! | `watchdog` | what the service manager was told; only with one |
//! | `status` | what the API server was told of this node; only with Kubernetes |
//! | `reconcile` | nothing: compares, and acts through the verbs |
//! | `netns`, throw-away | one visit to a pod's namespace |
//!
//! A panic anywhere aborts the process: a daemon that lost one thread is worse than a restart, and the state bears it.

pub mod board;
pub mod entrance;
pub mod fault;
pub mod ledger;
pub mod node;
pub mod observe;
pub mod reconcile;
pub mod requirements;
pub mod settings;
pub mod suspicion;
pub mod verbs;
pub mod watchdog;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::agent::board::Board;
use crate::agent::entrance::{Deaf, Entrance};
use crate::agent::fault::Fault;
use crate::agent::ledger::Ledger;
use crate::agent::node::Node;
use crate::agent::node::cluster::{NodeConfigAudience, PodAudience};
use crate::agent::node::conflist::Conflist;
use crate::agent::node::gate::Gate;
use crate::agent::node::host::Host;
use crate::agent::node::last_good::LastGood;
use crate::agent::node::pods::Pods;
use crate::agent::node::portmap::{Overheard, Search};
use crate::agent::node::source::{ClusterSource, FileSource, Published, Source};
use crate::agent::node::state::NodeState;
use crate::agent::node::status::Reporter;
use crate::agent::node::wake::Wake;
use crate::agent::reconcile::{Reconciler, Turn};
use crate::agent::requirements::Unfit;
use crate::agent::settings::{ConfigSource, Settings};
use crate::agent::suspicion::Suspicions;
use crate::agent::verbs::Verbs;
use crate::agent::watchdog::Watchdog;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::changes::{Announcement, Announcements};
use crate::kernel::netlink::removal::LinkRemover;
use crate::kube::access::{Access, AccessError};
use crate::kube::account;
use crate::kube::client::{Client, KubeError};
use crate::kube::explained;
use crate::kube::kubeconfig;
use crate::kube::objects::{NodeConfigs, Pods as PodsOfNode};
use crate::kube::reflect::reflect;
use crate::process::exit::Exit;
use crate::process::log;
use crate::process::notify;
use crate::record::boot_clock;
use crate::record::disk::{Directory, DiskError, open_lockable_dir};
use crate::record::store::{Finding, Store, Unusable};
use crate::rpc::frame::FrameError;
use crate::rpc::listener::{BindError, Listener};
use crate::rpc::server::{Limits, Notice, Notify, Server};
use model::annotations::Excerpt;
use model::ipam::Draw;
use model::nodeconfig::check_node_name;

/// How long requests in service may take after SIGTERM. Below the time that the unit gives.
const DRAIN: Duration = Duration::from_secs(20);

/// How long the API server may take to hear that the agent stops.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Descriptors that are enough for all requests that may be in service.
const DESCRIPTORS: u64 = 4096;

/// How the agent presents itself to the API server.
const USER_AGENT: &str = concat!("flock-agent/", env!("CARGO_PKG_VERSION"));

/// Why the agent does not run.
#[derive(Debug)]
enum StartError {
    Unfit(Unfit),
    Directory(DiskError),
    Locked(PathBuf),
    Boot(io::Error),
    Bind(BindError),
    Netlink(NetlinkError),
    Recovery(Fault),
    Thread(io::Error),
    Access(AccessError),
    Kube(KubeError),
    /// Not the name of a node: where it comes from, and why.
    NodeName {
        given: bool,
        name: Excerpt,
        why: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Unfit(why) => write!(f, "{why}"),
            StartError::Directory(error) => write!(f, "{error}"),
            StartError::Locked(path) => write!(f, "another agent keeps its state here: {} is locked", path.display()),
            StartError::Boot(error) => write!(f, "the boot id cannot be read: {error}"),
            StartError::Bind(error) => write!(f, "{error}"),
            StartError::Netlink(error) => write!(f, "{error}"),
            StartError::Recovery(error) => write!(f, "record and kernel cannot be compared: {error}"),
            StartError::Thread(error) => write!(f, "a thread cannot be started: {error}"),
            StartError::Access(AccessError::NotInPod(_)) => f.write_str(
                "neither --kubeconfig nor --node-config is given, and this is not a pod of a cluster; flock-agent --help lists \
                 the flags",
            ),
            StartError::Access(error) => f.write_str(&explained(error)),
            StartError::Kube(error) => f.write_str(&explained(error)),
            StartError::NodeName { given: true, name, why } => {
                write!(f, "--node-name: {name} {why}; give the name that `kubectl get nodes` shows")
            }
            StartError::NodeName { given: false, name, why } => write!(
                f,
                "this host's name cannot be that of a node: {name} {why}; give --node-name, with the name that `kubectl get nodes` \
                 shows"
            ),
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT; SIGHUP makes it look again at everything. [`Exit::Misused`] when there is no usable source
/// of its NodeConfig, or no usable name: then the start was a mistake, and nothing has been touched.
pub fn run(settings: Settings) -> Exit {
    let origin = match origin(&settings.source) {
        Ok(origin) => origin,
        Err(error) => {
            complain(&StartError::Access(error));
            return Exit::Misused;
        }
    };
    let name = node_name(settings.node_name.as_deref(), &host_name(), matches!(origin, Origin::Api(_)));
    let name = match name {
        Ok(name) => name,
        Err(error) => {
            complain(&error);
            return Exit::Misused;
        }
    };
    if let Err(error) = log::start(settings.log_level, settings.log_format) {
        complain(&StartError::Thread(error));
        return Exit::Failed;
    }
    let exit = match serve(settings, name, origin) {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::error("flock-agent cannot run").with("err", &error).write();
            Exit::Failed
        }
    };
    log::flush();
    exit
}

fn complain(error: &StartError) {
    log::last_words(format!("flock-agent: {error}\n"));
}

/// Where the NodeConfig comes from.
enum Origin {
    File(PathBuf),
    Api(Box<Access>),
}

fn origin(source: &ConfigSource) -> Result<Origin, AccessError> {
    let access = match source {
        ConfigSource::File(path) => return Ok(Origin::File(path.clone())),
        ConfigSource::Kubeconfig(path) => kubeconfig::from_file(path),
        ConfigSource::Pod => account::in_pod(Path::new("/"), &|name| std::env::var(name).ok()),
    };
    access.map(|access| Origin::Api(Box::new(access)))
}

fn serve(settings: Settings, node_name: String, origin: Origin) -> Result<(), StartError> {
    let began = Instant::now();
    // Signals first: one that comes during the start ends the agent in order, right after it.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(StartError::Thread)?;
    requirements::look().map_err(StartError::Unfit)?;
    // First of all, since the state is below it by default: a link in its place must not lead the state elsewhere.
    if let Some(parent) = settings.socket.parent() {
        crate::record::disk::make_private_dir(parent).map_err(StartError::Directory)?;
    }
    let disk = Directory::open(&settings.state_dir).map_err(StartError::Directory)?;
    let _lock = lock(&settings.state_dir)?;
    let boot_id = boot_clock::id().map_err(StartError::Boot)?;
    let (mut store, findings) = Store::open(disk, &boot_id, boot_clock::now_ms());
    findings.iter().for_each(report);
    if let Err(error) = store.settle() {
        log::error("state cannot be recorded; pods can be deleted, and none added until it can")
            .with("err", error)
            .write();
    }
    let leases = store.leases().count();

    raise_descriptor_limit();
    // From here on callers queue instead of being refused.
    let handed_over = Listener::handed_over(io::stdin(), &settings.socket).map_err(StartError::Bind)?;
    let listener = match handed_over {
        Some(listener) => listener,
        None => Listener::bind(&settings.socket).map_err(StartError::Bind)?,
    };
    let ledger = Ledger::start(store, KernelDraw).map_err(StartError::Thread)?;
    let remover = LinkRemover::start().map_err(StartError::Netlink)?;
    let state = Board::<NodeState>::default();
    let (wake, woken) = channel();
    let (source, cluster) = match origin {
        Origin::File(path) => (Source::File(FileSource::new(path, node_name.clone())), None),
        Origin::Api(access) => {
            let cluster = Cluster::new(&access, node_name.clone(), wake.clone())?;
            let last_good = LastGood::new(&settings.state_dir);
            let source = ClusterSource::new(cluster.published.clone(), node_name.clone(), last_good);
            (Source::Cluster(source), Some(cluster))
        }
    };
    let pods = cluster.as_ref().map(|cluster| cluster.pods.clone());
    let gate = Gate::new(state.clone(), wake.clone());
    let verbs = Arc::new(Verbs::new(ledger.clone(), remover, gate, pods));
    let suspicions = Suspicions::default();
    let (reconcile, reconcile_woken) = channel();
    // Before the first look, so that nothing changes unheard between look and listening.
    listen(Announcements::open().map_err(StartError::Netlink)?, suspicions.clone(), wake.clone(), reconcile.clone())?;
    let mut reconciler = Reconciler::new(verbs.clone(), &flags.socket, suspicions.clone());
    reconciler.import(&flags.import).map_err(StartError::Recovery)?;
    reconciler.start().map_err(StartError::Recovery)?;

    let search = Search::default();
    let conflist = settings.cni_conf_dir.map(|dir| Conflist::new(dir, &settings.socket, search.clone()));
    let mut node = Node::new(source, Host::new(suspicions), conflist, ledger.clone(), state.clone());
    node.recall();
    // A file is read before the first request, but the agent is ready without it: DEL and STATUS need no configuration.
    node.round();
    // With the real handlers from the first request on: a DEL may have queued while the start was under way, and must not
    // be answered by anything that does not know the record.
    let server = Server::start(listener, Arc::new(Overheard::new(verbs, search)), Limits::default(), notices())
        .map_err(StartError::Thread)?;
    node.settle_conflist();

    let parts = vec![
        ("ledger", ledger.pulse()),
        ("accept", server.pulse()),
        ("node", node.pulse()),
        ("reconcile", reconciler.pulse()),
    ];
    let watchdog = Watchdog::new(ledger.clone(), state.clone(), parts);
    let entrance = Entrance::new(server.door());
    let keep_records = move || {
        if let Err(Deaf) = reconciler.run(&reconcile_woken, entrance) {
            end("agent cannot be called, it ends so that it is started anew");
        }
    };
    let mut threads = vec![spawn("node", move || node.run(&woken))?, spawn("reconcile", keep_records)?];
    let mut stops = Vec::new();
    let mut reported = None;
    if let Some(cluster) = &cluster {
        let running = cluster.start(ledger, state)?;
        threads.extend(running.threads);
        stops.extend(running.stops);
        reported = Some(running.reported);
    }

    log::info("flock-agent listens")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("node", node_name)
        .with("socket", settings.socket.display())
        .with("leases", leases)
        .with("ms", began.elapsed().as_millis())
        .write();
    notify::send("READY=1");
    if let Some(watchdog) = watchdog {
        let (stop, stopped) = channel();
        threads.push(spawn("watchdog", move || watchdog.keep(&stopped))?);
        stops.push(stop);
    }

    let signal = loop {
        match signals.forever().next() {
            // Look now instead of in some seconds: at the NodeConfig, the host, and the pods.
            Some(SIGHUP) => {
                log::info("looking again, as asked by SIGHUP").write_limited();
                wake.send(Wake::Again).ok();
                reconcile.send(Turn::Round).ok();
            }
            other => break other,
        }
    };
    notify::send("STOPPING=1\nSTATUS=finishing requests in service");
    log::info("flock-agent stops").with_some("signal", signal).write();
    if let Some(cluster) = &cluster {
        cluster.stopping.store(true, Ordering::Relaxed);
    }
    drop(stops);
    let (until, farewell) = (Instant::now() + DRAIN, Instant::now() + FAREWELL);
    // First the requests in service: they may wait for what the other threads do.
    let left = server.stop(until);
    wake.send(Wake::Stop).ok();
    reconcile.send(Turn::Stop).ok();
    if let (Some(cluster), Some(reported)) = (cluster, reported) {
        // It ends when the status has been written, or cannot be. A server that is away is not waited for any longer.
        reported.recv_timeout(farewell.saturating_duration_since(Instant::now())).ok();
        cluster.client.shutdown();
    }
    // A thread in mid-round is let finish, but an agent may end at any instruction, and the service manager waits only so long.
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    if left > 0 {
        log::warn("requests were still in service").with("requests", left).write();
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new().name(name.into()).spawn(work).map_err(StartError::Thread)
}

/// Starts the thread that hears what others change. It ends with the process, or when its socket is of no more use: then the
/// rounds see what it would have told.
fn listen(
    mut changes: Announcements,
    suspicions: Suspicions,
    wake: Sender<Wake>,
    reconcile: Sender<Turn>,
) -> Result<(), StartError> {
    let hear = move || {
        while let Some(heard) = changes.wait() {
            for change in heard {
                let (node, links) = match change {
                    Announcement::Host => (suspicions.host(), false),
                    Announcement::Surroundings => (suspicions.surroundings(), false),
                    Announcement::OwnRoute(ip) => (false, suspicions.link(|suspects| suspects.address(ip))),
                    Announcement::OwnLink(link) => (false, suspicions.link(|suspects| suspects.link(link))),
                    Announcement::Lost => {
                        (suspicions.host() | suspicions.surroundings(), suspicions.link(|all| all.all = true))
                    }
                };
                // Who is to be woken ends with the process, or before it.
                if node {
                    wake.send(Wake::Look).ok();
                }
                if links {
                    reconcile.send(Turn::Look).ok();
                }
            }
        }
        log::error("the kernel's announcements cannot be heard any more; what others change is seen in rounds only")
            .write();
    };
    spawn("host-events", hear).map(drop)
}

/// The parts of the agent that exist only with Kubernetes.
struct Cluster {
    node: String,
    client: Arc<Client>,
    published: Board<Published>,
    pods: Pods,
    wake: Sender<Wake>,
    /// The agent is about to end, and so may its watches.
    stopping: Arc<AtomicBool>,
}

/// A watch that has ended while the agent runs takes the agent with it: the service manager starts both anew, while an agent
/// that hears nothing any more would look healthy.
fn end_with(stopping: &AtomicBool) {
    if !stopping.load(Ordering::Relaxed) {
        end("watch has ended for good, the agent ends with it");
    }
}

/// The end of the process for a reason that its successor may not have.
fn end(why: &'static str) -> ! {
    log::error(why).write();
    log::flush();
    std::process::exit(1)
}

/// Threads, and what ends them when it is dropped.
struct Running {
    threads: Vec<JoinHandle<()>>,
    stops: Vec<Sender<()>>,
    /// Nothing comes through it. It ends when the last report has been written.
    reported: Receiver<()>,
}

impl Cluster {
    fn new(access: &Access, node: String, wake: Sender<Wake>) -> Result<Cluster, StartError> {
        let client =
            Client::new(access, USER_AGENT).map_err(StartError::Kube)?.telling(crate::agent::node::cluster::tell);
        Ok(Cluster {
            node,
            client: Arc::new(client),
            published: Board::default(),
            pods: Pods::default(),
            wake,
            stopping: Arc::default(),
        })
    }

    /// Starts the threads; each ends when its sender is dropped.
    fn start(&self, ledger: Ledger, state: Board<NodeState>) -> Result<Running, StartError> {
        let (client, node) = (self.client.clone(), self.node.clone());
        let (stop_configs, configs_stopped) = channel();
        let mut audience =
            NodeConfigAudience { node: node.clone(), published: self.published.clone(), wake: self.wake.clone() };
        let stopping = self.stopping.clone();
        let configs = spawn("watch-nodeconfigs", move || {
            reflect(&client, NodeConfigs { node }, &configs_stopped, &mut audience);
            end_with(&stopping);
        })?;
        let (client, node) = (self.client.clone(), self.node.clone());
        let (stop_pods, pods_stopped) = channel();
        let mut audience = PodAudience { pods: self.pods.clone() };
        let stopping = self.stopping.clone();
        let pods = spawn("watch-pods", move || {
            reflect(&client, PodsOfNode { node }, &pods_stopped, &mut audience);
            end_with(&stopping);
        })?;
        let reporter = Reporter::new(self.client.clone(), self.node.clone(), ledger, state);
        let (stop_status, status_stopped) = channel();
        let (reporting, reported) = channel();
        let status = spawn("status", move || {
            reporter.run(&status_stopped);
            drop(reporting);
        })?;
        Ok(Running {
            threads: vec![configs, pods, status],
            stops: vec![stop_configs, stop_pods, stop_status],
            reported,
        })
    }
}

/// One agent per state directory. Held until the process ends, however it ends. The lock is on the directory itself, so
/// that it needs no file, which a full or read-only disk might refuse.
fn lock(dir: &Path) -> Result<File, StartError> {
    let file = open_lockable_dir(dir).map_err(StartError::Directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(StartError::Locked(dir.into())),
    }
}

/// A request in service has up to five descriptors, and a login shell gives a thousand. The unit has its own number.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < most) {
        // Refused, requests that find no descriptor fail and come again.
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum }).ok();
    }
}

fn report(finding: &Finding) {
    match finding {
        Finding::OtherBoot => log::info("state of an earlier boot dropped").write(),
        Finding::TornTail => log::info("last record was cut off and never in force").write(),
        Finding::SetAside { why, kept_as } => {
            let line = match why {
                Unusable::Damaged { unreadable, misplaced } => {
                    log::error("state was damaged; what is beyond doubt is in force, and the kernel tells the rest")
                        .with("unreadable_lines", unreadable)
                        .with("misplaced_lines", misplaced)
                }
                Unusable::Version(found) => {
                    log::error("state is of another flock; the kernel tells what is there").with("version", found)
                }
                Unusable::Unreadable(error) => {
                    log::error("state cannot be read; the kernel tells what is there").with("err", error)
                }
            };
            line.with("kept_as", kept_as).write();
        }
    }
}

/// The name under which the node's objects stand in the API. A name that is given is taken as it is, or refused; the host's is made into
/// a node's as kubelet does it. Without the API nobody asks for the name, and a host that could not be a node serves all the same.
fn node_name(given: Option<&str>, host: &str, api: bool) -> Result<String, StartError> {
    let name = given.map_or_else(|| host.trim().to_lowercase(), str::to_owned);
    match check_node_name(&name) {
        Err(why) if api || given.is_some() => {
            Err(StartError::NodeName { given: given.is_some(), name: Excerpt::of(&name), why })
        }
        _ => Ok(name),
    }
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}

fn notices() -> Notify {
    Arc::new(|notice| match notice {
        Notice::Accept(error) => log::warn("connection cannot be accepted").with("err", error).write_limited(),
        Notice::Stranger { uid, pid } => log::warn("caller refused: neither root nor this user")
            .with("uid", uid)
            .with_some("pid", pid)
            .write_limited(),
        // Somebody only looked whether we listen.
        Notice::Request(FrameError::Closed(0)) => {}
        Notice::Request(error) => log::warn("request did not arrive").with("err", error).write_limited(),
        Notice::Abandoned(op) => {
            log::warn("request not carried out, its caller has gone").with("op", op).write_limited()
        }
        Notice::Answer(error) => log::warn("answer did not leave").with("err", error).write_limited(),
        Notice::Mode(was) => log::warn("permissions of the socket were changed, and are as before")
            .with("were", format!("{was:04o}"))
            .write_limited(),
    })
}

/// Random numbers of the kernel.
#[derive(Debug, Clone, Copy)]
struct KernelDraw;

impl Draw for KernelDraw {
    fn draw(&mut self) -> u128 {
        let mut bytes = [0u8; 16];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            // Once seeded at boot, the kernel's generator only ever fails by a signal.
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
        }
        u128::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_called_as_kubelet_calls_it() {
        for (given, host, want) in [
            (None, "Node-A\n", "node-a"),
            (None, " HOST.Example.COM \n", "host.example.com"),
            (None, "host001", "host001"),
            (Some("other"), "Node-A\n", "other"),
            (Some("other"), "", "other"),
        ] {
            for api in [true, false] {
                assert_eq!(node_name(given, host, api).ok().as_deref(), Some(want), "{host:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_a_node_is_refused_with_value_reason_and_remedy() {
        for (given, host, words) in [
            (Some("Node-A"), "", ["--node-name: \"Node-A\"", "'N'", "kubectl get nodes"]),
            (Some(""), "h", ["--node-name: \"\"", "is empty", "kubectl get nodes"]),
            (Some(" a"), "h", ["--node-name", "' '", "kubectl get nodes"]),
            (None, "my_host", ["host's name", "\"my_host\" has '_'", "give --node-name"]),
            (None, "(none)", ["host's name", "'('", "give --node-name"]),
            (None, "\n", ["host's name", "is empty", "give --node-name"]),
        ] {
            let text = node_name(given, host, true).expect_err("refused").to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            // A file is for whoever reads it.
            assert_eq!(node_name(given, host, false).is_err(), given.is_some(), "{host:?}");
        }
    }
}
