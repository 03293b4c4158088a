//! A pod's annotations, and the address that shows its identity.
//!
//! The first line has the node's defaults (`6` and `4` for its families, then its `ip-algo`); each further one is `KEY=VALUE`, where
//! a key that begins with a slash is one of flock's.

use std::collections::BTreeMap;

use model::addr::{parse_prefix4, parse_prefix6};
use model::annotations::{AnnotationError, CIDRS_MAX, Defaults, IP_ALGO, Intent, PREFIX, WARNINGS_MAX, intent};
use model::embed::{Algo, Identity, N_VALUES, address};

use super::assert_one_line;

/// Key, excerpt with every character escaped, and rule.
const TEXT_MAX: usize = 2048;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (families, algo) = first.split_once(' ').map_or((first, None), |(families, algo)| (families, Some(algo)));
    let defaults =
        Defaults { ipv6: families.contains('6'), ipv4: families.contains('4'), ip_algo: algo.map(str::to_owned) };
    let annotations: BTreeMap<String, String> = rest
        .split('\n')
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| match key.strip_prefix('/') {
            Some(ours) => (format!("{PREFIX}{ours}"), value.to_owned()),
            None => (key.to_owned(), value.to_owned()),
        })
        .collect();
    match intent(&annotations, &defaults) {
        Ok((intent, warnings)) => {
            assert!(warnings.len() <= WARNINGS_MAX);
            warnings.iter().for_each(|warning| assert_one_line(&warning.to_string(), TEXT_MAX));
            assert_honoured(&intent, &annotations, &defaults);
            if let Some(algo) = &intent.algo {
                assert_shown(algo, &intent, &annotations);
            }
        }
        Err(error) => {
            assert_one_line(&error.to_string(), TEXT_MAX);
            match &error {
                AnnotationError::Value { key, .. } => {
                    assert!(annotations.contains_key(*key) && error.to_string().contains(key), "which key? {error}");
                }
                AnnotationError::NoFamily { .. } => {}
            }
        }
    }
}

fn assert_honoured(intent: &Intent, annotations: &BTreeMap<String, String>, defaults: &Defaults) {
    assert!(intent.ipv6 || intent.ipv4);
    assert!(intent.cidr6.len() <= CIDRS_MAX && intent.cidr4.len() <= CIDRS_MAX);
    assert!(intent.ipv6 || (intent.cidr6.is_empty() && intent.algo.is_none()));
    assert!(intent.ipv4 || intent.cidr4.is_empty());
    assert!(intent.cidr6.iter().all(|cidr| parse_prefix6(&cidr.to_string()) == Ok(*cidr)));
    assert!(intent.cidr4.iter().all(|cidr| parse_prefix4(&cidr.to_string()) == Ok(*cidr)));
    for (key, has, default) in [("ipv6", intent.ipv6, defaults.ipv6), ("ipv4", intent.ipv4, defaults.ipv4)] {
        assert!(has == default || annotations.contains_key(&format!("{PREFIX}{key}")), "nobody asked for it");
    }
    // Written out in full, it is the same wish, and nobody has to be warned.
    let mut spelled_out = BTreeMap::from([
        (format!("{PREFIX}ipv6"), intent.ipv6.to_string()),
        (format!("{PREFIX}ipv4"), intent.ipv4.to_string()),
    ]);
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(", "));
    for (key, value) in [
        ("cidr6", list(intent.cidr6.iter().map(ToString::to_string).collect())),
        ("cidr4", list(intent.cidr4.iter().map(ToString::to_string).collect())),
        ("ip-algo", intent.algo.as_ref().map(ToString::to_string)),
    ] {
        spelled_out.extend(value.map(|value| (format!("{PREFIX}{key}"), value)));
    }
    let nothing = Defaults { ipv6: false, ipv4: false, ip_algo: None };
    assert_eq!(model::annotations::intent(&spelled_out, &nothing), Ok((intent.clone(), vec![])));
}

/// Any text may be a namespace, a workload or an image here: its address stays in the prefix, and N is its last digit.
fn assert_shown(algo: &Algo, intent: &Intent, annotations: &BTreeMap<String, String>) {
    assert!((1..=3).contains(&algo.fields().len()));
    let value = |key: &str| annotations.get(key).cloned();
    let identity = Identity { namespace: value("namespace"), app: value("app"), image: value("image") };
    for prefix in &intent.cidr6 {
        let at = |n| address(*prefix, algo, &identity, n);
        let Ok(zero) = at(0) else { continue };
        for n in 0..N_VALUES {
            let shown = at(n).expect("the digit makes no difference");
            assert!(prefix.contains(&shown), "{shown} is not in {prefix}");
            assert_eq!(shown.to_bits(), zero.to_bits() | u128::from(n));
        }
    }
    assert!(!annotations.contains_key(IP_ALGO) || algo.to_string().parse().as_ref() == Ok(algo));
}
