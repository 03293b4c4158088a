//! Puts sets and their elements into the kernel's words, and reads them back.
//!
//! Owns which attributes a form of a set has, and the bytes of its elements. Must not ask the kernel anything. What is not exactly
//! as flock would have made it is of no form, and an element that is not, is no element: who compares calls that a difference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Count;
use super::expr::{self, NAME_LEN};
use super::uapi::*;
use super::wire::{Writer, be32, be64, find};
use crate::kernel::netlink::message::Attributes;
use model::addr::{Family, IfName};
use model::ruleset::{Element, Form, Verdict};

/// `nft`'s numbers of types, of which a set names those of its key, six bits for each, so that `nft` shows its elements readably.
/// The kernel keeps them and does not look.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const IFNAME: u32 = 41;

/// `nft`'s own notes at a set and at an element: a number, a length and a value each (libnftnl/udata.h).
const UDATA_SET_KEYBYTEORDER: u8 = 0;
const UDATA_SET_DATABYTEORDER: u8 = 1;
const UDATA_ELEM_FLAGS: u8 = 1;
/// The interval has no end.
const ELEM_F_INTERVAL_OPEN: u32 = 1;

/// What the kernel knows of a set, its name and elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    flags: u32,
    key_type: u32,
    key_len: u32,
    /// Verdicts are its values.
    verdicts: bool,
    size: u32,
    /// In milliseconds.
    timeout: u64,
    counted: bool,
    /// It has expressions other than a counter, or values other than verdicts.
    odd: bool,
    /// `nft`'s note: 1 for the host's order of bytes, 2 for that of packets, 0 for several fields.
    order: u32,
}

impl Shape {
    /// Of a set of this form.
    pub(super) fn of(form: Form) -> Shape {
        let (flags, size, seconds) = match form {
            Form::Ranges(_) => (NFT_SET_INTERVAL, 0, 0),
            Form::Recent { seconds, size, .. } => (NFT_SET_EVAL | NFT_SET_TIMEOUT, size, seconds),
            Form::Rates { seconds, size } => (NFT_SET_EVAL | NFT_SET_TIMEOUT, size, seconds),
            _ => (0, 0, 0),
        };
        let address = |family| match family {
            Family::V4 => IPV4_ADDR,
            Family::V6 => IPV6_ADDR,
        };
        let types = match form {
            Form::Links { .. } | Form::Rates { .. } => vec![IFNAME],
            Form::LinkPairs => vec![IFNAME, IFNAME],
            Form::Addresses(family) | Form::Ranges(family) => vec![address(family)],
            Form::LinkAddresses(family) | Form::Recent { family, .. } => vec![IFNAME, address(family)],
            Form::Ports(family) => vec![address(family), INET_PROTO, INET_SERVICE],
        };
        let order = match types[..] {
            [IFNAME] => 1,
            [_] => 2,
            _ => 0,
        };
        Shape {
            flags,
            key_type: types.iter().fold(0, |types, next| types << 6 | next),
            key_len: u32::try_from(key_len(form)).unwrap_or(u32::MAX),
            verdicts: false,
            size,
            timeout: u64::from(seconds) * 1000,
            counted: matches!(form, Form::Links { counted: true }),
            odd: false,
            order,
        }
    }

    /// Of a map from links to verdicts.
    pub(super) fn of_map() -> Shape {
        Shape { flags: NFT_SET_MAP, verdicts: true, ..Shape::of(Form::Links { counted: false }) }
    }

    /// Its attributes, table and name apart.
    pub(super) fn put(&self, to: &mut Writer) {
        to.put_u32(NFTA_SET_FLAGS, self.flags);
        to.put_u32(NFTA_SET_KEY_TYPE, self.key_type);
        to.put_u32(NFTA_SET_KEY_LEN, self.key_len);
        let mut notes = vec![UDATA_SET_KEYBYTEORDER, 4];
        notes.extend(self.order.to_ne_bytes());
        if self.verdicts {
            to.put_u32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
            to.put_u32(NFTA_SET_DATA_LEN, 0);
            notes.extend([UDATA_SET_DATABYTEORDER, 4, 0, 0, 0, 0]);
        }
        if self.size > 0 {
            to.nest(NFTA_SET_DESC, |to| to.put_u32(NFTA_SET_DESC_SIZE, self.size));
        }
        if self.timeout > 0 {
            to.put_u64(NFTA_SET_TIMEOUT, self.timeout);
        }
        to.put(NFTA_SET_USERDATA, &notes);
        if self.counted {
            expr::counter(NFTA_SET_EXPR, to);
        }
    }

