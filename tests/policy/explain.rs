//! A user asks why his pod does not reach another one, is told, mends it, and asks again; and whatever `flock-agent explain` says,
//! packets do.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use flock::operator::passage::{Files, Words};
use flock::rpc::client;
use flock::rpc::message::{Explanation, Passage, Query, QueryOp};
use serde_json::{Value, json};

use super::cluster::{Cluster, End, Pod, Probe, Protocol, Who, key, labels};
use super::evaluator::allows;
use super::policed::{DIRECTORY, Policed};
use super::random::{Chance, seed};
use super::support::dice::Dice;
use super::support::host::{Host, one_user_only};
use super::support::manifests::{CIDR4, CIDR6, node_config_spec};
use super::support::programs::FLOCK_AGENT;
use super::support::share::SEED;
use super::support::waiting::{PATIENCE, wait_for};

/// Sets of policies that are made at random.
const SETS: u64 = 4;

/// Of so many questions about each set, the agent is asked one. Seven kinds are asked of each pair, so that this meets all.
const ASKED: u64 = 15;

/// What the program prints, and how it ends.
fn run(host: &Host, line: &str) -> (i32, String) {
    let mut program = host.command(FLOCK_AGENT);
    let done = program.arg("explain").args(line.split(' ')).stdin(Stdio::null()).output().expect("it starts");
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code().expect("it ends by itself"), text)
}

/// It says this, and ends like that.
#[track_caller]
fn assert_says(host: &Host, line: &str, code: i32, said: &[&str]) -> String {
    let (ended, text) = run(host, line);
    let missing: Vec<&&str> = said.iter().filter(|words| !text.contains(**words)).collect();
    assert!(
        ended == code && missing.is_empty(),
        "explain {line}: {ended} instead of {code}, without {missing:?}:\n{text}"
    );
    text
}

/// From y/a to TCP/80 of x/a, in each family.
fn probes(policed: &Policed<'_>) -> Vec<Probe> {
    let end = |namespace: &str, address: IpAddr| End { who: Who::Pod(key(namespace, "a")), address };
    let from = policed.neighbours.ips("y", "a").into_iter();
    let both = from.zip(policed.neighbours.ips("x", "a"));
    both.map(|(from, to)| {
        let (from, to) = (end("y", from), end("x", to));
        Probe { from, to, protocol: Protocol::Tcp, port: 80, through: None }
    })
    .collect()
}

/// Whether packets pass, all of them or none.
#[track_caller]
fn assert_packets_pass(policed: &mut Policed<'_>, pass: bool, when: &str) {
    let probes = probes(policed);
    let verdicts = policed.neighbours.prober.ask(&probes, &vec![pass; probes.len()]);
    assert!(verdicts.iter().all(|verdict| verdict.is(pass)), "{when}: {verdicts:?}");
}

fn to_web(rule: Value) -> Value {
    json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress"], "ingress": [rule]})
}

type Change = fn(&mut Cluster);

/// What is wrong, what is said about it, and what mends it.
const FAULTS: &[(&str, Change, &[&str], Change)] = &[
    (
        "the client lacks the label",
        |cluster| {
            let clients = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"role": "client"}}});
            cluster.add_policy("x", "web", to_web(json!({"from": [clients]})));
        },
        &[
            "egress: no policy selects y/a",
            "policy web does not allow it",
            "podSelector role=client does not match y/a",
        ],
        |cluster| drop(cluster.pods.get_mut(&key("y", "a")).unwrap().labels.insert("role".into(), "client".into())),
    ),
    (
        "the rule is for another port",
        |cluster| {
            cluster.add_policy(
                "x",
                "web",
                to_web(json!({"from": [{"namespaceSelector": {}}], "ports": [{"port": 443}]})),
            )
        },
        &["spec.ingress[0]: 10.", " is from[0], but TCP/80 is none of its ports"],
        |cluster| {
            cluster.add_policy(
                "x",
                "web",
                to_web(json!({"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]})),
            )
        },
    ),
    (
        "nothing lets the client out",
        |cluster| {
            cluster.add_policy("x", "web", to_web(json!({})));
            cluster.add_policy("y", "closed", json!({"podSelector": {}, "policyTypes": ["Egress"]}));
        },
        &[
            "egress of y/a: no policy allows it",
            "policy closed does not allow it: it has no rule",
            "policy web allows it: spec.ingress[0]",
        ],
        |cluster| {
            let peers = json!({"to": [{"namespaceSelector": {"matchLabels": {"ns": "x"}}}]});
            cluster.add_policy("y", "out", json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [peers]}));
        },
    ),
    (
        "the client's namespace lacks the label",
        |cluster| {
            let red = json!({"namespaceSelector": {"matchLabels": {"team": "red"}}});
            cluster.add_policy("x", "web", to_web(json!({"from": [red]})));
        },
        &["namespaceSelector team=red does not match the namespace of y/a"],
        |cluster| cluster.set_namespace("y", labels(&[("ns", "y"), ("team", "red")])),
    ),
    (
        "the client's range is excepted",
        |cluster| {
            let but = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}});
            cluster.add_policy("x", "web", to_web(json!({"from": [but]})));
        },
        &["is in 10.0.0.0/8, which is excepted", "is not in 0.0.0.0/0"],
        |cluster| {
            let all = ["0.0.0.0/0", "::/0"].map(|cidr| json!({"ipBlock": {"cidr": cidr}}));
            cluster.add_policy("x", "web", to_web(json!({"from": all})));
        },
    ),
];

