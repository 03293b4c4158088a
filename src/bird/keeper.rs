//! Keeps BIRD at the configuration that is wanted: asks it whether it takes the text before the text becomes its file, and puts
//! back what others have changed.
//!
//! While nobody answers there is nobody to ask, and the file stays as it is: BIRD starts with it, and is told the rest once it is
//! up. Only where there is no file to start with, or where BIRD has not come up with the one that is there for a minute, the text
//! goes there unasked, as does the one without peers, which every BIRD takes.
//!
//! One call is one look, with one deadline. Nothing is written and nobody is asked as long as everything is as it should be. A file
//! that flock has not written is left alone until the node has a `bgp` block. Must not know where the configuration comes from,
//! and never starts or ends BIRD.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bird::conf::{Configuration, HEADER};
use crate::bird::sessions::{Session, sessions};
use crate::bird::socket::{Configured, Control, ControlError};
use crate::process::foreign_file;
use crate::record::replacement::Replacement;
use model::bgp::Bgp;
use model::excerpt::Excerpt;

/// Longest configuration that is read, in bytes: many times what sixteen peers and 256 prefixes need.
const TEXT_MAX: u64 = 1 << 20;

/// The file of the operator's own configuration, beside flock's.
const EXTRA: &str = "extra.conf";

/// Permissions of the configuration, which has passwords in it: its owner's, and for reading those of BIRD's group.
const MODE: u32 = 0o640;

/// Interval between questions about what the same BIRD has refused, 60 s: the operator's own file may include others.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);

/// Time after which a file with which no BIRD has come up is worth no more than one that nobody has checked, 60 s: BIRD's unit
/// starts it every 5 s.
const AWAY_LIMIT: Duration = Duration::from_secs(60);

/// Largest difference between what BIRD says twice of one time span, in milliseconds.
const TOLERANCE: u64 = 20;

/// How BIRD stands to what is wanted of it.
#[derive(Debug)]
pub enum Standing {
    /// Nothing is wanted, and nothing of flock's is there.
    Idle,
    /// What is wanted is in force.
    InForce,
    /// What is wanted is taken, and not in force yet: sessions end before.
    InProgress,
    /// BIRD cannot be asked.
    Unreachable(ControlError),
    /// BIRD does not take what is wanted, and the former configuration stays in force; why, in one line.
    Refused(Excerpt),
    /// The file cannot be read or written.
    Unwritable {
        /// Which one.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Idle => f.write_str("BIRD is not configured"),
            Standing::InForce => f.write_str("the configuration is in force"),
            Standing::InProgress => f.write_str("BIRD is about to take up the configuration"),
            Standing::Unreachable(error) => write!(f, "{error}"),
            Standing::Refused(why) => write!(f, "the former configuration of BIRD stays in force: {why}"),
            Standing::Unwritable { path, error } => {
                write!(f, "{} cannot be replaced: {error}", path.display())?;
                let dir = path.parent().unwrap_or(Path::new("/")).display();
                match error.kind() {
                    ErrorKind::NotFound => {
                        write!(f, "; flock-agent install --bird makes the directory of the default place")
                    }
                    ErrorKind::ReadOnlyFilesystem => {
                        write!(f, "; the unit of flock-agent needs ReadWritePaths={dir} (systemctl edit flock-agent)")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// What a look has done.
#[derive(Debug)]
pub struct Outcome {
    /// How BIRD stands now.
    pub standing: Standing,
    /// What was not as this keeper had left it, and was put back.
    pub repaired: Option<Repair>,
    /// BIRD was told to read its file.
    pub configured: bool,
}

/// What somebody else has done to what this keeper keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// The file was another one.
    File,
    /// BIRD was started anew, or has read another configuration.
    Daemon,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Repair::File => "the file had been changed",
            Repair::Daemon => "BIRD had been started anew or told to read its configuration",
        })
    }
}

/// What identifies the operator's own file as it was read.
type Stamp = Option<(u64, u64, i64, i64)>;

/// What was last wanted, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    wanted: Configuration,
    extra: Stamp,
}

/// What BIRD has refused.
#[derive(Debug)]
struct Refused {
    known: Known,
    why: Excerpt,
    at: Instant,
    /// When that BIRD was started.
    by: Option<i64>,
}

