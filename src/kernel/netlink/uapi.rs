//! The kernel's numbers, each under the name that it has in the kernel's headers: kinds of messages, attributes, flags, groups.
//!
//! The one table of them. Owns no reading and no meaning: who looks at an object knows what it wants of it.

// Messages that are not about an object (linux/netlink.h).
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_MIN_TYPE: u16 = 16;
/// Flag of an acknowledgement with attributes behind it.
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
/// Attribute of an extended acknowledgement that holds a text.
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
/// The bits of an attribute's type that are its number; the others say that it is nested, or in network byte order.
pub(super) const NLA_TYPE_MASK: u16 = 0x3fff;
/// The bit of an attribute's type that says that it is nested. Newer kinds of requests are refused without it.
pub(super) const NLA_F_NESTED: u16 = 0x8000;

// Families (linux/socket.h).
pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

// Links (linux/rtnetlink.h, linux/if_link.h, linux/if.h).
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
/// `sizeof(ifinfomsg)`, in bytes.
pub(super) const LINK_SIZE: usize = 16;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINK: u16 = 5;
pub(super) const IFLA_OPERSTATE: u16 = 16;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_IFALIAS: u16 = 20;
pub(super) const IFLA_AF_SPEC: u16 = 26;
/// Inside `IFLA_LINKINFO`.
pub(super) const IFLA_INFO_KIND: u16 = 1;
/// Inside the part of `IFLA_AF_SPEC` that is IPv4's.
pub(super) const IFLA_INET_CONF: u16 = 1;
/// Inside the part of `IFLA_AF_SPEC` that is IPv6's.
pub(super) const IFLA_INET6_CONF: u16 = 2;
pub(super) const IFF_UP: u32 = 1;
pub(super) const IFF_LOOPBACK: u32 = 1 << 3;
pub(super) const IFF_LOWER_UP: u32 = 1 << 16;
pub(super) const IF_OPER_UP: u8 = 6;

// Addresses (linux/if_addr.h).
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
/// `sizeof(ifaddrmsg)`, in bytes.
pub(super) const ADDRESS_SIZE: usize = 8;
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
pub(super) const IFA_FLAGS: u16 = 8;
/// A further IPv4 address of a network that the link has one of already; a temporary IPv6 address.
pub(super) const IFA_F_SECONDARY: u32 = 0x01;
pub(super) const IFA_F_OPTIMISTIC: u32 = 0x04;
pub(super) const IFA_F_DADFAILED: u32 = 0x08;
pub(super) const IFA_F_DEPRECATED: u32 = 0x20;
pub(super) const IFA_F_TENTATIVE: u32 = 0x40;

// Routes (linux/rtnetlink.h).
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
/// `sizeof(rtmsg)`, in bytes.
pub(super) const ROUTE_SIZE: usize = 12;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_MULTIPATH: u16 = 9;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const RTA_VIA: u16 = 18;
pub(super) const RTA_NH_ID: u16 = 30;
pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTN_LOCAL: u8 = 2;
pub(super) const RTN_BLACKHOLE: u8 = 6;
pub(super) const RTN_UNREACHABLE: u8 = 7;
pub(super) const RTN_PROHIBIT: u8 = 8;
pub(super) const RTPROT_BOOT: u8 = 3;
pub(super) const RTPROT_RA: u8 = 9;
pub(super) const RT_TABLE_LOCAL: u32 = 255;
/// The gateway is on the link because the route says so.
pub(super) const RTNH_F_ONLINK: u32 = 4;
/// A route that the kernel made for one destination out of another one.
pub(super) const RTM_F_CLONED: u32 = 0x200;

// Neighbours (linux/neighbour.h).
pub(super) const RTM_NEWNEIGH: u16 = 28;
/// `sizeof(ndmsg)`, in bytes.
pub(super) const NEIGHBOUR_SIZE: usize = 12;
pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
pub(super) const NDA_PROTOCOL: u16 = 12;
pub(super) const NTF_PROXY: u8 = 0x08;
pub(super) const NUD_REACHABLE: u16 = 0x02;
pub(super) const NUD_STALE: u16 = 0x04;
pub(super) const NUD_DELAY: u16 = 0x08;
pub(super) const NUD_PROBE: u16 = 0x10;
pub(super) const NUD_PERMANENT: u16 = 0x80;

// Settings, as they are announced (linux/netconf.h).
pub(super) const RTM_NEWNETCONF: u16 = 80;
/// `sizeof(netconfmsg)` with its padding, in bytes.
pub(super) const NETCONF_SIZE: usize = 4;
pub(super) const NETCONFA_IFINDEX: u16 = 1;
pub(super) const NETCONFA_FORWARDING: u16 = 2;
/// Stands for the host itself in place of a link.
pub(super) const NETCONFA_IFINDEX_ALL: u32 = -1i32 as u32;

// Nexthop objects, since Linux 5.3 (linux/nexthop.h).
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
pub(super) const RTM_GETNEXTHOP: u16 = 106;
/// `sizeof(nhmsg)`, in bytes.
pub(super) const NEXTHOP_SIZE: usize = 8;
pub(super) const NHA_ID: u16 = 1;
pub(super) const NHA_GROUP: u16 = 2;
pub(super) const NHA_GROUP_TYPE: u16 = 3;
pub(super) const NHA_OIF: u16 = 5;
pub(super) const NHA_GATEWAY: u16 = 6;
/// What makes a group resilient, since Linux 5.12; nested.
pub(super) const NHA_RES_GROUP: u16 = 12;
/// Inside `NHA_RES_GROUP`: two bytes.
pub(super) const NHA_RES_GROUP_BUCKETS: u16 = 1;
/// Inside `NHA_RES_GROUP`: four bytes, in hundredths of a second.
pub(super) const NHA_RES_GROUP_IDLE_TIMER: u16 = 2;
/// Inside `NHA_RES_GROUP`: four bytes, in hundredths of a second.
pub(super) const NHA_RES_GROUP_UNBALANCED_TIMER: u16 = 3;
pub(super) const NEXTHOP_GRP_TYPE_MPATH: u16 = 0;
pub(super) const NEXTHOP_GRP_TYPE_RES: u16 = 1;
/// Since Linux 5.12.
pub(super) const RTM_GETNEXTHOPBUCKET: u16 = 118;

// Multicast groups (linux/rtnetlink.h).
pub(super) const RTNLGRP_LINK: u32 = 1;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub(super) const RTNLGRP_IPV4_ROUTE: u32 = 7;
pub(super) const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub(super) const RTNLGRP_IPV6_ROUTE: u32 = 11;
pub(super) const RTNLGRP_IPV4_NETCONF: u32 = 24;
pub(super) const RTNLGRP_IPV6_NETCONF: u32 = 25;
/// Since Linux 5.3.
pub(super) const RTNLGRP_NEXTHOP: u32 = 32;
