//! What a NodeConfig says about what pods may send and receive: its shape on the wire, and the checked value.
//!
//! Must not know how any of it is enforced.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use ipnet::IpNet;
use serde::Deserialize;

use crate::configerror::{ConfigError, FieldRule};
use crate::excerpt::Excerpt;
use crate::notation;
use crate::policy::spec::is_namespace;
use crate::text;

/// Most namespaces of one list.
pub const NAMESPACES_MAX: usize = 64;

/// Most destinations that are not masqueraded.
pub const EXCEPT_MAX: usize = 64;

/// `spec.policy` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpecPolicy {
    /// Whether policies are enforced.
    pub mode: Option<String>,
    /// What holds for a pod that the API server has not told of.
    pub unknown: Option<String>,
    /// Whose pods may ask not to be policed.
    pub audit_namespaces: Option<Vec<String>>,
    /// Whether drops are logged.
    #[serde(deserialize_with = "text::boolean")]
    pub log: Option<bool>,
}

impl SpecPolicy {
    /// The names of its fields, for readers that leave out what they do not know.
    pub const FIELDS: [&str; 4] = ["mode", "unknown", "auditNamespaces", "log"];
}

/// `spec.masquerade` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SpecMasquerade {
    /// For IPv4.
    #[serde(deserialize_with = "text::boolean")]
    pub ipv4: Option<bool>,
    /// For IPv6.
    #[serde(deserialize_with = "text::boolean")]
    pub ipv6: Option<bool>,
    /// Destinations that see the pod's own address.
    pub except: Option<Vec<String>>,
}

impl SpecMasquerade {
    /// The names of its fields.
    pub const FIELDS: [&str; 3] = ["ipv4", "ipv6", "except"];
}

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

/// The fields of `spec` that are about this, as they are written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) source_check: Option<bool>,
    pub(crate) source_any_namespaces: Option<Vec<String>>,
    pub(crate) policy: Option<SpecPolicy>,
    pub(crate) masquerade: Option<SpecMasquerade>,
}

impl Written {
    /// The checked value.
    ///
    /// # Errors
    /// [`ConfigError::Field`].
    pub(crate) fn check(self) -> Result<Policing, ConfigError> {
        let policy = self.policy.unwrap_or_default();
        let masquerade = self.masquerade.unwrap_or_default();
        let except = masquerade.except.unwrap_or_default();
        let mode = match policy.mode.as_deref() {
            // Not `off`, which kubectl reads as false.
            Some("none") => Mode::None,
            Some("audit") => Mode::Audit,
            None | Some("enforce") => Mode::Enforce,
            Some(other) => return Err(one_of("spec.policy.mode", other, &["none", "audit", "enforce"])),
        };
        let unknown_open = match policy.unknown.as_deref() {
            None | Some("closed") => false,
            Some("open") => true,
            Some(other) => return Err(one_of("spec.policy.unknown", other, &["closed", "open"])),
        };
        Ok(Policing {
            source_check: self.source_check.unwrap_or(true),
            source_any: namespaces("spec.sourceAnyNamespaces", self.source_any_namespaces)?,
            mode,
            unknown_open,
            audit: namespaces("spec.policy.auditNamespaces", policy.audit_namespaces)?,
            log: policy.log.unwrap_or_default(),
            masquerade: Masquerade {
                ipv4: masquerade.ipv4.unwrap_or_default(),
                ipv6: masquerade.ipv6.unwrap_or_default(),
                except: destinations("spec.masquerade.except", &except)?,
            },
        })
    }
}

