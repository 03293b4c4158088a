//! Tables as text: what `nft -s list` of nftables 1.0.6 prints for them, for people and for tests.
//!
//! The kernel never sees it: the agent runs no `nft`. Must not be parsed by anything of flock. What differs from `nft` is that it
//! prints in the order in which things were made, and several elements on a line. One thing that is printed, `nft` cannot read, but
//! only list: a set of (address, protocol, port) that is looked at without a statement about the protocol in the same rule.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::net::IpAddr;

use crate::addr::Family;
use crate::ruleset::{
    Base, ChainKind, Element, End, Field, Form, Hook, Op, Rule, Set, Span, Statement, Table, TableFamily, TableKey,
    Value, Verdict,
};

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const NFPROTO: [(u8, Family); 2] = [(2, Family::V4), (10, Family::V6)];
/// What `nft` calls protocols; the others are numbers here, and what /etc/protocols says there.
const PROTOCOLS: [(u8, &str); 10] = [
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (132, "sctp"),
    (136, "udplite"),
];
const ICMP_TYPES: [(u8, &str); 15] = [
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
    (15, "info-request"),
    (16, "info-reply"),
    (17, "address-mask-request"),
    (18, "address-mask-reply"),
];
const ICMP6_TYPES: [(u8, &str); 18] = [
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (138, "router-renumbering"),
    (141, "ind-neighbor-solicit"),
    (142, "ind-neighbor-advert"),
    (143, "mld2-listener-report"),
];
/// `CT_STATE_*` by their bits, lowest first.
const STATES: [&str; 4] = ["invalid", "established", "related", "new"];
/// Named priorities, and for which hooks.
const PRIORITIES: [(i32, &str, Option<Hook>); 6] = [
    (-300, "raw", None),
    (-150, "mangle", None),
    (-100, "dstnat", Some(Hook::Prerouting)),
    (0, "filter", None),
    (50, "security", None),
    (100, "srcnat", Some(Hook::Postrouting)),
];
/// A limit of this burst says nothing of it.
const USUAL_BURST: u32 = 5;

/// The text of one table. Formatting fails only where the target does.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub TableKey, pub &'a Table);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Text(key, table) = self;
        let family = match key.family {
            TableFamily::Inet => "inet",
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Arp => "arp",
        };
        writeln!(f, "table {family} {} {{", key.name)?;
        let mut between = "";
        for (name, set) in &table.sets {
            write!(f, "{between}\tset {name} {{\n\t\ttype {}\n", type_of(set.form))?;
            write_form(f, set)?;
            write_elements(f, set.elements.iter().map(|element| element_text(element, set.form)))?;
            writeln!(f, "\t}}")?;
            between = "\n";
        }
        for (name, map) in &table.maps {
            write!(f, "{between}\tmap {name} {{\n\t\ttype ifname : verdict\n")?;
            let links = map.iter().map(|(link, verdict)| alloc::format!("\"{link}\" : {}", verdict_text(verdict)));
            write_elements(f, links)?;
            writeln!(f, "\t}}")?;
            between = "\n";
        }
        for (name, chain) in &table.chains {
            writeln!(f, "{between}\tchain {name} {{")?;
            if let Some(base) = &chain.base {
                writeln!(f, "\t\t{}", base_text(*base))?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{}", rule_text(rule))?;
            }
            writeln!(f, "\t}}")?;
            between = "\n";
        }
        writeln!(f, "}}")
    }
}

fn type_of(form: Form) -> &'static str {
    match form {
        Form::Links { .. } | Form::Rates { .. } => "ifname",
        Form::LinkPairs => "ifname . ifname",
        Form::Addresses(Family::V4) | Form::Ranges(Family::V4) => "ipv4_addr",
        Form::Addresses(Family::V6) | Form::Ranges(Family::V6) => "ipv6_addr",
        Form::LinkAddresses(Family::V4) | Form::Recent { family: Family::V4, .. } => "ifname . ipv4_addr",
        Form::LinkAddresses(Family::V6) | Form::Recent { family: Family::V6, .. } => "ifname . ipv6_addr",
        Form::Ports(Family::V4) => "ipv4_addr . inet_proto . inet_service",
        Form::Ports(Family::V6) => "ipv6_addr . inet_proto . inet_service",
    }
}

