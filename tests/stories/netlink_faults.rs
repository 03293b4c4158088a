//! The kernel refuses, is late, or loses an answer, at each netlink request of everything that flock does.
//!
//! First the operation runs once while the agent writes down each netlink point that it passes; then once for each point
//! and each fault. It succeeds, or fails in words that name the request and the reason; either way nothing is left behind,
//! nothing of anybody else is changed, no thread has lost its way, and the next call works. Needs the feature
//! `failpoints` (`make test`).

use std::fs;
use std::io;
use std::process::{Child, Stdio};

use serde_json::json;

use crate::support::agent::{Agent, Holds};
use crate::support::failpoints::{Passed, passes};
use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR6, node_config};
use crate::support::outcome::{Attached, CniError};
use crate::support::pod::Pod;
use crate::support::programs::succeed;
use crate::support::share::share;
use crate::support::waiting::wait_for;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const ENOBUFS: i32 = 105;

/// Far more addresses than the faults of one test use up, since each rests for a while.
const WIDE4: &str = "10.25.0.0/16";

/// What happens there: the words behind the point in the file of armed points, and the error number, if it is one.
type Fault = (String, Option<i32>);

/// What can go wrong at a point. A request is refused; a socket does not take it, or takes it and the answer is lost
/// (late, or overrun); a list is interrupted.
fn faults(point: &str) -> Vec<Fault> {
    let errnos = |numbers: &[i32]| numbers.iter().map(|n| (format!("errno {n}"), Some(*n))).collect::<Vec<_>>();
    let late = || vec![("late".to_owned(), None)];
    match point.rsplit('/').next().expect("a name") {
        "netlink.request" => errnos(&[EEXIST, EBUSY, ENODEV, ENOENT, ENOBUFS, EINTR, EPERM]),
        // Never late: the kernel carries a request out inside the call that sends it.
        "netlink.send" => errnos(&[ENOBUFS, EPERM]),
        "netlink.receive" => [errnos(&[ENOBUFS, EINTR]), late()].concat(),
        "netlink.dump" => errnos(&[EINTR]),
        _ => Vec::new(),
    }
}

/// The netlink points that `work` passes, those of `thread` only.
fn traced(host: &Host, thread: &str, work: impl FnOnce()) -> Vec<Passed> {
    host.start_trace();
    work();
    let trace = host.end_trace();
    passes(trace.lines().filter(|point| point.starts_with(&format!("{thread}/netlink."))))
}

/// Things of somebody else, in the way of nothing: a link, an address, a route, a neighbour, a veth with a name like
/// flock's, routes to addresses inside the pods' prefixes that no pod ever gets.
fn furnish(host: &Host) {
    for line in [
        "ip link add foreign type veth peer name other",
        "ip link add flock0123456789 type veth peer name other2",
        "ip link set flock0123456789 alias foreign",
        "ip link set foreign up",
        "ip link set other up",
        "ip addr add 192.0.2.1/24 dev foreign",
        "ip -6 addr add 2001:db8:99::1/64 dev foreign nodad",
        "ip route add 10.25.0.1/32 dev foreign proto static",
        "ip -6 route add 2001:db8:1:f001:: dev foreign proto static",
        "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev foreign nud permanent",
    ] {
        host.run(line);
    }
    wait_for("the foreign link to have settled", || {
        let shown = host.run("ip -d link show foreign");
        (shown.contains("state UP") && !host.run("ip -6 addr show").contains("tentative")).then_some(())
    });
}

fn foreign(host: &Host) -> String {
    let script = "for d in foreign flock0123456789; do ip -d link show $d; ip addr show $d; ip -4 route show table all dev $d; \
                  ip -6 route show table all dev $d; ip neigh show dev $d nud permanent; done";
    let text = succeed(host.command("sh").args(["-ec", script]));
    // The kernel itself adds routes for multicast, and for the anycast address of a router once the host forwards.
    text.lines()
        .filter(|line| !line.starts_with("multicast ff") && !line.starts_with("anycast "))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A furnished host with an agent and a pod that lives through everything.
struct Scene<'a> {
    host: &'a Host,
    agent: Agent<'a>,
    witness: Pod<'a>,
    attached: Attached,
    foreign: String,
    at_rest: Holds,
}

