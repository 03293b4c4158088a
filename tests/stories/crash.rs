//! The agent is killed at every step and at every disk and netlink operation of everything that it does, as by `kill -9`;
//! and it is held up in the middle of a request, while its caller, or the service manager, loses patience.
//!
//! First the operation runs once while the agent writes down each point that it passes; then once for each point, killed
//! there. After each kill: restart, oracle, DEL, oracle, a new ADD, oracle. Needs the feature `failpoints` (`make test`).

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flock::record::format::{Record, decode};
use flock::record::notes::Notes;
use serde_json::json;

use crate::addresses;
use crate::recovery::{downgrade, sorted};
use crate::support::agent::Agent;
use crate::support::failpoints::{ARMED, Passed, passes};
use crate::support::host::{Host, host_addresses};
use crate::support::outcome::Attached;
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::support::record::log_of;
use crate::support::share::share;
use crate::support::waiting::{PATIENCE, wait_for};

/// The point was reached: the file goes with the process that it kills.
fn fired(host: &Host) -> bool {
    !host.is_armed()
}

fn arm(host: &Host, (point, nth): &Passed) {
    host.arm(&format!("{point} {nth} kill\n"));
}

/// The passes since the trace began, in order. Those of the thread that only hears what the kernel announces are left out: how
/// many announcements come in one piece is chance, and it changes nothing.
fn end_trace(host: &Host) -> Vec<Passed> {
    passes(host.end_trace().lines().filter(|point| !point.starts_with("host/")))
}

/// The threads on which a call or a start does its work. The others look some time later at what it has changed, if there is
/// still anything to see by then, and the stories of a round, of routes and of policies kill the agent there.
const OWN: [&str; 6] = ["main", "conn", "ledger", "netns", "remove", "link"];

/// As [`end_trace`], of a call or a start: only what it did itself, which it does every time.
fn end_trace_of_own(host: &Host) -> Vec<Passed> {
    let own = |(point, _): &Passed| point.split_once('/').is_some_and(|(thread, _)| OWN.contains(&thread));
    end_trace(host).into_iter().filter(own).collect()
}

/// True if the point was not reached: only questions that are repeated until a fact is there, or work that another thread may
/// have done first, differ from run to run, and those come more than once.
fn disarmed(host: &Host, (point, nth): &Passed) -> bool {
    let disarmed = host.disarmed();
    assert!(!disarmed || *nth > 1, "{point} was passed while it was traced, and not any more");
    disarmed
}

/// How the caller lives through the death of the agent.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// The next agent starts at once, as a service manager does it, and the call goes on with that.
    Waits,
    /// It is killed as well.
    Dies,
}

/// Runs `operation` against an agent that dies at `point`. Returns the next agent.
fn crash<'a>(host: &'a Host, mut agent: Agent<'a>, operation: &Cni<'_>, point: &Passed, fate: Caller) -> Agent<'a> {
    arm(host, point);
    let mut caller = operation.launch();
    wait_for("the agent's death or the caller's end", || {
        (fired(host) || caller.try_wait().expect("waitable").is_some()).then_some(())
    });
    if !fired(host) && point.1 == 1 {
        // It lies behind the answer, which the caller had before the agent came to it.
        wait_for(&format!("the agent's death at {point:?}"), || fired(host).then_some(()));
    }
    if disarmed(host, point) {
        return agent;
    }
    agent.wait();
    if matches!(fate, Caller::Dies) {
        caller.kill().ok();
        caller.wait().expect("waitable");
    }
    let agent = host.agent().keep_config().start();
    caller.wait().expect("waitable");
    agent
}

fn held(host: &Host) -> BTreeSet<String> {
    host.leases().iter().map(|lease| lease.attachment.container_id.to_string()).collect()
}

/// What every operation on `pod` is followed by: DEL, and the life of another attachment in the same place.
fn live_on(host: &Host, pod: &Pod<'_>, witness: &(Pod<'_>, Attached), when: &str) {
    host.assert_sound(&format!("{when}, restarted"));
    host.del(pod).done();
    host.assert_sound(&format!("{when}, restarted, DEL"));
    assert!(!held(host).contains(&pod.name), "{when}");
    let attached = host.add(pod).result();
    host.assert_sound(&format!("{when}, restarted, DEL, ADD"));
    pod.assert_pings(witness.1.ips());
    witness.0.assert_pings(attached.ips());
    host.del(pod).done();
}

