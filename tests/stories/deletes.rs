//! DEL always ends: whatever the agent, the namespace, the disk and the runtime are at, it succeeds within its time, and when
//! the agent is well again the pod is gone and nobody else was harmed.
//!
//! Needs the feature `failpoints` (`make test`), which holds the agent at its start.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flock::record::notes::Notes;
use rustix::fs::{FlockOperation, flock};

use crate::support::agent::Agent;
use crate::support::host::{Host, host_addresses};
use crate::support::pod::Pod;
use crate::support::share::share;
use crate::support::waiting::wait_for;

/// What the plugin promises, and a little for a loaded machine.
const DEL_LIMIT: Duration = Duration::from_secs(12);

/// How the agent is when the deletes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Up,
    Down,
    Starting,
    Hung,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    Well,
    Full,
    ReadOnly,
}

/// What the delete says of the namespace.
#[derive(Clone, Copy, Debug)]
enum Netns {
    Right,
    Empty,
    Gone,
    /// The path has come to name another pod's.
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Known,
    Unknown,
    /// Once more when the agent is well again.
    Repeated,
    Concurrent,
}

/// Writes a note as a plugin that has found nobody a moment ago.
fn note(host: &Host, attachment: &str) {
    let notes = Notes::beside(&host.path("/run/flock/flock.sock"));
    let writing = notes.writing(Instant::now() + DEL_LIMIT).expect("the lock");
    writing.write(&attachment.parse().expect("an attachment")).expect("a note");
}

fn no_notes_are_left(host: &Host, agent: &Agent<'_>) {
    agent.signal("HUP");
    wait_for("every note to be carried out", || (host.notes() == 0).then_some(()));
}

/// Sixteen deletes side by side: every namespace with every kind.
fn deletes(at: At, disk: Disk) {
    let when = format!("{at:?}, {disk:?}");
    let host = Host::new();
    host.run("mkdir -p /run/flock/state");
    host.run("mount -t tmpfs -o mode=700,size=256k tmpfs /run/flock/state");
    let agent = host.agent().start();
    let (witness, attached) = host.attach("witness");
    let mut cases = Vec::new();
    for netns in [Netns::Right, Netns::Empty, Netns::Gone, Netns::Foreign] {
        for kind in [Kind::Known, Kind::Unknown, Kind::Repeated, Kind::Concurrent] {
            let pod = host.pod(&format!("{netns:?}-{kind:?}").to_lowercase());
            if kind != Kind::Unknown {
                host.add(&pod).result();
            }
            cases.push((netns, kind, pod));
        }
    }
    agent.kill();
    // With a log that is not open, so that its file system can be made read-only.
    let mut agent = host.agent().start();
    match disk {
        Disk::Well => {}
        Disk::Full => {
            let mut file = fs::File::create(host.path("/run/flock/state/filler")).expect("an inode is left");
            while file.write_all(&[7; 4096]).is_ok() {}
        }
        Disk::ReadOnly => drop(host.run("mount -o remount,ro /run/flock/state")),
    }
    for (_, _, pod) in cases.iter().filter(|(netns, ..)| matches!(netns, Netns::Gone)) {
        pod.vanish();
    }
    match at {
        At::Up => {}
        At::Down => {
            agent.signal("KILL");
            agent.wait();
        }
        At::Starting => {
            agent.kill();
            host.arm("main/compare 1 hang 3000\n");
            agent = host.agent().no_wait().start();
        }
        At::Hung => agent.signal("STOP"),
    }
    let call = |netns: Netns, pod: &Pod<'_>| {
        let cni = host.del(pod);
        match netns {
            Netns::Right | Netns::Gone => cni,
            Netns::Empty => cni.netns(""),
            Netns::Foreign => cni.netns(&witness.path()),
        }
    };
    thread::scope(|scope| {
        for (netns, kind, pod) in &cases {
            let times = if *kind == Kind::Concurrent { 3 } else { 1 };
            for _ in 0..times {
                let (cni, when) = (call(*netns, pod), &when);
                scope.spawn(move || {
                    let outcome = cni.run();
                    assert!(outcome.output.status.success(), "{when}, {netns:?}, {kind:?}: {}", outcome.stdout());
                    assert!(outcome.elapsed < DEL_LIMIT, "{when}, {netns:?}, {kind:?}: {:?}", outcome.elapsed);
                });
            }
        }
    });
    match at {
        At::Up => {}
        At::Down => agent = host.agent().start(),
        At::Starting => {
            host.disarm();
            agent.wait_log("flock-agent listens");
        }
        At::Hung => agent.signal("CONT"),
    }
    for (netns, _, pod) in cases.iter().filter(|(_, kind, _)| *kind == Kind::Repeated) {
        call(*netns, pod).done();
    }
    no_notes_are_left(&host, &agent);
    match disk {
        Disk::Well => {}
        Disk::Full => fs::remove_file(host.path("/run/flock/state/filler")).expect("there"),
        Disk::ReadOnly => drop(host.run("mount -o remount,rw /run/flock/state")),
    }
    agent.signal("HUP");
    host.assert_sound(&when);
    assert_eq!(host.leases().len(), 1, "{when}");
    witness.assert_pings(host_addresses());
    let pod = host.pod("new");
    host.add(&pod).result();
    pod.assert_pings(attached.ips());
    host.assert_sound(&format!("{when}, and life goes on"));
}

