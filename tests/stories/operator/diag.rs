//! `flock-agent diag`: an archive that tar of this system reads, with what is there and a word for what is not, and never with a secret.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::host::{Host, one_user_only};
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::programs::{FLOCK_AGENT, succeed};
use crate::support::verb::Typed;

/// What stands in files that belong to others, each at another place.
const SECRETS: [&str; 9] = [
    "s3cret-in-kubeconfig",
    "s3cret-bearer-file",
    "s3cret-client-key",
    "s3cret-certificate",
    "s3cret-bgp-password",
    "s3cret-node-config",
    "s3cret-default-file",
    "s3cret-other-cni",
    "s3cret-chained-plugin",
];

/// A part of the archive that the verb wrote to this file of the host.
#[track_caller]
fn part(host: &Host, file: &str, name: &str) -> String {
    succeed(Command::new("tar").arg("-xOf").arg(host.path(file)).arg(format!("flock-diag/{name}")))
}

/// The names of the parts.
fn parts(host: &Host, file: &str) -> Vec<String> {
    let listed = succeed(Command::new("tar").arg("-tf").arg(host.path(file)));
    listed.lines().map(|line| line.strip_prefix("flock-diag/").expect("one directory").to_owned()).collect()
}

#[track_caller]
fn collected(host: &Host, file: &str) -> Typed {
    let told = host.types(&format!("diag -o {file}"));
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.starts_with(&format!("{file}: ")) && told.out.contains("look through it"), "{told:?}");
    told
}

#[test]
fn the_record_is_that_of_the_agent_that_runs() {
    let host = Host::new();
    let _agent = host.agent().args(&["--state-dir", "/run/kept"]).start();
    host.attach_all(["web"]);
    collected(&host, "/run/kept.tar");
    let read = |name: &str| part(&host, "/run/kept.tar", name);
    assert!(read("leases.log").contains("web") && read("pods.json").contains("web"));
    assert!(!read("check.json").contains("not compared"), "{}", read("check.json"));
}

#[test]
fn what_a_report_needs_is_collected_while_the_agent_runs_and_after_its_death() {
    let host = Host::new();
    host.run("mkdir /run/net.d");
    let agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    let [(_, attached)] = host.attach_all(["web"]).try_into().unwrap_or_else(|_| panic!("one"));
    collected(&host, "/run/up.tar");
    let mode = fs::metadata(host.path("/run/up.tar")).expect("written").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let read = |name: &str| part(&host, "/run/up.tar", name);
    assert!(read("version.txt").starts_with(concat!("flock-agent ", env!("CARGO_PKG_VERSION"))));
    assert!(read("status.json").contains("\"ready\": true"), "{}", read("status.json"));
    assert!(read("pods.json").contains(&attached.ipv4().expect("IPv4").to_string()));
    assert!(read("check.json").contains("\"findings\""));
    assert!(read("metrics.txt").contains("flock_"));
    assert!(read("leases.log").contains("web"));
    let flags = read("agent-flags.txt");
    assert!(
        flags.contains("--node-config /run/node.yaml\n") && flags.contains("--log-format text (default)\n"),
        "{flags}"
    );
    assert!(read("agent-process.txt").contains("VmRSS:"));
    let network = read("network.txt");
    assert!(
        network.contains(&format!("link {} ", attached.host_link())) && network.contains("range 10.25.214.0/24\n"),
        "{network}"
    );
    assert!(read("sysctls.txt").contains("net/ipv4/ip_forward = 1\n"));
    assert!(read("nft-flock.txt").starts_with("table inet flock {"), "{}", read("nft-flock.txt"));
    assert!(read("cni.txt").contains("/run/net.d:\n  01-flock.conflist\n"), "{}", read("cni.txt"));
    // This host has no journal of the agent.
    assert!(read("missing.txt").contains("log.txt: "), "{}", read("missing.txt"));

    agent.kill();
    let told = collected(&host, "/run/down.tar");
    assert!(told.err.contains("parts are missing; missing.txt in it says which and why"), "{told:?}");
    let read = |name: &str| part(&host, "/run/down.tar", name);
    assert!(read("status.json").contains("\"agent\": \"down\""));
    assert!(read("pods.json").contains(&attached.ipv4().expect("IPv4").to_string()));
    assert!(read("network.txt").contains(&attached.host_link()));
    let missing = read("missing.txt");
    for said in ["status.json: ", "metrics.txt: ", "agent-flags.txt: no agent is known to run", "agent-process.txt: "] {
        assert!(missing.lines().any(|line| line.starts_with(said)), "{said}: {missing}");
    }

    // Torn in the middle of a line, and then no record at all.
    let log = host.path("/run/flock/state/leases.log");
    let whole = fs::read(&log).expect("a record");
    fs::write(&log, &whole[..whole.len() - 20]).expect("torn");
    collected(&host, "/run/torn.tar");
    assert!(part(&host, "/run/torn.tar", "pods.json").contains("\"pods\""));
    assert_eq!(fs::read(&log).expect("a record").len(), whole.len() - 20, "the evidence stays");
    fs::write(&log, [&b"\xff\xfe nonsense \0"[..], &[b'x'; 1000], b"\n"].concat().repeat(5000)).expect("garbage");
    collected(&host, "/run/garbage.tar");
    let mut tar = Command::new("tar");
    let kept =
        tar.arg("-xOf").arg(host.path("/run/garbage.tar")).arg("flock-diag/leases.log").output().expect("tar starts");
    assert!(kept.status.success() && kept.stdout.len() < (4 << 20) + 100 && kept.stdout.ends_with(b" bytes in all]\n"));
    fs::remove_dir_all(host.path("/run/flock")).expect("gone");
    collected(&host, "/run/nothing.tar");
    assert!(part(&host, "/run/nothing.tar", "missing.txt").contains("leases.log: "));
}

