//! What one datagram of the kernel says, in the words of this module.
//!
//! The same reading that a connection gives to its answers, without a socket: for a recording of a conversation with the
//! kernel, and for trying any bytes on it. Must not ask the kernel anything.

use super::Cause;
use super::link::{Link, as_link};
use super::message::{Outcome, messages, outcome};
use super::read::{Address, Neighbour, Route, as_address, as_permanent_neighbour, as_route};

/// One message of the kernel, as far as flock takes notice of it.
#[derive(Debug)]
pub enum Fact {
    /// A link.
    Link(Link),
    /// An address of a link.
    Address(Address),
    /// A route of the main table.
    Route(Route),
    /// A permanent neighbour.
    Neighbour(Neighbour),
    /// A request was carried out.
    Accepted,
    /// A request was refused.
    Refused(Cause),
    /// The end of a table.
    Done,
    /// Anything else.
    Other,
}

/// The facts in one datagram, in order.
///
/// # Errors
/// [`Cause::Garbled`]: it does not consist of whole messages.
pub fn facts(datagram: &[u8]) -> Result<Vec<Fact>, Cause> {
    let fact = |message| match outcome(message) {
        Outcome::Object(object) => None
            .or_else(|| as_link(&object).map(Fact::Link))
            .or_else(|| as_address(&object).map(Fact::Address))
            .or_else(|| as_route(&object).map(Fact::Route))
            .or_else(|| as_permanent_neighbour(&object).map(Fact::Neighbour))
            .unwrap_or(Fact::Other),
        Outcome::Accepted => Fact::Accepted,
        Outcome::Refused(cause) => Fact::Refused(cause),
        Outcome::Done => Fact::Done,
        Outcome::Nothing => Fact::Other,
    };
    Ok(messages(datagram)?.into_iter().map(fact).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, code: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(36u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]); // flags, sequence number, port
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]); // the header of the request
        bytes
    }

    #[test]
    fn no_error_number_is_too_odd_to_be_told() {
        for (code, told) in [(-16, 16), (16, 16), (i32::MIN, i32::MAX)] {
            for kind in [2, 3] {
                let facts = facts(&message(kind, code)).expect("a whole message");
                let [Fact::Refused(Cause::Kernel { errno, .. })] = facts.as_slice() else { panic!("{facts:?}") };
                assert_eq!(*errno, told, "kind {kind}");
            }
        }
    }
}
