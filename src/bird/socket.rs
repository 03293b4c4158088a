//! BIRD's control socket: a command, and its reply by a deadline.
//!
//! A connection is made for a handful of commands and dropped. Nothing here waits longer than the caller's deadline. Must not know
//! why something is asked.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::bird::conf::PROTOCOL;
use crate::bird::reply::{Replies, Reply, ReplyError};
use crate::bird::sessions::{self, Status};
use model::excerpt::Excerpt;

/// Longest command, in bytes: BIRD closes the connection at one of 4 KiB.
pub const COMMAND_MAX: usize = 2048;

/// Longest text of a refusal that is passed on, in bytes.
const REFUSAL_MAX: usize = 400;

/// Why BIRD has not done what it was asked.
#[derive(Debug)]
pub enum ControlError {
    /// Nobody listens.
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It has not answered in time.
    Late(PathBuf),
    /// It has closed the connection, or something else has.
    Lost(PathBuf, io::Error),
    /// It has said something that BIRD does not say.
    Garbled(PathBuf, ReplyError),
    /// It has refused: its code, and its text in one line.
    Refused(u16, Excerpt),
    /// The command would be too long or would be several: which file's name is to blame.
    Unspeakable(PathBuf),
}

impl ControlError {
    /// There is no BIRD: no socket, or one that nobody has open.
    pub fn is_absent(&self) -> bool {
        matches!(self, ControlError::Unreachable { error, .. }
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused))
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::Unreachable { socket, error } => {
                let why = match error.kind() {
                    ErrorKind::NotFound => "there is no such socket".to_owned(),
                    ErrorKind::ConnectionRefused => "nobody has it open".to_owned(),
                    ErrorKind::PermissionDenied => {
                        "flock-agent may not use it: it needs the group of BIRD's process".to_owned()
                    }
                    _ => error.to_string(),
                };
                write!(
                    f,
                    "BIRD does not listen on {}: {why}; systemctl status flock-bird tells whether it runs",
                    socket.display()
                )
            }
            ControlError::Late(socket) => write!(f, "BIRD on {} did not answer in time", socket.display()),
            ControlError::Lost(socket, error) => write!(f, "BIRD on {} went away: {error}", socket.display()),
            ControlError::Garbled(socket, error) => {
                write!(f, "who listens on {} is not BIRD 2: it said {error}", socket.display())
            }
            ControlError::Refused(code, text) => write!(f, "BIRD refused ({code:04}): {text}"),
            ControlError::Unspeakable(path) => write!(
                f,
                "the name {} cannot be told to BIRD: it has a quotation mark, a control character or more than 1024 bytes",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ControlError::Unreachable { error, .. } | ControlError::Lost(_, error) => Some(error),
            ControlError::Garbled(_, error) => Some(error),
            _ => None,
        }
    }
}

/// What becomes of a configuration that BIRD was told to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Configured {
    /// It is in force.
    InForce,
    /// It is taken, and some sessions end before it is in force.
    InProgress,
}

/// A connection to BIRD.
#[derive(Debug)]
pub struct Control {
    socket: PathBuf,
    stream: UnixStream,
    replies: Replies,
    /// Bytes that have come and belong to a later reply.
    rest: Vec<u8>,
    /// What BIRD calls itself, such as `BIRD 2.0.12 ready.`
    pub greeting: Excerpt,
}

