//! What survives: every disk operation in turn fails, or is the last one before the power goes, with every way to lose what
//! was not synced. Arithmetic, not chance: the operations are counted once, and then each of them is the bad one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::lease::Phase;
use crate::plan::tests::lease;

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
}

impl BadDisk {
    fn new(media: Media, fault: Fault) -> BadDisk {
        BadDisk { media: Arc::new(Mutex::new(media)), operations: Arc::default(), fault }
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
        let bad = self.step();
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
        lease.ipv4 = Some([10, 0, 0, n].into());
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
            let other = lease("later/eth0");
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
    let (later, _) = Store::open(BadDisk::new(disk.media(), Fault::Never), BOOT, 77 + FREED_MEMORY_MS + 1);
    assert_eq!(later.freed().count(), 0, "not for ever");
}

#[test]
fn the_log_does_not_grow_with_the_number_of_changes() {
    let disk = BadDisk::new(Media::default(), Fault::Never);
    let (mut store, _) = opened(disk.clone());
    let one = lease("abc/eth0");
    for now in 0..3 * SLACK as u64 {
        store.put(one.clone()).expect("recorded");
        store.free(&one.attachment, now * FREED_MEMORY_MS).expect("recorded");
    }
    let lines = disk.media().files[LOG].0.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines <= SLACK + 10, "{lines} lines for no lease");
}

#[test]
fn state_of_an_earlier_boot_is_dropped() {
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

fn header() -> Vec<u8> {
    encode(&Record::Header { version: VERSION, boot: BOOT.into() })
}

fn put(key: &str) -> Vec<u8> {
    encode(&Record::Put(Box::new(lease(key))))
}

#[test]
fn a_damaged_line_is_set_aside_with_its_file_and_the_rest_stays_in_force() {
    let mut damaged = put("bad/eth0");
    damaged[40] ^= 1;
    let mut other = lease("b/eth0");
    (other.ipv6, other.ipv4) = (None, "10.0.0.6".parse().ok());
    let other = encode(&Record::Put(Box::new(other)));
    let disk = BadDisk::new(log_with(&[header(), put("a/eth0"), damaged, other]), Fault::Never);
    let (store, findings) = opened(disk.clone());
    let [Finding::SetAside { why: Unusable::Damaged(1), kept_as }] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(kept_as, "leases.log.damaged-1");
    assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["a/eth0", "b/eth0"]);
    assert!(disk.media().files.contains_key(kept_as), "never overwritten");
    let (_, findings) = opened(BadDisk::new(disk.media(), Fault::Never));
    assert!(findings.is_empty(), "and the fresh log is whole: {findings:?}");
}

#[test]
fn a_file_that_was_never_ours_is_set_aside() {
    for foreign in [b"hello\nworld\n".to_vec(), b"\n\n".to_vec(), put("a/eth0")] {
        let disk = BadDisk::new(log_with(&[foreign]), Fault::Never);
        let (_, findings) = opened(disk);
        assert!(matches!(findings.as_slice(), [Finding::SetAside { why: Unusable::Damaged(_), .. }]), "{findings:?}");
    }
}

#[test]
fn two_logs_in_one_file_are_set_aside_whatever_boot_the_second_is_of() {
    let other = encode(&Record::Header { version: VERSION, boot: "boot-2".into() });
    let newer = encode(&Record::Header { version: VERSION + 1, boot: BOOT.into() });
    for second in [other, newer, header()] {
        let (store, findings) = opened(BadDisk::new(log_with(&[header(), put("a/eth0"), second]), Fault::Never));
        assert!(matches!(findings.as_slice(), [Finding::SetAside { why: Unusable::Damaged(1), .. }]), "{findings:?}");
        assert_eq!(store.leases().count(), 1, "the pod is of this boot");
    }
}

#[test]
fn a_log_of_another_version_is_set_aside_unread() {
    let newer = encode(&Record::Header { version: VERSION + 1, boot: BOOT.into() });
    let content = [newer, put("a/eth0")].concat();
    let disk = BadDisk::new(log_with(std::slice::from_ref(&content)), Fault::Never);
    let (store, findings) = opened(disk.clone());
    assert_eq!(store.leases().count(), 0);
    let [Finding::SetAside { why: Unusable::Version(2), kept_as }] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(kept_as, "leases.log.version-2-1");
    assert_eq!(disk.media().files[kept_as].0, content);
    assert_eq!(opened(disk).1.len(), 0, "and the fresh log is whole");
}

#[test]
fn a_log_that_cannot_be_read_is_set_aside_as_it_is() {
    let disk = BadDisk::new(log_with(&[header(), put("a/eth0")]), Fault::Refuse { at: 1, written: 0 });
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
    let mut damaged = put("bad/eth0");
    damaged[40] ^= 1;
    let before = log_with(&[header(), put("a/eth0"), damaged]);
    for at in 1..=12 {
        let disk = BadDisk::new(before.clone(), Fault::Stop { at, written: 0 });
        opened(disk.clone());
        let (store, _) = opened(BadDisk::new(disk.media(), Fault::Never));
        assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["a/eth0"], "stopped at operation {at}");
    }
}

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
    let mut damaged = put("ended/eth0");
    damaged[40] ^= 1;
    let mut pending = lease("pending/eth0");
    (pending.phase, pending.ipv6, pending.ipv4) = (Phase::Pending, None, "10.0.0.9".parse().ok());
    let pending = encode(&Record::Put(Box::new(pending)));
    // The line between may have been the end of `a`: its addresses were given to `b` later.
    let (store, _) =
        opened(BadDisk::new(log_with(&[header(), put("a/eth0"), pending, damaged, put("b/eth0")]), Fault::Never));
    assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["b/eth0"]);
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
#[test]
fn files_of_past_versions_open() {
    let v1 = include_bytes!("../../tests/data/leases-v1.log");
    let (store, findings) = Store::open(
        BadDisk::new(log_with(&[v1.to_vec()]), Fault::Never),
        "5e0c2b2e-7d52-4f0e-9f3e-0a4c6a1d9b11",
        2_000,
    );
    assert!(findings.is_empty(), "{findings:?}");
    let by_key: HashMap<String, &Lease> = store.leases().map(|lease| (lease.attachment.to_string(), lease)).collect();
    assert_eq!(by_key.len(), 2);
    let web = by_key["4f1d/eth0"];
    assert_eq!((web.phase, web.mtu, web.since), (Phase::Committed, 1500, 1200));
    assert_eq!(web.pod.as_ref().map(|pod| pod.name.as_str()), Some("web-0"));
    assert_eq!(by_key["77aa/net1"].phase, Phase::Pending);
    assert_eq!(by_key["77aa/net1"].ipv4, None);
    assert_eq!(store.freed().count(), 1);
}
