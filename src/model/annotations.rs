//! Annotation texts and node defaults to one typed intent: which families a pod wants, from where, which addresses it names, and
//! what its IPv6 address shows.
//!
//! The texts come from whoever may create a pod. So every list is bounded, and what an error or a warning repeats
//! of them is escaped and cut. This file decides nothing about what the node can give (`ipam` does), nor
//! about what its owner lets pods have (`permit`).

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::addr::{AddrError, Family, check_prefix4, check_prefix6, parse_prefix4, parse_prefix6};
use crate::embed::{Algo, AlgoError};
use crate::excerpt::Excerpt;
use crate::notation::{self, Slip};

/// What all annotation keys begin with. Keys without it are somebody else's.
pub const PREFIX: &str = "flock.fritzlab.net/";

/// The key of a pod's or a NodeConfig's `ip-algo` annotation.
pub const IP_ALGO: &str = "flock.fritzlab.net/ip-algo";

/// Most CIDRs in one annotation.
pub const CIDRS_MAX: usize = 64;

/// Most addresses in one annotation.
pub const ADDRESSES_MAX: usize = 16;

/// Most warnings from one set of annotations. The rest would say the same.
pub const WARNINGS_MAX: usize = 16;

const IPV6: &str = "flock.fritzlab.net/ipv6";
const IPV4: &str = "flock.fritzlab.net/ipv4";
const CIDR6: &str = "flock.fritzlab.net/cidr6";
const CIDR4: &str = "flock.fritzlab.net/cidr4";
pub(crate) const ADDRESSES: &str = "flock.fritzlab.net/addresses";
pub(crate) const ANYCAST: &str = "flock.fritzlab.net/anycast";
pub(crate) const SOURCE: &str = "flock.fritzlab.net/source";
pub(crate) const POLICY: &str = "flock.fritzlab.net/policy";

/// What holds for a pod that says nothing. The node's configuration gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Pods get an IPv6 address.
    pub ipv6: bool,
    /// Pods get an IPv4 address.
    pub ipv4: bool,
    /// The node's own `ip-algo` annotation, as written: a wrong one must not make the node's configuration invalid.
    pub ip_algo: Option<String>,
}

/// What a pod is to get. At least one of the families is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Wants an IPv6 address.
    pub ipv6: bool,
    /// Wants an IPv4 address.
    pub ipv4: bool,
    /// Where from, in order of preference; empty: anywhere in the node's range. At most [`CIDRS_MAX`].
    pub cidr6: Vec<Ipv6Net>,
    /// The same for IPv4.
    pub cidr4: Vec<Ipv4Net>,
    /// Addresses that are to be the pod's own; the first of each family takes the place of one of the node's range. Of families
    /// that are on, at most [`ADDRESSES_MAX`], none twice.
    pub addresses: Vec<IpAddr>,
    /// Addresses that the pod shares with others. The same holds, and none of them is among the other ones.
    pub anycast: Vec<IpAddr>,
    /// What the IPv6 host part shows; `None`: it is random.
    pub algo: Option<Algo>,
    /// The pod sends for others, too, so the source of its packets is not to be checked.
    pub any_source: bool,
    /// What its policies forbid is to be counted, and to pass.
    pub audit: bool,
}

/// Who said something: the pod's annotations come before the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The pod's annotations.
    Pod,
    /// The NodeConfig.
    Node,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Pod => "pod",
            Level::Node => "NodeConfig",
        })
    }
}

/// Something that an operator should know and that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A key under [`PREFIX`] that means nothing, probably misspelt.
    UnknownKey(Excerpt),
    /// A key on the NodeConfig that means nothing there; what of the node's `spec` it may stand for.
    NotOfNode(Excerpt, Option<&'static str>),
    /// An `ip-algo` that was passed over: whose, its value, why.
    IpAlgo(Level, Excerpt, AlgoError),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::UnknownKey(key) => write!(
                f,
                "annotation {key} is ignored: the keys under {PREFIX} are ipv6, ipv4, cidr6, cidr4, addresses, anycast, ip-algo, source and policy"
            ),
            Warning::NotOfNode(key, Some(field)) => write!(
                f,
                "annotation {key} of the NodeConfig is ignored: it is for pods, and for the node there is {field}"
            ),
            Warning::NotOfNode(key, None) => {
                write!(f, "annotation {key} of the NodeConfig is ignored: the key here is {IP_ALGO}")
            }
            Warning::IpAlgo(level, value, why) => {
                write!(f, "annotation {IP_ALGO} of the {level} is ignored: {value} {why}")
            }
        }
    }
}

