//! Reads what the kernel announces to a socket, in bursts: most of it is about what flock itself does, and each message by itself
//! would wake a thread at the cost of whoever makes the kernel speak. An ADD causes twenty.
//!
//! Must not know what an announcement says.

use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use netlink_sys::Socket;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::process::failpoint;

/// Pause after a burst, 5 ms, in which the kernel keeps what it announces for the next one. What is announced to a reader at rest
/// is read at once.
pub(in crate::kernel) const PAUSE: Duration = Duration::from_millis(5);

/// A socket that only listens.
pub(in crate::kernel) struct Hearing {
    socket: Socket,
    buffer: Vec<u8>,
    /// There may be more of the present burst.
    awake: bool,
    /// The point that a test may fail at each message.
    point: &'static str,
}

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum Unheard {
    /// The kernel had more to say than it keeps.
    Lost,
    /// The socket is of no more use.
    Over,
}

impl Hearing {
    /// Listens to `socket`, whose announcements have at most `longest` bytes.
    pub(in crate::kernel) fn new(socket: Socket, longest: usize, point: &'static str) -> Hearing {
        Hearing { socket, buffer: Vec::with_capacity(longest), awake: false, point }
    }

    /// Waits for the next datagram. After each burst it calls `rest`, which must not take longer than [`PAUSE`]; [`rest`] is for a
    /// reader for whom nobody waits.
    pub(in crate::kernel) fn next(&mut self, mut rest: impl FnMut()) -> Result<&[u8], Unheard> {
        loop {
            self.buffer.clear();
            let flags = if self.awake { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
            let received = self.socket.recv(&mut self.buffer, flags.bits().cast_signed());
            match received.and_then(|_| failpoint::pass(self.point)) {
                Ok(()) => {
                    self.awake = true;
                    return Ok(&self.buffer);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.awake = false;
                    rest();
                }
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                    // What was kept is still to be read.
                    self.awake = true;
                    return Err(Unheard::Lost);
                }
                Err(_) => return Err(Unheard::Over),
            }
        }
    }
}

/// Takes as long as a rest may.
pub(in crate::kernel) fn rest() {
    thread::sleep(PAUSE);
}
