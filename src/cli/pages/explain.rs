//! `flock-agent explain`: its page, and the flags that only it has. Must not do anything with them.

use crate::cli::flags;
use crate::cli::table::{Default, Flag, Group, Kind, Operand, Page, Program, Times, Value};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Explain,
    group: Group::Looking,
    word: "explain",
    summary: "says whose an address is, and who may talk to whom",
    about: Some(
        "With one word, an IP address, NAMESPACE/POD, a link or the id of a container (its beginning is enough): whose it is, what \
         it shows, and why an address is nobody's. Works without an agent as far as the record and the kernel know. With two, FROM \
         and TO are a pod as NAMESPACE/POD or NAMESPACE/POD@ADDRESS, an IP address, or the word node. The answer names the \
         policies that count, the rule that allows it or what each of them lacks, where nft shows it, whether the kernel \
         has what flock-agent wants, and how much was dropped. Behind a Service or a host port, ask with the pod and its own port.",
    ),
    flags: &[&flags::AGENT_SOCKET, &flags::RECORD_DIR, &POLICY_DIR, &NODE_CONFIG],
    operands: &[
        Operand { name: "FROM", times: Times::Once, kind: Kind::Text, help: "who begins; alone, what is asked about" },
        Operand { name: "TO", times: Times::AtMostOnce, kind: Kind::Text, help: "who is to answer" },
        Operand {
            name: "PROTO/PORT",
            times: Times::AtMostOnce,
            kind: Kind::Text,
            help: "where it is to arrive: TCP/80, UDP/53, SCTP/9 or ICMP; without it, the question is about a ping, which \
                   a rule that names ports never allows",
        },
    ],
    examples: &[
        ("flock-agent explain 10.25.214.7", "whose is it, or why is it nobody's"),
        ("flock-agent explain shop/web shop/db TCP/5432", "two pods, asked on the node of each"),
        ("flock-agent explain 198.51.100.7 shop/web TCP/443", "somebody outside"),
        (
            "flock-agent explain --policy-dir policies shop/web shop/db TCP/5432",
            "manifests that nobody has applied yet",
        ),
    ],
    files: &[("/run/flock/flock.sock", "where the agent is asked; root only")],
    exits: &[
        (Exit::Done, "it passes, be it because the pod is audited"),
        (Exit::Failed, "it does not"),
        (Exit::Misused, "the command line is not understood, or names somebody or a file that is not there"),
        (Exit::Unanswered, "no agent answers, or it cannot tell yet"),
        (Exit::Denied, "the agent does not answer this user"),
    ],
};

/// `--policy-dir` of `explain`
pub const POLICY_DIR: Flag = Flag {
    name: "--policy-dir",
    value: Some(Value { name: "DIR", kind: Kind::Directory, default: Default::Nothing }),
    help: "ask no agent, but the NetworkPolicies, Namespaces and Pods in the YAML and JSON files of this directory",
    ..Flag::SWITCH
};

/// `--node-config` of `explain`
pub const NODE_CONFIG: Flag = Flag {
    name: "--node-config",
    value: Some(Value {
        name: "FILE",
        kind: Kind::File,
        default: Default::Unset("a NodeConfig that says nothing of policies"),
    }),
    help: "with --policy-dir: what the NodeConfig in FILE says of policies holds",
    ..Flag::SWITCH
};
