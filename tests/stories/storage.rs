//! Disks that are full, read-only, broken or slow, and logs that somebody has damaged: ADD says so and leaves nothing
//! behind, DEL works, STATUS stays quiet, no pod loses its address, and all heals by itself.
//!
//! Faults are real where a test can make them (a small tmpfs, a remount), and armed at the agent's disk operations where not.
//! Needs the feature `failpoints` (`make test`).

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use flock::record::boot_clock;
use flock::record::disk::Directory;
use flock::record::format::{Record, VERSION};
use flock::record::store::{Change, Finding, Store};
use serde_json::json;

use crate::support::host::{Host, host_addresses};
use crate::support::manifests::node_config_spec;
use crate::support::outcome::{Attached, CniError};
use crate::support::pod::Pod;
use crate::support::record::log_of;
use crate::support::waiting::wait_for;

const LOG: &str = "/run/flock/state/leases.log";

/// A host whose agent has a small disk of its own for its state.
fn host_with_small_disk() -> Host {
    let host = Host::new();
    host.run("mkdir -p /run/flock/state");
    host.run("mount -t tmpfs -o mode=700,size=64k tmpfs /run/flock/state");
    host
}

/// Fills the file system that `path` is on, to the last byte.
fn fill(host: &Host, path: &str) {
    let mut file = fs::File::create(host.path(path)).expect("an inode is left");
    while file.write_all(&[7; 4096]).is_ok() {}
}

/// The logs that were set aside.
fn set_aside(host: &Host) -> Vec<PathBuf> {
    let entries = fs::read_dir(host.path("/run/flock/state")).expect("readable");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.to_string_lossy().contains("leases.log.")).collect()
}

#[track_caller]
fn assert_refused(error: &CniError) {
    assert_eq!((error.code, error.msg.as_str()), (11, "state cannot be recorded"), "{error:?}");
    assert!(error.details.contains("/run/flock/state"), "{error:?}");
}

#[track_caller]
fn assert_nothing_in(pod: &Pod<'_>) {
    assert_eq!(pod.run("ip -o link").lines().count(), 1, "{} has more than lo", pod.name);
}

/// New pods until one is refused, and that one: what is written already may leave room in its page for some.
fn add_until_refused<'a>(host: &'a Host, prefix: &str) -> (Vec<Pod<'a>>, CniError) {
    let mut served = Vec::new();
    for n in 0..30 {
        let pod = host.pod(&format!("{prefix}{n}"));
        let outcome = host.add(&pod).run();
        if !outcome.output.status.success() {
            assert_nothing_in(&pod);
            return (served, outcome.failed());
        }
        served.push(pod);
    }
    panic!("a bad disk takes everything");
}

/// A disk goes bad under a running agent, stays so over a restart, and heals.
fn a_disk_goes_bad(spoil: impl Fn(&Host), heal: impl Fn(&Host), reason: &str) {
    let host = host_with_small_disk();
    host.agent().start().kill();
    let agent = host.agent().start();
    let (witness, attached) = host.attach("witness");
    let leaving: Vec<Pod<'_>> = (0..3).map(|n| host.pod(&format!("p{n}"))).collect();
    for pod in &leaving {
        host.add(pod).result();
    }
    agent.kill();
    // A file system cannot be made read-only while a file is open for writing, as the log is from the first change on.
    let agent = host.agent().start();

    spoil(&host);
    let (mut more, error) = add_until_refused(&host, "q");
    assert_refused(&error);
    assert!(error.details.contains(reason), "{error:?}");
    host.cni("STATUS").done();
    host.del(&leaving[0]).done();
    assert_nothing_in(&leaving[0]);
    let check = host.cni("CHECK").container("witness").netns(&witness.path()).ifname("eth0");
    check.conf("prevResult", attached.result.clone()).done();
    witness.assert_pings(host_addresses());

    // The same from the start on.
    agent.kill();
    let agent = host.agent().start();
    let line = agent.wait_log("state cannot be recorded; pods can be deleted");
    assert!(line.contains("error") && line.contains(reason), "{line}");
    let (_, error) = add_until_refused(&host, "r");
    assert_refused(&error);
    host.cni("STATUS").done();
    host.del(&leaving[1]).done();
    assert_nothing_in(&leaving[1]);
    more.iter().for_each(|pod| host.del(pod).done());
    more.clear();
    witness.assert_pings(host_addresses());
    assert_eq!(host.flock_links().len(), 2);

    // And it heals without being asked for anything.
    heal(&host);
    agent.signal("HUP");
    agent.wait_log("state is recorded again");
    host.assert_sound("with the disk well again");
    assert_eq!(host.leases().len(), 2);
    agent.kill();
    let agent = host.agent().start();
    assert!(!agent.log().contains("adopted"), "{}", agent.log());
    let new = host.pod("new");
    host.add(&new).result();
    new.assert_pings(attached.ips());
    for pod in [&new, &witness, &leaving[2]] {
        host.del(pod).done();
    }
    host.assert_empty();
}

