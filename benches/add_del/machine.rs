//! On what it was measured, and how calm that was.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// What others may use on a machine that is called calm, in percent of one processor.
const CALM: f64 = 10.0;

/// What there is to say about the machine before anything is measured.
pub struct Machine {
    pub kernel: String,
    pub processor: String,
    pub processors: usize,
    pub memory: u64,
    /// How much of one processor others used, in percent, while nothing was measured.
    pub others: f64,
}

impl Machine {
    pub fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split(':').nth(1).unwrap_or_default().trim().to_owned()
        };
        let kib = after(&read("/proc/meminfo"), "MemTotal").split(' ').next().and_then(|kib| kib.parse::<u64>().ok());
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: after(&read("/proc/cpuinfo"), "model name"),
            processors,
            memory: kib.unwrap_or_default() / 1024,
            others: busy(Duration::from_secs(1)),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Machine { kernel, processor, processors, memory, others } = self;
        let calm = if *others < CALM { "calm" } else { "NOT calm: read ratios only" };
        format!(
            "{processors} processors ({processor}), {memory} MiB, Linux {kernel}; others use {others:.0} % of one processor: {calm}"
        )
    }

    /// In half a line.
    pub fn short(&self) -> String {
        let busy = if self.others < CALM { "" } else { ", busy with other work" };
        format!("{} processors ({}), Linux {}{busy}", self.processors, self.processor, self.kernel)
    }

    /// All of it, and how busy it is by now, when the run is over.
    pub fn json(&self) -> Value {
        json!({
            "others_percent_at_the_end": busy(Duration::from_secs(1)).round(),
            "kernel": self.kernel, "processor": self.processor, "processors": self.processors, "memory_mib": self.memory,
            "others_percent_of_one_processor": (self.others * 10.0).round() / 10.0,
        })
    }
}

/// What all programs of the machine use of one processor, in percent.
fn busy(during: Duration) -> f64 {
    let idle = || {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = stat.lines().next().unwrap_or_default().to_owned();
        let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
        // All but idle and waiting for disks, in hundredths of a second.
        ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum::<f64>()
    };
    let before = idle();
    thread::sleep(during);
    (idle() - before) / during.as_secs_f64()
}
