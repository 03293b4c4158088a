//! Keeps the agent's view of the node up to date: its NodeConfig, and what the host looks like. One thread.
//!
//! A bad or vanished NodeConfig never harms: the last good one stays in force, and the log and the status say what is wrong
//! with the new one. The last good one of the API is also kept on disk, for a start without an API server.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::conflist;
use crate::agent::handler::Verbs;
use crate::agent::host::{self, HostFacts};
use crate::agent::ledger::Ranges;
use crate::agent::source::{Found, Source};
use crate::agent::status::{Verdict, Verdicts};
use crate::agent::view::{Present, View};
use crate::annotations::IP_ALGO;
use crate::disk::{Directory, Disk as _, DiskError};
use crate::log;
use crate::nodeconfig::{self, API_VERSION, KIND, NodeConfig};
use crate::pulse::Pulse;

/// Between two looks without being woken.
const INTERVAL: Duration = Duration::from_millis(500);

/// Between two looks at the host. Its addresses are kept out of the pods' ranges.
const HOST_INTERVAL: Duration = Duration::from_secs(10);

/// For one look at the host, and for preparing it.
const KERNEL_LIMIT: Duration = Duration::from_secs(5);

/// The last good NodeConfig, in the state directory.
const LAST_GOOD: &str = "node-config.json";
/// It, before it takes its name.
const LAST_GOOD_NEW: &str = "node-config.new";

/// Where things are.
#[derive(Debug)]
pub struct Places {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Where the CNI configuration goes, if anywhere.
    pub cni_conf_dir: Option<PathBuf>,
}

/// Why the thread is woken. It ends when nobody can wake it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something has changed.
    Look,
    /// The agent ends.
    Stop,
}

/// The thread's state.
#[derive(Debug)]
pub struct Node {
    source: Source,
    places: Places,
    verbs: Arc<Verbs>,
    present: Present,
    verdicts: Verdicts,
    config: Option<NodeConfig>,
    facts: Option<HostFacts>,
    looked: Option<Instant>,
    conflist: Conflist,
    pulse: Pulse,
    /// The NodeConfig in force could not be kept for the next start.
    unkept: bool,
}

/// How far the CNI configuration is.
#[derive(Debug)]
enum Conflist {
    /// Nothing is known to be wrong with it.
    Settled,
    /// What belongs into it may have changed.
    Due,
    /// This belongs into it, and could not be written.
    Unwritten(String),
}

impl Node {
    /// A node of which nothing is known yet.
    pub fn new(source: Source, places: Places, verbs: Arc<Verbs>, present: Present, verdicts: Verdicts) -> Node {
        Node {
            source,
            places,
            verbs,
            present,
            verdicts,
            config: None,
            facts: None,
            looked: None,
            conflist: Conflist::Settled,
            pulse: Pulse::default(),
            unkept: false,
        }
    }

    /// Its sign of life.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Looks whenever it is woken, and now and then.
    pub fn keep(mut self, wake: &Receiver<Wake>) {
        while matches!(
            self.pulse.resting(|| wake.recv_timeout(INTERVAL)),
            Ok(Wake::Look) | Err(RecvTimeoutError::Timeout)
        ) {
            self.round();
            self.settle_conflist();
        }
    }

    /// One look. Does something only when something has changed.
    pub fn round(&mut self) {
        let config_changed = self.look_at_config();
        let host_changed = self.look_at_host();
        if self.unkept && !config_changed {
            self.remember();
        }
        if config_changed || host_changed {
            self.put_in_force();
        }
    }

