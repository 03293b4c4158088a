//! Which addresses of other nodes are on a link of this host: asked of the kernel once, and again when it may have changed.
//!
//! An address is on a link when the route that a packet to it would take has no gateway and is somebody else's than flock's. A
//! default route without a gateway does not count: it says nothing about an address. Decides nothing, and must not change anything.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use model::peers::Reach;

/// What the kernel has answered so far: the index of the link, or none for an address beyond a router.
#[derive(Debug, Clone, Default)]
pub struct OnLink(BTreeMap<IpAddr, Option<u32>>);

impl OnLink {
    /// Forgets everything, as after an announcement of the kernel that somebody has changed routes, links or addresses.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// Those of `asked` that are on a link. Asks the kernel about those that are new, one small question each, and forgets the
    /// others.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn among(&mut self, asked: impl Iterator<Item = IpAddr>, conn: &mut Conn) -> Result<Reach, NetlinkError> {
        let mut before = std::mem::take(&mut self.0);
        let mut objects = None;
        for ip in asked {
            if self.0.contains_key(&ip) {
                continue;
            }
            let link = match before.remove(&ip) {
                Some(known) => known,
                None => {
                    let objects = match &objects {
                        Some(objects) => objects,
                        None => objects.insert(conn.nexthop_objects()?),
                    };
                    let route = conn.foreign_route_for(ip, objects)?;
                    route.filter(|route| route.to.prefix_len() > 0).and_then(|route| match route.hops[..] {
                        [(Some(link), None)] => Some(link),
                        _ => None,
                    })
                }
            };
            self.0.insert(ip, link);
        }
        Ok(self.0.iter().filter_map(|(ip, link)| Some((*ip, (*link)?))).collect())
    }
}
