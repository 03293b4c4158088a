//! Brings record and kernel together: once at the start, before the first request, and in rounds from then on.
//!
//! `recover` decides what to do; this file carries it out through the same path as DEL. It must not end a lease whose link stands,
//! and in rounds only ends one whose link was missing twice.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::iter;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::agent::entrance::{Deaf, Entrance};
use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::history::History;
use crate::agent::ledger::claim::Claim;
use crate::agent::metrics::meters::{Ending, Mended};
use crate::agent::observe;
use crate::agent::suspicion::{Budget, Suspicions};
use crate::agent::verbs::Verbs;
use crate::agent::verbs::takedown::{TakenDown, Unless};
use crate::agent::verbs::wire;
use crate::process::failpoint;
use crate::process::foreign_file::open_regular;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::process::progress::Progress;
use crate::record::boot_clock;
use crate::record::import;
use crate::record::notes::{Notes, Waiting};
use cni::verb::Verb;
use model::addr::{Attachment, LinkEnd};
use model::lease::{Lease, PodName};
use model::observed::Observed;
use model::plan;
use model::recover::{Repair, repairs};

/// Time between two rounds, 20 s.
const INTERVAL: Duration = Duration::from_secs(20);

/// Most repairs out of turn that follow each other at once; then there is one in each [`INTERVAL`].
const LOOKS: u32 = 10;

/// Pause between an announcement and the look, 20 ms: long enough for an ADD or DEL of the agent, short enough for pods that
/// are cut off.
const SETTLING: Duration = Duration::from_millis(20);

/// Deadline for one round, however much there is to do, 30 s.
const LIMIT: Duration = Duration::from_secs(30);

/// Letters of a container's id that stand for it, as runtimes show it.
const SHORT_ID: usize = 12;

/// When a lease counts as made whose record was lost, in milliseconds of the boot clock: before every delete note, since such a
/// note means what stands now.
const LONG_AGO: u64 = 0;

/// What the thread is woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A whole round.
    Round,
    /// A look at what the kernel has announced.
    Look,
    /// The agent ends.
    Stop,
}

/// The start and the rounds.
#[derive(Debug)]
pub struct Reconciler {
    verbs: Arc<Verbs>,
    notes: Notes,
    /// Leases whose link was gone in the last round.
    suspects: HashSet<Attachment>,
    /// What the kernel has announced of the links.
    suspicions: Suspicions,
    /// Repairs out of turn.
    budget: Budget,
    /// Repairs that failed in this round and in the last one, with the reason, which need not be said again.
    failing: HashMap<Attachment, String>,
    failed_before: HashMap<Attachment, String>,
    /// The pods of what is repaired in this round, for the log: of a lease that has ended, nobody knows its pod.
    pods: HashMap<Attachment, PodName>,
    unrecorded: Lasting,
    unspared: Lasting,
    unread: Lasting,
    uncompared: Lasting,
    /// Keeps when a round was, and what was put right.
    history: History,
    /// When this agent began, in milliseconds of the boot clock.
    began: u64,
    progress: Progress,
}

impl Reconciler {
    /// A reconciler that acts through `verbs`, with the delete notes beside `socket`, and tells `history` what it has done.
    pub fn new(verbs: Arc<Verbs>, socket: &Path, suspicions: Suspicions, history: History) -> Reconciler {
        Reconciler {
            verbs,
            notes: Notes::beside(socket),
            suspects: HashSet::new(),
            suspicions,
            budget: Budget::new(LOOKS, INTERVAL, Instant::now()),
            failing: HashMap::new(),
            failed_before: HashMap::new(),
            pods: HashMap::new(),
            unrecorded: Lasting::default(),
            unspared: Lasting::default(),
            unread: Lasting::default(),
            uncompared: Lasting::default(),
            history,
            began: boot_clock::now_ms(),
            progress: Progress::default(),
        }
    }

    /// The progress of the thread that makes the rounds.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Puts record and kernel in order, then carries out the deletes that were noted meanwhile. No request is served yet,
    /// but the socket takes connections already.
    ///
    /// # Errors
    /// The kernel or the ledger could not be asked. Single repairs that fail are logged and tried again in the rounds.
    pub fn start(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + LIMIT;
        let began = boot_clock::now_ms();
        for repair in self.compare(deadline)? {
            self.carry_out(&repair, began, deadline);
        }
        self.history.round(None);
        match self.notes.waiting() {
            Ok(waiting) => {
                for (path, why) in &waiting.strangers {
                    log::warn("not a delete note").with("file", path.display()).with("why", why).write_limited();
                }
                if waiting.incomplete {
                    log::warn("directory of delete notes is locked by somebody else, later ones are read in a round")
                        .write();
                }
                self.replay(&waiting, deadline);
            }
            Err(error) => self.unread.met(error, || log::error("delete notes cannot be read")),
        }
        self.refill();
        Ok(())
    }

