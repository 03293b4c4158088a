//! Properties of the allocator against a plain model, then its rules one by one.

use alloc::string::ToString as _;
use alloc::vec::Vec;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::Config;

use super::bitmap::Bitmap;
use super::*;

/// A small generator (splitmix64), the same on every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Draw for Seeded {
    fn draw(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// The worst generator.
struct Stuck(u128);

impl Draw for Stuck {
    fn draw(&mut self) -> u128 {
        self.0
    }
}

fn net6(text: &str) -> Ipv6Net {
    text.parse().expect("literal")
}

fn net4(text: &str) -> Ipv4Net {
    text.parse().expect("literal")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

fn six(cidrs: &[&str]) -> Request {
    let cidrs = cidrs.iter().map(|text| net6(text)).collect();
    Request { ipv6: Some(Want6 { cidrs, embed: None }), ..Request::default() }
}

fn four(cidrs: &[&str]) -> Request {
    Request { ipv4: Some(Want4 { cidrs: cidrs.iter().map(|text| net4(text)).collect() }), ..Request::default() }
}

fn both() -> Request {
    Request { ipv6: Some(Want6::default()), ipv4: Some(Want4::default()), fixed: Vec::new() }
}

fn node6(range: &str) -> Ipam {
    Ipam::new(Some(net6(range)), None)
}

fn node4(range: &str) -> Ipam {
    Ipam::new(None, Some(net4(range)))
}

fn named(ips: &[&str]) -> Request {
    Request { fixed: ips.iter().map(|text| ip(text)).collect(), ..Request::default() }
}

/// Two who are not the same.
const ONE: Owner = Owner(1);
const OTHER: Owner = Owner(2);

/// Allocates one address of one family, without a warning.
fn one(ipam: &mut Ipam, want: &Request, now: u64) -> Result<IpAddr, IpamError> {
    let got = ipam.allocate(want, ONE, now, &mut Seeded(now))?;
    assert_eq!(got.warnings, []);
    Ok(got.ipv6.map(IpAddr::V6).or(got.ipv4.map(IpAddr::V4)).expect("one family was wanted"))
}

// ---- the model ----

/// What a person would write down: who has what, and nothing about how to find it.
#[derive(Default)]
struct Model {
    held: BTreeSet<IpAddr>,
    resting: BTreeMap<IpAddr, (u64, Owner)>,
    reserved: BTreeSet<IpAddr>,
    node6: Option<Ipv6Net>,
    node4: Option<Ipv4Net>,
    now: u64,
}

impl Model {
    fn allowed6(&self, cidr: Option<Ipv6Net>) -> BTreeSet<IpAddr> {
        let Some(node) = self.node6 else { return BTreeSet::new() };
        let range = match cidr {
            None => node,
            Some(cidr) if cidr.prefix_len() <= node.prefix_len() && cidr.contains(&node.network()) => node,
            Some(cidr) if node.contains(&cidr.network()) => cidr,
            Some(_) => return BTreeSet::new(),
        };
        let forbidden = |net: Ipv6Net, address: &Ipv6Addr| {
            let size = 1_u128 << (128 - net.prefix_len());
            let Some(part) = address.to_bits().checked_sub(net.network().to_bits()).filter(|part| *part < size) else {
                return false;
            };
            size >= 4 && (part == 0 || size >= 256 && part >= size - 128)
        };
        let hosts = range.network().to_bits()..=range.broadcast().to_bits();
        hosts
            .map(Ipv6Addr::from_bits)
            .filter(|address| !forbidden(node, address) && !forbidden(range, address))
            .map(IpAddr::V6)
            .collect()
    }

    fn allowed4(&self, cidr: Option<Ipv4Net>) -> BTreeSet<IpAddr> {
        let Some(node) = self.node4 else { return BTreeSet::new() };
        let range = match cidr {
            None => node,
            Some(cidr) if cidr.prefix_len() <= node.prefix_len() && cidr.contains(&node.network()) => node,
            Some(cidr) if node.contains(&cidr.network()) => cidr,
            Some(_) => return BTreeSet::new(),
        };
        // Without network, gateway and broadcast address, which a single address does not have of its own.
        let inner = |net: Ipv4Net| net.network().to_bits() + 2..net.broadcast().to_bits();
        let at = range.network().to_bits();
        let all = if range.prefix_len() == 32 { at..at + 1 } else { inner(range) };
        all.filter(|at| inner(node).contains(at)).map(Ipv4Addr::from_bits).map(IpAddr::V4).collect()
    }

    fn wake(&mut self) {
        let now = self.now;
        self.resting.retain(|_, (since, _)| *since + REST_MS > now);
    }

    /// What may come out: any of these, and whether they are used before others' rest is over. `named` is that the pod itself has
    /// named the range.
    fn choices(&self, allowed: &BTreeSet<IpAddr>, named: bool, asker: Owner) -> (BTreeSet<IpAddr>, bool) {
        let open = |at: &&IpAddr| !self.held.contains(at) && !self.reserved.contains(at);
        let open: BTreeSet<_> = allowed.iter().filter(open).copied().collect();
        let free: BTreeSet<_> = open.iter().filter(|at| !self.resting.contains_key(at)).copied().collect();
        if !free.is_empty() {
            return (free, false);
        }
        let oldest = |own: bool| {
            let of = open.iter().filter(|at| !own || self.resting[at].1 == asker);
            of.min_by_key(|at| (self.resting[at].0, **at)).copied()
        };
        match oldest(true) {
            Some(own) => (BTreeSet::from([own]), false),
            None if named && allowed.len() == 1 => (BTreeSet::new(), true),
            None => (oldest(false).into_iter().collect(), true),
        }
    }

    /// Whether the pod's range is narrower than the node's.
    fn named6(&self, cidr: Option<Ipv6Net>) -> bool {
        self.node6.zip(cidr).is_some_and(|(node, cidr)| cidr.prefix_len() > node.prefix_len())
    }

    fn named4(&self, cidr: Option<Ipv4Net>) -> bool {
        self.node4.zip(cidr).is_some_and(|(node, cidr)| cidr.prefix_len() > node.prefix_len())
    }

    fn counts(&self) -> Counts {
        let of = |allowed: BTreeSet<IpAddr>, six: bool| {
            let taken =
                |at: &&IpAddr| self.held.contains(at) || self.resting.contains_key(at) || self.reserved.contains(at);
            FamilyCounts {
                allocated: self.held.iter().filter(|at| at.is_ipv6() == six).count() as u64,
                free: allowed.iter().filter(|at| !taken(at)).count() as u64,
                usable: allowed.iter().filter(|at| !self.reserved.contains(*at)).count() as u64,
                resting: self.resting.keys().filter(|at| at.is_ipv6() == six).count() as u64,
            }
        };
        Counts { ipv6: of(self.allowed6(None), true), ipv4: of(self.allowed4(None), false) }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Allocate { six: Option<usize>, four: Option<usize>, fixed: Vec<u8>, asker: u64 },
    Release(usize, u64),
    ReleaseAny(u8, u64),
    GiveBack(usize),
    Hold(u8),
    RestoreRest(u8, u64, u64),
    Reserve(Vec<u8>),
    Ranges(usize, usize),
    Wait(u64),
}

const NODE6: [Option<&str>; 5] =
    [Some("2001:db8::/124"), Some("2001:db8::/126"), Some("2001:db8::/120"), Some("2001:db8::10/125"), None];
const NODE4: [Option<&str>; 4] = [Some("10.0.0.0/28"), Some("10.0.0.0/30"), Some("10.0.0.16/29"), None];
const POD6: [Option<&str>; 7] = [
    None,
    None,
    Some("2001:db8::/64"),
    Some("2001:db8::8/127"),
    Some("2001:db8::4/126"),
    Some("2001:db8::80/121"),
    Some("2001:db8::1/128"),
];
const POD4: [Option<&str>; 8] = [
    None,
    None,
    Some("10.0.0.0/8"),
    Some("10.0.0.8/30"),
    Some("10.0.0.8/29"),
    Some("10.0.0.9/32"),
    Some("10.0.0.18/32"),
    Some("10.0.0.1/32"),
];

/// An address near all ranges above, of either family.
fn near(n: u8) -> IpAddr {
    match n % 2 {
        0 => IpAddr::V6(Ipv6Addr::from_bits(net6("2001:db8::/64").network().to_bits() + u128::from(n / 2))),
        _ => IpAddr::V4(Ipv4Addr::from_bits(net4("10.0.0.0/8").network().to_bits() + u32::from(n / 4))),
    }
}

/// Addresses that a pod names, mostly none.
fn fixed() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(any::<u8>(), 1..4)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (proptest::option::weighted(0.8, 0..POD6.len()), proptest::option::weighted(0.8, 0..POD4.len()), fixed(), 0..3_u64)
            .prop_map(|(six, four, fixed, asker)| Step::Allocate { six, four, fixed, asker }),
        6 => (any::<usize>(), 0..3_u64).prop_map(|(pick, owner)| Step::Release(pick, owner)),
        1 => (any::<u8>(), 0..3_u64).prop_map(|(at, owner)| Step::ReleaseAny(at, owner)),
        2 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<u8>().prop_map(Step::Hold),
        1 => (any::<u8>(), 0..3_u64, 0..40_000_u64).prop_map(|(at, owner, ago)| Step::RestoreRest(at, owner, ago)),
        1 => proptest::collection::vec(any::<u8>(), 0..6).prop_map(Step::Reserve),
        1 => (0..NODE6.len(), 0..NODE4.len()).prop_map(|(six, four)| Step::Ranges(six, four)),
        3 => (0..12_000_u64).prop_map(Step::Wait),
        1 => Just(Step::Wait(REST_MS)),
    ];
    proptest::collection::vec(step, 1..120)
}

fn run(steps: &[Step], seed: u64) {
    let mut draw = Seeded(seed);
    let mut model = Model { now: 1_000_000, ..Model::default() };
    let mut ipam = Ipam::default();
    let ranges = |six: usize, four: usize| (NODE6[six].map(net6), NODE4[four].map(net4));
    (model.node6, model.node4) = ranges(0, 0);
    ipam.set_ranges(model.node6, model.node4);
    for step in steps {
        match step {
            Step::Allocate { six, four, fixed, asker } => {
                allocate(&mut ipam, &mut model, (*six, *four), fixed, Owner(*asker), &mut draw);
            }
            Step::Release(pick, owner) => {
                if let Some(at) = model.held.iter().nth(pick % model.held.len().max(1)).copied() {
                    assert!(ipam.release(at, Owner(*owner), model.now));
                    model.held.remove(&at);
                    model.resting.insert(at, (model.now, Owner(*owner)));
                }
            }
            Step::ReleaseAny(n, owner) => {
                let at = near(*n);
                let was_held = model.held.remove(&at);
                if was_held {
                    model.resting.insert(at, (model.now, Owner(*owner)));
                }
                assert_eq!(ipam.release(at, Owner(*owner), model.now), was_held);
            }
            Step::GiveBack(pick) => {
                if let Some(at) = model.held.iter().nth(pick % model.held.len().max(1)).copied() {
                    assert!(ipam.give_back(at));
                    assert!(!ipam.give_back(at));
                    model.held.remove(&at);
                }
            }
            Step::Hold(n) => {
                ipam.hold(near(*n));
                model.resting.remove(&near(*n));
                model.held.insert(near(*n));
            }
            Step::RestoreRest(n, owner, ago) => {
                let (at, since) = (near(*n), model.now - ago);
                ipam.restore_rest(at, Owner(*owner), since);
                if !model.held.contains(&at) {
                    let known = model.resting.entry(at).or_insert((since, Owner(*owner)));
                    if known.0 < since {
                        *known = (since, Owner(*owner));
                    }
                }
            }
            Step::Reserve(list) => {
                model.reserved = list.iter().map(|n| near(*n)).collect();
                ipam.reserve(model.reserved.clone());
            }
            Step::Ranges(six, four) => {
                (model.node6, model.node4) = ranges(*six, *four);
                ipam.set_ranges(model.node6, model.node4);
            }
            Step::Wait(ms) => model.now += ms,
        }
        model.wake();
        assert_eq!(ipam.counts(model.now), model.counts(), "after {step:?}");
    }
}

fn allocate(
    ipam: &mut Ipam,
    model: &mut Model,
    (six, four): (Option<usize>, Option<usize>),
    fixed: &[u8],
    asker: Owner,
    draw: &mut Seeded,
) {
    let six = six.map(|n| POD6[n].map(net6));
    let four = four.map(|n| POD4[n].map(net4));
    let mut named: Vec<IpAddr> = Vec::new();
    for ip in fixed.iter().map(|n| near(*n)) {
        if !named.contains(&ip) {
            named.push(ip);
        }
    }
    let want = Request {
        fixed: named.clone(),
        ipv6: six.map(|cidr| Want6 { cidrs: cidr.into_iter().collect(), embed: None }),
        ipv4: four.map(|cidr| Want4 { cidrs: cidr.into_iter().collect() }),
    };
    // What is named is the pod's own family's, and nothing is taken from the range for that.
    let first = |six: bool| named.iter().find(|ip| ip.is_ipv6() == six).copied();
    let (six, four) = (six.filter(|_| first(true).is_none()), four.filter(|_| first(false).is_none()));
    let can_have = |ip: &IpAddr| {
        let rests = model.resting.get(ip).is_some_and(|(_, owner)| *owner != asker);
        let is_served = if ip.is_ipv6() { model.node6.is_some() } else { model.node4.is_some() };
        is_served && !model.held.contains(ip) && !model.reserved.contains(ip) && !rests
    };
    let all_named = named.iter().all(can_have);
    let choices6 = six.map(|cidr| model.choices(&model.allowed6(cidr), model.named6(cidr), asker));
    let choices4 = four.map(|cidr| model.choices(&model.allowed4(cidr), model.named4(cidr), asker));
    let possible = [&choices6, &choices4].into_iter().flatten().all(|(choices, _)| !choices.is_empty());
    let got = ipam.allocate(&want, asker, model.now, draw);
    assert_eq!(got.is_ok(), all_named && possible, "{want:?} gave {got:?}");
    let Ok(got) = got else { return };
    for ip in &named {
        model.resting.remove(ip);
        assert!(model.held.insert(*ip), "{ip} was handed out twice");
    }
    let extra = named.iter().filter(|ip| first(ip.is_ipv6()) != Some(**ip));
    assert_eq!(got.extra, extra.copied().collect::<Vec<_>>());
    let mut reused = BTreeSet::new();
    let from_ranges = |got: Option<IpAddr>, six: bool| match first(six) {
        Some(first) => {
            assert_eq!(got, Some(first), "the first of its family is the pod's");
            None
        }
        None => got,
    };
    let (got6, got4) = (from_ranges(got.ipv6.map(IpAddr::V6), true), from_ranges(got.ipv4.map(IpAddr::V4), false));
    for (address, choices) in [(got6, choices6), (got4, choices4)] {
        assert_eq!(address.is_some(), choices.is_some());
        let (Some(address), Some((choices, is_early))) = (address, choices) else { continue };
        assert!(choices.contains(&address), "{address} is not one of {choices:?}");
        let rest = model.resting.remove(&address);
        if let Some((since, owner)) = rest
            && owner != asker
        {
            reused.insert((address, model.now - since));
        }
        assert_eq!(rest.is_some_and(|(_, owner)| owner != asker), is_early);
        assert!(model.held.insert(address), "{address} was handed out twice");
    }
    let warned = got.warnings.iter().map(|warning| match warning {
        Warning::RestReused { address, rested_ms } => (*address, *rested_ms),
        other => panic!("unexpected: {other}"),
    });
    assert_eq!(warned.collect::<BTreeSet<_>>(), reused);
}

proptest! {
    // No regression files: a failure prints its steps, and the source tree stays as it is.
    #![proptest_config(Config { cases: 300, failure_persistence: None, ..Config::default() })]

    // covers: FM-A18
    #[test]
    fn any_sequence_of_commands_agrees_with_the_model(steps in steps(), seed in any::<u64>()) {
        run(&steps, seed);
    }

    #[test]
    fn the_bitmap_agrees_with_a_set(
        len in 1_u64..9000,
        marks in proptest::collection::vec((0_u64..9100, 0_u64..400, any::<bool>()), 1..40),
        probes in proptest::collection::vec((0_u64..9100, 0_u64..9100), 20),
    ) {
        let (mut map, mut set) = (Bitmap::new(len), BTreeSet::new());
        for (start, count, on) in marks {
            for at in start..start + count {
                if on {
                    map.set(at);
                    set.insert(at);
                } else {
                    map.clear(at);
                    set.remove(&at);
                }
            }
        }
        for (from, to) in probes {
            prop_assert_eq!(map.first_clear(from, to), (from..to.min(len)).find(|at| !set.contains(at)));
        }
    }
}

#[test]
fn a_bitmap_that_is_full_at_every_level_opens_where_a_bit_is_cleared() {
    let len = 64 * 64 * 64 + 5;
    let mut map = Bitmap::new(len);
    (0..len).for_each(|at| map.set(at));
    assert_eq!(map.first_clear(0, len), None);
    for at in [0, 63, 64, 4095, 4096, len - 6, len - 5, len - 1] {
        map.clear(at);
        assert_eq!(map.first_clear(0, len), Some(at));
        assert_eq!(map.first_clear(at, at + 1), Some(at));
        assert_eq!(map.first_clear(at + 1, len), None);
        assert_eq!(map.first_clear(0, at), None);
        map.set(at);
    }
}

// ---- the effective range ----

#[test]
fn the_pods_ranges_are_met_in_order_with_the_nodes() {
    let node = net4("10.1.0.0/16");
    for (wanted, want) in [
        (vec![], Some("10.1.0.0/16")),
        (vec!["10.1.0.0/16"], Some("10.1.0.0/16")),
        (vec!["10.0.0.0/8"], Some("10.1.0.0/16")),
        (vec!["10.1.2.0/24"], Some("10.1.2.0/24")),
        (vec!["10.1.2.3/24"], Some("10.1.2.0/24")),
        (vec!["10.2.0.0/16"], None),
        (vec!["10.2.0.0/16", "192.168.0.0/16"], None),
        (vec!["10.2.0.0/16", "10.1.2.0/24", "10.1.3.0/24"], Some("10.1.2.0/24")),
        (vec!["10.2.0.0/16", "10.0.0.0/8", "10.1.3.0/24"], Some("10.1.0.0/16")),
    ] {
        let nets: Vec<_> = wanted.iter().map(|text| net4(text)).collect();
        assert_eq!(effective(node, &nets).ok(), want.map(net4), "{wanted:?}");
    }
    for (wanted, want) in [
        ("2001:db8:1::/48", Some("2001:db8:1::/48")),
        ("2001:db8::/32", Some("2001:db8:1::/48")),
        ("2001:db8:1:2::/64", Some("2001:db8:1:2::/64")),
        ("2001:db8:2::/48", None),
    ] {
        assert_eq!(effective(net6("2001:db8:1::/48"), &[net6(wanted)]).ok(), want.map(net6), "{wanted}");
    }
}

#[test]
fn errors_name_the_family_the_ranges_and_the_counts() {
    let says = |error: Result<IpAddr, IpamError>, text: &str| {
        let error = error.expect_err("must be refused").to_string();
        assert!(error.contains(text), "{error}");
    };
    let mut ipam = node6("2001:db8::/64");
    says(one(&mut ipam, &four(&[]), 0), "the pod wants IPv4, but this node has no IPv4 range (spec.cidr4");
    says(
        one(&mut ipam, &six(&["2001:db8:1::/64", "2001:db8:2::/64"]), 0),
        "range 2001:db8::/64 has nothing in common with the pod's 2001:db8:1::/64, 2001:db8:2::/64 (its annotation cidr6)",
    );
    says(one(&mut ipam, &six(&["fd00::/8"; 64]), 0), "fd00::/8 and 60 more");
    let mut ipam = node4("10.0.0.0/24");
    says(one(&mut ipam, &six(&[]), 0), "the pod wants IPv6, but");
    says(
        one(&mut ipam, &four(&["10.0.0.4/31"]), 0),
        "10.0.0.4/31 (the pod's annotation cidr4) is too small: network, gateway and broadcast",
    );
    says(one(&mut ipam, &four(&["10.0.0.4/31"]), 0), "the smallest block is /30, or a /32 for one address");
    for edge in ["10.0.0.0", "10.0.0.1", "10.0.0.255"] {
        let text = format!(
            "{edge} (the pod names it by annotation) is the network, gateway or broadcast address in the node's range"
        );
        says(one(&mut ipam, &four(&[&format!("{edge}/32")]), 0), &text);
    }
    let narrow = four(&["10.0.0.4/29"]);
    ipam.reserve([ip("10.0.0.2"), ip("10.0.0.3")]);
    assert!((0..3).all(|_| one(&mut ipam, &narrow, 0).is_ok()));
    says(one(&mut ipam, &narrow, 0), "free in 10.0.0.0/29: of 5 usable, pods hold 3 and the host has 2");
}

// ---- IPv4 ----

#[test]
fn v4_begins_behind_the_gateway_and_goes_on_where_it_stopped() {
    let mut ipam = node4("10.0.0.0/29");
    let next = |ipam: &mut Ipam| one(ipam, &four(&[]), 0).map(|at| at.to_string());
    assert_eq!(next(&mut ipam), Ok("10.0.0.2".into()));
    assert_eq!(next(&mut ipam), Ok("10.0.0.3".into()));
    assert!(ipam.give_back(ip("10.0.0.2")));
    assert_eq!(next(&mut ipam), Ok("10.0.0.4".into()));
    assert_eq!(next(&mut ipam), Ok("10.0.0.5".into()));
    assert_eq!(next(&mut ipam), Ok("10.0.0.6".into()));
    assert_eq!(next(&mut ipam), Ok("10.0.0.2".into()));
    assert!(matches!(next(&mut ipam), Err(IpamError::Exhausted { usable: 5, held: 5, .. })));
}

#[test]
fn a_slash_30_has_one_address() {
    let mut ipam = node4("10.0.0.4/30");
    assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(ip("10.0.0.6")));
    assert!(matches!(one(&mut ipam, &four(&[]), 0), Err(IpamError::Exhausted { usable: 1, held: 1, .. })));
    let mut ipam = node4("10.0.0.4/31");
    assert_eq!(one(&mut ipam, &four(&[]), 0), Err(IpamError::TooSmall(net4("10.0.0.4/31"))));
    assert_eq!(ipam.counts(0).ipv4, FamilyCounts::default());
}

