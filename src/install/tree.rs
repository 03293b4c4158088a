//! The directory tree that is installed into: the machine's own, or an image below some directory.
//!
//! Paths are those of the machine that will run from the tree. Each is looked up inside it, so that an absolute link in an
//! image (`/opt` to `/var/opt`) leads into the image and never out of it. Every change is whole: a file has the old or the
//! new content under its name, whoever looks and whenever this program is killed. Must not decide what is changed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags, StatVfsMountFlags, accessat, flock,
    fstatvfs, mkdirat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use crate::process::failpoint;
use crate::record::disk::DiskError;
use crate::record::replacement::Replacement;

/// Most tries to look up a directory that the kernel cannot vouch for at the moment. A second one nearly always succeeds.
const RESOLVE_TRIES: usize = 128;

/// Longest text that is read whole, 1 MiB.
const TEXT_MAX: u64 = 1024 * 1024;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file.
    File {
        /// What it holds.
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// It belongs to the user that this program runs as.
        own: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a socket or a device.
    Special,
}

/// Why nothing can be put into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its file system is read-only.
    ReadOnly,
    /// This user may not.
    Denied,
    /// Programs cannot be run from its file system.
    NoPrograms,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::ReadOnly => "is on a read-only file system",
            Obstacle::Denied => "cannot be changed by this user",
            Obstacle::NoPrograms => "is on a file system that is mounted noexec, from which no program can be run",
        })
    }
}