    /// What the kernel shows of a set. None for one that a rule has of its own, without a name.
    pub(super) fn read(attributes: &[u8]) -> Option<Shape> {
        let number = |number| find(attributes, number).and_then(be32).unwrap_or_default();
        let flags = number(NFTA_SET_FLAGS);
        if flags & NFT_SET_ANONYMOUS != 0 {
            return None;
        }
        let data_type = find(attributes, NFTA_SET_DATA_TYPE).and_then(be32);
        let single = find(attributes, NFTA_SET_EXPR).map(expr::normal);
        let several = find(attributes, NFTA_SET_EXPRESSIONS).map(expr::normal_all);
        let expressions: Vec<Vec<u8>> = single.into_iter().chain(several.into_iter().flatten()).collect();
        let counted = expressions == [normal_counter()];
        let desc = find(attributes, NFTA_SET_DESC).unwrap_or_default();
        let notes = find(attributes, NFTA_SET_USERDATA).unwrap_or_default();
        let order = match *notes {
            [UDATA_SET_KEYBYTEORDER, 4, a, b, c, d, ..] => u32::from_ne_bytes([a, b, c, d]),
            _ => 0,
        };
        Some(Shape {
            flags,
            key_type: number(NFTA_SET_KEY_TYPE),
            key_len: number(NFTA_SET_KEY_LEN),
            verdicts: data_type == Some(NFT_DATA_VERDICT),
            size: find(desc, NFTA_SET_DESC_SIZE).and_then(be32).unwrap_or_default(),
            timeout: find(attributes, NFTA_SET_TIMEOUT).and_then(be64).unwrap_or_default(),
            counted,
            odd: !counted && !expressions.is_empty() || data_type.is_some_and(|kind| kind != NFT_DATA_VERDICT),
            order,
        })
    }

    /// It is a map of links to verdicts as flock makes one.
    pub(super) fn is_map(&self) -> bool {
        *self == Shape::of_map()
    }

    /// The form that has just this shape.
    pub(super) fn form(&self) -> Option<Form> {
        let both = |form: fn(Family) -> Form| [form(Family::V4), form(Family::V6)];
        let (seconds, size) = (u32::try_from(self.timeout / 1000).unwrap_or(u32::MAX), self.size);
        let mut forms = vec![Form::Links { counted: false }, Form::Links { counted: true }, Form::LinkPairs];
        forms.extend([Form::Addresses, Form::LinkAddresses, Form::Ports, Form::Ranges].into_iter().flat_map(both));
        forms.extend([Family::V4, Family::V6].map(|family| Form::Recent { family, seconds, size }));
        forms.push(Form::Rates { seconds, size });
        forms.into_iter().find(|form| Shape::of(*form) == *self)
    }
}

fn normal_counter() -> Vec<u8> {
    let mut to = Writer::default();
    expr::counter(NFTA_LIST_ELEM, &mut to);
    expr::normal_all(&to.0).pop().unwrap_or_default()
}

/// Bytes of the key of one element.
fn key_len(form: Form) -> usize {
    let address = |family| match family {
        Family::V4 => 4,
        Family::V6 => 16,
    };
    match form {
        Form::Links { .. } | Form::Rates { .. } => NAME_LEN,
        Form::LinkPairs => 2 * NAME_LEN,
        Form::Addresses(family) | Form::Ranges(family) => address(family),
        Form::LinkAddresses(family) | Form::Recent { family, .. } => NAME_LEN + address(family),
        // Protocol and port have a word each.
        Form::Ports(family) => address(family) + 4 + 4,
    }
}

/// The name as registers and keys have it, filled up with zeros.
fn name(link: &IfName) -> [u8; NAME_LEN] {
    let mut name = [0; NAME_LEN];
    for (place, byte) in name.iter_mut().zip(link.as_str().bytes()) {
        *place = byte;
    }
    name
}

fn octets(ip: IpAddr, to: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => to.extend(ip.octets()),
        IpAddr::V6(ip) => to.extend(ip.octets()),
    }
}

