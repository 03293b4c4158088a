//! The host that flock is taken from: which pods are attached, whether the agent runs, and what of flock is in the kernel.
//!
//! Asks the lease log, the delete notes and the kernel. Must not remove anything but what the plan names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::fs::{FlockOperation, flock};

use crate::install::plan::{ANNOUNCE_SERVICE, BIRD_SERVICE, ENABLED_BIRD, Host, RUN_DIR};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::netlink::conn::Conn;
use crate::kernel::nftables::NftError;
use crate::kernel::nftables::socket::Nftables;
use crate::kernel::sysctl;
use crate::record::boot_clock;
use crate::record::disk::{Directory, DiskError, open_lockable_dir};
use crate::record::notes::Notes;
use crate::record::store::Store;
use model::addr::{Attachment, LinkEnd};
use model::guard::{ARP, FILTER};
use model::lease::PodName;
use model::masquerade::{MASQUERADE4, MASQUERADE6};
use model::plan;
use model::routes::{self, Routes};
use model::ruleset::TableKey;
use model::ruleset::diff::Change;

/// Deadline for one look at the kernel or one change of it, 10 s.
const KERNEL_LIMIT: Duration = Duration::from_secs(10);

/// Every table that an agent makes.
const TABLES: [TableKey; 4] = [FILTER, ARP, MASQUERADE4, MASQUERADE6];

/// Why the host could not be read or changed.
#[derive(Debug)]
pub enum HostError {
    /// A file or directory could not be read or made.
    Disk(DiskError),
    /// The kernel could not be asked, or refused.
    Netlink(NetlinkError),
    /// The packet filter could not be asked, or refused.
    Nftables(NftError),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Disk(error) => write!(f, "{error}"),
            HostError::Netlink(error) => write!(f, "{error}"),
            HostError::Nftables(error) => write!(f, "{error}"),
        }
    }
}

impl From<DiskError> for HostError {
    fn from(error: DiskError) -> HostError {
        HostError::Disk(error)
    }
}

impl From<NftError> for HostError {
    fn from(error: NftError) -> HostError {
        HostError::Nftables(error)
    }
}

impl From<NetlinkError> for HostError {
    fn from(error: NetlinkError) -> HostError {
        HostError::Netlink(error)
    }
}

/// What a look at the host has found.
#[derive(Debug)]
pub struct Seen {
    /// For the plan.
    pub facts: Host,
    /// While it is held, no agent starts.
    pub lock: Option<Lock>,
}

/// The lock that an agent holds while it runs. Directories that were made for it go with it.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
    /// Directories that are there for the lock only, the innermost first.
    made: Vec<PathBuf>,
}

