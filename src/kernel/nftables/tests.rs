//! Answers that no kernel should give, and those that it gives when something is wrong.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::addr::Family;
use model::ruleset::diff::Change;
use model::ruleset::{
    Base, ChainKind, Element, End, Field, Form, Hook, Op, Statement, TableFamily, TableKey, Value, Verdict,
};
use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_sys::protocols::NETLINK_USERSOCK;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::batch::Batch;
use super::changes::{Heard, heard};
use super::form::{Shape, elements, key, link, words};
use super::shown::{ShownChain, ShownRule, ShownSet, rule_count};
use super::socket::{Nftables, answer};
use super::uapi::*;
use super::wire::{Writer, find};
use super::{Cause, NftError};
use crate::kernel::netlink::message::{HEADER, messages};

const INET: TableKey = TableKey { family: TableFamily::Inet, name: "flock" };
const ARP: TableKey = TableKey { family: TableFamily::Arp, name: "flock" };

/// What the kernel shows has the same attributes as what it is told.
fn all_kinds() -> Vec<Change> {
    let name = |name: &str| name.to_owned();
    let flock = || "flock1".parse().expect("literal");
    let (v4, v6) = ([10, 0, 0, 1].into(), std::net::IpAddr::from([0xfd; 16]));
    let verdicts = [Verdict::Drop, Verdict::Jump(name("other")), Verdict::Goto(name("other")), Verdict::Return];
    let mut changes = vec![Change::AddTable(INET), Change::AddMap(INET, name("out"))];
    let base = Base { kind: ChainKind::Filter, hook: Hook::Input, priority: -300 };
    changes.push(Change::AddChain(INET, name("in"), Some(base)));
    changes.push(Change::AddChain(INET, name("other"), None));
    for (set, form, element) in [
        ("counted", Form::Links { counted: true }, Some(Element::Link(flock()))),
        ("self", Form::LinkPairs, Some(Element::Links(flock(), flock()))),
        ("pods", Form::Addresses(Family::V4), Some(Element::Address(v4))),
        ("src6", Form::LinkAddresses(Family::V6), Some(Element::LinkAddress(flock(), v6))),
        ("named", Form::Ports(Family::V4), Some(Element::Port(v4, 6, 80))),
        ("block", Form::Ranges(Family::V4), Some(Element::Range([1, 0, 0, 0].into(), v4))),
        ("block6", Form::Ranges(Family::V6), Some(Element::Range(v6, [0xff; 16].into()))),
        ("recent", Form::Recent { family: Family::V4, seconds: 9, size: 8 }, None),
        ("rates", Form::Rates { seconds: 9, size: 7 }, None),
    ] {
        changes.push(Change::AddSet(INET, name(set), form));
        changes.push(Change::AddElements(INET, name(set), form, element.into_iter().collect()));
    }
    let links = verdicts.iter().map(|verdict| (flock(), verdict.clone())).collect();
    changes.push(Change::AddLinks(INET, name("out"), links));
    let rule = vec![
        Statement::Is(Field::ConnectionPort, Op::Ne, Value::Short(80)),
        Statement::In(vec![Field::Link(End::In), Field::Source(Family::V6)], Op::Ne, name("src6")),
        Statement::ByMap(End::Out, name("out")),
        Statement::SetMark { mask: 0xff, value: 5 },
        Statement::FasterThan { set: name("rates"), rate: 1, burst: 2 },
        Statement::AtMost { rate: 1, burst: 2 },
        Statement::Count,
        Statement::Log(name("flock: ")),
        Statement::Masquerade,
        Statement::Verdict(Verdict::Jump(name("other"))),
    ];
    changes.push(Change::PutRules(INET, name("in"), vec![rule]));
    changes
}

