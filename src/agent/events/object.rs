//! An Event as the API takes it, within the API's limits.
//!
//! Must not decide whether it is written.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::agent::events::pace::{Letter, Regarding};
use crate::kube::url::encoded;
use crate::process::dates::timestamp;
use model::excerpt::{Excerpt, cut};

/// The API of Events.
const API_VERSION: &str = "events.k8s.io/v1";

/// Who writes them.
const CONTROLLER: &str = "flock.fritzlab.net/agent";

/// Where Events of objects are that have no namespace, as kubelet's of its Node.
const NAMESPACE: &str = "default";

/// Longest note, in bytes.
const NOTE_MAX: usize = 1024;

/// Longest name of who writes, in bytes.
const INSTANCE_MAX: usize = 128;

/// Longest part of an Event's name that tells what it is about, in bytes: 253 is the limit of the whole.
const SUBJECT_MAX: usize = 230;

/// Where an Event of this is created.
pub fn path(regarding: &Regarding) -> String {
    format!("/apis/{API_VERSION}/namespaces/{}/events", encoded(namespace(regarding)))
}

/// The Event. Its name has the time in it, to the nanosecond, so no two of a node are the same.
pub fn object(letter: &Letter, node: &str, now: SystemTime) -> Value {
    let (name, regarding) = match &letter.regarding {
        // Whoever asks for the Events of a Node looks for those with its name in place of its uid: kubelet writes them so.
        Regarding::Node => (node, json!({"apiVersion": "v1", "kind": "Node", "name": node, "uid": node})),
        Regarding::Pod(pod) => {
            let (namespace, name, uid) = (&pod.namespace, &pod.name, &pod.uid);
            (
                name.as_str(),
                json!({"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": uid}),
            )
        }
    };
    let subject: String = name.chars().take(SUBJECT_MAX).collect();
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    json!({
        "apiVersion": API_VERSION,
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{nanos:x}", subject.trim_end_matches(['-', '.'])),
            "namespace": namespace(&letter.regarding),
        },
        // The API takes exactly six digits.
        "eventTime": timestamp(now).replace('Z', "000Z"),
        "reportingController": CONTROLLER,
        "reportingInstance": cut(node.to_owned(), INSTANCE_MAX),
        "action": letter.reason.action,
        "reason": letter.reason.name,
        "type": letter.reason.kind,
        "note": Excerpt::line(&letter.note, NOTE_MAX).as_ref(),
        "regarding": regarding,
    })
}

fn namespace(regarding: &Regarding) -> &str {
    match regarding {
        Regarding::Node => NAMESPACE,
        Regarding::Pod(pod) => &pod.namespace,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::events::reason;
    use model::lease::PodName;

    #[test]
    fn events_are_what_the_api_takes_however_long_their_parts_are() {
        let at = UNIX_EPOCH + Duration::new(1_795_478_400, 123_456_789);
        let of_node = Letter { regarding: Regarding::Node, reason: reason::SERVING, note: "serving".into() };
        assert_eq!(path(&of_node.regarding), "/apis/events.k8s.io/v1/namespaces/default/events");
        let event = object(&of_node, "host001", at);
        assert_eq!(event["metadata"]["name"], "host001.18ead217913ecd15");
        assert_eq!(event["eventTime"], "2026-11-24T00:00:00.123000Z");
        assert_eq!(
            event["regarding"],
            json!({"apiVersion": "v1", "kind": "Node", "name": "host001", "uid": "host001"})
        );
        let name = format!("{}-{}", "a".repeat(229), "b".repeat(23));
        let pod = Regarding::Pod(PodName { namespace: "shop".into(), name, uid: Some("u".into()) });
        let long = Letter { regarding: pod, reason: reason::ANNOTATION_IGNORED, note: "é\n".repeat(3000) };
        assert_eq!(path(&long.regarding), "/apis/events.k8s.io/v1/namespaces/shop/events");
        let event = object(&long, &"n".repeat(253), at);
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).expect("text").to_owned();
        assert!(text("/note").len() <= NOTE_MAX && text("/note").ends_with('…') && text("/note").len() > 1000);
        assert!(text("/reportingInstance").len() <= INSTANCE_MAX && text("/metadata/name").len() <= 253);
        assert!(text("/metadata/name").starts_with(&format!("{}.1", "a".repeat(229))), "{event}");
        assert_eq!((text("/regarding/namespace"), text("/regarding/uid")), ("shop".into(), "u".into()));
    }
}
