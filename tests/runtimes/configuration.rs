//! What a runtime notices of the files in its configuration directory, and what it makes of them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use cni::conflist::{Portmap, Present, wanted};
use flock::agent::node::conflist::install;

use crate::containerd::{CONF_DIR, Containerd, ContainerdRelease};
use crate::support::host::{Host, host_addresses};
use crate::support::waiting::wait_for;
use crate::with_each;

/// A network of somebody else, which is loaded whether or not its plugin is there.
fn other(name: &str) -> String {
    format!(r#"{{"cniVersion": "0.4.0", "name": "{name}", "plugins": [{{"type": "bridge", "bridge": "{name}0"}}]}}"#)
}

impl Host {
    fn conf(&self, file: &str) -> std::path::PathBuf {
        self.path(&format!("{CONF_DIR}/{file}"))
    }
}

impl Containerd<'_> {
    /// Waits until these networks are the ones that are loaded.
    #[track_caller]
    fn wait_for_networks(&self, names: &[&str]) {
        wait_for(&format!("the networks to be {names:?}"), || (self.info().networks() == names).then_some(()));
    }

    /// Waits until it has heard of this file and passed over it.
    fn wait_until_ignored(&self, file: &str) {
        wait_for("the event to be passed over", || {
            let log = self.log();
            log.lines().any(|line| line.contains("ignore event from cni conf dir") && line.contains(file)).then_some(())
        });
    }

    /// How often it has loaded its configuration because of this file.
    fn loads_for(&self, file: &str) -> usize {
        let log = self.log();
        log.lines().filter(|line| line.contains("receiving change event") && line.contains(file)).count()
    }
}

// covers: N-01 N-02 FM-C03
#[test]
fn the_first_file_decides_and_ours_comes_first() {
    with_each(|containerd| {
        let host = containerd.host;
        host.write(&format!("{CONF_DIR}/10-other.conflist"), &other("other"));
        containerd.wait_for_networks(&["other"]);
        let agent = host.cni_agent().start();
        containerd.wait_for_networks(&["flock"]);
        host.write(&format!("{CONF_DIR}/00-a.conflist"), &other("first"));
        containerd.wait_for_networks(&["first"]);
        fs::remove_file(host.conf("00-a.conflist")).expect("removed");
        containerd.wait_for_networks(&["flock"]);
        // What an editor leaves counts, however hidden; another ending does not.
        host.write(&format!("{CONF_DIR}/.10-other.conflist"), &other("hidden"));
        containerd.wait_for_networks(&["hidden"]);
        host.write(&format!("{CONF_DIR}/.01-flock.conflist.77.tmp"), "{ half of");
        fs::remove_file(host.conf(".10-other.conflist")).expect("removed");
        containerd.wait_for_networks(&["flock"]);
        containerd.pod("a").run().end();
        host.assert_empty();
        agent.stop();
    });
}

// covers: N-03 FM-C03
#[test]
fn a_broken_file_before_ours_stops_pods_from_coming_and_going_until_it_is_gone() {
    with_each(|containerd| {
        let host = containerd.host;
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let a = containerd.pod("a").run();
        host.write(&format!("{CONF_DIR}/00-broken.conf"), "{");
        let text = containerd.wait_until_not_ready();
        assert!(text.contains("cni plugin not initialized"), "{text}");
        let load = containerd.info().load_status();
        assert!(load.contains("00-broken.conf"), "the one that is broken is named: {load}");
        let text = containerd.pod("b").try_run().err().expect("no network, no pod");
        assert!(text.contains("cni plugin not initialized"), "{text}");
        let text = a.try_stop().expect_err("nobody can be asked");
        assert!(text.contains("cni plugin not initialized"), "{text}");
        fs::remove_file(host.conf("00-broken.conf")).expect("removed");
        containerd.wait_until_ready();
        a.end();
        // That of the failed attempt could not be cleaned up then; kubelet makes the next one.
        containerd.pod("b").attempt(1).run().end();
        host.assert_empty();
    });
}

// covers: N-07 FM-C04
#[test]
fn without_our_file_no_pod_can_be_stopped_and_the_agent_writes_it_again() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let a = containerd.pod("a").run();
        // It would write the file again within seconds.
        agent.signal("STOP");
        fs::remove_file(host.conf("01-flock.conflist")).expect("removed");
        containerd.wait_until_not_ready();
        let text = a.try_stop().expect_err("nobody can be asked");
        assert!(text.contains("cni plugin not initialized"), "{text}");
        a.pod().assert_pings(host_addresses());
        agent.signal("CONT");
        agent.stop();
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        a.end();
        host.assert_empty();
        agent.stop();
    });
}