/// Why annotations cannot be honoured. The pod is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnotationError {
    /// A value that breaks its key's rule.
    Value {
        /// The key, with its prefix.
        key: &'static str,
        /// The value, or the item of it that is wrong.
        value: Excerpt,
        /// What is wrong with it.
        rule: Rule,
    },
    /// No family is left. Says who switched off IPv6, and who IPv4.
    NoFamily {
        /// Who switched off IPv6.
        ipv6: Level,
        /// Who switched off IPv4.
        ipv4: Level,
    },
}

/// A rule that a value breaks. The text reads on from the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Neither `true` nor `false`.
    NotABool,
    /// Not the one word that the key can have.
    MustBe(&'static str),
    /// What the node's owner lets only pods of some namespaces say; the field that lists them, and the node's name.
    NotForNamespace(&'static str, String),
    /// A list without items.
    EmptyList,
    /// More items than [`CIDRS_MAX`]: how many.
    TooMany(usize),
    /// An item that is no prefix of this family.
    Prefix(AddrError),
    /// A range of a family that the pod does not get, and who switched it off.
    FamilyOff(Family, Level),
    /// A list without addresses.
    NoAddresses,
    /// More addresses than [`ADDRESSES_MAX`]: how many.
    TooManyAddresses(usize),
    /// An item that is no address; why not.
    NotAnAddress(Slip),
    /// An address that no pod can have.
    Address(AddrError),
    /// An address of a family that the pod does not get, and who switched it off.
    AddressOff(Family, Level),
    /// An address that stands there twice.
    Twice,
    /// An address that is among the pod's own, too.
    OwnAndShared,
    /// A pod's own address in the node's own range, which is asked for in another way.
    OwnInRange {
        /// The range.
        range: IpNet,
        /// The address.
        ip: IpAddr,
    },
    /// A shared address in the node's own range, where each address is one pod's.
    SharedInRange {
        /// The range.
        range: IpNet,
        /// The node's name.
        node: String,
    },
    /// An address that the node's owner has not listed.
    NotListed {
        /// The node's name.
        node: String,
    },
    /// The first or last address of a prefix that the node's owner has listed.
    Edge {
        /// The address.
        ip: IpAddr,
        /// The prefix.
        prefix: IpNet,
        /// The node's name.
        node: String,
    },
}

impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnnotationError::Value { key, value, rule } => write!(f, "annotation {key}: {value} {rule}"),
            AnnotationError::NoFamily { ipv6, ipv4 } => write!(
                f,
                "no address family is left: {IPV6} is false (said the {ipv6}) and {IPV4} is false (said the {ipv4})"
            ),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::NotABool => f.write_str("is neither true nor false"),
            Rule::MustBe(word) => write!(f, "can only be {word}"),
            Rule::NotForNamespace(field, node) => write!(
                f,
                "is not for pods of this namespace: list the namespace in {field} of NodeConfig {node}, or remove the annotation"
            ),
            Rule::EmptyList => f.write_str("is an empty list of CIDRs (remove the annotation to take any)"),
            Rule::TooMany(count) => write!(f, "has {count} CIDRs, and {CIDRS_MAX} are allowed"),
            Rule::Prefix(why) => why.fmt(f),
            Rule::FamilyOff(family, level) => {
                write!(f, "asks for a range of {family}, which the {level} switched off")
            }
            Rule::NoAddresses => f.write_str("is an empty list of addresses (remove the annotation for none)"),
            Rule::TooManyAddresses(count) => write!(f, "has {count} addresses, and {ADDRESSES_MAX} are allowed"),
            Rule::NotAnAddress(Slip::Other) => f.write_str("is not an address such as 2001:db8::5 or 192.0.2.5"),
            Rule::NotAnAddress(slip) => slip.fmt(f),
            Rule::Address(why) => why.fmt(f),
            Rule::AddressOff(family, level) => write!(f, "is an address of {family}, which the {level} switched off"),
            Rule::Twice => f.write_str("stands there twice"),
            Rule::OwnAndShared => {
                write!(f, "is in {ADDRESSES}, too: an address is the pod's own, or shared with other pods")
            }
            Rule::OwnInRange { range, ip } => {
                let key = if ip.is_ipv6() { CIDR6 } else { CIDR4 };
                write!(
                    f,
                    "is in the node's own range {range}, of which a pod names an address by {key}: {}",
                    IpNet::from(*ip)
                )
            }
            Rule::SharedInRange { range, node } => write!(
                f,
                "is in the node's own range {range}, where each address is one pod's: take one of spec.extraPrefixes of \
                 NodeConfig {node}"
            ),
            Rule::NotListed { node } => write!(
                f,
                "is in no prefix that pods of this node may take addresses of: list a prefix that holds it in \
                 spec.extraPrefixes of NodeConfig {node}"
            ),
            Rule::Edge { ip, prefix, node } => write!(
                f,
                "is the first or last address of {prefix}, which routers and hosts take for the network itself: where nobody \
                 does, list {}, too, in spec.extraPrefixes of NodeConfig {node}",
                IpNet::from(*ip)
            ),
        }
    }
}

