//! Rules that no other story would notice the breach of: each was broken once by a small wrong change (`make mutants`), and
//! every test stayed green.

use std::fs;
use std::time::Instant;

use cni::verb::Verb;
use flock::rpc::client;
use flock::rpc::message::Request;
use serde_json::json;

use crate::support::host::{HOST4, Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::pod::Pod;
use crate::support::waiting::{PATIENCE, wait_for};

/// A delete whose caller finds nobody, while the agent runs.
fn noted_delete(host: &Host, pod: &Pod<'_>) {
    let socket = host.path("/run/flock/flock.sock");
    fs::rename(&socket, host.path("/run/flock/aside")).expect("renamed");
    host.del(pod).done();
    fs::rename(host.path("/run/flock/aside"), &socket).expect("renamed");
}

#[test]
fn a_container_whose_delete_was_promised_while_the_agent_was_busy_can_be_attached_again_at_once() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    noted_delete(&host, &pod);
    let attached = host.add(&pod).result();
    // The note is read in a round, and means what stood before it.
    agent.rounds(2);
    assert_eq!(host.leases().len(), 1);
    assert_eq!(host.notes(), 0);
    assert_eq!(host.leases()[0].ipv6.map(Into::into), attached.ipv6());
    pod.assert_pings(host_addresses());
    assert_eq!(host.add(&pod).error().code, 4, "what was not deleted is refused as ever");
}

#[test]
fn a_pod_whose_link_is_missed_once_keeps_its_addresses_until_the_next_round() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    host.start_trace();
    host.arm("reconcile/links.listed 2 hang 60000\n");
    pod.vanish();
    wait_for("the link to go with its namespace", || host.flock_links().is_empty().then_some(()));
    agent.signal("HUP");
    host.wait_point("reconcile/links.listed", 1);
    // It waits until the first round is over, and is held up once it has begun.
    agent.signal("HUP");
    host.wait_point("reconcile/links.listed", 2);
    assert_eq!(host.leases().len(), 1, "one round alone may have looked at the wrong moment");
    host.disarm();
    wait_for("the end of the lease", || {
        agent.signal("HUP");
        host.leases().is_empty().then_some(())
    });
    host.assert_empty();
}

#[test]
fn a_loss_that_the_kernel_announces_is_looked_at_without_waiting_for_a_round() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    let attached = host.add(&pod).result();
    host.start_trace();
    host.run(&format!("ip route del {}", attached.ipv4().expect("IPv4")));
    host.wait_point("reconcile/links.suspected", 1);
    agent.wait_log("host end of a link repaired");
    pod.assert_pings(host_addresses());
}

#[test]
fn an_add_that_does_not_mark_its_call_is_never_taken_for_a_repeated_one() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let add = Request {
        op: Verb::Add,
        container_id: "p".into(),
        netns: pod.path(),
        ifname: "eth0".into(),
        args: String::new(),
        path: "/opt/cni/bin".into(),
        stdin_data: host.add(&pod).input(),
        call: None,
        left_ms: None,
        sent_ms: None,
    };
    let call = |request: &Request| {
        client::call(&host.path("/run/flock/flock.sock"), request, Instant::now() + PATIENCE).expect("an answer")
    };
    let first = call(&add);
    assert!(first.error.is_none() && first.result.is_some(), "{first:?}");
    let second = call(&add);
    let error = second.error.expect("a pod that runs is not attached twice");
    assert!(error.contains("attached already"), "{error}");
    // A mark that is another one's is as good as none.
    let third = call(&Request { call: Some("another".into()), ..add.clone() });
    assert!(third.error.is_some_and(|error| error.contains("attached already")));
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    host.assert_empty();
}

