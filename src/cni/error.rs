//! The CNI error object: a code for the runtime, and a text that is safe wherever it lands.
//!
//! The text ends in kubelet events and journals, carries values that users wrote, and steers containerd, which takes a
//! failed DEL for done when it reads certain words. So every text of an [`Error`] is cleaned in the one place where it
//! enters. Which failure has which code is not decided here.

use alloc::string::{String, ToString as _};
use core::fmt;

use serde::Serialize;

use crate::version::Version;
use model::excerpt::{self, Excerpt};

/// Longest `msg` and longest `details`, in bytes.
pub const TEXT_MAX: usize = 2048;

/// Error codes: those of the CNI specification (section 5, Error), and two that only libcni has (8 and 999).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 1: the version of the configuration is not supported, or its version lacks the verb.
    IncompatibleVersion,
    /// 2: a key that is not supported; the text holds key and value.
    UnsupportedField,
    /// 3: the container is unknown. Tells the runtime that no DEL is needed, so it has no place in ADD.
    UnknownContainer,
    /// 4: a bad or missing environment variable; the text names it.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: the input is not the JSON that it should be.
    Decode,
    /// 7: the configuration is well-formed, but wrong.
    InvalidConfig,
    /// 8: the network namespace is not one, or is the plugin's own. Of libcni, not of the specification.
    InvalidNetns,
    /// 11: a passing condition; the runtime should try again.
    TryAgainLater,
    /// 50: STATUS only: ADD cannot be served.
    NotAvailable,
    /// 51: STATUS only: ADD cannot be served, and pods may have lost connections.
    LimitedConnectivity,
    /// 999: everything else. Of libcni; above 99, so allowed.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 12] = [
        Code::IncompatibleVersion,
        Code::UnsupportedField,
        Code::UnknownContainer,
        Code::InvalidEnvironment,
        Code::Io,
        Code::Decode,
        Code::InvalidConfig,
        Code::InvalidNetns,
        Code::TryAgainLater,
        Code::NotAvailable,
        Code::LimitedConnectivity,
        Code::Internal,
    ];

    /// The number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Code::IncompatibleVersion => 1,
            Code::UnsupportedField => 2,
            Code::UnknownContainer => 3,
            Code::InvalidEnvironment => 4,
            Code::Io => 5,
            Code::Decode => 6,
            Code::InvalidConfig => 7,
            Code::InvalidNetns => 8,
            Code::TryAgainLater => 11,
            Code::NotAvailable => 50,
            Code::LimitedConnectivity => 51,
            Code::Internal => 999,
        }
    }

    /// The code with this number. A number that we do not know becomes [`Code::Internal`]: numbers below 100 may get a
    /// meaning that the agent who sent one did not have in mind.
    pub fn from_number(number: u32) -> Code {
        Code::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Code::Internal)
    }
}

