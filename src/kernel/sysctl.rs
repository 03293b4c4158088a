//! Reads, compares and writes one key under `/proc/sys/net`, in the calling thread's network namespace.
//!
//! A key that has the value already is never written. Must not decide which keys.

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;

use crate::process::failpoint;

/// A key that could not be read or written.
#[derive(Debug)]
pub struct SysctlError {
    /// The key, in path form (`ipv4/ip_forward`).
    pub key: String,
    /// The value that was to be written; none when reading failed.
    pub value: Option<String>,
    /// The system's reason.
    pub error: io::Error,
}

impl fmt::Display for SysctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "set sysctl net/{} to {value}: {}", self.key, self.error),
            None => write!(f, "read sysctl net/{}: {}", self.key, self.error),
        }
    }
}

impl std::error::Error for SysctlError {}

impl SysctlError {
    /// Nothing is wrong with the key: this process, or the host, has no descriptor or memory to spare.
    pub fn is_shortage(&self) -> bool {
        matches!(
            Errno::from_io_error(&self.error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::INTR)
        )
    }
}

/// The value of `key`, without its line end; none when this kernel has no such key.
///
/// # Errors
/// The key is there and cannot be read.
pub fn get(key: &str) -> Result<Option<String>, SysctlError> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SysctlError { key: key.into(), value: None, error }),
    }
}

/// Makes `key` have `value`. Tells whether it had to be written.
///
/// # Errors
/// The key is missing, or may not be written.
pub fn ensure(key: &str, value: &str) -> Result<bool, SysctlError> {
    if get(key)?.as_deref() == Some(value) {
        return Ok(false);
    }
    set(key, value).map(|()| true)
}

/// Writes `value`, of which the caller knows that it is not there yet.
///
/// # Errors
/// The key is missing, or may not be written.
pub fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    failpoint::pass("sysctl.write").and_then(|()| fs::write(path(key), value)).map_err(|error| SysctlError {
        key: key.into(),
        value: Some(value.into()),
        error,
    })
}

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}
