//! The policies of the soak: a pod that only its friend may reach, as long as the soak lasts, and others that come and go.

use std::fs;

use crate::support::host::Host;

/// Where the agent finds them.
pub const DIRECTORY: &str = "/run/policies";

/// Where the directory is while it is away.
const ASIDE: &str = "/run/policies-aside";

/// The pod that only [`FRIEND`] may reach, in their own namespace.
pub const WALLED: &str = "walled";
pub const FRIEND: &str = "friend";
pub const NAMESPACE: &str = "walls";

const ALWAYS: &str = "{apiVersion: v1, kind: Pod, metadata: {name: walled, namespace: walls, labels: {role: walled}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: friend, namespace: walls, labels: {role: friend}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: wall, namespace: walls}
spec: {podSelector: {matchLabels: {role: walled}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]}
";

/// Isolates every pod of the callers, and allows everything.
const SOMETIMES: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
";

/// Writes the policies, with those of the callers' pods or without.
pub fn put(host: &Host, with_callers: bool) {
    let text = if with_callers { format!("{ALWAYS}{SOMETIMES}") } else { ALWAYS.to_owned() };
    back(host);
    host.write(&format!("{DIRECTORY}/.new"), &text);
    let (new, file) = (host.path(&format!("{DIRECTORY}/.new")), host.path(&format!("{DIRECTORY}/all.yaml")));
    fs::rename(new, file).expect("renamed");
}

/// Hides the directory.
pub fn away(host: &Host) {
    fs::rename(host.path(DIRECTORY), host.path(ASIDE)).ok();
}

/// Ends [`away`].
pub fn back(host: &Host) {
    fs::rename(host.path(ASIDE), host.path(DIRECTORY)).ok();
}
