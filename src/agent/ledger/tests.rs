//! What the ledger promises to callers that come one by one, all at once, or too late.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::agent::ledger::table::AVOIDED_MAX;
use model::addr::Attachment;
use model::lease::Phase;

/// A directory in memory, which can be full.
#[derive(Clone, Default)]
struct Memory {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    full: Arc<AtomicBool>,
    /// Syncs that were begun.
    syncs: Arc<AtomicUsize>,
    /// Held, no sync ends.
    slow: Arc<Mutex<()>>,
}

impl Disk for Memory {
    fn is_lost(&mut self, name: &str) -> bool {
        !self.files.lock().expect("unpoisoned").contains_key(name)
    }

    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.files.lock().expect("unpoisoned").get(name).cloned())
    }

    fn names(&mut self) -> Result<Vec<String>, DiskError> {
        Ok(self.files.lock().expect("unpoisoned").keys().cloned().collect())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        if self.full.load(Ordering::Relaxed) {
            let error = io::ErrorKind::StorageFull.into();
            return Err(DiskError { operation: "append to", path: name.into(), error });
        }
        self.files.lock().expect("unpoisoned").entry(name.into()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _: &str) -> Result<(), DiskError> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        drop(self.slow.lock().expect("unpoisoned"));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.files.lock().expect("unpoisoned");
        let file = files.remove(from).expect("there");
        files.insert(to.into(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.files.lock().expect("unpoisoned").remove(name);
        Ok(())
    }
}

fn store(disk: &Memory) -> Store<Memory> {
    Store::open(disk.clone(), "boot", boot_clock::now_ms()).0
}

fn ledger(disk: &Memory, cidr6: &str, cidr4: &str) -> Ledger {
    let ledger = Ledger::start(store(disk), Zero).expect("a thread");
    ledger.configure(ranges(cidr6, cidr4, &[]));
    ledger
}

struct Zero;

impl Draw for Zero {
    fn draw(&mut self) -> u128 {
        0
    }
}

fn ranges(cidr6: &str, cidr4: &str, host: &[IpAddr]) -> Ranges {
    Ranges { cidr6: cidr6.parse().ok(), cidr4: cidr4.parse().ok(), host: host.to_vec() }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn both() -> ipam::Request {
    ipam::Request { ipv6: Some(ipam::Want6::default()), ipv4: Some(ipam::Want4::default()), fixed: Vec::new() }
}

fn new(key: &str) -> NewLease {
    NewLease {
        attachment: key.parse().expect("a key"),
        network: "flock".into(),
        netns: "/run/netns/x".into(),
        pod: None,
        mtu: 1500,
        gateway4: model::addr::GATEWAY4,
        call: None,
        addresses: both(),
        anycast: Vec::new(),
        any_source: false,
        audit: false,
    }
}

/// A pending lease of a new attachment, with its claim.
fn begun(ledger: &Ledger, key: &str) -> Result<(Claim, Lease), Cause> {
    let Begun { claim, warnings } = ledger.begin(new(key), soon())?;
    assert!(warnings.is_some(), "there was a lease of {key}");
    let lease = claim.lease().cloned().expect("a lease");
    Ok((claim, lease))
}

fn found(ledger: &Ledger, key: &str) -> Option<Lease> {
    let key: Attachment = key.parse().expect("a key");
    let (leases, _) = ledger.leases(soon()).expect("in time");
    leases.into_iter().find(|lease| lease.attachment == key)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

fn addresses(lease: &Lease) -> Vec<String> {
    lease.addresses().map(|ip| ip.to_string()).collect()
}

#[test]
fn an_address_of_the_range_is_replaced_and_those_that_the_pod_names_are_its_own_also_for_the_next_agent() {
    let disk = Memory::default();
    let first = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let named = ipam::Request { fixed: vec![ip("2001:db8:f::5"), ip("2001:db8:f::6")], ..both() };
    let asked = |key: &str| NewLease { addresses: named.clone(), ..new(key) };
    let Begun { mut claim, .. } = first.begin(asked("a/eth0"), soon()).expect("free");
    claim.replace(ip("10.0.0.2"), named.clone(), soon()).expect("free");
    let lease = claim.lease().cloned().expect("a lease");
    assert_eq!(addresses(&lease), ["2001:db8:f::5", "10.0.0.3", "2001:db8:f::6"]);
    let refused = claim.replace(ip("2001:db8:f::6"), named.clone(), soon());
    assert!(matches!(refused, Err(Cause::Ipam(ipam::IpamError::Reserved(_)))), "{refused:?}");
    assert_eq!(claim.lease(), Some(&lease));
    let next = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    for key in ["b/eth0", "a/net1"] {
        let refused = next.begin(asked(key), soon()).map(drop);
        assert!(
            matches!(&refused, Err(Cause::Held { holder, .. }) if holder.attachment == lease.attachment),
            "{refused:?}"
        );
    }
    // What one pod has for its own is not shared, and what is shared is nobody's own.
    let shares = |key: &str, text: &str| NewLease { anycast: vec![ip(text)], ..new(key) };
    assert!(matches!(next.begin(shares("c/eth0", "2001:db8:f::6"), soon()).map(drop), Err(Cause::Held { .. })));
    for key in ["d/eth0", "e/eth0"] {
        next.begin(shares(key, "2001:db8:f::7"), soon()).expect("any number of pods");
    }
    let own = ipam::Request { fixed: vec![ip("2001:db8:f::7")], ..both() };
    let refused = next.begin(NewLease { addresses: own, ..new("f/eth0") }, soon()).map(drop);
    assert!(matches!(refused, Err(Cause::Held { .. })), "{refused:?}");
}

#[test]
fn an_address_that_proves_to_be_somebody_elses_is_replaced_and_given_to_nobody_until_the_host_is_looked_at() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let (mut claim, lease) = begun(&ledger, "a/eth0").expect("free");
    assert_eq!(addresses(&lease), ["2001:db8::1", "10.0.0.2"]);
    let mut replaced = |bad: &str| {
        claim.replace(ip(bad), both(), soon()).expect("free");
        claim.lease().cloned().expect("a lease")
    };
    assert_eq!(addresses(&replaced("10.0.0.2")), ["2001:db8::1", "10.0.0.3"]);
    assert_eq!(addresses(&replaced("2001:db8::1")), ["2001:db8::2", "10.0.0.3"]);
    // Asked again, as by a caller that was late, nothing more happens.
    let same = replaced("10.0.0.2");
    assert_eq!(addresses(&same), ["2001:db8::2", "10.0.0.3"]);
    assert_eq!((same.phase, same.since), (Phase::Pending, lease.since));
    // It is recorded before anything can be carried.
    assert_eq!(store(&disk).leases().cloned().collect::<Vec<_>>(), [same]);
    // Nobody else gets what proved to be taken, while there is anything else and when there is not.
    for (n, expected) in ["10.0.0.4", "10.0.0.5", "10.0.0.6"].iter().enumerate() {
        let (_, lease) = begun(&ledger, &format!("b{n}/eth0")).expect("free");
        assert_eq!(addresses(&lease)[1], *expected);
    }
    let error = begun(&ledger, "c/eth0").expect_err("full");
    assert!(matches!(error, Cause::Ipam(_)), "{error:?}");
    // A look at the host that sees no such address there any more.
    ledger.configure(ranges("2001:db8::/120", "10.0.0.0/29", &[ip("2001:db8::1")]));
    let (_, lease) = begun(&ledger, "c/eth0").expect("free again");
    assert_eq!(addresses(&lease)[1], "10.0.0.2");
    assert_ne!(addresses(&lease)[0], "2001:db8::1", "that one the host has");
}

#[test]
fn a_replacement_that_cannot_be_had_changes_nothing() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/30");
    let (mut claim, lease) = begun(&ledger, "a/eth0").expect("free");
    let refused = |claim: &mut Claim, bad: &str| {
        let error = claim.replace(ip(bad), both(), soon()).expect_err("refused");
        assert_eq!((claim.lease(), found(&ledger, "a/eth0").as_ref()), (Some(&lease), Some(&lease)));
        error
    };
    assert!(matches!(refused(&mut claim, "10.0.0.2"), Cause::Ipam(_)), "there is no other one");
    claim.replace(ip("10.0.0.77"), both(), soon()).expect("nothing to do, since it has not got that one");
    assert_eq!(claim.lease(), Some(&lease));
    let mut other = ledger.claim(&"b/eth0".parse().expect("a key"), soon()).expect("in time");
    assert!(matches!(other.replace(ip("10.0.0.2"), both(), soon()), Err(Cause::Unknown(_))));
    ledger.configure(ranges("2001:db8::/120", "10.0.0.0/29", &[]));
    disk.full.store(true, Ordering::Relaxed);
    assert!(matches!(refused(&mut claim, "10.0.0.2"), Cause::Store(_)), "what is not recorded is not in force");
    disk.full.store(false, Ordering::Relaxed);
    let free = |ledger: &Ledger| ledger.usage(soon()).expect("in time").addresses.ipv4.free;
    assert_eq!(free(&ledger), 4, "nor is it taken");
    // A pod that was told of its addresses keeps them.
    claim.commit(None, soon()).expect("recorded");
    let mut claim = ledger.claim(&lease.attachment, soon()).expect("in time");
    assert!(matches!(claim.replace(ip("10.0.0.2"), both(), soon()), Err(Cause::Attached(_))));
    assert_eq!(claim.lease().map(addresses), Some(addresses(&lease)));
}

#[test]
fn addresses_that_prove_to_be_taken_are_kept_in_mind_up_to_a_bound() {
    let ledger = ledger(&Memory::default(), "2001:db8::/64", "10.0.0.0/16");
    let (mut claim, _) = begun(&ledger, "a/eth0").expect("free");
    for n in 0..2 * AVOIDED_MAX {
        let [_, _, high, low] = u32::try_from(n + 2).expect("small").to_be_bytes();
        let bad = IpAddr::from([10, 0, high, low]);
        claim.replace(bad, both(), soon()).expect("free");
        assert!(!claim.lease().expect("a lease").addresses().any(|ip| ip == bad));
    }
    let free = ledger.usage(soon()).expect("in time").addresses.ipv4.free;
    assert_eq!(usize::try_from(free).expect("small"), 65_533 - 1 - AVOIDED_MAX);
}

/// Runs `ask` for so many callers that all wait for the disk, which then goes on.
fn together<T: Send>(disk: &Memory, ledger: &Ledger, callers: usize, ask: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (before, held) = (disk.syncs.load(Ordering::Relaxed), disk.slow.lock().expect("unpoisoned"));
    thread::scope(|scope| {
        let ahead = scope.spawn(|| begun(ledger, "ahead/eth0"));
        while disk.syncs.load(Ordering::Relaxed) == before {
            thread::yield_now();
        }
        let waiting = Arc::new(AtomicUsize::new(0));
        let ask = &ask;
        let asking: Vec<_> = (0..callers)
            .map(|n| {
                let waiting = waiting.clone();
                scope.spawn(move || {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    ask(n)
                })
            })
            .collect();
        while waiting.load(Ordering::Relaxed) < callers {
            thread::yield_now();
        }
        drop(held);
        let (claim, _) = ahead.join().expect("no panic").expect("free");
        claim.release(soon()).ok();
        asking.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

// covers: FM-E06
#[test]
fn whoever_waits_for_the_disk_at_the_same_time_waits_for_it_together() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/24");
    store(&disk).settle().expect("memory does not fail");
    let before = disk.syncs.load(Ordering::Relaxed);
    let begun = together(&disk, &ledger, 49, |n| begun(&ledger, &format!("p{n}/eth0")).expect("free").1);
    let syncs = disk.syncs.load(Ordering::Relaxed) - before;
    // Those ahead, their end, and those who waited; a thread may be late to its queue.
    assert!(syncs < 12, "{syncs} syncs for 49 records");
    let mut all: Vec<String> = begun.iter().flat_map(addresses).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 2 * 49, "and nobody has another's address");
    assert_eq!(store(&disk).leases().count(), 49);
}

// covers: FM-E05
#[test]
fn what_is_refused_together_takes_nothing_and_what_needs_no_record_has_happened() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/24");
    let (mut gone, _) = begun(&ledger, "gone/eth0").expect("free");
    let (stays, lease) = begun(&ledger, "stays/eth0").expect("free");
    let usage = |ledger: &Ledger| ledger.usage(soon()).expect("in time");
    let before = usage(&ledger);
    disk.full.store(true, Ordering::Relaxed);
    let (gone, stays) = (Mutex::new(Some(&mut gone)), Mutex::new(Some(stays)));
    let refused = |n: usize| match n {
        0 => gone.lock().expect("unpoisoned").take().expect("once").clear(soon()).expect_err("not durable"),
        1 => {
            let mut claim = stays.lock().expect("unpoisoned").take().expect("once");
            let error = claim.commit(Some(7), soon()).expect_err("no record");
            let queued = ledger.claim(claim.attachment(), Instant::now()).expect_err("the claim goes on");
            assert!(matches!(queued, Cause::Late));
            error
        }
        n => begun(&ledger, &format!("p{n}/eth0")).expect_err("no record"),
    };
    thread::scope(|scope| {
        for thread in (0..8).map(|n| scope.spawn(move || n)).collect::<Vec<_>>() {
            let n = thread.join().expect("no panic");
            assert!(matches!(refused(n), Cause::Store(_)), "caller {n}");
        }
    });
    assert_eq!(found(&ledger, "gone/eth0"), None, "its link is gone");
    assert_eq!(found(&ledger, "stays/eth0"), Some(lease), "pending, as it was");
    let after = usage(&ledger);
    assert_eq!((after.leases, after.addresses.ipv4.allocated), (before.leases - 1, 1));
    assert_eq!(after.addresses.ipv4.resting, 1);
    disk.full.store(false, Ordering::Relaxed);
    assert!(ledger.settle(soon()).expect("room"));
    assert_eq!(store(&disk).leases().count(), 1);
    begun(&ledger, "p2/eth0").expect("nobody has its claim");
}

#[test]
fn a_claim_passes_on_to_who_still_waits_for_it_and_tells_what_has_become_of_the_lease() {
    let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/24");
    let (mut first, lease) = begun(&ledger, "a/eth0").expect("free");
    let key = lease.attachment.clone();
    // This one gives up; its turn is nobody's.
    assert!(matches!(ledger.claim(&key, Instant::now()), Err(Cause::Late)));
    assert!(matches!(ledger.begin(new("a/eth0"), Instant::now()), Err(Cause::Late)));
    thread::scope(|scope| {
        let second = scope.spawn(|| ledger.begin(new("a/eth0"), soon()).expect("its turn comes"));
        first.commit(Some(7), soon()).expect("recorded");
        let Begun { claim, warnings } = second.join().expect("no panic");
        assert_eq!(warnings, None, "nothing was reserved over it");
        assert_eq!(claim.lease().map(|lease| (lease.phase, lease.host_index)), Some((Phase::Committed, Some(7))));
        let third = scope.spawn(|| ledger.begin(new("a/eth0"), soon()).expect("its turn comes"));
        claim.release(soon()).expect("recorded");
        let Begun { claim, warnings } = third.join().expect("no panic");
        assert_eq!(warnings, Some(Vec::new()), "a new lease");
        assert_ne!(claim.lease().map(addresses), Some(addresses(&lease)), "of other addresses, since those rest");
    });
    // An ended claim gives nothing back a second time.
    let held = ledger.claim(&key, soon()).expect("free");
    drop(first);
    assert!(matches!(ledger.claim(&key, Instant::now() + Duration::from_millis(20)), Err(Cause::Late)));
    drop(held);
    ledger.claim(&key, soon()).expect("free");
}

fn attachment(key: &str) -> Attachment {
    key.parse().expect("a key")
}

/// The first lease of `pod`, committed or not, ends.
fn came_and_went(ledger: &Ledger, key: &str) -> Lease {
    let (claim, lease) = begun(ledger, key).expect("free");
    claim.release(soon()).expect("recorded");
    lease
}

fn meet(one: &Lease, other: &Lease) -> bool {
    one.addresses().any(|ip| other.addresses().any(|theirs| theirs == ip))
}

#[test]
fn addresses_of_a_pod_that_went_shortly_before_a_restart_rest_after_it() {
    let disk = Memory::default();
    let before = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let gone = came_and_went(&before, "gone/eth0");
    // The log is written anew meanwhile, from what the agent has in mind.
    disk.files.lock().expect("unpoisoned").clear();
    assert!(before.settle(soon()).expect("recorded"));
    let after = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let (_claim, lease) = begun(&after, "new/eth0").expect("free");
    assert!(!meet(&lease, &gone), "{:?}", addresses(&lease));
    let counts = after.usage(soon()).expect("in time").addresses;
    assert_eq!((counts.ipv6.resting, counts.ipv4.resting), (1, 1));
}

#[test]
fn addresses_of_running_pods_are_theirs_after_a_restart() {
    let disk = Memory::default();
    let before = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let (mut claim, runs) = begun(&before, "runs/eth0").expect("free");
    claim.commit(None, soon()).expect("recorded");
    let after = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let (_claim, lease) = begun(&after, "new/eth0").expect("free");
    assert!(!meet(&lease, &runs), "{:?}", addresses(&lease));
}

#[test]
fn a_released_address_rests_before_the_next_pod_gets_it() {
    let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
    let gone = came_and_went(&ledger, "gone/eth0");
    let (_claim, lease) = begun(&ledger, "new/eth0").expect("free");
    assert!(!meet(&lease, &gone), "{:?}", addresses(&lease));
}

#[test]
fn an_add_that_a_full_disk_refuses_costs_no_address() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let before = ledger.usage(soon()).expect("in time");
    disk.full.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        let error = begun(&ledger, "a/eth0").expect_err("nothing can be recorded");
        assert!(matches!(error, Cause::Store(_)), "{error:?}");
    }
    assert_eq!(ledger.usage(soon()).expect("in time"), before);
    disk.full.store(false, Ordering::Relaxed);
    begun(&ledger, "a/eth0").expect("there is room again");
}

