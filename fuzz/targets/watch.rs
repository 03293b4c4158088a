//! What an API server may say: LISTs and WATCHes, line by line, to the machine that keeps pods, NodeConfigs and NodePeers.
//!
//! The first line names the kind (`pods`, `nodepeers`, `networkpolicies`, `namespaces`, `peers`, else
//! NodeConfigs). Each LIST and the beginning of each WATCH takes a line `CODE BODY`, where
//! a word instead of the code is a failure of the network; while the watch lasts, each line is a line of its stream, up to `END` or
//! `SILENT`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use flock::kube::kind::{Kind, Objects};
use flock::kube::objects::{NodeConfigs, NodePeers, Pods};
use flock::kube::policy_objects::{Namespaces, NetworkPolicies, PeerPods, PodReader};
use flock::kube::watch::{Change, End, Flow, Machine, Order, PAUSE_MAX, Reply, WatchNotice};
use model::policy::watching::Selection;
use serde_json::value::RawValue;

/// A server may ask for a minute; our own pauses are doubled at most.
const LONGEST_PAUSE: u64 = 2 * PAUSE_MAX;

/// More than a node ever logs about one failure.
const TEXT_MAX: usize = 4096;

pub(crate) fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    match lines.next() {
        Some(b"pods") => follow(Pods { node: "n".into(), policing: Some(PodReader::default()) }, lines),
        Some(b"nodepeers") => follow(NodePeers, lines),
        Some(b"networkpolicies") => follow(NetworkPolicies::default(), lines),
        Some(b"namespaces") => follow(Namespaces, lines),
        Some(b"peers") => follow(PeerPods::new(Selection::all()), lines),
        _ => follow(NodeConfigs { node: "n".into() }, lines),
    }
}

fn follow<'a, K: Kind + Clone>(kind: K, mut lines: impl Iterator<Item = &'a [u8]>) {
    let mut machine = Machine::new(kind.clone());
    let mut told = Objects::new();
    let (mut now, mut chance) = (1_000_000, 1_u64);
    loop {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match machine.next(now, chance) {
            Order::Pause(until) => {
                assert!(until > now && until - now <= LONGEST_PAUSE, "a pause of {} ms", until - now);
                now = until;
            }
            Order::List(path) => {
                assert_requestable(&path);
                let Some(line) = lines.next() else { return };
                let reply = reply(line);
                let outcome = match &reply {
                    Reply::Status { code: 200, body, .. } => machine.read(body.as_slice()).map_err(Reply::Broken),
                    other => Err(other.clone()),
                };
                machine.listed(outcome, now, chance);
                if let Reply::Status { code: 200, body, .. } = reply {
                    assert_watching_gives_the_same(&kind, body);
                }
                assert_sound(&mut machine, &mut told, line.len());
            }
            Order::Watch(path) => {
                assert_requestable(&path);
                let Some(line) = lines.next() else { return };
                match reply(line) {
                    Reply::Status { code: 200, .. } => stream(&mut machine, &mut told, &mut lines, &mut now, chance),
                    refused => machine.not_watching(&refused, now, chance),
                }
                assert_sound(&mut machine, &mut told, line.len());
            }
        }
    }
}

fn stream<'a, K: Kind>(
    machine: &mut Machine<K>,
    told: &mut Objects<K::Object>,
    lines: &mut impl Iterator<Item = &'a [u8]>,
    now: &mut u64,
    chance: u64,
) {
    for line in lines {
        *now += 400;
        match line {
            b"END" => return machine.ended(&End::Closed, *now, chance),
            b"SILENT" => return machine.ended(&End::Silent, *now, chance),
            _ => {
                let before = machine.objects().clone();
                let flow = machine.line(line, *now, chance);
                let after = machine.objects();
                assert!(before.len().abs_diff(after.len()) <= 1, "one line, one object");
                assert!(Arc::ptr_eq(&before, after) || before != *after, "the same objects stay where they are");
                assert_sound(machine, told, line.len());
                if flow == Flow::Stop {
                    return;
                }
            }
        }
    }
}

