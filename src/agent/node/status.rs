//! The node's report: the status of its NodeConfig in the API, so that `kubectl get nodeconfigs` tells how the node is, and
//! when its agent last reported.
//!
//! One thread writes the report, never in the way of a request: when something has changed, at most once a second, and every five
//! minutes when nothing has. It tries again later when the server does not take a report. It writes nothing before it knows the
//! conditions that the server has, whose times stay theirs. Must not decide how the node is: the node's thread publishes that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::agent::board::Board;
use crate::agent::ledger::{Ledger, Usage};
use crate::agent::node::credentials::{Credentials, Ends};
use crate::agent::node::peers::Listed;
use crate::agent::node::report::{RETRY, RETRY_MAX, Unreported, jittered, refused};
use crate::agent::node::state::{Edit, NodeState, Verdict};
use crate::agent::policing;
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::condition::{self, Judged};
use crate::agent::routing::state::RoutesState;
use crate::bird::sessions::Session;
use crate::kube::client::{Client, Method};
use crate::kube::expiry::Nearness;
use crate::kube::explained;
use crate::kube::kind::Kind as _;
use crate::kube::objects::{NodeConfigs, collection};
use crate::kube::url::encoded;
use crate::process::dates::timestamp;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use model::excerpt::Excerpt;
use model::ipam::FamilyCounts;
use model::nodeconfig::NodeConfig;
use model::peers::{self, Own};
use model::policing::Mode;

/// Interval between looks at what there is to report, 1 s.
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval between reports of which only counts are new, 10 s: pods come and go more often than anybody reads a count.
const COUNTS_INTERVAL: Duration = Duration::from_secs(10);

/// Interval between reports of which only counts of policies are new, 30 s, with jitter that doubles it at most: one policy changes
/// those of every node that has pods of its namespace.
const POLICY_INTERVAL: Duration = Duration::from_secs(30);

/// Interval between looks at the kubeconfig, 5 s: while a watch is open and nothing happens, no request looks at it.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Interval between reports of which only the time is new, 5 min: as rare as kubelet's, so that a thousand nodes are three writes a
/// second. Jitter adds a fifth at most.
const HEARD_INTERVAL: Duration = Duration::from_secs(300);

/// Deadline for the ledger's answer, 2 s.
const LEDGER_LIMIT: Duration = Duration::from_secs(2);

/// How long the first report waits for the list of other nodes, 5 s: one report says it all.
const OTHERS_LIMIT: Duration = Duration::from_secs(5);

/// Overlaps with other nodes that are named. How many more there are is not said, since it changes whenever a node comes or goes.
const OVERLAPS_MAX: usize = 3;

/// Longest text of all notes about a NodeConfig, in bytes.
const NOTES_MAX: usize = 2048;

/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// Whether pods get addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// Pods get addresses.
    Yes,
    /// There has not been a valid NodeConfig yet.
    NotConfigured,
    /// The host cannot do what pods need; why, in words for an operator.
    HostNotPrepared(String),
    /// The kernel does not take what pods may send and receive; why, in words for an operator.
    TablesRefused(String),
}

/// What a report is made of, but for the counts of pods and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standing {
    verdict: Verdict,
    host_notes: Vec<String>,
    serving: Serving,
    others: Others,
    /// The condition of its routing; none as long as nothing is known of it.
    routing: Option<Condition>,
    /// The condition of what its pods may send and receive; none as long as nothing is known of it.
    policy: Option<Condition>,
    /// Whether the session with each peer of `spec.bgp` is established, by the peer's name.
    sessions: Vec<(String, bool)>,
    /// The condition of what the agent proves itself with; none if nothing of it ends.
    credentials: Option<Condition>,
}

/// What a report says beside its conditions, of the same moment as they.
#[derive(Debug)]
struct Counts {
    routing: Value,
    policy: Value,
}

/// How the node stands to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Others {
    /// Whose ranges overlap this node's, a line each; none as long as the others are not known, or this node has no ranges.
    overlaps: Option<Vec<String>>,
    /// What an operator has to do to make them known.
    remedy: Option<String>,
    /// Which of them are not reached and why; none where this node keeps no routes to them.
    unreached: Option<Vec<String>>,
}

impl Others {
    fn of(node: &str, state: &NodeState, listed: &Listed, unreached: Option<Vec<String>>) -> Others {
        let remedy = listed.remedy.clone();
        let (Some(_), Some(view)) = (&listed.nodes, &state.view) else {
            return Others { overlaps: None, remedy, unreached };
        };
        let own =
            Own { name: node, ranges: &view.config.prefixes(), held: &BTreeSet::new(), host: &state.whereabouts.host };
        let found = peers::overlaps(&own, &listed.peers());
        let mut overlaps: Vec<String> = found.iter().take(OVERLAPS_MAX).map(ToString::to_string).collect();
        if found.len() > OVERLAPS_MAX {
            overlaps.push("and so do others".into());
        }
        Others { overlaps: Some(overlaps), remedy: None, unreached }
    }
}

impl Standing {
    fn of(
        state: &NodeState,
        others: Others,
        routes: &RoutesState,
        policing: &PolicingState,
        speaking: &Speaking,
    ) -> Standing {
        let serving = match (&state.view, state.host.problem(), policing.refusal()) {
            (None, ..) => Serving::NotConfigured,
            (Some(_), Some(problem), _) => Serving::HostNotPrepared(problem.to_string()),
            (Some(_), None, Some(refusal)) => Serving::TablesRefused(refusal.to_string()),
            (Some(_), None, None) => Serving::Yes,
        };
        let bgp = has_bgp(state);
        let condition = |kind, Judged { well, reason, message }| {
            let status = if well { Truth::True } else { Truth::False };
            Condition { kind, status, reason, message }
        };
        let routing = condition::judge(routes, speaking, bgp).map(|judged| condition("Routing", judged));
        let policy = policing::condition::judge(policing).map(|judged| condition("Policy", judged));
        let sessions =
            speaking.wanted(bgp).iter().map(|session| (session.peer.clone(), session.is_established())).collect();
        let (verdict, host_notes) = (state.verdict.clone(), state.host_notes.clone());
        Standing { verdict, host_notes, serving, others, routing, policy, sessions, credentials: None }
    }