#[test]
fn an_add_whose_end_cannot_be_recorded_is_told_so() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let (mut claim, lease) = begun(&ledger, "a/eth0").expect("free");
    disk.full.store(true, Ordering::Relaxed);
    let committed = claim.commit(Some(7), soon());
    assert!(matches!(committed, Err(Cause::Store(_))), "{committed:?}");
    assert_eq!(found(&ledger, "a/eth0"), Some(lease), "still pending");
}

#[test]
fn an_attachment_has_one_lease_at_a_time_and_the_same_link_name_each_time() {
    let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
    let (claim, first) = begun(&ledger, "a/eth0").expect("free");
    drop(claim);
    let Begun { mut claim, warnings } = ledger.begin(new("a/eth0"), soon()).expect("in time");
    assert_eq!((warnings, claim.lease()), (None, Some(&first)), "it is found and left as it is");
    let second = claim.reserve(new("a/eth0"), soon());
    assert!(matches!(second, Err(Cause::Attached(_))), "{second:?}");
    claim.clear(soon()).expect("recorded");
    claim.reserve(new("a/eth0"), soon()).expect("it is gone");
    assert_eq!(claim.lease().map(|lease| &lease.host_link), Some(&first.host_link));
}

#[test]
fn a_pod_that_comes_back_in_another_sandbox_gets_its_address_early_and_others_only_with_a_warning() {
    let ledger = ledger(&Memory::default(), "", "10.0.0.0/30");
    let reserve = |key: &str, pod: &str| {
        let pod = Some(PodName { namespace: "default".into(), name: pod.into(), uid: None });
        let addresses = ipam::Request { ipv6: None, ..both() };
        let Begun { claim, warnings } =
            ledger.begin(NewLease { pod, addresses, ..new(key) }, soon()).expect("the only address");
        claim.release(soon()).expect("recorded");
        warnings.expect("a new lease")
    };
    assert_eq!(reserve("one/eth0", "web-0"), Vec::<String>::new());
    assert_eq!(reserve("two/eth0", "web-0"), Vec::<String>::new());
    let warnings = reserve("three/eth0", "web-1");
    assert!(warnings[0].contains("10.0.0.2 was another pod's"), "{warnings:?}");
}

