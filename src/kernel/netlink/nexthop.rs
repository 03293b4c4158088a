//! Nexthop objects and groups of them (`ip nexthop`) that bear flock's mark: how they are asked for and how they are shown.
//!
//! Owns their encoding, since the packet crate does not know them. Must not decide which of them there should be, and must not
//! touch one without the mark: a number says nothing of whose it is.

use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::conn::{Conn, Encoded};
use super::message::{Object, address, attribute, number};
use super::uapi::{
    AF_INET, AF_INET6, AF_UNSPEC, NEXTHOP_GRP_TYPE_MPATH, NEXTHOP_GRP_TYPE_RES, NEXTHOP_SIZE, NHA_GATEWAY, NHA_GROUP,
    NHA_GROUP_TYPE, NHA_ID, NHA_OIF, NHA_RES_GROUP, NHA_RES_GROUP_BUCKETS, NHA_RES_GROUP_IDLE_TIMER,
    NHA_RES_GROUP_UNBALANCED_TIMER, NLA_F_NESTED, RTM_DELNEXTHOP, RTM_GETNEXTHOP, RTM_GETNEXTHOPBUCKET, RTM_NEWNEXTHOP,
    RTNH_F_ONLINK,
};
use super::{Cause, NetlinkError};
use model::plan::ROUTE_PROTOCOL;
use model::routes::anycast::Support;
use model::routes::{Group, Nexthop, Routes};
use rustix::io::Errno;

/// Into how many parts a resilient group divides the flows. A weight of 1 among 127 is one part.
const BUCKETS: u16 = 128;

/// How long a part must have been without a packet before it may go to another member, in hundredths of a second.
const IDLE_TIMER: u32 = 200;

/// A part that is busy never goes to another member for the sake of balance.
const UNBALANCED_TIMER: u32 = 0;

/// What stands under a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Hop(Nexthop),
    Group(Group),
}

/// Whose the object under a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Nobody,
    Flock,
    /// Somebody with this protocol number.
    Other(u8),
}

