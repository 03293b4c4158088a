//! How what watches see becomes news for policies, and the news of this node's own pods.
//!
//! Must not keep anything of what it tells.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::agent::policing::cluster::{Change, ClusterNews, OwnPod, Told};
use crate::kube::kind::Name;
use crate::kube::objects::Pod;
use crate::kube::watch::{self, Changes};
use model::policy::PodKey;

/// Takes news. It may make its caller wait, and must not fail.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(ClusterNews) + Send + Sync>);

impl Tell {
    /// Hands each piece of news to `hear`.
    pub fn new(hear: impl Fn(ClusterNews) + Send + Sync + 'static) -> Tell {
        Tell(Arc::new(hear))
    }

    /// Tells.
    pub fn tell(&self, news: ClusterNews) {
        (self.0)(news);
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// Makes keys of pods, of which those of one namespace share its name.
#[derive(Debug, Default)]
pub struct Keys(RefCell<BTreeSet<Arc<str>>>);

impl Keys {
    /// The key of a pod of this name.
    pub fn key(&self, name: &Name) -> PodKey {
        let mut namespaces = self.0.borrow_mut();
        let known = namespaces.get(name.namespace.as_str()).cloned();
        let namespace = known.unwrap_or_else(|| {
            // A new namespace is rare enough to forget those that are gone.
            namespaces.retain(|namespace| Arc::strong_count(namespace) > 1);
            let namespace: Arc<str> = name.namespace.as_str().into();
            namespaces.insert(namespace.clone());
            namespace
        });
        PodKey { namespace, name: name.name.clone() }
    }
}

/// Changes that a watch tells, with other keys and other values.
pub fn told<T, K, V>(
    changes: Changes<T>,
    key: impl Fn(&Name) -> K,
    value: impl Fn(&Arc<T>) -> Option<V>,
) -> Told<K, V> {
    let one = |change: watch::Change<T>| {
        let known = change.before.as_ref().and_then(&value).is_some();
        let now = change.after.as_ref().and_then(&value);
        (known || now.is_some()).then(|| Change { key: key(&change.name), known, now })
    };
    Told { each: changes.each.into_iter().filter_map(one).collect(), complete: changes.complete }
}

/// Tells what policies need to know of this node's own pods.
#[derive(Debug)]
pub struct OwnPods {
    tell: Tell,
    keys: Keys,
}

impl OwnPods {
    /// Of which nothing has been told yet.
    pub fn new(tell: Tell) -> OwnPods {
        OwnPods { tell, keys: Keys::default() }
    }

    /// Tells the changes that concern policies.
    pub fn changed(&mut self, mut changes: Changes<Pod>) {
        // Whether a pod serves concerns nobody here.
        changes.each.retain(|change| {
            let [before, after] =
                [&change.before, &change.after].map(|pod| pod.as_ref().map(|pod| (&pod.policing, uid(pod))));
            before != after
        });
        let own = |pod: &Arc<Pod>| Some(OwnPod { pod: pod.policing.clone()?, uid: uid(pod).map(Box::from) });
        let told = told(changes, |name| self.keys.key(name), own);
        if told.complete || !told.each.is_empty() {
            self.tell.tell(ClusterNews::Own(told));
        }
    }
}

/// The uid by which a runtime knows the pod; none for a static one, which it knows by the hash of its file.
fn uid(pod: &Pod) -> Option<&str> {
    (pod.config_hash.is_none() && !pod.uid.is_empty()).then_some(&*pod.uid)
}
