//! The CNI plugin: environment and standard input to one call of the agent, its answer to standard output.
//!
//! Standard output is the protocol and nothing else: written once, in full, or the exit code tells. Holds no state, takes no
//! decision about addresses or links, and must not log: a runtime drops standard error where it matters.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::record::notes::Notes;
use crate::rpc::client::{self, CallError};
use crate::rpc::message::{Request, Response};
use crate::rpc::{DEFAULT_SOCKET, plugin_limit};
use cni::env::{self, Invocation};
use cni::error::{Code, Error};
use cni::netconf::{self, Outline, STDIN_MAX};
use cni::result::WireResult;
use cni::verb::Verb;
use cni::version::{self, Version};
use model::addr::Attachment;

/// Deadline for the standard input of VERSION, 300 ms: programs send their configuration at once, and people send none.
const VERSION_STDIN: Duration = Duration::from_millis(300);

/// Deadline for the standard input of all other verbs, 5 s, or the call's own where that is earlier: a runtime may keep its end of
/// the pipe open.
const STDIN_LIMIT: Duration = Duration::from_secs(5);

/// Time for the note of a delete that the agent does not answer, 2 s. It is taken off the time that the agent gets.
const NOTE_RESERVE: Duration = Duration::from_secs(2);

/// Deadline for an agent that has taken a DEL and does not answer, 5 s; then a note is left instead.
const DEL_PATIENCE: Duration = Duration::from_secs(5);

/// A failure, with the version that its error object should have.
struct Failure {
    version: Option<Version>,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { version: None, error }
    }
}

/// Runs one call and returns the exit code: 0 for success, 1 with an error object on standard output.
pub fn run() -> ExitCode {
    let began = Instant::now();
    report_panics();
    let failure = match call(began) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(text)) => match print(&text) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        },
        Err(failure) => failure,
    };
    print(&failure.error.to_json(failure.version)).ok();
    ExitCode::FAILURE
}

/// Makes a panic a failure like any other: one error object on standard output, and exit code 1 instead of a core dump.
/// What the panic says stays unsaid, as it may hold anything.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
        let error = Error::new(Code::Internal, "flock has a defect, please report it").with_details(place);
        print(&error.to_json(None)).ok();
        std::process::exit(1);
    }));
}

/// Runs the call. Returns the text for standard output, if there is any.
fn call(began: Instant) -> Result<Option<String>, Failure> {
    let Some(invocation) = env::parse(|name| std::env::var_os(name).map(OsString::into_vec))? else {
        // Without a verb a person has started the plugin. Standard output stays empty, since a runtime takes it for an answer.
        writeln!(io::stderr(), "{}", version::about()).ok();
        return Ok(None);
    };
    let verb = invocation.verb();
    if verb == Verb::Version {
        let stdin = read_stdin(began + VERSION_STDIN, true)?;
        return Ok(Some(version::answer(&stdin)));
    }
    let deadline = began + plugin_limit(verb);
    let stdin = read_stdin(deadline.min(began + STDIN_LIMIT), false)?;
    let version = netconf::version_of(&stdin);
    let fail = |error: Error| Failure { version, error };
    let conf = netconf::outline(&stdin, verb).map_err(fail)?;
    let request = request(verb, &invocation, stdin);
    let socket = conf.socket.as_deref().unwrap_or(DEFAULT_SOCKET);
    let response = match verb {
        Verb::Del => match delete(Path::new(socket), &request, &invocation, deadline).map_err(fail)? {
            Some(response) => response,
            None => return Ok(None),
        },
        _ => client::call(Path::new(socket), &request, deadline).map_err(|error| fail(unanswered(verb, &error)))?,
    };
    let result = understand(verb, &conf, response).map_err(fail)?;
    if let Some(text) = &result
        && print(text).is_err()
    {
        // The runtime takes this ADD for failed, so the agent has to undo it.
        let undo = Request { op: Verb::Del, ..request };
        client::call(Path::new(socket), &undo, Instant::now() + plugin_limit(Verb::Del)).ok();
        return Err(fail(Error::new(Code::Io, "the result cannot be written to standard output")));
    }
    Ok(None)
}

fn request(verb: Verb, invocation: &Invocation, stdin_data: Vec<u8>) -> Request {
    let attachment = invocation.attachment();
    Request {
        op: verb,
        container_id: attachment.map(|a| a.container_id.to_string()).unwrap_or_default(),
        netns: invocation.netns().unwrap_or_default().to_owned(),
        ifname: attachment.map(|a| a.ifname.to_string()).unwrap_or_default(),
        args: invocation.args.clone(),
        path: invocation.path.clone(),
        stdin_data,
        call: (verb == Verb::Add).then(call_id),
        left_ms: None,
        sent_ms: None,
    }
}

