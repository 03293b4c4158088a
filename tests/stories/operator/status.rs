//! `flock-agent status` says what is so: of a node that serves, of one that does not, and of one without an agent, or with another
//! one than what is installed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::host::{Host, one_user_only};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::scripted::{Scripted, line, socket_of};
use crate::support::waiting::{wait_for, wait_or};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// The report of a running agent.
#[track_caller]
fn report(host: &Host) -> Value {
    let told = host.types("status -o json");
    assert!(told.err.is_empty(), "{told:?}");
    told.json()
}

/// The range of a family in a report.
fn family<'a>(report: &'a Value, family: &str) -> &'a Value {
    let families = report["families"].as_array().expect("a list");
    families.iter().find(|one| one["family"] == family).unwrap_or_else(|| panic!("no {family}: {report:#}"))
}

#[test]
fn a_node_that_serves_is_ready_and_counts_what_it_has() {
    let host = Host::new();
    host.run("mkdir -p /etc/cni/net.d");
    host.run("mount -t tmpfs tmpfs /etc/cni/net.d");
    let agent = host.agent().args(&["--cni-conf-dir", "/etc/cni/net.d"]).start();
    wait_or(|| host.types("status").out, || (host.types("status -q").code == 0).then_some(()));
    let (pod, _) = host.attach("a");
    let told = host.types("status");
    assert_eq!((told.code, told.err.as_str()), (0, ""), "{told:?}");
    assert!(told.line("node").starts_with(&format!("host001, agent {OWN}, up ")), "{told:?}");
    assert_eq!(told.line("ready"), "yes");
    assert!(told.line("nodeconfig").starts_with("from /run/node.yaml, in force for "), "{told:?}");
    assert!(told.line("rounds").contains("nothing had to be repaired"), "{told:?}");
    assert!(told.line("policies").contains("links checked for what they send"), "{told:?}");
    wait_or(
        || host.types("status").out,
        || {
            host.types("status")
                .line("host")
                .contains("cni configuration /etc/cni/net.d/01-flock.conflist")
                .then_some(())
        },
    );
    let report = report(&host);
    assert_eq!(
        (&report["ready"], &report["attachments"], &report["socket"]),
        (&json!(true), &json!(1), &json!("agent"))
    );
    let v4 = family(&report, "ipv4");
    assert_eq!(
        (&v4["range"], &v4["allocated"], &v4["resting"], &v4["free"]),
        (&json!(CIDR4), &json!(1), &json!(0), &json!(252))
    );
    assert_eq!(family(&report, "ipv6")["allocated"], 1);
    host.del(&pod).done();
    let v4 = family(&self::report(&host), "ipv4").clone();
    assert_eq!((&v4["allocated"], &v4["resting"]), (&json!(0), &json!(1)), "just released");
    assert_eq!(host.types("status -q --strict").code, 0, "nothing is to be seen to");
    agent.stop();
}

#[test]
fn a_node_without_a_node_config_is_not_ready_and_is_not_said_to_have_a_valid_one() {
    let host = Host::new();
    let agent = host.agent().config(None).start();
    let told = host.types("status");
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.line("ready").starts_with("no: "), "{told:?}");
    assert_eq!(told.line("nodeconfig"), "none in force; from /run/node.yaml");
    let report = report(&host);
    let valid = report["conditions"].as_array().expect("a list").iter().find(|condition| condition["type"] == "Valid");
    assert!(valid.is_none_or(|valid| valid["status"] != "True"), "{report:#}");
    assert_eq!((&report["nodeConfig"], &report["families"]), (&Value::Null, &json!([])));
    // Whoever waits is told as soon as there is one.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| host.types("status -q --wait 60"));
        agent.edit_config(&node_config(CIDR6, CIDR4));
        let waited = waiting.join().expect("no panic");
        assert_eq!((waited.code, waited.out.as_str()), (0, ""), "{waited:?}");
    });
    // A bad edit leaves the last good one in force, and is a warning.
    agent.edit_config(&node_config(CIDR6, "10.0.0.0/31"));
    let bad = wait_for("the bad edit", || {
        let told = host.types("status --strict");
        (told.code == 1).then_some(told)
    });
    assert!(bad.line("ready").starts_with("yes: the last valid configuration is in force"), "{bad:?}");
    assert!(bad.line("WARNING").contains("spec.cidr4: \"10.0.0.0/31\" is too small"), "{bad:?}");
    assert_eq!(host.types("status").code, 0);
}

