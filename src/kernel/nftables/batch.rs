//! Makes one batch of changes: messages that the kernel carries out all or not at all.
//!
//! Owns which message a change is, how large one may be, and which change a refused one belongs to. Must not send anything.

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::expr;
use super::form::{self, Shape, put_element, put_link};
use super::uapi::*;
use super::wire::{Writer, find};
use crate::kernel::netlink::message::{Attributes, HEADER, text};
use model::ruleset::diff::Change;
use model::ruleset::{Base, ChainKind, Form, Hook, TableFamily, TableKey};

/// Most elements of a set in one message, of which a range has two attributes of some 50 bytes: an attribute has less than 64 KiB.
const ELEMENTS: usize = 512;

/// Most links of a map in one message, each with the name of a chain: the same.
const LINKS: usize = 128;

/// The family of a table as the kernel numbers it.
pub(super) fn family(key: TableKey) -> u8 {
    match key.family {
        TableFamily::Inet => NFPROTO_INET,
        TableFamily::Ip => NFPROTO_IPV4,
        TableFamily::Ip6 => NFPROTO_IPV6,
        TableFamily::Arp => NFPROTO_ARP,
    }
}

/// The table as `nft` names it.
pub(super) fn named(key: TableKey) -> String {
    let family = match key.family {
        TableFamily::Inet => "inet",
        TableFamily::Ip => "ip",
        TableFamily::Ip6 => "ip6",
        TableFamily::Arp => "arp",
    };
    format!("table {family} {}", key.name)
}

/// A base chain's type, hook and policy as the kernel has them: the type's name, the hook's number, and the policy's.
pub(super) fn base_of(key: TableKey, base: Base) -> (&'static str, u32) {
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    let hook = match (key.family, base.hook) {
        // Of `arp`, which has no others.
        (TableFamily::Arp, _) => NF_ARP_IN,
        (_, Hook::Prerouting) => NF_INET_PRE_ROUTING,
        (_, Hook::Input) => NF_INET_LOCAL_IN,
        (_, Hook::Forward) => NF_INET_FORWARD,
        (_, Hook::Postrouting) => NF_INET_POST_ROUTING,
    };
    (kind, hook)
}

/// The reverse of [`base_of`], for the chains that flock makes.
pub(super) fn base_from(key: TableKey, kind: &str, hook: u32, priority: i32) -> Option<Base> {
    let kinds = [ChainKind::Filter, ChainKind::Nat].into_iter();
    let hooks = [Hook::Input, Hook::Prerouting, Hook::Forward, Hook::Postrouting];
    let all = kinds.flat_map(|kind| hooks.map(|hook| Base { kind, hook, priority }));
    all.into_iter().find(|base| base_of(key, *base) == (kind, hook))
}

/// A batch, ready to be sent.
pub(super) struct Batch {
    writer: Writer,
    /// The sequence number of its begin.
    first: u32,
    /// Of its last message but the end, the only one that asks for an acknowledgement.
    last: u32,
    /// Where each message begins, and which change it carries out, from `first` on.
    messages: Vec<(usize, usize)>,
    sets: u32,
}

impl Batch {
    /// The batch of these changes, with sequence numbers from `first` on.
    pub(super) fn of(changes: &[Change], first: u32) -> Batch {
        let mut batch = Batch { writer: Writer::default(), first, last: first, messages: Vec::new(), sets: 0 };
        batch.border(NFNL_MSG_BATCH_BEGIN);
        for (number, change) in changes.iter().enumerate() {
            batch.add(number, change);
        }
        batch.last = batch.next().wrapping_sub(1);
        // Acknowledgements come in the order of the messages, when all is done: what has been refused is known by then.
        let at = batch.messages.last().map_or(0, |(at, _)| *at);
        if let Some([low, high]) = batch.writer.0.get_mut(at + 6..at + 8) {
            let flags = (u16::from_ne_bytes([*low, *high]) | NLM_F_ACK).to_ne_bytes();
            [*low, *high] = flags;
        }
        batch.border(NFNL_MSG_BATCH_END);
        batch
    }

