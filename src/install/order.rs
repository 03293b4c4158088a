//! What an operator orders of an installation, as values.
//!
//! Must not know how it is typed: `cli` does.

use std::ffi::OsString;
use std::path::PathBuf;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// To put flock in place.
    Install {
        /// The plugin; none for the file `flock` beside this program.
        plugin: Option<PathBuf>,
        /// The agent is to write the CNI configuration.
        cni_conf: bool,
        /// BIRD is to tell routers what the node announces.
        bird: bool,
        /// What `install` and `uninstall` have in common.
        common: Common,
    },
    /// To take flock away.
    Uninstall {
        /// Whether to do so even though pods are attached.
        force: bool,
        /// Whether the operator's files go, too.
        purge: bool,
        /// What both have.
        common: Common,
    },
}

/// What `install` and `uninstall` have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Common {
    /// The directory of the plugin; an absolute path, none for the known ones.
    pub cni_bin_dir: Option<PathBuf>,
    /// The directory of an image; none for this machine.
    pub root: Option<PathBuf>,
    /// Only to say what would be done.
    pub dry_run: bool,
}

/// The socket and the directories of an agent.
#[derive(Debug, PartialEq, Eq)]
pub struct AgentPlaces {
    /// Its socket.
    pub socket: PathBuf,
    /// The directory of its allocations.
    pub state_dir: PathBuf,
    /// Where it writes the CNI configuration; none for nowhere.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Reads the flags of an agent: where its socket and directories are; none if it would not start with these flags.
pub type ReadFlags = fn(Vec<OsString>) -> Option<AgentPlaces>;
