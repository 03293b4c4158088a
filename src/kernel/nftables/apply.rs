//! Carries changes out: one batch, all or nothing.
//!
//! Owns when a batch is sent again, and which change an error is about. Must not know why something is changed, and never does a
//! part of what it was told.

use std::time::Instant;

use rustix::io::Errno;

use super::batch::{Batch, described};
use super::socket::{Answer, Nftables, answer, refused};
use super::{Cause, NftError};
use model::ruleset::diff::Change;

/// What became of a batch.
enum Outcome {
    Done,
    /// The kernel wants to be asked again: it had to load something, or was disturbed.
    Again,
    Refused(NftError),
}

impl Nftables {
    /// Carries out all changes or none, in order, in the instant in which the kernel takes the batch: no packet sees a part of
    /// them.
    ///
    /// # Errors
    /// The first change that the kernel refused, and why; nothing of the batch has had effect then. Whether it had any is not known
    /// when the answer is late or lost, which [`Nftables::read`] tells.
    pub fn apply(&mut self, changes: &[Change], deadline: Instant) -> Result<(), NftError> {
        if changes.is_empty() {
            return Ok(());
        }
        loop {
            let batch = Batch::of(changes, self.next());
            self.used(batch.next());
            match self.attempt(&batch, changes, deadline)? {
                Outcome::Done => return Ok(()),
                Outcome::Again => {}
                Outcome::Refused(error) => return Err(error),
            }
        }
    }

    fn attempt(&mut self, batch: &Batch, changes: &[Change], deadline: Instant) -> Result<Outcome, NftError> {
        let what = match changes {
            [change] => described(change),
            [change, others @ ..] => format!("{} and {} changes more", described(change), others.len()),
            [] => String::new(),
        };
        self.send(batch.bytes(), &what, deadline)?;
        // The kernel tells of each message that it would have refused. The first is the cause, and often of the others, too.
        let mut first = None;
        let mut lost = false;
        loop {
            // All answers are there when the kernel has taken the batch, and no others come behind what was lost.
            let until = if lost { Instant::now() } else { deadline };
            let messages = match self.receive(&what, until) {
                Ok(messages) => messages,
                // More refused messages than there was room for. The first ones can still be heard.
                Err(NftError { cause: Cause::Lost, .. }) if !lost => {
                    lost = true;
                    continue;
                }
                Err(NftError { cause: Cause::Late, .. }) if lost => {
                    return first.ok_or(NftError { what, cause: Cause::Lost });
                }
                Err(error) => return Err(error),
            };
            for message in messages {
                let sequence = message.sequence;
                let whole = sequence == batch.first();
                if !whole && batch.change(sequence, changes).is_none() {
                    continue;
                }
                match answer(&message).map_err(|cause| NftError { what: what.clone(), cause })? {
                    Answer::Refused { errno: Errno::AGAIN | Errno::INTR, .. } => {
                        first.get_or_insert(Outcome::Again);
                    }
                    // Nobody knows what a batch is for.
                    Answer::Refused { errno: Errno::OPNOTSUPP, .. } if whole => {
                        return Err(NftError { what, cause: Cause::Absent });
                    }
                    Answer::Refused { errno, text, offset } => {
                        let what = batch.change(sequence, changes).map_or_else(|| what.clone(), described);
                        let part = offset.and_then(|offset| batch.part(sequence, offset, changes));
                        first.get_or_insert(Outcome::Refused(refused(what, errno, text, part)));
                    }
                    Answer::Done | Answer::Object(_) | Answer::Nothing => {}
                }
                if sequence == batch.last() || whole {
                    return Ok(first.unwrap_or(Outcome::Done));
                }
            }
        }
    }
}
