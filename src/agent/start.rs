//! The life of an agent in three phases, each a type: [`Opened`], [`Recovered`], [`Serving`].
//!
//! A phase owns what it has made, and the next one takes it over, so nothing can be called before its time. The function that
//! leads to a phase says why it does things in its order. Must not know how any part works.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::agent::again::Again;
use crate::agent::board::Board;
use crate::agent::boards::Boards;
use crate::agent::draw::KernelDraw;
use crate::agent::entrance::{Deaf, Entrance};
use crate::agent::fault::{Fault, Step};
use crate::agent::history::History;
use crate::agent::identity::{Identity, Origin};
use crate::agent::kubernetes::{Following, Kubernetes};
use crate::agent::ledger::Ledger;
use crate::agent::metrics::Metrics;
use crate::agent::metrics::listener;
use crate::agent::metrics::meters::Meters;
use crate::agent::node::Node;
use crate::agent::node::conflist::Conflist;
use crate::agent::node::gate::Gate;
use crate::agent::node::host::Host;
use crate::agent::node::last_good::LastGood;
use crate::agent::node::peers::Listed;
use crate::agent::node::portmap::{Overheard, Search};
use crate::agent::node::source::{ClusterSource, FileSource, Source};
use crate::agent::node::state::NodeState;
use crate::agent::node::wake::Wake;
use crate::agent::notices;
use crate::agent::policing::Policing;
use crate::agent::policing::directory::{self, Directory as PolicyDirectory};
use crate::agent::policing::handle::{Message, Police};
use crate::agent::policing::policies::{self, Policies};
use crate::agent::reconcile::{Reconciler, Turn};
use crate::agent::report::{Answering, Reports, Whence};
use crate::agent::requirements::{self, Unfit};
use crate::agent::routing::Routing;
use crate::agent::routing::anycast::Anycast;
use crate::agent::routing::bird::{Bird, Places, Speaking};
use crate::agent::routing::drain::DrainFile;
use crate::agent::routing::news::News;
use crate::agent::routing::others::Others;
use crate::agent::routing::state::Held;
use crate::agent::settings::Settings;
use crate::agent::suspicion::Suspicions;
use crate::agent::threads::{Threads, end, spawn};
use crate::agent::verbs::Verbs;
use crate::agent::verbs::claims::Claims;
use crate::agent::watchdog::Watchdog;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::changes::{Announcement, Announcements};
use crate::kernel::netlink::removal::LinkRemover;
use crate::kernel::netns::Visitors;
use crate::kube::client::KubeError;
use crate::kube::explained;
use crate::process::lock::Lock;
use crate::process::log;
use crate::process::notify;
use crate::record::boot_clock;
use crate::record::disk::{Directory, DiskError, make_private_dir, open_lockable_dir};
use crate::record::notes::Notes;
use crate::record::store::{Finding, Store, Unusable};
use crate::rpc::listener::{BindError, Listener};
use crate::rpc::server::{Limits, Server};
use model::claims::obstacle;

/// Longest time for the requests that are in service at SIGTERM, 20 s: less than the unit's `TimeoutStopSec=`.
const DRAIN: Duration = Duration::from_secs(20);

/// Longest wait for the first look at the tables, 1 s. A CNI configuration that it leaves out comes a little later.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Deadline for the first count of leases, 10 s.
const COUNT_LIMIT: Duration = Duration::from_secs(10);

/// Number of descriptors that is enough for all requests that may be in service.
const DESCRIPTORS: u64 = 4096;

/// The bits of the connection mark that are flock's. Others on the host mark connections, too; kube-proxy marks packets only.
const CONNECTION_MARK: u32 = 0x7fff_0000;

/// Why the agent does not run.
#[derive(Debug)]
pub enum StartError {
    /// Flock cannot work on this kernel.
    Unfit(Unfit),
    /// A directory cannot be used.
    Directory(DiskError),
    /// Another agent has this state directory.
    Locked(PathBuf),
    /// The boot id cannot be read.
    Boot(io::Error),
    /// The socket cannot be had.
    Bind(BindError),
    /// The kernel does not tell of its links.
    Netlink(NetlinkError),
    /// Record and kernel cannot be compared.
    Recovery(Fault),
    /// There is no thread, or no signal handler, to be had.
    Thread(io::Error),
    /// The API's client cannot be made.
    Kube(KubeError),
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
            StartError::Kube(error) => f.write_str(&explained(error)),
        }
    }
}

