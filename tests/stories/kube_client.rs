//! The API client against a scripted TLS server: every way in which a server, a proxy, a file or a plugin may behave.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flock::kube::access::Access;
use flock::kube::client::{
    Answer, Client, ClientLimits, Download, KubeError, Lines, Method, StreamError, Tidings, Watch,
};
use flock::kube::credentials::{CredentialsError, PemProblem};
use flock::kube::kind::{Form, Objects};
use flock::kube::kubeconfig::{from_file, from_text};
use flock::kube::objects::{NodeConfigObject, NodeConfigs, NodePeers};
use flock::kube::reflect::{Audience, reflect};
use flock::kube::watch::{Changes, WatchNotice};
use model::peers::Peer;

use crate::support::http::{Conn, END};
use crate::support::https::{Server, Tls, Wants, data, der, tls};
use crate::support::programs::{put_script, succeed};
use crate::support::temp::TempDir;
use crate::support::waiting::{PATIENCE, wait_for};

/// So long that a test which waits for it has failed.
const LONG: Duration = Duration::from_secs(120);

/// "Within milliseconds", on a machine that also does other things.
const PROMPT: Duration = Duration::from_secs(2);

fn access(server: &str, cluster: &str, user: &str) -> Access {
    let text = format!(
        "current-context: a\ncontexts: [{{name: a, context: {{cluster: b, user: c}}}}]\nclusters:\n- name: b\n  cluster:\n    \
         server: {server}\n    {}\nusers:\n- name: c\n  user:\n    {}\n",
        cluster.replace('\n', "\n    "),
        user.replace('\n', "\n    ")
    );
    from_text(&text, &data("kubeconfig")).unwrap()
}

fn limits() -> ClientLimits {
    ClientLimits {
        lookup: PATIENCE,
        connect: LONG,
        headers: LONG,
        total: LONG,
        silence: LONG,
        plugin: PATIENCE,
        line: 8 << 20,
    }
}

fn client_with(access: &Access, limits: ClientLimits) -> Client {
    Client::with_limits(access, "flock-test/1", limits).unwrap()
}

fn client_of(address: SocketAddr, user: &str) -> Client {
    client_with(&access(&format!("https://{address}"), "certificate-authority: ca.crt", user), limits())
}

fn client(address: SocketAddr) -> Client {
    client_of(address, "{}")
}

fn watch(client: &Client, path: &str, idle: Duration) -> Lines {
    match client.watch(path, Form::Whole, idle).unwrap() {
        Watch::Stream(lines) => lines,
        Watch::Refused(answer) => panic!("{answer:?}"),
    }
}

fn rest(lines: &mut Lines) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(line) = lines.next().unwrap() {
        all.push(String::from_utf8(line).unwrap());
    }
    all
}

/// An error with everything behind it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error} {error:?}");
        cause = error.source();
    }
    text
}

// Requests and answers.

#[test]
fn a_request_says_what_it_should_and_no_more() {
    let server = Server::ok();
    let access = access(&format!("https://{}/base/", server.address), "certificate-authority: ca.crt", "token: t0k");
    let client = client_with(&access, limits());
    let answer = client.get("/api/v1/pods?fieldSelector=a%3Db&x=1", 100).unwrap();
    assert_eq!(answer, Answer { status: 200, retry_after: None, body: b"{}".to_vec() });
    let seen = server.next();
    assert_eq!(seen.line(), "GET /base/api/v1/pods?fieldSelector=a%3Db&x=1 HTTP/1.1");
    assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
    assert_eq!(seen.header("user-agent"), Some("flock-test/1"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("accept-encoding"), None);
    assert_eq!(seen.header("authorization"), Some("Bearer t0k"));
    client.send(Method::Patch, "/status", "application/merge-patch+json", b"{\"a\":1}").unwrap();
    let seen = server.next();
    assert_eq!(seen.line(), "PATCH /base/status HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/merge-patch+json"));
    assert_eq!((seen.body.as_slice(), seen.connection), (&b"{\"a\":1}"[..], 0));
    client.send(Method::Post, "/p", "a/b", &[b'x'; 100_000]).unwrap();
    assert_eq!(server.next().body.len(), 100_000);
    client.send(Method::Put, "/p", "a/b", b"").unwrap();
    assert_eq!(server.next().line(), "PUT /base/p HTTP/1.1");
    assert!(matches!(client.get("/a b", 100), Err(KubeError::BadRequest(_))));
}

/// Status, headers, and what `Retry-After` means in seconds.
const REFUSALS: &[(&str, &str, Option<u64>)] = &[
    ("401 Unauthorized", "", None),
    ("403 Forbidden", "Retry-After: 0\r\n", Some(0)),
    ("404 Not Found", "", None),
    ("410 Gone", "", None),
    ("429 Too Many Requests", "Retry-After: 5\r\nConnection: close\r\n", Some(5)),
    ("429 Too Many Requests", "Retry-After: 99999999999999999999999999\r\n", Some(24 * 3600)),
    ("429 Too Many Requests", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", Some(0)),
    ("429 Too Many Requests", "Retry-After: Wed, 21 Oct 2215 07:28:00 GMT\r\n", Some(24 * 3600)),
    ("503 Service Unavailable", "Retry-After: -1\r\n", None),
    ("503 Service Unavailable", "Retry-After: soon\r\n", None),
    ("503 Service Unavailable", "Retry-After:\r\n", None),
    ("504 Gateway Timeout", "", None),
    ("302 Found", "Location: /elsewhere\r\n", None),
    ("307 Temporary Redirect", "Location: https://192.0.2.1/elsewhere\r\n", None),
];

#[test]
fn statuses_are_values_retry_after_has_many_forms_and_nothing_is_redirected() {
    let server = Server::answering(|conn, request| {
        let case: usize = request.line().split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        conn.answer(REFUSALS[case].0, REFUSALS[case].1, "<html>why</html>");
    });
    let client = client(server.address);
    for (case, (status, _, seconds)) in REFUSALS.iter().enumerate() {
        let want = Answer {
            status: status[..3].parse().unwrap(),
            retry_after: seconds.map(Duration::from_secs),
            body: b"<html>why</html>".to_vec(),
        };
        let path = format!("/{case}");
        assert_eq!(client.get(&path, 100).unwrap(), want);
        match client.watch(&path, Form::Whole, LONG).unwrap() {
            Watch::Refused(answer) => assert_eq!(answer, want),
            Watch::Stream(_) => panic!("{status}"),
        }
        let sent = client.send(Method::Patch, &path, "a/b", b"x").unwrap();
        assert_eq!(sent, want);
    }
    assert_eq!(server.seen.try_iter().count(), 3 * REFUSALS.len());
}

#[test]
fn bodies_have_a_limit_and_must_be_whole() {
    let server = Server::answering(|conn, request| match request.line() {
        "GET /long HTTP/1.1" => conn.answer("200 OK", "", [b'x'; 100_000]),
        "GET /chunks HTTP/1.1" => {
            conn.begin();
            (0..100).for_each(|_| conn.chunk([b'x'; 1000]));
            conn.say(END);
        }
        _ => {
            conn.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            conn.stream.conn.send_close_notify();
            conn.say("");
            conn.stream.sock.shutdown(Shutdown::Both).unwrap();
        }
    });
    let client = client(server.address);
    for path in ["/long", "/chunks"] {
        assert_eq!(client.get(path, 100_000).unwrap().body.len(), 100_000);
        assert!(matches!(client.get(path, 99_999), Err(KubeError::TooLong(99_999))));
        assert_eq!(client.get(path, usize::MAX).unwrap().body.len(), 100_000);
    }
    let error = client.get("/half", 100).unwrap_err();
    assert!(matches!(error, KubeError::Io { .. }), "{error:?}");
}

#[test]
fn a_connection_is_used_again_unless_the_server_closed_it() {
    let (closed, when_closed) = channel();
    let closed = Mutex::new(closed);
    let (sender, seen) = channel();
    let sender = Mutex::new(sender);
    let address = Server::run(move |mut conn| {
        for _ in 0..3 {
            let Some(request) = conn.request() else { return };
            sender.lock().unwrap().send(request.connection).unwrap();
            conn.answer("200 OK", "", "{}");
        }
        conn.stream.sock.shutdown(Shutdown::Both).unwrap();
        closed.lock().unwrap().send(()).unwrap();
    });
    let client = client(address);
    for _ in 0..3 {
        client.get("/", 10).unwrap();
    }
    when_closed.recv_timeout(PATIENCE).unwrap();
    client.get("/", 10).unwrap();
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), [0, 0, 0, 1]);
}

