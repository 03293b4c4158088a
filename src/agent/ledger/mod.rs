//! The single writer. One thread owns what attachments hold; everybody else has a handle whose methods read like calls and end by
//! the request's deadline.
//!
//! Commands that wait together are carried out together: in order, with one write and one wait for the disk for all of them, and
//! answered after that. A command that finds the thread idle waits for nobody. The thread also keeps the claims: while one request
//! works on an attachment, others for the same one wait their turn. It never touches the kernel's network state and never waits for
//! anything but its own disk.

pub mod claim;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::agent::fault::Cause;
use crate::agent::ledger::claim::{Begun, Claim};
use crate::agent::ledger::table::Table;
use crate::agent::reply::{self, Reply};
use crate::agent::suspicion::Suspects;
use crate::process::meter::Histogram;
use crate::process::progress::Progress;
use crate::record::boot_clock;
use crate::record::disk::{Disk, DiskError};
use crate::record::store::{Change, Store};
use model::addr::Attachment;
use model::ipam::{self, Draw};
use model::lease::{Lease, PodName};

/// Most commands that are carried out together: more than there are requests in service.
const BATCH_MAX: usize = 512;

/// Ends of the ranges of a wait for the disk, in microseconds.
const SYNCS: &[u64] = &[1_000, 5_000, 25_000, 100_000, 1_000_000, 10_000_000];

/// What an ADD wants recorded.
#[derive(Debug, Clone)]
pub struct NewLease {
    /// The key.
    pub attachment: Attachment,
    /// CNI network name.
    pub network: String,
    /// Namespace path, as given.
    pub netns: String,
    /// The pod, if the runtime names one.
    pub pod: Option<PodName>,
    /// MTU for both ends, in bytes.
    pub mtu: u32,
    /// The next hop of the pod's IPv4 default route.
    pub gateway4: Ipv4Addr,
    /// Which run of the plugin asks.
    pub call: Option<String>,
    /// The addresses wanted.
    pub addresses: ipam::Request,
    /// Addresses that it is to share with others.
    pub anycast: Vec<IpAddr>,
    /// It sends for others, too.
    pub any_source: bool,
    /// Its policies are to be audited.
    pub audit: bool,
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
pub struct Usage {
    /// Recorded leases, pending ones too.
    pub leases: usize,
    /// Those of them that are pending.
    pub pending: usize,
    /// Addresses of both families.
    pub addresses: ipam::Counts,
}

/// What becomes of the claim when a command has been carried out and its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// The caller keeps it.
    Keep,
    /// The claim passes on to whoever waits for it.
    End,
}

/// The outcome of a command that may make a lease: the lease and what an operator should know of it.
type Made = Result<(Lease, Vec<String>), Cause>;

enum Command {
    Turn(Turn),
    Unclaim(Attachment),
    Reserve { new: Box<NewLease>, reply: Reply<Made> },
    Replace { attachment: Attachment, bad: IpAddr, addresses: Box<ipam::Request>, reply: Reply<Made> },
    Commit { lease: Box<Lease>, reply: Reply<Result<(), DiskError>> },
    Adopt { lease: Box<Lease>, reply: Reply<Result<bool, DiskError>> },
    Release { attachment: Attachment, afterwards: Afterwards, reply: Reply<Result<(), DiskError>> },
    Leases { reply: Reply<(Vec<Lease>, HashSet<Attachment>)> },
    Suspected { suspects: Suspects, reply: Reply<Vec<Attachment>> },
    Settle { reply: Reply<Result<bool, DiskError>> },
    Configure(Ranges),
    Usage { reply: Reply<Usage> },
}

/// What waits for its turn at an attachment.
enum Turn {
    /// A request that wants the claim, and first looks at what there is.
    Claim { attachment: Attachment, reply: Reply<Claim> },
    /// An ADD, which makes a lease if there is none.
    Begin { new: Box<NewLease>, reply: Reply<Result<Begun, Cause>> },
}

