//! `flock-agent check`: what is wrong on this node, with the place and the remedy, also of what is not flock's.
//!
//! Each part looks at one thing and returns findings. Must not change anything, and runs no program but the host's own that shows
//! what nothing else shows.

pub mod agent;
pub mod credentials;
pub mod finding;
pub mod firewall;
pub mod host;
pub mod iptables;
pub mod kube_proxy;
pub mod links;
pub mod managers;
pub mod processes;
pub mod runtime;
pub mod scene;
pub mod surroundings;
pub mod tables;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::agent::fault::{Fault, Step};
use crate::install::defaults::{self, DEFAULTS};
use crate::operator::Told;
use crate::operator::ask::VERSION;
use crate::operator::check::agent::Said;
use crate::operator::check::finding::{Area, Finding, Findings};
use crate::operator::check::processes::Process;
use crate::operator::check::scene::{Scene, SceneError, is_denied};
use crate::operator::check::surroundings::Surroundings;
use crate::operator::record::Keeper;
use crate::process::exit::Exit;
use crate::process::foreign_file;
use model::addr::Family;

/// Deadline for all looks at the kernel, 10 s.
const KERNEL_LIMIT: Duration = Duration::from_secs(10);

/// Longest file of flags that is read, 1 MiB.
const DEFAULTS_MAX: u64 = 1 << 20;

/// What is to be checked, and how it is told.
#[derive(Debug, Clone)]
pub struct Order {
    /// The agent is asked first to put right what is its own.
    pub repair: bool,
    /// As JSON.
    pub json: bool,
    /// Where the agent listens.
    pub socket: PathBuf,
    /// Where it keeps its record; none for where its flags say.
    pub state_dir: Option<PathBuf>,
    /// The kubeconfig to look at; none for the agent's.
    pub kubeconfig: Option<PathBuf>,
    /// Tells from the flags of an agent which files it uses; none if it would not start with them.
    pub read_flags: fn(Vec<OsString>) -> Option<AgentFiles>,
}

/// Files that an agent uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentFiles {
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it keeps its record.
    pub state_dir: PathBuf,
    /// By which it reaches the API server.
    pub kubeconfig: Option<PathBuf>,
    /// Where it writes the configuration of the runtime.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Checks this node.
pub fn run(order: &Order) -> Told {
    // Whoever does not answer at all is a finding below.
    let repaired = if order.repair { agent::repair(&order.socket) } else { Ok(()) };
    let surroundings = Surroundings::find(Path::new("/"));
    let said = match agent::ask(&order.socket, surroundings) {
        Ok(said) => said,
        Err(denied) => return Told::failed(denied.exit(), denied),
    };
    let asides = match (repaired, &said.report) {
        (Err(why), Some(_)) => vec![format!("nothing was repaired by this call: {why}")],
        _ => Vec::new(),
    };
    let findings = match look(order, &said, surroundings) {
        Ok(findings) => findings,
        Err(error) => {
            let exit = if is_denied(&error) { Exit::Denied } else { Exit::Failed };
            let why = match error {
                SceneError::Record(error) => error.to_string(),
                SceneError::Kernel(cause) => Fault { step: Step::Compare, cause }.to_string(),
            };
            return Told::failed(exit, why);
        }
    };
    let exit = if said.report.is_some() { findings.exit() } else { Exit::Unanswered };
    let text = if order.json { findings.json().unwrap_or_default() } else { findings.text() };
    Told { exit, text, asides }
}

