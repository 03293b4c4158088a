//! The network configuration on stdin (CNI specification, sections 1 and 3) as a checked value.
//!
//! Operators edit configurations while pods run, runtimes and newer versions add keys, and a call that fails on DEL is
//! repeated for ever. So a key is judged only for the verbs that need it, unknown keys are passed over without being
//! built in memory, and nothing of a value appears in an error but names and versions: the rest may be secret.
//!
//! It must not decide from the configuration what ADD once did; that stands in the agent's record.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{Code, Error};
use crate::result::WireResult;
use crate::verb::Verb;
use crate::version::Version;
use model::addr::{Attachment, check_identifier};
use model::excerpt::Excerpt;

/// Longest configuration, in bytes. Pods may have 256 KiB of annotations.
pub const STDIN_MAX: usize = 1024 * 1024;

/// Longest network name, in bytes. A limit of ours: the name becomes part of file names of runtimes.
pub const NAME_MAX: usize = 128;

/// Longest path of a Unix socket, in bytes (`sun_path` less the final zero).
pub const SOCKET_MAX: usize = 107;

/// How many bad entries of a list are shown. A report needs an example, not the list.
const IGNORED_SHOWN: usize = 8;

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// What flock reads of its configuration. All keys that are not named here are ignored, `type` among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetConf {
    /// `cniVersion`
    pub version: Version,
    /// `name` of the network: the scope of GC. Characters as for a container id, at most [`NAME_MAX`] bytes.
    pub name: String,
    /// `socket` of the agent if it is not the usual one: absolute, at most [`SOCKET_MAX`] bytes, no zero byte.
    pub socket: Option<String>,
    /// `prevResult`, for CHECK and DEL. Always there for CHECK; for DEL only when it can be read; ADD is refused with one.
    pub prev_result: Option<WireResult>,
    /// `runtimeConfig["io.kubernetes.cri.pod-annotations"]`, for ADD. `None`: the runtime does not tell. Empty: it
    /// tells that there are none.
    pub annotations: Option<BTreeMap<String, String>>,
    /// `cni.dev/valid-attachments`, for GC.
    pub valid_attachments: ValidAttachments,
}

/// The attachments that GC must leave alone. "Not told" and "none" are far apart: one means hands off, the other that
/// everything may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidAttachments {
    /// The key is not there.
    Absent,
    /// The key is there; `null` counts as the empty list.
    Set {
        /// The well-formed entries. Equal ones are one.
        valid: BTreeSet<Attachment>,
        /// The number of entries that name nothing flock could have made, and so protect nothing.
        ignored: usize,
        /// Some of these, quoted and with their fault, for a report.
        examples: Vec<String>,
    },
}

/// What the plugin itself needs of a configuration. The rest is the agent's to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// As in [`NetConf`].
    pub version: Version,
    /// As in [`NetConf`].
    pub name: String,
    /// As in [`NetConf`].
    pub socket: Option<String>,
}

impl NetConf {
    /// The rule for CHECK: the state to compare with is required.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`] when there is no `prevResult`.
    pub fn expected_state(&self) -> Result<&WireResult, Error> {
        self.prev_result.as_ref().ok_or_else(no_expected_state)
    }
}

fn no_expected_state() -> Error {
    Error::new(Code::InvalidConfig, "CHECK needs a prevResult, and the configuration has none")
}

/// Reads the configuration for a verb. VERSION has no use for it, see `version::answer`.
///
/// Keys match by exact spelling, the last of equal ones wins, and `null` is absent (but see [`ValidAttachments`]).
///
/// All verbs need a version, a name, and a `socket` that is sound if it is there: DEL too, since the agent at another
/// socket would know nothing of the pod, answer success, and leave the address taken. DEL forgives everything else.
///
/// # Errors
/// - [`Code::Decode`]: not one JSON object of at most [`STDIN_MAX`] bytes of UTF-8, or a value of the wrong type.
/// - [`Code::IncompatibleVersion`]: no `cniVersion` (by the specification that means 0.1.0), one that flock does not
///   know, or one without the verb.
/// - [`Code::InvalidConfig`]: a bad or missing name, a bad socket, CHECK without `prevResult`, ADD with one.
pub fn parse(bytes: &[u8], command: Verb) -> Result<NetConf, Error> {
    let object = Object::parse(bytes)?;
    let Outline { version, name, socket } = object.outline(command)?;
    let conf = NetConf {
        version,
        name,
        socket,
        prev_result: match command {
            Verb::Check => object.prev_result()?,
            Verb::Del => object.prev_result().unwrap_or_default(),
            Verb::Add | Verb::Gc | Verb::Status | Verb::Version => None,
        },
        annotations: match command {
            Verb::Add => object.annotations()?,
            _ => None,
        },
        valid_attachments: match command {
            Verb::Gc => object.valid_attachments()?,
            _ => ValidAttachments::Absent,
        },
    };
    Ok(conf)
}

