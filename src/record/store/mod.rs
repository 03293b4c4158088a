//! The allocation table on disk: which attachment holds what. The one memory that outlives the agent.
//!
//! A log of records, so that the cost of a change does not grow with the number of pods; now and then, and at each start, it is
//! replaced by a fresh one. A change is put in force in memory first ([`Store::apply`]) and made durable together with all others
//! that wait ([`Store::sync`]). The rules that make it safe against `kill -9` at any instruction:
//!
//! - what a sync has returned for is durable; of changes that were cut off, the first so many happened, each wholly, and no
//!   later one;
//! - each line names the line before it, so what is missing, doubled or in another order shows, and then the kernel is believed;
//! - after a failed write or sync the log is not appended to again: the next change writes a fresh one beside it;
//! - a file that cannot be understood is set aside, never overwritten;
//! - no state of the disk keeps the agent from its start: pods can be deleted, and the kernel tells most of what was lost.
//!
//! Must not know the kernel or the allocator: `recover` compares, the ledger decides.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::record::disk::{Disk, DiskError};
use crate::record::format::{Freed, Line, Record, Sum, UNCHAINED, VERSION, decode, encode};
use model::addr::Attachment;
use model::ipam::REST_MS;
use model::lease::{Lease, Phase};

/// Name of the log.
pub const LOG: &str = "leases.log";
/// Name of a fresh log until it takes the place of the old one.
const FRESH: &str = "leases.new";

/// Number of records that the log holds beyond those of a fresh one before it is replaced.
const SLACK: usize = 4096;

/// Number of records after which a replacement is tried again that failed for want of room. Until then the old log is appended to.
const PATIENCE: usize = 512;

/// Most records that the log ever holds beyond those of a fresh one. The record of a pod's lease has some 400 bytes.
const BOUND: usize = 4 * SLACK;

/// Most logs that are kept after they were set aside, for a person to look at. Each is as long as a log can be.
const KEPT: usize = 4;

/// What was noticed while the store was opened, for the log.
#[derive(Debug)]
pub enum Finding {
    /// The state of an earlier boot was dropped: its pods are gone.
    OtherBoot,
    /// The last record was cut off in mid-write, and had never been acknowledged.
    TornTail,
    /// The log cannot be used as it is. Before another one takes its place, it gets this name.
    SetAside {
        /// Why.
        why: Unusable,
        /// Its name from then on.
        kept_as: String,
    },
}

/// Why a log cannot be used as it is.
#[derive(Debug)]
pub enum Unusable {
    /// Some lines are damaged. Committed leases that no other line contradicts are in force; the kernel knows the rest.
    Damaged {
        /// Lines that could not be read.
        unreadable: usize,
        /// Lines that do not follow the line before them: something is missing there, or stands twice, or elsewhere.
        misplaced: usize,
    },
    /// It is of this format version, which only another flock understands. Nothing of it is in force.
    Version(u32),
    /// It could not be read at all.
    Unreadable(DiskError),
}

/// A change of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A lease, new or changed. It may stay in force only if it could be made durable.
    Put(Box<Lease>),
    /// A lease that was read from the kernel. It stays in force in any case: its link stands, which recovery sees.
    Adopt(Box<Lease>),
    /// The end of a lease, which stays in force in any case: its link is gone, which recovery sees. For an attachment without a
    /// lease it is nothing.
    Free {
        /// Whose lease ends.
        attachment: Attachment,
        /// When, in milliseconds of the boot clock.
        at: u64,
    },
}

impl Change {
    /// Whose lease it is about.
    pub fn attachment(&self) -> &Attachment {
        match self {
            Change::Put(lease) | Change::Adopt(lease) => &lease.attachment,
            Change::Free { attachment, .. } => attachment,
        }
    }

    /// Whether it may stay in force without being durable.
    pub fn stands_alone(&self) -> bool {
        match self {
            Change::Put(_) => false,
            Change::Adopt(_) | Change::Free { .. } => true,
        }
    }
}

/// A change that is in force, and what it takes to undo it.
#[derive(Debug)]
pub struct Applied {
    /// The change.
    pub change: Change,
    /// The lease that the attachment had before.
    pub before: Option<Lease>,
}

/// Takes back, with `undo`, what was applied before a sync that failed. Returns the changes that are to be applied again, in
/// order: those that stand alone.
pub fn undo_all(applied: Vec<Applied>, undo: impl FnMut(Applied) -> Change) -> Vec<Change> {
    // Each was made on top of those before it.
    let mut undone: Vec<Change> = applied.into_iter().rev().map(undo).collect();
    undone.reverse();
    undone.retain(Change::stands_alone);
    undone
}

