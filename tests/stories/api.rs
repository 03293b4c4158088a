//! Stories of an agent and an API server that does what a test says. A real one is in `tests/kube`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use crate::routes::announced;
use crate::support::agent::Agent;
use crate::support::host::{Host, host_addresses};
use crate::support::http::{Conn, Request};
use crate::support::inside::Inside as _;
use crate::support::manifests::{CIDR4, CIDR6};
use crate::support::programs::{FLOCK_AGENT, put_script};
use crate::support::waiting::{wait_for, wait_or};

/// What the server says. Whoever changes it wakes those that wait for a change.
#[derive(Default)]
struct Script {
    node_config: Option<Value>,
    /// Instead of a good answer: to requests of these verbs for things of this name.
    refusals: Vec<(&'static str, &'static str, u16, String)>,
    /// Requests are taken and never answered.
    mute: bool,
    version: u64,
    patches: Vec<Value>,
    lists: usize,
    /// NodePeers by the path to which they were written, and each one that was.
    peers: BTreeMap<String, Value>,
    told: Vec<Value>,
}

#[derive(Clone)]
struct Api {
    address: SocketAddr,
    shared: Arc<(Mutex<Script>, Condvar)>,
}

impl Api {
    /// A server on this host, with this NodeConfig.
    fn start(host: &Host, node_config: Option<Value>) -> Api {
        let netns = Netns::open(&host.netns()).expect("the host's namespace");
        let listener = netns.run(|| TcpListener::bind("127.0.0.1:0")).expect("a thread").expect("a port");
        let script = Script { node_config, version: 1, ..Script::default() };
        let api =
            Api { address: listener.local_addr().expect("bound"), shared: Arc::new((script.into(), Condvar::new())) };
        let serving = api.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let api = serving.clone();
                thread::spawn(move || api.serve(Conn { stream, number }));
            }
        });
        api
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.0.lock().expect("unpoisoned"));
        self.shared.1.notify_all();
    }

    fn look<T>(&self, look: impl FnOnce(&Script) -> T) -> T {
        look(&self.shared.0.lock().expect("unpoisoned"))
    }

    fn kubeconfig(&self) -> String {
        format!(
            "{{current-context: a, contexts: [{{name: a, context: {{cluster: b}}}}], clusters: [{{name: b, cluster: {{server: 'http://{}'}}}}]}}",
            self.address
        )
    }

    /// Answers what a client asks until it leaves.
    fn serve(&self, mut conn: Conn<TcpStream>) {
        while let Some(request) = conn.request() {
            if self.look(|script| script.mute) {
                return conn.wait_for_end();
            }
            self.answer(&mut conn, &request);
        }
    }

    /// Answers a request; a watch until the client leaves.
    fn answer(&self, conn: &mut Conn<TcpStream>, request: &Request) {
        let mut words = request.line().split(' ');
        let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
        let configs = path.contains("/nodeconfigs");
        let verb = match method {
            "PATCH" => "patch",
            "POST" => "create",
            _ if path.contains("watch=1") => "watch",
            _ => "list",
        };
        let peers = path.contains("/nodepeers");
        let policies = path.contains("/networkpolicies");
        let kind = match (peers, policies) {
            (true, _) => "nodepeers",
            (_, true) => "networkpolicies",
            _ if path.ends_with("/events") => "events",
            _ => ["pods", "nodeconfigs"][usize::from(configs)],
        };
        let refusal = self.look(|script| {
            let found = script.refusals.iter().find(|(v, k, ..)| *v == verb && *k == kind);
            found.map(|(.., status, body)| (*status, body.clone()))
        });
        if let Some((status, text)) = refusal {
            return conn.answer(&format!("{status} X"), "", text);
        }
        match verb {
            "patch" if peers => {
                let object: Value = serde_json::from_slice(&request.body).expect("JSON");
                self.change(|script| {
                    script.told.push(object.clone());
                    script.peers.insert(path.to_owned(), object);
                    script.version += 1;
                });
                conn.answer("200 OK", "", "{}");
            }
            "patch" => {
                let patch = serde_json::from_slice(&request.body).expect("JSON");
                self.change(|script| {
                    if let Some(object) = &mut script.node_config {
                        merge(object, &patch);
                    }
                    script.patches.push(patch["status"].clone());
                });
                conn.answer("200 OK", "", "{}");
            }
            // Events, of which tests/kube has the stories.
            "create" => conn.answer("201 Created", "", "{}"),
            "list" => {
                let (items, version) = self.look(|script| {
                    let config = script.node_config.clone().filter(|_| configs);
                    let peers = script.peers.values().filter(|_| peers).cloned();
                    (config.into_iter().chain(peers).collect::<Vec<_>>(), script.version)
                });
                let list = json!({"metadata": {"resourceVersion": version.to_string()}, "items": items});
                conn.answer("200 OK", "", list.to_string());
                self.change(|script| script.lists += usize::from(configs));
            }
            _ => {
                conn.begin();
                let mut seen: u64 = path.rsplit('=').next().and_then(|text| text.parse().ok()).expect("a version");
                loop {
                    let (lock, changed) = &*self.shared;
                    let script = lock.lock().expect("unpoisoned");
                    let script = changed.wait_while(script, |script| script.version == seen).expect("unpoisoned");
                    seen = script.version;
                    let config = script.node_config.clone().filter(|_| configs);
                    let peers: Vec<Value> = script.peers.values().filter(|_| peers).cloned().collect();
                    drop(script);
                    for mut object in config.into_iter().chain(peers) {
                        object["metadata"]["resourceVersion"] = seen.to_string().into();
                        conn.chunk(json!({"type": "MODIFIED", "object": object}).to_string() + "\n");
                    }
                }
            }
        }
    }

    fn edit(&self, spec: Value) {
        self.change(|script| {
            script.version += 1;
            let generation = script.version;
            let object = script.node_config.get_or_insert_with(|| node_config_object(json!({})));
            object["spec"] = spec;
            object["metadata"]["generation"] = generation.into();
        });
    }

    /// Another node's word, which an agent there has written.
    fn put_peer(&self, name: &str, spec: Value) {
        let peer = json!({
            "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer",
            "metadata": {"name": name, "uid": format!("p-{name}"), "resourceVersion": "1"},
            "spec": spec,
        });
        self.change(|script| {
            script.version += 1;
            script.peers.insert(name.into(), peer);
        });
    }

    /// Waits for a status that the agent has written and that has a condition like this; the whole status.
    fn wait_condition(&self, kind: &str, status: &str, reason: &str) -> Value {
        wait_for(&format!("{kind}={status} ({reason})"), || {
            self.look(|script| {
                let last = script.patches.last()?;
                let found = condition(last, kind);
                (found["status"] == status && found["reason"] == reason).then(|| last.clone())
            })
        })
    }
}

/// JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        merge(&mut target[key], value);
    }
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

fn node_config_object(spec: Value) -> Value {
    json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodeConfig",
        "metadata": {"name": "host001", "uid": "u1", "generation": 1, "resourceVersion": "1"},
        "spec": spec,
    })
}

fn agent_of<'a>(host: &'a Host, api: &Api) -> Agent<'a> {
    host.write("/run/kubeconfig", &api.kubeconfig());
    host.agent().config(None).kubeconfig("/run/kubeconfig").start()
}

// covers: FM-U05
#[test]
fn what_the_api_server_refuses_is_told_with_its_remedy_until_it_works() {
    let host = Host::new();
    let api = Api::start(&host, None);
    api.change(|script| {
        script.refusals = vec![
            ("list", "nodeconfigs", 404, "404 page not found\n".into()),
            ("list", "pods", 403, json!({"kind": "Status", "message": "User \"node\" cannot list pods"}).to_string()),
        ];
    });
    let agent = agent_of(&host, &api);
    let line = agent.wait_log("the CRD nodeconfigs.flock.fritzlab.net is missing");
    assert!(line.contains("kubectl apply -k deploy/base"), "{line}");
    let line = agent.wait_log("RBAC is too small");
    for words in ["cannot list pods", "kubectl apply -k deploy/base", "the verb list on the resource pods"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    api.change(|script| script.refusals = vec![("list", "nodeconfigs", 401, "Unauthorized".into())]);
    let line = agent.wait_log("API server refuses the credentials");
    assert!(line.contains("code=401") && line.contains("renew it"), "{line}");

    api.change(|script| script.refusals.clear());
    let line = agent.wait_log("NodeConfig is missing");
    assert!(line.contains("NodeConfig of the name host001") && line.contains("kubectl apply"), "{line}");
    api.edit(json!({"cidr6": CIDR6, "cidr4": CIDR4}));
    agent.wait_log("NodeConfig in force");
    // The status cannot be written: the verb and the resource that RBAC lacks.
    api.change(|script| script.refusals = vec![("patch", "nodeconfigs", 403, "no".into())]);
    api.edit(json!({"cidr6": CIDR6}));
    let line = agent.wait_log("status of the NodeConfig cannot be written");
    assert!(line.contains("the verb patch on the resource nodeconfigs/status"), "{line}");
    agent.stop();
}

// covers: FM-U08
#[test]
fn the_status_says_when_the_agent_was_heard_and_that_it_has_stopped() {
    let host = Host::new();
    let api = Api::start(&host, Some(node_config_object(json!({"cidr6": CIDR6, "cidr4": CIDR4}))));
    let agent = agent_of(&host, &api);
    let status = api.wait_condition("Ready", "True", "Serving");
    assert_eq!(condition(&status, "AddressesFree")["status"], "True");
    let heard = status["lastHeard"].as_str().expect("a time").to_owned();
    assert!(heard.starts_with("20") && heard.ends_with('Z'), "{heard}");
    let since = condition(&status, "Valid")["lastTransitionTime"].clone();
    agent.stop();
    let last = api.wait_condition("Ready", "False", "Stopped");
    assert!(condition(&last, "Ready")["message"].as_str().expect("text").contains("new ones wait"), "{last}");
    assert_eq!(condition(&last, "Valid")["lastTransitionTime"], since, "the others stay as they are");
    assert!(last["lastHeard"].as_str().expect("a time") >= heard.as_str(), "{last}");
    assert_eq!(api.look(|script| script.patches.len()), 2);

    // The next agent serves again, from a new time on.
    let agent = agent_of(&host, &api);
    let again = api.wait_condition("Ready", "True", "Serving");
    assert_eq!(condition(&again, "Valid")["lastTransitionTime"], since);
    assert_ne!(condition(&again, "Ready")["lastTransitionTime"], condition(&status, "Ready")["lastTransitionTime"]);
    agent.stop();
}

#[test]
fn pods_are_counted_along_with_what_is_told_at_once() {
    let host = Host::new();
    let api = Api::start(&host, Some(node_config_object(json!({"cidr4": "10.25.214.0/29"}))));
    let agent = agent_of(&host, &api);
    assert_eq!(api.wait_condition("AddressesFree", "True", "Free")["pods"], 0);
    let pods: Vec<_> = (0..5).map(|n| host.pod(&format!("p{n}"))).collect();
    // An edit is told at once, and with it what nobody would have been told of.
    host.add(&pods[0]).annotations(&[]).result();
    api.edit(json!({"cidr4": "10.25.214.0/29", "mtu": 1400}));
    let status = wait_for("the status of the edit", || {
        api.look(|script| {
            let edit = &script.node_config.as_ref()?["metadata"]["generation"];
            script.patches.last().filter(|last| last["observedGeneration"] == *edit).cloned()
        })
    });
    assert_eq!((&status["pods"], &status["ipv4"]["free"]), (&json!(1), &json!("4")), "{status}");
    // The last address is told at once, with all pods that came meanwhile.
    pods[1..].iter().for_each(|pod| drop(host.add(pod).annotations(&[]).result()));
    let status = api.wait_condition("AddressesFree", "False", "Full");
    assert_eq!((&status["pods"], &status["ipv4"]["free"]), (&json!(5), &json!("0")), "{status}");
    // No pod alone was a reason to write.
    let told = |status: &Value| (status["observedGeneration"].clone(), status["conditions"].clone());
    let all = api.look(|script| script.patches.clone());
    assert!(all.windows(2).all(|pair| told(&pair[0]) != told(&pair[1])), "{all:?}");
    pods.iter().for_each(|pod| host.del(pod).done());
    agent.stop();
}

#[test]
fn an_agent_stops_as_soon_when_the_api_server_is_away() {
    let host = Host::new();
    let api = Api::start(&host, Some(node_config_object(json!({"cidr6": CIDR6}))));
    let agent = agent_of(&host, &api);
    let status = api.wait_condition("Ready", "True", "Serving");
    assert!(status["ipv6"]["free"].is_string() && status["ipv4"]["free"].is_null(), "{status}");
    api.change(|script| script.mute = true);
    let began = Instant::now();
    let log = agent.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(log.contains("status does not say that the agent stops"), "{log}");
}

// covers: FM-Q13
#[test]
fn times_of_conditions_outlive_a_server_that_cannot_tell_them() {
    let host = Host::new();
    let then = "2020-02-02T02:02:02Z";
    let mut object = node_config_object(json!({"cidr6": CIDR6}));
    let told =
        |kind: &str| json!({"type": kind, "status": "True", "reason": "X", "message": "", "lastTransitionTime": then});
    object["status"] = json!({"conditions": [told("Ready"), told("Valid")]});
    let api = Api::start(&host, Some(object));
    // The watch's own list works, and the next one does not.
    let watcher = api.clone();
    let refusing = thread::spawn(move || {
        let (lock, changed) = &*watcher.shared;
        let script = lock.lock().expect("unpoisoned");
        let mut script = changed.wait_while(script, |script| script.lists == 0).expect("unpoisoned");
        script.refusals = vec![("list", "nodeconfigs", 500, "etcdserver: request timed out".into())];
    });
    let agent = agent_of(&host, &api);
    refusing.join().expect("no panic");
    let line = agent.wait_log("status of the NodeConfig cannot be written");
    assert!(line.contains("500") && line.contains("etcdserver"), "{line}");
    assert_eq!(api.look(|script| script.patches.len()), 0, "nothing is written over what is not known");
    agent.kill();

    api.change(|script| script.refusals.clear());
    let agent = agent_of(&host, &api);
    let status = api.wait_condition("Ready", "True", "Serving");
    for kind in ["Ready", "Valid"] {
        assert_eq!(condition(&status, kind)["lastTransitionTime"], then, "{status}");
    }
    agent.stop();
}

// covers: FM-U03 FM-N03
#[test]
fn a_full_range_is_told_and_so_is_what_a_node_config_says_in_vain() {
    let host = Host::new();
    host.run("ip link add up0 type veth peer name up1");
    host.run("ip link set up0 up");
    host.run("ip link set up1 up");
    host.run("ip route add default dev up0");
    let mut object = node_config_object(json!({"cidr4": "10.25.214.0/30", "mtu": 9000}));
    object["metadata"]["annotations"] = json!({"flock.fritzlab.net/ip-alg": "app"});
    let api = Api::start(&host, Some(object));
    let agent = agent_of(&host, &api);
    let status = api.wait_condition("AddressesFree", "True", "Free");
    let valid = condition(&status, "Valid");
    assert_eq!(valid["status"], "True");
    let message = valid["message"].as_str().expect("text");
    assert!(message.contains("ip-alg") && message.contains("spec.mtu is 9000"), "{message}");
    agent.wait_log("part of it does not do what it says");

    let pod = host.pod("p");
    host.add(&pod).annotations(&[]).result();
    let status = api.wait_condition("AddressesFree", "False", "Full");
    let message = condition(&status, "AddressesFree")["message"].as_str().expect("text").to_owned();
    assert!(message.contains("no IPv4 address is free, 1 are in use") && message.contains("spec.cidr4"), "{message}");
    let ready = condition(&status, "Ready");
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("Serving")), "a full node keeps its pods");
    assert!(ready["message"].as_str().expect("text").contains("no IPv4 address is free"), "{ready}");
    agent.stop();
}

