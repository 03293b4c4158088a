//! Policies, namespaces and pods from a directory of manifests, for nodes without Kubernetes and for tests: the news of what is in
//! its files, told as watches of an API server tell it.
//!
//! A file that cannot be read or used keeps what it said last, and so do all of them where they are too many or say too much.
//! Why is said once. Must not write anything, nor decide what a policy means.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::agent::policing::cluster::{Change, ClusterNews, PolicyKey, Told, Watch};
use crate::agent::policing::tell::{Keys, Tell};
use crate::agent::policing::watches::report_faults;
use crate::kube::kind::{Name, REASON_MAX};
use crate::kube::policy_objects::{self, PodReader, PolicyObject};
use crate::process::{foreign_file, log};
use model::excerpt::Excerpt;
use model::policy::select::Labels;
use model::policy::watching::Selection;
use model::policy::{Pod, PodKey, Policy, spec};
use model::{syntax, text};

/// Longest file that is read, 4 MiB.
pub const FILE_MAX: u64 = 4 << 20;

/// Most files of the directory that are read.
pub const FILES_MAX: usize = 1024;

/// Most objects of all files together, lists counted by their items. One that is in two files counts twice.
pub const OBJECTS_MAX: usize = 65_536;

/// Interval between looks, 500 ms.
const INTERVAL: Duration = Duration::from_millis(500);

/// Ends of names of files that are read.
const ENDS: [&str; 3] = ["yaml", "yml", "json"];

/// A directory that is followed.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    tell: Tell,
    keys: Keys,
    reader: PodReader,
    files: BTreeMap<PathBuf, Followed>,
    /// What has been told.
    told: Content,
    told_once: bool,
    /// Why the directory could not be used at the last look.
    problem: Option<String>,
}

/// A file of the directory.
#[derive(Debug, Default)]
struct Followed {
    /// Which state of it was looked at last.
    seen: Option<Stamp>,
    /// What it said when it last could be used.
    content: Content,
    /// What was wrong with it at the last look.
    problem: Option<String>,
}

/// What tells one state of a file from another. Content that changes within one clock tick of the file system, at equal length and
/// in place, would go unnoticed; writers that rename never do that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What files say.
#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    policies: BTreeMap<PolicyKey, PolicyObject>,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<PodKey, Arc<Pod>>,
    /// What was passed over, one line each.
    remarks: Vec<String>,
}

/// Why a look was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Everything is to be read again, as at SIGHUP.
    Again,
    /// Nothing more is wanted.
    Stop,
}

impl Directory {
    /// The directory at `path`, of which nothing has been read yet.
    pub fn new(path: PathBuf, tell: Tell) -> Directory {
        Directory {
            path,
            tell,
            keys: Keys::default(),
            reader: PodReader::default(),
            files: BTreeMap::new(),
            told: Content::default(),
            told_once: false,
            problem: None,
        }
    }

    /// Looks now and then, until [`Asked::Stop`] comes or nobody can ask any more.
    pub fn run(mut self, asked: &Receiver<Asked>) {
        loop {
            self.look();
            match asked.recv_timeout(INTERVAL) {
                Ok(Asked::Again) => self.forget(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Asked::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Makes the next look read every file again, whatever its time stamps say, and say again what is wrong.
    pub fn forget(&mut self) {
        self.problem = None;
        for file in self.files.values_mut() {
            (file.seen, file.problem) = (None, None);
        }
    }

    /// What was wrong at the last look.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let told =
            |(path, file): (&PathBuf, &Followed)| Some(format!("{}: {}", path.display(), file.problem.as_ref()?));
        let of_files = self.files.iter().filter_map(told);
        self.problem.clone().into_iter().chain(of_files)
    }

    /// What of the files that could be used is passed over, or means less than it says.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.files.iter().flat_map(|(path, file)| {
            let all = file.content.remarks.iter().cloned().chain(file.content.faults());
            all.map(move |remark| format!("{}: {remark}", path.display()))
        })
    }

    /// Tells what has changed since the last look. The first one at which every file can be used tells everything, be it nothing.
    pub fn look(&mut self) {
        match self.read() {
            Ok(content) => {
                self.problem = None;
                content.into_iter().for_each(|content| self.tell_changes(content));
            }
            Err(why) => self.complain(format!("{}: {why}", self.path.display())),
        }
    }