impl<'a> Scene<'a> {
    fn new(host: &'a Host) -> Scene<'a> {
        furnish(host);
        let agent = host.agent().config(Some(&node_config(CIDR6, WIDE4))).start();
        let (witness, attached) = host.attach("witness");
        host.assert_sound("at first");
        let at_rest = wait_for("the agent to rest", || {
            let now = agent.holds();
            (now == agent.holds()).then_some(now)
        });
        Scene { host, agent, witness, attached, foreign: foreign(host), at_rest }
    }

    /// Nothing is left, nothing foreign is changed.
    #[track_caller]
    fn assert_clean(&self, when: &str) {
        self.host.assert_sound(when);
        assert_eq!(foreign(self.host), self.foreign, "{when}");
        self.agent.assert_all_threads_at_home();
    }

    /// The life of another attachment in the same place.
    #[track_caller]
    fn live_on(&self, pod: &Pod<'_>, when: &str) {
        let attached = self.host.add(pod).result();
        pod.assert_pings(self.attached.ips());
        self.witness.assert_pings(attached.ips());
        self.host.del(pod).done();
        self.assert_clean(&format!("{when}, DEL, ADD, DEL"));
    }

    /// The agent holds no more than before.
    #[track_caller]
    fn end(self) {
        self.agent.comes_back_to(self.at_rest);
        self.witness.assert_pings(host_addresses());
        self.agent.stop();
    }
}

/// The error names a request and the kernel's reason, and has the code that fits it.
#[track_caller]
fn judge(error: &CniError, errno: Option<i32>, when: &str) {
    let text = error.text();
    let requests = [
        "create link ",
        "set alias of link ",
        "set IPv6 address generation of link ",
        "set IPv4 settings of link ",
        "set link ",
        "add address ",
        "add neighbour ",
        "add route ",
        "add unreachable route ",
        "wait until link ",
        "look up ",
        "delete link ",
        "list ",
    ];
    if error.code == 4 {
        // The name is taken, as far as anybody can tell.
        assert!(errno == Some(EEXIST) && text.contains("eth0 was not made by flock"), "{when}: {error:?}");
        return;
    }
    if text.contains("differ") || text.contains("is missing") || text.contains("has no interface") {
        // CHECK takes the kernel's word for it.
        assert!(errno == Some(ENODEV), "{when}: {error:?}");
        return;
    }
    if text.contains("changed by somebody else meanwhile") {
        // On a loaded machine ADD asks for long whether the pod's address is taken in, and then takes the kernel's word, too.
        assert!(text.contains("wait until ") && matches!(errno, Some(ENODEV | ENOENT)), "{when}: {error:?}");
        return;
    }
    assert!(requests.iter().any(|request| text.contains(request)), "{when}: {error:?}");
    let passing = matches!(errno, None | Some(EBUSY | ENOBUFS | EINTR));
    match errno {
        Some(errno) => {
            let words = std::io::Error::from_raw_os_error(errno).to_string();
            let words = words.split(" (os error ").next().expect("words");
            let words = if errno == ENOENT { "absent path" } else { words };
            assert!(text.contains(words), "{when}: {words}: {error:?}");
        }
        None => assert!(text.contains("the kernel did not answer in time"), "{when}: {error:?}"),
    }
    // What GC could not do is kept, whatever the reason.
    if error.msg != "some attachments were kept" {
        assert_eq!(error.code, if passing { 11 } else { 999 }, "{when}: {error:?}");
    }
    if errno == Some(EPERM) && text.contains("Operation not permitted") && !text.contains("netlink socket") {
        assert!(text.contains("CAP_NET_ADMIN"), "{when}: {error:?}");
    }
}

/// Each fault of each point of ADD, in `parts` that run side by side.
fn add_under_faults(part: usize, parts: usize) {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    let passed = traced(&host, "conn", || drop(host.add(&pod).result()));
    assert!(!passed.iter().any(|(point, _)| point.ends_with("netlink.dump")), "ADD reads a whole table: {passed:?}");
    host.del(&pod).done();
    assert!(passed.iter().filter(|(point, _)| point.ends_with("netlink.request")).count() > 20, "{passed:?}");
    for (point, nth) in share(&format!("faults in ADD, part {part}"), passed.iter().skip(part).step_by(parts)) {
        for (fault, errno) in faults(point) {
            let when = format!("ADD, {point} {nth} {fault}");
            host.arm(&format!("{point} {nth} {fault}"));
            let mut outcome = None;
            let again = traced(&host, "conn", || outcome = Some(host.add(&pod).run()));
            host.disarm();
            let outcome = outcome.expect("it ran");
            if outcome.output.status.success() {
                // An interrupted wait for an answer goes on; whether the pod's address is taken in yet is asked until it is;
                // and how often things are asked so differs from run to run.
                let asked_on = point.ends_with("receive") && errno == Some(EINTR)
                    || point.ends_with("request") && *nth > 20 && matches!(errno, Some(ENODEV | ENOENT));
                let reached = again.contains(&(point.clone(), *nth));
                // Whose route is in the way has the address, and the pod gets another one.
                let replaced = point.ends_with("request") && errno == Some(EEXIST);
                assert!(asked_on || replaced || !reached && *nth > 1, "{when} succeeded: {}", outcome.stdout());
                host.del(&pod).done();
            } else {
                judge(&outcome.failed(), errno, &when);
                scene.assert_clean(&format!("{when}, undone"));
                assert_eq!(host.leases().len(), 1, "{when}");
                host.del(&pod).done();
            }
        }
        scene.live_on(&pod, &format!("faults at {point} {nth}"));
    }
    scene.end();
}

// covers: FM-B21
#[test]
fn an_add_that_the_kernel_fails_leaves_nothing_part_1() {
    add_under_faults(0, 3);
}

#[test]
fn an_add_that_the_kernel_fails_leaves_nothing_part_2() {
    add_under_faults(1, 3);
}

#[test]
fn an_add_that_the_kernel_fails_leaves_nothing_part_3() {
    add_under_faults(2, 3);
}

#[test]
fn a_host_that_the_kernel_does_not_let_prepare_is_prepared_by_the_next_add() {
    let host = Host::new();
    furnish(&host);
    let before = foreign(&host);
    let start = || host.agent().config(Some(&node_config(CIDR6, WIDE4))).start();
    let bare = || {
        host.run("sysctl -q net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0");
        host.run("ip -6 route flush proto 102");
        host.run("ip -4 route flush proto 102");
    };
    let pod = host.pod("p");
    let agent = start();
    // The node's own thread prepares the host, while the ADD waits.
    let passed = traced(&host, "node", || drop(host.add(&pod).result()));
    host.del(&pod).done();
    agent.kill();
    assert!(passed.iter().any(|(point, _)| point.ends_with("netlink.dump")), "it looks for its own routes: {passed:?}");
    for (point, nth) in share("faults in the first ADD", &passed) {
        let mut faults = faults(point);
        if point.ends_with("netlink.dump") {
            faults.push(("errno 4 *".into(), Some(EINTR)));
        }
        for (fault, errno) in faults {
            let when = format!("first ADD, {point} {nth} {fault}");
            bare();
            let agent = start();
            let line = match fault.strip_suffix(" *") {
                Some(fault) => format!("{point} * {fault}"),
                None => format!("{point} {nth} {fault}"),
            };
            host.arm(&line);
            let outcome = host.add(&pod).run();
            host.disarm();
            if !outcome.output.status.success() {
                let error = outcome.failed();
                if fault.ends_with('*') {
                    assert!(error.code == 11 && error.text().contains("kept changing"), "{when}: {error:?}");
                } else {
                    judge(&error, errno, &when);
                }
                host.assert_sound(&when);
                assert_eq!(host.leases(), [], "{when}");
            }
            host.del(&pod).done();
            let attached = host.add(&pod).result();
            pod.assert_pings(host_addresses());
            assert_eq!(attached.ips().len(), 2);
            // Where the kernel says that there is one, somebody's route is good enough until the next look.
            agent.signal("HUP");
            for shown in ["ip -6 route show proto 102", "ip -4 route show proto 102"] {
                wait_for(&when, || host.run(shown).contains("unreachable").then_some(()));
            }
            host.del(&pod).done();
            assert_eq!(foreign(&host), before, "{when}");
            agent.assert_all_threads_at_home();
            agent.kill();
        }
    }
}

// covers: FM-A08
#[test]
fn a_del_that_the_kernel_fails_is_done_or_says_why_and_can_be_repeated() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    for thread in ["conn", "remove"] {
        host.add(&pod).result();
        let passed = traced(&host, thread, || host.del(&pod).done());
        assert!(!passed.is_empty(), "{thread}");
        for (point, nth) in share("faults in DEL", &passed) {
            for (fault, errno) in faults(point) {
                let when = format!("DEL, {point} {nth} {fault}");
                host.add(&pod).result();
                host.arm(&format!("{point} {nth} {fault}"));
                let outcome = host.del(&pod).run();
                host.disarm();
                if outcome.output.status.success() {
                    if errno == Some(ENODEV) && point.ends_with("request") {
                        // The kernel said that there is no such link, and it stands: the next round finds it.
                        scene.agent.rounds(2);
                        assert!(
                            host.leases().iter().any(|lease| &*lease.attachment.container_id.to_string() == "p"),
                            "{when}"
                        );
                        host.del(&pod).done();
                    } else {
                        let lost = point.ends_with("receive");
                        assert!(lost, "{when} succeeded");
                    }
                } else {
                    judge(&outcome.failed(), errno, &when);
                    // The link may still stand, or be gone and only the answer lost; a lease without link ends with the DEL.
                    host.del(&pod).done();
                }
                scene.assert_clean(&format!("{when}, DEL"));
                assert_eq!(host.leases().len(), 1, "{when}");
            }
            scene.live_on(&pod, &format!("faults at {point} {nth}"));
        }
    }
    scene.end();
}

