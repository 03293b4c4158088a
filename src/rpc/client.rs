//! The caller's side: one call of the plugin, within its deadline, over as many connections as it takes while the agent restarts;
//! or one question of an operator.
//!
//! Must not know what is asked, nor decide what a call without an answer means: the plugin does.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::record::boot_clock;
use crate::rpc::frame::{self, FrameError};
use crate::rpc::message::{Query, Request, Response, encode};
use crate::rpc::{FRAME_MAX, connect_limit};

/// Pause between two tries to connect, 20 ms.
const PAUSE: Duration = Duration::from_millis(20);

/// Pause before a call that was lost is repeated, 100 ms. Where the service manager holds the socket, the next connection succeeds
/// at once, and what has ended the agent should not meet the next one a moment later.
const LOST_PAUSE: Duration = Duration::from_millis(100);

/// Deadline for seeing whether somebody listens, 100 ms. A socket that has room takes a connection at once.
pub const LOOK: Duration = Duration::from_millis(100);

/// Number of connections on which a call may be lost before it counts as failed: an agent that dies of a request is not asked for
/// ever.
pub const MAX_LOST: u32 = 3;

/// Why there is no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nobody listens.
    Absent {
        /// The socket.
        socket: PathBuf,
        /// The last reason.
        error: io::Error,
    },
    /// The agent took the request and went away, each time.
    Lost {
        /// The socket.
        socket: PathBuf,
        /// The last reason.
        error: FrameError,
    },
    /// The agent took the request and did not answer in time.
    Late {
        /// The socket.
        socket: PathBuf,
    },
    /// The answer is no message.
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The request is longer than a frame can be.
    TooLong,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Absent { socket, error } => {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => "there is no such socket".to_owned(),
                    io::ErrorKind::ConnectionRefused => "nobody has it open".to_owned(),
                    io::ErrorKind::WouldBlock => "it holds as many waiting calls as it can".to_owned(),
                    io::ErrorKind::PermissionDenied => "only root and the agent's own user may call it".to_owned(),
                    _ => error.to_string(),
                };
                write!(
                    f,
                    "flock-agent does not listen on {}: {why}; systemctl status flock-agent tells whether it runs",
                    socket.display()
                )
            }
            CallError::Lost { socket, error } => {
                write!(f, "flock-agent on {} went away during the call: {error}", socket.display())
            }
            CallError::Late { socket } => {
                write!(f, "flock-agent on {} did not answer in time", socket.display())
            }
            CallError::Garbled { socket, why } => {
                write!(f, "the answer of flock-agent on {} could not be read: {why}", socket.display())
            }
            CallError::TooLong => write!(f, "the request is longer than {FRAME_MAX} bytes"),
        }
    }
}

impl std::error::Error for CallError {}

/// Sends `request` to the agent on `socket` and returns its answer.
///
/// A socket that is missing or refuses is tried again for as long as [`connect_limit`] says; a connection that ends without
/// an answer is replaced by a new one, twice: the agent restarts. Everything ends by `deadline`.
///
/// # Errors
/// Every variant of [`CallError`].
pub fn call(socket: &Path, request: &Request, deadline: Instant) -> Result<Response, CallError> {
    call_patiently(socket, request, deadline, deadline)
}

/// As [`call`], but the request lets the agent work on it until `wanted`, which is later than `deadline`: for a caller that does
/// something else after `deadline`, and has no use for an answer that there was no time.
///
/// # Errors
/// Every variant of [`CallError`].
pub fn call_patiently(
    socket: &Path,
    request: &Request,
    deadline: Instant,
    wanted: Instant,
) -> Result<Response, CallError> {
    let late = || CallError::Late { socket: socket.into() };
    let mut request = request.clone();
    // A request that no frame can hold fails before anybody is connected to.
    timed(&mut request, wanted)?;
    let mut lost = 0;
    loop {
        let stream = reach(socket, deadline.min(Instant::now() + connect_limit(request.op)))?;
        let line = timed(&mut request, wanted)?;
        let answer = frame::write(&stream, &line, deadline).and_then(|()| frame::read(&stream, deadline));
        match answer {
            Ok(line) => {
                let garbled =
                    |why: serde_json::Error| CallError::Garbled { socket: socket.into(), why: why.to_string() };
                return serde_json::from_slice(&line).map_err(garbled);
            }
            Err(FrameError::Late(_)) => return Err(late()),
            Err(FrameError::TooLong) => {
                return Err(CallError::Garbled { socket: socket.into(), why: FrameError::TooLong.to_string() });
            }
            Err(error @ (FrameError::Closed(_) | FrameError::Io(_))) => {
                lost += 1;
                if lost >= MAX_LOST {
                    return Err(CallError::Lost { socket: socket.into(), error });
                }
                thread::sleep(LOST_PAUSE.min(deadline.saturating_duration_since(Instant::now())));
            }
        }
    }
}

/// Asks the agent on `socket` an operator's question, once: somebody watches, and can ask again. An agent that does not listen is
/// waited for no longer than `patience`.
///
/// # Errors
/// Every variant of [`CallError`].
pub fn ask(socket: &Path, query: &Query, patience: Duration, deadline: Instant) -> Result<Response, CallError> {
    let line = query.encode().map_err(|_| CallError::TooLong)?;
    let stream = reach(socket, deadline.min(Instant::now() + patience))?;
    let socket = || socket.to_path_buf();
    let answer = frame::write(&stream, &line, deadline).and_then(|()| frame::read(&stream, deadline));
    let answer = answer.map_err(|error| match error {
        FrameError::Late(_) => CallError::Late { socket: socket() },
        FrameError::TooLong => CallError::Garbled { socket: socket(), why: error.to_string() },
        FrameError::Closed(_) | FrameError::Io(_) => CallError::Lost { socket: socket(), error },
    })?;
    serde_json::from_slice(&answer).map_err(|why| CallError::Garbled { socket: socket(), why: why.to_string() })
}

/// The request as a line that is sent now.
fn timed(request: &mut Request, wanted: Instant) -> Result<Vec<u8>, CallError> {
    let left = wanted.saturating_duration_since(Instant::now());
    request.left_ms = u64::try_from(left.as_millis()).ok();
    request.sent_ms = Some(boot_clock::now_ms());
    let line = encode(request).map_err(|_| CallError::TooLong)?;
    if line.len() > FRAME_MAX { Err(CallError::TooLong) } else { Ok(line) }
}

/// A connection, by `until`.
fn reach(socket: &Path, until: Instant) -> Result<UnixStream, CallError> {
    loop {
        match connect_once(socket, until) {
            Ok(stream) => return Ok(stream),
            // Who must not connect now must not in a moment either.
            Err(error) if Instant::now() + PAUSE >= until || error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(CallError::Absent { socket: socket.into(), error });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// A connection at the first try, by `until`.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if somebody listens whose backlog stayed full; nobody does otherwise, unless a signal came.
pub fn connect_once(socket: &Path, until: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connecting to a socket with a full backlog blocks, and the send timeout is what bounds it.
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    set_socket_timeout(fd.as_fd(), Timeout::Send, Some(left))?;
    connect(&fd, &address)?;
    Ok(UnixStream::from(fd))
}
