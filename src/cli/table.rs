//! The command line of `flock-agent` as data: its programs, their flags, and every word that is said about them.
//!
//! Parser, help and tests come from these tables, and so must whatever else describes the command line. A new program is a
//! variant of [`Program`] with its [`Page`], a new flag is a [`Flag`] in [`FLAGS`]. Must not read or print anything.

use crate::process::exit::Exit;
use crate::process::log::{Format, Level};
use crate::rpc::DEFAULT_SOCKET;

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
    /// It has to be given. Those that need not be come last.
    pub needed: bool,
    /// What it is.
    pub help: &'static str,
}

/// A flag of one or more programs. Where programs mean something different by a name, each has an entry of its own.
#[derive(Debug)]
pub struct Flag {
    /// With its two dashes.
    pub name: &'static str,
    /// Its one-letter form, without the dash.
    pub letter: Option<char>,
    /// The programs that have it.
    pub programs: &'static [Program],
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
    /// A whole number of seconds, at most a minute.
    Seconds,
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

const EVERY: &[Program] = &[
    Program::Agent,
    Program::Install,
    Program::Uninstall,
    Program::BirdStop,
    Program::Withdraw,
    Program::Announce,
    Program::Explain,
];
const EXPLAIN: &[Program] = &[Program::Explain];
const WITHDRAW: &[Program] = &[Program::Withdraw];
const DRAINERS: &[Program] = &[Program::BirdStop, Program::Withdraw, Program::Announce];
const BIRD_TALKERS: &[Program] = &[Program::Agent, Program::BirdStop];
const AGENT: &[Program] = &[Program::Agent];
const INSTALL: &[Program] = &[Program::Install];
const UNINSTALL: &[Program] = &[Program::Uninstall];
const BOTH: &[Program] = &[Program::Install, Program::Uninstall];

/// What most flags have in common.
const PLAIN: Flag = Flag { name: "", letter: None, programs: &[], value: None, help: "", excludes: &[] };

/// `--kubeconfig`
pub const KUBECONFIG: Flag = Flag {
    name: "--kubeconfig",
    programs: AGENT,
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("the service account of the pod that the agent runs in"),
    }),
    help: "reach the Kubernetes API as FILE says",
    excludes: &["--node-config", "--policy-dir"],
    ..PLAIN
};

/// `--node-config`
pub const NODE_CONFIG: Flag = Flag {
    name: "--node-config",
    programs: AGENT,
    value: Some(Value { name: "FILE", kind: Kind::File, default: Default::Nothing }),
    help: "without Kubernetes: read this node's NodeConfig from FILE (YAML or JSON) and follow its changes",
    excludes: &["--kubeconfig"],
    ..PLAIN
};

/// `--node-name`
pub const NODE_NAME: Flag = Flag {
    name: "--node-name",
    programs: AGENT,
    value: Some(Value {
        name: "NAME",
        kind: Kind::Text,
        default: Default::Unset("the host name in lower case, as kubelet has it"),
    }),
    help: "this node's name",
    ..PLAIN
};

/// `--socket`
pub const SOCKET: Flag = Flag {
    name: "--socket",
    programs: AGENT,
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value(DEFAULT_SOCKET) }),
    help: "listen here for the plugin",
    ..PLAIN
};

/// `--state-dir`
pub const STATE_DIR: Flag = Flag {
    name: "--state-dir",
    programs: AGENT,
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Value("/run/flock/state") }),
    help: "keep the allocations here",
    ..PLAIN
};

/// `--policy-dir`
pub const POLICY_DIR: Flag = Flag {
    name: "--policy-dir",
    programs: AGENT,
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Nothing }),
    help: "without Kubernetes: enforce the NetworkPolicies in the YAML and JSON files of this directory, with the Namespaces and Pods \
           that stand beside them",
    excludes: &["--kubeconfig"],
    ..PLAIN
};

/// `--cni-conf-dir`
pub const CNI_CONF_DIR: Flag = Flag {
    name: "--cni-conf-dir",
    programs: AGENT,
    value: Some(Value {
        name: "DIR",
        kind: Kind::Directory,
        default: Default::Unset("write it nowhere, so that no runtime uses flock"),
    }),
    help: "once ready to serve, write 01-flock.conflist into DIR",
    ..PLAIN
};