/// A new id for this run of the plugin. Its repetitions of a call bear the same one.
fn call_id() -> String {
    let mut bytes = [0u8; 8];
    // Without random bytes the process id still tells runs apart that matter: those that repeat within seconds.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok();
    format!("{:016x}.{}", u64::from_ne_bytes(bytes), std::process::id())
}

/// DEL. Where no agent answers, a durable note takes the place of the call, and the delete counts as done: a runtime would repeat a
/// failed DEL for ever, or never.
fn delete(
    socket: &Path,
    request: &Request,
    invocation: &Invocation,
    deadline: Instant,
) -> Result<Option<Response>, Error> {
    let patience = deadline.checked_sub(NOTE_RESERVE).unwrap_or(deadline).min(Instant::now() + DEL_PATIENCE);
    // The agent may go on beside the note. An answer that it had no time would fail the delete, and there would be no note.
    let unanswered_call = match client::call_patiently(socket, request, patience, deadline) {
        Ok(response) => return Ok(Some(response)),
        Err(error @ CallError::TooLong) => return Err(unanswered(Verb::Del, &error)),
        Err(error) => error,
    };
    let Some(attachment) = invocation.attachment() else { return Err(unanswered(Verb::Del, &unanswered_call)) };
    match note(socket, request, attachment, deadline, &unanswered_call) {
        Ok(response) => Ok(response),
        Err(why) => Err(unanswered(Verb::Del, &unanswered_call).with_details(format!("{unanswered_call}; {why}"))),
    }
}

fn note(
    socket: &Path,
    request: &Request,
    attachment: &Attachment,
    deadline: Instant,
    unanswered_call: &CallError,
) -> Result<Option<Response>, crate::record::notes::NoteError> {
    let notes = Notes::beside(socket);
    let mut writing = notes.writing(deadline)?;
    // With the lock held, an agent that starts now either is seen here or reads the note. A full backlog does not count as an
    // agent: perhaps the service manager holds the socket of one that cannot start. An agent that merely has too much to do
    // finds the note in one of its rounds.
    if matches!(unanswered_call, CallError::Absent { .. })
        && let Ok(stream) = client::connect_once(socket, deadline.min(Instant::now() + client::LOOK))
    {
        drop(stream);
        // An agent takes the lock alone before it serves anybody: with the lock held, plugin and agent would wait for each other.
        drop(writing);
        let until = deadline.checked_sub(NOTE_RESERVE).unwrap_or(deadline);
        if let Ok(response) = client::call_patiently(socket, request, until, deadline) {
            return Ok(Some(response));
        }
        writing = notes.writing(deadline)?;
    }
    writing.write(attachment)?;
    Ok(None)
}

/// The CNI error of a call that the agent did not answer.
fn unanswered(verb: Verb, error: &CallError) -> Error {
    let code = match (verb, error) {
        (_, CallError::TooLong) => Code::InvalidConfig,
        (Verb::Status, _) => Code::NotAvailable,
        _ => Code::TryAgainLater,
    };
    Error::new(code, "flock-agent does not answer").with_details(error.to_string())
}

/// The agent's answer in the words of CNI, and for ADD the result in the version that was asked for.
fn understand(verb: Verb, conf: &Outline, response: Response) -> Result<Option<String>, Error> {
    if let Some(msg) = response.error.filter(|msg| !msg.is_empty()) {
        let code = response.code.map_or(Code::Internal, Code::from_number);
        return Err(Error::new(code, msg).with_details(response.details.unwrap_or_default()));
    }
    if verb != Verb::Add {
        return Ok(None);
    }
    let Some(result) = response.result else {
        return Err(Error::new(Code::Internal, "flock-agent returned no result"));
    };
    WireResult::from_json(result.get())?.to_json(conf.version).map(Some)
}

/// Standard input until its end, at most [`STDIN_MAX`] bytes, by `deadline`. With `first_value`, the deadline is no error and
/// a complete JSON value is enough.
fn read_stdin(deadline: Instant, first_value: bool) -> Result<Vec<u8>, Error> {
    let stdin = io::stdin();
    let mut bytes = Vec::new();
    let mut piece = [0u8; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if first_value => return Ok(bytes),
            Ok(0) => return Err(Error::new(Code::Io, "standard input does not end")),
            Err(rustix::io::Errno::INTR) => continue,
            _ => {}
        }
        match rustix::io::read(stdin.as_fd(), &mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(piece.get(..length).unwrap_or_default()),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) if first_value => return Ok(bytes),
            Err(error) => {
                return Err(Error::new(Code::Io, "standard input cannot be read").with_details(error.to_string()));
            }
        }
        if bytes.len() > STDIN_MAX {
            let error = Error::new(Code::InvalidConfig, "network configuration is too long");
            return Err(error.with_details(format!("more than {STDIN_MAX} bytes")));
        }
        if first_value && serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() {
            return Ok(bytes);
        }
    }
}

/// Writes all of `text` and a line end to standard output, past any buffer.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{text}\n").as_bytes())?;
    stdout.flush()
}