// covers: FM-E05
#[test]
fn on_a_full_disk_add_is_refused_and_all_else_goes_on() {
    let fill = |host: &Host| fill(host, "/run/flock/state/filler");
    let empty = |host: &Host| fs::remove_file(host.path("/run/flock/state/filler")).expect("there");
    a_disk_goes_bad(fill, empty, "No space left on device");
}

// covers: FM-E05
#[test]
fn on_a_read_only_disk_add_is_refused_and_all_else_goes_on() {
    let spoil = |host: &Host| drop(host.run("mount -o remount,ro /run/flock/state"));
    let heal = |host: &Host| drop(host.run("mount -o remount,rw /run/flock/state"));
    a_disk_goes_bad(spoil, heal, "Read-only file system");
}

/// Every disk operation in turn fails for a while, each with another of the reasons that disks have.
// covers: FM-E05
#[test]
fn whichever_disk_operation_fails_nothing_is_lost_and_all_heals() {
    let points = ["append", "appended", "sync", "synced", "rename", "renamed", "sync-names", "remove"];
    let host = Host::new();
    let mut agent = host.agent().start();
    let (witness, attached) = host.attach("witness");
    let [a, b, c] = ["a", "b", "c"].map(|name| host.pod(name));
    for (n, point) in points.into_iter().enumerate() {
        let errno = [5, 28, 30][n % 3];
        let when = format!("disk.{point} fails with {errno}");
        host.add(&a).result();
        host.add(&b).result();
        host.arm(&format!("*/disk.{point} * errno {errno}\n"));
        // Appending to a log that is whole needs some of them only.
        let outcome = host.add(&c).run();
        if outcome.output.status.success() {
            host.del(&c).done();
        } else {
            assert_refused(&outcome.failed());
        }
        assert_nothing_in(&c);
        agent.kill();
        agent = host.agent().start();
        agent.wait_log("state cannot be recorded; pods can be deleted");
        assert_refused(&host.add(&c).error());
        assert_nothing_in(&c);
        host.cni("STATUS").done();
        host.del(&a).done();
        assert_nothing_in(&a);
        b.vanish();
        wait_for("the end of the namespace", || (host.flock_links().len() == 1).then_some(()));
        let valid = json!([{"containerID": "witness", "ifname": "eth0"}]);
        host.cni("GC").conf("cni.dev/valid-attachments", valid).done();
        if n % 2 == 0 {
            // The restart comes at the worst moment.
            agent.kill();
            agent = host.agent().start();
            host.cni("STATUS").done();
        }
        host.disarm();
        agent.signal("HUP");
        agent.wait_log("state is recorded again");
        host.assert_sound(&when);
        assert_eq!(host.leases().len(), 1, "{when}");
        host.run("ip netns add b");
        let new = host.add(&c).result();
        c.assert_pings(attached.ips());
        witness.assert_pings(new.ips());
        host.del(&c).done();
        agent.kill();
        agent = host.agent().start();
        host.assert_sound(&format!("{when}, restarted"));
    }
    assert_eq!(set_aside(&host), Vec::<PathBuf>::new());
}

