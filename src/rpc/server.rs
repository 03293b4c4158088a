//! The agent's side: accepts, reads one request per connection, asks the handlers in force, writes the answer.
//!
//! One thread per connection, bounded in number: when all are busy, callers wait in the socket's backlog. Stops by closing
//! the listener and waiting for the requests in service. Must not know what the verbs do.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::sockopt::socket_peercred;

use crate::cni::error::Code;
use crate::rpc::frame::{self, FrameError};
use crate::rpc::message::{Op, Request, Response, encode};
use crate::rpc::{REQUEST_ARRIVAL, agent_limit};

/// Requests in service at once, unless told otherwise.
pub const MAX_CONNECTIONS: usize = 128;

/// How long a caller may take to receive its answer.
const ANSWER_DEPARTURE: Duration = Duration::from_secs(5);

/// One request on its way.
#[derive(Debug)]
pub struct Call<'a> {
    /// What was asked.
    pub request: &'a Request,
    /// When the answer is due.
    pub deadline: Instant,
    stream: &'a UnixStream,
}

impl Call<'_> {
    /// The caller has closed its connection: nobody will read the answer.
    pub fn caller_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.stream, PollFlags::empty())];
        // A poll that fails tells nothing; the write of the answer will.
        poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
            && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

/// What answers requests. Handlers are swapped as a whole while the server runs.
pub trait Handler: Send + Sync {
    /// The answer to one request, by its deadline.
    fn handle(&self, call: &Call<'_>) -> Response;

    /// The answer could not be delivered: whoever asked does not know that it succeeded.
    fn undelivered(&self, request: &Request);
}

/// The handlers of an agent that can do nothing yet: ADD and STATUS say so, and a pod that was never added can be torn
/// down and looked at.
#[derive(Debug, Clone, Copy)]
pub struct Unready;

impl Handler for Unready {
    fn handle(&self, call: &Call<'_>) -> Response {
        match call.request.op {
            Op::Add => {
                Response::failed(Code::TryAgainLater.number(), "flock-agent is not ready", "it has just started")
            }
            Op::Status => {
                Response::failed(Code::NotAvailable.number(), "flock-agent is not ready", "it has just started")
            }
            Op::Del | Op::Check | Op::Gc => Response::done(),
        }
    }

    fn undelivered(&self, _: &Request) {}
}

/// A bound socket. Callers queue from now on, and are served once a [`Server`] has it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket could not be bound.
#[derive(Debug)]
pub enum BindError {
    /// Another agent answers there.
    InUse(PathBuf),
    /// Something that is no socket stands in its place.
    NotASocket(PathBuf),
    /// The system refused.
    Io {
        /// The path.
        path: PathBuf,
        /// Its reason.
        error: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse(path) => write!(f, "another agent listens on {}", path.display()),
            BindError::NotASocket(path) => write!(f, "{} is not a socket; move it away", path.display()),
            BindError::Io { path, error } => write!(f, "listen on {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BindError {}

impl Listener {
    /// Listens on `path`, mode 0600. A socket that a dead agent left is replaced; one that answers is not.
    ///
    /// # Errors
    /// Every variant of [`BindError`].
    pub fn bind(path: &Path) -> Result<Listener, BindError> {
        let io = |error| BindError::Io { path: path.into(), error };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.into())),
            Ok(_) if UnixStream::connect(path).is_ok() => return Err(BindError::InUse(path.into())),
            _ => {}
        }
        // Bound beside its name and renamed, so that the socket never exists with other rights, and callers never see a gap.
        let beside = path.with_extension(format!("{}", std::process::id()));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&beside).map_err(io)?;
        let settled = fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&beside, path))
            .and_then(|()| listener.set_nonblocking(true));
        match settled {
            Ok(()) => Ok(Listener { listener, path: path.into() }),
            Err(error) => {
                fs::remove_file(&beside).ok();
                Err(io(error))
            }
        }
    }
}

/// Limits of a server. [`Limits::default`] is what the agent uses.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests in service at once.
    pub connections: usize,
    /// Time for a request to arrive in full.
    pub arrival: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: MAX_CONNECTIONS, arrival: REQUEST_ARRIVAL }
    }
}

/// Something that a server noticed, for the log.
#[derive(Debug)]
pub enum Notice {
    /// A connection could not be accepted.
    Accept(io::Error),
    /// A peer that is neither root nor the agent's own user; its user id.
    Stranger(u32),
    /// A request did not arrive.
    Request(FrameError),
    /// An answer did not leave.
    Answer(FrameError),
}

/// Where notices go.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    path: PathBuf,
}

