//! The line between plugin and agent, each end against a peer that does not behave.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cni::verb::Verb;
use flock::rpc::client::{CallError, ask, call};
use flock::rpc::gate::LARGE_REQUESTS;
use flock::rpc::listener::{BindError, Listener};
use flock::rpc::message::{Explanation, Passage, Query, QueryOp, Request, Response, encode};
use flock::rpc::server::{Answered, Call, Handler, Limits, Notice, Server, Unready};
use flock::rpc::{FRAME_MAX, agent_limit, connect_limit, plugin_limit};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde_json::{Value, json};

use crate::support::dice::Dice;
use crate::support::host::{HOST4, HOST6, Host, one_user_only};
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, FLOCK_AGENT, put_copy, put_script, succeed};
use crate::support::scripted::{self, Scripted, a_result, line, read_request, socket_of};
use crate::support::temp::TempDir;
use crate::support::waiting::{PATIENCE, wait_for};

const OPS: [Verb; 5] = [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status];

/// More than any of the short waits below can take on a loaded machine, and far less than the limits that would hide a fault.
const SOON: Duration = Duration::from_secs(10);

/// What a busy machine takes to start a process and to hear of its end.
const START: Duration = Duration::from_secs(5);

fn request(op: Verb) -> Request {
    Request {
        op,
        container_id: "abc".into(),
        netns: "/run/netns/x".into(),
        ifname: "eth0".into(),
        args: String::new(),
        path: String::new(),
        stdin_data: br#"{"cniVersion":"1.1.0","name":"flock"}"#.to_vec(),
        call: None,
        left_ms: None,
        sent_ms: None,
    }
}

fn status(socket: &Path) -> Result<Response, CallError> {
    call(socket, &request(Verb::Status), Instant::now() + SOON)
}

// ---------------------------------------------------------------------------------------------------------------------
// The client.

/// Calls a server that does `serve` with its connections, and returns what came of it and how many connections there were.
fn against(
    serve: impl Fn(usize, UnixStream) + Send + Sync + 'static,
    limit: Duration,
) -> (Result<Response, CallError>, usize) {
    let dir = TempDir::new("client");
    let socket = dir.path().join("s");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = Scripted::start(&socket, move |number, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        serve(number, stream);
    });
    let outcome = call(&socket, &request(Verb::Check), Instant::now() + limit);
    let count = count.load(Ordering::SeqCst);
    drop(server);
    (outcome, count)
}

fn failed(response: &Response) -> (Option<u32>, Option<&str>) {
    (response.code, response.error.as_deref())
}

// covers: P-01
#[test]
fn the_client_waits_for_an_answer_that_comes_late_or_in_pieces_and_ignores_what_follows_it() {
    let answer = line(&json!({"error": "x", "code": 7}));
    let pieces = answer.clone();
    let (outcome, count) = against(
        move |_, mut stream| {
            read_request(&stream);
            for byte in &pieces {
                stream.write_all(&[*byte]).unwrap();
                thread::yield_now();
            }
        },
        SOON,
    );
    assert_eq!((failed(&outcome.unwrap()), count), ((Some(7), Some("x")), 1));

    let tail = [&answer[..], b"{\"result\":1}\nxyz"].concat();
    let (outcome, _) = against(
        move |_, mut stream| {
            read_request(&stream);
            // Not a wait for a fact: lateness is what is tried.
            thread::sleep(Duration::from_millis(200));
            stream.write_all(&tail).unwrap();
        },
        SOON,
    );
    assert_eq!(failed(&outcome.unwrap()), (Some(7), Some("x")));
}

// covers: P-01
#[test]
fn the_client_gives_up_on_an_agent_that_hangs_up_again_and_again() {
    let half = |bytes: &'static [u8]| {
        move |_: usize, mut stream: UnixStream| {
            read_request(&stream);
            stream.write_all(bytes).unwrap();
        }
    };
    for (outcome, count) in [
        against(half(b""), SOON),
        against(half(b"{\"resu"), SOON),
        against(half(b"{}"), SOON),
        against(|_, _| {}, SOON),
    ] {
        assert!(matches!(outcome, Err(CallError::Lost { .. })), "{outcome:?}");
        assert_eq!(count, 3);
    }
    let twice = |number: usize, mut stream: UnixStream| {
        read_request(&stream);
        if number == 2 {
            stream.write_all(b"{}\n").unwrap();
        }
    };
    assert!(against(twice, SOON).0.is_ok(), "the third connection counts");
}

// covers: P-01
#[test]
fn the_client_takes_garbage_for_no_answer_and_does_not_ask_again() {
    let endless = Arc::new(vec![b' '; FRAME_MAX + 1]);
    for bytes in
        [&b"\n"[..], b"garbage\n", b"\xff\xfe\n", b"[]x\n", b"{\"code\":\"x\"}\n", b"{\"error\":7}\n", &endless]
    {
        let bytes = bytes.to_vec();
        let (outcome, count) = against(
            move |_, mut stream| {
                read_request(&stream);
                stream.write_all(&bytes).ok();
            },
            SOON,
        );
        assert!(matches!(outcome, Err(CallError::Garbled { .. })), "{outcome:?}");
        assert_eq!(count, 1, "what it did is not known, and it may have done it");
    }
}

// covers: P-01
#[test]
fn the_clients_deadline_holds_against_every_kind_of_silence() {
    let limit = Duration::from_millis(300);
    type Serve = Box<dyn Fn(usize, UnixStream) + Send + Sync>;
    let silences: [Serve; 2] = [
        Box::new(|_, stream| scripted::wait_for_end(stream)),
        Box::new(|_, mut stream| {
            while stream.write_all(b" ").is_ok() {
                // A peer that is slow, but never quiet.
                thread::sleep(Duration::from_millis(5));
            }
        }),
    ];
    for serve in silences {
        let began = Instant::now();
        let (outcome, _) = against(serve, limit);
        assert!(matches!(outcome, Err(CallError::Late { .. })), "{outcome:?}");
        assert!(began.elapsed() < SOON);
    }
    // One that does not even read, behind a request that no buffer takes.
    let dir = TempDir::new("deaf");
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let large = Request { stdin_data: vec![b'x'; 1 << 20], ..request(Verb::Check) };
    let outcome = call(&socket, &large, Instant::now() + limit);
    assert!(matches!(outcome, Err(CallError::Late { .. })), "{outcome:?}");
    drop(listener);
}