#[test]
fn a_user_learns_what_keeps_his_pod_from_another_one_and_that_it_is_mended() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let first = policed.cluster().clone();
    for (what, wrong, said, mend) in FAULTS {
        *policed.cluster() = first.clone();
        wrong(policed.cluster());
        policed.enforce();
        assert_packets_pass(&mut policed, false, what);
        let said = [*said, &["is dropped", "kernel: shows what flock-agent wants", "dropped: "]].concat();
        assert_says(&host, "y/a x/a TCP/80", 1, &said);
        mend(policed.cluster());
        policed.enforce();
        assert_packets_pass(&mut policed, true, what);
        let text = assert_says(&host, "y/a x/a tcp/80", 0, &["passes", "kernel: shows what flock-agent wants"]);
        assert!(!text.contains("is dropped"), "{what}: {text}");
    }
}

/// The packets behind these words.
fn packets(text: &str, words: &str) -> u64 {
    let rest = text.split(words).nth(1).unwrap_or_else(|| panic!("no {words:?} in:\n{text}"));
    rest.trim_start()
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no number: {text}"))
}

#[test]
fn packets_that_are_dropped_or_would_be_are_counted_for_each_pod_and_direction() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    policed.cluster().add_policy("x", "closed", json!({"podSelector": {}, "policyTypes": ["Ingress"]}));
    policed.enforce();
    let address = policed.neighbours.ips("x", "a")[0];
    let ping = |policed: &Policed<'_>| policed.neighbours.pods[&key("y", "a")].0.pings(address);
    let line = format!("y/a x/a@{address}");
    assert_eq!(packets(&assert_says(&host, &line, 1, &[]), "dropped: ingress of x/a:"), 0);
    assert!(!ping(&policed));
    assert!(packets(&assert_says(&host, &line, 1, &["a ping from y/a"]), "dropped: ingress of x/a:") > 0);

    // A pod that writes an address into its packets which is not its own.
    let (client, _) = &policed.neighbours.pods[&key("y", "a")];
    client.run("ip addr add 10.99.99.99/32 dev eth0");
    client.script(&format!("ping -c 1 -W 1 -I 10.99.99.99 {address} || true"));
    let line = format!("y/a@10.99.99.99 x/a@{address} ICMP");
    let text =
        assert_says(&host, &line, 1, &["source: y/a may not send as 10.99.99.99, only as", "is not in set src4"]);
    assert!(packets(&text, "dropped: sources that are not of y/a:") > 0, "{text}");

    // The same policies, audited, and what they would drop in the kernel's log.
    let spec = json!({"cidr6": CIDR6, "cidr4": CIDR4, "policy": {"mode": "audit", "log": true}});
    policed.agent.edit_config(&node_config_spec(spec));
    let line = format!("y/a x/a@{address}");
    let audited = || Some(run(&host, &line)).filter(|(code, _)| *code == 0);
    let (_, text) = wait_for("the policies to be audited", audited);
    assert!(text.contains("it passes since the pod is audited") && text.contains("spec.policy.mode: audit"), "{text}");
    let before = packets(&text, "would have been dropped: ingress of x/a:");
    assert!(ping(&policed));
    assert!(packets(&run(&host, &line).1, "would have been dropped: ingress of x/a:") > before);
    let chain = format!("{}/in", policed.neighbours.link("x", "a"));
    let rules = host.run(&format!("nft list chain inet flock {chain}"));
    assert!(
        rules.contains("limit rate 2/second burst 8 packets log prefix \"flock would drop ingress x/a: \""),
        "{rules}"
    );
}

