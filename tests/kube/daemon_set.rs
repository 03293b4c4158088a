//! Stories of the agent in a container, as the DaemonSet of `deploy/` wants it: with a real API server, on hosts whose sysctls it may write
//! or not, and while it is replaced under load.

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::container::{Container, daemon_set, init, prepare};
use crate::deploy::own_directories;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::waiting::wait_for;

const PAGE: &str = include_str!("../../deploy/README.md");

const PLUGIN: &str = "/opt/cni/bin/flock";

/// An API server that has given the node its ranges.
fn cluster(host: &Host) -> ControlPlane<'_> {
    own_directories(host);
    let plane = ControlPlane::start(host);
    prepare(&plane, host);
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "host001"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]}});
    plane.apply(&node.to_string()).expect("accepted");
    plane
}

fn args(set: &Value) -> &Value {
    &set["spec"]["template"]["spec"]["containers"][0]["args"]
}

#[test]
fn a_node_serves_pods_by_the_daemon_set_alone_and_nothing_is_refused() {
    let host = Host::new();
    let plane = cluster(&host);
    let set = daemon_set(&plane, "daemonset");
    assert!(args(&set).as_array().expect("a list").contains(&json!("--pod-cidrs")));
    for list in ["containers", "initContainers"] {
        let image = &set["spec"]["template"]["spec"][list][0]["image"];
        assert_eq!(image, concat!("flock.fritzlab.net/flock:", env!("CARGO_PKG_VERSION")));
    }
    init(&host, &set, "plugin");
    let mut agent = Container::start(&host, &set, "agent");
    agent.wait_log("the ranges are the podCIDRs of the Node");
    agent.wait_log("CNI configuration written");
    assert!(host.path("/etc/cni/net.d/01-flock.conflist").is_file());
    // A namespace that the runtime mounts after the start of the container.
    let (a, b) = (host.pod("a"), host.pod("b"));
    let add = |pod| host.add(pod).annotations(&[]).netns(&format!("/var/run/netns/{}", pod.name)).program(PLUGIN);
    let first = add(&a).result().ipv4().expect("IPv4");
    add(&b).result();
    assert!(first.to_string().starts_with("10.244.1."), "{first}");
    host.cni("STATUS").program(PLUGIN).done();
    assert!(agent.is_ready(&set));
    assert!(!agent.log.text().contains(" error "), "{}", agent.log.text());
    for pod in [&a, &b] {
        host.del(pod).program(PLUGIN).done();
    }
    host.assert_empty();
    agent.stop();
}

#[test]
fn a_container_without_privileges_serves_where_the_sysctls_are_right_and_says_which_is_not() {
    let host = Host::new();
    let plane = cluster(&host);
    let set = daemon_set(&plane, "overlays/unprivileged");
    init(&host, &set, "plugin");
    let agent = Container::start(&host, &set, "agent");
    let line = agent.wait_log("host cannot be prepared");
    assert!(line.contains("net/ipv4/ip_forward") && line.contains("Read-only"), "{line}");
    assert!(!host.path("/etc/cni/net.d/01-flock.conflist").exists(), "no runtime sends pods into a wall");
    assert!(!agent.is_ready(&set));
    // What the page says that the host has to have.
    let sysctls = crate::support::page::block(PAGE, "Without privileges", "ini");
    for line in sysctls.lines() {
        let (key, value) = line.split_once('=').expect("a setting");
        fs::write(host.path("/run/value"), value.trim()).expect("writable");
        host.script(&format!("cat /run/value > /proc/sys/{}", key.trim().replace('.', "/")));
    }
    agent.wait_log("CNI configuration written");
    wait_for("readiness", || agent.is_ready(&set).then_some(()));
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).netns("/var/run/netns/a").program(PLUGIN).result();
    host.del(&pod).program(PLUGIN).done();
    host.assert_empty();
}