// covers: P-01 P-06
#[test]
fn the_client_tries_for_a_while_to_reach_an_agent_and_no_longer() {
    let dir = TempDir::new("reach");
    let absent = dir.path().join("absent");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let dead = dir.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    // A backlog without room, and nobody who accepts.
    let full = dir.path().join("full");
    let fd = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&fd, &rustix::net::SocketAddrUnix::new(&full).unwrap()).unwrap();
    rustix::net::listen(&fd, 0).unwrap();
    let _first = UnixStream::connect(&full).unwrap();
    thread::scope(|scope| {
        for socket in [&absent, &file, &dead, &full] {
            scope.spawn(move || {
                let began = Instant::now();
                let outcome = call(socket, &request(Verb::Del), Instant::now() + Duration::from_secs(30));
                let (took, limit) = (began.elapsed(), connect_limit(Verb::Del));
                assert!(matches!(outcome, Err(CallError::Absent { .. })), "{outcome:?}");
                assert!(took >= limit / 2 && took < limit + SOON, "{} {took:?}", socket.display());
            });
        }
    });
}

#[test]
fn the_client_refuses_what_no_frame_can_hold() {
    let large = Request { stdin_data: vec![b'x'; FRAME_MAX], ..request(Verb::Add) };
    let outcome = call(Path::new("/nonexistent/s"), &large, Instant::now() + SOON);
    assert!(matches!(outcome, Err(CallError::TooLong)), "{outcome:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// The server.

/// Answers at once, but ADD only when told to, and DEL with as much as asked.
struct Answers {
    name: &'static str,
    begun: Sender<()>,
    go: Mutex<Receiver<()>>,
    undelivered: Sender<Verb>,
}

/// The other ends of [`Answers`].
struct Controls {
    begun: Receiver<()>,
    go: Sender<()>,
    undelivered: Receiver<Verb>,
}

fn answers(name: &'static str) -> (Arc<Answers>, Controls) {
    let (begun, has_begun) = channel();
    let (go, may_go) = channel();
    let (undelivered, was_not) = channel();
    let handler = Answers { name, begun, go: Mutex::new(may_go), undelivered };
    (Arc::new(handler), Controls { begun: has_begun, go, undelivered: was_not })
}

impl Handler for Answers {
    fn handle(&self, call: &Call<'_>) -> Answered {
        if call.request.op == Verb::Add {
            self.begun.send(()).unwrap();
            // Or until the test has ended.
            self.go.lock().unwrap().recv().ok();
            if call.caller_gone() {
                return call.answer(&Response::failed(11, "caller has gone", ""));
            }
        }
        let raw = |value: Value| serde_json::value::to_raw_value(&value).ok();
        let answered = call.answer(&match call.request.op {
            Verb::Del => {
                Response { result: raw(json!("x".repeat(call.request.path.len() * 1024))), ..Response::done() }
            }
            _ => Response { result: raw(json!(self.name)), ..Response::done() },
        });
        if !answered.is_delivered() {
            self.undelivered.send(call.request.op).unwrap();
        }
        answered
    }

    fn answer(&self, query: &Query, _: Instant) -> Response {
        let Query::Passage(Passage { from, to, .. }) = query else { panic!("nobody asks {query:?}") };
        let explanation = Explanation { passes: true, text: format!("{from} to {to}") };
        Response::told(&explanation).expect("encodes")
    }
}

struct Serving {
    _dir: TempDir,
    socket: PathBuf,
    server: Server,
    notices: Arc<Mutex<Vec<String>>>,
}

fn serve(handler: Arc<dyn Handler>, limits: Limits) -> Serving {
    let dir = TempDir::new("server");
    let socket = dir.path().join("s");
    let notices: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = notices.clone();
    let notify = Arc::new(move |notice: Notice| sink.lock().unwrap().push(format!("{notice:?}")));
    let server = Server::start(Listener::bind(&socket).unwrap(), handler, limits, notify).unwrap();
    Serving { _dir: dir, socket, server, notices }
}

fn brisk() -> Limits {
    Limits { connections: 4, arrival: Duration::from_millis(300) }
}

fn name_of(response: &Response) -> String {
    serde_json::from_str(response.result.as_ref().expect("a result").get()).unwrap()
}

/// What the server says before it hangs up, which it must.
fn rest(mut stream: UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the server does not hang up"),
        _ => bytes,
    }
}

// covers: P-01 P-03 FM-F03
#[test]
fn the_server_cuts_off_who_is_slow_or_silent_and_answers_everybody_else() {
    let serving = serve(answers("a").0, brisk());
    let connect = || UnixStream::connect(&serving.socket).unwrap();
    let began = Instant::now();
    // One that never ends its line, one that says nothing, one that goes on byte by byte for ever.
    let mut no_end = connect();
    no_end.write_all(br#"{"op":"STATUS""#).unwrap();
    let silent = connect();
    let mut slow = connect();
    assert!(status(&serving.socket).is_ok(), "answered beside them");
    while slow.write_all(b" ").is_ok() {
        assert!(began.elapsed() < PATIENCE, "a byte now and then must not hold a place for ever");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rest(no_end), b"");
    assert_eq!(rest(silent), b"");
    assert!(status(&serving.socket).is_ok());
    let late = || serving.notices.lock().unwrap().iter().filter(|n| n.contains("Late")).count();
    wait_for("three notices", || (late() == 3).then_some(()));
}

// covers: P-01 P-03
#[test]
fn the_server_serves_a_request_that_comes_byte_by_byte_in_time() {
    let serving = serve(answers("a").0, Limits::default());
    let mut stream = UnixStream::connect(&serving.socket).unwrap();
    for byte in encode(&request(Verb::Status)).unwrap() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_request(&stream), Some(json!({"result": "a"})));
}

// covers: P-01 P-02 P-03
#[test]
fn the_server_says_what_is_wrong_with_a_request_and_goes_on() {
    let serving = serve(answers("a").0, brisk());
    let mut dice = Dice::new(1, 1);
    let random: Vec<u8> = std::iter::repeat_with(|| dice.next().to_le_bytes())
        .flatten()
        .map(|byte| if byte == b'\n' { 0 } else { byte })
        .take(100_000)
        .collect();
    let deep = "[".repeat(100_000);
    for bad in [
        &b""[..],
        b"{}",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"\0\0\0",
        br#"{"op":"FLY"}"#,
        br#"{"op":"add"}"#,
        br#"{"op":7}"#,
        br#"{"op":"DEL","container_id":7}"#,
        br#"{"op":"DEL","stdin_data":"not base64!"}"#,
        &random,
        deep.as_bytes(),
    ] {
        let mut stream = UnixStream::connect(&serving.socket).unwrap();
        stream.write_all(bad).unwrap();
        stream.write_all(b"\n").unwrap();
        let answer = read_request(&stream).expect("an answer");
        assert_eq!(answer["code"], 6, "{} {answer}", String::from_utf8_lossy(&bad[..bad.len().min(40)]));
        assert!(answer["error"].as_str().is_some_and(|text| !text.is_empty()));
    }
    // Unknown keys, and fewer than we send.
    let answer = scripted::ask(&serving.socket, &json!({"op": "STATUS", "later": [1], "call": null}));
    assert_eq!(answer, Some(json!({"result": "a"})));
    assert!(status(&serving.socket).is_ok());
}

// covers: P-01 FM-F03
#[test]
fn the_server_bounds_a_frame() {
    let serving = serve(answers("a").0, Limits::default());
    let mut stream = UnixStream::connect(&serving.socket).unwrap();
    let piece = vec![b' '; 1 << 16];
    let mut sent = 0;
    while sent < 100 << 20 && stream.write_all(&piece).is_ok() {
        sent += piece.len();
    }
    assert!(sent < 8 << 20, "{sent} bytes were taken");
    // The refusal, unless the kernel dropped it with the rest.
    let said = rest(stream);
    assert!(said.is_empty() || serde_json::from_slice::<Value>(&said).unwrap()["code"] == 6);
    // The longest that is allowed.
    let mut longest = br#"{"op":"STATUS"}"#.to_vec();
    longest.resize(FRAME_MAX - 1, b' ');
    longest.push(b'\n');
    let mut stream = UnixStream::connect(&serving.socket).unwrap();
    stream.write_all(&longest).unwrap();
    assert_eq!(read_request(&stream), Some(json!({"result": "a"})));
}

// covers: P-01
#[test]
fn more_callers_than_places_wait_their_turn_and_idle_ones_lose_theirs() {
    let serving = serve(answers("a").0, brisk());
    let idle: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&serving.socket).unwrap()).collect();
    let gone: Vec<UnixStream> = (0..20).map(|_| UnixStream::connect(&serving.socket).unwrap()).collect();
    drop(gone);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert!(status(&serving.socket).is_ok()));
        }
    });
    for stream in idle {
        assert_eq!(rest(stream), b"");
    }
}

