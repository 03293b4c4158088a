//! `flock-agent pods` tells whose links stand here, whether or not an agent runs, and changes nothing.

use std::fs;

use serde_json::Value;

use crate::support::host::{Host, one_user_only};
use crate::support::waiting::wait_or;

/// Pods of a node that is as full as kubelet makes it in the usual case.
const MANY: usize = 250;

/// The rows of a table, each by its cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .map(|line| line.split("   ").map(|cell| cell.trim().to_owned()).filter(|c| !c.is_empty()).collect())
        .collect()
}

/// The state of each attachment by its container.
fn states(all: &Value) -> Vec<(String, String)> {
    let text = |pod: &Value, key: &str| pod[key].as_str().expect("a text").to_owned();
    let pods = all["pods"].as_array().expect("a list");
    pods.iter().map(|pod| (text(pod, "containerId"), text(pod, "state"))).collect()
}

#[test]
fn pods_are_listed_with_an_agent_after_its_death_and_after_a_kill() {
    let host = Host::new();
    let empty = host.types("pods");
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert!(
        empty.err.contains("flock-agent does not run") && empty.err.contains("/run/flock/state is missing"),
        "{empty:?}"
    );
    let agent = host.agent().start();
    let none = host.types("pods");
    assert_eq!((none.code, none.err.as_str()), (0, "flock-agent: pods: no pod has an interface of flock here\n"));
    let attached = host.attach_all(["b", "a"]);
    let running = host.types("pods");
    assert_eq!((running.code, running.err.as_str()), (0, ""));
    let ips = |at: usize| attached[at].1.ips().into_iter().map(|ip| ip.to_string());
    let row = |name: &str, at: usize| -> Vec<String> {
        let cells = ["default".to_owned(), name.into(), "eth0".into()].into_iter().chain(ips(at));
        cells.chain([attached[at].1.host_link()]).collect()
    };
    let table = rows(&running.out);
    assert_eq!(table[0], ["NAMESPACE", "POD", "IF", "IPV6", "IPV4", "LINK", "AGE", "STATE"]);
    assert_eq!((&table[1][..6], &table[2][..6]), (&row("a", 1)[..], &row("b", 0)[..]), "sorted");
    assert!(table[1..].iter().all(|row| row[7] == "committed" && row[6].ends_with('s')), "{table:?}");
    assert_eq!(rows(&host.types("pods --no-headers").out)[0][..6], table[1][..6]);
    assert_eq!(host.types("pods -o name").out, "default/a\ndefault/b\n");
    assert_eq!(host.types("pods -n other").out, "");
    let json = host.types("pods --output=json").json();
    assert_eq!((json["agent"].as_str(), json["pods"][0]["pod"].as_str()), (Some("running"), Some("a")));

    agent.kill();
    let down = host.types("pods");
    let cells = |text: &str| rows(text).into_iter().map(|mut row| (row.remove(6), row).1).collect::<Vec<_>>();
    assert_eq!((down.code, cells(&down.out)), (0, cells(&running.out)), "all but the age");
    assert_eq!(
        down.err,
        "flock-agent: pods: flock-agent does not run: this is what it has recorded, and what links show\n"
    );
    assert_eq!(host.types("pods -o json").json()["agent"], "down");
}

#[test]
fn deletes_that_wait_links_that_are_gone_and_links_without_a_record_are_told() {
    let host = Host::new();
    let agent = host.agent().start();
    let attached = host.attach_all(["noted", "cut", "lost", "fine"]);
    agent.kill();
    host.del(&attached[0].0).done();
    host.run(&format!("ip link del {}", attached[1].1.host_link()));
    let log = host.path("/run/flock/state/leases.log");
    let whole = fs::read(&log).expect("a log");
    let before = host.fingerprint();
    let told = |text: &str, state: &str| (text.to_owned(), state.to_owned());
    assert_eq!(
        states(&host.types("pods -o json").json()),
        [
            told("cut", "link missing"),
            told("fine", "committed"),
            told("lost", "committed"),
            told("noted", "delete noted")
        ]
    );
    // Half a line, as a kill in mid-write leaves it, and then none at all.
    fs::write(&log, &whole[..whole.len() - 9]).expect("writable");
    let torn = host.types("pods -o json").json();
    assert_eq!(torn["remarks"], Value::Array(vec![]), "half a line is nobody's yet");
    fs::remove_file(&log).expect("removable");
    let without = host.types("pods -o json").json();
    assert_eq!(
        states(&without),
        [told("fine", "not recorded"), told("lost", "not recorded"), told("noted", "delete noted")]
    );
    let of = |name: &str| attached.iter().find(|(pod, _)| pod.name == name).expect("one").1.ipv4().expect("IPv4");
    assert_eq!(without["pods"][0]["ipv4"], of("fine").to_string(), "the link shows its addresses");
    fs::write(&log, &whole).expect("writable");
    assert_eq!(host.fingerprint(), before, "nothing was changed by looking");
    assert_eq!(fs::read(&log).expect("a log"), whole);
}

#[test]
fn the_record_is_for_root_only_and_that_is_said() {
    if one_user_only() {
        return;
    }
    let host = Host::new();
    let _agent = host.agent().start();
    let told = host.types_as_nobody("pods");
    assert_eq!((told.code, told.out.as_str()), (4, ""));
    assert!(told.err.contains("is for root only: sudo flock-agent"), "{told:?}");
}

#[test]
fn a_node_full_of_pods_is_told_whole_and_while_pods_come_and_go_nothing_is_told_wrong() {
    let host = Host::new();
    let agent = host.agent().config(Some(&crate::support::manifests::node_config("", "10.25.0.0/16"))).start();
    let names: Vec<String> = (0..MANY).map(|number| format!("p{number:03}")).collect();
    let attached = host.attach_all(&names);
    let told = host.types("pods --no-headers");
    let table = rows(&told.out);
    assert_eq!((told.code, table.len()), (0, MANY));
    for (row, (pod, attached)) in table.iter().zip(&attached) {
        assert_eq!(
            (&row[1], &row[4], &row[5]),
            (&pod.name, &attached.ipv4().expect("IPv4").to_string(), &attached.host_link())
        );
        assert_eq!(row[7], "committed");
    }
    println!("pods of {MANY}: {:?}; status: {:?}", told.elapsed, host.types("status").elapsed);
    // Deletes are under way while the table is made.
    let mut going: Vec<_> = attached.iter().take(8).map(|(pod, _)| host.del(pod).launch()).collect();
    for _ in 0..4 {
        let all = states(&host.types("pods -o json").json());
        assert!(all.iter().all(|(_, state)| state != "not recorded"), "{all:?}");
    }
    going.iter_mut().for_each(|child| drop(child.wait()));
    wait_or(|| host.types("pods").out, || (rows(&host.types("pods --no-headers").out).len() == MANY - 8).then_some(()));
    agent.stop();
}
