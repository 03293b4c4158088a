//! The node's report: the status of its NodeConfig in the API, so that `kubectl get nodeconfigs` tells how the node is, and
//! when its agent last reported.
//!
//! One thread writes the report when it is due (`pace`), never in the way of a request, and tries again later when the server does
//! not take it. It writes nothing before it knows the conditions that the server has, whose times stay theirs. Must not decide how
//! the node is: the node's thread publishes that.

pub mod condition;
pub mod counts;
pub mod object;
pub mod others;
pub mod pace;
pub mod snapshot;
pub mod standing;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use crate::agent::board::Board;
use crate::agent::ledger::Ledger;
use crate::agent::node::credentials::{Credentials, Ends};
use crate::agent::node::peers::Listed;
use crate::agent::node::report::{RETRY, RETRY_MAX, Unreported, jittered};
use crate::agent::node::state::{Edit, NodeState};
use crate::agent::node::status::condition::{Told, dated};
use crate::agent::node::status::counts::{Counts, Family, policy, routing};
use crate::agent::node::status::object::{conditions_on_server, patch, withdraw};
use crate::agent::node::status::others::{Others, judge_others};
use crate::agent::node::status::pace::{Pace, Report};
use crate::agent::node::status::standing::{Standing, has_bgp, judge, judge_credentials};
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::state::RoutesState;
use crate::kube::client::Client;
use crate::process::dates::timestamp;
use crate::process::log;
use crate::process::log::lasting::Lasting;

/// Interval between looks at what there is to report, 1 s.
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval between looks at the kubeconfig, 5 s: while a watch is open and nothing happens, no request looks at it.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Deadline for the ledger's answer, 2 s.
const LEDGER_LIMIT: Duration = Duration::from_secs(2);

/// How long the first report waits for the list of other nodes, 5 s: one report says it all.
const OTHERS_LIMIT: Duration = Duration::from_secs(5);

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
    pace: Pace,
    /// The conditions as the server has them, and of which object; none as long as they are not known.
    told: Option<(String, Vec<Told>)>,
    looked: Option<Instant>,
    credentials: Credentials,
    ends: Ends,
    /// How often the client had moved to another server at the last look.
    moves: u64,
    not_before: Option<Instant>,
    failing: Lasting,
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
            pace: Pace::new(Instant::now()),
            told: None,
            looked: None,
            credentials: Credentials::new(ends),
            ends: Ends::default(),
            moves: 0,
            not_before: None,
            failing: Lasting::default(),
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
            (self.pace, self.told, self.not_before) = (Pace::new(Instant::now()), None, None);
        }
        let now = Instant::now();
        if self.not_before.is_some_and(|time| now < time) {
            return;
        }
        let (state, listed) = (self.state.get(), self.listed.get());
        let known = listed.nodes.is_some() || listed.refused;
        if !known && !self.pace.has_begun() && self.began.elapsed() < OTHERS_LIMIT {
            return;
        }
        let nodes = listed.nodes.as_ref().map_or(0, |nodes| nodes.len());
        let Some(edit) = state.verdict.edit().cloned() else { return };
        if self.pace.waits_to_begin(nodes, now) {
            return;
        }
        match self.report(&state, &listed, edit, now) {
            Ok(()) => self.failing.over(|| log::info("status of the NodeConfig is written again")),
            Err(Unreported::Gone) => self.not_before = Some(Instant::now() + jittered(RETRY, 1)),
            Err(Unreported::Failed { why, wait }) => {
                let wait = wait.unwrap_or_default().min(RETRY_MAX).max(jittered(RETRY, 1));
                self.not_before = Some(Instant::now() + wait);
                self.failing.met(why, || log::warn("status of the NodeConfig cannot be written"));
            }
        }
    }

    /// Writes what is so now, if that is due.
    fn report(&mut self, state: &NodeState, listed: &Listed, edit: Edit, now: Instant) -> Result<(), Unreported> {
        let (routes, policing, speaking) = (self.routes.get(), self.policing.get(), self.speaking.get());
        let nothing = |lines: &Option<Vec<String>>| lines.as_ref().map(Vec::is_empty);
        if self.pace.is_regular(now) || nothing(&self.said) != nothing(&routes.unreached) {
            self.said.clone_from(&routes.unreached);
        }
        let others = Others::of(&self.node, state, listed, self.said.clone());
        let standing = Standing {
            credentials: judge_credentials(&self.ends),
            ..Standing::of(state, others, &routes, &policing, &speaking)
        };
        let told = match &self.told {
            Some((uid, told)) if *uid == edit.uid => told.clone(),
            _ => conditions_on_server(&self.client, &self.node, &edit)?,
        };
        let Ok(usage) = self.ledger.usage(Instant::now() + LEDGER_LIMIT) else { return Ok(()) };
        let config = state.view.as_ref().map(|view| &view.config);
        let mut conditions = judge(&standing, config, &usage).to_vec();
        conditions.extend(judge_others(&standing.others));
        let time = timestamp(SystemTime::now());
        let (conditions, told) = dated(&conditions, &told, &time, edit.generation);
        self.told = Some((edit.uid.clone(), told));
        let counts = Counts {
            pods: usage.leases.try_into().unwrap_or(u64::MAX),
            ipv6: Family::of(&usage.addresses.ipv6, config.is_some_and(|config| config.cidr6.is_some())),
            ipv4: Family::of(&usage.addresses.ipv4, config.is_some_and(|config| config.cidr4.is_some())),
            routing: routing(&routes, speaking.wanted(has_bgp(state))),
            policy: policy(&policing),
        };
        let report = Report::new(edit, &conditions, &standing.sessions, counts);
        if !self.pace.is_due(&report, now) {
            return Ok(());
        }
        let mut status = report.counts.told();
        if let Some(status) = status.as_object_mut() {
            status.insert("observedGeneration".into(), report.edit.generation.into());
            status.insert("agentVersion".into(), env!("CARGO_PKG_VERSION").into());
            status.insert("conditions".into(), conditions.into());
            status.insert("lastHeard".into(), time.into());
        }
        patch(&self.client, &self.node, &status)?;
        self.pace.written(report, now);
        Ok(())
    }
}
