//! Rows X: exit code, standard output, standard error.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::support::host::Host;
use crate::support::outcome::CniError;
use crate::support::plugin::Cni;
use crate::support::scripted::{Scripted, a_result, line, socket_of, success};

fn add(host: &Host) -> Cni<'_> {
    host.cni("ADD").container("abc").netns("/run/netns/x").ifname("eth0")
}

// covers: X-01 X-02 X-03 X-04 X-05 X-10 FM-E09
#[test]
fn every_failure_is_one_object_on_standard_output_and_exit_code_1() {
    let host = Host::new();
    let codes = [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 999];
    for code in codes {
        let _agent = Scripted::answering(socket_of(&host), move |_, _| {
            Some(line(&json!({"error": "cause", "code": code, "details": "more"})))
        });
        let outcome = add(&host).version("0.4.0").run();
        let error = outcome.failed();
        assert_eq!(error, CniError { version: "0.4.0".into(), code, msg: "cause".into(), details: "more".into() });
        assert_eq!(outcome.stderr(), "");
        assert_eq!(outcome.stdout().lines().count(), 1);
        let object: Value = serde_json::from_str(&outcome.stdout()).unwrap();
        assert_eq!(object.as_object().unwrap().len(), 4);
    }
    // Failures of the plugin's own.
    for call in [
        add(&host).env("CNI_COMMAND", "FOO"),
        add(&host).no_env("CNI_NETNS"),
        add(&host).stdin("{"),
        add(&host).version("9.9.9"),
        add(&host).conf("name", json!("")),
        add(&host),
        host.cni("STATUS"),
    ] {
        let error = call.error();
        assert!(codes.contains(&error.code), "{}", error.code);
    }
}

// covers: X-09
#[test]
fn a_defect_is_an_error_object_too() {
    const INSIDE: &str = "FLOCK_TEST_PANICS";
    if std::env::var_os(INSIDE).is_some() {
        flock::plugin::report_panics();
        panic!("a defect with a \"secret\"\nin two lines");
    }
    // This very test, in a process of its own: the end of the process is what is looked at.
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "conformance::output::a_defect_is_an_error_object_too", "--nocapture", "--test-threads=1"]);
    let output = again.env(INSIDE, "1").env("RUST_BACKTRACE", "full").stdin(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let begin = stdout.find('{').unwrap_or_else(|| panic!("no object in {stdout}"));
    let error: Value = serde_json::from_str(&stdout[begin..]).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    assert_eq!((&error["code"], &error["cniVersion"]), (&json!(999), &json!("1.1.0")));
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(output.status.code(), Some(1), "{}", output.status);
}

// covers: X-10 K-12 D-11 G-09 T-02 FM-E09
#[test]
fn a_success_says_nothing_but_its_result() {
    let host = Host::new();
    let _agent = Scripted::obliging(socket_of(&host));
    for verb in ["DEL", "CHECK", "GC", "STATUS"] {
        add(&host).env("CNI_COMMAND", verb).conf("prevResult", a_result()).done();
    }
    let result: Value = serde_json::from_str(&add(&host).run().succeeded()).unwrap();
    assert_eq!(result, a_result());
}

// covers: X-11
#[test]
fn an_add_whose_result_cannot_be_written_is_taken_back() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let call = host.add(&pod);
    let output = call.launch_into(File::create("/dev/full").unwrap(), Stdio::piped()).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    host.assert_empty();

    // A reader that has gone.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = call.launch_into(writer, Stdio::piped()).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    host.assert_empty();

    for verb in ["VERSION", "FOO"] {
        let full = File::create("/dev/full").unwrap();
        let output = host.cni(verb).launch_into(full, Stdio::piped()).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb}");
    }
    call.result();
}

// covers: X-12
#[test]
fn a_long_result_arrives_whole() {
    let host = Host::new();
    let long = "x".repeat(200 * 1024);
    let mut result = a_result();
    result["interfaces"][1]["sandbox"] = json!(format!("/{long}"));
    let answer = json!({"result": result});
    let _agent = Scripted::answering(socket_of(&host), move |_, _| Some(line(&answer)));
    let call = add(&host);
    let mut command = call.command();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&call.input()).unwrap();
    let mut stdout = BufReader::with_capacity(1, child.stdout.take().unwrap());
    // The first byte, and the rest only when the pipe is full or all is written.
    assert_eq!(stdout.fill_buf().unwrap(), b"{");
    thread::yield_now();
    let mut text = String::new();
    stdout.into_inner().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    let printed: Value = serde_json::from_str(&format!("{{{text}")).unwrap();
    assert_eq!(printed["interfaces"][1]["sandbox"].as_str().map(str::len), Some(long.len() + 1));
}

// covers: X-14
#[test]
fn what_users_wrote_is_escaped_and_cut_and_secrets_stay_where_they_are() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let nasty = "K8S_POD_NAMESPACE=x;K8S_POD_NAME=a\u{1b}[31m\nlevel=error\u{202e}b";
    for call in [
        host.add(&pod).env("CNI_ARGS", nasty),
        host.add(&pod).annotations(&[("ipv6", "\n\u{1b}]0;x\u{7}")]),
        host.add(&pod).annotations(&[("cidr4", &"9".repeat(100_000))]),
        host.add(&pod).netns("/run/\u{1b}\nx"),
    ] {
        let outcome = call.run();
        let error = outcome.failed();
        assert_eq!(outcome.stdout().lines().count(), 1);
        assert!(!error.text().chars().any(|c| c.is_control() || c == '\u{202e}'), "{}", error.text());
        assert!(error.msg.len() <= 2048 && error.details.len() <= 2048);
    }
    for call in [
        host.add(&pod).conf("prevResult", json!({"ips": "tr0ub4dor"})),
        host.add(&pod).conf("runtimeConfig", json!("tr0ub4dor")),
        host.add(&pod).stdin(r#"{"cniVersion":"1.1.0","name":"flock","secret":"tr0ub4dor","#),
    ] {
        let error = call.error();
        assert!(!error.text().contains("tr0ub4dor"), "{}", error.text());
    }
}

// covers: A-10 X-02
#[test]
fn bytes_behind_the_answer_of_the_agent_never_reach_standard_output() {
    let host = Host::new();
    let _agent = Scripted::answering(socket_of(&host), |_, request| {
        let mut bytes = success(request);
        bytes.extend_from_slice(b"{\"result\":null}\ngarbage");
        Some(bytes)
    });
    let result: Value = serde_json::from_str(&add(&host).run().succeeded()).unwrap();
    assert_eq!(result, a_result());
}
