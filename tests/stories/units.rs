//! What is shipped beside the binaries fits them: the unit, its flags, the capabilities that it names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flock::agent::routing::commands::{END_LIMIT, WITHDRAW_LIMIT};

use crate::support::programs::{FLOCK_AGENT, succeed};
use crate::support::temp::TempDir;

const UNIT: &str = include_str!("../../systemd/flock-agent.service");
const SOCKET: &str = include_str!("../../systemd/flock-agent.socket");
const BIRD: &str = include_str!("../../systemd/flock-bird.service");
const ANNOUNCE: &str = include_str!("../../systemd/flock-announce.service");

/// The units with the binary that was built, so that its path exists; the service, whose socket stands beside it.
fn unit_here(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("flock-agent.service");
    std::fs::write(&path, UNIT.replace("/usr/local/bin/flock-agent", FLOCK_AGENT)).expect("writable");
    std::fs::write(dir.path().join("flock-agent.socket"), SOCKET).expect("writable");
    path
}

/// The units that `install --bird` adds, with programs that exist: BIRD need not be on this machine.
fn bird_units_here(dir: &TempDir) -> [PathBuf; 2] {
    [("flock-bird.service", BIRD), ("flock-announce.service", ANNOUNCE)].map(|(name, unit)| {
        let unit = unit.replace("/usr/local/bin/flock-agent", FLOCK_AGENT).replace("/usr/sbin/bird", FLOCK_AGENT);
        let path = dir.path().join(name);
        std::fs::write(&path, unit).expect("writable");
        path
    })
}

#[test]
fn systemd_accepts_the_units() {
    let dir = TempDir::new("unit");
    let service = unit_here(&dir);
    let [bird, announce] = bird_units_here(&dir);
    assert_accepted(&[service.with_extension("socket"), service, bird, announce]);
}

/// systemd has nothing against these units.
#[track_caller]
pub(crate) fn assert_accepted(units: &[PathBuf]) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(["verify", "--man=no"]).args(units).output().expect("systemd-analyze (systemd) starts");
    let said = String::from_utf8_lossy(&output.stderr);
    // It also complains about units of the machine that ours are ordered against.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("flock-")).collect();
    assert_eq!(ours, Vec::<&str>::new(), "{said}");
    assert!(output.status.success(), "{said}");
}

/// Most that the agent's unit may expose.
pub(crate) const EXPOSURE: f32 = 2.4;

/// How much of a unit is exposed, as systemd counts.
#[track_caller]
pub(crate) fn exposure(unit: &Path) -> f32 {
    let mut command = Command::new("systemd-analyze");
    let said = succeed(command.args(["security", "--offline=yes", "--no-pager"]).arg(unit));
    let overall = said.lines().find(|line| line.contains("Overall exposure level")).expect("a score");
    let score = overall.split(':').nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a number");
    score.parse().expect("a number")
}

// covers: FM-F08
#[test]
fn the_unit_exposes_no_more_than_it_did() {
    let dir = TempDir::new("exposure");
    let [bird, announce] = bird_units_here(&dir);
    for (unit, most) in [(unit_here(&dir), EXPOSURE), (bird, 2.9), (announce, 2.0)] {
        let exposed = exposure(&unit);
        assert!(exposed <= most, "{}: {exposed}", unit.display());
    }
}

#[test]
fn no_unit_waits_for_itself_on_a_node_with_runtimes_and_remote_file_systems() {
    let dir = TempDir::new("order");
    let agent = unit_here(&dir);
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]).arg(agent.with_extension("socket")).arg(&agent).args(bird_units_here(&dir));
    for runtime in ordered(SOCKET, "Before=") {
        let path = dir.path().join(runtime);
        let unit = "[Unit]\nAfter=network-online.target remote-fs.target\n[Service]\nExecStart=/bin/true\n";
        std::fs::write(&path, unit).expect("writable");
        command.arg(path);
    }
    let mount = dir.path().join("mnt.mount");
    std::fs::write(&mount, "[Mount]\nWhat=host:/dir\nWhere=/mnt\nType=nfs\n").expect("writable");
    let output = command.arg(mount).output().expect("systemd-analyze (systemd) starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("cycle"), "{said}");
    assert!(
        ordered(BIRD, "Before=").contains(&"remote-fs-pre.target"),
        "which ends before what BIRD has brought is gone"
    );
    assert!(BIRD.contains("\nWants=remote-fs-pre.target\n"), "nobody else may have it in the boot");
}

