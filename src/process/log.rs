//! The agent's log: one line per fact on standard error, `key=value` or JSON.
//!
//! Levels: error = somebody must act; warn = we went on, degraded; info = state changed; debug = the rest. Values from
//! outside are escaped, so a line stays a line. What callers can trigger at will is limited per kind of line. The log is
//! the one global state of the program. The plugin must not use it, since its standard error is lost on failure.
//!
//! Standard error may be a pipe that nobody reads, and whoever writes a line must not wait for it: lines go into a queue of
//! bounded size, one thread formats and writes them in order, and those that find no room are counted, and their number is
//! logged. A log that cannot be written is no reason to stop. [`flush`] gives the queue a moment before an orderly end.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::AsFd as _;
use std::panic;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::process::lock::{Changed, Held, Lock};

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
}

static SINK: OnceLock<Sink> = OnceLock::new();

struct Sink {
    level: Level,
    format: Format,
    limits: Lock<HashMap<&'static str, Window>>,
    queue: Queue,
}

struct Window {
    began: Instant,
    lines: u32,
    held_back: u32,
}

/// Most lines of one limited kind in one [`WINDOW`].
pub const LIMIT: u32 = 10;
/// Time in which [`LIMIT`] lines of a kind are written, 10 s.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Most lines that wait to be written.
pub const QUEUE_LINES: usize = 1024;
/// Most bytes of values that the waiting lines hold together; each line needs some more memory.
pub const QUEUE_BYTES: usize = 256 * 1024;

/// Time for which the end of the process waits for a reader of its log, 1 s. Whoever reads at all takes the waiting lines in less.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Longest text of a panic that is logged, in characters.
const PANIC_MAX: usize = 1000;

/// Sets level and format for the rest of the process, and starts the thread that writes; later calls change nothing. Lines before
/// this call are dropped. From now on a panic becomes a line of level error, for which the process waits up to a second.
///
/// # Errors
/// The thread could not be started.
pub fn start(level: Level, format: Format) -> io::Result<()> {
    let mut started = Ok(());
    SINK.get_or_init(|| {
        // The thread waits until this closure has returned the sink.
        started = thread::Builder::new().name("log".into()).spawn(|| SINK.wait().keep_writing()).map(drop);
        Sink { level, format, limits: Lock::default(), queue: Queue::default() }
    });
    panic::set_hook(Box::new(|panic| {
        let said = panic.payload_as_str().unwrap_or_default().chars().take(PANIC_MAX).collect::<String>();
        error("flock-agent has a defect, please report it").with_some("at", panic.location()).with("err", said).write();
        flush();
    }));
    started
}

/// Waits until everything is written, or for a second when nobody reads. For the end of the process.
pub fn flush() {
    if let Some(sink) = SINK.get() {
        sink.queue.settled(LAST_MOMENT);
    }
}

/// Writes a text to standard error for a process that ends before it has a log, and waits for a reader as [`flush`] does.
pub fn last_words(text: String) {
    let (done, is_done) = channel();
    let words = thread::Builder::new().spawn(move || {
        put(text.as_bytes());
        done.send(()).ok();
    });
    // Without a thread the text stays unwritten: the exit code tells the rest.
    if words.is_ok() {
        is_done.recv_timeout(LAST_MOMENT).ok();
    }
}

/// A line in the making. Nothing is written before [`Line::write`] or [`Line::write_limited`].
#[derive(Debug)]
#[must_use = "a line is written by write()"]
pub struct Line {
    level: Level,
    message: &'static str,
    /// Whether lines of this level are written. If not, no value is formatted.
    wanted: bool,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn new(level: Level, message: &'static str) -> Line {
        let wanted = SINK.get().is_some_and(|sink| level <= sink.level);
        Line { level, message, wanted, fields: Vec::new() }
    }
}

/// A line of level error.
pub fn error(message: &'static str) -> Line {
    Line::new(Level::Error, message)
}

/// A line of level warn.
pub fn warn(message: &'static str) -> Line {
    Line::new(Level::Warn, message)
}

/// A line of level info.
pub fn info(message: &'static str) -> Line {
    Line::new(Level::Info, message)
}

