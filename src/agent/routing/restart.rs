//! The file from which the unit of BIRD learns that its next start is a restart: `bird.env`, beside the agent's socket.
//!
//! Its directory is gone after a reboot, and with it the file: at the first start of a boot peers have kept nothing, and a BIRD
//! that waited for it would announce nothing meanwhile. Must not know when BIRD starts.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::process::foreign_file;
use crate::process::log;
use crate::record::disk::DiskError;
use crate::record::replacement::Replacement;

/// Its name.
const FILE_NAME: &str = "bird.env";

/// What stands in it: BIRD then waits for what its peers have kept of it.
const TEXT: &str = "GR=-R\n";

fn beside(agent: &Path) -> PathBuf {
    agent.with_file_name(FILE_NAME)
}

/// Lets the next start of BIRD be one before which the peers' routes stay. A failure costs its sessions, and is logged.
pub fn expect(agent: &Path) {
    let file = beside(agent);
    if foreign_file::read(&file, 64).is_ok_and(|text| text == TEXT.as_bytes()) {
        return;
    }
    let written = File::open(file.parent().unwrap_or(Path::new("/"))).and_then(|dir| {
        let (name, beside) = (OsStr::new(FILE_NAME), OsStr::new(".bird.env.new"));
        Replacement { dir: dir.as_fd(), name, beside, mode: 0o644 }.write(TEXT.as_bytes())
    });
    if let Err(error) = written {
        log::warn("the next restart of BIRD costs its sessions, as it cannot be told that it is one")
            .with("file", file.display())
            .with("err", error)
            .write_limited();
    }
}

/// Lets the next start of BIRD be one like the first of a boot.
///
/// # Errors
/// The file is still there.
pub fn forget(agent: &Path) -> Result<(), DiskError> {
    let path = beside(agent);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError { operation: "remove", path, error }),
        _ => Ok(()),
    }
}
