//! `flock-agent diag`: what a report about a defect needs, in one archive, without secrets.
//!
//! Each part is named here, and of what others write only the fields that are named here are taken: nothing is copied whole and
//! cleaned afterwards. A part that cannot be had is a line in `missing.txt` and stops no other. Must not judge, nor look at
//! anything that is not flock's beyond what `check` looks at.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};

use crate::agent::fault::{Fault, Step};
use crate::install::runtime;
use crate::install::tree::Tree;
use crate::install::{defaults::DEFAULTS, runtime::places::Runtime};
use crate::kernel::nftables::socket::Nftables;
use crate::kernel::sysctl;
use crate::operator::ask::VERSION;
use crate::operator::check::scene::{Scene, SceneError};
use crate::operator::check::{self, AgentFiles, firewall, iptables};
use crate::operator::record::Recorded;
use crate::operator::tar::Archive;
use crate::operator::{Told, metrics, pods, status, table};
use crate::process::dates;
use crate::process::exit::Exit;
use crate::process::foreign_file;
use crate::process::program::{self, RunLimits};
use crate::process::shutdown::Stop;
use crate::record::replacement::Replacement;
use crate::record::store::LOG;
use model::excerpt::{Excerpt, plain};
use model::plan;

/// Longest part, 4 MiB.
const PART_MAX: usize = 4 << 20;

/// Longest file that is read for a part, 64 MiB, which is that of the record.
const FILE_MAX: u64 = 64 << 20;

/// Longest file of others that is read, 1 MiB.
const FOREIGN_MAX: u64 = 1 << 20;

/// Limits of a program that is run.
const LIMITS: RunLimits = RunLimits { time: Duration::from_secs(10), output: PART_MAX };

/// Deadline for the kernel's answers, 10 s.
const KERNEL_LIMIT: Duration = Duration::from_secs(10);

/// Lines of the log.
const LOG_LINES: &str = "2000";

/// Most names of a directory.
const NAMES_MAX: usize = 200;

/// Longest name of others, in bytes.
const NAME_MAX: usize = 255;

/// Settings that decide whether pods' packets get anywhere.
const SETTINGS: [&str; 16] = [
    "ipv4/ip_forward",
    "ipv4/conf/all/forwarding",
    "ipv4/conf/all/rp_filter",
    "ipv4/conf/default/rp_filter",
    "ipv4/conf/all/arp_ignore",
    "ipv4/fib_multipath_hash_policy",
    "ipv4/neigh/default/gc_thresh3",
    "ipv6/conf/all/disable_ipv6",
    "ipv6/conf/default/disable_ipv6",
    "ipv6/conf/all/forwarding",
    "ipv6/conf/all/accept_ra",
    "ipv6/conf/default/accept_ra",
    "ipv6/fib_multipath_hash_policy",
    "ipv6/neigh/default/gc_thresh3",
    "ipv6/route/max_size",
    "netfilter/nf_conntrack_max",
];

/// Settings of each link that packets leave by.
const UPLINK_SETTINGS: [&str; 6] = [
    "ipv4/conf/@/rp_filter",
    "ipv4/conf/@/forwarding",
    "ipv6/conf/@/forwarding",
    "ipv6/conf/@/accept_ra",
    "ipv6/conf/@/proxy_ndp",
    "ipv6/conf/@/disable_ipv6",
];

/// What of a process its status tells.
const PROCESS: [&str; 6] = ["Name", "State", "VmSize", "VmHWM", "VmRSS", "Threads"];

/// What of a system its own description tells.
const SYSTEM: [&str; 5] = ["PRETTY_NAME", "ID", "VERSION_ID", "VARIANT_ID", "BUILD_ID"];

/// Keys of a CNI configuration whose values are taken, and of one of its plugins.
const LIST_KEYS: [&str; 5] = ["cniVersion", "cniVersions", "name", "disableCheck", "loadOnlyInlinedPlugins"];
const PLUGIN_KEYS: [&str; 3] = ["type", "capabilities", "socket"];

