//! Reads TOML as far as an installation needs it: the strings, lists of strings and single words of a container runtime's
//! configuration, by their full keys.
//!
//! What the runtime would not accept is an error with its line, since an installation must not guess from half a file; but what
//! is merely unusual (a key that is assigned twice, a date, a number out of range) is nobody's trouble here. Must not read files,
//! nor know what a key means.

use std::fmt;

/// Most names in one key, and most brackets that are open at a time. Configurations of runtimes have eight and three.
const DEPTH_MAX: usize = 32;

/// Longest name in a key, 256 bytes. A table's name is repeated for each of its keys.
const NAME_MAX: usize = 256;

/// What a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// The strings of a list; others of its members are left out.
    List(Vec<String>),
    /// A number, a boolean or a date, as it is written.
    Word(String),
}

/// Every value of a document, each by its full key, in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Document {
    entries: Vec<(Vec<String>, Value)>,
}

impl Document {
    /// The value of a key; of one that is assigned twice, the last one.
    pub fn get(&self, key: &[&str]) -> Option<&Value> {
        self.entries.iter().rev().find(|(path, _)| path == key).map(|(_, value)| value)
    }

    /// The string at a key.
    pub fn text(&self, key: &[&str]) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The list of strings at a key.
    pub fn list(&self, key: &[&str]) -> Option<&[String]> {
        match self.get(key)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

/// A text that is no TOML.
#[derive(Debug, PartialEq, Eq)]
pub struct TomlError {
    /// Where, from 1 on.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

impl fmt::Display for TomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

/// Reads a document.
///
/// # Errors
/// It is no TOML, or deeper than `DEPTH_MAX`.
pub fn read(text: &str) -> Result<Document, TomlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text, document: Document::default() };
    reader.document().map_err(|why| {
        let read = text.len() - reader.rest.len();
        let line = 1 + text.bytes().take(read).filter(|byte| *byte == b'\n').count();
        TomlError { line, why }
    })?;
    Ok(reader.document)
}

type Read<T> = Result<T, &'static str>;

struct Reader<'a> {
    /// What is not read yet.
    rest: &'a str,
    document: Document,
}

