//! Deletes that arrived while the agent was away, as durable notes in a directory beside its socket.
//!
//! A runtime repeats a failed DEL for ever, or never: so the plugin answers success once the note is durable, and the
//! agent carries it out before it serves an ADD. The lock closes the gap between the two: whoever writes a note holds it
//! shared and has just seen that nobody listens; the agent listens first and then takes it alone for a moment, after which
//! no note can appear that its list lacks. It puts notes away under the lock as well, so that none is taken for an older one. The
//! lock is on the directory itself: it needs no file, but nobody else may open the directory.
//!
//! A note must not fail for want of space, since then the runtime's delete would. So the agent keeps spare notes there,
//! files of one page that a writer only has to overwrite and rename. Must not talk to the agent or the kernel.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::process::failpoint;
use crate::process::foreign_file::open_regular;
use crate::record::boot_clock;
use crate::record::disk::{DiskError, make_private_dir, open_lockable_dir};
use crate::record::replacement::Replacement;
use model::addr::{Attachment, fnv1a64};
use model::excerpt::Excerpt;

/// Most notes that wait at once. A node has at most a few hundred pods, so more notes mean a fault.
pub const MAX_NOTES: usize = 1024;

/// Length of a spare note in bytes: one page, filled up with blanks. A note has some 200.
const NOTE_BYTES: usize = 4096;

/// Longest reason why a file is no note, in characters.
const REASON_MAX: usize = 200;

/// Number of spare notes. A node deletes fewer pods than this in the minutes of a restart, and they take half a megabyte.
const SPARES: usize = 128;

/// What the names of spare notes begin with; a number follows.
const SPARE: &str = "spare-";

/// Deadline for writers, who hold the lock for milliseconds, 2 s. Whoever holds it longer is stuck.
const WRITERS: Duration = Duration::from_secs(2);

/// Version of the format of a note.
const VERSION: u32 = 1;

/// What the names of notes end with.
const SUFFIX: &str = ".delete";

/// A delete that was promised to the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What is to be deleted.
    pub attachment: Attachment,
    /// When the runtime asked for it, in milliseconds of the boot clock: a lease made later is a newer sandbox's and stays.
    pub at: u64,
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    boot: String,
    container_id: String,
    ifname: String,
    at: u64,
}

/// Why a note could not be written or read.
#[derive(Debug)]
pub enum NoteError {
    /// The file system failed.
    Disk(DiskError),
    /// Too many notes wait already.
    Full,
    /// The lock was held by others until the deadline.
    Locked(PathBuf),
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoteError::Disk(error) => write!(f, "{error}"),
            NoteError::Full => write!(f, "{MAX_NOTES} deletes wait for the agent already"),
            NoteError::Locked(path) => write!(f, "{} is locked by somebody else", path.display()),
        }
    }
}

impl std::error::Error for NoteError {}

impl From<DiskError> for NoteError {
    fn from(error: DiskError) -> NoteError {
        NoteError::Disk(error)
    }
}

/// The directory of notes.
#[derive(Debug, Clone)]
pub struct Notes {
    path: PathBuf,
}

/// The right to write notes, while held.
#[derive(Debug)]
pub struct Writing<'a> {
    notes: &'a Notes,
    /// The directory. Closing it releases the lock.
    lock: File,
}

/// What lies in the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Notes of this boot, oldest first.
    pub notes: Vec<Note>,
    /// Files that are no notes of flock, or that should be removed and cannot be, and why. They stay where they are.
    pub strangers: Vec<(PathBuf, String)>,
    /// Somebody holds the lock and does not let go: a note may appear that is not listed here.
    pub incomplete: bool,
}

impl Notes {
    /// The directory that belongs to the agent's `socket`.
    pub fn beside(socket: &Path) -> Notes {
        Notes { path: socket.with_file_name("deletes") }
    }

