//! `flock-agent install`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::install::runtime::places;
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Install,
    group: Group::Installing,
    word: "install",
    summary: "puts flock in place, or renews what is there",
    about: Some(
        "Reads the configuration of the container runtime that it finds, puts the plugin where that looks, and says why. Starts \
         nothing, and prints the commands that do. May be repeated; what is right already is not touched.",
    ),
    flags: &[
        &RUNTIME,
        &CNI_CONF,
        &BIRD,
        &PLUGIN,
        &PLUGIN_ONLY,
        &BIN_DIR,
        &CNI_BIN_DIR,
        &CNI_CONF_DIR,
        &flags::ROOT,
        &flags::DRY_RUN,
    ],
    operands: &[],
    examples: &[
        ("flock-agent install --dry-run", "only says what it would do"),
        ("flock-agent install --cni-conf", "from the agent's next start on, new pods are flock's"),
        ("flock-agent install --root /mnt/image --runtime k3s", "puts flock into an image that is to run k3s"),
        ("flock-agent install --plugin-only", "the init container of a DaemonSet"),
    ],
    files: &[
        ("/usr/local/bin/flock-agent", "the agent, unless --bin-dir names another directory"),
        ("/opt/cni/bin/flock", "the plugin, unless the runtime looks elsewhere"),
        ("/etc/systemd/system/flock-agent.*", "the units, for which changes belong into drop-ins"),
        ("/etc/default/flock-agent", "the operator's flags for the agent"),
        ("/etc/containerd/config.toml, /etc/crio and the like", "are read"),
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
    excludes: &["--plugin-only"],
    ..Flag::SWITCH
};

/// `--bird`
pub const BIRD: Flag = Flag {
    name: "--bird",
    help: "also flock-bird.service, by which BIRD tells routers what the node announces, and flock-announce.service, by which the \
           node withdraws itself when the host goes down",
    excludes: &["--plugin-only"],
    ..Flag::SWITCH
};

/// `--cni-bin-dir` of `install`
pub const CNI_BIN_DIR: Flag = Flag {
    name: "--cni-bin-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset(
            "as the runtime's configuration says, else where plugins are already, else /opt/cni/bin",
        ),
    }),
    help: "where the container runtime looks for plugins",
    ..Flag::SWITCH
};

/// `--cni-conf-dir` of `install`
pub const CNI_CONF_DIR: Flag = Flag {
    name: "--cni-conf-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset("as the runtime's configuration says, else /etc/cni/net.d"),
    }),
    help: "where the container runtime looks for its CNI configuration, which the unit lets the agent write there",
    excludes: &["--plugin-only"],
    ..Flag::SWITCH
};

/// `--bin-dir` of `install`
pub const BIN_DIR: Flag = Flag {
    name: "--bin-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset("where the unit has it already, else /usr/local/bin"),
    }),
    help: "where the agent goes, such as /opt/bin where /usr is read-only",
    excludes: &["--plugin-only"],
    ..Flag::SWITCH
};

/// `--runtime`
pub const RUNTIME: Flag = Flag {
    name: "--runtime",
    value: Some(Value {
        name: "NAME",
        kind: Kind::OneOf(&places::Kind::NAMES),
        default: Default::Unset("the one that is found"),
    }),
    help: "the container runtime",
    ..Flag::SWITCH
};

/// `--plugin-only`
pub const PLUGIN_ONLY: Flag = Flag {
    name: "--plugin-only",
    help: "nothing but the plugin, for an agent that runs otherwise, as in a DaemonSet",
    excludes: &["--cni-conf", "--bird", "--bin-dir", "--cni-conf-dir"],
    ..Flag::SWITCH
};
