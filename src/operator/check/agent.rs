//! The agent's own word: whether it answers, of which version it is, what it says of itself, and what it alone knows of the node.
//!
//! Takes conditions as they are. Must not judge again what the agent has judged, nor wait longer than a person does.

use std::path::Path;

use ipnet::IpNet;

use crate::operator::ask::{self, Unanswered, VERSION};
use crate::operator::check::finding::{Area, Finding};
use crate::process::exit::Exit;
use crate::rpc::message::Query;
use crate::rpc::report::{Condition, NodeReport, Rounds};
use crate::rpc::{QUERY_LIMIT, QUERY_PATIENCE};

/// What puts the installed version in force.
const RESTART: &str = "systemctl restart flock-agent";

/// What the agent has said.
#[derive(Debug)]
pub struct Said {
    /// What it says of itself; none if there is no answer.
    pub report: Option<NodeReport>,
    /// What follows.
    pub findings: Vec<Finding>,
}

/// Asks the agent on `socket`.
///
/// # Errors
/// It does not answer this user.
pub fn ask(socket: &Path) -> Result<Said, Unanswered> {
    let answer = ask::ask::<NodeReport>(socket, &Query::Node, QUERY_PATIENCE, QUERY_LIMIT);
    match answer {
        Ok(report) => Ok(Said { findings: findings(&report), report: Some(report) }),
        Err(why) if why.exit() == Exit::Denied => Err(why),
        Err(why) => {
            let finding = Finding::fail(Area::Agent, why.to_string()).cured_by(RESTART);
            Ok(Said { report: None, findings: vec![finding] })
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
}

fn findings(report: &NodeReport) -> Vec<Finding> {
    let version = &report.version;
    let mut found = vec![match (version == VERSION, report.ready) {
        (_, false) => {
            Finding::fail(Area::Agent, format!("flock-agent answers, and is not ready for pods: {}", report.why))
        }
        (true, true) => Finding::ok(Area::Agent, format!("flock-agent {version} answers, and is ready for pods")),
        (false, true) => {
            let what = format!("flock-agent {version} runs, and {VERSION} is installed");
            Finding::warn(Area::Agent, what).cured_by(RESTART)
        }
    }];
    found.extend(report.conditions.iter().filter_map(condition));
    if !report.conditions.iter().any(|condition| condition.kind == "Valid") {
        found.extend(
            report.ready.then(|| {
                Finding::ok(Area::Configuration, format!("the NodeConfig from {} is in force", report.source))
            }),
        );
    }
    found.extend(configuration(report));
    found.extend(mtu(report));
    found
}

/// What a condition tells that no other part of the check looks at.
fn condition(condition: &Condition) -> Option<Finding> {
    let area = match condition.kind.as_str() {
        "Valid" => Area::Configuration,
        "Policy" => Area::Policy,
        "Routing" | "PeersReached" | "RangesUnique" => Area::Routes,
        // The first is the agent's line, and of the last the dates are read here.
        _ => return None,
    };
    let text = &condition.message;
    match (condition.status.as_str(), area) {
        ("False", Area::Configuration) => Some(Finding::fail(area, format!("the NodeConfig is not in force: {text}"))),
        ("False", Area::Policy) => Some(Finding::fail(area, text)),
        ("False", _) => Some(Finding::warn(area, text)),
        ("True", Area::Configuration | Area::Policy) => Some(Finding::ok(area, text)),
        _ => None,
    }
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
    use crate::rpc::report::{ConfigInForce, Host};

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
            ],
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
            let found = findings(&report).into_iter().filter(|finding| finding.level != Level::Ok);
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
        ] {
            let found = wrong(damage);
            assert!(
                matches!(&found[..], [(of, how, what)] if (*of, *how) == (area, level) && what.contains(words)),
                "{words}: {found:?}"
            );
        }
    }
}