impl core::error::Error for AnnotationError {}

impl AnnotationError {
    pub(crate) fn of(key: &'static str, ip: IpAddr, rule: Rule) -> AnnotationError {
        AnnotationError::Value { key, value: Excerpt::of(&ip.to_string()), rule }
    }
}

/// Reads a pod's annotations. Precedence: pod, then `defaults`; a wrong `ip-algo` only warns and falls through.
///
/// # Errors
/// [`AnnotationError`]: a wrong value, a range of a family that is off, or no family left.
pub fn intent(
    annotations: &BTreeMap<String, String>,
    defaults: &Defaults,
) -> Result<(Intent, Vec<Warning>), AnnotationError> {
    let mut warnings = Vec::new();
    let get = |key: &str| annotations.get(key).map(String::as_str);

    let (ipv6, ipv6_by) = family(IPV6, get(IPV6), defaults.ipv6)?;
    let (ipv4, ipv4_by) = family(IPV4, get(IPV4), defaults.ipv4)?;
    if !ipv6 && !ipv4 {
        return Err(AnnotationError::NoFamily { ipv6: ipv6_by, ipv4: ipv4_by });
    }
    let off6 = (!ipv6).then_some(Rule::FamilyOff(Family::V6, ipv6_by));
    let off4 = (!ipv4).then_some(Rule::FamilyOff(Family::V4, ipv4_by));
    let cidr6 = ranges(CIDR6, get(CIDR6), off6, parse_prefix6)?;
    let cidr4 = ranges(CIDR4, get(CIDR4), off4, parse_prefix4)?;
    let off = |ip: IpAddr| match ip {
        IpAddr::V6(_) => (!ipv6).then_some(Rule::AddressOff(Family::V6, ipv6_by)),
        IpAddr::V4(_) => (!ipv4).then_some(Rule::AddressOff(Family::V4, ipv4_by)),
    };
    let own = addresses(ADDRESSES, get(ADDRESSES), off)?;
    let anycast = addresses(ANYCAST, get(ANYCAST), off)?;
    if let Some(both) = anycast.iter().find(|ip| own.contains(ip)) {
        return Err(AnnotationError::of(ANYCAST, *both, Rule::OwnAndShared));
    }
    let any_source = word(SOURCE, get(SOURCE), "any")?;
    let audit = word(POLICY, get(POLICY), "audit")?;
    let algo = match ipv6 {
        true => algo(get(IP_ALGO), defaults.ip_algo.as_deref(), &mut warnings),
        false => None,
    };
    warnings.extend(annotations.keys().filter_map(|key| foreign_key(key)));
    warnings.truncate(WARNINGS_MAX);
    Ok((Intent { ipv6, ipv4, cidr6, cidr4, addresses: own, anycast, algo, any_source, audit }, warnings))
}

