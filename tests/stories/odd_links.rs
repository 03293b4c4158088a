//! Stories of links that others fill as they like: texts that are no text, kinds of every sort, properties that flock has never
//! heard of. None of them hides a link, the host's or flock's own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::support::host::{Host, host_addresses};
use crate::support::programs::succeed;
use crate::support::waiting::wait_for;

/// Texts that the kernel takes for an alias: no UTF-8, as long as it may be, with ends of lines, like one of flock's.
fn odd_texts() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> =
        [&b"caf\xe9"[..], b"\xff\xfe\xff", b"two\nlines\r\n\x1b[31m", b"flock:", b"flock:../x/eth0", b"\xc3"]
            .map(<[u8]>::to_vec)
            .to_vec();
    texts.push([b"flock:p/eth0".as_slice(), &[0xff; 243]].concat());
    texts
}

fn set_alias(host: &Host, link: &str, text: &[u8]) {
    succeed(host.command("ip").args(["link", "set", link, "alias"]).arg(OsStr::from_bytes(text)));
}

// covers: FM-K02
#[test]
fn a_pod_whose_link_bears_an_alias_that_is_no_text_works_is_put_right_and_is_deleted() {
    let host = Host::new();
    let agent = host.agent().start();
    let pod = host.pod("p");
    for (n, text) in odd_texts().iter().enumerate() {
        let attached = host.add(&pod).result();
        let check = || {
            host.cni("CHECK")
                .container("p")
                .netns(&pod.path())
                .ifname("eth0")
                .conf("prevResult", attached.result.clone())
                .run()
        };
        check().succeeded();
        set_alias(&host, &attached.host_link(), text);
        // Whatever CHECK makes of another alias, it can tell: it reads the link.
        let said = check();
        assert!(!said.stdout().contains("cannot be read"), "{}", said.stdout());
        if n % 2 == 0 {
            agent.signal("HUP");
            wait_for("the alias", || {
                let shown =
                    host.command("ip").args(["link", "show", &attached.host_link()]).output().expect("ip starts");
                String::from_utf8_lossy(&shown.stdout).contains("alias flock:p/eth0\n").then_some(())
            });
            set_alias(&host, &attached.host_link(), text);
        }
        pod.assert_pings(host_addresses());
        host.del(&pod).done();
        host.assert_empty();
    }
    assert!(!agent.stop().contains("cannot be read"));
}

#[test]
fn a_start_finds_its_pods_though_their_links_bear_what_is_no_text() {
    let host = Host::new();
    let agent = host.agent().start();
    let texts = odd_texts();
    let pods: Vec<_> = (0..texts.len()).map(|n| host.pod(&format!("p{n}"))).collect();
    let attached: Vec<_> = pods.iter().map(|pod| host.add(pod).result()).collect();
    for (attached, text) in attached.iter().zip(&texts) {
        set_alias(&host, &attached.host_link(), text);
    }
    agent.kill();
    let agent = host.agent().start();
    agent.wait_log_times("host end of a link repaired", texts.len());
    host.assert_sound("after the start");
    for pod in &pods {
        pod.assert_pings(host_addresses());
        host.del(pod).done();
    }
    host.assert_empty();
    agent.stop();
}

// covers: FM-K02
#[test]
fn links_of_every_kind_with_odd_texts_hide_neither_the_uplink_nor_a_pod() {
    let host = Host::new();
    host.run("ip link add up0 mtu 1400 type veth peer name up1");
    for line in [
        "ip link set up0 up",
        "ip link set up1 up",
        "ip addr add 192.0.2.1/24 dev up0",
        "ip route add default via 192.0.2.254",
        "ip -6 addr add 2001:db8:99::1/64 dev up0 nodad",
        "ip -6 route add default via 2001:db8:99::fe",
    ] {
        host.run(line);
    }
    // Those that this kernel has; a bridge and a dummy it has everywhere that the tests run.
    let kinds = [
        "bridge",
        "dummy",
        "bond",
        "vlan id 5 link up0",
        "macvlan link up0",
        "ipvlan link up0",
        "vxlan id 7 dev up0 dstport 4789",
        "vrf table 10",
        "ifb",
        "gretap remote 192.0.2.9",
        "ip6tnl remote 2001:db8:99::9",
        "sit remote 192.0.2.9",
        "nlmon",
        "team",
        "geneve id 9 remote 192.0.2.9",
        "macsec link up0",
        "wireguard",
        "veth",
        "netkit",
        "batadv",
        "hsr slave1 up0 slave2 up1",
    ];
    let texts = odd_texts();
    let mut made = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        let mut words = kind.split(' ');
        let (kind, rest) = (words.next().expect("a kind"), words.collect::<Vec<_>>());
        let name = format!("odd{n}");
        let (of_link, of_kind): (Vec<&str>, Vec<&str>) = match rest.iter().position(|word| *word == "link") {
            Some(at) => (rest[at..at + 2].to_vec(), [&rest[..at], &rest[at + 2..]].concat()),
            None => (Vec::new(), rest),
        };
        let mut add = host.command("ip");
        add.args(["link", "add"]).args(&of_link).args(["name", &name, "type", kind]).args(&of_kind);
        if add.output().expect("ip runs").status.success() {
            set_alias(&host, &name, &texts[n % texts.len()]);
            made.push((kind, name));
        }
    }
    assert!(made.iter().any(|(kind, _)| *kind == "veth") && made.len() > 1, "{made:?}");
    set_alias(&host, "up0", &[0xff; 255]);

    let agent = host.agent().start();
    let (a, b) = (host.pod("a"), host.pod("b"));
    let (first, second) = (host.add(&a).result(), host.add(&b).result());
    assert!(a.run("ip link show eth0").contains("mtu 1400"), "the uplink's, which bears what is no text");
    a.assert_pings(second.ips());
    b.assert_pings(first.ips());
    let check = host.cni("CHECK").container("a").netns(&a.path()).ifname("eth0");
    check.conf("prevResult", first.result.clone()).done();
    host.run(&format!("ip route del {}", first.ipv4().expect("IPv4")));
    agent.signal("HUP");
    agent.wait_log("host end of a link repaired");
    b.assert_pings(first.ips());
    host.del(&a).done();
    host.del(&b).done();
    // The tools of the tests read text.
    for (_, name) in &made {
        host.run(&format!("ip link del {name}"));
    }
    set_alias(&host, "up0", b"");
    host.assert_empty();
    let log = agent.stop();
    assert!(!log.contains("cannot be read") && !log.contains("round failed"), "{log}");
}