/// The first phase: this process alone has the state directory and knows what the record says, and callers queue at its socket.
/// Nothing of the kernel has been changed.
#[derive(Debug)]
pub struct Opened {
    began: Instant,
    signals: Signals,
    lock: File,
    store: Store<Directory>,
    listener: Listener,
    socket: PathBuf,
    state_dir: PathBuf,
    pod_cidrs: bool,
    policy_dir: Option<PathBuf>,
    cni_conf_dir: Option<PathBuf>,
    import: PathBuf,
    bird: Places,
    metrics: Option<SocketAddr>,
}

impl Opened {
    /// Opens what the settings name.
    ///
    /// - Signals come first: one that arrives during the start ends the agent in order, right after it.
    /// - The kernel is looked at before the first file: an agent that can never serve leaves nothing behind.
    /// - The socket's directory comes before the state, which is below it by default: a link in its place must not lead the state
    ///   elsewhere.
    /// - The lock comes before the record is read, since another agent may be writing it.
    /// - The socket comes last: from then on callers queue instead of being refused, and only who has the lock may take it.
    ///
    /// # Errors
    /// Everything but [`StartError::Netlink`], [`StartError::Recovery`] and [`StartError::Kube`].
    pub fn open(settings: Settings) -> Result<Opened, StartError> {
        let began = Instant::now();
        let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2]).map_err(StartError::Thread)?;
        requirements::look().map_err(StartError::Unfit)?;
        if let Some(parent) = settings.socket.parent() {
            make_private_dir(parent).map_err(StartError::Directory)?;
        }
        let disk = Directory::open(&settings.state_dir).map_err(StartError::Directory)?;
        let lock = lock(&settings.state_dir)?;
        let boot_id = boot_clock::id().map_err(StartError::Boot)?;
        let (mut store, findings) = Store::open(disk, &boot_id, boot_clock::now_ms());
        findings.iter().for_each(report);
        if let Err(error) = store.settle() {
            log::error("state cannot be recorded; pods can be deleted, and none added until it can")
                .with("err", error)
                .write();
        }
        raise_descriptor_limit();
        let handed_over = Listener::handed_over(io::stdin(), &settings.socket).map_err(StartError::Bind)?;
        let listener = match handed_over {
            Some(listener) => listener,
            None => Listener::bind(&settings.socket).map_err(StartError::Bind)?,
        };
        let Settings { socket, state_dir, pod_cidrs, policy_dir, cni_conf_dir, import, bird, metrics, .. } = settings;
        Ok(Opened {
            began,
            signals,
            lock,
            store,
            listener,
            socket,
            state_dir,
            pod_cidrs,
            policy_dir,
            cni_conf_dir,
            import,
            bird,
            metrics,
        })
    }

    /// Puts record and kernel in order, and the host as far as the NodeConfig is known.
    ///
    /// - Listening to the kernel's announcements begins before the first look, so that no change between the two is missed.
    /// - Pods of the Go flock are taken over before the comparison, which would take their links for nobody's.
    /// - The NodeConfig comes after it: an address is free only when the record is right. A file is read now, before the first
    ///   request; with the API, the last good configuration is recalled.
    ///
    /// # Errors
    /// [`StartError::Thread`], [`StartError::Netlink`], [`StartError::Recovery`] and [`StartError::Kube`].
    pub fn recover(self, identity: Identity) -> Result<Recovered, StartError> {
        let Identity { node_name, origin } = identity;
        let meters = Arc::new(Meters::default());
        let ledger = Ledger::start(self.store, KernelDraw).map_err(StartError::Thread)?;
        let remover = LinkRemover::start().map_err(StartError::Netlink)?;
        let state = Board::<NodeState>::default();
        let (wakers, woken) = Wakers::new();
        let (whence, source, kubernetes) = match origin {
            Origin::File(path) => {
                (Whence::File(path.clone()), Source::File(FileSource::new(path, node_name.clone())), None)
            }
            Origin::Api(access) => {
                let kubernetes =
                    Kubernetes::new(&access, node_name.clone(), self.pod_cidrs, &self.state_dir, wakers.node.clone());
                let kubernetes = kubernetes.map_err(StartError::Kube)?;
                let last_good = LastGood::new(&self.state_dir);
                let (published, fallback) = (kubernetes.published.clone(), kubernetes.node_object.clone());
                let source = ClusterSource::new(published, fallback, node_name.clone(), last_good);
                (Whence::Server(kubernetes.server.clone()), Source::Cluster(source.into()), Some(kubernetes))
            }
        };
        let history = History::default();
        let pods = kubernetes.as_ref().map(|kubernetes| kubernetes.pods.clone());
        let suspicions = Suspicions::default();
        let anycast = Anycast::new(pods.clone(), suspicions.clone());
        let gate = Gate::new(state.clone(), wakers.node.clone());
        let notes = Notes::beside(&self.socket);
        let board = kubernetes.as_ref().map(|of| of.policing.clone()).unwrap_or_default();
        let policed = (wakers.police.clone(), board.clone());
        let visitors = Visitors::new().map_err(StartError::Thread)?;
        let verbs =
            Verbs::new(ledger.clone(), (remover, visitors), gate, pods, notes, wakers.routing.clone(), policed.clone());
        let elsewhere = kubernetes
            .as_ref()
            .map(|of| elsewhere(node_name.clone(), state.clone(), of.peers.clone(), of.held.clone()));
        let telling = kubernetes.as_ref().map(|of| of.telling.clone()).unwrap_or_default();
        let verbs = verbs
            .telling(telling)
            .heeding(elsewhere.unwrap_or_default())
            .recording(history.clone())
            .counted_by(&meters);
        let verbs = Arc::new(verbs);
        let changes = Announcements::open().map_err(StartError::Netlink)?;
        listen(changes, suspicions.clone(), wakers.clone()).map_err(StartError::Thread)?;
        let mut reconciler = Reconciler::new(verbs.clone(), &self.socket, suspicions.clone(), history.clone());
        reconciler.import(&self.import).map_err(StartError::Recovery)?;
        reconciler.start().map_err(StartError::Recovery)?;
        let uncounted = |cause| StartError::Recovery(Fault { step: Step::Compare, cause });
        let leases = ledger.leases(Instant::now() + COUNT_LIMIT).map_err(uncounted)?.0.len();

        let search = Search::default();
        let conflist = self.cni_conf_dir.map(|dir| Conflist::new(dir, &self.socket, search.clone()));
        let drain = DrainFile::beside(&self.socket);
        let speaking = Board::default();
        let others = kubernetes
            .as_ref()
            .map(|of| Others::new(node_name.clone(), of.peers.clone(), speaking.clone(), of.held.clone()));
        let routes = kubernetes.as_ref().map(|kubernetes| kubernetes.routes.clone()).unwrap_or_default();
        let routing =
            Routing::new(ledger.clone(), state.clone(), suspicions.clone(), drain, others, anycast, routes.clone())
                .counted_by(&meters);
        let origin = match (&kubernetes, &self.policy_dir) {
            (Some(kubernetes), None) => policies::Origin::Api(kubernetes.wishes.clone()),
            (Some(kubernetes), Some(_)) => {
                log::warn("--policy-dir is for a node without Kubernetes, and not used").write();
                policies::Origin::Api(kubernetes.wishes.clone())
            }
            (None, Some(_)) => policies::Origin::Directory,
            (None, None) => policies::Origin::Nowhere,
        };
        let policy_dir = self.policy_dir.filter(|_| kubernetes.is_none());
        let policies = Policies::new(origin, &self.state_dir, CONNECTION_MARK);
        let peers = kubernetes.as_ref().map(|kubernetes| kubernetes.peers.clone());
        let (police, wake) = (wakers.police.clone(), wakers.node.clone());
        let boards = Boards {
            state: state.clone(),
            listed: peers.clone(),
            routes,
            policing: board.clone(),
            speaking: speaking.clone(),
            ends: kubernetes.as_ref().map(|kubernetes| kubernetes.ends.clone()).unwrap_or_default(),
        };
        let metrics = Arc::new(Metrics {
            meters: meters.clone(),
            ledger: ledger.clone(),
            usage: Lock::default(),
            boards: boards.clone(),
            watched: kubernetes.as_ref().map(|kubernetes| kubernetes.watched.clone()).unwrap_or_default(),
            load: OnceLock::new(),
            client: kubernetes.as_ref().map(|kubernetes| kubernetes.client().clone()),
        });
        let reports = Reports {
            node: node_name.clone(),
            source: whence,
            began: self.began,
            socket_is_handed_over: self.listener.is_handed_over(),
            boards,
            ledger: ledger.clone(),
            history: history.clone(),
            again: Again {
                reconcile: wakers.reconcile.clone(),
                node: wakers.node.clone(),
                routing: wakers.routing.clone(),
                state: state.clone(),
                history: history.clone(),
            },
            pods: kubernetes.as_ref().map(|kubernetes| kubernetes.pods.clone()),
            watched: kubernetes.as_ref().map(|kubernetes| kubernetes.watched.clone()).unwrap_or_default(),
        };
        let policing =
            Policing::new(ledger.clone(), state.clone(), peers, policies, police, board, wake).counted_by(&meters);
        let mut host = Host::new(suspicions, history).counted_by(&meters);
        if leases > 0 {
            // There are pods to serve: what they need of the host and of its routes is kept without a request.
            host.serve();
        }
        let mut node =
            Node::new(source, host, conflist, ledger.clone(), state.clone(), wakers.routing.clone(), policed);
        node.recall();
        node.round();
        Ok(Recovered {
            began: self.began,
            signals: self.signals,
            lock: self.lock,
            listener: self.listener,
            socket: self.socket,
            node_name,
            leases,
            ledger,
            state,
            wakers,
            woken,
            kubernetes,
            verbs,
            search,
            reconciler,
            node,
            routing,
            policing,
            policy_dir,
            speaking,
            reports,
            bird: self.bird,
            metrics,
            port: self.metrics,
        })
    }
}

