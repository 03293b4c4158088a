//! The container runtime's side: which configuration it takes, and which copies of the plugin it can run.
//!
//! Where a runtime looks is read by `install`, so that both say the same. A plugin is known by what its bytes say of it. Must not
//! run one, since whoever calls himself flock need not be.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::install::package::Package;
use crate::install::runtime;
use crate::install::runtime::places::{Kind, Runtime};
use crate::install::tree::Tree;
use crate::operator::ask::VERSION;
use crate::operator::check::finding::{Area, Finding, Level};
use crate::operator::check::surroundings::Surroundings;
use crate::process::foreign_file;
use cni::conflist::{self, Calls, PLUGIN_DIRS};
use model::excerpt::Excerpt;

/// Where runtimes look for their configuration unless told otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";

/// The endings of what runtimes read.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// Longest configuration that is read, 1 MiB.
const CONF_MAX: u64 = 1 << 20;

/// Longest plugin that is read, 128 MiB, which is that of a build with all that a debugger needs.
const PLUGIN_MAX: u64 = 128 << 20;

/// The plugin's name.
const PLUGIN: &str = "flock";

/// What the plugin says behind its version.
const MARK: &[u8] = b", a CNI plugin";

/// What the runtime of this host takes, beside an agent of this version that writes its configuration to `conf_dir`, if that is
/// known.
pub fn look(conf_dir: Option<&Path>, version: &str, surroundings: Surroundings) -> Vec<Finding> {
    // A container has its own /etc, and of the host the directories that the agent needs.
    let tree =
        Some(Path::new("/")).filter(|_| surroundings == Surroundings::Host).and_then(|root| Tree::open(root).ok());
    let mut runtimes = tree.as_ref().map(runtime::all).unwrap_or_default();
    // What people run beside a cluster says nothing of the cluster.
    if runtimes.iter().any(|runtime| runtime.kind != Kind::Podman) {
        runtimes.retain(|runtime| runtime.kind != Kind::Podman);
    }
    let hands = Hands { package: tree.and_then(|tree| Package::find(&tree).ok().flatten()), surroundings };
    let mut found = looked_in(&runtimes, conf_dir, &hands);
    let finds_flock = |runtime: &&Runtime| places(runtime, conf_dir, &hands).is_empty();
    let runtime = runtimes.iter().find(finds_flock).or(runtimes.first());
    found.extend(match (conf_dir, runtime) {
        (Some(dir), _) => Some(configuration(dir, &hands)),
        (None, Some(runtime)) => Some(configuration(&runtime.conf_dir, &hands)),
        // Where nothing names flock, the runtime may look elsewhere.
        (None, None) => Some(configuration(Path::new(CONF_DIR), &hands)).filter(|finding| finding.level != Level::Warn),
    });
    let dirs = PLUGIN_DIRS.into_iter().map(PathBuf::from);
    let dirs: BTreeSet<PathBuf> =
        runtimes.iter().flat_map(|runtime| runtime.plugin_dirs.iter().cloned()).chain(dirs).collect();
    found.extend(plugins(&dirs, version, &hands));
    found
}

/// Where each runtime looks. Of several, one may be what is left of a former cluster, or what people use beside it.
fn looked_in(runtimes: &[Runtime], conf_dir: Option<&Path>, hands: &Hands) -> Vec<Finding> {
    let of_each: Vec<Vec<Finding>> = runtimes.iter().map(|runtime| places(runtime, conf_dir, hands)).collect();
    let one_is_well = of_each.iter().any(Vec::is_empty);
    let milder = |finding: Finding| if one_is_well { Finding { level: Level::Warn, ..finding } } else { finding };
    of_each.into_iter().flatten().map(milder).collect()
}

/// Where the agent is a pod, the host has what its DaemonSet brings.
const IN_POD: &str = "see in the agent's DaemonSet where it puts the plugin, and --cni-conf-dir";

/// By whose hands flock is installed here: those of a package, or of `install`, which leaves to packages what is theirs.
struct Hands {
    package: Option<Package>,
    surroundings: Surroundings,
}

