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

use crate::agent::fault::Cause;
use crate::agent::suspicion::Suspects;
use crate::process::progress::Pulse;
use crate::record::boot_clock;
use crate::record::disk::{Disk, DiskError};
use crate::record::store::Store;
use model::addr::{Attachment, IfName, LinkEnd, fnv1a64};
use model::ipam::{self, Draw, Ipam, Owner};
use model::lease::{Lease, Phase, PodName};

/// How many names are tried for a host link before two attachments count as inseparable.
const LINK_NAMES: u8 = 16;

/// How many addresses that proved to be taken are kept in mind; the oldest is tried again then.
const AVOIDED: usize = 1024;

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
    Claim {
        attachment: Attachment,
        reply: Sender<Claim>,
    },
    Unclaim(Attachment),
    Find {
        attachment: Attachment,
        reply: Sender<Option<Lease>>,
    },
    Leases {
        reply: Sender<(Vec<Lease>, HashSet<Attachment>)>,
    },
    Suspected {
        suspects: Suspects,
        reply: Sender<Vec<Attachment>>,
    },
    Reserve {
        wish: Box<Wish>,
        reply: Sender<Result<Reserved, Cause>>,
    },
    Replace {
        attachment: Attachment,
        bad: IpAddr,
        addresses: Box<ipam::Request>,
        reply: Sender<Result<Reserved, Cause>>,
    },
    Record {
        lease: Box<Lease>,
        reply: Sender<Result<(), DiskError>>,
    },
    Adopt {
        lease: Box<Lease>,
        reply: Sender<Result<bool, DiskError>>,
    },
    Release {
        attachment: Attachment,
        reply: Sender<Result<(), DiskError>>,
    },
    Settle {
        reply: Sender<Result<bool, DiskError>>,
    },
    Configure(Ranges),
    Filling {
        reply: Sender<Filling>,
    },
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
                ipam.restore_rest(*ip, owner(freed.pod.as_ref(), &freed.attachment), freed.at);
            }
        }
        for ip in store.leases().flat_map(Lease::addresses) {
            ipam.hold(ip);
        }
        let names = store.leases().map(|lease| (lease.host_link.clone(), lease.attachment.clone())).collect();
        let (commands, inbox) = mpsc::channel();
        let mut books = Books {
            store,
            ipam,
            host: Vec::new(),
            avoided: VecDeque::new(),
            draw,
            names,
            claims: HashMap::new(),
            commands: commands.clone(),
        };
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

    /// Whose links `suspects` are, but for those that a request is working on: of the others it is odd that something of
    /// their links has changed.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn suspected(&self, suspects: Suspects, deadline: Instant) -> Result<Vec<Attachment>, Cause> {
        self.ask(deadline, |reply| Command::Suspected { suspects, reply })
    }

    /// Takes addresses and records a pending lease. On an error nothing is taken.
    ///
    /// # Errors
    /// No address, no record, or no time.
    pub fn reserve(&self, wish: Wish, deadline: Instant) -> Result<Reserved, Cause> {
        self.ask(deadline, |reply| Command::Reserve { wish: Box::new(wish), reply })?
    }

    /// Gives the pending lease of `attachment` another address in place of `bad`, which proved to be somebody else's, and records
    /// that. `addresses` is what the pod wants, as it was for [`Ledger::reserve`]; the other family's address stays. No pod gets
    /// `bad` until [`Ledger::configure`] says what the host has now. A lease that has not got `bad` stays as it is.
    ///
    /// # Errors
    /// The lease is as before, with `bad`: no other address, no record, no time, no such lease, or it is committed.
    pub fn replace(
        &self,
        attachment: &Attachment,
        bad: IpAddr,
        addresses: ipam::Request,
        deadline: Instant,
    ) -> Result<Reserved, Cause> {
        let (attachment, addresses) = (attachment.clone(), Box::new(addresses));
        self.ask(deadline, |reply| Command::Replace { attachment, bad, addresses, reply })?
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
    /// Addresses of the host itself, as they were seen last.
    host: Vec<IpAddr>,
    /// Addresses that proved to be somebody's since, oldest first.
    avoided: VecDeque<IpAddr>,
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
                Command::Suspected { suspects, reply } => {
                    let at_rest = self.store.leases().filter(|lease| !self.claims.contains_key(&lease.attachment));
                    let suspected = at_rest.filter(|lease| {
                        suspects.all
                            || lease.host_index.is_none_or(|index| suspects.links.contains(&index))
                            || lease.addresses().any(|ip| suspects.addresses.contains(&ip))
                    });
                    reply.send(suspected.map(|lease| lease.attachment.clone()).collect()).ok();
                }
                Command::Reserve { wish, reply } => {
                    reply.send(self.reserve(*wish)).ok();
                }
                Command::Replace { attachment, bad, addresses, reply } => {
                    reply.send(self.replace(&attachment, bad, &addresses)).ok();
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
                    self.host = ranges.host;
                    self.avoided.clear();
                    self.reserve_what_is_not_ours();
                }
                Command::Filling { reply } => {
                    let addresses = self.ipam.counts(boot_clock::now_ms());
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
        let now = boot_clock::now_ms();
        let asker = owner(wish.pod.as_ref(), &attachment);
        let allocation = self.ipam.allocate(&wish.addresses, asker, now, &mut self.draw)?;
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

    fn reserve_what_is_not_ours(&mut self) {
        self.ipam.reserve(self.host.iter().chain(&self.avoided).copied());
    }

    fn replace(&mut self, attachment: &Attachment, bad: IpAddr, wanted: &ipam::Request) -> Result<Reserved, Cause> {
        let Some(mut lease) = self.store.get(attachment).cloned() else {
            return Err(Cause::Unknown(attachment.clone()));
        };
        if lease.phase == Phase::Committed {
            return Err(Cause::Attached(attachment.clone()));
        }
        if !self.avoided.contains(&bad) {
            self.avoided.push_back(bad);
            if self.avoided.len() > AVOIDED {
                self.avoided.pop_front();
            }
            self.reserve_what_is_not_ours();
        }
        if !lease.addresses().any(|ip| ip == bad) {
            return Ok(Reserved { lease, warnings: Vec::new() });
        }
        let wanted = match bad {
            IpAddr::V6(_) => ipam::Request { ipv4: None, ..wanted.clone() },
            IpAddr::V4(_) => ipam::Request { ipv6: None, ..wanted.clone() },
        };
        let asker = owner(lease.pod.as_ref(), attachment);
        let allocation = self.ipam.allocate(&wanted, asker, boot_clock::now_ms(), &mut self.draw)?;
        let warnings = allocation.warnings.iter().map(ToString::to_string).collect();
        let Some(other) = allocation.addresses().next() else { return Ok(Reserved { lease, warnings }) };
        lease.ipv6 = allocation.ipv6.or(lease.ipv6);
        lease.ipv4 = allocation.ipv4.or(lease.ipv4);
        let recorded = self.store.put(lease.clone());
        // No packet has been carried by either of them, so the one that is not needed does not rest.
        self.ipam.give_back(if recorded.is_ok() { bad } else { other });
        recorded?;
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
        let now = boot_clock::now_ms();
        let freed = self.store.free(attachment, now);
        for ip in lease.addresses() {
            self.ipam.release(ip, owner(lease.pod.as_ref(), attachment), now);
        }
        self.names.remove(&lease.host_link);
        freed
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    /// A directory in memory, which can be full.
    #[derive(Clone, Default)]
    struct Memory {
        files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
        full: Arc<AtomicBool>,
    }

    impl Disk for Memory {
        fn is_lost(&mut self, name: &str) -> bool {
            !self.files.lock().expect("unpoisoned").contains_key(name)
        }

        fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
            Ok(self.files.lock().expect("unpoisoned").get(name).cloned())
        }

        fn names(&mut self) -> Result<Vec<String>, DiskError> {
            Ok(self.files.lock().expect("unpoisoned").keys().cloned().collect())
        }

        fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
            if self.full.load(Ordering::Relaxed) {
                let error = io::ErrorKind::StorageFull.into();
                return Err(DiskError { operation: "append to", path: name.into(), error });
            }
            self.files.lock().expect("unpoisoned").entry(name.into()).or_default().extend_from_slice(bytes);
            Ok(())
        }

        fn sync(&mut self, _: &str) -> Result<(), DiskError> {
            Ok(())
        }

        fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
            let mut files = self.files.lock().expect("unpoisoned");
            let file = files.remove(from).expect("there");
            files.insert(to.into(), file);
            Ok(())
        }

        fn remove(&mut self, name: &str) -> Result<(), DiskError> {
            self.files.lock().expect("unpoisoned").remove(name);
            Ok(())
        }
    }

    fn store(disk: &Memory) -> Store<Memory> {
        Store::open(disk.clone(), "boot", boot_clock::now_ms()).0
    }

    fn ledger(disk: &Memory, cidr6: &str, cidr4: &str) -> Ledger {
        let ledger = Ledger::start(store(disk), Zero).expect("a thread");
        ledger.configure(ranges(cidr6, cidr4, &[]));
        ledger
    }

    struct Zero;

    impl Draw for Zero {
        fn draw(&mut self) -> u128 {
            0
        }
    }

    fn ranges(cidr6: &str, cidr4: &str, host: &[IpAddr]) -> Ranges {
        Ranges { cidr6: cidr6.parse().ok(), cidr4: cidr4.parse().ok(), host: host.to_vec() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    fn both() -> ipam::Request {
        ipam::Request { ipv6: Some(ipam::Want6::default()), ipv4: Some(ipam::Want4::default()) }
    }

    fn wish(key: &str) -> Wish {
        Wish {
            attachment: key.parse().expect("a key"),
            network: "flock".into(),
            netns: "/run/netns/x".into(),
            pod: None,
            mtu: 1500,
            gateway4: model::addr::GATEWAY4,
            call: None,
            addresses: both(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    fn addresses(lease: &Lease) -> Vec<String> {
        lease.addresses().map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn an_address_that_proves_to_be_somebody_elses_is_replaced_and_given_to_nobody_until_the_host_is_looked_at() {
        let disk = Memory::default();
        let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let lease = ledger.reserve(wish("a/eth0"), soon()).expect("free").lease;
        assert_eq!(addresses(&lease), ["2001:db8::1", "10.0.0.2"]);
        let replaced = |bad: &str| ledger.replace(&lease.attachment, ip(bad), both(), soon()).expect("free").lease;
        assert_eq!(addresses(&replaced("10.0.0.2")), ["2001:db8::1", "10.0.0.3"]);
        assert_eq!(addresses(&replaced("2001:db8::1")), ["2001:db8::2", "10.0.0.3"]);
        // Asked again, as by a caller that was late, nothing more happens.
        let same = replaced("10.0.0.2");
        assert_eq!(addresses(&same), ["2001:db8::2", "10.0.0.3"]);
        assert_eq!((same.phase, same.since), (Phase::Pending, lease.since));
        // It is recorded before anything can be carried.
        assert_eq!(store(&disk).leases().cloned().collect::<Vec<_>>(), [same]);
        // Nobody else gets what proved to be taken, while there is anything else and when there is not.
        for (n, expected) in ["10.0.0.4", "10.0.0.5", "10.0.0.6"].iter().enumerate() {
            let lease = ledger.reserve(wish(&format!("b{n}/eth0")), soon()).expect("free").lease;
            assert_eq!(addresses(&lease)[1], *expected);
        }
        let error = ledger.reserve(wish("c/eth0"), soon()).expect_err("full");
        assert!(matches!(error, Cause::Ipam(_)), "{error:?}");
        // A look at the host that sees no such address there any more.
        ledger.configure(ranges("2001:db8::/120", "10.0.0.0/29", &[ip("2001:db8::1")]));
        let lease = ledger.reserve(wish("c/eth0"), soon()).expect("free again").lease;
        assert_eq!(addresses(&lease)[1], "10.0.0.2");
        assert_ne!(addresses(&lease)[0], "2001:db8::1", "that one the host has");
    }

    #[test]
    fn a_replacement_that_cannot_be_had_changes_nothing() {
        let disk = Memory::default();
        let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/30");
        let mut lease = ledger.reserve(wish("a/eth0"), soon()).expect("free").lease;
        let replace = |key: &str, bad: &str| {
            let key = key.parse().expect("a key");
            ledger.replace(&key, ip(bad), both(), soon()).map(|reserved| reserved.lease)
        };
        let is_as_it_was = |lease: &Lease| {
            assert_eq!(ledger.find(&lease.attachment, soon()).expect("in time").as_ref(), Some(lease));
        };
        assert!(matches!(replace("a/eth0", "10.0.0.2"), Err(Cause::Ipam(_))), "there is no other one");
        is_as_it_was(&lease);
        assert_eq!(replace("a/eth0", "10.0.0.77").expect("nothing to do"), lease, "it has not got that one");
        assert!(matches!(replace("b/eth0", "10.0.0.2"), Err(Cause::Unknown(_))));
        ledger.configure(ranges("2001:db8::/120", "10.0.0.0/29", &[]));
        disk.full.store(true, Ordering::Relaxed);
        assert!(matches!(replace("a/eth0", "10.0.0.2"), Err(Cause::Store(_))), "what is not recorded is not in force");
        is_as_it_was(&lease);
        disk.full.store(false, Ordering::Relaxed);
        let free = |ledger: &Ledger| ledger.filling(soon()).expect("in time").addresses.ipv4.free;
        assert_eq!(free(&ledger), 4, "nor is it taken");
        // A pod that was told of its addresses keeps them.
        lease.phase = Phase::Committed;
        ledger.record(lease.clone(), soon()).expect("recorded");
        assert!(matches!(replace("a/eth0", "10.0.0.2"), Err(Cause::Attached(_))));
        is_as_it_was(&lease);
    }

    #[test]
    fn addresses_that_prove_to_be_taken_are_kept_in_mind_up_to_a_bound() {
        let ledger = ledger(&Memory::default(), "2001:db8::/64", "10.0.0.0/16");
        let lease = ledger.reserve(wish("a/eth0"), soon()).expect("free").lease;
        for n in 0..2 * AVOIDED {
            let [_, _, high, low] = u32::try_from(n + 2).expect("small").to_be_bytes();
            let bad = IpAddr::from([10, 0, high, low]);
            let lease = ledger.replace(&lease.attachment, bad, both(), soon()).expect("free").lease;
            assert!(!lease.addresses().any(|ip| ip == bad));
        }
        let free = ledger.filling(soon()).expect("in time").addresses.ipv4.free;
        assert_eq!(usize::try_from(free).expect("small"), 65_533 - 1 - AVOIDED);
    }

    fn attachment(key: &str) -> Attachment {
        key.parse().expect("a key")
    }

    fn in_pod(key: &str, pod: &str) -> Wish {
        Wish { pod: Some(PodName { namespace: "default".into(), name: pod.into() }), ..wish(key) }
    }

    #[test]
    fn addresses_of_a_pod_that_went_shortly_before_a_restart_rest_after_it() {
        let disk = Memory::default();
        let before = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let gone = before.reserve(wish("gone/eth0"), soon()).expect("free").lease;
        before.release(&gone.attachment, soon()).expect("recorded");
        let after = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let lease = after.reserve(wish("new/eth0"), soon()).expect("free").lease;
        assert!(!lease.addresses().any(|ip| gone.addresses().any(|rests| rests == ip)), "{:?}", addresses(&lease));
        let counts = after.filling(soon()).expect("in time").addresses;
        assert_eq!((counts.ipv6.resting, counts.ipv4.resting), (1, 1));
    }

    #[test]
    fn addresses_of_running_pods_are_theirs_after_a_restart() {
        let disk = Memory::default();
        let before = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let runs = before.reserve(wish("runs/eth0"), soon()).expect("free").lease;
        before.record(Lease { phase: Phase::Committed, ..runs.clone() }, soon()).expect("recorded");
        let after = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let lease = after.reserve(wish("new/eth0"), soon()).expect("free").lease;
        assert!(!lease.addresses().any(|ip| runs.addresses().any(|held| held == ip)), "{:?}", addresses(&lease));
    }

    #[test]
    fn a_released_address_rests_before_the_next_pod_gets_it() {
        let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
        let gone = ledger.reserve(wish("gone/eth0"), soon()).expect("free").lease;
        ledger.release(&gone.attachment, soon()).expect("recorded");
        let lease = ledger.reserve(wish("new/eth0"), soon()).expect("free").lease;
        assert!(!lease.addresses().any(|ip| gone.addresses().any(|rests| rests == ip)), "{:?}", addresses(&lease));
    }

    #[test]
    fn an_add_that_a_full_disk_refuses_costs_no_address() {
        let disk = Memory::default();
        let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let before = ledger.filling(soon()).expect("in time");
        disk.full.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            let error = ledger.reserve(wish("a/eth0"), soon()).expect_err("nothing can be recorded");
            assert!(matches!(error, Cause::Store(_)), "{error:?}");
        }
        assert_eq!(ledger.filling(soon()).expect("in time"), before);
        disk.full.store(false, Ordering::Relaxed);
        ledger.reserve(wish("a/eth0"), soon()).expect("there is room again");
    }

    #[test]
    fn an_add_whose_end_cannot_be_recorded_is_told_so() {
        let disk = Memory::default();
        let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let lease = ledger.reserve(wish("a/eth0"), soon()).expect("free").lease;
        disk.full.store(true, Ordering::Relaxed);
        let recorded = ledger.record(Lease { phase: Phase::Committed, ..lease.clone() }, soon());
        assert!(matches!(recorded, Err(Cause::Store(_))), "{recorded:?}");
        assert_eq!(ledger.find(&lease.attachment, soon()).expect("in time"), Some(lease), "still pending");
    }

    #[test]
    fn an_attachment_has_one_lease_at_a_time_and_the_same_link_name_each_time() {
        let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
        let first = ledger.reserve(wish("a/eth0"), soon()).expect("free").lease;
        let second = ledger.reserve(wish("a/eth0"), soon());
        assert!(matches!(second, Err(Cause::Attached(_))), "{second:?}");
        assert_eq!(ledger.find(&first.attachment, soon()).expect("in time").as_ref(), Some(&first));
        ledger.release(&first.attachment, soon()).expect("recorded");
        let again = ledger.reserve(wish("a/eth0"), soon()).expect("it is gone").lease;
        assert_eq!(again.host_link, first.host_link);
    }

    #[test]
    fn a_pod_that_comes_back_in_another_sandbox_gets_its_address_early_and_others_only_with_a_warning() {
        let ledger = ledger(&Memory::default(), "", "10.0.0.0/30");
        let only_v4 = |wish: Wish| Wish { addresses: ipam::Request { ipv6: None, ..both() }, ..wish };
        let reserve = |wish: Wish| ledger.reserve(only_v4(wish), soon()).expect("the only address").warnings;
        assert_eq!(reserve(in_pod("one/eth0", "web-0")), Vec::<String>::new());
        ledger.release(&attachment("one/eth0"), soon()).expect("recorded");
        assert_eq!(reserve(in_pod("two/eth0", "web-0")), Vec::<String>::new());
        ledger.release(&attachment("two/eth0"), soon()).expect("recorded");
        let warnings = reserve(in_pod("three/eth0", "web-1"));
        assert!(warnings[0].contains("10.0.0.2 was another pod's"), "{warnings:?}");
    }

    #[test]
    fn requests_for_one_attachment_take_turns_and_who_has_given_up_is_passed_over() {
        let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
        let first = ledger.claim(&attachment("a/eth0"), soon()).expect("free");
        let given_up = ledger.claim(&attachment("a/eth0"), Instant::now() + Duration::from_millis(20));
        assert!(matches!(given_up, Err(Cause::Late)), "{given_up:?}");
        ledger.claim(&attachment("b/eth0"), soon()).expect("another attachment does not wait");
        drop(first);
        ledger.claim(&attachment("a/eth0"), soon()).expect("its turn has come");
    }

    #[test]
    fn what_is_adopted_is_taken_and_takes_nothing_from_others() {
        let disk = Memory::default();
        let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
        let shown = crate::record::examples::lease("shown/eth0");
        let shown = Lease { ipv6: "2001:db8::1".parse().ok(), ipv4: "10.0.0.2".parse().ok(), ..shown };
        assert!(ledger.adopt(shown.clone(), soon()).expect("recorded"));
        let lease = ledger.reserve(wish("new/eth0"), soon()).expect("free").lease;
        assert_eq!(addresses(&lease), ["2001:db8::2", "10.0.0.3"]);
        let second = Lease { attachment: attachment("second/eth0"), ipv6: None, ..shown };
        assert!(!ledger.adopt(second, soon()).expect("in time"), "10.0.0.2 is another's");
        assert_eq!(ledger.find(&attachment("second/eth0"), soon()).expect("in time"), None);
    }

    #[test]
    fn a_link_that_was_changed_is_its_pods_unless_a_request_works_on_it() {
        let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
        for (key, index) in [("a/eth0", 7), ("b/eth0", 8)] {
            let lease = ledger.reserve(wish(key), soon()).expect("free").lease;
            ledger
                .record(Lease { phase: Phase::Committed, host_index: Some(index), ..lease }, soon())
                .expect("recorded");
        }
        let suspected = || {
            let mut suspects = Suspects::default();
            suspects.link(7);
            ledger.suspected(suspects, soon()).expect("in time")
        };
        assert_eq!(suspected(), [attachment("a/eth0")]);
        let _claim = ledger.claim(&attachment("a/eth0"), soon()).expect("free");
        assert_eq!(suspected(), []);
    }
}
