//! What the kernel says of this process, under the names that Prometheus's own clients use.
//!
//! What cannot be read is left out. Must not cost more than a few reads.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// This process at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Own {
    /// Time of all processors that it has used, in seconds.
    pub cpu: Option<f64>,
    /// Memory that it has in use, in bytes.
    pub resident: Option<u64>,
    /// When it began, in seconds since 1970.
    pub began: Option<f64>,
    /// Descriptors that it has open.
    pub descriptors: Option<u64>,
    /// Descriptors that it may have open.
    pub descriptors_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Own {
    /// Asks the kernel.
    pub(super) fn now() -> Own {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let shown = Stat::read(&read("/proc/self/stat"));
        let pages = read("/proc/self/statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let boot = read("/proc/stat").lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        // The directory that is read is one of them.
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(|all| (all.count() as u64).saturating_sub(1));
        Own {
            cpu: shown.map(|stat| seconds(stat.cpu)),
            resident: pages.map(|pages| pages.saturating_mul(page_size() as u64)),
            began: shown.zip(boot).map(|(stat, boot)| seconds(stat.began) + seconds(boot * clock_ticks_per_second())),
            descriptors,
            descriptors_max: getrlimit(Resource::Nofile).current,
            threads: shown.map(|stat| stat.threads),
        }
    }
}

/// What `/proc/self/stat` says, times in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    cpu: u64,
    threads: u64,
    /// Since the boot.
    began: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Stat> {
        // The name of the program, in parentheses, may have anything in it.
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        // They are numbered from 1 on in proc_pid_stat(5), and the third one is the first behind the name.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat { cpu: field(14)? + field(15)?, threads: field(20)?, began: field(22)? })
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ticks are more years than there are")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_all_of_it() {
        let own = Own::now();
        assert!(own.cpu.is_some_and(|cpu| cpu >= 0.0));
        assert!(own.resident.is_some_and(|bytes| bytes > 1 << 20 && bytes < 1 << 33), "{own:?}");
        assert!(own.descriptors.zip(own.descriptors_max).is_some_and(|(open, most)| open >= 3 && open <= most));
        assert!(own.threads.is_some_and(|threads| threads >= 1));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        assert!(own.began.is_some_and(|began| began <= now.as_secs_f64() + 1.0 && began > 1.6e9), "{own:?}");
    }

    #[test]
    fn a_program_may_be_called_anything() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 11 5 0 0 20 0 9 0 4321 1 2 3";
        assert_eq!(Stat::read(text), Some(Stat { cpu: 16, threads: 9, began: 4321 }));
        assert_eq!((Stat::read(""), Stat::read("7 (a) S 1 7")), (None, None));
    }
}