    fn notes(&self) -> String {
        let notes: Vec<&str> = self.verdict.notes.iter().chain(&self.host_notes).map(String::as_str).collect();
        Excerpt::line(&notes.join("; "), NOTES_MAX).into()
    }
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Truth {
    /// As the API has it.
    pub fn text(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// One condition, in the words of the Kubernetes API conventions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: Truth,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// What the conditions are made of, but for the ledger's counts: what stood on the boards at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The node.
    pub state: Arc<NodeState>,
    /// The nodes of the cluster; none without Kubernetes.
    pub listed: Option<Arc<Listed>>,
    /// Its routes.
    pub routes: Arc<RoutesState>,
    /// What its pods may send and receive.
    pub policing: Arc<PolicingState>,
    /// What is known of its peers.
    pub speaking: Arc<Speaking>,
    /// When its credentials end.
    pub ends: Arc<Ends>,
}

impl Snapshot {
    /// The conditions of the node of this name, as its status in the API has them.
    pub fn conditions(&self, node: &str, usage: &Usage) -> Vec<Condition> {
        let Snapshot { state, listed, routes, policing, speaking, ends } = self;
        let others = listed.as_ref().map(|listed| Others::of(node, state, listed, routes.unreached.clone()));
        let standing = Standing {
            credentials: judge_credentials(ends),
            ..Standing::of(state, others.clone().unwrap_or_default(), routes, policing, speaking)
        };
        let config = state.view.as_ref().map(|view| &view.config);
        let mut conditions = judge(&standing, config, usage);
        if config.is_none() && state.verdict.problem.is_none() {
            // There is nothing that could be valid.
            conditions.retain(|condition| condition.kind != "Valid");
        }
        conditions.extend(others.iter().flat_map(judge_others));
        conditions
    }

    /// The sessions with the peers that the NodeConfig in force names.
    pub fn sessions(&self) -> &[Session] {
        self.speaking.wanted(has_bgp(&self.state))
    }
}

/// A condition as the server has it, with the time since when it has this status.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kind: String,
    status: String,
    /// RFC 3339.
    since: String,
}

/// A report that the server has taken.
#[derive(Debug)]
struct Written {
    edit: Edit,
    standing: Standing,
    /// The status without its time and without the counts of routes and the times of sessions. One event in a cluster changes those
    /// of every node, so they go along with a report that is due for another reason.
    status: Value,
    /// The counts of policies.
    policy: Value,
    at: Instant,
}

impl Written {
    /// Whether nothing of `now` is news, or no more than counts of policies before their interval, and no regular report is due.
    fn says(&self, now: &Written, policy_interval: Duration, interval: Duration) -> bool {
        self.edit == now.edit
            && (self.policy == now.policy || now.at.saturating_duration_since(self.at) < policy_interval)
            && self.status == now.status
            && self.standing.sessions == now.standing.sessions
            && now.at.saturating_duration_since(self.at) < interval
    }
}

/// The writer's state.
#[derive(Debug)]
pub struct Reporter {
    client: Arc<Client>,
    node: String,
    ledger: Ledger,
    state: Board<NodeState>,
    listed: Board<Listed>,
    routes: Board<RoutesState>,
    /// Which nodes that are not reached the report names. In a large cluster it changes all the time, and each change would be a
    /// write of each node: so it goes along with the regular report, unless there was nothing to say, or is nothing any more.
    said: Option<Vec<String>>,
    began: Instant,
    policing: Board<PolicingState>,
    speaking: Board<Speaking>,
    written: Option<Written>,
    /// The conditions as the server has them, and of which object; none as long as they are not known.
    told: Option<(String, Vec<Told>)>,
    counted: Option<Instant>,
    looked: Option<Instant>,
    credentials: Credentials,
    ends: Ends,
    /// How often the client had moved to another server at the last look.
    moves: u64,
    not_before: Option<Instant>,
    failing: Lasting,
    /// After how long counts of policies make a report.
    policy_interval: Duration,
    /// After how long without news the next report is due.
    heard_interval: Duration,
}

impl Reporter {
    /// A reporter that has written nothing yet. `listed` are the nodes of the cluster, and `routes` tells which of them are
    /// reached, `policing` what pods may send and receive. When credentials end is published on `ends`.
    pub fn new(
        client: Arc<Client>,
        node: String,
        ledger: Ledger,
        state: Board<NodeState>,
        listed: Board<Listed>,
        (routes, policing, ends): (Board<RoutesState>, Board<PolicingState>, Board<Ends>),
        speaking: Board<Speaking>,
    ) -> Reporter {
        Reporter {
            client,
            node,
            ledger,
            state,
            listed,
            routes,
            said: None,
            began: Instant::now(),
            policing,
            speaking,
            written: None,
            told: None,
            counted: None,
            looked: None,
            credentials: Credentials::new(ends),
            ends: Ends::default(),
            moves: 0,
            not_before: None,
            failing: Lasting::default(),
            policy_interval: POLICY_INTERVAL,
            heard_interval: HEARD_INTERVAL,
        }
    }

    /// Reports until `stop` says so or is dropped. Then it says that the agent has stopped; whoever cannot wait for that
    /// shuts the client down.
    pub fn run(mut self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
            self.round();
        }
        if self.state.get().verdict.edit().is_some()
            && let Err(why) = withdraw(&self.client, &self.node)
        {
            log::info("status does not say that the agent stops").with("err", why).write();
        }
    }

