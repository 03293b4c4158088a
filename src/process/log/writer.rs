//! The writing end: standard error, which may be a pipe that nobody reads, or a full disk.
//!
//! Lines stay whole, and what could not be written is counted and said. Must not be used by any thread that others wait for.

use std::env;
use std::io;
use std::os::fd::AsFd as _;
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::process::log::line::{Level, Line, Style};

/// The environment variable by which systemd says what its journal reads, as `systemd.exec(5)` has it: device and inode.
const JOURNAL: &str = "JOURNAL_STREAM";

/// The writing end.
pub(super) struct Writer {
    style: Style,
    /// Lines that are missing at this point and have not been said.
    lost: u64,
    /// The end of a line whose beginning is written: it comes first when there is room again, so that lines stay whole.
    rest: Vec<u8>,
}

impl Writer {
    pub(super) fn new(style: Style) -> Writer {
        Writer { style, lost: 0, rest: Vec::new() }
    }

    /// Writes a line, and before it how many lines are missing.
    pub(super) fn write(&mut self, dropped: u64, line: Option<(&Line, SystemTime)>) {
        self.lost += dropped;
        let mut bytes = std::mem::take(&mut self.rest);
        let begun = bytes.len();
        if self.lost > 0 {
            let gap = Line::new(Level::Warn, "log lines were dropped, standard error did not take them", true);
            let gap = gap.number("lines_dropped", self.lost);
            bytes.extend(self.style.show(&gap, SystemTime::now()).into_bytes());
        }
        if let Some((line, at)) = line {
            bytes.extend(self.style.show(line, at).into_bytes());
        }
        let gone = put(&bytes);
        if gone > begun || gone == bytes.len() {
            self.lost = 0;
            bytes.drain(..gone);
        } else {
            self.lost += u64::from(line.is_some());
            bytes.truncate(begun);
            bytes.drain(..gone);
        }
        self.rest = bytes;
    }
}

/// Whether standard error is the journal: a variable that is inherited may be of another process's.
pub(super) fn is_journal() -> bool {
    let Ok(said) = env::var(JOURNAL) else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| said == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Writes to standard error, however long that takes. Returns how many bytes were written until an error.
pub(super) fn put(bytes: &[u8]) -> usize {
    let stderr = io::stderr();
    let mut gone = 0;
    while let Some(rest) = bytes.get(gone..).filter(|rest| !rest.is_empty()) {
        match rustix::io::write(stderr.as_fd(), rest) {
            Ok(length) if length > 0 => gone += length,
            Err(Errno::INTR) => {}
            // Another process that shares standard error has made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None)),
            _ => break,
        }
    }
    gone
}