#[test]
fn check_fails_while_an_address_of_the_pod_cannot_be_used_yet() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let attached = host.add(&pod).result();
    let check =
        host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0").conf("prevResult", attached.result.clone());
    check.done();
    let ip = attached.ipv6().expect("IPv6");
    // As somebody does who flushes the pod's addresses and gives them again in the ordinary way; here it takes long.
    pod.script(&format!(
        "cd /proc/sys/net/ipv6/conf/eth0; echo 1 >accept_dad; echo 1000 >dad_transmits; ip addr del {ip}/128 dev eth0; \
         ip addr add {ip}/128 dev eth0"
    ));
    assert!(pod.run("ip addr show dev eth0 tentative").contains(&ip.to_string()));
    let error = check.error();
    assert!(error.text().contains(&format!("lacks the address {ip}")), "{error:?}");
}

#[test]
fn packets_of_the_host_to_a_pod_come_from_an_address_of_the_host() {
    let host = Host::new();
    let _agent = host.agent().start();
    let attached = host.add(&host.pod("p")).result();
    let route = host.run(&format!("ip route get {}", attached.ipv4().expect("IPv4")));
    assert!(route.contains(&format!("src {HOST4} ")), "{route}");
    let scopes = host.run(&format!("ip -4 -o addr show dev {}", attached.host_link()));
    assert!(scopes.contains("169.254.1.1/32 scope host"), "{scopes}");
}

#[test]
fn any_other_route_to_the_nodes_ranges_wins_over_flocks_own() {
    let host = Host::new();
    let _agent = host.agent().start();
    host.add(&host.pod("p")).result();
    host.run("ip link add lan type veth peer name far");
    host.run("ip link set lan up");
    host.run("ip link set far up");
    for (family, range) in [("-4", CIDR4), ("-6", CIDR6)] {
        let routes = host.run(&format!("ip {family} route show type unreachable"));
        assert!(routes.contains(range), "{routes}");
        // Worse than what any routing daemon would make.
        host.run(&format!("ip {family} route add {range} dev lan metric 4000000"));
    }
    for (family, unused) in [("-4", "10.25.214.200"), ("-6", "2001:db8:1:f001::200")] {
        let way = host.run(&format!("ip {family} route get {unused}"));
        assert!(way.contains("dev lan"), "{way}");
    }
}

#[test]
fn an_edited_node_config_counts_only_once_the_host_is_ready_for_it() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config("", CIDR4))).start();
    host.add(&host.pod("before")).result();
    host.start_trace();
    host.arm("node/sysctl.write * hang 60000\n");
    agent.edit_config(&node_config(CIDR6, CIDR4));
    host.wait_point("node/sysctl.write", 1);
    let meanwhile = host.add(&host.pod("meanwhile")).result();
    assert_eq!(meanwhile.ipv6(), None, "nothing forwards IPv6 yet");
    host.disarm();
    agent.wait_log_times("NodeConfig in force", 2);
    let after = host.pod("after");
    let attached = host.add(&after).result();
    assert!(attached.ipv6().is_some() && attached.ipv4().is_some());
    after.assert_pings(host_addresses());
}

#[test]
fn a_delete_that_cannot_remove_the_link_fails_and_keeps_the_addresses() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    host.arm("remove/netlink.request * errno 5\nremove/netlink.send * errno 5\n");
    let error = host.del(&pod).error();
    assert_ne!(error.code, 0);
    assert_eq!((host.leases().len(), host.flock_links().len()), (1, 1), "{error:?}");
    pod.assert_pings(host_addresses());
    host.disarm();
    host.del(&pod).done();
    host.assert_empty();
}

#[test]
fn a_delete_that_was_promised_stays_promised_until_it_is_done() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    noted_delete(&host, &pod);
    host.start_trace();
    host.arm("remove/netlink.request * errno 5\nremove/netlink.send * errno 5\n");
    agent.signal("HUP");
    agent.wait_log("noted delete failed");
    host.wait_point("reconcile/links.listed", 1);
    assert_eq!((host.notes(), host.leases().len()), (1, 1));
    host.disarm();
    agent.signal("HUP");
    wait_for("the note to be carried out", || (host.notes() == 0).then_some(()));
    host.assert_empty();
}

