//! Texts that other programs and people wrote: their encoding, and the YAML or JSON documents in them.
//!
//! What kubectl takes is taken: a byte order mark, UTF-16 as Windows writes it, either line end, comments, documents without
//! content before and after the one that counts, merge keys, the booleans of YAML 1.1. Where one document is meant, two with
//! content are refused, since reading one of them would be a guess. Must not know what a document is about, and repeats no values.

use alloc::borrow::Cow;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed as _, Deserializer, IgnoredAny, Unexpected, Visitor};
use yaml_serde::Value;

use crate::tree::{Seed, Tree, VALUES_MAX};

/// Most documents that are looked at. Files have one, and editors and templates leave a few empty ones.
const DOCUMENTS_MAX: usize = 64;

/// Why a text has no document that can be used.
#[derive(Debug)]
pub enum TextError {
    /// It is in no encoding that is understood: after so many bytes.
    Encoding(usize),
    /// More than one document has content, or there are more than anybody writes.
    ManyDocuments,
    /// The reader refused it. Its message quotes values.
    Yaml(yaml_serde::Error),
    /// It has more values than are read.
    TooMany,
    /// The reader refused what came of its merge keys. Its message quotes values, and its place is not that in the text.
    Merged(serde_json::Error),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextError::Encoding(at) => {
                write!(f, "byte {at} is neither UTF-8 nor part of UTF-16 with a byte order mark: save it as UTF-8")
            }
            TextError::ManyDocuments => {
                f.write_str("there is more than one YAML document with content: leave only the one that counts")
            }
            TextError::TooMany => write!(f, "it has more than {VALUES_MAX} values"),
            TextError::Yaml(error) => error.fmt(f),
            TextError::Merged(error) => {
                let text = error.to_string();
                f.write_str(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text))
            }
        }
    }
}

impl core::error::Error for TextError {}

/// The text without its byte order mark, in UTF-8.
///
/// # Errors
/// [`TextError::Encoding`].
pub fn decoded(bytes: &[u8]) -> Result<Cow<'_, str>, TextError> {
    if let Some(rest) = bytes.strip_prefix(&[0xff, 0xfe]) {
        return utf16(rest, u16::from_le_bytes).map(Cow::Owned);
    }
    if let Some(rest) = bytes.strip_prefix(&[0xfe, 0xff]) {
        return utf16(rest, u16::from_be_bytes).map(Cow::Owned);
    }
    let rest = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mark = bytes.len() - rest.len();
    core::str::from_utf8(rest).map(Cow::Borrowed).map_err(|error| TextError::Encoding(mark + error.valid_up_to()))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, TextError> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect();
    match text {
        Ok(text) if odd.is_empty() => Ok(text),
        Ok(_) => Err(TextError::Encoding(bytes.len() + 1)),
        Err(_) => {
            let good = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).take_while(Result::is_ok);
            let good: usize = good.flatten().map(char::len_utf16).sum();
            Err(TextError::Encoding(2 + good * 2))
        }
    }
}

/// The one document with content, in YAML or JSON; none when there is no content.
///
/// # Errors
/// [`TextError::ManyDocuments`] and [`TextError::Yaml`], whose place is that in the whole text.
pub fn document<T: DeserializeOwned>(text: &str) -> Result<Option<T>, TextError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Not all JSON is YAML: escaped surrogate pairs and long keys, which other programs write, are not. What is wrong with
    // a text is left to the YAML reader, which knows the line.
    if text.trim_ascii_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(Some(value));
    }
    let Some(document) = with_content(text)? else { return Ok(None) };
    if !text.contains("<<") {
        return T::deserialize(document).map(Some).map_err(TextError::Yaml);
    }
    serde_json::from_str(&merged(document)?).map(Some).map_err(TextError::Merged)
}

/// The one document with content, in YAML or JSON, as a tree with its merge keys carried out; none when there is no content.
///
/// # Errors
/// [`TextError::ManyDocuments`], [`TextError::TooMany`] and [`TextError::Yaml`], whose place is that in the whole text.
pub fn tree(text: &str) -> Result<Option<Tree>, TextError> {
    let seen = Cell::new(0);
    let seed = Seed { seen: &seen, most: VALUES_MAX };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii_start().starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = seed.deserialize(&mut json).and_then(|tree| json.end().map(|()| tree));
        if let Ok(tree) = read {
            return Ok(Some(tree.merged()));
        }
        seen.set(0);
    }
    let Some(document) = with_content(text)? else { return Ok(None) };
    let read = seed.deserialize(document);
    read.map(|tree| Some(tree.merged())).map_err(|error| match seen.get() {
        VALUES_MAX.. => TextError::TooMany,
        _ => TextError::Yaml(error),
    })
}

