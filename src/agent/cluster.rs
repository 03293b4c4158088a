//! The agent's side of the Kubernetes API: two reflectors, and what they publish.
//!
//! Everything here may fail for as long as it likes: pods run, ADD and DEL go on with what is known.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use crate::agent::node::Wake;
use crate::agent::pods::Pods;
use crate::kube::client::Tidings;
use crate::kube::objects::{NodeConfigObject, Pod};
use crate::kube::reflect::Audience;
use crate::kube::watch::{Name, Notice, Objects};
use crate::log;

/// What the API server has under this node's name.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Published {
    /// It has not been heard yet.
    #[default]
    Unknown,
    /// Nothing.
    Absent,
    /// This.
    Object(Arc<NodeConfigObject>),
}

/// The place where the newest NodeConfig of the API is found.
#[derive(Debug, Clone, Default)]
pub struct Latest(Arc<Mutex<Published>>);

impl Latest {
    /// The newest one.
    pub fn get(&self) -> Published {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in place.
    pub fn set(&self, published: Published) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }
}

/// Passes this node's NodeConfig on.
#[derive(Debug)]
pub struct NodeConfigAudience {
    /// The node's name.
    pub node: String,
    /// Where it goes.
    pub latest: Latest,
    /// Whom to wake.
    pub wake: Sender<Wake>,
}

impl Audience<NodeConfigObject> for NodeConfigAudience {
    fn objects(&mut self, objects: Arc<Objects<NodeConfigObject>>) {
        // The server filters, and a server that does not must not make us somebody else.
        let ours = objects.get(&Name { namespace: String::new(), name: self.node.clone() });
        self.latest.set(ours.map_or(Published::Absent, |object| Published::Object(object.clone())));
        self.wake.send(Wake::Look).ok();
    }

    fn notice(&mut self, notice: Notice) {
        report("nodeconfigs", &notice);
    }
}

/// Passes this node's pods on.
#[derive(Debug)]
pub struct PodAudience {
    /// Where they go.
    pub pods: Pods,
}

impl Audience<Pod> for PodAudience {
    fn objects(&mut self, objects: Arc<Objects<Pod>>) {
        self.pods.set(objects);
    }

    fn notice(&mut self, notice: Notice) {
        report("pods", &notice);
    }
}

/// Logs what the client tells of its kubeconfig and credentials.
pub fn tell(tidings: Tidings) {
    match tidings {
        Tidings::Kept { what, why } => {
            log::warn("access to the API server has changed and is broken; what was good before is in use")
                .with("part", what)
                .with("err", why)
                .write_limited();
        }
        Tidings::Good { what, server } => {
            log::info("access to the API server was read again")
                .with("part", what)
                .with("server", server)
                .write_limited();
        }
    }
}

fn report(resource: &'static str, notice: &Notice) {
    match notice {
        Notice::Synced { objects } => {
            log::info("API server heard").with("resource", resource).with("objects", objects).write_limited();
        }
        Notice::Unusable { name, why } => log::warn("object of the API server cannot be used")
            .with("resource", resource)
            .with("name", format!("{}/{}", name.namespace, name.name))
            .with("err", why)
            .write_limited(),
        Notice::Failed { verb, code: Some(403), message } => log::error("API server forbids it: RBAC is too small")
            .with("verb", verb)
            .with("resource", resource)
            .with("err", message)
            .write_limited(),
        // An old resource version is everyday life.
        Notice::Failed { verb, code: Some(410), message } => {
            log::debug("watch begins anew")
                .with("verb", verb)
                .with("resource", resource)
                .with("why", message)
                .write_limited();
        }
        Notice::Failed { verb, code, message } => log::warn("API server cannot be asked")
            .with("verb", verb)
            .with("resource", resource)
            .with_some("code", *code)
            .with("err", message)
            .write_limited(),
    }
}
