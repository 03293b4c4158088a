//! A node: a private host on which the real systemd runs containerd, kubelet and kube-proxy, as a distribution sets them up. What
//! of flock is on it, and how it came there, the stories say.

use std::fmt;
use std::fs;
use std::net::IpAddr;

use crate::support::assets::assets;
use crate::support::control_plane::{BOOTSTRAP, ControlPlane, PROXY};
use crate::support::host::Host;
use crate::support::page::block;
use crate::support::switch::Switch;
use crate::support::temp::TempDir;
use crate::support::waiting::wait_for;

/// How kube-proxy does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nftables,
    Iptables,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proxy::Nftables => "nftables",
            Proxy::Iptables => "iptables",
        })
    }
}

/// A node. It ends with the value, whatever runs on it.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) name: String,
    pub(crate) ip4: String,
    pub(crate) ip6: String,
    /// What its pods have, where Kubernetes does not say it: of IPv4 and of IPv6.
    pub(crate) ranges: [String; 2],
    proxy: Proxy,
    disk: TempDir,
}

const CONTAINERD: &str = r"version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'registry.k8s.io/e2e-test-images/agnhost:flock'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
";

impl Node {
    /// The node of this number, on a switch, without a network for pods.
    pub(crate) fn join(switch: &Switch, number: u8, proxy: Proxy) -> Node {
        let name = format!("node{number}");
        let disk = TempDir::new(&name);
        // systemd names the host by it before anything else is there.
        fs::create_dir(disk.path().join("etc")).expect("made");
        fs::write(disk.path().join("etc/hostname"), format!("{name}\n")).expect("written");
        let node = Node {
            host: boot(&disk),
            name,
            ip4: format!("192.0.2.1{number}"),
            ip6: format!("2001:db8:a25::1{number}"),
            ranges: [format!("10.25.{number}.0/24"), format!("2001:db8:1:{number}::/64")],
            proxy,
            disk,
        };
        node.connect(switch);
        node
    }

    /// What a power switch does.
    pub(crate) fn reboot(&mut self, switch: &Switch) {
        // Two hosts cannot write to one disk.
        self.host.end();
        self.host = boot(&self.disk);
        self.connect(switch);
    }

    fn connect(&self, switch: &Switch) {
        switch.plug(&self.host, "eth0", &[&format!("{}/24", self.ip4), &format!("{}/64", self.ip6)]);
        self.host.run("ip -4 route add default via 192.0.2.10");
        self.host.run("ip -6 route add default via 2001:db8:a25::10");
    }

    /// Sets up and starts containerd, kubelet and kube-proxy, who find the API server by themselves.
    pub(crate) fn set_up(&self, plane: &ControlPlane<'_>) {
        let (runtimes, nodes) = (assets("runtimes"), assets("kube nodes"));
        let host = &self.host;
        host.run("mkdir -p /var/log /var/lib /var/tmp /opt/cni/bin /etc/kubernetes/manifests");
        host.run(&format!("cp {runtimes}/cni/loopback {runtimes}/cni/portmap /opt/cni/bin/"));
        host.write("/etc/resolv.conf", "");
        // Without these names, `nft` tells protocols by number, and a kube-proxy that starts over its former rules takes its own entries away.
        host.write("/etc/protocols", "tcp 6 TCP\nudp 17 UDP\nsctp 132 SCTP\n");
        host.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        host.write("/etc/kubernetes/ca.crt", &plane.file("client-ca.crt"));
        host.write("/etc/kubernetes/apiserver.crt", &plane.file("apiserver.crt"));
        for (name, token) in [("bootstrap", BOOTSTRAP), ("proxy", PROXY)] {
            host.write(&format!("/etc/kubernetes/{name}.conf"), &plane.kubeconfig_text(&format!("token: '{token}'")));
        }
        host.write("/etc/containerd/config.toml", CONTAINERD);
        host.write("/etc/kubernetes/kubelet.yaml", KUBELET);
        host.write("/etc/kubernetes/proxy.yaml", &self.proxy_config());
        self.unit("containerd", "Type=notify", &format!("{runtimes}/bin/containerd"));
        let flags = format!(
            "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap.conf --kubeconfig=/etc/kubernetes/kubelet.conf \
             --hostname-override={} --node-ip={},{}",
            self.name, self.ip4, self.ip6
        );
        let kubelet = format!("{nodes}/kubelet --config=/etc/kubernetes/kubelet.yaml {flags}");
        self.unit("kubelet", "", &kubelet);
        let flags = format!("--config=/etc/kubernetes/proxy.yaml --hostname-override={}", self.name);
        self.unit("kube-proxy", "", &format!("{nodes}/kube-proxy {flags}"));
        // Nobody keeps a journal here.
        host.write(
            "/etc/systemd/system/flock-agent.service.d/log.conf",
            "[Service]\nStandardError=append:/var/log/flock-agent.log\n",
        );
        host.systemctl("daemon-reload");
        host.systemctl("enable --now containerd kubelet kube-proxy");
        self.import(&format!("{}/images.tar", assets("cluster")));
    }