/// Reads just the keys that the plugin needs, with the same rules and errors for them as [`parse`].
pub fn outline(bytes: &[u8], command: Verb) -> Result<Outline, Error> {
    Object::parse(bytes)?.outline(command)
}

/// The version of a configuration that may be wrong in any other way: for the error object about it.
pub fn version_of(bytes: &[u8]) -> Option<Version> {
    Object::parse(bytes).ok()?.version().ok()
}

/// The keys of a JSON object, with values that have been checked for syntax only. Depth costs nothing this way.
struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Object<'a>, Error> {
        let broken = |why: String| {
            Error::new(Code::Decode, "the configuration on stdin is not one JSON object").with_details(why)
        };
        if bytes.len() > STDIN_MAX {
            return Err(broken(format!("it is longer than {STDIN_MAX} bytes")));
        }
        let text = core::str::from_utf8(bytes)
            .map_err(|e| broken(format!("it is not valid UTF-8 at byte {}", e.valid_up_to())))?;
        if text.trim_ascii().is_empty() {
            return Err(broken("it is empty".into()));
        }
        // Beyond this test all faults are of syntax, and their texts hold nothing of the input.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(broken("it does not begin with a brace".into()));
        }
        serde_json::from_str(text).map(Object).map_err(|e| broken(e.to_string()))
    }

    /// The value of a key, if it is there and not `null`.
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.get(key).copied().filter(|raw| raw.get() != "null")
    }

    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        self.get(key).map(|raw| decode(raw, key, "a string")).transpose()
    }

    fn outline(&self, command: Verb) -> Result<Outline, Error> {
        let version = self.version()?;
        if !version.supports(command) {
            let msg = format!("{command} needs CNI version {} or newer", Version::introduced(command));
            let details = format!("the configuration says {version}");
            return Err(Error::new(Code::IncompatibleVersion, msg).with_details(details));
        }
        let outline = Outline { version, name: self.name()?, socket: self.socket()? };
        match (command, self.get("prevResult")) {
            // flock makes the interface, so it comes first in a chain. It would have to keep foreign interfaces and
            // indexes of an earlier result intact, and no known use asks for that.
            (Verb::Add, Some(_)) => {
                let msg = "flock must be the first plugin of the list, but ADD came with a prevResult";
                Err(Error::new(Code::InvalidConfig, msg))
            }
            (Verb::Check, None) => Err(no_expected_state()),
            _ => Ok(outline),
        }
    }

    fn version(&self) -> Result<Version, Error> {
        let supported = format!("flock supports {}", Version::list());
        let incompatible = |msg: String| Err(Error::new(Code::IncompatibleVersion, msg).with_details(&supported));
        match self.text("cniVersion")?.filter(|text| !text.is_empty()) {
            None => incompatible("the configuration has no cniVersion, which means the unsupported 0.1.0".into()),
            Some(text) => match Version::from_text(&text) {
                Some(version) => Ok(version),
                None => incompatible(format!("CNI version {} is not supported", Excerpt::of(&text))),
            },
        }
    }

    fn name(&self) -> Result<String, Error> {
        let name = self.text("name")?.unwrap_or_default();
        let broken = |why: String| Error::new(Code::InvalidConfig, "invalid network name").with_details(why);
        check_identifier(&name).map_err(|rule| broken(format!("key \"name\" is {}: it {rule}", Excerpt::of(&name))))?;
        if name.len() > NAME_MAX {
            return Err(broken(format!("key \"name\" is {}: it is longer than {NAME_MAX} bytes", Excerpt::of(&name))));
        }
        Ok(name)
    }

    fn socket(&self) -> Result<Option<String>, Error> {
        let Some(path) = self.text("socket")? else { return Ok(None) };
        if !path.starts_with('/') || path.len() > SOCKET_MAX || path.contains('\0') {
            let msg = format!("key \"socket\" must be an absolute path of at most {SOCKET_MAX} bytes");
            return Err(Error::new(Code::InvalidConfig, msg).with_details(Excerpt::of(&path)));
        }
        Ok(Some(path))
    }

    /// The shape is judged, not the content: what other plugins put there is theirs. The version that it claims may
    /// differ from the configuration's or lack; all five read alike.
    fn prev_result(&self) -> Result<Option<WireResult>, Error> {
        let read = |raw: &RawValue| WireResult::read(raw.get()).map_err(|e| wrong("prevResult", "a CNI result", &e));
        self.get("prevResult").map(read).transpose()
    }

    fn annotations(&self) -> Result<Option<BTreeMap<String, String>>, Error> {
        let Some(raw) = self.get("runtimeConfig") else { return Ok(None) };
        let runtime_config: BTreeMap<String, &RawValue> = decode(raw, "runtimeConfig", "an object")?;
        let Some(raw) = runtime_config.get(ANNOTATIONS) else { return Ok(None) };
        let key = format!("runtimeConfig[{ANNOTATIONS:?}]");
        // A Go program that has no annotations to tell prints `null` for its empty map.
        let annotations: Option<_> = decode(raw, &key, "an object of strings")?;
        Ok(Some(annotations.unwrap_or_default()))
    }

    fn valid_attachments(&self) -> Result<ValidAttachments, Error> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(rename = "containerID")]
            container_id: String,
            ifname: String,
        }
        // The second spelling is that of the tagged 1.1.0 text. libcni sends both.
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let Some((key, raw)) = keys.iter().find_map(|key| self.0.get(*key).map(|raw| (key, raw))) else {
            return Ok(ValidAttachments::Absent);
        };
        // A list of another shape is refused as a whole: to read it as "nothing is valid" would cost pods.
        let entries: Option<Vec<Entry>> = decode(raw, key, "a list of objects with containerID and ifname")?;
        let (mut valid, mut ignored, mut examples) = (BTreeSet::new(), 0, Vec::new());
        for entry in entries.unwrap_or_default() {
            match entry.container_id.parse().and_then(|container_id| {
                let ifname = entry.ifname.parse()?;
                Ok::<_, model::addr::AddrError>(Attachment { container_id, ifname })
            }) {
                Ok(attachment) => {
                    valid.insert(attachment);
                }
                Err(rule) => {
                    ignored += 1;
                    if examples.len() < IGNORED_SHOWN {
                        examples.push(format!(
                            "{} {} {rule}",
                            Excerpt::of(&entry.container_id),
                            Excerpt::of(&entry.ifname)
                        ));
                    }
                }
            }
        }
        Ok(ValidAttachments::Set { valid, ignored, examples })
    }
}