/// The units that a unit names behind a word.
fn ordered<'a>(unit: &'a str, word: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(word)).flat_map(str::split_whitespace).collect()
}

#[test]
fn every_unit_stands_before_whatever_runs_pods() {
    let runtimes: Vec<&str> = ordered(SOCKET, "Before=");
    assert!(runtimes.len() > 10 && runtimes.contains(&"k3s-agent.service"), "{runtimes:?}");
    for (unit, word) in [(UNIT, "Before="), (BIRD, "Before="), (ANNOUNCE, "After=")] {
        let named = ordered(unit, word);
        let missing: Vec<&&str> = runtimes.iter().filter(|runtime| !named.contains(runtime)).collect();
        assert_eq!(missing, Vec::<&&str>::new(), "{unit}");
    }
}

#[test]
fn the_units_of_bird_name_what_the_agent_writes_and_start_it_as_a_restart_only_when_told() {
    let agent = succeed(Command::new(FLOCK_AGENT).args(["run", "--help"]));
    for place in ["/etc/flock/bird/bird.conf", "/run/flock/bird.ctl"] {
        assert!(agent.contains(place) && BIRD.contains(place), "{place}");
    }
    let start = BIRD.lines().find(|line| line.starts_with("ExecStart=")).expect("a start");
    assert!(start.ends_with(" $GR") && !start.contains("-R"), "{start}");
    assert!(BIRD.contains("EnvironmentFile=-/run/flock/bird.env"), "a file that no boot survives");
    assert!(BIRD.contains("\nExecStop=/usr/local/bin/flock-agent bird stop\n"));
    assert!(ANNOUNCE.contains("\nExecStop=/usr/local/bin/flock-agent withdraw\n"));
    // A restart of the others must not withdraw the node.
    for dependency in ["PartOf=", "Requires=", "BindsTo=", "Conflicts="] {
        assert!(!ANNOUNCE.contains(dependency), "{dependency}");
    }
    assert!(UNIT.contains(" -/etc/flock/bird "), "the agent may write there");
}

#[test]
fn nobody_is_ended_in_the_middle_of_taking_a_node_out_of_the_network() {
    let seconds = |unit: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("a limit");
        Duration::from_secs(line.trim_end_matches('s').parse().expect("a number"))
    };
    let longest_wait = Duration::from_secs(60);
    assert!(seconds(ANNOUNCE) > WITHDRAW_LIMIT + longest_wait);
    assert!(seconds(BIRD) > END_LIMIT);
}

#[test]
fn the_socket_unit_listens_where_agent_and_plugin_look() {
    let line = format!("ListenStream={}", flock::rpc::DEFAULT_SOCKET);
    assert!(SOCKET.lines().any(|l| l == line), "{line}");
}

#[test]
fn every_flag_of_the_unit_exists() {
    let help = succeed(Command::new(FLOCK_AGENT).args(["run", "--help"]));
    let words = UNIT.split(|c: char| c.is_whitespace() || c == '=').filter(|word| word.starts_with("--"));
    let flags: Vec<&str> = words.collect();
    for flag in ["--node-config", "--kubeconfig", "--cni-conf-dir"] {
        assert!(flags.contains(&flag), "{flag}");
    }
    for flag in flags {
        assert!(help.contains(&format!("  {flag} ")), "{flag}");
    }
}

#[test]
fn the_agent_describes_itself() {
    let version = succeed(Command::new(FLOCK_AGENT).arg("--version"));
    assert_eq!(version, format!("flock-agent {}\n", env!("CARGO_PKG_VERSION")));
    let wrong = Command::new(FLOCK_AGENT).arg("--nod-config").output().expect("starts");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("\"--nod-config\""));
}
