//! Rows C: flock in a list of plugins.

use serde_json::{Value, json};

use crate::support::host::Host;
use crate::support::scripted::{Scripted, a_result, socket_of};

// covers: A-06 C-03
#[test]
fn behind_another_plugin_flock_refuses_rather_than_drop_its_result() {
    let host = Host::new();
    let agent = Scripted::obliging(socket_of(&host));
    let call = host.cni("ADD").container("a").netns("/run/netns/a").ifname("eth0");
    assert_eq!(call.clone().conf("prevResult", a_result()).error().code, 7);
    assert_eq!(call.clone().conf("prevResult", json!({})).error().code, 7);
    assert_eq!(agent.seen().len(), 0);
    call.conf("prevResult", Value::Null).run().succeeded();
}

// covers: C-05
#[test]
fn a_chain_that_fails_behind_flock_ends_with_del_alone() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let result = host.add(&pod).result().result;
    // What a later plugin made before it failed.
    pod.run("ip addr add 192.0.2.7/32 dev eth0");
    host.del(&pod).conf("prevResult", result).done();
    host.assert_empty();
}

// covers: C-07
#[test]
fn flock_delegates_to_nobody() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    for path in ["", "/nonexistent", "relative:::"] {
        let ipam = json!({"type": "host-local", "subnet": "10.0.0.0/24"});
        host.add(&pod).env("CNI_PATH", path).conf("ipam", ipam.clone()).result();
        host.del(&pod).env("CNI_PATH", path).conf("ipam", ipam).done();
    }
    host.assert_empty();
}

// covers: C-08 C-09 C-10
#[test]
fn the_list_that_the_agent_writes_holds_what_each_runtime_needs() {
    let host = Host::new();
    host.run("mkdir -p /run/net.d");
    let agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    agent.wait_log("CNI configuration written");
    let text = std::fs::read_to_string(host.path("/run/net.d/01-flock.conflist")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["loadOnlyInlinedPlugins"], json!(true));
    for flag in ["disableCheck", "disableGC"] {
        assert!(list.get(flag).is_none_or(Value::is_boolean));
    }
    assert_eq!(list["name"], "flock");
    let supported: Value = serde_json::from_str(&host.cni("VERSION").run().succeeded()).unwrap();
    assert_eq!(list["cniVersions"], supported["supportedVersions"]);
    assert!(list["cniVersions"].as_array().unwrap().contains(&list["cniVersion"]));
    // As libcni derives a request from it, for each version.
    for version in supported["supportedVersions"].as_array().unwrap() {
        let mut conf = list["plugins"][0].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = version.clone();
        let pod = host.pod("a");
        host.add(&pod).stdin(conf.to_string()).result();
        host.del(&pod).stdin(conf.to_string()).done();
        pod.vanish();
    }
    host.assert_empty();
}