/// What is wrong with the annotations of a NodeConfig, which is in force all the same. At most [`WARNINGS_MAX`].
pub fn of_the_node(annotations: &BTreeMap<String, String>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    algo(None, annotations.get(IP_ALGO).map(String::as_str), &mut warnings);
    let keys = annotations.keys().filter(|key| *key != IP_ALGO);
    let misplaced = keys.filter_map(|key| {
        let field = match key.strip_prefix(PREFIX) {
            Some("ipv6") => Some("spec.defaults.ipv6"),
            Some("ipv4") => Some("spec.defaults.ipv4"),
            Some("cidr6") => Some("spec.cidr6"),
            Some("cidr4") => Some("spec.cidr4"),
            Some(_) => None,
            // Nobody else has a key of this name, so its prefix is what is misspelt.
            None if key.rsplit('/').next() == Some("ip-algo") => None,
            None => return None,
        };
        Some(Warning::NotOfNode(Excerpt::of(key), field))
    });
    warnings.extend(misplaced.take(WARNINGS_MAX));
    warnings.truncate(WARNINGS_MAX);
    warnings
}

/// Whether `key` has the one value that it can have.
fn word(key: &'static str, value: Option<&str>, word: &'static str) -> Result<bool, AnnotationError> {
    match value.map(str::trim) {
        None => Ok(false),
        Some(text) if text == word => Ok(true),
        Some(text) => Err(AnnotationError::Value { key, value: Excerpt::of(text), rule: Rule::MustBe(word) }),
    }
}

fn family(key: &'static str, value: Option<&str>, default: bool) -> Result<(bool, Level), AnnotationError> {
    match value {
        None => Ok((default, Level::Node)),
        // YAML knows `True` and `TRUE` as booleans, so people write them between quotes, too.
        Some(text) if text.trim().eq_ignore_ascii_case("true") => Ok((true, Level::Pod)),
        Some(text) if text.trim().eq_ignore_ascii_case("false") => Ok((false, Level::Pod)),
        Some(text) => Err(AnnotationError::Value { key, value: Excerpt::of(text), rule: Rule::NotABool }),
    }
}

fn ranges<N>(
    key: &'static str,
    value: Option<&str>,
    off: Option<Rule>,
    parse: fn(&str) -> Result<N, AddrError>,
) -> Result<Vec<N>, AnnotationError> {
    let Some(text) = value else { return Ok(Vec::new()) };
    let wrong = |value: &str, rule| AnnotationError::Value { key, value: Excerpt::of(value), rule };
    if let Some(rule) = off {
        return Err(wrong(text, rule));
    }
    if text.trim().is_empty() {
        return Err(wrong(text, Rule::EmptyList));
    }
    let count = text.split(',').count();
    if count > CIDRS_MAX {
        return Err(wrong(text, Rule::TooMany(count)));
    }
    let one = |item: &str| match item.trim() {
        "" => Err(wrong(text, Rule::Prefix(AddrError::BadCharacter("has nothing between two commas or at an end")))),
        item => parse(item).map_err(|why| wrong(item, Rule::Prefix(why))),
    };
    text.split(',').map(one).collect()
}

fn addresses(
    key: &'static str,
    value: Option<&str>,
    off: impl Fn(IpAddr) -> Option<Rule>,
) -> Result<Vec<IpAddr>, AnnotationError> {
    let Some(text) = value else { return Ok(Vec::new()) };
    let wrong = |value: &str, rule| AnnotationError::Value { key, value: Excerpt::of(value), rule };
    if text.trim().is_empty() {
        return Err(wrong(text, Rule::NoAddresses));
    }
    let count = text.split(',').count();
    if count > ADDRESSES_MAX {
        return Err(wrong(text, Rule::TooManyAddresses(count)));
    }
    let mut found = Vec::new();
    for item in text.split(',').map(str::trim) {
        if item.is_empty() {
            let why = AddrError::BadCharacter("has nothing between two commas or at an end");
            return Err(wrong(text, Rule::Address(why)));
        }
        let ip = notation::address(item).map_err(|slip| wrong(item, Rule::NotAnAddress(slip)))?;
        // The rules of prefixes, which are those of a prefix of one address, too.
        let unicast = match ip {
            IpAddr::V6(ip) => check_prefix6(ip.into()),
            IpAddr::V4(ip) => check_prefix4(ip.into()),
        };
        unicast.map_err(|why| wrong(item, Rule::Address(why)))?;
        if let Some(rule) = off(ip) {
            return Err(wrong(item, rule));
        }
        if found.contains(&ip) {
            return Err(wrong(item, Rule::Twice));
        }
        found.push(ip);
    }
    Ok(found)
}

