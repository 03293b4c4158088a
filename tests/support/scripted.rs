//! An agent that does what a test says instead of its work.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::host::Host;

/// A listening socket with a script behind it. Nobody listens any more once it is dropped.
pub struct Scripted {
    path: PathBuf,
    over: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    /// Listens on `path` and gives each connection, with its number from 0, to `serve`, on a thread of its own.
    pub fn start(path: impl Into<PathBuf>, serve: impl Fn(usize, UnixStream) + Send + Sync + 'static) -> Scripted {
        let path = path.into();
        std::fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path).expect("a socket can be bound");
        let over = Arc::new(AtomicBool::new(false));
        let ending = over.clone();
        let serve = Arc::new(serve);
        let accepting = thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                if ending.load(Ordering::SeqCst) {
                    return;
                }
                let serve = serve.clone();
                let stream = stream.expect("a connection");
                thread::spawn(move || serve(number, stream));
            }
        });
        Scripted { path, over, accepting: Some(accepting), seen: Arc::default() }
    }

    /// Reads each request and answers it with what `answer` makes of it and of the connection's number; without an
    /// answer it hangs up.
    pub fn answering(
        path: impl Into<PathBuf>,
        answer: impl Fn(usize, &Value) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Scripted {
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let record = seen.clone();
        let mut agent = Scripted::start(path, move |number, mut stream| {
            let Some(request) = read_request(&stream) else { return };
            record.lock().expect("unpoisoned").push(request.clone());
            if let Some(bytes) = answer(number, &request) {
                // A caller may have gone away meanwhile.
                stream.write_all(&bytes).ok();
            }
        });
        agent.seen = seen;
        agent
    }

    /// Answers everything with success, and ADD with [`a_result`].
    pub fn obliging(path: impl Into<PathBuf>) -> Scripted {
        Scripted::answering(path, |_, request| Some(success(request)))
    }

    /// Takes every request and never answers.
    pub fn silent(path: impl Into<PathBuf>) -> Scripted {
        Scripted::start(path, |_, stream| wait_for_end(stream))
    }

    /// The requests that came, for scripts that read them.
    pub fn seen(&self) -> Vec<Value> {
        self.seen.lock().expect("unpoisoned").clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let woken = UnixStream::connect(&self.path).is_ok();
        if let Some(accepting) = self.accepting.take().filter(|_| woken) {
            accepting.join().ok();
        }
        std::fs::remove_file(&self.path).ok();
    }
}

/// One line of JSON.
pub fn read_request(stream: &UnixStream) -> Option<Value> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    assert!(line.is_empty() || line.ends_with('\n'), "half a request");
    serde_json::from_str(&line).ok()
}

/// Reads until the peer is gone.
pub fn wait_for_end(mut stream: UnixStream) {
    let mut piece = [0u8; 4096];
    while stream.read(&mut piece).is_ok_and(|length| length > 0) {}
}

/// An answer as one line.
pub fn line(answer: &Value) -> Vec<u8> {
    format!("{answer}\n").into_bytes()
}

/// What [`Scripted::obliging`] says.
pub fn success(request: &Value) -> Vec<u8> {
    let answer = if request["op"] == "ADD" { json!({"result": a_result()}) } else { json!({}) };
    line(&answer)
}

/// A result with a host end and a pod end and an address of each family.
pub fn a_result() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "flock1a2b3c4d", "mac": "02:00:00:00:00:01", "mtu": 1500},
            {"name": "eth0", "mac": "02:00:00:00:00:ab", "mtu": 1500, "sandbox": "/run/netns/x"},
        ],
        "ips": [
            {"address": "2001:db8::5/128", "interface": 1, "gateway": "fe80::1"},
            {"address": "10.0.0.5/32", "interface": 1, "gateway": "169.254.1.1"},
        ],
        "routes": [{"dst": "::/0", "gw": "fe80::1"}, {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
    })
}

/// Where the plugin looks for the agent of a host.
pub fn socket_of(host: &Host) -> PathBuf {
    host.path("/run/flock/flock.sock")
}

/// One question to a listening agent, as the plugin would ask it; none when it hangs up.
pub fn ask(socket: &Path, request: &Value) -> Option<Value> {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    stream.write_all(&line(request)).ok()?;
    read_request(&stream)
}
