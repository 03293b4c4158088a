//! Prometheus's own judgement of flock's metrics, alerts and dashboard, by promtool: `make test-metrics`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::assets::assets;
use crate::support::host::Host;
use crate::support::scrape::ASKABLE;

const RULES: &str = "deploy/prometheus/flock.rules.yaml";
const TESTS: &str = "tests/metrics/alerts.yaml";
const DASHBOARD: &str = "deploy/grafana/flock.json";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What promtool says to these arguments and this input.
fn promtool(arguments: &[&str], input: &str) -> Output {
    let program = format!("{}/bin/promtool", assets("metrics"));
    let mut command = Command::new(&program);
    command.args(arguments).current_dir(path("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    running.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    running.wait_with_output().expect("ends")
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

/// A YAML document, as the value that it is.
fn yaml(name: &str) -> Value {
    yaml_serde::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("expr").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| expressions(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_metrics_of_a_real_agent_are_as_prometheus_wants_them() {
    let host = Host::new();
    let agent = host.agent().args(&ASKABLE).start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&a).result();
    host.add(&b).annotations(&[("ipv4", "perhaps")]).error();
    host.del(&a).done();
    agent.rounds(1);
    let page = host.scrape();
    let judged = promtool(&["check", "metrics"], &page.0);
    assert_eq!(succeeds(&judged), "", "promtool has remarks");
    // It finds what is wrong, and does not only read.
    let wrong = page.0.replace("flock_cni_requests_total", "flock_cni_requests");
    assert!(!promtool(&["check", "metrics"], &wrong).status.success());
}

#[test]
fn the_alerts_fire_when_they_should_and_not_on_a_node_that_is_well() {
    succeeds(&promtool(&["check", "rules", RULES], ""));
    succeeds(&promtool(&["test", "rules", TESTS], ""));
    // Each of them is tried both ways.
    let (rules, tests) = (yaml(RULES), yaml(TESTS));
    let mut tried: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let groups = tests["tests"].as_array().expect("tests").iter();
    for test in groups.flat_map(|group| group["alert_rule_test"].as_array().expect("tests of alerts")) {
        let (silent, fires) = tried.entry(test["alertname"].as_str().expect("a name").to_owned()).or_default();
        match test["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty()) {
            true => *fires += 1,
            false => *silent += 1,
        }
    }
    let alerts: Vec<&str> = rules["groups"][0]["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .filter_map(|rule| rule["alert"].as_str())
        .collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let (silent, fires) = tried.get(alert).copied().unwrap_or_default();
        assert!(silent > 0 && fires > 0, "{TESTS} does not try {alert} both ways");
    }
}

#[test]
fn every_query_of_the_dashboard_is_one_that_prometheus_understands() {
    let dashboard: Value = serde_json::from_str(&text(DASHBOARD)).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 12, "{found:?}");
    // What Grafana puts in before it asks.
    let filled = found.iter().map(|query| query.replace("$__rate_interval", "5m").replace("$instance", ".*"));
    let rules: Vec<Value> = filled
        .enumerate()
        .map(|(n, query)| serde_json::json!({"record": format!("panel:{n}"), "expr": query}))
        .collect();
    let file = path(&format!("target/metrics/dashboard-{}.yaml", std::process::id()));
    fs::write(&file, serde_json::json!({"groups": [{"name": "panels", "rules": rules}]}).to_string()).expect("written");
    let judged = promtool(&["check", "rules", &file.to_string_lossy()], "");
    fs::remove_file(&file).expect("removed");
    assert!(succeeds(&judged).contains(&format!("{} rules found", found.len())));
}