fn look(order: &Order, said: &Said, surroundings: Surroundings) -> Result<Findings, SceneError> {
    let deadline = Instant::now() + KERNEL_LIMIT;
    // In one go, since a node has thousands.
    let names: Vec<&str> = kube_proxy::NAMES.into_iter().chain(["flock-agent"]).collect();
    let processes = processes::named(Path::new("/proc"), &names);
    let running = running_agent(order, &processes);
    let files = agent_files(order, running.clone());
    let see = || Scene::look(&files.state_dir, &order.socket, &said.ranges(), deadline);
    let scene = see()?;
    let mut found = said.findings.clone();
    if scene.prefixes.is_empty() {
        let what = "no range of this node is known: it has no NodeConfig yet, or does not serve pods yet";
        found.push(Finding::warn(Area::Configuration, what).cured_by("flock-agent status"));
    }
    let answers = said.report.is_some();
    let elsewhere = answers && !keeps(running.as_ref(), &files.state_dir, scene.recorded.keeper);
    let known = links::Known { answers, elsewhere, contested: said.is_contested() };
    found.extend(links::look(&scene, known, || see().ok()));
    found.extend(host::look(&scene));
    found.extend(filters(&scene, deadline));
    if said.report.is_none() {
        found.extend(tables::look(!scene.recorded.leases.is_empty(), deadline));
    }
    if surroundings == Surroundings::Host {
        found.extend(managers::look(Path::new("/"), &scene.link_names()));
        found.extend(managers::advertised(Path::new("/"), &scene.shows.uplinks));
        found.extend(kube_proxy::look(&processes, &scene.prefixes));
    }
    found.extend(surroundings.unseen());
    let version = said.report.as_ref().map_or(VERSION, |report| &report.version);
    found.extend(runtime::look(files.cni_conf_dir.as_deref(), version, surroundings));
    if let Some(path) = &files.kubeconfig {
        // What the agent says of them is a part of what stands there.
        found.retain(|finding| finding.area != Area::Credentials);
        found.extend(credentials::look(path, SystemTime::now()));
    }
    let further = said.further.iter().filter(|one| !found.iter().any(|known| known.what == one.what));
    let further: Vec<Finding> = further.cloned().collect();
    found.extend(further);
    Ok(Findings::new(found))
}

/// The files of this node's agent, as a check takes them.
pub fn files(order: &Order) -> AgentFiles {
    let processes = processes::named(Path::new("/proc"), &["flock-agent"]);
    agent_files(order, running_agent(order, &processes))
}

/// The files of the agent that runs and has this socket, by the command line with which it was started.
fn running_agent(order: &Order, processes: &[Process]) -> Option<AgentFiles> {
    processes.iter().filter(|process| process.name == "flock-agent").find_map(|process| {
        let files = (order.read_flags)(process.arguments.clone())?;
        let of_process = |path: PathBuf| process.path(&path);
        let files = AgentFiles {
            socket: of_process(files.socket),
            state_dir: of_process(files.state_dir),
            kubeconfig: files.kubeconfig.map(of_process),
            cni_conf_dir: files.cni_conf_dir.map(of_process),
        };
        (files.socket == order.socket).then_some(files)
    })
}

/// The flags with which the unit would start an agent, by the operator's file.
///
/// # Errors
/// The file cannot be read.
pub fn unit_flags() -> io::Result<Vec<OsString>> {
    let text = foreign_file::read(Path::new(DEFAULTS), DEFAULTS_MAX)?;
    Ok(defaults::flags(&String::from_utf8_lossy(&text)))
}

/// The files that an agent uses: this one that runs, or else the one that its unit would start.
fn agent_files(order: &Order, running: Option<AgentFiles>) -> AgentFiles {
    let of_unit = || {
        let files = (order.read_flags)(unit_flags().ok()?)?;
        (files.socket == order.socket).then_some(files)
    };
    let files = running.or_else(of_unit).or_else(|| (order.read_flags)(Vec::new())).unwrap_or_default();
    AgentFiles {
        state_dir: order.state_dir.clone().unwrap_or(files.state_dir),
        kubeconfig: order.kubeconfig.clone().or(files.kubeconfig),
        ..files
    }
}

/// Whether the agent that answers keeps its record here, by its flags, or where those are not seen by the lock.
fn keeps(running: Option<&AgentFiles>, state_dir: &Path, keeper: Keeper) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    running.map_or(keeper != Keeper::Nobody, |files| real(&files.state_dir) == real(state_dir))
}

/// Where the kernel tells of the process of the agent that runs.
pub fn process(keeper: Keeper) -> Option<PathBuf> {
    match keeper {
        Keeper::Agent(pid) => Some(PathBuf::from(format!("/proc/{pid}"))),
        Keeper::Nobody | Keeper::Unknown => None,
    }
}

/// The packet filters of others, of both kinds.
fn filters(scene: &Scene, deadline: Instant) -> Vec<Finding> {
    let packets = firewall::packets(&scene.ends);
    let mut found = firewall::look(&packets, &scene.prefixes, deadline);
    for family in [Family::V4, Family::V6] {
        found.extend(iptables::look(family, &packets, &scene.prefixes));
    }
    if found.is_empty() && !packets.is_empty() {
        found.push(Finding::ok(Area::Firewall, "what pods send and get passes the filters of others"));
    }
    found
}
