//! Runs another program and reads its output: with a time limit, a bound on the output, and an end from another thread.
//!
//! The only place that runs other programs. What a program printed never becomes part of an error. Must not know what the
//! programs are for.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::process::shutdown::{Stop, Stoppable};

/// Limits of one run.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    /// Longest time from the start of the program to its end.
    pub time: Duration,
    /// Longest standard output, in bytes.
    pub output: usize,
}

/// A program that did not say anything that could be used.
#[derive(Debug)]
pub enum ProgramError {
    /// It could not be started or listened to.
    Io(io::Error),
    /// It did not end in time.
    TooSlow(Duration),
    /// It printed more than this many bytes.
    TooLong(usize),
    /// It ended with this status, which is no success.
    Failed(ExitStatus),
    /// It was ended, since [`Stop`] was closed.
    Stopped,
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProgramError::Io(_) => f.write_str("cannot be run"),
            ProgramError::TooSlow(limit) => write!(f, "did not end within {} s", limit.as_secs()),
            ProgramError::TooLong(limit) => write!(f, "printed more than {limit} bytes"),
            ProgramError::Failed(status) => write!(f, "failed with {status}"),
            ProgramError::Stopped => f.write_str("the client was shut down"),
        }
    }
}

impl std::error::Error for ProgramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ProgramError::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Runs the program at `path` and returns what it printed. `prepare` sets arguments, environment and standard error;
/// `input`, which has to fit into a pipe, is its standard input.
///
/// # Errors
/// Every variant of [`ProgramError`]. The program and its children have been killed then.
pub fn output(
    path: &Path,
    prepare: impl FnOnce(&mut Command),
    input: &[u8],
    limits: RunLimits,
    stop: &Stop,
) -> Result<Vec<u8>, ProgramError> {
    let mut command = Command::new(path);
    prepare(&mut command);
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() }).stdout(Stdio::piped());
    let mut child = command.process_group(0).spawn().map_err(ProgramError::Io)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that has ended already needs no input.
        stdin.write_all(input).ok();
    }
    let listened = listen(&mut child, limits, stop);
    if listened.is_err() {
        // The whole group is killed: a shell's own children would otherwise go on. The program is not reaped yet, so nobody
        // else has its number.
        kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
    }
    let status = child.wait().map_err(ProgramError::Io);
    let output = listened?;
    let status = status?;
    if status.success() { Ok(output) } else { Err(ProgramError::Failed(status)) }
}

/// The running program, which another thread can end.
struct Running(OwnedFd);

impl Stoppable for Running {
    fn stop(&self) {
        pidfd_send_signal(&self.0, Signal::KILL).ok();
    }
}

/// Reads until the program has ended. Programs that it left behind may hold the pipe open: they are not waited for.
fn listen(child: &mut Child, limits: RunLimits, stop: &Stop) -> Result<Vec<u8>, ProgramError> {
    let io = |error: rustix::io::Errno| ProgramError::Io(error.into());
    let deadline = Instant::now() + limits.time;
    let running = Arc::new(Running(pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(io)?));
    let part = Arc::downgrade(&running) as Weak<dyn Stoppable>;
    stop.register(part).map_err(|_| ProgramError::Stopped)?;
    let mut stdout: Option<ChildStdout> = child.stdout.take();
    let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| ProgramError::TooSlow(limits.time))?;
        let (ready, ended, readable) = match &stdout {
            Some(pipe) => {
                let mut fds = [PollFd::new(&running.0, PollFlags::IN), PollFd::new(pipe, PollFlags::IN)];
                let ready = poll(&mut fds, Some(&left));
                let [end, pipe] = &fds;
                (ready, !end.revents().is_empty(), !pipe.revents().is_empty())
            }
            None => {
                let mut fds = [PollFd::new(&running.0, PollFlags::IN)];
                let ready = poll(&mut fds, Some(&left));
                let [end] = &fds;
                (ready, !end.revents().is_empty(), false)
            }
        };
        match ready {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io(error)),
            Ok(0) => return Err(ProgramError::TooSlow(limits.time)),
            Ok(_) => {}
        }
        if stop.is_stopped() {
            return Err(ProgramError::Stopped);
        }
        match stdout.as_mut().filter(|_| readable) {
            Some(pipe) => match pipe.read(&mut buffer) {
                Ok(0) => stdout = None,
                Ok(len) => output.extend(buffer.iter().take(len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ProgramError::Io(error)),
            },
            None if ended => return Ok(output),
            None => {}
        }
        if output.len() > limits.output {
            return Err(ProgramError::TooLong(limits.output));
        }
    }
}