/// One element as one attribute of a list, or as two: where a range begins, and the address behind its last one.
///
/// Such an end is no element where nothing is behind the range; `nft` is told so by a note, and would show the range otherwise by
/// its first address alone.
pub(super) fn put_element(element: &Element, counted: bool, to: &mut Writer) {
    let mut key = Vec::with_capacity(2 * NAME_LEN);
    match element {
        Element::Link(link) => key.extend(name(link)),
        Element::Links(first, second) => {
            key.extend(name(first));
            key.extend(name(second));
        }
        Element::Address(ip) => octets(*ip, &mut key),
        Element::LinkAddress(link, ip) => {
            key.extend(name(link));
            octets(*ip, &mut key);
        }
        Element::Port(ip, protocol, port) => {
            octets(*ip, &mut key);
            key.extend([*protocol, 0, 0, 0]);
            key.extend(port.to_be_bytes());
            key.extend([0; 2]);
        }
        Element::Range(first, last) => {
            octets(*first, &mut key);
            let end = next(*last);
            to.nest(NFTA_LIST_ELEM, |to| {
                to.nest(NFTA_SET_ELEM_KEY, |to| to.put(NFTA_DATA_VALUE, &key));
                if end.is_none() {
                    let mut note = vec![UDATA_ELEM_FLAGS, 4];
                    note.extend(ELEM_F_INTERVAL_OPEN.to_ne_bytes());
                    to.put(NFTA_SET_ELEM_USERDATA, &note);
                }
            });
            if let Some(end) = end {
                key.clear();
                octets(end, &mut key);
                to.nest(NFTA_LIST_ELEM, |to| {
                    to.put_u32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                    to.nest(NFTA_SET_ELEM_KEY, |to| to.put(NFTA_DATA_VALUE, &key));
                });
            }
            return;
        }
    }
    to.nest(NFTA_LIST_ELEM, |to| {
        to.nest(NFTA_SET_ELEM_KEY, |to| to.put(NFTA_DATA_VALUE, &key));
        if counted {
            expr::counter(NFTA_SET_ELEM_EXPR, to);
        }
    });
}

/// One link of a map, with its value where it is added.
pub(super) fn put_link(link: &IfName, verdict: Option<&Verdict>, to: &mut Writer) {
    to.nest(NFTA_LIST_ELEM, |to| {
        to.nest(NFTA_SET_ELEM_KEY, |to| to.put(NFTA_DATA_VALUE, &name(link)));
        if let Some(verdict) = verdict {
            expr::verdict(verdict, NFTA_SET_ELEM_DATA, to);
        }
    });
}

/// The address behind this one. None behind the last of all.
fn next(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|next| Ipv4Addr::from_bits(next).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|next| Ipv6Addr::from_bits(next).into()),
    }
}

fn before(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().checked_sub(1).map(|before| Ipv4Addr::from_bits(before).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_sub(1).map(|before| Ipv6Addr::from_bits(before).into()),
    }
}

/// The count of an expression, if it is a counter.
pub(super) fn count(expression: &[u8]) -> Option<Count> {
    if find(expression, NFTA_EXPR_NAME)? != b"counter\0" {
        return None;
    }
    let data = find(expression, NFTA_EXPR_DATA)?;
    let number = |number| find(data, number).and_then(be64).unwrap_or_default();
    Some(Count { packets: number(NFTA_COUNTER_PACKETS), bytes: number(NFTA_COUNTER_BYTES) })
}

/// What the kernel shows of one element, as far as it goes.
struct Raw<'a> {
    key: &'a [u8],
    data: Option<&'a [u8]>,
    end: bool,
    count: Option<Count>,
}

impl Raw<'_> {
    /// None for one that has what no element of flock's has.
    fn read(attributes: &[u8]) -> Option<Raw<'_>> {
        let flags = find(attributes, NFTA_SET_ELEM_FLAGS).map_or(Some(0), be32)?;
        if flags & !NFT_SET_ELEM_INTERVAL_END != 0 || find(attributes, NFTA_SET_ELEM_KEY_END).is_some() {
            return None;
        }
        let single = find(attributes, NFTA_SET_ELEM_EXPR).into_iter();
        let several = find(attributes, NFTA_SET_ELEM_EXPRESSIONS).unwrap_or_default();
        let mut expressions = single.chain(Attributes::nested(several).map(|(_, value)| value));
        let count = match expressions.next() {
            None => None,
            Some(expression) => Some(count(expression)?),
        };
        if expressions.next().is_some() {
            return None;
        }
        Some(Raw {
            key: find(find(attributes, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?,
            data: find(attributes, NFTA_SET_ELEM_DATA),
            end: flags & NFT_SET_ELEM_INTERVAL_END != 0,
            count,
        })
    }
}

/// Elements of a set, and how many there are that are not such as flock makes.
#[derive(Debug, Default)]
pub(super) struct Elements {
    pub(super) known: Vec<(Element, Option<Count>)>,
    pub(super) odd: usize,
}

