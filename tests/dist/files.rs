//! The files of the release: which there are, whose they are, what they weigh, and that the programs need nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::programs::succeed;
use crate::{ARCHES, named, released, unpacked};

#[test]
fn every_file_has_its_sum_and_no_other_is_there() {
    let sums = released("SHA256SUMS");
    let dir = sums.parent().expect("a directory");
    let said = succeed(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(dir));
    let checked: BTreeSet<String> = said.lines().map(|line| line.trim_end_matches(": OK").to_owned()).collect();
    let names = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut present: BTreeSet<String> = names.map(|name| name.into_string().expect("text")).collect();
    assert!(present.remove("SHA256SUMS"));
    assert_eq!(checked, present);
    assert_eq!(present.len(), 4 * ARCHES.len() + 1, "{present:?}");
}

#[test]
fn a_tarball_is_one_directory_of_root_s_files_that_anybody_may_read() {
    for (arch, _) in ARCHES {
        let tarball = named(&format!("linux-{arch}.tar.gz"));
        let listed = succeed(Command::new("tar").args(["--numeric-owner", "--full-time", "-tvzf"]).arg(&tarball));
        let top = format!("flock-{}-linux-{arch}/", env!("CARGO_PKG_VERSION"));
        let mut times = BTreeSet::new();
        for line in listed.lines() {
            let [mode, owner, _, date, time, path] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("{line}: a name with blanks")
            };
            let program = [format!("{top}flock"), format!("{top}flock-agent")].contains(&path.to_owned());
            let wanted = if path.ends_with('/') {
                "drwxr-xr-x"
            } else if program {
                "-rwxr-xr-x"
            } else {
                "-rw-r--r--"
            };
            assert_eq!((mode, owner), (wanted, "0/0"), "{line}");
            assert!(path.starts_with(&top) && !path.contains(".."), "{line}");
            times.insert(format!("{date} {time}"));
        }
        assert_eq!(times.len(), 1, "one time, the commit's");
    }
}

#[test]
fn a_tarball_has_what_its_documents_name() {
    for (arch, _) in ARCHES {
        let (_dir, root) = unpacked(arch);
        for file in ["LICENSE", "NOTICES", "CHANGELOG.md", "cni-conf/01-flock.conflist", "deploy/base/rbac.yaml"] {
            assert!(root.join(file).is_file(), "{arch}: {file}");
        }
        let same = Command::new("diff").arg("-r").args([Path::new("systemd"), &root.join("systemd")]).status();
        assert!(same.expect("diff starts").success());
        // What README and the pages lead to, but for the source and its tests, is there.
        let mut links = 0;
        let mut pages = vec![root.join("README.md"), root.join("deploy/README.md")];
        pages.extend(fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path()));
        for page in pages {
            let text = fs::read_to_string(&page).expect("text");
            for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                let of_source = ["src/", "tests/", "benches/", "vendor-notes"].iter().any(|part| target.contains(part));
                if target.is_empty() || target.starts_with("http") || of_source {
                    continue;
                }
                assert!(page.with_file_name(target).exists(), "{} leads to {target}", page.display());
                links += 1;
            }
        }
        assert!(links > 10, "{links} links");
    }
}

#[test]
fn the_programs_need_no_library_no_interpreter_and_no_place_of_their_own() {
    for (arch, machine) in ARCHES {
        let (_dir, root) = unpacked(arch);
        for program in ["flock", "flock-agent"] {
            let program = root.join(program);
            let elf = succeed(
                Command::new("readelf")
                    .args(["--wide", "--file-header", "--program-headers", "--dynamic"])
                    .arg(&program),
            );
            let machine = if machine == "x86_64" { "X86-64" } else { "AArch64" };
            assert!(elf.contains(machine), "{}", program.display());
            for needs in ["(NEEDED)", "INTERP", "(RUNPATH)", "(RPATH)"] {
                assert!(!elf.contains(needs), "{} has {needs}", program.display());
            }
            // Names of this machine's directories would say who has built it, and differ elsewhere. The tools keep what they have below
            // a name with a dot.
            let bytes = fs::read(&program).expect("readable");
            let home = std::env::var("HOME").expect("a home") + "/.";
            for place in [env!("CARGO_MANIFEST_DIR"), &home] {
                let at = bytes.windows(place.len()).position(|window| window == place.as_bytes());
                assert!(place.len() < 2 || at.is_none(), "{} names {place}", program.display());
            }
        }
    }
}
