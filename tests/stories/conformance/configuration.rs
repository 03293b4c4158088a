//! Rows S: the configuration on standard input.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::host::Host;
use crate::support::manifests::node_config;
use crate::support::plugin::Cni;
use crate::support::programs::FLOCK;
use crate::support::scripted::{Scripted, socket_of};

fn del(host: &Host) -> Cni<'_> {
    host.cni("DEL").container("abc").ifname("eth0")
}

// covers: S-01 S-04 S-07 S-08 S-09 S-14 S-15
#[test]
fn keys_that_flock_does_not_know_are_no_fault() {
    let host = Host::new();
    let _agent = Scripted::obliging(socket_of(&host));
    for verb in ["ADD", "DEL", "GC", "STATUS"] {
        let call = || host.cni(verb).container("abc").netns("/run/netns/x").ifname("eth0");
        call().stdin(r#"{"cniVersion":"1.1.0","name":"flock","type":"flock"}"#).run().succeeded();
        call().stdin(r#"{"cniVersion":"1.1.0","name":"flock"}"#).run().succeeded();
        call()
            .conf("type", json!("something-else"))
            .conf("ipam", json!({"type": "host-local", "ranges": [[]]}))
            .conf("args", json!({"cni": {"ips": ["10.0.0.9"]}}))
            .conf("capabilities", json!({"portMappings": true}))
            .conf("runtimeConfig", json!({"portMappings": [], "later": {"a": 1}}))
            .conf("cni.dev/foo", json!({"socket": "/nowhere"}))
            .conf("disableCheck", json!("yes"))
            .conf("plugins", json!(7))
            .conf("CNIVersion", json!("9.9.9"))
            .run()
            .succeeded();
        call().stdin(r#"{"name":"x","cniVersion":"9.0.0","cniVersion":"1.1.0","name":"flock"}"#).run().succeeded();
    }
}

// covers: S-02
#[test]
fn input_that_is_not_one_object_is_code_6_and_a_closed_one_is_no_hang() {
    let host = Host::new();
    let good = r#"{"cniVersion":"1.1.0","name":"flock"}"#;
    let two = format!("{good}{good}");
    let bom = format!("\u{feff}{good}");
    let texts = ["", " \n", "null", "[]", "\"x\"", "7", "{", "{\"a\":}", &two, &bom, &good[1..]];
    let mut all: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
    all.extend([b"{\"name\":\"\xff\"}".as_slice(), b"\xff\xfe", b"\0"]);
    for verb in ["ADD", "DEL", "GC", "STATUS"] {
        for input in &all {
            let call = host.cni(verb).container("abc").netns("/run/netns/x").ifname("eth0");
            assert_eq!(call.stdin(*input).error().code, 6, "{verb} {}", String::from_utf8_lossy(input));
        }
    }
    let mut closed = host.command("sh");
    closed.args(["-c", &format!("CNI_COMMAND=STATUS exec {FLOCK} <&-")]);
    let output = closed.stdin(Stdio::null()).output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!([5, 6].contains(&error["code"].as_u64().unwrap()), "{error}");
    assert_eq!(output.status.code(), Some(1));
}

// covers: S-03 S-06 S-05 X-05
#[test]
fn name_and_version_are_judged_for_every_verb_but_version() {
    let host = Host::new();
    for verb in ["ADD", "DEL", "GC", "STATUS"] {
        let call = || host.cni(verb).container("abc").netns("/run/netns/x").ifname("eth0");
        assert_eq!(call().no_conf("name").error().code, 7, "{verb}");
        for name in ["", "a/b", "..", "-a", "a b", &"n".repeat(129)] {
            assert_eq!(call().conf("name", json!(name)).error().code, 7, "{verb} {name:?}");
        }
        assert_eq!(call().conf("name", json!(7)).error().code, 6);
        let missing = call().no_conf("cniVersion").error();
        assert_eq!(missing.code, 1);
        assert!(missing.details.contains("0.3.0") && missing.details.contains("1.1.0"), "{}", missing.details);
        for version in ["", "1.1", "v1.1.0", "1.1.0-rc1", "2.0.0", "0.1.0", "0.2.0", "1.1.0 ", "x"] {
            assert_eq!(call().version(version).error().code, 1, "{verb} {version:?}");
        }
        assert_eq!(call().conf("cniVersion", json!(1.1)).error().code, 6);
    }
    let version = host.cni("VERSION").stdin(r#"{"cniVersion":"9.9.9"}"#).run().succeeded();
    assert!(version.contains("1.1.0"));
}

// covers: S-10 S-11
#[test]
fn annotations_arrive_with_the_call_and_without_the_capability_there_are_none() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let single = host.add(&pod).annotations(&[("ipv4", "false")]).result();
    assert!(single.ipv4().is_none() && single.ipv6().is_some());
    host.del(&pod).done();
    assert_eq!(host.add(&pod).result().ips().len(), 2);
    host.del(&pod).done();
    let large: serde_json::Map<String, Value> =
        (0..256).map(|i| (format!("example.com/{i}"), json!("x".repeat(1024)))).collect();
    let call = host.add(&pod).conf("runtimeConfig", json!({"io.kubernetes.cri.pod-annotations": large}));
    call.conf("padding", json!("y".repeat(64 * 1024))).result();
    host.del(&pod).done();
    host.assert_empty();
}

// covers: S-11
#[test]
fn an_endless_configuration_is_cut_off() {
    let host = Host::new();
    let mut endless = br#"{"cniVersion":"1.1.0","name":"flock","x":""#.to_vec();
    endless.resize(8 << 20, b'x');
    for verb in ["ADD", "DEL", "STATUS"] {
        let call = host.cni(verb).container("abc").netns("/run/netns/x").ifname("eth0").stdin(endless.clone());
        let error = call.error();
        assert!([6, 7].contains(&error.code), "{}", error.text());
    }
}

// covers: S-12 S-13
#[test]
fn a_prev_result_of_any_version_or_none_serves_check() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let printed = host.add(&pod).version("0.4.0").result().result;
    for asked in ["0.4.0", "1.0.0", "1.1.0"] {
        for claimed in [json!("0.3.0"), json!("1.0.0"), json!("1.1.0"), json!("7.7.7"), Value::Null] {
            let mut prev = printed.clone();
            match claimed {
                Value::Null => drop(prev.as_object_mut().unwrap().remove("cniVersion")),
                claimed => prev["cniVersion"] = claimed,
            }
            let check = host.cni("CHECK").container("a").netns(&pod.path()).ifname("eth0").version(asked);
            check.conf("prevResult", prev).done();
        }
    }
    host.del(&pod).conf("prevResult", printed).done();
    host.assert_empty();
}

// covers: S-16
#[test]
fn del_takes_down_what_add_made_whatever_the_configuration_says_now() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("a");
    host.add(&pod).conf("mtu", json!(1400)).result();
    agent.edit_config(&node_config("2001:db8:2::/64", "10.99.0.0/24"));
    agent.wait_log_times("NodeConfig in force", 2);
    let other = host.del(&pod).version("0.3.0").conf("name", json!("other")).conf("type", json!("x"));
    other.conf("mtu", json!("new")).conf("runtimeConfig", json!(7)).conf("extra", json!([1])).done();
    host.assert_empty();
}

// covers: S-17
#[test]
fn version_does_not_wait_for_an_input_that_never_ends() {
    let host = Host::new();
    for input in [&b""[..], b"{\"cniVersion\":\"1.0.0\"}", b"{\"cniVersion\":"] {
        let outcome = host.cni("VERSION").run_without_end(input);
        assert!(outcome.elapsed < Duration::from_secs(5), "{:?}", outcome.elapsed);
        assert!(outcome.succeeded().contains("supportedVersions"));
    }
}

// covers: S-18
#[test]
fn the_configuration_reaches_the_agent_byte_by_byte_in_one_frame() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    let input = "{\n  \"cniVersion\": \"1.1.0\",\r\n\t\"name\": \"flock\",\n\"x\": \"\u{2028}\\u0000\\n\"\n}\n";
    del(&host).stdin(input).done();
    let sent = agent.seen()[0]["stdin_data"].as_str().unwrap().to_owned();
    let sent = base64::engine::general_purpose::STANDARD.decode(sent).unwrap();
    assert_eq!(String::from_utf8(sent).unwrap(), input);
}
