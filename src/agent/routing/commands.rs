//! The programs that take a node out of the network and back, and that end BIRD: `flock-agent withdraw`, `announce`, `bird stop`.
//!
//! They work with or without an agent, may be repeated, and may be killed at any point: what counts stands in the file that says
//! how far the node is withdrawn, and in the kernel. Must not touch a route that is not announced.

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::routing::drain::DrainFile;
use crate::agent::routing::restart;
use crate::bird::socket::Control;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::process::exit::Exit;
use crate::process::failpoint;
use crate::process::log;
use crate::record::disk::{DiskError, make_private_dir};
use model::routes::{Stage, steps};

/// Deadline for bringing the announcements to one of the two stages, 10 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Pause before the next look, 20 ms, where something has changed meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Deadline for BIRD's answer, 5 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Deadline for BIRD's end, 20 s after it was asked.
pub const END_LIMIT: Duration = Duration::from_secs(20);

/// Most time that [`withdraw`] takes beside its `wait`, 20 s: twice the limit of one try.
pub const WITHDRAW_LIMIT: Duration = Duration::from_secs(20);

/// Why a node is not withdrawn, or not announced.
#[derive(Debug)]
enum DrainError {
    /// The file cannot be written.
    Disk(DiskError),
    /// The kernel cannot be asked, or refuses.
    Kernel(NetlinkError),
    /// Somebody keeps announcing.
    Late(Stage),
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DrainError::Disk(error) => write!(f, "{error}"),
            DrainError::Kernel(error) => write!(f, "{error}"),
            DrainError::Late(stage) => {
                let word = if *stage == Stage::Draining { "preferred" } else { "announced" };
                write!(f, "routes of table 102 are still {word}, as somebody keeps putting them back")
            }
        }
    }
}

/// Tells routers to prefer other nodes, waits, and tells them that nothing is here any more.
pub fn withdraw(socket: &Path, wait: Duration) -> Exit {
    finished("withdraw", try_to_withdraw(socket, wait))
}

/// Lets the agent announce the node again.
pub fn announce(socket: &Path) -> Exit {
    finished("announce", DrainFile::beside(socket).set(Stage::Announcing).map_err(DrainError::Disk))
}

/// Ends the BIRD that listens on `bird` in the way that loses nothing: peers keep the routes until it is back. If the node whose
/// agent listens on `agent` is being withdrawn, nobody keeps anything.
pub fn stop_bird(bird: &Path, agent: &Path) -> Exit {
    // Where that cannot be told, the node is one that stays.
    let leaves = DrainFile::beside(agent).stage().is_ok_and(|stage| stage != Stage::Announcing);
    finished("bird stop", try_to_stop(bird, agent, leaves))
}

fn try_to_stop(bird: &Path, agent: &Path, leaves: bool) -> Result<(), String> {
    let ended = end(bird, leaves);
    // The next start would wait for what peers have kept, also after a BIRD that had to be killed.
    let forgotten = if leaves { restart::forget(agent).map_err(|error| error.to_string()) } else { Ok(()) };
    ended.and(forgotten)
}

fn end(bird: &Path, leaves: bool) -> Result<(), String> {
    let now = Instant::now();
    match Control::open(bird, now + ANSWER_LIMIT) {
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error.to_string()),
        Ok(mut bird) => {
            let limit = now + ANSWER_LIMIT;
            let told = if leaves { bird.shut_down(limit) } else { bird.graceful_restart(limit) };
            told.map_err(|error| error.to_string())?;
            if !bird.wait_for_the_end(now + END_LIMIT) {
                return Err("BIRD has been told to end, and has not".into());
            }
        }
    }
    Ok(())
}

fn finished(what: &str, done: Result<(), impl fmt::Display>) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            log::last_words(format!("flock-agent: {what}: {error}\n"));
            Exit::Failed
        }
    }
}

fn try_to_withdraw(socket: &Path, wait: Duration) -> Result<(), DrainError> {
    if let Some(parent) = socket.parent() {
        make_private_dir(parent).map_err(DrainError::Disk)?;
    }
    let drain = DrainFile::beside(socket);
    // The agent, if there is one, reads it before it puts anything back. A node that is withdrawn already has nothing to soften.
    if !matches!(drain.stage(), Ok(Stage::Withdrawn)) {
        drain.set(Stage::Draining).map_err(DrainError::Disk)?;
        failpoint::pass("withdraw.draining").ok();
        if reach(Stage::Draining)? {
            thread::sleep(wait);
        }
    }
    drain.set(Stage::Withdrawn).map_err(DrainError::Disk)?;
    failpoint::pass("withdraw.withdrawn").ok();
    reach(Stage::Withdrawn).map(drop)
}

/// Brings what is announced to this stage. False if nothing was announced.
fn reach(stage: Stage) -> Result<bool, DrainError> {
    let deadline = Instant::now() + LIMIT;
    let mut conn = Conn::open(deadline).map_err(DrainError::Kernel)?;
    let mut announced = false;
    let mut refusal = None;
    loop {
        // Only what is shown, so that the difference is in the announcements alone.
        let shown = conn.shown_routes().map_err(DrainError::Kernel)?;
        announced |= shown.routes.keys().any(|key| key.table == model::routes::ANNOUNCED);
        let steps = steps(&shown.clone().at(stage), &shown);
        if steps.is_empty() {
            return Ok(announced);
        }
        if Instant::now() >= deadline {
            return Err(refusal.map_or(DrainError::Late(stage), DrainError::Kernel));
        }
        let results = conn.carry_out(&steps);
        refusal = results.into_iter().find_map(Result::err);
        if refusal.is_some() {
            // The agent does the same at the same time.
            thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn peers_keep_nothing_for_the_bird_of_a_withdrawn_node_even_if_it_could_not_be_told_to_end() {
        let dir = std::env::temp_dir().join(format!("flock-bird-stop-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let (bird, agent, environment) = (dir.join("bird.ctl"), dir.join("flock.sock"), dir.join("bird.env"));
        let listener = UnixListener::bind(&bird).expect("bound");
        let strange = thread::spawn(move || {
            for _ in 0..2 {
                listener.accept().expect("called").0.write_all(b"220 mail.example ESMTP\n").expect("told");
            }
        });
        for leaves in [false, true] {
            fs::write(&environment, "GR=-R\n").expect("written");
            try_to_stop(&bird, &agent, leaves).expect_err("it is no BIRD");
            assert_eq!(environment.exists(), !leaves, "on a node that stays, a restart is one");
        }
        strange.join().expect("ended");
        fs::remove_dir_all(&dir).expect("removable");
    }
}
