//! Neighbour proxies of all pods: the host answers for their addresses on the link that `spec.proxyNeighbours` names.
//!
//! An ADD and a DEL see to their own lease (`verbs/proxy.rs`). This file compares all of them with the kernel, in rounds and
//! whenever leases, the NodeConfig or links have changed: what was switched off goes, what was lost comes back, and a link that
//! appears later gets its entries. `model::proxy` decides; the settings of the link are the host's, in `node/survey.rs`. Must not
//! touch what somebody else has made.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::agent::fault::Cause;
use crate::agent::metrics::meters::{Mended, Meters};
use crate::kernel::netlink::conn::Conn;
use crate::kernel::netlink::link::Link;
use crate::process::failpoint;
use crate::process::log;
use model::addr::{Attachment, IfName};
use model::lease::{Lease, Phase};
use model::nodeconfig::NodeConfig;
use model::plan;
use model::proxy::{Leased, Place, Step, steps};

/// The leases, and the attachments that a request works on.
pub type Leases = (Vec<Lease>, HashSet<Attachment>);

/// What the last comparison has left.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Nothing is wanted, and nothing of flock's is there.
    idle: bool,
    /// Where the entries were wanted.
    place: Option<Place>,
    meters: Arc<Meters>,
    /// The failure that the log has, which needs no second line.
    said: Option<String>,
}

impl Neighbours {
    /// The same, counted by these meters.
    #[must_use]
    pub fn counted_by(self, meters: &Arc<Meters>) -> Neighbours {
        Neighbours { meters: meters.clone(), ..self }
    }

    /// Makes the kernel's entries those that `config` and the leases ask for; none for a NodeConfig that is not known yet. On a
    /// node that proxies for nobody this costs nothing, unless `due`: then the kernel is asked all the same. `leases` is asked
    /// after the kernel, so that no entry of an ADD counts as left behind.
    ///
    /// To be called again when a lease has come or gone, which also finds what a request has done meanwhile.
    ///
    /// # Errors
    /// The kernel or the ledger could not be asked. Single entries that fail are logged.
    pub fn keep(
        &mut self,
        config: Option<&NodeConfig>,
        due: bool,
        leases: impl FnOnce() -> Result<Leases, Cause>,
        deadline: Instant,
    ) -> Result<(), Cause> {
        let link = config.map(|config| config.proxy_neighbours.as_ref());
        if link == Some(None) && self.idle && !due {
            return Ok(());
        }
        failpoint::pass("neighbours.compare").ok();
        let mut conn = Conn::open(deadline)?;
        let shown = conn.proxies()?;
        let place = match link {
            None => Place::Unknown,
            Some(None) => Place::Nowhere,
            Some(Some(link)) => uplink(&mut conn, link)?.map_or(Place::Nowhere, |link| Place::Link(link.index)),
        };
        let steps = steps(place, &leased(&leases()?), &shown);
        // A settled lease has had its entry from its ADD on.
        let lost = self.place == Some(place) && steps.iter().any(|step| matches!(step, Step::Add(_)));
        let failure = carry_out(&mut conn, &steps, lost);
        if lost {
            let added = steps.iter().filter(|step| matches!(step, Step::Add(_))).count();
            self.meters.mended(Mended::Proxy, added as u64);
        }
        self.idle = link == Some(None) && failure.is_none();
        self.place = Some(place);
        if let Some(why) = &failure
            && self.said != failure
        {
            log::error("neighbour proxies are not as they should be").with("err", why).write_limited();
        }
        self.said = failure;
        Ok(())
    }
}

fn leased((leases, busy): &Leases) -> Leased {
    let mut leased = Leased::default();
    for lease in leases {
        let settled = lease.phase == Phase::Committed && !busy.contains(&lease.attachment);
        let set = if settled { &mut leased.settled } else { &mut leased.busy };
        set.extend(lease.addresses());
    }
    leased
}

/// The link on which the host is to answer; none if it is not there, or is one on which no router can be.
///
/// # Errors
/// The kernel could not be asked.
pub fn uplink(conn: &mut Conn, name: &IfName) -> Result<Option<Link>, Cause> {
    Ok(conn.link_named(name.as_str())?.filter(|link| !link.loopback && !is_pods(link)))
}

/// A pod's link may have any name, once somebody has renamed it.
fn is_pods(link: &Link) -> bool {
    link.alias.as_deref().is_some_and(|alias| plan::attachment_of_alias(alias).is_some())
}

/// Carries out `steps`, and says so. Returns the first failure: what comes behind it is tried all the same.
fn carry_out(conn: &mut Conn, steps: &[Step], lost: bool) -> Option<String> {
    if steps.is_empty() {
        return None;
    }
    failpoint::pass("neighbours.change").ok();
    let (mut added, mut removed, mut failure) = (0_usize, 0_usize, None);
    for step in steps {
        let (done, count) = match step {
            Step::Add(proxy) => (conn.add_proxy(*proxy), &mut added),
            Step::Remove(proxy) => (conn.remove_proxy(*proxy), &mut removed),
        };
        match done {
            Ok(()) => *count += 1,
            Err(error) => failure = failure.or(Some(error.to_string())),
        }
    }
    if added + removed > 0 {
        let line = match lost {
            true => log::warn("neighbour proxies were changed by somebody, and are put back"),
            false => log::info("neighbour proxies changed"),
        };
        line.number("added", added).number("removed", removed).write_limited();
    }
    failure
}
