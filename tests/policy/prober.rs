//! The answer that counts: packets. Every end listens, and every question is a new connection, all of them at once.
//!
//! TCP is opened by connecting, UDP by a datagram that is sent back, SCTP by the two chunks that open an association, in raw
//! packets, since connection tracking knows it where no socket does, and what has no ports by an echo. Knows nothing of policies,
//! but is told what is expected, so that it never takes slowness for a denial: it waits until everything has come that should, and
//! then as long again as that took. What should have come and did not is asked once more, with patience. What came and should not
//! counts at once.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol as Number, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, connect,
    ipproto, listen, recvfrom, sendto, socket_with, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::cluster::{Probe, Protocol};
use crate::support::inside::Inside as _;

/// Where everybody listens.
pub const PORTS: [u16; 2] = [80, 81];

/// The least time that a packet which should not come gets.
const MARGIN: Duration = Duration::from_millis(20);
/// So long after the last answer, questions without one are asked again.
const SILENCE: Duration = Duration::from_millis(300);
/// So long those are waited for: a SYN goes out again after 1 s and after 3.
const PATIENCE: Duration = Duration::from_secs(4);

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Answered,
    /// It reached the other end, and the answer did not come back: neither allowed nor denied.
    Arrived,
    Nothing,
    /// The kernel refused it, as no policy does.
    Refused(Errno),
}

impl Verdict {
    /// Whether this is what is expected.
    pub fn is(self, allowed: bool) -> bool {
        self == if allowed { Verdict::Answered } else { Verdict::Nothing }
    }
}

/// Everybody's sockets.
#[derive(Default)]
pub struct Prober {
    stations: BTreeMap<IpAddr, Station>,
    /// Names the next question. No two have the same name, so that what comes late is nobody's answer.
    next: u32,
    /// How many questions it had to ask twice.
    pub repeated: usize,
}

/// The sockets of one address.
struct Station {
    netns: Netns,
    listeners: Vec<OwnedFd>,
    datagrams: Vec<OwnedFd>,
    sctp: OwnedFd,
    echo: OwnedFd,
}

impl Prober {
    pub fn new() -> Prober {
        // A round has more connections than a process may usually have descriptors.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("the own limit");
        Prober { next: 1, ..Prober::default() }
    }

    /// Listens at these addresses of a network namespace.
    pub fn settle(&mut self, netns: &Path, addresses: &[IpAddr]) {
        for &address in addresses {
            let netns = Netns::open(netns).expect("a namespace");
            let open = || {
                let bound = |kind: SocketType, number: Option<Number>, port: u16| {
                    let fd = socket(address, kind, number);
                    bind(&fd, &SocketAddr::new(address, port)).unwrap_or_else(|error| panic!("{address}: {error}"));
                    fd
                };
                let listener = |port: u16| {
                    let fd = bound(SocketType::STREAM, None, port);
                    listen(&fd, 1024).expect("listens");
                    fd
                };
                (
                    PORTS.map(listener).into(),
                    PORTS.map(|port| bound(SocketType::DGRAM, None, port)).into(),
                    bound(SocketType::RAW, Some(ipproto::SCTP), 0),
                    bound(SocketType::RAW, Some(echo_protocol(address)), 0),
                )
            };
            let (listeners, datagrams, sctp, echo) = netns.run(open).expect("entered");
            self.stations.insert(address, Station { netns, listeners, datagrams, sctp, echo });
        }
    }

    /// Listens there no more.
    pub fn leave(&mut self, addresses: &[IpAddr]) {
        self.stations.retain(|address, _| !addresses.contains(address));
    }

    /// Asks all of these questions, of which those are expected to be answered.
    pub fn ask(&mut self, probes: &[Probe], expected: &[bool]) -> Vec<Verdict> {
        let all: Vec<usize> = (0..probes.len()).collect();
        let mut verdicts = vec![Verdict::Nothing; probes.len()];
        self.round(probes, expected, &all, false, &mut verdicts);
        let missing = |n: &usize| expected[*n] && verdicts[*n] != Verdict::Answered;
        let missing: Vec<usize> = all.into_iter().filter(missing).collect();
        if !missing.is_empty() {
            self.repeated += missing.len();
            self.round(probes, expected, &missing, true, &mut verdicts);
        }
        verdicts
    }