/// Where the archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Into the current directory, with a name that says node and time.
    Here,
    /// Into this file.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where it goes.
    pub into: Place,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Where the agent keeps its record; none for where its flags say.
    pub state_dir: Option<PathBuf>,
    /// Tells from the words of an agent's command line which files of others it uses.
    pub read_flags: fn(Vec<OsString>) -> Option<AgentFiles>,
    /// Tells from these words which flags are in force; none if they are no command line of an agent.
    pub shown_flags: fn(Vec<OsString>) -> Option<String>,
}

/// Collects, and writes what is not for standard output, which comes back.
pub fn run(order: &Order) -> (Told, Vec<u8>) {
    if !rustix::process::geteuid().is_root() {
        let why = "the agent answers root only, and what it records is root's: sudo flock-agent diag";
        return (Told::failed(Exit::Denied, why), Vec::new());
    }
    let node = hostname();
    let now = SystemTime::now();
    let (archive, missing) = collected(order, now);
    let size = format!("{} KiB", archive.len().div_ceil(1024));
    let told = |exit, text, said: String| {
        let more = (missing > 0).then(|| format!("{missing} parts are missing; missing.txt in it says which and why"));
        Told { exit, text, asides: [said].into_iter().filter(|said| !said.is_empty()).chain(more).collect() }
    };
    let look = "look through it before you attach it: names of pods and addresses are in it";
    let file = match &order.into {
        Place::Stdout => return (told(Exit::Done, String::new(), format!("{size} written; {look}")), archive),
        Place::Here => PathBuf::from(format!("flock-diag-{node}-{}.tar", stamp(now))),
        Place::File(file) => file.clone(),
    };
    let told = match write(&file, &archive) {
        Ok(()) => told(Exit::Done, format!("{}: {size}\n{look}\n", file.display()), String::new()),
        Err(why) => Told::failed(Exit::Failed, format!("{} is not written: {why}", file.display())),
    };
    (told, Vec::new())
}

/// The whole archive, and how many parts are missing.
fn collected(order: &Order, now: SystemTime) -> (Vec<u8>, usize) {
    let mut diag = Diag { archive: Archive::new(dates::unix(now)), missing: Vec::new() };
    diag.part("version.txt", Ok(version(now)));
    let state_dir = check::files(&check_order(order)).state_dir;
    let status_order = |output| {
        let (socket, state_dir) = (order.socket.clone(), state_dir.clone());
        status::Order { output, wait: Duration::ZERO, strict: false, socket, state_dir }
    };
    diag.told("status.txt", status::run(&status_order(status::Output::Text)));
    diag.told("status.json", status::run(&status_order(status::Output::Json)));
    diag.told("metrics.txt", metrics::run(&order.socket));
    diag.told("pods.json", pods::run(&pods_order(order, &state_dir)));
    diag.told("check.json", check::run(&check_order(order)));
    diag.raw(LOG, foreign_file::read(&state_dir.join(LOG), FILE_MAX));

    let recorded = Recorded::read(&state_dir, &order.socket).map_err(|error| error.to_string());
    let process = recorded.map(|recorded| check::process(recorded.keeper));
    let process = process.and_then(|process| process.ok_or_else(|| "no agent is known to run".to_owned()));
    let words = process.as_deref().map(check::processes::arguments).unwrap_or_default();
    let not_read = || "these words are no flags of this version, so they are not shown".to_owned();
    let shown = |words: &[OsString]| (order.shown_flags)(words.to_vec()).ok_or_else(not_read);
    diag.part("agent-flags.txt", process.as_ref().map_err(Clone::clone).and_then(|_| shown(&words)));
    diag.part("agent-process.txt", process.as_ref().map_err(Clone::clone).and_then(|process| memory(process)));
    diag.part(
        "default-flock-agent.txt",
        check::unit_flags().map_err(|error| format!("{DEFAULTS}: {error}")).and_then(|words| shown(&words)),
    );
    diag.part("log.txt", journal());

    let runtimes = Tree::open(Path::new("/")).map(|tree| runtime::all(&tree)).unwrap_or_default();
    let written = (order.read_flags)(words).and_then(|files| files.cni_conf_dir);
    diag.part("runtimes.txt", Ok(runtimes.iter().map(told_runtime).collect()));
    diag.part("cni.txt", Ok(configurations(&runtimes, written)));

    let deadline = Instant::now() + KERNEL_LIMIT;
    let scene = Scene::look(&state_dir, &order.socket, &[], deadline).map_err(|error| match error {
        SceneError::Record(error) => error.to_string(),
        SceneError::Kernel(cause) => Fault { step: Step::Compare, cause }.to_string(),
    });
    let uplinks = scene.iter().flat_map(|scene| &scene.uplinks).map(|link| link.name.clone()).collect::<Vec<_>>();
    diag.part("network.txt", scene.map(|scene| network(&scene)));
    diag.part("sysctls.txt", Ok(settings(&uplinks)));
    for (name, key) in
        ["nft-flock.txt", "nft-arp.txt", "nft-masquerade4.txt", "nft-masquerade6.txt"].iter().zip(firewall::OWN)
    {
        diag.part(
            name,
            list(
                &key.to_string(),
                Nftables::open()
                    .and_then(|mut nft| nft.read(key, deadline).map(|shown| shown.is_some()))
                    .map_err(|error| error.to_string()),
            ),
        );
    }
    let missing = diag.missing.len();
    if missing > 0 {
        let lines = diag.missing.join("\n") + "\n";
        diag.archive.put("flock-diag/missing.txt", lines.as_bytes());
    }
    (diag.archive.whole(), missing)
}

