//! Policies beside what others have in the packet filter: a proxy of Services in both of its modes, docker, firewalld, and whoever
//! marks connections. Their rules are as those programs write them, by hand. What others have is compared, handles included.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use super::cluster::{End, Probe, Protocol, Who, key};
use super::compare::assert_packets;
use super::node::{Neighbours, STRANGER, addresses};
use super::policed::Policed;
use super::prober::Verdict;
use super::stories::{all_of, assert_revoked, connections, lets_in};
use super::streams::Streams;
use super::support::host::{HOST4, HOST6, Host};
use super::support::manifests::{CIDR4, CIDR6};
use super::support::programs::succeed;

/// A Service and its port, the port of each node that leads to it, and the port of the pod behind it.
const SERVICE: [&str; 2] = ["10.96.0.10", "2001:db8:96::10"];
const SERVICE_PORT: u16 = 8080;
const NODE_PORT: u16 = 30080;
const POD_PORT: u16 = 80;

/// What stands in the packet filter and is not flock's, without counts.
fn foreign(host: &Host) -> String {
    let listed = host.run("nft -s -a list ruleset");
    let tables = format!("\n{listed}");
    let mut text: String = tables
        .split("\ntable ")
        .filter(|table| {
            !table.starts_with("inet flock ") && !table.starts_with("arp flock ") && !table.contains(" flock_")
        })
        .collect();
    for family in ["iptables", "ip6tables"] {
        for line in host.run(&format!("{family}-legacy-save")).lines().filter(|line| !line.starts_with('#')) {
            text += line.split(" [").next().unwrap_or_default();
            text.push('\n');
        }
    }
    text
}

fn load(host: &Host, program: &str, text: &str) {
    host.write("/run/foreign.rules", text);
    succeed(host.command("sh").args(["-ec", &format!("{program} /run/foreign.rules")]));
}

/// What kube-proxy has in its mode `iptables`, for one family.
fn proxy_by_iptables(service: &str, pod: &str, range: &str) -> String {
    let to = if pod.contains(':') { format!("[{pod}]:{POD_PORT}") } else { format!("{pod}:{POD_PORT}") };
    let chains = "SERVICES NODEPORTS POSTROUTING MARK-MASQ EXT-TCP EXT-UDP SVC-TCP SVC-UDP SEP-TCP SEP-UDP";
    let mut text = String::from("*nat\n");
    chains.split(' ').for_each(|chain| text += &format!(":KUBE-{chain} - [0:0]\n"));
    text += "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
        -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
        -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
        -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
        -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
        -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n";
    for protocol in ["tcp", "udp"] {
        let name = protocol.to_uppercase();
        text += &format!(
            "-A KUBE-SERVICES -d {service} -p {protocol} -m {protocol} --dport {SERVICE_PORT} -j KUBE-SVC-{name}\n\
             -A KUBE-NODEPORTS -p {protocol} -m {protocol} --dport {NODE_PORT} -j KUBE-EXT-{name}\n\
             -A KUBE-EXT-{name} -j KUBE-MARK-MASQ\n\
             -A KUBE-EXT-{name} -j KUBE-SVC-{name}\n\
             -A KUBE-SVC-{name} ! -s {range} -d {service} -p {protocol} -m {protocol} --dport {SERVICE_PORT} -j KUBE-MARK-MASQ\n\
             -A KUBE-SVC-{name} -j KUBE-SEP-{name}\n\
             -A KUBE-SEP-{name} -s {pod} -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{name} -p {protocol} -m {protocol} -j DNAT --to-destination {to}\n"
        );
    }
    text += "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n\
        *filter\n:KUBE-FORWARD - [0:0]\n:KUBE-FIREWALL - [0:0]\n\
        -A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n\
        -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
        -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
        -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
        -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n";
    text
}

