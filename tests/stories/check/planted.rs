//! Each fault that somebody plants is found and named, and a healthy node has none.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::node::{CONFIGURATION, Living, PLUGINS, agent, check, host, router, usual};
use crate::support::host::{Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::programs::{FLOCK, put_copy, put_script};
use crate::support::waiting::wait_for;

/// What was found once the agent has put right what is its own.
#[track_caller]
fn assert_heals(host: &Host, when: &str) {
    let mut last = None;
    wait_for(when, || {
        let checked = check(host, &[]);
        let well = checked.exit == 0 && checked.wrong().is_empty();
        last = Some(checked);
        well.then_some(())
    });
    last.expect("one look").assert_well(when);
}

#[test]
fn a_healthy_node_is_all_well_with_pods_and_without() {
    let host = host();
    let _router = router(&host);
    let _agent = agent(&host, &usual());
    assert_heals(&host, "no pods");
    let pods = ["a", "b", "c"].map(|name| Living::new(&host, name));
    check(&host, &[]).assert_well("three pods");
    let text = host.command(crate::support::programs::FLOCK_AGENT).arg("check").output().expect("it starts");
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("ok    links           3 leases, 3 links\n"), "{text}");
    assert!(text.ends_with("\n0 failures, 0 warnings\n"), "{text}");
    for pod in &pods {
        host.del(&pod.pod).done();
    }
    check(&host, &[]).assert_well("no pods any more");
}

#[test]
fn whatever_a_link_has_lost_while_the_agent_is_away_is_named_with_its_pod_and_is_back_with_the_agent() {
    let host = host();
    let _router = router(&host);
    let node = agent(&host, &usual());
    let names = ["gone", "route", "neighbour", "alias", "mac", "down", "gateway", "setting", "name", "fine"];
    let pods = names.map(|name| Living::new(&host, name));
    let of = |name: &str| pods.iter().find(|pod| pod.pod.name == name).expect("one of them");
    node.kill();
    let (link, v4, v6) = (|name| of(name).link.clone(), |name| of(name).ip(false), |name| of(name).ip(true));
    host.run(&format!("ip link del {}", link("gone")));
    host.run(&format!("ip route del {}", v4("route")));
    host.run(&format!(
        "ip -6 neigh replace {} dev {} lladdr 02:00:00:00:00:09 nud permanent",
        v6("neighbour"),
        link("neighbour")
    ));
    host.run(&format!("ip link set {} alias mine", link("alias")));
    host.run(&format!("ip link set {} address 02:00:00:00:00:08", link("mac")));
    host.run(&format!("ip link set {} down", link("down")));
    host.run(&format!("ip addr flush dev {} scope host", link("gateway")));
    host.run(&format!("sysctl -q net.ipv4.conf.{}.forwarding=0", link("setting")));
    host.script(&format!("ip link set {0} down; ip link set {0} name mine; ip link set mine up", link("name")));
    let found = check(&host, &[]);
    assert_eq!(found.exit, 3, "nobody answers");
    found.has("agent", "fail", &["does not listen on /run/flock/flock.sock"]);
    found.has("links", "fail", &["default/gone", &link("gone"), "is gone"]);
    found.has("routes", "fail", &[&v4("route").to_string(), "default/route", &link("route")]);
    found.has("neighbours", "fail", &[&v6("neighbour").to_string(), "default/neighbour", "leads elsewhere"]);
    found.has("links", "fail", &["default/alias", "lost its alias flock:alias/eth0"]);
    found.has("links", "fail", &["default/mac", "another hardware address"]);
    found.has("links", "fail", &["default/down", &link("down"), "is down"]);
    found.has("links", "fail", &["default/gateway", "169.254.1.1"]);
    found.has("sysctls", "fail", &["default/setting", "IPv4 forwarding is not 1"]);
    found.has("links", "fail", &["default/name", "is called mine"]);
    assert!(!found.wrong().iter().any(|(_, _, what, _)| what.contains("default/fine")), "{:?}", found.wrong());
    for (area, _, _, remedy) in found.wrong().iter().filter(|(area, ..)| area != "agent") {
        assert_eq!(remedy, "flock-agent check --repair", "{area}");
    }
    let node = agent(&host, &usual());
    node.rounds(2);
    assert_heals(&host, "the agent is back");
}

