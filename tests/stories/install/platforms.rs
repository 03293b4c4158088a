//! Images as distributions and their runtimes lay them out: flock goes where the runtime looks, and says why.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::dist::{Dist, Run, Watch};
use super::image::Image;
use crate::units::{EXPOSURE, assert_accepted, exposure};

const AGENT: &str = "usr/local/bin/flock-agent";
const SERVICE: &str = "etc/systemd/system/flock-agent.service";

const USUAL_PLUGIN: &str = "opt/cni/bin/flock";
const USUAL_CONF: &str = "/etc/cni/net.d";

/// An image, and what an installation has to make of it.
struct Platform {
    name: &'static str,
    /// Its files; one whose name ends with a slash is a directory.
    files: &'static [(&'static str, &'static str)],
    plugin: &'static str,
    conf_dir: &'static str,
    /// What is said of it.
    said: &'static [&'static str],
}

const PLATFORMS: &[Platform] = &[
    Platform {
        name: "nothing",
        files: &[],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: none found; plugins in /opt/cni/bin (usual), CNI configuration in /etc/cni/net.d (usual)\n"],
    },
    // What containerd.io and kubeadm's pages make: `containerd config default`, version 2.
    Platform {
        name: "kubeadm",
        files: &[
            ("usr/bin/containerd", ""),
            ("opt/cni/bin/loopback", ""),
            (
                "etc/containerd/config.toml",
                "disabled_plugins = []\nimports = []\nversion = 2\n\n[plugins]\n\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    \
                 enable_cdi = false\n\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      bin_dir = \"/opt/cni/bin\"\n      \
                 conf_dir = \"/etc/cni/net.d\"\n      conf_template = \"\"\n      max_conf_num = 1\n",
            ),
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &[
            "runtime: containerd (/etc/containerd/config.toml); plugins in /opt/cni/bin, CNI configuration in /etc/cni/net.d\n",
        ],
    },
    Platform {
        name: "containerd 2",
        files: &[(
            "etc/containerd/config.toml",
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dir = ''\n  bin_dirs = ['/opt/plugins/', '/opt/cni/bin']\n  \
             conf_dir = '/etc/cni/custom.d'\n[plugins.'io.containerd.grpc.v1.cri'.cni]\n  conf_dir = '/not/this/one'\n",
        )],
        plugin: "opt/plugins/flock",
        conf_dir: "/etc/cni/custom.d",
        said: &["plugins in /opt/plugins, "],
    },
    Platform {
        name: "the second of several directories is there",
        files: &[
            (
                "etc/containerd/config.toml",
                "version = 3\nplugins.'io.containerd.cri.v1.runtime'.cni.bin_dirs = ['/opt/plugins', '/opt/cni/bin']\n",
            ),
            ("opt/cni/bin/", ""),
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["plugins in /opt/cni/bin, "],
    },
    Platform {
        name: "containerd without a configuration",
        files: &[("usr/bin/containerd", "")],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: containerd (its defaults, there is no /etc/containerd/config.toml); "],
    },
    Platform {
        name: "Debian's containerd",
        files: &[
            ("usr/bin/containerd", ""),
            ("usr/lib/cni/loopback", ""),
            (
                "etc/containerd/config.toml",
                "version = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".cni]\n      \
                 bin_dir = \"/usr/lib/cni\"\n      conf_dir = \"/etc/cni/net.d\"\n  [plugins.\"io.containerd.internal.v1.opt\"]\n    \
                 path = \"/var/lib/containerd\"\n",
            ),
        ],
        plugin: "usr/lib/cni/flock",
        conf_dir: USUAL_CONF,
        said: &["runtime: containerd (/etc/containerd/config.toml); plugins in /usr/lib/cni, "],
    },
    Platform {
        name: "Debian's plugins before any runtime",
        files: &[("usr/lib/cni/portmap", ""), ("opt/cni/bin/", "")],
        plugin: "usr/lib/cni/flock",
        conf_dir: USUAL_CONF,
        said: &["runtime: none found; plugins in /usr/lib/cni, where other plugins are, "],
    },
    Platform {
        name: "containerd with imports",
        files: &[
            (
                "etc/containerd/config.toml",
                "version = 2\nimports = [\"conf.d/*.toml\", \"/srv/more.toml\", \"/etc/containerd/config.toml\", \"/none.toml\"]\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/opt/cni/bin\"\nconf_dir = \"/etc/cni/net.d\"\n",
            ),
            ("etc/containerd/conf.d/10-a.toml", "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"/srv/a\"\n"),
            ("etc/containerd/conf.d/20-b.toml", "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"/srv/b\"\n"),
            (
                "etc/containerd/conf.d/30-c.toml.off",
                "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nconf_dir = \"/srv/c\"\n",
            ),
            ("srv/more.toml", "[plugins.\"io.containerd.grpc.v1.cri\"]\ncni = { bin_dir = \"/srv/bin\" }\n"),
        ],
        plugin: "srv/bin/flock",
        conf_dir: "/srv/b",
        said: &[
            "(/etc/containerd/config.toml, /etc/containerd/conf.d/10-a.toml, /etc/containerd/conf.d/20-b.toml, /srv/more.toml)",
        ],
    },
    Platform {
        name: "Fedora's CRI-O",
        files: &[
            (
                "etc/crio/crio.conf",
                "[crio]\n[crio.api]\n[crio.network]\nnetwork_dir = \"/etc/cni/net.d/\"\n# plugin_dir = \"/x\"\nplugin_dirs = [\n\t\
                 \"/opt/cni/bin/\",\n\t\"/usr/libexec/cni\",\n]\n",
            ),
            ("etc/crio/crio.conf.d/10-crun.conf", "[crio.runtime]\ndefault_runtime = \"crun\"\n"),
            ("usr/libexec/cni/loopback", ""),
        ],
        plugin: "usr/libexec/cni/flock",
        conf_dir: USUAL_CONF,
        said: &["runtime: CRI-O (/etc/crio/crio.conf); plugins in /usr/libexec/cni, "],
    },
    Platform {
        name: "CRI-O with drop-ins",
        files: &[
            ("etc/crio/crio.conf", "[crio.network]\nplugin_dir = \"/srv/old\"\n"),
            ("etc/crio/crio.conf.d/20-b.conf", "crio.network.network_dir = '/srv/net.d'\n"),
            ("etc/crio/crio.conf.d/30-c.conf", "[crio.network]\nplugin_dirs = ['/srv/cni']\n"),
        ],
        plugin: "srv/cni/flock",
        conf_dir: "/srv/net.d",
        said: &[
            "runtime: CRI-O (/etc/crio/crio.conf, /etc/crio/crio.conf.d/20-b.conf, /etc/crio/crio.conf.d/30-c.conf)",
        ],
    },
    Platform {
        name: "k3s before its first start",
        files: &[("usr/local/bin/k3s", "")],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: k3s (its defaults, /var/lib/rancher/k3s/agent/etc/containerd/config.toml names no others); "],
    },
    Platform {
        name: "k3s with its own flannel",
        files: &[
            ("etc/systemd/system/k3s.service", "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n"),
            K3S_CONFIG,
        ],
        plugin: "var/lib/rancher/k3s/data/cni/flock",
        conf_dir: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        said: &[
            "runtime: k3s (/var/lib/rancher/k3s/agent/etc/containerd/config.toml); ",
            "note: k3s runs its own flannel: ",
        ],
    },
    Platform {
        name: "k3s that is told by its command line to run no flannel",
        files: &[
            (
                "etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--flannel-backend=none' \\\n\t'--disable-network-policy' \\\n",
            ),
            K3S_CONFIG,
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: k3s (its defaults, as of flannel-backend: none); "],
    },
    Platform {
        name: "k3s that is told by a file to run no flannel",
        files: &[
            ("etc/rancher/k3s/config.yaml", "flannel-backend: vxlan\ndata-dir: /srv/k3s\n"),
            ("etc/rancher/k3s/config.yaml.d/cni.yaml", "flannel-backend: none\n"),
            (
                "srv/k3s/agent/etc/containerd/config.toml",
                "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir = '/srv/k3s/agent/etc/cni/net.d'\n",
            ),
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: k3s (its defaults, as of flannel-backend: none); "],
    },
    Platform {
        name: "RKE2",
        files: &[
            ("etc/rancher/rke2/config.yaml", "cni:\n- multus\n- canal\n"),
            (
                "var/lib/rancher/rke2/agent/etc/containerd/config.toml",
                "version = 3\n[plugins.'io.containerd.cri.v1.images']\n",
            ),
            ("usr/local/bin/rke2", ""),
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: RKE2 (its defaults, ", "note: RKE2 installs multus by itself: cni: none in "],
    },
    Platform {
        name: "k0s before its first start",
        files: &[("etc/k0s/k0s.yaml", "spec:\n  network:\n    provider: custom\n")],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: k0s (its defaults, /etc/k0s/containerd.toml names no others); "],
    },
    Platform {
        name: "k0s that is told where to look",
        files: &[
            (
                "etc/k0s/containerd.toml",
                "# k0s_managed=true\nversion = 2\nimports = [\"/run/k0s/containerd-cri.toml\"]\n",
            ),
            (
                "etc/k0s/containerd.d/cni.toml",
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/srv/cni\"\n",
            ),
        ],
        plugin: "srv/cni/flock",
        conf_dir: USUAL_CONF,
        said: &["runtime: k0s (/etc/k0s/containerd.d/cni.toml); "],
    },
    Platform {
        name: "MicroK8s",
        files: &[(
            "var/snap/microk8s/current/args/containerd-template.toml",
            "version = 2\n[plugins.\"io.containerd.runtime.v1.linux\"]\nruntime = \"${RUNTIME}\"\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
             bin_dir = \"${SNAP_DATA}/opt/cni/bin\"\nconf_dir = \"${SNAP_DATA}/args/cni-network\"\n",
        )],
        plugin: "var/snap/microk8s/current/opt/cni/bin/flock",
        conf_dir: "/var/snap/microk8s/current/args/cni-network",
        said: &["runtime: MicroK8s (/var/snap/microk8s/current/args/containerd-template.toml); "],
    },
    Platform {
        name: "podman on Debian",
        files: &[
            ("usr/bin/podman", ""),
            ("usr/lib/cni/loopback", ""),
            ("usr/share/containers/containers.conf", "[network]\n"),
        ],
        plugin: "usr/lib/cni/flock",
        conf_dir: USUAL_CONF,
        said: &["runtime: podman (its defaults, "],
    },
    Platform {
        name: "podman that is told where to look",
        files: &[
            ("usr/bin/podman", ""),
            (
                "etc/containers/containers.conf.d/cni.conf",
                "[network]\ncni_plugin_dirs = [\"/srv/cni\"]\nnetwork_config_dir = \"/srv/net.d\"\n",
            ),
        ],
        plugin: "srv/cni/flock",
        conf_dir: "/srv/net.d",
        said: &["runtime: podman (/etc/containers/containers.conf.d/cni.conf); "],
    },
    // Docker's containerd serves no kubelet, and podman is there for people.
    Platform {
        name: "tools beside k0s",
        files: &[
            ("etc/k0s/k0s.yaml", ""),
            ("usr/bin/podman", ""),
            ("usr/bin/containerd", ""),
            ("etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n[plugins.cri.cni]\nconf_dir = \"/x\"\n"),
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: k0s "],
    },
    Platform {
        name: "two runtimes with a directory in common",
        files: &[
            ("usr/bin/containerd", ""),
            ("etc/crio/crio.conf", "[crio.network]\nplugin_dirs = ['/usr/libexec/cni', '/opt/cni/bin']\n"),
            ("usr/libexec/cni/loopback", ""),
        ],
        plugin: USUAL_PLUGIN,
        conf_dir: USUAL_CONF,
        said: &["runtime: containerd "],
    },
];

/// As k3s writes it, where flannel is its own.
const K3S_CONFIG: (&str, &str) = (
    "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "# File generated by k3s. DO NOT EDIT. Use config.toml.tmpl instead.\nversion = 2\n\n[plugins.\"io.containerd.internal.v1.opt\"]\n  \
     path = \"/var/lib/rancher/k3s/agent/containerd\"\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  stream_server_address = \"127.0.0.1\"\n\
     [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/var/lib/rancher/k3s/data/cni\"\n  \
     conf_dir = \"/var/lib/rancher/k3s/agent/etc/cni/net.d\"\n",
);

fn image_of(files: &[(&str, &str)]) -> Image {
    let image = Image::new("platform");
    for (path, text) in files {
        match path.strip_suffix('/') {
            Some(directory) => fs::create_dir_all(image.path(directory)).expect("made"),
            None => image.write(path, text),
        }
    }
    image
}

/// The files below an image whose name is `flock`, without the image's path.
fn plugins(image: &Image) -> Vec<PathBuf> {
    let root = image.path("");
    let all = image.snapshot().into_keys().filter(|path| path.ends_with("flock") && path.is_file());
    all.map(|path| path.strip_prefix(&root).expect("below").to_owned()).collect()
}

fn text_of(image: &Image, path: &str) -> String {
    fs::read_to_string(image.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn flock_goes_where_the_runtime_of_each_platform_looks_and_leaves_it_as_it_was() {
    let dist = Dist::new("platforms");
    let mut verified = BTreeSet::new();
    for platform in PLATFORMS {
        let name = platform.name;
        let image = image_of(platform.files);
        let before = image.snapshot();
        let said = image.run(&dist, "install --cni-conf").done();
        for part in platform.said {
            assert!(said.contains(part), "{name}: {said}");
        }
        assert_eq!(plugins(&image), [Path::new(platform.plugin)], "{name}: {said}");
        assert!(image.path(&platform.conf_dir[1..]).is_dir(), "{name}");
        let flags = format!("\nFLOCK_AGENT_FLAGS=--cni-conf-dir {}\n", platform.conf_dir);
        assert!(text_of(&image, "etc/default/flock-agent").contains(&flags), "{name}");
        let unit = text_of(&image, SERVICE);
        assert!(unit.contains(&format!("\nReadWritePaths=-{} -/etc/flock/bird ", platform.conf_dir)), "{name}: {unit}");

        let watch = Watch::on_tree(&image.path(""));
        let again = image.run(&dist, "install --cni-conf").done();
        let nothing = format!("nothing to do: flock {} is in place\n", env!("CARGO_PKG_VERSION"));
        assert!(again.contains(&nothing), "{name}: {again}");
        assert_eq!(watch.heard(), [], "{name}");

        if verified.insert(unit.clone()) {
            let here = image.path(AGENT).display().to_string();
            fs::write(image.path(SERVICE), unit.replace("/usr/local/bin/flock-agent", &here)).expect("written");
            assert_accepted(&[image.path(SERVICE)]);
            assert!(exposure(&image.path(SERVICE)) <= EXPOSURE, "{name}");
        }
        image.write(
            &format!("{}/01-flock.conflist", &platform.conf_dir[1..]),
            include_str!("../../../cni-conf/01-flock.conflist"),
        );
        image.run(&dist, "uninstall").done();
        let left: Vec<PathBuf> =
            image.snapshot().into_keys().filter(|path| !path.is_dir() && !before.contains_key(path)).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "{name}");
    }
}

/// The rows of docs/platforms.md, and the images that they are about.
const ROWS: &[(&str, &str)] = &[
    ("kubeadm", "kubeadm"),
    ("Debian's containerd", "Debian's containerd"),
    ("Fedora's CRI-O", "Fedora's CRI-O"),
    ("k3s", "k3s that is told by its command line to run no flannel"),
    ("RKE2", "RKE2"),
    ("k0s", "k0s before its first start"),
    ("MicroK8s", "MicroK8s"),
    ("podman on Debian", "podman on Debian"),
];

#[test]
fn the_page_about_platforms_names_the_directories_that_are_chosen() {
    let page = include_str!("../../../docs/platforms.md");
    let table = page.split("## ").next().expect("the first table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .skip(1)
        .map(|line| line.split(" | ").map(|cell| cell.trim_matches('`')).collect())
        .collect();
    assert_eq!(rows.len(), ROWS.len(), "{rows:?}");
    for ((row, name), cells) in ROWS.iter().zip(rows) {
        let platform = PLATFORMS.iter().find(|platform| platform.name == *name).expect("it is tried");
        let plugins = Path::new("/").join(platform.plugin).parent().expect("a directory").display().to_string();
        assert_eq!(cells[..3], [*row, &plugins, platform.conf_dir]);
    }
}

#[test]
fn runtimes_that_contradict_each_other_and_configurations_that_are_none_are_left_to_the_operator() {
    let dist = Dist::new("contradiction");
    let debians =
        ("etc/containerd/config.toml", "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n");
    for (files, why) in [
        (
            &[debians, ("etc/crio/crio.conf", "[crio.network]\nplugin_dirs = ['/opt/cni/bin']\n")][..],
            "containerd (/usr/lib/cni, /etc/cni/net.d) and CRI-O (/opt/cni/bin, /etc/cni/net.d) do not look in the same directories: \
             choose by --runtime containerd or --runtime crio",
        ),
        (&[debians, K3S_CONFIG], "choose by --runtime k3s or --runtime containerd"),
        (
            &[("etc/containerd/config.toml", "version = 2\n[plugins\n")],
            "/etc/containerd/config.toml, line 2: a table's name has to end with ]: correct it, or say by --cni-bin-dir and --cni-conf-dir",
        ),
        (
            &[("etc/containerd/config.toml", "plugins.cri.cni.conf_dir = 'net.d'\n")],
            "/etc/containerd/config.toml, \"net.d\" is no absolute path of a directory: ",
        ),
        (&[("etc/rancher/k3s/config.yaml", "a: b: c\n")], "/etc/rancher/k3s/config.yaml, "),
        (
            &[("etc/crio/crio.conf", "crio.network.network_dir = '/srv/my net'\n")],
            "/srv/my net: a unit of systemd takes letters, digits and / . _ + - @ : , ~ only; name another directory by --cni-conf-dir",
        ),
        (
            &[("etc/crio/crio.conf", "crio.network.network_dir = '/root/cni'\n")],
            "/root/cni: the unit hides /home, /root, ",
        ),
    ] {
        let image = image_of(files);
        let before = image.snapshot();
        let text = image.run(&dist, "install").refused();
        assert!(text.contains(why), "{text}");
        assert_eq!(image.snapshot(), before);
    }
}

#[test]
fn every_copy_of_the_plugin_is_renewed() {
    let (dist, image) = (Dist::new("copies"), Image::new("copies"));
    let new = dist.other("copies-new");
    for dir in ["/opt/cni/bin", "/usr/lib/cni"] {
        image.run(&dist, &format!("install --cni-bin-dir {dir}")).done();
    }
    assert_eq!(plugins(&image).len(), 2);
    let said = image.run(&new, "install").done();
    for plugin in plugins(&image) {
        assert!(said.contains(&format!("{}\n", plugin.display())), "{said}");
        assert!(
            fs::read(image.path(plugin.to_str().expect("text"))).expect("there")
                == fs::read(new.plugin()).expect("there")
        );
    }
    // By the installed program, beside which there is none, both are named.
    let mut again = Command::new(image.path(AGENT));
    let said = Run::of(again.args(["install", "--root"]).arg(image.path(""))).done();
    assert!(said.contains("kept /opt/cni/bin/flock and /usr/lib/cni/flock, since"), "{said}");
    image.run(&new, "uninstall").done();
    assert_eq!(plugins(&image), Vec::<PathBuf>::new());
}

/// A run while a directory of the image is read-only, as a file system of its own that is mounted so.
fn run_beside(image: &Image, dist: &Dist, read_only: &str, line: &str) -> Run {
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(image.path(read_only)).arg(dist.agent());
    Run::of(command.args(line.split_whitespace()).arg("--root").arg(image.path("")).stdin(Stdio::null()))
}

// Flatcar and others with a read-only /usr.
#[test]
fn what_is_read_only_is_found_before_the_first_change_and_the_flag_is_named() {
    let dist = Dist::new("flatcar");
    let files = [("usr/bin/containerd", ""), ("usr/share/containerd/config.toml", "version = 2\n"), ("opt/", "")];
    let image = image_of(&files);
    let before = image.snapshot();
    let text = run_beside(&image, &dist, "usr", "install --cni-conf").refused();
    let usr = image.path("usr/local").display().to_string();
    let remedy = "is on a read-only file system: name another directory by --bin-dir, such as /opt/bin";
    assert!(text.contains(&format!("{} {remedy}", usr.trim_end_matches("/local"))), "{text}");
    assert_eq!(image.snapshot(), before, "not even a directory");

    let said = run_beside(&image, &dist, "usr", "install --cni-conf --bin-dir /opt/bin").done();
    assert!(
        said.contains("runtime: containerd (its defaults, /usr/share/containerd/config.toml names no others); "),
        "{said}"
    );
    let unit = text_of(&image, SERVICE);
    assert!(unit.contains("\nExecStart=/opt/bin/flock-agent $FLOCK"), "{unit}");
    assert!(fs::read(image.path("opt/bin/flock-agent")).expect("there") == fs::read(dist.agent()).expect("there"));
    // From then on it is known.
    let said = run_beside(&image, &dist, "usr", "install --bird").done();
    assert!(said.contains("flock-bird.service") && !image.path("usr/local").exists(), "{said}");
    assert!(
        text_of(&image, "etc/systemd/system/flock-announce.service")
            .contains("\nExecStop=/opt/bin/flock-agent withdraw\n")
    );
    run_beside(&image, &dist, "usr", "uninstall").done();
    assert!(!image.path("opt/bin/flock-agent").exists() && !image.path(SERVICE).exists());

    // A place of the operator's own has to be named again when the unit is gone.
    image.run(&dist, "install --bin-dir /srv/bin").done();
    fs::remove_file(image.path(SERVICE)).expect("removed");
    image.run(&dist, "uninstall --bin-dir /srv/bin").done();
    assert!(!image.path("srv/bin/flock-agent").exists());
}

#[test]
fn a_read_only_place_of_the_plugin_is_passed_over_or_named() {
    let dist = Dist::new("ostree");
    let crio = ("etc/crio/crio.conf", "[crio.network]\nplugin_dirs = ['/usr/libexec/cni', '/opt/cni/bin']\n");
    let image = image_of(&[crio, ("usr/libexec/cni/loopback", ""), ("usr/local/", "")]);
    let before = image.snapshot();
    let text = run_beside(&image, &dist, "usr/libexec", "install --cni-bin-dir /usr/libexec/cni").refused();
    assert!(text.contains("read-only file system: name another directory by --cni-bin-dir"), "{text}");
    assert_eq!(image.snapshot(), before);
    run_beside(&image, &dist, "usr/libexec", "install").done();
    assert_eq!(plugins(&image), [Path::new(USUAL_PLUGIN)]);
    // A copy that cannot be renewed is named, and does not stand in the way.
    fs::copy(dist.plugin(), image.path("usr/libexec/cni/flock")).expect("copied");
    let said = run_beside(&image, &dist, "usr/libexec", "install").done();
    assert!(
        said.contains("note: left another copy of the plugin, /usr/libexec/cni/flock, which cannot be changed\n"),
        "{said}"
    );
}

#[test]
fn where_units_are_declared_nothing_is_changed() {
    let dist = Dist::new("nixos");
    let image = image_of(&[("nix/store/abc-system-units/containerd.service", ""), ("etc/static/systemd/", "")]);
    symlink("/nix/store/abc-system-units", image.path("etc/static/systemd/system")).expect("made");
    fs::create_dir_all(image.path("etc/systemd")).expect("made");
    symlink("/etc/static/systemd/system", image.path("etc/systemd/system")).expect("made");
    let before = image.snapshot();
    let text = run_beside(&image, &dist, "nix/store", "install --cni-conf").refused();
    assert!(
        text.contains("etc/systemd/system is on a read-only file system: nothing can be installed here; where units"),
        "{text}"
    );
    assert_eq!(image.snapshot(), before);
}

#[test]
fn flags_say_what_the_host_does_not() {
    let dist = Dist::new("flags");
    let two = [
        ("etc/containerd/config.toml", "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n"),
        ("etc/crio/crio.conf", "[crio.network]\nplugin_dirs = ['/srv/cni']\nnetwork_dir = '/srv/net.d'\n"),
    ];
    for (files, line, plugin, conf_dir) in [
        (&two[..], "--runtime containerd", "usr/lib/cni/flock", USUAL_CONF),
        (&two, "--runtime crio", "srv/cni/flock", "/srv/net.d"),
        (&two, "--runtime crio --cni-conf-dir /etc/x.d", "srv/cni/flock", "/etc/x.d"),
        (&two, "--cni-bin-dir /opt/x --cni-conf-dir /etc/x.d", "opt/x/flock", "/etc/x.d"),
        (
            &[],
            "--runtime microk8s",
            "var/snap/microk8s/current/opt/cni/bin/flock",
            "/var/snap/microk8s/current/args/cni-network",
        ),
        (&[], "--runtime k3s", USUAL_PLUGIN, USUAL_CONF),
        (
            &[("etc/containerd/config.toml", "{{")],
            "--cni-bin-dir /opt/x --cni-conf-dir /etc/x.d",
            "opt/x/flock",
            "/etc/x.d",
        ),
    ] {
        let image = image_of(files);
        let said = image.run(&dist, &format!("install --cni-conf {line}")).done();
        assert_eq!(plugins(&image), [Path::new(plugin)], "{line}: {said}");
        let flags = text_of(&image, "etc/default/flock-agent");
        assert!(flags.ends_with(&format!("=--cni-conf-dir {conf_dir}\n")), "{line}: {flags}");
        assert!(text_of(&image, SERVICE).contains(&format!("\nReadWritePaths=-{conf_dir} ")), "{line}");
    }
    for (line, why) in [
        ("--bin-dir /home/me", "/home/me/flock-agent: the unit hides /home, "),
        ("--cni-conf-dir /a%b", "/a%b: a unit of systemd takes letters, digits"),
    ] {
        let image = image_of(&[]);
        let text = image.run(&dist, &format!("install {line}")).refused();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn the_unit_lets_the_agent_write_where_it_does_write() {
    let (dist, image) = (Dist::new("moved"), image_of(&[("usr/bin/containerd", "")]));
    let writes = |dir: &str| text_of(&image, SERVICE).contains(&format!("\nReadWritePaths=-{dir} "));
    image.run(&dist, "install --cni-conf").done();
    // The runtime is told to look elsewhere. What the agent does meanwhile is what its flags say.
    image.write("etc/containerd/config.toml", "plugins.cri.cni.conf_dir = '/srv/net.d'\n");
    let said = image.run(&dist, "install").done();
    let why = "note: the agent writes the CNI configuration into /etc/cni/net.d, as /etc/default/flock-agent says, and the runtime reads \
               /srv/net.d\n";
    assert!(said.contains(why) && writes(USUAL_CONF), "{said}");
    let said = image.run(&dist, "install --cni-conf").done();
    assert!(!said.contains("note: ") && writes("/srv/net.d") && image.path("srv/net.d").is_dir(), "{said}");
    image.run(&dist, "install --cni-conf-dir /srv/other.d").done();
    assert!(writes("/srv/other.d"));
    assert!(text_of(&image, "etc/default/flock-agent").ends_with("=--cni-conf-dir /srv/other.d\n"));
    // Flags by hand are the operator's, and the unit follows them.
    image.write("etc/default/flock-agent", "FLOCK_AGENT_FLAGS=--log-level debug --cni-conf-dir=/srv/mine.d\n");
    let said = image.run(&dist, "install --cni-conf").done();
    assert!(
        said.contains("note: the agent writes the CNI configuration into /srv/mine.d, ") && writes("/srv/mine.d"),
        "{said}"
    );
}

/// A host on which the distribution's package is installed.
const PACKAGED: [(&str, &str); 5] = [
    ("usr/sbin/flock-agent", "the package's /run/flock/flock.sock"),
    ("usr/lib/cni/flock", "the package's /run/flock/flock.sock"),
    ("usr/lib/systemd/system/flock-agent.service", "[Service]\nExecStart=/usr/sbin/flock-agent\n"),
    ("etc/default/flock-agent", ""),
    ("etc/flock/node.yaml", ""),
];

/// What is said of it.
const PACKAGE: &str =
    "flock belongs to a package (dpkg -S or rpm -qf /usr/lib/systemd/system/flock-agent.service names it) here";

#[test]
fn beside_a_package_nothing_is_installed_and_only_copies_are_removed() {
    let dist = Dist::new("package");
    let add_package = |image: &Image| PACKAGED.iter().for_each(|(path, text)| image.write(path, text));
    let image = image_of(&[]);
    add_package(&image);
    let before = image.snapshot();
    for line in ["install", "install --cni-conf --bin-dir /opt/bin", "install --plugin-only"] {
        let text = image.run(&dist, line).refused();
        assert!(text.contains(PACKAGE), "{text}");
    }
    let said = image.run(&dist, "uninstall --purge").done();
    assert!(said.contains("left what belongs to ") && said.ends_with("nothing is installed\n"), "{said}");
    assert_eq!(image.snapshot(), before);

    // The package's own script has all of it removed but its files, and what is the operator's.
    let image = image_of(&[]);
    add_package(&image);
    image.write("etc/cni/net.d/01-flock.conflist", include_str!("../../../cni-conf/01-flock.conflist"));
    let said = image.run(&dist, "uninstall --package").done();
    assert!(said.starts_with("removed ") && !said.contains("next: ") && !said.contains("belongs to"), "{said}");
    assert!(PACKAGED.iter().all(|(path, _)| image.path(path).exists()), "{said}");
    assert!(!image.path("etc/cni/net.d/01-flock.conflist").exists(), "{said}");

    // Copies from before the package.
    let image = image_of(&[]);
    image.run(&dist, "install --cni-conf").done();
    add_package(&image);
    image.write("etc/cni/net.d/01-flock.conflist", include_str!("../../../cni-conf/01-flock.conflist"));
    let said = image.run(&dist, "uninstall --purge").done();
    assert!([AGENT, SERVICE, USUAL_PLUGIN].iter().all(|path| !image.path(path).exists()), "{said}");
    assert!(PACKAGED.iter().all(|(path, _)| image.path(path).exists()), "{said}");
    assert!(image.path("etc/cni/net.d/01-flock.conflist").exists(), "{said}");
    // Of a package that was removed, dpkg keeps what was configured, and the list of that.
    let image = image_of(&[
        ("var/lib/dpkg/info/flock-cni.list", "/etc/default/flock-agent\n"),
        ("etc/default/flock-agent", ""),
    ]);
    image.run(&dist, "install").done();
}

#[test]
fn an_init_container_puts_the_plugin_alone_into_the_directory_that_it_is_given() {
    let dist = Dist::new("only");
    for (line, plugin) in [("", USUAL_PLUGIN), (" --cni-bin-dir /host/cni", "host/cni/flock")] {
        let image = image_of(&[]);
        let said = image.run(&dist, &format!("install --plugin-only{line}")).done();
        assert!(said.ends_with(&format!("installed {}\n", image.path(plugin).display())), "{said}");
        let files: Vec<PathBuf> = image.snapshot().into_keys().filter(|path| path.is_file()).collect();
        assert_eq!(files, [image.path(plugin)]);
        image.write(&format!("{}/.flock.1-2.tmp", plugin.trim_end_matches("/flock")), "of a killed one");
        let watch = Watch::on_tree(&image.path(plugin.split('/').next().expect("a name")));
        let said = image.run(&dist.other("only-new"), &format!("install --plugin-only{line}")).done();
        assert!(said.contains("replaced "), "{said}");
        let heard: Vec<String> =
            watch.heard().into_iter().map(|(name, _)| name).filter(|name| name == "flock").collect();
        assert_eq!(heard, ["flock"], "renamed into its place, and never seen half");
        assert_eq!(plugins(&image), [Path::new(plugin)]);
        assert_eq!(image.snapshot().keys().filter(|path| path.extension().is_some()).count(), 0);
        let said = image.run(&dist.other("only-new"), &format!("install --plugin-only{line}")).done();
        assert_eq!(said, format!("nothing to do: flock {} is in place\n", env!("CARGO_PKG_VERSION")));
    }
    let image = image_of(&[("opt/cni/bin/", "")]);
    let text = run_beside(&image, &dist, "opt/cni", "install --plugin-only").refused();
    assert!(
        text.contains("opt/cni/bin is on a read-only file system: name another directory by --cni-bin-dir"),
        "{text}"
    );
    fs::remove_file(dist.plugin()).expect("removed");
    image.write("opt/cni/bin/flock", "an older one of /run/flock/flock.sock");
    assert!(image.run(&dist, "install --plugin-only").refused().contains("name it by --plugin FILE"));
}

// With nothing but the two programs, as `FROM scratch` has it.
#[test]
fn an_image_from_scratch_is_enough_for_the_plugin_alone() {
    let (dist, image) = (Dist::new("scratch"), image_of(&[("proc/", ""), ("opt/cni/bin/", "")]));
    for program in [dist.agent(), dist.plugin()] {
        fs::copy(&program, image.path(program.file_name().and_then(|name| name.to_str()).expect("text")))
            .expect("copied");
    }
    let script = "mount --rbind /proc \"$1/proc\" && exec chroot \"$1\" /flock-agent install --plugin-only";
    let mut command = Command::new("unshare");
    let run = Run::of(command.args(["--mount", "sh", "-c", script, "sh"]).arg(image.path("")));
    assert_eq!(run.done(), "installed /opt/cni/bin/flock\n");
    assert!(fs::read(image.path(USUAL_PLUGIN)).expect("there") == fs::read(dist.plugin()).expect("there"));
}

// covers: FM-S02
#[test]
fn managers_of_links_are_kept_away_from_those_of_pods_where_they_are() {
    const NETWORKD: (&str, &str) = ("etc/systemd/network/05-flock.network", "usr/lib/systemd/systemd-networkd");
    const NETWORK_MANAGER: (&str, &str) = ("etc/NetworkManager/conf.d/flock.conf", "usr/sbin/NetworkManager");
    let dist = Dist::new("managers");
    for here in [&[][..], &[NETWORKD], &[NETWORK_MANAGER], &[NETWORKD, NETWORK_MANAGER]] {
        let programs: Vec<(&str, &str)> = here.iter().map(|(_, program)| (*program, "")).collect();
        let image = image_of(&programs);
        image.run(&dist, "install").done();
        for manager in [NETWORKD, NETWORK_MANAGER] {
            assert_eq!(image.path(manager.0).exists(), here.contains(&manager), "{}", manager.0);
        }
        let said = image.run(&dist, "install").done();
        assert!(said.contains("nothing to do"), "{said}");
        image.run(&dist, "uninstall").done();
        assert!([NETWORKD, NETWORK_MANAGER].iter().all(|(file, _)| !image.path(file).exists()));

        // What an operator has made of it is his.
        here.iter().for_each(|(file, _)| image.write(file, "# mine\n"));
        image.run(&dist, "install").done();
        let said = image.run(&dist, "uninstall").done();
        for (file, _) in here {
            assert_eq!(text_of(&image, file), "# mine\n");
            assert!(said.contains(&format!("left /{file}: yours\n")), "{said}");
        }
    }
}
