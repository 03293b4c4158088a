//! Where the NodeConfig comes from: a file that is followed, or the API server, where a Node's `spec.podCIDRs` may stand for it.
//! Each look tells only what has changed.
//!
//! Must not decide which NodeConfig is in force: the node's thread does.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::agent::board::Board;
use crate::agent::node::last_good::LastGood;
use crate::agent::node::state::{Basis, Edit};
use crate::kube::objects::{NodeConfigObject, NodeObject};
use crate::process::foreign_file;
use model::nodeconfig::{self, NodeConfig};

/// Longest NodeConfig file that is read, 1 MiB.
pub const FILE_MAX: u64 = 1024 * 1024;

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
        /// What says so.
        basis: Basis,
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

/// What the API server has of this node's Node.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum PublishedNode {
    /// The API server has not answered yet.
    #[default]
    Unknown,
    /// There is no Node of this name.
    Absent,
    /// The Node.
    Object(Arc<NodeObject>),
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
        let metadata = fs::metadata(&self.path).map_err(|error| foreign_file::explained(&self.path, error))?;
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
                Seen::Config { config: Ok(Box::new(config)), notes, basis: Basis::File }
            }
            Err(error) => {
                let why = format!("{}: {error}", self.path.display());
                Seen::Config { config: Err(why), notes: Vec::new(), basis: Basis::File }
            }
        }
    }
}

/// This node's NodeConfig in the API, or its Node where it has none.
#[derive(Debug)]
pub struct ClusterSource {
    published: Board<Published>,
    /// Whose `spec.podCIDRs` are the ranges of a node without a NodeConfig; none if that is not wanted.
    fallback: Option<Board<PublishedNode>>,
    node: String,
    last_good: LastGood,
    /// What the last look has shown.
    seen: (Arc<Published>, Arc<PublishedNode>),
    /// The last configuration that could be used, with the manifest that gives it again.
    good: Option<(NodeConfig, String)>,
}

impl ClusterSource {
    /// The NodeConfig that a reflector publishes for the node of this name, and the Node of `fallback`. `last_good` keeps the last
    /// good configuration.
    pub fn new(
        published: Board<Published>,
        fallback: Option<Board<PublishedNode>>,
        node: String,
        last_good: LastGood,
    ) -> ClusterSource {
        ClusterSource { published, fallback, node, last_good, seen: Default::default(), good: None }
    }

    fn keep(&mut self, config: &NodeConfig) {
        if let Some((good, manifest)) = self.good.as_ref().filter(|(good, _)| good == config) {
            self.last_good.keep(good, manifest);
        }
    }

    fn look(&mut self) -> Seen {
        let published = (self.published.get(), self.fallback.as_ref().map(Board::get).unwrap_or_default());
        if published == self.seen {
            return Seen::Unchanged;
        }
        let former = std::mem::replace(&mut self.seen, published);
        let (config, node) = self.seen.clone();
        match (&*config, self.fallback.is_some().then_some(&*node)) {
            (Published::Unknown, _) | (Published::Absent, Some(PublishedNode::Unknown)) => Seen::Unchanged,
            // A NodeConfig that cannot be used is no reason to use another word: its owner is told, and the last good one stays.
            (Published::Object(_), _) if former.0 == config => Seen::Unchanged,
            (Published::Object(object), _) => {
                if let Ok(good) = &object.config {
                    self.good = Some((good.clone(), object.manifest.clone()));
                }
                Seen::Config {
                    config: object.config.clone().map(Box::new),
                    notes: object.notes.clone(),
                    basis: Basis::NodeConfig(Edit { uid: object.uid.clone(), generation: object.generation }),
                }
            }
            (Published::Absent, Some(PublishedNode::Object(node))) if !node.pod_cidrs.is_empty() => {
                self.pod_cidrs(node)
            }
            (Published::Absent, fallback) => Seen::Gone(missing(&self.node, fallback)),
        }
    }

    fn pod_cidrs(&mut self, node: &NodeObject) -> Seen {
        let config = match nodeconfig::of_pod_cidrs(&self.node, &node.pod_cidrs) {
            Ok(good) => Ok(Box::new(self.good.insert(good).0.clone())),
            Err(error) => Err(format!("Node {}: {error}; a NodeConfig of this name would count instead", self.node)),
        };
        Seen::Config { config, notes: Vec::new(), basis: Basis::PodCidrs(node.uid.clone()) }
    }
}

