//! The agent's own word: whether it answers, of which version it is, what it says of itself, and what it alone knows of the node.
//!
//! Takes conditions as they are. Must not judge again what the agent has judged, nor wait longer than a person does.

use std::path::Path;

use ipnet::IpNet;

use crate::operator::ask::{self, Unanswered, VERSION};
use crate::operator::check::finding::{Area, Finding};
use crate::operator::check::surroundings::Surroundings;
use crate::process::exit::Exit;
use crate::rpc::message::Query;
use crate::rpc::report::{Condition, NodeReport, Rounds};
use crate::rpc::{QUERY_LIMIT, QUERY_PATIENCE};
use model::nodeconfig;

/// What the agent has said.
#[derive(Debug)]
pub struct Said {
    /// What it says of itself; none if there is no answer.
    pub report: Option<NodeReport>,
    /// What follows.
    pub findings: Vec<Finding>,
    /// What else it would have somebody see to, in its own words. Some of it is found by others as well.
    pub further: Vec<Finding>,
}

/// Asks the agent on `socket`.
///
/// # Errors
/// It does not answer this user.
pub fn ask(socket: &Path, surroundings: Surroundings) -> Result<Said, Unanswered> {
    let answer = ask::ask::<NodeReport>(socket, &Query::Node, QUERY_PATIENCE, QUERY_LIMIT);
    match answer {
        Ok(report) => {
            Ok(Said { findings: findings(&report, surroundings), further: further(&report), report: Some(report) })
        }
        Err(why) if why.exit() == Exit::Denied => Err(why),
        Err(why) => {
            let finding = Finding::fail(Area::Agent, why.to_string()).cured_by(surroundings.restart());
            Ok(Said { report: None, findings: vec![finding], further: Vec::new() })
        }
    }
}

/// Has the agent on `socket` put right at once what is its own.
///
/// # Errors
/// It did not say that it is done.
pub fn repair(socket: &Path) -> Result<(), Unanswered> {
    ask::ask::<Rounds>(socket, &Query::Round, QUERY_PATIENCE, QUERY_LIMIT).map(drop)
}

impl Said {
    /// The ranges of the NodeConfig in force.
    pub fn ranges(&self) -> Vec<IpNet> {
        let families = self.report.iter().flat_map(|report| &report.families);
        families.filter_map(|family| family.range.parse().ok()).collect()
    }

    /// Some address has pods on two nodes. Which one of them counts only the agent knows, and the other is not announced.
    pub fn is_contested(&self) -> bool {
        let conditions = self.report.iter().flat_map(|report| &report.conditions);
        let mut routing = conditions.filter(|condition| condition.kind == "Routing" && condition.status == "False");
        routing.any(|condition| {
            // It tells the first of several reasons, and all of them in words.
            condition.reason == "AddressesContested" || condition.message.contains("delete one of the pods")
        })
    }
}

fn findings(report: &NodeReport, surroundings: Surroundings) -> Vec<Finding> {
    let version = &report.version;
    let mut found = Vec::new();
    if !report.ready {
        let what = format!("flock-agent answers, and is not ready for pods: {}", report.why);
        found.push(Finding::fail(Area::Agent, what));
    }
    if version != VERSION {
        let what = format!("flock-agent {version} runs, and {VERSION} is installed");
        found.push(Finding::warn(Area::Agent, what).cured_by(surroundings.restart()));
    }
    if found.is_empty() {
        found.push(Finding::ok(Area::Agent, format!("flock-agent {version} answers, and is ready for pods")));
    }
    found.extend(report.conditions.iter().filter_map(condition));
    if report.ready && !found.iter().any(|finding| finding.area == Area::Configuration) {
        found.push(Finding::ok(Area::Configuration, format!("the NodeConfig from {} is in force", report.source)));
    }
    found.extend(configuration(report));
    found.extend(mtu(report));
    found
}

