//! What a host is connected to: a cable, and another machine at its other end. What that machine is for, its tests say.

use super::host::Host;
use super::pod::Pod;
use super::programs::succeed;
use super::waiting::wait_for;

impl Host {
    /// A cable of this name on both ends, with these addresses on the host's and those on the machine's, which is a namespace of
    /// its own. The kernel gives neither end an address by itself, and both ends are up.
    pub fn uplink(&self, name: &str, addresses: &[&str], others: &[&str]) -> Pod<'_> {
        let machine = self.pod(&format!("behind-{name}"));
        let there = format!("ip -n {}", machine.name);
        let mut script =
            format!("ip link add {name} type veth peer name {name} netns {}; {there} link set lo up;", machine.name);
        for (here, addresses) in [("ip", addresses), (there.as_str(), others)] {
            script.push_str(&format!("{here} link set {name} addrgenmode none; {here} link set {name} up;"));
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                script.push_str(&format!("{here} addr add {address} dev {name} {nodad};"));
            }
        }
        succeed(self.command("sh").args(["-ec", &script]));
        wait_for("the uplink to be up", || {
            self.run(&format!("ip link show {name}")).contains("state UP").then_some(())
        });
        machine
    }
}