#[test]
fn a_slash_16_fills_to_the_last_address_and_the_one_that_opens_is_found() {
    let mut ipam = node4("10.7.0.0/16");
    let mut seen = BTreeSet::new();
    for _ in 0..65533 {
        assert!(seen.insert(one(&mut ipam, &four(&[]), 0).expect("still free")));
    }
    assert!(one(&mut ipam, &four(&[]), 0).is_err());
    assert!(!["10.7.0.0", "10.7.0.1", "10.7.255.255"].iter().any(|at| seen.contains(&ip(at))));
    assert!(ipam.give_back(ip("10.7.100.100")));
    assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(ip("10.7.100.100")));
}

#[test]
fn the_largest_ranges_work() {
    let mut ipam = Ipam::new(Some(net6("::/0")), Some(net4("0.0.0.0/0")));
    let got = ipam.allocate(&both(), ONE, 0, &mut Stuck(5)).expect("nearly all is free");
    assert_eq!((got.ipv6, got.ipv4), (Some(Ipv6Addr::from_bits(5)), Some(Ipv4Addr::from_bits(2))));
    assert_eq!(ipam.counts(0).ipv4.free, (1 << 32) - 4);
    assert_eq!(ipam.counts(0).ipv6.free, u64::MAX);
}

// ---- IPv6 ----