// covers: P-01 A-12 P-05
#[test]
fn the_handler_hears_that_its_answer_was_not_taken() {
    let (handler, controls) = answers("a");
    let serving = serve(handler, Limits::default());
    // Gone before the answer.
    let mut stream = UnixStream::connect(&serving.socket).unwrap();
    stream.write_all(&encode(&request(Verb::Add)).unwrap()).unwrap();
    controls.begun.recv_timeout(PATIENCE).unwrap();
    drop(stream);
    controls.go.send(()).unwrap();
    // A failure needs no undoing; a success that went nowhere does, here one that the caller never reads.
    let mut stream = UnixStream::connect(&serving.socket).unwrap();
    let large = Request { path: "x".repeat(1500), ..request(Verb::Del) };
    stream.write_all(&encode(&large).unwrap()).unwrap();
    assert_eq!(controls.undelivered.recv_timeout(PATIENCE), Ok(Verb::Del));
    // And one that no frame can hold.
    let larger = Request { path: "x".repeat(2100), ..request(Verb::Del) };
    let mut other = UnixStream::connect(&serving.socket).unwrap();
    other.write_all(&encode(&larger).unwrap()).unwrap();
    assert_eq!(controls.undelivered.recv_timeout(PATIENCE), Ok(Verb::Del));
    assert_eq!(rest(other), b"");
    drop(stream);
    assert!(status(&serving.socket).is_ok());
    assert!(controls.undelivered.try_recv().is_err());
}

// covers: P-01
#[test]
fn who_is_silent_gives_way_to_who_has_something_to_ask_and_a_request_in_service_to_nobody() {
    let (handler, controls) = answers("a");
    // A time for arrival that none of this can wait for.
    let serving = serve(handler, Limits { connections: 4, arrival: Duration::from_secs(600) });
    let adding: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = UnixStream::connect(&serving.socket).unwrap();
            stream.write_all(&encode(&request(Verb::Add)).unwrap()).unwrap();
            controls.begun.recv_timeout(PATIENCE).unwrap();
            stream
        })
        .collect();
    let half = Request { stdin_data: vec![b'x'; 100_000], ..request(Verb::Add) };
    let half = encode(&half).unwrap();
    let idle: Vec<UnixStream> = (0..40)
        .map(|number| {
            let mut stream = UnixStream::connect(&serving.socket).unwrap();
            // Nothing, half a small request, half a large one.
            let said = [0, 10, half.len() / 2][number % 3];
            // On a busy machine it may have given way before it says anything.
            stream.write_all(&half[..said]).ok();
            stream
        })
        .collect();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(status(&serving.socket).is_ok()));
        }
    });
    // The last of the silent ones may stay: nobody needs its place.
    for stream in idle.into_iter().take(39) {
        assert_eq!(rest(stream), b"");
    }
    // Whichever of the three handlers hears it first.
    adding.iter().for_each(|_| controls.go.send(()).unwrap());
    for stream in adding {
        assert_eq!(read_request(&stream), Some(json!({"result": "a"})));
    }
}

// covers: P-01
#[test]
fn a_few_large_requests_are_read_at_a_time_and_small_ones_beside_them() {
    let serving = serve(answers("a").0, Limits::default());
    let large = encode(&Request { stdin_data: vec![b'x'; FRAME_MAX / 2], ..request(Verb::Status) }).unwrap();
    // As many as may be in memory at once, and none of them ends.
    let mut begun: Vec<UnixStream> = (0..LARGE_REQUESTS)
        .map(|_| {
            let mut stream = UnixStream::connect(&serving.socket).unwrap();
            stream.write_all(&large[..large.len() - 1]).unwrap();
            stream
        })
        .collect();
    let mut next = UnixStream::connect(&serving.socket).unwrap();
    next.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(next.write_all(&large).is_err(), "it is not read yet");
    assert!(status(&serving.socket).is_ok());
    begun[0].write_all(b"\n").unwrap();
    assert_eq!(read_request(&begun[0]), Some(json!({"result": "a"})));
    // A place is free, and gone again when a caller hangs up.
    for _ in 0..3 {
        drop(begun.pop());
        let large: Request = serde_json::from_slice(&large).unwrap();
        assert!(call(&serving.socket, &large, Instant::now() + SOON).is_ok());
    }
}

// covers: P-05
#[test]
fn a_request_whose_caller_has_gone_while_it_waited_is_not_begun() {
    let (handler, controls) = answers("a");
    let serving = serve(handler, Limits { connections: 1, ..Limits::default() });
    let send = || {
        let mut stream = UnixStream::connect(&serving.socket).unwrap();
        stream.write_all(&encode(&request(Verb::Add)).unwrap()).unwrap();
        stream
    };
    let first = send();
    controls.begun.recv_timeout(PATIENCE).unwrap();
    // By itself, since a program that another test is just starting may have a copy of it for a moment.
    (0..2).for_each(|_| send().shutdown(Shutdown::Both).unwrap());
    // Who only has no more to say is still there.
    let half_closed = send();
    half_closed.shutdown(Shutdown::Write).unwrap();
    let done = Some(json!({"result": "a"}));
    for stream in [first, half_closed] {
        controls.go.send(()).unwrap();
        assert_eq!(read_request(&stream), done);
    }
    controls.begun.recv_timeout(PATIENCE).unwrap();
    assert!(controls.begun.try_recv().is_err(), "two were begun, and two not");
    let notices = serving.notices.lock().unwrap();
    assert_eq!(*notices, ["Abandoned(Add)", "Abandoned(Add)"]);
}

