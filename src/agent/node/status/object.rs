//! The status of the NodeConfig on the API server: read, written, and taken back at the end.
//!
//! Must not decide what it says, nor when it is written.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::agent::node::report::{Unreported, refused};
use crate::agent::node::state::Edit;
use crate::agent::node::status::condition::Told;
use crate::kube::client::{Client, Method};
use crate::kube::explained;
use crate::kube::kind::Kind as _;
use crate::kube::objects::{NodeConfigs, collection};
use crate::kube::url::encoded;
use crate::process::dates::timestamp;

/// Longest answer that is read, in bytes.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// A merge patch of the status, which is this agent's alone: no version to conflict about.
pub fn patch(client: &Client, node: &str, status: &Value) -> Result<(), Unreported> {
    let path = format!("{}/{}/status", collection(), encoded(node));
    let body = json!({"status": status}).to_string();
    let sent = client.send(Method::Patch, &path, "application/merge-patch+json", body.as_bytes());
    match sent {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(refused("patch", "nodeconfigs/status", &answer)),
        Err(error) => Err(Unreported::Failed { why: explained(&error), wait: None }),
    }
}

/// The object as it is now.
fn on_server(client: &Client, node: &str) -> Result<Value, Unreported> {
    let failed = |why| Unreported::Failed { why, wait: None };
    let path = NodeConfigs { node: node.to_owned() }.path();
    let answer = client.get(&path, ANSWER_MAX).map_err(|error| failed(explained(&error)))?;
    if answer.status != 200 {
        return Err(refused("list", "nodeconfigs", &answer));
    }
    let mut list: Value =
        serde_json::from_slice(&answer.body).map_err(|error| failed(format!("the answer cannot be read: {error}")))?;
    match list.pointer_mut("/items/0") {
        Some(object) => Ok(object.take()),
        None => Err(Unreported::Gone),
    }
}

/// The conditions that an earlier run of the agent has told.
pub fn conditions_on_server(client: &Client, node: &str, edit: &Edit) -> Result<Vec<Told>, Unreported> {
    let object = on_server(client, node)?;
    if object.pointer("/metadata/uid").and_then(Value::as_str) != Some(&edit.uid) {
        return Err(Unreported::Gone);
    }
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let read = |condition: &Value| {
        let text = |key: &str| Some(condition.get(key)?.as_str()?.to_owned());
        Some(Told { kind: text("type")?, status: text("status")?, since: text("lastTransitionTime")? })
    };
    Ok(conditions.into_iter().flatten().filter_map(read).collect())
}

/// Says in the status that nobody serves this node's pods any more, if it says that somebody does. `Ready` is False and not
/// Unknown, since whoever writes this knows it; an agent that was killed is found by `lastHeard`. Takes as long as the
/// client's limits allow. An error is in words for an operator.
pub fn withdraw(client: &Client, node: &str) -> Result<(), String> {
    let failed = |error| match error {
        Unreported::Gone => "there is no such NodeConfig any more".to_owned(),
        Unreported::Failed { why, .. } => why,
    };
    let object = on_server(client, node).map_err(failed)?;
    let mut conditions = object.pointer("/status/conditions").cloned().unwrap_or_default();
    let is_ready = |condition: &&mut Value| condition.get("type").and_then(Value::as_str) == Some("Ready");
    let Some(ready) = conditions.as_array_mut().into_iter().flatten().find(is_ready).and_then(Value::as_object_mut)
    else {
        return Ok(());
    };
    let now = timestamp(SystemTime::now());
    let message = "flock-agent was stopped: pods that run go on, new ones wait until it is started";
    if ready.get("status").and_then(Value::as_str) != Some("False") {
        ready.insert("status".into(), "False".into());
        ready.insert("lastTransitionTime".into(), now.clone().into());
    }
    ready.insert("reason".into(), "Stopped".into());
    ready.insert("message".into(), message.into());
    patch(client, node, &json!({"conditions": conditions, "lastHeard": now})).map_err(failed)
}
