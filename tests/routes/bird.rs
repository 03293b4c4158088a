//! Nodes whose NodeConfig has a `bgp` block: the agent configures BIRD, and a router learns what the node announces. What the
//! router has, its kernel says; what of a session counts, the agent's log and the traps that others have met.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::network::{Network, Node, RANGES, ip};
use crate::router;
use crate::support::agent::Agent;
use crate::support::fib::{RouteEvent, RouteEvents};
use crate::support::probe::{Echo, Probe};
use crate::support::programs::FLOCK_AGENT;
use crate::support::routers::{BIRD, Bird, Debian};
use crate::support::waiting::{wait_for, wait_or};

const CONFIG: &str = "/run/bird/bird.conf";
const SOCKET: &str = "/run/bird/bird.ctl";

/// What BIRD has before an agent has told it anything.
const NOTHING: &str = "log stderr all;\nrouter id 192.0.2.99;\nprotocol device { }\n";

/// The ranges of the first node at the router.
const OF_ONE: [&str; 2] = ["10.25.1.0/24 via node1", "2001:db8:1:1::/64 via node1"];

fn tor() -> Value {
    json!({"name": "tor1", "address": "2001:db8:a25::1", "asn": 65100})
}

fn bgp(peers: Value) -> Value {
    json!({"bgp": {"asn": 65001, "peers": peers}})
}

/// Starts the agent, and sends it a pod: a node without any has nothing to announce.
fn start<'a>(node: &'a Node, more: Value) -> Agent<'a> {
    let agent = node.agent(more).args(&["--bird-config", CONFIG, "--bird-socket", SOCKET]).start();
    let name = if node.host.path("/run/netns/first").exists() { "second" } else { "first" };
    node.attach(name, &[]);
    agent
}

fn bird(node: &Node) -> Bird<'_> {
    node.host.bird(Debian::Bookworm, NOTHING)
}

fn rewrite(node: &Node, more: Value) {
    node.host.write("/run/node.yaml", &node.config(more));
}

fn text(node: &Node) -> String {
    fs::read_to_string(node.host.path(CONFIG)).unwrap_or_default()
}

#[test]
fn a_block_in_the_node_config_is_all_that_a_router_needs_to_learn_the_node() {
    let network = Network::new();
    let _router = router::bird(&network);
    let nodes = [&network.one, &network.two];
    let birds = nodes.map(bird);
    let _agents = nodes.map(|node| start(node, bgp(json!([tor()]))));
    network.wait_learned(&RANGES);
    assert!(text(&network.one).contains("router id 192.0.2.11;"), "the address by which it leaves");
    assert_eq!(fs::metadata(network.one.host.path(CONFIG)).expect("there").permissions().mode() & 0o7777, 0o640);

    let (pod, attached) = network.one.attach("web", &[]);
    let _echo = Echo::start(&pod.netns(), "web", &attached.ips());
    let probe = Probe::start(&network.client.netns(), &attached.ips(), 1, Duration::from_millis(5));
    probe.wait_answers(20);
    assert_eq!(probe.finish().lost, []);
    birds.iter().for_each(|bird| bird.wait_established("peer_tor1"));
}

#[test]
fn nothing_is_written_and_nobody_is_called_without_the_block_and_sessions_end_with_it() {
    let network = Network::new();
    let _router = router::bird(&network);
    let bird = bird(&network.one);
    let before = text(&network.one);
    let agent = start(&network.one, json!({}));
    // It has looked by the time that a NodeConfig with a block is in force.
    rewrite(&network.one, json!({"mtu": 1400}));
    agent.wait_log_times("NodeConfig in force", 2);
    assert_eq!(text(&network.one), before, "somebody else's file");
    rewrite(&network.one, bgp(json!([tor()])));
    network.wait_learned(&OF_ONE);
    rewrite(&network.one, json!({}));
    agent.wait_log("BIRD has no peers any more");
    network.wait_learned(&[]);
    assert!(!bird.command("show protocols").contains("peer_"));
    assert!(!text(&network.one).contains("protocol bgp"));
}

