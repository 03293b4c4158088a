//! The command line of `flock-agent` as data, its types: programs, their pages and flags, and every word that is said about them.
//!
//! Parser, help and tests come from the values in `pages` and `flags`, and so must whatever else describes the command line. A new
//! program is a variant of [`Program`] with a file of its own in `pages`. Must not hold a value itself, or read or print anything.

use crate::process::exit::Exit;

/// The programs behind `flock-agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The daemon of the node, which has no word of its own.
    Agent,
    /// `flock-agent install`
    Install,
    /// `flock-agent uninstall`
    Uninstall,
    /// `flock-agent bird stop`
    BirdStop,
    /// `flock-agent withdraw`
    Withdraw,
    /// `flock-agent announce`
    Announce,
    /// `flock-agent explain`
    Explain,
    /// `flock-agent validate`
    Validate,
    /// `flock-agent status`
    Status,
    /// `flock-agent pods`
    Pods,
    /// `flock-agent check`
    Check,
}

/// What there is to say about a program, beside its flags.
#[derive(Debug)]
pub struct Page {
    /// Whose page it is.
    pub program: Program,
    /// The word behind `flock-agent` that chooses the program, or the words; none for the daemon.
    pub word: Option<&'static str>,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// The same as a paragraph of full sentences, if there is more to say.
    pub about: Option<&'static str>,
    /// Its flags in the order of the help, without `--help`, which every program has.
    pub flags: &'static [&'static Flag],
    /// What it takes beside flags, in this order.
    pub operands: &'static [Operand],
    /// Command lines, each with what it is for.
    pub examples: &'static [(&'static str, &'static str)],
    /// The files that an operator meets, each with what it is.
    pub files: &'static [(&'static str, &'static str)],
    /// How it ends.
    pub exits: &'static [(Exit, &'static str)],
}

/// An argument that is no flag.
#[derive(Debug)]
pub struct Operand {
    /// Its name in texts, in capitals. If it ends in `...`, the operand may be given any number of times, and is the last.
    pub name: &'static str,
    /// It has to be given. Those that need not be come last.
    pub needed: bool,
    /// What it is.
    pub help: &'static str,
}

/// A flag of one or more programs. Where programs mean something different by a name, each has a flag of its own.
#[derive(Debug)]
pub struct Flag {
    /// With its two dashes.
    pub name: &'static str,
    /// Its one-letter form, without the dash.
    pub letter: Option<char>,
    /// The value behind it; none for a switch.
    pub value: Option<Value>,
    /// What it does, without a full stop and without the default.
    pub help: &'static str,
    /// Flags that contradict it, by name.
    pub excludes: &'static [&'static str],
}

/// The value of a flag.
#[derive(Debug)]
pub struct Value {
    /// Its name in texts, in capitals.
    pub name: &'static str,
    /// What it has to be.
    pub kind: Kind,
    /// What counts when the flag is not given.
    pub default: Default,
}

/// What a value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// The path of a file, byte by byte.
    File,
    /// The absolute path of a file, in UTF-8: another program looks for it from another working directory.
    AbsoluteFile,
    /// The path of a directory, byte by byte.
    Directory,
    /// The absolute path of a directory, for others who look for it from another working directory.
    AbsoluteDirectory,
    /// The absolute path of a socket, in UTF-8: the plugin looks for it from another working directory, and its configuration,
    /// which names it, is JSON.
    Socket,
    /// A whole number of seconds, at most so many.
    Seconds(u64),
    /// An address of this host, or of all of them, and a port.
    Address,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// What counts when a flag is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Nothing, and there is nothing to say about it.
    Nothing,
    /// No value; in words, what happens then.
    Unset(&'static str),
    /// This value.
    Value(&'static str),
    /// This value, in which nothing has to be.
    ValueIfThere(&'static str),
}

impl Flag {
    /// What most flags have in common; by itself, a switch without a name.
    pub const SWITCH: Flag = Flag { name: "", letter: None, value: None, help: "", excludes: &[] };
}

impl Operand {
    /// Whether it may be given more than once.
    pub fn repeats(&self) -> bool {
        self.name.ends_with("...")
    }
}

impl Page {
    /// What is typed to call it.
    pub fn command(&self) -> String {
        match self.word {
            Some(word) => format!("flock-agent {word}"),
            None => "flock-agent".into(),
        }
    }
}

impl Default {
    /// The value that counts, if there is one.
    pub fn value(self) -> Option<&'static str> {
        match self {
            Default::Value(value) | Default::ValueIfThere(value) => Some(value),
            Default::Nothing | Default::Unset(_) => None,
        }
    }
}
