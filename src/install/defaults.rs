//! `/etc/default/flock-agent`: the operator's file, in which one block may be flock's. Pure text.
//!
//! Must not change what somebody else has written there.

use std::ffi::OsString;

use crate::install::order::{AgentPlaces, ReadFlags};

/// The block that `--cni-conf` adds at the top of the file: at the end, a last line without line end could run into it.
const OURS: &str = "\
# By flock-agent install --cni-conf: the agent writes the CNI configuration, and the container runtime uses flock.
FLOCK_AGENT_FLAGS=--cni-conf-dir /etc/cni/net.d
";

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

/// What makes the agent write the CNI configuration. `present` is the file as it is, if there is one.
pub fn with_cni_conf(present: Option<&str>) -> Change {
    let present = present.unwrap_or_default();
    match value(present, "FLOCK_AGENT_FLAGS") {
        None => Change::Write(format!("{OURS}{present}")),
        Some(flags) if flags.split_whitespace().any(|word| word.starts_with("--cni-conf-dir")) => Change::None,
        Some(_) => Change::ByHand,
    }
}

/// The file without what `--cni-conf` has added; none if that is not in it as it was written.
pub fn without_ours(present: &str) -> Option<String> {
    present.contains(OURS).then(|| present.replacen(OURS, "", 1))
}

/// The socket and directories of the agent that this file is for: the default ones if the file has no flags, or some that the
/// agent would not start with.
pub fn places(present: Option<&str>, read_flags: ReadFlags) -> Option<AgentPlaces> {
    let words = present.and_then(|text| value(text, "FLOCK_AGENT_FLAGS")).unwrap_or_default();
    read_flags(words.split_whitespace().map(OsString::from).collect()).or_else(|| read_flags(Vec::new()))
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

    #[test]
    fn the_flag_is_added_once_and_taken_away_without_a_trace() {
        for before in ["", "# mine\nFLOCK_AGENT_SOURCE=--kubeconfig /etc/flock/kubeconfig", "A=b \\"] {
            let Change::Write(after) = with_cni_conf(Some(before)) else { panic!("{before}: not written") };
            assert_eq!(with_cni_conf(Some(&after)), Change::None, "{after}");
            assert_eq!(without_ours(&after).as_deref(), Some(before));
            let words = value(&after, "FLOCK_AGENT_FLAGS").expect("flags");
            assert_eq!(words, "--cni-conf-dir /etc/cni/net.d");
        }
        assert_eq!(with_cni_conf(None), Change::Write(OURS.into()));
    }

    #[test]
    fn flags_of_the_operator_are_left_to_the_operator() {
        for (text, change) in [
            ("FLOCK_AGENT_FLAGS=--log-level debug\n", Change::ByHand),
            ("FLOCK_AGENT_FLAGS=\n", Change::ByHand),
            ("FLOCK_AGENT_FLAGS=\"--log-level debug \\\n  --cni-conf-dir /etc/cni/net.d\"\n", Change::None),
            ("FLOCK_AGENT_FLAGS=--cni-conf-dir=/x\nFLOCK_AGENT_FLAGS=--log-level info\n", Change::ByHand),
        ] {
            assert_eq!(with_cni_conf(Some(text)), change, "{text}");
            assert_eq!(without_ours(text), None);
        }
        let edited = OURS.replace("net.d\n", "net.d --log-level debug\n");
        assert_eq!(without_ours(&edited), None, "what was edited is the operator's");
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
        assert!(
            names_source(Some("FLOCK_AGENT_SOURCE=--kubeconfig x")) && !names_source(Some("# FLOCK_AGENT_SOURCE="))
        );
    }
}
