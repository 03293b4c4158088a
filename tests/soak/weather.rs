//! Which promises of flock are suspended by what the soak does to it just now, so that every other failure is a finding.

use std::sync::Mutex;

/// What a caller may rely on in calm weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// ADD succeeds.
    Add,
    /// ADD gives an address of each family that was asked for, from the usual ranges.
    Addresses,
    /// DEL succeeds. Hardly anything suspends this one.
    Del,
    /// CHECK of a pod that stands succeeds.
    Check,
    /// STATUS succeeds.
    Status,
    /// GC removes nothing that lives and fails for nothing else.
    Gc,
}

const ALL: usize = 6;

#[derive(Clone, Copy, Default)]
struct Front {
    /// Storms that rage.
    raging: u32,
    /// Storms that ever began.
    begun: u64,
}

/// The weather over all promises.
#[derive(Default)]
pub struct Weather(Mutex<[Front; ALL]>);

/// What the weather was when a call began.
#[derive(Clone, Copy)]
pub struct Mark([Front; ALL]);

/// Suspends promises until it is dropped.
pub struct Storm<'a> {
    weather: &'a Weather,
    over: &'static [Promise],
}

impl Weather {
    /// Suspends these promises from now on.
    pub fn storm(&self, over: &'static [Promise]) -> Storm<'_> {
        let mut fronts = self.0.lock().expect("unpoisoned");
        for promise in over {
            let front = &mut fronts[*promise as usize];
            front.raging += 1;
            front.begun += 1;
        }
        Storm { weather: self, over }
    }

    /// Before a call.
    pub fn now(&self) -> Mark {
        Mark(*self.0.lock().expect("unpoisoned"))
    }

    /// After a call: the promise held all the time since `mark`.
    pub fn was_calm(&self, mark: &Mark, promise: Promise) -> bool {
        let now = self.0.lock().expect("unpoisoned")[promise as usize];
        mark.0[promise as usize].raging == 0 && mark.0[promise as usize].begun == now.begun
    }
}

impl Drop for Storm<'_> {
    fn drop(&mut self) {
        let mut fronts = self.weather.0.lock().expect("unpoisoned");
        for promise in self.over {
            fronts[*promise as usize].raging -= 1;
        }
    }
}
