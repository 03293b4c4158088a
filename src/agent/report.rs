//! The answers to `flock-agent status` and `flock-agent explain ADDRESS`: how the node is, and what only the agent knows of an
//! address, each made of one look at what the agent's threads publish.
//!
//! All of an answer is of one moment: the boards are copied first, then the ledger counts, and whatever is said follows from these
//! values. Whether the node is ready and what ails it is judged where the status in the API is, so that both say the same. Must not
//! ask the kernel or the API server, nor wait for anything but the ledger.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ipnet::IpNet;

use crate::agent::again::Again;
use crate::agent::board::Board;
use crate::agent::boards::Boards;
use crate::agent::history::{self, History};
use crate::agent::ledger::{Ledger, Usage};
use crate::agent::metrics::Metrics;
use crate::agent::node::credentials::Ends;
use crate::agent::node::pods::Pods;
use crate::agent::node::state::{CniConf, NodeState};
use crate::agent::node::status::condition::{self, Truth};
use crate::agent::node::status::snapshot::Snapshot;
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::state::RoutesState;
use crate::agent::watched::{Heard, Watched};
use crate::bird::sessions::Session;
use crate::kube::expiry::date;
use crate::record::boot_clock;
use crate::rpc::message::{Answer, Query, Response, Whose};
use crate::rpc::report::{
    Condition, ConfigInForce, Credential, Failure, Family, Host, MetricsPage, NodeReport, OtherNode, Peer, Policy,
    Rounds, Routing, Watch, WhoseReport,
};
use crate::rpc::server::{Answered, Call, Handler};
use cni::error::Code;
use model::ipam::FamilyCounts;
use model::peers::Peer as NodePeer;
use model::policing::Mode;
use model::routes::Stage;

/// How long an API server may be away before somebody should know, 30 s: it is restarted now and then.
const AWAY: u64 = 30;

/// Share of a range that is left when it counts as nearly full, a tenth.
const NEARLY_FULL: u64 = 10;

/// Where the NodeConfig comes from.
#[derive(Debug)]
pub enum Whence {
    /// This file.
    File(PathBuf),
    /// The API server that stands there.
    Server(Board<String>),
}

/// What reports are made of.
#[derive(Debug)]
pub struct Reports {
    /// The node's name.
    pub node: String,
    /// Where its NodeConfig comes from.
    pub source: Whence,
    /// When the agent began.
    pub began: Instant,
    /// The service manager holds the socket.
    pub socket_is_handed_over: bool,
    /// What the threads publish.
    pub boards: Boards,
    /// Counts pods and addresses.
    pub ledger: Ledger,
    /// What has happened lately.
    pub history: History,
    /// Has the threads compare at once.
    pub again: Again,
    /// What is heard of the API server; nothing without Kubernetes.
    pub watched: Watched,
    /// The pods of the API server; none without Kubernetes.
    pub pods: Option<Pods>,
}

/// Handlers that answer for the whole agent as well.
#[derive(Debug)]
pub struct Answering<H> {
    handler: H,
    reports: Reports,
    metrics: Arc<Metrics>,
}

impl<H> Answering<H> {
    /// `handler`, and `reports` and `metrics` for whoever asks how the node is.
    pub fn new(handler: H, reports: Reports, metrics: Arc<Metrics>) -> Answering<H> {
        Answering { handler, reports, metrics }
    }
}

impl<H: Handler> Handler for Answering<H> {
    fn handle(&self, call: &Call<'_>) -> Answered {
        self.handler.handle(call)
    }

    fn answer(&self, query: &Query, deadline: Instant) -> Response {
        match query {
            Query::Node => self.reports.answer(deadline),
            Query::Whose(whose) => told_or_not(&self.reports.whose(whose)),
            Query::Round => self.reports.look_again(deadline),
            Query::Metrics => told_or_not(&MetricsPage { text: self.metrics.page() }),
            Query::Passage(_) => self.handler.answer(query, deadline),
        }
    }
}

