//! Rows A and R: what ADD makes and what it says about it.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::thread;

use cni::verb::Verb;
use flock::rpc::message::{Request, encode};
use serde_json::{Value, json};

use crate::support::host::{HOST4, HOST6, Host};
use crate::support::manifests::{node_config, node_config_spec};
use crate::support::plugin::Cni;
use crate::support::pod::Pod;
use crate::support::scripted::socket_of;
use crate::support::waiting::wait_for;

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON of ip")
}

/// The default gateways in a pod, IPv6 first.
fn gateways(pod: &Pod) -> Vec<String> {
    let gateway = |family: &str| {
        let routes = json_of(&pod.run(&format!("ip -j {family} route show default")));
        routes[0]["gateway"].as_str().map(str::to_owned)
    };
    [gateway("-6"), gateway("-4")].into_iter().flatten().collect()
}

// covers: A-01 A-10 A-15 R-03 R-04 R-14 R-15
#[test]
fn what_add_prints_is_what_the_kernel_shows_and_it_works_at_once() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let text = host.add(&pod).run().succeeded();
    let addresses = json_of(&pod.run("ip -j addr show dev eth0"));
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "one value and a line end");
    assert_eq!(text.len(), text.trim_end().len() + 1);

    let link = &addresses[0];
    assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    let of_kernel: HashSet<String> = link["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .inspect(|info| assert_ne!(info["tentative"], json!(true), "{info}"))
        .filter(|info| info["scope"] == "global")
        .map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]))
        .collect();
    let printed: HashSet<String> =
        result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap().to_owned()).collect();
    assert_eq!(printed, of_kernel);
    assert_eq!(printed.len(), 2);

    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 2);
    assert_eq!(interfaces[1]["mac"], link["address"]);
    assert_eq!(interfaces[1]["name"], "eth0");
    assert_eq!(interfaces[1]["sandbox"], pod.path());
    let host_end = json_of(&host.run(&format!("ip -j link show dev {}", interfaces[0]["name"].as_str().unwrap())));
    assert_eq!(interfaces[0]["mac"], host_end[0]["address"]);
    assert_eq!(interfaces[0].get("sandbox"), None);
    assert!(result["ips"].as_array().unwrap().iter().all(|ip| ip["interface"] == 1));

    let routes = result["routes"].as_array().unwrap();
    assert_eq!(routes.iter().map(|r| r["dst"].as_str().unwrap()).collect::<Vec<_>>(), ["::/0", "0.0.0.0/0"]);
    assert_eq!(routes.iter().map(|r| r["gw"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), gateways(&pod));
    // Bound to the new addresses, without waiting for anything.
    for (from, to) in
        [(printed.iter().find(|ip| ip.contains(':')), HOST6), (printed.iter().find(|ip| !ip.contains(':')), HOST4)]
    {
        let from = from.unwrap().split('/').next().unwrap();
        pod.run(&format!("ping -n -c 1 -W 1 -I {from} {to}"));
    }
}

// covers: A-02 A-05 X-05
#[test]
fn an_interface_of_that_name_is_never_replaced() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    pod.run("ip link add eth0 type veth");
    let before = pod.run("ip -j -d link");
    let error = host.add(&pod).error();
    assert_eq!(error.code, 4, "{}", error.text());
    assert_eq!(pod.run("ip -j -d link"), before);
    host.assert_empty();
    host.del(&pod).done();
    assert_eq!(pod.run("ip -j -d link"), before, "DEL must not take it either");
}

// covers: A-03 A-04
#[test]
fn a_second_add_is_an_error_wherever_it_points_and_the_first_pod_keeps_working() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (pod, other) = (host.pod("a"), host.pod("b"));
    let ips = host.add(&pod).result().ips();
    let links = other.run("ip -j link");
    for _ in 0..3 {
        assert_ne!(host.add(&pod).error().code, 0);
        assert_ne!(host.add(&pod).netns(&other.path()).error().code, 0);
    }
    assert_eq!(other.run("ip -j link"), links);
    assert_eq!(host.leases().len(), 1);
    assert!(pod.pings(HOST6.parse().unwrap()) && pod.pings(HOST4.parse().unwrap()));
    assert_eq!(host.leases()[0].addresses().collect::<Vec<_>>(), ips);
    host.del(&pod).done();
    let moved = host.add(&pod).netns(&other.path()).result();
    assert!(other.pings(HOST6.parse().unwrap()));
    assert_eq!(moved.result["interfaces"][1]["sandbox"], other.path());
    host.del(&pod).done();
    host.assert_empty();
}

