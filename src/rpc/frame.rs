//! One line over a stream, with a length limit and a deadline that a slow peer cannot stretch.
//!
//! Must not know what a line says.

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::rpc::FRAME_MAX;

/// Why no frame was exchanged.
#[derive(Debug)]
pub enum FrameError {
    /// The peer closed the connection before the frame was complete; how many bytes had come.
    Closed(usize),
    /// The deadline passed; how many bytes had come or gone.
    Late(usize),
    /// The frame is longer than [`FRAME_MAX`].
    TooLong,
    /// The connection failed.
    Io(io::Error),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Closed(bytes) => write!(f, "connection closed after {bytes} bytes"),
            FrameError::Late(bytes) => write!(f, "time limit reached after {bytes} bytes"),
            FrameError::TooLong => write!(f, "message is longer than {FRAME_MAX} bytes"),
            FrameError::Io(error) => write!(f, "connection failed: {error}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads up to a line end, which is not returned. Bytes behind it are ignored.
///
/// # Errors
/// Every variant of [`FrameError`].
pub fn read(stream: &UnixStream, deadline: Instant) -> Result<Vec<u8>, FrameError> {
    read_admitted(stream, deadline, FRAME_MAX, || true)
}

/// As [`read`]. Before the frame grows beyond `small` bytes, `admit` is asked once; if it says no, the frame is
/// [`FrameError::Late`].
///
/// # Errors
/// Every variant of [`FrameError`].
pub fn read_admitted(
    mut stream: &UnixStream,
    deadline: Instant,
    small: usize,
    admit: impl FnOnce() -> bool,
) -> Result<Vec<u8>, FrameError> {
    let mut admit = Some(admit);
    let mut frame = Vec::new();
    let mut piece = [0u8; 16 * 1024];
    loop {
        if !ready(stream, PollFlags::IN, deadline).map_err(FrameError::Io)? {
            return Err(FrameError::Late(frame.len()));
        }
        let piece = match stream.read(&mut piece) {
            Ok(0) => return Err(FrameError::Closed(frame.len())),
            Ok(length) => piece.get(..length).unwrap_or_default(),
            Err(error) if is_passing(&error) => continue,
            Err(error) if is_closed(&error) => return Err(FrameError::Closed(frame.len())),
            Err(error) => return Err(FrameError::Io(error)),
        };
        if frame.len() + piece.len() > small && admit.take().is_some_and(|admit| !admit()) {
            return Err(FrameError::Late(frame.len()));
        }
        let end = piece.iter().position(|byte| *byte == b'\n');
        frame.extend_from_slice(piece.get(..end.unwrap_or(piece.len())).unwrap_or_default());
        if frame.len() >= FRAME_MAX {
            return Err(FrameError::TooLong);
        }
        if end.is_some() {
            return Ok(frame);
        }
    }
}

/// Writes a frame, line end included.
///
/// # Errors
/// Every variant of [`FrameError`]; part of the frame may have gone.
pub fn write(stream: &UnixStream, frame: &[u8], deadline: Instant) -> Result<(), FrameError> {
    if frame.len() > FRAME_MAX {
        return Err(FrameError::TooLong);
    }
    let mut gone = 0;
    while let Some(rest) = frame.get(gone..).filter(|rest| !rest.is_empty()) {
        if !ready(stream, PollFlags::OUT, deadline).map_err(FrameError::Io)? {
            return Err(FrameError::Late(gone));
        }
        // As much as fits now: a blocking write would wait for room for all of it.
        match send(stream, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(io::Error::from) {
            Ok(length) => gone += length,
            Err(error) if is_passing(&error) => {}
            Err(error) if is_closed(&error) => return Err(FrameError::Closed(gone)),
            Err(error) => return Err(FrameError::Io(error)),
        }
    }
    Ok(())
}

/// Waits until something can be read or written, which includes the end of the connection. False at `deadline`.
///
/// The socket's own time limits are not used: the kernel keeps them by coarse timers, which are late by as much as an eighth, some
/// seconds for an ADD.
fn ready(stream: &UnixStream, what: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(stream, what)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the operation can be tried again, at once or when the stream is ready again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
