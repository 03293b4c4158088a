//! kube-proxy: whether it knows which packets are of pods of this node.
//!
//! By what the process that runs was told. Without that knowledge it takes pods for strangers and gives what they send to Services
//! the node's address. Must not read what no proxy of this host reads.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use crate::operator::check::finding::{Area, Finding};
use crate::process::foreign_file;
use model::addr::POD_LINKS;
use model::excerpt::Excerpt;
use model::text;

/// Longest file that is read, 1 MiB.
const FILE_MAX: u64 = 1 << 20;

/// What suits flock in any cluster.
const CURE: &str = "in the configuration of kube-proxy (kubectl -n kube-system edit configmap kube-proxy), then restart it:\n\
                    detectLocalMode: InterfaceNamePrefix\n\
                    detectLocal: {interfaceNamePrefix: flock}";

/// What of a KubeProxyConfiguration decides who is local.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Local {
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    detect_local_mode: Option<String>,
    detect_local: Option<Detect>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Detect {
    bridge_interface: Option<String>,
    interface_name_prefix: Option<String>,
}

/// How it is with the proxy of this host, below `proc`, for pods in `ranges`.
pub fn look(proc: &Path, ranges: &[IpNet]) -> Vec<Finding> {
    let Some((process, arguments)) = running(proc) else {
        return vec![Finding::ok(Area::KubeProxy, "none runs on this host")];
    };
    let flag = |name: &str| {
        arguments.iter().enumerate().find_map(|(at, argument)| {
            let argument = argument.to_str()?.trim_start_matches('-');
            match argument.strip_prefix(name)? {
                "" => arguments.get(at + 1)?.to_str(),
                value => value.strip_prefix('='),
            }
        })
    };
    let local = match flag("config") {
        None => Local {
            cluster_cidr: flag("cluster-cidr").map(str::to_owned),
            detect_local_mode: flag("detect-local-mode").map(str::to_owned),
            detect_local: Some(Detect {
                bridge_interface: flag("pod-bridge-interface").map(str::to_owned),
                interface_name_prefix: flag("pod-interface-name-prefix").map(str::to_owned),
            }),
        },
        Some(file) => match configuration(&process, file) {
            Ok(local) => local,
            Err(why) => {
                let what = format!("{} of the kube-proxy that runs was not looked at: {why}", Excerpt::line(file, 256));
                return vec![Finding::warn(Area::KubeProxy, what)];
            }
        },
    };
    vec![judge(&local, ranges)]
}

/// The process of a proxy in this network namespace, and its arguments.
fn running(proc: &Path) -> Option<(PathBuf, Vec<OsString>)> {
    let own = fs::read_link(proc.join("thread-self/ns/net")).ok();
    let processes = fs::read_dir(proc).ok()?.flatten().map(|entry| entry.path());
    processes.into_iter().find_map(|process| {
        let name = fs::read_to_string(process.join("comm")).ok()?;
        // The kernel shows fifteen characters, which are enough for this one.
        (name.trim() == "kube-proxy").then_some(())?;
        let other = fs::read_link(process.join("ns/net")).ok();
        (own.is_none() || own == other).then_some(())?;
        let line = foreign_file::read(&process.join("cmdline"), FILE_MAX).ok()?;
        let arguments = line.split(|byte| *byte == 0).skip(1).map(|word| std::ffi::OsStr::from_bytes(word).to_owned());
        Some((process, arguments.collect()))
    })
}

/// The configuration, as the process sees it.
fn configuration(process: &Path, file: &str) -> Result<Local, String> {
    let inside = process.join("root").join(file.trim_start_matches('/'));
    let bytes = foreign_file::read(&inside, FILE_MAX).map_err(|error| error.to_string())?;
    let text = text::decoded(&bytes).map_err(|error| error.to_string())?;
    // Its messages quote values, which may be anything.
    let read = text::document::<Local>(&text).map_err(|_| "it is no KubeProxyConfiguration".to_owned())?;
    Ok(read.unwrap_or_default())
}

