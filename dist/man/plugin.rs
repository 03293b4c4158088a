//! flock-cni(8): what runtimes and operators have to know of the plugin. Numbers and limits come from its source, words stand here.

use cni::env::{ARGS_MAX, NETNS_MAX};
use cni::error::Code;
use cni::netconf::{NAME_MAX, SOCKET_MAX, STDIN_MAX};
use cni::version::Version;
use flock::record::DEFAULT_STATE_DIR;
use flock::rpc::DEFAULT_SOCKET;

use crate::mdoc::{Page, argument, path, sentence, typed};

/// The configuration that a node has.
const CONFLIST: &str = include_str!("../../cni-conf/01-flock.conflist");

/// The page.
pub fn page(date: &str) -> String {
    let mut page = Page::new("flock-cni", 8, date, "the CNI plugin flock");
    page.section("SYNOPSIS");
    page.line(&format!(".Ev {} Ns = Ns Ar COMMAND", argument("CNI_COMMAND")));
    page.line(".Ar ...");
    page.line(".Pa flock");
    page.line(&format!(".No < Ar {}", argument("CONFIGURATION")));
    page.section("DESCRIPTION");
    page.prose(
        "`flock` is the plugin that a container runtime runs for each pod, by the Container Network Interface (CNI). It is a program of its \
         own in the runtime's directory of plugins, and not the `flock` of `util-linux`. It takes one call from the environment and \
         standard input, hands it to `flock-agent`, and prints the answer as one JSON object. It keeps nothing, and has no flags.",
    );
    page.paragraph(&format!(
        "It speaks the versions {} of CNI. Commands are ADD, DEL, CHECK, GC, STATUS and VERSION; CHECK begins with {}, GC and STATUS with {}.",
        Version::list(),
        Version::introduced(cni::verb::Verb::Check),
        Version::introduced(cni::verb::Verb::Gc),
    ));
    page.paragraph(
        "A DEL that no agent answers is noted beside the agent's socket and succeeds; the next agent carries it out. An ADD that no agent answers \
         in time fails, and the runtime repeats it.",
    );
    page.paragraph("Started by hand, without `CNI_COMMAND`, it says on standard error what it is.");

    page.section("NETWORK CONFIGURATION");
    page.prose(
        "Without a configuration, nobody runs the plugin. With `--cni-conf-dir`, the agent writes it as soon as it can serve pods, and leaves one alone \
         that somebody has edited. Of each plugin's part, flock reads these keys and passes over all others:",
    );
    let keys: [(&str, String); 8] = [
        ("type", "`flock`, the name of the program. It has to be the first plugin of a list.".into()),
        ("cniVersion", "One of the versions above. Runtimes take it from the list.".into()),
        ("name", format!("The network's name, of letters, digits, `_`, `.` and `-`, at most {NAME_MAX} bytes. GC works on the pods of this name only.")),
        ("socket", format!("The absolute path of the agent's socket, at most {SOCKET_MAX} bytes, if it is not `{DEFAULT_SOCKET}`. The agent needs the same by `--socket`.")),
        ("capabilities", "With `io.kubernetes.cri.pod-annotations`: `true`, the runtime hands the annotations of the pod over, and ADD asks no API server for them.".into()),
        ("runtimeConfig", "What the runtime hands over for that: an object of texts below `io.kubernetes.cri.pod-annotations`. Not for operators.".into()),
        ("prevResult", "What ADD has answered. CHECK needs it, ADD refuses it. Not for operators.".into()),
        ("cni.dev/valid-attachments", "The pods that GC leaves alone. Without it, GC removes nothing. Not for operators.".into()),
    ];
    page.list(keys.into_iter().map(|(key, what)| (typed(key), what)));
    page.paragraph(&format!("A configuration may have {STDIN_MAX} bytes. The one that is shipped:"));
    page.lines(CONFLIST);
    page.paragraph("Where the runtime finds the plugin `portmap`, the agent chains it behind flock, for host ports.");

    page.section("ENVIRONMENT");
    let variables: [(&str, String); 6] = [
        ("CNI_COMMAND", "The command.".into()),
        ("CNI_CONTAINERID", "The id of the pod's sandbox, for ADD, DEL and CHECK.".into()),
        (
            "CNI_NETNS",
            format!(
                "The absolute path of its network namespace, at most {NETNS_MAX} bytes, for ADD and CHECK. DEL works without it."
            ),
        ),
        ("CNI_IFNAME", "The name of the interface in the pod, for ADD, DEL and CHECK.".into()),
        (
            "CNI_ARGS",
            format!(
                "`K8S_POD_NAMESPACE` and `K8S_POD_NAME` of it name the pod; everything else is passed over. At most {ARGS_MAX} bytes."
            ),
        ),
        ("CNI_PATH", "Needed for GC by the specification, and not used.".into()),
    ];
    page.list(variables.into_iter().map(|(name, what)| (format!("Ev {}", argument(name)), what)));

    page.section("FILES");
    page.list(
        [
            (
                "/opt/cni/bin/flock, /usr/lib/cni/flock",
                "the plugin, where the runtime looks or the package of Debian has it",
            ),
            ("/etc/cni/net.d/01-flock.conflist", "the network configuration"),
            (DEFAULT_SOCKET, "where the agent answers; root only"),
            ("/run/flock/deletes", "deletes that wait for an agent; root only"),
            (DEFAULT_STATE_DIR, "the agent's record, which the plugin never opens"),
        ]
        .map(|(name, what)| (path(name), sentence(what))),
    );

    page.section("EXIT STATUS");
    page.list([
        (typed("0"), "Done. ADD and VERSION have printed their result, and the other commands print nothing.".into()),
        (typed("1"), "Failed, with an error object on standard output, unless that cannot be written to.".into()),
    ]);

    page.section("CNI ERRORS");
    page.prose("The error object has `cniVersion`, `code`, `msg`, the cause in short, and `details`, which names pods, addresses and files. Its codes:");
    let known = |code: Code| Some((typed(&code.number().to_string()), sentence(meaning(code)?)));
    page.list(Code::ALL.into_iter().filter_map(known));
    page.paragraph("Kubernetes shows the text in the events of the pod. What flock itself says of the same call is in the log of the agent.");
    page.see_also(&[("flock-nodeconfig", 5), ("flock-agent", 8)]);
    page.text()
}

/// What a runtime and its operator make of a code; none for one that flock never gives.
pub fn meaning(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::IncompatibleVersion => "`cniVersion` is missing or not one of the versions above, or has no such command",
        Code::UnsupportedField | Code::LimitedConnectivity => return None,
        Code::UnknownContainer => "flock has no record of this container; its pod has to be made anew",
        Code::InvalidEnvironment => "a variable of the environment is missing or wrong; the text names it",
        Code::Io => "standard input or output does not work",
        Code::Decode => "the configuration is not the JSON object that it should be",
        Code::InvalidConfig => {
            "the configuration, an annotation of the pod or the NodeConfig has to change; the text names the value"
        }
        Code::InvalidNetns => "`CNI_NETNS` is the namespace of the agent",
        Code::TryAgainLater => {
            "a passing condition, such as that the agent is away, that no address is free, or that another pod still has it; runtimes try again"
        }
        Code::NotAvailable => "no pod can be made now, as STATUS says it",
        Code::Internal => "anything else; the log of the agent has more",
    })
}
