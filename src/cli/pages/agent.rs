//! The daemon of the node: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Page, Program, Value};
use crate::process::exit::Exit;
use crate::process::log::line::{Format, Level};
use crate::record::DEFAULT_STATE_DIR;
use crate::rpc::DEFAULT_SOCKET;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Agent,
    group: Group::Daemon,
    word: "run",
    summary: "the node daemon; without a command, this is what runs",
    about: Some(
        "Gives pods their links and addresses, keeps the host as pods need it, and enforces NetworkPolicies. When it ends, pods \
         keep what they have.",
    ),
    flags: &[
        &KUBECONFIG,
        &NODE_CONFIG,
        &POD_CIDRS,
        &NODE_NAME,
        &SOCKET,
        &STATE_DIR,
        &POLICY_DIR,
        &CNI_CONF_DIR,
        &IMPORT,
        &BIRD_CONFIG,
        &flags::BIRD_SOCKET,
        &METRICS,
        &LOG_FORMAT,
        &LOG_LEVEL,
        &VERSION,
    ],
    operands: &[],
    examples: &[
        ("flock-agent --node-config /etc/flock/node.yaml", "a node without Kubernetes"),
        (
            "flock-agent --kubeconfig /etc/flock/kubeconfig --cni-conf-dir /etc/cni/net.d",
            "a node of a cluster, whose container runtime uses flock",
        ),
    ],
    files: &[
        (
            "/etc/default/flock-agent",
            "the flags that the unit gives to the agent: FLOCK_AGENT_SOURCE and FLOCK_AGENT_FLAGS",
        ),
        ("/etc/flock", "the files that flags name: node.yaml or kubeconfig"),
        ("/run/flock", "socket, allocations and delete notes of this boot"),
    ],
    exits: &[
        (Exit::Done, "told to stop, and stopped in order"),
        (Exit::Failed, "cannot run; the log says why"),
        (Exit::Misused, "the command line is not understood, or does not lead to a NodeConfig"),
    ],
};

/// `--kubeconfig`
pub const KUBECONFIG: Flag = Flag {
    name: "--kubeconfig",
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("the service account of the pod that the agent runs in"),
    }),
    help: "reach the Kubernetes API as FILE says",
    excludes: &["--node-config", "--policy-dir"],
    ..Flag::SWITCH
};

/// `--node-config`
pub const NODE_CONFIG: Flag = Flag {
    name: "--node-config",
    value: Some(Value { name: "FILE", kind: Kind::File, default: Default::Nothing }),
    help: "without Kubernetes: read this node's NodeConfig from FILE (YAML or JSON) and follow its changes",
    excludes: &["--kubeconfig", "--pod-cidrs"],
    ..Flag::SWITCH
};

/// `--pod-cidrs`
pub const POD_CIDRS: Flag = Flag {
    name: "--pod-cidrs",
    help: "with Kubernetes: as long as no NodeConfig bears this node's name, the ranges are spec.podCIDRs of its Node",
    excludes: &["--node-config"],
    ..Flag::SWITCH
};

/// `--node-name`
pub const NODE_NAME: Flag = Flag {
    name: "--node-name",
    value: Some(Value {
        name: "NAME",
        kind: Kind::Text,
        default: Default::Unset("the host name in lower case, as kubelet has it"),
    }),
    help: "this node's name",
    ..Flag::SWITCH
};

/// `--socket`
pub const SOCKET: Flag = Flag {
    name: "--socket",
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value(DEFAULT_SOCKET) }),
    help: "listen here for the plugin",
    ..Flag::SWITCH
};

/// `--state-dir`
pub const STATE_DIR: Flag = Flag {
    name: "--state-dir",
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Value(DEFAULT_STATE_DIR) }),
    help: "keep the allocations here, with mode 0700",
    ..Flag::SWITCH
};

/// `--policy-dir`
pub const POLICY_DIR: Flag = Flag {
    name: "--policy-dir",
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Nothing }),
    help: "without Kubernetes: enforce the NetworkPolicies in the YAML and JSON files of this directory, with the Namespaces and Pods \
           that stand beside them",
    excludes: &["--kubeconfig"],
    ..Flag::SWITCH
};

/// `--cni-conf-dir`
pub const CNI_CONF_DIR: Flag = Flag {
    name: "--cni-conf-dir",
    value: Some(Value {
        name: "DIR",
        kind: Kind::Directory,
        default: Default::Unset("write it nowhere, so that no runtime uses flock"),
    }),
    help: "once ready to serve, write 01-flock.conflist into DIR",
    ..Flag::SWITCH
};

/// `--import`: where the Go flock kept its allocations.
pub const IMPORT: Flag = Flag {
    name: "--import",
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::ValueIfThere("/var/lib/flock/allocations.json"),
    }),
    help: "at the start, take over the running pods of the Go flock from its FILE",
    ..Flag::SWITCH
};

/// `--bird-config`
pub const BIRD_CONFIG: Flag = Flag {
    name: "--bird-config",
    value: Some(Value { name: "FILE", kind: Kind::AbsoluteFile, default: Default::Value("/etc/flock/bird/bird.conf") }),
    help: "if the NodeConfig has a bgp block, write the configuration of BIRD into FILE",
    ..Flag::SWITCH
};

/// `--metrics`
pub const METRICS: Flag = Flag {
    name: "--metrics",
    value: Some(Value { name: "ADDRESS", kind: Kind::Address, default: Default::Unset("nowhere") }),
    help: "where Prometheus may ask for metrics by HTTP, such as [::]:9469 for all addresses of this host",
    ..Flag::SWITCH
};

/// `--log-format`
pub const LOG_FORMAT: Flag = Flag {
    name: "--log-format",
    value: Some(Value { name: "FORMAT", kind: Kind::OneOf(&Format::NAMES), default: Default::Value("text") }),
    help: "what a line of the log looks like",
    ..Flag::SWITCH
};

/// `--log-level`
pub const LOG_LEVEL: Flag = Flag {
    name: "--log-level",
    value: Some(Value { name: "LEVEL", kind: Kind::OneOf(&Level::NAMES), default: Default::Value("info") }),
    help: "the least important lines that are written",
    ..Flag::SWITCH
};

/// `--version`
pub const VERSION: Flag =
    Flag { name: "--version", letter: Some('V'), help: "print the version and end", ..Flag::SWITCH };
