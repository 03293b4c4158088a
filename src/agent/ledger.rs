//! The single writer. One thread owns the allocator and the store; everybody else holds a handle whose methods read like
//! calls and end by the request's deadline.
//!
//! It also keeps the claims: while one request works on an attachment, others for the same one wait their turn. It never
//! touches the kernel's network state and never waits for anything but its own disk.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::addr::{Attachment, IfName, LinkEnd};
use crate::agent::fault::Cause;
use crate::agent::suspicion::Suspects;
use crate::boot;
use crate::disk::{Disk, DiskError};
use crate::ipam::{self, Draw, Ipam};
use crate::lease::{Lease, Phase, PodName};
use crate::pulse::Pulse;
use crate::store::Store;

/// How many names are tried for a host link before two attachments count as inseparable.
const LINK_NAMES: u8 = 16;

/// What an ADD wants recorded.
#[derive(Debug)]
pub struct Wish {
    /// The key.
    pub attachment: Attachment,
    /// CNI network name.
    pub network: String,
    /// Namespace path, as given.
    pub netns: String,
    /// The pod, if told.
    pub pod: Option<PodName>,
    /// MTU for both ends, in bytes.
    pub mtu: u32,
    /// The next hop of the pod's IPv4 default route.
    pub gateway4: Ipv4Addr,
    /// Which run of the plugin asks.
    pub call: Option<String>,
    /// The addresses wanted.
    pub addresses: ipam::Request,
}

/// A lease that was just made, and what the allocator has to say about it.
#[derive(Debug)]
pub struct Reserved {
    /// The lease, pending.
    pub lease: Lease,
    /// Things that went another way than was asked, for the log.
    pub warnings: Vec<String>,
}

/// The node's ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    /// IPv6.
    pub cidr6: Option<Ipv6Net>,
    /// IPv4.
    pub cidr4: Option<Ipv4Net>,
    /// Addresses of the host itself, which no pod gets.
    pub host: Vec<IpAddr>,
}

/// How full the node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filling {
    /// Recorded leases, pending ones too.
    pub leases: usize,
    /// Addresses of both families.
    pub addresses: ipam::Counts,
}

enum Command {
    Claim { attachment: Attachment, reply: Sender<Claim> },
    Unclaim(Attachment),
    Find { attachment: Attachment, reply: Sender<Option<Lease>> },
    Leases { reply: Sender<(Vec<Lease>, HashSet<Attachment>)> },
    AtRest { suspects: Suspects, reply: Sender<bool> },
    Reserve { wish: Box<Wish>, reply: Sender<Result<Reserved, Cause>> },
    Record { lease: Box<Lease>, reply: Sender<Result<(), DiskError>> },
    Adopt { lease: Box<Lease>, reply: Sender<Result<bool, DiskError>> },
    Release { attachment: Attachment, reply: Sender<Result<(), DiskError>> },
    Settle { reply: Sender<Result<bool, DiskError>> },
    Configure(Ranges),
    Filling { reply: Sender<Filling> },
}

/// The handle.
#[derive(Debug, Clone)]
pub struct Ledger {
    commands: Sender<Command>,
    pulse: Pulse,
}

/// The right to work on one attachment. Given back when dropped.
#[derive(Debug)]
pub struct Claim {
    attachment: Attachment,
    commands: Sender<Command>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The ledger ends only with the process.
        self.commands.send(Command::Unclaim(self.attachment.clone())).ok();
    }
}

impl Ledger {
    /// Starts the thread with the contents of `store`: held addresses are taken, freed ones rest.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start<D, R>(store: Store<D>, draw: R) -> std::io::Result<Ledger>
    where
        D: Disk + 'static,
        R: Draw + Send + 'static,
    {
        let mut ipam = Ipam::new(None, None);
        for freed in store.freed() {
            for ip in &freed.ips {
                ipam.restore_rest(*ip, freed.at);
            }
        }
        for ip in store.leases().flat_map(Lease::addresses) {
            ipam.hold(ip);
        }
        let names = store.leases().map(|lease| (lease.host_link.clone(), lease.attachment.clone())).collect();
        let (commands, inbox) = mpsc::channel();
        let mut books = Books { store, ipam, draw, names, claims: HashMap::new(), commands: commands.clone() };
        let pulse = Pulse::default();
        let theirs = pulse.clone();
        thread::Builder::new().name("ledger".into()).spawn(move || books.keep(&inbox, &theirs))?;
        Ok(Ledger { commands, pulse })
    }

