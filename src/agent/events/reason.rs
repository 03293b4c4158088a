//! The reasons of Events: what each is called, what it says, and which of them hold as the node is now.
//!
//! [docs/observe.md] lists the same, which a test compares. The texts are those of the conditions and of the log: what is written
//! here is only what neither of them says. Must not decide when an Event is written: the pace does.
//!
//! [docs/observe.md]: ../../../docs/observe.md

use crate::agent::node::state::{Basis, NodeState};
use crate::agent::node::status::condition::{Condition, Truth};
use crate::agent::policing::state::PolicingState;

/// Why an Event is written.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Its name in the API, at most 128 bytes as all texts here.
    pub name: &'static str,
    /// `Warning`: somebody should see to it; or `Normal`.
    pub kind: &'static str,
    /// What the agent was about.
    pub action: &'static str,
    /// Of what an Event with this reason is: `Node` or `Pod`.
    pub of: &'static str,
    /// What it says.
    pub says: &'static str,
}

macro_rules! reasons {
    ($($name:ident $text:literal $kind:literal $action:literal $of:literal $says:literal;)*) => {
        $(
            #[doc = $says]
            pub const $name: &Reason = &Reason { name: $text, kind: $kind, action: $action, of: $of, says: $says };
        )*

        /// All of them. Of the node, those that stop pods come first.
        pub const ALL: &[&Reason] = &[$($name),*];
    };
}

reasons! {
    HOST_NOT_PREPARED "FlockHostNotPrepared" "Warning" "Prepare" "Node" "What pods need of the host cannot be set, and why: new pods are refused";
    TABLES_REFUSED "FlockTablesRefused" "Warning" "Prepare" "Node" "The packet filter does not take what pods may send and receive, and why: new pods are refused";
    NODE_CONFIG_INVALID "FlockNodeConfigInvalid" "Warning" "Configure" "Node" "The field that is wrong, how, and which generation is ignored";
    NODE_CONFIG_MISSING "FlockNodeConfigMissing" "Warning" "Configure" "Node" "There is no NodeConfig of the node's name, and what to apply";
    POOL_EXHAUSTED "FlockPoolExhausted" "Warning" "Allocate" "Node" "The family of which no address is free: new pods with it wait until one is released";
    SERVING "FlockServing" "Normal" "Serve" "Node" "Pods get addresses: of which ranges, and by which version of the agent";
    ANNOTATION_IGNORED "FlockAnnotationIgnored" "Warning" "Attach" "Pod" "The pod is attached, and an annotation of it is ignored: which, and why";
}

/// How one reason is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody can tell yet.
    Unknown,
    /// It does not hold.
    Over,
    /// It holds; in words for an operator.
    Holds(String),
}

/// How each reason is that is of the node.
pub fn standings(
    state: &NodeState,
    policing: &PolicingState,
    conditions: &[Condition],
) -> Vec<(&'static Reason, Standing)> {
    let of = |kind: &str| conditions.iter().find(|condition| condition.kind == kind);
    let known = |is_so: bool| if is_so { Standing::Over } else { Standing::Unknown };
    let (mut invalid, mut missing) = (known(state.verdict.is_good()), known(state.verdict.is_good()));
    if let Some(message) = of("Valid").and_then(Condition::trouble) {
        let of = if state.verdict.basis == Basis::Nothing { &mut missing } else { &mut invalid };
        *of = Standing::Holds(message);
    }
    let free = of("AddressesFree");
    let exhausted = match free.and_then(Condition::trouble) {
        Some(message) => Standing::Holds(message),
        None => known(free.is_some_and(|free| free.status == Truth::True)),
    };
    let (mut unprepared, mut refused) = (known(state.host.is_ready()), known(policing.is_ready()));
    let mut serving = Standing::Unknown;
    match (of("Ready"), &state.view) {
        (Some(Condition { status: Truth::True, .. }), Some(view)) if state.host.is_ready() && policing.is_ready() => {
            let ranges = [view.config.cidr6.map(|net| net.to_string()), view.config.cidr4.map(|net| net.to_string())];
            let ranges: Vec<String> = ranges.into_iter().flatten().collect();
            serving =
                Standing::Holds(format!("serving {} (agent {})", ranges.join(" and "), env!("CARGO_PKG_VERSION")));
        }
        (Some(ready @ Condition { status: Truth::False, .. }), _) => {
            let of = match ready.reason {
                "HostNotPrepared" => Some(&mut unprepared),
                "TablesRefused" => Some(&mut refused),
                _ => None,
            };
            if let Some(of) = of {
                (*of, serving) = (Standing::Holds(ready.message.clone()), Standing::Over);
            }
        }
        _ => {}
    }
    vec![
        (HOST_NOT_PREPARED, unprepared),
        (TABLES_REFUSED, refused),
        (NODE_CONFIG_INVALID, invalid),
        (NODE_CONFIG_MISSING, missing),
        (POOL_EXHAUSTED, exhausted),
        (SERVING, serving),
    ]
}

