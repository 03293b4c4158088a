//! What survives: every disk operation in turn fails, or is the last one before the power goes, with every way to lose what
//! was not synced. Arithmetic, not chance: the operations are counted once, and then each of them is the bad one.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::Config;

use super::*;
use crate::record::examples::lease;
use crate::record::examples::link_of;
use model::addr::fnv1a64;
use model::lease::Phase;
use model::observed::Observed;
use model::recover::{Repair, repairs};

const BOOT: &str = "boot-1";

/// How a disk goes bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Never,
    /// The n-th operation is refused, once. An append may have got this many bytes through.
    Refuse {
        at: usize,
        written: usize,
    },
    /// From the n-th operation on nothing works any more: the machine is about to stop. As above.
    Stop {
        at: usize,
        written: usize,
    },
}

/// What is in the files, and how much of it is durable.
#[derive(Debug, Clone, Default)]
struct Media {
    /// Content, and the length that a sync has reached.
    files: BTreeMap<String, (Vec<u8>, usize)>,
}

impl Media {
    /// As found after a power cut: of each file, what was synced and `kept` of the bytes behind.
    fn after_power_cut(&self, kept: usize) -> Media {
        let cut = |(content, synced): &(Vec<u8>, usize)| {
            let length = content.len().min(synced + kept);
            (content[..length].to_vec(), length)
        };
        Media { files: self.files.iter().map(|(name, file)| (name.clone(), cut(file))).collect() }
    }
}

#[derive(Debug, Clone)]
struct BadDisk {
    media: Arc<Mutex<Media>>,
    operations: Arc<Mutex<usize>>,
    fault: Fault,
    /// A file for which there is no room.
    no_room_for: Option<&'static str>,
}

impl BadDisk {
    fn new(media: Media, fault: Fault) -> BadDisk {
        BadDisk { media: Arc::new(Mutex::new(media)), operations: Arc::default(), fault, no_room_for: None }
    }

    fn count(&self) -> usize {
        *self.operations.lock().expect("unpoisoned")
    }

    fn media(&self) -> Media {
        self.media.lock().expect("unpoisoned").clone()
    }

    /// Counts the operation. The number of bytes that get through, if it is a bad one.
    fn step(&self) -> Option<usize> {
        let mut operations = self.operations.lock().expect("unpoisoned");
        *operations += 1;
        match self.fault {
            Fault::Refuse { at, written } if *operations == at => Some(written),
            Fault::Stop { at, written } if *operations == at => Some(written),
            Fault::Stop { at, .. } if *operations > at => Some(0),
            _ => None,
        }
    }
}

fn refused() -> DiskError {
    DiskError { operation: "touch", path: "disk".into(), error: io::ErrorKind::StorageFull.into() }
}

impl Disk for BadDisk {
    fn is_lost(&mut self, name: &str) -> bool {
        !self.media().files.contains_key(name)
    }

    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        if self.step().is_some() {
            return Err(refused());
        }
        Ok(self.media().files.get(name).map(|(content, _)| content.clone()))
    }

    fn names(&mut self) -> Result<Vec<String>, DiskError> {
        if self.step().is_some() {
            return Err(refused());
        }
        Ok(self.media().files.into_keys().collect())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let bad = self.step().or(self.no_room_for.filter(|file| *file == name).map(|_| 17));
        let mut media = self.media.lock().expect("unpoisoned");
        let (content, _) = media.files.entry(name.into()).or_default();
        content.extend_from_slice(&bytes[..bad.unwrap_or(bytes.len()).min(bytes.len())]);
        if bad.is_some() { Err(refused()) } else { Ok(()) }
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        if self.step().is_some() {
            return Err(refused());
        }
        if let Some((content, synced)) = self.media.lock().expect("unpoisoned").files.get_mut(name) {
            *synced = content.len();
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        if self.step().is_some() {
            return Err(refused());
        }
        let mut media = self.media.lock().expect("unpoisoned");
        let missing = || DiskError { operation: "rename", path: "disk".into(), error: io::ErrorKind::NotFound.into() };
        let file = media.files.remove(from).ok_or_else(missing)?;
        media.files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        if self.step().is_some() {
            return Err(refused());
        }
        self.media.lock().expect("unpoisoned").files.remove(name);
        Ok(())
    }
}

