//! The line between plugin and agent, and between operator and agent: one connection per call, one line of JSON each way, over a
//! unix socket.
//!
//! Owns messages, limits, client and server. Must not know what the verbs do.

pub mod client;
pub mod frame;
#[cfg(feature = "agent")]
pub mod gate;
#[cfg(feature = "agent")]
pub mod listener;
pub mod message;
pub mod report;
#[cfg(feature = "agent")]
pub mod server;

use std::time::Duration;

use cni::verb::Verb;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/flock/flock.sock";

/// Longest frame, in bytes, with its line end: 1 MiB of configuration in base64, and everything else.
pub const FRAME_MAX: usize = 2 * 1024 * 1024;

/// Deadline for a caller's request to arrive in full at the agent, 5 s.
pub const REQUEST_ARRIVAL: Duration = Duration::from_secs(5);

/// How long the plugin keeps trying to reach an agent that does not listen. A service manager starts an agent that has died
/// again after a second, and the start takes less than one: an ADD that outlasts this spares the runtime a new sandbox. CHECK
/// and GC wait as long. STATUS has to end early, and a DEL can leave a note instead, while the runtime
/// holds a lock of the pod: they wait for no more than the moment in which one agent takes over from another.
pub fn connect_limit(op: Verb) -> Duration {
    Duration::from_millis(match op {
        Verb::Add | Verb::Check | Verb::Gc => 5000,
        Verb::Del => 1000,
        Verb::Status | Verb::Version => 700,
    })
}

/// Longest time of one call of the plugin, from its start to its end. What a call does takes milliseconds; the limits are for
/// what it may have to wait for, and for who waits for it:
///
/// - An ADD waits for its pod in the API (three seconds at most), for the kernel's one lock for links (seconds, when many pods
///   go at once) and for the disk of the lease log. Kubelet repeats a failed one by itself and for ever, so there is nothing
///   to be gained by waiting for an agent that hangs: ADD and the DEL that clears up after it take less than 20 s together,
///   after which the pod has its event.
/// - A DEL that is not answered is noted and carried out later, at no loss; CRI-O gives it 60 s.
/// - A GC may have many attachments to remove; CRI-O gives it 30 s.
/// - VERSION waits for nobody; it has the limit of STATUS.
/// - STATUS: `crictl info`, which tells people why a node is not ready, gives up after two seconds in all, and containerd calls
///   it under a lock, every five seconds.
pub fn plugin_limit(op: Verb) -> Duration {
    Duration::from_millis(match op {
        Verb::Add => 12_000,
        Verb::Del => 7_000,
        Verb::Check => 10_000,
        Verb::Gc => 25_000,
        Verb::Status | Verb::Version => 1_500,
    })
}

/// Longest time of one question of an operator, 10 s: a table of thousands of pods is read back for it.
pub const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// How long a question waits for an agent that does not listen, 700 ms: the moment in which one takes over from another.
pub const QUERY_PATIENCE: Duration = Duration::from_millis(700);

/// Longest time that the agent works on a request of a plugin that has just been started.
pub fn agent_limit(op: Verb) -> Duration {
    agent_share(plugin_limit(op))
}

/// The agent's part of the time that a caller has left: a little less than all of it, so that the answer still arrives.
pub fn agent_share(left: Duration) -> Duration {
    (left * 9 / 10).saturating_sub(Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_error_arrives_before_the_plugin_gives_up() {
        for op in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
            assert!(agent_limit(op) + Duration::from_millis(200) <= plugin_limit(op), "{op}");
            assert!(agent_limit(op) * 5 >= plugin_limit(op) * 4, "{op}: most of the time is for the work");
        }
        assert_eq!(
            agent_share(Duration::from_millis(50)),
            Duration::ZERO,
            "nothing is begun whose answer nobody can hear"
        );
    }
}
