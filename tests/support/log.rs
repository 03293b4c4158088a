//! What a program says, line by line, while it runs, and waiting for a line of it. Which program, and what a line means, the owner
//! of the log knows.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread;

use super::waiting::wait_or;

/// Lines that are kept for tests that look at them.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    /// Keeps the lines of this stream as they come, behind those that are there already.
    pub fn keep(&self, stream: impl Read + Send + 'static) {
        let kept = self.0.clone();
        each_line(stream, move |line| {
            let mut text = kept.lock().expect("unpoisoned");
            text.push_str(line);
            text.push('\n');
        });
    }

    /// Everything so far.
    pub fn text(&self) -> String {
        self.0.lock().expect("unpoisoned").clone()
    }
}

/// Tells each line of a stream as it comes, on a thread of its own.
pub fn each_line(stream: impl Read + Send + 'static, tell: impl Fn(&str) + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            tell(&line);
        }
    });
}

/// Waits until `times` lines of a log hold `text`, and returns the last of them.
#[track_caller]
pub fn wait_line(log: impl Fn() -> String, text: &str, times: usize) -> String {
    wait_or(
        || format!("{text:?} never stood {times} times in the log:\n{}", log()),
        || log().lines().filter(|line| line.contains(text)).nth(times - 1).map(str::to_owned),
    )
}
