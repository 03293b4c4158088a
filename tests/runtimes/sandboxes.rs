//! Pods come, live and go: what every runtime does all day.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::containerd::{CONF_DIR, Containerd, ContainerdRelease, Sandbox};
use crate::support::host::{Host, host_addresses};
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;
use crate::with_each;

// covers: Q-08 D-21
#[test]
fn a_pod_has_the_addresses_that_the_runtime_tells_and_leaves_nothing() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let both = containerd.pod("both").run();
        let six = containerd.pod("six").annotation("ipv4", "false").run();
        let four = containerd.pod("four").annotation("ipv6", "false").run();
        for (sandbox, families) in [(&both, "46"), (&six, "6"), (&four, "4")] {
            let ips = sandbox.ips();
            let heard: String = ips.iter().map(|ip| if ip.is_ipv6() { '6' } else { '4' }).collect();
            // flock names the IPv6 address first; the runtime turns that round unless its `ip_pref` says `cni`.
            assert_eq!(heard, families, "{ips:?}");
            let mut known = sandbox.kernel_ips();
            known.sort_by_key(IpAddr::is_ipv6);
            assert_eq!(known, ips);
            let pod = sandbox.pod();
            assert!(pod.run("ip link show dev lo").contains(",UP"), "lo is up");
            pod.assert_pings(
                host_addresses().into_iter().filter(|host| ips.iter().any(|ip| ip.is_ipv6() == host.is_ipv6())),
            );
            for ip in &ips {
                host.run(&format!("ping -n -c 1 -W 1 {ip}"));
            }
            // As a probe of kubelet does.
            sandbox.serve(8080);
            for ip in ips {
                let name = wait_for("the container to serve", || {
                    let name = host.connects_to(ip, 8080);
                    (!name.is_empty()).then_some(name)
                });
                assert_eq!(name, sandbox.inspect()["status"]["metadata"]["name"].as_str().expect("text"));
            }
        }
        both.pod().assert_pings(six.ips().into_iter().chain(four.ips()));
        for sandbox in [&both, &six, &four] {
            sandbox.stop();
            sandbox.stop();
            sandbox.remove();
        }
        host.assert_empty();
        // The last one's line comes behind its answer, and before the agent's end.
        let deletes = || agent.log().lines().filter(|line| line.contains("op=DEL") && line.contains(&both.id)).count();
        wait_for("a DEL for each of two stops, and one for the removal", || (deletes() >= 3).then_some(()));
        assert_eq!(deletes(), 3);
        agent.stop();
    });
}

#[test]
fn annotations_choose_the_addresses_and_a_wrong_one_is_named_to_kubelet() {
    with_each(|containerd| {
        let host = containerd.host;
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let chosen =
            containerd.pod("chosen").annotation("cidr4", "10.25.214.128/25").annotation("cidr6", "2001:db8::/32");
        let chosen = chosen.annotation("ip-algo", "namespace").run();
        let ips: Vec<String> = chosen.ips().iter().map(IpAddr::to_string).collect();
        let last: u8 = ips[0].rsplit('.').next().and_then(|octet| octet.parse().ok()).expect("an IPv4 address");
        assert!(last >= 128, "{ips:?}");
        // The same digits, whatever the last one is, for all pods of a namespace.
        let other = containerd.pod("other").annotation("ip-algo", "namespace").run();
        let host_part = |ip: &str| ip.strip_prefix("2001:db8:1:f001:").map(|part| part[..part.len() - 1].to_owned());
        assert_eq!(
            host_part(&ips[1]).expect("in the range"),
            host_part(&other.ips()[1].to_string()).expect("in the range")
        );

        let text = containerd.pod("wrong").annotation("ipv4", "perhaps").try_run().err().expect("refused");
        assert!(text.contains("flock.fritzlab.net/ipv4") && text.contains("perhaps"), "{text}");
        chosen.end();
        other.end();
        host.assert_empty();
    });
}

