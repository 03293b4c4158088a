//! Pods come, live and go: what every runtime does all day.

use super::*;

// covers: N-08 Q-08 D-21
#[test]
fn a_pod_has_the_addresses_that_the_runtime_tells_and_leaves_nothing() {
    with_each(|containerd| {
        let machine = containerd.machine;
        let agent = machine.cni_agent().start();
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
                machine.run(&format!("ping -n -c 1 -W 1 {ip}"));
            }
            // As a probe of kubelet does.
            sandbox.serve(8080);
            for ip in ips {
                let name = wait_for("the container to serve", || {
                    let name = machine.connects_to(ip, 8080);
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
        machine.assert_empty();
        let deletes = agent.log().lines().filter(|line| line.contains("op=DEL") && line.contains(&both.id)).count();
        eprintln!("{:?}: {deletes} DELs for a pod that was stopped twice and removed", containerd.release);
        assert!(deletes >= 2, "{deletes}");
        agent.stop();
    });
}
