//! `flock-agent validate`: what an agent would say of files before one gets them, NodeConfigs and what `--policy-dir` reads.
//!
//! Files are read by the agent's own readers, so what passes here passes there. Told are all problems of all files, and what is
//! suspicious though an agent takes it: of several files together, and on the node that a NodeConfig is for, beside the host as it
//! is. Must not change anything, nor judge a field itself.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;

use crate::agent::identity;
use crate::agent::node::source;
use crate::agent::node::survey;
use crate::agent::policing::directory::{self, Outlook};
use crate::operator::Told;
use crate::process::exit::Exit;
use crate::process::foreign_file;
use model::nodeconfig::{self, NodeConfig, check_node_name};
use model::policy::spec;
use model::text;

/// The word for standard input.
const STDIN: &str = "-";

/// Deadline for the kernel to show what the host is like, 10 s.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks at files, at the files of directories, and at standard input where `-` says so.
pub fn run(named: &[PathBuf]) -> Told {
    let mut report = Report::default();
    for path in named {
        if path.as_os_str() == STDIN {
            let mut bytes = Vec::new();
            let most = directory::FILE_MAX + 1;
            let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
            report.judge("standard input", read.map(|_| bytes));
        } else if path.is_dir() {
            report.directory(path);
        } else {
            report.judge(&path.display().to_string(), foreign_file::read(path, directory::FILE_MAX));
        }
    }
    report.compare();
    let host = identity::host_name();
    for (place, config) in &report.configs {
        if config.name == host {
            beside_host(config).into_iter().for_each(|why| report.told.text += &format!("{place}: warning: {why}\n"));
        }
    }
    report.told
}

/// What has been found so far.
#[derive(Debug)]
struct Report {
    told: Told,
    /// The NodeConfigs that can be used, and where each stands.
    configs: Vec<(String, NodeConfig)>,
}

impl Default for Report {
    fn default() -> Report {
        Report { told: Told { exit: Exit::Done, text: String::new(), asides: Vec::new() }, configs: Vec::new() }
    }
}

impl Report {
    fn directory(&mut self, path: &Path) {
        match directory::names(path) {
            Ok(names) if names.is_empty() => {
                self.unreadable(format!("{}: it has no file whose name ends in .yaml, .yml or .json", path.display()));
            }
            Ok(names) => {
                for name in names {
                    self.judge(&name.display().to_string(), foreign_file::read(&name, directory::FILE_MAX));
                }
            }
            Err(error) => self.unreadable(format!("{}: {error}", path.display())),
        }
    }

    fn judge(&mut self, place: &str, read: io::Result<Vec<u8>>) {
        match read {
            Ok(bytes) if is_of_policies(&bytes) => self.policies(place, &bytes),
            Ok(bytes) => self.node_config(place, &bytes),
            Err(error) => self.unreadable(format!("{place}: {error}")),
        }
    }

    fn node_config(&mut self, place: &str, bytes: &[u8]) {
        if bytes.len() as u64 > source::FILE_MAX {
            return self.wrong(place, format!("it is longer than {} bytes", source::FILE_MAX));
        }
        match nodeconfig::read(bytes) {
            Ok((config, mut notes)) => {
                let ranges: Vec<String> = config.prefixes().iter().map(ToString::to_string).collect();
                self.say(place, format!("ok: NodeConfig {} with {}", config.name, ranges.join(" and ")));
                let name = check_node_name(&config.name).err();
                notes.extend(name.map(|why| format!("metadata.name: no node can be called so: it {why}")));
                notes.extend(nodeconfig::defaults_note(&config));
                notes.into_iter().for_each(|note| self.say(place, format!("warning: {note}")));
                self.configs.push((place.into(), config));
            }
            Err(error) => error.problems().for_each(|problem| self.wrong(place, problem)),
        }
    }

    fn policies(&mut self, place: &str, bytes: &[u8]) {
        match directory::outlook(bytes) {
            Ok(Outlook { objects, faults, remarks }) => {
                if faults.is_empty() {
                    self.say(place, format!("ok: {objects} objects for --policy-dir"));
                }
                faults.into_iter().for_each(|fault| self.wrong(place, fault));
                remarks.into_iter().for_each(|remark| self.say(place, format!("warning: {remark}")));
            }
            Err(why) => self.wrong(place, why),
        }
    }

    /// Looks at the NodeConfigs beside each other.
    fn compare(&mut self) {
        let mut said = Vec::new();
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        let mut ranges: Vec<(IpNet, &str, &str)> = Vec::new();
        for (place, config) in &self.configs {
            ranges.extend(config.prefixes().into_iter().map(|range| (range, place.as_str(), config.name.as_str())));
            if let Some(other) = names.insert(&config.name, place) {
                said.push((place.clone(), format!("{other} is for {}, too", config.name)));
            }
        }
        // A range stands behind those that hold it, and ranges that overlap hold one another.
        ranges.sort_by_key(|(range, ..)| (range.network(), range.prefix_len()));
        let mut open: Vec<(IpNet, &str, &str)> = Vec::new();
        for (range, place, name) in ranges {
            open.retain(|(other, ..)| other.contains(&range));
            if let Some((other, at, of)) = open.last().filter(|(_, _, of)| *of != name) {
                let why =
                    format!("{range} overlaps {other} of {of} in {at}: routers can lead to one of the two nodes only");
                said.push((place.into(), why));
            }
            open.push((range, place, name));
        }
        said.sort();
        said.into_iter().for_each(|(place, why)| self.say(&place, format!("warning: {why}")));
    }

    fn say(&mut self, place: &str, what: impl std::fmt::Display) {
        self.told.text += &format!("{place}: {what}\n");
    }

    fn wrong(&mut self, place: &str, why: impl std::fmt::Display) {
        self.say(place, why);
        if self.told.exit == Exit::Done {
            self.told.exit = Exit::Failed;
        }
    }

    fn unreadable(&mut self, why: String) {
        self.told.asides.push(why);
        self.told.exit = Exit::Misused;
    }
}

/// Whether a file is for `--policy-dir`: an object in it, or in a list of it, is of a kind that is read there.
fn is_of_policies(bytes: &[u8]) -> bool {
    let Ok(text) = text::decoded(bytes) else { return false };
    let documents: Vec<Value> = text::documents(&text).unwrap_or_default();
    let is_known = |object: &Value| {
        let kind = object.get("kind").and_then(Value::as_str);
        kind.is_some_and(|kind| [spec::KIND, "Namespace", "Pod"].contains(&kind))
    };
    documents.iter().any(|object| {
        let mut items = object.get("items").and_then(Value::as_array).into_iter().flatten();
        is_known(object) || items.any(is_known)
    })
}

/// What this host, which the NodeConfig is for, makes of it.
fn beside_host(config: &NodeConfig) -> Vec<String> {
    let proxies = config.proxy_neighbours.as_ref();
    let survey = survey::take(&config.prefixes(), config.gateway4, proxies, Instant::now() + LIMIT);
    // Whether the file is right does not hang on it.
    let Ok(survey) = survey else { return Vec::new() };
    let mtu = nodeconfig::mtu_note(config.mtu.filter(|_| survey.facts.uplink.is_some()), survey.facts.mtu);
    mtu.into_iter().chain(survey.facts.remarks.into_iter().map(|remark| remark.text)).collect()
}
