//! What a look has found, and how all findings are shown: as text for people, as JSON for programs.
//!
//! The JSON is a promise: keys and words stay, and new ones may come. Must not know how anything is looked at.

use std::fmt::Write as _;

use serde::Serialize;

use crate::process::exit::Exit;
use model::excerpt::Excerpt;

/// Width of the text, in characters: what a terminal of today shows in a line.
const WIDTH: usize = 120;
/// Width of the level with the blanks behind it.
const LEVEL: usize = 6;
/// Width of the area with the blanks behind it.
const AREA: usize = 16;
/// Longest sentence, in bytes.
const SENTENCE_MAX: usize = 1024;
/// Most lines of one area and level that are shown as text. What else has the same fault is counted.
const SHOWN_MAX: usize = 10;

/// What a finding is about, in the order in which findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// The agent: whether it answers, and whether it is ready.
    Agent,
    /// The NodeConfig.
    Configuration,
    /// The node's ranges on this host, and what else meets them.
    Addresses,
    /// Next hops of the host.
    Gateway,
    /// The MTU of pods and uplinks.
    Mtu,
    /// Host ends of pods' links.
    Links,
    /// What leads to pods.
    Routes,
    /// Permanent neighbours of pods.
    Neighbours,
    /// Settings of the kernel.
    Sysctls,
    /// Flock's own tables in the packet filter.
    Policy,
    /// The packet filters of others.
    Firewall,
    /// Programs that manage links.
    Managers,
    /// The proxy of Services.
    KubeProxy,
    /// The container runtime.
    Runtime,
    /// What the agent shows the API server.
    Credentials,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Area::Agent => "agent",
            Area::Configuration => "configuration",
            Area::Addresses => "addresses",
            Area::Gateway => "gateway",
            Area::Mtu => "mtu",
            Area::Links => "links",
            Area::Routes => "routes",
            Area::Neighbours => "neighbours",
            Area::Sysctls => "sysctls",
            Area::Policy => "policy",
            Area::Firewall => "firewall",
            Area::Managers => "managers",
            Area::KubeProxy => "kube-proxy",
            Area::Runtime => "runtime",
            Area::Credentials => "credentials",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Pods work, and may not for long or not all of them.
    Warn,
    /// Pods do not work.
    Fail,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        }
    }
}

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// The agent puts it right, in its next round or when it is told to look at once.
    Repair,
    /// Command lines, or a sentence.
    Do(String),
}

/// What one look has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// How bad it is.
    pub level: Level,
    /// What is the case and where, in one sentence without its full stop.
    pub what: String,
    /// What to do about it; none if there is nothing to do.
    pub remedy: Option<Remedy>,
}

impl Finding {
    fn new(area: Area, level: Level, what: &str) -> Finding {
        Finding { area, level, what: Excerpt::line(what, SENTENCE_MAX).into(), remedy: None }
    }

    /// All is well.
    pub fn ok(area: Area, what: impl AsRef<str>) -> Finding {
        Finding::new(area, Level::Ok, what.as_ref())
    }

    /// Something that is not as it should be, though pods work.
    pub fn warn(area: Area, what: impl AsRef<str>) -> Finding {
        Finding::new(area, Level::Warn, what.as_ref())
    }

    /// Something for which pods do not work.
    pub fn fail(area: Area, what: impl AsRef<str>) -> Finding {
        Finding::new(area, Level::Fail, what.as_ref())
    }

    /// With command lines, or a sentence, that cure it. Lines stay apart.
    #[must_use]
    pub fn cured_by(self, remedy: impl AsRef<str>) -> Finding {
        let lines: Vec<String> = remedy.as_ref().lines().map(|line| Excerpt::line(line, SENTENCE_MAX).into()).collect();
        Finding { remedy: Some(Remedy::Do(lines.join("\n"))), ..self }
    }

    /// With the agent to put it right.
    #[must_use]
    pub fn repairable(self) -> Finding {
        Finding { remedy: Some(Remedy::Repair), ..self }
    }
}

/// All findings of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

/// The promise.
#[derive(Serialize)]
struct Promise<'a> {
    failures: usize,
    warnings: usize,
    findings: Vec<Promised<'a>>,
}

#[derive(Serialize)]
struct Promised<'a> {
    area: Area,
    level: Level,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}

impl Findings {
    /// Findings in the order of their areas, and those of an area as they were found.
    pub fn new(mut findings: Vec<Finding>) -> Findings {
        findings.sort_by_key(|finding| finding.area);
        Findings(findings)
    }

    /// How many findings are of this level.
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// How the check ends.
    pub fn exit(&self) -> Exit {
        if self.count(Level::Fail) > 0 { Exit::Failed } else { Exit::Done }
    }