#[test]
fn anycast_host_parts_are_never_given_whatever_the_generator_says() {
    let base = net6("2001:db8::/64").network().to_bits();
    for host in [0, u128::from(u64::MAX), u128::from(u64::MAX) - 127, 0xfdff_ffff_ffff_ff80, 0xfdff_ffff_ffff_ffff] {
        let mut ipam = node6("2001:db8::/64");
        let got = ipam.allocate(&six(&[]), ONE, 0, &mut Stuck(host)).expect("nearly all is free").ipv6.expect("wanted");
        let part = got.to_bits() - base;
        assert_ne!(part, 0);
        assert!(part < 0xffff_ffff_ffff_ff80, "{part:x}");
        assert!(!(0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&part), "{part:x}");
    }
    // The subnet-router address of the node's range stays special in a pod's range of one address.
    let mut ipam = node6("2001:db8::/64");
    let error = one(&mut ipam, &six(&["2001:db8::/128"]), 0).expect_err("anycast");
    assert!(matches!(error, IpamError::NotForPods { .. }), "{error}");
    assert_eq!(one(&mut ipam, &six(&["2001:db8::2/128"]), 0), Ok(ip("2001:db8::2")));
    assert_eq!(ipam.counts(0).ipv6.free, u64::MAX - 128 - 128 - 1);
}