    fn round(&mut self, probes: &[Probe], expected: &[bool], asked: &[usize], patient: bool, verdicts: &mut [Verdict]) {
        let base = self.next;
        self.next += u32::try_from(asked.len()).expect("few");
        let mut round = Round::new(self, probes, asked, base);
        let began = Instant::now();
        round.send();
        let mut news = Instant::now();
        loop {
            if round.hear(Duration::from_millis(5)) {
                news = Instant::now();
            }
            let now = Instant::now();
            let took = news - began;
            let all_came =
                round.verdicts.iter().zip(asked).all(|(verdict, &n)| !expected[n] || *verdict == Verdict::Answered);
            let over = match (all_came, patient) {
                (true, _) => now - news >= MARGIN.max(took / 2),
                (false, false) => now - news >= SILENCE.max(took * 2),
                (false, true) => now - began >= PATIENCE,
            };
            if over {
                break;
            }
        }
        for (verdict, &n) in round.verdicts.iter().zip(asked) {
            verdicts[n] = *verdict;
        }
        drop(round);
        for listener in self.stations.values().flat_map(|station| &station.listeners) {
            while accept_with(listener, SocketFlags::CLOEXEC).is_ok() {}
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy)]
enum Role {
    /// Connects for the question of this place in the round.
    Connecting(usize),
    /// Sends datagrams from this address, and hears the answers.
    Asking(IpAddr),
    /// Answers datagrams to this address.
    Answering(IpAddr, usize),
    Sctp(IpAddr),
    Echo(IpAddr),
}

struct Round<'a> {
    stations: &'a BTreeMap<IpAddr, Station>,
    probes: Vec<&'a Probe>,
    base: u32,
    verdicts: Vec<Verdict>,
    epoll: OwnedFd,
    roles: Vec<Role>,
    connecting: HashMap<usize, OwnedFd>,
    asking: BTreeMap<IpAddr, OwnedFd>,
}

