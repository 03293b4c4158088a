//! Identity to host bits of an IPv6 address (`ip-algo`), so that a person can read an address.
//!
//! It is cosmetics: nothing may depend on it, and no reason to fail may come from it. Every error here means "use a
//! random host part". Two agents of different age must give the same digits for the same identity, so the vectors
//! in the tests are a promise. This file must not know which addresses are taken.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use ipnet::Ipv6Net;

use crate::addr::fnv1a64;
use crate::excerpt::Excerpt;

/// Shortest prefix that identity is embedded under. More host digits than this are not readable.
pub const PREFIX_MIN: u8 = 48;

/// Longest prefix that identity is embedded under. Fewer host digits than this tell nothing.
pub const PREFIX_MAX: u8 = 96;

/// How many values the last digit N has, so how many pods may share one identity under one prefix.
pub const N_VALUES: u8 = 16;

/// One thing that is known about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// The namespace's name.
    Namespace,
    /// What [`app_name`] gives.
    App,
    /// The first container's image, as the pod's specification writes it.
    Image,
}

impl Field {
    /// The field's name in an annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Field::Namespace => "namespace",
            Field::App => "app",
            Field::Image => "image",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Field {
    type Err = AlgoError;

    fn from_str(text: &str) -> Result<Self, AlgoError> {
        match text {
            "" => Err(AlgoError::Empty),
            "namespace" => Ok(Field::Namespace),
            "app" => Ok(Field::App),
            "image" => Ok(Field::Image),
            // The text may come from a pod: what is kept of it is bounded here, at the door.
            other => Err(AlgoError::Unknown(Excerpt::of(other))),
        }
    }
}

/// Which fields an address shows, high to low: one to three, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Algo(Vec<Field>);

impl Algo {
    /// The fields in the order asked for. Never empty.
    pub fn fields(&self) -> &[Field] {
        &self.0
    }
}

impl FromStr for Algo {
    type Err = AlgoError;

    /// A comma list of field names. White space around an item is allowed.
    fn from_str(text: &str) -> Result<Self, AlgoError> {
        let mut fields = Vec::new();
        for item in text.split(',') {
            let field: Field = item.trim().parse()?;
            if fields.contains(&field) {
                return Err(AlgoError::Duplicate(field));
            }
            fields.push(field);
        }
        Ok(Algo(fields))
    }
}

impl fmt::Display for Algo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, field) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            field.fmt(f)?;
        }
        Ok(())
    }
}

/// Why a text is not an [`Algo`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlgoError {
    /// Nothing at all, or nothing between two commas.
    Empty,
    /// Not a field's name: the item, cut to 64 characters.
    Unknown(Excerpt),
    /// A field that is there twice.
    Duplicate(Field),
}

impl fmt::Display for AlgoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AlgoError::Empty => f.write_str("has an empty field name (known are namespace, app, image)"),
            AlgoError::Unknown(item) => write!(f, "has the unknown field {item} (known are namespace, app, image)"),
            AlgoError::Duplicate(field) => write!(f, "has the field {field} twice"),
        }
    }
}

impl core::error::Error for AlgoError {}

/// What is known about one pod. An empty text counts as unknown: no Kubernetes name is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The namespace's name.
    pub namespace: Option<String>,
    /// What [`app_name`] gives.
    pub app: Option<String>,
    /// The image reference, or its sha256 digest.
    pub image: Option<String>,
}

impl Identity {
    fn get(&self, field: Field) -> Option<&str> {
        let value = match field {
            Field::Namespace => &self.namespace,
            Field::App => &self.app,
            Field::Image => &self.image,
        };
        value.as_deref().filter(|text| !text.is_empty())
    }
}

/// Why an identity cannot be shown. The pod gets a random host part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmbedError {
    /// The prefix is shorter than [`PREFIX_MIN`] or longer than [`PREFIX_MAX`]: its length.
    PrefixLength(u8),
    /// A field that was asked for is not known of this pod.
    UnknownValue(Field),
}

impl fmt::Display for EmbedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmbedError::PrefixLength(len) => {
                write!(f, "identity is embedded under prefixes /{PREFIX_MIN} to /{PREFIX_MAX}, not /{len}")
            }
            EmbedError::UnknownValue(field) => write!(f, "the pod's {field} is not known"),
        }
    }
}

impl core::error::Error for EmbedError {}

