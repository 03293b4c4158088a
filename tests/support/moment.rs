//! What the numbers of a benchmark depend on, for its first line.

use std::fs;
use std::thread;

/// The kernel, the processors, and how busy the machine has been in the last minute.
pub fn moment() -> String {
    let load = fs::read_to_string("/proc/loadavg").expect("readable");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let cpus = thread::available_parallelism().expect("known");
    format!("Linux {}, {cpus} CPUs, load {}", kernel.trim(), load.split(' ').next().unwrap_or_default())
}
