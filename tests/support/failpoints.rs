//! The agent's named points (`src/process/failpoint.rs`) as a test arms and traces them. Needs the feature `failpoints`.

use std::collections::BTreeMap;
use std::fs;

use super::host::Host;
use super::waiting::wait_for;

/// Where points are armed, and where those that are passed are written down.
pub const ARMED: &str = "/run/failpoints";
const TRACE: &str = "/run/failpoints.trace";

/// One pass of a point: its name and which pass it is, from 1.
pub type Passed = (String, usize);

impl Host {
    /// Arms these lines, and no others.
    pub fn arm(&self, lines: &str) {
        // In one step, since the agent may read at any time.
        let new = self.path("/run/failpoints.new");
        fs::write(&new, lines).expect("writable");
        fs::rename(new, self.path(ARMED)).expect("renamed");
    }

    /// Points are armed. A process that one of them kills takes the file with it.
    pub fn is_armed(&self) -> bool {
        self.path(ARMED).exists()
    }

    /// Takes back what was armed.
    pub fn disarm(&self) {
        assert!(self.disarmed(), "nothing was armed");
    }

    /// Takes back what was armed. False if it has killed a process, with which it went.
    pub fn disarmed(&self) -> bool {
        fs::remove_file(self.path(ARMED)).is_ok()
    }

    /// Has passes written down from now on.
    pub fn start_trace(&self) {
        fs::write(self.path(TRACE), "").expect("writable");
    }

    /// The points that were passed since [`Host::start_trace`], one a line, in order.
    pub fn trace(&self) -> String {
        fs::read_to_string(self.path(TRACE)).expect("a trace")
    }

    /// Ends the trace, and tells what it holds.
    pub fn end_trace(&self) -> String {
        let trace = self.trace();
        fs::remove_file(self.path(TRACE)).expect("removable");
        trace
    }

    /// Waits until the point was passed so often since the trace began.
    pub fn wait_point(&self, point: &str, times: usize) {
        wait_for(point, || (self.trace().lines().filter(|line| *line == point).count() >= times).then_some(()));
    }
}

/// The passes of a trace, in order.
pub fn passes<'a>(points: impl Iterator<Item = &'a str>) -> Vec<Passed> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let numbered = points.map(|point| {
        let nth = seen.entry(point).or_default();
        *nth += 1;
        (point.to_owned(), *nth)
    });
    numbered.collect()
}
