//! What nothing can be faster than: the start and end of an empty program, the kernel's work for a pod's link, and both in a row.

pub mod alike;
pub mod netlink;
pub mod removal;
pub mod server;
pub mod veth;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use self::netlink::Socket;
use self::removal::{Announcements, Removers, Spent};
use self::server::{SIZE, Work, serve};
use self::veth::{Link, Maker};
use crate::call::{Verb, call};
use crate::contestant::Contestant;
use crate::host::{Host, Pod, unique};

/// Threads that answer, more than callers.
const THREADS: usize = 40;
/// Threads that sit in removals: those of 40 ms, at two thousand a second.
const REMOVERS: usize = 96;

/// An empty program that talks to a socket once, and what its other end does before it answers.
pub struct Program {
    name: &'static str,
    host: Host,
    program: PathBuf,
    socket: PathBuf,
    spent: Spent,
}

impl Program {
    /// Nothing is done: what it costs to start a program.
    pub fn alone(name: &str, program: &Path) -> Program {
        let (host, socket, spent) = (Host::new(name), socket(name), Spent::default());
        serve(&host, &socket, THREADS, &spent, || Box::new(|_| {}));
        Program { name: "floor: program", host, program: program.into(), socket, spent }
    }

    /// The kernel's work is done: both in a row.
    pub fn with_kernel(name: &str, program: &Path) -> Program {
        let (host, socket) = (Host::new(name), socket(name));
        let removers = Removers::on(&host);
        removers.have(REMOVERS);
        let spent = removers.spent.clone();
        let announcements = Announcements::on(&host, &spent);
        let work = move || {
            let (removers, announcements, maker) = (removers.clone(), announcements.clone(), Maker::here());
            Box::new(move |line: &str| {
                let mut words = line.split(' ');
                let mut next = || words.next().expect("a word");
                let (verb, number) = (next(), next().parse().expect("a number"));
                match verb {
                    "ADD" => maker.add(&Link::of(number), next()),
                    _ => announcements.remove(Link::of(number).index, &removers),
                }
            }) as Work
        };
        serve(&host, &socket, THREADS, &spent, work);
        Program { name: "floor: both in a row", host, program: program.into(), socket, spent }
    }
}

impl Contestant for Program {
    fn name(&self) -> &str {
        self.name
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn call(&self, verb: Verb, pod: &Pod) -> Duration {
        ask(&self.program, &self.socket, verb, pod)
    }

    fn resident(&self) -> Duration {
        self.spent.total()
    }
}

/// The kernel's work, by a thread that lives.
pub struct Kernel {
    host: Host,
    idle: Mutex<Vec<Maker>>,
    removers: Removers,
    spent: Spent,
}

impl Kernel {
    pub fn new(name: &str) -> Kernel {
        let host = Host::new(name);
        let removers = Removers::on(&host);
        removers.have(REMOVERS);
        Kernel { host, idle: Mutex::default(), spent: removers.spent.clone(), removers }
    }
}

impl Contestant for Kernel {
    fn name(&self) -> &str {
        "floor: kernel"
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn call(&self, verb: Verb, pod: &Pod) -> Duration {
        let link = Link::of(pod.number);
        match verb {
            Verb::Add => {
                let idle = self.idle.lock().expect("no panic").pop();
                let maker = idle.unwrap_or_else(Maker::here);
                let began = Instant::now();
                maker.add(&link, &pod.path);
                let took = began.elapsed();
                self.idle.lock().expect("no panic").push(maker);
                took
            }
            Verb::Del => {
                let socket = Socket::listening();
                let began = Instant::now();
                self.removers.start(link.index);
                let mut gone = false;
                while !gone {
                    socket.hear(|index| gone |= index == link.index);
                }
                began.elapsed()
            }
        }
    }

    fn resident(&self) -> Duration {
        self.spent.total()
    }
}

fn socket(name: &str) -> PathBuf {
    format!("/run/{}.sock", unique(name)).into()
}

/// Calls the program, with the verb and the pod in the first line of what it passes on.
fn ask(program: &Path, socket: &Path, verb: Verb, pod: &Pod) -> Duration {
    let mut input = format!("{} {} {}\n", verb.name(), pod.number, pod.path).into_bytes();
    input.resize(SIZE, b' ');
    let mut command = Command::new(program);
    command.env_clear().arg(socket);
    call(&mut command, &input).0
}