/// A line of level debug.
pub fn debug(message: &'static str) -> Line {
    Line::new(Level::Debug, message)
}

impl Line {
    /// Adds a field; `key` is a plain word.
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Line {
        if self.wanted {
            self.fields.push((key, value.to_string()));
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

    /// Queues the line to be written.
    pub fn write(self) {
        if let Some(sink) = SINK.get().filter(|_| self.wanted) {
            sink.queue.push(self);
        }
    }

    /// Writes the line unless ten of the same message were written in the last ten seconds. The first one after a pause
    /// says how many were held back.
    pub fn write_limited(self) {
        let Some(sink) = SINK.get().filter(|_| self.wanted) else { return };
        match sink.admit(self.message, Instant::now()) {
            None => {}
            Some(0) => sink.queue.push(self),
            Some(held_back) => sink.queue.push(self.with("held_back", held_back)),
        }
    }
}

/// Lines on their way.
#[derive(Default)]
struct Queue {
    state: Lock<Waiting>,
    /// Wakes the writer when an entry waits.
    pushed: Changed,
    /// Wakes the end of the process when no entry waits any more.
    drained: Changed,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Bytes of the values of all entries.
    bytes: usize,
    /// Lines that found no room since the last entry.
    dropped: u64,
    /// Whether the writer waits for an entry. Only then it has to be woken, which costs as much as writing does.
    asleep: bool,
}

struct Entry {
    line: Line,
    at: SystemTime,
    /// Lines that are missing before this one.
    dropped: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.line.fields.iter().map(|(_, value)| value.len()).sum()
    }
}

/// What the writer does next.
enum Next {
    Write(Entry),
    /// No line follows, but so many are missing.
    Say(u64),
}

impl Queue {
    fn lock(&self) -> Held<'_, Waiting> {
        self.state.lock()
    }

    fn push(&self, line: Line) {
        let mut entry = Entry { line, at: SystemTime::now(), dropped: 0 };
        let bytes = entry.bytes();
        let mut state = self.lock();
        if state.entries.len() >= QUEUE_LINES || state.bytes + bytes > QUEUE_BYTES {
            state.dropped += 1;
        } else {
            entry.dropped = std::mem::take(&mut state.dropped);
            state.bytes += bytes;
            state.entries.push_back(entry);
        }
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.pushed.wake_one();
        }
    }

    /// Waits for an entry, and takes it.
    fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                state.bytes -= entry.bytes();
                return Next::Write(entry);
            }
            if state.dropped > 0 {
                return Next::Say(std::mem::take(&mut state.dropped));
            }
            state.asleep = true;
            self.drained.wake_all();
            state = self.pushed.wait(state);
        }
    }

    /// Waits until the writer has nothing left to do, and no longer than `limit`.
    fn settled(&self, limit: Duration) {
        drop(self.drained.wait_while(self.lock(), limit, |state| !state.asleep));
    }
}

impl Sink {
    /// Writes what waits, for ever. The whole work of the writing thread.
    fn keep_writing(&self) {
        let mut writer = Writer { format: self.format, lost: 0, rest: Vec::new() };
        loop {
            match self.queue.next() {
                Next::Write(Entry { line, at, dropped }) => writer.write(dropped, Some((&line, at))),
                Next::Say(dropped) => writer.write(dropped, None),
            }
        }
    }

