//! `flock-agent status`: how the node is, as its agent says it; without one, what the record holds.
//!
//! The exit code is the answer for scripts, and the same words stand in the status of the NodeConfig. Must not judge the node:
//! the agent does.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::operator::Told;
use crate::operator::ask::{self, Unanswered};
use crate::operator::record::{Keeper, Recorded};
use crate::operator::table::{Heads, Table, age, or_none};
use crate::process::exit::Exit;
use crate::rpc::message::Query;
use crate::rpc::report::{Credential, Failure, Host, NodeReport, Policy, Rounds, Routing};
use crate::rpc::{QUERY_LIMIT, QUERY_PATIENCE};

/// Pause between two questions while the node is waited for, 250 ms.
const PAUSE: Duration = Duration::from_millis(250);

/// Shortest time that an agent has for its answer, 1 s.
const ANSWER_MIN: Duration = Duration::from_secs(1);

/// Width of what stands before each line, in columns.
const KEY: usize = 12;

/// The smallest count that is shown as a power of ten.
const LARGE: u64 = 1_000_000;

/// Letters of a container's id that stand for it.
const SHORT_ID: usize = 12;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// How it is told.
    pub output: Output,
    /// How long to wait for a node that is ready.
    pub wait: Duration,
    /// What somebody should see to counts as not ready.
    pub strict: bool,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Where the agent keeps its record.
    pub state_dir: PathBuf,
}

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Lines for people.
    Text,
    /// One object.
    Json,
    /// Nothing: the exit code says it.
    Quiet,
}

/// Asks, and again as long as there is time and the node is not ready.
pub fn run(order: &Order) -> Told {
    let until = Instant::now() + order.wait;
    // An agent that restarts without anybody waiting for it is given a moment all the same.
    let mut patience = if order.wait.is_zero() { QUERY_PATIENCE } else { Duration::ZERO };
    loop {
        let limit = if order.wait.is_zero() { QUERY_LIMIT } else { until.saturating_duration_since(Instant::now()) };
        let answer = ask::ask(&order.socket, &Query::Node, patience, limit.clamp(ANSWER_MIN, QUERY_LIMIT));
        let exit = match &answer {
            Ok(report) => exit(report, order.strict),
            Err(why) => why.exit(),
        };
        let over = Instant::now() + PAUSE >= until;
        if over || matches!(exit, Exit::Done | Exit::Denied) {
            return told(order, &answer, exit);
        }
        patience = Duration::ZERO;
        thread::sleep(PAUSE);
    }
}

fn exit(report: &NodeReport, strict: bool) -> Exit {
    let seen_to = !strict || warnings(report).is_empty();
    if report.ready && seen_to { Exit::Done } else { Exit::Failed }
}

fn told(order: &Order, answer: &Result<NodeReport, Unanswered>, exit: Exit) -> Told {
    let text = match (answer, order.output) {
        (Ok(_), Output::Quiet) => String::new(),
        (Ok(report), Output::Text) => text(report),
        (Ok(report), Output::Json) => json(report),
        (Err(why), _) => return without_agent(order, why),
    };
    Told { exit, text, asides: Vec::new() }
}