/// `--import`: where the Go flock kept its allocations.
pub const IMPORT: Flag = Flag {
    name: "--import",
    programs: AGENT,
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::ValueIfThere("/var/lib/flock/allocations.json"),
    }),
    help: "at the start, take over the running pods of the Go flock from its FILE",
    ..PLAIN
};

/// `--bird-config`
pub const BIRD_CONFIG: Flag = Flag {
    name: "--bird-config",
    programs: AGENT,
    value: Some(Value { name: "FILE", kind: Kind::AbsoluteFile, default: Default::Value("/etc/flock/bird/bird.conf") }),
    help: "if the NodeConfig has a bgp block, write the configuration of BIRD into FILE",
    ..PLAIN
};

/// `--bird-socket`
pub const BIRD_SOCKET: Flag = Flag {
    name: "--bird-socket",
    programs: BIRD_TALKERS,
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value("/run/flock/bird.ctl") }),
    help: "the control socket of BIRD",
    ..PLAIN
};

/// `--socket` of `bird stop`, `withdraw` and `announce`
pub const AGENT_SOCKET: Flag = Flag {
    name: "--socket",
    programs: DRAINERS,
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value(DEFAULT_SOCKET) }),
    help: "the agent's socket, beside which stands how far the node is withdrawn",
    ..PLAIN
};

/// `--socket` of `explain`
pub const EXPLAIN_SOCKET: Flag = Flag {
    name: "--socket",
    programs: EXPLAIN,
    value: Some(Value { name: "PATH", kind: Kind::Socket, default: Default::Value(DEFAULT_SOCKET) }),
    help: "ask the agent that listens here",
    ..PLAIN
};

/// `--policy-dir` of `explain`
pub const EXPLAIN_POLICY_DIR: Flag = Flag {
    name: "--policy-dir",
    programs: EXPLAIN,
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Nothing }),
    help: "ask no agent, but the NetworkPolicies, Namespaces and Pods in the YAML and JSON files of this directory",
    ..PLAIN
};

/// `--node-config` of `explain`
pub const EXPLAIN_NODE_CONFIG: Flag = Flag {
    name: "--node-config",
    programs: EXPLAIN,
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("a NodeConfig that says nothing of policies"),
    }),
    help: "with --policy-dir: what the NodeConfig in FILE says of policies holds",
    ..PLAIN
};

/// `--wait`
pub const WAIT: Flag = Flag {
    name: "--wait",
    programs: WITHDRAW,
    value: Some(Value { name: "SECONDS", kind: Kind::Seconds, default: Default::Value("1") }),
    help: "how long routers have for turning to other nodes",
    ..PLAIN
};

/// `--log-format`
pub const LOG_FORMAT: Flag = Flag {
    name: "--log-format",
    programs: AGENT,
    value: Some(Value { name: "FORMAT", kind: Kind::OneOf(&Format::NAMES), default: Default::Value("text") }),
    help: "what a line of the log looks like",
    ..PLAIN
};

/// `--log-level`
pub const LOG_LEVEL: Flag = Flag {
    name: "--log-level",
    programs: AGENT,
    value: Some(Value { name: "LEVEL", kind: Kind::OneOf(&Level::NAMES), default: Default::Value("info") }),
    help: "the least important lines that are written",
    ..PLAIN
};

/// `--plugin`
pub const PLUGIN: Flag = Flag {
    name: "--plugin",
    programs: INSTALL,
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("the file flock beside this program"),
    }),
    help: "the CNI plugin",
    ..PLAIN
};

/// `--cni-conf`
pub const CNI_CONF: Flag = Flag {
    name: "--cni-conf",
    programs: INSTALL,
    help: "let the agent write the CNI configuration once it can serve, so that the container runtime uses flock: adds \
           FLOCK_AGENT_FLAGS to /etc/default/flock-agent",
    ..PLAIN
};