#[test]
fn an_operators_question_is_answered_while_calls_of_the_plugin_wait() {
    let (handler, controls) = answers("a");
    let serving = serve(handler, Limits::default());
    thread::scope(|scope| {
        let add = scope.spawn(|| call(&serving.socket, &request(Verb::Add), Instant::now() + PATIENCE));
        controls.begun.recv_timeout(PATIENCE).unwrap();
        let (from, to) = ("a/b".into(), "node".into());
        let query = Query::Passage(Passage { op: QueryOp::Explain, from, to, port: None });
        let answer = ask(&serving.socket, &query, PATIENCE, Instant::now() + PATIENCE).unwrap();
        let said: Explanation = serde_json::from_str(answer.result.unwrap().get()).unwrap();
        assert_eq!(said, Explanation { passes: true, text: "a/b to node".into() });
        // In the words of a later program, of which this agent does not understand one.
        let mut stream = UnixStream::connect(&serving.socket).unwrap();
        stream.write_all(b"{\"op\":\"EXPLAIN\",\"from\":\"a/b\",\"to\":\"node\",\"via\":\"c\"}\n").unwrap();
        let mut refusal = String::new();
        stream.read_to_string(&mut refusal).unwrap();
        assert!(refusal.contains("unknown field `via`") && refusal.contains("\"code\":6"), "{refusal}");
        let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(refusal.contains(&version), "whoever is not understood learns by which version: {refusal}");
        controls.go.send(()).unwrap();
        add.join().unwrap().unwrap();
    });
}

/// Keeps each request waiting until it is told to go on, and tells how long it may take.
struct Timed {
    allowed: Sender<Duration>,
    go: Mutex<Receiver<()>>,
}

impl Handler for Timed {
    fn handle(&self, call: &Call<'_>) -> Answered {
        self.allowed.send(call.deadline.saturating_duration_since(Instant::now())).unwrap();
        self.go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        call.answer(&Response::done())
    }

    fn answer(&self, _: &Query, _: Instant) -> Response {
        unreachable!("nobody asks")
    }
}

// covers: FM-Q17
#[test]
fn the_time_that_a_call_waits_for_its_turn_is_taken_off_its_time() {
    let (allowed, was_allowed) = channel();
    let (go, may_go) = channel();
    let handler = Arc::new(Timed { allowed, go: Mutex::new(may_go) });
    let serving = serve(handler, Limits { connections: 1, ..Limits::default() });
    thread::scope(|scope| {
        let first = scope.spawn(|| call(&serving.socket, &request(Verb::Add), Instant::now() + PATIENCE));
        let allowed = was_allowed.recv_timeout(PATIENCE).unwrap();
        assert!(allowed <= agent_limit(Verb::Add), "no longer than the agent gives to anybody: {allowed:?}");
        let began = Instant::now();
        let limit = Duration::from_secs(10);
        let socket = &serving.socket;
        let second = scope.spawn(move || call(socket, &request(Verb::Add), began + limit));
        // Not a wait for a fact: time that passes is what is tried.
        thread::sleep(Duration::from_secs(2));
        let waited = began.elapsed();
        go.send(()).unwrap();
        let allowed = was_allowed.recv_timeout(PATIENCE).unwrap();
        assert!(allowed < limit - waited, "{allowed:?} after {waited:?}");
        assert!(allowed > Duration::from_secs(1), "{allowed:?}");
        go.send(()).unwrap();
        for caller in [first, second] {
            caller.join().unwrap().unwrap();
        }
    });
}

#[test]
fn half_closing_after_the_request_is_not_going_away() {
    let (handler, controls) = answers("a");
    let serving = serve(handler, Limits::default());
    let mut stream = UnixStream::connect(&serving.socket).unwrap();
    stream.write_all(&encode(&request(Verb::Add)).unwrap()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    controls.begun.recv_timeout(PATIENCE).unwrap();
    controls.go.send(()).unwrap();
    assert_eq!(read_request(&stream), Some(json!({"result": "a"})));
}

#[test]
fn other_handlers_take_over_while_a_request_ends_with_its_own() {
    let (first, controls) = answers("first");
    let serving = serve(first, Limits::default());
    thread::scope(|scope| {
        let adding = scope.spawn(|| call(&serving.socket, &request(Verb::Add), Instant::now() + PATIENCE).unwrap());
        controls.begun.recv_timeout(PATIENCE).unwrap();
        serving.server.swap(answers("second").0);
        assert_eq!(name_of(&status(&serving.socket).unwrap()), "second");
        controls.go.send(()).unwrap();
        assert_eq!(name_of(&adding.join().unwrap()), "first");
    });
    serving.server.swap(Arc::new(Unready));
    let code = |op| call(&serving.socket, &request(op), Instant::now() + SOON).unwrap().code;
    assert_eq!(OPS.map(code), [Some(11), None, None, None, Some(50)]);
}

// covers: P-06
#[test]
fn a_stop_lets_requests_in_service_end_and_takes_no_new_ones() {
    let (handler, controls) = answers("a");
    let Serving { _dir, socket, server, .. } = serve(handler, Limits::default());
    thread::scope(|scope| {
        let adding = scope.spawn(|| call(&socket, &request(Verb::Add), Instant::now() + PATIENCE).unwrap());
        controls.begun.recv_timeout(PATIENCE).unwrap();
        let stopping = scope.spawn(|| server.stop(Instant::now() + PATIENCE));
        wait_for("the socket's end", || (!socket.exists()).then_some(()));
        assert!(UnixStream::connect(&socket).is_err());
        controls.go.send(()).unwrap();
        assert_eq!(name_of(&adding.join().unwrap()), "a");
        assert_eq!(stopping.join().unwrap(), 0);
    });
}

#[test]
fn a_stop_ends_at_its_deadline_and_tells_who_is_left() {
    let (handler, controls) = answers("a");
    let Serving { _dir, socket, server, .. } = serve(handler, Limits::default());
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&encode(&request(Verb::Add)).unwrap()).unwrap();
    controls.begun.recv_timeout(PATIENCE).unwrap();
    assert_eq!(server.stop(Instant::now() + Duration::from_millis(50)), 1);
    controls.go.send(()).unwrap();
}

/// A socket on which somebody listens who accepts nobody, and whose backlog takes no caller more.
fn full(path: &Path) -> (UnixListener, Vec<OwnedFd>) {
    std::fs::remove_file(path).ok();
    let listener = UnixListener::bind(path).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let address = SocketAddrUnix::new(path).unwrap();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let calling = std::iter::repeat_with(|| socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap());
    let waiting = calling.take_while(|caller| connect(caller, &address).is_ok()).collect();
    (listener, waiting)
}

