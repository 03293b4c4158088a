//! Each restriction of the shipped unit bites, and none of them is in the agent's way.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::support::host::{Host, host_addresses};
use crate::support::outcome::Attached;
use crate::support::pod::Pod;
use crate::support::programs::{FLOCK, put_script};
use crate::support::waiting::wait_for;

/// Name, outcome under the unit, outcome without it (`|` between those of different kernels).
const REFUSED: &[(&str, &str, &str)] = &[
    ("mount", "EPERM", "ok"),
    ("umount", "EPERM", "ENOENT"),
    ("ptrace", "EPERM", "ok"),
    ("pidfd_getfd", "EPERM", "ok"),
    ("packet-socket", "EAFNOSUPPORT", "ok"),
    ("raw-socket", "EPERM", "ok"),
    ("sysctl-kernel", "EROFS", "ok"),
    ("sysctl-vm", "EROFS", "ok"),
    ("etc", "EROFS", "ok"),
    ("usr", "EROFS", "ok"),
    ("var", "EROFS", "ok"),
    ("run", "EROFS", "ok"),
    ("cgroup", "EROFS", "ok"),
    ("home", "EACCES", "ok"),
    ("root-home", "EACCES", "ok"),
    ("tmp-of-others", "ENOENT", "ok"),
    ("device-of-the-machine", "ENOENT", "ok"),
    ("device-node", "EPERM", "ok"),
    ("user-namespace", "EPERM", "ok"),
    ("mount-namespace", "EPERM", "ok"),
    ("setns-without-kind", "EPERM", "ok"),
    ("setns-mount", "EPERM", "ok"),
    ("module", "EPERM", "ENOENT|ENOSYS"),
    ("clock", "EPERM", "ok"),
    ("kernel-log", "EPERM", "ok"),
    ("reboot", "EPERM", "EINVAL"),
    ("swap", "EPERM", "ENOENT"),
    ("host-name", "EPERM", "ok"),
    ("personality", "EPERM", "ok"),
    ("realtime", "EPERM", "ok"),
    ("priority", "EPERM", "ok"),
    ("set-user-id-file", "EPERM", "ok"),
    ("owner", "EPERM", "ok"),
    ("write-and-execute", "EPERM", "ok"),
];