impl Hands {
    /// What brings the plugin to where a runtime looks.
    fn plugin_for(&self, kind: Kind) -> String {
        match (&self.package, self.surroundings) {
            (_, Surroundings::Container) => IN_POD.into(),
            (Some(package), _) => format!("have {kind} look where the plugin of {package} is"),
            (None, _) => format!("flock-agent install --runtime {}", kind.name()),
        }
    }

    /// What renews the plugin.
    fn plugin(&self) -> String {
        match (&self.package, self.surroundings) {
            (_, Surroundings::Container) => IN_POD.into(),
            (Some(package), _) => format!("install anew, or upgrade, {package}"),
            (None, _) => "flock-agent install".into(),
        }
    }

    /// What has the agent write the configuration where `kind` reads it.
    fn configuration(&self, kind: Option<Kind>, dir: &Path) -> String {
        match (&self.package, kind) {
            _ if self.surroundings == Surroundings::Container => IN_POD.into(),
            (None, Some(kind)) => format!("flock-agent install --cni-conf --runtime {}", kind.name()),
            (None, None) => "flock-agent install --cni-conf".into(),
            (Some(_), _) => format!(
                "FLOCK_AGENT_FLAGS=--cni-conf-dir {} in /etc/default/flock-agent, then {}",
                dir.display(),
                self.surroundings.restart()
            ),
        }
    }
}

/// Whether a runtime looks where flock's files are.
fn places(runtime: &Runtime, conf_dir: Option<&Path>, hands: &Hands) -> Vec<Finding> {
    let Runtime { kind, plugin_dirs, conf_dir: taken, source, .. } = runtime;
    let mut found = Vec::new();
    if !plugin_dirs.iter().any(|dir| dir.join(PLUGIN).exists()) {
        let dirs: Vec<String> = plugin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let what = format!(
            "{kind} looks for plugins in {} ({source}), and flock is not there: it makes no pod",
            dirs.join(", ")
        );
        found.push(Finding::fail(Area::Runtime, what).cured_by(hands.plugin_for(*kind)));
    }
    let real = |dir: &Path| fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if let Some(written) = conf_dir.filter(|written| real(written) != real(taken)) {
        let what = format!(
            "{kind} takes its configuration from {} ({source}), and flock-agent writes it to {}",
            taken.display(),
            written.display()
        );
        found.push(Finding::fail(Area::Runtime, what).cured_by(hands.configuration(Some(*kind), taken)));
    }
    found
}

/// Runtimes take the first file by name.
fn configuration(dir: &Path, hands: &Hands) -> Finding {
    let mut files: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            return Finding::warn(Area::Runtime, format!("{} was not looked at: {error}", dir.display()));
        }
    };
    files.retain(|file| file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)));
    files.retain(|file| file.is_file());
    files.sort();
    let calls = |file: &Path| match foreign_file::read(file, CONF_MAX) {
        Ok(text) => conflist::calls(&String::from_utf8_lossy(&text)),
        Err(_) => Calls::Others,
    };
    let ours = files.iter().find(|file| calls(file) == Calls::Flock);
    let first = files.first().map(|first| (first, calls(first)));
    match (first, ours) {
        (Some((first, Calls::Flock)), _) => {
            Finding::ok(Area::Runtime, format!("{} is the first in its directory", first.display()))
        }
        (Some((first, Calls::FlockByDelegate)), _) => {
            Finding::ok(Area::Runtime, format!("{} hands pods on, also to flock", first.display()))
        }
        (Some((first, Calls::Delegates)), _) => {
            let what = format!(
                "{} hands pods on to others, and does not say that flock is one of them: pods have an interface of flock only if its \
                 default network is flock's",
                first.display()
            );
            Finding::warn(Area::Runtime, what)
        }
        (Some((first, Calls::Others)), Some(ours)) => {
            let what = format!(
                "{} comes before {}, so the runtime makes pods by that and not by flock",
                first.display(),
                ours.display()
            );
            Finding::fail(Area::Runtime, what).cured_by(format!("mv {0} {0}.disabled", first.display()))
        }
        (Some((_, Calls::Others)) | None, _) => {
            let what = format!("no configuration in {} names flock, so the runtime does not call it", dir.display());
            Finding::warn(Area::Runtime, what).cured_by(hands.configuration(None, dir))
        }
    }
}

