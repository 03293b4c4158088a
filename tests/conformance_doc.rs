//! Holds `docs/conformance.md`, `docs/failure-modes.md` and the tests together: the documents have the rows and their words, the tests
//! say which rows they show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A document of rows.
struct Document {
    path: &'static str,
    /// What its rows' names begin with, before a letter and a number: `A-01`, `FM-A01`.
    row: (&'static str, &'static str),
}

const CONFORMANCE: Document = Document { path: "docs/conformance.md", row: ("", "-") };
const FAILURE_MODES: Document = Document { path: "docs/failure-modes.md", row: ("FM-", "") };
const DOCUMENTS: [Document; 2] = [CONFORMANCE, FAILURE_MODES];

const COUNT: &str = "<!-- count -->";
/// How the remark of a row begins that no test shows; the reason follows.
const NOT_SHOWN: [&str; 2] = ["not covered:", "not defended:"];

/// Row to the tests that show it, as `file::function`.
type Covers = BTreeMap<String, Vec<String>>;

/// All Rust files below `dir`, in order.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The name of the test that the lines behind a `covers:` line begin.
fn test_name<'a>(lines: &[&'a str]) -> Option<&'a str> {
    // A story that shares a cluster with others is no test of cargo's own harness.
    if let Some(story) = lines.first()?.strip_suffix("(cluster: &mut Cluster<'_>) {") {
        return story.strip_prefix("pub(crate) fn ");
    }
    if lines.first()?.trim() != "#[test]" {
        return None;
    }
    let function = lines.iter().skip(1).map(|line| line.trim()).find(|line| !line.starts_with("#["))?;
    let name = function.strip_prefix("fn ")?.split('(').next()?;
    (!name.is_empty()).then_some(name)
}

/// Reads the `covers:` lines of one source; complains of those that are not directly above a test.
fn collect(file: &str, source: &str, covers: &mut Covers, faults: &mut Vec<String>) {
    let lines: Vec<&str> = source.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let Some(rows) = line.trim().strip_prefix("// covers: ") else { continue };
        let Some(name) = test_name(&lines[number + 1..]) else {
            faults.push(format!("{file}:{}: the line is not directly above #[test] and its function", number + 1));
            continue;
        };
        for row in rows.split_whitespace() {
            let tests = covers.entry(row.to_owned()).or_default();
            let test = format!("{file}::{name}");
            if !tests.contains(&test) {
                tests.push(test);
            }
        }
    }
}

impl Document {
    fn has_row(&self, id: &str) -> bool {
        let (before, between) = self.row;
        let rest = id.strip_prefix(before).unwrap_or_default();
        let number = rest.get(1..).and_then(|rest| rest.strip_prefix(between)).unwrap_or_default();
        rest.starts_with(|group: char| group.is_ascii_uppercase())
            && number.len() == 2
            && number.bytes().all(|byte| byte.is_ascii_digit())
    }
}

/// The document as it should be, or what is wrong with it and with the `covers:` lines.
fn regenerate(of: &Document, document: &str, covers: &Covers) -> Result<String, Vec<String>> {
    let mut faults = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    let (mut shown, mut total) = (0, 0);
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(row) = cells.get(1).copied().filter(|cell| of.has_row(cell)) else {
            lines.push(line.to_owned());
            continue;
        };
        let &["", _, statement, _, remark, ""] = cells.as_slice() else {
            faults.push(format!("{row} has not the four cells row, statement, shown by, remark"));
            continue;
        };
        if known.contains(&row) {
            faults.push(format!("{row} is there twice"));
        }
        known.push(row);
        total += 1;
        if statement.is_empty() {
            faults.push(format!("{row} has no statement"));
        }
        let reason = NOT_SHOWN.iter().find_map(|words| remark.strip_prefix(words)).map(str::trim);
        let tests = covers.get(row);
        match (tests, reason) {
            (None, None) => faults.push(format!("{row} is shown by no test and has no \"{} reason\"", NOT_SHOWN[0])),
            (None, Some("")) => faults.push(format!("{row} is not covered for no reason")),
            (Some(tests), Some(_)) => {
                faults.push(format!("{row} claims to be not covered, but is shown by {}", tests.join(", ")));
            }
            _ => {}
        }
        shown += usize::from(tests.is_some());
        let tests: Vec<String> = tests.into_iter().flatten().map(|test| format!("`{test}`")).collect();
        lines.push(format!("| {row} | {statement} | {} | {remark} |", tests.join("<br>")));
    }
    for (row, tests) in covers.iter().filter(|(row, _)| of.has_row(row)) {
        if !known.contains(&row.as_str()) {
            faults.push(format!("{row} is no row of the document, but {} covers it", tests.join(", ")));
        }
    }
    match lines.iter_mut().find(|line| line.starts_with(COUNT)) {
        Some(line) => {
            *line = format!("{COUNT} {total} rows: {shown} shown by tests, {} not covered.", total - shown);
        }
        None => faults.push(format!("no line begins with {COUNT}")),
    }
    if faults.is_empty() { Ok(lines.join("\n") + "\n") } else { Err(faults) }
}

