//! What policies and checks cost: each packet, each change, each ADD, and memory; and what still passes behind a revocation. Run by
//! `make bench-policy`.
//!
//! The agent and the kernel are real; the API server is the bench's own, so that only the agent is measured. Nothing is asserted
//! but that what is measured does what it should. Times include the other programs of this machine, whose load the first line
//! says: read medians and ratios.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    unreachable_pub,
    missing_docs
)]

mod api;
mod changes;
mod cluster;
mod costs;
mod node;
mod packets;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use crate::support::moment::moment;

fn main() {
    println!("{}", moment());
    println!("| quantity | target | measured |\n|---|---|---|");
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let parts: [(&str, fn()); 6] = [
        ("packets", packets::measure),
        ("peer", changes::one_peer),
        ("whole", changes::whole_table),
        ("add", costs::add),
        ("revocation", costs::revocation),
        ("memory", costs::memory),
    ];
    let meant = |(name, _): &&(&str, fn())| named.is_empty() || named.iter().any(|named| named == name);
    parts.iter().filter(meant).for_each(|(_, part)| part());
}

fn row(quantity: &str, target: &str, measured: &str) {
    println!("| {quantity} | {target} | {measured} |");
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Median and the slowest but one in a hundred, in milliseconds.
fn spread(times: &[Duration]) -> String {
    let mut times: Vec<f64> = times.iter().copied().map(ms).collect();
    times.sort_by(f64::total_cmp);
    format!("{:.2} / {:.2} ms", times[times.len() / 2], times[times.len() * 99 / 100])
}
