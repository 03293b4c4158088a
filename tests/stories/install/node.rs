//! On a node that runs: pods are attached, the agent serves, a runtime calls the plugin while it is replaced.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::inotify::ReadFlags;
use serde_json::Value;

use super::dist::{Dist, Points, Run, Watch, snapshot, temporaries};
use crate::support::agent::Agent;
use crate::support::host::{Host, host_addresses};
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::programs::succeed;
use crate::support::share::{share, share_of};
use crate::support::waiting::wait_for;

const AGENT: &str = "/usr/local/bin/flock-agent";
const PLUGIN: &str = "/opt/cni/bin/flock";
const CONFLIST: &str = "/etc/cni/net.d/01-flock.conflist";
/// What the runtime's part of the host is made of.
const DIRECTORIES: [&str; 5] = ["/etc", "/opt", "/usr/local", "/run/flock", "/run/systemd"];

/// A host with files of its own in all places that an installation changes.
struct Machine {
    host: Host,
    dist: Dist,
}

impl Machine {
    fn new(name: &str) -> Machine {
        let (host, dist) = (Host::new(), Dist::new(name));
        // What flock would set is set, so that the host can be compared as a whole. One test looks at this.
        let script = "for dir in /etc /opt /usr/local $(find /usr/lib/cni /usr/libexec/cni -maxdepth 0 2>/dev/null); do \
                      mount -t tmpfs tmpfs $dir; done; \
                      mkdir -p /etc/systemd/system /etc/systemd/network /etc/NetworkManager/conf.d /etc/default /etc/cni/net.d /opt/cni/bin /usr/local/bin; rmdir /run/flock; \
                      sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
        succeed(host.command("sh").args(["-ec", script]));
        Machine { host, dist }
    }

    fn installed(name: &str) -> Machine {
        let machine = Machine::new(name);
        machine.run("install --cni-conf").done();
        machine
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.host.command(self.dist.agent().to_str().expect("text"));
        command.args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Run {
        Run::of(&mut self.command(line))
    }

    /// Installs another version, by its own command.
    #[track_caller]
    fn bring(&self, version: &Dist) {
        let mut install = self.host.command(version.agent().to_str().expect("text"));
        let run = Run::of(install.args(["install", "--cni-conf"]));
        if run.is_not_understood() {
            // A version from before there was this command, installed as it was then.
            for (from, to) in [(version.agent(), AGENT), (version.plugin(), PLUGIN)] {
                let script = format!("install -m 0755 {} {to}.new && mv {to}.new {to}", from.display());
                succeed(self.host.command("sh").args(["-c", &script]));
            }
            return;
        }
        let said = run.done();
        for path in [AGENT, PLUGIN] {
            assert!(said.contains(&format!("replaced {path}\n")), "{said}");
        }
        assert!(said.contains("systemctl restart flock-agent"), "{said}");
    }

    /// The installed agent, as the unit would start it.
    fn agent(&self) -> Agent<'_> {
        let agent = self.host.agent().program(AGENT).args(&["--cni-conf-dir", "/etc/cni/net.d"]).start();
        wait_for("the CNI configuration", || self.host.path(CONFLIST).exists().then_some(()));
        agent
    }

    fn add(&self, pod: &Pod<'_>) -> Attached {
        self.host.add(pod).program(PLUGIN).result()
    }

    fn del(&self, pod: &Pod<'_>) {
        self.host.del(pod).program(PLUGIN).done();
    }

    fn paths(&self) -> Vec<PathBuf> {
        DIRECTORIES.iter().map(|directory| self.host.path(directory)).collect()
    }

    /// Kernel and files, line by line. The time of a directory tells that something came and went, which is so.
    fn fingerprint(&self) -> BTreeSet<String> {
        let all = format!("{}{:#?}", self.host.fingerprint(), snapshot(&self.paths()));
        all.lines().filter(|line| !line.starts_with("/etc/cni/net.d directory")).map(str::to_owned).collect()
    }

    #[track_caller]
    fn assert_as(&self, before: &BTreeSet<String>) {
        let now = self.fingerprint();
        assert_eq!(now.symmetric_difference(before).collect::<Vec<_>>(), Vec::<&String>::new());
    }
}

