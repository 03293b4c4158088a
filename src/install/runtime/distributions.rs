//! Distributions of Kubernetes that bring a containerd of their own: k3s, RKE2, k0s and MicroK8s.
//!
//! Each writes the configuration of its containerd by itself, from settings of its own, so that the settings count where they
//! are younger than the file. Must not read more of them than what decides about CNI.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::install::runtime::containerd;
use crate::install::runtime::pattern::matching;
use crate::install::runtime::places::{Dirs, Kind, Runtime, RuntimeError, said_by};
use crate::install::tree::Tree;
use model::text;

/// The data of MicroK8s. Its configuration calls it `${SNAP_DATA}`, and the link leads to those of the revision in force.
const SNAP_DATA: &str = "/var/snap/microk8s/current";

/// Where k3s looks, which is decided by its flannel: only with that it has directories of its own.
pub(super) fn k3s(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let settings = k3s_settings(tree)?;
    let data = settings.get("data-dir").unwrap_or_else(|| "/var/lib/rancher/k3s".into());
    let of_flannel = Path::new(&data).join("agent/etc/cni/net.d");
    let (mut runtime, conf) = rancher(tree, Kind::K3s, Path::new(&data))?;
    if conf.as_ref() != Some(&of_flannel) {
        return Ok(runtime);
    }
    if settings.get("flannel-backend").as_deref() == Some("none") {
        // Its configuration is from before the setting, and will be written anew at its start.
        return Ok(Runtime::new(Kind::K3s, Dirs::default(), "its defaults, as of flannel-backend: none"));
    }
    runtime.remark = Some(
        "k3s runs its own flannel: start its servers with --flannel-backend=none --disable-network-policy, then each k3s of \
         a node again, and install once more, since k3s looks in other directories from then on"
            .into(),
    );
    Ok(runtime)
}

/// Where RKE2 looks.
pub(super) fn rke2(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let settings = Settings::read(tree, "rke2", &["rke2-server.service", "rke2-agent.service"])?;
    let data = settings.get("data-dir").unwrap_or_else(|| "/var/lib/rancher/rke2".into());
    let (mut runtime, _) = rancher(tree, Kind::Rke2, Path::new(&data))?;
    if let Some(cni) = settings.get("cni").filter(|cni| cni != "none") {
        runtime.remark =
            Some(format!("RKE2 installs {cni} by itself: cni: none in /etc/rancher/rke2/config.yaml ends that"));
    }
    Ok(runtime)
}

/// What k3s and RKE2 have written for their containerd, and the directory of the CNI configuration if it names one.
fn rancher(tree: &Tree, kind: Kind, data: &Path) -> Result<(Runtime, Option<PathBuf>), RuntimeError> {
    let file = data.join("agent/etc/containerd/config.toml");
    let config = containerd::config(tree, &file, &str::to_owned)?;
    let conf = config.dirs.conf.clone();
    Ok((Runtime::new(kind, config.dirs, said_by(&config.sources, &file)), conf))
}

/// Where k0s looks.
pub(super) fn k0s(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let file = Path::new("/etc/k0s/containerd.toml");
    let mut config = containerd::config(tree, file, &str::to_owned)?;
    // k0s merges these into a file that its containerd imports, which is there only while k0s runs.
    for drop_in in matching(tree, Path::new("/etc/k0s/containerd.d/*.toml"))? {
        let further = containerd::config(tree, &drop_in, &str::to_owned)?;
        if !further.dirs.plugins.is_empty() {
            config.dirs.plugins = further.dirs.plugins;
        }
        config.dirs.conf = further.dirs.conf.or(config.dirs.conf);
        config.sources.extend(further.sources);
    }
    Ok(Runtime::new(Kind::K0s, config.dirs, said_by(&config.sources, file)))
}

/// Where MicroK8s looks.
pub(super) fn microk8s(tree: &Tree) -> Result<Runtime, RuntimeError> {
    let data = Path::new(SNAP_DATA);
    let file = data.join("args/containerd-template.toml");
    let config = containerd::config(tree, &file, &|text| text.replace("${SNAP_DATA}", SNAP_DATA))?;
    let plugins = if config.dirs.plugins.is_empty() { vec![data.join("opt/cni/bin")] } else { config.dirs.plugins };
    let conf = config.dirs.conf.or_else(|| Some(data.join("args/cni-network")));
    Ok(Runtime::new(Kind::Microk8s, Dirs { plugins, conf }, said_by(&config.sources, &file)))
}

/// The settings of k3s.
///
/// # Errors
/// A file of it cannot be read.
pub fn k3s_settings(tree: &Tree) -> Result<Settings, RuntimeError> {
    Settings::read(tree, "k3s", &["k3s.service", "k3s-agent.service"])
}

/// The settings of k3s or RKE2, from the command line of its unit and from its files; what is found first counts.
#[derive(Debug)]
pub struct Settings {
    words: Vec<String>,
    files: Vec<Value>,
}

impl Settings {
    fn read(tree: &Tree, name: &str, units: &[&str]) -> Result<Settings, RuntimeError> {
        let mut words = Vec::new();
        for directory in ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"] {
            for unit in units {
                let text = tree.text(&Path::new(directory).join(unit))?.unwrap_or_default().replace("\\\n", " ");
                let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("ExecStart="));
                let unquoted = |word: &str| word.trim_matches(['"', '\'']).to_owned();
                words.extend(lines.flat_map(str::split_whitespace).map(unquoted));
            }
        }
        let mut files = Vec::new();
        let directory = Path::new("/etc/rancher").join(name);
        let drop_ins = matching(tree, &directory.join("config.yaml.d/*.yaml"))?;
        // The last one counts.
        for file in drop_ins.into_iter().rev().chain([directory.join("config.yaml")]) {
            let Some(text) = tree.text(&file)? else { continue };
            let document = text::document(&text);
            files.extend(document.map_err(|error| RuntimeError::Unreadable(tree.shown(&file), error.to_string()))?);
        }
        Ok(Settings { words, files })
    }

    /// The value of a setting; the first of several.
    pub fn get(&self, key: &str) -> Option<String> {
        self.all(key).into_iter().next()
    }

    /// All values of a setting that may be given several times.
    pub fn all(&self, key: &str) -> Vec<String> {
        let flag = format!("--{key}");
        let mut words = self.words.iter();
        let mut values = Vec::new();
        while let Some(word) = words.next() {
            match word.strip_prefix(&flag) {
                // One without a value is a yes.
                Some("") => match words.clone().next().filter(|value| !value.starts_with("--")) {
                    Some(_) => values.extend(words.next().cloned()),
                    None => values.push("true".into()),
                },
                Some(rest) => values.extend(rest.strip_prefix('=').map(str::to_owned)),
                None => {}
            }
        }
        if !values.is_empty() {
            return values;
        }
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(yes) => Some(yes.to_string()),
            _ => None,
        };
        match self.files.iter().find_map(|file| file.get(key)) {
            Some(Value::Array(list)) => list.iter().filter_map(text).collect(),
            Some(value) => text(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}
