//! Stories of NetworkPolicy with a real API server: pods of a real agent, and who may talk to whom as things happen in the cluster.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::stage::{DNS, HTTP, Stage, cni, peers, table};
use crate::streams::{Place, Streams, WAYS, Way};
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config_of, node_config_spec};
use crate::support::waiting::{wait_for, wait_or};
use crate::{agent_of, rss_kib};

const NODE: &str = "host001";
/// The uid of a pod of which nobody tells.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// A NodeConfig with this `policy`.
fn configure(stage: &Stage<'_>, policy: &Value) {
    let spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "policy": policy});
    stage.plane.apply(&node_config_spec(spec)).expect("accepted");
}

/// A node with an agent that enforces.
fn started(host: &Host) -> (Stage<'_>, Agent<'_>) {
    let stage = Stage::new(ControlPlane::start(host));
    configure(&stage, &json!({}));
    let agent = agent_of(host, &stage.plane);
    agent.wait_log("NodeConfig in force");
    (stage, agent)
}

fn app(name: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": name}}})
}

fn app_of(team: &str, name: &str) -> Value {
    json!({"namespaceSelector": {"matchLabels": {"team": team}}, "podSelector": {"matchLabels": {"app": name}}})
}

/// Lets these peers in to the pods of `subjects`, on the port `http`.
fn lets_in(subjects: &str, peers: &[Value]) -> Value {
    let rule = json!({"from": peers, "ports": [{"protocol": "TCP", "port": "http"}]});
    json!({"podSelector": {"matchLabels": {"app": subjects}}, "policyTypes": ["Ingress"], "ingress": [rule]})
}

/// The line of the log that says what became of ADD for this container.
fn line_of_add(agent: &Agent<'_>, container: &str) -> String {
    wait_for("the line of ADD", || {
        agent
            .log()
            .lines()
            .find(|line| line.contains("op=ADD") && line.contains(&format!("cid={container} ")))
            .map(str::to_owned)
    })
}

#[test]
fn a_pod_is_closed_until_its_node_is_told_of_it_and_of_its_peers_and_is_right_from_then_on() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    for (end, name, app) in [(&front, "far/front", "front"), (&other, "far/other", "other")] {
        stage.object("elsewhere", name, app, &json!({}));
        stage.status(name, "Running", &end.ips);
    }
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front")]));

    // ADD overtakes its pod, of which the runtime has told all that ADD needs.
    let early = stage.attach(&host, "web/early", NOBODY);
    assert!(line_of_add(&agent, &early.pod.name).contains("policy=quarantine"));
    for (from, to) in [(&front, &early.end), (&early.end, &front)] {
        stage.assert_closed(from, to, HTTP);
    }
    // A pod of its name that is not this one opens nothing.
    let uid = stage.object(NODE, "web/early", "free", &json!({}));
    let again = stage.attach(&host, "web/early", &uid);
    stage.wait_open(&front, &again.end, HTTP);
    stage.assert_closed(&front, &early.end, HTTP);
    stage.assert_closed(&early.end, &front, HTTP);
    early.leave(&stage);

    // The first pod of a policy is closed to whom the policy names until it is known who that is.
    let began = Instant::now();
    let first = stage.member(&host, NODE, "web/first", "db");
    stage.wait_open(&front, &first.end, HTTP);
    println!("creation of a first pod of a policy to its first connection: {} ms", began.elapsed().as_millis());
    stage.assert_closed(&other, &first.end, HTTP);
    stage.assert_closed(&front, &first.end, DNS);
    // The next one finds everything known, and open.
    let began = Instant::now();
    let uid = stage.object(NODE, "web/second", "db", &json!({}));
    let second = stage.attach(&host, "web/second", &uid);
    stage.assert_open(&front, &second.end, HTTP);
    stage.assert_closed(&other, &second.end, HTTP);
    println!("creation of a further pod to its connections: {} ms", began.elapsed().as_millis());
    let line = line_of_add(&agent, &second.pod.name);
    assert!(!line.contains("quarantine"), "{line}");
    println!("{line}");

    // One that no policy selects is open at once; one that nobody knows is open where the owner says so.
    let free = stage.member(&host, NODE, "web/free", "free");
    stage.assert_open(&other, &free.end, HTTP);
    configure(&stage, &json!({"unknown": "open"}));
    wait_or(
        || "no unknown pod opens".into(),
        || {
            let unknown = stage.attach(&host, "web/unknown", NOBODY);
            let opens = stage.connects(&front, &unknown.end, HTTP) == [true, true];
            unknown.leave(&stage);
            opens.then_some(())
        },
    );
    stage.assert_closed(&other, &second.end, HTTP);
    agent.stop();
}