    /// As one JSON object.
    ///
    /// # Errors
    /// None that a finding can cause.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        let promised = |finding: &'_ Finding| -> Option<String> {
            finding.remedy.as_ref().map(|remedy| match remedy {
                Remedy::Repair => "flock-agent check --repair".to_owned(),
                Remedy::Do(text) => text.clone(),
            })
        };
        let remedies: Vec<Option<String>> = self.0.iter().map(promised).collect();
        let findings = self.0.iter().zip(&remedies).map(|(finding, remedy)| Promised {
            area: finding.area,
            level: finding.level,
            what: &finding.what,
            remedy: remedy.as_deref(),
        });
        let (failures, warnings) = (self.count(Level::Fail), self.count(Level::Warn));
        let mut text = serde_json::to_string_pretty(&Promise { failures, warnings, findings: findings.collect() })?;
        text.push('\n');
        Ok(text)
    }

    /// As a table for people, with a closing line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut same: Option<(Area, Level, usize)> = None;
        for finding in &self.0 {
            let seen = match same {
                Some((area, level, seen)) if (area, level) == (finding.area, finding.level) => seen + 1,
                other => {
                    close(&mut text, other);
                    1
                }
            };
            same = Some((finding.area, finding.level, seen));
            if seen <= SHOWN_MAX {
                line(&mut text, finding);
            }
        }
        close(&mut text, same);
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let (failures, warnings) = (self.count(Level::Fail), self.count(Level::Warn));
        // Writing to a string does not fail.
        writeln!(text, "{failures} failure{}, {warnings} warning{}", plural(failures), plural(warnings)).ok();
        text
    }
}

/// Says how many findings are left out of the group that ends here.
fn close(text: &mut String, group: Option<(Area, Level, usize)>) {
    if let Some((area, level, seen)) = group
        && let Some(more) = seen.checked_sub(SHOWN_MAX).filter(|more| *more > 0)
    {
        line(text, &Finding::new(area, level, &format!("and {more} more: -o json shows all")));
    }
}

fn line(text: &mut String, finding: &Finding) {
    let mut what = finding.what.clone();
    if finding.remedy == Some(Remedy::Repair) {
        what += " [--repair]";
    }
    let mut first = format!("{:LEVEL$}{:AREA$}", finding.level.word(), finding.area.name());
    for piece in wrapped(&what, WIDTH - LEVEL - AREA) {
        writeln!(text, "{first}{piece}").ok();
        first = " ".repeat(LEVEL + AREA);
    }
    // A command is to be copied, so its lines stay whole.
    if let Some(Remedy::Do(remedy)) = &finding.remedy {
        for piece in remedy.lines() {
            writeln!(text, "{first}{piece}").ok();
        }
    }
}

/// Lines of at most `width` characters, broken at blanks. A word that is longer has a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Findings {
        Findings::new(vec![
            Finding::warn(
                Area::Firewall,
                "nftables table inet firewalld, chain filter_FORWARD drops what it does not know: what pods send beyond this node gets \
                 nowhere, and nobody\nanswers",
            )
            .cured_by("firewall-cmd --permanent --zone=trusted --add-interface=flock+\nfirewall-cmd --reload"),
            Finding::ok(Area::Agent, "flock-agent 0.2.0 answers"),
            Finding::fail(Area::Routes, "10.25.214.7 of shop/web-1: route is missing on flock1a2b3c4d").repairable(),
        ])
    }

    #[test]
    fn text_is_aligned_and_wrapped_and_commands_stay_whole() {
        assert_eq!(
            some().text(),
            "ok    agent           flock-agent 0.2.0 answers\n\
             FAIL  routes          10.25.214.7 of shop/web-1: route is missing on flock1a2b3c4d [--repair]\n\
             warn  firewall        nftables table inet firewalld, chain filter_FORWARD drops what it does not know: what pods send\n\
             \u{20}                     beyond this node gets nowhere, and nobody\\nanswers\n\
             \u{20}                     firewall-cmd --permanent --zone=trusted --add-interface=flock+\n\
             \u{20}                     firewall-cmd --reload\n\
             1 failure, 1 warning\n"
        );
    }

    #[test]
    fn json_is_the_promise() {
        assert_eq!(some().json().expect("encodes"), include_str!("../../../tests/data/check.json"));
    }

    #[test]
    fn the_end_tells_failures_and_forgives_warnings() {
        assert_eq!(some().exit(), Exit::Failed);
        assert_eq!(Findings::new(vec![Finding::warn(Area::Managers, "x")]).exit(), Exit::Done);
        assert_eq!(Findings::default().text(), "0 failures, 0 warnings\n");
    }

    #[test]
    fn the_same_fault_of_many_pods_does_not_flood_the_screen() {
        let many = |of: usize| (0..of).map(|n| Finding::fail(Area::Links, format!("link {n}")));
        let text = Findings::new(many(250).chain([Finding::ok(Area::Routes, "fine")]).collect()).text();
        assert_eq!(text.lines().count(), SHOWN_MAX + 3, "{text}");
        assert!(text.contains("FAIL  links           and 240 more: -o json shows all\nok    routes "), "{text}");
        assert!(text.ends_with("250 failures, 0 warnings\n"));
        let text = Findings::new(many(SHOWN_MAX).collect()).text();
        assert_eq!(text.lines().count(), SHOWN_MAX + 1, "{text}");
    }
}
