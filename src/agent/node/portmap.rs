//! The reference plugin `portmap`, which makes host ports: where the runtime finds it, whether it can stand behind flock in the
//! runtime's list, and which versions of the protocol it leaves to that list.
//!
//! A list speaks one version with all its plugins, the newest that it names and the runtime knows. One that names a version
//! which portmap does not know, or a portmap that the runtime does not find or cannot run, fails every pod of the node. So
//! it is asked, by the protocol's own verb for that, and one that gives no answer is left out: pods without host ports are
//! better than no pods.
//!
//! Where the runtime looks is known from its calls, which name the directories (`CNI_PATH`). Before the first one, it is taken
//! to look where the plugin is. Must not touch the runtime's list: `conflist` does.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::board::Board;
use crate::process::log;
use crate::process::program::{self, ProgramError, RunLimits};
use crate::process::shutdown::Stop;
use crate::rpc::message::{Query, Response};
use crate::rpc::server::{Answered, Call, Handler};
use cni::conflist::PLUGIN_DIRS;
use cni::version::Version;

/// Longest `CNI_PATH` that is remembered, 4 KiB. Those of runtimes have a few dozen.
const PATH_MAX: usize = 4096;

/// Limits of one question, 5 s and 4 KiB: far more than an answer takes, and more than any list of versions.
const LIMITS: RunLimits = RunLimits { time: Duration::from_secs(5), output: 4096 };

/// Time after which a plugin that gave no answer is asked again, 5 min: perhaps the machine was too busy. The file need not
/// have changed for that.
const SILENCE: Duration = Duration::from_secs(300);

/// Where the runtime looks for plugins, as far as its calls have told. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Search(Board<String>);

impl Search {
    /// Remembers the `CNI_PATH` of a call.
    pub fn told(&self, path: &str) {
        if path.is_empty() || path.len() > PATH_MAX {
            return;
        }
        if *self.0.get() != path {
            self.0.set(path.to_owned());
        }
    }

    /// Where the runtime's portmap is or would be.
    fn find(&self, known_dirs: &[&Path]) -> Whereabouts {
        let path = self.0.get();
        let told: Vec<&Path> = path.split(':').map(Path::new).filter(|dir| dir.is_absolute()).collect();
        let has = |plugin: &'static str| move |dir: &&&Path| dir.join(plugin).is_file();
        // The agent may not see the directories that the runtime sees. If it finds flock there and no portmap, the runtime has
        // none.
        let (flock, dirs) = match told.iter().find(has("flock")) {
            Some(dir) => (*dir, told.as_slice()),
            None => match known_dirs.iter().find(has("flock")) {
                Some(dir) => (*dir, std::slice::from_ref(dir)),
                None => return Whereabouts::NoFlock,
            },
        };
        match dirs.iter().find(has("portmap")) {
            Some(dir) => Whereabouts::At(dir.join("portmap")),
            None => Whereabouts::NotIn(flock.into()),
        }
    }
}

/// Handlers whose callers tell where the runtime looks.
pub struct Overheard<H> {
    handler: Arc<H>,
    search: Search,
}

impl<H> Overheard<H> {
    /// Passes requests on to `handler`, and their `CNI_PATH` to `search`.
    pub fn new(handler: Arc<H>, search: Search) -> Overheard<H> {
        Overheard { handler, search }
    }
}

impl<H: Handler> Handler for Overheard<H> {
    fn handle(&self, call: &Call<'_>) -> Answered {
        self.search.told(&call.request.path);
        self.handler.handle(call)
    }

    fn answer(&self, query: &Query, deadline: Instant) -> Response {
        self.handler.answer(query, deadline)
    }
}

/// Where the runtime's portmap is.
#[derive(Debug, PartialEq, Eq)]
enum Whereabouts {
    /// This is the program.
    At(PathBuf),
    /// The runtime finds flock in this directory, and no portmap.
    NotIn(PathBuf),
    /// Not even flock is where it could be.
    NoFlock,
}

