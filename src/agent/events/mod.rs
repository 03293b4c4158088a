//! Events in the API: what an operator should see of the node where `kubectl describe node` shows it, and of a pod only what
//! kubelet does not say.
//!
//! One thread writes them, never in the way of a request or of the status: one request a second at most, and six in a minute. It
//! looks at what the other threads publish, so whatever begins and ends between two looks is in the log alone. What the API server
//! does not take is lost. Must not judge how the node is: the conditions do.

pub mod ignored;
pub mod kept;
pub mod object;
pub mod pace;
pub mod reason;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use crate::agent::board::Board;
use crate::agent::events::ignored::Ignored;
use crate::agent::events::kept::KeptFile;
use crate::agent::events::pace::{Letter, Outcome, Pace, Regarding};
use crate::agent::events::reason::standings;
use crate::agent::ledger::Ledger;
use crate::agent::node::report::{Unreported, refused};
use crate::agent::node::state::NodeState;
use crate::agent::node::status::snapshot::Snapshot;
use crate::agent::policing::state::PolicingState;
use crate::kube::client::{Answer, Client, Method};
use crate::kube::explained;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::record::boot_clock;

/// Interval between looks at what there is to tell, 1 s.
const INTERVAL: Duration = Duration::from_secs(1);

/// Interval between questions how many addresses are free, 10 s.
const USAGE_INTERVAL: Duration = Duration::from_secs(10);

/// Deadline for the ledger's answer, 2 s.
const LEDGER_LIMIT: Duration = Duration::from_secs(2);

/// The writer's state.
#[derive(Debug)]
pub struct Events {
    client: Arc<Client>,
    node: String,
    ledger: Ledger,
    state: Board<NodeState>,
    policing: Board<PolicingState>,
    ignored: Receiver<Ignored>,
    /// What was seen at the last look, and when.
    seen: Option<(Arc<NodeState>, Arc<PolicingState>, Instant)>,
    pace: Pace,
    kept: KeptFile,
    failing: Lasting,
}

impl Events {
    /// A writer for the node of this name, which goes on where the agent before it was, by what is kept in `state_dir`. What ADDs
    /// have ignored comes through `ignored`.
    pub fn new(
        client: Arc<Client>,
        node: String,
        ledger: Ledger,
        (state, policing): (Board<NodeState>, Board<PolicingState>),
        ignored: Receiver<Ignored>,
        state_dir: &Path,
    ) -> Events {
        let mut kept = KeptFile::new(state_dir);
        let pace = Pace::after(&kept.recall());
        Events { client, node, ledger, state, policing, ignored, seen: None, pace, kept, failing: Lasting::default() }
    }

    /// Writes until `stop` says so or is dropped. Whoever cannot wait for that shuts the client down.
    pub fn run(mut self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
            self.look();
            self.ignored.try_iter().for_each(|ignored| self.pace.ignored(ignored));
            if let Some(letter) = self.pace.next(boot_clock::now_ms()) {
                let outcome = self.write(&letter);
                self.pace.done(letter, outcome, boot_clock::now_ms());
            }
            self.kept.keep(self.pace.kept());
        }
    }

    /// Looks at the node, if anything may have changed.
    fn look(&mut self) {
        let (state, policing) = (self.state.get(), self.policing.get());
        let same = |(before, tables, at): &(Arc<NodeState>, Arc<PolicingState>, Instant)| {
            Arc::ptr_eq(before, &state) && Arc::ptr_eq(tables, &policing) && at.elapsed() < USAGE_INTERVAL
        };
        if self.seen.as_ref().is_some_and(same) {
            return;
        }
        let Ok(usage) = self.ledger.usage(Instant::now() + LEDGER_LIMIT) else { return };
        let snapshot = Snapshot {
            state: state.clone(),
            listed: None,
            routes: Arc::default(),
            policing: policing.clone(),
            speaking: Arc::default(),
            ends: Arc::default(),
        };
        let conditions = snapshot.conditions(&self.node, &usage);
        for (reason, standing) in standings(&state, &policing, &conditions) {
            self.pace.stands(reason, standing);
        }
        self.seen = Some((state, policing, Instant::now()));
    }

    fn write(&mut self, letter: &Letter) -> Outcome {
        let body = object::object(letter, &self.node, SystemTime::now()).to_string();
        let sent =
            self.client.send(Method::Post, &object::path(&letter.regarding), "application/json", body.as_bytes());
        let (outcome, why) = match sent {
            Ok(Answer { status: 200..=299 | 409, .. }) => {
                self.failing.over(|| log::info("Events are written again"));
                return Outcome::Taken;
            }
            Ok(answer) => judge(&letter.regarding, &answer),
            Err(error) if error.is_stopped() => return Outcome::Refused,
            Err(error) => (Outcome::Later(0), Some(explained(&error))),
        };
        if let Some(why) = why {
            self.failing.met(why, || log::warn("Events cannot be written; conditions and log tell the same"));
        }
        outcome
    }
}

/// What it means that the server has not taken an Event, and why, where an operator should know.
fn judge(regarding: &Regarding, answer: &Answer) -> (Outcome, Option<String>) {
    // A namespace that is about to go takes nothing any more, and says so by 403.
    let going =
        matches!(regarding, Regarding::Pod(_)) && answer.body.windows(16).any(|text| text == b"being terminated");
    match refused("create", "events", answer) {
        Unreported::Gone => (Outcome::Refused, None),
        Unreported::Failed { .. } if going => (Outcome::Refused, None),
        Unreported::Failed { why, wait } => {
            let wait = u64::try_from(wait.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            let later = answer.status == 401 || answer.status == 429 || answer.status >= 500;
            (if later { Outcome::Later(wait) } else { Outcome::Refused }, Some(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::lease::PodName;

    #[test]
    fn a_refusal_names_the_rule_that_is_missing_and_a_namespace_that_goes_is_no_refusal() {
        let answer = |status, message: &str| Answer {
            status,
            retry_after: Some(Duration::from_secs(7)),
            body: serde_json::json!({"message": message}).to_string().into_bytes(),
        };
        let (outcome, why) = judge(&Regarding::Node, &answer(403, "events.events.k8s.io is forbidden: cannot create"));
        assert_eq!(outcome, Outcome::Refused);
        let why = why.expect("told");
        assert!(why.contains("allow the verb create on the resource events of apiGroup events.k8s.io"), "{why}");
        assert_eq!(judge(&Regarding::Node, &answer(429, "busy")).0, Outcome::Later(7000));
        assert_eq!(judge(&Regarding::Node, &answer(503, "")).0, Outcome::Later(7000));
        assert_eq!(judge(&Regarding::Node, &answer(422, "note: too long")).0, Outcome::Refused);
        let pod = Regarding::Pod(PodName { namespace: "shop".into(), name: "web".into(), uid: None });
        let going = answer(403, "namespace shop because it is being terminated");
        assert_eq!(judge(&pod, &going), (Outcome::Refused, None));
        assert_eq!(judge(&pod, &answer(404, "namespaces \"shop\" not found")), (Outcome::Refused, None));
    }
}