/// What an agent may find in the place of its log. Each time, everything is read back from the kernel.
// covers: FM-E07
#[test]
fn whatever_lies_in_the_place_of_the_log_is_set_aside_and_every_pod_keeps_its_address() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let pods: Vec<(Pod<'_>, Attached)> = (0..3)
        .map(|n| {
            let pod = host.pod(&format!("p{n}"));
            let attached = host.add(&pod).result();
            (pod, attached)
        })
        .collect();
    let log = host.path(LOG);
    fs::write(host.path("/run/precious"), "precious").expect("writable");
    let later = log_of([Record::Header { version: 7, boot: boot_clock::id().expect("readable"), serial: 1 }], None);
    type Plant<'a> = &'a dyn Fn();
    let cases: [(&str, &str, Plant<'_>); 9] = [
        ("an empty file", "", &|| fs::write(&log, "").expect("writable")),
        ("a missing file", "", &|| ()),
        ("garbage", "damaged", &|| fs::write(&log, b"\x7fELF\x00\xff\n\n\x00\n").expect("writable")),
        ("another program's JSON", "damaged", &|| fs::write(&log, "{\"pods\": []}\n").expect("writable")),
        ("a later version", "version-7", &|| fs::write(&log, [&later[..], b"0 {}\n"].concat()).expect("writable")),
        ("a bad sector", "unreadable", &|| fs::write(&log, "unreadable\n").expect("writable")),
        ("a symlink", "unreadable", &|| std::os::unix::fs::symlink("/run/precious", &log).expect("made")),
        ("a FIFO", "unreadable", &|| drop(host.run(&format!("mkfifo {LOG}")))),
        ("a directory", "unreadable", &|| fs::create_dir(&log).expect("made")),
    ];
    for (what, shown, plant) in cases {
        agent.kill();
        let before: BTreeSet<PathBuf> = set_aside(&host).into_iter().collect();
        fs::remove_file(&log).expect("a log");
        plant();
        // A read of the FIFO would wait for ever.
        let regular = fs::symlink_metadata(&log).is_ok_and(|found| found.is_file());
        let content = if regular { fs::read(&log).expect("readable") } else { Vec::new() };
        if what == "a bad sector" {
            host.arm("main/disk.read * errno 5\n");
        }
        agent = host.agent().start();
        if host.is_armed() {
            host.disarm();
        }
        agent.wait_log_times("attachment without record adopted", 3);
        let new: Vec<PathBuf> = set_aside(&host).into_iter().filter(|path| !before.contains(path)).collect();
        match new.as_slice() {
            [] => assert_eq!(shown, "", "{what} is gone"),
            [kept] => {
                assert!(kept.to_string_lossy().contains(&format!("leases.log.{shown}-")), "{what}: {kept:?}");
                let line = agent.wait_log("kept_as=leases.log.");
                assert!(line.contains("error"), "{line}");
                if !matches!(what, "a symlink" | "a FIFO" | "a directory") {
                    assert_eq!(fs::read(kept).expect("readable"), content, "{what}");
                }
            }
            more => panic!("{what}: {more:?}"),
        }
        host.assert_sound(what);
        let pod = host.pod("new");
        let attached = host.add(&pod).result();
        for (old, known) in &pods {
            old.assert_pings(attached.ips());
            assert!(known.ips().iter().all(|ip| !attached.ips().contains(ip)), "{what}: an address twice");
        }
        host.del(&pod).done();
        pod.vanish();
    }
    let kinds: Vec<fs::FileType> =
        set_aside(&host).iter().map(|path| fs::symlink_metadata(path).expect("there").file_type()).collect();
    assert!(kinds.iter().any(FileTypeExt::is_fifo) && kinds.iter().any(fs::FileType::is_dir));
    assert_eq!(kinds.len(), 4, "the newest are kept");
    assert_eq!(fs::read_to_string(host.path("/run/precious")).expect("there"), "precious");
    for (pod, _) in &pods {
        host.del(pod).done();
    }
    host.assert_empty();
}

#[test]
fn a_damaged_log_on_a_read_only_disk_is_not_touched_and_no_address_is_given_twice() {
    let host = host_with_small_disk();
    // Four addresses: the pods have two of them, and the next two would be free if these were forgotten.
    let config = node_config_spec(json!({"cidr4": "10.9.0.0/29", "defaults": {"ipv6": false, "ipv4": true}}));
    let start = || host.agent().config(Some(&config)).start();
    let agent = start();
    let [a, b] = ["a", "b"].map(|name| host.pod(name));
    let known: Vec<IpAddr> = [&a, &b].into_iter().flat_map(|pod| host.add(pod).result().ips()).collect();
    agent.kill();
    fs::write(host.path(LOG), "garbage\n").expect("writable");
    host.run("mount -o remount,ro /run/flock/state");
    let agent = start();
    agent.wait_log("state was damaged");
    agent.wait_log_times("attachment without record adopted", 2);
    assert_eq!(fs::read_to_string(host.path(LOG)).expect("readable"), "garbage\n");
    assert_eq!(set_aside(&host), Vec::<PathBuf>::new());
    let c = host.pod("c");
    assert_refused(&host.add(&c).error());
    host.cni("STATUS").done();
    host.run("mount -o remount,rw /run/flock/state");
    // The very next ADD goes through, and knows what the kernel had told.
    let attached = host.add(&c).result();
    assert!(attached.ips().iter().all(|ip| !known.contains(ip)), "{attached:?}");
    assert_eq!(fs::read_to_string(&set_aside(&host)[0]).expect("readable"), "garbage\n");
    host.assert_sound("with a disk that can be written");
    assert_eq!(host.leases().len(), 3);
}

#[test]
fn a_delete_that_was_noted_is_carried_out_though_the_record_was_lost_meanwhile() {
    let host = Host::new();
    let agent = host.agent().start();
    let [a, b] = ["a", "b"].map(|name| host.pod(name));
    host.add(&a).result();
    host.add(&b).result();
    agent.kill();
    host.del(&a).done();
    fs::write(host.path(LOG), "garbage\n").expect("writable");
    let agent = host.agent().start();
    agent.wait_log("noted delete carried out");
    host.assert_sound("with the record lost");
    assert_nothing_in(&a);
    b.assert_pings(host_addresses());
}

/// A log that was whole and is cut, or has one bad byte, at places all over it.
// covers: FM-E07
#[test]
fn wherever_a_log_is_cut_or_damaged_every_pod_keeps_its_address() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let pods = ["a", "b"].map(|name| {
        let pod = host.pod(name);
        let attached = host.add(&pod).result();
        (pod, attached)
    });
    agent.kill();
    // Without the history of unfinished ADDs: a cut in that is the same as an ADD that was cut off.
    host.agent().start().kill();
    let whole = fs::read(host.path(LOG)).expect("a log");
    let places: Vec<usize> = (0..12).map(|n| n * (whole.len() - 1) / 11).collect();
    for (n, place) in places.iter().enumerate() {
        for cut in [true, false] {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(*place);
            } else {
                bytes[*place] ^= 1 << (n % 8);
            }
            fs::write(host.path(LOG), &bytes).expect("writable");
            agent = host.agent().start();
            let what = format!("{} {place}", if cut { "cut at" } else { "bad byte" });
            host.assert_sound(&what);
            let damaged = agent.log().contains("state was damaged");
            // Without its line end, the last line looks like one that was cut off.
            assert_eq!(damaged, !cut && *place != whole.len() - 1, "{what}: {}", agent.log());
            for ((pod, _), (_, other)) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
                pod.assert_pings(other.ips());
            }
            agent.kill();
        }
    }
    let agent = host.agent().start();
    assert_eq!(host.leases().len(), 2);
    assert!(set_aside(&host).len() <= 4, "{:?}", set_aside(&host));
    agent.stop();
}