impl Condition {
    /// What it says, if it does not hold.
    fn trouble(&self) -> Option<String> {
        (self.status == Truth::False).then(|| self.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::ledger::Usage;
    use crate::agent::node::state::{Edit, Verdict, View};
    use crate::agent::node::status::snapshot::Snapshot;
    use cni::error::{Code, Error};
    use model::addr::GATEWAY4;
    use model::ipam::{Counts, FamilyCounts};

    fn view() -> Arc<View> {
        let text = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: n}\n\
                    spec: {cidr6: '2001:db8:1:f001::/64', cidr4: 10.25.214.0/24}\n";
        let config = model::nodeconfig::parse(text).expect("valid");
        Arc::new(View { config, mtu: 1500, gateway4: GATEWAY4 })
    }

    fn edit(generation: i64, problem: Option<&str>) -> Verdict {
        let basis = Basis::NodeConfig(Edit { uid: "u".into(), generation });
        Verdict { basis, problem: problem.map(str::to_owned), notes: Vec::new() }
    }

    /// What holds, and what is over, of a node with so many free IPv4 addresses.
    fn judged(state: &NodeState, policing: &PolicingState, free: u64) -> (Vec<(&'static str, String)>, usize) {
        let snapshot = Snapshot {
            state: Arc::new(state.clone()),
            listed: None,
            routes: Arc::default(),
            policing: Arc::new(policing.clone()),
            speaking: Arc::default(),
            ends: Arc::default(),
        };
        let ipv4 = FamilyCounts { allocated: 253 - free, free, usable: 253, resting: 0 };
        let addresses = Counts { ipv4, ipv6: FamilyCounts { free: u64::MAX, ..ipv4 } };
        let usage = Usage { leases: 1, pending: 0, addresses };
        let standings = standings(state, policing, &snapshot.conditions("n", &usage));
        let over = standings.iter().filter(|(_, standing)| *standing == Standing::Over).count();
        let holds = standings.into_iter().filter_map(|(reason, standing)| match standing {
            Standing::Holds(text) => Some((reason.name, text)),
            Standing::Unknown | Standing::Over => None,
        });
        (holds.collect(), over)
    }

    #[test]
    fn what_holds_has_the_words_of_the_conditions() {
        let (nothing, looked) = (PolicingState::default(), PolicingState { looked: true, ..PolicingState::default() });
        let blank = NodeState::default();
        assert_eq!(judged(&blank, &nothing, 9), (vec![], 0), "an agent that has just begun knows nothing");
        let told = NodeState { view: Some(view()), verdict: edit(3, None), ..blank.clone() };
        assert_eq!(judged(&told, &nothing, 9), (vec![], 3), "nobody has prepared the host yet");

        let ready = NodeState { host: blank.host.after(Ok(())), ..told.clone() };
        let serving = format!("serving 2001:db8:1:f001::/64 and 10.25.214.0/24 (agent {})", env!("CARGO_PKG_VERSION"));
        let serves = ("FlockServing", serving);
        assert_eq!(judged(&ready, &looked, 9), (vec![serves.clone()], 5));

        let wrong = r#"spec.cidr4: "10.25.214.7/24" has bits set behind the prefix length"#;
        let bad = NodeState { verdict: edit(4, Some(wrong)), ..ready.clone() };
        let ignored = format!("{wrong}; generation 4 is ignored, and the last good one stays in force");
        assert_eq!(judged(&bad, &looked, 9).0, [("FlockNodeConfigInvalid", ignored), serves.clone()]);
        let first = NodeState { verdict: edit(1, Some(wrong)), ..blank.clone() };
        let ignored = format!("{wrong}; generation 1 is ignored, and there is none before it");
        assert_eq!(judged(&first, &nothing, 9), (vec![("FlockNodeConfigInvalid", ignored)], 0));
        let gone = Verdict { problem: Some("there is none: apply one".into()), ..Verdict::default() };
        let gone = NodeState { verdict: gone, ..ready.clone() };
        assert_eq!(judged(&gone, &looked, 9).0[0], ("FlockNodeConfigMissing", "there is none: apply one".into()));

        let (full, _) = judged(&ready, &looked, 0);
        assert!(
            full[0].0 == "FlockPoolExhausted" && full[0].1.starts_with("no IPv4 address is free, 253 are"),
            "{full:?}"
        );
        assert_eq!(full[1], serves, "pods with IPv6 alone are served");

        let refusal = Error::new(Code::TryAgainLater, "net/ipv4/ip_forward cannot be set");
        let unprepared = NodeState { host: ready.host.after(Err(refusal.clone())), ..ready.clone() };
        let (held, over) = judged(&unprepared, &looked, 9);
        let why = "net/ipv4/ip_forward cannot be set; new pods are refused".to_owned();
        assert_eq!((held, over), (vec![("FlockHostNotPrepared", why.clone())], 5), "it serves no more");
        let problem = crate::agent::policing::state::Problem { error: refusal, refuses_pods: true };
        let refused = PolicingState { problem: Some(problem), ..looked.clone() };
        assert_eq!(judged(&ready, &refused, 9), (vec![("FlockTablesRefused", why)], 5));
    }

    #[test]
    fn the_page_lists_every_reason_and_no_other() {
        let page = include_str!("../../../docs/observe.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Events\n")).expect("a section");
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| `Flock")).collect();
        let expected: Vec<String> = ALL
            .iter()
            .map(|reason| format!("| `{}` | {} | {} | {} |", reason.name, reason.kind, reason.of, reason.says))
            .collect();
        assert_eq!(rows, expected);
        for reason in ALL {
            assert!(reason.name.len() <= 128 && ["Normal", "Warning"].contains(&reason.kind), "the API's limits");
        }
    }
}
