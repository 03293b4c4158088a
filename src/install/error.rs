//! Why an installation was not done, or not to the end, in the words of who runs it.
//!
//! Every text names the remedy where there is one. Must not decide anything.

use std::fmt;
use std::path::PathBuf;

use crate::install::host::HostError;
use crate::install::plan::Refusal;
use crate::install::site::SiteError;
use crate::install::tree::Obstacle;
use crate::record::disk::DiskError;

/// Why it was not done, or not to the end.
#[derive(Debug)]
pub enum InstallError {
    /// By what stands there.
    Refused(Refusal),
    /// A file could not be read or changed.
    Disk(DiskError),
    /// The host could not be asked or changed.
    Host(HostError),
    /// There is no place for a file.
    Site(SiteError),
    /// Nothing can be put into this directory; with what to do.
    Unusable(PathBuf, Obstacle, &'static str),
    /// Another installation is under way in this directory.
    Locked(PathBuf),
    /// There is no such file.
    NoPlugin(PathBuf),
    /// The file is another program.
    NotThePlugin(PathBuf),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Refused(refusal) => write!(f, "{refusal}"),
            InstallError::Disk(error) => write!(f, "{error}"),
            InstallError::Host(error) => write!(f, "{error}"),
            InstallError::Site(error) => write!(f, "{error}"),
            InstallError::Unusable(directory, obstacle, remedy) => {
                write!(f, "{} {obstacle}: {remedy}", directory.display())
            }
            InstallError::Locked(root) => write!(f, "another installation is under way in {}", root.display()),
            InstallError::NoPlugin(path) => {
                write!(f, "there is no plugin at {}: name it by --plugin FILE", path.display())
            }
            InstallError::NotThePlugin(path) => {
                write!(f, "{} is not the plugin of flock: name it by --plugin FILE", path.display())
            }
        }
    }
}

impl From<DiskError> for InstallError {
    fn from(error: DiskError) -> InstallError {
        InstallError::Disk(error)
    }
}

impl From<Refusal> for InstallError {
    fn from(refusal: Refusal) -> InstallError {
        InstallError::Refused(refusal)
    }
}

impl From<HostError> for InstallError {
    fn from(error: HostError) -> InstallError {
        InstallError::Host(error)
    }
}

impl From<SiteError> for InstallError {
    fn from(error: SiteError) -> InstallError {
        InstallError::Site(error)
    }
}
