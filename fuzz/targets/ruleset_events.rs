//! What the kernel announces of changes of the packet filter: any datagram. In the byte order of this machine; the seeds are of a
//! little-endian one.

use flock::kernel::nftables::changes::{Heard, heard};
use model::guard::{ARP, FILTER};
use model::masquerade::{MASQUERADE4, MASQUERADE6};
use model::ruleset::TableKey;

/// The tables that somebody cares for.
const TABLES: [TableKey; 4] = [FILTER, ARP, MASQUERADE4, MASQUERADE6];

pub(crate) fn check(data: &[u8]) {
    let all = heard(data, &[], &TABLES);
    let lost = all == [Heard::Lost];
    let tables: Vec<Heard> = TABLES.into_iter().map(Heard::Changed).collect();
    let in_order: Vec<Heard> = tables.iter().copied().filter(|table| all.contains(table)).collect();
    assert!(lost || all == in_order, "{all:?}");
    // Whoever sent all of it himself hears nothing, and whoever cares for less hears no more.
    let ports: Vec<u32> = data.windows(4).filter_map(|port| port.try_into().ok()).map(u32::from_ne_bytes).collect();
    let of_others = heard(data, &ports, &TABLES);
    assert!(of_others.is_empty() || lost && of_others == all, "{of_others:?}");
    assert!(lost || heard(data, &[], &TABLES[..1]).iter().all(|table| all.contains(table)));
    assert!(lost || heard(data, &[], &[]).is_empty());
}
