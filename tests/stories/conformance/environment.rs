//! Rows E: the environment of a call.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;

use crate::support::host::Host;
use crate::support::plugin::Cni;
use crate::support::scripted;
use crate::support::scripted::{Scripted, socket_of};

/// A call with every variable set.
fn full<'a>(host: &'a Host, verb: &str) -> Cni<'a> {
    let call = host.cni(verb).container("abc").netns("/run/netns/x").ifname("eth0").kubernetes("default", "web");
    match verb {
        "CHECK" => call.conf("prevResult", scripted::a_result()),
        _ => call,
    }
}

fn bytes(value: &[u8]) -> OsString {
    OsString::from_vec(value.to_vec())
}

// covers: E-01 E-02
#[test]
fn each_verb_reaches_the_agent_as_itself_and_other_words_are_no_verbs() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    let verbs = ["ADD", "DEL", "CHECK", "GC", "STATUS"];
    for verb in verbs {
        full(&host, verb).run().succeeded();
    }
    let version = full(&host, "VERSION").run().succeeded();
    assert!(version.contains("supportedVersions"), "{version}");
    let seen: Vec<String> = agent.seen().iter().map(|request| request["op"].as_str().unwrap().into()).collect();
    assert_eq!(seen, verbs);
    for word in ["add", "Add", "ADD ", " ADD", "FOO", "VERSION\n", "ÄDD"] {
        let error = full(&host, "ADD").env("CNI_COMMAND", word).error();
        assert_eq!(error.code, 4, "{word:?}");
        assert!(error.msg.contains(&format!("{word:?}")), "{word:?}: {}", error.msg);
    }
    assert_eq!(agent.seen().len(), verbs.len());
}

// covers: E-03
#[test]
fn a_person_who_starts_it_is_told_what_it_is() {
    let host = Host::new();
    for call in [host.cni("").no_env("CNI_COMMAND").no_env("CNI_PATH"), host.cni(""), host.cni("").stdin("{")] {
        let outcome = call.run_without_end(b"");
        assert!(outcome.output.status.success());
        assert_eq!(outcome.stdout(), "", "what a runtime would take for an answer");
        assert!(outcome.stderr().contains("1.1.0"), "{}", outcome.stderr());
    }
}

// covers: E-04 E-05 E-06 E-07 E-08
#[test]
fn each_verb_asks_for_exactly_the_variables_that_it_needs_and_empty_is_unset() {
    let host = Host::new();
    let _agent = Scripted::obliging(socket_of(&host));
    let variables = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];
    for (verb, needed) in [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"][..]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &[]),
        ("VERSION", &[]),
    ] {
        for variable in variables {
            for call in [full(&host, verb).no_env(variable), full(&host, verb).env(variable, "")] {
                let outcome = call.run();
                if needed.contains(&variable) {
                    let error = outcome.failed();
                    assert_eq!(error.code, 4, "{verb} without {variable}");
                    assert!(error.msg.contains(variable), "{}", error.msg);
                } else {
                    outcome.succeeded();
                }
            }
        }
        let none = variables.iter().fold(full(&host, verb), |call, variable| call.no_env(variable)).run();
        if needed.is_empty() {
            none.succeeded();
        } else {
            let error = none.failed();
            assert!(needed.iter().all(|variable| error.msg.contains(variable)), "all at once: {}", error.msg);
        }
    }
}