impl Store<BadDisk> {
    /// Changes that wait together, as the ledger carries them out.
    fn batch(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<(), DiskError> {
        let applied: Vec<Applied> = changes.into_iter().map(|change| self.apply(change)).collect();
        let synced = self.sync();
        if synced.is_err() {
            let stand = undo_all(applied, |applied| self.undo(applied));
            stand.into_iter().for_each(|change| drop(self.apply(change)));
        }
        synced
    }

    fn put(&mut self, lease: Lease) -> Result<(), DiskError> {
        self.batch([Change::Put(Box::new(lease))])
    }

    fn adopt(&mut self, lease: Lease) -> Result<(), DiskError> {
        self.batch([Change::Adopt(Box::new(lease))])
    }

    fn free(&mut self, attachment: &Attachment, at: u64) -> Result<(), DiskError> {
        self.batch([Change::Free { attachment: attachment.clone(), at }])
    }
}

fn opened(disk: BadDisk) -> (Store<BadDisk>, Vec<Finding>) {
    let (mut store, findings) = Store::open(disk, BOOT, 1);
    // On a bad disk, later changes try again.
    store.settle().ok();
    (store, findings)
}

fn contents(store: &Store<BadDisk>) -> BTreeMap<String, Lease> {
    store.leases().map(|lease| (lease.attachment.to_string(), lease.clone())).collect()
}

/// A day in the life of a node. Returns what was acknowledged, and the change that was not, if any: of that one either
/// outcome is right.
fn day(store: &mut Store<BadDisk>) -> (BTreeMap<String, Lease>, Option<String>) {
    let mut promised = BTreeMap::new();
    for n in 0..6u8 {
        let mut lease = lease(&format!("pod{}/eth0", n % 4));
        (lease.ipv6, lease.ipv4) = (None, Some([10, 0, 0, n].into()));
        let key = lease.attachment.to_string();
        for phase in [Phase::Pending, Phase::Committed] {
            lease.phase = phase;
            if store.put(lease.clone()).is_err() {
                return (promised, Some(key));
            }
            promised.insert(key.clone(), lease.clone());
        }
        if n % 2 == 1 {
            if store.free(&lease.attachment, u64::from(n)).is_err() {
                return (promised, Some(key));
            }
            promised.remove(&key);
        }
    }
    (promised, None)
}

// covers: FM-E07
#[test]
fn what_was_acknowledged_is_there_after_a_power_cut_at_any_operation() {
    let healthy = BadDisk::new(Media::default(), Fault::Never);
    day(&mut opened(healthy.clone()).0);
    let operations = healthy.count();
    assert!(operations > 20);
    for at in 1..=operations {
        for written in [0, 1, 17, 80, usize::MAX] {
            let disk = BadDisk::new(Media::default(), Fault::Stop { at, written });
            let (mut store, _) = opened(disk.clone());
            let (promised, doubtful) = day(&mut store);
            for kept in [0, 1, 40, usize::MAX / 2] {
                let case = format!("stop at {at}, {written} bytes through, {kept} kept");
                let (survivor, _) = opened(BadDisk::new(disk.media().after_power_cut(kept), Fault::Never));
                let mut found = contents(&survivor);
                let mut expected = promised.clone();
                if let Some(key) = &doubtful {
                    found.remove(key);
                    expected.remove(key);
                }
                assert_eq!(found, expected, "{case}");
            }
        }
    }
}

#[test]
fn a_refused_operation_costs_that_change_and_no_other() {
    let healthy = BadDisk::new(Media::default(), Fault::Never);
    day(&mut opened(healthy.clone()).0);
    // The first operations read the table and make the first log, which the next change does as well.
    for at in 7..=healthy.count() {
        for written in [0, 30] {
            let disk = BadDisk::new(Media::default(), Fault::Refuse { at, written });
            let (mut store, _) = opened(disk.clone());
            let (promised, doubtful) = day(&mut store);
            let key = doubtful.unwrap_or_else(|| panic!("operation {at} was refused and nobody noticed"));
            // The disk works again, and so does the store, with everything that it had promised.
            let mut other = lease("later/eth0");
            other.ipv4 = Some([10, 0, 0, 77].into());
            store.put(other.clone()).expect("the next change goes through");
            let mut expected = promised;
            expected.insert(other.attachment.to_string(), other);
            let in_memory = contents(&store);
            let (reopened, findings) = opened(BadDisk::new(disk.media().after_power_cut(0), Fault::Never));
            assert!(findings.is_empty(), "the log is whole");
            assert_eq!(contents(&reopened), in_memory, "at {at}");
            let without = |mut map: BTreeMap<String, Lease>| {
                map.remove(&key);
                map
            };
            assert_eq!(without(in_memory), without(expected), "at {at}");
        }
    }
}

#[test]
fn a_lease_that_could_not_be_recorded_is_not_there() {
    let disk = BadDisk::new(Media::default(), Fault::Stop { at: 7, written: 9 });
    let (mut store, _) = opened(disk);
    assert!(store.put(lease("abc/eth0")).is_err());
    assert_eq!(store.get(&lease("abc/eth0").attachment), None);
}

// covers: FM-A09
#[test]
fn freed_addresses_are_remembered_over_a_restart() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    let (mut store, _) = opened(disk.clone());
    store.put(lease("abc/eth0")).expect("recorded");
    store.free(&lease("abc/eth0").attachment, 77).expect("recorded");
    let (reopened, _) = opened(BadDisk::new(disk.media(), Fault::Never));
    let freed: Vec<_> = reopened.freed().collect();
    assert_eq!(freed.len(), 1);
    assert_eq!((freed[0].at, freed[0].ips.len()), (77, 2));
    let (later, _) = Store::open(BadDisk::new(disk.media(), Fault::Never), BOOT, 77 + REST_MS + 1);
    assert_eq!(later.freed().count(), 0, "not for ever");
}

#[test]
fn the_log_does_not_grow_with_the_number_of_changes() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    let (mut store, _) = opened(disk.clone());
    let one = lease("abc/eth0");
    for now in 0..3 * SLACK as u64 {
        store.put(one.clone()).expect("recorded");
        store.free(&one.attachment, now * REST_MS).expect("recorded");
    }
    let lines = disk.media().files[LOG].0.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines <= SLACK + 10, "{lines} lines for no lease");
}

/// Records in the log on this disk.
fn records_of(disk: &BadDisk) -> usize {
    disk.media().files[LOG].0.iter().filter(|byte| **byte == b'\n').count()
}

