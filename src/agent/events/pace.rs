//! Which Event is written next, and when: of each state its beginning and each other text of it, never twice within ten minutes,
//! and few requests in all.
//!
//! Decides on values, with the time as an argument: milliseconds of the boot clock, so that an agent that is started anew goes on
//! where the last one was. What cannot be told at once waits, and the newest text counts; what the API server does not take is
//! lost after a few tries. Must not know how anything is sent.

use std::collections::{BTreeMap, VecDeque};

use crate::agent::events::ignored::Ignored;
use crate::agent::events::reason::{ALL, ANNOTATION_IGNORED, Reason, Standing};
use model::lease::PodName;

/// How long a text is not told again with the same reason of the same object, 10 min.
pub const SERIES_MS: u64 = 600_000;

/// Events of one reason of the node in that time.
pub const NODE_MAX: usize = 4;

/// Events of pods in that time.
pub const PODS_MAX: usize = 32;

/// The time for which requests are counted, a minute.
pub const MINUTE_MS: u64 = 60_000;

/// Requests in a minute, with those that the API server does not take.
pub const REQUESTS_MAX: usize = 6;

/// Requests in a minute after which none is for a pod: what is of the node need not wait for pods.
const REQUESTS_PODS: usize = 4;

/// Events of pods that wait for their turn. What comes when so many wait is lost.
const WAITING_MAX: usize = 16;

/// Tries to write one Event of the node. One of a pod has one.
const TRIES: u32 = 5;

/// The pause after the first try that failed, 15 s; each further one in a row doubles it.
const PAUSE_MS: u64 = 15_000;

/// Longest pause that a server can ask for, 5 min.
const PAUSE_MAX_MS: u64 = 300_000;

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Regarding {
    /// This node.
    Node,
    /// A pod of it.
    Pod(PodName),
}

/// An Event that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// What it is about.
    pub regarding: Regarding,
    /// Why it is written.
    pub reason: &'static Reason,
    /// What it says.
    pub note: String,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server has the Event.
    Taken,
    /// It will not have it.
    Refused,
    /// It may take it later, and asks for this pause, in milliseconds.
    Later(u64),
}

/// What was told of a reason, as it is kept for the next agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The text of the state that has been told and is not over.
    pub said: Option<String>,
    /// The latest Events, with the times at which they were written.
    pub series: Vec<(u64, String)>,
}

/// What has been told and what is to be.
#[derive(Debug, Default)]
pub struct Pace {
    node: BTreeMap<&'static str, Told>,
    waiting: VecDeque<Ignored>,
    of_pods: Series<Ignored, PODS_MAX>,
    /// When the latest requests were made.
    requests: VecDeque<u64>,
    /// Tries in a row that failed.
    failures: u32,
    not_before: u64,
}

/// One reason of the node.
#[derive(Debug)]
struct Told {
    reason: &'static Reason,
    /// What holds now.
    holds: Option<String>,
    /// What was told of it since it began, or lost.
    said: Option<String>,
    series: Series<String, NODE_MAX>,
    /// Tries to tell what holds.
    tries: u32,
}

/// What was told lately, and when; at most `MOST`.
#[derive(Debug)]
struct Series<T, const MOST: usize>(VecDeque<(u64, T)>);

impl<T, const MOST: usize> Default for Series<T, MOST> {
    fn default() -> Series<T, MOST> {
        Series(VecDeque::new())
    }
}

impl<T: PartialEq, const MOST: usize> Series<T, MOST> {
    /// Whether this may be told now.
    fn allows(&self, what: &T, now: u64) -> bool {
        let recent = self.0.iter().filter(|(at, _)| within(*at, now, SERIES_MS));
        let (mut count, mut told) = (0, false);
        recent.for_each(|(_, before)| {
            count += 1;
            told |= before == what;
        });
        count < MOST && !told
    }

    fn add(&mut self, what: T, now: u64) {
        self.0.retain(|(at, _)| within(*at, now, SERIES_MS));
        self.0.push_back((now, what));
    }
}

/// Whether `at` is in the time before `now`. What is later than now is of a time before the machine was started.
fn within(at: u64, now: u64, time: u64) -> bool {
    now.checked_sub(at).is_some_and(|since| since < time)
}

