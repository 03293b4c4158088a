//! Stories of `docs/start.md` and `docs/addresses.md`: what a newcomer types, word by word, until a pod has an address. What needs a kubelet,
//! Talos, or an image from elsewhere, the pages mark.

use std::fs;

use serde_json::json;

use crate::deploy::Cluster;
use crate::support::host::Host;
use crate::support::page::{block, blocks};
use crate::support::programs::{FLOCK, FLOCK_AGENT, put_copy};
use crate::wait_condition;

const PAGE: &str = include_str!("../../docs/start.md");

/// The two programs of a release, in the directory where the node's commands are typed.
fn release(host: &Host) {
    for (program, name) in [(FLOCK, "flock"), (FLOCK_AGENT, "flock-agent")] {
        put_copy(program, host.path(&format!("/run/admin/{name}")));
    }
}

/// The commands of a section that are for the node and for the administrator, of which one begins so.
fn section(heading: &str, first: &str) -> String {
    let blocks = blocks(PAGE, heading, "sh");
    let found = blocks.iter().find(|block| block.starts_with(first));
    found.unwrap_or_else(|| panic!("{heading} has no block that begins with {first}")).clone()
}

fn node(cluster: &Cluster<'_>, name: &str, cidrs: &[&str]) {
    let spec = json!({"podCIDR": cidrs[0], "podCIDRs": cidrs});
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec});
    cluster.plane.apply(&object.to_string()).expect("accepted");
}

#[test]
fn a_node_of_kubeadm_and_one_of_k3s_serve_pods_after_the_commands_of_the_page() {
    for (heading, kubeconfig) in [
        ("kubeadm, two nodes", "/etc/kubernetes/kubelet.conf"),
        ("k3s", "/var/lib/rancher/k3s/agent/kubelet.kubeconfig"),
    ] {
        let host = Host::new();
        let cluster = Cluster::new(&host);
        // What kubeadm or k3s has made by then.
        cluster.join(kubeconfig);
        if heading == "k3s" {
            host.write("/etc/rancher/k3s/config.yaml", &block(PAGE, heading, "yaml"));
            host.script("mkdir -p /var/lib/rancher/k3s/data/cni; touch /var/lib/rancher/k3s/data/cni/loopback");
        }
        node(&cluster, "host001", &["10.244.1.0/24", "fd00:10:244:1::/64"]);
        release(&host);
        cluster.types("admin", &section(heading, "kubectl apply -k"));
        let said =
            cluster.types("node", &section(heading, if heading == "k3s" { "mkdir" } else { "./flock-agent install" }));
        let agent = cluster.agent();
        agent.wait_log("CNI configuration written");
        assert!(host.path("/etc/cni/net.d/01-flock.conflist").is_file(), "{said}");
        let (pod, plugin) = (host.pod("a"), "/opt/cni/bin/flock");
        let own = host.add(&pod).annotations(&[]).program(plugin).result().ipv4().expect("IPv4");
        assert!(own.to_string().starts_with("10.244.1."), "{own}");
        host.del(&pod).program(plugin).done();
        agent.stop();
    }
}

#[test]
fn the_commands_for_talos_are_taken_by_the_server_and_those_for_podman_make_a_node() {
    let host = Host::new();
    let cluster = Cluster::new(&host);
    cluster.types("admin", &section("Talos", "kubectl apply -k"));
    let set = cluster.plane.run("-n kube-system get daemonset flock-agent -o yaml");
    assert!(set.contains("\"7445\"") && set.contains("--pod-cidrs"), "{set}");
    release(&host);
    // What is made in there stays in there.
    host.script(
        "mkdir -p /etc/cni/net.d /run/lib/upper /run/lib/work; \
         mount -t overlay overlay -o lowerdir=/usr/lib,upperdir=/run/lib/upper,workdir=/run/lib/work /usr/lib",
    );
    let said = cluster.types("node", &section("podman, one host", "./flock-agent install"));
    let config = fs::read_to_string(host.path("/etc/flock/node.yaml")).expect("written");
    let read = model::nodeconfig::parse(&config).expect("valid");
    assert_eq!(read.name, "host001");
    assert!(host.path("/usr/lib/cni/flock").is_file(), "{said}");
    let agent = host.agent().config(Some(&config)).args(&["--cni-conf-dir", "/etc/cni/net.d"]).start();
    agent.wait_log("CNI configuration written");
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).program("/usr/lib/cni/flock").result();
    host.del(&pod).done();
    agent.stop();
}

#[test]
fn node_configs_are_made_of_the_ranges_that_kubernetes_has_for_its_nodes() {
    let host = Host::new();
    let cluster = Cluster::new(&host);
    cluster.types("admin", "kubectl apply -k deploy/base");
    node(&cluster, "both", &["10.244.1.0/24", "fd00:10:244:1::/64"]);
    node(&cluster, "host001", &["fd00:10:244:2::/64"]);
    let bare = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "bare"}});
    cluster.plane.apply(&bare.to_string()).expect("accepted");
    cluster
        .types("admin", &block(include_str!("../../docs/addresses.md"), "Where the ranges of a node come from", "sh"));
    let shown = cluster
        .plane
        .run("get nodeconfigs -o jsonpath={range.items[*]}{.metadata.name}={.spec.cidr6},{.spec.cidr4};{end}");
    assert_eq!(shown, "both=fd00:10:244:1::/64,10.244.1.0/24;host001=fd00:10:244:2::/64,;");
    let kubeconfig = cluster.plane.kubeconfig("agent", &cluster.plane.agent_token());
    let agent = host.agent().config(None).kubeconfig(&kubeconfig).start();
    wait_condition(&cluster.plane, "Ready", "True", "Serving");
    agent.stop();
}
