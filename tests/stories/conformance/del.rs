//! Rows D: DEL, and what stands in for it.

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use flock::record::notes::{MAX_NOTES, Notes};
use model::addr::Attachment;
use serde_json::{Value, json};

use crate::support::host::{HOST4, HOST6, Host};
use crate::support::manifests::node_config_spec;
use crate::support::outcome::{Attached, CniError};
use crate::support::pod::Pod;
use crate::support::scripted::socket_of;
use crate::support::waiting::{PATIENCE, wait_for};

/// The words that make containerd take a failure for success.
fn assert_not_swallowed(error: &CniError) {
    let text = error.text().to_lowercase();
    assert!(!text.contains("not found") && !text.contains("no such file or directory"), "{text}");
}

fn deletes(host: &Host) -> usize {
    let names = fs::read_dir(host.path("/run/flock/deletes")).into_iter().flatten();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".delete")).count()
}

// covers: D-01 D-11
#[test]
fn del_succeeds_whatever_is_missing_already() {
    let host = Host::new();
    let _agent = host.agent().start();
    type Damage<'a> = &'a dyn Fn(&Pod, &Attached);
    let damages: [Damage<'_>; 6] = [
        &|_, made| drop(host.run(&format!("ip link del {}", made.host_link()))),
        &|pod, _| drop(pod.run("ip link del eth0")),
        &|pod, _| pod.vanish(),
        &|_, made| drop(host.run(&format!("ip -6 route del {}", made.ipv6().unwrap()))),
        &|_, made| drop(host.run(&format!("ip -4 route del {}", made.ipv4().unwrap()))),
        &|pod, _| drop(pod.run("ip link set eth0 name moved")),
    ];
    for (number, damage) in damages.iter().enumerate() {
        let pod = host.pod(&format!("p{number}"));
        let made = host.add(&pod).result();
        damage(&pod, &made);
        host.del(&pod).done();
        host.assert_empty();
    }
}

// covers: D-02 D-03 D-11
#[test]
fn del_may_come_again_and_for_what_never_was() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    host.add(&pod).result();
    for _ in 0..5 {
        host.del(&pod).done();
    }
    host.add(&pod).result();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| host.del(&pod).done());
        }
    });
    host.cni("DEL").container(&"0123456789abcdef".repeat(4)).ifname("eth0").netns("/run/netns/x").done();
    host.assert_empty();
}

// covers: D-04 D-05 D-07
#[test]
fn del_releases_without_a_usable_namespace_or_prev_result() {
    let host = Host::new();
    let _agent = host.agent().start();
    fs::write(host.path("/run/file"), "").unwrap();
    let prevs = [Value::Null, json!({}), json!(7), json!({"ips": 7}), json!({"interfaces": [null]})];
    for netns in ["", "/run/netns/gone", "/run/file", "/run", "not/absolute"] {
        for prev in &prevs {
            let pod = host.pod("a");
            host.add(&pod).result();
            host.del(&pod).netns(netns).conf("prevResult", prev.clone()).done();
            host.assert_empty();
            pod.vanish();
        }
    }
}

// covers: D-06
#[test]
fn a_stale_path_that_names_another_pod_harms_nobody() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&a).result();
    host.add(&b).result();
    host.del(&a).netns(&b.path()).done();
    assert!(b.pings(HOST6.parse().unwrap()) && b.pings(HOST4.parse().unwrap()));
    assert_eq!(host.leases().len(), 1);
    host.del(&b).done();
    host.assert_empty();
}

// covers: D-08 D-13 D-15 G-11
#[test]
fn an_address_is_free_again_though_del_never_came() {
    let host = Host::new();
    let agent = host.agent().start();
    let (gone, alive) = (host.pod("gone"), host.pod("alive"));
    host.add(&gone).result();
    host.add(&alive).result();
    gone.vanish();
    wait_for("the end of the namespace", || (host.flock_links().len() == 1).then_some(()));
    agent.kill();
    let _agent = host.agent().start();
    assert_eq!(host.leases().iter().map(|l| l.attachment.to_string()).collect::<Vec<_>>(), ["alive/eth0"]);
    assert!(alive.pings(HOST6.parse().unwrap()));
}

// covers: D-12 D-16
#[test]
fn del_with_neither_agent_nor_room_for_a_note_is_a_failure_that_nobody_swallows() {
    let host = Host::new();
    fs::write(host.path("/run/flock/deletes"), "in the way").unwrap();
    for netns in ["", "/run/netns/x"] {
        let error = host.cni("DEL").container("a").ifname("eth0").netns(netns).error();
        assert_eq!(error.code, 11);
        assert_not_swallowed(&error);
    }
    let verbs = ["ADD", "CHECK"].map(|verb| host.cni(verb).container("a").ifname("eth0").netns("/run/netns/x"));
    for call in verbs {
        assert_not_swallowed(&call.conf("prevResult", json!({})).run().failed());
    }
}

// covers: D-14 D-16 P-06
#[test]
fn deletes_without_an_agent_are_kept_and_carried_out_before_the_next_add() {
    let host = Host::new();
    let agent = host.agent().start();
    let pods: Vec<Pod> = (0..20).map(|i| host.pod(&format!("p{i}"))).collect();
    for pod in &pods {
        host.add(pod).result();
    }
    agent.stop();
    let error = host.add(&pods[0]).error();
    assert_eq!(error.code, 11);
    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| host.del(pod).done());
        }
    });
    assert_eq!(deletes(&host), 20);
    assert_eq!(host.leases().len(), 20);
    let _agent = host.agent().start();
    host.assert_empty();
    assert_eq!(deletes(&host), 0);
    host.add(&pods[0]).result();
}

