//! The shape of the code, held by a test: which module may use which, what a file begins with, and where printing, netlink
//! and serialisation may appear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every arrow between modules. A new one is a line here, for a reviewer to see.
const ARROWS: &[(&str, &[&str])] = &[
    // The pure core.
    ("addr", &[]),
    ("text", &[]),
    ("embed", &["addr"]),
    ("annotations", &["addr", "embed"]),
    ("cni", &["addr"]),
    ("lease", &["addr"]),
    ("nodeconfig", &["addr", "annotations", "text"]),
    ("ipam", &["addr", "embed"]),
    ("hostfacts", &["nodeconfig"]),
    ("desired", &["addr"]),
    ("plan", &["addr", "lease"]),
    ("recover", &["addr", "lease", "plan"]),
    // The edges.
    ("boot", &[]),
    ("failpoint", &[]),
    ("disk", &["failpoint"]),
    ("log", &[]),
    ("outside", &["disk"]),
    ("netns", &["failpoint"]),
    ("sysctl", &["failpoint"]),
    ("netlink", &["addr", "failpoint", "plan"]),
    ("store", &["addr", "disk", "lease"]),
    ("intents", &["addr", "boot", "disk", "failpoint"]),
    ("stop", &[]),
    ("program", &["stop"]),
    ("kube", &["annotations", "embed", "nodeconfig", "outside", "program", "stop", "text"]),
    ("pulse", &[]),
    ("rpc", &["boot", "cni", "disk", "failpoint", "pulse"]),
    // The two programs.
    (
        "agent",
        &[
            "addr",
            "annotations",
            "boot",
            "cni",
            "desired",
            "disk",
            "embed",
            "failpoint",
            "hostfacts",
            "intents",
            "ipam",
            "kube",
            "lease",
            "log",
            "netlink",
            "netns",
            "nodeconfig",
            "outside",
            "plan",
            "program",
            "pulse",
            "recover",
            "rpc",
            "stop",
            "store",
            "sysctl",
        ],
    ),
    ("plugin", &["addr", "cni", "intents", "rpc"]),
];

/// Modules without files, sockets, threads, clocks, environment and log.
const PURE: &[&str] = &[
    "addr",
    "embed",
    "annotations",
    "cni",
    "lease",
    "nodeconfig",
    "ipam",
    "hostfacts",
    "desired",
    "plan",
    "recover",
    "text",
];

/// Files that may turn values into text and back.
const SERDE: &[&str] = &[
    "cni/",
    "nodeconfig.rs",
    "rpc/message.rs",
    "store/format.rs",
    "store/import.rs",
    "intents.rs",
    "kube/kubeconfig.rs",
    "kube/objects.rs",
    "kube/watch.rs",
    "plugin.rs",
    "text.rs",
];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The sources by their path under src, without what only tests see.
fn sources() -> BTreeMap<String, String> {
    let src = root().join("src");
    let sources = files(&src, "rs").into_iter().filter(|path| !path.ends_with("tests.rs"));
    sources
        .map(|path| {
            let text = fs::read_to_string(&path).expect("text");
            let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            let product = text.split("\n#[cfg(test)]\n").next().unwrap_or_default().to_owned();
            (name, product)
        })
        .collect()
}

fn module(file: &str) -> &str {
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Lines of code, comments left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let sources = sources();
    for (file, text) in &sources {
        if file.starts_with("bin/") || file == "lib.rs" {
            continue;
        }
        for part in code(text).flat_map(|line| line.split("crate::").skip(1)) {
            let target: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if target != module(file) && !target.is_empty() {
                used.entry(module(file)).or_default().insert(target);
            }
        }
    }
    for (from, targets) in &used {
        let allowed =
            ARROWS.iter().find(|(name, _)| name == from).unwrap_or_else(|| panic!("{from} is not in the table"));
        for target in targets {
            assert!(allowed.1.contains(&target.as_str()), "{from} uses {target}, and the table has no such arrow");
        }
    }
    for (from, targets) in ARROWS {
        for target in *targets {
            let really = used.get(from).is_some_and(|set| set.contains(*target));
            assert!(really, "the table has an arrow from {from} to {target} that nobody uses");
        }
    }
}

#[test]
fn the_core_is_pure() {
    let forbidden = [
        "std::fs",
        "std::env",
        "std::thread",
        "std::process",
        "std::time",
        "std::os",
        "std::sync",
        "rustix",
        "netlink_",
        "File::",
        "Instant",
        "SystemTime",
        "crate::log",
    ];
    for (file, text) in sources().iter().filter(|(file, _)| PURE.contains(&module(file))) {
        for line in code(text) {
            for word in forbidden {
                assert!(!line.contains(word), "{file}: {line}");
            }
        }
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    let mut all: Vec<PathBuf> = files(&root().join("src"), "rs");
    all.extend(files(&root().join("tests"), "rs"));
    for path in all {
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("//! "), "{}", path.display());
    }
}

#[test]
fn binaries_are_three_lines_and_the_agent_s_heap() {
    for (file, text) in sources().iter().filter(|(file, _)| file.starts_with("bin/")) {
        let main =
            code(text).filter(|line| !line.is_empty() && !line.contains("global_allocator") && !line.contains("HEAP"));
        assert_eq!(main.count(), 3, "{file}");
    }
}