    fn refill(&mut self) {
        match self.notes.refill() {
            Ok(()) => self.unspared.over(|| log::info("spare delete notes are there again")),
            Err(error) => self.unspared.met(error, || log::warn("spare delete notes are missing")),
        }
    }

    fn settle(&mut self, deadline: Instant) {
        match self.verbs.ledger().settle(deadline) {
            Ok(true) => self.unrecorded.ended(log::info("state is recorded again")).write_limited(),
            Ok(false) => self.unrecorded.over(|| log::info("state is recorded again")),
            Err(Cause::Store(error)) => self.unrecorded.met(error, || log::error("state cannot be recorded")),
            Err(cause) => {
                let fault = Fault { step: Step::Commit, cause };
                self.unrecorded.met(fault, || log::warn("state is slow to be recorded"));
            }
        }
    }

    /// A round every now and then, and what `wake` asks for, until it says stop. With each round, and before the first,
    /// `entrance` is kept where callers look for it.
    ///
    /// # Errors
    /// [`Deaf`]: nobody can call the agent any more.
    pub fn run(mut self, wake: &Receiver<Turn>, mut entrance: Entrance) -> Result<(), Deaf> {
        entrance.keep()?;
        let mut next = Instant::now() + INTERVAL;
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let first = match self.progress.resting(|| wake.recv_timeout(left)) {
                Ok(turn) => turn,
                Err(RecvTimeoutError::Timeout) => Turn::Round,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            // However often a turn was asked for meanwhile, one is enough.
            let (mut whole, mut stop) = (false, false);
            for turn in iter::once(first).chain(wake.try_iter()) {
                whole |= turn == Turn::Round;
                stop |= turn == Turn::Stop;
            }
            if stop {
                return Ok(());
            }
            if whole {
                entrance.keep()?;
                self.round();
                next = Instant::now() + INTERVAL;
            } else {
                self.look_out_of_turn();
            }
        }
    }

    /// Puts back at once what the kernel has announced as lost. A lease never ends by such a look: two rounds decide.
    fn look_out_of_turn(&mut self) {
        // An ADD or DEL of the agent makes several announcements, and is over by then.
        thread::sleep(SETTLING);
        let Some(suspects) = self.suspicions.take_links() else { return };
        failpoint::pass("links.suspected").ok();
        let deadline = Instant::now() + LIMIT;
        let Ok(suspected) = self.verbs.ledger().suspected(suspects, deadline) else { return };
        for attachment in suspected {
            let repaired = self.rewire(&attachment, Turn::Look, deadline);
            self.tell_of_rewiring(&attachment, repaired);
        }
    }

    fn round(&mut self) {
        // All that was announced until now is looked at with the rest.
        self.suspicions.take_links();
        self.failed_before = mem::take(&mut self.failing);
        let deadline = Instant::now() + LIMIT;
        self.settle(deadline);
        match self.notes.waiting() {
            Ok(waiting) => {
                self.unread.over(|| log::info("delete notes can be read again"));
                self.replay(&waiting, deadline);
            }
            Err(error) => self.unread.met(error, || log::error("delete notes cannot be read")),
        }
        self.refill();
        let began = boot_clock::now_ms();
        let repairs = match self.compare(deadline) {
            Ok(repairs) => repairs,
            Err(fault) => {
                self.history.round(Some(fault.to_string()));
                return self.uncompared.met(fault, || log::warn("record and kernel cannot be compared"));
            }
        };
        self.uncompared.over(|| log::info("record and kernel can be compared again"));
        let mut suspects = HashSet::new();
        for repair in repairs {
            match repair {
                Repair::Release(attachment) if !self.suspects.contains(&attachment) => {
                    suspects.insert(attachment);
                }
                repair => self.carry_out(&repair, began, deadline),
            }
        }
        self.suspects = suspects;
        self.history.round(None);
    }

