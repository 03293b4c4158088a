//! The line by which an ADD says that an annotation of its pod is ignored, for an Event of the pod.
//!
//! Nobody who speaks here ever waits: what does not fit is dropped, and the log has it. Must not know who listens.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use model::lease::PodName;

/// Most that waits to be heard.
const WAITING_MAX: usize = 16;

/// An annotation that is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// Of which pod.
    pub pod: PodName,
    /// Which, and why, in the words of the log.
    pub why: String,
}

/// Where it is said. By default nobody listens, as without Kubernetes.
#[derive(Debug, Clone, Default)]
pub struct Telling(Option<SyncSender<Ignored>>);

impl Telling {
    /// The two ends of a line.
    pub fn heard() -> (Telling, Receiver<Ignored>) {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        (Telling(Some(sender)), receiver)
    }

    /// Says that an annotation of this pod is ignored.
    pub fn ignored(&self, pod: PodName, why: String) {
        if let Some(line) = &self.0 {
            line.try_send(Ignored { pod, why }).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_speaks_never_waits_and_what_does_not_fit_is_dropped() {
        let pod = || PodName { namespace: "shop".into(), name: "web".into(), uid: None };
        Telling::default().ignored(pod(), "a".into());
        let (telling, heard) = Telling::heard();
        (0..1000).for_each(|number| telling.ignored(pod(), number.to_string()));
        let first: Vec<String> = heard.try_iter().map(|ignored| ignored.why).collect();
        assert_eq!(first, (0..WAITING_MAX).map(|number| number.to_string()).collect::<Vec<_>>());
        drop(heard);
        telling.ignored(pod(), "nobody".into());
    }
}
