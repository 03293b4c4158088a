//! What wakes the routing thread, and its wait.
//!
//! A message says which kind of thing may have changed and never what is to be found. Must not know what the thread does.

use std::iter;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Why the thread is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Leases, NodeConfig or other nodes have changed.
    Look,
    /// What pods serve has changed, which concerns those that share addresses.
    Pods,
    /// A lease of a node that answers for its pods on some link has gone, which can concern that link's neighbour proxies.
    Proxies,
    /// The kernel has announced that routes, links or addresses of the host have changed.
    Kernel,
    /// Everything is to be read again, as at SIGHUP.
    Again,
    /// The agent ends.
    Stop,
}

/// All that the thread was woken for since it last waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    /// Leases, NodeConfig or other nodes have changed.
    pub look: bool,
    /// What pods serve has changed.
    pub pods: bool,
    /// Neighbour proxies may be wanted no more.
    pub proxies: bool,
    /// The kernel may lead elsewhere than before.
    pub kernel: bool,
    /// Everything is to be read again.
    pub again: bool,
    /// The thread is to end.
    pub stop: bool,
}

impl Heard {
    /// Waits for a message, and no longer than `limit`.
    pub fn wait(messages: &Receiver<News>, limit: Duration) -> Heard {
        let first = match messages.recv_timeout(limit) {
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout) => return Heard::default(),
            Err(RecvTimeoutError::Disconnected) => News::Stop,
        };
        let mut heard = Heard::default();
        for news in iter::once(first).chain(messages.try_iter()) {
            heard.look |= news == News::Look;
            heard.pods |= news == News::Pods;
            heard.proxies |= news == News::Proxies;
            heard.kernel |= news == News::Kernel;
            heard.again |= news == News::Again;
            heard.stop |= news == News::Stop;
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_look_answers_all_that_was_asked_meanwhile() {
        let (wake, messages) = channel();
        assert_eq!(Heard::wait(&messages, Duration::ZERO), Heard::default());
        for news in [News::Look, News::Kernel, News::Look, News::Pods, News::Proxies, News::Again] {
            wake.send(news).expect("heard");
        }
        let heard = Heard::wait(&messages, Duration::ZERO);
        assert_eq!(heard, Heard { look: true, pods: true, proxies: true, kernel: true, again: true, stop: false });
        drop(wake);
        assert!(Heard::wait(&messages, Duration::from_secs(60)).stop);
    }
}