/// Reads a datagram as everything that it could be.
fn read_all(datagram: &[u8]) {
    assert!(heard(datagram, &[], &[INET, ARP]).len() <= 2);
    let Ok(messages) = messages(datagram) else { return };
    for message in messages {
        if let Err(cause) = answer(&message) {
            assert!(!NftError { what: "do it".into(), cause }.to_string().is_empty());
        }
        let body = message.body.get(NFGEN_SIZE..).unwrap_or_default();
        ShownChain::read(body);
        ShownRule::read(body);
        rule_count(body);
        if let Some(shape) = Shape::read(body) {
            assert!(shape.form().is_none_or(|form| Shape::of(form) == shape));
            ShownSet::read(shape, &[body.to_vec()]);
        }
        let list = find(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
        let list: Vec<&[u8]> =
            crate::kernel::netlink::message::Attributes::nested(list).map(|(_, element)| element).collect();
        for element in &list {
            link(element);
        }
        for form in [
            Form::Links { counted: true },
            Form::LinkPairs,
            Form::Addresses(Family::V6),
            Form::LinkAddresses(Family::V4),
            Form::Ports(Family::V6),
            Form::Ports(Family::V4),
            Form::Ranges(Family::V4),
            Form::Ranges(Family::V6),
        ] {
            let read = elements(form, list.iter().copied());
            assert!(read.known.len() + read.odd <= list.len());
            for element in &list {
                key(form, element).map(|key| words(&key));
            }
        }
    }
}

#[test]
fn no_bytes_are_too_odd_to_be_read() {
    let changes = all_kinds();
    let batch = Batch::of(&changes, 1);
    let mut rest = batch.bytes();
    let mut count = 0;
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(*rest.first_chunk().expect("a length")) as usize;
        let (message, behind) = rest.split_at(length.next_multiple_of(4));
        let mut message = message.to_vec();
        for end in 0..=message.len() {
            read_all(&message[..end]);
            // Whole, as its header says, and cut all the same.
            if end >= 4 {
                let mut cut = message[..end].to_vec();
                cut[..4].copy_from_slice(&u32::try_from(end).expect("short").to_ne_bytes());
                read_all(&cut);
            }
        }
        for at in 0..message.len() {
            let whole = message[at];
            for odd in [0, 1, 4, 0x7f, 0xff, whole ^ 1, whole ^ 0x80] {
                message[at] = odd;
                read_all(&message);
            }
            message[at] = whole;
        }
        (rest, count) = (behind, count + 1);
    }
    assert!(count > 20);
}

#[test]
fn no_place_is_too_odd_to_be_named() {
    let changes = all_kinds();
    let batch = Batch::of(&changes, u32::MAX - 5);
    let parts: BTreeSet<String> = (0..40)
        .flat_map(|number| (0..2000).map(move |offset| (number, offset)))
        .filter_map(|(number, offset)| batch.part(batch.first().wrapping_add(number), offset, &changes))
        .collect();
    for part in
        ["flock1", "10.0.0.1 . 6 . 80", "10.0.0.2", "rule 1, expression 1 (ct)", "rule 1, expression 17 (immediate)"]
    {
        assert!(parts.contains(part), "{part}: {parts:?}");
    }
    assert_eq!(batch.part(7, usize::MAX, &changes), None);
}

/// A connection whose other side is not the kernel but the test.
fn scripted() -> (Nftables, Socket) {
    let (socket, port, kernel) = pair();
    (Nftables::of(socket, port), kernel)
}