fn write_form(f: &mut fmt::Formatter<'_>, set: &Set) -> fmt::Result {
    match set.form {
        Form::Links { counted: true } => writeln!(f, "\t\tcounter"),
        Form::Ranges(_) => writeln!(f, "\t\tflags interval"),
        Form::Recent { seconds, size, .. } | Form::Rates { seconds, size } => {
            write!(f, "\t\tsize {size}\n\t\tflags dynamic,timeout\n\t\ttimeout {}\n", duration(seconds))
        }
        Form::Links { counted: false }
        | Form::LinkPairs
        | Form::Addresses(_)
        | Form::LinkAddresses(_)
        | Form::Ports(_) => Ok(()),
    }
}

fn duration(seconds: u32) -> String {
    let mut text = String::new();
    let parts = [(seconds / 86400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    for (count, unit) in parts.into_iter().filter(|(count, _)| *count > 0) {
        // Nothing fails to be written into a text.
        let _ = write!(text, "{count}{unit}");
    }
    text
}

fn write_elements(f: &mut fmt::Formatter<'_>, elements: impl Iterator<Item = String>) -> fmt::Result {
    let mut before = "\t\telements = { ";
    for element in elements {
        write!(f, "{before}{element}")?;
        before = ",\n\t\t\t     ";
    }
    if before.starts_with(',') { f.write_str(" }\n") } else { Ok(()) }
}

fn element_text(element: &Element, form: Form) -> String {
    match element {
        Element::Link(link) if form == (Form::Links { counted: true }) => alloc::format!("\"{link}\" counter"),
        Element::Link(link) => alloc::format!("\"{link}\""),
        Element::Links(first, second) => alloc::format!("\"{first}\" . \"{second}\""),
        Element::Address(ip) => ip.to_string(),
        Element::LinkAddress(link, ip) => alloc::format!("\"{link}\" . {ip}"),
        Element::Port(ip, protocol, port) => alloc::format!("{ip} . {} . {port}", protocol_text(*protocol)),
        Element::Range(first, last) => range_text(*first, *last),
    }
}

/// One address, a prefix, or from one to another.
fn range_text(first: IpAddr, last: IpAddr) -> String {
    let (bits, differ, low) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32, u128::from(a.to_bits() ^ b.to_bits()), u128::from(a.to_bits())),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits() ^ b.to_bits(), a.to_bits()),
        _ => return alloc::format!("{first}-{last}"),
    };
    // The bits in which the ends differ are the last ones, and 0 at the beginning.
    let is_prefix = differ & differ.wrapping_add(1) == 0 && low & differ == 0;
    match differ.count_ones() {
        0 => first.to_string(),
        host if is_prefix => alloc::format!("{first}/{}", bits - host),
        _ => alloc::format!("{first}-{last}"),
    }
}

fn base_text(base: Base) -> String {
    let kind = match base.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    let hook = match base.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Postrouting => "postrouting",
    };
    let priority = base.priority;
    let named = PRIORITIES.iter().find(|(at, _, only)| {
        only.is_none_or(|only| only == base.hook)
            && (-10..=10).contains(&i64::from(priority).saturating_sub(i64::from(*at)))
    });
    let place = match named {
        Some((at, name, _)) if priority == *at => (*name).to_string(),
        Some((at, name, _)) if priority > *at => alloc::format!("{name} + {}", priority.saturating_sub(*at)),
        Some((at, name, _)) => alloc::format!("{name} - {}", at.saturating_sub(priority)),
        None => priority.to_string(),
    };
    alloc::format!("type {kind} hook {hook} priority {place}; policy accept;")
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_string(),
        Verdict::Drop => "drop".to_string(),
        Verdict::Return => "return".to_string(),
        Verdict::Jump(chain) => alloc::format!("jump {chain}"),
        Verdict::Goto(chain) => alloc::format!("goto {chain}"),
    }
}

/// What a statement says that another one may have said before it.
#[derive(Clone, Copy, PartialEq)]
enum Implied {
    Family(Family),
    Protocol,
}