/// `pod` asks for what is in `named`.
fn killed_in_add(fate: Caller, what: &str, named: &[(&str, &str)]) {
    let host = Host::new();
    let mut agent = host.agent().config(Some(&addresses::config())).start();
    // The trace is of the very first ADD, which also prepares the host.
    let pod = host.pod("p");
    let add = host.add(&pod).annotations(named);
    host.start_trace();
    add.result();
    let passed = end_trace_of_own(&host);
    host.del(&pod).done();
    let witness = host.attach("witness");
    assert!(passed.len() > 50, "{passed:?}");
    for point in share(&format!("killed in ADD of {what}, caller {fate:?}"), &passed) {
        agent.kill();
        // What was set on the host before is set again.
        host.run("sysctl -q net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0");
        host.run("ip -6 route del unreachable 2001:db8:1:f001::/64 proto 102 metric 4294967295");
        agent = host.agent().keep_config().start();
        agent = crash(&host, agent, &add, point, fate);
        live_on(&host, &pod, &witness, &format!("killed in ADD of {what} at {point:?}, caller {fate:?}"));
    }
    agent.stop();
}

// covers: FM-A04
#[test]
fn an_agent_killed_at_any_point_of_add_and_restarted_at_once_loses_nothing() {
    killed_in_add(Caller::Waits, "a pod", &[]);
}

// covers: FM-A04
#[test]
fn an_agent_killed_at_any_point_of_add_together_with_the_caller_loses_nothing() {
    killed_in_add(Caller::Dies, "a pod", &[]);
}

// covers: FM-A04
#[test]
fn an_agent_killed_at_any_point_of_an_add_of_named_addresses_loses_none_of_them() {
    let named = [("addresses", addresses::OWN), ("anycast", addresses::SHARED)];
    killed_in_add(Caller::Waits, "a pod that names addresses", &named);
}

#[test]
fn an_agent_killed_at_any_point_of_del_still_deletes() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let witness = host.attach("witness");
    let pod = host.pod("p");
    host.add(&pod).result();
    host.start_trace();
    host.del(&pod).done();
    let passed = end_trace_of_own(&host);
    assert!(passed.len() > 10, "{passed:?}");
    for point in share("killed in DEL", &passed) {
        for fate in [Caller::Waits, Caller::Dies] {
            host.add(&pod).result();
            agent = crash(&host, agent, &host.del(&pod), point, fate);
            if matches!(fate, Caller::Waits) {
                assert!(!held(&host).contains("p"), "DEL has succeeded, killed at {point:?}");
            }
            live_on(&host, &pod, &witness, &format!("killed in DEL at {point:?}, caller {fate:?}"));
        }
    }
    agent.stop();
}

#[test]
fn an_agent_killed_at_any_point_of_gc_removes_the_dead_and_nobody_else() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let witness = host.attach("witness");
    let valid = json!([{"containerID": "witness", "ifname": "eth0"}]);
    let gc = host.cni("GC").conf("cni.dev/valid-attachments", valid);
    let die = || {
        for name in ["a", "b"] {
            let pod = host.pod(name);
            host.add(&pod).result();
            pod.vanish();
        }
        wait_for("the links to be gone", || (host.flock_links().len() == 1).then_some(()));
    };
    die();
    host.start_trace();
    gc.done();
    // The links have gone before, and whether their announcements are read that late is chance.
    let passed: Vec<Passed> =
        end_trace_of_own(&host).into_iter().filter(|(point, _)| !point.starts_with("link/")).collect();
    assert!(passed.len() > 10, "{passed:?}");
    for point in share("killed in GC", &passed) {
        die();
        agent = crash(&host, agent, &gc, point, Caller::Waits);
        host.assert_sound(&format!("killed in GC at {point:?}"));
        gc.done();
        assert_eq!(held(&host), BTreeSet::from(["witness".to_owned()]), "killed in GC at {point:?}");
        witness.0.assert_pings(host_addresses());
    }
    agent.stop();
}

