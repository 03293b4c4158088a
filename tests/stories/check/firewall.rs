//! Packet filters of others: what `check` says of a chain is what the kernel does with packets, whatever the chain is made of.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use flock::kernel::nftables::foreign::ForeignTable;
use flock::kernel::nftables::socket::Nftables;
use flock::operator::check::finding::{Finding, Level};
use flock::operator::check::firewall::{Ends, Way, look, packets};
use flock::operator::check::iptables;
use ipnet::IpNet;
use model::addr::Family;
use model::forwarding::{Fate, Link, PORTS};

use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::machine::Machine;
use crate::support::waiting::PATIENCE;

/// How long a packet may take that is said to be dropped. One that is said to pass has all the time.
const DROPPED: Duration = Duration::from_millis(150);

const ONE: &str = "flock1a2b3c4d";
const OTHER: &str = "flock5e6f7a8b";

/// Two links named as pods' are, and one that leads beyond, with somebody at the end of each.
struct Place<'a> {
    host: &'a Host,
    machines: [Machine<'a>; 3],
    listeners: Vec<TcpListener>,
}

/// The addresses at the end of a link: the pods' and the other's.
fn addresses(number: usize) -> [IpAddr; 2] {
    let of = [["10.25.1.2", "2001:db8:1::2"], ["10.25.2.2", "2001:db8:2::2"], ["192.0.2.1", "2001:db8:9::2"]];
    of[number].map(|ip| ip.parse().expect("literal"))
}

fn ranges() -> Vec<IpNet> {
    ["10.25.0.0/16", "2001:db8::/32"].map(|net| net.parse().expect("literal")).to_vec()
}

fn within<T: Send>(machine: &Machine<'_>, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(&machine.netns()).expect("a namespace").run(work).expect("entered")
}

