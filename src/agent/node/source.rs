//! Where the NodeConfig comes from: a file that is followed, or the API server. Each look tells only what has changed.
//!
//! Must not decide which NodeConfig is in force: the node's thread does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::agent::board::Board;
use crate::agent::node::last_good::LastGood;
use crate::agent::node::state::Edit;
use crate::kube::objects::NodeConfigObject;
use crate::process::foreign_file;
use model::nodeconfig::{self, NodeConfig};

/// Longest NodeConfig file that is read, 1 MiB.
const FILE_MAX: u64 = 1024 * 1024;

/// One of the two sources.
#[derive(Debug)]
pub enum Source {
    /// A file.
    File(FileSource),
    /// The API server.
    Cluster(Box<ClusterSource>),
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// The same as the look before.
    Unchanged,
    /// Another NodeConfig, or one that cannot be used.
    Config {
        /// The NodeConfig, or what is wrong with it.
        config: Result<Box<NodeConfig>, String>,
        /// What an operator should know about one that can be used.
        notes: Vec<String>,
        /// Which edit of which object, for its status; none for a file.
        edit: Option<Edit>,
    },
    /// There is no NodeConfig any more, or not yet; why.
    Gone(String),
    /// The source could not be read; why. The next look tries again.
    Unreadable(String),
}

/// What the API server has under this node's name.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Published {
    /// The API server has not answered yet.
    #[default]
    Unknown,
    /// There is no such object.
    Absent,
    /// The object.
    Object(Arc<NodeConfigObject>),
}

impl Source {
    /// What has changed since the last look.
    pub fn look(&mut self) -> Seen {
        match self {
            Source::File(file) => file.look(),
            Source::Cluster(cluster) => cluster.look(),
        }
    }

    /// Makes the next look read a file again, whatever its time stamps say.
    pub fn forget(&mut self) {
        if let Source::File(file) = self {
            file.seen = None;
            file.problem = None;
        }
    }

    /// The last good NodeConfig of an earlier run, for a start without an API server. A file is there by itself.
    pub fn recall(&mut self) -> Option<NodeConfig> {
        match self {
            Source::File(_) => None,
            Source::Cluster(cluster) => cluster.last_good.recall(&cluster.node),
        }
    }

