//! The units of BIRD with the real systemd: a router on the other end of a cable sees what their restarts and ends cost.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::assets::assets;
use crate::support::fib::RouteEvents;
use crate::support::host::Host;
use crate::support::manifests::{CIDR4, CIDR6, node_config_spec};
use crate::support::programs::succeed;
use crate::support::routers::Debian;
use crate::support::switch::cable;
use crate::support::waiting::{wait_for, wait_or};

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

/// A node with the units, with a user for BIRD, and with Debian's BIRD where it can be started.
fn node() -> Host {
    let host = Host::with_units();
    let shipped = ["flock-bird.service", "flock-announce.service"].map(|unit| format!("/usr/local/share/units/{unit}"));
    host.run(&format!("install -m 0644 -t /etc/systemd/system -- {}", shipped.join(" ")));
    host.run("mkdir -p /etc/flock/bird /usr/local/lib/debian/bin /usr/local/lib/debian/lib");
    let debian = Path::new(assets("routes")).join("bookworm");
    for (dir, name) in [("bin", "bird"), ("lib", "")] {
        for file in fs::read_dir(debian.join(dir)).expect("fetched").map(|entry| entry.expect("readable").path()) {
            let own = file.file_name().expect("a name").to_string_lossy().into_owned();
            if name.is_empty() || own == name {
                let to = host.path(&format!("/usr/local/lib/debian/{dir}/{own}"));
                fs::copy(&file, to).expect("copied");
            }
        }
    }
    let unit = include_str!("../../systemd/flock-bird.service");
    let start = unit.lines().find(|line| line.starts_with("ExecStart=")).expect("a start");
    let start = start.replace("/usr/sbin/bird", "/usr/local/lib/debian/bin/bird");
    host.adapt(
        "flock-bird.service",
        "program",
        &format!("[Service]\nExecStart=\n{start}\nStandardError=append:/run/bird.log\n"),
    );
    let users = fs::read_to_string(host.path("/etc/passwd")).expect("text");
    if !users.contains("\nbird:") {
        host.write("/etc/passwd", &format!("{users}bird:x:977:977::/run/bird:/usr/sbin/nologin\n"));
    }
    let bgp = json!({"asn": 65001, "peers": [{"name": "tor1", "address": "192.0.2.1", "asn": 65100}]});
    host.write("/etc/flock/node.yaml", &node_config_spec(json!({"cidr4": CIDR4, "cidr6": CIDR6, "bgp": bgp})));
    host
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

/// The command line of BIRD.
fn called(host: &Host) -> String {
    let pid = host.property("flock-bird", "MainPID");
    succeed(&mut host.inside(&format!("cat /proc/{pid}/cmdline"))).replace('\0', " ")
}

#[test]
fn a_restart_of_bird_or_agent_loses_nothing_and_the_node_withdraws_when_it_goes_down() {
    let (host, router) = (node(), Host::with(&[]));
    let outside = ["192.0.2.11/24", "2001:db8:a25::11/64"];
    cable((&router, "eth0", &["192.0.2.1/24", "2001:db8:a25::1/64"]), (&host, "eth0", &outside));
    let _daemon = router.bird(Debian::Bookworm, ROUTER);
    host.systemctl("enable --now flock-agent");
    let pod = host.pod("a");
    host.add(&pod).result();
    wait_for("the configuration", || host.path("/etc/flock/bird/bird.conf").exists().then_some(()));
    host.systemctl("enable --now flock-bird flock-announce");
    wait_or(|| said(&host), || (ranges(&router) == 2).then_some(()));
    assert!(!called(&host).contains("-R"), "nobody has kept anything at the first start of a boot");
    assert!(host.ask("ps -o user= -C bird").contains("bird") || host.ask("ls -l /run/flock/bird.ctl").contains("bird"));
    wait_for("the word for the next start", || host.path("/run/flock/bird.env").exists().then_some(()));

    let events = router.route_events();
    host.systemctl("restart flock-bird");
    wait_for("a restart that is one", || called(&host).contains("-R").then_some(()));
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
}