/// What the agent does, and with what.
const GRANTED: &[(&str, &str)] = &[
    ("setns-net", "ok"),
    ("netlink-socket", "ok"),
    ("packet-filter", "ok"),
    ("unix-socket", "ok"),
    ("inet-socket", "ok"),
    ("inet6-socket", "ok"),
    ("sysctl-net", "ok"),
    ("cni-directory", "ok"),
    ("run-flock", "ok"),
    // CAP_NET_ADMIN and CAP_SYS_ADMIN.
    ("CapBnd", "0000000000201000"),
    ("CapEff", "0000000000201000"),
    ("CapPrm", "0000000000201000"),
    ("CapInh", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
    ("Umask", "0077"),
    ("core-limit", "0"),
];

const PROBE: &str = "/usr/bin/python3 /usr/local/share/tests/probe.py /run/flock/report";

/// What the probe finds when this unit starts it.
fn report(host: &Host, unit: &str) -> BTreeMap<String, String> {
    host.systemctl(&format!("start {unit}"));
    let report = fs::read_to_string(host.path("/run/flock/report")).expect("a report");
    report.lines().filter_map(|line| line.split_once(' ')).map(|(name, is)| (name.into(), is.into())).collect()
}

// covers: FM-F08
#[test]
fn each_restriction_of_the_unit_bites() {
    let host = Host::with_units();
    host.write("/tmp/marker", "");
    host.write("/dev/marker", "");
    host.adapt(
        "flock-agent.service",
        "probe",
        &format!("[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart={PROBE}\n"),
    );
    let under_the_unit = report(&host, "flock-agent");
    host.write("/etc/systemd/system/bare.service", &format!("[Service]\nType=oneshot\nExecStart={PROBE}\n"));
    host.systemctl("daemon-reload");
    let without = report(&host, "bare");
    let wrong: Vec<String> = REFUSED
        .iter()
        .flat_map(|(name, refused, free)| [(name, refused, &under_the_unit), (name, free, &without)])
        .chain(GRANTED.iter().map(|(name, expected)| (name, expected, &under_the_unit)))
        .filter(|(name, expected, found)| {
            !found.get(**name).is_some_and(|found| expected.split('|').any(|expected| found == expected))
        })
        .map(|(name, expected, found)| format!("{name}: {:?} instead of {expected}", found.get(*name)))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

// covers: FM-F08
#[test]
fn everything_that_the_agent_does_works_under_the_unit() {
    let host = Host::with_units();
    host.write(
        "/etc/default/flock-agent",
        "FLOCK_AGENT_FLAGS=--node-name host001 --cni-conf-dir /etc/cni/net.d --log-level debug\n",
    );
    host.run("mkdir -p /opt/cni/bin");
    put_script(host.path("/opt/cni/bin/portmap"), "echo '{\"supportedVersions\": [\"0.4.0\", \"1.0.0\"]}'");
    host.run(&format!("ln -s {FLOCK} /opt/cni/bin/flock"));
    host.systemctl("enable --now flock-agent");
    // The CNI configuration, for which a plugin is asked, and the sysctls of the host.
    wait_for("the CNI configuration", || host.path("/etc/cni/net.d/01-flock.conflist").exists().then_some(()));
    let list = fs::read_to_string(host.path("/etc/cni/net.d/01-flock.conflist")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list["cniVersions"], &list["plugins"][1]["type"]), (&json!(["0.4.0", "1.0.0"]), &json!("portmap")));
    assert_eq!(host.run("cat /proc/sys/net/ipv6/conf/all/forwarding").trim(), "1");

    // Namespaces that are younger than the agent; in one of them, a sysctl has to be written first.
    let (a, b) = (host.pod("a"), host.pod("b"));
    b.script("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6");
    let first = host.add(&a).result();
    let second = host.add(&b).result();
    assert_eq!(second.ips().len(), 2);
    a.assert_pings(second.ips());
    let check = |pod: &Pod<'_>, attached: &Attached| {
        let call = host.cni("CHECK").container(&pod.name).netns(&pod.path()).ifname("eth0");
        call.kubernetes("default", &pod.name).conf("prevResult", attached.result.clone()).done();
    };
    check(&a, &first);
    host.cni("STATUS").done();
    // What they may send is checked in the packet filter.
    let sets = host.nft_sets("inet", "flock");
    assert_eq!(sets["links"].len(), 2, "{sets:?}");

    // State outlives a stop, and so does a delete that was noted meanwhile.
    host.systemctl("stop flock-agent.socket");
    host.del(&b).done();
    assert_eq!(host.leases().len(), 2);
    host.systemctl("start flock-agent");
    host.wait_log("noted delete carried out", 1);
    assert_eq!(host.leases().len(), 1);
    check(&a, &first);
    a.assert_pings(host_addresses());

    // Drift is repaired, and a pod that vanished without a DEL gives its addresses back.
    let c = host.pod("c");
    let third = host.add(&c).result();
    host.run(&format!("ip route del {}/32 dev {}", third.ipv4().expect("IPv4"), third.host_link()));
    host.systemctl("kill --signal HUP flock-agent");
    host.wait_log("host end of a link repaired", 1);
    c.assert_pings(host_addresses());
    c.vanish();
    wait_for("the link to go", || (host.flock_links().len() == 1).then_some(()));
    wait_for("the addresses to come back", || {
        host.systemctl("kill --signal HUP flock-agent");
        (host.leases().len() == 1).then_some(())
    });

    host.cni("GC").conf("cni.dev/valid-attachments", json!([{"containerID": "a", "ifname": "eth0"}])).done();
    check(&a, &first);
    host.assert_sound("with one pod left");
    host.del(&a).done();
    host.assert_empty();
    let log = host.log();
    let troubles = log.lines().filter(|line| line.contains(" warn ") || line.contains(" error "));
    let troubles: Vec<&str> = troubles.filter(|line| !line.contains("lacks what flock gave it")).collect();
    assert_eq!(troubles, Vec::<&str>::new(), "{log}");
}
