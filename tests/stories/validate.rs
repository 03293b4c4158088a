//! Stories of `flock-agent validate`, the real program: files, directories, standard input, and the host that a file is for.

use std::process::Stdio;

use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6};
use crate::support::programs::FLOCK_AGENT;
use crate::support::waiting::wait_for;

/// How a shell's line ends in which `validate` stands for the program, on a host of this name, and what is said on standard output
/// and standard error.
fn run(host: &Host, name: &str, line: &str) -> (Option<i32>, String, String) {
    let line = line.replace("validate", &format!("{FLOCK_AGENT} validate"));
    let script = format!("printf '%s' '{name}' > /proc/sys/kernel/hostname; {line}");
    let mut command = host.command("unshare");
    let output = command.args(["--uts", "sh", "-c", &script]).stdin(Stdio::null()).output().expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The manifest of a node with these lines of `spec`.
fn manifest(name: &str, spec: &[&str]) -> String {
    let lines: String = spec.iter().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata:\n  name: {name}\nspec:\n{lines}")
}

fn cidr4(range: &str) -> String {
    format!("cidr4: {range}")
}

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: closed}
spec: {podSelector: {}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: x}
";

#[test]
fn all_problems_of_all_files_are_told_as_the_agent_would_tell_them() {
    let host = Host::new();
    host.run("mkdir -p /run/nodes/other");
    host.write("/run/nodes/a.yaml", &manifest("node-a", &[&format!("cidr6: '{CIDR6}'"), &cidr4(CIDR4)]));
    let bad = manifest("node-b", &["cidr4: 10.25.215.7/24", "mtuu: 1500"]);
    host.write("/run/nodes/b.yml", &bad);
    host.write("/run/nodes/p.yaml", POLICY);
    host.write("/run/nodes/notes.txt", "not read\n");
    host.write("/run/nodes/.hidden.yaml", "not read\n");
    let (code, stdout, stderr) = run(&host, "h", "validate /run/nodes");
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    let begin = [
        format!("/run/nodes/a.yaml: ok: NodeConfig node-a with {CIDR6} and {CIDR4}"),
        "/run/nodes/b.yml: line 6: spec.cidr4: \"10.25.215.7/24\" has bits set".into(),
        "/run/nodes/b.yml: line 7: spec.mtuu is no field of a NodeConfig: did you mean mtu?".into(),
        "/run/nodes/p.yaml: ok: 1 objects for --policy-dir".into(),
        "/run/nodes/p.yaml: warning: document 2: kind \"ConfigMap\" of apiVersion \"v1\" is ignored".into(),
    ];
    assert_eq!(lines.len(), begin.len(), "{stdout}");
    assert!(lines.iter().zip(&begin).all(|(line, begin)| line.starts_with(begin.as_str())), "{stdout}");
    // The agent says the very same of the file.
    let agent = host.agent().config(Some(&bad)).start();
    let said = agent.wait_log("NodeConfig is not valid");
    let (_, problem) = lines[1].split_once(": ").expect("a file");
    assert!(said.replace("\\\"", "\"").contains(problem), "{said}");
}

#[test]
fn standard_input_is_a_file_too_and_what_cannot_be_read_says_why() {
    let host = Host::new();
    host.write("/run/node.yaml", &manifest("host001", &[&cidr4(CIDR4)]));
    let good = format!("standard input: ok: NodeConfig host001 with {CIDR4}\n");
    assert_eq!(run(&host, "h", "cat /run/node.yaml | validate -"), (Some(0), good.clone(), String::new()));
    host.run("ln -s /run/gone /run/link");
    host.run("mkdir /run/empty");
    let (code, stdout, stderr) = run(&host, "h", "validate /run/link /run/a/b /run/empty /dev/zero - < /run/node.yaml");
    assert_eq!((code, stdout), (Some(2), good));
    let said: Vec<&str> = stderr.lines().collect();
    for (line, words) in said.iter().zip([
        "flock-agent: validate: /run/link: it is a link to /run/gone, and nothing is there: there is no such file",
        "flock-agent: validate: /run/a/b: the directory /run/a is missing",
        "flock-agent: validate: /run/empty: it has no file whose name ends in .yaml, .yml or .json",
        "flock-agent: validate: /dev/zero: it is not a regular file",
    ]) {
        assert_eq!(*line, words);
    }
    assert_eq!(said.len(), 4, "{stderr}");
    let (code, _, stderr) = run(&host, "h", "validate");
    assert!(code == Some(2) && stderr.contains("FILE needs a value"), "{stderr}");
}

#[test]
fn what_is_valid_and_suspicious_is_a_warning() {
    let host = Host::new();
    for (name, node, spec) in [
        ("a", "node-a", &["cidr4: 10.25.0.0/16"][..]),
        ("b", "node-b", &["cidr4: 10.25.7.0/24"]),
        ("c", "node-a", &["cidr6: '2001:db8::/64'"]),
        ("d", "Node_D", &["cidr4: 10.26.0.0/24", "defaults: {ipv4: false}"]),
    ] {
        host.write(&format!("/run/{name}.yaml"), &manifest(node, spec));
    }
    let (code, stdout, _) = run(&host, "h", "validate /run/a.yaml /run/b.yaml /run/c.yaml /run/d.yaml");
    assert_eq!(code, Some(0), "{stdout}");
    let warnings: Vec<&str> = stdout.lines().filter(|line| line.contains(": warning: ")).collect();
    for words in [
        "/run/b.yaml: warning: 10.25.7.0/24 overlaps 10.25.0.0/16 of node-a in /run/a.yaml",
        "/run/c.yaml: warning: /run/a.yaml is for node-a, too",
        "/run/d.yaml: warning: metadata.name: no node can be called so: it has 'N' in it",
        "/run/d.yaml: warning: spec.defaults: ipv6 and ipv4 are both false",
    ] {
        assert!(warnings.iter().any(|line| line.starts_with(words)), "{words}: {stdout}");
    }
    assert_eq!(warnings.len(), 4, "{stdout}");
}

#[test]
fn on_the_node_that_it_is_for_a_file_is_held_against_the_host() {
    let host = Host::new();
    host.run("ip link add up0 type veth peer name up1");
    host.run("ip addr add 192.0.2.1/24 dev up0");
    host.run("ip link set up0 up");
    host.run("ip link set up1 up");
    host.run("ip route add default via 192.0.2.254 dev up0 onlink");
    host.write("/run/node.yaml", &manifest("host001", &["cidr4: 192.0.2.248/29", "mtu: 9000"]));
    let shown = || host.run("ip addr") + &host.run("ip route show table all");
    // The kernel takes its time with the news of a carrier and with an address of its own.
    let settled = |text: &str| !text.contains("tentative") && text.matches(" state UP ").count() == 2;
    wait_for("both links to be as they stay", || settled(&shown()).then_some(()));
    let before = shown();
    let (code, stdout, _) = run(&host, "Host001", "validate /run/node.yaml");
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("warning: spec.mtu is 9000 and the uplink's MTU is 1500"), "{stdout}");
    assert!(stdout.lines().any(|line| line.contains("warning: ") && line.contains("192.0.2.248/29")), "{stdout}");
    let (_, elsewhere, _) = run(&host, "other", "validate /run/node.yaml");
    assert!(!elsewhere.contains("warning"), "{elsewhere}");
    assert_eq!(shown(), before);
}
