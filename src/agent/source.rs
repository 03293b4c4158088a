//! Where the NodeConfig comes from: a file that is followed, or the API server. Each look tells only what has changed.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::agent::cluster::{Latest, Published};
use crate::disk::open_regular;
use crate::log;
use crate::nodeconfig::{self, NodeConfig};

/// Longest NodeConfig file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// One of the two sources.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(FileSource),
    /// The API server.
    Cluster(ClusterSource),
}

/// What a look found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The same as before.
    Nothing,
    /// Another NodeConfig, or one that cannot be used.
    Config {
        /// It, or what is wrong with it.
        config: Result<Box<NodeConfig>, String>,
        /// Which edit of which object, for its status; none for a file.
        edit: Option<Edit>,
    },
    /// There is none any more, or not yet; why.
    Gone(String),
}

/// One edit of an object of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.generation`
    pub generation: i64,
}

impl Source {
    /// Looks.
    pub fn look(&mut self) -> Found {
        match self {
            Source::File(file) => file.look(),
            Source::Cluster(cluster) => cluster.look(),
        }
    }
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

/// A NodeConfig file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    node: String,
    seen: Option<Stamp>,
    missing: bool,
}

impl FileSource {
    /// The file at `path`, for the node of this name.
    pub fn new(path: PathBuf, node: String) -> FileSource {
        FileSource { path, node, seen: None, missing: false }
    }

    fn look(&mut self) -> Found {
        let stamp = match fs::metadata(&self.path) {
            Ok(metadata) => Stamp {
                inode: metadata.ino(),
                length: metadata.len(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
            },
            Err(_) if self.missing => return Found::Nothing,
            Err(error) => {
                self.missing = true;
                self.seen = None;
                return Found::Gone(format!("{}: {error}", self.path.display()));
            }
        };
        if self.seen == Some(stamp) {
            return Found::Nothing;
        }
        self.seen = Some(stamp);
        self.missing = false;
        let parsed = read_bounded(&self.path).and_then(|text| nodeconfig::parse(&text).map_err(|e| e.to_string()));
        if let Ok(config) = &parsed
            && config.name != self.node
        {
            log::warn("NodeConfig bears another name than this node")
                .with("name", &config.name)
                .with("node", &self.node)
                .write_limited();
        }
        let named = |why: String| format!("{}: {why}", self.path.display());
        Found::Config { config: parsed.map(Box::new).map_err(named), edit: None }
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = open_regular(path, OFlags::empty()).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("the file is longer than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// This node's NodeConfig in the API.
#[derive(Debug)]
pub struct ClusterSource {
    latest: Latest,
    seen: Published,
}

impl ClusterSource {
    /// What a reflector publishes in `latest`.
    pub fn new(latest: Latest) -> ClusterSource {
        ClusterSource { latest, seen: Published::Unknown }
    }

    fn look(&mut self) -> Found {
        let latest = self.latest.get();
        if latest == self.seen {
            return Found::Nothing;
        }
        self.seen = latest;
        match &self.seen {
            Published::Unknown => Found::Nothing,
            Published::Absent => Found::Gone("the API server has no NodeConfig of this node's name".into()),
            Published::Object(object) => Found::Config {
                config: object.config.clone().map(Box::new),
                edit: Some(Edit { uid: object.uid.clone(), generation: object.generation }),
            },
        }
    }
}