// covers: FM-Q08
#[test]
fn a_log_that_cannot_be_replaced_for_want_of_room_is_appended_to_up_to_a_bound() {
    let mut store = opened(BadDisk::new(Media::default(), Fault::Never)).0;
    let media = store.disk.clone();
    store.disk.no_room_for = Some(FRESH);
    let one = lease("abc/eth0");
    let tries = Cell::new(0);
    let change = |store: &mut Store<BadDisk>| {
        let before = media.count();
        let outcome = store.put(one.clone());
        // An append has two operations.
        tries.set(tries.get() + usize::from(media.count() - before > 2));
        outcome
    };
    for _ in 0..BOUND / SLACK {
        (0..SLACK).for_each(|_| change(&mut store).expect("there is room for a line"));
        assert!(!media.media().files.contains_key(FRESH), "nothing that takes up room is left");
        let (again, findings) = opened(BadDisk::new(media.media(), Fault::Never));
        assert!(findings.is_empty() && again.leases().count() == 1, "it is whole: {findings:?}");
    }
    assert!((1..=BOUND / PATIENCE).contains(&tries.get()), "{tries:?} times all was written in vain");
    let error = (0..2 * PATIENCE).find_map(|_| change(&mut store).err()).expect("it is bounded").to_string();
    let said = "replace the log, which is as long as it may become, by disk: ";
    assert!(error.starts_with(said), "{error}");
    assert!(change(&mut store).is_err() && store.settle().is_err());
    assert!(records_of(&media) <= BOUND + 10);
    assert_eq!(contents(&store).len(), 1, "and what was promised is in force");
    // The end of a lease is in force all the same.
    assert!(store.free(&one.attachment, 5).is_err());
    assert_eq!(store.leases().count(), 0);
    store.disk.no_room_for = None;
    assert!(store.settle().expect("room"));
    assert!(records_of(&media) <= 3);
    assert_eq!(opened(BadDisk::new(media.media(), Fault::Never)).0.leases().count(), 0);
}

// covers: FM-Q08
#[test]
fn a_log_that_could_not_be_replaced_is_replaced_when_there_is_room() {
    let mut store = opened(BadDisk::new(Media::default(), Fault::Never)).0;
    let media = store.disk.clone();
    store.disk.no_room_for = Some(FRESH);
    let change = |store: &mut Store<BadDisk>, times| {
        (0..times).for_each(|_| store.put(lease("abc/eth0")).expect("there is room"));
        records_of(&media)
    };
    assert!(change(&mut store, SLACK + 100) > SLACK + 100);
    store.disk.no_room_for = None;
    assert!(change(&mut store, PATIENCE) < PATIENCE);
}

/// When the new log has got its name, or may have, nothing is written behind the old one.
// covers: FM-Q08
#[test]
fn a_log_whose_replacement_may_have_its_name_already_is_not_appended_to() {
    let healthy = BadDisk::new(Media::default(), Fault::Never);
    let fill = |disk: &BadDisk| {
        let mut store = opened(disk.clone()).0;
        let refused = (0..SLACK + 10).filter(|_| store.put(lease("abc/eth0")).is_err()).count();
        (store, refused)
    };
    fill(&healthy);
    // The last ten are appends to the new log; before them it was renamed.
    let operations = healthy.count();
    let mut renames = 0;
    for at in operations - 26..operations - 14 {
        let disk = BadDisk::new(Media::default(), Fault::Refuse { at, written: 0 });
        let (store, refused) = fill(&disk);
        renames += usize::from(refused == 1);
        assert!(refused <= 1, "at {at}");
        let (reopened, findings) = opened(BadDisk::new(disk.media(), Fault::Never));
        assert!(findings.is_empty(), "at {at}: {findings:?}");
        assert_eq!(contents(&reopened), contents(&store), "at {at}");
    }
    assert!(renames > 0);
}

#[test]
fn pods_of_an_earlier_boot_have_no_addresses_any_more() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    opened(disk.clone()).0.put(lease("abc/eth0")).expect("recorded");
    let (store, findings) = Store::open(disk, "boot-2", 1);
    assert_eq!(store.leases().count(), 0);
    assert!(matches!(findings.as_slice(), [Finding::OtherBoot]), "{findings:?}");
}

fn log_with(lines: &[Vec<u8>]) -> Media {
    let bytes = lines.concat();
    let length = bytes.len();
    Media { files: BTreeMap::from([(LOG.to_owned(), (bytes, length))]) }
}

fn header() -> Record {
    Record::Header { version: VERSION, boot: BOOT.into(), serial: 1 }
}

/// A lease with an address of its own.
fn put(key: &str) -> Record {
    let mut lease = lease(key);
    (lease.ipv6, lease.ipv4) = (None, Some([10, 0, 0, key.as_bytes()[0]].into()));
    Record::Put(Box::new(lease))
}

/// The lines of these records, each after the one before.
fn chained(records: impl IntoIterator<Item = Record>) -> Vec<Vec<u8>> {
    let mut after = None;
    let lines = records.into_iter().map(|record| {
        let (line, sum) = encode(&record, after);
        after = Some(sum);
        line
    });
    lines.collect()
}

/// The same as version 1 wrote them.
fn unchained(records: impl IntoIterator<Item = Record>) -> Vec<Vec<u8>> {
    let header = Record::Header { version: UNCHAINED, boot: BOOT.into(), serial: 0 };
    [header].into_iter().chain(records).map(|record| encode(&record, None).0).collect()
}

/// With one bad byte in the `nth` line.
fn damaged(mut lines: Vec<Vec<u8>>, nth: usize) -> Media {
    lines[nth][60] ^= 1;
    log_with(&lines)
}

