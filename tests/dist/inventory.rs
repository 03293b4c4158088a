//! What the release says is in its binaries: the SPDX document against Cargo.lock and what Cargo would link, and the licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::programs::succeed;
use crate::{ARCHES, named, unpacked};

/// What a binary brings beside crates.
const TOOLCHAIN: [&str; 4] = ["rust-std", "glibc", "musl", "libgcc"];

/// Crates as `NAME@VERSION`, by what Cargo tells of the tree with these edges.
fn crates(machine: &str, edges: &str) -> BTreeSet<String> {
    let target = format!("{machine}-unknown-linux-gnu");
    let arguments =
        ["tree", "--locked", "--package", "flock", "--target", &target, "--edges", edges, "--prefix", "none"];
    let told = succeed(Command::new("cargo").args(arguments).args(["--format", "{p}"]));
    let name = |line: &str| {
        let mut words = line.split(' ');
        format!("{}@{}", words.next().expect("a name"), words.next().expect("a version").trim_start_matches('v'))
    };
    told.lines().map(name).collect()
}

/// The checksum of each crate in Cargo.lock; none for our own.
fn locked() -> BTreeMap<String, Option<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).expect("text");
    let value = |part: &str, key: &str| {
        let line = part.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let parts = text.split("[[package]]").skip(1);
    parts
        .map(|part| {
            let [name, version] = ["name", "version"].map(|key| value(part, key).expect("a value"));
            (format!("{name}@{version}"), value(part, "checksum"))
        })
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {value}"))
}

#[test]
fn the_document_has_what_spdx_wants() {
    for (arch, _) in ARCHES {
        let spdx: Value =
            serde_json::from_slice(&fs::read(named(&format!("linux-{arch}.spdx.json"))).expect("readable"))
                .expect("JSON");
        assert_eq!(
            (text(&spdx, "spdxVersion"), text(&spdx, "dataLicense"), text(&spdx, "SPDXID")),
            ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
        );
        assert!(
            text(&spdx, "documentNamespace").starts_with("https://") && !text(&spdx, "documentNamespace").contains('#')
        );
        assert!(!text(&spdx, "name").is_empty());
        let created = text(&spdx["creationInfo"], "created");
        assert!(created.len() == 20 && created.ends_with('Z') && &created[10..11] == "T", "{created}");
        assert!(spdx["creationInfo"]["creators"][0].as_str().is_some_and(|creator| creator.starts_with("Tool: ")));
        let mut ids = BTreeSet::from(["SPDXRef-DOCUMENT"]);
        for element in
            spdx["packages"].as_array().expect("packages").iter().chain(spdx["files"].as_array().expect("files"))
        {
            let id = text(element, "SPDXID");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            assert!(id.strip_prefix("SPDXRef-").is_some_and(|rest| rest.chars().all(plain)), "{id}");
            assert!(ids.insert(id), "{id} stands twice");
        }
        for package in spdx["packages"].as_array().expect("packages") {
            assert!(!text(package, "name").is_empty() && !text(package, "downloadLocation").is_empty());
            assert_eq!(package["filesAnalyzed"], false);
            // An expression of SPDX, not the slash of old manifests.
            let license = text(package, "licenseDeclared");
            assert!(license != "NOASSERTION" && !license.contains('/'), "{package}");
        }
        for relationship in spdx["relationships"].as_array().expect("relationships") {
            for end in ["spdxElementId", "relatedSpdxElement"] {
                assert!(ids.contains(text(relationship, end)), "{relationship}");
            }
        }
    }
}

#[test]
fn it_names_every_crate_that_cargo_uses_and_no_other_with_the_lock_s_checksums() {
    let locked = locked();
    for (arch, machine) in ARCHES {
        let spdx: Value =
            serde_json::from_slice(&fs::read(named(&format!("linux-{arch}.spdx.json"))).expect("readable"))
                .expect("JSON");
        let packages = spdx["packages"].as_array().expect("packages");
        let key = |package: &Value| format!("{}@{}", text(package, "name"), text(package, "versionInfo"));
        let (toolchain, listed): (Vec<&Value>, Vec<&Value>) =
            packages.iter().partition(|package| TOOLCHAIN.contains(&text(package, "name")));
        assert_eq!(toolchain.len(), TOOLCHAIN.len());
        assert!(toolchain.iter().all(|package| text(package, "versionInfo").contains('.')), "{toolchain:?}");
        assert_eq!(listed.iter().map(|package| key(package)).collect::<BTreeSet<_>>(), crates(machine, "normal,build"));
        for package in listed {
            let checksum = package["checksums"][0]["checksumValue"].as_str().map(str::to_owned);
            assert_eq!(locked.get(&key(package)), Some(&checksum), "{package}");
            assert!(
                checksum.is_none()
                    || package["externalRefs"][0]["referenceLocator"] == format!("pkg:cargo/{}", key(package))
            );
        }

        // What is linked is told apart from what only takes part in the build.
        let names: BTreeMap<&str, String> =
            packages.iter().map(|package| (text(package, "SPDXID"), key(package))).collect();
        let linked = spdx["relationships"]
            .as_array()
            .expect("relationships")
            .iter()
            .filter(|it| it["relationshipType"] == "STATIC_LINK");
        let mut linked: BTreeSet<String> = linked.map(|it| names[text(it, "relatedSpdxElement")].clone()).collect();
        linked.retain(|name| !TOOLCHAIN.iter().any(|of| name.starts_with(&format!("{of}@"))));
        let mut wanted = crates(machine, "no-dev,no-build,no-proc-macro");
        wanted.retain(|name| !name.starts_with("flock@"));
        assert_eq!(linked, wanted);
    }
}

#[test]
fn it_is_about_these_binaries_and_their_licences_are_beside_them() {
    for (arch, machine) in ARCHES {
        let (_dir, root) = unpacked(arch);
        let spdx: Value =
            serde_json::from_slice(&fs::read(named(&format!("linux-{arch}.spdx.json"))).expect("readable"))
                .expect("JSON");
        let mut names = BTreeSet::new();
        for file in spdx["files"].as_array().expect("files") {
            let path = root.join(text(file, "fileName"));
            for (number, algorithm) in ["SHA1", "SHA256"].into_iter().enumerate() {
                let checksum = &file["checksums"][number];
                assert_eq!(text(checksum, "algorithm"), algorithm);
                let sum = succeed(Command::new(format!("{}sum", algorithm.to_lowercase())).arg(&path));
                assert_eq!(sum.split(' ').next(), Some(text(checksum, "checksumValue")), "{}", path.display());
            }
            names.insert(text(file, "fileName").to_owned());
        }
        assert_eq!(names, BTreeSet::from(["./flock".to_owned(), "./flock-agent".to_owned()]));

        let notices = fs::read_to_string(root.join("NOTICES")).expect("text");
        let (list, texts) = notices.split_once("\n\n=").expect("a list and texts");
        let linked = crates(machine, "no-dev,no-build,no-proc-macro");
        for name in linked.iter().filter(|name| !name.starts_with("flock")) {
            assert!(list.lines().any(|line| line.starts_with(&format!("{name}: "))), "{name} is not listed");
            // Wherever its line is folded.
            assert!(texts.split_whitespace().any(|word| word == name.as_str()), "{name} has no licence");
        }
    }
}
