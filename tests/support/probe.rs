//! Traffic that is counted: flows of numbered packets from one network namespace, which whoever has the address answers with a
//! name. What may be lost, and who should answer, is for the tests to say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::waiting::wait_or;
use crate::support::inside::Inside as _;

/// Where packets are answered.
const PORT: u16 = 7777;
/// A packet that is not answered this long after the last one was sent is lost.
const LATE: Duration = Duration::from_secs(2);

fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(netns).expect("a namespace").run(work).expect("entered")
}

/// Answers packets to an address with a name, until it is dropped. Its sockets hold the network namespace that they are in.
pub struct Echo {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    /// Answers packets to these addresses of this namespace: each from the address that it was sent to.
    pub fn start(netns: &Path, name: &str, addresses: &[IpAddr]) -> Echo {
        let bind = || addresses.iter().map(|&ip| UdpSocket::bind((ip, PORT)).expect("an own address")).collect();
        let sockets: Vec<UdpSocket> = within(netns, bind);
        let ended = Arc::new(AtomicBool::new(false));
        let answer = |socket: UdpSocket| {
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
            let (ended, name) = (ended.clone(), name.to_owned());
            thread::spawn(move || {
                let mut packet = [0; 64];
                while !ended.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut packet) {
                        let answer = [&packet[..length], name.as_bytes()].concat();
                        socket.send_to(&answer, from).ok();
                    }
                }
            })
        };
        let threads = sockets.into_iter().map(answer).collect();
        Echo { ended, threads }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("no panic"));
    }
}

/// What came of the packets so far.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub sent: u64,
    /// Answers by the name of who gave them.
    pub by: BTreeMap<String, u64>,
    /// Which names answered each flow, in the order in which they first did.
    pub flows: BTreeMap<usize, Vec<String>>,
    /// When each packet without an answer was sent, since the begin; sorted.
    pub lost: Vec<Duration>,
}

impl Tally {
    pub fn answered(&self) -> u64 {
        self.by.values().sum()
    }

    /// The names that answered.
    pub fn names(&self) -> BTreeSet<&str> {
        self.by.keys().map(String::as_str).collect()
    }

    /// How many flows more than one of them answered.
    pub fn moved(&self) -> usize {
        self.flows.values().filter(|names| names.len() > 1).count()
    }
}

/// Flows of packets that run until they are told to end.
pub struct Probe {
    ended: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// Sends from this namespace so many flows to each of these addresses: one packet each `pace`, the flows in turn.
    pub fn start(netns: &Path, to: &[IpAddr], flows: usize, pace: Duration) -> Probe {
        let connect = |to: IpAddr| {
            let any = if to.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0)).expect("a free port");
            socket.connect((to, PORT)).unwrap_or_else(|error| panic!("no way to {to}: {error}"));
            socket.set_nonblocking(true).expect("set");
            socket
        };
        let all = || (0..flows).flat_map(|_| to.iter().copied()).map(connect).collect::<Vec<_>>();
        let sockets = within(netns, all);
        let (ended, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let state = (ended.clone(), tally.clone());
        let thread = thread::spawn(move || run(&sockets, pace, &state.0, &state.1));
        Probe { ended, tally, thread: Some(thread) }
    }

    /// What came of the packets so far. Those on their way count as sent, and not as lost.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().expect("unpoisoned").clone()
    }

    /// Waits until so many more answers have come.
    #[track_caller]
    pub fn wait_answers(&self, more: u64) {
        let before = self.so_far().answered();
        wait_or(
            || format!("{:?} after {before} answers", self.so_far()),
            || (self.so_far().answered() >= before + more).then_some(()),
        );
    }

    /// Waits until, for so many answers in a row, nobody but these has answered.
    #[track_caller]
    pub fn wait_only(&self, names: &[&str], answers: u64) {
        let others = |tally: &Tally| -> u64 {
            tally.by.iter().filter(|(name, _)| !names.contains(&name.as_str())).map(|(_, count)| count).sum()
        };
        let mut mark = self.so_far();
        wait_or(
            || format!("others than {names:?} answer: {:?}", self.so_far().by),
            || {
                let now = self.so_far();
                if others(&now) > others(&mark) {
                    mark = now;
                    return None;
                }
                (now.answered() >= mark.answered() + answers).then_some(())
            },
        );
    }

    /// Ends the flows and waits for what is on its way.
    pub fn finish(mut self) -> Tally {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(sockets: &[UdpSocket], pace: Duration, ended: &AtomicBool, tally: &Mutex<Tally>) {
    let began = Instant::now();
    let mut pending: HashMap<u64, Duration> = HashMap::new();
    let (mut number, mut due, mut last) = (0_u64, Duration::ZERO, Duration::ZERO);
    loop {
        let now = began.elapsed();
        let ending = ended.load(Ordering::Relaxed);
        if ending && (pending.is_empty() || now > last + LATE) {
            break;
        }
        if !ending && now >= due {
            let socket = &sockets[number as usize % sockets.len()];
            // An error that the network has answered to an earlier packet is reported once, in the place of this one.
            if socket.send(&number.to_be_bytes()).is_err() {
                socket.send(&number.to_be_bytes()).ok();
            }
            pending.insert(number, now);
            tally.lock().expect("unpoisoned").sent += 1;
            (number, last) = (number + 1, now);
            // Whoever was kept from sending does not catch up.
            due = if now > due + 10 * pace { now } else { due } + pace;
        }
        let wait = if ending { Duration::from_millis(10) } else { due.saturating_sub(began.elapsed()) };
        let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(wait.min(Duration::from_millis(10))).expect("short");
        poll(&mut fds, Some(&timeout)).ok();
        let ready = fds.iter().zip(sockets).enumerate().filter(|(_, (fd, _))| !fd.revents().is_empty());
        for (flow, (_, socket)) in ready {
            receive(flow, socket, &mut pending, tally);
        }
    }
    let mut lost: Vec<Duration> = pending.into_values().collect();
    lost.sort_unstable();
    tally.lock().expect("unpoisoned").lost = lost;
}

fn receive(flow: usize, socket: &UdpSocket, pending: &mut HashMap<u64, Duration>, tally: &Mutex<Tally>) {
    let mut packet = [0; 64];
    loop {
        let length = match socket.recv(&mut packet) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // What the network says of an earlier packet, which will be missed anyway.
            Err(_) => continue,
        };
        let (number, name) = packet[..length].split_at(8);
        let number = u64::from_be_bytes(number.try_into().expect("eight bytes"));
        if pending.remove(&number).is_none() {
            continue;
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let mut tally = tally.lock().expect("unpoisoned");
        *tally.by.entry(name.clone()).or_default() += 1;
        let names = tally.flows.entry(flow).or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
}
