//! What docs/policy.md tells an operator to write and to run does what the page says. Must not know more of the page than its
//! blocks.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use flock::kernel::netns::Netns;
use model::nodeconfig::parse;

use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::outcome::Attached;
use crate::support::page;
use crate::support::pod::Pod;
use crate::support::waiting::{PATIENCE, wait_for};

const PAGE: &str = include_str!("../../docs/policy.md");

fn block(heading: &str, language: &str) -> String {
    page::block(PAGE, heading, language)
}

/// The command lines of that block, without what is said of them.
fn commands(heading: &str) -> Vec<String> {
    let block = block(heading, "sh");
    block.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect()
}

/// How many packets to the pod were dropped by its policies.
fn dropped(host: &Host, to: &Attached) -> u64 {
    let chain = host.run(&format!("nft list chain inet flock {}/in", to.host_link()));
    let count = chain.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.expect("a counter").parse().expect("a number")
}

/// Whether somebody there reaches the pod at this port.
fn reaches(from: &Path, to: IpAddr, port: u16, patience: Duration) -> bool {
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(to, port), patience).is_ok();
    Netns::open(from).expect("a namespace").run(connect).expect("entered")
}

#[test]
fn the_policies_of_the_page_let_by_whom_it_says_and_the_commands_show_it() {
    let host = Host::new();
    host.write("/run/policies/shop.yaml", &block("Without Kubernetes", "yaml"));
    let outside = host.machine(
        "outside0",
        &["192.0.2.1/24", "2001:db8:9::1/64", "fe80::1:1/64"],
        &["192.0.2.9/24", "2001:db8:9::9/64", "fe80::1:2/64"],
    );
    outside.run("ip route add default via 192.0.2.1");
    outside.run("ip -6 route add default via 2001:db8:9::1");
    let _agent = host.agent().args(&["--policy-dir", "/run/policies"]).start();
    let attach = |name: &str| {
        let pod = host.pod(name);
        let attached = host.add(&pod).kubernetes("shop", name).result();
        (pod, attached)
    };
    let (db, at): (Pod<'_>, Attached) = attach("db");
    let ((web, _), (other, _)) = (attach("web"), attach("other"));
    wait_for("the policy to be in force", || {
        let ways = host.run("nft list map inet flock in");
        ways.contains(&format!("\"{}\" : goto {}/in", at.host_link(), at.host_link())).then_some(())
    });
    let listen = || [5432, 5433].map(|port| TcpListener::bind(("::", port)).expect("a free port"));
    let _listening = Netns::open(&db.netns()).expect("a namespace").run(listen).expect("entered");
    for ip in at.ips() {
        assert!(reaches(&web.netns(), ip, 5432, PATIENCE), "web at {ip}");
        assert!(reaches(&outside.netns(), ip, 5432, PATIENCE), "backup at {ip}");
        for (what, from, port) in [("web by another port", &web, 5433), ("another pod", &other, 5432)] {
            let before = dropped(&host, &at);
            assert!(!reaches(&from.netns(), ip, port, Duration::from_millis(50)), "{what} at {ip}");
            assert!(dropped(&host, &at) > before, "{what} at {ip} is counted");
        }
    }
    let printed: Vec<String> = commands("Reading the table").iter().map(|line| host.run(line)).collect();
    assert_eq!(printed[1], block("Reading the table", "text"));
    commands("What a pod may send").iter().for_each(|line| drop(host.run(line)));
}

#[test]
fn the_masquerade_of_the_page_and_its_switches_are_in_force_as_it_says() {
    let host = Host::new();
    let agent = host.agent().config(Some(&block("Masquerade", "yaml"))).start();
    let (_pod, attached) = host.attach("p");
    let shown = |table: &str| host.run("nft list tables").lines().any(|line| line == format!("table {table}"));
    wait_for("the table", || shown("ip flock_masquerade").then_some(()));
    assert!(!shown("ip6 flock_masquerade"));
    assert!(host.run("nft list table ip flock_masquerade").contains("192.168.0.0/16"));
    // What may be left out is as the page writes it.
    let switches = block("What a pod may send and receive", "yaml");
    let whole = format!("{}spec:\n  cidr4: 10.25.214.0/24\n{}", head(), switches.replace("spec:", "#"));
    let (written, silent) = (parse(&whole), parse(format!("{}spec: {{cidr4: 10.25.214.0/24}}\n", head())));
    assert_eq!(written.expect("valid").policing, silent.expect("valid").policing);
    agent.edit_config(&whole);
    wait_for("it to be switched off", || (!shown("ip flock_masquerade")).then_some(()));
    assert!(host.run("nft list set inet flock links").contains(&attached.host_link()));
}

/// What each NodeConfig begins with.
fn head() -> String {
    let page = block("Masquerade", "yaml");
    page.split("spec:").next().unwrap_or_default().to_owned()
}
