//! `flock-agent explain FROM TO`: may one talk to the other? Asks the agent of this node, or answers from files where none is to
//! be asked.
//!
//! From files, both ends count as pods of one node, each of which its own policies hold for, since no file says which node a pod
//! is on. Must not write anything, nor ask the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use crate::agent::policing::cluster::Cluster;
use crate::agent::policing::directory::Directory;
use crate::agent::policing::tell::Tell;
use crate::operator::Told;
use crate::operator::ask::{self, Unanswered};
use crate::process::exit::Exit;
use crate::process::foreign_file;
use crate::rpc::message::{Explanation, Passage, Query, QueryOp};
use crate::rpc::{QUERY_LIMIT, QUERY_PATIENCE};
use model::addr::IfName;
use model::asked::{Asked, Facts, Party, Unanswerable, answer};
use model::nodeconfig;
use model::policing::{Mode, Policing};
use model::policy::{PodKey, Subject, Treatment, World};
use model::ruleset::Ruleset;

/// Longest NodeConfig file that is read, 1 MiB.
const CONFIG_MAX: u64 = 1 << 20;

/// Most remarks about files that are told.
const NOTES_MAX: usize = 16;

/// The question, in the words of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// `FROM`.
    pub from: String,
    /// `TO`.
    pub to: String,
    /// `PROTO/PORT`.
    pub port: Option<String>,
}

impl Words {
    fn read(&self) -> Result<Asked, Unanswerable> {
        Asked::read(&self.from, &self.to, self.port.as_deref())
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The agent that listens here.
    Agent(PathBuf),
    /// Nobody.
    Files {
        /// The manifests.
        policies: PathBuf,
        /// The NodeConfig; none: what holds for one that says nothing.
        config: Option<PathBuf>,
    },
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ExplainError {
    /// The question cannot be answered as it stands.
    Misused(Unanswerable),
    /// The agent does not answer.
    Unanswered(Unanswered),
    /// A file cannot be used.
    File(String),
}

impl fmt::Display for ExplainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExplainError::Misused(why) => write!(f, "{why}"),
            ExplainError::Unanswered(why) => write!(f, "{why}"),
            ExplainError::File(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ExplainError {}

impl From<Unanswerable> for ExplainError {
    fn from(why: Unanswerable) -> ExplainError {
        ExplainError::Misused(why)
    }
}

impl ExplainError {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            ExplainError::Misused(_) | ExplainError::File(_) => Exit::Misused,
            ExplainError::Unanswered(why) => why.exit(),
        }
    }
}

/// Tells whether packets pass, and why.
pub fn run(words: &Words, source: &Source) -> Told {
    match explain(words, source) {
        Ok((exit, text)) => Told { exit, text, asides: Vec::new() },
        Err(error) => Told::failed(error.exit(), error),
    }
}

/// The answer to a question: whether packets pass, and why, as text.
///
/// # Errors
/// There is none.
fn explain(words: &Words, source: &Source) -> Result<(Exit, String), ExplainError> {
    // What the agent would not understand need not be sent.
    words.read()?;
    let Explanation { passes, text } = match source {
        Source::Agent(socket) => ask(words, socket)?,
        Source::Files { policies, config } => Files::read(policies, config.as_deref())?.explain(words)?,
    };
    Ok((if passes { Exit::Done } else { Exit::Failed }, text))
}

fn ask(words: &Words, socket: &Path) -> Result<Explanation, ExplainError> {
    let Words { from, to, port } = words.clone();
    let query = Query::Passage(Passage { op: QueryOp::Explain, from, to, port });
    ask::ask(socket, &query, QUERY_PATIENCE, QUERY_LIMIT).map_err(ExplainError::Unanswered)
}

/// What files say, without an agent.
#[derive(Debug)]
pub struct Files {
    world: World,
    wishes: Policing,
    /// What of them is passed over, at most [`NOTES_MAX`].
    notes: Vec<String>,
}

impl Files {
    /// Reads a directory of manifests and, if there is one, a NodeConfig.
    ///
    /// # Errors
    /// One of the files cannot be used; which, and why.
    pub fn read(policies: &Path, config: Option<&Path>) -> Result<Files, ExplainError> {
        let wishes = config.map_or_else(|| Ok(Policing::default()), wishes)?;
        let (tell, told) = channel();
        // The receiver is here, so nothing is lost.
        let mut directory = Directory::new(policies.to_owned(), Tell::new(move |news| drop(tell.send(news))));
        directory.look();
        if let Some(why) = directory.problems().next() {
            return Err(ExplainError::File(why));
        }
        let mut cluster = Cluster::default();
        told.try_iter().for_each(|news| drop(cluster.hear(news)));
        let notes = directory.remarks().take(NOTES_MAX).collect();
        Ok(Files { world: cluster.world().clone(), wishes, notes })
    }

