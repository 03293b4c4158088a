//! What a node announces of its own: its ranges, and each address of a pod that lies in none of them.
//!
//! Anycast addresses are announced with the routes that lead to them, which is not decided here. Must not ask whether anybody
//! takes the announcements up.

use core::net::IpAddr;

use ipnet::IpNet;

use crate::lease::{Lease, Phase};
use crate::routes::{ANNOUNCED, RouteKey, Routes, Way};

/// Metric of what has one announcement only.
const ONLY: u32 = 1;

/// The announcements of `prefixes`, the node's ranges, and of the addresses of `leases` outside of them. Such an address is bound
/// to its pod's link, so that the kernel withdraws it with the link even if no agent runs. One that is `contested`, since a pod of
/// another node has claimed it before, is not announced.
pub fn own<'a>(
    prefixes: &[IpNet],
    leases: impl IntoIterator<Item = &'a Lease>,
    contested: impl Fn(IpAddr) -> bool,
) -> Routes {
    let mut announced = Routes::default();
    let key = |to| RouteKey { table: ANNOUNCED, to, metric: ONLY };
    announced.routes.extend(prefixes.iter().map(|prefix| (key(*prefix), Way::Unreachable)));
    for lease in leases.into_iter().filter(|lease| lease.phase == Phase::Committed) {
        let Some(link) = lease.host_index else { continue };
        let outside = lease.outside(prefixes).filter(|ip| !contested(*ip));
        announced.routes.extend(outside.map(|ip| (key(IpNet::from(ip)), Way::Link(link))));
    }
    announced
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;
    use crate::examples::lease;

    fn prefixes(of: &[&str]) -> Vec<IpNet> {
        of.iter().map(|prefix| prefix.parse().expect("a prefix")).collect()
    }

    fn said(routes: &Routes) -> Vec<String> {
        routes.routes.iter().map(|(key, way)| format!("{} {} {way}", key.to, key.metric)).collect()
    }

    #[test]
    fn a_node_announces_its_ranges_and_what_its_pods_have_beyond_them() {
        let mut inside = lease("abc/eth0");
        inside.host_index = Some(7);
        let mut outside = lease("def/eth0");
        (outside.host_index, outside.ipv4) = (Some(8), "203.0.113.5".parse().ok());
        let ranges = prefixes(&["2001:db8::/64", "10.0.0.0/24"]);
        let all = own(&ranges, [&inside, &outside], |_| false);
        assert_eq!(
            said(&all),
            ["10.0.0.0/24 1 unreachable", "203.0.113.5/32 1 by link 8", "2001:db8::/64 1 unreachable"]
        );
        let contested = own(&ranges, [&outside], |ip| ip.is_ipv4());
        assert_eq!(said(&contested), ["10.0.0.0/24 1 unreachable", "2001:db8::/64 1 unreachable"]);
    }

    #[test]
    fn what_is_not_committed_or_has_no_link_is_not_announced() {
        let mut pending = lease("abc/eth0");
        (pending.host_index, pending.phase) = (Some(7), Phase::Pending);
        let mut unknown = lease("def/eth0");
        unknown.host_index = None;
        assert_eq!(own(&[], [&pending, &unknown], |_| false), Routes::default());
    }
}