// covers: D-17
#[test]
fn notes_are_bounded_private_and_read_with_suspicion() {
    let host = Host::new();
    let notes = Notes::beside(&socket_of(&host));
    let deadline = Instant::now() + PATIENCE;
    let writing = notes.writing(deadline).unwrap();
    for number in 0..MAX_NOTES {
        writing.write(&format!("c{number}/eth0").parse::<Attachment>().unwrap()).unwrap();
    }
    drop(writing);
    let error = host.cni("DEL").container("more").ifname("eth0").error();
    assert_eq!(error.code, 11);
    assert_not_swallowed(&error);
    host.cni("DEL").container("c7").ifname("eth0").done();
    assert_eq!(deletes(&host), MAX_NOTES);
    let mode = |path: &str| host.run(&format!("stat -c %a:%u {path}")).trim().to_owned();
    assert_eq!(mode("/run/flock/deletes"), "700:0");
    for name in fs::read_dir(host.path("/run/flock/deletes")).unwrap() {
        let name = name.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("eth0"), "nothing of the runtime's in a path: {name}");
    }

    let plant = |name: &str, content: &str| fs::write(host.path("/run/flock/deletes").join(name), content).unwrap();
    plant("evil.delete", r#"{"version":1,"boot":"","container_id":"../../x","ifname":"eth0","at":1}"#);
    plant("0000000000000000.delete", "\0\0\0");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = json!({"version": 1, "boot": boot.trim(), "container_id": "c1", "ifname": "eth0", "at": 1});
    plant("1111111111111111.delete", &other.to_string());
    host.run("ln -s /etc/passwd /run/flock/deletes/2222222222222222.delete");
    host.run("mkfifo /run/flock/deletes/3333333333333333.delete");
    let agent = host.agent().start();
    agent.wait_log("not a delete note");
    assert!(deletes(&host) >= 4 && deletes(&host) < 10, "{}", deletes(&host));
}

// covers: D-17
#[test]
fn an_old_note_does_not_end_a_newer_attachment() {
    let host = Host::new();
    let pod = host.pod("a");
    host.del(&pod).done();
    let name =
        host.run("ls /run/flock/deletes").split_whitespace().find(|n| n.ends_with(".delete")).unwrap().to_owned();
    host.run(&format!("mv /run/flock/deletes/{name} /run/{name}"));
    let agent = host.agent().start();
    host.add(&pod).result();
    agent.stop();
    host.run(&format!("mv /run/{name} /run/flock/deletes/{name}"));
    let _agent = host.agent().start();
    assert_eq!(deletes(&host), 0);
    assert_eq!(host.leases().len(), 1);
    assert!(pod.pings(HOST6.parse().unwrap()) && pod.pings(HOST4.parse().unwrap()));
}

// covers: D-18 D-20
#[test]
fn deletes_while_the_agent_comes_and_goes_are_all_carried_out() {
    let host = Host::new();
    for round in 0..4 {
        let agent = host.agent().start();
        let pods: Vec<Pod> = (0..12).map(|i| host.pod(&format!("r{round}p{i}"))).collect();
        for pod in &pods {
            host.add(pod).result();
        }
        agent.kill();
        let _agent = thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| host.del(pod).done());
            }
            host.agent().start()
        });
        // Whether by the agent or by a note that it read at its start: a success was one.
        host.assert_empty();
        assert_eq!(deletes(&host), 0);
    }
}

// covers: D-19 D-20 T-08
#[test]
fn del_needs_no_configuration_and_serves_while_add_cannot() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("a");
    host.add(&pod).result();
    agent.kill();
    let _agent = host.agent().config(None).start();
    assert_eq!(host.add(&pod).ifname("net1").error().code, 11);
    assert_eq!(host.cni("STATUS").error().code, 50);
    host.del(&pod).done();
    host.cni("DEL").container("never").ifname("eth0").done();
    host.assert_empty();
}

// covers: D-22
#[test]
fn a_released_address_rests_unless_nothing_else_is_free() {
    let host = Host::new();
    // Six addresses less the gateway: five for pods.
    let config = node_config_spec(json!({"cidr4": "10.9.0.0/29", "defaults": {"ipv6": false, "ipv4": true}}));
    let _agent = host.agent().config(Some(&config)).start();
    let pods: Vec<Pod> = (0..6).map(|i| host.pod(&format!("p{i}"))).collect();
    let first: IpAddr = host.add(&pods[0]).result().ipv4().unwrap();
    host.del(&pods[0]).done();
    for pod in &pods[1..5] {
        assert_ne!(host.add(pod).result().ipv4(), Some(first));
    }
    assert_eq!(host.add(&pods[5]).result().ipv4(), Some(first), "used rather than failing");
}

// covers: D-16
#[test]
fn a_delete_that_is_noted_takes_little_longer_than_the_wait_for_an_agent() {
    let host = Host::new();
    let outcome = host.cni("DEL").container("a").ifname("eth0").run();
    outcome.succeeded();
    assert!(outcome.elapsed < Duration::from_secs(5), "{:?}", outcome.elapsed);
    assert_eq!(deletes(&host), 1);
}