impl Lock {
    /// The lock in a state directory, which is made where it is missing: an agent that starts would make it, too. None if an agent
    /// has it.
    fn take(state_dir: &Path) -> Result<Option<Lock>, DiskError> {
        let missing = state_dir.ancestors().take_while(|dir| fs::symlink_metadata(dir).is_err());
        let made: Vec<PathBuf> = missing.map(Path::to_path_buf).collect();
        let is_there = made.is_empty();
        // From here on, dropping the lock removes the directories that were made for it.
        let mut lock = Lock { file: None, made };
        let file = if is_there {
            File::open(state_dir).map_err(|error| disk("open", state_dir, error))?
        } else {
            open_lockable_dir(state_dir)?
        };
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        lock.file = Some(file);
        Ok(taken.then_some(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A directory that is not empty is somebody's by now, and stays.
        self.made.iter().try_for_each(fs::remove_dir).ok();
    }
}

/// Looks at the host whose agent has, or had, this socket and this state directory. Changes nothing but for `lock`: without it, as
/// when nothing is going to be done, a state directory that is missing stays so and nothing keeps agents from starting.
///
/// # Errors
/// Something could not be asked; it must not be taken for an empty host.
pub fn look(socket: &Path, state_dir: &Path, lock: bool) -> Result<Seen, HostError> {
    let mut facts =
        Host { running: is_listened_to(socket)?, run_dir: is_directory(Path::new(RUN_DIR)), ..Host::default() };
    let enabled = ENABLED_BIRD.into_iter().any(|link| fs::symlink_metadata(link).is_ok());
    facts.speaking = enabled || [BIRD_SERVICE, ANNOUNCE_SERVICE].into_iter().any(is_up);
    let (mut attached, mut made) = (BTreeMap::new(), BTreeMap::new());
    let has_state = is_directory(state_dir);
    let taken = if has_state || lock { Lock::take(state_dir) } else { Ok(None) };
    let lock = match taken {
        Ok(taken) => taken,
        Err(error) if has_state => return Err(error.into()),
        // Where no state directory can be, no agent can start.
        Err(_) => None,
    };
    if has_state {
        facts.running |= lock.is_none();
        let boot_id =
            boot_clock::id().map_err(|error| disk("read", Path::new("/proc/sys/kernel/random/boot_id"), error))?;
        let (store, _) = Store::open(Directory::open(state_dir)?, &boot_id, boot_clock::now_ms());
        attached.extend(store.leases().map(|lease| (lease.attachment.clone(), lease.pod.clone())));
        made.extend(store.leases().map(|lease| (lease.attachment.clone(), lease.since)));
        if !state_dir.starts_with(RUN_DIR) {
            facts.left.push(format!("{}: the state, in a place of your own", state_dir.display()));
        }
    }
    // A note means what stood when it was written: an attachment that was made later is alive.
    let noted: BTreeSet<Attachment> = Notes::beside(socket)
        .noted()?
        .into_iter()
        .filter(|note| made.get(&note.attachment).is_none_or(|since| *since <= note.at))
        .map(|note| note.attachment)
        .collect();
    let mut conn = Conn::open(Instant::now() + KERNEL_LIMIT)?;
    for link in conn.pairs()? {
        let Some(attachment) = link.alias.as_deref().and_then(plan::attachment_of_alias) else { continue };
        if link.mac != Some(attachment.mac(LinkEnd::Host)) {
            continue;
        }
        if noted.contains(&attachment) {
            facts.deleted.push((link.index, link.name));
        } else {
            attached.entry(attachment).or_default();
        }
    }
    // Their DELs were answered with success, so the runtime does not repeat them.
    attached.retain(|attachment, _| !noted.contains(attachment));
    facts.attached = attached.iter().map(|(attachment, pod)| named(attachment, pod.as_ref())).collect();
    facts.routes = routes::steps(&Routes::default(), &conn.shown_routes()?);
    facts.unreachable =
        conn.own_routes()?.into_iter().filter(|route| route.unreachable).map(|route| route.to).collect();
    facts.tables = tables()?;
    if facts.run_dir {
        facts.left.extend(settings(&mut conn)?);
    }
    Ok(Seen { facts, lock })
}

/// An attachment in the words of who has to drain the node.
fn named(attachment: &Attachment, pod: Option<&PodName>) -> String {
    match pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => format!("container {}", attachment.container_id),
    }
}

/// Removes a link of the host.
///
/// # Errors
/// The kernel refused.
pub fn remove_link(index: u32) -> Result<(), HostError> {
    Ok(Conn::open(Instant::now() + KERNEL_LIMIT)?.delete_link(index)?)
}

/// Carries out one step of the removal of the node's routes.
///
/// # Errors
/// The kernel refused.
pub fn change_route(step: &routes::Step) -> Result<(), HostError> {
    let outcome = Conn::open(Instant::now() + KERNEL_LIMIT)?.carry_out(std::slice::from_ref(step));
    Ok(outcome.into_iter().collect::<Result<(), _>>()?)
}

/// Removes the unreachable route of a prefix.
///
/// # Errors
/// The kernel refused.
pub fn remove_unreachable(prefix: IpNet) -> Result<(), HostError> {
    Ok(Conn::open(Instant::now() + KERNEL_LIMIT)?.delete_unreachable(prefix)?)
}

/// The tables that stand. A kernel without nf_tables has none.
fn tables() -> Result<Vec<TableKey>, NftError> {
    let deadline = Instant::now() + KERNEL_LIMIT;
    let look = || {
        let mut nft = Nftables::open()?;
        let mut found = Vec::new();
        for key in TABLES {
            found.extend(nft.read(key, deadline)?.map(|_| key));
        }
        Ok(found)
    };
    match look() {
        Err(error) if NftError::is_absent(&error) => Ok(Vec::new()),
        found => found,
    }
}

/// Removes a table of the packet filter with all that is in it.
///
/// # Errors
/// The kernel refused.
pub fn remove_table(key: TableKey) -> Result<(), HostError> {
    match Nftables::open()?.apply(&[Change::RemoveTable(key)], Instant::now() + KERNEL_LIMIT) {
        Err(error) if !error.is_gone() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The settings that flock makes, where they are as it makes them. Nobody knows what they were before, and others may rely on
/// them by now.
fn settings(conn: &mut Conn) -> Result<Vec<String>, HostError> {
    let mut keys = vec![("ipv4/ip_forward".to_owned(), "1"), ("ipv6/conf/all/forwarding".to_owned(), "1")];
    keys.extend(["ipv4", "ipv6"].map(|family| (format!("{family}/fib_multipath_hash_policy"), "1")));
    keys.extend(conn.links()?.into_iter().map(|link| (format!("ipv6/conf/{}/accept_ra", link.name), "2")));
    keys.retain(|(key, value)| matches!(sysctl::get(key), Ok(Some(present)) if present == *value));
    let left = keys.into_iter().map(|(key, value)| format!("sysctl net/{key}={value}: others may rely on it"));
    Ok(left.collect())
}

/// Whether anybody listens at `socket`: the agent, or systemd on its behalf. Without a call, which would start the agent.
fn is_listened_to(socket: &Path) -> Result<bool, DiskError> {
    let table = Path::new("/proc/self/net/unix");
    let text = fs::read_to_string(table).map_err(|error| disk("read", table, error))?;
    let listens = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.get(3) == Some(&"00010000") && words.last().is_some_and(|path| Path::new(path) == socket)
    };
    Ok(text.lines().any(listens))
}

/// Whether systemd has this unit up. It keeps a link for each such unit, for its journal; not for one that waits for its restart.
pub fn is_up(unit: &str) -> bool {
    let name = Path::new(unit).file_name().unwrap_or_default();
    let mut link = OsString::from("/run/systemd/units/invocation:");
    link.push(name);
    fs::symlink_metadata(link).is_ok()
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn disk(operation: &'static str, path: &Path, error: io::Error) -> DiskError {
    DiskError { operation, path: path.into(), error }
}
