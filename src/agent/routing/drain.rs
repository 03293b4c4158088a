//! The file that says how far this node has withdrawn itself: `drain`, beside the agent's socket.
//!
//! The directory is gone after a reboot, and with it the file, so a node announces itself again without being told. Written by the
//! verbs `withdraw` and `announce`, read by the agent. Must not change any route.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use crate::process::foreign_file;
use crate::record::disk::DiskError;
use crate::record::replacement::Replacement;
use model::routes::Stage;

/// Name of the file.
const FILE_NAME: &str = "drain";
/// Name of a new one until it is whole.
const BESIDE: &str = ".drain.new";
/// Longest content that is read, in bytes.
const LENGTH_MAX: u64 = 64;
/// Permissions of the file: everybody may know.
const MODE: u32 = 0o644;

/// The file.
#[derive(Debug, Clone)]
pub struct DrainFile(PathBuf);

impl DrainFile {
    /// The file beside this socket.
    pub fn beside(socket: &Path) -> DrainFile {
        DrainFile(socket.with_file_name(FILE_NAME))
    }

    /// How far the node has withdrawn itself. Content that nobody has written counts as [`Stage::Draining`], since somebody wanted
    /// something of the kind.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn stage(&self) -> io::Result<Stage> {
        match foreign_file::read(&self.0, LENGTH_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stage::Announcing),
            Err(error) => Err(error),
            Ok(text) if text.trim_ascii() == b"withdrawn" => Ok(Stage::Withdrawn),
            Ok(_) => Ok(Stage::Draining),
        }
    }

    /// Writes the file, or removes it.
    ///
    /// # Errors
    /// The stage is as before.
    pub fn set(&self, stage: Stage) -> Result<(), DiskError> {
        let text = match stage {
            Stage::Announcing => {
                return match fs::remove_file(&self.0) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(DiskError { operation: "remove", path: self.0.clone(), error })
                    }
                    _ => Ok(()),
                };
            }
            Stage::Draining => "draining\n",
            Stage::Withdrawn => "withdrawn\n",
        };
        let opened = File::open(self.0.parent().unwrap_or(Path::new("/")));
        let (name, beside) = (OsStr::new(FILE_NAME), OsStr::new(BESIDE));
        let replaced =
            opened.and_then(|dir| Replacement { dir: dir.as_fd(), name, beside, mode: MODE }.write(text.as_bytes()));
        replaced.map_err(|error| DiskError { operation: "replace", path: self.0.clone(), error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_stays_withdrawn_until_somebody_says_otherwise() {
        let dir = std::env::temp_dir().join(format!("flock-drain-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let file = DrainFile::beside(&dir.join("flock.sock"));
        assert_eq!(file.stage().expect("read"), Stage::Announcing);
        for stage in [Stage::Draining, Stage::Withdrawn, Stage::Announcing, Stage::Announcing] {
            file.set(stage).expect("written");
            assert_eq!(file.stage().expect("read"), stage);
        }
        // Whoever writes something else there wants the node to be spared.
        fs::write(dir.join("drain"), "please").expect("written");
        assert_eq!(file.stage().expect("read"), Stage::Draining);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
