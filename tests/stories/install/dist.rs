//! What an operator unpacks: the two programs in one directory; and means to see what a run has done to a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::inotify;

use crate::support::programs::{FLOCK, FLOCK_AGENT, put_copy, succeed};
use crate::support::temp::TempDir;

/// Without what only a debugger wants, so that a thousand copies are quick.
pub(crate) struct Dist(TempDir);

impl Dist {
    pub(crate) fn new(name: &str) -> Dist {
        let dist = Dist(TempDir::new(&format!("dist-{name}")));
        for (from, to) in [(FLOCK, dist.plugin()), (FLOCK_AGENT, dist.agent())] {
            succeed(Command::new("strip").arg("-o").arg(to).arg(from));
        }
        dist
    }

    /// The programs of another version: those in the directory `FLOCK_TEST_FORMER`, or else the same with other bytes.
    pub(crate) fn former(&self, name: &str) -> Dist {
        let Some(directory) = std::env::var_os("FLOCK_TEST_FORMER").map(PathBuf::from) else { return self.other(name) };
        let former = Dist(TempDir::new(&format!("dist-{name}")));
        for (from, to) in [("flock", former.plugin()), ("flock-agent", former.agent())] {
            put_copy(directory.join(from), to);
        }
        former
    }

    /// The same programs with other bytes, as another version.
    pub(crate) fn other(&self, name: &str) -> Dist {
        let other = Dist(TempDir::new(&format!("dist-{name}")));
        for (from, to) in [(self.plugin(), other.plugin()), (self.agent(), other.agent())] {
            put_copy(from, &to);
            succeed(Command::new("sh").args(["-c", "printf 'another version' >>\"$1\"", "sh"]).arg(to));
        }
        other
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.0.path().join("flock-agent")
    }

    pub(crate) fn plugin(&self) -> PathBuf {
        self.0.path().join("flock")
    }
}

/// A run of a verb: whether it succeeded, and what it said.
#[derive(Debug)]
pub(crate) struct Run(Output);

impl Run {
    pub(crate) fn of(command: &mut Command) -> Run {
        Run(command.output().expect("the program starts"))
    }

    pub(crate) fn said(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("text")
    }

    /// What it said when it succeeded.
    #[track_caller]
    pub(crate) fn done(&self) -> String {
        assert!(self.0.status.success(), "{self:?}");
        assert_eq!(String::from_utf8_lossy(&self.0.stderr), "");
        self.said()
    }

    /// The one line that it said when it was refused.
    #[track_caller]
    pub(crate) fn refused(&self) -> String {
        assert_eq!(self.0.status.code(), Some(1), "{self:?}");
        assert_eq!(self.said(), "", "nothing was done");
        let text = String::from_utf8(self.0.stderr.clone()).expect("text");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }

    /// The program has no such verb.
    pub(crate) fn is_not_understood(&self) -> bool {
        self.0.status.code() == Some(2)
    }

    pub(crate) fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;
        self.0.status.signal() == Some(9)
    }
}

/// Everything below some directories, by path: kind, permissions and content. Two are equal if nothing has changed.
pub(crate) fn snapshot(roots: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut to_see: Vec<PathBuf> = roots.iter().filter(|root| root.exists()).cloned().collect();
    while let Some(path) = to_see.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let what = if metadata.is_dir() {
            to_see.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()));
            "directory".to_owned()
        } else if metadata.is_symlink() {
            format!("link to {}", fs::read_link(&path).expect("readable").display())
        } else if metadata.is_file() {
            let content = fs::read(&path).expect("readable");
            let mut hasher = DefaultHasher::new();
            hasher.write(&content);
            format!("{} bytes, hash {:x}", content.len(), hasher.finish())
        } else {
            "special".to_owned()
        };
        seen.insert(path, format!("{what}, mode {:o}", metadata.permissions().mode() & 0o7777));
    }
    seen
}

/// The temporary files below a directory.
pub(crate) fn temporaries(seen: &BTreeMap<PathBuf, String>) -> Vec<&PathBuf> {
    seen.keys().filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect()
}

/// Hears every change in some directories.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn on<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Watch {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).expect("inotify");
        let changes = inotify::WatchFlags::ATTRIB
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::MOVE;
        for directory in directories {
            inotify::add_watch(&watch, directory, changes).expect("watched");
        }
        Watch(watch)
    }

    /// On every directory of a tree.
    pub(crate) fn on_tree(root: &Path) -> Watch {
        let seen = snapshot(&[root.into()]);
        Watch::on(seen.keys().map(PathBuf::as_path).filter(|path| path.is_dir()))
    }

    /// What was heard so far: name and kind.
    pub(crate) fn heard(&self) -> Vec<(String, inotify::ReadFlags)> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut heard = Vec::new();
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            heard.push((name, event.events()));
        }
        heard
    }
}

/// Where points are armed for one run, and where those that are passed are written down.
pub(crate) struct Points(TempDir);

impl Points {
    pub(crate) fn new(name: &str) -> Points {
        Points(TempDir::new(&format!("points-{name}")))
    }

    fn armed(&self) -> PathBuf {
        self.0.path().join("points")
    }

    /// Tells a run where to look.
    pub(crate) fn apply(&self, command: &mut Command) {
        command.env("FLOCK_FAILPOINTS", self.armed());
    }

    /// What a run passes, as `POINT NTH`, in order.
    pub(crate) fn traced(&self, run: impl FnOnce()) -> Vec<String> {
        let trace = self.armed().with_extension("trace");
        fs::write(&trace, "").expect("written");
        run();
        let text = fs::read_to_string(&trace).expect("a trace");
        fs::remove_file(trace).expect("removed");
        let mut passes: BTreeMap<&str, usize> = BTreeMap::new();
        let count = |point| {
            let nth = passes.entry(point).or_default();
            *nth += 1;
            format!("{point} {nth}")
        };
        // A look at a directory changes nothing, and there are many.
        let passed: Vec<String> =
            text.lines().filter(|point| !point.ends_with("/install.resolve")).map(count).collect();
        assert_eq!(passed.iter().collect::<BTreeSet<_>>().len(), passed.len());
        passed
    }

    /// Arms a point for the next run.
    pub(crate) fn arm(&self, point: &str, action: &str) {
        fs::write(self.armed(), format!("{point} {action}\n")).expect("written");
    }

    /// Disarms it.
    pub(crate) fn let_go(&self) {
        fs::remove_file(self.armed()).expect("armed");
    }
}