/// Whether pods get host ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPorts {
    /// The plugin that makes them, in these versions.
    By(PathBuf, Vec<Version>),
    /// The plugin that would make them and gives no answer, which the log has said.
    Silent(PathBuf),
    /// The directory in which the runtime finds flock, and no portmap.
    NotIn(PathBuf),
    /// Nobody knows where the runtime looks.
    Unknown,
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPorts::By(portmap, _) => write!(f, "by {}", portmap.display()),
            HostPorts::Silent(portmap) => write!(f, "none, {} does not answer", portmap.display()),
            HostPorts::NotIn(dir) => write!(
                f,
                "none, there is no portmap in {}; install it there (containernetworking-plugins) if pods need them",
                dir.display()
            ),
            HostPorts::Unknown => f.write_str("as before, until a call tells where the runtime has its plugins"),
        }
    }
}

/// What tells a file from another one, or from itself before a change.
type Stamp = (u64, u64, u64, u32, (i64, i64), (i64, i64));

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    let (changed, modified) = ((found.ctime(), found.ctime_nsec()), (found.mtime(), found.mtime_nsec()));
    Some((found.dev(), found.ino(), found.size(), found.mode(), changed, modified))
}

/// The runtime's portmap, asked once for each change of it.
#[derive(Debug)]
pub struct PortmapPlugin {
    search: Search,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    program: PathBuf,
    stamp: Option<Stamp>,
    /// None for one that gave no answer.
    versions: Option<Vec<Version>>,
    at: Instant,
}

impl Asked {
    fn holds(&self, program: &Path) -> bool {
        let fresh = self.versions.is_some() || self.at.elapsed() < SILENCE;
        fresh && self.program == program && self.stamp.is_some() && self.stamp == stamp(program)
    }
}

impl PortmapPlugin {
    /// A plugin that has not been asked.
    pub fn new(search: Search) -> PortmapPlugin {
        PortmapPlugin { search, asked: None }
    }

    /// Whether pods get host ports at this moment. Costs a look at some files, unless portmap has changed.
    pub fn host_ports(&mut self) -> HostPorts {
        self.host_ports_in(&PLUGIN_DIRS.map(Path::new))
    }

    fn host_ports_in(&mut self, known_dirs: &[&Path]) -> HostPorts {
        let program = match self.search.find(known_dirs) {
            Whereabouts::At(program) => program,
            Whereabouts::NotIn(dir) => return HostPorts::NotIn(dir),
            Whereabouts::NoFlock => return HostPorts::Unknown,
        };
        let asked = match self.asked.take().filter(|asked| asked.holds(&program)) {
            Some(asked) => asked,
            None => ask_and_say(program),
        };
        let asked = self.asked.insert(asked);
        match &asked.versions {
            Some(versions) => HostPorts::By(asked.program.clone(), versions.clone()),
            None => HostPorts::Silent(asked.program.clone()),
        }
    }
}

fn ask_and_say(program: PathBuf) -> Asked {
    // Before the question: a plugin that takes this one's place meanwhile is asked, too.
    let stamp = stamp(&program);
    let answer = ask(&program, LIMITS);
    if let Err(error) = &answer {
        log::warn("portmap does not say which CNI versions it knows and is not chained, so there are no host ports")
            .with("file", program.display())
            .with("err", error)
            .write_limited();
    }
    Asked { program, stamp, versions: answer.ok(), at: Instant::now() }
}

/// Why nobody knows which versions a plugin knows.
#[derive(Debug)]
enum Silence {
    /// The plugin could not be run, or did not answer.
    Program(ProgramError),
    /// Its answer names no version that flock knows, too.
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
fn ask(program: &Path, limits: RunLimits) -> Result<Vec<Version>, Silence> {
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
        ask(&plugins.0.join("portmap"), RunLimits { time: Duration::from_secs(2), ..LIMITS })
    }

