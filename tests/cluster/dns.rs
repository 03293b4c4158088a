//! CoreDNS as a cluster has it: two pods behind a Service of both families, at the addresses that kubelet gives to pods.

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::workload::pod;

const COREFILE: &str =
    ".:53 {\n  errors\n  ready\n  kubernetes cluster.local in-addr.arpa ip6.arpa {\n    ttl 0\n  }\n}\n";

fn manifests() -> [Value; 6] {
    let metadata = json!({"name": "coredns", "namespace": "kube-system"});
    let labels = json!({"k8s-app": "kube-dns"});
    let rules = json!([
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"});
    let spec = json!({
        "serviceAccountName": "coredns", "dnsPolicy": "Default",
        "containers": [{
            "name": "coredns", "image": "flock.test/coredns:1", "imagePullPolicy": "Never", "args": ["-conf", "/etc/coredns/Corefile"],
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        }],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": labels}},
        ],
    });
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": rules}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "coredns"}, "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}]}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"Corefile": COREFILE}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
            "replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {
            "ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::a"], "selector": labels,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}}),
    ]
}

pub(crate) fn found(cluster: &mut Cluster<'_>) {
    cluster.apply(&manifests());
    cluster.plane.wait("-n kube-system rollout status deployment/coredns");
    cluster.apply(&[pod("asks", "asks", "node1")]);
    let asks = cluster.wait_ready("asks");
    // The API server itself, by its name: it says that it speaks TLS.
    let said = cluster
        .wait("an answer by name", || cluster.pod_asks(&asks, "kubernetes.default.svc.cluster.local", 443, "/").ok());
    assert!(said.contains("HTTPS server"), "{said}");
    cluster.plane.wait("delete pod asks");
}
