//! What is to be done, as data: from what stands in the tree and on the host to an ordered list of steps, or to the reason
//! why nothing is done. Must not look at anything or change it: `mod` does.
//!
//! Every list can be cut off after any step, and the next run finishes it. The orders have their reasons beside them.

use std::fmt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::bird::conf::HEADER;
use crate::install::defaults::{self, DEFAULTS};
use crate::install::managers::MANAGERS;
use crate::install::package::Package;
use crate::install::tree::Found;
use cni::conflist;
use model::routes;
use model::ruleset::TableKey;

/// The plugin's file. The type in the CNI configuration is its name.
pub const PLUGIN: &str = "flock";
/// The unit of the agent.
pub const SERVICE: &str = "/etc/systemd/system/flock-agent.service";
/// The unit of its socket.
pub const SOCKET: &str = "/etc/systemd/system/flock-agent.socket";
/// The unit of BIRD.
pub const BIRD_SERVICE: &str = "/etc/systemd/system/flock-bird.service";
/// The unit that withdraws the node at shutdown.
pub const ANNOUNCE_SERVICE: &str = "/etc/systemd/system/flock-announce.service";
/// Where the agent writes BIRD's configuration, and the only such place that the unit lets it write to.
pub const BIRD_DIR: &str = "/etc/flock/bird";
/// BIRD's configuration, the agent's after the first start.
pub const BIRD_CONF: &str = "/etc/flock/bird/bird.conf";
/// What an agent that was killed may have left of a new one.
pub const BIRD_CONF_NEW: &str = "/etc/flock/bird/bird.conf.new";
/// The operator's flags for BIRD.
pub const BIRD_DEFAULTS: &str = "/etc/default/flock-bird";
/// The operator's files for the agent.
pub const CONFIG_DIR: &str = "/etc/flock";
/// What `systemctl enable` makes for the units of BIRD.
pub const ENABLED_BIRD: [&str; 2] = [
    "/etc/systemd/system/multi-user.target.wants/flock-bird.service",
    "/etc/systemd/system/multi-user.target.wants/flock-announce.service",
];
/// What `systemctl enable` makes.
pub const ENABLED: [&str; 4] = [
    "/etc/systemd/system/multi-user.target.wants/flock-agent.service",
    "/etc/systemd/system/sockets.target.wants/flock-agent.socket",
    ENABLED_BIRD[0],
    ENABLED_BIRD[1],
];
/// The directory of the running agent: socket, state and notes.
pub const RUN_DIR: &str = "/run/flock";

/// Both programs hold this path, and no other program does: least of all the `flock` of util-linux.
const MARK: &[u8] = crate::rpc::DEFAULT_SOCKET.as_bytes();

/// Whether these bytes are one of flock's programs.
pub fn is_flock(content: &[u8]) -> bool {
    content.windows(MARK.len()).any(|window| window == MARK)
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a directory.
    MakeDirectory(PathBuf),
    /// Give a file its content and permissions.
    Put {
        /// The file.
        path: PathBuf,
        /// All of it.
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
        /// Another one is in its place.
        replaces: bool,
    },
    /// Remove a file or link.
    Remove(PathBuf),
    /// Remove a directory if it is empty.
    RemoveDirectory(PathBuf),
    /// Remove a directory with all that is in it.
    RemoveAll(PathBuf),
    /// Remove a link of the host whose pod was deleted while the agent was away.
    RemoveLink {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
    },
    /// Change a route or nexthop object of the node that is no pod's link's: withdraw or remove it.
    Route(routes::Step),
    /// Remove the unreachable route of a node prefix.
    RemoveUnreachable(IpNet),
    /// Remove a table of the packet filter.
    RemoveTable(TableKey),
}

