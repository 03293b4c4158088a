//! The socket outlives the agent: nobody is refused while agents end, die and start.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::machine::Machine;
use crate::support::*;

/// Inode, owner and rights: the same socket, as it should be.
fn identity(machine: &Machine) -> String {
    machine.run("stat -c %i:%u:%a:%F /run/flock/flock.sock /run/flock")
}

fn notes(machine: &Machine) -> usize {
    let Ok(entries) = fs::read_dir(machine.path("/run/flock/deletes")) else { return 0 };
    entries.filter(|entry| entry.as_ref().is_ok_and(|e| e.path().extension().is_some_and(|e| e == "delete"))).count()
}

// covers: T-05 FM-G06
#[test]
fn restarts_and_kills_under_a_stream_of_calls_lose_none_and_refuse_none() {
    let machine = Machine::with_agent();
    let before = identity(&machine);
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 0..4 {
            let (machine, over, calls) = (&machine, &over, &calls);
            scope.spawn(move || {
                let pod = machine.pod(&format!("p{n}"));
                while !over.load(Ordering::Relaxed) {
                    machine.add(&pod).result();
                    machine.cni("STATUS").done();
                    machine.del(&pod).done();
                    calls.fetch_add(3, Ordering::Relaxed);
                }
            });
        }
        for starts in 1..=8 {
            machine.wait_log("flock-agent listens", starts);
            // Some calls are on their way at any time, and some of each agent's life have ended.
            let enough = calls.load(Ordering::Relaxed) + 20;
            wait_for("calls to be served", || (calls.load(Ordering::Relaxed) >= enough).then_some(()));
            match starts % 2 {
                0 => machine.systemctl("restart flock-agent"),
                _ => machine.systemctl("kill --signal KILL flock-agent"),
            };
        }
        machine.wait_log("flock-agent listens", 9);
        over.store(true, Ordering::Relaxed);
    });
    machine.assert_sound("after the restarts");
    machine.assert_empty();
    assert_eq!(notes(&machine), 0, "a DEL found no agent");
    assert_eq!(identity(&machine), before);
}

// covers: FM-C12
#[test]
fn calls_that_wait_when_the_agent_ends_are_served_by_the_next_one() {
    let machine = Machine::with_agent();
    let pods: Vec<Pod<'_>> = (0..8).map(|n| machine.pod(&format!("p{n}"))).collect();
    machine.systemctl("kill --signal STOP flock-agent");
    thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| machine.add(pod).result())).collect();
        wait_for("the calls to wait", || {
            let waiting = machine.run("ss -Hxl src /run/flock/flock.sock");
            (waiting.split_whitespace().nth(2) == Some("8")).then_some(())
        });
        machine.systemctl("kill --signal KILL flock-agent");
        adds.into_iter().for_each(|add| drop(add.join().expect("an answer")));
    });
    assert_eq!(machine.leases().len(), pods.len());
    machine.assert_sound("after the kill");
    pods.iter().for_each(|pod| machine.del(pod).done());
    machine.assert_empty();
}

#[test]
fn a_socket_whose_file_was_removed_is_there_again_and_for_the_next_agents_too() {
    let machine = Machine::with_agent();
    let pod = machine.pod("a");
    machine.run("rm /run/flock/flock.sock");
    machine.systemctl("kill --signal HUP flock-agent");
    machine.wait_log("socket was gone from its place", 1);
    machine.add(&pod).result();
    // systemd has noticed nothing, and hands over the socket that has no name.
    for (starts, how) in [(2, "kill --signal KILL flock-agent"), (3, "restart flock-agent")] {
        machine.systemctl(how);
        machine.wait_log("flock-agent listens", starts);
        machine.wait_log("socket was gone from its place", starts);
        machine.cni("STATUS").done();
    }
    machine.systemctl("restart flock-agent.socket");
    machine.wait_log("flock-agent listens", 4);
    machine.del(&pod).done();
    assert_eq!(machine.log().matches("socket was gone from its place").count(), 3, "{}", machine.log());
    machine.assert_sound("in the end");
    machine.assert_empty();
}

#[test]
fn a_directory_that_was_removed_with_the_socket_comes_back_with_the_next_agent() {
    let machine = Machine::with_agent();
    let pod = machine.pod("a");
    machine.run("rm -r /run/flock");
    // Under the unit the agent cannot make it anew.
    for looks in 1..=3 {
        machine.systemctl("kill --signal HUP flock-agent");
        machine.wait_log("callers cannot reach the agent", looks);
    }
    machine.wait_log("it ends so that it is started anew", 1);
    machine.wait_log("flock-agent listens", 2);
    machine.wait_log("socket was gone from its place", 1);
    machine.add(&pod).result();
    machine.del(&pod).done();
    machine.assert_sound("in the end");
    machine.assert_empty();
}

