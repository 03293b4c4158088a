//! Another machine, at the other end of a cable to a host. It is no pod: nobody finds its namespace among those of the pods. What it
//! is for, its tests say.

use std::net::IpAddr;
use std::path::PathBuf;

use super::host::Host;
use super::waiting::wait_for;

/// Another machine. It ends with the host.
pub struct Machine<'a> {
    host: &'a Host,
    /// Its network namespace, on the host.
    place: String,
}

impl Host {
    /// A machine at the other end of a cable that has this name on both ends, with these addresses here and those there. Both
    /// ends are up, and the kernel gives neither an address by itself.
    pub fn machine(&self, cable: &str, here: &[&str], there: &[&str]) -> Machine<'_> {
        let place = format!("/run/machines/{cable}");
        self.write(&place, "");
        self.run(&format!("unshare --net={place} true"));
        let machine = Machine { host: self, place };
        machine.run("ip link set lo up");
        // A machine that looks for routers is a neighbour that comes and goes by itself.
        machine.run("sysctl -q net.ipv6.conf.default.router_solicitations=0");
        machine.run(&format!("ip link add {cable} type veth peer name {cable} netns {}", self.pid()));
        connect(cable, here, |line| self.run(line));
        connect(cable, there, |line| machine.run(line));
        let up = || self.run(&format!("ip link show {cable}")).contains("state UP").then_some(());
        wait_for("the cable to be up", up);
        machine
    }
}

impl Machine<'_> {
    /// Runs a command line (split at blanks) on the machine, which must succeed.
    pub fn run(&self, line: &str) -> String {
        self.host.run(&format!("nsenter --net={} {line}", self.place))
    }

    /// Its network namespace as the test can open it.
    pub fn netns(&self) -> PathBuf {
        self.host.path(&self.place)
    }

    /// One packet to each and back.
    #[track_caller]
    pub fn assert_pings(&self, to: impl IntoIterator<Item = IpAddr>) {
        to.into_iter().for_each(|ip| drop(self.run(&format!("ping -n -c 1 -W 1 {ip}"))));
    }
}

/// Brings up an end of the cable with these addresses.
fn connect(cable: &str, addresses: &[&str], run: impl Fn(&str) -> String) {
    run(&format!("ip link set {cable} addrgenmode none up"));
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        run(&format!("ip addr add {address} dev {cable} {nodad}"));
    }
}