// covers: N-08
#[test]
fn twenty_pods_come_and_go_at_once() {
    with_each(|containerd| {
        let host = containerd.host;
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let sandboxes: Vec<Sandbox<'_, '_>> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..20).map(|n| scope.spawn(move || containerd.pod(&format!("p{n}")).run())).collect();
            runs.into_iter().map(|run| run.join().expect("no panic")).collect()
        });
        let ips: BTreeSet<IpAddr> = sandboxes.iter().flat_map(Sandbox::ips).collect();
        assert_eq!(ips.len(), 40);
        for sandbox in &sandboxes {
            assert!(sandbox.pod().run("ip link show dev lo").contains(",UP"), "lo is up");
        }
        std::thread::scope(|scope| {
            sandboxes.iter().for_each(|sandbox| drop(scope.spawn(|| sandbox.end())));
        });
        host.assert_empty();
    });
}

#[test]
fn host_ports_need_no_iptables_where_portmap_is_new() {
    let host = Host::with_runtimes();
    let containerd = Containerd::start(&host, ContainerdRelease::Two);
    host.run("find /usr/sbin ( -name iptables* -o -name ip6tables* -o -name xtables* ) -delete");
    let _agent = host.cni_agent().start();
    containerd.wait_until_ready();
    let pod = containerd.pod("web").host_port(18080, 8080).run();
    pod.serve(8080);
    for ip in host_addresses() {
        wait_for("the container to serve", || (host.connects_to(ip, 18080) == "web").then_some(()));
    }
    assert!(host.ruleset().contains("cni_hostport"), "{}", host.ruleset());
    pod.end();
    assert!(!host.ruleset().contains("18080"), "{}", host.ruleset());
    host.assert_empty();
}

#[test]
fn the_ipv6_address_comes_first_where_the_runtime_is_told_to_keep_our_order() {
    with_each(|containerd| {
        let host = containerd.host;
        let config = host.path("/etc/containerd/config.toml");
        let text = std::fs::read_to_string(&config).expect("readable");
        let told = text.replace("  conf_dir", "  ip_pref = \"cni\"\n  conf_dir");
        std::fs::write(config, told).expect("writable");
        containerd.end("TERM");
        containerd.again();
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let pod = containerd.pod("a").run();
        let families: Vec<bool> = pod.ips().iter().map(IpAddr::is_ipv6).collect();
        assert_eq!(families, [true, false]);
        pod.end();
        host.assert_empty();
    });
}

// covers: Q-06 FM-A10
#[test]
fn the_old_sandbox_of_a_pod_goes_and_the_new_one_stays() {
    with_each(|containerd| {
        let host = containerd.host;
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let old = containerd.pod("a").run();
        let new = containerd.pod("a").attempt(1).run();
        assert!(old.ips().iter().all(|ip| !new.ips().contains(ip)), "{:?} {:?}", old.ips(), new.ips());
        new.pod().assert_pings(old.ips());
        for end in [Sandbox::stop, Sandbox::stop, Sandbox::remove] {
            end(&old);
            assert_eq!(new.kernel_ips().len(), 2);
            new.pod().assert_pings(host_addresses());
        }
        new.end();
        host.assert_empty();
    });
}

// covers: C-06
#[test]
fn a_port_of_the_host_leads_to_the_pod_and_goes_with_it() {
    with_each(|containerd| {
        let host = containerd.host;
        let world = host.pod("world");
        host.run("ip link add uplink type veth peer name eth0 netns world");
        for (address, from, end) in
            [("10.9.0.1/24", "10.9.0.2/24", "10.9.0.1"), ("fd09::1/64", "fd09::2/64", "fd09::1")]
        {
            host.run(&format!("ip addr add {address} dev uplink nodad"));
            world.run(&format!("ip addr add {from} dev eth0 nodad"));
            host.run("ip link set uplink up");
            world.run("ip link set eth0 up");
            world.run(&format!("ip route add default via {end}"));
        }
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let untouched = host.ruleset();
        let pod = containerd.pod("web").host_port(18080, 8080).run();
        pod.serve(8080);
        for ip in host_addresses() {
            wait_for("the container to serve", || (host.connects_to(ip, 18080) == "web").then_some(()));
            assert_eq!(host.connects_from("world", ip, 18080), "web", "{ip}");
        }
        assert!(host.ruleset().contains("18080"));
        // Beside it, a pod without a port has none.
        let plain = containerd.pod("plain").run();
        pod.end();
        for ip in host_addresses() {
            assert_eq!(host.connects_from("world", ip, 18080), "", "{ip}");
        }
        plain.end();
        assert!(!host.ruleset().contains("18080"), "before:\n{untouched}\nafter:\n{}", host.ruleset());
        world.vanish();
        host.assert_empty();
    });
}

