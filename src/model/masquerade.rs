//! The node's address in place of the pod's, for destinations that have no way back to a pod: only where the node's owner asks.
//!
//! A table of each family by itself, so a node that masquerades IPv4 has the kernel track no IPv6 connection for it. Only the first
//! packet of a connection comes here. An address of a pod outside the node's ranges (anycast, `addresses`) is one that is announced
//! and has a way back, so it stays. What is for the host itself never comes here. Must not know policies, nor how the tables get
//! into the kernel.

use alloc::string::ToString as _;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{Family, POD_LINKS};
use crate::policing::Masquerade;
use crate::ruleset::ranges::ranges;
use crate::ruleset::{
    Base, Chain, ChainKind, End, Field, Form, Hook, Op, Ruleset, Set, Statement, Table, TableFamily, TableKey,
};

/// The table for IPv4.
pub const MASQUERADE4: TableKey = TableKey { family: TableFamily::Ip, name: "flock_masquerade" };

/// The table for IPv6.
pub const MASQUERADE6: TableKey = TableKey { family: TableFamily::Ip6, name: "flock_masquerade" };

/// The node's own ranges, of that table.
const OWN: &str = "own";

/// Destinations that see the pod's address, of that table.
const EXCEPT: &str = "except";

/// `priority srcnat`.
const SRCNAT: i32 = 100;

/// 169.254.0.0/16 (RFC 3927), which routers should not forward and Linux does, and all of multicast (RFC 5771).
const NOWHERE4: [Ipv4Net; 2] = [net4([169, 254, 0, 0], 16), net4([224, 0, 0, 0], 4)];

/// fe80::/10 and ff00::/8 (RFC 4291).
const NOWHERE6: [Ipv6Net; 2] = [net6(0xfe80, 10), net6(0xff00, 8)];

const fn net4(ip: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(core::net::Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]), length)
}

const fn net6(first: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(core::net::Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), length)
}

/// Adds to `ruleset` the tables by which what pods of the `own` ranges send to the outside bears the node's address: to everywhere
/// but `own`, the ranges of `others` (the pods of other nodes), `wanted.except`, link-local and multicast addresses, and whatever
/// is behind a pod's link. Nothing for a family that is not asked for, or of which the node has no range.
pub fn masquerade(ruleset: &mut Ruleset, wanted: &Masquerade, own: &[IpNet], others: &[IpNet]) {
    for (family, key, asked) in [(Family::V4, MASQUERADE4, wanted.ipv4), (Family::V6, MASQUERADE6, wanted.ipv6)] {
        let sources = ranges(family, own.iter().copied());
        if !asked || sources.is_empty() {
            continue;
        }
        let nowhere = NOWHERE4.into_iter().map(IpNet::from).chain(NOWHERE6.into_iter().map(IpNet::from));
        let except = own.iter().chain(others).chain(&wanted.except).copied().chain(nowhere);
        let mut table = Table::default();
        let form = Form::Ranges(family);
        table.sets.insert(OWN.to_string(), Set { form, elements: sources });
        table.sets.insert(EXCEPT.to_string(), Set { form, elements: ranges(family, except) });
        let rule = vec![
            Statement::NameBegins(End::In, Op::Eq, POD_LINKS),
            Statement::NameBegins(End::Out, Op::Ne, POD_LINKS),
            Statement::In(vec![Field::Source(family)], Op::Eq, OWN.to_string()),
            Statement::In(vec![Field::Destination(family)], Op::Ne, EXCEPT.to_string()),
            Statement::Masquerade,
        ];
        let base = Some(Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: SRCNAT });
        table.chains.insert("postrouting".to_string(), Chain { base, rules: vec![rule] });
        ruleset.insert(key, table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::text::Text;
    use alloc::vec::Vec;
    use std::string::String;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    fn wanted(ipv4: bool, ipv6: bool) -> Ruleset {
        let except = nets(&["192.168.0.0/16", "2001:db8:5::/48"]);
        let mut ruleset = Ruleset::new();
        let (own, others) =
            (nets(&["10.25.1.0/24", "2001:db8:1:1::/64"]), nets(&["10.25.0.0/24", "2001:db8:1:2::/64"]));
        masquerade(&mut ruleset, &Masquerade { ipv4, ipv6, except }, &own, &others);
        ruleset
    }

    fn texts(ruleset: &Ruleset) -> Vec<String> {
        ruleset.iter().map(|(key, table)| Text(*key, table).to_string()).collect()
    }

    #[test]
    fn each_family_is_masqueraded_only_where_it_is_asked_for() {
        let keys = |ipv4, ipv6| wanted(ipv4, ipv6).into_keys().collect::<Vec<_>>();
        assert_eq!(keys(false, false), []);
        assert_eq!(keys(true, false), [MASQUERADE4]);
        assert_eq!(keys(false, true), [MASQUERADE6]);
        assert_eq!(keys(true, true), [MASQUERADE4, MASQUERADE6]);
    }

    #[test]
    fn a_node_without_a_range_of_the_family_masquerades_nothing() {
        let mut ruleset = Ruleset::new();
        let asked = Masquerade { ipv4: true, ipv6: true, except: Vec::new() };
        masquerade(&mut ruleset, &asked, &nets(&["2001:db8:1:1::/64"]), &nets(&["10.25.2.0/24"]));
        assert_eq!(ruleset.into_keys().collect::<Vec<_>>(), [MASQUERADE6]);
    }

    #[test]
    fn whoever_has_a_way_back_to_the_pod_sees_its_address() {
        let expected = "\
table ip flock_masquerade {
	set except {
		type ipv4_addr
		flags interval
		elements = { 10.25.0.0/23,
			     169.254.0.0/16,
			     192.168.0.0/16,
			     224.0.0.0/4 }
	}

	set own {
		type ipv4_addr
		flags interval
		elements = { 10.25.1.0/24 }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		iifname \"flock*\" oifname != \"flock*\" ip saddr @own ip daddr != @except masquerade
	}
}
";
        assert_eq!(texts(&wanted(true, false)), [expected]);
        let v6 = texts(&wanted(false, true)).concat();
        for net in ["2001:db8:1:1::-2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:5::/48", "fe80::/10", "ff00::/8"] {
            assert!(v6.contains(net), "{net} in {v6}");
        }
    }
}
