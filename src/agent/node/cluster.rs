//! What the agent hears of its node from the Kubernetes API, its NodeConfig and its own pods, and what refusals of the API server
//! mean for an operator.
//!
//! Everything here may fail for as long as it likes: pods run, ADD and DEL go on with what is known. Must not decide what a
//! NodeConfig means.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::agent::board::Board;
use crate::agent::node::pods::Pods;
use crate::agent::node::source::{Published, PublishedNode};
use crate::agent::node::wake::Wake;
use crate::agent::policing::tell::OwnPods;
use crate::agent::routing::news::News;
use crate::agent::watched::{Ear, Watched};
use crate::kube::client::Tidings;
use crate::kube::kind::{Name, Objects};
use crate::kube::objects::{NodeConfigObject, NodeObject, Pod};
use crate::kube::reflect::Audience;
use crate::kube::watch::{Changes, WatchNotice};
use crate::process::log;
use crate::process::log::lasting::Lasting;

/// API group of flock's own kinds, as RBAC names it.
const GROUP: &str = "flock.fritzlab.net";

/// Passes this node's NodeConfig on.
#[derive(Debug)]
pub struct NodeConfigAudience {
    /// The node's name.
    pub node: String,
    /// Where the NodeConfig is published.
    pub published: Board<Published>,
    /// Wakes the node's thread.
    pub wake: Sender<Wake>,
    /// Logs what the watch tells.
    pub hearing: Hearing,
}

impl Audience<NodeConfigObject> for NodeConfigAudience {
    fn changed(&mut self, _: Changes<NodeConfigObject>, objects: &Arc<Objects<NodeConfigObject>>) {
        // The server filters by name. One that does not must not give this node another one's configuration.
        let ours = objects.get(&Name { namespace: String::new(), name: self.node.clone() });
        self.published.set(ours.map_or(Published::Absent, |object| Published::Object(object.clone())));
        self.wake.send(Wake::Look).ok();
    }

    fn notice(&mut self, notice: WatchNotice) {
        self.hearing.report(&notice);
    }

    fn heard(&mut self) {
        self.hearing.heard();
    }
}

/// Passes this node's Node on.
#[derive(Debug)]
pub struct NodeAudience {
    /// The node's name.
    pub node: String,
    /// Where the Node is published.
    pub published: Board<PublishedNode>,
    /// Wakes the node's thread.
    pub wake: Sender<Wake>,
    /// Logs what the watch tells.
    pub hearing: Hearing,
}

impl Audience<NodeObject> for NodeAudience {
    fn changed(&mut self, _: Changes<NodeObject>, objects: &Arc<Objects<NodeObject>>) {
        let ours = objects.get(&Name { namespace: String::new(), name: self.node.clone() });
        self.published.set(ours.map_or(PublishedNode::Absent, |object| PublishedNode::Object(object.clone())));
        self.wake.send(Wake::Look).ok();
    }

    fn notice(&mut self, notice: WatchNotice) {
        self.hearing.report(&notice);
    }

    fn heard(&mut self) {
        self.hearing.heard();
    }
}

/// Passes this node's pods on.
#[derive(Debug)]
pub struct PodAudience {
    /// Where the pods are published.
    pub pods: Pods,
    /// Wakes the thread of the routes, which follow what pods serve.
    pub routing: Sender<News>,
    /// Tells what concerns policies.
    pub policing: OwnPods,
    /// Logs what the watch tells.
    pub hearing: Hearing,
}

impl Audience<Pod> for PodAudience {
    fn changed(&mut self, changes: Changes<Pod>, objects: &Arc<Objects<Pod>>) {
        self.policing.changed(changes);
        self.pods.set(objects.clone());
        self.routing.send(News::Pods).ok();
    }

    fn notice(&mut self, notice: WatchNotice) {
        self.hearing.report(&notice);
    }

    fn heard(&mut self) {
        self.hearing.heard();
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

/// A refusal of the API server that somebody has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What the refusal means.
    pub what: &'static str,
    /// What an operator has to do.
    pub remedy: String,
}

/// What a status of the API server means for an operator; none where no operator has to act, or no remedy is known. `verb` and
/// `resource` are RBAC's words, `message` is what the server said.
pub fn advice(verb: &str, resource: &str, code: u16, message: &str) -> Option<Advice> {
    let advice = |what, remedy: String| Some(Advice { what, remedy });
    let (group, no_crd) = match resource {
        "pods" | "namespaces" | "nodes" => ("\"\"", None),
        "networkpolicies" => ("networking.k8s.io", None),
        "events" => ("events.k8s.io", None),
        "nodepeers" => (GROUP, Some("the CRD nodepeers.flock.fritzlab.net is missing")),
        _ => (GROUP, Some("the CRD nodeconfigs.flock.fritzlab.net is missing")),
    };
    // This is how the API server answers for kinds that it does not have, one in plain text, one through an aggregator.
    let unknown_kind =
        message.trim() == "404 page not found" || message.contains("could not find the requested resource");
    match code {
        400 | 414 if matches!(verb, "list" | "watch") => advice(
            "API server, or a proxy before it, does not take the question",
            "see what it says of it (`err` in the log): correct the selector of the NetworkPolicy that has such a key or value, or \
             `server` and `proxy-url` in the kubeconfig"
                .into(),
        ),
        401 => advice(
            "API server refuses the credentials",
            "the token or certificate has expired, was revoked, or is another cluster's: renew it where the kubeconfig has it; \
             it is read again with each request"
                .into(),
        ),
        403 => advice(
            "API server forbids it: RBAC is too small",
            format!(
                "kubectl apply -k deploy/base, or allow the verb {verb} on the resource {resource} of apiGroup {group} in a \
                 ClusterRole that is bound to this user"
            ),
        ),
        404 if let (true, Some(no_crd)) = (unknown_kind, no_crd) => {
            advice(no_crd, "kubectl apply -k deploy/base".into())
        }
        404 if unknown_kind => advice(
            "API server does not know this resource: it is none, an old one, or its URL is wrong",
            "compare `server` in the kubeconfig with what `kubectl cluster-info` shows".into(),
        ),
        300..=399 | 404 if !message.contains("\" not found") => advice(
            "something other than an API server answers",
            "compare `server` and `proxy-url` in the kubeconfig with what `kubectl cluster-info` shows".into(),
        ),
        _ => None,
    }
}

/// Logs what one watch tells, and keeps when it did.
#[derive(Debug)]
pub struct Hearing {
    resource: &'static str,
    deaf: Lasting,
    ear: Ear,
}

impl Hearing {
    /// Of a watch of `resource`, which has told nothing yet. `watched` is where it is kept when it did.
    pub fn new(resource: &'static str, watched: &Watched) -> Hearing {
        Hearing { resource, deaf: Lasting::default(), ear: watched.begin(resource) }
    }

