//! Into an image: nothing of the machine is looked at, and nothing outside of the image is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use flock::cli::help;
use flock::cli::table::Program;

use super::dist::{Dist, Points, Run, Watch, snapshot, temporaries};
use crate::support::programs::succeed;
use crate::support::share::share;
use crate::support::temp::TempDir;
use crate::support::waiting::wait_for;

const AGENT: &str = "usr/local/bin/flock-agent";
const PLUGIN: &str = "opt/cni/bin/flock";
const SERVICE: &str = "etc/systemd/system/flock-agent.service";
const SOCKET: &str = "etc/systemd/system/flock-agent.socket";
const BIRD_CONF: &str = "etc/flock/bird/bird.conf";
const DEFAULTS: &str = "etc/default/flock-agent";
const FILES: [&str; 5] = [AGENT, PLUGIN, SERVICE, SOCKET, DEFAULTS];

/// An image in the making.
pub(super) struct Image(TempDir);

impl Image {
    pub(super) fn new(name: &str) -> Image {
        // One test may have several at a time.
        static MADE: AtomicUsize = AtomicUsize::new(0);
        Image(TempDir::new(&format!("image-{name}-{}", MADE.fetch_add(1, Ordering::Relaxed))))
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    pub(super) fn command(&self, dist: &Dist, line: &str) -> Command {
        let mut command = Command::new(dist.agent());
        command.args(line.split_whitespace()).arg("--root").arg(self.0.path()).stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, dist: &Dist, line: &str) -> Run {
        Run::of(&mut self.command(dist, line))
    }

    pub(super) fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        snapshot(&[self.0.path().into()])
    }
}

