//! Prefixes as the ranges that a set takes: in order, apart, as few as possible.
//!
//! The kernel refuses ranges that overlap, and shows such as touch as one. Must not know what the ranges are for.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::addr::Family;
use crate::ruleset::Element;

/// The addresses of these prefixes, as far as they are of this family, as [`Element::Range`]s of which no two touch or overlap.
pub fn ranges(family: Family, nets: impl IntoIterator<Item = IpNet>) -> BTreeSet<Element> {
    let ends = nets.into_iter().filter_map(|net| match (family, net) {
        (Family::V4, IpNet::V4(net)) => Some((net.network().to_bits().into(), net.broadcast().to_bits().into())),
        (Family::V6, IpNet::V6(net)) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        _ => None,
    });
    let mut ends: Vec<(u128, u128)> = ends.collect();
    ends.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ends {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    let address = |bits: u128| match family {
        // What was taken from 32 bits fits into them.
        Family::V4 => IpAddr::from(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX))),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    };
    merged.into_iter().map(|(first, last)| Element::Range(address(first), address(last))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString as _};

    fn text(family: Family, nets: &[&str]) -> Vec<String> {
        let found = ranges(family, nets.iter().map(|net| net.parse().expect("a prefix")));
        let ends = found.iter().map(|range| match range {
            Element::Range(first, last) => first.to_string() + "-" + &last.to_string(),
            other => panic!("{other:?}"),
        });
        ends.collect()
    }

    #[test]
    fn prefixes_that_touch_or_overlap_are_one_range_and_others_are_apart() {
        let nets = ["10.0.2.0/24", "10.0.1.0/24", "10.0.1.128/25", "10.0.4.0/24", "10.0.3.255/32", "2001:db8::/64"];
        assert_eq!(text(Family::V4, &nets), ["10.0.1.0-10.0.2.255", "10.0.3.255-10.0.4.255"]);
        assert_eq!(text(Family::V6, &nets), ["2001:db8::-2001:db8::ffff:ffff:ffff:ffff"]);
        assert_eq!(
            text(Family::V4, &["10.0.1.5/24", "10.0.1.5/24"]),
            ["10.0.1.0-10.0.1.255"],
            "whatever the host bits"
        );
        assert_eq!(text(Family::V4, &[]), [""; 0]);
    }

    #[test]
    fn the_last_address_is_no_edge() {
        assert_eq!(text(Family::V4, &["0.0.0.0/0", "255.255.255.255/32"]), ["0.0.0.0-255.255.255.255"]);
        let nets = ["ffff::/16", "::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"];
        assert_eq!(text(Family::V6, &nets), ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
    }
}
