//! Third-party routing daemons on a host: BIRD and FRR as Debian builds them. They are run as they are, with a configuration that the
//! test gives; what they did, the tests ask the kernel.

use std::process::{Child, Command, ExitStatus, Stdio};

use super::assets::assets;
use super::host::Host;
use super::log::{Log, wait_line};
use super::programs::succeed;
use super::waiting::wait_for;

/// The configuration of a BIRD that takes everything from two nodes, and gives them nothing.
pub const BIRD: &str = "
log stderr all;
router id 192.0.2.1;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; merge paths on; }
protocol kernel { ipv6 { export where source = RTS_BGP; import none; }; merge paths on; }
template bgp node {
  local as 65100;
  graceful restart on;
  connect delay time 1; error wait time 1,2;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
protocol bgp node1 from node { neighbor 2001:db8:a25::11 as 65001; }
protocol bgp node2 from node { neighbor 2001:db8:a25::12 as 65001; }
";

/// A Debian whose daemons are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Debian {
    /// BIRD 2.0.12 and FRR 8.4.4.
    Bookworm,
    /// BIRD 2.17 and FRR 10.3.
    Trixie,
}

impl Debian {
    /// The program of this name.
    pub fn program(self, name: &str) -> String {
        let suite = match self {
            Debian::Bookworm => "bookworm",
            Debian::Trixie => "trixie",
        };
        format!("{}/{suite}/bin/{name}", assets("routes"))
    }
}

impl Host {
    /// Starts BIRD with this configuration, and waits until it runs.
    pub fn bird(&self, debian: Debian, config: &str) -> Bird<'_> {
        self.write("/run/bird/bird.conf", config);
        let mut bird = self.bird_of(debian, "/run/bird/bird.conf", "/run/bird/bird.ctl");
        bird.start(&[]);
        bird
    }

    /// BIRD with this file as its configuration and with this control socket, which is not started yet.
    pub fn bird_of(&self, debian: Debian, config: &str, socket: &str) -> Bird<'_> {
        Bird { host: self, debian, config: config.into(), socket: socket.into(), child: None, log: Log::default() }
    }

    /// Starts FRR with this configuration, and waits until its BGP daemon runs.
    pub fn frr(&self, debian: Debian, config: &str) -> Frr {
        self.write("/run/frr/frr.conf", config);
        // It knows users and directories of its own, which this machine need not have.
        self.script(
            "cd /run/frr; mount -t tmpfs tmpfs /var/tmp; mount -t tmpfs tmpfs /var/lib; \
             { cat /etc/passwd; echo frr:x:0:0::/:/bin/false; } >passwd; mount --bind passwd /etc/passwd; \
             { cat /etc/group; echo frr:x:0:; echo frrvty:x:0:; } >group; mount --bind group /etc/group",
        );
        let mut frr = Frr { children: Vec::new(), log: Log::default() };
        let daemons = match debian {
            Debian::Bookworm => &["zebra", "bfdd", "bgpd"][..],
            Debian::Trixie => &["mgmtd", "zebra", "bgpd"][..],
        };
        for name in daemons {
            let mut command = self.command(&debian.program(name));
            command.args(["-u", "root", "-g", "root", "--log", "stdout", "--vty_socket", "/run/frr"]);
            command.args(["-i", &format!("/run/frr/{name}.pid"), "-z", "/run/frr/zserv.api"]);
            if *name != "mgmtd" {
                command.args(["-f", "/run/frr/frr.conf"]);
            }
            frr.children.push(frr.log.spawn(&mut command));
            let is_there = || self.path(&format!("/run/frr/{name}.vty")).exists().then_some(());
            wait_for(&format!("{name} to run"), is_there);
        }
        frr
    }
}

impl Log {
    /// Starts a program that says everything into this log.
    fn spawn(&self, command: &mut Command) -> Child {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        self.keep(child.stdout.take().expect("piped"));
        self.keep(child.stderr.take().expect("piped"));
        child
    }
}

/// One of them, kept alive until it is dropped.
pub enum Daemon<'a> {
    Bird(Bird<'a>),
    Frr(Frr),
}

/// BIRD. Killed when dropped.
pub struct Bird<'a> {
    host: &'a Host,
    debian: Debian,
    config: String,
    socket: String,
    child: Option<Child>,
    log: Log,
}

impl Bird<'_> {
    /// Starts it again with these further arguments, and waits until it runs.
    pub fn start(&mut self, arguments: &[&str]) {
        let running = self.log.text().matches("Started").count();
        let mut command = self.host.command(&self.debian.program("bird"));
        command.args(["-f", "-c", &self.config, "-s", &self.socket]).args(arguments);
        self.child = Some(self.log.spawn(&mut command));
        wait_line(|| self.log.text(), "Started", running + 1);
    }

    /// A command at its control socket, and the answer.
    pub fn command(&self, line: &str) -> String {
        let mut command = self.host.command(&self.debian.program("birdc"));
        succeed(command.args(["-s", &self.socket]).args(line.split(' ')))
    }

    /// Puts another configuration in force.
    pub fn configure(&self, config: &str) {
        self.host.write(&self.config, config);
        let said = self.command("configure");
        assert!(said.contains("Reconfigur"), "{said}");
    }

    /// Waits until the session of this name stands.
    #[track_caller]
    pub fn wait_established(&self, session: &str) {
        let line = format!("show protocols {session}");
        wait_for(&format!("session {session}"), || self.command(&line).contains("Established").then_some(()));
    }

    /// Waits until so many restarts are over: peers have said everything that they had said before, and it has told them its own.
    #[track_caller]
    pub fn wait_recovered(&self, times: usize) {
        wait_line(|| self.log.text(), "Graceful restart done", times);
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        succeed(Command::new("kill").args(["-s", name, &pid]));
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().expect("it runs").wait().expect("waitable")
    }

    pub fn log(&self) -> String {
        self.log.text()
    }
}

impl Drop for Bird<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("log of BIRD:\n{}", self.log());
        }
    }
}

/// FRR. Killed when dropped.
pub struct Frr {
    children: Vec<Child>,
    log: Log,
}

impl Drop for Frr {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("log of FRR:\n{}", self.log.text());
        }
    }
}
