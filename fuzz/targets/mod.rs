//! What is fuzzed: one file per kind of input, each with one function that must hold for any bytes.
//!
//! A check asserts more than the absence of a panic: what was read, written and read again is equal; bounds hold; texts for
//! people are one bounded line that names the field. The fuzzer (`make fuzz`) and `tests/stories/fuzz_seeds.rs` run the same functions,
//! so they must not use anything that only one of the two has.

pub(crate) mod annotations;
pub(crate) mod args;
pub(crate) mod bird;
pub(crate) mod environment;
pub(crate) mod import;
pub(crate) mod kubeconfig;
pub(crate) mod netconf;
pub(crate) mod netlink;
pub(crate) mod nodeconfig;
pub(crate) mod note;
pub(crate) mod policies;
pub(crate) mod prev_result;
pub(crate) mod rpc;
pub(crate) mod ruleset_events;
pub(crate) mod state;
pub(crate) mod toml;
pub(crate) mod watch;

/// Must hold for any bytes.
pub(crate) type Check = fn(&[u8]);

/// Every target by the name of its file and of its directory in `fuzz/seeds`.
pub(crate) const ALL: &[(&str, Check)] = &[
    ("annotations", annotations::check),
    ("args", args::check),
    ("bird", bird::check),
    ("environment", environment::check),
    ("import", import::check),
    ("kubeconfig", kubeconfig::check),
    ("netconf", netconf::check),
    ("netlink", netlink::check),
    ("nodeconfig", nodeconfig::check),
    ("note", note::check),
    ("policies", policies::check),
    ("prev_result", prev_result::check),
    ("rpc", rpc::check),
    ("ruleset_events", ruleset_events::check),
    ("state", state::check),
    ("toml", toml::check),
    ("watch", watch::check),
];

/// A text that ends in a log line, an event or a status: bounded, and without what could end the line.
#[track_caller]
fn assert_one_line(text: &str, max_bytes: usize) {
    assert!(!text.is_empty(), "an empty text explains nothing");
    assert!(text.len() <= max_bytes, "{} bytes of text: {:.200}…", text.len(), text);
    assert!(!text.chars().any(char::is_control), "not one line: {text:?}");
}

/// The error object of the CNI as a runtime gets it.
#[track_caller]
fn assert_fit_for_a_runtime(error: &cni::error::Error) {
    use cni::error::TEXT_MAX;
    assert_one_line(error.msg(), TEXT_MAX);
    if !error.details().is_empty() {
        assert_one_line(error.details(), TEXT_MAX);
    }
    // containerd takes a failed DEL with these words for done.
    let text = error.to_string().to_ascii_lowercase();
    assert!(!text.contains("not found") && !text.contains("no such file or directory"), "{text}");
    let object: serde_json::Value = serde_json::from_str(&error.to_json(None)).expect("the error object is JSON");
    assert_eq!(object["code"], error.code().number());
}
