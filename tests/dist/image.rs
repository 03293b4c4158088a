//! The images: that every blob is what it says, what an image is made of, and what it weighs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::containerd::{Containerd, ContainerdRelease};
use crate::documented::block;
use crate::support::host::Host;
use crate::support::programs::succeed;
use crate::support::temp::TempDir;
use crate::{ARCHES, named};

/// What an image may weigh as it is sent.
const LIMIT: u64 = 8 << 20;

struct Layout {
    dir: TempDir,
}

impl Layout {
    fn open(file: &Path) -> Layout {
        let dir = TempDir::new("image");
        succeed(Command::new("tar").arg("-xf").arg(file).arg("-C").arg(dir.path()));
        let layout = Layout { dir };
        assert_eq!(layout.json("oci-layout")["imageLayoutVersion"], "1.0.0");
        layout
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.dir.path().join(name)).expect(name)).expect("JSON")
    }

    /// The file that a descriptor is about, which has its size and digest.
    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a digest").strip_prefix("sha256:").expect("of SHA-256");
        let path = self.dir.path().join("blobs/sha256").join(digest);
        assert_eq!(Some(fs::metadata(&path).expect("a blob").len()), descriptor["size"].as_u64());
        assert!(succeed(Command::new("sha256sum").arg(&path)).starts_with(digest));
        path
    }

    fn read(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&fs::read(self.blob(descriptor)).expect("readable")).expect("JSON")
    }

    /// An image of this machine: two programs, and nothing that they do not need.
    fn assert_image(&self, descriptor: &Value, arch: &str) {
        assert_eq!(descriptor["platform"], serde_json::json!({"architecture": arch, "os": "linux"}));
        let manifest = self.read(descriptor);
        assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        let config = self.read(&manifest["config"]);
        assert_eq!((&config["architecture"], &config["os"]), (&arch.into(), &"linux".into()));
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/flock-agent"]));
        let labels = &config["config"]["Labels"];
        assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
        for label in ["title", "description", "revision", "created", "licenses"] {
            assert!(
                labels[format!("org.opencontainers.image.{label}")].as_str().is_some_and(|it| !it.is_empty()),
                "{label}"
            );
        }
        let [layer] = &manifest["layers"].as_array().expect("layers")[..] else { panic!("one layer: {manifest}") };
        let layer = self.blob(layer);
        let listed = succeed(Command::new("tar").args(["--numeric-owner", "-tvzf"]).arg(&layer));
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines.iter().map(|line| (line[0], line[1], line[5])).collect::<Vec<_>>(),
            [("-rwxr-xr-x", "0/0", "flock"), ("-rwxr-xr-x", "0/0", "flock-agent"),]
        );
        let unpacked = succeed(Command::new("sh").args(["-c", "gzip -dc \"$0\" | sha256sum"]).arg(&layer));
        let digest = config["rootfs"]["diff_ids"][0].as_str().expect("a digest");
        assert_eq!(digest.strip_prefix("sha256:"), unpacked.split(' ').next());
    }
}

#[test]
fn an_image_of_one_machine_is_a_layout_and_what_docker_saves() {
    for (arch, _) in ARCHES {
        let file = named(&format!("image-{arch}.tar"));
        assert!(fs::metadata(&file).expect("a file").len() < LIMIT / 2, "{}", file.display());
        let layout = Layout::open(&file);
        let index = layout.json("index.json");
        layout.assert_image(&index["manifests"][0], arch);
        let manifest = layout.read(&index["manifests"][0]);
        let archive = layout.json("manifest.json");
        let path = |descriptor: &Value| {
            layout.blob(descriptor).strip_prefix(layout.dir.path()).expect("inside").display().to_string()
        };
        assert_eq!(archive[0]["Config"], path(&manifest["config"]));
        assert_eq!(archive[0]["Layers"], serde_json::json!([path(&manifest["layers"][0])]));
        assert_eq!(archive[0]["RepoTags"][0], index["manifests"][0]["annotations"]["io.containerd.image.name"]);
    }
}

#[test]
fn an_image_of_both_machines_is_an_index() {
    let file = named("image.tar");
    assert!(fs::metadata(&file).expect("a file").len() < LIMIT, "{}", file.display());
    let layout = Layout::open(&file);
    let outer = layout.json("index.json");
    assert_eq!(outer["manifests"].as_array().map(Vec::len), Some(1));
    let index = layout.read(&outer["manifests"][0]);
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(ARCHES.len()));
    for (number, (arch, _)) in ARCHES.into_iter().enumerate() {
        layout.assert_image(&index["manifests"][number], arch);
    }
}

#[test]
fn containerd_imports_an_image_and_runs_the_agent_from_it() {
    let name = format!("flock.fritzlab.net/flock:{}", env!("CARGO_PKG_VERSION"));
    for release in ContainerdRelease::ALL {
        let host = Host::with_runtimes();
        let _containerd = Containerd::start(&host, release);
        let ctr = |arguments: &str| succeed(host.daemon(&release.ctr()).args(arguments.split(' ')));
        let (arch, _) =
            ARCHES.into_iter().find(|(_, machine)| *machine == std::env::consts::ARCH).expect("a known machine");
        for file in [named("image.tar"), named(&format!("image-{arch}.tar"))] {
            // What is documented, with what the private host needs.
            let documented = block("Image", 0).trim().strip_prefix("ctr ").expect("a command of ctr");
            let local = if release == ContainerdRelease::Two { "--local " } else { "" };
            let import = documented.replace("import ", &format!("import {local}--snapshotter native "));
            ctr(&import.replace("flock-image.tar", &file.display().to_string()));
            let ctr = |arguments: &str| ctr(&format!("--namespace k8s.io {arguments}"));
            assert!(ctr("images list --quiet").lines().any(|line| line == name));
            let said = ctr(&format!(
                "run --rm --snapshotter native --runc-binary /run/runc-without-shares {name} x /flock-agent --version"
            ));
            assert_eq!(said.trim(), format!("flock-agent {}", env!("CARGO_PKG_VERSION")), "{}", file.display());
            ctr(&format!("images remove --sync {name}"));
        }
    }
}
