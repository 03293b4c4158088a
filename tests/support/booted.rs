//! A host on which the real systemd is the first process, booted by `tests/systemd/boot`. What is installed there, the tests say.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::assets::assets;
use super::host::{HOST4, HOST6, Host};
use super::programs::{FLOCK, put_copy, succeed};
use super::waiting::wait_for;

/// Where an administrator puts units.
const UNITS: &str = "/etc/systemd/system";

impl Host {
    /// Boots. Nothing of flock is installed.
    pub fn with_systemd() -> Host {
        Host::boot(&[], &[&format!("{HOST6}/128"), &format!("{HOST4}/32")])
    }

    /// The same with these addresses on the loopback link, and with options that the script explains.
    pub fn boot(options: &[(&str, &str)], addresses: &[&str]) -> Host {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut boot = Command::new(tests.join("tests/systemd/boot"));
        boot.arg(Path::new(FLOCK).parent().expect("a directory")).arg(tests.join("systemd"));
        let host = Host::made_by(boot.args(addresses).envs(options.iter().copied()));
        host.wait_until_booted();
        host
    }

    /// Waits until systemd has started all that it is to start.
    pub fn wait_until_booted(&self) {
        wait_for("systemd to have booted", || {
            let state = self.ask("systemctl is-active multi-user.target");
            (state.trim() == "active").then_some(())
        });
    }

    /// A command of this host, among its own processes.
    pub fn inside(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid().to_string(), "--all", "--"]).args(line.split_whitespace());
        command
    }

    /// Runs `systemctl`, which must succeed.
    pub fn systemctl(&self, arguments: &str) -> String {
        succeed(&mut self.inside(&format!("systemctl --no-pager {arguments}")))
    }

    /// What a command line prints, whether it succeeds or not.
    pub fn ask(&self, line: &str) -> String {
        let output = self.inside(line).output().expect("nsenter (util-linux) starts");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.ask(&format!("systemctl show --value --property {name} {unit}")).trim().to_owned()
    }

    /// A drop-in for a unit.
    pub fn adapt(&self, unit: &str, name: &str, text: &str) {
        self.write(&format!("{UNITS}/{unit}.d/{name}.conf"), text);
        self.systemctl("daemon-reload");
    }

    /// Debian's BIRD where it can be started, and its user.
    pub fn put_bird(&self) {
        let (debian, at) = (Path::new(assets("routes")).join("bookworm"), self.path("/usr/local/lib/debian"));
        fs::create_dir_all(at.join("bin")).expect("made");
        put_copy(debian.join("bin/bird"), at.join("bin/bird"));
        succeed(Command::new("cp").arg("-r").args([debian.join("lib"), at]));
        let start = unit_line("ExecStart=").replace("/usr/sbin/bird", "/usr/local/lib/debian/bin/bird");
        self.adapt(
            "flock-bird.service",
            "program",
            &format!("[Service]\nExecStart=\n{start}\nStandardError=append:/run/bird.log\n"),
        );
        let users = fs::read_to_string(self.path("/etc/passwd")).expect("text");
        if !users.contains("\nbird:") {
            self.write("/etc/passwd", &format!("{users}bird:x:977:977::/run/bird:/usr/sbin/nologin\n"));
        }
    }
}

/// The line of BIRD's unit that begins so.
pub fn unit_line(start: &str) -> &'static str {
    let unit = include_str!("../../systemd/flock-bird.service");
    unit.lines().find(|line| line.starts_with(start)).expect("a line")
}