    /// Keeps `config`, which is in force, for [`Source::recall`] after the next start. Cheap when that is done already.
    pub fn keep_for_next_start(&mut self, config: &NodeConfig) {
        if let Source::Cluster(cluster) = self {
            cluster.keep(config);
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
    /// Stamp of the content that was read last. A read that failed leaves none, so that the next look tries again.
    seen: Option<Stamp>,
    /// Why there was nothing to read at the last look.
    problem: Option<String>,
}

impl FileSource {
    /// The file at `path`, for the node of this name.
    pub fn new(path: PathBuf, node: String) -> FileSource {
        FileSource { path, node, seen: None, problem: None }
    }

    fn look(&mut self) -> Seen {
        let read = self.read_changed();
        let problem = read.as_ref().err().map(|error| format!("{}: {error}", self.path.display()));
        let told = self.problem == problem;
        self.problem.clone_from(&problem);
        match (read, problem) {
            (Ok(Some(bytes)), _) => self.judge(&bytes),
            (Err(error), Some(_)) if error.kind() == io::ErrorKind::NotFound && told => Seen::Unchanged,
            (Err(error), Some(why)) if error.kind() == io::ErrorKind::NotFound => {
                self.seen = None;
                Seen::Gone(why)
            }
            (Err(_), Some(why)) if !told => Seen::Unreadable(why),
            _ => Seen::Unchanged,
        }
    }

    /// The content, if it may be another one than before.
    fn read_changed(&mut self) -> io::Result<Option<Vec<u8>>> {
        let metadata = fs::metadata(&self.path)?;
        let stamp = Stamp {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if self.seen == Some(stamp) {
            return Ok(None);
        }
        let bytes = foreign_file::read(&self.path, FILE_MAX)?;
        self.seen = Some(stamp);
        Ok(Some(bytes))
    }

    fn judge(&self, bytes: &[u8]) -> Seen {
        match nodeconfig::read(bytes) {
            Ok((config, mut notes)) => {
                notes.extend(nodeconfig::name_note(&config.name, &self.node));
                Seen::Config { config: Ok(Box::new(config)), notes, edit: None }
            }
            Err(error) => {
                let why = format!("{}: {error}", self.path.display());
                Seen::Config { config: Err(why), notes: Vec::new(), edit: None }
            }
        }
    }
}

/// This node's NodeConfig in the API.
#[derive(Debug)]
pub struct ClusterSource {
    published: Board<Published>,
    node: String,
    last_good: LastGood,
    /// What the last look has shown.
    seen: Arc<Published>,
    /// The last object that could be used.
    good: Option<Arc<NodeConfigObject>>,
}

impl ClusterSource {
    /// The NodeConfig that a reflector publishes for the node of this name. `last_good` keeps the last good one.
    pub fn new(published: Board<Published>, node: String, last_good: LastGood) -> ClusterSource {
        ClusterSource { published, node, last_good, seen: Arc::default(), good: None }
    }

    fn keep(&mut self, config: &NodeConfig) {
        if let Some(good) = self.good.as_ref().filter(|good| good.config.as_ref() == Ok(config)) {
            self.last_good.keep(config, &good.manifest);
        }
    }

    fn look(&mut self) -> Seen {
        let published = self.published.get();
        if published == self.seen {
            return Seen::Unchanged;
        }
        self.seen = published;
        match &*self.seen {
            Published::Unknown => Seen::Unchanged,
            Published::Absent => Seen::Gone(format!(
                "the API server has no NodeConfig of the name {0}: kubectl apply one with metadata.name {0} and spec.cidr6 or \
                 spec.cidr4 (deploy/README.md shows one); a minute after it is deleted, other nodes drop their routes to pods here",
                self.node
            )),
            Published::Object(object) => {
                if object.config.is_ok() {
                    self.good = Some(object.clone());
                }
                Seen::Config {
                    config: object.config.clone().map(Box::new),
                    notes: object.notes.clone(),
                    edit: Some(Edit { uid: object.uid.clone(), generation: object.generation }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TEXT: &str = "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata: {name: host001}\nspec: {cidr4: 10.0.0.0/24}\n";

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("flock-source-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn source(path: &Path) -> Source {
        Source::File(FileSource::new(path.into(), "host001".into()))
    }

    fn is_config(found: &Seen) -> bool {
        matches!(found, Seen::Config { config: Ok(_), .. })
    }

    // A directory in its place stands for all that may be wrong with a read and heals without a change of the file itself.
    #[test]
    fn a_file_that_could_not_be_read_is_read_as_soon_as_it_can() {
        let dir = Dir::new("heals");
        let (path, real) = (dir.0.join("node.yaml"), dir.0.join("real"));
        fs::write(&real, TEXT).expect("writable");
        fs::create_dir(dir.0.join("odd")).expect("a directory");
        std::os::unix::fs::symlink("odd", &path).expect("a link");
        let mut source = source(&path);
        let found = source.look();
        assert!(
            matches!(&found, Seen::Unreadable(why) if why.contains("node.yaml") && why.contains("regular")),
            "{found:?}"
        );
        assert_eq!(source.look(), Seen::Unchanged, "said once");
        source.forget();
        assert!(matches!(source.look(), Seen::Unreadable(_)), "and again when asked");
        fs::remove_file(&path).expect("removable");
        fs::hard_link(&real, &path).expect("a link");
        assert!(is_config(&source.look()));
        assert_eq!(source.look(), Seen::Unchanged);
        // Unreadable for a moment, and back as it was.
        for _ in 0..2 {
            fs::rename(&path, dir.0.join("away")).expect("renamed");
            fs::create_dir(&path).expect("a directory");
            assert!(matches!(source.look(), Seen::Unreadable(_)));
            fs::remove_dir(&path).expect("removable");
            fs::rename(dir.0.join("away"), &path).expect("renamed");
            assert!(matches!(source.look(), Seen::Unchanged | Seen::Config { .. }));
        }
    }

    #[test]
    fn a_file_is_read_again_when_that_is_asked_for() {
        let dir = Dir::new("again");
        let path = dir.0.join("node.yaml");
        let mut source = source(&path);
        assert!(matches!(source.look(), Seen::Gone(_)));
        assert_eq!(source.look(), Seen::Unchanged);
        fs::write(&path, TEXT).expect("writable");
        assert!(is_config(&source.look()));
        assert_eq!(source.look(), Seen::Unchanged);
        source.forget();
        assert!(is_config(&source.look()));
    }

    // covers: FM-G08
    #[test]
    fn a_missing_node_config_is_named_and_what_its_loss_costs() {
        let published = Board::<Published>::default();
        let last_good = LastGood::new(Path::new("/nonexistent"));
        let mut source = Source::Cluster(ClusterSource::new(published.clone(), "host001".into(), last_good).into());
        assert_eq!(source.look(), Seen::Unchanged, "not heard yet");
        published.set(Published::Absent);
        let Seen::Gone(why) = source.look() else { panic!("gone") };
        assert!(why.contains("NodeConfig of the name host001") && why.contains("kubectl apply"), "{why}");
        // The node itself goes on, so nobody would look for the reason here.
        assert!(why.contains("a minute after it is deleted, other nodes drop their routes to pods here"), "{why}");
    }
}
