//! The agent's log: one line per fact on standard error, `key=value` or JSON.
//!
//! Levels: error = somebody must act; warn = we went on, degraded; info = state changed; debug = the rest. What callers can
//! trigger at will is limited per kind of line. The log is the one global state of the program. The plugin must not use it, since
//! its standard error is lost on failure.
//!
//! Standard error may be a pipe that nobody reads, and whoever writes a line must not wait for it: lines go into a queue of
//! bounded size, one thread formats and writes them in order, and those that find no room are counted, and their number is
//! logged. A log that cannot be written is no reason to stop. [`flush`] gives the queue a moment before an orderly end.

pub mod lasting;
pub mod line;
pub mod queue;
pub mod storms;
mod writer;

use std::io;
use std::panic;
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::log::line::{Format, Level, Line, Style};
use crate::process::log::queue::{Entry, Next, Queue};
use crate::process::log::storms::{Admission, Storms};
use crate::process::log::writer::{Writer, is_journal, put};
use crate::process::meter::Meter;
use model::excerpt::plain;

static SINK: OnceLock<Sink> = OnceLock::new();

struct Sink {
    level: Level,
    style: Style,
    /// Lines of each level that were queued, and that were held back.
    counts: [(Meter, Meter); 4],
    dropped: Meter,
    storms: Storms,
    queue: Queue,
}

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
        let style = Style { format, journal: is_journal() };
        Sink {
            level,
            style,
            counts: Default::default(),
            dropped: Meter::default(),
            storms: Storms::default(),
            queue: Queue::default(),
        }
    });
    panic::set_hook(Box::new(|panic| {
        let said = panic.payload_as_str().unwrap_or_default().chars().take(PANIC_MAX).collect::<String>();
        error("flock-agent has a defect, please report it").with_some("at", panic.location()).with("err", said).write();
        flush();
    }));
    started
}

/// How many lines of one level there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that were written, or could not be.
    pub written: u64,
    /// Lines that were held back.
    pub held_back: u64,
}

/// How many lines of `level` there were.
pub fn counts(level: Level) -> Counts {
    let counts = SINK.get().map(|sink| sink.counts_of(level));
    let counts = counts.map(|(written, held_back)| Counts { written: written.get(), held_back: held_back.get() });
    counts.unwrap_or_default()
}

/// How many lines standard error did not take.
pub fn dropped() -> u64 {
    SINK.get().map(|sink| sink.dropped.get()).unwrap_or_default()
}

/// Tells what is held back, and waits until everything is written, or for a second when nobody reads. For the end of the process.
pub fn flush() {
    if let Some(sink) = SINK.get() {
        sink.storms.all().iter().for_each(|storm| sink.push(storm.line()));
        sink.queue.settled(LAST_MOMENT);
    }
}

/// Writes a text of level error to standard error for a process that ends before it has a log, and waits for a reader as [`flush`]
/// does.
pub fn last_words(text: String) {
    let (done, is_done) = channel();
    let words = thread::Builder::new().spawn(move || {
        let priority = if is_journal() { Level::Error.priority() } else { "" };
        put(format!("{priority}{}", plain(&text)).as_bytes());
        done.send(()).ok();
    });
    // Without a thread the text stays unwritten: the exit code tells the rest.
    if words.is_ok() {
        is_done.recv_timeout(LAST_MOMENT).ok();
    }
}

/// A line of level error.
pub fn error(message: &'static str) -> Line {
    line(Level::Error, message)
}

/// A line of level warn.
pub fn warn(message: &'static str) -> Line {
    line(Level::Warn, message)
}

/// A line of level info.
pub fn info(message: &'static str) -> Line {
    line(Level::Info, message)
}

/// A line of level debug.
pub fn debug(message: &'static str) -> Line {
    line(Level::Debug, message)
}

fn line(level: Level, message: &'static str) -> Line {
    Line::new(level, message, SINK.get().is_some_and(|sink| level <= sink.level))
}

impl Line {
    /// Queues the line to be written.
    pub fn write(self) {
        if let Some(sink) = SINK.get().filter(|_| self.wanted) {
            sink.push(self);
        }
    }

    /// Writes the line unless ten of the same message were written in the last ten seconds. How many were held back is said at
    /// the end of that time.
    pub fn write_limited(self) {
        let Some(sink) = SINK.get().filter(|_| self.wanted) else { return };
        match sink.storms.admit(self.level, self.message, Instant::now()) {
            Admission::Written(0) => sink.push(self),
            Admission::Written(held_back) => sink.push(self.number("held_back", held_back)),
            Admission::HeldBack(told) => {
                sink.counts_of(self.level).1.count();
                told.into_iter().for_each(|told| sink.queue.wake_at(told));
            }
        }
    }
}

impl Sink {
    fn counts_of(&self, level: Level) -> &(Meter, Meter) {
        let [error, warn, info, debug] = &self.counts;
        match level {
            Level::Error => error,
            Level::Warn => warn,
            Level::Info => info,
            Level::Debug => debug,
        }
    }

    fn push(&self, line: Line) {
        self.counts_of(line.level).0.count();
        if !self.queue.push(line) {
            self.dropped.count();
        }
    }

    /// Writes what waits, for ever. The whole work of the writing thread.
    fn keep_writing(&self) {
        let mut writer = Writer::new(self.style);
        loop {
            match self.queue.next() {
                Next::Write(Entry { line, at, dropped }) => writer.write(dropped, Some((&line, at))),
                Next::Say(dropped) => writer.write(dropped, None),
                Next::Alarm => {
                    let (over, next) = self.storms.over(Instant::now());
                    over.iter().for_each(|storm| self.push(storm.line()));
                    next.into_iter().for_each(|time| self.queue.wake_at(time));
                }
            }
        }
    }
}