#[test]
fn pods_that_come_and_go_meanwhile_are_no_findings() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    assert_heals(&host, "the node serves");
    let over = AtomicBool::new(false);
    let rounds = AtomicU32::new(0);
    thread::scope(|scope| {
        for worker in ["a", "b", "c"] {
            let (host, over, rounds) = (&host, &over, &rounds);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let (pod, _) = host.attach(&format!("{worker}{}", rounds.fetch_add(1, Ordering::Relaxed)));
                    host.del(&pod).done();
                }
            });
        }
        let found: Vec<_> = (0..8).flat_map(|_| check(&host, &[]).wrong()).collect();
        over.store(true, Ordering::Relaxed);
        assert_eq!(found, []);
    });
    assert!(rounds.into_inner() > 8, "there was something to meet");
}

#[test]
fn a_running_agent_puts_right_at_once_what_its_operator_asks_for() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    let pods = ["gone", "fine"].map(|name| Living::new(&host, name));
    assert_heals(&host, "the node serves");
    // A lease ends with the second round that misses its link, which is 20 s away.
    host.run(&format!("ip link del {}", pods[0].link));
    let found = check(&host, &[]);
    let (_, _, _, remedy) = found.has("links", "fail", &["default/gone", &pods[0].link, "is gone"]);
    assert_eq!((found.exit, remedy.as_str()), (1, "flock-agent check --repair"));
    check(&host, &["--repair"]).assert_well("repaired");
    assert_eq!(host.leases().len(), 1);
    pods[1].pod.assert_pings(host_addresses());
}

#[test]
fn a_node_without_free_addresses_fails_and_one_that_is_nearly_full_is_warned_of() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &node_config_spec(json!({"cidr4": "10.25.214.0/27"})));
    let pods: Vec<Living<'_>> = (0..28).map(|number| Living::new(&host, &format!("p{number}"))).collect();
    let found = check(&host, &[]);
    found.has("addresses", "warn", &["ipv4 range 10.25.214.0/27 is 96 % full"]);
    assert_eq!(found.exit, 0);
    let _last = Living::new(&host, "last");
    let found = check(&host, &[]);
    found.has("addresses", "fail", &["no IPv4 address is free, 29 are in use"]);
    assert_eq!((found.exit, found.wrong().len(), pods.len()), (1, 1, 28), "{:?}", found.wrong());
}

#[test]
fn an_agent_that_keeps_its_record_elsewhere_is_found_by_its_flags_and_no_pod_is_held_against_another_record() {
    let host = host();
    let _router = router(&host);
    let flags = ["--cni-conf-dir", CONFIGURATION, "--state-dir", "/run/elsewhere"];
    let node = host.agent().config(Some(&usual())).args(&flags).start();
    let pod = Living::new(&host, "p");
    assert_heals(&host, "the record is where the agent says");
    for directory in ["/run/flock/state", "/run"] {
        let found = check(&host, &["--state-dir", directory]);
        found.has("links", "warn", &["record and kernel were not compared"]);
        assert_eq!((found.exit, found.wrong().len()), (0, 1), "{:?}", found.wrong());
    }
    node.kill();
    let found = check(&host, &[]);
    found.has("links", "warn", &["/run/flock/state is missing"]);
    // As the unit would start it.
    host.write("/etc/default/flock-agent", &format!("FLOCK_AGENT_FLAGS=\"{}\"\n", flags.join(" ")));
    host.run(&format!("ip link del {}", pod.link));
    let found = check(&host, &[]);
    found.has("links", "fail", &["default/p", &pod.link, "is gone"]);
    let text = format!("FLOCK_AGENT_SOURCE=--kubeconfig /run/none\nFLOCK_AGENT_FLAGS=\"{}\"\n", flags.join(" "));
    host.write("/etc/default/flock-agent", &text);
    check(&host, &[]).has("credentials", "fail", &["/run/none"]);
}