#[test]
fn a_text_that_bird_refuses_leaves_its_sessions_untouched_and_is_said() {
    let network = Network::new();
    let _router = router::bird(&network);
    let bird = bird(&network.one);
    let agent = start(&network.one, bgp(json!([tor()])));
    network.wait_learned(&OF_ONE);
    agent.wait_log("peers are told");
    let (events, good) = (network.router.route_events(), text(&network.one));
    // The operator's own file is the only part that is not flock's.
    let all = ["protocol bgp x {\n", "protocol static { ipv4; route 10.0.0.0/8 }\n", "\u{0}"];
    for (before, broken) in all.into_iter().enumerate() {
        network.one.host.write("/run/bird/extra.conf", broken);
        agent.wait_log_times("reason=ConfigurationRefused", before + 1);
        assert_eq!(text(&network.one), good);
        fs::remove_file(network.one.host.path("/run/bird/extra.conf")).expect("removable");
        agent.wait_log_times("peers are told", before + 2);
    }
    let said = agent.log();
    assert!(said.contains("extra.conf:1:") || said.contains("extra.conf:2:"), "the place is named: {said}");
    network.one.host.write("/run/bird/extra.conf", "protocol static mine { ipv4 { table flock4; }; }\n");
    wait_for("the operator's own protocol", || bird.command("show protocols").contains("mine").then_some(()));
    bird.wait_established("peer_tor1");
    assert_eq!(gone(&events), []);
}

#[test]
fn what_somebody_else_does_to_bird_is_said_and_put_back() {
    let network = Network::new();
    let _router = router::bird(&network);
    let mut bird = bird(&network.one);
    let agent = start(&network.one, bgp(json!([tor()])));
    network.wait_learned(&OF_ONE);
    agent.wait_log("peers are told");
    let good = text(&network.one);
    // An editor, and BIRD is told.
    bird.configure(NOTHING);
    agent.wait_log("why=\"the file had been changed\"");
    network.wait_learned(&OF_ONE);
    assert_eq!(text(&network.one), good);
    // Cut off, and nobody is told.
    network.one.host.write(CONFIG, &good[..good.len() / 2]);
    wait_for("the whole file", || (text(&network.one) == good).then_some(()));
    // The control socket is away, and comes back with the daemon.
    bird.signal("KILL");
    bird.wait();
    agent.wait_log("reason=BirdUnreachable");
    bird.start(&["-R"]);
    agent.wait_log_times("peers are told", 2);
    network.wait_learned(&OF_ONE);
    assert_eq!(text(&network.one), good);
}

#[test]
fn a_bird_that_was_started_with_another_file_is_left_alone_and_the_log_says_once_what_to_do() {
    let network = Network::new();
    let _router = router::bird(&network);
    network.one.host.write("/run/bird/other.conf", &format!("debug commands 2;\n{NOTHING}"));
    let mut bird = network.one.host.bird_of(Debian::Bookworm, "/run/bird/other.conf", SOCKET);
    bird.start(&[]);
    let agent = start(&network.one, bgp(json!([tor()])));
    let said = agent.wait_log("reason=ConfigurationRefused");
    assert!(said.contains("started with /run/bird/other.conf") && said.contains("-c /run/bird/bird.conf"), "{said}");
    let looks = || bird.log().matches("CLI: show status").count();
    for mtu in [1400, 1300] {
        let seen = looks();
        let mut config = bgp(json!([tor()]));
        config["mtu"] = json!(mtu);
        rewrite(&network.one, config);
        wait_for("another look", || (looks() > seen + 1).then_some(()));
    }
    let log = bird.log();
    assert_eq!(log.lines().filter(|line| line.ends_with("CLI: configure")).count(), 0, "{log}");
    assert_eq!(log.matches("CLI: configure check").count(), 2, "the text is asked about once, and the file: {log}");
    assert_eq!(agent.log().matches("reason=ConfigurationRefused").count(), 1);
    // As the log says.
    bird.signal("TERM");
    bird.wait();
    let mut bird = network.one.host.bird_of(Debian::Bookworm, CONFIG, SOCKET);
    bird.start(&[]);
    network.wait_learned(&OF_ONE);
}

#[test]
fn peers_are_told_before_bird_ever_ran() {
    let network = Network::new();
    let _router = router::bird(&network);
    network.one.host.run("mkdir -p /run/bird");
    let agent = start(&network.one, bgp(json!([tor()])));
    agent.wait_log("reason=BirdUnreachable");
    let wanted = wait_for("the file", || Some(text(&network.one)).filter(|text| text.contains("peer_tor1")));
    let _bird = network.one.host.bird(Debian::Bookworm, &wanted);
    network.wait_learned(&OF_ONE);
}

