//! Numbers of the protocols above IP (`IPPROTO_*`, linux/in.h and linux/in6.h).
//!
//! Must not know who asks for them.

/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// TCP, one of the three that a policy can name.
pub const TCP: u8 = 6;
/// UDP, another one.
pub const UDP: u8 = 17;
/// ICMPv6 (RFC 4443).
pub const ICMP6: u8 = 58;
/// SCTP, the third.
pub const SCTP: u8 = 132;
