//! The flags that more than one verb has. A flag of one verb stands in its file of `pages`. Must not read or print anything.

use crate::cli::table::{Default, Flag, Kind, Value};
use crate::record::DEFAULT_STATE_DIR;
use crate::rpc::DEFAULT_SOCKET;

/// `--bird-socket`
pub const BIRD_SOCKET: Flag = Flag {
    name: "--bird-socket",
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value("/run/flock/bird.ctl") }),
    help: "the control socket of BIRD",
    ..Flag::SWITCH
};

/// `--socket` of everybody but the agent itself
pub const AGENT_SOCKET: Flag = Flag {
    name: "--socket",
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value(DEFAULT_SOCKET) }),
    help: "the socket of the agent",
    ..Flag::SWITCH
};

/// `--socket` of the verbs that tell how a node is
pub const RECORD_SOCKET: Flag = Flag {
    name: "--socket",
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value(DEFAULT_SOCKET) }),
    help: "the agent's socket, beside which deletes wait for it",
    ..Flag::SWITCH
};

/// `--state-dir` of the verbs that read what the agent has recorded
pub const RECORD_DIR: Flag = Flag {
    name: "--state-dir",
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Value(DEFAULT_STATE_DIR) }),
    help: "where the agent keeps what it records",
    ..Flag::SWITCH
};

/// `--root`
pub const ROOT: Flag = Flag {
    name: "--root",
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Nothing }),
    help: "in the image below DIR; nothing of this machine is looked at",
    ..Flag::SWITCH
};

/// `--dry-run`
pub const DRY_RUN: Flag = Flag { name: "--dry-run", help: "print what would be done, and do nothing", ..Flag::SWITCH };

/// `--help`
pub const HELP: Flag = Flag {
    name: "--help",
    letter: Some('h'),
    help: "print this and end; with -h, only how it is called",
    ..Flag::SWITCH
};