#[test]
fn tables_of_flock_that_are_gone_or_asleep_while_the_agent_is_away_are_named() {
    let host = host();
    let _router = router(&host);
    let node = agent(&host, &usual());
    let _pod = Living::new(&host, "p");
    assert_heals(&host, "the node serves");
    node.kill();
    let policy = || check(&host, &[]).wrong().into_iter().filter(|(area, ..)| area == "policy").collect::<Vec<_>>();
    assert_eq!(policy(), []);
    host.run("nft add table inet flock { flags dormant; }");
    check(&host, &[]).has("policy", "fail", &["nftables table inet flock is dormant"]);
    host.run("nft delete table inet flock");
    check(&host, &[]).has("policy", "fail", &["nftables table inet flock is missing"]);
    host.run("nft delete table arp flock");
    check(&host, &[]).has("policy", "warn", &["nftables table inet flock is missing: unless spec.sourceCheck is off"]);
    let _node = agent(&host, &usual());
    assert_heals(&host, "the agent is back");
}

#[test]
fn a_configuration_in_front_and_a_plugin_of_another_version_are_named() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    assert_heals(&host, "the node serves");
    let other = format!("{CONFIGURATION}/00-other.conflist");
    host.write(&other, "{\"name\": \"other\", \"plugins\": [{\"type\": \"bridge\"}]}");
    let found = check(&host, &[]);
    let (_, _, _, remedy) = found.has("runtime", "fail", &[&other, "comes before", "01-flock.conflist"]);
    assert_eq!(found.exit, 1);
    host.run(&remedy);
    check(&host, &[]).assert_well("after the remedy");
    // A copy in another of the runtimes' directories, that nobody has renewed, and a program that is none of flock's.
    let (said, older) = ("flock 0.1.0, a CNI plugin", "flock 0.0.9, a CNI plugin");
    let mut plugin = std::fs::read(FLOCK).expect("readable");
    let at = plugin.windows(said.len()).position(|window| window == said.as_bytes()).expect("it says what it is");
    plugin[at..at + older.len()].copy_from_slice(older.as_bytes());
    let copy = format!("{PLUGINS}/flock");
    std::fs::write(host.path("/run/older"), plugin).expect("written");
    put_copy(host.path("/run/older"), host.path(&copy));
    check(&host, &[]).has("runtime", "warn", &["plugin 0.0.9 at /opt/cni/bin/flock", "agent 0.1.0"]);
    put_script(host.path(&copy), "touch /run/executed");
    check(&host, &[]).has("runtime", "warn", &["/opt/cni/bin/flock is not flock's plugin"]);
    assert!(!host.path("/run/executed").exists(), "nothing that is not flock's is run");
}

#[test]
fn a_runtime_that_looks_elsewhere_is_named_with_what_says_so() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    assert_heals(&host, "the node serves");
    let containerd = |bin_dir: &str, conf_dir: &str| {
        let text = format!(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{bin_dir}\"\nconf_dir = \"{conf_dir}\"\n"
        );
        host.write("/etc/containerd/config.toml", &text);
        check(&host, &[])
    };
    containerd(PLUGINS, CONFIGURATION).assert_well("it looks where flock is");
    let found = containerd("/opt/other/bin", "/etc/other/net.d");
    let file = "/etc/containerd/config.toml";
    found.has("runtime", "fail", &["containerd looks for plugins in /opt/other/bin", file, "flock is not there"]);
    let (_, _, _, remedy) =
        found.has("runtime", "fail", &["takes its configuration from /etc/other/net.d", file, CONFIGURATION]);
    assert_eq!((found.exit, remedy.as_str()), (1, "flock-agent install --cni-conf --runtime containerd"));
    // One that is idle beside one that finds flock says nothing of the node.
    containerd(PLUGINS, CONFIGURATION);
    host.write("/etc/crio/crio.conf", "[crio.network]\nplugin_dirs = [\"/opt/other/bin\"]\n");
    let found = check(&host, &[]);
    found.has("runtime", "warn", &["CRI-O looks for plugins in /opt/other/bin"]);
    assert_eq!(found.exit, 0, "{:?}", found.wrong());
}