/// The line, from 1, of the value or name that has this number in the [`tree`] of a text.
pub fn line_of(text: &str, at: usize) -> Option<usize> {
    let seed = Seed { seen: &Cell::new(0), most: at.checked_sub(1)? };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii_start().starts_with('{')
        && let Err(error) = seed.deserialize(&mut serde_json::Deserializer::from_str(text))
        && error.is_data()
    {
        return Some(error.line());
    }
    seed.seen.set(0);
    let error = seed.deserialize(with_content(text).ok()??).err()?;
    error.location().map(|place| place.line())
}

/// Every document with content, in YAML, or one in JSON. Whoever has the text bounds its length.
///
/// # Errors
/// [`TextError::Yaml`] and [`TextError::Merged`].
pub fn documents<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, TextError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(vec![value]);
    }
    let mut found = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        let mut value: Value = serde::Deserialize::deserialize(document).map_err(TextError::Yaml)?;
        if value.is_null() {
            continue;
        }
        value.apply_merge().map_err(TextError::Yaml)?;
        let json = serde_json::to_string(&value).map_err(TextError::Merged)?;
        found.push(serde_json::from_str(&json).map_err(TextError::Merged)?);
    }
    Ok(found)
}

/// The one document with content.
fn with_content(text: &str) -> Result<Option<yaml_serde::Deserializer<'_>>, TextError> {
    let mut found = None;
    for (number, document) in yaml_serde::Deserializer::from_str(text).enumerate() {
        let content: Option<IgnoredAny> = serde::Deserialize::deserialize(document).map_err(TextError::Yaml)?;
        if number >= DOCUMENTS_MAX || (content.is_some() && found.is_some()) {
            return Err(TextError::ManyDocuments);
        }
        found = found.or(content.map(|_| number));
    }
    Ok(found.and_then(|number| yaml_serde::Deserializer::from_str(text).nth(number)))
}

/// The document in JSON, with its merge keys carried out, which the YAML reader would take for fields of that name.
fn merged(document: yaml_serde::Deserializer<'_>) -> Result<String, TextError> {
    let mut value: Value = serde::Deserialize::deserialize(document).map_err(TextError::Yaml)?;
    value.apply_merge().map_err(TextError::Yaml)?;
    serde_json::to_string(&value).map_err(TextError::Merged)
}

/// A boolean or nothing, also in the words of YAML 1.1 (`yes`, `Off`), which kubectl reads so. For `deserialize_with`.
///
/// # Errors
/// It is something else.
pub fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = Option<bool>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a boolean")
        }

        fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Option<bool>, E> {
            Ok(Some(value))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Option<bool>, E> {
            match text {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(Some(true)),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(Some(false)),
                other => Err(E::invalid_type(Unexpected::Str(other), &self)),
            }
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Option<bool>, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Words)
}

