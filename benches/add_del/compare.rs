//! Two builds of flock in one run, on a host each, their calls alternating, and the floors beside them.
//!
//! A machine is faster in one minute than in the next, so no build is measured before the other: each round gives a ratio of its own,
//! and what the ratios of all rounds have in common is what one may believe.

use std::path::Path;

use serde_json::{Value, json};

use crate::bursts;
use crate::call::Verb;
use crate::calls;
use crate::contestant::Contestant;
use crate::figures::Figures;
use crate::flock::{Features, Flock, WIDE};
use crate::floor::{Kernel, Program, alike};
use crate::host::Pod;

/// The lowest is what others who use the machine disturb least.
const PERCENTS: [usize; 3] = [10, 50, 90];
const ROUNDS: usize = 6;
/// Pods of each in a round.
const CALLS: usize = 40;
const BURSTS: usize = 4;

/// A row: a figure of the earlier and of the present build, round by round.
struct Row {
    what: String,
    unit: &'static str,
    earlier: Figures,
    present: Figures,
}

impl Row {
    fn new(what: impl Into<String>, unit: &'static str) -> Row {
        Row { what: what.into(), unit, earlier: Figures::default(), present: Figures::default() }
    }

    fn put(&mut self, earlier: f64, present: f64) {
        self.earlier.0.push(earlier);
        self.present.0.push(present);
    }

    fn ratios(&self) -> Figures {
        Figures(self.earlier.0.iter().zip(&self.present.0).map(|(earlier, present)| present / earlier).collect())
    }

    fn line(&self) -> String {
        let (ratios, digits) = (self.ratios(), usize::from(self.unit == "x") * 2);
        let of = |figures: &Figures| format!("{:.digits$}", figures.median());
        format!(
            "{:<34} {:>10} {:>10} {:<4} {:>7.3}  ({:.3} to {:.3})",
            self.what,
            of(&self.earlier),
            of(&self.present),
            self.unit,
            ratios.median(),
            ratios.least(),
            ratios.most()
        )
    }

    fn json(&self) -> Value {
        json!({"what": self.what, "unit": self.unit, "earlier": self.earlier.0, "present": self.present.0, "ratio": self.ratios().0})
    }
}

/// Prints the comparison, and returns it.
pub fn run(floor: &Path, (earlier, present): (&Path, &Path), names: (&str, &str)) -> Value {
    let builds = [("earlier", earlier), ("present", present)];
    let builds = builds.map(|(name, binaries)| Flock::start(name, binaries, Features::Off, WIDE));
    let [earlier, present] = &builds;
    let (exec, kernel, both) =
        (Program::alone("exec", floor), Kernel::new("kernel"), Program::with_kernel("both", floor));
    let field: [(&dyn Contestant, usize); 5] = [(earlier, 1), (present, 1), (&exec, 1), (&kernel, 1), (&both, 1)];
    alike::check(present, &kernel, &[Pod::new(), Pod::new()]);
    let mut rows: Vec<Row> = Vec::new();

    let mut calm: Vec<Row> = Vec::new();
    for verb in Verb::BOTH {
        for percent in PERCENTS {
            calm.push(Row::new(format!("{} p{percent}", verb.name()), "us"));
        }
        calm.push(Row::new(format!("{} p50 / floors of the same round", verb.name()), "x"));
    }
    for _ in 0..ROUNDS {
        let times = calls::measure(&field, CALLS);
        let of = |contestant: &dyn Contestant, verb, percent| {
            times.of(contestant.name(), verb).map_or(f64::NAN, |figures| figures.percentile(percent))
        };
        let mut at = calm.iter_mut();
        for verb in Verb::BOTH {
            for percent in PERCENTS {
                at.next().expect("a row").put(of(earlier, verb, percent), of(present, verb, percent));
            }
            let floors = of(&exec, verb, 50) + of(&kernel, verb, 50);
            at.next().expect("a row").put(of(earlier, verb, 50) / floors, of(present, verb, 50) / floors);
        }
    }
    rows.append(&mut calm);

    for callers in [8, 32] {
        let mut found: Vec<Row> = Vec::new();
        for verb in Verb::BOTH {
            found.push(Row::new(format!("{}/s, {callers} callers", verb.name()), "/s"));
            found.push(Row::new("the same / floors in the same round", "x"));
            found.push(Row::new(format!("processor time of each {}", verb.name()), "us"));
            found.push(Row::new("the same / that of the floors", "x"));
        }
        for round in 0..BURSTS {
            let mut order: Vec<(usize, &dyn Contestant)> = vec![(0, earlier), (1, present), (2, &both)];
            order.rotate_left(round % 3);
            let mut results = [None; 3];
            for (place, contestant) in order {
                results[place] = Some(bursts::run(contestant, callers));
            }
            let [earlier, present, floors] = results.map(|result| result.expect("each had its turn"));
            for (verb, rows) in found.chunks_mut(4).enumerate() {
                let (e, p, f) = (earlier[verb], present[verb], floors[verb]);
                rows[0].put(e.rate, p.rate);
                rows[1].put(e.rate / f.rate, p.rate / f.rate);
                rows[2].put(e.cpu, p.cpu);
                rows[3].put(e.cpu / f.cpu, p.cpu / f.cpu);
            }
        }
        rows.append(&mut found);
    }
    let mut memory = Row::new("agent's memory after all that", "KiB");
    memory.put(earlier.memory() as f64, present.memory() as f64);
    rows.push(memory);

    let (earlier, present) = names;
    println!(
        "\n{ROUNDS} rounds of {CALLS} pods one by one, {BURSTS} bursts of {} each; medians, and the spread of their ratios\n",
        bursts::PODS
    );
    println!("{:<34} {earlier:>10.10} {present:>10.10}        ratio", "");
    rows.iter().for_each(|row| println!("{}", row.line()));
    json!({"earlier": earlier, "present": present, "rows": rows.iter().map(Row::json).collect::<Vec<_>>()})
}