fn assert_damaged(findings: &[Finding], expected: (usize, usize)) -> &str {
    let [Finding::SetAside { why: Unusable::Damaged { unreadable, misplaced }, kept_as }] = findings else {
        panic!("{findings:?}")
    };
    assert_eq!((*unreadable, *misplaced), expected, "unreadable and misplaced lines");
    kept_as
}

#[test]
fn a_damaged_line_is_set_aside_with_its_file_and_the_rest_stays_in_force() {
    let records = [header(), put("a/eth0"), put("x/eth0"), put("b/eth0")];
    let disk = BadDisk::new(damaged(chained(records), 2), Fault::Never);
    let (store, findings) = opened(disk.clone());
    let kept_as = assert_damaged(&findings, (1, 0));
    assert_eq!(kept_as, "leases.log.damaged-1");
    assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["a/eth0", "b/eth0"]);
    assert!(disk.media().files.contains_key(kept_as), "never overwritten");
    let (_, findings) = opened(BadDisk::new(disk.media(), Fault::Never));
    assert!(findings.is_empty(), "and the fresh log is whole: {findings:?}");
}

#[test]
fn a_file_that_was_never_ours_is_set_aside() {
    let headless = chained([put("a/eth0")]).concat();
    for (foreign, expected) in [(b"hello\nworld\n".to_vec(), (2, 0)), (b"\n\n".to_vec(), (2, 0)), (headless, (0, 1))] {
        let disk = BadDisk::new(log_with(&[foreign]), Fault::Never);
        assert_damaged(&opened(disk).1, expected);
    }
}

#[test]
fn two_logs_in_one_file_are_set_aside_whatever_boot_the_second_is_of() {
    let of = |version, boot: &str| Record::Header { version, boot: boot.into(), serial: 2 };
    for second in [of(VERSION, "boot-2"), of(UNCHAINED, "boot-2"), of(VERSION + 1, BOOT), header()] {
        let first = chained([header(), put("a/eth0")]);
        let (store, findings) = opened(BadDisk::new(log_with(&[first, chained([second])].concat()), Fault::Never));
        assert_damaged(&findings, (0, 1));
        assert_eq!(store.leases().count(), 1, "the pod is of this boot");
    }
}

// covers: FM-G04
#[test]
fn a_log_of_another_version_is_set_aside_unread() {
    let newer = Record::Header { version: VERSION + 1, boot: BOOT.into(), serial: 1 };
    let content = chained([newer, put("a/eth0")]).concat();
    let disk = BadDisk::new(log_with(std::slice::from_ref(&content)), Fault::Never);
    let (store, findings) = opened(disk.clone());
    assert_eq!(store.leases().count(), 0);
    let [Finding::SetAside { why: Unusable::Version(3), kept_as }] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(kept_as, "leases.log.version-3-1");
    assert_eq!(disk.media().files[kept_as].0, content);
    assert_eq!(opened(disk).1.len(), 0, "and the fresh log is whole");
}

#[test]
fn a_log_that_cannot_be_read_is_set_aside_as_it_is() {
    let disk = BadDisk::new(log_with(&chained([header(), put("a/eth0")])), Fault::Refuse { at: 1, written: 0 });
    let before = disk.media().files[LOG].clone();
    let (store, findings) = opened(disk.clone());
    assert_eq!(store.leases().count(), 0);
    assert!(matches!(findings.as_slice(), [Finding::SetAside { why: Unusable::Unreadable(_), .. }]), "{findings:?}");
    assert_eq!(disk.media().files["leases.log.unreadable-1"], before);
}

#[test]
fn only_the_newest_logs_that_were_set_aside_are_kept() {
    let disk = BadDisk::new(log_with(&[b"hello\n".to_vec()]), Fault::Never);
    for now in [9, 10, 100, 1000, 10_000, 100_000] {
        disk.media.lock().expect("unpoisoned").files.insert(LOG.into(), (b"hello\n".to_vec(), 6));
        Store::open(disk.clone(), BOOT, now).0.settle().expect("the disk is well");
    }
    let files: Vec<String> = disk.media().files.into_keys().collect();
    let kept = ["100", "1000", "10000", "100000"].map(|now| format!("{LOG}.damaged-{now}"));
    assert_eq!(files, [LOG.to_owned()].into_iter().chain(kept).collect::<Vec<_>>());
}

#[test]
fn an_agent_killed_while_it_sets_a_log_aside_keeps_what_could_be_read() {
    let before = damaged(chained([header(), put("a/eth0"), put("bad/eth0")]), 2);
    for at in 1..=12 {
        let disk = BadDisk::new(before.clone(), Fault::Stop { at, written: 0 });
        opened(disk.clone());
        let (store, _) = opened(BadDisk::new(disk.media(), Fault::Never));
        assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["a/eth0"], "stopped at operation {at}");
    }
}

// covers: FM-D09
#[test]
fn the_log_that_was_set_aside_last_is_kept_whatever_the_boot_clock_says() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    for now in [1000, 2000, 3000, 4000, 5000, 7] {
        disk.media.lock().expect("unpoisoned").files.insert(LOG.into(), (b"garbage\n".to_vec(), 8));
        let (mut store, findings) = Store::open(disk.clone(), BOOT, now);
        store.settle().expect("a good disk");
        let [Finding::SetAside { kept_as, .. }] = findings.as_slice() else { panic!("{findings:?}") };
        assert!(disk.media().files.contains_key(kept_as), "{kept_as}");
    }
    assert_eq!(disk.media().files.keys().filter(|name| name.contains("damaged")).count(), KEPT);
}