/// Each point of the thread that keeps the routes, while pods that share addresses come and go and the node's range changes.
#[test]
fn an_agent_killed_at_any_point_of_announcing_and_withdrawing_ends_where_it_was_going() {
    let host = Host::new();
    let mut agent = host.agent().config(Some(&addresses::config())).start();
    let (client, _) = host.attach("client");
    let shared: Vec<IpAddr> = ["2001:db8:f::53", "203.0.113.5"].map(|ip| ip.parse().expect("literal")).into();
    let named = [("anycast", "2001:db8:f::53,203.0.113.5")];
    let pods = ["a", "b"].map(|name| host.pod(name));
    let add = |n: usize| host.add(&pods[n]).annotations(&named).launch();
    let del = |n: usize| host.del(&pods[n]).launch();
    let ends_well = |mut caller: Child| assert!(caller.wait().expect("waitable").success());
    let announced = |count: usize| {
        let shown = ["-4", "-6"].map(|family| host.run(&format!("ip {family} route show table 102")));
        shown.iter().flat_map(|text| text.lines()).filter(|line| line.contains("dev flock")).count() == count
    };
    let settled = |count: usize, when: &str| {
        wait_for(when, || announced(count).then_some(()));
        host.assert_sound(when);
        let answers = || shared.iter().all(|ip| client.pings(*ip)) == (count > 0);
        wait_for(&format!("{when}: the shared addresses"), || answers().then_some(()));
    };
    // The first pod of an address, a further one, and the end of each.
    let life: [(&dyn Fn() -> Child, usize); 4] = [(&|| add(0), 2), (&|| add(1), 4), (&|| del(0), 2), (&|| del(1), 0)];
    let mut points = Vec::new();
    for (n, (change, count)) in life.iter().enumerate() {
        host.start_trace();
        ends_well(change());
        settled(*count, "traced");
        let passed = end_trace(&host).into_iter().filter(|(point, _)| point.starts_with("routing/"));
        points.extend(passed.map(|point| (n, point)));
    }
    assert!(points.len() > 20, "{points:?}");
    for (killed, point) in share("killed while routes change", points) {
        for (n, (change, count)) in life.iter().enumerate() {
            let when = format!("change {n}, killed at {point:?} of change {killed}");
            if n == killed {
                arm(&host, &point);
                let caller = change();
                // The thread may find its work done in fewer looks than were traced.
                wait_for(&when, || (fired(&host) || announced(*count)).then_some(()));
                match host.disarmed() {
                    true => agent.kill(),
                    false => drop(agent.wait()),
                }
                agent = host.agent().keep_config().start();
                ends_well(caller);
            } else {
                ends_well(change());
            }
            settled(*count, &when);
        }
    }
    agent.stop();
}

/// Leaves the note of a delete, as a plugin does that finds no agent, without its second of waiting for one.
fn note_delete(host: &Host, container: &str) {
    let attachment = format!("{container}/eth0").parse().expect("a key");
    let notes = Notes::beside(&host.path("/run/flock/flock.sock"));
    let writing = notes.writing(Instant::now() + PATIENCE).expect("locked");
    writing.write(&attachment).expect("noted");
}

/// Leaves a host without agent on which everything has happened that a start has to put right. What is to come out of it:
/// `witness`, `unrouted` and `forgotten` live, all others are gone.
fn wreck(host: &Host) {
    let mut agent = host.agent().start();
    for name in ["noted", "vanished", "unrouted", "forgotten"] {
        host.add(&host.pod(name)).result();
    }
    // In mid-ADD, with its link half made.
    arm(host, &("conn/netlink.receive".into(), 4));
    let mut caller = host.add(&host.pod("unfinished")).launch();
    agent.wait();
    caller.kill().ok();
    caller.wait().expect("waitable");
    note_delete(host, "noted");
    let vanished = host.leases().into_iter().find(|lease| lease.netns.ends_with("vanished")).expect("leased").host_link;
    host.run("ip netns del vanished");
    // The kernel takes the link away later. A start that still sees it leaves the lease to two rounds, which is another story.
    wait_for("the link to vanish", || {
        let links = host.flock_links();
        (!links.iter().any(|link| link == vanished.as_str())).then_some(())
    });
    let unrouted = host.leases().into_iter().find(|lease| lease.netns.ends_with("unrouted")).expect("leased");
    host.run(&format!("ip -6 route del {}/128 proto 102", unrouted.ipv6.expect("dual stack")));
    host.run("sysctl -q net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0");
    let log = host.path("/run/flock/state/leases.log");
    let text = fs::read_to_string(&log).expect("readable");
    let kept = text.lines().filter(|line| !line.contains("forgotten"));
    let kept: Vec<Record> = kept.map(|line| decode(line.as_bytes()).expect("whole").record).collect();
    assert!(kept.len() < text.lines().count());
    fs::write(&log, log_of(kept, None)).expect("writable");
}