/// What kube-proxy has in its mode `nftables`, for one family.
fn proxy_by_nftables(service: &str, pod: &str, range: &str, node: &str) -> String {
    let v6 = pod.contains(':');
    let (family, address) = if v6 { ("ip6", "ipv6_addr") } else { ("ip", "ipv4_addr") };
    let to = if v6 { format!("[{pod}]:{POD_PORT}") } else { format!("{pod}:{POD_PORT}") };
    let mut text = format!(
        "table {family} kube-proxy {{\n\
         comment \"rules for kube-proxy\"\n\
         set cluster-ips {{\ntype {address}\nelements = {{ {service} }}\n}}\n\
         set nodeport-ips {{\ntype {address}\nelements = {{ {node} }}\n}}\n"
    );
    let mut chains = String::new();
    let (mut by_address, mut by_port) = (Vec::new(), Vec::new());
    for protocol in ["tcp", "udp"] {
        let name = format!("ABC-x/web/{protocol}/p80");
        by_address.push(format!("{service} . {protocol} . {SERVICE_PORT} : goto service-{name}"));
        by_port.push(format!("{protocol} . {NODE_PORT} : goto external-{name}"));
        chains += &format!(
            "chain endpoint-{name} {{\n{family} saddr {pod} jump mark-for-masquerade\nmeta l4proto {protocol} dnat to {to}\n}}\n\
             chain service-{name} {{\n{family} daddr {service} {protocol} dport {SERVICE_PORT} {family} saddr != {range} jump mark-for-masquerade\n\
             numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}\n}}\n\
             chain external-{name} {{\njump mark-for-masquerade\ngoto service-{name}\n}}\n"
        );
    }
    text += "chain mark-for-masquerade {\nmeta mark set meta mark or 0x4000\n}\n\
         chain masquerading {\nmeta mark & 0x4000 == 0 return\nmeta mark set meta mark ^ 0x4000\nmasquerade fully-random\n}\n";
    text += &chains;
    text += &format!(
        "map service-ips {{\ntype {address} . inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}\n\
         map service-nodeports {{\ntype inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}\n\
         chain services {{\n{family} daddr . meta l4proto . th dport vmap @service-ips\n\
         {family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
         chain cluster-ips-check {{\n{family} daddr @cluster-ips reject\n}}\n\
         chain filter-forward {{\ntype filter hook forward priority -110\nct state new jump cluster-ips-check\n}}\n\
         chain nat-prerouting {{\ntype nat hook prerouting priority -100\njump services\n}}\n\
         chain nat-output {{\ntype nat hook output priority -100\njump services\n}}\n\
         chain nat-postrouting {{\ntype nat hook postrouting priority 100\njump masquerading\n}}\n}}\n",
        by_address.join(", "),
        by_port.join(", ")
    );
    text
}

/// Probes of x/a from everybody but the node, itself too: through the Service, and through the node's port.
fn through(policed: &Policed<'_>) -> Vec<Probe> {
    let behind = policed.neighbours.ips("x", "a");
    let mut probes = Vec::new();
    for from in policed.neighbours.ends().into_iter().filter(|end| end.who != Who::Node) {
        let family = usize::from(from.address.is_ipv6());
        let to = End { who: Who::Pod(key("x", "a")), address: behind[family] };
        for (address, port) in [(SERVICE[family], SERVICE_PORT), ([HOST4, HOST6][family], NODE_PORT)] {
            let through = Some(SocketAddr::new(address.parse().expect("an address"), port));
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let (from, to) = (from.clone(), to.clone());
                probes.push(Probe { from, to, protocol, port: POD_PORT, through });
            }
        }
    }
    probes
}

/// Beside a proxy whose rules `install` makes of the addresses of the pod behind the Service.
fn assert_beside_a_proxy(mode: &str, install: impl Fn(&Host, &[String])) {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let behind: Vec<String> = policed.neighbours.ips("x", "a").iter().map(ToString::to_string).collect();
    install(&host, &behind);
    let before = foreign(&host);

    let first = policed.cluster().clone();
    let web = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [all_of("y")], "ports": [{"port": 80}]}]});
    let outside = json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]});
    let isolated = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    for (what, namespace, spec) in [
        ("nothing is forbidden", "z", json!({"podSelector": {"matchLabels": {"pod": "nobody"}}})),
        ("those of y", "x", web),
        // The node's proxy hides the client from the pod, and not from the policy.
        ("those outside", "x", outside),
        ("itself", "x", isolated.clone()),
        ("those who may send", "y", isolated),
    ] {
        *policed.cluster() = first.clone();
        policed.cluster().add_policy(namespace, "web", spec);
        policed.enforce();
        let probes = through(&policed);
        assert_packets(&format!("{mode}, allowed: {what}, through the Service"), &mut policed.neighbours, &probes);
        let probes = policed.neighbours.probes();
        assert_packets(&format!("{mode}, allowed: {what}"), &mut policed.neighbours, &probes);
    }

    *policed.cluster() = first.clone();
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("y"), all_of("z")]));
    policed.enforce();
    let revoked = connections(&policed, ("y", "a"), ("x", "a"));
    let all = [revoked.clone(), connections(&policed, ("z", "a"), ("x", "a"))].concat();
    let streams = Streams::start(&all);
    (0..all.len()).for_each(|one| streams.wait_received(one, 20));
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("z")]));
    policed.enforce();
    let next = streams.next();
    streams.wait_sent(next + 100);
    assert_revoked(mode, &streams, &all, revoked.len(), next);
    drop(streams);

    policed.neighbours.detach("z", "c");
    assert_eq!(foreign(&host), before, "{mode}: what is another's stays as it is");
}