#[test]
fn what_the_host_has_lost_is_named_and_is_back_with_the_agent() {
    let host = host();
    let _router = router(&host);
    let node = agent(&host, &usual());
    let _pod = Living::new(&host, "p");
    node.kill();
    host.run("sysctl -q net.ipv4.ip_forward=0");
    host.run("sysctl -q net.ipv6.conf.all.forwarding=0");
    host.run(&format!("ip route del unreachable {CIDR4} proto 102"));
    host.run(&format!("ip -6 route del unreachable {CIDR6} table 102"));
    let found = check(&host, &[]);
    found.has("sysctls", "fail", &["net.ipv4.ip_forward is 0"]);
    found.has("sysctls", "fail", &["net.ipv6.conf.all.forwarding is 0"]);
    found.has("routes", "fail", &["unreachable route", CIDR4]);
    found.has("routes", "fail", &[CIDR6, "table 102"]);
    let _node = agent(&host, &usual());
    assert_heals(&host, "the agent is back");
}

#[test]
fn an_uplink_that_drops_what_comes_another_way_is_named() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    host.run("sysctl -q net.ipv4.conf.up0.rp_filter=1");
    assert_heals(&host, "there is one way only");
    // Another one, whose name has a dot in it, as those of VLANs have.
    let _other = host.machine("up1.7", &["198.51.100.10/24"], &["198.51.100.1/24"]);
    host.run("ip route replace default nexthop via 192.0.2.1 nexthop via 198.51.100.1");
    host.run("sysctl -q net/ipv4/conf/up1.7/rp_filter=1");
    let (_, _, _, remedy) = check(&host, &[]).has("sysctls", "warn", &["rp_filter is strict on up1.7"]);
    host.run(&remedy);
    let (_, _, _, remedy) = check(&host, &[]).has("sysctls", "warn", &["rp_filter is strict on up0"]);
    host.run(&remedy);
    assert_heals(&host, "after the remedy");
}

#[test]
fn ranges_that_are_somebody_elses_and_a_next_hop_among_them_are_named() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &node_config_spec(json!({"cidr4": "192.0.2.0/28"})));
    let pod = Living::new(&host, "p");
    let found = check(&host, &[]);
    found.has("addresses", "warn", &["192.0.2.0/28", "192.0.2.0/24", "up0"]);
    found.has("gateway", "warn", &["192.0.2.1 is the next hop of a route of the host and inside 192.0.2.0/28"]);
    assert_eq!(found.exit, 0, "pods work");
    // The router moves to the address of a pod.
    host.run(&format!("ip route replace default via {} dev up0 onlink", pod.ip(false)));
    let found = check(&host, &[]);
    found.has("gateway", "fail", &[&pod.ip(false).to_string(), "default/p has it"]);
    assert_eq!(found.exit, 1);
}

#[test]
fn pods_whose_packets_are_larger_than_the_uplink_takes_are_named() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &node_config_spec(json!({"cidr6": CIDR6, "cidr4": CIDR4, "mtu": 9000})));
    let _pod = Living::new(&host, "p");
    let (_, _, _, remedy) = check(&host, &[]).has("mtu", "warn", &["9000", "up0", "1500"]);
    assert!(remedy.contains("spec.mtu: 1500"), "{remedy}");
}

// covers: FM-S01
#[test]
fn filters_of_others_are_named_by_table_and_chain_and_their_cure_cures() {
    for (rules, table) in [
        (
            "table inet mine { chain passing { type filter hook forward priority 0; policy drop; }; }",
            "table inet mine, chain passing drops by its policy",
        ),
        (
            "table inet mine { chain rest { reject; }; chain passing { type filter hook forward priority 0; jump rest; }; }",
            "table inet mine, chain rest (from passing) drops by a rule",
        ),
    ] {
        let host = host();
        let _router = router(&host);
        let _node = agent(&host, &usual());
        let pods = ["a", "b"].map(|name| Living::new(&host, name));
        host.write("/run/mine.nft", rules);
        host.run("nft -f /run/mine.nft");
        let before = host.run("nft -a list table inet mine");
        let found = check(&host, &[]);
        let (_, _, _, remedy) = found.has("firewall", "fail", &[table, "pods cannot talk"]);
        assert_eq!(found.exit, 1);
        assert_eq!(host.run("nft -a list table inet mine"), before, "nothing foreign is changed");
        assert!(!pods[0].pod.pings(pods[1].ip(false)));
        host.script(&remedy.lines().take(2).collect::<Vec<_>>().join("\n"));
        check(&host, &[]).assert_well("after the remedy");
        pods[0].pod.assert_pings([pods[1].ip(false), pods[1].ip(true)]);
    }
}