impl Place<'_> {
    fn new(host: &Host) -> Place<'_> {
        let machine = |link, number: usize, v4: &str| {
            let (here6, net6) = (["2001:db8:1::1", "2001:db8:2::1", "2001:db8:9::1"][number], "/64");
            let [there4, there6] = addresses(number);
            let machine = host.machine(
                link,
                &[&format!("{v4}/24"), &format!("{here6}{net6}"), "fe80::1/64"],
                &[&format!("{there4}/24"), &format!("{there6}{net6}"), "fe80::2/64"],
            );
            // About the port from which a packet comes that is asked about.
            within(&machine, || fs::write("/proc/sys/net/ipv4/ip_local_port_range", "48000 49000")).expect("writable");
            machine.run(&format!("ip route add default via {v4}"));
            machine.run(&format!("ip -6 route add default via {here6}"));
            machine
        };
        let machines = [machine(ONE, 0, "10.25.1.1"), machine(OTHER, 1, "10.25.2.1"), machine("up0", 2, "192.0.2.10")];
        host.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let mut listeners = Vec::new();
        for (number, machine) in machines.iter().enumerate() {
            for ip in addresses(number) {
                listeners.push(within(machine, || TcpListener::bind((ip, PORTS[1]))).expect("listens"));
            }
        }
        Place { host, machines, listeners }
    }

    fn ends(&self) -> Vec<Ends> {
        let link = |name: &str| {
            let index = self.host.run(&format!("cat /sys/class/net/{name}/ifindex"));
            Link { name: name.into(), index: index.trim().parse().expect("a number") }
        };
        let of = |family: usize| Ends {
            pods: [(link(ONE), addresses(0)[family]), (link(OTHER), addresses(1)[family])],
            beyond: vec![(link("up0"), addresses(2)[family])],
        };
        vec![of(0), of(1)]
    }

    fn in_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        Netns::open(&self.host.netns()).expect("a namespace").run(work).expect("entered")
    }

    fn tables(&self) -> Vec<ForeignTable> {
        let read = || Nftables::open().and_then(|mut nft| nft.foreign_tables(&[], Instant::now() + PATIENCE));
        self.in_host(read).expect("readable")
    }

    fn load(&self, rules: &str) {
        self.host.write("/run/rules.nft", rules);
        self.host.run("nft flush ruleset");
        self.host.run("nft -f /run/rules.nft");
    }

    /// Whether a connection comes about, which packets that are said to pass have time for.
    fn connects(&self, from: usize, to: IpAddr, said: bool) -> bool {
        let limit = if said { PATIENCE } else { DROPPED };
        let to = SocketAddr::new(to, PORTS[1]);
        within(&self.machines[from], || TcpStream::connect_timeout(&to, limit)).is_ok()
    }

    /// What is said is what happens. Returns how many connections are said to pass.
    #[track_caller]
    fn assert_true_of(&self, rules: &str) -> usize {
        self.load(rules);
        let (tables, packets) = (self.tables(), packets(&self.ends()));
        let says = |ways: [Way; 2], v6: bool| {
            let of = packets.iter().filter(|(way, packet)| ways.contains(way) && packet.source.is_ipv6() == v6);
            of.into_iter().all(|(_, packet)| {
                let seen = tables.iter().filter(|table| table.sees(packet));
                let mut fates = seen.flat_map(|table| table.entrances.iter().map(|at| table.fate(at, packet)));
                fates.all(|fate| match fate {
                    Fate::Passes => true,
                    Fate::Dropped(_) => false,
                    Fate::DroppedUnless(place) => panic!("not known of {place:?}: {rules}"),
                })
            })
        };
        let ways = [("among", 0, 1, [Way::Among; 2]), ("out", 0, 2, [Way::Out, Way::Back]), ("in", 2, 0, [Way::In; 2])];
        thread::scope(|scope| {
            let asked = ways.iter().flat_map(|way| [false, true].map(|v6| (way, v6)));
            let asked: Vec<_> = asked
                .map(|(&(name, from, to, ways), v6)| {
                    let said = says(ways, v6);
                    let to = addresses(to)[usize::from(v6)];
                    (name, v6, said, scope.spawn(move || self.connects(from, to, said)))
                })
                .collect();
            let passed = asked.iter().filter(|(_, _, said, _)| *said).count();
            for (name, v6, said, connects) in asked {
                let really = connects.join().expect("no panic");
                assert_eq!(really, said, "{name}, IPv{}: {rules}", if v6 { 6 } else { 4 });
            }
            passed
        })
    }

    fn look(&self) -> Vec<Finding> {
        let (packets, ranges) = (packets(&self.ends()), ranges());
        self.in_host(|| look(&packets, &ranges, Instant::now() + PATIENCE))
    }
}

/// A table of both families with these rules in its chain at the forward hook.
fn inet(policy: &str, rules: &str) -> String {
    format!("table inet x {{ chain f {{ type filter hook forward priority 0; policy {policy}; {rules}; }}; }}")
}