fn clear_wreck(host: &Host) {
    for name in ["unrouted", "forgotten"] {
        host.cni("DEL").container(name).ifname("eth0").done();
    }
    for name in ["noted", "unrouted", "forgotten", "unfinished"] {
        host.run(&format!("ip netns del {name}"));
    }
}

/// Each point of a start, in `parts` that run side by side.
fn killed_at_the_start(part: usize, parts: usize) {
    let host = Host::new();
    let first = host.agent().start();
    let witness = host.attach("witness");
    first.stop();
    let survivors: BTreeSet<String> = ["witness", "unrouted", "forgotten"].map(str::to_owned).into();
    wreck(&host);
    host.start_trace();
    let agent = host.agent().start();
    let passed = end_trace_of_own(&host);
    for done in [
        "unfinished ADD undone",
        "lease of a vanished pod ended",
        "host end of a link repaired",
        "adopted",
        "noted delete",
    ] {
        agent.wait_log(done);
    }
    clear_wreck(&host);
    agent.stop();
    assert!(passed.len() > 50, "{passed:?}");
    let points = passed.iter().skip(part).step_by(parts);
    for point in share(&format!("killed at the start, part {part}"), points) {
        wreck(&host);
        arm(&host, point);
        let mut dying = host.agent().no_wait().start();
        wait_for("its death or its service", || {
            (fired(&host) || dying.log().contains("flock-agent listens")).then_some(())
        });
        if !fired(&host) && point.1 == 1 {
            // A removal returns some time after the link has gone, and with it the start.
            wait_for(&format!("its death at {point:?}"), || fired(&host).then_some(()));
        }
        match disarmed(&host, point) {
            true => dying.kill(),
            false => drop(dying.wait()),
        }
        let agent = host.agent().start();
        let when = format!("killed in its start at {point:?}");
        host.assert_sound(&when);
        assert_eq!(held(&host), survivors, "{when}");
        let others = host.leases().into_iter().filter(|lease| lease.attachment.container_id.to_string() != "witness");
        witness.0.assert_pings(others.flat_map(|lease| lease.addresses().collect::<Vec<_>>()));
        clear_wreck(&host);
        agent.stop();
    }
}

// covers: FM-C14
#[test]
fn an_agent_killed_at_any_point_of_its_start_starts_well_the_next_time_part_1() {
    killed_at_the_start(0, 2);
}

#[test]
fn an_agent_killed_at_any_point_of_its_start_starts_well_the_next_time_part_2() {
    killed_at_the_start(1, 2);
}

// covers: FM-G09
#[test]
fn an_agent_killed_while_it_adds_to_a_record_what_a_downgrade_left_out_loses_neither_the_pods_name_nor_an_announcement()
{
    let host = Host::new();
    let mut agent = host.agent().config(Some(&addresses::config())).start();
    for (name, own) in [("a", addresses::OWN), ("b", "203.0.113.7, 203.0.113.8")] {
        let named = [("addresses", own), ("anycast", addresses::SHARED)];
        host.add(&host.pod(name)).kubernetes("default", name).annotations(&named).result();
    }
    host.assert_sound("before");
    let whole = sorted(host.leases());
    assert!(whole.iter().all(|lease| lease.pod.is_some() && !lease.extra.is_empty()), "{whole:?}");
    let start = || host.agent().keep_config().no_wait().start();
    agent.kill();
    downgrade(&host);
    host.start_trace();
    agent = start();
    agent.wait_log("flock-agent listens");
    let passed = end_trace_of_own(&host);
    agent.wait_log_times("record corrected by what the link shows", 2);
    assert!(passed.len() > 20, "{passed:?}");
    let announcements = host.route_events();
    for point in share("killed while records are corrected", &passed) {
        agent.kill();
        downgrade(&host);
        arm(&host, point);
        let mut dying = start();
        wait_for("its death or its service", || {
            (fired(&host) || dying.log().contains("flock-agent listens")).then_some(())
        });
        match host.disarmed() {
            true => dying.kill(),
            false => drop(dying.wait()),
        }
        agent = host.agent().keep_config().start();
        let when = format!("killed while records are corrected at {point:?}");
        assert_eq!(sorted(host.leases()), whole, "{when}");
        host.assert_sound(&when);
        announcements.assert_unheard(102);
    }
}