/// What is known of a node whose agent does not answer.
fn without_agent(order: &Order, why: &Unanswered) -> Told {
    let mut told = Told::failed(why.exit(), why);
    let recorded = match Recorded::read(&order.state_dir, &order.socket) {
        Ok(recorded) if why.exit() != Exit::Denied => recorded,
        unread => {
            let unread = unread.err().filter(|_| why.exit() != Exit::Denied).map(|error| error.to_string());
            if order.output == Output::Json {
                let all = json!({
                    "agent": agent_in_json(why, Keeper::Unknown),
                    "ready": false,
                    "why": why.to_string(),
                    "record": null,
                });
                told.text = format!("{all:#}\n");
            }
            told.asides.extend(unread);
            return told;
        }
    };
    let agent = match recorded.keeper {
        Keeper::Agent(process) => format!("runs as process {process}, and does not answer"),
        Keeper::Nobody => "does not run".to_owned(),
        Keeper::Unknown => "does not answer".to_owned(),
    };
    let count = |v6: bool| {
        let addresses = recorded.leases.iter().flat_map(|lease| lease.addresses());
        addresses.filter(|ip| ip.is_ipv6() == v6).count()
    };
    let noted = recorded.leases.iter().filter(|lease| recorded.is_delete_noted(lease)).count();
    match order.output {
        Output::Quiet => told.asides.clear(),
        Output::Json => {
            let all = json!({
                "agent": agent_in_json(why, recorded.keeper),
                "ready": false,
                "why": why.to_string(),
                "record": {
                    "attachments": recorded.leases.len(),
                    "ipv6": count(true),
                    "ipv4": count(false),
                    "resting": recorded.freed.iter().map(|freed| freed.ips.len()).sum::<usize>(),
                    "deletesNoted": noted,
                    "remarks": recorded.remarks,
                },
            });
            told.text = format!("{all:#}\n");
        }
        Output::Text => {
            told.text = line("agent", &agent)
                + &line(
                    "record",
                    &format!(
                        "{} attachments with {} ipv6 and {} ipv4 addresses, {noted} of them to be deleted: flock-agent pods lists them",
                        recorded.leases.len(),
                        count(true),
                        count(false)
                    ),
                )
                + &line("pods", "run on as they are; new ones wait for an agent");
            told.asides.extend(recorded.remarks);
        }
    }
    told
}

/// How it is with an agent that has not told how the node is: one word; none where nobody knows.
fn agent_in_json(why: &Unanswered, keeper: Keeper) -> Option<&'static str> {
    match (why, keeper) {
        // It has said something.
        (
            Unanswered::Unknown { .. } | Unanswered::Unreadable(_) | Unanswered::Misused(_) | Unanswered::Refused(_),
            _,
        ) => Some("running"),
        (Unanswered::Call(_), Keeper::Agent(_)) => Some("unanswering"),
        (Unanswered::Call(_), Keeper::Nobody) => Some("down"),
        (Unanswered::Call(_), Keeper::Unknown) | (Unanswered::Denied(_), _) => None,
    }
}

/// What somebody should see to: the agent's own words, and whether it is another one than this program.
fn warnings(report: &NodeReport) -> Vec<String> {
    let skew = (report.version != ask::VERSION).then(|| {
        format!(
            "the agent that runs is version {}, and this program is version {}: systemctl restart flock-agent puts the installed \
             one in force",
            report.version,
            ask::VERSION
        )
    });
    report.warnings.iter().cloned().chain(skew).collect()
}

fn json(report: &NodeReport) -> String {
    let mut all = serde_json::to_value(report).unwrap_or_default();
    if let Some(all) = all.as_object_mut() {
        all.insert("agent".into(), "running".into());
        all.insert("warnings".into(), json!(warnings(report)));
    }
    format!("{all:#}\n")
}

fn text(report: &NodeReport) -> String {
    let mut text = lines(report).into_iter().map(|(key, value)| line(key, &value)).collect::<String>();
    if !report.families.is_empty() {
        let mut table = Table::new(&["FAMILY", "RANGE", "ALLOCATED", "RESTING", "FREE"]);
        for family in &report.families {
            let counts = [family.allocated, family.resting, family.free].map(shown);
            table.row([family.family.clone(), family.range.clone()].into_iter().chain(counts));
        }
        text += "\n";
        text += &table.text(Heads::Shown);
    }
    let warnings = warnings(report);
    if !warnings.is_empty() {
        text += "\n";
        text.extend(warnings.iter().map(|warning| line("WARNING", warning)));
    }
    if !report.failures.is_empty() {
        text += "\nLAST FAILURES\n";
        text += &failures(&report.failures);
    }
    text
}

fn line(key: &str, value: &str) -> String {
    format!("{key:KEY$}{value}\n")
}

