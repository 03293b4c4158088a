//! The socket outlives the agent: nobody is refused while agents end, die and start.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::host::Host;
use crate::support::pod::Pod;
use crate::support::waiting::wait_for;

/// Inode, owner and rights: the same socket, as it should be.
fn identity(host: &Host) -> String {
    host.run("stat -c %i:%u:%a:%F /run/flock/flock.sock /run/flock")
}

fn notes(host: &Host) -> usize {
    let Ok(entries) = fs::read_dir(host.path("/run/flock/deletes")) else { return 0 };
    entries.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|e| e == "delete"))).count()
}

// covers: T-05 FM-G06
#[test]
fn restarts_and_kills_under_a_stream_of_calls_lose_none_and_refuse_none() {
    let host = Host::with_service();
    let before = identity(&host);
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 0..4 {
            let (host, over, calls) = (&host, &over, &calls);
            scope.spawn(move || {
                let pod = host.pod(&format!("p{n}"));
                while !over.load(Ordering::Relaxed) {
                    host.add(&pod).result();
                    host.cni("STATUS").done();
                    host.del(&pod).done();
                    calls.fetch_add(3, Ordering::Relaxed);
                }
            });
        }
        for starts in 1..=8 {
            host.wait_log("flock-agent listens", starts);
            // Some calls are on their way at any time, and some of each agent's life have ended.
            let enough = calls.load(Ordering::Relaxed) + 20;
            wait_for("calls to be served", || (calls.load(Ordering::Relaxed) >= enough).then_some(()));
            match starts % 2 {
                0 => host.systemctl("restart flock-agent"),
                _ => host.systemctl("kill --signal KILL flock-agent"),
            };
        }
        host.wait_log("flock-agent listens", 9);
        over.store(true, Ordering::Relaxed);
    });
    host.assert_sound("after the restarts");
    host.assert_empty();
    assert_eq!(notes(&host), 0, "a DEL found no agent");
    assert_eq!(identity(&host), before);
}

// covers: FM-C12
#[test]
fn calls_that_wait_when_the_agent_ends_are_served_by_the_next_one() {
    let host = Host::with_service();
    let pods: Vec<Pod<'_>> = (0..8).map(|n| host.pod(&format!("p{n}"))).collect();
    host.systemctl("kill --signal STOP flock-agent");
    thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| host.add(pod).result())).collect();
        wait_for("the calls to wait", || {
            let waiting = host.run("ss -Hxl src /run/flock/flock.sock");
            (waiting.split_whitespace().nth(2) == Some("8")).then_some(())
        });
        host.systemctl("kill --signal KILL flock-agent");
        adds.into_iter().for_each(|add| drop(add.join().expect("an answer")));
    });
    assert_eq!(host.leases().len(), pods.len());
    host.assert_sound("after the kill");
    pods.iter().for_each(|pod| host.del(pod).done());
    host.assert_empty();
}

#[test]
fn a_socket_whose_file_was_removed_is_there_again_and_for_the_next_agents_too() {
    let host = Host::with_service();
    let pod = host.pod("a");
    host.run("rm /run/flock/flock.sock");
    host.systemctl("kill --signal HUP flock-agent");
    host.wait_log("socket was gone from its place", 1);
    host.add(&pod).result();
    // systemd has noticed nothing, and hands over the socket that has no name.
    for (starts, how) in [(2, "kill --signal KILL flock-agent"), (3, "restart flock-agent")] {
        host.systemctl(how);
        host.wait_log("flock-agent listens", starts);
        host.wait_log("socket was gone from its place", starts);
        host.cni("STATUS").done();
    }
    host.systemctl("restart flock-agent.socket");
    host.wait_log("flock-agent listens", 4);
    host.del(&pod).done();
    assert_eq!(host.log().matches("socket was gone from its place").count(), 3, "{}", host.log());
    host.assert_sound("in the end");
    host.assert_empty();
}

#[test]
fn a_directory_that_was_removed_with_the_socket_comes_back_with_the_next_agent() {
    let host = Host::with_service();
    let pod = host.pod("a");
    host.run("rm -r /run/flock");
    // Under the unit the agent cannot make it anew.
    for looks in 1..=3 {
        host.systemctl("kill --signal HUP flock-agent");
        host.wait_log("looking again, as asked by SIGHUP", looks);
    }
    host.wait_log("callers cannot reach the agent", 1);
    host.wait_log("it ends so that it is started anew", 1);
    host.wait_log("flock-agent listens", 2);
    host.wait_log("socket was gone from its place", 1);
    host.add(&pod).result();
    host.del(&pod).done();
    host.assert_sound("in the end");
    host.assert_empty();
}

