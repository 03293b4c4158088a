//! `flock-agent install`: what has to be where on this host, and what the operator does next.
//!
//! Looks only; what it makes of that is carried out by the caller. Must not decide where files go: `site` does.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::bird::conf;
use crate::install::defaults::{self, DEFAULTS};
use crate::install::error::InstallError;
use crate::install::host;
use crate::install::managers::MANAGERS;
use crate::install::order::{Common, Install, ReadFlags};
use crate::install::package::Package;
use crate::install::plan::{
    self, ANNOUNCE_SERVICE, BIRD_CONF, BIRD_DIR, BIRD_SERVICE, CONFIG_DIR, ENABLED, PLUGIN, Refusal, SERVICE, SOCKET,
    Step, Wanted,
};
use crate::install::runtime;
use crate::install::site::{self, Site};
use crate::install::tree::{Found, Obstacle, Tree};
use crate::install::unit;
use crate::install::work::Work;
use crate::process::foreign_file::open_regular;
use crate::record::disk::DiskError;

/// The units as they are shipped, so that this program is all that an installation needs beside the plugin.
const SERVICE_UNIT: &str = include_str!("../../systemd/flock-agent.service");
const SOCKET_UNIT: &str = include_str!("../../systemd/flock-agent.socket");
const BIRD_UNIT: &str = include_str!("../../systemd/flock-bird.service");
const ANNOUNCE_UNIT: &str = include_str!("../../systemd/flock-announce.service");

/// BIRD's program, as its unit names it.
const BIRD: &str = "/usr/sbin/bird";

/// What has to be done in `tree`.
pub(super) fn work(tree: &Tree, order: &Install, common: &Common, read_flags: ReadFlags) -> Result<Work, InstallError> {
    if let Some(package) = Package::find(tree)? {
        return Err(Refusal::Packaged(package).into());
    }
    if order.plugin_only {
        return plugin_only(tree, order, common);
    }
    let site = Site::find(tree, &common.named)?;
    let present = tree.text_as_it_is(Path::new(DEFAULTS))?;
    let mut notes = vec![site.told.clone()];
    notes.extend(site.remark.iter().map(|remark| format!("note: {remark}")));
    let file = |path: &Path, content, mode| Wanted { path: path.into(), content, mode };

    // What makes the runtime use the plugin, and where the agent may write therefore.
    let before = present.as_ref().map(|(text, _)| text.as_str());
    let moves = common.named.cni_conf_dir.is_some() && before.and_then(defaults::ours).is_some();
    let flags = match order.cni_conf || moves {
        true => defaults::with_cni_conf(before, &site.conf_dir),
        false => defaults::Change::None,
    };
    let flags = match flags {
        defaults::Change::ByHand => return Err(Refusal::FlagsByHand(site.conf_dir).into()),
        defaults::Change::Write(text) => Some(text),
        defaults::Change::None => None,
    };
    let written_to = defaults::cni_conf_dir(flags.as_deref().or(before), read_flags);
    if let Some(other) = written_to.as_ref().filter(|dir| **dir != site.conf_dir) {
        notes.push(format!(
            "note: the agent writes the CNI configuration into {}, as {DEFAULTS} says, and the runtime reads {}",
            other.display(),
            site.conf_dir.display()
        ));
    }
    let conf_dir = written_to.unwrap_or_else(|| site.conf_dir.clone());

    // The program before the units that start it, and the plugin before the flag that makes the runtime use it.
    let unit = |text: &str| unit::fitted(text, &site.agent, &conf_dir).into_bytes();
    let mut wanted = vec![
        file(&site.agent, read(Path::new("/proc/self/exe"))?, 0o755),
        file(Path::new(SERVICE), unit(SERVICE_UNIT), 0o644),
        file(Path::new(SOCKET), unit(SOCKET_UNIT), 0o644),
    ];
    // As long as the units are there, they are renewed with the others.
    let units_of_bird = order.bird || tree.exists(Path::new(BIRD_SERVICE))?;
    if units_of_bird {
        wanted.push(file(Path::new(BIRD_SERVICE), unit(BIRD_UNIT), 0o644));
        wanted.push(file(Path::new(ANNOUNCE_SERVICE), unit(ANNOUNCE_UNIT), 0o644));
        // For the first start. From then on it is the agent's, and what is there may be anybody's.
        if !tree.exists(Path::new(BIRD_CONF))? {
            wanted.push(file(Path::new(BIRD_CONF), conf::before_any_agent().into_bytes(), 0o640));
        }
        if !tree.exists(Path::new(BIRD))? {
            notes.push(format!(
                "missing: {BIRD}; on Debian it is in the package bird2, whose own bird.service has to be disabled"
            ));
        }
    }
    for manager in &MANAGERS {
        // What stands there otherwise is the operator's.
        if manager.is_here(tree)? && !tree.exists(Path::new(manager.file))? {
            wanted.push(file(Path::new(manager.file), manager.content.into(), 0o644));
        }
    }
    let (copies, stuck) = copies(tree, &site)?;
    notes.extend(
        stuck
            .iter()
            .map(|copy| format!("note: left another copy of the plugin, {}, which cannot be changed", copy.display())),
    );
    match plugin_to_install(tree, order.plugin.as_deref(), &site.plugin)? {
        // A runtime that is told to look elsewhere must not find an older one there.
        Some(content) => {
            wanted.extend([&site.plugin].into_iter().chain(&copies).map(|place| file(place, content.clone(), 0o755)))
        }
        None => {
            let kept: Vec<String> =
                [&site.plugin].into_iter().chain(&copies).map(|place| place.display().to_string()).collect();
            notes.push(format!(
                "kept {}, since no plugin is beside this program; --plugin FILE names another one",
                kept.join(" and ")
            ));
        }
    }
    if let Some(text) = flags {
        let mode = present.as_ref().map_or(0o644, |(_, mode)| *mode);
        wanted.push(file(Path::new(DEFAULTS), text.into_bytes(), mode));
    }

    let directories =
        [Path::new(CONFIG_DIR), &conf_dir].into_iter().chain(units_of_bird.then_some(Path::new(BIRD_DIR)));
    let steps = steps(tree, wanted, directories)?;
    let remedy = |path: &Path| {
        if site.agent.starts_with(path) {
            "name another directory by --bin-dir, such as /opt/bin"
        } else if site.plugin.starts_with(path) {
            OTHER_PLUGIN_DIR
        } else if conf_dir.starts_with(path) {
            "name another directory by --cni-conf-dir, in which the runtime looks, too"
        } else {
            "nothing can be installed here; where units and files are declared, as on NixOS, declare those of flock"
        }
    };
    usable(tree, &steps, common.root.is_none(), &remedy)?;
    let configured = defaults::names_source(before) || tree.exists(&Path::new(CONFIG_DIR).join("node.yaml"))?;
    if !configured {
        notes.push(format!(
            "missing: this node's NodeConfig, {CONFIG_DIR}/node.yaml, or FLOCK_AGENT_SOURCE=--kubeconfig FILE in {DEFAULTS}"
        ));
    }
    notes.extend(steps.is_empty().then(nothing_to_do));
    notes.extend(next(tree, &site, &steps, order.bird, common)?);
    Ok(Work { steps, notes, ..Work::default() })
}