// covers: FM-F02
#[test]
fn a_socket_is_private_and_replaces_only_a_dead_one() {
    let dir = TempDir::new("bind");
    let socket = dir.path().join("s");
    let first = Listener::bind(&socket).unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Listener::bind(&socket), Err(BindError::InUse(_))));
    drop(first);
    // A program that another test is just starting may have a copy of it for a moment.
    let _second = wait_for("the end of the first", || Listener::bind(&socket).ok());
    assert!(UnixStream::connect(&socket).is_ok());
    let file = dir.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    assert!(matches!(Listener::bind(&file), Err(BindError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    assert!(matches!(Listener::bind(&dir.path().join("no/s")), Err(BindError::Io { .. })));
}

#[test]
fn a_socket_whose_backlog_is_full_is_in_use() {
    let dir = TempDir::new("full");
    let socket = dir.path().join("s");
    let held = full(&socket);
    let (answer, answered) = channel();
    let path = socket.clone();
    thread::spawn(move || answer.send(Listener::bind(&path).map(drop)));
    let bound = answered.recv_timeout(SOON);
    assert!(matches!(bound, Ok(Err(BindError::InUse(_)))), "{bound:?}");
    drop(held);
    Listener::bind(&socket).unwrap();
}

#[test]
fn a_socket_of_the_service_manager_is_served_and_left_with_its_backlog_to_the_next_agent() {
    let dir = TempDir::new("handed");
    let socket = dir.path().join("s");
    let held = UnixListener::bind(&socket).unwrap();
    let serving = || {
        let listener = Listener::handed_over(&held, &socket).unwrap().expect("a listening socket");
        Server::start(listener, Arc::new(Unready), Limits::default(), Arc::new(|_| {})).unwrap()
    };
    let first = serving();
    status(&socket).unwrap();
    assert_eq!(first.stop(Instant::now() + SOON), 0);
    assert!(socket.exists());
    let mut waiting = UnixStream::connect(&socket).unwrap();
    waiting.write_all(&encode(&request(Verb::Status)).unwrap()).unwrap();
    let second = serving();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("not ready"), "{answer}");
    assert_eq!(second.stop(Instant::now() + SOON), 0);
    assert!(UnixStream::connect(&socket).is_ok(), "the manager still holds it");
}

/// What stands at a path: which file it is, and its permissions.
fn standing(path: &Path) -> Option<(u64, u32)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.ino(), found.mode() & 0o7777))
}

// covers: FM-L05
#[test]
fn an_agent_whose_socket_was_removed_is_heard_again_and_nobody_who_waited_is_lost() {
    let (handler, controls) = answers("a");
    let serving = serve(handler, Limits { connections: 1, ..Limits::default() });
    let mut door = serving.server.door();
    assert!(!door.keep_bound().unwrap(), "all is well");
    let before = standing(&serving.socket);
    let adding = || {
        let mut stream = UnixStream::connect(&serving.socket).unwrap();
        stream.write_all(&encode(&request(Verb::Add)).unwrap()).unwrap();
        stream
    };
    let mut calling = vec![adding()];
    controls.begun.recv_timeout(PATIENCE).unwrap();
    // One waits in the socket that is removed, one in each that stands there later.
    for _ in 0..2 {
        calling.push(adding());
        std::fs::remove_file(&serving.socket).unwrap();
        assert!(UnixStream::connect(&serving.socket).is_err());
        assert!(door.keep_bound().unwrap());
        assert!(!door.keep_bound().unwrap());
        assert_eq!(standing(&serving.socket).unwrap().1, 0o600);
        assert_ne!(standing(&serving.socket), before);
    }
    calling.push(adding());
    for stream in &calling {
        controls.go.send(()).unwrap();
        assert_eq!(read_request(stream), Some(json!({"result": "a"})));
    }
    // Who goes takes away what stands there in the end, and puts nothing in its place.
    assert_eq!(serving.server.stop(Instant::now() + SOON), 0);
    assert!(!door.keep_bound().unwrap());
    assert_eq!(standing(&serving.socket), None);
}

