//! What other people and their tools change behind flock's back, living pods keep working, or one line says what is wrong.

use std::time::{Duration, Instant};

use super::assert_all_work;
use crate::support::host::{HOST6, Host, host_addresses};
use crate::support::manifests::node_config;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK_AGENT, put_script, succeed};
use crate::support::share::share;
use crate::support::waiting::wait_for;

/// More often than whole rounds come in the time: what is put back so often is put back at once.
const OFTEN: usize = 4;

/// What as many rounds take, which come every twenty seconds.
const ROUNDS: Duration = Duration::from_secs(60);

// covers: FM-B07 FM-B08
#[test]
fn forwarding_that_somebody_switches_off_is_back_at_once_and_said() {
    let damages = [
        "sysctl -q net.ipv4.ip_forward=0",
        "sysctl -q net.ipv6.conf.all.forwarding=0",
        "sysctl -q net.ipv4.conf.all.forwarding=0",
        "sysctl -q net.ipv4.conf.LINK.forwarding=0",
        "ip -6 route flush proto 102",
        "ip -4 route flush proto 102",
        "ip link set LINK down",
        "ip addr flush dev LINK",
        "sysctl -q net.ipv6.conf.LINK.disable_ipv6=1",
        "sysctl -q net.ipv6.conf.all.disable_ipv6=1",
    ];
    for damage in share("taken from behind", damages) {
        let host = Host::new();
        let agent = host.agent().start();
        let pods = host.attach_all(["p", "q"]);
        let began = Instant::now();
        for n in 1..=OFTEN {
            host.run(&damage.replace("LINK", &pods[0].1.host_link()));
            if damage.contains("all.disable_ipv6") {
                // What the host loses by that is the host's.
                host.run("sysctl -q net.ipv6.conf.lo.disable_ipv6=0");
                host.run(&format!("ip -6 addr replace {HOST6}/128 dev lo"));
            }
            assert_all_work(&pods, damage);
            host.assert_sound(damage);
            let lines = || {
                let log = agent.log();
                log.matches("has it again").count() + log.matches("host end of a link repaired").count()
            };
            wait_for("it to be said", || (lines() >= n).then_some(()));
        }
        assert!(began.elapsed() < ROUNDS, "{damage}: {:?}", began.elapsed());
    }
}

// covers: FM-B14
#[test]
fn a_fight_over_forwarding_is_bounded_and_said() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(["p", "q"]);
    let fighter =
        "while true; do cat /proc/sys/net/ipv4/ip_forward | grep -q 0 || echo 0 >/proc/sys/net/ipv4/ip_forward; done";
    let mut fighter = host.command("sh").args(["-c", fighter]).spawn().expect("starts");
    agent.wait_log("somebody keeps changing what pods need of this host");
    fighter.kill().expect("killable");
    fighter.wait().expect("waitable");
    let log = agent.log();
    assert!(log.matches("ip_forward=1").count() <= 12, "{log}");
    // The last blow may fall after the first look.
    wait_for("the pods to work after the fight", || {
        agent.signal("HUP");
        let other = pods[1].1.ips();
        other.into_iter().chain(host_addresses()).all(|ip| pods[0].0.pings(ip)).then_some(())
    });
}

#[test]
fn a_fight_over_a_pods_route_is_bounded_and_said() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(["p", "q"]);
    let ip = pods[0].1.ipv4().expect("IPv4");
    let fighter = format!("while true; do ip route del {ip} 2>/dev/null || true; done");
    let mut fighter = host.command("sh").args(["-c", &fighter]).spawn().expect("starts");
    agent.wait_log("somebody keeps taking from pods' links");
    fighter.kill().expect("killable");
    fighter.wait().expect("waitable");
    // The last blow may fall after the first look.
    wait_for("the pods to work after the fight", || {
        agent.signal("HUP");
        let other = pods[1].1.ips();
        other.into_iter().chain(host_addresses()).all(|ip| pods[0].0.pings(ip)).then_some(())
    });
}

