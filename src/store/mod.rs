//! The allocation table on disk: which attachment holds what. The one memory that outlives the agent.
//!
//! A log of records, synced one by one, so that the cost of a change does not grow with the number of pods; now and then,
//! and at each start, it is replaced by a fresh one. The rules that make it safe against `kill -9` at any instruction:
//!
//! - a change that returned is durable; one that was cut off happened wholly or not at all;
//! - after a failed write or sync the log is not appended to again: the next change writes a fresh one beside it;
//! - a file that cannot be understood is set aside, never overwritten;
//! - no state of the disk keeps the agent from its start: pods can be deleted, and the kernel tells most of what was lost.
//!
//! Must not know the kernel or the allocator: `recover` compares, the ledger decides.

pub mod format;
pub mod import;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;

use crate::addr::Attachment;
use crate::disk::{Disk, DiskError};
use crate::lease::{Lease, Phase};
use crate::store::format::{Freed, Record, VERSION, decode, encode};

/// The log.
pub const LOG: &str = "leases.log";
/// A fresh log before it takes the log's name.
const FRESH: &str = "leases.new";

/// The log is replaced when it holds this many records more than it would hold fresh.
const SLACK: usize = 4096;

/// How long a freed address is kept in mind, in milliseconds. Longer than any rest.
const FREED_MEMORY_MS: u64 = 10 * 60 * 1000;

/// Logs that were set aside and are kept for a person to look at. Each is as long as a log can be.
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
    /// So many of its lines could not be read, or it does not begin as a log does. What could be read is in force.
    Damaged(usize),
    /// It is of this format version, which only another flock understands. Nothing of it is in force.
    Version(u32),
    /// It could not be read at all.
    Unreadable(DiskError),
}

/// The table.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    boot: String,
    leases: HashMap<Attachment, Lease>,
    freed: VecDeque<Freed>,
    /// Records in the log.
    records: usize,
    /// The log on disk is not what is in force, and must not be appended to: it was never replaced since the start, or a
    /// write or sync has failed since.
    broken: bool,
    /// The name that the present log has to get before another one takes its place.
    set_aside: Option<String>,
}