#[test]
fn a_password_is_in_the_configuration_and_nowhere_else() {
    let network = Network::new();
    let router = router::bird(&network);
    let crate::support::routers::Daemon::Bird(router) = router else { panic!("it is BIRD") };
    let with_password =
        BIRD.replace("2001:db8:a25::11 as 65001;", "2001:db8:a25::11 as 65001; password \"hunter2 {#\";");
    router.configure(&with_password);
    let bird = bird(&network.one);
    let mut peer = tor();
    peer["passwordFile"] = json!("/run/secret");
    network.one.host.write("/run/secret", "hunter2\"; }\n");
    let agent = start(&network.one, bgp(json!([peer])));
    let refusal = agent.wait_log("reason=ConfigurationRefused");
    assert!(refusal.contains("character 8") && refusal.contains("/run/secret"), "{refusal}");
    network.one.host.write("/run/secret", "hunter2 {#\n");
    network.wait_learned(&OF_ONE);
    bird.wait_established("peer_tor1");
    wait_for("the remark", || agent.log().contains("chmod o-r /run/secret").then_some(()));
    assert!(!agent.log().contains("hunter2"), "{}", agent.log());
    assert!(text(&network.one).contains("hunter2 {#"));
    // Another password at the other end.
    router.configure(&with_password.replace("hunter2", "hunter3"));
    agent.wait_log("reason=SessionDown");
    network.one.host.write("/run/secret", "hunter3 {#\n");
    network.wait_learned(&OF_ONE);
}

/// The address of a node that its link alone has.
fn link_local(node: &Node) -> String {
    let shown = node.host.run("ip -6 -o addr show dev eth0 scope link");
    let address = shown.split_whitespace().find(|word| word.starts_with("fe80::")).expect("an address");
    address.trim_end_matches("/64").to_owned()
}

#[test]
fn a_router_at_a_link_local_address_and_one_that_only_a_link_is_named_of() {
    let network = Network::new();
    network.router.run("ip addr add fe80::1/64 dev eth0 nodad");
    let [one, two] = [link_local(&network.one), link_local(&network.two)];
    let all = BIRD
        .replace("neighbor 2001:db8:a25::11 as 65001;", &format!("neighbor {one} as 65001; interface \"eth0\";"))
        .replace("neighbor 2001:db8:a25::12 as 65001;", &format!("neighbor {two} as 65001; interface \"eth0\";"));
    let _router = network.router.bird(Debian::Bookworm, &all);
    let _birds = [&network.one, &network.two].map(bird);
    let known = json!([{"name": "tor1", "address": "fe80::1", "interface": "eth0", "asn": 65100}]);
    let unknown = json!([{"name": "tor1", "interface": "eth0", "asn": "external"}]);
    let _one = start(&network.one, bgp(known));
    let two = start(&network.two, bgp(unknown));
    network.wait_learned(&RANGES);
    two.wait_log("peers are told what this node announces");
}

#[test]
fn an_frr_finds_a_node_by_its_link_alone() {
    let network = Network::new();
    let router = "
router bgp 65100
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 neighbor eth0 interface remote-as external
 neighbor eth0 capability extended-nexthop
 neighbor eth0 timers connect 1
 address-family ipv4 unicast
  neighbor eth0 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor eth0 activate
 exit-address-family
";
    let _router = network.router.frr(Debian::Bookworm, router);
    let _bird = bird(&network.one);
    let _agent = start(&network.one, bgp(json!([{"name": "tor1", "interface": "eth0", "asn": "external"}])));
    network.wait_learned(&OF_ONE);
    // The advertisements by which it is found make the node nobody's router.
    let own = link_local(&network.one);
    for host in [&network.two.host, &network.client, &network.router] {
        assert!(!host.run("ip -6 route show proto ra").contains(&own));
    }
}

