//! Anycast addresses of this node's pods: asks what `model::routes::anycast` wants to know, and nothing where no pod shares an
//! address.
//!
//! Whether a pod may be sent traffic comes from the API server's view of it. Without Kubernetes a pod serves from ADD to DEL. Must
//! not change a route itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::agent::node::pods::Pods;
use crate::agent::routing::flaps::{Counted, Flaps};
use crate::agent::suspicion::Suspicions;
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::process::log;
use model::lease::Lease;
use model::routes::Routes;
use model::routes::anycast::{self, Foreign, Standing, Support};

/// Who serves, and what the kernel can.
#[derive(Debug)]
pub struct Anycast {
    /// The pods of the API server; none without Kubernetes.
    pods: Option<Pods>,
    /// What the kernel knows of nexthop objects; none before anybody needed it.
    support: Option<Support>,
    /// What is told which links the answers rest on.
    suspicions: Suspicions,
    flaps: Flaps,
    /// At the last look, some pod of this node had an address that it shares.
    shared: bool,
}

impl Anycast {
    /// Addresses shared by `pods`. `suspicions` wakes the thread when the link of one of them gets or loses its carrier.
    pub fn new(pods: Option<Pods>, suspicions: Suspicions) -> Anycast {
        Anycast { pods, support: None, suspicions, flaps: Flaps::default(), shared: false }
    }

    /// What leads to the anycast addresses of `leases` and what of it is announced, after what the kernel shows.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn wanted(&mut self, conn: &mut Conn, leases: &[Lease], shown: &Routes) -> Result<Routes, NetlinkError> {
        // Before the look at the links, so that no change behind it is missed.
        let sharing = leases.iter().filter(|lease| !lease.anycast.is_empty());
        let links: BTreeSet<u32> = sharing.filter_map(|lease| lease.host_index).collect();
        self.flaps.look(&links);
        self.suspicions.watch(links);
        self.shared = leases.iter().any(|lease| !lease.anycast.is_empty());
        if !self.shared {
            return Ok(Routes::default());
        }
        let support = self.support(conn)?;
        let numbers = match support {
            Support::Absent => BTreeSet::new(),
            Support::Plain | Support::Resilient => conn.nexthop_objects()?.numbers(),
        };
        let foreign = Foreign { numbers, routes: left_routes(conn, leases, shown)? };
        let mut pods = Vec::with_capacity(leases.len());
        for lease in leases {
            let reachable = !lease.anycast.is_empty() && self.sends(conn, lease)?;
            let serves = if reachable { self.serves(lease) } else { None };
            pods.push((lease, Standing { serves, reachable }));
        }
        Ok(anycast::wanted(pods, shown, &foreign, support))
    }

    /// Whether anything of what was wanted at the last look depends on what pods serve.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// When to look again without any news.
    pub fn again_at(&self) -> Option<Instant> {
        self.flaps.again_at()
    }

    /// Whether the link of `lease` stands, and both of its ends are up, and have not come and gone all the time.
    fn sends(&mut self, conn: &mut Conn, lease: &Lease) -> Result<bool, NetlinkError> {
        let Some(index) = lease.host_index else { return Ok(false) };
        let up = conn.link_at(index)?.is_some_and(|link| link.up && link.carrier);
        let counted = self.flaps.count(index, up, Instant::now());
        if counted == (Counted::Held { first: true }) {
            log::warn("a pod takes its interface down again and again, and gets less of what it shares")
                .about(lease)
                .with("remedy", "let what sets the interface down in the pod leave it up, or delete the pod")
                .write_limited();
        }
        Ok(counted == Counted::Up)
    }

    /// None where nobody can say.
    fn serves(&self, lease: &Lease) -> Option<bool> {
        match (&self.pods, &lease.pod) {
            (Some(pods), Some(pod)) => pods.serves(pod),
            // Read back from the kernel, without its name.
            (Some(_), None) => None,
            (None, _) => Some(true),
        }
    }

    fn support(&mut self, conn: &mut Conn) -> Result<Support, NetlinkError> {
        if let Some(support) = self.support {
            return Ok(support);
        }
        let support = conn.nexthop_support()?;
        match support {
            Support::Resilient => {}
            Support::Plain => {
                log::warn("this kernel has no resilient nexthop groups: flows to an anycast address move when pods of it come and go")
                    .with("remedy", "Linux 5.12 or newer")
                    .write();
            }
            Support::Absent => {
                log::warn(
                    "this kernel has no nexthop objects: one pod of each anycast address is reached on this node",
                )
                .with("remedy", "Linux 5.3 or newer")
                .write();
            }
        }
        Ok(*self.support.insert(support))
    }
}

/// What stands where routes to the anycast addresses of `leases` belong and are not. Mostly all are there, and nothing is asked.
fn left_routes(
    conn: &mut Conn,
    leases: &[Lease],
    shown: &Routes,
) -> Result<BTreeMap<IpAddr, BTreeSet<u32>>, NetlinkError> {
    let addresses: BTreeSet<IpAddr> = leases.iter().flat_map(|lease| &lease.anycast).copied().collect();
    let mut left = BTreeMap::new();
    for ip in addresses {
        let key = anycast::leads(ip);
        if !shown.routes.contains_key(&key) {
            left.extend(conn.left_route(key)?.map(|links| (ip, links)));
        }
    }
    Ok(left)
}