impl<'a> Round<'a> {
    fn new(prober: &'a Prober, probes: &'a [Probe], asked: &[usize], base: u32) -> Round<'a> {
        let probes: Vec<&Probe> = asked.iter().map(|&n| &probes[n]).collect();
        let mut round = Round {
            stations: &prober.stations,
            verdicts: vec![Verdict::Nothing; probes.len()],
            probes,
            base,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll"),
            roles: Vec::new(),
            connecting: HashMap::new(),
            asking: BTreeMap::new(),
        };
        for (&address, station) in round.stations {
            round.open_clients(address, station);
            round.listen(&station.sctp, Role::Sctp(address));
            round.listen(&station.echo, Role::Echo(address));
            for (place, fd) in station.datagrams.iter().enumerate() {
                round.listen(fd, Role::Answering(address, place));
            }
        }
        round
    }

    fn listen(&mut self, fd: &OwnedFd, role: Role) {
        let flags = if matches!(role, Role::Connecting(_)) { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        let token = epoll::EventData::new_u64(self.roles.len() as u64);
        epoll::add(&self.epoll, fd, token, flags).expect("added");
        self.roles.push(role);
    }

    /// Sockets for the questions that this address asks, of new ports.
    fn open_clients(&mut self, address: IpAddr, station: &Station) {
        let mine = |probe: &Probe, protocol| probe.from.address == address && probe.protocol == protocol;
        let tcp: Vec<usize> = (0..self.probes.len()).filter(|&n| mine(self.probes[n], Protocol::Tcp)).collect();
        let open = || {
            let bound = |kind| {
                let fd = socket(address, kind, None);
                bind(&fd, &SocketAddr::new(address, 0)).expect("a free port");
                fd
            };
            let connecting: Vec<OwnedFd> = tcp.iter().map(|_| bound(SocketType::STREAM)).collect();
            (bound(SocketType::DGRAM), connecting)
        };
        let (asking, connecting) = station.netns.run(open).expect("entered");
        self.listen(&asking, Role::Asking(address));
        self.asking.insert(address, asking);
        for (&n, fd) in tcp.iter().zip(connecting) {
            // It ends with a reset, and leaves no state behind.
            sockopt::set_socket_linger(&fd, Some(Duration::ZERO)).expect("set");
            self.connecting.insert(n, fd);
        }
    }

    /// Asks everything.
    fn send(&mut self) {
        for n in 0..self.probes.len() {
            let probe = self.probes[n];
            let (from, to) = (probe.from.address, target(probe));
            let station = self.stations.get(&from).unwrap_or_else(|| panic!("nobody is at {from}"));
            let name = self.base + u32::try_from(n).expect("few");
            let plain = SocketAddr::new(to.ip(), 0);
            let sent = match probe.protocol {
                Protocol::Tcp => {
                    let begun = connect(&self.connecting[&n], &to);
                    begun.or_else(|error| if error == Errno::INPROGRESS { Ok(()) } else { Err(error) })
                }
                Protocol::Udp => sendto(&self.asking[&from], &name.to_be_bytes(), SendFlags::empty(), &to).map(drop),
                Protocol::Sctp => {
                    let source = 1024 + u16::try_from(name % 60_000).expect("below");
                    let packet = sctp_packet(source, to.port(), 0, INIT, name);
                    sendto(&station.sctp, &packet, SendFlags::empty(), &plain).map(drop)
                }
                Protocol::Echo => {
                    sendto(&station.echo, &echo_request(from, name), SendFlags::empty(), &plain).map(drop)
                }
            };
            match sent {
                Err(error) => self.verdicts[n] = Verdict::Refused(error),
                Ok(()) if probe.protocol == Protocol::Tcp => {
                    let fd = self.connecting.remove(&n).expect("opened");
                    self.listen(&fd, Role::Connecting(n));
                    self.connecting.insert(n, fd);
                }
                Ok(()) => {}
            }
        }
    }

    /// Takes what has come, or comes within this time; says whether anything did.
    fn hear(&mut self, within: Duration) -> bool {
        let mut events = Vec::with_capacity(256);
        let limit = Timespec::try_from(within).expect("short");
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &events {
            let token = { event.data }.u64();
            self.take(self.roles[usize::try_from(token).expect("a place")]);
        }
        !events.is_empty()
    }

    fn take(&mut self, role: Role) {
        let stations = self.stations;
        match role {
            Role::Connecting(n) => {
                let Some(fd) = self.connecting.remove(&n) else { return };
                self.verdicts[n] = match sockopt::socket_error(&fd).expect("readable") {
                    Ok(()) => Verdict::Answered,
                    Err(error) => Verdict::Refused(error),
                };
            }
            Role::Asking(at) => {
                let all = received(&self.asking[&at]);
                for (bytes, from) in all {
                    self.answered(first_number(&bytes), at, from.ip());
                }
            }
            Role::Answering(at, place) => {
                let fd = &stations[&at].datagrams[place];
                for (bytes, from) in received(fd) {
                    self.arrived(first_number(&bytes), at);
                    sendto(fd, &bytes, SendFlags::empty(), &from).ok();
                }
            }
            Role::Sctp(at) => {
                let fd = &stations[&at].sctp;
                for (packet, from) in received(fd) {
                    let packet = payload(&packet, at);
                    match packet.get(12) {
                        Some(&INIT) => {
                            let tag = number_at(packet, 16);
                            self.arrived(tag, at);
                            let port = |at: usize| {
                                packet.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]))
                            };
                            let answer = sctp_packet(port(2), port(0), tag.unwrap_or_default(), INIT_ACK, 1);
                            sendto(fd, &answer, SendFlags::empty(), &SocketAddr::new(from.ip(), 0)).ok();
                        }
                        Some(&INIT_ACK) => self.answered(number_at(packet, 4), at, from.ip()),
                        _ => {}
                    }
                }
            }
            Role::Echo(at) => {
                for (packet, from) in received(&stations[&at].echo) {
                    let packet = payload(&packet, at);
                    match (packet.first(), at) {
                        (Some(8), IpAddr::V4(_)) | (Some(128), IpAddr::V6(_)) => self.arrived(number_at(packet, 8), at),
                        (Some(0), IpAddr::V4(_)) | (Some(129), IpAddr::V6(_)) => {
                            self.answered(number_at(packet, 8), at, from.ip());
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// The place of the question of this name, if it is one of this round.
    fn place(&self, name: Option<u32>) -> Option<usize> {
        let place = usize::try_from(name?.checked_sub(self.base)?).ok()?;
        (place < self.probes.len()).then_some(place)
    }

    fn answered(&mut self, name: Option<u32>, at: IpAddr, by: IpAddr) {
        let Some(n) = self.place(name) else { return };
        if (self.probes[n].from.address, target(self.probes[n]).ip()) == (at, by) {
            self.verdicts[n] = Verdict::Answered;
        }
    }

    fn arrived(&mut self, name: Option<u32>, at: IpAddr) {
        let Some(n) = self.place(name) else { return };
        if self.probes[n].to.address == at && self.verdicts[n] == Verdict::Nothing {
            self.verdicts[n] = Verdict::Arrived;
        }
    }
}

/// Where the packets of a question go.
fn target(probe: &Probe) -> SocketAddr {
    probe.through.unwrap_or_else(|| SocketAddr::new(probe.to.address, probe.port))
}

fn socket(address: IpAddr, kind: SocketType, number: Option<Number>) -> OwnedFd {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, kind, flags, number).unwrap_or_else(|error| panic!("a socket of {address}: {error}"))
}

fn echo_protocol(address: IpAddr) -> Number {
    if address.is_ipv6() { ipproto::ICMPV6 } else { ipproto::ICMP }
}

/// Everything that a socket has, with who sent it.
fn received(fd: &OwnedFd) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    let mut bytes = [0u8; 256];
    loop {
        match recvfrom(fd, &mut bytes[..], RecvFlags::empty()) {
            Ok((_, length, Some(from))) => {
                let from = SocketAddr::try_from(from).expect("an address");
                all.push((bytes[..length.min(bytes.len())].to_vec(), from));
            }
            Ok((_, _, None)) => {}
            Err(Errno::AGAIN) => return all,
            // What the network says of an earlier packet.
            Err(_) => {}
        }
    }
}

/// What a raw socket received, without the header that those of IPv4 put before it.
fn payload(packet: &[u8], at: IpAddr) -> &[u8] {
    let header = if at.is_ipv4() { packet.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
    packet.get(header..).unwrap_or_default()
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn first_number(bytes: &[u8]) -> Option<u32> {
    number_at(bytes, 0)
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// A packet with one chunk that opens an association, with this tag of the sender's own.
fn sctp_packet(source: u16, destination: u16, verification: u32, chunk: u8, tag: u32) -> Vec<u8> {
    let mut packet =
        [&source.to_be_bytes()[..], &destination.to_be_bytes(), &verification.to_be_bytes(), &[0; 4]].concat();
    // An answer carries a cookie.
    let cookie: &[u8] = if chunk == INIT_ACK { &[0, 7, 0, 8, 1, 2, 3, 4] } else { &[] };
    let length = u16::try_from(20 + cookie.len()).expect("short");
    packet.extend([chunk, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    // The window, one stream each way, and the first number.
    packet.extend(65_536u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(tag.to_be_bytes());
    packet.extend(cookie);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// The checksum of SCTP, which connection tracking checks.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        let one_bit = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(*byte), one_bit)
    };
    !bytes.iter().fold(!0, step)
}

/// An echo request. The kernel itself computes the checksum of IPv6.
fn echo_request(from: IpAddr, name: u32) -> Vec<u8> {
    let kind = if from.is_ipv6() { 128 } else { 8 };
    let mut packet = vec![kind, 0, 0, 0, (name >> 8) as u8, name as u8, 0, 1];
    packet.extend(name.to_be_bytes());
    if from.is_ipv4() {
        let words = packet.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
        let sum = words.sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

#[test]
fn the_checksum_of_sctp_is_the_published_one() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
