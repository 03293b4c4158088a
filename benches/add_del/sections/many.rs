//! A thousand pods that are there already, beside none: for flock, and for the kernel alone, which has longer lists to walk.
//!
//! Without them first: what is on one host slows the kernel down on all hosts of the machine, so a host without pods beside one with a
//! thousand would be no host of its own. Both have a thousand, so the machine has two.

use super::Scene;
use crate::bursts::each;
use crate::call::Verb;
use crate::calls;
use crate::contestant::Contestant;
use crate::figures::Times;
use crate::flock::Features;
use crate::floor::Kernel;
use crate::host::Pod;
use crate::report::Table;

const ROUNDS: usize = 80;
const PODS: usize = 1000;
const PERCENTS: [usize; 2] = [50, 90];

pub fn measure(scene: &mut Scene) {
    let (flock, kernel) = (scene.flock("flock", Features::Off), Kernel::new("many"));
    let field: [(&dyn Contestant, usize); 2] = [(&flock, 1), (&kernel, 1)];
    let none = calls::measure(&field, ROUNDS);
    let standing = [Pod::some(PODS), Pod::some(PODS)];
    for ((contestant, _), pods) in field.iter().zip(&standing) {
        each(*contestant, Verb::Add, 8, pods);
    }
    let many = calls::measure(&field, ROUNDS);

    let title = format!("A thousand other pods, microseconds ({ROUNDS} pods each)");
    let mut table = Table::new("many", title, &["ADD p50", "ADD p90", "DEL p50", "DEL p90"]);
    let of = |times: &Times, at: usize, verb, percent| {
        times.of(field[at].0.name(), verb).map_or(f64::NAN, |figures| figures.percentile(percent))
    };
    for (at, (contestant, _)) in field.iter().enumerate() {
        for (what, times) in [("no other pod", &none), ("a thousand", &many)] {
            let numbers = Verb::BOTH.iter().flat_map(|verb| PERCENTS.map(|percent| of(times, at, *verb, percent)));
            table.row(format!("{}, {what}", contestant.name()), numbers);
        }
    }
    scene.report.table(table);
    for verb in Verb::BOTH {
        // In microseconds, not as a ratio: what the kernel alone loses is added to whatever somebody takes who uses it.
        let [flock, kernel] = [0, 1].map(|at| of(&many, at, verb, 50) - of(&none, at, verb, 50));
        let what = format!("{}: microseconds lost to 1000 other pods / by the kernel alone", verb.name());
        scene.report.at_most(what, 1.1, flock / kernel);
    }
}
