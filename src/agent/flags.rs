//! The agent's command line. The help text is the one description of it; a test holds flags, help and documents together.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::process::log::{Format, Level};
use crate::rpc::DEFAULT_SOCKET;

/// Where the state lives unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/run/flock/state";

/// Where the Go flock kept its allocations.
pub const DEFAULT_IMPORT: &str = "/var/lib/flock/allocations.json";

/// What `--help` prints.
pub const HELP: &str = "\
flock-agent: the node daemon of flock, a routed pod network.

Usage: flock-agent [flags]
       flock-agent install|uninstall [--help]

  --kubeconfig FILE     reach the Kubernetes API as FILE says (default: the service
                        account of the pod that the agent runs in)
  --node-config FILE    without Kubernetes: read this node's NodeConfig from FILE
                        (YAML or JSON) and follow its changes
  --node-name NAME      this node's name (default: the host name)
  --socket PATH         listen here for the plugin (default: /run/flock/flock.sock)
  --state-dir DIR       keep the allocations here (default: /run/flock/state)
  --cni-conf-dir DIR    once ready to serve, write 01-flock.conflist into DIR
                        (default: write it nowhere, so that no runtime uses flock)
  --import FILE         at the start, take over the running pods of the Go flock from
                        its FILE (default: /var/lib/flock/allocations.json, if it is there)
  --log-format FORMAT   text or json (default: text)
  --log-level LEVEL     error, warn, info or debug (default: info)
  --version             print the version and end
  --help                print this and end
";

/// The command line, understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--node-config`
    pub node_config: Option<PathBuf>,
    /// `--node-name`
    pub node_name: Option<String>,
    /// `--socket`
    pub socket: PathBuf,
    /// `--state-dir`
    pub state_dir: PathBuf,
    /// `--cni-conf-dir`
    pub cni_conf_dir: Option<PathBuf>,
    /// `--import`
    pub import: PathBuf,
    /// `--log-format`
    pub log_format: Format,
    /// `--log-level`
    pub log_level: Level,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// To run.
    Run(Box<Flags>),
    /// For the help text.
    Help,
    /// For the version.
    Version,
}

/// A command line that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub enum FlagError {
    /// No such flag.
    Unknown(String),
    /// The flag needs a value and has none.
    NoValue(String),
    /// The flag was given twice.
    Twice(&'static str),
    /// The flag cannot have this value.
    Value {
        /// The flag.
        flag: &'static str,
        /// The value.
        value: String,
        /// What it can be.
        rule: &'static str,
    },
    /// Two flags that contradict each other.
    Both(&'static str, &'static str),
}

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlagError::Unknown(flag) => write!(f, "unknown argument {flag:?}"),
            FlagError::NoValue(flag) => write!(f, "{flag} needs a value"),
            FlagError::Twice(flag) => write!(f, "{flag} is given twice"),
            FlagError::Value { flag, value, rule } => write!(f, "{flag} {value:?}: {rule}"),
            FlagError::Both(one, other) => write!(f, "{one} and {other} exclude each other"),
        }
    }
}

impl std::error::Error for FlagError {}

const VALUED: [&str; 9] = [
    "--kubeconfig",
    "--node-config",
    "--node-name",
    "--socket",
    "--state-dir",
    "--cni-conf-dir",
    "--import",
    "--log-format",
    "--log-level",
];

/// Reads the arguments behind the program's name. Values stand behind the flag or behind a `=`.
///
/// # Errors
/// Every variant of [`FlagError`]; the first one found.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, FlagError> {
    let mut values: [Option<OsString>; 9] = Default::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let (name, inline) = split(&argument);
        match name.as_str() {
            "--help" | "-h" => return Ok(Asked::Help),
            "--version" | "-V" => return Ok(Asked::Version),
            _ => {}
        }
        let known = VALUED.iter().zip(&mut values).find(|(flag, _)| **flag == name);
        let Some((flag, slot)) = known else { return Err(FlagError::Unknown(text)) };
        if slot.is_some() {
            return Err(FlagError::Twice(flag));
        }
        let value = inline.or_else(|| arguments.next()).filter(|value| !value.is_empty());
        *slot = Some(value.ok_or(FlagError::NoValue(name))?);
    }
    let [kubeconfig, node_config, node_name, socket, state_dir, cni_conf_dir, import, log_format, log_level] = values;
    if kubeconfig.is_some() && node_config.is_some() {
        return Err(FlagError::Both("--kubeconfig", "--node-config"));
    }
    let path = |value: Option<OsString>, default: &str| PathBuf::from(value.unwrap_or_else(|| default.into()));
    Ok(Asked::Run(Box::new(Flags {
        kubeconfig: kubeconfig.map(PathBuf::from),
        node_config: node_config.map(PathBuf::from),
        node_name: node_name.map(|name| utf8("--node-name", name)).transpose()?,
        // The configuration of the plugin names it, which is JSON.
        socket: absolute("--socket", utf8("--socket", path(socket, DEFAULT_SOCKET).into_os_string())?.into())?,
        state_dir: path(state_dir, DEFAULT_STATE_DIR),
        cni_conf_dir: cni_conf_dir.map(PathBuf::from),
        import: path(import, DEFAULT_IMPORT),
        log_format: named("--log-format", log_format, Format::Text, "text or json")?,
        log_level: named("--log-level", log_level, Level::Info, "error, warn, info or debug")?,
    })))
}