#[test]
fn small_ranges_give_all_they_have() {
    for (range, usable) in [("2001:db8::/126", 3), ("2001:db8::/121", 127), ("2001:db8::/120", 127)] {
        let mut ipam = node6(range);
        assert_eq!(ipam.counts(0).ipv6.free, usable, "{range}");
        let got: BTreeSet<_> = (0..usable).map(|_| one(&mut ipam, &six(&[]), 0).expect("still free")).collect();
        assert_eq!(got.len() as u64, usable);
        assert!(one(&mut ipam, &six(&[]), 0).is_err());
    }
    let mut ipam = node6("2001:db8::/64");
    let pair = six(&["2001:db8::4/127"]);
    let got = [one(&mut ipam, &pair, 0), one(&mut ipam, &pair, 0)].map(|at| at.expect("both are usable"));
    assert_eq!(BTreeSet::from(got), BTreeSet::from([ip("2001:db8::4"), ip("2001:db8::5")]));
}

#[test]
fn an_address_that_a_pod_has_never_rests_whatever_an_old_record_says() {
    let mut ipam = node4("10.0.0.0/30");
    ipam.hold(ip("10.0.0.2"));
    ipam.restore_rest(ip("10.0.0.2"), ONE, 0);
    assert_eq!(ipam.counts(0).ipv4, FamilyCounts { allocated: 1, free: 0, usable: 1, resting: 0 });
    assert!(matches!(one(&mut ipam, &four(&[]), REST_MS), Err(IpamError::Exhausted { .. })));
}

