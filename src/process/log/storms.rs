//! How many lines of one kind are written in a while, and how many are held back: whoever calls the agent could fill a disk
//! otherwise.
//!
//! What is held back is counted, and the count is told when the storm is over. Must not write anything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::process::lock::Lock;
use crate::process::log::line::{Level, Line};

/// Most lines of one limited kind in one [`WINDOW`].
pub const LIMIT: u32 = 10;
/// Time in which [`LIMIT`] lines of a kind are written, 10 s.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The lines of late, by their messages, which are as many as there are places that write them.
#[derive(Debug, Default)]
pub(super) struct Storms(Lock<HashMap<&'static str, Window>>);

#[derive(Debug)]
struct Window {
    level: Level,
    began: Instant,
    lines: u32,
    held_back: u32,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is written. So many like it were held back since the last one, and were not told of yet.
    Written(u32),
    /// It is held back. The first one of a storm says when that has to be told.
    HeldBack(Option<Instant>),
}

/// Lines of one kind that were held back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Storm {
    level: Level,
    message: &'static str,
    held_back: u32,
}

impl Storm {
    /// What the log says at its end.
    pub(super) fn line(&self) -> Line {
        let line = Line::new(self.level, "more lines of this kind were held back", true);
        line.with("kind", self.message).number("held_back", self.held_back)
    }
}

impl Storms {
    /// Counts a line, and says what becomes of it.
    pub(super) fn admit(&self, level: Level, message: &'static str, now: Instant) -> Admission {
        let mut windows = self.0.lock();
        let new = Window { level, began: now, lines: 0, held_back: 0 };
        let window = windows.entry(message).or_insert(new);
        if now.duration_since(window.began) >= WINDOW {
            let held_back = window.held_back;
            *window = Window { level, began: now, lines: 1, held_back: 0 };
            return Admission::Written(held_back);
        }
        if window.lines < LIMIT {
            window.lines += 1;
            return Admission::Written(0);
        }
        window.held_back += 1;
        Admission::HeldBack((window.held_back == 1).then_some(window.began + WINDOW))
    }

    /// The storms that are over by `now`, and when the next one is; each is told once.
    pub(super) fn over(&self, now: Instant) -> (Vec<Storm>, Option<Instant>) {
        self.take(|window| now.duration_since(window.began) >= WINDOW)
    }

    /// All storms, for the end of the process.
    pub(super) fn all(&self) -> Vec<Storm> {
        self.take(|_| true).0
    }

    fn take(&self, is_over: impl Fn(&Window) -> bool) -> (Vec<Storm>, Option<Instant>) {
        let mut windows = self.0.lock();
        let (mut over, mut next) = (Vec::new(), None::<Instant>);
        for (message, window) in windows.iter_mut().filter(|(_, window)| window.held_back > 0) {
            if is_over(window) {
                let held_back = std::mem::take(&mut window.held_back);
                over.push(Storm { level: window.level, message, held_back });
            } else {
                let end = window.began + WINDOW;
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        drop(windows);
        over.sort_by_key(|storm| storm.message);
        (over, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // covers: FM-E04
    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted_at_its_end_once() {
        let (storms, now) = (Storms::default(), Instant::now());
        let admit = |message, now| storms.admit(Level::Warn, message, now);
        let admitted: Vec<Admission> = (0..100).map(|_| admit("x", now)).collect();
        assert_eq!(admitted.iter().filter(|one| **one == Admission::Written(0)).count(), 10);
        let told: Vec<&Admission> = admitted.iter().filter(|one| matches!(one, Admission::HeldBack(Some(_)))).collect();
        assert_eq!(told, [&Admission::HeldBack(Some(now + WINDOW))]);
        assert_eq!(admit("y", now), Admission::Written(0), "another kind is not held back");
        assert_eq!(storms.over(now), (vec![], Some(now + WINDOW)));
        let storm = Storm { level: Level::Warn, message: "x", held_back: 90 };
        assert_eq!(storms.over(now + WINDOW), (vec![storm], None));
        assert_eq!(admit("x", now + WINDOW), Admission::Written(0), "it was told");
    }

    #[test]
    fn a_line_behind_a_storm_tells_of_it_and_so_does_the_end_of_the_process() {
        let (storms, now) = (Storms::default(), Instant::now());
        let admit = |now| storms.admit(Level::Info, "x", now);
        (0..12).for_each(|_| _ = admit(now));
        assert_eq!(admit(now + WINDOW), Admission::Written(2));
        assert_eq!(storms.all(), []);
        (0..12).for_each(|_| _ = admit(now + WINDOW));
        assert_eq!(storms.all(), [Storm { level: Level::Info, message: "x", held_back: 3 }]);
    }
}
