//! `CNI_ARGS`: which pod a call is about.
//!
//! The text is `KEY=VALUE` pairs with `;` between them, in any order, with keys that no one announced. Runtimes ask for
//! tolerance (`IgnoreUnknown=1`) and this parser grants it always: only the values that flock uses are judged, because
//! they end in API requests and log lines. Whether a pod of that name exists is not its business.

use crate::error::{Code, Error};
use alloc::string::{String, ToString as _};
use model::addr::{CONTAINER_ID_MAX, check_identifier};
use model::excerpt::Excerpt;

const NAMESPACE: &str = "K8S_POD_NAMESPACE";
const NAME: &str = "K8S_POD_NAME";
const INFRA_CONTAINER_ID: &str = "K8S_POD_INFRA_CONTAINER_ID";
const UID: &str = "K8S_POD_UID";

/// The pod of a call, as kubelet names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodArgs {
    /// A DNS label: at most 63 bytes.
    pub namespace: String,
    /// A DNS subdomain: at most 253 bytes.
    pub name: String,
    /// The sandbox, which is the container id of the call. Characters and length as for a container id.
    pub infra_container_id: Option<String>,
    /// Characters and length as for a container id. For a static pod this is a hash of its manifest and not the UID
    /// that the API server knows, so it must never be what a pod is refused for.
    pub uid: Option<String>,
}

/// The pod that `CNI_ARGS` names, or `None` when it names none: `cnitool` and other runtimes than Kubernetes' do that.
///
/// An empty value counts as absent, the last of equal keys wins, a pair without `=` is ignored.
///
/// A name alone names none either: podman sends that of the container so, which may have any shape.
///
/// # Errors
/// [`Code::InvalidEnvironment`] when kubelet's keys name half a pod, and when a value that is used has the wrong form. Only ADD
/// has a use for the pod: DEL must go on without it.
pub fn parse(args: &str) -> Result<Option<PodArgs>, Error> {
    let (mut namespace, mut name, mut infra_container_id, mut uid) = (None, None, None, None);
    for (key, value) in args.split(';').filter_map(|pair| pair.split_once('=')) {
        let slot = match key {
            NAMESPACE => &mut namespace,
            NAME => &mut name,
            INFRA_CONTAINER_ID => &mut infra_container_id,
            UID => &mut uid,
            _ => continue,
        };
        *slot = Some(value).filter(|value| !value.is_empty());
    }
    let (namespace, name) = match (namespace, name) {
        (None, None) => return Ok(None),
        (None, Some(_)) if infra_container_id.is_none() && uid.is_none() => return Ok(None),
        (Some(_), None) => return Err(lacking(NAME, NAMESPACE)),
        (None, Some(_)) => return Err(lacking(NAMESPACE, NAME)),
        (Some(namespace), Some(name)) => (namespace, name),
    };
    Ok(Some(PodArgs {
        namespace: checked(NAMESPACE, namespace, is_dns_label, "is not a DNS label")?,
        name: checked(NAME, name, is_dns_subdomain, "is not a DNS name")?,
        infra_container_id: optional_id(INFRA_CONTAINER_ID, infra_container_id)?,
        uid: optional_id(UID, uid)?,
    }))
}

fn lacking(missing: &str, present: &str) -> Error {
    Error::new(Code::InvalidEnvironment, format!("CNI_ARGS has {present} but lacks {missing}"))
}

fn checked(key: &str, value: &str, rule: fn(&str) -> bool, broken: &str) -> Result<String, Error> {
    if rule(value) {
        return Ok(value.to_string());
    }
    let details = format!("{key} is {}, which {broken}", Excerpt::of(value));
    Err(Error::new(Code::InvalidEnvironment, format!("invalid {key} in CNI_ARGS")).with_details(details))
}

fn optional_id(key: &str, value: Option<&str>) -> Result<Option<String>, Error> {
    let is_id = |value: &str| check_identifier(value).is_ok() && value.len() <= CONTAINER_ID_MAX;
    value.map(|value| checked(key, value, is_id, "is not an identifier")).transpose()
}

/// RFC 1123 in either case. Kubernetes allows lower case only, but the conformance suite for container runtimes makes
/// sandboxes with capitals, and DNS makes no difference.
fn is_dns_part(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter().all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_part(text)
}