    /// What the files say, if that is to be told.
    fn read(&mut self) -> Result<Option<Content>, String> {
        let names = names(&self.path).map_err(|error| error.to_string())?;
        let mut changed = !self.told_once;
        let before = self.files.len();
        self.files.retain(|path, _| names.contains(path));
        changed |= self.files.len() != before;
        for path in names {
            let file = self.files.entry(path.clone()).or_default();
            match file.read(&path, &self.reader, &self.keys) {
                Ok(newer) => changed |= newer,
                Err(why) => file.complain(why),
            }
        }
        // A part of the objects would say that there are no others.
        let objects: usize = self.files.values().map(|file| file.content.objects()).sum();
        if objects > OBJECTS_MAX {
            return Err(format!(
                "it has {objects} objects, which is more than {OBJECTS_MAX}: leave out what no policy needs"
            ));
        }
        // What a file says that could not be used yet is not known, and what is not known must not open anything.
        let known = self.told_once || self.files.values().all(|file| file.problem.is_none());
        Ok((changed && known).then(|| self.all()))
    }

    fn complain(&mut self, why: String) {
        if self.problem.as_ref() != Some(&why) {
            log::error("directory of policies cannot be used, what it held stays in force")
                .with("err", &why)
                .write_limited();
            self.problem = Some(why);
        }
    }

    /// What all files say together. Of two files that say something of one object, the first by name counts.
    fn all(&self) -> Content {
        let mut all = Content::default();
        for (path, file) in &self.files {
            let Content { policies, namespaces, pods, .. } = &file.content;
            merge(&mut all.policies, policies, path, |(namespace, name)| format!("NetworkPolicy {namespace}/{name}"));
            merge(&mut all.namespaces, namespaces, path, |name| format!("Namespace {name}"));
            merge(&mut all.pods, pods, path, |key| format!("Pod {key}"));
        }
        all
    }

    fn tell_changes(&mut self, content: Content) {
        let complete = !self.told_once;
        let faults =
            |content: &Content, key: &PolicyKey| content.policies.get(key).map(|object| object.faults.join("; "));
        for key in self.told.policies.keys().chain(content.policies.keys()).collect::<BTreeSet<_>>() {
            let [before, after] = [&self.told, &content].map(|content| faults(content, key).unwrap_or_default());
            if before != after {
                self.tell.tell(ClusterNews::Faults(0, key.clone(), Some(after).filter(|after| !after.is_empty())));
            }
        }
        let policies = |content: &Content| -> BTreeMap<PolicyKey, Arc<Policy>> {
            content.policies.iter().map(|(key, object)| (key.clone(), object.policy.clone())).collect()
        };
        let policies = changes(&policies(&self.told), &policies(&content), complete);
        let namespaces = changes(&self.told.namespaces, &content.namespaces, complete);
        let pods = changes(&self.told.pods, &content.pods, complete);
        let is_news = |each: usize| complete || each > 0;
        if is_news(namespaces.each.len()) {
            self.tell.tell(ClusterNews::Namespaces(0, namespaces));
        }
        if is_news(pods.each.len()) {
            // Which of them are this node's is not written; all of them are known.
            self.tell.tell(ClusterNews::Peers(Watch { selection: Selection::all(), number: 0 }, pods));
        }
        if complete {
            self.tell.tell(ClusterNews::Own(Told { each: Vec::new(), complete }));
        }
        if is_news(policies.each.len()) {
            self.tell.tell(ClusterNews::Policies(0, policies));
        }
        self.told_once = true;
        self.told = content;
    }
}

impl Followed {
    /// Whether it says something else than before.
    fn read(&mut self, path: &Path, reader: &PodReader, keys: &Keys) -> Result<bool, String> {
        let metadata = fs::metadata(path).map_err(|error| foreign_file::explained(path, error).to_string())?;
        let stamp = Stamp {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if self.seen == Some(stamp) {
            return Ok(false);
        }
        // A read that failed leaves no stamp, so that the next look tries again.
        self.seen = None;
        let bytes = foreign_file::read(path, FILE_MAX).map_err(|error| error.to_string())?;
        // What is in it does not change by being looked at again.
        self.seen = Some(stamp);
        let content = content(&bytes, reader, keys)?;
        self.problem = None;
        let newer = self.content != content;
        if newer {
            for remark in &content.remarks {
                log::warn("part of a file of policies is passed over")
                    .with("file", path.display())
                    .with("err", remark)
                    .write_limited();
            }
            content.policies.iter().for_each(|((namespace, name), object)| report_faults(namespace, name, object));
            self.content = content;
        }
        Ok(newer)
    }

    fn complain(&mut self, why: String) {
        if self.problem.as_ref() != Some(&why) {
            log::error("file of policies cannot be used, what it said before stays in force")
                .with("err", &why)
                .write_limited();
            self.problem = Some(why);
        }
    }
}

/// What a file would say, of which nobody has heard yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// How many objects it has.
    pub objects: usize,
    /// What of them means less than it says, one line each.
    pub faults: Vec<String>,
    /// What is passed over, one line each.
    pub remarks: Vec<String>,
}

