//! Stories of the runtime's CNI configuration while the agent runs: whoever removes or damages it, whatever becomes of portmap,
//! and whoever has edited it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::host::Host;
use crate::support::programs::{FLOCK, put_copy, put_script};
use crate::support::waiting::wait_for;

const FILE: &str = "/run/net.d/01-flock.conflist";
/// Where the runtime of these stories has its plugins, which no agent could guess.
const PLUGINS: &str = "/run/k8s/cni";

/// A node whose agent writes the runtime's configuration.
fn node() -> Host {
    let host = Host::new();
    host.run(&format!("mkdir -p /run/net.d {PLUGINS}"));
    put_copy(FLOCK, host.path(&format!("{PLUGINS}/flock")));
    host
}

fn agent(host: &Host) -> Agent<'_> {
    host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start()
}

fn portmap(host: &Host, version: &str) {
    let script = format!("echo '{{\"supportedVersions\":[\"0.4.0\",\"{version}\"]}}'");
    put_script(host.path(&format!("{PLUGINS}/portmap")), &script);
}

fn text(host: &Host) -> String {
    fs::read_to_string(host.path(FILE)).unwrap_or_default()
}

/// The plugins of the list, once they are these.
fn wait_plugins(host: &Host, expected: &[&str]) -> Value {
    wait_for(&format!("{expected:?} in {}", text(host)), || {
        let list: Value = serde_json::from_str(&text(host)).ok()?;
        let plugins: Vec<&str> =
            list["plugins"].as_array()?.iter().filter_map(|plugin| plugin["type"].as_str()).collect();
        (plugins == expected).then(|| list.clone())
    })
}

// covers: FM-L06
#[test]
fn a_configuration_that_somebody_removed_or_damaged_comes_back_while_the_agent_runs() {
    let host = node();
    let agent = agent(&host);
    let before = text(&host);
    let written = |times| drop(agent.wait_log_times("CNI configuration written", times));
    written(1);
    // Another installer tidies up, something is cut off in the middle, a disk was full.
    fs::remove_file(host.path(FILE)).unwrap();
    written(2);
    for (times, damage) in [(3, &before[..40]), (4, "")] {
        fs::write(host.path(FILE), damage).unwrap();
        agent.signal("HUP");
        written(times);
        assert_eq!(text(&host), before);
    }
    // What is right is not touched.
    let ino = || fs::metadata(host.path(FILE)).unwrap().ino();
    let now = ino();
    for times in 1..=2 {
        agent.signal("HUP");
        agent.wait_log_times("looking again", 2 + times);
    }
    host.add(&host.pod("a")).result();
    assert_eq!(ino(), now);
    assert!(!agent.stop().contains("by hand"));
    assert_eq!(text(&host), before, "it outlives the agent");
}

#[test]
fn what_an_operator_has_made_of_the_configuration_stays_and_is_said_once() {
    let host = node();
    let first = agent(&host);
    let edited = text(&host).replacen("\"flock\"", "\"mine\"", 1);
    let list = r#"{"cniVersion":"1.0.0","name":"mine","plugins":[{"type":"bridge"}]}"#;
    first.stop();
    for (number, theirs) in [edited.as_str(), list].into_iter().enumerate() {
        fs::write(host.path(FILE), theirs).unwrap();
        let agent = agent(&host);
        let line = agent.wait_log("is left alone");
        assert!(line.contains("warn") && line.contains("remove it") && line.contains(FILE), "{line}");
        agent.signal("HUP");
        agent.wait_log("looking again");
        let pod = host.pod(&format!("p{number}"));
        host.add(&pod).result();
        assert_eq!(text(&host), theirs);
        let log = agent.stop();
        assert_eq!(log.matches("is left alone").count(), 1, "{log}");
    }
    // A link of theirs, also one that leads nowhere yet.
    fs::remove_file(host.path(FILE)).unwrap();
    host.run(&format!("ln -s /run/theirs {FILE}"));
    let agent = agent(&host);
    agent.wait_log("is left alone");
    // Taken away, it is the agent's again.
    fs::remove_file(host.path(FILE)).unwrap();
    agent.wait_log("CNI configuration written");
    assert_eq!(wait_plugins(&host, &["flock"])["name"], "flock");
}

// covers: FM-L06 FM-R03
#[test]
fn host_ports_come_and_go_with_the_portmap_that_the_runtime_finds() {
    let host = node();
    let agent = agent(&host);
    assert!(agent.wait_log("CNI configuration written").contains("until a call tells"), "{}", agent.log());
    host.cni("STATUS").env("CNI_PATH", format!("/nonexistent:{PLUGINS}")).done();
    agent.signal("HUP");
    let line = agent.wait_log("there is no portmap in");
    assert!(line.contains(PLUGINS) && line.contains("install it there"), "{line}");
    portmap(&host, "1.0.0");
    agent.signal("HUP");
    let list = wait_plugins(&host, &["flock", "portmap"]);
    assert_eq!(list["cniVersions"], serde_json::json!(["0.4.0", "1.0.0"]));
    // An upgrade of it.
    portmap(&host, "1.1.0");
    agent.signal("HUP");
    wait_for("the newer version", || text(&host).contains("1.1.0").then_some(()));
    // A restart does not know yet where the runtime looks, and takes no host ports away meanwhile.
    agent.stop();
    let agent = self::agent(&host);
    assert!(agent.wait_log("CNI configuration stands").contains("as before"), "{}", agent.log());
    wait_plugins(&host, &["flock", "portmap"]);
    host.cni("STATUS").env("CNI_PATH", PLUGINS).done();
    agent.signal("HUP");
    agent.wait_log("by /run/k8s/cni/portmap");
    host.run(&format!("rm {PLUGINS}/portmap"));
    agent.signal("HUP");
    wait_plugins(&host, &["flock"]);
}
