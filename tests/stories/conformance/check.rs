//! Rows K: CHECK.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::host::Host;
use crate::support::outcome::Attached;
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::support::scripted;
use crate::support::scripted::{Scripted, socket_of};
use crate::support::waiting::{PATIENCE, wait_for};

fn check<'a>(host: &'a Host, pod: &Pod, result: &Value) -> Cni<'a> {
    let call = host.cni("CHECK").container(&pod.name).netns(&pod.path()).ifname("eth0");
    call.conf("prevResult", result.clone())
}

// covers: K-01 K-02
#[test]
fn check_exists_since_0_4_0_and_needs_the_state_to_compare_with() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    let call = || host.cni("CHECK").container("a").netns("/run/netns/a").ifname("eth0");
    for version in ["0.3.0", "0.3.1"] {
        assert_eq!(call().version(version).conf("prevResult", scripted::a_result()).error().code, 1);
    }
    assert_eq!(call().error().code, 7);
    assert_eq!(call().conf("prevResult", Value::Null).error().code, 7);
    assert_eq!(agent.seen().len(), 0);
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        call().version(version).conf("prevResult", scripted::a_result()).done();
    }
}

/// What somebody damages of a host end stays damaged: the agent puts back at once what the kernel announces.
fn leave_damage(host: &Host) {
    host.arm("reconcile/links.listed * hang 600000\nreconcile/links.suspected * hang 600000");
}

// covers: K-03 K-04
#[test]
fn each_damage_is_found() {
    let host = Host::new();
    let _agent = host.agent().start();
    leave_damage(&host);
    type Damage<'a> = (&'a str, &'a dyn Fn(&Pod, &Attached));
    let damages: [Damage<'_>; 14] = [
        ("pod address v6", &|pod, made| drop(pod.run(&format!("ip addr del {}/128 dev eth0", made.ipv6().unwrap())))),
        ("pod address v4", &|pod, made| drop(pod.run(&format!("ip addr del {}/32 dev eth0", made.ipv4().unwrap())))),
        ("default route v6", &|pod, _| drop(pod.run("ip -6 route del default"))),
        ("default route v4", &|pod, _| drop(pod.run("ip -4 route del default"))),
        ("another gateway", &|pod, _| drop(pod.run("ip -4 route replace default dev eth0"))),
        ("pod link down", &|pod, _| drop(pod.run("ip link set eth0 down"))),
        ("pod link gone", &|pod, _| drop(pod.run("ip link del eth0"))),
        ("pod link renamed", &|pod, _| drop(pod.run("ip link set eth0 name other"))),
        ("host link down", &|_, made| drop(host.run(&format!("ip link set {} down", made.host_link())))),
        ("host route v6", &|_, made| drop(host.run(&format!("ip -6 route del {}", made.ipv6().unwrap())))),
        ("host route v4", &|_, made| drop(host.run(&format!("ip -4 route del {}", made.ipv4().unwrap())))),
        ("host gateway v6", &|_, made| drop(host.run(&format!("ip addr del fe80::1/128 dev {}", made.host_link())))),
        ("host gateway v4", &|_, made| drop(host.run(&format!("ip addr del 169.254.1.1/32 dev {}", made.host_link())))),
        ("namespace gone", &|pod, _| pod.vanish()),
    ];
    for (number, (what, damage)) in damages.iter().enumerate() {
        let pod = host.pod(&format!("p{number}"));
        let made = host.add(&pod).result();
        check(&host, &pod, &made.result).done();
        damage(&pod, &made);
        let error = check(&host, &pod, &made.result).error();
        assert_ne!(error.msg, "", "{what}");
        host.del(&pod).done();
    }
    host.assert_empty();
}

// covers: K-03
#[test]
fn what_is_put_back_passes_again() {
    let host = Host::new();
    let _agent = host.agent().start();
    leave_damage(&host);
    let pod = host.pod("a");
    let made = host.add(&pod).result();
    let route = format!("{} dev {} proto 102", made.ipv6().unwrap(), made.host_link());
    host.run(&format!("ip -6 route del {route}"));
    check(&host, &pod, &made.result).error();
    host.run(&format!("ip -6 route add {route}"));
    check(&host, &pod, &made.result).done();
}

// covers: K-03 K-04 X-07
#[test]
fn what_is_not_recorded_or_recorded_otherwise_is_an_error() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (pod, never) = (host.pod("a"), host.pod("never"));
    let made = host.add(&pod).result().result;
    assert_eq!(check(&host, &never, &made).error().code, 3);
    let mut wrong = made.clone();
    wrong["ips"][0]["address"] = json!("2001:db8:1:f001::bad/128");
    check(&host, &pod, &wrong).error();
    let mut wrong = made.clone();
    wrong["interfaces"][1]["mac"] = json!("02:00:00:00:00:01");
    check(&host, &pod, &wrong).error();
    for key in ["ips", "interfaces"] {
        let mut wrong = made.clone();
        wrong[key] = json!([]);
        check(&host, &pod, &wrong).error();
    }
    check(&host, &pod, &made).done();
}

