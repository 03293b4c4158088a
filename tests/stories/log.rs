//! What an operator reads in the log: the whole life of a pod by its name, states that last on change only, storms with their count.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config};

/// The messages of the lines of a pod, each once for as long as it is repeated.
fn life(log: &str, pod: &str) -> Vec<String> {
    let key = format!(" pod={pod} ");
    let of_pod = log.lines().map(|line| format!("{line} ")).filter(|line| line.contains(&key));
    // Where the time of each request went is no event of its life.
    let of_pod = of_pod.filter(|line| !line.contains(" step taken "));
    // Time and level come first, and the fields behind the message.
    let message = |line: String| {
        let words: Vec<&str> = line.split_whitespace().skip(2).take_while(|word| !word.contains('=')).collect();
        words.join(" ")
    };
    let mut messages: Vec<String> = of_pod.map(message).collect();
    messages.dedup();
    messages
}

/// Every line about a container has the same keys.
fn assert_same_keys(log: &str) {
    for line in log.lines().filter(|line| line.contains(" cid=")) {
        assert!(line.contains(" ifname=eth0") && line.contains(" pod="), "{line}");
    }
}

#[test]
fn a_pod_s_whole_life_is_found_by_its_name() {
    let host = Host::new();
    let agent = host.agent().start();
    let (noted, collected, vanished) = (host.pod("noted"), host.pod("collected"), host.pod("vanished"));
    let attached = host.add(&noted).annotations(&[("colour", "red")]).kubernetes("shop", "noted").result();
    host.add(&collected).kubernetes("shop", "collected").result();
    host.add(&vanished).kubernetes("shop", "vanished").result();

    // A second ADD is refused, and somebody takes a route away.
    host.add(&noted).kubernetes("shop", "noted").error();
    let route = attached.ips().into_iter().find(|ip| ip.is_ipv4()).expect("an address");
    host.run(&format!("ip route del {route}/32"));
    agent.wait_log("host end of a link repaired");

    // The runtime knows one of them no more, and its process has ended; of another nobody says anything.
    collected.script("ip link set eth0 down");
    let valid = json!([
        {"containerID": "noted", "ifname": "eth0"},
        {"containerID": "vanished", "ifname": "eth0"}
    ]);
    host.cni("GC").conf("cni.dev/valid-attachments", valid).done();
    vanished.vanish();
    agent.signal("HUP");
    agent.signal("HUP");
    agent.wait_log("lease of a vanished pod ended");

    // A DEL that finds no agent, without a word about the pod.
    let first = agent.stop();
    host.del(&noted).no_env("CNI_ARGS").done();
    let agent = host.agent().start();
    agent.wait_log("noted delete carried out");
    let log = first + &agent.stop();

    let told = [
        "annotation ignored",
        "request served",
        "request failed",
        "host end of a link lacks what flock gave it",
        "host end of a link repaired",
        "noted delete carried out",
    ];
    assert_eq!(life(&log, "shop/noted"), told, "{log}");
    let told = ["request served", "attachment removed that the runtime does not know"];
    assert_eq!(life(&log, "shop/collected"), told, "{log}");
    assert_eq!(life(&log, "shop/vanished"), ["request served", "lease of a vanished pod ended"], "{log}");
    assert_same_keys(&log);
    host.assert_empty();
}

#[test]
fn a_delete_names_the_pod_that_the_lease_was_made_for() {
    let host = Host::new();
    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    host.add(&a).kubernetes("shop", "a").result();
    host.cni("CHECK").container("b").kubernetes("shop", "b").ifname("eth0").netns(&b.path()).run();
    host.del(&a).no_env("CNI_ARGS").done();
    // Nothing is known of this one but what the runtime says.
    host.del(&b).kubernetes("shop", "b").done();
    let log = agent.stop();
    let of = |verb: &str| log.lines().filter(|line| line.contains(&format!(" op={verb} "))).collect::<Vec<_>>();
    assert!(of("DEL")[0].contains(" cid=a ifname=eth0 pod=shop/a addr="), "{log}");
    assert!(of("DEL")[1].contains(" cid=b ifname=eth0 pod=shop/b ms="), "{log}");
    assert_same_keys(&log);
}

