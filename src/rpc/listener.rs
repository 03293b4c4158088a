//! The bound socket: one that a service manager hands over, or one of the agent's own, and how to tell either from what somebody
//! else has put at its path.
//!
//! Must not accept connections, which is the server's, nor know requests.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};

use crate::process::failpoint;
use crate::record::disk::DiskError;
use crate::rpc::client::{LOOK, connect_once};

/// Permissions of a socket that the agent has bound itself: only its owner and root may call.
const SOCKET_MODE: u32 = 0o600;

/// A bound socket. Callers queue from now on, and are served once a server has it.
#[derive(Debug)]
pub struct Listener {
    pub(super) listener: UnixListener,
    pub(super) path: PathBuf,
    pub(super) standing: Standing,
}

/// What callers find at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The socket that the agent has bound. It goes with the server.
    Own(Identity),
    /// The socket of the service manager, whose next agent has it.
    HandedOver(Identity),
    /// Not the socket of the service manager, whose file was removed or replaced before the agent started.
    Lost,
}

impl Standing {
    pub(super) fn identity(self) -> Option<Identity> {
        match self {
            Standing::Own(identity) | Standing::HandedOver(identity) => Some(identity),
            Standing::Lost => None,
        }
    }
}

/// A file, whatever its name. The kernel gives the number of a bound socket to no other file for as long as it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    /// The permissions that it should have.
    pub(super) mode: u32,
}

impl Identity {
    fn of(found: &Metadata) -> Identity {
        Identity { device: found.dev(), inode: found.ino(), mode: found.mode() & 0o7777 }
    }

    pub(super) fn is(self, found: &Metadata) -> bool {
        (self.device, self.inode) == (found.dev(), found.ino())
    }
}

/// Why there is no socket to serve.
#[derive(Debug)]
pub enum BindError {
    /// The socket on standard input is not the one that plugins look for.
    Other {
        /// What it is.
        given: String,
        /// The path where plugins look.
        path: PathBuf,
    },
    /// Another agent answers there.
    InUse(PathBuf),
    /// The directory of the socket is missing and cannot be made, or is not safe to use.
    Directory(DiskError),
    /// Something that is no socket stands in its place.
    NotASocket(PathBuf),
    /// The system refused.
    Io {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Other { given, path } => write!(
                f,
                "the service manager hands over {given}, but --socket is {}; ListenStream= of the socket unit has to name \
                 the same",
                path.display()
            ),
            BindError::InUse(path) => write!(f, "another agent listens on {}", path.display()),
            BindError::Directory(error) => write!(f, "{error}"),
            BindError::NotASocket(path) => write!(f, "{} is not a socket; move it away", path.display()),
            BindError::Io { path, error } => write!(f, "listen on {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BindError {}

impl Listener {
    /// Whether a service manager holds the socket, so that callers wait while agents come and go.
    pub fn is_handed_over(&self) -> bool {
        matches!(self.standing, Standing::HandedOver(_) | Standing::Lost)
    }

    /// The listening socket that `stdin` is, when a service manager has put one there (`StandardInput=socket`): it holds the
    /// socket while agents come and go, so that callers wait instead of being refused. None if `stdin` is anything else.
    ///
    /// Standard input and not `LISTEN_FDS`, since a descriptor that is known by its number only cannot be owned in safe
    /// Rust, and would be inherited by every program that the agent runs.
    ///
    /// # Errors
    /// [`BindError::Other`] if it is no unix stream socket, or not bound to `path`.
    pub fn handed_over(stdin: impl AsFd, path: &Path) -> Result<Option<Listener>, BindError> {
        let stdin = stdin.as_fd();
        if !sockopt::socket_acceptconn(stdin).unwrap_or(false) {
            return Ok(None);
        }
        let other = |given: String| BindError::Other { given, path: path.into() };
        let io = |error| BindError::Io { path: path.into(), error };
        let kind = (sockopt::socket_domain(stdin), sockopt::socket_type(stdin));
        if kind != (Ok(AddressFamily::UNIX), Ok(SocketType::STREAM)) {
            return Err(other("a socket that is no unix stream socket".into()));
        }
        let listener = UnixListener::from(stdin.try_clone_to_owned().map_err(io)?);
        let bound = listener.local_addr().map_err(io)?;
        match bound.as_pathname() {
            Some(bound) if bound == path => {}
            Some(bound) => return Err(other(bound.display().to_string())),
            None => return Err(other("a socket without a path".into())),
        }
        listener.set_nonblocking(true).map_err(io)?;
        // A descriptor does not tell which file it was bound to. That of an earlier agent is gone or dead by now, so one that
        // takes callers is the manager's.
        let standing = match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() && somebody_listens(path) => {
                Standing::HandedOver(Identity::of(&found))
            }
            _ => Standing::Lost,
        };
        Ok(Some(Listener { listener, path: path.into(), standing }))
    }

    /// Listens on `path`, mode 0600. A socket that a dead agent left is replaced; one that answers is not.
    ///
    /// # Errors
    /// Every variant of [`BindError`].
    pub fn bind(path: &Path) -> Result<Listener, BindError> {
        let io = |error| BindError::Io { path: path.into(), error };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket(path.into())),
            Ok(_) if somebody_listens(path) => return Err(BindError::InUse(path.into())),
            _ => {}
        }
        // Bound beside its name and renamed, so that the socket never exists with other rights, and callers never see a gap.
        // One name for all, so that an agent killed in between leaves nothing that its successor does not take away.
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&beside).map_err(io)?;
        let settled = fs::set_permissions(&beside, fs::Permissions::from_mode(SOCKET_MODE))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::symlink_metadata(&beside))
            .and_then(|bound| failpoint::pass("socket.rename").map(|()| bound))
            .and_then(|bound| fs::rename(&beside, path).map(|()| bound));
        match settled {
            Ok(bound) => {
                let standing = Standing::Own(Identity::of(&bound));
                Ok(Listener { listener, path: path.into(), standing })
            }
            Err(error) => {
                fs::remove_file(&beside).ok();
                Err(io(error))
            }
        }
    }
}

/// Whether somebody listens at `path`. A full backlog is somebody's, too, and a connect that a signal interrupted counts as one.
fn somebody_listens(path: &Path) -> bool {
    match connect_once(path, Instant::now() + LOOK) {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}