#[test]
fn whatever_happens_in_the_cluster_changes_who_may_talk() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    // A pod of the host's network has labels and is no peer.
    stage.object(
        "elsewhere",
        "far/host",
        "front",
        &json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x"}]}),
    );
    stage.status("far/host", "Running", &other.ips);
    let db = stage.member(&host, NODE, "web/db", "db");
    let client = stage.member(&host, NODE, "web/client", "client");
    for from in [&front, &other, &client.end] {
        stage.assert_open(from, &db.end, HTTP);
    }
    let run = |line: &str| drop(stage.plane.run(line));

    // A policy comes, changes, and goes.
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front")]));
    stage.wait_closed(&other, &db.end, HTTP);
    stage.assert_open(&front, &db.end, HTTP);
    stage.assert_closed(&front, &db.end, DNS);
    stage.assert_closed(&client.end, &db.end, HTTP);
    stage.policy("web/p", &lets_in("db", &[app("client")]));
    stage.wait_open(&client.end, &db.end, HTTP);
    stage.assert_closed(&front, &db.end, HTTP);
    run("-n web delete networkpolicy p");
    stage.wait_open(&other, &db.end, DNS);

    // Labels of the peer, of its namespace, and of the subject.
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front"), app("client")]));
    stage.wait_closed(&other, &db.end, HTTP);
    run("-n far label pod --overwrite front app=back");
    stage.wait_closed(&front, &db.end, HTTP);
    run("-n far label pod --overwrite front app=front");
    stage.wait_open(&front, &db.end, HTTP);
    run("label namespace --overwrite far team=else");
    stage.wait_closed(&front, &db.end, HTTP);
    run("label namespace --overwrite far team=far");
    stage.wait_open(&front, &db.end, HTTP);
    run("-n web label pod --overwrite client app=stranger");
    stage.wait_closed(&client.end, &db.end, HTTP);
    run("-n web label pod --overwrite client app=client");
    stage.wait_open(&client.end, &db.end, HTTP);
    run("-n web label pod --overwrite db app=free");
    stage.wait_open(&other, &db.end, HTTP);
    run("-n web label pod --overwrite db app=db");
    stage.wait_closed(&other, &db.end, HTTP);

    // A peer that has ended, that is gone, and that comes back.
    stage.status("far/front", "Succeeded", &front.ips);
    stage.wait_closed(&front, &db.end, HTTP);
    stage.remove("far/front");
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    stage.wait_open(&front, &db.end, HTTP);
    stage.remove("far/front");
    stage.wait_closed(&front, &db.end, HTTP);

    // A pod that is made anew under its name has nothing of what the former one was, and the former one nothing of it.
    let uid = stage.plane.run("-n web get pod client -o jsonpath={.metadata.uid}");
    stage.remove("web/client");
    stage.wait_closed(&client.end, &db.end, HTTP);
    let second = stage.member(&host, NODE, "web/client", "stranger");
    stage.assert_closed(&second.end, &db.end, HTTP);
    run("-n web label pod --overwrite client app=client");
    stage.wait_open(&second.end, &db.end, HTTP);
    stage.assert_closed(&client.end, &db.end, HTTP);
    let third = stage.attach(&host, "web/client", &uid.replace(|c: char| c != '-', "0"));
    stage.assert_closed(&third.end, &db.end, HTTP);
    stage.assert_closed(&db.end, &third.end, HTTP);
    agent.stop();
}

#[test]
fn a_named_port_is_the_one_of_the_pod_where_the_connection_arrives() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    let elsewhere =
        json!({"containers": [{"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": DNS}]}]});
    stage.object("elsewhere", "far/front", "front", &elsewhere);
    stage.status("far/front", "Running", &front.ips);
    let db = stage.member(&host, NODE, "web/db", "db");
    let client = stage.member(&host, NODE, "web/client", "client");
    let out = |to: &[Value]| {
        let mut rule = json!({"ports": [{"protocol": "TCP", "port": "http"}]});
        if !to.is_empty() {
            rule["to"] = json!(to);
        }
        json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [rule]})
    };
    stage.policy("web/p", &out(&[app("db")]));
    stage.wait_closed(&client.end, &front, DNS);
    stage.assert_open(&client.end, &db.end, HTTP);
    stage.assert_closed(&client.end, &db.end, DNS);
    stage.policy("web/p", &out(&[app("db"), app_of("far", "front")]));
    stage.wait_open(&client.end, &front, DNS);
    stage.assert_closed(&client.end, &front, HTTP);
    // Without peers, every pod of the cluster that has such a port, and nobody else.
    stage.policy("web/p", &out(&[app("db")]));
    stage.wait_closed(&client.end, &front, DNS);
    stage.policy("web/p", &out(&[]));
    stage.wait_open(&client.end, &front, DNS);
    stage.assert_open(&client.end, &db.end, HTTP);
    stage.assert_closed(&client.end, &front, HTTP);
    stage.assert_closed(&client.end, &other, HTTP);
    agent.stop();
}