#[test]
fn the_plugin_goes_where_the_page_says_also_into_a_directory_that_is_not_roots() {
    let host = Host::new();
    let plane = cluster(&host);
    let patch = crate::support::page::block(PAGE, "As a DaemonSet", "yaml");
    let daemonset = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/daemonset");
    // Kustomize wants what it refers to as a path from where it is.
    let overlay = std::env::temp_dir().join(format!("flock-overlay-{}", std::process::id()));
    fs::create_dir_all(&overlay).expect("made");
    let up = "../".repeat(overlay.components().count() - 1);
    let text = format!("resources: [\"{up}{}\"]\n{patch}", daemonset.trim_start_matches('/'));
    fs::write(overlay.join("kustomization.yaml"), text).expect("written");
    let manifests = plane.run(&format!("kustomize {}", overlay.display()));
    fs::remove_dir_all(&overlay).expect("removed");
    let set = crate::container::made(&plane, &manifests);
    host.script("mkdir -p /usr/lib/cni; mount -t tmpfs -o uid=1000,mode=0755 tmpfs /usr/lib/cni");
    init(&host, &set, "plugin");
    assert_eq!(host.run("stat -c %u%a /usr/lib/cni/flock"), "0755\n");
    assert!(!host.path(PLUGIN).exists());
}

#[test]
fn the_daemon_set_goes_by_the_command_of_the_page_and_the_kinds_stay() {
    let host = Host::new();
    let plane = cluster(&host);
    daemon_set(&plane, "daemonset");
    let blocks = crate::support::page::blocks(PAGE, "As a DaemonSet", "sh");
    let line = blocks.iter().find_map(|block| block.trim().strip_prefix("kubectl --namespace kube-system delete "));
    plane.run(&format!("--namespace kube-system delete --wait=false {}", line.expect("the command")));
    assert_eq!(plane.run("-n kube-system get daemonsets -o name"), "");
    assert!(plane.run("get crds -o name").contains("nodeconfigs.flock.fritzlab.net"));
}

/// As many calls as a busy node has in a second, and for so long.
const PER_SECOND: u32 = 10;
const CALLS: u32 = 80;

#[test]
fn an_agent_is_replaced_by_the_next_one_while_pods_come_and_none_fails() {
    let host = Host::new();
    let plane = cluster(&host);
    let set = daemon_set(&plane, "daemonset");
    init(&host, &set, "plugin");
    let mut former = Container::start(&host, &set, "agent");
    former.wait_log("CNI configuration written");
    let pods: Vec<_> = (0..CALLS).map(|number| host.pod(&format!("p{number}"))).collect();
    thread::scope(|scope| {
        let (begun, beginning) = channel();
        // The beat: nobody ever sends anything.
        let (_silent, beat) = channel::<()>();
        let (host, pods) = (&host, &pods);
        let calls = scope.spawn(move || {
            let calls: Vec<_> = pods
                .iter()
                .map(|pod| {
                    let call =
                        host.add(pod).annotations(&[]).netns(&format!("/var/run/netns/{}", pod.name)).program(PLUGIN);
                    let call = scope.spawn(move || call.run());
                    begun.send(()).expect("heard");
                    assert_eq!(beat.recv_timeout(Duration::from_secs(1) / PER_SECOND), Err(RecvTimeoutError::Timeout));
                    call
                })
                .collect();
            calls.into_iter().map(|call| call.join().expect("no panic")).collect::<Vec<_>>()
        });
        for _ in 0..CALLS / 4 {
            beginning.recv().expect("a call");
        }
        former.stop();
        init(host, &set, "plugin");
        let mut next = Container::start(host, &set, "agent");
        next.wait_log("flock-agent listens");
        let after = beginning.try_iter().count();
        println!("{after} of {CALLS} calls began while there was no agent");
        for outcome in calls.join().expect("no panic") {
            outcome.succeeded();
        }
        wait_for("all pods", || (host.run("ip -o link show type veth").lines().count() == pods.len()).then_some(()));
        for pod in pods {
            host.del(pod).program(PLUGIN).done();
        }
        host.assert_empty();
        next.stop();
    });
}