// covers: E-09 E-17
#[test]
fn a_variable_without_use_is_not_judged() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    for verb in ["GC", "STATUS", "VERSION"] {
        full(&host, verb)
            .env("CNI_IFNAME", "../\nx")
            .env("CNI_NETNS", "dummy")
            .env("CNI_CONTAINERID", bytes(b"\xff/.."))
            .run()
            .succeeded();
    }
    for request in agent.seen() {
        let text = request.to_string();
        assert!(!text.contains("..") && !text.contains("dummy"), "{text}");
    }
    let dummy = host.cni("VERSION").netns("dummy").ifname("dummy").env("CNI_PATH", "dummy").container("");
    assert!(dummy.run().succeeded().contains(r#""cniVersion":"1.1.0""#));
}

// covers: E-10 E-11 E-12 E-13 E-18
#[test]
fn a_container_id_is_judged_for_each_verb_that_takes_one_and_a_bad_one_goes_no_further() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    for good in ["a".to_owned(), "A9_.-".into(), "0".into(), "f".repeat(64), "f".repeat(128)] {
        full(&host, "DEL").container(&good).done();
    }
    let seen = agent.seen().len();
    let long = [129, 4096, 100 * 1024].map(|length| "f".repeat(length));
    let words = [".a", "-a", "_a", "a/b", "../x", "../../etc/x", "a b", "a\n", "\na", "é", "a\u{1b}[31m", "a;b"];
    for bad in words.iter().copied().chain(long.iter().map(String::as_str)) {
        for verb in ["ADD", "DEL", "CHECK"] {
            let outcome = full(&host, verb).container(bad).run();
            let error = outcome.failed();
            assert_eq!(error.code, 4, "{verb} {bad:.20}");
            assert!(error.text().len() < 600, "the value is cut: {}", error.text().len());
        }
    }
    assert_eq!(full(&host, "DEL").env("CNI_CONTAINERID", bytes(b"a\xff")).error().code, 4);
    assert_eq!(agent.seen().len(), seen, "nothing of it reached the agent");
    drop(agent);
    assert_eq!(full(&host, "DEL").container("../../etc/x").error().code, 4);
    assert!(!host.path("/run/flock/deletes").exists(), "not even a note was tried");
}

// covers: E-15 E-16
#[test]
fn an_interface_name_is_one_that_the_kernel_takes_literally() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    for good in ["e", "fifteen-bytes-x", "net1.5", "ö", "eth0_@"] {
        full(&host, "DEL").ifname(good).done();
    }
    let seen = agent.seen().len();
    for bad in [
        "sixteen-bytes-xx",
        "öööööööö",
        "a/b",
        "a:b",
        "a b",
        "a\tb",
        "a\u{a0}b",
        ".",
        "..",
        "lo",
        "all",
        "default",
        "eth%d",
        "a\u{7f}",
        "a\n",
    ] {
        for verb in ["ADD", "DEL", "CHECK"] {
            assert_eq!(full(&host, verb).ifname(bad).error().code, 4, "{verb} {bad:?}");
        }
    }
    assert_eq!(agent.seen().len(), seen);
}

// covers: E-14 E-16 E-19
#[test]
fn the_interface_has_the_name_that_was_asked_for_and_the_namespace_is_echoed() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let netns = "/run/netns/../netns/./a";
    let attached = host.add(&pod).ifname("net1").netns(netns).result();
    assert_eq!(attached.result["interfaces"][1]["name"], "net1");
    assert_eq!(attached.result["interfaces"][1]["sandbox"], netns);
    pod.run("ip link show dev net1");
    let settings = ["addr_gen_mode", "disable_ipv6", "forwarding", "accept_dad"];
    let all = || settings.map(|key| pod.run(&format!("cat /proc/sys/net/ipv6/conf/all/{key}")));
    let before = all();
    assert_eq!(host.add(&pod).ifname("all").error().code, 4);
    assert_eq!(all(), before);
    host.del(&pod).ifname("net1").done();
    host.assert_empty();
}

// covers: E-20
#[test]
fn what_is_no_network_namespace_is_refused_and_nothing_blocks() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    std::fs::write(host.path("/run/file"), "x").unwrap();
    host.run("mkfifo /run/fifo");
    symlink("/run/loop", host.path("/run/loop")).unwrap();
    for path in [
        "/run/file",
        "/run",
        "/run/fifo",
        "/run/loop",
        "/run/absent",
        "/dev/zero",
        "/proc/self/ns/mnt",
        "/proc/1/ns/uts",
    ] {
        let outcome = host.add(&pod).netns(path).run();
        let error = outcome.failed();
        assert_eq!(error.code, 4, "{path}: {}", error.text());
        assert!(error.text().contains("CNI_NETNS"), "{}", error.text());
        assert!(outcome.elapsed < Duration::from_secs(5), "{path} took {:?}", outcome.elapsed);
        host.del(&pod).netns(path).done();
    }
    for path in ["relative", "./a", "netns/a"] {
        assert_eq!(host.add(&pod).netns(path).error().code, 4);
    }
    host.assert_empty();
}

