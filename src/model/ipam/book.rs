//! Who has which address of one family: held, resting, or kept away from pods.
//!
//! An address is free when no list here has it. Held and resting exclude each other; a reserved one may be held as
//! well, when the host took an address that a pod already has. This file must not know ranges.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use super::{IpamError, Owner, REST_MS};

/// The lists of one family. `A` is the address as a number.
#[derive(Debug, Clone)]
pub(super) struct Book<A> {
    held: BTreeSet<A>,
    resting: BTreeMap<A, Rest>,
    /// The same, oldest first.
    queue: BTreeSet<(u64, A)>,
    reserved: BTreeSet<A>,
}

/// The rest of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// When it was released, in milliseconds.
    pub(super) since: u64,
    /// Who had it.
    pub(super) owner: Owner,
}

/// What an address is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Somebody has it.
    Held,
    /// No pod may have it.
    Reserved,
    /// Somebody had it lately.
    Resting(Rest),
    /// Nobody's.
    Free,
}

impl<A> Default for Book<A> {
    fn default() -> Self {
        Book { held: BTreeSet::new(), resting: BTreeMap::new(), queue: BTreeSet::new(), reserved: BTreeSet::new() }
    }
}

impl<A: Ord + Copy> Book<A> {
    pub(super) fn is_free(&self, at: A) -> bool {
        !self.held.contains(&at) && !self.resting.contains_key(&at) && !self.reserved.contains(&at)
    }

    pub(super) fn holds(&self, at: A) -> bool {
        self.held.contains(&at)
    }

    /// What the address is at `now`.
    pub(super) fn state(&self, at: A, now: u64) -> State {
        if self.holds(at) {
            return State::Held;
        }
        if self.reserved.contains(&at) {
            return State::Reserved;
        }
        match self.resting.get(&at) {
            // A release in the future counts as one of now.
            Some(rest) if !rested(rest.since, now) => State::Resting(Rest { since: rest.since.min(now), ..*rest }),
            _ => State::Free,
        }
    }

    /// Marks as held, whatever it was.
    pub(super) fn hold(&mut self, at: A) {
        self.wake(at);
        self.held.insert(at);
    }

    /// Held becomes resting; says whether it was held.
    pub(super) fn release(&mut self, at: A, owner: Owner, now: u64) -> bool {
        let was_held = self.held.remove(&at);
        if was_held {
            self.rest(at, Rest { since: now, owner });
        }
        was_held
    }

    /// Held becomes free; says whether it was held.
    pub(super) fn give_back(&mut self, at: A) -> bool {
        self.held.remove(&at)
    }

    /// Resting as it says, unless it is held or was released later than that.
    pub(super) fn restore_rest(&mut self, at: A, rest: Rest) {
        let later = self.resting.get(&at).is_some_and(|known| known.since >= rest.since);
        if !self.held.contains(&at) && !later {
            self.wake(at);
            self.rest(at, rest);
        }
    }

    fn rest(&mut self, at: A, rest: Rest) {
        self.resting.insert(at, rest);
        self.queue.insert((rest.since, at));
    }

    fn wake(&mut self, at: A) {
        if let Some(rest) = self.resting.remove(&at) {
            self.queue.remove(&(rest.since, at));
        }
    }

    /// Takes one that has rested for long enough off the list.
    pub(super) fn pop_rested(&mut self, now: u64) -> Option<A> {
        self.limit_future(now);
        let (since, at) = self.queue.first().copied()?;
        if !rested(since, now) {
            return None;
        }
        self.wake(at);
        Some(at)
    }

    /// A release time in the future (a clock that was set back) would make a rest that may never end. It counts as
    /// released now.
    fn limit_future(&mut self, now: u64) {
        while let Some((since, at)) = self.queue.last().copied().filter(|(since, _)| *since > now) {
            self.queue.remove(&(since, at));
            if let Some(rest) = self.resting.get(&at).copied() {
                self.rest(at, Rest { since: now, ..rest });
            }
        }
    }

    /// The resting address that `asker` had, or else that was released first, among those that `fits` and that are not reserved.
    pub(super) fn best_resting(&self, asker: Owner, fits: impl Fn(A) -> bool) -> Option<(A, Rest)> {
        let fitting = self.queue.iter().filter(|(_, at)| fits(*at) && !self.reserved.contains(at));
        let mut fitting = fitting.filter_map(|(_, at)| Some((*at, *self.resting.get(at)?)));
        let oldest = fitting.next()?;
        if oldest.1.owner == asker {
            return Some(oldest);
        }
        fitting.find(|(_, rest)| rest.owner == asker).or(Some(oldest))
    }

    /// Replaces the reserved ones; gives those that were and those that are.
    pub(super) fn reserve(&mut self, new: BTreeSet<A>) -> (BTreeSet<A>, &BTreeSet<A>) {
        (core::mem::replace(&mut self.reserved, new), &self.reserved)
    }

    /// Every address that is not free, some twice.
    pub(super) fn taken(&self) -> impl Iterator<Item = A> + '_ {
        self.held.iter().chain(self.resting.keys()).chain(&self.reserved).copied()
    }

    /// How many entries all lists have together: at least as many as there are addresses that are not free.
    pub(super) fn entries(&self) -> u128 {
        // A length in memory fits, so the conversion cannot lose anything.
        [self.held.len(), self.resting.len(), self.reserved.len()].iter().map(|len| *len as u128).sum()
    }

    /// Counts among the addresses that `fits`.
    pub(super) fn tally(&self, now: u64, fits: impl Fn(A) -> bool) -> Tally {
        let mut tally = Tally::default();
        for at in self.held.iter().filter(|at| fits(**at)) {
            tally.held += 1;
            tally.blocked += u64::from(!self.reserved.contains(at));
        }
        for (at, _) in self.resting.iter().filter(|(at, rest)| fits(**at) && !rested(rest.since, now)) {
            tally.resting += 1;
            tally.blocked += u64::from(!self.reserved.contains(at));
        }
        tally.reserved = count(self.reserved.iter().filter(|at| fits(**at)));
        tally.blocked += tally.reserved;
        tally
    }

    /// How many are held, wherever they are.
    pub(super) fn held(&self) -> u64 {
        count(self.held.iter())
    }

    /// How many still rest at `now`, wherever they are.
    pub(super) fn resting(&self, now: u64) -> u64 {
        count(self.resting.values().filter(|rest| !rested(rest.since, now)))
    }
}

fn rested(since: u64, now: u64) -> bool {
    since.checked_add(REST_MS).is_some_and(|end| end <= now)
}

fn count(items: impl Iterator) -> u64 {
    items.fold(0, |sum, _| sum + 1)
}

/// Counts of one range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) held: u64,
    pub(super) resting: u64,
    pub(super) reserved: u64,
    /// Not free, each address once.
    pub(super) blocked: u64,
}

impl Tally {
    /// Why a pod cannot have the one address that these counts are of.
    pub(super) fn of_one(&self, address: IpAddr) -> IpamError {
        if self.held > 0 { IpamError::Held(address) } else { IpamError::Reserved(address) }
    }
}