/// The keeper of one BIRD.
#[derive(Debug)]
pub struct Keeper {
    file: PathBuf,
    socket: PathBuf,
    /// What is in force, and how long after its start BIRD had read it.
    in_force: Option<(Known, Option<i64>)>,
    /// What BIRD has refused.
    refused: Option<Refused>,
    /// What this keeper has last put into the file.
    written: Option<Configuration>,
    /// Since when nobody has listened on the socket.
    away_since: Option<Instant>,
}

/// Whether what is wanted may become the file of a BIRD that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unasked {
    /// Where nothing better is there.
    AtNeed,
    /// At once.
    Always,
}

impl Keeper {
    /// A keeper that knows nothing yet: of the BIRD that listens on `socket` and was started with the configuration `file`.
    pub fn new(file: PathBuf, socket: PathBuf) -> Keeper {
        Keeper { file, socket, in_force: None, refused: None, written: None, away_since: None }
    }

    /// The operator's own file, if there is one that BIRD can be told of.
    pub fn extra(&self) -> Option<PathBuf> {
        let extra = self.file.with_file_name(EXTRA);
        let fits = extra.to_str().is_some_and(|name| !name.chars().any(|c| c == '"' || c.is_control()));
        (fits && extra.is_file()).then_some(extra)
    }

    /// The text of the file as it is, if flock has written it.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn own_text(&self) -> io::Result<Option<String>> {
        let text = match foreign_file::read(&self.file, TEXT_MAX) {
            Ok(bytes) => String::from_utf8(bytes).ok(),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(text.filter(|text| text.starts_with(HEADER)))
    }

    /// One look at file and BIRD, which have `wanted` afterwards if that is possible.
    pub fn keep(&mut self, wanted: &Configuration, deadline: Instant) -> Outcome {
        self.bring(wanted, Unasked::AtNeed, deadline)
    }

    fn bring(&mut self, wanted: &Configuration, unasked: Unasked, deadline: Instant) -> Outcome {
        let mut outcome = Outcome { standing: Standing::InForce, repaired: None, configured: false };
        outcome.standing = self.look(wanted, unasked, deadline, &mut outcome).unwrap_or_else(|standing| standing);
        outcome
    }

    /// The same for a node that wants no BIRD: `empty` ends all sessions, and takes the place only of what flock has written.
    pub fn keep_none(&mut self, empty: impl FnOnce(&str) -> Configuration, deadline: Instant) -> Outcome {
        let idle = Outcome { standing: Standing::Idle, repaired: None, configured: false };
        let text = match self.own_text() {
            Ok(Some(text)) => text,
            Ok(None) => return idle,
            Err(error) => {
                return Outcome { standing: Standing::Unwritable { path: self.file.clone(), error }, ..idle };
            }
        };
        let empty = empty(&text);
        // Once is enough: whoever starts BIRD later finds the file.
        let done = |known: &Known| known.wanted == empty;
        if text == empty.expose() && self.in_force.as_ref().is_some_and(|(known, _)| done(known)) {
            return idle;
        }
        let outcome = self.bring(&empty, Unasked::Always, deadline);
        match outcome.standing {
            Standing::InForce | Standing::Unreachable(ControlError::Unreachable { .. }) if self.is_in_file(&empty) => {
                self.in_force = Some((Known { wanted: empty, extra: None }, None));
                Outcome { standing: Standing::Idle, ..outcome }
            }
            _ => outcome,
        }
    }

    /// The sessions with the peers of `bgp`, by a connection that can change nothing.
    ///
    /// # Errors
    /// BIRD cannot be asked.
    pub fn sessions(&self, bgp: &Bgp, deadline: Instant) -> Result<Vec<Session>, ControlError> {
        let mut bird = Control::open(&self.socket, deadline)?;
        bird.restrict(deadline)?;
        Ok(sessions(bgp, bird.protocols(deadline)?.as_ref()))
    }

