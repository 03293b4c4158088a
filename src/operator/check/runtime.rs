//! The container runtime's side: which configuration it takes, and which copies of the plugin it can run.
//!
//! Where a runtime looks is read by `install`, so that both say the same. A plugin is known by what its bytes say of it. Must not
//! run one, since whoever calls himself flock need not be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::install::runtime;
use crate::install::runtime::places::{Kind, Runtime};
use crate::install::tree::Tree;
use crate::operator::check::finding::{Area, Finding, Level};
use crate::process::foreign_file;
use cni::conflist::{self, PLUGIN_DIRS};
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
pub fn look(conf_dir: Option<&Path>, version: &str) -> Vec<Finding> {
    let mut runtimes = Tree::open(Path::new("/")).map(|tree| runtime::all(&tree)).unwrap_or_default();
    // What people run beside a cluster says nothing of the cluster.
    if runtimes.iter().any(|runtime| runtime.kind != Kind::Podman) {
        runtimes.retain(|runtime| runtime.kind != Kind::Podman);
    }
    let mut found: Vec<Finding> = runtimes.iter().flat_map(|runtime| places(runtime, conf_dir)).collect();
    found.extend(match (conf_dir, runtimes.first()) {
        (Some(dir), _) => configuration(dir),
        (None, Some(runtime)) => configuration(&runtime.conf_dir),
        // Where nothing names flock, the runtime may look elsewhere.
        (None, None) => configuration(Path::new(CONF_DIR)).filter(|finding| finding.level != Level::Warn),
    });
    let dirs = PLUGIN_DIRS.into_iter().map(PathBuf::from);
    let dirs: BTreeSet<PathBuf> =
        runtimes.iter().flat_map(|runtime| runtime.plugin_dirs.iter().cloned()).chain(dirs).collect();
    found.extend(plugins(&dirs, version));
    found
}

/// Whether a runtime looks where flock's files are.
fn places(runtime: &Runtime, conf_dir: Option<&Path>) -> Vec<Finding> {
    let Runtime { kind, plugin_dirs, conf_dir: taken, source, .. } = runtime;
    let mut found = Vec::new();
    if !plugin_dirs.iter().any(|dir| dir.join(PLUGIN).exists()) {
        let dirs: Vec<String> = plugin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let what = format!(
            "{kind} looks for plugins in {} ({source}), and flock is not there: no pod can be made",
            dirs.join(", ")
        );
        found.push(
            Finding::fail(Area::Runtime, what).cured_by(format!("flock-agent install --runtime {}", kind.name())),
        );
    }
    let real = |dir: &Path| fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    if let Some(written) = conf_dir.filter(|written| real(written) != real(taken)) {
        let what = format!(
            "{kind} takes its configuration from {} ({source}), and flock-agent writes it to {}",
            taken.display(),
            written.display()
        );
        found.push(
            Finding::fail(Area::Runtime, what).cured_by(format!("flock-agent install --runtime {}", kind.name())),
        );
    }
    found
}

/// Runtimes take the first file by name.
fn configuration(dir: &Path) -> Option<Finding> {
    let entries = fs::read_dir(dir).ok()?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)));
    files.sort();
    let names_flock = |file: &Path| {
        foreign_file::read(file, CONF_MAX).is_ok_and(|text| conflist::names_flock(&String::from_utf8_lossy(&text)))
    };
    let ours = files.iter().find(|file| names_flock(file));
    Some(match (files.first(), ours) {
        (Some(first), Some(ours)) if first == ours => {
            Finding::ok(Area::Runtime, format!("{} is the first in its directory", ours.display()))
        }
        (Some(first), Some(ours)) => {
            let what = format!(
                "{} comes before {}, so the runtime makes pods by that and not by flock",
                first.display(),
                ours.display()
            );
            Finding::fail(Area::Runtime, what).cured_by(format!("mv {0} {0}.disabled", first.display()))
        }
        _ => {
            let what = format!("no configuration in {} names flock, so the runtime does not call it", dir.display());
            Finding::warn(Area::Runtime, what).cured_by("flock-agent install --cni-conf")
        }
    })
}

fn plugins(dirs: &BTreeSet<PathBuf>, version: &str) -> Vec<Finding> {
    let copies = dirs.iter().map(|dir| dir.join(PLUGIN)).filter(|path| path.exists());
    let found: Vec<Finding> = copies.map(|path| plugin(&path, version)).collect();
    if !found.is_empty() {
        return found;
    }
    let what = format!("no plugin flock is in {}, so no pod can be made", PLUGIN_DIRS.join(", "));
    vec![Finding::warn(Area::Runtime, what).cured_by("flock-agent install")]
}

fn plugin(path: &Path, version: &str) -> Finding {
    let shown = path.display();
    let read = foreign_file::read(path, PLUGIN_MAX);
    match read.map(|bytes| version_in(&bytes)) {
        Ok(Some(found)) if found == version => {
            Finding::ok(Area::Runtime, format!("plugin {version} at {shown}, the agent's version"))
        }
        Ok(Some(found)) => {
            let what = format!("plugin {} at {shown}, beside an agent {version}", Excerpt::line(&found, 64));
            Finding::warn(Area::Runtime, what).cured_by("flock-agent install")
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
