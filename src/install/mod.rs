//! `flock-agent install` and `flock-agent uninstall`: what an operator or an image build does once per node and version.
//!
//! Looks at everything first, decides (`plan`), and only then changes anything, each file by itself and whole (`tree`). Must
//! not run a program: the last line that is printed says which commands of systemd the operator runs, who may be a
//! configuration tool or an image build. Must not write the CNI configuration: the agent does it once it can serve.

pub mod defaults;
pub mod host;
pub mod order;
pub mod plan;
pub mod tree;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::bird::conf;
use crate::install::host::HostError;
use crate::install::order::{Common, Order, ReadFlags};
use crate::install::plan::{
    AGENT, ANNOUNCE_SERVICE, BIRD_CONF, BIRD_CONF_NEW, BIRD_DEFAULTS, BIRD_DIR, BIRD_SERVICE, CNI_CONF_DIR, CONFIG_DIR,
    DEFAULTS, ENABLED, PLUGIN, Refusal, Remains, SERVICE, SOCKET, Step, Wanted,
};
use crate::install::tree::{Found, Tree};
use crate::process::exit::Exit;
use crate::process::foreign_file::open_regular;
use crate::record::disk::DiskError;
use cni::conflist::{FILE_NAME, PLUGIN_DIRS};

/// The units as they are shipped, so that this program is all that an installation needs beside the plugin.
const SERVICE_UNIT: &str = include_str!("../../systemd/flock-agent.service");
const SOCKET_UNIT: &str = include_str!("../../systemd/flock-agent.socket");
const BIRD_UNIT: &str = include_str!("../../systemd/flock-bird.service");
const ANNOUNCE_UNIT: &str = include_str!("../../systemd/flock-announce.service");

/// BIRD's program, as its unit names it.
const BIRD: &str = "/usr/sbin/bird";

/// Why it was not done, or not to the end.
#[derive(Debug)]
enum InstallError {
    Refused(Refusal),
    Disk(DiskError),
    Host(HostError),
    /// Another installation is under way in this directory.
    Locked(PathBuf),
    /// There is no such file.
    NoPlugin(PathBuf),
    /// The file is another program.
    NotThePlugin(PathBuf),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InstallError::Refused(refusal) => write!(f, "{refusal}"),
            InstallError::Disk(error) => write!(f, "{error}"),
            InstallError::Host(error) => write!(f, "{error}"),
            InstallError::Locked(root) => write!(f, "another installation is under way in {}", root.display()),
            InstallError::NoPlugin(path) => {
                write!(f, "there is no plugin at {}: name it by --plugin FILE", path.display())
            }
            InstallError::NotThePlugin(path) => {
                write!(f, "{} is not the plugin of flock: name it by --plugin FILE", path.display())
            }
        }
    }
}

impl From<DiskError> for InstallError {
    fn from(error: DiskError) -> InstallError {
        InstallError::Disk(error)
    }
}

impl From<Refusal> for InstallError {
    fn from(refusal: Refusal) -> InstallError {
        InstallError::Refused(refusal)
    }
}

impl From<HostError> for InstallError {
    fn from(error: HostError) -> InstallError {
        InstallError::Host(error)
    }
}

/// Carries out an order, and says on standard output what was done and on standard error why it was not. `read_flags` reads the
/// agent's flags that the operator's file has.
pub fn run(order: &Order, read_flags: ReadFlags) -> Exit {
    // The modes below are meant as they are written.
    rustix::process::umask(Mode::from(0o022));
    let done = match order {
        Order::Install { plugin, cni_conf, bird, common } => install(plugin.as_deref(), *cni_conf, *bird, common),
        Order::Uninstall { force, purge, common } => uninstall(*force, *purge, common, read_flags),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            writeln!(io::stderr(), "flock-agent: {error}").ok();
            Exit::Failed
        }
    }
}

/// Prints a line of the report. If nobody reads it to its end, the work goes on all the same.
fn say(line: &str) {
    writeln!(io::stdout(), "{line}").ok();
}

/// The tree and the right to change it.
fn tree(common: &Common) -> Result<(Tree, OwnedFd), InstallError> {
    // On the machine itself another directory than `/` is locked, since containers and chroots may share that.
    let (root, to_lock) = match &common.root {
        Some(root) => (root.as_path(), "/"),
        None => (Path::new("/"), "/etc"),
    };
    let tree = Tree::open(root)?;
    let lock = tree.lock(Path::new(to_lock))?.ok_or_else(|| InstallError::Locked(root.into()))?;
    Ok((tree, lock))
}

