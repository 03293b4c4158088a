//! Reads a command line by the tables: which program it asks for, and what its flags say.
//!
//! Values are taken byte by byte, since a path need not be text; each is checked against its kind here, and nowhere later.
//! Must not know any flag by its name, but those that every program has.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cli::flags::HELP;
use crate::cli::misuse::{Misuse, UsageError, listed};
use crate::cli::pages::PAGES;
use crate::cli::pages::agent::VERSION;
use crate::cli::table::{Default, Flag, Kind, Operand, Program};
use cni::netconf::SOCKET_MAX;

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// The list of all programs.
    Overview,
    /// The help of a program.
    Help(Program),
    /// The short form of it.
    Usage(Program),
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

/// Reads what stands behind `flock-agent`. Without the name of a program, the daemon is meant, or help about all of them.
///
/// # Errors
/// The first thing that is not understood.
pub fn line(arguments: Vec<OsString>) -> Result<Asked, Misuse> {
    let (named, rest) = program(arguments).map_err(|error| Misuse { error, program: None })?;
    let program = named.unwrap_or(Program::Agent);
    match read(program, rest) {
        Ok(Asked::Help(_) | Asked::Usage(_)) if named.is_none() => Ok(Asked::Overview),
        Ok(asked) => Ok(asked),
        Err(error) => Err(Misuse { error, program: Some(program) }),
    }
}

/// The program that the first arguments name, none if the first of them is a flag, and the arguments that are left for it.
///
/// # Errors
/// The first argument is the name of no program.
pub fn program(mut arguments: Vec<OsString>) -> Result<(Option<Program>, Vec<OsString>), UsageError> {
    for page in PAGES {
        let words = page.word.split(' ').count();
        if arguments.iter().take(words).eq(page.word.split(' ')) {
            return Ok((Some(page.program), arguments.split_off(words)));
        }
    }
    match arguments.first().filter(|word| !word.as_bytes().starts_with(b"-")) {
        None => Ok((None, arguments)),
        Some(word) => Err(UsageError::no_command(word)),
    }
}

/// The program whose whole name this is.
///
/// # Errors
/// There is none.
pub fn named(words: &[OsString]) -> Result<Program, UsageError> {
    match program(words.to_vec())? {
        (Some(program), rest) if rest.is_empty() => Ok(program),
        (_, rest) => {
            Err(rest.first().map_or(UsageError::NoValue("COMMAND"), |word| UsageError::no_operand(Program::Help, word)))
        }
    }
}

/// Reads the arguments of a program. Values stand behind the flag or behind a `=`, and nothing behind `--` is a flag. A flag for
/// help or version is obeyed as soon as it is met.
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
    let (mut given, mut only_operands) = (Given::default(), false);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = split(&argument);
        let called = |flag: &&'static Flag| !only_operands && flag.is_called(&name);
        let Some(flag) = flags.iter().copied().find(called) else {
            if argument == "--" && !only_operands {
                only_operands = true;
                continue;
            }
            // By itself, a dash is no flag: it means standard input where a file is expected.
            if argument.as_bytes().starts_with(b"-") && argument != "-" && !only_operands {
                return Err(UsageError::no_flag(program, &name));
            }
            let operand = operands.get(given.operands.len()).or(operands.last().filter(|last| last.times.repeated()));
            let Operand { name, kind, .. } = operand.ok_or_else(|| UsageError::no_operand(program, &argument))?;
            given.operands.push(checked(name, *kind, argument)?);
            continue;
        };
        if flag.value.is_none() && inline.is_some() {
            return Err(UsageError::Switch(flag.name));
        }
        if flag.name == HELP.name {
            return Ok(if name == HELP.name { Asked::Help(program) } else { Asked::Usage(program) });
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
                checked(flag.name, value.kind, given.ok_or(UsageError::NoValue(flag.name))?)?
            }
        };
        given.flags.push((flag, value));
    }
    match operands.get(given.operands.len()).filter(|operand| operand.times.needed()) {
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

fn checked(name: &'static str, kind: Kind, value: OsString) -> Result<OsString, UsageError> {
    let keeps = |kept: bool, rule: &str| match kept {
        true => Ok(()),
        false => Err(wrong(name, &value, rule.into())),
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

impl Asked {
    /// The program that this is about, if it is one.
    pub fn program(&self) -> Option<Program> {
        match self {
            Asked::Help(program) | Asked::Usage(program) | Asked::Run(program, _) => Some(*program),
            Asked::Overview | Asked::Version => None,
        }
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
