//! Containers of podman on flock's network, with podman's CNI back end and without any Kubernetes.

use std::net::IpAddr;
use std::process::Stdio;

use serde_json::Value;

use crate::containerd::{IMAGE, documented};
use crate::support::assets::assets;
use crate::support::host::{Host, host_addresses};
use crate::support::pod::Pod;
use crate::support::programs::FLOCK;
use crate::support::waiting::wait_for;

/// The rest of `/etc/containers/containers.conf`, which is about the private host: there is no systemd.
const PRIVATE: &str = r#"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
"#;

/// podman on a host, as Debian packages it.
struct Podman {
    host: Host,
}

impl Podman {
    fn new() -> Podman {
        let host = Host::with_runtimes();
        host.write("/etc/containers/containers.conf", &format!("{}{PRIVATE}", documented("podman")));
        host.write("/etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n");
        host.run(&format!("install -m 0755 -t /usr/lib/cni {FLOCK}"));
        let podman = Podman { host };
        podman.run(&["load", "--quiet", "--input", &format!("{}/image.tar", assets("runtimes"))]);
        podman
    }

    fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        // The monitors of its containers outlive the command, and hold what it prints to.
        let log = self.host.path("/run/tmp/podman.out");
        let file = std::fs::File::create(&log).expect("made");
        let mut command = self.host.daemon("/usr/bin/podman");
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().expect("cloned")).stderr(file);
        let status = command.status().expect("podman starts");
        let said = std::fs::read_to_string(log).expect("text").trim().to_owned();
        if status.success() { Ok(said) } else { Err(said) }
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).unwrap_or_else(|said| panic!("podman {arguments:?}: {said}"))
    }
}

/// What podman says of a container's place in the network.
struct Place {
    netns: String,
    ips: Vec<IpAddr>,
}

impl Podman {
    /// Starts a container on flock's network with further arguments of `podman run`.
    #[track_caller]
    fn start(&self, name: &str, arguments: &[&str]) {
        let limits = ["--pids-limit", "-1", "--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"];
        let names = ["--name", name, "--hostname", name];
        self.run(&[&["run", "--detach", "--network", "flock"], &limits[..], &names[..], arguments].concat());
    }

    fn place(&self, name: &str) -> Place {
        let containers: Value = serde_json::from_str(&self.run(&["inspect", name])).expect("JSON");
        let settings = &containers[0]["NetworkSettings"];
        let netns = settings["SandboxKey"].as_str().expect("text");
        let network = &settings["Networks"]["flock"];
        let ips = ["GlobalIPv6Address", "IPAddress"].map(|key| network[key].as_str().expect("text"));
        Place {
            netns: netns.rsplit('/').next().expect("a name").to_owned(),
            ips: ips.iter().map(|ip| ip.parse().expect("an address")).collect(),
        }
    }

    fn pod(&self, name: &str) -> Pod<'_> {
        Pod { host: &self.host, name: self.place(name).netns }
    }

    /// Waits until the container says its name at each of these addresses.
    #[track_caller]
    fn wait_until_served(&self, name: &str, ips: impl IntoIterator<Item = IpAddr>, port: u16) {
        for ip in ips {
            wait_for("the container to serve", || (self.host.connects_to(ip, port) == name).then_some(()));
        }
    }
}

// covers: E-26
#[test]
fn containers_of_podman_are_reached_and_leave_nothing() {
    let podman = Podman::new();
    let host = &podman.host;
    let _agent = host.cni_agent().start();
    assert!(podman.run(&["network", "ls", "--format", "{{.Name}}"]).lines().any(|name| name == "flock"));
    // A name of podman's need not be one of Kubernetes.
    podman.start("Other_one", &[IMAGE]);
    podman.start("web", &["--publish", "18080:8080", IMAGE, "serve", "8080"]);
    let web = podman.place("web");
    podman.pod("Other_one").assert_pings(host_addresses().into_iter().chain(web.ips.clone()));
    podman.wait_until_served("web", web.ips, 8080);
    podman.wait_until_served("web", host_addresses(), 18080);

    podman.run(&["restart", "--time", "5", "web"]);
    podman.wait_until_served("web", podman.place("web").ips, 8080);
    podman.wait_until_served("web", host_addresses(), 18080);

    for name in ["web", "Other_one"] {
        podman.run(&["stop", "--time", "5", name]);
        podman.run(&["rm", name]);
    }
    host.assert_empty();
    assert!(!host.ruleset().contains("18080"), "{}", host.ruleset());
}

#[test]
fn a_container_of_podman_outlives_the_agent_and_can_be_removed_without_it() {
    let podman = Podman::new();
    let host = &podman.host;
    let agent = host.cni_agent().start();
    podman.start("a", &[IMAGE]);
    podman.start("b", &[IMAGE]);
    agent.kill();
    podman.pod("a").assert_pings(podman.place("b").ips);
    podman.run(&["rm", "--force", "--time", "5", "a"]);
    let said = podman.try_run(&["run", "--rm", "--network", "flock", IMAGE]).expect_err("no agent, no container");
    assert!(said.contains("flock-agent does not answer"), "{said}");
    let _agent = host.cni_agent().start();
    podman.pod("b").assert_pings(host_addresses());
    podman.run(&["rm", "--force", "--time", "5", "b"]);
    host.assert_empty();
}
