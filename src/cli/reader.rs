//! Reads a command line by the tables: which program it asks for, and what its flags say.
//!
//! Values are taken byte by byte, since a path need not be text; each is checked against its kind here, and nowhere later.
//! Must not know any flag by its name, but those that every program has.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cli::flags::HELP;
use crate::cli::pages::PAGES;
use crate::cli::pages::agent::VERSION;
use crate::cli::table::{Default, Flag, Kind, Operand, Program};
use cni::netconf::SOCKET_MAX;

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// The help of a program.
    Help(Program),
    /// The version.
    Version,
    /// To run a program.
    Run(Program, Given),
}

/// Flags and operands that were given, each as its kind demands.
#[derive(Debug, Default)]
pub struct Given {
    flags: Vec<(&'static Flag, OsString)>,
    operands: Vec<OsString>,
}

/// A command line that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No such flag, and no operand is expected.
    Unknown(String),
    /// The flag or operand needs a value and has none.
    NoValue(&'static str),
    /// The flag is given twice.
    Twice(&'static str),
    /// The flag cannot have this value.
    Value {
        /// The flag.
        flag: &'static str,
        /// The value.
        value: String,
        /// What the value can be.
        rule: String,
    },
    /// Two flags contradict each other.
    Both(&'static str, &'static str),
    /// A flag means nothing without another one.
    Alone(&'static str, &'static str),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::Unknown(argument) => write!(f, "unknown argument {argument:?}"),
            UsageError::NoValue(name) => write!(f, "{name} needs a value"),
            UsageError::Twice(flag) => write!(f, "{flag} is given twice"),
            UsageError::Value { flag, value, rule } => write!(f, "{flag} {value:?}: {rule}"),
            UsageError::Both(one, other) => write!(f, "{one} and {other} exclude each other"),
            UsageError::Alone(one, other) => write!(f, "{one} needs {other} beside it"),
        }
    }
}

impl std::error::Error for UsageError {}

/// The program that the first arguments name, and the arguments that are left for it.
pub fn program(arguments: Vec<OsString>) -> (Program, Vec<OsString>) {
    for page in PAGES {
        let words: Vec<&str> = page.word.into_iter().flat_map(|words| words.split(' ')).collect();
        let named = arguments.get(..words.len()).is_some_and(|first| first.iter().eq(words.iter()));
        if named && !words.is_empty() {
            return (page.program, arguments.into_iter().skip(words.len()).collect());
        }
    }
    (Program::Agent, arguments)
}

/// Reads the arguments of a program. Values stand behind the flag or behind a `=`. A flag for help or version is obeyed
/// as soon as it is met.
///
/// # Errors
/// The first thing that is not understood.
pub fn read(program: Program, arguments: impl IntoIterator<Item = OsString>) -> Result<Asked, UsageError> {
    let operands = program.page().map_or(&[][..], |page| page.operands);
    read_by(program, &program.flags().collect::<Vec<_>>(), operands, arguments)
}

