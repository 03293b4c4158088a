//! Ethernet between hosts: cables, and a switch that knows nothing of addresses. What stands on the hosts is theirs.

use super::host::Host;
use super::waiting::wait_for;

/// A switch. The cables that end in it end with it.
pub struct Switch(Host);

impl Switch {
    pub fn new() -> Switch {
        let host = Host::with(&[]);
        host.run("ip link add name switch address 02:00:00:00:00:01 type bridge stp_state 0 mcast_snooping 0");
        host.run("ip link set switch up");
        Switch(host)
    }

    /// A cable from the host's new link of this name, which gets these addresses.
    pub fn plug(&self, host: &Host, link: &str, addresses: &[&str]) {
        let port = port(host);
        // From here, since a host with processes of its own knows nobody else's.
        cable((&self.0, &port, &[]), (host, link, addresses));
        self.0.run(&format!("ip link set {port} master switch"));
    }

    /// Nothing comes from or to the host any more, as when its cable is drawn: only the host sees it.
    pub fn cut(&self, host: &Host) {
        self.0.run(&format!("ip link set {} down", port(host)));
    }

    /// As before [`Switch::cut`].
    pub fn mend(&self, host: &Host) {
        self.0.run(&format!("ip link set {} up", port(host)));
    }
}

fn port(host: &Host) -> String {
    format!("port{}", host.pid())
}

/// A cable between two hosts, with the name and the addresses of the link at each end. Both are up when it returns, with the
/// kernel's own link-local addresses, and no address waits for a check whether another host has it.
pub fn cable(one: (&Host, &str, &[&str]), other: (&Host, &str, &[&str])) {
    let [(a, link, _), (b, peer, _)] = [one, other];
    // Made at one end, so that it never stands between the two.
    a.run(&format!("ip link add {link} type veth peer name {peer} netns {}", b.pid()));
    for (host, link, addresses) in [one, other] {
        host.setting(&format!("ipv6/conf/{link}/accept_dad"), "0");
        host.run(&format!("ip link set {link} up"));
        for address in addresses {
            host.run(&format!("ip addr add {address} dev {link}"));
        }
    }
    for (host, link, _) in [one, other] {
        let up = || host.run(&format!("ip link show {link}")).contains("state UP").then_some(());
        wait_for("the cable to be up", up);
    }
}

impl Host {
    /// Writes a network setting of the host, named below `/proc/sys/net`.
    pub fn setting(&self, key: &str, value: &str) {
        self.script(&format!("echo {value} >/proc/sys/net/{key}"));
    }
}
