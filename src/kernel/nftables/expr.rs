//! Puts the statements of a rule into the kernel's expressions, as `nft` itself would, so that its list shows them readably; and
//! brings expressions into one form in which those that were sent and those that the kernel shows are equal bytes.
//!
//! Owns what each statement is in expressions. Must not check a rule: what does not fit its table is for the kernel to refuse.

use super::uapi::*;
use super::wire::{Writer, find};
use crate::kernel::netlink::message::{Attributes, text};
use model::addr::{Family, IF_NAME_MAX};
use model::ruleset::{End, Field, Op, Span, Statement, Value, Verdict};

/// Bytes of a link's name in a register or a set.
pub(super) const NAME_LEN: usize = IF_NAME_MAX + 1;

/// The expressions of a rule, as a list of attributes.
pub(super) fn encode(rule: &[Statement], to: &mut Writer) {
    for statement in rule {
        put(statement, to);
    }
}

/// The expression of a counter that begins at zero, within an attribute of this number.
pub(super) fn counter(number: u16, to: &mut Writer) {
    nested(number, to, "counter", |data| {
        data.put_u64(NFTA_COUNTER_BYTES, 0);
        data.put_u64(NFTA_COUNTER_PACKETS, 0);
    });
}

/// A verdict, as the value of a map or of an `immediate`.
pub(super) fn verdict(verdict: &Verdict, number: u16, to: &mut Writer) {
    let (code, chain) = match verdict {
        Verdict::Accept => (NF_ACCEPT, None),
        Verdict::Drop => (NF_DROP, None),
        Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
        Verdict::Goto(chain) => (NFT_GOTO, Some(chain)),
        Verdict::Return => (NFT_RETURN, None),
    };
    to.nest(number, |to| {
        to.nest(NFTA_DATA_VERDICT, |to| {
            to.put_u32(NFTA_VERDICT_CODE, code);
            if let Some(chain) = chain {
                to.put_text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

/// A verdict as `nft` shows it.
pub(super) fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Return => "return".into(),
    }
}

fn put(statement: &Statement, to: &mut Writer) {
    match statement {
        Statement::Is(field, op, value) => {
            load(*field, NFT_REG_1, to);
            compare(operator(*op), &bytes(*field, value), to);
        }
        Statement::NameBegins(end, op, prefix) => {
            load(Field::Link(*end), NFT_REG_1, to);
            compare(operator(*op), prefix.as_bytes(), to);
        }
        Statement::Between(field, first, last) => {
            load(*field, NFT_REG_1, to);
            compare(NFT_CMP_GTE, &bytes(*field, &Value::Short(*first)), to);
            compare(NFT_CMP_LTE, &bytes(*field, &Value::Short(*last)), to);
        }
        Statement::In(fields, op, set) => {
            load_all(fields, to);
            expression(to, "lookup", |data| {
                data.put_text(NFTA_LOOKUP_SET, set);
                data.put_u32(NFTA_LOOKUP_SREG, NFT_REG_1);
                data.put_u32(NFTA_LOOKUP_FLAGS, if *op == Op::Ne { NFT_LOOKUP_F_INV } else { 0 });
            });
        }
        Statement::ByMap(end, map) => {
            load(Field::Link(*end), NFT_REG_1, to);
            expression(to, "lookup", |data| {
                data.put_text(NFTA_LOOKUP_SET, map);
                data.put_u32(NFTA_LOOKUP_SREG, NFT_REG_1);
                data.put_u32(NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
            });
        }
        Statement::StateIn(states) => {
            connection(NFT_CT_STATE, None, NFT_REG_1, to);
            mask(*states, 0, to);
            compare(NFT_CMP_NEQ, &[0; 4], to);
        }
        Statement::MarkIs { mask: bits, value } => {
            connection(NFT_CT_MARK, None, NFT_REG_1, to);
            mask(*bits, 0, to);
            compare(NFT_CMP_EQ, &value.to_ne_bytes(), to);
        }
        Statement::SetMark { mask: bits, value } => {
            connection(NFT_CT_MARK, None, NFT_REG_1, to);
            mask(!bits, *value, to);
            expression(to, "ct", |data| {
                data.put_u32(NFTA_CT_KEY, NFT_CT_MARK);
                data.put_u32(NFTA_CT_SREG, NFT_REG_1);
            });
        }
        Statement::Remember(fields, span, set) => {
            load_all(fields, to);
            let operation = match span {
                Span::FromFirst => NFT_DYNSET_OP_ADD,
                Span::FromLast => NFT_DYNSET_OP_UPDATE,
            };
            expression(to, "dynset", |data| {
                data.put_u32(NFTA_DYNSET_SREG_KEY, NFT_REG_1);
                data.put_u32(NFTA_DYNSET_OP, operation);
                data.put_text(NFTA_DYNSET_SET_NAME, set);
            });
        }
        Statement::FasterThan { set, rate, burst } => {
            load(Field::Link(End::In), NFT_REG_1, to);
            expression(to, "dynset", |data| {
                data.put_u32(NFTA_DYNSET_SREG_KEY, NFT_REG_1);
                data.put_u32(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
                data.put_text(NFTA_DYNSET_SET_NAME, set);
                nested(NFTA_DYNSET_EXPR, data, "limit", |data| limit(*rate, *burst, NFT_LIMIT_F_INV, data));
            });
        }
        Statement::AtMost { rate, burst } => expression(to, "limit", |data| limit(*rate, *burst, 0, data)),
        Statement::Count => counter(NFTA_LIST_ELEM, to),
        Statement::Log(prefix) => expression(to, "log", |data| {
            data.put_text(NFTA_LOG_PREFIX, prefix);
            data.put_u32(NFTA_LOG_LEVEL, NFT_LOGLEVEL_WARNING);
        }),
        Statement::Masquerade => expression(to, "masq", |_| {}),
        Statement::Verdict(end) => expression(to, "immediate", |data| {
            data.put_u32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
            verdict(end, NFTA_IMMEDIATE_DATA, data);
        }),
    }
}

fn expression(to: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    nested(NFTA_LIST_ELEM, to, name, fill);
}

fn nested(number: u16, to: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    to.nest(number, |to| {
        to.put_text(NFTA_EXPR_NAME, name);
        to.nest(NFTA_EXPR_DATA, fill);
    });
}

/// Loads the fields side by side, each from the next word on, as the key of a set has them.
fn load_all(fields: &[Field], to: &mut Writer) {
    let mut word: u32 = 0;
    for field in fields {
        load(*field, if word.is_multiple_of(4) { NFT_REG_1 + word / 4 } else { NFT_REG32_00 + word }, to);
        word += u32::try_from(width(*field).div_ceil(4)).unwrap_or_default();
    }
}

/// Bytes of a field, without padding.
fn width(field: Field) -> usize {
    match field {
        Field::Link(_) => NAME_LEN,
        Field::Family | Field::Protocol | Field::IcmpType | Field::Icmp6Type | Field::Direction => 1,
        Field::SourcePort | Field::DestinationPort | Field::ConnectionPort => 2,
        Field::ArpSource => 4,
        Field::Source(family)
        | Field::Destination(family)
        | Field::ConnectionSource(family)
        | Field::ConnectionDestination(family) => match family {
            Family::V4 => 4,
            Family::V6 => 16,
        },
    }
}

fn load(field: Field, register: u32, to: &mut Writer) {
    match field {
        Field::Link(End::In) => meta(NFT_META_IIFNAME, register, to),
        Field::Link(End::Out) => meta(NFT_META_OIFNAME, register, to),
        Field::Family => meta(NFT_META_NFPROTO, register, to),
        Field::Protocol => meta(NFT_META_L4PROTO, register, to),
        Field::Source(Family::V4) => payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4, register, to),
        Field::Source(Family::V6) => payload(NFT_PAYLOAD_NETWORK_HEADER, 8, 16, register, to),
        Field::Destination(Family::V4) => payload(NFT_PAYLOAD_NETWORK_HEADER, 16, 4, register, to),
        Field::Destination(Family::V6) => payload(NFT_PAYLOAD_NETWORK_HEADER, 24, 16, register, to),
        Field::ArpSource => payload(NFT_PAYLOAD_NETWORK_HEADER, 14, 4, register, to),
        Field::SourcePort => payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, register, to),
        Field::DestinationPort => payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, register, to),
        Field::IcmpType | Field::Icmp6Type => payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, register, to),
        Field::Direction => connection(NFT_CT_DIRECTION, None, register, to),
        // Who answers is the source of the answers.
        Field::ConnectionSource(family) => connection(source(family), Some(IP_CT_DIR_ORIGINAL), register, to),
        Field::ConnectionDestination(family) => connection(source(family), Some(IP_CT_DIR_REPLY), register, to),
        Field::ConnectionPort => connection(NFT_CT_PROTO_SRC, Some(IP_CT_DIR_REPLY), register, to),
    }
}

fn source(family: Family) -> u32 {
    match family {
        Family::V4 => NFT_CT_SRC_IP,
        Family::V6 => NFT_CT_SRC_IP6,
    }
}

fn meta(key: u32, register: u32, to: &mut Writer) {
    expression(to, "meta", |data| {
        data.put_u32(NFTA_META_KEY, key);
        data.put_u32(NFTA_META_DREG, register);
    });
}

fn payload(base: u32, offset: u32, length: u32, register: u32, to: &mut Writer) {
    expression(to, "payload", |data| {
        data.put_u32(NFTA_PAYLOAD_DREG, register);
        data.put_u32(NFTA_PAYLOAD_BASE, base);
        data.put_u32(NFTA_PAYLOAD_OFFSET, offset);
        data.put_u32(NFTA_PAYLOAD_LEN, length);
    });
}

fn connection(key: u32, direction: Option<u8>, register: u32, to: &mut Writer) {
    expression(to, "ct", |data| {
        data.put_u32(NFTA_CT_KEY, key);
        data.put_u32(NFTA_CT_DREG, register);
        if let Some(direction) = direction {
            data.put(NFTA_CT_DIRECTION, &[direction]);
        }
    });
}

fn compare(op: u32, value: &[u8], to: &mut Writer) {
    expression(to, "cmp", |data| {
        data.put_u32(NFTA_CMP_SREG, NFT_REG_1);
        data.put_u32(NFTA_CMP_OP, op);
        data.nest(NFTA_CMP_DATA, |data| data.put(NFTA_DATA_VALUE, value));
    });
}

fn operator(op: Op) -> u32 {
    match op {
        Op::Eq => NFT_CMP_EQ,
        Op::Ne => NFT_CMP_NEQ,
    }
}

/// The first register: its bits of `mask`, and then those of `flip` turned over.
fn mask(mask: u32, flip: u32, to: &mut Writer) {
    expression(to, "bitwise", |data| {
        data.put_u32(NFTA_BITWISE_SREG, NFT_REG_1);
        data.put_u32(NFTA_BITWISE_DREG, NFT_REG_1);
        data.put_u32(NFTA_BITWISE_LEN, 4);
        data.nest(NFTA_BITWISE_MASK, |data| data.put(NFTA_DATA_VALUE, &mask.to_ne_bytes()));
        data.nest(NFTA_BITWISE_XOR, |data| data.put(NFTA_DATA_VALUE, &flip.to_ne_bytes()));
    });
}

/// So many packets per second, and at most `burst` at once, of which there is at least one.
fn limit(rate: u32, burst: u32, flags: u32, data: &mut Writer) {
    data.put_u64(NFTA_LIMIT_RATE, rate.into());
    data.put_u64(NFTA_LIMIT_UNIT, 1);
    data.put_u32(NFTA_LIMIT_BURST, burst.max(1));
    data.put_u32(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
    data.put_u32(NFTA_LIMIT_FLAGS, flags);
}

/// The bytes that a field with this value has in a register. A number that is wider or narrower than the field is fitted to it.
fn bytes(field: Field, value: &Value) -> Vec<u8> {
    let number = match value {
        Value::V4(ip) => return ip.octets().into(),
        Value::V6(ip) => return ip.octets().into(),
        Value::Byte(number) => u32::from(*number),
        Value::Short(number) => u32::from(*number),
    };
    number.to_be_bytes().get(4 - width(field).min(4)..).unwrap_or_default().into()
}

/// The one form of an expression: its name, and behind that its attributes.
///
/// They are in the order of their numbers, without the bits that say that one is nested, without what the kernel adds where it was
/// not sent because it is zero, and without what changes by itself or is valid in one batch alone.
pub(super) fn normal(expression: &[u8]) -> Vec<u8> {
    let mut to = Writer::default();
    let name = find(expression, NFTA_EXPR_NAME).map(text).unwrap_or_default();
    to.put_text(NFTA_EXPR_NAME, &name);
    let data = find(expression, NFTA_EXPR_DATA).unwrap_or_default();
    let mut attributes: Vec<(u16, &[u8])> = Attributes::nested(data).collect();
    attributes.sort();
    for (number, value) in attributes {
        let zero = value.iter().all(|byte| *byte == 0);
        match (name.as_str(), number) {
            ("counter", NFTA_COUNTER_BYTES | NFTA_COUNTER_PACKETS | NFTA_COUNTER_PAD)
            | ("limit", NFTA_LIMIT_PAD)
            | ("lookup", NFTA_LOOKUP_SET_ID)
            | ("dynset", NFTA_DYNSET_SET_ID | NFTA_DYNSET_PAD) => {}
            ("lookup", NFTA_LOOKUP_FLAGS)
            | ("bitwise", NFTA_BITWISE_OP)
            | ("limit", NFTA_LIMIT_FLAGS)
            | ("log", NFTA_LOG_FLAGS)
            | ("dynset", NFTA_DYNSET_FLAGS | NFTA_DYNSET_TIMEOUT)
            | ("masq", NFTA_MASQ_FLAGS)
                if zero => {}
            ("dynset", NFTA_DYNSET_EXPR) => to.put(number, &normal(value)),
            ("cmp", NFTA_CMP_DATA)
            | ("bitwise", NFTA_BITWISE_MASK | NFTA_BITWISE_XOR)
            | ("immediate", NFTA_IMMEDIATE_DATA) => to.put(number, &plain(value)),
            _ => to.put(number, value),
        }
    }
    to.0
}

/// A value or a verdict, without the bits that say that an attribute is nested.
fn plain(data: &[u8]) -> Vec<u8> {
    let mut to = Writer::default();
    for (number, value) in Attributes::nested(data) {
        match number {
            NFTA_DATA_VERDICT => {
                let mut inner = Writer::default();
                Attributes::nested(value).for_each(|(number, value)| inner.put(number, value));
                to.put(number, &inner.0);
            }
            _ => to.put(number, value),
        }
    }
    to.0
}

/// The expressions of a list, each in the one form.
pub(super) fn normal_all(list: &[u8]) -> Vec<Vec<u8>> {
    Attributes::nested(list).filter(|(number, _)| *number == NFTA_LIST_ELEM).map(|(_, value)| normal(value)).collect()
}
