//! The last good NodeConfig of the API, kept in the state directory for a start without an API server.
//!
//! Must not judge a NodeConfig, nor know its fields: what is kept is the manifest, and what is read back passes the same checks as
//! any other.

use std::path::{Path, PathBuf};

use crate::process::log;
use crate::record::disk::{Directory, Disk as _, DiskError};
use model::nodeconfig::{self, NodeConfig};

/// Name of the file in the state directory.
const FILE: &str = "node-config.json";

/// Name of a new file until it is whole and takes the place of the old one.
const FILE_NEW: &str = "node-config.new";

/// The file, and what it is known to hold.
#[derive(Debug)]
pub struct LastGood {
    state_dir: PathBuf,
    /// What the file holds, as far as this run of the agent knows.
    kept: Option<NodeConfig>,
}

impl LastGood {
    /// The file in `state_dir`. This call does not look at it.
    pub fn new(state_dir: &Path) -> LastGood {
        LastGood { state_dir: state_dir.into(), kept: None }
    }

    /// The NodeConfig that an earlier run has kept for `node`, if there is one and it can be used. Says in the log which.
    pub fn recall(&mut self, node: &str) -> Option<NodeConfig> {
        let read = Directory::open(&self.state_dir).and_then(|mut disk| disk.read(FILE));
        match nodeconfig::read_published(read.ok()??).map(|(config, _)| config) {
            Ok(config) if config.name != node => {
                log::warn("NodeConfig of the last run is of another node and not used")
                    .with("name", &config.name)
                    .with("node", node)
                    .write();
                None
            }
            Ok(config) => {
                log::info("NodeConfig of the last run is in force until the API server is heard").write();
                self.kept = Some(config.clone());
                Some(config)
            }
            Err(error) => {
                log::warn("NodeConfig of the last run cannot be used").with("err", error).write();
                None
            }
        }
    }

    /// Keeps `config`, which `manifest` gives again, for the next start, unless the file holds it already. A failure is logged, and
    /// the next call tries again.
    pub fn keep(&mut self, config: &NodeConfig, manifest: &str) {
        if self.kept.as_ref() == Some(config) {
            return;
        }
        match self.write(manifest) {
            Ok(()) => self.kept = Some(config.clone()),
            Err(error) => {
                // The old or the new one may be in the file.
                self.kept = None;
                log::warn("NodeConfig cannot be kept for the next start").with("err", error).write_limited();
            }
        }
    }

    fn write(&self, manifest: &str) -> Result<(), DiskError> {
        Directory::open(&self.state_dir)?.replace(FILE_NEW, FILE, manifest.as_bytes())
    }
}