#[test]
fn no_secret_of_anybody_is_in_it() {
    let host = Host::new();
    // What is written to /etc here stays in this host.
    host.script("mount -t tmpfs none /mnt; cp -R /etc/. /mnt; mount --move /mnt /etc; mkdir -p /etc/default /etc/cni/net.d /etc/flock");
    host.write("/etc/flock/token", "s3cret-bearer-file\n");
    host.write("/etc/flock/key.pem", "-----BEGIN PRIVATE KEY-----\ns3cret-client-key\n-----END PRIVATE KEY-----\n");
    host.write("/etc/flock/cert.pem", "-----BEGIN CERTIFICATE-----\ns3cret-certificate\n-----END CERTIFICATE-----\n");
    host.write("/etc/flock/password", "s3cret-bgp-password\n");
    let user = "users: [{name: u, user: {token: s3cret-in-kubeconfig, tokenFile: /etc/flock/token, client-key: /etc/flock/key.pem, client-certificate: /etc/flock/cert.pem}}]";
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"https://127.0.0.1:1\"}}}}]\n{user}\n"
    );
    host.write("/etc/flock/kubeconfig", &kubeconfig);
    host.write("/etc/default/flock-agent", "# s3cret-default-file\nOTHER=s3cret-default-file\nFLOCK_AGENT_FLAGS=--log-level debug --token s3cret-default-file\n");
    host.write(
        "/etc/cni/net.d/10-other.conflist",
        r#"{"name":"other","plugins":[{"type":"bridge","password":"s3cret-other-cni"}]}"#,
    );
    let chained = r#"{"cniVersion":"1.0.0","name":"flock","note":"s3cret-chained-plugin","plugins":[{"type":"flock"},{"type":"vpn","key":"s3cret-chained-plugin"}]}"#;
    host.write("/etc/cni/net.d/01-flock.conflist", chained);
    let peer = json!({"name": "tor1", "address": "192.0.2.1", "asn": 65100, "passwordFile": "/etc/flock/password"});
    let good = node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "bgp": {"asn": 65001, "peers": [peer]}}));

    let holds_none = |file: &str| {
        let bytes = fs::read(host.path(file)).expect("written");
        for secret in SECRETS {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}: {secret}");
        }
        assert!(!bytes.windows(7).any(|window| window == b"PRIVATE"), "{file}");
    };
    // With a file, of which an edit is refused meanwhile.
    let agent = host
        .agent()
        .config(Some(&good))
        .args(&[
            "--cni-conf-dir",
            "/etc/cni/net.d",
            "--bird-config",
            "/run/bird.conf",
            "--bird-socket",
            "/run/bird.ctl",
        ])
        .start();
    let bad = good.replace("\"passwordFile\":\"/etc/flock/password\"", "\"password\":\"s3cret-node-config\"");
    agent.edit_config(&bad);
    agent.wait_log("peers[0].password");
    collected(&host, "/run/file.tar");
    holds_none("/run/file.tar");
    let cni = part(&host, "/run/file.tar", "cni.txt");
    assert!(
        cni.contains("  10-other.conflist\n") && cni.contains("\"key\": \"(not shown)\"") && !cni.contains("bridge"),
        "{cni}"
    );
    assert!(part(&host, "/run/file.tar", "missing.txt").contains("default-flock-agent.txt: these words are no flags"));
    agent.kill();
    // With an API server that is not there.
    let agent = host.agent().kubeconfig("/etc/flock/kubeconfig").no_wait().start();
    agent.wait_log("flock-agent");
    collected(&host, "/run/kube.tar");
    holds_none("/run/kube.tar");
    assert!(part(&host, "/run/kube.tar", "agent-flags.txt").contains("--kubeconfig /etc/flock/kubeconfig\n"));
    // And with one that nobody can read.
    host.write(
        "/etc/flock/kubeconfig",
        &kubeconfig.replace("current-context: c", "current-context: [s3cret-in-kubeconfig"),
    );
    collected(&host, "/run/broken.tar");
    holds_none("/run/broken.tar");
}

