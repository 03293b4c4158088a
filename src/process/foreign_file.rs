//! Files that others write: NodeConfig, kubeconfig, tokens, certificates.
//!
//! A read is of a regular file, bounded, and never waits for anybody, whatever stands in the file's place. Where the kernel
//! denies it, the error names the file or directory that denied it and says what to do: under the unit, root has no right to
//! read what others own. Must not know what is in the files.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::thread::{CapabilitySet, capabilities};

/// Most links and directories that are looked at to find out which of them denied a file.
const STEPS_MAX: usize = 64;

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = open_regular(path, OFlags::empty()).map_err(|error| explained(path, error))?;
    opened.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// Opens a file for reading that another hand may have put there: what is no regular file is an error, and nothing, not even
/// a FIFO, makes the caller wait. `further` is for [`OFlags::NOFOLLOW`].
///
/// # Errors
/// It is missing, cannot be opened, or is something else.
pub fn open_regular(path: &Path, further: OFlags) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | further).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// An error of opening `path`, or of looking at it, with what denied it or is missing, and what to do.
pub fn explained(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return io::Error::new(io::ErrorKind::NotFound, absence(path));
    }
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let Some((place, found)) = denied_by(path) else { return error };
    let overrides = capabilities(None)
        .is_ok_and(|held| held.effective.intersects(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH));
    let why = refusal(
        &place,
        found.is_dir(),
        found.mode(),
        found.uid(),
        &Reader { uid: rustix::process::geteuid().as_raw(), overrides },
    );
    io::Error::new(io::ErrorKind::PermissionDenied, format!("permission denied: {why}"))
}

/// What is missing where `path` leads.
fn absence(path: &Path) -> String {
    let mut at = path.to_owned();
    for _ in 0..STEPS_MAX {
        match (fs::read_link(&at), at.parent()) {
            // A link that leads to nothing, perhaps over others.
            (Ok(target), Some(above)) => at = above.join(target),
            _ => break,
        }
    }
    let directory = at.ancestors().skip(1).find(|above| above.is_dir());
    let missing = match (at.parent(), directory) {
        (Some(above), Some(there)) if above != there && !above.as_os_str().is_empty() => {
            format!("the directory {} is missing", above.display())
        }
        _ => "there is no such file".into(),
    };
    if at == path { missing } else { format!("it is a link to {}, and nothing is there: {missing}", at.display()) }
}

/// The file that may not be read, or the directory on the way to it that may not be entered.
fn denied_by(path: &Path) -> Option<(PathBuf, Metadata)> {
    let mut path = path.to_owned();
    for _ in 0..STEPS_MAX {
        if let Ok(found) = fs::metadata(&path) {
            return Some((path, found));
        }
        let above = path.parent()?.to_owned();
        path = match fs::read_link(&path) {
            Ok(target) => above.join(target),
            Err(_) => above,
        };
    }
    None
}

struct Reader {
    uid: u32,
    /// Whether the process has a capability that overrides modes.
    overrides: bool,
}

fn refusal(place: &Path, directory: bool, mode: u32, owner: u32, reader: &Reader) -> String {
    let place = place.display();
    let (bit, letter) = if directory { (0o1, 'x') } else { (0o4, 'r') };
    let own = owner == reader.uid;
    if reader.overrides || (own && mode & (bit << 6) != 0) || (!own && mode & bit != 0) {
        return format!(
            "the mode of {place} allows it, so a security module (AppArmor, SELinux), the mount or a user namespace forbids it"
        );
    }
    let mode = mode & 0o7777;
    let (who, user) = match reader.uid {
        0 => ("root without CAP_DAC_OVERRIDE".to_owned(), "root".to_owned()),
        uid => (format!("uid {uid}"), uid.to_string()),
    };
    let remedy = match own {
        true => format!("chmod u+{letter} {place}"),
        false => format!("chown {user} {place}, or chmod o+{letter} {place}"),
    };
    format!("{place} has mode {mode:04o} and owner uid {owner}, and flock-agent runs as {who}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Reader = Reader { uid: 0, overrides: false };

    #[test]
    fn root_without_its_usual_power_hears_what_to_do() {
        let file = Path::new("/etc/flock/token");
        assert_eq!(
            refusal(file, false, 0o100_600, 1000, &ROOT),
            "/etc/flock/token has mode 0600 and owner uid 1000, and flock-agent runs as root without CAP_DAC_OVERRIDE: \
             chown root /etc/flock/token, or chmod o+r /etc/flock/token"
        );
        let directory = refusal(Path::new("/home/a"), true, 0o40_700, 1000, &ROOT);
        assert!(directory.ends_with("chown root /home/a, or chmod o+x /home/a"), "{directory}");
        let own = refusal(file, false, 0o100_200, 0, &ROOT);
        assert!(own.ends_with("chmod u+r /etc/flock/token"), "{own}");
        let user = refusal(file, false, 0o100_600, 0, &Reader { uid: 7, overrides: false });
        assert!(user.contains("runs as uid 7: chown 7 "), "{user}");
    }

    #[test]
    fn a_mode_that_allows_it_is_not_blamed() {
        for (mode, owner, reader) in
            [(0o600, 1000, Reader { uid: 0, overrides: true }), (0o400, 0, ROOT), (0o604, 1000, ROOT)]
        {
            let text = refusal(Path::new("/f"), false, mode, owner, &reader);
            assert!(text.contains("AppArmor") && !text.contains("chmod"), "{text}");
        }
    }

    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let dir = std::env::temp_dir().join(format!("flock-outside-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let file = dir.join("file");
        fs::write(&file, "12345").expect("writable");
        assert_eq!(read(&file, 5).expect("read"), b"12345");
        assert_eq!(read(&file, 4).expect_err("too long").to_string(), "it is longer than 4 bytes");
        let absent = read(&dir.join("absent"), 4).expect_err("absent");
        assert_eq!((absent.kind(), absent.to_string().as_str()), (io::ErrorKind::NotFound, "there is no such file"));
        let absent = read(&dir.join("a/b/c"), 4).expect_err("absent").to_string();
        assert_eq!(absent, format!("the directory {} is missing", dir.join("a/b").display()));
        std::os::unix::fs::symlink("gone", dir.join("link")).expect("a link");
        let absent = read(&dir.join("link"), 4).expect_err("absent").to_string();
        let gone = dir.join("gone").display().to_string();
        assert_eq!(absent, format!("it is a link to {gone}, and nothing is there: there is no such file"));
        let fifo = dir.join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("a FIFO");
        for other in [&fifo, &dir, Path::new("/dev/zero")] {
            assert!(read(other, 4).expect_err("no file").to_string().contains("regular"), "{}", other.display());
        }
        fs::remove_dir_all(dir).expect("removable");
    }
}
