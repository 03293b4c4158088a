//! `docs/commands.md` is made from the table of commands, and is what it makes. `BLESS=1 cargo test --test commands_doc` writes it anew.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

use flock::cli::help;
use flock::cli::pages::{EXITS, PAGES};
use flock::cli::table::{Group, Page};

const FILE: &str = "docs/commands.md";

const HEAD: &str = "\
# Commands of flock-agent

This is what `flock-agent help COMMAND` says, made from the table by which the program reads its command line.

Flags are written `--flag VALUE` or `--flag=VALUE`, in any place behind the command; none may be shortened or given twice. `--` ends them.
Packages bring the same as the manual page flock-agent(8), and completions for bash, zsh and fish, which `flock-agent completion` prints.
";

/// Rows of a table below its heading; nothing without a row.
fn table(heading: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let rule = format!("|{}\n", "---|".repeat(heading.len()));
    format!("\n{}{rule}{}", line(&heading), rows.iter().map(|row| line(row)).collect::<String>())
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// A full sentence.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + letters.as_str() + "."
}

fn page_text(page: &Page) -> String {
    let mut text = format!("\n### {}\n\n{}", page.command(), sentence(page.summary));
    if let Some(about) = page.about {
        text += &format!(" {about}");
    }
    text += &format!("\n\n```text\n{}\n```\n", page.usage());
    let operands = page.operands.iter().map(|operand| vec![code(operand.name), help::explained(operand)]);
    text += &table(&["argument", "meaning"], operands.collect());
    let flags = page.program.flags().map(|flag| {
        // Values stand as they are typed, and words as words.
        let default = help::default(flag).unwrap_or_default();
        let value = flag.value.as_ref().and_then(|value| value.default.value());
        let default = value.map_or(default.clone(), |value| default.replace(value, &code(value)));
        vec![code(&help::typed(flag)), help::meaning(flag), default]
    });
    text += &table(&["flag", "meaning", "default"], flags.collect());
    let lines =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(name, what)| vec![code(name), (*what).to_owned()]).collect();
    text += &table(&["example", "what it is for"], lines(page.examples));
    text += &table(&["file", "what it is"], lines(page.files));
    let exits = page.exits.iter().map(|(exit, what)| vec![exit.code().to_string(), (*what).to_owned()]);
    text + &table(&["exit code", "meaning"], exits.collect())
}

fn document() -> String {
    let link = |page: &Page| format!("[{}](#{})", code(page.word), page.command().replace(' ', "-"));
    let mut text = HEAD.to_owned();
    let list = |group: Group| PAGES.iter().filter(move |page| page.group == group);
    let all = Group::ALL.into_iter().flat_map(list);
    text += &table(&["command", "what it does"], all.map(|page| vec![link(page), page.summary.into()]).collect());
    let exits = EXITS.iter().map(|(exit, what)| vec![exit.code().to_string(), (*what).to_owned()]);
    text += &table(&["exit code", "meaning"], exits.collect());
    for group in Group::ALL {
        text += &format!("\n## {}\n", group.title());
        text += &list(group).map(page_text).collect::<String>();
    }
    text
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let made = document();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let same = made.lines().zip(found.lines()).take_while(|(one, other)| one == other).count();
    assert!(
        found == made,
        "{FILE} is not what the table says, from line {} on; write it anew: BLESS=1 cargo test --test commands_doc",
        same + 1
    );
}

#[test]
fn every_command_is_described_once() {
    let made = document();
    for page in PAGES {
        assert_eq!(made.lines().filter(|line| **line == format!("### {}", page.command())).count(), 1, "{}", page.word);
        for flag in page.program.flags() {
            assert!(made.contains(&format!("| {} | ", code(&help::typed(flag)))), "{} {}", page.word, flag.name);
        }
    }
}
