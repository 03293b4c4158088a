//! Stories of a node whose kernel is older than this machine's: what older kernels do not know is taken away from the agent's
//! requests, so they are answered as an older kernel answers them. Needs the feature `failpoints` (`make test`).
//!
//! `make test-kernels` boots real ones. These stories are here because they take a second and run everywhere.

use std::fs;

use serde_json::json;

use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR6, node_config};
use crate::support::waiting::wait_for;

/// A new link is acknowledged and not shown, as before Linux 6.2.
const NO_ECHO: &str = "*/netlink.echo * errno 95\n";

/// A host whose kernel shows no new link to whoever makes it, and its agent.
fn old_host() -> Host {
    let host = Host::new();
    host.arm(NO_ECHO);
    host
}

/// The point that takes the echo away was passed, so the story was one of an older kernel.
#[track_caller]
fn assert_old(host: &Host) {
    assert!(host.end_trace().lines().any(|point| point.ends_with("/netlink.echo")), "the echo was never asked for");
}

// covers: FM-K01
#[test]
fn pods_of_a_kernel_without_echo_are_attached_ping_each_other_pass_check_and_are_detached() {
    let host = old_host();
    host.start_trace();
    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let first = host.add(&a).result();
    a.assert_pings(host_addresses());
    let second = host.add(&b).result();
    a.assert_pings(second.ips());
    b.assert_pings(first.ips());
    assert_eq!((first.ips().len(), second.ips().len()), (2, 2));
    host.assert_sound("with two pods");
    for (pod, attached) in [(&a, &first), (&b, &second)] {
        let check = host.cni("CHECK").container(&pod.name).netns(&pod.path()).ifname("eth0");
        check.conf("prevResult", attached.result.clone()).done();
    }
    for _ in 0..2 {
        host.del(&a).done();
        host.del(&b).done();
    }
    host.assert_empty();
    assert_old(&host);
    agent.stop();
}

#[test]
fn an_agent_of_a_kernel_without_echo_is_killed_and_pods_live_on() {
    let host = old_host();
    host.start_trace();
    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let first = host.add(&a).result();
    agent.kill();
    let agent = host.agent().start();
    a.assert_pings(host_addresses());
    let second = host.add(&b).result();
    a.assert_pings(second.ips());
    b.assert_pings(first.ips());
    host.assert_sound("after a restart");
    a.vanish();
    wait_for("the kernel to end the namespace", || (host.flock_links() == [second.host_link()]).then_some(()));
    host.cni("GC").conf("cni.dev/valid-attachments", json!([{"containerID": "b", "ifname": "eth0"}])).done();
    b.assert_pings(host_addresses());
    host.del(&b).done();
    host.assert_empty();
    assert_old(&host);
    agent.stop();
}

#[test]
fn a_kernel_without_echo_says_which_name_is_in_the_way_and_the_next_add_works() {
    let host = old_host();
    host.start_trace();
    let agent = host.agent().start();
    let pod = host.pod("p");
    pod.run("ip link add eth0 type veth peer name other");
    let error = host.add(&pod).error();
    assert!(error.text().contains("eth0"), "{error:?}");
    host.assert_sound("after a refused ADD");
    pod.run("ip link del eth0");
    let attached = host.add(&pod).result();
    pod.assert_pings(host_addresses());
    // The state is lost: ADD finds the link of its own earlier attempt, and makes it anew.
    agent.stop();
    fs::remove_dir_all(host.path("/run/flock/state")).expect("removed");
    host.run(&format!("ip link set {} alias x", attached.host_link()));
    let agent = host.agent().start();
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    host.assert_empty();
    assert_old(&host);
    agent.stop();
}

#[test]
fn an_agent_on_a_kernel_that_is_too_old_says_so_and_ends() {
    let host = Host::new();
    host.write("/run/release", "5.4.0-150-generic\n");
    host.run("mount --bind /run/release /proc/sys/kernel/osrelease");
    let mut agent = host.agent().no_wait().start();
    assert_eq!(agent.wait().code(), Some(1));
    agent.wait_log("this kernel is Linux 5.4.0-150-generic, and flock needs 5.10 or newer");
    assert!(!host.path("/run/flock/flock.sock").exists(), "nobody is let to wait for it");
    // What the release says is all that is looked at.
    host.write("/run/release", "5.10.0-rc1\n");
    host.agent().start().stop();
}

#[test]
fn an_agent_on_a_kernel_without_veth_says_what_to_do_and_serves_once_it_is_there() {
    let host = Host::new();
    // The first request of all asks for it. No kind of link of this name is known.
    host.arm("main/netlink.request 1 errno 95\n");
    let agent = host.agent().start();
    let line = agent.wait_log("kernel lacks what pods need");
    assert!(line.contains(" error ") && line.contains("modprobe veth"), "{line}");
    let pod = host.pod("p");
    host.add(&pod).result();
    host.del(&pod).done();
    // An ADD says it, too. The request that makes the pair is the one behind the echo.
    host.start_trace();
    host.add(&pod).result();
    host.del(&pod).done();
    let trace = host.end_trace();
    let before = trace.lines().take_while(|line| *line != "conn/netlink.echo");
    let nth = before.filter(|line| *line == "conn/netlink.request").count() + 1;
    host.arm(&format!("conn/netlink.request {nth} errno 95\n"));
    let error = host.add(&pod).error();
    assert!(error.code == 999 && error.text().contains("this kernel lacks veth: modprobe veth"), "{error:?}");
    host.disarm();
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    host.assert_empty();
    assert_eq!(agent.stop().matches("kernel lacks what pods need").count(), 1);
}

/// The look that takes the place of the echo fails, in each way that a request can: the ADD is taken back whole.
#[test]
fn a_new_link_that_cannot_be_looked_up_is_taken_back_and_the_next_add_works() {
    let host = old_host();
    let agent = host.agent().config(Some(&node_config(CIDR6, "10.25.0.0/16"))).start();
    let pod = host.pod("p");
    // The first ADD prepares the host as well.
    host.add(&pod).result();
    host.del(&pod).done();
    host.start_trace();
    host.add(&pod).result();
    let trace = host.end_trace();
    let requests: Vec<&str> = trace.lines().filter(|line| line.starts_with("conn/netlink.")).collect();
    let echo = requests.iter().position(|line| line.ends_with("netlink.echo")).expect("passed");
    let nth = |point: &str, behind: usize| {
        let before = requests[..echo].iter().filter(|line| line.ends_with(point)).count();
        before + behind
    };
    host.del(&pod).done();
    let faults = [
        ("netlink.request", "errno 105"),
        ("netlink.request", "errno 1"),
        ("netlink.request", "errno 19"),
        ("netlink.send", "errno 105"),
        ("netlink.receive", "errno 105"),
        ("netlink.receive", "late"),
    ];
    for (point, fault) in faults {
        // The first behind the echo is the request for the pair, the second the look.
        host.arm(&format!("{NO_ECHO}conn/{point} {} {fault}\n", nth(point, 2)));
        let error = host.add(&pod).error();
        let words = if fault == "errno 19" { "the new link is not there" } else { "look up link " };
        assert!(error.text().contains(words), "{point} {fault}: {error:?}");
        host.assert_sound(&format!("after {point} {fault}"));
        assert_eq!(host.flock_links(), Vec::<String>::new(), "{point} {fault}");
        host.arm(NO_ECHO);
        host.add(&pod).result();
        pod.assert_pings(host_addresses());
        host.del(&pod).done();
    }
    host.assert_empty();
    agent.stop();
}
