//! The same pods through each release of libcni: what it chooses, what it keeps, what it says, and what it loses.

use std::fs;

use serde_json::{Value, json};

use crate::node::{NET_D, NEWEST, Node, RELEASES, Runtime, VERSIONS, flock, list, tool};
use crate::support::host::host_addresses;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, succeed};

/// An attachment from ADD to DEL through the list that the agent has written.
fn serve(runtime: &Runtime<'_>, version: &str) {
    let host = &runtime.node.host;
    let pod = host.pod("a");
    let annotated =
        runtime.clone().capability("io.kubernetes.cri.pod-annotations", json!({"flock.fritzlab.net/ipv4": "false"}));
    let added = annotated.call("add", &pod);
    let attached = Attached { result: added.done() };
    assert_eq!((added.version(), &attached.result["cniVersion"]), (version, &json!(version)), "{:?}", runtime.release);
    assert_eq!((attached.ips().len(), attached.ipv4()), (1, None), "the annotation came with the capability");
    pod.assert_pings(host_addresses().into_iter().filter(|ip| ip.is_ipv6()));
    annotated.check(&pod);
    let cached = annotated.call("cached-result", &pod).done();
    assert_eq!(cached, attached.result, "what libcni keeps is what it returned");

    if runtime.release.modern {
        runtime.status().done();
        runtime.gc(&["a"]).done();
        pod.assert_pings(host_addresses().into_iter().filter(|ip| ip.is_ipv6()));
        annotated.check(&pod);
        // What GC does not name is deleted by libcni itself, and flock hears an ordinary DEL.
        runtime.gc(&[]).done();
    } else {
        annotated.del(&pod);
    }
    assert_eq!(annotated.cached(), Vec::<String>::new());
    annotated.del(&pod);
    host.assert_empty();
    pod.vanish();
}

// covers: C-10 G-07 V-05 FM-C08
#[test]
fn the_list_that_is_shipped_serves_every_release_of_libcni() {
    let node = Node::new();
    let _agent = node.installed_agent();
    for release in RELEASES {
        // Those that do not know `cniVersions` take the low `cniVersion`, and the others the newest that both know.
        serve(&node.runtime(release), if release.modern { "1.1.0" } else { "0.4.0" });
    }
}

// covers: C-02 R-01 R-11 V-02 V-05
#[test]
fn each_version_of_the_specification_goes_through_each_release_that_knows_it() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    for release in RELEASES {
        for version in VERSIONS {
            let runtime = node.runtime(release).conf(&node.conf("list.conflist", &list(version, &[flock()])));
            let pod = node.host.pod("a");
            // This asks the plugin only: a release finds nothing wrong with a version whose results it cannot read.
            runtime.call_with("validate", &[]).done();
            let added = runtime.call("add", &pod);
            if release.knows(version) {
                let attached = Attached { result: added.done() };
                assert_eq!(attached.result["cniVersion"], version);
                assert_eq!(attached.ips().len(), 2);
                pod.assert_pings(host_addresses());
                if version < "0.4.0" {
                    let text = runtime.call("check", &pod).failed().to_owned();
                    assert!(text.contains("does not support"), "{text}");
                } else {
                    runtime.check(&pod);
                }
                runtime.del(&pod);
            } else {
                // The pod is attached, and only DEL frees it again.
                assert_eq!(node.host.leases().len(), 1);
                assert!(added.failed().contains(&format!("unsupported CNI result version \"{version}\"")), "{added:?}");
                runtime.del(&pod);
            }
            node.host.assert_empty();
            pod.vanish();
        }
    }
}

// covers: K-02 R-18
#[test]
fn what_was_added_in_one_version_is_checked_in_every_other() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    let confs = VERSIONS.map(|version| (version, node.conf(version, &list(version, &[flock()]))));
    for release in RELEASES {
        let known: Vec<&(&str, String)> = confs.iter().filter(|(version, _)| release.knows(version)).collect();
        for (_, conf) in &known {
            let pod = node.host.pod("a");
            let runtime = node.runtime(release).conf(conf);
            let ips = runtime.add(&pod).ips();
            for (other, conf) in &known {
                let other_list = runtime.clone().conf(conf);
                if *other >= "0.4.0" {
                    other_list.check(&pod);
                }
                // The same in the library itself, for what a runtime does with a result.
                let result = runtime.clone().converted(other).call("cached-result", &pod).done();
                let converted = Attached { result };
                assert_eq!((&converted.result["cniVersion"], converted.ips()), (&json!(other), ips.clone()));
            }
            // The whole way back, and still what is there: nothing was lost that DEL or CHECK could miss.
            runtime.del(&pod);
            node.host.assert_empty();
            pod.vanish();
        }
    }
}

