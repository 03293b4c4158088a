//! kube-proxy: whether it knows which packets are of pods of this node.
//!
//! By what the process that runs was told, be it kube-proxy or k3s or MicroK8s, which have one inside. Without that knowledge it
//! takes pods for strangers and gives what they send to Services the node's address. Must not read what no proxy of this host
//! reads.

use std::ffi::OsString;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;

use crate::install::runtime::distributions;
use crate::install::tree::Tree;
use crate::operator::check::finding::{Area, Finding};
use crate::operator::check::processes::Process;
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

/// The same for those that are inside of others.
const K3S_CURE: &str = "in /etc/rancher/k3s/config.yaml, then systemctl restart k3s (k3s-agent on nodes without a server):\n\
                        kube-proxy-arg:\n\
                        - detect-local-mode=InterfaceNamePrefix\n\
                        - pod-interface-name-prefix=flock";
const MICROK8S_CURE: &str = "in /var/snap/microk8s/current/args/kube-proxy, then snap restart microk8s.daemon-kubelite:\n\
                             --detect-local-mode=InterfaceNamePrefix\n\
                             --pod-interface-name-prefix=flock";

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

/// The name of the program, and of those that have a proxy inside. The kernel shows fifteen characters of a name.
const PROXY: &str = "kube-proxy";
const K3S_SERVER: &str = "k3s-server";
const K3S_AGENT: &str = "k3s-agent";
const MICROK8S: &str = "kubelite";

/// All of them.
pub const NAMES: [&str; 4] = [PROXY, K3S_SERVER, K3S_AGENT, MICROK8S];

/// Where MicroK8s has the flags of its proxy.
const MICROK8S_FLAGS: &str = "/var/snap/microk8s/current/args/kube-proxy";

/// The pods' range of k3s, unless its server is told otherwise.
const K3S_CIDR: &str = "10.42.0.0/16";

/// How it is with the proxy of this host, on which these processes run, for pods in `ranges`.
pub fn look(processes: &[Process], ranges: &[IpNet]) -> Vec<Finding> {
    let of = |names: &[&str]| processes.iter().find(|process| names.contains(&process.name.as_str()));
    if let Some(process) = of(&[PROXY]) {
        return vec![of_process(process, &process.arguments, ranges)];
    }
    if let Some(process) = of(&[K3S_SERVER, K3S_AGENT]) {
        return vec![of_k3s(process, ranges)];
    }
    if let Some(process) = of(&[MICROK8S]) {
        return vec![of_microk8s(process, ranges)];
    }
    vec![Finding::ok(Area::KubeProxy, "none runs on this host")]
}

/// By the arguments of a proxy, which may name a file of `process`.
fn of_process(process: &Process, arguments: &[OsString], ranges: &[IpNet]) -> Finding {
    match flag(arguments, "config") {
        None => judge(&by_flags(arguments), ranges).cured(CURE),
        Some(file) => match configuration(process, file) {
            Ok(local) => judge(&local, ranges).cured(CURE),
            Err(why) => unseen(&format!("{} of the kube-proxy that runs", Excerpt::line(file, 256)), &why),
        },
    }
}

/// The proxy inside k3s, whose own arguments nobody sees. Those that k3s gives it follow from its settings.
fn of_k3s(process: &Process, ranges: &[IpNet]) -> Finding {
    let settings = Tree::open(Path::new("/")).map_err(|error| error.to_string());
    let settings = match settings.and_then(|tree| distributions::k3s_settings(&tree).map_err(|error| error.to_string()))
    {
        Ok(settings) => settings,
        Err(why) => return unseen("the kube-proxy inside k3s", &why),
    };
    if settings.get("disable-kube-proxy").as_deref() == Some("true") {
        return Finding::ok(Area::KubeProxy, "k3s runs none, as of disable-kube-proxy");
    }
    let arguments: Vec<OsString> =
        settings.all("kube-proxy-arg").iter().map(|given| format!("--{given}").into()).collect();
    let mut local = by_flags(&arguments);
    if local.cluster_cidr.is_none() && local.detect_local_mode.is_none() && process.name == K3S_AGENT {
        let what = "takes its clusterCIDR from the server of k3s, and that has to hold the node's ranges";
        return Finding::ok(Area::KubeProxy, what);
    }
    if local.cluster_cidr.is_none() {
        local.cluster_cidr = Some(settings.get("cluster-cidr").unwrap_or_else(|| K3S_CIDR.into()));
    }
    match flag(&arguments, "config") {
        Some(_) => of_process(process, &arguments, ranges),
        None => judge(&local, ranges).cured(K3S_CURE),
    }
}

/// The proxy inside MicroK8s.
fn of_microk8s(process: &Process, ranges: &[IpNet]) -> Finding {
    let flags = foreign_file::read(Path::new(MICROK8S_FLAGS), FILE_MAX);
    let flags = match flags {
        Ok(flags) => String::from_utf8_lossy(&flags).into_owned(),
        Err(error) => return unseen(MICROK8S_FLAGS, &error.to_string()),
    };
    let lines = flags.lines().filter(|line| !line.trim_start().starts_with('#'));
    let arguments: Vec<OsString> = lines.flat_map(str::split_whitespace).map(OsString::from).collect();
    match flag(&arguments, "config") {
        Some(_) => of_process(process, &arguments, ranges),
        None => judge(&by_flags(&arguments), ranges).cured(MICROK8S_CURE),
    }
}

fn unseen(what: &str, why: &str) -> Finding {
    Finding::warn(Area::KubeProxy, format!("{what} was not looked at: {why}"))
}

