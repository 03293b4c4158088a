//! `/etc/default/flock-agent`: the operator's file, of which one block may be ours. Pure text.
//!
//! Must not change what somebody else has written there.

use std::ffi::OsString;

use crate::agent::flags::{Asked, Flags, parse};

/// What `--cni-conf` adds. At the top of the file: a last line may be without its end, or go on on the next one.
const OURS: &str = "\
# By flock-agent install --cni-conf: the agent writes the CNI configuration, and the container runtime uses flock.
FLOCK_AGENT_FLAGS=--cni-conf-dir /etc/cni/net.d
";

/// What has to be done so that the agent writes the CNI configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is told so.
    None,
    /// The file becomes this.
    Write(String),
    /// The operator has to add the flag, since the flags are written by hand.
    ByHand,
}

/// `present` is the file as it is, if there is one.
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

/// The agent's flags as the file has them, so that its socket and directories are known. The defaults if the file has none,
/// or some that the agent would not understand.
pub fn flags(present: Option<&str>) -> Option<Flags> {
    let words = present.and_then(|text| value(text, "FLOCK_AGENT_FLAGS")).unwrap_or_default();
    let understood = parse(words.split_whitespace().map(OsString::from));
    match understood.or_else(|_| parse([])) {
        Ok(Asked::Run(flags)) => Some(*flags),
        _ => None,
    }
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
            let flags = flags(Some(&after)).expect("understood");
            assert_eq!(flags.cni_conf_dir.as_deref(), Some("/etc/cni/net.d".as_ref()));
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

    #[test]
    fn the_agents_places_are_those_of_its_flags() {
        let told =
            flags(Some("FLOCK_AGENT_FLAGS='--socket /run/x.sock --state-dir /var/lib/x'\n")).expect("understood");
        assert_eq!((told.socket.as_path(), told.state_dir.as_path()), ("/run/x.sock".as_ref(), "/var/lib/x".as_ref()));
        for text in [None, Some("FLOCK_AGENT_FLAGS=--nonsense\n"), Some("#FLOCK_AGENT_FLAGS=--socket /x\n")] {
            assert_eq!(flags(text).expect("defaults").socket.as_path(), std::path::Path::new("/run/flock/flock.sock"));
        }
        assert!(
            names_source(Some("FLOCK_AGENT_SOURCE=--kubeconfig x")) && !names_source(Some("# FLOCK_AGENT_SOURCE="))
        );
    }
}