#[test]
fn what_the_api_server_revokes_ends_with_the_next_packet_and_nothing_else_is_lost() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    let ends = [("far/front", stage.stranger(&host, 2)), ("far/other", stage.stranger(&host, 3))];
    for (name, end) in &ends {
        stage.object("elsewhere", name, "front", &json!({}));
        stage.status(name, "Running", &end.ips);
    }
    let db = stage.member(&host, NODE, "web/db", "db");
    let mut rule = lets_in("db", &[app_of("far", "front")]);
    rule["ingress"][0]["ports"] = json!([{"protocol": "TCP", "endPort": 65535, "port": 1}, {"protocol": "UDP"}]);
    stage.policy("web/p", &rule);
    let front = ends[0].1.ips[0].to_string();
    wait_for("the policy", || peers(&host).contains(&front).then_some(()));
    let mut all: Vec<(Place, Place, Way)> = Vec::new();
    for (_, end) in &ends {
        for (from, to) in end.ips.iter().zip(&db.end.ips) {
            for way in WAYS {
                all.push(((end.netns.clone(), *from), (db.end.netns.clone(), *to), way));
            }
        }
    }
    let streams = Streams::start(&all);
    (0..all.len()).for_each(|one| streams.wait_received(one, 20));
    stage.plane.run("-n far label pod --overwrite front app=back");
    wait_for("the peer to be gone", || (!peers(&host).contains(&front)).then_some(()));
    let next = streams.next();
    streams.wait_sent(next + 100);
    for (one, (from, to, way)) in all.iter().enumerate() {
        let received = streams.received(one);
        if one < all.len() / 2 {
            let last = received.last().copied();
            assert!(
                last.is_some_and(|last| last < next),
                "{way:?} from {} to {}: {last:?} arrived, and {next} was the next to be sent\n{}",
                from.1,
                to.1,
                table(&host)
            );
        } else {
            streams.wait_received(one, next + 100);
            let received = streams.received(one);
            assert!(
                received.windows(2).all(|two| two[1] == two[0] + 1),
                "{way:?} from {} to {}: {received:?}",
                from.1,
                to.1
            );
        }
    }
    agent.stop();
}

