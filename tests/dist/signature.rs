//! Signed and checked as docs/packages.md says, with keys of the test's own.

use std::fs;
use std::process::Command;

use crate::documented::block;
use crate::support::programs::succeed;
use crate::support::temp::TempDir;
use crate::{named, released};

#[test]
fn what_was_signed_is_accepted_and_what_was_changed_is_not() {
    let dir = TempDir::new("signature");
    let image = named("image.tar");
    for file in [&image, &released("SHA256SUMS")] {
        succeed(Command::new("cp").arg(file).arg(dir.path()));
    }
    let sh = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output().expect("sh starts");
        output.status.success()
    };
    assert!(sh("minisign -G -W -p flock.pub -s flock.key >/dev/null && minisign -S -s flock.key -m SHA256SUMS"));
    let check = block("Check what you have", 0);
    assert!(sh(check));

    // A file that is not what was signed, and sums that are not.
    let path = dir.path().join(image.file_name().expect("a name"));
    let mut bytes = fs::read(&path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("written");
    assert!(!sh(check));
    assert!(sh("sha256sum flock-*-image.tar >SHA256SUMS && sha256sum --check SHA256SUMS"));
    assert!(!sh(check));
}