#[test]
fn what_peers_may_give_is_what_is_listed_and_never_what_is_the_node_s_own() {
    let network = Network::new();
    let gives = format!(
        "{}
protocol static given4 {{ ipv4; route 10.77.0.0/16 unreachable; route 172.16.0.0/12 unreachable; route 0.0.0.0/0 unreachable;
  route 0.0.0.0/1 unreachable; route 192.0.2.128/25 unreachable; route 10.25.1.4/32 unreachable; route 169.254.7.0/24 unreachable; }}
protocol static given6 {{ ipv6; route 2001:db8:77::/48 unreachable; route ::/0 unreachable;
  route 2001:db8:a25::80/124 unreachable; route 2001:db8:1:1::4/128 unreachable; }}
",
        BIRD.replace("export none;", "export where source = RTS_STATIC;")
    );
    let _router = network.router.bird(Debian::Bookworm, &gives);
    let bird = bird(&network.one);
    let config = |import: Value| json!({"bgp": {"asn": 65001, "import": import, "peers": [tor()]}});
    let _agent = start(&network.one, config(json!(["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"])));
    let taken = || network.one.host.routes("proto bird").into_keys().collect::<Vec<_>>();
    let wait = |wanted: &[&str]| {
        wait_or(|| format!("{:?} instead of {wanted:?}", taken()), || (taken() == wanted).then_some(()))
    };
    wait(&["10.77.0.0/16", "2001:db8:77::/48"]);
    assert!(network.one.host.run("ip route show proto bird").contains("metric 2048"));
    // A default route only where it is listed as it stands.
    rewrite(&network.one, config(json!(["0.0.0.0/0", "::/0"])));
    wait(&["default"]);
    // Nothing that has come from a peer goes to a peer.
    network.wait_learned(&OF_ONE);
    // Not listed any more, not there any more.
    rewrite(&network.one, config(json!([])));
    wait(&[]);
    assert!(!bird.command("show protocols").contains("main4"));
}

#[test]
fn a_default_route_from_a_router_stays_however_many_services_stand_on_a_link_of_the_node() {
    let network = Network::new();
    let gives = format!(
        "{}
protocol static given4 {{ ipv4; route 0.0.0.0/0 unreachable; route 10.77.0.0/16 unreachable; }}
protocol static given6 {{ ipv6; route ::/0 unreachable; }}
",
        BIRD.replace("export none;", "export where source = RTS_STATIC;")
    );
    let _router = network.router.bird(Debian::Bookworm, &gives);
    let _bird = bird(&network.one);
    let config = |import: Value| json!({"bgp": {"asn": 65001, "import": import, "peers": [tor()]}});
    let _agent = start(&network.one, config(json!(["0.0.0.0/0", "::/0"])));
    let host = &network.one.host;
    let taken = || host.routes("proto bird").into_keys().collect::<Vec<_>>();
    let wait = |wanted: &[&str]| {
        wait_or(|| format!("{:?} instead of {wanted:?}", taken()), || (taken() == wanted).then_some(()))
    };
    wait(&["default"]);
    let (events, before) = (host.route_events(), text(&network.one));
    // As kube-proxy does it in IPVS mode.
    host.run("ip link add kube-ipvs0 type veth peer name ipvs1");
    let services: Vec<String> =
        (0..1100).map(|n| format!("address add 172.20.{}.{}/32 dev kube-ipvs0\n", n / 250, n % 250 + 1)).collect();
    host.write("/run/services", &services.concat());
    host.run(&format!("ip -batch {}", host.path("/run/services").display()));
    // The agent has looked at them when it has taken this up.
    rewrite(&network.one, config(json!(["0.0.0.0/0", "::/0", "10.77.0.0/16"])));
    wait(&["10.77.0.0/16", "default"]);
    let (more, after) = (["10.77.0.0/16+, ", ", 10.77.0.0/16+"], text(&network.one));
    assert_eq!(more.iter().fold(after, |text, more| text.replace(more, "")), before, "no word of any service");
    let lost: Vec<RouteEvent> = events.drain().into_iter().filter(|event| event.gone && event.bits == 0).collect();
    assert_eq!(lost, []);
}

/// What the router's kernel has lost of the first node's ranges up to now.
fn gone(events: &RouteEvents) -> Vec<RouteEvent> {
    let ranges = [ip("10.25.1.0"), ip("2001:db8:1:1::")];
    events.drain().into_iter().filter(|event| event.gone && ranges.contains(&event.to)).collect()
}

/// Pings pods of a node while its BIRD is away. Returns how many were lost.
fn lost_while(network: &Network, what: impl FnOnce()) -> usize {
    let (pod, attached) = network.one.attach("web", &[]);
    let _echo = Echo::start(&pod.netns(), "web", &attached.ips());
    let probe = Probe::start(&network.client.netns(), &attached.ips(), 1, Duration::from_millis(2));
    probe.wait_answers(50);
    what();
    probe.wait_answers(200);
    probe.finish().lost.len()
}

