//! The parts of the agent that exist only with Kubernetes: its watches, the report of this node's status, and what this node says
//! of itself for the others.
//!
//! They live through three phases, each a type: made ([`Kubernetes`]), at work ([`Following`]), and about to end
//! ([`Leaving`]). Must not decide anything about a NodeConfig or a pod: `node` does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::agent::events::Events;
use crate::agent::events::ignored::{Ignored, Telling};
use crate::agent::ledger::Ledger;
use crate::agent::node::cluster::{Hearing, NodeAudience, NodeConfigAudience, PodAudience, tell};
use crate::agent::node::credentials::Ends;
use crate::agent::node::own_peer::OwnPeer;
use crate::agent::node::peers::{Listed, PeerAudience};
use crate::agent::node::pods::Pods;
use crate::agent::node::source::{Published, PublishedNode};
use crate::agent::node::state::NodeState;
use crate::agent::node::status::Reporter;
use crate::agent::node::wake::Wake;
use crate::agent::policing::handle::Police;
use crate::agent::policing::state::PolicingState;
use crate::agent::policing::tell::OwnPods;
use crate::agent::policing::watches::{Watches, Wish};
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::news::News;
use crate::agent::routing::state::{Held, RoutesState};
use crate::agent::threads::{Threads, end};
use crate::agent::watched::Watched;
use crate::kube::access::Access;
use crate::kube::client::{Client, KubeError, Tidings};
use crate::kube::objects::{NodeConfigs, NodePeers, Nodes, Pods as PodsOfNode};
use crate::kube::policy_objects::PodReader;
use crate::kube::reflect::reflect;

/// The `User-Agent` of requests to the API server.
const USER_AGENT: &str = concat!("flock-agent/", env!("CARGO_PKG_VERSION"));

/// Longest time for telling the API server that the agent stops, 1.5 s.
const FAREWELL: Duration = Duration::from_millis(1500);

/// The client, and the boards of the watches. No request has been sent yet.
#[derive(Debug)]
pub struct Kubernetes {
    node: String,
    client: Arc<Client>,
    /// The API server that is asked.
    pub server: Board<String>,
    /// What is heard of it.
    pub watched: Watched,
    /// The newest word about this node's NodeConfig.
    pub published: Board<Published>,
    /// The newest word about its Node; none where nobody wants to know.
    pub node_object: Option<Board<PublishedNode>>,
    /// The pods of this node.
    pub pods: Pods,
    /// What the nodes of the cluster say of themselves.
    pub peers: Board<Listed>,
    /// What the node's pods have, to be said to the others; none as long as nobody has looked.
    pub held: Board<Option<Held>>,
    /// How the node's routes are, for its status.
    pub routes: Board<RoutesState>,
    /// How what pods may send and receive is, for its status.
    pub policing: Board<PolicingState>,
    /// When the credentials in use end.
    pub ends: Board<Ends>,
    /// Takes which annotations of pods are ignored.
    pub telling: Telling,
    ignored: Receiver<Ignored>,
    state_dir: PathBuf,
    /// Takes what is to be watched for policies.
    pub wishes: Sender<Wish>,
    wished: Receiver<Wish>,
    wake: Sender<Wake>,
}

impl Kubernetes {
    /// A client of the API for the node of this name. News wakes the node's thread by `wake`. With `pod_cidrs`, its Node is
    /// watched, too. What was told by Events is kept in `state_dir`.
    ///
    /// # Errors
    /// A file or address that `access` names cannot be used.
    pub fn new(
        access: &Access,
        node: String,
        pod_cidrs: bool,
        state_dir: &Path,
        wake: Sender<Wake>,
    ) -> Result<Kubernetes, KubeError> {
        let server = Board::new(access.server.to_string());
        let meant = server.clone();
        let client = Client::new(access, USER_AGENT)?.telling(move |tidings| {
            if let Tidings::Good { server, .. } = &tidings {
                meant.set(server.clone());
            }
            tell(tidings);
        });
        let (wishes, wished) = channel();
        let (telling, ignored) = Telling::heard();
        Ok(Kubernetes {
            node,
            client: Arc::new(client),
            server,
            watched: Watched::default(),
            published: Board::default(),
            node_object: pod_cidrs.then(Board::default),
            pods: Pods::default(),
            peers: Board::default(),
            held: Board::default(),
            routes: Board::default(),
            policing: Board::default(),
            ends: Board::default(),
            telling,
            ignored,
            state_dir: state_dir.into(),
            wishes,
            wished,
            wake,
        })
    }

