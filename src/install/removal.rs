//! `flock-agent uninstall`: what of flock is there, and what goes.
//!
//! Looks only, but for the lock that keeps agents from starting meanwhile. Must not decide what is flock's: `plan` does.

use std::path::{Path, PathBuf};

use crate::install::defaults::{self, DEFAULTS};
use crate::install::error::InstallError;
use crate::install::host;
use crate::install::managers::MANAGERS;
use crate::install::order::{Common, ReadFlags, Uninstall};
use crate::install::package::Package;
use crate::install::plan::{
    self, ANNOUNCE_SERVICE, BIRD_CONF, BIRD_CONF_NEW, BIRD_DEFAULTS, BIRD_DIR, BIRD_SERVICE, CONFIG_DIR, ENABLED,
    Remains, SERVICE, SOCKET, Step,
};
use crate::install::runtime;
use crate::install::runtime::places::CONF_DIR;
use crate::install::site;
use crate::install::tree::{Found, Tree};
use crate::install::work::Work;
use crate::record::disk::DiskError;
use cni::conflist::FILE_NAME;

/// What has to be done in `tree` and, without a root of another system, on this host.
pub(super) fn work(
    tree: &Tree,
    order: &Uninstall,
    common: &Common,
    read_flags: ReadFlags,
) -> Result<Work, InstallError> {
    // A file that cannot be read stays, and the rest goes on.
    let text = tree.text_as_it_is(Path::new(DEFAULTS)).unwrap_or_default();
    let agent = defaults::places(text.as_ref().map(|(text, _)| text.as_str()), read_flags);
    let package = Package::find(tree)?;
    let mut remains = look(tree, common, agent.as_ref().and_then(|places| places.cni_conf_dir.as_deref()))?;
    let host = match (&common.root, agent) {
        (None, Some(places)) => Some(host::look(&places.socket, &places.state_dir, !common.dry_run)?),
        _ => None,
    };
    let (facts, lock) = host.map_or((plan::Host::default(), None), |seen| (seen.facts, seen.lock));
    let facts = match &package {
        Some(package) if order.by_package => {
            remains.files.retain(|(path, _)| !package.owns(path));
            facts
        }
        // The package's agent goes on with all that is not a copy of its files.
        Some(package) => {
            remains.leave_to(package);
            plan::Host { running: facts.running, ..plan::Host::default() }
        }
        None => facts,
    };
    let (steps, left) = plan::uninstall(&remains, &facts, order.force, order.purge)?;
    let mut notes: Vec<String> = left.iter().map(|left| format!("left {left}")).collect();
    notes.extend(package.filter(|_| !order.by_package).map(|package| format!("left what belongs to {package}")));
    let pods = facts.attached.len();
    if pods > 0 {
        notes.push(format!(
            "left the links of {pods} pods: they go with their pods, or serve again when flock is installed"
        ));
    }
    if steps.is_empty() {
        notes.push("nothing is installed".into());
    } else if common.root.is_none() && !order.by_package {
        let gone = |file: &str| steps.contains(&Step::Remove(file.into()));
        let told = MANAGERS.iter().filter(|manager| gone(manager.file) && host::is_up(manager.unit));
        let commands: Vec<&str> = told.map(|manager| manager.reload).chain(["systemctl daemon-reload"]).collect();
        notes.push(format!("next: {}", commands.join(" && ")));
    }
    Ok(Work { steps, notes, lock, held: None })
}

/// What stands where an installation, or an agent that writes to `written_to`, puts files.
fn look(tree: &Tree, common: &Common, written_to: Option<&Path>) -> Result<Remains, DiskError> {
    let named = &common.named;
    // Who takes flock away need not have a runtime whose configuration can be read.
    let here = runtime::all(tree);
    let mut conf_dirs: Vec<&Path> = Vec::new();
    let read = here.iter().map(|runtime| runtime.conf_dir.as_path());
    for dir in written_to.into_iter().chain(named.cni_conf_dir.as_deref()).chain(read).chain([Path::new(CONF_DIR)]) {
        if !conf_dirs.contains(&dir) {
            conf_dirs.push(dir);
        }
    }
    let mut remains = Remains::default();
    for conf_dir in conf_dirs {
        for name in tree.names(conf_dir)? {
            let path = conf_dir.join(&name);
            let loaded =
                path.extension().is_some_and(|ext| ["conf", "conflist", "json"].iter().any(|known| ext == *known));
            if let (true, Found::File { content, .. }) = (loaded, tree.look(&path)?) {
                remains.configurations.push((path, String::from_utf8_lossy(&content).into_owned()));
            }
        }
        remains.leftovers.extend(tree.leftovers(&conf_dir.join(FILE_NAME))?);
    }
    remains.plugins = site::plugins(named.cni_bin_dir.as_deref(), &here);
    remains.agents = site::agents(tree, named.bin_dir.as_deref())?;
    let fixed = [SERVICE, SOCKET, BIRD_SERVICE, ANNOUNCE_SERVICE, DEFAULTS].map(Path::new);
    let of_managers = MANAGERS.iter().map(|manager| Path::new(manager.file));
    let programs = remains.agents.iter().chain(&remains.plugins).map(PathBuf::as_path);
    for file in fixed.into_iter().chain(of_managers).chain(programs) {
        remains.leftovers.extend(tree.leftovers(file)?);
        remains.files.push((file.into(), tree.look(file)?));
    }
    for file in ENABLED.into_iter().chain([BIRD_CONF, BIRD_CONF_NEW, BIRD_DEFAULTS]) {
        remains.files.push((file.into(), tree.look(Path::new(file))?));
    }
    remains.config_dir = inside(tree, CONFIG_DIR)?;
    remains.bird_dir = inside(tree, BIRD_DIR)?;
    Ok(remains)
}

/// What is in a directory, if there is one.
fn inside(tree: &Tree, directory: &str) -> Result<Option<Vec<PathBuf>>, DiskError> {
    let directory = Path::new(directory);
    if tree.look(directory)? != Found::Directory {
        return Ok(None);
    }
    Ok(Some(tree.names(directory)?.into_iter().map(|name| directory.join(name)).collect()))
}