struct Shared {
    handler: Mutex<Arc<dyn Handler>>,
    gate: Gate,
    wake: OwnedFd,
    limits: Limits,
    notify: Notify,
    own_uid: u32,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Server {
    /// Serves the connections of `listener` with `handler`.
    ///
    /// # Errors
    /// The accepting thread could not be started.
    pub fn start(listener: Listener, handler: Arc<dyn Handler>, limits: Limits, notify: Notify) -> io::Result<Server> {
        let shared = Arc::new(Shared {
            handler: Mutex::new(handler),
            gate: Gate::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            limits,
            notify,
            own_uid: rustix::process::geteuid().as_raw(),
        });
        let path = listener.path;
        let listener = listener.listener;
        let theirs = shared.clone();
        let accepting = thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &theirs))?;
        Ok(Server { shared, accepting: Some(accepting), path })
    }

    /// Puts other handlers in force. Requests in service end with the ones that they began with.
    pub fn swap(&self, handler: Arc<dyn Handler>) {
        *self.shared.handler.lock().unwrap_or_else(PoisonError::into_inner) = handler;
    }

    /// Closes the listener at once and waits for the requests in service. Returns how many are still there at `deadline`.
    pub fn stop(mut self, deadline: Instant) -> usize {
        self.shared.gate.close();
        // An eventfd takes a write of 1 unless its counter is at the brim.
        rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes()).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
        fs::remove_file(&self.path).ok();
        self.shared.gate.drained(deadline)
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    while shared.gate.enter(shared.limits.connections) {
        let stream = next(listener, shared);
        let Some(stream) = stream else {
            shared.gate.leave();
            continue;
        };
        let theirs = shared.clone();
        let spawned = thread::Builder::new().name("conn".into()).spawn(move || {
            serve(stream, &theirs);
            theirs.gate.leave();
        });
        if let Err(error) = spawned {
            shared.gate.leave();
            (shared.notify)(Notice::Accept(error));
        }
    }
}

/// The next connection, or none when there is a reason to look at the gate again.
fn next(listener: &UnixListener, shared: &Shared) -> Option<UnixStream> {
    let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&shared.wake, PollFlags::IN)];
    poll(&mut fds, None).ok()?;
    match listener.accept() {
        Ok((stream, _)) => stream.set_nonblocking(false).map(|()| stream).ok(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => {
            (shared.notify)(Notice::Accept(error));
            // Out of descriptors, most likely: the connection stays in the backlog and would be reported without pause.
            let mut wake = [PollFd::new(&shared.wake, PollFlags::IN)];
            poll(&mut wake, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).ok();
            None
        }
    }
}

fn serve(mut stream: UnixStream, shared: &Shared) {
    match socket_peercred(stream.as_fd()) {
        Ok(peer) if peer.uid.is_root() || peer.uid.as_raw() == shared.own_uid => {}
        Ok(peer) => return (shared.notify)(Notice::Stranger(peer.uid.as_raw())),
        Err(error) => return (shared.notify)(Notice::Accept(error.into())),
    }
    let request = match frame::read(&mut stream, Instant::now() + shared.limits.arrival) {
        Ok(line) => serde_json::from_slice::<Request>(&line),
        Err(FrameError::TooLong) => {
            let refusal = Response::failed(Code::Decode.number(), "request refused", FrameError::TooLong.to_string());
            answer(&mut stream, &refusal).ok();
            return (shared.notify)(Notice::Request(FrameError::TooLong));
        }
        Err(error) => return (shared.notify)(Notice::Request(error)),
    };
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            let refusal =
                Response::failed(Code::Decode.number(), "request refused", format!("no request of flock: {error}"));
            answer(&mut stream, &refusal).unwrap_or_else(|error| (shared.notify)(Notice::Answer(error)));
            return;
        }
    };
    let handler = shared.handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let deadline = Instant::now() + agent_limit(request.op);
    let response = handler.handle(&Call { request: &request, deadline, stream: &stream });
    if let Err(error) = answer(&mut stream, &response) {
        (shared.notify)(Notice::Answer(error));
        if response.error.is_none() {
            handler.undelivered(&request);
        }
    }
}

fn answer(stream: &mut UnixStream, response: &Response) -> Result<(), FrameError> {
    let line = encode(response)
        .or_else(|_| encode(&Response::failed(Code::Internal.number(), "the answer cannot be encoded", "")));
    frame::write(stream, &line.unwrap_or_default(), Instant::now() + ANSWER_DEPARTURE)
}

/// Counts what is in service, and closes for good.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inside {
    count: usize,
    closed: bool,
}

impl Gate {
    /// Waits for room. False when the gate is closed.
    fn enter(&self, room: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state =
            self.changed.wait_while(state, |s| !s.closed && s.count >= room).unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return false;
        }
        state.count += 1;
        true
    }

    fn leave(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).count -= 1;
        self.changed.notify_all();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    /// How many are inside when all have left or the deadline has come.
    fn drained(&self, deadline: Instant) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, _) =
            self.changed.wait_timeout_while(state, left, |s| s.count > 0).unwrap_or_else(PoisonError::into_inner);
        state.count
    }
}