// covers: FM-Q12
#[test]
fn the_last_good_node_config_of_another_node_is_not_put_in_force() {
    let host = Host::new();
    let api = Api::start(&host, Some(node_config_object(json!({"cidr6": CIDR6}))));
    let agent = agent_of(&host, &api);
    agent.wait_log("NodeConfig in force");
    agent.stop();
    // The host was an image of another one, or was renamed.
    let kept = host.path("/run/flock/state/node-config.json");
    let text = fs::read_to_string(&kept).expect("readable");
    fs::write(&kept, text.replace("host001", "host002")).expect("writable");
    api.change(|script| script.mute = true);
    let agent = agent_of(&host, &api);
    let line = agent.wait_log("NodeConfig of the last run is of another node");
    assert!(line.contains("name=host002") && line.contains("node=host001"), "{line}");
    agent.wait_log("flock-agent listens");
    assert_eq!(host.cni("STATUS").error().code, 50);
    agent.stop();
}

// covers: FM-R01
#[test]
fn a_rewritten_kubeconfig_leads_a_quiet_agent_to_another_server() {
    let host = Host::new();
    let [first, second] =
        ["10.1.0.0/24", "10.2.0.0/24"].map(|cidr| Api::start(&host, Some(node_config_object(json!({"cidr4": cidr})))));
    let agent = agent_of(&host, &first);
    agent.wait_log("cidr4=10.1.0.0/24");
    first.wait_condition("Ready", "True", "Serving");
    host.write("/run/kubeconfig", "half: [of a file");
    let line = agent.wait_log("access to the API server has changed and is broken");
    assert!(line.contains("part=kubeconfig") && line.contains("/run/kubeconfig"), "{line}");
    host.write("/run/kubeconfig", &second.kubeconfig());
    let line = agent.wait_log("access to the API server was read again");
    assert!(line.contains(&second.address.to_string()), "{line}");
    agent.wait_log("cidr4=10.2.0.0/24");
    second.wait_condition("Ready", "True", "Serving");
    agent.stop();
}