#[test]
fn a_check_or_gc_that_the_kernel_fails_says_why_and_changes_nothing() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let (pod, old) = (host.pod("p"), host.pod("old"));
    let attached = host.add(&pod).result();
    let check = host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0").kubernetes("default", "p");
    let check = check.conf("prevResult", attached.result.clone());
    let gc = host.cni("GC").conf("cni.dev/valid-attachments", json!([{"containerID": "witness", "ifname": "eth0"}]));
    host.add(&old).result();
    check.done();
    for (name, call) in [("CHECK", &check), ("GC", &gc)] {
        let passed = traced(&host, "conn", || drop(call.run()));
        for (point, nth) in share(&format!("faults in {name}"), &passed) {
            for (fault, errno) in faults(point) {
                if name == "GC" && errno == Some(ENODEV) {
                    continue; // The kernel says that the pod is dead, and the list says so, too.
                }
                let when = format!("{name}, {point} {nth} {fault}");
                host.arm(&format!("{point} {nth} {fault}"));
                let outcome = call.run();
                host.disarm();
                if name == "GC" {
                    let error = outcome.failed();
                    assert!(error.text().contains("alive") && error.code == 999, "{when}: {error:?}");
                } else if outcome.output.status.success() {
                    assert!(errno == Some(EINTR) || errno == Some(ENOENT), "{when} succeeded");
                } else {
                    let error = outcome.failed();
                    // CHECK takes the kernel's word for it.
                    let missing = ["no route", "lacks the neighbour"].iter().any(|lack| error.text().contains(lack));
                    if !(missing && matches!(errno, Some(ENODEV | ENOENT))) {
                        judge(&error, errno, &when);
                    }
                }
                scene.assert_clean(&when);
                assert_eq!(host.leases().len(), 3, "{when}");
            }
        }
    }
    check.done();
    host.del(&pod).done();
    host.del(&old).done();
    scene.end();
}

