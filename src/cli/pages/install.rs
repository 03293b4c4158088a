//! `flock-agent install`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Kind, Page, Program, Value};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Install,
    word: Some("install"),
    summary: "puts flock in place, or renews what is there",
    about: Some(
        "Starts nothing, and prints the commands that do. May be repeated; what is right already is not touched.",
    ),
    flags: &[&PLUGIN, &CNI_CONF, &BIRD, &CNI_BIN_DIR, &flags::ROOT, &flags::DRY_RUN],
    operands: &[],
    examples: &[
        ("flock-agent install --dry-run", "only says what it would do"),
        ("flock-agent install --cni-conf", "from the agent's next start on, new pods are flock's"),
        ("flock-agent install --root /mnt/image", "puts flock into an image"),
    ],
    files: &[
        ("/usr/local/bin/flock-agent", "the agent"),
        ("/opt/cni/bin/flock", "the plugin"),
        ("/etc/systemd/system/flock-agent.*", "the units, for which changes belong into drop-ins"),
        ("/etc/default/flock-agent", "the operator's flags for the agent"),
    ],
    exits: &[
        (Exit::Done, "everything is in place"),
        (Exit::Failed, "refused before the first change, or not done to the end; the next run finishes it"),
        (Exit::Misused, "the command line is not understood"),
    ],
};

/// `--plugin`
pub const PLUGIN: Flag = Flag {
    name: "--plugin",
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("the file flock beside this program"),
    }),
    help: "the CNI plugin",
    ..Flag::SWITCH
};

/// `--cni-conf`
pub const CNI_CONF: Flag = Flag {
    name: "--cni-conf",
    help: "let the agent write the CNI configuration once it can serve, so that the container runtime uses flock: adds \
           FLOCK_AGENT_FLAGS to /etc/default/flock-agent",
    ..Flag::SWITCH
};

/// `--bird`
pub const BIRD: Flag = Flag {
    name: "--bird",
    help: "also the units by which BIRD tells routers what the node announces, and by which the node withdraws itself when the \
           host goes down",
    ..Flag::SWITCH
};

/// `--cni-bin-dir` of `install`
pub const CNI_BIN_DIR: Flag = Flag {
    name: "--cni-bin-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset(
            "where the plugin is already, else /opt/cni/bin; Debian's packages of runtimes have /usr/lib/cni",
        ),
    }),
    help: "where the container runtime looks for plugins",
    ..Flag::SWITCH
};
