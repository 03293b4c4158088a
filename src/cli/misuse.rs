//! A command line that is not understood: what is wrong with it, in an operator's words, with what was probably meant.
//!
//! Must not read a command line itself.

use std::ffi::OsStr;
use std::fmt;

use crate::cli::pages::PAGES;
use crate::cli::table::{Page, Program};

/// A whole command line that is not understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Misuse {
    /// Why.
    pub error: UsageError,
    /// The program that was asked for, as far as that is understood.
    pub program: Option<Program>,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, self.program.and_then(Program::page)) {
            (error, Some(page)) if !matches!(error, UsageError::Command { .. }) => {
                write!(f, "{error}; {} --help lists the flags", page.command())
            }
            _ => write!(f, "{}; flock-agent help lists the commands", self.error),
        }
    }
}

impl std::error::Error for Misuse {}

/// What is wrong with a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageError {
    /// No program has this name.
    Command {
        /// What was typed.
        word: String,
        /// The names that look like it.
        like: Vec<&'static str>,
    },
    /// No program has this flag.
    Flag {
        /// What was typed.
        flag: String,
        /// The flags of this program that look like it.
        like: Vec<&'static str>,
    },
    /// Other programs have this flag.
    Elsewhere {
        /// The flag.
        flag: &'static str,
        /// The programs that have it.
        of: Vec<&'static str>,
        /// The program that was asked for, which has not.
        not: &'static str,
    },
    /// The flag takes no value and has one.
    Switch(&'static str),
    /// The name of a program behind a flag.
    Late(&'static str),
    /// No operand is expected any more.
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
            UsageError::Command { word, like } => write!(f, "unknown command {word:?}{}", meant(like)),
            UsageError::Flag { flag, like } => write!(f, "unknown flag {flag:?}{}", meant(like)),
            UsageError::Elsewhere { flag, of, not } => write!(f, "{flag} is of {}, not of {not}", joined(of, "and")),
            UsageError::Switch(flag) => write!(f, "{flag} takes no value"),
            UsageError::Late(word) => write!(f, "{word} is a command, and a command comes before its flags"),
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

impl UsageError {
    /// What is wrong with a first word that chooses nothing.
    pub fn no_command(word: &OsStr) -> UsageError {
        let word = word.to_string_lossy().into_owned();
        let like = PAGES.iter().map(|page| page.word).filter(|known| is_like(&word, known)).collect();
        UsageError::Command { word, like }
    }

    /// What is wrong with a flag that the program does not have.
    pub fn no_flag(program: Program, name: &str) -> UsageError {
        let of = |page: &&Page| page.program.flags().any(|flag| flag.is_called(name));
        let of: Vec<&Page> = PAGES.iter().filter(of).collect();
        let flag = of.first().and_then(|page| page.program.flags().find(|flag| flag.is_called(name)));
        match (flag, program.page()) {
            (Some(flag), Some(page)) => {
                UsageError::Elsewhere { flag: flag.name, of: of.iter().map(|page| page.word).collect(), not: page.word }
            }
            _ => {
                let like = program.flags().map(|flag| flag.name).filter(|known| is_like(name, known)).collect();
                UsageError::Flag { flag: name.into(), like }
            }
        }
    }

    /// What is wrong with an argument where none is expected.
    pub fn no_operand(program: Program, argument: &OsStr) -> UsageError {
        let first = |page: &&Page| page.word.split(' ').next().is_some_and(|word| argument == word);
        match PAGES.iter().find(first).filter(|_| program == Program::Agent) {
            Some(page) => UsageError::Late(page.word),
            None => UsageError::Unknown(argument.to_string_lossy().into_owned()),
        }
    }
}

/// Whether one is the beginning of the other, or becomes it by one letter more, less, changed or swapped with its neighbour.
fn is_like(typed: &str, known: &str) -> bool {
    let (mut one, mut other) = (typed.as_bytes(), known.as_bytes());
    while let ([a, left @ ..], [b, right @ ..]) = (one, other)
        && a == b
    {
        (one, other) = (left, right);
    }
    while let ([left @ .., a], [right @ .., b]) = (one, other)
        && a == b
    {
        (one, other) = (left, right);
    }
    match (one, other) {
        ([] | [_], [] | [_]) => true,
        ([a, b], [c, d]) if (a, b) == (d, c) => true,
        _ => known.starts_with(typed),
    }
}

fn meant(like: &[&str]) -> String {
    match like.len() {
        1..=3 => format!(" (did you mean {}?)", listed(like)),
        // Everything is like a single dash.
        _ => String::new(),
    }
}

/// `a, b or c`
pub fn listed(words: &[&str]) -> String {
    joined(words, "or")
}

fn joined(words: &[&str], with: &str) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).into(),
        [first @ .., last] => format!("{} {with} {last}", first.join(", ")),
    }
}
