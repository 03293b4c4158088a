//! The record of a node as an operator's verbs read it: leases, addresses that rest and delete notes, whether an agent runs or not.
//!
//! An agent may be writing meanwhile: the record is never locked, so that no agent is kept from its start, and the last line of
//! the log may be half a line. Must never write, nor tell what the kernel shows.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::process::foreign_file::open_regular;
use crate::record::boot_clock;
use crate::record::disk::{Disk, DiskError};
use crate::record::format::Freed;
use crate::record::notes::{Note, Notes};
use crate::record::store::{Finding, LOG, Store, Unusable};
use model::ipam::REST_MS;
use model::lease::Lease;

/// Longest log that is read, 64 MiB: several times what the agent lets it become.
const LOG_MAX: u64 = 64 << 20;

/// Where the kernel lists who has locked what.
const LOCKS: &str = "/proc/locks";

/// What the record says at one moment.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The leases, in the order of their attachments.
    pub leases: Vec<Lease>,
    /// The leases that ended lately, oldest first.
    pub freed: Vec<Freed>,
    /// The deletes that wait for an agent.
    pub notes: Vec<Note>,
    /// Whether an agent keeps it.
    pub keeper: Keeper,
    /// What an operator should know of it, a line each.
    pub remarks: Vec<String>,
    /// Why it is not known what pods have: the record is not here, or nothing that this program can read. None of one that is
    /// here, even if it holds nothing.
    pub unknown: Option<String>,
    /// When it was read, in milliseconds of the boot clock, by which leases and notes are dated.
    pub now: u64,
}

/// Whether an agent keeps the record, which shows by the lock that it has as long as it lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keeper {
    /// The process of this id.
    Agent(u32),
    /// None does: what the record says is what was in force when the last one ended.
    #[default]
    Nobody,
    /// The kernel does not say.
    Unknown,
}