    /// `Err` is a standing, too: whatever ends the look early.
    fn look(
        &mut self,
        wanted: &Configuration,
        unasked: Unasked,
        deadline: Instant,
        outcome: &mut Outcome,
    ) -> Result<Standing, Standing> {
        let in_file = self.is_in_file(wanted);
        if !in_file && self.written.as_ref() == Some(wanted) {
            outcome.repaired = Some(Repair::File);
        }
        let mut bird = match Control::open(&self.socket, deadline) {
            Ok(bird) => bird,
            Err(error) => {
                self.in_force = None;
                if self.may_go_unasked(&error, wanted, unasked) && !in_file {
                    self.replace(wanted, |_| Ok(()))?;
                }
                return Err(Standing::Unreachable(error));
            }
        };
        self.away_since = None;
        let status = bird.status(deadline).map_err(Standing::Unreachable)?;
        if status.ending || (status.reconfiguring && self.in_force.is_none()) {
            return Err(Standing::InProgress);
        }
        let known = self.known(wanted);
        if let Some((former, configured)) = &self.in_force {
            if in_file && *former == known && is_same(*configured, status.configured_after) {
                return Ok(if status.reconfiguring { Standing::InProgress } else { Standing::InForce });
            }
            if in_file && former.wanted == *wanted && former.extra == known.extra {
                outcome.repaired = outcome.repaired.or(Some(Repair::Daemon));
            }
        }
        if let Some(refused) = &self.refused
            && refused.known == known
            && is_same(refused.by, status.started)
            && refused.at.elapsed() < REFUSED_INTERVAL
        {
            return Err(Standing::Refused(refused.why.clone()));
        }
        self.in_force = None;
        let configured = match self.put_in_force(wanted, in_file, &mut bird, deadline) {
            Ok(configured) => configured,
            Err(Standing::Refused(why)) => {
                let refused = Refused { known, why: why.clone(), at: Instant::now(), by: status.started };
                self.refused = Some(refused);
                return Err(Standing::Refused(why));
            }
            Err(standing) => return Err(standing),
        };
        outcome.configured = true;
        self.refused = None;
        match configured {
            // Once it is in force, BIRD is told again, which then changes nothing.
            Configured::InProgress => Ok(Standing::InProgress),
            Configured::InForce => {
                // Asked anew, since it words its times as the configuration says.
                let status = bird.status(deadline).map_err(Standing::Unreachable)?;
                self.in_force = Some((known, status.configured_after));
                Ok(Standing::InForce)
            }
        }
    }

    /// Whether `wanted` may become the file though BIRD cannot be asked, for this reason.
    fn may_go_unasked(&mut self, error: &ControlError, wanted: &Configuration, unasked: Unasked) -> bool {
        if !error.is_absent() {
            self.away_since = None;
            return false;
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        // What one has refused is not tried on the next one.
        let refused = self.refused.as_ref().is_some_and(|refused| refused.known.wanted == *wanted);
        let nothing = || matches!(self.file.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound);
        !refused && (unasked == Unasked::Always || since.elapsed() >= AWAY_LIMIT || nothing())
    }

    fn known(&self, wanted: &Configuration) -> Known {
        let stamp = |path: PathBuf| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        };
        let extra = self.extra().and_then(stamp);
        Known { wanted: wanted.clone(), extra }
    }

    /// Lets BIRD read `wanted`, once that is in the file. A BIRD that would read another file is told nothing.
    fn put_in_force(
        &mut self,
        wanted: &Configuration,
        in_file: bool,
        bird: &mut Control,
        deadline: Instant,
    ) -> Result<Configured, Standing> {
        if !in_file {
            self.replace(wanted, |candidate| bird.check(candidate, deadline))?;
        }
        let other = |read: &String| Path::new(read) != self.file;
        if let Some(read) = bird.started_with(deadline).map_err(|error| self.refusal(wanted, error))?.filter(other) {
            let file = self.file.display();
            let why =
                format!("this BIRD was started with {read}, and flock-agent writes {file}: start it with -c {file}");
            return Err(Standing::Refused(wanted.without_passwords(&why)));
        }
        bird.configure(deadline).map_err(|error| self.refusal(wanted, error))
    }

    fn refusal(&self, wanted: &Configuration, error: ControlError) -> Standing {
        match error {
            ControlError::Refused(6, _) => Standing::InProgress,
            ControlError::Refused(..) | ControlError::Unspeakable(_) => {
                Standing::Refused(wanted.without_passwords(&error.to_string()))
            }
            other => Standing::Unreachable(other),
        }
    }