#[test]
fn an_api_server_or_an_agent_that_is_away_opens_and_closes_nothing() {
    let host = Host::new();
    let (mut stage, agent) = started(&host);
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front")]));
    let db = stage.member(&host, NODE, "web/db", "db");
    stage.wait_open(&front, &db.end, HTTP);
    // An agent that starts again finds everything as it should be, and leaves it alone.
    let before = table(&host);
    agent.stop();
    let agent = host.agent().config(None).kubeconfig("/run/k8s/agent.kubeconfig").start();
    agent.wait_log("API server heard resource=networkpolicies");
    // Then its policies are known, and have been compared.
    agent.wait_log("pods are watched for policies");
    agent.wait_log_times("API server heard resource=pods", 2);
    let free = stage.member(&host, NODE, "web/free", "free");
    stage.assert_open(&other, &free.end, HTTP);
    free.leave(&stage);
    stage.remove("web/free");
    // Of policies alone: what checks sources and limits sweeps may be written again, and with a new pod there may be a new epoch.
    let rules = |table: &str| -> Vec<String> {
        let of_policies = |chain: &&str| {
            !["guard ", "source ", "sweep", "epoch ", "seal "].iter().any(|name| chain.starts_with(name))
        };
        let is_rule = |line: &&str| line.contains("# handle") && !line.contains("counter") && !line.contains('{');
        let chains = table.split("\tchain ").skip(1).filter(of_policies);
        chains.flat_map(|chain| chain.lines().filter(is_rule)).map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(rules(&table(&host)), rules(&before));

    stage.plane.stop_api("KILL");
    agent.wait_log("API server cannot be asked");
    let is_right = |stage: &Stage<'_>| {
        stage.assert_open(&front, &db.end, HTTP);
        stage.assert_closed(&other, &db.end, HTTP);
        stage.assert_closed(&front, &db.end, DNS);
    };
    is_right(&stage);
    let unknown = stage.attach(&host, "web/unknown", NOBODY);
    stage.assert_closed(&front, &unknown.end, HTTP);
    assert!(line_of_add(&agent, &unknown.pod.name).contains("policy=quarantine"));

    // The agent starts again meanwhile.
    let before = rules(&table(&host));
    agent.stop();
    let agent = host.agent().config(None).kubeconfig("/run/k8s/agent.kubeconfig").start();
    agent.wait_log("API server cannot be asked");
    is_right(&stage);
    stage.assert_closed(&front, &unknown.end, HTTP);
    let further = stage.attach(&host, "web/further", NOBODY);
    stage.assert_closed(&front, &further.end, HTTP);
    assert!(line_of_add(&agent, &further.pod.name).contains("policy=quarantine"));
    assert_eq!(rules(&table(&host)), before);
    unknown.leave(&stage);
    is_right(&stage);
    stage.plane.start_api();
    let third = stage.member(&host, NODE, "web/third", "db");
    // The pause between two tries has grown to a minute by now.
    let heard = || agent.log().contains("API server heard resource=networkpolicies").then_some(());
    crate::wait_for_long("the API server to be heard", 120, heard);
    stage.wait_open(&front, &third.end, HTTP);
    stage.assert_closed(&other, &third.end, HTTP);
    is_right(&stage);
    stage.assert_closed(&front, &further.end, HTTP);
    agent.stop();
}

/// Makes this port lead to the API server, and no other one any more, as kube-proxy does it: connections that stand go on.
fn lead_to_api(host: &Host, port: u16) {
    // There is a translation at any time, or the kernel would forget those of connections that stand.
    host.run(&format!(
        "nft add table ip proxy; add chain ip proxy nat {{ type nat hook output priority -100; }}; flush chain ip proxy nat; \
         add rule ip proxy nat tcp dport {port} dnat to :6443"
    ));
}

#[test]
fn a_policy_that_waits_for_its_peers_is_told_as_one_that_waits_and_not_as_in_force() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    agent.stop();
    lead_to_api(&host, 16443);
    let way = stage.plane.file("agent.kubeconfig").replace(":6443", ":16443");
    host.write("/run/k8s/way.kubeconfig", &way);
    let agent = host.agent().config(None).kubeconfig("/run/k8s/way.kubeconfig").start();
    agent.wait_log("API server heard resource=networkpolicies");
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    let db = stage.member(&host, NODE, "web/db", "db");
    stage.wait_open(&other, &db.end, HTTP);

    lead_to_api(&host, 16444);
    // More watches than there are idle connections.
    let peers = ["front", "p", "q", "r", "s", "t"].map(|name| app_of("far", name));
    stage.policy("web/p", &lets_in("db", &peers));
    let line = agent.wait_log("policies are not known yet, and what was in force before goes on");
    assert!(line.contains("the pods that NetworkPolicy web/p is about are missing"), "{line}");
    stage.assert_open(&other, &db.end, HTTP);
    assert!(!agent.log().contains("policies in force policies=1"), "{}", agent.log());

    lead_to_api(&host, 16443);
    stage.wait_closed(&other, &db.end, HTTP);
    stage.assert_open(&front, &db.end, HTTP);
    agent.wait_log("policies in force policies=1 isolated=1");
    agent.stop();
}

