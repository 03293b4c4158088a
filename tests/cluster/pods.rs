//! Pods by themselves: their addresses, who they reach, and what kubelet does with them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Instant;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::asking::{PORT, address_of};
use crate::cluster::{Cluster, Pod};
use crate::support::waiting::wait_for;
use crate::workload::{pod, set};

/// The ranges that the node tells others of.
pub(crate) fn ranges(cluster: &Cluster<'_>, node: &str) -> Vec<IpNet> {
    let peer = cluster.get(&format!("nodepeer {node}")).expect("there is one");
    ["cidr4", "cidr6"].map(|family| peer["spec"][family].as_str().expect("a range").parse().expect("a prefix")).to_vec()
}

pub(crate) fn of_family(ips: &[IpAddr], v6: bool) -> IpAddr {
    *ips.iter().find(|ip| ip.is_ipv6() == v6).expect("one of this family")
}

//
pub(crate) fn reach(cluster: &mut Cluster<'_>) {
    cluster.apply(&[pod("a", "reach", "node1"), pod("b", "reach", "node1"), pod("c", "reach", "node2")]);
    let pods = ["a", "b", "c"].map(|name| cluster.wait_ready(name));
    for found in &pods {
        assert_eq!(found.ips.len(), 2, "an address of each family: {found:?}");
        assert!(found.ips[0].is_ipv4(), "the first is of the cluster's first family: {found:?}");
        let ranges = ranges(cluster, &found.node);
        assert!(found.ips.iter().all(|ip| ranges.iter().any(|range| range.contains(ip))), "{found:?} in {ranges:?}");
    }
    for v6 in [false, true] {
        for from in &pods {
            for to in &pods {
                let seen =
                    cluster.pod_asks(from, &of_family(&to.ips, v6).to_string(), PORT, "clientip").expect("reached");
                assert_eq!(address_of(&seen), of_family(&from.ips, v6), "the address of who asks, {from:?} to {to:?}");
            }
            // Somebody outside, by the router, with the own address as well.
            let client = if v6 { "2001:db8:a25::50" } else { "192.0.2.50" };
            let seen = cluster.ground.client.asks(of_family(&from.ips, v6), PORT, "/clientip").expect("reached");
            assert_eq!(address_of(&seen).to_string(), client);
            for node in &cluster.nodes {
                node.host.asks(of_family(&from.ips, v6), PORT, "/hostname").expect("reached from each node");
            }
        }
    }
    cluster.plane.wait("delete pod -l app=reach");
}

/// A pod that has no address of this family.
fn without(family: &str, name: &str, app: &str, node: &str) -> Value {
    let mut manifest = pod(name, app, node);
    manifest["metadata"]["annotations"] = json!({format!("flock.fritzlab.net/{family}"): "false"});
    manifest
}

// covers: E-24 S-10 Q-08
pub(crate) fn kubelet(cluster: &mut Cluster<'_>) {
    let only = |name: &str, not: &str| without(not, name, "kubelet", "node2");
    cluster.apply(&[only("four", "ipv6"), only("six", "ipv4")]);
    // Ready is what kubelet's probes say, which can go by the one family only.
    let [four, six] = ["four", "six"].map(|name| cluster.wait_ready(name));
    assert!(four.ips.len() == 1 && four.ips[0].is_ipv4(), "{four:?}");
    assert!(six.ips.len() == 1 && six.ips[0].is_ipv6(), "{six:?}");
    for name in ["four", "six"] {
        assert!(cluster.plane.run(&format!("exec {name} -- /agnhost --help")).contains("netexec"));
        assert!(cluster.plane.run(&format!("logs {name}")).contains("Started HTTP server"));
        let (to, ports) = (format!("pod/{name}"), format!("18080:{PORT}"));
        let forward = ["port-forward", &to, &ports, "--request-timeout=0"];
        let mut child = cluster.plane.command(&forward).stdout(Stdio::null()).spawn().expect("kubectl starts");
        let local = "127.0.0.1".parse().expect("an address");
        let answer = wait_for("the forwarded port", || cluster.ground.control.asks(local, 18080, "/hostname").ok());
        child.kill().ok();
        child.wait().ok();
        assert_eq!(answer, name);
    }
    cluster.plane.wait("delete pod -l app=kubelet");
}

