//! Lines on their way to the thread that writes them: bounded, in order, and the gaps counted.
//!
//! Whoever pushes a line waits for nobody. Must not know what lines look like.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::process::lock::{Changed, Held, Lock};
use crate::process::log::line::Line;

/// Most lines that wait to be written.
pub const QUEUE_LINES: usize = 1024;
/// Most bytes of values that the waiting lines hold together; each line needs some more memory.
pub const QUEUE_BYTES: usize = 256 * 1024;

/// Lines on their way.
#[derive(Default)]
pub(super) struct Queue {
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
    /// When the writer has something to do without an entry.
    alarm: Option<Instant>,
    /// Whether the writer waits for an entry. Only then it has to be woken, which costs as much as writing does.
    asleep: bool,
}

pub(super) struct Entry {
    pub(super) line: Line,
    pub(super) at: SystemTime,
    /// Lines that are missing before this one.
    pub(super) dropped: u64,
}

/// What the writer does next.
pub(super) enum Next {
    Write(Entry),
    /// No line follows, but so many are missing.
    Say(u64),
    /// The time has come that [`Queue::wake_at`] named.
    Alarm,
}

impl Queue {
    fn lock(&self) -> Held<'_, Waiting> {
        self.state.lock()
    }

    /// Queues a line. False if there is no room for it.
    pub(super) fn push(&self, line: Line) -> bool {
        let bytes = line.bytes();
        let mut state = self.lock();
        // Under the lock, so that lines stand in the order of their times.
        let mut entry = Entry { line, at: SystemTime::now(), dropped: 0 };
        let has_room = state.entries.len() < QUEUE_LINES && state.bytes + bytes <= QUEUE_BYTES;
        if has_room {
            entry.dropped = std::mem::take(&mut state.dropped);
            state.bytes += bytes;
            state.entries.push_back(entry);
        } else {
            state.dropped += 1;
        }
        self.wake(state);
        has_room
    }

    /// Has the writer told at `time`, unless it is told earlier.
    pub(super) fn wake_at(&self, time: Instant) {
        let mut state = self.lock();
        state.alarm = Some(state.alarm.map_or(time, |alarm| alarm.min(time)));
        self.wake(state);
    }

    fn wake(&self, mut state: Held<'_, Waiting>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.pushed.wake_one();
        }
    }

    /// Waits until there is something to do.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            let left = state.alarm.map(|alarm| alarm.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                (state.alarm, state.asleep) = (None, false);
                return Next::Alarm;
            }
            if let Some(entry) = state.entries.pop_front() {
                state.bytes -= entry.line.bytes();
                return Next::Write(entry);
            }
            if state.dropped > 0 {
                return Next::Say(std::mem::take(&mut state.dropped));
            }
            state.asleep = true;
            self.drained.wake_all();
            state = match left {
                Some(left) => self.pushed.wait_for(state, left),
                None => self.pushed.wait(state),
            };
        }
    }

    /// Waits until the writer has nothing left to do, and no longer than `limit`.
    pub(super) fn settled(&self, limit: Duration) {
        drop(self.drained.wait_while(self.lock(), limit, |state| !state.asleep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::log::line::Level;
    use crate::process::log::line::tests::line;

    /// What the writer would find, in words.
    fn waiting(queue: &Queue) -> Vec<String> {
        let mut found = Vec::new();
        let is_empty = |state: Held<'_, Waiting>| state.entries.is_empty() && state.dropped == 0;
        while !is_empty(queue.lock()) {
            found.push(match queue.next() {
                Next::Write(Entry { line, dropped, .. }) => format!("{}+{dropped}", line.message),
                Next::Say(dropped) => format!("+{dropped}"),
                Next::Alarm => "alarm".into(),
            });
        }
        found
    }

    #[test]
    fn what_waits_is_bounded_in_lines_and_bytes_and_the_gap_is_counted_where_it_is() {
        let line = |message, bytes: usize| line(Level::Info, message).with("x", "x".repeat(bytes));
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

    #[test]
    fn an_alarm_comes_once_at_its_time_and_before_what_waits() {
        let (queue, began) = (Queue::default(), Instant::now());
        let soon = began + Duration::from_millis(20);
        queue.wake_at(began + Duration::from_secs(600));
        queue.wake_at(soon);
        assert!(matches!(queue.next(), Next::Alarm));
        assert!(Instant::now() >= soon);
        queue.wake_at(began);
        queue.push(line(Level::Info, "a"));
        assert_eq!(waiting(&queue), ["alarm", "a+0"]);
    }
}
