//! A real control plane inside a [`Host`]'s namespaces: etcd, kube-apiserver with TLS and RBAC, and kubectl to speak with it.
//!
//! The binaries come from `tests/kube/assets`. Since the host is private, ports are fixed; since each test has its own, it may
//! kill, stop and restore what it likes. Unless it is [`ControlPlane::whole_at`], there is no controller manager and no scheduler,
//! and pods are objects and nothing more.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flock::kernel::netns::Netns;
use serde_json::Value;

use super::assets::assets;
use super::host::Host;
use super::programs::succeed;
use crate::support::inside::Inside as _;

const LOOPBACK: &str = "127.0.0.1";
const ADMIN: &str = "admin-token";

/// Who may say that it is whom: what comes by this token is the second, a member of the third.
const TOKENS: [(&str, &str, &str); 5] = [
    (ADMIN, "admin", "system:masters"),
    (BOOTSTRAP, "system:bootstrap:tests", "system:bootstrappers"),
    ("controller-manager-token", "system:kube-controller-manager", ""),
    ("scheduler-token", "system:kube-scheduler", ""),
    (PROXY, "system:kube-proxy", ""),
];

/// With this token, a kubelet asks for its certificate.
pub const BOOTSTRAP: &str = "bootstrap-token";

/// kube-proxy's.
pub const PROXY: &str = "proxy-token";

/// Starting one takes some ten seconds on a quiet machine.
const START: Duration = Duration::from_secs(120);

/// A control plane.
pub struct ControlPlane<'a> {
    host: &'a Host,
    /// Where the API server listens.
    address: String,
    /// For kubelets: with controllers, a scheduler, and accounts for pods. These are further flags of the controller manager.
    whole: Option<Vec<String>>,
    etcd: Option<Child>,
    api: Option<Child>,
    beside: Vec<Child>,
}

