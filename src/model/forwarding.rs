//! What somebody's packet filter does with a packet that the host forwards: a walk through its chains.
//!
//! How a filter is read, and whether a rule of it fits the packet, is for others to say; of a rule that nobody here understands
//! they say that it may fit. Must not know a filter's encoding, nor what follows from the answer.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// Chains that lead to each other more often than this are a circle, which no filter takes.
const DEPTH_MAX: usize = 32;

/// The ports of who begins and of who answers, which no rule is likely to name.
pub const PORTS: [u16; 2] = [48_917, 52_417];

/// One packet of TCP, between [`PORTS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The link by which it comes.
    pub from: Link,
    /// The link by which it goes.
    pub to: Link,
    /// Its source.
    pub source: IpAddr,
    /// Its destination, of the same family.
    pub destination: IpAddr,
    /// It answers, and so belongs to a connection that has been let pass.
    pub answers: bool,
}

impl Packet {
    /// Its source and its destination port.
    pub fn ports(&self) -> [u16; 2] {
        let [begins, answers] = PORTS;
        if self.answers { [answers, begins] } else { [begins, answers] }
    }
}

/// A link of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index; 0 for one that is not there.
    pub index: u32,
}

/// Whether a packet is one of those that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It is not.
    No,
    /// Nobody here knows.
    Maybe,
    /// It is.
    Yes,
}

/// What a rule does with a packet that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It has passed the filter.
    Accept,
    /// It ends, with or without a word to its sender.
    Drop,
    /// On to another chain, and back from its end.
    Jump(String),
    /// On to another chain.
    Goto(String),
    /// Back to where the chain was jumped to from.
    Return,
    /// On to the next rule.
    Next,
    /// Nobody here knows.
    Unknown,
}

/// A rule, as far as one packet is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether the packet is meant.
    pub fit: Fit,
    /// What becomes of it then.
    pub deed: Deed,
}

/// The chains of a filter, as far as one packet is concerned.
pub type Chains = BTreeMap<String, Vec<Rule>>;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It passes. Something that nobody here understands may stop it all the same: such rules are about special packets.
    Passes,
    /// It is dropped.
    Dropped(Place),
    /// It is dropped, unless a rule that nobody here understands lets it pass.
    DroppedUnless(Place),
}

/// Where a packet is dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The chain.
    pub chain: String,
    /// By a rule; otherwise by the policy of the chain, as no rule lets it pass.
    pub by_rule: bool,
}

/// What becomes of a packet in a chain: the rules that nobody understands passed over, and beside that what they may make of it.
#[derive(Debug, Clone, Default)]
struct Ends {
    /// How it ends there; none if it comes out at the end of the chain.
    ended: Option<End>,
    /// It may be accepted.
    may_pass: bool,
    /// It may come out at the end of the chain.
    may_leave: bool,
}

#[derive(Debug, Clone)]
enum End {
    Accepted,
    Dropped(Place),
}

/// What the chains do with a packet that enters at `start`, at whose end it is dropped or not.
pub fn fate(chains: &Chains, start: &str, drops_at_the_end: bool) -> Fate {
    let Ends { ended, may_pass, may_leave } = walk(chains, start, 0);
    let place = match ended {
        Some(End::Dropped(place)) => place,
        None if drops_at_the_end => Place { chain: start.into(), by_rule: false },
        Some(End::Accepted) | None => return Fate::Passes,
    };
    if may_pass || may_leave && !drops_at_the_end { Fate::DroppedUnless(place) } else { Fate::Dropped(place) }
}

fn walk(chains: &Chains, name: &str, depth: usize) -> Ends {
    let mut ends = Ends::default();
    let Some(chain) = chains.get(name).filter(|_| depth < DEPTH_MAX) else { return ends };
    // The packet is still in this chain: for all that is known, and if a rule that nobody understands has led it here.
    let (mut here, mut may_be_here) = (true, false);
    for rule in chain.iter().filter(|rule| rule.fit != Fit::No) {
        if !here && !may_be_here {
            return ends;
        }
        let sure = rule.fit == Fit::Yes;
        // What a rule leads to: how it ends there, whether it may pass there, and whether it comes or may come to the next rule.
        let (inner, on) = match &rule.deed {
            Deed::Next => continue,
            Deed::Unknown => {
                ends.may_pass = true;
                continue;
            }
            Deed::Accept => (Ends { ended: Some(End::Accepted), ..Ends::default() }, false),
            Deed::Drop => {
                let place = Place { chain: name.into(), by_rule: true };
                (Ends { ended: Some(End::Dropped(place)), ..Ends::default() }, false)
            }
            Deed::Return => (Ends::default(), false),
            Deed::Goto(to) => (walk(chains, to, depth + 1), false),
            Deed::Jump(to) => (walk(chains, to, depth + 1), true),
        };
        let comes_out = inner.ended.is_none();
        ends.may_pass |= inner.may_pass || matches!(inner.ended, Some(End::Accepted)) && !(sure && here);
        if !sure {
            ends.may_leave |= !on && (comes_out || inner.may_leave);
            continue;
        }
        let may_come_out = inner.may_leave || may_be_here && comes_out;
        ends.may_leave |= !on && may_come_out;
        may_be_here = on && may_come_out;
        if here {
            here = on && comes_out;
            if !here {
                ends.ended = inner.ended;
            }
        }
    }
    ends.may_leave |= may_be_here;
    ends
}