// covers: D-07 D-08 K-02 FM-A08
#[test]
fn a_cache_that_a_power_cut_left_empty_costs_no_address_in_any_release() {
    let node = Node::new();
    let agent = node.installed_agent();
    for release in RELEASES {
        let runtime = node.runtime(release);
        let pod = node.host.pod("a");
        runtime.add(&pod);

        // Without the file, CHECK has nothing to compare and says so, and DEL does its work.
        let kept = fs::read(runtime.cache_file(&pod)).unwrap();
        fs::remove_file(runtime.cache_file(&pod)).unwrap();
        let check = runtime.call("check", &pod);
        assert_eq!(check.plugin_error().0, 7, "{check:?}");
        fs::write(runtime.cache_file(&pod), &kept).unwrap();
        runtime.check(&pod);

        fs::write(runtime.cache_file(&pod), "").unwrap();
        let del = runtime.call("del", &pod);
        if release.modern {
            del.done();
        } else {
            // The DEL never leaves the library: only the agent itself can free the address, once the pod has gone.
            assert!(del.failed().contains("cached result"), "{del:?}");
            assert_eq!(node.host.leases().len(), 1);
        }
        pod.vanish();
        node.wait_freed(&agent);
    }
}

// covers: A-11
#[test]
fn a_result_that_libcni_cannot_keep_is_a_failed_add_and_del_frees_it() {
    let node = Node::new();
    let _agent = node.installed_agent();
    for release in RELEASES {
        let runtime = node.runtime(release);
        let pod = node.host.pod("a");
        // A file where the directory should be: not even root can write below it.
        node.host.run(&format!("mkdir {}", runtime.cache));
        node.host.run(&format!("touch {}/results", runtime.cache));
        let added = runtime.call("add", &pod);
        assert!(added.failed().contains("cached result") || release.name == "v0.8.1", "{added:?}");
        assert_eq!(node.host.leases().len(), 1, "to flock it was a success");
        node.host.run(&format!("rm {}/results", runtime.cache));
        runtime.del(&pod);
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: X-02 X-05
#[test]
fn what_flock_says_is_what_the_runtime_shows() {
    let node = Node::new();
    let agent = node.host.agent().config(None).start();
    let conf = node.conf("list.conflist", &list("0.4.0", &[flock()]));
    let each = |what: &dyn Fn(&Runtime<'_>)| RELEASES.iter().for_each(|r| what(&node.runtime(*r).conf(&conf)));
    let pod = node.host.pod("a");

    each(&|runtime| {
        let add = runtime.call("add", &pod);
        assert_eq!(add.plugin_error(), (11, "node is not configured yet"), "{add:?}");
        // The message comes first, so that events of many pods are counted as one.
        let (before, _) = add.failed().split_once("node is not configured yet").unwrap();
        assert!(["", r#"plugin type="flock" failed (add): "#].contains(&before), "{before:?}");
    });
    agent.edit_config(&node_config(CIDR6, CIDR4));
    agent.wait_log("NodeConfig in force");

    each(&|runtime| {
        let wrong = json!({"flock.fritzlab.net/ipv4": "maybe"});
        let add = runtime.clone().capability("io.kubernetes.cri.pod-annotations", wrong).call("add", &pod);
        assert!(add.failed().contains("flock.fritzlab.net/ipv4") && add.failed().contains("maybe"), "{add:?}");
        assert_eq!(node.host.leases(), Vec::new());
        let gone = runtime.call_with("add", &["-id", "b", "-netns", "/run/netns/gone"]);
        assert_eq!(gone.plugin_error(), (4, "CNI_NETNS cannot be used"), "{gone:?}");
        runtime.add(&pod);
        let again = runtime.call("add", &pod);
        assert!(again.failed().contains("CNI_IFNAME"), "{again:?}");
        // What somebody broke is named by CHECK.
        pod.run("ip -6 route del default");
        let check = runtime.call("check", &pod);
        assert!(check.failed().contains("route"), "{check:?}");
        runtime.del(&pod);
        node.host.assert_empty();
    });
    agent.stop();
}

// covers: T-03 P-06
#[test]
fn a_runtime_hears_by_status_that_the_agent_is_away_and_that_it_is_back() {
    let node = Node::new();
    let agent = node.installed_agent();
    let modern: Vec<Runtime<'_>> = RELEASES.into_iter().filter(|r| r.modern).map(|r| node.runtime(r)).collect();
    modern.iter().for_each(|runtime| drop(runtime.status().done()));
    agent.stop();
    for runtime in &modern {
        let away = runtime.status();
        assert_eq!(away.plugin_error(), (50, "flock-agent does not answer"), "{away:?}");
    }
    // A list that says 1.0.0 has no such signal: nothing is started, and the node counts as ready.
    let conf = node.conf("old.conflist", &list("1.0.0", &[flock()]));
    modern.iter().for_each(|runtime| drop(runtime.clone().conf(&conf).status().done()));
    let _agent = node.host.agent().start();
    modern.iter().for_each(|runtime| drop(runtime.status().done()));
}

// covers: C-09
#[test]
fn a_file_that_is_dropped_beside_the_list_does_not_extend_it() {
    let node = Node::new();
    let _agent = node.installed_agent();
    node.plugin("extra", &tool("recorder"));
    node.host.run("mkdir /run/net.d/flock");
    fs::write(node.host.path("/run/net.d/flock/50-extra.conf"), r#"{"type": "extra"}"#).unwrap();
    for release in RELEASES {
        let runtime = node.runtime(release);
        let pod = node.host.pod("a");
        runtime.add(&pod);
        runtime.del(&pod);
        assert_eq!(node.order(), Vec::<String>::new());

        // Without that key, the releases since 1.3 do take it, so the key is what keeps it away.
        let open = node.conf("open.conflist", &list("0.4.0", &[flock()]));
        let runtime = runtime.conf(&open);
        runtime.add(&pod);
        runtime.del(&pod);
        let taken = release.name >= "v1.3";
        assert_eq!(node.order(), if taken { vec!["ADD extra", "DEL extra"] } else { vec![] }, "{}", release.name);
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: C-08 K-09
#[test]
fn what_is_switched_off_in_the_list_starts_no_plugin() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    let with = |key: &str, value: Value| {
        let mut list = list("1.1.0", &[flock()]);
        if key == "disableCheck" {
            list["cniVersion"] = json!("0.4.0");
        }
        list[key] = value;
        node.conf("off.conflist", &list)
    };
    for release in RELEASES {
        let pod = node.host.pod("a");
        let runtime = node.runtime(release).recorded();
        for value in [json!(true), json!("true"), json!(false), json!("false"), json!("no")] {
            let (on, text) = (value == true || value == "true", value.is_string());
            let runtime = runtime.clone().conf(&with("disableCheck", value.clone()));
            let added = runtime.call("add", &pod);
            // Anything that is not understood makes the whole list unusable; older releases do not understand texts.
            if value == "no" || (text && !release.modern) {
                assert!(added.failed().contains("disableCheck"), "{value} by {}: {added:?}", release.name);
                assert_eq!(node.order(), Vec::<String>::new());
                continue;
            }
            added.done();
            runtime.check(&pod);
            runtime.del(&pod);
            let calls = if on { vec!["ADD flock", "DEL flock"] } else { vec!["ADD flock", "CHECK flock", "DEL flock"] };
            assert_eq!(node.order(), calls, "{value} by {}", release.name);
        }
        for value in [json!(true), json!("true"), json!(false)].into_iter().filter(|_| release.modern) {
            let runtime = runtime.clone().conf(&with("disableGC", value.clone()));
            runtime.add(&pod);
            runtime.gc(&[]).done();
            let on = value != false;
            let calls = if on { vec!["ADD flock"] } else { vec!["ADD flock", "DEL flock", "GC flock"] };
            assert_eq!(node.order(), calls, "{value} by {}", release.name);
            assert_eq!(runtime.cached().len(), usize::from(on));
            runtime.del(&pod);
            node.calls();
        }
        node.host.assert_empty();
        pod.vanish();
    }
}

// covers: D-07 FM-C13
#[test]
fn a_pod_is_deleted_by_another_list_than_it_was_added_by() {
    let node = Node::new();
    let _agent = node.host.agent().start();
    let mut renamed = list("1.1.0", &[flock()]);
    renamed["name"] = json!("elsewhere");
    for release in RELEASES {
        let added_by = node.conf("added.conflist", &list("0.3.1", &[flock()]));
        renamed["cniVersion"] = json!(release.newest);
        let renamed = node.conf("renamed.conflist", &renamed);
        let runtime = node.runtime(release).conf(&added_by);
        let pod = node.host.pod("a");

        // As containerd does it: whatever list is loaded by now, under whatever name.
        runtime.add(&pod);
        runtime.clone().conf(&renamed).del(&pod);
        node.host.assert_empty();

        // As CRI-O does it: the list of the ADD, though the file says something else.
        runtime.del(&pod);
        runtime.add(&pod);
        fs::copy(node.host.path(&renamed), node.host.path(&added_by)).unwrap();
        let cached = node.conf("added.conflist", &list("0.4.0", &[flock(), json!({"type": "gone"})]));
        runtime.clone().conf(&cached).call("del-as-cached", &pod).done();
        node.host.assert_empty();
        assert_eq!(runtime.cached(), Vec::<String>::new());
        pod.vanish();
    }
}

// covers: E-18 S-04
#[test]
fn ids_that_only_add_judges_in_the_library_are_judged_by_flock_for_the_others() {
    let node = Node::new();
    let _agent = node.installed_agent();
    for release in RELEASES {
        let runtime = node.runtime(release).recorded();
        let with = |verb: &str, id: &str, ifname: &str| {
            runtime.call_with(verb, &["-id", id, "-netns", "/run/netns/a", "-ifname", ifname])
        };
        for (id, ifname) in [("../../etc/x", "eth0"), ("a", "eth0/../x"), ("a b", "eth0"), ("a", "eth0eth0eth0eth0")] {
            with("add", id, ifname).failed();
            assert_eq!(node.order(), Vec::<String>::new(), "the library refuses this ADD itself");
            for verb in ["check", "del"] {
                let answer = with(verb, id, ifname);
                assert_eq!(answer.plugin_error().0, 4, "{answer:?}");
            }
            assert_eq!(node.order(), ["CHECK flock", "DEL flock"]);
        }
        let path = node.conf("path.conflist", &list("0.4.0", &[json!({"type": "../../run/flock"})]));
        let refused = runtime.clone().conf(&path).call_with("add", &["-id", "a", "-netns", "/run/netns/a"]);
        assert!(refused.failed().contains("invalid plugin name"), "{refused:?}");
        node.host.assert_empty();
    }
}

/// cnitool with the list that the agent has written.
fn cnitool(node: &Node, verb: &str, pod: &Pod<'_>) -> std::process::Output {
    let mut command = node.host.command("env");
    command.env("CNI_PATH", "/usr/lib/cni").env("NETCONFPATH", NET_D).env("RECORDER_LOG", "/run/calls.log");
    command.env("RECORDER_REAL_flock", FLOCK).env("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=a");
    command.arg(tool("cnitool")).args([verb, "flock", &pod.path()]);
    command.output().unwrap()
}

#[track_caller]
fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

// covers: G-07
#[test]
fn cnitool_adds_checks_and_deletes_a_pod_and_its_gc_takes_every_pod() {
    let node = Node::new();
    let _agent = node.installed_agent();
    // It keeps results where runtimes keep theirs, so the node gets a place of its own for them.
    node.host.run("mount -t tmpfs tmpfs /var/lib");
    let _recorded = node.runtime(NEWEST).recorded();
    let (a, b) = (node.host.pod("a"), node.host.pod("b"));
    done(&cnitool(&node, "status", &a));
    let result: Value = serde_json::from_str(&done(&cnitool(&node, "add", &a))).unwrap();
    assert_eq!(result["cniVersion"], "1.1.0");
    a.assert_pings(host_addresses());
    done(&cnitool(&node, "check", &a));
    done(&cnitool(&node, "del", &a));
    node.host.assert_empty();
    node.calls();

    done(&cnitool(&node, "add", &a));
    done(&cnitool(&node, "add", &b));
    done(&cnitool(&node, "gc", &a));
    assert_eq!(node.order(), ["ADD flock", "ADD flock", "DEL flock", "DEL flock", "GC flock"]);
    node.host.assert_empty();
}

// covers: D-08
#[test]
fn a_del_that_meets_a_plugin_in_the_middle_of_being_written_is_lost() {
    let node = Node::new();
    let agent = node.installed_agent();
    let copied = node.host.path("/usr/lib/cni/flock");
    succeed(std::process::Command::new("cp").arg("--remove-destination").arg(FLOCK).arg(&copied));
    let pods = RELEASES.map(|release| (node.runtime(release), node.host.pod(release.name)));
    for (runtime, pod) in &pods {
        runtime.add(pod);
    }
    // As an installer holds it that does not rename. libcni means to try again for six seconds, and then goes on as if all
    // were well. Built with a Go that refuses to start one command twice (1.26 does), it fails at the second try instead.
    // Either way no plugin is called, which is why flock's files are only ever replaced as a whole.
    let written = fs::OpenOptions::new().write(true).open(&copied).unwrap();
    std::thread::scope(|scope| {
        for (runtime, pod) in &pods {
            scope.spawn(|| match runtime.call("del", pod).error() {
                None => assert_eq!(runtime.cached(), Vec::<String>::new()),
                Some(text) => assert!(text.contains("already started"), "{text}"),
            });
        }
    });
    drop(written);
    assert_eq!(node.host.leases().len(), pods.len(), "no DEL has come");
    pods.iter().for_each(|(_, pod)| pod.vanish());
    node.wait_freed(&agent);
}