/// Fewest digits that agree before an address counts as showing an identity: of random ones, one in 2^16 would.
const AGREEING_MIN: u8 = 4;

/// What an address shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The digits of each field, with the field and the value that they stand for where they agree with what is known: digits
    /// alone do not tell which field they are of.
    pub fields: Vec<(String, Option<(Field, String)>)>,
    /// The last digit: which of [`N_VALUES`] it is, from 0.
    pub n: u8,
}

/// What the host bits of `ip` show of `id` under `prefix`: of all ways to show an identity, the one of which most digits agree with
/// what is known. None if none does, as for an address that was chosen at random.
pub fn shown(prefix: Ipv6Net, ip: Ipv6Addr, id: &Identity) -> Option<Shown> {
    let ways = ways().into_iter().filter_map(|algo| agreeing(prefix, ip, &algo, id));
    let (agreed, shown) = ways.max_by_key(|(agreed, shown)| (*agreed, core::cmp::Reverse(shown.fields.len())))?;
    (agreed >= AGREEING_MIN).then_some(shown)
}

/// Every [`Algo`].
fn ways() -> Vec<Algo> {
    let all = [Field::Namespace, Field::App, Field::Image];
    let mut ways: Vec<Vec<Field>> = all.iter().map(|field| vec![*field]).collect();
    let mut longer = ways.clone();
    for _ in 1..all.len() {
        let more = longer.iter().flat_map(|way| {
            all.iter().filter(|field| !way.contains(field)).map(|field| [&way[..], &[*field]].concat())
        });
        longer = more.collect();
        ways.extend(longer.iter().cloned());
    }
    ways.into_iter().map(Algo).collect()
}

/// What `ip` shows by `algo`, and how many of its digits agree with `id`; none if one does not.
fn agreeing(prefix: Ipv6Net, ip: Ipv6Addr, algo: &Algo, id: &Identity) -> Option<(u8, Shown)> {
    let widths = layout(prefix.prefix_len(), algo.fields().len())?;
    let host = ip.to_bits() & !prefix.netmask().to_bits();
    let n = u8::try_from(host & 0xf).ok()?;
    // Digits from the top: what stands above them are bits that no digit has.
    let places: u8 = widths.iter().sum();
    let digit = |place: u8| u8::try_from(host >> (u32::from(places - place) * 4) & 0xf).ok();
    if host.checked_shr((u32::from(places) + 1) * 4).unwrap_or(0) != 0 {
        return None;
    }
    let (mut fields, mut agreed, mut at) = (Vec::new(), 0, 0);
    for (field, width) in algo.fields().iter().zip(widths) {
        let seen: Vec<u8> = (at..at + width).filter_map(digit).collect();
        let value = id.get(*field);
        if let Some(value) = value {
            digits(*field, value).zip(&seen).all(|(own, seen)| own == *seen).then_some(())?;
            agreed += width;
        }
        let text = seen.iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)).collect();
        fields.push((text, value.map(|value| (*field, value.into()))));
        at += width;
    }
    Some((agreed, Shown { fields, n }))
}

/// How many hex digits each of `fields` fields gets under a prefix of `prefix_len` bits, in the order asked for.
/// The last host digit, N, is not among them.
///
/// A prefix length that is not a multiple of four leaves one to three odd bits between the prefix and the first
/// digit. They stay zero, so that the digits stay readable.
///
/// `None` when the prefix length is outside [`PREFIX_MIN`] to [`PREFIX_MAX`], or when there is no field, or when
/// there are more fields than digits.
pub fn layout(prefix_len: u8, fields: usize) -> Option<Vec<u8>> {
    if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix_len) {
        return None;
    }
    let count = u8::try_from(fields).ok()?;
    let shared = (128 - prefix_len) / 4 - 1;
    let each = shared.checked_div(count).filter(|each| *each > 0)?;
    let remainder = shared - each * count;
    Some((0..count).map(|place| each + u8::from(place < remainder)).collect())
}

