//! One packet in the words of a rule's expressions: what a register holds, and whether the rule goes on.
//!
//! Owns the meaning of expressions that flock never writes itself. What is not known here is not guessed: a register then holds
//! nothing that anybody knows, and a rule that hangs on it may fit. Must not know what a rule is for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::expr::NAME_LEN;
use super::foreign_set::ForeignSet;
use super::uapi::*;
use super::wire::{be32, find};
use crate::kernel::netlink::message::text;
use model::forwarding::{Deed, Fit, Packet, Rule};
use model::protocol::TCP;
use model::ruleset::{CT_ESTABLISHED, CT_NEW};

/// Bytes of all registers.
const BYTES: usize = 64;

/// `ct status` of an answer: seen both ways, lasting, and confirmed.
const ANSWERED: u32 = 0xe;

/// The hardware type of Ethernet links (`ARPHRD_ETHER`).
const ETHERNET: u16 = 1;

/// The packet and what a rule has loaded of it so far.
pub(super) struct Registers<'a> {
    packet: &'a Packet,
    network: Vec<u8>,
    transport: Vec<u8>,
    mark: Option<u32>,
    bytes: [Option<u8>; BYTES],
    /// How surely all expressions until now let the packet by.
    fit: Fit,
}

/// Whether an expression gives packets a mark.
pub(super) fn marks(expression: &[u8]) -> bool {
    let data = find(expression, NFTA_EXPR_DATA).unwrap_or_default();
    match find(expression, NFTA_EXPR_NAME).map(text).as_deref() {
        Some("meta") => {
            find(data, NFTA_META_SREG).is_some() && find(data, NFTA_META_KEY).and_then(be32) == Some(NFT_META_MARK)
        }
        Some("target") => find(data, NFTA_TARGET_NAME).map(text).as_deref() == Some("MARK"),
        _ => false,
    }
}

/// What an expression leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the next one.
    On,
    /// To the end of the rule, which is as these rules.
    Ends(Vec<Rule>),
}

