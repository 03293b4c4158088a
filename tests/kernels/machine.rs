//! The machine's side: the first process of a kernel that has nothing else, which makes a host out of it and tells the stories.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::system::{RebootCommand, finit_module, reboot};

use crate::ip::Ip;
use crate::{node, stories};

/// A way to boot a kernel.
pub struct Boot {
    /// What is added to its name, for people.
    pub called: &'static str,
    /// Parameters of the kernel.
    pub parameters: &'static str,
    /// It has IPv6.
    pub ipv6: bool,
}

pub const BOOTS: [Boot; 2] = [
    Boot { called: "", parameters: "ipv6.disable=0", ipv6: true },
    Boot { called: " without IPv6", parameters: "ipv6.disable=1", ipv6: false },
];

/// What stands before a word of the machine to the host, so that no line of the kernel or of flock is taken for one.
pub const SAYS: &str = "@kernels@ ";

/// Addresses of the host itself, outside the pods' ranges.
pub const HOST6: &str = "2001:db8:0:1::1";
pub const HOST4: &str = "10.1.0.1";

/// Tells the stories of this boot, and ends the machine.
pub fn run() -> ExitCode {
    mount_all();
    let parameters = fs::read_to_string("/proc/cmdline").expect("readable");
    let boot = BOOTS.iter().find(|boot| parameters.contains(boot.parameters)).expect("one of the boots");
    for (name, story) in stories::of(boot) {
        // The lines of one story, and not of those before it, belong to its failure.
        node::forget_log();
        let began = Instant::now();
        let told = catch_unwind(AssertUnwindSafe(|| {
            tidy_up();
            story();
        }));
        let ms = began.elapsed().as_millis();
        match told {
            Ok(()) => println!("{SAYS}ok {name} {ms} ms"),
            Err(_) => {
                println!("log of the agent:\n{}", node::log());
                println!("{SAYS}FAILED {name} {ms} ms");
            }
        }
    }
    println!("{SAYS}end");
    reboot(RebootCommand::PowerOff).expect("powered off");
    ExitCode::SUCCESS
}

fn mount_all() {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        mount(kind, at, kind, MountFlags::empty(), None::<&CStr>).unwrap_or_else(|error| panic!("mount {at}: {error}"));
    }
}

/// A module, as the archive's list has it.
struct Module {
    name: String,
    depends: Vec<String>,
    aliases: Vec<String>,
}

fn modules() -> Vec<Module> {
    let text = fs::read_to_string("/lib/modules").expect("it is in the archive");
    let module = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next()?;
        let depends = words.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Module { name, depends, aliases: words.collect() })
    };
    text.lines().filter_map(module).collect()
}

/// Whether a module is loaded, or built in with a parameter.
pub fn is_loaded(module: &str) -> bool {
    fs::exists(format!("/sys/module/{module}")).expect("readable")
}

/// Loads a module with those that it depends on, unless it is loaded.
pub fn load(module: &str) {
    load_of(&modules(), module);
}

fn load_of(all: &[Module], name: &str) {
    if is_loaded(name) {
        return;
    }
    let module = all.iter().find(|module| module.name == name).unwrap_or_else(|| panic!("there is no module {name}"));
    module.depends.iter().for_each(|other| load_of(all, other));
    let file = fs::File::open(format!("/lib/{name}.ko")).expect("it is in the archive");
    match finit_module(&file, c"", 0) {
        // Somebody else was faster.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => panic!("module {name}: {error}"),
    }
}

/// From now on the kernel loads by itself what it needs, as it does on every common host.
pub fn let_kernel_load() {
    fs::write("/proc/sys/kernel/modprobe", "/init").expect("written");
}

/// What the kernel runs for a module that it needs, by one of its names.
pub fn modprobe(asked: &str) -> ExitCode {
    let plain = |name: &str| name.replace('-', "_");
    let all = modules();
    let is_it =
        |module: &&Module| [&module.name].into_iter().chain(&module.aliases).any(|name| plain(name) == plain(asked));
    match all.iter().find(is_it) {
        Some(module) => {
            load_of(&all, &module.name);
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

/// Makes the machine a host as it is after its start, whatever the story before left: one address per family on an uplink, and
/// no pod.
fn tidy_up() {
    load("dummy");
    let mut ip = Ip::new();
    for link in links().into_iter().filter(|link| link != "lo") {
        ip.delete(&link);
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten() {
        let path = entry.expect("readable").path();
        unmount(&path, UnmountFlags::DETACH).ok();
        fs::remove_file(path).expect("removed");
    }
    fs::create_dir_all("/run/netns").expect("made");
    for path in ["/run/flock", "/run/failpoints", "/run/failpoints.trace"] {
        fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)).ok();
    }
    ip.delete_unreachable();
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{key}"), "0").ok();
    }
    ip.up("lo");
    ip.add_dummy("up0");
    for address in [HOST6, HOST4].iter().map(|ip| ip.parse().expect("an address")) {
        ip.add_address("up0", address);
    }
    ip.up("up0");
}

/// The names of the links of this host.
pub fn links() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").expect("readable");
    // Some kernels have a file of bonds beside the links.
    entries
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .filter(|name| name != "bonding_masters")
        .collect()
}

/// The kernel has IPv6.
pub fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").expect("readable")
}
