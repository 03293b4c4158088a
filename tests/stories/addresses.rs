//! Stories of pods that name their addresses: of the node's range, of what the node's owner has listed for that, and addresses that
//! several pods share.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::support::host::{HOST4, HOST6, Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::outcome::{Attached, CniError};
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::support::waiting::wait_for;

/// What the owner of the node lets pods name, and a pod that makes use of all of it.
const EXTRA: [&str; 2] = ["2001:db8:f::/48", "203.0.113.0/28"];
pub(crate) const OWN: &str = "203.0.113.5, 2001:db8:f::5, 2001:db8:f::6, 203.0.113.6";
pub(crate) const SHARED: &str = "2001:db8:f::53, 203.0.113.53";

/// A NodeConfig that lists further prefixes.
pub(crate) fn config() -> String {
    node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "extraPrefixes": [EXTRA[0], EXTRA[1], "203.0.113.48/28"]}))
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("literal")).collect()
}

/// ADD of a new sandbox of the pod default/NAME.
fn sandbox<'a>(host: &'a Host, sandbox: &str, name: &str) -> (Pod<'a>, Cni<'a>) {
    let pod = host.pod(sandbox);
    let add = host.add(&pod).kubernetes("default", name);
    (pod, add)
}

#[track_caller]
fn assert_later(error: &CniError, says: &str) {
    assert_eq!(error.code, 11, "{error:?}");
    assert!(error.details.contains(says), "{error:?}");
}

// covers: FM-A18
#[test]
fn a_pod_has_the_addresses_that_it_names_and_the_runtime_hears_of_the_first_of_each_family() {
    let host = Host::new();
    let agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("plex");
    let attached = host.add(&pod).annotations(&[("addresses", OWN)]).result();
    assert_eq!(attached.ips(), ips(&["2001:db8:f::5", "203.0.113.5"]));
    assert_eq!(attached.result["ips"].as_array().map(Vec::len), Some(2));
    let all = ips(&["2001:db8:f::5", "2001:db8:f::6", "203.0.113.5", "203.0.113.6"]);
    host.assert_sound("with further addresses");
    let there = host.pod("other");
    // Nothing was taken from the node's range.
    assert_eq!(host.add(&there).result().ipv4(), "10.25.214.2".parse().ok());
    there.assert_pings(all.clone());
    pod.assert_pings(host_addresses());
    // The pod speaks with the first of them.
    for (to, from) in [(HOST6, "2001:db8:f::5"), (HOST4, "203.0.113.5")] {
        assert!(pod.run(&format!("ip route get {to}")).contains(&format!("src {from} ")), "to {to}");
    }
    assert!(agent.wait_log("request served op=ADD").contains("203.0.113.6"), "all addresses are in the log");
    host.del(&pod).done();
    host.del(&there).done();
    host.assert_empty();
}

#[test]
fn a_pod_may_name_one_family_and_have_the_other_of_the_nodes_range() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    let attached =
        host.add(&pod).annotations(&[("addresses", "203.0.113.5"), ("cidr6", "2001:db8:1:f001:7::/80")]).result();
    assert_eq!(attached.ipv4(), "203.0.113.5".parse().ok());
    assert!(attached.ipv6().expect("dual stack").to_string().starts_with("2001:db8:1:f001:7:"), "{attached:?}");
    host.assert_sound("one of each");
}