/// The tree.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// The tree below `path`, which must be a directory.
    ///
    /// # Errors
    /// `path` is no directory, or cannot be opened.
    pub fn open(path: &Path) -> Result<Tree, DiskError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => Ok(Tree { root, path: path.into() }),
            Err(error) => Err(DiskError { operation: "open directory", path: path.into(), error: error.into() }),
        }
    }

    /// One installation at a time, as long as the lock is held: whoever has it may take temporary files of others for what a
    /// killed one has left. None if another one is under way. The lock is on the directory `path`, or on the tree without one.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn lock(&self, path: &Path) -> Result<Option<OwnedFd>, DiskError> {
        let directory = match self.directory(path)? {
            Some(directory) => directory,
            None => self.root.try_clone().map_err(|error| self.error("open directory", path, error))?,
        };
        // A file system without locks cannot tell, and does not keep anybody away either.
        let locked = flock(&directory, FlockOperation::NonBlockingLockExclusive);
        Ok((locked != Err(Errno::AGAIN)).then_some(directory))
    }

    /// Where `path` is, seen from outside the tree, for texts.
    pub fn shown(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What stands at `path`; the last component is not followed.
    ///
    /// # Errors
    /// It cannot be found out, or something else than a directory is above it.
    pub fn look(&self, path: &Path) -> Result<Found, DiskError> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(Found::Nothing) };
        let fail = |error: Errno| self.error("look at", path, error.into());
        let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            other => other.map_err(fail)?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Found::Directory),
            FileType::Symlink => Ok(Found::Link),
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let mut file = File::from(openat(&dir, name, flags, Mode::empty()).map_err(fail)?);
                let mut content = Vec::new();
                file.read_to_end(&mut content).map_err(|error| self.error("read", path, error))?;
                let own = stat.st_uid == rustix::process::geteuid().as_raw();
                Ok(Found::File { content, mode: stat.st_mode & 0o7777, own })
            }
            _ => Ok(Found::Special),
        }
    }

    /// Whether anything stands at `path`; the last component is not followed.
    ///
    /// # Errors
    /// It cannot be found out.
    pub fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(false) };
        match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.error("look at", path, error.into())),
            Ok(_) => Ok(true),
        }
    }

    /// The text of the regular file to which `path` leads, in which bytes that are no text are replaced; none if it leads to
    /// nothing. Waits for nobody.
    ///
    /// # Errors
    /// It cannot be read, is no regular file, or is longer than `TEXT_MAX`.
    pub fn text(&self, path: &Path) -> Result<Option<String>, DiskError> {
        let read = || -> io::Result<String> {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(self.resolve(path, flags)?);
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            let mut bytes = Vec::new();
            file.take(TEXT_MAX + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > TEXT_MAX {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(self.error("read", path, error)),
        }
    }

    /// A text file that is to be written back: its text and its permissions; none if no regular file is there.
    ///
    /// # Errors
    /// It cannot be read, or is no text and so could not be written back as it was.
    pub fn text_as_it_is(&self, path: &Path) -> Result<Option<(String, u32)>, DiskError> {
        let Found::File { content, mode, .. } = self.look(path)? else { return Ok(None) };
        let text = String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8"));
        text.map(|text| Some((text, mode))).map_err(|error| self.error("read", path, error))
    }

    /// The directories at and above `path` that are missing, the highest first.
    ///
    /// # Errors
    /// Something else is in the place of one.
    pub fn missing(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        let mut missing: Vec<PathBuf> = Vec::new();
        for directory in path.ancestors() {
            if self.directory(directory)?.is_some() {
                break;
            }
            if self.look(directory)? == Found::Link {
                let error =
                    io::Error::other("it is a symbolic link that leads nowhere; remove it, or make what it names");
                return Err(self.error("use directory", directory, error));
            }
            missing.push(directory.into());
        }
        missing.reverse();
        Ok(missing)
    }

    /// What keeps anybody from putting files into the directory `path`, or from making it where it is missing.
    ///
    /// # Errors
    /// It cannot be found out.
    pub fn obstacle(&self, path: &Path) -> Result<Option<Obstacle>, DiskError> {
        let Some(directory) = self.nearest(path)? else { return Ok(None) };
        match accessat(&directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()) {
            Ok(()) => Ok(None),
            Err(Errno::ROFS) => Ok(Some(Obstacle::ReadOnly)),
            Err(Errno::ACCESS | Errno::PERM) => Ok(Some(Obstacle::Denied)),
            Err(error) => Err(self.error("look at", path, error.into())),
        }
    }

    /// What keeps programs in the directory `path` from being run on this machine.
    ///
    /// # Errors
    /// It cannot be found out.
    pub fn obstacle_to_programs(&self, path: &Path) -> Result<Option<Obstacle>, DiskError> {
        let Some(directory) = self.nearest(path)? else { return Ok(None) };
        let found = fstatvfs(&directory).map_err(|error| self.error("look at", path, error.into()))?;
        Ok(found.f_flag.contains(StatVfsMountFlags::NOEXEC).then_some(Obstacle::NoPrograms))
    }

    /// The directory `path`, or the one above it that is there.
    fn nearest(&self, path: &Path) -> Result<Option<OwnedFd>, DiskError> {
        for directory in path.ancestors() {
            if let Some(found) = self.directory(directory)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The names in the directory `path`, sorted; none if there is no such directory.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>, DiskError> {
        let Some(dir) = self.directory(path)? else { return Ok(Vec::new()) };
        let entries = Dir::read_from(&dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(|error| self.error("list", path, error.into()))?;
        let names = entries.iter().map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
        let mut names: Vec<OsString> = names.filter(|name| name != "." && name != "..").collect();
        names.sort();
        Ok(names)
    }

    /// Temporary files of `path` that a killed installation (or a killed agent, for the CNI configuration) has left.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn leftovers(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
        let mut left = Vec::new();
        for candidate in self.names(directory)? {
            let candidate_path = directory.join(&candidate);
            if is_temporary(&candidate, name) && matches!(self.look(&candidate_path)?, Found::File { .. }) {
                left.push(candidate_path);
            }
        }
        Ok(left)
    }

    /// Makes the directory `path`, in one that is there.
    ///
    /// # Errors
    /// It was not made.
    pub fn make_directory(&self, path: &Path) -> Result<(), DiskError> {
        let (dir, name) = self.place(path)?;
        let made = failpoint::pass("install.mkdir").and_then(|()| match mkdirat(&dir, name, Mode::from(0o755)) {
            Err(Errno::EXIST) => Ok(()),
            other => Ok(other?),
        });
        made.and_then(|()| sync(&dir)).map_err(|error| self.error("make directory", path, error))
    }

    /// Gives the file `path` this content and these permissions, in place of whatever file bore its name.
    ///
    /// # Errors
    /// The old file, if any, is in place, or the new one.
    pub fn put(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), DiskError> {
        let (dir, name) = self.place(path)?;
        // In the same directory, since a runtime does not notice what comes from another one; with an ending that nobody loads.
        let replacement = Replacement { dir: dir.as_fd(), name, beside: &temporary(name), mode };
        replacement.write(content).map_err(|error| self.error("install", path, error))
    }

    /// Removes the file or link `path`; a missing one is fine.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.unlink(path, AtFlags::empty())
    }

    /// Removes the directory `path` if nothing is in it.
    ///
    /// # Errors
    /// It is still there and empty.
    pub fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.unlink(path, AtFlags::REMOVEDIR)
    }

    fn unlink(&self, path: &Path, flags: AtFlags) -> Result<(), DiskError> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        let removed = failpoint::pass("uninstall.remove").and_then(|()| match unlinkat(&dir, name, flags) {
            Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            other => Ok(other?),
        });
        let removed = removed.and_then(|()| failpoint::pass("uninstall.removed"));
        removed.and_then(|()| sync(&dir)).map_err(|error| self.error("remove", path, error))
    }

    /// Removes the directory `path` with all that is in it; links are removed and not followed.
    ///
    /// # Errors
    /// Something of it is still there.
    pub fn remove_all(&self, path: &Path) -> Result<(), DiskError> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        // The library removes trees safely, but only by a path.
        let by_path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
        let removed = failpoint::pass("uninstall.remove").and_then(|()| match fs::remove_dir_all(by_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        removed.and_then(|()| sync(&dir)).map_err(|error| self.error("remove", path, error))
    }

    /// The directory `path`, or none if it is missing.
    fn directory(&self, path: &Path) -> Result<Option<OwnedFd>, DiskError> {
        match self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("open directory", path, error)),
        }
    }

    /// Opens what `path` leads to inside the tree.
    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = || -> io::Result<OwnedFd> {
            failpoint::pass("install.resolve")?;
            Ok(openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
        };
        // While anything is renamed or mounted anywhere on the machine, the kernel cannot vouch for where `..` of a link leads,
        // and wants to be asked again.
        let tries = std::iter::repeat_with(resolve).take(RESOLVE_TRIES);
        let mut tries =
            tries.skip_while(|tried| matches!(tried, Err(error) if error.kind() == io::ErrorKind::WouldBlock));
        tries.next().unwrap_or_else(|| Err(Errno::AGAIN.into()))
    }

    /// The directory that holds `path`, unless that is missing, and the name in it.
    fn parent<'a>(&self, path: &'a Path) -> Result<Option<(OwnedFd, &'a OsStr)>, DiskError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        Ok(self.directory(parent)?.map(|dir| (dir, name)))
    }

    fn place<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), DiskError> {
        let missing = || self.error("find the directory of", path, io::ErrorKind::NotFound.into());
        self.parent(path)?.ok_or_else(missing)
    }

    fn error(&self, operation: &'static str, path: &Path, error: io::Error) -> DiskError {
        DiskError { operation, path: self.shown(path), error }
    }
}

