//! Network namespaces: open one safely, and run a closure inside it on a thread that ends there.
//!
//! No other code enters a namespace, and no thread that does something else afterwards ever does: a thread that failed to
//! come back would program the host from inside a pod.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::failpoint;

/// File system of namespace files (`NSFS_MAGIC`).
const NSFS: i64 = 0x6e73_6673;

/// An open network namespace. Its path may be removed or replaced meanwhile; this stays the same namespace.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
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
        let ours = rustix::fs::stat("/proc/thread-self/ns/net").map_err(fail)?;
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) {
            return Err(NetnsError::Own(path.into()));
        }
        Ok(Netns { fd, path: path.into() })
    }

    /// Runs `work` inside the namespace, on a thread of its own that ends with it, and waits for it.
    ///
    /// # Errors
    /// [`NetnsError::Enter`] when the thread could not be made or the kernel refused, [`NetnsError::NotANamespace`] when
    /// it is a namespace of another kind. `work` did not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let enter = |error| NetnsError::Enter { path: self.path.clone(), error };
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
                failpoint::pass("netns.entered").ok();
                Ok(work())
            });
            let joined = inside.map_err(enter)?.join();
            // A panic aborts the process, so a join cannot fail; if it ever did, nothing was done that we know of.
            let result: rustix::io::Result<T> = joined.map_err(|_| enter(io::ErrorKind::Other.into()))?;
            result.map_err(|errno| match errno {
                rustix::io::Errno::INVAL => NetnsError::NotANamespace(self.path.clone()),
                other => enter(other.into()),
            })
        })
    }

    /// The open descriptor, for requests that name a namespace by it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