fn lines(report: &NodeReport) -> Vec<(&'static str, String)> {
    let ready = match (report.ready, report.why.as_str()) {
        (true, "pods get addresses") => "yes".to_owned(),
        (true, why) => format!("yes: {why}"),
        (false, why) => format!("no: {why}"),
    };
    let config = match &report.node_config {
        None => format!("none in force; from {}", report.source),
        Some(config) => {
            let generation = config.generation.map(|number| format!("generation {number}, ")).unwrap_or_default();
            format!("{generation}from {}, in force for {}", report.source, age(config.in_force_seconds))
        }
    };
    let mut lines = vec![
        (
            "node",
            format!(
                "{}, agent {}, up {}, socket held by the {}",
                report.node,
                report.version,
                age(report.up_seconds),
                report.socket
            ),
        ),
        ("nodeconfig", config),
        ("ready", ready),
    ];
    lines.extend(api(report).map(|api| ("api", api)));
    lines.push(("host", host(&report.host)));
    lines.push(("rounds", rounds(&report.rounds)));
    lines.push(("pods", format!("{} attachments", report.attachments)));
    lines.extend(routing(&report.routing).map(|routing| ("routing", routing)));
    lines.extend(policy(&report.policy).map(|policy| ("policies", policy)));
    lines
}