impl<'a> Registers<'a> {
    /// The packet before a rule of a table that sets marks or does not.
    pub(super) fn of(packet: &'a Packet, marked: bool) -> Registers<'a> {
        let mut transport = packet.ports().map(u16::to_be_bytes).concat();
        // No options; an acknowledgement, and the beginning of a connection or not.
        transport.extend([
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            1,
            0x50,
            if packet.answers { 0x12 } else { 0x02 },
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]);
        Registers {
            packet,
            network: header(packet),
            transport,
            mark: (!marked).then_some(0),
            bytes: [None; BYTES],
            fit: Fit::Yes,
        }
    }

    /// Takes the next expression of the rule.
    pub(super) fn take(&mut self, expression: &[u8], sets: &BTreeMap<String, ForeignSet>) -> Step {
        let name = find(expression, NFTA_EXPR_NAME).map(text).unwrap_or_default();
        let data = find(expression, NFTA_EXPR_DATA).unwrap_or_default();
        let number = |attribute| find(data, attribute).and_then(be32);
        match name.as_str() {
            "counter" | "log" | "last" | "notrack" | "dup" | "flow_offload" => Step::On,
            "meta" => self.meta(number(NFTA_META_DREG), number(NFTA_META_SREG), number(NFTA_META_KEY)),
            "payload" => self.payload(data),
            "ct" => self.connection(number(NFTA_CT_DREG), number(NFTA_CT_KEY)),
            "cmp" => {
                let wanted = value(data, NFTA_CMP_DATA);
                let held = self.load(number(NFTA_CMP_SREG), wanted.len());
                let holds = held.map(|held| match number(NFTA_CMP_OP) {
                    Some(NFT_CMP_EQ) => held == wanted,
                    Some(NFT_CMP_NEQ) => held != wanted,
                    Some(NFT_CMP_LT) => *held < *wanted,
                    Some(NFT_CMP_LTE) => *held <= *wanted,
                    Some(NFT_CMP_GT) => *held > *wanted,
                    _ => *held >= *wanted,
                });
                self.only_if(holds)
            }
            "range" => {
                let (first, last) = (value(data, NFTA_RANGE_FROM_DATA), value(data, NFTA_RANGE_TO_DATA));
                let held = self.load(number(NFTA_RANGE_SREG), first.len());
                let outside = number(NFTA_RANGE_OP) == Some(NFT_CMP_NEQ);
                self.only_if(held.map(|held| (first <= &*held && &*held <= last) != outside))
            }
            "bitwise" => self.bitwise(data),
            "byteorder" => {
                let length = number(NFTA_BYTEORDER_LEN).unwrap_or_default() as usize;
                let size = number(NFTA_BYTEORDER_SIZE).unwrap_or_default() as usize;
                let turned = self.load(number(NFTA_BYTEORDER_SREG), length).map(|mut held| {
                    held.chunks_mut(size.max(1)).for_each(<[u8]>::reverse);
                    held
                });
                self.store(number(NFTA_BYTEORDER_DREG), turned.as_deref(), length)
            }
            "lookup" => self.lookup(data, sets),
            "immediate" => match find(data, NFTA_IMMEDIATE_DATA) {
                Some(given) if number(NFTA_IMMEDIATE_DREG) == Some(NFT_REG_VERDICT) => self.ends(deed(given)),
                given => {
                    let given = given.and_then(|given| find(given, NFTA_DATA_VALUE)).unwrap_or_default().to_vec();
                    self.store(number(NFTA_IMMEDIATE_DREG), Some(&given), given.len())
                }
            },
            "reject" => self.ends(Deed::Drop),
            "queue" | "synproxy" | "tproxy" => self.ends(Deed::Unknown),
            "match" => self.of_iptables(data),
            "target" => match find(data, NFTA_TARGET_NAME).map(text).as_deref() {
                Some("REJECT") => self.ends(Deed::Drop),
                Some("MARK") => {
                    self.mark = None;
                    Step::On
                }
                Some(name) if PASSING.contains(&name) => Step::On,
                _ => self.ends(Deed::Unknown),
            },
            "dynset" if find(data, NFTA_DYNSET_EXPR).is_none() && find(data, NFTA_DYNSET_EXPRESSIONS).is_none() => {
                Step::On
            }
            // It may hold the packet up, and may have put anything into any register.
            _ => {
                self.bytes = [None; BYTES];
                self.only_if(None)
            }
        }
    }

    /// The rule is for packets of which this holds; none where nobody knows.
    fn only_if(&mut self, holds: Option<bool>) -> Step {
        match holds {
            Some(true) => Step::On,
            Some(false) => Step::Ends(Vec::new()),
            None => {
                self.fit = Fit::Maybe;
                Step::On
            }
        }
    }

    fn ends(&self, deed: Deed) -> Step {
        Step::Ends(vec![Rule { fit: self.fit, deed }])
    }

    /// Where the bytes of a register are.
    fn place(register: Option<u32>, length: usize) -> Option<std::ops::Range<usize>> {
        let register = register? as usize;
        let begin = match register {
            1..=4 => (register - 1) * 16,
            8..=23 => (register - 8) * 4,
            _ => return None,
        };
        (begin + length <= BYTES).then_some(begin..begin + length)
    }

    fn load(&self, register: Option<u32>, length: usize) -> Option<Vec<u8>> {
        self.bytes.get(Self::place(register, length)?)?.iter().copied().collect()
    }

    /// Puts this into a register, or that nobody knows what it holds.
    fn store(&mut self, register: Option<u32>, what: Option<&[u8]>, length: usize) -> Step {
        // The kernel fills the last word up with zeros.
        let place = Self::place(register, length.next_multiple_of(4));
        if let Some(bytes) = place.and_then(|place| self.bytes.get_mut(place)) {
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = what.map(|what| what.get(at).copied().unwrap_or_default());
            }
        }
        Step::On
    }

