//! Stories of what an operator configures, what pods ask for, and what the host keeps for itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use flock::cli::help;
use flock::cli::table::Program;
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::support::host::{HOST4, HOST6, Host, host_addresses, one_user_only};
use crate::support::manifests::{CIDR4, CIDR6, node_config};
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK_AGENT, put_script, succeed};
use crate::support::waiting::wait_for;

fn within(ip: Option<IpAddr>, prefix: &str) -> bool {
    let prefix: IpNet = prefix.parse().expect("a prefix");
    ip.is_some_and(|ip| prefix.contains(&ip))
}

// Annotations of pods.

// covers: FM-A18
#[test]
fn a_pod_can_narrow_down_its_ranges_by_annotation() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let narrow = [("cidr4", "10.25.214.128/28"), ("cidr6", "2001:db8:1:f001:abcd::/80")];
    let attached = host.add(&a).annotations(&narrow).result();
    assert!(within(attached.ipv4(), "10.25.214.128/28"), "{attached:?}");
    assert!(within(attached.ipv6(), "2001:db8:1:f001:abcd::/80"), "{attached:?}");
    // Of a list, the first one that the node has counts; a wider one means the node's own.
    let list = [("cidr4", "192.0.2.0/24, 10.0.0.0/8"), ("cidr6", "2001:db8:ffff::/48,2001:db8:1:f001:1::/80")];
    let other = host.add(&b).annotations(&list).result();
    assert!(within(other.ipv4(), CIDR4), "{other:?}");
    assert!(within(other.ipv6(), "2001:db8:1:f001:1::/80"), "{other:?}");
    a.assert_pings(other.ips());
}

#[test]
fn a_pod_can_do_without_one_family() {
    for (key, there) in [("ipv4", HOST6), ("ipv6", HOST4)] {
        let host = Host::new();
        let _agent = host.agent().start();
        let pod = host.pod("p");
        let attached = host.add(&pod).annotations(&[(key, "false")]).result();
        let there: IpAddr = there.parse().expect("literal");
        assert_eq!(attached.ips().len(), 1);
        assert_eq!(attached.ips()[0].is_ipv6(), there.is_ipv6());
        pod.assert_pings([there]);
        let other = if there.is_ipv6() { "-4" } else { "-6" };
        assert_eq!(pod.run(&format!("ip {other} addr show dev eth0")), "", "no trace of the other family");
        host.del(&pod).done();
        host.assert_empty();
    }
}

#[test]
fn pods_of_one_namespace_look_alike_by_ip_algo() {
    let host = Host::new();
    let _agent = host.agent().start();
    let shared = |namespace: &str, name: &str| {
        let pod = host.pod(name);
        let add = host.add(&pod).kubernetes(namespace, name).annotations(&[("ip-algo", "namespace")]);
        let Some(IpAddr::V6(ip)) = add.result().ipv6() else { panic!("IPv6") };
        // All digits of the host part but the last.
        ip.to_bits() as u64 >> 4
    };
    let (a, b, c) = (shared("mail", "a"), shared("mail", "b"), shared("web", "c"));
    assert_eq!(a, b);
    assert_ne!(a, c);
    // A wrong one stops nothing.
    host.add(&host.pod("d")).annotations(&[("ip-algo", "colour")]).result();
}