// covers: N-04 F-05 FM-C05
#[test]
fn files_that_come_by_rename_from_elsewhere_or_by_a_link_are_not_noticed() {
    with_each(|containerd| {
        let host = containerd.host;
        let elsewhere = |file: &str| host.path(&format!("/etc/cni/{file}"));
        fs::write(elsewhere("renamed"), other("renamed")).expect("written");
        fs::write(elsewhere("linked"), other("linked")).expect("written");
        fs::rename(elsewhere("renamed"), host.conf("50-renamed.conflist")).expect("renamed");
        fs::hard_link(elsewhere("linked"), host.conf("40-linked.conflist")).expect("linked");
        std::os::unix::fs::symlink("/etc/cni/linked", host.conf("30-pointed.conflist")).expect("linked");
        for file in ["50-renamed", "40-linked", "30-pointed"] {
            containerd.wait_until_ignored(file);
        }
        assert_eq!(containerd.info().networks(), Vec::<String>::new());
        // Nor does it help to touch one.
        host.run(&format!("touch {CONF_DIR}/50-renamed.conflist"));
        wait_for("the event to be passed over", || {
            let log = containerd.log();
            log.lines().any(|line| line.contains("ignore event") && line.contains("CHMOD")).then_some(())
        });
        assert_eq!(containerd.info().networks(), Vec::<String>::new());
        // Any file that is written and removed makes it look at all of them.
        host.write(&format!("{CONF_DIR}/kick.tmp"), "");
        fs::remove_file(host.conf("kick.tmp")).expect("removed");
        containerd.wait_for_networks(&["linked"]);
        // Ours comes by a name beside it, of which the runtime hears when it is renamed away.
        let agent = host.cni_agent().start();
        containerd.wait_for_networks(&["flock"]);
        agent.stop();
    });
}

// covers: N-05 FM-C05
#[test]
fn our_file_is_in_force_after_each_of_many_changes() {
    with_each(|containerd| {
        let host = containerd.host;
        let dir = host.path(CONF_DIR);
        for round in 0..100 {
            let name = format!("flock{}", round % 3);
            let text = wanted(None, Portmap::Unknown, &Present::Absent).replace("\"flock\",", &format!("\"{name}\","));
            install(&dir, &text.replacen("\"flock\"", &format!("\"{name}\""), 1)).expect("installed");
            containerd.wait_for_networks(&[&name]);
        }
    });
}

// covers: F-06
#[test]
fn an_agent_that_finds_its_file_in_place_makes_no_runtime_load_it_again() {
    with_each(|containerd| {
        let host = containerd.host;
        host.cni_agent().start().stop();
        containerd.wait_for_networks(&["flock"]);
        wait_for("all that was written to be heard of", || {
            host.write(&format!("{CONF_DIR}/mark-1.tmp"), "");
            (containerd.loads_for("mark-1.tmp") > 0).then_some(())
        });
        let before = containerd.loads_for("01-flock.conflist");
        for _ in 0..5 {
            let agent = host.cni_agent().start();
            containerd.pod("a").run().end();
            agent.stop();
        }
        wait_for("all that was written to be heard of", || {
            host.write(&format!("{CONF_DIR}/mark-2.tmp"), "");
            (containerd.loads_for("mark-2.tmp") > 0).then_some(())
        });
        assert_eq!(containerd.loads_for("01-flock.conflist"), before);
    });
}

// covers: N-06
#[test]
fn a_directory_that_is_replaced_costs_a_restart_of_the_runtime_and_ours_never_is() {
    with_each(|containerd| {
        let host = containerd.host;
        let inode = || fs::metadata(host.path(CONF_DIR)).expect("there").ino();
        let before = inode();
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        agent.stop();
        assert_eq!(inode(), before);
        fs::rename(host.path(CONF_DIR), host.path("/etc/cni/old")).expect("renamed");
        fs::create_dir(host.path(CONF_DIR)).expect("made");
        // The old one goes on without a network, the new one ends.
        match containerd.release {
            ContainerdRelease::One => drop(containerd.wait_until_not_ready()),
            ContainerdRelease::Two => assert_eq!(wait_for("its end", || containerd.ended()).code(), Some(1)),
        }
        let _agent = host.cni_agent().start();
        if containerd.release == ContainerdRelease::One {
            assert_eq!(containerd.info().networks(), Vec::<String>::new(), "nobody watches the new directory");
            containerd.end("TERM");
        }
        containerd.again();
        containerd.wait_until_ready();
        containerd.pod("a").run().end();
        host.assert_empty();
    });
}