/// Reads the content of a file as [`Directory`] does.
///
/// # Errors
/// Why it cannot be used.
pub fn outlook(bytes: &[u8]) -> Result<Outlook, String> {
    let content = content(bytes, &PodReader::default(), &Keys::default())?;
    Ok(Outlook { objects: content.objects(), faults: content.faults().collect(), remarks: content.remarks })
}

/// The files of the directory that count, in the order of their names.
///
/// # Errors
/// It cannot be read, or has more than [`FILES_MAX`].
pub fn names(path: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let counts = path.extension().is_some_and(|end| ENDS.iter().any(|known| end == *known));
        if counts && !hidden {
            found.insert(path);
        }
        if found.len() > FILES_MAX {
            return Err(io::Error::other(format!("it has more than {FILES_MAX} files: put several objects into one")));
        }
    }
    Ok(found)
}

fn content(bytes: &[u8], reader: &PodReader, keys: &Keys) -> Result<Content, String> {
    let text = text::decoded(bytes).map_err(|error| syntax::explained(&error, bytes, "").to_string())?;
    let mut content = Content::default();
    let documents = text::documents(&text).map_err(|error| syntax::explained(&error, bytes, &text).to_string())?;
    for (number, document) in documents.into_iter().enumerate() {
        let place = format!("document {}", number + 1);
        content.take(&place, document, reader, keys, true)?;
    }
    Ok(content)
}

impl Content {
    /// How many objects it has.
    fn objects(&self) -> usize {
        self.policies.len() + self.namespaces.len() + self.pods.len()
    }

    /// What of its policies means less than it says.
    fn faults(&self) -> impl Iterator<Item = String> {
        self.policies.iter().flat_map(|((namespace, name), object)| {
            object.faults.iter().map(move |fault| format!("NetworkPolicy {namespace}/{name}: {fault}"))
        })
    }

    /// Takes one object in. `place` says which it is.
    fn take(&mut self, place: &str, object: Value, reader: &PodReader, keys: &Keys, outer: bool) -> Result<(), String> {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let wrong = |why: String| String::from(Excerpt::line(&format!("{place}: {why}"), REASON_MAX));
        match (text("apiVersion"), text("kind")) {
            ("v1", "List") if outer => {
                let items = match object.get("items") {
                    None | Some(Value::Null) => Vec::new(),
                    Some(Value::Array(items)) => items.clone(),
                    Some(_) => return Err(wrong("items is no list".into())),
                };
                for (number, item) in items.into_iter().enumerate() {
                    self.take(&format!("{place}, item {}", number + 1), item, reader, keys, false)?;
                }
            }
            (_, spec::KIND) => {
                let (key, policy) = policy_objects::policy(&object).map_err(wrong)?;
                once(self.policies.insert(key, policy).is_none(), place)?;
            }
            ("v1", "Namespace") => {
                let (_, name) = spec::identity(&object).map_err(|fault| wrong(fault.to_string()))?;
                let labels = policy_objects::namespace_labels(&object, &name);
                once(self.namespaces.insert(name, labels).is_none(), place)?;
            }
            ("v1", "Pod") => {
                let (namespace, name) = spec::identity(&object).map_err(|fault| wrong(fault.to_string()))?;
                let raw = to_raw_value(&object).map_err(|error| wrong(error.to_string()))?;
                if let Some(pod) = reader.pod(&raw).map_err(wrong)? {
                    let key = keys.key(&Name { namespace, name });
                    once(self.pods.insert(key, pod.into()).is_none(), place)?;
                }
            }
            (version, kind) => {
                let (version, kind) = (Excerpt::of(version), Excerpt::of(kind));
                let known = "NetworkPolicy of networking.k8s.io/v1, and Namespace, Pod and List of v1 are known";
                self.remarks.push(format!("{place}: kind {kind} of apiVersion {version} is ignored: {known}"));
                self.remarks.truncate(REMARKS_MAX);
            }
        }
        Ok(())
    }
}

