//! The units, fitted to where a host has the agent and the CNI configuration. Pure text.
//!
//! What is in `systemd/` is the template, for an installation by this program and for packages. Must not change more of a unit
//! than these two places: what else a host needs belongs into a drop-in.

use std::path::{Path, PathBuf};

use crate::install::runtime::places::CONF_DIR;

/// The agent's program, as the template names it.
pub const AGENT: &str = "/usr/local/bin/flock-agent";

/// Directories that the units hide from the agent, and so those below them.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// A unit of the template for an agent at `agent` that may write the CNI configuration into `conf_dir`. Both are paths that
/// [`unfit`] has nothing against.
pub fn fitted(unit: &str, agent: &Path, conf_dir: &Path) -> String {
    unit.replace(AGENT, &agent.display().to_string()).replace(CONF_DIR, &conf_dir.display().to_string())
}

/// Why no unit of flock can name this path; none if it can.
pub fn unfit(path: &Path) -> Option<&'static str> {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-@:,~".contains(c));
    if !path.to_str().is_some_and(is_plain) {
        return Some("a unit of systemd takes letters, digits and / . _ + - @ : , ~ only");
    }
    HIDDEN
        .iter()
        .any(|dir| path.starts_with(dir))
        .then_some("the unit hides /home, /root, /run/user, /tmp and /var/tmp from the agent")
}

/// The agent that a unit starts.
pub fn agent_of(unit: &str) -> Option<PathBuf> {
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    let program = Path::new(start.split_whitespace().next()?);
    (program.is_absolute() && program.file_name() == Path::new(AGENT).file_name()).then(|| program.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = include_str!("../../systemd/flock-agent.service");

    #[test]
    fn the_template_is_fitted_in_its_two_places_and_nowhere_else() {
        assert_eq!(fitted(UNIT, Path::new(AGENT), Path::new(CONF_DIR)), UNIT);
        let (agent, conf) = (Path::new("/opt/bin/flock-agent"), Path::new("/var/lib/rancher/k3s/agent/etc/cni/net.d"));
        let unit = fitted(UNIT, agent, conf);
        let changed: Vec<&str> = unit.lines().filter(|line| !UNIT.lines().any(|shipped| shipped == *line)).collect();
        assert_eq!(
            changed,
            [
                "#     FLOCK_AGENT_FLAGS=--cni-conf-dir /var/lib/rancher/k3s/agent/etc/cni/net.d",
                "ExecStart=/opt/bin/flock-agent $FLOCK_AGENT_SOURCE $FLOCK_AGENT_FLAGS",
                "ReadWritePaths=-/var/lib/rancher/k3s/agent/etc/cni/net.d -/etc/flock/bird /proc/sys/net",
            ]
        );
        assert_eq!(unit.lines().count(), UNIT.lines().count());
        assert_eq!(agent_of(&unit).as_deref(), Some(agent));
        for other in
            ["", "ExecStart=", "ExecStart=flock-agent", "ExecStart=/usr/bin/python3 /x", "#ExecStart=/x/flock-agent"]
        {
            assert_eq!(agent_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_path_that_a_unit_would_read_otherwise_or_hides_is_not_named() {
        for path in ["/opt/bin", "/var/snap/microk8s/current/args/cni-network", "/homes", "/srv/a@b_c.d"] {
            assert_eq!(unfit(Path::new(path)), None, "{path}");
        }
        for path in ["/a b", "/a%b", "/a$b", "/a\\x20", "/a\"", "/a;b", "/\u{e9}", "/a\nb"] {
            assert!(unfit(Path::new(path)).is_some_and(|why| why.contains("letters")), "{path}");
        }
        for path in ["/root/bin", "/home", "/tmp/cni", "/var/tmp/x"] {
            assert!(unfit(Path::new(path)).is_some_and(|why| why.contains("hides")), "{path}");
        }
    }
}
