//! Many pods at once: calls a second, and the processor time of each call.

use super::{Scene, Whose, all};
use crate::bursts::{self, Burst, PODS};
use crate::contestant::Contestant;
use crate::figures::Figures;
use crate::flock::Features;
use crate::peers::Families;
use crate::report::Table;

const ROUNDS: usize = 3;
const COLUMNS: [&str; 4] = ["ADD/s", "DEL/s", "us of CPU per ADD", "us of CPU per DEL"];

pub fn measure(scene: &mut Scene) {
    let (_, _, both) = scene.floors();
    let (off, on) = (scene.flock("flock", Features::Off), scene.flock("flock, all on", Features::On));
    let peers = scene.peers(&[("ptp", Whose::Newest, Families::Both), ("bridge", Whose::Newest, Families::Both)]);
    let mut field: Vec<&dyn Contestant> = vec![&both, &off, &on];
    field.extend(all(&peers));
    for (callers, key) in [(8, "bursts 8"), (32, "bursts 32")] {
        let mut found: Vec<Vec<[Burst; 2]>> = vec![Vec::new(); field.len()];
        for round in 0..ROUNDS {
            for turn in 0..field.len() {
                let at = (round + turn) % field.len();
                found[at].push(bursts::run(field[at], callers));
            }
        }
        let title = format!("{callers} callers, {PODS} pods at once, median of {ROUNDS} bursts");
        let mut table = Table::new(key, title, &COLUMNS);
        for (contestant, bursts) in field.iter().zip(&found) {
            table.row(contestant.name(), numbers(bursts).map(|figures| figures.median()));
        }
        scene.report.table(table);
        // Of each round by itself: what disturbs one disturbs all that take part in it.
        let ratio = |column: usize, other: usize| {
            let (ours, theirs) = (&numbers(&found[1])[column], &numbers(&found[other])[column]);
            Figures(ours.0.iter().zip(&theirs.0).map(|(ours, theirs)| ours / theirs).collect()).median()
        };
        let ptp = field.iter().position(|contestant| contestant.name().starts_with("ptp"));
        for (column, verb, of_ptp) in [(0, "ADD", 9.0), (1, "DEL", 10.0)] {
            scene.report.at_least(format!("{verb}/s at {callers} callers / floors together"), 0.85, ratio(column, 0));
            if let Some(ptp) = ptp {
                scene.report.at_least(format!("{verb}/s at {callers} callers / ptp"), of_ptp, ratio(column, ptp));
            }
        }
        for (column, verb) in [(2, "ADD"), (3, "DEL")] {
            scene.report.at_most(
                format!("processor time per {verb} at {callers} callers / floors"),
                1.15,
                ratio(column, 0),
            );
        }
    }
}

/// The columns of the table, burst by burst.
fn numbers(bursts: &[[Burst; 2]]) -> [Figures; 4] {
    let column = |of: fn(&[Burst; 2]) -> f64| Figures(bursts.iter().map(of).collect());
    [column(|[add, _]| add.rate), column(|[_, del]| del.rate), column(|[add, _]| add.cpu), column(|[_, del]| del.cpu)]
}