#[test]
fn an_old_server_is_good_enough() {
    let address = Server::start(tls("server", Wants::OldTls), "127.0.0.1", |mut conn| {
        conn.answer_all(|conn, _| conn.answer("200 OK", "", "{}"));
    });
    assert_eq!(client(address).get("/", 10).unwrap().status, 200);
}

// Watches.

#[test]
fn lines_arrive_whole_however_they_are_cut() {
    let text = "{\"a\":1}\n\n{\"ü\":\"\u{1f426}\"}\n  \n\r\n{}\n";
    let address = Server::run(move |mut conn| {
        conn.answer_all(|conn, request| {
            let size: usize = request.line().split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            conn.begin();
            text.as_bytes().chunks(size).for_each(|part| conn.chunk(part));
            conn.say(END);
        });
    });
    let client = client(address);
    for size in [1, 2, 3, 5, 8, 13, 1000] {
        let mut lines = watch(&client, &format!("/{size}"), LONG);
        assert_eq!(rest(&mut lines), ["{\"a\":1}", "{\"ü\":\"\u{1f426}\"}", "{}"]);
        assert!(matches!(lines.next(), Ok(None)), "an end stays one");
    }
}

#[test]
fn a_line_arrives_before_the_next_is_sent() {
    let (sender, go_on) = channel();
    let go_on = Mutex::new(go_on);
    let address = Server::run(move |mut conn| {
        conn.answer_all(|conn, _| {
            conn.begin();
            for line in ["1\n", "2\n"] {
                conn.chunk(line);
                go_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            conn.say(END);
        });
    });
    let client = client(address);
    let mut lines = watch(&client, "/", LONG);
    for want in [Some("1"), Some("2"), None] {
        assert_eq!(lines.next().unwrap().as_deref(), want.map(str::as_bytes));
        sender.send(()).unwrap();
    }
}

#[test]
fn long_lines_have_a_limit() {
    let address = Server::run(|mut conn| {
        conn.answer_all(|conn, _| {
            conn.begin();
            let line = [vec![b'x'; 3 << 20], b"\nnext\n".to_vec()].concat();
            line.chunks(10_000).for_each(|part| conn.chunk(part));
            conn.say(END);
        });
    });
    let mut lines = watch(&client(address), "/", LONG);
    assert_eq!(lines.next().unwrap().unwrap().len(), 3 << 20);
    assert_eq!(rest(&mut lines), ["next"]);
    for (line, good) in [(3 << 20, true), ((3 << 20) - 1, false)] {
        let access = access(&format!("https://{address}"), "certificate-authority: ca.crt", "{}");
        let client = client_with(&access, ClientLimits { line, ..limits() });
        let first = watch(&client, "/", LONG).next();
        match first {
            Ok(Some(_)) => assert!(good),
            Err(StreamError::TooLong(limit)) => assert!(!good && limit == line),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_way_to_break_off_is_noticed() {
    let (sender, go_on) = channel();
    let go_on = Mutex::new(go_on);
    let address = Server::run(move |mut conn| {
        let Some(request) = conn.request() else { return };
        conn.begin();
        conn.chunk("{}\n");
        // A reset overtakes what was sent before it.
        go_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        match request.line().split(' ').nth(1).unwrap() {
            "/half" => {
                conn.chunk("{\"a\":");
                conn.say(END);
                conn.wait_for_end();
            }
            "/fin" => conn.stream.sock.shutdown(Shutdown::Both).unwrap(),
            "/close-notify" => {
                conn.stream.conn.send_close_notify();
                conn.say("");
                conn.stream.sock.shutdown(Shutdown::Both).unwrap();
            }
            "/inside" => {
                conn.say("ff\r\nabc");
                conn.stream.sock.shutdown(Shutdown::Both).unwrap();
            }
            "/reset" => {
                rustix::net::sockopt::set_socket_linger(&conn.stream.sock, Some(Duration::ZERO)).unwrap();
            }
            "/garbage" => {
                conn.say("xyz\r\nabc\r\n");
                conn.wait_for_end();
            }
            other => panic!("{other}"),
        }
    });
    for path in ["/half", "/fin", "/close-notify", "/inside", "/reset", "/garbage"] {
        // A client for each: after a final chunk the connection would be used again.
        let mut lines = watch(&client(address), path, LONG);
        assert_eq!(lines.next().unwrap().unwrap(), b"{}");
        sender.send(()).unwrap();
        let error = match lines.next() {
            Ok(line) => panic!("{path}: {line:?} is no failure"),
            Err(error) => error,
        };
        let broken_off = matches!(error, StreamError::BrokenOff);
        assert!(broken_off || matches!(error, StreamError::Io(_)), "{path}: {error:?}");
        assert!(broken_off || ["/reset", "/garbage"].contains(&path), "{path}: {error:?}");
        assert!(matches!(lines.next(), Err(StreamError::BrokenOff)), "{path}: a failure stays one");
    }
}

#[test]
fn silence_in_a_watch_is_its_own_error() {
    let address = Server::run(|mut conn| {
        conn.request().unwrap();
        conn.begin();
        conn.chunk("{}\n");
        conn.wait_for_end();
    });
    let client = client(address);
    let idle = Duration::from_millis(200);
    let mut lines = watch(&client, "/", idle);
    assert_eq!(lines.next().unwrap().unwrap(), b"{}");
    let began = Instant::now();
    match lines.next() {
        Err(StreamError::Idle(limit)) => assert_eq!(limit, idle),
        other => panic!("{other:?}"),
    }
    assert!(began.elapsed() >= idle - Duration::from_millis(50));
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let mute = Server::run(|mut conn| conn.wait_for_end());
    let short = Duration::from_millis(200);
    let access_to = |address: SocketAddr| access(&format!("https://{address}"), "certificate-authority: ca.crt", "{}");
    let client = client_with(&access_to(mute), ClientLimits { headers: short, ..limits() });
    let text = |error: KubeError| error.to_string();
    assert!(text(client.get("/", 10).unwrap_err()).ends_with("took too long to answer"));
    assert!(text(client.watch("/", Form::Whole, LONG).unwrap_err()).ends_with("took too long to answer"));
    // In the middle of an answer.
    let slow = Server::run(|mut conn| {
        conn.request().unwrap();
        conn.say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        conn.wait_for_end();
    });
    let client = client_with(&access_to(slow), ClientLimits { silence: short, ..limits() });
    assert!(text(client.get("/", 10).unwrap_err()).ends_with("took too long to finish an answer"));
    let client = client_with(&access_to(slow), ClientLimits { total: short, ..limits() });
    assert!(text(client.get("/", 10).unwrap_err()).ends_with("took too long to finish an answer"));
    // It listens, and never speaks TLS.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client_with(&access_to(listener.local_addr().unwrap()), ClientLimits { connect: short, ..limits() });
    assert!(text(client.get("/", 10).unwrap_err()).ends_with("took too long to connect to"));
    // It does not even accept.
    let (full, _occupied) = full_listener();
    let client = client_with(&access_to(full.local_addr().unwrap()), ClientLimits { connect: short, ..limits() });
    assert!(text(client.get("/", 10).unwrap_err()).ends_with("took too long to connect to"));
    // Nobody is there: the port stays bound, so that no other test gets it, and nobody listens.
    let bound = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&bound, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = rustix::net::getsockname(&bound).unwrap().try_into().unwrap();
    let error = client_with(&access_to(address), limits()).get("/", 10).unwrap_err();
    assert!(whole(&error).contains("refused"), "{}", whole(&error));
}

/// A listener whose queue is full, so that connecting to it takes for ever.
fn full_listener() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut occupied = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        occupied.push(stream);
    }
    (listener, occupied)
}

// Shutdown.

/// Runs `blocked` in a thread, waits until `reached` says that it is there, shuts down, and wants it to end at once.
fn shut_down_while<T: Send>(client: &Client, reached: impl FnOnce(), blocked: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(blocked);
        reached();
        let began = Instant::now();
        client.shutdown();
        let end = thread.join().unwrap();
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        assert!(client.get("/", 10).unwrap_err().is_stopped());
        assert!(client.watch("/", Form::Whole, LONG).unwrap_err().is_stopped());
        assert!(client.send(Method::Put, "/", "a/b", b"").unwrap_err().is_stopped());
        end
    })
}

