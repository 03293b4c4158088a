//! Rows T and V: STATUS and VERSION.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cni::verb::Verb;
use flock::rpc::connect_limit;
use serde_json::{Value, json};

use crate::support::host::{Host, one_user_only};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, put_copy, succeed};
use crate::support::scripted::{Scripted, socket_of};

// covers: T-01
#[test]
fn status_exists_since_1_1_0() {
    let host = Host::new();
    let _agent = Scripted::obliging(socket_of(&host));
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        assert_eq!(host.cni("STATUS").version(version).error().code, 1);
    }
    host.cni("STATUS").done();
}

// covers: T-02 T-03 T-11
#[test]
fn status_is_silent_when_add_can_be_served_and_code_50_when_not() {
    let host = Host::new();
    let status = host.cni("STATUS").no_env("CNI_PATH").stdin(r#"{"cniVersion":"1.1.0","name":"flock"}"#);
    assert_eq!(status.error().code, 50, "nobody there");
    let agent = host.agent().config(None).start();
    assert_eq!(status.error().code, 50, "no NodeConfig");
    agent.edit_config("spec: nonsense");
    agent.wait_log("NodeConfig is not valid");
    assert_eq!(status.error().code, 50, "a bad NodeConfig");
    agent.edit_config(&node_config(CIDR6, CIDR4));
    agent.wait_log("NodeConfig in force");
    status.done();
    agent.edit_config("spec: nonsense");
    agent.wait_log_times("NodeConfig is not valid", 2);
    status.done();
    agent.stop();
    assert_eq!(status.error().code, 50);
}

// covers: T-05
#[test]
fn status_stays_well_over_a_restart_of_the_agent() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut refused) = (0, Vec::new());
            while !over.load(Ordering::SeqCst) {
                let outcome = host.cni("STATUS").run();
                if !outcome.output.status.success() {
                    refused.push(outcome.stdout());
                }
                asked += 1;
            }
            (asked, refused)
        });
        let mut longest = Duration::ZERO;
        for round in 0..6 {
            let began = Instant::now();
            if round % 2 == 0 {
                agent.signal("TERM");
                agent.wait();
            } else {
                agent.signal("KILL");
                agent.wait();
            }
            agent = host.agent().start();
            longest = longest.max(began.elapsed());
        }
        over.store(true, Ordering::SeqCst);
        let (asked, refused) = asking.join().unwrap();
        // On a slow machine there may be nobody for longer than STATUS waits.
        assert!(
            asked > 0 && (refused.is_empty() || longest > connect_limit(Verb::Status) / 2),
            "{longest:?} {refused:?}"
        );
    });
}

// covers: T-06
#[test]
fn status_ends_within_two_seconds_though_the_agent_hangs() {
    let host = Host::new();
    let _agent = Scripted::silent(socket_of(&host));
    let outcome = host.cni("STATUS").run();
    assert_eq!(outcome.failed().code, 50);
    assert!(outcome.elapsed < Duration::from_secs(5), "{:?}", outcome.elapsed);
}

// covers: T-09
#[test]
fn status_is_answered_while_many_pods_are_added() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pods: Vec<Pod> = (0..40).map(|i| host.pod(&format!("p{i}"))).collect();
    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| host.add(pod).result());
        }
        for _ in 0..10 {
            host.cni("STATUS").done();
        }
    });
}

// covers: V-01 V-02
#[test]
fn version_lists_what_is_supported_and_echoes_what_it_was_asked_in() {
    let host = Host::new();
    let supported = json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (asked, said) in [
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":"0.4.0","name":"x"}"#, "0.4.0"),
        ("", "1.1.0"),
        ("{", "1.1.0"),
        (r#"{"cniVersion":"<b>"}"#, "1.1.0"),
    ] {
        let answer: Value = serde_json::from_str(&host.cni("VERSION").stdin(asked).run().succeeded()).unwrap();
        assert_eq!(answer, json!({"cniVersion": said, "supportedVersions": supported}), "{asked}");
    }
}

// covers: V-04
#[test]
fn version_needs_no_agent_no_rights_and_nothing_to_write_to() {
    let host = Host::new();
    let plugin = host.path("/run/flock-plugin");
    put_copy(FLOCK, &plugin);
    host.run("mount -o remount,ro /run");
    let mut command = host.command("setpriv");
    if !one_user_only() {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    let printed = succeed(command.args(["env", "-i", "CNI_COMMAND=VERSION", "/run/flock-plugin"]));
    assert!(printed.contains("supportedVersions"), "{printed}");
}
