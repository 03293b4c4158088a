//! The configuration of a container runtime.

use flock::install::toml::{self, Value};

use super::assert_one_line;

const KEYS: [&[&str]; 5] = [
    &["version"],
    &["imports"],
    &["plugins", "io.containerd.grpc.v1.cri", "cni", "bin_dir"],
    &["plugins", "io.containerd.cri.v1.runtime", "cni", "bin_dirs"],
    &["crio", "network", "plugin_dirs"],
];

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match toml::read(&text) {
        Ok(document) => {
            // Whatever stands before it: a table begins anew, and what was read before is as it was.
            let longer = toml::read(&format!("{text}\n[\"io.containerd\".mark]\nq = 'v'\n")).expect("still TOML");
            assert_eq!(longer.text(&["io.containerd", "mark", "q"]), Some("v"));
            for key in KEYS {
                assert_eq!(longer.get(key), document.get(key));
                let bytes: usize = match document.get(key) {
                    Some(Value::Text(text) | Value::Word(text)) => text.len(),
                    Some(Value::List(list)) => list.iter().map(String::len).sum(),
                    None => 0,
                };
                assert!(bytes <= text.len(), "a value is longer than all of the text");
            }
        }
        Err(error) => {
            assert_one_line(&error.to_string(), 100);
            assert!((1..=1 + text.matches('\n').count()).contains(&error.line), "{error}");
        }
    }
}
