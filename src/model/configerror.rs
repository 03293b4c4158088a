//! Why a text is not a NodeConfig: every problem that was found, each with its line, its field, the value and what to do.
//!
//! Must not read or check anything.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Longest manifest text, in bytes: more than the API server would store.
pub const TEXT_MAX: usize = 2 << 20;

/// Why a text is not a NodeConfig: at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    first: Located,
    others: Vec<Located>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The line, from 1, where the text has lines that somebody wrote.
    pub line: Option<usize>,
    /// What is wrong and what to do, in one line of text.
    pub text: String,
}

impl ConfigError {
    /// With all that is wrong, in the order of the text.
    pub fn new(first: Located, others: Vec<Located>) -> ConfigError {
        ConfigError { first, others }
    }

    /// With something that is about the whole text.
    pub fn of_all(text: String) -> ConfigError {
        ConfigError { first: Located { line: None, text }, others: Vec::new() }
    }

    /// All that is wrong, in the order of the text.
    pub fn problems(&self) -> impl Iterator<Item = &Located> {
        core::iter::once(&self.first).chain(&self.others)
    }
}

impl fmt::Display for ConfigError {
    /// The first problem, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.others.len() {
            0 => self.first.fmt(f),
            more => write!(f, "{} (and {more} more)", self.first),
        }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
