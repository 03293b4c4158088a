//! One line of the log: what it says, and how that looks.
//!
//! In the journal a line begins with its priority, and has no time of its own, since the journal has both. Values from outside are
//! escaped, so a line stays a line. Must not write anything.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::process::dates::timestamp;
use model::excerpt::plain;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Somebody must act.
    Error,
    /// We went on, degraded.
    Warn,
    /// State changed.
    Info,
    /// The rest.
    Debug,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `time level message key=value …`
    Text,
    /// One JSON object a line.
    Json,
}

/// A level or format that is not known.
#[derive(Debug)]
pub struct UnknownName;

impl FromStr for Level {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Level, UnknownName> {
        match text {
            "error" => Ok(Level::Error),
            "warn" => Ok(Level::Warn),
            "info" => Ok(Level::Info),
            "debug" => Ok(Level::Debug),
            _ => Err(UnknownName),
        }
    }
}

impl FromStr for Format {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Format, UnknownName> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(UnknownName),
        }
    }
}

impl Format {
    /// What formats are called.
    pub const NAMES: [&'static str; 2] = ["text", "json"];
}

impl Level {
    /// What levels are called, the most important first.
    pub const NAMES: [&'static str; 4] = ["error", "warn", "info", "debug"];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// How the journal knows it, as `sd-daemon(3)` has it: `journalctl -p warning` shows warnings and errors.
    pub fn priority(self) -> &'static str {
        match self {
            Level::Error => "<3>",
            Level::Warn => "<4>",
            Level::Info => "<6>",
            Level::Debug => "<7>",
        }
    }
}

/// What a field says.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// Digits, which JSON shows as a number.
    Number(String),
}

impl Value {
    pub(super) fn text(&self) -> &str {
        match self {
            Value::Text(text) | Value::Number(text) => text,
        }
    }
}

/// A number that JSON can hold.
pub trait Number: fmt::Display {}

macro_rules! numbers {
    ($($number:ty),*) => { $(impl Number for $number {} impl Number for &$number {})* };
}

numbers!(u16, u32, u64, u128, usize, i32, i64);

/// A line in the making. Nothing is written before `write` or `write_limited`.
#[derive(Debug)]
#[must_use = "a line is written by write()"]
pub struct Line {
    pub(super) level: Level,
    pub(super) message: &'static str,
    /// Whether lines of this level are written. If not, no value is formatted.
    pub(super) wanted: bool,
    pub(super) fields: Vec<(&'static str, Value)>,
}

/// What a line is about, under keys that are the same on every line about it.
pub trait Subject {
    /// The line, with those keys.
    fn of(&self, line: Line) -> Line;
}

impl<T: Subject> Subject for &T {
    fn of(&self, line: Line) -> Line {
        (**self).of(line)
    }
}

impl Line {
    pub(super) fn new(level: Level, message: &'static str, wanted: bool) -> Line {
        Line { level, message, wanted, fields: Vec::new() }
    }

    /// Adds what the line is about.
    pub fn about(self, subject: impl Subject) -> Line {
        if self.wanted { subject.of(self) } else { self }
    }

    /// Adds a field; `key` is a plain word.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Line {
        if self.wanted {
            self.fields.push((key, Value::Text(plain(&value.to_string()).into_owned())));
        }
        self
    }

    /// Adds a field if there is a value.
    pub fn with_some(self, key: &'static str, value: Option<impl fmt::Display>) -> Line {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds a number.
    pub fn number(mut self, key: &'static str, value: impl Number) -> Line {
        if self.wanted {
            self.fields.push((key, Value::Number(value.to_string())));
        }
        self
    }

    /// Adds a number if there is one.
    pub fn number_some(self, key: &'static str, value: Option<impl Number>) -> Line {
        match value {
            Some(value) => self.number(key, value),
            None => self,
        }
    }

    /// Adds `ms`: milliseconds, to the tenth.
    pub fn took(mut self, time: Duration) -> Line {
        if self.wanted {
            self.fields.push(("ms", Value::Number(format!("{:.1}", time.as_secs_f64() * 1000.0))));
        }
        self
    }

    /// Bytes of all values.
    pub(super) fn bytes(&self) -> usize {
        self.fields.iter().map(|(_, value)| value.text().len()).sum()
    }
}

/// Where lines go, and what they are like there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) format: Format,
    /// Lines go to the journal.
    pub(super) journal: bool,
}