// covers: FM-A09 FM-M05
#[test]
fn the_one_address_that_a_pod_names_is_its_own_when_it_comes_back_and_nobody_elses_for_half_a_minute() {
    let host = Host::new();
    let mut agent = host.agent().start();
    let one6 = [("cidr6", "2001:db8:1:f001::77/128"), ("ipv4", "false")];
    let one4 = [("cidr4", "10.25.214.8/30"), ("ipv6", "false")];
    for (n, (annotations, address)) in [(one6, "2001:db8:1:f001::77"), (one4, "10.25.214.10")].into_iter().enumerate() {
        let add = |sandbox: &str, name: &str| {
            let pod = host.pod(&format!("{sandbox}{n}"));
            host.add(&pod).kubernetes("mail", name).annotations(&annotations).run()
        };
        let address: IpAddr = address.parse().expect("literal");
        let gets = |sandbox: &str| {
            let attached = add(sandbox, "smtp-0");
            assert!(attached.succeeded().contains(&address.to_string()));
            host.del(&Pod { host: &host, name: format!("{sandbox}{n}") }).done();
        };
        gets("first");
        gets("second");
        let is_refused = |sandbox: &str| {
            let error = add(sandbox, "smtp-1").failed();
            assert_eq!((error.code, error.msg.as_str()), (11, "no free address"), "{error:?}");
            assert!(error.details.contains("no address is free in"), "{error:?}");
            assert!(
                error.details.contains(&format!("{address} was another pod's and rests for another ")),
                "{error:?}"
            );
        };
        is_refused("stranger");
        agent.kill();
        agent = host.agent().start();
        is_refused("late");
        gets("third");
    }
    assert!(!agent.log().contains("address chosen in another way"), "{}", agent.log());
    agent.stop();
}

#[test]
fn a_wrong_annotation_fails_the_add_with_key_and_value_and_takes_no_address() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("p");
    for (key, value) in [
        ("ipv4", "maybe"),
        ("ipv6", "1"),
        ("cidr4", "10.25.214.0"),
        ("cidr4", "10.25.214.7/24"),
        ("cidr4", "2001:db8:1:f001::/64"),
        ("cidr6", "10.25.214.0/24"),
        ("cidr6", "zebra"),
        // Well-formed, and not of this node.
        ("cidr4", "192.0.2.0/24"),
        ("cidr6", "2001:db8:ffff::/64"),
        ("cidr4", "10.25.214.8/31"),
    ] {
        let error = host.add(&pod).annotations(&[(key, value)]).error();
        assert_eq!(error.code, 7, "{key}={value}: {error:?}");
        assert!(error.text().contains(value), "{key}={value}: {error:?}");
        assert!(error.text().contains(key), "{key}={value}: {error:?}");
    }
    let error = host.add(&pod).annotations(&[("ipv4", "false"), ("ipv6", "false")]).error();
    assert_eq!(error.code, 7, "{error:?}");
    assert_eq!((host.leases(), host.flock_links()), (vec![], vec![]));
    // The first address of the range is still the first one to be given.
    assert_eq!(host.add(&pod).result().ipv4(), "10.25.214.2".parse().ok());
}

// The NodeConfig file.

// covers: FM-A15
#[test]
fn an_edited_node_config_counts_for_new_pods_and_leaves_the_old_ones_alone() {
    let host = Host::new();
    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let old = host.add(&a).result();
    agent.edit_config(&node_config("2001:db8:1:f002::/64", "10.25.215.0/24"));
    agent.wait_log_times("NodeConfig in force", 2);
    let new = host.add(&b).result();
    assert!(within(new.ipv4(), "10.25.215.0/24") && within(new.ipv6(), "2001:db8:1:f002::/64"), "{new:?}");
    a.assert_pings(new.ips());
    b.assert_pings(old.ips());
    let routes = host.run("ip route show proto 102") + &host.run("ip -6 route show proto 102");
    let unreachable: Vec<&str> = routes.lines().filter_map(|line| line.strip_prefix("unreachable ")).collect();
    assert!(unreachable.iter().any(|line| line.starts_with("10.25.215.0/24")), "{unreachable:?}");
    assert!(!unreachable.iter().any(|line| line.starts_with("10.25.214.0/24")), "{unreachable:?}");
    host.del(&a).done();
    host.del(&b).done();
    host.assert_empty();
}