    fn is_in_file(&self, wanted: &Configuration) -> bool {
        foreign_file::read(&self.file, TEXT_MAX).is_ok_and(|bytes| bytes == wanted.expose().as_bytes())
    }

    /// Puts `wanted` into the file if whoever is asked in between, about a candidate beside it, does not object.
    fn replace(
        &mut self,
        wanted: &Configuration,
        check: impl FnOnce(&Path) -> Result<(), ControlError>,
    ) -> Result<(), Standing> {
        let failed = |error: io::Error| Standing::Unwritable { path: self.file.clone(), error };
        let invalid = || io::Error::from(ErrorKind::InvalidInput);
        let name = self.file.file_name().ok_or_else(|| failed(invalid()))?;
        let parent = self.file.parent().ok_or_else(|| failed(invalid()))?;
        let dir = File::open(parent).map_err(failed)?;
        let mut beside = name.to_owned();
        beside.push(".new");
        let replacement = Replacement { dir: dir.as_fd(), name, beside: &beside, mode: MODE };
        let prepared = replacement.prepare(wanted.expose().as_bytes()).map_err(failed);
        let checked = prepared.and_then(|()| {
            check(&parent.join(&beside)).map_err(|error| self.refusal(wanted, error))?;
            replacement.put_in_place().map_err(failed)
        });
        if let Err(standing) = checked {
            replacement.abandon();
            return Err(standing);
        }
        self.written = Some(wanted.clone());
        Ok(())
    }
}

/// Whether these two are the same moment or time span, which BIRD may say a little otherwise for a second time.
fn is_same(one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= TOLERANCE,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::bird::conf;

    fn text(n: u8) -> Configuration {
        conf::without_peers("host001", Ipv4Addr::new(192, 0, 2, n))
    }

    #[test]
    fn a_place_where_nothing_can_be_written_says_what_to_do() {
        let said = |kind: ErrorKind| {
            Standing::Unwritable { path: "/etc/bird/bird.conf".into(), error: io::Error::from(kind) }.to_string()
        };
        assert!(said(ErrorKind::NotFound).contains("flock-agent install --bird"));
        assert!(said(ErrorKind::ReadOnlyFilesystem).contains("ReadWritePaths=/etc/bird (systemctl edit flock-agent)"));
        assert!(!said(ErrorKind::StorageFull).contains(';'));
    }

    #[test]
    fn a_text_that_no_bird_has_checked_takes_the_place_of_none_that_one_may_have() {
        let dir = std::env::temp_dir().join(format!("flock-keeper-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("made");
        let (file, socket) = (dir.join("bird.conf"), dir.join("bird.ctl"));
        let mut keeper = Keeper::new(file.clone(), socket.clone());
        let keep = |keeper: &mut Keeper, n| {
            let standing = keeper.keep(&text(n), Instant::now() + Duration::from_millis(200)).standing;
            assert!(matches!(standing, Standing::Unreachable(_)), "{standing}");
            fs::read_to_string(&file).unwrap_or_default()
        };
        assert_eq!(keep(&mut keeper, 1), text(1).expose(), "something to start with");
        assert_eq!(keep(&mut keeper, 2), text(1).expose(), "BIRD starts with what it had, and is asked then");
        // Somebody is there, and says nothing, as a BIRD that is busy.
        let listener = UnixListener::bind(&socket).expect("bound");
        let long_ago = Instant::now().checked_sub(AWAY_LIMIT);
        keeper.away_since = long_ago;
        assert_eq!(keep(&mut keeper, 2), text(1).expose());
        drop(listener);
        assert_eq!(keep(&mut keeper, 2), text(1).expose(), "it has just gone");
        assert!(keeper.away_since.is_some());
        keeper.away_since = long_ago;
        assert_eq!(keep(&mut keeper, 2), text(2).expose(), "a file with which none comes up is not kept for ever");
        let none = keeper.keep_none(|_| text(3), Instant::now() + Duration::from_millis(200));
        assert!(matches!(none.standing, Standing::Idle), "{}", none.standing);
        assert_eq!(fs::read_to_string(&file).expect("there"), text(3).expose(), "no BIRD refuses to have no peers");
        fs::remove_dir_all(&dir).expect("removable");
    }
}
