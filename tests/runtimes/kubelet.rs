//! kubelet's view: the sequences of calls that it makes when something goes wrong, as it makes them, through the CRI.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::containerd::Sandbox;
use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR6, node_config};
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;
use crate::with_each;

// covers: N-09 Q-04 FM-A14
#[test]
fn a_sandbox_that_fails_twenty_times_leaves_nothing() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let before = containerd.pod("before").run();
        for attempt in 0..20 {
            let text = containerd.pod("crash").attempt(attempt).broken().try_run().err().expect("it is broken");
            assert!(text.contains("/run/broken-runtime did not terminate"), "{text}");
        }
        // Each had an id and an address of its own, and its DEL.
        let ids = |op: &str| {
            let log = agent.log();
            let lines = log.lines().filter(|line| line.contains(op));
            let ids = lines.filter_map(|line| line.split(" cid=").nth(1)?.split(' ').next());
            ids.filter(|id| *id != before.id).map(str::to_owned).collect::<BTreeSet<String>>()
        };
        assert_eq!(ids("op=ADD").len(), 20);
        // An answer comes before its line.
        wait_for("a DEL for each", || (ids("op=DEL") == ids("op=ADD")).then_some(()));
        assert_eq!(host.leases().len(), 1);
        containerd.pod("crash").attempt(20).run().pod().assert_pings(before.ips());
        for id in containerd.sandboxes() {
            containerd.crictl(&["stopp", &id]);
            containerd.crictl(&["rmp", &id]);
        }
        host.assert_empty();
    });
}

//
#[test]
fn a_stop_that_failed_is_repeated_until_it_succeeds_and_so_is_one_that_succeeded() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let (a, b) = (containerd.pod("a").run(), containerd.pod("b").run());
        // The plugin is away for a moment, as during an upgrade by hand.
        let plugin = format!("{}/flock", containerd.release.plugins());
        host.run(&format!("mv {plugin} /run/flock.old"));
        for _ in 0..5 {
            a.try_stop().expect_err("there is no plugin");
        }
        assert_eq!(host.leases().len(), 2);
        host.run(&format!("mv /run/flock.old {plugin}"));
        for _ in 0..5 {
            a.stop();
        }
        assert_eq!(host.leases().len(), 1);
        a.remove();
        // An address that was freed is for others, whatever comes late.
        let c = containerd.pod("a").attempt(1).run();
        c.pod().assert_pings(b.ips());
        agent.kill();
        b.stop();
        let _agent = host.cni_agent().start();
        b.end();
        c.pod().assert_pings(host_addresses());
        c.end();
        host.assert_empty();
    });
}

// covers: D-13 FM-A05
#[test]
fn a_sandbox_that_dies_half_made_with_its_runtime_frees_its_address() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        // It stays in the middle of its work, behind the network.
        host.write("/run/broken-runtime", "#!/bin/sh\ntouch /run/tmp/reached\nexec sleep infinity\n");
        let mut half = containerd.pod("half").broken().begin();
        wait_for("the sandbox to be half made", || host.path("/run/tmp/reached").exists().then_some(()));
        agent.wait_log("op=ADD");
        assert_eq!(host.leases().len(), 1);
        containerd.end("KILL");
        half.wait().expect("waitable");
        host.write("/run/broken-runtime", "#!/bin/sh\necho 'no such thing' >&2\nexit 1\n");
        containerd.again();
        containerd.wait_until_ready();
        let left = containerd.sandboxes();
        assert_eq!(left.len(), 1, "it still knows of it");
        for id in left {
            containerd.crictl(&["stopp", &id]);
            containerd.crictl(&["rmp", &id]);
        }
        assert_eq!(host.leases(), Vec::new());
        containerd.pod("half").attempt(1).run().end();
        host.assert_empty();
    });
}

// covers: N-11 FM-A01
#[test]
fn after_a_reboot_new_pods_come_first_and_the_old_ones_are_stopped_late() {
    with_each(|containerd| {
        let host = containerd.host;
        // So few addresses that an old one has to be used again.
        let config = node_config(CIDR6, "10.25.214.0/28");
        let agent = host.cni_agent().config(Some(&config)).start();
        containerd.wait_until_ready();
        let old: Vec<String> = (0..8).map(|n| containerd.pod(&format!("old{n}")).run().id).collect();
        assert_eq!(host.leases().len(), 8);
        containerd.end("KILL");
        agent.kill();
        host.reboot();
        assert_eq!((host.leases(), host.flock_links()), (Vec::new(), Vec::new()));

        let _agent = host.cni_agent().config(Some(&config)).start();
        containerd.again();
        containerd.wait_until_ready();
        assert_eq!(containerd.sandboxes().len(), 8, "they are on disk, and long gone");
        let new: Vec<Sandbox<'_, '_>> = (0..8).map(|n| containerd.pod(&format!("old{n}")).attempt(1).run()).collect();
        let ips: BTreeSet<IpAddr> = new.iter().flat_map(Sandbox::ips).collect();
        assert_eq!(ips.len(), 16);
        for id in &old {
            for _ in 0..2 {
                containerd.crictl(&["stopp", id]);
            }
            containerd.crictl(&["rmp", id]);
        }
        host.assert_sound("after the old ones were stopped");
        assert_eq!(host.leases().len(), 8);
        for sandbox in &new {
            sandbox.pod().assert_pings(host_addresses());
            sandbox.end();
        }
        host.assert_empty();
    });
}

impl Host {
    /// What a reboot takes: every process of containers, and what lies in `/run` and in the kernel. `/var` and `/etc` stay.
    fn reboot(&self) {
        let script = |text: &str| succeed(self.command("sh").args(["-ec", text]));
        // Each may end by itself before its turn comes. The group of the host has no containers, but their keepers.
        script(
            "for pid in $(cat /sys/fs/cgroup/host/cgroup.procs); do
                 case $(cat /proc/$pid/comm 2>/dev/null) in containerd-shim*) kill -KILL $pid 2>/dev/null || : ;; esac
             done
             find /sys/fs/cgroup -mindepth 2 -name cgroup.kill ! -path '*/host/*' |
                 while read -r file; do echo 1 2>/dev/null >$file || :; done",
        );
        wait_for("the containers' groups to be empty", || {
            let left = "find /sys/fs/cgroup -depth -mindepth 1 -type d ! -path /sys/fs/cgroup/host";
            script(&format!("{left} -exec rmdir {{}} + 2>/dev/null || :; {left}")).is_empty().then_some(())
        });
        script(
            // The list also has what this machine has mounted below its own /run, which is hidden here and cannot be unmounted.
            // A mount that could be and stays makes the removal fail.
            "for mount in $(awk '$2 ~ \"^/run/\" {print $2}' /proc/self/mounts | sort -r); do umount -l $mount 2>/dev/null || :; done
             rm -rf /run/netns /run/flock /run/containerd
             mkdir -p /run/netns /run/flock",
        );
        wait_for("the links to go with their namespaces", || self.flock_links().is_empty().then_some(()));
        for family in ["-4", "-6"] {
            self.run(&format!("ip {family} route flush proto 102"));
        }
    }
}
