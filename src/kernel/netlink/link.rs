//! Links: make a veth pair in place, find one, remove one.
//!
//! Owns how the kernel shows a link. Must not know leases, nor which of two links is whose.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::thread;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};

use super::conn::{Conn, Request};
use super::message::{Attributes, Object, number, text, u32_at};
use super::uapi::{
    AF_INET, AF_INET6, IF_OPER_UP, IFF_LOOPBACK, IFF_LOWER_UP, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_IFALIAS,
    IFLA_IFNAME, IFLA_INET_CONF, IFLA_INET6_CONF, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO, IFLA_MTU, IFLA_OPERSTATE,
    LINK_SIZE, RTM_NEWLINK,
};
use super::{Cause, NetlinkError};
use crate::process::failpoint;
use model::addr::{IfName, Mac};
use model::plan::Wiring;

/// Wait between two questions whether a link is operational, 1 ms.
const OPERATIONAL_INTERVAL: Duration = Duration::from_millis(1);

/// What the kernel says about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name. Bytes that are no text are shown as such, here and in the alias.
    pub name: String,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// The text beside it.
    pub alias: Option<String>,
    /// Administratively up.
    pub up: bool,
    /// Up, and so is the other end.
    pub carrier: bool,
    /// The kernel has taken note of the carrier: only from here on the link sends what it is given.
    pub operational: bool,
    /// One end of a veth pair.
    pub veth: bool,
    /// Index of the other end, in the other end's namespace.
    pub peer: Option<u32>,
    /// It leads back to the host itself.
    pub loopback: bool,
    /// Its IPv4 settings, in the kernel's order; empty without IPv4.
    pub settings4: Vec<i32>,
    /// Its IPv6 settings, in the kernel's order; empty without IPv6.
    pub settings6: Vec<i32>,
}

/// A new pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Index of the host end.
    pub host: u32,
    /// Index of the pod end, in the pod's namespace.
    pub pod: u32,
    /// The IPv6 settings that the host end was born with, in the kernel's order.
    pub settings6: Vec<i32>,
}

impl Conn {
    /// Makes the pair of `wiring` in one request: the peer is born in `netns` under its final name. Moving a link would
    /// cost 14 ms of waiting in the kernel, renaming one can fail. When the kernel refuses it, nothing was made.
    ///
    /// # Errors
    /// `is_exists` when either name is taken. When the answer is lost, or cannot be had, the pair may stand.
    pub fn create_pair(&mut self, wiring: &Wiring, netns: BorrowedFd<'_>) -> Result<Pair, NetlinkError> {
        let mut request = pair_request(wiring, netns.as_raw_fd());
        // A test that fails this point hears of the new link as little as on a kernel that does not know the flag.
        if failpoint::pass("netlink.echo").is_err() {
            request.flags &= !NLM_F_ECHO;
        }
        let what = request.what.clone();
        let answers = self.run(request).map_err(|error| match error.is_unsupported() {
            true => NetlinkError { cause: Cause::NoVeth, ..error },
            false => error,
        })?;
        let made = match answers.iter().find_map(as_link) {
            // Before Linux 6.2 the kernel ignores NLM_F_ECHO for links: it acknowledges, and shows nothing.
            None => self.link_named(wiring.host_link.as_str())?,
            echoed => echoed,
        };
        let pair = made.filter(|link| link.mac == Some(wiring.host_mac));
        match pair.map(|link| (link.index, link.peer, link.settings6)) {
            Some((host, Some(pod), settings6)) => Ok(Pair { host, pod, settings6 }),
            // Whoever makes the link is alone with its name, so it can only have gone, and with it the pod's namespace.
            _ => Err(NetlinkError { what, cause: Cause::Garbled("the new link is not there".into()) }),
        }
    }