#[test]
fn an_image_has_all_that_a_node_needs_and_a_second_run_touches_nothing() {
    let (dist, image) = (Dist::new("all"), Image::new("all"));
    let said = image.run(&dist, "install --cni-conf").done();
    assert!(said.contains("next: systemctl --root="), "{said}");
    assert!(said.contains("missing: this node's NodeConfig"), "{said}");
    for (path, source, mode) in [
        (AGENT, dist.agent(), 0o755),
        (PLUGIN, dist.plugin(), 0o755),
        (SERVICE, Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/flock-agent.service"), 0o644),
        (SOCKET, Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/flock-agent.socket"), 0o644),
    ] {
        assert!(fs::read(image.path(path)).expect("installed") == fs::read(source).expect("there"), "{path}");
        assert_eq!(fs::metadata(image.path(path)).expect("installed").permissions().mode() & 0o7777, mode, "{path}");
    }
    let defaults = fs::read_to_string(image.path(DEFAULTS)).expect("installed");
    assert!(defaults.ends_with("\nFLOCK_AGENT_FLAGS=--cni-conf-dir /etc/cni/net.d\n"), "{defaults}");
    let before = image.snapshot();
    let files = before.values().filter(|what| !what.starts_with("directory")).count();
    assert_eq!(files, FILES.len(), "{before:#?}");

    let watch = Watch::on_tree(image.0.path());
    image.run(&dist, "install --cni-conf").done();
    assert_eq!(watch.heard(), [], "a second run is not noticed");
    // From the program that is installed, with no plugin beside it.
    let mut again = Command::new(image.path(AGENT));
    let said = Run::of(again.args(["install", "--root"]).arg(image.0.path())).done();
    assert!(said.contains("kept /opt/cni/bin/flock"), "{said}");
    assert_eq!(watch.heard(), []);
    assert_eq!(image.snapshot(), before);

    let said = image.run(&dist, "uninstall").done();
    assert!(FILES.iter().all(|file| said.contains(&format!("{file}\n"))), "{said}");
    let left = image.snapshot();
    assert!(left.values().all(|what| what.starts_with("directory")), "{left:#?}");
    assert!(!image.path("etc/flock").exists() && image.path("etc/cni/net.d").exists());
    assert_eq!(image.run(&dist, "uninstall").done(), "nothing is installed\n");
}

#[test]
fn bird_has_something_to_start_with_and_a_configuration_of_somebody_else_stays_his() {
    let dist = Dist::new("bird");
    for theirs in [false, true] {
        let image = Image::new("bird");
        if theirs {
            image.write(BIRD_CONF, "router id 192.0.2.1;\n");
        }
        let said = image.run(&dist, "install --bird").done();
        assert!(said.contains("enable flock-agent flock-bird flock-announce"), "{said}");
        let written = fs::read_to_string(image.path(BIRD_CONF)).expect("there");
        assert_eq!(written, if theirs { "router id 192.0.2.1;\n" } else { include_str!("../../data/bird/first.conf") });
        // What an agent has made of it meanwhile, and what one that was killed has left.
        if !theirs {
            let of_agent = written.replace("protocol device { }", "protocol device { }\nprotocol bfd { }");
            [BIRD_CONF, "etc/flock/bird/bird.conf.new"].into_iter().for_each(|path| image.write(path, &of_agent));
        }
        let watch = Watch::on_tree(image.0.path());
        let said = image.run(&dist, "install").done();
        assert!(!said.contains("flock-announce"), "what the operator has disabled meanwhile stays so: {said}");
        assert_eq!(watch.heard(), [], "the units are renewed with the others, and that is never overwritten");
        let said = image.run(&dist, "uninstall").done();
        assert_eq!(said.contains("left /etc/flock/bird/bird.conf: yours"), theirs, "{said}");
        assert_eq!([BIRD_CONF, "etc/flock"].map(|path| image.path(path).exists()), [theirs, theirs]);
    }
}

#[test]
fn a_dry_run_says_the_same_and_touches_nothing() {
    let (dist, image) = (Dist::new("dry"), Image::new("dry"));
    let as_done = |said: &str| {
        said.replace("would make", "made")
            .replace("would install", "installed")
            .replace("would replace", "replaced")
            .replace("would remove", "removed")
    };
    for line in ["install --cni-conf", "uninstall"] {
        let watch = Watch::on_tree(image.0.path());
        let before = image.snapshot();
        let would = image.run(&dist, &format!("{line} --dry-run")).done();
        assert_eq!(watch.heard(), [], "{line}");
        assert_eq!(image.snapshot(), before, "{line}");
        assert_eq!(as_done(&would), image.run(&dist, line).done());
    }
}

#[test]
fn something_else_in_the_place_of_a_file_is_named_and_nothing_is_changed() {
    let dist = Dist::new("hostile");
    for path in FILES {
        for kind in ["link", "dangling", "directory", "fifo"] {
            let image = Image::new("hostile");
            image.write("elsewhere", "not to be written to");
            let place = image.path(path);
            fs::create_dir_all(place.parent().expect("a directory")).expect("made");
            match kind {
                "link" => symlink(image.path("elsewhere"), &place).expect("made"),
                "dangling" => symlink("/nowhere", &place).expect("made"),
                "directory" => fs::create_dir(&place).expect("made"),
                _ => drop(succeed(Command::new("mkfifo").arg(&place))),
            }
            let before = image.snapshot();
            let text = image.run(&dist, "install --cni-conf").refused();
            assert!(text.contains(&format!("/{path} is a")) && text.contains("remove it first"), "{kind}: {text}");
            assert_eq!(image.snapshot(), before, "{path} {kind}");
            let said = image.run(&dist, "uninstall").done();
            assert!(said.contains(&format!("left /{path}: ")), "{kind}: {said}");
            assert_eq!(image.snapshot(), before, "{path} {kind}, uninstall");
        }
    }
}

#[test]
fn something_else_in_the_place_of_a_directory_is_named_and_nothing_is_changed() {
    let dist = Dist::new("above");
    for path in ["usr/local/bin", "opt/cni", "etc/systemd", "etc/flock", "etc/cni/net.d"] {
        for kind in ["file", "dangling"] {
            let image = Image::new("above");
            let place = image.path(path);
            fs::create_dir_all(place.parent().expect("a directory")).expect("made");
            match kind {
                "file" => fs::write(&place, "").expect("made"),
                _ => symlink("/nowhere", &place).expect("made"),
            }
            let before = image.snapshot();
            let text = image.run(&dist, "install").refused();
            assert!(text.contains(path), "{kind}: {text}");
            assert_eq!(image.snapshot(), before, "{path} {kind}");
        }
    }
}

#[test]
fn links_in_an_image_lead_into_the_image() {
    let (dist, image, outside) = (Dist::new("links"), Image::new("links"), TempDir::new("outside"));
    for directory in ["var/opt", "var/usrlocal", "etc"] {
        fs::create_dir_all(image.path(directory)).expect("made");
    }
    fs::create_dir(image.path("usr")).expect("made");
    symlink("/var/opt", image.path("opt")).expect("made");
    symlink("../var/usrlocal", image.path("usr/local")).expect("made");
    // One that would lead out if it were followed from here.
    let out = format!("../../../../../../../../../..{}", outside.path().display());
    symlink(&out, image.path("etc/systemd")).expect("made");
    fs::create_dir_all(image.path(outside.path().strip_prefix("/").expect("absolute").to_str().expect("text")))
        .expect("made");
    image.run(&dist, "install").done();
    assert!(image.path("var/opt/cni/bin/flock").is_file());
    assert!(image.path("var/usrlocal/bin/flock-agent").is_file());
    assert_eq!(snapshot(&[outside.path().into()]).len(), 1, "nothing came out of the image");
    image.run(&dist, "uninstall").done();
    assert!(!image.path("var/opt/cni/bin/flock").exists());
}

/// Each file is as one of the versions has it, or not there; nothing that is there is half of one.
#[track_caller]
fn assert_whole(image: &Image, versions: &[&Dist], when: &str) {
    for path in [AGENT, PLUGIN] {
        let Ok(content) = fs::read(image.path(path)) else { continue };
        let of = |dist: &&Dist| fs::read(if path == AGENT { dist.agent() } else { dist.plugin() }).expect("there");
        assert!(versions.iter().any(|dist| of(dist) == content), "{path} is half, {when}");
        let mode = fs::metadata(image.path(path)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{path} is there and cannot be run, {when}");
    }
    for path in [SERVICE, SOCKET] {
        let Ok(text) = fs::read_to_string(image.path(path)) else { continue };
        assert!(text.contains("[Install]") || text == "older", "{path} is half, {when}");
    }
    if image.path(SERVICE).exists() && fs::read_to_string(image.path(SERVICE)).expect("text") != "older" {
        assert!(image.path(AGENT).exists(), "a unit without its program, {when}");
    }
    if image.path(DEFAULTS).exists() {
        assert!(image.path(PLUGIN).exists(), "the runtime is sent to a plugin that is not there, {when}");
    }
}

#[test]
fn an_install_killed_at_any_step_leaves_whole_files_and_is_finished_by_the_next() {
    let old = Dist::new("old");
    let new = old.other("new");
    let points = Points::new("install");
    let start = |upgrade: bool| {
        let image = Image::new("killed");
        if upgrade {
            image.run(&old, "install").done();
            image.write(SERVICE, "older");
            image.write(SOCKET, "older");
        }
        image
    };
    let launch = |image: &Image| {
        let mut command = image.command(&new, "install --cni-conf");
        points.apply(&mut command);
        Run::of(&mut command)
    };
    for upgrade in [false, true] {
        let image = start(upgrade);
        let passed = points.traced(|| drop(launch(&image).done()));
        let wanted: Vec<String> = relative(&image);
        assert!(passed.len() > 35, "{passed:?}");
        for point in share(&format!("install killed, upgrade: {upgrade}"), &passed) {
            let image = start(upgrade);
            points.arm(point, "kill");
            assert!(launch(&image).was_killed(), "{point}");
            let when = format!("killed at {point}, upgrade: {upgrade}");
            assert_whole(&image, &[&old, &new], &when);
            assert!(temporaries(&image.snapshot()).len() <= 1, "{when}");
            launch(&image).done();
            assert_eq!(relative(&image), wanted, "{when}");
        }
    }
}

/// The snapshot of an image without the name of its directory.
fn relative(image: &Image) -> Vec<String> {
    let seen = image.snapshot();
    seen.iter()
        .map(|(path, what)| format!("{} {what}", path.strip_prefix(image.0.path()).expect("below").display()))
        .collect()
}

#[test]
fn an_uninstall_killed_at_any_step_is_finished_by_the_next() {
    let (dist, points) = (Dist::new("gone"), Points::new("uninstall"));
    let start = || {
        let image = Image::new("gone");
        image.run(&dist, "install --cni-conf").done();
        image.write("etc/cni/net.d/01-flock.conflist", include_str!("../../../cni-conf/01-flock.conflist"));
        image
    };
    let launch = |image: &Image| {
        let mut command = image.command(&dist, "uninstall");
        points.apply(&mut command);
        Run::of(&mut command)
    };
    let image = start();
    let passed = points.traced(|| drop(launch(&image).done()));
    let wanted = relative(&image);
    assert!(passed.len() >= 14, "{passed:?}");
    for point in share("uninstall killed", &passed) {
        let image = start();
        points.arm(point, "kill");
        assert!(launch(&image).was_killed(), "{point}");
        let configured = image.path("etc/cni/net.d/01-flock.conflist").exists();
        assert!(!configured || image.path(PLUGIN).exists(), "the runtime is sent to nobody, killed at {point}");
        let anything = FILES.iter().any(|file| *file != AGENT && image.path(file).exists());
        assert!(!anything || image.path(AGENT).exists(), "nobody is there to finish it, killed at {point}");
        launch(&image).done();
        assert_eq!(relative(&image), wanted, "killed at {point}");
    }
}

#[test]
fn leftovers_are_removed_if_they_are_ours() {
    let (dist, image) = (Dist::new("left"), Image::new("left"));
    image.run(&dist, "install").done();
    let clean = image.snapshot();
    let ours = ["opt/cni/bin/.flock.12ab-0123456789abcdef.tmp", "usr/local/bin/.flock-agent.1-2.tmp"];
    let foreign =
        ["opt/cni/bin/.flock.swp", "opt/cni/bin/.calico.1-2.tmp", "etc/systemd/system/.flock-agent.service.old.tmp"];
    ours.iter().chain(&foreign).for_each(|path| image.write(path, ""));
    symlink("/etc/passwd", image.path("opt/cni/bin/.flock.2-2.tmp")).expect("made");
    fs::create_dir(image.path("opt/cni/bin/.flock.3-3.tmp")).expect("made");
    image.run(&dist, "install").done();
    let added = image.snapshot().len() - clean.len();
    assert_eq!(added, foreign.len() + 2, "{:#?}", image.snapshot());
    assert!(ours.iter().all(|path| !image.path(path).exists()));
}

#[test]
fn the_operators_flags_are_added_to_or_left_to_the_operator() {
    let (dist, image) = (Dist::new("flags"), Image::new("flags"));
    let mine = "# mine\nFLOCK_AGENT_SOURCE=--kubeconfig /etc/flock/kubeconfig";
    image.write(DEFAULTS, mine);
    fs::set_permissions(image.path(DEFAULTS), fs::Permissions::from_mode(0o640)).expect("changed");
    let said = image.run(&dist, "install --cni-conf").done();
    assert!(!said.contains("missing"), "a source is named: {said}");
    let text = fs::read_to_string(image.path(DEFAULTS)).expect("text");
    assert!(text.ends_with(mine) && text.contains("\nFLOCK_AGENT_FLAGS=--cni-conf-dir /etc/cni/net.d\n"), "{text}");
    assert_eq!(fs::metadata(image.path(DEFAULTS)).expect("there").permissions().mode() & 0o7777, 0o640);
    let said = image.run(&dist, "uninstall").done();
    assert!(said.contains("left /etc/default/flock-agent"), "{said}");
    assert_eq!(fs::read_to_string(image.path(DEFAULTS)).expect("text"), mine);

    fs::write(image.path(DEFAULTS), b"# caf\xe9\n").expect("written");
    let text = image.run(&dist, "install --cni-conf").refused();
    assert!(text.contains("etc/default/flock-agent: it is not UTF-8"), "{text}");
    image.run(&dist, "uninstall").done();
    assert_eq!(fs::read(image.path(DEFAULTS)).expect("there"), b"# caf\xe9\n");

    image.write(DEFAULTS, "FLOCK_AGENT_FLAGS=--log-level debug\n");
    let before = image.snapshot();
    let text = image.run(&dist, "install --cni-conf").refused();
    assert!(text.contains("add --cni-conf-dir /etc/cni/net.d there"), "{text}");
    assert_eq!(image.snapshot(), before);
    image.run(&dist, "install").done();
    image.write("etc/flock/node.yaml", "mine");
    let said = image.run(&dist, "uninstall").done();
    for mine in ["/etc/flock/node.yaml", "/etc/default/flock-agent"] {
        assert!(said.contains(&format!("left {mine}: yours; --purge removes it")), "{said}");
    }
    image.run(&dist, "uninstall --purge").done();
    assert!(!image.path("etc/flock").exists() && !image.path(DEFAULTS).exists());
}

#[test]
fn another_program_of_the_same_name_is_no_plugin() {
    let (dist, image) = (Dist::new("other"), Image::new("other"));
    let text = image.run(&dist, "install --plugin /usr/bin/flock").refused();
    assert!(text.contains("/usr/bin/flock is not the plugin of flock"), "{text}");
    let text = image.run(&dist, "install --plugin /nowhere/flock").refused();
    assert!(text.contains("there is no plugin at /nowhere/flock"), "{text}");
    fs::rename(dist.plugin(), dist.plugin().with_extension("away")).expect("renamed");
    let text = image.run(&dist, "install").refused();
    assert!(text.contains("name it by --plugin FILE"), "{text}");
    assert_eq!(image.snapshot().len(), 1);
    let mut named = image.command(&dist, "install");
    Run::of(named.arg("--plugin").arg(dist.plugin().with_extension("away"))).done();
    assert!(image.path(PLUGIN).is_file());

    // Somebody has put another program into its place since. It is not ours to remove.
    fs::copy("/usr/bin/flock", image.path(PLUGIN)).expect("copied");
    let said = image.run(&dist, "uninstall").done();
    assert!(said.contains("left /opt/cni/bin/flock: flock did not install it"), "{said}");
    assert!(image.path(PLUGIN).exists());
}

#[test]
fn the_plugin_goes_where_the_runtime_looks_stays_there_and_is_found_there_again() {
    const DEBIANS: &str = "usr/lib/cni/flock";
    let (dist, image) = (Dist::new("place"), Image::new("place"));
    image.run(&dist, "install --cni-bin-dir /usr/lib/cni").done();
    assert!(image.path(DEBIANS).is_file() && !image.path(PLUGIN).exists());
    // Another version, by an operator who need not remember.
    let mut newer = fs::read(dist.plugin()).expect("readable");
    newer.extend(b"newer");
    fs::write(dist.plugin(), &newer).expect("writable");
    let said = image.run(&dist, "install").done();
    assert!(said.contains("replaced") && fs::read(image.path(DEBIANS)).expect("there") == newer, "{said}");
    assert!(!image.path(PLUGIN).exists());
    let mut again = Command::new(image.path(AGENT));
    let said = Run::of(again.args(["install", "--cni-conf", "--root"]).arg(image.0.path())).done();
    assert!(said.contains("kept /usr/lib/cni/flock"), "{said}");
    image.run(&dist, "uninstall").done();
    assert!(!image.path(DEBIANS).exists());

    // A place of the operator's own has to be named again.
    image.run(&dist, "install --cni-bin-dir /srv/cni").done();
    image.run(&dist, "uninstall --cni-bin-dir /srv/cni").done();
    let left = image.snapshot();
    assert!(left.values().all(|what| what.starts_with("directory")), "{left:#?}");
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let (dist, image, points) = (Dist::new("two"), Image::new("two"), Points::new("two"));
    points.arm("main/replace.rename 1", "hang 15000");
    let mut first = image.command(&dist, "install");
    points.apply(&mut first);
    let mut first = first.stdout(Stdio::null()).spawn().expect("starts");
    wait_for("the first to be in the middle", || {
        (!temporaries(&image.snapshot()).is_empty() && image.path("usr/local/bin").exists()).then_some(())
    });
    let text = image.run(&dist, "install").refused();
    assert!(text.contains("another installation is under way in"), "{text}");
    points.let_go();
    assert!(first.wait().expect("waitable").success());
    let watch = Watch::on_tree(image.0.path());
    image.run(&dist, "install").done();
    assert_eq!(watch.heard(), []);
}

#[test]
fn a_report_that_nobody_reads_does_not_stop_it() {
    let (dist, image) = (Dist::new("pipe"), Image::new("pipe"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = image.command(&dist, "install --cni-conf").stdout(writer).status().expect("starts");
    assert!(status.success());
    assert!(FILES.iter().all(|file| image.path(file).is_file()));
}

#[test]
fn a_full_or_read_only_disk_is_named_and_leaves_what_was() {
    let (dist, image, points) = (Dist::new("full"), Image::new("full"), Points::new("full"));
    image.run(&dist, "install").done();
    let before = image.snapshot();
    let new = dist.other("fuller");
    for point in ["replace.create", "replace.half", "replace.sync", "replace.rename"] {
        points.arm(&format!("main/{point} 1"), "errno 28");
        let mut command = image.command(&new, "install");
        points.apply(&mut command);
        let text = Run::of(&mut command).refused();
        assert!(text.contains("usr/local/bin/flock-agent: No space left"), "{text}");
        assert_eq!(image.snapshot(), before, "{point}");
        points.let_go();
    }
}

#[test]
fn what_others_rename_meanwhile_stops_neither_an_installation_nor_its_end() {
    let (dist, image, points) = (Dist::new("busy"), Image::new("busy"), Points::new("busy"));
    let run = |line: &str| {
        let mut command = image.command(&dist, line);
        points.apply(&mut command);
        Run::of(&mut command)
    };
    for line in ["install --cni-conf", "uninstall"] {
        // What the kernel says when it could not follow a path to its end: try again.
        points.arm("main/install.resolve 1", "errno 11");
        run(line).done();
        points.let_go();
    }
    points.arm("main/install.resolve *", "errno 11");
    assert!(run("install").refused().contains("Resource temporarily unavailable"), "it does not try for ever");
}

#[test]
fn a_wrong_command_line_ends_with_code_2_and_help_is_printed() {
    let dist = Dist::new("help");
    let run = |line: &str| Command::new(dist.agent()).args(line.split_whitespace()).output().expect("starts");
    let wrong = run("install --rot /x");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("\"--rot\""));
    for program in [Program::Install, Program::Uninstall] {
        let word = program.page().expect("a page").word;
        let help = run(&format!("{word} --help"));
        assert!(help.status.success() && help.stdout == help::text(program).as_bytes());
    }
}
