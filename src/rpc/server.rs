//! The agent's side: accepts, reads one request per connection, asks the handlers in force, writes the answer.
//!
//! One thread leads: it waits for the next caller, hands the lead to another thread, and serves the caller itself, so that no
//! request waits for a thread to wake. So each connection has a thread, and the gate bounds their number: when all are busy,
//! callers wait in the socket's backlog. [`Door::keep_bound`] keeps the socket at its path. A server that stops accepts no more and
//! waits for the requests in service. Must not know what the verbs do.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::process::crew::{Afterwards, Crew};
use crate::process::failpoint;
use crate::process::lock::{Held, Lock};
use crate::process::progress::Progress;
use crate::record::boot_clock;
use crate::record::disk::make_private_dir;
use crate::rpc::frame::{self, FrameError};
use crate::rpc::gate::Gate;
use crate::rpc::listener::{BindError, Listener, Standing};
use crate::rpc::message::{Incoming, Query, Request, Response, encode};
use crate::rpc::{QUERY_LIMIT, REQUEST_ARRIVAL, agent_limit, agent_share, plugin_limit};
use cni::error::Code;
use cni::verb::Verb;
use model::excerpt::Excerpt;

/// Most requests in service at once by default: more than a node has pods. When a request for each pod waits for a slow disk, there
/// is still a place for STATUS, without which the runtime would declare the node not ready.
pub const MAX_CONNECTIONS: usize = 384;

/// Length in bytes up to which a request is read into memory without waiting for a place. A usual one has two or three thousand.
pub const SMALL_REQUEST: usize = 64 * 1024;

/// Threads that stay when there is nothing to serve.
const THREADS_AT_REST: usize = 8;

/// Longest text of a refusal, in bytes.
const REFUSAL_MAX: usize = 256;

/// Most sockets at once: the present one, and former ones with callers that came before their file was removed.
const LISTENERS: usize = 8;

/// Deadline for a caller to receive its answer, 5 s.
const ANSWER_DEPARTURE: Duration = Duration::from_secs(5);

/// One request on its way.
pub struct Call<'a> {
    /// The request of the caller.
    pub request: &'a Request,
    /// Deadline for the answer.
    pub deadline: Instant,
    stream: &'a UnixStream,
    notify: &'a Notify,
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("request", self.request).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A call that has been answered, which [`Call::answer`] alone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    delivered: bool,
}

impl Answered {
    /// The answer has left. Where it has not, the caller does not know what has become of its request.
    pub fn is_delivered(self) -> bool {
        self.delivered
    }
}

