//! Services as kube-proxy makes them, over pods of flock: who answers, and whom the pod sees. Which of its modes, the cluster says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::json;

use crate::asking::{PORT, address_of};
use crate::cluster::{Cluster, Pod};
use crate::pods::of_family;
use crate::workload::{pod, service, set};

/// A port of the node that leads to a pod by its `hostPort`.
const HOST_PORT: u16 = 18081;

impl Cluster<'_> {
    /// The Service's own address of this family.
    pub(crate) fn cluster_ip(&self, service: &str, v6: bool) -> IpAddr {
        let found = self.get(&format!("service {service}")).expect("made");
        let ips = found["spec"]["clusterIPs"].as_array().expect("addresses").iter();
        let ips: Vec<IpAddr> = ips.map(|ip| ip.as_str().expect("text").parse().expect("an address")).collect();
        of_family(&ips, v6)
    }

    /// The port of each node that leads to the Service.
    fn node_port(&self, service: &str) -> u16 {
        let found = self.get(&format!("service {service}")).expect("made");
        found["spec"]["ports"][0]["nodePort"].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
    }
}

pub(crate) fn lead(cluster: &mut Cluster<'_>) {
    let mut hosted = pod("hosted", "hosted", "node2");
    hosted["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(HOST_PORT);
    cluster.apply(&[
        pod("web1", "web", "node1"),
        pod("web2", "web", "node2"),
        pod("single", "single", "node1"),
        hosted,
        pod("asks", "asks", "node1"),
        service("web", "web", json!({"type": "NodePort"})),
        service("single", "single", json!({"type": "NodePort", "externalTrafficPolicy": "Local"})),
    ]);
    let [_, _, single, hosted, asks] =
        ["web1", "web2", "single", "hosted", "asks"].map(|name| cluster.wait_ready(name));
    for v6 in [false, true] {
        cluster_ips(cluster, v6, &asks, &single);
        node_ports(cluster, v6);
        host_port(cluster, v6, &hosted);
    }
    cluster.plane.run("delete service web single");
    cluster.plane.wait("delete pod -l app");
}

fn cluster_ips(cluster: &Cluster<'_>, v6: bool, asks: &Pod, single: &Pod) {
    let web = cluster.cluster_ip("web", v6).to_string();
    let mut who = BTreeSet::new();
    cluster.wait("an answer of both pods", || {
        who.extend(cluster.pod_asks(asks, &web, 80, "hostname").ok());
        (who.len() == 2).then_some(())
    });
    // Whichever of them answers, on the own node or another one, sees the pod that asks.
    for _ in 0..8 {
        let seen = cluster.pod_asks(asks, &web, 80, "clientip").expect("reached");
        assert_eq!(address_of(&seen), of_family(&asks.ips, v6));
    }
    // A pod is Ready before each node's kube-proxy has made the way to it.
    for node in &cluster.nodes {
        let reached = || node.host.asks(web.parse().expect("an address"), 80, "/hostname").ok();
        cluster.wait(&format!("an answer of the Service on {} itself", node.name), reached);
    }
    // Nobody but the pod itself is behind this one.
    let own = cluster.cluster_ip("single", v6).to_string();
    let answer = cluster.wait("an answer of its own", || cluster.pod_asks(single, &own, 80, "hostname").ok());
    assert_eq!(answer, "single");
}

fn node_ports(cluster: &Cluster<'_>, v6: bool) {
    let client = &cluster.ground.client;
    let [one, two] = [0, 1].map(|n| cluster.nodes[n].ip(v6));
    let web = cluster.node_port("web");
    for node in [one, two] {
        let mut who = BTreeSet::new();
        cluster.wait("an answer of both pods", || {
            who.extend(client.asks(node, web, "/hostname").ok());
            (who.len() == 2).then_some(())
        });
    }
    let local = cluster.node_port("single");
    let seen = cluster.wait("an answer", || client.asks(one, local, "/clientip").ok());
    assert_eq!(address_of(&seen), if v6 { "2001:db8:a25::50" } else { "192.0.2.50" }.parse::<IpAddr>().expect("valid"));
    client.asks(two, local, "/clientip").expect_err("it has no pod, and sends nobody elsewhere");
}

fn host_port(cluster: &Cluster<'_>, v6: bool, hosted: &Pod) {
    let node = cluster.node(&hosted.node);
    let seen = cluster.ground.client.asks(node.ip(v6), HOST_PORT, "/clientip").expect("reached");
    assert_eq!(address_of(&seen), if v6 { "2001:db8:a25::50" } else { "192.0.2.50" }.parse::<IpAddr>().expect("valid"));
    let other = cluster.nodes.iter().find(|other| other.name != hosted.node).expect("two nodes");
    other.host.asks(node.ip(v6), HOST_PORT, "/hostname").expect("reached from the other node");
}

pub(crate) fn headless(cluster: &mut Cluster<'_>) {
    let headless = service("db", "db", json!({"clusterIP": "None", "ports": [{"port": PORT, "targetPort": "http"}]}));
    cluster.apply(&[set("StatefulSet", "db", 2), headless, pod("asks", "asks", "node1")]);
    cluster.plane.wait("rollout status statefulset/db");
    let asks = cluster.wait_ready("asks");
    for name in ["db-0", "db-1"] {
        let to = format!("{name}.db.default.svc.cluster.local");
        let answer = cluster.wait(&to, || cluster.pod_asks(&asks, &to, PORT, "hostname").ok());
        assert_eq!(answer, name);
    }
    cluster.plane.run("delete service db");
    cluster.plane.wait("delete statefulset db --cascade=foreground");
    cluster.plane.wait("delete pod asks");
}
