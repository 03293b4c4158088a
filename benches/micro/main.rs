//! The parts of flock's own code that each call passes, one by one: how long each takes (`make bench-micro`), or so many times without a
//! clock, for whoever counts instructions (`make count`).
//!
//! `flock-micro` prints a table; `flock-micro list` names, and how often each is worth counting; `flock-micro NAME TIMES` does that part as often, and nothing else but what
//! it needs beforehand. What a part needs is made anew by each program, so no part sees what another one left.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    dead_code,
    missing_docs
)]

#[path = "../../src/model/examples.rs"]
mod examples;
mod parts;

use std::time::{Duration, Instant};

use crate::parts::PARTS;

/// How long each part is repeated, in rounds, of which the fastest counts least disturbed.
const ROUND: Duration = Duration::from_millis(30);
const ROUNDS: usize = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => {
            println!("{:<62} {:>10} {:>10}", "nanoseconds each, of rounds", "least", "median");
            PARTS.iter().for_each(|part| println!("{:<62} {}", part.what, timed(&mut *(part.prepare)())));
        }
        ["list"] => PARTS.iter().for_each(|part| println!("{} {} {}", part.name, part.times, part.what)),
        [name, times] => {
            let part = PARTS.iter().find(|part| part.name == name).expect("a part, as `list` prints them");
            let mut once = (part.prepare)();
            (0..times.parse::<usize>().expect("a number")).for_each(|_| once());
        }
        _ => panic!("flock-micro [list | NAME TIMES]"),
    }
}

fn timed(once: &mut dyn FnMut()) -> String {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (began, mut times) = (Instant::now(), 0u32);
            while began.elapsed() < ROUND {
                once();
                times += 1;
            }
            began.elapsed().as_nanos() as f64 / f64::from(times)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    format!("{:>10.0} {:>10.0}", rounds[0], rounds[ROUNDS / 2])
}
