//! What a suite needs beside this repository, built or fetched once by its own script `tests/SUITE/assets`. What is in there, the
//! script says.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The directory that the script of this program's suite prints, filled if need be.
pub fn assets(suite: &str) -> &'static str {
    static ASSETS: OnceLock<String> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let script = format!("{}/tests/{suite}/assets", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(&script).stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(output.status.success(), "{script} failed");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    })
}