/// The table.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    boot: String,
    leases: HashMap<Attachment, Lease>,
    freed: VecDeque<Freed>,
    /// What was put in force since the last sync, in order.
    unwritten: Vec<Record>,
    /// The log on disk. None if it is not what is in force and must not be appended to: it was never replaced since the
    /// start, or a write or sync has failed since.
    log: Option<Log>,
    /// Which file of this boot the present one is, as far as can be known.
    serial: u64,
    /// The name that the present log has to get before another one takes its place.
    set_aside: Option<String>,
}

/// A log that can be appended to.
#[derive(Debug)]
struct Log {
    /// Its records.
    records: usize,
    /// The checksum of the last one.
    end: Sum,
    /// Number of records that it holds beyond those of a fresh log before it is replaced.
    slack: usize,
}

impl<D: Disk> Store<D> {
    /// Reads the table, and drops it if it is of another boot than `boot`. `now` is in milliseconds of the boot clock.
    /// Changes nothing on the disk: the first change or [`Store::settle`] does.
    pub fn open(mut disk: D, boot: &str, now: u64) -> (Store<D>, Vec<Finding>) {
        let read = match disk.read(LOG) {
            // The agent was killed while it set a log aside: the fresh log is whole and does not have its name yet.
            Ok(None) => Ok(disk.read(FRESH).ok().flatten().filter(|bytes| begins_well(bytes))),
            read => read,
        };
        let mut store = Store {
            disk,
            boot: boot.into(),
            leases: HashMap::new(),
            freed: VecDeque::new(),
            unwritten: Vec::new(),
            log: None,
            serial: now,
            set_aside: None,
        };
        let findings = match read {
            Ok(bytes) => store.replay(&bytes.unwrap_or_default(), now),
            Err(error) => vec![store.unusable("unreadable", Unusable::Unreadable(error), now)],
        };
        (store, findings)
    }

    fn unusable(&mut self, shown: &str, why: Unusable, now: u64) -> Finding {
        let kept_as = format!("{LOG}.{shown}-{now}");
        self.set_aside = Some(kept_as.clone());
        Finding::SetAside { why, kept_as }
    }

