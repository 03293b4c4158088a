//! `flock-agent status`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::process::exit::Exit;

/// The outputs by name.
const OUTPUTS: [&str; 2] = ["json", PROMETHEUS];

/// The output that has the metrics and nothing else.
pub const PROMETHEUS: &str = "prometheus";

/// Longest wait, in seconds.
const WAIT_MAX: u64 = 600;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Status,
    group: Group::Looking,
    word: "status",
    summary: "says whether the node serves pods, and what is amiss",
    about: Some(
        "The agent answers, in the words of the conditions of its NodeConfig. If it does not run, what it has recorded is said \
         instead.",
    ),
    flags: &[&OUTPUT, &WAIT, &STRICT, &QUIET, &flags::RECORD_SOCKET, &flags::RECORD_DIR],
    operands: &[],
    examples: &[
        ("flock-agent status", "how the node is"),
        ("flock-agent status --wait 30 --strict -q", "in a script, after an upgrade: goes on once the node is well"),
        ("flock-agent status -o json", "for programs: names and meanings of keys stay as they are"),
        ("flock-agent status -o prometheus", "the metrics, for the textfile collector of node_exporter"),
    ],
    files: &[("/run/flock/flock.sock", "where the agent is asked; root only")],
    exits: &[
        (Exit::Done, "the node is ready; with -o prometheus, the agent has answered"),
        (Exit::Failed, "it is not, or there is a warning and --strict is given"),
        (Exit::Misused, "the command line is not understood"),
        (Exit::Unanswered, "no agent answers"),
        (Exit::Denied, "the agent does not answer this user"),
    ],
};

/// `--output` of `status`
pub const OUTPUT: Flag = Flag {
    name: "--output",
    letter: Some('o'),
    value: Some(Value { name: "FORMAT", kind: Kind::OneOf(&OUTPUTS), default: Default::Unset("lines for people") }),
    help: "how it is told",
    excludes: &["--quiet"],
};

/// `--wait` of `status`
pub const WAIT: Flag = Flag {
    name: "--wait",
    value: Some(Value { name: "SECONDS", kind: Kind::Seconds(WAIT_MAX), default: Default::Value("0") }),
    help: "ask again until the exit code would be 0, for so long at most",
    ..Flag::SWITCH
};

/// `--strict`
pub const STRICT: Flag = Flag { name: "--strict", help: "a warning counts as not ready", ..Flag::SWITCH };

/// `--quiet`
pub const QUIET: Flag = Flag {
    name: "--quiet",
    letter: Some('q'),
    help: "print nothing: the exit code says it",
    excludes: &["--output"],
    ..Flag::SWITCH
};