#[test]
fn what_the_owner_of_the_node_has_not_listed_is_refused_with_field_and_remedy() {
    let host = Host::new();
    let agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    for (key, value, says) in [
        ("addresses", "198.51.100.1", "list a prefix that holds it in spec.extraPrefixes of NodeConfig host001"),
        ("anycast", "198.51.100.1", "list a prefix that holds it in spec.extraPrefixes of NodeConfig host001"),
        ("addresses", "10.25.214.7", "of which a pod names an address by flock.fritzlab.net/cidr4: 10.25.214.7/32"),
        ("addresses", "2001:db8:1:f001::7", "by flock.fritzlab.net/cidr6: 2001:db8:1:f001::7/128"),
        ("anycast", "10.25.214.7", "where each address is one pod's"),
        ("anycast", "203.0.113.63", "first or last address of 203.0.113.48/28"),
        ("addresses", "203.0.113.5/32", "one address is meant: write 203.0.113.5"),
        ("anycast", "fe80::1", "the link-local range"),
    ] {
        let error = host.add(&pod).annotations(&[(key, value)]).error();
        assert_eq!(error.code, 7, "{key}={value}: {error:?}");
        assert!(error.details.contains(&format!("annotation flock.fritzlab.net/{key}: \"{value}\" ")), "{error:?}");
        assert!(error.details.contains(says), "{key}={value}: {error:?}");
    }
    let error = host.add(&pod).annotations(&[("ipv6", "false"), ("addresses", "2001:db8:f::5")]).error();
    assert!(error.details.contains("is an address of IPv6, which the pod switched off"), "{error:?}");
    assert_eq!((host.leases(), host.flock_links()), (vec![], vec![]));
    // A node that lists nothing gives nothing, and one that lists it gives it without a restart.
    agent.kill();
    let agent = host.agent().start();
    let add = host.add(&pod).annotations(&[("addresses", "203.0.113.5")]);
    assert!(add.error().details.contains("spec.extraPrefixes"));
    host.edit_config(&config());
    agent.wait_log_times("NodeConfig in force", 2);
    add.result();
}

#[test]
fn an_address_of_the_host_or_that_somebody_has_a_route_to_is_not_a_pods() {
    let host = Host::new();
    host.run("ip addr add 203.0.113.5/32 dev lo");
    let _agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    for key in ["addresses", "anycast"] {
        let error = host.add(&pod).annotations(&[(key, "203.0.113.5")]).error();
        assert_later(&error, "203.0.113.5 (the pod names it by annotation) is an address of the host");
    }
    host.run("ip route add 203.0.113.6/32 dev lo");
    let error = host.add(&pod).annotations(&[("addresses", "203.0.113.7,203.0.113.6")]).error();
    assert_later(&error, "203.0.113.6 is the destination of somebody else's route");
    host.run("ip route del 203.0.113.6/32 dev lo");
    assert_eq!((host.leases(), host.flock_links()), (vec![], vec![]), "what was taken is given back");
    host.add(&pod).annotations(&[("addresses", "203.0.113.7,203.0.113.6")]).result();
    host.assert_sound("the route is gone");
}

// covers: FM-A09
#[test]
fn an_address_that_a_pod_names_is_refused_while_another_has_it_by_the_others_name() {
    let host = Host::new();
    let mut agent = host.agent().config(Some(&config())).start();
    for (n, (key, value, ip)) in [
        ("addresses", "203.0.113.5", "203.0.113.5"),
        ("addresses", "2001:db8:f::9,203.0.113.6", "203.0.113.6"),
        ("cidr4", "10.25.214.7/32", "10.25.214.7"),
        ("cidr6", "2001:db8:1:f001::7/128", "2001:db8:1:f001::7"),
    ]
    .into_iter()
    .enumerate()
    {
        let named = [(key, value)];
        let (first, add) = sandbox(&host, &format!("first{n}"), "db-0");
        let had = add.annotations(&named).result();
        assert!(had.ips().contains(&ips(&[ip])[0]), "{had:?}");
        let (_, other) = sandbox(&host, &format!("other{n}"), "db-1");
        let other = other.annotations(&[(key, ip_or_prefix(key, ip).as_str())]);
        let held = format!("is held by default/db-0 (container first{n}, interface eth0)");
        assert_later(&other.error(), &format!("{ip} {held}"));
        // Also by its own successor, until the sandbox before is deleted, and over a restart of the agent.
        agent.kill();
        agent = host.agent().config(Some(&config())).start();
        let (second, add) = sandbox(&host, &format!("second{n}"), "db-0");
        let add = add.annotations(&named);
        assert_later(&add.error(), &held);
        host.del(&first).done();
        assert_later(&other.error(), &format!("{ip} was another pod's and rests for another "));
        assert!(add.result().ips().contains(&ips(&[ip])[0]), "the same pod has it at once");
        host.del(&second).done();
    }
    host.assert_empty();
    agent.stop();
}

fn ip_or_prefix(key: &str, ip: &str) -> String {
    match key {
        "cidr4" => format!("{ip}/32"),
        "cidr6" => format!("{ip}/128"),
        _ => ip.to_owned(),
    }
}