// covers: FM-B04
#[test]
fn a_round_that_the_kernel_fails_changes_nothing_and_the_next_one_repairs() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let link = scene.attached.host_link();
    let ip = scene.attached.ipv4().expect("an address");
    let cut = || host.run(&format!("ip route del {ip}/32 dev {link}"));
    cut();
    let passed = traced(&host, "reconcile", || {
        scene.agent.signal("HUP");
        scene.agent.wait_log("host end of a link repaired");
    });
    assert!(passed.iter().any(|(point, _)| point.ends_with("netlink.dump")), "{passed:?}");
    // Lists that never come to an end whole: nothing is done on their base. First of all, since lines of one kind are limited.
    // Before the route is taken, since the agent hears of that at once.
    host.arm("reconcile/netlink.dump * errno 4");
    cut();
    scene.agent.rounds(3);
    assert_eq!(host.leases().len(), 1);
    assert!(!host.run("ip route").contains(&format!("{ip} dev {link}")), "repaired on the base of half a list");
    scene.agent.wait_log("the table kept changing while it was read");
    host.disarm();
    scene.agent.rounds(1);
    scene.assert_clean("rounds without a whole list");
    // Each message of a list is a pass: a few of them are as good as all.
    let few = |(point, nth): &&Passed| !point.ends_with("netlink.dump") || nth % 7 == 0;
    for (point, nth) in share("faults in a round", passed.iter().filter(few)) {
        for (fault, _) in faults(point) {
            let when = format!("round, {point} {nth} {fault}");
            cut();
            host.arm(&format!("{point} {nth} {fault}"));
            scene.agent.rounds(1);
            host.disarm();
            scene.agent.rounds(1);
            scene.assert_clean(&when);
            assert_eq!(host.leases().len(), 1, "{when}");
        }
    }
    scene.end();
}