fn deletes_on_every_disk(at: At) {
    thread::scope(|scope| {
        for disk in [Disk::Well, Disk::Full, Disk::ReadOnly] {
            scope.spawn(move || deletes(at, disk));
        }
    });
}

// covers: D-01 D-02 D-03 D-04 D-06 D-19 FM-A16
#[test]
fn deletes_of_all_kinds_end_while_the_agent_is_up() {
    deletes_on_every_disk(At::Up);
}

// covers: D-14 D-16 FM-A06
#[test]
fn deletes_of_all_kinds_end_while_the_agent_is_down() {
    deletes_on_every_disk(At::Down);
}

// covers: D-18 D-20
#[test]
fn deletes_of_all_kinds_end_while_the_agent_starts() {
    deletes_on_every_disk(At::Starting);
}

// covers: D-16
#[test]
fn deletes_of_all_kinds_end_while_the_agent_hangs() {
    deletes_on_every_disk(At::Hung);
}

// covers: D-16 D-18 D-20 FM-A06
#[test]
fn pods_that_come_and_go_while_the_agent_flaps_leave_nothing_behind() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let (witness, _) = host.attach("witness");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let host = &host;
                scope.spawn(move || {
                    let pod = host.pod(&format!("w{worker}"));
                    let mut added = 0;
                    for round in 0..50 {
                        let id = format!("w{worker}-{round}");
                        // Refused or served, as the agent comes and goes.
                        added += u32::from(host.add(&pod).container(&id).run().output.status.success());
                        host.del(&pod).container(&id).done();
                    }
                    added
                })
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                thread::park_timeout(Duration::from_millis(150));
                agent.signal("KILL");
                agent.wait();
                thread::park_timeout(Duration::from_millis(100));
                agent = host.agent().start();
            }
        });
        let added: u32 = workers.into_iter().map(|worker| worker.join().expect("no panic")).sum();
        over.store(true, Ordering::Relaxed);
        assert!(added > 50, "only {added} of 200 were served");
    });
    no_notes_are_left(&host, &agent);
    host.assert_sound("after the flapping");
    assert_eq!(host.leases().len(), 1);
    witness.assert_pings(host_addresses());
    let pod = host.pod("new");
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
}

// covers: D-23 FM-A10
#[test]
fn two_sandboxes_of_one_pod_never_harm_each_other_in_any_order() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let [one, two] = ["one", "two"].map(|name| host.pod(name));
    let add = |pod: &Pod<'_>| host.add(pod).kubernetes("default", "web-0").result();
    let del = |pod: &Pod<'_>| host.del(pod).kubernetes("default", "web-0").done();
    let places = (0..4).flat_map(|first| (0..4).map(move |second| (first, second)));
    let orders = places.filter(|(first, second)| first != second);
    // ADD of the first sandbox at place `first`, of the second at `second`, and DEL of the first at the others.
    for (first, second, gap) in share("two sandboxes", orders.flat_map(|(a, b)| (0..=4).map(move |gap| (a, b, gap)))) {
        let when = format!("ADD1 at {first}, ADD2 at {second}, restart at {gap}");
        for step in 0..4 {
            if step == gap {
                agent.kill();
                agent = host.agent().start();
            }
            match step {
                step if step == first => drop(add(&one)),
                step if step == second => drop(add(&two)),
                _ => del(&one),
            }
        }
        let stands = (first + 1..4).all(|step| step == second);
        let expected = if stands { vec!["one", "two"] } else { vec!["two"] };
        let mut held: Vec<String> =
            host.leases().iter().map(|lease| lease.attachment.container_id.to_string()).collect();
        held.sort();
        assert_eq!(held, expected, "{when}");
        two.assert_pings(host_addresses());
        if gap == 1 {
            host.assert_sound(&when);
        }
        del(&one);
        del(&two);
    }
    host.assert_empty();
}

