//! The one way in which flock replaces a file: written beside its name, synced, renamed, and the directory synced.
//!
//! Whoever opens the file meanwhile, or after a power cut, finds the old or the new content, each whole. Must not know what the
//! files are for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::process::failpoint;

/// A file that is to be replaced.
#[derive(Debug, Clone, Copy)]
pub struct Replacement<'a> {
    /// The directory that holds the file, open for reading.
    pub dir: BorrowedFd<'a>,
    /// Name of the file in `dir`.
    pub name: &'a OsStr,
    /// Name of the new file in `dir` until it is whole. Nobody else may use it at the same time; what a process that was killed
    /// has left there is removed.
    pub beside: &'a OsStr,
    /// Permissions of the new file, whatever the umask.
    pub mode: u32,
}

impl Replacement<'_> {
    /// Gives the file this content, durably.
    ///
    /// # Errors
    /// The old or the new content is in force, each whole. Nothing is left beside it, unless that could not be removed either.
    pub fn write(&self, content: &[u8]) -> io::Result<()> {
        self.prepare(content).and_then(|()| self.put_in_place()).inspect_err(|_| self.abandon())
    }

    /// Writes the new file beside the old one, durably.
    ///
    /// # Errors
    /// A part of it may be there; [`Replacement::abandon`] removes it.
    pub fn prepare(&self, content: &[u8]) -> io::Result<()> {
        failpoint::pass("replace.create")?;
        self.remove()?;
        // A file that was not there before: neither a link nor anything else that somebody puts there is followed.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(self.dir, self.beside, flags, Mode::from(0o600))?);
        // A child that another thread is just starting holds the file for a moment longer than its name: its room must not be
        // missing meanwhile, on a disk that is full.
        self.fill(&mut file, content).inspect_err(|_| drop(file.set_len(0)))
    }

    fn fill(&self, file: &mut File, content: &[u8]) -> io::Result<()> {
        failpoint::pass("replace.write")?;
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first)?;
        failpoint::pass("replace.half")?;
        file.write_all(second)?;
        failpoint::pass("replace.chmod")?;
        fchmod(&*file, Mode::from(self.mode))?;
        failpoint::pass("replace.sync")?;
        file.sync_all()
    }

    /// Gives the new file, which is whole and durable, the name of the old one, durably.
    ///
    /// # Errors
    /// Either of them may have the name.
    pub fn put_in_place(&self) -> io::Result<()> {
        failpoint::pass("replace.rename")?;
        renameat(self.dir, self.beside, self.dir, self.name)?;
        failpoint::pass("replace.renamed")?;
        // Another descriptor of the directory, since `self.dir` may be one that cannot be synced.
        let dir = openat(self.dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(dir)?)
    }

    /// Removes the new file that has not got its name. Where that fails, the next replacement does it.
    pub fn abandon(&self) {
        self.remove().ok();
    }

    fn remove(&self) -> io::Result<()> {
        match unlinkat(self.dir, self.beside, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("flock-replacement-{name}-{}", std::process::id()));
            fs::remove_dir_all(&path).ok();
            fs::create_dir(&path).expect("a directory");
            Scratch(path)
        }

        fn replace(&self, name: &str, content: &str) -> io::Result<()> {
            let dir = File::open(&self.0).expect("a directory");
            let names = (OsStr::new(name), OsStr::new("beside"));
            Replacement { dir: dir.as_fd(), name: names.0, beside: names.1, mode: 0o640 }.write(content.as_bytes())
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a directory");
            let mut names: Vec<String> =
                entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn a_replaced_file_has_the_new_content_and_permissions_and_nothing_else_is_left() {
        let scratch = Scratch::new("content");
        for content in ["one", "", "three"] {
            // Left by somebody who was killed; what a link leads to stays as it is.
            symlink("kept", scratch.0.join("beside")).expect("a link");
            scratch.replace("file", content).expect("replaced");
            assert_eq!(fs::read_to_string(scratch.0.join("file")).expect("text"), content);
            assert_eq!(scratch.0.join("file").metadata().expect("there").permissions().mode() & 0o7777, 0o640);
            assert_eq!(scratch.names(), ["file"]);
        }
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays_and_nothing_is_left_beside_it() {
        let scratch = Scratch::new("refused");
        fs::create_dir(scratch.0.join("file")).expect("a directory");
        scratch.replace("file", "new").expect_err("a directory is in its place");
        assert_eq!(scratch.names(), ["file"]);
    }
}