#[test]
fn a_log_that_cannot_be_set_aside_is_not_overwritten_either() {
    let healthy = BadDisk::new(log_with(&[b"hello\n".to_vec()]), Fault::Never);
    opened(healthy.clone());
    for at in 1..=healthy.count() {
        for stop in [false, true] {
            let fault = if stop { Fault::Stop { at, written: 3 } } else { Fault::Refuse { at, written: 3 } };
            let disk = BadDisk::new(log_with(&[b"hello\n".to_vec()]), fault);
            let (mut store, _) = Store::open(disk.clone(), BOOT, 1);
            store.settle().ok();
            store.put(lease("abc/eth0")).ok();
            let hellos = disk.media().files.into_values().filter(|(content, _)| content == b"hello\n").count();
            assert_eq!(hellos, 1, "at {at}");
            if !stop {
                store.put(lease("abc/eth0")).expect("a later change goes through");
                assert_eq!(contents(&opened(BadDisk::new(disk.media(), Fault::Never)).0).len(), 1, "at {at}");
            }
        }
    }
}

#[test]
fn of_a_damaged_log_only_what_cannot_have_ended_or_gone_on_is_in_force() {
    let at = |key: &str, phase, since, last: u8| {
        let mut lease = lease(key);
        (lease.phase, lease.since, lease.ipv6, lease.ipv4) = (phase, since, None, Some([10, 0, 0, last].into()));
        Record::Put(Box::new(lease))
    };
    let committed = |key, since, last| at(key, Phase::Committed, since, last);
    let records = [
        header(),
        committed("stands/eth0", 1, 1),
        at("pending/eth0", Phase::Pending, 2, 2),
        put("bad/eth0"),
        // The line between may have been the end of `old`: its address was given to `new`, or in whatever order they were.
        committed("old/eth0", 3, 3),
        committed("new/eth0", 4, 3),
        // Deleted and made again: which of them was the last?
        committed("again/eth0", 5, 5),
        committed("again/eth0", 6, 6),
    ];
    let (store, findings) = opened(BadDisk::new(damaged(chained(records), 3), Fault::Never));
    assert_damaged(&findings, (1, 0));
    assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["stands/eth0"]);
}

// covers: FM-P02
#[test]
fn lines_that_are_missing_doubled_exchanged_or_of_another_file_are_damage() {
    let records = || [header(), put("a/eth0"), put("b/eth0"), put("c/eth0"), put("d/eth0")];
    let whole = chained(records());
    let older = chained(
        [vec![Record::Header { version: VERSION, boot: BOOT.into(), serial: 0 }], records()[1..].to_vec()].concat(),
    );
    let damage = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut lines = whole.clone();
        edit(&mut lines);
        opened(BadDisk::new(log_with(&lines), Fault::Never)).1
    };
    assert!(damage(&|_| ()).is_empty());
    for nth in 1..4 {
        assert_damaged(&damage(&|lines| drop(lines.remove(nth))), (0, 1));
        assert_damaged(&damage(&|lines| lines.insert(nth, lines[nth].clone())), (0, 1));
        assert_damaged(&damage(&|lines| lines[nth].clone_from(&older[nth])), (0, 2));
        // A line as version 1 wrote it.
        assert_damaged(&damage(&|lines| lines.insert(nth, unchained(records())[2].clone())), (0, 2));
    }
    assert_damaged(&damage(&|lines| lines.swap(1, 2)), (0, 3));
    assert_damaged(&damage(&|lines| lines.swap(3, 4)), (0, 2));
    assert_damaged(&damage(&|lines| drop(lines.remove(0))), (0, 1));
    assert_damaged(&damage(&|lines| lines[1..].reverse()), (0, 4));
    assert_damaged(&damage(&|lines| lines.extend(older[3..].to_vec())), (0, 1));
}

#[test]
fn every_log_is_unlike_any_earlier_one_of_its_boot() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    let mut seen = std::collections::BTreeSet::new();
    for now in [5, 5, 5, 2, 9000, 3] {
        let (mut store, _) = Store::open(disk.clone(), BOOT, now);
        store.settle().expect("a good disk");
        let first = disk.media().files[LOG].0.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec);
        assert!(seen.insert(first.clone()), "{first:?}");
    }
}

#[test]
fn what_the_kernel_told_is_in_force_though_the_disk_is_full() {
    let (mut store, _) = opened(BadDisk::new(Media::default(), Fault::Never));
    store.disk.fault = Fault::Stop { at: 0, written: 0 };
    assert!(store.adopt(lease("abc/eth0")).is_err());
    assert!(store.settle().is_err());
    store.disk.fault = Fault::Never;
    assert!(store.settle().expect("space again"), "there was something to record");
    assert!(!store.settle().expect("quiet"));
    assert_eq!(contents(&opened(store.disk).0).len(), 1);
}

#[test]
fn an_empty_or_missing_log_is_an_empty_table() {
    for media in [Media::default(), log_with(&[])] {
        let (store, findings) = opened(BadDisk::new(media, Fault::Never));
        assert_eq!((store.leases().count(), findings.len()), (0, 0));
    }
}