// covers: FM-A01 FM-G07
#[test]
fn after_a_reboot_late_deletes_of_old_pods_harm_no_new_ones() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("template");
    host.add(&pod).result();
    let template = host.leases().remove(0);
    agent.kill();
    pod.vanish();
    wait_for("the end of the namespace", || host.flock_links().is_empty().then_some(()));
    let old = (0..50u8).map(|n| {
        let mut lease = template.clone();
        lease.attachment = format!("old{n}/eth0").parse().expect("a key");
        lease.host_link = lease.attachment.host_link(0);
        (lease.ipv6, lease.ipv4) = (None, Some([10, 25, 214, 2 + n].into()));
        Record::Put(Box::new(lease))
    });
    let header = Record::Header { version: VERSION, boot: "another-boot".into(), serial: 1 };
    let bytes = log_of([header].into_iter().chain(old), None);
    fs::write(host.path(LOG), bytes).expect("writable");
    let agent = host.agent().start();
    agent.wait_log("state of an earlier boot dropped");
    let pods: Vec<Pod<'_>> = (0..50).map(|n| host.pod(&format!("new{n}"))).collect();
    let attached: Vec<Attached> = thread::scope(|scope| {
        let adding: Vec<_> = pods.iter().map(|pod| scope.spawn(|| host.add(pod).result())).collect();
        adding.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    thread::scope(|scope| {
        for n in 0..50 {
            // 17 and 50 have no common divisor, so each comes once, in an order of no meaning.
            let old = format!("old{}", n * 17 % 50);
            let host = &host;
            scope.spawn(move || host.cni("DEL").container(&old).ifname("eth0").netns("").done());
        }
    });
    host.assert_sound("after 50 late deletes");
    assert_eq!(host.leases().len(), 50);
    for (n, pod) in pods.iter().enumerate() {
        pod.assert_pings(attached[(n + 1) % 50].ips());
    }
}

// covers: FM-C09 FM-E06
#[test]
fn a_disk_that_stalls_keeps_status_quiet_and_lets_deletes_end() {
    let host = Host::new();
    let agent = host.agent().start();
    let [a, b] = ["a", "b"].map(|name| host.pod(name));
    host.add(&a).result();
    host.start_trace();
    host.arm("ledger/disk.sync * hang 120000\n");
    thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&b).run());
        host.wait_point("ledger/disk.sync", 1);
        for _ in 0..5 {
            host.cni("STATUS").done();
        }
        let deleted = host.del(&a).run();
        deleted.succeeded();
        assert!(deleted.elapsed < Duration::from_secs(20), "{:?}", deleted.elapsed);
        assert_eq!(host.notes(), 1);
        host.cni("STATUS").done();
        host.disarm();
        adding.join().expect("no panic").succeeded();
    });
    // A round that comes while the DEL is still at work leaves the note to the next one.
    wait_for("the note to be carried out", || {
        agent.signal("HUP");
        (host.notes() == 0).then_some(())
    });
    host.assert_sound("after the stall");
    assert_eq!(host.leases().len(), 1);
    b.assert_pings(host_addresses());
}

