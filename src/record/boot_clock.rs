//! The boot that this machine is in: its id, and the clock that starts with it.
//!
//! Times in state and notes are of this clock, which nobody can set back; together with the id they order events of one boot.
//! Must not be compared with times of any other clock.

use std::fs;
use std::io;

use rustix::time::{ClockId, clock_gettime};

/// The id of the present boot, a new random one each time the kernel starts.
///
/// # Errors
/// `/proc` is not mounted or not readable.
pub fn id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Milliseconds since the boot, time asleep included.
pub fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
