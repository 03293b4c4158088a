//! What an operator does about somebody else's route that stands in the place of one of flock's: by whose it is, as a route that a
//! daemon keeps comes back when it is removed.
//!
//! Words only. Must not change a route, or decide whether one is in the way.

use model::routes::{ANNOUNCED, RouteKey};

/// Who makes routes of a protocol number, as far as it is known: the kernel's numbers, and those of FRR's daemons.
const MAKERS: [(u8, &str); 14] = [
    (2, "an address on a link"),
    (9, "a router's advertisement"),
    (11, "FRR (zebra)"),
    (12, "BIRD"),
    (16, "a DHCP client"),
    (18, "keepalived"),
    (42, "a Babel daemon"),
    (99, "Open/R"),
    (186, "a BGP daemon such as FRR's"),
    (187, "an IS-IS daemon such as FRR's"),
    (188, "an OSPF daemon such as FRR's"),
    (189, "a RIP daemon such as FRR's"),
    (192, "an EIGRP daemon such as FRR's"),
    (196, "FRR's static routes"),
];

/// The numbers of routes that somebody has made once, by hand or at the start of the host, and that nobody puts back: boot and
/// static.
const ONCE: [u8; 2] = [3, 4];

/// What to do about a route of this `protocol` in the place of ours. `to_node` says that ours leads to another node.
pub fn remedy(key: RouteKey, protocol: u8, to_node: bool) -> String {
    let or = if to_node { ", or spec.peers: none if it is right" } else { "" };
    if ONCE.contains(&protocol) {
        let table = if key.table == ANNOUNCED { " table 102" } else { "" };
        let metric = if key.metric > 0 { format!(" metric {}", key.metric) } else { String::new() };
        return format!("`ip route del {}{table}{metric} proto {protocol}` makes room{or}", key.to);
    }
    let known = MAKERS.iter().find(|(number, _)| *number == protocol);
    let maker = match known {
        Some((_, maker)) => format!("{maker} has made it"),
        None => format!("whoever makes routes of protocol {protocol} has made it"),
    };
    format!("{maker} and would put it back: let that be changed to leave {} alone{or}", key.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::routes::MAIN;

    #[test]
    fn a_route_that_nobody_puts_back_is_removed_and_of_others_the_maker_is_named() {
        let key = |table, to: &str, metric| RouteKey { table, to: to.parse().expect("a prefix"), metric };
        let range = key(MAIN, "10.2.0.0/24", 0);
        assert_eq!(
            remedy(range, 4, true),
            "`ip route del 10.2.0.0/24 proto 4` makes room, or spec.peers: none if it is right"
        );
        assert_eq!(
            remedy(key(ANNOUNCED, "10.1.0.0/24", 1), 3, false),
            "`ip route del 10.1.0.0/24 table 102 metric 1 proto 3` makes room"
        );
        for (protocol, maker) in [(186, "a BGP daemon such as FRR's"), (12, "BIRD"), (77, "protocol 77")] {
            for to_node in [true, false] {
                let text = remedy(range, protocol, to_node);
                assert!(
                    text.contains(maker) && text.contains("10.2.0.0/24") && !text.contains("ip route del"),
                    "{text}"
                );
                // Whoever shares an address has no use for what is between nodes.
                assert_eq!(text.contains("spec.peers"), to_node, "{text}");
            }
        }
    }
}
