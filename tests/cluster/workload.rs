//! Manifests of what the stories run: servers that tell who they are and who asks, in pods and behind Services.

use serde_json::{Value, json};

use crate::asking::PORT;

const IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:flock";

/// What a pod with a server consists of, ready as soon as it answers.
fn spec() -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "server", "image": IMAGE, "imagePullPolicy": "Never",
            "args": ["netexec", format!("--http-port={PORT}")],
            "ports": [{"containerPort": PORT, "name": "http"}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
        }],
    })
}

/// A pod with a server, with the label `app`, on this node.
pub(crate) fn pod(name: &str, app: &str, node: &str) -> Value {
    let mut spec = spec();
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": spec})
}

/// So many of them, wherever there is room, in a Deployment or a StatefulSet.
pub(crate) fn set(kind: &str, name: &str, replicas: u32) -> Value {
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": spec()});
    let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template});
    if kind == "StatefulSet" {
        spec["serviceName"] = json!(name);
    }
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A Service of both families for the pods with this label, with these further fields.
pub(crate) fn service(name: &str, app: &str, more: Value) -> Value {
    let mut spec = json!({"ipFamilyPolicy": "RequireDualStack", "selector": {"app": app}, "ports": [{"port": 80, "targetPort": "http"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}