    fn replay(&self, waiting: &Waiting, deadline: Instant) {
        if waiting.notes.is_empty() {
            return self.verbs.meters().notes.set(0);
        }
        // A note whose attachment a request works on has its turn in a later round: one request that is held up must not hold
        // up the rest.
        let (leases, busy) = self.verbs.ledger().leases(deadline).unwrap_or_default();
        let mut carried_out = Vec::new();
        for note in waiting.notes.iter().filter(|note| !busy.contains(&note.attachment)) {
            let lease = leases.iter().find(|lease| lease.attachment == note.attachment);
            let line = match self.verbs.remove(&note.attachment, &[Unless::MadeAfter(note.at)], deadline) {
                Ok(done) => {
                    carried_out.push(note.clone());
                    self.verbs.meters().replayed.count();
                    if done == TakenDown::Removed {
                        self.verbs.meters().ended(Ending::Note);
                    }
                    log::info("noted delete carried out").with("removed", done == TakenDown::Removed)
                }
                Err(fault) => log::warn("noted delete failed").with("err", fault),
            };
            let pod = lease.and_then(|lease| lease.pod.as_ref());
            line.with("op", Verb::Del).about((&note.attachment, pod)).write_limited();
        }
        self.verbs.meters().notes.set(waiting.notes.len().saturating_sub(carried_out.len()) as u64);
        if let Err(error) = self.notes.done(&carried_out) {
            log::warn("delete notes stay").with("err", error).write_limited();
        }
    }

    fn compare(&mut self, deadline: Instant) -> Result<Vec<Repair>, Fault> {
        Step::Compare.begin();
        let compared = Instant::now();
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        // Links before leases: a link made in between has no lease in an older list, and its request holds the claim in
        // the newer one.
        let links = observe::host_links(deadline).map_err(fail)?;
        failpoint::pass("links.listed").ok();
        let (leases, busy) = self.verbs.ledger().leases(deadline).map_err(fail)?;
        let repairs = repairs(leases.iter(), &links, |attachment| busy.contains(attachment), self.began, LONG_AGO);
        self.pods.clear();
        for lease in leases.into_iter().filter(|lease| repairs.iter().any(|repair| repair.is_about(&lease.attachment)))
        {
            self.pods.extend(lease.pod.map(|pod| (lease.attachment, pod)));
        }
        self.verbs.meters().compared(compared);
        Ok(repairs)
    }

    /// Carries out a repair. `began` is from before the comparison: what was made since then was not compared.
    fn carry_out(&mut self, repair: &Repair, began: u64, deadline: Instant) {
        let remove = |attachment| self.verbs.remove(attachment, &[Unless::MadeAfter(began)], deadline).map(drop);
        let (done, attachment, outcome) = match repair {
            Repair::Undo(attachment) => ("unfinished ADD undone", attachment, remove(attachment)),
            Repair::Commit(attachment) => {
                ("attachment kept whose ADD is not recorded as finished", attachment, self.commit(attachment, deadline))
            }
            Repair::Forget(attachment) => {
                ("record of an earlier lease ended", attachment, self.forget(attachment, began, deadline))
            }
            Repair::Amend(lease) => match self.amend(lease, began, deadline) {
                Ok(false) => return,
                other => ("record corrected by what the link shows", &lease.attachment, other.map(|_| ())),
            },
            Repair::Release(attachment) => ("lease of a vanished pod ended", attachment, remove(attachment)),
            Repair::Remove(attachment) => ("link without addresses removed", attachment, remove(attachment)),
            Repair::Rewire(attachment) => {
                let repaired = self.rewire(attachment, Turn::Round, deadline);
                return self.tell_of_rewiring(attachment, repaired);
            }
            Repair::Adopt(lease) => match self.adopt_if_it_stands(lease, deadline) {
                Ok(false) => return,
                other => ("attachment without record adopted", &lease.attachment, other.map(|_| ())),
            },
            Repair::Conflict { attachment, ip, holder } => {
                return log::error("one address, two links: delete one of the pods")
                    .about((holder, self.pods.get(holder)))
                    .with("addr", ip)
                    .with("unrecorded", attachment)
                    .write_limited();
            }
        };
        match (repair, &outcome) {
            (Repair::Release(_), Ok(())) => self.verbs.meters().ended(Ending::LinkGone),
            (Repair::Undo(_), Ok(())) => self.verbs.meters().ended(Ending::Pending),
            _ => {}
        }
        self.tell(done, attachment, outcome);
    }

    fn tell_of_rewiring(&mut self, attachment: &Attachment, repaired: Result<bool, Fault>) {
        match repaired {
            Ok(false) => drop(self.failing.remove(attachment)),
            other => self.tell("host end of a link repaired", attachment, other.map(|_| ())),
        }
    }