/// Kubernetes bounds the whole name only, not its labels.
fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KUBELET: [&str; 5] = [
        "IgnoreUnknown=1",
        "K8S_POD_NAMESPACE=shop",
        "K8S_POD_NAME=web-0",
        "K8S_POD_INFRA_CONTAINER_ID=0a1b",
        "K8S_POD_UID=2f4c-99",
    ];

    fn pod() -> PodArgs {
        PodArgs {
            namespace: "shop".into(),
            name: "web-0".into(),
            infra_container_id: Some("0a1b".into()),
            uid: Some("2f4c-99".into()),
        }
    }

    fn refused(args: &str) -> Error {
        let error = parse(args).expect_err(args);
        assert_eq!(error.code(), Code::InvalidEnvironment);
        error
    }

    // covers: E-22 E-24
    #[test]
    fn order_and_foreign_keys_make_no_difference() {
        // All 120 orders, by the factorial digits of a number.
        for mut order in 0..120 {
            let mut left = KUBELET.to_vec();
            let mut pairs = vec!["IP=10.0.0.9", "MAC=02:00:00:00:00:01"];
            for base in (1..=5).rev() {
                pairs.push(left.remove(order % base));
                order /= base;
            }
            assert_eq!(parse(&pairs.join(";")), Ok(Some(pod())));
        }
    }

    // covers: E-23
    #[test]
    fn odd_pairs_are_ignored_and_the_last_duplicate_wins() {
        let pod_only = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=0a1b;K8S_POD_UID=2f4c-99";
        for extra in ["", ";", ";;", ";A", ";=", ";=x", ";A==B", ";IgnoreUnknown=false;A=1", ";k8s_pod_name=x", ";A=\n"]
        {
            assert_eq!(parse(&format!("{pod_only}{extra}")), Ok(Some(pod())), "{extra:?}");
        }
        assert_eq!(parse(&format!("K8S_POD_NAME=first;{pod_only}")), Ok(Some(pod())));
        assert!(refused("K8S_POD_NAMESPACE=shop;K8S_POD_NAME==web").details().contains("\"=web\""));
    }

    // covers: E-26
    #[test]
    fn no_pod_is_fine_but_half_a_pod_is_not() {
        for none in ["", ";", "IgnoreUnknown=1", "K8S_POD_UID=x", "K8S_POD_NAMESPACE=;K8S_POD_NAME=", "A=B;C"] {
            assert_eq!(parse(none), Ok(None), "{none:?}");
        }
        let error = refused("K8S_POD_NAMESPACE=shop");
        assert_eq!(error.msg(), "CNI_ARGS has K8S_POD_NAMESPACE but lacks K8S_POD_NAME");
        for half in ["K8S_POD_UID=x", "K8S_POD_INFRA_CONTAINER_ID=x"] {
            let error = refused(&format!("K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=;{half}"));
            assert_eq!(error.msg(), "CNI_ARGS has K8S_POD_NAME but lacks K8S_POD_NAMESPACE");
        }
    }

    // covers: E-26
    #[test]
    fn a_container_of_podman_is_no_pod() {
        for name in ["web-0", "My_App.1", "-", &"n".repeat(300)] {
            assert_eq!(parse(&format!("IgnoreUnknown=1;K8S_POD_NAME={name}")), Ok(None), "{name}");
        }
    }

    //
    #[test]
    fn bad_values_are_named_and_escaped() {
        let with = |namespace: &str, name: &str| format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        let name253 = format!("{}.{}", "a".repeat(200), "b".repeat(52));
        for good in [with("a", "a.b-c.1"), with(&"n".repeat(63), &name253), with("Test-1", "PodSandbox-2")] {
            assert!(parse(&good).is_ok(), "{good}");
        }
        let namespaces = [&"n".repeat(64), "a.b", "-a", "a-", "a_b", "a/b", "é", "a b", "a\u{1b}"];
        for bad in namespaces {
            let error = refused(&with(bad, "web"));
            assert_eq!(error.msg(), "invalid K8S_POD_NAMESPACE in CNI_ARGS");
            assert_eq!(error.details(), format!("K8S_POD_NAMESPACE is {}, which is not a DNS label", Excerpt::of(bad)));
        }
        for bad in [&format!("{name253}x"), "a..b", ".a", "a.", "-a", "a.-b", "../x", "a\nb"] {
            assert_eq!(refused(&with("shop", bad)).msg(), "invalid K8S_POD_NAME in CNI_ARGS");
        }
        assert_eq!(refused(&with("shop", "web;K8S_POD_UID=a b")).msg(), "invalid K8S_POD_UID in CNI_ARGS");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        // covers: E-23
        #[test]
        fn any_text_gives_a_pod_or_none_or_code_4(text in "(K8S_POD_(NAME|NAMESPACE|UID)|=|;|\\PC|.){0,40}") {
            if let Err(error) = parse(&text) {
                prop_assert_eq!(error.code(), Code::InvalidEnvironment);
            }
        }
    }
}
