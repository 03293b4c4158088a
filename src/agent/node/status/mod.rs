//! The node's report: the status of its NodeConfig in the API, so that `kubectl get nodeconfigs` tells how the node is, and
//! when its agent last reported.
//!
//! One thread writes the report, never in the way of a request: when something has changed, at most once a second, and every five
//! minutes when nothing has. It tries again later when the server does not take a report. It writes nothing before it knows the
//! conditions that the server has, whose times stay theirs. Must not decide how the node is: the node's thread publishes that.

pub mod condition;
pub mod counts;
pub mod object;
pub mod others;
pub mod snapshot;
pub mod standing;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::agent::board::Board;
use crate::agent::ledger::Ledger;
use crate::agent::node::credentials::{Credentials, Ends};
use crate::agent::node::peers::Listed;
use crate::agent::node::report::{RETRY, RETRY_MAX, Unreported, jittered};
use crate::agent::node::state::{Edit, NodeState};
use crate::agent::node::status::condition::{Told, dated};
use crate::agent::node::status::counts::{Counts, policy, routing};
use crate::agent::node::status::object::{conditions_on_server, patch, withdraw};
use crate::agent::node::status::others::{Others, judge_others};
use crate::agent::node::status::standing::{Standing, has_bgp, judge, judge_credentials};
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::state::RoutesState;
use crate::kube::client::Client;
use crate::process::dates::timestamp;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use model::ipam::FamilyCounts;
use model::nodeconfig::NodeConfig;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::node::status::standing::tests::{session, speaking};
    use crate::bird::sessions::Session;

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
    fn a_thousand_nodes_are_not_in_step_and_not_a_burden() {
        for _ in 0..1000 {
            let wait = jittered(HEARD_INTERVAL, 5);
            assert!((HEARD_INTERVAL..HEARD_INTERVAL * 6 / 5).contains(&wait));
        }
        assert_ne!(jittered(HEARD_INTERVAL, 5), jittered(HEARD_INTERVAL, 5));
    }
}
