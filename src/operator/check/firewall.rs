//! The packet filters of others: whether packets of pods pass their chains at the forward hook.
//!
//! Pods get their links from flock, and their packets through nobody's filter but flock's: a drop elsewhere is final. This asks
//! each chain about packets that pods send and get, and names what drops them. Must not change a filter, and knows no encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use crate::kernel::nftables::foreign::ForeignTable;
use crate::kernel::nftables::socket::Nftables;
use crate::operator::check::finding::{Area, Finding};
use model::addr::POD_LINKS;
use model::forwarding::{Fate, Link, Packet, Place};
use model::guard::{ARP, FILTER};
use model::masquerade::{MASQUERADE4, MASQUERADE6};
use model::ruleset::{TableFamily, TableKey};

/// Every table that is flock's.
pub const OWN: [TableKey; 4] = [FILTER, ARP, MASQUERADE4, MASQUERADE6];

/// Where packets of one family come from and go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// Two pods of this node.
    pub pods: [(Link, IpAddr); 2],
    /// Somebody beyond each link that packets leave by.
    pub beyond: Vec<(Link, IpAddr)>,
}

/// What a packet stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From pod to pod of this node.
    Among,
    /// From a pod to somebody beyond.
    Out,
    /// The answer.
    Back,
    /// From somebody beyond, who begins.
    In,
}

/// The packets that a filter is asked about.
pub fn packets(ends: &[Ends]) -> Vec<(Way, Packet)> {
    let mut packets = Vec::new();
    for Ends { pods: [one, other], beyond } in ends {
        let packet = |from: &(Link, IpAddr), to: &(Link, IpAddr), answers| Packet {
            from: from.0.clone(),
            to: to.0.clone(),
            source: from.1,
            destination: to.1,
            answers,
        };
        packets.push((Way::Among, packet(one, other, false)));
        packets.push((Way::Among, packet(other, one, true)));
        for beyond in beyond {
            packets.push((Way::Out, packet(one, beyond, false)));
            packets.push((Way::Back, packet(beyond, one, true)));
            packets.push((Way::In, packet(beyond, one, false)));
            packets.push((Way::In, packet(one, beyond, true)));
        }
    }
    packets
}

/// What the tables of others do with these packets, of pods in `ranges`.
pub fn look(packets: &[(Way, Packet)], ranges: &[IpNet], deadline: Instant) -> Vec<Finding> {
    let tables = Nftables::open().and_then(|mut nft| nft.foreign_tables(&OWN, deadline));
    let tables = match tables {
        Ok(tables) => tables,
        Err(error) if error.is_absent() => return Vec::new(),
        Err(error) => {
            let what = format!("the packet filters of others could not be looked at: {error}");
            return vec![Finding::warn(Area::Firewall, what)];
        }
    };
    let mut found = Vec::new();
    for table in &tables {
        for entrance in &table.entrances {
            let of_family = packets.iter().filter(|(_, packet)| table.sees(packet));
            let fates = of_family.map(|(way, packet)| (*way, table.fate(entrance, packet)));
            let place = |place: &Place| match place.chain == entrance.chain {
                true => format!("nftables {}, chain {}", key(table), entrance.chain),
                false => format!("nftables {}, chain {} (from {})", key(table), place.chain, entrance.chain),
            };
            let names: BTreeSet<&str> = table.chains().chain([entrance.chain.as_str()]).collect();
            let cure = || cure(table, &entrance.chain, &names, ranges);
            found.extend(judged(fates, place, cure));
        }
    }
    found
}

fn family(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Inet => "inet",
        TableFamily::Ip => "ip",
        TableFamily::Ip6 => "ip6",
        TableFamily::Arp => "arp",
    }
}

fn key(table: &ForeignTable) -> String {
    format!("table {} {}", family(table.family), table.name)
}

/// What the fates of packets in one filter come to; none if all pass.
pub fn judged(
    fates: impl Iterator<Item = (Way, Fate)>,
    place: impl Fn(&Place) -> String,
    cure: impl FnOnce() -> String,
) -> Option<Finding> {
    // Of each way the first place that closes it.
    let (mut surely, mut perhaps): (BTreeMap<Way, Place>, BTreeMap<Way, Place>) = Default::default();
    for (way, fate) in fates {
        match fate {
            Fate::Passes => {}
            Fate::Dropped(place) => drop(surely.entry(way).or_insert(place)),
            Fate::DroppedUnless(place) => drop(perhaps.entry(way).or_insert(place)),
        }
    }
    let (verb, closed) = match surely.is_empty() {
        true => ("may drop, unless a rule does not that flock cannot read,", perhaps),
        false => ("drops", surely),
    };
    // Who begins from outside may be kept out on purpose.
    let worst = closed.iter().find(|(way, _)| **way != Way::In);
    let fails = verb == "drops" && worst.is_some();
    let (_, dropped) = worst.or_else(|| closed.first_key_value())?;
    let by = if dropped.by_rule { "a rule" } else { "its policy" };
    let what = format!("{} {verb} by {by}: {}", place(dropped), meaning(&closed.keys().copied().collect()));
    let finding = if fails { Finding::fail(Area::Firewall, what) } else { Finding::warn(Area::Firewall, what) };
    Some(finding.cured_by(cure()))
}