    fn replay(&mut self, bytes: &[u8], now: u64) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // What follows the last line end is nothing, or a record that was never acknowledged.
        if lines.pop().is_some_and(|tail| !tail.is_empty()) {
            findings.push(Finding::TornTail);
        }
        let (mut unreadable, mut misplaced) = (0, 0);
        let mut chain = Chain::Begins;
        let mut told = Told::default();
        for line in lines {
            let Some(line) = decode(line) else {
                unreadable += 1;
                chain = chain.broken();
                continue;
            };
            if let (Chain::Begins, Record::Header { version, boot, serial }) = (&chain, &line.record) {
                if *version != VERSION && *version != UNCHAINED {
                    return vec![self.unusable(&format!("version-{version}"), Unusable::Version(*version), now)];
                }
                if *boot != self.boot {
                    return vec![Finding::OtherBoot];
                }
                self.serial = self.serial.max(*serial);
            }
            misplaced += usize::from(!chain.takes(&line));
            chain = chain.then(&line);
            match line.record {
                Record::Header { .. } => {}
                Record::Put(lease) => {
                    told.put(&lease);
                    self.leases.insert(lease.attachment.clone(), *lease);
                }
                Record::Free(freed) => {
                    self.leases.remove(&freed.attachment);
                    self.remember(freed, now);
                }
            }
        }
        if unreadable == 0 && misplaced == 0 {
            // Only for want of a line are there two leases of one address. In version 1 nothing else shows it.
            misplaced = told.contested(&self.leases);
        }
        if unreadable > 0 || misplaced > 0 {
            // The end of a lease may be among the lines that are lost, and so may the commit of one that looks unfinished. Left
            // to the kernel, a pod keeps its link.
            self.leases
                .retain(|attachment, lease| lease.phase == Phase::Committed && !told.doubtful.contains(attachment));
            findings = vec![self.unusable("damaged", Unusable::Damaged { unreadable, misplaced }, now)];
        }
        findings
    }

    /// The lease of `attachment`.
    pub fn get(&self, attachment: &Attachment) -> Option<&Lease> {
        self.leases.get(attachment)
    }

    /// All leases, in no order.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The leases that ended lately, oldest first.
    pub fn freed(&self) -> impl Iterator<Item = &Freed> {
        self.freed.iter()
    }

    /// Puts a change in force. It is durable after the next [`Store::sync`].
    pub fn apply(&mut self, change: Change) -> Applied {
        let before = match &change {
            Change::Put(lease) | Change::Adopt(lease) => {
                self.unwritten.push(Record::Put(lease.clone()));
                self.leases.insert(lease.attachment.clone(), Lease::clone(lease))
            }
            Change::Free { attachment, at } => {
                let before = self.leases.remove(attachment);
                if let Some(lease) = &before {
                    let (attachment, ips) = (attachment.clone(), lease.addresses().collect());
                    let freed = Freed { attachment, at: *at, ips, pod: lease.pod.clone() };
                    self.remember(freed.clone(), *at);
                    self.unwritten.push(Record::Free(freed));
                }
                before
            }
        };
        Applied { change, before }
    }

    /// Takes back one of the changes that a [`Store::sync`] failed for, and hands it out again; see [`undo_all`].
    pub fn undo(&mut self, applied: Applied) -> Change {
        let Applied { change, before } = applied;
        if let (Change::Free { attachment, at }, Some(_)) = (&change, &before) {
            let is_this = |last: &Freed| last.attachment == *attachment && last.at == *at;
            if self.freed.back().is_some_and(is_this) {
                self.freed.pop_back();
            }
        }
        match before {
            Some(before) => drop(self.leases.insert(before.attachment.clone(), before)),
            None => drop(self.leases.remove(change.attachment())),
        }
        change
    }

    /// Makes everything durable that was applied since the last call, with one write and one wait for the disk.
    ///
    /// # Errors
    /// Nobody knows how much of it the disk has. It stays in force until [`undo_all`], and the next call replaces the log by
    /// one that holds just what is in force then.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        let records = std::mem::take(&mut self.unwritten);
        if records.is_empty() { Ok(()) } else { self.write(&records) }
    }

    /// Keeps `freed` in mind as long as its addresses rest, and no longer: a node where pods come and go all the time would have
    /// thousands of them in memory and in each fresh log.
    fn remember(&mut self, freed: Freed, now: u64) {
        while self.freed.front().is_some_and(|old| old.at.saturating_add(REST_MS) < now) {
            self.freed.pop_front();
        }
        if freed.at.saturating_add(REST_MS) >= now {
            self.freed.push_back(freed);
        }
    }

    /// Brings the disk up to date with what is in force. True if it was not: a write has failed, or somebody has removed the log
    /// or put another file in its place.
    ///
    /// # Errors
    /// The disk still is not up to date.
    pub fn settle(&mut self) -> Result<bool, DiskError> {
        if self.log.is_some() && self.disk.is_lost(LOG) {
            self.log = None;
        }
        if self.log.is_none() { self.rewrite().map(|()| true) } else { Ok(false) }
    }

    fn write(&mut self, records: &[Record]) -> Result<(), DiskError> {
        let Some(log) = self.log.take() else { return self.rewrite() };
        let fresh = 1 + self.leases.len() + self.freed.len();
        let surplus = (log.records + records.len()).saturating_sub(1 + fresh);
        if surplus <= log.slack {
            return self.append(log, records);
        }
        match self.write_fresh() {
            Ok(fresh) => self.put_in_place(fresh),
            Err(_) if surplus < BOUND => self.append(Log { slack: (surplus + PATIENCE).min(BOUND), ..log }, records),
            Err(error) => {
                let operation = "replace the log, which is as long as it may become, by";
                Err(DiskError { operation, ..error })
            }
        }
    }

    fn append(&mut self, log: Log, records: &[Record]) -> Result<(), DiskError> {
        let (mut lines, mut end) = (Vec::new(), log.end);
        for record in records {
            let (line, sum) = encode(record, Some(end));
            lines.extend(line);
            end = sum;
        }
        // Unless write and sync succeed, it is unknown which lines are on the disk, and the log is not appended to again.
        self.disk.append(LOG, &lines)?;
        self.disk.sync(LOG)?;
        self.log = Some(Log { records: log.records + records.len(), end, ..log });
        Ok(())
    }

    /// Replaces the log by one that holds just what is in force.
    fn rewrite(&mut self) -> Result<(), DiskError> {
        self.log = None;
        let fresh = self.write_fresh()?;
        self.put_in_place(fresh)
    }

    /// Writes what is in force beside the log, which stays as it is.
    fn write_fresh(&mut self) -> Result<Log, DiskError> {
        self.serial = self.serial.saturating_add(1);
        let header = Record::Header { version: VERSION, boot: self.boot.clone(), serial: self.serial };
        let (mut bytes, mut end) = encode(&header, None);
        let freed = self.freed.iter().map(|freed| Record::Free(freed.clone()));
        // After the frees: an attachment may have been freed and made again.
        let leases = self.leases.values().map(|lease| Record::Put(Box::new(lease.clone())));
        for record in freed.chain(leases) {
            let (line, sum) = encode(&record, Some(end));
            bytes.extend(line);
            end = sum;
        }
        if let Err(error) = self.disk.write(FRESH, &bytes) {
            // Half a fresh log takes up the room that is left for appending to the old one.
            self.disk.remove(FRESH).ok();
            return Err(error);
        }
        Ok(Log { records: 1 + self.freed.len() + self.leases.len(), end, slack: SLACK })
    }

    fn put_in_place(&mut self, fresh: Log) -> Result<(), DiskError> {
        self.put_aside()?;
        self.disk.rename(FRESH, LOG)?;
        self.log = Some(fresh);
        // The fresh log holds all that is in force.
        self.unwritten.clear();
        Ok(())
    }

    fn put_aside(&mut self) -> Result<(), DiskError> {
        let Some(kept_as) = self.set_aside.clone() else { return Ok(()) };
        match self.disk.rename(LOG, &kept_as) {
            // An earlier try may have got this far.
            Err(error) if error.error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.set_aside = None,
        }
        let older = self.disk.names()?.into_iter().filter(|name| *name != kept_as);
        let mut older: Vec<(u64, String)> = older.filter_map(set_aside_at).collect();
        older.sort_unstable();
        for (_, name) in older.iter().rev().skip(KEPT - 1) {
            // One file more is no reason to refuse an ADD.
            self.disk.remove(name).ok();
        }
        Ok(())
    }
}