/// A rule as `nft` prints it, which leaves out what another statement of the rule says as well: that the packet is of a family
/// before an address of that family, and of a protocol before something of that protocol. It does so only where nothing in between
/// has an effect.
fn rule_text(rule: &Rule) -> String {
    let mut parts: Vec<String> = Vec::new();
    // The last statements of each kind that may turn out to be left out.
    let (mut family, mut protocol): (Option<(usize, Implied)>, Option<usize>) = (None, None);
    let mut transport = None;
    for statement in rule {
        for implied in implied_by(statement) {
            let left_out = match implied {
                Implied::Protocol => protocol.take(),
                of => family.take_if(|(_, said)| *said == of).map(|(at, _)| at),
            };
            if let Some(part) = left_out.and_then(|at| parts.get_mut(at)) {
                part.clear();
            }
        }
        match statement {
            Statement::Is(Field::Family, Op::Eq, Value::Byte(number)) => {
                let of = NFPROTO.iter().find(|(of, _)| of == number);
                family = of.map(|(_, of)| (parts.len(), Implied::Family(*of)));
            }
            Statement::Is(Field::Protocol, Op::Eq, Value::Byte(number)) => {
                (protocol, transport) = (Some(parts.len()), Some(*number));
            }
            other if has_effect(other) => (family, protocol) = (None, None),
            _ => {}
        }
        parts.push(statement_text(statement, transport));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn implied_by(statement: &Statement) -> Vec<Implied> {
    let of_field = |field: &Field| match field {
        Field::Source(family) | Field::Destination(family) => Some(Implied::Family(*family)),
        Field::SourcePort | Field::DestinationPort | Field::IcmpType | Field::Icmp6Type => Some(Implied::Protocol),
        _ => None,
    };
    match statement {
        Statement::Is(Field::Protocol, Op::Eq, Value::Byte(1)) => vec![Implied::Family(Family::V4)],
        Statement::Is(Field::Protocol, Op::Eq, Value::Byte(58)) => vec![Implied::Family(Family::V6)],
        Statement::Is(field, ..) | Statement::Between(field, ..) => of_field(field).into_iter().collect(),
        Statement::In(fields, ..) | Statement::Remember(fields, ..) => fields.iter().filter_map(of_field).collect(),
        _ => Vec::new(),
    }
}

fn has_effect(statement: &Statement) -> bool {
    match statement {
        Statement::SetMark { .. }
        | Statement::Remember(..)
        | Statement::FasterThan { .. }
        | Statement::AtMost { .. }
        | Statement::Count
        | Statement::Log(_)
        | Statement::Masquerade
        | Statement::Verdict(_) => true,
        Statement::Is(..)
        | Statement::NameBegins(..)
        | Statement::Between(..)
        | Statement::In(..)
        | Statement::ByMap(..)
        | Statement::StateIn(_)
        | Statement::MarkIs { .. } => false,
    }
}

/// A statement, behind one that said this protocol, if any did.
fn statement_text(statement: &Statement, transport: Option<u8>) -> String {
    match statement {
        Statement::Is(field, op, value) => {
            alloc::format!("{}{} {}", field_text(*field, transport), op_text(*op), value_text(*field, value))
        }
        Statement::NameBegins(end, op, text) => alloc::format!("{}{} \"{text}*\"", end_text(*end), op_text(*op)),
        Statement::Between(field, first, last) => alloc::format!("{} {first}-{last}", field_text(*field, transport)),
        Statement::In(fields, op, set) => {
            alloc::format!("{}{} @{set}", fields_text(fields, transport), op_text(*op))
        }
        Statement::ByMap(end, map) => alloc::format!("{} vmap @{map}", end_text(*end)),
        Statement::StateIn(states) => {
            let named = STATES.iter().enumerate().filter(|(bit, _)| states >> bit & 1 == 1);
            alloc::format!("ct state {}", named.map(|(_, name)| *name).collect::<Vec<_>>().join(","))
        }
        Statement::MarkIs { mask, value } => alloc::format!("ct mark & 0x{mask:08x} == 0x{value:08x}"),
        // It shows bits that are set anyway as kept.
        Statement::SetMark { mask, value: 0 } => alloc::format!("ct mark set ct mark & 0x{:08x}", !mask),
        Statement::SetMark { mask, value } => {
            alloc::format!("ct mark set ct mark & 0x{:08x} | 0x{value:08x}", !mask | value)
        }
        Statement::Remember(fields, span, set) => {
            let verb = match span {
                Span::FromFirst => "add",
                Span::FromLast => "update",
            };
            alloc::format!("{verb} @{set} {{ {} }}", fields_text(fields, transport))
        }
        Statement::FasterThan { set, rate, burst } => {
            alloc::format!("update @{set} {{ iifname limit rate over {rate}/second{} }}", burst_text(*burst))
        }
        Statement::AtMost { rate, burst } => alloc::format!("limit rate {rate}/second{}", burst_text(*burst)),
        Statement::Count => "counter".to_string(),
        Statement::Log(prefix) => alloc::format!("log prefix \"{prefix}\""),
        Statement::Masquerade => "masquerade".to_string(),
        Statement::Verdict(verdict) => verdict_text(verdict),
    }
}

fn fields_text(fields: &[Field], transport: Option<u8>) -> String {
    let fields: Vec<String> = fields.iter().map(|field| field_text(*field, transport)).collect();
    fields.join(" . ")
}

fn burst_text(burst: u32) -> String {
    if burst == USUAL_BURST { String::new() } else { alloc::format!(" burst {burst} packets") }
}

fn op_text(op: Op) -> &'static str {
    match op {
        Op::Eq => "",
        Op::Ne => " !=",
    }
}

fn end_text(end: End) -> &'static str {
    match end {
        End::In => "iifname",
        End::Out => "oifname",
    }
}

