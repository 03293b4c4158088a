//! Rows G: GC.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::host::{HOST4, HOST6, Host};
use crate::support::pod::Pod;
use crate::support::waiting::wait_for;

/// The kernel removes the links of a namespace some time after its last name.
fn gone(host: &Host, link: &str) {
    wait_for("the end of the namespace", || (!host.flock_links().iter().any(|name| name == link)).then_some(()));
}

const KEY: &str = "cni.dev/valid-attachments";
const OLD_KEY: &str = "cni.dev/attachments";

fn list(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"containerID": name, "ifname": "eth0"})).collect()
}

fn held(host: &Host) -> Vec<String> {
    host.leases().iter().map(|lease| lease.attachment.container_id.to_string()).collect()
}

/// Pods whose runtime has gone on without a DEL.
fn dead(host: &Host, names: &[&str]) {
    for name in names {
        let pod = host.pod(name);
        let link = host.add(&pod).result().host_link();
        pod.vanish();
        gone(host, &link);
    }
}

// covers: G-01
#[test]
fn gc_exists_since_1_1_0() {
    let host = Host::new();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        assert_eq!(host.cni("GC").version(version).conf(KEY, json!([])).error().code, 1);
    }
}

// covers: G-02 G-03 G-04 G-09
#[test]
fn gc_removes_what_is_not_listed_under_either_key() {
    let host = Host::new();
    let _agent = host.agent().start();
    dead(&host, &["a", "b", "c", "d", "e"]);
    host.cni("GC").done();
    assert_eq!(held(&host), ["a", "b", "c", "d", "e"], "no list is no order");
    host.cni("GC").conf(KEY, list(&["a", "b", "c", "d"])).done();
    assert_eq!(held(&host), ["a", "b", "c", "d"]);
    host.cni("GC").conf(OLD_KEY, list(&["a", "b", "c"])).done();
    assert_eq!(held(&host), ["a", "b", "c"]);
    host.cni("GC").conf(OLD_KEY, json!([])).conf(KEY, list(&["a", "b"])).done();
    assert_eq!(held(&host), ["a", "b"], "the newer key wins");
    host.cni("GC").conf(KEY, Value::Null).done();
    host.assert_empty();
    dead(&host, &["f"]);
    host.cni("GC").conf(KEY, json!([])).done();
    host.assert_empty();
}

// covers: G-05
#[test]
fn gc_of_one_network_leaves_the_others_alone() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("other");
    let link = host.add(&pod).conf("name", json!("second")).result().host_link();
    pod.vanish();
    gone(&host, &link);
    dead(&host, &["a"]);
    host.cni("GC").conf(KEY, json!([])).done();
    assert_eq!(held(&host), ["other"]);
    host.cni("GC").conf("name", json!("second")).conf(KEY, json!([])).done();
    host.assert_empty();
}

// covers: G-06 G-08
#[test]
fn a_living_pod_that_is_not_listed_is_kept_and_named_and_the_rest_is_done() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (one, two) = (host.pod("one"), host.pod("two"));
    host.add(&one).result();
    dead(&host, &["a", "b"]);
    host.add(&two).result();
    dead(&host, &["c"]);
    let error = host.cni("GC").conf(KEY, list(&["b"])).error();
    assert!(error.details.contains("one/eth0") && error.details.contains("two/eth0"), "{}", error.text());
    assert!(!error.details.contains("b/eth0"), "{}", error.text());
    assert_eq!(held(&host), ["b", "one", "two"]);
    for pod in [&one, &two] {
        assert!(pod.pings(HOST6.parse().unwrap()) && pod.pings(HOST4.parse().unwrap()));
    }
    host.cni("GC").conf(KEY, list(&["one", "two"])).done();
    assert_eq!(held(&host), ["one", "two"]);
}

// covers: G-10
#[test]
fn gc_beside_adds_removes_none_of_them() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pods: Vec<Pod> = (0..20).map(|i| host.pod(&format!("p{i}"))).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                // Those that live already are kept, and reported.
                let outcome = host.cni("GC").conf(KEY, json!([])).run();
                assert!(outcome.output.status.code().is_some_and(|code| code < 2));
            }
        });
        let adding: Vec<_> = pods.iter().map(|pod| scope.spawn(|| host.add(pod).result())).collect();
        for add in adding {
            add.join().unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
    assert_eq!(host.leases().len(), 20);
    for pod in &pods {
        assert!(pod.pings(HOST6.parse().unwrap()));
    }
}

// covers: G-12
#[test]
fn a_huge_or_broken_list_protects_exactly_what_it_names() {
    let host = Host::new();
    let agent = host.agent().start();
    dead(&host, &["a", "b"]);
    let mut entries: Vec<Value> =
        (0..5000).map(|i| json!({"containerID": format!("x{i}"), "ifname": "eth0"})).collect();
    entries.extend((0..5000).map(|_| json!({"containerID": "../b", "ifname": "eth0"})));
    entries.push(json!({"containerID": "a", "ifname": "eth0"}));
    host.cni("GC").conf(KEY, json!(entries)).done();
    assert_eq!(held(&host), ["a"]);
    agent.wait_log("entries of the runtime's list name no attachment");
    for shape in [json!(7), json!({}), json!("a"), json!([7]), json!([{}])] {
        assert_eq!(host.cni("GC").conf(KEY, shape).error().code, 6);
    }
    assert_eq!(held(&host), ["a"], "a list that cannot be read is not an empty one");
}