fn sync(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(dir)?)
}

/// `.NAME.PID-RANDOM.tmp`
fn temporary(name: &OsStr) -> OsString {
    let mut random = [0u8; 8];
    // The process id alone keeps installations apart that see each other; `O_EXCL` tells of the rest.
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK).ok();
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:x}-{:016x}.tmp", std::process::id(), u64::from_ne_bytes(random)));
    temporary
}

/// Whether `candidate` is what [`temporary`] makes of `name`, or what the agent makes of its CNI configuration.
fn is_temporary(candidate: &OsStr, name: &OsStr) -> bool {
    let middle = candidate
        .as_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".tmp"));
    middle.is_some_and(|text| !text.is_empty() && text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_are_recognised_and_no_others() {
        let name = OsStr::new("01-flock.conflist");
        assert!(is_temporary(&temporary(name), name));
        assert!(is_temporary(OsStr::new(".01-flock.conflist.4711.tmp"), name), "as the agent names its own");
        for other in
            ["01-flock.conflist", ".01-flock.conflist..tmp", ".01-flock.conflist.swp", ".01-flock.conflist.bak.tmp"]
        {
            assert!(!is_temporary(OsStr::new(other), name), "{other}");
        }
        assert!(!is_temporary(&temporary(OsStr::new("flock-agent")), OsStr::new("flock")));
    }
}
