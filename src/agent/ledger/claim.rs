//! The right to work on one attachment, with what is recorded of it: all that changes a lease goes through here.
//!
//! Must not know the kernel: whoever holds a claim says what has happened there.

use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::time::Instant;

use crate::agent::fault::Cause;
use crate::agent::ledger::{Afterwards, Command, Made, NewLease, ask};
use model::addr::Attachment;
use model::ipam;
use model::lease::{Lease, Phase};

/// The claim of one attachment. It passes on to whoever waits for it when it ends or is dropped.
#[derive(Debug)]
pub struct Claim {
    attachment: Attachment,
    lease: Option<Lease>,
    commands: Sender<Command>,
    /// Whether the ledger has passed it on already.
    ended: bool,
}

/// How an ADD begins.
#[derive(Debug)]
pub struct Begun {
    /// The claim.
    pub claim: Claim,
    /// None if there was a lease already, which is left as it is. Else the claim has a new, pending lease, and these lines for
    /// the log say where it differs from what was asked.
    pub warnings: Option<Vec<String>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.ended {
            // The ledger ends only with the process.
            self.commands.send(Command::Unclaim(self.attachment.clone())).ok();
        }
    }
}

impl Claim {
    pub(super) fn new(attachment: Attachment, lease: Option<Lease>, commands: Sender<Command>) -> Claim {
        Claim { attachment, lease, commands, ended: false }
    }

    /// Whose claim it is.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The lease, as it was found and as it has become by this claim; none without one.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Takes addresses and records a pending lease where there is none. Returns, for the log, where it differs from what was asked.
    ///
    /// # Errors
    /// No address, no record, or no time. Nothing is taken, unless this is [`Cause::Late`].
    pub fn reserve(&mut self, new: NewLease, deadline: Instant) -> Result<Vec<String>, Cause> {
        let made: Made = ask(&self.commands, deadline, |reply| Command::Reserve { new: Box::new(new), reply })?;
        self.made(made)
    }

    /// Gives the pending lease another address in place of `bad`, which proved to be somebody else's, and records that.
    /// `addresses` is the request that the lease was made for; the address of the other family stays. No pod gets `bad` until
    /// [`super::Ledger::configure`] says which addresses the host has now. A lease without `bad` stays as it is. Returns the
    /// same as [`Claim::reserve`].
    ///
    /// # Errors
    /// The lease is as before, with `bad`: no other address, no record, no time, no such lease, or it is committed.
    pub fn replace(&mut self, bad: IpAddr, addresses: ipam::Request, deadline: Instant) -> Result<Vec<String>, Cause> {
        let (attachment, addresses) = (self.attachment.clone(), Box::new(addresses));
        let made: Made = ask(&self.commands, deadline, |reply| Command::Replace { attachment, bad, addresses, reply })?;
        self.made(made)
    }

    fn made(&mut self, made: Made) -> Result<Vec<String>, Cause> {
        let (lease, warnings) = made?;
        self.lease = Some(lease);
        Ok(warnings)
    }

    /// Records that the attachment stands, with the index of its host end where that is new, and ends the claim. Does nothing
    /// without a lease.
    ///
    /// # Errors
    /// The former record is in force, and the claim goes on, for whoever holds it to take the attachment down.
    pub fn commit(&mut self, host_index: Option<u32>, deadline: Instant) -> Result<(), Cause> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        lease.host_index = host_index.or(lease.host_index);
        let lease = Lease { phase: Phase::Committed, ..lease.clone() };
        let committed = Box::new(lease.clone());
        ask(&self.commands, deadline, |reply| Command::Commit { lease: committed, reply })??;
        self.lease = Some(lease);
        self.ended = true;
        Ok(())
    }

    /// Records a lease that was found in the kernel, in the place of what is recorded, with one write. Its addresses count as
    /// taken, and those that only the former record had rest from now on. False, and nothing is changed, if one of them is held by
    /// another lease: the next comparison tells of both.
    ///
    /// # Errors
    /// [`Cause::Late`], or its record is not durable: then the lease is in force all the same, unless an address of it went back to
    /// another lease whose change was not durable either.
    pub fn adopt(self, lease: Lease, deadline: Instant) -> Result<bool, Cause> {
        Ok(ask(&self.commands, deadline, |reply| Command::Adopt { lease: Box::new(lease), reply })??)
    }

    /// Ends the lease, whose link is gone; its addresses rest from now on. The claim goes on without a lease.
    ///
    /// # Errors
    /// The lease has ended all the same unless this is [`Cause::Late`]; only the record of it may not be durable.
    pub fn clear(&mut self, deadline: Instant) -> Result<(), Cause> {
        self.end_lease(Afterwards::Keep, deadline)
    }

    /// As [`Claim::clear`], and the claim ends with the lease.
    ///
    /// # Errors
    /// The same as of [`Claim::clear`].
    pub fn release(mut self, deadline: Instant) -> Result<(), Cause> {
        self.end_lease(Afterwards::End, deadline)
    }

    fn end_lease(&mut self, afterwards: Afterwards, deadline: Instant) -> Result<(), Cause> {
        let attachment = self.attachment.clone();
        let released = ask(&self.commands, deadline, |reply| Command::Release { attachment, afterwards, reply })?;
        self.lease = None;
        self.ended = afterwards == Afterwards::End;
        Ok(released?)
    }
}