#[test]
fn a_bad_edit_keeps_the_last_good_node_config_and_the_log_says_where_and_why() {
    let host = Host::new();
    let agent = host.agent().start();
    let bad =
        "apiVersion: flock.fritzlab.net/v1alpha1\nkind: NodeConfig\nmetadata:\n  name: host001\nspec:\n  cidr5: x\n";
    for (times, (text, why)) in [
        (bad.to_owned(), ["line 6", "cidr5"]),
        (node_config("2001:db8:1:f001::1/64", ""), ["spec.cidr6", "2001:db8:1:f001::1/64"]),
        (String::new(), ["NodeConfig is not valid", "empty"]),
    ]
    .into_iter()
    .enumerate()
    {
        agent.edit_config(&text);
        let line = agent.wait_log_times("NodeConfig is not valid", times + 1);
        assert!(why.iter().all(|why| line.contains(why)), "{line}");
        assert!(line.contains("the last good one"), "{line}");
        let attached = host.add(&host.pod(&format!("p{times}"))).result();
        assert!(within(attached.ipv4(), CIDR4), "{attached:?}");
        host.cni("STATUS").done();
    }
    // The log does not repeat itself while nothing changes.
    agent.edit_config(&node_config(CIDR6, "10.25.216.0/24"));
    agent.wait_log_times("NodeConfig in force", 2);
    assert_eq!(agent.log().matches("NodeConfig is not valid").count(), 3);
    assert!(within(host.add(&host.pod("q")).result().ipv4(), "10.25.216.0/24"));
}