/// None without Kubernetes.
fn api(report: &NodeReport) -> Option<String> {
    let watches = report.api.iter().map(|watch| match (watch.failing_seconds, watch.heard_seconds) {
        (Some(failing), _) => format!("{}: failing for {}", watch.resource, age(failing)),
        (None, Some(heard)) => format!("{}: heard {} ago", watch.resource, age(heard)),
        (None, None) => format!("{}: not heard yet", watch.resource),
    });
    let credential = report.credentials.iter().map(|Credential { left_seconds, .. }| match left_seconds {
        0 => "credentials have ended".to_owned(),
        left => format!("credentials valid for {}", age(*left)),
    });
    let parts: Vec<String> = watches.chain(credential).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn host(host: &Host) -> String {
    let mut parts = vec![match (host.prepared, &host.problem) {
        (Some(true), _) => "prepared, forwarding on".to_owned(),
        (_, Some(problem)) => format!("not prepared: {problem}"),
        (_, None) => "not prepared yet".to_owned(),
    }];
    if let (Some(uplink), Some(mtu)) = (&host.uplink, host.uplink_mtu) {
        parts.push(format!("uplink {uplink} mtu {mtu}"));
    }
    parts.push(match (&host.cni_configuration, host.cni_configuration_state.as_deref()) {
        (Some(file), Some("in force") | None) => format!("cni configuration {file}"),
        (Some(file), Some(how)) => format!("cni configuration {file}: {how}"),
        (None, _) => "no cni configuration is kept".to_owned(),
    });
    parts.join(", ")
}

fn rounds(rounds: &Rounds) -> String {
    let last = match (rounds.last_seconds, &rounds.problem) {
        (None, _) => "none yet".to_owned(),
        (Some(ago), None) => format!("last {} ago", age(ago)),
        (Some(ago), Some(why)) => format!("last {} ago failed: {why}", age(ago)),
    };
    let repairs = match (rounds.last_repair_seconds, &rounds.last_repair) {
        (Some(ago), Some(what)) => format!("{} repairs, the last {} ago: {what}", rounds.repairs, age(ago)),
        _ => "nothing had to be repaired".to_owned(),
    };
    format!("{last}; {repairs}")
}

/// None as long as nothing is known of it.
fn routing(routing: &Routing) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(routing.announced.map(|count| format!("{} {count} prefixes", routing.stage)));
    parts.extend(routing.reached.map(|count| format!("{count} routes to other nodes")));
    parts.extend(routing.peers.iter().map(|peer| match (peer.established, &peer.last_error) {
        (true, _) => format!("peer {} established ({} sent, {} accepted)", peer.name, peer.sent, peer.accepted),
        (false, Some(error)) => format!("peer {} down ({error})", peer.name),
        (false, None) => format!("peer {} down", peer.name),
    }));
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// None as long as nothing is known of it.
fn policy(policy: &Policy) -> Option<String> {
    let mut parts = vec![match policy.mode.as_deref()? {
        "enforce" => format!("enforced: {} select pods here, {} pods isolated", policy.policies, policy.isolated_pods),
        "audit" => format!("audited: {} select pods here, {} pods isolated", policy.policies, policy.isolated_pods),
        _ => "not looked at".to_owned(),
    }];
    let counts = [
        (policy.not_understood, "not understood in part"),
        (policy.audited, "pods audited"),
        (policy.quarantined, "pods quarantined"),
    ];
    parts.extend(counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
    parts.push(format!("{} links checked for what they send", policy.checked_links));
    Some(parts.join(", "))
}

fn failures(failures: &[Failure]) -> String {
    let mut table = Table::new(&["AGE", "TIMES", "OP", "POD", "IF", "WHY"]);
    for failure in failures {
        let short = |id: &String| id.get(..SHORT_ID).unwrap_or(id).to_owned();
        let pod =
            failure.namespace.as_ref().zip(failure.pod.as_ref()).map(|(namespace, pod)| format!("{namespace}/{pod}"));
        table.row([
            age(failure.seconds),
            failure.times.to_string(),
            failure.op.clone(),
            or_none(pod.or_else(|| failure.container_id.as_ref().map(short))),
            or_none(failure.interface.as_ref()),
            failure.why.clone(),
        ]);
    }
    table.text(Heads::Shown)
}

/// A count that people can read.
#[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
fn shown(count: u64) -> String {
    if count < LARGE { count.to_string() } else { format!("{:.1e}", count as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::golden;
    use crate::rpc::report::{Condition, ConfigInForce, Family, Peer, Watch};

    fn order(output: Output) -> Order {
        let nowhere = PathBuf::from("/nonexistent");
        Order { output, wait: Duration::ZERO, strict: false, socket: nowhere.join("flock.sock"), state_dir: nowhere }
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition { kind: kind.into(), status: status.into(), reason: reason.into(), message: message.into() }
    }

    fn peer(name: &str, established: bool, last_error: Option<&str>) -> Peer {
        Peer { name: name.into(), established, sent: 3, accepted: 1, last_error: last_error.map(str::to_owned) }
    }

    /// A node with something of everything.
    fn busy() -> NodeReport {
        let text = str::to_owned;
        NodeReport {
            node: "host001".into(),
            version: ask::VERSION.into(),
            up_seconds: 3 * 86_400 + 4 * 3600,
            socket: "service manager".into(),
            ready: true,
            why: "pods get addresses".into(),
            source: "https://[2001:db8::1]:6443".into(),
            node_config: Some(ConfigInForce { generation: Some(4), in_force_seconds: 51 * 3600, mtu: 1500 }),
            conditions: vec![
                condition("Ready", "True", "Serving", "pods get addresses"),
                condition("RangesUnique", "False", "RangesOverlap", "node m has 10.25.0.0/16"),
            ],
            warnings: vec![
                "RangesUnique: node m has 10.25.0.0/16".into(),
                "ipv4 range 10.25.214.0/24 is 91 % full".into(),
            ],
            api: vec![
                Watch { resource: "nodeconfigs".into(), heard_seconds: Some(12), ..Watch::default() },
                Watch {
                    resource: "pods".into(),
                    heard_seconds: Some(300),
                    failing_seconds: Some(280),
                    problem: Some("403: forbidden".into()),
                },
                Watch { resource: "nodepeers".into(), ..Watch::default() },
            ],
            credentials: Some(Credential {
                origin: "/etc/flock/token".into(),
                ends: "2027-06-26T00:00:00Z".into(),
                left_seconds: 211 * 86_400,
            }),
            host: Host {
                prepared: Some(true),
                problem: None,
                uplink: Some("up0".into()),
                uplink_mtu: Some(1500),
                cni_configuration: Some("/etc/cni/net.d/01-flock.conflist".into()),
                cni_configuration_state: Some("in force".into()),
            },
            rounds: Rounds {
                last_seconds: Some(4),
                problem: None,
                repairs: 2,
                last_repair_seconds: Some(5 * 3600),
                last_repair: Some("host end of a link repaired, eth0 of container 4f1d2c3b4a59".into()),
            },
            attachments: 230,
            families: vec![
                Family {
                    family: "ipv6".into(),
                    range: "2001:db8:1:f001::/64".into(),
                    allocated: 47,
                    resting: 2,
                    free: u64::MAX,
                },
                Family { family: "ipv4".into(), range: "10.25.214.0/24".into(), allocated: 230, resting: 2, free: 21 },
            ],
            routing: Routing {
                stage: "announcing".into(),
                announced: Some(2),
                reached: Some(7),
                peers: vec![peer("tor1", true, None), peer("tor2", false, Some("Hold timer expired"))],
            },
            policy: Policy {
                mode: Some("enforce".into()),
                policies: 12,
                not_understood: 1,
                isolated_pods: 30,
                audited: 0,
                quarantined: 2,
                checked_links: 230,
            },
            failures: vec![
                Failure {
                    seconds: 120,
                    times: 9,
                    op: "ADD".into(),
                    namespace: Some(text("shop")),
                    pod: Some(text("web-1")),
                    container_id: Some("c".repeat(64)),
                    interface: Some(text("eth0")),
                    code: 11,
                    why: "no free address: of 253 usable, pods hold 253 and the host has 0".into(),
                },
                Failure {
                    seconds: 400,
                    times: 1,
                    op: "DEL".into(),
                    container_id: Some("d".repeat(64)),
                    code: 999,
                    why: "link cannot be removed".into(),
                    ..Failure::default()
                },
            ],
        }
    }

    /// A node without NodeConfig, just started.
    fn fresh() -> NodeReport {
        NodeReport {
            node: "host001".into(),
            version: "0.0.9".into(),
            up_seconds: 3,
            socket: "agent".into(),
            ready: false,
            why: "no valid configuration has been seen".into(),
            source: "/etc/flock/node.yaml".into(),
            conditions: vec![condition("Ready", "False", "NotConfigured", "no valid configuration has been seen")],
            ..NodeReport::default()
        }
    }

    #[test]
    fn each_output_is_as_promised() {
        for (file, report) in [("status", busy()), ("status-fresh", fresh())] {
            // The version is the package's, and no promise.
            let stable = |text: String| text.replace(ask::VERSION, "VERSION");
            golden::compare(file, &stable(text(&report)));
            golden::compare(&format!("{file}.json"), &stable(json(&report)));
        }
    }

    #[test]
    fn a_report_reads_back_as_it_was() {
        let line = serde_json::to_string(&busy()).expect("JSON");
        assert_eq!(serde_json::from_str::<NodeReport>(&line).expect("a report"), busy());
    }

    #[test]
    fn the_exit_code_says_whether_the_node_is_ready() {
        let calm = NodeReport { warnings: vec![], ..busy() };
        for (report, strict, code) in [
            (&calm, false, Exit::Done),
            (&calm, true, Exit::Done),
            (&busy(), false, Exit::Done),
            (&busy(), true, Exit::Failed),
            (&fresh(), false, Exit::Failed),
            // An agent of another version than what is installed is something to see to.
            (&NodeReport { version: "9.9.9".into(), ..calm.clone() }, true, Exit::Failed),
        ] {
            assert_eq!(exit(report, strict), code, "{report:?}");
        }
        assert_eq!(told(&order(Output::Quiet), &Ok(calm), Exit::Done).text, "");
    }

    #[test]
    fn nobody_says_that_there_is_a_valid_node_config_when_there_is_none() {
        for told in [text(&fresh()), json(&fresh())] {
            assert!(!told.contains("Valid") && !told.contains("in force for"), "{told}");
        }
    }

    #[test]
    fn a_node_without_an_agent_says_so_and_what_is_recorded() {
        for (output, words) in [
            (Output::Text, "agent       does not run\nrecord      0 attachments with 0 ipv6 and 0 ipv4 addresses"),
            (Output::Json, "\"agent\": \"down\""),
            (Output::Quiet, ""),
        ] {
            let told = run(&order(output));
            assert!(told.exit == Exit::Unanswered && told.text.contains(words), "{told:?}");
            assert_eq!(told.asides.is_empty(), output == Output::Quiet, "{told:?}");
        }
        let denied = Err(Unanswered::Denied("/run/flock/flock.sock".into()));
        let told = told(&order(Output::Text), &denied, Exit::Denied);
        assert_eq!((told.exit, told.text.as_str(), told.asides.len()), (Exit::Denied, "", 1));
        assert!(told.asides[0].contains("root only"), "{told:?}");
        let told = self::told(&order(Output::Json), &denied, Exit::Denied);
        let all: serde_json::Value = serde_json::from_str(&told.text).expect("an object, whatever there is to tell");
        assert_eq!((&all["agent"], &all["record"]), (&json!(null), &json!(null)));
        let refused = Err(Unanswered::Refused("it has just started".into()));
        let told = self::told(&order(Output::Json), &refused, Exit::Unanswered);
        assert!(told.text.contains("\"agent\": \"running\""), "{told:?}");
    }
}