    fn meta(&mut self, to: Option<u32>, from: Option<u32>, key: Option<u32>) -> Step {
        if from.is_some() {
            if key == Some(NFT_META_MARK) {
                let held = self.load(from, 4).and_then(|held| held.first_chunk().copied());
                self.mark = held.map(u32::from_ne_bytes);
            }
            return Step::On;
        }
        let v6 = self.packet.source.is_ipv6();
        let index = |index: u32| (index != 0).then(|| index.to_ne_bytes().to_vec());
        let found = match key.unwrap_or_default() {
            NFT_META_PROTOCOL => Some(if v6 { vec![0x86, 0xdd] } else { vec![0x08, 0x00] }),
            NFT_META_MARK => self.mark.map(|mark| mark.to_ne_bytes().to_vec()),
            NFT_META_IIF => index(self.packet.from.index),
            NFT_META_OIF => index(self.packet.to.index),
            NFT_META_IIFNAME => Some(name(&self.packet.from.name)),
            NFT_META_OIFNAME => Some(name(&self.packet.to.name)),
            NFT_META_IIFTYPE | NFT_META_OIFTYPE => Some(ETHERNET.to_ne_bytes().to_vec()),
            NFT_META_NFPROTO => Some(vec![if v6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 }]),
            NFT_META_L4PROTO => Some(vec![TCP]),
            // For this host's hardware address.
            NFT_META_PKTTYPE => Some(vec![0]),
            _ => None,
        };
        self.store(to, found.as_deref(), found.as_ref().map_or(NAME_LEN, Vec::len))
    }

    fn payload(&mut self, data: &[u8]) -> Step {
        let number = |attribute| find(data, attribute).and_then(be32);
        let Some(to) = number(NFTA_PAYLOAD_DREG) else {
            // What is written into the packet is not read again here.
            return Step::On;
        };
        let header = match number(NFTA_PAYLOAD_BASE) {
            Some(NFT_PAYLOAD_NETWORK_HEADER) => Some(&self.network),
            Some(NFT_PAYLOAD_TRANSPORT_HEADER) => Some(&self.transport),
            _ => None,
        };
        let (offset, length) = (number(NFTA_PAYLOAD_OFFSET).unwrap_or_default() as usize, number(NFTA_PAYLOAD_LEN));
        let length = length.unwrap_or_default() as usize;
        let found = header.and_then(|header| header.get(offset..offset + length)).map(<[u8]>::to_vec);
        self.store(Some(to), found.as_deref(), length)
    }

    fn connection(&mut self, to: Option<u32>, key: Option<u32>) -> Step {
        let answers = self.packet.answers;
        let found = match key {
            Some(NFT_CT_STATE) => Some((if answers { CT_ESTABLISHED } else { CT_NEW }).to_ne_bytes().to_vec()),
            Some(NFT_CT_DIRECTION) => Some(vec![u8::from(answers)]),
            Some(NFT_CT_STATUS) => Some((if answers { ANSWERED } else { 0 }).to_ne_bytes().to_vec()),
            _ => None,
        };
        // What is written to the connection is not read again here.
        let Some(to) = to else { return Step::On };
        self.store(Some(to), found.as_deref(), found.as_ref().map_or(NAME_LEN, Vec::len))
    }

    fn bitwise(&mut self, data: &[u8]) -> Step {
        let number = |attribute| find(data, attribute).and_then(be32);
        let length = number(NFTA_BITWISE_LEN).unwrap_or_default() as usize;
        let (mask, flip) = (value(data, NFTA_BITWISE_MASK), value(data, NFTA_BITWISE_XOR));
        let plain = number(NFTA_BITWISE_OP).unwrap_or_default() == 0;
        let held = self.load(number(NFTA_BITWISE_SREG), length).filter(|_| plain);
        let made = held.map(|held| {
            let bits = |of: &[u8], at: usize| of.get(at).copied().unwrap_or_default();
            held.iter().enumerate().map(|(at, byte)| byte & bits(mask, at) ^ bits(flip, at)).collect::<Vec<u8>>()
        });
        self.store(number(NFTA_BITWISE_DREG), made.as_deref(), length)
    }

    fn lookup(&mut self, data: &[u8], sets: &BTreeMap<String, ForeignSet>) -> Step {
        let number = |attribute| find(data, attribute).and_then(be32);
        let set = find(data, NFTA_LOOKUP_SET).map(text).and_then(|name| sets.get(&name));
        let absent = number(NFTA_LOOKUP_FLAGS).unwrap_or_default() & NFT_LOOKUP_F_INV != 0;
        let to = number(NFTA_LOOKUP_DREG);
        let Some(set) = set else { return self.only_if(None) };
        let length = set.elements.iter().find_map(|element| element.key.as_ref()).map(Vec::len);
        let key = length.map_or(Some(Vec::new()), |length| self.load(number(NFTA_LOOKUP_SREG), length));
        match (key, to) {
            (Some(key), Some(NFT_REG_VERDICT)) => match set.find(&key).and_then(|element| element.data.as_deref()) {
                Some(data) => self.ends(deed(data)),
                None => Step::Ends(Vec::new()),
            },
            // It may be any element of the map.
            (None, Some(NFT_REG_VERDICT)) => {
                let deeds = set.elements.iter().filter_map(|element| element.data.as_deref()).map(deed);
                Step::Ends(deeds.map(|deed| Rule { fit: Fit::Maybe, deed }).collect())
            }
            (Some(key), Some(to)) => match set.find(&key).and_then(|element| element.data.as_deref()) {
                Some(data) => {
                    let given = find(data, NFTA_DATA_VALUE).unwrap_or_default().to_vec();
                    self.store(Some(to), Some(&given), given.len())
                }
                None => Step::Ends(Vec::new()),
            },
            (None, to) => {
                if to.is_some() {
                    self.store(to, None, NAME_LEN);
                }
                self.only_if(None)
            }
            (Some(key), None) => self.only_if(Some(set.find(&key).is_some() != absent)),
        }
    }

    /// A condition that iptables has brought with it.
    fn of_iptables(&mut self, data: &[u8]) -> Step {
        let name = find(data, NFTA_MATCH_NAME).map(text).unwrap_or_default();
        let revision = find(data, NFTA_MATCH_REV).and_then(be32).unwrap_or_default();
        let info = find(data, NFTA_MATCH_INFO).unwrap_or_default();
        let holds = match name.as_str() {
            "comment" => Some(true),
            "conntrack" => self.conntrack(info, revision),
            "tcp" => ports(info, self.packet.ports()),
            // Another protocol.
            "udp" | "icmp" | "icmp6" | "sctp" | "dccp" => Some(false),
            "mark" => match info.first_chunk::<9>() {
                Some(&[a, b, c, d, e, f, g, h, inverted]) => self.mark.map(|mark| {
                    let (wanted, mask) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
                    (mark & mask == wanted) != (inverted != 0)
                }),
                None => None,
            },
            _ => None,
        };
        self.only_if(holds)
    }

    /// `struct xt_conntrack_mtinfo1` to `3` (linux/netfilter/xt_conntrack.h): the flags are behind eight addresses, two times
    /// and five ports.
    fn conntrack(&self, info: &[u8], revision: u32) -> Option<bool> {
        let short = |at: usize| info.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes);
        let (wanted, inverted) = (short(146)?, short(148)?);
        let states = if revision == 1 { u16::from(*info.get(150)?) } else { short(150)? };
        let state = if self.packet.answers { CT_ESTABLISHED } else { CT_NEW };
        const STATE: u16 = 1;
        let by_state = (u32::from(states) & state != 0) != (inverted & STATE != 0);
        match wanted {
            STATE => Some(by_state),
            _ if wanted & STATE != 0 && !by_state => Some(false),
            _ => None,
        }
    }
}