/// Most remarks about one file.
const REMARKS_MAX: usize = 16;

fn once(is_new: bool, place: &str) -> Result<(), String> {
    if is_new { Ok(()) } else { Err(format!("{place}: the file has another object of this kind and name: leave one")) }
}

fn merge<K: Ord + Clone, V: Clone>(
    all: &mut BTreeMap<K, V>,
    more: &BTreeMap<K, V>,
    path: &Path,
    words: impl Fn(&K) -> String,
) {
    for (key, value) in more {
        if all.contains_key(key) {
            log::warn("two files of policies say something of one object, and the first by name counts")
                .with("object", words(key))
                .with("ignored", path.display())
                .write_limited();
        } else {
            all.insert(key.clone(), value.clone());
        }
    }
}

fn changes<K: Ord + Clone, V: Clone + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    complete: bool,
) -> Told<K, V> {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| Change { key: key.clone(), known: true, now: None });
    let new = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let new =
        new.map(|(key, value)| Change { key: key.clone(), known: before.contains_key(key), now: Some(value.clone()) });
    Told { each: gone.chain(new).collect(), complete }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::policing::cluster::Cluster;
    use std::sync::mpsc::channel;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("flock-policies-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Dir(path)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join("new"), text).expect("writable");
            fs::rename(self.0.join("new"), self.0.join(name)).expect("renamed");
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// A directory that is followed, and what is known by it.
    fn followed(dir: &Dir) -> (Directory, impl FnMut(&mut Directory) -> (Cluster, usize) + use<>) {
        let (tell, told) = channel();
        let directory = Directory::new(dir.0.clone(), Tell::new(move |news| _ = tell.send(news)));
        let mut all = Vec::new();
        let look = move |directory: &mut Directory| {
            directory.look();
            let before = all.len();
            all.extend(told.try_iter());
            let mut cluster = Cluster::default();
            all.iter().for_each(|news: &ClusterNews| _ = cluster.hear(news.clone()));
            (cluster, all.len() - before)
        };
        (directory, look)
    }

    fn policies(cluster: &Cluster) -> Vec<String> {
        cluster.world().policies.keys().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
    }

    fn pods(cluster: &Cluster) -> Vec<String> {
        let pods = cluster.world().pods.iter();
        pods.map(|(key, pod)| format!("{key} {:?} {}", pod.addresses, pod.ports.len())).collect()
    }

    fn policy(name: &str) -> String {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: web}}\nspec: \
             {{podSelector: {{}}}}\n"
        )
    }

    const PODS: &str = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: web, labels: {team: a}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: local, namespace: web, labels: {app: front}}
  spec:
    containers: [{name: c, ports: [{name: http, containerPort: 80}]}]
    initContainers: [{name: side, restartPolicy: Always, ports: [{name: metrics, containerPort: 9}]}, {name: i, ports: [{name: x, containerPort: 1}]}]