    /// A unit as distributions have it: it starts again whenever it ends, and containers outlive their daemons.
    fn unit(&self, name: &str, more: &str, command: &str) {
        let path = format!("{}/bin:/usr/sbin:/usr/bin", assets("runtimes"));
        let text = format!(
            "[Unit]\nAfter=network.target\nStartLimitIntervalSec=0\n\n\
             [Service]\n{more}\nEnvironment=PATH={path}\nExecStart={command}\nDelegate=yes\nKillMode=process\n\
             Restart=always\nRestartSec=1s\n\
             StandardOutput=append:/var/log/{name}.log\nStandardError=append:/var/log/{name}.log\n\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        self.host.write(&format!("/etc/systemd/system/{name}.service"), &text);
    }

    /// Makes the images of an archive known to kubelet.
    pub(crate) fn import(&self, archive: &str) {
        wait_for("containerd to answer", || self.try_ctr("version").then_some(()));
        let runtimes = assets("runtimes");
        self.host.run(&format!("{runtimes}/bin/ctr -n k8s.io images import --local {archive}"));
    }

    fn try_ctr(&self, arguments: &str) -> bool {
        let ctr = format!("{}/bin/ctr -n k8s.io {arguments}", assets("runtimes"));
        self.host.inside(&ctr).output().expect("ctr starts").status.success()
    }

    /// What docs/host.md has administrators write into it, and what is this cluster's.
    fn proxy_config(&self) -> String {
        let advised = block(include_str!("../../docs/host.md"), "kube-proxy", "yaml");
        format!(
            "{advised}mode: {}\nclientConnection: {{kubeconfig: /etc/kubernetes/proxy.conf}}\nconntrack: {{maxPerCore: 0}}\n",
            self.proxy
        )
    }

    /// Its address of this family.
    pub(crate) fn ip(&self, v6: bool) -> IpAddr {
        if v6 { &self.ip6 } else { &self.ip4 }.parse().expect("an address")
    }

    /// Ends a daemon at once, wherever it runs, and waits until there is another one.
    pub(crate) fn kill(&self, daemon: &str) {
        // The oldest of the name: others only ask it something.
        let main = || self.host.ask(&format!("pidof {daemon}")).split_whitespace().last().map(str::to_owned);
        let before = main();
        self.host.run(&format!("kill -KILL {}", before.as_deref().expect("it runs")));
        wait_for("another one", || main().filter(|now| Some(now) != before.as_ref()));
    }

    /// What one of its daemons has said.
    pub(crate) fn log(&self, daemon: &str) -> String {
        fs::read_to_string(self.host.path(&format!("/var/log/{daemon}.log"))).unwrap_or_default()
    }

    /// What its daemons have said last.
    pub(crate) fn tell(&self) {
        for name in ["containerd", "kubelet", "kube-proxy", "flock-agent"] {
            let log = self.log(name);
            let tail: Vec<&str> = log.lines().rev().take(8).collect();
            eprintln!("{}: end of the log of {name}:", self.name);
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// By documentation, but for: groups of the first version, a machine whose swap is nobody's business here, a disk that is never
/// full.
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [10.96.0.10, 'fd00:96::a']
resolvConf: /etc/resolv.conf
staticPodPath: /etc/kubernetes/manifests
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: 0%, imagefs.available: 0%, memory.available: 1Mi}
";

fn boot(disk: &TempDir) -> Host {
    let sees = [assets("runtimes"), assets("kube"), assets("kube nodes"), assets("cluster")].join(" ");
    let layer = format!("{}/usr", assets("runtimes"));
    let options = [
        ("BOOT_DISK", disk.path().to_str().expect("text")),
        ("BOOT_LAYERS", &layer),
        ("BOOT_SEES", &sees),
        ("BOOT_CONTROLLERS", "yes"),
    ];
    Host::boot(&options, &[])
}
