//! The list of small wrong changes as values, for the runner that makes them and for `tidy`, which keeps the list from rotting.
//!
//! Reads files and changes none. Must not build or run anything.

use std::fs;
use std::path::{Path, PathBuf};

/// One small wrong change.
pub(crate) struct Mutant {
    /// What a user would suffer.
    pub(crate) name: String,
    /// The source, by its path below the root of the tree.
    pub(crate) file: String,
    /// What stands there, exactly once.
    old: String,
    /// What takes its place.
    new: String,
    /// The tests of which one at least has to fail, by their names alone.
    pub(crate) tests: Vec<String>,
    /// Why nobody can notice the change; none where tests do.
    pub(crate) harmless: Option<String>,
}

/// Where a test is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    /// Beside the code, in the package of this directory.
    Library(PathBuf),
    /// In the test program of this name.
    Stories(String),
}

/// The mutants of `tests/mutants/list` below `root`, in their order.
///
/// # Panics
/// A line is not understood, or a mutant is not whole.
pub(crate) fn mutants(root: &Path) -> Vec<Mutant> {
    let text = fs::read_to_string(root.join("tests/mutants/list")).expect("there is a list");
    let (mut file, mut mutants) = (String::new(), Vec::<Mutant>::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, mutants.last_mut()) {
            ("file", _) => file = rest.to_owned(),
            ("mutant", _) => mutants.push(Mutant {
                name: rest.to_owned(),
                file: file.clone(),
                old: String::new(),
                new: String::new(),
                tests: Vec::new(),
                harmless: None,
            }),
            ("-", Some(mutant)) => mutant.old.push_str(&format!("{rest}\n")),
            ("+", Some(mutant)) => mutant.new.push_str(&format!("{rest}\n")),
            ("by", Some(mutant)) => mutant.tests.push(rest.to_owned()),
            ("harmless", Some(mutant)) => mutant.harmless = Some(rest.to_owned()),
            _ => panic!("tests/mutants/list: {line}"),
        }
    }
    for mutant in &mut mutants {
        assert!(!mutant.old.is_empty() && mutant.old != mutant.new, "{}: nothing is changed", mutant.name);
        assert_ne!(mutant.tests.is_empty(), mutant.harmless.is_none(), "{}: either tests or a reason", mutant.name);
        // A text that is replaced may be a part of its last line. One that is left out takes its line end along.
        if !mutant.new.is_empty() {
            mutant.old.pop();
            mutant.new.pop();
        }
    }
    mutants
}

impl Mutant {
    /// The source with the change made.
    ///
    /// # Errors
    /// The source is not there, or no longer has the text exactly once; in words.
    pub(crate) fn applied(&self, root: &Path) -> Result<String, String> {
        let source = fs::read_to_string(root.join(&self.file)).map_err(|error| format!("{}: {error}", self.file))?;
        match source.matches(&self.old).count() {
            1 => Ok(source.replacen(&self.old, &self.new, 1)),
            times => Err(format!("{} has this text {times} times:\n{}", self.file, self.old)),
        }
    }
}

/// All Rust sources below `src` and `tests`, with their texts.
pub(crate) fn sources(root: &Path) -> Vec<(PathBuf, String)> {
    let mut directories = vec![root.join("src"), root.join("tests")];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("readable") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                sources.push((path, text));
            }
        }
    }
    sources
}

/// Where the test of this name is.
///
/// # Errors
/// There is none, or more than one; in words.
pub(crate) fn program_of(root: &Path, sources: &[(PathBuf, String)], test: &str) -> Result<Program, String> {
    let defined = format!("fn {test}(");
    let mut places = sources.iter().filter(|(_, text)| text.contains(&defined)).map(|(path, _)| path);
    let (Some(path), None) = (places.next(), places.next()) else {
        return Err(format!("there is no test {test}, or more than one"));
    };
    let below = path.strip_prefix(root).expect("below the root");
    match below.strip_prefix("tests") {
        Ok(story) => {
            let first = Path::new(story.iter().next().expect("a name"));
            Ok(Program::Stories(first.file_stem().expect("a name").to_string_lossy().into_owned()))
        }
        Err(_) => {
            let package = path.ancestors().find(|directory| directory.join("Cargo.toml").is_file());
            Ok(Program::Library(package.expect("a package").strip_prefix(root).expect("below the root").into()))
        }
    }
}
