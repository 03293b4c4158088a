//! A text that must never be printed: tokens, passwords, keys.
//!
//! A secret has no `Display`, and its `Debug` says only that something is there, so that no error and no log line can hold one
//! by accident.

use std::fmt;
use std::io;
use std::path::Path;

use crate::process::foreign_file;

/// Longest file that is read, 1 MiB: kubeconfig, certificate, key, token.
const FILE_MAX: u64 = 1 << 20;

/// Bytes that are not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Hides `content`.
    pub fn new(content: impl Into<Vec<u8>>) -> Secret {
        Secret(content.into().into_boxed_slice())
    }

    /// What stands in the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is no regular file, or is too long to be what it should be.
    pub fn in_file(path: &Path) -> io::Result<Secret> {
        foreign_file::read(path, FILE_MAX).map(Secret::new)
    }

    /// The content, for the wire and nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
