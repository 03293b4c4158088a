//! Keeps the agent's view of the node up to date: the NodeConfig file, and what the host looks like. One thread.
//!
//! A bad or vanished file never harms: the last good one stays in force, and the log says what is wrong with the new one.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::agent::conflist;
use crate::agent::handler::Verbs;
use crate::agent::host::{self, HostFacts};
use crate::agent::ledger::Ranges;
use crate::agent::notify;
use crate::agent::view::{Present, View};
use crate::log;
use crate::nodeconfig::{self, NodeConfig};

/// Between two looks at the file.
const FILE_INTERVAL: Duration = Duration::from_millis(500);

/// Between two looks at the host. Its addresses are kept out of the pods' ranges.
const HOST_INTERVAL: Duration = Duration::from_secs(10);

/// For one look at the host, and for preparing it.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// Longest NodeConfig file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where things are.
#[derive(Debug)]
pub struct Places {
    /// This node's name.
    pub node_name: String,
    /// The NodeConfig file.
    pub node_config: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Where the CNI configuration goes, if anywhere.
    pub cni_conf_dir: Option<PathBuf>,
}

/// What tells one state of a file from another. Content that changes within one clock tick of the file system, at equal
/// length and in place, would go unnoticed; writers that rename never do that.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The thread's state.
#[derive(Debug)]
pub struct Node {
    places: Places,
    verbs: Arc<Verbs>,
    present: Present,
    file: Option<Stamp>,
    file_missing: bool,
    config: Option<NodeConfig>,
    facts: Option<HostFacts>,
    looked: Option<Instant>,
    conflist_failed: bool,
}

impl Node {
    /// A node of which nothing is known yet.
    pub fn new(places: Places, verbs: Arc<Verbs>, present: Present) -> Node {
        Node {
            places,
            verbs,
            present,
            file: None,
            file_missing: false,
            config: None,
            facts: None,
            looked: None,
            conflist_failed: false,
        }
    }

    /// Looks again and again until `stop` says so or is dropped.
    pub fn keep(mut self, stop: &Receiver<()>) {
        while matches!(stop.recv_timeout(FILE_INTERVAL), Err(RecvTimeoutError::Timeout)) {
            self.round();
        }
    }

    /// One look. Does something only when something has changed.
    pub fn round(&mut self) {
        let config_changed = self.read_file();
        let host_changed = self.look_at_host();
        if config_changed || host_changed || self.conflist_failed {
            self.put_in_force();
        }
    }

    fn read_file(&mut self) -> bool {
        let path = &self.places.node_config;
        let stamp = match fs::metadata(path) {
            Ok(metadata) => Stamp {
                inode: metadata.ino(),
                length: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
            Err(error) => {
                if !self.file_missing {
                    self.file_missing = true;
                    self.file = None;
                    log::warn("NodeConfig file cannot be read")
                        .with("file", path.display())
                        .with("err", error)
                        .with("in_force", self.config.as_ref().map_or("none", |_| "the last good one"))
                        .write();
                }
                return false;
            }
        };
        if self.file == Some(stamp) {
            return false;
        }
        self.file = Some(stamp);
        self.file_missing = false;
        let config = read_bounded(path).and_then(|text| nodeconfig::parse(&text).map_err(|error| error.to_string()));
        match config {
            Ok(config) => {
                if config.name != self.places.node_name {
                    log::warn("NodeConfig bears another name than this node")
                        .with("name", &config.name)
                        .with("node", &self.places.node_name)
                        .write();
                }
                let changed = self.config.as_ref() != Some(&config);
                self.config = Some(config);
                changed
            }
            Err(why) => {
                log::error("NodeConfig is not valid")
                    .with("file", path.display())
                    .with("err", why)
                    .with("in_force", self.config.as_ref().map_or("none", |_| "the last good one"))
                    .write();
                false
            }
        }
    }

    fn look_at_host(&mut self) -> bool {
        if self.config.is_none() || self.looked.is_some_and(|looked| looked.elapsed() < HOST_INTERVAL) {
            return false;
        }
        self.looked = Some(Instant::now());
        match host::look(Instant::now() + KERNEL_LIMIT) {
            Ok(facts) if self.facts.as_ref() != Some(&facts) => {
                self.facts = Some(facts);
                true
            }
            Ok(_) => false,
            Err(error) => {
                log::warn("host cannot be read").with("err", error).write_limited();
                false
            }
        }
    }

    fn put_in_force(&mut self) {
        let (Some(config), Some(facts)) = (&self.config, &self.facts) else { return };
        let view = View { config: config.clone(), mtu: config.mtu.unwrap_or(facts.mtu) };
        let first = self.present.get().is_none();
        let same = self.present.get().is_some_and(|present| *present == view);
        self.verbs.ledger().configure(Ranges {
            cidr6: config.cidr6,
            cidr4: config.cidr4,
            host: facts.addresses.clone(),
        });
        self.present.set(view.clone());
        if !same {
            log::info("NodeConfig in force")
                .with_some("cidr6", config.cidr6)
                .with_some("cidr4", config.cidr4)
                .with("mtu", view.mtu)
                .write();
        }
        if (self.places.cni_conf_dir.is_some() || self.verbs.has_prepared_host())
            && let Err(fault) = self.verbs.prepare_host(&view, Instant::now() + KERNEL_LIMIT)
        {
            log::error("host cannot be prepared").with("err", fault).write_limited();
        }
        if let Some(dir) = &self.places.cni_conf_dir {
            let installed = conflist::install(dir, &conflist::compose(&self.places.socket));
            self.conflist_failed = installed.is_err();
            match installed {
                Ok(true) => {
                    log::info("CNI configuration written").with("file", dir.join(conflist::FILE_NAME).display()).write()
                }
                Ok(false) => {}
                Err(error) => log::error("CNI configuration cannot be written").with("err", error).write_limited(),
            }
        }
        if first {
            notify::send("STATUS=serving pods");
        }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("the file is longer than {MAX_FILE} bytes"));
    }
    Ok(text)
}
