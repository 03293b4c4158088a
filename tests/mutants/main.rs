//! Makes small wrong changes, one at a time, in a copy of the tree, and tells which test notices each: `make mutants`.
//!
//! A suite that stays green with one of them is no evidence that flock keeps its promises. Works below `target/mutants` only,
//! and never changes the tree that it was started from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod list;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use list::{Mutant, Program, mutants, program_of, sources};

/// For one run of the tests of one mutant, in seconds. Whatever takes longer hangs, and that would be noticed.
const LIMIT: &str = "120";

/// What `timeout` returns for a command that it has cut off.
const CUT_OFF: i32 = 124;

/// Tests by the program that they are in.
type Tests = BTreeMap<Program, BTreeSet<String>>;

/// The copy, and where it is built.
struct Bench {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
    log: PathBuf,
}

/// What the tests of a mutant came to.
enum Fate {
    /// This test has failed.
    Killed(String),
    Survived,
    /// What the compiler said.
    NotBuilt(String),
}

fn main() -> ExitCode {
    let began = Instant::now();
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let bench = Bench::new();
    let all = mutants(&bench.root);
    let chosen: Vec<&Mutant> = all
        .iter()
        .filter(|mutant| {
            only.is_empty() || only.iter().any(|part| mutant.name.contains(part) || mutant.file.contains(part))
        })
        .collect();
    assert!(!chosen.is_empty(), "no mutant has a name or a file like that");
    let sources = sources(&bench.root);
    let tests: Vec<Tests> = chosen.iter().map(|mutant| bench.tests_of(mutant, &sources)).collect();
    bench.every_test_passes_before(&tests);

    let (mut killed, mut argued, mut faults) = (0, 0, 0);
    for (mutant, tests) in chosen.iter().zip(&tests) {
        if let Some(why) = &mutant.harmless {
            argued += 1;
            say(&format!("harmless: {}\n    {why}", mutant.name));
            continue;
        }
        match bench.fate(mutant, tests) {
            Fate::Killed(test) => {
                killed += 1;
                say(&format!("killed: {}\n    by {test}", mutant.name));
            }
            Fate::Survived => {
                faults += 1;
                say(&format!("SURVIVED: {}\n    {}", mutant.name, mutant.file));
            }
            Fate::NotBuilt(why) => {
                faults += 1;
                say(&format!("NOT BUILT: {}\n    {}\n{why}", mutant.name, mutant.file));
            }
        }
    }
    let seconds = began.elapsed().as_secs();
    say(&format!("{killed} killed, {argued} harmless, {faults} that survived or were not built, in {seconds} s"));
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// At once, as somebody may be watching for half an hour.
fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().ok();
}

impl Bench {
    fn new() -> Bench {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let place = root.join("target/mutants");
        let bench =
            Bench { tree: place.join("tree"), target: place.join("build"), log: place.join("log"), root: root.clone() };
        copy(&root, &bench.tree);
        bench
    }

    fn tests_of(&self, mutant: &Mutant, sources: &[(PathBuf, String)]) -> Tests {
        let mut tests = Tests::new();
        for test in &mutant.tests {
            let program = program_of(&self.root, sources, test).unwrap_or_else(|why| panic!("{}: {why}", mutant.name));
            tests.entry(program).or_default().insert(test.clone());
        }
        tests
    }

    /// A test that fails, or does not exist, would kill every mutant, or none.
    fn every_test_passes_before(&self, tests: &[Tests]) {
        let mut all = Tests::new();
        for (program, names) in tests.iter().flatten() {
            all.entry(program.clone()).or_default().extend(names.iter().cloned());
        }
        for (program, names) in &all {
            self.build(program).unwrap_or_else(|why| panic!("{why}"));
            let (status, said) = self.run(program, names);
            assert_eq!(status, Some(0), "a test fails without any mutant:\n{said}");
            for name in names {
                let ran = said.lines().any(|line| named(line) == Some(name.as_str()));
                assert!(ran, "{name} did not run:\n{said}");
            }
            say(&format!("{program:?}: {} tests pass without a mutant", names.len()));
        }
    }