#[test]
fn an_address_of_the_nodes_range_can_be_named_and_is_never_that_of_the_gateway() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    let named = [("cidr4", "10.25.214.77/32"), ("cidr6", "2001:db8:1:f001::77/128")];
    let attached = host.add(&pod).annotations(&named).result();
    assert_eq!(attached.ips(), ips(&["2001:db8:1:f001::77", "10.25.214.77"]));
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    for (key, value) in [
        ("cidr4", "10.25.214.0/32"),
        ("cidr4", "10.25.214.1/32"),
        ("cidr4", "10.25.214.255/32"),
        ("cidr6", "2001:db8:1:f001::/128"),
    ] {
        let error = host.add(&pod).annotations(&[(key, value)]).error();
        assert_eq!(error.code, 7, "{error:?}");
        assert!(error.details.contains("in the node's range"), "{value}: {error:?}");
    }
    host.assert_empty();
}

/// Leads an anycast address to a pod, as the node does with those that are ready.
fn lead_to(host: &Host, address: &str, pod: &Attached) {
    let (via, width) = if address.contains(':') { (pod.ipv6(), 128) } else { (pod.ipv4(), 32) };
    let via = via.expect("dual stack");
    host.run(&format!("ip route replace {address}/{width} via {via} dev {} onlink", pod.host_link()));
}

fn unlead(host: &Host) {
    for address in SHARED.split(", ") {
        host.run(&format!("ip route del {address}"));
    }
}

#[test]
fn pods_that_share_an_address_answer_to_it_and_never_speak_with_it() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&config())).start();
    let client = host.pod("client");
    host.add(&client).result();
    let shared = || SHARED.split(", ").map(|ip| ip.parse::<IpAddr>().expect("literal"));
    let pods: Vec<_> = ["a", "b"]
        .map(|name| {
            let pod = host.pod(name);
            let attached = host.add(&pod).annotations(&[("anycast", SHARED)]).result();
            assert_eq!(attached.result["ips"].as_array().map(Vec::len), Some(2), "{attached:?}");
            assert!(shared().all(|ip| !attached.ips().contains(&ip)), "the runtime is not told of it");
            (pod, attached)
        })
        .into();
    host.assert_sound("with shared addresses");
    for (pod, attached) in &pods {
        SHARED.split(", ").for_each(|address| lead_to(&host, address, attached));
        client.assert_pings(shared());
        for (to, own) in [(HOST6, attached.ipv6()), (HOST4, attached.ipv4()), ("2001:db8:f::54", attached.ipv6())] {
            let from = format!("src {} ", own.expect("dual stack"));
            assert!(pod.run(&format!("ip route get {to}")).contains(&from), "{} to {to}", pod.name);
        }
    }
    // What one has for its own is not shared, and the other way round.
    let other = host.pod("other");
    assert_later(
        &host.add(&other).annotations(&[("addresses", "203.0.113.53")]).error(),
        "203.0.113.53 is held by default/",
    );
    host.add(&other).annotations(&[("addresses", "203.0.113.54")]).result();
    let error = host.add(&host.pod("last")).annotations(&[("anycast", "203.0.113.54")]).error();
    assert_later(&error, "203.0.113.54 is held by default/other (container other, interface eth0)");
    unlead(&host);
    pods.iter().map(|(pod, _)| pod).chain([&client, &other]).for_each(|pod| host.del(pod).done());
    host.assert_empty();
}

#[test]
fn a_shared_address_of_two_interfaces_goes_with_each_of_them_alone() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    let add = |ifname: &str| host.add(&pod).ifname(ifname).annotations(&[("anycast", SHARED)]).result();
    let (first, second) = (add("eth0"), add("net1"));
    host.assert_sound("on both");
    let client = host.pod("client");
    host.add(&client).result();
    let shared: Vec<IpAddr> = SHARED.split(", ").map(|ip| ip.parse().expect("literal")).collect();
    SHARED.split(", ").for_each(|address| lead_to(&host, address, &first));
    client.assert_pings(shared.clone());
    host.del(&pod).done();
    host.assert_sound("on one");
    SHARED.split(", ").for_each(|address| lead_to(&host, address, &second));
    client.assert_pings(shared);
    unlead(&host);
    host.del(&pod).ifname("net1").done();
    assert!(!pod.run("ip addr").contains("203.0.113.53"), "nothing stays in the namespace");
    host.del(&client).done();
    host.assert_empty();
}

