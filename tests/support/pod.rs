//! A pod: a network namespace with a name, as runtimes make them. What flock puts into it, other files ask and judge.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use super::host::Host;
use super::programs::succeed;

/// A pod's network namespace.
pub struct Pod<'a> {
    pub host: &'a Host,
    pub name: String,
}

impl Host {
    /// A new pod: a network namespace with a name, as runtimes make them.
    pub fn pod(&self, name: &str) -> Pod<'_> {
        self.run(&format!("ip netns add {name}"));
        Pod { host: self, name: name.into() }
    }
}

impl Pod<'_> {
    /// The namespace as a runtime names it.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// The namespace as the test can open it.
    pub fn netns(&self) -> PathBuf {
        self.host.path(&self.path())
    }

    /// Runs a command line (split at blanks) in the pod, which must succeed.
    pub fn run(&self, line: &str) -> String {
        self.host.run(&format!("ip netns exec {} {line}", self.name))
    }

    /// One packet there and back within a second, without a second try.
    pub fn pings(&self, to: IpAddr) -> bool {
        let to = to.to_string();
        let mut command = self.host.command("ip");
        command.args(["netns", "exec", &self.name, "ping", "-n", "-c", "1", "-W", "1", &to]).stdin(Stdio::null());
        command.output().expect("ping (iputils-ping) starts").status.success()
    }

    /// One packet to each and back.
    #[track_caller]
    pub fn assert_pings(&self, to: impl IntoIterator<Item = IpAddr>) {
        for ip in to {
            assert!(self.pings(ip), "{} cannot reach {ip}", self.name);
        }
    }

    /// Runs a shell script in the pod, which must succeed, and returns what it printed.
    pub fn script(&self, text: &str) -> String {
        succeed(self.host.command("ip").args(["netns", "exec", &self.name, "sh", "-ec", text]))
    }

    /// Removes the namespace by hand, as nobody should.
    pub fn vanish(&self) {
        self.host.run(&format!("ip netns del {}", self.name));
    }
}