#[test]
fn an_address_that_the_host_and_a_pod_have_is_counted_once() {
    let mut ipam = node4("10.0.0.0/29");
    ipam.hold(ip("10.0.0.2"));
    ipam.reserve([ip("10.0.0.2"), ip("10.0.0.3")]);
    assert_eq!(ipam.counts(0).ipv4, FamilyCounts { allocated: 1, free: 3, usable: 3, resting: 0 });
}

#[test]
fn an_address_is_held_from_when_a_pod_has_it_to_when_it_begins_to_rest() {
    // Inside the range and outside of it: a pod may have been made before an edit of it.
    for address in ["10.0.0.2", "192.0.2.1", "2001:db8::7"].map(ip) {
        let mut ipam = node4("10.0.0.0/29");
        ipam.reserve([address]);
        assert!(!ipam.holds(address), "{address} is the host's");
        ipam.hold(address);
        assert!(ipam.holds(address));
        assert!(ipam.release(address, ONE, 0));
        assert!(!ipam.holds(address), "{address} rests");
        ipam.hold(address);
        assert!(ipam.give_back(address) && !ipam.holds(address));
    }
}

#[test]
fn the_only_free_address_is_found_wherever_it_is() {
    for free in 2..=6 {
        let mut ipam = node4("10.0.0.0/29");
        for _ in 0..5 {
            one(&mut ipam, &four(&[]), 0).expect("free");
        }
        let free = ip(&format!("10.0.0.{free}"));
        assert!(ipam.give_back(free));
        assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(free));
    }
}

#[test]
fn an_address_that_the_host_has_given_up_is_given_to_pods_again() {
    let mut ipam = node4("10.0.0.0/30");
    ipam.reserve([ip("10.0.0.2")]);
    assert!(matches!(one(&mut ipam, &four(&[]), 0), Err(IpamError::Exhausted { .. })));
    ipam.reserve([]);
    assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(ip("10.0.0.2")));
}

#[test]
fn every_bit_of_the_host_part_comes_from_the_generator() {
    let mut ipam = node6("2001:db8::/64");
    let got = ipam.allocate(&six(&[]), ONE, 0, &mut Stuck(0xffff_1234_5678_9abc_def0)).expect("all is free");
    assert_eq!(got.ipv6.map(IpAddr::V6), Some(ip("2001:db8::1234:5678:9abc:def0")), "so nobody can guess it");
}

#[test]
fn a_generator_that_repeats_itself_costs_a_walk_and_no_failure() {
    let mut ipam = node6("2001:db8::/64");
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        let got = ipam.allocate(&six(&[]), ONE, 0, &mut Stuck(0xffff_ffff_ffff_ff00)).expect("nearly all is free");
        assert!(seen.insert(got.ipv6));
    }
}

// ---- embedding ----

fn embedded(fields: &str, app: &str) -> Request {
    let id = Identity { app: Some(app.into()), ..Identity::default() };
    let embed = Some((fields.parse().expect("literal"), id));
    Request { ipv6: Some(Want6 { cidrs: vec![], embed }), ..Request::default() }
}

#[test]
fn sixteen_replicas_share_their_digits_and_the_next_is_random() {
    let mut ipam = node6("2001:db8::/64");
    let (want, mut draw) = (embedded("app", "web"), Seeded(7));
    let mut seen = BTreeSet::new();
    for _ in 0..16 {
        let got = ipam.allocate(&want, ONE, 0, &mut draw).expect("a value of N is left");
        assert_eq!(got.warnings, []);
        seen.insert(got.ipv6.expect("wanted").to_bits());
    }
    let (Some(low), Some(high)) = (seen.first(), seen.last()) else { panic!("there are sixteen") };
    assert_eq!((seen.len(), high - low, low & 0xf), (16, 15, 0));
    let got = ipam.allocate(&want, ONE, 0, &mut draw).expect("random");
    assert_eq!(got.warnings, [Warning::EmbeddedExhausted(net6("2001:db8::/64"))]);
    assert_ne!(got.ipv6.expect("wanted").to_bits() >> 4, low >> 4);
    // Another workload is not affected.
    assert_eq!(ipam.allocate(&embedded("app", "db"), ONE, 0, &mut draw).expect("free").warnings, []);
}

