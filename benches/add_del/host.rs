//! Network namespaces: a host for each contestant, and pods. All of them end with the benchmark, whose processes and mounts are in
//! namespaces of their own (`tests/sandbox`).

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A host, by its network alone.
#[derive(Clone)]
pub struct Host {
    namespace: Arc<File>,
}

impl Host {
    /// A host with an address of each family and nothing else.
    pub fn new(name: &str) -> Host {
        let path = make(&unique(name));
        let host = Host { namespace: Arc::new(File::open(path).expect("a namespace")) };
        host.inside(|| {
            run("ip link set lo up");
            run("ip addr add 2001:db8:0:1::1/128 dev lo");
            run("ip addr add 10.1.0.1/32 dev lo");
            // As an agent makes it. Links that are made from now on have it.
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{key}"), "1").expect("a setting");
            }
        });
        host
    }

    /// Gives it a link to a network, `lan0`, on which nobody is.
    pub fn with_lan(self) -> Host {
        self.inside(|| {
            run("ip link add lan0 type veth peer name lan1");
            run("ip link set lan1 up");
            run("ip link set lan0 up");
        });
        self
    }

    /// The calling thread, and what it starts, is on this host from now on.
    pub fn enter(&self) {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
    }

    /// On a thread that is on this host.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().expect("no panic")
        })
    }
}

/// A pod's namespace. It ends with this value.
pub struct Pod {
    /// As no other pod has it.
    pub number: u32,
    pub path: String,
}

/// The number of the next pod, or of whatever else needs a name of its own.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// This name, fit for a file, and a number.
pub fn unique(name: &str) -> String {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{letters}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Pod {
    pub fn new() -> Pod {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Pod { number, path: make(&format!("pod-{number}")) }
    }

    pub fn some(count: usize) -> Vec<Pod> {
        (0..count).map(|_| Pod::new()).collect()
    }

    pub fn container(&self) -> String {
        format!("{:064x}", self.number)
    }

    /// Its inside.
    pub fn inside(&self) -> Host {
        Host { namespace: Arc::new(File::open(&self.path).expect("a namespace")) }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        unmount(&self.path, UnmountFlags::DETACH).ok();
        fs::remove_file(&self.path).ok();
    }
}

/// A new namespace under this name, without duplicate address detection, which would have the others wait for a second.
fn make(name: &str) -> String {
    let path = format!("/run/netns/{name}");
    let new = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new namespace");
        for links in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{links}/accept_dad"), "0").expect("a setting");
        }
        File::create(&path).expect("a file");
        mount_bind("/proc/thread-self/ns/net", &path).expect("mounted");
    };
    thread::scope(|scope| scope.spawn(new).join().expect("no panic"));
    path
}

/// Runs a command line, split at blanks, which has to succeed, and returns what it printed.
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    let output = command.args(words).stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Directories of the benchmark's own, over those of the machine.
pub fn prepare() {
    run("mount -t tmpfs tmpfs /run");
    for directory in ["/run/netns", "/run/flock"] {
        fs::create_dir_all(Path::new(directory)).expect("made");
    }
}
