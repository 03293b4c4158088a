//! How a cluster begins and ends.

use crate::cluster::{Cluster, condition};
use crate::support::waiting::wait_for;

/// Where the runtime finds that there is a network.
const CONFLIST: &str = "/etc/cni/net.d/01-flock.conflist";

// covers: N-12 Q-02
pub(crate) fn ready(cluster: &mut Cluster<'_>) {
    for node in &cluster.nodes {
        // A kubelet registers before it has asked the runtime for the first time.
        cluster.wait("the reason why there is no network", || {
            let shown = cluster.get(&format!("node {}", node.name)).expect("registered");
            assert!(!condition(&shown, "Ready"), "there is no network");
            shown["status"]["conditions"].to_string().contains("cni plugin not initialized").then_some(())
        });
        assert!(!node.host.path(CONFLIST).exists());
    }
    cluster.installation.carry_out(cluster);
    for node in &cluster.nodes {
        // It is so when the configuration is there, which the agent writes when it serves.
        cluster.wait(&format!("{} to be ready", node.name), || {
            let is_ready = cluster.is_ready(&node.name);
            assert!(!is_ready || node.host.path(CONFLIST).exists(), "a node is Ready that has no network");
            is_ready.then_some(())
        });
        cluster.lead(node);
    }
    cluster.installation.confirm(cluster);
}

// covers: K-08
pub(crate) fn empty(cluster: &mut Cluster<'_>) {
    cluster.plane.wait("delete deployments,statefulsets,services,pods,networkpolicies --all");
    cluster.plane.wait("-n kube-system delete deployment coredns");
    for node in &cluster.nodes {
        wait_for("the last pod to go", || node.host.flock_links().is_empty().then_some(()));
        node.host.assert_sound("without pods");
        assert_eq!(node.host.leases(), Vec::new(), "leases are left on {}", node.name);
        let log = cluster.agent_log(node);
        assert!(log.contains("op=DEL") && !log.contains("op=CHECK"), "{log}");
    }
}
