//! Where the program runs: on the host itself, or in a container, which shows the host's network and little else of it.
//!
//! Must not tell what is there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::operator::check::finding::{Area, Finding};

/// Where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surroundings {
    /// On the host.
    Host,
    /// In a container of the agent's pod, or of another one.
    Container,
}

impl Surroundings {
    /// By the first process that is seen from below `root`: a host's own has the host's files, and is no agent.
    pub fn find(root: &Path) -> Surroundings {
        let first = root.join("proc/1");
        let name = fs::read_to_string(first.join("comm")).unwrap_or_default();
        let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        let elsewhere = file(&first.join("root/")).is_some_and(|other| Some(other) != file(root));
        match elsewhere || ["flock-agent", "pause"].contains(&name.trim()) {
            true => Surroundings::Container,
            false => Surroundings::Host,
        }
    }

    /// What puts the installed version of the agent in force.
    pub fn restart(self) -> &'static str {
        match self {
            Surroundings::Host => "systemctl restart flock-agent",
            Surroundings::Container => "delete the agent's pod of this node, of which its DaemonSet makes another",
        }
    }

    /// What is not seen from here.
    pub fn unseen(self) -> Option<Finding> {
        let what = "programs that manage links, kube-proxy and the runtime's settings were not looked at, as this runs in a container: \
                    they are the host's";
        (self == Surroundings::Container).then(|| Finding::warn(Area::Managers, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_first_process() {
        let root = std::env::temp_dir().join(format!("flock-surroundings-{}", std::process::id()));
        let first = root.join("proc/1");
        fs::create_dir_all(&first).expect("made");
        std::os::unix::fs::symlink(&root, first.join("root")).expect("linked");
        let found = |name: &str| {
            fs::write(first.join("comm"), format!("{name}\n")).expect("written");
            Surroundings::find(&root)
        };
        assert_eq!(found("systemd"), Surroundings::Host);
        assert_eq!(found("flock-agent"), Surroundings::Container);
        fs::remove_file(first.join("root")).expect("removed");
        assert_eq!(found("init"), Surroundings::Host, "who may not look");
        std::os::unix::fs::symlink("/proc", first.join("root")).expect("linked");
        assert_eq!(found("systemd"), Surroundings::Container, "the host's processes are seen, and not its files");
        fs::remove_dir_all(&root).expect("removed");
    }
}
