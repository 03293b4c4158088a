//! Keeps what pods may send and receive: the tables of the packet filter. One thread, the only writer of these tables.
//!
//! `model` decides what the tables hold; this file asks, carries out and says. What a pod may is in force before its link is made,
//! and goes after its link. Each round compares with what the kernel shows, and so does what the kernel announces of others'
//! changes. What an earlier agent has left goes on to filter until all is known that counts. Must not touch a table of somebody
//! else, nor a link.

pub mod account;
pub mod cluster;
pub mod condition;
pub mod directory;
pub mod epoch;
mod explain;
pub mod handle;
pub mod policies;
pub mod state;
pub mod tables;
pub mod tell;
pub mod wanted;
pub mod watches;

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::agent::fault::{Cause, Fault, Step};
use crate::agent::ledger::Ledger;
use crate::agent::metrics::meters::{Mended, Meters};
use crate::agent::node::peers::Listed;
use crate::agent::node::state::NodeState;
use crate::agent::node::wake::Wake;
use crate::agent::policing::account::Account;
use crate::agent::policing::cluster::ClusterNews;
use crate::agent::policing::handle::{Admitted, Message, Police};
use crate::agent::policing::policies::Policies;
use crate::agent::policing::state::{Kept, PolicingState, Problem};
use crate::agent::policing::tables::{Compared, Tables};
use crate::agent::policing::wanted::{Inherited, elements, is_closed, of_link, sources, whole};
use crate::agent::suspicion::Budget;
use crate::agent::threads::spawn;
use crate::kernel::nftables::changes::Listener;
use crate::kernel::nftables::{Cause as NftCause, NftError};
use crate::process::log;
use crate::process::progress::Progress;
use model::addr::Attachment;
use model::guard;
use model::lease::{Lease, Phase};
use model::masquerade::{MASQUERADE4, MASQUERADE6};
use model::policing::Policing as Wishes;
use model::policy::names;
use model::ruleset::{Ruleset, Table, TableFamily, TableKey};

/// The tables of this thread.
const TABLES: &[TableKey] = &[guard::FILTER, guard::ARP, MASQUERADE4, MASQUERADE6];

/// The table in which the Go flock has policies: all of it, anew with each change.
const FORMER: TableKey = TableKey { family: TableFamily::Inet, name: "flock_netpol" };

/// Time between two rounds, 20 s.
const INTERVAL: Duration = Duration::from_secs(20);

/// Pause after a round in which the kernel refused something, 5 s.
const RETRY: Duration = Duration::from_secs(5);

/// Repairs out of turn that follow each other at once; then there is one in each [`INTERVAL`].
const REPAIRS: u32 = 10;

/// How long behind a revocation nothing is remembered, 100 ms: a packet that the former rules have judged has gone its way by then.
const SEALED_BEHIND: Duration = Duration::from_millis(100);

/// Deadline for one round, 10 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Most messages that are taken in before what they change is in force.
const AT_ONCE: usize = 4096;

/// The thread's state.
#[derive(Debug)]
pub struct Policing {
    ledger: Ledger,
    node: Board<NodeState>,
    /// The other nodes, whose ranges are not masqueraded; none without Kubernetes.
    peers: Option<Board<Listed>>,
    policies: Policies,
    tables: Tables,
    /// What stood in the kernel when the agent began, as long as it is not known what should.
    inherited: Option<Inherited>,
    /// The table of policies that the Go flock may have left, which goes when ours are in force; none once that is done.
    former: Option<TableKey>,
    /// That it stands where there are no policies is said.
    former_is_said: bool,
    /// Wakes this thread.
    police: Police,
    /// Somebody hears what others change.
    listening: bool,
    /// Whose tables these are: the leases of the last round, and what has come and gone since.
    leases: BTreeMap<Attachment, Lease>,
    budget: Budget,
    /// Somebody changes the tables again and again: until then, what the kernel announces is not looked at. With the first
    /// difference that was left to a round.
    contested: Option<(Instant, String)>,
    account: Account,
    state: PolicingState,
    board: Board<PolicingState>,
    /// Wakes the node's thread, which puts off the CNI configuration until pods can be added.
    wake: Sender<Wake>,
    meters: Arc<Meters>,
    progress: Progress,
}

