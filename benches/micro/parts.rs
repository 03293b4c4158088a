//! The parts, each of which is prepared once and then done as often as one likes.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use cni::netconf;
use cni::verb::Verb;
use flock::record::disk::{Directory, make_private_dir};
use flock::record::store::{Change, Store};
use model::annotations::{self, Defaults};
use model::ipam::{Draw, Ipam, Owner, Request, Want4, Want6};
use model::lease::Lease;
use model::plan::wiring;
use serde_json::json;

use crate::examples::lease;

/// One of them, done once by each call of what it prepares.
pub struct Part {
    pub name: &'static str,
    pub what: &'static str,
    /// How often it is done to count it, so that what differs between two preparations does not matter.
    pub times: usize,
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// All of them, in the order of a call.
pub const PARTS: &[Part] = &[
    Part { name: "outline", what: "plugin: what it needs of a configuration of 2 KB", times: 500, prepare: outline },
    Part { name: "netconf", what: "agent: the same configuration, all of it", times: 500, prepare: parse },
    Part { name: "annotations", what: "six annotations to an intent", times: 500, prepare: annotations },
    Part { name: "empty", what: "an address of each family, of an empty /16", times: 500, prepare: || allocation(0) },
    Part { name: "full", what: "the same, of a /16 that is 95 % full", times: 500, prepare: || allocation(62_256) },
    Part {
        name: "resting",
        what: "the same, of a /16 in which none is free and some rest",
        times: 500,
        prepare: resting,
    },
    Part { name: "plan", what: "a lease to what its link consists of", times: 500, prepare: plan },
    Part {
        name: "record",
        what: "two changes of a lease on record, synced one by one to a tmpfs",
        times: 100,
        prepare: record,
    },
    Part { name: "replay", what: "a record of a thousand leases read", times: 5, prepare: replay },
];

fn conf() -> Vec<u8> {
    let annotations = json!({
        "flock.fritzlab.net/ipv4": "true",
        "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(1600),
        "kubernetes.io/config.source": "api",
    });
    let conf = json!({
        "cniVersion": "1.1.0", "name": "flock", "type": "flock",
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
    });
    conf.to_string().into_bytes()
}

fn outline() -> Box<dyn FnMut()> {
    let conf = conf();
    Box::new(move || drop(black_box(netconf::outline(black_box(&conf), Verb::Add).expect("sound"))))
}

fn parse() -> Box<dyn FnMut()> {
    let conf = conf();
    Box::new(move || drop(black_box(netconf::parse(black_box(&conf), Verb::Add).expect("sound"))))
}

fn annotations() -> Box<dyn FnMut()> {
    let map: BTreeMap<String, String> = [
        ("ipv6", "true"),
        ("ipv4", "true"),
        ("cidr4", "10.25.214.0/25"),
        ("addresses", "2001:db8:f::80,203.0.113.80"),
        ("anycast", "2001:db8:f::53"),
        ("ip-algo", "namespace"),
    ]
    .map(|(key, value)| (format!("flock.fritzlab.net/{key}"), value.to_owned()))
    .into();
    let defaults = Defaults { ipv6: true, ipv4: true, ip_algo: None };
    Box::new(move || drop(black_box(annotations::intent(black_box(&map), &defaults).expect("sound"))))
}

/// Numbers that look random, and are the same in each run.
struct Steps(u128);

impl Draw for Steps {
    fn draw(&mut self) -> u128 {
        self.0 = self.0.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
        self.0
    }
}

fn node() -> Ipam {
    Ipam::new(Some("2001:db8:1:f001::/64".parse().expect("literal")), Some("10.25.0.0/16".parse().expect("literal")))
}

fn both() -> Request {
    Request { ipv6: Some(Want6::default()), ipv4: Some(Want4::default()), fixed: Vec::new() }
}

/// The first addresses that pods may have: 10.25.0.2, and one of 2001:db8:1:f001::/64.
const FOUR: u32 = 0x0a19_0002;
const SIX: u128 = (0x2001_0db8_0001_f001 << 64) + 7;

fn four(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(FOUR + n).into()
}

fn six(n: u32) -> IpAddr {
    Ipv6Addr::from_bits(SIX + (u128::from(n) << 20)).into()
}

/// Taken and given back, so that each time finds the same.
fn allocation(held: u32) -> Box<dyn FnMut()> {
    let (mut ipam, want, mut draw) = (node(), both(), Steps(1));
    (0..held).for_each(|n| ipam.hold(four(n)));
    (0..held.min(1000)).for_each(|n| ipam.hold(six(n)));
    Box::new(move || {
        let got = ipam.allocate(black_box(&want), Owner(1), 1_000, &mut draw).expect("there are some");
        let ips = [got.ipv6.map(IpAddr::from), got.ipv4.map(IpAddr::from)];
        assert!(ips.into_iter().flatten().all(|ip| ipam.give_back(ip)));
    })
}

fn resting() -> Box<dyn FnMut()> {
    let (mut ipam, want, mut draw, mut now) = (node(), both(), Steps(1), 1_000_000);
    (0..65_533).for_each(|n| ipam.hold(four(n)));
    (0..200).for_each(|n| assert!(ipam.release(four(n * 300), Owner(n.into()), now)));
    Box::new(move || {
        now += 1;
        let got = ipam.allocate(black_box(&want), Owner(7_777), now, &mut draw).expect("a resting one");
        let ips = [got.ipv6.map(IpAddr::from), got.ipv4.map(IpAddr::from)];
        assert!(ips.into_iter().flatten().all(|ip| ipam.release(ip, Owner(7_778), now)));
    })
}

fn plan() -> Box<dyn FnMut()> {
    let lease = lease(&format!("{:064x}/eth0", 1));
    Box::new(move || drop(black_box(wiring(black_box(&lease)))))
}

/// A directory that goes with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("flock-micro-{name}-{}", std::process::id()));
        make_private_dir(&path).expect("made");
        Scratch(path)
    }

    fn open(&self) -> Store<Directory> {
        let (store, findings) = Store::open(Directory::open(&self.0).expect("opened"), "boot", 1);
        assert!(findings.is_empty(), "{findings:?}");
        store
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn record() -> Box<dyn FnMut()> {
    let scratch = Scratch::new("record");
    let mut store = scratch.open();
    let lease = lease(&format!("{:064x}/eth0", 1));
    let mut at = 10;
    Box::new(move || {
        let _kept = &scratch;
        at += 1;
        store.apply(Change::Put(Box::new(lease.clone())));
        store.sync().expect("synced");
        store.apply(Change::Free { attachment: lease.attachment.clone(), at });
        store.sync().expect("synced");
    })
}

fn replay() -> Box<dyn FnMut()> {
    let scratch = Scratch::new("replay");
    let mut store = scratch.open();
    for n in 0..1000 {
        let ips = (Ipv6Addr::from_bits(SIX + u128::from(n)), Ipv4Addr::from_bits(FOUR + n));
        let lease = Lease { ipv6: Some(ips.0), ipv4: Some(ips.1), ..lease(&format!("{n:064x}/eth0")) };
        store.apply(Change::Put(Box::new(lease)));
    }
    store.sync().expect("synced");
    drop(store);
    Box::new(move || assert_eq!(scratch.open().leases().count(), 1000))
}