#[test]
fn netlink_http_and_serialisation_stay_where_they_belong() {
    for (file, text) in &sources() {
        for line in code(text) {
            let netlink = line.contains("netlink_packet") || line.contains("netlink_sys");
            assert!(!netlink || module(file) == "netlink", "{file}: {line}");
            let http = ["ureq::", "rustls::"].iter().any(|name| line.contains(name));
            assert!(!http || module(file) == "kube", "{file}: {line}");
            let derives = line.contains("Serialize") || line.contains("Deserialize");
            let may = SERDE.iter().any(|place| file.starts_with(place));
            assert!(!derives || may, "{file}: {line}");
        }
    }
    let holds = |text: &str| text.contains("netlink_sys::Socket") || text.contains("netlink_sys::{Socket");
    let raw_socket: Vec<String> = sources().into_iter().filter(|(_, text)| holds(text)).map(|(file, _)| file).collect();
    assert_eq!(raw_socket, ["netlink/changes.rs", "netlink/conn.rs", "netlink/events.rs"]);
}

// covers: FM-B21
#[test]
fn only_one_place_enters_namespaces_and_one_runs_other_programs() {
    for (file, text) in &sources() {
        for line in code(text) {
            assert!(!line.contains("link_name_space") || file == "netns.rs", "{file}: {line}");
            assert!(!line.contains("process::Command") || file == "program.rs", "{file}: {line}");
            assert!(!line.contains("unsafe"), "{file}: {line}");
            assert!(!line.contains("static mut"), "{file}: {line}");
            let is_static = line.trim_start().starts_with("static ") || line.trim_start().starts_with("pub static ");
            let may = ["log.rs", "failpoint.rs", "bin/flock-agent.rs"].contains(&file.as_str());
            assert!(!is_static || may, "{file}: {line}");
        }
    }
}

#[test]
fn every_dependency_has_its_line() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("text");
    let notes = fs::read_to_string(root().join("vendor-notes.md")).expect("text");
    let (_, rest) = manifest.split_once("[dependencies]\n").expect("a section");
    let (dependencies, rest) = rest.split_once("\n[dev-dependencies]\n").expect("a section");
    let (development, _) = rest.split_once("\n[").expect("a section");
    let mut count = 0;
    for line in dependencies.lines().chain(development.lines()).filter(|line| !line.is_empty()) {
        let (name, _) = line.split_once(' ').expect("a name");
        assert!(notes.contains(&format!("| `{name}` |")), "{name} has no line in vendor-notes.md");
        count += 1;
    }
    assert!(count > 8);
}

#[test]
fn documents_name_files_and_flags_that_exist() {
    let help = flock::agent::flags::HELP.to_owned() + flock::agent::install::flags::HELP;
    let mut documents = files(&root().join("docs"), "md");
    documents.extend(["README.md", "CHANGELOG.md", "vendor-notes.md"].map(|name| root().join(name)));
    for path in documents {
        let text = fs::read_to_string(&path).expect("text");
        let here = path.parent().expect("a directory");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap_or_default();
            assert!(here.join(file).exists(), "{} links to {target}", path.display());
        }
        for line in text.lines().filter(|line| line.contains("flock-agent") && !line.contains("systemctl")) {
            for flag in line.split([' ', '`', '=']).filter(|word| word.starts_with("--")) {
                assert!(help.contains(&format!("  {flag} ")), "{}: {flag}", path.display());
            }
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).expect("text");
    for flag in help.lines().filter_map(|line| line.strip_prefix("  --")).filter_map(|l| l.split_whitespace().next()) {
        assert!(readme.contains(&format!("`--{flag}")), "README.md does not describe --{flag}");
    }
    for target in ["make demo", "make test"] {
        assert!(readme.contains(target), "README.md does not name `{target}`");
    }
}

#[test]
fn the_oldest_versions_are_the_same_wherever_they_stand() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect("text");
    let (readme, page) = (read("README.md"), read("docs/requirements.md"));
    let table = page.split("\n\n").find(|part| part.starts_with("| what | oldest |")).expect("a table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .map(|row| row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert!(rows.len() > 3);
    for row in &rows {
        let words = format!("{} {}", row[0], row[1]);
        assert!(readme.contains(&words), "README.md does not say {words}");
    }
    // The kernel's is in the agent as well, and among those that are booted, as is each that the page says was tried.
    let (major, minor) = flock::agent::requirements::OLDEST_KERNEL;
    let linux = rows.iter().find(|row| row[0] == "Linux").expect("a row");
    assert_eq!(linux[1], format!("{major}.{minor}"));
    let assets = read("tests/kernels/assets");
    let booted = assets.lines().find_map(|line| line.strip_prefix("kernels=(")).expect("a list").trim_end_matches(')');
    let versions: Vec<&str> = booted.split(' ').filter_map(|kernel| kernel.split(':').next()).collect();
    assert_eq!(versions[0], linux[1], "the oldest is booted");
    assert!(linux[3].starts_with(&versions.join(", ")), "{}: {}", linux[3], versions.join(", "));
    for version in versions {
        assert!(
            read("Makefile").lines().any(|line| line.starts_with("test-kernels:") && line.contains(version)),
            "{version}"
        );
    }
}