impl Turn {
    fn attachment(&self) -> &Attachment {
        match self {
            Turn::Claim { attachment, .. } => attachment,
            Turn::Begin { new, .. } => &new.attachment,
        }
    }

    fn is_given_up(&self) -> bool {
        match self {
            Turn::Claim { reply, .. } => reply.is_given_up(),
            Turn::Begin { reply, .. } => reply.is_given_up(),
        }
    }
}

/// The handle.
#[derive(Debug, Clone)]
pub struct Ledger {
    commands: Sender<Command>,
    progress: Progress,
    syncs: Arc<Histogram>,
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
        let (commands, inbox) = mpsc::channel();
        let syncs = Arc::new(Histogram::new(SYNCS));
        let mut clerk = Clerk {
            syncs: syncs.clone(),
            table: Table::new(store, draw),
            claims: HashMap::new(),
            next: VecDeque::new(),
            commands: commands.clone(),
        };
        let progress = Progress::default();
        let theirs = progress.clone();
        thread::Builder::new().name("ledger".into()).spawn(move || clerk.run(&inbox, &theirs))?;
        Ok(Ledger { commands, progress, syncs })
    }

    /// The progress of the thread, which is at work on one batch and rests before the next. However much waits, it rests in between
    /// unless the disk is stuck.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// How long it has waited for its disk.
    pub fn syncs(&self) -> &Histogram {
        &self.syncs
    }

    fn ask<T>(&self, deadline: Instant, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Cause> {
        ask(&self.commands, deadline, command)
    }

    /// Waits until no other request works on `attachment`, and looks at its lease.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn claim(&self, attachment: &Attachment, deadline: Instant) -> Result<Claim, Cause> {
        self.ask(deadline, |reply| Command::Turn(Turn::Claim { attachment: attachment.clone(), reply }))
    }

    /// As [`Ledger::claim`], and where there is no lease, takes addresses and records a pending one: all that an ADD needs
    /// before it makes its link.
    ///
    /// # Errors
    /// No address, no record, or no time. Nothing is taken, unless this is [`Cause::Late`].
    pub fn begin(&self, new: NewLease, deadline: Instant) -> Result<Begun, Cause> {
        self.ask(deadline, |reply| Command::Turn(Turn::Begin { new: Box::new(new), reply }))?
    }

    /// All leases, and the attachments that requests are working on.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn leases(&self, deadline: Instant) -> Result<(Vec<Lease>, HashSet<Attachment>), Cause> {
        self.ask(deadline, |reply| Command::Leases { reply })
    }

    /// The attachments whose links are among `suspects`, but for those that a request is working on: requests change links
    /// themselves.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn suspected(&self, suspects: Suspects, deadline: Instant) -> Result<Vec<Attachment>, Cause> {
        self.ask(deadline, |reply| Command::Suspected { suspects, reply })
    }

    /// Makes durable what is in force and is not on the disk yet, because the disk failed. True if there was something.
    ///
    /// # Errors
    /// The disk fails still, or [`Cause::Late`].
    pub fn settle(&self, deadline: Instant) -> Result<bool, Cause> {
        Ok(self.ask(deadline, |reply| Command::Settle { reply })??)
    }

    /// Puts the node's ranges in force for leases from now on.
    pub fn configure(&self, ranges: Ranges) {
        self.commands.send(Command::Configure(ranges)).ok();
    }

    /// How full the node is.
    ///
    /// # Errors
    /// [`Cause::Late`].
    pub fn usage(&self, deadline: Instant) -> Result<Usage, Cause> {
        self.ask(deadline, |reply| Command::Usage { reply })
    }
}