fn judge(local: &Local, ranges: &[IpNet]) -> Finding {
    let mode = local.detect_local_mode.as_deref().filter(|mode| !mode.is_empty()).unwrap_or("ClusterCIDR");
    let detect = local.detect_local.clone().unwrap_or_default();
    match mode {
        "InterfaceNamePrefix" => {
            let prefix = detect.interface_name_prefix.unwrap_or_default();
            if !prefix.is_empty() && POD_LINKS.starts_with(&prefix) {
                return Finding::ok(
                    Area::KubeProxy,
                    format!("knows pods by their links: interfaceNamePrefix {prefix}"),
                );
            }
            let what = format!(
                "interfaceNamePrefix {} is not what pods' links begin with: Services lose the pods' source address",
                Excerpt::of(&prefix)
            );
            Finding::warn(Area::KubeProxy, what).cured_by(CURE)
        }
        "ClusterCIDR" => {
            let cidrs = local.cluster_cidr.as_deref().unwrap_or_default();
            let known: Vec<IpNet> = cidrs.split(',').filter_map(|cidr| cidr.trim().parse().ok()).collect();
            let strange = ranges.iter().find(|range| !known.iter().any(|cidr| cidr.contains(*range)));
            match strange {
                _ if cidrs.is_empty() => {
                    Finding::ok(Area::KubeProxy, "has no clusterCIDR, and takes nobody's source address away")
                }
                Some(range) => {
                    let what = format!(
                        "clusterCIDR {} does not hold {range}: Services lose the pods' source address",
                        Excerpt::line(cidrs, 256)
                    );
                    Finding::warn(Area::KubeProxy, what).cured_by(CURE)
                }
                None => Finding::ok(
                    Area::KubeProxy,
                    format!("clusterCIDR {} holds the node's ranges", Excerpt::line(cidrs, 256)),
                ),
            }
        }
        "NodeCIDR" => Finding::ok(
            Area::KubeProxy,
            "knows pods by spec.podCIDRs of the Node (detectLocalMode NodeCIDR), which have to be the node's ranges",
        ),
        other => {
            let what = format!(
                "detectLocalMode {} finds no pod of flock: Services lose the pods' source address",
                Excerpt::of(other)
            );
            Finding::warn(Area::KubeProxy, what).cured_by(CURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::finding::Level;

    fn judged(yaml: &str) -> (Level, String) {
        let local = text::document::<Local>(yaml).expect("YAML").unwrap_or_default();
        let ranges = ["10.25.214.0/24", "2001:db8:1::/64"].map(|net| net.parse().expect("literal"));
        let finding = judge(&local, &ranges);
        assert_eq!(finding.remedy.is_some(), finding.level == Level::Warn, "{finding:?}");
        (finding.level, finding.what)
    }

    #[test]
    fn a_proxy_has_to_know_which_packets_are_of_pods() {
        for (yaml, level, said) in [
            ("clusterCIDR: 10.244.0.0/16", Level::Warn, "clusterCIDR 10.244.0.0/16 does not hold 10.25.214.0/24"),
            ("clusterCIDR: 10.0.0.0/8", Level::Warn, "does not hold 2001:db8:1::/64"),
            ("clusterCIDR: '10.0.0.0/8,2001:db8::/32'", Level::Ok, "holds the node's ranges"),
            ("clusterCIDR: ''\nmode: nftables", Level::Ok, "no clusterCIDR"),
            ("detectLocalMode: NodeCIDR", Level::Ok, "spec.podCIDRs"),
            (
                "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: flock}",
                Level::Ok,
                "interfaceNamePrefix flock",
            ),
            ("detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: cali}", Level::Warn, "\"cali\""),
            ("detectLocalMode: InterfaceNamePrefix", Level::Warn, "\"\" is not"),
            ("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}", Level::Warn, "BridgeInterface"),
        ] {
            let (found, what) = judged(yaml);
            assert!(found == level && what.contains(said), "{yaml}: {found:?} {what}");
        }
    }
}
