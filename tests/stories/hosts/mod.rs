//! Hosts as they are: pods whose root is hostile, addresses that are somebody's already, and other people's tools that change
//! what flock has made while pods live.

mod behind;
mod hostile;
mod neighbours;
mod surroundings;

use crate::support::host::host_addresses;
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::waiting::wait_for;

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