// covers:
// covers: FM-Q06
#[test]
fn a_node_config_that_cannot_be_read_says_why_and_heals_by_itself() {
    let host = Host::new();
    // As under the unit: root, and no right to read what others own.
    let unit = format!("exec setpriv --bounding-set -dac_override,-dac_read_search {FLOCK_AGENT} \"$@\"");
    put_script(host.path("/run/unit"), &unit);
    host.write("/run/node.yaml", &node_config(CIDR6, CIDR4));
    host.run("chmod 0000 /run/node.yaml");
    let agent = host.agent().program("/run/unit").keep_config().start();
    let line = agent.wait_log("NodeConfig cannot be read");
    for words in ["/run/node.yaml has mode 0000 and owner uid 0", "root without CAP_DAC_OVERRIDE", "chmod u+r"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    assert_eq!(host.cni("STATUS").error().code, 50);
    host.run("chmod 0600 /run/node.yaml");
    agent.wait_log("NodeConfig in force");
    host.cni("STATUS").done();
    assert_eq!(agent.log().matches("NodeConfig cannot be read").count(), 1, "said once: {}", agent.log());

    // Another owner, and a directory on the way that may not be entered; the last good one stays in force.
    if !one_user_only() {
        host.run("chown 1 /run/node.yaml");
        let line = agent.wait_log_times("NodeConfig cannot be read", 2);
        assert!(line.contains("mode 0600 and owner uid 1") && line.contains("chown root"), "{line}");
        assert!(line.contains("the last good one"), "{line}");
        host.add(&host.pod("p")).result();
        host.run("chown 0 /run/node.yaml");
        host.edit_config(&node_config(CIDR6, "10.25.217.0/24"));
        agent.wait_log("cidr4=10.25.217.0/24");
    }
}

// covers: FM-N03
#[test]
fn what_a_node_config_says_in_vain_is_in_the_log_once() {
    let host = Host::new();
    host.run("ip link add up0 type veth peer name up1");
    host.run("ip addr add 192.0.2.1/24 dev up0");
    host.run("ip link set up0 up");
    host.run("ip link set up1 up");
    host.run("ip route add default via 192.0.2.254 dev up0 onlink");
    let text = |name: &str, annotation: &str, mtu: u32| {
        format!(
            "\u{feff}apiVersion: flock.fritzlab.net/v1alpha1\r\nkind: NodeConfig\r\nmetadata: {{name: {name}, annotations: {{{annotation}}}}}\r\n\
             spec: {{cidr6: '{CIDR6}', mtu: {mtu}}}\r\n---\r\n# nothing more\r\n"
        )
    };
    let config = text("Host001", "flock.fritzlab.net/ip-algo: 'namespace,owner', flock.fritzlab.net/ip-alg: app", 9000);
    let agent = host.agent().config(Some(&config)).start();
    agent.wait_log("NodeConfig in force");
    let said = "part of it does not do what it says";
    agent.wait_log_times(said, 4);
    for words in ["unknown field", "ip-alg", "differ in case only", "spec.mtu is 9000 and the uplink's MTU is 1500"] {
        assert!(
            agent.log().lines().any(|line| line.contains(said) && line.contains(words)),
            "{words}: {}",
            agent.log()
        );
    }
    // Put right one by one, and never repeated.
    agent.edit_config(&text("host001", "flock.fritzlab.net/ip-algo: namespace", 1400));
    agent.wait_log("mtu=1400");
    for signal in ["USR1", "USR2"] {
        agent.signal(signal);
        agent.wait_log("flock-agent status says more");
    }
    agent.signal("HUP");
    agent.wait_log("looking again");
    agent.edit_config(&text("host001", "flock.fritzlab.net/ip-algo: app", 1300));
    agent.wait_log("mtu=1300");
    assert_eq!(agent.log().matches(said).count(), 4, "{}", agent.log());
}

#[test]
fn a_node_without_a_node_config_waits_for_it_and_survives_its_loss() {
    let host = Host::new();
    let agent = host.agent().config(None).start();
    let pod = host.pod("p");
    let line = agent.wait_log("NodeConfig is missing");
    assert!(line.contains("/run/node.yaml") && line.contains("there is no such file"), "{line}");
    let error = host.add(&pod).error();
    assert_eq!(error.code, 11, "{error:?}");
    assert_eq!(host.cni("STATUS").error().code, 50);
    host.del(&pod).done();

    agent.edit_config(&node_config(CIDR6, CIDR4));
    agent.wait_log("NodeConfig in force");
    host.cni("STATUS").done();
    host.add(&pod).result();

    fs::remove_file(host.path("/run/node.yaml")).expect("removed");
    let line = agent.wait_log_times("NodeConfig is missing", 2);
    assert!(line.contains("the last good one"), "{line}");
    host.cni("STATUS").done();
    let other = host.pod("q");
    let attached = host.add(&other).result();
    pod.assert_pings(attached.ips());
}

// covers: FM-A15
#[test]
fn a_range_that_shrinks_under_its_pods_takes_nothing_from_them_and_gives_nothing_twice() {
    let host = Host::new();
    let agent = host.agent().config(Some(&node_config("", "10.25.214.0/29"))).start();
    let pods = ["a", "b", "c"].map(|name| host.pod(name));
    let ips: Vec<IpAddr> = pods.iter().flat_map(|pod| host.add(pod).result().ips()).collect();
    agent.edit_config(&node_config("", "10.25.214.0/30"));
    agent.wait_log_times("NodeConfig in force", 2);
    for (n, pod) in pods.iter().enumerate() {
        pod.assert_pings([ips[(n + 1) % 3]]);
    }
    let new = host.pod("new");
    assert_eq!(host.add(&new).error().code, 11, "the one address of the new range is taken");
    host.del(&pods[2]).done();
    assert_eq!(host.add(&new).error().code, 11, "and one outside it is not given");
    host.del(&pods[0]).done();
    assert_eq!(host.add(&new).result().ips(), ["10.25.214.2".parse::<IpAddr>().expect("literal")]);
    // A range that grows again gives what has become free, and nothing that is held.
    agent.edit_config(&node_config("", "10.25.214.0/29"));
    agent.wait_log_times("NodeConfig in force", 3);
    let more: Vec<IpAddr> = (0..3).flat_map(|n| host.add(&host.pod(&format!("m{n}"))).result().ips()).collect();
    assert!(!more.contains(&ips[1]) && !more.contains(&ips[0]), "{more:?}");
    pods[1].assert_pings(more);
}

// covers: FM-A15
#[test]
fn a_family_that_leaves_the_node_config_stays_with_the_pods_that_have_it() {
    let host = Host::new();
    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let both = host.add(&a).result();
    agent.edit_config(&node_config(CIDR6, ""));
    agent.wait_log_times("NodeConfig in force", 2);
    assert_eq!(host.add(&b).result().ips().len(), 1);
    a.assert_pings(host_addresses());
    host.del(&a).done();
    assert_eq!(both.ips().len(), 2);
}

// covers: FM-A18
#[test]
fn a_pod_never_gets_an_address_of_the_host() {
    let host = Host::new();
    host.run("ip addr add 10.25.214.2/32 dev lo");
    let _agent = host.agent().config(Some(&node_config("", "10.25.214.0/29"))).start();
    let ips: Vec<IpAddr> = (0..4).flat_map(|n| host.add(&host.pod(&format!("p{n}"))).result().ips()).collect();
    assert!(!ips.contains(&"10.25.214.2".parse().expect("literal")), "{ips:?}");
    assert_eq!(host.add(&host.pod("last")).error().code, 11);
}

// What the host keeps for itself.

/// Links, addresses, routes, rules and nft of somebody else, beside two uplinks.
fn furnish(host: &Host) {
    let script = "
        ip link add up0 type veth peer name up1
        ip link add other0 type veth peer name other1
        for l in up0 up1; do ip link set $l addrgenmode none; ip link set $l up; done
        ip addr add 192.0.2.1/24 dev up0
        ip -6 addr add 2001:db8:aa::1/64 dev up0 nodad
        ip route add default via 192.0.2.254 dev up0
        ip -6 route add default via 2001:db8:aa::fe dev up0
        ip route add 198.51.100.0/24 via 192.0.2.7 proto static metric 50
        ip route add unreachable 203.0.113.0/24 proto 186
        ip route add 198.51.100.0/24 via 192.0.2.9 table 77
        ip rule add from 198.51.100.0/24 lookup 77
        ip -6 rule add from 2001:db8:bb::/64 lookup 77
        nft add table inet foreign
        nft add chain inet foreign input '{ type filter hook input priority 0; policy accept; }'
        nft add rule inet foreign input ip saddr 203.0.113.9 drop";
    succeed(host.command("sh").args(["-ec", script]));
    wait_for("the links to be in state UP", || host.run("ip link show up0").contains("state UP").then_some(()));
    wait_for("the links to be in state UP", || host.run("ip link show up1").contains("state UP").then_some(()));
}

/// The settings of a fingerprint.
fn sysctls(fingerprint: &str) -> BTreeMap<String, String> {
    let (_, text) = fingerprint.split_once("## sysctl\n").expect("the last section");
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn sections(fingerprint: &str) -> BTreeMap<String, Value> {
    let (text, _) = fingerprint.split_once("## sysctl\n").expect("the last section");
    let parts = text.split("## ").filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, body) = part.split_once('\n').expect("a title");
            (name.to_owned(), serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
        })
        .collect()
}