/// The name of a flag, and the value behind its `=`, byte by byte: a path need not be text. Flags are ASCII, so a name that is
/// not text is none.
pub(crate) fn split(argument: &OsStr) -> (String, Option<OsString>) {
    let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    (name, parts.next().map(|value| OsStr::from_bytes(value).to_owned()))
}

fn utf8(flag: &'static str, value: OsString) -> Result<String, FlagError> {
    let shown = |value: OsString| value.to_string_lossy().into_owned();
    value.into_string().map_err(|value| FlagError::Value { flag, value: shown(value), rule: "must be UTF-8" })
}

/// For what others look for from another working directory: the plugin for the socket, a runtime for the plugin.
///
/// # Errors
/// It is a relative path.
pub(crate) fn absolute(flag: &'static str, path: PathBuf) -> Result<PathBuf, FlagError> {
    if path.is_absolute() {
        return Ok(path);
    }
    Err(FlagError::Value { flag, value: path.display().to_string(), rule: "must be an absolute path" })
}

fn named<T: std::str::FromStr>(
    flag: &'static str,
    value: Option<OsString>,
    default: T,
    rule: &'static str,
) -> Result<T, FlagError> {
    let Some(value) = value else { return Ok(default) };
    let value = utf8(flag, value)?;
    value.parse().map_err(|_| FlagError::Value { flag, value, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Asked, FlagError> {
        parse(text.split_whitespace().map(OsString::from))
    }

    #[test]
    fn defaults_are_those_of_the_help_text() {
        let Ok(Asked::Run(flags)) = parsed("--node-config /etc/flock/node.yaml") else { panic!("not understood") };
        for value in [&flags.socket, &flags.state_dir, &flags.import] {
            assert!(HELP.contains(&value.display().to_string()), "{}", value.display());
        }
        assert_eq!((flags.log_level, flags.log_format, flags.cni_conf_dir), (Level::Info, Format::Text, None));
    }

    // covers: FM-Q16
    #[test]
    fn a_path_is_taken_byte_by_byte_in_either_form() {
        let odd = OsStr::from_bytes(b"/srv/\xff=\xfe/state");
        let mut inline = OsString::from("--state-dir=");
        inline.push(odd);
        for arguments in [vec![inline], vec!["--state-dir".into(), odd.to_owned()]] {
            let Ok(Asked::Run(flags)) = parse(arguments) else { panic!("not understood") };
            assert_eq!(flags.state_dir.as_os_str(), odd);
        }
        let mut no_flag = OsString::from("--\u{e9}");
        no_flag.push(odd);
        assert!(matches!(parse([no_flag]), Err(FlagError::Unknown(_))));
        // What has to be text is refused where it is not.
        for flag in ["--socket=", "--node-name=", "--log-level="] {
            let mut argument = OsString::from(flag);
            argument.push(odd);
            let error = parse([argument]).expect_err(flag).to_string();
            assert!(error.contains("must be UTF-8") && error.contains(flag.trim_end_matches('=')), "{error}");
        }
    }

    #[test]
    fn the_help_text_lists_exactly_the_flags_that_exist() {
        let listed: Vec<&str> = HELP
            .lines()
            .filter_map(|line| line.strip_prefix("  --"))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut known: Vec<&str> = VALUED.iter().map(|flag| flag.trim_start_matches("--")).collect();
        known.extend(["version", "help"]);
        for flag in &known {
            assert!(listed.contains(flag), "{flag} is not in the help text");
        }
        assert_eq!(listed.len(), known.len());
    }

    #[test]
    fn a_wrong_command_line_is_named() {
        for (text, why) in [
            ("--node-config a --nod b", "\"--nod\""),
            ("--node-config", "--node-config needs a value"),
            ("--node-config=", "--node-config needs a value"),
            ("--node-config a --node-config b", "twice"),
            ("--node-config a --kubeconfig b", "exclude each other"),
            ("--node-config a --log-level loud", "error, warn, info or debug"),
            ("--node-config a --socket x.sock", "absolute"),
            ("run", "\"run\""),
        ] {
            let error = parsed(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(parsed("--help"), Ok(Asked::Help));
        assert_eq!(parsed("--version"), Ok(Asked::Version));
    }
}