/// Ends the loops that look at it, even when a check fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// covers: FM-G01
#[test]
fn install_pods_and_uninstall_leave_the_host_as_it_was() {
    let machine = Machine::new("story");
    let pods: Vec<Pod<'_>> = (0..4).map(|n| machine.host.pod(&format!("p{n}"))).collect();
    let before = machine.fingerprint();
    machine.run("install --cni-conf").done();
    assert!(!machine.host.path(CONFLIST).exists(), "only an agent that can serve sends pods here");
    let agent = machine.agent();
    let attached: Vec<Attached> = pods.iter().map(|pod| machine.add(pod)).collect();
    pods[0].assert_pings(attached[1].ips());

    let text = machine.run("uninstall").refused();
    assert!(text.contains("pods are attached, 4 in all (default/p0, default/p1, default/p2, …)"), "{text}");
    pods[..3].iter().for_each(|pod| machine.del(pod));
    let text = machine.run("uninstall").refused();
    assert!(text.contains("1 in all (default/p3)"), "{text}");
    agent.stop();
    assert!(machine.run("uninstall").refused().contains("1 in all"));
    // The link alone tells of a container.
    let state = ["/run/flock/state", "/run/state"].map(|path| machine.host.path(path));
    fs::rename(&state[0], &state[1]).expect("renamed");
    assert!(machine.run("uninstall").refused().contains("1 in all (container p3)"));
    assert!(!state[0].exists(), "a look leaves nothing");
    fs::rename(&state[1], &state[0]).expect("renamed");
    // Promised by the plugin, and carried out by nobody.
    machine.del(&pods[3]);
    assert_eq!(machine.host.flock_links().len(), 1);
    let planned = machine.run("uninstall --dry-run").done();
    assert!(planned.contains("would remove table inet flock\n"), "{planned}");
    let said = machine.run("uninstall").done();
    assert!(
        said.contains("removed link flock") && said.contains("removed route unreachable 2001:db8:1:f001::/64"),
        "{said}"
    );
    assert!(said.contains("removed table inet flock\nremoved table arp flock\n"), "{said}");
    assert_eq!(machine.host.run("nft list ruleset"), "");
    assert!(said.contains("left sysctl net/ipv4/ip_forward=1: others may rely on it"), "{said}");
    assert!(said.ends_with("next: systemctl daemon-reload\n"), "{said}");
    machine.assert_as(&before);
    assert_eq!(machine.run("uninstall").done(), "nothing is installed\n");
}

// covers: FM-Q15
#[test]
fn an_agent_that_runs_has_to_be_stopped_first_and_none_starts_meanwhile() {
    let machine = Machine::installed("running");
    let points = Points::new("running");
    let agent = machine.agent();
    let before = snapshot(&machine.paths());
    let stop = "systemctl disable --now flock-agent.service flock-agent.socket";
    assert!(machine.run("uninstall").refused().contains(stop));
    assert!(machine.run("uninstall --force").refused().contains(stop));
    assert_eq!(snapshot(&machine.paths()), before);
    agent.stop();

    // Nor where no agent has ever kept its state, or somebody has removed it.
    for missing in [false, true] {
        if missing {
            machine.run("install --cni-conf").done();
            fs::write(machine.host.path(CONFLIST), include_str!("../../../cni-conf/01-flock.conflist"))
                .expect("writable");
            assert!(!machine.host.path("/run/flock").exists());
        }
        points.arm("main/uninstall.removed 1", "hang 15000");
        let mut uninstall = machine.command("uninstall");
        points.apply(&mut uninstall);
        let mut uninstall = uninstall.stdout(Stdio::null()).spawn().expect("starts");
        wait_for("the first file to go", || (!machine.host.path(CONFLIST).exists()).then_some(()));
        let mut late = machine.host.agent().program(AGENT).no_wait().start();
        assert!(!late.wait().success());
        assert!(late.wait_log("cannot run").contains("is locked"));
        points.let_go();
        assert!(uninstall.wait().expect("waitable").success());
        assert!(!machine.host.path("/run/flock").exists() && !machine.host.path(AGENT).exists());
    }
}