impl<'a> ControlPlane<'a> {
    /// One that is ready, with flock's CRD and RBAC applied.
    pub fn start(host: &'a Host) -> ControlPlane<'a> {
        ControlPlane::start_at(host, LOOPBACK)
    }

    /// The same, with an API server that listens on this IPv4 address of the host, for agents of other hosts.
    pub fn start_at(host: &'a Host, address: &str) -> ControlPlane<'a> {
        let mut plane = ControlPlane::bare_at(host, address);
        plane.kubectl_ok(&["create", "namespace", "kube-system"], true);
        plane.apply_deploy();
        plane
    }

    /// One for kubelets, ready and without anything of flock's, which listens on this IPv4 address: with a scheduler, and a controller
    /// manager with these further flags.
    pub fn whole_at(host: &'a Host, address: &str, controllers: &[&str]) -> ControlPlane<'a> {
        let controllers = controllers.iter().map(|&flag| flag.to_owned()).collect();
        let mut plane = ControlPlane::begin(host, address, Some(controllers));
        plane.start_beside();
        // What kubeadm lets kubelets do that have no certificate yet.
        for (name, role, group) in [
            ("ask", "node-bootstrapper", "bootstrappers"),
            ("first", "certificates.k8s.io:certificatesigningrequests:nodeclient", "bootstrappers"),
            ("renew", "certificates.k8s.io:certificatesigningrequests:selfnodeclient", "nodes"),
        ] {
            plane.run(&format!(
                "create clusterrolebinding kubelets-{name} --clusterrole=system:{role} --group=system:{group}"
            ));
        }
        plane
    }

    /// One that is ready, and empty.
    pub fn bare(host: &'a Host) -> ControlPlane<'a> {
        ControlPlane::bare_at(host, LOOPBACK)
    }

    fn bare_at(host: &'a Host, address: &str) -> ControlPlane<'a> {
        ControlPlane::begin(host, address, None)
    }

    fn begin(host: &'a Host, address: &str, whole: Option<Vec<String>>) -> ControlPlane<'a> {
        let dir = host.path("/run/k8s");
        fs::create_dir_all(&dir).expect("a directory");
        let group = |group: &str| if group.is_empty() { String::new() } else { format!(",{group}") };
        let lines = TOKENS.iter().map(|(token, user, of)| format!("{token},{user},{user}{}\n", group(of)));
        fs::write(dir.join("tokens.csv"), lines.collect::<String>()).expect("writable");
        let mut plane =
            ControlPlane { host, address: address.into(), whole, etcd: None, api: None, beside: Vec::new() };
        plane.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout client-ca.key -out client-ca.crt -days 2 -subj /CN=clients",
        );
        if plane.whole.is_some() {
            plane.client_certificate_of("/O=system:masters/CN=kube-apiserver-kubelet-client");
            plane.host.script("cd /run/k8s && mv agent.crt kubelet-client.crt && mv agent.key kubelet-client.key");
        }
        plane.start_etcd();
        plane.start_api();
        plane
    }

    /// Starts controller manager and scheduler.
    fn start_beside(&mut self) {
        let mut controllers = vec![
            "--kubeconfig=controller-manager.kubeconfig",
            "--use-service-account-credentials=true",
            "--service-account-private-key-file=apiserver.key",
            "--root-ca-file=apiserver.crt",
            "--cluster-signing-cert-file=client-ca.crt",
            "--cluster-signing-key-file=client-ca.key",
            "--leader-elect=false",
        ];
        controllers.extend(self.whole.iter().flatten().map(String::as_str));
        self.kubeconfig("controller-manager", "controller-manager-token");
        self.kubeconfig("scheduler", "scheduler-token");
        let scheduler = ["--kubeconfig=scheduler.kubeconfig", "--leader-elect=false"];
        let nodes = assets("kube nodes");
        self.beside = vec![
            self.spawn(&format!("{nodes}/kube-controller-manager"), &controllers),
            self.spawn(&format!("{nodes}/kube-scheduler"), &scheduler),
        ];
    }

    fn apply_deploy(&mut self) {
        let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/base");
        self.kubectl_ok(&["apply", "-k", deploy], false);
        self.kubectl_ok(
            &[
                "wait",
                "--for=condition=Established",
                "crd/nodeconfigs.flock.fritzlab.net",
                "crd/nodepeers.flock.fritzlab.net",
                "--timeout=60s",
            ],
            false,
        );
    }

    fn spawn(&self, path: &str, args: &[&str]) -> Child {
        let (_, program) = path.rsplit_once('/').expect("a path");
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.host.path(&format!("/run/k8s/{program}.log")))
            .expect("a log");
        let errors = log.try_clone().expect("a second handle");
        // In the directory of its files, and not longer alive than the test.
        let mut command = self.host.command("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", "cd /run/k8s && exec \"$0\" \"$@\""]);
        command.arg(path).args(args);
        // A third of the CPU time of an API server's start is garbage collection.
        command.env("GOGC", "400");
        command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starts")
    }

    pub fn start_etcd(&mut self) {
        self.etcd = Some(self.spawn(
            &format!("{}/etcd", assets("kube")),
            &[
                "--data-dir=etcd",
                "--unsafe-no-fsync",
                "--log-level=warn",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:0",
            ],
        ));
    }

    pub fn stop_etcd(&mut self) {
        end(&mut self.etcd, "TERM");
    }

    /// Starts the API server and waits until it is ready.
    pub fn start_api(&mut self) {
        let addresses = [format!("--bind-address={}", self.address), format!("--advertise-address={}", self.address)];
        let mut flags = vec![
            "--etcd-servers=http://127.0.0.1:2379",
            // The DaemonSet asks for it, as every network plugin does.
            "--allow-privileged=true",
            "--secure-port=6443",
            "--cert-dir=.",
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
            "--token-auth-file=tokens.csv",
            "--client-ca-file=client-ca.crt",
            // As kubeadm has it.
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-signing-key-file=apiserver.key",
            "--service-account-key-file=apiserver.key",
            // With the default, an open watch delays the end by a minute.
            "--shutdown-watch-termination-grace-period=100ms",
        ];
        flags.extend(addresses.iter().map(String::as_str));
        flags.extend(match self.whole {
            Some(_) => [
                "--kubelet-client-certificate=kubelet-client.crt",
                "--kubelet-client-key=kubelet-client.key",
                "--kubelet-preferred-address-types=InternalIP",
            ]
            .as_slice(),
            None => &["--endpoint-reconciler-type=none", "--disable-admission-plugins=ServiceAccount"],
        });
        self.api = Some(self.spawn(&format!("{}/kube-apiserver", assets("kube")), &flags));
        let deadline = Instant::now() + START;
        while !self.kubectl(&["get", "--raw", "/readyz"]).status.success() {
            let log = || fs::read_to_string(self.host.path("/run/k8s/kube-apiserver.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the API server did not become ready:\n{}", log());
            let ended = self.api.as_mut().is_some_and(|api| api.try_wait().expect("waitable").is_some());
            assert!(!ended, "the API server ended:\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends the API server, with `TERM` in order or with `KILL` at once.
    pub fn stop_api(&mut self, signal: &str) {
        end(&mut self.api, signal);
    }

    /// Sends the API server a signal that does not end it.
    pub fn signal_api(&self, signal: &str) {
        let pid = self.api.as_ref().expect("it runs").id().to_string();
        succeed(Command::new("kill").args(["-s", signal, &pid]));
    }

    /// The data of etcd, for a later [`ControlPlane::restore`]. etcd must be stopped.
    pub fn backup(&self) {
        self.host.run("cp -a /run/k8s/etcd /run/k8s/etcd.backup");
    }

    /// Puts the backup in place. etcd must be stopped.
    pub fn restore(&self) {
        self.host.run("rm -rf /run/k8s/etcd");
        self.host.run("cp -a /run/k8s/etcd.backup /run/k8s/etcd");
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("kubectl starts")
    }

    /// kubectl as the administrator, about to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command(&format!("{}/kubectl", assets("kube")));
        command.args([
            "--server",
            &self.url(),
            "--token",
            ADMIN,
            "--request-timeout=10s",
            "--cache-dir=/run/k8s/cache",
        ]);
        command.arg("--certificate-authority=/run/k8s/apiserver.crt").args(args).stdin(Stdio::null());
        command
    }

    fn kubectl_ok(&self, args: &[&str], may_exist: bool) -> String {
        let output = self.kubectl(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        let fine = output.status.success() || (may_exist && errors.contains("AlreadyExists"));
        assert!(fine, "kubectl {args:?}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs a kubectl command line (split at blanks) that must succeed.
    pub fn run(&self, line: &str) -> String {
        let args: Vec<&str> = line.split_whitespace().collect();
        self.kubectl_ok(&args, false)
    }

    /// Runs a kubectl command line (split at blanks) that waits for something, for three minutes at most.
    pub fn wait(&self, line: &str) -> String {
        self.run(&format!("{line} --timeout=180s --request-timeout=0"))
    }

    /// Applies a manifest. The error text, if the API server refuses it.
    pub fn apply(&self, manifest: &str) -> Result<(), String> {
        let file: PathBuf = self.host.path("/run/k8s/manifest.json");
        fs::write(&file, manifest).expect("writable");
        let output = self.kubectl(&["apply", "-f", "/run/k8s/manifest.json"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn url(&self) -> String {
        format!("https://{}:6443", self.address)
    }

    /// Writes a kubeconfig for a token of the service account that `deploy/` makes, on another host, and returns its path there.
    pub fn kubeconfig_on(&self, host: &Host) -> String {
        let path = self.kubeconfig("agent", &self.agent_token());
        for file in [&path, "/run/k8s/apiserver.crt"] {
            host.write(file, &fs::read_to_string(self.host.path(file)).expect("readable"));
        }
        path
    }

    /// Writes a kubeconfig for `token` and returns its path on the host.
    pub fn kubeconfig(&self, name: &str, token: &str) -> String {
        self.kubeconfig_with(name, &format!("token: '{token}'"))
    }

    /// Writes a kubeconfig of the administrator and returns its path on the host.
    pub fn admin_kubeconfig(&self) -> String {
        self.kubeconfig("admin", ADMIN)
    }

    /// Writes a kubeconfig whose user is `user` (YAML, flow style) and returns its path on the host.
    pub fn kubeconfig_with(&self, name: &str, user: &str) -> String {
        let path = format!("/run/k8s/{name}.kubeconfig");
        fs::write(self.host.path(&path), self.kubeconfig_text(user)).expect("writable");
        path
    }

    /// A kubeconfig whose user is `user` (YAML, flow style), to lie beside `apiserver.crt`.
    pub fn kubeconfig_text(&self, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{server: '{}', \
             certificate-authority: apiserver.crt}}\nusers:\n- name: u\n  user: {{{user}}}\ncontexts:\n- name: c\n  \
             context: {{cluster: k, user: u}}\n",
            self.url(),
        )
    }

    /// One of its files, such as a certificate.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.host.path(&format!("/run/k8s/{name}"))).expect("readable")
    }

    fn openssl(&self, line: &str) {
        let mut command = self.host.command("sh");
        succeed(command.args(["-c", &format!("cd /run/k8s && openssl {line} 2>&1")]));
    }

    /// Writes `agent.crt` and `agent.key` for the user `name`, in place of whatever they were.
    pub fn client_certificate(&self, name: &str) {
        self.client_certificate_of(&format!("/CN={name}"));
    }

    /// The same for a user with groups, such as `/O=system:nodes/CN=system:node:host001`.
    pub fn client_certificate_of(&self, subject: &str) {
        self.openssl(&format!("req -newkey rsa:2048 -nodes -keyout agent.key -out agent.csr -subj {subject}"));
        // An extension makes it a certificate of version 3; rustls knows no other.
        fs::write(self.host.path("/run/k8s/agent.ext"), "basicConstraints=CA:FALSE\n").expect("writable");
        let authority = "-CA client-ca.crt -CAkey client-ca.key -CAcreateserial";
        self.openssl(&format!("x509 -req -in agent.csr {authority} -days 1 -extfile agent.ext -out agent.crt"));
    }

    /// Makes etcd forget everything but the newest revision.
    pub fn compact(&self) {
        // The API of etcd as its gateway speaks it in JSON; `curl` and `etcdctl` may be absent.
        let status = etcd(&self.host.netns(), "/v3/kv/range", r#"{"key":"AA=="}"#);
        let revision = status["header"]["revision"].as_str().expect("a revision").to_owned();
        etcd(&self.host.netns(), "/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
    }

    /// A token of the service account that `deploy/` makes.
    pub fn agent_token(&self) -> String {
        self.run("create token flock-agent --namespace kube-system --duration=1h").trim().to_owned()
    }
}

/// One request to etcd, from inside its namespace.
fn etcd(netns: &std::path::Path, path: &str, body: &str) -> Value {
    let netns = Netns::open(netns).expect("the host's namespace");
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = netns
        .run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:2379")?;
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        })
        .expect("entered")
        .expect("etcd answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body.trim()).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn end(child: &mut Option<Child>, signal: &str) {
    if let Some(mut child) = child.take() {
        succeed(Command::new("kill").args(["-s", signal, &child.id().to_string()]));
        child.wait().expect("waitable");
    }
}

impl Drop for ControlPlane<'_> {
    fn drop(&mut self) {
        for child in self.beside.iter_mut().chain(&mut self.api).chain(&mut self.etcd) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