fn one_of(path: &'static str, value: &str, words: &'static [&'static str]) -> ConfigError {
    ConfigError::Field { path, value: Excerpt::of(value), rule: FieldRule::OneOf(words) }
}

fn namespaces(path: &'static str, names: Option<Vec<String>>) -> Result<BTreeSet<String>, ConfigError> {
    let wrong = |value: &str, rule| ConfigError::Field { path, value: Excerpt::of(value), rule };
    let names = names.unwrap_or_default();
    if names.len() > NAMESPACES_MAX {
        return Err(wrong(&names.len().to_string(), FieldRule::AtMost(NAMESPACES_MAX)));
    }
    let mut known = BTreeSet::new();
    for name in names {
        if !is_namespace(&name) {
            return Err(wrong(&name, FieldRule::Namespace));
        }
        if known.contains(&name) {
            return Err(wrong(&name, FieldRule::Twice));
        }
        known.insert(name);
    }
    Ok(known)
}

/// Prefixes of any kind: also ranges that no pod could have.
fn destinations(path: &'static str, texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let wrong = |value: &str, rule| ConfigError::Field { path, value: Excerpt::of(value), rule };
    if texts.len() > EXCEPT_MAX {
        return Err(wrong(&texts.len().to_string(), FieldRule::AtMost(EXCEPT_MAX)));
    }
    let mut nets: Vec<IpNet> = Vec::new();
    for text in texts {
        let net = notation::prefix(text.trim()).map_err(|slip| wrong(text, FieldRule::AnyPrefix(slip)))?;
        if net.trunc() != net {
            return Err(wrong(text, FieldRule::Prefix(crate::addr::AddrError::HostBits(net.trunc().to_string()))));
        }
        if nets.contains(&net) {
            return Err(wrong(text, FieldRule::Twice));
        }
        nets.push(net);
    }
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::*;
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
            ("policy: {mode: On}", "spec.policy.mode: \"On\" must be none or audit or enforce"),
            ("policy: {unknown: ''}", "spec.policy.unknown: \"\" must be closed or open"),
            ("policy: {auditNamespaces: [a_b]}", "spec.policy.auditNamespaces: \"a_b\" is no name of a namespace"),
            ("sourceAnyNamespaces: [A]", "spec.sourceAnyNamespaces: \"A\" is no name of a namespace"),
            ("sourceAnyNamespaces: ['*']", "spec.sourceAnyNamespaces: \"*\" is no name of a namespace"),
            ("sourceAnyNamespaces: ['']", "spec.sourceAnyNamespaces: \"\" is no name of a namespace"),
            (
                "sourceAnyNamespaces: [a-]",
                "spec.sourceAnyNamespaces: \"a-\" is no name of a namespace: 1 to 63 lower-case letters, digits and '-', with a letter \
                 or digit at both ends",
            ),
            (
                "policy: {auditNamespaces: [-a]}",
                "spec.policy.auditNamespaces: \"-a\" is no name of a namespace: 1 to 63",
            ),
            ("sourceAnyNamespaces: [a.b]", "spec.sourceAnyNamespaces: \"a.b\" is no name of a namespace"),
            ("sourceAnyNamespaces: [é]", "spec.sourceAnyNamespaces: \"é\" is no name of a namespace"),
            ("sourceAnyNamespaces: [a, a]", "spec.sourceAnyNamespaces: \"a\" stands there twice"),
            (
                &format!("sourceAnyNamespaces: [{many}]"),
                "spec.sourceAnyNamespaces: \"65\" are too many: at most 64 are allowed",
            ),
            ("masquerade: {except: [10.0.0.1/8]}", "spec.masquerade.except: \"10.0.0.1/8\" has bits set behind"),
            ("masquerade: {except: [10.0.0.1]}", "spec.masquerade.except: \"10.0.0.1\" has no prefix length"),
            (
                "masquerade: {except: [10.0.0.0/8, 10.0.0.0/8]}",
                "spec.masquerade.except: \"10.0.0.0/8\" stands there twice",
            ),
        ] {
            let refusal = spec(fields).expect_err("must be refused").to_string();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
        let letters = |number| format!("sourceAnyNamespaces: [{}]", "a".repeat(number));
        let refusal = spec(&letters(64)).expect_err("too long").to_string();
        assert!(refusal.contains("is no name of a namespace: 1 to 63 lower-case letters"), "{refusal}");
        assert_eq!(spec(&letters(63)).expect("valid").source_any.len(), 1);
        for fields in ["policy: {mod: none}", "masquerade: {ipv5: true}", "sourceCheck: 7", "policy: {mode: false}"] {
            spec(fields).expect_err("must be refused");
        }
    }
}