/// Targets of iptables behind which the packet goes on.
const PASSING: [&str; 14] = [
    "LOG",
    "NFLOG",
    "ULOG",
    "TRACE",
    "AUDIT",
    "CT",
    "CONNMARK",
    "CONNSECMARK",
    "CLASSIFY",
    "DSCP",
    "TOS",
    "TTL",
    "HL",
    "TCPMSS",
];

/// `struct xt_tcp` (linux/netfilter/xt_tcpudp.h): two ranges of ports, an option, flags, and what is turned round. None where more
/// than ports are asked for.
fn ports(info: &[u8], [source, destination]: [u16; 2]) -> Option<bool> {
    let &[a, b, c, d, e, f, g, h, option, flags, _, inverted] = info.first_chunk()?;
    let within = |first: [u8; 2], last: [u8; 2], port: u16| {
        (u16::from_ne_bytes(first)..=u16::from_ne_bytes(last)).contains(&port)
    };
    let by_source = within([a, b], [c, d], source) != (inverted & 1 != 0);
    let by_destination = within([e, f], [g, h], destination) != (inverted & 2 != 0);
    match option == 0 && flags == 0 {
        true => Some(by_source && by_destination),
        false if by_source && by_destination => None,
        false => Some(false),
    }
}

/// The header of the packet: IPv4 without options, or IPv6 with TCP behind it.
fn header(packet: &Packet) -> Vec<u8> {
    let mut header = Vec::new();
    match (packet.source, packet.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 63, TCP, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        (source, destination) => {
            header.extend([0x60, 0, 0, 0, 0, 20, TCP, 63]);
            for ip in [source, destination] {
                if let IpAddr::V6(ip) = ip {
                    header.extend(ip.octets());
                }
            }
        }
    }
    header
}

/// A link's name as a register holds it.
fn name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME_LEN, 0);
    bytes
}

/// The value inside an attribute.
fn value(data: &[u8], number: u16) -> &[u8] {
    find(data, number).and_then(|data| find(data, NFTA_DATA_VALUE)).unwrap_or_default()
}

/// What a verdict leads to.
fn deed(data: &[u8]) -> Deed {
    let verdict = find(data, NFTA_DATA_VERDICT).unwrap_or_default();
    let chain = || find(verdict, NFTA_VERDICT_CHAIN).map(text).unwrap_or_default();
    match find(verdict, NFTA_VERDICT_CODE).and_then(be32) {
        Some(NF_ACCEPT) => Deed::Accept,
        Some(NF_DROP) => Deed::Drop,
        Some(NFT_JUMP) => Deed::Jump(chain()),
        Some(NFT_GOTO) => Deed::Goto(chain()),
        Some(NFT_RETURN) => Deed::Return,
        Some(NFT_CONTINUE) => Deed::Next,
        _ => Deed::Unknown,
    }
}