// covers: K-05
#[test]
fn the_work_of_later_plugins_is_no_damage() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let mut result = host.add(&pod).result().result;
    for line in [
        "ip route add 192.0.2.0/24 dev eth0",
        "ip -6 route add 2001:db8:77::/48 dev eth0",
        "ip addr add 192.0.2.7/32 dev eth0",
        "ip link set eth0 mtu 1400",
        "ip link add extra0 type veth",
        "ip -4 route add default dev extra0 metric 9999",
    ] {
        if line.contains("default") {
            pod.run("ip link set extra0 up");
        }
        pod.run(line);
    }
    let more = |list: &mut Value, entry: Value| list.as_array_mut().unwrap().push(entry);
    more(&mut result["interfaces"], json!({"name": "extra0", "mac": "02:00:00:00:00:77", "sandbox": pod.path()}));
    more(&mut result["ips"], json!({"address": "192.0.2.7/32", "interface": 1}));
    more(&mut result["routes"], json!({"dst": "192.0.2.0/24"}));
    result["dns"] = json!({"nameservers": ["192.0.2.53"]});
    check(&host, &pod, &result).done();
}

// covers: K-06 K-12
#[test]
fn check_passes_right_after_add() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    for _ in 0..100 {
        let made = host.add(&pod).result();
        check(&host, &pod, &made.result).done();
        host.del(&pod).done();
    }
    host.assert_empty();
}

// covers: K-10 T-05 P-06
#[test]
fn a_short_absence_of_the_agent_is_waited_for_and_a_long_one_is_code_11() {
    let host = Host::new();
    let call = host.cni("CHECK").container("a").netns("/run/netns/a").ifname("eth0");
    let call = call.conf("prevResult", scripted::a_result());
    for verb in [call.clone(), host.cni("STATUS"), call.clone().env("CNI_COMMAND", "ADD").no_conf("prevResult")] {
        let agent = thread::scope(|scope| {
            let waiting = scope.spawn(|| verb.run());
            // Not a wait for a fact: the absence itself is what is tried.
            thread::sleep(Duration::from_millis(300));
            let agent = Scripted::obliging(socket_of(&host));
            waiting.join().unwrap().succeeded();
            agent
        });
        drop(agent);
    }
    assert_eq!(call.error().code, 11);
}

// covers: K-11
#[test]
fn check_changes_nothing() {
    let host = Host::new();
    let _agent = host.agent().start();
    leave_damage(&host);
    let pod = host.pod("a");
    let made = host.add(&pod).result();
    // The kernel tells of the pod's carrier a little after it is there.
    wait_for("the pod's end to be known as up", || pod.run("ip link show eth0").contains("state UP").then_some(()));
    host.run(&format!("ip -6 route del {}", made.ipv6().unwrap()));
    let watch = |command: &mut std::process::Command| {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("ip starts");
        let lines = child.stdout.take().expect("piped");
        (child, lines)
    };
    let kinds = ["monitor", "link", "address", "route"];
    let (mut here, here_lines) = watch(host.command("ip").args(["-o"]).args(kinds));
    let (mut there, there_lines) = watch(host.command("ip").args(["netns", "exec", "a", "ip", "-o"]).args(kinds));
    // Both have begun to listen once they report something.
    let seen = [here_lines, there_lines].map(|stream| {
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(stream)).map_while(Result::ok) {
                tell.send(line).ok();
            }
        });
        told
    });
    // An address that nobody else gives.
    let mark = |number: u16| {
        let mark = Ipv4Addr::from_bits(0xc612_0000 + u32::from(number));
        for run in [&|line: &str| host.run(line), &|line: &str| pod.run(line)] as [&dyn Fn(&str) -> String; 2] {
            run(&format!("ip addr add {mark}/32 dev lo"));
        }
        format!("inet {mark}/32 ")
    };
    let mut number = 0;
    for told in &seen {
        wait_for("the monitor", || {
            number += 1;
            mark(number);
            told.recv_timeout(Duration::from_millis(50)).ok()
        });
    }
    let mut told_during = |work: &dyn Fn()| -> Vec<String> {
        work();
        number += 1;
        let mark = mark(number);
        let until_mark = |told: &Receiver<String>| {
            let lines = std::iter::from_fn(|| Some(told.recv_timeout(PATIENCE).expect("the mark is told")));
            let others = lines.take_while(|line| !line.contains(&mark)).filter(|line| !line.contains("198.18."));
            others.collect::<Vec<_>>()
        };
        seen.iter().flat_map(until_mark).collect()
    };
    // The kernel has more to tell of a new link when it gets to it. It has got to all of it once it tells nothing for as long
    // as what follows takes.
    let look = || (0..5).for_each(|_| drop(pod.run("ip link")));
    wait_for("the kernel to be quiet", || told_during(&look).is_empty().then_some(()));
    let checks = || (0..5).for_each(|_| drop(check(&host, &pod, &made.result).error()));
    assert_eq!(told_during(&checks), Vec::<String>::new());
    here.kill().ok();
    there.kill().ok();
    here.wait().ok();
    there.wait().ok();
}
