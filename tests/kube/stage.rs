//! A node whose policies come from a real API server, pods of it, and pods of other nodes, with the part of kubelet played by the
//! test: it makes the Pod, calls the plugin, and says the addresses. Who may talk to whom, the stories say.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flock::kernel::netns::Netns;
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::inside::Inside as _;
use crate::support::machine::Machine;
use crate::support::plugin::Cni;
use crate::support::pod;
use crate::support::waiting::wait_or;

/// Where pods listen, by name in their specs: `http` and `dns`.
pub(crate) const HTTP: u16 = 8080;
pub(crate) const DNS: u16 = 5353;

/// How long a connection may take that nobody drops.
const CONNECT: Duration = Duration::from_millis(700);

fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    Netns::open(netns).expect("a namespace").run(work).expect("entered")
}

/// Somebody who listens, and who connects to others.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) name: String,
    pub(crate) netns: PathBuf,
    /// One of each family.
    pub(crate) ips: Vec<IpAddr>,
}

/// A pod of this node.
pub(crate) struct Member<'a> {
    pub(crate) pod: pod::Pod<'a>,
    pub(crate) end: End,
}

/// The API server, and everybody who listens.
pub(crate) struct Stage<'a> {
    pub(crate) plane: ControlPlane<'a>,
    listeners: RefCell<BTreeMap<SocketAddr, TcpListener>>,
}

