//! Certificates and keys as configuration names them: bytes that stand in the configuration itself, or in a file that others renew.
//!
//! Must not look into the bytes; `credentials` does. Prints where they come from, and never what they are.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::kube::secret::Secret;

/// Bytes that stand in the kubeconfig, or in a file that is read anew each time.
#[derive(Clone)]
pub struct Pem {
    origin: Origin,
    content: Option<Secret>,
}

/// Where a piece of configuration came from, for errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file that holds it.
    File(PathBuf),
    /// A kubeconfig, without a path the one that is in use, and its field that holds it.
    Field(PathBuf, String),
    /// The plugin said it.
    Plugin(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Field(path, field) if path.as_os_str().is_empty() => write!(f, "the kubeconfig's {field}"),
            Origin::Field(path, field) => write!(f, "{}: {field}", path.display()),
            Origin::Plugin(path) => write!(f, "exec plugin {}", path.display()),
        }
    }
}

impl Pem {
    /// What stands in this file at the time of reading.
    pub fn file(path: impl Into<PathBuf>) -> Pem {
        Pem { origin: Origin::File(path.into()), content: None }
    }

    /// The bytes themselves, and where they stood.
    pub fn inline(origin: Origin, content: Secret) -> Pem {
        Pem { origin, content: Some(content) }
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether it is always the same.
    pub fn is_inline(&self) -> bool {
        self.content.is_some()
    }

    /// The bytes as they are now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<Secret, io::Error> {
        match (&self.content, &self.origin) {
            (Some(content), _) => Ok(content.clone()),
            (None, Origin::File(path)) => Secret::in_file(path),
            (None, Origin::Field(..) | Origin::Plugin(_)) => Ok(Secret::new([])),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({})", self.origin)
    }
}
