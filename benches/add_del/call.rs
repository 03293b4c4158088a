//! A program, called as a container runtime calls a plugin: an environment with nothing else in it, three pipes, and a wait for its end.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Add,
    Del,
}

impl Verb {
    pub const BOTH: [Verb; 2] = [Verb::Add, Verb::Del];

    pub fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
        }
    }
}

/// Runs it, which has to succeed: from before its start to behind its end, and what it printed.
pub fn call(command: &mut Command, input: &[u8]) -> (Duration, Vec<u8>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("waitable");
    let took = began.elapsed();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    (took, output.stdout)
}

/// The processor time of all programs that have been called and have ended.
pub fn of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("known");
    let total = usage.user_time() + usage.system_time();
    Duration::from_micros(total.num_microseconds().unsigned_abs())
}
