//! Stories of `deploy/` and its page: what kustomize makes of each directory, and every command of the page, word by word, on an
//! administrator's machine and on a node, with a real API server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::page::{block, blocks};
use crate::support::programs::{put_script, succeed};
use crate::support::waiting::wait_for;
use crate::wait_condition;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PAGE: &str = include_str!("../../deploy/README.md");

/// The directories of `deploy/` that kubectl can apply, with the word that stands for a node's name in place of `NODE`.
fn applied() -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![Path::new(ROOT).join("deploy")];
    while let Some(directory) = left.pop() {
        if directory.join("kustomization.yaml").is_file() {
            found.push(directory.to_str().expect("text").to_owned());
        }
        let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        left.extend(entries.filter(|path| path.is_dir()));
    }
    found.sort();
    assert!(found.len() >= 4, "{found:?}");
    found
}

#[test]
fn every_directory_is_taken_by_the_server_and_everything_in_it_says_whose_it_is() {
    let host = Host::new();
    let plane = ControlPlane::start(&host);
    for directory in applied() {
        let manifests = plane.run(&format!("kustomize {directory}")).replace("NODE", "host001");
        fs::write(host.path("/run/k8s/all.yaml"), &manifests).expect("writable");
        let shown = plane.run("apply --server-side --force-conflicts --dry-run=server -o json -f /run/k8s/all.yaml");
        // One object, or a stream of them.
        let objects =
            serde_json::Deserializer::from_str(&shown).into_iter::<Value>().map(|object| object.expect("JSON"));
        let objects: Vec<Value> = objects
            .flat_map(|object| object["items"].as_array().cloned().unwrap_or_else(|| vec![object.clone()]))
            .collect();
        assert_eq!(objects.len(), manifests.split("\n---\n").count(), "{directory}");
        for object in objects {
            let labels = &object["metadata"]["labels"];
            let name = &object["metadata"]["name"];
            assert_eq!(labels["app.kubernetes.io/name"], "flock", "{directory}: {name}");
            assert_eq!(labels["app.kubernetes.io/part-of"], "flock", "{directory}: {name}");
        }
    }
}

/// Gives the host directories apart from this machine's, in which nothing is yet but what every system has.
pub(crate) fn own_directories(host: &Host) {
    host.script(
        "mkdir -p /run/node/etc/default; \
         cp -a /etc/passwd /etc/group /etc/ssl /etc/alternatives /etc/ld.so.cache /run/node/etc/; \
         mount --bind /run/node/etc /etc; for place in /var/lib /opt /usr/local; do mount -t tmpfs tmpfs $place; done",
    );
}

/// A cluster's administrator and a node, both on one host: they have nothing in common but the network.
pub(crate) struct Cluster<'a> {
    host: &'a Host,
    pub(crate) plane: ControlPlane<'a>,
}

impl<'a> Cluster<'a> {
    /// Nobody has done anything yet.
    pub(crate) fn new(host: &'a Host) -> Cluster<'a> {
        let plane = ControlPlane::bare(host);
        // The server makes it by itself, and not at once.
        plane.kubectl(&["create", "namespace", "kube-system"]);
        own_directories(host);
        host.script("mkdir -p /run/admin/bin");
        let place = |name: &str| host.path(&format!("/run/admin/{name}"));
        std::os::unix::fs::symlink(format!("{ROOT}/deploy"), place("deploy")).expect("a link");
        let kubectl = format!("{}/kubectl", crate::support::assets::assets("kube"));
        put_script(place("bin/kubectl"), &format!("exec {kubectl} --cache-dir=/run/admin/cache \"$@\""));
        // What is host001 for ssh is this host.
        put_script(place("bin/ssh"), "[ \"$1\" = root@host001 ] && shift && exec \"$@\"");
        put_script(
            place("bin/scp"),
            "set -e; [ \"$1\" = -p ]; shift; for last; do :; done; to=${last#root@host001:}; [ \"$to\" != \"$last\" ]\n\
             while [ $# -gt 1 ]; do cp -p \"$1\" \"$to\"; shift; done",
        );
        put_script(
            place("bin/systemctl"),
            "case \"$*\" in 'restart flock-agent' | 'enable --now flock-agent') ;; *) exit 1 ;; esac",
        );
        put_script(place("bin/hostname"), "echo host001");
        Cluster { host, plane }
    }

    /// Does what stands there, as the administrator, or as the node's root, in whose hands the same words do not lead into the API.
    pub(crate) fn types(&self, who: &str, commands: &str) -> String {
        let kubeconfig = match who {
            "admin" => self.plane.admin_kubeconfig(),
            _ => "/dev/null".into(),
        };
        let mut shell = self.host.command("env");
        let path = format!("PATH=/run/admin/bin:{}", std::env::var("PATH").expect("set"));
        let text = format!("cd /run/admin\n{commands}");
        succeed(shell.args([&path, &format!("KUBECONFIG={kubeconfig}"), "sh", "-euc", &text]))
    }

    /// The agent with the flags that the page has put down for the unit.
    pub(crate) fn agent(&self) -> Agent<'a> {
        let defaults = fs::read_to_string(self.host.path("/etc/default/flock-agent")).expect("written");
        let value = |name: &str| {
            let mut lines = defaults.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            lines.next_back().unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let unit = include_str!("../../systemd/flock-agent.service");
        assert!(unit.contains("flock-agent $FLOCK_AGENT_SOURCE $FLOCK_AGENT_FLAGS\n"));
        assert!(unit.contains("EnvironmentFile=-/etc/default/flock-agent\n"));
        let (source, flags) = (value("FLOCK_AGENT_SOURCE"), value("FLOCK_AGENT_FLAGS"));
        let [flag, kubeconfig, rest @ ..] = &source[..] else { panic!("{defaults}") };
        assert_eq!(flag, "--kubeconfig");
        let flags: Vec<&str> = rest.iter().chain(&flags).map(String::as_str).collect();
        self.host.agent().config(None).kubeconfig(kubeconfig).args(&flags).start()
    }

    /// Leaves kubelet's kubeconfig on the node as kubeadm does, with a certificate that the cluster has signed.
    pub(crate) fn join(&self, path: &str) {
        let authority = fs::read(self.host.path("/run/k8s/apiserver.crt")).expect("readable");
        use base64::Engine as _;
        let authority = base64::engine::general_purpose::STANDARD.encode(authority);
        let certificate = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": "default-context",
            "clusters": [{"name": "default-cluster",
                "cluster": {"certificate-authority-data": authority, "server": "https://127.0.0.1:6443"}}],
            "contexts": [{"name": "default-context",
                "context": {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}}],
            "users": [{"name": "default-auth", "user": {"client-certificate": certificate, "client-key": certificate}}],
        });
        self.host.write(path, &kubeconfig.to_string());
        self.renew("1");
    }

    /// Points the link to another certificate, as kubelet does.
    fn renew(&self, name: &str) {
        self.plane.client_certificate_of("/O=system:nodes/CN=system:node:host001");
        self.host.script(&format!(
            "mkdir -p -m 0700 /var/lib/kubelet/pki; cd /var/lib/kubelet/pki; rm -f kubelet-client-[0-9]*; umask 077; \
             cat /run/k8s/agent.crt /run/k8s/agent.key > kubelet-client-{name}.pem; \
             ln -s kubelet-client-{name}.pem next; mv -T next kubelet-client-current.pem"
        ));
    }

    fn serves(&self) {
        wait_for("the CRD", || self.plane.apply(&node_config(CIDR6, CIDR4)).ok());
        wait_condition(&self.plane, "Ready", "True", "Serving");
        wait_for("the NodePeer", || self.plane.run("get nodepeers").contains(CIDR4).then_some(()));
    }
}

