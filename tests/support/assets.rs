//! What a suite needs beside this repository, built or fetched once by its own script `tests/SUITE/assets`. What is in there, the
//! script says.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The directory that the script of this suite prints, filled if need be.
pub fn assets(suite: &'static str) -> &'static str {
    static ASSETS: Mutex<BTreeMap<&str, &str>> = Mutex::new(BTreeMap::new());
    let mut known = ASSETS.lock().expect("unpoisoned");
    let fill = || {
        let script = format!("{}/tests/{suite}/assets", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(&script).stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(output.status.success(), "{script} failed");
        String::from_utf8(output.stdout).expect("text").trim().to_owned().leak() as &str
    };
    known.entry(suite).or_insert_with(fill)
}
