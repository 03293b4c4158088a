//! Hears who changes the packet filter: the moment in which somebody else touches one of flock's tables.
//!
//! Owns a socket that only listens, and says that somebody should look. Must not decide what is wrong, nor keep any state.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::batch::family;
use super::uapi::*;
use super::wire::find;
use super::{Cause, NftError};
use crate::kernel::netlink::hearing::{Hearing, Unheard, rest};
use crate::kernel::netlink::message::{messages, text};
use model::ruleset::TableKey;

/// Room for announcements, each of which takes about a KiB of the kernel's: a batch of flock's own has thousands.
const ROOM: usize = 16 * 1024 * 1024;

/// Hears the changes of the packet filter of the namespace in which it was opened.
pub struct Listener {
    hearing: Hearing,
}

/// What is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Somebody else changed this table.
    Changed(TableKey),
    /// Announcements were lost: anything may have changed.
    Lost,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    /// Begins to listen, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The socket could not be made.
    pub fn open() -> Result<Listener, NftError> {
        let fail = |error: io::Error| {
            let absent = Errno::from_io_error(&error) == Some(Errno::PROTONOSUPPORT);
            let cause = if absent { Cause::Absent } else { Cause::Socket(error) };
            NftError { what: "listen for changes of the packet filter".into(), cause }
        };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(fail)?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, ROOM).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, ROOM).map_err(|error| fail(error.into()))?;
        }
        socket.bind_auto().map_err(fail)?;
        // Connected to the kernel, which then refuses what others send to this socket.
        socket.connect(&SocketAddr::new(0, 0)).map_err(fail)?;
        socket.add_membership(NFNLGRP_NFTABLES).map_err(fail)?;
        Ok(Listener { hearing: Hearing::new(socket, 64 * 1024, "nftables.change") })
    }

    /// Waits until somebody whose netlink port is not one of `own` has changed some of `tables`, or until announcements were lost.
    /// `None` when the socket is of no more use.
    pub fn wait(&mut self, own: &[u32], tables: &[TableKey]) -> Option<Vec<Heard>> {
        loop {
            let heard = match self.hearing.next(rest) {
                Ok(datagram) => heard(datagram, own, tables),
                Err(Unheard::Lost) => vec![Heard::Lost],
                Err(Unheard::Over) => return None,
            };
            if !heard.is_empty() {
                return Some(heard);
            }
        }
    }
}

/// What one datagram of announcements says to whoever has these ports and cares for these tables: each table once, in their order.
pub fn heard(datagram: &[u8], own: &[u32], tables: &[TableKey]) -> Vec<Heard> {
    // One that is not whole says nothing of what else it may have said.
    let Ok(messages) = messages(datagram) else { return vec![Heard::Lost] };
    let foreign = messages.iter().filter(|message| {
        message.kind >> 8 == NFNL_SUBSYS_NFTABLES && message.kind != NFT_MSG_NEWGEN && !own.contains(&message.port)
    });
    let touched: Vec<(u8, String)> = foreign
        .filter_map(|message| {
            // The first attribute of each kind of object is the name of its table.
            let name = find(message.body.get(NFGEN_SIZE..)?, NFTA_TABLE_NAME).map(text)?;
            Some((*message.body.first()?, name))
        })
        .collect();
    let concerned =
        tables.iter().filter(|key| touched.iter().any(|(of, name)| *of == family(**key) && name == key.name));
    concerned.copied().map(Heard::Changed).collect()
}
