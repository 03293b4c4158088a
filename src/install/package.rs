//! Copies of flock that a package of the distribution has put in place and renews.
//!
//! Goes by the directories in which only packages put files: what a package manager keeps of its packages is its own. Must not run
//! one.

use std::fmt;
use std::path::Path;

use crate::install::defaults::DEFAULTS;
use crate::install::tree::Tree;
use crate::record::disk::DiskError;

/// What only a package installs, and what it cannot do without.
const MARKS: [&str; 2] = ["/usr/lib/systemd/system/flock-agent.service", "/lib/systemd/system/flock-agent.service"];

/// Where packages put no programs and no units.
const OF_OTHERS: [&str; 5] = ["/etc", "/usr/local", "/opt", "/var", "/srv"];

/// A package whose files are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// The file that says so.
    mark: &'static str,
}

impl Package {
    /// The package in `tree`, if there is one.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn find(tree: &Tree) -> Result<Option<Package>, DiskError> {
        for mark in MARKS {
            if tree.exists(Path::new(mark))? {
                return Ok(Some(Package { mark }));
            }
        }
        Ok(None)
    }

    /// Whether a file of flock's is the package's: the operator's flags, which it brings, and everything else but
    /// what an installation puts where packages put nothing.
    pub fn owns(&self, file: &Path) -> bool {
        file == Path::new(DEFAULTS) || !OF_OTHERS.iter().any(|dir| file.starts_with(dir))
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a package (dpkg -S or rpm -qf {} names it)", self.mark)
    }
}
