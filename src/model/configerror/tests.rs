//! What operators are told of the NodeConfigs that people write, in the very words: each case of `tests/data/node-configs` has a
//! manifest and, behind `=>`, the answer.
//!
//! A case begins with `##` and its name. `HEAD` in the first line of a manifest stands for the usual lines up to `spec:`; `\t`,
//! `\r`, `\0`, `\xHH`, `\u{HEX}` and `\\` are what they are in Rust. `BLESS=1` writes the answers anew.

use alloc::borrow::ToOwned as _;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::nodeconfig;

const HEAD: &str = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata:\n  name: node001\nspec:\n";

/// Words of compilers, readers and programmers, which help nobody who wanted to write down a few fields.
const INTERNAL: &[&str] = &[
    "i64",
    "u32",
    "u8",
    "usize",
    "str ",
    "struct",
    "enum",
    "serde",
    "libyaml",
    "scalar",
    "token",
    "mapping",
    "sequence",
    "stream",
    "anchor",
    "invalid type",
    "invalid value",
    "expected",
    "os error",
    "EOF",
    "parse",
    "context",
    "Some(",
    "None",
    "0x0",
];

struct Case<'a> {
    name: &'a str,
    manifest: &'a str,
    answer: &'a str,
}

fn list() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/node-configs")
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let case = |part| {
        let (name, rest): (&str, &str) = str::split_once(part, '\n').expect("a name");
        let (manifest, answer) = rest.split_once("=>\n").expect("an answer");
        Case { name, manifest, answer: answer.trim_end() }
    };
    text.split("## ").skip(1).map(case).collect()
}

fn bytes(manifest: &str) -> Vec<u8> {
    let text = manifest.strip_prefix("HEAD\n").map_or(manifest.to_owned(), |spec| format!("{HEAD}{spec}"));
    let (mut found, mut rest) = (Vec::new(), text.as_str());
    while let Some((before, escape)) = rest.split_once('\\') {
        found.extend_from_slice(before.as_bytes());
        let (byte, length) = match &escape[..1] {
            "t" => (b"\t".to_vec(), 1),
            "r" => (b"\r".to_vec(), 1),
            "0" => (b"\0".to_vec(), 1),
            "\\" => (b"\\".to_vec(), 1),
            "x" => (vec![u8::from_str_radix(&escape[1..3], 16).expect("two digits")], 3),
            "u" => {
                let end = escape.find('}').expect("a brace");
                let code = u32::from_str_radix(&escape[2..end], 16).expect("digits");
                (char::from_u32(code).expect("a character").to_string().into_bytes(), end + 1)
            }
            other => panic!("\\{other}"),
        };
        found.extend(byte);
        rest = &escape[length..];
    }
    found.extend_from_slice(rest.as_bytes());
    found
}

fn answer(manifest: &[u8]) -> String {
    match nodeconfig::read(manifest) {
        Ok((_, notes)) => ["accepted".to_owned()].into_iter().chain(notes).collect::<Vec<_>>().join("\n"),
        Err(error) => error.problems().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn node_configs_as_people_write_them_are_answered_in_words_that_help() {
    let text = fs::read_to_string(list()).expect("the list");
    let (mut blessed, mut wrong) = (String::new(), Vec::new());
    let cases = cases(&text);
    assert!(cases.len() >= 250, "{}", cases.len());
    for Case { name, manifest, answer: wanted } in cases {
        let found = answer(&bytes(manifest));
        if found != wanted {
            wrong.push(format!("{name}:\n{found}\ninstead of:\n{wanted}\n"));
        }
        writeln!(blessed, "## {name}\n{manifest}=>\n{found}\n").expect("a text");
    }
    if std::env::var_os("BLESS").is_some() {
        fs::write(list(), blessed.trim_end().to_owned() + "\n").expect("written");
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn what_an_operator_is_told_names_the_line_and_no_insides() {
    let text = fs::read_to_string(list()).expect("the list");
    let mut without_line = Vec::new();
    for Case { name, answer, .. } in cases(&text) {
        for line in answer.lines().filter(|line| *line != "accepted") {
            // Between quotes stands what the operator wrote.
            let own: String = line.split('"').step_by(2).collect();
            for word in INTERNAL {
                assert!(!own.contains(word), "{name}: {word}: {line}");
            }
            assert!(line.len() < 500, "{name}: {line}");
        }
        if !answer.starts_with("accepted") && !answer.lines().any(|line| line.starts_with("line ")) {
            without_line.push(name);
        }
    }
    // What is about the whole file, or about a field that no line is near to.
    let whole = [
        "an empty file",
        "only a comment",
        "only a document mark",
        "null",
        "a text",
        "a list",
        "a number",
        "a shell file",
        "XML",
        "two documents",
        "an empty object",
        "no apiVersion",
        "no kind",
        "the fields without their head",
        "no metadata",
        "no spec",
    ];
    assert_eq!(without_line, whole);
}
