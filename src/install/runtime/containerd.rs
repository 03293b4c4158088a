//! containerd's configuration, in each of its layouts and with what it imports.
//!
//! Read as containerd 2 reads it: a file that is imported adds to what is there and replaces single keys. Must not complain of
//! what does not concern CNI.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::install::runtime::pattern::matching;
use crate::install::runtime::places::{Dirs, Kind, Runtime, RuntimeError, directory, said_by, toml_of};
use crate::install::toml::{Document, Value};
use crate::install::tree::Tree;

/// Its configuration, unless a distribution has another place.
pub(super) const CONFIG: &str = "/etc/containerd/config.toml";

/// Further places: Flatcar's.
const OTHER_CONFIGS: [&str; 1] = ["/usr/share/containerd/config.toml"];

/// Most files that one configuration imports, 256. Usual are none or one.
const IMPORTS_MAX: usize = 256;

/// The plugin that serves kubelets, by its names in versions 3, 2 and 1 of the configuration.
const CRI: [&str; 3] = ["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "cri"];

/// What a configuration says.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) dirs: Dirs,
    /// The files that say where plugins or configuration are.
    pub(super) sources: Vec<PathBuf>,
    /// It has a plugin for kubelets, and that is switched off.
    disabled: bool,
}

/// Where containerd looks.
pub(super) fn read(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let Some(file) = config_file(tree)? else {
        return Ok(Runtime::new(Kind::Containerd, Dirs::default(), format!("its defaults, there is no {CONFIG}")));
    };
    let config = config(tree, &file, &|text| text.to_owned())?;
    let mut runtime = Runtime::new(Kind::Containerd, config.dirs, said_by(&config.sources, &file));
    if config.disabled {
        runtime.remark = Some(format!(
            "{} disables the plugin cri, without which no kubelet can use containerd: take it out of disabled_plugins",
            file.display()
        ));
    }
    Ok(runtime)
}

/// Whether this containerd has nothing to do with kubelets.
pub(super) fn serves_nobody(tree: &Tree) -> Result<bool, RuntimeError> {
    match config_file(tree)? {
        Some(file) => Ok(config(tree, &file, &|text| text.to_owned())?.disabled),
        None => Ok(false),
    }
}

fn config_file(tree: &Tree) -> Result<Option<PathBuf>, RuntimeError> {
    for file in [CONFIG].into_iter().chain(OTHER_CONFIGS) {
        if tree.exists(Path::new(file))? {
            return Ok(Some(file.into()));
        }
    }
    Ok(None)
}

/// What `file` and all that it imports say. `expand` is what is done to each path before it is used.
pub(super) fn config(tree: &Tree, file: &Path, expand: &dyn Fn(&str) -> String) -> Result<Config, RuntimeError> {
    let (mut config, mut read) = (Config::default(), BTreeSet::new());
    let mut waiting = VecDeque::from([file.to_owned()]);
    while let Some(file) = waiting.pop_front() {
        if !read.insert(file.clone()) || read.len() > IMPORTS_MAX {
            continue;
        }
        // What is missing may come with the runtime's start.
        let Some(document) = toml_of(tree, &file)? else { continue };
        config.add(tree, &file, &document, expand)?;
        for import in document.list(&["imports"]).unwrap_or_default() {
            waiting.extend(matching(tree, &file.parent().unwrap_or(Path::new("/")).join(expand(import)))?);
        }
    }
    Ok(config)
}

impl Config {
    fn add(
        &mut self,
        tree: &Tree,
        file: &Path,
        document: &Document,
        expand: &dyn Fn(&str) -> String,
    ) -> Result<(), RuntimeError> {
        let disabled = document.list(&["disabled_plugins"]).unwrap_or_default();
        self.disabled |= disabled.iter().any(|plugin| CRI.contains(&plugin.as_str()));
        // From version 3 on, the former names mean other plugins.
        let is_new =
            matches!(document.get(&["version"]), Some(Value::Word(version)) if !["1", "2"].contains(&version.as_str()));
        let names = CRI.iter().take(if is_new { 1 } else { CRI.len() });
        let mut says = false;
        for plugin in names {
            let key = |name| ["plugins", *plugin, "cni", name];
            let one = document.text(&key("bin_dir"));
            let mut several = Vec::new();
            for name in document.list(&key("bin_dirs")).unwrap_or_default() {
                several.extend(directory(tree, file, &expand(name))?);
            }
            match one {
                _ if !several.is_empty() => {
                    several.retain(|dir| !self.dirs.plugins.contains(dir));
                    self.dirs.plugins.extend(several);
                    says = true;
                }
                Some(name) => {
                    if let Some(dir) = directory(tree, file, &expand(name))? {
                        self.dirs.plugins = vec![dir];
                        says = true;
                    }
                }
                None => {}
            }
            if let Some(name) = document.text(&key("conf_dir"))
                && let Some(dir) = directory(tree, file, &expand(name))?
            {
                self.dirs.conf = Some(dir);
                says = true;
            }
        }
        if says {
            self.sources.push(file.to_owned());
        }
        Ok(())
    }
}