#[test]
fn garbage_collection_leaves_an_attachment_that_was_made_anew_after_it_began() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    host.add(&pod).result();
    host.start_trace();
    // The DEL has the attachment, the ADD waits behind it, and the GC, which has seen the old lease, behind both.
    host.arm("conn/unwire 1 hang 60000\n");
    let mut del = host.del(&pod).launch();
    host.wait_point("conn/unwire", 1);
    let mut add = host.add(&pod).launch();
    host.wait_point("conn/intent", 1);
    let mut gc = host.cni("GC").conf("cni.dev/valid-attachments", json!([])).launch();
    host.wait_point("conn/compare", 1);
    host.disarm();
    assert!(del.wait().expect("waitable").success());
    assert!(add.wait().expect("waitable").success());
    assert!(gc.wait().expect("waitable").success(), "what is newer than the list is no fault of it");
    assert_eq!(host.leases().len(), 1);
    pod.assert_pings(host_addresses());
}

#[test]
fn garbage_collection_removes_what_is_dead_though_its_link_stands() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let attached = host.add(&pod).result();
    pod.run("ip link set eth0 down");
    let link = format!("ip -o link show dev {}", attached.host_link());
    wait_for("the carrier to go", || host.run(&link).contains("NO-CARRIER").then_some(()));
    host.cni("GC").conf("cni.dev/valid-attachments", json!([])).done();
    host.assert_empty();
}

#[test]
fn check_fails_where_the_runtime_remembers_the_interface_of_another_namespace() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let mut result = host.add(&pod).result().result;
    result["interfaces"][1]["sandbox"] = json!("/run/netns/other");
    let error = host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0").conf("prevResult", result).error();
    assert!(error.text().contains("prevResult has no interface eth0 in /run/netns/p"), "{error:?}");
}

#[test]
fn an_add_whose_end_cannot_be_recorded_leaves_nothing() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    // The first record is that of its addresses, the second that it has succeeded.
    host.arm("ledger/disk.append 2 errno 28\n");
    let error = host.add(&pod).error();
    assert_eq!(host.flock_links(), Vec::<String>::new(), "{error:?}");
    host.disarm();
    host.assert_empty();
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
}

#[test]
fn a_delete_without_a_record_removes_the_link_that_bears_the_pods_mark() {
    let host = Host::new();
    let _agent = host.agent().start();
    host.run("ip link add stray type veth peer name far");
    host.run("ip link set stray alias flock:gone/eth0");
    host.run("ip link add other type veth peer name away");
    host.run("ip link set other alias flock:another/eth0");
    host.cni("DEL").container("gone").ifname("eth0").done();
    let shown = host.run("ip -o link show");
    assert!(!shown.contains("stray") && shown.contains("other"), "{shown}");
}

#[test]
fn no_pod_is_attached_to_a_host_that_cannot_be_prepared() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    host.arm("node/sysctl.write * errno 30\n");
    let error = host.add(&pod).error();
    assert_eq!((host.leases().len(), host.flock_links().len()), (0, 0), "{error:?}");
    host.disarm();
    host.add(&pod).result();
    pod.assert_pings(host_addresses());
}

#[test]
fn garbage_collection_leaves_a_link_whose_record_has_gone_meanwhile_to_the_rounds() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let link = host.add(&pod).result().host_link();
    let mac = host.run(&format!("cat /sys/class/net/{link}/address"));
    host.start_trace();
    host.arm("conn/gc.listed 1 hang 60000");
    std::thread::scope(|scope| {
        let collecting = scope.spawn(|| host.cni("GC").conf("cni.dev/valid-attachments", json!([])).run());
        host.wait_point("conn/gc.listed", 1);
        host.del(&pod).done();
        // What stands there now looks like a pod's link of which the record was lost.
        host.run(&format!("ip link add {link} address {} type veth peer name other", mac.trim()));
        host.run(&format!("ip link set {link} alias flock:p/eth0"));
        for end in [link.as_str(), "other"] {
            host.run(&format!("ip link set {end} up"));
        }
        host.disarm();
        collecting.join().expect("no panic").succeeded();
    });
    assert_eq!(host.flock_links(), [link]);
}
