//! `flock-agent validate`: its page. Must not do anything with what it describes.

use crate::cli::table::{Group, Kind, Operand, Page, Program, Times};
use crate::process::exit::Exit;

/// What there is to say about it.
pub const PAGE: Page = Page {
    program: Program::Validate,
    group: Group::Looking,
    word: "validate",
    summary: "says what an agent would say of files",
    about: Some(
        "Files are read as the agent reads them: NodeConfigs, and the NetworkPolicies, Namespaces and Pods of `--policy-dir`. All \
         problems of all files are told, and as warnings what an agent takes and nobody may have meant: ranges of two \
         nodes that overlap, a node without a default, and on the node that a NodeConfig is for, an MTU that its uplink cannot \
         carry and ranges that meet the host's own networks. Nothing is asked of an agent or a cluster.",
    ),
    flags: &[],
    operands: &[Operand {
        name: "FILE",
        times: Times::AtLeastOnce,
        kind: Kind::File,
        help: "a file, a directory of which each .yaml, .yml and .json file counts, or - for standard input",
    }],
    examples: &[
        ("flock-agent validate /etc/flock/node.yaml", "before the agent reads it"),
        ("flock-agent validate nodes/", "those of all nodes, also beside each other"),
        ("kubectl get nodeconfigs node001 -o yaml | flock-agent validate -", "what the cluster has"),
    ],
    files: &[],
    exits: &[
        (Exit::Done, "every file can be used; there may be warnings"),
        (Exit::Failed, "at least one cannot"),
        (Exit::Misused, "the command line is not understood, or names a file that cannot be read"),
    ],
};
