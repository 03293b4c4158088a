//! What is probably wrong in a line at which a YAML reader gave up, and what to do, in the words of somebody who only wanted to
//! write down a few fields.
//!
//! Goes by the text and the place, not by the reader's message, which speaks of tokens and scalars. Must not repeat what the text
//! says, which may be secret, and is only asked about texts that a reader has refused.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::text::TextError;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The line, from 1; none if it is the whole text.
    pub line: Option<usize>,
    /// What is wrong with it, and what to do.
    pub words: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// Why `bytes`, which are `text` if they are any, could not be read.
pub fn explained(error: &TextError, bytes: &[u8], text: &str) -> Advice {
    let whole = |words: String| Advice { line: None, words };
    match error {
        TextError::Encoding(at) => {
            let before = bytes.get(..*at).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let byte = bytes.get(*at).copied().unwrap_or_default();
            let words = format!(
                "byte {at}, 0x{byte:02x}, is not UTF-8, as in a file that was saved as Latin-1: save it as UTF-8"
            );
            Advice { line: Some(line), words }
        }
        TextError::ManyDocuments | TextError::TooMany => whole(error.to_string()),
        TextError::Yaml(error) => match error.location() {
            Some(place) => advice(text, place.line(), place.column()),
            None => whole(
                "it has aliases that stand for too much, or a merge key << with something else than fields".into(),
            ),
        },
        TextError::Merged(_) => whole("what its merge keys << make of it cannot be read: write it out".into()),
    }
}

/// About `text`, at which the reader gave up in `line` and `column`, from 1.
fn advice(text: &str, line: usize, column: usize) -> Advice {
    let lines: Vec<&str> = text.lines().collect();
    let line = line.min(lines.len() + 1);
    let of = |line: usize| lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
    // Readers stop at the next line where one is not ended.
    let before = (1..line).rev().find(|line| !of(*line).trim().is_empty()).unwrap_or(line);
    let here = of(line);
    let at = here.char_indices().nth(column.saturating_sub(1));
    let passed = at.map_or(here, |(at, _)| here.get(..at).unwrap_or_default());
    let (line, words) = control_character(&lines)
        .or_else(|| [line, before].into_iter().find_map(|line| Some((line, foreign(of(line))?.into()))))
        .or_else(|| conflict(&lines))
        .or_else(|| {
            let (opened, mark) = open_mark(&lines, line, passed)?;
            let is_end = at.is_none() && lines.iter().skip(line).all(|line| line.trim().is_empty());
            match opened < line {
                _ if is_end => Some((opened, format!("a {mark} is opened here and not closed"))),
                true => {
                    Some((line, format!("a comma is missing before it, or the {mark} of line {opened} is not closed")))
                }
                false => None,
            }
        })
        .or_else(|| Some((line, at_a_character(passed, at?.1)?)))
        .unwrap_or_else(|| match [before, line].into_iter().find(|line| !is_field(of(*line))) {
            Some(line) => (line, "this is no field: a field is a name, a colon, a space and a value".into()),
            None => (line, "it does not stand below the fields that it belongs to: indent it as they are".into()),
        });
    Advice { line: Some(line), words }
}

fn control_character(lines: &[&str]) -> Option<(usize, String)> {
    let wrong = |c: &char| match c {
        '\t' | '\u{85}' => false,
        '\u{feff}' => true,
        c => c.is_control(),
    };
    let (line, c) = lines.iter().zip(1..).find_map(|(line, number)| Some((number, line.chars().find(wrong)?)))?;
    let what = c.escape_debug();
    let words = match c {
        '\0' => format!("the control character {what} is in it, as in UTF-16: save the file as UTF-8"),
        '\u{feff}' => "an invisible byte order mark is in it: remove it, or write the line anew".into(),
        _ => format!("the control character {what} is in it: remove it"),
    };
    Some((line, words))
}

/// About a line that is not meant for a YAML reader at all.
fn foreign(line: &str) -> Option<&'static str> {
    if line.contains("{{") || line.contains("{%") {
        return Some("this is a template that nobody has filled in: render it first, as with helm template");
    }
    if line.starts_with('%') {
        return Some("a line that begins with % is for the YAML reader, which does not understand this one: remove it");
    }
    if line.trim() == "..." {
        return Some("the document ends here, and something follows: remove the line");
    }
    let indentation = line.split(|c: char| !c.is_whitespace()).next().unwrap_or_default();
    indentation.contains('\t').then_some("a tab stands before the field: YAML is indented with spaces")
}

