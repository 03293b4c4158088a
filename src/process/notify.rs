//! The service manager, where there is one (`sd_notify(3)`): sends it the agent's state, and knows how often it wants a sign
//! of progress.
//!
//! A manager that cannot be reached is no reason to do anything else. Must not know what the states mean.

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The environment variable that names the manager's socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Whether there is a service manager that wants the agent's state.
pub fn has_manager() -> bool {
    env::var_os(SOCKET).is_some()
}

/// Sends one state, such as `READY=1`.
pub fn send(state: &str) {
    let Some(path) = env::var_os(SOCKET) else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        socket.send_to_addr(state.as_bytes(), &address).ok();
    }
}

/// The longest time between two `WATCHDOG=1` that the manager allows; none if it does not watch.
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    interval(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn interval(usec: Option<&str>, pid: Option<&str>, own_pid: u32) -> Option<Duration> {
    // The variables are inherited from a parent, whose watchdog it is.
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_ours_unless_it_names_another_process() {
        let minute = Some(Duration::from_secs(60));
        for (usec, pid, expected) in [
            (Some("60000000"), Some("7"), minute),
            (Some("60000000"), None, minute),
            (Some("60000000"), Some("8"), None),
            (Some("60000000"), Some(""), None),
            (None, Some("7"), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (Some("soon"), None, None),
        ] {
            assert_eq!(interval(usec, pid, 7), expected, "{usec:?} {pid:?}");
        }
    }
}