#[test]
fn a_node_that_may_not_read_policies_yet_keeps_what_was_and_needs_no_restart_when_it_may() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    // An agent from before there were policies.
    configure(&stage, &json!({"mode": "none"}));
    agent.wait_log_times("NodeConfig in force", 2);
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front")]));
    let old = stage.member(&host, NODE, "web/old", "db");
    stage.assert_open(&other, &old.end, HTTP);
    agent.stop();
    let rights = |resources: &[&str]| {
        let rule = json!({"apiGroups": ["networking.k8s.io"], "resources": resources, "verbs": ["list", "watch"]});
        let patch = json!([{"op": "replace", "path": "/rules/4", "value": rule}]).to_string();
        let output = stage.plane.kubectl(&["patch", "clusterrole", "flock-agent", "--type=json", "-p", &patch]);
        assert!(output.status.success(), "{output:?}");
    };
    assert!(
        stage.plane.run("get clusterrole flock-agent -o jsonpath={.rules[4].resources}").contains("networkpolicies")
    );
    rights(&["ingresses"]);
    configure(&stage, &json!({}));
    let agent = agent_of(&host, &stage.plane);
    let line = agent.wait_log("RBAC is too small verb=list resource=networkpolicies");
    assert!(line.contains("the verb list on the resource networkpolicies of apiGroup networking.k8s.io"), "{line}");
    stage.assert_open(&other, &old.end, HTTP);
    let new = stage.member(&host, NODE, "web/new", "db");
    stage.assert_closed(&front, &new.end, HTTP);
    rights(&["networkpolicies"]);
    stage.wait_open(&front, &new.end, HTTP);
    stage.assert_closed(&other, &new.end, HTTP);
    stage.wait_closed(&other, &old.end, HTTP);
    stage.assert_open(&front, &old.end, HTTP);
    agent.stop();
}

/// The watches that an agent has for policies, each a thread: of policies, of namespaces, and of pods.
fn watches(agent: &Agent<'_>) -> [usize; 3] {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("it runs");
    // One may have ended since.
    let names: Vec<String> =
        tasks.filter_map(|task| fs::read_to_string(task.expect("readable").path().join("comm")).ok()).collect();
    ["watch-policies", "watch-spaces", "watch-pods-of"]
        .map(|name| names.iter().filter(|thread| thread.trim() == name).count())
}

/// Waits until it has that many. One that is wanted no more ends with the next thing that it is told.
#[track_caller]
fn wait_watches(stage: &Stage<'_>, agent: &Agent<'_>, expected: [usize; 3]) {
    let mut count = 0;
    wait_or(
        || format!("{:?} instead of {expected:?}", watches(agent)),
        || {
            count += 1;
            for what in ["namespace far", "-n web networkpolicy p", "-n far pod front"] {
                stage.plane.run(&format!("label --overwrite {what} count={count}"));
            }
            (watches(agent) == expected).then_some(())
        },
    );
}

#[test]
fn a_node_watches_what_its_policies_are_about_and_the_mode_changes_while_it_runs() {
    let host = Host::new();
    let stage = Stage::new(ControlPlane::start(&host));
    configure(&stage, &json!({"mode": "none"}));
    let agent = agent_of(&host, &stage.plane);
    agent.wait_log("NodeConfig in force");
    let [front, other] = [stage.stranger(&host, 2), stage.stranger(&host, 3)];
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front")]));
    let free = stage.member(&host, NODE, "web/free", "free");
    let db = stage.member(&host, NODE, "web/db", "db");
    stage.assert_open(&other, &db.end, HTTP);
    assert_eq!(watches(&agent), [0, 0, 0]);
    assert!(!agent.log().contains("resource=networkpolicies"), "nothing is asked for that nobody needs");
    assert!(!table(&host).contains("ct mark"), "{}", table(&host));

    let dropped = || table(&host).contains("policy/web/p/in");
    configure(&stage, &json!({"mode": "audit"}));
    wait_watches(&stage, &agent, [1, 1, 1]);
    wait_for("the policy", || dropped().then_some(()));
    stage.assert_open(&other, &db.end, HTTP);
    configure(&stage, &json!({"mode": "enforce"}));
    stage.wait_closed(&other, &db.end, HTTP);
    stage.assert_open(&front, &db.end, HTTP);
    stage.assert_open(&other, &free.end, HTTP);

    // One pod asks for audit in a namespace that may.
    configure(&stage, &json!({"auditNamespaces": ["web"]}));
    agent.wait_log_times("NodeConfig in force", 4);
    let uid = stage.object(NODE, "web/asks", "db", &json!({}));
    let pod = host.pod("asks");
    let attached = cni(host.add(&pod), "web/asks", &uid).annotations(&[("policy", "audit")]).result();
    let asks = stage.listen("web/asks", pod.netns(), attached.ips());
    stage.status("web/asks", "Running", &asks.ips);
    stage.wait_open(&other, &asks, HTTP);
    stage.assert_closed(&other, &db.end, HTTP);
    configure(&stage, &json!({}));
    stage.wait_closed(&other, &asks, HTTP);

    // Where no policy selects a pod, no pods are watched for any; without policies, nothing is.
    configure(&stage, &json!({"mode": "none"}));
    stage.wait_open(&other, &db.end, HTTP);
    wait_watches(&stage, &agent, [0, 0, 0]);
    stage.policy("web/p", &lets_in("nobody", &[app_of("far", "front")]));
    configure(&stage, &json!({}));
    wait_watches(&stage, &agent, [1, 1, 0]);
    agent.stop();
}

