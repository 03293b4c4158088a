//! The file operations that state depends on, behind a trait: the seam where crash tests lose writes and fill the disk.
//!
//! Names are plain file names inside one directory, chosen by this program. Must not know formats.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::process::failpoint;
use crate::process::foreign_file::open_regular;
use crate::record::replacement::Replacement;

/// An operation on a file of the directory that failed.
#[derive(Debug)]
pub struct DiskError {
    /// What was tried (`append to`, `sync`, …).
    pub operation: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    pub error: io::Error,
}

impl Clone for DiskError {
    /// A clone for each of the changes that one operation was to make durable.
    fn clone(&self) -> DiskError {
        let error = match self.error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(self.error.kind(), self.error.to_string()),
        };
        DiskError { operation: self.operation, path: self.path.clone(), error }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.error)
    }
}

impl std::error::Error for DiskError {}

/// What the lease log needs of its directory. Written bytes are durable after `sync` of the file; names after `rename` and
/// `remove` return.
pub trait Disk: Send {
    /// The whole file, or none if there is no such file.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError>;
    /// The names of everything in the directory, in no order.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn names(&mut self) -> Result<Vec<String>, DiskError>;
    /// Adds bytes at the end of the file, which is made if it is missing.
    ///
    /// # Errors
    /// Some, all or none of the bytes may have been added.
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError>;
    /// Waits until everything appended to the file is durable.
    ///
    /// # Errors
    /// What was not durable before may be lost, even if a later call succeeds.
    fn sync(&mut self, name: &str) -> Result<(), DiskError>;
    /// Gives a file another name, in place of whatever bore it, and makes that durable.
    ///
    /// # Errors
    /// Either name may be in force.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file; a missing one is fine.
    ///
    /// # Errors
    /// The file may still be there.
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;

    /// Whether what was appended to `name` can no longer be found under that name: somebody has removed or replaced the file.
    fn is_lost(&mut self, name: &str) -> bool;

    /// Writes a file anew, whole and durable. Not for a file that somebody may want to read meanwhile.
    ///
    /// # Errors
    /// There may be no such file, or a part of it.
    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.remove(name)?;
        self.append(name, bytes)?;
        self.sync(name)
    }
}

/// A real directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The file that is being appended to.
    open: Option<(String, File)>,
}

impl Directory {
    /// The directory at `path`, made with mode 0700 if it is missing.
    ///
    /// # Errors
    /// It could not be made, or is not safe to use.
    pub fn open(path: &Path) -> Result<Directory, DiskError> {
        make_private_dir(path)?;
        Ok(Directory { path: path.into(), open: None })
    }

    /// Gives the file `name` this content, whole and durable. It is written as `fresh` first, a name for this alone.
    ///
    /// # Errors
    /// The old or the new content is in force, each whole.
    pub fn replace(&mut self, fresh: &str, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let replaced = File::open(&self.path).and_then(|dir| {
            let names = (OsStr::new(name), OsStr::new(fresh));
            Replacement { dir: dir.as_fd(), name: names.0, beside: names.1, mode: 0o600 }.write(bytes)
        });
        replaced.map_err(|error| self.error("replace", name, error))
    }

    fn file(&mut self, name: &str) -> Result<&mut File, DiskError> {
        let open = || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                // A link is not followed, and a FIFO does not block.
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(self.path.join(name))
        };
        let file = match self.open.take() {
            Some((open, file)) if open == name => file,
            _ => match open() {
                // Somebody has removed the directory since it was made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_private_dir(&self.path).map(|()| open())?
                }
                other => other,
            }
            .map_err(|error| self.error("open", name, error))?,
        };
        Ok(&mut self.open.insert((name.into(), file)).1)
    }

    fn error(&self, operation: &'static str, name: &str, error: io::Error) -> DiskError {
        DiskError { operation, path: self.path.join(name), error }
    }

    fn sync_names(&self) -> Result<(), DiskError> {
        let synced = failpoint::pass("disk.sync-names")
            .and_then(|()| File::open(&self.path))
            .and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.error("sync", "", error))
    }
}

