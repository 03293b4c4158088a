//! When the tokens and client certificates end that the API server believes, as they say themselves.
//!
//! Reads no more of them than their dates, and judges no signature: the server does. Must not keep or print what it reads, and
//! knows the time only as an argument.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::kube::dates;
use crate::kube::pem::Origin;
use crate::process::dates::timestamp;

/// How long before its end a credential is about to end, 14 days.
pub const NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);

/// The part of its life that is left of a credential about to end which somebody is known to renew: kubelet does so with a fifth of
/// a token's life to go, and with a tenth of a certificate's.
const RENEWED_PART: u32 = 20;

/// The link by which kubelet names its newest client certificate.
const KUBELET_CERTIFICATE: &str = "kubelet-client-current.pem";

/// A part of what the agent proves itself with, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub origin: Origin,
    /// Since when it is good, if it says so.
    pub since: Option<SystemTime>,
    /// Until when it is good.
    pub until: SystemTime,
    /// Somebody is known to renew it in time.
    pub renewed: bool,
}

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A token.
    Token,
    /// A client certificate.
    Certificate,
}

/// How near an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// Far away.
    Far,
    /// About to come, and nobody has renewed it yet.
    Soon,
    /// It has come.
    Past,
}

impl Kind {
    /// Each kind.
    pub const ALL: [Kind; 2] = [Kind::Token, Kind::Certificate];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Token => "token",
            Kind::Certificate => "client certificate",
        }
    }
}

impl Expiry {
    /// How near its end is at this time.
    pub fn nearness(&self, now: SystemTime) -> Nearness {
        let left = self.until.duration_since(now).unwrap_or_default();
        let life = self.since.and_then(|since| self.until.duration_since(since).ok()).unwrap_or_default();
        let notice = if self.renewed { NOTICE.min(life / RENEWED_PART) } else { NOTICE };
        match left {
            Duration::ZERO => Nearness::Past,
            left if left < notice => Nearness::Soon,
            _ => Nearness::Far,
        }
    }

    /// What an operator has to do about it.
    pub fn remedy(&self) -> String {
        match &self.origin {
            _ if self.renewed => {
                "whoever has renewed it so far does so no more: for kubelet's, see its log and `kubectl get csr`".into()
            }
            Origin::File(path) => {
                format!(
                    "put a new one into {} (deploy/README.md says how); nothing has to be restarted",
                    path.display()
                )
            }
            Origin::Field(..) | Origin::Plugin(_) => {
                "put a new one into the kubeconfig (deploy/README.md says how); nothing has to be restarted".into()
            }
        }
    }
}

/// Which one, and its end as a date: it stays the same from day to day.
impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} in {} ends at {}", self.kind.name(), self.origin, date(self.until))
    }
}

/// A date and a time without what is beyond a second.
pub fn date(at: SystemTime) -> String {
    let precise = timestamp(at);
    format!("{}Z", precise.split_once('.').map_or(precise.as_str(), |(seconds, _)| seconds))
}

/// The end of a token, which most are signed claims in JSON (RFC 7519); none of one that never ends or does not say.
pub(super) fn of_token(origin: Origin, token: &[u8]) -> Option<Expiry> {
    let mut parts = token.split(|byte| *byte == b'.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let time = |name: &str| {
        let seconds = claims.get(name)?.as_f64().filter(|seconds| *seconds >= 0.0)?;
        UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
    };
    let until = time("exp")?;
    let renewed = matches!(&origin, Origin::File(path) if path.ends_with("secrets/kubernetes.io/serviceaccount/token"));
    Some(Expiry { kind: Kind::Token, origin, since: time("iat"), until, renewed })
}

/// The end of a chain of certificates, which is that of the first one to end; none if one cannot be read.
pub(super) fn of_chain<'a>(origin: &Origin, chain: impl IntoIterator<Item = &'a [u8]>) -> Option<Expiry> {
    let renewed =
        matches!(origin, Origin::File(path) if path.file_name() == Path::new(KUBELET_CERTIFICATE).file_name());
    let ends = chain.into_iter().map(|certificate| {
        let (since, until) = validity(certificate)?;
        Some(Expiry { kind: Kind::Certificate, origin: origin.clone(), since: Some(since), until, renewed })
    });
    ends.collect::<Option<Vec<Expiry>>>()?.into_iter().min_by_key(|expiry| expiry.until)
}

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;

/// From when and until when a certificate is good (RFC 5280, section 4.1). What stands before that is passed over.
fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = tagged(SEQUENCE, certificate)?;
    let (mut fields, _) = tagged(SEQUENCE, certificate)?;
    if let Some((_, rest)) = tagged(EXPLICIT_VERSION, fields) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (validity, _) = tagged(SEQUENCE, fields)?;
    let (tag, since, rest) = element(validity)?;
    let since = dates::der(tag, since)?;
    let (tag, until, _) = element(rest)?;
    Some((since, dates::der(tag, until)?))
}