/// `--bird`
pub const BIRD: Flag = Flag {
    name: "--bird",
    programs: INSTALL,
    help: "also the units by which BIRD tells routers what the node announces, and by which the node withdraws itself when the \
           host goes down",
    ..PLAIN
};

/// `--force`
pub const FORCE: Flag = Flag {
    name: "--force",
    programs: UNINSTALL,
    help: "even though pods are attached: they keep their links and traffic, and the runtime cannot delete them until flock \
           is back",
    ..PLAIN
};

/// `--purge`
pub const PURGE: Flag = Flag {
    name: "--purge",
    programs: UNINSTALL,
    help: "remove /etc/flock and /etc/default/flock-agent as well",
    ..PLAIN
};

/// `--cni-bin-dir` of `install`
pub const INSTALL_CNI_BIN_DIR: Flag = Flag {
    name: "--cni-bin-dir",
    programs: INSTALL,
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset(
            "where the plugin is already, else /opt/cni/bin; Debian's packages of runtimes have /usr/lib/cni",
        ),
    }),
    help: "where the container runtime looks for plugins",
    ..PLAIN
};

/// `--cni-bin-dir` of `uninstall`
pub const UNINSTALL_CNI_BIN_DIR: Flag = Flag {
    name: "--cni-bin-dir",
    programs: UNINSTALL,
    value: Some(Value {
        name: "DIR",
        kind: Kind::AbsoluteDirectory,
        default: Default::Unset("only in /opt/cni/bin and /usr/lib/cni"),
    }),
    help: "look for the plugin in DIR, too",
    ..PLAIN
};

/// `--root`
pub const ROOT: Flag = Flag {
    name: "--root",
    programs: BOTH,
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Nothing }),
    help: "in the image below DIR; nothing of this machine is looked at",
    ..PLAIN
};

/// `--dry-run`
pub const DRY_RUN: Flag =
    Flag { name: "--dry-run", programs: BOTH, help: "print what would be done, and do nothing", ..PLAIN };

/// `--version`
pub const VERSION: Flag =
    Flag { name: "--version", letter: Some('V'), programs: AGENT, help: "print the version and end", ..PLAIN };

/// `--help`
pub const HELP: Flag = Flag { name: "--help", letter: Some('h'), programs: EVERY, help: "print this and end", ..PLAIN };

/// Every flag, in the order of the help.
pub const FLAGS: &[Flag] = &[
    KUBECONFIG,
    NODE_CONFIG,
    NODE_NAME,
    SOCKET,
    STATE_DIR,
    POLICY_DIR,
    CNI_CONF_DIR,
    IMPORT,
    BIRD_CONFIG,
    BIRD_SOCKET,
    AGENT_SOCKET,
    EXPLAIN_SOCKET,
    EXPLAIN_POLICY_DIR,
    EXPLAIN_NODE_CONFIG,
    WAIT,
    LOG_FORMAT,
    LOG_LEVEL,
    PLUGIN,
    CNI_CONF,
    BIRD,
    FORCE,
    PURGE,
    INSTALL_CNI_BIN_DIR,
    UNINSTALL_CNI_BIN_DIR,
    ROOT,
    DRY_RUN,
    VERSION,
    HELP,
];

