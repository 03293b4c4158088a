//! flock's tables in the kernel: what is in force, brought to what is wanted, and compared with what the kernel shows.
//!
//! The one place that has the socket to nftables. What is in force is known from the changes that the kernel has taken, so an
//! address more or less is one small batch; the kernel's own count of changes tells whether anybody else has changed anything
//! since. Must not know what the tables are for.

use std::time::Instant;

use crate::kernel::nftables::shown::Shown;
use crate::kernel::nftables::socket::Nftables;
use crate::kernel::nftables::{Cause, NftError};
use crate::process::failpoint;
use model::ruleset::diff::{Change, carried_out, diff};
use model::ruleset::{Ruleset, Table, TableKey};

/// The tables.
#[derive(Debug)]
pub struct Tables {
    /// The tables that are looked after, whether or not they are wanted now.
    keys: &'static [TableKey],
    nft: Option<Nftables>,
    /// What is in force; none if that has to be read first.
    in_force: Option<Ruleset>,
    /// The kernel's count of changes at the last look or own change.
    generation: Option<u32>,
    /// The kernel has no tables at all.
    absent: bool,
    /// How many batches the kernel has taken.
    batches: u64,
}

/// What became of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub enum Compared {
    /// The kernel shows what is in force.
    Same,
    /// It shows something else; the first difference, in words for an operator.
    Differs(String),
}

impl Tables {
    /// Tables of which nothing is known yet. No socket is opened before it is needed.
    pub fn new(keys: &'static [TableKey]) -> Tables {
        Tables { keys, nft: None, in_force: None, generation: None, absent: false, batches: 0 }
    }

    /// What is in force, as far as it is known.
    pub fn in_force(&self) -> Option<&Ruleset> {
        self.in_force.as_ref()
    }