    /// Whether this kernel can make pairs of links. It is asked for one that it cannot make, which has it load the module where
    /// it can, as the first pod would.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn knows_veth(&mut self) -> Result<bool, NetlinkError> {
        let mut link = LinkMessage::default();
        // Whoever knows the kind refuses this address, which no link can have; whoever does not refuses the kind.
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        link.attributes = vec![LinkAttribute::Address(vec![0; 6]), kind];
        let message = RouteNetlinkMessage::NewLink(link);
        let what = "ask for veth".to_owned();
        match self.run(Request { message, flags: NLM_F_CREATE | NLM_F_EXCL, what }) {
            Err(error) if error.is_unsupported() => Ok(false),
            Err(error) if error.is_refused_value() => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }

    /// The link of this name, or none.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn link_named(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut message = without_counters();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        self.one_link(message, format!("look up link {name}"))
    }

    /// The link of this index, or none.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn link_at(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let mut message = without_counters();
        message.header.index = index;
        self.one_link(message, format!("look up link {index}"))
    }

    fn one_link(&mut self, message: LinkMessage, what: String) -> Result<Option<Link>, NetlinkError> {
        let asked = what.clone();
        match self.run(Request { message: RouteNetlinkMessage::GetLink(message), flags: 0, what }) {
            // Acknowledged, so there is one, and it could not be read. That is no answer: only "no such device" says none.
            Ok(answers) => match answers.iter().find_map(as_link) {
                None => Err(NetlinkError { what: asked, cause: Cause::Garbled("the link cannot be read".into()) }),
                found => Ok(found),
            },
            Err(error) if error.is_no_device() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the link sends what it is given. An end that was up before the other one drops every packet until the
    /// kernel has worked off the news of its carrier: mostly microseconds, but up to a second on a host where many links
    /// come and go. Since Linux 6.8 the question alone makes it do so; before, it has to be asked again.
    ///
    /// # Errors
    /// The link has gone or does not send by the deadline, or somebody has taken one of its ends down: it would not send
    /// however long one waits.
    pub fn wait_until_operational(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        let mut message = without_counters();
        message.header.index = index;
        loop {
            let what = format!("wait until link {name} sends");
            let asked = what.clone();
            failpoint::pass("link.operational").ok();
            let request = Request { message: RouteNetlinkMessage::GetLink(message.clone()), flags: 0, what };
            match self.run(request)?.iter().find_map(as_link) {
                Some(link) if link.operational => return Ok(()),
                Some(link) if !link.up => return Err(NetlinkError { what: asked, cause: Cause::Altered("it") }),
                // The carrier is the other end being up, which the kernel tells at once.
                Some(link) if !link.carrier => {
                    return Err(NetlinkError { what: asked, cause: Cause::Altered("its other end, in the pod,") });
                }
                _ => thread::sleep(OPERATIONAL_INTERVAL),
            }
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.dump(RouteNetlinkMessage::GetLink(without_counters()), "list links")?;
        Ok(answers.iter().filter_map(as_link).collect())
    }

    /// All ends of pairs in the namespace, which is where links of pods are. The kernel leaves the others out.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn pairs(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = without_counters();
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]));
        let answers = self.dump(RouteNetlinkMessage::GetLink(message), "list links of pods")?;
        // Where no link of the kind was ever made, the kernel does not know it yet and shows all.
        Ok(answers.iter().filter_map(as_link).filter(|link| link.veth).collect())
    }

    /// Removes a link, and with it its peer, its addresses, routes and neighbours. A link that is gone counts as removed.
    ///
    /// The call returns only after the kernel's grace periods, some 20 ms after the link has left the namespace:
    /// [`super::removal`] tells the earlier moment.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let what = format!("delete link {index}");
        match self.run(Request { message: RouteNetlinkMessage::DelLink(message), flags: 0, what }) {
            Err(error) if !error.is_no_device() => Err(error),
            _ => Ok(()),
        }
    }
}

/// A question about links. Their counters, which are summed up over all processors and are half of the answer, are left out.
fn without_counters() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