/// The second phase: what the record says stands in the kernel, and nothing else of flock's does. Callers still queue.
#[derive(Debug)]
pub struct Recovered {
    began: Instant,
    signals: Signals,
    lock: File,
    listener: Listener,
    socket: PathBuf,
    node_name: String,
    leases: usize,
    ledger: Ledger,
    state: Board<NodeState>,
    wakers: Wakers,
    woken: Woken,
    kubernetes: Option<Kubernetes>,
    verbs: Arc<Verbs>,
    search: Search,
    reconciler: Reconciler,
    node: Node,
    routing: Routing,
    policing: Policing,
    policy_dir: Option<PathBuf>,
    speaking: Board<Speaking>,
    reports: Reports,
    bird: Places,
    metrics: Arc<Metrics>,
    /// Where metrics can be asked for.
    port: Option<SocketAddr>,
}

impl Recovered {
    /// Serves callers, and starts every thread.
    ///
    /// - Requests get the real handlers from the first one on: a DEL may have queued during the start, and only who knows the
    ///   record may answer it.
    /// - The CNI configuration comes after the server, since it makes the runtime call, and once it is known whether the kernel
    ///   takes what pods may send and receive.
    /// - The agent reports READY to the service manager when requests are served, and does not wait for a NodeConfig or the
    ///   API: DEL and STATUS need neither.
    ///
    /// # Errors
    /// [`StartError::Thread`].
    pub fn serve(self) -> Result<Serving, StartError> {
        self.start_all().map_err(StartError::Thread)
    }