fn ip_text(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn protocol_text(number: u8) -> String {
    named(&PROTOCOLS, number)
}

fn named(names: &[(u8, &str)], number: u8) -> String {
    names.iter().find(|(of, _)| *of == number).map_or_else(|| number.to_string(), |(_, name)| (*name).to_string())
}

fn field_text(field: Field, transport: Option<u8>) -> String {
    let ports = match transport {
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(132) => "sctp",
        _ => "th",
    };
    match field {
        Field::Link(end) => end_text(end).to_string(),
        Field::Family => "meta nfproto".to_string(),
        Field::Protocol => "meta l4proto".to_string(),
        Field::Source(family) => alloc::format!("{} saddr", ip_text(family)),
        Field::Destination(family) => alloc::format!("{} daddr", ip_text(family)),
        Field::SourcePort => alloc::format!("{ports} sport"),
        Field::DestinationPort => alloc::format!("{ports} dport"),
        Field::IcmpType => "icmp type".to_string(),
        Field::Icmp6Type => "icmpv6 type".to_string(),
        Field::ArpSource => "arp saddr ip".to_string(),
        Field::Direction => "ct direction".to_string(),
        Field::ConnectionSource(family) => alloc::format!("ct original {} saddr", ip_text(family)),
        Field::ConnectionDestination(family) => alloc::format!("ct reply {} saddr", ip_text(family)),
        Field::ConnectionPort => "ct reply proto-src".to_string(),
    }
}

fn value_text(field: Field, value: &Value) -> String {
    match (field, value) {
        (Field::Family, Value::Byte(number)) => match NFPROTO.iter().find(|(of, _)| of == number) {
            Some((_, Family::V4)) => "ipv4".to_string(),
            Some((_, Family::V6)) => "ipv6".to_string(),
            None => number.to_string(),
        },
        (Field::Protocol, Value::Byte(number)) => protocol_text(*number),
        (Field::IcmpType, Value::Byte(number)) => named(&ICMP_TYPES, *number),
        (Field::Icmp6Type, Value::Byte(number)) => named(&ICMP6_TYPES, *number),
        (Field::Direction, Value::Byte(0)) => "original".to_string(),
        (Field::Direction, Value::Byte(1)) => "reply".to_string(),
        (_, Value::Byte(number)) => number.to_string(),
        (_, Value::Short(number)) => number.to_string(),
        (_, Value::V4(ip)) => ip.to_string(),
        (_, Value::V6(ip)) => ip.to_string(),
    }
}
