//! A host of its own: network and mount namespaces that end with the value that holds them. What runs on it and what lies on it
//! is of other files, which give the host further verbs.

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::programs::succeed;

/// Addresses of the host itself, outside the pods' ranges.
pub const HOST6: &str = "2001:db8:0:1::1";
pub const HOST4: &str = "10.1.0.1";

/// The host's own addresses.
pub fn host_addresses() -> [IpAddr; 2] {
    [HOST6, HOST4].map(|ip| ip.parse().expect("literal"))
}

/// Whether there is only one user id, as `tests/sandbox` says of namespaces that an ordinary user has made.
pub fn one_user_only() -> bool {
    std::env::var_os("FLOCK_TEST_ONE_USER").is_some()
}

/// A host.
pub struct Host {
    pid: u32,
    /// What of it commands enter.
    namespaces: &'static [&'static str],
    /// The file that moves a process into the group which ends with the host, for a host that shares our process ids.
    group: Option<&'static str>,
    holder: Child,
    stdin: Option<ChildStdin>,
}

impl Host {
    /// A host with one address per family and nothing else, not even the plugins that this machine may have.
    pub fn new() -> Host {
        Host::with(&[&format!("{HOST6}/128"), &format!("{HOST4}/32")])
    }

    /// A host with these addresses on its loopback link and nothing else, not even the plugins that this machine may have.
    pub fn with(addresses: &[&str]) -> Host {
        let addresses = addresses.join(" ");
        let script = format!(
            "set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/netns /run/flock; mount -t sysfs sysfs /sys 2>/dev/null || true; \
             for dir in /opt/cni/bin /usr/lib/cni; do if [ -d $dir ]; then mount -t tmpfs tmpfs $dir; fi; done; \
             ip link set lo up; for address in {addresses}; do ip addr add $address dev lo; done; echo ready; exec cat >/dev/null"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "sh", "-c", &script]);
        let (mut host, line) = Host::held_by(&mut unshare);
        assert_eq!(
            line, "ready\n",
            "namespaces cannot be made: run the tests by `make test`, which becomes root of a user namespace"
        );
        host.pid = host.holder.id();
        host
    }

    /// A host that stands as long as the standard input of this command is open, and the first line that it prints.
    fn held_by(command: &mut Command) -> (Host, String) {
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the holder starts");
        let stdin = holder.stdin.take();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("readable");
        (Host { pid: 0, namespaces: &["--net", "--mount"], group: None, holder, stdin }, line)
    }

    /// A host that `command` makes: it prints the process id of one of the host's processes, and ends the host when its
    /// standard input ends.
    pub fn made_by(command: &mut Command) -> Host {
        let (mut host, line) = Host::held_by(command);
        host.pid = line.trim().parse().unwrap_or_else(|_| panic!("{command:?} made no host: {line:?}"));
        let pids = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid")).expect("readable");
        if pids(&host.pid.to_string()) != pids("self") {
            // It has a /proc of its own, in which only its own processes find themselves.
            host.namespaces = &["--net", "--mount", "--pid"];
        } else {
            host.group = Some("/sys/fs/cgroup/host/cgroup.procs");
        }
        host
    }

    /// A process of the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The host's file `path`, as the test can open it.
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.pid).into()
    }

    /// The file that stands for the host's network namespace.
    pub fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid).into()
    }

    /// `program` on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]).args(self.namespaces).arg("--");
        if let Some(group) = self.group {
            command.args(["sh", "-c", "echo 0 >\"$0\" && exec \"$@\"", group]);
        }
        command.arg(program);
        command
    }

    /// Runs a command line (split at blanks) on this host, which must succeed, and returns what it printed.
    pub fn run(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().expect("a program"));
        succeed(command.args(words))
    }

    /// Runs a shell script on this host, which must succeed, and returns what it printed.
    pub fn script(&self, text: &str) -> String {
        succeed(self.command("sh").args(["-ec", text]))
    }

    /// A file of the host, with the directories above it.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, text).expect("written");
    }
}

impl Host {
    /// Ends it before its time, with everything that runs on it.
    pub fn end(&mut self) {
        // The end of its standard input ends the holder, in its own way.
        self.stdin.take();
        self.holder.wait().ok();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end();
    }
}