// covers: FM-R04
#[test]
fn files_that_root_may_not_read_are_named_with_their_mode_and_what_to_do() {
    let host = Host::new();
    let api = Api::start(&host, None);
    // As under the unit: root, and no right to read what others own.
    let unit = format!("exec setpriv --bounding-set -dac_override,-dac_read_search {FLOCK_AGENT} \"$@\"");
    put_script(host.path("/run/unit"), &unit);
    let https = |user: &str, cluster: &str| {
        format!(
            "{{current-context: a, contexts: [{{name: a, context: {{cluster: b, user: c}}}}], users: [{{name: c, user: {{{user}}}}}], \
             clusters: [{{name: b, cluster: {{server: 'https://{}'{cluster}}}}}]}}",
            api.address
        )
    };
    let said = |line: &str, path: &str| {
        for words in [&format!("{path} has mode 0000 and owner uid 0"), "root without CAP_DAC_OVERRIDE", "chmod u+"] {
            assert!(line.contains(words), "{words}: {line}");
        }
    };
    for name in ["kubeconfig", "token", "ca.crt", "client.pem"] {
        host.write(&format!("/run/k/{name}"), "");
        host.run(&format!("chmod 0000 /run/k/{name}"));
    }
    let mut agent = host.agent().config(None).program("/run/unit").kubeconfig("/run/k/kubeconfig").no_wait().start();
    assert_eq!(agent.wait().code(), Some(2));
    said(&agent.wait_log("permission denied"), "/run/k/kubeconfig");

    let skip = ", insecure-skip-tls-verify: true";
    for (text, path) in [
        (https("tokenFile: token", skip), "/run/k/token"),
        (https("client-certificate: client.pem, client-key: client.pem", skip), "/run/k/client.pem"),
        (https("", ", certificate-authority: ca.crt"), "/run/k/ca.crt"),
    ] {
        host.write("/run/k/readable", &text);
        let agent = host.agent().config(None).program("/run/unit").kubeconfig("/run/k/readable").start();
        said(&agent.wait_log("permission denied"), path);
        agent.stop();
    }
    // A directory on the way.
    host.run("chmod 0644 /run/k");
    let mut agent = host.agent().config(None).program("/run/unit").kubeconfig("/run/k/readable").no_wait().start();
    assert_eq!(agent.wait().code(), Some(2));
    let line = agent.wait_log("permission denied");
    assert!(line.contains("/run/k has mode 0644") && line.contains("chmod u+x"), "{line}");
}

