//! The environment of a CNI call as a checked value (CNI specification, section 2, Parameters).
//!
//! The runtime sets all variables for all verbs and leaves those without a use empty, so empty is unset, and a variable
//! is judged only where its verb needs it. libcni checks ids only on ADD: for DEL and CHECK this file is the only
//! guard.
//!
//! It must not read the real environment: the caller hands in a look-up of bytes. The agent does the same with the fields of
//! a request and so gets the same rules.

use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use crate::error::{Code, Error};
use crate::verb::Verb;
use model::addr::{AddrError, Attachment};
use model::excerpt::Excerpt;

/// Longest `CNI_ARGS` and longest `CNI_PATH`, in bytes.
pub const ARGS_MAX: usize = 64 * 1024;

/// Longest `CNI_NETNS`, in bytes (the kernel's `PATH_MAX`).
pub const NETNS_MAX: usize = 4096;

/// The variables without which a verb cannot be served. `CNI_PATH` is needed for delegation only, which flock does not do; GC
/// requires it by the text.
fn required(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
        Verb::Gc => &["CNI_PATH"],
        Verb::Status | Verb::Version => &[],
    }
}

/// A verb with what it works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// ADD
    Add {
        /// The key of all state.
        attachment: Attachment,
        /// Absolute path of the namespace, at most [`NETNS_MAX`] bytes, no zero byte. The result echoes it.
        netns: String,
    },
    /// DEL
    Del {
        /// The key of all state.
        attachment: Attachment,
        /// As for ADD. Absent when the runtime has no path (any more) or one that cannot be used: neither may keep an
        /// address from being released.
        netns: Option<String>,
    },
    /// CHECK
    Check {
        /// The key of all state.
        attachment: Attachment,
        /// As for ADD.
        netns: String,
    },
    /// GC
    Gc,
    /// STATUS
    Status,
    /// VERSION
    Version,
}

/// One CNI call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// The verb with what it works on.
    pub call: Call,
    /// `CNI_ARGS` as it came, for ADD, DEL and CHECK; see `args`. At most [`ARGS_MAX`] bytes; may be empty.
    pub args: String,
    /// `CNI_PATH` as it came. At most [`ARGS_MAX`] bytes; may be empty but for GC.
    pub path: String,
}

impl Invocation {
    /// The verb alone.
    pub fn verb(&self) -> Verb {
        match self.call {
            Call::Add { .. } => Verb::Add,
            Call::Del { .. } => Verb::Del,
            Call::Check { .. } => Verb::Check,
            Call::Gc => Verb::Gc,
            Call::Status => Verb::Status,
            Call::Version => Verb::Version,
        }
    }

    /// The attachment, for the verbs that have one.
    pub fn attachment(&self) -> Option<&Attachment> {
        match &self.call {
            Call::Add { attachment, .. } | Call::Del { attachment, .. } | Call::Check { attachment, .. } => {
                Some(attachment)
            }
            Call::Gc | Call::Status | Call::Version => None,
        }
    }

    /// The path of the namespace, if the call has one.
    pub fn netns(&self) -> Option<&str> {
        match &self.call {
            Call::Add { netns, .. } | Call::Check { netns, .. } => Some(netns),
            Call::Del { netns, .. } => netns.as_deref(),
            Call::Gc | Call::Status | Call::Version => None,
        }
    }
}

