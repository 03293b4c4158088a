//! The node's report: the status of its NodeConfig in the API, so that `kubectl get nodeconfigs` tells how the node is.
//!
//! One thread, never in the way of a request: written when it has changed, at most once a second, and tried again later when
//! the server does not take it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::agent::ledger::Ledger;
use crate::agent::source::Edit;
use crate::agent::view::Present;
use crate::ipam::FamilyCounts;
use crate::kube::client::{Client, Method};
use crate::kube::explained;
use crate::kube::objects::{NodeConfigs, collection, encoded};
use crate::kube::watch::Kind as _;
use crate::log;

/// Between two looks at what there is to report.
const INTERVAL: Duration = Duration::from_secs(1);

/// Pods come and go more often than anybody reads a count.
const COUNTS_INTERVAL: Duration = Duration::from_secs(10);

/// After a write that the server did not take.
const RETRY: Duration = Duration::from_secs(15);

/// For the ledger's answer.
const LEDGER_LIMIT: Duration = Duration::from_secs(2);

/// Longest text of all notes about a NodeConfig, in characters.
const NOTES_MAX: usize = 2048;

/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// What is thought of the newest NodeConfig.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Which edit of which object; none when there is no object to report on.
    pub edit: Option<Edit>,
    /// Why it is not in force.
    pub problem: Option<String>,
    /// What an operator should know about it though it is in force.
    pub notes: Vec<String>,
}

/// Whether pods get addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// They do.
    Yes,
    /// There has not been a valid NodeConfig yet.
    NotConfigured,
    /// The host cannot do what pods need; why, in words for an operator.
    HostNotPrepared(String),
}

/// What the node's own thread thinks of its NodeConfig and of its host: the place where the reporter finds it.
#[derive(Debug, Clone, Default)]
pub struct Verdicts(Arc<Mutex<Standing>>);

#[derive(Debug, Clone, Default)]
struct Standing {
    verdict: Verdict,
    /// Why the host is not prepared; none when it is.
    unprepared: Option<String>,
    /// What an operator should know about the NodeConfig on this host.
    host_note: Option<String>,
}

impl Verdicts {
    /// Puts another verdict in place.
    pub fn set(&self, verdict: Verdict) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).verdict = verdict;
    }

    /// Says that the host is prepared for pods, or why it is not.
    pub fn set_host(&self, prepared: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unprepared = prepared.err();
    }

    /// Says what an operator should know about the NodeConfig on this host. Returns whether that is new.
    pub fn set_host_note(&self, note: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).host_note = note;
    }

    fn get(&self) -> Standing {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Standing {
    fn notes(&self) -> String {
        let notes: Vec<&str> = self.verdict.notes.iter().chain(&self.host_note).map(String::as_str).collect();
        notes.join("; ").chars().take(NOTES_MAX).collect()
    }

    fn serving(&self, configured: bool) -> Serving {
        match (&self.unprepared, configured) {
            (_, false) => Serving::NotConfigured,
            (Some(why), true) => Serving::HostNotPrepared(why.clone()),
            (None, true) => Serving::Yes,
        }
    }
}

/// One condition, in the words of the Kubernetes API conventions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
    /// When `status` became what it is, RFC 3339.
    since: String,
}

/// The writer's state.
#[derive(Debug)]
pub struct Reporter {
    client: Arc<Client>,
    node: String,
    ledger: Ledger,
    present: Present,
    verdicts: Verdicts,
    /// What the server has taken, and for which object.
    written: Option<(Edit, Value)>,
    /// The conditions as they were last written, for their times.
    conditions: Vec<(String, bool, String)>,
    counted: Option<Instant>,
    not_before: Option<Instant>,
}

impl Reporter {
    /// A reporter that has written nothing yet.
    pub fn new(client: Arc<Client>, node: String, ledger: Ledger, present: Present, verdicts: Verdicts) -> Reporter {
        Reporter {
            client,
            node,
            ledger,
            present,
            verdicts,
            written: None,
            conditions: Vec::new(),
            counted: None,
            not_before: None,
        }
    }

