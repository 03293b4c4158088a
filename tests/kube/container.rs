//! A container of a DaemonSet without kubelet and runtime: of the image and the host, its processes see what the manifest says and
//! nothing else, as the user ids, capabilities and mounts that it names. Which manifest, and what is to happen, the stories say.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::control_plane::ControlPlane;
use crate::support::host::Host;
use crate::support::log::{Log, wait_line};
use crate::support::programs::{FLOCK, FLOCK_AGENT, succeed};
use crate::support::waiting::wait_for;

/// What the runtime does: a root of its own, in mount and process namespaces of its own, with `/proc/sys` read-only unless it is
/// privileged, and the capabilities that are left.
const RUN: &str = r#"
set -e
root=$1 mounts=$2 privileged=$3 keep=$4
shift 4
mount -t tmpfs -o mode=0755 tmpfs "$root"
touch "$root/flock" "$root/flock-agent"
mount --bind -o ro "$FLOCK" "$root/flock"
mount --bind -o ro "$FLOCK_AGENT" "$root/flock-agent"
account=$root/var/run/secrets/kubernetes.io/serviceaccount
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$account"
cp /run/k8s/pod.token "$account/token"
cp /run/k8s/apiserver.crt "$account/ca.crt"
echo "$mounts" | while read -r from to mode propagation; do
    mkdir -p "$from" "$root$to"
    mount --rbind "$from" "$root$to"
    mount "--make-r$propagation" "$root$to"
    [ "$mode" = rw ] || mount -o remount,bind,ro "$root$to"
done
mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
if [ "$privileged" != true ]; then
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
fi
mount -o remount,ro "$root"
program=$1
shift
[ "$privileged" = true ] && exec chroot "$root" "$program" "$@"
# All but those that are kept.
all=$(( (1 << ($(cat /proc/sys/kernel/cap_last_cap) + 1)) - 1 ))
drop=$(capsh --decode="$(printf %x $((all & ~keep)))")
exec capsh --no-new-privs --chroot="$root" --drop="${drop#*=}" --shell="$program" -- "$@"
"#;

/// A container that runs. It is killed when dropped.
pub(crate) struct Container {
    child: Child,
    pub(crate) log: Log,
}

/// The DaemonSet that kustomize makes of a directory of `deploy/`, with what the API server adds to it.
pub(crate) fn daemon_set(plane: &ControlPlane<'_>, directory: &str) -> Value {
    let manifests = plane.run(&format!("kustomize {}/deploy/{directory}", env!("CARGO_MANIFEST_DIR")));
    made(plane, &manifests)
}

/// The DaemonSet among these manifests, with what the API server adds to it.
pub(crate) fn made(plane: &ControlPlane<'_>, manifests: &str) -> Value {
    let ours = manifests.split("\n---\n").find(|text| text.contains("kind: DaemonSet")).expect("a DaemonSet");
    plane.apply(ours).expect("accepted");
    serde_json::from_str(&plane.run("-n kube-system get daemonset flock-agent -o json")).expect("JSON")
}

/// What kubelet has for the containers of a pod: its account, and the directories of the host.
pub(crate) fn prepare(plane: &ControlPlane<'_>, host: &Host) {
    host.write("/run/k8s/pod.token", &plane.agent_token());
    host.script("mount --make-rshared /; mkdir -p /run/containers");
}

/// The command line that runs this container of the DaemonSet's template: one of `containers` or `initContainers`, by its name.
fn command(host: &Host, set: &Value, list: &str, name: &str) -> Command {
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    let found = pod[list].as_array().expect("a list").iter().find(|container| container["name"] == name);
    let container = found.unwrap_or_else(|| panic!("no container {name}"));
    let volumes = pod["volumes"].as_array().expect("a list");
    let mounts = container["volumeMounts"].as_array().expect("a list").iter().map(|mount| {
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume");
        let from = volume["hostPath"]["path"].as_str().expect("a path of the host");
        assert_eq!(volume["hostPath"]["type"], "DirectoryOrCreate");
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        let propagation = if mount["mountPropagation"] == "HostToContainer" { "slave" } else { "private" };
        format!("{from} {} {mode} {propagation}", mount["mountPath"].as_str().expect("a path"))
    });
    let security = &container["securityContext"];
    let privileged = security["privileged"] == true;
    let kept: u64 = security["capabilities"]["add"].as_array().into_iter().flatten().map(capability).sum();
    assert!(privileged || security["capabilities"]["drop"][0] == "ALL", "{security}");
    let root = format!("/run/containers/{name}-{}", fs::read_dir(host.path("/run/containers")).expect("there").count());
    fs::create_dir(host.path(&root)).expect("made");
    let variables = container["env"].as_array().into_iter().flatten().map(|variable| {
        let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
        let value = if field == "spec.nodeName" { "host001" } else { variable["value"].as_str().expect("a value") };
        (variable["name"].as_str().expect("a name").to_owned(), value.to_owned())
    });
    let variables: Vec<(String, String)> = variables.collect();
    let words = |key: &str| {
        let words = container[key].as_array().into_iter().flatten().map(|word| word.as_str().expect("text").to_owned());
        words
            .map(|word| variables.iter().fold(word, |word, (name, value)| word.replace(&format!("$({name})"), value)))
            .collect::<Vec<_>>()
    };
    let mut command = host.command("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--propagation",
        "slave",
        "sh",
        "-c",
        RUN,
        "sh",
        &root,
    ]);
    command.args([mounts.collect::<Vec<_>>().join("\n"), privileged.to_string(), kept.to_string()]);
    command.args(words("command")).args(words("args")).env("FLOCK", FLOCK).env("FLOCK_AGENT", FLOCK_AGENT);
    command.envs([("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")]).envs(variables);
    command
}

/// The bit of a capability, in the words of a manifest.
fn capability(name: &Value) -> u64 {
    match name.as_str() {
        Some("DAC_OVERRIDE") => 1 << 1,
        Some("NET_ADMIN") => 1 << 12,
        Some("SYS_ADMIN") => 1 << 21,
        other => panic!("{other:?} is no capability that flock needs"),
    }
}

/// Runs an init container to its end, and returns what it said.
pub(crate) fn init(host: &Host, set: &Value, name: &str) -> String {
    succeed(&mut command(host, set, "initContainers", name))
}

impl Container {
    /// Starts a container of the DaemonSet.
    pub(crate) fn start(host: &Host, set: &Value, name: &str) -> Container {
        let mut child = command(host, set, "containers", name)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let log = Log::default();
        log.keep(child.stderr.take().expect("piped"));
        Container { child, log }
    }

    #[track_caller]
    pub(crate) fn wait_log(&self, text: &str) -> String {
        wait_line(|| self.log.text(), text, 1)
    }

    /// The first process of the container, which is the agent.
    fn pid(&self) -> String {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        fs::read_to_string(children).expect("readable").trim().to_owned()
    }

    /// Whether it is ready, as kubelet asks by the probe of the DaemonSet.
    pub(crate) fn is_ready(&self, set: &Value) -> bool {
        let probe = &set["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"];
        let words = probe.as_array().expect("a command").iter().map(|word| word.as_str().expect("text"));
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--mount", "--net", "--pid", "--root", "--wd=/"]).args(words);
        command.stdin(Stdio::null()).status().expect("nsenter starts").success()
    }

    /// Ends it as kubelet does, and waits for the end.
    pub(crate) fn stop(&mut self) {
        succeed(Command::new("kill").arg(self.pid()));
        wait_for("the end of the container", || self.child.try_wait().expect("waitable"));
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            println!("log of the container:\n{}", self.log.text());
        }
    }
}