/// Why there is nothing to tell.
#[derive(Debug)]
pub enum RecordError {
    /// This user may not read it.
    Denied(PathBuf),
    /// It cannot be read.
    Disk(DiskError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordError::Denied(path) => write!(f, "{} is for root only: sudo flock-agent …", path.display()),
            RecordError::Disk(error) => write!(f, "the record cannot be read: {error}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl From<DiskError> for RecordError {
    fn from(error: DiskError) -> RecordError {
        match error.error.kind() {
            io::ErrorKind::PermissionDenied => RecordError::Denied(error.path),
            _ => RecordError::Disk(error),
        }
    }
}

impl Recorded {
    /// Reads the record in `state_dir`, and the delete notes beside `socket`.
    ///
    /// # Errors
    /// There is one, and it cannot be read. That there is none is a remark.
    pub fn read(state_dir: &Path, socket: &Path) -> Result<Recorded, RecordError> {
        let failed = |operation, path: &Path, error| DiskError { operation, path: path.into(), error };
        let now = boot_clock::now_ms();
        let mut recorded = Recorded { now, ..Recorded::default() };
        match fs::metadata(state_dir) {
            Ok(directory) => {
                let boot = boot_clock::id()
                    .map_err(|error| failed("read", Path::new("/proc/sys/kernel/random/boot_id"), error))?;
                // Before the log: an agent that begins in between has changed nothing of it yet.
                recorded.keeper = keeper(&directory);
                recorded.take(Store::open(Looking(state_dir.into()), &boot, now))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => recorded.is_unknown(format!(
                "{} is missing: no agent has run since the boot, or it keeps its state elsewhere (--state-dir)",
                state_dir.display()
            )),
            Err(error) => return Err(failed("look at", state_dir, error).into()),
        }
        recorded.notes = Notes::beside(socket).noted()?;
        Ok(recorded)
    }

    fn take(&mut self, (store, findings): (Store<Looking>, Vec<Finding>)) -> Result<(), RecordError> {
        for finding in findings {
            match finding {
                // Both are as they should be: pods ended with their boot, and a line that is being written is nobody's yet.
                Finding::OtherBoot | Finding::TornTail => {}
                Finding::SetAside { why: Unusable::Unreadable(error), .. } => return Err(error.into()),
                Finding::SetAside { why: Unusable::Damaged { unreadable, misplaced }, .. } => self.remarks.push(format!(
                    "the record is damaged ({unreadable} lines are unreadable, {misplaced} misplaced): told is what no other line \
                     contradicts, and the next agent asks the kernel for the rest"
                )),
                Finding::SetAside { why: Unusable::Version(version), .. } => self.is_unknown(format!(
                    "the record is of format {version}, which another flock has written and this one cannot read: it is not told here"
                )),
            }
        }
        self.leases = store.leases().cloned().collect();
        self.leases.sort_by(|a, b| key(a).cmp(&key(b)));
        self.freed = store.freed().filter(|freed| self.rests_ms(freed) > 0).cloned().collect();
        Ok(())
    }

    fn is_unknown(&mut self, why: String) {
        self.remarks.push(why.clone());
        self.unknown = Some(why);
    }

    /// How long the addresses of a lease that has ended still rest, in milliseconds.
    pub fn rests_ms(&self, freed: &Freed) -> u64 {
        freed.at.min(self.now).saturating_add(REST_MS).saturating_sub(self.now)
    }

    /// Whether a delete note is about `lease`, and not about an earlier one of the same attachment.
    pub fn is_delete_noted(&self, lease: &Lease) -> bool {
        self.notes.iter().any(|note| note.attachment == lease.attachment && lease.since <= note.at)
    }
}

fn key(lease: &Lease) -> (&str, &str) {
    (lease.attachment.container_id.as_str(), lease.attachment.ifname.as_str())
}

/// Who has locked the state directory. Asking the kernel for its list locks nothing, unlike a try to take the lock.
fn keeper(directory: &Metadata) -> Keeper {
    match fs::read_to_string(LOCKS) {
        Ok(list) => holder(&list, directory.dev(), directory.ino()).map_or(Keeper::Nobody, Keeper::Agent),
        Err(_) => Keeper::Unknown,
    }
}

/// The process that has locked the file of this device and inode, by the kernel's list of locks.
fn holder(list: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let held = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // Number, kind, and so on. Who waits for a lock has an arrow behind the number.
        (words.nth(1)? == "FLOCK").then_some(())?;
        let (process, locked) = (words.nth(2)?, words.next()?);
        (locked == file).then(|| process.parse().ok()).flatten()
    });
    held.into_iter().next()
}

/// The directory of the record for whoever must not write there.
#[derive(Debug)]
struct Looking(PathBuf);

impl Looking {
    fn error(&self, operation: &'static str, name: &str, error: io::Error) -> DiskError {
        DiskError { operation, path: self.0.join(name), error }
    }

    fn read_only<T>(&self, operation: &'static str, name: &str) -> Result<T, DiskError> {
        Err(self.error(operation, name, io::ErrorKind::ReadOnlyFilesystem.into()))
    }

    fn bytes(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open_regular(&self.0.join(name), OFlags::NOFOLLOW)?.take(LOG_MAX + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > LOG_MAX {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {LOG_MAX} bytes"))),
            false => Ok(bytes),
        }
    }
}

impl Disk for Looking {
    fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, DiskError> {
        let read = match self.bytes(name) {
            // An agent that sets a log aside takes its name away for a moment, and then gives it to the fresh one: what was not
            // found by its first name has its last one by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != LOG => self.bytes(LOG),
            read => read,
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("read", name, error)),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, DiskError> {
        self.read_only("list", "")
    }

    fn append(&mut self, name: &str, _: &[u8]) -> Result<(), DiskError> {
        self.read_only("append to", name)
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        self.read_only("sync", name)
    }

    fn rename(&mut self, name: &str, _: &str) -> Result<(), DiskError> {
        self.read_only("rename", name)
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.read_only("remove", name)
    }

    fn is_lost(&mut self, _: &str) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::disk::Directory;
    use crate::record::examples;
    use crate::record::format::{Record, VERSION, encode};
    use crate::record::store::Change;
    use model::addr::Attachment;
    use model::lease::Phase;

    /// A state directory, and a place for a socket beside it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("flock-recorded-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("state")).expect("a directory");
            Place(path)
        }

