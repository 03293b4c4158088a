//! One call after the other, of each contestant in turn, with a pause before each: a node on which now and then a pod comes.

use std::thread;
use std::time::Duration;

use crate::call::Verb;
use crate::contestant::Contestant;
use crate::figures::Times;
use crate::host::Pod;

/// Before each call, so that the machine is as calm as a node, and what the last call left behind in the kernel is over.
const PAUSE: Duration = Duration::from_millis(10);

/// Pods that are there at once, attached or not.
const BLOCK: usize = 150;
/// Behind the coming and going of as many.
const SETTLE: Duration = Duration::from_millis(300);

/// Rounds that nobody counts.
const WARM: usize = 3;

/// Who takes part, and every how many rounds.
pub type Field<'a> = [(&'a dyn Contestant, usize)];

/// So many rounds, each of which begins with another contestant.
pub fn measure(field: &Field<'_>, rounds: usize) -> Times {
    let mut times = Times::default();
    let turns: Vec<(usize, &dyn Contestant)> = (0..WARM + rounds)
        .flat_map(|round| {
            let order = (0..field.len()).map(move |turn| field[(round + turn) % field.len()]);
            order.filter(move |(_, every)| round % every == 0).map(move |(contestant, _)| (round, contestant))
        })
        .collect();
    // No pod of a block comes or goes between two calls of it: that costs the kernel work, which would be counted. And a node has a few
    // hundred of them, not thousands, with which the kernel's part takes longer.
    for block in turns.chunks(BLOCK) {
        let pods = Pod::some(block.len());
        thread::sleep(SETTLE);
        for ((round, contestant), pod) in block.iter().zip(&pods) {
            contestant.host().inside(|| {
                for verb in Verb::BOTH {
                    thread::sleep(PAUSE);
                    let took = contestant.call(verb, pod);
                    if *round >= WARM {
                        times.add(contestant.name(), verb, took);
                    }
                }
            });
        }
        drop(pods);
        thread::sleep(SETTLE);
    }
    times
}
