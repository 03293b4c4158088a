//! Does something inside a network namespace, on a thread that ends with it.

use std::io;
use std::os::fd::AsFd as _;
use std::thread;

use flock::kernel::netns::Netns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub trait Inside {
    /// Runs `work` inside and waits for it.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T>;
}

impl Inside for Netns {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                move_into_link_name_space(self.fd().as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            inside?.join().expect("no panic")
        })
    }
}