#[test]
fn without_an_agent_status_and_del_end_in_time_and_the_delete_is_carried_out_later() {
    let host = Host::with_service();
    let (deleted, waiting) = (host.pod("deleted"), host.pod("waiting"));
    host.add(&deleted).result();
    // The program is gone, as in the middle of an upgrade that went wrong.
    host.run("mv /usr/local/bin/flock-agent /usr/local/bin/away");
    host.systemctl("kill --signal KILL flock-agent");
    wait_for("the start that fails", || (host.property("flock-agent", "ExecMainStatus") == "203").then_some(()));

    let status = host.cni("STATUS").run();
    assert!(status.elapsed < Duration::from_secs(3), "{:?}", status.elapsed);
    assert_eq!(status.failed().code, 50);
    let del = host.del(&deleted).run();
    assert_eq!(del.succeeded(), "");
    assert!(del.elapsed < Duration::from_secs(9), "{:?}", del.elapsed);
    assert_eq!(notes(&host), 1);

    // Calls that wait do not make systemd try more often than it should, nor give up.
    assert_eq!(host.property("flock-agent.socket", "ActiveState"), "active");
    let tries: u32 = host.property("flock-agent", "NRestarts").parse().expect("a number");
    assert!((2..=60).contains(&tries), "{tries}");
    thread::scope(|scope| {
        let add = scope.spawn(|| host.add(&waiting).result());
        wait_for("the call to wait", || {
            host.run("ss -Hxl src /run/flock/flock.sock").split_whitespace().nth(2).filter(|n| *n != "0").map(|_| ())
        });
        host.run("mv /usr/local/bin/away /usr/local/bin/flock-agent");
        add.join().expect("an answer");
    });
    wait_for("the delete", || (notes(&host) == 0 && host.leases().len() == 1).then_some(()));
    host.del(&waiting).done();
    host.assert_empty();
}

#[test]
fn stopping_the_socket_stops_the_agent_and_a_call_starts_neither() {
    let host = Host::with_service();
    let pod = host.pod("p");
    host.add(&pod).result();
    host.systemctl("stop flock-agent.socket");
    assert_eq!(host.property("flock-agent", "ActiveState"), "inactive");
    assert!(!host.path("/run/flock/flock.sock").exists());
    host.del(&pod).done();
    assert_eq!(notes(&host), 1);
    assert_eq!(host.cni("STATUS").error().code, 50);
    assert_eq!(host.property("flock-agent", "ActiveState"), "inactive");

    host.systemctl("start flock-agent");
    wait_for("the delete", || (notes(&host) == 0).then_some(()));
    host.assert_empty();
}

// covers: FM-C02
#[test]
fn a_stopped_agent_is_started_by_the_next_call() {
    let host = Host::with_service();
    let before = identity(&host);
    let pod = host.pod("p");
    host.add(&pod).result();
    host.systemctl("stop flock-agent.service");
    assert_eq!(host.property("flock-agent", "ActiveState"), "inactive");
    assert_eq!(identity(&host), before, "the directory and its socket stay");
    host.del(&pod).done();
    // It serves calls before it says that it is ready.
    wait_for("the agent to be active", || (host.property("flock-agent", "ActiveState") == "active").then_some(()));
    host.assert_empty();
}

#[test]
fn a_socket_unit_for_another_path_is_named_by_the_agent_that_refuses_it() {
    let host = Host::with_units();
    host.write("/etc/default/flock-agent", "FLOCK_AGENT_FLAGS=--socket /run/flock/other.sock\n");
    host.systemctl("start --no-block flock-agent");
    host.wait_log("hands over /run/flock/flock.sock, but --socket is /run/flock/other.sock", 1);
}

#[test]
fn a_restart_of_the_socket_restarts_the_agent() {
    let host = Host::with_service();
    host.systemctl("restart flock-agent.socket");
    host.wait_log("flock-agent listens", 2);
    let pod = host.pod("p");
    host.add(&pod).result();
    host.del(&pod).done();
    host.assert_empty();
}
