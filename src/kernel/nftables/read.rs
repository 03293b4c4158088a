//! Reads back what is in the kernel: a whole table, or counts alone.
//!
//! Owns which lists are asked for, and that they are of one moment. Must not judge what they show, and never changes anything.

use std::collections::BTreeMap;
use std::time::Instant;

use rustix::io::Errno;

use super::batch::{family, named};
use super::form::{Elements, Shape, elements};
use super::shown::{Shown, ShownChain, ShownRule, ShownSet, rule_count};
use super::socket::Nftables;
use super::uapi::*;
use super::wire::{be32, find};
use super::{Cause, Count, NftError};
use crate::kernel::netlink::message::{Attributes, text};
use model::ruleset::{Element, Form, TableKey};

impl Nftables {
    /// The kernel's number of the present state of all tables of this namespace, which is another one after each batch of anybody.
    ///
    /// # Errors
    /// [`Cause::Absent`], and those of any request.
    pub fn generation(&mut self, deadline: Instant) -> Result<u32, NftError> {
        let what = "ask for the generation of the packet filter";
        let shown = self.get((NFT_MSG_GETGEN, NFPROTO_UNSPEC), |_| {}, (what, deadline)).map_err(|error| {
            match &error.cause {
                // What the kernel says to a request that none of its parts knows.
                Cause::Kernel { errno: Errno::INVAL | Errno::OPNOTSUPP, .. } => {
                    NftError { cause: Cause::Absent, ..error }
                }
                _ => error,
            }
        })?;
        let number = shown.as_deref().and_then(|shown| find(shown, NFTA_GEN_ID)).and_then(be32);
        number.ok_or_else(|| NftError { what: what.into(), cause: Cause::Garbled("no number".into()) })
    }

    /// What the kernel shows of a table at one moment; `None` if there is none. The elements of sets that packets fill are left
    /// out.
    ///
    /// # Errors
    /// [`Cause::Restless`]: somebody changed it again and again until the deadline. Those of any request.
    pub fn read(&mut self, key: TableKey, deadline: Instant) -> Result<Option<Shown>, NftError> {
        let what = format!("read {}", named(key));
        let mut last = None;
        loop {
            let before = self.generation(deadline)?;
            if let Some(shown) = self.read_once(key, &what, deadline)? {
                // Others may be at their own tables all the time: what is the same twice in a row has not changed meanwhile.
                if last.as_ref() == Some(&shown) || self.generation(deadline)? == before {
                    return Ok(shown);
                }
                last = Some(shown);
            }
            if Instant::now() >= deadline {
                return Err(NftError { what, cause: Cause::Restless });
            }
        }
    }

    /// `None` if it changed while it was read.
    fn read_once(&mut self, key: TableKey, what: &str, deadline: Instant) -> Result<Option<Option<Shown>>, NftError> {
        let (of, to) = (family(key), (what, deadline));
        let table = self.get((NFT_MSG_GETTABLE, of), |to| to.put_text(NFTA_TABLE_NAME, key.name), to)?;
        let Some(table) = table else { return Ok(Some(None)) };
        let flags = find(&table, NFTA_TABLE_FLAGS).and_then(be32).unwrap_or_default();
        let dormant = flags & NFT_TABLE_F_DORMANT != 0;
        let mut shown = Shown { key, dormant, sets: BTreeMap::new(), chains: BTreeMap::new() };
        let mine = |list: &[u8], number| find(list, number).map(text).as_deref() == Some(key.name);

        let sets = self.list((NFT_MSG_GETSET, of), |to| to.put_text(NFTA_SET_TABLE, key.name), to)?;
        let Some(sets) = sets else { return Ok(None) };
        for set in sets.iter().filter(|set| mine(set, NFTA_SET_TABLE)) {
            let (Some(name), Some(shape)) = (find(set, NFTA_SET_NAME).map(text), Shape::read(set)) else { continue };
            let filled_by_packets = matches!(shape.form(), Some(Form::Recent { .. } | Form::Rates { .. }));
            let list = if filled_by_packets { Some(Vec::new()) } else { self.list_elements(key, &name, to)? };
            let Some(list) = list else { return Ok(None) };
            shown.sets.insert(name, ShownSet::read(shape, &list));
        }

        // Kernels list the chains of all tables of the family.
        let chains = self.list((NFT_MSG_GETCHAIN, of), |to| to.put_text(NFTA_CHAIN_TABLE, key.name), to)?;
        let Some(chains) = chains else { return Ok(None) };
        for chain in chains.iter().filter(|chain| mine(chain, NFTA_CHAIN_TABLE)) {
            let Some(name) = find(chain, NFTA_CHAIN_NAME).map(text) else { continue };
            shown.chains.insert(name, ShownChain::read(chain));
        }

        let rules = self.list((NFT_MSG_GETRULE, of), |to| to.put_text(NFTA_RULE_TABLE, key.name), to)?;
        let Some(rules) = rules else { return Ok(None) };
        for rule in rules.iter().filter(|rule| mine(rule, NFTA_RULE_TABLE)) {
            let Some(name) = find(rule, NFTA_RULE_CHAIN).map(text) else { continue };
            shown.chains.entry(name).or_default().rules.push(ShownRule::read(rule));
        }
        Ok(Some(Some(shown)))
    }