/// One failure, as a runtime gets to see it.
///
/// Both texts are one line of at most [`TEXT_MAX`] bytes without control characters, and free of the words that
/// [`neutral`] replaces. libcni shows them as `msg; details`: `msg` is the cause without names of pods, so that events
/// of many pods count as one, and `details` has the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    code: Code,
    msg: String,
    details: String,
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "cniVersion")]
    cni_version: &'static str,
    code: u32,
    msg: &'a str,
    details: &'a str,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, msg: impl AsRef<str>) -> Error {
        Error { code, msg: one_line(msg.as_ref()), details: String::new() }
    }

    /// The same error with these details instead of the former ones.
    #[must_use]
    pub fn with_details(self, details: impl AsRef<str>) -> Error {
        Error { details: one_line(details.as_ref()), ..self }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The cause in short.
    pub fn msg(&self) -> &str {
        &self.msg
    }

    /// The rest; may be empty.
    pub fn details(&self) -> &str {
        &self.details
    }

    /// The error object of the specification (section 5), one line without its end.
    ///
    /// `version` is that of the request. Where it is not known (no environment, no readable configuration), the newest
    /// stands in: the key is required, and no runtime that we know reads it.
    pub fn to_json(&self, version: Option<Version>) -> String {
        let object = Object {
            cni_version: version.unwrap_or(Version::NEWEST).as_str(),
            code: self.code.number(),
            msg: &self.msg,
            details: &self.details,
        };
        // A struct of texts and a number has no way to fail.
        serde_json::to_string(&object).unwrap_or_default()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}

impl core::error::Error for Error {}

/// The text without the two phrases that containerd's CNI library looks for in a failed DEL. It takes `not found`, and
/// for an empty netns also `no such file or directory`, as "nothing to delete": the failure would become a silent leak.
///
/// The texts of the operating system hold both, and so may any value that a user chose.
pub fn neutral(text: &str) -> String {
    // The substitutes share no first or last letter with the phrases, so none can arise anew at a seam.
    let phrases = [("not found", "absent"), ("no such file or directory", "absent path")];
    phrases.into_iter().fold(text.to_string(), |text, (phrase, substitute)| {
        // Lower-casing ASCII keeps every byte position.
        let lower = text.to_ascii_lowercase();
        let mut out = String::with_capacity(text.len());
        let mut rest = 0;
        for (start, _) in lower.match_indices(phrase) {
            out.push_str(text.get(rest..start).unwrap_or_default());
            out.push_str(substitute);
            rest = start + phrase.len();
        }
        out.push_str(text.get(rest..).unwrap_or_default());
        out
    })
}

/// One line, then [`neutral`], then the cut. Already clean text stays as it is.
fn one_line(text: &str) -> String {
    // The first bound is for the work. `neutral` makes text less than three times shorter, so the second cut is still ours.
    let line = Excerpt::line(text, 4 * TEXT_MAX);
    excerpt::cut(neutral(line.as_ref()), TEXT_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // covers: X-03 X-05 X-06
    #[test]
    fn the_object_has_four_keys_and_every_code_its_number() {
        for code in Code::ALL {
            let text = Error::new(code, "cause").with_details("more").to_json(Some(Version::V0_4_0));
            let number = code.number();
            assert_eq!(text, format!(r#"{{"cniVersion":"0.4.0","code":{number},"msg":"cause","details":"more"}}"#));
        }
        let unknown_version = Error::new(Code::Decode, "cause").to_json(None);
        assert_eq!(unknown_version, r#"{"cniVersion":"1.1.0","code":6,"msg":"cause","details":""}"#);
        let numbers = Code::ALL.map(Code::number);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 999]);
    }

    // covers: P-04 X-04
    #[test]
    fn known_codes_pass_and_unknown_ones_become_999() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), code);
        }
        for unknown in [0, 9, 10, 12, 49, 52, 99, 100, 998, 1000, u32::MAX] {
            assert_eq!(Code::from_number(unknown), Code::Internal, "{unknown}");
        }
    }

    // covers: X-14
    #[test]
    fn texts_are_one_bounded_line() {
        let error = Error::new(Code::Io, "a\nb\u{1b}[31m\u{2028}\u{202e}c\0").with_details("é".repeat(5000));
        assert_eq!(error.msg(), r"a\nb\u{1b}[31m\u{2028}\u{202e}c\0");
        assert!(error.details().len() <= TEXT_MAX && error.details().ends_with("é…"));
        assert!(!error.to_json(None).contains('\n'));
        assert_eq!(Error::new(Code::Io, "a").with_details("b\tc").to_string(), r"a; b\tc");
        let again = Error::new(Code::Io, error.msg()).with_details(error.details());
        assert_eq!(again, error, "an answer of the agent passes through the plugin unchanged");
    }

    // covers: D-12
    #[test]
    fn no_error_text_has_the_words_that_containerd_swallows() {
        let enoent = std::io::Error::from_raw_os_error(2).to_string();
        assert_eq!(neutral(&enoent), "absent path (os error 2)");
        assert_eq!(neutral("Not Found: NOT FOUND, nOt FoUnD"), "absent: absent, absent");
        assert_eq!(neutral("link é not found ß"), "link é absent ß");
        assert_eq!(neutral("fine"), "fine");
        for nasty in ["not not foundfound", "not founno such file or directory", "no such file or directornot foundy"] {
            assert!(!neutral(nasty).contains("not found"), "{nasty}");
            assert!(!neutral(nasty).contains("no such file or directory"), "{nasty}");
        }
        let error = Error::new(Code::Io, &enoent).with_details("\"netns not found\"");
        assert_eq!(error.to_string(), "absent path; \"netns absent\"");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        // covers: X-14 D-12
        #[test]
        fn any_text_becomes_a_safe_one(text in "(\\PC|\\pC|[nN]ot [fF]ound|no such file or directory){0,400}") {
            let error = Error::new(Code::Internal, &text).with_details(Excerpt::of(&text));
            for line in [error.msg(), error.details()] {
                prop_assert!(line.len() <= TEXT_MAX);
                prop_assert!(!line.chars().any(char::is_control));
                let lower = line.to_lowercase();
                prop_assert!(!lower.contains("not found") && !lower.contains("no such file or directory"));
            }
            let parsed: serde_json::Value = serde_json::from_str(&error.to_json(None)).expect("valid JSON");
            prop_assert_eq!(parsed["msg"].as_str(), Some(error.msg()));
        }
    }
}
