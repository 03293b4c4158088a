//! `/etc/default/flock-agent`: the operator's file, in which one block may be flock's. Pure text.
//!
//! Must not change what somebody else has written there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::install::order::{AgentPlaces, ReadFlags};

/// The operator's flags for the agent.
pub const DEFAULTS: &str = "/etc/default/flock-agent";

/// The block that `--cni-conf` adds at the top of the file, up to the directory and the end of its line: at the end, a last line
/// without line end could run into it.
const OURS: &str = "\
# By flock-agent install --cni-conf: the agent writes the CNI configuration, and the container runtime uses flock.
FLOCK_AGENT_FLAGS=--cni-conf-dir ";

/// What has to be done so that the agent writes the CNI configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the file has the flag.
    None,
    /// The file becomes this.
    Write(String),
    /// The operator has to add the flag, since the flags are written by hand.
    ByHand,
}

/// What makes the agent write the CNI configuration into `dir`, a path without blanks. `present` is the file as it is, if there is
/// one.
pub fn with_cni_conf(present: Option<&str>, dir: &Path) -> Change {
    let present = present.unwrap_or_default();
    let block = format!("{OURS}{}\n", dir.display());
    match (ours(present), value(present, "FLOCK_AGENT_FLAGS")) {
        (_, None) => Change::Write(format!("{block}{present}")),
        (Some(own), Some(_)) if own == block => Change::None,
        (Some(own), Some(_)) => Change::Write(present.replacen(own, &block, 1)),
        (None, Some(flags)) if flags.split_whitespace().any(|word| word.starts_with("--cni-conf-dir")) => Change::None,
        (None, Some(_)) => Change::ByHand,
    }
}

/// The file without what `--cni-conf` has added; none if that is not in it as it was written.
pub fn without_ours(present: &str) -> Option<String> {
    let own = present.find(OURS).and_then(|at| block_at(present, at))?;
    Some(present.replacen(own, "", 1))
}

/// The block as it was written, for any directory, if it is what counts.
pub fn ours(present: &str) -> Option<&str> {
    let own = present.find(OURS).and_then(|at| block_at(present, at))?;
    let flags = own.lines().last()?.strip_prefix("FLOCK_AGENT_FLAGS=")?;
    (value(present, "FLOCK_AGENT_FLAGS").as_deref() == Some(flags)).then_some(own)
}

fn block_at(present: &str, at: usize) -> Option<&str> {
    let block = present.get(at..)?;
    let dir = block.strip_prefix(OURS)?.split('\n').next()?;
    let end = at + OURS.len() + dir.len() + 1;
    (!dir.is_empty() && !dir.contains(char::is_whitespace)).then(|| present.get(at..end))?
}

/// The socket and directories of the agent that this file is for: the default ones if the file has no flags, or some that the
/// agent would not start with.
pub fn places(present: Option<&str>, read_flags: ReadFlags) -> Option<AgentPlaces> {
    let words = present.and_then(|text| value(text, "FLOCK_AGENT_FLAGS")).unwrap_or_default();
    read_flags(words.split_whitespace().map(OsString::from).collect()).or_else(|| read_flags(Vec::new()))
}

/// Where an agent with this file writes the CNI configuration; none for nowhere.
pub fn cni_conf_dir(present: Option<&str>, read_flags: ReadFlags) -> Option<PathBuf> {
    places(present, read_flags).and_then(|places| places.cni_conf_dir)
}

/// The flags with which the unit starts an agent by this file.
pub fn flags(text: &str) -> Vec<OsString> {
    let of = |name| value(text, name).unwrap_or_default();
    let all = [of("FLOCK_AGENT_SOURCE"), of("FLOCK_AGENT_FLAGS")];
    all.iter().flat_map(|flags| flags.split_whitespace()).map(OsString::from).collect()
}

/// Whether the file says where the NodeConfig comes from.
pub fn names_source(present: Option<&str>) -> bool {
    present.is_some_and(|text| value(text, "FLOCK_AGENT_SOURCE").is_some())
}