// covers: FM-C14
#[test]
fn an_agent_killed_at_any_point_of_a_round_does_what_the_round_had_to_do() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let witness = host.attach("witness");
    let drift = || {
        let vanishing = host.pod("vanishing");
        let link = host.add(&vanishing).result().host_link();
        vanishing.vanish();
        // The kernel takes the link away later. An agent that starts before leaves the lease to two rounds of its own.
        wait_for("the link to vanish", || (!host.flock_links().contains(&link)).then_some(()));
        for ip in witness.1.ips() {
            host.run(&format!("ip route del {ip} proto 102"));
        }
        // A note of a caller that gave up on an agent which did not answer.
        let late = host.pod("late");
        host.add(&late).result();
        note_delete(&host, "late");
        late.vanish();
    };
    // A lease ends when its link was gone in two rounds.
    let settle = |agent: &Agent<'_>| {
        wait_for("the rounds to put everything right", || {
            if fired(&host) {
                return Some(());
            }
            agent.signal("HUP");
            (host.differences().is_empty() && held(&host).len() == 1).then_some(())
        });
    };
    host.arm("nobody/nothing 1 kill\n");
    drift();
    host.start_trace();
    settle(&agent);
    let passed = end_trace(&host);
    // The rounds may be more than two; what is new comes in the first ones.
    // The node's own thread looks at the host in a round, too, and records nothing.
    let of_records = |(point, nth): &&Passed| *nth <= 30 && !point.starts_with("node/");
    let passed: Vec<&Passed> = passed.iter().filter(of_records).collect();
    assert!(passed.len() > 20, "{passed:?}");
    for point in share("killed in a round", passed) {
        drift();
        arm(&host, point);
        settle(&agent);
        if !host.disarmed() {
            agent.wait();
            agent = host.agent().start();
        }
        let when = format!("killed in a round at {point:?}");
        host.assert_sound(&when);
        assert_eq!(held(&host), BTreeSet::from(["witness".to_owned()]), "{when}");
        witness.0.assert_pings(host_addresses());
    }
    agent.stop();
}

#[test]
fn a_plugin_killed_at_any_point_of_its_note_has_promised_nothing_and_leaves_nothing() {
    let host = Host::new();
    for point in ["create", "half", "sync", "rename", "renamed"] {
        let agent = host.agent().start();
        let pod = host.pod(point);
        host.add(&pod).result();
        agent.kill();
        arm(&host, &(format!("main/replace.{point}"), 1));
        let mut caller = host.del(&pod).env("FLOCK_FAILPOINTS", ARMED).launch();
        assert!(!caller.wait().expect("waitable").success());
        assert!(fired(&host));
        let agent = host.agent().start();
        host.assert_sound(&format!("plugin killed at {point}"));
        host.del(&pod).done();
        host.assert_empty();
        agent.stop();
    }
}

/// Holds the next ADD at the step where its link is made, until it is disarmed.
fn hold(host: &Host) {
    host.start_trace();
    host.arm("conn/wire 1 hang 15000\n");
}

// covers: FM-A13
#[test]
fn an_add_whose_caller_loses_patience_does_not_come_to_life_after_its_del() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    hold(&host);
    let mut add = host.add(&pod).launch();
    host.wait_point("conn/wire", 1);
    add.kill().expect("killable");
    add.wait().expect("waitable");
    let mut del = host.del(&pod).launch();
    host.wait_point("conn/rpc.read", 2);
    assert!(del.try_wait().expect("waitable").is_none(), "DEL waits for the ADD that is under way");
    host.disarm();
    assert!(del.wait().expect("waitable").success());
    host.assert_sound("ADD given up, DEL");
    host.assert_empty();
    agent.wait_log("caller has gone away");
    assert_eq!(pod.run("ip -o link").lines().count(), 1);
}

#[test]
fn a_round_never_adopts_what_a_delete_is_just_taking_away() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    // A round that has seen the link and asks for the leases only when there is none any more.
    host.start_trace();
    host.arm("reconcile/links.listed 1 hang 15000\n");
    agent.signal("HUP");
    host.wait_point("reconcile/links.listed", 1);
    host.del(&pod).done();
    host.disarm();
    agent.signal("HUP");
    host.wait_point("reconcile/links.listed", 2);
    assert_eq!(held(&host), BTreeSet::new(), "{}", agent.log());
    assert!(!agent.log().contains("adopted"), "{}", agent.log());
    host.assert_empty();
}