/// A link to other nodes, up0 at 192.0.2.1 and 2001:db8:9::1.
fn with_uplink(host: &Host) {
    for line in [
        "ip link add up0 type veth peer name up1",
        "ip link set up0 up",
        "ip link set up1 up",
        "ip addr add 192.0.2.1/24 dev up0",
        "ip addr add 2001:db8:9::1/64 dev up0 nodad",
    ] {
        host.run(line);
    }
}

// covers: FM-M08
#[test]
fn an_address_that_a_pod_names_leads_to_its_node_and_comes_along_when_the_pod_moves_here() {
    let host = Host::new();
    with_uplink(&host);
    let named = ["203.0.113.5", "2001:db8:f::5"];
    let spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": ["203.0.113.0/28", "2001:db8:f::/48"]});
    let api = Api::start(&host, Some(node_config_object(spec)));
    let claims = named.map(|ip| json!({"address": ip, "pod": "default/db-0", "since": "2026-01-01T00:00:00Z"}));
    api.put_peer(
        "host002",
        json!({"nextHops": [{"address": "192.0.2.2"}, {"address": "2001:db8:9::2"}], "claims": claims}),
    );
    let agent = agent_of(&host, &api);
    agent.wait_log("NodeConfig in force");
    // A node has routes to others when it serves pods.
    let first = host.pod("first");
    host.add(&first).annotations(&[]).result();
    let shown = || {
        let routes = host.routes("proto 102");
        named.map(|ip| routes.get(ip).into_iter().flatten().cloned().collect::<Vec<String>>())
    };
    let elsewhere = ["192.0.2.2", "2001:db8:9::2"].map(|via| vec![via.to_owned()]);
    wait_or(|| format!("{:?}", shown()), || (shown() == elsewhere).then_some(()));

    let annotations = [("addresses", "203.0.113.5,2001:db8:f::5")];
    let add = |sandbox: &str, name: &str| {
        let pod = host.pod(sandbox);
        let add = host.add(&pod).kubernetes("default", name);
        (pod, add.annotations(&annotations))
    };
    let (_, other) = add("other", "db-1");
    let error = other.error();
    assert!(error.code == 11 && error.details.contains("default/db-0 on node host002"), "{error:?}");
    assert!(error.details.contains("kubectl delete nodeconfig host002"), "{error:?}");

    // The former node has not said yet that the pod has left it.
    let (pod, moved) = add("moved", "db-0");
    assert_eq!(moved.result().ips().len(), 2);
    pod.assert_pings(host_addresses());
    let here = |ways: &Vec<String>| ways.len() == 1 && ways[0].starts_with("dev flock");
    wait_or(|| format!("{:?}", shown()), || shown().iter().all(here).then_some(()));
    host.run("ping -n -c 1 -W 5 203.0.113.5");
    host.del(&pod).done();
    wait_or(|| format!("{:?}", shown()), || (shown() == elsewhere).then_some(()));
    agent.stop();
}

