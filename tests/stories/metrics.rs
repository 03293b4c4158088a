//! Metrics as Prometheus asks for them: what they say of calls, pods and repairs, what is promised of them, and that nobody waits for
//! those who ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use flock::agent::metrics::exposition::SERIES_MAX;
use flock::agent::metrics::families;
use flock::agent::metrics::listener::CONNECTIONS;

use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::scrape::{ASKABLE, METRICS};
use crate::support::waiting::wait_for;

fn text(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn calls_pods_and_repairs_are_counted() {
    let host = Host::new();
    let agent = host.agent().args(&ASKABLE).start();
    agent.wait_log("metrics are served");
    let before = host.scrape();
    assert_eq!(before.of("flock_node_ready"), 1.0);
    assert_eq!(before.of("flock_cni_requests_total{operation=\"ADD\",code=\"0\"}"), 0.0);
    assert_eq!(before.of("flock_ipam_capacity{family=\"ipv4\"}"), 253.0);
    let (a, b) = (host.pod("a"), host.pod("b"));
    let attached = host.add(&a).result();
    host.add(&b).annotations(&[("ipv6", "false")]).result();
    host.add(&b).annotations(&[("ipv4", "perhaps")]).error();
    host.add(&host.pod("c")).annotations(&[("cidr4", "192.0.2.0/24"), ("ipv6", "false")]).error();
    host.del(&b).done();
    let route = attached.ipv4().expect("an address");
    host.run(&format!("ip route del {route}"));
    agent.wait_log("host end of a link repaired");
    host.run("sysctl -q net.ipv4.ip_forward=0");
    agent.wait_log("host had lost what pods need");
    agent.rounds(1);

    let now = host.scrape();
    for (sample, value) in [
        ("flock_cni_requests_total{operation=\"ADD\",code=\"0\"}", 2.0),
        ("flock_cni_requests_total{operation=\"ADD\",code=\"7\"}", 2.0),
        ("flock_cni_requests_total{operation=\"DEL\",code=\"0\"}", 1.0),
        ("flock_cni_request_duration_seconds_count{operation=\"ADD\"}", 4.0),
        ("flock_cni_request_duration_seconds_bucket{operation=\"ADD\",le=\"+Inf\"}", 4.0),
        ("flock_cni_step_duration_seconds_count{step=\"wire\"}", 2.0),
        ("flock_cni_step_duration_seconds_count{step=\"release\"}", 1.0),
        ("flock_cni_requests_in_flight", 0.0),
        ("flock_cni_request_slots", 384.0),
        ("flock_attachments{phase=\"committed\"}", 1.0),
        ("flock_attachments{phase=\"pending\"}", 0.0),
        ("flock_ipam_addresses{family=\"ipv4\",state=\"allocated\"}", 1.0),
        ("flock_ipam_addresses{family=\"ipv4\",state=\"resting\"}", 1.0),
        ("flock_ipam_addresses{family=\"ipv4\",state=\"free\"}", 251.0),
        ("flock_ipam_addresses{family=\"ipv6\",state=\"allocated\"}", 1.0),
        ("flock_ipam_failures_total{family=\"ipv4\",reason=\"not_in_range\"}", 1.0),
        ("flock_reconcile_repairs_total{kind=\"route\"}", 1.0),
        ("flock_store_records", 1.0),
        ("flock_nodeconfig_valid", 1.0),
        ("flock_routes_announced", 2.0),
        ("flock_node_announcing", 1.0),
    ] {
        assert_eq!(now.of(sample), value, "{sample} in\n{}", now.0);
    }
    // The kernel sets forwarding of each link with that of the host, which may be put right by itself.
    assert!(now.of("flock_reconcile_repairs_total{kind=\"sysctl\"}") >= 1.0);
    assert!(now.of("flock_store_sync_duration_seconds_count") >= 4.0);
    assert!(now.of("flock_reconcile_duration_seconds_count") >= 1.0);
    assert!(now.of("flock_log_lines_total{level=\"warn\"}") >= 4.0);
    assert!(now.of("process_resident_memory_bytes") > 1e6);
    assert!((1.0..64.0).contains(&now.of("process_open_fds")));
    let age = now.of("flock_reconcile_last_success_timestamp_seconds") - now.of("process_start_time_seconds");
    assert!((-1.0..600.0).contains(&age), "{age}");
    assert!(now.value("flock_kube_watch_up{resource=\"pods\"}").is_none(), "there is no API server");
    assert!(now.series() <= SERIES_MAX);

    agent.edit_config(&node_config(CIDR6, "10.25.214.7/24"));
    agent.wait_log("NodeConfig is not valid");
    let bad = host.scrape();
    assert_eq!((bad.of("flock_nodeconfig_valid"), bad.of("flock_node_ready")), (0.0, 1.0));
}

#[test]
fn a_node_that_cannot_serve_says_so_and_a_lease_that_is_reclaimed_counts() {
    let host = Host::new();
    let agent = host.agent().config(None).args(&ASKABLE).start();
    agent.wait_log("metrics are served");
    let waiting = host.scrape();
    assert_eq!((waiting.of("flock_node_ready"), waiting.of("flock_nodeconfig_valid")), (0.0, 0.0));
    host.cni("STATUS").error();
    agent.edit_config(&node_config(CIDR6, CIDR4));
    agent.wait_log("NodeConfig in force");
    let (noted, vanished) = (host.pod("noted"), host.pod("vanished"));
    host.add(&noted).result();
    host.add(&vanished).result();
    vanished.vanish();
    agent.rounds(2);
    agent.wait_log("lease of a vanished pod ended");
    let now = host.scrape();
    assert_eq!(now.of("flock_cni_requests_total{operation=\"STATUS\",code=\"50\"}"), 1.0);
    assert_eq!(now.of("flock_leases_reclaimed_total{reason=\"link_gone\"}"), 1.0);
    agent.kill();
    host.del(&noted).done();
    let agent = host.agent().args(&ASKABLE).start();
    agent.wait_log("noted delete carried out");
    let now = wait_for("the port to be open", || agent.log().contains("metrics are served").then(|| host.scrape()));
    assert_eq!(now.of("flock_leases_reclaimed_total{reason=\"note\"}"), 1.0);
    assert_eq!(now.of("flock_delete_notes_replayed_total"), 1.0);
    assert_eq!(now.of("flock_delete_notes"), 0.0);
    host.assert_empty();
}

#[test]
fn whoever_asks_for_metrics_keeps_no_call_waiting_and_no_other_for_long() {
    let host = Host::new();
    let agent = host.agent().args(&ASKABLE).start();
    let pod = host.pod("p");
    host.add(&pod).result();
    host.del(&pod).done();
    let before = agent.holds();
    // Connections that are held open without a word, more than there is room for.
    let port = METRICS.replace(':', "/");
    let script = format!(
        "for fd in $(seq 10 {}); do eval \"exec $fd<>/dev/tcp/{port}\"; done; echo open; cat",
        10 + CONNECTIONS
    );
    let mut silent = host.command("bash");
    let mut silent =
        silent.args(["-ec", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash starts");
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(silent.stdout.take().expect("piped")), &mut said)
        .expect("read");
    assert_eq!(said, "open\n");
    host.add(&pod).result();
    host.del(&pod).done();
    // They are cut off, and it is somebody else's turn.
    assert_eq!(host.scrape().of("flock_cni_requests_total{operation=\"ADD\",code=\"0\"}"), 2.0);
    drop(silent.stdin.take());
    silent.wait().expect("ends");
    assert!(host.ask_metrics("GET / HTTP/1.1\\r\\n\\r\\n").starts_with("HTTP/1.1 404 "));
    assert!(host.ask_metrics("DELETE /metrics HTTP/1.1\\r\\n\\r\\n").starts_with("HTTP/1.1 405 "));
    agent.comes_back_to(before);
}

#[test]
fn a_port_that_is_taken_is_told_with_its_flag_and_keeps_no_pod_from_being_served() {
    let host = Host::new();
    host.run("ip addr add 192.0.2.7/32 dev lo");
    let mut other = host.command("python3");
    let hold =
        "import socket,sys; s=socket.create_server(('127.0.0.1',9469)); print('held',flush=True); sys.stdin.read()";
    let mut other =
        other.args(["-c", hold]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(other.stdout.take().expect("piped")), &mut said)
        .expect("read");
    let agent = host.agent().args(&ASKABLE).start();
    let line = agent.wait_log("metrics cannot be asked for");
    assert!(line.contains("error") && line.contains("--metrics 127.0.0.1:9469") && line.contains("ss -ltnp"), "{line}");
    host.add(&host.pod("p")).result();
    drop(other.stdin.take());
    other.wait().expect("ends");
    agent.wait_log("metrics can be asked for");
    assert_eq!(host.scrape().of("flock_attachments{phase=\"committed\"}"), 1.0);
    agent.stop();
    // All addresses of both families, and one that this host has.
    for (listen, ask) in [("[::]:9469", "127.0.0.1"), ("[::]:9469", "::1"), ("192.0.2.7:9469", "192.0.2.7")] {
        let agent = host.agent().args(&["--metrics", listen]).start();
        agent.wait_log("metrics are served");
        let script =
            format!("exec 3<>/dev/tcp/{ask}/9469; printf 'HEAD /metrics HTTP/1.1\\r\\n\\r\\n' >&3; head -n 1 <&3");
        let answer = crate::support::programs::succeed(host.command("bash").args(["-ec", &script]));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{listen} {ask}: {answer}");
        agent.stop();
    }
}

/// The rows of the first table behind this heading of a document, cell by cell.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let behind = document.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("no {heading}")).1;
    let table = behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.skip(2).map(cells).collect()
}

#[test]
fn the_metrics_are_those_that_are_promised() {
    let promised = rows(&text("docs/observe.md"), "## Metrics");
    let written: Vec<Vec<String>> = families::ALL
        .iter()
        .map(|family| {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let cells =
                [format!("`{}`", family.name), family.kind.name().into(), labels.join(", "), family.help.into()];
            cells.to_vec()
        })
        .collect();
    for family in &written {
        assert!(promised.iter().any(|row| row[..4] == family[..]), "docs/observe.md lacks | {} |", family.join(" | "));
    }
    assert_eq!(promised.len(), written.len());

    let host = Host::new();
    let agent = host.agent().args(&ASKABLE).start();
    host.add(&host.pod("p")).result();
    agent.rounds(1);
    agent.rounds_of("routing/routes.compare", 1);
    let scrape = host.scrape();
    let shown = scrape.families();
    let known: BTreeMap<&str, &str> = families::ALL.iter().map(|family| (family.name, family.kind.name())).collect();
    assert!(shown.iter().all(|(name, kind)| known.get(name) == Some(kind)), "{shown:?}");
    // What is not there without an API server or peers, the document says.
    let absent: BTreeSet<&str> = known.keys().copied().filter(|name| !shown.contains_key(name)).collect();
    let conditional = promised.iter().filter(|row| !row[4].is_empty()).map(|row| row[0].trim_matches('`'));
    assert_eq!(absent, conditional.collect());
}

/// The metrics that a query names, as their families are called.
fn named(query: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = query.split(|c| !is_name(c)).filter(|word| word.starts_with("flock_") || word.starts_with("process_"));
    let family = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
        let histogram =
            |base: &&str| families::ALL.iter().any(|family| family.name == *base && family.kind.name() == "histogram");
        base.filter(histogram).unwrap_or(word).to_owned()
    };
    words.map(family).collect()
}