fn install(plugin: Option<&Path>, cni_conf: bool, bird: bool, common: &Common) -> Result<(), InstallError> {
    let (tree, _lock) = tree(common)?;
    let text = text_of(&tree, DEFAULTS)?;
    let place = plugin_place(&tree, common)?;
    // The program before the units that start it, and the plugin before the flag that makes the runtime use it.
    let file = |path: PathBuf, content, mode| Wanted { path, content, mode };
    let mut wanted = vec![
        file(AGENT.into(), read(Path::new("/proc/self/exe"))?, 0o755),
        file(SERVICE.into(), SERVICE_UNIT.into(), 0o644),
        file(SOCKET.into(), SOCKET_UNIT.into(), 0o644),
    ];
    let mut notes = Vec::new();
    // As long as the units are there, they are renewed with the others.
    let units_of_bird = bird || tree.look(Path::new(BIRD_SERVICE))? != Found::Nothing;
    if units_of_bird {
        wanted.push(file(BIRD_SERVICE.into(), BIRD_UNIT.into(), 0o644));
        wanted.push(file(ANNOUNCE_SERVICE.into(), ANNOUNCE_UNIT.into(), 0o644));
        // For the first start. From then on it is the agent's, and what is there may be anybody's.
        if tree.look(Path::new(BIRD_CONF))? == Found::Nothing {
            wanted.push(file(BIRD_CONF.into(), conf::before_any_agent().into_bytes(), 0o640));
        }
        if tree.look(Path::new(BIRD))? == Found::Nothing {
            notes.push(format!(
                "missing: {BIRD}; on Debian it is in the package bird2, whose own bird.service has to be disabled"
            ));
        }
    }
    match plugin_to_install(&tree, plugin, &place)? {
        Some(content) => wanted.push(file(place, content, 0o755)),
        None => notes.push(format!(
            "kept {}, since no plugin is beside this program; --plugin FILE names another one",
            place.display()
        )),
    }
    match (cni_conf, defaults::with_cni_conf(text.as_ref().map(|(text, _)| text.as_str()))) {
        (true, defaults::Change::ByHand) => return Err(Refusal::FlagsByHand.into()),
        (true, defaults::Change::Write(new)) => {
            let mode = text.as_ref().map_or(0o644, |(_, mode)| *mode);
            wanted.push(file(DEFAULTS.into(), new.into_bytes(), mode));
        }
        _ => {}
    }
    let (mut leftovers, mut missing, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for file in wanted {
        leftovers.extend(tree.leftovers(&file.path)?);
        missing.extend(tree.missing(file.path.parent().unwrap_or(Path::new("/")))?);
        let found = tree.look(&file.path)?;
        files.push((file, found));
    }
    for directory in [CONFIG_DIR, CNI_CONF_DIR].into_iter().chain(units_of_bird.then_some(BIRD_DIR)) {
        missing.extend(tree.missing(Path::new(directory))?);
    }
    let steps = plan::install(leftovers, missing, files)?;
    carry_out(&tree, &steps, common.dry_run)?;
    let configured = defaults::names_source(text.as_ref().map(|(text, _)| text.as_str()))
        || tree.look(&Path::new(CONFIG_DIR).join("node.yaml"))? != Found::Nothing;
    if !configured {
        notes.push(format!(
            "missing: this node's NodeConfig, {CONFIG_DIR}/node.yaml, or FLOCK_AGENT_SOURCE=--kubeconfig FILE in {DEFAULTS}"
        ));
    }
    notes.push(next(&steps, bird, common));
    notes.iter().for_each(|note| say(note));
    Ok(())
}

/// The commands that the operator runs next. Units of BIRD that are only renewed stay as they are: one that is stopped or disabled
/// is so for a reason, such as a node that is withdrawn.
fn next(steps: &[Step], bird: bool, common: &Common) -> String {
    let further = if bird { " flock-bird flock-announce" } else { "" };
    let renewed = |file: &str| steps.iter().any(|step| step.puts(file));
    if let Some(root) = &common.root {
        return format!("next: systemctl --root={} enable flock-agent{further}", root.display());
    }
    if ![AGENT, SERVICE, SOCKET, DEFAULTS, BIRD_SERVICE, ANNOUNCE_SERVICE, BIRD_CONF].into_iter().any(renewed) {
        return "nothing to start anew".into();
    }
    // A socket that stays as it is must not be restarted, since callers wait in it.
    let socket = if renewed(SOCKET) { "flock-agent.socket " } else { "" };
    // BIRD is started only if it is not running, after the agent, which writes its configuration.
    let started = if bird { " && systemctl start flock-bird flock-announce" } else { "" };
    format!(
        "next: systemctl daemon-reload && systemctl enable flock-agent{further} && systemctl restart {socket}flock-agent{started}"
    )
}

/// Where the plugin may be: in the directory that was named, and in those that runtimes have.
fn plugin_places(common: &Common) -> Vec<PathBuf> {
    let named = common.cni_bin_dir.as_deref();
    let known = PLUGIN_DIRS.iter().map(Path::new).filter(|dir| Some(*dir) != named);
    named.into_iter().chain(known).map(|dir| dir.join(PLUGIN)).collect()
}

/// Where the plugin is put, which is one place only, since the agent chains what lies beside it: as named, or where one is
/// already, or where runtimes look unless told otherwise.
fn plugin_place(tree: &Tree, common: &Common) -> Result<PathBuf, DiskError> {
    let mut places = plugin_places(common);
    if common.cni_bin_dir.is_none() {
        for (number, place) in places.iter().enumerate() {
            if matches!(tree.look(place)?, Found::File { content, .. } if plan::is_flock(&content)) {
                return Ok(places.swap_remove(number));
            }
        }
    }
    Ok(places.swap_remove(0))
}

/// The plugin that was named, or is beside this program. None if there is none beside it and one is installed already, as
/// when the installed program is called again.
fn plugin_to_install(tree: &Tree, named: Option<&Path>, place: &Path) -> Result<Option<Vec<u8>>, InstallError> {
    let beside = std::env::current_exe().unwrap_or_default().with_file_name(PLUGIN);
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

fn read(path: &Path) -> Result<Vec<u8>, DiskError> {
    let mut content = Vec::new();
    let read = open_regular(path, OFlags::empty()).and_then(|mut file: File| file.read_to_end(&mut content));
    read.map(|_| content).map_err(|error| DiskError { operation: "read", path: path.into(), error })
}

/// A text file of the tree with its permissions.
fn text_of(tree: &Tree, path: &str) -> Result<Option<(String, u32)>, DiskError> {
    let path = Path::new(path);
    let Found::File { content, mode, .. } = tree.look(path)? else { return Ok(None) };
    // A file that is no text could not be written back as it was.
    let text = String::from_utf8(content).map_err(|_| io::Error::other("it is not UTF-8"));
    text.map(|text| Some((text, mode))).map_err(|error| DiskError { operation: "read", path: tree.shown(path), error })
}

fn uninstall(force: bool, purge: bool, common: &Common, read_flags: ReadFlags) -> Result<(), InstallError> {
    let (tree, _lock) = tree(common)?;
    // A file that cannot be read stays, and the rest goes on.
    let text = text_of(&tree, DEFAULTS).unwrap_or_default();
    let agent = defaults::places(text.as_ref().map(|(text, _)| text.as_str()), read_flags);
    let conf_dir = agent.as_ref().and_then(|places| places.cni_conf_dir.clone()).unwrap_or(CNI_CONF_DIR.into());
    let remains = look(&tree, &conf_dir, plugin_places(common))?;
    let host = match (&common.root, agent) {
        (None, Some(places)) => Some(host::look(&places.socket, &places.state_dir, !common.dry_run)?),
        _ => None,
    };
    let (facts, lock) = host.map_or((plan::Host::default(), None), |seen| (seen.facts, seen.lock));
    let (steps, left) = plan::uninstall(&remains, &facts, force, purge)?;
    carry_out(&tree, &steps, common.dry_run)?;
    // Until here no agent could start.
    drop(lock);
    let mut notes: Vec<String> = left.iter().map(|left| format!("left {left}")).collect();
    let pods = facts.attached.len();
    if pods > 0 {
        notes.push(format!(
            "left the links of {pods} pods: they go with their pods, or serve again when flock is installed"
        ));
    }
    if steps.is_empty() {
        notes.push("nothing is installed".into());
    } else if common.root.is_none() {
        notes.push("next: systemctl daemon-reload".into());
    }
    notes.iter().for_each(|note| say(note));
    Ok(())
}

fn look(tree: &Tree, conf_dir: &Path, plugins: Vec<PathBuf>) -> Result<Remains, DiskError> {
    let mut remains = Remains::default();
    for name in tree.names(conf_dir)? {
        let path = conf_dir.join(&name);
        let loaded = path.extension().is_some_and(|ext| ["conf", "conflist", "json"].iter().any(|known| ext == *known));
        if let (true, Found::File { content, .. }) = (loaded, tree.look(&path)?) {
            remains.configurations.push((path, String::from_utf8_lossy(&content).into_owned()));
        }
    }
    let conflist = conf_dir.join(FILE_NAME);
    remains.leftovers.extend(tree.leftovers(&conflist)?);
    let fixed = [AGENT, SERVICE, SOCKET, BIRD_SERVICE, ANNOUNCE_SERVICE, DEFAULTS].map(Path::new);
    for file in fixed.into_iter().chain(plugins.iter().map(PathBuf::as_path)) {
        remains.leftovers.extend(tree.leftovers(file)?);
        remains.files.push((file.into(), tree.look(file)?));
    }
    for file in ENABLED.into_iter().chain([BIRD_CONF, BIRD_CONF_NEW, BIRD_DEFAULTS]) {
        remains.files.push((file.into(), tree.look(Path::new(file))?));
    }
    remains.plugins = plugins;
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

fn carry_out(tree: &Tree, steps: &[Step], dry_run: bool) -> Result<(), InstallError> {
    for step in steps {
        if !dry_run {
            match step {
                Step::MakeDirectory(path) => tree.make_directory(path)?,
                Step::Put { path, content, mode, .. } => tree.put(path, content, *mode)?,
                Step::Remove(path) => tree.remove(path)?,
                Step::RemoveDirectory(path) => tree.remove_directory(path)?,
                Step::RemoveAll(path) => tree.remove_all(path)?,
                Step::RemoveLink { index, .. } => host::remove_link(*index)?,
                Step::Route(step) => host::change_route(step)?,
                Step::RemoveUnreachable(prefix) => host::remove_unreachable(*prefix)?,
                Step::RemoveTable(key) => host::remove_table(*key)?,
            }
        }
        say(&step.told(dry_run, |path| tree.shown(path)));
    }
    Ok(())
}
