//! A host on which the real systemd is the first process, booted by `tests/systemd/boot`. What is installed there, the tests say.

use std::path::Path;
use std::process::Command;

use super::host::{HOST4, HOST6, Host};
use super::programs::{FLOCK, succeed};
use super::waiting::wait_for;

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
}