// covers: FM-C15
#[test]
fn a_start_that_the_kernel_fails_ends_or_serves_and_the_next_start_is_sound() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let Scene { agent, witness, attached, foreign: before, .. } = scene;
    agent.stop();
    let start = || host.agent().config(Some(&node_config(CIDR6, WIDE4)));
    let mut agent = Some(start().start());
    agent.take().expect("running").kill();
    let passed = traced(&host, "main", || start().start().kill());
    assert!(passed.len() > 5, "{passed:?}");
    let few = |(point, nth): &&Passed| !point.ends_with("netlink.dump") || nth % 9 == 0;
    for (point, nth) in share("faults at the start", passed.iter().filter(few)) {
        for (fault, _) in faults(point) {
            let when = format!("start, {point} {nth} {fault}");
            host.arm(&format!("{point} {nth} {fault}"));
            let mut agent = start().no_wait().start();
            let listens = wait_for("a decision", || {
                let log = agent.log();
                let (up, down) = (log.contains("flock-agent listens"), log.contains("flock-agent cannot run"));
                (up || down).then_some(up)
            });
            host.disarm();
            if !listens {
                assert!(agent.log().contains("record and kernel cannot be compared"), "{when}: {}", agent.log());
                assert!(!agent.wait().success(), "{when}");
                agent = start().start();
            }
            // A host that could not be looked at is looked at again soon.
            agent.wait_log("NodeConfig in force");
            host.assert_sound(&when);
            assert_eq!(host.leases().len(), 1, "{when}");
            witness.assert_pings(host_addresses());
            assert_eq!(foreign(&host), before, "{when}");
            agent.kill();
        }
    }
    let _agent = start().start();
    let pod = host.pod("p");
    let new = host.add(&pod).result();
    witness.assert_pings(new.ips());
    pod.assert_pings(attached.ips());
}

// covers: FM-A08
#[test]
fn an_add_that_fails_twice_over_is_taken_back_by_the_next_round() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    // The fifth request is an address of the host end; and then the link cannot be removed either.
    host.arm("conn/netlink.request 5 errno 105\nremove/netlink.request * errno 16");
    let error = host.add(&pod).error();
    assert!(error.code == 11 && error.text().contains("No buffer space"), "{error:?}");
    scene.agent.wait_log("failed ADD not undone yet");
    assert_eq!(host.flock_links().len(), 3, "two of pods and a foreign one");
    host.disarm();
    scene.agent.rounds(1);
    scene.assert_clean("a round");
    assert_eq!(host.leases().len(), 1);
    scene.live_on(&pod, "undone");
    scene.end();
}

#[test]
fn a_del_returns_when_the_link_is_gone_though_announcements_are_lost() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    for (fault, why) in [
        ("link/netlink.event * errno 105", "each announcement is lost"),
        ("link/netlink.event * hang 20000", "the reader is stuck"),
    ] {
        host.arm(fault);
        for _ in 0..5 {
            host.add(&pod).result();
            host.del(&pod).done();
            assert_eq!(host.leases().len(), 1, "{why}");
        }
        scene.assert_clean(why);
        host.disarm();
    }
    scene.live_on(&pod, "announcements are heard again");
    scene.end();
}

/// The agent's reader of announcements is stuck; the kernel tells of more than it keeps for it, until it drops some.
fn overrun(host: &Host) {
    host.arm("link/netlink.event 1 hang 60000");
    let flap = "for n in $(seq 200); do echo link set foreign mtu $((1400 + n % 2)); done | ip -batch -";
    let dropped = || {
        let table = host.run("cat /proc/net/netlink");
        // Protocol, port, groups, ..., drops: a socket of the link group that has dropped something.
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|words| words[1] == "0" && words[3] == "00000001" && words[8] != "0")
    };
    wait_for("an overrun", || {
        succeed(host.command("sh").args(["-ec", flap]));
        dropped().then_some(())
    });
    host.run("ip link set foreign mtu 1500");
}