/// The files of every version that was ever released must open for ever.
// covers: FM-G04
#[test]
fn files_of_past_versions_open() {
    let files: [&[u8]; 3] = [
        include_bytes!("../../../tests/data/leases-v1.log"),
        include_bytes!("../../../tests/data/leases-v2.log"),
        include_bytes!("../../../tests/data/leases-v2-addresses.log"),
    ];
    for (n, file) in files.into_iter().enumerate() {
        let disk = BadDisk::new(log_with(&[file.to_vec()]), Fault::Never);
        let (mut store, findings) = Store::open(disk.clone(), "5e0c2b2e-7d52-4f0e-9f3e-0a4c6a1d9b11", 2_000);
        assert!(findings.is_empty(), "{findings:?}");
        let by_key: HashMap<String, &Lease> =
            store.leases().map(|lease| (lease.attachment.to_string(), lease)).collect();
        assert_eq!(by_key.len(), 2);
        let web = by_key["4f1d/eth0"];
        assert_eq!((web.phase, web.mtu, web.since), (Phase::Committed, 1500, 1200));
        assert_eq!(web.pod.as_ref().map(|pod| pod.name.as_str()), Some("web-0"));
        let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let more = (text(&web.extra), text(&web.anycast), web.pod.as_ref().and_then(|pod| pod.uid.as_deref()));
        let expected = match n {
            2 => ("2001:db8:f::6", "2001:db8:f::53 203.0.113.53", Some("2f4c-99")),
            _ => ("", "", None),
        };
        assert_eq!((more.0.as_str(), more.1.as_str(), more.2), expected);
        assert_eq!(by_key["77aa/net1"].phase, Phase::Pending);
        assert_eq!(by_key["77aa/net1"].ipv4, None);
        assert_eq!(store.freed().count(), 1);
        // And are of this version from then on.
        store.settle().expect("a good disk");
        let written = disk.media().files[LOG].0.clone();
        assert!(String::from_utf8(written).expect("text").contains(r#"{"flock":{"version":2,"#));
    }
}

#[test]
fn two_leases_of_one_address_in_a_log_of_version_1_are_damage() {
    let one = |key: &str| Record::Put(Box::new(lease(key)));
    let (store, findings) = opened(BadDisk::new(log_with(&unchained([one("a/eth0"), one("b/eth0")])), Fault::Never));
    assert_damaged(&findings, (0, 1));
    assert_eq!(store.leases().count(), 0, "the kernel knows whose it is");
}

// ---- batches ----

/// Something that one of many callers wants, of one of four pods, each of which has addresses of its own.
fn wanted() -> impl Strategy<Value = Change> {
    let of = |pod: u8, n: u8| {
        let mut lease = lease(&format!("pod{pod}/eth0"));
        (lease.ipv6, lease.ipv4, lease.since) = (None, Some([10, pod, 0, n].into()), u64::from(n));
        Box::new(lease)
    };
    prop_oneof![
        5 => (0..4_u8, any::<u8>()).prop_map(move |(pod, n)| Change::Put(of(pod, n))),
        1 => (0..4_u8, any::<u8>()).prop_map(move |(pod, n)| Change::Adopt(of(pod, n))),
        3 => (0..4_u8, any::<u8>())
            .prop_map(move |(pod, n)| Change::Free { attachment: of(pod, n).attachment, at: u64::from(n) }),
    ]
}

/// What is in force after these changes: a plain model of the table.
fn model_of<'a>(
    mut table: BTreeMap<String, Lease>,
    changes: impl IntoIterator<Item = &'a Change>,
) -> BTreeMap<String, Lease> {
    for change in changes {
        let key = change.attachment().to_string();
        match change {
            Change::Put(lease) | Change::Adopt(lease) => drop(table.insert(key, Lease::clone(lease))),
            Change::Free { .. } => drop(table.remove(&key)),
        }
    }
    table
}

proptest! {
    #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

    /// Of the changes that waited for the sync in which the power went, the first so many are in force, and no other.
    // covers: FM-E07
    #[test]
    fn after_a_power_cut_a_batch_is_in_force_up_to_some_change_and_never_with_a_hole(
        batches in prop::collection::vec(prop::collection::vec(wanted(), 1..8), 1..6),
        at in 1..40_usize,
        written in any::<u16>(),
        kept in any::<u16>(),
    ) {
        // Reads, and the first log.
        let at = at + 6;
        let disk = BadDisk::new(Media::default(), Fault::Stop { at, written: usize::from(written) % 2000 });
        let (mut store, _) = opened(disk.clone());
        let mut promised = BTreeMap::new();
        let mut cut_off: &[Change] = &[];
        for batch in &batches {
            if store.batch(batch.clone()).is_err() {
                cut_off = batch;
                break;
            }
            promised = model_of(promised, batch);
        }
        let (survivor, findings) =
            opened(BadDisk::new(disk.media().after_power_cut(usize::from(kept) % 2000), Fault::Never));
        prop_assert!(findings.iter().all(|finding| matches!(finding, Finding::TornTail)), "{:?}", findings);
        let found = contents(&survivor);
        let outcomes: Vec<_> = (0..=cut_off.len()).map(|n| model_of(promised.clone(), &cut_off[..n])).collect();
        prop_assert!(outcomes.contains(&found), "{:?} is none of {:?}", found, outcomes);
    }

    /// One refusal of the disk, and then it works again: what needed a record is as if it had never been asked, what needed none is
    /// in force, and so is everything before and after.
    #[test]
    fn a_batch_that_is_refused_leaves_what_stands_without_a_record_and_nothing_else(
        batches in prop::collection::vec(prop::collection::vec(wanted(), 1..8), 1..6),
        at in 1..20_usize,
        written in any::<u16>(),
    ) {
        let fault = Fault::Refuse { at: at + 6, written: usize::from(written) % 2000 };
        let disk = BadDisk::new(Media::default(), fault);
        let (mut store, _) = opened(disk.clone());
        let mut expected = BTreeMap::new();
        for batch in &batches {
            let refused = store.batch(batch.clone()).is_err();
            expected = model_of(expected, batch.iter().filter(|change| !refused || change.stands_alone()));
            prop_assert_eq!(&contents(&store), &expected);
        }
        let freed: Vec<Freed> = store.freed().cloned().collect();
        store.settle().expect("it works again");
        let (reopened, findings) = opened(BadDisk::new(disk.media().after_power_cut(0), Fault::Never));
        prop_assert!(findings.is_empty(), "{:?}", findings);
        prop_assert_eq!(contents(&reopened), expected);
        prop_assert_eq!(reopened.freed().cloned().collect::<Vec<_>>(), freed);
    }
}

#[test]
fn what_waits_together_is_synced_once() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    let mut store = opened(disk.clone()).0;
    let before = disk.count();
    let many = (0..49).map(|n| Change::Put(Box::new(lease(&format!("pod{n}/eth0")))));
    store.batch(many).expect("a good disk");
    assert_eq!(disk.count() - before, 2, "one append and one sync");
    store.batch([]).expect("nothing");
    store.free(&lease("unknown/eth0").attachment, 1).expect("nothing");
    assert_eq!(disk.count() - before, 2, "for nothing, nothing is written");
}