#[test]
fn beside_kube_proxy_in_iptables_mode_policies_see_the_pod_behind_a_service_and_the_client_before_it() {
    for backend in ["legacy", "nft"] {
        assert_beside_a_proxy(backend, |host, behind| {
            for (n, family) in ["iptables", "ip6tables"].iter().enumerate() {
                let rules = proxy_by_iptables(SERVICE[n], &behind[n], [CIDR4, CIDR6][n]);
                load(host, &format!("{family}-{backend}-restore"), &rules);
            }
        });
    }
}

#[test]
fn beside_kube_proxy_in_nftables_mode_policies_see_the_pod_behind_a_service_and_the_client_before_it() {
    assert_beside_a_proxy("nftables", |host, behind| {
        for n in [0, 1] {
            let rules = proxy_by_nftables(SERVICE[n], &behind[n], [CIDR4, CIDR6][n], [HOST4, HOST6][n]);
            load(host, "nft -f", &rules);
        }
    });
}

/// How many of these questions are answered, where each of them is `expected` to be or not to be.
fn answered(neighbours: &mut Neighbours<'_>, probes: &[Probe], expected: bool) -> usize {
    let expected = vec![expected; probes.len()];
    neighbours.prober.ask(probes, &expected).into_iter().filter(|verdict| *verdict == Verdict::Answered).count()
}

/// Packets of pods, and what somebody else's rules, which let no pod through until `open` has changed them, do with them.
fn assert_closed_until(policed: &mut Policed<'_>, what: &str, open: impl Fn(&Host)) {
    let host = policed.neighbours.host;
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("y")]));
    policed.enforce();
    let of_node = |probe: &Probe| probe.from.who == Who::Node || probe.to.who == Who::Node;
    let forwarded: Vec<Probe> = policed.neighbours.probes().into_iter().filter(|probe| !of_node(probe)).collect();
    // Some tens of them tell as much.
    let some: Vec<Probe> = forwarded.iter().step_by(forwarded.len() / 64).cloned().collect();
    assert_eq!(answered(&mut policed.neighbours, &some, false), 0, "{what} lets no pod through, whatever flock allows");
    open(host);
    let probes = policed.neighbours.probes();
    assert_packets(&format!("{what}, which lets pods through"), &mut policed.neighbours, &probes);
}

/// A container of docker, at its bridge.
const CONTAINER: &str = "172.17.0.2";
const PUBLISHED: u16 = 8088;

const DOCKER: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8088 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
";

#[test]
fn beside_docker_its_containers_go_on_and_pods_pass_once_its_chain_for_users_lets_them() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    let container = host.pod("container");
    host.script(
        "ip link add docker0 type bridge; ip link set docker0 addrgenmode none up; ip addr add 172.17.0.1/16 dev docker0
         ip link add veth0 type veth peer name eth0 netns container; ip link set veth0 master docker0 addrgenmode none up",
    );
    container.script("ip link set lo up; ip addr add 172.17.0.2/16 dev eth0; ip link set eth0 up; ip route add default via 172.17.0.1");
    load(&host, "iptables-nft-restore", DOCKER);
    load(
        &host,
        "ip6tables-nft-restore",
        "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n",
    );
    let inside: IpAddr = CONTAINER.parse().expect("an address");
    policed.neighbours.prober.settle(&container.netns(), &[inside]);
    let stranger = addresses(STRANGER)[0];
    let end = |address| End { who: Who::Stranger, address };
    let published = Some(SocketAddr::new(HOST4.parse().expect("an address"), PUBLISHED));
    let docker_works = [
        Probe { from: end(inside), to: end(stranger), protocol: Protocol::Tcp, port: 80, through: None },
        Probe { from: end(inside), to: end(stranger), protocol: Protocol::Udp, port: 81, through: None },
        Probe { from: end(stranger), to: end(inside), protocol: Protocol::Tcp, port: 80, through: published },
    ];
    let before = foreign(&host);
    let all = docker_works.len();
    assert_eq!(
        answered(&mut policed.neighbours, &docker_works, true),
        all,
        "a container reaches the outside and is reached"
    );
    assert_closed_until(&mut policed, "docker", |host| {
        assert_eq!(foreign(host), before);
        for family in ["iptables", "ip6tables"] {
            host.run(&format!("{family}-nft -I DOCKER-USER -i flock+ -j ACCEPT"));
            host.run(&format!("{family}-nft -I DOCKER-USER -o flock+ -j ACCEPT"));
        }
    });
    let before = foreign(&host);
    assert_eq!(answered(&mut policed.neighbours, &docker_works, true), all, "and goes on to");
    // To pods a container is somebody outside, and docker's own chain lets nobody else in to it.
    for (to, allowed) in [("a", false), ("b", true)] {
        let address = policed.neighbours.ips("x", to)[0];
        let to = End { who: Who::Pod(key("x", to)), address };
        let probe = Probe { from: end(inside), to, protocol: Protocol::Tcp, port: 80, through: None };
        let answers = answered(&mut policed.neighbours, &[probe], allowed);
        assert_eq!(answers, usize::from(allowed), "a container asks {address}");
    }
    policed.neighbours.detach("z", "c");
    assert_eq!(foreign(&host), before);
}