// covers: A-05 D-10 X-07
#[test]
fn an_add_that_fails_at_any_stage_leaves_nothing_and_its_del_succeeds() {
    let host = Host::new();
    let config = node_config("2001:db8:1::/64", "10.9.0.0/30");
    let _agent = host.agent().config(Some(&config)).start();
    let (full, pod) = (host.pod("full"), host.pod("a"));
    host.add(&full).result();
    let taken = model::addr::Attachment { container_id: "a".parse().unwrap(), ifname: "eth0".parse().unwrap() };
    let taken = taken.host_link(0).to_string();
    let leases = host.leases();
    let links = || host.run("ip -j link");
    // In the order of the steps: what it is asked, what the pod wants, the addresses, the link.
    let annotated = |key, value| host.add(&pod).annotations(&[(key, value)]);
    for (what, call) in [
        ("namespace", host.add(&pod).netns("/run/absent")),
        ("arguments", host.add(&pod).env("CNI_ARGS", "K8S_POD_NAME=a b;K8S_POD_NAMESPACE=x")),
        ("annotation", annotated("ipv6", "perhaps")),
        ("range", annotated("cidr6", "2001:db8:ffff::/64")),
        ("a full pool", host.add(&pod)),
        ("no namespace of networks", annotated("ipv4", "false").netns("/proc/self/ns/mnt")),
    ] {
        let before = links();
        let error = call.error();
        assert_ne!(error.code, 3, "{what}: 3 would keep the runtime from sending DEL");
        assert_eq!(host.leases(), leases, "{what}: {}", error.text());
        assert_eq!(links(), before, "{what}: {}", error.text());
        call.clone().env("CNI_COMMAND", "DEL").done();
    }
    host.run(&format!("ip link add {taken} type veth"));
    let before = links();
    let error = annotated("ipv4", "false").error();
    assert!(error.text().contains(&taken), "{}", error.text());
    assert_eq!((host.leases(), links()), (leases.clone(), before.clone()));
    host.del(&pod).done();
    assert_eq!((host.leases(), links()), (leases, before), "a foreign link stays");
    assert!(full.pings(HOST4.parse().unwrap()));
}

// covers: A-07
#[test]
fn many_pods_come_and_go_at_once() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pods: Vec<Pod> = (0..64).map(|i| host.pod(&format!("p{i}"))).collect();
    let each = |work: &(dyn Fn(&Pod) -> Vec<IpAddr> + Sync)| -> Vec<IpAddr> {
        thread::scope(|scope| {
            let running: Vec<_> = pods.iter().map(|pod| scope.spawn(move || work(pod))).collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    };
    let ips = each(&|pod| host.add(pod).result().ips());
    assert_eq!(ips.len(), 128);
    assert_eq!(ips.iter().collect::<HashSet<_>>().len(), 128, "each address once");
    assert_eq!(host.leases().len(), 64);
    each(&|pod| {
        host.del(pod).done();
        Vec::new()
    });
    host.assert_empty();
    each(&|pod| {
        host.add(pod).result();
        host.del(pod).done();
        Vec::new()
    });
    host.assert_empty();
}

// covers: A-08
#[test]
fn a_container_can_have_several_interfaces() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let first = host.add(&pod).result();
    let second = host.add(&pod).ifname("net1").result();
    assert_ne!(first.host_link(), second.host_link());
    assert_eq!(host.leases().len(), 2);
    host.del(&pod).ifname("net1").done();
    assert_eq!(host.leases().len(), 1);
    assert!(pod.pings(HOST6.parse().unwrap()) && pod.pings(HOST4.parse().unwrap()));
    host.del(&pod).done();
    host.assert_empty();
}

// covers: A-09 D-23 R-06
#[test]
fn two_sandboxes_of_one_pod_are_two() {
    let host = Host::new();
    let _agent = host.agent().start();
    let (old, new) = (host.pod("old"), host.pod("new"));
    let old_link = host.add(&old).kubernetes("shop", "web-0").result().host_link();
    let new_link = host.add(&new).kubernetes("shop", "web-0").result().host_link();
    assert_ne!(old_link, new_link);
    for link in [&old_link, &new_link] {
        assert!(link.starts_with("flock"), "never eth0 or lo: {link}");
    }
    host.del(&old).kubernetes("shop", "web-0").done();
    host.del(&old).kubernetes("shop", "web-0").netns("").done();
    assert_eq!(host.flock_links(), [new_link]);
    assert!(new.pings(HOST6.parse().unwrap()) && new.pings(HOST4.parse().unwrap()));
    host.del(&new).done();
    host.assert_empty();
}