// covers: E-21 X-06
#[test]
fn the_hosts_own_namespace_is_never_a_pod() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    // So that the node is prepared, which the first ADD does.
    host.add(&pod).result();
    host.del(&pod).done();
    let before = host.run("ip -j link");
    for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
        assert_eq!(host.add(&pod).netns(path).error().code, 8, "{path}");
        host.del(&pod).netns(path).done();
    }
    assert_eq!(host.run("ip -j link"), before);
    host.assert_empty();
}

// covers: E-22 E-23 E-24 E-25 E-26
#[test]
fn kubelets_arguments_are_understood_in_any_order_and_company() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let pod_of = |arguments: &str| {
        host.add(&pod).env("CNI_ARGS", arguments).result();
        let name = host.leases()[0].pod.clone().map(|pod| format!("{}/{}", pod.namespace, pod.name));
        host.del(&pod).done();
        name
    };
    let named = Some("shop/web-0".to_owned());
    for arguments in [
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=a;K8S_POD_UID=u-1",
        // The UID of a static pod is a hash of its manifest, which no API object bears.
        "K8S_POD_UID=99a0c2d1e4b7f6;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=a;IgnoreUnknown=1;K8S_POD_NAMESPACE=shop",
        "IP=10.0.0.1;MAC=02:00:00:00:00:09;NEW=x;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop",
        ";;A;=;A==B;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop;",
    ] {
        assert_eq!(pod_of(arguments), named, "{arguments}");
    }
    // The last is what podman says of a container.
    for arguments in ["", "IgnoreUnknown=1", "FOO=bar", ";", "IgnoreUnknown=1;K8S_POD_NAME=My_container"] {
        assert_eq!(pod_of(arguments), None, "{arguments}");
    }
    let half = host.add(&pod).env("CNI_ARGS", "K8S_POD_NAMESPACE=shop").error();
    assert_eq!(half.code, 4);
    assert!(half.text().contains("K8S_POD_NAME"), "{}", half.text());
    host.assert_empty();
}

// covers: E-27 X-13
#[test]
fn the_rest_of_the_environment_changes_nothing() {
    let host = Host::new();
    let _agent = Scripted::answering(socket_of(&host), |_, request| {
        Some(match request["op"].as_str() {
            Some("CHECK") => scripted::line(&json!({"error": "damaged", "code": 999, "details": "x"})),
            _ => scripted::success(request),
        })
    });
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "FOO"] {
        let plain = full(&host, verb);
        let noisy = [
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "full"),
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("LANG", "tr_TR.UTF-8"),
            ("LC_ALL", "tr_TR.UTF-8"),
            ("LD_BIND_NOW", "1"),
            ("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("BAGGAGE", "a=b"),
            ("CNI_FUTURE", "x"),
            ("HOME", "/nonexistent"),
        ];
        let noisy = noisy.iter().fold(plain.clone(), |call, (name, value)| call.env(name, *value));
        let (plain, noisy) = (plain.run(), noisy.run());
        assert_eq!(plain.output.status.code(), noisy.output.status.code());
        assert_eq!((plain.stdout(), plain.stderr()), (noisy.stdout(), noisy.stderr()), "{verb}");
    }
}

// covers: E-28
#[test]
fn values_that_are_no_utf_8_are_refused_where_they_are_used() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    for variable in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
        let error = full(&host, "ADD").env(variable, bytes(b"/a\xff\xfe")).error();
        assert_eq!(error.code, 4, "{variable}");
        assert!(error.text().contains(variable), "{}", error.text());
    }
    assert_eq!(full(&host, "ADD").env("CNI_COMMAND", bytes(b"ADD\xff")).error().code, 4);
    assert_eq!(agent.seen().len(), 0);
    // DEL can do without these two.
    full(&host, "DEL").env("CNI_NETNS", bytes(b"/a\xff")).env("CNI_ARGS", bytes(b"\xff")).done();
    assert_eq!((&agent.seen()[0]["netns"], &agent.seen()[0]["args"]), (&json!(""), &json!("")));
}
