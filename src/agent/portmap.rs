//! The reference plugin `portmap`, which makes host ports: whether it can stand behind flock in the runtime's list, and
//! which versions of the protocol it leaves to that list.
//!
//! A list speaks one version with all its plugins, the newest that it names and the runtime knows. One that names a version
//! which portmap does not know, or a portmap that the runtime does not find or cannot run, fails every pod of the node. So
//! it is asked, by the protocol's own verb for that, and one that gives no answer is left out: pods without host ports are
//! better than no pods.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::cni::version::Version;
use crate::log;
use crate::program::{self, Limits, ProgramError};
use crate::stop::Stop;

/// Where runtimes look for plugins: everywhere unless told otherwise, and in Debian's packages.
pub const PLUGIN_DIRS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// Far longer than an answer takes, and more than any list of versions.
const LIMITS: Limits = Limits { time: Duration::from_secs(5), output: 4096 };

/// The versions that flock and the `portmap` beside it have in common; none without such a plugin that works.
pub fn versions() -> Option<Vec<Version>> {
    let dirs = PLUGIN_DIRS.map(Path::new);
    let program = beside_flock(&dirs)?;
    let asked = ask(&program, LIMITS);
    if let Err(error) = &asked {
        log::warn("portmap does not say which CNI versions it knows and is not chained, so there are no host ports")
            .with("file", program.display())
            .with("err", error)
            .write_limited();
    }
    asked.ok()
}

/// The `portmap` in the directory in which flock is. One that is elsewhere is not where the runtime looks.
fn beside_flock(dirs: &[&Path]) -> Option<PathBuf> {
    let dir = dirs.iter().find(|dir| ["flock", "portmap"].iter().all(|plugin| dir.join(plugin).is_file()))?;
    Some(dir.join("portmap"))
}

/// Why nobody knows which versions a plugin knows.
#[derive(Debug)]
enum Silence {
    /// It said nothing.
    Program(ProgramError),
    /// What it said names no version that flock knows, too.
    NoVersions,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::Program(ProgramError::Io(error)) => write!(f, "cannot be run: {error}"),
            Silence::Program(error) => write!(f, "{error}"),
            Silence::NoVersions => f.write_str("printed no list of versions that flock knows"),
        }
    }
}

/// What the plugin says to VERSION.
fn ask(program: &Path, limits: Limits) -> Result<Vec<Version>, Silence> {
    let said = program::output(
        program,
        |command| {
            command.env_clear().env("CNI_COMMAND", "VERSION").stderr(Stdio::null());
        },
        br#"{"cniVersion":"1.0.0"}"#,
        limits,
        &Stop::default(),
    );
    let answer: Value = serde_json::from_slice(&said.map_err(Silence::Program)?).unwrap_or_default();
    let listed = answer.get("supportedVersions").and_then(Value::as_array).into_iter().flatten();
    let known: Vec<Version> = listed.filter_map(Value::as_str).filter_map(Version::from_text).collect();
    if known.is_empty() { Err(Silence::NoVersions) } else { Ok(known) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;
    use std::time::Instant;

    /// A directory with these programs, which ends with the value.
    struct Plugins(PathBuf);

    impl Plugins {
        fn new(name: &str, programs: &[(&str, &str)]) -> Plugins {
            let dir = std::env::temp_dir().join(format!("flock-portmap-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).expect("made");
            for (program, script) in programs {
                // By another process: what a child of another test holds open for writing cannot be run.
                let mut writer = Command::new("sh");
                writer.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""#, "sh", script]);
                assert!(writer.arg(dir.join(program)).status().expect("a shell").success());
            }
            Plugins(dir)
        }
    }

    impl Drop for Plugins {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// What is made of a plugin that does this.
    fn asked(name: &str, script: &str) -> Result<Vec<Version>, Silence> {
        let plugins = Plugins::new(name, &[("portmap", script)]);
        ask(&plugins.0.join("portmap"), Limits { time: Duration::from_secs(2), ..LIMITS })
    }

    #[test]
    fn only_a_portmap_beside_flock_is_where_the_runtime_looks() {
        let ours = Plugins::new("ours", &[("flock", ""), ("bridge", "")]);
        let theirs = Plugins::new("theirs", &[("portmap", "")]);
        assert_eq!(beside_flock(&[&ours.0, &theirs.0]), None);
        assert_eq!(beside_flock(&[Path::new("/nonexistent")]), None);
        let both = Plugins::new("both", &[("flock", ""), ("portmap", "")]);
        assert_eq!(beside_flock(&[&ours.0, &theirs.0, &both.0]), Some(both.0.join("portmap")));
    }

    #[test]
    fn a_plugin_says_which_versions_it_knows_and_is_asked_as_the_protocol_says() {
        let says = r#"read -r request; case $CNI_COMMAND,$request in VERSION,'{"cniVersion":'*) ;; *) exit 1 ;; esac
echo '{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.4.0","1.0.0","9.9.9"]}'"#;
        // The request ends without a line end, which `read` takes for a failure but reads all the same.
        assert_eq!(asked("says", says).expect("an answer"), [Version::V0_4_0, Version::V1_0_0]);
    }

    #[test]
    fn a_plugin_that_does_not_answer_is_given_up() {
        for (name, script) in [
            ("silent", ":"),
            ("prose", "echo portmap 1.0"),
            ("nothing", r#"echo '{"supportedVersions":[]}'"#),
            ("foreign", r#"echo '{"supportedVersions":["9.9.9"]}'"#),
        ] {
            asked(name, script).expect_err(name);
        }
        ask(Path::new("/nonexistent/portmap"), LIMITS).expect_err("not there");
        let began = Instant::now();
        let error = asked("hung", "exec sleep 60").expect_err("hung");
        assert!(matches!(error, Silence::Program(ProgramError::TooSlow(_))), "{error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    }

    #[test]
    fn a_wrapper_that_leaves_something_behind_does_not_hold_the_agent_up() {
        // What it leaves holds the pipe open for longer than the limit.
        let script = r#"sleep 5 & echo '{"supportedVersions":["1.0.0"]}'"#;
        assert_eq!(asked("wrapper", script).expect("an answer"), [Version::V1_0_0]);
    }
}
