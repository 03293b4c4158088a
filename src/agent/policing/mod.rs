//! Keeps what pods may send and receive: the tables of the packet filter. One thread, the only writer of these tables.
//!
//! `model::guard` decides what the tables hold; this file asks, carries out and says. What a pod may is in force before its link
//! is made, and goes after its link. Each round compares with what the kernel shows, and so does what the kernel announces of
//! others' changes. Must not touch a table of somebody else, nor a link.

pub mod cluster;
pub mod directory;
pub mod epoch;
pub mod handle;
pub mod policies;
pub mod state;
pub mod tables;
pub mod tell;
pub mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::ledger::Ledger;
use crate::agent::node::state::NodeState;
use crate::agent::policing::handle::{Message, Police};
use crate::agent::policing::state::PolicingState;
use crate::agent::policing::tables::{Compared, Tables};
use crate::agent::suspicion::Budget;
use crate::agent::threads::spawn;
use crate::kernel::nftables::NftError;
use crate::kernel::nftables::changes::Listener;
use crate::process::log;
use crate::process::progress::Progress;
use model::addr::Attachment;
use model::guard;
use model::lease::Lease;
use model::policing::Policing as Wishes;
use model::ruleset::diff::Change;
use model::ruleset::{Element, Ruleset, Set, Table, TableKey};

/// The tables of this thread.
const TABLES: &[TableKey] = &[guard::FILTER, guard::ARP];

/// Time between two rounds, 20 s.
const INTERVAL: Duration = Duration::from_secs(20);

/// Pause after a round in which the kernel refused something, 5 s.
const RETRY: Duration = Duration::from_secs(5);

/// Repairs out of turn that follow each other at once; then there is one in each [`INTERVAL`].
const REPAIRS: u32 = 10;

/// Deadline for one round, 10 s.
const LIMIT: Duration = Duration::from_secs(10);

/// The thread's state.
#[derive(Debug)]
pub struct Policing {
    ledger: Ledger,
    node: Board<NodeState>,
    tables: Tables,
    /// Wakes this thread.
    police: Police,
    /// Somebody hears what others change.
    listening: bool,
    /// Whose tables these are: the leases of the last round, and what has come and gone since.
    leases: BTreeMap<Attachment, Lease>,
    budget: Budget,
    state: PolicingState,
    board: Board<PolicingState>,
    progress: Progress,
}

/// What a round is to look at beside what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing.
    Wanted,
    /// What the kernel shows.
    Kernel,
}

impl Policing {
    /// Tables of which nothing is known yet. How they are is published on `board`.
    pub fn new(ledger: Ledger, node: Board<NodeState>, police: Police, board: Board<PolicingState>) -> Policing {
        Policing {
            ledger,
            node,
            tables: Tables::new(TABLES),
            police,
            listening: false,
            leases: BTreeMap::new(),
            budget: Budget::new(REPAIRS, INTERVAL, Instant::now()),
            state: PolicingState::default(),
            board,
            progress: Progress::default(),
        }
    }