/// Reads the elements of one set of this form, each given by its attributes.
pub(super) fn elements<'a>(form: Form, list: impl Iterator<Item = &'a [u8]>) -> Elements {
    let mut read = Elements::default();
    // Beginnings and ends of ranges, an end before the beginning at the same address.
    let mut bounds: Vec<(IpAddr, bool)> = Vec::new();
    for attributes in list {
        let raw = Raw::read(attributes).filter(|raw| raw.key.len() == key_len(form) && raw.data.is_none());
        let counted = form == Form::Links { counted: true };
        let Some(raw) = raw.filter(|raw| counted == raw.count.is_some()) else {
            read.odd += 1;
            continue;
        };
        match (form, raw.end) {
            (Form::Ranges(_), end) => match address(raw.key) {
                Some(ip) => bounds.push((ip, !end)),
                None => read.odd += 1,
            },
            (_, true) => read.odd += 1,
            (_, false) => match element(form, raw.key) {
                Some(element) => read.known.push((element, raw.count)),
                None => read.odd += 1,
            },
        }
    }
    bounds.sort();
    let mut open: Option<IpAddr> = None;
    for (ip, begins) in bounds {
        match (begins, open.take()) {
            (true, None) => open = Some(ip),
            // It begins anew: the one before had no end.
            (true, Some(_)) => {
                read.odd += 1;
                open = Some(ip);
            }
            (false, Some(first)) => match before(ip) {
                Some(last) => read.known.push((Element::Range(first, last), None)),
                None => read.odd += 1,
            },
            // `nft` puts an end before the first range, which ends nothing.
            (false, None) => read.odd += usize::from(!ip.is_unspecified()),
        }
    }
    if let Some(first) = open {
        let last = match first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
        };
        read.known.push((Element::Range(first, last), None));
    }
    read
}

/// The key of one element as it is sent or shown, of a range its first address or the one behind its last.
pub(super) fn key(form: Form, attributes: &[u8]) -> Option<Element> {
    let key = find(find(attributes, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
    match form {
        Form::Ranges(family) => element(Form::Addresses(family), key),
        form => element(form, key),
    }
}

/// An element as `nft` shows it.
pub(super) fn words(element: &Element) -> String {
    match element {
        Element::Link(link) => link.to_string(),
        Element::Links(first, second) => format!("{first} . {second}"),
        Element::Address(ip) => ip.to_string(),
        Element::LinkAddress(link, ip) => format!("{link} . {ip}"),
        Element::Port(ip, protocol, port) => format!("{ip} . {protocol} . {port}"),
        Element::Range(first, last) => format!("{first}-{last}"),
    }
}

/// Reads one link of a map.
pub(super) fn link(attributes: &[u8]) -> Option<(IfName, Verdict)> {
    let raw = Raw::read(attributes).filter(|raw| !raw.end && raw.count.is_none() && raw.key.len() == NAME_LEN)?;
    let verdict = find(raw.data?, NFTA_DATA_VERDICT)?;
    let code = find(verdict, NFTA_VERDICT_CODE).and_then(be32)?;
    let chain = || {
        let name = find(verdict, NFTA_VERDICT_CHAIN)?;
        std::str::from_utf8(name.strip_suffix(b"\0").unwrap_or(name)).ok().map(str::to_owned)
    };
    let verdict = match code {
        NF_ACCEPT => Verdict::Accept,
        NF_DROP => Verdict::Drop,
        NFT_JUMP => Verdict::Jump(chain()?),
        NFT_GOTO => Verdict::Goto(chain()?),
        NFT_RETURN => Verdict::Return,
        _ => return None,
    };
    Some((link_name(raw.key)?, verdict))
}

fn element(form: Form, key: &[u8]) -> Option<Element> {
    let named = || key.split_at_checked(NAME_LEN);
    Some(match form {
        Form::Links { .. } | Form::Rates { .. } => Element::Link(link_name(key)?),
        Form::LinkPairs => {
            let (first, second) = named()?;
            Element::Links(link_name(first)?, link_name(second)?)
        }
        Form::Addresses(_) => Element::Address(address(key)?),
        Form::LinkAddresses(_) | Form::Recent { .. } => {
            let (link, ip) = named()?;
            Element::LinkAddress(link_name(link)?, address(ip)?)
        }
        Form::Ports(_) => {
            let (ip, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
            let &[protocol, _, _, _, high, low, _, _] = rest else { return None };
            Element::Port(address(ip)?, protocol, u16::from_be_bytes([high, low]))
        }
        Form::Ranges(_) => return None,
    })
}

fn address(key: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(key).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(key).ok().map(IpAddr::from))
}

/// A whole name: with zeros behind it, of which there is at least one.
fn link_name(key: &[u8]) -> Option<IfName> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let (name, rest) = key.split_at_checked(end)?;
    if rest.iter().any(|byte| *byte != 0) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}