- {apiVersion: v1, kind: Pod, metadata: {name: far, labels: {app: db}}, status: {podIPs: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: done}, status: {phase: Failed, podIP: 10.0.0.2}}
- {apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true}, status: {podIP: 10.0.0.3}}
";

    #[test]
    fn what_the_files_say_is_known_at_once_and_what_changes_is_told() {
        let dir = Dir::new("all");
        let (mut directory, mut look) = followed(&dir);
        let (cluster, told) = look(&mut directory);
        assert!(cluster.is_known() && told == 4, "that there is nothing is known, too");
        dir.write("pods.yml", PODS);
        dir.write("a.yaml", &format!("# two\n---\n{}---\n{}---\n", policy("p"), policy("q")));
        let json = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"j"}}"#;
        dir.write("b.json", json);
        for ignored in ["c.txt", ".hidden.yaml", "d.yaml.bak", "e"] {
            dir.write(ignored, &policy("ignored"));
        }
        let (cluster, told) = look(&mut directory);
        assert_eq!(policies(&cluster), ["default/j", "web/p", "web/q"]);
        assert_eq!(pods(&cluster), ["default/far [10.0.0.1, 2001:db8::1] 0", "web/local [] 2"]);
        let web = cluster.world().namespaces.get("web").expect("known");
        assert_eq!((web.get("team"), web.get("kubernetes.io/metadata.name")), (Some("a"), Some("web")));
        assert_eq!(told, 3);
        assert_eq!(look(&mut directory).1, 0, "nothing has changed");

        dir.write("a.yaml", &policy("q"));
        dir.write("pods.yml", &PODS.replace("10.0.0.1", "10.0.0.9"));
        fs::remove_file(dir.0.join("b.json")).expect("removable");
        let (cluster, told) = look(&mut directory);
        assert_eq!((policies(&cluster), told), (vec!["web/q".to_owned()], 2));
        assert_eq!(pods(&cluster)[0], "default/far [10.0.0.9, 2001:db8::1] 0");
        directory.forget();
        assert_eq!(look(&mut directory).1, 0, "read again, and as it was");
        let misunderstood = |cluster: &Cluster| cluster.misunderstood("web").collect::<Vec<_>>();
        dir.write("b.yaml", &policy("r").replace("spec: {", "spec: {policyTypes: [Egres], "));
        let said = misunderstood(&look(&mut directory).0);
        assert!(said.len() == 1 && said[0].contains("web/r") && said[0].contains("Egres"), "{said:?}");
        dir.write("b.yaml", &policy("r"));
        assert_eq!(misunderstood(&look(&mut directory).0), [""; 0]);
    }

    #[test]
    fn a_file_that_cannot_be_used_keeps_what_it_said_last() {
        let dir = Dir::new("bad");
        dir.write("a.yaml", &policy("p"));
        dir.write("b.yaml", &policy("q"));
        let (mut directory, mut look) = followed(&dir);
        assert_eq!(policies(&look(&mut directory).0), ["web/p", "web/q"]);
        for (bad, why) in [
            ("{".to_owned(), "line"),
            (format!("{}---\n{}", policy("x"), policy("x")), "document 2: the file has another object"),
            ("apiVersion: v1\nkind: List\nitems: {a: {kind: Namespace}}\n".to_owned(), "document 1: items is no list"),
            (policy("x").replace("name: x", "name: 7"), "document 1: metadata.name: 7 is no name"),
            (policy("x").replace("networking.k8s.io/v1", "extensions/v1beta1"), "must be networking.k8s.io/v1"),
            ("\u{0}".repeat(10), ""),
            ("#".repeat(usize::try_from(FILE_MAX).expect("small") + 1), "longer than"),
        ] {
            dir.write("a.yaml", &bad);
            let (cluster, told) = look(&mut directory);
            assert_eq!((policies(&cluster), told), (vec!["web/p".to_owned(), "web/q".to_owned()], 0), "{why}");
            let problem = directory.files[&dir.0.join("a.yaml")].problem.clone().expect("a problem");
            assert!(problem.contains(why), "{problem}");
        }
        // So does one that is no file.
        fs::remove_file(dir.0.join("a.yaml")).expect("removable");
        fs::create_dir(dir.0.join("a.yaml")).expect("a directory");
        assert_eq!(policies(&look(&mut directory).0), ["web/p", "web/q"]);
        fs::remove_dir(dir.0.join("a.yaml")).expect("removable");
        assert_eq!(policies(&look(&mut directory).0), ["web/q"], "one that is gone says nothing any more");
        // And the whole directory.
        fs::rename(&dir.0, dir.0.with_extension("away")).expect("renamed");
        assert_eq!((policies(&look(&mut directory).0), directory.problem.is_some()), (vec!["web/q".to_owned()], true));
        fs::rename(dir.0.with_extension("away"), &dir.0).expect("renamed");
        dir.write("a.yaml", &policy("r"));
        assert_eq!(policies(&look(&mut directory).0), ["web/q", "web/r"]);
    }

    #[test]
    fn nothing_is_told_until_every_file_could_be_used() {
        let dir = Dir::new("first");
        dir.write("a.yaml", &policy("p"));
        dir.write("b.yaml", "{");
        let (mut directory, mut look) = followed(&dir);
        for _ in 0..2 {
            let (cluster, told) = look(&mut directory);
            assert!(!cluster.is_known() && told == 0);
        }
        dir.write("b.yaml", &policy("q"));
        assert_eq!(policies(&look(&mut directory).0), ["web/p", "web/q"]);
    }

    /// So many Namespaces in one document, beginning with this number.
    fn namespaces(first: usize, number: usize) -> String {
        let items: Vec<String> = (first..first + number)
            .map(|n| format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"n{n}"}}}}"#))
            .collect();
        format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, items.join(","))
    }

    /// Files that together have as many objects as there may be, less the policy `a.yaml` says, and more.
    fn fill(dir: &Dir, objects: usize) {
        let each = 16_384;
        for first in (0..objects).step_by(each) {
            dir.write(&format!("b{first:05}.json"), &namespaces(first, each.min(objects - first)));
        }
    }

    #[test]
    fn one_object_too_many_takes_away_nothing_that_is_in_force() {
        let dir = Dir::new("many");
        dir.write("z.yaml", &policy("p"));
        fill(&dir, OBJECTS_MAX - 1);
        let (mut directory, mut look) = followed(&dir);
        let full = look(&mut directory).0;
        assert_eq!((policies(&full), full.world().namespaces.len()), (vec!["web/p".to_owned()], OBJECTS_MAX - 1));
        assert_eq!(directory.problems().next(), None);

        // In a file that comes before the policy, and in one that has the policy itself.
        for (name, more, less) in [
            ("a.yaml", policy("q"), None),
            ("z.yaml", format!("{}---\n{}", policy("p"), policy("q")), Some(policy("p"))),
        ] {
            dir.write(name, &more);
            for _ in 0..2 {
                let (cluster, told) = look(&mut directory);
                assert_eq!((policies(&cluster), told), (vec!["web/p".to_owned()], 0), "{name}");
                let problems: Vec<String> = directory.problems().collect();
                let said = format!("{}: it has {} objects", dir.0.display(), OBJECTS_MAX + 1);
                assert!(problems.len() == 1 && problems[0].starts_with(&said), "{problems:?}");
                assert!(problems[0].contains(&format!("more than {OBJECTS_MAX}")), "{problems:?}");
            }
            match less {
                Some(less) => dir.write(name, &less),
                None => fs::remove_file(dir.0.join(name)).expect("removable"),
            }
            assert_eq!(
                (policies(&look(&mut directory).0), directory.problems().count()),
                (vec!["web/p".to_owned()], 0)
            );
        }

        // What changes meanwhile is told when there is room for all of it.
        dir.write("a.yaml", &policy("q"));
        look(&mut directory);
        dir.write("z.yaml", "# nothing");
        assert_eq!((policies(&look(&mut directory).0), directory.problems().count()), (vec!["web/q".to_owned()], 0));
    }

    #[test]
    fn nothing_is_told_until_there_is_room_for_every_object() {
        let dir = Dir::new("much");
        dir.write("z.yaml", &policy("p"));
        fill(&dir, OBJECTS_MAX);
        let (mut directory, mut look) = followed(&dir);
        for _ in 0..2 {
            let (cluster, told) = look(&mut directory);
            assert!(!cluster.is_known() && told == 0 && directory.problems().count() == 1);
        }
        fs::remove_file(dir.0.join("b00000.json")).expect("removable");
        assert_eq!(policies(&look(&mut directory).0), ["web/p"]);
        assert_eq!(directory.problems().next(), None);
    }

    #[test]
    fn of_two_files_that_say_something_of_one_object_the_first_counts_and_unknown_kinds_are_named() {
        let dir = Dir::new("two");
        dir.write(
            "b.yaml",
            &policy("p").replace("spec: {podSelector: {}}", "spec: {podSelector: {}, policyTypes: [Egress]}"),
        );
        dir.write("a.yaml", &policy("p"));
        dir.write("c.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n---\nkind: List\nitems: []\n");
        let (mut directory, mut look) = followed(&dir);
        let (cluster, _) = look(&mut directory);
        let found = cluster.world().policies.values().next().expect("a policy");
        assert!(found.ingress.is_some() && found.egress.is_none());
        let remarks = &directory.files[&dir.0.join("c.yaml")].content.remarks;
        assert!(
            remarks.len() == 2 && remarks[0].contains("document 1: kind \"Service\" of apiVersion \"v1\" is ignored"),
            "{remarks:?}"
        );
        fs::remove_file(dir.0.join("a.yaml")).expect("removable");
        let (cluster, _) = look(&mut directory);
        assert!(cluster.world().policies.values().next().is_some_and(|policy| policy.ingress.is_none()));
    }
}
