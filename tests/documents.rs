//! What the documents say to type or to write into a file is tried by a test, or the reader of the source is told that it is not.
//!
//! Above each such block stands a comment, which pages do not show: `run: FILE`, a test that takes the block from the page or does the same, or
//! `not run: REASON`. Links lead to headings that exist. Must not judge prose.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Languages of blocks that somebody types or copies into a file. Others are pictures, logs and outputs.
const TYPED: [&str; 9] = ["sh", "yaml", "toml", "ini", "nft", "frr", "bird", "json", "conf"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let listed =
        |dir: &str| fs::read_dir(root().join(dir)).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<PathBuf> =
        listed("docs").chain(listed("deploy")).filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(root().join("README.md"));
    pages.sort();
    assert!(pages.len() > 5, "the pages are elsewhere");
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// What is wrong with the marks of a page.
fn unmarked(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut open, mut before) = (false, "");
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            if !open && TYPED.contains(&language) {
                let mark = before.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                match mark.and_then(|mark| mark.split_once(": ")) {
                    Some(("run", file)) if !root().join(file).is_file() => faults.push(format!("{name}:{number}: there is no {file}")),
                    Some(("run" | "not run", _)) => {}
                    _ => faults.push(format!("{name}:{number}: a block of {language} without `<!-- run: FILE -->` or `<!-- not run: REASON -->` above it")),
                }
            }
            open = !open;
        }
        before = line;
    }
    faults
}

/// The name of a heading in links, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let (mut open, mut found) = (false, BTreeSet::new());
    for line in text.lines() {
        open ^= line.trim_start().starts_with("```");
        if let (false, Some((_, heading))) =
            (open, line.split_once("# ").filter(|(marks, _)| marks.chars().all(|mark| mark == '#')))
        {
            found.insert(anchor(heading.trim()));
        }
    }
    found
}

#[test]
fn what_is_to_be_typed_is_tried_or_marked() {
    let faults: Vec<String> = pages()
        .iter()
        .flat_map(|page| unmarked(&page.strip_prefix(root()).expect("below").display().to_string(), &read(page)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_lead_to_headings_that_exist() {
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .filter(|target| !target.starts_with("http"))
        {
            let Some((file, wanted)) = target.split_once('#') else { continue };
            let to = if file.is_empty() { page.clone() } else { page.parent().expect("a directory").join(file) };
            assert!(anchors(&read(&to)).contains(wanted), "{} links to {target}, which is no heading", page.display());
            count += 1;
        }
    }
    assert!(count > 10, "the links are written in another way");
}

#[test]
fn a_block_without_its_mark_and_a_mark_of_no_file_are_found() {
    let block = |mark: &str| unmarked("page", &format!("words\n\n{mark}\n```sh\ntrue\n```\n\n```text\nfree\n```\n"));
    assert_eq!(block("<!-- run: tests/documents.rs -->"), [""; 0]);
    assert_eq!(block("<!-- not run: it needs a moon -->"), [""; 0]);
    assert_eq!(block("<!-- run: tests/none.rs -->"), ["page:4: there is no tests/none.rs"]);
    assert_eq!(block("words").len(), 1);
    assert_eq!(anchor("What the host's defaults do not decide"), "what-the-hosts-defaults-do-not-decide");
}