/// Groups of Kubernetes' own tests, as `docs/conformance.md` calls them, by words of their names.
const GROUPS: [(&str, &str); 4] = [
    ("conformance", "[Conformance]"),
    ("NetworkPolicy", "[Feature:NetworkPolicy]"),
    ("dual stack", "[Feature:IPv6DualStack]"),
    ("all of sig-network", ""),
];

/// What came of each, by how the second cell begins.
const OUTCOMES: [&str; 4] = ["passed", "**failed**", "declined", "left out"];

/// The document with the counts of each group, from the page that a run of these tests has written.
fn sum_up(document: &str, page: &str) -> String {
    let tests: Vec<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(_, result)| OUTCOMES.iter().any(|outcome| result.starts_with(outcome)))
        .collect();
    let filled = |line: &str| {
        let name = line.strip_prefix("| ")?.split(" |").next()?;
        let (_, words) = GROUPS.iter().find(|(group, _)| *group == name)?;
        let of = |outcome: &str| {
            tests.iter().filter(|(test, result)| test.contains(words) && result.starts_with(outcome)).count()
        };
        let counts: Vec<String> = OUTCOMES.iter().map(|outcome| format!(" {} |", of(outcome))).collect();
        Some(format!("| {name} |{}", counts.concat()))
    };
    document.lines().map(|line| filled(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

/// What all tests cover.
fn covers() -> Covers {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut covers, mut faults) = (Covers::new(), Vec::new());
    for directory in ["src", "tests"] {
        for path in rust_files(&root.join(directory)) {
            let name = path.strip_prefix(root).unwrap().to_str().expect("a name in UTF-8").to_owned();
            collect(&name, &fs::read_to_string(&path).unwrap(), &mut covers, &mut faults);
        }
    }
    for (row, tests) in &covers {
        if !DOCUMENTS.iter().any(|document| document.has_row(row)) {
            faults.push(format!("{row} is no name of a row, but {} covers it", tests.join(", ")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    covers
}

#[test]
fn the_documents_say_which_test_shows_each_row() {
    let covers = covers();
    for document in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document.path);
        let present = fs::read_to_string(&path).unwrap();
        let summed_up = sum_up(&present, include_str!("../docs/e2e.md"));
        let wanted = match regenerate(&document, &summed_up, &covers) {
            Ok(wanted) => wanted,
            Err(faults) => panic!("{} and the tests disagree:\n{}", document.path, faults.join("\n")),
        };
        if present == wanted {
            continue;
        }
        if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
            fs::write(&path, wanted).unwrap();
            continue;
        }
        let differing = present.lines().zip(wanted.lines()).filter(|(present, wanted)| present != wanted);
        let shown: Vec<String> =
            differing.take(5).map(|(is, should)| format!("is:        {is}\nshould be: {should}")).collect();
        panic!(
            "{} is not what the tests say; BLESS=1 cargo test --test conformance_doc rewrites it\n{}",
            document.path,
            shown.join("\n")
        );
    }
}

/// Each row of `docs/threats.md` names rows of failure modes that are shown, or tests that exist, or says that it is not defended.
#[test]
fn each_threat_names_what_shows_its_defence_or_says_that_there_is_none() {
    let read = |path: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let covers = covers();
    let threats = read("docs/threats.md");
    let mut rows = 0;
    for line in threats.lines().filter(|line| line.starts_with("| TH-")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let &["", row, tries, at_most, shown, ""] = cells.as_slice() else { panic!("{line}: not four cells") };
        assert_eq!(threats.matches(&format!("| {row} |")).count(), 1, "{row} is there twice");
        assert!(!tries.is_empty() && !at_most.is_empty(), "{row} lacks words");
        rows += 1;
        if let Some(reason) = shown.strip_prefix("not defended:") {
            assert!(!reason.trim().is_empty(), "{row} is not defended for no reason");
            continue;
        }
        for named in shown.split(", ") {
            if let Some((file, test)) = named.trim_matches('`').split_once("::") {
                assert!(read(file).contains(&format!("fn {test}(")), "{row}: there is no test {named}");
            } else {
                assert!(covers.contains_key(named), "{row}: {named} is shown by no test");
            }
        }
    }
    assert!(rows > 20);
}

/// A document with these rows.
fn document(rows: &str) -> String {
    format!("{COUNT}\n{rows}")
}

fn covering(row: &str) -> Covers {
    Covers::from([(row.to_owned(), vec!["tests/a.rs::f".to_owned()])])
}

#[test]
fn a_row_is_filled_in_and_stays_as_it_is_then() {
    let rows = "| A-01 | It works. |  |  |\n| A-02 | Also. | old | not covered: too hard |\n";
    let once = regenerate(&CONFORMANCE, &document(rows), &covering("A-01")).unwrap();
    let count = format!("{COUNT} 2 rows: 1 shown by tests, 1 not covered.\n");
    assert_eq!(
        once,
        count + "| A-01 | It works. | `tests/a.rs::f` |  |\n| A-02 | Also. |  | not covered: too hard |\n"
    );
    assert_eq!(regenerate(&CONFORMANCE, &once, &covering("A-01")).unwrap(), once);
    let rows = "| FM-A01 | It breaks. |  |  |\n| FM-A02 | Also. |  | not defended: too rare |\n| A-01 | of another |\n";
    let once = regenerate(&FAILURE_MODES, &document(rows), &covering("FM-A01")).unwrap();
    assert!(
        once.contains("| FM-A01 | It breaks. | `tests/a.rs::f` |  |") && once.contains(" 2 rows: 1 shown"),
        "{once}"
    );
}

#[test]
fn results_of_kubernetes_own_tests_are_counted_by_group() {
    let page = "| test | result |\n|---|---|\n| A [Conformance] | passed in 3 s |\n| B \\| x [Conformance] | **failed** |\n\
                | C | left out: this | or that |\n| D [Feature:NetworkPolicy] | declined: no |\n";
    let document =
        "words\n| conformance | 7 | 7 | 7 | 7 |\n| NetworkPolicy |\n| all of sig-network | | | | |\n| other | 1 |\n";
    assert_eq!(
        sum_up(document, page),
        "words\n| conformance | 1 | 1 | 0 | 0 |\n| NetworkPolicy | 0 | 0 | 1 | 0 |\n\
         | all of sig-network | 1 | 1 | 1 | 1 |\n| other | 1 |\n"
    );
}

#[test]
fn a_row_belongs_to_one_document() {
    for (row, of) in [
        ("A-01", Some("docs/conformance.md")),
        ("FM-A01", Some("docs/failure-modes.md")),
        ("F-01", Some("docs/conformance.md")),
        ("FM-A1", None),
        ("FM-A-01", None),
        ("FM-01", None),
        ("A-1", None),
        ("A-001", None),
        ("a-01", None),
        ("\u{e9}-01", None),
        ("", None),
    ] {
        let owners: Vec<&str> = DOCUMENTS.iter().filter(|document| document.has_row(row)).map(|d| d.path).collect();
        assert_eq!(owners, of.into_iter().collect::<Vec<_>>(), "{row}");
    }
}

#[test]
fn every_disagreement_is_named() {
    for (rows, covers, fault) in [
        ("| A-01 | It works. |  |  |", Covers::new(), "A-01 is shown by no test"),
        ("| A-01 | It works. |  | needs more |", Covers::new(), "A-01 is shown by no test"),
        ("| A-01 | It works. |  | not covered: |", Covers::new(), "for no reason"),
        ("| A-01 | It works. |  | not covered: hard |", covering("A-01"), "claims to be not covered"),
        ("| A-01 | It works. |  |  |", covering("A-99"), "A-99 is no row"),
        ("| A-01 |  |  |  |", covering("A-01"), "no statement"),
        ("| A-01 | It works. |  |", covering("A-01"), "four cells"),
        ("| A-01 | It works. |  |  |\n| A-01 | Again. |  |  |", covering("A-01"), "twice"),
    ] {
        let faults = regenerate(&CONFORMANCE, &document(rows), &covers).expect_err(rows);
        assert!(faults.iter().any(|text| text.contains(fault)), "{faults:?}");
    }
}

#[test]
fn a_covers_line_stands_directly_above_its_test() {
    let marker = "// covers:";
    for (source, tests) in [
        (format!("{marker} A-01 A-02\n#[test]\nfn f() {{}}\n"), Some(2)),
        (format!("    {marker} A-01\n    #[test]\n    #[cfg(unix)]\n    fn f(a in 0..1) {{}}\n"), Some(1)),
        (format!("{marker} A-01\n\n#[test]\nfn f() {{}}\n"), None),
        (format!("{marker} A-01\nfn f() {{}}\n"), None),
        (format!("{marker} A-01\n"), None),
    ] {
        let (mut covers, mut faults) = (Covers::new(), Vec::new());
        collect("tests/a.rs", &source, &mut covers, &mut faults);
        assert_eq!((covers.len(), faults.is_empty()), (tests.unwrap_or(0), tests.is_some()), "{source}");
    }
}