#[test]
fn what_cannot_be_embedded_is_random_with_a_warning() {
    let mut ipam = node6("2001:db8::/64");
    let got = ipam.allocate(&embedded("image", "web"), ONE, 0, &mut Seeded(1)).expect("random");
    assert!(matches!(got.warnings[..], [Warning::NotEmbedded(EmbedError::UnknownValue(_))]));
    let mut ipam = node6("2001:db8::/112");
    let got = ipam.allocate(&embedded("app", "web"), ONE, 0, &mut Seeded(1)).expect("random");
    assert_eq!(got.warnings, [Warning::NotEmbedded(EmbedError::PrefixLength(112))]);
}

// ---- rest ----

// covers: FM-A09
#[test]
fn a_released_address_rests_and_then_comes_back() {
    let mut ipam = node4("10.0.0.0/29");
    let all: Vec<_> = (0..5).map(|_| one(&mut ipam, &four(&[]), 0).expect("free")).collect();
    assert!(ipam.release(all[3], OTHER, 1_000));
    assert!(ipam.release(all[1], OTHER, 2_000));
    assert!(!ipam.release(all[3], OTHER, 9_000), "a second release must not begin a new rest");
    assert_eq!(ipam.counts(2_000).ipv4, FamilyCounts { allocated: 3, free: 0, usable: 5, resting: 2 });
    assert_eq!(ipam.counts(1_000 + REST_MS).ipv4, FamilyCounts { allocated: 3, free: 1, usable: 5, resting: 1 });
    assert_eq!(one(&mut ipam, &four(&[]), 1_000 + REST_MS), Ok(all[3]));
    // The other rests for another second after somebody else had it; used rather than failing, and said so.
    let got = ipam.allocate(&four(&[]), ONE, 1_001 + REST_MS, &mut Seeded(0)).expect("resting");
    assert_eq!(got.warnings, [Warning::RestReused { address: all[1], rested_ms: REST_MS - 999 }]);
}

#[test]
fn the_oldest_resting_address_is_used_first_and_only_within_the_range() {
    let mut ipam = node6("2001:db8::/126");
    let all: Vec<_> = (0..3).map(|_| one(&mut ipam, &six(&[]), 0).expect("free")).collect();
    for (at, when) in [(all[2], 5), (all[0], 6), (all[1], 7)] {
        assert!(ipam.release(at, OTHER, when));
    }
    ipam.restore_rest(ip("2001:db8::8"), OTHER, 1);
    ipam.reserve([all[2]]);
    let got = |ipam: &mut Ipam| ipam.allocate(&six(&[]), ONE, 10, &mut Seeded(0)).map(|got| got.ipv6.map(IpAddr::V6));
    assert_eq!(got(&mut ipam), Ok(Some(all[0])));
    assert_eq!(got(&mut ipam), Ok(Some(all[1])));
    assert!(got(&mut ipam).is_err(), "the host's own address is never used");
    ipam.reserve([]);
    assert_eq!(got(&mut ipam), Ok(Some(all[2])));
}

/// What `asker` gets, and the warnings.
fn gets(ipam: &mut Ipam, want: &Request, asker: Owner, now: u64) -> Result<(IpAddr, Vec<Warning>), IpamError> {
    let got = ipam.allocate(want, asker, now, &mut Seeded(now))?;
    let ip = got.primary().next().expect("one family was wanted");
    Ok((ip, got.warnings))
}

// covers: FM-A09 FM-M05
#[test]
fn one_address_that_a_pod_names_goes_back_to_whoever_had_it_and_to_others_when_it_has_rested() {
    let (all6, all4) = ("2001:db8::/64", "10.0.0.0/24");
    for (want, at) in [
        (six(&["2001:db8::7/128"]), "2001:db8::7"),
        // Of these two, one is the subnet's anycast address.
        (six(&["2001:db8::/127"]), "2001:db8::1"),
        (four(&["10.0.0.8/30"]), "10.0.0.10"),
        (four(&["10.0.0.7/32"]), "10.0.0.7"),
        (named(&["10.0.0.7"]), "10.0.0.7"),
        (named(&["203.0.113.7"]), "203.0.113.7"),
        (named(&["2001:db8:f::7"]), "2001:db8:f::7"),
        (four(&["192.168.0.0/16", "10.0.0.8/30"]), "10.0.0.10"),
    ] {
        let mut ipam = Ipam::new(Some(net6(all6)), Some(net4(all4)));
        assert_eq!(gets(&mut ipam, &want, ONE, 0), Ok((ip(at), vec![])));
        assert!(ipam.release(ip(at), ONE, 1_000));
        // Two seconds later its pod is there again, in another sandbox.
        assert_eq!(gets(&mut ipam, &want, ONE, 3_000), Ok((ip(at), vec![])), "{at}");
        assert!(ipam.release(ip(at), ONE, 4_000));
        let error = gets(&mut ipam, &want, OTHER, 12_001).expect_err("it rests");
        let said = format!("{at} was another pod's and rests for another 22 s");
        assert!(error.to_string().contains(&said) && error.to_string().contains("no address is free"), "{error}");
        assert_eq!(gets(&mut ipam, &want, ONE, 12_002), Ok((ip(at), vec![])), "and nothing of its rest was lost");
        assert!(ipam.release(ip(at), ONE, 20_000));
        assert_eq!(gets(&mut ipam, &want, OTHER, 20_000 + REST_MS), Ok((ip(at), vec![])));
    }
}