/// Why a node without a NodeConfig has no ranges, and what to do; `fallback` is its Node, where that would do.
fn missing(node: &str, fallback: Option<&PublishedNode>) -> String {
    let apply = format!(
        "kubectl apply a NodeConfig with metadata.name {node} and spec.cidr6 or spec.cidr4 (deploy/README.md shows one)"
    );
    match fallback {
        None => format!(
            "the API server has no NodeConfig of the name {node}: {apply}, or start the agent with --pod-cidrs for those of the Node; \
             a minute after a NodeConfig is deleted, other nodes drop their routes to pods here"
        ),
        Some(PublishedNode::Object(_)) => format!(
            "the API server has no NodeConfig of the name {node}, and the Node of this name has no spec.podCIDRs: \
             kube-controller-manager gives each Node its ranges with --allocate-node-cidrs=true and --cluster-cidr (kubeadm: \
             networking.podSubnet, at kubeadm init), or {apply}"
        ),
        Some(PublishedNode::Unknown | PublishedNode::Absent) => format!(
            "the API server has neither a NodeConfig nor a Node of the name {node}: kubelet makes the Node when it registers; compare \
             the name with those that `kubectl get nodes` shows, and give --node-name if it is another, or {apply}"
        ),
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

    fn cluster(pod_cidrs: bool) -> (Board<Published>, Board<PublishedNode>, Source) {
        let (published, node) = (Board::default(), Board::default());
        let last_good = LastGood::new(Path::new("/nonexistent"));
        let fallback = pod_cidrs.then(|| node.clone());
        let source = ClusterSource::new(published.clone(), fallback, "host001".into(), last_good);
        (published, node, Source::Cluster(source.into()))
    }

    // covers: FM-G08
    #[test]
    fn a_missing_node_config_is_named_and_what_its_loss_costs() {
        let (published, _, mut source) = cluster(false);
        assert_eq!(source.look(), Seen::Unchanged, "not heard yet");
        published.set(Published::Absent);
        let Seen::Gone(why) = source.look() else { panic!("gone") };
        for words in ["NodeConfig of the name host001", "kubectl apply", "--pod-cidrs"] {
            assert!(why.contains(words), "{why}");
        }
        // The node itself goes on, so nobody would look for the reason here.
        assert!(
            why.contains("a minute after a NodeConfig is deleted, other nodes drop their routes to pods here"),
            "{why}"
        );
    }

    fn node_config(cidr4: &str, generation: i64) -> Published {
        let config = nodeconfig::parse(TEXT.replace("10.0.0.0/24", cidr4)).map_err(|error| error.to_string());
        let object =
            NodeConfigObject { uid: "u1".into(), generation, config, notes: Vec::new(), manifest: String::new() };
        Published::Object(Arc::new(object))
    }

    fn node(uid: &str, cidrs: &[&str]) -> PublishedNode {
        let pod_cidrs = cidrs.iter().map(ToString::to_string).collect();
        PublishedNode::Object(Arc::new(NodeObject { uid: uid.into(), pod_cidrs }))
    }

    /// The IPv4 range of what is in force after a look, or what is wrong; none if nothing has changed.
    fn seen(source: &mut Source) -> Option<(Result<String, String>, Basis)> {
        match source.look() {
            Seen::Config { config, basis, .. } => {
                Some((config.map(|config| config.cidr4.expect("a range").to_string()), basis))
            }
            Seen::Gone(why) => Some((Err(why), Basis::Nothing)),
            Seen::Unchanged => None,
            Seen::Unreadable(why) => panic!("{why}"),
        }
    }

    #[test]
    fn pod_cidrs_count_as_long_as_there_is_no_node_config() {
        let (published, nodes, mut source) = cluster(true);
        let edit = |generation| Basis::NodeConfig(Edit { uid: "u1".into(), generation });
        let in_force = |cidr4: &str, basis: Basis| Some((Ok(cidr4.to_owned()), basis));
        nodes.set(node("n1", &["10.1.0.0/24"]));
        assert_eq!(seen(&mut source), None, "there may be a NodeConfig");
        published.set(Published::Absent);
        assert_eq!(seen(&mut source), in_force("10.1.0.0/24", Basis::PodCidrs("n1".into())));
        assert_eq!(seen(&mut source), None);
        published.set(node_config("10.2.0.0/24", 1));
        assert_eq!(seen(&mut source), in_force("10.2.0.0/24", edit(1)));
        nodes.set(node("n1", &["10.3.0.0/24"]));
        assert_eq!(seen(&mut source), None, "the NodeConfig counts");
        published.set(node_config("10.2.0.0/31", 2));
        let (bad, basis) = seen(&mut source).expect("news");
        assert!(bad.is_err_and(|why| why.contains("too small")) && basis == edit(2), "its owner is told");
        published.set(Published::Absent);
        assert_eq!(seen(&mut source), in_force("10.3.0.0/24", Basis::PodCidrs("n1".into())));
        nodes.set(node("n2", &["10.3.0.0/31"]));
        let (bad, basis) = seen(&mut source).expect("news");
        let why = bad.expect_err("refused");
        assert!(why.starts_with("Node host001: spec.podCIDRs: \"10.3.0.0/31\"") && why.contains("NodeConfig"), "{why}");
        assert_eq!(basis, Basis::PodCidrs("n2".into()));
    }

    #[test]
    fn a_node_that_kubernetes_gives_no_ranges_is_told_what_to_do() {
        let (published, nodes, mut source) = cluster(true);
        published.set(Published::Absent);
        assert_eq!(seen(&mut source), None, "the Node is not heard yet");
        nodes.set(node("n1", &[]));
        let why = |source: &mut Source| seen(source).expect("news").0.expect_err("none");
        for words in ["no spec.podCIDRs", "--allocate-node-cidrs=true", "--cluster-cidr", "podSubnet", "kubectl apply"]
        {
            assert!(why(&mut cluster_again(&nodes)).contains(words), "{words}");
        }
        assert!(why(&mut source).contains("host001"));
        nodes.set(PublishedNode::Absent);
        let why = why(&mut source);
        assert!(why.contains("neither a NodeConfig nor a Node") && why.contains("--node-name"), "{why}");
    }

    /// A source that hears of this Node, and that there is no NodeConfig, for the first time.
    fn cluster_again(nodes: &Board<PublishedNode>) -> Source {
        let (published, own, source) = cluster(true);
        own.set((*nodes.get()).clone());
        published.set(Published::Absent);
        source
    }
}