/// The address that shows `id` under `prefix`; host bits of `prefix` are ignored. Of `n`, the lowest digit of the
/// address, only the low four bits count: there are [`N_VALUES`].
///
/// # Errors
/// [`EmbedError`]; the caller falls back to a random host part.
pub fn address(prefix: Ipv6Net, algo: &Algo, id: &Identity, n: u8) -> Result<Ipv6Addr, EmbedError> {
    let length = EmbedError::PrefixLength(prefix.prefix_len());
    let widths = layout(prefix.prefix_len(), algo.fields().len()).ok_or(length)?;
    let mut host: u128 = 0;
    for (field, width) in algo.fields().iter().zip(widths) {
        let value = id.get(*field).ok_or(EmbedError::UnknownValue(*field))?;
        for digit in digits(*field, value).take(usize::from(width)) {
            host = host << 4 | u128::from(digit);
        }
    }
    host = host << 4 | u128::from(n & 0x0f);
    Ok(Ipv6Addr::from_bits(prefix.network().to_bits() | host))
}

/// The digits of a value, without end. A digest of an image shows itself, since people compare it with what a
/// registry prints; it has 64 digits, and no field is wider than 19.
fn digits(field: Field, value: &str) -> Box<dyn Iterator<Item = u8> + '_> {
    match field {
        Field::Image => match sha256_hex(value) {
            Some(hex) => Box::new(hex.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok())),
            None => Box::new(hash_digits(value)),
        },
        Field::Namespace | Field::App => Box::new(hash_digits(value)),
    }
}

/// FNV-1a-64 as hex digits, highest first; after 16 of them those of the value followed by byte 1, then 2, ... .
fn hash_digits(value: &str) -> impl Iterator<Item = u8> + '_ {
    (0..=u8::MAX).flat_map(move |round| {
        let hash = match round {
            0 => fnv1a64(value.as_bytes()),
            more => fnv1a64(&[value.as_bytes(), &[more]].concat()),
        };
        hash.to_be_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 0x0f])
    })
}

/// The 64 hex digits of a bare sha256 digest or of a reference `NAME@sha256:DIGEST`.
fn sha256_hex(image: &str) -> Option<&str> {
    let hex = match image.split_once("@sha256:") {
        Some((name, hex)) if !name.is_empty() => hex,
        _ => image,
    };
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())).then_some(hex)
}

