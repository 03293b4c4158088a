//! The Debian package on a Debian that the real systemd has booted: installed, brought to another version and back, removed and purged, with
//! pods on it all the while. By dpkg and the commands of docs/packages.md.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::documented::block;
use crate::support::assets::assets;
use crate::support::host::{HOST4, HOST6, Host, host_addresses};
use crate::support::manifests::{CIDR4, CIDR6, NODE, node_config};
use crate::support::programs::{put_copy, succeed};
use crate::support::temp::TempDir;
use crate::support::waiting::wait_for;
use crate::{ARCHES, released, unpacked};

const PLUGIN: &str = "/usr/lib/cni/flock";
const CONFLIST: &str = "/etc/cni/net.d/01-flock.conflist";

/// What lintian says of a static program, and of nothing else here: both libraries are in it on purpose, and SBOM and NOTICES name them.
const STATIC: [&str; 3] = ["embedded-library", "shared-library-lacks-prerequisites", "statically-linked-binary"];

fn package(arch: &str) -> PathBuf {
    released(&format!("flock-cni_{}-0.1_{arch}.deb", env!("CARGO_PKG_VERSION")))
}

/// This machine's package.
fn own() -> PathBuf {
    let (arch, _) =
        ARCHES.into_iter().find(|(_, machine)| *machine == std::env::consts::ARCH).expect("a known machine");
    package(arch)
}

/// The package of a later revision, whose programs have other bytes.
fn later(dir: &TempDir) -> PathBuf {
    let (tree, file) = (dir.path().join("tree"), dir.path().join("later.deb"));
    let script = "dpkg-deb --raw-extract \"$0\" \"$1\"; sed -i '/^Version:/s/-0.1$/-0.2/' \"$1/DEBIAN/control\"
        for program in usr/sbin/flock-agent usr/lib/cni/flock; do echo later >>\"$1/$program\"; done
        dpkg-deb --root-owner-group --build \"$1\" \"$2\"";
    succeed(Command::new("sh").args(["-ec", script]).args([&own(), &tree, &file]));
    file
}