    /// The server has said something.
    pub fn heard(&self) {
        self.ear.heard();
    }

    /// What is watched.
    pub fn resource(&self) -> &'static str {
        self.resource
    }

    /// Logs what it tells. An API server that stays away is told of once.
    pub fn report(&mut self, notice: &WatchNotice) {
        let resource = self.resource;
        match notice {
            WatchNotice::Synced { objects } => {
                let line = log::info("API server heard").with("resource", resource).number("objects", *objects);
                self.deaf.ended(line).write_limited();
                self.ear.recovered();
            }
            WatchNotice::Unusable { name, why } => log::warn("object of the API server cannot be used")
                .with("resource", resource)
                .with("name", format!("{}/{}", name.namespace, name.name))
                .with("err", why)
                .write_limited(),
            // An old resource version is normal, and the next LIST cures it.
            WatchNotice::Failed { verb, code: Some(410), message } => {
                log::debug("watch begins anew")
                    .with("verb", verb)
                    .with("resource", resource)
                    .with("why", message)
                    .write_limited();
            }
            WatchNotice::Failed { verb, code, message } => {
                let advice = code.and_then(|code| advice(verb, resource, code, message));
                self.ear.failed(&match &advice {
                    Some(advice) => format!("{}: {}", advice.what, advice.remedy),
                    None => message.clone(),
                });
                self.deaf.met(message, || {
                    let line = match &advice {
                        Some(advice) => log::error(advice.what),
                        None => log::warn("API server cannot be asked"),
                    };
                    line.with("verb", verb)
                        .with("resource", resource)
                        .number_some("code", *code)
                        .with_some("remedy", advice.map(|advice| advice.remedy))
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_in_words_of_operators() {
        let unknown = "the server could not find the requested resource";
        for (verb, resource, code, message, what, remedy) in [
            (
                "list",
                "nodeconfigs",
                404,
                "404 page not found",
                "the CRD nodeconfigs.flock.fritzlab.net is missing",
                "kubectl apply -k deploy/base",
            ),
            (
                "watch",
                "nodeconfigs",
                404,
                unknown,
                "the CRD nodeconfigs.flock.fritzlab.net is missing",
                "kubectl apply -k",
            ),
            (
                "patch",
                "nodeconfigs/status",
                404,
                "404 page not found\n",
                "the CRD nodeconfigs.flock.fritzlab.net is missing",
                "kubectl apply -k",
            ),
            (
                "list",
                "nodepeers",
                404,
                "404 page not found",
                "the CRD nodepeers.flock.fritzlab.net is missing",
                "kubectl apply -k deploy/base",
            ),
            (
                "create",
                "nodepeers",
                403,
                "no",
                "RBAC",
                "the verb create on the resource nodepeers of apiGroup flock.fritzlab.net",
            ),
            ("list", "pods", 404, "404 page not found", "its URL is wrong", "cluster-info"),
            ("create", "events", 403, "no", "RBAC", "the verb create on the resource events of apiGroup events.k8s.io"),
            ("list", "nodes", 403, "no", "RBAC", "the verb list on the resource nodes of apiGroup \"\""),
            ("list", "nodeconfigs", 404, "<html lang=\"en\">nginx</html>", "other than an API server", "`server`"),
            ("list", "pods", 302, "", "other than an API server", "`proxy-url`"),
            ("list", "pods", 403, "no", "RBAC is too small", "the verb list on the resource pods of apiGroup \"\""),
            (
                "patch",
                "nodeconfigs/status",
                403,
                "no",
                "RBAC",
                "the verb patch on the resource nodeconfigs/status of apiGroup flock.fritzlab.net",
            ),
            ("watch", "nodeconfigs", 401, "Unauthorized", "refuses the credentials", "renew it"),
            ("list", "pods", 400, "unable to parse requirement", "does not take the question", "correct the selector"),
            ("watch", "pods", 414, "", "does not take the question", "`proxy-url`"),
        ] {
            let advice = advice(verb, resource, code, message).expect("advice");
            assert!(advice.what.contains(what) && advice.remedy.contains(remedy), "{code} {resource}: {advice:?}");
        }
        let gone = "nodeconfigs.flock.fritzlab.net \"host001\" not found";
        for (code, message) in
            [(404, gone), (410, "too old"), (429, "busy"), (500, "etcd"), (503, ""), (504, "Timeout")]
        {
            assert_eq!(advice("list", "nodeconfigs", code, message), None, "{code}");
        }
        assert_eq!(advice("patch", "nodeconfigs/status", 400, "invalid"), None, "that is of what was written");
    }
}