    fn tell(&mut self, done: &'static str, attachment: &Attachment, outcome: Result<(), Fault>) {
        match outcome {
            // Limited, since a pod that flaps its end of a link can have it repaired round by round.
            Ok(()) => {
                self.failing.remove(attachment);
                let whose = match self.pods.get(attachment) {
                    Some(pod) => pod.to_string(),
                    None => {
                        let id = attachment.container_id.as_str();
                        format!("container {}", id.get(..SHORT_ID).unwrap_or(id))
                    }
                };
                self.history.repaired(&format!("{done}, {} of {whose}", attachment.ifname));
                log::info(done).about((attachment, self.pods.get(attachment))).write_limited();
            }
            Err(fault) => {
                let why = fault.to_string();
                let said =
                    [&self.failing, &self.failed_before].iter().any(|failed| failed.get(attachment) == Some(&why));
                self.failing.insert(attachment.clone(), why.clone());
                if !said {
                    log::warn("repair failed")
                        .about((attachment, self.pods.get(attachment)))
                        .with("repair", done)
                        .with("err", why)
                        .write_limited();
                }
            }
        }
    }

    fn commit(&self, attachment: &Attachment, deadline: Instant) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Commit, cause };
        let mut claim = self.verbs.ledger().claim(attachment, deadline).map_err(fail)?;
        match claim.lease().map(|lease| Unless::MadeAfter(self.began).spares(lease, deadline)) {
            Some(Ok(false)) => {}
            Some(Err(cause)) => return Err(fail(cause)),
            Some(Ok(true)) | None => return Ok(()),
        }
        // Without the index nobody could announce what the pod has beyond the node's ranges.
        let link = claim.lease().map(|lease| observe::link(lease, deadline)).transpose().map_err(fail)?.flatten();
        claim.commit(link.map(|link| link.index), deadline).map_err(fail)?;
        claim.lease().into_iter().for_each(|lease| self.verbs.look_beside(lease));
        Ok(())
    }

    /// Ends a record, and leaves the link alone.
    fn forget(&self, attachment: &Attachment, began: u64, deadline: Instant) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Release, cause };
        let claim = self.verbs.ledger().claim(attachment, deadline).map_err(fail)?;
        match claim.lease().map(|lease| Unless::MadeAfter(began).spares(lease, deadline)) {
            Some(Ok(false)) => claim.release(deadline).map_err(fail),
            Some(Err(cause)) => Err(fail(cause)),
            Some(Ok(true)) | None => Ok(()),
        }
    }

    /// Adopts a lease if its link still stands. False if a DEL has taken the link away since the links were listed, or an ADD has
    /// recorded another lease.
    fn adopt_if_it_stands(&self, lease: &Lease, deadline: Instant) -> Result<bool, Fault> {
        let fail = |cause: Cause| Fault { step: Step::Commit, cause };
        let claim = self.verbs.ledger().claim(&lease.attachment, deadline).map_err(fail)?;
        if claim.lease().is_some() || !Unless::Stands.spares(lease, deadline).map_err(fail)? {
            return Ok(false);
        }
        self.record(claim, lease, deadline)
    }

    /// Records what a link shows in the place of what is recorded of it. False if a DEL has ended that lease since it was compared,
    /// or an ADD has made another one, or if another lease still has one of the addresses: then the record stays as it is.
    fn amend(&self, lease: &Lease, began: u64, deadline: Instant) -> Result<bool, Fault> {
        let fail = |cause: Cause| Fault { step: Step::Commit, cause };
        let claim = self.verbs.ledger().claim(&lease.attachment, deadline).map_err(fail)?;
        match claim.lease().map(|recorded| Unless::MadeAfter(began).spares(recorded, deadline)) {
            Some(Ok(false)) => self.record(claim, lease, deadline),
            Some(Err(cause)) => Err(fail(cause)),
            Some(Ok(true)) | None => Ok(false),
        }
    }

    fn record(&self, claim: Claim, lease: &Lease, deadline: Instant) -> Result<bool, Fault> {
        let former = claim.lease().cloned();
        let recorded = adopt(claim, lease.clone(), deadline)?;
        if recorded {
            former.iter().chain([lease]).for_each(|lease| self.verbs.look_beside(lease));
        }
        Ok(recorded)
    }

    /// Gives a link back what it lacks, under the claim, since a link that is being made lacks much. False if it lacks nothing,
    /// or if the repair is left to the next round.
    fn rewire(&mut self, attachment: &Attachment, turn: Turn, deadline: Instant) -> Result<bool, Fault> {
        let fail = |cause: Cause| Fault { step: Step::Wire, cause };
        let claim = self.verbs.ledger().claim(attachment, deadline).map_err(fail)?;
        let Some(lease) = claim.lease() else { return Ok(false) };
        let Some(end) = wire::shown(lease, deadline)? else { return Ok(false) };
        let kept = plan::kept_host_end(lease);
        let lacks = end.lacks(&kept);
        if lacks.is_empty() {
            return Ok(false);
        }
        if turn == Turn::Look && !self.budget.take(Instant::now()) {
            log::warn("somebody keeps taking from pods' links what flock gives them; it is put back in rounds only")
                .number("seconds", INTERVAL.as_secs())
                .write_limited();
            return Ok(false);
        }
        let shown: Vec<String> = lacks.iter().map(ToString::to_string).collect();
        log::warn("host end of a link lacks what flock gave it")
            .about(lease)
            .with("lacks", shown.join(", "))
            .write_limited();
        self.pods.extend(lease.pod.clone().map(|pod| (attachment.clone(), pod)));
        wire::rewire(lease, &end, &lacks, deadline)?;
        lacks.iter().for_each(|change| self.verbs.meters().mended(Mended::from(*change), 1));
        self.verbs.look_beside(lease);
        Ok(true)
    }

    /// Takes over the allocations of the Go flock at `path`, if there is such a file, for the links that stand and are
    /// not recorded yet. Called before [`Reconciler::start`].
    ///
    /// # Errors
    /// The kernel or the ledger could not be asked. A file that is not understood is reported and left alone.
    pub fn import(&self, path: &Path) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Commit, cause };
        let deadline = Instant::now() + LIMIT;
        let mut bytes = Vec::new();
        // One byte more than the limit, so that a longer file is noticed.
        let opened = open_regular(path, OFlags::empty());
        match opened.and_then(|file| file.take(import::FILE_MAX + 1).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                log::error("allocations cannot be imported").with("file", path.display()).with("err", error).write();
                return Ok(());
            }
        }
        let links = observe::host_links(deadline).map_err(fail)?;
        // The Go flock wrote no alias. A link bears this flock's where the file was taken over before and the record was lost
        // since.
        let ours = |link: &&Observed| match &link.alias {
            None => true,
            Some(alias) => plan::attachment_of_alias(alias)
                .is_some_and(|a| a.host_link(0).as_str() == link.name && Some(a.mac(LinkEnd::Host)) != link.mac),
        };
        let leases = import::leases(&bytes, LONG_AGO, |name| {
            let link = links.iter().filter(ours).find(|link| link.name == name.as_str())?;
            Some(import::HostLink { mac: link.mac?, mtu: link.mtu, index: link.index })
        });
        let leases = match leases {
            Ok(leases) => leases,
            Err(error) => {
                log::error("allocations cannot be imported").with("file", path.display()).with("err", error).write();
                return Ok(());
            }
        };
        for lease in leases {
            let claim = self.verbs.ledger().claim(&lease.attachment, deadline).map_err(fail)?;
            if claim.lease().is_some() {
                continue;
            }
            log::info("attachment of the Go flock taken over").about(&lease).write();
            adopt(claim, lease, deadline)?;
        }
        Ok(())
    }
}