pub(super) fn read_by(
    program: Program,
    flags: &[&'static Flag],
    operands: &'static [Operand],
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Asked, UsageError> {
    let mut given = Given::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = split(&argument);
        let Some(flag) = flags.iter().copied().find(|flag| is_called(flag, &name, inline.is_some())) else {
            let is_one_too_many =
                given.operands.len() >= operands.len() && !operands.last().is_some_and(Operand::repeats);
            // A dash alone is a file's name, that of standard input.
            if (argument.as_bytes().starts_with(b"-") && argument != "-") || is_one_too_many {
                return Err(UsageError::Unknown(argument.to_string_lossy().into_owned()));
            }
            given.operands.push(argument);
            continue;
        };
        if flag.name == HELP.name {
            return Ok(Asked::Help(program));
        }
        if flag.name == VERSION.name {
            return Ok(Asked::Version);
        }
        if given.has(flag) {
            return Err(UsageError::Twice(flag.name));
        }
        if let Some(other) = given.flags.iter().find(|(other, _)| flag.excludes.contains(&other.name)) {
            return Err(UsageError::Both(other.0.name, flag.name));
        }
        let value = match &flag.value {
            None => OsString::new(),
            Some(value) => {
                let given = inline.or_else(|| arguments.next()).filter(|value| !value.is_empty());
                checked(flag, value.kind, given.ok_or(UsageError::NoValue(flag.name))?)?
            }
        };
        given.flags.push((flag, value));
    }
    match operands.get(given.operands.len()).filter(|operand| operand.needed) {
        Some(missing) => Err(UsageError::NoValue(missing.name)),
        None => Ok(Asked::Run(program, given)),
    }
}

/// The name of a flag, and the value behind its `=`, byte by byte. Flags are ASCII, so a name that is not text is none.
fn split(argument: &OsStr) -> (String, Option<OsString>) {
    let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    (name, parts.next().map(|value| OsStr::from_bytes(value).to_owned()))
}

fn is_called(flag: &Flag, name: &str, inline: bool) -> bool {
    let letter =
        name.strip_prefix('-').is_some_and(|rest| flag.letter.is_some_and(|letter| rest == letter.to_string()));
    // A switch has no value, also none behind a `=`.
    (flag.name == name || letter) && (flag.value.is_some() || !inline)
}

fn checked(flag: &Flag, kind: Kind, value: OsString) -> Result<OsString, UsageError> {
    let keeps = |kept: bool, rule: &str| match kept {
        true => Ok(()),
        false => Err(wrong(flag.name, &value, rule.into())),
    };
    if matches!(kind, Kind::Text | Kind::Socket | Kind::AbsoluteFile | Kind::OneOf(_)) {
        keeps(value.to_str().is_some(), "must be UTF-8")?;
    }
    if matches!(kind, Kind::AbsoluteDirectory | Kind::AbsoluteFile | Kind::Socket) {
        keeps(Path::new(&value).is_absolute(), "must be an absolute path")?;
    }
    if let Kind::Seconds(max) = kind {
        let seconds = value.to_str().and_then(|text| text.parse::<u64>().ok());
        keeps(seconds.is_some_and(|seconds| seconds <= max), &format!("must be 0 to {max}"))?;
    }
    if kind == Kind::Socket {
        keeps(value.len() <= SOCKET_MAX, "is longer than the 107 bytes that the path of a socket can have")?;
    }
    if kind == Kind::Address {
        let address = value.to_str().and_then(|text| text.parse::<SocketAddr>().ok());
        let rule =
            "must be an address and a port, such as 127.0.0.1:9469, [2001:db8::1]:9469, or [::]:9469 for all addresses";
        keeps(address.is_some_and(|address| address.port() > 0), rule)?;
    }
    if let Kind::OneOf(words) = kind {
        keeps(words.iter().any(|word| value == *word), &listed(words))?;
    }
    Ok(value)
}

fn wrong(flag: &'static str, value: &OsStr, rule: String) -> UsageError {
    UsageError::Value { flag, value: value.to_string_lossy().into_owned(), rule }
}

/// `a, b or c`
pub fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

impl Given {
    /// Whether the flag was given.
    pub fn has(&self, flag: &Flag) -> bool {
        self.given(flag).is_some()
    }

    /// The path that the flag names, or its default; none if it has none.
    pub fn path(&self, flag: &Flag) -> Option<PathBuf> {
        self.value(flag).map(PathBuf::from)
    }

    /// The text that the flag has, or its default; none if it has none.
    pub fn text(&self, flag: &Flag) -> Option<String> {
        self.value(flag).map(|value| value.to_string_lossy().into_owned())
    }

    /// The path of a flag that has a default.
    ///
    /// # Errors
    /// It has none, and is not given.
    pub fn needed_path(&self, flag: &Flag) -> Result<PathBuf, UsageError> {
        self.path(flag).ok_or(UsageError::NoValue(flag.name))
    }

    /// What the word of a flag means that has a default.
    ///
    /// # Errors
    /// It has none and is not given, or the word means nothing.
    pub fn needed<T: FromStr>(&self, flag: &Flag) -> Result<T, UsageError> {
        let text = self.text(flag).ok_or(UsageError::NoValue(flag.name))?;
        text.parse().map_err(|_| wrong(flag.name, text.as_ref(), "is not known".into()))
    }

    /// The address that the flag has; none if it has none.
    pub fn address(&self, flag: &Flag) -> Option<SocketAddr> {
        self.text(flag)?.parse().ok()
    }

    /// The operands, at most as many as the program takes, where the last does not repeat.
    pub fn operands(&self) -> &[OsString] {
        &self.operands
    }

    fn given(&self, flag: &Flag) -> Option<&OsStr> {
        self.flags.iter().find(|(given, _)| given.name == flag.name).map(|(_, value)| value.as_os_str())
    }

    fn value(&self, flag: &Flag) -> Option<&OsStr> {
        let default = || flag.value.as_ref().map_or(Default::Nothing, |value| value.default).value().map(OsStr::new);
        self.given(flag).or_else(default)
    }
}