    fn round(&mut self) {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            self.looked = Some(Instant::now());
            self.client.look();
            self.ends = self.credentials.look(self.client.expiries(), SystemTime::now());
        }
        // Another server does not know the reports that the former one has taken.
        if self.client.moves() != self.moves {
            self.moves = self.client.moves();
            (self.written, self.told, self.not_before) = (None, None, None);
        }
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        let (state, listed) = (self.state.get(), self.listed.get());
        let known = listed.nodes.is_some() || listed.refused;
        if !known && self.written.is_none() && self.began.elapsed() < OTHERS_LIMIT {
            return;
        }
        let routes = self.routes.get();
        let regular = self.written.as_ref().is_none_or(|written| written.at.elapsed() >= self.heard_interval);
        let nothing = |lines: &Option<Vec<String>>| lines.as_ref().map(Vec::is_empty);
        if regular || nothing(&self.said) != nothing(&routes.unreached) {
            self.said.clone_from(&routes.unreached);
        }
        let others = Others::of(&self.node, &state, &listed, self.said.clone());
        let (policing, speaking) = (self.policing.get(), self.speaking.get());
        let standing = Standing {
            credentials: judge_credentials(&self.ends),
            ..Standing::of(&state, others, &routes, &policing, &speaking)
        };
        let same = self.written.as_ref().is_some_and(|written| written.standing == standing);
        if same && self.counted.is_some_and(|counted| counted.elapsed() < COUNTS_INTERVAL) {
            return;
        }
        self.counted = Some(Instant::now());
        let Some(edit) = standing.verdict.edit().cloned() else { return };
        let config = state.view.as_ref().map(|view| &view.config);
        let counts = Counts { routing: routing(&routes, speaking.wanted(has_bgp(&state))), policy: policy(&policing) };
        match self.report(standing, counts, config, &edit) {
            Ok(()) => self.failing.over(|| log::info("status of the NodeConfig is written again")),
            Err(Unreported::Gone) => self.not_before = Some(Instant::now() + jittered(RETRY, 1)),
            Err(Unreported::Failed { why, wait }) => {
                let wait = wait.unwrap_or_default().min(RETRY_MAX).max(jittered(RETRY, 1));
                self.not_before = Some(Instant::now() + wait);
                self.failing.met(why, || log::warn("status of the NodeConfig cannot be written"));
            }
        }
    }

    fn report(
        &mut self,
        standing: Standing,
        counts: Counts,
        config: Option<&NodeConfig>,
        edit: &Edit,
    ) -> Result<(), Unreported> {
        let told = match &self.told {
            Some((uid, told)) if *uid == edit.uid => told.clone(),
            _ => conditions_on_server(&self.client, &self.node, edit)?,
        };
        let Ok(usage) = self.ledger.usage(Instant::now() + LEDGER_LIMIT) else { return Ok(()) };
        let now = timestamp(SystemTime::now());
        let mut conditions = judge(&standing, config, &usage).to_vec();
        conditions.extend(judge_others(&standing.others));
        let (conditions, told) = dated(&conditions, &told, &now, edit.generation);
        self.told = Some((edit.uid.clone(), told));
        // A family without a range has nothing that could be free. Null takes away what was written before.
        let family = |there: bool, counts: &FamilyCounts| json!({"allocated": counts.allocated, "free": there.then(|| counts.free.to_string())});
        let mut status = json!({
            "observedGeneration": edit.generation,
            "agentVersion": env!("CARGO_PKG_VERSION"),
            "pods": usage.leases,
            "ipv6": family(config.is_some_and(|config| config.cidr6.is_some()), &usage.addresses.ipv6),
            "ipv4": family(config.is_some_and(|config| config.cidr4.is_some()), &usage.addresses.ipv4),
            "conditions": conditions,
        });
        let Counts { routing, policy } = counts;
        let written = Written {
            edit: edit.clone(),
            standing,
            status: status.clone(),
            policy: policy.clone(),
            at: Instant::now(),
        };
        let says = |former: &Written| former.says(&written, self.policy_interval, self.heard_interval);
        if self.written.as_ref().is_some_and(says) {
            return Ok(());
        }
        if let Some(status) = status.as_object_mut() {
            status.insert("routing".into(), routing);
            status.insert("policy".into(), policy);
            status.insert("lastHeard".into(), now.into());
        }
        patch(&self.client, &self.node, &status)?;
        self.written = Some(written);
        self.policy_interval = jittered(POLICY_INTERVAL, 1);
        self.heard_interval = jittered(HEARD_INTERVAL, 5);
        Ok(())
    }
}

fn has_bgp(state: &NodeState) -> bool {
    state.view.as_ref().is_some_and(|view| view.config.bgp.is_some())
}

/// The counts of routes and the sessions with the peers; null takes away what was written before. In which state of connecting a
/// session is changes by the second, and is nothing that anybody needs.
fn routing(routes: &RoutesState, sessions: &[Session]) -> Value {
    let peer = |session: &Session| {
        let state = if session.is_established() { "Established" } else { "Down" };
        json!({
            "name": session.peer,
            "state": state,
            "since": session.since,
            "sent": session.sent,
            "accepted": session.accepted,
            "lastError": session.last_error,
        })
    };
    let peers = (!sessions.is_empty()).then(|| sessions.iter().map(peer).collect::<Vec<_>>());
    if routes.announced.is_none() && routes.reached.is_none() && peers.is_none() {
        return Value::Null;
    }
    json!({"announced": routes.announced, "reached": routes.reached, "peers": peers})
}

/// What becomes of policies, and the counts of what is in force; null takes away what was written before.
fn policy(policing: &PolicingState) -> Value {
    if !policing.looked {
        return Value::Null;
    }
    let (kept, counts) = (&policing.kept, &policing.counts);
    let mode = match kept.policies {
        Some(Mode::Enforce) => "enforce",
        Some(Mode::Audit) => "audit",
        Some(Mode::None) | None => "none",
    };
    json!({
        "mode": mode,
        "policies": counts.policies,
        "isolatedPods": counts.isolated,
        "quarantined": counts.quarantined,
        "audited": counts.audited,
        "checkedLinks": counts.links,
    })
}