/// What the next line of a log has to follow.
enum Chain {
    /// Nothing: it has to be the header.
    Begins,
    /// The line of this checksum.
    After(Sum),
    /// Any, of version 1.
    Unchained,
    /// The line before could not be read.
    Lost,
}

impl Chain {
    fn takes(&self, line: &Line) -> bool {
        match (self, &line.record) {
            (Chain::Begins, Record::Header { .. }) => line.after.is_none(),
            // A header in the middle is the seam of two files, which nobody has joined on purpose.
            (_, Record::Header { .. }) | (Chain::Begins, _) => false,
            (Chain::After(sum), _) => line.after == Some(*sum),
            (Chain::Unchained, _) => line.after.is_none(),
            (Chain::Lost, _) => true,
        }
    }

    fn then(self, line: &Line) -> Chain {
        match (self, &line.record) {
            (_, Record::Header { version: VERSION, .. }) => Chain::After(line.sum),
            (Chain::Unchained, _) => Chain::Unchained,
            (Chain::Begins | Chain::Lost, _) if line.after.is_none() => Chain::Unchained,
            _ => Chain::After(line.sum),
        }
    }

    fn broken(self) -> Chain {
        match self {
            Chain::Unchained => Chain::Unchained,
            _ => Chain::Lost,
        }
    }
}

/// What all lines say together, for a log whose order cannot be believed.
#[derive(Default)]
struct Told {
    /// The committed lease of each attachment: since when, and its addresses.
    committed: HashMap<Attachment, (u64, Option<Ipv6Addr>, Option<Ipv4Addr>)>,
    holders: HashMap<IpAddr, Attachment>,
    /// Attachments that had several leases, or an address that another attachment had as well: which of it was last can only
    /// be seen in the kernel.
    doubtful: HashSet<Attachment>,
}

impl Told {
    /// How many of the leases in force have an address that a later one has, too.
    fn contested(&self, leases: &HashMap<Attachment, Lease>) -> usize {
        let is_last = |lease: &&Lease| lease.addresses().all(|ip| self.holders.get(&ip) == Some(&lease.attachment));
        leases.values().filter(|lease| self.doubtful.contains(&lease.attachment) && !is_last(lease)).count()
    }

    fn put(&mut self, lease: &Lease) {
        let attachment = &lease.attachment;
        for ip in lease.addresses() {
            let other = self.holders.insert(ip, attachment.clone()).filter(|other| other != attachment);
            if let Some(other) = other {
                self.doubtful.extend([other, attachment.clone()]);
            }
        }
        if lease.phase == Phase::Committed {
            let this = (lease.since, lease.ipv6, lease.ipv4);
            if self.committed.insert(attachment.clone(), this).is_some_and(|other| other != this) {
                self.doubtful.insert(attachment.clone());
            }
        }
    }
}

/// The first line of a log that this flock can read.
fn begins_well(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let header = decode(first).map(|line| line.record);
    matches!(header, Some(Record::Header { version: VERSION | UNCHAINED, .. }))
}

/// When the log was set aside that has this name, in milliseconds of the boot clock; none for other files.
fn set_aside_at(name: String) -> Option<(u64, String)> {
    let (_, at) = name.strip_prefix(LOG)?.rsplit_once('-')?;
    Some((at.parse().ok()?, name))
}

#[cfg(test)]
mod tests;
