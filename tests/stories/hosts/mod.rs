//! Hosts as they are: pods whose root is hostile, addresses that are somebody's already, and other people's tools that change
//! what flock has made while pods live.

mod behind;
mod hostile;
mod surroundings;

use crate::support::{self, Agent, Attached, Host, Pod, host_addresses, wait_for};

/// An uplink of the host: a veth pair whose other end is in the namespace of a router of its own.
fn uplink<'a>(host: &'a Host, name: &str, addresses: &[&str], router: &[&str]) -> Pod<'a> {
    let other = host.pod(&format!("router-{name}"));
    let mut script = format!(
        "ip link add {name} type veth peer name {name} netns router-{name}; ip link set {name} addrgenmode none; \
         ip -n router-{name} link set {name} addrgenmode none; ip link set {name} up; ip -n router-{name} link set {name} up; \
         ip -n router-{name} link set lo up;"
    );
    for address in addresses {
        script.push_str(&format!("ip addr add {address} dev {name} {};", nodad(address)));
    }
    for address in router {
        script.push_str(&format!("ip -n router-{name} addr add {address} dev {name} {};", nodad(address)));
    }
    support::succeed(host.command("sh").args(["-ec", &script]));
    wait_for("the uplink to be up", || host.run(&format!("ip link show {name}")).contains("state UP").then_some(()));
    other
}

fn nodad(address: &str) -> &'static str {
    if address.contains(':') { "nodad" } else { "" }
}

/// Pods that are attached, and what they got.
fn attached<'a>(host: &'a Host, names: &[&str]) -> Vec<(Pod<'a>, Attached)> {
    names
        .iter()
        .map(|name| {
            let pod = host.pod(name);
            let attached = host.add(&pod).result();
            (pod, attached)
        })
        .collect()
}

/// Each pod reaches the host and each other pod, at the latest after what is put right by itself.
#[track_caller]
fn assert_all_work(pods: &[(Pod<'_>, Attached)], when: &str) {
    for (pod, _) in pods {
        let others = pods.iter().filter(|(other, _)| other.name != pod.name).flat_map(|(_, attached)| attached.ips());
        for ip in host_addresses().into_iter().chain(others) {
            wait_for(&format!("{} to reach {ip}, {when}", pod.name), || pod.pings(ip).then_some(()));
        }
    }
}

/// A whole round of the agent.
fn round(agent: &Agent<'_>) {
    let host = agent.host;
    host.start_trace();
    let begun = || host.trace().matches("reconcile/compare\n").count();
    // The second one begins when the first is over.
    for _ in 0..2 {
        let before = begun();
        agent.signal("HUP");
        wait_for("a round", || (begun() > before).then_some(()));
    }
    host.end_trace();
}