#[test]
fn the_directory_and_the_rights_of_the_socket_are_put_back_with_it() {
    let dir = TempDir::new("rights");
    let socket = dir.path().join("run/s");
    std::fs::create_dir(socket.parent().unwrap()).unwrap();
    let notices: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = notices.clone();
    let notify = Arc::new(move |notice: Notice| sink.lock().unwrap().push(format!("{notice:?}")));
    let listener = Listener::bind(&socket).unwrap();
    let server = Server::start(listener, answers("a").0, Limits::default(), notify).unwrap();
    let mut door = server.door();
    for mode in [0o666, 0o000, 0o1600] {
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(!door.keep_bound().unwrap(), "it is the same socket");
        assert_eq!(standing(&socket).unwrap().1, 0o600);
        assert_eq!(notices.lock().unwrap().pop(), Some(format!("Mode({mode})")));
    }
    std::fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    assert!(door.keep_bound().unwrap());
    assert_eq!((standing(&socket).unwrap().1, standing(socket.parent().unwrap()).unwrap().1), (0o600, 0o700));
    assert!(status(&socket).is_ok());
    // In a directory that others may change, anybody could stand in the agent's place.
    std::fs::remove_file(&socket).unwrap();
    std::fs::set_permissions(socket.parent().unwrap(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = door.keep_bound().unwrap_err().to_string();
    assert!(error.contains("chmod go-w"), "{error}");
}

#[test]
fn what_somebody_else_has_put_in_the_place_of_the_socket_is_named_and_left() {
    let serving = serve(answers("a").0, Limits::default());
    let (socket, mut door) = (&serving.socket, serving.server.door());
    type Put = fn(&Path);
    let put: [(&str, Put); 4] = [
        ("file", |path| std::fs::write(path, "kept").unwrap()),
        ("directory", |path| std::fs::create_dir(path).unwrap()),
        ("link", |path| std::os::unix::fs::symlink("/nonexistent", path).unwrap()),
        ("fifo", |path| drop(succeed(std::process::Command::new("mkfifo").arg(path)))),
    ];
    for (what, put) in put {
        std::fs::remove_file(socket).unwrap();
        put(socket);
        let theirs = standing(socket);
        let error = door.keep_bound().unwrap_err();
        assert!(
            matches!(error, BindError::NotASocket(_)) && error.to_string().contains("move it away"),
            "{what}: {error}"
        );
        assert_eq!(standing(socket), theirs, "{what}");
        std::fs::remove_file(socket).or_else(|_| std::fs::remove_dir(socket)).unwrap();
        assert!(door.keep_bound().unwrap(), "{what}");
        assert!(status(socket).is_ok(), "{what}");
    }
    // A socket that nobody listens to is in nobody's way.
    std::fs::remove_file(socket).unwrap();
    drop(UnixListener::bind(socket).unwrap());
    wait_for("its end", || door.keep_bound().is_ok_and(|bound| bound).then_some(()));
    assert!(status(socket).is_ok());
    // Another agent's stays, also when this one goes.
    std::fs::remove_file(socket).unwrap();
    let theirs = UnixListener::bind(socket).unwrap();
    let before = standing(socket);
    let error = door.keep_bound().unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    serving.server.stop(Instant::now() + SOON);
    assert_eq!(standing(socket), before);
    drop(theirs);
}

#[test]
fn a_socket_of_the_service_manager_that_has_lost_its_file_gets_one_beside_it() {
    let dir = TempDir::new("nameless");
    let socket = dir.path().join("s");
    let held = UnixListener::bind(&socket).unwrap();
    let serving = || {
        let listener = Listener::handed_over(&held, &socket).unwrap().expect("a listening socket");
        Server::start(listener, Arc::new(Unready), Limits::default(), Arc::new(|_| {})).unwrap()
    };
    // The rights are those that the manager gives, and they stay.
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).unwrap();
    let first = serving();
    assert!(!first.door().keep_bound().unwrap());
    assert_eq!(standing(&socket).unwrap().1, 0o660);
    let mut waiting = UnixStream::connect(&socket).unwrap();
    std::fs::remove_file(&socket).unwrap();
    assert!(first.door().keep_bound().unwrap());
    waiting.write_all(&encode(&request(Verb::Status)).unwrap()).unwrap();
    assert!(read_request(&waiting).is_some(), "the manager's is served as before");
    assert!(status(&socket).is_ok());
    assert_eq!(first.stop(Instant::now() + SOON), 0);
    assert_eq!(standing(&socket), None, "its own goes with it");
    // Its successor gets the nameless socket again, and may find what a killed agent left at the path.
    for killed in [false, true] {
        if killed {
            drop(UnixListener::bind(&socket).unwrap());
        }
        let next = serving();
        let mut door = next.door();
        wait_for("the end of what was left", || door.keep_bound().is_ok_and(|bound| bound).then_some(()));
        assert!(!door.keep_bound().unwrap());
        assert!(status(&socket).is_ok());
        next.stop(Instant::now() + SOON);
    }
    // The manager binds anew.
    let held = UnixListener::bind(&socket).unwrap();
    let listener = Listener::handed_over(&held, &socket).unwrap().expect("a listening socket");
    let last = Server::start(listener, Arc::new(Unready), Limits::default(), Arc::new(|_| {})).unwrap();
    assert!(!last.door().keep_bound().unwrap());
    last.stop(Instant::now() + SOON);
    assert!(UnixStream::connect(&socket).is_ok(), "and keeps it");
}

#[test]
fn a_socket_of_the_service_manager_has_to_be_the_one_that_plugins_look_for() {
    let dir = TempDir::new("handed");
    let path = dir.path().join("s");
    let refused = |stdin: &dyn AsFd| match Listener::handed_over(stdin.as_fd(), &path) {
        Err(error @ BindError::Other { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let elsewhere = dir.path().join("other");
    let text = refused(&UnixListener::bind(&elsewhere).unwrap());
    for name in [&elsewhere, &path] {
        assert!(text.contains(name.to_str().unwrap()), "{text}");
    }
    assert!(
        refused(&TcpListener::bind("[::1]:0").or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap()).contains("unix")
    );
    // What is no listening socket is somebody's ordinary standard input.
    let (one, _other) = UnixStream::pair().unwrap();
    assert!(Listener::handed_over(&one, &path).unwrap().is_none());
    assert!(Listener::handed_over(File::open("/dev/null").unwrap(), &path).unwrap().is_none());
}

// ---------------------------------------------------------------------------------------------------------------------
// The plugin against a scripted agent.

fn add(host: &Host) -> Cni<'_> {
    host.cni("ADD").container("abc").netns("/run/netns/x").ifname("eth0")
}

/// Beside them there may be spare ones, and the halves of such as are being written.
fn notes(host: &Host) -> usize {
    let names = std::fs::read_dir(host.path("/run/flock/deletes")).into_iter().flatten();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".delete")).count()
}

fn each(host: &Host) -> [Cni<'_>; 5] {
    OPS.map(|op| match op {
        Verb::Check => add(host).env("CNI_COMMAND", "CHECK").conf("prevResult", a_result()),
        _ => add(host).env("CNI_COMMAND", op.to_string()),
    })
}

// covers: P-04 X-04 X-06
#[test]
fn the_plugin_passes_on_what_the_agent_says_and_999_for_codes_that_it_does_not_know() {
    let host = Host::new();
    for (answer, code, details) in [
        (json!({"error": "e", "code": 11, "details": "d"}), 11, "d"),
        (json!({"error": "e", "code": 3}), 3, ""),
        (json!({"error": "e", "code": 51, "details": null}), 51, ""),
        (json!({"error": "e", "code": 999}), 999, ""),
        (json!({"error": "e", "code": 12}), 999, ""),
        (json!({"error": "e", "code": 100, "details": "d"}), 999, "d"),
        (json!({"error": "e", "code": 0}), 999, ""),
        (json!({"error": "e"}), 999, ""),
        // An error wins over a result.
        (json!({"error": "e", "code": 7, "result": a_result()}), 7, ""),
    ] {
        let said = answer.clone();
        let _agent = Scripted::answering(socket_of(&host), move |_, _| Some(line(&said)));
        for call in each(&host) {
            let error = call.error();
            assert_eq!((error.code, error.msg.as_str(), error.details.as_str()), (code, "e", details), "{answer}");
        }
    }
}

// covers: P-02 R-02 R-04 A-14
#[test]
fn the_plugin_prints_the_result_of_a_go_agent_and_never_none() {
    let host = Host::new();
    let go = json!({"error": "", "result": {
        "interfaces": [{"name": "eth0", "mac": "aa:bb:cc:dd:ee:ff", "sandbox": "/run/netns/x"}],
        "ips": [{"interface": 0, "address": "10.0.0.3/32"}, {"interface": 0, "address": "2001:db8::3/128"}],
        "dns": {},
    }});
    let agent = Scripted::answering(socket_of(&host), move |_, _| Some(line(&go)));
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = add(&host).version(version).result();
        assert_eq!(result.result["cniVersion"], version);
        assert_eq!(result.ips().len(), 2);
    }
    for call in &each(&host)[1..] {
        call.done();
    }
    // What it does not know it ignores: among it how long the plugin is going to wait, and since when.
    for request in agent.seen() {
        let left = Duration::from_millis(request["left_ms"].as_u64().unwrap());
        assert!(!left.is_zero() && left <= plugin_limit(Verb::Gc), "{left:?}");
        assert!(
            request["sent_ms"].as_u64().is_some_and(|sent| sent <= flock::record::boot_clock::now_ms()),
            "{request}"
        );
    }
    drop(agent);
    for none in [
        json!({}),
        json!({"result": null}),
        json!({"result": {}}),
        json!({"result": {"ips": []}}),
        json!({"result": []}),
        json!({"result": {"ips": [{"address": "10.0.0.3/32", "interface": 0}]}}),
    ] {
        let said = none.clone();
        let _agent = Scripted::answering(socket_of(&host), move |_, _| Some(line(&said)));
        assert_eq!(add(&host).error().code, 999, "{none}");
    }
}

