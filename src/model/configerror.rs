//! Why a text is not a NodeConfig, in words that name the field, its value and the rule that it breaks.
//!
//! Must not read or check anything.

use alloc::string::String;
use core::fmt;

use crate::addr::{AddrError, Family};
use crate::bgp::BgpError;
use crate::excerpt::Excerpt;
use crate::notation::Slip;
use crate::policy::spec::NAMESPACE_RULE;
use crate::text::TextError;

/// Longest manifest text, in bytes: more than the API server would store.
pub const TEXT_MAX: usize = 2 << 20;

/// Why a text or a manifest is not a NodeConfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// Longer than [`TEXT_MAX`]: its length in bytes.
    TooLong(usize),
    /// In no encoding that is understood: after so many bytes.
    Encoding(usize),
    /// No document with content in the text.
    Empty,
    /// More than one document with content in the text.
    ManyDocuments,
    /// The reader refused it, for its syntax, for a type, or for a field that does not exist.
    Unreadable {
        /// The line, from 1, if the reader knows.
        line: Option<usize>,
        /// The reader's text, which names line, column and field.
        message: String,
    },
    /// A field whose value breaks a rule.
    Field {
        /// Where, such as `spec.cidr6`.
        path: &'static str,
        /// The value.
        value: Excerpt,
        /// What is wrong with it.
        rule: FieldRule,
    },
    /// Neither `spec.cidr6` nor `spec.cidr4`.
    NoRange,
    /// A default that is true for a family that has no range.
    DefaultWithoutRange(Family),
    /// A field of `spec.bgp` whose value breaks a rule.
    Bgp(BgpError),
}

/// A rule that a field's value breaks. The text reads on from the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldRule {
    /// Only this value is possible.
    MustBe(&'static str),
    /// Something must be there.
    Required,
    /// Not a prefix that fits.
    Prefix(AddrError),
    /// Outside these bounds.
    Between(u32, u32),
    /// Not an address that each host end could bear.
    Gateway,
    /// None of these words.
    OneOf(&'static [&'static str]),
    /// More items than this.
    AtMost(usize),
    /// An item that was there before.
    Twice,
    /// Not the name of a link that leads out of this host.
    Link(&'static str),
    /// Not the name of a Kubernetes namespace.
    Namespace,
    /// Not a prefix of either family; why not.
    AnyPrefix(Slip),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::TooLong(len) => write!(f, "the manifest has {len} bytes, and {TEXT_MAX} are allowed"),
            ConfigError::Encoding(at) => TextError::Encoding(*at).fmt(f),
            ConfigError::Empty => f.write_str("the manifest is empty"),
            ConfigError::ManyDocuments => {
                f.write_str("the manifest has more than one YAML document: one file describes one node")
            }
            ConfigError::Unreadable { message, .. } => f.write_str(message),
            ConfigError::Field { path, value, rule } => write!(f, "{path}: {value} {rule}"),
            ConfigError::NoRange => f.write_str("spec has neither cidr6 nor cidr4, and at least one is needed"),
            ConfigError::DefaultWithoutRange(Family::V6) => {
                f.write_str("spec.defaults.ipv6 is true but spec.cidr6 is absent")
            }
            ConfigError::DefaultWithoutRange(Family::V4) => {
                f.write_str("spec.defaults.ipv4 is true but spec.cidr4 is absent")
            }
            ConfigError::Bgp(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for FieldRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FieldRule::MustBe(value) => write!(f, "must be {value}"),
            FieldRule::Required => f.write_str("is required"),
            FieldRule::Prefix(why) => why.fmt(f),
            FieldRule::Gateway => f.write_str(
                "must be a link-local IPv4 address, from 169.254.1.0 to 169.254.254.255, and not 169.254.169.254, where clouds have \
                 their metadata",
            ),
            FieldRule::OneOf(words) => write!(f, "must be {}", words.join(" or ")),
            FieldRule::AtMost(most) => write!(f, "are too many: at most {most} are allowed"),
            FieldRule::Twice => f.write_str("stands there twice: remove one of the two"),
            FieldRule::Link(rule) => f.write_str(rule),
            FieldRule::Namespace => f.write_str(NAMESPACE_RULE),
            FieldRule::AnyPrefix(Slip::Other) => f.write_str("is not a prefix such as 10.0.0.0/8 or 2001:db8::/32"),
            FieldRule::AnyPrefix(slip) => slip.fmt(f),
            FieldRule::Between(min, max) => write!(f, "must be between {min} and {max}"),
        }
    }
}

impl core::error::Error for ConfigError {}
