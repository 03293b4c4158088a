//! The command line of `flock-agent` as data, its types: programs, their pages and flags, and every word that is said about them.
//!
//! Parser, help and tests come from the values in `pages` and `flags`, and so must whatever else describes the command line. A new
//! program is a variant of [`Program`] with a file of its own in `pages`. Must not hold a value itself, or read or print anything.

use crate::process::exit::Exit;

/// The programs behind `flock-agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `flock-agent run`, the daemon of the node, which also runs without a word
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
    /// `flock-agent diag`
    Diag,
    /// `flock-agent help`
    Help,
    /// `flock-agent version`
    Version,
    /// `flock-agent completion`
    Completion,
}

/// What a program is for, by which the help has them in groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Serves the node.
    Daemon,
    /// Says what is there and why, and changes nothing.
    Looking,
    /// Brings flock onto a node, and takes it away.
    Installing,
    /// Takes a node out of the network, and brings it back.
    Draining,
    /// Is about the command line itself.
    Words,
}

/// What there is to say about a program, beside its flags.
#[derive(Debug)]
pub struct Page {
    /// Whose page it is.
    pub program: Program,
    /// Where the help has it.
    pub group: Group,
    /// The word behind `flock-agent` that chooses the program, or the words.
    pub word: &'static str,
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
    /// Its name in texts, in capitals.
    pub name: &'static str,
    /// How often it is given.
    pub times: Times,
    /// What it has to be.
    pub kind: Kind,
    /// What it is.
    pub help: &'static str,
}

/// How often an operand is given. One that need not be stands behind those that have to, and one that may be repeated is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// `NAME`
    Once,
    /// `[NAME]`
    AtMostOnce,
    /// `NAME...`
    AtLeastOnce,
    /// `[NAME...]`
    Any,
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
    /// The words that choose a program.
    Command,
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

    /// Whether this is its name, or its one-letter form.
    pub fn is_called(&self, name: &str) -> bool {
        let letter = self.letter.map(|letter| format!("-{letter}"));
        self.name == name || letter.is_some_and(|letter| letter == name)
    }
}

impl Group {
    /// All of them, in the order of the help.
    pub const ALL: [Group; 5] = [Group::Daemon, Group::Looking, Group::Installing, Group::Draining, Group::Words];

    /// What stands above its programs.
    pub fn title(self) -> &'static str {
        match self {
            Group::Daemon => "The daemon",
            Group::Looking => "Looking",
            Group::Installing => "Installing",
            Group::Draining => "Draining",
            Group::Words => "About this command line",
        }
    }
}

impl Times {
    /// It has to be there.
    pub fn needed(self) -> bool {
        matches!(self, Times::Once | Times::AtLeastOnce)
    }

    /// It may be there again.
    pub fn repeated(self) -> bool {
        matches!(self, Times::AtLeastOnce | Times::Any)
    }
}

impl Page {
    /// What is typed to call it.
    pub fn command(&self) -> String {
        format!("flock-agent {}", self.word)
    }

    /// What can be typed behind it, too.
    pub fn usage(&self) -> String {
        let command = match self.group {
            Group::Daemon => format!("flock-agent [{}]", self.word),
            _ => self.command(),
        };
        let operands = self.operands.iter().map(|Operand { name, times, .. }| match times {
            Times::Once => format!(" {name}"),
            Times::AtMostOnce => format!(" [{name}]"),
            Times::AtLeastOnce => format!(" {name}..."),
            Times::Any => format!(" [{name}...]"),
        });
        format!("{command} [flags]{}", operands.collect::<String>())
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
