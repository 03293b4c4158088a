//! A range that is almost full costs what an empty one costs.
//!
//! The small range is filled by pods, beside a host with as many pods in a wide range. No host can have the pods that fill a larger one,
//! so there other programs have its addresses: a host route to each, on a host with as many routes to elsewhere beside it. An agent
//! looks at them and gives none of them to a pod. It keeps 4096 in mind, so this ends at a /20; what the allocator alone takes in a full
//! /16, `make bench-micro` tells.

use std::fs;

use super::Scene;
use crate::bursts::each;
use crate::call::Verb;
use crate::calls;
use crate::contestant::Contestant;
use crate::flock::{Features, Flock, WIDE};
use crate::host::{Pod, run};
use crate::report::Table;

const ROUNDS: usize = 150;
/// Of the 253 addresses that pods may have of a /24.
const PODS: usize = 240;
/// Of the 4093 of a /20.
const ROUTES: usize = 3_888;

pub fn measure(scene: &mut Scene) {
    let pods: Vec<Vec<Pod>> = [PODS; 2].map(Pod::some).into();
    let small = (WIDE.0, "10.25.0.0/24");
    let fill = |name: &str, ranges, pods: &[Pod]| {
        let flock = Flock::start(name, &scene.binaries, Features::Off, ranges);
        each(&flock, Verb::Add, 8, pods);
        flock
    };
    let twenty_four = [fill("/24, 95 % full", small, &pods[0]), fill("as many pods, a wide range", WIDE, &pods[1])];
    let routes = |name: &str, to: &str| {
        let flock = Flock::prepare(name, &scene.binaries, Features::Off, (WIDE.0, "10.25.0.0/20"));
        let batch = format!("/run/routes-{to}");
        let lines = (0..ROUTES).map(|at| format!("route add {to}.{}.{} dev lan0\n", at / 256, at % 256));
        fs::write(&batch, lines.collect::<String>()).expect("written");
        flock.host().clone().with_lan().inside(|| run(&format!("ip -batch {batch}")));
        flock.start_agent();
        flock
    };
    let twenty = [routes("/20, 95 % full", "10.25"), routes("as many routes, an empty /20", "10.26")];
    for (flocks, least) in [(&twenty_four, 10.0), (&twenty, 200.0)] {
        let [full, empty] = [free4(&flocks[0]), free4(&flocks[1])];
        assert!((least..least * 2.0).contains(&full) && empty > 3_000.0, "{full} and {empty} addresses are free");
    }

    let field: Vec<_> = twenty_four.iter().chain(&twenty).map(|flock| (flock as &dyn Contestant, 1)).collect();
    let times = calls::measure(&field, ROUNDS);
    let mut table = Table::new(
        "full",
        format!("Full ranges, microseconds ({ROUNDS} pods each)"),
        &["ADD p50", "ADD p90", "DEL p50", "DEL p90"],
    );
    let of = |flock: &Flock, verb, percent| {
        times.of(flock.name(), verb).map_or(f64::NAN, |figures| figures.percentile(percent))
    };
    for flock in twenty_four.iter().chain(&twenty) {
        table.row(flock.name(), Verb::BOTH.iter().flat_map(|verb| [50, 90].map(|percent| of(flock, *verb, percent))));
    }
    scene.report.table(table);
    for ([full, empty], range) in [(&twenty_four, "/24"), (&twenty, "/20")] {
        let ratio = of(full, Verb::Add, 50) / of(empty, Verb::Add, 50);
        scene.report.at_most(format!("ADD p50 on a {range} that is 95 % full / on an empty one"), 1.02, ratio);
    }
}

/// IPv4 addresses that pods may still have.
fn free4(flock: &Flock) -> f64 {
    super::inside::metric(
        &flock.ask(&["status", "-o", "prometheus"]),
        r#"flock_ipam_addresses{family="ipv4",state="free"}"#,
    )
}