    /// The thread's sign of life.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Answers messages and makes a round now and then, until [`Message::Stop`] comes or nobody can send any more.
    pub fn run(mut self, messages: &Receiver<Message>) {
        let mut due = self.round(Look::Kernel);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let first = match self.progress.resting(|| messages.recv_timeout(left)) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut look = first.is_none().then_some(Look::Kernel);
            for message in first.into_iter().chain(messages.try_iter()) {
                match message {
                    Message::Admit(lease, deadline, reply) => {
                        if !reply.is_given_up() {
                            let outcome = self.admit(*lease, deadline);
                            reply.send(outcome);
                        }
                    }
                    Message::Dismiss(attachment) => self.dismiss(&attachment),
                    Message::Cluster(_) => {}
                    Message::Look => look = look.or(Some(Look::Wanted)),
                    Message::Kernel => {
                        self.police.looks_at_kernel();
                        look = Some(Look::Kernel);
                    }
                    Message::Stop => return,
                }
            }
            if let Some(look) = look {
                due = self.round(look);
            }
        }
    }

    /// What the owner of the node wants; none before the first NodeConfig.
    fn wishes(&self) -> Option<Wishes> {
        self.node.get().view.as_ref().map(|view| view.config.policing.clone())
    }

    /// One comparison, with what it puts right. Returns when the next one is due.
    fn round(&mut self, look: Look) -> Instant {
        let outcome = self.compare(look);
        let problem = outcome.err().map(|error| error.to_string());
        let next = if problem.is_some() { RETRY } else { INTERVAL };
        self.say(problem);
        Instant::now() + next
    }

    fn compare(&mut self, look: Look) -> Result<(), Fault> {
        // Without a NodeConfig nobody knows what is wanted, and what stands from before goes on.
        let Some(wishes) = self.wishes() else { return Ok(()) };
        let fail = |cause| Fault { step: Step::Compare, cause };
        let deadline = Instant::now() + LIMIT;
        let (leases, _) = self.ledger.leases(deadline).map_err(fail)?;
        self.leases = leases.into_iter().map(|lease| (lease.attachment.clone(), lease)).collect();
        if look == Look::Kernel
            && let Compared::Differs(what) = self.tables.compare(deadline).map_err(|error| fail(error.into()))?
        {
            if !self.budget.take(Instant::now()) {
                log::warn("somebody keeps changing flock's tables; they are put back in rounds only")
                    .with("seconds", INTERVAL.as_secs())
                    .write_limited();
                return Ok(());
            }
            log::error("somebody has changed flock's tables, they are put back").with("what", what).write_limited();
        }
        self.make(&wishes, deadline).map_err(|error| fail(error.into()))
    }

    /// Brings the kernel to what is wanted.
    fn make(&mut self, wishes: &Wishes, deadline: Instant) -> Result<(), NftError> {
        let wanted = self.wanted(wishes);
        let links = wanted.get(&guard::FILTER).and_then(|table| table.sets.get(guard::LINKS));
        self.state.links = links.map_or(0, |set| set.elements.len());
        if !wanted.is_empty() {
            self.listen();
        }
        self.tables.put(wanted, deadline)
    }

    /// Starts the thread that hears what others change, before there is anything to change. Where that cannot be, the rounds alone
    /// see it.
    fn listen(&mut self) {
        if self.listening {
            return;
        }
        let heard = self.tables.port().and_then(|port| Ok((port, Listener::open()?)));
        let (port, mut listener) = match heard {
            Ok(heard) => heard,
            // Whoever changes the tables next says the same.
            Err(error) => {
                return log::debug("the kernel's announcements of tables cannot be heard").with("err", error).write();
            }
        };
        let police = self.police.clone();
        let started = spawn("ruleset-events", move || {
            while listener.wait(&[port], TABLES).is_some() {
                police.look_at_kernel();
            }
            log::error("the kernel's announcements of tables cannot be heard any more; what others change is seen in rounds only")
                .write();
        });
        self.listening = started.is_ok();
    }

    /// Publishes how the tables are. A problem is said once, until it is another one.
    fn say(&mut self, problem: Option<String>) {
        if let Some(problem) = problem.as_ref().filter(|problem| self.state.problem.as_ref() != Some(problem)) {
            log::error("what pods may send and receive cannot be set").with("err", problem).write_limited();
        }
        if problem.is_none() && self.state.problem.is_some() {
            log::info("what pods may send and receive is set again").write_limited();
        }
        self.state.problem = problem;
        if *self.board.get() != self.state {
            self.board.set(self.state.clone());
        }
    }

    fn wanted(&self, wishes: &Wishes) -> Ruleset {
        let mut wanted = Ruleset::new();
        if wishes.source_check {
            guard::check_sources(&mut wanted, self.leases.values());
        }
        wanted
    }

    /// Has in force what the pod of `lease` may, before its link is made.
    ///
    /// # Errors
    /// It is not in force.
    fn admit(&mut self, lease: Lease, deadline: Instant) -> Result<(), Cause> {
        let Some(wishes) = self.wishes() else { return Ok(()) };
        let attachment = lease.attachment.clone();
        let before = self.leases_of(&attachment, &wishes);
        let former = self.leases.insert(attachment.clone(), lease);
        let after = self.leases_of(&attachment, &wishes);
        let done = match self.by_difference(&before, &after) {
            Some(changes) => self.tables.change(&changes, deadline),
            None => self.make(&wishes, deadline),
        };
        let done = match done {
            // What was thought to be in force is not: somebody may have taken the tables away.
            Err(_) if Instant::now() < deadline => self.make(&wishes, deadline),
            other => other,
        };
        done.map_err(|error| {
            match former {
                Some(lease) => self.leases.insert(attachment, lease),
                None => self.leases.remove(&attachment),
            };
            Cause::Nftables(error)
        })
    }

    /// Lets go of what the pod of an attachment could do, whose link has gone. What stays in the tables harms nobody, as no link of
    /// this name is there, and the next round removes it.
    fn dismiss(&mut self, attachment: &Attachment) {
        let Some(wishes) = self.wishes() else { return };
        let before = self.leases_of(attachment, &wishes);
        if self.leases.remove(attachment).is_none() {
            return;
        }
        let after = self.leases_of(attachment, &wishes);
        if let Some(changes) = self.by_difference(&before, &after)
            && let Err(error) = self.tables.change(&changes, Instant::now() + LIMIT)
        {
            log::warn("what a pod could send is let go of in the next round")
                .with("cid", &attachment.container_id)
                .with("err", error)
                .write_limited();
        }
    }

    /// The tables of the one container of `attachment` alone.
    fn leases_of(&self, attachment: &Attachment, wishes: &Wishes) -> Ruleset {
        let mut own = Ruleset::new();
        if wishes.source_check {
            let leases = self.leases.range(attachment.first_of_container()..).map(|(_, lease)| lease);
            let same = |lease: &&Lease| lease.attachment.container_id == attachment.container_id;
            guard::check_sources(&mut own, leases.take_while(same));
        }
        own
    }

    /// The elements that lead from one container's tables to others; none where what is in force has no such tables yet.
    fn by_difference(&self, before: &Ruleset, after: &Ruleset) -> Option<Vec<Change>> {
        let in_force = self.tables.in_force()?;
        after.keys().all(|key| in_force.contains_key(key)).then(|| elements(before, after))
    }
}

/// The elements that are in the sets of one ruleset and not of the other, as changes that lead from the first to the second.
fn elements(before: &Ruleset, after: &Ruleset) -> Vec<Change> {
    let mut changes = Vec::new();
    let nothing = Table::default();
    let keys: BTreeSet<&TableKey> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (before, after) = (before.get(key).unwrap_or(&nothing), after.get(key).unwrap_or(&nothing));
        let sets: BTreeMap<&String, &Set> = before.sets.iter().chain(&after.sets).collect();
        for (name, Set { form, .. }) in sets {
            let of = |table: &'_ Table| table.sets.get(name).map(|set| set.elements.clone()).unwrap_or_default();
            let (old, new) = (of(before), of(after));
            let gone: Vec<Element> = old.difference(&new).cloned().collect();
            if !gone.is_empty() {
                changes.push(Change::RemoveElements(*key, name.clone(), *form, gone));
            }
            let come: Vec<Element> = new.difference(&old).cloned().collect();
            if !come.is_empty() {
                changes.push(Change::AddElements(*key, name.clone(), *form, come));
            }
        }
    }
    changes
}
