//! What it costs to look at a node with 250 pods: `check`, `status`, `pods`, `explain` and a scrape. Run by `make bench-operator`.
//!
//! Everything is measured as an operator has it, from the start of the program to its end, beside `flock-agent version`, which
//! looks at nothing: what is between the two is the looking. Nothing is asserted. Times include the other programs of this
//! machine, whose load the first line says: read medians.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;

use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::moment::moment;
use crate::support::programs::FLOCK_AGENT;
use crate::support::scrape::{ASKABLE, METRICS};

/// Pods of the node.
const PODS: usize = 250;

/// How often each is done, one after the other.
const ROUNDS: usize = 25;

fn main() {
    println!("{}, {PODS} pods", moment());
    println!("| what is asked | target | p50 / worst of {ROUNDS} |\n|---|---|---|");
    let host = Host::new();
    let _agent = host.agent().args(&ASKABLE).start();
    let pods: Vec<_> = (0..PODS).map(|n| host.pod(&format!("p{n}"))).collect();
    let mut last = String::new();
    for pod in &pods {
        last = host.add(pod).result().ipv6().expect("an address").to_string();
    }
    for (target, words) in [
        ("", &["version"][..]),
        ("100 ms", &["check"]),
        ("", &["status"]),
        ("", &["status", "-o", "prometheus"]),
        ("", &["pods"]),
        ("", &["explain", &last]),
    ] {
        let times = measured(|| {
            let output = host.command(FLOCK_AGENT).args(words).output().expect("it starts");
            assert!(!output.stdout.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        });
        row(&format!("`flock-agent {}`", words.join(" ")), target, &times);
    }
    let scrape = || {
        let mut connection = TcpStream::connect(METRICS).expect("it listens");
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: flock\r\n\r\n").expect("sent");
        let mut page = String::new();
        connection.read_to_string(&mut page).expect("the page");
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    };
    let times = Netns::open(&host.netns()).expect("a namespace").run(|| measured(scrape)).expect("entered");
    row("a scrape of `--metrics`", "5 ms", &times);
}

fn measured(mut once: impl FnMut()) -> Vec<Duration> {
    let timed = |_| {
        let began = Instant::now();
        once();
        began.elapsed()
    };
    let mut times: Vec<Duration> = (0..ROUNDS).map(timed).collect();
    times.sort_unstable();
    times
}

fn row(what: &str, target: &str, times: &[Duration]) {
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    println!("| {what} | {target} | {:.1} ms / {:.1} ms |", ms(times.get(times.len() / 2)), ms(times.last()));
}
