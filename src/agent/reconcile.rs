//! Brings record and kernel together: once at the start, before the first request, and in rounds from then on.
//!
//! What to do is decided by `recover`; this carries it out through the same path as DEL. A lease is ended only when its link
//! is gone, and in rounds only when it was gone twice.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::addr::{Attachment, LinkEnd};
use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::handler::Verbs;
use crate::boot;
use crate::intents::{Intents, Waiting};
use crate::log;
use crate::netlink::conn::Conn;
use crate::plan;
use crate::recover::{KernelLink, Repair, repairs};
use crate::store::import;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(20);

/// For one round, however much there is to do.
const LIMIT: Duration = Duration::from_secs(30);

/// The start and the rounds.
#[derive(Debug)]
pub struct Reconciler {
    verbs: Arc<Verbs>,
    intents: Intents,
    /// Leases whose link was gone in the last round.
    suspects: HashSet<Attachment>,
}

impl Reconciler {
    /// A reconciler that acts through `verbs`, with the delete notes beside `socket`.
    pub fn new(verbs: Arc<Verbs>, socket: &Path) -> Reconciler {
        Reconciler { verbs, intents: Intents::beside(socket), suspects: HashSet::new() }
    }

    /// Puts record and kernel in order, then carries out the deletes that were noted meanwhile. No request is served yet,
    /// but the socket takes connections already.
    ///
    /// # Errors
    /// The kernel or the ledger could not be asked. Single repairs that fail are logged and tried again in the rounds.
    pub fn start(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + LIMIT;
        let began = boot::now_ms();
        for repair in self.compare(deadline)? {
            self.carry_out(&repair, began, deadline);
        }
        match self.intents.waiting(deadline) {
            Ok(waiting) => {
                for (path, why) in &waiting.strangers {
                    log::warn("not a delete note").with("file", path.display()).with("why", why).write_limited();
                }
                self.replay(&waiting, deadline);
            }
            Err(error) => log::error("delete notes cannot be read").with("err", error).write(),
        }
        Ok(())
    }