impl Step {
    /// Verb and object, as it is printed: `removed` or `would remove`.
    pub fn told(&self, dry_run: bool, shown: impl Fn(&Path) -> PathBuf) -> String {
        let (done, todo, object) = match self {
            Step::MakeDirectory(path) => ("made", "make", shown(path).display().to_string()),
            Step::Put { path, replaces: false, .. } => ("installed", "install", shown(path).display().to_string()),
            Step::Put { path, replaces: true, .. } => ("replaced", "replace", shown(path).display().to_string()),
            Step::Remove(path) | Step::RemoveDirectory(path) | Step::RemoveAll(path) => {
                ("removed", "remove", shown(path).display().to_string())
            }
            Step::RemoveLink { name, .. } => ("removed", "remove", format!("link {name}")),
            Step::Route(step) => ("removed", "remove", step.object()),
            Step::RemoveUnreachable(prefix) => ("removed", "remove", format!("route unreachable {prefix}")),
            Step::RemoveTable(key) => ("removed", "remove", key.to_string()),
        };
        if dry_run { format!("would {todo} {object}") } else { format!("{done} {object}") }
    }

    /// Whether the step gives `file` its content.
    pub fn puts(&self, file: &Path) -> bool {
        matches!(self, Step::Put { path, .. } if path == file)
    }
}

/// Why nothing is done.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something stands in the place of a file.
    InTheWay(PathBuf, &'static str),
    /// The operator has written the agent's flags, and this directory is missing there.
    FlagsByHand(PathBuf),
    /// What is to be installed belongs to a package.
    Packaged(Package),
    /// Pods are attached.
    Attached(Vec<String>),
    /// The agent runs, or its socket is held for it.
    Running,
    /// A unit of BIRD is up, or enabled and so perhaps about to be.
    Speaking,
    /// A CNI configuration that is not as flock writes it names the plugin.
    Named(PathBuf),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::InTheWay(path, what) => {
                write!(f, "{} is {what}, and a regular file belongs there: remove it first", path.display())
            }
            Refusal::FlagsByHand(dir) => write!(
                f,
                "FLOCK_AGENT_FLAGS in {DEFAULTS} is set by hand: add --cni-conf-dir {} there, and leave out --cni-conf",
                dir.display()
            ),
            Refusal::Packaged(package) => write!(
                f,
                "flock belongs to {package} here, which renews it: a second copy would hide that; remove the package first if you want one"
            ),
            Refusal::Attached(pods) => {
                let some: Vec<&str> = pods.iter().take(3).map(String::as_str).collect();
                let more = if pods.len() > some.len() { ", …" } else { "" };
                write!(
                    f,
                    "pods are attached, {} in all ({}{more}): drain the node first, or use --force, which leaves them their links",
                    pods.len(),
                    some.join(", ")
                )
            }
            Refusal::Running => f.write_str(
                "the agent runs, or its socket is held for it: systemctl disable --now flock-agent.service flock-agent.socket",
            ),
            Refusal::Speaking => f.write_str(
                "flock-bird or flock-announce runs or is enabled: systemctl disable --now flock-announce.service flock-bird.service",
            ),
            Refusal::Named(path) => {
                write!(f, "{} names the plugin flock and is not as the agent writes it: remove it first", path.display())
            }
        }
    }
}

/// A file that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub path: PathBuf,
    /// All of it.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// The steps that put the `wanted` files in place, in that order: what runs a file comes after it. Before them come the
