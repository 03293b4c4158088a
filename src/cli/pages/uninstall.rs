//! `flock-agent uninstall`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Uninstall,
    group: Group::Installing,
    word: "uninstall",
    summary: "takes flock away again",
    about: Some("Refuses while pods are attached or its services run, and leaves what it did not install."),
    flags: &[&FORCE, &PURGE, &PACKAGE, &BIN_DIR, &CNI_BIN_DIR, &CNI_CONF_DIR, &flags::ROOT, &flags::DRY_RUN],
    operands: &[],
    examples: &[("flock-agent uninstall --dry-run", "only says what it would do")],
    files: &[("/etc/flock, /etc/default/flock-agent", "the operator's, which stay unless --purge is given")],
    exits: &[
        (Exit::Done, "nothing of flock is left but what was said"),
        (Exit::Failed, "refused before the first change, or not done to the end; the next run finishes it"),
        (Exit::Misused, "the command line is not understood"),
    ],
};

/// `--force`
pub const FORCE: Flag = Flag {
    name: "--force",
    help: "even though pods are attached: they keep their links and traffic, and the runtime cannot delete them until flock \
           is back",
    ..Flag::SWITCH
};

/// `--purge`
pub const PURGE: Flag = Flag {
    name: "--purge",
    help: "remove /etc/flock, /etc/default/flock-agent and /etc/default/flock-bird as well",
    excludes: &["--package"],
    ..Flag::SWITCH
};

/// `--package`
pub const PACKAGE: Flag = Flag {
    name: "--package",
    help: "called by the package of flock that is being removed: its own files stay for it to remove, and the rest goes",
    excludes: &["--purge"],
    ..Flag::SWITCH
};

/// `--cni-bin-dir` of `uninstall`
pub const CNI_BIN_DIR: Flag = Flag {
    name: "--cni-bin-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset("only where runtimes look"),
    }),
    help: "look for the plugin in DIR, too",
    ..Flag::SWITCH
};

/// `--cni-conf-dir` of `uninstall`
pub const CNI_CONF_DIR: Flag = Flag {
    name: "--cni-conf-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset("only where the agent writes it and where runtimes look"),
    }),
    help: "look for the CNI configuration in DIR, too",
    ..Flag::SWITCH
};

/// `--bin-dir` of `uninstall`
pub const BIN_DIR: Flag = Flag {
    name: "--bin-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset("only where the unit has it, in /usr/local/bin and in /opt/bin"),
    }),
    help: "look for the agent in DIR, too",
    ..Flag::SWITCH
};