    /// Takes the lock for writing. The caller tries the agent's socket once more before it writes.
    ///
    /// # Errors
    /// The directory cannot be made, or the lock is not to be had by `deadline`.
    pub fn writing(&self, deadline: Instant) -> Result<Writing<'_>, NoteError> {
        let lock = self.lock(FlockOperation::NonBlockingLockShared, deadline)?;
        Ok(Writing { notes: self, lock })
    }

    /// Everything that waits. The caller listens on the agent's socket already. Ends within seconds.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn waiting(&self) -> Result<Waiting, NoteError> {
        let mut waiting = Waiting::default();
        let _alone = match self.lock(FlockOperation::NonBlockingLockExclusive, Instant::now() + WRITERS) {
            Ok(lock) => Some(lock),
            // The lock only closes a gap. A stuck process must not keep the agent from its start.
            Err(NoteError::Locked(_)) => {
                waiting.incomplete = true;
                None
            }
            Err(error) => return Err(error),
        };
        let boot = boot_clock::id().map_err(|error| self.error("read the boot id for", error))?;
        if !waiting.incomplete {
            self.clear_halves(&mut waiting)?;
        }
        for name in self.names().map_err(|error| self.error("list", error))? {
            let path = self.path.join(&name);
            match read_note(&path) {
                // A note of an earlier boot: the pod is gone with it.
                Ok(content) if content.boot != boot => remove_or_report(path, &mut waiting),
                Ok(content) => match content.note() {
                    Some(note) if name == file_name(&note.attachment) => waiting.notes.push(note),
                    _ => waiting.strangers.push((path, "its name and its content disagree".into())),
                },
                Err(why) => waiting.strangers.push((path, why)),
            }
        }
        waiting.notes.sort_by_key(|note| note.at);
        Ok(waiting)
    }

    /// The notes of this boot, oldest first; none where there is no directory of notes. Changes nothing and waits for nobody, so a
    /// note that is being written may be missing.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn noted(&self) -> Result<Vec<Note>, DiskError> {
        let failed = |operation, error| DiskError { operation, path: self.path.clone(), error };
        let boot = boot_clock::id().map_err(|error| failed("read the boot id for", error))?;
        let names = match self.names() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.map_err(|error| failed("list", error))?,
        };
        let contents = names.iter().filter_map(|name| read_note(&self.path.join(name)).ok());
        let of_this_boot = contents.filter(|content| content.boot == boot);
        let mut notes: Vec<Note> = of_this_boot.filter_map(|content| content.note()).collect();
        notes.sort_by_key(|note| note.at);
        Ok(notes)
    }

    /// The note of this boot that says that `attachment` is to be deleted. Changes nothing and waits for nobody: one that is being
    /// written at this moment has been promised to nobody yet.
    pub fn of(&self, attachment: &Attachment) -> Option<Note> {
        let content = read_note(&self.path.join(file_name(attachment))).ok()?;
        let of_this_boot = boot_clock::id().is_ok_and(|boot| boot == content.boot);
        content.note().filter(|note| of_this_boot && note.attachment == *attachment)
    }

    /// Removes notes that have been carried out, but none that took the place of one meanwhile. Ends within seconds.
    ///
    /// # Errors
    /// Some are still there; carrying them out again does no harm.
    pub fn done(&self, notes: &[Note]) -> Result<(), NoteError> {
        if notes.is_empty() {
            return Ok(());
        }
        // Alone, so that what is removed is what was read: a writer in between was promised that its note is kept.
        let _alone = self.lock(FlockOperation::NonBlockingLockExclusive, Instant::now() + WRITERS)?;
        let mut outcome = Ok(());
        for note in notes {
            let path = self.path.join(file_name(&note.attachment));
            if read_note(&path).is_ok_and(|content| content.at <= note.at) {
                let removed = remove(&path).map_err(|error| self.error("remove a note from", error));
                outcome = outcome.and(removed);
            }
        }
        outcome
    }

    /// Removes the files of writers that were killed before their note was whole: they had promised nothing. With the lock
    /// held alone, there is no other writer.
    fn clear_halves(&self, waiting: &mut Waiting) -> Result<(), NoteError> {
        let entries = fs::read_dir(&self.path).map_err(|error| self.error("list", error))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.rsplit_once('.').is_some_and(|(note, pid)| note.ends_with(SUFFIX) && pid.parse::<u32>().is_ok()) {
                remove_or_report(entry.path(), waiting);
            }
        }
        Ok(())
    }

    /// Makes the spare notes that are missing, as long as there is room.
    ///
    /// # Errors
    /// Some are missing still.
    pub fn refill(&self) -> Result<(), NoteError> {
        // Alone, since a writer may turn a spare note into a note at any time.
        let _alone = self.lock(FlockOperation::NonBlockingLockExclusive, Instant::now() + WRITERS)?;
        failpoint::pass("note.refill").map_err(|error| self.error("keep spare notes in", error))?;
        for number in 0..SPARES {
            let path = self.path.join(format!("{SPARE}{number}"));
            if fs::symlink_metadata(&path).is_ok_and(|spare| spare.len() == NOTE_BYTES as u64) {
                continue;
            }
            let filled = open_anew(&path).and_then(|mut file| file.write_all(&[b' '; NOTE_BYTES]));
            if let Err(error) = filled {
                fs::remove_file(&path).ok();
                return Err(self.error("keep spare notes in", error));
            }
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| name.ends_with(SUFFIX)));
        }
        Ok(names)
    }

    fn lock(&self, operation: FlockOperation, deadline: Instant) -> Result<File, NoteError> {
        // Whoever can change the directory above can put another directory in the place of this one.
        self.path.parent().map_or(Ok(()), make_private_dir)?;
        let file = open_lockable_dir(&self.path)?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(rustix::io::Errno::AGAIN) => return Err(NoteError::Locked(self.path.clone())),
                Err(error) => return Err(self.error("lock", error.into())),
            }
        }
    }

    fn error(&self, operation: &'static str, error: io::Error) -> NoteError {
        DiskError { operation, path: self.path.clone(), error }.into()
    }
}