fn reply(line: &[u8]) -> Reply {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (code, body) = line.split_at(end);
    let body = body.get(1..).unwrap_or_default().to_vec();
    let code = std::str::from_utf8(code).unwrap_or_default();
    match code.parse() {
        Ok(code) => Reply::Status { code, retry_after: (code == 429).then_some(u64::from(code) * 1000), body },
        Err(_) if code == "REFUSED" => Reply::Refused("nobody listens".into()),
        Err(_) => Reply::Broken("cut".into()),
    }
}

/// A path that can stand in a request line.
fn assert_requestable(path: &str) {
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}");
    // The list of a kind without selectors has no query.
    let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let keys: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split('=').next().unwrap_or_default())
        .collect();
    let known = ["fieldSelector", "labelSelector", "watch", "allowWatchBookmarks", "timeoutSeconds", "resourceVersion"];
    assert!(keys.iter().all(|key| known.contains(key)), "{path:?}");
    assert!(!query.contains('#'), "{path:?}");
}

/// `told` is what somebody knows who has heard of each change and of nothing else.
fn assert_sound<K: Kind>(machine: &mut Machine<K>, told: &mut Objects<K::Object>, line: usize) {
    for Change { name, before, after } in machine.changes().into_iter().flat_map(|changes| changes.each) {
        assert_ne!(before, after, "a change that is none");
        let known = match after {
            Some(object) => told.insert(name, object),
            None => told.remove(&name),
        };
        assert_eq!(known, before, "what it was is what was told last");
    }
    assert_eq!(*told, **machine.objects(), "who hears of each change knows all");

    let notices = machine.notices();
    assert!(notices.len() <= line + 2, "{} notices about {line} bytes", notices.len());
    for notice in notices {
        match notice {
            WatchNotice::Failed { message, .. } => assert!(message.len() <= TEXT_MAX, "{} bytes", message.len()),
            WatchNotice::Unusable { why, .. } => assert!(why.len() <= TEXT_MAX, "{} bytes", why.len()),
            WatchNotice::Synced { objects } => assert_eq!(objects, machine.objects().len()),
        }
    }
}

/// Whether objects come in a list or one by one makes no difference.
fn assert_watching_gives_the_same<K: Kind + Clone>(kind: &K, body: Vec<u8>) {
    #[derive(Debug)]
    struct Names(Vec<String>);
    let Ok(list) = serde_json::from_slice::<serde_json::Value>(&body) else { return };
    let Some(items) = list["items"].as_array() else { return };
    // Each as it was written: what has a field twice reads otherwise once it went through a map.
    let Ok(mut fields) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(&body) else { return };
    let Some(written) = fields.remove("items") else { return };
    let Ok(written) = serde_json::from_str::<Vec<Box<RawValue>>>(written.get()) else { return };
    let names = items.iter().map(|item| format!("{}/{}", item["metadata"]["namespace"], item["metadata"]["name"]));
    let mut names = Names(names.collect());
    names.0.sort();
    names.0.dedup();
    // A machine that knows nothing yet: others keep what they have when they cannot use a list.
    let mut listed = Machine::new(kind.clone());
    listed.listed(listed.read(body.as_slice()).map_err(Reply::Broken), 1, 1);
    // Of two objects with one name, a list takes the later one that can be used, and a stream the later one.
    if names.0.len() != items.len() || listed.objects().len() != items.len() {
        return;
    }
    let mut watching = Machine::new(kind.clone());
    let empty = br#"{"metadata":{"resourceVersion":"1"}}"#.to_vec();
    watching.listed(watching.read(empty.as_slice()).map_err(Reply::Broken), 1, 1);
    for item in written {
        watching.line(format!(r#"{{"type":"ADDED","object":{item}}}"#).as_bytes(), 1, 1);
    }
    assert_eq!(*watching.objects(), *listed.objects());
}