impl Control {
    /// Connects, and waits for the greeting.
    ///
    /// # Errors
    /// Every variant of [`ControlError`].
    pub fn open(socket: &Path, deadline: Instant) -> Result<Control, ControlError> {
        let unreachable = |error: Errno| match error {
            // As many wait for it as may.
            Errno::AGAIN => ControlError::Late(socket.into()),
            other => ControlError::Unreachable { socket: socket.into(), error: other.into() },
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(unreachable)?;
        let address = SocketAddrUnix::new(socket).map_err(unreachable)?;
        connect(&stream, &address).map_err(unreachable)?;
        let stream = UnixStream::from(stream);
        let lost = |error| ControlError::Lost(socket.into(), error);
        stream.set_nonblocking(false).map_err(lost)?;
        let greeting = Excerpt::of("");
        let mut control =
            Control { socket: socket.into(), stream, replies: Replies::default(), rest: Vec::new(), greeting };
        let reply = control.reply(deadline)?;
        if reply.last.code != 1 {
            return Err(refused(&reply));
        }
        control.greeting = Excerpt::line(&reply.last.text, REFUSAL_MAX);
        Ok(control)
    }

    /// Whether BIRD takes the configuration in `file`, which it reads, and does nothing with.
    ///
    /// # Errors
    /// Every variant of [`ControlError`]; [`ControlError::Refused`] says where in the file it is wrong.
    pub fn check(&mut self, file: &Path, deadline: Instant) -> Result<(), ControlError> {
        let command = format!("configure check \"{}\"", spoken(file)?);
        self.ask(&command, deadline).map(drop)
    }

    /// The file that BIRD was started with, as far as it tells. It reads it, and does nothing with it.
    ///
    /// # Errors
    /// Every variant of [`ControlError`] but [`ControlError::Refused`]: what is in the file is not asked here.
    pub fn started_with(&mut self, deadline: Instant) -> Result<Option<String>, ControlError> {
        let reply = self.exchange("configure check", deadline)?;
        Ok(reply.all().find_map(|line| line.text.strip_prefix("Reading configuration from ")).map(str::to_owned))
    }

    /// Lets BIRD read the file that it was started with.
    ///
    /// # Errors
    /// Every variant of [`ControlError`]; at [`ControlError::Refused`] the former configuration stays in force.
    pub fn configure(&mut self, deadline: Instant) -> Result<Configured, ControlError> {
        let reply = self.ask("configure", deadline)?;
        match reply.last.code {
            3 => Ok(Configured::InForce),
            4 | 5 => Ok(Configured::InProgress),
            _ => Err(refused(&reply)),
        }
    }

    /// BIRD's own state.
    ///
    /// # Errors
    /// Every variant of [`ControlError`].
    pub fn status(&mut self, deadline: Instant) -> Result<Status, ControlError> {
        self.ask("show status", deadline).map(|reply| sessions::status(&reply))
    }

    /// Everything about the protocols of the peers; none if there are none.
    ///
    /// # Errors
    /// Every variant of [`ControlError`].
    pub fn protocols(&mut self, deadline: Instant) -> Result<Option<Reply>, ControlError> {
        match self.ask(&format!("show protocols all \"{PROTOCOL}*\""), deadline) {
            Ok(reply) => Ok(Some(reply)),
            Err(ControlError::Refused(8003, _)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives up the right to change anything by this connection.
    ///
    /// # Errors
    /// Every variant of [`ControlError`].
    pub fn restrict(&mut self, deadline: Instant) -> Result<(), ControlError> {
        self.ask("restrict", deadline).map(drop)
    }

    /// Lets BIRD end in the way that loses nothing: peers keep the routes until it is back, and at most for its restart time.
    ///
    /// # Errors
    /// Every variant of [`ControlError`].
    pub fn graceful_restart(&mut self, deadline: Instant) -> Result<(), ControlError> {
        self.ask("graceful restart", deadline).map(drop)
    }

    /// Lets BIRD end for good: peers drop the routes at once.
    ///
    /// # Errors
    /// Every variant of [`ControlError`].
    pub fn shut_down(&mut self, deadline: Instant) -> Result<(), ControlError> {
        self.ask("down", deadline).map(drop)
    }

    /// Waits until BIRD has closed the connection, which it does when it ends. False if it has not by the deadline.
    pub fn wait_for_the_end(mut self, deadline: Instant) -> bool {
        loop {
            match self.reply(deadline) {
                Ok(_) => {}
                Err(ControlError::Late(_)) => return false,
                Err(_) => return true,
            }
        }
    }

    /// A command, and whatever is said to it.
    fn exchange(&mut self, command: &str, deadline: Instant) -> Result<Reply, ControlError> {
        self.stream.set_write_timeout(Some(self.left(deadline)?)).map_err(|error| self.failed(error))?;
        self.stream.write_all(format!("{command}\n").as_bytes()).map_err(|error| self.failed(error))?;
        self.reply(deadline)
    }

    fn ask(&mut self, command: &str, deadline: Instant) -> Result<Reply, ControlError> {
        let reply = self.exchange(command, deadline)?;
        if reply.is_error() { Err(refused(&reply)) } else { Ok(reply) }
    }

    fn reply(&mut self, deadline: Instant) -> Result<Reply, ControlError> {
        loop {
            let mut input = self.rest.as_slice();
            let taken = self.replies.take(&mut input);
            self.rest = input.to_vec();
            if let Some(reply) = taken.map_err(|error| ControlError::Garbled(self.socket.clone(), error))? {
                return Ok(reply);
            }
            let mut bytes = [0; 4096];
            self.stream.set_read_timeout(Some(self.left(deadline)?)).map_err(|error| self.failed(error))?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(self.failed(ErrorKind::UnexpectedEof.into())),
                Ok(length) => self.rest = bytes.get(..length).unwrap_or_default().to_vec(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn left(&self, deadline: Instant) -> Result<Duration, ControlError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ControlError::Late(self.socket.clone())) } else { Ok(left) }
    }

    fn failed(&self, error: io::Error) -> ControlError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ControlError::Late(self.socket.clone()),
            _ => ControlError::Lost(self.socket.clone(), error),
        }
    }
}

fn refused(reply: &Reply) -> ControlError {
    ControlError::Refused(reply.last.code, Excerpt::line(&reply.last.text, REFUSAL_MAX))
}

/// A file's name as a part of a command.
fn spoken(file: &Path) -> Result<&str, ControlError> {
    let fits = |name: &&str| name.len() <= COMMAND_MAX / 2 && !name.chars().any(|c| c == '"' || c.is_control());
    file.to_str().filter(fits).ok_or_else(|| ControlError::Unspeakable(file.into()))
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::io::BufReader;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Who listens in a directory of its own, greets, and gives these replies one after the other.
    fn talking_to<R>(replies: &'static [&'static str], talk: impl FnOnce(&Path) -> R) -> (R, Vec<String>) {
        let unique = format!("flock-bird-{}-{:?}", std::process::id(), thread::current().id());
        let path = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
        std::fs::remove_file(&path).ok();
        let listener = UnixListener::bind(&path).expect("bound");
        let daemon = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a second one")).lines();
            let mut heard = Vec::new();
            for (index, reply) in replies.iter().enumerate() {
                if index > 0 {
                    heard.extend(lines.next().and_then(Result::ok));
                }
                stream.write_all(reply.as_bytes()).ok();
            }
            heard
        });
        let said = talk(&path);
        std::fs::remove_file(&path).ok();
        (said, daemon.join().expect("no panic"))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    const HELLO: &str = "0001 BIRD 2.0.12 ready.\n";