/// temporary files that a killed run has left, and the directories that are missing.
///
/// # Errors
/// Something is in the way. All of it is looked at before the first step.
pub fn install(
    leftovers: Vec<PathBuf>,
    missing: Vec<PathBuf>,
    wanted: Vec<(Wanted, Found)>,
) -> Result<Vec<Step>, Refusal> {
    let mut steps: Vec<Step> = leftovers.into_iter().map(Step::Remove).collect();
    for directory in missing {
        let step = Step::MakeDirectory(directory);
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    for (Wanted { path, content, mode }, found) in wanted {
        let replaces = match found {
            Found::Nothing => false,
            // Every change makes somebody load it anew, or makes an operator look why.
            Found::File { content: present, mode: as_is, own } if present == content && as_is == mode && own => {
                continue;
            }
            Found::File { .. } => true,
            Found::Directory => return Err(Refusal::InTheWay(path, "a directory")),
            Found::Link => return Err(Refusal::InTheWay(path, "a symbolic link")),
            Found::Special => return Err(Refusal::InTheWay(path, "a special file")),
        };
        steps.push(Step::Put { path, content, mode, replaces });
    }
    Ok(steps)
}

/// What stands in the tree.
#[derive(Debug, Default)]
pub struct Remains {
    /// Temporary files of killed runs.
    pub leftovers: Vec<PathBuf>,
    /// The CNI configurations of the runtime.
    pub configurations: Vec<(PathBuf, String)>,
    /// What stands where an installation puts files, by path.
    pub files: Vec<(PathBuf, Found)>,
    /// Those of `files` where the plugin may be.
    pub plugins: Vec<PathBuf>,
    /// Those of `files` where the agent may be.
    pub agents: Vec<PathBuf>,
    /// What is in the directory of the operator's files, if there is one.
    pub config_dir: Option<Vec<PathBuf>>,
    /// What is in the directory of BIRD's configuration, if there is one.
    pub bird_dir: Option<Vec<PathBuf>>,
}

impl Remains {
    fn at(&self, path: impl AsRef<Path>) -> &Found {
        let found = self.files.iter().find(|(place, _)| place == path.as_ref());
        found.map_or(&Found::Nothing, |(_, found)| found)
    }

    /// Leaves to a package what is its own, and what serves its agent as well as a copy of that.
    pub fn leave_to(&mut self, package: &Package) {
        let of_managers = MANAGERS.iter().map(|manager| manager.file);
        let of_both = [DEFAULTS, BIRD_DEFAULTS].into_iter().chain(ENABLED).chain(of_managers);
        let shared = |path: &Path| of_both.clone().any(|both| path == Path::new(both)) || path.starts_with(CONFIG_DIR);
        self.files.retain(|(path, _)| !package.owns(path) && !shared(path));
        self.configurations.clear();
        self.config_dir = None;
        self.bird_dir = None;
    }

    fn text(&self, path: &str) -> Option<&str> {
        match self.at(path) {
            Found::File { content, .. } => std::str::from_utf8(content).ok(),
            _ => None,
        }
    }
}

/// What the host looks like; of an image, nothing is known and nothing asked.
#[derive(Debug, Default)]
pub struct Host {
    /// Pods that the runtime has not deleted, and containers whose pod is not known, as they are named to people.
    pub attached: Vec<String>,
    /// The agent runs, or its socket is held for it.
    pub running: bool,
    /// A unit of BIRD is up, or enabled.
    pub speaking: bool,
    /// Links of attachments whose delete was promised and not carried out, by index and name.
    pub deleted: Vec<(u32, String)>,
    /// What takes away the announcements, the routes to other nodes and those of anycast addresses.
    pub routes: Vec<routes::Step>,
    /// Node prefixes with an unreachable route.
    pub unreachable: Vec<IpNet>,
    /// The tables of the packet filter that stand.
    pub tables: Vec<TableKey>,
    /// The directory of the running agent is there.
    pub run_dir: bool,
    /// Settings as flock would have made them, and a state directory in another place.
    pub left: Vec<String>,
}

/// The steps that take everything away which an installation and its agent have made, and what stays, with the reason.
///
/// # Errors
/// Flock must not be taken away now.
pub fn uninstall(
    remains: &Remains,
    host: &Host,
    force: bool,
    purge: bool,
) -> Result<(Vec<Step>, Vec<String>), Refusal> {
    if !host.attached.is_empty() && !force {
        return Err(Refusal::Attached(host.attached.clone()));
    }
    if host.running {
        return Err(Refusal::Running);
    }
    if host.speaking {
        return Err(Refusal::Speaking);
    }
    let mut steps = Vec::new();
    let mut left = Vec::new();
    // First what makes the runtime use flock: nothing that it calls may go before. No pod can arrive meanwhile, since the
    // caller holds the lock without which no agent starts.
    for (path, text) in &remains.configurations {
        let own_name = path.file_name() == Some(conflist::FILE_NAME.as_ref());
        match (own_name && conflist::is_composed(text), conflist::names_flock(text)) {
            (true, _) => steps.push(Step::Remove(path.clone())),
            (false, true) => return Err(Refusal::Named(path.clone())),
            (false, false) => {}
        }
    }
    steps.extend(remains.leftovers.iter().cloned().map(Step::Remove));
    let remove = |path: &Path, ours: &dyn Fn(&[u8]) -> bool, left: &mut Vec<String>| match remains.at(path) {
        Found::Nothing => None,
        Found::File { content, .. } if ours(content) => Some(Step::Remove(path.into())),
        _ => {
            left.push(format!("{}: flock did not install it", path.display()));
            None
        }
    };
    for plugin in &remains.plugins {
        steps.extend(remove(plugin, &is_flock, &mut left));
    }
    let is_unit = |content: &[u8]| String::from_utf8_lossy(content).contains("flock-agent");
    for enabled in ENABLED {
        if *remains.at(enabled) == Found::Link {
            steps.push(Step::Remove(enabled.into()));
        }
    }
    for unit in [ANNOUNCE_SERVICE, BIRD_SERVICE, SOCKET, SERVICE] {
        steps.extend(remove(Path::new(unit), &is_unit, &mut left));
    }
    steps.extend(operators(remains, purge, &mut left));
    steps.extend(host.deleted.iter().map(|(index, name)| Step::RemoveLink { index: *index, name: name.clone() }));
    steps.extend(host.routes.iter().cloned().map(Step::Route));
    steps.extend(host.unreachable.iter().copied().map(Step::RemoveUnreachable));
    for manager in &MANAGERS {
        let file = Path::new(manager.file);
        match remains.at(file) {
            Found::Nothing => {}
            Found::File { content, .. } if content == manager.content.as_bytes() => {
                if host.attached.is_empty() {
                    steps.push(Step::Remove(file.into()));
                } else {
                    left.push(format!("{}: it keeps {} away from the links of pods", manager.file, manager.unit));
                }
            }
            _ => left.push(format!("{}: yours", manager.file)),
        }
    }
    if host.attached.is_empty() {
        steps.extend(host.tables.iter().copied().map(Step::RemoveTable));
    } else {
        // Pods live on, and nobody is opened, or made to bear a false address, by a program that goes.
        left.extend(host.tables.iter().map(|key| {
            format!("{key}: it holds for the pods that live on, and changes no more; nft delete {key} ends that")
        }));
    }
    if host.run_dir {
        steps.push(Step::RemoveAll(RUN_DIR.into()));
    }
    // Last what does all this: as long as anything is left, it can be called again.
    for agent in &remains.agents {
        steps.extend(remove(agent, &is_flock, &mut left));
    }
    left.extend(host.left.iter().cloned());
    Ok((steps, left))
}

/// The operator's files go only when that is asked for.
fn operators(remains: &Remains, purge: bool, left: &mut Vec<String>) -> Vec<Step> {
    let mut steps = Vec::new();
    let text = remains.text(DEFAULTS);
    match (remains.at(DEFAULTS), text.and_then(defaults::without_ours)) {
        (Found::Nothing, _) => {}
        (Found::File { .. }, _) if purge => steps.push(Step::Remove(DEFAULTS.into())),
        (Found::File { .. }, Some(rest)) if rest.is_empty() => steps.push(Step::Remove(DEFAULTS.into())),
        (Found::File { mode, .. }, Some(rest)) => {
            let (path, content) = (DEFAULTS.into(), rest.into_bytes());
            steps.push(Step::Put { path, content, mode: *mode, replaces: true });
            left.push(format!("{DEFAULTS}: yours, as far as it is; --purge removes it"));
        }
        _ => left.push(format!("{DEFAULTS}: yours; --purge removes it")),
    }
    match remains.at(BIRD_DEFAULTS) {
        Found::Nothing => {}
        Found::File { .. } if purge => steps.push(Step::Remove(BIRD_DEFAULTS.into())),
        _ => left.push(format!("{BIRD_DEFAULTS}: yours; --purge removes it")),
    }
    let Some(names) = &remains.config_dir else { return steps };
    if purge && !names.is_empty() {
        steps.push(Step::RemoveAll(CONFIG_DIR.into()));
        return steps;
    }
    let mut names = names.clone();
    if let Some(of_bird) = &remains.bird_dir {
        // Theirs or the agent's, and then with passwords in them.
        let (ours, others): (Vec<_>, Vec<_>) = of_bird.iter().cloned().partition(|path| is_of_bird(remains.at(path)));
        steps.extend(ours.into_iter().map(Step::Remove));
        if others.is_empty() {
            steps.push(Step::RemoveDirectory(BIRD_DIR.into()));
        }
        names.retain(|name| name != Path::new(BIRD_DIR));
        names.extend(others);
    }
    if names.is_empty() {
        steps.push(Step::RemoveDirectory(CONFIG_DIR.into()));
    }
    left.extend(names.iter().map(|name| format!("{}: yours; --purge removes it", name.display())));
    steps
}

/// Whether flock has written this configuration of BIRD.
fn is_of_bird(found: &Found) -> bool {
    matches!(found, Found::File { content, .. } if content.starts_with(HEADER.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::runtime::places::CONF_DIR;
    use crate::install::unit::AGENT;
    use cni::conflist::PLUGIN_DIRS;
    use model::guard::FILTER;

    fn file(content: &str) -> Found {
        Found::File { content: content.into(), mode: 0o644, own: true }
    }

    fn wanted(path: &str) -> Wanted {
        Wanted { path: path.into(), content: "new".into(), mode: 0o644 }
    }

    #[test]
    fn only_what_differs_is_put_in_place() {
        let put = |replaces| vec![Step::Put { path: "/f".into(), content: "new".into(), mode: 0o644, replaces }];
        for (found, steps) in [
            (Found::Nothing, put(false)),
            (file("new"), Vec::new()),
            (file("old"), put(true)),
            (Found::File { content: "new".into(), mode: 0o600, own: true }, put(true)),
            (Found::File { content: "new".into(), mode: 0o644, own: false }, put(true)),
        ] {
            assert_eq!(install(Vec::new(), Vec::new(), vec![(wanted("/f"), found)]), Ok(steps));
        }
    }

    #[test]
    fn one_thing_in_the_way_stops_everything() {
        for (found, word) in [(Found::Directory, "directory"), (Found::Link, "link"), (Found::Special, "special")] {
            let files = vec![(wanted("/a"), Found::Nothing), (wanted("/b"), found)];
            let error = install(Vec::new(), Vec::new(), files).expect_err(word).to_string();
            assert!(error.starts_with("/b is a") && error.contains(word), "{error}");
        }
    }

    /// Everything that an installation and its agent leave.
    fn installed() -> Remains {
        let program = file(crate::rpc::DEFAULT_SOCKET);
        let conflist = include_str!("../../cni-conf/01-flock.conflist");
        let plugins = PLUGIN_DIRS.map(|dir| Path::new(dir).join(PLUGIN));
        let mut files: Vec<(PathBuf, Found)> =
            [&plugins[0], Path::new(AGENT)].map(|path| (path.into(), program.clone())).into();
        files.extend(
            [ANNOUNCE_SERVICE, BIRD_SERVICE, SOCKET, SERVICE].map(|path| (path.into(), file("ExecStart=flock-agent"))),
        );
        files.extend(ENABLED.map(|path| (path.into(), Found::Link)));
        let defaults::Change::Write(text) = defaults::with_cni_conf(None, Path::new(CONF_DIR)) else {
            panic!("not written")
        };
        files.push((DEFAULTS.into(), file(&text)));
        files.extend(MANAGERS.iter().map(|manager| (manager.file.into(), file(manager.content))));
        files.extend([BIRD_CONF, BIRD_CONF_NEW].map(|path| (path.into(), file(&format!("{HEADER}\n…")))));
        Remains {
            leftovers: vec!["/opt/cni/bin/.flock.1-2.tmp".into()],
            configurations: vec![("/etc/cni/net.d/01-flock.conflist".into(), conflist.into())],
            files,
            plugins: plugins.into(),
            agents: vec![AGENT.into()],
            config_dir: Some(vec![BIRD_DIR.into()]),
            bird_dir: Some(vec![BIRD_CONF.into(), BIRD_CONF_NEW.into()]),
        }
    }

    fn used() -> Host {
        Host {
            routes: vec![routes::Step::DeleteNexthop(7)],
            unreachable: vec!["2001:db8::/64".parse().expect("literal")],
            tables: vec![FILTER],
            deleted: vec![(7, "flock0badcafe".into())],
            run_dir: true,
            ..Host::default()
        }
    }

    #[test]
    fn the_runtime_loses_the_configuration_first_and_the_operator_the_command_last() {
        let (steps, left) = uninstall(&installed(), &used(), false, false).expect("nothing is in the way");
        let told: Vec<String> = steps.iter().map(|step| step.told(false, Path::to_path_buf)).collect();
        let expected = [
            "/etc/cni/net.d/01-flock.conflist",
            "/opt/cni/bin/.flock.1-2.tmp",
            "/opt/cni/bin/flock",
            ENABLED[0],
            ENABLED[1],
            ENABLED[2],
            ENABLED[3],
            ANNOUNCE_SERVICE,
            BIRD_SERVICE,
            SOCKET,
            SERVICE,
            DEFAULTS,
            BIRD_CONF,
            BIRD_CONF_NEW,
            BIRD_DIR,
            CONFIG_DIR,
            "link flock0badcafe",
            "nexthop 7",
            "route unreachable 2001:db8::/64",
            MANAGERS[0].file,
            MANAGERS[1].file,
            "table inet flock",
            RUN_DIR,
            AGENT,
        ];
        assert_eq!(told, expected.map(|what| format!("removed {what}")));
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn every_cut_of_the_list_is_finished_by_the_next_run() {
        let (all, _) = uninstall(&installed(), &used(), false, false).expect("nothing is in the way");
        for cut in 0..=all.len() {
            let done = &all[..cut];
            let gone = |path: &Path| done.contains(&Step::Remove(path.into()));
            let mut remains = installed();
            remains.leftovers.retain(|path| !gone(path));
            remains.configurations.retain(|(path, _)| !gone(path));
            remains.files.retain(|(path, _)| !gone(path));
            let is_there = |path: &str| !done.contains(&Step::RemoveDirectory(path.into()));
            remains.bird_dir.iter_mut().for_each(|names| names.retain(|path| !gone(path)));
            remains.bird_dir = remains.bird_dir.filter(|_| is_there(BIRD_DIR));
            remains.config_dir.iter_mut().for_each(|names| names.retain(|_| is_there(BIRD_DIR)));
            remains.config_dir = remains.config_dir.filter(|_| is_there(CONFIG_DIR));
            let mut host = used();
            host.deleted
                .retain(|(index, name)| !done.contains(&Step::RemoveLink { index: *index, name: name.clone() }));
            host.routes.retain(|step| !done.contains(&Step::Route(step.clone())));
            host.unreachable.retain(|prefix| !done.contains(&Step::RemoveUnreachable(*prefix)));
            host.tables.retain(|key| !done.contains(&Step::RemoveTable(*key)));
            host.run_dir &= !done.contains(&Step::RemoveAll(RUN_DIR.into()));
            let (rest, _) = uninstall(&remains, &host, false, false).expect("nothing is in the way");
            assert_eq!(rest, all[cut..]);
        }
    }

    #[test]
    fn pods_and_a_running_agent_are_refused() {
        let attached = Host { attached: (0..9).map(|n| format!("web/p{n}")).collect(), running: true, ..used() };
        let error = uninstall(&installed(), &attached, false, false).expect_err("pods").to_string();
        assert!(error.contains("9 in all (web/p0, web/p1, web/p2, …)"), "{error}");
        assert_eq!(uninstall(&installed(), &attached, true, false), Err(Refusal::Running));
        let without_agent = Host { running: false, ..attached };
        let (steps, left) = uninstall(&installed(), &without_agent, true, false).expect("forced");
        assert!(!steps.iter().any(|step| matches!(step, Step::RemoveTable(_))), "nobody is opened");
        assert!(left.iter().any(|line| line.ends_with("nft delete table inet flock ends that")), "{left:?}");
        for manager in &MANAGERS {
            assert!(!steps.contains(&Step::Remove(manager.file.into())), "nobody takes the links of living pods");
            assert!(left.iter().any(|line| line.starts_with(manager.file)), "{left:?}");
        }
        let speaking = Host { speaking: true, ..without_agent };
        assert_eq!(uninstall(&installed(), &speaking, true, false), Err(Refusal::Speaking));
    }

    #[test]
    fn what_others_made_stays_and_is_named() {
        let mut remains = installed();
        for (_, found) in &mut remains.files {
            *found = if *found == Found::Link { file("by hand") } else { file("something else") };
        }
        remains.config_dir = Some(vec!["/etc/flock/node.yaml".into(), BIRD_DIR.into()]);
        remains.configurations = vec![("/etc/cni/net.d/10-other.conflist".into(), "{\"plugins\": []}".into())];
        let (steps, _) = uninstall(&remains, &Host::default(), false, false).expect("nothing is in the way");
        assert_eq!(steps, [Step::Remove("/opt/cni/bin/.flock.1-2.tmp".into())]);
        remains.files.push((BIRD_DEFAULTS.into(), file("BIRD_FLAGS=-u nobody")));
        let (_, left) = uninstall(&remains, &Host::default(), false, false).expect("nothing is in the way");
        let operators =
            [DEFAULTS, BIRD_DEFAULTS, "/etc/flock/node.yaml", BIRD_CONF, MANAGERS[0].file, MANAGERS[1].file];
        for path in ["/opt/cni/bin/flock", AGENT, SOCKET, SERVICE, BIRD_SERVICE].into_iter().chain(operators) {
            assert!(left.iter().any(|line| line.starts_with(&format!("{path}: "))), "{path}: {left:?}");
        }
        let (steps, _) = uninstall(&remains, &Host::default(), false, true).expect("nothing is in the way");
        let files = [DEFAULTS, BIRD_DEFAULTS].map(|file| Step::Remove(file.into()));
        assert_eq!(steps[1..], [&files[..], &[Step::RemoveAll(CONFIG_DIR.into())]].concat());

        // Without the plugin that it names it would stop every pod of the node.
        for (name, change) in [("01-flock.conflist", "0.4.0"), ("99-mine.conflist", "none")] {
            let path = Path::new(CONF_DIR).join(name);
            let text = include_str!("../../cni-conf/01-flock.conflist").replace(change, "1.0.0");
            let remains = Remains { configurations: vec![(path.clone(), text)], ..installed() };
            assert_eq!(uninstall(&remains, &Host::default(), true, true), Err(Refusal::Named(path)));
        }
    }
}