impl<D: Disk> Store<D> {
    /// Reads the table, and drops it if it is of another boot than `boot`. `now` is in milliseconds of the boot clock.
    /// Changes nothing on the disk: the first change or [`Store::settle`] does.
    pub fn open(mut disk: D, boot: &str, now: u64) -> (Store<D>, Vec<Finding>) {
        let read = match disk.read(LOG) {
            // Killed while it set a log aside: the fresh one is whole, and has not got its name yet.
            Ok(None) => Ok(disk.read(FRESH).ok().flatten().filter(|bytes| begins_well(bytes))),
            read => read,
        };
        let mut store = Store {
            disk,
            boot: boot.into(),
            leases: HashMap::new(),
            freed: VecDeque::new(),
            records: 0,
            broken: true,
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
        let mut damaged = 0;
        let mut of_this_boot = false;
        let mut holders: HashMap<IpAddr, Attachment> = HashMap::new();
        for (number, line) in lines.iter().enumerate() {
            match decode(line) {
                // A log is written from its header on. One in the middle is the seam of two files, which nobody made on purpose.
                Some(Record::Header { .. }) if number > 0 => damaged += 1,
                Some(Record::Header { version, .. }) if version != VERSION => {
                    return vec![self.unusable(&format!("version-{version}"), Unusable::Version(version), now)];
                }
                Some(Record::Header { boot, .. }) => {
                    of_this_boot = boot == self.boot;
                    if !of_this_boot {
                        return vec![Finding::OtherBoot];
                    }
                }
                Some(Record::Put(lease)) => {
                    holders.extend(lease.addresses().map(|ip| (ip, lease.attachment.clone())));
                    self.leases.insert(lease.attachment.clone(), *lease);
                }
                Some(Record::Free(freed)) => {
                    self.leases.remove(&freed.attachment);
                    self.remember(freed, now);
                }
                None => damaged += 1,
            }
        }
        if damaged > 0 || (!of_this_boot && !lines.is_empty()) {
            // The end of a lease may be among the lines that are lost, which shows when its address has a later holder. So
            // may the commit of one that looks unfinished: left to the kernel, its pod keeps its link.
            self.leases.retain(|attachment, lease| {
                lease.phase == Phase::Committed && lease.addresses().all(|ip| holders.get(&ip) == Some(attachment))
            });
            findings = vec![self.unusable("damaged", Unusable::Damaged(damaged), now)];
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

    /// Records a lease, new or changed.
    ///
    /// # Errors
    /// The change is not in force: what [`Store::get`] told before, it still tells.
    pub fn put(&mut self, lease: Lease) -> Result<(), DiskError> {
        let before = self.leases.insert(lease.attachment.clone(), lease.clone());
        let written = self.write(&Record::Put(Box::new(lease.clone())));
        if written.is_err() {
            match before {
                Some(before) => self.leases.insert(lease.attachment, before),
                None => self.leases.remove(&lease.attachment),
            };
        }
        written
    }

    /// Records a lease that was read from the kernel.
    ///
    /// # Errors
    /// It is in force all the same, and only not durable: its link stands, which recovery sees.
    pub fn adopt(&mut self, lease: Lease) -> Result<(), DiskError> {
        self.leases.insert(lease.attachment.clone(), lease.clone());
        self.write(&Record::Put(Box::new(lease)))
    }

    /// Records the end of a lease; one that is unknown is fine. `now` is in milliseconds of the boot clock.
    ///
    /// # Errors
    /// The end is in force all the same, and only not durable: its link is gone, which recovery sees.
    pub fn free(&mut self, attachment: &Attachment, now: u64) -> Result<(), DiskError> {
        let Some(lease) = self.leases.remove(attachment) else { return Ok(()) };
        let ips: Vec<IpAddr> = lease.addresses().collect();
        let freed = Freed { attachment: attachment.clone(), at: now, ips };
        self.remember(freed.clone(), now);
        self.write(&Record::Free(freed))
    }

    fn remember(&mut self, freed: Freed, now: u64) {
        while self.freed.front().is_some_and(|old| old.at.saturating_add(FREED_MEMORY_MS) < now) {
            self.freed.pop_front();
        }
        if freed.at.saturating_add(FREED_MEMORY_MS) >= now {
            self.freed.push_back(freed);
        }
    }

    /// Brings the disk up to date with what is in force. True if it was not.
    ///
    /// # Errors
    /// It still is not.
    pub fn settle(&mut self) -> Result<bool, DiskError> {
        if self.broken { self.rewrite().map(|()| true) } else { Ok(false) }
    }

    fn write(&mut self, record: &Record) -> Result<(), DiskError> {
        let fresh_size = 1 + self.leases.len() + self.freed.len();
        if self.broken || self.records > fresh_size + SLACK {
            return self.rewrite();
        }
        let written = self.disk.append(LOG, &encode(record)).and_then(|()| self.disk.sync(LOG));
        match written {
            Ok(()) => self.records += 1,
            // Nobody knows what of it is on the disk. The log is not appended to again.
            Err(_) => self.broken = true,
        }
        written
    }

    /// Replaces the log by one that holds just what is in force.
    fn rewrite(&mut self) -> Result<(), DiskError> {
        self.broken = true;
        let header = Record::Header { version: VERSION, boot: self.boot.clone() };
        let mut bytes = encode(&header);
        let mut records = 1;
        for freed in &self.freed {
            bytes.extend(encode(&Record::Free(freed.clone())));
            records += 1;
        }
        // After the frees: an attachment may have been freed and made again.
        for lease in self.leases.values() {
            bytes.extend(encode(&Record::Put(Box::new(lease.clone()))));
            records += 1;
        }
        self.disk.write(FRESH, &bytes)?;
        self.put_aside()?;
        self.disk.rename(FRESH, LOG)?;
        self.records = records;
        self.broken = false;
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

/// The first line of a log of this version.
fn begins_well(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    matches!(decode(first), Some(Record::Header { version: VERSION, .. }))
}

/// When the log was set aside that has this name, in milliseconds of the boot clock; none for other files.
fn set_aside_at(name: String) -> Option<(u64, String)> {
    let (_, at) = name.strip_prefix(LOG)?.rsplit_once('-')?;
    Some((at.parse().ok()?, name))
}

#[cfg(test)]
mod tests;