/// What a condition tells.
fn condition(condition: &Condition) -> Option<Finding> {
    let Condition { kind, status, reason, message } = condition;
    let area = match kind.as_str() {
        // It is the agent's own line.
        "Ready" => return None,
        "Valid" => Area::Configuration,
        "AddressesFree" => Area::Addresses,
        "Policy" => Area::Policy,
        "Routing" | "PeersReached" | "RangesUnique" => Area::Routes,
        "CredentialsLasting" => Area::Credentials,
        // One that only the agent's version knows.
        _ => Area::Agent,
    };
    match (status.as_str(), area) {
        ("False", Area::Configuration) => {
            Some(Finding::fail(area, format!("the NodeConfig is not in force: {message}")))
        }
        ("False", Area::Addresses | Area::Policy) => Some(Finding::fail(area, message)),
        ("False", Area::Credentials) if reason == "Ended" => Some(Finding::fail(area, message)),
        ("False", Area::Agent) => Some(Finding::warn(area, format!("{kind}: {message}"))),
        ("False", _) => Some(Finding::warn(area, message)),
        ("True", Area::Policy) => Some(Finding::ok(area, message)),
        _ => None,
    }
}

/// The warnings of `status`, but for those that a finding is made of already.
fn further(report: &NodeReport) -> Vec<Finding> {
    let (host, uplink) = (&report.host, report.host.uplink_mtu);
    let mut told: Vec<String> =
        report.conditions.iter().map(|condition| format!("{}: {}", condition.kind, condition.message)).collect();
    told.extend(
        host.cni_configuration_state.iter().map(|how| format!("the CNI configuration cannot be written: {how}")),
    );
    let config = report.node_config.as_ref().zip(uplink);
    told.extend(config.and_then(|(config, uplink)| nodeconfig::mtu_note(Some(config.mtu), uplink)));
    let area = |warning: &str| {
        let about = |text: &String| warning.contains(text.as_str());
        match () {
            () if report.families.iter().any(|family| about(&family.range)) => Area::Addresses,
            () if report.rounds.problem.iter().any(about) => Area::Links,
            () => Area::Agent,
        }
    };
    let untold = report.warnings.iter().filter(|warning| !told.contains(warning));
    untold.map(|warning| Finding::warn(area(warning), warning)).collect()
}

/// The configuration of the runtime that the agent keeps.
fn configuration(report: &NodeReport) -> Option<Finding> {
    let (file, how) = (report.host.cni_configuration.as_ref()?, report.host.cni_configuration_state.as_ref()?);
    Some(match how.as_str() {
        "in force" => Finding::ok(Area::Runtime, format!("{file} is as flock-agent writes it")),
        "edited" => {
            let what = format!("{file} is not as flock-agent writes it, and is left alone");
            Finding::warn(Area::Runtime, what).cured_by(format!("rm {file}, to have it written anew"))
        }
        how => Finding::fail(Area::Runtime, format!("{file} is not written: {how}")),
    })
}

