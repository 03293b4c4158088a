//! A thousand pods that are there already, beside none: for flock, and for the kernel alone, which has longer lists to walk.

use super::Scene;
use crate::bursts::each;
use crate::call::Verb;
use crate::calls;
use crate::contestant::Contestant;
use crate::flock::Features;
use crate::floor::Kernel;
use crate::host::Pod;
use crate::report::Table;

const ROUNDS: usize = 80;
const PODS: usize = 1000;

pub fn measure(scene: &mut Scene) {
    let flocks = [scene.flock("flock, no other pod", Features::Off), scene.flock("flock, 1000 others", Features::Off)];
    let kernels = [Kernel::new("many-none"), Kernel::new("many-1000")];
    let kernels = [Named("kernel, no other pod", &kernels[0]), Named("kernel, 1000 others", &kernels[1])];
    let standing = [Pod::some(PODS), Pod::some(PODS)];
    each(&flocks[1], Verb::Add, 8, &standing[0]);
    each(&kernels[1], Verb::Add, 8, &standing[1]);
    let field: [(&dyn Contestant, usize); 4] = [(&flocks[0], 1), (&flocks[1], 1), (&kernels[0], 1), (&kernels[1], 1)];
    let times = calls::measure(&field, ROUNDS);
    let mut table = Table::new(
        "many",
        format!("A thousand other pods, microseconds ({ROUNDS} pods each)"),
        &["ADD p50", "ADD p90", "DEL p50", "DEL p90"],
    );
    let of = |at: usize, verb, percent| {
        times.of(field[at].0.name(), verb).map_or(f64::NAN, |figures| figures.percentile(percent))
    };
    for (at, (contestant, _)) in field.iter().enumerate() {
        table.row(contestant.name(), Verb::BOTH.iter().flat_map(|verb| [50, 90].map(|percent| of(at, *verb, percent))));
    }
    scene.report.table(table);
    for verb in Verb::BOTH {
        // In microseconds, not as a ratio: what the kernel alone loses is added to whatever somebody takes who uses it.
        let [flock, kernel] = [0, 2].map(|at| of(at + 1, verb, 50) - of(at, verb, 50));
        let what = format!("{}: microseconds lost to 1000 other pods / by the kernel alone", verb.name());
        scene.report.at_most(what, 1.1, flock / kernel);
    }
}

/// Under another name.
struct Named<'a>(&'static str, &'a Kernel);

impl Contestant for Named<'_> {
    fn name(&self) -> &str {
        self.0
    }

    fn host(&self) -> &crate::host::Host {
        self.1.host()
    }

    fn call(&self, verb: Verb, pod: &Pod) -> std::time::Duration {
        self.1.call(verb, pod)
    }
}
