//! Where the time of a call goes: the agent's own steps, and the system calls of agent and plugin. Nothing here is fast while it is
//! counted, so nothing of it is a time to compare.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::Scene;
use crate::call::{Verb, call};
use crate::contestant::Contestant as _;
use crate::flock::{Features, Flock};
use crate::host::{Pod, run};
use crate::report::Table;

const CALLS: usize = 100;
/// Calls under strace.
const TRACED: usize = 20;
/// Steps that the agent has times of, in their order.
const STEPS: [&str; 6] = ["intent", "reserve", "wire", "commit", "unwire", "release"];

pub fn measure(scene: &mut Scene) {
    let flocks = [scene.flock("flock inside", Features::Off), scene.flock("flock inside, all on", Features::On)];
    let columns = ["nothing on", "all on"];
    let mut steps =
        Table::new("steps", format!("Where a call's time goes in the agent, microseconds, mean of {CALLS}"), &columns);
    let found: Vec<Vec<(String, f64)>> = flocks.iter().map(steps_of).collect();
    for (at, (name, _)) in found[0].iter().enumerate() {
        steps.row(name.clone(), found.iter().map(|column| column[at].1));
    }
    scene.report.table(steps);
    if Command::new("strace").arg("-V").output().is_err() {
        scene.report.leave_out("system calls: there is no strace");
        return;
    }
    let mut table = Table::new(
        "system calls",
        format!("System calls of one call, mean of {TRACED}"),
        &["plugin ADD", "agent ADD", "plugin DEL", "agent DEL"],
    );
    table.digits = 1;
    let flock = &flocks[0];
    let pods = Pod::some(TRACED);
    let mut counts: Vec<BTreeMap<String, f64>> = Vec::new();
    for verb in Verb::BOTH {
        let (plugin, agent) = flock.host().inside(|| traced(flock, verb, &pods));
        counts.extend([plugin, agent]);
    }
    table.row("all", counts.iter().map(|count| count.values().sum::<f64>()));
    let mut names: Vec<&String> = counts.iter().flat_map(BTreeMap::keys).collect();
    names.sort();
    names.dedup();
    let row =
        |name: &str| -> Vec<f64> { counts.iter().map(|count| count.get(name).copied().unwrap_or_default()).collect() };
    names.sort_by(|a, b| f64::total_cmp(&row(b).iter().sum(), &row(a).iter().sum()));
    names.retain(|name| row(name).iter().sum::<f64>() >= 1.0);
    for name in names {
        table.row(name.clone(), row(name));
    }
    scene.report.table(table);
}

fn steps_of(flock: &Flock) -> Vec<(String, f64)> {
    let pods = Pod::some(CALLS);
    let page = || flock.ask(&["status", "-o", "prometheus"]);
    flock.host().inside(|| {
        let before = page();
        for verb in Verb::BOTH {
            for pod in &pods {
                flock.call(verb, pod);
            }
        }
        let after = page();
        let mean = |family: &str, label: &str| {
            let of = |what: &str| {
                let name = format!("flock_cni_{family}_duration_seconds_{what}{{{label}}}");
                metric(&after, &name) - metric(&before, &name)
            };
            of("sum") / of("count") * 1e6
        };
        let whole = Verb::BOTH.map(|verb| {
            (format!("{} in all", verb.name()), mean("request", &format!("operation=\"{}\"", verb.name())))
        });
        let steps = STEPS.map(|step| (format!("  {step}"), mean("step", &format!("step=\"{step}\""))));
        let ([add, del], [intent, reserve, wire, commit, unwire, release]) = (whole, steps);
        vec![add, intent, reserve, wire, commit, del, unwire, release]
    })
}

/// A number of a page of metrics.
pub fn metric(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or(f64::NAN)
}

/// How many system calls of each name, of the plugin and of the agent.
fn traced(flock: &Flock, verb: Verb, pods: &[Pod]) -> (BTreeMap<String, f64>, BTreeMap<String, f64>) {
    let (own, plugins) = ("/run/strace.agent", "/run/strace.plugin");
    let mut strace = attach(flock.pid(), own);
    let mut plugin: BTreeMap<String, f64> = BTreeMap::new();
    for pod in pods {
        let command = flock.command(verb, pod);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-c", "-o", plugins]).arg(command.get_program()).env_clear();
        traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        call(&mut traced, flock.input());
        for (name, count) in counted(plugins) {
            *plugin.entry(name).or_default() += count / pods.len() as f64;
        }
    }
    run(&format!("kill -INT {}", strace.id()));
    strace.wait().expect("waitable");
    (plugin, counted(own).into_iter().map(|(name, count)| (name, count / pods.len() as f64)).collect())
}

fn attach(pid: u32, output: &str) -> Child {
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-o", output, "-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace starts");
    let mut said = BufReader::new(strace.stderr.take().expect("piped"));
    let mut line = String::new();
    // One line for each thread, of which the first one says that it works.
    assert!(said.read_line(&mut line).is_ok() && line.contains("attached"), "strace: {line}");
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    strace
}

/// The table that strace has written: share, seconds, time of each, calls, errors if any, name.
fn counted(path: &str) -> Vec<(String, f64)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = *words.last()?;
        let count = words.get(3)?.parse().ok()?;
        (name != "total").then(|| (name.to_owned(), count))
    };
    text.lines().filter_map(row).collect()
}
