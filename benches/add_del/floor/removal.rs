//! The floor of a removal: one thread sits in the kernel's call, which takes 20 to 40 ms of grace periods and no processor, and another
//! hears that the link has gone, which is when a DEL may be answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::netlink::Socket;
use super::veth::removal;
use crate::host::Host;

/// The processor time of threads that live on, in nanoseconds.
#[derive(Default, Clone)]
pub struct Spent(Arc<AtomicU64>);

impl Spent {
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Counts what the calling thread has used since `last`, which it keeps.
    pub fn count(&self, last: &mut Duration) {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default());
        let used = u64::try_from((now - *last).as_nanos()).unwrap_or_default();
        *last = now;
        self.0.fetch_add(used, Ordering::Relaxed);
    }
}

/// Threads that remove links, as many as there are removals at once.
#[derive(Clone)]
pub struct Removers {
    host: Host,
    idle: Arc<Mutex<Vec<Sender<u32>>>>,
    pub spent: Spent,
}

impl Removers {
    pub fn on(host: &Host) -> Removers {
        Removers { host: host.clone(), idle: Arc::default(), spent: Spent::default() }
    }

    /// Has the link removed, and does not wait.
    pub fn start(&self, index: u32) {
        let idle = self.idle.lock().expect("no panic").pop();
        let thread = idle.unwrap_or_else(|| self.another());
        thread.send(index).expect("it lives");
    }

    /// So many threads that wait for something to do.
    pub fn have(&self, count: usize) {
        let threads: Vec<_> = (0..count).map(|_| self.another()).collect();
        self.idle.lock().expect("no panic").extend(threads);
    }

    fn another(&self) -> Sender<u32> {
        let (sender, indices) = channel();
        let (host, idle, spent, own) = (self.host.clone(), self.idle.clone(), self.spent.clone(), sender.clone());
        thread::spawn(move || {
            host.enter();
            let socket = Socket::open();
            let mut clock = Duration::ZERO;
            while let Ok(index) = indices.recv() {
                socket.confirmed(removal(index)).expect("removed");
                spent.count(&mut clock);
                idle.lock().expect("no panic").push(own.clone());
            }
        });
        sender
    }
}

/// One thread that hears for all who wait.
#[derive(Clone)]
pub struct Announcements {
    waiting: Arc<Mutex<HashMap<u32, Sender<()>>>>,
}

impl Announcements {
    pub fn on(host: &Host, spent: &Spent) -> Announcements {
        let waiting: Arc<Mutex<HashMap<u32, Sender<()>>>> = Arc::default();
        let (host, spent, shared) = (host.clone(), spent.clone(), waiting.clone());
        let (ready, listening) = channel();
        thread::spawn(move || {
            host.enter();
            let socket = Socket::listening();
            let mut clock = Duration::ZERO;
            ready.send(()).expect("heard");
            loop {
                socket.hear(|index| {
                    if let Some(waiting) = shared.lock().expect("no panic").remove(&index) {
                        waiting.send(()).ok();
                    }
                });
                spent.count(&mut clock);
            }
        });
        listening.recv().expect("a thread");
        Announcements { waiting }
    }

    /// Removes a link, and returns when it has left the host.
    pub fn remove(&self, index: u32, removers: &Removers) {
        let (sender, gone) = channel();
        self.waiting.lock().expect("no panic").insert(index, sender);
        removers.start(index);
        gone.recv().expect("announced");
    }
}