// covers: FM-S01
#[test]
fn what_is_said_of_a_filter_is_what_the_kernel_does() {
    let host = Host::new();
    let place = Place::new(&host);
    assert_eq!(place.listeners.len(), 6);
    let mut passed = Vec::new();
    for (policy, rules) in [
        ("accept", ""),
        ("drop", ""),
        ("drop", "iifname \"flock*\" accept; oifname \"flock*\" accept"),
        ("drop", "iifname \"flock*\" accept; ct state established,related accept"),
        ("drop", "iifname \"flock*\" accept"),
        ("drop", "iifname \"flock\" accept; oifname \"flock1a2b3c4\" accept"),
        ("drop", "iifname { \"flock*\", \"up0\" } accept"),
        ("drop", "iifname { \"up0\", \"flock1a2b3c4d\" } accept"),
        ("drop", "iifname . oifname { \"up0\" . \"flock1a2b3c4d\", \"flock1a2b3c4d\" . \"up0\" } accept"),
        ("drop", "iifname vmap { \"up0\" : drop, \"flock1a2b3c4d\" : accept, \"flock5e6f7a8b\" : accept }"),
        ("drop", "ct state vmap { established : accept, related : accept, invalid : drop }; oifname \"up0\" accept"),
        ("accept", "iif \"up0\" drop"),
        ("accept", "oif != \"up0\" drop"),
        ("accept", "iif \"up0\" oif \"flock5e6f7a8b\" drop"),
        ("accept", "meta nfproto ipv6 drop"),
        ("accept", "meta protocol ip drop"),
        ("accept", "ip protocol tcp drop; ip6 nexthdr udp drop"),
        ("accept", "meta l4proto { udp, icmp } drop"),
        ("accept", "meta l4proto { udp, tcp } drop"),
        ("accept", "ip saddr 10.25.0.0/16 ip daddr 10.25.0.0/16 drop"),
        ("accept", "ip saddr != 10.25.1.0/24 drop"),
        ("accept", "ip saddr & 255.255.255.1 == 192.0.2.1 drop"),
        (
            "drop",
            "ip saddr { 10.0.0.0/8, 192.0.2.0/24 } accept; ip6 saddr { 2001:db8:1::/48, 2001:db8:9:: - 2001:db8:9::1 } accept",
        ),
        ("drop", "ip saddr { 10.25.1.2, 192.0.2.1 } accept; ip6 saddr != { 2001:db8:1::2 } accept"),
        ("accept", "ip saddr . ip daddr { 10.25.1.0/24 . 10.25.2.0/24, 192.0.2.1 . 10.0.0.0-10.25.1.1 } drop"),
        ("accept", "ip6 daddr . tcp dport { 2001:db8:1::/64 . 22-23, 2001:db8:2::/64 . 1-65535 } drop"),
        ("accept", "tcp dport 22 drop; udp dport 52417 drop"),
        ("accept", "tcp dport 1-52416 drop; th dport 52418-65535 drop"),
        ("accept", "tcp dport >= 52417 reject with tcp reset"),
        ("accept", "tcp dport < 52417 reject"),
        ("accept", "tcp flags syn / fin,syn,rst,ack iifname \"up0\" drop"),
        ("accept", "ct direction reply iifname \"up0\" drop"),
        ("accept", "ct state & (established | related) == 0 oifname \"up0\" reject"),
        ("accept", "ct state new,untracked iifname \"up0\" counter log prefix \"x\" drop"),
        ("accept", "ct status dnat drop; ct state invalid drop; meta mark & 0x4000 == 0x4000 drop"),
        ("accept", "meta mark != 0 drop; meta pkttype broadcast drop"),
        ("accept", "meta mark 0 iifname \"up0\" drop"),
        ("drop", "ip daddr 0.0.0.0/0 accept; ip6 daddr ::/0 accept"),
    ] {
        passed.push(place.assert_true_of(&inet(policy, rules)));
    }
    let jumps = |chains: &str| format!("table inet x {{ {chains}; }}");
    for chains in [
        "chain b { drop; }; chain f { type filter hook forward priority 0; iifname \"up0\" jump b; }",
        "chain b { return; drop; }; chain f { type filter hook forward priority 0; policy drop; jump b; accept; }",
        "chain b { oifname \"up0\" accept; }; chain f { type filter hook forward priority 0; policy drop; goto b; accept; }",
        "chain c { reject; }; chain b { iifname \"up0\" goto c; }; chain f { type filter hook forward priority 0; jump b; }",
        "chain f { type filter hook forward priority 0; iifname \"up0\" jump { ct state established accept; drop; }; }",
        "map m { type ifname : verdict; elements = { \"up0\" : drop } }; chain f { type filter hook forward priority 0; iifname vmap @m; }",
        "set s { type ipv4_addr; flags interval; elements = { 192.0.2.0/25 } }; chain f { type filter hook forward priority 0; ip saddr @s drop; }",
        "chain f { type filter hook forward priority 0; accept; }; chain g { type filter hook forward priority 10; iifname \"up0\" drop; }",
        "chain f { type filter hook input priority 0; policy drop; }; chain g { type filter hook output priority 0; policy drop; }",
        "flags dormant; chain f { type filter hook forward priority 0; policy drop; }",
    ] {
        passed.push(place.assert_true_of(&jumps(chains)));
    }
    for text in [
        "table ip x { chain f { type filter hook forward priority 0; policy drop; }; }",
        "table ip6 x { chain f { type filter hook forward priority 0; policy drop; iifname \"flock*\" accept; }; }",
        "table ip x { chain f { type filter hook forward priority 0; iifname \"up0\" drop; }; }\n\
         table ip6 y { chain f { type filter hook forward priority -5; oifname \"up0\" drop; }; }",
    ] {
        passed.push(place.assert_true_of(text));
    }
    assert!([0, 3, 6].iter().all(|count| passed.contains(count)), "all kinds: {passed:?}");
}

