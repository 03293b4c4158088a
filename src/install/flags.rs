//! The command lines of `flock-agent install` and `flock-agent uninstall`. The help text is the one description of them; a
//! test holds flags, help and documents together.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::agent::flags::{FlagError, absolute, split};

/// What `--help` prints behind either verb.
pub const HELP: &str = "\
flock-agent install: puts flock in place, or renews what is there. It starts nothing and
prints the commands that do. May be repeated; what is right already is not touched.

flock-agent uninstall: takes it away again. Refuses while pods are attached or the agent
runs, and leaves what it did not install.

Usage: flock-agent install [flags]
       flock-agent uninstall [flags]

of install
  --plugin FILE         the CNI plugin (default: the file flock beside this program)
  --cni-conf            let the agent write the CNI configuration once it can serve, so
                        that the container runtime uses flock: adds FLOCK_AGENT_FLAGS to
                        /etc/default/flock-agent

of uninstall
  --force               even though pods are attached: they keep their links and traffic,
                        and the runtime cannot delete them until flock is back
  --purge               remove /etc/flock and /etc/default/flock-agent as well

of both
  --cni-bin-dir DIR     where the container runtime looks for plugins (default: where the
                        plugin is already, else /opt/cni/bin; Debian's packages of
                        runtimes have /usr/lib/cni)
  --root DIR            in the image below DIR; nothing of this machine is looked at
  --dry-run             print what would be done, and do nothing
  --help                print this and end
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// `install`
    Install {
        /// `--plugin`
        plugin: Option<PathBuf>,
        /// `--cni-conf`
        cni_conf: bool,
        /// What both have.
        common: Common,
    },
    /// `uninstall`
    Uninstall {
        /// `--force`
        force: bool,
        /// `--purge`
        purge: bool,
        /// What both have.
        common: Common,
    },
    /// For the help text.
    Help,
}

/// Flags of both verbs.
#[derive(Debug, PartialEq, Eq)]
pub struct Common {
    /// `--cni-bin-dir`
    pub cni_bin_dir: Option<PathBuf>,
    /// `--root`; none for this machine.
    pub root: Option<PathBuf>,
    /// `--dry-run`
    pub dry_run: bool,
}

/// A verb of the agent's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `install`
    Install,
    /// `uninstall`
    Uninstall,
}

impl Verb {
    /// The verb that a command line begins with, if it does.
    pub fn of(argument: Option<&OsString>) -> Option<Verb> {
        match argument?.to_str()? {
            "install" => Some(Verb::Install),
            "uninstall" => Some(Verb::Uninstall),
            _ => None,
        }
    }

    fn valued(self) -> &'static [&'static str] {
        match self {
            Verb::Install => &["--plugin", "--cni-bin-dir", "--root"],
            Verb::Uninstall => &["--cni-bin-dir", "--root"],
        }
    }

    fn switches(self) -> &'static [&'static str] {
        match self {
            Verb::Install => &["--cni-conf", "--dry-run"],
            Verb::Uninstall => &["--force", "--purge", "--dry-run"],
        }
    }
}

/// Reads the arguments behind the verb. Values stand behind the flag or behind a `=`.
///
/// # Errors
/// The first thing that is not understood.
pub fn parse(verb: Verb, arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, FlagError> {
    let mut given: Vec<(&'static str, Option<OsString>)> = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        if matches!(text.as_str(), "--help" | "-h") {
            return Ok(Asked::Help);
        }
        let (name, inline) = split(&argument);
        let valued = verb.valued().iter().find(|flag| **flag == name).copied();
        let switch = verb.switches().iter().find(|flag| **flag == text).copied();
        let (flag, value) = match (valued, switch) {
            (Some(flag), _) => {
                let value = inline.or_else(|| arguments.next()).filter(|value| !value.is_empty());
                (flag, Some(value.ok_or_else(|| FlagError::NoValue(flag.into()))?))
            }
            (None, Some(flag)) => (flag, None),
            (None, None) => return Err(FlagError::Unknown(text)),
        };
        if given.iter().any(|(former, _)| *former == flag) {
            return Err(FlagError::Twice(flag));
        }
        given.push((flag, value));
    }
    let has = |flag: &str| given.iter().any(|(given, _)| *given == flag);
    let path = |flag: &str| {
        given.iter().find(|(given, _)| *given == flag).and_then(|(_, value)| value.clone().map(PathBuf::from))
    };
    let cni_bin_dir = path("--cni-bin-dir").map(|dir| absolute("--cni-bin-dir", dir)).transpose()?;
    let common = Common { cni_bin_dir, root: path("--root"), dry_run: has("--dry-run") };
    Ok(match verb {
        Verb::Install => Asked::Install { plugin: path("--plugin"), cni_conf: has("--cni-conf"), common },
        Verb::Uninstall => Asked::Uninstall { force: has("--force"), purge: has("--purge"), common },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn parsed(line: &str) -> Result<Asked, FlagError> {
        let mut words = line.split_whitespace().map(OsString::from);
        parse(Verb::of(words.next().as_ref()).expect("a verb"), words)
    }

    #[test]
    fn the_help_text_lists_exactly_the_flags_that_exist() {
        let listed = HELP.lines().filter_map(|line| line.strip_prefix("  --")?.split_whitespace().next());
        let mut listed: Vec<&str> = listed.collect();
        let mut known: Vec<&str> = [Verb::Install, Verb::Uninstall]
            .iter()
            .flat_map(|verb| verb.valued().iter().chain(verb.switches()))
            .map(|flag| flag.trim_start_matches("--"))
            .chain(["help"])
            .collect();
        listed.sort_unstable();
        known.sort_unstable();
        known.dedup();
        assert_eq!(listed, known);
    }

    #[test]
    fn a_wrong_command_line_is_named() {
        for (line, why) in [
            ("install --force", "\"--force\""),
            ("uninstall --plugin x", "\"--plugin\""),
            ("install --root", "--root needs a value"),
            ("install --root=", "--root needs a value"),
            ("install --root a --root=b", "twice"),
            ("uninstall --purge --purge", "twice"),
            ("uninstall --purge=yes", "\"--purge=yes\""),
            ("install now", "\"now\""),
            ("install --cni-bin-dir usr/lib/cni", "--cni-bin-dir \"usr/lib/cni\": must be an absolute path"),
            ("uninstall --root /a --cni-bin-dir=./x", "\"./x\": must be an absolute path"),
        ] {
            let error = parsed(line).expect_err(line).to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert_eq!(parsed("install --root=x --help"), Ok(Asked::Help));
        let common = Common { cni_bin_dir: Some("/x".into()), root: Some("a=b".into()), dry_run: true };
        assert_eq!(
            parsed("uninstall --root=a=b --dry-run --force --cni-bin-dir /x"),
            Ok(Asked::Uninstall { force: true, purge: false, common })
        );
        assert_eq!(Verb::of(Some(&"--node-config".into())), None);
        // A path need not be text.
        let odd: &OsStr = OsStrExt::from_bytes(b"/\xff=\xfe");
        let mut inline = OsString::from("--root=");
        inline.push(odd);
        let Ok(Asked::Install { common, .. }) = parse(Verb::Install, [inline]) else { panic!("not understood") };
        assert_eq!(common.root.as_deref().map(Path::as_os_str), Some(odd));
    }
}
