//! Two builds give the same bytes: the release as it is, and one of the same source in another directory, with nothing built before. Takes a whole
//! release build, so `make test-dist` runs it with FLOCK_DIST_TWICE=1 only.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::released;
use crate::support::programs::succeed;
use crate::support::temp::TempDir;

#[test]
fn another_directory_another_time_and_another_user_s_settings_give_the_same_bytes() {
    let dir = TempDir::new("twice");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    // What git knows of, as it is here, also where it is not committed.
    let copy = "git ls-files -z | xargs -0 cp --parents -t \"$0\"";
    succeed(Command::new("sh").args(["-ec", copy]).arg(dir.path()).current_dir(source));
    let git = |arguments: &[&str]| succeed(Command::new("git").args(arguments).current_dir(source)).trim().to_owned();
    let machine = std::env::consts::ARCH;
    let mut again = Command::new("dist/all");
    again.current_dir(dir.path()).env("FLOCK_DIST_MACHINES", machine);
    again
        .env("SOURCE_DATE_EPOCH", git(&["log", "-1", "--format=%ct"]))
        .env("FLOCK_REVISION", git(&["rev-parse", "HEAD"]));
    // Whatever somebody may have set.
    again.envs([
        ("TZ", "Asia/Tokyo"),
        ("LC_ALL", "C.UTF-8"),
        ("RUSTFLAGS", "-Cdebuginfo=1"),
        ("CFLAGS", "-g"),
        ("USER", "somebody"),
    ]);
    succeed(&mut again);
    let other = dir.path().join("target/dist");
    let mut same = 0;
    for entry in fs::read_dir(&other).expect("a directory") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        // The sums are of one machine here, and of both there.
        if name != "SHA256SUMS" {
            let files = [other.join(&name), released(&name)];
            let [one, two] = files.map(|file| fs::read(file).expect("readable"));
            assert!(one == two, "{name} differs");
            same += 1;
        }
    }
    assert_eq!(same, 4);
}
