//! The line between plugin and agent: one connection per call, one line of JSON each way, over a unix socket.
//!
//! Owns messages, limits, client and server. Must not know what the verbs do.

pub mod client;
pub mod frame;
pub mod message;
pub mod server;

use std::time::Duration;

use crate::rpc::message::Op;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/flock/flock.sock";

/// Longest frame, in bytes, with its line end: 1 MiB of configuration in base64, and everything else.
pub const FRAME_MAX: usize = 2 * 1024 * 1024;

/// How long the agent waits for a caller's request to arrive in full.
pub const REQUEST_ARRIVAL: Duration = Duration::from_secs(5);

/// How long the plugin keeps trying to reach an agent that does not listen. A service manager starts an agent that has died
/// again after a second, and the start takes less than one: an ADD that outlasts this spares the runtime a new sandbox. CHECK
/// and GC have no better answer either. STATUS ends within two seconds, and a DEL can leave a note instead, while the runtime
/// holds a lock of the pod: they wait for no more than the moment in which one agent takes over from another.
pub fn connect_limit(op: Op) -> Duration {
    Duration::from_secs(match op {
        Op::Add | Op::Check | Op::Gc => 5,
        Op::Del | Op::Status => 1,
    })
}

/// Longest time of one call of the plugin, from its start to its end. Below the limits of the runtimes (CRI-O gives DEL
/// 60 s and GC 30 s; containerd calls STATUS under a lock, every five seconds), so that the error is ours and has a reason.
pub fn plugin_limit(op: Op) -> Duration {
    Duration::from_millis(match op {
        Op::Add => 60_000,
        Op::Del => 20_000,
        Op::Check => 10_000,
        Op::Gc => 25_000,
        Op::Status => 2_000,
    })
}

/// Longest time that the agent works on a request: a little less, so that its own answer still arrives.
pub fn agent_limit(op: Op) -> Duration {
    plugin_limit(op) * 9 / 10 - Duration::from_millis(100)
}