#[test]
fn without_an_agent_it_is_said_so_and_what_is_recorded() {
    let host = Host::new();
    let told = host.types("status");
    assert_eq!((told.code, told.line("agent")), (3, "does not run"), "{told:?}");
    assert!(told.err.contains("flock-agent does not listen on /run/flock/flock.sock"), "{told:?}");
    let agent = host.agent().start();
    let (pod, _) = host.attach("a");
    host.attach("b");
    agent.kill();
    host.del(&pod).done();
    let told = host.types("status");
    assert_eq!(told.code, 3, "{told:?}");
    assert!(
        told.line("record").starts_with("2 attachments with 2 ipv6 and 2 ipv4 addresses, 1 of them to be deleted"),
        "{told:?}"
    );
    let json = host.types("status -o json");
    assert_eq!(
        (json.code, &json.json()["agent"], &json.json()["record"]["attachments"]),
        (3, &json!("down"), &json!(2))
    );
    let quiet = host.types("status -q");
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (3, "", ""));
    // An agent that is stopped answers nothing, and the wait has an end.
    let agent = host.agent().start();
    agent.signal("STOP");
    let told = host.types("status --wait 1");
    assert!(told.code == 3 && told.err.contains("did not answer in time"), "{told:?}");
    assert!(told.line("agent").starts_with(&format!("runs as process {}", agent.pid())), "{told:?}");
    assert_eq!(host.types("status -o json --wait 1").json()["agent"], "unanswering");
    agent.signal("CONT");
    assert_eq!(host.types("status -q --wait 60").code, 0);
}

#[test]
fn who_is_not_root_is_told_so_and_nothing_more() {
    if one_user_only() {
        return;
    }
    let host = Host::new();
    let _agent = host.agent().start();
    let told = host.types_as_nobody("status --wait 30");
    assert_eq!((told.code, told.out.as_str()), (4, ""), "{told:?}");
    assert!(told.err.contains("answers root only: sudo flock-agent"), "{told:?}");
    // Somebody opens the way to the socket: the agent asks the kernel who calls.
    host.run("chmod 0755 /run/flock");
    host.run("chmod 0666 /run/flock/flock.sock");
    let told = host.types_as_nobody("status");
    assert!(told.code == 4 && told.out.is_empty() && told.err.contains("root only"), "{told:?}");
}

#[test]
fn an_agent_of_another_version_is_named_and_what_it_says_beyond_is_passed_over() {
    let host = Host::new();
    let older = "no request of flock: unknown variant `NODE`, expected one of `ADD`, `DEL`, `CHECK`, `GC`, `STATUS`";
    let refused = json!({"error": "request refused", "code": 6, "details": older});
    let mut named = refused.clone();
    named["version"] = json!("0.0.9");
    let newer = json!({"result": {
        "node": "host001", "version": "9.9.9", "ready": true, "why": "pods get addresses", "mood": {"fine": 1},
        "families": [{"family": "ipv4", "range": CIDR4, "allocated": 1, "resting": 0, "free": 9, "hue": "blue"}],
    }});
    for (answer, code, said) in [
        (refused, 3, vec![format!("older than this program, which is version {OWN}"), "`NODE`".into()]),
        (named, 3, vec![format!("is version 0.0.9 and does not understand this question of version {OWN}")]),
        (
            newer,
            0,
            vec![
                "host001, agent 9.9.9".into(),
                format!("the agent that runs is version 9.9.9, and this program is version {OWN}"),
            ],
        ),
        (json!({"result": {"node": 7}}), 3, vec![format!("version {OWN} and cannot read its answer")]),
    ] {
        let _agent = Scripted::answering(socket_of(&host), move |_, _| Some(line(&answer)));
        let told = host.types("status");
        assert_eq!(told.code, code, "{told:?}");
        for words in said {
            assert!((told.out.clone() + &told.err).contains(&words), "{words}: {told:?}");
        }
    }
}

