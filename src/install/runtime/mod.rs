//! The container runtime of the tree: which one is there, and where it looks for plugins and for its CNI configuration.
//!
//! Each kind has a reader of its own configuration beside this file. What is read is said with its source, since a directory
//! that was guessed wrongly costs an operator an evening. Must not decide between runtimes that contradict each other: the
//! operator does.

mod containerd;
mod containers;
pub mod distributions;
mod pattern;
pub mod places;

use std::path::Path;

use crate::install::runtime::places::{Kind, Runtime, RuntimeError};
use crate::install::tree::Tree;

/// The runtime that `named` says, or the one that is there; none if there is none. Of several that look in the same directories,
/// the first.
///
/// # Errors
/// A configuration cannot be read, or several runtimes contradict each other.
pub fn find(tree: &Tree, named: Option<Kind>) -> Result<Option<Runtime>, RuntimeError> {
    if let Some(kind) = named {
        return read(tree, kind).map(Some);
    }
    let mut found: Vec<Runtime> = Vec::new();
    for kind in Kind::ALL {
        // What people run beside a cluster says nothing of the cluster.
        if (kind == Kind::Podman && !found.is_empty()) || !is_here(tree, kind)? {
            continue;
        }
        found.push(read(tree, kind)?);
    }
    agreed(found)
}

/// Where runtimes of any kind look that are there, as far as they can be read.
pub fn all(tree: &Tree) -> Vec<Runtime> {
    let here = Kind::ALL.into_iter().filter(|kind| is_here(tree, *kind).unwrap_or_default());
    here.filter_map(|kind| read(tree, kind).ok()).collect()
}

/// One runtime for several, if there are directories in which all of them look.
fn agreed(found: Vec<Runtime>) -> Result<Option<Runtime>, RuntimeError> {
    let Some(first) = found.first() else { return Ok(None) };
    let mut common = first.clone();
    common.plugin_dirs.retain(|dir| found.iter().all(|other| other.plugin_dirs.contains(dir)));
    if common.plugin_dirs.is_empty() || found.iter().any(|other| other.conf_dir != first.conf_dir) {
        return Err(RuntimeError::Several(found));
    }
    Ok(Some(common))
}

fn is_here(tree: &Tree, kind: Kind) -> Result<bool, RuntimeError> {
    for mark in marks(kind) {
        if tree.exists(Path::new(mark))? {
            // Docker brings a containerd that serves no kubelet.
            return Ok(kind != Kind::Containerd || !containerd::serves_nobody(tree)?);
        }
    }
    Ok(false)
}

/// Where a runtime looks, also one that is still to come.
fn read(tree: &Tree, kind: Kind) -> Result<Runtime, RuntimeError> {
    match kind {
        Kind::Containerd => containerd::read(tree),
        Kind::Crio => containers::crio(tree),
        Kind::Podman => containers::podman(tree),
        Kind::K3s => distributions::k3s(tree),
        Kind::Rke2 => distributions::rke2(tree),
        Kind::K0s => distributions::k0s(tree),
        Kind::Microk8s => distributions::microk8s(tree),
    }
}

/// What is there if it is: one of these is enough.
fn marks(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Containerd => {
            &[containerd::CONFIG, "/usr/bin/containerd", "/usr/local/bin/containerd", "/opt/bin/containerd"]
        }
        Kind::Crio => &["/etc/crio", "/usr/bin/crio", "/usr/local/bin/crio", "/usr/libexec/crio"],
        Kind::K3s => &[
            "/etc/rancher/k3s",
            "/var/lib/rancher/k3s",
            "/usr/local/bin/k3s",
            "/etc/systemd/system/k3s.service",
            "/etc/systemd/system/k3s-agent.service",
        ],
        Kind::Rke2 => &["/etc/rancher/rke2", "/var/lib/rancher/rke2", "/usr/local/bin/rke2", "/usr/bin/rke2"],
        Kind::K0s => &[
            "/etc/k0s",
            "/var/lib/k0s",
            "/usr/local/bin/k0s",
            "/etc/systemd/system/k0scontroller.service",
            "/etc/systemd/system/k0sworker.service",
        ],
        Kind::Microk8s => &["/var/snap/microk8s", "/snap/microk8s"],
        Kind::Podman => &["/usr/bin/podman", "/usr/local/bin/podman"],
    }
}
