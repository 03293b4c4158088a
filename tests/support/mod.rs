//! A node to test on: private network and mount namespaces with a `/run` of their own, pods in them, the real agent, and
//! the real plugin exec'd as a runtime does it.
//!
//! Everything ends with the value that holds it: the namespaces live as long as one process whose standard input is a
//! pipe from the test, so they end with a killed test, too. An agent of a test that is killed ends with `tests/sandbox`. Needs
//! root, or the root of a user namespace.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::print_stderr,
    reason = "each test program uses its own part"
)]

pub mod agent;
pub mod assets;
pub mod booted;
pub mod control_plane;
pub mod dice;
pub mod failpoints;
pub mod fib;
pub mod fingerprint;
pub mod host;
pub mod http;
pub mod https;
pub mod inside;
pub mod log;
pub mod machine;
pub mod manifests;
pub mod moment;
pub mod oracle;
pub mod outcome;
pub mod page;
pub mod plugin;
pub mod pod;
pub mod probe;
pub mod programs;
pub mod raw;
pub mod record;
pub mod routers;
pub mod scrape;
pub mod scripted;
pub mod share;
pub mod switch;
pub mod temp;
pub mod verb;
pub mod waiting;