#[test]
fn the_certificate_of_kubelet_is_all_that_an_agent_needs_and_its_renewal_is_followed() {
    let host = Host::new();
    let mut cluster = Cluster::new(&host);
    cluster.join("/etc/kubernetes/kubelet.conf");
    let blocks = blocks(PAGE, "The certificate of kubelet", "sh");
    let [admin, node] = &blocks[..] else { panic!("{blocks:?}") };
    cluster.types("admin", admin);
    cluster.types("node", node);
    let agent = cluster.agent();
    cluster.serves();
    // Its policies and pods, too: nothing is refused.
    for resource in ["nodeconfigs", "nodepeers", "pods"] {
        agent.wait_log(&format!("API server heard resource={resource}"));
    }
    assert!(!agent.log().contains("RBAC"), "{}", agent.log());
    // A day is left of it, and it is kubelet who sees to that.
    wait_condition(&cluster.plane, "CredentialsLasting", "True", "Lasting");
    cluster.renew("2");
    cluster.plane.stop_api("TERM");
    cluster.plane.start_api();
    cluster.plane.apply(&node_config("2001:db8:4::/64", "10.4.0.0/24")).expect("accepted");
    wait_for("the edit", || agent.log().contains("cidr4=10.4.0.0/24").then_some(()));
    agent.stop();
}

// covers: FM-U09
#[test]
fn a_token_is_made_brought_to_the_node_and_renewed_as_the_page_says() {
    let host = Host::new();
    let cluster = Cluster::new(&host);
    cluster.types("admin", &block(PAGE, "Into a cluster", "sh"));
    let blocks = blocks(PAGE, "A token", "sh");
    let [admin, node, weekly] = &blocks[..] else { panic!("{blocks:?}") };
    cluster.types("admin", admin);
    cluster.types("node", node);
    let agent = cluster.agent();
    cluster.serves();
    wait_condition(&cluster.plane, "CredentialsLasting", "True", "Lasting");
    let token = || fs::read_to_string(host.path("/etc/flock/token")).expect("readable");
    let former = token();
    assert_eq!(host.run("stat -c %a:%U /etc/flock/token").trim(), "600:root");
    cluster.types("admin", weekly);
    assert_ne!(token(), former);
    cluster.plane.apply(&node_config("2001:db8:4::/64", "10.4.0.0/24")).expect("accepted");
    agent.wait_log("cidr4=10.4.0.0/24");
    agent.stop();
}

#[test]
fn an_identity_of_one_node_and_a_node_without_a_node_config_are_made_as_the_page_says() {
    let host = Host::new();
    let cluster = Cluster::new(&host);
    cluster.types("admin", &block(PAGE, "One identity per node", "sh"));
    let token = blocks(PAGE, "A token", "sh");
    cluster.types("admin", &token[0].replace("create token flock-agent ", "create token flock-agent-host001 "));
    cluster.types("node", &token[1]);
    cluster.types("node", &block(PAGE, "Ranges from Kubernetes", "sh"));
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "host001"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
    cluster.plane.apply(&node.to_string()).expect("accepted");
    let agent = cluster.agent();
    agent.wait_log("the ranges are the podCIDRs of the Node");
    assert!(!agent.log().contains("RBAC"), "{}", agent.log());
    cluster.types("admin", &block(PAGE, "A NodeConfig per node", "sh"));
    agent.wait_log("the ranges are those of the NodeConfig");
    agent.stop();
}