/// An archive that is being collected.
struct Diag {
    archive: Archive,
    /// What is not in it, and why, a line each.
    missing: Vec<String>,
}

impl Diag {
    fn part(&mut self, name: &str, text: Result<String, String>) {
        match text {
            Ok(text) => self.put(name, plain(&text).as_bytes()),
            Err(why) => self.lacks(name, &why),
        }
    }

    fn raw(&mut self, name: &str, bytes: io::Result<Vec<u8>>) {
        match bytes {
            Ok(bytes) => self.put(name, &bytes),
            Err(error) => self.lacks(name, &error.to_string()),
        }
    }

    /// What another verb has to say.
    fn told(&mut self, name: &str, told: Told) {
        for aside in &told.asides {
            self.lacks(name, aside);
        }
        if !told.text.is_empty() {
            self.put(name, plain(&told.text).as_bytes());
        } else if told.asides.is_empty() {
            self.lacks(name, "it says nothing");
        }
    }

    fn lacks(&mut self, name: &str, why: &str) {
        self.missing.push(format!("{name}: {}", Excerpt::line(plain(why).as_ref(), 1024)));
    }

    fn put(&mut self, name: &str, content: &[u8]) {
        let name = format!("flock-diag/{name}");
        match content.get(..PART_MAX) {
            Some(first) if content.len() > PART_MAX => {
                let end = format!("\n[cut here: {} bytes in all]\n", content.len());
                self.archive.put(&name, &[first, end.as_bytes()].concat());
            }
            _ => self.archive.put(&name, content),
        }
    }
}

fn pods_order(order: &Order, state_dir: &Path) -> pods::Order {
    let (socket, state_dir) = (order.socket.clone(), state_dir.to_owned());
    pods::Order { namespace: None, output: pods::Output::Json, heads: table::Heads::Shown, state_dir, socket }
}

fn check_order(order: &Order) -> check::Order {
    let (socket, state_dir) = (order.socket.clone(), order.state_dir.clone());
    check::Order { repair: false, json: true, socket, state_dir, kubeconfig: None, read_flags: order.read_flags }
}

/// This program, the kernel and the system.
fn version(now: SystemTime) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!("flock-agent {VERSION} {}\n", std::env::consts::ARCH);
    text += &format!("collected {}\nnode {}\nkernel {}\n", dates::timestamp(now), hostname(), kernel.trim());
    let system = foreign_file::read(Path::new("/etc/os-release"), FOREIGN_MAX).unwrap_or_default();
    text + &named(&String::from_utf8_lossy(&system), '=', &SYSTEM)
}