/// Waits until the next BIRD is told that it starts once more. Returns the file that says so.
fn wait_told_to_restart(node: &Node) -> PathBuf {
    let environment = node.host.path("/run/flock/bird.env");
    wait_for("the word for the next start", || (fs::read(&environment).ok()? == b"GR=-R\n").then_some(()));
    environment
}

// covers: FM-H01
#[test]
fn bird_is_killed_or_stopped_and_back_and_nothing_is_lost() {
    let network = Network::new();
    let _router = router::bird(&network);
    let mut bird = bird(&network.one);
    let agent = start(&network.one, bgp(json!([tor()])));
    network.wait_learned(&OF_ONE);
    wait_told_to_restart(&network.one);
    let learned = network.router.route_events();
    let lost = lost_while(&network, || {
        bird.signal("KILL");
        bird.wait();
        bird.start(&["-R"]);
        // What is stale and goes stale again is lost (RFC 4724, section 4.2), so one restart ends before the next one begins.
        bird.wait_recovered(1);
        let stop = network.one.host.run(&format!("{FLOCK_AGENT} bird stop --bird-socket {SOCKET}"));
        assert_eq!(stop, "");
        assert!(bird.wait().success());
        bird.start(&["-R"]);
        bird.wait_recovered(2);
    });
    assert_eq!(lost, 0);
    assert_eq!(gone(&learned), []);
    // Who is not there has ended.
    bird.signal("KILL");
    bird.wait();
    network.one.host.run(&format!("{FLOCK_AGENT} bird stop --bird-socket {SOCKET}"));
    drop(agent);
}

// covers: FM-H02
#[test]
fn a_bird_that_is_stopped_on_a_withdrawn_node_takes_everything_back_at_once() {
    let network = Network::new();
    let _router = router::bird(&network);
    let mut bird = bird(&network.one);
    let agent = start(&network.one, bgp(json!([tor()])));
    network.wait_learned(&OF_ONE);
    let environment = wait_told_to_restart(&network.one);
    // As if the withdrawal had been cut off before it reached the kernel.
    agent.kill();
    network.one.host.write("/run/flock/drain", "withdrawn\n");
    network.one.host.run(&format!("{FLOCK_AGENT} bird stop --bird-socket {SOCKET}"));
    assert!(bird.wait().success());
    network.wait_learned(&[]);
    assert!(!environment.exists(), "peers keep nothing for the next start");
}

#[test]
fn a_node_announces_its_anycast_address_though_the_router_says_that_another_node_has_it() {
    let network = Network::new();
    // It gives back everything that it has.
    let _router =
        network.router.bird(Debian::Bookworm, &BIRD.replace("export none;", "export where source = RTS_BGP;"));
    let nodes = [&network.one, &network.two];
    let _birds = nodes.map(bird);
    let config = json!({"bgp": {"asn": 65001, "import": ["203.0.113.0/24", "2001:db8:f::/48"], "peers": [tor()]}});
    let agents = nodes.map(|node| start(node, config.clone()));
    network.wait_learned(&RANGES);
    // What the agents keep in table 102 is of other stories.
    agents.into_iter().for_each(Agent::kill);
    for address in ["203.0.113.5/32", "2001:db8:f::5/128"] {
        network.one.host.run(&format!("ip route add unreachable {address} table 102 proto 102 metric 7"));
    }
    network.wait_anycast("node1");
    wait_for("the other node's way there", || {
        (network.two.host.routes("proto bird").keys().cloned().collect::<Vec<_>>() == ["2001:db8:f::5", "203.0.113.5"])
            .then_some(())
    });
    for address in ["203.0.113.5/32", "2001:db8:f::5/128"] {
        network.two.host.run(&format!("ip route add unreachable {address} table 102 proto 102 metric 8"));
    }
    network.wait_anycast("node1 and node2");
    // A route of somebody else in the table is nobody's announcement.
    network.two.host.run("ip route add 10.99.0.0/24 via 192.0.2.1 table 102 proto static");
    // About to go: the router turns away while the way is still good.
    for address in ["203.0.113.5/32", "2001:db8:f::5/128"] {
        network.one.host.run(&format!("ip route add unreachable {address} table 102 proto 102 metric 4007"));
        network.one.host.run(&format!("ip route del unreachable {address} table 102 proto 102 metric 7"));
    }
    network.wait_anycast("node2");
    // What no other node has is reached until the end, from other nodes as well.
    network.one.host.run("ip route add unreachable 203.0.113.6/32 table 102 proto 102 metric 4008");
    wait_for("the other node's way there", || {
        network.two.host.routes("proto bird").contains_key("203.0.113.6").then_some(())
    });
}