/// Says in the status that nobody serves this node's pods any more, if it says that somebody does. `Ready` is False and not
/// Unknown, since whoever writes this knows it; an agent that was killed is found by `lastHeard`. Takes as long as the
/// client's limits allow. An error is in words for an operator.
fn withdraw(client: &Client, node: &str) -> Result<(), String> {
    let failed = |error| match error {
        Unreported::Gone => "there is no such NodeConfig any more".to_owned(),
        Unreported::Failed { why, .. } => why,
    };
    let object = on_server(client, node).map_err(failed)?;
    let mut conditions = object.pointer("/status/conditions").cloned().unwrap_or_default();
    let is_ready = |condition: &&mut Value| condition.get("type").and_then(Value::as_str) == Some("Ready");
    let Some(ready) = conditions.as_array_mut().into_iter().flatten().find(is_ready).and_then(Value::as_object_mut)
    else {
        return Ok(());
    };
    let now = timestamp(SystemTime::now());
    let message = "flock-agent was stopped: pods that run go on, new ones wait until it is started";
    if ready.get("status").and_then(Value::as_str) != Some("False") {
        ready.insert("status".into(), "False".into());
        ready.insert("lastTransitionTime".into(), now.clone().into());
    }
    ready.insert("reason".into(), "Stopped".into());
    ready.insert("message".into(), message.into());
    patch(client, node, &json!({"conditions": conditions, "lastHeard": now})).map_err(failed)
}

/// A merge patch of the status, which is this agent's alone: no version to conflict about.
fn patch(client: &Client, node: &str, status: &Value) -> Result<(), Unreported> {
    let path = format!("{}/{}/status", collection(), encoded(node));
    let body = json!({"status": status}).to_string();
    let sent = client.send(Method::Patch, &path, "application/merge-patch+json", body.as_bytes());
    match sent {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(refused("patch", "nodeconfigs/status", &answer)),
        Err(error) => Err(Unreported::Failed { why: explained(&error), wait: None }),
    }
}

/// The object as it is now.
fn on_server(client: &Client, node: &str) -> Result<Value, Unreported> {
    let failed = |why| Unreported::Failed { why, wait: None };
    let path = NodeConfigs { node: node.to_owned() }.path();
    let answer = client.get(&path, ANSWER_MAX).map_err(|error| failed(explained(&error)))?;
    if answer.status != 200 {
        return Err(refused("list", "nodeconfigs", &answer));
    }
    let mut list: Value =
        serde_json::from_slice(&answer.body).map_err(|error| failed(format!("the answer cannot be read: {error}")))?;
    match list.pointer_mut("/items/0") {
        Some(object) => Ok(object.take()),
        None => Err(Unreported::Gone),
    }
}