/// A socket with its port, and the one at its other side.
fn pair() -> (Socket, u32, Socket) {
    let open = || {
        let mut socket = Socket::new(NETLINK_USERSOCK).expect("a socket");
        let address = socket.bind_auto().expect("bound");
        (socket, address)
    };
    let ((kernel, kernel_address), (socket, address)): ((Socket, SocketAddr), _) = (open(), open());
    socket.connect(&kernel_address).expect("connected");
    kernel.connect(&address).expect("connected");
    (socket, address.port_number(), kernel)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// An answer with a number, and with attributes behind the header of the request.
fn says(kernel: &Socket, kind: u16, flags: u16, sequence: u32, code: i32, fill: impl FnOnce(&mut Writer)) {
    let mut bytes = vec![0; 4];
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(code.to_ne_bytes());
    if kind == NLMSG_ERROR {
        bytes.extend([0; HEADER]);
    }
    let mut attributes = Writer(bytes);
    fill(&mut attributes);
    let mut bytes = attributes.0;
    let length = u32::try_from(bytes.len()).expect("short").to_ne_bytes();
    bytes[..4].copy_from_slice(&length);
    assert_eq!(kernel.send(&bytes, 0).expect("sent"), bytes.len());
}

/// Two changes: messages with the sequence numbers 2 and 3 in the first batch, 6 and 7 in the second.
fn changes() -> [Change; 2] {
    [Change::AddTable(INET), Change::AddChain(INET, "in".into(), None)]
}

const NOENT: i32 = -2;
const INTR: i32 = -4;
const AGAIN: i32 = -11;
const NOMEM: i32 = -12;
const OPNOTSUPP: i32 = -95;

#[test]
fn a_batch_that_the_kernel_could_not_take_now_is_sent_again() {
    for code in [AGAIN, INTR] {
        let (mut nft, kernel) = scripted();
        says(&kernel, NLMSG_ERROR, 0, 2, code, |_| {});
        says(&kernel, NLMSG_ERROR, 0, 3, 0, |_| {});
        says(&kernel, NLMSG_ERROR, 0, 7, 0, |_| {});
        nft.apply(&changes(), soon()).expect("the second time");
    }
}

#[test]
fn the_first_refused_change_is_told_in_the_kernel_s_words_though_the_last_one_was_acknowledged() {
    let (mut nft, kernel) = scripted();
    says(&kernel, NLMSG_ERROR, NLM_F_ACK_TLVS, 2, NOENT, |to| to.put_text(NLMSGERR_ATTR_MSG, "no such thing"));
    says(&kernel, NLMSG_ERROR, 0, 3, 0, |_| {});
    let error = nft.apply(&changes(), soon()).expect_err("refused");
    assert_eq!(error.to_string(), "add table inet flock: No such file or directory (os error 2): no such thing");
    assert!(error.is_gone());
}

#[test]
fn a_batch_that_fails_as_a_whole_is_told_as_one() {
    let (mut nft, kernel) = scripted();
    says(&kernel, NLMSG_ERROR, 0, 1, NOMEM, |_| {});
    let error = nft.apply(&changes(), soon()).expect_err("refused");
    assert_eq!(error.to_string(), "add table inet flock and 1 changes more: Cannot allocate memory (os error 12)");
    assert!(error.is_transient());
}

#[test]
fn a_kernel_without_nf_tables_is_told_with_the_remedy() {
    let (mut nft, kernel) = scripted();
    says(&kernel, NLMSG_ERROR, 0, 1, OPNOTSUPP, |_| {});
    let error = nft.apply(&changes(), soon()).expect_err("refused");
    assert!(error.to_string().ends_with(": this kernel lacks nf_tables: modprobe nf_tables"), "{error}");
    assert!(error.is_absent() && !error.is_transient());
    says(&kernel, NLMSG_ERROR, 0, 5, -22, |_| {});
    assert!(nft.generation(soon()).expect_err("refused").is_absent());
    says(&kernel, NLMSG_ERROR, 0, 6, -22, |_| {});
    assert!(nft.read(INET, soon()).expect_err("refused").is_absent());
}

#[test]
fn a_batch_that_is_larger_than_this_process_may_send_is_told_with_the_remedy() {
    let (socket, port, _kernel) = pair();
    sockopt::set_socket_send_buffer_size(&socket, 5000).expect("set");
    let mut nft = Nftables::of(socket, port);
    let many: Vec<Change> = (0..500).map(|n| Change::AddChain(INET, format!("chain-{n}"), None)).collect();
    let error = nft.apply(&many, soon()).expect_err("too large");
    assert!(matches!(error.cause, Cause::TooLarge(bytes) if bytes > 20_000), "{error}");
    assert!(error.to_string().contains("CAP_NET_ADMIN") && !error.is_transient(), "{error}");
}

#[test]
fn a_late_answer_is_never_taken_for_the_answer_to_the_next_batch() {
    let (mut nft, kernel) = scripted();
    let error = nft.apply(&changes(), Instant::now() + Duration::from_millis(20)).expect_err("nobody answers");
    assert!(matches!(error.cause, Cause::Late) && error.is_transient(), "{error}");
    says(&kernel, NLMSG_ERROR, 0, 2, NOENT, |_| {});
    says(&kernel, NLMSG_ERROR, 0, 3, 0, |_| {});
    says(&kernel, NLMSG_ERROR, 0, 7, 0, |_| {});
    nft.apply(&changes(), soon()).expect("carried out");
    assert!(matches!(nft.apply(&changes(), Instant::now()).expect_err("late").cause, Cause::Late));
}

#[test]
fn a_list_that_changed_while_it_was_sent_is_asked_for_again_up_to_the_deadline() {
    let (mut nft, kernel) = scripted();
    says(&kernel, NLMSG_DONE, NLM_F_DUMP_INTR, 1, 0, |_| {});
    says(&kernel, NLMSG_DONE, 0, 2, INTR, |_| {});
    says(&kernel, NLMSG_DONE, 0, 3, 0, |_| {});
    assert_eq!(nft.rule_counts(INET, "in", soon()).expect("the third one is whole"), []);
    says(&kernel, NLMSG_DONE, 0, 4, NOMEM, |_| {});
    let error = nft.rule_counts(INET, "in", soon()).expect_err("out of memory").to_string();
    assert_eq!(error, "read what chain in of table inet flock counts: Cannot allocate memory (os error 12)");
    says(&kernel, NLMSG_ERROR, 0, 5, -4096, |_| {});
    let error = nft.rule_counts(INET, "in", soon()).expect_err("odd").to_string();
    assert!(error.ends_with("the kernel's answer could not be read: an error number of -4096"), "{error}");
}

#[test]
fn what_is_heard_of_a_table_is_told_once_and_only_of_others() {
    let changes = all_kinds();
    let batch = Batch::of(&changes, 1);
    assert_eq!(heard(batch.bytes(), &[7], &[ARP, INET]), [Heard::Changed(INET)]);
    assert_eq!(heard(batch.bytes(), &[7], &[ARP]), []);
    // The port of who sends is 0 in what is sent.
    assert_eq!(heard(batch.bytes(), &[7, 0], &[ARP, INET]), []);
    assert_eq!(heard(&batch.bytes()[..50], &[7, 0], &[ARP, INET]), [Heard::Lost]);
}