// ---- damage of any kind, judged by the kernel's links ----

/// What is true of a node while its agent is away: the log as it was written, and the links that stand.
struct Node {
    lines: Vec<Vec<u8>>,
    links: Vec<Observed>,
    /// The leases of the pods that live and were told of their addresses.
    alive: BTreeMap<String, Lease>,
}

/// Something that happens on a node: to which of its pods, and which address it gets where it needs one.
#[derive(Debug, Clone, Copy)]
enum Event {
    Add(usize, u8),
    /// An ADD that fails, and is taken back.
    Fail(usize, u8),
    Del(usize),
    /// The agent starts again, with a fresh log.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..5_usize, any::<u8>()).prop_map(|(pod, pick)| Event::Add(pod, pick)),
        1 => (0..5_usize, any::<u8>()).prop_map(|(pod, pick)| Event::Fail(pod, pick)),
        4 => (0..5_usize).prop_map(Event::Del),
        1 => Just(Event::Restart),
    ]
}

/// How far the last ADD had come when the agent died.
#[derive(Debug, Clone, Copy)]
enum CutOff {
    Nowhere,
    Recorded,
    LinkMade,
    HostEndDone,
    LinkDone,
}

/// Six addresses for five pods: they go round, and an address has had many holders.
const ADDRESSES: u8 = 6;

fn lived(events: &[Event], cut_off: CutOff) -> Node {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    let mut store = opened(disk.clone()).0;
    let mut alive: BTreeMap<String, Lease> = BTreeMap::new();
    let mut since = 0;
    let pending = |alive: &BTreeMap<String, Lease>, pod: usize, pick: u8, since: u64| {
        let taken = |n: &u8| alive.values().any(|lease| lease.ipv4 == Some([10, 0, 0, *n].into()));
        let free: Vec<u8> = (1..=ADDRESSES).filter(|n| !taken(n)).collect();
        let mut lease = lease(&format!("pod{pod}/eth0"));
        (lease.phase, lease.since, lease.ipv6) = (Phase::Pending, since, None);
        lease.ipv4 = Some([10, 0, 0, free[usize::from(pick) % free.len()]].into());
        lease
    };
    for event in events {
        since += 1;
        match *event {
            Event::Add(pod, pick) | Event::Fail(pod, pick) if !alive.contains_key(&format!("pod{pod}/eth0")) => {
                let mut lease = pending(&alive, pod, pick, since);
                store.put(lease.clone()).expect("a good disk");
                if let Event::Fail(..) = event {
                    store.free(&lease.attachment, since).expect("a good disk");
                    continue;
                }
                lease.phase = Phase::Committed;
                store.put(lease.clone()).expect("a good disk");
                alive.insert(lease.attachment.to_string(), lease);
            }
            Event::Add(..) | Event::Fail(..) => {}
            Event::Del(pod) => {
                if let Some(lease) = alive.remove(&format!("pod{pod}/eth0")) {
                    store.free(&lease.attachment, since).expect("a good disk");
                }
            }
            Event::Restart => store = opened(disk.clone()).0,
        }
    }
    let mut links: Vec<Observed> = alive.values().map(link_of).collect();
    if !matches!(cut_off, CutOff::Nowhere) {
        let lease = pending(&alive, 9, 0, since + 1);
        store.put(lease.clone()).expect("a good disk");
        let mut link = link_of(&lease);
        match cut_off {
            CutOff::LinkMade => (link.alias, link.routes, link.neighbours, link.up) = (None, vec![], vec![], false),
            CutOff::HostEndDone => link.carrier = false,
            _ => {}
        }
        if !matches!(cut_off, CutOff::Recorded) {
            links.push(link);
        }
    }
    let bytes = disk.media().files[LOG].0.clone();
    Node { lines: bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(), links, alive }
}

fn as_in_version_1(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let records = lines.iter().filter_map(|line| Some(decode(line.strip_suffix(b"\n")?)?.record));
    unchained(records.skip(1))
}

#[derive(Debug, Clone)]
enum Damage {
    Lose(Index),
    Double(Index, Index),
    Exchange(Index, Index),
    /// From here on nothing is left, be it the end of a line or not.
    Cut(Index),
    Flip(Index, u8),
    Shuffle(u64),
    /// A line of the log as it was after fewer events.
    Older(Index, Index),
    /// The whole file as it was after fewer events.
    Restored,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        3 => any::<Index>().prop_map(Damage::Lose),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Double(from, to)),
        2 => (any::<Index>(), any::<Index>()).prop_map(|(one, other)| Damage::Exchange(one, other)),
        3 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => any::<u64>().prop_map(Damage::Shuffle),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Older(from, to)),
        2 => Just(Damage::Restored),
    ]
}

