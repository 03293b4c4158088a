//! The lease log: whatever stands in it, the store opens with what can be read, and what it then writes it reads again.
//!
//! The input is the file. Where it begins with a tilde, the right checksums are put before each of its further lines, which no
//! amount of chance would do: those of version 1. Where it begins with two, those of a chain.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use flock::record::disk::{Disk, DiskError};
use flock::record::format::{Freed, Line, Record, UNCHAINED, VERSION, decode, encode};
use flock::record::store::{Change, Finding, LOG, Store, Unusable};
use model::addr::fnv1a64;
use model::lease::{Lease, Phase};

/// The boot that the files of the seeds belong to.
const BOOT: &str = "5e0c2b2e-7d52-4f0e-9f3e-0a4c6a1d9b11";
const NOW: u64 = 2000;

pub(crate) fn check(data: &[u8]) {
    let file = match (data.strip_prefix(b"~~"), data.strip_prefix(b"~")) {
        (Some(lines), _) => chained(lines),
        (None, Some(lines)) => with_checksums(lines),
        (None, None) => data.to_vec(),
    };
    file.split(|byte| *byte == b'\n').for_each(assert_line);
    let disk = Memory::with(&file);
    let (mut store, findings) = Store::open(disk.clone(), BOOT, NOW);
    assert_eq!(disk.files(), Memory::with(&file).files(), "opening changes nothing");
    store.settle().expect("memory does not fail");
    assert_accounted_for(&file, &findings, &disk, &store);
    let written = disk.file(LOG);
    assert!(written.len() <= 4 * file.len() + 200, "{} bytes became {}", file.len(), written.len());

    let mut again = assert_reopens(&disk, &table(&store), &freed(&store));
    // A day goes on: everything ends, and one lease begins anew.
    let leases: Vec<Lease> = again.leases().cloned().collect();
    for lease in &leases {
        again.apply(Change::Free { attachment: lease.attachment.clone(), at: NOW });
    }
    if let Some(lease) = leases.into_iter().next() {
        again.apply(Change::Put(Box::new(lease)));
    }
    again.sync().expect("memory does not fail");
    assert_reopens(&disk, &table(&again), &freed(&again));
}

fn with_checksums(lines: &[u8]) -> Vec<u8> {
    let lines = lines.split_inclusive(|byte| *byte == b'\n');
    let summed = lines.map(|line| {
        let json = line.strip_suffix(b"\n").unwrap_or(line);
        [format!("{:016x} ", fnv1a64(json)).as_bytes(), line].concat()
    });
    summed.collect::<Vec<_>>().concat()
}

fn chained(lines: &[u8]) -> Vec<u8> {
    let mut before = String::new();
    let lines = lines.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let summed = [before.as_bytes(), line].concat();
        before = format!("{:016x} ", fnv1a64(summed.strip_suffix(b"\n").unwrap_or(&summed)));
        [before.as_bytes(), &summed].concat()
    });
    lines.collect::<Vec<_>>().concat()
}

/// A line that can be read can be written, and read again.
fn assert_line(line: &[u8]) {
    if let Some(Line { record, after, .. }) = decode(line) {
        let (written, sum) = encode(&record, after);
        let (end, line) = written.split_last().expect("not empty");
        assert!(*end == b'\n' && !line.contains(&b'\n'));
        assert_eq!(decode(line), Some(Line { record, sum, after }));
    }
}

/// Nothing that was in the file is gone without a word.
fn assert_accounted_for(file: &[u8], findings: &[Finding], disk: &Memory, store: &Store<Memory>) {
    let records: Vec<Option<Record>> =
        file.split(|byte| *byte == b'\n').map(|line| decode(line).map(|line| line.record)).collect();
    match findings {
        [Finding::SetAside { why, kept_as }] => {
            assert_eq!(disk.file(kept_as), file, "set aside as it was");
            match why {
                Unusable::Damaged { unreadable, misplaced } => {
                    assert!((1..=records.len()).contains(&(unreadable + misplaced)));
                    assert!(store.leases().all(|lease| lease.phase == Phase::Committed));
                }
                Unusable::Version(found) => {
                    assert!(![VERSION, UNCHAINED].contains(found));
                    assert_eq!(store.leases().count(), 0, "nobody here understands that version");
                }
                Unusable::Unreadable(error) => panic!("memory does not fail: {error}"),
            }
        }
        [Finding::OtherBoot] => {
            assert_eq!((store.leases().count(), store.freed().count()), (0, 0), "pods of another boot are gone");
            let began = records.first().and_then(Option::as_ref);
            assert!(began.is_some_and(|record| is_header(record, |boot| boot != BOOT)), "it began in this boot");
        }
        [] | [Finding::TornTail] => {
            let count = |wanted: fn(&Record) -> bool| records.iter().flatten().filter(|record| wanted(record)).count();
            assert!(store.leases().count() <= count(|record| matches!(record, Record::Put(_))));
            assert!(store.freed().count() <= count(|record| matches!(record, Record::Free(_))));
            let unread = records.iter().filter(|record| record.is_none()).count();
            assert!(unread <= 2, "{unread} lines could not be read, and nobody hears of it");
        }
        others => panic!("{others:?}"),
    }
}

fn is_header(record: &Record, is: fn(&str) -> bool) -> bool {
    matches!(record, Record::Header { boot, .. } if is(boot))
}

fn assert_reopens(disk: &Memory, leases: &HashMap<String, Lease>, freed_then: &[Freed]) -> Store<Memory> {
    let (store, findings) = Store::open(disk.clone(), BOOT, NOW);
    assert!(findings.is_empty(), "the log is whole, but {findings:?}");
    assert_eq!(table(&store), *leases);
    assert_eq!(freed(&store), freed_then);
    store
}

fn table(store: &Store<Memory>) -> HashMap<String, Lease> {
    store.leases().map(|lease| (lease.attachment.to_string(), lease.clone())).collect()
}

fn freed(store: &Store<Memory>) -> Vec<Freed> {
    store.freed().cloned().collect()
}

/// A directory without a disk.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn with(log: &[u8]) -> Memory {
        Memory(Arc::new(Mutex::new(BTreeMap::from([(LOG.to_owned(), log.to_vec())]))))
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().expect("unpoisoned").clone()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        self.files().remove(name).unwrap_or_default()
    }
}

impl Disk for Memory {
    fn is_lost(&mut self, name: &str) -> bool {
        !self.files().contains_key(name)
    }

    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.files().remove(name))
    }

    fn names(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.files().into_keys().collect())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.lock().expect("unpoisoned").entry(name.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.0.lock().expect("unpoisoned");
        let content = files.remove(from).expect("there is such a file");
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.0.lock().expect("unpoisoned").remove(name);
        Ok(())
    }
}