/// Reads the call from variables that `lookup` knows. `None` means that there is no `CNI_COMMAND`: a person has started
/// the plugin and should be told what it is.
///
/// # Errors
/// Always [`Code::InvalidEnvironment`]: an unknown verb; missing variables, all of them named; a value that is not
/// UTF-8, too long, or against its rule. DEL forgives a bad `CNI_NETNS` or `CNI_ARGS`, which it can do without.
pub fn parse(lookup: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Option<Invocation>, Error> {
    let vars = Variables { lookup };
    let Some(text) = vars.get("CNI_COMMAND") else { return Ok(None) };
    let verb = str::from_utf8(&text).ok().and_then(Verb::from_text).ok_or_else(|| {
        let value = Excerpt::of(&String::from_utf8_lossy(&text));
        Error::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND {value}"))
    })?;

    let missing: Vec<_> = required(verb).iter().copied().filter(|name| vars.get(name).is_none()).collect();
    if !missing.is_empty() {
        let msg = format!("{verb} needs environment variables that are not set: {}", missing.join(", "));
        return Err(Error::new(Code::InvalidEnvironment, msg));
    }

    let call = match verb {
        Verb::Add => Call::Add { attachment: vars.attachment()?, netns: vars.netns()? },
        Verb::Del => Call::Del { attachment: vars.attachment()?, netns: vars.netns().ok() },
        Verb::Check => Call::Check { attachment: vars.attachment()?, netns: vars.netns()? },
        Verb::Gc => Call::Gc,
        Verb::Status => Call::Status,
        Verb::Version => Call::Version,
    };
    let args = match verb {
        Verb::Add | Verb::Check => vars.text("CNI_ARGS", ARGS_MAX)?,
        Verb::Del => vars.text("CNI_ARGS", ARGS_MAX).unwrap_or_default(),
        Verb::Gc | Verb::Status | Verb::Version => String::new(),
    };
    let path = match verb {
        Verb::Gc => vars.text("CNI_PATH", ARGS_MAX)?,
        _ => vars.text("CNI_PATH", ARGS_MAX).unwrap_or_default(),
    };
    Ok(Some(Invocation { call, args, path }))
}

struct Variables<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<Vec<u8>>> Variables<F> {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The value as text, empty when unset.
    fn text(&self, name: &str, max: usize) -> Result<String, Error> {
        let value = self.get(name).unwrap_or_default();
        if value.len() > max {
            return Err(invalid(name, format!("is {} bytes long, the limit is {max}", value.len())));
        }
        let lossy = |value: &[u8]| format!("{} is not valid UTF-8", Excerpt::of(&String::from_utf8_lossy(value)));
        String::from_utf8(value).map_err(|error| invalid(name, lossy(error.as_bytes())))
    }

    fn attachment(&self) -> Result<Attachment, Error> {
        Ok(Attachment { container_id: self.typed("CNI_CONTAINERID")?, ifname: self.typed("CNI_IFNAME")? })
    }

    fn typed<T: FromStr<Err = AddrError>>(&self, name: &str) -> Result<T, Error> {
        // No bound here: the types have their own, with a better text.
        let value = self.text(name, usize::MAX)?;
        value.parse().map_err(|rule: AddrError| invalid(name, format!("{} {rule}", Excerpt::of(&value))))
    }

    fn netns(&self) -> Result<String, Error> {
        let name = "CNI_NETNS";
        let value = self.text(name, NETNS_MAX)?;
        // A variable cannot hold a zero byte, but a field of a request can.
        if !value.starts_with('/') || value.contains('\0') {
            return Err(invalid(name, format!("{} is not an absolute path", Excerpt::of(&value))));
        }
        Ok(value)
    }
}

fn invalid(name: &str, details: String) -> Error {
    Error::new(Code::InvalidEnvironment, format!("invalid {name}")).with_details(details)
}

#[cfg(test)]
mod tests {
    use std::string::ToString as _;

    use proptest::prelude::*;

    use super::*;

    const FULL: [(&str, &str); 5] = [
        ("CNI_CONTAINERID", "abc"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];

    /// A call with all variables set, some of them to other values.
    fn call(command: &str, changes: &[(&str, &[u8])]) -> Result<Option<Invocation>, Error> {
        parse(|name| {
            let ordinary = || FULL.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_bytes().to_vec());
            match name {
                "CNI_COMMAND" => Some(command.into()),
                _ => match changes.iter().find(|(n, _)| *n == name) {
                    Some((_, value)) => Some(value.to_vec()),
                    None => ordinary(),
                },
            }
        })
    }

    fn ok(command: &str, changes: &[(&str, &[u8])]) -> Invocation {
        call(command, changes).expect("a valid environment").expect("a verb")
    }

    fn refused(command: &str, changes: &[(&str, &[u8])]) -> Error {
        let error = call(command, changes).expect_err("an invalid environment");
        assert_eq!(error.code(), Code::InvalidEnvironment, "{error}");
        error
    }

    // covers: E-01 E-19
    #[test]
    fn every_verb_is_read_with_what_it_works_on() {
        let attachment: Attachment = "abc/eth0".parse().expect("literal");
        let netns = "/run/netns/x".to_string();
        for (text, call) in [
            ("ADD", Call::Add { attachment: attachment.clone(), netns: netns.clone() }),
            ("DEL", Call::Del { attachment: attachment.clone(), netns: Some(netns.clone()) }),
            ("CHECK", Call::Check { attachment: attachment.clone(), netns: netns.clone() }),
            ("GC", Call::Gc),
            ("STATUS", Call::Status),
            ("VERSION", Call::Version),
        ] {
            let invocation = ok(text, &[]);
            assert_eq!(invocation.call, call);
            assert_eq!(invocation.verb().to_string(), text);
            let has_pod = matches!(text, "ADD" | "DEL" | "CHECK");
            assert_eq!(invocation.attachment(), has_pod.then_some(&attachment));
            assert_eq!(invocation.netns(), has_pod.then_some(netns.as_str()));
            assert_eq!(invocation.args, if has_pod { "IgnoreUnknown=1" } else { "" });
            assert_eq!(invocation.path, "/opt/cni/bin");
        }
    }

    // covers: E-02
    #[test]
    fn unknown_verbs_are_refused_by_name() {
        for verb in ["add", "Add", "ADD ", " ADD", "FOO", "ADD\n", "not found"] {
            let error = refused(verb, &[]);
            assert_eq!(error.msg(), crate::error::neutral(&format!("unknown CNI_COMMAND {}", Excerpt::of(verb))));
        }
    }

    // covers: E-03
    #[test]
    fn no_verb_is_an_outcome_of_its_own() {
        assert_eq!(parse(|_| None), Ok(None));
        assert_eq!(parse(|_| Some(Vec::new())), Ok(None));
    }

    // covers: E-04 E-05 E-06 E-07 E-08
    #[test]
    fn each_verb_needs_its_own_variables_and_empty_is_unset() {
        for verb in Verb::ALL {
            for (name, _) in FULL {
                let result = call(verb.as_str(), &[(name, b"")]);
                if required(verb).contains(&name) {
                    let error = result.expect_err("a missing variable");
                    assert_eq!(error.code(), Code::InvalidEnvironment);
                    assert!(error.msg().contains(name), "{error}");
                } else {
                    assert!(result.is_ok(), "{verb} without {name}: {result:?}");
                }
            }
        }
        let names = |command: &str| {
            let error = parse(|name| (name == "CNI_COMMAND").then(|| command.into())).expect_err("all missing");
            error.msg().rsplit(": ").next().expect("a list").to_string()
        };
        assert_eq!(names("ADD"), "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME");
        assert_eq!(names("CHECK"), "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME");
        assert_eq!(names("DEL"), "CNI_CONTAINERID, CNI_IFNAME");
        assert_eq!(names("GC"), "CNI_PATH");
    }

    // covers: E-05
    #[test]
    fn del_does_without_a_namespace() {
        let long = [b"/".as_slice(), &[b'n'; NETNS_MAX]].concat();
        for netns in [b"".as_slice(), b"relative", b"/\xff", b"/a\0b", &long] {
            assert_eq!(ok("DEL", &[("CNI_NETNS", netns)]).netns(), None);
        }
        for args in [b"\xff".as_slice(), &[b'x'; ARGS_MAX + 1]] {
            assert_eq!(ok("DEL", &[("CNI_ARGS", args)]).args, "");
        }
    }

    // covers: E-08 E-09 E-17 T-11
    #[test]
    fn what_a_verb_does_not_need_is_not_judged() {
        let none: &[(&str, &[u8])] =
            &[("CNI_CONTAINERID", b""), ("CNI_NETNS", b""), ("CNI_IFNAME", b""), ("CNI_ARGS", b"")];
        let bad: &[(&str, &[u8])] =
            &[("CNI_CONTAINERID", b"../x"), ("CNI_NETNS", b"dummy"), ("CNI_IFNAME", b"../x"), ("CNI_ARGS", b"\xff")];
        for verb in ["GC", "STATUS", "VERSION"] {
            for changes in [none, bad] {
                let invocation = ok(verb, changes);
                assert_eq!((invocation.attachment(), invocation.netns()), (None, None));
                assert_eq!(invocation.args, "");
            }
        }
        assert_eq!(ok("ADD", &[("CNI_PATH", b"\xff")]).path, "");
    }

    // covers: E-10 E-11 E-12 E-13 E-18
    #[test]
    fn container_ids_are_judged_for_every_verb_that_has_one() {
        let long = [b'f'; 128];
        for good in [b"a".as_slice(), b"A9_.-", &long[..64], &long] {
            assert!(call("ADD", &[("CNI_CONTAINERID", good)]).is_ok());
        }
        let huge = vec![b'f'; 128 * 1024];
        for verb in ["ADD", "DEL", "CHECK"] {
            for bad in
                [b"".as_slice(), b".a", b"-a", b"_a", b"a/b", b"../../etc/x", b"a b", b"a\n", "é".as_bytes(), &huge]
            {
                let error = refused(verb, &[("CNI_CONTAINERID", bad)]);
                assert!(error.msg().contains("CNI_CONTAINERID"), "{error}");
                assert!(error.details().len() < 400 && !error.details().contains('\n'));
            }
        }
    }

    // covers: E-15 E-16 E-18
    #[test]
    fn interface_names_are_judged_for_every_verb_that_has_one() {
        assert!(call("ADD", &[("CNI_IFNAME", b"fifteen-bytes-x")]).is_ok());
        for verb in ["ADD", "DEL", "CHECK"] {
            let unicode = ["éééééééé".as_bytes(), "a\u{a0}b".as_bytes()];
            let plain: [&[u8]; 11] =
                [b"sixteen-bytes-xx", b"a/b", b"a:b", b"a b", b".", b"..", b"lo", b"all", b"default", b"e%d", b"a\x07"];
            for bad in plain.into_iter().chain(unicode) {
                let error = refused(verb, &[("CNI_IFNAME", bad)]);
                assert_eq!(error.msg(), "invalid CNI_IFNAME");
            }
        }
        let error = refused("ADD", &[("CNI_IFNAME", b"a/b")]);
        assert!(error.details().starts_with("\"a/b\" may not hold"), "{error}");
    }

    // covers: E-28 E-12
    #[test]
    fn values_that_are_no_text_or_too_long_are_refused() {
        let netns = [b"/".as_slice(), &[b'n'; NETNS_MAX]].concat();
        let args = [b'x'; ARGS_MAX + 1];
        for verb in ["ADD", "CHECK"] {
            for (name, bad) in [
                ("CNI_CONTAINERID", b"\xff".as_slice()),
                ("CNI_IFNAME", b"eth\xff"),
                ("CNI_NETNS", b"/\xff"),
                ("CNI_NETNS", b"relative/path"),
                ("CNI_NETNS", b"/a\0b"),
                ("CNI_NETNS", &netns),
                ("CNI_ARGS", b"A=\xff"),
                ("CNI_ARGS", &args),
            ] {
                assert_eq!(refused(verb, &[(name, bad)]).msg(), format!("invalid {name}"));
            }
            assert!(call(verb, &[("CNI_NETNS", &netns[..NETNS_MAX]), ("CNI_ARGS", &args[..ARGS_MAX])]).is_ok());
        }
        assert_eq!(refused("GC", &[("CNI_PATH", b"\xff")]).msg(), "invalid CNI_PATH");
        assert!(refused("\u{fffd}", &[]).msg().starts_with("unknown CNI_COMMAND"));
    }

    // covers: E-27
    #[test]
    fn no_other_variable_is_ever_read() {
        for command in Verb::ALL {
            let _ = parse(|name| {
                let known = FULL.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_bytes().to_vec());
                Some(known.unwrap_or_else(|| {
                    assert_eq!(name, "CNI_COMMAND");
                    command.as_str().into()
                }))
            });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        // covers: E-10 E-28
        #[test]
        fn any_bytes_give_a_value_or_code_4(verb in 0usize..7, bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let lookup = |name: &str| match (name, Verb::ALL.get(verb)) {
                ("CNI_COMMAND", Some(command)) => Some(command.as_str().into()),
                _ => Some(bytes.clone()),
            };
            if let Err(error) = parse(lookup) {
                prop_assert_eq!(error.code(), Code::InvalidEnvironment);
            }
        }
    }
}