    fn start_all(self) -> io::Result<Serving> {
        let Recovered { ledger, state, mut node, reconciler, routing, policing, woken, .. } = self;
        let handler =
            Arc::new(Answering::new(Overheard::new(self.verbs, self.search), self.reports, self.metrics.clone()));
        let server = Server::start(self.listener, handler, Limits::default(), notices::to_log())?;
        self.metrics.load.set(server.load()).ok();

        let parts = vec![
            ("ledger", ledger.progress()),
            ("accept", server.progress()),
            ("node", node.progress()),
            ("reconcile", reconciler.progress()),
            ("routing", routing.progress()),
            ("policing", policing.progress()),
        ];
        let (speaking, waker) = (self.speaking, self.wakers.routing.clone());
        let bird = Bird::new(self.bird, &self.socket, self.node_name.clone(), state.clone(), speaking.clone(), waker);
        let watchdog = Watchdog::new(ledger.clone(), state.clone(), parts);
        let entrance = Entrance::new(server.door());
        let threads = Threads::default();
        threads.start("policing", move || policing.run(&woken.policing))?;
        node.wait_for_tables(FIRST_LOOK);
        node.settle_conflist();
        threads.start("node", move || node.run(&woken.node))?;
        threads.start("reconcile", move || {
            if let Err(Deaf) = reconciler.run(&woken.reconcile, entrance) {
                end("agent cannot be called, it ends so that it is started anew");
            }
        })?;
        threads.start("routing", move || routing.run(&woken.routing))?;
        if let Some(path) = self.policy_dir {
            let directory = PolicyDirectory::new(path, self.wakers.police.tell());
            threads.start("policy-dir", move || directory.run(&woken.directory))?;
        }
        threads.start("bird", move || bird.run(&woken.bird))?;
        if let Some(address) = self.port {
            let metrics = self.metrics.clone();
            // Nobody waits for it at the end.
            spawn("metrics", move || listener::run(address, Arc::new(move || metrics.page())))?;
        }
        let following = match self.kubernetes {
            Some(kubernetes) => Some(kubernetes.follow(
                &threads,
                ledger,
                state,
                speaking,
                self.wakers.routing.clone(),
                &self.wakers.police,
            )?),
            None => None,
        };

        log::info("flock-agent listens")
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("node", self.node_name)
            .with("socket", self.socket.display())
            .number("leases", self.leases)
            .took(self.began.elapsed())
            .write();
        notify::send("READY=1");
        let (watching, unwatched) = channel();
        if let Some(watchdog) = watchdog {
            threads.start("watchdog", move || watchdog.run(&unwatched))?;
        }
        Ok(Serving {
            signals: self.signals,
            lock: self.lock,
            server,
            threads,
            wakers: self.wakers,
            following,
            watching,
        })
    }
}

