//! What an agent asks in an hour at rest, by the product's own schedule: its state machine of a watch and its pace of reports, with
//! an hour that passes in a moment.

use std::time::{Duration, Instant};

use flock::agent::node::state::Edit;
use flock::agent::node::status::counts::Counts;
use flock::agent::node::status::pace::{Pace, Report};
use flock::kube::kind::Kind;
use flock::kube::objects::{NodeConfigs, NodePeers, Pods};
use flock::kube::policy_objects::{Namespaces, NetworkPolicies};
use flock::kube::reflect::chance;
use flock::kube::watch::{End, Machine, Order};

const HOUR: u64 = 3_600_000;
/// Agents whose hours are averaged.
const AGENTS: u64 = 200;
/// Before the hour that counts, so that nothing is in step.
const HOURS_BEFORE: u64 = 2;

pub fn print() {
    println!("| request | times |\n|---|---|");
    for (what, watch) in [
        ("nodeconfigs, its own", times(|| NodeConfigs { node: "n".into() })),
        ("pods, its own", times(|| Pods { node: "n".into(), policing: None })),
        ("nodepeers", times(|| NodePeers)),
        ("networkpolicies", times(NetworkPolicies::default)),
        ("namespaces", times(|| Namespaces)),
    ] {
        println!("| LIST, WATCH {what} | {:.1}, {:.1} |", watch[0], watch[1]);
    }
    println!("| PATCH nodeconfigs/status | {:.1} |", reports());
}

/// Lists and watches of this kind in an hour.
fn times<K: Kind>(kind: impl Fn() -> K) -> [f64; 2] {
    let mut counts = [0_u64; 2];
    for _ in 0..AGENTS {
        let (mut machine, mut now) = (Machine::new(kind()), 0);
        while now < (HOURS_BEFORE + 1) * HOUR {
            let order = machine.next(now, chance());
            if now >= HOURS_BEFORE * HOUR {
                counts[usize::from(matches!(order, Order::Watch(_)))] += 1;
            }
            match order {
                Order::Pause(until) => now = until,
                Order::List(_) => {
                    let empty = r#"{"metadata": {"resourceVersion": "1"}, "items": []}"#;
                    let listing = machine.read(empty.as_bytes()).expect("a list");
                    machine.listed(Ok(listing), now, chance());
                }
                Order::Watch(path) => {
                    let seconds = path.split("timeoutSeconds=").nth(1).and_then(|text| text.split('&').next());
                    let lasts = seconds.and_then(|text| text.parse::<u64>().ok()).expect("a timeout") * 1000;
                    let bookmark = r#"{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}}"#;
                    machine.line(bookmark.as_bytes(), now, chance());
                    now += lasts;
                    machine.ended(&End::Closed, now, chance());
                }
            }
        }
    }
    counts.map(|count| count as f64 / AGENTS as f64)
}

/// Reports in an hour in which nothing changes.
fn reports() -> f64 {
    let edit = Edit { uid: "u".into(), generation: 1 };
    let report = Report::new(edit, &[], &[], Counts::default());
    let began = Instant::now();
    let mut written = 0_u64;
    for _ in 0..AGENTS {
        let mut pace = Pace::new(began);
        for second in 0..(HOURS_BEFORE + 1) * 3600 {
            let now = began + Duration::from_secs(second);
            if pace.is_due(&report, now) {
                pace.written(report.clone(), now);
                written += u64::from(second >= HOURS_BEFORE * 3600);
            }
        }
    }
    written as f64 / AGENTS as f64
}
