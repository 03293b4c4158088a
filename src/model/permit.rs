//! What pods of a node may name as addresses of theirs: what the node's owner has listed in its NodeConfig, and nothing else.
//!
//! Without this, whoever may create a pod could have it take over any address that routers accept: the cluster's DNS, the API
//! server, another tenant. Must not know who has which address.

use core::net::IpAddr;

use ipnet::IpNet;

use crate::addr::is_edge;
use crate::annotations::{ADDRESSES, ANYCAST, AnnotationError, Intent, POLICY, Rule, SOURCE};
use crate::excerpt::Excerpt;
use crate::nodeconfig::NodeConfig;

/// Whether the owner of the node `config` lets a pod of `namespace` have the addresses that it names, which are to be in one of
/// `spec.extraPrefixes` and not in the node's own ranges, and be treated as it says.
///
/// # Errors
/// [`AnnotationError::Value`], with the first thing that it may not have and what to do about that.
pub fn permit(intent: &Intent, namespace: Option<&str>, config: &NodeConfig) -> Result<(), AnnotationError> {
    let (any, audit) = (&config.policing.source_any, &config.policing.audit);
    for (asked, listed, key, value, field) in [
        (intent.any_source, any, SOURCE, "any", "spec.sourceAnyNamespaces"),
        (intent.audit, audit, POLICY, "audit", "spec.policy.auditNamespaces"),
    ] {
        if asked && !namespace.is_some_and(|namespace| listed.contains(namespace)) {
            let rule = Rule::NotForNamespace(field, config.name.clone());
            return Err(AnnotationError::Value { key, value: Excerpt::of(value), rule });
        }
    }
    let own = intent.addresses.iter().map(|ip| (ADDRESSES, *ip));
    let shared = intent.anycast.iter().map(|ip| (ANYCAST, *ip));
    for (key, ip) in own.chain(shared) {
        let node = || config.name.clone();
        let range = config.prefixes().into_iter().find(|range| range.contains(&ip));
        let rule = match range {
            Some(range) if key == ANYCAST => Some(Rule::SharedInRange { range, node: node() }),
            Some(range) => Some(Rule::OwnInRange { range, ip }),
            None => listed(ip, &config.extra_prefixes).err().map(|edge| match edge {
                Some(prefix) => Rule::Edge { ip, prefix, node: node() },
                None => Rule::NotListed { node: node() },
            }),
        };
        if let Some(rule) = rule {
            return Err(AnnotationError::of(key, ip, rule));
        }
    }
    Ok(())
}