    /// The elements of a set or map, each by its attributes. `None` if they changed while they were read.
    fn list_elements(
        &mut self,
        key: TableKey,
        set: &str,
        to: (&str, Instant),
    ) -> Result<Option<Vec<Vec<u8>>>, NftError> {
        let request = (NFT_MSG_GETSETELEM, family(key));
        let messages = self.list(
            request,
            |to| {
                to.put_text(NFTA_SET_ELEM_LIST_TABLE, key.name);
                to.put_text(NFTA_SET_ELEM_LIST_SET, set);
            },
            to,
        )?;
        let Some(messages) = messages else { return Ok(None) };
        let lists = messages.iter().filter_map(|message| find(message, NFTA_SET_ELEM_LIST_ELEMENTS));
        Ok(Some(lists.flat_map(Attributes::nested).map(|(_, element)| element.to_vec()).collect()))
    }

    /// What the rules of one chain have counted, in the order of the rules; `None` for one that does not count, or that counts
    /// nothing. Empty if there is no such chain.
    ///
    /// # Errors
    /// As [`Nftables::read`].
    pub fn rule_counts(
        &mut self,
        key: TableKey,
        chain: &str,
        deadline: Instant,
    ) -> Result<Vec<Option<Count>>, NftError> {
        let what = format!("read what chain {chain} of {} counts", named(key));
        let rules = self.whole(&what, deadline, |this| {
            this.list(
                (NFT_MSG_GETRULE, family(key)),
                |to| {
                    to.put_text(NFTA_RULE_TABLE, key.name);
                    to.put_text(NFTA_RULE_CHAIN, chain);
                },
                (&what, deadline),
            )
        })?;
        Ok(rules.iter().map(|rule| rule_count(rule)).collect())
    }

    /// What the elements of a counted set have counted. Empty if there is no such set, or none of the form [`Form::Links`] with
    /// counters.
    ///
    /// # Errors
    /// As [`Nftables::read`].
    pub fn element_counts(
        &mut self,
        key: TableKey,
        set: &str,
        deadline: Instant,
    ) -> Result<Vec<(Element, Count)>, NftError> {
        let what = format!("read what set {set} of {} counts", named(key));
        let list = self.whole(&what, deadline, |this| this.list_elements(key, set, (&what, deadline)))?;
        let Elements { known, .. } = elements(Form::Links { counted: true }, list.iter().map(Vec::as_slice));
        Ok(known.into_iter().filter_map(|(element, count)| Some((element, count?))).collect())
    }

    /// A list that did not change while it was read.
    fn whole<T>(
        &mut self,
        what: &str,
        deadline: Instant,
        mut ask: impl FnMut(&mut Nftables) -> Result<Option<T>, NftError>,
    ) -> Result<T, NftError> {
        loop {
            match ask(self)? {
                Some(list) => return Ok(list),
                None if Instant::now() < deadline => {}
                None => return Err(NftError { what: what.into(), cause: Cause::Restless }),
            }
        }
    }
}