fn conflict(lines: &[&str]) -> Option<(usize, String)> {
    let marks = ["<<<<<<< ", ">>>>>>> ", "======="];
    let (_, line) = lines.iter().zip(1..).find(|(line, _)| marks.iter().any(|mark| line.starts_with(mark)))?;
    Some((line, "two versions stand here that were not merged: leave one, without the marks".into()))
}

/// About a line of which the reader took what is `passed`, and not `c`.
fn at_a_character(passed: &str, c: char) -> Option<String> {
    let before = passed.trim_start_matches([' ', '-']);
    let begins = |c: char| matches!(c, '@' | '`' | '%' | '&' | '*' | '!' | '|' | '>');
    let word = before.trim_end().rsplit([' ', '[', '{', ',', ':']).next().unwrap_or_default();
    if let Some(first) = [word.chars().next(), Some(c)].into_iter().flatten().find(|c| begins(*c)) {
        return Some(format!("a value that begins with {first} means something else to YAML: put it between quotes"));
    }
    let words = match c {
        ':' if before.contains(": ") || before.contains(['{', '[']) => {
            "a value with a colon at its end, or before a space, has to stand between quotes, as in 'fd00::'"
        }
        ':' if !before.is_empty() => {
            "it stands deeper than the line above, which has a value already: indent it as the fields beside it"
        }
        '-' | '?' if !before.is_empty() => {
            "an item of a list has a line of its own, and a value that begins with - or ? stands between quotes"
        }
        ']' | '}' => "there is a closing bracket too many, or a value is missing before it",
        ',' => "a value is missing before the comma",
        '\\' => "a backslash in \"…\" begins an escape, and this is none: use '…'",
        _ if before.is_empty() => return None,
        _ if before.contains(['{', '[']) => "a comma is missing before it",
        _ => "something stands behind the end of the value",
    };
    Some(words.into())
}

/// Whether it has a name with a colon behind it, or is an item of a list.
fn is_field(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("- ") || line.ends_with(':') || line.contains(": ") || line.starts_with(['{', '[', '#'])
}

/// The line of the innermost bracket or quotation mark that is open behind `passed`, the beginning of line `last`, and the mark.
fn open_mark(lines: &[&str], last: usize, passed: &str) -> Option<(usize, String)> {
    let whole = lines.iter().take(last.saturating_sub(1)).copied();
    let mut open: Vec<(usize, char)> = Vec::new();
    for (line, number) in whole.chain([passed]).zip(1..) {
        // The last character, and the last one that is no space: within a plain text, marks are nothing but themselves.
        let (mut before, mut solid) = (' ', ':');
        for c in line.chars() {
            let inner = open.last().map(|(_, mark)| *mark);
            let begins = matches!(solid, '[' | '{' | ',' | ':' | '-');
            match (inner, c) {
                (Some(mark @ ('"' | '\'')), c) if c == mark && before != '\\' => drop(open.pop()),
                (Some('"' | '\''), _) => {}
                (_, '"' | '\'' | '[' | '{') if begins => open.push((number, c)),
                (Some('['), ']') | (Some('{'), '}') => drop(open.pop()),
                (_, '#') if before == ' ' => break,
                _ => {}
            }
            before = c;
            if c != ' ' {
                solid = c;
            }
        }
    }
    open.pop().map(|(line, mark)| (line, mark.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The list of node configs that people get wrong has the rest, with a reader that says where.
    #[test]
    fn any_place_of_any_text_has_some_advice() {
        for text in ["", "a", "a: b\n c", "\n\n", "[", "'", "é: [\u{1f426}", "a: 'it''s' \"x\\\"y\" # [\n"] {
            for (line, column) in [(0, 0), (1, 1), (1, 3), (2, 1), (9, 9), (usize::MAX, usize::MAX)] {
                assert!(!advice(text, line, column).words.is_empty(), "{text:?} {line} {column}");
            }
        }
    }

    #[test]
    fn what_is_open_is_found_where_it_was_opened() {
        let open = |text: &str| open_mark(&text.lines().collect::<Vec<_>>(), usize::MAX, "");
        for (text, mark) in [
            ("a: [1,\n 2\nb: 3", Some((1, "["))),
            ("a: {b: [1], c: 'x\ny", Some((1, "'"))),
            ("a: [1]\nb: it's [not] {open\n", None),
            ("a: 'it''s'\nb: \"x\\\"y\"\n# it's [\n", None),
            ("a:\n- {\n", Some((2, "{"))),
        ] {
            assert_eq!(open(text), mark.map(|(line, mark)| (line, mark.into())), "{text}");
        }
    }
}