#[test]
fn a_pod_whose_policies_nobody_knows_yet_is_in_quarantine_and_it_is_said() {
    let host = Host::new();
    host.write(&format!("{DIRECTORY}/cluster.yaml"), "kind: [");
    let agent = host.agent().args(&["--policy-dir", DIRECTORY]).start();
    let (one, other) = (host.pod("one"), host.pod("other"));
    let address = host.add(&one).kubernetes("x", "one").result().ipv4().expect("one of IPv4");
    host.add(&other).kubernetes("x", "other").result();
    assert_says(
        &host,
        "x/one x/other",
        1,
        &["nothing passes, since x/one or its policies are not known yet", "chain quarantine"],
    );
    assert!(!other.pings(address));
    super::policed::put(&host, &Cluster::default().documents());
    agent.signal("HUP");
    wait_for("the policies to be known", || (run(&host, "x/other x/one").0 == 0).then_some(()));
    assert!(other.pings(address));
    assert_says(&host, "x/other x/one", 0, &["no policy selects x/one", "kernel: shows what flock-agent wants"]);
}

#[test]
fn tables_that_somebody_keeps_changing_are_said_to_differ() {
    let host = Host::new();
    let policed = Policed::start(&host);
    let flush = || drop(host.command("nft").args(["delete", "table", "inet", "flock"]).stderr(Stdio::null()).status());
    wait_for("the agent to lose patience", || {
        flush();
        policed.agent.log().contains("somebody keeps changing flock's tables").then_some(())
    });
    flush();
    assert_says(
        &host,
        "y/a x/a TCP/80",
        0,
        &["kernel: differs from what flock-agent wants, which it puts back: table inet flock is gone"],
    );
}

#[test]
fn whoever_cannot_be_answered_learns_why() {
    let host = Host::new();
    assert_says(
        &host,
        "a/b node",
        3,
        &["flock-agent does not listen on /run/flock/flock.sock: there is no such socket"],
    );
    assert_says(&host, "nobody node", 2, &["FROM \"nobody\": must be NAMESPACE/POD, "]);
    assert_says(&host, "a/b node --policy-dir /run/none", 2, &["/run/none: No such file"]);
    host.write("/run/bad/x.yaml", "kind: [");
    assert_says(&host, "a/b node --policy-dir /run/bad", 2, &["/run/bad/x.yaml"]);

    // An agent of an earlier version, in its own words, and one of a later.
    let socket = host.path("/run/flock/flock.sock");
    for (answer, said) in [
        (
            r#"{"error":"request refused","code":6,"details":"no request of flock: unknown variant `EXPLAIN`, expected one of `ADD`, `DEL`"}"#,
            "the agent that runs is older than this program",
        ),
        (r#"{"result":{"verdict":"yes"}}"#, "cannot read its answer (missing field `passes`"),
        (r#"{}"#, "cannot read its answer (it says nothing)"),
        ("no JSON", "could not be read"),
    ] {
        fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).expect("bound");
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody");
            let mut piece = [0; 4096];
            assert!(stream.read(&mut piece).expect("a question") > 0);
            stream.write_all(format!("{answer}\n").as_bytes()).expect("taken");
        });
        assert_says(&host, "a/b node", 3, &[said]);
        answering.join().expect("answered");
    }
    fs::remove_file(&socket).expect("removed");

    let _agent = host.agent().start();
    assert_says(&host, "a/b node", 2, &["FROM \"a/b\": no such pod is known to this node"]);
    let said = "note: flock-agent has neither Kubernetes nor --policy-dir, so there are no policies";
    assert_says(&host, "node 192.0.2.7", 0, &["ask on the nodes of the two, if they are pods", said]);
    if !one_user_only() {
        let mut program = host.command("setpriv");
        program.args(["--reuid=65534", "--regid=65534", "--clear-groups", FLOCK_AGENT, "explain", "a/b", "node"]);
        let done = program.output().expect("setpriv (util-linux) starts");
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(4) && text.contains("answers root only"), "{done:?}");
    }
}

