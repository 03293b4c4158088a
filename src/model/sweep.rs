//! What keeps a pod that sends to many addresses from filling the host's table of neighbours.
//!
//! A packet to an address of a prefix that the host has on a link makes an entry in that table. It stays for 3 s while nobody
//! answers for the address, and the kernel has room for 1,024 of a family (`gc_thresh3`), for all network namespaces together. One
//! pod that goes through the addresses of a prefix, which needs no privilege, thus keeps the host and all other pods from
//! resolving anybody new. So a pod may try only so many addresses of such prefixes per second. Not limited is what it sends to an
//! address that has sent it something within [`ANSWERED`] seconds, and to one that it has begun to try within [`TRIED`] seconds.
//!
//! The look is at packets on their way from or to a pod's link, behind the policies: what these drop tries nothing. The kernel
//! tracks no connection for it. What pods send to the host itself makes no entry, and what the host sends is never looked at. Must
//! not know which prefixes there are, nor how the table gets into the kernel.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use ipnet::IpNet;

use crate::addr::{Family, POD_LINKS};
use crate::guard::FILTER;
use crate::ruleset::ranges::ranges;
use crate::ruleset::{
    Base, Chain, ChainKind, End, Field, Form, Hook, Op, Rule, Ruleset, Set, Span, Statement, Table, Verdict,
};

/// Addresses per second that a pod may try, of both families together.
///
/// An address that is tried holds an entry as long as it may be tried, and 3 s longer, so a pod that sends as fast as it can holds
/// [`BURST`] + [`RATE`] x ([`TRIED`] + 3) = 97 entries. Six such pods hold 582, and leave 442 to the host and all others.
const RATE: u32 = 5;

/// Addresses that a pod may try at once, when it has not tried any for a while.
const BURST: u32 = 32;

/// How long a pod may go on sending to an address that does not answer, in seconds. Then it has to try again. So a pod may have
/// 5 x [`TRIED`] = 50 destinations that never send anything back, and more lose packets.
pub const TRIED: u32 = 10;

/// How long an address need not be tried again behind the last packet that came from it, in seconds.
pub const ANSWERED: u32 = 600;

/// Addresses that all pods together may try at a time, in each family. When there are so many, no pod may try another one: so a
/// hundred pods leave the host a sixth of its table as well.
const TRIED_MOST: u32 = 640;

/// (pod, address) pairs that are known to answer, in each family; some 2 MB. Where there are more, the ones in excess have to be
/// tried.
const ANSWERED_MOST: u32 = 16384;

/// How long a pod's limit is remembered behind its last packet, in seconds: longer than it needs to be as if new.
const RESTED: u32 = 60;

/// Most pods whose limits are remembered. Those in excess are not limited, other than by [`TRIED_MOST`].
const PODS_MOST: u32 = 4096;

/// What the numbers promise.
const _: () = {
    const TABLE: u32 = 1024;
    const UNANSWERED: u32 = 3;
    assert!(6 * (BURST + RATE * (TRIED + UNANSWERED)) < TABLE * 2 / 3, "six pods leave the host a third of its table");
    assert!(6 * (BURST + RATE * TRIED) < TRIED_MOST, "and a seventh one may try as well");
    // Those that are just tried, and those that were until 3 s ago.
    assert!(TRIED_MOST + TRIED_MOST * UNANSWERED / TRIED < TABLE * 5 / 6, "any number of pods leave it a sixth");
    assert!(RESTED > BURST / RATE, "who is forgotten is not better off for it");
};

/// The chain's order in the forward hook: behind every chain of the policies.
const PRIORITY: i32 = 10;

/// The set of limits.
const RATES: &str = "sweeps";

/// The chain that packets enter.
const SWEEP: &str = "sweep";

/// The chain of packets to a pod, from the network.
const ANSWERS: &str = "sweep/answers";

/// The chain of packets of a pod, to the network.
const TRIAL: &str = "sweep/trial";

/// Whether a set or chain of this name is made here.
pub fn is_name(name: &str) -> bool {
    let of_family = |names: &Names| [names.on_link, names.answered, names.tried].contains(&name);
    [RATES, ANSWERS, TRIAL, SWEEP].contains(&name) || NAMES.iter().any(of_family)
}

/// Names and numbers of one family.
struct Names {
    family: Family,
    on_link: &'static str,
    answered: &'static str,
    tried: &'static str,
}

const NAMES: [Names; 2] = [
    Names { family: Family::V4, on_link: "onlink4", answered: "answered4", tried: "tried4" },
    Names { family: Family::V6, on_link: "onlink6", answered: "answered6", tried: "tried6" },
];