fn look(boards: &Boards) -> Snapshot {
    Snapshot {
        state: boards.state.get(),
        listed: boards.listed.as_ref().map(Board::get),
        routes: boards.routes.get(),
        policing: boards.policing.get(),
        speaking: boards.speaking.get(),
        ends: boards.ends.get(),
    }
}

impl Reports {
    fn answer(&self, deadline: Instant) -> Response {
        let snapshot = look(&self.boards);
        let Ok(usage) = self.ledger.usage(deadline) else {
            let why = "the record is being written and does not get on: its disk is slow or stuck";
            return Response::failed(Code::TryAgainLater.number(), why, "");
        };
        told_or_not(&self.report(&snapshot, &usage))
    }

    fn whose(&self, whose: &Whose) -> WhoseReport {
        let (state, listed) = (self.boards.state.get(), self.boards.listed.as_ref().map(Board::get));
        let ranges = state.view.as_ref().map(|view| view.config.prefixes()).unwrap_or_default();
        let peers = listed.as_ref().map(|listed| listed.peers()).unwrap_or_default();
        let others = peers.iter().filter(|(name, _)| **name != self.node);
        let others = whose
            .address
            .into_iter()
            .flat_map(|ip| others.clone().flat_map(move |(name, peer)| having(name, peer, ip)));
        let pod = whose.pod.as_ref().zip(self.pods.as_ref());
        let pod = pod.and_then(|((namespace, name), pods)| pods.named(namespace, name));
        WhoseReport {
            node: self.node.clone(),
            ranges: ranges.iter().map(ToString::to_string).collect(),
            others: others.collect(),
            others_heard: listed.as_ref().map(|listed| listed.heard),
            app: pod.as_ref().map(|pod| pod.app.clone()),
            image: pod.as_ref().and_then(|pod| pod.image.clone()),
        }
    }

    /// Has all compared that is compared in rounds, and tells of the last one.
    fn look_again(&self, deadline: Instant) -> Response {
        if !self.again.look(deadline) {
            let why =
                "what is wrong is being put right, and that takes long: flock-agent status tells how the rounds get on";
            return Response::failed(Code::TryAgainLater.number(), why, "");
        }
        told_or_not(&told_rounds(self.history.told().1, boot_clock::now_ms()))
    }

    fn report(&self, snapshot: &Snapshot, usage: &Usage) -> NodeReport {
        let watched = self.watched.told();
        let (failures, rounds) = self.history.told();
        let now = boot_clock::now_ms();
        let conditions = snapshot.conditions(&self.node, usage);
        let ready = conditions.iter().find(|condition| condition.kind == "Ready");
        let families = families(&snapshot.state, usage);
        let api: Vec<Watch> = watched.into_iter().map(|(resource, heard)| watch(resource, heard, now)).collect();
        let mut warnings = warnings(&conditions, &snapshot.state, &families, rounds.problem.as_deref());
        warnings.extend(api.iter().filter_map(deaf));
        NodeReport {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            up_seconds: self.began.elapsed().as_secs(),
            socket: if self.socket_is_handed_over { "service manager" } else { "agent" }.into(),
            ready: ready.is_some_and(|ready| ready.status == Truth::True),
            why: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            source: match &self.source {
                Whence::File(path) => path.display().to_string(),
                Whence::Server(server) if snapshot.state.in_force.pod_cidrs => {
                    format!("spec.podCIDRs of the Node, {}", server.get())
                }
                Whence::Server(server) => String::clone(&server.get()),
            },
            node_config: config(&snapshot.state, now),
            warnings,
            conditions: conditions.into_iter().map(told).collect(),
            api,
            credentials: credential(&snapshot.ends),
            host: host(&snapshot.state),
            rounds: told_rounds(rounds, now),
            attachments: usage.leases as u64,
            families,
            routing: routing(&snapshot.routes, snapshot.sessions()),
            policy: policy(&snapshot.policing),
            failures: failures.into_iter().map(|failure| failed(failure, now)).collect(),
        }
    }
}