#[test]
fn an_agent_that_serves_nobody_yet_has_changed_nothing_on_the_host() {
    let host = Host::new();
    furnish(&host);
    let before = host.fingerprint();
    let agent = host.agent().start();
    host.cni("STATUS").done();
    host.cni("DEL").container("unknown").ifname("eth0").done();
    host.cni("GC").conf("cni.dev/valid-attachments", json!([])).done();
    agent.edit_config(&node_config(CIDR6, "10.25.220.0/24"));
    agent.wait_log_times("NodeConfig in force", 2);
    assert_eq!(host.fingerprint(), before);
    agent.stop();
    assert_eq!(host.fingerprint(), before);
}

// covers: FM-B13
#[test]
fn after_a_pods_whole_life_only_the_documented_changes_are_left() {
    let host = Host::new();
    furnish(&host);
    let before = host.fingerprint();
    let agent = host.agent().start();
    let pod = host.pod("p");
    let link = host.add(&pod).result().host_link();
    pod.assert_pings(host_addresses());
    host.del(&pod).done();
    agent.stop();
    let after = host.fingerprint();

    let (old, new) = (sysctls(&before), sysctls(&after));
    let changed: Vec<(&String, &String)> = new.iter().filter(|(key, value)| old.get(*key) != Some(value)).collect();
    // Forwarding, with what the kernel derives from it for each link: forwarding there, and no ICMP redirects.
    for (key, value) in &changed {
        let derived = (key.ends_with("/forwarding") && *value == "1") || key.ends_with("/accept_redirects");
        assert!(key.as_str() == "./ipv4/ip_forward" || derived, "{key}={value}");
    }
    for key in ["./ipv4/ip_forward", "./ipv6/conf/all/forwarding"] {
        assert_eq!(new[key], "1");
    }
    assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>(), "settings of {link} are gone with it");

    let (old, mut new) = (sections(&before), sections(&after));
    for family in ["-4", "-6"] {
        let routes = new.get_mut(&format!("ip -j {family} route show table all")).and_then(Value::as_array_mut);
        let routes = routes.expect("a list of routes");
        let count = routes.len();
        routes.retain(|route| !(route["type"] == "unreachable" && route["protocol"] == "102"));
        assert_eq!(count - routes.len(), 2, "one unreachable route per prefix, and its announcement in table 102");
        // Links that forward listen to the group of all routers.
        routes.retain(|route| route["type"] != "anycast");
    }
    for (name, value) in &old {
        assert_eq!(&new[name], value, "{name}");
    }
}