/// The lines of a text that begin with one of these names.
fn named(text: &str, end: char, names: &[&str]) -> String {
    let known = |line: &&str| line.split_once(end).is_some_and(|(name, _)| names.contains(&name));
    text.lines().filter(known).map(|line| format!("{line}\n")).collect()
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fits = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_');
    name.trim().to_lowercase().chars().filter(fits).take(64).collect()
}

/// A point of time as a part of a name.
fn stamp(now: SystemTime) -> String {
    let time = dates::timestamp(now);
    time.split('.').next().unwrap_or_default().replace(['-', ':'], "") + "Z"
}

/// What the agent's process takes.
fn memory(process: &Path) -> Result<String, String> {
    let status = fs::read_to_string(process.join("status")).map_err(|error| error.to_string())?;
    let open = fs::read_dir(process.join("fd")).map(Iterator::count);
    let open = open.map_or_else(|error| format!("not known: {error}"), |count| count.to_string());
    Ok(named(&status, ':', &PROCESS) + &format!("open files: {open}\n"))
}

/// The end of the log of the unit.
fn journal() -> Result<String, String> {
    let unit = ["--unit=flock-agent.service", "--no-pager", "--quiet", "--output=short-iso", "--lines", LOG_LINES];
    let text = printed("journalctl", &unit)?;
    if text.is_empty() { Err("the journal has nothing of flock-agent.service".into()) } else { Ok(text) }
}

/// What a program of the host prints.
fn printed(program: &str, arguments: &[&str]) -> Result<String, String> {
    let path = iptables::DIRS.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.exists());
    let path = path.ok_or_else(|| format!("{program} is not installed"))?;
    let said = program::output(
        &path,
        |run| {
            run.args(arguments).stderr(Stdio::null());
        },
        b"",
        LIMITS,
        &Stop::default(),
    );
    said.map(|text| String::from_utf8_lossy(&text).into_owned()).map_err(|error| format!("{} {error}", path.display()))
}

/// One of flock's tables as `nft` lists it.
fn list(key: &str, there: Result<bool, String>) -> Result<String, String> {
    match there {
        Ok(true) => printed("nft", &["list", key]).map_err(|why| format!("the kernel has {key}, and {why}")),
        Ok(false) => Err(format!("the kernel has no {key}")),
        Err(why) => Err(why),
    }
}

fn told_runtime(runtime: &Runtime) -> String {
    let Runtime { kind, plugin_dirs, conf_dir, source, remark } = runtime;
    let dirs: Vec<String> = plugin_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let remark = remark.as_ref().map(|remark| format!("  {remark}\n")).unwrap_or_default();
    format!("{kind} ({source})\n  plugins: {}\n  configuration: {}\n{remark}", dirs.join(", "), conf_dir.display())
}

/// What stands in the directories of configurations: of a file that names flock what is known of it, of others the name.
fn configurations(runtimes: &[Runtime], written: Option<PathBuf>) -> String {
    let mut dirs: Vec<PathBuf> = runtimes.iter().map(|runtime| runtime.conf_dir.clone()).chain(written).collect();
    dirs.push("/etc/cni/net.d".into());
    dirs.sort();
    dirs.dedup();
    let mut text = String::new();
    for dir in dirs {
        text += &format!("{}:\n", dir.display());
        let mut names: Vec<OsString> = match fs::read_dir(&dir) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).take(NAMES_MAX).collect(),
            Err(error) => {
                text += &format!("  not read: {error}\n");
                continue;
            }
        };
        names.sort();
        for name in names {
            text += &format!("  {}\n", Excerpt::line(&name.to_string_lossy(), NAME_MAX));
            text += &configuration(&dir, &name).unwrap_or_default();
        }
    }
    text
}