/// Whether one of `prefixes` holds `ip`, other than at its edge.
///
/// # Errors
/// The prefix that it is at the edge of; none if no prefix holds it.
fn listed(ip: IpAddr, prefixes: &[IpNet]) -> Result<(), Option<IpNet>> {
    let mut edge = None;
    for prefix in prefixes.iter().filter(|prefix| prefix.contains(&ip)) {
        if !is_edge(prefix, ip) {
            return Ok(());
        }
        edge = Some(*prefix);
    }
    Err(edge)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::string::{String, ToString};

    use super::*;
    use crate::annotations::{PREFIX, intent};
    use crate::nodeconfig;

    const SPEC: &str = "{cidr6: '2001:db8:1::/64', cidr4: 10.25.1.0/24, \
                        extraPrefixes: ['2001:db8:f::/48', 203.0.113.0/28, 203.0.113.0/32, 198.51.100.4/31, '2001:db8::/32', 10.0.0.0/8]}";

    fn judged(spec: &str, key: &str, value: &str) -> Result<(), String> {
        let text = format!(
            "{{apiVersion: flock.fritzlab.net/v1alpha1, kind: NodeConfig, metadata: {{name: host001}}, spec: {spec}}}"
        );
        let config = nodeconfig::parse(&text).expect("a NodeConfig");
        let annotations = BTreeMap::from([(format!("{PREFIX}{key}"), value.to_string())]);
        let (intent, _) = intent(&annotations, &config.defaults).expect("well-formed");
        permit(&intent, Some("vpn"), &config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_is_treated_as_it_says_where_the_owner_lists_its_namespace() {
        for (spec, key, value, why) in [
            ("{cidr4: 10.0.0.0/24, sourceAnyNamespaces: [vpn]}", "source", "any", None),
            ("{cidr4: 10.0.0.0/24, policy: {auditNamespaces: [vpn]}}", "policy", " audit ", None),
            (
                "{cidr4: 10.0.0.0/24, sourceAnyNamespaces: [web]}",
                "source",
                "any",
                Some("list the namespace in spec.sourceAnyNamespaces of NodeConfig host001"),
            ),
            (
                "{cidr4: 10.0.0.0/24, sourceAnyNamespaces: [vpn]}",
                "policy",
                "audit",
                Some("list the namespace in spec.policy.auditNamespaces of NodeConfig host001"),
            ),
        ] {
            match (judged(spec, key, value), why) {
                (Ok(()), None) => {}
                (Err(said), Some(why)) => assert!(said.contains(why), "{said}"),
                (judged, _) => panic!("{key}={value} with {spec}: {judged:?}"),
            }
        }
        let text = "{apiVersion: flock.fritzlab.net/v1alpha1, kind: NodeConfig, metadata: {name: n}, spec: {cidr4: 10.0.0.0/24, sourceAnyNamespaces: [vpn]}}";
        let config = nodeconfig::parse(text).expect("a NodeConfig");
        let annotations = BTreeMap::from([(format!("{PREFIX}source"), "any".to_string())]);
        let (asks, _) = intent(&annotations, &config.defaults).expect("well-formed");
        permit(&asks, None, &config).expect_err("nobody knows whose it is");
    }

    #[test]
    fn a_pod_may_name_what_the_owner_of_the_node_has_listed() {
        for value in [
            "2001:db8:f::10,203.0.113.5",
            // Listed by itself, or of a point-to-point link.
            "203.0.113.0, 198.51.100.4, 198.51.100.5",
            // The last address of an IPv6 network is one like any other.
            "2001:db8:f:ffff:ffff:ffff:ffff:ffff",
        ] {
            for key in ["addresses", "anycast"] {
                assert_eq!(judged(SPEC, key, value), Ok(()), "{key}: {value}");
            }
        }
    }

    #[test]
    fn what_is_not_listed_is_refused_with_the_field_that_would_allow_it() {
        let cases = [
            (
                "addresses",
                "203.0.113.5, 192.0.2.1",
                "annotation flock.fritzlab.net/addresses: \"192.0.2.1\" is in no prefix that pods of this node may take addresses of: \
                 list a prefix that holds it in spec.extraPrefixes of NodeConfig host001",
            ),
            ("anycast", "2001:db9::1", "annotation flock.fritzlab.net/anycast: \"2001:db9::1\" is in no prefix"),
            (
                "addresses",
                "10.25.1.7",
                "is in the node's own range 10.25.1.0/24, of which a pod names an address by flock.fritzlab.net/cidr4: 10.25.1.7/32",
            ),
            (
                "addresses",
                "2001:db8:1::7",
                "of which a pod names an address by flock.fritzlab.net/cidr6: 2001:db8:1::7/128",
            ),
            (
                "anycast",
                "10.25.1.7",
                "is in the node's own range 10.25.1.0/24, where each address is one pod's: take one of spec.extra",
            ),
            ("addresses", "203.0.113.15", "is the first or last address of 203.0.113.0/28, "),
            (
                "addresses",
                "203.0.113.15",
                "where nobody does, list 203.0.113.15/32, too, in spec.extraPrefixes of NodeConfig host001",
            ),
            ("anycast", "2001:db8:f::", "is the first or last address of 2001:db8:f::/48"),
        ];
        // Wider prefixes that hold the same address are no way around its own.
        let narrow = SPEC.replace(", '2001:db8::/32', 10.0.0.0/8", "");
        for (key, value, says) in cases {
            let text = judged(&narrow, key, value).expect_err(value);
            assert!(text.contains(says), "{text}");
        }
        for (key, value) in [("addresses", "10.25.1.7"), ("anycast", "2001:db8:1::7")] {
            assert!(judged(SPEC, key, value).expect_err(value).contains("is in the node's own range"), "{value}");
        }
        let text = judged("{cidr4: 10.25.1.0/24}", "anycast", "203.0.113.5").expect_err("nothing is listed");
        assert!(text.contains("is in no prefix that pods"), "{text}");
    }
}