    /// Takes up the last good NodeConfig of an earlier run, if there is one and nothing newer is known.
    pub fn recall(&mut self) {
        let read = Directory::open(&self.places.state_dir).and_then(|mut disk| disk.read(LAST_GOOD));
        let Ok(Some(bytes)) = read else { return };
        match nodeconfig::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(config) => {
                log::info("NodeConfig of the last run is in force until the API server is heard").write();
                self.config = Some(config);
                self.look_at_host();
                self.put_in_force();
            }
            Err(error) => log::warn("NodeConfig of the last run cannot be used").with("err", error).write(),
        }
    }

    fn look_at_config(&mut self) -> bool {
        let in_force = if self.config.is_some() { "the last good one" } else { "none" };
        match self.source.look() {
            Found::Nothing => false,
            Found::Gone(why) => {
                log::warn("NodeConfig is missing").with("err", why).with("in_force", in_force).write_limited();
                self.verdicts.set(Verdict { edit: None, problem: None });
                false
            }
            Found::Config { config: Err(why), edit } => {
                log::error("NodeConfig is not valid").with("err", &why).with("in_force", in_force).write_limited();
                self.verdicts.set(Verdict { edit, problem: Some(why) });
                false
            }
            Found::Config { config: Ok(config), edit } => {
                let changed = self.config.as_ref() != Some(&*config);
                self.config = Some(*config);
                if changed && edit.is_some() {
                    self.remember();
                }
                self.verdicts.set(Verdict { edit, problem: None });
                changed
            }
        }
    }

    fn remember(&mut self) {
        let Some(config) = &self.config else { return };
        let kept = keep_last_good(&self.places, config);
        self.unkept = kept.is_err();
        if let Err(error) = kept {
            log::warn("NodeConfig cannot be kept for the next start").with("err", error).write_limited();
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
                // Without these facts no pod is served, so it is tried again with the next look.
                self.looked = None;
                log::warn("host cannot be read").with("err", error).write_limited();
                false
            }
        }
    }

    fn put_in_force(&mut self) {
        let (Some(config), Some(facts)) = (&self.config, &self.facts) else { return };
        let view = View { config: config.clone(), mtu: config.mtu.unwrap_or(facts.mtu) };
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
                .write_limited();
        }
        if (self.places.cni_conf_dir.is_some() || self.verbs.has_prepared_host())
            && let Err(fault) = self.verbs.prepare_host(&view, Instant::now() + KERNEL_LIMIT)
        {
            log::error("host cannot be prepared").with("err", fault).write_limited();
        }
        self.conflist = Conflist::Due;
    }

    /// Writes the CNI configuration if that is due or has failed. Apart from [`Node::round`], since it may ask a plugin that
    /// hangs, and requests are to be served meanwhile.
    pub fn settle_conflist(&mut self) {
        let Some(dir) = &self.places.cni_conf_dir else { return };
        let text = match std::mem::replace(&mut self.conflist, Conflist::Settled) {
            Conflist::Settled => return,
            Conflist::Due => conflist::compose(&self.places.socket),
            Conflist::Unwritten(text) => text,
        };
        match conflist::install(dir, &text) {
            Ok(true) => {
                log::info("CNI configuration written").with("file", dir.join(conflist::FILE_NAME).display()).write();
            }
            Ok(false) => {}
            Err(error) => {
                log::error("CNI configuration cannot be written").with("err", error).write_limited();
                self.conflist = Conflist::Unwritten(text);
            }
        }
    }
}

fn keep_last_good(places: &Places, config: &NodeConfig) -> Result<(), DiskError> {
    Directory::open(&places.state_dir)?.replace(LAST_GOOD_NEW, LAST_GOOD, manifest(config).as_bytes())
}

/// The manifest that gives this NodeConfig again.
fn manifest(config: &NodeConfig) -> String {
    let mut annotations = serde_json::Map::new();
    if let Some(algo) = &config.defaults.ip_algo {
        annotations.insert(IP_ALGO.into(), json!(algo));
    }
    let mut spec = serde_json::Map::new();
    spec.insert("defaults".into(), json!({"ipv6": config.defaults.ipv6, "ipv4": config.defaults.ipv4}));
    let texts = [
        ("cidr6", config.cidr6.map(|cidr| json!(cidr.to_string()))),
        ("cidr4", config.cidr4.map(|cidr| json!(cidr.to_string()))),
    ];
    for (key, value) in texts.into_iter().chain([("mtu", config.mtu.map(|mtu| json!(mtu)))]) {
        spec.extend(value.map(|value| (key.to_owned(), value)));
    }
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": config.name, "annotations": annotations},
        "spec": spec,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_node_config_comes_back_as_it_was() {
        for spec in [
            "{cidr6: '2001:db8::/64', cidr4: 10.0.0.0/24, mtu: 1400}",
            "{cidr4: 10.0.0.0/24, defaults: {ipv4: false}}",
            "{cidr6: '2001:db8::/64'}",
        ] {
            let text = format!(
                "apiVersion: {API_VERSION}\nkind: {KIND}\nmetadata: {{name: n, annotations: {{{IP_ALGO}: app}}}}\nspec: {spec}\n"
            );
            let config = nodeconfig::parse(&text).expect("valid");
            assert_eq!(nodeconfig::parse(&manifest(&config)).expect("valid"), config, "{spec}");
        }
    }
}