#[test]
fn a_node_that_is_withdrawn_or_lacks_a_route_says_so_in_its_status_and_what_ends_that() {
    let host = Host::new();
    let api = Api::start(&host, Some(node_config_object(json!({"cidr6": CIDR6, "cidr4": CIDR4}))));
    let agent = agent_of(&host, &api);
    agent.wait_log("NodeConfig in force");
    let status = api.wait_condition("Ready", "True", "Serving");
    // Before it serves pods it announces nothing.
    assert_eq!((condition(&status, "Routing"), &status["routing"]), (Value::Null, &Value::Null));
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    let announced = |reason: &str, truth: &str, count: u64, words: &str| {
        let status = api.wait_condition("Routing", truth, reason);
        let message = condition(&status, "Routing")["message"].as_str().expect("text").to_owned();
        assert!(message.contains(words), "{message}");
        assert_eq!(status["routing"], json!({"announced": count, "reached": 0, "peers": null}), "{status}");
    };
    announced("Announced", "True", 2, "table 102");
    host.run(&format!("{FLOCK_AGENT} withdraw --wait 0"));
    announced("Withdrawn", "False", 0, "`flock-agent announce` ends that");
    host.run(&format!("{FLOCK_AGENT} announce"));
    announced("Announced", "True", 2, "table 102");
    host.write("/run/flock/drain", "draining\n");
    agent.signal("HUP");
    announced("Draining", "False", 2, "`flock-agent announce` ends that");
    // Somebody takes a place of ours before we do.
    host.run(&format!("ip route add unreachable {CIDR4} table 102 metric 1 proto static"));
    host.run(&format!("{FLOCK_AGENT} announce"));
    announced("RoutesRefused", "False", 2, CIDR4);
    host.run(&format!("ip route del unreachable {CIDR4} table 102 metric 1 proto static"));
    announced("Announced", "True", 2, "table 102");
    agent.stop();
}

#[test]
fn what_pods_may_send_and_receive_is_told_with_what_ails_it_and_how_many_there_are() {
    let host = Host::new();
    let spec = |more: Value| {
        let mut spec = json!({"cidr6": CIDR6, "cidr4": CIDR4});
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec
    };
    let api = Api::start(&host, Some(node_config_object(spec(json!({})))));
    let refusal = json!({"kind": "Status", "message": "User \"node\" cannot list networkpolicies"}).to_string();
    api.change(|script| script.refusals = vec![("list", "networkpolicies", 403, refusal)]);
    let agent = agent_of(&host, &api);
    let told = |truth: &str, reason: &str, words: &str| {
        let status = api.wait_condition("Policy", truth, reason);
        let message = condition(&status, "Policy")["message"].as_str().expect("text").to_owned();
        assert!(message.contains(words), "{message}");
        status
    };
    let status = told("False", "NotWatched", "kubectl apply -k deploy/base");
    assert_eq!(condition(&status, "Ready")["status"], "True", "pods are closed, and get addresses");
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    let counts = |mode: &str, quarantined: u64| json!({"mode": mode, "policies": 0, "isolatedPods": 0, "quarantined": quarantined, "audited": 0, "checkedLinks": 1});
    let wait_counts = |expected: Value| {
        let last = || api.look(|script| script.patches.last().map(|status| status["policy"].clone()));
        wait_or(|| format!("{:?}", last()), || (last() == Some(expected.clone())).then_some(()));
    };
    wait_counts(counts("enforce", 1));

    // Whoever looks at no policies closes nothing for their sake.
    api.edit(spec(json!({"policy": {"mode": "none"}})));
    told("True", "SourcesOnly", "not looked at");
    wait_counts(counts("none", 0));
    api.change(|script| script.refusals.clear());
    api.edit(spec(json!({"policy": {"mode": "audit"}})));
    told("True", "Audited", "is counted, and passes");
    agent.stop();
}

// covers: FM-M09
#[test]
fn other_nodes_never_hear_of_a_new_range_without_the_pods_that_live_in_the_former_one() {
    let host = Host::new();
    let api = Api::start(&host, Some(node_config_object(json!({"cidr4": CIDR4}))));
    let agent = agent_of(&host, &api);
    agent.wait_log("NodeConfig in force");
    let pod = host.pod("a");
    let address = host.add(&pod).annotations(&[]).result().ipv4().expect("an address").to_string();
    let told_of = |range: &str| {
        wait_for(&format!("a NodePeer with {range}"), || {
            let told = api.look(|script| script.told.clone());
            told.into_iter().find(|peer| peer["spec"]["cidr4"] == range)
        })
    };
    assert_eq!(told_of(CIDR4)["spec"]["claims"], Value::Null);
    // For longer than the pause between two looks at what there is to tell, nobody judges what the pods have.
    host.arm("routing/routes.compare * hang 3000\n");
    api.edit(json!({"cidr4": "10.26.0.0/24"}));
    agent.wait_log("cidr4=10.26.0.0/24");
    let claims = told_of("10.26.0.0/24")["spec"]["claims"].clone();
    assert_eq!(claims[0]["address"], json!(address), "{claims}");
    host.disarm();
    agent.stop();
}