fn pair_request(wiring: &Wiring, netns: RawFd) -> Request {
    let end = |name: &IfName, mac: Mac| {
        vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::Mtu(wiring.mtu),
            // One queue per end: the default is one per CPU, each with its own objects in sysfs.
            LinkAttribute::NumTxQueues(1),
            LinkAttribute::NumRxQueues(1),
        ]
    };
    let mut peer = LinkMessage::default();
    peer.attributes = end(&wiring.ifname, wiring.pod_mac);
    peer.attributes.push(LinkAttribute::NetNsFd(netns));
    let mut link = LinkMessage::default();
    link.attributes = end(&wiring.host_link, wiring.host_mac);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request {
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO,
        what: format!("create link {} with peer {}", wiring.host_link, wiring.ifname),
    }
}

/// The link that an object is, if it is one. Of its attributes only those that flock needs are looked at, and one of them
/// that is not as it should be counts as absent.
pub(super) fn as_link(object: &Object) -> Option<Link> {
    let header = object.of::<LINK_SIZE>(RTM_NEWLINK)?;
    let flags = u32_at(header, 8)?;
    let mut link = Link {
        index: u32_at(header, 4)?,
        name: String::new(),
        mac: None,
        mtu: 0,
        alias: None,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        operational: false,
        veth: false,
        peer: None,
        loopback: flags & IFF_LOOPBACK != 0,
        settings4: Vec::new(),
        settings6: Vec::new(),
    };
    for (attribute, value) in object.attributes(LINK_SIZE) {
        match attribute {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_OPERSTATE => link.operational = value == [IF_OPER_UP],
            IFLA_LINK => link.peer = number(value),
            IFLA_AF_SPEC => {
                for (family, value) in Attributes::nested(value) {
                    match family {
                        _ if family == u16::from(AF_INET) => link.settings4 = settings(value, IFLA_INET_CONF),
                        _ if family == u16::from(AF_INET6) => link.settings6 = settings(value, IFLA_INET6_CONF),
                        _ => {}
                    }
                }
            }
            IFLA_LINKINFO => {
                let mut infos = Attributes::nested(value);
                link.veth = infos.any(|(info, value)| info == IFLA_INFO_KIND && text(value) == "veth");
            }
            _ => {}
        }
    }
    Some(link)
}