/// The conditions that an earlier run of the agent has told.
fn conditions_on_server(client: &Client, node: &str, edit: &Edit) -> Result<Vec<Told>, Unreported> {
    let object = on_server(client, node)?;
    if object.pointer("/metadata/uid").and_then(Value::as_str) != Some(&edit.uid) {
        return Err(Unreported::Gone);
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let read = |condition: &Value| {
        let text = |key: &str| Some(condition.get(key)?.as_str()?.to_owned());
        Some(Told { kind: text("type")?, status: text("status")?, since: text("lastTransitionTime")? })
    };
    Ok(conditions.into_iter().flatten().filter_map(read).collect())
}

/// The conditions as they go over the wire, each with the time since when it has its status.
fn dated(conditions: &[Condition], told: &[Told], now: &str, generation: i64) -> (Vec<Value>, Vec<Told>) {
    let since = |condition: &Condition| {
        let before = told.iter().find(|told| told.kind == condition.kind && told.status == condition.status.text());
        before.map_or(now, |told| told.since.as_str()).to_owned()
    };
    let told: Vec<Told> = conditions
        .iter()
        .map(|c| Told { kind: c.kind.into(), status: c.status.text().into(), since: since(c) })
        .collect();
    let values = conditions.iter().zip(&told).map(|(c, told)| {
        json!({
            "type": c.kind,
            "status": c.status.text(),
            "reason": c.reason,
            "message": c.message,
            "lastTransitionTime": told.since,
            "observedGeneration": generation,
        })
    });
    (values.collect(), told)
}

fn judge(standing: &Standing, config: Option<&NodeConfig>, usage: &Usage) -> Vec<Condition> {
    let condition =
        |kind, status, reason, message: &str| Condition { kind, status, reason, message: message.to_owned() };
    let verdict = &standing.verdict;
    let notes = standing.notes();
    let valid = match &verdict.problem {
        None if !verdict.is_good() => condition("Valid", Truth::Unknown, "NotConfigured", "there is no configuration"),
        None if notes.is_empty() => condition("Valid", Truth::True, "Accepted", "in force"),
        None => condition("Valid", Truth::True, "Accepted", &format!("in force, but: {notes}")),
        Some(problem) => {
            let ignored = verdict.edit().map(|edit| {
                let stays =
                    if config.is_some() { "the last good one stays in force" } else { "there is none before it" };
                format!("; generation {} is ignored, and {stays}", edit.generation)
            });
            condition("Valid", Truth::False, "Invalid", &format!("{problem}{}", ignored.unwrap_or_default()))
        }
    };
    let full = full(config, usage);
    let free = match (config, &full[..]) {
        (None, _) => {
            condition("AddressesFree", Truth::Unknown, "NotConfigured", "no valid configuration has been seen")
        }
        (Some(_), []) => condition("AddressesFree", Truth::True, "Free", "each family has free addresses"),
        (Some(_), full) => {
            let texts: Vec<String> = full.iter().map(|(family, field, used)| {
                format!("no {family} address is free, {used} are in use: new pods with {family} wait until one is released; {field} may be larger")
            }).collect();
            condition("AddressesFree", Truth::False, "Full", &texts.join("; "))
        }
    };
    let refused_for = |why: &str| format!("{why}; new pods are refused");
    let families: Vec<&str> = full.iter().map(|(family, ..)| *family).collect();
    let but = match families.is_empty() {
        true => String::new(),
        false => format!(", but no {} address is free", families.join(" and no ")),
    };
    let ready = match (verdict.is_good(), &standing.serving) {
        (true, Serving::Yes) => condition("Ready", Truth::True, "Serving", &format!("pods get addresses{but}")),
        (false, Serving::Yes) => {
            condition("Ready", Truth::True, "LastGood", &format!("the last valid configuration is in force{but}"))
        }
        (_, Serving::NotConfigured) => {
            condition("Ready", Truth::False, "NotConfigured", "no valid configuration has been seen")
        }
        (_, Serving::HostNotPrepared(why)) => condition("Ready", Truth::False, "HostNotPrepared", &refused_for(why)),
        (_, Serving::TablesRefused(why)) => condition("Ready", Truth::False, "TablesRefused", &refused_for(why)),
    };
    let further = [&standing.routing, &standing.policy, &standing.credentials];
    [ready, valid, free].into_iter().chain(further.into_iter().flatten().cloned()).collect()
}

/// What there is to say of what the agent proves itself with, in words that stay the same from day to day.
fn judge_credentials(ends: &Ends) -> Option<Condition> {
    let condition = |status, reason, message| Condition { kind: "CredentialsLasting", status, reason, message };
    let Some((expiry, nearness)) = ends.near.first() else {
        let lasting = || condition(Truth::True, "Lasting", "no token or client certificate is about to end".into());
        return (!ends.all.is_empty()).then(lasting);
    };
    let reason = if *nearness == Nearness::Past { "Ended" } else { "EndSoon" };
    let message = format!("{expiry}, and the API server then refuses this agent: {}", expiry.remedy());
    Some(condition(Truth::False, reason, Excerpt::line(&message, NOTES_MAX).into()))
}

/// What there is to say of the other nodes. Whether they are reached is said only where this node sees to it.
fn judge_others(others: &Others) -> Vec<Condition> {
    let condition = |kind, status, reason, message: String| Condition { kind, status, reason, message };
    let lines = |lines: &[String]| Excerpt::line(&lines.join("; "), NOTES_MAX).into();
    let unique = match (others.overlaps.as_deref(), &others.remedy) {
        (Some([]), _) => {
            condition("RangesUnique", Truth::True, "Unique", "no other node has addresses of this node's ranges".into())
        }
        (Some(overlaps), _) => condition("RangesUnique", Truth::False, "RangesOverlap", lines(overlaps)),
        (None, Some(remedy)) => condition("RangesUnique", Truth::Unknown, "NotHeard", remedy.clone()),
        (None, None) => {
            condition("RangesUnique", Truth::Unknown, "NotHeard", "the ranges of all nodes are not known yet".into())
        }
    };
    let reached = others.unreached.as_deref().map(|unreached| match unreached {
        [] => condition("PeersReached", Truth::True, "Reached", "there is a route to each node that is known".into()),
        unreached => condition("PeersReached", Truth::False, "NotReached", lines(unreached)),
    });
    [unique].into_iter().chain(reached).collect()
}

/// The families that the node has and of which no pod gets an address: name, field of the range, addresses in use. One that only
/// rests is given to a pod rather than none.
fn full(config: Option<&NodeConfig>, usage: &Usage) -> Vec<(&'static str, &'static str, u64)> {
    let Some(config) = config else { return Vec::new() };
    let counts = &usage.addresses;
    [
        ("IPv6", "spec.cidr6", config.cidr6.is_some(), counts.ipv6),
        ("IPv4", "spec.cidr4", config.cidr4.is_some(), counts.ipv4),
    ]
    .into_iter()
    .filter(|(.., there, counts)| *there && counts.free == 0 && counts.resting == 0)
    .map(|(family, field, _, counts)| (family, field, counts.allocated))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::node::state::{Basis, View};
    use crate::agent::policing::state::{self as policed, Kept, Problem};
    use crate::agent::routing::bird::Trouble;
    use crate::kube::kind::{Name, Objects};
    use cni::error::{Code, Error};
    use model::addr::GATEWAY4;
    use model::ipam::Counts;
    use model::peers::Peer;

    impl Standing {
        fn of_alone(state: &NodeState) -> Standing {
            let (routes, policing) = (RoutesState::default(), PolicingState::default());
            Standing::of(state, Others::default(), &routes, &policing, &Speaking::default())
        }
    }

    /// The judgement of a NodeConfig that is in force.
    fn good() -> Verdict {
        Verdict { basis: Basis::NodeConfig(Edit { uid: "u".into(), generation: 1 }), ..Verdict::default() }
    }

    /// A standing in which pods get addresses.
    fn of(verdict: Verdict) -> Standing {
        Standing {
            verdict,
            host_notes: Vec::new(),
            serving: Serving::Yes,
            others: Others::default(),
            routing: None,
            policy: None,
            sessions: Vec::new(),
            credentials: None,
        }
    }

    fn usage(allocated: u64, free: u64, resting: u64) -> Usage {
        let family = FamilyCounts { allocated, free, usable: free, resting };
        Usage {
            leases: 1,
            pending: 0,
            addresses: Counts { ipv4: family, ipv6: FamilyCounts { free: u64::MAX, ..family } },
        }
    }

    fn config(spec: &str) -> NodeConfig {
        let head = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\n";
        model::nodeconfig::parse(format!("{head}spec: {spec}\n")).expect("valid")
    }

    fn view() -> Arc<View> {
        Arc::new(View { config: config("{cidr4: 10.0.0.0/24}"), mtu: 1500, gateway4: GATEWAY4 })
    }

    fn judged(standing: &Standing, config: Option<&NodeConfig>, usage: &Usage) -> [Condition; 3] {
        judge(standing, config, usage).try_into().expect("three conditions")
    }

    fn conditions(standing: &Standing) -> [Condition; 3] {
        judged(standing, Some(&config("{cidr4: 10.0.0.0/24}")), &usage(1, 10, 0))
    }

    #[test]
    fn what_is_accepted_and_wrong_is_shown_beside_valid() {
        let noted = |notes: Vec<String>| of(Verdict { notes, ..good() });
        let standing =
            Standing { host_notes: vec!["spec.mtu is 9000".into()], ..noted(vec!["annotation x is ignored".into()]) };
        let [ready, valid, _] = conditions(&standing);
        assert_eq!((ready.status, valid.status), (Truth::True, Truth::True));
        assert_eq!(valid.message, "in force, but: annotation x is ignored; spec.mtu is 9000");
        let [_, valid, _] = conditions(&noted(vec!["é".repeat(100_000)]));
        assert!(valid.message.len() < 32 * 1024, "the API server takes no longer message");
    }

    #[test]
    fn a_bad_edit_is_invalid_and_the_node_stays_ready() {
        let bad = of(Verdict { problem: Some("spec.cidr6 …".into()), ..good() });
        let [ready, valid, _] = conditions(&bad);
        assert_eq!((ready.status, ready.reason), (Truth::True, "LastGood"));
        assert_eq!(
            (valid.status, valid.reason, valid.message.as_str()),
            (Truth::False, "Invalid", "spec.cidr6 …; generation 1 is ignored, and the last good one stays in force")
        );
        let [ready, _, free] = judged(&Standing { serving: Serving::NotConfigured, ..bad }, None, &usage(0, 0, 0));
        assert_eq!((ready.status, ready.reason), (Truth::False, "NotConfigured"));
        assert_eq!((free.status, free.reason), (Truth::Unknown, "NotConfigured"));
        let [ready, valid, _] = conditions(&of(Verdict::default()));
        assert_eq!((ready.reason, valid.status), ("LastGood", Truth::Unknown), "what is not there is not valid");
        let [ready, valid, free] = conditions(&of(good()));
        assert_eq!([ready.status, valid.status, free.status], [Truth::True; 3]);
    }

    fn session(peer: &str, state: &str, error: Option<&str>) -> Session {
        let (peer, state, last_error) = (peer.into(), state.into(), error.map(str::to_owned));
        Session { peer, state, since: None, sent: 3, accepted: 0, last_error }
    }

    /// A node with `spec.bgp` and these sessions.
    fn speaking(sessions: &[Session], trouble: Option<Trouble>) -> Standing {
        let speaking = Speaking { sessions: sessions.to_vec(), trouble, remarks: Vec::new() };
        let bgp = "{asn: 65001, peers: [{name: tor1, address: 192.0.2.1, asn: 65100}]}";
        let config = config(&format!("{{cidr4: 10.0.0.0/24, bgp: {bgp}}}"));
        let view = View { config, mtu: 1500, gateway4: GATEWAY4 };
        let state = NodeState { view: Some(Arc::new(view)), ..NodeState::default() };
        Standing::of(&state, Others::default(), &RoutesState::default(), &PolicingState::default(), &speaking)
    }

    #[test]
    fn the_peers_are_a_condition_that_does_not_change_with_every_try_to_connect() {
        assert_eq!(speaking(&[], None).routing, None, "before BIRD was asked");
        let up = session("tor1", "Established", None);
        let routing = speaking(std::slice::from_ref(&up), None).routing.expect("a condition");
        assert_eq!((routing.kind, routing.status, routing.reason), ("Routing", Truth::True, "Established"));
        let connecting = speaking(&[up.clone(), session("tor2", "Connect", Some("Hold timer expired"))], None);
        let active = speaking(&[up.clone(), session("tor2", "Active", Some("Hold timer expired"))], None);
        assert_eq!(connecting, active);
        let routing = active.routing.clone().expect("a condition");
        assert_eq!((routing.status, routing.reason), (Truth::False, "SessionDown"));
        assert_eq!(routing.message, "tor2 is down (Hold timer expired)");
        for (trouble, reason) in [
            (Trouble::Unreachable("BIRD is away".into()), "BirdUnreachable"),
            (Trouble::Refused("line 7".into()), "ConfigurationRefused"),
        ] {
            assert_eq!(speaking(std::slice::from_ref(&up), Some(trouble)).routing.expect("a condition").reason, reason);
        }
        assert_eq!(judge(&active, None, &usage(0, 0, 0)).len(), 4);
    }

    #[test]
    fn sessions_that_nobody_asks_for_any_more_are_not_shown_until_bird_has_ended_them() {
        let up = Speaking { sessions: vec![session("tor1", "Established", None)], ..Speaking::default() };
        let view = View { config: config("{cidr4: 10.0.0.0/24}"), mtu: 1500, gateway4: GATEWAY4 };
        let state = NodeState { view: Some(Arc::new(view)), ..NodeState::default() };
        assert_eq!(up.wanted(has_bgp(&state)), []);
        let counts = (&RoutesState::default(), &PolicingState::default());
        assert!(Standing::of(&state, Others::default(), counts.0, counts.1, &up).sessions.is_empty());
    }

    #[test]
    fn what_a_node_does_not_have_any_more_is_taken_out_of_its_status() {
        let (up, counts) = (session("tor1", "Established", None), RoutesState::default());
        assert_eq!(super::routing(&counts, &[]), Value::Null);
        let counts = RoutesState { announced: Some(2), reached: Some(7), ..counts };
        let both = super::routing(&counts, &[up]);
        assert_eq!(
            (&both["announced"], &both["reached"], &both["peers"][0]["sent"]),
            (&2.into(), &7.into(), &3.into())
        );
        // Left out, a field would keep its former value.
        let alone = super::routing(&RoutesState { reached: None, ..counts }, &[]);
        assert_eq!(alone, json!({"announced": 2, "reached": null, "peers": null}));
    }

    #[test]
    fn a_count_of_routes_or_a_try_to_connect_is_no_report_of_its_own() {
        let began = Instant::now();
        let written = |sessions: &[Session], pods: u64, seconds| Written {
            edit: Edit { uid: "u".into(), generation: 1 },
            standing: speaking(sessions, None),
            status: json!({"pods": pods}),
            policy: Value::Null,
            at: began + Duration::from_secs(seconds),
        };
        let (up, down) = (session("a", "Established", None), session("b", "Connect", None));
        let before = written(&[up.clone(), down.clone()], 1, 0);
        let (interval, counts) = (Duration::from_secs(300), Duration::from_secs(30));
        let more = Session { sent: 4000, accepted: 9, since: Some("2026-11-26T12:00:00Z".into()), ..up.clone() };
        let again = Session { state: "Active".into(), since: Some("2026-11-26T12:00:01Z".into()), ..down.clone() };
        assert!(before.says(&written(&[more.clone(), again.clone()], 1, 299), counts, interval));
        assert!(
            !before.says(&written(&[more, again], 1, 300), counts, interval),
            "the regular report takes them along"
        );
        assert!(!before.says(&written(&[up.clone(), down.clone()], 2, 1), counts, interval), "this node's pods");
        let policies =
            |seconds| Written { policy: json!({"policies": 1}), ..written(&[up.clone(), down.clone()], 1, seconds) };
        assert!(before.says(&policies(29), counts, interval), "every node has it");
        assert!(!before.says(&policies(30), counts, interval), "in a while");
        let turned = |first: &str, second: &str| [session("a", first, None), session("b", second, None)];
        assert!(!before.says(&written(&turned("Connect", "Established"), 1, 1), counts, interval));
        assert!(!before.says(&written(&turned("Established", "Established"), 1, 1), counts, interval));
    }

    #[test]
    fn a_full_family_is_told_and_the_node_stays_ready() {
        let both = config("{cidr4: 10.0.0.0/24, cidr6: '2001:db8::/64'}");
        let [ready, _, free] = judged(&of(good()), Some(&both), &usage(253, 0, 0));
        assert_eq!(
            (ready.status, ready.message.as_str()),
            (Truth::True, "pods get addresses, but no IPv4 address is free")
        );
        assert_eq!((free.status, free.reason), (Truth::False, "Full"));
        for words in ["no IPv4 address is free, 253 are in use", "spec.cidr4"] {
            assert!(free.message.contains(words) && !free.message.contains("IPv6"), "{}", free.message);
        }
        // A family that the node does not have is not full, nor is one whose last addresses rest.
        for (spec, usage) in [("{cidr6: '2001:db8::/64'}", usage(0, 0, 0)), ("{cidr4: 10.0.0.0/24}", usage(252, 0, 1))]
        {
            let [ready, _, free] = judged(&of(good()), Some(&config(spec)), &usage);
            assert_eq!((free.status, ready.message.as_str()), (Truth::True, "pods get addresses"), "{spec}");
        }
        let mut none = usage(9, 0, 0);
        none.addresses.ipv6.free = 0;
        let [ready, _, free] = judged(&of(good()), Some(&both), &none);
        assert!(ready.message.ends_with("no IPv6 and no IPv4 address is free"), "{}", ready.message);
        assert!(free.message.contains("IPv6") && free.message.contains("IPv4"), "{}", free.message);
    }

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status() {
        let told = |kind: &str, status: &str| Told { kind: kind.into(), status: status.into(), since: "then".into() };
        let bad = of(Verdict { problem: Some("x".into()), ..good() });
        let before = [told("Ready", "True"), told("Valid", "True")];
        let (values, now) = dated(&conditions(&bad), &before, "now", 7);
        let times: Vec<&str> =
            values.iter().map(|value| value["lastTransitionTime"].as_str().expect("a time")).collect();
        assert_eq!(times, ["then", "now", "now"]);
        let (values, _) = dated(&conditions(&bad), &now, "later", 8);
        assert!(values.iter().all(|value| value["lastTransitionTime"] != "later" && value["observedGeneration"] == 8));
    }

    #[test]
    fn a_host_that_is_not_prepared_is_not_ready_and_says_why() {
        let state = NodeState { view: Some(view()), verdict: good(), ..NodeState::default() };
        assert_eq!(Standing::of_alone(&state).serving, Serving::Yes);
        let refusal = Error::new(Code::TryAgainLater, "net/ipv4/ip_forward cannot be written");
        let unprepared = NodeState { host: state.host.after(Err(refusal.clone())), ..state.clone() };
        let [ready, valid, _] = conditions(&Standing::of_alone(&unprepared));
        assert_eq!((ready.status, ready.reason, valid.status), (Truth::False, "HostNotPrepared", Truth::True));
        assert_eq!(ready.message, format!("{refusal}; new pods are refused"));
        // Without a configuration nobody has tried to prepare it.
        let unconfigured = NodeState { view: None, ..unprepared.clone() };
        assert_eq!(Standing::of_alone(&unconfigured).serving, Serving::NotConfigured);
        let prepared = NodeState { host: unprepared.host.after(Ok(())), ..unprepared };
        assert_eq!(Standing::of_alone(&prepared).serving, Serving::Yes);
    }

    #[test]
    fn a_kernel_that_does_not_take_the_tables_is_not_ready_and_counts_are_told_once_they_are_known() {
        let state = NodeState { view: Some(view()), verdict: good(), ..NodeState::default() };
        let of = |policing: &PolicingState| {
            Standing::of(&state, Others::default(), &RoutesState::default(), policing, &Speaking::default())
        };
        let fine = PolicingState { looked: true, ..PolicingState::default() };
        let refused = |refuses_pods| {
            let error = Error::new(Code::Internal, "it cannot be set").with_details("modprobe nf_tables");
            PolicingState { problem: Some(Problem { error, refuses_pods }), ..fine.clone() }
        };
        let all = |policing: &PolicingState| judge(&of(policing), None, &usage(0, 0, 0));
        let of_kind =
            |policing: &PolicingState, kind: &str| all(policing).into_iter().find(|condition| condition.kind == kind);
        let ready = of_kind(&refused(true), "Ready").expect("told");
        assert_eq!((ready.status, ready.reason), (Truth::False, "TablesRefused"));
        assert!(ready.message.contains("modprobe nf_tables"), "{ready:?}");
        for policing in [refused(true), refused(false)] {
            let policy = of_kind(&policing, "Policy").expect("told");
            assert_eq!((policy.status, policy.reason), (Truth::False, "TablesRefused"));
        }
        let passing = of_kind(&refused(false), "Ready").expect("told");
        assert_eq!(passing.status, Truth::True, "what may be over in a moment evicts nobody");
        assert_eq!(of_kind(&fine, "Policy").map(|policy| policy.reason), Some("Off"));
        assert_eq!(
            (of_kind(&PolicingState::default(), "Policy"), super::policy(&PolicingState::default())),
            (None, Value::Null)
        );
        let counts = policed::Counts { policies: 1, isolated: 2, audited: 3, quarantined: 4, links: 5 };
        let kept = Kept { policies: Some(Mode::Audit), sources: true };
        let told = super::policy(&PolicingState { counts, kept, ..fine });
        let expected = json!({
            "mode": "audit", "policies": 1, "isolatedPods": 2, "audited": 3, "quarantined": 4, "checkedLinks": 5
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_try_that_fails_as_before_is_no_news() {
        let refusal = || Err(Error::new(Code::TryAgainLater, "net/ipv4/ip_forward cannot be written"));
        let once = NodeState { host: NodeState::default().host.after(refusal()), ..NodeState::default() };
        let twice = NodeState { host: once.host.after(refusal()), ..once.clone() };
        assert_eq!(Standing::of_alone(&once), Standing::of_alone(&twice));
    }

    fn others(ranges: &[(&str, &str)]) -> Others {
        let peer = |range: &str| Arc::new(Peer { cidr4: range.parse().ok(), ..Peer::default() });
        let name = |name: &str| Name { namespace: String::new(), name: name.into() };
        let nodes: Objects<Peer> = ranges.iter().map(|(node, range)| (Arc::new(name(node)), peer(range))).collect();
        let listed = Listed { nodes: Some(Arc::new(nodes)), heard: true, ..Listed::default() };
        Others::of("n", &NodeState { view: Some(view()), ..NodeState::default() }, &listed, None)
    }

    #[test]
    fn a_node_with_the_range_of_another_is_told_which() {
        let [unique] = &judge_others(&others(&[("n", "10.0.0.0/24"), ("m", "10.0.1.0/24")]))[..] else { panic!("one") };
        assert_eq!((unique.status, unique.reason), (Truth::True, "Unique"));
        let [unique] = &judge_others(&others(&[("n", "10.0.0.0/24"), ("m", "10.0.0.0/16")]))[..] else { panic!("one") };
        assert_eq!((unique.kind, unique.status, unique.reason), ("RangesUnique", Truth::False, "RangesOverlap"));
        assert!(unique.message.contains("node m has 10.0.0.0/16, which overlaps 10.0.0.0/24"), "{}", unique.message);
        // In a cluster that is wrong as a whole, a node more or less is no news.
        let many: Vec<String> = (0..1000).map(|n| format!("m{n:04}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|node| (node.as_str(), "10.0.0.0/24")).collect();
        assert_eq!(others(&many), others(&many[..999]));
        assert!(judge_others(&others(&many))[0].message.len() <= NOTES_MAX);
    }

    #[test]
    fn nodes_that_are_not_known_or_not_reached_are_told_with_the_remedy() {
        let unknown = Others { remedy: Some("kubectl apply".into()), ..Others::default() };
        let [unique] = &judge_others(&unknown)[..] else { panic!("one") };
        assert_eq!(
            (unique.status, unique.reason, unique.message.as_str()),
            (Truth::Unknown, "NotHeard", "kubectl apply")
        );
        let reached = |lines: &[&str]| {
            let lines = lines.iter().map(ToString::to_string).collect();
            judge_others(&Others { unreached: Some(lines), ..Others::default() }).remove(1)
        };
        assert_eq!((reached(&[]).kind, reached(&[]).status), ("PeersReached", Truth::True));
        let far = reached(&["node m is beyond a router", "node k, too"]);
        assert_eq!((far.status, far.message.as_str()), (Truth::False, "node m is beyond a router; node k, too"));
    }

    #[test]
    fn credentials_that_end_soon_are_a_condition_with_the_remedy() {
        use crate::kube::expiry::{Expiry, Kind};
        use crate::kube::pem::Origin;
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_478_400);
        let expiry =
            Expiry { kind: Kind::Token, origin: Origin::File("/t".into()), since: None, until, renewed: false };
        let ends = |near: &[Nearness]| Ends {
            all: vec![expiry.clone()],
            near: near.iter().map(|near| (expiry.clone(), *near)).collect(),
        };
        assert_eq!(judge_credentials(&Ends::default()), None, "there may be no end at all");
        let reason = |near: &[Nearness]| judge_credentials(&ends(near)).map(|told| (told.status, told.reason));
        assert_eq!(reason(&[]), Some((Truth::True, "Lasting")));
        assert_eq!(reason(&[Nearness::Past]), Some((Truth::False, "Ended")));
        assert_eq!(reason(&[Nearness::Soon]), Some((Truth::False, "EndSoon")));
        let soon = Standing { credentials: judge_credentials(&ends(&[Nearness::Soon])), ..of(good()) };
        let told = judge(&soon, None, &usage(0, 0, 0)).into_iter().find(|told| told.kind == "CredentialsLasting");
        let message = told.expect("told").message;
        assert!(message.starts_with("the token in /t ends at 2026-11-24T00:00:00Z, and"), "{message}");
        assert!(message.contains("put a new one into /t"), "{message}");
    }

    #[test]
    fn a_thousand_nodes_are_not_in_step_and_not_a_burden() {
        for _ in 0..1000 {
            let wait = jittered(HEARD_INTERVAL, 5);
            assert!((HEARD_INTERVAL..HEARD_INTERVAL * 6 / 5).contains(&wait));
        }
        assert_ne!(jittered(HEARD_INTERVAL, 5), jittered(HEARD_INTERVAL, 5));
    }
}
