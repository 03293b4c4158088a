//! Stories of how a node stands, and of the conditions that say so.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::agent::node::state::{Basis, Edit, View};
use crate::agent::policing::state::Problem;
use crate::agent::routing::bird::Trouble;
use crate::bird::sessions::Session;
use cni::error::{Code, Error};
use model::addr::GATEWAY4;
use model::ipam::{Counts, FamilyCounts};

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
    Usage { leases: 1, pending: 0, addresses: Counts { ipv4: family, ipv6: FamilyCounts { free: u64::MAX, ..family } } }
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

pub(crate) fn session(peer: &str, state: &str, error: Option<&str>) -> Session {
    let (peer, state, last_error) = (peer.into(), state.into(), error.map(str::to_owned));
    Session { peer, state, since: None, sent: 3, accepted: 0, last_error }
}

/// A node with `spec.bgp` and these sessions.
pub(crate) fn speaking(sessions: &[Session], trouble: Option<Trouble>) -> Standing {
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
    for (spec, usage) in [("{cidr6: '2001:db8::/64'}", usage(0, 0, 0)), ("{cidr4: 10.0.0.0/24}", usage(252, 0, 1))] {
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
fn a_kernel_that_does_not_take_the_tables_is_not_ready() {
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
    assert_eq!(of_kind(&PolicingState::default(), "Policy"), None);
}

#[test]
fn a_try_that_fails_as_before_is_no_news() {
    let refusal = || Err(Error::new(Code::TryAgainLater, "net/ipv4/ip_forward cannot be written"));
    let once = NodeState { host: NodeState::default().host.after(refusal()), ..NodeState::default() };
    let twice = NodeState { host: once.host.after(refusal()), ..once.clone() };
    assert_eq!(Standing::of_alone(&once), Standing::of_alone(&twice));
}

#[test]
fn credentials_that_end_soon_are_a_condition_with_the_remedy() {
    use crate::kube::expiry::{Expiry, Kind};
    use crate::kube::pem::Origin;
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_478_400);
    let expiry = Expiry { kind: Kind::Token, origin: Origin::File("/t".into()), since: None, until, renewed: false };
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