// covers: E-25
pub(crate) fn static_pod(cluster: &mut Cluster<'_>) {
    let node = &cluster.nodes[1];
    let mut manifest = without("ipv4", "static", "static", &node.name);
    manifest["spec"]["hostname"] = json!("static");
    node.host.write("/etc/kubernetes/manifests/static.json", &manifest.to_string());
    let found = cluster.wait_ready("static-node2");
    assert!(found.ips.len() == 1 && found.ips[0].is_ipv6(), "its annotation counts: {found:?}");
    assert_eq!(cluster.nodes[0].host.asks(found.ips[0], PORT, "/hostname").as_deref(), Ok("static"));
    node.host.run("rm /etc/kubernetes/manifests/static.json");
    cluster.wait("it to go", || cluster.get("pod static-node2").is_none().then_some(()));
}

//
pub(crate) fn fifty(cluster: &mut Cluster<'_>) {
    let others: Vec<usize> = cluster.nodes.iter().map(|node| node.host.flock_links().len()).collect();
    let began = Instant::now();
    cluster.apply(&[set("Deployment", "fifty", 50)]);
    cluster.plane.wait("rollout status deployment/fifty");
    let up = began.elapsed();
    let pods = cluster.ready("app=fifty");
    assert_eq!(pods.len(), 50);
    let ips: BTreeSet<IpAddr> = pods.values().flat_map(|pod| pod.ips.clone()).collect();
    assert_eq!(ips.len(), 100, "no address twice");
    for node in &cluster.nodes {
        node.host.assert_sound("with fifty pods");
        let ranges = ranges(cluster, &node.name);
        let own = pods.values().filter(|pod| pod.node == node.name).flat_map(|pod: &Pod| &pod.ips);
        own.for_each(|ip| assert!(ranges.iter().any(|range| range.contains(ip)), "{ip} is not of {ranges:?}"));
    }
    let began = Instant::now();
    cluster.plane.wait("delete deployment fifty --cascade=foreground");
    for (node, others) in cluster.nodes.iter().zip(others) {
        wait_for("fifty pods to go", || (node.host.flock_links().len() == others).then_some(()));
        node.host.assert_sound("without them");
    }
    println!("50 pods are ready after {} ms and gone after {} ms", up.as_millis(), began.elapsed().as_millis());
    assert_eq!(cluster.failed_sandboxes(), Vec::<String>::new());
}

pub(crate) fn fixed(cluster: &mut Cluster<'_>) {
    let addresses: Vec<IpAddr> = ["203.0.113.5", "2001:db8:f::5"].map(|ip| ip.parse().expect("an address")).to_vec();
    let mut manifest = set("StatefulSet", "fixed", 1);
    let template = &mut manifest["spec"]["template"];
    template["metadata"]["annotations"] = json!({"flock.fritzlab.net/addresses": "203.0.113.5,2001:db8:f::5"});
    cluster.apply(&[manifest, pod("asks", "asks", "node1")]);
    let asks = cluster.wait_ready("asks");
    let mut places = BTreeSet::new();
    for away in ["node2", "node1"] {
        cluster.plane.run(&format!("cordon {away}"));
        if cluster.get("pod fixed-0").is_some_and(|pod| pod["spec"]["nodeName"] == away) || !places.is_empty() {
            cluster.plane.wait("delete pod fixed-0");
        }
        // A pod without a grace period is gone from the API before it is gone from its node.
        let has_it =
            || cluster.node(away).host.leases().iter().any(|lease| lease.addresses().any(|ip| addresses.contains(&ip)));
        wait_for("its end on that node", || (!has_it()).then_some(()));
        let found = cluster.wait_ready("fixed-0");
        assert_eq!(found.ips, addresses);
        for v6 in [false, true] {
            let to = of_family(&addresses, v6).to_string();
            let seen = cluster.wait("an answer", || cluster.pod_asks(&asks, &to, PORT, "clientip").ok());
            assert_eq!(address_of(&seen), of_family(&asks.ips, v6));
            // What it begins itself comes from there as well.
            let seen =
                cluster.pod_asks(&found, &of_family(&asks.ips, v6).to_string(), PORT, "clientip").expect("reached");
            assert_eq!(address_of(&seen), of_family(&addresses, v6));
        }
        places.insert(found.node);
        cluster.plane.run(&format!("uncordon {away}"));
    }
    assert_eq!(places.len(), 2, "it was on both nodes");
    cluster.plane.wait("delete statefulset fixed --cascade=foreground");
    cluster.plane.wait("delete pod asks");
}