    /// How many lines of this message were held back since the last one that was written; none if this one is held back, too.
    fn admit(&self, message: &'static str, now: Instant) -> Option<u32> {
        let mut limits = self.limits.lock();
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

/// The writing end.
struct Writer {
    format: Format,
    /// Lines that are missing at this point and have not been said.
    lost: u64,
    /// The end of a line whose beginning is written: it comes first when there is room again, so that lines stay whole.
    rest: Vec<u8>,
}

impl Writer {
    /// Writes a line, and before it how many lines are missing.
    fn write(&mut self, dropped: u64, line: Option<(&Line, SystemTime)>) {
        self.lost += dropped;
        let mut bytes = std::mem::take(&mut self.rest);
        let begun = bytes.len();
        if self.lost > 0 {
            let gap = Line {
                level: Level::Warn,
                message: "log lines were dropped, standard error did not take them",
                wanted: true,
                fields: vec![("lines_dropped", self.lost.to_string())],
            };
            bytes.extend(self.formatted(&gap, SystemTime::now()).into_bytes());
        }
        if let Some((line, at)) = line {
            bytes.extend(self.formatted(line, at).into_bytes());
        }
        let gone = put(&bytes);
        if gone > begun || gone == bytes.len() {
            self.lost = 0;
            bytes.drain(..gone);
        } else {
            self.lost += u64::from(line.is_some());
            bytes.truncate(begun);
            bytes.drain(..gone);
        }
        self.rest = bytes;
    }

    fn formatted(&self, line: &Line, at: SystemTime) -> String {
        match self.format {
            Format::Text => text(line, at),
            Format::Json => json(line, at),
        }
    }
}

/// Writes to standard error, however long that takes. Returns how many bytes were written until an error.
fn put(bytes: &[u8]) -> usize {
    let stderr = io::stderr();
    let mut gone = 0;
    while let Some(rest) = bytes.get(gone..).filter(|rest| !rest.is_empty()) {
        match rustix::io::write(stderr.as_fd(), rest) {
            Ok(length) if length > 0 => gone += length,
            Err(Errno::INTR) => {}
            // Another process that shares standard error has made it non-blocking.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)], None)),
            _ => break,
        }
    }
    gone
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
        let line = Line { wanted: true, ..info("served") };
        let line = line.with("pod", "mail/smtp-0").with("err", "a\nb\u{1b}[31m \"x\"").with_some("none", None::<u8>);
        let written = text(&line, at(0));
        assert_eq!(
            written,
            "1970-01-01T00:00:00.000Z info  served pod=mail/smtp-0 err=\"a\\nb\\u{1b}[31m \\\"x\\\"\"\n"
        );
        let object: serde_json::Value = serde_json::from_str(&json(&line, at(0))).expect("one object");
        assert_eq!(object.get("err").and_then(|v| v.as_str()), Some("a\nb\u{1b}[31m \"x\""));
    }

    // covers: FM-E04
    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted() {
        let sink = Sink { level: Level::Info, format: Format::Text, limits: Lock::default(), queue: Queue::default() };
        let now = Instant::now();
        let admitted = (0..100).filter(|_| sink.admit("x", now).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(sink.admit("y", now), Some(0), "another kind is not held back");
        assert_eq!(sink.admit("x", now + WINDOW), Some(90));
    }

    /// What the writer would find, in words.
    fn waiting(queue: &Queue) -> Vec<String> {
        let mut found = Vec::new();
        let is_empty = |state: Held<'_, Waiting>| state.entries.is_empty() && state.dropped == 0;
        while !is_empty(queue.lock()) {
            found.push(match queue.next() {
                Next::Write(Entry { line, dropped, .. }) => format!("{}+{dropped}", line.message),
                Next::Say(dropped) => format!("+{dropped}"),
            });
        }
        found
    }

    #[test]
    fn what_waits_is_bounded_in_lines_and_bytes_and_the_gap_is_counted_where_it_is() {
        let line = |message, bytes: usize| Line { wanted: true, ..info(message) }.with("x", "x".repeat(bytes));
        let queue = Queue::default();
        for _ in 0..QUEUE_LINES + 5 {
            queue.push(line("a", 0));
        }
        assert!(matches!(queue.next(), Next::Write(_)));
        queue.push(line("b", 0));
        queue.push(line("c", 0));
        let found = waiting(&queue);
        assert_eq!(found.len(), QUEUE_LINES + 1);
        assert_eq!(found[QUEUE_LINES - 2..], ["a+0", "b+5", "+1"]);
        // A long one finds no room, and a short one behind it does.
        queue.push(line("long", QUEUE_BYTES - 10));
        queue.push(line("long", 11));
        queue.push(line("short", 10));
        queue.push(line("longer", QUEUE_BYTES + 1));
        assert_eq!(waiting(&queue), ["long+0", "short+1", "+1"]);
        assert_eq!(queue.lock().bytes, 0);
    }
}
