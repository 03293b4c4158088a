//! Programs that run beside the caller, by the names that the kernel shows.
//!
//! Those of other network namespaces are other hosts' or pods' own, and are left out. Must not tell what any of them is for.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::process::foreign_file;

/// Longest command line that is read, 1 MiB.
const COMMAND_MAX: u64 = 1 << 20;

/// One that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its directory below `/proc`.
    pub dir: PathBuf,
    /// Its name.
    pub name: String,
    /// What it was started with.
    pub arguments: Vec<OsString>,
}

impl Process {
    /// A path as the process means it.
    pub fn path(&self, path: &Path) -> PathBuf {
        // Paths that begin nowhere begin in its directory.
        fs::read_link(self.dir.join("cwd")).map_or_else(|_| path.to_owned(), |directory| directory.join(path))
    }
}

/// Those of these names below `proc`. The kernel shows fifteen characters of a name.
pub fn named(proc: &Path, names: &[&str]) -> Vec<Process> {
    let own = fs::read_link(proc.join("thread-self/ns/net")).ok();
    let directories = fs::read_dir(proc).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = directories.filter_map(|dir| {
        let name = fs::read_to_string(dir.join("comm")).ok()?.trim().to_owned();
        names.contains(&name.as_str()).then_some(())?;
        let other = fs::read_link(dir.join("ns/net")).ok();
        (own.is_none() || own == other).then_some(())?;
        let arguments = arguments(&dir);
        Some(Process { dir, name, arguments })
    });
    found.collect()
}

/// What the process of this directory was started with.
pub fn arguments(process: &Path) -> Vec<OsString> {
    let line = foreign_file::read(&process.join("cmdline"), COMMAND_MAX).unwrap_or_default();
    let words = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    words.skip(1).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}