    #[test]
    fn portmap_is_looked_for_where_the_runtime_looks() {
        let ours = Plugins::new("ours", &[("flock", ""), ("bridge", "")]);
        let theirs = Plugins::new("theirs", &[("portmap", "")]);
        let both = Plugins::new("both", &[("flock", ""), ("portmap", "")]);
        let (ours, theirs, both) = (ours.0.as_path(), theirs.0.as_path(), both.0.as_path());
        let search = Search::default();
        // Nothing was told: it is beside flock, or the runtime does not find it.
        assert_eq!(search.find(&[theirs, both]), Whereabouts::At(both.join("portmap")));
        assert_eq!(search.find(&[ours, theirs, both]), Whereabouts::NotIn(ours.into()));
        assert_eq!(search.find(&[theirs]), Whereabouts::NoFlock);
        // What a call tells counts, and all of it.
        let told = |path: &str| search.told(path);
        told(both.to_str().expect("text"));
        assert_eq!(search.find(&[ours]), Whereabouts::At(both.join("portmap")));
        told(&format!("relative:{}:{}:", ours.display(), theirs.display()));
        assert_eq!(search.find(&[both]), Whereabouts::At(theirs.join("portmap")));
        told(&ours.display().to_string());
        assert_eq!(search.find(&[both]), Whereabouts::NotIn(ours.into()));
        // What is no path, or too long for one, tells nothing.
        for path in ["", &"/x".repeat(PATH_MAX)] {
            told(path);
            assert_eq!(search.find(&[both]), Whereabouts::NotIn(ours.into()), "{path}");
        }
        // Nor does one of which the agent sees nothing.
        for path in ["/nonexistent", "relative"] {
            told(path);
            assert_eq!(search.find(&[both]), Whereabouts::At(both.join("portmap")), "{path}");
        }
    }

    #[test]
    fn portmap_is_asked_again_only_when_it_has_changed() {
        let counting = "echo x >> \"$(dirname \"$0\")/asked\"; echo '{\"supportedVersions\":[\"1.0.0\"]}'";
        let plugins = Plugins::new("counting", &[("flock", ""), ("portmap", counting)]);
        let times = || fs::read_to_string(plugins.0.join("asked")).unwrap_or_default().lines().count();
        let mut portmap = PortmapPlugin::new(Search::default());
        let by = HostPorts::By(plugins.0.join("portmap"), vec![Version::V1_0_0]);
        for _ in 0..3 {
            assert_eq!(portmap.host_ports_in(&[&plugins.0]), by);
        }
        assert_eq!(times(), 1);
        // Away, another one, and one that is broken and then put right.
        let (file, aside) = (plugins.0.join("portmap"), plugins.0.join("aside"));
        fs::rename(&file, &aside).expect("renamed");
        assert_eq!(portmap.host_ports_in(&[&plugins.0]), HostPorts::NotIn(plugins.0.clone()));
        fs::rename(&aside, &file).expect("renamed");
        assert_eq!(portmap.host_ports_in(&[&plugins.0]), by);
        assert_eq!(times(), 2);
        let mode =
            |mode: u32| fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
        mode(0o644);
        for _ in 0..3 {
            assert_eq!(portmap.host_ports_in(&[&plugins.0]), HostPorts::Silent(file.clone()));
        }
        mode(0o755);
        assert_eq!(portmap.host_ports_in(&[&plugins.0]), by);
        assert_eq!(times(), 3);
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
        let script = r#"sleep 60 & echo $! >"$0.left"; echo '{"supportedVersions":["1.0.0"]}'"#;
        let plugins = Plugins::new("wrapper", &[("portmap", script)]);
        let answer = ask(&plugins.0.join("portmap"), RunLimits { time: Duration::from_secs(30), ..LIMITS });
        let left = fs::read_to_string(plugins.0.join("portmap.left")).expect("written");
        let left = rustix::process::Pid::from_raw(left.trim().parse().expect("a number")).expect("a process");
        rustix::process::kill_process(left, rustix::process::Signal::KILL).expect("it still runs");
        assert_eq!(answer.expect("an answer"), [Version::V1_0_0]);
    }

    #[test]
    fn a_portmap_that_was_too_busy_to_answer_is_asked_again_after_some_minutes() {
        let dir = Plugins::new("busy", &[("portmap", "#!/bin/sh\n")]);
        let program = dir.0.join("portmap");
        let asked = |at: Instant, versions| Asked { stamp: stamp(&program), program: program.clone(), versions, at };
        let now = Instant::now();
        let long_ago = now.checked_sub(SILENCE).expect("times before the boot are times, too");
        assert!(asked(now, None).holds(&program), "not at once");
        assert!(!asked(long_ago, None).holds(&program));
        assert!(
            asked(long_ago, Some(vec![Version::NEWEST])).holds(&program),
            "an answer counts until the file changes"
        );
    }
}