// covers: FM-A14
#[test]
fn a_range_that_is_full_gives_a_resting_address_to_its_former_owner_first_and_to_others_with_a_warning() {
    for (mut ipam, want) in [
        (node4("10.0.0.0/29"), four(&[])),
        (node4("10.0.0.0/24"), four(&["10.0.0.8/29"])),
        (node6("2001:db8::/126"), six(&[])),
        (node6("2001:db8::/64"), six(&["2001:db8::4/127"])),
        (node6("2001:db8::/64"), six(&["2001:db8::40/124"])),
    ] {
        let mut all = Vec::new();
        while let Ok((ip, warnings)) = gets(&mut ipam, &want, ONE, 0) {
            assert_eq!(warnings, []);
            all.push(ip);
        }
        assert!(ipam.release(all[0], OTHER, 1) && ipam.release(all[1], ONE, 2));
        assert_eq!(gets(&mut ipam, &want, ONE, 5), Ok((all[1], vec![])), "its own, though the other one is older");
        let reused = Warning::RestReused { address: all[0], rested_ms: 4 };
        assert_eq!(gets(&mut ipam, &want, ONE, 5), Ok((all[0], vec![reused])));
    }
}

// covers: FM-M05
#[test]
fn a_node_of_one_address_gives_it_at_once_since_nobody_could_have_another() {
    for want in [four(&[]), four(&["10.0.0.0/8"]), four(&["10.0.0.4/30"])] {
        let mut ipam = node4("10.0.0.4/30");
        let at = one(&mut ipam, &want, 0).expect("free");
        assert!(ipam.release(at, OTHER, 0));
        let reused = Warning::RestReused { address: at, rested_ms: 7 };
        assert_eq!(gets(&mut ipam, &want, ONE, 7), Ok((at, vec![reused])));
    }
}

#[test]
fn an_address_that_was_put_back_at_the_start_is_known_as_its_owners() {
    let mut ipam = node6("2001:db8::/64");
    let want = six(&["2001:db8::7/128"]);
    ipam.restore_rest(ip("2001:db8::7"), ONE, 5);
    ipam.restore_rest(ip("2001:db8::7"), OTHER, 3);
    assert!(matches!(gets(&mut ipam, &want, OTHER, 6), Err(IpamError::Resting { left_ms: 29_999, .. })));
    assert_eq!(gets(&mut ipam, &want, ONE, 6), Ok((ip("2001:db8::7"), vec![])));
}

#[test]
fn an_address_that_a_pod_names_is_refused_while_another_has_it_whichever_way_it_is_named() {
    let both = || Ipam::new(Some(net6("2001:db8::/64")), Some(net4("10.0.0.0/24")));
    for (want, at) in [
        (six(&["2001:db8::7/128"]), "2001:db8::7"),
        (four(&["10.0.0.7/32"]), "10.0.0.7"),
        (named(&["2001:db8:f::7"]), "2001:db8:f::7"),
        (named(&["203.0.113.7"]), "203.0.113.7"),
    ] {
        let mut ipam = both();
        assert_eq!(one(&mut ipam, &want, 0), Ok(ip(at)));
        assert_eq!(one(&mut ipam, &want, 0), Err(IpamError::Held(ip(at))), "its owner holds it, too");
        let mut ipam = both();
        ipam.reserve([ip(at)]);
        assert_eq!(one(&mut ipam, &want, 0), Err(IpamError::Reserved(ip(at))));
    }
    let anycast = one(&mut both(), &six(&["2001:db8::/128"]), 0).expect_err("routers answer to it").to_string();
    assert!(
        anycast.contains("2001:db8:: (the pod names it by annotation) is an anycast address of routers"),
        "{anycast}"
    );
}

#[test]
fn what_a_pod_names_takes_the_place_of_the_range_and_is_taken_as_a_whole_or_not_at_all() {
    let mut ipam = Ipam::new(Some(net6("2001:db8::/64")), Some(net4("10.0.0.0/24")));
    let want = |fixed: &[&str]| Request { fixed: named(fixed).fixed, ..both() };
    let mut get = |fixed: &[&str]| {
        ipam.allocate(&want(fixed), ONE, 0, &mut Seeded(1)).map(|got| (got.primary().collect(), got.extra))
    };
    let ips = |texts: &[&str]| texts.iter().map(|text| ip(text)).collect::<Vec<_>>();
    // Both families: the range is not asked, so its first address is still there for the next one.
    assert_eq!(
        get(&["203.0.113.5", "203.0.113.6", "2001:db8:f::5", "2001:db8:f::6"]),
        Ok((ips(&["2001:db8:f::5", "203.0.113.5"]), ips(&["203.0.113.6", "2001:db8:f::6"])))
    );
    let (primary, extra): (Vec<_>, _) = get(&["2001:db8:f::7"]).expect("free");
    assert_eq!((primary, extra), (ips(&["2001:db8:f::7", "10.0.0.2"]), vec![]));
    assert_eq!(get(&["2001:db8:f::8", "203.0.113.6"]), Err(IpamError::Held(ip("203.0.113.6"))));
    assert_eq!(
        get(&["2001:db8:f::8", "203.0.113.8"]).expect("nothing was taken").0,
        ips(&["2001:db8:f::8", "203.0.113.8"])
    );
}

#[test]
fn a_pod_that_waits_for_its_one_address_takes_none_of_the_other_family() {
    let mut ipam = Ipam::new(Some(net6("2001:db8::/64")), Some(net4("10.0.0.0/24")));
    let want = Request { ipv4: Some(Want4::default()), ..six(&["2001:db8::7/128"]) };
    ipam.restore_rest(ip("2001:db8::7"), OTHER, 0);
    let before = ipam.counts(1);
    assert!(ipam.allocate(&want, ONE, 1, &mut Seeded(1)).is_err());
    assert_eq!(ipam.counts(1), before);
}

// covers: FM-D09
#[test]
fn a_clock_that_was_set_back_delays_a_rest_by_no_more_than_a_rest() {
    let mut ipam = node4("10.0.0.0/29");
    ipam.restore_rest(ip("10.0.0.2"), OTHER, 1 << 60);
    ipam.restore_rest(ip("10.0.0.3"), OTHER, u64::MAX);
    assert_eq!(one(&mut ipam, &four(&[]), 50), Ok(ip("10.0.0.4")));
    assert_eq!(ipam.counts(50).ipv4.resting, 2);
    assert_eq!(one(&mut ipam, &four(&[]), 50 + REST_MS), Ok(ip("10.0.0.5")));
    assert_eq!(ipam.counts(50 + REST_MS).ipv4, FamilyCounts { allocated: 2, free: 3, usable: 5, resting: 0 });
}