fn ask<T>(
    commands: &Sender<Command>,
    deadline: Instant,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T, Cause> {
    let (reply, answer) = reply::pair();
    commands.send(command(reply)).map_err(|_| Cause::Stopping)?;
    answer.wait(deadline).ok_or(Cause::Late)
}

/// What the thread owns.
struct Clerk<D, R> {
    syncs: Arc<Histogram>,
    table: Table<D, R>,
    /// Who waits behind each claimed attachment.
    claims: HashMap<Attachment, VecDeque<Turn>>,
    /// Whose turn it is: each attachment is claimed for the one named here.
    next: VecDeque<Turn>,
    /// Goes into the claims that are handed out, which end through it.
    commands: Sender<Command>,
}

/// The answer to a command, which is due when it is known whether the changes of its batch are durable, with the error if they are
/// not.
type Due<D, R> = Box<dyn FnOnce(&mut Clerk<D, R>, Option<&DiskError>)>;

impl<D: Disk + 'static, R: Draw + 'static> Clerk<D, R> {
    fn run(&mut self, inbox: &Receiver<Command>, progress: &Progress) {
        loop {
            let first = progress.resting(|| match self.next.is_empty() {
                true => inbox.recv().map(Some),
                false => Ok(None),
            });
            let Ok(first) = first else { return };
            let mut due = Vec::new();
            self.take_turns(&mut due);
            for command in first.into_iter().chain(inbox.try_iter()).take(BATCH_MAX) {
                due.extend(self.carry_out(command));
                self.take_turns(&mut due);
            }
            let (began, changed) = (Instant::now(), self.table.is_changed());
            let failed = self.table.sync().err();
            if changed {
                self.syncs.took(began.elapsed());
            }
            for answer in due {
                answer(self, failed.as_ref());
            }
        }
    }

    /// Carries out one command in memory. A caller that has given up is not worked for, unless it tells what has happened in the
    /// kernel.
    fn carry_out(&mut self, command: Command) -> Option<Due<D, R>> {
        match command {
            Command::Turn(turn) => match self.claims.get_mut(turn.attachment()) {
                Some(waiting) => {
                    // Who has given up takes no room.
                    waiting.retain(|turn| !turn.is_given_up());
                    waiting.push_back(turn);
                }
                None => {
                    self.claims.insert(turn.attachment().clone(), VecDeque::new());
                    self.next.push_back(turn);
                }
            },
            Command::Unclaim(attachment) => self.pass_on(&attachment),
            Command::Configure(ranges) => self.table.configure(ranges),
            Command::Reserve { new, reply } if !reply.is_given_up() => {
                let made = self.table.reserve(*new, boot_clock::now_ms());
                return due(reply, move |_, failed| recorded(made, failed));
            }
            Command::Replace { attachment, bad, addresses, reply } if !reply.is_given_up() => {
                let made = self.table.replace(&attachment, bad, &addresses, boot_clock::now_ms());
                return due(reply, move |_, failed| recorded(made, failed));
            }
            Command::Commit { lease, reply } if !reply.is_given_up() => {
                let attachment = lease.attachment.clone();
                self.table.apply(Change::Put(lease));
                return Some(Box::new(move |clerk, failed| match failed {
                    Some(error) => {
                        reply.send(Err(error.clone()));
                    }
                    // A caller that has given up still has the claim, to take the attachment down.
                    None if reply.send(Ok(())) => clerk.pass_on(&attachment),
                    None => {}
                }));
            }
            Command::Reserve { .. } | Command::Replace { .. } | Command::Commit { .. } => {}
            Command::Adopt { lease, reply } => {
                let adopted = self.table.adopt(*lease, boot_clock::now_ms());
                return due(reply, move |_, failed| match failed {
                    Some(error) if adopted => Err(error.clone()),
                    _ => Ok(adopted),
                });
            }
            Command::Release { attachment, afterwards, reply } => {
                self.table.apply(Change::Free { attachment: attachment.clone(), at: boot_clock::now_ms() });
                return Some(Box::new(move |clerk, failed| {
                    let released = failed.map_or(Ok(()), |error| Err(error.clone()));
                    if reply.send(released) && afterwards == Afterwards::End {
                        clerk.pass_on(&attachment);
                    }
                }));
            }
            // A question is answered by what is in force when the batch is over.
            Command::Leases { reply } => {
                return due(reply, |clerk, _| {
                    (clerk.table.leases().cloned().collect(), clerk.claims.keys().cloned().collect())
                });
            }
            Command::Suspected { suspects, reply } => {
                return due(reply, move |clerk, _| clerk.suspected(&suspects));
            }
            Command::Usage { reply } => {
                return due(reply, |clerk, _| clerk.table.usage(boot_clock::now_ms()));
            }
            Command::Settle { reply } => return due(reply, |clerk, _| clerk.table.settle()),
        }
        None
    }

    /// Gives the claim of `attachment` to the first who still waits for it.
    fn pass_on(&mut self, attachment: &Attachment) {
        let Some(waiting) = self.claims.get_mut(attachment) else { return };
        while let Some(turn) = waiting.pop_front() {
            if !turn.is_given_up() {
                return self.next.push_back(turn);
            }
        }
        self.claims.remove(attachment);
    }

    fn take_turns(&mut self, due: &mut Vec<Due<D, R>>) {
        while let Some(turn) = self.next.pop_front() {
            due.push(match turn {
                Turn::Claim { attachment, reply } => Box::new(move |clerk: &mut Clerk<D, R>, _| {
                    // A claim that does not reach its owner is dropped, and comes back as [`Command::Unclaim`].
                    reply.send(clerk.claim_of(attachment));
                }),
                Turn::Begin { new, reply } => self.begin(new, reply),
            });
        }
    }

    fn begin(&mut self, new: Box<NewLease>, reply: Reply<Result<Begun, Cause>>) -> Due<D, R> {
        let attachment = new.attachment.clone();
        if reply.is_given_up() {
            return Box::new(move |clerk, _| clerk.pass_on(&attachment));
        }
        if self.table.get(&attachment).is_some() {
            return Box::new(move |clerk, _| {
                if clerk.table.get(&attachment).is_some() {
                    reply.send(Ok(Begun { claim: clerk.claim_of(attachment), warnings: None }));
                } else {
                    // The lease was undone with the rest of the batch and nobody has it, so this ADD begins anew.
                    clerk.next.push_back(Turn::Begin { new, reply });
                }
            });
        }
        let made = self.table.reserve(*new, boot_clock::now_ms());
        Box::new(move |clerk, failed| match recorded(made, failed) {
            Ok((_, warnings)) => {
                reply.send(Ok(Begun { claim: clerk.claim_of(attachment), warnings: Some(warnings) }));
            }
            Err(cause) => {
                clerk.pass_on(&attachment);
                reply.send(Err(cause));
            }
        })
    }

    fn claim_of(&self, attachment: Attachment) -> Claim {
        let lease = self.table.get(&attachment).cloned();
        Claim::new(attachment, lease, self.commands.clone())
    }

    fn suspected(&self, suspects: &Suspects) -> Vec<Attachment> {
        let at_rest = self.table.leases().filter(|lease| !self.claims.contains_key(&lease.attachment));
        let suspected = at_rest.filter(|lease| {
            suspects.all
                || lease.host_index.is_none_or(|index| suspects.links.contains(&index))
                || lease.addresses().any(|ip| suspects.addresses.contains(&ip))
        });
        suspected.map(|lease| lease.attachment.clone()).collect()
    }
}

/// The answer of one caller, who may have given up.
fn due<D, R, T: 'static>(
    reply: Reply<T>,
    answer: impl FnOnce(&mut Clerk<D, R>, Option<&DiskError>) -> T + 'static,
) -> Option<Due<D, R>> {
    Some(Box::new(move |clerk, failed| {
        reply.send(answer(clerk, failed));
    }))
}

/// A lease that was made and is not in force unless it is durable.
fn recorded(made: Made, failed: Option<&DiskError>) -> Made {
    match failed {
        Some(error) => made.and_then(|_| Err(error.clone().into())),
        None => made,
    }
}
