//! What the threads of the soak share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::book::Book;
use crate::samples::Samples;
use crate::support::host::Host;
use crate::weather::Weather;

/// Shared by all threads.
pub struct World<'a> {
    pub host: &'a Host,
    pub book: Mutex<Book>,
    pub weather: Weather,
    pub samples: Mutex<Samples>,
    /// How many pods are to live.
    pub target: AtomicUsize,
    /// The agent's process; 0 for none.
    pub agent: AtomicU32,
    /// The soak ends, in time or by a finding.
    pub over: AtomicBool,
    /// Somebody wants the soak to end early, in order.
    pub stop: Arc<AtomicBool>,
    pub gate: Gate,
    tally: Mutex<BTreeMap<&'static str, u64>>,
    finding: Mutex<Option<String>>,
}

impl<'a> World<'a> {
    pub fn new(host: &'a Host) -> World<'a> {
        World {
            host,
            book: Mutex::default(),
            weather: Weather::default(),
            samples: Mutex::new(Samples::new()),
            target: AtomicUsize::new(0),
            agent: AtomicU32::new(0),
            over: AtomicBool::new(false),
            stop: Arc::default(),
            gate: Gate::default(),
            tally: Mutex::default(),
            finding: Mutex::default(),
        }
    }

    /// Counts what has been done.
    pub fn count(&self, what: &'static str) {
        *self.tally.lock().expect("unpoisoned").entry(what).or_default() += 1;
    }

    pub fn tally(&self) -> BTreeMap<&'static str, u64> {
        self.tally.lock().expect("unpoisoned").clone()
    }

    /// Something is wrong with flock. The first finding ends the soak.
    pub fn report(&self, finding: String) {
        self.finding.lock().expect("unpoisoned").get_or_insert(finding);
        self.over.store(true, Ordering::Relaxed);
    }

    /// The finding, if there is one.
    pub fn sound(&self) -> Result<(), String> {
        self.finding.lock().expect("unpoisoned").clone().map_or(Ok(()), Err)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Where callers stop between two calls while the host is looked at.
#[derive(Default)]
pub struct Gate {
    state: Mutex<Passage>,
    changed: Condvar,
}

#[derive(Default)]
struct Passage {
    /// Callers with a lower number may pass.
    open_for: usize,
    inside: usize,
}

impl Gate {
    /// Lets the callers with a number below `open_for` pass; 0 closes the gate.
    pub fn open_for(&self, open_for: usize) {
        self.state.lock().expect("unpoisoned").open_for = open_for;
        self.changed.notify_all();
    }

    /// Runs `work` when caller `number` may pass. False if the gate was closed all the time.
    pub fn pass(&self, number: usize, work: impl FnOnce()) -> bool {
        let state = self.state.lock().expect("unpoisoned");
        let wait = Duration::from_millis(200);
        let closed = |passage: &mut Passage| passage.open_for <= number;
        let (mut state, _) = self.changed.wait_timeout_while(state, wait, closed).expect("unpoisoned");
        if state.open_for <= number {
            return false;
        }
        state.inside += 1;
        drop(state);
        let _leave = Leave(self);
        work();
        true
    }

    /// Closes the gate and waits until nobody is inside. False if somebody stays for longer than `patience`.
    pub fn close(&self, patience: Duration) -> bool {
        self.open_for(0);
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock().expect("unpoisoned");
        while state.inside > 0 && Instant::now() < deadline {
            state = self.changed.wait_timeout(state, Duration::from_millis(200)).expect("unpoisoned").0;
        }
        state.inside == 0
    }
}

struct Leave<'a>(&'a Gate);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state.lock().expect("unpoisoned").inside -= 1;
        self.0.changed.notify_all();
    }
}