    /// The answer to a question.
    ///
    /// # Errors
    /// The question cannot be answered as it stands.
    pub fn explain(&self, words: &Words) -> Result<Explanation, ExplainError> {
        let asked = words.read()?;
        let mut world = self.world.clone();
        let treatment = match self.wishes.mode {
            Mode::Enforce => Treatment::Enforce,
            Mode::Audit => Treatment::Audit,
            Mode::None => Treatment::Exempt,
        };
        let mut subjects: Vec<Subject> = Vec::new();
        for (party, link) in [(&asked.from, "FROM"), (&asked.to, "TO")] {
            for pod in pods_of(party, &mut world) {
                let addresses = world.pods.get(&pod).map(|pod| pod.addresses.clone()).unwrap_or_default();
                let is_new = !addresses.is_empty() && subjects.iter().all(|other| other.pod.as_ref() != Some(&pod));
                let link = link.parse::<IfName>().ok().filter(|_| is_new);
                subjects.extend(link.map(|link| Subject { link, pod: Some(pod), addresses, treatment }));
            }
        }
        let facts = Facts {
            world: &world,
            subjects: &subjects,
            sources: &Ruleset::new(),
            node: &BTreeSet::new(),
            known_by: "in the files",
        };
        let answer = answer(&asked, &facts)?;
        let how =
            "from files, without an agent: FROM and TO stand for the links of the two, and sources are not checked";
        let notes = [how].into_iter().chain(self.notes.iter().map(String::as_str));
        let text = notes.fold(answer.text, |text, note| text + "note: " + note + "\n");
        Ok(Explanation { passes: answer.passes, text })
    }
}

/// The pods that may be meant: more than one if they share an address, which then decides nothing. One of which the files have no
/// address has the one that is asked with.
fn pods_of(party: &Party, world: &mut World) -> Vec<PodKey> {
    match party {
        Party::Node => Vec::new(),
        Party::Address(ip) => {
            let have_it = world.pods.iter().filter(|(_, pod)| pod.addresses.contains(ip));
            have_it.map(|(key, _)| key.clone()).collect()
        }
        Party::Pod(key, at) => {
            if let Some(pod) = world.pods.get_mut(key).filter(|pod| pod.addresses.is_empty()) {
                Arc::make_mut(pod).addresses.extend(*at);
            }
            vec![key.clone()]
        }
    }
}

fn wishes(path: &Path) -> Result<Policing, ExplainError> {
    let wrong = |why: String| ExplainError::File(format!("{}: {why}", path.display()));
    let bytes = foreign_file::read(path, CONFIG_MAX).map_err(|error| wrong(error.to_string()))?;
    let config = nodeconfig::parse(bytes).map_err(|error| wrong(error.to_string()))?;
    Ok(config.policing)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent::policing::directory::OBJECTS_MAX;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str, text: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("flock-explain-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            fs::write(path.join("a.yaml"), text).expect("writable");
            Dir(path)
        }

        fn ask(&self, from: &str, to: &str) -> Result<(Exit, String), ExplainError> {
            let words = Words { from: from.into(), to: to.into(), port: Some("TCP/80".into()) };
            explain(&words, &Source::Files { policies: self.0.clone(), config: None })
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// `shop/a` and `shop/b` share an address, and `shop/b` is closed.
    const SHARED: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: a}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 203.0.113.53}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: b, labels: {app: b}}, status: {podIPs: [{ip: 10.0.0.2}, {ip: 203.0.113.53}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: c}, status: {podIPs: [{ip: 10.0.0.3}]}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {namespace: shop, name: closed}
  spec: {podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress]}
";

    #[test]
    fn an_address_of_several_pods_in_files_is_asked_for_by_the_name_of_one() {
        let dir = Dir::new("shared", SHARED);
        let shared = "203.0.113.53";
        for (from, to, field) in [
            ("shop/c", shared, "TO"),
            (shared, "shop/c", "FROM"),
            ("198.51.100.9", shared, "TO"),
            ("shop/a", shared, "TO"),
            ("shop/b", shared, "TO"),
            (shared, "shop/b", "FROM"),
            ("10.0.0.1", shared, "TO"),
            (shared, shared, "FROM"),
            ("node", shared, "TO"),
        ] {
            let refusal = dir.ask(from, to).expect_err("several are meant");
            let said = format!(
                "{field} \"{shared}\": several pods have this address: name the one that is meant, as shop/a@{shared}"
            );
            let other = said.replace("shop/a@", "shop/b@");
            let text = refusal.to_string();
            assert!([said, other].contains(&text) && refusal.exit() == Exit::Misused, "{from} {to}: {text}");
        }
        for (from, to, exit) in [
            ("shop/c", "shop/a@203.0.113.53", Exit::Done),
            ("shop/c", "shop/b@203.0.113.53", Exit::Failed),
            ("shop/b@203.0.113.53", "10.0.0.3", Exit::Failed),
            ("10.0.0.3", "10.0.0.1", Exit::Done),
            ("10.0.0.1", "10.0.0.1", Exit::Done),
        ] {
            let (ended, text) = dir.ask(from, to).expect("an answer");
            assert_eq!(ended, exit, "{from} {to}: {text}");
        }
    }

    #[test]
    fn files_with_more_objects_than_are_read_answer_nothing() {
        let dir = Dir::new("many", SHARED);
        for file in 0..5 {
            let names = (0..OBJECTS_MAX / 4)
                .map(|n| format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"n{file}-{n}"}}}}"#));
            let items = names.collect::<Vec<_>>().join(",");
            let text = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#);
            fs::write(dir.0.join(format!("n{file}.json")), text).expect("writable");
        }
        let refusal = dir.ask("shop/c", "shop/b").expect_err("some of it is unknown");
        let said = format!("more than {OBJECTS_MAX}");
        assert!(refusal.to_string().contains(&said) && refusal.exit() == Exit::Misused, "{refusal}");
    }
}