#[test]
fn an_older_filter_of_iptables_is_named_too() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    let _pod = Living::new(&host, "p");
    host.run("iptables-legacy -P FORWARD DROP");
    let (_, _, _, remedy) =
        check(&host, &[]).has("firewall", "fail", &["iptables-legacy, table filter, chain FORWARD", "its policy"]);
    host.script(&remedy.lines().take(2).collect::<Vec<_>>().join("\n"));
    check(&host, &[]).assert_well("after the remedy");
}

// covers: FM-S02
#[test]
fn managers_that_would_take_pods_links_are_named() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    host.write("/run/systemd/netif/state", "");
    host.write("/run/systemd/network/zz-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n");
    host.write("/run/NetworkManager/devices/1", "");
    let found = check(&host, &[]);
    let (_, _, _, remedy) = found.has("managers", "warn", &["systemd-networkd", "/run/systemd/network/zz-all.network"]);
    assert!(remedy.contains("05-flock.network"), "{remedy}");
    found.has("managers", "warn", &["NetworkManager", "no unmanaged-devices"]);
    assert_eq!(found.exit, 0);
    // As the remedies say, in the directories that are this host's alone.
    host.write("/run/systemd/network/05-flock.network", "[Match]\nName=flock*\n[Link]\nUnmanaged=yes\n");
    host.write("/run/NetworkManager/conf.d/flock.conf", "[keyfile]\nunmanaged-devices+=interface-name:flock*\n");
    check(&host, &[]).assert_well("after the remedies");
}

#[test]
fn a_proxy_of_services_that_does_not_know_the_pods_is_named() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    put_script(host.path("/run/kube-proxy"), "read end");
    for (configuration, warns) in [
        ("clusterCIDR: 10.244.0.0/16", true),
        ("detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: flock}", false),
    ] {
        host.write("/run/proxy.yaml", configuration);
        let mut proxy = host.command("/run/kube-proxy");
        let mut proxy = proxy.arg("--config=/run/proxy.yaml").stdin(Stdio::piped()).spawn().expect("it starts");
        let told = wait_for("the proxy to be found", || {
            let checked = check(&host, &[]);
            let findings = checked.said["findings"].as_array().expect("findings").clone();
            let of = findings.into_iter().find(|finding| finding["area"] == "kube-proxy").expect("always told");
            (of["what"] != "none runs on this host").then_some(of)
        });
        drop(proxy.stdin.take());
        proxy.wait().expect("it ends");
        assert_eq!(told["level"], if warns { "warn" } else { "ok" }, "{told}");
        assert!(
            !warns || told["what"].as_str().is_some_and(|what| what.contains("10.244.0.0/16 does not hold")),
            "{told}"
        );
    }
}

#[test]
fn the_proxy_inside_k3s_is_judged_by_the_settings_of_k3s() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    for (program, settings, level, says) in [
        ("k3s-agent", "server: https://192.0.2.7:6443", "ok", "takes its clusterCIDR from the server"),
        ("k3s-server", "flannel-backend: none", "warn", "clusterCIDR 10.42.0.0/16 does not hold 10.25.214.0/24"),
        ("k3s-server", "cluster-cidr: [10.25.0.0/16]", "ok", "clusterCIDR 10.25.0.0/16 holds"),
        (
            "k3s-server",
            "kube-proxy-arg: [v=2, detect-local-mode=InterfaceNamePrefix, pod-interface-name-prefix=flock]",
            "ok",
            "interfaceNamePrefix flock",
        ),
        ("k3s-server", "disable-kube-proxy: true", "ok", "k3s runs none"),
    ] {
        host.write("/etc/rancher/k3s/config.yaml", settings);
        let path = format!("/run/{program}");
        put_script(host.path(&path), "read end");
        let mut k3s = host.command(&path).stdin(Stdio::piped()).spawn().expect("it starts");
        let told = wait_for("k3s to be found", || {
            let checked = check(&host, &[]);
            let findings = checked.said["findings"].as_array().expect("findings").clone();
            let of = findings.into_iter().find(|finding| finding["area"] == "kube-proxy").expect("always told");
            (of["what"] != "none runs on this host").then_some(of)
        });
        drop(k3s.stdin.take());
        k3s.wait().expect("it ends");
        assert!(told["level"] == level && told["what"].as_str().is_some_and(|what| what.contains(says)), "{told}");
        assert_eq!(told["remedy"].as_str().is_some_and(|cure| cure.contains("kube-proxy-arg:")), level == "warn");
    }
}