// covers: FM-H02
#[test]
fn a_router_of_the_nodes_own_as_turns_away_from_what_is_about_to_go_and_loses_nothing() {
    let network = Network::new();
    let of_one_as = BIRD.replace("local as 65100;", "local as 65001; direct;");
    let _router = network.router.bird(Debian::Bookworm, &of_one_as);
    let nodes = [&network.one, &network.two];
    let _birds = nodes.map(bird);
    let peer = json!({"name": "tor1", "address": "2001:db8:a25::1", "asn": 65001});
    let agents = nodes.map(|node| start(node, bgp(json!([peer]))));
    network.wait_learned(&RANGES);
    agents.into_iter().for_each(Agent::kill);
    let announce = |node: &Node, address: &str, metric: u32| {
        node.host.run(&format!("ip route add unreachable {address} table 102 proto 102 metric {metric}"));
    };
    let shared = ["203.0.113.5", "2001:db8:f::5"];
    let alone = ["203.0.113.6", "2001:db8:f::6"];
    shared.into_iter().chain(alone).for_each(|address| announce(&network.one, address, 7));
    shared.into_iter().for_each(|address| announce(&network.two, address, 8));
    let of_one = ["203.0.113.6 via node1", "2001:db8:f::6 via node1"];
    let of_both = ["203.0.113.5 via node1 and node2", "2001:db8:f::5 via node1 and node2"];
    network.wait_learned(&[&RANGES[..], &of_one, &of_both].concat());

    let events = network.router.route_events();
    // What is looked at is done first: the end of the others is waited for.
    for address in alone.into_iter().chain(shared) {
        announce(&network.one, address, 4007);
        network.one.host.run(&format!("ip route del unreachable {address} table 102 proto 102 metric 7"));
    }
    let of_two = ["203.0.113.5 via node2", "2001:db8:f::5 via node2"];
    network.wait_learned(&[&RANGES[..], &of_one, &of_two].concat());
    let lost: Vec<RouteEvent> =
        events.drain().into_iter().filter(|event| event.gone && alone.map(ip).contains(&event.to)).collect();
    assert_eq!(lost, []);
}

// covers: FM-H01
#[test]
fn a_peer_that_is_dead_when_bird_starts_costs_the_others_nothing() {
    let network = Network::new();
    let _router = router::bird(&network);
    let mut bird = bird(&network.one);
    let dead = json!({"name": "tor2", "address": "2001:db8:a25::99", "asn": 65100});
    let agent = start(&network.one, bgp(json!([dead, tor()])));
    network.wait_learned(&OF_ONE);
    let said = agent.wait_log("reason=SessionDown");
    assert!(said.contains("err=\"tor2 is down"), "{said}");
    assert!(!said.contains("tor1"), "{said}");
    for arguments in [&[][..], &["-R"]] {
        bird.signal("TERM");
        bird.wait();
        network.wait_learned(&[]);
        bird.start(arguments);
        network.wait_learned(&OF_ONE);
    }
}

#[test]
fn a_node_withdraws_itself_with_and_without_its_agent_and_nothing_is_lost() {
    for with_agent in [true, false] {
        let network = Network::new();
        let _router = router::bird(&network);
        let _birds = [&network.one, &network.two].map(bird);
        let [one, two] = [&network.one, &network.two].map(|node| start(node, bgp(json!([tor()]))));
        network.wait_learned(&RANGES);
        let one = if with_agent {
            Some(one)
        } else {
            one.kill();
            None
        };
        let withdraw = format!("{FLOCK_AGENT} withdraw --wait 0");
        for _ in 0..2 {
            network.one.host.run(&withdraw);
            assert_eq!(network.one.host.routes("table 102"), Default::default());
            network.wait_learned(&["10.25.2.0/24 via node2", "2001:db8:1:2::/64 via node2"]);
        }
        network.one.host.run(&format!("{FLOCK_AGENT} announce"));
        let one = one.unwrap_or_else(|| start(&network.one, bgp(json!([tor()]))));
        network.wait_learned(&RANGES);
        drop((one, two));
    }
}
