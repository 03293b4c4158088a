//! Copies of flock that a package of the distribution has put in place and renews.
//!
//! Asks dpkg's lists, and goes by the directories in which only packages put files. Must not run a package manager.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::install::tree::Tree;
use crate::record::disk::DiskError;

/// Where dpkg keeps the lists of what its packages have installed.
const DPKG: &str = "/var/lib/dpkg/info";

/// What only a package installs, and what it cannot do without.
const MARKS: [&str; 2] = ["/usr/lib/systemd/system/flock-agent.service", "/lib/systemd/system/flock-agent.service"];

/// A package whose files are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name, where that is known.
    name: Option<String>,
    /// Its files, as far as they are known.
    files: Vec<PathBuf>,
}

impl Package {
    /// The package in `tree`, if there is one.
    ///
    /// # Errors
    /// A file or directory cannot be read.
    pub fn find(tree: &Tree) -> Result<Option<Package>, DiskError> {
        let mut mark = None;
        for candidate in MARKS.map(Path::new) {
            if mark.is_none() && tree.exists(candidate)? {
                mark = Some(candidate.to_path_buf());
            }
        }
        // What was configured and is removed leaves its list behind, and no unit.
        let Some(mark) = mark else { return Ok(None) };
        for name in tree.names(Path::new(DPKG))? {
            let Some(package) = name.to_str().and_then(|name| name.strip_suffix(".list")) else { continue };
            if !package.starts_with("flock") {
                continue;
            }
            let text = tree.text(&Path::new(DPKG).join(&name))?.unwrap_or_default();
            let files: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
            if files.iter().any(|file| file.ends_with("systemd/system/flock-agent.service")) {
                let name = package.split(':').next().unwrap_or(package).to_owned();
                return Ok(Some(Package { name: Some(name), files }));
            }
        }
        Ok(Some(Package { name: None, files: vec![mark] }))
    }

    /// Whether a file is the package's, as far as that is known: of a package whose list is not, everything but what an
    /// installation puts where packages put nothing.
    pub fn owns(&self, file: &Path) -> bool {
        match self.name {
            Some(_) => self.files.iter().any(|own| own == file),
            None => !["/etc", "/usr/local", "/opt", "/var", "/srv"].iter().any(|dir| file.starts_with(dir)),
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.files.first()) {
            (Some(name), _) => write!(f, "the package {name} (dpkg -L {name} lists its files)"),
            (None, Some(mark)) => write!(f, "a package (rpm -qf {} names it)", mark.display()),
            (None, None) => f.write_str("a package"),
        }
    }
}
