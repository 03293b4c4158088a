//! The allocation table on disk: which attachment holds what. The one memory that outlives the agent.
//!
//! A log of records, synced one by one, so that the cost of a change does not grow with the number of pods; now and then,
//! and at each start, it is replaced by a fresh one. The rules that make it safe against `kill -9` at any instruction:
//!
//! - a change that returned is durable; one that was cut off happened wholly or not at all;
//! - after a failed write or sync the log is not appended to again: the next change writes a fresh one beside it;
//! - a file that cannot be understood is set aside, never overwritten.
//!
//! Must not know the kernel or the allocator: `recover` compares, the ledger decides.

pub mod format;
pub mod import;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;

use crate::addr::Attachment;
use crate::disk::{Disk, DiskError};
use crate::lease::Lease;
use crate::store::format::{Freed, Record, VERSION, decode, encode};

/// The log.
pub const LOG: &str = "leases.log";
/// A fresh log before it takes the log's name.
const FRESH: &str = "leases.new";

/// The log is replaced when it holds this many records more than it would hold fresh.
const SLACK: usize = 4096;

/// How long a freed address is kept in mind, in milliseconds. Longer than any rest.
const FREED_MEMORY_MS: u64 = 10 * 60 * 1000;

/// A store that cannot be opened, or a change that may not be durable.
#[derive(Debug)]
pub enum StoreError {
    /// The disk failed.
    Disk(DiskError),
    /// The log was written by another version of flock.
    Version {
        /// Its version.
        found: u32,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Disk(error) => write!(f, "{error}"),
            StoreError::Version { found } => write!(
                f,
                "the state is of format version {found}, and this agent reads {VERSION}: start the agent that wrote it, or \
                 drain the node and remove the state directory"
            ),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> StoreError {
        StoreError::Disk(error)
    }
}

/// What was noticed while the store was opened, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The state of an earlier boot was dropped: its pods are gone.
    OtherBoot,
    /// The last record was cut off in mid-write, and had never been acknowledged.
    TornTail,
    /// Records in the middle were unreadable; the damaged file was kept under this name, what could be read is in force.
    Damaged {
        /// How many lines could not be read.
        lines: usize,
        /// Where the damaged file is now.
        kept_as: String,
    },
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
    /// A write or sync has failed since the log was last replaced.
    broken: bool,
}

impl<D: Disk> Store<D> {
    /// Reads the table, drops it if it is of another boot than `boot`, and replaces the log by a fresh one. `now` is in
    /// milliseconds of the boot clock.
    ///
    /// # Errors
    /// The disk failed, or the log is of another version; nothing was changed then.
    pub fn open(mut disk: D, boot: &str, now: u64) -> Result<(Store<D>, Vec<Finding>), StoreError> {
        let bytes = disk.read(LOG)?.unwrap_or_default();
        let mut store =
            Store { disk, boot: boot.into(), leases: HashMap::new(), freed: VecDeque::new(), records: 0, broken: true };
        let findings = store.replay(&bytes, now)?;
        for finding in &findings {
            if let Finding::Damaged { kept_as, .. } = finding {
                store.disk.rename(LOG, kept_as)?;
            }
        }
        store.rewrite()?;
        Ok((store, findings))
    }

    fn replay(&mut self, bytes: &[u8], now: u64) -> Result<Vec<Finding>, StoreError> {
        let mut findings = Vec::new();
        let complete = bytes.last().is_none_or(|last| *last == b'\n');
        let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        // What follows the last line end is nothing, or a record that was never acknowledged.
        lines.pop();
        if !complete {
            findings.push(Finding::TornTail);
        }
        let mut damaged = 0;
        let mut of_this_boot = false;
        for (position, line) in lines.iter().enumerate() {
            match decode(line) {
                Some(Record::Header { version, .. }) if version != VERSION => {
                    return Err(StoreError::Version { found: version });
                }
                Some(Record::Header { boot, .. }) => {
                    of_this_boot = boot == self.boot;
                    if !of_this_boot {
                        return Ok(vec![Finding::OtherBoot]);
                    }
                }
                Some(Record::Put(lease)) => {
                    self.leases.insert(lease.attachment.clone(), *lease);
                }
                Some(Record::Free(freed)) => {
                    self.leases.remove(&freed.attachment);
                    self.remember(freed, now);
                }
                // A torn write can also end in a line end that belongs to the record's own bytes on a disk that reorders.
                None if position + 1 == lines.len() && findings.is_empty() && position > 0 => {
                    findings.push(Finding::TornTail);
                }
                None => damaged += 1,
            }
        }
        if damaged > 0 || (!of_this_boot && !lines.is_empty()) {
            let kept_as = format!("{LOG}.damaged-{now}");
            findings = vec![Finding::Damaged { lines: damaged, kept_as }];
        }
        Ok(findings)
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
    pub fn put(&mut self, lease: Lease) -> Result<(), StoreError> {
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

    /// Records the end of a lease; one that is unknown is fine. `now` is in milliseconds of the boot clock.
    ///
    /// # Errors
    /// The end is in force all the same, and only not durable: its link is gone, which recovery sees.
    pub fn free(&mut self, attachment: &Attachment, now: u64) -> Result<(), StoreError> {
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

    fn write(&mut self, record: &Record) -> Result<(), StoreError> {
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
        Ok(written?)
    }

    /// Replaces the log by one that holds just what is in force.
    fn rewrite(&mut self) -> Result<(), StoreError> {
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
        self.disk.replace(FRESH, LOG, &bytes)?;
        self.records = records;
        self.broken = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
