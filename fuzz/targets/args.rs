//! `CNI_ARGS`, beside a plain model of its rules.

use cni::args::{PodArgs, parse};
use cni::error::Code;

use super::assert_fit_for_a_runtime;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let outcome = parse(text);
    let last = |key: &str| {
        let values = text.split(';').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name == key);
        values.map(|(_, value)| value).next_back().filter(|value| !value.is_empty())
    };
    let (namespace, name) = (last("K8S_POD_NAMESPACE"), last("K8S_POD_NAME"));
    let only_kubelets = ["K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID"].iter().any(|key| last(key).is_some());
    match &outcome {
        // A name by itself is that of a container of podman.
        Ok(None) => assert!(namespace.is_none() && (name.is_none() || !only_kubelets), "{text:?} names a pod"),
        Ok(Some(pod)) => {
            assert_eq!((namespace, name), (Some(pod.namespace.as_str()), Some(pod.name.as_str())));
            assert_eq!(pod.uid.as_deref(), last("K8S_POD_UID"));
            assert_eq!(pod.infra_container_id.as_deref(), last("K8S_POD_INFRA_CONTAINER_ID"));
            assert_sound(pod);
            assert_eq!(parse(&spelled_out(pod)).as_ref(), Ok(&outcome.clone().expect("it was read")));
        }
        Err(error) => {
            assert_eq!(error.code(), Code::InvalidEnvironment);
            assert_fit_for_a_runtime(error);
            assert!(error.msg().contains("K8S_POD_"), "which key? {error}");
        }
    }
    // Keys of others make no difference.
    let more = format!("IgnoreUnknown=1;A=B;{text};MAC=02:00:00:00:00:01;=;");
    assert_eq!(parse(&more), outcome);
}

/// Namespace and name become part of an API path, and all four of log lines.
fn assert_sound(pod: &PodArgs) {
    let safe = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    assert!(safe(&pod.namespace) && (1..=63).contains(&pod.namespace.len()), "{pod:?}");
    assert!(safe(&pod.name) && (1..=253).contains(&pod.name.len()) && !pod.name.contains(".."), "{pod:?}");
    for id in [&pod.infra_container_id, &pod.uid].into_iter().flatten() {
        assert!(safe(id) && (1..=128).contains(&id.len()), "{pod:?}");
    }
}

fn spelled_out(pod: &PodArgs) -> String {
    let mut text = format!("K8S_POD_NAME={};K8S_POD_NAMESPACE={}", pod.name, pod.namespace);
    for (key, value) in [("K8S_POD_UID", &pod.uid), ("K8S_POD_INFRA_CONTAINER_ID", &pod.infra_container_id)] {
        if let Some(value) = value {
            text.push_str(&format!(";{key}={value}"));
        }
    }
    text
}