#[test]
fn shutdown_ends_a_watch() {
    let address = Server::run(|mut conn| {
        conn.request().unwrap();
        conn.begin();
        conn.chunk("{}\n");
        conn.wait_for_end();
    });
    let client = client(address);
    let (sender, reached) = channel();
    let error = shut_down_while(
        &client,
        || reached.recv_timeout(PATIENCE).unwrap(),
        || {
            let mut lines = watch(&client, "/", LONG);
            lines.next().unwrap();
            sender.send(()).unwrap();
            lines.next().unwrap_err()
        },
    );
    assert!(error.is_stopped(), "{error:?}");
}

#[test]
fn shutdown_ends_the_wait_for_headers_and_for_a_body() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "HTTP/1.1 200 OK\r\n\r\nuntil the end"] {
        let (sender, reached) = channel();
        let sender = Mutex::new(sender);
        let address = Server::run(move |mut conn| {
            conn.request().unwrap();
            conn.say(answer);
            sender.lock().unwrap().send(()).unwrap();
            conn.wait_for_end();
        });
        let client = client(address);
        let error = shut_down_while(&client, || reached.recv_timeout(PATIENCE).unwrap(), || client.get("/", 100));
        assert!(error.unwrap_err().is_stopped());
    }
}

#[test]
fn shutdown_ends_a_handshake_and_a_connect() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(mute.local_addr().unwrap());
    let mut accepted = None;
    let error = shut_down_while(&client, || accepted = Some(mute.accept().unwrap()), || client.get("/", 100));
    assert!(error.unwrap_err().is_stopped());

    let (full, _occupied) = full_listener();
    let client = self::client(full.local_addr().unwrap());
    // Nobody can tell from outside when it blocks; before or after, it must end.
    let error = shut_down_while(&client, || (), || client.get("/", 100));
    assert!(error.unwrap_err().is_stopped());
}

#[test]
fn shutdown_ends_a_plugin() {
    let dir = TempDir::new("kube-plugin-stop");
    let mark = dir.path().join("mark");
    let plugin = script(&dir, &format!("touch {}; exec cat /dev/zero > /dev/null", mark.display()));
    let client = client_of(([127, 0, 0, 1], 9).into(), &exec(&plugin));
    let reached = || wait_for("the plugin", || mark.exists().then_some(()));
    assert!(shut_down_while(&client, reached, || client.get("/", 100)).unwrap_err().is_stopped());
}

#[test]
fn shutdown_ends_watches_that_began_before_a_rotation() {
    let address = Server::run(|mut conn| {
        let request = conn.request().unwrap();
        if request.line().starts_with("GET /watch ") {
            conn.begin();
            conn.chunk("{}\n");
            conn.wait_for_end();
        } else {
            conn.answer("200 OK", "", "{}");
        }
    });
    let dir = TempDir::new("kube-rotated-stop");
    let authority = dir.path().join("ca.crt");
    fs::copy(data("ca.crt"), &authority).unwrap();
    let cluster = format!("certificate-authority: {}", authority.display());
    let client = client_with(&access(&format!("https://{address}"), &cluster, "{}"), limits());
    let mut lines = watch(&client, "/watch", LONG);
    lines.next().unwrap();
    append(&authority, "other-ca.crt");
    client.get("/", 10).unwrap();
    let error = shut_down_while(&client, || (), move || lines.next().unwrap_err());
    assert!(error.is_stopped(), "{error:?}");
}

// Credentials that change.

fn append(file: &Path, name: &str) {
    let whole = [fs::read(file).unwrap(), fs::read(data(name)).unwrap()].concat();
    fs::write(file, whole).unwrap();
}