/// A kubeconfig whose token ends in so many seconds.
fn kubeconfig(host: &Host, seconds: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
    let claims = URL_SAFE_NO_PAD.encode(json!({"iat": now - 100, "exp": now + seconds}).to_string());
    host.write("/run/token", &format!("e30.{claims}.c2ln"));
    host.write(
        "/run/kubeconfig",
        "{\"current-context\": \"c\", \"contexts\": [{\"name\": \"c\", \"context\": {\"cluster\": \"k\", \"user\": \"u\"}}],\
         \"clusters\": [{\"name\": \"k\", \"cluster\": {\"server\": \"https://192.0.2.7\", \"insecure-skip-tls-verify\": true}}],\
         \"users\": [{\"name\": \"u\", \"user\": {\"tokenFile\": \"/run/token\"}}]}",
    );
}

#[test]
fn a_token_that_ends_is_told_before_and_after() {
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    assert_heals(&host, "the node serves");
    let day = 24 * 3600;
    for (seconds, level, exit) in [(9 * day, Some("warn"), 0), (-day, Some("fail"), 1), (100 * day, None, 0)] {
        kubeconfig(&host, seconds);
        let found = check(&host, &["--kubeconfig", "/run/kubeconfig"]);
        assert_eq!(found.exit, exit, "{:?}", found.wrong());
        match level {
            Some(level) => drop(found.has("credentials", level, &["the token in /run/token ends at"])),
            None => found.assert_well("it lasts"),
        }
    }
    host.run("rm /run/token");
    let found = check(&host, &["--kubeconfig", "/run/kubeconfig"]);
    found.has("credentials", "fail", &["cannot read /run/token"]);
    assert_eq!(found.exit, 1);
}

#[test]
fn nothing_foreign_is_changed_and_nothing_is_left_behind() {
    let host = host();
    let _router = router(&host);
    let node = agent(&host, &usual());
    let pods = ["a", "b"].map(|name| Living::new(&host, name));
    host.write(
        "/run/mine.nft",
        "table inet mine { chain passing { type filter hook forward priority 0; policy drop; }; }",
    );
    host.run("nft -f /run/mine.nft");
    host.run("iptables-legacy -P FORWARD DROP");
    host.write("/run/systemd/netif/state", "");
    host.write("/run/systemd/network/zz-all.network", "[Match]\nName=*\n");
    host.run("ip route add 198.51.100.0/24 via 192.0.2.1 proto static");
    let seen = || {
        let shown = "ip -d addr; ip route show table all; ip -6 route show table all; ip neigh show nud permanent; ip rule; \
                     nft -s -a list ruleset; iptables-legacy-save | grep -v '^#'; ls -laR --time-style=full-iso /run /opt/cni; \
                     sysctl -a 2>/dev/null | grep -v 'random\\|nr_\\|conntrack_count\\|ns_last\\|fs\\.\\|kernel\\.\\|vm\\.'";
        host.script(shown)
    };
    // With the agent and without, and what is printed for people, too.
    for down in [false, true] {
        if down {
            node.signal("STOP");
        }
        let before = seen();
        let found = check(&host, &[]);
        assert_eq!(found.exit, if down { 3 } else { 1 }, "{:?}", found.wrong());
        host.command(crate::support::programs::FLOCK_AGENT).arg("check").output().expect("it starts");
        let after = seen();
        assert_eq!(before, after);
    }
    node.signal("CONT");
    drop(pods);
}

#[test]
fn who_is_not_root_is_told_so() {
    if crate::support::host::one_user_only() {
        return;
    }
    let host = host();
    let _router = router(&host);
    let _node = agent(&host, &usual());
    let mut command = host.command("setpriv");
    command.args(["--reuid", "1", "--regid", "1", "--clear-groups", crate::support::programs::FLOCK_AGENT, "check"]);
    let output = command.output().expect("setpriv (util-linux) starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{said}{errors}");
    assert!(said.is_empty() && errors.contains("root only"), "{said}{errors}");
}