impl Conn {
    /// What this kernel knows of nexthop objects. The questions have no right answer, so nothing is listed and nothing changed:
    /// a kernel that knows what they are about says that there is no object of number 0.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn nexthop_support(&mut self) -> Result<Support, NetlinkError> {
        for (kind, without) in [(RTM_GETNEXTHOP, Support::Absent), (RTM_GETNEXTHOPBUCKET, Support::Plain)] {
            match self.run(question(kind, 0, "ask for nexthop objects".into())) {
                Err(error) if error.is_unsupported() => return Ok(without),
                Err(error) if error.is_refused_value() || error.is_gone() => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(Support::Resilient)
    }

    /// Adds the objects and groups with flock's mark; none on a kernel without them.
    pub(super) fn shown_nexthops(&mut self, routes: &mut Routes) -> Result<(), NetlinkError> {
        let shown = match self.dump_kind(RTM_GETNEXTHOP, &[0; NEXTHOP_SIZE], "list nexthop objects") {
            Err(error) if error.is_unsupported() => return Ok(()),
            other => other?,
        };
        for object in &shown {
            match as_nexthop(object) {
                Some((id, ROUTE_PROTOCOL, Content::Hop(nexthop))) => {
                    routes.nexthops.insert(id, nexthop);
                }
                Some((id, ROUTE_PROTOCOL, Content::Group(group))) => {
                    routes.groups.insert(id, group);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn nexthop_owner(&mut self, id: u32) -> Result<Owner, NetlinkError> {
        match self.run(question(RTM_GETNEXTHOP, id, format!("look up nexthop {id}"))) {
            Err(error) if error.is_gone() => Ok(Owner::Nobody),
            other => other?
                .iter()
                .find_map(as_nexthop)
                .map(|(_, protocol, _)| if protocol == ROUTE_PROTOCOL { Owner::Flock } else { Owner::Other(protocol) })
                .ok_or(NetlinkError {
                    what: format!("look up nexthop {id}"),
                    cause: Cause::Garbled("the nexthop cannot be read".into()),
                }),
        }
    }
}

/// The flags of a request to make what nobody has, or to give other content to what is flock's.
pub(super) fn put_flags(replace: bool) -> u16 {
    NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL }
}

pub(super) fn put_nexthop(id: u32, nexthop: Nexthop, replace: bool, what: String) -> Encoded {
    let (family, via) = match nexthop.via {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let body = [
        header(family, ROUTE_PROTOCOL, RTNH_F_ONLINK),
        attribute(NHA_ID, &id.to_ne_bytes()),
        attribute(NHA_OIF, &nexthop.link.to_ne_bytes()),
        attribute(NHA_GATEWAY, &via),
    ];
    Encoded { kind: RTM_NEWNEXTHOP, body: body.concat(), flags: put_flags(replace), what }
}

pub(super) fn put_group(id: u32, group: &Group, replace: bool, what: String) -> Encoded {
    // `nexthop_grp`: a number, a weight less one, and three bytes that are left free.
    let entry = |(id, weight): &(u32, u8)| {
        let [a, b, c, d] = id.to_ne_bytes();
        [a, b, c, d, weight.saturating_sub(1), 0, 0, 0]
    };
    let members: Vec<u8> = group.members.iter().flat_map(entry).collect();
    let kind = if group.resilient { NEXTHOP_GRP_TYPE_RES } else { NEXTHOP_GRP_TYPE_MPATH };
    let mut body = [
        header(AF_UNSPEC, ROUTE_PROTOCOL, 0),
        attribute(NHA_ID, &id.to_ne_bytes()),
        attribute(NHA_GROUP, &members),
        attribute(NHA_GROUP_TYPE, &kind.to_ne_bytes()),
    ]
    .concat();
    if group.resilient {
        let settings = [
            attribute(NHA_RES_GROUP_BUCKETS, &BUCKETS.to_ne_bytes()),
            attribute(NHA_RES_GROUP_IDLE_TIMER, &IDLE_TIMER.to_ne_bytes()),
            attribute(NHA_RES_GROUP_UNBALANCED_TIMER, &UNBALANCED_TIMER.to_ne_bytes()),
        ];
        body.extend(attribute(NHA_RES_GROUP | NLA_F_NESTED, &settings.concat()));
    }
    Encoded { kind: RTM_NEWNEXTHOP, body, flags: put_flags(replace), what }
}

/// Removes an object or a group. The kernel takes its routes and its places in groups along.
pub(super) fn delete_nexthop(id: u32, what: String) -> Encoded {
    question(RTM_DELNEXTHOP, id, what)
}

/// A request that names a number and nothing else.
fn question(kind: u16, id: u32, what: String) -> Encoded {
    let body = [header(AF_UNSPEC, 0, 0), attribute(NHA_ID, &id.to_ne_bytes())].concat();
    Encoded { kind, body, flags: 0, what }
}

/// `nhmsg`: family, scope, protocol, a free byte, flags.
fn header(family: u8, protocol: u8, flags: u32) -> Vec<u8> {
    [&[family, 0, protocol, 0][..], &flags.to_ne_bytes()].concat()
}

/// The number, protocol and content of an object. One that leads nowhere or that only bridges use is none of flock's shapes: it
/// has link 0, which nothing can want, so with the mark on it, it goes.
pub(super) fn as_nexthop(object: &Object) -> Option<(u32, u8, Content)> {
    let &[family, _, protocol, ..] = object.of::<NEXTHOP_SIZE>(RTM_NEWNEXTHOP)?;
    let (mut id, mut link, mut via, mut members, mut kind) = (None, 0, None, Vec::new(), NEXTHOP_GRP_TYPE_MPATH);
    for (attribute, value) in object.attributes(NEXTHOP_SIZE) {
        match attribute {
            NHA_ID => id = number(value),
            NHA_OIF => link = number(value).unwrap_or_default(),
            NHA_GATEWAY => via = address(family, value),
            NHA_GROUP => members = value.as_chunks::<8>().0.iter().map(member).collect(),
            NHA_GROUP_TYPE => kind = value.try_into().map_or(NEXTHOP_GRP_TYPE_MPATH, u16::from_ne_bytes),
            _ => {}
        }
    }
    let content = if members.is_empty() {
        Content::Hop(Nexthop { via: via.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), link })
    } else {
        members.sort_unstable();
        Content::Group(Group { members, resilient: kind == NEXTHOP_GRP_TYPE_RES })
    };
    Some((id?, protocol, content))
}

/// The number and weight of a member. Weights of more than 255, which newer kernels know, are none of flock's.
fn member(entry: &[u8; 8]) -> (u32, u8) {
    let [a, b, c, d, weight, high, ..] = *entry;
    let weight = if high == 0 { weight.saturating_add(1) } else { u8::MAX };
    (u32::from_ne_bytes([a, b, c, d]), weight)
}

/// The refusal of a request under whose number somebody else has something.
pub(super) fn taken(what: String, protocol: u8) -> NetlinkError {
    let text = Some(format!("somebody else has that number (proto {protocol})"));
    NetlinkError { what, cause: Cause::Kernel { errno: Errno::EXIST, text } }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{ODD, object};
    use super::*;

    /// The message behind the netlink header, in words of four bytes as they stand in a little-endian machine's memory.
    #[track_caller]
    fn check(request: &Encoded, flags: u16, words: &[u32]) {
        let expected: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!((request.kind, request.flags), (RTM_NEWNEXTHOP, flags));
        assert_eq!(request.body, expected);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn objects_and_groups_are_encoded_as_the_kernel_reads_them() {
        const CREATE_REPLACE: u16 = 0x400 | 0x100;
        const CREATE_EXCL: u16 = 0x400 | 0x200;
        let via = "fe80::5".parse().expect("literal");
        check(
            &put_nexthop(9, Nexthop { via, link: 7 }, false, String::new()),
            CREATE_EXCL,
            &[
                0x0a00_6600, // AF_INET6, scope universe, protocol 102
                0x0400_0000, // RTNH_F_ONLINK
                0x0800_0100, // NHA_ID
                0x0900_0000,
                0x0800_0500, // NHA_OIF
                0x0700_0000,
                0x1400_0600, // NHA_GATEWAY, 20 bytes
                0xfe80_0000,
                0,
                0,
                5,
            ],
        );
        let members = vec![(9, 1), (10, 127)];
        let mut group = Group { members, resilient: true };
        let resilient = [
            0x0000_6600, // AF_UNSPEC, scope universe, protocol 102
            0,
            0x0800_0100, // NHA_ID
            0x0b00_0000,
            0x1400_0200, // NHA_GROUP, 20 bytes
            0x0900_0000,
            0, // weight 1
            0x0a00_0000,
            0x7e00_0000, // weight 127
            0x0600_0300, // NHA_GROUP_TYPE, 6 bytes and padding
            0x0100_0000, // resilient
            0x1c00_0c80, // NHA_RES_GROUP, nested, 28 bytes
            0x0600_0100, // NHA_RES_GROUP_BUCKETS, 6 bytes and padding
            0x8000_0000,
            0x0800_0200, // NHA_RES_GROUP_IDLE_TIMER
            0xc800_0000, // 2 s
            0x0800_0300, // NHA_RES_GROUP_UNBALANCED_TIMER
            0,           // never
        ];
        check(&put_group(11, &group, true, String::new()), CREATE_REPLACE, &resilient);
        group.resilient = false;
        let mut plain = resilient[..11].to_vec();
        plain[10] = 0; // of several paths
        check(&put_group(11, &group, false, String::new()), CREATE_EXCL, &plain);
    }

    #[test]
    fn no_attribute_that_flock_does_not_need_hides_an_object() {
        let header = [AF_INET6, 0, ROUTE_PROTOCOL, 0, 0, 0, 0, 0];
        let via: Ipv6Addr = "fe80::5".parse().expect("literal");
        let needed = [
            (NHA_ID, 9u32.to_ne_bytes().to_vec()),
            (NHA_OIF, 7u32.to_ne_bytes().to_vec()),
            (NHA_GATEWAY, via.octets().to_vec()),
        ];
        let known: Vec<u8> = needed.iter().flat_map(|(number, value)| attribute(*number, value)).collect();
        let expected = Some((9, ROUTE_PROTOCOL, Content::Hop(Nexthop { via: via.into(), link: 7 })));
        for odd_number in (0..64).filter(|odd| !needed.iter().any(|(number, _)| number == odd) && *odd != NHA_GROUP) {
            for value in ODD {
                let odd = attribute(odd_number, value);
                assert_eq!(
                    as_nexthop(&object(RTM_NEWNEXTHOP, &[&header, &odd, &known, &odd])),
                    expected,
                    "{odd_number}"
                );
            }
        }
        assert_eq!(as_nexthop(&object(RTM_NEWNEXTHOP, &[&header])), None, "without a number it is nothing");
    }

    #[test]
    fn an_object_that_is_marked_and_of_no_shape_of_flocks_is_nothing_that_could_be_wanted() {
        let header = [0, 0, ROUTE_PROTOCOL, 0, 0, 0, 0, 0];
        let blackhole = object(RTM_NEWNEXTHOP, &[&header, &attribute(NHA_ID, &9u32.to_ne_bytes()), &attribute(4, &[])]);
        let nowhere = Content::Hop(Nexthop { via: Ipv6Addr::UNSPECIFIED.into(), link: 0 });
        assert_eq!(as_nexthop(&blackhole), Some((9, ROUTE_PROTOCOL, nowhere)));
        // A weight of 257.
        assert_eq!(member(&[9, 0, 0, 0, 0, 1, 0, 0]).1, 255);
        assert_eq!(member(&[9, 0, 0, 0, 254, 0, 0, 0]).1, 255);
    }
}