/// What an operator does about a directory of the plugin that cannot be used.
const OTHER_PLUGIN_DIR: &str = "name another directory by --cni-bin-dir, in which the runtime looks, too";

/// What has to be done for the plugin alone.
fn plugin_only(tree: &Tree, order: &Install, common: &Common) -> Result<Work, InstallError> {
    let place = site::plugin(tree, &common.named)?;
    let directory = place.parent().unwrap_or(Path::new("/"));
    // Others may do the same in this directory whose root is another one: init containers.
    let held = match tree.exists(directory)? {
        true => Some(tree.lock(directory)?.ok_or_else(|| InstallError::Locked(tree.shown(directory)))?),
        false => None,
    };
    let Some(content) = plugin_to_install(tree, order.plugin.as_deref(), &place)? else {
        return Err(InstallError::NoPlugin(beside()));
    };
    let steps = steps(tree, vec![Wanted { path: place, content, mode: 0o755 }], [])?;
    usable(tree, &steps, common.root.is_none(), &|_| OTHER_PLUGIN_DIR)?;
    let notes = steps.is_empty().then(nothing_to_do).into_iter().collect();
    Ok(Work { steps, notes, held, ..Work::default() })
}

fn nothing_to_do() -> String {
    format!("nothing to do: flock {} is in place", env!("CARGO_PKG_VERSION"))
}