#[test]
fn without_an_agent_status_and_del_end_in_time_and_the_delete_is_carried_out_later() {
    let machine = Machine::with_agent();
    let (deleted, waiting) = (machine.pod("deleted"), machine.pod("waiting"));
    machine.add(&deleted).result();
    // The program is gone, as in the middle of an upgrade that went wrong.
    machine.run("mv /usr/local/bin/flock-agent /usr/local/bin/away");
    machine.systemctl("kill --signal KILL flock-agent");
    wait_for("the start that fails", || (machine.property("flock-agent", "ExecMainStatus") == "203").then_some(()));

    let status = machine.cni("STATUS").run();
    assert!(status.elapsed < Duration::from_secs(3), "{:?}", status.elapsed);
    assert_eq!(status.failed().code, 50);
    let del = machine.del(&deleted).run();
    assert_eq!(del.succeeded(), "");
    assert!(del.elapsed < Duration::from_secs(9), "{:?}", del.elapsed);
    assert_eq!(notes(&machine), 1);

    // Calls that wait do not make systemd try more often than it should, nor give up.
    assert_eq!(machine.property("flock-agent.socket", "ActiveState"), "active");
    let tries: u32 = machine.property("flock-agent", "NRestarts").parse().expect("a number");
    assert!((2..=60).contains(&tries), "{tries}");
    thread::scope(|scope| {
        let add = scope.spawn(|| machine.add(&waiting).result());
        wait_for("the call to wait", || {
            machine.run("ss -Hxl src /run/flock/flock.sock").split_whitespace().nth(2).filter(|n| *n != "0").map(|_| ())
        });
        machine.run("mv /usr/local/bin/away /usr/local/bin/flock-agent");
        add.join().expect("an answer");
    });
    wait_for("the delete", || (notes(&machine) == 0 && machine.leases().len() == 1).then_some(()));
    machine.del(&waiting).done();
    machine.assert_empty();
}

#[test]
fn stopping_the_socket_stops_the_agent_and_a_call_starts_neither() {
    let machine = Machine::with_agent();
    let pod = machine.pod("p");
    machine.add(&pod).result();
    machine.systemctl("stop flock-agent.socket");
    assert_eq!(machine.property("flock-agent", "ActiveState"), "inactive");
    assert!(!machine.path("/run/flock/flock.sock").exists());
    machine.del(&pod).done();
    assert_eq!(notes(&machine), 1);
    assert_eq!(machine.cni("STATUS").error().code, 50);
    assert_eq!(machine.property("flock-agent", "ActiveState"), "inactive");

    machine.systemctl("start flock-agent");
    wait_for("the delete", || (notes(&machine) == 0).then_some(()));
    machine.assert_empty();
}

// covers: FM-C02
#[test]
fn a_stopped_agent_is_started_by_the_next_call() {
    let machine = Machine::with_agent();
    let before = identity(&machine);
    let pod = machine.pod("p");
    machine.add(&pod).result();
    machine.systemctl("stop flock-agent.service");
    assert_eq!(machine.property("flock-agent", "ActiveState"), "inactive");
    assert_eq!(identity(&machine), before, "the directory and its socket stay");
    machine.del(&pod).done();
    assert_eq!(machine.property("flock-agent", "ActiveState"), "active");
    machine.assert_empty();
}

#[test]
fn a_socket_unit_for_another_path_is_named_by_the_agent_that_refuses_it() {
    let machine = Machine::boot();
    machine.write("/etc/default/flock-agent", "FLOCK_AGENT_FLAGS=--socket /run/flock/other.sock\n");
    machine.systemctl("start --no-block flock-agent");
    machine.wait_log("hands over /run/flock/flock.sock, but --socket is /run/flock/other.sock", 1);
}

#[test]
fn a_restart_of_the_socket_restarts_the_agent() {
    let machine = Machine::with_agent();
    machine.systemctl("restart flock-agent.socket");
    machine.wait_log("flock-agent listens", 2);
    let pod = machine.pod("p");
    machine.add(&pod).result();
    machine.del(&pod).done();
    machine.assert_empty();
}
