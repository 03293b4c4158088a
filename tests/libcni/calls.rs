//! What libcni sends, and in which order, as recorders around flock write it down.

use serde_json::json;

use crate::node::{Call, LibcniRelease, NEWEST, Node, RELEASES, Runtime, flock, list, tool};
use crate::support::host::host_addresses;
use crate::support::pod::Pod;

/// A runtime with the chain flock, first, last: recorders behind flock, which is recorded itself.
fn chain<'a>(node: &'a Node, release: LibcniRelease, version: &str) -> Runtime<'a> {
    for name in ["first", "last"] {
        node.plugin(name, &tool("recorder"));
    }
    let conf =
        node.conf("chain.conflist", &list(version, &[flock(), json!({"type": "first"}), json!({"type": "last"})]));
    node.runtime(release).conf(&conf).recorded()
}

// covers: C-01
#[test]
fn plugins_are_called_in_the_order_of_the_list_and_backwards_for_del() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for release in RELEASES {
        let runtime = chain(&node, release, release.newest);
        let pod = node.host.pod("a");
        runtime.add(&pod);
        assert_eq!(node.order(), ["ADD flock", "ADD first", "ADD last"], "{}", release.name);
        runtime.check(&pod);
        assert_eq!(node.order(), ["CHECK flock", "CHECK first", "CHECK last"], "{}", release.name);
        if release.modern {
            runtime.status().done();
            assert_eq!(node.order(), ["STATUS flock", "STATUS first", "STATUS last"], "{}", release.name);
            runtime.gc(&["a"]).done();
            assert_eq!(node.order(), ["GC flock", "GC first", "GC last"], "{}", release.name);
        }
        runtime.del(&pod);
        assert_eq!(node.order(), ["DEL last", "DEL first", "DEL flock"], "{}", release.name);
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: C-05 D-10
#[test]
fn an_add_that_fails_behind_flock_is_cleared_up_by_del_alone() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for release in RELEASES {
        let runtime = chain(&node, release, release.newest);
        let pod = node.host.pod("a");
        let failing = runtime.clone().env("RECORDER_FAIL_first", "ADD");
        let added = failing.call("add", &pod);
        assert_eq!(added.plugin_error(), (100, "first fails on ADD"), "{added:?}");
        assert_eq!(node.order(), ["ADD flock", "ADD first"], "nobody tells flock");
        assert_eq!((node.host.leases().len(), runtime.cached().len()), (1, 0));

        // A runtime may try the same sandbox again: it is told that the DEL is missing, and nothing is made twice.
        assert!(failing.call("add", &pod).failed().contains("CNI_IFNAME"));
        assert_eq!(node.order(), ["ADD flock"]);
        runtime.del(&pod);
        assert_eq!(node.order(), ["DEL last", "DEL first", "DEL flock"]);
        node.host.assert_empty();
        runtime.add(&pod);
        runtime.del(&pod);
        node.calls();
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: D-08 D-09
#[test]
fn a_plugin_that_fails_on_del_keeps_it_from_flock_until_the_pod_is_gone() {
    let node = Node::new();
    let agent = node.host.agent().start();
    for release in RELEASES {
        let runtime = chain(&node, release, release.newest);
        let pod = node.host.pod("a");
        runtime.add(&pod);
        node.calls();
        let deleted = runtime.clone().env("RECORDER_FAIL_first", "DEL").call("del", &pod);
        assert_eq!(deleted.plugin_error(), (100, "first fails on DEL"), "{deleted:?}");
        assert_eq!(node.order(), ["DEL last", "DEL first"], "{}", release.name);
        assert_eq!(node.host.leases().len(), 1, "flock was not asked");
        pod.assert_pings(host_addresses());

        pod.vanish();
        node.wait_freed(&agent);

        // The other way round, a DEL that comes after all is a success.
        let pod = node.host.pod("a");
        runtime.del(&pod);
        pod.vanish();
    }
}

// covers: G-08 T-02
#[test]
fn gc_goes_on_after_a_plugin_that_fails_and_status_ends_there() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for release in RELEASES.into_iter().filter(|release| release.modern) {
        let runtime = chain(&node, release, "1.1.0");
        let (dead, alive) = (node.host.pod("dead"), node.host.pod("alive"));
        runtime.add(&dead);
        runtime.add(&alive);
        node.calls();

        // flock keeps what lives though it is not on the list, and says so; the others are called all the same.
        std::fs::remove_dir_all(node.host.path(&format!("{}/results", runtime.cache))).unwrap();
        let collected = runtime.gc(&["dead"]);
        assert!(collected.failed().contains("alive"), "{collected:?}");
        assert_eq!(node.order(), ["GC flock", "GC first", "GC last"]);
        alive.assert_pings(host_addresses());
        let collected = runtime.clone().env("RECORDER_FAIL_flock", "GC").env("RECORDER_FAIL_first", "GC").gc(&["dead"]);
        for name in ["flock", "first"] {
            assert!(collected.failed().contains(&format!("{name} fails on GC")), "{collected:?}");
        }
        assert_eq!(node.order(), ["GC flock", "GC first", "GC last"]);

        let status = runtime.clone().env("RECORDER_FAIL_first", "STATUS").status();
        assert_eq!(status.plugin_error(), (100, "first fails on STATUS"));
        assert_eq!(node.order(), ["STATUS flock", "STATUS first"]);

        for pod in [dead, alive] {
            runtime.del(&pod);
            pod.vanish();
        }
        node.calls();
        node.host.assert_empty();
    }
}

// covers: D-08 G-02 G-03 G-07
#[test]
fn before_gc_come_deletes_of_what_is_not_on_the_list_as_if_somebody_had_asked_for_them() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for release in RELEASES.into_iter().filter(|release| release.modern) {
        let runtime = chain(&node, release, "1.1.0");
        let pods = ["a", "b", "c"].map(|name| node.host.pod(name));
        pods.iter().for_each(|pod| drop(runtime.add(pod)));
        node.calls();
        runtime.gc(&["b"]).done();
        let calls = node.calls();
        let deletes: Vec<&Call> = calls.iter().filter(|call| call.name() == "DEL flock").collect();
        let ids: Vec<&str> = deletes.iter().map(|call| call.env()["CNI_CONTAINERID"].as_str().unwrap()).collect();
        assert_eq!(ids, ["a", "c"]);
        // With the namespace of the ADD, since 1.2.3: this is no mere note that an attachment is stale.
        assert_eq!(deletes[0].env()["CNI_NETNS"], pods[0].path());
        assert!(deletes[0].stdin()["prevResult"].is_object());
        let gc = calls.iter().find(|call| call.name() == "GC flock").expect("a GC");
        let valid = json!([{"containerID": "b", "ifname": "eth0"}]);
        assert_eq!(gc.stdin()["cni.dev/valid-attachments"], valid);
        assert_eq!(gc.stdin()["cni.dev/attachments"], valid);
        pods[1].assert_pings(host_addresses());
        assert_eq!(node.host.leases().len(), 1);

        // Without any list, the deletes come for every pod, and GC itself has neither key.
        runtime.gc_without_list().done();
        let calls = node.calls();
        let gc = calls.iter().find(|call| call.name() == "GC flock").expect("a GC");
        assert_eq!(gc.stdin().get("cni.dev/valid-attachments"), None);
        assert_eq!(calls.iter().filter(|call| call.name() == "DEL flock").count(), 1);
        node.host.assert_empty();
        pods.iter().for_each(Pod::vanish);
    }
}