// covers: FM-D05
#[test]
fn a_new_token_counts_at_once_and_on_the_same_connection() {
    let dir = TempDir::new("kube-token");
    let path = dir.path().join("token");
    let server = Server::ok();
    let client = client_of(server.address, &format!("tokenFile: {}", path.display()));
    let error = client.get("/", 10).unwrap_err();
    assert!(matches!(error, KubeError::Credentials(CredentialsError::Read { .. })), "{error:?}");
    let said = |want: &str| {
        client.get("/", 10).unwrap();
        let seen = server.next();
        assert_eq!((seen.header("authorization"), seen.connection), (Some(want), 0));
    };
    fs::write(&path, "one\n").unwrap();
    said("Bearer one");
    fs::write(&path, "two").unwrap();
    said("Bearer two");
    // Being replaced: the last one is still good.
    fs::write(&path, "").unwrap();
    said("Bearer two");
    fs::remove_file(&path).unwrap();
    said("Bearer two");
    fs::write(&path, "three").unwrap();
    said("Bearer three");
    fs::write(&path, "hunter2\nhunter2").unwrap();
    said("Bearer three");
    let error = client_of(server.address, &format!("tokenFile: {}", path.display())).get("/", 10).unwrap_err();
    assert!(matches!(error, KubeError::Credentials(CredentialsError::BadToken(_))), "{error:?}");
    assert!(!whole(&error).contains("hunter2"));
    // As client-go trims it, and as an editor on Windows saves it.
    for written in ["\r\n four\t\r\n\r\n", "\u{feff}four\r\n", "four\u{a0}\n"] {
        fs::write(&path, written).unwrap();
        said("Bearer four");
    }
    fs::write(&path, "\u{feff}five\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    said("Bearer five");
}

/// A server that lets in who has a certificate, and answers with it.
fn mirror() -> SocketAddr {
    Server::start(tls("server", Wants::Certificate), "127.0.0.1", |mut conn| {
        conn.answer_all(|conn, _| {
            let shown = conn.stream.conn.peer_certificates().unwrap()[0].to_vec();
            conn.answer("200 OK", "", shown);
        });
    })
}

#[test]
fn every_kind_of_key_is_understood() {
    let address = mirror();
    let kinds = ["pkcs8", "sec1", "sec1-params", "pkcs1", "rsa-pkcs8", "ed25519"];
    for name in kinds.map(|kind| format!("client-{kind}")) {
        let user = format!("client-certificate: {name}.crt\nclient-key: {name}.key");
        let shown = client_of(address, &user).get("/", 10_000).unwrap().body;
        assert_eq!(shown, der(&format!("{name}.crt")).to_vec(), "{name}");
        let [certificate, key] = ["crt", "key"].map(|end| base64(&fs::read(data(&format!("{name}.{end}"))).unwrap()));
        let user = format!("client-certificate-data: {certificate}\nclient-key-data: {key}");
        assert!(client_of(address, &user).get("/", 10_000).is_ok(), "{name} inline");
    }
    let error = client(address).get("/", 10_000).unwrap_err();
    assert!(matches!(error, KubeError::Io { .. }), "no certificate: {error:?}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

// covers: FM-D06
#[test]
fn a_client_certificate_is_renewed_without_a_restart_and_half_a_rotation_keeps_the_former() {
    let address = mirror();
    let dir = TempDir::new("kube-rotation");
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let user = format!("client-certificate: {}\nclient-key: {}", certificate.display(), key.display());
    let (client, told) = telling(client_of(address, &user));
    let shows = |name: &str| assert_eq!(client.get("/", 10_000).unwrap().body, der(name).to_vec());
    // Of a client that has nothing to go on with.
    let error = || match client_of(address, &user).get("/", 10_000).unwrap_err() {
        KubeError::Credentials(error) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error(), CredentialsError::Read { .. }));
    fs::copy(data("client-sec1.crt"), &certificate).unwrap();
    fs::copy(data("client-sec1.key"), &key).unwrap();
    shows("client-sec1.crt");
    fs::copy(data("client-pkcs8.crt"), &certificate).unwrap();
    let halfway = error();
    assert!(matches!(halfway, CredentialsError::Refused { .. }), "{halfway:?}");
    assert!(whole(&halfway).contains("cert.pem") && whole(&halfway).contains("KeyMismatch"), "{}", whole(&halfway));
    shows("client-sec1.crt");
    shows("client-sec1.crt");
    let kept = told.try_iter().collect::<Vec<_>>();
    assert!(matches!(&kept[..], [Tidings::Kept { what: "certificates", why }] if why.contains("cert.pem")), "{kept:?}");
    fs::copy(data("client-pkcs8.key"), &key).unwrap();
    shows("client-pkcs8.crt");
    assert!(matches!(told.try_iter().collect::<Vec<_>>()[..], [Tidings::Good { what: "certificates", .. }]));
    // The other way round, with one kind of key after another.
    fs::copy(data("client-pkcs1.key"), &key).unwrap();
    assert!(matches!(error(), CredentialsError::Refused { .. }));
    shows("client-pkcs8.crt");
    fs::copy(data("client-pkcs1.crt"), &certificate).unwrap();
    shows("client-pkcs1.crt");
    // What is no key.
    for (content, want) in [
        ("encrypted.key", PemProblem::EncryptedKey),
        ("encrypted-pkcs1.key", PemProblem::EncryptedKey),
        ("client-pkcs1.crt", PemProblem::NoKey),
        ("make", PemProblem::NoKey),
    ] {
        fs::copy(data(content), &key).unwrap();
        match error() {
            CredentialsError::Pem { problem, .. } => assert_eq!(problem, want, "{content}"),
            other => panic!("{content}: {other:?}"),
        }
    }
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n").unwrap();
    assert!(matches!(error(), CredentialsError::Pem { problem: PemProblem::Garbled, .. }));
    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n").unwrap();
    assert!(matches!(error(), CredentialsError::Refused { .. }));
    fs::remove_file(&key).unwrap();
    shows("client-pkcs1.crt");
    // Certificate and key in one file, as the kubelet keeps them, saved on Windows, with a remark in another encoding.
    fs::write(&key, "\u{feff}").unwrap();
    append(&key, "client-sec1-params.key");
    append(&key, "client-sec1-params.crt");
    fs::write(
        &certificate,
        [b"Subject: caf\xe9\r\n".as_slice(), &fs::read(data("client-sec1-params.crt")).unwrap()].concat(),
    )
    .unwrap();
    shows("client-sec1-params.crt");
}

#[test]
fn a_client_tells_when_the_credentials_end_that_it_uses() {
    let server = Server::ok();
    let dir = TempDir::new("kube-expiry");
    let place = |name: &str| dir.path().join(name);
    // As kubelet has it: certificate and key in one file, behind a link.
    let pair = |name: &str| [".crt", ".key"].map(|end| fs::read(data(&format!("{name}{end}"))).unwrap()).concat();
    fs::write(place("kubelet-client-2026.pem"), pair("client-sec1")).unwrap();
    std::os::unix::fs::symlink("kubelet-client-2026.pem", place("kubelet-client-current.pem")).unwrap();
    let claims = |claims: &str| format!("e30.{}.c2ln", base64(claims.as_bytes()).trim_end_matches('='));
    fs::write(place("token"), claims(r#"{"iat":1764201600,"exp":1795478400}"#)).unwrap();
    let user = format!(
        "client-certificate: {0}\nclient-key: {0}\ntokenFile: {1}",
        place("kubelet-client-current.pem").display(),
        place("token").display()
    );
    let access = access(&format!("https://{}", server.address), "certificate-authority: ca.crt", &user);
    let client = client_with(&access, limits());
    assert_eq!(client.expiries(), [], "nothing is in use yet");
    client.get("/", 10).unwrap();
    let told = |expiries: Vec<flock::kube::expiry::Expiry>| {
        expiries.iter().map(|expiry| (expiry.to_string(), expiry.renewed)).collect::<Vec<_>>()
    };
    let lines = |token: &str| {
        let token = format!("the token in {} ends at {token}", place("token").display());
        let certificate = place("kubelet-client-current.pem");
        let certificate = format!("the client certificate in {} ends at 2120-01-01T00:00:00Z", certificate.display());
        vec![(token, false), (certificate, true)]
    };
    assert_eq!(told(client.expiries()), lines("2026-11-24T00:00:00Z"));
    assert_eq!(told(flock::kube::credentials::look(&access).0), lines("2026-11-24T00:00:00Z"), "without a client");
    // What was good before is in use, and that is what counts.
    fs::write(place("token"), "").unwrap();
    client.get("/", 10).unwrap();
    assert_eq!(told(client.expiries()), lines("2026-11-24T00:00:00Z"));
    fs::write(place("token"), claims(r#"{"exp":1795564800}"#)).unwrap();
    client.get("/", 10).unwrap();
    assert_eq!(told(client.expiries()), lines("2026-11-25T00:00:00Z"));
    // A plugin is asked again before what it brought ends.
    let plugin = script(
        &dir,
        r#"echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}}'"#,
    );
    let client = client_of(server.address, &exec(&plugin));
    client.get("/", 10).unwrap();
    assert_eq!(client.expiries(), []);
    assert!(!format!("{access:?}{:?}", flock::kube::credentials::look(&access).0).contains("e30."));
}

// covers: FM-D06
#[test]
fn authorities_are_counted_and_renewed() {
    let server = Server::ok();
    let dir = TempDir::new("kube-ca");
    let path = dir.path().join("ca.crt");
    let cluster = format!("certificate-authority: {}", path.display());
    let client = client_with(&access(&format!("https://{}", server.address), &cluster, "{}"), limits());
    let problem = || match client.get("/", 10).unwrap_err() {
        KubeError::Credentials(CredentialsError::Pem { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    fs::write(&path, "").unwrap();
    assert_eq!(problem(), PemProblem::NoCertificate);
    fs::write(&path, "not a certificate").unwrap();
    assert_eq!(problem(), PemProblem::NoCertificate);
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n").unwrap();
    assert_eq!(problem(), PemProblem::Garbled);
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(client.get("/", 10).unwrap_err(), KubeError::Credentials(CredentialsError::Refused { .. })));
    fs::copy(data("other-ca.crt"), &path).unwrap();
    let error = client.get("/", 10).unwrap_err();
    assert!(matches!(error, KubeError::Io { .. }) && whole(&error).contains("UnknownIssuer"), "{}", whole(&error));
    append(&path, "ca.crt");
    assert_eq!(client.get("/", 10).unwrap().status, 200);
    // Being replaced: the last one is still good.
    for broken in ["", "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"] {
        fs::write(&path, broken).unwrap();
        assert_eq!(client.get("/", 10).unwrap().status, 200);
    }
    // The good one is withdrawn: the connection that it had allowed is not used any more.
    fs::copy(data("other-ca.crt"), &path).unwrap();
    assert!(client.get("/", 10).is_err());
}

#[test]
fn what_is_wrong_inside_the_kubeconfig_is_said_at_once() {
    let cluster = format!("certificate-authority-data: {}", base64(b"nonsense"));
    let error = Client::new(&access("https://127.0.0.1:9", &cluster, "{}"), "x").unwrap_err();
    assert!(
        error.to_string().ends_with("kubeconfig: clusters[b].certificate-authority-data: has no certificate in it"),
        "{error}"
    );
    let inline = format!("certificate-authority-data: {}", base64(&fs::read(data("ca.crt")).unwrap()));
    let error = Client::new(&access("https://127.0.0.1:9", &inline, "token: \"hunter2\\nhunter2\""), "x").unwrap_err();
    assert!(matches!(&error, KubeError::Credentials(CredentialsError::BadToken(_))), "{error:?}");
    assert!(!whole(&error).contains("hunter2"));
    // What stands in files may become good.
    for user in ["tokenFile: absent", "client-certificate: absent\nclient-key: absent"] {
        assert!(Client::new(&access("https://127.0.0.1:9", &inline, user), "x").is_ok(), "{user}");
    }
    let error = Client::new(&access("https://127.0.0.1:9", "proxy-url: socks5://p", "{}"), "x").unwrap_err();
    assert!(matches!(error, KubeError::Proxy(_)));
    let error = Client::new(&access("https://a_.-:9", "insecure-skip-tls-verify: true", "{}"), "x").unwrap_err();
    assert!(matches!(error, KubeError::BadRequest("the server's name")), "{error:?}");
    let error = Client::new(&access("https://a:9", "insecure-skip-tls-verify: true", "{}"), "a\nb").unwrap_err();
    assert!(matches!(error, KubeError::BadRequest("the user agent")), "{error:?}");
}

// A kubeconfig that changes.

/// A client whose tidings can be looked at.
fn telling(client: Client) -> (Client, Receiver<Tidings>) {
    let (sender, told) = channel();
    let sender = Mutex::new(sender);
    (client.telling(move |tidings| sender.lock().unwrap().send(tidings).unwrap()), told)
}

/// The text of a kubeconfig with certificate authorities that are found from anywhere.
fn kubeconfig(server: SocketAddr, user: &str) -> String {
    format!(
        "current-context: a\ncontexts: [{{name: a, context: {{cluster: b, user: c}}}}]\nclusters:\n- name: b\n  cluster: \
         {{server: 'https://{server}', certificate-authority: {}}}\nusers:\n- name: c\n  user: {{{user}}}\n",
        data("ca.crt").display()
    )
}

fn client_of_file(path: &Path) -> (Client, Receiver<Tidings>) {
    telling(client_with(&from_file(path).unwrap(), limits()))
}

// covers: FM-R01
#[test]
fn a_rewritten_kubeconfig_counts_at_once_and_on_the_same_connection() {
    let dir = TempDir::new("kube-rewritten");
    let server = Server::answering(|conn, request| match request.header("authorization") {
        Some("Bearer old") => conn.answer("401 Unauthorized", "", ""),
        _ => conn.answer("200 OK", "", "{}"),
    });
    // As the kubelet mounts a Secret: the file is a link through a link that is switched.
    for version in ["1", "2"] {
        fs::create_dir(dir.path().join(version)).unwrap();
    }
    let path = dir.path().join("config");
    std::os::unix::fs::symlink("1", dir.path().join("data")).unwrap();
    std::os::unix::fs::symlink("data/config", &path).unwrap();
    let real = dir.path().join("1/config");
    let text = |user: &str| kubeconfig(server.address, user);
    fs::write(&real, text("token: old")).unwrap();
    let (client, told) = client_of_file(&path);
    let said = |status: u16, want: Option<&str>| {
        assert_eq!(client.get("/", 10).unwrap().status, status);
        let seen = server.next();
        assert_eq!((seen.header("authorization"), seen.connection), (want, 0));
    };
    said(401, Some("Bearer old"));
    // In place.
    fs::write(&real, text("token: two")).unwrap();
    said(200, Some("Bearer two"));
    // By a rename, of the same length.
    fs::write(dir.path().join("new"), text("token: six")).unwrap();
    fs::rename(dir.path().join("new"), &real).unwrap();
    said(200, Some("Bearer six"));
    // By switching the link.
    fs::write(dir.path().join("2/config"), text("token: four")).unwrap();
    std::os::unix::fs::symlink("2", dir.path().join("data-new")).unwrap();
    fs::rename(dir.path().join("data-new"), dir.path().join("data")).unwrap();
    said(200, Some("Bearer four"));
    // Another kind of login altogether, and none.
    fs::write(&path, text("username: u, password: p")).unwrap();
    said(200, Some("Basic dTpw"));
    fs::write(dir.path().join("token"), "five").unwrap();
    fs::write(&path, text("tokenFile: token")).unwrap();
    said(200, Some("Bearer five"));
    // Rewritten by another tool while the token is just being renewed.
    fs::remove_file(dir.path().join("token")).unwrap();
    fs::write(&path, format!("\u{feff}# same\r\n{}", text("tokenFile: token"))).unwrap();
    said(200, Some("Bearer five"));
    fs::write(&path, text("")).unwrap();
    said(200, None);
    let told: Vec<Tidings> = told.try_iter().collect();
    assert_eq!(told.iter().filter(|tidings| matches!(tidings, Tidings::Good { what: "kubeconfig", .. })).count(), 7);
    assert!(!format!("{told:?}").contains("four"));
}

#[test]
fn a_kubeconfig_that_is_broken_for_a_moment_keeps_the_former_and_is_told_once() {
    let dir = TempDir::new("kube-broken");
    let server = Server::ok();
    let path = dir.path().join("config");
    let good = kubeconfig(server.address, "token: hunter2");
    let certificates = format!("client-certificate-data: {0}, client-key-data: {0}", base64(b"nonsense"));
    fs::write(&path, &good).unwrap();
    let (client, told) = client_of_file(&path);
    let works = || {
        assert_eq!(client.get("/", 10).unwrap().status, 200);
        assert_eq!(server.next().header("authorization"), Some("Bearer hunter2"));
    };
    works();
    for broken in [
        "",
        "\u{0}\u{0}\u{0}",
        &good[..good.len() / 2],
        &good[..good.len() - 12],
        "kind: Secret\ndata: {}\n",
        &format!("{good}---\n{good}"),
        &good.replace("https", "ftp"),
        &good.replace("token: hunter2", "auth-provider: {name: gcp}"),
        &good.replace("token: hunter2", "as-groups: [system:masters]"),
        &good.replace("token: hunter2", "token: \"hunter3\\nhunter3\""),
        &good.replace("token: hunter2", &certificates),
        &good.replace("server:", "proxy-url: 'socks5://p', server:"),
    ] {
        fs::write(&path, broken).unwrap();
        works();
        works();
        let said: Vec<Tidings> = told.try_iter().collect();
        assert!(matches!(&said[..], [Tidings::Kept { what: "kubeconfig", .. }]), "{broken}: {said:?}");
        assert!(!format!("{said:?}").contains("hunter"), "{said:?}");
    }
    // The former content again.
    fs::write(&path, &good).unwrap();
    works();
    assert!(matches!(told.try_iter().collect::<Vec<_>>()[..], [Tidings::Good { what: "kubeconfig", .. }]));
    // One that names a file which is written after it.
    let late = dir.path().join("late");
    fs::write(&path, good.replace("token: hunter2", "tokenFile: late")).unwrap();
    works();
    works();
    assert!(matches!(told.try_iter().collect::<Vec<_>>()[..], [Tidings::Kept { what: "kubeconfig", .. }]));
    fs::write(&late, "hunter2").unwrap();
    works();
    assert!(matches!(told.try_iter().collect::<Vec<_>>()[..], [Tidings::Good { what: "kubeconfig", .. }]));
    // Nothing to read, in any way; and back without a change.
    let away = dir.path().join("away");
    for place in [None, Some("mkfifo"), Some("mkdir")] {
        fs::rename(&path, &away).unwrap();
        if let Some(program) = place {
            succeed(std::process::Command::new(program).arg(&path));
        }
        works();
        works();
        fs::rename(&path, dir.path().join("odd")).ok();
        fs::remove_file(dir.path().join("odd")).ok();
        fs::remove_dir(dir.path().join("odd")).ok();
        fs::rename(&away, &path).unwrap();
        works();
        let said: Vec<Tidings> = told.try_iter().collect();
        assert!(matches!(&said[..], [Tidings::Kept { .. }, Tidings::Good { .. }]), "{place:?}: {said:?}");
    }
}

#[test]
fn inline_certificates_of_a_rewritten_kubeconfig_are_shown() {
    let dir = TempDir::new("kube-inline");
    let address = mirror();
    let path = dir.path().join("config");
    let write = |name: &str| {
        let [certificate, key] = ["crt", "key"].map(|end| base64(&fs::read(data(&format!("{name}.{end}"))).unwrap()));
        let user = format!("client-certificate-data: {certificate}, client-key-data: {key}");
        fs::write(&path, kubeconfig(address, &user)).unwrap();
    };
    write("client-sec1");
    let (client, _told) = client_of_file(&path);
    for name in ["client-sec1", "client-pkcs8", "client-ed25519"] {
        write(name);
        assert_eq!(client.get("/", 10_000).unwrap().body, der(&format!("{name}.crt")).to_vec());
    }
}

/// A server that has one NodeConfig of this version, and tells what it is asked.
fn server_with_version(version: &'static str) -> (SocketAddr, Receiver<String>) {
    let (sender, asked) = channel();
    let sender = Mutex::new(sender);
    let address = Server::run(move |mut conn| {
        conn.answer_all(|conn, request| {
            sender.lock().unwrap().send(request.line().to_owned()).unwrap();
            if request.line().contains("watch=1") {
                conn.begin();
                conn.wait_for_end();
            } else {
                conn.answer(
                    "200 OK",
                    "",
                    format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\"}},\"items\":[]}}"),
                );
            }
        });
    });
    (address, asked)
}

#[test]
fn a_watch_follows_the_kubeconfig_to_another_server_and_begins_anew_there() {
    struct Nobody;
    impl Audience<NodeConfigObject> for Nobody {
        fn changed(&mut self, _: Changes<NodeConfigObject>, _: &Arc<Objects<NodeConfigObject>>) {}
        fn notice(&mut self, _: WatchNotice) {}
    }
    let dir = TempDir::new("kube-moved");
    let path = dir.path().join("config");
    let (first, asked_first) = server_with_version("900");
    let (second, asked_second) = server_with_version("7");
    fs::write(&path, kubeconfig(first, "token: t")).unwrap();
    let (client, told) = client_of_file(&path);
    let (stop, stopped) = channel();
    thread::scope(|scope| {
        let client = &client;
        scope.spawn(move || reflect(client, NodeConfigs { node: "n".into() }, &stopped, &mut Nobody));
        assert!(!asked_first.recv_timeout(PATIENCE).unwrap().contains("watch=1"));
        assert!(asked_first.recv_timeout(PATIENCE).unwrap().contains("resourceVersion=900"));
        // Nothing is asked while a watch is open, so somebody has to look.
        client.look();
        assert_eq!((client.moves(), told.try_iter().count()), (0, 0));
        fs::write(&path, kubeconfig(second, "token: t")).unwrap();
        client.look();
        let list = asked_second.recv_timeout(PATIENCE).unwrap();
        assert!(!list.contains("watch=1") && !list.contains("resourceVersion"), "{list}");
        assert!(asked_second.recv_timeout(PATIENCE).unwrap().contains("resourceVersion=7"));
        assert_eq!(client.moves(), 1);
        let Tidings::Good { server, .. } = told.recv_timeout(PATIENCE).unwrap() else { panic!("moved") };
        assert_eq!(server, format!("https://{second}"));
        drop(stop);
        client.shutdown();
    });
    assert_eq!(asked_first.try_iter().count(), 0);
}

/// A NodePeer as an item of a list.
fn node_peer(name: &str, range: &str) -> String {
    format!(r#"{{"metadata":{{"name":"{name}","uid":"u-{name}"}},"spec":{{"cidr4":"{range}","nextHops":[]}}}}"#)
}

#[test]
fn a_list_that_breaks_off_in_the_middle_takes_no_node_away_and_brings_none() {
    enum Told {
        Nodes(Vec<String>),
        Failed(String),
    }
    struct Teller(Sender<Told>);
    impl Audience<Peer> for Teller {
        fn changed(&mut self, _: Changes<Peer>, nodes: &Arc<Objects<Peer>>) {
            self.0.send(Told::Nodes(nodes.keys().map(|name| name.name.clone()).collect())).unwrap();
        }
        fn notice(&mut self, notice: WatchNotice) {
            if let WatchNotice::Failed { verb: "list", message, .. } = notice {
                self.0.send(Told::Failed(message)).unwrap();
            }
        }
    }
    // The whole list, one that the connection leaves in the middle of a node, and one without a node that has gone meanwhile.
    let lists = AtomicUsize::new(0);
    let address = Server::run(move |mut conn| {
        conn.answer_all(|conn, request| {
            if request.line().contains("watch=1") {
                conn.begin();
                return conn.chunk("{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n");
            }
            let list = lists.fetch_add(1, Ordering::SeqCst);
            conn.begin();
            conn.chunk(r#"{"kind":"NodePeerList","items":["#);
            conn.chunk(node_peer("one", "10.1.0.0/24"));
            match list {
                0 => conn.chunk(format!(",{}", node_peer("two", "10.2.0.0/24"))),
                1 => {
                    conn.chunk(format!(",{}", &node_peer("three", "10.3.0.0/24")[..30]));
                    return conn.stream.sock.shutdown(Shutdown::Both).unwrap();
                }
                _ => {}
            }
            conn.chunk(r#"],"metadata":{"resourceVersion":"7"}}"#);
            conn.say(END);
        });
    });
    let client = client(address);
    let (tell, told) = channel();
    let (stop, stopped) = channel();
    thread::scope(|scope| {
        let client = &client;
        scope.spawn(move || reflect(client, NodePeers, &stopped, &mut Teller(tell)));
        let next = || told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(next(), Told::Nodes(nodes) if nodes == ["one", "two"]));
        let Told::Failed(why) = next() else { panic!("another set of nodes") };
        assert!(why.starts_with(&format!("cannot talk to https://{address}")), "{why}");
        assert!(matches!(next(), Told::Nodes(nodes) if nodes == ["one"]));
        drop(stop);
        client.shutdown();
    });
}

#[test]
fn a_list_that_nobody_wants_any_more_ends_in_the_middle() {
    struct Nobody;
    impl Audience<Peer> for Nobody {
        fn changed(&mut self, _: Changes<Peer>, _: &Arc<Objects<Peer>>) {
            panic!("the list never came to its end");
        }
        fn notice(&mut self, notice: WatchNotice) {
            panic!("nobody is told: {notice:?}");
        }
    }
    let (tell, began) = channel();
    let tell = Mutex::new(tell);
    let address = Server::run(move |mut conn| {
        conn.answer_all(|conn, _| {
            conn.begin();
            conn.chunk(r#"{"kind":"NodePeerList","items":["#);
            for number in 0.. {
                let comma = if number == 0 { "" } else { "," };
                let chunk = format!("{comma}{}", node_peer(&format!("n{number}"), "10.1.0.0/24"));
                if write!(conn.stream, "{:x}\r\n{chunk}\r\n", chunk.len()).is_err() {
                    return;
                }
                if number == 1000 {
                    tell.lock().unwrap().send(()).unwrap();
                }
            }
        });
    });
    let client = client(address);
    let (stop, stopped) = channel();
    thread::scope(|scope| {
        let client = &client;
        let reflecting = scope.spawn(move || reflect(client, NodePeers, &stopped, &mut Nobody));
        began.recv_timeout(PATIENCE).unwrap();
        drop(stop);
        assert!(reflecting.join().unwrap().is_empty());
    });
}

#[test]
fn a_long_answer_has_a_limit_and_is_refused_like_a_short_one() {
    let server = Server::answering(|conn, request| match request.line().contains("/none") {
        true => conn.answer("404 Not Found", "", "no such thing"),
        false => conn.answer("200 OK", "", [b' '; 1000]),
    });
    let client = client(server.address);
    let body = |limit| match client.download("/things", Form::Whole, limit).unwrap() {
        Download::Body(body) => body,
        Download::Refused(answer) => panic!("{answer:?}"),
    };
    let (mut whole, mut text) = (body(1000), Vec::new());
    whole.read_to_end(&mut text).unwrap();
    assert!(text.len() == 1000 && whole.failure().is_none());
    let mut long = body(999);
    assert!(long.read_to_end(&mut text).is_err());
    assert!(matches!(long.failure(), Some(KubeError::TooLong(999))));
    let Download::Refused(answer) = client.download("/none", Form::Whole, 1).unwrap() else { panic!("a body") };
    assert_eq!((answer.status, answer.body.as_slice()), (404, &b"no such thing"[..]));
}

// covers: FM-Q11
#[test]
fn nothing_that_stands_in_the_place_of_a_file_makes_a_request_wait() {
    let dir = TempDir::new("kube-fifo");
    let fifo = dir.path().join("fifo");
    succeed(std::process::Command::new("mkfifo").arg(&fifo));
    let fifo = fifo.display();
    let server = Server::ok();
    let url = format!("https://{}", server.address);
    for (cluster, user) in [
        ("certificate-authority: ca.crt".to_owned(), format!("tokenFile: {fifo}")),
        (format!("certificate-authority: {fifo}"), "{}".into()),
        ("certificate-authority: ca.crt".into(), format!("client-certificate: {fifo}\nclient-key: {fifo}")),
        (
            "certificate-authority: ca.crt".into(),
            format!("exec: {{apiVersion: client.authentication.k8s.io/v1, command: {fifo}}}"),
        ),
        (
            format!("certificate-authority: {fifo}"),
            "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/true, provideClusterInfo: yes}".into(),
        ),
    ] {
        let client = client_with(&access(&url, &cluster, &user), limits());
        let began = Instant::now();
        let error = client.get("/", 10).unwrap_err();
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        let text = flock::kube::explained(&error);
        assert!(text.contains("regular file") || text.contains("ermission denied"), "{text}");
    }
    let error = from_file(&dir.path().join("fifo")).unwrap_err();
    assert!(flock::kube::explained(&error).contains("not a regular file"), "{error}");
}

#[test]
fn the_node_config_of_the_deploy_page_is_valid() {
    let page = include_str!("../../deploy/README.md");
    let text = page.split("<<YAML\n").find(|text| text.contains("kind: NodeConfig")).unwrap();
    let config = model::nodeconfig::parse(text.split("YAML\n").next().unwrap()).unwrap();
    assert_eq!((config.name.as_str(), config.cidr6.is_some(), config.cidr4.is_some()), ("host001", true, true));
}

// Names.

#[test]
fn servers_go_by_address_and_by_name() {
    let ok = |conn: Tls| {
        let mut conn = conn;
        conn.answer_all(|conn, request| {
            let host = request.header("host").unwrap().to_owned();
            conn.answer("200 OK", "", host);
        });
    };
    let v4 = Server::start(tls("server", Wants::Anyone), "127.0.0.1", ok);
    let v6 = Server::start(tls("server", Wants::Anyone), "::1", ok);
    for host in [v4.to_string(), v6.to_string(), format!("localhost:{}", v4.port())] {
        let access = access(&format!("https://{host}"), "certificate-authority: ca.crt", "{}");
        assert_eq!(client_with(&access, limits()).get("/", 100).unwrap().body, host.as_bytes(), "{host}");
    }
    let named = Server::start(tls("named", Wants::Anyone), "127.0.0.1", ok);
    let client = |cluster: &str| client_with(&access(&format!("https://{named}"), cluster, "{}"), limits());
    let error = client("certificate-authority: ca.crt").get("/", 100).unwrap_err();
    assert!(whole(&error).contains("not valid for name"), "{}", whole(&error));
    let cluster = "certificate-authority: ca.crt\ntls-server-name: kubernetes.default.svc";
    assert_eq!(client(cluster).get("/", 100).unwrap().body, named.to_string().as_bytes(), "the URL's host is still it");
    let wrong = "certificate-authority: ca.crt\ntls-server-name: other.default.svc";
    assert!(client(wrong).get("/", 100).is_err());
    assert_eq!(client("insecure-skip-tls-verify: true").get("/", 100).unwrap().status, 200);
    let unknown = access("https://no-such-host.invalid", "certificate-authority: ca.crt", "{}");
    // How fast depends on the machine's name server.
    let error = client_with(&unknown, limits()).get("/", 1).unwrap_err();
    assert!(matches!(error, KubeError::Io { .. } | KubeError::TimedOut { .. }), "{error:?}");
}

#[test]
fn a_local_proxy_may_speak_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut conn = Conn { stream, number: 0 };
        conn.request().unwrap();
        conn.answer("200 OK", "", "{}");
    });
    let client = client_with(&access(&format!("http://{address}"), "extensions: []", "{}"), limits());
    assert_eq!(client.get("/", 10).unwrap().body, b"{}");
}

// Proxies.

/// A proxy that answers CONNECT so, and then connects to where it was asked to.
fn proxy(answer: &'static str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut conn = Conn { stream: stream.unwrap(), number };
            let head = conn.request().unwrap().head;
            let target = head.split(' ').nth(1).unwrap().to_owned();
            sender.send(head).unwrap();
            conn.say(answer);
            if !answer.starts_with("HTTP/1.1 200") {
                continue;
            }
            let far = TcpStream::connect(target).unwrap();
            let near = conn.stream;
            let (mut near_in, mut far_in) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (mut near_out, mut far_out) = (near, far);
            thread::spawn(move || io::copy(&mut near_in, &mut far_out));
            thread::spawn(move || {
                io::copy(&mut far_in, &mut near_out).ok();
                near_out.shutdown(Shutdown::Both).ok();
            });
        }
    });
    (address, seen)
}

#[test]
fn a_proxy_is_asked_to_connect_and_sees_nothing_else() {
    let server = Server::answering(|conn, request| {
        if request.line().starts_with("GET /watch") {
            conn.begin();
            conn.chunk("{}\n");
            conn.wait_for_end();
        } else {
            conn.answer("200 OK", "", "{}");
        }
    });
    let (address, seen) = proxy("HTTP/1.1 200 Connection established\r\n\r\n");
    let cluster = format!("certificate-authority: ca.crt\nproxy-url: http://user:hunter2@{address}");
    let client = client_with(&access(&format!("https://{}", server.address), &cluster, "token: t0k"), limits());
    assert_eq!(client.get("/", 10).unwrap().status, 200);
    let head = seen.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", server.address)), "{head}");
    assert!(head.contains(&format!("Proxy-Authorization: Basic {}\r\n", base64(b"user:hunter2"))), "{head}");
    assert!(!head.contains("t0k"));
    assert_eq!(server.next().header("authorization"), Some("Bearer t0k"));
    // And it is no obstacle to an end.
    let mut lines = watch(&client, "/watch", LONG);
    lines.next().unwrap();
    assert!(shut_down_while(&client, || (), move || lines.next().unwrap_err()).is_stopped());
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[test]
fn a_proxy_that_refuses_is_named_without_its_password() {
    let (address, _seen) = proxy("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
    let cluster = format!("certificate-authority: ca.crt\nproxy-url: http://user:hunter2@{address}");
    let client = client_with(&access("https://192.0.2.1:6443", &cluster, "token: hunter2"), limits());
    let text = whole(&client.get("/", 10).unwrap_err());
    assert!(text.contains("407") && !text.contains("hunter2"), "{text}");
}

// Plugins.

fn script(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("plugin");
    put_script(&path, text);
    path
}

fn exec(path: &Path) -> String {
    format!(
        "exec:\n  apiVersion: client.authentication.k8s.io/v1\n  command: {}\n  interactiveMode: Never\n  env: [{{name: SECRET, value: hunter2}}]",
        path.display()
    )
}

#[test]
fn a_plugin_runs_when_it_must_and_not_more_often() {
    let dir = TempDir::new("kube-plugin");
    let (runs, expiry) = (dir.path().join("runs"), dir.path().join("expiry"));
    let plugin = script(
        &dir,
        &format!(
            "echo run >> {0}\nprintf '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"%s-%s\"%s}}}}' \
             \"$SECRET\" $(wc -l < {0}) \"$(cat {1})\"",
            runs.display(),
            expiry.display()
        ),
    );
    fs::write(&expiry, ",\"expirationTimestamp\":\"2020-01-01T00:00:00Z\"").unwrap();
    let server = Server::answering(|conn, request| match request.header("authorization") {
        Some("Bearer hunter2-3") => conn.answer("401 Unauthorized", "", ""),
        _ => conn.answer("200 OK", "", "{}"),
    });
    let client = client_of(server.address, &exec(&plugin));
    let said = |status: u16, want: &str| {
        assert_eq!(client.get("/", 10).unwrap().status, status);
        assert_eq!(server.next().header("authorization"), Some(want));
    };
    // Expired when it comes: asked each time.
    said(200, "Bearer hunter2-1");
    said(200, "Bearer hunter2-2");
    fs::write(&expiry, ",\"expirationTimestamp\":\"2220-01-01T00:00:00Z\"").unwrap();
    // The server does not believe the third: asked again.
    said(401, "Bearer hunter2-3");
    said(200, "Bearer hunter2-4");
    said(200, "Bearer hunter2-4");
    assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 4);
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[test]
fn a_plugin_may_bring_a_certificate() {
    let dir = TempDir::new("kube-plugin-cert");
    let quoted = |name: &str| serde_json::to_string(&fs::read_to_string(data(name)).unwrap()).unwrap();
    let reply = |certificate: &str| {
        format!(
            "{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"clientCertificateData\":{},\"clientKeyData\":{}}}}}",
            quoted(certificate),
            quoted("client-pkcs8.key")
        )
    };
    let path = dir.path().join("reply");
    let plugin = script(&dir, &format!("cat {}", path.display()));
    fs::write(&path, reply("client-pkcs8.crt")).unwrap();
    let address = mirror();
    let client = client_of(address, &exec(&plugin));
    assert_eq!(client.get("/", 10_000).unwrap().body, der("client-pkcs8.crt").to_vec());
    fs::write(&path, reply("client-sec1.crt")).unwrap();
    let error = client_of(address, &exec(&plugin)).get("/", 10).unwrap_err();
    assert!(matches!(error, KubeError::Credentials(CredentialsError::Refused { .. })), "{error:?}");
    fs::write(&path, "hunter2").unwrap();
    let error = client_of(address, &exec(&plugin)).get("/", 10).unwrap_err();
    assert!(matches!(error, KubeError::Credentials(CredentialsError::Plugin(_))), "{error:?}");
    assert!(!whole(&error).contains("hunter2"));
}

#[test]
fn a_plugin_may_print_yaml_and_hears_of_the_authorities_as_they_are_now() {
    let dir = TempDir::new("kube-plugin-yaml");
    let (heard, authorities) = (dir.path().join("heard"), dir.path().join("ca.crt"));
    fs::copy(data("ca.crt"), &authorities).unwrap();
    let plugin = script(
        &dir,
        &format!(
            "printf '%s' \"$KUBERNETES_EXEC_INFO\" > {}\nprintf '\\357\\273\\277---\\r\\napiVersion: client.authentication.k8s.io/v1\\r\\nkind: ExecCredential\\r\\n'\n\
             printf 'status: {{token: yam, expirationTimestamp: \"2020-01-01T00:00:00Z\"}}\\r\\n---\\r\\n'",
            heard.display()
        ),
    );
    let server = Server::ok();
    let user = format!("{}\n  provideClusterInfo: yes", exec(&plugin));
    let cluster = format!("certificate-authority: {}", authorities.display());
    let client = client_with(&access(&format!("https://{}", server.address), &cluster, &user), limits());
    for appended in [None, Some("other-ca.crt")] {
        appended.into_iter().for_each(|name| append(&authorities, name));
        client.get("/", 10).unwrap();
        assert_eq!(server.next().header("authorization"), Some("Bearer yam"));
        let info: serde_json::Value = serde_json::from_slice(&fs::read(&heard).unwrap()).unwrap();
        let told = info["spec"]["cluster"]["certificate-authority-data"].as_str().unwrap().to_owned();
        assert_eq!(told, base64(&fs::read(&authorities).unwrap()));
    }
}

// Secrets.

#[test]
fn nothing_that_is_printed_holds_a_secret() {
    let server = Server::answering(|conn, request| {
        // A server that repeats what it heard.
        let heard = request.head.clone();
        conn.answer("401 Unauthorized", "", heard);
    });
    let user = "token: hunter2";
    let access = access(&format!("https://{}", server.address), "certificate-authority: ca.crt", user);
    let client = client_with(&access, limits());
    let answer = client.get("/", 10_000).unwrap();
    assert!(String::from_utf8_lossy(&answer.body).contains("hunter2"));
    let refused = client.watch("/", Form::Whole, LONG).unwrap();
    let long = client.get("/", 10).unwrap_err();
    client.shutdown();
    for shown in [
        format!("{client:?}"),
        format!("{access:?}"),
        format!("{answer:?}"),
        format!("{refused:?}"),
        whole(&long),
        whole(&client.get("/", 10).unwrap_err()),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
