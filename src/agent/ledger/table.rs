//! What attachments hold: the recorded leases, and the addresses and link names that these take.
//!
//! All three change together, by [`Table::apply`] alone. A change is in force at once and durable after [`Table::sync`]; if that
//! fails, what needs a record is undone. Must not know who asks, or the kernel.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::IpAddr;

use crate::agent::fault::{Cause, Holder};
use crate::agent::ledger::{NewLease, Ranges, Usage};
use crate::record::disk::{Disk, DiskError};
use crate::record::store::{Applied, Change, Store, undo_all};
use model::addr::{Attachment, IfName, LinkEnd, fnv1a64};
use model::ipam::{self, Draw, Ipam, IpamError, Owner};
use model::lease::{Lease, Phase, PodName};

/// Most names that are tried for a host link: two attachments may have the same first one.
const LINK_NAMES: u8 = 16;

/// Most addresses that are kept in mind because they proved to be somebody else's. With one more, the oldest may be tried again.
pub(super) const AVOIDED_MAX: usize = 1024;

/// The leases with all that they take.
pub(super) struct Table<D, R> {
    store: Store<D>,
    ipam: Ipam,
    draw: R,
    /// Which attachment has which host link name.
    names: HashMap<IfName, Attachment>,
    /// Changes in force that are not durable yet, in order.
    applied: Vec<Applied>,
    /// Addresses of the host itself, as they were seen last.
    host: Vec<IpAddr>,
    /// Addresses that proved to be somebody's since, oldest first.
    avoided: VecDeque<IpAddr>,
}

impl<D: Disk, R: Draw> Table<D, R> {
    /// A table with the contents of `store`: held addresses are taken, freed ones rest.
    pub(super) fn new(store: Store<D>, draw: R) -> Table<D, R> {
        let mut ipam = Ipam::new(None, None);
        for freed in store.freed() {
            for ip in &freed.ips {
                ipam.restore_rest(*ip, owner(freed.pod.as_ref(), &freed.attachment), freed.at);
            }
        }
        for ip in store.leases().flat_map(Lease::addresses) {
            ipam.hold(ip);
        }
        let names = store.leases().map(|lease| (lease.host_link.clone(), lease.attachment.clone())).collect();
        let (applied, host, avoided) = (Vec::new(), Vec::new(), VecDeque::new());
        Table { store, ipam, draw, names, applied, host, avoided }
    }

    pub(super) fn get(&self, attachment: &Attachment) -> Option<&Lease> {
        self.store.get(attachment)
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.store.leases()
    }

    /// How full the node is at `now`, in milliseconds of the boot clock.
    pub(super) fn usage(&self, now: u64) -> Usage {
        let pending = self.store.leases().filter(|lease| lease.phase == Phase::Pending).count();
        Usage { leases: self.store.leases().count(), pending, addresses: self.ipam.counts(now) }
    }

    /// Puts the node's ranges in force for leases from now on.
    pub(super) fn configure(&mut self, ranges: Ranges) {
        self.ipam.set_ranges(ranges.cidr6, ranges.cidr4);
        self.host = ranges.host;
        self.avoided.clear();
        self.reserve_what_is_not_ours();
    }

    fn reserve_what_is_not_ours(&mut self) {
        self.ipam.reserve(self.host.iter().chain(&self.avoided).copied());
    }

    /// Puts a change in force.
    pub(super) fn apply(&mut self, change: Change) {
        let applied = self.store.apply(change);
        let after = self.store.get(applied.change.attachment()).cloned();
        self.follow(applied.before.as_ref(), after.as_ref(), |ipam, lease, ip| match &applied.change {
            Change::Free { attachment, at } => ipam.release(ip, owner(lease.pod.as_ref(), attachment), *at),
            // No packet has carried the address, so it does not rest.
            Change::Put(_) | Change::Adopt(_) => ipam.give_back(ip),
        });
        self.applied.push(applied);
    }

    fn undo(&mut self, applied: Applied) -> Change {
        let attachment = applied.change.attachment().clone();
        let after = self.store.get(&attachment).cloned();
        let change = self.store.undo(applied);
        let before = self.store.get(&attachment).cloned();
        self.follow(after.as_ref(), before.as_ref(), |ipam, _, ip| ipam.give_back(ip));
        change
    }