#[test]
fn a_node_of_many_policies_watches_their_peers_and_not_the_whole_cluster() {
    let host = Host::new();
    let (stage, agent) = started(&host);
    let front = stage.stranger(&host, 2);
    stage.object("elsewhere", "far/front", "front", &json!({}));
    stage.status("far/front", "Running", &front.ips);
    // As charts have them: who comes in from the ingress controller, and the pods of the namespace among themselves.
    let mut objects = Vec::new();
    for n in 0..10 {
        let namespace = format!("team-{n}");
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
        for (name, way, peers) in
            [("in", "from", [app_of("far", "front"), app("web")]), ("out", "to", [app_of("far", "dns"), app("data")])]
        {
            let direction = if name == "in" { "ingress" } else { "egress" };
            let spec = json!({"podSelector": {}, "policyTypes": [if name == "in" { "Ingress" } else { "Egress" }],
                direction: [{way: peers}]});
            let metadata = json!({"name": name, "namespace": namespace});
            objects.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}));
        }
    }
    stage.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).expect("accepted");
    let mut members = Vec::new();
    for n in 0..10 {
        let name = format!("team-{n}/web");
        members.push(stage.member(&host, NODE, &name, "web"));
        stage.wait_open(&front, &members[n].end, HTTP);
        if n == 0 || n == 9 {
            let [_, _, pods] = watches(&agent);
            println!("{} namespaces, {pods} watches of pods: {} KiB", n + 1, rss_kib(agent.pid()));
        }
    }
    assert_eq!(watches(&agent), [1, 1, 22]);
    agent.stop();
}

#[test]
fn both_ends_of_a_connection_between_two_nodes_are_policed() {
    use crate::support::switch::Switch;
    let (one, two) = (Host::new(), Host::with(&["2001:db8:0:1::2/128", "10.1.0.2/32"]));
    let switch = Switch::new();
    switch.plug(&one, "up0", &["192.0.2.1/24", "2001:db8:9::1/64"]);
    switch.plug(&two, "up0", &["192.0.2.2/24", "2001:db8:9::2/64"]);
    let stage = Stage::new(ControlPlane::start_at(&one, "192.0.2.1"));
    let ranges = [("host001", CIDR6, CIDR4), ("host002", "2001:db8:1:f002::/64", "10.25.215.0/24")];
    for (name, cidr6, cidr4) in ranges {
        let spec = json!({"cidr6": cidr6, "cidr4": cidr4, "peers": "direct"});
        stage.plane.apply(&node_config_of(name, spec)).expect("accepted");
    }
    let kubeconfig = stage.plane.kubeconfig_on(&two);
    let first = one.agent().config(None).kubeconfig(&kubeconfig).start();
    let second = two.agent().node("host002").config(None).kubeconfig(&kubeconfig).start();
    for agent in [&first, &second] {
        agent.wait_log("NodeConfig in force");
    }
    let db = stage.member(&one, "host001", "web/db", "db");
    let front = stage.member(&two, "host002", "far/front", "front");
    let other = stage.member(&two, "host002", "far/other", "other");
    for end in [&front.end, &other.end] {
        stage.wait_open(end, &db.end, HTTP);
        stage.wait_open(&db.end, end, HTTP);
    }
    stage.policy("web/p", &lets_in("db", &[app_of("far", "front")]));
    stage.wait_closed(&other.end, &db.end, HTTP);
    stage.assert_open(&front.end, &db.end, HTTP);
    stage.assert_open(&db.end, &other.end, HTTP);
    let rule = json!({"to": [app_of("web", "cache")], "ports": [{"protocol": "TCP", "port": "dns"}]});
    stage.policy("far/out", &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]}));
    stage.wait_closed(&front.end, &db.end, HTTP);
    stage.assert_open(&db.end, &front.end, HTTP);
    let cache = stage.member(&one, "host001", "web/cache", "cache");
    stage.wait_open(&front.end, &cache.end, DNS);
    stage.wait_open(&other.end, &cache.end, DNS);
    stage.assert_closed(&front.end, &cache.end, HTTP);
    stage.plane.run("-n far delete networkpolicy out");
    stage.wait_open(&front.end, &db.end, HTTP);
    stage.assert_closed(&other.end, &db.end, HTTP);
    first.stop();
    second.stop();
}