// covers: E-08 E-09 S-09 S-12 S-15
#[test]
fn what_libcni_sends_is_what_flock_was_made_for() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for release in RELEASES {
        let mut conf = list(release.newest, &[flock(), json!({"type": "first"})]);
        for (key, value) in [("disableCheck", json!(false)), ("loadOnlyInlinedPlugins", json!(true))] {
            conf[key] = value;
        }
        chain(&node, release, release.newest);
        let runtime = node.runtime(release).conf(&node.conf("keys.conflist", &conf)).recorded();
        let runtime = runtime.capability("io.kubernetes.cri.pod-annotations", json!({"a": "b"}));
        let pod = node.host.pod("a");
        runtime.call_with("validate", &[]).done();
        let result = runtime.add(&pod).result;
        runtime.check(&pod);
        if release.modern {
            runtime.status().done();
            runtime.gc(&["a"]).done();
        }
        runtime.del(&pod);
        let calls = node.calls();
        let call = |name: &str| calls.iter().find(|call| call.name() == name).unwrap_or_else(|| panic!("no {name}"));

        for call in &calls {
            // All variables come always, with an empty text for what the verb has no use for.
            let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];
            names.iter().for_each(|name| assert!(call.env()[name].is_string(), "{name}: {}", call.env()));
            for key in ["plugins", "cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
                assert_eq!(call.stdin().get(key), None, "keys of the list stay there");
            }
            let later = call.name() == "ADD first" || ["CHECK", "DEL"].contains(&call.verb());
            assert_eq!(call.stdin().get("prevResult"), later.then_some(&result), "{}", call.name());
        }
        let add = call("ADD flock");
        assert_eq!(add.env()["CNI_ARGS"], "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a");
        assert_eq!(add.stdin()["capabilities"], flock()["capabilities"], "the specification says otherwise");
        assert_eq!(add.stdin()["runtimeConfig"]["io.kubernetes.cri.pod-annotations"], json!({"a": "b"}));
        assert_eq!((&add.stdin()["name"], &add.stdin()["cniVersion"]), (&json!("flock"), &json!(release.newest)));
        let version = call("VERSION flock");
        for name in ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            assert_eq!(version.env()[name], "dummy");
        }
        assert_eq!(
            (&version.env()["CNI_CONTAINERID"], version.stdin()),
            (&json!(""), &json!({"cniVersion": release.newest}))
        );
        if release.modern {
            for name in ["STATUS flock", "GC flock"] {
                for variable in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
                    assert_eq!(call(name).env()[variable], "", "{name}");
                }
                assert_eq!(call(name).env()["CNI_PATH"], "/usr/lib/cni");
            }
        }
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: A-06 C-03
#[test]
fn flock_behind_another_plugin_is_refused_in_words_that_the_runtime_shows() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    node.plugin("first", &tool("recorder"));
    let conf = node.conf("behind.conflist", &list("1.0.0", &[json!({"type": "first"}), flock()]));
    let runtime = node.runtime(NEWEST).conf(&conf);
    let pod = node.host.pod("a");
    let added = runtime.call("add", &pod);
    let (code, msg) = added.plugin_error();
    assert_eq!((code, msg.is_empty()), (7, false), "{added:?}");
    assert!(added.failed().contains("prevResult"), "{added:?}");
    assert_eq!(node.host.leases(), Vec::new());
    runtime.del(&pod);
    assert_eq!(node.order(), ["ADD first", "DEL first"]);
    node.host.assert_empty();
}
