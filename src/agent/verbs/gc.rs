//! GC: removes what the runtime no longer knows, within its network. What still stands is kept and reported: a list that lacks a
//! running pod is likelier to be wrong than the kernel.
//!
//! Must not end a lease by the list alone.

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::metrics::meters::Ending;
use crate::agent::verbs::takedown::{TakenDown, Unless};
use crate::agent::verbs::{Verbs, receive};
use crate::process::failpoint;
use crate::process::log;
use crate::record::boot_clock;
use crate::rpc::server::Call;
use cni::netconf::ValidAttachments;
use cni::verb::Verb;

impl Verbs {
    /// Collects the attachments that are not in the runtime's list.
    pub(super) fn gc(&self, call: &Call<'_>) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        let conf = receive(call.request, Verb::Gc)?;
        let ValidAttachments::Set { valid, ignored, examples } = &conf.valid_attachments else { return Ok(()) };
        if *ignored > 0 {
            log::warn("entries of the runtime's list name no attachment")
                .with("op", Verb::Gc)
                .number("entries", *ignored)
                .with("such_as", examples.join(", "))
                .write_limited();
        }
        Step::Compare.begin();
        // An attachment that is made from now on cannot be in the list.
        let unless = [Unless::MadeAfter(boot_clock::now_ms()), Unless::Alive];
        let (leases, _) = self.ledger.leases(call.deadline).map_err(fail)?;
        failpoint::pass("gc.listed").ok();
        let mut kept = Vec::new();
        for lease in leases {
            if lease.network != conf.name || valid.contains(&lease.attachment) {
                continue;
            }
            match self.remove(&lease.attachment, &unless, call.deadline) {
                Ok(TakenDown::Removed) => {
                    self.meters.ended(Ending::Unknown);
                    log::info("attachment removed that the runtime does not know")
                        .with("op", Verb::Gc)
                        .about(&lease)
                        .write();
                }
                Ok(TakenDown::Spared(Unless::Alive)) => kept.push(format!("{} is alive", lease.attachment)),
                Ok(TakenDown::Spared(_) | TakenDown::Absent) => {}
                Err(fault) => kept.push(format!("{}: {fault}", lease.attachment)),
            }
        }
        if kept.is_empty() { Ok(()) } else { Err(fail(Cause::Kept(kept))) }
    }
}