    /// Reports until `stop` says so or is dropped.
    pub fn keep(mut self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
            self.round();
        }
    }

    fn round(&mut self) {
        let standing = self.verdicts.get();
        let Some(edit) = standing.verdict.edit.clone() else { return };
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        let same_edit = self.written.as_ref().is_some_and(|(written, _)| *written == edit);
        if same_edit && self.counted.is_some_and(|counted| counted.elapsed() < COUNTS_INTERVAL) {
            return;
        }
        if self.written.as_ref().is_none_or(|(written, _)| written.uid != edit.uid) {
            self.conditions = self.conditions_on_server();
        }
        self.counted = Some(Instant::now());
        let Some(status) = self.status(&standing, &edit) else { return };
        if self.written.as_ref() == Some(&(edit.clone(), status.clone())) {
            return;
        }
        match self.write(&status) {
            Ok(()) => self.written = Some((edit, status)),
            Err(why) => {
                self.not_before = Some(Instant::now() + RETRY);
                log::warn("status of the NodeConfig cannot be written").with("err", why).write_limited();
            }
        }
    }

    fn status(&mut self, standing: &Standing, edit: &Edit) -> Option<Value> {
        let deadline = Instant::now() + LEDGER_LIMIT;
        let filling = self.ledger.filling(deadline).ok()?;
        let now = log::timestamp(SystemTime::now());
        let conditions = judge(standing, &standing.serving(self.present.get().is_some()));
        let conditions: Vec<Condition> = conditions
            .into_iter()
            .map(|condition| {
                let before = self.conditions.iter().find(|(kind, ..)| kind == condition.kind);
                let unchanged = before.filter(|(_, status, _)| *status == condition.status);
                let since = unchanged.map_or_else(|| now.clone(), |(.., since)| since.clone());
                Condition { since, ..condition }
            })
            .collect();
        self.conditions = conditions.iter().map(|c| (c.kind.to_owned(), c.status, c.since.clone())).collect();
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|c| {
                json!({
                    "type": c.kind,
                    "status": if c.status { "True" } else { "False" },
                    "reason": c.reason,
                    "message": c.message,
                    "lastTransitionTime": c.since,
                    "observedGeneration": edit.generation,
                })
            })
            .collect();
        let family = |counts: &FamilyCounts| json!({"allocated": counts.allocated, "free": counts.free.to_string()});
        Some(json!({
            "observedGeneration": edit.generation,
            "agentVersion": env!("CARGO_PKG_VERSION"),
            "pods": filling.leases,
            "ipv6": family(&filling.addresses.ipv6),
            "ipv4": family(&filling.addresses.ipv4),
            "conditions": conditions,
        }))
    }

    /// A merge patch of the whole status, which is this agent's alone: no version to conflict about.
    fn write(&self, status: &Value) -> Result<(), String> {
        let path = format!("{}/{}/status", collection(), encoded(&self.node));
        let body = json!({"status": status}).to_string();
        let sent = self.client.send(Method::Patch, &path, "application/merge-patch+json", body.as_bytes());
        match sent {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(format!("{}: {}", answer.status, excerpt(&answer.body))),
            Err(error) => Err(explained(&error)),
        }
    }

    /// The times of an earlier run of the agent.
    fn conditions_on_server(&self) -> Vec<(String, bool, String)> {
        let path = NodeConfigs { node: self.node.clone() }.path();
        let Ok(answer) = self.client.get(&path, ANSWER_MAX) else { return Vec::new() };
        let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let conditions = list.pointer("/items/0/status/conditions").and_then(Value::as_array);
        let read = |condition: &Value| {
            let text = |key: &str| condition.get(key)?.as_str().map(str::to_owned);
            Some((text("type")?, text("status")? == "True", text("lastTransitionTime")?))
        };
        conditions.into_iter().flatten().filter_map(read).collect()
    }
}

