//! The kernel's floor is a floor of flock's only if it makes the same: this compares both ends of a link, as `ip` and `/proc` show them,
//! with those of one that flock has made for the same addresses.

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Kernel;
use super::veth::{Link, Maker};
use crate::call::Verb;
use crate::contestant::Contestant as _;
use crate::flock::Flock;
use crate::host::{Host, Pod, run};

/// How long the kernel may take to settle a new link.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the benchmark with the difference if there is one. `pods` are two that nobody uses.
pub fn check(flock: &Flock, kernel: &Kernel, pods: &[Pod; 2]) {
    let [first, second] = pods;
    let answer = flock.host().inside(|| flock.answer(Verb::Add, first));
    let link = link_of(&answer, first);
    kernel.host().inside(|| Maker::here().add(&link, &second.path));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let [ours, floors] = [(flock.host(), first), (kernel.host(), second)]
            .map(|(host, pod)| [shown(host, &link.name), shown(&pod.inside(), "eth0")].concat());
        let lacks = |these: &[String], those: &[String]| {
            these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
        };
        let (more, less) = (lacks(&ours, &floors), lacks(&floors, &ours));
        if more.is_empty() && less.is_empty() {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "only flock makes:\n{}\nonly the floor makes:\n{}",
            more.join("\n"),
            less.join("\n")
        );
        thread::sleep(Duration::from_millis(20));
    }
    flock.host().inside(|| flock.call(Verb::Del, first));
    kernel.host().inside(|| run(&format!("ip link del {}", link.name)));
}

/// The link of the answer to an ADD.
fn link_of(answer: &Value, pod: &Pod) -> Link {
    let interface = |at: usize| &answer["interfaces"][at];
    let mac = |at: usize| -> [u8; 6] {
        let text = interface(at)["mac"].as_str().expect("a hardware address");
        let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect();
        bytes.try_into().expect("six bytes")
    };
    let mut link = Link {
        name: interface(0)["name"].as_str().expect("a name").to_owned(),
        alias: format!("flock:{}/eth0", pod.container()),
        host_mac: mac(0),
        pod_mac: mac(1),
        ..Link::of(pod.number)
    };
    for address in answer["ips"].as_array().expect("addresses") {
        let text = address["address"].as_str().expect("an address");
        match text.split('/').next().and_then(|ip| ip.parse().ok()).expect("an address") {
            IpAddr::V6(ip) => link.ip6 = ip,
            IpAddr::V4(ip) => link.ip4 = ip,
        }
    }
    link
}

/// Everything that the kernel shows of a link, line by line, but for numbers that no two links share.
fn shown(host: &Host, name: &str) -> Vec<String> {
    host.inside(|| {
        let mut lines = Vec::new();
        for question in
            ["-d link show", "addr show", "-4 -d route show table all", "-6 -d route show table all", "neigh show"]
        {
            let text = run(&format!("ip -o {question} dev {name}"));
            lines.extend(text.lines().map(|line| format!("{question}: {}", without_numbers(line))));
        }
        for family in ["ipv4", "ipv6"] {
            let directory = format!("/proc/sys/net/{family}/conf/{name}");
            for entry in fs::read_dir(&directory).expect("settings").map(|entry| entry.expect("an entry")) {
                let value = fs::read_to_string(entry.path()).unwrap_or_default();
                lines.push(format!("{family} {}={}", entry.file_name().display(), value.trim()));
            }
        }
        lines
    })
}

/// Without the index at the line's beginning, the other end's behind `@`, and the number of its namespace.
fn without_numbers(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if words.first().is_some_and(|word| word.trim_end_matches(':').parse::<u32>().is_ok()) {
        words.remove(0);
    }
    if let Some(at) = words.iter().position(|word| *word == "link-netnsid" || *word == "link-netns") {
        words.drain(at..(at + 2).min(words.len()));
    }
    words.iter().map(|word| word.split("@if").next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::without_numbers;

    #[test]
    fn numbers_that_no_two_links_share_are_left_out() {
        assert_eq!(
            without_numbers("7: eth0@if9: <UP> mtu 1500 link-netnsid 3 numtxqueues 1"),
            "eth0 <UP> mtu 1500 numtxqueues 1"
        );
        assert_eq!(without_numbers("10.0.0.0/8 via 10.0.0.1 metric 7"), "10.0.0.0/8 via 10.0.0.1 metric 7");
    }
}