/// A value as the type that its key asks for.
fn decode<'a, T: Deserialize<'a>>(raw: &'a RawValue, key: &str, expected: &str) -> Result<T, Error> {
    serde_json::from_str(raw.get()).map_err(|e| wrong(key, expected, &e))
}

/// Says where in the value the fault is, and nothing of its content, which serde would quote.
fn wrong(key: &str, expected: &str, fault: &serde_json::Error) -> Error {
    let place = format!("line {} column {} of the value", fault.line(), fault.column());
    Error::new(Code::Decode, format!("key {} must be {expected}", Excerpt::of(key))).with_details(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A configuration with these further keys.
    fn with(version: &str, keys: &str) -> String {
        let comma = if keys.is_empty() { "" } else { "," };
        format!(r#"{{"cniVersion":"{version}","name":"flock","type":"flock"{comma}{keys}}}"#)
    }

    fn ok(text: &str, command: Verb) -> NetConf {
        parse(text.as_bytes(), command).expect(text)
    }

    fn code(text: impl AsRef<[u8]>, command: Verb) -> u32 {
        parse(text.as_ref(), command).expect_err("a bad configuration").code().number()
    }

    /// CHECK needs a prevResult, and ADD must not have one.
    fn prev_for(command: Verb) -> &'static str {
        if command == Verb::Check { "{}" } else { "null" }
    }

    // covers: S-01 S-04 S-07 S-08 S-09 S-15
    #[test]
    fn a_minimal_configuration_and_one_full_of_foreign_keys_are_the_same() {
        let minimal = ok(&with("1.1.0", ""), Verb::Add);
        let expected = NetConf {
            version: Version::V1_1_0,
            name: "flock".into(),
            socket: None,
            prev_result: None,
            annotations: None,
            valid_attachments: ValidAttachments::Absent,
        };
        assert_eq!(minimal, expected);
        let foreign = r#""ipam":{"type":"x","y":[1e999]},"args":{"a":"\ud800"},"capabilities":{"portMappings":true},
            "runtimeConfig":{"portMappings":[{"hostPort":80}]},"cni.dev/foo":{"socket":"/x"},"disableCheck":"yes",
            "plugins":7,"cniVersions":null,"prevResult":null,"socket":null"#;
        assert_eq!(ok(&with("1.1.0", foreign), Verb::Add), expected);
        let typeless = r#"{"cniVersion":"1.1.0","name":"flock","type":17}"#;
        assert_eq!(ok(typeless, Verb::Add), expected);
    }

    // covers: S-02
    #[test]
    fn what_is_not_one_object_is_code_6() {
        let good = with("1.1.0", "");
        let bom = format!("\u{feff}{good}");
        let two = format!("{good}{good}");
        let text =
            ["", " \n", "null", "[]", "\"x\"", "7", "{", "{]", "{\"a\"}", "{\"a\":}", "{a:1}", &bom, &two, &good[1..]];
        let mut all: Vec<&[u8]> = text.into_iter().map(str::as_bytes).collect();
        all.extend([b"\xff".as_slice(), b"{\"name\":\"\xff\"}", b"{\"\xff\":1}", b"{\"x\":\"a\nb\"}"]);
        for bad in all {
            assert_eq!(code(bad, Verb::Add), 6, "{}", String::from_utf8_lossy(bad));
            assert_eq!(code(bad, Verb::Del), 6);
        }
        let error = parse(b"{\"a\":tru}", Verb::Add).expect_err("bad syntax");
        assert_eq!(error.details(), "expected ident at line 1 column 9");
    }

    // covers: S-03
    #[test]
    fn a_network_name_is_needed_by_every_verb() {
        for command in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
            let prev = prev_for(command);
            let named = |name: &str| format!(r#"{{"cniVersion":"1.1.0"{name},"prevResult":{prev}}}"#);
            let long = format!(r#","name":"{}""#, "n".repeat(NAME_MAX + 1));
            for bad in [
                "",
                r#","name":"""#,
                r#","name":null"#,
                r#","name":"a/b""#,
                r#","name":"..""#,
                r#","name":"a\u0000""#,
                &long,
            ] {
                assert_eq!(code(named(bad), command), 7, "{bad}");
            }
            for bad in [r#","name":7"#, r#","name":["a"]"#, r#","name":"\ud800""#] {
                assert_eq!(code(named(bad), command), 6, "{bad}");
            }
            assert!(parse(named(r#","name":"a-b_c.d""#).as_bytes(), command).is_ok());
        }
    }

    // covers: S-05 S-06
    #[test]
    fn versions_are_exact_and_a_missing_one_is_not_supported() {
        for version in Version::ALL {
            assert_eq!(ok(&with(version.as_str(), ""), Verb::Add).version, version);
        }
        for bad in ["", "1.1", "v1.1.0", "1.1.0-rc1", "2.0.0", "0.1.0", "0.2.0", "1.1.0 ", "x"] {
            assert_eq!(code(with(bad, ""), Verb::Add), 1, "{bad}");
        }
        for missing in ["{}", r#"{"name":"flock"}"#, r#"{"cniVersion":null,"name":"flock"}"#] {
            let error = parse(missing.as_bytes(), Verb::Del).expect_err("no version");
            assert_eq!(error.code(), Code::IncompatibleVersion);
            assert_eq!(error.details(), "flock supports 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
        }
        assert_eq!(code(r#"{"cniVersion":1.1,"name":"flock"}"#, Verb::Add), 6);
    }

    // covers: K-01 G-01 T-01
    #[test]
    fn verbs_that_a_version_lacks_are_code_1() {
        for version in Version::ALL {
            for command in [Verb::Check, Verb::Gc, Verb::Status] {
                let result = parse(with(version.as_str(), r#""prevResult":{}"#).as_bytes(), command);
                match version.supports(command) {
                    true => assert!(result.is_ok(), "{result:?}"),
                    false => assert_eq!(result.expect_err("too old").code(), Code::IncompatibleVersion),
                }
            }
        }
        let error = parse(with("0.3.1", "").as_bytes(), Verb::Check).expect_err("too old");
        assert_eq!(error.to_string(), "CHECK needs CNI version 0.4.0 or newer; the configuration says 0.3.1");
    }

    // covers: S-11
    #[test]
    fn size_and_depth_are_bounded() {
        let pairs: Vec<_> = (0..256).map(|i| format!(r#""k{i}":"{}""#, "v".repeat(1024))).collect();
        let keys =
            format!(r#""runtimeConfig":{{"{ANNOTATIONS}":{{{}}}}},"pad":"{}""#, pairs.join(","), "p".repeat(64 * 1024));
        let annotations = ok(&with("1.1.0", &keys), Verb::Add).annotations.expect("annotations");
        assert_eq!((annotations.len(), annotations["k255"].len()), (256, 1024));

        let padded = |len| [with("1.1.0", "").as_bytes(), &vec![b' '; len]].concat();
        assert!(parse(&padded(4096), Verb::Add).is_ok());
        assert_eq!(code(padded(STDIN_MAX), Verb::Add), 6);
        assert_eq!(code(padded(8 * STDIN_MAX), Verb::Del), 6);

        let bomb = "[".repeat(300_000) + &"]".repeat(300_000);
        assert!(parse(with("1.1.0", &format!(r#""x":{bomb}"#)).as_bytes(), Verb::Add).is_ok());
        assert_eq!(code(with("1.1.0", &format!(r#""prevResult":{bomb}"#)), Verb::Check), 6);
        assert_eq!(code(with("1.1.0", &format!(r#""name":{bomb}"#)), Verb::Add), 6);
        assert_eq!(code("[".repeat(STDIN_MAX), Verb::Add), 6);
    }

    // covers: S-10
    #[test]
    fn annotations_come_from_the_runtime_on_add() {
        let of = |runtime_config: &str, command| {
            let keys = format!(r#""prevResult":{},"runtimeConfig":{runtime_config}"#, prev_for(command));
            parse(with("1.0.0", &keys).as_bytes(), command)
        };
        let key = format!(r#""{ANNOTATIONS}""#);
        let told = of(&format!(r#"{{{key}:{{"a":"1","b":"x\u0000\n\u2028"}}}}"#), Verb::Add).expect("valid");
        let expected = [("a", "1"), ("b", "x\0\n\u{2028}")].map(|(k, v)| (k.to_string(), v.to_string()));
        assert_eq!(told.annotations, Some(expected.into()));
        for silent in ["null", "{}", r#"{"portMappings":[]}"#] {
            assert_eq!(of(silent, Verb::Add).expect("valid").annotations, None);
        }
        for none in [format!("{{{key}:null}}"), format!("{{{key}:{{}}}}")] {
            assert_eq!(of(&none, Verb::Add).expect("valid").annotations, Some(BTreeMap::new()));
        }
        for bad in ["7", "[]", &format!("{{{key}:7}}"), &format!(r#"{{{key}:{{"a":"secret","b":7}}}}"#)] {
            let error = of(bad, Verb::Add).expect_err("a bad type");
            assert_eq!(error.code(), Code::Decode);
            assert!(error.msg().starts_with("key \"runtimeConfig") && !error.to_string().contains("secret"), "{error}");
            assert_eq!(of(bad, Verb::Check).expect("CHECK has no use for it").annotations, None);
        }
    }

    // covers: S-07
    #[test]
    fn the_socket_is_an_absolute_path_that_fits_for_every_verb() {
        let longest = format!("/{}", "s".repeat(SOCKET_MAX - 1));
        for command in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
            let of = |socket: &str| with("1.1.0", &format!(r#""prevResult":{},"socket":{socket}"#, prev_for(command)));
            assert_eq!(ok(&of(&format!("\"{longest}\"")), command).socket.as_ref(), Some(&longest));
            for bad in [&format!("\"{longest}s\""), "\"\"", "\"run/x\"", r#""/a\u0000b""#, "\"@abstract\""] {
                assert_eq!(code(of(bad), command), 7, "{bad}");
            }
            let error = parse(of("7").as_bytes(), command).expect_err("a number");
            assert_eq!(error.to_string(), r#"key "socket" must be a string; line 1 column 1 of the value"#);
        }
    }

    // covers: S-14
    #[test]
    fn the_last_duplicate_wins_and_spelling_counts() {
        let text =
            r#"{"cniVersion":"0.3.0","name":"a","cniVersion":"1.0.0","n\u0061me":"b","Name":"c","CNIVersion":"2"}"#;
        let conf = ok(text, Verb::Add);
        assert_eq!((conf.version, conf.name.as_str()), (Version::V1_0_0, "b"));
        assert_eq!(code(r#"{"CNIVersion":"1.0.0","name":"a"}"#, Verb::Add), 1);
    }

    // covers: S-12 S-13 C-03
    #[test]
    fn a_prev_result_of_any_version_is_read_by_shape() {
        let text = r#"{"interfaces":[{"name":"flock1","mac":"02:00:00:00:00:01"},
            {"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/n","mtu":9000,"socketPath":"/s"},{"name":"tun0"}],
            "ips":[{"version":"6","address":"2001:db8::5/128","gateway":"fe80::1","interface":1},
            {"address":"10.9.0.1/16","interface":-1},{"address":"10.0.0.5/32","interface":9},
            {"address":"192.0.2.1/24"}],
            "routes":[{"dst":"::/0","gw":"fe80::1","priority":5},{"dst":"10.0.0.0/8"}],"dns":{}CNIVERSION}"#;
        for version in Version::ALL {
            for claim in ["", r#","cniVersion":"0.3.0""#, r#","cniVersion":"9.9.9""#] {
                let keys = format!(r#""prevResult":{}"#, text.replace("CNIVERSION", claim));
                let conf = ok(&with(version.as_str(), &keys), Verb::Del);
                let prev = conf.prev_result.as_ref().expect("a prevResult");
                let owners: Vec<_> = prev.ips.iter().map(|ip| prev.interface_of(ip).map(|i| i.name.as_str())).collect();
                assert_eq!(owners, [Some("eth0"), None, None, None]);
                assert_eq!(prev.interfaces[1].sandbox, "/n");
                assert_eq!(prev.routes[1].dst.to_string(), "10.0.0.0/8");
                let as_add = with(version.as_str(), &keys);
                assert_eq!(code(&as_add, Verb::Add), 7, "flock comes first in a chain");
                let outlined = outline(as_add.as_bytes(), Verb::Add).expect_err("the plugin's own look says the same");
                assert_eq!(outlined.code(), Code::InvalidConfig);
            }
        }
    }

    #[test]
    fn the_plugins_look_judges_as_the_agents() {
        for text in [
            with("1.0.0", ""),
            with("9.0.0", ""),
            with("0.3.1", r#""socket":"x""#),
            "{".into(),
            r#"{"cniVersion":"1.0.0"}"#.into(),
        ] {
            for command in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
                let whole = parse(text.as_bytes(), command).map(|conf| (conf.version, conf.name, conf.socket));
                let outlined = outline(text.as_bytes(), command).map(|conf| (conf.version, conf.name, conf.socket));
                assert_eq!(whole, outlined, "{command} {text}");
            }
        }
    }

    // covers: R-18
    #[test]
    fn what_flock_prints_comes_back_as_prev_result() {
        let made = crate::result::AddResult {
            host_link: "flock1a2b3c4d".parse().expect("literal"),
            host_mac: model::addr::Mac([2, 0, 0, 0, 0, 1]),
            ifname: "eth0".parse().expect("literal"),
            pod_mac: model::addr::Mac([2, 0, 0, 0, 0, 2]),
            netns: "/n".into(),
            mtu: 1500,
            ipv6: Some("2001:db8::5".parse().expect("literal")),
            ipv4: Some("10.0.0.5".parse().expect("literal")),
            gateway4: model::addr::GATEWAY4,
        };
        for printed in Version::ALL {
            let text = made.to_wire().to_json(printed).expect("printable");
            for asked in [Version::V0_4_0, Version::V1_0_0, Version::V1_1_0] {
                let conf = ok(&with(asked.as_str(), &format!(r#""prevResult":{text}"#)), Verb::Check);
                let prev = conf.expected_state().expect("a prevResult");
                assert_eq!((&prev.ips, &prev.routes), (&made.to_wire().ips, &made.to_wire().routes));
                assert_eq!(prev.interfaces[1].mac, "02:00:00:00:00:02");
            }
        }
    }

    // covers: K-02
    #[test]
    fn check_needs_a_prev_result() {
        for none in ["", r#""prevResult":null"#] {
            assert_eq!(code(with("0.4.0", none), Verb::Check), 7);
        }
        for broken in ["7", "[]", r#"{"ips":7}"#, r#"{"ips":[{"address":"x"}]}"#] {
            assert_eq!(code(with("0.4.0", &format!(r#""prevResult":{broken}"#)), Verb::Check), 6, "{broken}");
        }
    }

    // covers: D-07 S-12
    #[test]
    fn del_takes_what_it_can_get() {
        for broken in ["null", "7", "[]", "\"x\"", r#"{"ips":7}"#, r#"{"ips":[{"address":"x"}]}"#, "[[[[]]]]"] {
            let keys = format!(r#""prevResult":{broken},"runtimeConfig":{broken},"cni.dev/valid-attachments":7"#);
            let conf = ok(&with("1.1.0", &keys), Verb::Del);
            assert_eq!((conf.prev_result, conf.annotations), (None, None));
            assert_eq!(conf.valid_attachments, ValidAttachments::Absent);
        }
        assert!(ok(&with("0.4.0", r#""prevResult":{}"#), Verb::Del).prev_result.is_some());
        assert!(ok(&with("0.4.0", r#""mtu":"new","extra":[]"#), Verb::Del).prev_result.is_none());
    }

    fn set(keys: &str) -> Option<(Vec<String>, usize)> {
        match ok(&with("1.1.0", keys), Verb::Gc).valid_attachments {
            ValidAttachments::Absent => None,
            ValidAttachments::Set { valid, ignored, examples } => {
                assert_eq!(examples.len(), ignored.min(IGNORED_SHOWN));
                Some((valid.iter().map(Attachment::to_string).collect(), ignored))
            }
        }
    }

    // covers: G-02 G-03
    #[test]
    fn gc_tells_an_absent_list_from_an_empty_one_and_knows_both_keys() {
        let (new, old) = ("\"cni.dev/valid-attachments\"", "\"cni.dev/attachments\"");
        let a = r#"[{"containerID":"a","ifname":"eth0"}]"#;
        let b = r#"[{"containerID":"b","ifname":"net1","extra":1}]"#;
        let only = |text: &str| Some((vec![text.to_string()], 0));
        let empty = Some((Vec::new(), 0));
        assert_eq!(set(""), None);
        assert_eq!(set(&format!("{new}:{a}")), only("a/eth0"));
        assert_eq!(set(&format!("{old}:{b}")), only("b/net1"));
        assert_eq!(set(&format!("{old}:{b},{new}:{a}")), only("a/eth0"));
        assert_eq!(set(&format!("{new}:{a},{old}:7")), only("a/eth0"));
        for nothing in ["null", "[]"] {
            assert_eq!(set(&format!("{new}:{nothing}")), empty);
            assert_eq!(set(&format!("{old}:{nothing}")), empty);
            assert_eq!(set(&format!("{new}:{nothing},{old}:{b}")), empty);
        }
    }

    // covers: G-12
    #[test]
    fn gc_skips_entries_that_name_nothing_and_refuses_another_shape() {
        let entry = |id: &str, ifname: &str| format!(r#"{{"containerID":"{id}","ifname":"{ifname}"}}"#);
        let mut entries: Vec<_> = (0..5000).map(|i| entry(&format!("c{}", i % 2500), "eth0")).collect();
        entries.extend((0..5000).map(|i| entry(&format!("../{i}"), "eth0")));
        entries.extend([entry("a", ""), entry("", "eth0"), entry("a", "lo"), entry("a", "sixteen-bytes-xx")]);
        let key = "\"cni.dev/valid-attachments\"";
        let (valid, ignored) = set(&format!("{key}:[{}]", entries.join(","))).expect("a list");
        assert_eq!((valid.len(), ignored), (2500, 5004));
        for bad in [
            "7",
            "{}",
            "\"a\"",
            "[7]",
            "[null]",
            "[{}]",
            r#"[{"containerID":"a"}]"#,
            r#"[{"containerID":7,"ifname":"a"}]"#,
        ] {
            assert_eq!(code(with("1.1.0", &format!("{key}:{bad}")), Verb::Gc), 6, "{bad}");
        }
    }

    // covers: T-11
    #[test]
    fn status_needs_version_and_name_only() {
        let bare = r#"{"cniVersion":"1.1.0","name":"flock"}"#;
        assert_eq!(ok(bare, Verb::Status).name, "flock");
        let noisy = with("1.1.0", r#""prevResult":7,"runtimeConfig":7,"cni.dev/valid-attachments":7"#);
        assert!(parse(noisy.as_bytes(), Verb::Status).is_ok());
    }

    // covers: X-03
    #[test]
    fn the_version_for_an_error_object_survives_other_faults() {
        assert_eq!(version_of(br#"{"cniVersion":"0.4.0","name":7}"#), Some(Version::V0_4_0));
        for unknown in [&b""[..], b"{", b"{}", br#"{"cniVersion":"7"}"#, br#"{"cniVersion":7}"#] {
            assert_eq!(version_of(unknown), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        // covers: S-02
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for command in Verb::ALL {
                if let Err(error) = parse(&bytes, command) {
                    prop_assert_eq!(error.code(), Code::Decode);
                }
            }
        }

        // covers: S-03 S-06 S-14
        #[test]
        fn any_types_under_known_keys_give_a_value_or_one_of_three_codes(
            pairs in prop::collection::vec((prop::sample::select(KEYS), prop::sample::select(VALUES)), 0..6),
        ) {
            let known = pairs.iter().map(|(key, value)| format!(r#","{key}":{value}"#)).collect::<String>();
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"flock"{known}}}"#);
            for command in Verb::ALL {
                if let Err(error) = parse(text.as_bytes(), command) {
                    prop_assert!(matches!(error.code().number(), 1 | 6 | 7), "{}", error);
                    prop_assert!(!error.to_json(None).contains('\n'));
                }
            }
        }
    }

    const KEYS: &[&str] = &[
        "cniVersion",
        "name",
        "socket",
        "prevResult",
        "runtimeConfig",
        "cni.dev/valid-attachments",
        "cni.dev/attachments",
    ];

    const VALUES: &[&str] = &[
        "null",
        "true",
        "-1",
        "1e999",
        "\"0.4.0\"",
        "\"/x\"",
        "\"\\ud800\"",
        "[]",
        "[[]]",
        "[null]",
        "{}",
        r#"[["a","eth0"]]"#,
        r#"[{"containerID":"","ifname":"eth0"}]"#,
        r#"{"ips":[{"address":"::1/128","interface":-7}],"interfaces":null}"#,
        r#"{"ips":[["10.0.0.1/8"]]}"#,
        r#"{"io.kubernetes.cri.pod-annotations":{"a":null}}"#,
        r#"{"io.kubernetes.cri.pod-annotations":[]}"#,
    ];
}