fn algo(pod: Option<&str>, node: Option<&str>, warnings: &mut Vec<Warning>) -> Option<Algo> {
    for (level, text) in [(Level::Pod, pod), (Level::Node, node)] {
        match text.map(|text| (text, text.parse())) {
            None => {}
            Some((_, Ok(algo))) => return Some(algo),
            Some((text, Err(why))) => warnings.push(Warning::IpAlgo(level, Excerpt::of(text), why)),
        }
    }
    None
}

fn foreign_key(key: &str) -> Option<Warning> {
    match key.strip_prefix(PREFIX)? {
        "ipv6" | "ipv4" | "cidr6" | "cidr4" | "addresses" | "anycast" | "ip-algo" | "source" | "policy" => None,
        _ => Some(Warning::UnknownKey(Excerpt::of(key))),
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::embed::Field;

    const BOTH: Defaults = Defaults { ipv6: true, ipv4: true, ip_algo: None };

    type Outcome = Result<(Intent, Vec<Warning>), AnnotationError>;

    fn read(pairs: &[(&str, &str)], defaults: &Defaults) -> Outcome {
        let own = |(key, value): &(&str, &str)| (format!("{PREFIX}{key}"), value.to_string());
        intent(&pairs.iter().map(own).collect(), defaults)
    }

    fn good(pairs: &[(&str, &str)], defaults: &Defaults) -> Intent {
        let (intent, warnings) = read(pairs, defaults).expect("well-formed annotations");
        assert_eq!(warnings, []);
        intent
    }

    fn refusal(pairs: &[(&str, &str)], defaults: &Defaults) -> String {
        read(pairs, defaults).expect_err("must be refused").to_string()
    }

    fn node_algo(text: &str) -> Defaults {
        Defaults { ip_algo: Some(text.into()), ..BOTH }
    }

    #[test]
    fn a_pod_that_says_nothing_gets_the_defaults() {
        let both = good(&[], &BOTH);
        let expected = Intent {
            ipv6: true,
            ipv4: true,
            cidr6: vec![],
            cidr4: vec![],
            addresses: vec![],
            anycast: vec![],
            algo: None,
            any_source: false,
            audit: false,
        };
        assert_eq!(both, expected);
        assert!(!good(&[], &Defaults { ipv4: false, ..BOTH }).ipv4);
        assert_eq!(good(&[], &node_algo("app")).algo.expect("the node's").fields(), [Field::App]);
    }

    #[test]
    fn the_pod_comes_before_the_node() {
        let six_only = Defaults { ipv4: false, ..BOTH };
        let intent = good(&[("ipv4", " True "), ("ipv6", "false")], &six_only);
        assert!(intent.ipv4 && !intent.ipv6);
        let intent = good(&[("ip-algo", "image")], &node_algo("app"));
        assert_eq!(intent.algo.expect("the pod's").fields(), [Field::Image]);
    }

    #[test]
    fn ranges_keep_their_order_and_may_have_spaces() {
        let intent = good(&[("cidr6", "2001:db8:2::/64, 2001:db8:1::/64"), ("cidr4", "10.0.0.0/8")], &BOTH);
        let text: Vec<_> = intent.cidr6.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["2001:db8:2::/64", "2001:db8:1::/64"]);
        assert_eq!(intent.cidr4.len(), 1);
    }

    #[test]
    fn wrong_values_are_refused_by_key_and_value() {
        for (key, value, says) in [
            ("ipv6", "yes", r#"annotation flock.fritzlab.net/ipv6: "yes" is neither true nor false"#),
            ("ipv4", "", r#"annotation flock.fritzlab.net/ipv4: "" is neither true nor false"#),
            ("cidr6", " ", r#"flock.fritzlab.net/cidr6: " " is an empty list"#),
            ("cidr4", "10.0.0.0/8,", r#"flock.fritzlab.net/cidr4: "10.0.0.0/8," has nothing between"#),
            ("cidr6", "10.0.0.0/8", r#"cidr6: "10.0.0.0/8" is an IPv4 prefix: write cidr4: 10.0.0.0/8"#),
            ("cidr4", "2001:db8::/64", r#"cidr4: "2001:db8::/64" is an IPv6 prefix: write cidr6:"#),
            ("cidr4", "10.0.0.0/8,10.1.2.3/24", r#"cidr4: "10.1.2.3/24" has bits set"#),
            ("cidr4", "10.0.0.1", r#"cidr4: "10.0.0.1" has no prefix length"#),
        ] {
            let text = refusal(&[(key, value)], &BOTH);
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn what_comes_from_a_pod_is_escaped_and_cut_in_texts() {
        let text = refusal(&[("ipv6", "x\n\u{1b}[31m")], &BOTH);
        assert!(!text.contains(['\n', '\u{1b}']), "{text}");
        let text = refusal(&[("cidr6", &"é".repeat(100_000))], &BOTH);
        assert!(text.len() < 400, "{}", text.len());
        let many = vec!["10.0.0.0/8"; CIDRS_MAX];
        assert_eq!(good(&[("cidr4", &many.join(","))], &BOTH).cidr4.len(), CIDRS_MAX);
        assert!(refusal(&[("cidr4", &(many.join(",") + ",10.0.0.0/8"))], &BOTH).contains("has 65 CIDRs"));
    }

    #[test]
    fn at_least_one_family_must_be_left() {
        let text = refusal(&[("ipv6", "false")], &Defaults { ipv4: false, ..BOTH });
        assert!(text.contains("ipv6 is false (said the pod)") && text.contains("(said the NodeConfig)"), "{text}");
    }

    #[test]
    fn a_range_of_a_family_that_is_off_is_refused() {
        let text = refusal(&[("ipv6", "false"), ("cidr6", "2001:db8::/64")], &BOTH);
        assert!(text.contains("asks for a range of IPv6, which the pod switched off"), "{text}");
        let text = refusal(&[("cidr4", "10.0.0.0/8")], &Defaults { ipv4: false, ..BOTH });
        assert!(text.contains("asks for a range of IPv4, which the NodeConfig switched off"), "{text}");
    }

    #[test]
    fn a_wrong_ip_algo_warns_and_falls_through() {
        let (intent, warnings) = read(&[("ip-algo", "pod")], &node_algo(" app ")).expect("only a warning");
        assert_eq!(intent.algo.expect("the node's").fields(), [Field::App]);
        assert_eq!(warnings.len(), 1);
        let (intent, warnings) = read(&[("ip-algo", "")], &node_algo("app,app")).expect("only warnings");
        assert_eq!(intent.algo, None);
        let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert!(texts[0].contains(r#"ip-algo of the pod is ignored: "" has an empty field"#), "{texts:?}");
        assert!(texts[1].contains(r#"ip-algo of the NodeConfig is ignored: "app,app" has the field app"#), "{texts:?}");
        // Without IPv6 there is nothing to show, so there is nothing to warn of.
        assert_eq!(good(&[("ip-algo", "pod"), ("ipv6", "false")], &BOTH).algo, None);
    }

    #[test]
    fn unknown_keys_warn_and_keys_of_others_do_not() {
        let (intent, warnings) = read(&[("cidr-6", "x")], &BOTH).expect("goes on");
        assert_eq!(intent, good(&[], &BOTH));
        let texts: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert!(matches!(texts.as_slice(), [text] if text.contains("fritzlab.net/cidr-6\" is ignored")), "{texts:?}");
        let foreign = BTreeMap::from([("ipv6".into(), "no".into()), ("example.com/cidr6".into(), "x".into())]);
        assert_eq!(intent_of(&foreign), (good(&[], &BOTH), vec![]));
        let many = (0..100).map(|n| (format!("{PREFIX}key{n}"), String::new())).collect();
        assert_eq!(intent_of(&many).1.len(), WARNINGS_MAX);
    }

    #[test]
    fn addresses_of_both_families_may_be_mixed_and_keep_their_order() {
        let intent =
            good(&[("addresses", "203.0.113.5, 2001:db8:f::10 ,203.0.113.6"), ("anycast", "2001:DB8:F::53")], &BOTH);
        let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&intent.addresses), ["203.0.113.5", "2001:db8:f::10", "203.0.113.6"]);
        assert_eq!(text(&intent.anycast), ["2001:db8:f::53"]);
    }

    #[test]
    fn an_address_that_no_pod_can_have_is_refused_by_key_and_value() {
        let many: Vec<String> = (1..=ADDRESSES_MAX).map(|n| format!("203.0.113.{n}")).collect();
        let (most, too_many) = (many.join(","), many.join(",") + ",203.0.113.99");
        for key in ["addresses", "anycast"] {
            assert!(read(&[(key, &most)], &BOTH).is_ok());
            for (value, says) in [
                ("", r#""" is an empty list of addresses"#),
                ("203.0.113.5,", r#""203.0.113.5," has nothing between"#),
                ("203.0.113.5/32", r#""203.0.113.5/32" has a prefix length, and one address is meant"#),
                ("router", r#""router" is not an address"#),
                ("203.0.113.5,203.0.113.5", r#""203.0.113.5" stands there twice"#),
                ("127.0.0.1", r#""127.0.0.1" overlaps the loopback range"#),
                ("::1", r#""::1" overlaps the reserved range ::/8"#),
                ("::", r#""::" overlaps the reserved range ::/8"#),
                ("0.0.0.0", r#""0.0.0.0" overlaps the reserved range"#),
                ("::ffff:203.0.113.5", "is IPv4 written as IPv6: write 203.0.113.5"),
                ("ff02::1", "overlaps the multicast range"),
                ("224.0.0.1", "overlaps the multicast range"),
                ("fe80::1", "overlaps the link-local range"),
                ("169.254.1.1", "overlaps the link-local range"),
                ("255.255.255.255", "overlaps the reserved range"),
                (&too_many, "has 17 addresses, and 16 are allowed"),
            ] {
                let text = refusal(&[(key, value)], &BOTH);
                assert!(text.starts_with(&format!("annotation flock.fritzlab.net/{key}: ")), "{text}");
                assert!(text.contains(says), "{text}");
                assert!(text.len() < 400, "{}", text.len());
            }
        }
    }

    #[test]
    fn an_address_of_a_family_that_is_off_is_refused() {
        let six_only = Defaults { ipv4: false, ..BOTH };
        for key in ["addresses", "anycast"] {
            let text = refusal(&[("ipv6", "false"), (key, "203.0.113.5,2001:db8:f::1")], &BOTH);
            assert!(text.contains("\"2001:db8:f::1\" is an address of IPv6, which the pod switched off"), "{text}");
            let text = refusal(&[(key, "203.0.113.5")], &six_only);
            assert!(
                text.contains("\"203.0.113.5\" is an address of IPv4, which the NodeConfig switched off"),
                "{text}"
            );
            assert!(read(&[("ipv4", "true"), (key, "203.0.113.5")], &six_only).is_ok());
        }
    }

    #[test]
    fn an_address_is_the_pods_own_or_shared_and_not_both() {
        let text = refusal(&[("addresses", "203.0.113.5"), ("anycast", "203.0.113.6,203.0.113.5")], &BOTH);
        assert!(text.contains("anycast: \"203.0.113.5\" is in flock.fritzlab.net/addresses, too"), "{text}");
    }

    fn intent_of(annotations: &BTreeMap<String, String>) -> (Intent, Vec<Warning>) {
        intent(annotations, &BOTH).expect("only warnings")
    }
}