    /// The client of the API.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Starts the threads. Each change of pods or of what other nodes say wakes the thread of the routes by `routing`; what the
    /// cluster holds for policies is told to `police`, of this node's pods at once and the rest as it is wished, and the ranges of
    /// other nodes have it look again.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn follow(
        self,
        threads: &Threads,
        ledger: Ledger,
        state: Board<NodeState>,
        speaking: Board<Speaking>,
        routing: Sender<News>,
        police: &Police,
    ) -> io::Result<Following> {
        let Kubernetes {
            node,
            client,
            published,
            node_object,
            pods,
            peers,
            held,
            routes,
            policing: policed,
            ends,
            ignored,
            state_dir,
            watched,
            wished,
            wake,
            ..
        } = self;
        let policing = police.tell();
        let leaving = Arc::new(AtomicBool::new(false));
        let mut stops = Vec::new();
        let mut stopped = || {
            let (stop, stopped) = channel();
            stops.push(stop);
            stopped
        };

        let (configs_stopped, configs, of_configs) = (stopped(), client.clone(), leaving.clone());
        let hearing = Hearing::new("nodeconfigs", &watched);
        let mut audience = NodeConfigAudience { node: node.clone(), published, wake: wake.clone(), hearing };
        let kind = NodeConfigs { node: node.clone() };
        threads.start("watch-nodeconfigs", move || {
            reflect(&configs, kind, &configs_stopped, &mut audience);
            end_with(&of_configs);
        })?;

        if let Some(published) = node_object {
            let (node_stopped, watch, of_node) = (stopped(), client.clone(), leaving.clone());
            let hearing = Hearing::new("nodes", &watched);
            let mut audience = NodeAudience { node: node.clone(), published, wake, hearing };
            let kind = Nodes { node: node.clone() };
            threads.start("watch-node", move || {
                reflect(&watch, kind, &node_stopped, &mut audience);
                end_with(&of_node);
            })?;
        }

        let (pods_stopped, watch, of_pods) = (stopped(), client.clone(), leaving.clone());
        let own = OwnPods::new(policing.clone());
        let hearing = Hearing::new("pods", &watched);
        let mut audience = PodAudience { pods, routing: routing.clone(), policing: own, hearing };
        let kind = PodsOfNode { node: node.clone(), policing: Some(PodReader::default()) };
        threads.start("watch-pods", move || {
            reflect(&watch, kind, &pods_stopped, &mut audience);
            end_with(&of_pods);
        })?;

        let (peers_stopped, watch, of_peers) = (stopped(), client.clone(), leaving.clone());
        let hearing = Hearing::new("nodepeers", &watched);
        let mut audience = PeerAudience { listed: peers.clone(), routing, police: police.clone(), hearing };
        threads.start("watch-nodepeers", move || {
            reflect(&watch, NodePeers, &peers_stopped, &mut audience);
            end_with(&of_peers);
        })?;

        let watches = Watches::new(client.clone(), policing, watched);
        threads.start("watches", move || watches.run(&wished))?;

        let peer_stopped = stopped();
        let own_peer = OwnPeer::new(client.clone(), node.clone(), state.clone(), peers.clone(), held);
        threads.start("nodepeer", move || own_peer.run(&peer_stopped))?;

        let events_stopped = stopped();
        let boards = (state.clone(), policed.clone());
        let events = Events::new(client.clone(), node.clone(), ledger.clone(), boards, ignored, &state_dir);
        threads.start("events", move || events.run(&events_stopped))?;

        let status_stopped = stopped();
        let reporter = Reporter::new(client.clone(), node, ledger, state, peers, (routes, policed, ends), speaking);
        let (reporting, reported) = channel();
        threads.start("status", move || {
            reporter.run(&status_stopped);
            drop(reporting);
        })?;
        Ok(Following { client, leaving, stops, reported })
    }
}

/// The threads at work.
#[derive(Debug)]
pub struct Following {
    client: Arc<Client>,
    /// Whether the agent is about to end, so that its watches may end, too.
    leaving: Arc<AtomicBool>,
    /// Each thread ends when its sender is gone.
    stops: Vec<Sender<()>>,
    /// Nothing comes through it. It ends when the last report has been written, or cannot be.
    reported: Receiver<()>,
}

impl Following {
    /// Lets the threads end, and the last report be written.
    pub fn leave(self) -> Leaving {
        self.leaving.store(true, Ordering::Relaxed);
        drop(self.stops);
        Leaving { client: self.client, reported: self.reported, until: Instant::now() + FAREWELL }
    }
}

/// The threads about to end.
#[derive(Debug)]
pub struct Leaving {
    client: Arc<Client>,
    reported: Receiver<()>,
    until: Instant,
}

impl Leaving {
    /// Waits for the last report, and ends whatever the client is at. A server that is away is not waited for any longer than
    /// 1.5 s after [`Following::leave`].
    pub fn finish(self) {
        self.reported.recv_timeout(self.until.saturating_duration_since(Instant::now())).ok();
        self.client.shutdown();
    }
}

/// Ends the process when a watch has ended while the agent runs: the service manager starts both anew, and an agent that learns
/// of no change any more would look healthy.
fn end_with(leaving: &AtomicBool) {
    if !leaving.load(Ordering::Relaxed) {
        end("watch has ended for good, the agent ends with it");
    }
}
