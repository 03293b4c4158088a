//! The file with the CNI configuration of the runtime: looks at it, and puts it in place so that a runtime sees the old or the new
//! content whole. `cni::conflist` decides what should be in it.
//!
//! The agent writes the file only if its settings name a directory, and only once it can serve. From then on it keeps the file,
//! whoever removes or damages it: without it a runtime can neither start nor delete pods. For the same reason it must not
//! remove the file, nor what an operator has made of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::agent::node::portmap::{HostPorts, PortmapPlugin, Search};
use crate::agent::node::state::CniConf;
use crate::process::foreign_file::open_regular;
use crate::process::log;
use crate::process::log::lasting::Lasting;
use crate::record::disk::DiskError;
use crate::record::replacement::Replacement;
use crate::rpc::DEFAULT_SOCKET;
use cni::conflist::{self, FILE_NAME, Portmap, Present, Remedy};

/// Longest file that is read, 1 MiB. What is longer was not composed here.
const FILE_MAX: u64 = 1024 * 1024;

/// Permissions of the file: a runtime that is not root may read it, too.
const MODE: u32 = 0o644;

/// Interval between looks at the file, 5 s. Without it no pod can be started or stopped.
const INTERVAL: Duration = Duration::from_secs(5);

/// The file, kept.
#[derive(Debug)]
pub struct Conflist {
    /// The directory, which must exist.
    dir: PathBuf,
    /// The agent's socket, if it is another than the plugin's default.
    unusual_socket: Option<String>,
    portmap: PortmapPlugin,
    /// What the log last said of the file, which needs no second line.
    said: Option<(Remedy, HostPorts)>,
    failing: Lasting,
    /// When the file was last as it should be, as far as is known.
    settled: Option<Instant>,
    /// How the file is, for whoever asks.
    state: CniConf,
}

impl Conflist {
    /// The file in `dir` of an agent with this socket, for a runtime that looks for its plugins as `search` tells.
    pub fn new(dir: PathBuf, socket: &Path, search: Search) -> Conflist {
        let unusual = (socket != Path::new(DEFAULT_SOCKET)).then(|| socket.to_string_lossy().into_owned());
        let state = CniConf::NotYet(dir.join(FILE_NAME));
        Conflist {
            dir,
            unusual_socket: unusual,
            portmap: PortmapPlugin::new(search),
            said: None,
            failing: Lasting::default(),
            settled: None,
            state,
        }
    }

    /// How the file is, as of the last look.
    pub fn state(&self) -> &CniConf {
        &self.state
    }

    /// Makes the next [`Conflist::settle`] look, however lately the last one did.
    pub fn hurry(&mut self) {
        self.settled = None;
    }

    /// Looks at the file, unless it was as it should be a moment ago, and writes it if it has to be. Says in the log what has
    /// changed, and how it is with host ports. May take some seconds when portmap is new and hangs. What fails is tried again
    /// with the next call.
    pub fn settle(&mut self) {
        if self.settled.is_some_and(|settled| settled.elapsed() < INTERVAL) {
            return;
        }
        match self.keep() {
            Ok(()) => {
                self.settled = Some(Instant::now());
                self.failing.over(|| log::info("CNI configuration can be written again"));
            }
            Err(error) => {
                let why = explained(&self.dir, &error);
                self.state = CniConf::Failed(self.dir.join(FILE_NAME), why.clone());
                self.failing.met(why, || log::error("CNI configuration cannot be written"));
            }
        }
    }

    /// Cheap when nothing has changed: reads the file and looks at portmap.
    fn keep(&mut self) -> Result<(), DiskError> {
        let file = self.dir.join(FILE_NAME);
        let host_ports = self.portmap.host_ports();
        let present = look(&file)?;
        let text = conflist::wanted(self.unusual_socket.as_deref(), chained_by(&host_ports), &present);
        let remedy = conflist::compare(&present, &text);
        let is_news = self.said.as_ref() != Some(&(remedy, host_ports.clone()));
        match remedy {
            Remedy::Write => {
                install(&self.dir, &text)?;
                log::info("CNI configuration written")
                    .with("file", file.display())
                    .with("host_ports", &host_ports)
                    .write_limited();
            }
            Remedy::Leave if is_news => log::info("CNI configuration stands")
                .with("file", file.display())
                .with("host_ports", &host_ports)
                .write_limited(),
            Remedy::LeaveEdited if is_news => {
                log::warn(
                    "CNI configuration is not as the agent writes it and is left alone; remove it to have it written anew",
                )
                .with("file", file.display())
                .write_limited();
            }
            Remedy::Leave | Remedy::LeaveEdited => {}
        }
        self.state = match remedy {
            Remedy::Write | Remedy::Leave => CniConf::Stands(file),
            Remedy::LeaveEdited => CniConf::Edited(file),
        };
        self.said = Some((remedy, host_ports));
        Ok(())
    }
}

/// What the configuration says of host ports.
/// Why the file cannot be kept in `dir`, and what the operator does about it.
fn explained(dir: &Path, error: &DiskError) -> String {
    let shown = dir.display();
    let owner = fs::metadata(dir).ok().filter(fs::Metadata::is_dir).map(|found| found.uid());
    match owner {
        None => {
            format!("the directory {shown} is missing: install the runtime, or set --cni-conf-dir to where it looks")
        }
        Some(owner) if owner != 0 && error.error.kind() == io::ErrorKind::PermissionDenied => format!(
            "{shown} belongs to user {owner}, and this agent has no right to what is not root's: chown root {shown}"
        ),
        Some(_) => error.to_string(),
    }
}

fn chained_by(host_ports: &HostPorts) -> Portmap<'_> {
    match host_ports {
        HostPorts::By(_, versions) => Portmap::Knows(versions),
        HostPorts::Silent(_) | HostPorts::NotIn(_) => Portmap::Absent,
        HostPorts::Unknown => Portmap::Unknown,
    }
}

/// What stands in the place of the file. Waits for nobody.
fn look(file: &Path) -> Result<Present, DiskError> {
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Present::Absent),
        // A link is somebody's own, unless it leads to a file that flock has written.
        Ok(found) if !found.is_file() && !found.is_symlink() => return Ok(Present::Other),
        _ => {}
    }
    let mut bytes = Vec::new();
    let read = open_regular(file, OFlags::empty()).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > FILE_MAX => Ok(Present::Other),
        Ok(_) => Ok(Present::File(String::from_utf8_lossy(&bytes).into_owned())),
        // A link into nowhere, or to something else.
        Err(_) if fs::symlink_metadata(file).is_ok_and(|found| found.is_symlink()) => Ok(Present::Other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Present::Absent),
        Err(error) => Err(DiskError { operation: "read", path: file.into(), error }),
    }
}

/// Puts `text` in place in `dir`, which must exist, in one step.
///
/// # Errors
/// The old file, if any, is in force.
pub fn install(dir: &Path, text: &str) -> Result<(), DiskError> {
    // Beside its name and with an ending that no runtime loads: a rename from another directory would go unnoticed.
    let beside = format!(".{FILE_NAME}.{}.tmp", std::process::id());
    let (name, beside) = (OsStr::new(FILE_NAME), OsStr::new(&beside));
    let opened = File::open(dir);
    let replaced =
        opened.and_then(|dir| Replacement { dir: dir.as_fd(), name, beside, mode: MODE }.write(text.as_bytes()));
    // Of a directory that is missing, its own name is what an operator has to know.
    let path = if dir.is_dir() { dir.join(FILE_NAME) } else { dir.into() };
    replaced.map_err(|error| DiskError { operation: "replace", path, error })
}
