//! One pod after the other: how long a caller waits, beside the floors and beside other plugins.

use super::{Scene, Whose, all};
use crate::call::Verb;
use crate::calls;
use crate::contestant::Contestant as _;
use crate::figures::Figures;
use crate::flock::Features;
use crate::floor::alike;
use crate::host::Pod;
use crate::peers::Families;
use crate::report::Table;

const ROUNDS: usize = 300;
/// Others take longer, and no promise is made of them.
const EVERY: usize = 3;
const PERCENTS: [usize; 3] = [50, 90, 99];

pub fn measure(scene: &mut Scene) {
    let (exec, kernel, both) = scene.floors();
    let (off, on) = (scene.flock("flock", Features::Off), scene.flock("flock, all on", Features::On));
    alike::check(&off, &kernel, &[Pod::new(), Pod::new()]);
    let peers = scene.peers(&[
        ("ptp", Whose::Newest, Families::Both),
        ("ptp", Whose::Newest, Families::Four),
        ("ptp", Whose::Debian, Families::Both),
        ("bridge", Whose::Newest, Families::Both),
        ("bridge", Whose::Debian, Families::Both),
        ("macvlan", Whose::Newest, Families::Both),
    ]);
    let mut field: Vec<(&dyn crate::contestant::Contestant, usize)> =
        vec![(&exec, 1), (&kernel, 1), (&both, 1), (&off, 1), (&on, 1)];
    field.extend(all(&peers).map(|peer| (peer, EVERY)));
    let times = calls::measure(&field, ROUNDS);

    let columns: Vec<String> =
        Verb::BOTH.iter().flat_map(|verb| PERCENTS.map(|percent| format!("{} p{percent}", verb.name()))).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let title = format!("One by one, microseconds ({ROUNDS} pods each, {} of other plugins)", ROUNDS / EVERY);
    let mut table = Table::new("calls", title, &columns);
    for (contestant, _) in &field {
        let figures = Verb::BOTH.map(|verb| times.of(contestant.name(), verb).cloned().unwrap_or_default());
        table.row(
            contestant.name(),
            figures.iter().flat_map(|figures| PERCENTS.map(|percent| figures.percentile(percent))),
        );
    }
    let of = |name: &str, verb: Verb, percent: usize| {
        times.of(name, verb).map_or(f64::NAN, |figures: &Figures| figures.percentile(percent))
    };
    let floors = |verb| of(exec.name(), verb, 50) + of(kernel.name(), verb, 50);
    let (add, del) = (of(off.name(), Verb::Add, 50), of(off.name(), Verb::Del, 50));
    scene.report.table(table);
    scene.report.at_most("ADD p50 / program + kernel", 1.2, add / floors(Verb::Add));
    scene.report.at_most("DEL p50 / program + kernel", 1.15, del / floors(Verb::Del));
    scene.report.at_most("ADD p99 / its p50", 1.6, of(off.name(), Verb::Add, 99) / add);

    let mut ratios =
        Table::new("ratios", "flock's p50 to that of others", &["ADD", "DEL", "ADD, all on", "DEL, all on"]);
    ratios.digits = 3;
    for (contestant, _) in field.iter().filter(|(contestant, _)| !contestant.name().starts_with("flock")) {
        let ratio = |flock: &str, verb| of(flock, verb, 50) / of(contestant.name(), verb, 50);
        let flocks = [off.name(), on.name()];
        ratios.row(contestant.name(), flocks.iter().flat_map(|flock| Verb::BOTH.map(|verb| ratio(flock, verb))));
    }
    let sums =
        [off.name(), on.name()].into_iter().flat_map(|flock| Verb::BOTH.map(|verb| of(flock, verb, 50) / floors(verb)));
    ratios.row("floors: program + kernel", sums);
    scene.report.table(ratios);
}