    /// Takes addresses and link name of one lease in place of those of another. `leave` is for each address that is not needed
    /// any more.
    fn follow(&mut self, from: Option<&Lease>, to: Option<&Lease>, leave: impl Fn(&mut Ipam, &Lease, IpAddr) -> bool) {
        if let Some(from) = from {
            let kept: Vec<IpAddr> = to.iter().flat_map(|to| to.addresses()).collect();
            for ip in from.addresses().filter(|ip| !kept.contains(ip)) {
                leave(&mut self.ipam, from, ip);
            }
            self.names.remove(&from.host_link);
        }
        if let Some(to) = to {
            to.addresses().for_each(|ip| self.ipam.hold(ip));
            self.names.insert(to.host_link.clone(), to.attachment.clone());
        }
    }

    /// Makes durable what was put in force since the last call.
    ///
    /// # Errors
    /// None of it is durable for certain. What needs that is undone, and the rest is in force.
    pub(super) fn is_changed(&self) -> bool {
        !self.applied.is_empty()
    }

    pub(super) fn sync(&mut self) -> Result<(), DiskError> {
        let applied = mem::take(&mut self.applied);
        if applied.is_empty() {
            // If the disk lacks earlier changes, [`Table::settle`] writes them and tells so.
            return Ok(());
        }
        let synced = self.store.sync();
        if synced.is_err() {
            for change in undo_all(applied, |applied| self.undo(applied)) {
                match change {
                    // An address of it may be somebody else's again: the next comparison tells of both.
                    Change::Adopt(lease) if !self.is_free_for(&lease) => {}
                    change => self.apply(change),
                }
            }
            // The next log holds these changes in any case.
            self.applied.clear();
        }
        synced
    }

    /// As [`Store::settle`].
    pub(super) fn settle(&mut self) -> Result<bool, DiskError> {
        self.store.settle()
    }

    /// Takes addresses and makes a pending lease at `now`, in milliseconds of the boot clock. Returns it with what an operator
    /// should know of the choice.
    pub(super) fn reserve(&mut self, new: NewLease, now: u64) -> Result<(Lease, Vec<String>), Cause> {
        let attachment = new.attachment.clone();
        if self.store.get(&attachment).is_some() {
            return Err(Cause::Attached(attachment));
        }
        let names = (0..LINK_NAMES).map(|attempt| attachment.host_link(attempt));
        let free = names.into_iter().find(|name| !self.names.contains_key(name));
        let host_link = free.ok_or_else(|| Cause::HostLinkExists(attachment.host_link(0)))?;
        let asker = owner(new.pod.as_ref(), &attachment);
        self.check_shared(&new)?;
        let allocated = self.ipam.allocate(&new.addresses, asker, now, &mut self.draw);
        let allocation = allocated.map_err(|error| self.with_holder(error))?;
        let lease = Lease {
            phase: Phase::Pending,
            network: new.network,
            netns: new.netns,
            host_link,
            host_mac: attachment.mac(LinkEnd::Host),
            pod_mac: Some(attachment.mac(LinkEnd::Pod)),
            mtu: new.mtu,
            ipv6: allocation.ipv6,
            ipv4: allocation.ipv4,
            extra: allocation.extra,
            anycast: new.anycast,
            any_source: new.any_source,
            audit: new.audit,
            gateway4: new.gateway4,
            host_index: None,
            pod: new.pod,
            since: now,
            call: new.call,
            attachment,
        };
        self.apply(Change::Put(Box::new(lease.clone())));
        Ok((lease, allocation.warnings.iter().map(ToString::to_string).collect()))
    }

    /// An address is one pod's or it is shared: what one pod has for its own is no anycast address of another one.
    fn check_shared(&self, new: &NewLease) -> Result<(), Cause> {
        let held = |ip: &IpAddr, lease: &Lease| Cause::Held { ip: *ip, holder: Box::new(Holder::of(lease)) };
        for ip in &new.anycast {
            if self.host.contains(ip) {
                return Err(IpamError::Reserved(*ip).into());
            }
            if let Some(lease) = self.holders(*ip).next() {
                return Err(held(ip, lease));
            }
        }
        for ip in &new.addresses.fixed {
            if let Some(lease) = self.store.leases().find(|lease| lease.anycast.contains(ip)) {
                return Err(held(ip, lease));
            }
        }
        Ok(())
    }

