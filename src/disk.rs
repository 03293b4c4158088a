//! The file operations that state depends on, behind a trait: the seam where crash tests lose writes and fill the disk.
//!
//! Names are plain file names inside one directory, chosen by this program. Must not know formats.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

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

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.error)
    }
}

impl std::error::Error for DiskError {}

/// What a store may do to its directory. Written bytes are durable after `sync` of the file; names after `rename` and
/// `remove` return.
pub trait Disk: Send {
    /// The whole file, or none if there is no such file.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError>;
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

    /// Gives the file `name` this content, whole and durable. It is written as `fresh` first, a name for this alone.
    ///
    /// # Errors
    /// The old or the new content is in force, each whole.
    fn replace(&mut self, fresh: &str, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.remove(fresh)?;
        self.append(fresh, bytes)?;
        self.sync(fresh)?;
        self.rename(fresh, name)
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
    /// It could not be made.
    pub fn open(path: &Path) -> Result<Directory, DiskError> {
        make_private_dir(path)?;
        Ok(Directory { path: path.into(), open: None })
    }

    fn file(&mut self, name: &str) -> Result<&mut File, DiskError> {
        let file = match self.open.take() {
            Some((open, file)) if open == name => file,
            _ => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(self.path.join(name))
                .map_err(|error| self.error("open", name, error))?,
        };
        Ok(&mut self.open.insert((name.into(), file)).1)
    }

    fn error(&self, operation: &'static str, name: &str, error: io::Error) -> DiskError {
        DiskError { operation, path: self.path.join(name), error }
    }

    fn sync_names(&self) -> Result<(), DiskError> {
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(|error| self.error("sync", "", error))
    }
}

impl Disk for Directory {
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let mut bytes = Vec::new();
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
            .open(self.path.join(name));
        match opened.and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("read", name, error)),
        }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let written = self.file(name)?.write_all(bytes);
        written.map_err(|error| self.error("append to", name, error))
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let synced = self.file(name)?.sync_data();
        synced.map_err(|error| self.error("sync", name, error))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.open = None;
        let renamed = fs::rename(self.path.join(from), self.path.join(to));
        renamed.map_err(|error| self.error("rename", from, error))?;
        self.sync_names()
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.open = None;
        match fs::remove_file(self.path.join(name)) {
            Ok(()) => self.sync_names(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.error("remove", name, error)),
        }
    }
}

/// Makes a directory, and those above it, that only its owner may enter.
///
/// # Errors
/// It could not be made.
pub fn make_private_dir(path: &Path) -> Result<(), DiskError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| DiskError { operation: "make directory", path: path.into(), error })
}