#[test]
fn a_lost_further_or_shared_address_is_found_by_check_and_a_lost_route_is_put_back() {
    let host = Host::new();
    let agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    let attached = host.add(&pod).annotations(&[("addresses", OWN), ("anycast", SHARED)]).result();
    let check = || {
        let call = host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0");
        call.conf("prevResult", attached.result.clone())
    };
    check().done();
    for lost in ["2001:db8:f::6/128", "203.0.113.6/32", "2001:db8:f::53/128", "203.0.113.53/32"] {
        pod.run(&format!("ip addr del {lost} dev eth0"));
        let error = check().error();
        let (ip, _) = lost.split_once('/').expect("a prefix");
        assert!(error.details.contains(&format!("the pod's interface eth0 lacks the address {ip}")), "{error:?}");
        pod.run(&format!("ip addr add {lost} dev eth0{}", if lost.contains(':') { " nodad" } else { "" }));
        check().done();
    }
    for lost in ["2001:db8:f::6", "203.0.113.6"] {
        host.run(&format!("ip route del {lost} proto 102"));
    }
    agent.wait_log("host end of a link repaired");
    wait_for("both routes", || host.differences().is_empty().then_some(()));
    host.del(&pod).done();
    host.assert_empty();
}

#[test]
fn lost_state_is_read_back_with_all_addresses_of_a_pod_the_first_ones_first() {
    let host = Host::new();
    let mut agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    // In no order that the kernel would show them in.
    let named = "2001:db8:f::7, 203.0.113.6, 2001:db8:f::5, 203.0.113.7, 203.0.113.5, 2001:db8:f::6";
    let attached = host.add(&pod).annotations(&[("addresses", named), ("anycast", SHARED)]).result();
    assert_eq!(attached.ips(), ips(&["2001:db8:f::7", "203.0.113.6"]));
    // Of what it shares, what is announced can be seen.
    for ip in ["203.0.113.53/32", "203.0.113.6/32", "2001:db8:f::53/128", "2001:db8:f::7/128"] {
        host.run(&format!("ip route replace {ip} dev {} table 102 metric 1 proto 102", attached.host_link()));
    }
    agent.kill();
    host.run("rm -r /run/flock/state");
    agent = host.agent().config(Some(&config())).start();
    agent.wait_log("attachment without record adopted");
    host.assert_sound("read back");
    let lease = host.leases().remove(0);
    assert_eq!(lease.primary().collect::<Vec<_>>(), attached.ips());
    assert_eq!(lease.extra.len(), 4);
    assert_eq!(lease.anycast.len(), 2, "{:?}", lease.anycast);
    let call = host.cni("CHECK").container("p").netns(&pod.path()).ifname("eth0");
    call.conf("prevResult", attached.result).done();
    // And nobody else gets one of them.
    let error = host.add(&host.pod("other")).annotations(&[("addresses", "2001:db8:f::6")]).error();
    assert_later(&error, "2001:db8:f::6 is held by container p, interface eth0");
    host.del(&pod).done();
    host.assert_empty();
    agent.stop();
}

#[test]
fn a_pod_that_shares_an_address_starts_beside_the_loopback_plugin() {
    let host = Host::new();
    let _agent = host.agent().config(Some(&config())).start();
    let pod = host.pod("p");
    host.add(&pod).annotations(&[("addresses", OWN), ("anycast", SHARED)]).result();
    // As that plugin does it: it sets `lo` up and fails with whatever is not a loopback address there.
    pod.run("ip link set lo up");
    let links: Value = serde_json::from_str(&pod.run("ip -j addr show dev lo")).expect("JSON of ip");
    let addresses = links[0]["addr_info"].as_array().expect("a list").iter();
    let foreign = addresses.filter(|info| {
        let ip: IpAddr = info["local"].as_str().expect("an address").parse().expect("an address");
        !ip.is_loopback()
    });
    assert_eq!(foreign.count(), 0, "{links}");
}