// covers: FM-E05 FM-Q08
#[test]
fn where_no_second_log_fits_beside_the_first_changes_go_on_until_the_disk_is_full() {
    let host = Host::new();
    let agent = host.agent().start();
    host.add(&host.pod("p")).result();
    let template = host.leases().remove(0);
    agent.kill();
    host.run("mkdir -m 700 /run/small");
    host.run("mount -t tmpfs -o mode=700,size=8m tmpfs /run/small");
    let dir = host.path("/run/small");
    let open = || Store::open(Directory::open(&dir).expect("a private directory"), "boot", 1);
    let (mut store, _) = open();
    let leases = |n: usize| {
        let mut lease = template.clone();
        lease.attachment = format!("pod{n}/eth0").parse().expect("a key");
        lease.ipv6 = Some(Ipv6Addr::from_bits(n as u128));
        lease.ipv4 = Some(Ipv4Addr::from_bits(n as u32));
        lease
    };
    let pods = 1500;
    let put = |store: &mut Store<Directory>, n: usize| {
        store.apply(Change::Put(Box::new(leases(n))));
        store.sync()
    };
    (0..pods).for_each(|n| put(&mut store, n).expect("room for a line"));
    let size = |name: &str| fs::metadata(dir.join(name)).map(|found| found.len()).unwrap_or_default();
    // A fresh one holds these, and 4096 further records are the time for it: 3.7 times that size and once more do not fit.
    let fresh = size("leases.log");
    let full = fresh * 43 / 10;
    host.run(&format!("mount -o remount,size={full} /run/small"));
    // A process that another story is just starting may hold what was half written and removed, until it is started.
    let alone = || {
        let found = rustix::fs::statvfs(&dir).expect("mounted");
        (found.f_blocks - found.f_bfree) * found.f_frsize <= size("leases.log") + (64 << 10)
    };
    let changes = (0..20_000)
        .take_while(|n| {
            wait_for("the room of a second log that did not fit", || alone().then_some(()));
            put(&mut store, n % pods).is_ok()
        })
        .count();
    assert!(changes > 4096 + 100, "{changes} changes went through");
    assert!(size("leases.log") + fresh > full, "a second one has not fitted for long");
    assert_eq!(size("leases.new"), 0, "and half of one takes up nothing");
    assert!(store.settle().expect_err("full").to_string().contains("No space left on device"));
    let (again, findings) = open();
    assert!(findings.iter().all(|finding| matches!(finding, Finding::TornTail)), "{findings:?}");
    assert_eq!(again.leases().count(), pods);
    host.run("mount -o remount,size=8m /run/small");
    put(&mut store, 0).expect("room again");
    assert!(size("leases.log") < fresh + 4096);
    assert!(open().1.is_empty());
}