// covers: FM-P01
#[test]
fn a_living_pod_is_never_taken_for_gone_whatever_became_of_its_links_name_or_mark() {
    for (n, damage) in [
        "ip link set LINK down; ip link set LINK name renamed; ip link set renamed up",
        "ip link set LINK address 02:00:00:00:00:09",
        "ip link set LINK alias somebody",
        "ip link set LINK down; ip link set LINK alias x address 02:00:00:00:00:09 name renamed; ip link set renamed up",
        // Somebody takes the name as well.
        "ip link set LINK down; ip link set LINK name renamed; ip link set renamed up; ip link add LINK type veth peer name other",
    ]
    .into_iter()
    .enumerate()
    {
        let host = Host::new();
        let agent = host.agent().start();
        let pods = host.attach_all(["p", "q"]);
        let link = pods[0].1.host_link();
        // All of it, before the agent hears of the first: it would put that back meanwhile.
        agent.signal("STOP");
        succeed(host.command("sh").args(["-ec", &damage.replace("LINK", &link)]));
        agent.signal("CONT");
        for _ in 0..3 {
            agent.rounds(1);
        }
        assert_all_work(&pods, damage);
        assert!(!agent.log().contains("lease of a vanished pod ended"), "{damage}: {}", agent.log());
        assert_eq!(host.leases().len(), 2, "{damage}");
        // And over a restart.
        agent.kill();
        let agent = host.agent().keep_config().start();
        agent.rounds(1);
        assert_all_work(&pods, damage);
        assert_eq!(host.leases().len(), 2, "{damage}");
        if n == 4 {
            host.run(&format!("ip link del {link}"));
        }
        for (pod, _) in &pods {
            host.del(pod).done();
        }
        host.assert_empty();
        let left = host.run("ip -o link show");
        assert!(!left.contains("renamed"), "{damage}: {left}");
    }
}

// covers: FM-P03
#[test]
fn a_delete_without_a_record_takes_away_every_link_with_the_pods_mark() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods = host.attach_all(["p", "q"]);
    let link = pods[0].1.host_link();
    agent.kill();
    std::fs::remove_dir_all(host.path("/run/flock/state")).expect("removed");
    let agent = host.agent().keep_config().start();
    // Its record is lost again while it runs under another name.
    agent.wait_log_times("attachment without record adopted", 2);
    host.run(&format!("ip link set {link} down"));
    host.run(&format!("ip link set {link} name elsewhere"));
    host.del(&pods[0].0).done();
    let shown = host.run("ip -o link show");
    assert!(!shown.contains("elsewhere") && shown.contains(&pods[1].1.host_link()), "{shown}");
    host.del(&pods[0].0).done();
    pods[1].0.assert_pings(host_addresses());
}

// covers: FM-L05
#[test]
fn a_record_that_a_cleaner_removes_is_made_again() {
    for damage in [
        "rm /run/flock/state/leases.log",
        "rm -r /run/flock/state",
        "cp /run/flock/state/leases.log /run/aside && mv /run/aside /run/flock/state/leases.log",
        "rm -r /run/flock/deletes",
    ] {
        let host = Host::new();
        let agent = host.agent().start();
        let pods = host.attach_all(["p", "q"]);
        succeed(host.command("sh").args(["-ec", damage]));
        // Whatever was recorded into a file without a name is recorded again.
        let (more, _) = host.attach("r");
        agent.rounds(1);
        host.assert_sound(damage);
        assert_eq!(host.leases().len(), 3, "{damage}");
        agent.kill();
        host.del(&more).done();
        let agent = host.agent().keep_config().start();
        assert!(!agent.log().contains("adopted") && !agent.log().contains("damaged"), "{damage}: {}", agent.log());
        assert_all_work(&pods, damage);
        assert_eq!(host.leases().len(), 2, "{damage}");
    }
}

// covers: FM-N04
#[test]
fn a_host_that_cannot_be_prepared_is_not_ready_until_it_can() {
    let host = Host::new();
    std::fs::create_dir_all(host.path("/run/net.d")).expect("made");
    // A container without the right to change settings, as many images are started.
    host.run("mount --bind /proc/sys /proc/sys");
    host.run("mount -o remount,bind,ro /proc/sys");
    let agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    let line = agent.wait_log("host cannot be prepared");
    assert!(line.contains("ip_forward") || line.contains("forwarding"), "{line}");
    let conflist = host.path("/run/net.d/01-flock.conflist");
    let status = host.cni("STATUS").error();
    assert!(status.code == 50 && status.details.contains("net/ip"), "{status:?}");
    let pod = host.pod("p");
    let error = host.add(&pod).error();
    assert!(error.text().contains("net/ip"), "{error:?}");
    assert!(!conflist.exists(), "no runtime may send pods yet");
    host.assert_empty();

    host.run("mount -o remount,bind,rw /proc/sys");
    wait_for("the node to be ready", || host.cni("STATUS").run().output.status.success().then_some(()));
    wait_for("the configuration", || conflist.exists().then_some(()));
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
}

#[test]
fn a_setting_that_has_its_value_is_never_written() {
    let host = Host::new();
    host.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    std::fs::create_dir_all(host.path("/run/net.d")).expect("made");
    host.run("mount --bind /proc/sys /proc/sys");
    host.run("mount -o remount,bind,ro /proc/sys");
    let _agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    host.cni("STATUS").done();
    wait_for("the configuration", || host.path("/run/net.d/01-flock.conflist").exists().then_some(()));
}

