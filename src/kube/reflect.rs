//! Drives one watch machine: carries out its orders with the client, and tells each change of its objects.
//!
//! One thread per kind. A change is told once, and in order: an audience that keeps its own view of the objects keeps it from the
//! first change on. Must not know what the objects mean.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use crate::kube::client::{Answer, Client, Download, KubeError, StreamError, Watch};
use crate::kube::explained;
use crate::kube::kind::{Kind, Objects};
use crate::kube::watch::{Changes, End, Flow, Listing, Machine, Order, Reply, WatchNotice};

/// Longest list that is read, 1 GiB: a hundred thousand pods of some kilobytes each. One object at a time is held as it came.
const LIST_MAX: usize = 1 << 30;

/// How much of a list is read at once, 16 KiB.
const PIECE: usize = 16 << 10;

/// Longest silence of a watch, 150 s. The server sends a bookmark about once a minute: silent for longer, the connection is dead.
const IDLE: Duration = Duration::from_secs(150);

/// What a reflector tells.
pub trait Audience<T> {
    /// The objects have changed, or are complete for the first time, which they are before anything is told. `objects` are all of
    /// them: whoever keeps a clone makes the next change copy the set, at a cost that grows with it.
    fn changed(&mut self, changes: Changes<T>, objects: &Arc<Objects<T>>);
    /// Something for the log.
    fn notice(&mut self, notice: WatchNotice);
    /// The server has said something, news or not.
    fn heard(&mut self) {}
}

/// Lists and watches until the sender of `stop` is dropped, or the client is shut down, which interrupts a request in flight.
/// Nothing else ends it. Of what is asked for in the middle of a watch, the end waits for the next line, which is a minute at most;
/// in the middle of a list, for the next piece of it.
/// Returns the objects that the audience knows of at the end.
pub fn reflect<K: Kind>(
    client: &Client,
    kind: K,
    stop: &Receiver<()>,
    audience: &mut impl Audience<K::Object>,
) -> Arc<Objects<K::Object>> {
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut machine = Machine::new(kind);
    let mut moves = client.moves();
    loop {
        // An answer of another server than the one that was meant is not looked at.
        if client.moves() != moves {
            moves = client.moves();
            machine.elsewhere();
        }
        let mut wait = Duration::ZERO;
        match machine.next(now(), chance()) {
            Order::Pause(until) => wait = Duration::from_millis(until.saturating_sub(now())),
            Order::List(path) => {
                let Some(outcome) = list(client, &path, &machine, stop) else { break };
                if client.moves() == moves {
                    if outcome.is_ok() {
                        audience.heard();
                    }
                    machine.listed(outcome, now(), chance());
                }
            }
            Order::Watch(path) => match client.watch(&path, machine.form(), IDLE) {
                Ok(_) if client.moves() != moves => {}
                Ok(Watch::Stream(mut lines)) => {
                    let end = loop {
                        match lines.next() {
                            Ok(Some(line)) => {
                                audience.heard();
                                let flow = machine.line(&line, now(), chance());
                                publish(&mut machine, audience);
                                if flow == Flow::Stop || is_dropped(stop) {
                                    break None;
                                }
                            }
                            Ok(None) => break Some(End::Closed),
                            Err(StreamError::Idle(_)) => break Some(End::Silent),
                            Err(_) => break Some(End::Closed),
                        }
                    };
                    if let Some(end) = end {
                        machine.ended(&end, now(), chance());
                    }
                }
                Ok(Watch::Refused(answer)) => machine.not_watching(&reply(Ok(answer)), now(), chance()),
                Err(KubeError::Stopped) => break,
                Err(error) => machine.not_watching(&reply(Err(error)), now(), chance()),
            },
        }
        match stop.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
        publish(&mut machine, audience);
    }
    publish(&mut machine, audience);
    machine.objects().clone()
}

/// The body of a list as long as somebody wants it: it may be long, and what has been read of it is in memory.
struct Wanted<'a, R> {
    body: R,
    stop: &'a Receiver<()>,
}

impl<R: Read> Read for Wanted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if is_dropped(self.stop) {
            return Err(io::Error::other("nobody wants it any more"));
        }
        self.body.read(buffer)
    }
}

/// Whether the sender is gone, which ends a watch.
pub fn is_dropped(stop: &Receiver<()>) -> bool {
    stop.try_recv() == Err(TryRecvError::Disconnected)
}

/// What a LIST came to; none when the client was shut down, or nobody wants it any more.
fn list<K: Kind>(
    client: &Client,
    path: &str,
    machine: &Machine<K>,
    stop: &Receiver<()>,
) -> Option<Result<Listing<K::Object>, Reply>> {
    let mut body = match client.download(path, machine.form(), LIST_MAX) {
        Ok(Download::Body(body)) => body,
        Ok(Download::Refused(answer)) => return Some(Err(reply(Ok(answer)))),
        Err(KubeError::Stopped) => return None,
        Err(error) => return Some(Err(reply(Err(error)))),
    };
    let read = machine.read(BufReader::with_capacity(PIECE, Wanted { body: &mut body, stop }));
    if is_dropped(stop) {
        return None;
    }
    // What the network did explains what is missing.
    match body.failure() {
        Some(KubeError::Stopped) => None,
        Some(error) => Some(Err(reply(Err(error)))),
        None => Some(read.map_err(Reply::Broken)),
    }
}

fn publish<K: Kind>(machine: &mut Machine<K>, audience: &mut impl Audience<K::Object>) {
    for notice in machine.notices() {
        audience.notice(notice);
    }
    if let Some(changes) = machine.changes() {
        audience.changed(changes, machine.objects());
    }
}

fn reply(outcome: Result<Answer, KubeError>) -> Reply {
    match outcome {
        Ok(answer) => Reply::Status {
            code: answer.status,
            retry_after: answer.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            body: answer.body,
        },
        // The server restarts, and its versions are as good as before.
        Err(KubeError::Io { server, error }) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Reply::Refused(format!("cannot talk to {server}: {error}"))
        }
        Err(error) => Reply::Broken(explained(&error)),
    }
}

/// A random number, for jitter.
pub fn chance() -> u64 {
    let mut bytes = [0u8; 8];
    // A poor random number makes poor jitter, and nothing worse.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    u64::from_ne_bytes(bytes)
}