impl Writing<'_> {
    /// Writes the note that `attachment` is to be deleted, and waits until it is durable. Again for the same attachment, it
    /// replaces the former note.
    ///
    /// # Errors
    /// Nothing was promised: the caller must not report success.
    pub fn write(&self, attachment: &Attachment) -> Result<(), NoteError> {
        let name = file_name(attachment);
        let names = self.notes.names().map_err(|error| self.notes.error("list", error))?;
        if names.len() >= MAX_NOTES && !names.contains(&name) {
            return Err(NoteError::Full);
        }
        let boot = boot_clock::id().map_err(|error| self.notes.error("read the boot id for", error))?;
        let content = Content {
            version: VERSION,
            boot,
            container_id: attachment.container_id.to_string(),
            ifname: attachment.ifname.to_string(),
            at: boot_clock::now_ms(),
        };
        let json = serde_json::to_vec(&content).map_err(|error| self.notes.error("encode a note for", error.into()))?;
        // Other writers hold the lock too; the process id keeps their new files apart.
        let beside = format!("{name}.{}", std::process::id());
        let replacement =
            Replacement { dir: self.lock.as_fd(), name: OsStr::new(&name), beside: OsStr::new(&beside), mode: 0o600 };
        let written = replacement
            .prepare(&json)
            .or_else(|error| {
                if !no_room(&error) {
                    return Err(error);
                }
                self.use_spare(&self.notes.path.join(&beside), &json, error)
            })
            .and_then(|()| replacement.put_in_place())
            .inspect_err(|_| replacement.abandon());
        written.map_err(|error| self.notes.error("write a note into", error))
    }

    /// Makes the new file of one that has its room already. `full` is why that is needed.
    fn use_spare(&self, path: &Path, bytes: &[u8], full: io::Error) -> io::Result<()> {
        for number in 0..SPARES {
            // Of several writers, only one gets each spare note.
            if fs::rename(self.notes.path.join(format!("{SPARE}{number}")), path).is_err() {
                continue;
            }
            // The file is not cut short, since another process might take the page that is freed. Blanks follow the note.
            let mut file =
                OpenOptions::new().write(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
            file.write_all(bytes)?;
            return file.sync_all();
        }
        Err(full)
    }
}