/// The name that all pods of one workload share: the controller's (`(kind, name)`), for a ReplicaSet without
/// the `pod-template-hash` that its Deployment appended, else the pod's own.
pub fn app_name(controller: Option<(&str, &str)>, pod_template_hash: Option<&str>, pod_name: &str) -> String {
    let name = match (controller, pod_template_hash) {
        (Some(("ReplicaSet", name)), Some(hash)) if !hash.is_empty() => name
            .strip_suffix(hash)
            .and_then(|rest| rest.strip_suffix('-'))
            .filter(|rest| !rest.is_empty())
            .unwrap_or(name),
        (Some((_, name)), _) => name,
        (None, _) => pod_name,
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn algo(text: &str) -> Algo {
        text.parse().expect("a well-formed algo")
    }

    fn identity() -> Identity {
        Identity {
            namespace: Some("mail".into()),
            app: Some("stalwart".into()),
            image: Some("ghcr.io/example/mail:1.4".into()),
        }
    }

    #[test]
    fn algos_are_comma_lists_of_known_fields_each_once() {
        assert_eq!(algo("namespace,app,image").fields(), [Field::Namespace, Field::App, Field::Image]);
        assert_eq!(algo(" image ,\tapp").to_string(), "image,app");
        for (bad, why) in [
            ("", AlgoError::Empty),
            (" ", AlgoError::Empty),
            ("app,", AlgoError::Empty),
            (",app", AlgoError::Empty),
            ("pod", AlgoError::Unknown(Excerpt::of("pod"))),
            ("App", AlgoError::Unknown(Excerpt::of("App"))),
            ("app;image", AlgoError::Unknown(Excerpt::of("app;image"))),
            ("app,image,app", AlgoError::Duplicate(Field::App)),
        ] {
            assert_eq!(bad.parse::<Algo>(), Err(why), "{bad:?}");
        }
        let Err(AlgoError::Unknown(kept)) = "é".repeat(5000).parse::<Algo>() else { panic!("must be unknown") };
        assert!(kept.as_ref().ends_with("…\" (10000 bytes)"), "{kept}");
    }

    #[test]
    fn the_layout_shares_all_digits_but_one_and_the_first_fields_get_the_remainder() {
        assert_eq!(layout(64, 3), Some(vec![5, 5, 5]));
        assert_eq!(layout(56, 3), Some(vec![6, 6, 5]));
        assert_eq!(layout(48, 1), Some(vec![19]));
        assert_eq!(layout(96, 2), Some(vec![4, 3]));
        for none in [layout(47, 1), layout(97, 1), layout(64, 0), layout(96, 8), layout(64, 300)] {
            assert_eq!(none, None);
        }
        for len in PREFIX_MIN..=PREFIX_MAX {
            for fields in 1..=3 {
                let widths = layout(len, fields).expect("within bounds");
                assert_eq!(widths.iter().sum::<u8>(), (128 - len) / 4 - 1);
            }
        }
    }

    #[test]
    fn what_an_address_shows_is_read_back_as_far_as_the_pod_is_known() {
        let prefix: Ipv6Net = "2001:db8:1:f001::/64".parse().expect("literal");
        let id = identity();
        for way in ways() {
            let ip = address(prefix, &way, &id, 5).expect("embeds");
            let shown = shown(prefix, ip, &id).expect("shows it");
            let known = shown.fields.iter().filter_map(|(_, of)| of.as_ref());
            let fields: Vec<Field> = known.map(|(field, _)| *field).collect();
            assert_eq!((fields.as_slice(), shown.n), (way.fields(), 5), "{way}");
        }
        assert_eq!(ways().len(), 15);
        let ip = address(prefix, &algo("namespace,app"), &id, 0).expect("embeds");
        let known = Identity { namespace: id.namespace.clone(), ..Identity::default() };
        let fields = shown(prefix, ip, &known).expect("shows the namespace").fields;
        assert_eq!(fields.len(), 2);
        assert_eq!(fields[0].1, Some((Field::Namespace, "mail".into())));
        assert!(fields[1].0.len() == 7 && fields[1].1.is_none(), "digits that nobody can name: {fields:?}");
        // Of another pod, or of nobody who is known, or under a prefix that shows nothing.
        let other = Identity { namespace: Some("shop".into()), ..Identity::default() };
        assert_eq!(shown(prefix, ip, &other), None);
        assert_eq!(shown(prefix, ip, &Identity::default()), None);
        assert_eq!(shown("2001:db8::/32".parse().expect("literal"), ip, &known), None);
        for odd in [49, 63, 96] {
            let prefix = Ipv6Net::new(prefix.network(), odd).expect("a length").trunc();
            let ip = address(prefix, &algo("app"), &id, 15).expect("embeds");
            assert_eq!(shown(prefix, ip, &id).map(|shown| shown.n), Some(15), "/{odd}");
            if odd % 4 != 0 {
                let above = ip.to_bits() | 1 << (127 - odd);
                assert_eq!(shown(prefix, Ipv6Addr::from_bits(above), &id), None, "bits above the digits");
            }
        }
    }

    #[test]
    fn a_digest_shows_its_own_digits_and_everything_else_its_hash() {
        let prefix = "2001:db8::/64".parse().expect("literal");
        let hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let image = |text: &str| {
            let id = Identity { image: Some(text.into()), ..Identity::default() };
            address(prefix, &algo("image"), &id, 7).expect("embeds").to_string()
        };
        let shown = "2001:db8::123:4567:89ab:cde7";
        assert_eq!(image(hex), shown);
        assert_eq!(image(&hex.to_uppercase()), shown);
        assert_eq!(image(&format!("ghcr.io/example/mail@sha256:{hex}")), shown);
        assert_eq!(image(&format!("ghcr.io/example/mail:1.4@sha256:{hex}")), shown);
        for hashed in [&hex[..63], &format!("{hex}0"), "a:1@sha256:0123", &format!("@sha256:{hex}")] {
            assert_ne!(image(hashed), shown, "{hashed}");
        }
    }

    #[test]
    fn n_changes_the_last_digit_only_and_only_its_low_four_bits_count() {
        let prefix = "2001:db8::/64".parse().expect("literal");
        let at = |n| address(prefix, &algo("namespace,app"), &identity(), n).expect("embeds").to_bits();
        for n in 0..N_VALUES {
            assert_eq!(at(n), at(0) | u128::from(n));
            assert_eq!(at(n | 0xf0), at(n));
        }
    }

    #[test]
    fn what_cannot_be_shown_is_an_error_that_names_it() {
        let unknown = Identity { app: None, image: Some(String::new()), ..identity() };
        let under = |prefix: &str, fields| address(prefix.parse().expect("literal"), &algo(fields), &unknown, 0);
        assert_eq!(under("2001:db8::/64", "namespace,app"), Err(EmbedError::UnknownValue(Field::App)));
        assert_eq!(under("2001:db8::/64", "image"), Err(EmbedError::UnknownValue(Field::Image)));
        assert_eq!(under("2001:db8::/40", "namespace"), Err(EmbedError::PrefixLength(40)));
        assert_eq!(under("2001:db8::/97", "namespace"), Err(EmbedError::PrefixLength(97)));
        assert!(under("2001:db8::/64", "namespace").is_ok());
    }

    #[test]
    fn apps_are_named_by_their_controller_and_deployments_without_the_hash() {
        for (controller, hash, want) in [
            (Some(("ReplicaSet", "traefik-789df685f")), Some("789df685f"), "traefik"),
            (Some(("ReplicaSet", "traefik-789df685f")), None, "traefik-789df685f"),
            (Some(("ReplicaSet", "traefik")), Some("789df685f"), "traefik"),
            (Some(("ReplicaSet", "traefik789df685f")), Some("789df685f"), "traefik789df685f"),
            (Some(("ReplicaSet", "-789df685f")), Some("789df685f"), "-789df685f"),
            (Some(("ReplicaSet", "traefik-")), Some(""), "traefik-"),
            (Some(("StatefulSet", "db-1")), Some("1"), "db-1"),
            (Some(("DaemonSet", "agent")), None, "agent"),
            (None, Some("789df685f"), "pod-x"),
        ] {
            assert_eq!(app_name(controller, hash, "pod-x"), want);
        }
    }

    // Every prefix length, with 1, 2 and 3 fields of `identity()`, N = the length modulo 16. Computed by a program
    // of another language from the rules in words, not by this code.
    #[rustfmt::skip]
    const VECTORS: [(&str, &str, &str, &str); 49] = [
        ("2001:db8:a5a5::/48", "2001:db8:a5a5:1f59:64a2:ce98:72e:dce0", "2001:db8:a5a5:b902:b406:7513:9b11:f060", "2001:db8:a5a5:1f59:64ab:902b:4139:b110"),
        ("2001:db8:a5a5:8000::/49", "2001:db8:a5a5:81f5:964a:2ce9:8072:edc1", "2001:db8:a5a5:8b90:2b40:6713:9b11:f061", "2001:db8:a5a5:81f5:964b:902b:4139:b111"),
        ("2001:db8:a5a5:8000::/50", "2001:db8:a5a5:81f5:964a:2ce9:8072:edc2", "2001:db8:a5a5:8b90:2b40:6713:9b11:f062", "2001:db8:a5a5:81f5:964b:902b:4139:b112"),
        ("2001:db8:a5a5:a000::/51", "2001:db8:a5a5:a1f5:964a:2ce9:8072:edc3", "2001:db8:a5a5:ab90:2b40:6713:9b11:f063", "2001:db8:a5a5:a1f5:964b:902b:4139:b113"),
        ("2001:db8:a5a5:a000::/52", "2001:db8:a5a5:a1f5:964a:2ce9:8072:edc4", "2001:db8:a5a5:ab90:2b40:6713:9b11:f064", "2001:db8:a5a5:a1f5:964b:902b:4139:b114"),
        ("2001:db8:a5a5:a000::/53", "2001:db8:a5a5:a01f:5964:a2ce:9807:2ed5", "2001:db8:a5a5:a0b9:2b4:671:39b1:1f05", "2001:db8:a5a5:a01f:5964:b902:b413:9b15"),
        ("2001:db8:a5a5:a400::/54", "2001:db8:a5a5:a41f:5964:a2ce:9807:2ed6", "2001:db8:a5a5:a4b9:2b4:671:39b1:1f06", "2001:db8:a5a5:a41f:5964:b902:b413:9b16"),
        ("2001:db8:a5a5:a400::/55", "2001:db8:a5a5:a41f:5964:a2ce:9807:2ed7", "2001:db8:a5a5:a4b9:2b4:671:39b1:1f07", "2001:db8:a5a5:a41f:5964:b902:b413:9b17"),
        ("2001:db8:a5a5:a500::/56", "2001:db8:a5a5:a51f:5964:a2ce:9807:2ed8", "2001:db8:a5a5:a5b9:2b4:671:39b1:1f08", "2001:db8:a5a5:a51f:5964:b902:b413:9b18"),
        ("2001:db8:a5a5:a580::/57", "2001:db8:a5a5:a581:f596:4a2c:e980:72e9", "2001:db8:a5a5:a58b:902b:4061:39b1:1f09", "2001:db8:a5a5:a581:f596:4b90:2b13:9b19"),
        ("2001:db8:a5a5:a580::/58", "2001:db8:a5a5:a581:f596:4a2c:e980:72ea", "2001:db8:a5a5:a58b:902b:4061:39b1:1f0a", "2001:db8:a5a5:a581:f596:4b90:2b13:9b1a"),
        ("2001:db8:a5a5:a5a0::/59", "2001:db8:a5a5:a5a1:f596:4a2c:e980:72eb", "2001:db8:a5a5:a5ab:902b:4061:39b1:1f0b", "2001:db8:a5a5:a5a1:f596:4b90:2b13:9b1b"),
        ("2001:db8:a5a5:a5a0::/60", "2001:db8:a5a5:a5a1:f596:4a2c:e980:72ec", "2001:db8:a5a5:a5ab:902b:4061:39b1:1f0c", "2001:db8:a5a5:a5a1:f596:4b90:2b13:9b1c"),
        ("2001:db8:a5a5:a5a0::/61", "2001:db8:a5a5:a5a0:1f59:64a2:ce98:72d", "2001:db8:a5a5:a5a0:b902:b406:139b:11fd", "2001:db8:a5a5:a5a0:1f59:6b90:2b13:9b1d"),
        ("2001:db8:a5a5:a5a4::/62", "2001:db8:a5a5:a5a4:1f59:64a2:ce98:72e", "2001:db8:a5a5:a5a4:b902:b406:139b:11fe", "2001:db8:a5a5:a5a4:1f59:6b90:2b13:9b1e"),
        ("2001:db8:a5a5:a5a4::/63", "2001:db8:a5a5:a5a4:1f59:64a2:ce98:72f", "2001:db8:a5a5:a5a4:b902:b406:139b:11ff", "2001:db8:a5a5:a5a4:1f59:6b90:2b13:9b1f"),
        ("2001:db8:a5a5:a5a5::/64", "2001:db8:a5a5:a5a5:1f59:64a2:ce98:720", "2001:db8:a5a5:a5a5:b902:b406:139b:11f0", "2001:db8:a5a5:a5a5:1f59:6b90:2b13:9b10"),
        ("2001:db8:a5a5:a5a5:8000::/65", "2001:db8:a5a5:a5a5:81f5:964a:2ce9:8071", "2001:db8:a5a5:a5a5:8b90:2b40:139b:11f1", "2001:db8:a5a5:a5a5:81f5:96b9:2b1:39b1"),
        ("2001:db8:a5a5:a5a5:8000::/66", "2001:db8:a5a5:a5a5:81f5:964a:2ce9:8072", "2001:db8:a5a5:a5a5:8b90:2b40:139b:11f2", "2001:db8:a5a5:a5a5:81f5:96b9:2b1:39b2"),
        ("2001:db8:a5a5:a5a5:a000::/67", "2001:db8:a5a5:a5a5:a1f5:964a:2ce9:8073", "2001:db8:a5a5:a5a5:ab90:2b40:139b:11f3", "2001:db8:a5a5:a5a5:a1f5:96b9:2b1:39b3"),
        ("2001:db8:a5a5:a5a5:a000::/68", "2001:db8:a5a5:a5a5:a1f5:964a:2ce9:8074", "2001:db8:a5a5:a5a5:ab90:2b40:139b:11f4", "2001:db8:a5a5:a5a5:a1f5:96b9:2b1:39b4"),
        ("2001:db8:a5a5:a5a5:a000::/69", "2001:db8:a5a5:a5a5:a01f:5964:a2ce:9805", "2001:db8:a5a5:a5a5:a0b9:2b4:139:b115", "2001:db8:a5a5:a5a5:a01f:596b:9021:39b5"),
        ("2001:db8:a5a5:a5a5:a400::/70", "2001:db8:a5a5:a5a5:a41f:5964:a2ce:9806", "2001:db8:a5a5:a5a5:a4b9:2b4:139:b116", "2001:db8:a5a5:a5a5:a41f:596b:9021:39b6"),
        ("2001:db8:a5a5:a5a5:a400::/71", "2001:db8:a5a5:a5a5:a41f:5964:a2ce:9807", "2001:db8:a5a5:a5a5:a4b9:2b4:139:b117", "2001:db8:a5a5:a5a5:a41f:596b:9021:39b7"),
        ("2001:db8:a5a5:a5a5:a500::/72", "2001:db8:a5a5:a5a5:a51f:5964:a2ce:9808", "2001:db8:a5a5:a5a5:a5b9:2b4:139:b118", "2001:db8:a5a5:a5a5:a51f:596b:9021:39b8"),
        ("2001:db8:a5a5:a5a5:a580::/73", "2001:db8:a5a5:a5a5:a581:f596:4a2c:e989", "2001:db8:a5a5:a5a5:a58b:902b:4139:b119", "2001:db8:a5a5:a5a5:a581:f59b:9021:39b9"),
        ("2001:db8:a5a5:a5a5:a580::/74", "2001:db8:a5a5:a5a5:a581:f596:4a2c:e98a", "2001:db8:a5a5:a5a5:a58b:902b:4139:b11a", "2001:db8:a5a5:a5a5:a581:f59b:9021:39ba"),
        ("2001:db8:a5a5:a5a5:a5a0::/75", "2001:db8:a5a5:a5a5:a5a1:f596:4a2c:e98b", "2001:db8:a5a5:a5a5:a5ab:902b:4139:b11b", "2001:db8:a5a5:a5a5:a5a1:f59b:9021:39bb"),
        ("2001:db8:a5a5:a5a5:a5a0::/76", "2001:db8:a5a5:a5a5:a5a1:f596:4a2c:e98c", "2001:db8:a5a5:a5a5:a5ab:902b:4139:b11c", "2001:db8:a5a5:a5a5:a5a1:f59b:9021:39bc"),
        ("2001:db8:a5a5:a5a5:a5a0::/77", "2001:db8:a5a5:a5a5:a5a0:1f59:64a2:ce9d", "2001:db8:a5a5:a5a5:a5a0:b902:b413:9b1d", "2001:db8:a5a5:a5a5:a5a0:1f59:b902:139d"),
        ("2001:db8:a5a5:a5a5:a5a4::/78", "2001:db8:a5a5:a5a5:a5a4:1f59:64a2:ce9e", "2001:db8:a5a5:a5a5:a5a4:b902:b413:9b1e", "2001:db8:a5a5:a5a5:a5a4:1f59:b902:139e"),
        ("2001:db8:a5a5:a5a5:a5a4::/79", "2001:db8:a5a5:a5a5:a5a4:1f59:64a2:ce9f", "2001:db8:a5a5:a5a5:a5a4:b902:b413:9b1f", "2001:db8:a5a5:a5a5:a5a4:1f59:b902:139f"),
        ("2001:db8:a5a5:a5a5:a5a5::/80", "2001:db8:a5a5:a5a5:a5a5:1f59:64a2:ce90", "2001:db8:a5a5:a5a5:a5a5:b902:b413:9b10", "2001:db8:a5a5:a5a5:a5a5:1f59:b902:1390"),
        ("2001:db8:a5a5:a5a5:a5a5:8000::/81", "2001:db8:a5a5:a5a5:a5a5:81f5:964a:2ce1", "2001:db8:a5a5:a5a5:a5a5:8b90:2b13:9b11", "2001:db8:a5a5:a5a5:a5a5:81f5:9b90:1391"),
        ("2001:db8:a5a5:a5a5:a5a5:8000::/82", "2001:db8:a5a5:a5a5:a5a5:81f5:964a:2ce2", "2001:db8:a5a5:a5a5:a5a5:8b90:2b13:9b12", "2001:db8:a5a5:a5a5:a5a5:81f5:9b90:1392"),
        ("2001:db8:a5a5:a5a5:a5a5:a000::/83", "2001:db8:a5a5:a5a5:a5a5:a1f5:964a:2ce3", "2001:db8:a5a5:a5a5:a5a5:ab90:2b13:9b13", "2001:db8:a5a5:a5a5:a5a5:a1f5:9b90:1393"),
        ("2001:db8:a5a5:a5a5:a5a5:a000::/84", "2001:db8:a5a5:a5a5:a5a5:a1f5:964a:2ce4", "2001:db8:a5a5:a5a5:a5a5:ab90:2b13:9b14", "2001:db8:a5a5:a5a5:a5a5:a1f5:9b90:1394"),
        ("2001:db8:a5a5:a5a5:a5a5:a000::/85", "2001:db8:a5a5:a5a5:a5a5:a01f:5964:a2c5", "2001:db8:a5a5:a5a5:a5a5:a0b9:2b1:39b5", "2001:db8:a5a5:a5a5:a5a5:a01f:5b90:1395"),
        ("2001:db8:a5a5:a5a5:a5a5:a400::/86", "2001:db8:a5a5:a5a5:a5a5:a41f:5964:a2c6", "2001:db8:a5a5:a5a5:a5a5:a4b9:2b1:39b6", "2001:db8:a5a5:a5a5:a5a5:a41f:5b90:1396"),
        ("2001:db8:a5a5:a5a5:a5a5:a400::/87", "2001:db8:a5a5:a5a5:a5a5:a41f:5964:a2c7", "2001:db8:a5a5:a5a5:a5a5:a4b9:2b1:39b7", "2001:db8:a5a5:a5a5:a5a5:a41f:5b90:1397"),
        ("2001:db8:a5a5:a5a5:a5a5:a500::/88", "2001:db8:a5a5:a5a5:a5a5:a51f:5964:a2c8", "2001:db8:a5a5:a5a5:a5a5:a5b9:2b1:39b8", "2001:db8:a5a5:a5a5:a5a5:a51f:5b90:1398"),
        ("2001:db8:a5a5:a5a5:a5a5:a580::/89", "2001:db8:a5a5:a5a5:a5a5:a581:f596:4a29", "2001:db8:a5a5:a5a5:a5a5:a58b:9021:39b9", "2001:db8:a5a5:a5a5:a5a5:a581:f5b9:139"),
        ("2001:db8:a5a5:a5a5:a5a5:a580::/90", "2001:db8:a5a5:a5a5:a5a5:a581:f596:4a2a", "2001:db8:a5a5:a5a5:a5a5:a58b:9021:39ba", "2001:db8:a5a5:a5a5:a5a5:a581:f5b9:13a"),
        ("2001:db8:a5a5:a5a5:a5a5:a5a0::/91", "2001:db8:a5a5:a5a5:a5a5:a5a1:f596:4a2b", "2001:db8:a5a5:a5a5:a5a5:a5ab:9021:39bb", "2001:db8:a5a5:a5a5:a5a5:a5a1:f5b9:13b"),
        ("2001:db8:a5a5:a5a5:a5a5:a5a0::/92", "2001:db8:a5a5:a5a5:a5a5:a5a1:f596:4a2c", "2001:db8:a5a5:a5a5:a5a5:a5ab:9021:39bc", "2001:db8:a5a5:a5a5:a5a5:a5a1:f5b9:13c"),
        ("2001:db8:a5a5:a5a5:a5a5:a5a0::/93", "2001:db8:a5a5:a5a5:a5a5:a5a0:1f59:64ad", "2001:db8:a5a5:a5a5:a5a5:a5a0:b902:139d", "2001:db8:a5a5:a5a5:a5a5:a5a0:1f5b:913d"),
        ("2001:db8:a5a5:a5a5:a5a5:a5a4::/94", "2001:db8:a5a5:a5a5:a5a5:a5a4:1f59:64ae", "2001:db8:a5a5:a5a5:a5a5:a5a4:b902:139e", "2001:db8:a5a5:a5a5:a5a5:a5a4:1f5b:913e"),
        ("2001:db8:a5a5:a5a5:a5a5:a5a4::/95", "2001:db8:a5a5:a5a5:a5a5:a5a4:1f59:64af", "2001:db8:a5a5:a5a5:a5a5:a5a4:b902:139f", "2001:db8:a5a5:a5a5:a5a5:a5a4:1f5b:913f"),
        ("2001:db8:a5a5:a5a5:a5a5:a5a5::/96", "2001:db8:a5a5:a5a5:a5a5:a5a5:1f59:64a0", "2001:db8:a5a5:a5a5:a5a5:a5a5:b902:1390", "2001:db8:a5a5:a5a5:a5a5:a5a5:1f5b:9130"),
    ];

    #[test]
    fn the_vectors_stand() {
        for (prefix, one, two, three) in VECTORS {
            let prefix: Ipv6Net = prefix.parse().expect("literal");
            for (fields, want) in [("namespace", one), ("app,image", two), ("namespace,app,image", three)] {
                let got = address(prefix, &algo(fields), &identity(), prefix.prefix_len() % 16).expect("embeds");
                assert_eq!(got, want.parse::<Ipv6Addr>().expect("literal"), "{prefix} {fields}");
                assert!(prefix.contains(&got));
            }
        }
    }
}
