//! `flock-agent explain WHAT`: whose an address, a pod, a link or a container is, as the host is, with an agent and without one.

use crate::support::host::{HOST4, Host, one_user_only};
use crate::support::manifests::{CIDR6, node_config};
use crate::support::verb::Typed;

/// What is told of it; it must be known.
#[track_caller]
fn told(host: &Host, what: &str) -> Typed {
    let told = host.types(&format!("explain {what}"));
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(told.out.lines().next().map(|line| line.split(' ').next().unwrap_or_default().is_empty()), Some(false));
    told
}

#[test]
fn an_address_is_told_by_who_has_it_had_it_or_may_never_have_it() {
    let host = Host::new();
    host.run("ip link add up0 type veth peer name cable");
    host.run("ip link set cable up");
    host.run("ip addr add 192.0.2.10/24 dev up0");
    host.run("ip link set up0 up");
    host.run("ip route add default via 192.0.2.254 dev up0");
    // A next hop that stands in the range of the pods.
    host.run("ip route add 198.51.100.0/24 via 10.25.214.200 dev up0 onlink");
    let agent = host.agent().start();
    let [(a, first), (b, second)] = host.attach_all(["a", "b"]).try_into().unwrap_or_else(|_| panic!("two"));
    let ip = first.ipv4().expect("IPv4").to_string();
    let whose = told(&host, &ip);
    let held = format!("default/a, eth0, container a, link {}, for ", first.host_link());
    assert!(whose.line("held").strip_prefix("by     ").is_some_and(|rest| rest.starts_with(&held)), "{whose:?}");
    assert!(whose.line("range") == "10.25.214.0/24 of host001" && whose.err.is_empty(), "{whose:?}");
    let v6 = told(&host, &first.ipv6().expect("IPv6").to_string());
    assert!(v6.out.contains("held by") && v6.line("range").starts_with(CIDR6), "{v6:?}");
    host.del(&b).done();
    let rests = told(&host, &second.ipv4().expect("IPv4").to_string());
    assert!(rests.line("rests").starts_with("it was default/b's, and another pod gets it in "), "{rests:?}");
    for (address, key, said) in [
        ("10.25.214.77", "free", "nobody has it, and a pod may get it"),
        ("10.25.214.255", "never", "a pod's: it is the broadcast address of the range"),
        ("10.25.214.0", "never", "a pod's: it is the network address of the range"),
        ("10.25.214.200", "host", "it is the next hop of a route of the host, so that no pod gets it"),
        ("192.0.2.254", "host", "it is the next hop of a route of the host"),
        ("192.0.2.10", "host", "it is the host's own address"),
        (HOST4, "host", "it is the host's own address"),
        ("169.254.1.1", "gateway", "of pods: the host end of each link has it"),
        ("203.0.113.9", "nobody", "that is known here has it"),
    ] {
        let told = told(&host, address);
        assert_eq!(told.line(key), said, "{told:?}");
    }

    agent.kill();
    // The kernel still shows which ranges the node has, and the record what pods have.
    let down = told(&host, &ip);
    assert!(down.line("held").contains(&held) && down.line("range") == "10.25.214.0/24 of this node", "{down:?}");
    assert!(down.err.contains("flock-agent does not run: what only the agent knows is missing here"), "{down:?}");
    host.del(&a).done();
    assert!(told(&host, &ip).line("held").ends_with("; its delete is noted and waits for the agent"));
    assert_eq!(told(&host, "10.25.214.77").line("free"), "nobody has it, and a pod may get it");
}

#[test]
fn pods_links_and_containers_are_told_with_what_they_have() {
    let host = Host::new();
    let agent = host.agent().start();
    let container = "4f1d2c3b4a5968778695a4b3c2d1e0ff";
    let pod = host.pod("web");
    let attached = host.add(&pod).container(container).annotations(&[("ip-algo", "namespace")]).result();
    let link = attached.host_link();
    for what in ["default/web", &link, container, &container[..6]] {
        let told = told(&host, what);
        assert!(told.out.starts_with("default/web eth0\n") && told.out.contains(&link), "{what}: {told:?}");
        assert_eq!(told.line("container"), container, "{what}");
        assert_eq!(told.line("ipv4"), attached.ipv4().expect("IPv4").to_string(), "{what}");
        // The digits of the address stand for the namespace.
        let shows = told.line("shows");
        assert!(
            shows.starts_with("namespace ") && shows.contains(" (default), ") && shows.ends_with(" of 16"),
            "{told:?}"
        );
    }
    assert!(told(&host, "lo").line("link").contains("is a link of this host"));
    for (what, said) in [
        ("default/other", "no pod of this name has an interface of flock here"),
        ("flock00000000", "no link and no container here has this name"),
        ("4f1", "no link and no container here has this name"),
    ] {
        let told = host.types(&format!("explain {what}"));
        assert!((told.code, told.out.as_str()) == (1, "") && told.err.contains(said), "{told:?}");
    }
    let misused = host.types("explain a/b/c");
    assert!(misused.code == 2 && misused.err.contains("must be an IP address, NAMESPACE/POD"), "{misused:?}");
    assert!(host.types("explain 10.0.0.1 --policy-dir /run").err.contains("TO needs a value"));

    // Of a link whose record was lost, what it bears itself.
    agent.kill();
    host.run("rm /run/flock/state/leases.log");
    let lost = told(&host, &link);
    assert!(lost.out.contains("bears flock's mark, and is not recorded") && lost.out.contains(container), "{lost:?}");
    let address = told(&host, &attached.ipv4().expect("IPv4").to_string());
    assert!(address.out.contains(&format!("leads to    link {link}")), "{address:?}");
}

#[test]
fn what_is_recorded_is_for_root_only_and_a_node_without_ranges_says_so() {
    let host = Host::new();
    let nothing = told(&host, "10.25.214.7");
    assert!(nothing.line("range").starts_with("not known: this node has no NodeConfig in force"), "{nothing:?}");
    assert_eq!(nothing.line("nobody"), "that is known here has it");
    let _agent = host.agent().config(Some(&node_config("", "10.25.214.0/24"))).start();
    if !one_user_only() {
        let denied = host.types_as_nobody("explain 10.25.214.7");
        assert!((denied.code, denied.out.as_str()) == (4, "") && denied.err.contains("root only"), "{denied:?}");
    }
}