#[cfg(test)]
mod tests {
    use std::borrow::ToOwned as _;

    use super::*;
    use Fit::{Maybe, No, Yes};

    /// Chains, each of rules.
    fn chains(of: &[(&str, &[(Fit, &str)])]) -> Chains {
        let rule = |(fit, words): &(Fit, &str)| {
            let deed = match words.split_once(' ') {
                Some(("jump", to)) => Deed::Jump(to.to_owned()),
                Some(("goto", to)) => Deed::Goto(to.to_owned()),
                _ => match *words {
                    "accept" => Deed::Accept,
                    "drop" => Deed::Drop,
                    "return" => Deed::Return,
                    "next" => Deed::Next,
                    _ => Deed::Unknown,
                },
            };
            Rule { fit: *fit, deed }
        };
        of.iter().map(|(name, rules)| ((*name).to_owned(), rules.iter().map(rule).collect())).collect()
    }

    #[track_caller]
    fn check(of: &[(&str, &[(Fit, &str)])], drops_at_the_end: bool, expected: &str) {
        let told = match fate(&chains(of), "a", drops_at_the_end) {
            Fate::Passes => "passes".to_owned(),
            Fate::Dropped(place) => format!("{} {}", place.chain, place.by_rule),
            Fate::DroppedUnless(place) => format!("perhaps {} {}", place.chain, place.by_rule),
        };
        assert_eq!(told, expected, "{of:?}");
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_then_the_policy() {
        check(&[("a", &[])], false, "passes");
        check(&[("a", &[])], true, "a false");
        check(&[("a", &[(No, "accept"), (Yes, "next")])], true, "a false");
        check(&[("a", &[(Yes, "accept"), (Yes, "drop")])], true, "passes");
        check(&[("a", &[(Yes, "drop"), (Yes, "accept")])], false, "a true");
        check(&[("a", &[(Yes, "return"), (Yes, "accept")])], true, "a false");
        check(&[("b", &[])], false, "passes");
    }

    #[test]
    fn a_jump_comes_back_and_a_goto_does_not() {
        let (to_b, on_to_b) = ([(Yes, "jump b"), (Yes, "accept")], [(Yes, "goto b"), (Yes, "accept")]);
        check(&[("a", &to_b), ("b", &[])], true, "passes");
        check(&[("a", &on_to_b), ("b", &[])], true, "a false");
        check(&[("a", &to_b), ("b", &[(Yes, "return"), (Yes, "drop")])], true, "passes");
        check(&[("a", &to_b), ("b", &[(Yes, "drop")])], false, "b true");
        check(&[("a", &[(Yes, "jump b")]), ("b", &[(Yes, "jump c")]), ("c", &[(Yes, "drop")])], false, "c true");
        check(&[("a", &[(Yes, "jump b"), (Yes, "drop")]), ("b", &[(Yes, "accept")])], true, "passes");
        check(&[("a", &[(No, "jump b")]), ("b", &[(Yes, "drop")])], false, "passes");
        // No filter has this, and no answer hangs on it.
        check(&[("a", &[(Yes, "jump a")])], true, "a false");
    }

    #[test]
    fn a_rule_that_nobody_understands_drops_nothing_and_may_accept() {
        check(&[("a", &[(Maybe, "drop")])], false, "passes");
        check(&[("a", &[(Maybe, "accept")])], true, "perhaps a false");
        check(&[("a", &[(Yes, "unknown")])], true, "perhaps a false");
        check(&[("a", &[(Maybe, "return"), (Yes, "drop")])], false, "perhaps a true");
        check(&[("a", &[(Maybe, "return"), (Yes, "drop")])], true, "a true");
        let returns = ("b", &[(Maybe, "return"), (Yes, "drop")][..]);
        check(&[("a", &[(Yes, "jump b"), (Yes, "accept")]), returns], true, "perhaps b true");
        check(&[("a", &[(Yes, "jump b"), (Yes, "drop")]), returns], false, "b true");
        check(&[("a", &[(Maybe, "goto b"), (Yes, "drop")]), ("b", &[])], false, "perhaps a true");
        check(&[("a", &[(Maybe, "accept"), (Yes, "drop")])], false, "perhaps a true");
        check(&[("a", &[(Maybe, "jump b"), (Yes, "drop")]), ("b", &[(Yes, "accept")])], false, "perhaps a true");
        check(&[("a", &[(Maybe, "jump b"), (Yes, "drop")]), ("b", &[(Yes, "drop")])], false, "a true");
        check(&[("a", &[(Maybe, "jump b")]), ("b", &[(Yes, "drop")])], false, "passes");
        check(&[("a", &[(Yes, "jump b"), (Yes, "drop")]), ("b", &[(Maybe, "accept")])], false, "perhaps a true");
        check(&[("a", &[(Maybe, "accept"), (Yes, "accept")])], true, "passes");
    }
}
