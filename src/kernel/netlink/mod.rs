//! The kernel's routing tables and links, by raw rtnetlink.
//!
//! Owns every netlink type of the process: callers speak in terms of `addr` and `plan`. Each verb may be repeated. Must not
//! know leases, requests or threads of the agent, and must not change anything that does not bear flock's mark.

pub mod apply;
pub mod changes;
pub mod conn;
pub mod foreign;
pub(in crate::kernel) mod hearing;
pub mod link;
pub(in crate::kernel) mod message;
pub mod nexthop;
pub mod proxy;
pub mod read;
pub mod removal;
pub mod route;
mod uapi;

use std::fmt;
use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

/// Where a route leads: by which link, to which gateway.
pub type Hop = (Option<u32>, Option<IpAddr>);

/// A netlink request that failed: what was asked, and the kernel's own reason.
#[derive(Debug)]
pub struct NetlinkError {
    /// What was to be done, to what, as an operator would say it.
    pub what: String,
    /// Why it was not.
    pub cause: Cause,
}

/// The reason of a [`NetlinkError`].
#[derive(Debug)]
pub enum Cause {
    /// The kernel refused: its error number, and its text where it gave one (extended acknowledgement).
    Kernel {
        /// The error number.
        errno: Errno,
        /// The kernel's own words.
        text: Option<String>,
    },
    /// The kernel cannot make pairs of links.
    NoVeth,
    /// The socket failed.
    Socket(io::Error),
    /// No answer by the deadline. The request may or may not have had effect.
    Late,
    /// The answer could not be read.
    Garbled(String),
    /// A dump was interrupted by changes more often than is worth repeating.
    Interrupted,
    /// Somebody else has taken down or removed, in mid-work, what was just made; which part.
    Altered(&'static str),
    /// It was not tried: what it rests on was refused before.
    Unfounded,
    /// Another route stands in the place of the one that was to be made.
    Occupied {
        /// The protocol number that says whose it is.
        protocol: u8,
        /// Where it leads, each link and gateway; empty for one that leads nowhere.
        hops: Vec<Hop>,
    },
}

impl NetlinkError {
    /// What the kernel answered. A failure of the socket says nothing about the thing that was asked for, whatever its number.
    fn errno(&self) -> Option<Errno> {
        match &self.cause {
            Cause::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// There is no such link. Nothing else may count as that where a lease ends by it: its addresses would be given away
    /// while the link still carries them.
    pub fn is_no_device(&self) -> bool {
        self.errno() == Some(Errno::NODEV)
    }

    /// The thing to be removed or read is not there.
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::SRCH | Errno::NXIO | Errno::NODEV | Errno::ADDRNOTAVAIL))
    }

    /// The thing to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST) || matches!(self.cause, Cause::Occupied { .. })
    }

    /// The kernel does not let this process do it.
    pub fn is_denied(&self) -> bool {
        self.errno() == Some(Errno::PERM)
    }

    /// It may work in a moment: the kernel was busy, out of memory or descriptors, interrupted or late.
    pub fn is_transient(&self) -> bool {
        let errno = match &self.cause {
            Cause::Late | Cause::Interrupted => return true,
            Cause::Garbled(_) | Cause::Altered(_) | Cause::NoVeth | Cause::Unfounded | Cause::Occupied { .. } => {
                return false;
            }
            Cause::Kernel { errno, .. } => Some(*errno),
            Cause::Socket(error) => Errno::from_io_error(error),
        };
        matches!(
            errno,
            Some(Errno::INTR | Errno::AGAIN | Errno::NOMEM | Errno::BUSY | Errno::NFILE | Errno::MFILE | Errno::NOBUFS)
        )
    }

    /// IPv6 is switched off for the link that was to have an address or a route of it.
    pub fn is_switched_off(&self) -> bool {
        self.errno() == Some(Errno::ACCESS)
    }

    /// A value in the request cannot be.
    fn is_refused_value(&self) -> bool {
        matches!(self.errno(), Some(Errno::INVAL | Errno::ADDRNOTAVAIL))
    }

    /// This kernel, as it was started, does not know the thing at all (IPv6 switched off, for one).
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT))
    }
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match &self.cause {
            Cause::Kernel { errno, text } => {
                write!(f, "{}", io::Error::from(*errno))?;
                text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
            }
            Cause::NoVeth => f.write_str("this kernel lacks veth: modprobe veth"),
            Cause::Socket(error) => write!(f, "netlink socket: {error}"),
            Cause::Late => f.write_str("the kernel did not answer in time"),
            Cause::Garbled(why) => write!(f, "the kernel's answer could not be read: {why}"),
            Cause::Altered(part) => write!(f, "{part} was taken down or changed by somebody else meanwhile"),
            Cause::Unfounded => f.write_str("not tried, since what it rests on was refused"),
            Cause::Interrupted => f.write_str("the table kept changing while it was read"),
            Cause::Occupied { protocol, hops } => {
                write!(f, "proto {protocol} leads it")?;
                match hops[..] {
                    [] => f.write_str(" unreachable"),
                    _ => hops.iter().try_for_each(|(link, via)| {
                        via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
                        link.map_or(Ok(()), |link| write!(f, " by link {link}"))
                    }),
                }
            }
        }
    }
}

impl std::error::Error for NetlinkError {}
