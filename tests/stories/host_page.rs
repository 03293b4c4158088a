//! What docs/host.md tells an operator to write opens a closed host for its pods. Must not know more of the page than its blocks.

use crate::support::host::Host;
use crate::support::page::block;
use crate::support::pod::Pod;

const PAGE: &str = include_str!("../../docs/host.md");

fn reaches(from: &Pod<'_>, to: &crate::support::outcome::Attached) -> Vec<bool> {
    to.ips().into_iter().map(|ip| from.pings(ip)).collect()
}

#[test]
fn the_rules_of_the_page_open_a_forward_chain_that_drops_for_pods_in_both_families() {
    let host = Host::new();
    let _agent = host.agent().start();
    let ((web, _), (_db, at)) = (host.attach("web"), host.attach("db"));
    let rules = block(PAGE, "Firewalls", "nft");
    let closed: String =
        rules.lines().filter(|line| !line.trim_end().ends_with("accept")).flat_map(|line| [line, "\n"]).collect();
    host.write("/run/closed.nft", &closed);
    host.write("/run/open.nft", &format!("delete table inet filter\n{rules}"));
    host.run("nft -f /run/closed.nft");
    assert_eq!(reaches(&web, &at), [false, false], "the chain drops without the lines for pods");
    host.run("nft -f /run/open.nft");
    assert_eq!(reaches(&web, &at), [true, true]);
}

#[test]
fn the_files_for_network_managers_on_the_page_are_those_that_install_brings() {
    for (heading, shipped) in [
        ("systemd-networkd", include_str!("../../deploy/host/05-flock.network")),
        ("NetworkManager", include_str!("../../deploy/host/NetworkManager-flock.conf")),
    ] {
        let says = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
        };
        assert_eq!(says(&block(PAGE, heading, "ini")), says(shipped), "{heading}");
    }
}