/// What a round is to look at beside what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Look {
    /// Nothing.
    Wanted,
    /// What the kernel shows.
    Kernel,
}

impl Policing {
    /// Tables of which nothing is known yet. How they are is published on `board`, and the node's thread is told by `wake` when
    /// pods can be added, or cannot any more.
    pub fn new(
        ledger: Ledger,
        node: Board<NodeState>,
        peers: Option<Board<Listed>>,
        policies: Policies,
        police: Police,
        board: Board<PolicingState>,
        wake: Sender<Wake>,
    ) -> Policing {
        Policing {
            ledger,
            node,
            peers,
            policies,
            tables: Tables::new(TABLES),
            inherited: None,
            former: Some(FORMER),
            former_is_said: false,
            police,
            listening: false,
            leases: BTreeMap::new(),
            budget: Budget::new(REPAIRS, INTERVAL, Instant::now()),
            contested: None,
            account: Account::default(),
            state: PolicingState::default(),
            board,
            wake,
            meters: Arc::default(),
            progress: Progress::default(),
        }
    }

    /// The same, counted by these meters.
    #[must_use]
    pub fn counted_by(self, meters: &Arc<Meters>) -> Policing {
        Policing { meters: meters.clone(), ..self }
    }

    /// The thread's sign of life.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Answers messages and makes a round now and then, until [`Message::Stop`] comes or nobody can send any more.
    pub fn run(mut self, messages: &Receiver<Message>) {
        let mut due = self.round(Look::Kernel);
        let mut seal_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            // Everything that the last turn has changed is in force here.
            if self.policies.take_revoked() {
                self.meters.revocations.count();
                seal_at = Some(now + SEALED_BEHIND);
            }
            if seal_at.take_if(|at| *at <= now).is_some() {
                self.seal();
            }
            let next = [self.account.due(), seal_at].into_iter().flatten().fold(due, Instant::min);
            let left = next.saturating_duration_since(now);
            let first = match self.progress.resting(|| messages.recv_timeout(left)) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut look = (first.is_none() && Instant::now() >= due).then_some(Look::Kernel);
            if first.is_some() {
                self.account.touch(Instant::now());
            }
            let mut news = Vec::new();
            for message in first.into_iter().chain(messages.try_iter()).take(AT_ONCE) {
                match message {
                    Message::Cluster(more) => news.push(more),
                    Message::Admit(lease, deadline, reply) => {
                        // What was told before the link is about to be made counts for it.
                        look = look.max(self.hear(mem::take(&mut news)));
                        if !reply.is_given_up() {
                            let outcome = self.admit(*lease, deadline);
                            // A round says why, whoever has to know.
                            look = look.max(outcome.is_err().then_some(Look::Wanted));
                            reply.send(outcome);
                        }
                    }
                    Message::Dismiss(attachment, since) => self.dismiss(&attachment, since),
                    Message::Explain(asked, reply) => self.explain(&asked, reply),
                    Message::Look => look = look.max(Some(Look::Wanted)),
                    Message::Kernel => {
                        self.police.looks_at_kernel();
                        match self.contested.as_ref().map(|(until, _)| *until).filter(|until| Instant::now() < *until) {
                            Some(until) => due = due.min(until),
                            None => look = Some(Look::Kernel),
                        }
                    }
                    Message::Stop => return,
                }
            }
            look = look.max(self.hear(news));
            if let Some(look) = look {
                let next = self.round(look);
                // A round that has not looked at the kernel puts off none that does.
                due = if look == Look::Kernel { next } else { due.min(next) };
            }
            if self.account.due().is_some_and(|account| account <= Instant::now()) {
                self.count();
            }
        }
    }

    /// Has connections remembered again that are allowed.
    fn seal(&mut self) {
        let changes = self.policies.seal();
        if self.tables.in_force().is_some()
            && let Err(error) = self.tables.change(&changes, Instant::now() + LIMIT)
        {
            // The next round makes it with the rest.
            log::debug("connections are remembered from the next round on").with("err", error).write_limited();
        }
    }

    /// What the owner of the node wants; none before the first NodeConfig.
    fn wishes(&self) -> Option<Wishes> {
        self.node.get().view.as_ref().map(|view| view.config.policing.clone())
    }

    /// One comparison, with what it puts right. Returns when the next one is due.
    fn round(&mut self, look: Look) -> Instant {
        let outcome = self.compare(look);
        let next = if outcome.is_err() && self.contested.is_none() { RETRY } else { INTERVAL };
        self.say(outcome);
        self.account.touch(Instant::now());
        Instant::now() + next
    }

    /// Whether anything of the tables is wanted, once there are pods.
    fn needs_tables(&self, wishes: &Wishes) -> bool {
        let masquerade = &wishes.masquerade;
        wishes.source_check || self.policies.are_kept(wishes) || masquerade.ipv4 || masquerade.ipv6
    }

    fn compare(&mut self, look: Look) -> Result<(), Fault> {
        let fail = |cause| Fault { step: Step::Compare, cause };
        let refused = |error: NftError| fail(error.into());
        let deadline = Instant::now() + LIMIT;
        let (leases, _) = self.ledger.leases(deadline).map_err(fail)?;
        self.take_leases(leases.into_iter().map(|lease| (lease.attachment.clone(), lease)).collect());
        // Without a NodeConfig nobody knows what is wanted, and what stands from before goes on.
        let Some(wishes) = self.wishes() else { return Ok(()) };
        self.policies.wish(&wishes);
        let is_known = self.tables.in_force().is_some();
        if look == Look::Kernel
            && let Compared::Differs(what) =
                self.tables.compare(self.inherited.as_ref().and_then(Inherited::shown), deadline).map_err(refused)?
        {
            let now = Instant::now();
            if !self.budget.take(now) {
                let until = now + INTERVAL;
                match &mut self.contested {
                    Some((later, _)) => *later = until,
                    none => *none = Some((until, what)),
                }
                return self.uncontested().map_err(refused);
            }
            self.meters.mended(Mended::Table, 1);
            log::warn("somebody has changed flock's tables, they are put back").with("what", what).write_limited();
        } else if look == Look::Kernel && is_known {
            self.contested = None;
        }
        self.policies.compile(self.leases.values(), &wishes);
        self.make(&wishes, deadline).and_then(|()| self.uncontested()).map_err(refused)
    }

    /// These are the leases from now on. Of one that has ended nobody may tell before the next has the same addresses or link.
    fn take_leases(&mut self, leases: BTreeMap<Attachment, Lease>) {
        let before = mem::replace(&mut self.leases, leases);
        let ended = |lease: &&Lease| self.leases.get(&lease.attachment).is_none_or(|now| now.since != lease.since);
        for lease in before.values().filter(ended) {
            self.policies.forget(lease);
            if let Some(inherited) = &mut self.inherited {
                inherited.forget(&lease.host_link);
            }
        }
    }

    /// What is in force stays so, as far as others are concerned.
    ///
    /// # Errors
    /// [`NftCause::Contested`], until a look at the kernel has found nothing changed.
    fn uncontested(&self) -> Result<(), NftError> {
        match &self.contested {
            Some((_, what)) => Err(NftError { what: what.clone(), cause: NftCause::Contested }),
            None => Ok(()),
        }
    }

    /// Brings the kernel to what is wanted.
    ///
    /// # Errors
    /// The kernel refuses, or what stands cannot be gone on with.
    fn make(&mut self, wishes: &Wishes, deadline: Instant) -> Result<(), NftError> {
        let needed = self.needs_tables(wishes);
        if needed {
            self.tables.are_needed();
        } else if self.tables.is_absent() {
            return Ok(());
        }
        let outcome = match self.make_tables(wishes, deadline) {
            // Somebody has changed the tables since they were read.
            Err(error) if error.is_gone() || error.is_exists() => self.make_tables(wishes, deadline),
            outcome => outcome,
        };
        match outcome {
            Err(error) if error.is_absent() && !needed => {
                self.tables.are_absent();
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn make_tables(&mut self, wishes: &Wishes, deadline: Instant) -> Result<(), NftError> {
        let is_open = self.policies.are_kept(wishes) && self.policies.part().is_none();
        if is_open && (self.inherited.is_none() || self.tables.in_force().is_none()) {
            self.inherit(wishes, deadline)?;
        }
        if let Some(inherited) = &mut self.inherited
            && let Some(epoch) = self.policies.take_moved()
        {
            inherited.moves((self.policies.mask(), epoch));
        }
        if !is_open && self.inherited.take().is_some() {
            self.tables.forget();
        }
        let mut wanted = self.wanted(wishes);
        self.listen_for(&wanted);
        let keeps = |ruleset: &Ruleset| {
            ruleset.get(&guard::FILTER).is_some_and(|table| table.chains.contains_key(names::EPOCH))
        };
        if keeps(&wanted) && self.inherited.is_none() && self.tables.in_force().is_some_and(|in_force| !keeps(in_force))
        {
            // Connections may bear the mark from a time before policies were switched off, in which others were in force.
            self.policies.revoke();
            wanted = self.wanted(wishes);
        }
        if self.tables.in_force().is_none() && self.policies.part().is_some() {
            if let Some(standing) = self.tables.standing(guard::FILTER, deadline)? {
                let mark = standing.mark(names::EPOCH, self.policies.mask());
                mark.into_iter().for_each(|mark| self.policies.marks_may_be(mark));
                if self.policies.were_led(wanted::led(&standing), self.leases.values(), wishes) {
                    self.policies.compile(self.leases.values(), wishes);
                }
                wanted = self.wanted(wishes);
            }
            if self.tables.is_other(&wanted, deadline)? {
                // What stands may have allowed what is not to be.
                self.policies.revoke();
                wanted = self.wanted(wishes);
            }
        }
        let former = self.former.filter(|_| self.policies.part().is_some());
        if self.tables.put_instead(wanted, former, deadline)? {
            log::info("the policies of the Go flock are taken over, and its table is gone")
                .with("table", FORMER)
                .write();
        }
        if former.is_some() {
            self.former = None;
        }
        self.look_for_former(wishes, deadline)
    }

    /// Says once that policies of the Go flock stand where nothing takes their place.
    fn look_for_former(&mut self, wishes: &Wishes, deadline: Instant) -> Result<(), NftError> {
        if let Some(former) = self.former
            && !self.policies.are_kept(wishes)
            && !self.former_is_said
            && self.tables.stands(former, deadline)?
        {
            log::warn(
                "a table of the Go flock goes on to filter, and nobody keeps it up, as this node has no policies",
            )
            .with("do", format_args!("nft delete {former}"))
            .write();
            self.former_is_said = true;
        }
        Ok(())
    }

    /// What stands is not known in full, and has to go on.
    fn inherit(&mut self, wishes: &Wishes, deadline: Instant) -> Result<(), NftError> {
        let standing = self.tables.standing(guard::FILTER, deadline)?;
        self.tables.forget();
        match &mut self.inherited {
            Some(inherited) => {
                if inherited.look(standing, self.leases.values()) {
                    log::error("somebody has changed what an earlier agent left of policies: its pods are closed until all is known")
                        .write();
                }
            }
            none => {
                let checked = |lease: &Lease| lease.phase == Phase::Committed && lease.pod_mac.is_some();
                if standing.is_none() && wishes.source_check && self.leases.values().any(checked) {
                    log::warn("flock's table is gone, or there was none before: pods that are there may do everything until all policies are known")
                        .with("table", guard::FILTER)
                        .write();
                }
                let mark = standing.as_ref().and_then(|shown| shown.mark(names::EPOCH, self.policies.mask()));
                let inherited = Inherited::of(standing, self.leases.values());
                *none = Some(inherited.ok_or_else(|| tables::unknown(guard::FILTER))?);
                mark.into_iter().for_each(|mark| self.policies.marks_may_be(mark));
            }
        }
        let wanted = self.wanted(wishes);
        match self.inherited.as_ref().and_then(Inherited::shown) {
            Some(shown) => self.tables.inherit((guard::FILTER, shown), &wanted, deadline),
            None => Ok(()),
        }
    }

    fn wanted(&mut self, wishes: &Wishes) -> Ruleset {
        let state = self.node.get();
        let peers = self.peers.as_ref().map(Board::get);
        let mut wanted = whole(wishes, &state, peers.as_deref(), self.leases.values());
        if let Some(part) = self.policies.part() {
            wanted::add(&mut wanted, part);
        } else if let Some(inherited) = &self.inherited {
            let closed = |lease: &Lease| self.policies.is_quarantined(lease, wishes);
            inherited.go_on(&mut wanted, self.leases.values(), closed);
        }
        wanted
    }

    /// Takes news of the cluster in, and has in force what they change. What is to be looked at, if that is more.
    fn hear(&mut self, news: Vec<ClusterNews>) -> Option<Look> {
        if news.is_empty() {
            return None;
        }
        let wishes = self.wishes();
        let Some(changes) = self.policies.hear(news, &self.leases, wishes.as_ref()) else { return Some(Look::Wanted) };
        let deadline = Instant::now() + LIMIT;
        match self.tables.in_force() {
            Some(_) => match self.tables.change(&changes, deadline) {
                Ok(()) => None,
                Err(error) => {
                    log::debug("changes of policies are made as a whole").with("err", error).write_limited();
                    Some(Look::Wanted)
                }
            },
            None => Some(Look::Wanted),
        }
    }

    /// Starts the thread that hears what others change, before there is anything to change. Where that cannot be, the rounds alone
    /// see it.
    fn listen_for(&mut self, wanted: &Ruleset) {
        if self.listening || wanted.is_empty() {
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

    /// Publishes what became of a round. A problem is said once, until it is another one.
    fn say(&mut self, outcome: Result<(), Fault>) {
        // Without a NodeConfig nothing was looked at, and nothing can be wrong.
        let Some(wishes) = self.wishes() else { return };
        let problem = outcome.err().map(|fault| Problem {
            refuses_pods: self.needs_tables(&wishes)
                && matches!(&fault.cause, Cause::Nftables(error) if !error.is_transient()),
            error: fault.to_error(),
        });
        if let Some(problem) = problem.as_ref().filter(|problem| self.state.problem.as_ref() != Some(problem)) {
            log::error("what pods may send and receive cannot be set").with("err", &problem.error).write_limited();
        }
        if problem.is_none() && self.state.problem.is_some() {
            log::info("what pods may send and receive is set again").write_limited();
        }
        self.state.looked = true;
        self.state.problem = problem;
        let policies = self.policies.have_an_origin().then_some(wishes.mode);
        self.state.kept = Kept { policies, sources: wishes.source_check };
        self.publish();
    }

    fn publish(&self) {
        self.meters.batches.set(self.tables.batches());
        let rules = self.tables.in_force().map(|tables| tables.values().flat_map(|table| table.chains.values()));
        self.meters.rules.set(rules.into_iter().flatten().map(|chain| chain.rules.len() as u64).sum());
        let before = self.board.get();
        if *before != self.state {
            self.board.set(self.state.clone());
        }
        if before.is_ready() != self.state.is_ready() {
            // It ends only with the agent.
            self.wake.send(Wake::Look).ok();
        }
    }

    /// Publishes how many there are of what is in force, and what has been unknown for too long.
    fn count(&mut self) {
        let wishes = self.wishes().unwrap_or_default();
        let filter = self.tables.in_force().and_then(|in_force| in_force.get(&guard::FILTER));
        let is_closed = |lease: &Lease| match filter {
            Some(filter) => is_closed(filter, &lease.host_link),
            None => self.policies.is_quarantined(lease, &wishes),
        };
        let (counts, ails) = self.account.look(&self.policies, &self.leases, &wishes, is_closed, Instant::now());
        let links = filter.and_then(|table| table.sets.get(guard::LINKS));
        self.state.counts = counts;
        self.state.counts.links = links.map_or(0, |set| set.elements.len());
        self.state.ails = ails;
        self.publish();
    }

    /// Has in force what the pod of `lease` may, before its link is made.
    ///
    /// # Errors
    /// It is not in force.
    fn admit(&mut self, lease: Lease, deadline: Instant) -> Result<Admitted, Cause> {
        let Some(wishes) = self.wishes() else { return Ok(Admitted::Settled) };
        let attachment = lease.attachment.clone();
        let before = self.sources_of(&attachment, &wishes);
        let former = self.leases.insert(attachment.clone(), lease.clone());
        let after = self.sources_of(&attachment, &wishes);
        let mut changes = elements(&before, &after);
        changes.extend(self.policies.link_comes(&lease, &self.leases, &wishes));
        let done = match self.tables.in_force() {
            Some(in_force)
                if self.inherited.is_none()
                    && after.keys().all(|key| in_force.contains_key(key))
                    && (!wishes.source_check || in_force.contains_key(&guard::FILTER)) =>
            {
                self.tables.change(&changes, deadline)
            }
            _ => self.make(&wishes, deadline),
        };
        let done = match done {
            // What was thought to be in force is not: somebody may have taken the tables away.
            Err(_) if Instant::now() < deadline => self.make(&wishes, deadline),
            other => other,
        };
        match done {
            Ok(()) if self.policies.is_quarantined(&lease, &wishes) => Ok(Admitted::Quarantined),
            Ok(()) => Ok(Admitted::Settled),
            Err(error) => {
                match former {
                    Some(former) => self.leases.insert(attachment, former),
                    None => self.leases.remove(&attachment),
                };
                self.policies.link_goes(&lease, &self.leases, &wishes);
                self.tables.forget();
                Err(error.into())
            }
        }
    }

    /// Lets go of what the pod of an attachment could do, whose lease of this time has ended and whose link has gone. What stays in
    /// the tables harms nobody, as no link of this name is there, and the next round removes it.
    fn dismiss(&mut self, attachment: &Attachment, since: u64) {
        if self.leases.get(attachment).is_some_and(|lease| lease.since != since) {
            // The next pod of this name was quicker.
            return;
        }
        let Some(wishes) = self.wishes() else { return self.let_go(attachment) };
        let before = self.sources_of(attachment, &wishes);
        let Some(lease) = self.leases.remove(attachment) else { return };
        if let Some(inherited) = &mut self.inherited {
            inherited.forget(&lease.host_link);
        }
        let after = self.sources_of(attachment, &wishes);
        let mut changes = elements(&before, &after);
        changes.extend(self.policies.link_goes(&lease, &self.leases, &wishes));
        let deadline = Instant::now() + LIMIT;
        let done = match self.tables.in_force() {
            // Where there is no pod, there is no table.
            _ if self.leases.is_empty() => self.make(&wishes, deadline),
            Some(_) if self.inherited.is_none() => self.tables.change(&changes, deadline),
            _ => Ok(()),
        };
        if let Err(error) = done {
            log::warn("what a pod could send is let go of in the next round")
                .about(&lease)
                .with("err", error)
                .write_limited();
        }
    }

    /// The same before the first NodeConfig: whatever stands of the link goes, and nothing else changes.
    fn let_go(&mut self, attachment: &Attachment) {
        let deadline = Instant::now() + LIMIT;
        let Some(lease) = self.leases.remove(attachment) else { return };
        let mut standing = Ruleset::new();
        for key in TABLES {
            let shown = self.tables.standing(*key, deadline).ok().flatten();
            standing.extend(shown.and_then(|shown| shown.outline(&Table::default())).map(|table| (*key, table)));
        }
        self.tables.change(&of_link(&standing, &lease.host_link), deadline).ok();
        self.tables.forget();
    }

    /// What the one container of `attachment` may send, as sets of its own.
    fn sources_of(&self, attachment: &Attachment, wishes: &Wishes) -> Ruleset {
        let leases = self.leases.range(attachment.first_of_container()..).map(|(_, lease)| lease);
        sources(wishes, leases.take_while(|lease| lease.attachment.container_id == attachment.container_id))
    }
}