// covers: FM-B03
#[test]
fn more_announcements_than_the_kernel_keeps_are_lost_and_missed_by_nobody() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    overrun(&host);
    host.add(&pod).result();
    host.del(&pod).done();
    host.disarm();
    for _ in 0..5 {
        scene.live_on(&pod, "after an overrun");
    }
    scene.end();
}

/// The kernel says once that it has dropped announcements, and goes on dropping until its queue has been emptied.
// covers: FM-K03
#[test]
fn a_removal_that_is_not_announced_while_the_queue_is_emptied_is_looked_for_when_it_is_empty() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    let link = host.add(&pod).result().host_link();
    overrun(&host);
    // The reader goes on, hears of the overrun, and is stuck again with its queue as good as full. The call that removes the
    // link does not return either.
    host.start_trace();
    host.arm("link/netlink.event * hang 60000\nremove/netlink.receive * hang 60000");
    host.wait_point("link/netlink.event", 1);
    let mut del = host.del(&pod).launch();
    wait_for("the link to leave", || (!host.flock_links().contains(&link)).then_some(()));
    host.wait_point("remove/netlink.receive", 1);
    assert!(del.try_wait().expect("waitable").is_none(), "nobody has told of it");
    // What is left in the queue tells nothing of the removal.
    host.arm("remove/netlink.receive * hang 60000");
    let status = wait_for("the end of DEL", || del.try_wait().expect("waitable"));
    assert!(status.success() && host.notes() == 0, "{status}, and it was not the agent that said so");
    host.disarm();
    host.end_trace();
    for _ in 0..3 {
        scene.live_on(&pod, "after an overrun");
    }
    scene.end();
}

#[test]
fn a_reader_of_announcements_that_ends_makes_removals_slower_and_nothing_else() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    let readers = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", scene.agent.pid())).expect("it runs");
        tasks
            .flatten()
            .filter(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c == "link-events\n"))
            .count()
    };
    assert_eq!(readers(), 1);
    host.arm("link/netlink.event 1 errno 5");
    host.add(&pod).result();
    wait_for("the reader's end", || (readers() == 0).then_some(()));
    host.disarm();
    host.del(&pod).done();
    for _ in 0..5 {
        scene.live_on(&pod, "without a reader");
    }
    scene.end();
}

// covers: FM-B14
#[test]
fn nothing_is_written_on_a_quiet_node_and_nothing_repaired_while_links_come_and_go() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pods: Vec<Pod<'_>> = (0..10).map(|n| host.pod(&format!("p{n}"))).collect();
    for pod in &pods {
        host.add(pod).result();
    }
    // Whatever the pods and the kernel had to say to each other is said, and then nobody says anything.
    scene.agent.rounds(2);
    let mut monitor = Listener::start(&host);
    let heard = wait_for("a quiet node", || {
        let before = monitor.heard();
        scene.agent.rounds(20);
        let after = monitor.heard();
        (before == after).then_some(after)
    });
    monitor.stop();
    assert!(heard > 0, "the monitor works");

    let mut churn = host.command("sh");
    churn.args(["-c", "while :; do ip link add noise type veth peer name noise2; ip link del noise; done"]);
    let mut churn = churn.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
    scene.agent.rounds(200);
    churn.kill().expect("killable");
    churn.wait().expect("waitable");
    wait_for("the last of the noise", || {
        let noisy = host.command("ip").args(["link", "del", "noise"]).output().expect("ip starts");
        (!noisy.status.success()).then_some(())
    });
    scene.assert_clean("after the noise");
    assert_eq!(host.leases().len(), 11);
    let log = scene.agent.log();
    for repair in ["repaired", "ended", "removed", "undone", "adopted", "lacks", "has it again"] {
        assert!(!log.contains(repair), "{repair}: {log}");
    }
    for pod in &pods {
        host.del(pod).done();
    }
    scene.end();
}