impl Damage {
    fn apply(&self, lines: &mut Vec<Vec<u8>>, older: &[Vec<u8>]) {
        if lines.is_empty() {
            return;
        }
        let count = lines.len();
        match self {
            Damage::Lose(at) => drop(lines.remove(at.index(count))),
            Damage::Double(from, to) => lines.insert(to.index(count + 1), lines[from.index(count)].clone()),
            Damage::Exchange(one, other) => lines.swap(one.index(count), other.index(count)),
            Damage::Cut(at) => {
                let mut bytes = lines.concat();
                bytes.truncate(at.index(bytes.len()));
                // As often at the end of a line as within one.
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                bytes.truncate(if bytes.len() % 2 == 0 { whole } else { bytes.len() });
                *lines = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            }
            Damage::Flip(at, bit) => {
                let line = &mut lines[at.index(count)];
                let place = at.index(line.len());
                line[place] ^= 1 << bit;
            }
            Damage::Shuffle(seed) => lines.sort_by_key(|line| fnv1a64(&[&seed.to_le_bytes()[..], line].concat())),
            Damage::Older(from, to) => lines.insert(to.index(count + 1), older[from.index(older.len())].clone()),
            Damage::Restored => *lines = older.to_vec(),
        }
    }
}

/// A start over this log and these links: leases and links as they are afterwards.
fn recovered(log: &[Vec<u8>], mut links: Vec<Observed>) -> (BTreeMap<String, Lease>, Vec<Observed>) {
    const BEGAN: u64 = 1_000;
    let (store, _) = opened(BadDisk::new(log_with(log), Fault::Never));
    let mut leases = contents(&store);
    let compared =
        |leases: &BTreeMap<String, Lease>, links: &[Observed]| repairs(leases.values(), links, |_| false, BEGAN, 0);
    for repair in compared(&leases, &links) {
        match repair {
            Repair::Undo(attachment) | Repair::Release(attachment) | Repair::Remove(attachment) => {
                let lease = leases.remove(&attachment.to_string());
                let name = lease.map_or(attachment.host_link(0), |lease| lease.host_link);
                links.retain(|link| link.name != name.as_str());
            }
            Repair::Forget(attachment) => drop(leases.remove(&attachment.to_string())),
            Repair::Commit(attachment) => {
                leases.get_mut(&attachment.to_string()).expect("recorded").phase = Phase::Committed;
            }
            Repair::Adopt(ref lease) | Repair::Amend(ref lease) => {
                let is_amended = matches!(repair, Repair::Amend(_));
                let others = leases.values().filter(|other| other.attachment != lease.attachment);
                let taken = others.flat_map(Lease::addresses).any(|ip| lease.addresses().any(|mine| mine == ip));
                let before = leases.insert(lease.attachment.to_string(), Lease::clone(lease));
                assert!(!taken && before.is_some() == is_amended, "the ledger would refuse");
            }
            repair @ (Repair::Rewire(_) | Repair::Conflict { .. }) => panic!("nothing was taken away: {repair:?}"),
        }
    }
    assert_eq!(compared(&leases, &links), [], "once is enough");
    (leases, links)
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    // covers: FM-A03 FM-P02
    #[test]
    fn however_a_log_is_damaged_no_living_pod_loses_its_link_or_its_address(
        events in prop::collection::vec(event(), 0..30),
        cut_off in prop::sample::select(vec![
            CutOff::Nowhere, CutOff::Recorded, CutOff::LinkMade, CutOff::HostEndDone, CutOff::LinkDone,
        ]),
        before in any::<Index>(),
        damages in prop::collection::vec(damage(), 0..4),
        is_of_version_1 in any::<bool>(),
    ) {
        let mut node = lived(&events, cut_off);
        let mut older = lived(&events[..before.index(events.len() + 1)], CutOff::Nowhere).lines;
        if is_of_version_1 {
            node.lines = as_in_version_1(&node.lines);
            older = as_in_version_1(&older);
        }
        let mut lines = node.lines.clone();
        damages.iter().for_each(|damage| damage.apply(&mut lines, &older));
        let (leases, links) = recovered(&lines, node.links);
        let mut held: BTreeMap<IpAddr, &Lease> = BTreeMap::new();
        for lease in leases.values() {
            for ip in lease.addresses() {
                prop_assert!(held.insert(ip, lease).is_none(), "{} is held twice", ip);
            }
            prop_assert_eq!(lease.phase, Phase::Committed);
            prop_assert!(links.iter().any(|link| link.name == lease.host_link.as_str()), "{} has no link", lease.attachment);
        }
        for pod in node.alive.values() {
            prop_assert!(links.contains(&link_of(pod)), "{} has lost its link", pod.attachment);
            for ip in pod.addresses() {
                let holder = held.get(&ip).map(|lease| &lease.attachment);
                prop_assert_eq!(holder, Some(&pod.attachment), "{} is free for others", ip);
            }
        }
        // What the kernel cannot tell is kept as long as the log is whole.
        if lines == node.lines {
            let kept: BTreeMap<String, Lease> =
                leases.into_iter().filter(|(key, _)| node.alive.contains_key(key)).collect();
            prop_assert_eq!(kept, node.alive);
        }
    }
}