    /// The thread's: at work on one command, at rest until the next. However many wait, a disk that is slow and not stuck lets
    /// it rest in between.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    fn ask<T>(&self, deadline: Instant, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, Cause> {
        let (reply, answer) = mpsc::channel();
        self.commands.send(command(reply)).map_err(|_| Cause::Stopping)?;
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => Cause::Late,
            mpsc::RecvTimeoutError::Disconnected => Cause::Stopping,
        })
    }

    /// Waits until no other request works on `attachment`.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn claim(&self, attachment: &Attachment, deadline: Instant) -> Result<Claim, Cause> {
        // The claim itself is the answer: if the time runs out just as it comes, it is dropped and the turn passes on.
        self.ask(deadline, |reply| Command::Claim { attachment: attachment.clone(), reply })
    }

    /// The lease of `attachment`.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn find(&self, attachment: &Attachment, deadline: Instant) -> Result<Option<Lease>, Cause> {
        self.ask(deadline, |reply| Command::Find { attachment: attachment.clone(), reply })
    }

    /// All leases, and the attachments that requests are working on.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn leases(&self, deadline: Instant) -> Result<(Vec<Lease>, HashSet<Attachment>), Cause> {
        self.ask(deadline, |reply| Command::Leases { reply })
    }

    /// Whether any of `suspects` is a lease's that no request is working on: only of those it is odd that something of their
    /// links has changed.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn any_at_rest(&self, suspects: Suspects, deadline: Instant) -> Result<bool, Cause> {
        self.ask(deadline, |reply| Command::AtRest { suspects, reply })
    }

    /// Takes addresses and records a pending lease. On an error nothing is taken.
    ///
    /// # Errors
    /// No address, no record, or no time.
    pub fn reserve(&self, wish: Wish, deadline: Instant) -> Result<Reserved, Cause> {
        self.ask(deadline, |reply| Command::Reserve { wish: Box::new(wish), reply })?
    }

    /// STUB
    pub fn replace(&self, _: &Attachment, _: IpAddr, _: Instant) -> Result<Reserved, Cause> {
        Err(Cause::Stopping)
    }

    /// Records a lease as it is now. Its addresses count as taken.
    ///
    /// # Errors
    /// It is not durable, and the former record is in force.
    pub fn record(&self, lease: Lease, deadline: Instant) -> Result<(), Cause> {
        Ok(self.ask(deadline, |reply| Command::Record { lease: Box::new(lease), reply })??)
    }

    /// Takes over a lease that was found in the kernel. Its addresses count as taken. False, and nothing is changed, if one
    /// of them is held by another lease: the next comparison tells of both.
    ///
    /// # Errors
    /// It is in force all the same unless this is [`Cause::Late`]; only the record of it may not be durable.
    pub fn adopt(&self, lease: Lease, deadline: Instant) -> Result<bool, Cause> {
        Ok(self.ask(deadline, |reply| Command::Adopt { lease: Box::new(lease), reply })??)
    }

    /// Ends a lease; its addresses rest from now on. The caller has seen that its link is gone.
    ///
    /// # Errors
    /// The lease has ended all the same unless this is [`Cause::Late`]; only the record of it may not be durable.
    pub fn release(&self, attachment: &Attachment, deadline: Instant) -> Result<(), Cause> {
        Ok(self.ask(deadline, |reply| Command::Release { attachment: attachment.clone(), reply })??)
    }

    /// Makes durable what is in force and is not on the disk yet, because the disk failed. True if there was something.
    ///
    /// # Errors
    /// The disk fails still, or [`Cause::Late`].
    pub fn settle(&self, deadline: Instant) -> Result<bool, Cause> {
        Ok(self.ask(deadline, |reply| Command::Settle { reply })??)
    }

    /// Puts the node's ranges in force for allocations from now on.
    pub fn configure(&self, ranges: Ranges) {
        self.commands.send(Command::Configure(ranges)).ok();
    }

    /// How full the node is.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn filling(&self, deadline: Instant) -> Result<Filling, Cause> {
        self.ask(deadline, |reply| Command::Filling { reply })
    }
}

struct Books<D, R> {
    store: Store<D>,
    ipam: Ipam,
    draw: R,
    /// Which attachment has which host link name.
    names: HashMap<IfName, Attachment>,
    /// Who waits behind each claimed attachment.
    claims: HashMap<Attachment, VecDeque<Sender<Claim>>>,
    /// For the claims that are handed out.
    commands: Sender<Command>,
}