// covers: FM-M11
#[test]
fn somebody_elses_route_to_a_node_counts_if_it_leads_there_and_else_is_named_with_what_to_do() {
    let host = Host::new();
    for line in ["ip link add up0 type veth peer name up1", "ip link set up0 up", "ip link set up1 up"] {
        host.run(line);
    }
    host.run("ip addr add 192.0.2.1/24 dev up0");
    let (range, node) = ("10.25.215.0/24", ["192.0.2.2", "192.0.2.3"]);
    let api = Api::start(&host, Some(node_config_object(json!({"cidr4": CIDR4}))));
    let peer = json!({
        "apiVersion": "flock.fritzlab.net/v1alpha1", "kind": "NodePeer",
        "metadata": {"name": "host002", "uid": "p2", "resourceVersion": "1"},
        "spec": {"cidr4": range, "nextHops": node.map(|ip| json!({"address": ip}))},
    });
    api.change(|script| {
        script.version += 1;
        script.peers.insert("host002".into(), peer);
    });
    let foreign = |via: &str| host.run(&format!("ip route replace {range} via {via} proto static"));
    foreign(node[1]);
    let agent = agent_of(&host, &api);
    agent.wait_log("NodeConfig in force");
    let pod = host.pod("a");
    host.add(&pod).annotations(&[]).result();
    let status = api.wait_condition("Routing", "True", "Announced");
    assert_eq!(
        (&status["routing"]["reached"], &condition(&status, "PeersReached")["status"]),
        (&json!(1), &json!("True"))
    );
    let leads = || host.run(&format!("ip route show {range}"));
    let ours = || wait_or(leads, || leads().contains("via 192.0.2.2 dev up0 proto 102").then_some(()));
    for _ in 0..4 {
        assert!(leads().contains("via 192.0.2.3 dev up0 proto static"), "{}", leads());
        host.run(&format!("ip route del {range} proto static"));
        ours();
        foreign(node[1]);
    }

    foreign("192.0.2.9");
    let status = api.wait_condition("Routing", "False", "RoutesRefused");
    let message = condition(&status, "Routing")["message"].as_str().expect("text").to_owned();
    let remedy = format!("ip route del {range} proto 4");
    for words in ["via 192.0.2.9", &remedy, "spec.peers: none"] {
        assert!(message.contains(words), "{message}");
    }
    host.run(&remedy);
    ours();
    api.wait_condition("Routing", "True", "Announced");
    let log = agent.stop();
    assert_eq!(log.matches("routes cannot be set").count(), 1, "{log}");
}

// covers: FM-M12 FM-M13
#[test]
fn an_address_that_another_nodes_pod_has_alone_is_not_shared_here_nor_the_reverse_nor_is_one_of_its_range_given() {
    let host = Host::new();
    let spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": ["203.0.113.0/24"]});
    let api = Api::start(&host, Some(node_config_object(spec)));
    let since = "2026-01-01T00:00:00Z";
    let claims = json!([
        {"address": "203.0.113.5", "pod": "media/plex-0", "since": since},
        {"address": "203.0.113.53", "pod": "web/dns", "since": since, "shared": true},
    ]);
    api.put_peer("host002", json!({"cidr4": "203.0.113.64/28", "nextHops": [], "claims": claims}));
    let agent = agent_of(&host, &api);
    // From then on it knows of the others.
    api.wait_condition("RangesUnique", "True", "Unique");
    let pod = host.pod("p");
    let add = |key: &str, ip: &str| host.add(&pod).kubernetes("default", "p").annotations(&[(key, ip)]);
    for (key, ip, says) in [
        (
            "anycast",
            "203.0.113.5",
            [
                "held by media/plex-0 on node host002 by annotation flock.fritzlab.net/addresses",
                "default/p on node host001",
            ],
        ),
        (
            "addresses",
            "203.0.113.53",
            ["held by web/dns on node host002 by annotation flock.fritzlab.net/anycast", "default/p on node host001"],
        ),
        (
            "addresses",
            "203.0.113.70",
            ["in 203.0.113.64/28, the range of node host002", "outside of all nodes' ranges"],
        ),
        ("anycast", "203.0.113.70", ["in 203.0.113.64/28, the range of node host002", "outside of all nodes' ranges"]),
    ] {
        let error = add(key, ip).error();
        assert_eq!(error.code, 11, "{error:?}");
        assert!(error.details.starts_with(ip) && says.iter().all(|says| error.details.contains(says)), "{error:?}");
        assert!(error.details.contains("kubectl delete nodeconfig host002"), "{error:?}");
    }
    // What others share is shared here, too, and they hear of it.
    add("anycast", "203.0.113.53").result();
    let told = wait_for("the claim in the API", || {
        api.look(|script| {
            let own = script.peers.values().find(|peer| peer["metadata"]["name"] == "host001")?;
            own["spec"]["claims"].as_array().filter(|claims| !claims.is_empty()).cloned()
        })
    });
    assert_eq!(told.len(), 1, "{told:?}");
    for (field, value) in [("address", json!("203.0.113.53")), ("pod", json!("default/p")), ("shared", json!(true))] {
        assert_eq!(told[0][field], value, "{told:?}");
    }
    // A range that comes later, with the address of a pod in it.
    api.put_peer("host003", json!({"cidr4": "203.0.113.48/28", "nextHops": []}));
    let status = api.wait_condition("Routing", "False", "AddressesContested");
    let message = condition(&status, "Routing")["message"].as_str().expect("text").to_owned();
    assert!(
        message.contains("203.0.113.53 of pod default/p here is in 203.0.113.48/28, the range of node host003"),
        "{message}"
    );
    agent.wait_log("an address is not its pod's alone");
    host.del(&pod).kubernetes("default", "p").done();
    agent.stop();
}

