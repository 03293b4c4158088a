//! Outputs that are promises, as files in `tests/data/operator`: a test compares, and `BLESS=1` writes the file anew for a
//! reviewer to see the difference. For tests only; must not be in any product.

use std::fs;
use std::path::Path;

/// Compares `text` with the file of this name.
#[track_caller]
pub(crate) fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/operator").join(name);
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, text).expect("writable");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "another output than {name} (BLESS=1 writes it anew):\n{text}");
}
