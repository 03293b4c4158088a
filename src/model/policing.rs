//! What a NodeConfig says about what pods may send and receive: the checked value, and how it is read.
//!
//! Must not know how any of it is enforced.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::addr::parse_prefix;
use crate::fields::Fields;
use crate::policy::spec::{NAMESPACE_RULE, is_namespace};
use ipnet::IpNet;

/// Most namespaces of one list.
pub const NAMESPACES_MAX: usize = 64;

/// Most destinations that are not masqueraded.
pub const EXCEPT_MAX: usize = 64;

/// What the owner of a node lets its pods send and receive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policing {
    /// A pod sends with addresses of its own, or not at all.
    pub source_check: bool,
    /// The namespaces whose pods may be left out of that, by their annotation `source: any`. At most [`NAMESPACES_MAX`].
    pub source_any: BTreeSet<String>,
    /// What becomes of NetworkPolicies.
    pub mode: Mode,
    /// A pod of which the API server has not told yet may send and receive everything. Otherwise nothing.
    pub unknown_open: bool,
    /// The namespaces whose pods may have their policies audited, by their annotation `policy: audit`. At most
    /// [`NAMESPACES_MAX`].
    pub audit: BTreeSet<String>,
    /// Packets that are dropped, or would be, have lines in the kernel's log, a few per second and pod.
    pub log: bool,
    /// Whether pods hide behind the node's address.
    pub masquerade: Masquerade,
}

impl Default for Policing {
    /// What holds for a NodeConfig that says nothing.
    fn default() -> Policing {
        Policing {
            source_check: true,
            source_any: BTreeSet::new(),
            mode: Mode::Enforce,
            unknown_open: false,
            audit: BTreeSet::new(),
            log: false,
            masquerade: Masquerade::default(),
        }
    }
}

/// What becomes of NetworkPolicies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// They are not looked at.
    None,
    /// What they forbid is counted, and passes.
    Audit,
    /// They are enforced.
    Enforce,
}

/// Whether what pods send to the outside bears the node's address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Masquerade {
    /// For IPv4.
    pub ipv4: bool,
    /// For IPv6.
    pub ipv6: bool,
    /// Destinations that see the pod's own address, beside the ranges of nodes. At most [`EXCEPT_MAX`].
    pub except: Vec<IpNet>,
}

/// Reads the fields of `spec` that are about this.
pub(crate) fn read(spec: &mut Fields<'_>) -> Policing {
    let source_check = boolean(spec, "sourceCheck");
    let source_any = namespaces(spec, "sourceAnyNamespaces");
    // Not `off`, which kubectl reads as false.
    let modes = [("none", Mode::None), ("audit", Mode::Audit), ("enforce", Mode::Enforce)];
    let policing = spec.object("policy", |policy| Policing {
        mode: policy.get("mode").and_then(|mode| mode.word(&modes)).unwrap_or(Mode::Enforce),
        unknown_open: policy
            .get("unknown")
            .and_then(|word| word.word(&[("closed", false), ("open", true)]))
            .unwrap_or(false),
        audit: namespaces(policy, "auditNamespaces"),
        log: boolean(policy, "log").unwrap_or(false),
        ..Policing::default()
    });
    let masquerade = spec.object("masquerade", |masquerade| Masquerade {
        ipv4: boolean(masquerade, "ipv4").unwrap_or(false),
        ipv6: boolean(masquerade, "ipv6").unwrap_or(false),
        // Also ranges that no pod could have.
        except: masquerade.get("except").map(|except| except.set(EXCEPT_MAX, parse_prefix)).unwrap_or_default(),
    });
    Policing {
        source_check: source_check.unwrap_or(true),
        source_any,
        masquerade: masquerade.unwrap_or_default(),
        ..policing.unwrap_or_default()
    }
}

fn boolean(fields: &mut Fields<'_>, name: &'static str) -> Option<bool> {
    fields.get(name)?.boolean()
}

