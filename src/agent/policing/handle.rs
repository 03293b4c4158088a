//! How other threads speak to the one that keeps the tables.
//!
//! An ADD waits for its pod's part and a question for its answer, no longer than its deadline; everything else is only told. Must
//! not know the tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use crate::agent::fault::Cause;
use crate::agent::policing::cluster::ClusterNews;
use crate::agent::policing::tell::Tell;
use crate::agent::reply::{self, Reply};
use model::addr::Attachment;
use model::asked::{Answer, Asked, Unanswerable};
use model::lease::Lease;
use model::ruleset::Ruleset;

/// What is in force for a pod whose link is about to be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// What its policies say, or everything if it has none.
    Settled,
    /// Nothing, until it is known what its policies say.
    Quarantined,
}

/// What the thread says to a question, beside which the kernel can be laid.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The answer.
    pub answer: Answer,
    /// What is wanted in the kernel, of the tables that are about links; none if it is not known in full.
    pub wanted: Option<Ruleset>,
    /// What an operator should know beside it.
    pub notes: Vec<String>,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    /// It cannot have one as it stands.
    Unanswerable(Unanswerable),
    /// It may have one in a moment; why not now.
    NotYet(&'static str),
}

/// What the thread is told.
#[derive(Debug)]
pub enum Message {
    /// A link is about to be up for this lease: have in force what its pod may, by this deadline.
    Admit(Box<Lease>, Instant, Reply<Result<Admitted, Cause>>),
    /// The lease of this attachment that was made at this time ([`Lease::since`]) has ended, and its link has gone.
    Dismiss(Attachment, u64),
    /// Something of the cluster that policies are about.
    Cluster(ClusterNews),
    /// Leases or NodeConfig have changed.
    Look,
    /// The kernel may show something else than what is in force, see [`Police::look_at_kernel`].
    Kernel,
    /// What decides about a connection?
    Explain(Asked, Reply<Result<Explained, Unexplained>>),
    /// The agent ends.
    Stop,
}

/// What is about to be in force for a pod. Whoever does not wait for it has it let go of by [`Police::dismiss`].
#[derive(Debug)]
pub struct Admission {
    answer: reply::Answer<Result<Admitted, Cause>>,
    deadline: Instant,
}

impl Admission {
    /// Waits until it is in force.
    ///
    /// # Errors
    /// [`Cause::Nftables`] with the kernel's reason; [`Cause::Late`].
    pub fn wait(self) -> Result<Admitted, Cause> {
        self.answer.wait(self.deadline).ok_or(Cause::Late)?
    }
}

/// A handle of the thread. Clones are the same.
#[derive(Debug, Clone)]
pub struct Police {
    messages: Sender<Message>,
    /// A look at the kernel has been asked for and not begun: one is enough, however much the kernel announces.
    kernel: Arc<AtomicBool>,
}

impl Police {
    /// A handle that tells by `messages`.
    pub fn new(messages: Sender<Message>) -> Police {
        Police { messages, kernel: Arc::default() }
    }

    /// Begins to have in force what the pod of `lease` may send and receive. Its link may be up when [`Admission::wait`] says so.
    ///
    /// # Errors
    /// [`Cause::Stopping`].
    pub fn admit(&self, lease: &Lease, deadline: Instant) -> Result<Admission, Cause> {
        let (reply, answer) = reply::pair();
        let message = Message::Admit(Box::new(lease.clone()), deadline, reply);
        self.messages.send(message).map_err(|_| Cause::Stopping)?;
        Ok(Admission { answer, deadline })
    }

    /// What decides about a connection.
    ///
    /// # Errors
    /// There is no answer, or none by `deadline`.
    pub fn explain(&self, asked: &Asked, deadline: Instant) -> Result<Explained, Unexplained> {
        let (reply, answer) = reply::pair();
        let stopping = |_| Unexplained::NotYet("flock-agent is stopping");
        self.messages.send(Message::Explain(asked.clone(), reply)).map_err(stopping)?;
        let late = Unexplained::NotYet("the thread that keeps the tables did not answer in time");
        answer.wait(deadline).ok_or(late)?
    }

    // Sending fails only when the thread has ended, and then there is nobody to tell.

    /// Lets go of what the pod of the lease could do that `attachment` had, made at `since`. To be called when its link has gone.
    pub fn dismiss(&self, attachment: &Attachment, since: u64) {
        self.messages.send(Message::Dismiss(attachment.clone(), since)).ok();
    }

    /// What takes the news of the cluster.
    pub fn tell(&self) -> Tell {
        let messages = self.messages.clone();
        Tell::new(move |news| drop(messages.send(Message::Cluster(news))))
    }

    /// Has the tables compared with leases and NodeConfig.
    pub fn look(&self) {
        self.messages.send(Message::Look).ok();
    }

    /// Has the tables compared with what the kernel shows, too.
    pub fn look_at_kernel(&self) {
        if !self.kernel.swap(true, Ordering::Relaxed) {
            self.messages.send(Message::Kernel).ok();
        }
    }

    /// Notes that the look at the kernel begins: what it announces from now on makes another one.
    pub fn looks_at_kernel(&self) {
        self.kernel.store(false, Ordering::Relaxed);
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.messages.send(Message::Stop).ok();
    }
}