fn plugins(dirs: &BTreeSet<PathBuf>, version: &str, hands: &Hands) -> Vec<Finding> {
    let copies = dirs.iter().map(|dir| dir.join(PLUGIN)).filter(|path| path.exists());
    let found: Vec<Finding> = copies.map(|path| plugin(&path, version, hands)).collect();
    if !found.is_empty() {
        return found;
    }
    if hands.surroundings == Surroundings::Container {
        return Vec::new();
    }
    let what = format!("no plugin flock is in {}, so no pod can be made", PLUGIN_DIRS.join(", "));
    vec![Finding::warn(Area::Runtime, what).cured_by(hands.plugin())]
}

fn plugin(path: &Path, version: &str, hands: &Hands) -> Finding {
    let shown = path.display();
    let read = foreign_file::read(path, PLUGIN_MAX);
    match read.map(|bytes| version_in(&bytes)) {
        Ok(Some(found)) if found == version => {
            Finding::ok(Area::Runtime, format!("plugin {version} at {shown}, the agent's version"))
        }
        Ok(Some(found)) => {
            let what = format!("plugin {} at {shown}, beside an agent {version}", Excerpt::line(&found, 64));
            // The agent is what is left of the version before.
            let cure = if found == VERSION { hands.surroundings.restart().to_owned() } else { hands.plugin() };
            Finding::warn(Area::Runtime, what).cured_by(cure)
        }
        Ok(None) => Finding::warn(Area::Runtime, format!("{shown} is not flock's plugin, and has its name")),
        Err(error) => Finding::warn(Area::Runtime, format!("{shown} was not looked at: {error}")),
    }
}