fn namespaces(fields: &mut Fields<'_>, name: &'static str) -> BTreeSet<String> {
    let namespace = |text: &str| if is_namespace(text) { Ok(text.to_string()) } else { Err(NAMESPACE_RULE) };
    let names = fields.get(name).map(|list| list.set(NAMESPACES_MAX, namespace));
    names.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;
    use crate::configerror::ConfigError;
    use crate::nodeconfig;

    fn spec(fields: &str) -> Result<Policing, ConfigError> {
        let head = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: host001}\n";
        nodeconfig::parse(format!("{head}spec: {{cidr4: 10.0.0.0/24, {fields}}}\n")).map(|config| config.policing)
    }

    #[test]
    fn a_node_that_says_nothing_checks_sources_enforces_policies_and_hides_nobody() {
        let plain = spec("").expect("valid");
        assert_eq!(plain, Policing::default());
        assert!(plain.source_check && plain.mode == Mode::Enforce && !plain.unknown_open && !plain.log);
        assert_eq!(plain.masquerade, Masquerade { ipv4: false, ipv6: false, except: Vec::new() });
        assert_eq!(spec("policy: {}, masquerade: {}").expect("valid"), plain);
    }

    #[test]
    fn an_owner_says_what_his_pods_may_send_and_receive() {
        let all = spec(
            "sourceCheck: false, sourceAnyNamespaces: [vpn, a-1], policy: {mode: audit, unknown: open, auditNamespaces: [dev], log: true}, \
             masquerade: {ipv4: yes, ipv6: true, except: [10.0.0.0/8, '::/0', 224.0.0.0/4]}",
        )
        .expect("valid");
        assert!(!all.source_check && all.mode == Mode::Audit && all.unknown_open && all.log);
        assert!(all.source_any.iter().eq(["a-1", "vpn"]) && all.audit.iter().eq(["dev"]));
        assert!(all.masquerade.ipv4 && all.masquerade.ipv6);
        let except: Vec<String> = all.masquerade.except.iter().map(ToString::to_string).collect();
        assert_eq!(except, ["10.0.0.0/8", "::/0", "224.0.0.0/4"]);
        assert_eq!(spec("policy: {mode: none}").expect("valid").mode, Mode::None);
        assert_eq!(spec("policy: {mode: enforce, unknown: closed}").expect("valid"), Policing::default());
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_field_and_value() {
        let many = (0..65).map(|n| format!("n{n}")).collect::<Vec<_>>().join(",");
        for (fields, expected) in [
            ("policy: {mode: On}", "spec.policy.mode: \"On\" must be none, audit or enforce"),
            ("policy: {unknown: ''}", "spec.policy.unknown: \"\" must be closed or open"),
            ("policy: {auditNamespaces: [a_b]}", "spec.policy.auditNamespaces[0]: \"a_b\" is no name of a namespace"),
            ("sourceAnyNamespaces: [A]", "spec.sourceAnyNamespaces[0]: \"A\" is no name of a namespace"),
            ("sourceAnyNamespaces: ['*']", "spec.sourceAnyNamespaces[0]: \"*\" is no name of a namespace"),
            ("sourceAnyNamespaces: ['']", "spec.sourceAnyNamespaces[0]: \"\" is no name of a namespace"),
            (
                "sourceAnyNamespaces: [a-]",
                "spec.sourceAnyNamespaces[0]: \"a-\" is no name of a namespace: 1 to 63 lower-case letters, digits and '-', with a letter \
                 or digit at both ends",
            ),
            (
                "policy: {auditNamespaces: [-a]}",
                "spec.policy.auditNamespaces[0]: \"-a\" is no name of a namespace: 1 to 63",
            ),
            ("sourceAnyNamespaces: [a.b]", "spec.sourceAnyNamespaces[0]: \"a.b\" is no name of a namespace"),
            ("sourceAnyNamespaces: [é]", "spec.sourceAnyNamespaces[0]: \"é\" is no name of a namespace"),
            ("sourceAnyNamespaces: [a, a]", "spec.sourceAnyNamespaces[1]: \"a\" stands there twice"),
            (
                &format!("sourceAnyNamespaces: [{many}]"),
                "spec.sourceAnyNamespaces has 65 entries, and at most 64 are allowed",
            ),
            ("masquerade: {except: [10.0.0.1/8]}", "spec.masquerade.except[0]: \"10.0.0.1/8\" has bits set behind"),
            ("masquerade: {except: [10.0.0.1]}", "spec.masquerade.except[0]: \"10.0.0.1\" has no prefix length"),
            (
                "masquerade: {except: [10.0.0.0/8, 10.0.0.0/8]}",
                "spec.masquerade.except[1]: \"10.0.0.0/8\" stands there twice",
            ),
        ] {
            let refusal = spec(fields).expect_err("must be refused").to_string();
            assert!(refusal.starts_with(&format!("line 4: {expected}")), "{refusal}");
        }
        let letters = |number| format!("sourceAnyNamespaces: [{}]", "a".repeat(number));
        let refusal = spec(&letters(64)).expect_err("too long").to_string();
        assert!(refusal.contains("is no name of a namespace: 1 to 63 lower-case letters"), "{refusal}");
        assert_eq!(spec(&letters(63)).expect("valid").source_any.len(), 1);
        for fields in [
            "policy: {mod: none}",
            "policy: 7",
            "masquerade: []",
            "masquerade: {ipv5: true}",
            "sourceCheck: 7",
            "policy: {mode: false}",
        ] {
            spec(fields).expect_err("must be refused");
        }
    }
}