#[test]
fn a_rule_that_nobody_can_foretell_makes_a_warning_and_none_where_it_would_only_drop() {
    let host = Host::new();
    let place = Place::new(&host);
    for (policy, rules, level) in [
        ("drop", "limit rate 10/second accept", Some(Level::Warn)),
        ("drop", "meta mark set 1; meta mark 1 accept", Some(Level::Warn)),
        ("drop", "numgen random mod 2 0 accept", Some(Level::Warn)),
        ("drop", "ct mark 7 accept", Some(Level::Warn)),
        ("accept", "limit rate over 10/second drop", None),
        ("accept", "fib saddr . iif oif missing drop", None),
        ("accept", "ct mark 7 drop", None),
        // Who begins from outside may be kept out on purpose.
        ("drop", "iifname \"flock*\" accept; ct state established accept", Some(Level::Warn)),
        ("drop", "ct mark 7 accept; iifname \"flock*\" accept; oifname \"flock*\" accept", None),
        ("drop", "", Some(Level::Fail)),
    ] {
        place.load(&inet(policy, rules));
        let found = place.look();
        assert_eq!(found.first().map(|finding| finding.level), level, "{rules}: {found:?}");
        for finding in &found {
            assert!(finding.what.starts_with("nftables table inet x, chain f "), "{finding:?}");
        }
    }
}

/// What docker, ufw and an operator leave by iptables, of which kind it is.
const BY_IPTABLES: [&str; 3] = [
    "IPT -P FORWARD DROP; IPT -N DOCKER-USER; IPT -A FORWARD -j DOCKER-USER; \
     IPT -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; \
     IPT -A FORWARD -i docker0 ! -o docker0 -j ACCEPT; IPT -A DOCKER-USER -j RETURN",
    "IPT -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; IPT -A FORWARD -m comment --comment rest -j REJECT",
    "IPT -P FORWARD DROP; IPT -A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT; IPT -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT; \
     IPT -A FORWARD -p icmp -j ACCEPT",
];

#[test]
fn what_iptables_has_made_of_either_kind_is_found_and_its_cure_cures() {
    for rules in BY_IPTABLES {
        for kind in ["iptables-nft", "iptables-legacy"] {
            let host = Host::new();
            let place = Place::new(&host);
            host.script(&rules.replace("IPT", kind));
            let look = || match kind {
                "iptables-nft" => place.look(),
                _ => {
                    let (packets, ranges) = (packets(&place.ends()), ranges());
                    place.in_host(|| iptables::look(Family::V4, &packets, &ranges))
                }
            };
            let found = look();
            assert_eq!(found.len(), 1, "{kind} {rules}: {found:?}");
            let (what, level) = (&found[0].what, found[0].level);
            assert!(level == Level::Fail && what.contains("FORWARD") && what.contains("filter"), "{what}");
            let [_, beyond] = [0, 2].map(|end| addresses(end)[0]);
            assert!(!place.connects(0, beyond, false), "{rules}");
            let Some(flock::operator::check::finding::Remedy::Do(cure)) = &found[0].remedy else { panic!("{found:?}") };
            let commands: Vec<&str> = cure.lines().filter(|line| line.contains(" -I ")).collect();
            assert_eq!(commands.len(), 2, "{cure}");
            host.script(&commands.join("\n"));
            assert_eq!(look(), [], "{kind} {rules}");
            assert!(place.connects(0, beyond, true) && place.connects(2, addresses(0)[0], true), "{rules}");
        }
    }
}
