//! Many calls at once: how many a second, and the processor time of each.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::call::{Verb, of_children};
use crate::contestant::Contestant;
use crate::figures::micros;
use crate::host::Pod;

/// Pods of one burst.
pub const PODS: usize = 128;

/// Behind a burst, before its processor time is read: removals go on in the kernel.
const SETTLE: Duration = Duration::from_millis(150);

/// What one burst came to.
#[derive(Debug, Clone, Copy)]
pub struct Burst {
    /// Calls a second.
    pub rate: f64,
    /// Processor time of one call, of all who took part, in microseconds.
    pub cpu: f64,
}

/// All pods are attached by so many callers, then detached.
pub fn run(contestant: &dyn Contestant, callers: usize) -> [Burst; 2] {
    let pods = Pod::some(PODS);
    Verb::BOTH.map(|verb| {
        thread::sleep(SETTLE);
        let before = of_children() + contestant.resident();
        let took = each(contestant, verb, callers, &pods);
        thread::sleep(SETTLE);
        let cpu = of_children() + contestant.resident() - before;
        Burst { rate: PODS as f64 / took.as_secs_f64(), cpu: micros(cpu) / PODS as f64 }
    })
}

/// Calls for each of these pods, by so many callers; how long all of it took.
pub fn each(contestant: &dyn Contestant, verb: Verb, callers: usize, pods: &[Pod]) -> Duration {
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                contestant.host().enter();
                while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                    contestant.call(verb, pod);
                }
            });
        }
    });
    began.elapsed()
}