/// What has to be done so that every file is as it is wanted and these directories are there.
fn steps<'a>(
    tree: &Tree,
    wanted: Vec<Wanted>,
    directories: impl IntoIterator<Item = &'a Path>,
) -> Result<Vec<Step>, InstallError> {
    let (mut leftovers, mut missing, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for file in wanted {
        leftovers.extend(tree.leftovers(&file.path)?);
        missing.extend(tree.missing(file.path.parent().unwrap_or(Path::new("/")))?);
        let found = tree.look(&file.path)?;
        files.push((file, found));
    }
    for directory in directories {
        missing.extend(tree.missing(directory)?);
    }
    Ok(plan::install(leftovers, missing, files)?)
}

/// Whether all that the steps change can be changed, and the programs can be run. `remedy` is what an operator does about a path.
fn usable(
    tree: &Tree,
    steps: &[Step],
    runs_here: bool,
    remedy: &dyn Fn(&Path) -> &'static str,
) -> Result<(), InstallError> {
    for step in steps {
        let (Step::MakeDirectory(path) | Step::Put { path, .. } | Step::Remove(path)) = step else { continue };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let is_program = matches!(step, Step::Put { mode: 0o755, .. });
        let obstacle = match tree.obstacle(directory)? {
            None if is_program && runs_here => tree.obstacle_to_programs(directory)?,
            obstacle => obstacle,
        };
        let Some(obstacle) = obstacle else { continue };
        let remedy = if obstacle == Obstacle::Denied { "run this as root" } else { remedy(path) };
        return Err(InstallError::Unusable(tree.shown(directory), obstacle, remedy));
    }
    Ok(())
}

/// The commands that the operator runs next. Units of BIRD that are only renewed stay as they are: one that is stopped or disabled
/// is so for a reason, such as a node that is withdrawn.
fn next(tree: &Tree, site: &Site, steps: &[Step], bird: bool, common: &Common) -> Result<Option<String>, DiskError> {
    let further = if bird { " flock-bird flock-announce" } else { "" };
    if let Some(root) = &common.root {
        let links = ENABLED.iter().take(if bird { ENABLED.len() } else { 2 });
        let mut disabled = false;
        for link in links {
            disabled |= !tree.exists(Path::new(link))?;
        }
        return Ok(disabled.then(|| format!("next: systemctl --root={} enable flock-agent{further}", root.display())));
    }
    if steps.is_empty() {
        return Ok(None);
    }
    let renewed = |file: &Path| steps.iter().any(|step| step.puts(file));
    // First, so that nobody takes the links of the first pods.
    let told = MANAGERS.iter().filter(|manager| renewed(Path::new(manager.file)) && host::is_up(manager.unit));
    let mut commands: Vec<String> = told.map(|manager| manager.reload.to_owned()).collect();
    let of_services = [SERVICE, SOCKET, DEFAULTS, BIRD_SERVICE, ANNOUNCE_SERVICE, BIRD_CONF].map(Path::new);
    if of_services.into_iter().chain([site.agent.as_path()]).any(renewed) {
        // A socket that stays as it is must not be restarted, since callers wait in it.
        let socket = if renewed(Path::new(SOCKET)) { "flock-agent.socket " } else { "" };
        commands.push("systemctl daemon-reload".into());
        commands.push(format!("systemctl enable flock-agent{further}"));
        commands.push(format!("systemctl restart {socket}flock-agent"));
        // BIRD is started only if it is not running, after the agent, which writes its configuration.
        commands.extend(bird.then(|| "systemctl start flock-bird flock-announce".to_owned()));
    }
    Ok(Some(match commands[..] {
        [] => "nothing to start anew".into(),
        _ => format!("next: {}", commands.join(" && ")),
    }))
}

/// Copies of the plugin beside the one at its place, of earlier runs or for another runtime: those that can be renewed, and those
/// that cannot.
fn copies(tree: &Tree, site: &Site) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DiskError> {
    let (mut copies, mut stuck) = (Vec::new(), Vec::new());
    for place in site::plugins(None, &runtime::all(tree)) {
        let is_copy = |found| matches!(found, Found::File { content, .. } if plan::is_flock(&content));
        if place == site.plugin || !is_copy(tree.look(&place)?) {
            continue;
        }
        match tree.obstacle(place.parent().unwrap_or(Path::new("/")))? {
            None => copies.push(place),
            Some(_) => stuck.push(place),
        }
    }
    Ok((copies, stuck))
}

/// The plugin that was named, or is beside this program. None if there is none beside it and one is installed already, as
/// when the installed program is called again.
fn plugin_to_install(tree: &Tree, named: Option<&Path>, place: &Path) -> Result<Option<Vec<u8>>, InstallError> {
    let beside = beside();
    let path = named.unwrap_or(&beside);
    let error = match read(path) {
        // Beside a packaged agent this could be the `flock` of util-linux.
        Ok(content) if plan::is_flock(&content) => return Ok(Some(content)),
        Ok(_) => InstallError::NotThePlugin(path.into()),
        Err(error) if error.error.kind() == io::ErrorKind::NotFound => InstallError::NoPlugin(path.into()),
        Err(error) => error.into(),
    };
    match tree.look(place)? {
        Found::File { content, .. } if named.is_none() && plan::is_flock(&content) => Ok(None),
        _ => Err(error),
    }
}

/// The plugin beside this program.
fn beside() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(PLUGIN)
}

fn read(path: &Path) -> Result<Vec<u8>, DiskError> {
    let mut content = Vec::new();
    let read = open_regular(path, OFlags::empty()).and_then(|mut file: File| file.read_to_end(&mut content));
    read.map(|_| content).map_err(|error| DiskError { operation: "read", path: path.into(), error })
}
