//! The kernel's packet filter, by raw nfnetlink: tables of `model::ruleset` are written as one batch, read back and compared.
//!
//! Owns every nftables type of the process: `expr` and `form` put into the kernel's words what the model says, `batch` makes
//! messages of changes, `socket` carries them, `apply` and `read` are the verbs, `shown` compares, `changes` listens;
//! `foreign` reads the tables of others. Must not decide what a table should hold, and must not touch a table that it is not
//! told to.

pub mod apply;
mod batch;
pub mod changes;
mod expr;
pub mod foreign;
mod foreign_set;
mod form;
pub mod read;
mod registers;
pub mod shown;
pub mod socket;
mod uapi;
mod wire;

use std::fmt;
use std::io;

use rustix::io::Errno;

/// What a rule or an element has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
}

/// A request about the packet filter that failed: what was asked, and the kernel's own reason.
#[derive(Debug)]
pub struct NftError {
    /// What was to be done, to which object of which table, as an operator would say it.
    pub what: String,
    /// Why it was not.
    pub cause: Cause,
}

/// The reason of an [`NftError`]. Whatever it is, a batch had no effect, but for [`Cause::Late`] and [`Cause::Lost`].
#[derive(Debug)]
pub enum Cause {
    /// The kernel refused.
    Kernel {
        /// The error number.
        errno: Errno,
        /// The kernel's own words, where it gave some (extended acknowledgement).
        text: Option<String>,
        /// Which part of the request it refused, where it said so.
        part: Option<String>,
    },
    /// This kernel has no nf_tables.
    Absent,
    /// The batch has this many bytes, which is more than this process may send at once.
    TooLarge(usize),
    /// The socket failed.
    Socket(io::Error),
    /// No answer by the deadline. The request may or may not have had effect.
    Late,
    /// Answers were lost. The request may or may not have had effect.
    Lost,
    /// The answer could not be read.
    Garbled(String),
    /// The tables changed each time that they were read, up to the deadline.
    Restless,
    /// It would have made anew what nobody knows; nothing was sent.
    Unknown,
    /// Somebody changes it again and again, so it is not put back each time.
    Contested,
}

impl NftError {
    fn errno(&self) -> Option<Errno> {
        match &self.cause {
            Cause::Kernel { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// This kernel has no nf_tables, and no repetition helps until somebody has loaded it.
    pub fn is_absent(&self) -> bool {
        matches!(self.cause, Cause::Absent)
    }

    /// Something that the request rests on, or was to remove, is not there. Of a rule it may be a form that this kernel does not
    /// know.
    pub fn is_gone(&self) -> bool {
        self.errno() == Some(Errno::NOENT)
    }

    /// Something that was to be made is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// The kernel does not let this process do it.
    pub fn is_denied(&self) -> bool {
        self.errno() == Some(Errno::PERM)
    }

    /// The same request may work in a moment. False where the request itself, or what is in the kernel, has to change first.
    pub fn is_transient(&self) -> bool {
        let errno = match &self.cause {
            Cause::Late | Cause::Lost | Cause::Restless | Cause::Contested => return true,
            Cause::Absent | Cause::TooLarge(_) | Cause::Garbled(_) | Cause::Unknown => return false,
            Cause::Kernel { errno, .. } => Some(*errno),
            Cause::Socket(error) => Errno::from_io_error(error),
        };
        matches!(errno, Some(Errno::INTR | Errno::AGAIN | Errno::NOMEM | Errno::NFILE | Errno::MFILE | Errno::NOBUFS))
    }
}

impl fmt::Display for NftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match &self.cause {
            Cause::Kernel { errno, text, part } => {
                part.as_ref().map_or(Ok(()), |part| write!(f, "{part}: "))?;
                write!(f, "{}", io::Error::from(*errno))?;
                text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
            }
            Cause::Absent => f.write_str("this kernel lacks nf_tables: modprobe nf_tables"),
            Cause::TooLarge(bytes) => write!(
                f,
                "{bytes} bytes are more than this process may send at once: it lacks CAP_NET_ADMIN on the host, or net.core.wmem_max is \
                 too small"
            ),
            Cause::Socket(error) => write!(f, "netlink socket: {error}"),
            Cause::Late => f.write_str("the kernel did not answer in time"),
            Cause::Lost => f.write_str("the kernel's answers were lost, as they were too many at once"),
            Cause::Garbled(why) => write!(f, "the kernel's answer could not be read: {why}"),
            Cause::Restless => f.write_str("the tables kept changing while they were read"),
            Cause::Unknown => f.write_str(
                "it is not such as this flock makes it, and stays as it is until all policies are known: wait for that, or remove the \
                 table by hand, which opens what it keeps closed",
            ),
            Cause::Contested => f.write_str(
                "somebody keeps changing flock's tables, so they are put back now and then only: `nft monitor` names the program",
            ),
        }
    }
}

impl std::error::Error for NftError {}

#[cfg(test)]
mod tests;