fn told_rounds(rounds: history::Rounds, now: u64) -> Rounds {
    Rounds {
        last_seconds: rounds.last.map(|at| ago(now, at)),
        problem: rounds.problem,
        repairs: rounds.repairs,
        last_repair_seconds: rounds.last_repair.as_ref().map(|(at, _)| ago(now, *at)),
        last_repair: rounds.last_repair.map(|(_, what)| what),
    }
}

fn told_or_not<T: Answer>(answer: &T) -> Response {
    Response::told(answer).unwrap_or_else(|error| Response::failed(Code::Internal.number(), error.to_string(), ""))
}

/// By what another node has an address: its range, and pods that have named it.
fn having(name: &str, peer: &NodePeer, ip: IpAddr) -> Vec<OtherNode> {
    let other = || OtherNode { node: name.to_owned(), ..OtherNode::default() };
    let ranges = [peer.cidr6.map(IpNet::V6), peer.cidr4.map(IpNet::V4)].into_iter().flatten();
    let ranges = ranges.filter(|range| range.contains(&ip));
    let ranges = ranges.map(|range| OtherNode { range: Some(range.to_string()), ..other() });
    let claims = peer.claims.iter().filter(|claim| claim.address == ip);
    let claims = claims.map(|claim| OtherNode { pod: Some(claim.pod.to_string()), shared: claim.shared, ..other() });
    ranges.chain(claims).collect()
}

/// Whole seconds from a time of the boot clock until now.
fn ago(now: u64, at: u64) -> u64 {
    now.saturating_sub(at) / 1000
}

fn told(condition: condition::Condition) -> Condition {
    let condition::Condition { kind, status, reason, message } = condition;
    Condition { kind: kind.into(), status: status.text().into(), reason: reason.into(), message }
}

fn config(state: &NodeState, now: u64) -> Option<ConfigInForce> {
    let view = state.view.as_ref()?;
    let in_force = state.in_force;
    Some(ConfigInForce { generation: in_force.generation, in_force_seconds: ago(now, in_force.since), mtu: view.mtu })
}

/// What is not as it should be, beside whether the node is ready, which is said first anyway.
fn warnings(
    conditions: &[condition::Condition],
    state: &NodeState,
    families: &[Family],
    round: Option<&str>,
) -> Vec<String> {
    let bad = conditions.iter().filter(|condition| condition.kind != "Ready" && condition.status == Truth::False);
    let mut warnings: Vec<String> = bad.map(|condition| format!("{}: {}", condition.kind, condition.message)).collect();
    warnings.extend(state.verdict.notes.iter().chain(&state.host_notes).cloned());
    if let CniConf::Failed(_, why) = &state.cni {
        warnings.push(format!("the CNI configuration cannot be written: {why}"));
    }
    for Family { family, range, allocated, resting, free } in families {
        let all = allocated.saturating_add(*resting).saturating_add(*free);
        let left = free.saturating_add(*resting);
        // One of which nothing is left is a condition.
        if left > 0 && left < all / NEARLY_FULL {
            let percent = u128::from(*allocated) * 100 / u128::from(all.max(1));
            warnings.push(format!("{family} range {range} is {percent} % full"));
        }
    }
    warnings.extend(round.map(|why| format!("record and kernel could not be compared: {why}")));
    warnings
}

fn watch(resource: &str, heard: Heard, now: u64) -> Watch {
    let Heard { last, failing } = heard;
    let (since, problem) = failing.unzip();
    Watch {
        resource: resource.into(),
        heard_seconds: last.map(|at| ago(now, at)),
        failing_seconds: since.map(|at| ago(now, at)),
        problem,
    }
}

/// What there is to see to about one watch.
fn deaf(watch: &Watch) -> Option<String> {
    let (failing, problem) = watch.failing_seconds.zip(watch.problem.as_ref())?;
    let resource = &watch.resource;
    (failing >= AWAY).then(|| format!("{resource} of the API server have not been heard for {failing} s: {problem}"))
}

