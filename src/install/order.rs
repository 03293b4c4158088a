//! What an operator orders of an installation, as values.
//!
//! Must not know how it is typed: `cli` does.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::install::runtime::places::Kind;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// To put flock in place.
    Install(Install, Common),
    /// To take flock away.
    Uninstall(Uninstall, Common),
}

impl Order {
    /// What every order has.
    pub fn common(&self) -> &Common {
        match self {
            Order::Install(_, common) | Order::Uninstall(_, common) => common,
        }
    }
}

/// What `install` is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Install {
    /// The plugin; none for the file `flock` beside this program.
    pub plugin: Option<PathBuf>,
    /// Nothing but the plugin.
    pub plugin_only: bool,
    /// The agent is to write the CNI configuration.
    pub cni_conf: bool,
    /// BIRD is to tell routers what the node announces.
    pub bird: bool,
}

/// What `uninstall` is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Uninstall {
    /// Whether to do so even though pods are attached.
    pub force: bool,
    /// Whether the operator's files go, too.
    pub purge: bool,
    /// Whether the package that has brought flock asks, which removes its files itself.
    pub by_package: bool,
}

/// What `install` and `uninstall` have in common.
#[derive(Debug, PartialEq, Eq)]
pub struct Common {
    /// The places that are named.
    pub named: Named,
    /// The directory of an image; none for this machine.
    pub root: Option<PathBuf>,
    /// Only to say what would be done.
    pub dry_run: bool,
}

/// What an operator says of the host, in place of what would be found out; every path is absolute.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The container runtime.
    pub runtime: Option<Kind>,
    /// The directory of the agent.
    pub bin_dir: Option<PathBuf>,
    /// The directory of the plugin.
    pub cni_bin_dir: Option<PathBuf>,
    /// The directory of the CNI configuration.
    pub cni_conf_dir: Option<PathBuf>,
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