fn judge(standing: &Standing, serving: &Serving) -> [Condition; 2] {
    let condition = |kind, status, reason, message: &str| Condition {
        kind,
        status,
        reason,
        message: message.to_owned(),
        since: String::new(),
    };
    let verdict = &standing.verdict;
    let notes = standing.notes();
    let valid = match &verdict.problem {
        None if notes.is_empty() => condition("Valid", true, "Accepted", "in force"),
        None => condition("Valid", true, "Accepted", &format!("in force, but: {notes}")),
        Some(problem) => condition("Valid", false, "Invalid", problem),
    };
    let ready = match (&verdict.problem, serving) {
        (None, Serving::Yes) => condition("Ready", true, "Serving", "pods get addresses"),
        (Some(_), Serving::Yes) => condition("Ready", true, "LastGood", "the last valid configuration is in force"),
        (_, Serving::NotConfigured) => {
            condition("Ready", false, "NotConfigured", "no valid configuration has been seen")
        }
        (_, Serving::HostNotPrepared(why)) => condition("Ready", false, "HostNotPrepared", why),
    };
    [ready, valid]
}

fn excerpt(body: &[u8]) -> String {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = status.get("message").and_then(Value::as_str).map(str::to_owned);
    text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()).chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(verdict: Verdict) -> Standing {
        Standing { verdict, ..Standing::default() }
    }

    #[test]
    fn what_is_accepted_and_wrong_is_shown_beside_valid() {
        let verdicts = Verdicts::default();
        verdicts.set(Verdict { notes: vec!["annotation x is ignored".into()], ..Verdict::default() });
        verdicts.set_host_note(Some("spec.mtu is 9000".into()));
        let [ready, valid] = judge(&verdicts.get(), &Serving::Yes);
        assert!(ready.status && valid.status);
        assert_eq!(valid.message, "in force, but: annotation x is ignored; spec.mtu is 9000");
        verdicts.set_host_note(None);
        verdicts.set(Verdict { notes: vec!["é".repeat(100_000)], ..Verdict::default() });
        let [_, valid] = judge(&verdicts.get(), &Serving::Yes);
        assert!(valid.message.len() < 32 * 1024, "the API server takes no longer message");
    }

    #[test]
    fn a_bad_edit_is_invalid_and_the_node_stays_ready() {
        let bad = of(Verdict { problem: Some("spec.cidr6 …".into()), ..Verdict::default() });
        let [ready, valid] = judge(&bad, &Serving::Yes);
        assert_eq!((ready.status, ready.reason, valid.status, valid.reason), (true, "LastGood", false, "Invalid"));
        assert_eq!(valid.message, "spec.cidr6 …");
        let [ready, _] = judge(&bad, &Serving::NotConfigured);
        assert_eq!((ready.status, ready.reason), (false, "NotConfigured"));
        let [ready, valid] = judge(&Standing::default(), &Serving::Yes);
        assert!(ready.status && valid.status);
    }

    #[test]
    fn a_host_that_is_not_prepared_is_not_ready_and_says_why() {
        let verdicts = Verdicts::default();
        assert_eq!(verdicts.get().serving(true), Serving::Yes);
        verdicts.set_host(Err("net/ipv4/ip_forward cannot be written".into()));
        let serving = verdicts.get().serving(true);
        let [ready, valid] = judge(&Standing::default(), &serving);
        assert_eq!((ready.status, ready.reason, valid.status), (false, "HostNotPrepared", true));
        assert_eq!(ready.message, "net/ipv4/ip_forward cannot be written");
        // Without a configuration nobody has tried to prepare it.
        assert_eq!(verdicts.get().serving(false), Serving::NotConfigured);
        verdicts.set_host(Ok(()));
        assert_eq!(verdicts.get().serving(true), Serving::Yes);
    }
}
