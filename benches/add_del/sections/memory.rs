//! What the agent has in memory: at rest, with the pods of a node, behind a burst, and later.

use std::thread;
use std::time::Duration;

use super::Scene;
use crate::bursts::each;
use crate::call::Verb;
use crate::flock::Features;
use crate::host::Pod;
use crate::report::Table;

/// The pods of a node, as kubelet allows them.
const NODE: usize = 110;
const BURST: usize = 1000;
/// Later, and much later, which is for the patient (`LONG=1`).
const LATER: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);

pub fn measure(scene: &mut Scene) {
    let mut table = Table::new("memory", "Resident memory of the agent, MB", &["nothing on", "all on"]);
    table.digits = 1;
    let flocks = [("flock memory", Features::Off), ("flock memory, all on", Features::On)]
        .map(|(name, features)| scene.flock(name, features));
    let mut look = |what: &str| table.row(what, flocks.iter().map(|flock| flock.memory() as f64 * 1024.0 / 1e6));
    look("started");
    let standing: Vec<Vec<Pod>> = flocks.iter().map(|_| Pod::some(NODE)).collect();
    for (flock, pods) in flocks.iter().zip(&standing) {
        each(flock, Verb::Add, 2, pods);
    }
    thread::sleep(Duration::from_secs(2));
    look("110 pods, at rest");
    for flock in &flocks {
        let pods = Pod::some(BURST);
        each(flock, Verb::Add, 32, &pods);
        each(flock, Verb::Del, 32, &pods);
    }
    look("behind a burst of 1000");
    thread::sleep(LATER);
    look("20 s later");
    let mut last = "20 s later";
    if std::env::var_os("LONG").is_some() {
        thread::sleep(LONG);
        last = "ten minutes later";
        look(last);
    }
    let at = |row: &str| table.at(row, "nothing on").unwrap_or(f64::NAN);
    let found = [("110 pods, at rest", at("110 pods, at rest")), (last, at(last))];
    scene.report.table(table);
    for (when, megabytes) in found {
        scene.report.at_most(format!("agent's memory in MB, {when}"), 6.0, megabytes);
    }
    scene.report.leave_out("memory with watches of an API server: make bench-kube and make bench-policy have it");
}
