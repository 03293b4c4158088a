//! Threads that do one job after another. A thread is made when a job finds none at rest, and a few of them stay.
//!
//! Making a thread costs more than most of what one is made for here: its stack, its signal stack, and some twenty system calls.
//! Must not know what the jobs do; a job tells of its own end whoever waits for that.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread;

use crate::process::lock::{Changed, Lock};

/// What becomes of the thread of a job that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It may do another one.
    Stay,
    /// It is not as it was before, and ends.
    End,
}

type Job = Box<dyn FnOnce() -> Afterwards + Send>;

/// A number of threads of one name. Clones are the same.
#[derive(Clone)]
pub struct Crew(Arc<Shared>);

struct Shared {
    name: &'static str,
    most_at_rest: usize,
    state: Lock<State>,
    called: Changed,
}

#[derive(Default)]
struct State {
    /// Jobs that have been left to threads at rest, at most as many as there are.
    jobs: VecDeque<Job>,
    at_rest: usize,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Crew").field(&self.0.name).finish()
    }
}

impl Crew {
    /// A crew without threads yet, of which `most_at_rest` are kept when they have nothing to do.
    pub fn new(name: &'static str, most_at_rest: usize) -> Crew {
        Crew(Arc::new(Shared { name, most_at_rest, state: Lock::default(), called: Changed::new() }))
    }

    /// Has a thread begin this job at once, however many others are at work.
    ///
    /// # Errors
    /// There is no thread at rest, and the system has none to spare. The job is not begun.
    pub fn begin(&self, job: impl FnOnce() -> Afterwards + Send + 'static) -> io::Result<()> {
        let job: Job = Box::new(job);
        let mut state = self.0.state.lock();
        if state.at_rest > state.jobs.len() {
            state.jobs.push_back(job);
            drop(state);
            self.0.called.wake_one();
            return Ok(());
        }
        drop(state);
        let shared = self.0.clone();
        thread::Builder::new().name(self.0.name.into()).spawn(move || shared.work(job)).map(drop)
    }
}

impl Shared {
    fn work(&self, first: Job) {
        let mut job = first;
        while job() == Afterwards::Stay {
            let mut state = self.state.lock();
            // A job that was left to a thread at rest is begun sooner by one that is awake.
            if state.jobs.is_empty() {
                if state.at_rest >= self.most_at_rest {
                    return;
                }
                state.at_rest += 1;
                while state.jobs.is_empty() {
                    state = self.called.wait(state);
                }
                state.at_rest -= 1;
            }
            match state.jobs.pop_front() {
                Some(next) => job = next,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn tell(to: &Sender<ThreadId>, then: Afterwards) -> impl FnOnce() -> Afterwards + Send + 'static {
        let to = to.clone();
        move || {
            to.send(thread::current().id()).expect("heard");
            then
        }
    }

    fn wait_until(crew: &Crew, at_rest: usize) {
        let begun = std::time::Instant::now();
        while crew.0.state.lock().at_rest != at_rest {
            assert!(begun.elapsed() < LONG, "{at_rest} at rest");
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_does_one_job_after_another_unless_it_is_fit_for_none() {
        let crew = Crew::new("crew", 1);
        let (to, told) = channel();
        let next = |then| {
            crew.begin(tell(&to, then)).expect("a thread");
            told.recv_timeout(LONG).expect("done")
        };
        let first = next(Afterwards::Stay);
        wait_until(&crew, 1);
        assert_eq!(next(Afterwards::End), first);
        wait_until(&crew, 0);
        assert_ne!(next(Afterwards::Stay), first);
    }

    #[test]
    fn no_job_waits_for_another_one_and_few_threads_stay() {
        let crew = Crew::new("crew", 2);
        let (to, told) = channel();
        let all: Vec<Sender<()>> = (0..5)
            .map(|_| {
                let (go, may_go) = channel::<()>();
                let to = to.clone();
                crew.begin(move || {
                    to.send(thread::current().id()).expect("heard");
                    may_go.recv().ok();
                    Afterwards::Stay
                })
                .expect("a thread");
                go
            })
            .collect();
        let threads: HashSet<ThreadId> = (0..5).map(|_| told.recv_timeout(LONG).expect("begun")).collect();
        assert_eq!(threads.len(), 5, "all at once");
        drop(all);
        wait_until(&crew, 2);
    }
}