/// Every program, the daemon first.
pub const PAGES: &[Page] = &[
    Page {
        program: Program::Agent,
        word: None,
        summary: "the node daemon of flock, a routed pod network",
        about: None,
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
    },
    Page {
        program: Program::Install,
        word: Some("install"),
        summary: "puts flock in place, or renews what is there",
        about: Some(
            "Starts nothing, and prints the commands that do. May be repeated; what is right already is not touched.",
        ),
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
    },
    Page {
        program: Program::Uninstall,
        word: Some("uninstall"),
        summary: "takes flock away again",
        about: Some("Refuses while pods are attached or its services run, and leaves what it did not install."),
        operands: &[],
        examples: &[("flock-agent uninstall --dry-run", "only says what it would do")],
        files: &[("/etc/flock, /etc/default/flock-agent", "the operator's, which stay unless --purge is given")],
        exits: &[
            (Exit::Done, "nothing of flock is left but what was said"),
            (Exit::Failed, "refused before the first change, or not done to the end; the next run finishes it"),
            (Exit::Misused, "the command line is not understood"),
        ],
    },
    Page {
        program: Program::BirdStop,
        word: Some("bird stop"),
        summary: "ends BIRD in the way that loses nothing",
        about: Some(
            "Peers keep the routes until BIRD is back, for two minutes at most; on a node that is withdrawn they drop them at \
             once. flock-bird.service ends BIRD by this.",
        ),
        operands: &[],
        examples: &[],
        files: &[("/run/flock/drain", "says that the node is withdrawn")],
        exits: &[
            (Exit::Done, "BIRD has ended, or was not there"),
            (Exit::Failed, "BIRD does not end"),
            (Exit::Misused, "the command line is not understood"),
        ],
    },
    Page {
        program: Program::Withdraw,
        word: Some("withdraw"),
        summary: "takes the node out of the network before it stops",
        about: Some(
            "Routers are told to prefer other nodes, and a moment later that nothing is here any more. Pods keep running, and \
             the node announces itself again after `announce` or a reboot. With or without the agent; may be repeated.",
        ),
        operands: &[],
        examples: &[("flock-agent withdraw --wait 5", "for routers that take their time")],
        files: &[("/run/flock/drain", "says that the node is withdrawn")],
        exits: &[
            (Exit::Done, "the node announces nothing"),
            (Exit::Failed, "not done to the end; the next run finishes it"),
            (Exit::Misused, "the command line is not understood"),
        ],
    },
    Page {
        program: Program::Announce,
        word: Some("announce"),
        summary: "ends what withdraw has begun",
        about: Some("The agent announces the node again as soon as it runs."),
        operands: &[],
        examples: &[],
        files: &[("/run/flock/drain", "is removed")],
        exits: &[
            (Exit::Done, "the node is not withdrawn any more"),
            (Exit::Failed, "not done"),
            (Exit::Misused, "the command line is not understood"),
        ],
    },
    Page {
        program: Program::Explain,
        word: Some("explain"),
        summary: "says whether one may talk to the other, and why",
        about: Some(
            "FROM and TO are a pod as NAMESPACE/POD or NAMESPACE/POD@ADDRESS, an IP address, or the word node. The answer names the \
             policies that count, the rule that allows it or what each of them lacks, where nft shows it, whether the kernel \
             has what flock-agent wants, and how much was dropped. Behind a Service or a host port, ask with the pod and its own port.",
        ),
        operands: &[
            Operand { name: "FROM", needed: true, help: "who begins" },
            Operand { name: "TO", needed: true, help: "who is to answer" },
            Operand {
                name: "PROTO/PORT",
                needed: false,
                help: "where it is to arrive: TCP/80, UDP/53, SCTP/9 or ICMP; without it, the question is about a ping, which \
                       a rule that names ports never allows",
            },
        ],
        examples: &[
            ("flock-agent explain shop/web shop/db TCP/5432", "two pods, asked on the node of each"),
            ("flock-agent explain 198.51.100.7 shop/web TCP/443", "somebody outside"),
            (
                "flock-agent explain --policy-dir policies shop/web shop/db TCP/5432",
                "manifests that nobody has applied yet",
            ),
        ],
        files: &[("/run/flock/flock.sock", "where the agent is asked; root only")],
        exits: &[
            (Exit::Done, "it passes"),
            (Exit::Failed, "it does not"),
            (Exit::Misused, "the command line is not understood, or names somebody or a file that is not there"),
            (Exit::Unanswered, "no agent answers, or it cannot tell yet"),
            (Exit::Denied, "the agent does not answer this user"),
        ],
    },
];

impl Program {
    /// What there is to say about it.
    pub fn page(self) -> Option<&'static Page> {
        PAGES.iter().find(|page| page.program == self)
    }

    /// The flags that it has, in the order of the help.
    pub fn flags(self) -> impl Iterator<Item = &'static Flag> {
        FLAGS.iter().filter(move |flag| flag.programs.contains(&self))
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
