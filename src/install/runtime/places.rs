//! Kinds of runtime, and the places where one looks, as values; and how a configuration names a place.
//!
//! Must not know any configuration: the readers beside this file do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::install::toml::{self, Document, TomlError};
use crate::install::tree::Tree;
use crate::record::disk::DiskError;

/// Where runtimes look for their CNI configuration unless told otherwise.
pub const CONF_DIR: &str = "/etc/cni/net.d";
/// Where they look for plugins.
pub const PLUGIN_DIR: &str = "/opt/cni/bin";

/// A kind of runtime, by what an operator has installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// containerd by itself, of whatever package.
    Containerd,
    /// CRI-O.
    Crio,
    /// k3s with the containerd in it.
    K3s,
    /// RKE2 with the containerd in it.
    Rke2,
    /// k0s with the containerd in it.
    K0s,
    /// MicroK8s with the containerd in it.
    Microk8s,
    /// podman, which no kubelet uses.
    Podman,
}

impl Kind {
    /// Every kind; podman last, since it stands beside others as a tool of people.
    pub const ALL: [Kind; 7] =
        [Kind::K3s, Kind::Rke2, Kind::K0s, Kind::Microk8s, Kind::Containerd, Kind::Crio, Kind::Podman];

    /// Their names on the command line.
    pub const NAMES: [&'static str; 7] = ["containerd", "crio", "k3s", "rke2", "k0s", "microk8s", "podman"];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Containerd => "containerd",
            Kind::Crio => "crio",
            Kind::K3s => "k3s",
            Kind::Rke2 => "rke2",
            Kind::K0s => "k0s",
            Kind::Microk8s => "microk8s",
            Kind::Podman => "podman",
        }
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Kind, ()> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Containerd => "containerd",
            Kind::Crio => "CRI-O",
            Kind::K3s => "k3s",
            Kind::Rke2 => "RKE2",
            Kind::K0s => "k0s",
            Kind::Microk8s => "MicroK8s",
            Kind::Podman => "podman",
        })
    }
}

/// Where a runtime looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Which it is.
    pub kind: Kind,
    /// The directories of its plugins, in its order; at least one.
    pub plugin_dirs: Vec<PathBuf>,
    /// The directory of its CNI configuration.
    pub conf_dir: PathBuf,
    /// What says so: a file, or why it has to be taken for granted.
    pub source: String,
    /// What the operator should know beside that.
    pub remark: Option<String>,
}

/// What is set in a configuration, where one is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Dirs {
    /// The directories of plugins; none where it is silent about them.
    pub(super) plugins: Vec<PathBuf>,
    /// The directory of the CNI configuration.
    pub(super) conf: Option<PathBuf>,
}

impl Runtime {
    /// `kind` looks where `dirs` say, or where every runtime looks.
    pub(super) fn new(kind: Kind, dirs: Dirs, source: impl Into<String>) -> Runtime {
        let plugin_dirs = if dirs.plugins.is_empty() { vec![PLUGIN_DIR.into()] } else { dirs.plugins };
        let conf_dir = dirs.conf.unwrap_or_else(|| CONF_DIR.into());
        Runtime { kind, plugin_dirs, conf_dir, source: source.into(), remark: None }
    }
}

/// Why it is not known where a runtime looks.
#[derive(Debug)]
pub enum RuntimeError {
    /// A file could not be read.
    Disk(DiskError),
    /// A configuration is not one.
    Unreadable(PathBuf, String),
    /// Several runtimes are there which look in different directories.
    Several(Vec<Runtime>),
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuntimeError::Disk(error) => write!(f, "{error}"),
            RuntimeError::Unreadable(file, why) => write!(
                f,
                "{}, {why}: correct it, or say by --cni-bin-dir and --cni-conf-dir where the runtime looks",
                file.display()
            ),
            RuntimeError::Several(runtimes) => {
                let places = |runtime: &Runtime| {
                    let plugins: Vec<String> =
                        runtime.plugin_dirs.iter().map(|dir| dir.display().to_string()).collect();
                    format!("{} ({}, {})", runtime.kind, plugins.join(":"), runtime.conf_dir.display())
                };
                let all: Vec<String> = runtimes.iter().map(places).collect();
                let flags: Vec<String> =
                    runtimes.iter().map(|runtime| format!("--runtime {}", runtime.kind.name())).collect();
                write!(f, "{} do not look in the same directories: choose by {}", all.join(" and "), flags.join(" or "))
            }
        }
    }
}

impl From<DiskError> for RuntimeError {
    fn from(error: DiskError) -> RuntimeError {
        RuntimeError::Disk(error)
    }
}

/// The files that say where a runtime looks; without one, `file` is silent about it.
pub(super) fn said_by(sources: &[PathBuf], file: &Path) -> String {
    match sources {
        [] => format!("its defaults, {} names no others", file.display()),
        _ => sources.iter().map(|source| source.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// A file of the tree as TOML; none if there is no such file.
pub(super) fn toml_of(tree: &Tree, file: &Path) -> Result<Option<Document>, RuntimeError> {
    let Some(text) = tree.text(file)? else { return Ok(None) };
    let unreadable = |error: TomlError| RuntimeError::Unreadable(tree.shown(file), error.to_string());
    toml::read(&text).map(Some).map_err(unreadable)
}

/// A directory that a configuration names; none for an empty name, which means the default.
pub(super) fn directory(tree: &Tree, file: &Path, name: &str) -> Result<Option<PathBuf>, RuntimeError> {
    if name.is_empty() {
        return Ok(None);
    }
    if !name.starts_with('/') {
        return Err(RuntimeError::Unreadable(tree.shown(file), format!("{name:?} is no absolute path of a directory")));
    }
    // Without a slash at the end and the like, so that two names of a directory are equal.
    Ok(Some(Path::new(name).components().collect()))
}
