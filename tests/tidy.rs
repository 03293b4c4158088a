//! The shape of the code, held by a test: which folder may use which, that no files use each other in a circle, what a file begins
//! with, and where printing, netlink
//! and serialisation may appear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "mutants/list.rs"]
mod mutants;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use flock::cli::pages::every_flag;

/// The rooms of the house, which are the folders of src and the plugin, with every arrow between them. A new one is a line here,
/// for a reviewer to see.
const ARROWS: &[(&str, &[&str])] = &[
    // Crates of their own, without I/O, which the compiler holds.
    ("model", &[]),
    ("cni", &["model"]),
    // The edges.
    ("process", &["model"]),
    ("record", &["model", "process"]),
    ("kernel", &["model", "process"]),
    ("kube", &["model", "process"]),
    ("bird", &["model", "process", "record"]),
    ("rpc", &["cni", "model", "process", "record"]),
    // The programs.
    ("agent", &["bird", "cni", "kernel", "kube", "model", "process", "record", "rpc"]),
    ("install", &["bird", "cni", "kernel", "model", "process", "record", "rpc"]),
    ("operator", &["agent", "cni", "install", "kernel", "kube", "model", "process", "record", "rpc"]),
    ("plugin", &["cni", "model", "record", "rpc"]),
    // The command line.
    ("cli", &["agent", "cni", "install", "model", "operator", "process", "record", "rpc"]),
];

/// Files that may turn values into text and back.
const SERDE: &[&str] = &[
    "cni/",
    "kube/kubeconfig.rs",
    "kube/objects.rs",
    "kube/policy_objects.rs",
    "kube/watch.rs",
    "model/text.rs",
    "model/tree.rs",
    "operator/check/finding.rs",
    "operator/check/kube_proxy.rs",
    "plugin.rs",
    "record/format.rs",
    "record/import.rs",
    "record/notes.rs",
    "rpc/message.rs",
    "rpc/report.rs",
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

/// The room that a file is in.
fn room(file: &str) -> &str {
    file.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Lines of code, comments left out.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The module that a file is, from src on: `agent/node/mod.rs` is `agent::node`.
fn module(file: &str) -> Vec<&str> {
    file.trim_end_matches(".rs").split('/').filter(|part| !matches!(*part, "mod" | "lib")).collect()
}

/// Names, `::`, and every other character that is no space.
fn tokens(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for line in code(text) {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                ':' if rest.starts_with("::") => 2,
                c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            found.push(&rest[..length]);
            rest = rest[length..].trim_start();
        }
    }
    found
}

/// Reads the path that begins at `tokens[at]`, and each of a group in braces, behind `before`; says where it ends.
fn unfold<'a>(tokens: &[&'a str], mut at: usize, before: &[&'a str], paths: &mut Vec<Vec<&'a str>>) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = unfold(tokens, at, &path, paths);
                    while tokens.get(at).is_some_and(|token| !matches!(*token, "," | "}")) {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            Some(name) => path.push(name),
            None => return at,
        }
        if tokens.get(at + 1) != Some(&"::") {
            paths.push(path);
            return at + 1;
        }
        at += 2;
    }
}

/// The modules and items that `file` names, from src on: behind `crate::`, `self::` and `super::`, in one of the crates of their
/// own, or in a module that the file declares. A mere declaration names nothing.
fn paths_named<'a>(file: &'a str, text: &'a str) -> Vec<Vec<&'a str>> {
    let tokens = tokens(text);
    let children: Vec<&str> = tokens.windows(3).filter(|w| w[0] == "mod" && w[2] == ";").map(|w| w[1]).collect();
    let mut named = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = matches!(*token, "crate" | "self" | "super" | "model" | "cni") || children.contains(token);
        let goes_on = tokens.get(at + 1) == Some(&"::");
        if begins && goes_on && (at == 0 || tokens[at - 1] != "::") {
            unfold(&tokens, at, &[], &mut named);
        }
    }
    let own_crate = matches!(room(file), "model" | "cni");
    for path in &mut named {
        let mut full = if children.contains(&path[0]) { module(file) } else { Vec::new() };
        for (depth, part) in path.iter().enumerate() {
            match *part {
                "crate" if own_crate => full.push(room(file)),
                "crate" => {}
                // At the end of a group, the module itself.
                "self" if depth > 0 => {}
                "self" => full = module(file),
                "super" => {
                    if depth == 0 {
                        full = module(file);
                    }
                    full.pop();
                }
                part => full.push(part),
            }
        }
        *path = full;
    }
    named
}