impl Style {
    /// A line as it is written, with its end.
    pub(super) fn show(self, line: &Line, now: SystemTime) -> String {
        let priority = if self.journal { line.level.priority() } else { "" };
        let time = (!self.journal).then(|| timestamp(now));
        let shown = match self.format {
            Format::Text => text(line, time.as_deref()),
            Format::Json => json(line, time.as_deref()),
        };
        format!("{priority}{shown}\n")
    }
}

// Writing to a string cannot fail.

fn text(line: &Line, time: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(time) = time {
        let _ = write!(text, "{time} ");
    }
    let _ = write!(text, "{:5} {}", line.level.name(), line.message);
    for (key, value) in &line.fields {
        let value = value.text();
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'));
        let _ = if plain { write!(text, " {key}={value}") } else { write!(text, " {key}={value:?}") };
    }
    text
}

/// Time, level and message first, and then the fields in the order in which they were given.
fn json(line: &Line, time: Option<&str>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut members = Vec::new();
    members.extend(time.map(|time| format!("\"time\":{}", quoted(time))));
    members.push(format!("\"level\":{}", quoted(line.level.name())));
    members.push(format!("\"msg\":{}", quoted(line.message)));
    members.extend(line.fields.iter().map(|(key, value)| match value {
        Value::Text(text) => format!("{}:{}", quoted(key), quoted(text)),
        Value::Number(digits) => format!("{}:{digits}", quoted(key)),
    }));
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// A line that is written.
    pub(in crate::process::log) fn line(level: Level, message: &'static str) -> Line {
        Line::new(level, message, true)
    }

    fn shown(line: &Line, format: Format, journal: bool) -> String {
        Style { format, journal }.show(line, UNIX_EPOCH)
    }

    #[test]
    fn no_value_can_begin_a_line_of_its_own() {
        let line = line(Level::Info, "served").with("pod", "mail/smtp-0");
        let line = line.with("err", "a\nb\u{1b}[31m \"x\"").with_some("none", None::<u8>);
        assert_eq!(
            shown(&line, Format::Text, false),
            "1970-01-01T00:00:00.000Z info  served pod=mail/smtp-0 err=\"a\\nb\\u{1b}[31m \\\"x\\\"\"\n"
        );
        assert_eq!(
            shown(&line, Format::Json, false),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",\"msg\":\"served\",\"pod\":\"mail/smtp-0\",\
             \"err\":\"a\\nb\\u001b[31m \\\"x\\\"\"}\n"
        );
    }

    #[test]
    fn the_journal_gets_priorities_and_no_second_clock() {
        let said = |level, format| shown(&line(level, "x").number("n", 7u64), format, true);
        assert_eq!(said(Level::Error, Format::Text), "<3>error x n=7\n");
        assert_eq!(said(Level::Warn, Format::Text), "<4>warn  x n=7\n");
        assert_eq!(said(Level::Info, Format::Text), "<6>info  x n=7\n");
        assert_eq!(said(Level::Debug, Format::Json), "<7>{\"level\":\"debug\",\"msg\":\"x\",\"n\":7}\n");
    }

    #[test]
    fn numbers_are_numbers_and_what_only_looks_like_one_is_a_text() {
        let line = line(Level::Info, "x").with("cid", "007").number("n", 12usize).took(Duration::from_micros(1849));
        let object: serde_json::Value = serde_json::from_str(&shown(&line, Format::Json, false)).expect("one object");
        assert_eq!(object["cid"], "007");
        assert_eq!((object["n"].as_u64(), object["ms"].as_f64()), (Some(12), Some(1.8)));
        assert!(shown(&line, Format::Text, false).ends_with(" cid=007 n=12 ms=1.8\n"));
    }
}