// ---- both families ----

// covers: FM-A12
#[test]
fn if_one_family_fails_nothing_is_taken_of_the_other() {
    let mut ipam = Ipam::new(Some(net6("2001:db8::/126")), Some(net4("10.0.0.0/30")));
    let first = ipam.allocate(&both(), ONE, 0, &mut Seeded(1)).expect("free");
    let before = ipam.counts(0);
    for seed in 0..8 {
        assert!(matches!(ipam.allocate(&both(), ONE, 0, &mut Seeded(seed)), Err(IpamError::Exhausted { held: 1, .. })));
        assert_eq!(ipam.counts(0), before);
    }
    // A resting IPv6 address does not lose its rest to a request that fails for IPv4.
    let six_of = |got: Allocation| got.ipv6.map(IpAddr::V6).expect("wanted");
    let others = [one(&mut ipam, &six(&[]), 0), one(&mut ipam, &six(&[]), 0)].map(|at| at.expect("free"));
    assert!(ipam.release(others[0], OTHER, 0));
    assert!(ipam.allocate(&both(), ONE, 1, &mut Seeded(0)).is_err());
    assert_eq!(ipam.counts(1).ipv6, FamilyCounts { allocated: 2, free: 0, usable: 3, resting: 1 });
    assert!(ipam.give_back(first.ipv4.map(IpAddr::V4).expect("wanted")));
    let got = ipam.allocate(&both(), ONE, 1, &mut Seeded(0)).expect("one rests, one is free");
    assert_eq!(got.warnings, [Warning::RestReused { address: others[0], rested_ms: 1 }]);
    assert_eq!(six_of(got), others[0]);
}

#[test]
fn a_pod_may_want_nothing() {
    let got = Ipam::default().allocate(&Request::default(), ONE, 0, &mut Stuck(0)).expect("nothing can fail");
    assert_eq!(got, Allocation { ipv6: None, ipv4: None, extra: vec![], warnings: vec![] });
}

// ---- start and range edits ----

#[test]
fn addresses_from_before_an_edit_stay_held_and_are_known_again_after_the_next() {
    let (old, new) = (net4("10.0.0.0/30"), net4("10.1.0.0/30"));
    let mut ipam = Ipam::new(None, Some(old));
    assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(ip("10.0.0.2")));
    ipam.set_ranges(None, Some(new));
    assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(ip("10.1.0.2")));
    assert_eq!(ipam.counts(0).ipv4, FamilyCounts { allocated: 2, free: 0, usable: 1, resting: 0 });
    ipam.set_ranges(None, Some(old));
    assert!(one(&mut ipam, &four(&[]), 0).is_err(), "the pod from before the edit still has it");
    assert!(ipam.release(ip("10.0.0.2"), OTHER, 0));
    ipam.set_ranges(None, Some(new));
    ipam.set_ranges(None, Some(old));
    let got = ipam.allocate(&four(&[]), ONE, 5, &mut Seeded(0)).expect("resting");
    assert_eq!(got.warnings, [Warning::RestReused { address: ip("10.0.0.2"), rested_ms: 5 }]);
    ipam.set_ranges(None, None);
    assert_eq!(one(&mut ipam, &four(&[]), 5), Err(IpamError::NoRange(Family::V4)));
    assert!(ipam.release(ip("10.0.0.2"), OTHER, 5) && ipam.release(ip("10.1.0.2"), OTHER, 5));
}

#[test]
fn an_address_of_the_host_is_not_given_and_one_that_a_pod_has_stays_the_pods() {
    let mut ipam = node4("10.0.0.0/29");
    let mine = one(&mut ipam, &four(&[]), 0).expect("free");
    ipam.reserve([mine, ip("10.0.0.3"), ip("2001:db8::1")]);
    assert_eq!(one(&mut ipam, &four(&[]), 0), Ok(ip("10.0.0.4")));
    assert!(ipam.give_back(mine));
    assert_eq!(ipam.counts(0).ipv4, FamilyCounts { allocated: 1, free: 2, usable: 3, resting: 0 });
    ipam.reserve([]);
    assert_eq!(ipam.counts(0).ipv4, FamilyCounts { allocated: 1, free: 4, usable: 5, resting: 0 });
}

#[test]
fn an_address_is_kept_from_pods_by_a_rule_or_a_pod_gets_it() {
    for range in ["10.0.0.0/29", "10.0.0.0/30", "2001:db8::/125", "2001:db8::/119", "2001:db8::/127", "2001:db8::/126"]
    {
        let net: IpNet = range.parse().expect("literal");
        let (mut ipam, want) = match net {
            IpNet::V6(_) => (node6(range), six(&[])),
            IpNet::V4(_) => (node4(range), four(&[])),
        };
        let mut given = BTreeSet::new();
        while let Ok(ip) = one(&mut ipam, &want, 0) {
            given.insert(ip);
        }
        let all: Vec<IpAddr> = match net {
            IpNet::V6(net) => {
                (net.network().to_bits()..=net.broadcast().to_bits()).map(|at| Ipv6Addr::from_bits(at).into()).collect()
            }
            IpNet::V4(net) => {
                (net.network().to_bits()..=net.broadcast().to_bits()).map(|at| Ipv4Addr::from_bits(at).into()).collect()
            }
        };
        let free: BTreeSet<IpAddr> = all.into_iter().filter(|ip| rule(&net, *ip).is_none()).collect();
        assert_eq!(given, free, "{range}");
    }
    let eui64 = (ip("2001:db8::fdff:ffff:ffff:ffff"), "2001:db8::/64".parse().expect("literal"));
    assert!(rule(&eui64.1, eui64.0).is_some_and(|rule| rule.contains("RFC 2526")));
    assert_eq!(rule(&eui64.1, ip("10.0.0.0")), None, "of another family");
}