#[test]
fn every_line_of_a_json_log_is_one_object_with_its_time_first_and_numbers_as_numbers() {
    let host = Host::new();
    let agent = host.agent().args(&["--log-format", "json"]).start();
    let pod = host.pod("p");
    let attached = host.add(&pod).annotations(&[("colour", "\"red\"\n")]).result();
    host.add(&pod).error();
    host.del(&pod).done();
    let log = agent.stop();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    assert!(lines.iter().all(|line| ["time", "level", "msg"].iter().all(|key| line[key].is_string())), "{log}");
    assert!(log.lines().all(|line| line.starts_with("{\"time\":\"20") && line.contains("Z\",\"level\":\"")), "{log}");
    let of = |msg: &str| lines.iter().find(|line| line["op"] == "ADD" && line["msg"] == msg).expect("a line for ADD");
    let add = of("request served");
    assert_eq!((&add["cid"], &add["ifname"], &add["pod"]), (&json!("p"), &json!("eth0"), &json!("default/p")));
    assert!(attached.ips().iter().all(|ip| add["addr"].as_str().is_some_and(|text| text.contains(&ip.to_string()))));
    assert!(add["ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 60_000.0), "{add}");
    assert_eq!((&of("request failed")["code"], &of("request failed")["step"]), (&json!(4), &json!("reserve")));
    let served = log.lines().find(|line| line.contains("\"op\":\"ADD\"") && line.contains("\"addr\"")).expect("a line");
    let places: Vec<usize> = ["op", "cid", "ifname", "pod", "addr", "ms"]
        .iter()
        .map(|key| served.find(&format!("\"{key}\":")).unwrap())
        .collect();
    assert!(places.is_sorted(), "{served}");
}

#[test]
fn a_state_that_lasts_is_told_when_it_begins_and_when_it_ends() {
    let host = Host::new();
    let agent = host.agent().config(None).args(&["--cni-conf-dir", "/run/missing"]).start();
    for _ in 0..3 {
        host.cni("STATUS").error();
    }
    agent.edit_config(&node_config(CIDR6, CIDR4));
    agent.wait_log("CNI configuration cannot be written");
    host.cni("STATUS").done();
    host.cni("STATUS").done();
    // Looked at again and again.
    agent.rounds_of("reconcile/compare", 2);
    host.run("mkdir /run/missing");
    agent.wait_log("CNI configuration can be written again");
    let log = agent.stop();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let one = |text: &str| match lines(text)[..] {
        [line] => line,
        ref lines => panic!("{text}: {lines:?}"),
    };
    assert!(one("pods cannot be served").contains(" warn  pods cannot be served op=STATUS err="), "{log}");
    assert!(one("pods can be served again").ends_with(" tries=3"), "{log}");
    let unwritten = one("CNI configuration cannot be written");
    assert!(unwritten.contains("the directory /run/missing is missing") && !unwritten.contains("tmp"), "{unwritten}");
    assert!(one("CNI configuration can be written again").contains(" after="), "{log}");
    assert!(lines("op=STATUS").len() == 2, "{log}");
}

#[test]
fn a_storm_is_cut_and_its_end_says_how_much_is_missing() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    for _ in 0..15 {
        host.add(&pod).annotations(&[("ipv4", "perhaps")]).error();
    }
    let line = agent.wait_log("more lines of this kind were held back");
    assert!(line.contains(" warn  ") && line.ends_with(" kind=\"request failed\" held_back=5"), "{line}");
    // What is held back at the end of the process is said as well.
    for _ in 0..13 {
        host.add(&pod).annotations(&[("ipv4", "perhaps")]).error();
    }
    let log = agent.stop();
    assert_eq!(log.lines().filter(|line| line.contains("request failed")).count() - 2, 20, "{log}");
    assert!(log.lines().any(|line| line.ends_with(" kind=\"request failed\" held_back=3")), "{log}");
}

#[test]
fn the_journal_gets_priorities_and_only_where_it_is_the_journal() {
    let host = Host::new();
    // What systemd says of the standard error that it has made, and what is left of that in an environment.
    let file = host.path("/run/journal");
    let log = |stream: &dyn Fn(&fs::Metadata) -> String, arguments: &str| {
        let stderr = fs::File::create(&file).expect("made");
        let stream = stream(&stderr.metadata().expect("there"));
        let mut agent = host.command(crate::support::programs::FLOCK_AGENT);
        agent.args(arguments.split_whitespace()).env("JOURNAL_STREAM", stream).stderr(stderr);
        assert!(!agent.status().expect("ends").success());
        fs::read_to_string(&file).expect("text")
    };
    let here = |file: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt as _;
        format!("{}:{}", file.dev(), file.ino())
    };
    let elsewhere = |_: &fs::Metadata| "1:2".to_owned();
    let starts: BTreeMap<&str, [String; 2]> = ["--node-config /run/n --state-dir /proc/x", "--nonsense"]
        .map(|arguments| (arguments, [log(&here, arguments), log(&elsewhere, arguments)]))
        .into();
    for [journal, file] in starts.values() {
        assert!(journal.lines().all(|line| line.starts_with("<3>")), "{journal}");
        assert!(!file.is_empty() && !file.contains("<3>"), "{file}");
    }
    assert!(
        starts.values().any(|[journal, _]| journal.starts_with("<3>error flock-agent cannot run err=")),
        "{starts:?}"
    );
}

/// The text of all sources, with the line ends taken out that stand inside of texts and before what a function is given.
fn sources() -> String {
    let mut directories = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut all = String::new();
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory).expect("readable").map(|entry| entry.expect("an entry").path()) {
            match path.is_dir() {
                true => directories.push(path),
                false => all += &fs::read_to_string(&path).unwrap_or_default(),
            }
        }
    }
    let joined = |text: &str, end: &str| {
        text.split(&format!("{end}\n")).map(str::trim_start).collect::<Vec<_>>().join(end.trim_end_matches('\\'))
    };
    joined(&joined(&all, "\\"), "(")
}

#[test]
fn the_lines_that_the_page_of_symptoms_shows_are_the_agent_s_own() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
    let (page, sources) = (fs::read_to_string(path).expect("text"), sources());
    let mut shown = 0;
    for (level, line) in page.lines().filter_map(|line| line.split_once(' ')) {
        if !["error", "warn", "info"].contains(&level) {
            continue;
        }
        // The fields stand behind the message.
        let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.contains('=')).collect();
        let literal = format!("\"{}\"", words.join(" "));
        let says = ["advice(", "Line::new(Level::Warn, ", "Line::new(self.level, "];
        let says = says.map(|call| format!("{call}{literal}")).into_iter().chain([format!("log::{level}({literal}")]);
        assert!(says.into_iter().any(|call| sources.contains(&call)), "no source says {literal} at level {level}");
        shown += 1;
    }
    assert!(shown > 40, "{shown}");
    // What stands first in a row of a table is what an operator has read somewhere.
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default();
        for words in cell.split('`').skip(1).step_by(2) {
            assert!(sources.contains(words), "no source says {words:?}");
        }
    }
}