// covers: D-12 D-16 FM-A17
#[test]
fn a_lock_that_somebody_holds_for_ever_hangs_neither_deletes_nor_the_start() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = ["a", "b"].map(|name| host.pod(name));
    pods.iter().for_each(|pod| drop(host.add(pod).result()));
    agent.kill();
    host.del(&pods[0]).done();
    let held = fs::File::open(host.path("/run/flock/deletes")).expect("readable");
    flock(&held, FlockOperation::NonBlockingLockExclusive).expect("nobody else has it");
    let outcome = host.del(&pods[1]).run();
    assert_eq!(outcome.failed().code, 11);
    assert!(outcome.failed().details.contains("/run/flock/deletes is locked by somebody else"), "{}", outcome.stdout());
    assert!(outcome.elapsed < DEL_LIMIT, "{:?}", outcome.elapsed);
    // The start carries out the notes all the same, and so do the rounds. They stay for as long as a newer one might be taken
    // for one of them.
    let agent = host.agent().start();
    agent.wait_log("noted delete carried out");
    agent.wait_log("directory of delete notes is locked by somebody else");
    agent.wait_log("delete notes stay");
    assert_eq!((host.notes(), host.flock_links().len()), (1, 1));
    host.del(&pods[1]).done();
    drop(held);
    no_notes_are_left(&host, &agent);
    host.assert_empty();
}

// covers: FM-A17 FM-F04
#[test]
fn a_directory_that_others_may_open_is_refused_since_they_could_lock_it() {
    let host = Host::new();
    host.run("mkdir -p /run/flock");
    for mode in ["0755", "0750", "0701"] {
        host.run(&format!("mkdir -m {mode} /run/flock/state"));
        let mut agent = host.agent().no_wait().start();
        let line = agent.wait_log("flock-agent cannot run");
        let expected =
            format!("use directory /run/flock/state: others may open it (mode {mode}) and could lock it; chmod 0700");
        assert!(line.contains(&expected), "{line}");
        assert_eq!(agent.wait().code(), Some(1));
        host.run("rmdir /run/flock/state");
    }
    // The directory above is not locked, and may be an administrator's.
    host.run("chmod 0755 /run/flock");
    host.run("mkdir -m 0700 /run/flock/state");
    let agent = host.agent().start();
    let [a, b] = ["a", "b"].map(|name| host.pod(name));
    host.add(&a).result();
    host.add(&b).result();
    agent.kill();
    host.del(&a).done();
    host.run("chmod 0755 /run/flock/deletes");
    let error = host.del(&b).error();
    assert_eq!(error.code, 11);
    assert!(error.details.contains("/run/flock/deletes") && error.details.contains("chmod 0700"), "{error:?}");
    // All else goes on, and the note is carried out once the agent may read it.
    let agent = host.agent().start();
    let line = agent.wait_log("delete notes cannot be read");
    assert!(line.contains("chmod 0700"), "{line}");
    agent.rounds(1);
    assert_eq!(agent.log().matches("delete notes cannot be read").count(), 1, "it is said once: {}", agent.log());
    host.del(&b).done();
    host.run("chmod 0700 /run/flock/deletes");
    no_notes_are_left(&host, &agent);
    host.assert_empty();
}

#[test]
fn a_note_that_comes_while_an_older_one_is_put_away_is_kept() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("a");
    host.add(&pod).result();
    agent.kill();
    host.del(&pod).done();
    host.start_trace();
    host.arm("main/note.remove 1 hang 2000\n");
    let agent = host.agent().no_wait().start();
    host.wait_point("main/note.remove", 1);
    note(&host, "a/eth0");
    agent.wait_log("flock-agent listens");
    assert_eq!(host.notes(), 1, "the newer note was promised");
    agent.signal("HUP");
    agent.wait_log_times("noted delete carried out", 2);
    no_notes_are_left(&host, &agent);
    host.assert_empty();
}

