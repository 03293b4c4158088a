//! The port at which Prometheus asks for the metrics, by HTTP/1.1 with one request per connection.
//!
//! A handful of connections at once, each with little time and little memory; further ones wait in the kernel. No call of the
//! plugin waits for any of them. A port that cannot be had is told and tried again: metrics are no reason not to serve pods.
//! Must not say anything that the page does not.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::lock::{Changed, Lock};
use crate::process::log;
use crate::process::log::lasting::Lasting;

/// Most connections that are answered at once: two Prometheus servers, and somebody who looks.
pub const CONNECTIONS: usize = 4;

/// Time for a request to arrive, and for its answer to leave, 2 s each.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Longest head of a request, in bytes. Prometheus sends some 400.
const HEAD_MAX: usize = 8 << 10;

/// Interval between tries to have the port, 5 s.
const RETRY: Duration = Duration::from_secs(5);

/// Where the metrics are asked for.
const PATH: &str = "/metrics";

/// The content type of the page.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Makes the page.
type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Answers at `address`, for ever. For a thread of its own.
pub fn run(address: SocketAddr, render: Render) {
    let inside = Arc::new(Inside::default());
    let mut trouble = Lasting::default();
    loop {
        let ended = match TcpListener::bind(address) {
            Ok(listener) => {
                trouble.over(|| log::info("metrics can be asked for").with("address", address));
                log::debug("metrics are served").with("address", address).write();
                accept(&listener, &inside, &render)
            }
            Err(error) => error,
        };
        let why = format!("--metrics {address}: {}", words(&ended, address));
        trouble.met(why, || log::error("metrics cannot be asked for"));
        thread::sleep(RETRY);
    }
}

/// What an operator has to know of an error of a port.
fn words(error: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("somebody else listens there (ss -ltnp sport = :{port} shows who)"),
        io::ErrorKind::AddrNotAvailable => {
            format!("this host does not have that address; [::]:{port} is all that it has")
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, which flock-agent does not have".into()
        }
        _ if address.is_ipv6() => format!("{error}; 0.0.0.0:{port} is all IPv4 addresses of a host without IPv6"),
        _ => error.to_string(),
    }
}

/// Takes connections as long as there is room. Returns why that ended.
fn accept(listener: &TcpListener, inside: &Arc<Inside>, render: &Render) -> io::Error {
    loop {
        inside.enter();
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                inside.leave();
                match error.kind() {
                    // It has gone before it was taken.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                    _ => return error,
                }
            }
        };
        let (theirs, render) = (inside.clone(), render.clone());
        let spawned = thread::Builder::new().name("scrape".into()).spawn(move || {
            // Whoever asks sees whether that has worked.
            serve(stream, &render).ok();
            theirs.leave();
        });
        if spawned.is_err() {
            inside.leave();
        }
    }
}

/// How many connections there are.
#[derive(Debug, Default)]
struct Inside {
    count: Lock<usize>,
    left: Changed,
}

impl Inside {
    fn enter(&self) {
        let mut count = self.count.lock();
        while *count >= CONNECTIONS {
            count = self.left.wait(count);
        }
        *count += 1;
    }

    fn leave(&self) {
        *self.count.lock() -= 1;
        self.left.wake_one();
    }
}

/// Answers one request, and ends the connection.
fn serve(mut stream: TcpStream, render: &Render) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let (answer, until) = (answer(&head, render), Instant::now() + PATIENCE);
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(rest) {
            Ok(length) => rest = rest.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads up to the empty line behind the head of a request, for so long and so far.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let until = Instant::now() + PATIENCE;
    let (mut head, mut piece) = (Vec::new(), [0; 1024]);
    while head.len() <= HEAD_MAX && !ends(&head) {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => head.extend(piece.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

fn ends(head: &[u8]) -> bool {
    head.windows(4).any(|bytes| bytes == b"\r\n\r\n") || head.windows(2).any(|bytes| bytes == b"\n\n")
}

/// The answer to a request with this head.
fn answer(head: &[u8], render: &Render) -> Vec<u8> {
    let refuse = |status: &str, more: &str| {
        let body = format!("{status}\n");
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n\
             {body}"
        )
        .into_bytes()
    };
    if head.len() > HEAD_MAX {
        return refuse("431 Request Header Fields Too Large", "");
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = str::from_utf8(line).map(|line| line.trim_end_matches('\r')).unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let (method, target) = match words[..] {
        [method, target, version] if version.starts_with("HTTP/1.") && ends(head) => (method, target),
        _ => return refuse("400 Bad Request", ""),
    };
    if target.split(['?', '#']).next() != Some(PATH) {
        return refuse("404 Not Found", "");
    }
    if !matches!(method, "GET" | "HEAD") {
        return refuse("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
    }
    let page = render();
    let length = page.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let body = if method == "GET" { page.as_str() } else { "" };
    [head.as_str(), body].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_by_what_it_asks() {
        let render: Render = Arc::new(|| "x 1\n".into());
        let asked = |head: &str| String::from_utf8(answer(head.as_bytes(), &render)).expect("text");
        let page = asked("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{page}");
        assert!(page.contains("Content-Length: 4\r\n") && page.ends_with("\r\n\r\nx 1\n"), "{page}");
        assert_eq!(asked("GET /metrics?x=1 HTTP/1.0\n\n"), page);
        let head = asked("HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("GET /metricsx HTTP/1.1\r\n\r\n", "404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request"),
            ("GET /metrics\r\n\r\n", "400 Bad Request"),
            ("GET /metrics HTTP/1.1\r\n", "400 Bad Request"),
            ("", "400 Bad Request"),
            (&"x".repeat(HEAD_MAX + 1), "431 Request Header Fields Too Large"),
        ] {
            let answer = asked(head);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}: {answer}");
        }
        let bytes = answer(b"GET /m\xff HTTP/1.1\r\n\r\n", &render);
        assert!(bytes.starts_with(b"HTTP/1.1 400"));
    }

    #[test]
    fn an_error_of_the_port_says_what_to_do() {
        let address: SocketAddr = "[::]:80".parse().expect("literal");
        for (kind, remedy) in [
            (io::ErrorKind::AddrInUse, "ss -ltnp sport = :80"),
            (io::ErrorKind::AddrNotAvailable, "[::]:80"),
            (io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (io::ErrorKind::Unsupported, "0.0.0.0:80"),
        ] {
            assert!(words(&kind.into(), address).contains(remedy), "{kind:?}");
        }
    }
}
