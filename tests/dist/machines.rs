//! The programs on the machines that they are for: here, or on an emulated processor.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::programs::succeed;
use crate::{ARCHES, unpacked};

/// `program`, by an emulator where this is no such machine.
fn on(machine: &str, program: &Path) -> Command {
    if machine == std::env::consts::ARCH {
        return Command::new(program);
    }
    let mut command = Command::new(format!("qemu-{machine}-static"));
    command.arg(program);
    command
}

#[test]
fn programs_of_each_machine_run_and_say_the_same() {
    let mut said = Vec::new();
    for (arch, machine) in ARCHES {
        let (_dir, root) = unpacked(arch);
        let agent = root.join("flock-agent");
        let version = succeed(on(machine, &agent).arg("--version"));
        assert_eq!(version.trim(), format!("flock-agent {}", env!("CARGO_PKG_VERSION")), "{arch}");
        let help = succeed(on(machine, &agent).arg("--help"));
        let configuration = std::fs::read(root.join("cni-conf/01-flock.conflist")).expect("readable");
        let mut plugin = on(machine, &root.join("flock"));
        plugin.env("CNI_COMMAND", "VERSION").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = plugin.spawn().expect("the plugin starts");
        child.stdin.take().expect("piped").write_all(&configuration).expect("written");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{arch}");
        said.push((help, String::from_utf8(output.stdout).expect("text")));
    }
    assert!(said[0].1.contains("supportedVersions"), "{}", said[0].1);
    assert_eq!(said[0], said[1]);
}