#[test]
fn a_socket_that_systemd_holds_is_seen_and_not_called() {
    let machine = Machine::installed("socket");
    fs::create_dir(machine.host.path("/run/flock")).expect("made");
    let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('/run/flock/flock.sock'); s.listen(); \
                  print('ready', flush=True); sys.stdin.read(); s.setblocking(False); s.accept()";
    let mut holder = machine.host.command("python3");
    let holder = holder.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut holder = holder.spawn().expect("python3 starts");
    std::io::Read::read_exact(holder.stdout.as_mut().expect("piped"), &mut [0; 6]).expect("it listens");
    assert!(machine.run("uninstall").refused().contains("its socket is held for it"));
    drop(holder.stdin.take());
    assert!(!holder.wait().expect("waitable").success(), "nobody has connected");
    machine.run("uninstall").done();
    assert!(!machine.host.path("/run/flock").exists());
}

#[test]
fn a_note_of_an_earlier_delete_does_not_make_a_living_pod_look_deleted() {
    let machine = Machine::installed("noted");
    let agent = machine.agent();
    let pod = machine.host.pod("a");
    machine.add(&pod);
    let sh = |script: &str| succeed(machine.host.command("sh").args(["-ec", script]));
    // Nobody is found, so the delete is noted; the note is there again after the pod has come back.
    sh("mv /run/flock/flock.sock /run/flock/aside");
    machine.del(&pod);
    sh("mv /run/flock/aside /run/flock/flock.sock; cp -p /run/flock/deletes/*.delete /run/");
    machine.add(&pod);
    agent.stop();
    sh("mv /run/*.delete /run/flock/deletes/");
    let said = machine.run("uninstall").refused();
    assert!(said.contains("default/a"), "{said}");
    pod.assert_pings(host_addresses());
}

#[test]
fn forced_it_leaves_the_pods_their_links_and_a_new_installation_takes_them_over() {
    let machine = Machine::installed("force");
    let agent = machine.agent();
    let (a, b) = (machine.host.pod("a"), machine.host.pod("b"));
    let attached = [machine.add(&a), machine.add(&b)];
    agent.stop();
    let said = machine.run("uninstall --force").done();
    assert!(said.contains("left the links of 2 pods"), "{said}");
    assert!(said.contains("left table inet flock: it holds for the pods that live on"), "{said}");
    machine.host.run("nft list table inet flock");
    for path in [AGENT, PLUGIN, CONFLIST, "/run/flock"] {
        assert!(!machine.host.path(path).exists(), "{path}");
    }
    a.assert_pings(attached[1].ips());
    b.assert_pings(host_addresses());

    machine.run("install --cni-conf").done();
    let agent = machine.agent();
    machine.host.assert_sound("installed again");
    assert_eq!(machine.host.leases().len(), 2, "both are taken over");
    a.assert_pings(attached[1].ips());
    machine.del(&a);
    machine.del(&b);
    machine.host.assert_empty();
    agent.stop();
}

#[test]
fn a_configuration_by_hand_stays_and_holds_up_the_rest() {
    let machine = Machine::installed("edited");
    machine.agent().stop();
    let path = machine.host.path(CONFLIST);
    let edited = fs::read_to_string(&path).expect("text").replace("0.4.0", "1.0.0");
    fs::write(&path, &edited).expect("written");
    let before = snapshot(&machine.paths());
    for line in ["uninstall", "uninstall --force --purge"] {
        let text = machine.run(line).refused();
        assert!(text.contains("01-flock.conflist names the plugin flock and is not as the agent writes it"), "{text}");
    }
    assert_eq!(snapshot(&machine.paths()), before);
    fs::remove_file(path).expect("removed");
    machine.run("uninstall").done();
}

