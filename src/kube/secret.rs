//! A text that must never be printed: tokens, passwords, keys.
//!
//! There is no `Display`, and `Debug` says only that something is there, so that no error and no log line can hold one
//! by accident.

use std::fmt;

/// A text that is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Hides `content`.
    pub fn new(content: impl Into<Vec<u8>>) -> Secret {
        Secret(content.into().into_boxed_slice())
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
