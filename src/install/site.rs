//! Where flock's files go on this host, and why there: as named, as found in the runtime's configuration, or as usual.
//!
//! Looks only, and must not change anything.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::install::order::Named;
use crate::install::plan::{PLUGIN, SERVICE, is_flock};
use crate::install::runtime;
use crate::install::runtime::places::{CONF_DIR, PLUGIN_DIR, Runtime, RuntimeError};
use crate::install::tree::{Found, Tree};
use crate::install::unit;
use crate::record::disk::DiskError;
use cni::conflist::PLUGIN_DIRS;

/// Where the agent may be beside where its unit says: usual, and where `/usr` is read-only.
const AGENTS: [&str; 2] = [unit::AGENT, "/opt/bin/flock-agent"];

/// The places.
#[derive(Debug, PartialEq, Eq)]
pub struct Site {
    /// The agent's program.
    pub agent: PathBuf,
    /// The plugin.
    pub plugin: PathBuf,
    /// Where the runtime looks for its CNI configuration.
    pub conf_dir: PathBuf,
    /// All that in words, with reasons.
    pub told: String,
    /// What the operator should know beside that.
    pub remark: Option<String>,
}

/// Why there is no place.
#[derive(Debug)]
pub enum SiteError {
    /// It is not known where the runtime looks.
    Runtime(RuntimeError),
    /// A unit cannot name this path.
    Unfit {
        /// The path.
        path: PathBuf,
        /// The flag that names another one.
        flag: &'static str,
        /// What is against it.
        why: &'static str,
    },
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SiteError::Runtime(error) => write!(f, "{error}"),
            SiteError::Unfit { path, flag, why } => {
                write!(f, "{}: {why}; name another directory by {flag}", path.display())
            }
        }
    }
}

impl From<DiskError> for SiteError {
    fn from(error: DiskError) -> SiteError {
        SiteError::Runtime(error.into())
    }
}

impl Site {
    /// The places in `tree`, of which the operator has named some.
    ///
    /// # Errors
    /// The runtime's configuration cannot be read, runtimes contradict each other, or a place cannot be used.
    pub fn find(tree: &Tree, named: &Named) -> Result<Site, SiteError> {
        // Who says both needs no configuration that can be read.
        let runtime = match (&named.cni_bin_dir, &named.cni_conf_dir, named.runtime) {
            (Some(_), Some(_), None) => None,
            _ => runtime::find(tree, named.runtime).map_err(SiteError::Runtime)?,
        };
        let (plugin_dir, why_plugin) = plugin_dir(tree, named, runtime.as_ref())?;
        let (conf_dir, why_conf) = match (&named.cni_conf_dir, &runtime) {
            (Some(dir), _) => (dir.clone(), " (--cni-conf-dir)"),
            (None, Some(runtime)) => (runtime.conf_dir.clone(), ""),
            (None, None) => (CONF_DIR.into(), " (usual)"),
        };
        let which = match &runtime {
            Some(runtime) => format!("{} ({})", runtime.kind, runtime.source),
            None if named.cni_bin_dir.is_some() && named.cni_conf_dir.is_some() => "not looked for".into(),
            None => "none found".into(),
        };
        let told = format!(
            "runtime: {which}; plugins in {}{why_plugin}, CNI configuration in {}{why_conf}",
            plugin_dir.display(),
            conf_dir.display()
        );
        let agent = match &named.bin_dir {
            Some(dir) => dir.join(AGENT_NAME),
            None => agents(tree, None)?.swap_remove(0),
        };
        for (path, flag) in [(&agent, "--bin-dir"), (&conf_dir, "--cni-conf-dir")] {
            if let Some(why) = unit::unfit(path) {
                return Err(SiteError::Unfit { path: path.clone(), flag, why });
            }
        }
        Ok(Site {
            agent,
            plugin: plugin_dir.join(PLUGIN),
            conf_dir,
            told,
            remark: runtime.and_then(|runtime| runtime.remark),
        })
    }
}

/// The place of the plugin alone.
///
/// # Errors
/// It is not known where the runtime looks.
pub fn plugin(tree: &Tree, named: &Named) -> Result<PathBuf, SiteError> {
    let runtime = match named.cni_bin_dir {
        Some(_) => None,
        None => runtime::find(tree, named.runtime).map_err(SiteError::Runtime)?,
    };
    Ok(plugin_dir(tree, named, runtime.as_ref())?.0.join(PLUGIN))
}

/// The agent's file.
const AGENT_NAME: &str = "flock-agent";

/// Where the agent may be, most likely first: in `named`, as its unit says, or usual.
pub fn agents(tree: &Tree, named: Option<&Path>) -> Result<Vec<PathBuf>, DiskError> {
    let unit = match tree.look(Path::new(SERVICE))? {
        Found::File { content, .. } => unit::agent_of(&String::from_utf8_lossy(&content)),
        _ => None,
    };
    let mut places: Vec<PathBuf> = Vec::new();
    for place in named.map(|dir| dir.join(AGENT_NAME)).into_iter().chain(unit).chain(AGENTS.map(PathBuf::from)) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Ok(places)
}

/// Where copies of the plugin may be: in `named`, where any kind of runtime looks, and where those look that are here.
pub fn plugins(named: Option<&Path>, here: &[Runtime]) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let dirs_here = here.iter().flat_map(|runtime| &runtime.plugin_dirs).map(PathBuf::as_path);
    for dir in named.into_iter().chain(PLUGIN_DIRS.map(Path::new)).chain(dirs_here) {
        let place = dir.join(PLUGIN);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// The one directory into which the plugin goes, since the agent chains what lies beside it, and the reason.
fn plugin_dir(tree: &Tree, named: &Named, runtime: Option<&Runtime>) -> Result<(PathBuf, &'static str), DiskError> {
    if let Some(dir) = &named.cni_bin_dir {
        return Ok((dir.clone(), " (--cni-bin-dir)"));
    }
    let known = PLUGIN_DIRS.map(PathBuf::from);
    let all = runtime.map_or(&known[..], |runtime| &runtime.plugin_dirs);
    let mut dirs = Vec::new();
    for dir in all {
        if tree.obstacle(dir)?.is_none() {
            dirs.push(dir);
        }
    }
    for dir in &dirs {
        if matches!(tree.look(&dir.join(PLUGIN))?, Found::File { content, .. } if is_flock(&content)) {
            return Ok((dir.to_path_buf(), ", where flock is already"));
        }
    }
    let why = if runtime.is_some() { "" } else { ", where other plugins are" };
    for dir in &dirs {
        // One that stands empty says nothing where nobody knows the runtime.
        let is_used = tree.names(dir)?.iter().any(|name| name == "loopback" || name == "portmap");
        if is_used || (runtime.is_some() && tree.look(dir)? == Found::Directory) {
            return Ok((dir.to_path_buf(), why));
        }
    }
    match runtime.and_then(|_| dirs.first().copied().or(all.first())) {
        Some(first) => Ok((first.clone(), "")),
        None => Ok((PLUGIN_DIR.into(), " (usual)")),
    }
}
