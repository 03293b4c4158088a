//! How the node is, and the conditions that say so.
//!
//! Must not ask anybody: it judges what the boards held at one moment, and the ledger's counts.

use crate::agent::ledger::Usage;
use crate::agent::node::credentials::Ends;
use crate::agent::node::state::{NodeState, Verdict};
use crate::agent::node::status::condition::{Condition, NOTES_MAX, Truth};
use crate::agent::node::status::others::Others;
use crate::agent::policing;
use crate::agent::policing::state::PolicingState;
use crate::agent::routing::bird::Speaking;
use crate::agent::routing::condition::{self, Judged};
use crate::agent::routing::state::RoutesState;
use crate::kube::expiry::Nearness;
use model::excerpt::Excerpt;
use model::nodeconfig::NodeConfig;

/// What a report is made of, but for the counts of pods and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What is to be said of the NodeConfig.
    pub verdict: Verdict,
    /// What of it does not do what it says on this host.
    pub host_notes: Vec<String>,
    /// Whether pods get addresses.
    pub serving: Serving,
    /// How it stands to the others.
    pub others: Others,
    /// The condition of its routing; none as long as nothing is known of it.
    pub routing: Option<Condition>,
    /// The condition of what its pods may send and receive; none as long as nothing is known of it.
    pub policy: Option<Condition>,
    /// Whether the session with each peer of `spec.bgp` is established, by the peer's name.
    pub sessions: Vec<(String, bool)>,
    /// The condition of what the agent proves itself with; none if nothing of it ends.
    pub credentials: Option<Condition>,
}

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

impl Standing {
    /// How the node is by what stood on the boards, but for its credentials.
    pub fn of(
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

/// Whether the NodeConfig in force asks for BGP.
pub fn has_bgp(state: &NodeState) -> bool {
    state.view.as_ref().is_some_and(|view| view.config.bgp.is_some())
}

/// The conditions, but for those of the other nodes.
pub fn judge(standing: &Standing, config: Option<&NodeConfig>, usage: &Usage) -> Vec<Condition> {
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
pub fn judge_credentials(ends: &Ends) -> Option<Condition> {
    let condition = |status, reason, message| Condition { kind: "CredentialsLasting", status, reason, message };
    let Some((expiry, nearness)) = ends.near.first() else {
        let lasting = || condition(Truth::True, "Lasting", "no token or client certificate is about to end".into());
        return (!ends.all.is_empty()).then(lasting);
    };
    let reason = if *nearness == Nearness::Past { "Ended" } else { "EndSoon" };
    let message = format!("{expiry}, and the API server then refuses this agent: {}", expiry.remedy());
    Some(condition(Truth::False, reason, Excerpt::line(&message, NOTES_MAX).into()))
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
pub(crate) mod tests;