/// The version that a plugin says of itself: `flock 1.2.3, a CNI plugin`.
fn version_in(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)?;
    let before = bytes.get(at.saturating_sub(64)..at)?;
    let begin = before.windows(6).rposition(|window| window == b"flock ")?;
    let version = std::str::from_utf8(before.get(begin + 6..)?).ok()?;
    (!version.is_empty() && !version.contains(' ')).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::finding::Remedy;

    const HANDS: Hands = Hands { package: None, surroundings: Surroundings::Host };

    /// A directory with these files, or without any.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str, files: &[(&str, &str)]) -> Directory {
            let dir = std::env::temp_dir().join(format!("flock-runtime-{name}-{}", std::process::id()));
            fs::remove_dir_all(&dir).ok();
            for (file, text) in files {
                fs::create_dir_all(&dir).expect("made");
                fs::write(dir.join(file), text).expect("written");
            }
            Directory(dir)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn the_first_configuration_decides_and_one_that_hands_pods_on_is_no_mistake() {
        let flock = ("01-flock.conflist", r#"{"name": "flock", "plugins": [{"type": "flock"}]}"#);
        let bridge = ("00-other.conf", r#"{"type": "bridge"}"#);
        let multus = |more| format!(r#"{{"type": "multus", "name": "multus-cni-network"{more}}}"#);
        let delegates = multus(r#", "delegates": [{"plugins": [{"type": "flock"}]}]"#);
        let network = multus(r#", "clusterNetwork": "/etc/cni/net.d/01-flock.conflist""#);
        for (name, files, level, says) in [
            ("alone", &[flock][..], Level::Ok, "is the first"),
            ("behind", &[bridge, flock], Level::Fail, "comes before"),
            ("delegate", &[("00-multus.conf", &delegates), flock], Level::Ok, "also to flock"),
            ("network", &[("00-multus.conf", &network), flock], Level::Ok, "also to flock"),
            (
                "multus",
                &[("00-multus.conf", &multus("")), flock],
                Level::Warn,
                "does not say that flock is one of them",
            ),
            ("other", &[bridge], Level::Warn, "no configuration in"),
            ("missing", &[], Level::Warn, "no configuration in"),
        ] {
            let dir = Directory::new(name, files);
            let found = configuration(&dir.0, &HANDS);
            assert!(found.level == level && found.what.contains(says), "{name}: {found:?}");
            let command = found.remedy.is_some_and(|remedy| format!("{remedy:?}").contains("mv "));
            assert_eq!(command, level == Level::Fail, "{name}");
        }
        let dir = Directory::new("directory", &[flock]);
        fs::create_dir(dir.0.join("00-kept.conf")).expect("made");
        assert_eq!(configuration(&dir.0, &HANDS).level, Level::Ok, "runtimes pass directories over");
        fs::write(dir.0.join("file"), "").expect("written");
        assert!(configuration(&dir.0.join("file"), &HANDS).what.contains("was not looked at"));
    }

    #[test]
    fn a_remedy_is_one_that_works_where_flock_came_from() {
        let tree = Directory::new("package", &[("flock-agent.service", "")]);
        let units = tree.0.join("usr/lib/systemd/system");
        fs::create_dir_all(&units).expect("made");
        fs::rename(tree.0.join("flock-agent.service"), units.join("flock-agent.service")).expect("moved");
        let found = Package::find(&Tree::open(&tree.0).expect("a tree")).expect("readable");
        let packaged = Hands { package: found, surroundings: Surroundings::Host };
        let pod = Hands { package: None, surroundings: Surroundings::Container };
        for (hands, plugin, configuration) in [
            (&HANDS, "flock-agent install", "flock-agent install --cni-conf --runtime crio"),
            (
                &packaged,
                "a package (dpkg -S or rpm -qf",
                "FLOCK_AGENT_FLAGS=--cni-conf-dir /x in /etc/default/flock-agent",
            ),
            (&pod, "DaemonSet", "DaemonSet"),
        ] {
            assert!(hands.plugin().contains(plugin), "{}", hands.plugin());
            let told = hands.configuration(Some(Kind::Crio), Path::new("/x"));
            assert!(told.contains(configuration), "{told}");
        }
        assert_eq!(HANDS.plugin_for(Kind::Crio), "flock-agent install --runtime crio");
        assert!(packaged.plugin_for(Kind::Crio).starts_with("have CRI-O look where"));
        let copy = Directory::new("copy", &[(PLUGIN, &format!("flock {VERSION}, a CNI plugin"))]);
        let Some(Remedy::Do(cure)) = plugin(&copy.0.join(PLUGIN), "0.0.9", &packaged).remedy else { panic!("a cure") };
        assert_eq!(cure, "systemctl restart flock-agent", "the plugin is new, and the agent is not");
    }

    #[test]
    fn an_idle_runtime_beside_one_that_finds_flock_is_no_failure() {
        let found = Directory::new("found", &[(PLUGIN, "")]);
        let runtime = |dir: &Path| Runtime {
            kind: Kind::Crio,
            plugin_dirs: vec![dir.to_owned()],
            conf_dir: dir.to_owned(),
            source: "its defaults".into(),
            remark: None,
        };
        let (serves, idle) = (runtime(&found.0), runtime(Path::new("/nonexistent")));
        let levels = |runtimes: &[&Runtime]| -> Vec<Level> {
            let runtimes: Vec<Runtime> = runtimes.iter().copied().cloned().collect();
            looked_in(&runtimes, Some(&found.0), &HANDS).iter().map(|finding| finding.level).collect()
        };
        assert_eq!(levels(&[&serves]), []);
        assert_eq!(levels(&[&serves, &idle]), [Level::Warn; 2]);
        assert_eq!(levels(&[&idle]), [Level::Fail; 2]);
    }

    #[test]
    fn a_plugin_is_known_by_its_bytes() {
        for (bytes, version) in [
            (&b"\x7fELF..flock 0.1.0, a CNI plugin; supports"[..], Some("0.1.0")),
            (b"flock 1.2.3-rc.1, a CNI plugin", Some("1.2.3-rc.1")),
            (b"flock, a CNI plugin", None),
            (b", a CNI plugin", None),
            (b"#!/bin/sh\nexec flock /tmp/lock sh\n", None),
            (b"", None),
        ] {
            assert_eq!(version_in(bytes).as_deref(), version, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