    /// What is sent.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.writer.0
    }

    /// The sequence number of the begin, with which the kernel refuses a batch as a whole.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The sequence number of the message behind whose answer nothing comes any more.
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// The sequence number behind those of the batch.
    pub(super) fn next(&self) -> u32 {
        self.first.wrapping_add(u32::try_from(self.messages.len()).unwrap_or(u32::MAX))
    }

    /// The change that the message with this sequence number carries out. None for the begin, the end and what is not of this
    /// batch.
    pub(super) fn change<'a>(&self, sequence: u32, changes: &'a [Change]) -> Option<&'a Change> {
        let (_, change) = self.messages.get(sequence.wrapping_sub(self.first) as usize)?;
        changes.get(*change)
    }

    /// What is at `offset` of the message with this sequence number, where the kernel sees the fault: an expression of a rule, by
    /// its number and name, or an element.
    pub(super) fn part(&self, sequence: u32, offset: usize, changes: &[Change]) -> Option<String> {
        let (start, change) = *self.messages.get(sequence.wrapping_sub(self.first) as usize)?;
        let message = self.writer.0.get(start..)?;
        let list = |number| find(message.get(HEADER + NFGEN_SIZE..)?, number);
        // The one of a list that holds the offset, counted from the message's beginning on.
        let of = |list| {
            let place = |part: &[u8]| (part.as_ptr() as usize).wrapping_sub(message.as_ptr() as usize);
            let mut parts = Attributes::nested(list).map(|(_, value)| value).enumerate();
            parts.find(|(_, value)| (place(value).saturating_sub(4)..place(value) + value.len()).contains(&offset))
        };
        match changes.get(change)? {
            Change::PutRules(..) => {
                let (number, expression) = of(list(NFTA_RULE_EXPRESSIONS)?)?;
                // The first message of the change takes out what was there.
                let rule = self.messages.iter().filter(|(at, of)| *of == change && *at <= start).count() - 1;
                let name = find(expression, NFTA_EXPR_NAME).map(text)?;
                Some(format!("rule {rule}, expression {} ({name})", number + 1))
            }
            Change::AddElements(_, _, form, _) | Change::RemoveElements(_, _, form, _) => {
                let (_, element) = of(list(NFTA_SET_ELEM_LIST_ELEMENTS)?)?;
                form::key(*form, element).map(|key| form::words(&key))
            }
            Change::AddLinks(..) | Change::RemoveLinks(..) => {
                let (_, element) = of(list(NFTA_SET_ELEM_LIST_ELEMENTS)?)?;
                form::key(Form::Links { counted: false }, element).map(|key| form::words(&key))
            }
            _ => None,
        }
    }

    fn border(&mut self, kind: u16) {
        let sequence = self.next();
        self.messages.push((self.writer.0.len(), usize::MAX));
        self.writer.message(kind, NLM_F_REQUEST, sequence, (NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES), |_| {});
    }

    fn message(&mut self, change: usize, key: TableKey, kind: u16, flags: u16, fill: impl FnOnce(&mut Writer)) {
        let sequence = self.next();
        self.messages.push((self.writer.0.len(), change));
        self.writer.message(kind, flags | NLM_F_REQUEST, sequence, (family(key), 0), fill);
    }

    fn add(&mut self, number: usize, change: &Change) {
        const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
        match change {
            Change::AddTable(key) => self.message(number, *key, NFT_MSG_NEWTABLE, NLM_F_CREATE, |to| {
                to.put_text(NFTA_TABLE_NAME, key.name);
                // Wakes one that somebody has put to sleep.
                to.put_u32(NFTA_TABLE_FLAGS, 0);
            }),
            Change::RemoveTable(key) => self.message(number, *key, NFT_MSG_DELTABLE, 0, |to| {
                to.put_text(NFTA_TABLE_NAME, key.name);
            }),
            Change::AddSet(key, name, form) => self.add_set(number, *key, name, Shape::of(*form)),
            Change::AddMap(key, name) => self.add_set(number, *key, name, Shape::of_map()),
            Change::RemoveSet(key, name) | Change::RemoveMap(key, name) => {
                self.message(number, *key, NFT_MSG_DELSET, 0, |to| {
                    to.put_text(NFTA_SET_TABLE, key.name);
                    to.put_text(NFTA_SET_NAME, name);
                });
            }
            Change::AddChain(key, name, base) => self.message(number, *key, NFT_MSG_NEWCHAIN, NEW, |to| {
                to.put_text(NFTA_CHAIN_TABLE, key.name);
                to.put_text(NFTA_CHAIN_NAME, name);
                if let Some(base) = base {
                    let (kind, hook) = base_of(*key, *base);
                    to.nest(NFTA_CHAIN_HOOK, |to| {
                        to.put_u32(NFTA_HOOK_HOOKNUM, hook);
                        to.put_u32(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
                    });
                    to.put_u32(NFTA_CHAIN_POLICY, NF_ACCEPT);
                    to.put_text(NFTA_CHAIN_TYPE, kind);
                }
            }),
            Change::RemoveChain(key, name) => self.message(number, *key, NFT_MSG_DELCHAIN, 0, |to| {
                to.put_text(NFTA_CHAIN_TABLE, key.name);
                to.put_text(NFTA_CHAIN_NAME, name);
            }),
            Change::PutRules(key, name, rules) => {
                let chain = |to: &mut Writer| {
                    to.put_text(NFTA_RULE_TABLE, key.name);
                    to.put_text(NFTA_RULE_CHAIN, name);
                };
                self.message(number, *key, NFT_MSG_DELRULE, 0, chain);
                for rule in rules {
                    self.message(number, *key, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |to| {
                        chain(to);
                        to.nest(NFTA_RULE_EXPRESSIONS, |to| expr::encode(rule, to));
                    });
                }
            }
            Change::AddElements(key, name, form, elements) => {
                let counted = matches!(form, Form::Links { counted: true });
                self.elements((number, *key, name), (NFT_MSG_NEWSETELEM, NEW), elements, ELEMENTS, |element, to| {
                    put_element(element, counted, to);
                });
            }
            Change::RemoveElements(key, name, _, elements) => {
                self.elements((number, *key, name), (NFT_MSG_DELSETELEM, 0), elements, ELEMENTS, |element, to| {
                    put_element(element, false, to);
                });
            }
            Change::AddLinks(key, name, links) => {
                self.elements((number, *key, name), (NFT_MSG_NEWSETELEM, NEW), links, LINKS, |(link, verdict), to| {
                    put_link(link, Some(verdict), to);
                });
            }
            Change::RemoveLinks(key, name, links) => {
                self.elements((number, *key, name), (NFT_MSG_DELSETELEM, 0), links, ELEMENTS, |link, to| {
                    put_link(link, None, to);
                });
            }
        }
    }

    fn add_set(&mut self, number: usize, key: TableKey, name: &str, shape: Shape) {
        // The kernel wants a number that no other set of the batch has; all that refers to a set does so by its name.
        self.sets += 1;
        let id = self.sets;
        self.message(number, key, NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL, |to| {
            to.put_text(NFTA_SET_TABLE, key.name);
            to.put_text(NFTA_SET_NAME, name);
            to.put_u32(NFTA_SET_ID, id);
            shape.put(to);
        });
    }

    fn elements<T>(
        &mut self,
        (number, key, name): (usize, TableKey, &str),
        (kind, flags): (u16, u16),
        elements: &[T],
        most: usize,
        put: impl Fn(&T, &mut Writer),
    ) {
        for some in elements.chunks(most) {
            self.message(number, key, kind, flags, |to| {
                to.put_text(NFTA_SET_ELEM_LIST_TABLE, key.name);
                to.put_text(NFTA_SET_ELEM_LIST_SET, name);
                to.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |to| some.iter().for_each(|element| put(element, to)));
            });
        }
    }
}

/// What a change does, as an operator would say it.
pub(super) fn described(change: &Change) -> String {
    let (what, key) = match change {
        Change::AddTable(key) => return format!("add {}", named(*key)),
        Change::RemoveTable(key) => return format!("remove {}", named(*key)),
        Change::AddSet(key, name, _) => (format!("add set {name} to"), key),
        Change::RemoveSet(key, name) => (format!("remove set {name} from"), key),
        Change::AddMap(key, name) => (format!("add map {name} to"), key),
        Change::RemoveMap(key, name) => (format!("remove map {name} from"), key),
        Change::AddChain(key, name, _) => (format!("add chain {name} to"), key),
        Change::PutRules(key, name, _) => (format!("put rules into chain {name} of"), key),
        Change::RemoveChain(key, name) => (format!("remove chain {name} from"), key),
        Change::AddElements(key, name, ..) => (format!("add elements to set {name} of"), key),
        Change::RemoveElements(key, name, ..) => (format!("remove elements from set {name} of"), key),
        Change::AddLinks(key, name, _) => (format!("add links to map {name} of"), key),
        Change::RemoveLinks(key, name, _) => (format!("remove links from map {name} of"), key),
    };
    format!("{what} {}", named(*key))
}
