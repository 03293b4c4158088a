//! The way down of an attachment, first the link and then the lease, and the one rule of who may go that way.
//!
//! | who | takes down | unless |
//! |---|---|---|
//! | DEL; an ADD that has failed | what there is | |
//! | an ADD that finds a lease | that lease, to make its own | its link stands, and no note says that it was deleted |
//! | an answer that was not delivered | the lease that it told of | another one has taken its place |
//! | a delete note | what there is | it was made after the note |
//! | a round | what it has compared | it was made after the comparison began |
//! | GC | what is not in the runtime's list | it was made after GC began, or is alive |
//!
//! All of them act under the claim, with the lease that it carries, so nothing changes between the look and the deed. Nothing is
//! tried twice here: a failure leaves the record, which the next DEL, note, round or start finds. Notes and rounds leave out an
//! attachment that a request works on, since they come again. Must not enter a namespace.

use std::time::Instant;

use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::ledger::claim::Claim;
use crate::agent::observe;
use crate::agent::verbs::wire::{unwire, unwire_unrecorded};
use crate::agent::verbs::{Verbs, key, pod_of};
use crate::process::log;
use crate::rpc::agent_limit;
use crate::rpc::message::{Request, Response};
use cni::verb::Verb;
use model::addr::Attachment;
use model::lease::{Lease, PodName};

/// What keeps an attachment from being taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless {
    /// Its lease was made after this time, in milliseconds of the boot clock, so the caller did not know of it.
    MadeAfter(u64),
    /// Its lease was not made at this time, in milliseconds of the boot clock, so it is not the lease that is meant.
    NotMadeAt(u64),
    /// Its link stands.
    Stands,
    /// Its link stands, and the pod's end of it is up.
    Alive,
}

impl Unless {
    /// Whether it keeps `lease`.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn spares(self, lease: &Lease, deadline: Instant) -> Result<bool, Cause> {
        Ok(match self {
            Unless::MadeAfter(ms) => lease.since > ms,
            Unless::NotMadeAt(ms) => lease.since != ms,
            Unless::Stands => observe::link(lease, deadline)?.is_some(),
            Unless::Alive => observe::link(lease, deadline)?.is_some_and(|link| link.carrier),
        })
    }
}

/// What became of an attachment that was to be taken down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenDown {
    /// Its link and its lease are gone.
    Removed,
    /// It had no lease. A link that bore its mark is gone, unless links that stand were to be spared.
    Absent,
    /// It is as it was, for this reason.
    Spared(Unless),
}

/// The lease that a take-down ends.
struct Ended {
    attachment: Attachment,
    pod: Option<PodName>,
    /// When it was made.
    since: Option<u64>,
    /// It has routes beside those of its link.
    routed_apart: bool,
}

impl Verbs {
    /// Takes an attachment down, unless one of `unless` keeps it, as soon as nobody works on it.
    ///
    /// # Errors
    /// The attachment may still be there.
    pub fn remove(&self, attachment: &Attachment, unless: &[Unless], deadline: Instant) -> Result<TakenDown, Fault> {
        self.take_down(self.claim(attachment, deadline)?, unless, deadline)
    }

    /// As [`Verbs::remove`], with the claim at hand, which ends.
    pub(super) fn take_down(&self, claim: Claim, unless: &[Unless], deadline: Instant) -> Result<TakenDown, Fault> {
        let done = self.unwire_unless(&claim, unless, deadline)?;
        if done == TakenDown::Removed {
            let ended = self.ended(&claim);
            Step::Release.begin();
            let began = Instant::now();
            self.released(&ended, claim.release(deadline))?;
            self.took(Step::Release, began, (&ended.attachment, ended.pod.as_ref()));
        }
        Ok(done)
    }

    /// As [`Verbs::remove`], and the claim goes on.
    pub(super) fn make_way(&self, claim: &mut Claim, unless: &[Unless], deadline: Instant) -> Result<TakenDown, Fault> {
        let done = self.unwire_unless(claim, unless, deadline)?;
        if done == TakenDown::Removed {
            let ended = self.ended(claim);
            Step::Release.begin();
            self.released(&ended, claim.clear(deadline))?;
        }
        Ok(done)
    }

    fn unwire_unless(&self, claim: &Claim, unless: &[Unless], deadline: Instant) -> Result<TakenDown, Fault> {
        let Some(lease) = claim.lease() else {
            if unless.iter().any(|reason| matches!(reason, Unless::Stands | Unless::Alive)) {
                // The lease that was meant has ended meanwhile. A link that stands without a record is for a round to judge, which
                // reads it back.
                return Ok(TakenDown::Absent);
            }
            Step::Unwire.begin();
            // Without a record there can still be a link, if the state was lost.
            return unwire_unrecorded(claim.attachment(), &self.remover, deadline).map(|()| TakenDown::Absent);
        };
        for reason in unless {
            if reason.spares(lease, deadline).map_err(|cause| Fault { step: Step::Compare, cause })? {
                return Ok(TakenDown::Spared(*reason));
            }
        }
        Step::Unwire.begin();
        let began = Instant::now();
        unwire(lease, &self.remover, deadline)?;
        self.proxy_no_more(lease, deadline)?;
        self.took(Step::Unwire, began, lease);
        Ok(TakenDown::Removed)
    }

    /// Takes back an ADD whose answer was not delivered: the runtime takes it for failed. A DEL may follow, or none; or it was
    /// served already, and another ADD of the same container after it.
    pub(super) fn take_back(&self, request: &Request, answer: &Response) {
        let deadline = Instant::now() + agent_limit(Verb::Del);
        let unless: Vec<Unless> = answer.since.map(Unless::NotMadeAt).into_iter().collect();
        let Ok(attachment) = key(request) else { return };
        let undone = self.remove(&attachment, &unless, deadline);
        log::warn("answer not delivered, attachment undone")
            .with("op", Verb::Add)
            .about((&attachment, pod_of(request).as_ref()))
            .with_some("err", undone.err())
            .write_limited();
    }

    fn ended(&self, claim: &Claim) -> Ended {
        Ended {
            attachment: claim.attachment().clone(),
            pod: claim.lease().and_then(|lease| lease.pod.clone()),
            since: claim.lease().map(|lease| lease.since),
            routed_apart: claim.lease().is_some_and(|lease| self.is_routed_apart(lease)),
        }
    }

    /// What follows the end of a lease, which is in force whether or not it is durable.
    fn released(&self, ended: &Ended, outcome: Result<(), Cause>) -> Result<(), Fault> {
        let Ended { attachment, pod, since, routed_apart } = ended;
        self.tell_routing_if(*routed_apart);
        self.tell_of_proxies();
        if let Some(since) = since {
            self.police.dismiss(attachment, *since);
        }
        match outcome {
            Err(Cause::Store(error)) => {
                log::warn("end of a lease not durable yet")
                    .about((attachment, pod.as_ref()))
                    .with("err", error)
                    .write_limited();
                Ok(())
            }
            other => other.map_err(|cause| Fault { step: Step::Release, cause }),
        }
    }
}