    fn fate(&self, mutant: &Mutant, tests: &Tests) -> Fate {
        let place = self.tree.join(&mutant.file);
        let sound = fs::read(&place).expect("a source");
        fs::write(&place, mutant.applied(&self.tree).unwrap_or_else(|why| panic!("{why}"))).expect("writable");
        let fate = self.look(tests);
        fs::write(&place, sound).expect("writable");
        fate
    }

    fn look(&self, tests: &Tests) -> Fate {
        for (program, names) in tests {
            if let Err(why) = self.build(program) {
                return Fate::NotBuilt(why);
            }
            let (status, said) = self.run(program, names);
            let failed = said.lines().filter(|line| line.ends_with(" ... FAILED")).find_map(named);
            match (failed, status) {
                (Some(test), _) => return Fate::Killed(test.to_owned()),
                (None, Some(CUT_OFF)) => return Fate::Killed(format!("one of {names:?}, which does not end")),
                (None, Some(0)) => {}
                // The test program itself has died of it.
                (None, _) => return Fate::Killed(format!("one of {names:?}, which dies of it")),
            }
        }
        Fate::Survived
    }

    /// `cargo test` of a program, which ends within the limit, if there is one.
    fn cargo(&self, program: &Program, limit: Option<&str>) -> Command {
        let mut cargo = match limit {
            Some(seconds) => {
                let mut limited = Command::new("timeout");
                limited.args(["--kill-after=10", seconds, "cargo"]);
                limited
            }
            None => Command::new("cargo"),
        };
        cargo.args(["test", "--color", "never"]).current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        cargo.env("RUST_BACKTRACE", "0");
        match program {
            Program::Library(package) => {
                let manifest = self.tree.join(package).join("Cargo.toml");
                let has_points = fs::read_to_string(&manifest).is_ok_and(|text| text.contains("\nfailpoints = "));
                cargo.arg("--lib").arg("--manifest-path").arg(manifest);
                cargo.args(if has_points { &["--features", "failpoints"][..] } else { &[] });
            }
            Program::Stories(name) => {
                cargo.args(["--features", "failpoints", "--test", name]);
            }
        }
        cargo
    }

    /// Builds the test program, as long as that takes. What the compiler said if it cannot be built.
    fn build(&self, program: &Program) -> Result<(), String> {
        let (status, said) = self.said(self.cargo(program, None).arg("--no-run"));
        if status == Some(0) { Ok(()) } else { Err(said) }
    }

    /// Runs tests of it that have these names.
    fn run(&self, program: &Program, tests: &BTreeSet<String>) -> (Option<i32>, String) {
        self.said(self.cargo(program, Some(LIMIT)).arg("--").args(tests))
    }

    /// How a command ended, and what it said. Into a file: a test can leave a process that holds a pipe open for a minute.
    fn said(&self, command: &mut Command) -> (Option<i32>, String) {
        let log = File::create(&self.log).expect("writable");
        let same = log.try_clone().expect("a second descriptor");
        let status = command.stdin(Stdio::null()).stdout(log).stderr(same).status().expect("cargo starts");
        (status.code(), String::from_utf8_lossy(&fs::read(&self.log).expect("readable")).into_owned())
    }
}

/// The name alone of the test that a line of the test program is about.
fn named(line: &str) -> Option<&str> {
    let (path, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
    path.rsplit("::").next()
}

/// Makes `to` a copy of `from`, without what was built. What is the same already keeps its time, so that it is not built again.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    let names = |directory: &Path| -> BTreeSet<_> {
        fs::read_dir(directory).expect("readable").map(|entry| entry.expect("an entry").file_name()).collect()
    };
    let kept: BTreeSet<_> = names(from).into_iter().filter(|name| name != "target" && name != ".git").collect();
    for name in names(to).difference(&kept) {
        let path = to.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removable");
    }
    for name in kept {
        let (source, copied) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copy(&source, &copied);
        } else if fs::read(&copied).ok() != fs::read(&source).ok() {
            fs::copy(&source, &copied).expect("copied");
        }
    }
}