// covers: FM-E05
#[test]
fn a_delete_without_an_agent_is_noted_though_not_a_byte_or_file_more_fits() {
    let host = Host::new();
    host.run("mount -t tmpfs -o mode=700,size=1m,nr_inodes=300 tmpfs /run/flock");
    let agent = host.agent().start();
    let pods: Vec<Pod<'_>> = (0..12).map(|n| host.pod(&format!("p{n}"))).collect();
    for pod in &pods {
        host.add(pod).result();
    }
    agent.kill();
    fill(&host, "/run/flock/filler");
    for pod in &pods[..4] {
        host.del(pod).done();
    }
    let files = |n: usize| host.path(&format!("/run/flock/file{n}"));
    let made = (0..).take_while(|n| fs::File::create(files(*n)).is_ok()).count();
    assert!(made < 300);
    thread::scope(|scope| {
        for pod in &pods[4..8] {
            scope.spawn(|| host.del(pod).done());
        }
    });
    // Again for one of them: the newer note takes the place of the older.
    host.del(&pods[0]).done();
    assert_eq!(host.notes(), 8);
    // What the older one has left.
    fill(&host, "/run/flock/rest");

    // When nothing is left to write into, or nothing may be written, nobody is told otherwise.
    let spares = || {
        let names = fs::read_dir(host.path("/run/flock/deletes")).expect("readable").map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_string_lossy().contains("spare-")).collect::<Vec<_>>()
    };
    assert_eq!(spares().len(), 128 - 9);
    for (n, spare) in spares().into_iter().enumerate() {
        fs::rename(spare, host.path(&format!("/run/flock/taken{n}"))).expect("renamed");
    }
    let error = host.del(&pods[8]).error();
    assert_eq!(error.code, 11);
    assert!(error.details.contains("/run/flock/deletes") && error.details.contains("No space left"), "{error:?}");
    host.run("mount -o remount,ro /run/flock");
    let error = host.del(&pods[8]).error();
    assert_eq!(error.code, 11);
    assert!(error.details.contains("Read-only file system"), "{error:?}");
    host.run("mount -o remount,rw /run/flock");
    assert_eq!(host.notes(), 8);

    for n in 0..made {
        fs::remove_file(files(n)).expect("there");
    }
    // Full still: the notes that are carried out make room for nothing but themselves.
    let agent = host.agent().start();
    agent.wait_log_times("noted delete carried out", 8);
    agent.wait_log("spare delete notes are missing");
    assert_eq!((host.notes(), host.flock_links().len()), (0, 4));
    for filler in ["filler", "rest"] {
        fs::remove_file(host.path(&format!("/run/flock/{filler}"))).expect("there");
    }
    for n in 0..128 - 9 {
        fs::remove_file(host.path(&format!("/run/flock/taken{n}"))).expect("there");
    }
    agent.signal("HUP");
    wait_for("the spare notes", || (spares().len() == 128).then_some(()));
    host.assert_sound("with room again");
    assert_eq!(host.leases().len(), 4);
    for pod in &pods[8..] {
        host.del(pod).done();
    }
    host.assert_empty();
}

