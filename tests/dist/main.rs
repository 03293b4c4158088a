//! What `make dist` has made, looked at as who gets it would: by tar, sha256sum and readelf, never by the scripts that made it. Run by
//! `make test-dist`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs
)]

#[path = "../runtimes/containerd.rs"]
#[allow(dead_code, reason = "its stories use the rest")]
mod containerd;
mod documented;
mod files;
#[path = "../systemd/host.rs"]
#[allow(dead_code, reason = "its stories use the rest")]
mod host;
mod image;
mod inventory;
mod machines;
mod package;
mod signature;
#[path = "../support/mod.rs"]
mod support;
mod twice;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::programs::succeed;
use crate::support::temp::TempDir;

/// The machines by the names that Debian and images give them, with the first part of their targets.
const ARCHES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

/// A file of the release.
fn released(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dist").join(name);
    assert!(path.exists(), "{} is missing: make dist", path.display());
    path
}

/// `flock-VERSION-REST` of the release.
fn named(rest: &str) -> PathBuf {
    released(&format!("flock-{}-{rest}", env!("CARGO_PKG_VERSION")))
}

/// The tarball of this machine, unpacked.
fn unpacked(arch: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new("dist");
    let tarball = named(&format!("linux-{arch}.tar.gz"));
    succeed(Command::new("tar").arg("-xzf").arg(tarball).arg("-C").arg(dir.path()));
    let root = dir.path().join(format!("flock-{}-linux-{arch}", env!("CARGO_PKG_VERSION")));
    (dir, root)
}