#[test]
fn manifests_are_asked_without_an_agent_and_without_root() {
    let host = Host::new();
    let mut cluster = Cluster::of_three();
    for name in ["a", "b"] {
        cluster.pods.insert(key("x", name), Pod { labels: labels(&[("pod", name)]), ..Pod::default() });
    }
    cluster.add_policy("x", "web", to_web(json!({"from": [{"podSelector": {"matchLabels": {"pod": "c"}}}]})));
    host.write("/run/written/cluster.yaml", &cluster.documents());
    host.write("/run/written/service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n");
    let spec = json!({"cidr4": CIDR4, "policy": {"mode": "audit"}});
    host.write("/run/audit.yaml", &node_config_spec(spec));
    let ask = |line: &str| {
        let mut program = host.command("setpriv");
        if !one_user_only() {
            program.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        let done = program.args([FLOCK_AGENT, "explain", "--policy-dir", "/run/written"]).args(line.split(' '));
        let done = done.output().expect("setpriv (util-linux) starts");
        let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        (done.status.code().expect("it ends by itself"), text)
    };
    let line = "x/b@10.0.0.2 x/a@10.0.0.1 TCP/80";
    for (line, code, said) in [
        (line.to_owned(), 1, "podSelector pod=c does not match x/b"),
        (line.to_owned(), 1, "service.yaml: document 1: kind \"Service\" of apiVersion \"v1\" is ignored"),
        (format!("{line} --node-config /run/audit.yaml"), 0, "it passes since the pod is audited"),
        (format!("{line} --node-config /run/none.yaml"), 2, "/run/none.yaml: there is no such file"),
        ("x/b x/a".into(), 2, "FROM \"x/b\": the pod has no address in the files"),
        ("x/c node".into(), 2, "no such pod is known in the files"),
    ] {
        let (ended, text) = ask(&line);
        assert!(ended == code && text.contains(said), "{line}: {ended} instead of {code}, without {said:?}:\n{text}");
    }
}

/// The words of a question.
fn words(probe: &Probe) -> Words {
    let end = |end: &End| match &end.who {
        Who::Pod((namespace, name)) => format!("{namespace}/{name}@{}", end.address),
        Who::Node | Who::Stranger => end.address.to_string(),
    };
    let port = match probe.protocol {
        Protocol::Echo => "ICMP".into(),
        protocol => format!("{}/{}", protocol.name(), probe.port),
    };
    Words { from: end(&probe.from), to: end(&probe.to), port: Some(port) }
}

#[test]
fn what_is_said_is_what_packets_do_and_what_files_alone_say() {
    let seed = seed();
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let addresses: Vec<String> = policed.neighbours.ends().iter().map(|end| end.address.to_string()).collect();
    let probes = policed.neighbours.probes();
    let socket = host.path("/run/flock/flock.sock");
    let mut seen = BTreeSet::new();
    for number in 0..SETS {
        let dice = Dice::new(seed, 1_000_000 + number);
        Chance { dice, plain: false, addresses: &addresses }.change(policed.cluster());
        policed.enforce();
        // The files have the addresses as an API server has them.
        let mut written = policed.cluster().clone();
        for ((namespace, name), pod) in &mut written.pods {
            if policed.neighbours.pods.contains_key(&key(namespace, name)) {
                let status_addresses = policed.neighbours.ips(namespace, name);
                *pod = Pod { status_addresses, ..pod.clone() };
            }
        }
        host.write("/run/written/cluster.yaml", &written.documents());
        let files = Files::read(&host.path("/run/written"), None).expect("manifests");

        let documented: Vec<bool> = probes.iter().map(|probe| allows(policed.cluster(), probe)).collect();
        let packets = policed.neighbours.prober.ask(&probes, &documented);
        seen.extend(documented.iter().copied());
        for (place, (probe, verdict)) in probes.iter().zip(packets).enumerate() {
            let told = || format!("set {number} of {SEED}={seed}: {probe}: {verdict:?}");
            // Files do not say what the node is.
            if [&probe.from, &probe.to].iter().all(|end| end.who != Who::Node) {
                let said = files.explain(&words(probe)).expect("an answer");
                assert!(verdict.is(said.passes), "{}:\n{}", told(), said.text);
            }
            // The agent reads the kernel's tables for each answer.
            if place as u64 % ASKED != number {
                continue;
            }
            let Words { from, to, port } = words(probe);
            let query = Passage { op: QueryOp::Explain, from, to, port };
            let query = Query::Passage(query);
            let response = client::ask(&socket, &query, PATIENCE, Instant::now() + PATIENCE).expect("an answer");
            let result = response.result.unwrap_or_else(|| panic!("{}: {:?}", told(), response.error));
            let said: Explanation = serde_json::from_str(result.get()).expect("an explanation");
            assert!(verdict.is(said.passes), "{}:\n{}", told(), said.text);
            assert!(said.text.contains("kernel: shows what flock-agent wants\n"), "{}:\n{}", told(), said.text);
        }
    }
    assert_eq!(seen.len(), 2, "of all sets together, something passes and something does not, with {SEED}={seed}");
}