#[test]
fn one_attachment_that_is_held_up_keeps_no_note_and_no_repair_of_others_waiting() {
    let host = Host::new();
    let agent = host.agent().start();
    let [slow, other, drifted] = ["slow", "other", "drifted"].map(|name| host.pod(name));
    host.add(&other).result();
    let attached = host.add(&drifted).result();
    hold(&host);
    let mut add = host.add(&slow).launch();
    host.wait_point("conn/wire", 1);
    // Notes of callers that found nobody.
    let socket = host.path("/run/flock/flock.sock");
    fs::rename(&socket, host.path("/run/flock/aside")).expect("renamed");
    host.del(&slow).done();
    host.del(&other).done();
    fs::rename(host.path("/run/flock/aside"), &socket).expect("renamed");
    for ip in attached.ips() {
        host.run(&format!("ip route del {ip} proto 102"));
    }
    agent.signal("HUP");
    agent.wait_log("noted delete carried out");
    agent.wait_log("host end of a link repaired");
    assert!(add.try_wait().expect("waitable").is_none(), "it is held up still");
    host.disarm();
    add.wait().expect("waitable");
    wait_for("the note of the slow one", || {
        agent.signal("HUP");
        (held(&host) == BTreeSet::from(["drifted".to_owned()])).then_some(())
    });
}

#[test]
fn an_answer_that_nobody_took_never_undoes_a_later_add_of_the_same_container() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.start_trace();
    host.arm("conn/rpc.answer 1 hang 15000\n");
    let mut first = host.add(&pod).launch();
    host.wait_point("conn/rpc.answer", 1);
    first.kill().expect("killable");
    first.wait().expect("waitable");
    host.del(&pod).done();
    host.add(&pod).result();
    host.disarm();
    agent.wait_log("answer not delivered");
    host.assert_sound("with the second ADD");
    pod.assert_pings(host_addresses());
}

/// An ADD as the plugin of the Go flock sends it, without a mark that tells one run of the plugin from another.
fn unmarked_add(host: &Host, pod: &Pod<'_>) -> UnixStream {
    let conf = json!({"cniVersion": "1.1.0", "name": "flock", "type": "flock"}).to_string();
    let request = json!({
        "op": "ADD", "container_id": pod.name, "netns": pod.path(), "ifname": "eth0", "args": "", "path": "/opt/cni/bin",
        "stdin_data": STANDARD.encode(conf),
    });
    let mut stream = UnixStream::connect(host.path("/run/flock/flock.sock")).expect("it listens");
    writeln!(stream, "{request}").expect("sent");
    stream
}

// covers: FM-P04
#[test]
fn an_answer_that_nobody_took_never_undoes_a_later_add_of_a_plugin_that_marks_no_calls() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.start_trace();
    host.arm("conn/rpc.answer 1 hang 15000\n");
    let first = unmarked_add(&host, &pod);
    host.wait_point("conn/rpc.answer", 1);
    // By itself, since a program that another test is just starting may have a copy of it for a moment.
    first.shutdown(Shutdown::Both).expect("connected");
    host.del(&pod).done();
    let mut answer = String::new();
    unmarked_add(&host, &pod).read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("\"result\""), "{answer}");
    host.disarm();
    agent.wait_log("answer not delivered");
    host.assert_sound("with the second ADD");
    pod.assert_pings(host_addresses());
}

// covers: FM-A17
#[test]
fn while_one_add_is_held_up_others_are_served_and_status_is_well() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (slow, quick) = (host.pod("slow"), host.pod("quick"));
    hold(&host);
    let mut add = host.add(&slow).launch();
    host.wait_point("conn/wire", 1);
    host.cni("STATUS").done();
    let attached = host.add(&quick).result();
    host.del(&quick).done();
    host.disarm();
    assert!(add.wait().expect("waitable").success());
    host.assert_sound("one held up, one gone");
    assert!(!host.leases().iter().flat_map(|lease| lease.addresses()).any(|ip| attached.ips().contains(&ip)));
}

// covers: FM-C12
#[test]
fn an_add_in_service_is_finished_when_the_agent_is_told_to_stop() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let pod = host.pod("p");
    hold(&host);
    let mut add = host.add(&pod).launch();
    host.wait_point("conn/wire", 1);
    agent.signal("TERM");
    agent.wait_log("flock-agent stops");
    host.disarm();
    assert!(add.wait().expect("waitable").success(), "{}", agent.log());
    assert!(agent.wait().success());
    let _agent = host.agent().start();
    host.assert_sound("stopped in mid-ADD");
    pod.assert_pings(host_addresses());
}
