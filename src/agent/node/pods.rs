//! The pods of this node as the API server knows them, for the ADDs that need one.
//!
//! A runtime that hands annotations over makes this nearly idle. Readers wait a few seconds at most; a pod that is bound to a
//! node is usually seen before its ADD comes. Must not ask the API server itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::board::Board;
use crate::kube::kind::{Name, Objects};
use crate::kube::objects::Pod;
use model::lease::PodName;

/// Longest time for which an ADD waits for its pod, 3 s.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// The pods of this node; none until the first list has come.
#[derive(Debug, Clone, Default)]
pub struct Pods(Board<Option<Arc<Objects<Pod>>>>);

impl Pods {
    /// Puts another set in place.
    pub fn set(&self, objects: Arc<Objects<Pod>>) {
        self.0.set(Some(objects));
    }

    /// The pod that a runtime means, waited for until `deadline` and at most [`PATIENCE`].
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>, deadline: Instant) -> Option<Arc<Pod>> {
        let key = Name { namespace: namespace.into(), name: name.into() };
        let until = deadline.min(Instant::now() + PATIENCE);
        let find = |objects: &Objects<Pod>| objects.get(&key).filter(|pod| pod.is_meant_by(uid)).cloned();
        self.0.wait(until, |objects| objects.as_deref().and_then(find))
    }

    /// The pod of this name, as far as the API server has told.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let key = Name { namespace: namespace.into(), name: name.into() };
        self.0.get().as_ref().as_ref()?.get(&key).cloned()
    }

    /// Whether this pod may be sent traffic of others, as far as the API server has told; none before it has told of any pod. One
    /// that is not there any more may not.
    pub fn serves(&self, pod: &PodName) -> Option<bool> {
        let key = Name { namespace: pod.namespace.clone(), name: pod.name.clone() };
        let objects = self.0.get();
        let found = objects.as_ref().as_ref()?.get(&key);
        Some(found.is_some_and(|found| found.serving && found.is_meant_by(pod.uid.as_deref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn set_with(uid: &str) -> Arc<Objects<Pod>> {
        let pod = Pod {
            uid: uid.into(),
            config_hash: None,
            annotations: Default::default(),
            app: "a".into(),
            image: None,
            serving: true,
            policing: None,
        };
        Arc::new(Objects::from([(Arc::new(Name { namespace: "ns".into(), name: "p".into() }), Arc::new(pod))]))
    }

    // covers: FM-D08
    #[test]
    fn an_add_that_overtakes_its_pod_waits_for_it() {
        let pods = Pods::default();
        let later = pods.clone();
        let setter = thread::spawn(move || {
            later.set(set_with("old"));
            later.set(set_with("new"));
        });
        let deadline = Instant::now() + Duration::from_secs(10);
        let found = pods.find("ns", "p", Some("new"), deadline).expect("found");
        assert_eq!(found.uid, "new", "not the one of the same name that is about to go");
        setter.join().expect("no panic");
    }

    // covers: FM-D08
    #[test]
    fn the_wait_ends_with_the_request() {
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(Pods::default().find("ns", "p", None, deadline).is_none());
    }

    #[test]
    fn a_pod_that_is_about_to_go_is_not_taken_for_the_new_one_of_its_name() {
        let pods = Pods::default();
        pods.set(set_with("old"));
        let find = |uid| pods.find("ns", "p", Some(uid), Instant::now() + Duration::from_millis(20));
        assert!(find("new").is_none());
        assert_eq!(find("old").expect("found").uid, "old");
    }
}
