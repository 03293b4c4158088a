//! A verb of `flock-agent` as an operator types it: what it prints, and how it ends. Knows no verb.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::host::Host;
use super::programs::FLOCK_AGENT;

/// What a verb left.
#[derive(Debug)]
pub struct Typed {
    pub code: i32,
    pub out: String,
    pub err: String,
    pub elapsed: Duration,
}

impl Typed {
    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The rest of the line that begins with this word.
    #[track_caller]
    pub fn line(&self, key: &str) -> &str {
        let line = self.out.lines().map(str::trim_start).find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("no line {key}: {self:?}"))[key.len()..].trim_start()
    }
}

impl Host {
    /// Runs a verb with its arguments, split at blanks.
    pub fn types(&self, line: &str) -> Typed {
        self.types_with(&[], line)
    }

    /// The same as a user who is not root.
    pub fn types_as_nobody(&self, line: &str) -> Typed {
        self.types_with(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], line)
    }

    fn types_with(&self, before: &[&str], line: &str) -> Typed {
        let mut words = before.iter().copied().chain([FLOCK_AGENT]).chain(line.split_whitespace());
        let began = Instant::now();
        let done = self.command(words.next().expect("a program")).args(words).stdin(Stdio::null()).output();
        let done = done.expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        let code = done.status.code().expect("it ends by itself");
        Typed { code, out: text(done.stdout), err: text(done.stderr), elapsed: began.elapsed() }
    }
}