#[test]
fn notes_are_carried_out_though_an_old_one_cannot_be_removed() {
    let host = Host::new();
    let agent = host.agent().start();
    let [a, b] = ["a", "b"].map(|name| host.pod(name));
    host.add(&a).result();
    host.add(&b).result();
    agent.kill();
    host.del(&a).done();
    // A note of an earlier boot and half a note. What something is mounted on cannot be removed.
    let old = r#"{"version":1,"boot":"another","container_id":"x","ifname":"eth0","at":1}"#;
    fs::write(host.path("/run/old"), old).expect("writable");
    let left =
        ["0123456789abcdef.delete", "fedcba9876543210.delete.4242"].map(|name| format!("/run/flock/deletes/{name}"));
    for path in &left {
        fs::write(host.path(path), "").expect("writable");
        host.run(&format!("mount --bind /run/old {path}"));
    }
    let agent = host.agent().start();
    agent.wait_log("noted delete carried out");
    for path in &left {
        let line = agent.wait_log(path);
        assert!(line.contains("cannot be removed: Device or resource busy"), "{line}");
    }
    assert_eq!((host.notes(), host.flock_links().len()), (1, 1));
    // The rounds do so as well.
    note(&host, "b/eth0");
    agent.signal("HUP");
    wait_for("the note to be carried out", || (host.notes() == 1).then_some(()));
    assert_eq!(host.flock_links().len(), 0);
    left.iter().for_each(|path| drop(host.run(&format!("umount {path}"))));
    for path in &left {
        fs::write(host.path(path), old).expect("writable");
    }
    no_notes_are_left(&host, &agent);
    assert!(left.iter().all(|path| !host.path(path).exists()));
    host.assert_empty();
}

#[test]
fn a_writer_of_a_note_and_an_agent_that_starts_do_not_wait_for_each_other() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods: Vec<Pod<'_>> = (0..8).map(|n| host.pod(&format!("p{n}"))).collect();
    pods.iter().for_each(|pod| drop(host.add(pod).result()));
    agent.kill();
    // It listens, and for a second it goes no further: the deletes find first nobody, then somebody, then no answer.
    host.arm("main/netlink.send 1 hang 1500\n");
    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| {
                let outcome = host.del(pod).run();
                outcome.succeeded();
                assert!(outcome.elapsed < Duration::from_secs(12), "{:?}", outcome.elapsed);
            });
        }
        thread::park_timeout(Duration::from_millis(990));
        host.agent().start().kill();
    });
    let agent = host.agent().start();
    no_notes_are_left(&host, &agent);
    host.assert_empty();
}

/// Each place that a start passes, failing and hanging. An agent may end there; what was promised to the runtime is kept.
// covers: FM-C15
#[test]
fn deletes_end_whichever_step_of_the_start_fails_or_hangs() {
    let host = Host::new();
    host.agent().start().kill();
    host.start_trace();
    host.agent().start().kill();
    let trace = host.trace();
    let mut points: Vec<&str> = trace.lines().filter(|point| point.starts_with("main/")).collect();
    points.sort_unstable();
    points.dedup();
    assert!(points.len() > 10, "{points:?}");
    let points: Vec<&str> = share("a step of the start fails", points).collect();
    thread::scope(|scope| {
        for part in points.chunks(points.len().div_ceil(4)) {
            scope.spawn(|| part.iter().for_each(|point| start_with(point)));
        }
    });
}

fn start_with(point: &str) {
    let host = Host::new();
    let mut agent = host.agent().start();
    let [witness, a, b] = ["witness", "a", "b"].map(|name| host.pod(name));
    host.add(&witness).result();
    for (pod, action) in [(&a, "* errno 5"), (&b, "1 hang 3000")] {
        host.add(pod).result();
        agent.kill();
        host.arm(&format!("{point} {action}\n"));
        agent = host.agent().no_wait().start();
        let outcome = host.del(pod).run();
        assert!(outcome.output.status.success(), "{point} {action}: {}", outcome.stdout());
        assert!(outcome.elapsed < DEL_LIMIT, "{point} {action}: {:?}", outcome.elapsed);
        agent.kill();
        host.disarm();
        agent = host.agent().start();
        no_notes_are_left(&host, &agent);
        host.assert_sound(&format!("{point} {action}"));
        assert_eq!(host.leases().len(), 1, "{point} {action}");
        witness.assert_pings(host_addresses());
    }
}
