//! Connections that go on: numbers that are sent every few milliseconds, each way of UDP and TCP, and which of them arrive. What
//! may be missing is for the tests to say.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flock::kernel::netns::Netns;

use super::support::waiting::wait_for;
use crate::support::inside::Inside as _;

/// Time between two numbers.
const PACE: Duration = Duration::from_millis(2);

/// Which way the numbers of a connection go, seen from who opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By UDP, and nothing comes back.
    Requests,
    /// By UDP, all of them answers to the first datagram.
    Answers,
    /// By TCP.
    Upload,
    /// By TCP.
    Download,
}

pub const WAYS: [Way; 4] = [Way::Requests, Way::Answers, Way::Upload, Way::Download];

/// Where a connection begins or ends: a network namespace and an address in it.
pub type Place = (PathBuf, IpAddr);

enum Ends {
    Udp { sender: UdpSocket, receiver: UdpSocket },
    Tcp { sender: TcpStream, receiver: TcpStream, rest: Vec<u8> },
}

#[derive(Debug, Default)]
struct Told {
    /// The last number that went out on all connections.
    sent: u64,
    /// What arrived on each.
    received: Vec<Vec<u64>>,
}

/// Connections that go on until the value ends.
pub struct Streams {
    told: Arc<Mutex<Told>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Opens each of these connections, which must be allowed unless it is of [`Way::Requests`].
    pub fn start(connections: &[(Place, Place, Way)]) -> Streams {
        let ends: Vec<Ends> = connections.iter().map(|(from, to, way)| open(from, to, *way)).collect();
        let told = Told { sent: 0, received: vec![Vec::new(); ends.len()] };
        let (told, ended) = (Arc::new(Mutex::new(told)), Arc::new(AtomicBool::new(false)));
        let state = (told.clone(), ended.clone());
        let thread = thread::spawn(move || run(ends, &state.0, &state.1));
        Streams { told, ended, thread: Some(thread) }
    }

    /// A number such that all smaller ones are out by now, and it or a larger one is the next.
    pub fn next(&self) -> u64 {
        // One may be on its way out to some already.
        self.told.lock().expect("unpoisoned").sent + 2
    }

    /// Waits until this number went out.
    #[track_caller]
    pub fn wait_sent(&self, number: u64) {
        wait_for("numbers to go out", || (self.told.lock().expect("unpoisoned").sent >= number).then_some(()));
    }

    /// Waits until this number or a larger one arrived on this connection.
    #[track_caller]
    pub fn wait_received(&self, connection: usize, number: u64) {
        let arrived = || self.received(connection).last().is_some_and(|last| *last >= number);
        wait_for("a number to arrive", || arrived().then_some(()));
    }

    /// What arrived on this connection so far.
    pub fn received(&self, connection: usize) -> Vec<u64> {
        self.told.lock().expect("unpoisoned").received[connection].clone()
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(netns).expect("a namespace").run(work).expect("entered")
}

fn open(from: &Place, to: &Place, way: Way) -> Ends {
    let udp = |(netns, address): &Place| within(netns, || UdpSocket::bind((*address, 0)).expect("an own address"));
    let ends = match way {
        Way::Requests => {
            let (sender, receiver) = (udp(from), udp(to));
            sender.connect(receiver.local_addr().expect("bound")).expect("a route");
            Ends::Udp { sender, receiver }
        }
        Way::Answers => {
            let (client, server) = (udp(from), udp(to));
            client.connect(server.local_addr().expect("bound")).expect("a route");
            client.send(&[]).expect("sent");
            let asked = wait_for("the first datagram", || {
                server.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
                server.recv_from(&mut []).ok()
            });
            server.connect(asked.1).expect("a route");
            Ends::Udp { sender: server, receiver: client }
        }
        Way::Upload | Way::Download => {
            let listener = within(&to.0, || TcpListener::bind((to.1, 0)).expect("an own address"));
            let at: SocketAddr = listener.local_addr().expect("bound");
            let client = within(&from.0, || TcpStream::connect(at).expect("an allowed connection"));
            let (server, _) = listener.accept().expect("a connection");
            let (sender, receiver) = if way == Way::Upload { (client, server) } else { (server, client) };
            sender.set_nodelay(true).expect("set");
            Ends::Tcp { sender, receiver, rest: Vec::new() }
        }
    };
    match &ends {
        Ends::Udp { sender, receiver } => {
            [sender, receiver].iter().for_each(|it| it.set_nonblocking(true).expect("set"))
        }
        Ends::Tcp { sender, receiver, .. } => {
            [sender, receiver].iter().for_each(|it| it.set_nonblocking(true).expect("set"));
        }
    }
    ends
}

fn run(mut all: Vec<Ends>, told: &Mutex<Told>, ended: &AtomicBool) {
    for number in 1u64.. {
        for ends in &mut all {
            // What the network says of earlier ones, or that nobody takes them any more, is for the tests to see at the other end.
            match ends {
                Ends::Udp { sender, .. } => drop(sender.send(&number.to_be_bytes())),
                Ends::Tcp { sender, .. } => drop(sender.write(&number.to_be_bytes())),
            }
        }
        let arrived: Vec<Vec<u64>> = all.iter_mut().map(take).collect();
        {
            let mut told = told.lock().expect("unpoisoned");
            told.sent = number;
            told.received.iter_mut().zip(arrived).for_each(|(received, new)| received.extend(new));
        }
        if ended.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(PACE);
    }
}

fn take(ends: &mut Ends) -> Vec<u64> {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    let mut new = Vec::new();
    match ends {
        Ends::Udp { receiver, .. } => {
            let mut bytes = [0; 8];
            while let Ok(8) = receiver.recv(&mut bytes) {
                new.push(number(&bytes));
            }
        }
        Ends::Tcp { receiver, rest, .. } => {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = receiver.read(&mut bytes) {
                rest.extend(&bytes[..length]);
            }
            let whole = rest.len() / 8 * 8;
            new.extend(rest.drain(..whole).collect::<Vec<u8>>().chunks(8).map(number));
        }
    }
    new
}