/// What systemd gives a variable that is assigned in such a file: the last assignment counts, a backslash joins lines.
fn value(text: &str, name: &str) -> Option<String> {
    let joined = text.replace("\\\n", " ");
    let mut assigned = joined.lines().filter_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix('='));
    assigned.next_back().map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: &str = "/etc/cni/net.d";

    #[test]
    fn the_flag_is_added_once_and_taken_away_without_a_trace() {
        for before in ["", "# mine\nFLOCK_AGENT_SOURCE=--kubeconfig /etc/flock/kubeconfig", "A=b \\"] {
            let Change::Write(after) = with_cni_conf(Some(before), Path::new(USUAL)) else {
                panic!("{before}: not written")
            };
            assert_eq!(with_cni_conf(Some(&after), Path::new(USUAL)), Change::None, "{after}");
            assert_eq!(without_ours(&after).as_deref(), Some(before));
            let words = value(&after, "FLOCK_AGENT_FLAGS").expect("flags");
            assert_eq!(words, "--cni-conf-dir /etc/cni/net.d");
            let Change::Write(moved) = with_cni_conf(Some(&after), Path::new("/srv/x")) else {
                panic!("{before}: stayed")
            };
            assert_eq!(moved, after.replace(USUAL, "/srv/x"));
            assert_eq!(without_ours(&moved).as_deref(), Some(before));
        }
        assert_eq!(with_cni_conf(None, Path::new("/x")), Change::Write(format!("{OURS}/x\n")));
    }

    #[test]
    fn flags_of_the_operator_are_left_to_the_operator() {
        for (text, change) in [
            ("FLOCK_AGENT_FLAGS=--log-level debug\n", Change::ByHand),
            ("FLOCK_AGENT_FLAGS=\n", Change::ByHand),
            ("FLOCK_AGENT_FLAGS=\"--log-level debug \\\n  --cni-conf-dir /etc/cni/net.d\"\n", Change::None),
            ("FLOCK_AGENT_FLAGS=--cni-conf-dir=/x\nFLOCK_AGENT_FLAGS=--log-level info\n", Change::ByHand),
        ] {
            assert_eq!(with_cni_conf(Some(text), Path::new(USUAL)), change, "{text}");
            assert_eq!(without_ours(text), None);
        }
        for edited in
            [format!("{OURS}{USUAL} --log-level debug\n"), OURS.into(), format!("{OURS}\n"), format!("{OURS}{USUAL}")]
        {
            assert_eq!(without_ours(&edited), None, "what was edited is the operator's");
        }
        let overridden = format!("{OURS}{USUAL}\nFLOCK_AGENT_FLAGS=--log-level debug\n");
        assert_eq!(with_cni_conf(Some(&overridden), Path::new("/x")), Change::ByHand, "the last assignment counts");
    }

    /// A reader that knows one flag.
    fn socket_of(words: Vec<OsString>) -> Option<AgentPlaces> {
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        let socket = match words[..] {
            [] => "/default",
            ["--socket", path] => path,
            _ => return None,
        };
        Some(AgentPlaces { socket: socket.into(), state_dir: "/state".into(), cni_conf_dir: None })
    }

    #[test]
    fn the_agents_places_are_those_of_its_flags() {
        for (text, socket) in [
            (Some("FLOCK_AGENT_FLAGS='--socket /run/x.sock'\n"), "/run/x.sock"),
            (None, "/default"),
            (Some("FLOCK_AGENT_FLAGS=--nonsense\n"), "/default"),
            (Some("FLOCK_AGENT_FLAGS=--help\n"), "/default"),
            (Some("#FLOCK_AGENT_FLAGS=--socket /x\n"), "/default"),
        ] {
            let places = places(text, socket_of).expect("places");
            assert_eq!(places.socket.as_path(), std::path::Path::new(socket), "{text:?}");
        }
        let both = "FLOCK_AGENT_FLAGS='--socket /x'\nFLOCK_AGENT_SOURCE=--kubeconfig /y\n";
        assert_eq!(flags(both), ["--kubeconfig", "/y", "--socket", "/x"]);
        assert!(
            names_source(Some("FLOCK_AGENT_SOURCE=--kubeconfig x")) && !names_source(Some("# FLOCK_AGENT_SOURCE="))
        );
    }
}
