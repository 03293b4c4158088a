//! An API server that has just what an agent asks for, and says when it has told of a change. It forgets nothing and refuses
//! nothing, so what is measured is the agent.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use crate::support::host::Host;
use crate::support::http::{Conn, Request};
use crate::support::inside::Inside as _;
use crate::support::waiting::PATIENCE;

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    NodeConfigs,
    Policies,
    Namespaces,
    /// The pods of the agent's node.
    Own,
    /// Pods with addresses.
    Peers,
}

impl Kind {
    /// What a path asks for; none for what the server has none of.
    fn of(path: &str) -> Option<Kind> {
        let kinds = [
            ("/nodeconfigs", Kind::NodeConfigs),
            ("/networkpolicies", Kind::Policies),
            ("/pods?fieldSelector=spec.nodeName", Kind::Own),
            ("/pods?fieldSelector=status.podIP", Kind::Peers),
            ("/api/v1/namespaces", Kind::Namespaces),
        ];
        kinds.into_iter().find(|(part, _)| path.contains(part)).map(|(_, kind)| kind)
    }
}

#[derive(Default)]
struct Shared {
    objects: BTreeMap<Kind, Vec<Value>>,
    version: u64,
    watchers: Vec<Watcher>,
}

struct Watcher {
    kind: Kind,
    path: String,
    lines: Sender<(String, Sender<Instant>)>,
}

/// A server on a host.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Api {
    /// A server without any object.
    pub fn start(host: &Host) -> Api {
        let netns = Netns::open(&host.netns()).expect("the host's namespace");
        let listener = netns.run(|| TcpListener::bind("127.0.0.1:0")).expect("a thread").expect("a port");
        let shared = Arc::new(Mutex::new(Shared { version: 1, ..Shared::default() }));
        let api = Api { address: listener.local_addr().expect("bound"), shared };
        let serving = api.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let api = serving.clone();
                stream.set_nodelay(true).expect("settable");
                thread::spawn(move || {
                    let mut conn = Conn { stream, number };
                    while let Some(request) = conn.request() {
                        api.answer(&mut conn, &request);
                    }
                });
            }
        });
        api
    }

    /// The path on `host` of a kubeconfig that leads to this server.
    pub fn kubeconfig(&self, host: &Host) -> &'static str {
        let text = format!(
            "{{current-context: a, contexts: [{{name: a, context: {{cluster: b}}}}], clusters: [{{name: b, cluster: {{server: 'http://{}'}}}}]}}",
            self.address
        );
        host.write("/run/kubeconfig", &text);
        "/run/kubeconfig"
    }

    /// Has these objects from now on, which nobody is told of. To be called before anybody asks.
    pub fn have(&self, kind: Kind, objects: Vec<Value>) {
        self.shared.lock().expect("unpoisoned").objects.insert(kind, objects);
    }

    /// Tells all who watch of a change, and says when the last of them was about to be told. There must be one.
    pub fn tell(&self, kind: Kind, what: &str, object: &Value) -> Instant {
        let (send, told) = channel();
        {
            let mut shared = self.shared.lock().expect("unpoisoned");
            shared.version += 1;
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = shared.version.to_string().into();
            let line = json!({"type": what, "object": object}).to_string() + "\n";
            let meant = |watcher: &&Watcher| watcher.kind == kind && selects(&watcher.path, &object);
            let known = |known: &Value| {
                ["namespace", "name"].iter().all(|key| known["metadata"][key] == object["metadata"][key])
            };
            for watcher in shared.watchers.iter().filter(meant) {
                // A watch that has ended has nobody behind it.
                watcher.lines.send((line.clone(), send.clone())).ok();
            }
            let objects = shared.objects.entry(kind).or_default();
            objects.retain(|object| !known(object));
            if what != "DELETED" {
                objects.push(object);
            }
        }
        drop(send);
        let first = told.recv_timeout(PATIENCE).expect("somebody watches");
        told.iter().fold(first, Instant::max)
    }

    /// Whether somebody watches these.
    pub fn is_watched(&self, kind: Kind) -> bool {
        self.shared.lock().expect("unpoisoned").watchers.iter().any(|watcher| watcher.kind == kind)
    }

    fn answer(&self, conn: &mut Conn<TcpStream>, request: &Request) {
        let path = request.line().split(' ').nth(1).expect("a path").to_owned();
        let kind = Kind::of(&path);
        if !request.line().starts_with("GET") {
            conn.answer("200 OK", "", "{}");
        } else if path.contains("watch=1") {
            let lines = self.watch(kind, &path);
            conn.begin();
            for (line, told) in lines {
                told.send(Instant::now()).ok();
                conn.chunk(line);
            }
        } else {
            let list = {
                let shared = self.shared.lock().expect("unpoisoned");
                let all = kind.and_then(|kind| shared.objects.get(&kind)).into_iter().flatten();
                let items: Vec<&Value> = all.filter(|object| selects(&path, object)).collect();
                json!({"metadata": {"resourceVersion": shared.version.to_string()}, "items": items}).to_string()
            };
            conn.answer("200 OK", "", list);
        }
    }

    fn watch(&self, kind: Option<Kind>, path: &str) -> Receiver<(String, Sender<Instant>)> {
        let (send, lines) = channel();
        let mut shared = self.shared.lock().expect("unpoisoned");
        match kind {
            Some(kind) => shared.watchers.push(Watcher { kind, path: path.into(), lines: send }),
            // It lives as long as the server, and says nothing.
            None => std::mem::forget(send),
        }
        lines
    }
}

/// Whether a path asks for an object like this: by its namespace, and by one label.
fn selects(path: &str, object: &Value) -> bool {
    let namespace =
        path.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once("/pods")).map(|(name, _)| name);
    let label = path.split_once("labelSelector=").map(|(_, rest)| rest.split('&').next().unwrap_or(rest));
    let pair = label.map(|label| label.split_once("%3D").expect("one label and its value"));
    namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
        && pair.is_none_or(|(key, value)| object["metadata"]["labels"][key] == value)
}