/// What it means if these ways are closed.
fn meaning(ways: &BTreeSet<Way>) -> &'static str {
    let has = |way| ways.contains(&way);
    match (has(Way::Among), has(Way::Out), has(Way::Back)) {
        (true, true, _) => "pods cannot talk",
        (true, false, true) => "pods cannot talk to each other, and get no answers from beyond this node",
        (true, false, false) => "pods of this node cannot talk to each other",
        (false, true, _) => "pods cannot talk to anybody beyond this node",
        (false, false, true) => "pods get no answers from beyond this node",
        (false, false, false) => "nobody beyond this node can begin to talk to pods, those of other nodes included",
    }
}

/// What lets pods' packets pass, in the words of whose table it is.
fn cure(table: &ForeignTable, chain: &str, names: &BTreeSet<&str>, ranges: &[IpNet]) -> String {
    let of_table = |range: &&IpNet| match table.family {
        TableFamily::Ip => range.addr().is_ipv4(),
        TableFamily::Ip6 => range.addr().is_ipv6(),
        TableFamily::Inet | TableFamily::Arp => true,
    };
    let ranges: Vec<IpNet> = ranges.iter().filter(of_table).copied().collect();
    if table.name == "firewalld" {
        return firewalld(&ranges);
    }
    if table.family != TableFamily::Inet && table.name == "filter" && chain == "FORWARD" {
        // What is called iptables here may be the older kind, which has other tables.
        return iptables(
            if table.family == TableFamily::Ip6 { "ip6tables-nft" } else { "iptables-nft" },
            names,
            &ranges,
        );
    }
    let insert = |end: &str| {
        format!("nft insert rule {} {} {chain} {end} \"{POD_LINKS}*\" accept", family(table.family), table.name)
    };
    format!("{}\n{}\nand the same in the file that makes this table", insert("iifname"), insert("oifname"))
}

/// As docs/host.md has it: what passes from zone to zone needs a policy, and the ranges stand for what comes in by the uplink.
fn firewalld(ranges: &[IpNet]) -> String {
    let command = "firewall-cmd --permanent";
    let sources: String = ranges.iter().map(|range| format!(" --add-source {range}")).collect();
    let sources = if sources.is_empty() { sources } else { format!("{command} --zone trusted{sources}\n") };
    format!(
        "{command} --new-policy flock\n\
         {command} --policy flock --add-ingress-zone ANY --add-egress-zone trusted --set-target ACCEPT\n\
         {sources}{command} --zone trusted --add-interface {POD_LINKS}+\n\
         firewall-cmd --reload"
    )
}

/// What lets pods' packets pass where iptables has made these chains.
pub fn iptables(program: &str, names: &BTreeSet<&str>, ranges: &[IpNet]) -> String {
    if !names.contains("DOCKER-USER") && names.iter().any(|name| name.starts_with("ufw")) {
        let rules = ranges.iter().flat_map(|range| ["from", "to"].map(|way| format!("ufw route allow {way} {range}")));
        return rules.collect::<Vec<_>>().join("\n");
    }
    let chain = if names.contains("DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
    let rule = |end: &str| format!("{program} -I {chain} {end} {POD_LINKS}+ -j ACCEPT");
    format!("{}\n{}\nand the same at each boot", rule("-i"), rule("-o"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::finding::Level;

    #[test]
    fn firewalld_is_opened_as_the_page_says() {
        let page = include_str!("../../../docs/host.md");
        let ranges = ["10.25.214.0/24", "2001:db8:1:f001::/64"].map(|range| range.parse().expect("literal"));
        assert!(page.contains(&format!("```sh\n{}\n```", firewalld(&ranges))), "{}", firewalld(&ranges));
    }

    #[test]
    fn the_chain_that_is_named_is_the_one_that_closes_the_way_that_is_told() {
        let at = |chain: &str| Place { chain: chain.into(), by_rule: true };
        let told = |fates: &[(Way, Fate)]| {
            let finding = judged(fates.iter().cloned(), |place| place.chain.clone(), String::new).expect("a finding");
            (finding.level, finding.what)
        };
        let (level, what) = told(&[
            (Way::Among, Fate::DroppedUnless(at("PERHAPS"))),
            (Way::In, Fate::Dropped(at("INTO"))),
            (Way::Out, Fate::Dropped(at("SURELY"))),
        ]);
        assert!(level == Level::Fail && what.starts_with("SURELY drops"), "{what}");
        let (level, what) =
            told(&[(Way::In, Fate::Dropped(at("INTO"))), (Way::Out, Fate::DroppedUnless(at("PERHAPS")))]);
        assert!(level == Level::Warn && what.starts_with("INTO drops"), "{what}");
        let (level, what) = told(&[(Way::Out, Fate::Passes), (Way::Back, Fate::DroppedUnless(at("PERHAPS")))]);
        assert!(level == Level::Warn && what.starts_with("PERHAPS may drop"), "{what}");
    }
}