#[test]
fn what_is_adopted_is_taken_and_takes_nothing_from_others() {
    let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
    let shown = crate::record::examples::lease("shown/eth0");
    let shown = Lease { ipv6: "2001:db8::1".parse().ok(), ipv4: "10.0.0.2".parse().ok(), ..shown };
    let adopt = |lease: Lease| {
        let claim = ledger.claim(&lease.attachment, soon()).expect("in time");
        claim.adopt(lease, soon()).expect("recorded")
    };
    assert!(adopt(shown.clone()));
    let (_claim, lease) = begun(&ledger, "new/eth0").expect("free");
    assert_eq!(addresses(&lease), ["2001:db8::2", "10.0.0.3"]);
    let second = Lease { attachment: attachment("second/eth0"), ipv6: None, ..shown };
    assert!(!adopt(second), "10.0.0.2 is another's");
    assert_eq!(found(&ledger, "second/eth0"), None);
}

#[test]
fn a_record_that_is_corrected_is_there_all_the_time_and_what_its_pod_has_no_more_rests() {
    let disk = Memory::default();
    let ledger = ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    let (mut claim, lease) = begun(&ledger, "a/eth0").expect("free");
    claim.commit(Some(7), soon()).expect("recorded");
    let adopt = |lease: &Lease| {
        let claim = ledger.claim(&lease.attachment, soon()).expect("in time");
        claim.adopt(lease.clone(), soon())
    };
    let resting = |ledger: &Ledger| ledger.usage(soon()).expect("in time").addresses.ipv4.resting;
    let lines = || disk.files.lock().expect("unpoisoned")["leases.log"].iter().filter(|byte| **byte == b'\n').count();
    let before = lines();
    // More of it than was recorded: one line, and nothing else.
    let whole = Lease { phase: Phase::Committed, extra: vec![ip("203.0.113.6")], ..lease };
    assert!(adopt(&whole).expect("recorded"));
    assert_eq!((found(&ledger, "a/eth0"), lines(), resting(&ledger)), (Some(whole.clone()), before + 1, 0));
    // An earlier lease gives way, and the address of it rests, also for the next agent.
    let moved = Lease { ipv4: "10.0.0.5".parse().ok(), ..whole.clone() };
    assert!(adopt(&moved).expect("recorded"));
    assert_eq!((found(&ledger, "a/eth0"), resting(&ledger)), (Some(moved.clone()), 1));
    let (_claim, new) = begun(&ledger, "b/eth0").expect("free");
    assert_eq!(addresses(&new)[1], "10.0.0.3");
    // One that is refused changes nothing.
    let refused = Lease { ipv4: new.ipv4, ..moved.clone() };
    assert!(!adopt(&refused).expect("refused"));
    assert_eq!(found(&ledger, "a/eth0"), Some(moved.clone()));
    let next = self::ledger(&disk, "2001:db8::/120", "10.0.0.0/29");
    assert_eq!((found(&next, "a/eth0"), resting(&next)), (Some(moved.clone()), 1));
    // On a full disk it is in force all the same.
    disk.full.store(true, Ordering::Relaxed);
    assert!(matches!(adopt(&whole), Err(Cause::Store(_))));
    assert_eq!(found(&ledger, "a/eth0"), Some(whole));
}

