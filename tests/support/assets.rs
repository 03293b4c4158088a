//! What a suite needs beside this repository, built or fetched once by its own script `tests/SUITE/assets`. What is in there, and
//! what else it can be asked for, the script says.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// The directory that the script of this suite prints, filled if need be. A word behind the suite's name is for the script.
pub fn assets(wanted: &'static str) -> &'static str {
    static ASSETS: Mutex<BTreeMap<&str, &str>> = Mutex::new(BTreeMap::new());
    let mut known = ASSETS.lock().expect("unpoisoned");
    let fill = || {
        let mut words = wanted.split(' ');
        let script = format!("{}/tests/{}/assets", env!("CARGO_MANIFEST_DIR"), words.next().expect("a suite"));
        let output = Command::new(&script).args(words).stderr(Stdio::inherit()).output();
        let output = output.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert!(output.status.success(), "{script} failed");
        String::from_utf8(output.stdout).expect("text").trim().to_owned().leak() as &str
    };
    known.entry(wanted).or_insert_with(fill)
}