fn adopt(claim: Claim, lease: Lease, deadline: Instant) -> Result<bool, Fault> {
    match claim.adopt(lease.clone(), deadline) {
        Err(Cause::Store(error)) => {
            log::warn("adopted lease not durable yet").about(&lease).with("err", error).write_limited();
            Ok(true)
        }
        other => other.map_err(|cause| Fault { step: Step::Commit, cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::verbs::tests::{Scene, soon};

    #[test]
    fn a_repair_of_an_older_lease_leaves_the_newer_one() {
        let scene = Scene::new("forget", None);
        let reconciler = Reconciler::new(
            scene.verbs.clone(),
            Path::new("/nowhere/flock.sock"),
            Suspicions::default(),
            History::default(),
        );
        let attachment = scene.recorded("only-in-tests/eth0", 101);
        let recorded = || {
            let claim = scene.verbs.ledger().claim(&attachment, soon()).expect("in time");
            claim.lease().cloned()
        };
        let mut shown = recorded().expect("recorded");
        shown.extra = vec!["203.0.113.6".parse().expect("literal")];
        assert!(
            !reconciler.amend(&shown, 100, soon()).expect("nothing to do"),
            "it was made after the links were looked at"
        );
        assert_ne!(recorded(), Some(shown.clone()));
        assert!(reconciler.amend(&shown, 101, soon()).expect("recorded"));
        assert_eq!(recorded(), Some(shown.clone()));
        reconciler.forget(&attachment, 100, soon()).expect("nothing to do");
        assert!(scene.is_recorded(&attachment), "it was made after the links were looked at");
        reconciler.forget(&attachment, 101, soon()).expect("ended");
        assert!(!scene.is_recorded(&attachment));
        assert!(!reconciler.amend(&shown, 101, soon()).expect("nothing to do"), "a DEL has ended it meanwhile");
        assert!(!scene.is_recorded(&attachment));
    }
}
