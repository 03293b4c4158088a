//! Kubernetes' own tests of the network on such a cluster: `make test-e2e`, and with `FOCUS=REGEX` those of this name.
//!
//! It runs all that are of sig-network, but for those that are left out below with their reasons, and prints what came of each. A
//! whole run writes `docs/e2e.md`. Which of them there are, the tests themselves say: none is passed over in silence.
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::cluster::{Cluster, Ground};
use crate::installation::Installation;
use crate::node::Proxy;
use crate::report::{Outcome, Report};
use crate::support::assets::assets;
use crate::{close, dns, joining};

/// What is not run, by words of its name, and why.
const LEFT_OUT: [(&str, &str); 11] = [
    ("[Feature:LoadBalancer]", "it needs a cloud that makes load balancers"),
    ("[Feature:SCTPConnectivity]", "the kernel of the machine where this is run has no SCTP"),
    ("[Feature:Networking-IPv4]", "it asks a host on the internet"),
    ("[Feature:Networking-IPv6]", "it asks a host on the internet"),
    ("[Feature:Networking-DNS]", "it asks a host on the internet"),
    ("DNS configMap nameserver Forward", "it asks a name server on the internet"),
    ("[Feature:Networking-Performance]", "it is a benchmark, and needs an image with iperf"),
    ("[Feature:PerformanceDNS]", "it is a benchmark of the API server and the DNS"),
    ("[Feature:KubeProxyNFAcct]", "it is about a counter of kube-proxy's mode iptables"),
    ("[Feature:LocalhostNodePorts]", "kube-proxy's mode nftables has no ports on the loopback address"),
    ("[Disruptive]", "it restarts programs of nodes by ssh; `make test-cluster` does so in its own way"),
];

pub(crate) fn run(focus: Option<&str>) -> ExitCode {
    let began = Instant::now();
    let ground = Ground::new();
    let mut cluster = Cluster::start(&ground, Proxy::Nftables, Installation::DaemonSet);
    joining::ready(&mut cluster);
    dns::found(&mut cluster);
    let archive = format!("{}/images.tar", assets("cluster e2e"));
    for node in &cluster.nodes {
        fs::copy(&archive, node.host.path("/var/tmp/e2e.tar")).expect("copied");
        node.import("/var/tmp/e2e.tar");
    }
    println!("the cluster stands after {} s", began.elapsed().as_secs());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e.json");
    fs::remove_file(&file).ok();
    start(&cluster, focus, &file);
    let report = Report::read(&file, &LEFT_OUT);
    for test in &report.tests {
        if let Outcome::Failed(why) = &test.outcome {
            println!("\n{} failed:\n{why}", test.name);
            cluster.tell();
        }
    }
    let (passed, failed) = (report.count(&Outcome::Passed), report.failed());
    if focus.is_none() && passed > 0 {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/e2e.md"), report.page()).expect("written");
    }
    close(passed, failed, began)
}

/// Runs the tests as an administrator of the cluster does, several at once where they allow it, and has them report to this file.
fn start(cluster: &Cluster<'_>, focus: Option<&str>, file: &Path) {
    let control = &cluster.ground.control;
    // They run where their program lies, and take a path in a kubeconfig to be relative to that.
    let path = cluster.plane.admin_kubeconfig();
    let kubeconfig =
        fs::read_to_string(control.path(&path)).expect("readable").replace("apiserver.crt", "/run/k8s/apiserver.crt");
    control.write("/run/k8s/e2e.kubeconfig", &kubeconfig);
    let skip: Vec<String> = LEFT_OUT.iter().map(|(words, _)| words.replace('[', r"\[").replace(']', r"\]")).collect();
    let mut command: Command = control.command("setpriv");
    // All of them end with this process, as everything does.
    command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "env"]);
    // One of them calls kubectl.
    command.arg(format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", assets("kube")));
    let programs = assets("kube e2e");
    command.arg(format!("{programs}/ginkgo"));
    command.args(["run", "--procs=4", "--no-color", "--succinct", "--silence-skips", "--timeout=3h"]);
    command.arg(format!("--focus=\\[sig-network\\].*{}", focus.unwrap_or_default()));
    command.arg(format!("--skip={}", skip.join("|")));
    command.arg(format!("--json-report={}", file.file_name().and_then(|name| name.to_str()).expect("a name")));
    command.arg(format!("--output-dir={}", file.parent().and_then(Path::to_str).expect("a directory")));
    command.arg(format!("{programs}/e2e.test"));
    command.args(["--", "--kubeconfig=/run/k8s/e2e.kubeconfig", "--provider=skeleton", "--num-nodes=2"]);
    let status = command.status().expect("the tests start");
    assert!(file.exists(), "the tests ended with {status}, and reported nothing");
}
