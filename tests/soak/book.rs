//! The soak's own book: what must be attached, with which addresses, and which addresses have to rest.
//!
//! Written by the callers from what the plugin answered, never from what flock recorded, and compared with that.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use model::addr::Attachment;
use model::ipam::REST_MS;
use model::lease::Lease;
use serde_json::Value;

use crate::support::outcome::Attached;

/// How sure it is that an attachment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An ADD or DEL runs, or ended in a way that leaves it open. A runtime sends DEL.
    Unclear,
    /// ADD has succeeded.
    Attached,
    /// Its namespace was deleted by hand. It ends without DEL.
    Vanished,
}

/// One attachment.
#[derive(Debug, Clone)]
pub struct Entry {
    pub state: State,
    /// The name of its namespace.
    pub pod: String,
    pub ips: Vec<IpAddr>,
    /// The name of its host end.
    pub host_link: String,
    /// The result of ADD.
    pub result: Value,
    /// The round in which it was made.
    pub round: u64,
}

/// The book.
#[derive(Default)]
pub struct Book {
    entries: BTreeMap<Attachment, Entry>,
    holders: HashMap<IpAddr, Attachment>,
    /// When an address may have been released at the earliest, in milliseconds of the boot clock.
    released: HashMap<IpAddr, u64>,
    round: u64,
}

impl Book {
    /// ADD is about to be called.
    pub fn expect(&mut self, attachment: &Attachment, pod: &str) {
        let entry = Entry {
            state: State::Unclear,
            pod: pod.into(),
            ips: Vec::new(),
            host_link: String::new(),
            result: Value::Null,
            round: self.round,
        };
        self.entries.insert(attachment.clone(), entry);
    }

    /// ADD has succeeded, at `now` at the latest. An error is a finding.
    pub fn attached(&mut self, attachment: &Attachment, got: &Attached, now: u64) -> Result<(), String> {
        for ip in got.ips() {
            if let Some(holder) = self.holders.insert(ip, attachment.clone()) {
                return Err(format!("{ip} was given to {attachment} while {holder} has it"));
            }
            let rested = self.released.get(&ip).map(|at| now.saturating_sub(*at));
            if let Some(rested) = rested.filter(|rested| *rested < REST_MS) {
                return Err(format!("{ip} was given to {attachment} after {rested} ms of rest at most"));
            }
        }
        let entry = self.entries.get_mut(attachment).expect("it was expected");
        entry.state = State::Attached;
        entry.ips = got.ips();
        entry.host_link = got.host_link();
        entry.result = got.result.clone();
        Ok(())
    }

    /// DEL is about to be called, or the namespace to be deleted by hand: from now on its addresses may be released.
    pub fn leaves(&mut self, attachment: &Attachment, state: State, now: u64) {
        let Some(entry) = self.entries.get_mut(attachment) else { return };
        if entry.state == State::Attached {
            for ip in &entry.ips {
                self.released.insert(*ip, now);
                self.holders.remove(ip);
            }
        }
        if entry.state != State::Vanished {
            entry.state = state;
        }
    }

    /// DEL has succeeded.
    pub fn gone(&mut self, attachment: &Attachment) {
        self.entries.remove(attachment);
    }

    /// The next round begins: nobody works, and all that vanished has ended.
    pub fn turn_page(&mut self, now: u64) {
        self.round += 1;
        self.entries.retain(|_, entry| entry.state != State::Vanished);
        self.released.retain(|_, at| *at + 2 * REST_MS > now);
    }

    pub fn get(&self, attachment: &Attachment) -> Option<&Entry> {
        self.entries.get(attachment)
    }

    /// What stands for certain.
    pub fn standing(&self) -> impl Iterator<Item = (&Attachment, &Entry)> {
        self.entries.iter().filter(|(_, entry)| entry.state == State::Attached)
    }

    /// What stood already when the callers last paused.
    pub fn settled(&self) -> impl Iterator<Item = (&Attachment, &Entry)> {
        self.standing().filter(|(_, entry)| entry.round < self.round)
    }

    /// What a runtime calls valid in GC: all that it has not given up.
    pub fn valid(&self) -> Vec<Attachment> {
        let valid = self.entries.iter().filter(|(_, entry)| entry.state != State::Vanished);
        valid.map(|(attachment, _)| attachment.clone()).collect()
    }

    /// What flock has recorded and the book does not expect, and the other way round.
    pub fn differences(&self, leases: &[Lease]) -> Vec<String> {
        let mut found = Vec::new();
        let mut leased = BTreeMap::new();
        for lease in leases {
            let ips: Vec<IpAddr> = lease.addresses().collect();
            match self.entries.get(&lease.attachment) {
                None => {
                    found.push(format!("book: {} was deleted or never answered for, and is leased", lease.attachment))
                }
                Some(entry) if entry.state == State::Vanished => {
                    found.push(format!("book: the namespace of {} is gone, and it is leased", lease.attachment));
                }
                Some(entry) if entry.state == State::Attached && entry.ips != ips => {
                    found.push(format!("book: {} got {:?}, and {ips:?} is recorded", lease.attachment, entry.ips));
                }
                Some(_) => {}
            }
            leased.insert(&lease.attachment, ());
        }
        for (attachment, entry) in self.standing().filter(|(attachment, _)| !leased.contains_key(attachment)) {
            found.push(format!("book: {attachment} got {:?} and was not deleted, and nothing is leased", entry.ips));
        }
        found
    }
}
