//! The programs that were built, and other programs that run to their end. Knows no host.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

pub const FLOCK: &str = env!("CARGO_BIN_EXE_flock");
pub const FLOCK_AGENT: &str = env!("CARGO_BIN_EXE_flock-agent");

/// Runs a command that must succeed, and returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Reads a stream to its end on a thread.
pub fn drain(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        bytes
    })
}
