//! What the disk under the record costs when many call at once: on a tmpfs, on this machine's disk, and on one whose every sync takes
//! 5 ms.

use std::fs;
use std::time::Duration;

use super::Scene;
use crate::bursts::{self, PODS};
use crate::contestant::Contestant as _;
use crate::figures::Figures;
use crate::flock::{Features, Flock, WIDE};
use crate::report::Table;
use crate::slow_disk;

const ROUNDS: usize = 5;
const CALLERS: usize = 32;
const SYNC: Duration = Duration::from_millis(5);
const SLOW: &str = "/run/slow";

pub fn measure(scene: &mut Scene) {
    let with_record_in = |name: &str, directory: String| {
        let mut flock = Flock::prepare(name, &scene.binaries, Features::Off, WIDE);
        flock.state = directory.into();
        flock.start_agent();
        flock
    };
    let own = scene.disk.join("record").display().to_string();
    fs::remove_dir_all(&own).ok();
    let mut flocks = vec![
        with_record_in("record on a tmpfs", "/run/record".into()),
        with_record_in("record on this machine's disk", own),
    ];
    fs::create_dir_all(SLOW).expect("made");
    match slow_disk::start(SLOW.as_ref(), SYNC) {
        Ok(()) => flocks.push(with_record_in("record on a disk that syncs in 5 ms", format!("{SLOW}/record"))),
        Err(why) => scene.report.leave_out(format!("a disk that syncs in 5 ms: {why}")),
    }
    let mut found = vec![[Figures::default(), Figures::default()]; flocks.len()];
    for round in 0..ROUNDS {
        for turn in 0..flocks.len() {
            let at = (round + turn) % flocks.len();
            let burst = bursts::run(&flocks[at], CALLERS);
            burst.iter().zip(&mut found[at]).for_each(|(burst, figures)| figures.0.push(burst.rate));
        }
    }
    let mut table = Table::new(
        "disk",
        format!("The record's disk, {CALLERS} callers, {PODS} pods at once, median of {ROUNDS}"),
        &["ADD/s", "DEL/s"],
    );
    for (flock, figures) in flocks.iter().zip(&found) {
        table.row(flock.name(), figures.iter().map(Figures::median));
    }
    scene.report.table(table);
    if let [tmpfs, _, slow] = &found[..] {
        for (at, verb) in [(0, "ADD"), (1, "DEL")] {
            scene.report.at_least(
                format!("{verb}/s with a record that syncs in 5 ms / on a tmpfs"),
                0.5,
                slow[at].median() / tmpfs[at].median(),
            );
        }
    }
}