impl Content {
    fn note(&self) -> Option<Note> {
        let attachment =
            Attachment { container_id: self.container_id.parse().ok()?, ifname: self.ifname.parse().ok()? };
        Some(Note { attachment, at: self.at })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match failpoint::pass("note.remove").and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a file that is of no use any more. If that fails, the file is reported; the notes count all the same.
fn remove_or_report(path: PathBuf, waiting: &mut Waiting) {
    if let Err(error) = remove(&path) {
        waiting.strangers.push((path, format!("it is left over and cannot be removed: {error}")));
    }
}

/// The name of the note of `attachment`: a hash, so that nothing that the runtime sent becomes part of a path.
fn file_name(attachment: &Attachment) -> String {
    format!("{:016x}{SUFFIX}", fnv1a64(attachment.to_string().as_bytes()))
}

/// Whether an operation failed for want of a block, an inode or quota.
fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A file that was not there before: neither a link nor anything else that somebody has put there is followed.
fn open_anew(path: &Path) -> io::Result<File> {
    // A plugin that was killed and had the same process id may have left one.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn read_note(path: &Path) -> Result<Content, String> {
    let file = open_regular(path, OFlags::NOFOLLOW).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(NOTE_BYTES as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    // The error repeats what stands in the file, which can be long.
    let excerpt = |error: serde_json::Error| String::from(Excerpt::line(&error.to_string(), REASON_MAX));
    let content: Content = serde_json::from_slice(&bytes).map_err(excerpt)?;
    if content.version == VERSION { Ok(content) } else { Err(format!("it is of version {}", content.version)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of notes, which ends with the test.
    struct Place {
        path: PathBuf,
        notes: Notes,
    }

    impl Place {
        fn new(name: &str) -> Place {
            let path = std::env::temp_dir().join(format!("flock-notes-{name}-{}", std::process::id()));
            make_private_dir(&path).expect("made");
            let notes = Notes::beside(&path.join("flock.sock"));
            Place { path, notes }
        }

        fn write(&self, key: &str) {
            let writing = self.notes.writing(Instant::now() + WRITERS).expect("nobody has the lock");
            writing.write(&attachment(key)).expect("a note");
        }

        /// A note as somebody else might have written it, under the name that belongs to `key`.
        fn forge(&self, key: &str, content: &Content) {
            let json = serde_json::to_vec(content).expect("JSON");
            fs::write(self.notes.path.join(file_name(&attachment(key))), json).expect("written");
        }

        fn notes(&self) -> Vec<Note> {
            self.notes.waiting().expect("readable").notes
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.path).ok();
        }
    }

    fn attachment(key: &str) -> Attachment {
        key.parse().expect("a key")
    }

    fn content(key: &str) -> Content {
        let Attachment { container_id, ifname } = attachment(key);
        Content {
            version: VERSION,
            boot: boot_clock::id().expect("a boot"),
            container_id: container_id.to_string(),
            ifname: ifname.to_string(),
            at: boot_clock::now_ms(),
        }
    }

    #[test]
    fn a_delete_that_is_promised_while_an_older_one_is_carried_out_is_kept() {
        let place = Place::new("newer");
        place.write("a/eth0");
        place.write("b/eth0");
        let carried_out = place.notes();
        while boot_clock::now_ms() <= carried_out[1].at {
            thread::yield_now();
        }
        place.write("a/eth0");
        place.notes.done(&carried_out).expect("removed");
        let left = place.notes();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].attachment, attachment("a/eth0"));
        place.notes.done(&left).expect("removed");
        assert_eq!(place.notes(), []);
    }

    #[test]
    fn a_note_of_an_earlier_boot_deletes_nothing_and_is_removed() {
        let place = Place::new("boot");
        place.write("a/eth0");
        place.forge("b/eth0", &Content { boot: "another".into(), ..content("b/eth0") });
        assert_eq!(
            place.notes.noted().expect("readable").into_iter().map(|note| note.attachment).collect::<Vec<_>>(),
            [attachment("a/eth0")]
        );
        let waiting = place.notes.waiting().expect("readable");
        assert_eq!((waiting.notes.len(), waiting.strangers.len()), (1, 0));
        assert_eq!(place.notes.names().expect("readable").len(), 1);
    }

    #[test]
    fn a_note_that_is_not_whole_flocks_own_deletes_nothing_and_is_left() {
        let place = Place::new("strange");
        place.write("a/eth0");
        // Renamed, of a later flock, and cut off.
        place.forge("b/eth0", &content("c/eth0"));
        place.forge("d/eth0", &Content { version: VERSION + 1, ..content("d/eth0") });
        fs::write(place.notes.path.join(format!("x{SUFFIX}")), "{").expect("written");
        let waiting = place.notes.waiting().expect("readable");
        assert_eq!(waiting.notes.iter().map(|note| &note.attachment).collect::<Vec<_>>(), [&attachment("a/eth0")]);
        assert_eq!(waiting.strangers.len(), 3);
        assert_eq!(place.notes.names().expect("readable").len(), 4);
    }

    #[test]
    fn deletes_without_number_are_refused_and_a_repeated_one_is_not() {
        let place = Place::new("full");
        place.write("a/eth0");
        for number in 1..MAX_NOTES {
            fs::write(place.notes.path.join(format!("{number}{SUFFIX}")), "").expect("written");
        }
        let writing = place.notes.writing(Instant::now() + WRITERS).expect("nobody has the lock");
        assert!(matches!(writing.write(&attachment("b/eth0")), Err(NoteError::Full)));
        writing.write(&attachment("a/eth0")).expect("it takes no further place");
    }

    #[test]
    fn a_note_that_is_being_written_is_no_leftover() {
        let place = Place::new("half");
        let writing = place.notes.writing(Instant::now() + WRITERS).expect("nobody has the lock");
        let half = place.notes.path.join(format!("{}.4711", file_name(&attachment("a/eth0"))));
        fs::write(&half, "{").expect("written");
        assert!(place.notes.waiting().expect("readable").incomplete);
        assert!(half.exists(), "its writer is at work");
        drop(writing);
        assert!(!place.notes.waiting().expect("readable").incomplete);
        assert!(!half.exists(), "its writer has been killed");
    }
}
