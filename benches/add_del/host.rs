//! Network namespaces: a host for each contestant, and pods. All of them end with the benchmark, whose processes and mounts are in
//! namespaces of their own (`tests/sandbox`).

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
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
        let path = make(name);
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

impl Pod {
    pub fn new(number: u32) -> Pod {
        Pod { number, path: make(&format!("pod{number}")) }
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
