//! The units of BIRD with the real systemd: a router on the other end of a cable sees what their restarts and ends cost.

use std::fs;

use serde_json::{Value, json};

use crate::host::bare;
use crate::support::booted::unit_line;
use crate::support::fib::RouteEvents;
use crate::support::host::Host;
use crate::support::log::wait_line;
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::programs::{FLOCK_AGENT, succeed};
use crate::support::routers::Debian;
use crate::support::switch::cable;
use crate::support::waiting::{wait_for, wait_or};

const CONFIG: &str = "/etc/flock/bird/bird.conf";

const ROUTER: &str = "
log stderr all;
router id 192.0.2.1;
protocol device { }
protocol kernel { ipv4 { export where source = RTS_BGP; import none; }; }
protocol kernel { ipv6 { export where source = RTS_BGP; import none; }; }
protocol bgp node {
  local as 65100; neighbor 192.0.2.11 as 65001;
  graceful restart on; connect delay time 1; error wait time 1,2;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
";

/// What a router adds that gives nodes their default route.
const DEFAULT_ROUTE: &str = "protocol static { ipv4; route 0.0.0.0/0 unreachable; }\n";

/// A node with the units, with a user for BIRD, and with Debian's BIRD where it can be started.
fn node() -> Host {
    let host = Host::with_units();
    let shipped = ["flock-bird.service", "flock-announce.service"].map(|unit| format!("/usr/local/share/units/{unit}"));
    host.run(&format!("install -m 0644 -t /etc/systemd/system -- {}", shipped.join(" ")));
    host.run("mkdir -p /etc/flock/bird");
    host.put_bird();
    host.write("/etc/flock/node.yaml", &node_config_spec(spec()));
    host
}

fn spec() -> Value {
    let bgp = json!({"asn": 65001, "peers": [{"name": "tor1", "address": "192.0.2.1", "asn": 65100}]});
    json!({"cidr4": CIDR4, "cidr6": CIDR6, "bgp": bgp})
}

/// The commands of docs/reachability.md.
fn starting_bird() -> impl Iterator<Item = String> {
    let page = include_str!("../../docs/reachability.md").lines();
    let mut lines = page.skip_while(|line| *line != "### Starting BIRD").skip_while(|line| *line != "```sh").skip(1);
    let commands: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
    commands.into_iter().map(|line| line.replace("flock-agent", FLOCK_AGENT))
}

fn ranges(router: &Host) -> usize {
    router.routes("proto bird").len()
}

fn lost(events: &RouteEvents) -> usize {
    events.drain().iter().filter(|event| event.gone && event.table == 254).count()
}

/// What BIRD, its unit and the agent have said, for whoever finds out why a story went another way.
fn said(host: &Host) -> String {
    let of_bird = fs::read_to_string(host.path("/run/bird.log")).unwrap_or_default();
    format!("{}\n{of_bird}\n{}", host.ask("systemctl --no-pager status flock-bird flock-announce"), host.log())
}

/// The user as which BIRD runs, and the one that has its socket.
fn users(host: &Host) -> [String; 2] {
    let pid = host.property("flock-bird", "MainPID");
    [format!("/proc/{pid}"), "/run/flock/bird.ctl".into()]
        .map(|path| succeed(&mut host.inside(&format!("stat --format %U {path}"))).trim().to_owned())
}

/// The command line of BIRD.
fn called(host: &Host) -> String {
    let pid = host.property("flock-bird", "MainPID");
    succeed(&mut host.inside(&format!("cat /proc/{pid}/cmdline"))).replace('\0', " ")
}

// covers: FM-H01 FM-H02
#[test]
fn a_restart_of_bird_or_agent_loses_nothing_and_the_node_withdraws_when_it_goes_down() {
    let (host, router) = (node(), Host::with(&[]));
    let outside = ["192.0.2.11/24", "2001:db8:a25::11/64"];
    cable((&router, "eth0", &["192.0.2.1/24", "2001:db8:a25::1/64"]), (&host, "eth0", &outside));
    let _daemon = router.bird(Debian::Bookworm, ROUTER);
    host.systemctl("enable --now flock-agent");
    let pod = host.pod("a");
    host.add(&pod).result();
    wait_for("the configuration", || host.path(CONFIG).exists().then_some(()));
    host.systemctl("enable --now flock-bird flock-announce");
    wait_or(|| said(&host), || (ranges(&router) == 2).then_some(()));
    assert!(!called(&host).contains("-R"), "nobody has kept anything at the first start of a boot");
    assert_eq!(users(&host), ["bird", "bird"]);
    wait_for("the word for the next start", || host.path("/run/flock/bird.env").exists().then_some(()));

    let events = router.route_events();
    host.systemctl("restart flock-bird");
    wait_for("a restart that is one", || called(&host).contains("-R").then_some(()));
    // What peers have kept for it and it does not announce anew is lost by then, and not before.
    wait_line(|| fs::read_to_string(host.path("/run/bird.log")).unwrap_or_default(), "Graceful restart done", 1);
    host.wait_log("peers are told", 1);
    host.systemctl("restart flock-agent");
    host.wait_log("peers are told", 2);
    assert_eq!((lost(&events), ranges(&router)), (0, 2));

    // What happens to it when the host goes down.
    host.systemctl("stop flock-announce");
    wait_for("nothing at the router", || (ranges(&router) == 0).then_some(()));
    host.systemctl("start flock-announce");
    wait_for("both ranges at the router", || (ranges(&router) == 2).then_some(()));
    host.del(&pod).done();

    // The host goes down: what it is about to end knows an order. Nobody keeps anything for a BIRD that is not to come back.
    wait_for("the word for the next start", || host.path("/run/flock/bird.env").exists().then_some(()));
    host.adapt("shutdown.target", "by-hand", "[Unit]\nRefuseManualStart=no\n");
    host.systemctl("start shutdown.target");
    for unit in ["flock-announce", "flock-bird", "flock-agent"] {
        wait_for(unit, || (host.property(unit, "ActiveState") == "inactive").then_some(()));
    }
    wait_for("nothing at the router", || (ranges(&router) == 0).then_some(()));
    assert!(!host.path("/run/flock/bird.env").exists(), "{}", said(&host));
}

// covers: FM-H02
#[test]
fn whatever_stops_with_the_host_still_has_the_default_route_that_bird_has_brought() {
    let (host, router) = (node(), Host::with(&[]));
    cable((&router, "eth0", &["192.0.2.1/24"]), (&host, "eth0", &["192.0.2.11/24"]));
    let gives = ROUTER.replace("export none; };\n  ipv6", "export where proto = \"static1\"; };\n  ipv6");
    let _daemon = router.bird(Debian::Bookworm, &format!("{gives}{DEFAULT_ROUTE}"));
    let mut spec = spec();
    spec["bgp"]["import"] = json!(["0.0.0.0/0"]);
    host.write("/etc/flock/node.yaml", &node_config_spec(spec));
    // To systemd, a file system of another host, and somebody who uses it. All of them end slowly.
    host.run("mkdir -p /mnt/remote");
    let mount = "[Mount]\nWhat=tmpfs\nWhere=/mnt/remote\nType=tmpfs\nOptions=_netdev\n";
    host.write("/etc/systemd/system/mnt-remote.mount", mount);
    let database = "[Unit]\nBefore=flock-announce.service\nRequiresMountsFor=/mnt/remote\n";
    for (name, more, seconds) in [("kubelet", "", 1), ("containerd", "", 1), ("database", database, 2)] {
        let unit = format!("{more}[Service]\nExecStart=/usr/bin/sleep infinity\nExecStop=/usr/bin/sleep {seconds}\n");
        host.write(&format!("/etc/systemd/system/{name}.service"), &unit);
    }
    let look = "systemctl is-active kubelet containerd mnt-remote.mount >/run/at-the-end-of-bird";
    let stop = unit_line("ExecStop=");
    let stop = format!("[Service]\nExecStop=\nExecStop=+/bin/sh -c '{look}; true'\n{stop}\n");
    host.adapt("flock-bird.service", "look", &stop);
    host.systemctl("start kubelet containerd database");
    host.systemctl("enable --now flock-agent");
    wait_for("the configuration", || host.path(CONFIG).exists().then_some(()));
    host.systemctl("enable --now flock-bird flock-announce");
    let default = || host.ask("ip -4 route show default").contains("via 192.0.2.1 dev eth0 proto bird");
    wait_or(|| said(&host), || default().then_some(()));

    // Both at once, as a reboot does.
    host.adapt("shutdown.target", "by-hand", "[Unit]\nRefuseManualStart=no\nRequires=umount.target\n");
    host.systemctl("start shutdown.target");
    wait_for("the end of BIRD", || (host.property("flock-bird", "ActiveState") == "inactive").then_some(()));
    assert!(!default(), "BIRD takes it along, so it ends last");
    let others = fs::read_to_string(host.path("/run/at-the-end-of-bird")).expect("written");
    assert_eq!(others, "inactive\n".repeat(3), "kubelet, containerd and the mount when BIRD was told to end");
}

// covers: FM-H01
#[test]
fn a_node_on_which_only_bird_was_enabled_is_withdrawn_all_the_same_when_it_goes_down() {
    let host = node();
    host.write(CONFIG, include_str!("../data/bird/first.conf"));
    host.systemctl("start flock-bird");
    wait_for("whoever withdraws", || (host.property("flock-announce", "ActiveState") == "active").then_some(()));
    host.adapt("shutdown.target", "by-hand", "[Unit]\nRefuseManualStart=no\n");
    host.systemctl("start shutdown.target");
    wait_for("the end of BIRD", || (host.property("flock-bird", "ActiveState") == "inactive").then_some(()));
    assert_eq!(fs::read_to_string(host.path("/run/flock/drain")).expect("written").trim(), "withdrawn");
}

// covers: FM-H01
#[test]
fn a_bird_that_dies_again_and_again_is_started_each_time() {
    let host = node();
    host.write(CONFIG, include_str!("../data/bird/first.conf"));
    // Its pace aside.
    host.adapt("flock-bird.service", "pace", "[Service]\nRestartSec=50ms\n");
    host.systemctl("start flock-bird");
    // To systemd, only the first one is a failure.
    for signal in ["KILL", "TERM"].into_iter().cycle().take(8) {
        let pid = host.property("flock-bird", "MainPID");
        host.systemctl(&format!("kill --signal {signal} flock-bird"));
        wait_or(
            || said(&host),
            || {
                let now = host.property("flock-bird", "MainPID");
                (now != "0" && now != pid).then_some(())
            },
        );
    }
}

// covers: FM-G01
#[test]
fn a_fresh_node_speaks_bgp_by_the_line_that_install_prints_and_is_as_before_when_flock_is_gone() {
    let (host, router) = (bare(), Host::with(&[]));
    host.put_bird();
    // So that it can be met between two lives.
    host.adapt("flock-bird.service", "pace", "[Service]\nRestartSec=1h\n");
    let pod = host.pod("a");
    let before = host.everything();
    let outside = ["192.0.2.11/24", "2001:db8:a25::11/64"];
    cable((&router, "eth0", &["192.0.2.1/24", "2001:db8:a25::1/64"]), (&host, "eth0", &outside));
    let _daemon = router.bird(Debian::Bookworm, ROUTER);
    // As Debian starts it, with a configuration and a port of its own.
    host.write("/etc/systemd/system/bird.service", "[Service]\nExecStart=/usr/bin/sleep infinity\n");
    host.systemctl("start bird");
    let said = starting_bird().map(|line| host.run(&line)).last().expect("a command");
    assert_eq!(host.property("bird", "ActiveState"), "inactive");
    host.run("rm /etc/systemd/system/bird.service");
    let first = fs::read_to_string(host.path(CONFIG)).expect("written");
    assert!(!first.contains("peer_"), "nobody knows any yet: {first}");
    assert!(host.run(&format!("stat --format %a:%U {CONFIG}")).starts_with("640:root"));
    host.write("/etc/flock/node.yaml", &node_config_spec(spec()));
    host.do_next(&said);
    assert_eq!(host.property("flock-bird", "ActiveState"), "active", "{}", self::said(&host));
    host.add(&pod).program("/opt/cni/bin/flock").result();
    wait_or(|| self::said(&host), || (ranges(&router) == 2).then_some(()));
    assert_eq!(users(&host), ["bird", "bird"]);
    // What the agent has written stays, and a second run has nothing to say of it.
    let written = fs::read_to_string(host.path(CONFIG)).expect("there");
    let again = host.run(&format!("{FLOCK_AGENT} install"));
    assert!(!again.contains(CONFIG) && again.contains("nothing to do: flock "), "{again}");
    assert_eq!(fs::read_to_string(host.path(CONFIG)).expect("there"), written);

    host.del(&pod).program("/opt/cni/bin/flock").done();
    // A BIRD that has died and waits for its restart is not up, and comes back.
    host.systemctl("kill --signal KILL flock-bird");
    host.systemctl("stop flock-announce");
    wait_for("its end", || (host.property("flock-bird", "SubState") == "auto-restart").then_some(()));
    for why in ["the agent runs", "flock-bird or flock-announce runs or is enabled"] {
        let output = host.inside("flock-agent uninstall").output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(why), "{text}");
        let (_, stop) = text.trim().rsplit_once(": ").expect("what to do");
        succeed(&mut host.inside(stop));
    }
    host.write("/etc/flock/bird/extra.conf", "# mine\n");
    let said = host.run("flock-agent uninstall --dry-run");
    assert!(said.contains("left /etc/flock/bird/extra.conf: yours"), "{said}");
    host.run("rm /etc/flock/bird/extra.conf /etc/flock/node.yaml");
    let said = host.run("flock-agent uninstall");
    host.do_next(&said);
    host.run("ip link del eth0");
    let after = host.everything();
    let changed: Vec<&String> = before.symmetric_difference(&after).collect();
    assert_eq!(changed, Vec::<&String>::new(), "{said}");
}