/// The known keys of a configuration that names flock, and only the names of the others.
fn configuration(dir: &Path, name: &OsStr) -> Option<String> {
    let text = foreign_file::read(&dir.join(name), FOREIGN_MAX).ok()?;
    let text = String::from_utf8_lossy(&text);
    if !cni::conflist::names_flock(&text) {
        return None;
    }
    let all: Value = serde_json::from_str(&text).ok()?;
    let mut shown = known(&all, &LIST_KEYS);
    let plugins = all.get("plugins").and_then(Value::as_array).into_iter().flatten();
    let plugins: Vec<Value> = plugins.map(|plugin| Value::Object(known(plugin, &PLUGIN_KEYS))).collect();
    shown.insert("plugins".into(), Value::Array(plugins));
    Some(format!("{:#}\n", Value::Object(shown)))
}

fn known(object: &Value, keys: &[&str]) -> Map<String, Value> {
    let mut shown = Map::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        let value = if keys.contains(&key.as_str()) { value.clone() } else { "(not shown)".into() };
        shown.insert(key.clone(), value);
    }
    shown
}

/// Flock's links and routes, and the names of the links that packets leave by.
fn network(scene: &Scene) -> String {
    let mut text = String::new();
    let listed = |words: Vec<String>| if words.is_empty() { "-".into() } else { words.join(",") };
    for prefix in &scene.prefixes {
        writeln!(text, "range {prefix}").ok();
    }
    for link in &scene.uplinks {
        writeln!(text, "uplink {} index {} mtu {}", link.name, link.index, link.mtu).ok();
    }
    let ours = |alias: &Option<String>| alias.as_deref().is_some_and(|text| plan::attachment_of_alias(text).is_some());
    for link in scene.pairs.iter().filter(|link| ours(&link.alias)) {
        let state = if link.up { "up" } else { "down" };
        let carrier = if link.carrier { "carrier" } else { "no-carrier" };
        write!(text, "link {} index {} mtu {} {state} {carrier}", link.name, link.index, link.mtu).ok();
        let routes = link.routes.iter().map(|(to, via)| match via {
            Some(via) => format!("{to}>{via}"),
            None => to.to_string(),
        });
        writeln!(
            text,
            " alias {} addresses {} routes {} neighbours {} shared {}",
            link.alias.as_deref().unwrap_or("-"),
            listed(link.addresses.iter().map(ToString::to_string).collect()),
            listed(routes.collect()),
            listed(link.neighbours.iter().map(|(ip, mac)| format!("{ip}={mac}")).collect()),
            listed(link.shared.iter().map(ToString::to_string).collect()),
        )
        .ok();
    }
    for (key, way) in &scene.routes.routes {
        writeln!(text, "route {} table {} metric {} {way:?}", key.to, key.table, key.metric).ok();
    }
    for (id, nexthop) in &scene.routes.nexthops {
        writeln!(text, "nexthop {id} {nexthop:?}").ok();
    }
    for (id, group) in &scene.routes.groups {
        writeln!(text, "group {id} {group:?}").ok();
    }
    text
}

fn settings(uplinks: &[String]) -> String {
    let of_uplinks = uplinks.iter().flat_map(|link| UPLINK_SETTINGS.map(|key| key.replace('@', link)));
    let value = |key: &str| match sysctl::get(key) {
        Ok(Some(value)) => value,
        Ok(None) => "(this kernel has no such setting)".into(),
        Err(error) => format!("(not read: {})", error.error),
    };
    let keys = SETTINGS.map(str::to_owned).into_iter().chain(of_uplinks);
    keys.map(|key| format!("net/{key} = {}\n", value(&key))).collect()
}

/// Gives the file this content at once. What stands there and is no file stays.
fn write(file: &Path, content: &[u8]) -> Result<(), String> {
    match fs::symlink_metadata(file) {
        Ok(found) if !found.is_file() => return Err("something else than a file stands there".into()),
        _ => {}
    }
    let name = file.file_name().ok_or("it has no name")?;
    let above = file.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error| plain(&foreign_file::explained(file, error).to_string()).into_owned();
    let dir = File::open(above).map_err(failed)?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(".new");
    let replacement = Replacement { dir: dir.as_fd(), name, beside: &beside, mode: 0o600 };
    replacement.write(content).map_err(failed)
}
