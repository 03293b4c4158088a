//! The `allocations.json` of the Go flock.

use flock::record::format::{Record, decode, encode};
use flock::record::import::{HostLink, leases};
use model::addr::{IfName, LinkEnd, Mac};

const NOW: u64 = 7;

pub(crate) fn check(data: &[u8]) {
    let stands = |_: &IfName| Some(HostLink { mac: Mac([2, 0, 0, 0, 0, 9]), mtu: 1500, index: 7 });
    let all = match leases(data, NOW, stands) {
        Ok(all) => all,
        Err(error) => return super::assert_one_line(&error.to_string(), 1024),
    };
    assert!(all.len() <= data.len());
    for lease in &all {
        assert_eq!((lease.attachment.ifname.as_str(), lease.since), ("eth0", NOW));
        assert_eq!(lease.host_link, lease.attachment.host_link(0));
        assert_ne!(lease.host_mac, lease.attachment.mac(LinkEnd::Pod));
        // It goes into the log, and comes back from there.
        let (line, _) = encode(&Record::Put(Box::new(lease.clone())), None);
        let read = decode(&line[..line.len() - 1]).map(|line| line.record);
        assert_eq!(read, Some(Record::Put(Box::new(lease.clone()))));
    }
    // Without links in the kernel there is nothing to take over.
    assert!(leases(data, NOW, |_| None).expect("as before").is_empty());
}
