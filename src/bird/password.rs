//! The passwords of BGP sessions: read from the operator's files, held so that nothing prints them.
//!
//! A password that could end its quotation in the configuration is refused. Must not know what sessions are.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::process::foreign_file;

/// Longest password, in bytes: what the kernel takes for TCP MD5.
pub const PASSWORD_MAX: usize = 80;

/// Longest file that is read, in bytes: one line, and room to see that it is too long.
const FILE_MAX: u64 = 1024;

/// A password: 1 to [`PASSWORD_MAX`] printable ASCII characters, none of them `"` or `\`. Has no `Display`, and a `Debug` that says
/// only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

/// Why a file has no password. Never repeats what is in it.
#[derive(Debug)]
pub enum PasswordError {
    /// It cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Nothing is in it.
    Empty(PathBuf),
    /// More than one line is in it.
    Lines(PathBuf),
    /// More bytes than [`PASSWORD_MAX`] are in it: how many.
    TooLong(PathBuf, usize),
    /// A character that cannot be in a password is in it, behind so many others.
    Character(PathBuf, usize),
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordError::Unreadable { path, error } => {
                write!(f, "the password file {} cannot be read: {error}", path.display())
            }
            PasswordError::Empty(path) => {
                write!(f, "the password file {} is empty: its one line has to be the password", path.display())
            }
            PasswordError::Lines(path) => {
                write!(
                    f,
                    "the password file {} has more than one line: leave the one that is the password",
                    path.display()
                )
            }
            PasswordError::TooLong(path, length) => write!(
                f,
                "the password in {} has {length} bytes, and TCP MD5 takes {PASSWORD_MAX}: shorten it on both sides",
                path.display()
            ),
            PasswordError::Character(path, at) => write!(
                f,
                "character {} of the password in {} is a quotation mark, a backslash, a control character or not ASCII: choose \
                 another password on both sides",
                at + 1,
                path.display()
            ),
        }
    }
}

impl std::error::Error for PasswordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PasswordError::Unreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl Password {
    /// The password in the file, and what an operator should know about the file.
    ///
    /// # Errors
    /// Every variant of [`PasswordError`].
    pub fn in_file(path: &Path) -> Result<(Password, Option<String>), PasswordError> {
        let unreadable = |error| PasswordError::Unreadable { path: path.into(), error };
        let bytes = foreign_file::read(path, FILE_MAX).map_err(unreadable)?;
        let mode = std::fs::metadata(path).map_err(unreadable)?.mode();
        let remark = (mode & 0o004 != 0).then(|| {
            let path = path.display();
            format!("everybody on this host can read the password file {path}: chmod o-r {path}")
        });
        Password::of(path, &bytes).map(|password| (password, remark))
    }

    fn of(path: &Path, bytes: &[u8]) -> Result<Password, PasswordError> {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(PasswordError::Empty(path.into()));
        }
        if line.contains(&b'\n') {
            return Err(PasswordError::Lines(path.into()));
        }
        let bad = |byte: &u8| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\');
        if let Some(at) = line.iter().position(bad) {
            return Err(PasswordError::Character(path.into(), at));
        }
        if line.len() > PASSWORD_MAX {
            return Err(PasswordError::TooLong(path.into(), line.len()));
        }
        Ok(Password(line.iter().copied().map(char::from).collect()))
    }

    /// The password itself, for the configuration and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<password>")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    // covers: FM-F07
    #[test]
    fn a_password_is_one_line_that_cannot_leave_its_quotation() {
        let of = |bytes: &[u8]| Password::of(Path::new("/p"), bytes).map(|password| password.expose().to_owned());
        for good in [&b"secret"[..], b"secret\n", b"secret\r\n"] {
            assert_eq!(of(good).expect("good"), "secret");
        }
        assert!(of(&[b'x'; PASSWORD_MAX]).is_ok());
        for (bad, says) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"one\ntwo\n", "more than one line"),
            (b"hunter2\"; }", "character 8"),
            (b"hunter2\\", "character 8"),
            (b"hunter2\x07", "character 8"),
            (b"hunter2\xff", "character 8"),
            (&[b'x'; PASSWORD_MAX + 1], "81 bytes"),
        ] {
            let error = of(bad).expect_err("must be refused");
            let (shown, debugged) = (error.to_string(), format!("{error:?}"));
            assert!(shown.contains(says), "{shown}");
            assert!(!shown.contains("hunter2") && !debugged.contains("hunter2"), "{shown} {debugged}");
        }
        assert_eq!(format!("{:?}", Password::of(Path::new("/p"), b"hunter2").expect("good")), "<password>");
    }

    #[test]
    fn a_password_that_everybody_can_read_is_said() {
        let path = std::env::temp_dir().join(format!("flock-password-{}", std::process::id()));
        fs::write(&path, "secret\n").expect("written");
        for (mode, said) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("permitted");
            let (_, remark) = Password::in_file(&path).expect("readable");
            assert_eq!(remark.is_some_and(|remark| remark.contains("chmod o-r")), said, "{mode:o}");
        }
        fs::remove_file(&path).expect("removable");
        let error = Password::in_file(&path).expect_err("absent").to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
