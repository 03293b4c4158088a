//! What the journal has of the agent: priorities, by which an operator finds what somebody has to look at, and one clock.

use serde_json::Value;

use crate::support::host::Host;
use crate::support::waiting::wait_for;

/// What `journalctl` shows of the agent with these arguments.
fn journal(host: &Host, arguments: &str) -> String {
    host.ask(&format!("journalctl --no-pager --quiet --output cat --unit flock-agent {arguments}"))
}

#[test]
fn warnings_are_found_in_the_journal_by_their_priority() {
    let host = Host::with_units();
    let journald = ["service", "socket"].map(|kind| format!("/lib/systemd/system/systemd-journald.{kind}"));
    host.run(&format!("install -m 0644 -t /etc/systemd/system -- {}", journald.join(" ")));
    host.adapt("flock-agent.service", "log", "[Service]\nStandardError=journal\n");
    host.systemctl("start systemd-journald.service");
    host.systemctl("enable --now flock-agent");
    let pod = host.pod("p");
    host.add(&pod).result();
    host.add(&pod).error();
    wait_for("the refusal to be in the journal", || journal(&host, "").contains("request failed").then_some(()));
    let (all, warnings) = (journal(&host, ""), journal(&host, "--priority warning"));
    assert!(all.contains("info  request served op=ADD cid=p ifname=eth0 pod=default/p"), "{all}");
    assert!(warnings.contains("warn  request failed op=ADD cid=p ifname=eth0 pod=default/p"), "{warnings}");
    assert!(!warnings.contains("request served") && !warnings.contains("flock-agent listens"), "{warnings}");
    assert!(all.lines().all(|line| !line.starts_with(['2', '<'])), "a second clock, or a priority as text: {all}");
    let entries = host.ask("journalctl --no-pager --quiet --output json --unit flock-agent");
    let entries: Vec<Value> = entries.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let priority = |text: &str| {
        let entry = entries.iter().find(|entry| entry["MESSAGE"].as_str().is_some_and(|said| said.contains(text)));
        entry.map(|entry| entry["PRIORITY"].clone())
    };
    assert_eq!((priority("request failed"), priority("request served")), (Some("4".into()), Some("6".into())));
    // And what goes along with a report about a defect.
    host.ask("flock-agent diag -o /run/diag.tar");
    let sent = host.ask("tar -xOf /run/diag.tar flock-diag/log.txt");
    assert!(sent.contains("request failed op=ADD cid=p") && sent.contains("flock-agent listens"), "{sent}");
}
