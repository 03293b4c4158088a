//! The programs that were built, programs that a test puts in place, and other programs that run to their end. Knows no host.
//!
//! A program is always put in place by another process: what this one has open for writing, a child that another thread is just
//! forking has open as well, and the kernel runs no file that somebody can still write to.

use std::io::Read;
use std::path::Path;
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

/// Makes this text a program of the shell, in one step for whoever looks.
pub fn put_script(path: impl AsRef<Path>, text: &str) {
    const WRITE: &str =
        "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$2.new\" && chmod 0755 \"$2.new\" && mv \"$2.new\" \"$2\"";
    succeed(Command::new("sh").args(["-c", WRITE, "sh", text]).arg(path.as_ref()));
}

/// Copies a program, over whatever was there.
pub fn put_copy(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    succeed(Command::new("cp").arg("--remove-destination").arg(from.as_ref()).arg(to.as_ref()));
}

/// Reads a stream to its end on a thread.
pub fn drain(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        bytes
    })
}