/// A text, or an empty one for null and nothing. For `deserialize_with`.
///
/// # Errors
/// It is something else.
pub fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text: Option<String> = serde::Deserialize::deserialize(deserializer)?;
    Ok(text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    type Numbers = BTreeMap<String, i64>;

    fn numbers(text: &str) -> Result<Option<Numbers>, String> {
        document(text).map_err(|error| error.to_string())
    }

    fn utf16_of(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        std::iter::once('\u{feff}').chain(text.chars()).collect::<String>().encode_utf16().flat_map(unit).collect()
    }

    // covers: FM-R02
    #[test]
    fn a_file_saved_on_windows_is_read() {
        let text = "a: 1 # \u{1f426}\r\n";
        for bytes in [
            text.as_bytes().to_vec(),
            format!("\u{feff}{text}").into_bytes(),
            utf16_of(text, u16::to_le_bytes),
            utf16_of(text, u16::to_be_bytes),
        ] {
            assert_eq!(decoded(&bytes).expect("a text"), text);
        }
        assert_eq!(decoded(b"").expect("a text"), "");
    }

    #[test]
    fn what_is_no_text_is_refused_at_its_byte() {
        for (bytes, at) in [
            (&b"ab\xe9"[..], 2),
            (b"\xef\xbb\xbfab\xe9c", 5),
            (b"\xff", 0),
            (b"\xff\xfea\0b", 4),
            (b"\xff\xfea\0\0\xd8", 4),
            (b"\xfe\xff\xdc\0\0a", 2),
        ] {
            assert!(matches!(decoded(bytes), Err(TextError::Encoding(found)) if found == at), "{bytes:?}");
        }
    }

    #[test]
    fn one_document_counts_wherever_it_stands() {
        for text in [
            "a: 1",
            "\u{feff}a: 1\n",
            "\u{feff}---\na: 1\n",
            "\u{feff}# made by x\r\n---\r\na: 1\r\n...\r\n",
            "\u{feff}{\"a\": 1}",
            "---\n---\n# nothing\n---\na: 1\n---\n",
            "a: 1\n---\n# the next one comes later\n---\n",
            "a: 1\n...\n...\n# end\n",
            "%YAML 1.1\n---\na:\t1\t# tabs\n",
            "--- # first\na: 1\n---\nnull\n",
            "{a: 1,\n\t}\n",
            "{\"a\": 1}\n---\n",
            "x: &x\n  a: 1\n",
            "<<: {a: 1}\n",
        ] {
            let found = document::<BTreeMap<String, Value>>(text).expect("one").expect("content");
            let inner = found.get("x").and_then(|x| x.get("a")).or_else(|| found.get("a"));
            assert_eq!(inner.and_then(Value::as_i64), Some(1), "{text:?}");
        }
        for text in
            ["", "\u{feff}", "\n\n", "# nothing\n", "---\n", "---\n---\n# x\n", "null\n", "~", "%YAML 1.2\n---\n"]
        {
            assert_eq!(numbers(text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn two_documents_are_never_read_as_one() {
        let many = Err(TextError::ManyDocuments.to_string());
        for text in ["a: 1\n---\nb: 2\n", "a: 1\n---\n---\n[]\n", "{\"a\": 1}\n---\n{\"b\": 2}\n", &"---\n".repeat(100)]
        {
            assert_eq!(numbers(text), many, "{text:?}");
        }
        for text in ["a: 1\n...\nb: 2\n", "a: 1\n---\n\tb: 2\n", "a: 1\n\u{feff}b: 2\n", "\ta: 1\n", "a: 1\n\u{0}"] {
            assert!(numbers(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn several_documents_are_read_where_several_are_meant() {
        let several =
            |text: &str| documents::<Numbers>(text).map(|all| all.iter().map(|one| one["a"]).collect::<Vec<_>>());
        for (text, want) in [
            ("a: 1\n---\n# nothing\n---\na: 2\n", &[1, 2][..]),
            ("\u{feff}{\"a\": 1}", &[1]),
            ("{a: 1}\n...\n---\n{a: 2}\n---\n<<: {a: 3}\n", &[1, 2, 3]),
            ("---\n---\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(several(text).expect("good"), want, "{text:?}");
        }
        for text in ["a: 1\n---\n{", "a: 1\n---\n[]\n", "a: 1\n---\n<<: 7\n"] {
            assert!(several(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn merge_keys_mean_what_they_say() {
        let text = "base: &base {a: 1, b: 2}\nall:\n  <<: *base\n  b: 3\n";
        let all: BTreeMap<String, Numbers> = document(text).expect("one").expect("content");
        assert_eq!(all["all"], Numbers::from([("a".into(), 1), ("b".into(), 3)]));
        assert!(numbers("<<: 7\n").is_err());
        // Not every pair of these characters is one.
        let text: BTreeMap<String, String> = document("a: 'x << y'\n").expect("one").expect("content");
        assert_eq!(text["a"], "x << y");
    }

    #[test]
    fn booleans_may_be_those_of_yaml_1_1() {
        #[derive(serde::Deserialize)]
        struct Flag {
            #[serde(default, deserialize_with = "boolean")]
            on: Option<bool>,
        }
        let flag = |text: &str| document::<Flag>(text).map(|flag| flag.expect("content").on);
        for (text, want) in [
            ("on: true", Some(true)),
            ("on: False", Some(false)),
            ("on: yes", Some(true)),
            ("on: Off", Some(false)),
            ("on: ~", None),
            ("on: null", None),
            ("on:", None),
            ("{}", None),
            ("{\"on\": null}", None),
            ("<<: {on: no}", Some(false)),
        ] {
            assert_eq!(flag(text).expect("good"), want, "{text}");
        }
        for text in ["on: 1", "on: maybe", "on: yES", "on: [yes]", "on: {}"] {
            assert!(flag(text).is_err(), "{text}");
        }
    }
}