/// The values of a key of a YAML or JSON file, wherever it stands.
fn values(value: &serde_json::Value, key: &str, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            found.extend(map.get(key).and_then(|value| value.as_str()).map(str::to_owned));
            map.values().for_each(|value| values(value, key, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| values(value, key, found)),
        _ => {}
    }
}

fn values_of(path: &str, key: &str) -> Vec<String> {
    let document = match path.ends_with(".json") {
        true => serde_json::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}")),
        false => yaml_serde::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}")),
    };
    let mut found = Vec::new();
    values(&document, key, &mut found);
    found
}

/// The labels that a query selects by or groups by.
fn labels(query: &str) -> BTreeSet<&str> {
    let between =
        |open: &'static str, close: char| query.split(open).skip(1).filter_map(move |rest| rest.split(close).next());
    let selected =
        between("{", '}').flat_map(|inside| inside.split("\",")).filter_map(|one| one.split(['=', '!']).next());
    let grouped =
        ["by (", "ignoring ("].into_iter().flat_map(|open| between(open, ')')).flat_map(|inside| inside.split(','));
    selected.chain(grouped).map(str::trim).filter(|label| !label.is_empty()).collect()
}

#[test]
fn every_query_of_the_rules_and_the_dashboard_names_metrics_and_labels_that_exist() {
    for path in ["deploy/prometheus/flock.rules.yaml", "deploy/grafana/flock.json"] {
        let queries = values_of(path, "expr");
        assert!(queries.len() > 9, "{path}: {queries:?}");
        for query in queries {
            let of = |name: &String| {
                let family = families::ALL.iter().find(|family| family.name == *name);
                *family.unwrap_or_else(|| panic!("{path}: there is no {name}: {query}"))
            };
            let families: Vec<_> = named(&query).iter().map(of).collect();
            assert!(!families.is_empty() || query == "up{job=\"flock\"} == 0", "{path}: {query}");
            for label in labels(&query) {
                let is_prometheus_s = ["job", "instance", "le"].contains(&label);
                assert!(
                    is_prometheus_s || families.iter().any(|of| of.labels.contains(&label)),
                    "{path}: {label} in {query}"
                );
            }
        }
    }
}

/// How GitHub names the place of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_alert_leads_to_a_place_that_says_what_to_do() {
    let page = text("docs/troubleshooting.md");
    let anchors: BTreeSet<String> =
        page.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect();
    let rules = "deploy/prometheus/flock.rules.yaml";
    let (alerts, runbooks) = (values_of(rules, "alert"), values_of(rules, "runbook_url"));
    assert!(alerts.len() >= 10 && alerts.len() == runbooks.len(), "{alerts:?}");
    for key in ["summary", "description", "severity"] {
        assert_eq!(values_of(rules, key).len(), alerts.len(), "each alert has a {key}");
    }
    for runbook in runbooks {
        let place = runbook.split_once("docs/troubleshooting.md#").unwrap_or_else(|| panic!("{runbook}")).1;
        assert!(anchors.contains(place), "docs/troubleshooting.md has no heading for {place}");
    }
}