/// The value of a flag, as `--name=value` or as two words.
fn flag<'a>(arguments: &'a [OsString], name: &str) -> Option<&'a str> {
    arguments.iter().enumerate().find_map(|(at, argument)| {
        let argument = argument.to_str()?.trim_start_matches('-');
        match argument.strip_prefix(name)? {
            "" => arguments.get(at + 1)?.to_str(),
            value => value.strip_prefix('='),
        }
    })
}

fn by_flags(arguments: &[OsString]) -> Local {
    let flag = |name| flag(arguments, name).map(str::to_owned);
    Local {
        cluster_cidr: flag("cluster-cidr"),
        detect_local_mode: flag("detect-local-mode"),
        detect_local: Some(Detect {
            bridge_interface: flag("pod-bridge-interface"),
            interface_name_prefix: flag("pod-interface-name-prefix"),
        }),
    }
}

/// The configuration, as the process sees it.
fn configuration(process: &Process, file: &str) -> Result<Local, String> {
    let inside = process.dir.join("root").join(file.trim_start_matches('/'));
    let bytes = foreign_file::read(&inside, FILE_MAX).map_err(|error| error.to_string())?;
    let text = text::decoded(&bytes).map_err(|error| error.to_string())?;
    // Its messages quote values, which may be anything.
    let read = text::document::<Local>(&text).map_err(|_| "it is no KubeProxyConfiguration".to_owned())?;
    Ok(read.unwrap_or_default())
}

/// How a proxy tells pods from others.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// In a way that suits flock.
    Suits(String),
    /// In one that does not.
    Differs(String),
}

impl Judged {
    /// With what whoever runs such a proxy does about it.
    fn cured(self, cure: &str) -> Finding {
        match self {
            Judged::Suits(what) => Finding::ok(Area::KubeProxy, what),
            Judged::Differs(what) => Finding::warn(Area::KubeProxy, what).cured_by(cure),
        }
    }
}

fn judge(local: &Local, ranges: &[IpNet]) -> Judged {
    let mode = local.detect_local_mode.as_deref().filter(|mode| !mode.is_empty()).unwrap_or("ClusterCIDR");
    let detect = local.detect_local.clone().unwrap_or_default();
    match mode {
        "InterfaceNamePrefix" => {
            let prefix = detect.interface_name_prefix.unwrap_or_default();
            if !prefix.is_empty() && POD_LINKS.starts_with(&prefix) {
                return Judged::Suits(format!("knows pods by their links: interfaceNamePrefix {prefix}"));
            }
            Judged::Differs(format!(
                "interfaceNamePrefix {} is not what pods' links begin with: Services lose the pods' source address",
                Excerpt::of(&prefix)
            ))
        }
        "ClusterCIDR" => by_cidrs(local.cluster_cidr.as_deref().unwrap_or_default(), ranges),
        "NodeCIDR" => Judged::Suits(
            "knows pods by spec.podCIDRs of the Node (detectLocalMode NodeCIDR), which have to be the node's ranges"
                .into(),
        ),
        other => Judged::Differs(format!(
            "detectLocalMode {} finds no pod of flock: Services lose the pods' source address",
            Excerpt::of(other)
        )),
    }
}

fn by_cidrs(cidrs: &str, ranges: &[IpNet]) -> Judged {
    let shown = Excerpt::line(cidrs, 256);
    let known: Vec<IpNet> = cidrs.split(',').filter_map(|cidr| cidr.trim().parse().ok()).collect();
    // Of a family without any, it takes nobody's source address away.
    let of_family = |range: &&IpNet| known.iter().any(|cidr| cidr.addr().is_ipv4() == range.addr().is_ipv4());
    let mut judged = ranges.iter().filter(of_family);
    match judged.find(|range| !known.iter().any(|cidr| cidr.contains(*range))) {
        _ if known.is_empty() => Judged::Suits("has no clusterCIDR, and takes nobody's source address away".into()),
        Some(range) => Judged::Differs(format!(
            "clusterCIDR {shown} does not hold {range}: Services lose the pods' source address"
        )),
        None => Judged::Suits(format!("clusterCIDR {shown} holds the node's ranges of its families")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::check::finding::Level;

    fn judged(yaml: &str) -> (Level, String) {
        let local = text::document::<Local>(yaml).expect("YAML").unwrap_or_default();
        let ranges = ["10.25.214.0/24", "2001:db8:1::/64"].map(|net| net.parse().expect("literal"));
        let finding = judge(&local, &ranges).cured(CURE);
        assert_eq!(finding.remedy.is_some(), finding.level == Level::Warn, "{finding:?}");
        (finding.level, finding.what)
    }

    #[test]
    fn flags_are_read_in_both_ways_of_writing() {
        let arguments =
            ["--cluster-cidr", "10.1.0.0/16", "--detect-local-mode=InterfaceNamePrefix"].map(OsString::from);
        let local = by_flags(&arguments);
        assert_eq!(local.cluster_cidr.as_deref(), Some("10.1.0.0/16"));
        assert_eq!(local.detect_local_mode.as_deref(), Some("InterfaceNamePrefix"));
    }

    #[test]
    fn a_proxy_has_to_know_which_packets_are_of_pods() {
        for (yaml, level, said) in [
            ("clusterCIDR: 10.244.0.0/16", Level::Warn, "clusterCIDR 10.244.0.0/16 does not hold 10.25.214.0/24"),
            ("clusterCIDR: 10.0.0.0/8", Level::Ok, "holds the node's ranges"),
            ("clusterCIDR: '10.0.0.0/8,2001:db8:7::/48'", Level::Warn, "does not hold 2001:db8:1::/64"),
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