/// The settings of one family: whole numbers, one after the other.
fn settings(family: &[u8], attribute: u16) -> Vec<i32> {
    let found = Attributes::nested(family).find(|(number, _)| *number == attribute);
    let (numbers, _) = found.map(|(_, value)| value.as_chunks::<4>()).unwrap_or_default();
    numbers.iter().map(|number| i32::from_ne_bytes(*number)).collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;

    use super::super::message::attribute;
    use super::super::message::tests::{ODD, object};
    use super::*;

    /// A link as the kernel shows it, with `odd` before and behind the attributes that flock reads.
    fn shown(odd: &[u8]) -> Option<Link> {
        let header = [&[0; 4][..], &7u32.to_ne_bytes(), &(IFF_UP | IFF_LOWER_UP).to_ne_bytes(), &[0; 4]].concat();
        let known = [
            attribute(IFLA_IFNAME, b"flock12\0"),
            attribute(IFLA_ADDRESS, &[2, 1, 2, 3, 4, 5]),
            attribute(IFLA_MTU, &1437u32.to_ne_bytes()),
            attribute(IFLA_OPERSTATE, &[IF_OPER_UP]),
            attribute(IFLA_LINK, &9u32.to_ne_bytes()),
            attribute(IFLA_IFALIAS, b"flock:a/eth0\0"),
            attribute(IFLA_LINKINFO | 0x8000, &attribute(IFLA_INFO_KIND, b"veth\0")),
        ];
        as_link(&object(RTM_NEWLINK, &[&header, odd, &known.concat(), odd]))
    }

    #[test]
    fn no_attribute_that_flock_does_not_need_hides_a_link() {
        let plain = shown(&[]).expect("a link");
        assert_eq!(
            (plain.name.as_str(), plain.peer, plain.alias.as_deref()),
            ("flock12", Some(9), Some("flock:a/eth0"))
        );
        assert!(
            plain.veth && plain.operational && plain.up && plain.carrier && plain.mtu == 1437 && plain.mac.is_some()
        );
        let needed = [IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS];
        for number in (0..0x4000).filter(|number| !needed.contains(number)) {
            for value in ODD {
                assert_eq!(shown(&attribute(number, value)).as_ref(), Some(&plain), "{number}: {value:?}");
            }
        }
    }

    #[test]
    fn an_attribute_that_flock_needs_and_that_is_odd_counts_as_absent() {
        for number in [IFLA_ADDRESS, IFLA_MTU, IFLA_LINK, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_IFNAME] {
            for value in ODD {
                assert_eq!(shown(&attribute(number, value)).map(|link| link.index), Some(7), "{number}: {value:?}");
            }
        }
        let odd = shown(&attribute(IFLA_ADDRESS, &[0; 20])).expect("a link");
        assert_eq!(odd.mac, None, "an address of InfiniBand");
        // The kernel takes any bytes for an alias.
        let odd = shown(&attribute(IFLA_IFALIAS, b"caf\xe9")).expect("a link");
        assert_eq!(odd.alias.as_deref(), Some("caf\u{fffd}"));
    }

    // covers: FM-B02
    #[test]
    #[cfg(target_endian = "little")]
    fn the_request_for_a_pair_is_encoded_as_the_kernel_reads_it() {
        let wiring = Wiring {
            host_link: "flock12".parse().expect("a name"),
            host_mac: Mac([2, 0x11, 0x12, 0x13, 0x14, 0x15]),
            ifname: "eth0".parse().expect("a name"),
            pod_mac: Mac([2, 0x21, 0x22, 0x23, 0x24, 0x25]),
            mtu: 1500,
            host: Vec::new(),
            pod: Vec::new(),
        };
        let request = pair_request(&wiring, 9);
        let mut bytes = vec![0; request.message.buffer_len()];
        request.message.emit(&mut bytes);
        // In words of four bytes as they stand in memory.
        let words: &[u32] = &[
            0,           // AF_UNSPEC, no device type
            0,           // no index: the kernel chooses one
            0,           // no flags: down until it is complete
            0,           // and none changed
            0x0c00_0300, // IFLA_IFNAME, 12 bytes
            0x666c_6f63, // "floc"
            0x6b31_3200, // "k12"
            0x0a00_0100, // IFLA_ADDRESS, 10 bytes and padding
            0x0211_1213,
            0x1415_0000,
            0x0800_0400, // IFLA_MTU, 8 bytes
            0xdc05_0000,
            0x0800_1f00, // IFLA_NUM_TX_QUEUES
            0x0100_0000,
            0x0800_2000, // IFLA_NUM_RX_QUEUES
            0x0100_0000,
            0x6000_1200, // IFLA_LINKINFO, 96 bytes
            0x0900_0100, // IFLA_INFO_KIND, 9 bytes and padding
            0x7665_7468, // "veth"
            0,
            0x5000_0200, // IFLA_INFO_DATA, 80 bytes
            0x4c00_0100, // VETH_INFO_PEER, 76 bytes: a whole link message in it
            0,           // AF_UNSPEC
            0,           // no index
            0,           // no flags
            0,
            0x0900_0300, // IFLA_IFNAME, 9 bytes and padding
            0x6574_6830, // "eth0"
            0,
            0x0a00_0100, // IFLA_ADDRESS
            0x0221_2223,
            0x2425_0000,
            0x0800_0400, // IFLA_MTU
            0xdc05_0000,
            0x0800_1f00, // IFLA_NUM_TX_QUEUES
            0x0100_0000,
            0x0800_2000, // IFLA_NUM_RX_QUEUES
            0x0100_0000,
            0x0800_1c00, // IFLA_NET_NS_FD: born there
            0x0900_0000,
        ];
        let expected: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(request.message.message_type(), 16); // RTM_NEWLINK
        assert_eq!(request.flags, 0x400 | 0x200 | 0x8); // create, exclusively, and tell what was made
        assert_eq!(bytes, expected);
    }
}