#[test]
fn a_node_of_one_family_leaves_the_other_as_it_is() {
    for (cidr6, cidr4, other) in [("", CIDR4, "ipv6/conf/all/forwarding"), (CIDR6, "", "ipv4/ip_forward")] {
        let host = Host::new();
        let _agent = host.agent().config(Some(&node_config(cidr6, cidr4))).start();
        let before = host.run(&format!("cat /proc/sys/net/{other}"));
        host.add(&host.pod("p")).result();
        assert_eq!(host.run(&format!("cat /proc/sys/net/{other}")), before);
        assert_eq!(before, "0\n");
    }
}

// covers: FM-B11
#[test]
fn an_uplink_keeps_its_router_advertised_default_route() {
    let host = Host::new();
    furnish(&host);
    let script = "
        ip link add ra0 type veth peer name ra1
        for l in ra0 ra1; do ip link set $l addrgenmode none; ip link set $l up; done
        ip -6 route add default via fe80::99 dev ra0 proto ra metric 512
        ip link add quiet0 type veth peer name quiet1
        ip link add strict0 type veth peer name strict1
        for l in strict0 strict1; do ip link set $l addrgenmode none; ip link set $l up; done
        echo 0 >/proc/sys/net/ipv6/conf/strict0/accept_ra
        ip -6 route add 2001:db8:cc::/64 dev strict0 proto ra";
    succeed(host.command("sh").args(["-ec", script]));
    let accept = || {
        let all = host.run("grep -r . /proc/sys/net/ipv6/conf --include=accept_ra");
        let lines =
            all.lines().filter_map(|line| line.strip_prefix("/proc/sys/net/ipv6/conf/")?.split_once("/accept_ra:"));
        lines.map(|(link, value)| (link.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let mut expected = accept();
    assert_eq!((expected["ra0"].as_str(), expected["up0"].as_str()), ("1", "1"));
    let agent = host.agent().start();
    assert_eq!(accept(), expected, "not by a mere start");
    let pod = host.pod("p");
    host.add(&pod).result();
    host.del(&pod).done();
    expected.insert("ra0".into(), "2".into());
    assert_eq!(accept(), expected);
    assert!(host.run("ip -6 route show default").contains("via fe80::99 dev ra0 proto ra"));
    let line = agent.wait_log("host prepared");
    let (first, then) = (line.find("ra0/accept_ra=2"), line.find("ipv6/conf/all/forwarding=1"));
    assert!(first.is_some() && first < then, "{line}");
}

// The runtime's configuration.

fn listing(host: &Host, dir: &str) -> Vec<PathBuf> {
    fs::read_dir(host.path(dir)).expect("readable").map(|entry| entry.expect("readable").path()).collect()
}

// covers: F-02 F-04 F-06 FM-C01 FM-C04
#[test]
fn the_runtimes_configuration_appears_once_pods_can_be_served_and_stays() {
    let host = Host::new();
    host.run("mkdir -p /run/net.d");
    let agent = host.agent().config(None).args(&["--cni-conf-dir", "/run/net.d"]).start();
    assert_eq!(host.cni("STATUS").error().code, 50);
    assert_eq!(listing(&host, "/run/net.d"), Vec::<PathBuf>::new());
    agent.edit_config(&node_config(CIDR6, CIDR4));
    agent.wait_log("CNI configuration written");
    let file = host.path("/run/net.d/01-flock.conflist");
    assert_eq!(listing(&host, "/run/net.d"), std::slice::from_ref(&file), "no half file beside it");
    let text = fs::read_to_string(&file).expect("readable");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&list["name"], &list["plugins"][0]["type"]), (&json!("flock"), &json!("flock")));
    let written = fs::metadata(&file).expect("there");
    assert_eq!(written.permissions().mode() & 0o777, 0o644);
    assert_eq!(host.run("cat /proc/sys/net/ipv4/ip_forward"), "1\n", "a node that is offered to a runtime forwards");

    // Equal content is left alone by an edit and by a restart: every write makes runtimes load it anew.
    agent.edit_config(&node_config(CIDR6, "10.25.230.0/24"));
    agent.wait_log_times("NodeConfig in force", 2);
    agent.stop();
    assert!(file.exists(), "without it a runtime could not delete its pods");
    let agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    host.add(&host.pod("p")).result();
    let now = fs::metadata(&file).expect("there");
    assert_eq!((now.ino(), now.mtime_nsec()), (written.ino(), written.mtime_nsec()));
    agent.kill();

    // A changed one is put right, in one step.
    fs::write(&file, "{").expect("writable");
    let _agent = host.agent().args(&["--cni-conf-dir", "/run/net.d"]).start();
    assert_eq!(fs::read_to_string(&file).expect("readable"), text);
    assert_eq!(listing(&host, "/run/net.d").len(), 1);
}

#[test]
fn a_directory_for_the_runtimes_configuration_that_comes_late_is_waited_for() {
    let host = Host::new();
    let agent = host.agent().args(&["--cni-conf-dir", "/run/late.d"]).start();
    let line = agent.wait_log("CNI configuration cannot be written");
    assert!(line.contains("/run/late.d"), "{line}");
    host.add(&host.pod("p")).result();
    host.run("mkdir /run/late.d");
    agent.wait_log("CNI configuration written");
    assert!(host.path("/run/late.d/01-flock.conflist").exists());
}

#[test]
fn an_unusual_socket_is_named_in_the_configuration_and_works() {
    let host = Host::new();
    host.run("mkdir -p /run/net.d");
    let arguments = ["--cni-conf-dir", "/run/net.d", "--socket", "/run/elsewhere/a.sock"];
    let _agent = host.agent().args(&arguments).start();
    let text = fs::read_to_string(host.path("/run/net.d/01-flock.conflist")).expect("readable");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(list["plugins"][0]["socket"], "/run/elsewhere/a.sock");
    let pod = host.pod("p");
    host.add(&pod).conf("socket", json!("/run/elsewhere/a.sock")).result();
    let socket = fs::metadata(host.path("/run/elsewhere/a.sock")).expect("there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    host.del(&pod).conf("socket", json!("/run/elsewhere/a.sock")).done();
    host.assert_empty();
}

// The command line.

fn agent(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(FLOCK_AGENT);
    let output =
        command.args(arguments).env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_agent_explains_itself_and_refuses_what_it_does_not_understand() {
    let said = |arguments: &[&str]| {
        let (code, stdout, stderr) = agent(arguments);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        stdout
    };
    for arguments in [&["--help"][..], &["-h"], &["help"]] {
        assert_eq!(said(arguments), help::overview(), "{arguments:?}");
    }
    for arguments in [&["run", "--help"][..], &["help", "run"]] {
        assert_eq!(said(arguments), help::text(Program::Agent), "{arguments:?}");
    }
    assert_eq!(said(&["help", "bird", "stop"]), help::text(Program::BirdStop));
    for arguments in [&["--version"][..], &["-V"], &["version"], &["run", "--version"]] {
        assert_eq!(said(arguments), format!("flock-agent {}\n", env!("CARGO_PKG_VERSION")), "{arguments:?}");
    }
    for (arguments, why) in [
        (&["--node-confg", "x"][..], "\"--node-confg\""),
        (&["no-verb"][..], "unknown command \"no-verb\"; flock-agent help lists the commands"),
        (&["help", "no-verb"][..], "unknown command \"no-verb\"; flock-agent help lists the commands"),
        (&["run"][..], "neither --kubeconfig nor --node-config is given"),
        (&[][..], "neither --kubeconfig nor --node-config is given"),
        (&["--kubeconfig", "/nowhere"][..], "cannot read /nowhere"),
        (&["--node-config", "x", "--log-level", "loud"][..], "error, warn, info or debug"),
    ] {
        let (code, stdout, stderr) = agent(arguments);
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        assert!(stderr.contains(why) && stderr.lines().count() == 1, "{stderr}");
    }
}

// covers: FM-D11 FM-N05
#[test]
fn the_hosts_name_becomes_the_nodes_as_with_kubelet_and_what_cannot_is_refused() {
    let host = Host::new();
    let named = |name: &str, arguments: &str| {
        let script = format!(
            "printf '%s' '{name}' > /proc/sys/kernel/hostname; exec {FLOCK_AGENT} {arguments} --socket /run/other/flock.sock"
        );
        let mut command = host.command("unshare");
        command.args(["--uts", "sh", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::null());
        command.spawn().expect("starts")
    };
    host.write("/run/node.yaml", &node_config(CIDR6, CIDR4).replace("host001", "node-a"));
    let mut agent = named("Node-A", "--node-config /run/node.yaml");
    let log = BufReader::new(agent.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let lines: Vec<String> = log.take_while(|line| !line.contains("flock-agent listens")).collect();
    assert!(!lines.iter().any(|line| line.contains("does not do what it says")), "{lines:?}");
    host.run(&format!("kill {}", agent.id()));
    agent.wait().expect("ends");
    host.run("rm -r /run/other");

    host.write(
        "/run/kubeconfig",
        "{current-context: a, contexts: [{name: a, context: {cluster: b}}], clusters: [{name: b, cluster: {server: 'https://127.0.0.1:9'}}]}",
    );
    for (name, arguments, words) in [
        ("my_host", "", "\"my_host\" has '_' in it"),
        ("h", "--node-name Node-A", "--node-name: \"Node-A\" has 'N' in it"),
    ] {
        let agent = named(name, &format!("--kubeconfig /run/kubeconfig {arguments}"));
        let output = agent.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("kubectl get nodes"), "{said}");
    }
    assert!(!host.path("/run/other").exists(), "nothing was touched");
}
