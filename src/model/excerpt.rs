//! Foreign text made fit to print: in one line, without what could disturb a line, and of a length that has a bound.
//!
//! Foreign is whatever somebody else wrote: an annotation, a file, the answer of a server. What is cut off is marked by `…`. Must
//! not know what the text is for.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// Longest quoted value, in bytes, quotes and escapes included.
pub const VALUE_MAX: usize = 256;

/// What may be shown of a foreign text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt(String);

impl Excerpt {
    /// A value: in double quotes, escaped, at most [`VALUE_MAX`] bytes. One that is longer is cut, with its full length behind it.
    pub fn of(value: &str) -> Excerpt {
        let mut quoted = String::from('"');
        for c in value.chars() {
            let before = quoted.len();
            match c {
                '\'' => quoted.push(c), // `escape_debug` thinks of char literals and would escape it
                _ => quoted.extend(c.escape_debug()),
            }
            if quoted.len() > VALUE_MAX {
                quoted.truncate(before);
                quoted.push_str(&format!("…\" ({} bytes)", value.len()));
                return Excerpt(quoted);
            }
        }
        quoted.push('"');
        Excerpt(quoted)
    }

    /// A message: one line of at most `limit` bytes, [`plain`], without space at its ends. Clean text stays as it is.
    pub fn line(message: &str, limit: usize) -> Excerpt {
        let mut line = String::new();
        for c in plain(message.trim()).chars() {
            if disturbs_a_line(c) {
                line.extend(c.escape_debug());
            } else {
                line.push(c);
            }
            if line.len() > limit {
                break;
            }
        }
        Excerpt(cut(line, limit))
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Excerpt {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<Excerpt> for String {
    fn from(excerpt: Excerpt) -> String {
        excerpt.0
    }
}

/// The text without the numbers that the standard library puts behind the system's words, as in ` (os error 2)`: they tell an
/// operator nothing that the words do not.
pub fn plain(text: &str) -> Cow<'_, str> {
    const BEGIN: &str = " (os error ";
    if !text.contains(BEGIN) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(BEGIN);
    let mut plain = String::from(parts.next().unwrap_or_default());
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => {
                plain.push_str(BEGIN);
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
}

/// The text itself if it has at most `limit` bytes, else its beginning and `…`, which are no longer than that together.
pub fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

/// Control characters, Unicode line ends, marks that turn the direction of text, and the byte order mark.
fn disturbs_a_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_quoted_escaped_and_cut() {
        let of = |value: &str| String::from(Excerpt::of(value));
        assert_eq!(of("eth0"), "\"eth0\"");
        assert_eq!(of(""), "\"\"");
        assert_eq!(of("it's \"x\"\n\\"), r#""it's \"x\"\n\\""#);
        assert_eq!(of("ü\u{202e}"), "\"ü\\u{202e}\"");
        assert_eq!(of(&"f".repeat(4096)), format!("\"{}…\" (4096 bytes)", "f".repeat(VALUE_MAX - 1)));
    }

    #[test]
    fn numbers_of_the_system_are_left_out_and_nothing_else() {
        for (text, expected) in [
            ("fine", "fine"),
            ("open /a: No such file or directory (os error 2)", "open /a: No such file or directory"),
            ("a (os error 2): b (os error 13), c", "a: b, c"),
            (" (os error 2)", ""),
            ("x (os error two) (os error 2", "x (os error two) (os error 2"),
        ] {
            assert_eq!(plain(text), expected);
        }
        assert_eq!(String::from(Excerpt::line("x (os error 2)", 100)), "x");
    }

    #[test]
    fn messages_become_one_line_and_clean_ones_stay_as_they_are() {
        let line = |message: &str, limit| String::from(Excerpt::line(message, limit));
        assert_eq!(line(" it's \"fine\" \n", 100), "it's \"fine\"");
        assert_eq!(line("a\nb\u{1b}[31m", 100), "a\\nb\\u{1b}[31m");
        assert_eq!(line(&"é".repeat(9), 18), "é".repeat(9));
        assert_eq!(line(&"é".repeat(10), 18), "é".repeat(7) + "…");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_becomes_a_short_line(text in "(\\PC|\\pC){0,400}", limit in 3usize..300) {
            let (value, line) = (Excerpt::of(&text), Excerpt::line(&text, limit));
            prop_assert!(value.as_ref().len() <= VALUE_MAX + "…\" (10000 bytes)".len());
            prop_assert!(line.as_ref().len() <= limit);
            for shown in [value.as_ref(), line.as_ref()] {
                prop_assert!(!shown.chars().any(disturbs_a_line));
            }
        }
    }
}
