//! How long an agent that was killed takes until it serves again: from the start of its process to the end of a first STATUS that says
//! so.

use std::fs;
use std::time::{Duration, Instant};

use super::Scene;
use crate::bursts::each;
use crate::call::Verb;
use crate::figures::Figures;
use crate::flock::Features;
use crate::host::Pod;
use crate::report::Table;

const TIMES: usize = 7;

pub fn measure(scene: &mut Scene) {
    let flock = scene.flock("flock restart", Features::Off);
    let mut table =
        Table::new("restart", format!("kill -9 to serving, milliseconds, of {TIMES}"), &["median", "worst"]);
    table.digits = 1;
    let mut pods = Vec::new();
    for (count, limit) in [(250, 50.0), (1000, 200.0)] {
        let more = Pod::some(count - pods.len());
        each(&flock, Verb::Add, 8, &more);
        pods.extend(more);
        for (what, with_record) in [("with the record", true), ("from the kernel alone", false)] {
            let mut times = Figures::default();
            for _ in 0..TIMES {
                flock.kill_agent();
                if !with_record {
                    fs::remove_dir_all(&flock.state).expect("removable");
                }
                let began = Instant::now();
                flock.start_agent();
                assert!(flock.serves(Duration::from_secs(10)), "it does not serve");
                times.0.push(began.elapsed().as_secs_f64() * 1e3);
            }
            table.row(format!("{count} pods, {what}"), [times.median(), times.most()]);
            scene.report.at_most(format!("restart with {count} pods {what}, ms"), limit, times.median());
        }
    }
    scene.report.table(table);
}
