//! The other end of the floor of a plugin: threads that live, each of which hears what the program sends, does some work, and answers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::removal::Spent;
use crate::host::Host;

/// What goes each way, in bytes. `program.rs` has the same.
pub const SIZE: usize = 2048;

/// What one thread does with a request: its first line.
pub type Work = Box<dyn FnMut(&str)>;

/// Starts so many threads, each with work of its own.
pub fn serve(host: &Host, path: &Path, threads: usize, spent: &Spent, work: impl Fn() -> Work + Send + Sync + 'static) {
    let listener = Arc::new(UnixListener::bind(path).expect("a new socket"));
    let work = Arc::new(work);
    for _ in 0..threads {
        let (host, listener, work, spent) = (host.clone(), listener.clone(), work.clone(), spent.clone());
        thread::spawn(move || {
            host.enter();
            let mut work = work();
            let mut clock = Duration::ZERO;
            let mut bytes = [0; SIZE];
            loop {
                let (mut connection, _) = listener.accept().expect("a caller");
                connection.read_exact(&mut bytes).expect("a request");
                let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                work(std::str::from_utf8(line).expect("text"));
                connection.write_all(&bytes).expect("answered");
                drop(connection);
                spent.count(&mut clock);
            }
        });
    }
}