fn credential(ends: &Ends) -> Option<Credential> {
    let first = ends.all.iter().min_by_key(|expiry| expiry.until)?;
    let left = first.until.duration_since(SystemTime::now()).unwrap_or_default();
    Some(Credential { origin: first.origin.to_string(), ends: date(first.until), left_seconds: left.as_secs() })
}

fn host(state: &NodeState) -> Host {
    let (file, how) = match &state.cni {
        CniConf::Nowhere => (None, None),
        CniConf::NotYet(file) => (Some(file), Some("not written yet".to_owned())),
        CniConf::Stands(file) => (Some(file), Some("in force".to_owned())),
        CniConf::Edited(file) => (Some(file), Some("edited".to_owned())),
        CniConf::Failed(file, why) => (Some(file), Some(why.clone())),
    };
    Host {
        prepared: state.host.outcome.as_ref().map(Result::is_ok),
        problem: state.host.problem().map(ToString::to_string),
        uplink: state.uplink.as_ref().map(|uplink| uplink.name.clone()),
        uplink_mtu: state.uplink.as_ref().map(|uplink| uplink.mtu),
        cni_configuration: file.map(|file| file.display().to_string()),
        cni_configuration_state: how,
    }
}

/// The families of which the NodeConfig in force has a range.
fn families(state: &NodeState, usage: &Usage) -> Vec<Family> {
    let Some(view) = &state.view else { return Vec::new() };
    let (cidr6, cidr4) = (view.config.cidr6.map(|net| net.to_string()), view.config.cidr4.map(|net| net.to_string()));
    let of = |name: &str, range: Option<String>, counts: &FamilyCounts| {
        let FamilyCounts { allocated, free, resting, .. } = *counts;
        range.map(|range| Family { family: name.into(), range, allocated, resting, free })
    };
    let both = [of("ipv6", cidr6, &usage.addresses.ipv6), of("ipv4", cidr4, &usage.addresses.ipv4)];
    both.into_iter().flatten().collect()
}

fn routing(routes: &RoutesState, sessions: &[Session]) -> Routing {
    let stage = match routes.stage {
        Stage::Announcing => "announcing",
        Stage::Draining => "draining",
        Stage::Withdrawn => "withdrawn",
    };
    let peer = |session: &Session| Peer {
        name: session.peer.clone(),
        established: session.is_established(),
        sent: session.sent,
        accepted: session.accepted,
        last_error: session.last_error.clone(),
    };
    Routing {
        stage: stage.into(),
        announced: routes.announced.map(|count| count as u64),
        reached: routes.reached.map(|count| count as u64),
        peers: sessions.iter().map(peer).collect(),
    }
}

fn policy(policing: &PolicingState) -> Policy {
    if !policing.looked {
        return Policy::default();
    }
    let counts = &policing.counts;
    let mode = match policing.kept.policies {
        Some(Mode::Enforce) => "enforce",
        Some(Mode::Audit) => "audit",
        Some(Mode::None) | None => "none",
    };
    Policy {
        mode: Some(mode.into()),
        policies: counts.policies as u64,
        not_understood: policing.ails.misunderstood.len() as u64,
        isolated_pods: counts.isolated as u64,
        audited: counts.audited as u64,
        quarantined: counts.quarantined as u64,
        checked_links: counts.links as u64,
    }
}

fn failed(failure: history::Failure, now: u64) -> Failure {
    let history::Failure { at, times, op, attachment, pod, code, why } = failure;
    let (namespace, pod) = pod.map(|pod| (pod.namespace, pod.name)).unzip();
    Failure {
        seconds: ago(now, at),
        times,
        op: op.to_string(),
        namespace,
        pod,
        container_id: attachment.as_ref().map(|attachment| attachment.container_id.to_string()),
        interface: attachment.as_ref().map(|attachment| attachment.ifname.to_string()),
        code,
        why,
    }
}