// covers: FM-E06
#[test]
fn many_pods_at_once_are_all_served_by_a_slow_disk_which_syncs_what_waits_together() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods: Vec<Pod<'_>> = (0..50).map(|n| host.pod(&format!("p{n}"))).collect();
    host.add(&pods[0]).result();
    let syncs = || host.trace().lines().filter(|point| *point == "ledger/disk.sync").count();
    // As long as a worn disk takes. One by one, the two records of each pod would be more than ADD has time for.
    let slow = "ledger/disk.sync * hang 250\n";
    let held_at = |step: &str| host.arm(&format!("{slow}conn/{step} * hang 60000\n"));
    host.start_trace();
    held_at("reserve");
    thread::scope(|scope| {
        for pod in &pods[1..] {
            scope.spawn(|| host.add(pod).result());
        }
        host.wait_point("conn/reserve", 49);
        for _ in 0..5 {
            host.cni("STATUS").done();
        }
        held_at("commit");
        host.wait_point("conn/commit", 49);
        host.arm(slow);
    });
    host.disarm();
    let together = syncs();
    assert!((2..=12).contains(&together), "{together} syncs for 49 pods");
    // Who is alone waits for nobody: a record before the link is made, and one when it stands.
    host.del(&pods[0]).done();
    let before = syncs();
    host.add(&pods[0]).result();
    assert_eq!(syncs() - before, 2);
    host.assert_sound("after the rush");
    assert_eq!(host.leases().len(), 50);
    agent.stop();
}

/// What is lost with one write is refused to each who waited for it, and nobody else loses anything by it.
// covers: FM-E05
#[test]
fn pods_whose_records_fail_together_are_all_refused_and_all_come_again() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods: Vec<Pod<'_>> = (0..8).map(|n| host.pod(&format!("p{n}"))).collect();
    let (gone, rest) = pods.split_first().expect("pods");
    host.add(gone).result();
    for step in ["reserve", "commit"] {
        host.start_trace();
        host.arm(&format!("conn/{step} * hang 60000\n"));
        thread::scope(|scope| {
            let adding: Vec<_> = rest.iter().map(|pod| scope.spawn(|| host.add(pod).error())).collect();
            host.wait_point(&format!("conn/{step}"), rest.len());
            host.arm("ledger/disk.append * errno 28\nledger/disk.rename * errno 28\n");
            for thread in adding {
                assert_refused(&thread.join().expect("no panic"));
            }
            // The end of a lease needs no record: its link is gone, which the kernel tells.
            host.del(gone).done();
        });
        host.disarm();
        host.end_trace();
        host.add(gone).result();
        host.assert_sound(&format!("after refusals at {step}"));
        assert_eq!(host.leases().len(), 1, "refused at {step}");
    }
    for pod in rest {
        host.add(pod).result();
    }
    host.assert_sound("with room again");
    assert_eq!(host.leases().len(), 8);
    agent.stop();
}