// covers: P-06 D-16 K-10 T-03 FM-C02
#[test]
fn the_plugin_has_a_code_for_each_way_of_getting_no_answer_and_del_leaves_a_note() {
    let host = Host::new();
    for bytes in [&b""[..], b"{\"res", b"garbage\n"] {
        let said = bytes.to_vec();
        let _agent = Scripted::answering(socket_of(&host), move |_, _| Some(said.clone()));
        for (call, op) in each(&host).iter().zip(OPS) {
            match op {
                Verb::Del => call.done(),
                Verb::Status => assert_eq!(call.error().code, 50),
                _ => assert_eq!(call.error().code, 11, "{op}"),
            }
        }
        assert_eq!(notes(&host), 1);
        std::fs::remove_dir_all(host.path("/run/flock/deletes")).unwrap();
    }
}

// covers: X-15 A-13 T-06 D-16 FM-C09 FM-U02 FM-U04
#[test]
fn a_hanging_agent_costs_each_verb_its_limit_and_no_more() {
    let host = Host::new();
    let _agent = Scripted::silent(socket_of(&host));
    thread::scope(|scope| {
        for (call, op) in each(&host).into_iter().zip(OPS) {
            scope.spawn(move || {
                let outcome = call.run();
                // The process has to be started and read, too.
                assert!(outcome.elapsed < plugin_limit(op) + START, "{op}: {:?}", outcome.elapsed);
                match op {
                    Verb::Del => assert_eq!(outcome.succeeded(), "", "the note counts"),
                    Verb::Status => assert_eq!(outcome.failed().code, 50),
                    _ => assert_eq!(outcome.failed().code, 11, "{op}"),
                }
            });
        }
    });
}

#[test]
fn a_delete_whose_input_comes_late_is_still_noted_in_time() {
    let host = Host::new();
    let _agent = Scripted::silent(socket_of(&host));
    let deleting = add(&host).env("CNI_COMMAND", "DEL");
    let began = Instant::now();
    let mut plugin = deleting.command().stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Not a wait for a fact: lateness is what is tried.
    thread::sleep(Duration::from_secs(4));
    plugin.stdin.take().unwrap().write_all(&deleting.input()).unwrap();
    assert!(plugin.wait().unwrap().success());
    assert!(began.elapsed() < plugin_limit(Verb::Del) + START, "{:?}", began.elapsed());
    assert_eq!(notes(&host), 1);
}

/// The service manager holds the socket, no agent can be started, and those who gave up have filled the backlog.
#[test]
fn a_delete_is_noted_in_time_though_the_backlog_of_the_socket_is_full() {
    let host = Host::new();
    let socket = socket_of(&host);
    let held = full(&socket);
    thread::scope(|scope| {
        let deleting = scope.spawn(|| each(&host)[1].run());
        let until = Instant::now() + plugin_limit(Verb::Del);
        while !deleting.is_finished() && Instant::now() < until {
            thread::park_timeout(Duration::from_millis(2));
        }
        // Whoever still waits for a place in the backlog is refused now, so that the test ends in any case.
        drop(held);
        let outcome = deleting.join().unwrap();
        assert_eq!(outcome.succeeded(), "", "the note counts");
        assert!(outcome.elapsed < SOON, "{:?}", outcome.elapsed);
    });
    assert_eq!(notes(&host), 1);
}

// covers: X-15 FM-U02
#[test]
fn the_limits_are_those_that_the_runtimes_leave_room_for() {
    let milliseconds = OPS.map(|op| plugin_limit(op).as_millis());
    assert_eq!(milliseconds, [12_000, 7_000, 10_000, 25_000, 1_500]);
    assert!(plugin_limit(Verb::Add) + plugin_limit(Verb::Del) < Duration::from_secs(20), "a pod's event comes in time");
    for op in OPS {
        assert!(agent_limit(op) < plugin_limit(op), "the agent's own error still arrives");
    }
    let milliseconds = OPS.map(|op| connect_limit(op).as_millis());
    assert_eq!(milliseconds, [5000, 1000, 5000, 5000, 700]);
    assert!(OPS.iter().all(|op| connect_limit(*op) * 2 <= plugin_limit(*op)), "there is time left for the call itself");
}

// covers: X-15 P-06
#[test]
fn an_add_outlasts_a_restart_by_the_service_manager_and_a_delete_does_not_wait_for_it() {
    let host = Host::new();
    thread::scope(|scope| {
        let waiting: Vec<_> = each(&host).into_iter().map(|call| scope.spawn(move || call.run())).collect();
        wait_for("the note of the delete", || (notes(&host) == 1).then_some(()));
        // Not a wait for a fact: systemd waits a second before it starts the agent again.
        thread::sleep(Duration::from_secs(1));
        let _agent = Scripted::obliging(socket_of(&host));
        for (outcome, op) in waiting.into_iter().map(|call| call.join().unwrap()).zip(OPS) {
            match op {
                Verb::Status => assert_eq!(outcome.failed().code, 50),
                _ => drop(outcome.succeeded()),
            }
        }
    });
}

// covers: X-15 S-02 S-17
#[test]
fn an_input_that_never_ends_costs_status_no_more_than_its_limit() {
    let host = Host::new();
    let _agent = Scripted::obliging(socket_of(&host));
    let outcome = host.cni("STATUS").run_without_end(br#"{"cniVersion":"1.1.0","name":"flock"}"#);
    assert_eq!(outcome.failed().code, 5);
    assert!(outcome.elapsed < plugin_limit(Verb::Status) + START, "{:?}", outcome.elapsed);
}

// ---------------------------------------------------------------------------------------------------------------------
// Both, and something in between.

/// Passes calls on to the agent behind, and tells `each` the number of the connection and the answer; only when it says
/// so, the answer is passed back.
fn relay(host: &Host, behind: PathBuf, each: impl Fn(usize, &Value) -> bool + Send + Sync + 'static) -> Scripted {
    Scripted::answering(socket_of(host), move |number, request| {
        let answer = scripted::ask(&behind, request)?;
        each(number, &answer).then(|| line(&answer))
    })
}

// covers: A-04 P-05
#[test]
fn an_answer_that_was_lost_is_given_again_and_nothing_is_made_twice() {
    let host = Host::new();
    let behind = ["--socket", "/run/behind/s"];
    let mut agent = host.agent().args(&behind).start();
    let pod = host.pod("a");
    let (tell, told) = channel();
    let (go, may_go) = channel();
    let may_go = Mutex::new(may_go);
    let relay = relay(&host, host.path("/run/behind/s"), move |number, answer| {
        tell.send(answer.clone()).unwrap();
        // Lost once by itself, and once with the agent.
        if number == 1 {
            may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        number == 2
    });
    let result = thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&pod).result());
        let first: Value = told.recv_timeout(PATIENCE).unwrap();
        assert!(first["result"].is_object(), "{first}");
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), first, "the same call, the same answer");
        agent.signal("KILL");
        agent.wait();
        agent = host.agent().args(&behind).start();
        go.send(()).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), first, "also by the agent's successor");
        adding.join().unwrap()
    });
    let calls: Vec<Value> = relay.seen().iter().map(|request| request["call"].clone()).collect();
    assert!(calls[0].is_string() && calls.iter().all(|call| *call == calls[0]), "{calls:?}");
    assert_eq!(host.leases().len(), 1);
    assert_eq!(host.flock_links(), [result.host_link()]);
    assert!(pod.pings(HOST6.parse().unwrap()) && pod.pings(HOST4.parse().unwrap()));
    drop(relay);
    // Another run of the plugin is another call.
    let conf = json!("/run/behind/s");
    assert_eq!(host.add(&pod).conf("socket", conf.clone()).error().code, 4);
    host.del(&pod).conf("socket", conf).done();
    host.assert_empty();
}

