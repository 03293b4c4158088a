//! Other plugins, as they are published: called like flock, each on a host of its own, with the addresses of host-local.
//!
//! They are given what favours them: no duplicate address detection, an empty range, a tmpfs for the files of host-local.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::call::{Verb, call};
use crate::contestant::Contestant;
use crate::flock::as_a_runtime;
use crate::host::{Host, Pod, unique};

/// What addresses its pods get.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Families {
    Both,
    /// The plugins wait 50 ms for IPv6 addresses whenever their first look finds one that is not settled. With IPv4 alone they do not.
    Four,
}

/// A plugin with host-local.
pub struct Peer {
    name: String,
    host: Host,
    binaries: PathBuf,
    kind: &'static str,
    input: Vec<u8>,
}

impl Peer {
    /// The plugin `kind` of this directory; why not, where it is not there.
    pub fn new(kind: &'static str, binaries: &Path, whose: &str, families: Families) -> Result<Peer, String> {
        let suffix = if families == Families::Four { ", IPv4 only" } else { "" };
        let name = format!("{kind}, {whose}{suffix}");
        for program in [kind, "host-local"] {
            let file = binaries.join(program);
            if !file.is_file() {
                return Err(format!("{name}: there is no {}", file.display()));
            }
        }
        let key = unique(&name);
        let host = Host::new(&key).with_lan();
        let mut conf = json!({
            "cniVersion": "1.0.0", "name": key, "type": kind,
            "ipam": {
                "type": "host-local", "dataDir": format!("/run/host-local/{key}"),
                "ranges": [[{"subnet": "2001:db8:9::/64"}], [{"subnet": "10.96.0.0/12"}]],
                "routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}],
            },
        });
        if families == Families::Four {
            conf["ipam"]["ranges"] = json!([[{"subnet": "10.96.0.0/12"}]]);
            conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        }
        for (field, value) in own_fields(kind) {
            conf[field] = value;
        }
        Ok(Peer { name, host, binaries: binaries.into(), kind, input: conf.to_string().into_bytes() })
    }
}

fn own_fields(kind: &str) -> Vec<(&'static str, Value)> {
    match kind {
        "bridge" => vec![("bridge", json!("cni0")), ("isGateway", json!(true))],
        "macvlan" => vec![("master", json!("lan0")), ("mode", json!("bridge"))],
        _ => Vec::new(),
    }
}

impl Contestant for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn call(&self, verb: Verb, pod: &Pod) -> Duration {
        let mut command = Command::new(self.binaries.join(self.kind));
        call(as_a_runtime(&mut command, verb, pod, &self.binaries), &self.input).0
    }
}