    /// Rounds until `stop` says so or is dropped.
    pub fn keep(mut self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout)) {
            self.round();
        }
    }

    fn round(&mut self) {
        let deadline = Instant::now() + LIMIT;
        if let Ok(waiting) = self.intents.waiting(deadline) {
            self.replay(&waiting, deadline);
        }
        let began = boot::now_ms();
        let repairs = match self.compare(deadline) {
            Ok(repairs) => repairs,
            Err(fault) => return log::warn("reconcile round failed").with("err", fault).write_limited(),
        };
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
    }

    fn replay(&self, waiting: &Waiting, deadline: Instant) {
        for note in &waiting.notes {
            match self.verbs.remove(&note.attachment, note.at, deadline) {
                Ok(removed) => {
                    log::info("noted delete carried out")
                        .with("cid", &note.attachment.container_id)
                        .with("if", &note.attachment.ifname)
                        .with("removed", removed)
                        .write_limited();
                    if let Err(error) = self.intents.done(note) {
                        log::warn("delete note stays").with("err", error).write_limited();
                    }
                }
                Err(fault) => log::warn("noted delete failed")
                    .with("cid", &note.attachment.container_id)
                    .with("err", fault)
                    .write_limited(),
            }
        }
    }

    fn compare(&self, deadline: Instant) -> Result<Vec<Repair>, Fault> {
        let fail = |cause: Cause| Fault { step: Step::Compare, cause };
        // Links before leases: a link made in between has no lease in an older list, and its request holds the claim in
        // the newer one.
        let links = kernel_links(deadline).map_err(fail)?;
        let (leases, busy) = self.verbs.ledger().leases(deadline).map_err(fail)?;
        Ok(repairs(leases.iter(), &links, &busy, boot::now_ms()))
    }

    /// `began` is from before the comparison: what was made since is not what was compared.
    fn carry_out(&self, repair: &Repair, began: u64, deadline: Instant) {
        let (done, attachment, outcome) = match repair {
            Repair::Undo(attachment) => {
                ("unfinished ADD undone", attachment, self.verbs.remove(attachment, began, deadline).map(|_| ()))
            }
            Repair::Release(attachment) => (
                "lease of a vanished pod ended",
                attachment,
                self.verbs.remove(attachment, began, deadline).map(|_| ()),
            ),
            Repair::Remove { attachment, .. } => (
                "link without addresses removed",
                attachment,
                self.verbs.remove(attachment, began, deadline).map(|_| ()),
            ),
            Repair::Rewire { attachment, index } => {
                ("host end of a link repaired", attachment, self.rewire(attachment, *index, deadline))
            }
            Repair::Adopt(lease) => {
                let adopted = self.verbs.ledger().record((**lease).clone(), deadline);
                let outcome = adopted.map_err(|cause| Fault { step: Step::Commit, cause });
                ("attachment without record adopted", &lease.attachment, outcome)
            }
            Repair::Conflict { attachment, ip, holder } => {
                return log::error("one address, two links: delete one of the pods")
                    .with("addr", ip)
                    .with("recorded", holder)
                    .with("unrecorded", attachment)
                    .write_limited();
            }
        };
        match outcome {
            Ok(()) => log::info(done).with("cid", &attachment.container_id).with("if", &attachment.ifname).write(),
            Err(fault) => log::warn("repair failed")
                .with("repair", done)
                .with("cid", &attachment.container_id)
                .with("err", fault)
                .write_limited(),
        }
    }

    fn rewire(&self, attachment: &Attachment, index: u32, deadline: Instant) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Wire, cause };
        let ledger = self.verbs.ledger();
        let _claim = ledger.claim(attachment, deadline).map_err(fail)?;
        let Some(lease) = ledger.find(attachment, deadline).map_err(fail)? else { return Ok(()) };
        let mut conn = Conn::open(deadline).map_err(|e| fail(e.into()))?;
        conn.apply(index, lease.host_link.as_str(), &plan::host_end(&lease)).map_err(|e| fail(e.into()))
    }

    /// Takes over the allocations of the Go flock at `path`, if there is such a file, for the links that stand and are
    /// not recorded yet. Called before [`Reconciler::start`].
    ///
    /// # Errors
    /// The kernel or the ledger could not be asked. A file that is not understood is reported and left alone.
    pub fn import(&self, path: &Path) -> Result<(), Fault> {
        let fail = |cause: Cause| Fault { step: Step::Commit, cause };
        let deadline = Instant::now() + LIMIT;
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                log::error("allocations cannot be imported").with("file", path.display()).with("err", error).write();
                return Ok(());
            }
        };
        let links = kernel_links(deadline).map_err(fail)?;
        // The Go flock wrote no alias; ours stands there when the file was taken over once, and the record was lost.
        let ours = |link: &&KernelLink| match &link.alias {
            None => true,
            Some(alias) => plan::attachment_of_alias(alias)
                .is_some_and(|a| a.host_link(0) == link.name && a.mac(LinkEnd::Host) != link.mac),
        };
        let leases = import::leases(&bytes, boot::now_ms(), |name| {
            let link = links.iter().filter(ours).find(|link| link.name == *name)?;
            Some(import::HostLink { mac: link.mac, mtu: link.mtu })
        });
        let leases = match leases {
            Ok(leases) => leases,
            Err(error) => {
                log::error("allocations cannot be imported").with("file", path.display()).with("err", error).write();
                return Ok(());
            }
        };
        let ledger = self.verbs.ledger();
        for lease in leases {
            if ledger.find(&lease.attachment, deadline).map_err(fail)?.is_some() {
                continue;
            }
            log::info("attachment of the Go flock taken over").with("cid", &lease.attachment.container_id).write();
            ledger.record(lease, deadline).map_err(fail)?;
        }
        Ok(())
    }
}

/// The veth links whose names could be ours, with the addresses that lead through them.
fn kernel_links(deadline: Instant) -> Result<Vec<KernelLink>, Cause> {
    let mut conn = Conn::open(deadline)?;
    let links = conn.links()?;
    let mut routes = conn.own_routes()?;
    // Links that were taken over from the Go flock keep the routes that it made.
    routes.extend(conn.unmarked_routes()?);
    let candidates = links.into_iter().filter(|link| link.veth && link.name.starts_with("flock"));
    Ok(candidates
        .filter_map(|link| {
            let through = routes.iter().filter(|route| route.link == Some(link.index));
            let single = through.filter(|route| route.to.prefix_len() == route.to.max_prefix_len());
            Some(KernelLink {
                index: link.index,
                name: link.name.parse().ok()?,
                mac: link.mac?,
                mtu: link.mtu,
                alias: link.alias,
                addresses: single.map(|route| route.to.addr()).collect(),
            })
        })
        .collect())
}