/// Nobody is asked more often than five times a second, also while nobody listens.
#[test]
fn whoever_waits_asks_now_and_then_and_not_all_the_time() {
    let host = Host::new();
    let not_ready = json!({"result": {"node": "host001", "version": OWN, "ready": false}});
    let agent = Scripted::answering(socket_of(&host), move |_, _| Some(line(&not_ready)));
    let told = host.types("status -q --wait 2");
    let (seconds, asked) = (told.elapsed.as_secs_f64(), agent.seen().len());
    assert_eq!(told.code, 1);
    assert!(
        (1.5..20.0).contains(&seconds) && (2.0..=seconds * 5.0).contains(&(asked as f64)),
        "{asked} in {seconds} s"
    );
}

#[test]
fn a_full_range_is_warned_of_and_the_add_that_failed_is_listed_once_with_how_often() {
    let host = Host::new();
    // One pod, as network, gateway and broadcast address are none.
    let _agent = host.agent().config(Some(&node_config("", "10.25.214.0/30"))).start();
    let (pod, attached) = host.attach("a");
    let full = host.types("status");
    assert_eq!((full.code, host.types("status -q --strict").code), (0, 1));
    assert!(full.line("ready").contains("no IPv4 address is free"), "{full:?}");
    assert!(full.line("WARNING").contains("AddressesFree: no IPv4 address is free, 1 are in use"), "{full:?}");
    let refused = host.pod("b");
    for container in ["b1", "b2", "b3"] {
        let add = host.add(&refused).container(container).error();
        assert_eq!((add.code, add.msg.as_str()), (11, "no free address"));
    }
    let report = report(&host);
    let [failure] = &report["failures"].as_array().expect("a list")[..] else { panic!("{report:#}") };
    assert_eq!(
        (&failure["op"], &failure["pod"], &failure["times"], &failure["code"], &failure["containerId"]),
        (&json!("ADD"), &json!("b"), &json!(3), &json!(11), &json!("b3"))
    );
    let told = host.types("status");
    assert!(told.out.contains("LAST FAILURES\nAGE"), "{told:?}");
    let row = told.out.lines().last().expect("a row");
    assert!(
        row.contains("3       ADD   default/b   eth0   no free address; no address is free in 10.25.214.0/30"),
        "{told:?}"
    );
    host.del(&pod).done();
    drop(attached);
    host.add(&refused).container("b4").result();
    assert_eq!(self::report(&host)["failures"].as_array().map(Vec::len), Some(1), "what has failed stays on the list");
}

#[test]
fn what_was_put_right_is_counted_and_named() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (_, attached) = host.attach("a");
    host.run(&format!("ip route del {} dev {} proto 102", attached.ipv4().expect("IPv4"), attached.host_link()));
    let told = wait_or(
        || host.types("status").out,
        || {
            let told = host.types("status");
            told.line("rounds").contains("1 repairs, the last ").then_some(told)
        },
    );
    assert!(told.line("rounds").ends_with(" ago: host end of a link repaired, eth0 of default/a"), "{told:?}");
}

/// A connection that is taken and left alone is no answer, and whoever asks gives up in time.
#[test]
fn a_socket_that_hangs_up_is_no_answer() {
    let host = Host::new();
    let listener = UnixListener::bind(socket_of(&host)).expect("bound");
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().expect("somebody");
            let mut piece = [0; 4096];
            assert!(stream.read(&mut piece).expect("a question") > 0);
            stream.write_all(b"{\"result\"").expect("taken");
        });
        let began = Instant::now();
        let told = host.types("status");
        assert!(told.code == 3 && told.err.contains("went away during the call"), "{told:?}");
        assert!(began.elapsed() < Duration::from_secs(30));
    });
}
