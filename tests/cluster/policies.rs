//! NetworkPolicies between nodes: the agent of the one knows pods of the other.

use serde_json::json;

use crate::asking::PORT;
use crate::cluster::Cluster;
use crate::pods::of_family;
use crate::workload::pod;

pub(crate) fn hold(cluster: &mut Cluster<'_>) {
    cluster.apply(&[pod("walled", "walled", "node2"), pod("friend", "friend", "node1"), pod("foe", "foe", "node1")]);
    let [walled, friend, foe] = ["walled", "friend", "foe"].map(|name| cluster.wait_ready(name));
    let asks = |from, v6| cluster.pod_asks(from, &of_family(&walled.ips, v6).to_string(), PORT, "hostname");
    for v6 in [false, true] {
        asks(&friend, v6).expect("nothing forbids it");
        asks(&foe, v6).expect("nothing forbids it");
    }
    let policy = |peer: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "wall"},
            "spec": {"podSelector": {"matchLabels": {"app": "walled"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": peer}}}]}]}})
    };
    for (peer, may, must_not) in [("friend", &friend, &foe), ("foe", &foe, &friend)] {
        cluster.apply(&[policy(peer)]);
        for v6 in [false, true] {
            cluster.wait("the policy to forbid", || asks(must_not, v6).is_err().then_some(()));
            asks(may, v6).expect("it is allowed");
        }
        // kubelet's probes go on.
        assert!(cluster.get("pod walled").is_some_and(|pod| crate::cluster::condition(&pod, "Ready")));
    }
    cluster.plane.run("delete networkpolicy wall");
    for v6 in [false, true] {
        cluster.wait("the wall to fall", || asks(&friend, v6).ok());
    }
    cluster.plane.wait("delete pod -l app");
}