/// The third phase: callers are served.
#[derive(Debug)]
pub struct Serving {
    signals: Signals,
    lock: File,
    server: Server,
    threads: Threads,
    wakers: Wakers,
    following: Option<Following>,
    /// The watchdog ends when this sender is gone.
    watching: Sender<()>,
}

impl Serving {
    /// Serves until SIGTERM or SIGINT, and stops.
    ///
    /// - The service manager and the API server learn of the end first, while requests in service go on.
    /// - Requests end before the threads that they may wait for.
    /// - The state directory stays locked to the last.
    pub fn until_told_to_stop(mut self) {
        let signal = self.wait_for_the_end();
        notify::send("STOPPING=1\nSTATUS=finishing requests in service");
        log::info("flock-agent stops").number_some("signal", signal).write();
        let until = Instant::now() + DRAIN;
        let leaving = self.following.map(Following::leave);
        drop(self.watching);
        let left = self.server.stop(until);
        self.wakers.stop();
        if let Some(leaving) = leaving {
            leaving.finish();
        }
        // A thread in mid-round may finish, but not for long: an agent may end at any instruction, and the service manager waits
        // only so long.
        self.threads.wait(until);
        if left > 0 {
            log::warn("requests were still in service").number("requests", left).write();
        }
        drop(self.lock);
    }

    /// Waits for the signal that ends the agent, and returns it. At SIGHUP the agent looks at NodeConfig, host and pods at once
    /// instead of in some seconds.
    fn wait_for_the_end(&mut self) -> Option<i32> {
        loop {
            match self.signals.forever().next() {
                Some(SIGHUP) => {
                    log::info("looking again, as asked by SIGHUP").write_limited();
                    self.wakers.look_again();
                }
                // Other daemons tell how they are at these, so people send them; by themselves they would end the agent.
                Some(SIGUSR1 | SIGUSR2) => {
                    log::info("serving; flock-agent status says more, and SIGHUP makes the agent look again")
                        .write_limited();
                }
                other => return other,
            }
        }
    }
}

/// What wakes the threads that work in rounds, and ends them.
#[derive(Debug, Clone)]
struct Wakers {
    node: Sender<Wake>,
    reconcile: Sender<Turn>,
    routing: Sender<News>,
    police: Police,
    directory: Sender<directory::Asked>,
    bird: Sender<()>,
}

/// The receiving ends of [`Wakers`].
#[derive(Debug)]
struct Woken {
    node: Receiver<Wake>,
    reconcile: Receiver<Turn>,
    routing: Receiver<News>,
    policing: Receiver<Message>,
    directory: Receiver<directory::Asked>,
    bird: Receiver<()>,
}