// covers: P-06 T-05 FM-G06
#[test]
fn calls_in_flight_survive_a_restart_of_the_agent() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let pods: Vec<Pod> = (0..8).map(|i| host.pod(&format!("p{i}"))).collect();
    for round in 0..4 {
        agent = thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| {
                    host.add(pod).result();
                    host.del(pod).done();
                });
            }
            agent.signal(if round % 2 == 0 { "TERM" } else { "KILL" });
            agent.wait();
            host.agent().start()
        });
        host.assert_empty();
    }
}

// covers: P-06 FM-L05
#[test]
fn pods_are_served_again_after_a_cleaner_has_removed_the_socket() {
    let host = Host::new();
    let agent = host.agent().args(&["--socket", "/run/x/flock.sock"]).start();
    let pod = host.pod("a");
    let conf = json!("/run/x/flock.sock");
    host.run("rm /run/x/flock.sock");
    let error = host.cni("STATUS").conf("socket", conf.clone()).error();
    assert!(
        error.code == 50 && error.text().contains("/run/x/flock.sock: there is no such socket; systemctl"),
        "{error:?}"
    );
    assert!(!error.text().contains("os error"), "{error:?}");
    agent.signal("HUP");
    assert!(agent.wait_log("socket was gone from its place").contains("warn"));
    host.add(&pod).conf("socket", conf.clone()).result();
    // With everything beside it.
    host.run("rm -r /run/x");
    agent.signal("HUP");
    agent.wait_log_times("socket was gone from its place", 2);
    host.del(&pod).conf("socket", conf.clone()).done();
    assert_eq!(host.run("stat -c %a /run/x /run/x/flock.sock"), "700\n600\n");
    // Nobody else's is taken, and what stands in the place is named with what to do.
    host.run("rm /run/x/flock.sock");
    host.write("/run/x/flock.sock", "");
    agent.signal("HUP");
    assert!(agent.wait_log("callers cannot reach the agent").contains("move it away"));
    agent.stop();
    assert!(host.path("/run/x/flock.sock").is_file());
    host.assert_empty();
}

// covers: P-06
#[test]
fn an_agent_that_cannot_put_its_socket_back_ends_for_its_successor() {
    let host = Host::new();
    let mut agent = host.agent().args(&["--socket", "/run/x/flock.sock"]).start();
    host.run("rm -r /run/x");
    host.write("/run/x", "");
    host.start_trace();
    for times in 1..=3 {
        assert_eq!(agent.ended(), None);
        agent.signal("HUP");
        assert!(agent.wait_log("callers cannot reach the agent").contains("/run/x: it is something else"));
        if times < 3 {
            host.wait_point("reconcile/compare", times);
        }
    }
    agent.wait_log("it ends so that it is started anew");
    assert_eq!(agent.wait().code(), Some(1));
}

/// The agent as a container runs it: in a pid namespace of its own, from which nobody outside can be seen.
fn contained(host: &Host) -> String {
    let script = format!("exec unshare --pid --fork --kill-child {FLOCK_AGENT} \"$@\"");
    put_script(host.path("/run/contained"), &script);
    "/run/contained".into()
}

// covers: P-03 FM-U01
#[test]
fn an_agent_in_a_pid_namespace_of_its_own_serves_who_is_outside() {
    let host = Host::new();
    let agent = host.agent().program(&contained(&host)).start();
    let pod = host.pod("a");
    host.cni("STATUS").done();
    host.add(&pod).result();
    assert!(pod.pings(HOST6.parse().unwrap()));
    host.del(&pod).done();
    host.assert_empty();
    assert!(!agent.log().contains("cannot be accepted"), "{}", agent.log());
    agent.kill();
}

// covers: P-03 FM-F02
#[test]
fn only_root_and_the_agents_own_user_are_served() {
    if one_user_only() {
        return;
    }
    for apart in [false, true] {
        let host = Host::new();
        let program = if apart { contained(&host) } else { FLOCK_AGENT.into() };
        let agent = host.agent().program(&program).args(&["--socket", "/run/open/flock.sock"]).start();
        let pod = host.pod("a");
        let plugin = host.path("/run/open/plugin");
        put_copy(FLOCK, &plugin);
        host.run("chmod 755 /run/open /run/open/plugin");
        let stranger = |verb: &str| {
            let mut command = host.command("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "env", "-i"]);
            command.args([&format!("CNI_COMMAND={verb}"), "CNI_CONTAINERID=a", "CNI_IFNAME=eth0", "CNI_PATH=/"]);
            command.args([&format!("CNI_NETNS={}", pod.path()), "/run/open/plugin"]);
            let conf = json!({"cniVersion": "1.1.0", "name": "flock", "socket": "/run/open/flock.sock"});
            std::fs::write(host.path("/run/conf"), conf.to_string()).unwrap();
            let conf = std::fs::File::open(host.path("/run/conf")).unwrap();
            let output = command.stdin(conf).output().unwrap();
            let error: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
            error["code"].clone()
        };
        // The rights of the socket keep strangers out, and so does the agent where somebody opened it.
        assert_eq!(stranger("STATUS"), 50);
        assert!(!agent.log().contains("caller refused"));
        host.run("chmod 666 /run/open/flock.sock");
        assert_eq!(stranger("STATUS"), 50);
        assert_eq!(stranger("ADD"), 11);
        let line = agent.wait_log("caller refused");
        assert!(line.contains("uid=65534") && line.contains("pid=") != apart, "{line}");
        assert_eq!(stranger("DEL"), 11, "and it can leave no note");
        host.assert_empty();
        host.cni("STATUS").conf("socket", json!("/run/open/flock.sock")).done();
    }
}
