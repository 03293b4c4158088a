//! Versions of the CNI specification: which ones flock speaks, which verb needs which, and the answer to VERSION.
//!
//! Versions match by exact text, never by range: that is how libcni compares, so `1.1` is not `1.1.0`. Results per
//! version are made in `result`; this file must not know their shape.

use alloc::string::{String, ToString as _};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::verb::Verb;

/// A version of the CNI specification that flock implements. Newer is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK, and `prevResult` on DEL.
    V0_4_0,
    /// 1.0.0: no `version` in `ips[]`.
    V1_0_0,
    /// 1.1.0: GC, STATUS, `mtu` in `interfaces[]`.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Version; 5] = [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];

    /// The newest version.
    pub const NEWEST: Version = Version::V1_1_0;

    /// The version with exactly this text.
    pub fn from_text(text: &str) -> Option<Version> {
        Version::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// The text that stands in `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Whether the verb exists in this version.
    pub fn supports(self, command: Verb) -> bool {
        self >= Version::introduced(command)
    }

    /// The oldest version of ours that has the verb.
    pub fn introduced(command: Verb) -> Version {
        match command {
            Verb::Add | Verb::Del | Verb::Version => Version::V0_3_0,
            Verb::Check => Version::V0_4_0,
            Verb::Gc | Verb::Status => Version::V1_1_0,
        }
    }

    /// All versions in one line, for error texts and the about text.
    pub fn list() -> String {
        Version::ALL.map(Version::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the plugin says on stderr to a person who starts it without a verb.
pub fn about() -> String {
    format!("flock {}, a CNI plugin; supports CNI versions {}", env!("CARGO_PKG_VERSION"), Version::list())
}

/// The output of VERSION (CNI specification, section 5), one line without its end.
///
/// `stdin` may be anything, also empty: VERSION needs no configuration. `cniVersion` echoes the input when that has the
/// form of a version, else it is our newest; libcni accepts either.
pub fn answer(stdin: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Question {
        #[serde(rename = "cniVersion")]
        cni_version: String,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        cni_version: String,
        supported_versions: [&'static str; 5],
    }
    let asked = serde_json::from_slice(stdin).ok().map(|q: Question| q.cni_version).filter(|v| has_version_form(v));
    let cni_version = asked.unwrap_or_else(|| Version::NEWEST.to_string());
    let answer = Answer { cni_version, supported_versions: Version::ALL.map(Version::as_str) };
    // Strings under string keys: serialising them has no way to fail, and an empty text is an error to every runtime.
    serde_json::to_string(&answer).unwrap_or_default()
}

/// Three short decimal numbers with dots, so that nothing but a version is ever echoed.
fn has_version_form(text: &str) -> bool {
    let number = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    text.split('.').count() == 3 && text.split('.').all(number)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    // covers: S-06 V-02
    #[test]
    fn versions_match_by_exact_text() {
        for version in Version::ALL {
            assert_eq!(Version::from_text(&version.to_string()), Some(version));
        }
        for other in ["", "1.1", "v1.1.0", "1.1.0-rc1", "1.1.0 ", " 1.1.0", "2.0.0", "0.1.0", "0.2.0", "1.01.0", "x"] {
            assert_eq!(Version::from_text(other), None, "{other:?}");
        }
        assert!(Version::ALL.is_sorted());
        assert_eq!(Version::ALL.last(), Some(&Version::NEWEST));
    }

    // covers: K-01 G-01 T-01
    #[test]
    fn verbs_exist_since_their_version() {
        let since = |command| Version::ALL.into_iter().filter(|v| v.supports(command)).collect::<Vec<_>>();
        assert_eq!(since(Verb::Add), Version::ALL);
        assert_eq!(since(Verb::Del), Version::ALL);
        assert_eq!(since(Verb::Version), Version::ALL);
        assert_eq!(since(Verb::Check), [Version::V0_4_0, Version::V1_0_0, Version::V1_1_0]);
        assert_eq!(since(Verb::Gc), [Version::V1_1_0]);
        assert_eq!(since(Verb::Status), [Version::V1_1_0]);
    }

    // covers: V-01 V-02 S-17
    #[test]
    fn version_echoes_a_version_and_needs_no_input() {
        let tail = r#""supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
        for (stdin, said) in [
            (&b"{\"cniVersion\":\"1.0.0\"}"[..], "1.0.0"),
            (b"{\"cniVersion\":\"0.2.0\"}", "0.2.0"),
            (b"{\"cniVersion\":\"2.0.0\",\"name\":7}", "2.0.0"),
            (b"", "1.1.0"),
            (b"{}", "1.1.0"),
            (b"null", "1.1.0"),
            (b"{\"cniVersion\":\"\"}", "1.1.0"),
            (b"{\"cniVersion\":\"1.1\"}", "1.1.0"),
            (b"{\"cniVersion\":\"1..0\"}", "1.1.0"),
            (b"{\"cniVersion\":\"a.b.c\"}", "1.1.0"),
            (b"{\"cniVersion\":\"99999.0.0\"}", "1.1.0"),
            (b"{\"cniVersion\":1}", "1.1.0"),
            (b"\xff", "1.1.0"),
        ] {
            assert_eq!(answer(stdin), format!(r#"{{"cniVersion":"{said}",{tail}"#));
        }
    }

    // covers: E-03
    #[test]
    fn the_about_text_is_one_line_with_all_versions() {
        let text = about();
        assert!(text.starts_with("flock ") && !text.contains('\n'));
        assert!(Version::ALL.iter().all(|v| text.contains(v.as_str())));
    }
}