    #[test]
    fn commands_are_answered_by_their_codes() {
        let (said, heard) = talking_to(
            &[
                HELLO,
                "0002-Reading configuration from /c/new\n0020 Configuration OK\n",
                "0002-Reading configuration from /c/bird.conf\n0020 Configuration OK\n",
                "0002-Reading configuration from /c/bird.conf\n8002 /c/bird.conf:7:9 syntax error\n",
                "0002-Reading configuration from /c/bird.conf\n0004 Reconfiguration in progress\n",
                "0002-Reading configuration from /c/bird.conf\n8002 /c/bird.conf:7:9 syntax error\n",
                "8003 No protocols match\n",
                "0016 Access restricted\n",
                "8007 Access denied\n",
            ],
            |path| {
                let mut bird = Control::open(path, soon()).expect("greeted");
                assert_eq!(bird.greeting.as_ref(), "BIRD 2.0.12 ready.");
                bird.check(Path::new("/c/new"), soon()).expect("taken");
                for _good in [true, false] {
                    assert_eq!(bird.started_with(soon()).expect("told").as_deref(), Some("/c/bird.conf"));
                }
                assert_eq!(bird.configure(soon()).expect("taken"), Configured::InProgress);
                let refusal = bird.configure(soon()).expect_err("refused");
                assert_eq!(refusal.to_string(), "BIRD refused (8002): /c/bird.conf:7:9 syntax error");
                assert_eq!(bird.protocols(soon()).expect("an answer"), None);
                bird.restrict(soon()).expect("restricted");
                assert!(matches!(bird.graceful_restart(soon()), Err(ControlError::Refused(8007, _))));
            },
        );
        let ((), [check, with, _, configure, ..]) = (said, &heard[..]) else { panic!("{heard:?}") };
        assert_eq!([check, with, configure], ["configure check \"/c/new\"", "configure check", "configure"]);
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        talking_to(&[""], |path| {
            let error = Control::open(path, Instant::now() + Duration::from_millis(50)).expect_err("no greeting");
            assert!(matches!(error, ControlError::Late(_) | ControlError::Lost(..)), "{error}");
        });
        let ((), _) = talking_to(&[HELLO, "0003"], |path| {
            let mut bird = Control::open(path, soon()).expect("greeted");
            assert!(matches!(bird.configure(soon()), Err(ControlError::Lost(..))));
        });
        let (error, _) =
            talking_to(&["220 mail.example ESMTP\n"], |path| Control::open(path, soon()).expect_err("no BIRD"));
        assert!(error.to_string().contains("is not BIRD 2"), "{error}");
        let absent = Control::open(Path::new("/nowhere/bird.ctl"), soon()).expect_err("absent").to_string();
        assert!(
            absent.contains("there is no such socket") && absent.contains("systemctl status flock-bird"),
            "{absent}"
        );
    }

    #[test]
    fn no_file_s_name_becomes_a_second_command() {
        let ((), heard) = talking_to(&[HELLO], |path| {
            let mut bird = Control::open(path, soon()).expect("greeted");
            for name in ["/a\"b", "/a\nconfigure", &format!("/{}", "a".repeat(COMMAND_MAX))] {
                let refusal = bird.check(Path::new(name), soon());
                assert!(matches!(refusal, Err(ControlError::Unspeakable(_))), "{refusal:?}");
            }
        });
        assert!(heard.is_empty());
    }
}