const FIREWALLD: &str = "table inet firewalld {
chain filter_INPUT {
type filter hook input priority 10
ct state { established, related } accept
iifname \"lo\" accept
}
chain filter_FORWARD {
type filter hook forward priority 10
ct state { established, related } accept
ct status dnat accept
iifname \"lo\" accept
ct state invalid drop
jump filter_FORWARD_POLICIES
reject with icmpx admin-prohibited
}
chain filter_FORWARD_POLICIES {
}
}
";

#[test]
fn beside_firewalld_pods_pass_once_their_links_are_in_a_zone_that_lets_them() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    load(&host, "nft -f", FIREWALLD);
    let before = foreign(&host);
    assert_closed_until(&mut policed, "firewalld", |host| {
        assert_eq!(foreign(host), before);
        for side in ["iifname", "oifname"] {
            host.run_nft(&format!("add rule inet firewalld filter_FORWARD_POLICIES {side} \"flock*\" accept"));
        }
    });
    let before = foreign(&host);
    // firewalld lets established connections pass before all, and a revoked one ends all the same.
    let revoked = connections(&policed, ("y", "a"), ("x", "a"));
    let streams = Streams::start(&revoked);
    (0..revoked.len()).for_each(|one| streams.wait_received(one, 20));
    policed.cluster().add_policy("x", "web", lets_in(&[]));
    policed.enforce();
    let next = streams.next();
    streams.wait_sent(next + 100);
    assert_revoked("firewalld", &streams, &revoked, revoked.len(), next);
    assert_eq!(foreign(&host), before);
}

/// Flock's are the bits 0x7fff0000 of the connection's mark.
#[test]
fn whoever_marks_connections_with_other_bits_finds_them_unchanged() {
    let host = Host::new();
    let mut policed = Policed::start(&host);
    load(
        &host,
        "nft -f",
        "table inet marks {
         counter lost { }
         counter shared { }
         chain marking {
         type filter hook prerouting priority mangle
         ct state new ct mark set ct mark and 0x7fff0000 or 0x8000abcd
         }
         chain seen {
         type filter hook forward priority 50
         ct mark and 0x8000ffff != 0x8000abcd counter name lost
         ct mark and 0x8000ffff == 0x8000abcd ct mark and 0x7fff0000 != 0 counter name shared
         }
         }\n",
    );
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("y"), all_of("z")]));
    policed.enforce();
    let all = connections(&policed, ("y", "a"), ("x", "a"));
    let streams = Streams::start(&all);
    (0..all.len()).for_each(|one| streams.wait_received(one, 20));
    // What is judged anew is marked anew.
    policed.cluster().add_policy("x", "web", lets_in(&[all_of("y")]));
    policed.enforce();
    let next = streams.next();
    (0..all.len()).for_each(|one| streams.wait_received(one, next + 50));
    drop(streams);
    let counted = |name: &str| host.run(&format!("nft list counter inet marks {name}"));
    assert!(counted("lost").contains("packets 0 "), "{}", counted("lost"));
    assert!(!counted("shared").contains("packets 0 "), "flock marks the same connections: {}", counted("shared"));
}
