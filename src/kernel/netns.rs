//! Network namespaces: open one safely, and run a closure inside it on a thread that does nothing else.
//!
//! No other code enters a namespace, and no thread that does something else afterwards ever does: a thread that failed to
//! come back would program the host from inside a pod. A thread for visits begins each by entering the namespace that is asked
//! for, and leaves it at the end, so that it keeps no namespace of a pod alive; one that cannot leave ends.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::crew::{Afterwards, Crew};
use crate::process::failpoint;

/// Threads for visits that stay when there is none to make, for as many ADDs at once.
const VISITORS_AT_REST: usize = 4;

/// The namespace that a thread is in.
const OWN: &str = "/proc/thread-self/ns/net";

/// File system of namespace files (`NSFS_MAGIC`).
const NSFS: i64 = 0x6e73_6673;

/// An open network namespace. Its path may be removed or replaced meanwhile; this stays the same namespace.
#[derive(Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

/// Why a namespace could not be opened or entered.
#[derive(Debug)]
pub enum NetnsError {
    /// The path leads nowhere, or may not be opened.
    Open {
        /// The path as given.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The path leads to something else.
    NotANamespace(PathBuf),
    /// The path leads to the namespace that this process is in.
    Own(PathBuf),
    /// It is open, but the kernel did not let a thread in.
    Enter {
        /// The path as given.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

impl NetnsError {
    /// Nothing is wrong with the namespace: this process, or the host, has no descriptor, thread or memory to spare.
    pub fn is_shortage(&self) -> bool {
        let (NetnsError::Open { error, .. } | NetnsError::Enter { error, .. }) = self else { return false };
        let errno = Errno::from_io_error(error);
        matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN))
    }
}

impl fmt::Display for NetnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetnsError::Open { path, error } => write!(f, "open network namespace {}: {error}", path.display()),
            NetnsError::NotANamespace(path) => write!(f, "{} is no network namespace", path.display()),
            NetnsError::Own(path) => {
                write!(f, "{} is the host's own network namespace, where no pod can be attached", path.display())
            }
            NetnsError::Enter { path, error } => write!(f, "enter network namespace {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for NetnsError {}

impl Netns {
    /// Opens the namespace at `path`. What is not a namespace file is never opened for real: opening a FIFO would block,
    /// and opening a device can have effects.
    ///
    /// # Errors
    /// [`NetnsError::Open`], [`NetnsError::NotANamespace`], [`NetnsError::Own`].
    pub fn open(path: &Path) -> Result<Netns, NetnsError> {
        let fail = |error: rustix::io::Errno| NetnsError::Open { path: path.into(), error: error.into() };
        let probe = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        #[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
        let magic = rustix::fs::fstatfs(&probe).map_err(fail)?.f_type as i64;
        if magic != NSFS {
            return Err(NetnsError::NotANamespace(path.into()));
        }
        let real = format!("/proc/self/fd/{}", probe.as_raw_fd());
        let fd = rustix::fs::open(real, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        let theirs = rustix::fs::fstat(&fd).map_err(fail)?;
        let ours = rustix::fs::stat(OWN).map_err(fail)?;
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) {
            return Err(NetnsError::Own(path.into()));
        }
        Ok(Netns { fd: Arc::new(fd), path: path.into() })
    }

    /// The open descriptor, for requests that name a namespace by it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The threads that visit namespaces. Clones are the same.
#[derive(Debug, Clone)]
pub struct Visitors {
    crew: Crew,
    /// Where they come from and rest.
    home: Arc<OwnedFd>,
}

impl Visitors {
    /// No thread yet. Each will rest in the namespace that the calling thread is in.
    ///
    /// # Errors
    /// There is no descriptor to spare, or no `/proc`.
    pub fn new() -> io::Result<Visitors> {
        let home = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Visitors { crew: Crew::new("netns", VISITORS_AT_REST), home: Arc::new(home) })
    }

    /// Begins to run `work` inside `netns`, beside whatever the caller does until it waits for the end.
    ///
    /// # Errors
    /// [`NetnsError::Enter`] when there is no thread for it. `work` does not run then.
    pub fn visit<T: Send + 'static>(
        &self,
        netns: &Netns,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Visit<T>, NetnsError> {
        let (tell, outcome) = channel();
        let (there, home) = (netns.fd.clone(), self.home.clone());
        let begun = self.crew.begin(move || {
            let (done, afterwards) = match enter(&there) {
                Ok(()) => {
                    failpoint::pass("netns.entered").ok();
                    let done = work();
                    (Ok(done), if enter(&home).is_ok() { Afterwards::Stay } else { Afterwards::End })
                }
                Err(errno) => (Err(errno), Afterwards::Stay),
            };
            // Nobody hears of it who has dropped the visit.
            tell.send(done).ok();
            afterwards
        });
        begun.map_err(|error| NetnsError::Enter { path: netns.path.clone(), error })?;
        Ok(Visit { path: netns.path.clone(), outcome })
    }
}

/// A closure that runs inside a namespace.
#[derive(Debug)]
pub struct Visit<T> {
    path: PathBuf,
    outcome: Receiver<rustix::io::Result<T>>,
}

impl<T> Visit<T> {
    /// Waits for its end, which no work that is done inside keeps waiting: it opens sockets, and reads or writes settings.
    ///
    /// # Errors
    /// [`NetnsError::Enter`] when the kernel refused, [`NetnsError::NotANamespace`] when it is a namespace of another kind. `work`
    /// did not run then.
    pub fn wait(self) -> Result<T, NetnsError> {
        // The other side always tells; if it ever did not, nothing was done that we know of.
        self.outcome.recv().unwrap_or(Err(Errno::IO)).map_err(|errno| match errno {
            Errno::INVAL => NetnsError::NotANamespace(self.path),
            other => NetnsError::Enter { path: self.path, error: other.into() },
        })
    }
}

fn enter(fd: &OwnedFd) -> rustix::io::Result<()> {
    move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))
}
