//! What came of Kubernetes' tests, as they report it, and the page of it. Which of them are left out, and why, the caller says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::programs::succeed;

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    /// Left out, and why.
    LeftOut(String),
    /// It looked at the cluster and left itself out, and why.
    Declined(String),
}

pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    seconds: f64,
}

pub(crate) struct Report {
    /// Those of sig-network, by name.
    pub(crate) tests: Vec<Test>,
}

impl Report {
    /// What ginkgo has written. A test that nobody ran is left out for a reason that is given, or it was not asked for.
    pub(crate) fn read(file: &Path, left_out: &[(&str, &str)]) -> Report {
        let text = fs::read_to_string(file).expect("readable");
        let suites: Value = serde_json::from_str(&text).expect("JSON");
        let specs = suites[0]["SpecReports"].as_array().expect("a list").iter();
        let mut tests: Vec<Test> = specs.filter_map(|spec| test(spec, left_out)).collect();
        tests.sort_by(|a, b| a.name.cmp(&b.name));
        Report { tests }
    }

    pub(crate) fn count(&self, outcome: &Outcome) -> usize {
        self.tests.iter().filter(|test| test.outcome == *outcome).count()
    }

    pub(crate) fn failed(&self) -> usize {
        self.tests.iter().filter(|test| matches!(test.outcome, Outcome::Failed(_))).count()
    }

    /// The page, with the commit that was tried.
    pub(crate) fn page(&self) -> String {
        let git =
            |arguments: &[&str]| succeed(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments));
        let (commit, date) = (git(&["rev-parse", "--short", "HEAD"]), git(&["log", "-1", "--format=%cs"]));
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        let mut rows = String::new();
        for test in &self.tests {
            let said = match &test.outcome {
                Outcome::Passed => format!("passed in {:.0} s", test.seconds),
                Outcome::Failed(_) => "**failed**".to_owned(),
                Outcome::LeftOut(why) => {
                    *reasons.entry(why).or_default() += 1;
                    format!("left out: {why}")
                }
                Outcome::Declined(why) => format!("declined: {why}"),
            };
            rows += &format!("| {} | {said} |\n", test.name.replace('|', "\\|"));
        }
        let declined = self.tests.iter().filter(|test| matches!(test.outcome, Outcome::Declined(_))).count();
        let left_out: usize = reasons.values().sum();
        format!(
            "# Kubernetes' own tests\n\n\
             All tests of Kubernetes' sig-network, of the release that `tests/kube/tools/go.mod` pins, unmodified, on two nodes with kube-proxy \
             in its mode\nnftables, and flock as a DaemonSet. `make test-e2e` runs them and writes this page.\n\n\
             Of the commit {} ({}): {} passed, {} failed, {declined} declined for what they found, {left_out} left out.\n\n\
             | test | result |\n|---|---|\n{rows}",
            commit.trim(),
            date.trim(),
            self.count(&Outcome::Passed),
            self.failed(),
        )
    }
}

/// A test of sig-network that was run, or left out for one of these reasons.
fn test(spec: &Value, left_out: &[(&str, &str)]) -> Option<Test> {
    if spec["LeafNodeType"] != "It" {
        return None;
    }
    let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
    let words: Vec<&str> = containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
    let name = words.join(" ");
    let name = name.strip_prefix("[sig-network] ")?.to_owned();
    let reason = left_out.iter().find(|(words, _)| name.contains(words)).map(|(_, why)| (*why).to_owned());
    let message = || spec["Failure"]["Message"].as_str().unwrap_or_default().to_owned();
    let outcome = match (spec["State"].as_str().expect("a state"), reason) {
        ("passed", _) => Outcome::Passed,
        ("skipped", Some(why)) => Outcome::LeftOut(why),
        // Without a message, it was not asked for.
        ("skipped", None) if message().is_empty() => return None,
        ("skipped", None) => Outcome::Declined(message().lines().next().unwrap_or_default().to_owned()),
        (state, _) => Outcome::Failed(format!("{state}: {}", message())),
    };
    Some(Test { name, outcome, seconds: spec["RunTime"].as_f64().unwrap_or_default() / 1e9 })
}