#[test]
fn it_goes_where_it_is_told_and_replaces_nothing_but_files() {
    let host = Host::new();
    let agent = host.agent().start();
    // To a pipe, as from a container without a shell.
    let piped = host.command(FLOCK_AGENT).args(["diag", "-o", "-"]).stdin(Stdio::null()).output().expect("it starts");
    assert!(piped.status.success(), "{piped:?}");
    assert_eq!(piped.stdout.len() % 512, 0);
    fs::write(host.path("/run/piped.tar"), &piped.stdout).expect("written");
    assert!(parts(&host, "/run/piped.tar").contains(&"status.json".to_owned()));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("look through it"), "{piped:?}");
    // Into the current directory, by a name that says whose and when.
    let script = format!("mkdir /run/here; cd /run/here; {FLOCK_AGENT} diag; ls -A");
    let said = host.script(&script);
    let name = said.lines().last().expect("a file");
    assert!(
        name.starts_with("flock-diag-") && name.ends_with("Z.tar") && said.starts_with(&format!("{name}: ")),
        "{said}"
    );
    assert_eq!(said.lines().filter(|line| line.ends_with(".new")).count(), 0, "{said}");
    // A second time over the first.
    collected(&host, "/run/piped.tar");
    // What is no file stays, and where nothing can be written it is said.
    host.script("mknod /run/pipe p; mkdir /run/full; mount -t tmpfs -o size=4k none /run/full; mkdir /run/read; mount -t tmpfs -o ro none /run/read");
    for (file, why) in [
        ("/run/pipe", "something else than a file stands there"),
        ("/run/here", "something else than a file stands there"),
        ("/run/full/a.tar", "No space left on device"),
        ("/run/read/a.tar", "Read-only file system"),
        ("/run/absent/a.tar", "the directory /run/absent is missing"),
    ] {
        let told = host.types(&format!("diag -o {file}"));
        assert_eq!((told.code, told.out.as_str()), (1, ""), "{told:?}");
        assert!(told.err.contains(&format!("{file} is not written: ")) && told.err.contains(why), "{told:?}");
        assert!(!told.err.contains("os error"), "{told:?}");
    }
    assert_eq!(host.script("ls -A /run/full /run/read"), "/run/full:\n\n/run/read:\n");
    assert_eq!(host.types("diag extra").code, 2);
    drop(agent);
}

#[test]
fn who_is_not_root_hears_what_to_do() {
    if one_user_only() {
        return;
    }
    let host = Host::new();
    let told = host.types_as_nobody("diag -o /tmp/flock-diag-nobody.tar");
    assert_eq!((told.code, told.out.as_str()), (4, ""), "{told:?}");
    assert!(told.err.contains("sudo flock-agent diag"), "{told:?}");
}