impl Wakers {
    fn new() -> (Wakers, Woken) {
        let ((node, node_woken), (reconcile, reconcile_woken)) = (channel(), channel());
        let (routing, routing_woken) = channel();
        let (police, policing) = channel();
        let (directory, directory_woken) = channel();
        let (bird, bird_woken) = channel();
        let woken = Woken {
            node: node_woken,
            reconcile: reconcile_woken,
            routing: routing_woken,
            policing,
            directory: directory_woken,
            bird: bird_woken,
        };
        (Wakers { node, reconcile, routing, police: Police::new(police), directory, bird }, woken)
    }

    // Sending fails only when the thread has ended, and then there is nobody to wake.

    fn look_again(&self) {
        self.node.send(Wake::Again).ok();
        self.reconcile.send(Turn::Round).ok();
        self.routing.send(News::Again).ok();
        self.directory.send(directory::Asked::Again).ok();
        self.police.look_at_kernel();
    }

    fn stop(&self) {
        self.node.send(Wake::Stop).ok();
        self.reconcile.send(Turn::Stop).ok();
        self.routing.send(News::Stop).ok();
        self.police.stop();
        self.directory.send(directory::Asked::Stop).ok();
        self.bird.send(()).ok();
    }
}

/// Starts the thread that listens to what others change. It ends with the process, or when its socket fails: then the rounds
/// alone see what others change.
fn listen(mut changes: Announcements, suspicions: Suspicions, wakers: Wakers) -> io::Result<()> {
    let hear = move || {
        while let Some(heard) = changes.wait() {
            for change in heard {
                let (mut node, mut links, mut routes) = (false, false, false);
                match change {
                    Announcement::Host => node = suspicions.host(),
                    Announcement::Surroundings => node = suspicions.surroundings(),
                    Announcement::Routes => routes = suspicions.routes(),
                    Announcement::Carrier(link) => routes = suspicions.carrier(link),
                    Announcement::Place(to) => routes = suspicions.place(to),
                    Announcement::Link => {
                        node = suspicions.host() | suspicions.surroundings();
                        routes = suspicions.routes();
                    }
                    Announcement::OwnRoute(ip) => links = suspicions.link(|suspects| suspects.address(ip)),
                    Announcement::OwnLink(link) => links = suspicions.link(|suspects| suspects.link(link)),
                    Announcement::Lost => {
                        node = suspicions.host() | suspicions.surroundings();
                        links = suspicions.link(|all| all.all = true);
                        routes = suspicions.routes();
                    }
                }
                if node {
                    wakers.node.send(Wake::Look).ok();
                }
                if links {
                    wakers.reconcile.send(Turn::Look).ok();
                }
                if routes {
                    wakers.routing.send(News::Kernel).ok();
                }
            }
        }
        log::error("the kernel's announcements cannot be heard any more; what others change is seen in rounds only")
            .write();
    };
    spawn("host-events", hear)
}

/// What other nodes have, as far as the node of this name and `state`, which tells them what its own pods have, has heard.
fn elsewhere(node: String, state: Board<NodeState>, listed: Board<Listed>, held: Board<Option<Held>>) -> Claims {
    Claims::by(move |wish| {
        let (state, listed, held) = (state.get(), listed.get(), held.get());
        let named = state.view.as_ref().map(|view| view.config.extra_prefixes.as_slice()).unwrap_or_default();
        let claims = held.as_ref().as_ref().map(|held| held.claims.as_slice()).unwrap_or_default();
        obstacle(wish, &node, claims, named, &listed.peers())
    })
}

/// Takes the lock by which there is one agent per state directory. It is held until the process ends, however it ends. The lock
/// is on the directory itself: a full or read-only disk might refuse a file for it.
fn lock(dir: &Path) -> Result<File, StartError> {
    let file = open_lockable_dir(dir).map_err(StartError::Directory)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(StartError::Locked(dir.into())),
    }
}

/// Raises the limit of descriptors: a request in service has up to five, and a login shell gives a thousand. The unit sets its own
/// limit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < most) {
        // If the kernel refuses, requests that find no descriptor fail, and runtimes repeat them.
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
                        .number("unreadable_lines", *unreadable)
                        .number("misplaced_lines", *misplaced)
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