// covers: G-11
#[test]
fn pods_outlive_restarts_of_the_runtime() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let a = containerd.pod("a").run();
        let (ips, netns) = (a.ips(), a.pod());
        for (number, signal) in ["TERM", "KILL"].into_iter().enumerate() {
            containerd.end(signal);
            netns.assert_pings(host_addresses());
            containerd.again();
            assert_eq!(a.ips(), ips, "after {signal}");
            let b = containerd.pod(&format!("b{number}")).run();
            b.pod().assert_pings(ips.clone());
            b.end();
        }
        // It sends no list of what should be there: what it lost, nobody else finds.
        assert!(!agent.log().contains("op=GC"), "{}", agent.log());
        a.end();
        host.assert_empty();
    });
}

// covers: F-03 F-04
#[test]
fn pods_outlive_restarts_of_the_agent_without_losing_a_packet() {
    with_each(|containerd| {
        let host = containerd.host;
        let mut agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let conflist = host.path(&format!("{CONF_DIR}/01-flock.conflist"));
        let (a, b) = (containerd.pod("a").run(), containerd.pod("b").run());
        for signal in ["KILL", "TERM"] {
            let mut traffic = Vec::new();
            for ip in b.ips() {
                let mut ping = host.command("ip");
                ping.args(["netns", "exec", &a.pod().name, "ping", "-n", "-q", "-i", "0.01", &ip.to_string()]);
                traffic.push(ping.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("ping starts"));
            }
            agent.signal(signal);
            agent.wait();
            assert!(conflist.exists(), "a runtime without it could delete no pod");

            // Meanwhile a pod can end, and none can begin.
            let text = containerd.pod("early").try_run().err().expect("no agent, no pod");
            assert!(text.contains("flock-agent does not answer"), "{text}");
            agent = host.cni_agent().start();
            containerd.wait_until_ready();
            let c = containerd.pod("c").run();
            c.pod().assert_pings(a.ips());
            c.end();
            for mut ping in traffic {
                succeed(Command::new("kill").args(["-s", "INT", &ping.id().to_string()]));
                let mut said = String::new();
                ping.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
                ping.wait().expect("waitable");
                assert!(said.contains(" 0% packet loss") && !said.contains(" 0 received"), "{signal}: {said}");
            }
        }
        a.end();
        b.end();
        host.assert_empty();
    });
}

// covers: D-14
#[test]
fn a_pod_that_ends_without_an_agent_is_gone_once_there_is_one() {
    with_each(|containerd| {
        let host = containerd.host;
        let agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let (a, b) = (containerd.pod("a").run(), containerd.pod("b").run());
        agent.kill();
        for _ in 0..3 {
            a.stop();
        }
        a.remove();
        assert_eq!(host.leases().len(), 2, "nobody is there to free it");
        let agent = host.cni_agent().start();
        assert_eq!(host.leases().len(), 1);
        b.pod().assert_pings(host_addresses());
        b.end();
        host.assert_empty();
        agent.stop();
    });
}

// covers: N-10
#[test]
fn a_pod_whose_namespace_was_removed_by_hand_can_be_stopped() {
    with_each(|containerd| {
        let host = containerd.host;
        let _agent = host.cni_agent().start();
        containerd.wait_until_ready();
        let (a, b) = (containerd.pod("a").run(), containerd.pod("b").run());
        a.pod().vanish();
        a.end();
        assert_eq!(host.leases().len(), 1);
        b.pod().assert_pings(host_addresses());
        b.end();
        host.assert_empty();
    });
}