    /// How many batches the kernel has taken.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// The number by which the kernel names the socket in its announcements.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn port(&mut self) -> Result<u32, NftError> {
        Tables::nft(&mut self.nft).map(|nft| nft.port())
    }

    /// Lets go of what is known to be in force: the next change reads it first.
    pub fn forget(&mut self) {
        self.in_force = None;
        self.absent = false;
    }

    /// Notes that this kernel has no tables, which is well as long as none is wanted: it is not asked again.
    pub fn are_absent(&mut self) {
        let batches = self.batches;
        *self = Tables { in_force: Some(Ruleset::new()), absent: true, batches, ..Tables::new(self.keys) };
    }

    /// Whether this kernel has no tables, as far as it was asked.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// Lets go of it that this kernel has no tables, as there are to be some: it is asked.
    pub fn are_needed(&mut self) {
        if self.absent {
            self.forget();
        }
    }

    /// The table that stands; none if there is none.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn standing(&mut self, key: TableKey, deadline: Instant) -> Result<Option<Shown>, NftError> {
        Tables::nft(&mut self.nft)?.read(key, deadline)
    }

    /// Takes what stands for what is in force, as far as it can be told beside what is `wanted`: with unknown rules in the chains
    /// of the table `key`, which is `shown`. A chain that goes on to be wanted with unknown rules is left alone.
    ///
    /// # Errors
    /// The kernel cannot be asked, or the table is none that can be gone on with ([`Cause::Unknown`]).
    pub fn inherit(
        &mut self,
        (key, shown): (TableKey, &Shown),
        wanted: &Ruleset,
        deadline: Instant,
    ) -> Result<(), NftError> {
        let nothing = Table::default();
        let of = |key: &TableKey| wanted.get(key).unwrap_or(&nothing);
        let mut in_force = Ruleset::new();
        in_force.insert(key, shown.outline(of(&key)).ok_or_else(|| unknown(key))?);
        let mut odd = Vec::new();
        for other in self.keys.iter().filter(|other| **other != key) {
            let Some(shown) = Tables::nft(&mut self.nft)?.read(*other, deadline)? else { continue };
            match shown.outline(of(other)) {
                Some(table) => _ = in_force.insert(*other, table),
                // Nothing of it goes on.
                None => odd.push(Change::RemoveTable(*other)),
            }
        }
        self.carry_out(&odd, deadline)?;
        self.in_force = Some(in_force);
        Ok(())
    }

    /// Whether the kernel shows something else than `wanted`, or something that `wanted` lacks.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn is_other(&mut self, wanted: &Ruleset, deadline: Instant) -> Result<bool, NftError> {
        Ok(self.differs(wanted, None, deadline)?.is_some())
    }

    fn nft(nft: &mut Option<Nftables>) -> Result<&mut Nftables, NftError> {
        match nft {
            Some(nft) => Ok(nft),
            none => Ok(none.insert(Nftables::open()?)),
        }
    }

    /// Brings the kernel to `wanted`: by difference where it is known what is in force, else anew as a whole, unless the kernel
    /// shows just that already. It takes the place of the table `former`, which goes in the same batch; returns whether that stood.
    /// All or nothing, so that no packet sees a part of it.
    ///
    /// # Errors
    /// The kernel refuses, or there was no time. What is in force is then what was before, and is read again before the next
    /// change. [`Cause::Unknown`]: there is no way to `wanted` but to make a chain anew whose rules are not known.
    pub fn put_instead(
        &mut self,
        wanted: Ruleset,
        former: Option<TableKey>,
        deadline: Instant,
    ) -> Result<bool, NftError> {
        let mut changes = match &self.in_force {
            Some(in_force) => diff(&wanted, in_force),
            None => match self.differs(&wanted, None, deadline)? {
                None => Vec::new(),
                Some(_) => self.mended(&wanted, deadline)?,
            },
        };
        let mut stood = false;
        if let Some(former) = former
            && self.stands(former, deadline)?
        {
            changes.push(Change::RemoveTable(former));
            stood = true;
        }
        let makes_unknown = |change: &Change| match change {
            Change::PutRules(key, _, rules) => rules.iter().any(Vec::is_empty).then_some(*key),
            _ => None,
        };
        if let Some(key) = changes.iter().find_map(makes_unknown) {
            self.in_force = None;
            return Err(unknown(key));
        }
        self.carry_out(&changes, deadline)?;
        self.in_force = Some(wanted);
        Ok(stood)
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn stands(&mut self, key: TableKey, deadline: Instant) -> Result<bool, NftError> {
        match Tables::nft(&mut self.nft).and_then(|nft| nft.read(key, deadline)) {
            Ok(shown) => Ok(shown.is_some()),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Carries out changes of what is in force.
    ///
    /// # Errors
    /// As [`Tables::put_instead`]. It need not be known what is in force.
    pub fn change(&mut self, changes: &[Change], deadline: Instant) -> Result<(), NftError> {
        self.carry_out(changes, deadline)?;
        if let Some(in_force) = &mut self.in_force
            && carried_out(in_force, changes).is_err()
        {
            // The kernel has taken what the picture of it could not: the picture is wrong.
            self.in_force = None;
        }
        Ok(())
    }

    /// The changes that make of what stands what is wanted. Each chain goes on where it is, with other rules: in the moment in
    /// which a whole table takes the place of another one, single packets pass both. Only what flock cannot have made is made
    /// anew.
    fn mended(&mut self, wanted: &Ruleset, deadline: Instant) -> Result<Vec<Change>, NftError> {
        let (mut changes, mut standing) = (Vec::new(), Ruleset::new());
        let nothing = Table::default();
        for key in self.keys {
            let Some(shown) = Tables::nft(&mut self.nft)?.read(*key, deadline)? else { continue };
            match shown.outline(wanted.get(key).unwrap_or(&nothing)) {
                Some(table) => drop(standing.insert(*key, table)),
                None => changes.push(Change::RemoveTable(*key)),
            }
        }
        changes.extend(diff(wanted, &standing));
        Ok(changes)
    }

    fn carry_out(&mut self, changes: &[Change], deadline: Instant) -> Result<(), NftError> {
        if changes.is_empty() {
            return Ok(());
        }
        failpoint::pass("tables.change").ok();
        let nft = Tables::nft(&mut self.nft)?;
        let done = nft.apply(changes, deadline);
        failpoint::pass("tables.changed").ok();
        if let Err(error) = done {
            self.in_force = None;
            return Err(error);
        }
        self.generation = None;
        self.batches += 1;
        Ok(())
    }

    /// Compares what the kernel shows with what is in force, and rules that nobody knows with those that were `before`. Nothing is
    /// read where the kernel has counted no change since the last comparison.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn compare(&mut self, before: Option<&Shown>, deadline: Instant) -> Result<Compared, NftError> {
        failpoint::pass("tables.compare").ok();
        let Some(in_force) = self.in_force.take() else { return Ok(Compared::Same) };
        if in_force.is_empty() && self.nft.is_none() {
            // Nothing is wanted and nothing was ever made.
            self.in_force = Some(in_force);
            return Ok(Compared::Same);
        }
        // Asked before the tables are read: what changes in between is another change.
        let generation = Tables::nft(&mut self.nft)?.generation(deadline)?;
        if self.generation == Some(generation) {
            self.in_force = Some(in_force);
            return Ok(Compared::Same);
        }
        let differs = self.differs(&in_force, before, deadline)?;
        match differs {
            None => {
                self.in_force = Some(in_force);
                self.generation = Some(generation);
                Ok(Compared::Same)
            }
            Some(what) => Ok(Compared::Differs(what)),
        }
    }

    /// The first difference between what the kernel shows and `wanted`.
    fn differs(
        &mut self,
        wanted: &Ruleset,
        before: Option<&Shown>,
        deadline: Instant,
    ) -> Result<Option<String>, NftError> {
        let nothing = Table::default();
        for key in self.keys {
            let mut before_that = None;
            loop {
                let shown = Tables::nft(&mut self.nft)?.read(*key, deadline)?;
                let differs = match (&shown, wanted.get(key)) {
                    (None, None) => None,
                    (None, Some(_)) => Some(format!("{key} is gone")),
                    (Some(_), None) => Some(format!("{key} is there")),
                    (Some(shown), wanted) => shown.differs_from(wanted.unwrap_or(&nothing), before),
                };
                // While the kernel makes room in a large set, a list of it may lack elements: what is wrong is so twice.
                if differs.is_none() {
                    break;
                }
                if differs == before_that || Instant::now() >= deadline {
                    return Ok(differs);
                }
                before_that = differs;
            }
        }
        Ok(None)
    }
}

/// What is there cannot be gone on with.
pub fn unknown(key: TableKey) -> NftError {
    NftError { what: format!("go on with {key}"), cause: Cause::Unknown }
}