/// The files of `sources` that each of them uses.
fn uses(sources: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let modules: BTreeMap<Vec<&str>, &str> = sources.keys().map(|file| (module(file), file.as_str())).collect();
    let file_of = |path: Vec<&str>| (1..=path.len()).rev().find_map(|length| modules.get(&path[..length]).copied());
    let used = |file: &str, text| {
        let files = paths_named(file, text).into_iter().filter_map(file_of);
        files.filter(|used| *used != file).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let of = |name: String| *modules.values().find(|file| **file == name).expect("a file");
    sources.iter().map(|(file, text)| (file.as_str(), used(file, text).into_iter().map(of).collect())).collect()
}

/// Files that use each other in a circle, each the next one; none if there is no circle.
fn circle<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut left = uses.clone();
    // A file that uses none of the others that are left is in no circle.
    while let Some(done) = left.iter().find(|(_, used)| used.iter().all(|file| !left.contains_key(file))) {
        let done = *done.0;
        left.remove(done);
    }
    let mut way = vec![*left.keys().next()?];
    loop {
        let next = left[way[way.len() - 1]].iter().find(|file| left.contains_key(*file)).expect("one that is left");
        if let Some(at) = way.iter().position(|file| file == next) {
            return Some(way.split_off(at));
        }
        way.push(next);
    }
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let sources = sources();
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, targets) in uses(&sources) {
        if file.starts_with("bin/") || file == "lib.rs" {
            continue;
        }
        let rooms = targets.into_iter().map(room).filter(|target| *target != room(file));
        used.entry(room(file)).or_default().extend(rooms);
    }
    for (from, targets) in &used {
        let allowed =
            ARROWS.iter().find(|(name, _)| name == from).unwrap_or_else(|| panic!("{from} is not in the table"));
        for target in targets {
            assert!(allowed.1.contains(target), "{from} uses {target}, and the table has no such arrow");
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
fn the_crates_without_io_are_without_std() {
    for room in ["model", "cni"] {
        for path in files(&root().join("src").join(room), "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let is_root = path.ends_with("lib.rs");
            assert_eq!(code(&text).any(|line| line == "#![no_std]"), is_root, "{}", path.display());
            // Their tests may have it.
            let product = text.replace("#[cfg(test)]\nextern crate std;", "");
            assert!(!product.contains("extern crate std"), "{}", path.display());
        }
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = sources();
    let uses = uses(&sources);
    let arrows: usize = uses.values().map(BTreeSet::len).sum();
    assert!(arrows > uses.len(), "{arrows} arrows between {} files are not all", uses.len());
    assert_eq!(circle(&uses), None, "each of these files uses the next one, and the last one the first");
}

#[test]
fn a_use_of_another_file_is_seen_however_it_is_written() {
    let modules =
        ["agent/mod.rs", "agent/fault.rs", "agent/node/mod.rs", "agent/node/gate.rs", "kube/mod.rs", "kube/watch.rs"];
    let others = ["cni/lib.rs", "cni/version.rs", "model/lib.rs", "model/lease.rs"];
    for (file, text, used) in [
        ("agent/fault.rs", "use crate::kube::watch;", vec!["kube/watch.rs"]),
        ("agent/fault.rs", "use super::super::kube::watch;", vec!["kube/watch.rs"]),
        ("agent/node/mod.rs", "use super::super::kube::explained;", vec!["kube/mod.rs"]),
        ("agent/node/gate.rs", "use super::super::fault;", vec!["agent/fault.rs"]),
        ("agent/node/gate.rs", "use super::{Node, Wake as W};", vec!["agent/node/mod.rs"]),
        ("agent/node/mod.rs", "pub mod gate;", vec![]),
        ("agent/node/mod.rs", "pub mod gate;\nfn f(gate: &gate::Gate) {", vec!["agent/node/gate.rs"]),
        ("agent/mod.rs", "use self::node::{gate::Gate, self};", vec!["agent/node/gate.rs", "agent/node/mod.rs"]),
        (
            "agent/fault.rs",
            "use crate::{\n    agent::{node::{gate, Node}, fault::Cause},\n    kube::{self, watch::{End, Flow}},\n};",
            vec!["agent/node/gate.rs", "agent/node/mod.rs", "kube/mod.rs", "kube/watch.rs"],
        ),
        (
            "kube/watch.rs",
            "fn f(lease: &model::lease::Lease, of: remodel::X, a: other::cni::X) {",
            vec!["model/lease.rs"],
        ),
        ("cni/lib.rs", "use crate::version; use model::addr;", vec!["cni/version.rs", "model/lib.rs"]),
        ("kube/watch.rs", "// use crate::agent::fault;", vec![]),
    ] {
        let mut sources: BTreeMap<String, String> =
            modules.iter().chain(&others).map(|file| ((*file).to_owned(), String::new())).collect();
        sources.insert(file.to_owned(), text.to_owned());
        assert_eq!(uses(&sources)[file], used.into_iter().collect(), "{file}: {text}");
    }
}

#[test]
fn a_circle_is_found_wherever_it_begins() {
    let uses = |arrows: &[(&'static str, &[&'static str])]| -> BTreeMap<&str, BTreeSet<&str>> {
        arrows.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect()
    };
    assert_eq!(circle(&uses(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    assert_eq!(circle(&uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["b"])])), Some(vec!["b", "c", "d"]));
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
fn every_source_says_what_it_owns_and_what_it_must_not_do() {
    for path in files(&root().join("src"), "rs").iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = fs::read_to_string(path).expect("text");
        let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let head = format!("{} ", head.join(" "));
        let sentences = head.matches(". ").count();
        assert!(sentences > 1, "the head of {} has less than two sentences", path.display());
        let limits = ["not", "never", "no ", "only"].iter().any(|word| head.contains(word));
        assert!(limits, "the head of {} does not say what the file must not do", path.display());
    }
}

#[test]
fn lines_of_comments_fit_a_screen() {
    for path in files(&root().join("src"), "rs") {
        for line in fs::read_to_string(&path).expect("text").lines().filter(|line| line.trim_start().starts_with("//"))
        {
            assert!(line.chars().count() <= 132, "{}: {line}", path.display());
        }
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
            assert!(!netlink || room(file) == "kernel", "{file}: {line}");
            let http = ["ureq::", "rustls::"].iter().any(|name| line.contains(name));
            assert!(!http || room(file) == "kube", "{file}: {line}");
            let derives = line.contains("Serialize") || line.contains("Deserialize");
            let may = SERDE.iter().any(|place| file.starts_with(place));
            assert!(!derives || may, "{file}: {line}");
        }
    }
    let holds = |text: &str| text.contains("netlink_sys::Socket") || text.contains("netlink_sys::{Socket");
    let raw_socket: Vec<String> = sources().into_iter().filter(|(_, text)| holds(text)).map(|(file, _)| file).collect();
    assert_eq!(
        raw_socket,
        [
            "kernel/netlink/changes.rs",
            "kernel/netlink/conn.rs",
            "kernel/netlink/hearing.rs",
            "kernel/netlink/removal.rs",
            "kernel/nftables/changes.rs",
            "kernel/nftables/socket.rs",
        ]
    );
}

// covers: FM-B21
#[test]
fn only_one_place_enters_namespaces_and_one_runs_other_programs() {
    for (file, text) in &sources() {
        for line in code(text) {
            assert!(!line.contains("link_name_space") || file == "kernel/netns.rs", "{file}: {line}");
            assert!(!line.contains("process::Command") || file == "process/program.rs", "{file}: {line}");
            assert!(!line.contains("unsafe"), "{file}: {line}");
            assert!(!line.contains("static mut"), "{file}: {line}");
            let is_static = line.trim_start().starts_with("static ") || line.trim_start().starts_with("pub static ");
            let may = ["process/log/mod.rs", "process/failpoint.rs", "bin/flock-agent.rs"].contains(&file.as_str());
            assert!(!is_static || may, "{file}: {line}");
        }
    }
}

#[test]
fn locks_are_of_one_kind() {
    for (file, text) in sources().iter().filter(|(file, _)| *file != "process/lock.rs") {
        for line in code(text) {
            let other = ["Mutex", "Condvar", "RwLock", "PoisonError"].iter().any(|word| line.contains(word));
            assert!(!other, "{file}: {line}");
        }
    }
}

#[test]
fn every_dependency_has_its_line() {
    let notes = fs::read_to_string(root().join("vendor-notes.md")).expect("text");
    let mut count = 0;
    for manifest in ["Cargo.toml", "src/cni/Cargo.toml", "src/model/Cargo.toml"] {
        let manifest = fs::read_to_string(root().join(manifest)).expect("text");
        let sections = manifest
            .split("\n[")
            .filter(|section| section.split(']').next().is_some_and(|s| s.ends_with("dependencies")));
        for line in sections.flat_map(|section| section.lines().skip(1)).filter(|line| !line.is_empty()) {
            let name = line.split([' ', '.']).next().expect("a name");
            let own = matches!(name, "cni" | "model");
            assert!(own || notes.contains(&format!("| `{name}` |")), "{name} has no line in vendor-notes.md");
            count += 1;
        }
    }
    assert!(count > 8);
}

#[test]
fn documents_name_files_and_flags_that_exist() {
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
        for line in text
            .lines()
            .filter(|line| line.contains("flock-agent") && !line.contains("systemctl") && !line.contains("kubectl "))
        {
            for flag in line.split([' ', '`', '=', '\'']).filter(|word| word.starts_with("--")) {
                assert!(every_flag().any(|known| known.name == flag), "{}: {flag}", path.display());
            }
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).expect("text");
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

#[test]
fn every_mutant_is_of_this_source_and_its_tests_exist() {
    let sources = mutants::sources(&root());
    let list = mutants::mutants(&root());
    let mut names = BTreeSet::new();
    for mutant in &list {
        assert!(names.insert(&mutant.name), "two mutants have the name {}", mutant.name);
        if let Err(why) = mutant.applied(&root()) {
            panic!("tests/mutants/list: {}: {why}", mutant.name);
        }
        for test in &mutant.tests {
            let program = mutants::program_of(&root(), &sources, test);
            assert!(program.is_ok(), "tests/mutants/list: {}: {}", mutant.name, program.unwrap_err());
        }
    }
    assert!(list.len() >= 60 && list.iter().filter(|mutant| mutant.harmless.is_some()).count() * 10 < list.len());
}