impl Pace {
    /// What is told after the agents before this one have told what is kept, by the names of the reasons.
    pub fn after(kept: &BTreeMap<String, Kept>) -> Pace {
        let mut pace = Pace::default();
        for reason in ALL {
            if let Some(kept) = kept.get(reason.name) {
                let told = pace.of(reason);
                told.said.clone_from(&kept.said);
                told.series.0 = kept.series.iter().rev().take(NODE_MAX).rev().cloned().collect();
            }
        }
        pace
    }

    /// What the next agent should know.
    pub fn kept(&self) -> BTreeMap<String, Kept> {
        let kept = |told: &Told| Kept { said: told.said.clone(), series: told.series.0.iter().cloned().collect() };
        let all = self.node.iter().map(|(name, told)| ((*name).to_owned(), kept(told)));
        all.filter(|(_, kept)| *kept != Kept::default()).collect()
    }

    fn of(&mut self, reason: &'static Reason) -> &mut Told {
        self.node.entry(reason.name).or_insert_with(|| Told {
            reason,
            holds: None,
            said: None,
            series: Series::default(),
            tries: 0,
        })
    }

    /// How a reason of the node is now.
    pub fn stands(&mut self, reason: &'static Reason, standing: Standing) {
        let told = self.of(reason);
        match standing {
            Standing::Unknown => {}
            Standing::Over => (told.holds, told.said, told.tries) = (None, None, 0),
            Standing::Holds(text) => {
                if told.holds.as_ref() != Some(&text) {
                    (told.holds, told.tries) = (Some(text), 0);
                }
            }
        }
    }

    /// An annotation is ignored.
    pub fn ignored(&mut self, ignored: Ignored) {
        if self.waiting.len() < WAITING_MAX && !self.waiting.contains(&ignored) {
            self.waiting.push_back(ignored);
        }
    }

    /// The Event that is to be written now, if there is one. It counts as a request, and [`Pace::done`] says what became of it.
    pub fn next(&mut self, now: u64) -> Option<Letter> {
        self.requests.retain(|at| within(*at, now, MINUTE_MS));
        if now < self.not_before || self.requests.len() >= REQUESTS_MAX {
            return None;
        }
        let letter = match ALL.iter().find_map(|reason| self.node.get(reason.name)?.due(now)) {
            Some(letter) => letter,
            None if self.requests.len() < REQUESTS_PODS => self.next_of_pods(now)?,
            None => return None,
        };
        self.requests.push_back(now);
        Some(letter)
    }

    fn next_of_pods(&mut self, now: u64) -> Option<Letter> {
        while let Some(ignored) = self.waiting.pop_front() {
            if self.of_pods.allows(&ignored, now) {
                let Ignored { pod, why } = ignored;
                return Some(Letter { regarding: Regarding::Pod(pod), reason: ANNOTATION_IGNORED, note: why });
            }
        }
        None
    }

    /// What became of `letter`.
    pub fn done(&mut self, letter: Letter, outcome: Outcome, now: u64) {
        match outcome {
            Outcome::Taken | Outcome::Refused => self.failures = 0,
            Outcome::Later(asked) => {
                let pause = PAUSE_MS << self.failures.min(TRIES);
                self.failures = self.failures.saturating_add(1);
                self.not_before = now.saturating_add(pause.max(asked).min(PAUSE_MAX_MS));
            }
        }
        match letter.regarding {
            Regarding::Pod(pod) => {
                if outcome == Outcome::Taken {
                    self.of_pods.add(Ignored { pod, why: letter.note }, now);
                }
            }
            Regarding::Node => {
                let told = self.of(letter.reason);
                told.tries += 1;
                if outcome == Outcome::Taken {
                    told.series.add(letter.note.clone(), now);
                }
                if !matches!(outcome, Outcome::Later(_)) || told.tries >= TRIES {
                    (told.said, told.tries) = (Some(letter.note), 0);
                }
            }
        }
    }
}

impl Told {
    fn due(&self, now: u64) -> Option<Letter> {
        let note = self.holds.as_ref().filter(|holds| self.said.as_ref() != Some(holds))?;
        let letter = || Letter { regarding: Regarding::Node, reason: self.reason, note: note.clone() };
        self.series.allows(note, now).then(letter)
    }
}

#[cfg(test)]
mod tests;