impl Call<'_> {
    /// Answers. What need not be done before its caller goes on can be done afterwards.
    pub fn answer(&self, response: &Response) -> Answered {
        let sent = send(self.stream, response);
        let delivered = sent.is_ok();
        if let Err(error) = sent {
            (self.notify)(Notice::Answer(error));
        }
        Answered { delivered }
    }

    /// Whether the caller has closed its connection, so that nobody will read the answer.
    pub fn caller_gone(&self) -> bool {
        let mut fds = [PollFd::new(self.stream, PollFlags::empty())];
        // A poll that fails tells nothing; the write of the answer will.
        poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
            && fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

/// The handlers of requests. [`Server::swap`] puts others in force while the server runs.
pub trait Handler: Send + Sync {
    /// Answers one request, by its deadline.
    fn handle(&self, call: &Call<'_>) -> Answered;

    /// The answer to an operator's question, by this deadline.
    fn answer(&self, query: &Query, deadline: Instant) -> Response;
}

/// The handlers of an agent that can do nothing yet: ADD and STATUS say so, and a pod that was never added can be torn
/// down and looked at.
#[derive(Debug, Clone, Copy)]
pub struct Unready;

impl Handler for Unready {
    fn handle(&self, call: &Call<'_>) -> Answered {
        call.answer(&match call.request.op {
            Verb::Add => {
                Response::failed(Code::TryAgainLater.number(), "flock-agent is not ready", "it has just started")
            }
            Verb::Status | Verb::Version => {
                Response::failed(Code::NotAvailable.number(), "flock-agent is not ready", "it has just started")
            }
            Verb::Del | Verb::Check | Verb::Gc => Response::done(),
        })
    }

    fn answer(&self, _: &Query, _: Instant) -> Response {
        Response::failed(Code::NotAvailable.number(), "flock-agent is not ready", "it has just started")
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

/// Something that the server noticed, for the log.
#[derive(Debug)]
pub enum Notice {
    /// A connection could not be accepted.
    Accept(io::Error),
    /// A caller that is neither root nor the agent's own user was turned away.
    ForeignUid {
        /// Its user id.
        uid: u32,
        /// Its process id, where it is one that the agent can see.
        pid: Option<i32>,
    },
    /// A request did not arrive.
    Request(FrameError),
    /// A request was not carried out: its caller had gone before it began.
    Abandoned(Verb),
    /// An answer did not leave.
    Answer(FrameError),
    /// Somebody had changed the permissions of the socket to these.
    Mode(u32),
}

/// Where notices go.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    /// Tells when nobody leads any more.
    led: Receiver<Infallible>,
}

struct Shared {
    handler: Lock<Arc<dyn Handler>>,
    crew: Crew,
    gate: Gate,
    path: PathBuf,
    entrance: Lock<Entrance>,
    wake: OwnedFd,
    progress: Progress,
    limits: Limits,
    notify: Notify,
    own_uid: u32,
}

/// The sockets where callers come in.
struct Entrance {
    /// The last one is bound to the path. Former ones are kept as long as callers wait in them.
    listeners: Vec<Arc<UnixListener>>,
    standing: Standing,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Server {
    /// Serves the connections of `listener` with `handler`.
    ///
    /// # Errors
    /// The first thread could not be started.
    pub fn start(listener: Listener, handler: Arc<dyn Handler>, limits: Limits, notify: Notify) -> io::Result<Server> {
        let Listener { listener, path, standing } = listener;
        let shared = Arc::new(Shared {
            handler: Lock::new(handler),
            crew: Crew::new("conn", THREADS_AT_REST),
            gate: Gate::default(),
            path,
            entrance: Lock::new(Entrance { listeners: vec![Arc::new(listener)], standing }),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            progress: Progress::default(),
            limits,
            notify,
            own_uid: rustix::process::geteuid().as_raw(),
        });
        let (alive, led) = channel();
        Lead { shared: shared.clone(), alive }.hand_over()?;
        Ok(Server { shared, led })
    }

    /// The progress of the thread that leads, which is at rest while it waits for callers and at work while it waits for room.
    pub fn progress(&self) -> Progress {
        self.shared.progress.clone()
    }

    /// A handle that keeps the socket at its path while the server runs. For one thread.
    pub fn door(&self) -> Door {
        Door(self.shared.clone())
    }

    /// How many requests are in service, for whoever counts.
    pub fn load(&self) -> Load {
        Load(self.shared.clone())
    }

    /// Puts other handlers in force. Requests in service end with the ones that they began with.
    pub fn swap(&self, handler: Arc<dyn Handler>) {
        *self.shared.handler.lock() = handler;
    }

    /// Stops accepting at once and waits for the requests in service. Returns how many are still there at `deadline`.
    ///
    /// Callers in the backlog of a socket of the service manager wait there for the next agent; others see the end of their
    /// connection and try again.
    pub fn stop(self, deadline: Instant) -> usize {
        self.shared.gate.close();
        self.shared.wake();
        // Nothing is ever sent: it ends with the last sender.
        self.led.recv().ok();
        let standing = self.shared.entrance().standing;
        self.shared.leave_path(standing);
        self.shared.gate.drained(deadline)
    }
}

impl Shared {
    fn entrance(&self) -> Held<'_, Entrance> {
        self.entrance.lock()
    }

    /// Makes the thread that leads look at what has changed.
    fn wake(&self) {
        // Writing 1 to an eventfd fails only when its counter is full, and then it wakes all the same.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }

    /// Removes the socket from its path if the agent has bound it, and nobody has put another one there since.
    fn leave_path(&self, standing: Standing) {
        if let Standing::Own(identity) = standing
            && fs::symlink_metadata(&self.path).is_ok_and(|found| identity.is(&found))
        {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// How much there is to do.
pub struct Load(Arc<Shared>);

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Load").field(&self.in_service()).finish()
    }
}

impl Load {
    /// Requests in service.
    pub fn in_service(&self) -> usize {
        self.0.gate.count()
    }

    /// Most requests that are in service at once.
    pub fn most(&self) -> usize {
        self.0.limits.connections
    }
}

/// Keeps the socket at its path: a file can be removed, replaced or made another's by whoever tidies up a directory, and an
/// agent whose socket has no name is alive and deaf.
pub struct Door(Arc<Shared>);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Door").field(&self.0.path).finish()
    }
}

impl Door {
    /// Compares what stands at the path with what was bound there, and binds a new socket where it is gone. True if it had to
    /// be bound again. When all is well, this is one look at one file. Callers that wait in the former socket are served.
    ///
    /// Where the service manager's socket has lost its file, one of the agent's own stands there until the manager binds anew:
    /// to end instead would not help, since the manager hands the same nameless socket to the next agent.
    ///
    /// # Errors
    /// Another agent listens there by now, something else stands in the place, or the system refuses. No new caller
    /// reaches the agent then.
    pub fn keep_bound(&mut self) -> Result<bool, BindError> {
        let shared = &self.0;
        let path = &shared.path;
        let standing = shared.entrance().standing;
        if shared.gate.is_closed() {
            return Ok(false);
        }
        if let (Ok(found), Some(identity)) = (fs::symlink_metadata(path), standing.identity())
            && identity.is(&found)
        {
            let mode = found.mode() & 0o7777;
            if mode != identity.mode {
                fs::set_permissions(path, fs::Permissions::from_mode(identity.mode))
                    .map_err(|error| BindError::Io { path: path.clone(), error })?;
                (shared.notify)(Notice::Mode(mode));
            }
            return Ok(false);
        }
        path.parent().map_or(Ok(()), make_private_dir).map_err(BindError::Directory)?;
        let bound = Listener::bind(path)?;
        let mut entrance = shared.entrance();
        // Under the lock: a server that stops takes it after this and removes what is noted here.
        if shared.gate.is_closed() {
            drop(entrance);
            shared.leave_path(bound.standing);
            return Ok(false);
        }
        entrance.standing = bound.standing;
        // Somebody may have called the former socket a moment ago.
        let former = entrance.listeners.pop();
        entrance.listeners.retain(|listener| is_called(listener));
        entrance.listeners.extend(former.into_iter().chain([Arc::new(bound.listener)]));
        let surplus = entrance.listeners.len().saturating_sub(LISTENERS);
        entrance.listeners.drain(..surplus);
        drop(entrance);
        shared.wake();
        Ok(true)
    }
}

/// Whether a caller waits in the backlog of `listener`.
fn is_called(listener: &UnixListener) -> bool {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// The lead: the right to take callers out of the backlog, which one thread has at a time.
struct Lead {
    shared: Arc<Shared>,
    /// Goes when the lead ends.
    alive: Sender<Infallible>,
}

impl Lead {
    /// Gives the lead to a thread of its own.
    fn hand_over(self) -> io::Result<()> {
        let crew = self.shared.crew.clone();
        crew.begin(move || {
            self.take();
            Afterwards::Stay
        })
    }

    /// Takes the next caller, hands the lead over and serves.
    fn take(self) {
        // Room is made only when a caller is there, and no caller is taken out of the backlog before there is room.
        while let Some(listeners) = await_caller(&self.shared) {
            let shared = self.shared.clone();
            if !shared.gate.enter(shared.limits.connections) {
                return;
            }
            let Some(stream) = listeners.iter().find_map(|listener| next(listener, &shared)) else {
                shared.gate.leave();
                continue;
            };
            let stream = Arc::new(stream);
            shared.gate.arrives(&stream);
            let next = Lead { shared: self.shared.clone(), alive: self.alive.clone() };
            match next.hand_over() {
                Ok(()) => {
                    // Whoever stops the server waits for those who lead, and not here for those who serve.
                    drop(self);
                    serve(&stream, &shared);
                    shared.gate.arrived(&stream);
                    return shared.gate.leave();
                }
                Err(error) => {
                    shared.gate.arrived(&stream);
                    shared.gate.leave();
                    (shared.notify)(Notice::Accept(error));
                }
            }
        }
    }
}

/// Waits until somebody wants to connect. Returns the sockets to accept from, the oldest first; none when the gate is closed.
fn await_caller(shared: &Shared) -> Option<Vec<Arc<UnixListener>>> {
    loop {
        let listeners = shared.entrance().listeners.clone();
        let called = listeners.iter().map(|listener| PollFd::new(&**listener, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = [PollFd::new(&shared.wake, PollFlags::IN)].into_iter().chain(called).collect();
        // A poll fails when a signal interrupts it, and then shows no caller.
        shared.progress.resting(|| poll(&mut fds, None)).ok();
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let (woken, called) = (ready.next().unwrap_or(false), ready.any(|ready| ready));
        drop(fds);
        if shared.gate.is_closed() {
            return None;
        }
        if woken {
            // Whoever wrote there has changed the listeners or closed the gate.
            rustix::io::read(&shared.wake, &mut [0u8; 8]).ok();
        }
        if called {
            return Some(listeners);
        }
    }
}

/// The next connection, if there is one.
fn next(listener: &UnixListener, shared: &Shared) -> Option<UnixStream> {
    match listener.accept() {
        // It does not take over that the listener does not block (accept(2)).
        Ok((stream, _)) => Some(stream),
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

fn serve(stream: &UnixStream, shared: &Shared) {
    // The user decides, whatever the process: the kernel gives process id 0 for a caller outside of the agent's pid namespace, as
    // every caller is when the agent runs in a container. (rustix 1.1 has a type that cannot be zero, and makes an error of it.)
    match getsockopt(stream, PeerCredentials) {
        Ok(peer) if peer.uid() == 0 || peer.uid() == shared.own_uid => {}
        Ok(peer) => {
            let pid = Some(peer.pid()).filter(|pid| *pid != 0);
            return (shared.notify)(Notice::ForeignUid { uid: peer.uid(), pid });
        }
        Err(error) => return (shared.notify)(Notice::Accept(error.into())),
    }
    let until = Instant::now() + shared.limits.arrival;
    // The right to be large is given back when the request has been answered.
    let mut _large = None;
    let line = frame::read_admitted(stream, until, SMALL_REQUEST, || {
        _large = shared.gate.admit_large(stream, until);
        _large.is_some()
    });
    shared.gate.arrived(stream);
    let request = match line {
        Ok(line) => Incoming::read(&line),
        Err(FrameError::TooLong) => {
            let refusal = Response::failed(Code::Decode.number(), "request refused", FrameError::TooLong.to_string());
            send(stream, &refusal).ok();
            return (shared.notify)(Notice::Request(FrameError::TooLong));
        }
        Err(error) => return (shared.notify)(Notice::Request(error)),
    };
    let request = match request {
        Ok(Incoming::Request(request)) => request,
        Ok(Incoming::Query(query)) => {
            let handler = shared.handler.lock().clone();
            let response = handler.answer(&query, Instant::now() + agent_share(QUERY_LIMIT));
            return send(stream, &response).unwrap_or_else(|error| (shared.notify)(Notice::Answer(error)));
        }
        Err(error) => {
            // The text can repeat what the caller wrote, and that can be long.
            let why = Excerpt::line(&format!("no request of flock: {error}"), REFUSAL_MAX);
            let refusal = Response::not_understood(Code::Decode.number(), why);
            send(stream, &refusal).unwrap_or_else(|error| (shared.notify)(Notice::Answer(error)));
            return;
        }
    };
    let handler = shared.handler.lock().clone();
    failpoint::pass("rpc.read").ok();
    let deadline = Instant::now() + time_for(&request, boot_clock::now_ms());
    let call = Call { request: &request, deadline, stream, notify: &shared.notify };
    // The request waited in the backlog, or while the agent was restarted, and its plugin gave up or was killed. Nobody would learn
    // what is done now: an ADD would have to be taken back, and a DEL is not lost, since a plugin that gives up has noted it on
    // disk, and the runtime repeats a DEL whose plugin was killed.
    if call.caller_gone() {
        return (shared.notify)(Notice::Abandoned(request.op));
    }
    handler.handle(&call);
}

/// How long the agent may work on a request, at `now` of the boot clock. What its caller has left counts from when it was sent, so
/// that nothing is done for longer than somebody waits for it.
fn time_for(request: &Request, now: u64) -> Duration {
    let own = agent_limit(request.op);
    let Some(left) = request.left_ms else { return own };
    // A longer wait than the plugin's limit means that the caller has another clock, as in a time namespace.
    let waited = request.sent_ms.and_then(|sent| now.checked_sub(sent)).map(Duration::from_millis);
    let waited = waited.filter(|waited| *waited <= plugin_limit(request.op)).unwrap_or_default();
    agent_share(Duration::from_millis(left).saturating_sub(waited)).min(own)
}

fn send(stream: &UnixStream, response: &Response) -> Result<(), FrameError> {
    let line = encode(response)
        .or_else(|_| encode(&Response::failed(Code::Internal.number(), "the answer cannot be encoded", "")));
    failpoint::pass("rpc.answer").map_err(FrameError::Io)?;
    frame::write(stream, &line.unwrap_or_default(), Instant::now() + ANSWER_DEPARTURE)?;
    // The outcome is ignored: an answer that has left counts as taken, and nothing can fail any more.
    failpoint::pass("rpc.answered").ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_for_longer_than_somebody_waits_for_it() {
        let request = |left_ms, sent_ms| Request {
            op: Verb::Add,
            container_id: String::new(),
            netns: String::new(),
            ifname: String::new(),
            args: String::new(),
            path: String::new(),
            stdin_data: Vec::new(),
            call: None,
            left_ms,
            sent_ms,
        };
        let own = agent_limit(Verb::Add);
        let share = |ms| agent_share(Duration::from_millis(ms));
        for (left, sent, expected) in [
            // A plugin of an earlier version, and the Go flock's, say nothing.
            (None, None, own),
            (None, Some(99_000), own),
            (Some(4000), Some(100_000), share(4000)),
            // In the backlog for three seconds.
            (Some(4000), Some(97_000), share(1000)),
            (Some(4000), Some(95_000), Duration::ZERO),
            (Some(0), Some(100_000), Duration::ZERO),
            // More than the agent gives to anybody.
            (Some(u64::MAX), Some(100_000), own),
            (Some(u64::MAX), Some(u64::MAX), own),
            // Another clock, ahead or behind.
            (Some(4000), None, share(4000)),
            (Some(4000), Some(200_000), share(4000)),
            (Some(4000), Some(1), share(4000)),
        ] {
            assert_eq!(time_for(&request(left, sent), 100_000), expected, "{left:?} {sent:?}");
        }
    }
}
