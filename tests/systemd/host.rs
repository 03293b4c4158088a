//! A booted host with the shipped units installed as the README says, and what flock's units do there.

use std::collections::BTreeSet;
use std::fs;

use crate::support::host::Host;
use crate::support::log::wait_line;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::programs::{FLOCK_AGENT, succeed};

/// Where an administrator puts units.
const UNITS: &str = "/etc/systemd/system";

/// A node before anybody has thought of flock, with what flock would set on it.
pub(crate) fn bare() -> Host {
    let host = Host::with_systemd();
    host.run("mkdir -p /opt/cni/bin /etc/default /etc/systemd/network");
    host.run("rmdir /etc/flock");
    host.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    succeed(&mut host.inside("hostname host001"));
    host
}

impl Host {
    /// Boots. The units are installed and not yet enabled; there is a NodeConfig.
    pub(crate) fn with_units() -> Host {
        let host = Host::with_systemd();
        // The program as it was built, without a copy for each test.
        host.run(&format!("ln -s {FLOCK_AGENT} /usr/local/bin/flock-agent"));
        host.write("/etc/flock/node.yaml", &node_config(CIDR6, CIDR4));
        host.write("/etc/default/flock-agent", "FLOCK_AGENT_FLAGS=--node-name host001 --cni-conf-dir /etc/cni/net.d\n");
        let shipped =
            ["flock-agent.service", "flock-agent.socket"].map(|unit| format!("/usr/local/share/units/{unit}"));
        host.run(&format!("install -m 0644 -t {UNITS} -- {}", shipped.join(" ")));
        host.adapt("flock-agent.service", "log", "[Service]\nStandardError=append:/run/agent.log\n");
        host
    }

    /// Boots, and enables what is shipped.
    pub(crate) fn with_service() -> Host {
        let host = Host::with_units();
        host.systemctl("enable --now flock-agent");
        host
    }

    /// What flock could have changed, line by line: files outside of systemd's own directory, and the kernel.
    pub(crate) fn everything(&self) -> BTreeSet<String> {
        let files = self.run("find /etc /opt /usr/local /run -type d -printf %p:%m\\n -o -printf %p:%y:%m:%s\\n");
        let all = files + &self.fingerprint();
        // The time of a directory tells that something came and went, which is so.
        let not_told = ["/run/systemd/", "/run/bird.log", "/etc/cni/net.d directory"];
        all.lines().filter(|line| !not_told.iter().any(|start| line.starts_with(start))).map(str::to_owned).collect()
    }

    /// Does what the last line of a report says.
    pub(crate) fn do_next(&self, said: &str) {
        let next = said.lines().last().and_then(|line| line.strip_prefix("next: ")).expect("what to do next");
        for line in next.split(" && ") {
            succeed(&mut self.inside(line));
        }
    }

    /// The agent's log.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("/run/agent.log")).unwrap_or_default()
    }

    /// Waits for `times` lines of the log that hold `text`.
    pub(crate) fn wait_log(&self, text: &str, times: usize) {
        wait_line(|| self.log(), text, times);
    }
}