#[test]
fn settings_that_flock_made_are_left_and_named() {
    let machine = Machine::installed("sysctl");
    machine.host.run("sysctl -q net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
    machine.agent().stop();
    let said = machine.run("uninstall").done();
    for key in ["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"] {
        assert!(said.contains(&format!("left sysctl {key}: others may rely on it")), "{said}");
    }
}

#[test]
fn an_uninstall_killed_at_any_step_on_a_node_is_finished_by_the_next() {
    let machine = Machine::new("killed");
    let points = Points::new("node");
    let pod = machine.host.pod("p");
    let (before, files) = (machine.fingerprint(), snapshot(&machine.paths()));
    let launch = || {
        let mut command = machine.command("uninstall");
        points.apply(&mut command);
        Run::of(&mut command)
    };
    let live = || {
        machine.run("install --cni-conf").done();
        let agent = machine.agent();
        machine.add(&pod);
        agent.stop();
        machine.del(&pod);
    };
    live();
    let passed = points.traced(|| drop(launch().done()));
    machine.assert_as(&before);
    // The look changes nothing, and files go from an image in the same way: tests/stories/install/image.rs kills that.
    let kernel = passed.iter().position(|point| point == "main/netlink.request 1").expect("a link is removed");
    assert!(passed[kernel..].len() > 8, "{passed:?}");
    for point in share("uninstall killed on a node", &passed[kernel..]) {
        live();
        points.arm(point, "kill");
        let run = launch();
        assert!(run.was_killed(), "{point}: {run:?}");
        launch().done();
        assert_eq!(snapshot(&machine.paths()), files, "killed at {point}");
        machine.host.assert_empty();
        let routes = ["-4", "-6"].map(|family| machine.host.run(&format!("ip {family} route show proto 102")));
        assert_eq!(routes, ["", ""], "killed at {point}");
    }
    machine.assert_as(&before);
}

// covers: FM-C06
#[test]
fn a_plugin_that_is_replaced_a_thousand_times_fails_no_call() {
    let machine = Machine::installed("thousand");
    let other = machine.dist.other("thousand-other");
    let agent = machine.agent();
    let versions = [machine.dist.plugin(), other.plugin()];
    let contents = versions.each_ref().map(|path| fs::read(path).expect("there"));
    let place = machine.host.path(PLUGIN);
    let watch = Watch::on([place.parent().expect("a directory")]);
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let pod = machine.host.pod("loop");
            while !over.load(Ordering::Relaxed) {
                machine.add(&pod);
                machine.del(&pod);
                calls.fetch_add(2, Ordering::Relaxed);
            }
        });
        let _over = SetAtEnd(&over);
        // Calls take longer than installations where the kernel is busy with links.
        let is_enough = |n: usize| n >= share_of(1000) && calls.load(Ordering::Relaxed) > 100;
        for n in (0..share_of(10_000)).take_while(|n| !is_enough(*n)) {
            let mut install = machine.command("install");
            let said = Run::of(install.arg("--plugin").arg(&versions[(n + 1) % 2])).done();
            assert!(said.contains("replaced /opt/cni/bin/flock\n"), "{said}");
            assert!(!said.contains("replaced /usr/local"), "the agent is the same: {said}");
            assert!(fs::read(&place).expect("it is always there") == contents[(n + 1) % 2], "half a plugin");
            // Nothing else ever happens to the name, so nobody has seen it otherwise.
            for (name, kind) in watch.heard() {
                assert!(name != "flock" || kind == ReadFlags::MOVED_TO, "{name}: {kind:?}");
            }
        }
    });
    let calls = calls.into_inner();
    assert!(calls > 100, "{calls} calls");
    assert_eq!(temporaries(&snapshot(&[machine.host.path("/opt")])), Vec::<&PathBuf>::new());
    machine.host.assert_empty();
    agent.stop();
}

