//! One call after the other, of each contestant in turn, with a pause before each: a node on which now and then a pod comes.

use std::thread;
use std::time::Duration;

use crate::call::Verb;
use crate::contestant::Contestant;
use crate::figures::Times;
use crate::host::Pod;

/// Before each call, so that the machine is as calm as a node, and what the last call left behind in the kernel is over.
const PAUSE: Duration = Duration::from_millis(10);

/// Rounds that nobody counts.
const WARM: usize = 3;

/// So many pods of each contestant, whose numbers begin with `first`. Those of every later round begin with another contestant.
pub fn measure(contestants: &[&dyn Contestant], rounds: usize, first: u32) -> Times {
    let mut times = Times::default();
    // All of them before the first call, and none ends before the last one: both cost the kernel work that would be counted.
    let count = u32::try_from((WARM + rounds) * contestants.len()).expect("few");
    let pods: Vec<Pod> = (first..first + count).map(Pod::new).collect();
    let mut free = pods.iter();
    for round in 0..WARM + rounds {
        for turn in 0..contestants.len() {
            let contestant = contestants[(round + turn) % contestants.len()];
            let pod = free.next().expect("enough");
            contestant.host().inside(|| {
                for verb in Verb::BOTH {
                    thread::sleep(PAUSE);
                    let took = contestant.call(verb, pod);
                    if round >= WARM {
                        times.add(contestant.name(), verb, took);
                    }
                }
            });
        }
    }
    times
}
