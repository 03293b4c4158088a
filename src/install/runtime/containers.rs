//! CRI-O and podman: a file, and drop-ins of which the last one that sets a key counts.
//!
//! Must not complain of what does not concern CNI.

use std::path::{Path, PathBuf};

use crate::install::runtime::pattern::matching;
use crate::install::runtime::places::{Dirs, Kind, Runtime, RuntimeError, directory, said_by, toml_of};
use crate::install::tree::Tree;

/// Where podman looks unless told otherwise, the place of no package first.
const OF_PODMAN: [&str; 5] =
    ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/local/libexec/cni"];

/// A configuration in layers.
struct Layers {
    /// Its files, those that count most last; `*` stands for any name.
    files: &'static [&'static str],
    /// The table with the keys.
    table: &'static [&'static str],
    /// The key of the list of plugin directories.
    plugins: &'static str,
    /// The key of a single one.
    plugin: Option<&'static str>,
    /// The key of the directory of the CNI configuration.
    conf: &'static str,
}

const CRIO: Layers = Layers {
    files: &["/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*"],
    table: &["crio", "network"],
    plugins: "plugin_dirs",
    plugin: Some("plugin_dir"),
    conf: "network_dir",
};

const PODMAN: Layers = Layers {
    files: &[
        "/usr/share/containers/containers.conf",
        "/etc/containers/containers.conf",
        "/etc/containers/containers.conf.d/*.conf",
    ],
    table: &["network"],
    plugins: "cni_plugin_dirs",
    plugin: None,
    conf: "network_config_dir",
};

/// Where CRI-O looks.
pub(super) fn crio(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let (dirs, sources) = CRIO.read(tree)?;
    Ok(Runtime::new(Kind::Crio, dirs, said_by(&sources, Path::new("/etc/crio"))))
}

/// Where podman looks.
pub(super) fn podman(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let (mut dirs, sources) = PODMAN.read(tree)?;
    if dirs.plugins.is_empty() {
        dirs.plugins = OF_PODMAN.map(PathBuf::from).into();
    }
    Ok(Runtime::new(Kind::Podman, dirs, said_by(&sources, Path::new("/etc/containers"))))
}

impl Layers {
    fn read(&self, tree: &Tree) -> Result<(Dirs, Vec<PathBuf>), RuntimeError> {
        let (mut dirs, mut sources) = (Dirs::default(), Vec::new());
        for pattern in self.files {
            for file in matching(tree, Path::new(pattern))? {
                let Some(document) = toml_of(tree, &file)? else { continue };
                let key = |name| [self.table, &[name]].concat();
                let single = self.plugin.and_then(|name| document.text(&key(name))).map(str::to_owned);
                let single: Vec<String> = single.into_iter().collect();
                let mut plugins = Vec::new();
                for name in document.list(&key(self.plugins)).unwrap_or(&single) {
                    plugins.extend(directory(tree, &file, name)?);
                }
                let conf =
                    document.text(&key(self.conf)).map(|name| directory(tree, &file, name)).transpose()?.flatten();
                if plugins.is_empty() && conf.is_none() {
                    continue;
                }
                if !plugins.is_empty() {
                    dirs.plugins = plugins;
                }
                dirs.conf = conf.or(dirs.conf);
                sources.push(file);
            }
        }
        Ok((dirs, sources))
    }
}