impl<D: Disk, R: Draw> Books<D, R> {
    fn keep(&mut self, inbox: &Receiver<Command>, pulse: &Pulse) {
        // A caller that gave up has dropped its receiver; what was done for it is found by its DEL or by recovery.
        while let Ok(command) = pulse.resting(|| inbox.recv()) {
            match command {
                Command::Claim { attachment, reply } => self.claim(attachment, reply),
                Command::Unclaim(attachment) => self.unclaim(&attachment),
                Command::Find { attachment, reply } => {
                    reply.send(self.store.get(&attachment).cloned()).ok();
                }
                Command::Leases { reply } => {
                    let busy = self.claims.keys().cloned().collect();
                    reply.send((self.store.leases().cloned().collect(), busy)).ok();
                }
                Command::AtRest { suspects, reply } => {
                    let mut at_rest = self.store.leases().filter(|lease| !self.claims.contains_key(&lease.attachment));
                    let suspicious = |lease: &Lease| {
                        lease.host_index.is_none_or(|index| suspects.links.contains(&index))
                            || lease.addresses().any(|ip| suspects.addresses.contains(&ip))
                    };
                    reply.send(at_rest.any(|lease| suspects.all || suspicious(lease))).ok();
                }
                Command::Reserve { wish, reply } => {
                    reply.send(self.reserve(*wish)).ok();
                }
                Command::Record { lease, reply } => {
                    reply.send(self.record(*lease)).ok();
                }
                Command::Adopt { lease, reply } => {
                    reply.send(self.adopt(*lease)).ok();
                }
                Command::Release { attachment, reply } => {
                    reply.send(self.release(&attachment)).ok();
                }
                Command::Settle { reply } => {
                    reply.send(self.store.settle()).ok();
                }
                Command::Configure(ranges) => {
                    self.ipam.set_ranges(ranges.cidr6, ranges.cidr4);
                    self.ipam.reserve(ranges.host);
                }
                Command::Filling { reply } => {
                    let addresses = self.ipam.counts(boot::now_ms());
                    reply.send(Filling { leases: self.store.leases().count(), addresses }).ok();
                }
            }
        }
    }

    fn claim(&mut self, attachment: Attachment, reply: Sender<Claim>) {
        match self.claims.get_mut(&attachment) {
            Some(waiting) => waiting.push_back(reply),
            None => {
                self.claims.insert(attachment.clone(), VecDeque::new());
                self.grant(attachment, &reply);
            }
        }
    }

    /// A claim that does not reach its owner is dropped, and comes back as [`Command::Unclaim`].
    fn grant(&self, attachment: Attachment, reply: &Sender<Claim>) {
        reply.send(Claim { attachment, commands: self.commands.clone() }).ok();
    }

    fn unclaim(&mut self, attachment: &Attachment) {
        match self.claims.get_mut(attachment).and_then(VecDeque::pop_front) {
            Some(next) => self.grant(attachment.clone(), &next),
            None => {
                self.claims.remove(attachment);
            }
        }
    }

    fn reserve(&mut self, wish: Wish) -> Result<Reserved, Cause> {
        if self.store.get(&wish.attachment).is_some() {
            return Err(Cause::Attached(wish.attachment));
        }
        let attachment = wish.attachment;
        let names = (0..LINK_NAMES).map(|attempt| attachment.host_link(attempt));
        let free = names.into_iter().find(|name| !self.names.contains_key(name));
        let host_link = free.ok_or_else(|| Cause::HostLinkExists(attachment.host_link(0)))?;
        let now = boot::now_ms();
        let allocation = self.ipam.allocate(&wish.addresses, now, &mut self.draw)?;
        let lease = Lease {
            phase: Phase::Pending,
            network: wish.network,
            netns: wish.netns,
            host_link,
            host_mac: attachment.mac(LinkEnd::Host),
            pod_mac: Some(attachment.mac(LinkEnd::Pod)),
            mtu: wish.mtu,
            ipv6: allocation.ipv6,
            ipv4: allocation.ipv4,
            gateway4: wish.gateway4,
            host_index: None,
            pod: wish.pod,
            since: now,
            call: wish.call,
            attachment,
        };
        if let Err(error) = self.store.put(lease.clone()) {
            for ip in lease.addresses() {
                self.ipam.give_back(ip);
            }
            return Err(error.into());
        }
        self.names.insert(lease.host_link.clone(), lease.attachment.clone());
        let warnings = allocation.warnings.iter().map(ToString::to_string).collect();
        Ok(Reserved { lease, warnings })
    }

    fn record(&mut self, lease: Lease) -> Result<(), DiskError> {
        self.store.put(lease.clone())?;
        self.take(lease);
        Ok(())
    }

    fn adopt(&mut self, lease: Lease) -> Result<bool, DiskError> {
        let others = self.store.leases().filter(|other| other.attachment != lease.attachment);
        if others.flat_map(Lease::addresses).any(|ip| lease.addresses().any(|mine| mine == ip)) {
            return Ok(false);
        }
        let durable = self.store.adopt(lease.clone());
        self.take(lease);
        durable.map(|()| true)
    }

    fn take(&mut self, lease: Lease) {
        for ip in lease.addresses() {
            self.ipam.hold(ip);
        }
        self.names.insert(lease.host_link, lease.attachment);
    }

    fn release(&mut self, attachment: &Attachment) -> Result<(), DiskError> {
        let Some(lease) = self.store.get(attachment).cloned() else { return Ok(()) };
        let now = boot::now_ms();
        let freed = self.store.free(attachment, now);
        for ip in lease.addresses() {
            self.ipam.release(ip, now);
        }
        self.names.remove(&lease.host_link);
        freed
    }
}