/// Counts what the kernel announces about links, addresses, routes and rules.
struct Listener {
    child: Child,
    lines: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Listener {
    fn start(host: &Host) -> Listener {
        let mut command = host.command("ip");
        let mut child = command
            .args(["monitor", "link", "address", "route", "rule"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip monitor starts");
        let lines = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let (counter, stdout) = (lines.clone(), child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for _ in io::BufRead::lines(io::BufReader::new(stdout)).map_while(Result::ok) {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        });
        let listener = Listener { child, lines };
        wait_for("the monitor to hear", || {
            host.run("ip addr replace 192.0.2.77/32 dev lo");
            host.run("ip addr del 192.0.2.77/32 dev lo");
            (listener.heard() > 0).then_some(())
        });
        listener
    }

    fn heard(&self) -> usize {
        self.lines.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

// covers: FM-B14
#[test]
fn somebody_who_takes_a_route_away_again_and_again_gets_one_repair_per_round() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let (link, ip) = (scene.attached.host_link(), scene.attached.ipv4().expect("an address"));
    let mut fight = host.command("sh");
    let script = format!("while :; do ip route del {ip}/32 dev {link} 2>/dev/null; sleep 0.05; done");
    let mut fight = fight.args(["-c", &script]).stdin(Stdio::null()).spawn().expect("a shell");
    scene.agent.rounds(30);
    fight.kill().expect("killable");
    fight.wait().expect("waitable");
    scene.agent.rounds(2);
    scene.assert_clean("after the fight");
    let log = scene.agent.log();
    // One that began by itself, and those that were asked for here.
    let repairs = log.matches("host end of a link repaired").count();
    assert!((1..=40).contains(&repairs), "{repairs} repairs");
    assert!(log.matches("lacks what flock gave it").count() <= repairs, "{log}");
    scene.end();
}

// covers: FM-B23
#[test]
fn a_del_removes_the_host_end_though_the_namespace_can_no_longer_be_reached() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let pod = host.pod("p");
    host.add(&pod).result();
    let mut resident = host.command("ip");
    let mut resident = resident.args(["netns", "exec", "p", "cat"]).stdin(Stdio::piped()).spawn().expect("ip starts");
    let inode = host.run("stat -L -c %i /run/netns/p");
    let inside = format!("net:[{}]", inode.trim());
    let at = format!("/proc/{}/ns/net", resident.id());
    wait_for("somebody to live in the pod", || fs::read_link(&at).ok().filter(|at| at.as_os_str() == inside.as_str()));
    host.run("umount /run/netns/p");
    host.run("rm /run/netns/p");
    assert_eq!(host.flock_links().len(), 3);
    host.del(&pod).done();
    scene.assert_clean("DEL without a way in");
    assert_eq!(host.flock_links().len(), 2, "the witness's and the foreign one");
    assert!(resident.try_wait().expect("waitable").is_none(), "the namespace lived all the time");
    resident.kill().expect("killable");
    resident.wait().expect("waitable");
    scene.end();
}

// covers: FM-B25
#[test]
fn a_pod_of_a_user_namespace_is_served_like_any_other() {
    let host = Host::new();
    let scene = Scene::new(&host);
    let mut resident = host.command("unshare");
    resident.args(["--user", "--map-root-user", "--net", "sh", "-c", "echo ready; exec cat"]);
    let mut resident =
        resident.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare (util-linux) starts");
    let mut line = String::new();
    let stdout = resident.stdout.take().expect("piped");
    io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).expect("readable");
    assert_eq!(line, "ready\n", "a user namespace inside");
    host.run("touch /run/netns/user");
    host.run(&format!("mount --bind /proc/{}/ns/net /run/netns/user", resident.id()));
    let pod = Pod { host: &host, name: "user".into() };
    // The namespace may be set to have no IPv6, which takes a write to a file that its user namespace owns.
    pod.run("sysctl -q net.ipv6.conf.default.disable_ipv6=1");
    let attached = host.add(&pod).result();
    let check = host.cni("CHECK").container("user").netns(&pod.path()).ifname("eth0").kubernetes("default", "user");
    check.conf("prevResult", attached.result.clone()).done();
    pod.assert_pings(scene.attached.ips());
    scene.witness.assert_pings(attached.ips());
    scene.assert_clean("ADD");
    host.del(&pod).done();
    scene.assert_clean("DEL");
    host.run("umount /run/netns/user");
    host.run("rm /run/netns/user");
    resident.kill().expect("killable");
    resident.wait().expect("waitable");
    scene.end();
}

#[test]
fn a_link_with_an_alias_that_is_no_text_is_neither_gone_nor_in_the_way() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    let link = host.add(&pod).result().host_link();
    let no_text = format!("ip link set dev {link} alias \"$(printf '\\377')\"");
    let name = || succeed(host.command("sh").args(["-ec", &no_text]));
    name();
    agent.rounds(3);
    assert_eq!(host.leases().len(), 1, "the pod runs");
    pod.assert_pings(host_addresses());
    name();
    host.del(&pod).done();
    host.assert_empty();
}