// covers: FM-G10
#[test]
fn a_node_that_starts_without_its_api_server_withdraws_nothing_and_has_all_of_its_last_good_node_config() {
    let host = Host::new();
    with_uplink(&host);
    let spec = json!({
        "cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": ["203.0.113.0/28"], "proxyNeighbours": "up0", "peers": "direct",
        "bgp": {"asn": 65001, "peers": [{"name": "tor1", "address": "192.0.2.254", "asn": 65100}]},
    });
    let api = Api::start(&host, Some(node_config_object(spec)));
    api.put_peer("host002", json!({"cidr4": "10.2.0.0/24", "nextHops": [{"address": "192.0.2.2"}]}));
    host.write("/run/kubeconfig", &api.kubeconfig());
    host.run("mkdir -p /run/bird");
    let conf = host.path("/run/bird/bird.conf");
    let bird = ["--bird-config", "/run/bird/bird.conf", "--bird-socket", "/run/bird/bird.ctl"];
    let start = || host.agent().config(None).kubeconfig("/run/kubeconfig").args(&bird).start();
    let agent = start();
    agent.wait_log("NodeConfig in force");
    let add = |name: &str, ip: &str| {
        let pod = host.pod(name);
        host.add(&pod).annotations(&[("addresses", ip)]).result();
        pod
    };
    let first = add("first", "203.0.113.5");
    // Routes in main to the other node, in table 102, neighbour proxies, and BIRD's configuration.
    let shown = || {
        let to_other = host.run("ip route show 10.2.0.0/24");
        let proxies: Vec<String> =
            host.proxies().iter().map(|entry| format!("{} on {}", entry.ip, entry.link)).collect();
        (announced(&host), to_other, proxies, fs::read_to_string(&conf).unwrap_or_default())
    };
    let before = wait_for("everything that the NodeConfig asks for", || {
        let all = shown();
        let (announced, to_other, proxies, bird) = &all;
        let whole =
            announced.len() == 3 && to_other.contains("via 192.0.2.2") && proxies.len() == 2 && bird.contains("tor1");
        whole.then_some(all)
    });
    let announcements = host.route_events();
    agent.kill();
    api.change(|script| script.mute = true);
    let agent = start();
    agent.wait_log("NodeConfig of the last run is in force until the API server is heard");
    // The thread that speaks with BIRD has looked when it says that there is none; the others in two rounds.
    agent.wait_log("BIRD");
    agent.rounds(2);
    assert_eq!(shown(), before);
    announcements.assert_unheard(102);
    // Pods come and go, and name what the node's owner lets them.
    let second = add("second", "203.0.113.6");
    wait_for("its announcement and its proxies", || {
        let (announced, _, proxies, _) = shown();
        (announced.len() == 4 && proxies.len() == 4).then_some(())
    });
    host.del(&second).done();
    wait_or(|| format!("{:?}", shown()), || (shown() == before).then_some(()));
    api.change(|script| script.mute = false);
    api.wait_condition("PeersReached", "True", "Reached");
    agent.rounds(1);
    assert_eq!(shown(), before);
    host.del(&first).done();
    agent.stop();
}