        fn state(&self) -> PathBuf {
            self.0.join("state")
        }

        /// An agent's table there.
        fn store(&self) -> Store<Directory> {
            let boot = boot_clock::id().expect("a boot");
            Store::open(Directory::open(&self.state()).expect("a directory"), &boot, boot_clock::now_ms()).0
        }

        fn read(&self) -> Recorded {
            Recorded::read(&self.state(), &self.0.join("flock.sock")).expect("readable")
        }

        fn log(&self) -> PathBuf {
            self.state().join(LOG)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// A lease with an address of its own, which the first letter of its key gives it.
    fn lease(key: &str) -> Lease {
        let last = key.as_bytes()[0];
        Lease { ipv6: None, ipv4: Some([10, 0, 0, last].into()), ..examples::lease(key) }
    }

    fn keys(recorded: &Recorded) -> Vec<String> {
        recorded.leases.iter().map(|lease| lease.attachment.to_string()).collect()
    }

    #[test]
    fn what_an_agent_has_recorded_is_read_beside_it_and_nothing_is_written() {
        let place = Place::new("beside");
        assert_eq!((keys(&place.read()), place.read().remarks), (vec![], Vec::<String>::new()), "an empty directory");
        let mut store = place.store();
        for key in ["b/eth0", "a/eth0", "gone/eth0"] {
            store.apply(Change::Put(Box::new(lease(key))));
        }
        store.sync().expect("written");
        let attachment: Attachment = "gone/eth0".parse().expect("a key");
        store.apply(Change::Free { attachment, at: boot_clock::now_ms() });
        store.sync().expect("written");
        let before = fs::read(place.log()).expect("a log");
        let recorded = place.read();
        assert_eq!(keys(&recorded), ["a/eth0", "b/eth0"]);
        let [freed] = &recorded.freed[..] else { panic!("one rests: {:?}", recorded.freed) };
        assert_eq!((freed.attachment.to_string(), recorded.keeper), ("gone/eth0".into(), Keeper::Nobody));
        let left = recorded.rests_ms(freed);
        assert!((1..=REST_MS).contains(&left), "{left}");
        assert_eq!(recorded.remarks, Vec::<String>::new());
        assert_eq!(fs::read(place.log()).expect("a log"), before);
        let names: Vec<_> =
            fs::read_dir(place.state()).expect("a directory").map(|e| e.expect("one").file_name()).collect();
        assert_eq!(names, [LOG]);
    }

    #[test]
    fn half_a_line_at_the_end_is_nobodys_yet_and_a_log_without_its_name_is_found() {
        let place = Place::new("torn");
        let mut store = place.store();
        for key in ["a/eth0", "b/eth0"] {
            store.apply(Change::Put(Box::new(lease(key))));
            store.sync().expect("written");
        }
        let whole = fs::read(place.log()).expect("a log");
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
        for end in last..whole.len() {
            fs::write(place.log(), &whole[..end]).expect("written");
            let recorded = place.read();
            assert_eq!((keys(&recorded), recorded.remarks.len()), (vec!["a/eth0".into()], 0), "cut at {end}");
        }
        fs::write(place.log(), &whole).expect("written");
        fs::rename(place.log(), place.state().join("leases.new")).expect("renamed");
        assert_eq!(keys(&place.read()), ["a/eth0", "b/eth0"]);
    }

    #[test]
    fn a_log_that_tells_little_says_so() {
        let place = Place::new("odd");
        let write = |records: &[Record]| {
            let (mut bytes, mut after) = (Vec::new(), None);
            for record in records {
                let (line, sum) = encode(record, after);
                bytes.extend(line);
                after = Some(sum);
            }
            fs::write(place.log(), &bytes).expect("written");
            bytes
        };
        let header = |version, boot: &str| Record::Header { version, boot: boot.into(), serial: 1 };
        let put = |key: &str, phase| Record::Put(Box::new(Lease { phase, ..lease(key) }));
        let boot = boot_clock::id().expect("a boot");
        write(&[header(VERSION, "another"), put("a/eth0", Phase::Committed)]);
        assert_eq!((keys(&place.read()), place.read().remarks.len()), (vec![], 0), "pods end with their boot");
        write(&[header(7, &boot), put("a/eth0", Phase::Committed)]);
        let recorded = place.read();
        assert!(keys(&recorded).is_empty() && recorded.remarks[0].contains("of format 7"), "{recorded:?}");
        assert_eq!(recorded.unknown.as_ref(), recorded.remarks.first());
        let mut bytes =
            write(&[header(VERSION, &boot), put("a/eth0", Phase::Committed), put("b/eth0", Phase::Pending)]);
        bytes.extend(b"nonsense\n");
        fs::write(place.log(), &bytes).expect("written");
        let recorded = place.read();
        assert_eq!(keys(&recorded), ["a/eth0"]);
        assert!(recorded.remarks[0].contains("damaged (1 lines are unreadable, 0 misplaced)"), "{recorded:?}");
        // Neither another's directory nor a missing one is an empty record.
        let missing = Recorded::read(&place.0.join("absent"), &place.0.join("flock.sock")).expect("nothing");
        assert!(missing.leases.is_empty() && missing.remarks[0].contains("absent is missing"), "{missing:?}");
        assert_eq!(missing.unknown.as_ref(), missing.remarks.first());
        fs::remove_file(place.log()).expect("removable");
        fs::create_dir(place.log()).expect("a directory");
        let error = Recorded::read(&place.state(), &place.0.join("flock.sock")).expect_err("no file").to_string();
        assert!(error.contains("leases.log: it is not a regular file"), "{error}");
    }

    #[test]
    fn a_note_is_about_what_stood_when_it_was_written() {
        let place = Place::new("noted");
        let notes = Notes::beside(&place.0.join("flock.sock"));
        let soon = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let noted = lease("a/eth0");
        notes.writing(soon).expect("nobody has the lock").write(&noted.attachment).expect("a note");
        let recorded = place.read();
        assert!(recorded.is_delete_noted(&noted), "{recorded:?}");
        assert!(!recorded.is_delete_noted(&lease("b/eth0")));
        assert!(!recorded.is_delete_noted(&Lease { since: recorded.now + 1, ..noted }), "a newer sandbox of that name");
    }

    #[test]
    fn who_has_locked_the_directory_is_read_from_the_kernel_s_list() {
        let list = "\
1: POSIX  ADVISORY  WRITE 11 00:1a:42 0 EOF
2: FLOCK  ADVISORY  READ  12 00:1a:43 0 EOF
2: -> FLOCK  ADVISORY  WRITE 13 00:1a:42 0 EOF
3: FLOCK  ADVISORY  WRITE 14 00:1a:42 0 EOF
4: FLOCK  ADVISORY  WRITE 15 08:01:42 0 EOF
";
        let device = |major, minor| rustix::fs::makedev(major, minor);
        assert_eq!(holder(list, device(0, 0x1a), 42), Some(14));
        assert_eq!(holder(list, device(8, 1), 42), Some(15));
        assert_eq!(holder(list, device(8, 2), 42), None);
        let place = Place::new("locked");
        assert_eq!(place.read().keeper, Keeper::Nobody);
        let directory = fs::File::open(place.state()).expect("a directory");
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("locked");
        assert_eq!(place.read().keeper, Keeper::Agent(std::process::id()));
    }
}