    /// The leases that have this address. The allocator knows of most addresses at once that there are none, and spares a look at
    /// each lease.
    fn holders(&self, ip: IpAddr) -> impl Iterator<Item = &Lease> {
        let leases = self.ipam.holds(ip).then(|| self.store.leases());
        leases.into_iter().flatten().filter(move |lease| lease.addresses().any(|own| own == ip))
    }

    /// The allocator knows that an address is held, and the leases by whom.
    fn with_holder(&self, error: IpamError) -> Cause {
        match error {
            IpamError::Held(ip) => match self.holders(ip).next() {
                Some(lease) => Cause::Held { ip, holder: Box::new(Holder::of(lease)) },
                None => error.into(),
            },
            other => other.into(),
        }
    }

    /// Gives a pending lease another address in place of `bad`; see [`super::Claim::replace`].
    pub(super) fn replace(
        &mut self,
        attachment: &Attachment,
        bad: IpAddr,
        wanted: &ipam::Request,
        now: u64,
    ) -> Result<(Lease, Vec<String>), Cause> {
        let Some(mut lease) = self.store.get(attachment).cloned() else {
            return Err(Cause::Unknown(attachment.clone()));
        };
        if lease.phase == Phase::Committed {
            return Err(Cause::Attached(attachment.clone()));
        }
        if !self.avoided.contains(&bad) {
            self.avoided.push_back(bad);
            if self.avoided.len() > AVOIDED_MAX {
                self.avoided.pop_front();
            }
            self.reserve_what_is_not_ours();
        }
        if !lease.addresses().any(|ip| ip == bad) {
            return Ok((lease, Vec::new()));
        }
        if wanted.fixed.contains(&bad) {
            // There is no other one for an address that the pod names.
            return Err(IpamError::Reserved(bad).into());
        }
        let wanted = match bad {
            IpAddr::V6(_) => ipam::Request { ipv6: wanted.ipv6.clone(), ..ipam::Request::default() },
            IpAddr::V4(_) => ipam::Request { ipv4: wanted.ipv4.clone(), ..ipam::Request::default() },
        };
        let asker = owner(lease.pod.as_ref(), attachment);
        let allocation = self.ipam.allocate(&wanted, asker, now, &mut self.draw)?;
        let warnings = allocation.warnings.iter().map(ToString::to_string).collect();
        if allocation.primary().next().is_some() {
            lease.ipv6 = allocation.ipv6.or(lease.ipv6);
            lease.ipv4 = allocation.ipv4.or(lease.ipv4);
            self.apply(Change::Put(Box::new(lease.clone())));
        }
        Ok((lease, warnings))
    }

    /// Takes over a lease that was found in the kernel at `now`, in the place of what is recorded of its attachment. False, and
    /// nothing is changed, if another lease has one of its addresses.
    pub(super) fn adopt(&mut self, lease: Lease, now: u64) -> bool {
        let is_free = self.is_free_for(&lease);
        if is_free {
            let leaves = |old: &Lease| old.addresses().any(|ip| lease.addresses().all(|own| own != ip));
            if self.store.get(&lease.attachment).is_some_and(leaves) {
                // Packets have carried an address that the pod has no more, so it rests, as that of any lease that ends.
                self.apply(Change::Free { attachment: lease.attachment.clone(), at: now });
            }
            self.apply(Change::Adopt(Box::new(lease)));
        }
        is_free
    }

    fn is_free_for(&self, lease: &Lease) -> bool {
        lease.addresses().all(|ip| self.holders(ip).all(|holder| holder.attachment == lease.attachment))
    }
}

/// Who has an address: the pod by its name, so that one that comes back in another sandbox counts as the same; without a name
/// the container, as the names of containers without Kubernetes mean nothing.
fn owner(pod: Option<&PodName>, attachment: &Attachment) -> Owner {
    let identity = match pod {
        Some(pod) => format!("pod {}/{}", pod.namespace, pod.name),
        None => format!("container {}", attachment.container_id),
    };
    Owner(fnv1a64(identity.as_bytes()))
}
