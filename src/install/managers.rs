//! Programs that configure the host's links, and the files that keep them away from those of pods.
//!
//! Must not change what an operator has written into such a file, nor any setting that is about other links.

use std::path::Path;

use crate::install::tree::Tree;
use crate::record::disk::DiskError;

/// A manager of links.
#[derive(Debug)]
pub struct Manager {
    /// Its program; one of these is enough.
    programs: &'static [&'static str],
    /// Its unit.
    pub unit: &'static str,
    /// The file for it.
    pub file: &'static str,
    /// All of that file.
    pub content: &'static str,
    /// What makes it read the file while it runs.
    pub reload: &'static str,
}

/// Those that are known.
pub const MANAGERS: [Manager; 2] = [
    Manager {
        programs: &["/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd"],
        unit: "systemd-networkd.service",
        file: "/etc/systemd/network/05-flock.network",
        content: include_str!("../../deploy/host/05-flock.network"),
        reload: "networkctl reload",
    },
    Manager {
        programs: &["/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"],
        unit: "NetworkManager.service",
        file: "/etc/NetworkManager/conf.d/flock.conf",
        content: include_str!("../../deploy/host/NetworkManager-flock.conf"),
        reload: "systemctl reload NetworkManager",
    },
];

impl Manager {
    /// Whether it is there, be it that it runs or not.
    ///
    /// # Errors
    /// It cannot be found out.
    pub fn is_here(&self, tree: &Tree) -> Result<bool, DiskError> {
        for program in self.programs {
            if tree.exists(Path::new(program))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