// covers: FM-C07 FM-C13
#[test]
fn a_node_is_brought_to_another_version_and_back_while_pods_live_and_come_and_go() {
    let machine = Machine::installed("upgrade");
    let other = machine.dist.former("upgrade-other");
    let agent = machine.agent();
    let (a, b) = (machine.host.pod("a"), machine.host.pod("b"));
    let attached = [machine.add(&a), machine.add(&b)];
    let stands = || {
        let leases = machine.host.leases();
        let mut lines: Vec<String> =
            leases.iter().map(|lease| format!("{} {:?}", lease.attachment, lease.ipv6)).collect();
        lines.retain(|line| line.starts_with("a/") || line.starts_with("b/"));
        lines
    };
    let before = stands();
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let agent = thread::scope(|scope| {
        let (mut agent, _over) = (agent, SetAtEnd(&over));
        let churn = scope.spawn(|| {
            let pod = machine.host.pod("loop");
            while !over.load(Ordering::Relaxed) {
                machine.add(&pod);
                machine.del(&pod);
                calls.fetch_add(2, Ordering::Relaxed);
            }
        });
        for (n, version) in [&other, &machine.dist, &other, &machine.dist].into_iter().enumerate() {
            machine.bring(version);
            // The former agent and the new plugin get on with each other until the restart.
            let enough = calls.load(Ordering::Relaxed) + 10;
            wait_for("calls", || (calls.load(Ordering::Relaxed) >= enough || churn.is_finished()).then_some(()));
            let log = agent.stop();
            // The record itself is understood, in both directions, and nothing has to be read back from the kernel; only a
            // version that had another format reads everything back.
            let is_of_another_format = log.contains("kept_as=leases.log.version-");
            assert!(is_of_another_format || !log.contains("kept_as") && !log.contains("adopted"), "{log}");
            agent = machine.agent();
            assert_eq!(stands(), before, "restart {n}");
            a.assert_pings(attached[1].ips());
            b.assert_pings(host_addresses());
        }
        agent
    });
    machine.host.assert_sound("after the last restart");
    machine.del(&a);
    machine.del(&b);
    // A DEL that found no agent was noted, and is carried out by the next one.
    wait_for("the last note", || machine.host.leases().is_empty().then_some(()));
    machine.host.assert_empty();
    agent.stop();
}

#[test]
fn only_what_was_renewed_is_to_be_started_anew() {
    let machine = Machine::new("next");
    let next = || machine.run("install").done().lines().last().expect("a line").to_owned();
    let all = "next: systemctl daemon-reload && systemctl enable flock-agent && systemctl restart";
    assert_eq!(next(), format!("{all} flock-agent.socket flock-agent"));
    assert_eq!(next(), format!("nothing to do: flock {} is in place", env!("CARGO_PKG_VERSION")));
    fs::write(machine.host.path(PLUGIN), format!("an older one of {}", flock::rpc::DEFAULT_SOCKET)).expect("written");
    assert_eq!(next(), "nothing to start anew");
    fs::write(machine.host.path(AGENT), "an older one").expect("written");
    assert_eq!(next(), format!("{all} flock-agent"), "callers wait in the socket meanwhile");
}

#[test]
fn what_the_runtime_calls_is_there_before_it_is_told_to_call_it() {
    let machine = Machine::new("order");
    let watch = Watch::on(
        ["/opt/cni/bin", "/etc/cni/net.d"].map(|dir| machine.host.path(dir)).each_ref().map(PathBuf::as_path),
    );
    machine.run("install --cni-conf").done();
    machine.agent().stop();
    machine.run("uninstall").done();
    let story: Vec<(String, ReadFlags)> =
        watch.heard().into_iter().filter(|(name, _)| Path::new(name).extension().is_none_or(|e| e != "tmp")).collect();
    let expected = [
        ("flock", ReadFlags::MOVED_TO),
        ("01-flock.conflist", ReadFlags::MOVED_TO),
        ("01-flock.conflist", ReadFlags::DELETE),
        ("flock", ReadFlags::DELETE),
    ];
    assert_eq!(story, expected.map(|(name, kind)| (name.to_owned(), kind)));
}

#[test]
fn the_installed_configuration_names_the_installed_plugin() {
    let machine = Machine::installed("names");
    machine.agent().stop();
    let list: Value = serde_json::from_slice(&fs::read(machine.host.path(CONFLIST)).expect("there")).expect("JSON");
    let plugin = list["plugins"][0]["type"].as_str().expect("a name");
    assert_eq!(Path::new(PLUGIN).file_name(), Some(plugin.as_ref()));
}