// covers: FM-Q05
#[test]
fn ranges_that_change_while_an_add_waits_stay_as_they_are_now() {
    let host = Host::new();
    let agent = host.agent().start();
    let (_, neighbour) = host.attach("p");
    let pod = host.pod("q");
    host.start_trace();
    host.arm("conn/reserve 1 hang 60000");
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&pod).run());
        host.wait_point("conn/reserve", 1);
        agent.edit_config(&node_config("2001:db8:1:f002::/64", "10.25.215.0/24"));
        agent.wait_log_times("NodeConfig in force", 2);
        host.disarm();
        adding.join().expect("no panic").succeeded();
    });
    host.end_trace();
    agent.rounds(1);
    assert!(host.run("ip -4 route show type unreachable").contains("10.25.215.0/24"));
    let routes = host.run("ip -6 route show type unreachable") + &host.run("ip -4 route show type unreachable");
    assert!(
        routes.contains("2001:db8:1:f002::/64") && !routes.contains("f001") && !routes.contains("10.25.214.0"),
        "{routes}"
    );
    pod.assert_pings(host_addresses());
    pod.assert_pings(neighbour.ips());
}

// covers: FM-Q09
#[test]
fn an_add_in_service_lacks_nothing_that_a_round_should_say() {
    let host = Host::new();
    let agent = host.agent().start();
    host.attach("p");
    let pod = host.pod("q");
    host.start_trace();
    // In the middle of the host end's changes.
    host.arm("conn/netlink.request 5 hang 60000");
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| host.add(&pod).run());
        host.wait_point("conn/netlink.request", 5);
        for _ in 0..2 {
            let begun = host.trace().matches("reconcile/links.listed\n").count();
            agent.signal("HUP");
            wait_for("a round", || (host.trace().matches("reconcile/links.listed\n").count() > begun).then_some(()));
        }
        host.disarm();
        adding.join().expect("no panic").succeeded();
    });
    host.end_trace();
    agent.rounds(1);
    assert!(!agent.log().contains("lacks"), "{}", agent.log());
    pod.assert_pings(host_addresses());
}

// covers: FM-Q03
#[test]
fn an_agent_short_of_descriptors_says_try_again_later_whatever_it_could_not_open() {
    let host = Host::new();
    let agent = host.agent().start();
    let (first, _) = host.attach("first");
    let used = agent.holds().descriptors;
    let limit = used + 6;
    succeed(std::process::Command::new("prlimit").args([
        "--pid",
        &agent.pid().to_string(),
        &format!("--nofile={limit}:{limit}"),
    ]));
    let pods: Vec<Pod<'_>> = (0..24).map(|n| host.pod(&format!("p{n}"))).collect();
    let mut failures = 0;
    std::thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| host.add(pod).run())).collect();
        for outcome in adds.into_iter().map(|add| add.join().expect("no panic")) {
            if !outcome.output.status.success() {
                failures += 1;
                let error = outcome.failed();
                assert_eq!(error.code, 11, "{error:?}");
            }
        }
    });
    assert!(failures > 0, "the limit of {limit} was enough for all");
    first.assert_pings(host_addresses());
}

// covers: FM-Q04
#[test]
fn a_namespace_that_is_named_by_a_process_works_or_the_text_says_what_the_agent_lacks() {
    let host = Host::new();
    // The rights of the shipped unit.
    let few = format!("exec setpriv --bounding-set=-all,+net_admin,+sys_admin {FLOCK_AGENT} \"$@\"");
    put_script(host.path("/run/few"), &few);
    let pod = host.pod("p");
    let mut inside = host.command("ip").args(["netns", "exec", "p", "sleep", "1000"]).spawn().expect("starts");
    let there = wait_for("the process to be in the pod", || {
        let netns = format!("/proc/{}/ns/net", inside.id());
        let same = std::fs::metadata(&netns).ok().map(|found| std::os::unix::fs::MetadataExt::ino(&found));
        let named = std::fs::metadata(host.path(&pod.path())).expect("a namespace");
        (same == Some(std::os::unix::fs::MetadataExt::ino(&named))).then_some(netns)
    });
    let agent = host.agent().program("/run/few").start();
    let error = host.add(&pod).netns(&there).error();
    let says = ["CAP_SYS_PTRACE", "/run/netns", &there];
    assert!(says.iter().all(|words| error.text().contains(words)), "{error:?}");
    agent.kill();
    let _agent = host.agent().start();
    let attached = host.add(&pod).netns(&there).result();
    pod.assert_pings(host_addresses());
    assert_eq!(attached.result["interfaces"][1]["sandbox"], there);
    inside.kill().expect("killable");
    inside.wait().expect("waitable");
}