impl Disk for Directory {
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let mut bytes = Vec::new();
        let opened = failpoint::pass("disk.read").and_then(|()| open_regular(&self.path.join(name), OFlags::NOFOLLOW));
        match opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("read", name, error)),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, DiskError> {
        let names = fs::read_dir(&self.path).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<_>>()
        });
        names.map_err(|error| self.error("list", "", error))
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let file = self.file(name)?;
        let written = failpoint::pass("disk.append").and_then(|()| file.write_all(bytes));
        written.and_then(|()| failpoint::pass("disk.appended")).map_err(|error| self.error("append to", name, error))
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let file = self.file(name)?;
        let synced = failpoint::pass("disk.sync").and_then(|()| file.sync_data());
        synced.and_then(|()| failpoint::pass("disk.synced")).map_err(|error| self.error("sync", name, error))
    }

    fn is_lost(&mut self, name: &str) -> bool {
        let file = self.open.as_ref().filter(|(open, _)| open == name).and_then(|(_, file)| file.metadata().ok());
        let named = fs::symlink_metadata(self.path.join(name)).ok();
        let lost = match (file, named) {
            (Some(file), Some(named)) => (file.dev(), file.ino()) != (named.dev(), named.ino()),
            (_, named) => named.is_none(),
        };
        if lost {
            self.open = None;
        }
        lost
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.open = None;
        let renamed =
            failpoint::pass("disk.rename").and_then(|()| fs::rename(self.path.join(from), self.path.join(to)));
        renamed.and_then(|()| failpoint::pass("disk.renamed")).map_err(|error| self.error("rename", from, error))?;
        self.sync_names()
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.open = None;
        match failpoint::pass("disk.remove").and_then(|()| fs::remove_file(self.path.join(name))) {
            Ok(()) => self.sync_names(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.error("remove", name, error)),
        }
    }
}

/// Makes a directory, and those above it, that only its owner may enter. One that is there already is taken as it is if
/// nobody but this user and root can change what it holds: others could put a link in the place of any file. That others
/// may look into it does no harm, since every file of flock has mode 0600, and the directory may be an administrator's.
///
/// # Errors
/// It could not be made, or is not safe to use; the text says what to do.
pub fn make_private_dir(path: &Path) -> Result<(), DiskError> {
    let fail = |operation| move |error| DiskError { operation, path: path.into(), error };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    // Something else of that name is an error of `create` as well, which says less about it.
    let found = match (fs::symlink_metadata(path), made) {
        (Ok(found), _) => found,
        (Err(_), Err(error)) => return Err(fail("make directory")(error)),
        (Err(error), Ok(())) => return Err(fail("look at directory")(error)),
    };
    check_private(&found).map_err(|why| fail("use directory")(io::Error::other(why)))
}

/// Makes a directory as [`make_private_dir`] does and opens it, for one that is locked. Others may not even open it: whoever
/// can, can hold a lock on it for ever, and so keep flock away from it.
///
/// # Errors
/// It could not be made or opened, or is not safe to use; the text says what to do.
pub fn open_lockable_dir(path: &Path) -> Result<File, DiskError> {
    make_private_dir(path)?;
    let fail = |operation| move |error| DiskError { operation, path: path.into(), error };
    let directory = File::open(path).map_err(fail("open"))?;
    let mode = directory.metadata().map_err(fail("look at directory"))?.mode();
    if mode & 0o077 != 0 {
        let why = format!("others may open it (mode {:04o}) and could lock it; chmod 0700", mode & 0o7777);
        return Err(fail("use directory")(io::Error::other(why)));
    }
    Ok(directory)
}

fn check_private(found: &Metadata) -> Result<(), String> {
    if !found.is_dir() {
        let kind = if found.is_symlink() { "a symbolic link" } else { "something else" };
        return Err(format!("it is {kind}; remove it, or name a directory"));
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own && found.uid() != 0 {
        return Err(format!("it belongs to user {}; remove it, or chown it to root", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!("others may write into it (mode {:04o}); chmod go-w", found.mode() & 0o7777));
    }
    Ok(())
}
