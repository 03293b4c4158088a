//! Places where a test may kill, hold or fail the real agent: every step, every disk and netlink operation.
//!
//! Only with the feature `failpoints`, which refuses to compile in release; without it nothing of this file is left in the
//! binaries. Must not decide anything: a point that nobody has armed does nothing.
//!
//! The file named by the environment variable `FLOCK_FAILPOINTS` holds one line per armed point and is read at each pass, so
//! that a test can arm and disarm a running process:
//!
//! ```text
//! THREAD/POINT NTH ACTION [NUMBER]
//! ledger/disk.sync 1 kill          the first pass from now on is the end of the process, as by kill -9
//! ledger/disk.append * errno 28    every pass fails with ENOSPC
//! ledger/disk.sync * hang 5000     every pass takes 5 s, or until the line is gone
//! conn/netlink.receive 2 late      the second pass runs into its time limit
//! conn/rpc.read 1 panic            the next pass is a defect of the program
//! ```
//!
//! A thread is named up to the first hyphen (`link-events` is `link`), and `*` is any thread. If the file with
//! `.trace` behind its name exists, each pass adds its `THREAD/POINT` to it.

/// Passes a point. Does nothing without the feature.
///
/// # Errors
/// What a test has armed here; callers treat it as the failure of what follows (or of what has just been done).
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn pass(_point: &str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub use armed::pass;

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for tests; a release must not have it");

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::HashMap;
    use std::fs::{self, OpenOptions};
    use std::io::{self, Write as _};
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use crate::process::lock::Lock;

    /// How often each armed line has been passed. A `static`, since a point has no other place to count.
    static PASSED: Lock<Option<HashMap<String, u64>>> = Lock::new(None);

    /// Passes a point; see the head of this file.
    pub fn pass(point: &str) -> io::Result<()> {
        let Some(path) = std::env::var_os("FLOCK_FAILPOINTS") else { return Ok(()) };
        let path = Path::new(&path);
        let thread = thread::current();
        let thread = thread.name().unwrap_or("?").split('-').next().unwrap_or_default().to_owned();
        if let Ok(mut trace) = OpenOptions::new().append(true).open(path.with_extension("trace")) {
            trace.write_all(format!("{thread}/{point}\n").as_bytes()).ok();
        }
        let Ok(armed) = fs::read_to_string(path) else { return Ok(()) };
        for line in armed.lines() {
            let mut words = line.split_whitespace();
            let (Some(place), Some(nth), Some(action)) = (words.next(), words.next(), words.next()) else { continue };
            if !matches!(place.split_once('/'), Some((t, p)) if (t == thread || t == "*") && p == point) {
                continue;
            }
            let times = {
                let mut passed = PASSED.lock();
                let times = passed.get_or_insert_default().entry(line.into()).or_default();
                *times += 1;
                *times
            };
            if nth != "*" && nth.parse() != Ok(times) {
                continue;
            }
            let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
            match action {
                "kill" => die(path),
                "errno" => return Err(io::Error::from_raw_os_error(i32::try_from(number).unwrap_or_default())),
                "late" => return Err(io::ErrorKind::TimedOut.into()),
                #[allow(clippy::panic, reason = "a test wants to see what a defect does")]
                "panic" => std::panic::panic_any("armed"),
                "hang" => hang(path, line, Duration::from_millis(number)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends the process. The file goes first, so that the next process is not killed as well.
    fn die(path: &Path) -> ! {
        fs::remove_file(path).ok();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
        loop {
            thread::park();
        }
    }

    fn hang(path: &Path, line: &str, longest: Duration) {
        let until = Instant::now() + longest;
        while Instant::now() < until && fs::read_to_string(path).is_ok_and(|armed| armed.lines().any(|l| l == line)) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