/// What new pods get, which may be more than an uplink takes.
fn mtu(report: &NodeReport) -> Option<Finding> {
    let (config, uplink) = (report.node_config.as_ref()?, report.host.uplink_mtu?);
    (config.mtu > uplink).then(|| {
        let name = report.host.uplink.as_deref().unwrap_or_default();
        let what = format!(
            "new pods get an MTU of {}, and the uplink {name} takes {uplink}: large packets to anybody beyond are lost",
            config.mtu
        );
        Finding::warn(Area::Mtu, what).cured_by(format!("spec.mtu: {uplink}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::finding::Level;
    use crate::rpc::report::{ConfigInForce, Family, Host};

    fn well() -> NodeReport {
        let condition = |kind: &str, status: &str, message: &str| Condition {
            kind: kind.into(),
            status: status.into(),
            message: message.into(),
            ..Condition::default()
        };
        NodeReport {
            version: VERSION.into(),
            ready: true,
            conditions: vec![
                condition("Valid", "True", "in force"),
                condition("Ready", "True", "pods get addresses"),
                condition("Policy", "True", "NetworkPolicies are in force"),
                condition("AddressesFree", "True", "each family has free addresses"),
            ],
            families: vec![Family { range: "10.25.214.0/24".into(), ..Family::default() }],
            node_config: Some(ConfigInForce { mtu: 1500, ..ConfigInForce::default() }),
            host: Host {
                uplink: Some("up0".into()),
                uplink_mtu: Some(1500),
                cni_configuration: Some("/etc/cni/net.d/01-flock.conflist".into()),
                cni_configuration_state: Some("in force".into()),
                ..Host::default()
            },
            ..NodeReport::default()
        }
    }

    #[test]
    fn what_the_agent_says_of_itself_is_said_where_it_belongs() {
        let wrong = |damage: fn(&mut NodeReport)| {
            let mut report = well();
            damage(&mut report);
            // The agent's warnings hold each of its conditions.
            let bad = report.conditions.iter().filter(|condition| condition.status == "False");
            report.warnings.extend(bad.map(|condition| format!("{}: {}", condition.kind, condition.message)));
            let found = findings(&report, Surroundings::Host).into_iter().chain(further(&report));
            let found = found.filter(|finding| finding.level != Level::Ok);
            found.map(|finding| (finding.area, finding.level, finding.what)).collect::<Vec<_>>()
        };
        assert_eq!(wrong(|_| {}), []);
        for (damage, area, level, words) in [
            (
                (|report| report.version = "0.0.9".into()) as fn(&mut NodeReport),
                Area::Agent,
                Level::Warn,
                "flock-agent 0.0.9 runs, and",
            ),
            (|report| (report.ready, report.why) = (false, "no range".into()), Area::Agent, Level::Fail, "no range"),
            (|report| report.conditions[0].status = "False".into(), Area::Configuration, Level::Fail, "not in force"),
            (|report| report.conditions[2].status = "False".into(), Area::Policy, Level::Fail, "NetworkPolicies"),
            (
                |report| report.host.cni_configuration_state = Some("edited".into()),
                Area::Runtime,
                Level::Warn,
                "is left alone",
            ),
            (
                |report| report.host.cni_configuration_state = Some("read-only".into()),
                Area::Runtime,
                Level::Fail,
                "is not written: read-only",
            ),
            (
                |report| report.host.uplink_mtu = Some(1400),
                Area::Mtu,
                Level::Warn,
                "1500, and the uplink up0 takes 1400",
            ),
            (
                |report| report.conditions[3].status = "False".into(),
                Area::Addresses,
                Level::Fail,
                "each family has free addresses",
            ),
            (
                |report| report.warnings.push("ipv4 range 10.25.214.0/24 is 91 % full".into()),
                Area::Addresses,
                Level::Warn,
                "is 91 % full",
            ),
            (
                |report| {
                    report.rounds.problem = Some("no answer".into());
                    report.warnings.push("record and kernel could not be compared: no answer".into());
                },
                Area::Links,
                Level::Warn,
                "could not be compared",
            ),
            (
                |report| report.warnings.push("pods of the API server have not been heard for 99 s: 403".into()),
                Area::Agent,
                Level::Warn,
                "not been heard for 99 s",
            ),
            (
                |report| {
                    let Condition { status, .. } = report.conditions[3].clone();
                    let (kind, message) = ("Mood".into(), "gloomy".into());
                    report.conditions.push(Condition {
                        kind,
                        status: status.replace("True", "False"),
                        message,
                        ..Condition::default()
                    });
                },
                Area::Agent,
                Level::Warn,
                "Mood: gloomy",
            ),
            (
                |report| {
                    report.host.uplink_mtu = Some(1400);
                    report.warnings.extend(nodeconfig::mtu_note(Some(1500), 1400));
                },
                Area::Mtu,
                Level::Warn,
                "takes 1400",
            ),
        ] {
            let found = wrong(damage);
            assert!(
                matches!(&found[..], [(of, how, what)] if (*of, *how) == (area, level) && what.contains(words)),
                "{words}: {found:?}"
            );
        }
    }
}