/// A node before anybody has thought of flock, with what flock would set on it.
fn debian() -> Host {
    let mut boot = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/systemd/boot"));
    boot.env("BOOT_ROOT", assets("dist")).args(["-", "-", &format!("{HOST6}/128"), &format!("{HOST4}/32")]);
    let host = Host::made_by(&mut boot);
    host.wait_until_booted();
    host.run("sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    succeed(&mut host.inside(&format!("hostname {NODE}")));
    host.write("/root/node.yaml", &node_config(CIDR6, CIDR4));
    host.bring(&own(), "flock-cni");
    host
}

impl Host {
    fn bring(&self, package: &Path, name: &str) {
        put_copy(package, self.path(&format!("/root/{name}.deb")));
    }

    /// What commands say while they succeed, typed by root at home.
    fn typed(&self, commands: &str) -> String {
        let mut command = self.inside("env --chdir=/root sh -ec");
        let output = command.arg(commands).output().expect("sh starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{commands}: {said}");
        said
    }

    /// What the agent's process was started from.
    fn runs(&self) -> String {
        self.ask(&format!("readlink /proc/{}/exe", self.property("flock-agent", "MainPID"))).trim().to_owned()
    }
}

#[test]
fn a_node_is_installed_changes_versions_under_pods_and_is_as_before_when_the_package_is_purged() {
    let host = debian();
    let dir = TempDir::new("package");
    host.bring(&later(&dir), "later");
    // The directory stays, since a runtime may watch it.
    host.run("mkdir -p /etc/cni/net.d /etc/systemd/system/sockets.target.wants");
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.everything();

    let said = host.typed("dpkg --install flock-cni.deb");
    assert!(said.contains("flock-cni: nothing is started"), "{said}");
    assert_eq!(
        host.ask("systemctl is-enabled flock-agent.service flock-agent.socket flock-bird flock-announce").trim(),
        ["disabled"; 4].join("\n")
    );
    assert_eq!(host.property("flock-agent.socket", "ActiveState"), "inactive");
    let new: Vec<String> = host.everything().difference(&before).cloned().collect();
    assert!(new.iter().all(|line| line.starts_with("/etc/flock") || line.starts_with("/etc/default")), "{new:?}");
    host.ask("systemd-analyze verify flock-agent.service flock-agent.socket flock-bird.service flock-announce.service");

    // That was its first line; all of them are the same again, and more.
    assert!(block("Debian", 0).starts_with("dpkg --install flock-cni.deb\n"));
    host.typed(block("Debian", 0));
    let flags = fs::read_to_string(host.path("/etc/default/flock-agent")).expect("text");
    wait_for("the CNI configuration", || host.path(CONFLIST).exists().then_some(()));
    host.add(&a).program(PLUGIN).result();

    // Another version is there and not in force, until somebody says so.
    let agent = host.property("flock-agent", "MainPID");
    for (version, other) in [("later", "b"), ("flock-cni", "c")] {
        let said = host.typed(&format!("dpkg --install {version}.deb"));
        assert!(said.contains("to change over: systemctl restart flock-agent"), "{said}");
        assert!(host.runs().ends_with(" (deleted)"), "{}", host.runs());
        a.assert_pings(host_addresses());
        // The other version's plugin with this agent.
        let other = if other == "b" { None } else { Some(host.pod(other)) };
        let pod = other.as_ref().unwrap_or(&b);
        host.add(pod).program(PLUGIN).result();
        host.typed(block("Debian", 1));
        assert_eq!(host.runs(), "/usr/sbin/flock-agent");
        assert_ne!(host.property("flock-agent", "MainPID"), agent);
        a.assert_pings(host_addresses());
        host.del(pod).program(PLUGIN).done();
    }
    assert_eq!(fs::read_to_string(host.path("/etc/default/flock-agent")).expect("text"), flags, "the operator's");
    host.run("ip netns del c");

    // Taken away under a pod: dpkg has its way, and the pod goes on.
    let agent = host.property("flock-agent", "MainPID");
    let said = host.typed("dpkg --remove flock-cni");
    assert!(said.contains("flock-cni: pods are attached (1)"), "{said}");
    let said = host.typed(block("Debian", 2));
    assert!(said.contains("flock-cni: pods are attached (1)"), "{said}");
    assert_eq!(host.property("flock-agent", "MainPID"), agent);
    assert!(host.path(CONFLIST).exists() && host.path("/run/flock/state").exists());
    a.assert_pings(host_addresses());
    assert!(!host.path(PLUGIN).exists());

    // As it was told: installed again, the pod can go, and then all of flock.
    host.typed("dpkg --install flock-cni.deb");
    assert_eq!(host.property("flock-agent", "MainPID"), agent);
    host.del(&a).program(PLUGIN).done();
    let said = host.typed(block("Debian", 2));
    assert!(said.contains("removed /etc/cni/net.d/01-flock.conflist"), "{said}");
    assert_eq!(host.property("flock-agent.service", "LoadState"), "not-found");
    assert_eq!(host.property("flock-agent.socket", "LoadState"), "not-found");
    // The operator's file is the operator's to remove.
    host.run("rm -r /etc/flock");
    let after = host.everything();
    assert_eq!(before.symmetric_difference(&after).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn a_package_that_is_removed_while_pods_live_and_purged_when_none_does_leaves_nothing_of_flock() {
    let host = debian();
    host.typed(block("Debian", 0));
    let a = host.pod("a");
    host.add(&a).program(PLUGIN).result();
    // Another system below this one, such as an image that is being built, has no pods, whoever's links it sees.
    let image = "mount -t tmpfs none /run; dpkg --purge flock-cni; dpkg --install /root/flock-cni.deb";
    let said = succeed(host.inside("unshare --mount sh -ec").arg(image));
    assert!(!said.contains("attached") && !said.contains("next:"), "{said}");
    host.typed("dpkg --remove flock-cni");
    // As by a reboot: the pods go, and no agent is there.
    host.systemctl("stop flock-agent.socket flock-agent.service");
    a.vanish();
    wait_for("the link to go", || host.run("ip -o link").matches("flock").next().is_none().then_some(()));
    let said = host.typed(block("Debian", 2));
    assert!(!said.contains("attached"), "{said}");
    for path in ["/run/flock", CONFLIST, "/etc/default/flock-agent", PLUGIN] {
        assert!(!host.path(path).exists(), "{path}");
    }
    assert!(host.path("/etc/flock/node.yaml").exists(), "the operator's");
}

#[test]
fn lintian_finds_nothing_but_that_the_programs_are_static() {
    for (arch, _) in ARCHES {
        let output = Command::new("lintian")
            .args(["--allow-root", "--no-cfg", "--tag-display-limit", "0"])
            .arg(package(arch))
            .output();
        let output = output.expect("lintian starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in said.lines().filter(|line| !line.starts_with("N:")) {
            let tag = line.split(' ').nth(2).expect("a tag");
            assert!(STATIC.contains(&tag), "{arch}: {line}");
        }
        assert!(!said.contains("overrid"), "{said}");
    }
}

/// Where the package has what shells and `man` look for, and where the tarball has the same.
const PAGES: [(&str, &str); 6] = [
    ("usr/share/man/man8/flock-agent.8.gz", "man/man8/flock-agent.8"),
    ("usr/share/man/man8/flock-cni.8.gz", "man/man8/flock-cni.8"),
    ("usr/share/man/man5/flock-nodeconfig.5.gz", "man/man5/flock-nodeconfig.5"),
    ("usr/share/bash-completion/completions/flock-agent", "completions/flock-agent.bash"),
    ("usr/share/zsh/vendor-completions/_flock-agent", "completions/_flock-agent"),
    ("usr/share/fish/vendor_completions.d/flock-agent.fish", "completions/flock-agent.fish"),
];

#[test]
fn manual_pages_can_be_read_and_completions_are_where_shells_look() {
    for (arch, _) in ARCHES {
        let dir = TempDir::new("pages");
        succeed(Command::new("dpkg-deb").arg("--extract").arg(package(arch)).arg(dir.path()));
        let (_tarball, tarball) = unpacked(arch);
        for (installed, beside) in PAGES {
            let path = dir.path().join(installed);
            let text = succeed(Command::new("zcat").arg("--force").arg(&path));
            assert_eq!(text, fs::read_to_string(tarball.join(beside)).expect("text"), "{arch}: {installed}");
            let Some(name) = installed.strip_suffix(".gz") else { continue };
            // Both of the programs that show manual pages, with nothing to complain about.
            let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(tarball.join(beside)).output();
            let lint = lint.expect("mandoc starts");
            assert!(lint.status.success() && lint.stdout.is_empty(), "{}", String::from_utf8_lossy(&lint.stdout));
            let man =
                Command::new("man").env("MANWIDTH", "80").args(["--warnings", "--local-file"]).arg(&path).output();
            let man = man.expect("man starts");
            let shown = String::from_utf8_lossy(&man.stdout);
            assert!(man.status.success() && man.stderr.is_empty(), "{}", String::from_utf8_lossy(&man.stderr));
            let title = name.rsplit('/').next().and_then(|name| name.rsplit_once('.')).expect("a section");
            assert!(shown.starts_with(&format!("{}({})", title.0.to_uppercase(), title.1)), "{shown}");
            assert!(shown.contains("\nEXIT STATUS\n") || shown.contains("\nPOD ANNOTATIONS\n"), "{shown}");
        }
    }
}
