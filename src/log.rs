//! The agent's log: one line per fact on standard error, `key=value` or JSON.
//!
//! Levels: error = somebody must act; warn = we went on, degraded; info = state changed; debug = the rest. Values from
//! outside are escaped, so a line stays a line. What callers can trigger at will is limited per kind of line. The only
//! `static` of the program lives here. Never used by the plugin, whose standard error is lost on failure.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

static SINK: OnceLock<Sink> = OnceLock::new();

struct Sink {
    level: Level,
    format: Format,
    limits: Mutex<HashMap<&'static str, Window>>,
}

struct Window {
    began: Instant,
    lines: u32,
    held_back: u32,
}

/// Lines of one limited kind in one window.
pub const LIMIT: u32 = 10;
/// How long such a window is.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Sets level and format for the rest of the process; later calls change nothing. Before it, nothing is written.
pub fn start(level: Level, format: Format) {
    SINK.get_or_init(|| Sink { level, format, limits: Mutex::default() });
}

/// A line in the making. Nothing is written before [`Line::write`] or [`Line::write_limited`].
#[derive(Debug)]
#[must_use = "a line is written by write()"]
pub struct Line {
    level: Level,
    message: &'static str,
    fields: Vec<(&'static str, String)>,
}

/// A line of level error.
pub fn error(message: &'static str) -> Line {
    Line { level: Level::Error, message, fields: Vec::new() }
}

/// A line of level warn.
pub fn warn(message: &'static str) -> Line {
    Line { level: Level::Warn, message, fields: Vec::new() }
}

/// A line of level info.
pub fn info(message: &'static str) -> Line {
    Line { level: Level::Info, message, fields: Vec::new() }
}

/// A line of level debug.
pub fn debug(message: &'static str) -> Line {
    Line { level: Level::Debug, message, fields: Vec::new() }
}

impl Line {
    /// Adds a field; `key` is a plain word.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Line {
        self.fields.push((key, value.to_string()));
        self
    }

    /// Adds a field if there is a value.
    pub fn with_some(self, key: &'static str, value: Option<impl fmt::Display>) -> Line {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Writes the line.
    pub fn write(self) {
        if let Some(sink) = SINK.get().filter(|sink| self.level <= sink.level) {
            sink.write(&self);
        }
    }

    /// Writes the line unless ten of the same message were written in the last ten seconds. The first one after a pause
    /// says how many were held back.
    pub fn write_limited(mut self) {
        let Some(sink) = SINK.get().filter(|sink| self.level <= sink.level) else { return };
        match sink.admit(self.message, Instant::now()) {
            None => {}
            Some(0) => sink.write(&self),
            Some(held_back) => {
                self = self.with("held_back", held_back);
                sink.write(&self);
            }
        }
    }
}

impl Sink {
    fn write(&self, line: &Line) {
        let text = match self.format {
            Format::Text => text(line, SystemTime::now()),
            Format::Json => json(line, SystemTime::now()),
        };
        // One write per line, so that lines of several threads do not mix. A log that cannot be written is no reason to stop.
        std::io::stderr().write_all(text.as_bytes()).ok();
    }

    /// None: hold it back. Else how many were held back before it.
    fn admit(&self, message: &'static str, now: Instant) -> Option<u32> {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let window = limits.entry(message).or_insert(Window { began: now, lines: 0, held_back: 0 });
        if now.duration_since(window.began) >= WINDOW {
            let held_back = std::mem::take(&mut window.held_back);
            *window = Window { began: now, lines: 1, held_back: 0 };
            return Some(held_back);
        }
        if window.lines < LIMIT {
            window.lines += 1;
            return Some(0);
        }
        window.held_back += 1;
        None
    }
}

fn text(line: &Line, now: SystemTime) -> String {
    let mut text = format!("{} {:5} {}", timestamp(now), line.level.name(), line.message);
    for (key, value) in &line.fields {
        let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'));
        // Writing to a string cannot fail.
        let _ = if plain { write!(text, " {key}={value}") } else { write!(text, " {key}={value:?}") };
    }
    text.push('\n');
    text
}

fn json(line: &Line, now: SystemTime) -> String {
    let mut object = serde_json::Map::new();
    object.insert("time".into(), timestamp(now).into());
    object.insert("level".into(), line.level.name().into());
    object.insert("msg".into(), line.message.into());
    for (key, value) in &line.fields {
        object.insert((*key).into(), value.as_str().into());
    }
    format!("{}\n", serde_json::Value::from(object))
}

/// RFC 3339 in UTC, to the millisecond.
pub fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a day number counted from 1970-01-01. Years begin in March here, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_478_400, "2026-11-24T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(at(seconds)), text);
        }
    }

    #[test]
    fn no_value_can_begin_a_line_of_its_own() {
        let line =
            info("served").with("pod", "mail/smtp-0").with("err", "a\nb\u{1b}[31m \"x\"").with_some("none", None::<u8>);
        let written = text(&line, at(0));
        assert_eq!(
            written,
            "1970-01-01T00:00:00.000Z info  served pod=mail/smtp-0 err=\"a\\nb\\u{1b}[31m \\\"x\\\"\"\n"
        );
        let object: serde_json::Value = serde_json::from_str(&json(&line, at(0))).expect("one object");
        assert_eq!(object.get("err").and_then(|v| v.as_str()), Some("a\nb\u{1b}[31m \"x\""));
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted() {
        let sink = Sink { level: Level::Info, format: Format::Text, limits: Mutex::default() };
        let now = Instant::now();
        let admitted = (0..100).filter(|_| sink.admit("x", now).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(sink.admit("y", now), Some(0), "another kind is not held back");
        assert_eq!(sink.admit("x", now + WINDOW), Some(90));
    }
}