impl Reader<'_> {
    fn document(&mut self) -> Read<()> {
        let mut table = Vec::new();
        loop {
            self.skip_blank();
            if self.rest.is_empty() {
                return Ok(());
            }
            if self.takes("[") {
                let double = self.takes("[");
                table = self.key()?;
                if !self.takes(if double { "]]" } else { "]" }) {
                    return Err("a table's name has to end with ]");
                }
            } else {
                self.assignment(&table, 0)?;
            }
            self.skip_spaces();
            self.skip_comment();
            if !self.rest.is_empty() && !self.takes("\n") && !self.takes("\r\n") {
                return Err("the line should end here");
            }
        }
    }

    /// `key = value`, in a table.
    fn assignment(&mut self, table: &[String], depth: usize) -> Read<()> {
        let mut key = table.to_vec();
        key.extend(self.key()?);
        if key.len() > DEPTH_MAX {
            return Err("too many names in a key");
        }
        self.skip_spaces();
        if !self.takes("=") {
            return Err("a key has to be followed by =");
        }
        self.skip_spaces();
        if self.takes("{") {
            return self.inline_table(&key, depth + 1);
        }
        let value = self.value(depth)?;
        self.document.entries.push((key, value));
        Ok(())
    }

    /// The rest of `{key = value, …}`.
    fn inline_table(&mut self, key: &[String], depth: usize) -> Read<()> {
        if depth > DEPTH_MAX {
            return Err("too many brackets are open");
        }
        loop {
            self.skip_blank();
            if self.takes("}") {
                return Ok(());
            }
            self.assignment(key, depth)?;
            self.skip_blank();
            if !self.takes(",") && !self.rest.starts_with('}') {
                return Err("a table in braces has to go on with , or }");
            }
        }
    }

    fn value(&mut self, depth: usize) -> Read<Value> {
        if self.rest.starts_with(['"', '\'']) {
            return Ok(Value::Text(self.string()?));
        }
        if self.takes("[") {
            return Ok(Value::List(self.list(depth + 1)?));
        }
        let word = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | ':' | '_'));
        if word.is_empty() { Err("there is no value") } else { Ok(Value::Word(word.to_owned())) }
    }

    /// The rest of `[value, …]`.
    fn list(&mut self, depth: usize) -> Read<Vec<String>> {
        if depth > DEPTH_MAX {
            return Err("too many brackets are open");
        }
        let mut texts = Vec::new();
        loop {
            self.skip_blank();
            if self.takes("]") {
                return Ok(texts);
            }
            if self.takes("{") {
                // Its values have no key of their own.
                let entries = self.document.entries.len();
                self.inline_table(&[], depth)?;
                self.document.entries.truncate(entries);
            } else if let Value::Text(text) = self.value(depth)? {
                texts.push(text);
            }
            self.skip_blank();
            if !self.takes(",") && !self.rest.starts_with(']') {
                return Err("a list has to go on with , or ]");
            }
        }
    }

    /// `name.name`, each name bare or in quotes.
    fn key(&mut self) -> Read<Vec<String>> {
        let mut names = Vec::new();
        loop {
            self.skip_spaces();
            let name = if self.rest.starts_with(['"', '\'']) {
                self.string()?
            } else {
                self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).to_owned()
            };
            if name.is_empty() {
                return Err("there should be a name");
            }
            if name.len() > NAME_MAX {
                return Err("a name is too long");
            }
            if names.len() == DEPTH_MAX {
                return Err("too many names in a key");
            }
            names.push(name);
            self.skip_spaces();
            if !self.takes(".") {
                return Ok(names);
            }
        }
    }

    fn string(&mut self) -> Read<String> {
        if self.takes("'''") {
            return Ok(self.until("'''", true)?.to_owned());
        }
        if self.takes("'") {
            return Ok(self.until("'", false)?.to_owned());
        }
        let long = self.takes("\"\"\"");
        if long {
            let _ = self.takes("\n") || self.takes("\r\n");
        } else {
            self.takes("\"");
        }
        let mut text = String::new();
        loop {
            if self.takes(if long { "\"\"\"" } else { "\"" }) {
                // Up to two quotes may stand at the end of a long string.
                while long && self.takes("\"") {
                    text.push('"');
                }
                return Ok(text);
            }
            if !long && self.rest.starts_with('\n') {
                return Err("a string has no end on its line");
            }
            match self.take() {
                None => return Err("a string has no end"),
                Some('\\') => self.escaped(long, &mut text)?,
                Some(other) => text.push(other),
            }
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self, long: bool, text: &mut String) -> Read<()> {
        const UNKNOWN: &str = "no such character can stand behind a backslash";
        let character = match self.take().ok_or("a string has no end")? {
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            'e' => '\u{1b}',
            same @ ('"' | '\\') => same,
            width @ ('x' | 'u' | 'U') => {
                let digits = match width {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let number: String =
                    std::iter::from_fn(|| self.take_if(|c| c.is_ascii_hexdigit())).take(digits).collect();
                let number = Some(number).filter(|number| number.len() == digits);
                let number = number.and_then(|number| u32::from_str_radix(&number, 16).ok());
                number.and_then(char::from_u32).ok_or(UNKNOWN)?
            }
            blank if long && blank.is_ascii_whitespace() => {
                self.take_while(|c| c.is_ascii_whitespace());
                return Ok(());
            }
            _ => return Err(UNKNOWN),
        };
        text.push(character);
        Ok(())
    }

    /// What stands before `end`, which is read, too.
    fn until(&mut self, end: &str, lines: bool) -> Read<&str> {
        let (text, rest) = self.rest.split_once(end).ok_or("a string has no end")?;
        if !lines && text.contains('\n') {
            return Err("a string has no end on its line");
        }
        self.rest = rest;
        Ok(text)
    }

    /// Spaces, ends of lines and comments.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            if !self.skip_comment() {
                return;
            }
        }
    }

    fn skip_spaces(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t'));
    }

    fn skip_comment(&mut self) -> bool {
        let is_there = self.rest.starts_with('#');
        if is_there {
            self.take_while(|c| c != '\n');
        }
        is_there
    }

    fn takes(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self) -> Option<char> {
        self.take_if(|_| true)
    }

    fn take_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let mut characters = self.rest.chars();
        let first = characters.next().filter(|c| wanted(*c))?;
        self.rest = characters.as_str();
        Some(first)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_however_its_table_is_written() {
        for source in [
            "[plugins.\"io.x.v1\".cni]\nbin_dir = \"/a\"",
            "[plugins.'io.x.v1'.cni]\r\nbin_dir = '/a'\r\n",
            "\u{feff}# first\n[ plugins . \"io.x.v1\" . cni ] # why\n\tbin_dir=\"/a\" # here\n\n",
            "[plugins]\n  [plugins.\"io.x.v1\"]\n    cni.bin_dir = \"\\u002fa\"",
            "plugins.\"io.x.v1\" = { max = 1, cni = { conf = ['x'], \"bin_dir\" = \"/a\", } }",
            "[[other]]\nbin_dir = '/b'\n[plugins.\"io.x.v1\".cni]\nbin_dir = '/b'\nbin_dir = \"\"\"\n/\\\n   a\"\"\"",
        ] {
            let document = read(source).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(document.text(&["plugins", "io.x.v1", "cni", "bin_dir"]), Some("/a"), "{source}");
            assert_eq!(document.text(&["plugins", "io.x.v1", "bin_dir"]), None, "{source}");
        }
    }

    #[test]
    fn values_are_told_from_each_other() {
        let source = r#"
version = 3
on = true
at = 1979-05-27T07:32:00Z
x = -1.5e+3
dirs = [ # why
  "/a", '/b', 7, ["in"], {k = "in"},
]
none = []
q = """a"b""""
r = '''c'd'''
"#;
        let document = read(source).expect("TOML");
        for (key, word) in [("version", "3"), ("on", "true"), ("at", "1979-05-27T07:32:00Z"), ("x", "-1.5e+3")] {
            assert_eq!(document.get(&[key]), Some(&Value::Word(word.into())));
            assert_eq!((document.text(&[key]), document.list(&[key])), (None, None));
        }
        assert_eq!(document.list(&["dirs"]), Some(&["/a".to_owned(), "/b".to_owned()][..]));
        assert_eq!(document.list(&["none"]), Some(&[][..]));
        assert_eq!((document.text(&["q"]), document.text(&["r"])), (Some("a\"b\""), Some("c'd")));
        assert_eq!(document.get(&["k"]), None, "what is in a list has no key");
    }

    #[test]
    fn what_is_no_toml_is_named_by_its_line() {
        for (source, line, why) in [
            ("a = 1\n[b\nc = 2", 2, "end with ]"),
            ("a 1", 1, "followed by ="),
            ("\n\n= 1", 3, "a name"),
            ("a = \n", 1, "no value"),
            ("a = {{ .Dir }}", 1, "a name"),
            ("{{ template \"base\" . }}", 1, "a name"),
            ("a = \"x\nb = \"y\"", 1, "on its line"),
            ("a = 'x\n'", 1, "on its line"),
            ("a = \"\"\"x", 1, "no end"),
            ("a = '''x", 1, "no end"),
            ("a = \"\\q\"", 1, "backslash"),
            ("a = \"\\ud800\"", 1, "backslash"),
            ("a = \"\\u12\"", 1, "backslash"),
            ("a = [1 2]", 1, "a list"),
            ("a = [1,\n", 2, "no value"),
            ("a = {b = 1", 1, "in braces"),
            ("a = 1 b = 2", 1, "end here"),
            ("a = \"x\" \"y\"", 1, "end here"),
        ] {
            let error = read(source).expect_err(source);
            assert!(error.to_string().contains(why), "{source}: {error}");
            assert_eq!(error.line, line, "{source}: {error}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        for (open, close) in [("[", "]"), ("{a=", "}")] {
            let nested = |depth: usize| format!("k = {}1{}", open.repeat(depth), close.repeat(depth));
            read(&nested(DEPTH_MAX - 1)).expect("as deep as it may be");
            for depth in [DEPTH_MAX + 1, 100_000] {
                read(&nested(depth)).expect_err("deeper");
                read(&format!("k = {}", open.repeat(depth))).expect_err("deeper");
            }
        }
        read(&format!("{} = 1", "a.".repeat(100_000) + "a")).expect_err("a long key");
        read(&format!("[{}]", "a.".repeat(100_000) + "a")).expect_err("a long key");
        read(&format!("[{}]", "a".repeat(NAME_MAX + 1))).expect_err("a long name");
    }
}