/// The content of an element with this tag, and what stands behind it.
fn tagged(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(found, ..)| *found == tag).map(|(_, content, rest)| (content, rest))
}

/// Tag and content of an element, and what stands behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(*first),
        // So many bytes of length follow.
        0x81..=0x84 => {
            let (bytes, behind) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = behind;
            bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn file(path: &str) -> Origin {
        Origin::File(PathBuf::from(path))
    }

    fn token(claims: &str) -> String {
        format!("eyJhbGciOiJub25lIn0.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn end_of(claims: &str) -> Option<u64> {
        let expiry = of_token(file("/etc/flock/token"), token(claims).as_bytes())?;
        Some(expiry.until.duration_since(UNIX_EPOCH).expect("later").as_secs())
    }

    #[test]
    fn a_token_says_when_it_ends_or_nothing() {
        assert_eq!(end_of(r#"{"exp": 1795478400, "iat": 1}"#), Some(1_795_478_400));
        assert_eq!(end_of(r#"{"exp": 1795478400.9}"#), Some(1_795_478_400));
        for claims in [r#"{"iat": 1}"#, r#"{"exp": "soon"}"#, r#"{"exp": -1}"#, r#"{"exp": 1e300}"#, "[]", "7", "{", ""]
        {
            assert_eq!(end_of(claims), None, "{claims}");
        }
        for text in ["", "t0k", "a.b", "a.b.c", "a.!!.c", "..", "abcdef.0123456789abcdef"] {
            assert_eq!(of_token(file("/t"), text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn no_part_of_a_certificate_is_read_beyond_its_end() {
        let time = |text: &[u8]| [&[0x17, u8::try_from(text.len()).expect("short")], text].concat();
        let wrap =
            |tag: u8, content: &[u8]| [&[tag, 0x82, 0, u8::try_from(content.len()).expect("short")], content].concat();
        let validity_of = |until: &[u8]| wrap(SEQUENCE, &[time(b"260101000000Z"), time(until)].concat());
        let head = [&[0xa0, 3, 2, 1, 2][..], &[2, 1, 9], &[0x30, 0], &[0x30, 0]].concat();
        let whole = |until: &[u8]| wrap(SEQUENCE, &wrap(SEQUENCE, &[head.clone(), validity_of(until)].concat()));
        let good = whole(b"261206100000Z");
        let expiry = of_chain(&file("/c.pem"), [&good[..]]).expect("an end");
        assert_eq!(expiry.to_string(), "the client certificate in /c.pem ends at 2026-12-06T10:00:00Z");
        for length in 0..good.len() {
            assert_eq!(validity(&good[..length]), None, "{length}");
        }
        for place in 0..good.len() {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut other = good.clone();
                other[place] = byte;
                validity(&other);
            }
        }
        // The first one to end makes the whole chain worthless.
        let earlier = whole(b"261201100000Z");
        let expiry = of_chain(&file("/c.pem"), [&good[..], &earlier[..]]).expect("an end");
        assert!(expiry.to_string().ends_with("2026-12-01T10:00:00Z"), "{expiry}");
        assert_eq!(of_chain(&file("/c.pem"), [&good[..], b"?"]), None);
        assert_eq!(of_chain(&file("/c.pem"), []), None);
    }

    #[test]
    fn an_end_is_told_fourteen_days_before_unless_somebody_is_known_to_see_to_it() {
        let now = UNIX_EPOCH + DAY * 20_000;
        let at = |days_left: u32, life: u32, renewed| {
            let until = now + DAY * days_left;
            let since = Some(until - DAY * life);
            Expiry { kind: Kind::Token, origin: file("/t"), since, until, renewed }.nearness(now)
        };
        assert_eq!(
            [at(14, 365, false), at(13, 365, false), at(0, 365, false)],
            [Nearness::Far, Nearness::Soon, Nearness::Past]
        );
        assert_eq!(at(1, 1, false), Nearness::Soon, "what was asked for a year, and the server gives a day");
        assert_eq!([at(14, 365, true), at(13, 365, true)], [Nearness::Far, Nearness::Soon]);
        assert_eq!([at(9, 90, true), at(4, 90, true)], [Nearness::Far, Nearness::Soon]);
        let silent = Expiry { kind: Kind::Token, origin: file("/t"), since: None, until: now + DAY, renewed: true };
        assert_eq!(silent.nearness(now), Nearness::Far);
        assert_eq!(silent.nearness(now + DAY), Nearness::Past);
    }

    #[test]
    fn what_kubelet_renews_is_known_by_its_place() {
        let claims = token(r#"{"exp": 1795478400}"#);
        let renewed = |path: &str| of_token(file(path), claims.as_bytes()).expect("an end").renewed;
        assert!(renewed("/var/run/secrets/kubernetes.io/serviceaccount/token"));
        assert!(!renewed("/etc/flock/token"));
    }
}