fn add_request(pod: &Pod, call: &str) -> Vec<u8> {
    let request = Request {
        op: Verb::Add,
        container_id: pod.name.clone(),
        netns: pod.path(),
        ifname: "eth0".into(),
        args: String::new(),
        path: String::new(),
        stdin_data: br#"{"cniVersion":"1.1.0","name":"flock"}"#.to_vec(),
        call: Some(call.into()),
        left_ms: None,
        sent_ms: None,
    };
    encode(&request).unwrap()
}

// covers: A-04 A-12 P-05
#[test]
fn a_plugin_killed_while_it_waits_leaves_an_attachment_that_is_whole_or_none() {
    let host = Host::new();
    let _agent = host.agent().start();
    for round in 0..20 {
        let pod = host.pod(&format!("p{round}"));
        let mut stream = UnixStream::connect(socket_of(&host)).unwrap();
        stream.write_all(&add_request(&pod, &format!("c{round}"))).unwrap();
        // From the agent's side this is what SIGKILL looks like; it comes at a different step each time.
        drop(stream);
    }
    let whole = || {
        let leases = host.leases();
        let committed = leases.iter().all(|lease| lease.phase == model::lease::Phase::Committed);
        (committed && leases.len() == host.flock_links().len()).then_some(())
    };
    wait_for("attachments that are whole", whole);
    for round in 0..20 {
        host.cni("DEL").container(&format!("p{round}")).ifname("eth0").done();
    }
    wait_for("the end of all", || (host.leases().is_empty() && host.flock_links().is_empty()).then_some(()));
    host.assert_empty();
}

// covers: A-16
#[test]
fn nobody_has_a_reason_to_change_the_hardware_address_of_the_links() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    let link = host.add(&pod).result().host_link();
    // 3: set by user space. Link managers make their own only for random ones.
    assert_eq!(host.run(&format!("cat /sys/class/net/{link}/addr_assign_type")).trim(), "3");
    host.del(&pod).done();
}

// covers: A-14 T-04 T-08
#[test]
fn without_an_address_add_is_an_error_and_never_an_empty_result() {
    let host = Host::new();
    let config = node_config_spec(json!({"cidr4": "10.9.0.0/30"}));
    let _agent = host.agent().config(Some(&config)).start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let ipv4 = |call: Cni<'_>| call.annotations(&[("ipv6", "false")]).run();
    ipv4(host.add(&a)).succeeded();
    let error = ipv4(host.add(&b)).failed();
    assert_eq!(error.code, 11, "{}", error.text());
    host.cni("STATUS").done();
    host.del(&a).done();
    ipv4(host.add(&b)).succeeded();
    let neither = host.add(&a).annotations(&[("ipv6", "false"), ("ipv4", "false")]).error();
    assert!(!neither.msg.is_empty());
}

// covers: R-01 R-08 R-09 R-13 R-15 R-18 V-05 C-02
#[test]
fn each_version_from_add_to_del() {
    let host = Host::new();
    let _agent = host.agent().start();
    let pod = host.pod("a");
    for version in VERSIONS {
        let result = host.add(&pod).version(version).result().result;
        assert_eq!(result["cniVersion"], version);
        let old = version < "1.0.0";
        let families = result["ips"].as_array().unwrap().iter().map(|ip| ip["version"].as_str());
        assert_eq!(families.collect::<Vec<_>>(), if old { [Some("6"), Some("4")] } else { [None, None] });
        assert_eq!(result.get("dns"), old.then(|| json!({})).as_ref());
        assert_eq!(result["interfaces"][1]["mtu"], if version == "1.1.0" { json!(1500) } else { Value::Null });
        for mac in [&result["interfaces"][0]["mac"], &result["interfaces"][1]["mac"]] {
            assert_eq!(mac.as_str().unwrap(), mac.as_str().unwrap().to_lowercase());
        }
        assert!(!result.to_string().contains("null"), "{result}");
        let keys: HashSet<&str> = result["routes"][0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, HashSet::from(["dst", "gw"]));
        for asked in &VERSIONS[2..] {
            let check = host.cni("CHECK").container("a").netns(&pod.path()).ifname("eth0").version(asked);
            check.conf("prevResult", result.clone()).done();
        }
        host.del(&pod).version(version).conf("prevResult", result).done();
        host.assert_empty();
    }
}

// covers: R-10
#[test]
fn a_range_of_mapped_addresses_is_refused_as_a_whole() {
    let host = Host::new();
    let config = node_config_spec(json!({"cidr6": "::ffff:10.0.0.0/112"}));
    let _agent = host.agent().config(Some(&config)).start();
    let pod = host.pod("a");
    assert!(host.add(&pod).run().output.status.code() == Some(1));
    host.assert_empty();
}