impl<'a> Stage<'a> {
    /// An API server on this host, and the namespaces web, far and dev, each with its name as its team.
    pub(crate) fn new(plane: ControlPlane<'a>) -> Stage<'a> {
        for name in ["web", "far", "dev"] {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}});
            plane.apply(&namespace.to_string()).expect("accepted");
        }
        Stage { plane, listeners: RefCell::default() }
    }

    /// Makes or changes a Pod object, which is bound to `node`. Returns its uid.
    pub(crate) fn object(&self, node: &str, name: &str, app: &str, extra: &Value) -> String {
        let (namespace, name) = name.split_once('/').expect("a namespace and a name");
        let mut spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "x", "ports": [
            {"name": "http", "containerPort": HTTP}, {"name": "dns", "containerPort": DNS}]}]});
        for (key, value) in extra.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": namespace, "labels": {"app": app}});
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        self.plane.apply(&object.to_string()).expect("accepted");
        self.plane.run(&format!("-n {namespace} get pod {name} -o jsonpath={{.metadata.uid}}"))
    }

    /// Says in the name of kubelet how a pod is.
    pub(crate) fn status(&self, name: &str, phase: &str, ips: &[IpAddr]) {
        let (namespace, name) = name.split_once('/').expect("a namespace and a name");
        let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"phase": phase, "podIP": ips.first(), "podIPs": all}}).to_string();
        let patch = ["-n", namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", &status];
        let output = self.plane.kubectl(&patch);
        assert!(output.status.success(), "{output:?}");
    }

    /// Removes a Pod object at once.
    pub(crate) fn remove(&self, name: &str) {
        let (namespace, name) = name.split_once('/').expect("a namespace and a name");
        self.plane.run(&format!("-n {namespace} delete pod {name} --force --grace-period=0"));
    }

    /// A NetworkPolicy.
    pub(crate) fn policy(&self, name: &str, spec: &Value) {
        let (namespace, name) = name.split_once('/').expect("a namespace and a name");
        let metadata = json!({"name": name, "namespace": namespace});
        let object =
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec});
        self.plane.apply(&object.to_string()).expect("accepted");
    }

    /// A pod on `host`, which is the node of that name: the object, ADD, the addresses.
    pub(crate) fn member<'h>(&self, host: &'h Host, node: &str, name: &str, app: &str) -> Member<'h> {
        let uid = self.object(node, name, app, &json!({}));
        let member = self.attach(host, name, &uid);
        self.status(name, "Running", &member.end.ips);
        member
    }

    /// ADD of a pod of this name and uid, to which its annotations are handed over.
    pub(crate) fn attach<'h>(&self, host: &'h Host, name: &str, uid: &str) -> Member<'h> {
        let container = format!("{}-{}", name.replace('/', "-"), &uid[..4]);
        let pod = host.pod(&container);
        pod.run("ip link set lo up");
        let attached = cni(host.add(&pod), name, uid).annotations(&[]).result();
        let ips: Vec<IpAddr> = attached.ipv4().into_iter().chain(attached.ipv6()).collect();
        let end = self.listen(name, pod.netns(), ips);
        Member { pod, end }
    }

    /// A pod of another node, which is a machine beyond this cable.
    pub(crate) fn stranger(&self, host: &Host, number: u8) -> End {
        let (cable, v4, v6) = (format!("far{number}"), format!("192.0.{number}"), format!("2001:db8:9{number}:"));
        let here = [format!("{v4}.1/24"), format!("{v6}:1/64"), format!("fe80::{number}:1/64")];
        let there = [format!("{v4}.2/24"), format!("{v6}:2/64"), format!("fe80::{number}:2/64")];
        let machine: Machine<'_> =
            host.machine(&cable, &here.each_ref().map(|s| &**s), &there.each_ref().map(|s| &**s));
        machine.run(&format!("ip route add default via {v4}.1"));
        machine.run(&format!("ip -6 route add default via {v6}:1"));
        let ips = [format!("{v4}.2"), format!("{v6}:2")].map(|ip| ip.parse().expect("an address"));
        self.listen(&cable, machine.netns(), ips.into())
    }

    /// Somebody who listens.
    pub(crate) fn listen(&self, name: &str, netns: PathBuf, ips: Vec<IpAddr>) -> End {
        let mut listeners = self.listeners.borrow_mut();
        for (ip, port) in ips.iter().flat_map(|ip| [(*ip, HTTP), (*ip, DNS)]) {
            let listener = within(&netns, || TcpListener::bind((ip, port)).expect("an own address"));
            listener.set_nonblocking(true).expect("set");
            listeners.insert((ip, port).into(), listener);
        }
        End { name: name.into(), netns, ips }
    }

    /// By which families a new connection comes about, in the order of the addresses.
    pub(crate) fn connects(&self, from: &End, to: &End, port: u16) -> Vec<bool> {
        let listeners = self.listeners.borrow();
        let connect = |ip: &IpAddr| {
            let at = SocketAddr::new(*ip, port);
            while listeners[&at].accept().is_ok() {}
            within(&from.netns, || TcpStream::connect_timeout(&at, CONNECT).is_ok())
        };
        to.ips.iter().map(connect).collect()
    }

    /// Waits until connections come about by both families.
    #[track_caller]
    pub(crate) fn wait_open(&self, from: &End, to: &End, port: u16) {
        self.wait(from, to, port, true);
    }

    /// Waits until no connection comes about.
    #[track_caller]
    pub(crate) fn wait_closed(&self, from: &End, to: &End, port: u16) {
        self.wait(from, to, port, false);
    }

    #[track_caller]
    fn wait(&self, from: &End, to: &End, port: u16, open: bool) {
        let last = RefCell::new(Vec::new());
        wait_or(
            || format!("{} to {} port {port}: {:?} instead of {open}", from.name, to.name, last.borrow()),
            || {
                *last.borrow_mut() = self.connects(from, to, port);
                last.borrow().iter().all(|one| *one == open).then_some(())
            },
        );
    }

    /// Connections come about now, without another try.
    #[track_caller]
    pub(crate) fn assert_open(&self, from: &End, to: &End, port: u16) {
        assert_eq!(self.connects(from, to, port), [true, true], "{} to {} port {port}", from.name, to.name);
    }

    /// No connection comes about now.
    #[track_caller]
    pub(crate) fn assert_closed(&self, from: &End, to: &End, port: u16) {
        assert_eq!(self.connects(from, to, port), [false, false], "{} to {} port {port}", from.name, to.name);
    }
}

/// A call of the plugin for a pod of this name and uid.
pub(crate) fn cni<'a>(call: Cni<'a>, name: &str, uid: &str) -> Cni<'a> {
    let (namespace, name) = name.split_once('/').expect("a namespace and a name");
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}");
    call.env("CNI_ARGS", args)
}

impl Member<'_> {
    /// DEL, and the end of its namespace.
    pub(crate) fn leave(&self, stage: &Stage<'_>) {
        stage.listeners.borrow_mut().retain(|at, _| !self.end.ips.contains(&at.ip()));
        self.pod.host.del(&self.pod).done();
        self.pod.vanish();
    }
}

/// The table of the packet filter, with the handles of its rules; empty where there is none.
pub(crate) fn table(host: &Host) -> String {
    let output =
        host.command("nft").args(["-a", "list", "table", "inet", "flock"]).output().expect("nft (nftables) starts");
    String::from_utf8(output.stdout).expect("text")
}

/// The addresses of the peers that policies of this node are about, as the table has them.
pub(crate) fn peers(host: &Host) -> String {
    let table = table(host);
    let sets = table.split("\tset pods/").skip(1).filter_map(|set| set.split("\t}").next());
    sets.collect()
}