/// Adds to `ruleset` what keeps pods from going through the addresses of these prefixes, which the host has on its links. Nothing
/// for none. A link is a pod's by the begin of its name.
pub fn limit_sweeps(ruleset: &mut Ruleset, on_link: &[IpNet]) {
    let with_range = |names: &Names| {
        let elements = ranges(names.family, on_link.iter().copied());
        (!elements.is_empty()).then_some(elements)
    };
    let (mut answers, mut known, mut tries): (Vec<Rule>, Vec<Rule>, Vec<Rule>) = (Vec::new(), Vec::new(), Vec::new());
    let mut table = Table::default();
    for names in &NAMES {
        let Some(elements) = with_range(names) else { continue };
        let Names { family, on_link, answered, tried, .. } = *names;
        table.sets.insert(on_link.to_string(), Set { form: Form::Ranges(family), elements });
        add(&mut table, answered, Form::Recent { family, seconds: ANSWERED, size: ANSWERED_MOST });
        add(&mut table, tried, Form::Recent { family, seconds: TRIED, size: TRIED_MOST });
        let is = || Statement::of_family(family);
        let within = |fields, op, set: &str| Statement::In(fields, op, set.to_string());
        let source = Field::Source(family);
        let way = || vec![Field::Link(End::In), Field::Destination(family)];
        answers.push(vec![
            is(),
            within(vec![source], Op::Eq, on_link),
            Statement::Remember(vec![Field::Link(End::Out), source], Span::FromLast, answered.to_string()),
            accept(),
        ]);
        known.push(vec![is(), within(vec![Field::Destination(family)], Op::Ne, on_link), accept()]);
        known.push(vec![is(), within(way(), Op::Eq, answered), accept()]);
        known.push(vec![is(), within(way(), Op::Eq, tried), accept()]);
        // It must not count from the last packet, or a pod could hold as many entries as it likes.
        tries.push(vec![is(), Statement::Remember(way(), Span::FromFirst, tried.to_string()), accept()]);
    }
    if table.sets.is_empty() {
        return;
    }
    // Of a family that has no such prefix, nothing is limited.
    for names in NAMES.iter().filter(|names| !table.sets.contains_key(names.on_link)) {
        known.push(vec![Statement::of_family(names.family), accept()]);
    }
    add(&mut table, RATES, Form::Rates { seconds: RESTED, size: PODS_MOST });
    let from = |op| Statement::NameBegins(End::In, op, POD_LINKS);
    let to = |op| Statement::NameBegins(End::Out, op, POD_LINKS);
    let jump = |chain: &str| Statement::Verdict(Verdict::Jump(chain.to_string()));
    let limit = Statement::FasterThan { set: RATES.to_string(), rate: RATE, burst: BURST };
    let refuse = || vec![Statement::Count, Statement::Verdict(Verdict::Drop)];
    let mut trial = known;
    trial.push([vec![limit], refuse()].concat());
    trial.extend(tries);
    // Where there is no room to remember the trial.
    trial.push(refuse());
    let base = Some(Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: PRIORITY });
    // One pod cannot tell another one that an address of the network answers.
    let sweep = vec![vec![from(Op::Ne), to(Op::Eq), jump(ANSWERS)], vec![from(Op::Eq), to(Op::Ne), jump(TRIAL)]];
    table.chains.insert(ANSWERS.to_string(), Chain { base: None, rules: answers });
    table.chains.insert(TRIAL.to_string(), Chain { base: None, rules: trial });
    table.chains.insert(SWEEP.to_string(), Chain { base, rules: sweep });
    let filter = ruleset.entry(FILTER).or_default();
    filter.sets.extend(table.sets);
    filter.chains.extend(table.chains);
}

fn add(table: &mut Table, name: &str, form: Form) {
    table.sets.insert(name.to_string(), Set { form, elements: Default::default() });
}

fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::text::Text;
    use std::string::String;

    fn text(on_link: &[&str]) -> String {
        let on_link: Vec<IpNet> = on_link.iter().map(|net| net.parse().expect("a prefix")).collect();
        let mut ruleset = Ruleset::new();
        limit_sweeps(&mut ruleset, &on_link);
        ruleset.iter().map(|(key, table)| Text(*key, table).to_string()).collect()
    }

    #[test]
    fn a_host_that_has_no_prefix_on_a_link_needs_nothing() {
        assert_eq!(text(&[]), "");
    }

    #[test]
    fn a_family_without_a_prefix_on_a_link_is_let_by() {
        let v4 = text(&["192.0.2.0/24"]);
        assert!(v4.contains("\t\tmeta nfproto ipv6 accept\n"), "{v4}");
        assert!(!v4.contains("answered6"), "{v4}");
    }

    #[test]
    fn what_answers_is_remembered_from_its_last_packet_and_what_is_tried_from_its_first() {
        let both = text(&["192.0.2.0/24", "2001:db8:5::/64", "192.0.3.0/24"]);
        let expected = "
	chain sweep {
		type filter hook forward priority filter + 10; policy accept;
		iifname != \"flock*\" oifname \"flock*\" jump sweep/answers
		iifname \"flock*\" oifname != \"flock*\" jump sweep/trial
	}

	chain sweep/answers {
		ip saddr @onlink4 update @answered4 { oifname . ip saddr } accept
		ip6 saddr @onlink6 update @answered6 { oifname . ip6 saddr } accept
	}

	chain sweep/trial {
		ip daddr != @onlink4 accept
		iifname . ip daddr @answered4 accept
		iifname . ip daddr @tried4 accept
		ip6 daddr != @onlink6 accept
		iifname . ip6 daddr @answered6 accept
		iifname . ip6 daddr @tried6 accept
		update @sweeps { iifname limit rate over 5/second burst 32 packets } counter drop
		add @tried4 { iifname . ip daddr } accept
		add @tried6 { iifname . ip6 daddr } accept
		counter drop
	}
}
";
        assert!(both.ends_with(expected), "{both}");
    }
}
