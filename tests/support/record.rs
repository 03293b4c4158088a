//! What the agent keeps on the host's disk, read and written as the library does it: the log of leases, the delete notes. Whether
//! it agrees with the kernel is the oracle's question.

use std::collections::BTreeMap;

use flock::record::format::{Record, Sum, decode, encode};
use model::addr::Attachment;
use model::lease::Lease;

use super::host::Host;

/// Lines of a log that hold these records, behind the line of the checksum `after`.
pub fn log_of(records: impl IntoIterator<Item = Record>, mut after: Option<Sum>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let (line, sum) = encode(&record, after);
        bytes.extend(line);
        after = Some(sum);
    }
    bytes
}

impl Host {
    /// How many delete notes wait for an agent.
    pub fn notes(&self) -> usize {
        let entries = std::fs::read_dir(self.path("/run/flock/deletes")).into_iter().flatten();
        let names = entries.map(|entry| entry.expect("readable").file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".delete")).count()
    }

    /// The leases on disk, replayed from the log by the library's own decoder.
    pub fn leases(&self) -> Vec<Lease> {
        let bytes = std::fs::read(self.path("/run/flock/state/leases.log")).unwrap_or_default();
        let mut leases = BTreeMap::<Attachment, Lease>::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            match decode(line).map(|line| line.record) {
                Some(Record::Put(lease)) => drop(leases.insert(lease.attachment.clone(), *lease)),
                Some(Record::Free(freed)) => drop(leases.remove(&freed.attachment)),
                _ => {}
            }
        }
        leases.into_values().collect()
    }

    /// Writes further records behind those of the log, as an agent would have.
    pub fn append_to_log(&self, records: impl IntoIterator<Item = Record>) {
        let path = self.path("/run/flock/state/leases.log");
        let mut bytes = std::fs::read(&path).expect("there is a log");
        let last = bytes.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let after = last.and_then(decode).expect("its last line is whole").sum;
        bytes.extend(log_of(records, Some(after)));
        std::fs::write(path, bytes).expect("writable");
    }
}