#[test]
fn a_link_that_was_changed_is_its_pods_unless_a_request_works_on_it() {
    let ledger = ledger(&Memory::default(), "2001:db8::/120", "10.0.0.0/29");
    for (key, index) in [("a/eth0", 7), ("b/eth0", 8)] {
        let (mut claim, _) = begun(&ledger, key).expect("free");
        claim.commit(Some(index), soon()).expect("recorded");
    }
    let suspected = || {
        let mut suspects = Suspects::default();
        suspects.link(7);
        ledger.suspected(suspects, soon()).expect("in time")
    };
    assert_eq!(suspected(), [attachment("a/eth0")]);
    let _claim = ledger.claim(&attachment("a/eth0"), soon()).expect("free");
    assert_eq!(suspected(), []);
}

#[test]
fn an_address_has_one_holder_when_an_adoption_and_the_change_that_made_room_for_it_fail_together() {
    let disk = Memory::default();
    let mut table = Table::new(store(&disk), Zero);
    table.configure(ranges("", "10.0.0.0/29", &[]));
    let wanted = ipam::Request { ipv6: None, ..both() };
    let (first, _) = table.reserve(NewLease { addresses: wanted.clone(), ..new("a/eth0") }, 1).expect("free");
    table.sync().expect("durable");
    let bad = first.addresses().next().expect("an address");
    disk.full.store(true, Ordering::Relaxed);
    table.replace(&first.attachment, bad, &wanted, 2).expect("another one is free");
    let shown = Lease { ipv6: None, ipv4: first.ipv4, ..crate::record::examples::lease("shown/eth0") };
    assert!(table.adopt(shown, 2), "it is free at that moment");
    table.sync().expect_err("the disk is full");
    let holders: Vec<&Lease> = table.leases().filter(|lease| lease.addresses().any(|ip| ip == bad)).collect();
    assert_eq!(holders, [&first]);
}
