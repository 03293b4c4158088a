//! Programs that manage links, and would take those of pods for theirs: systemd-networkd and NetworkManager.
//!
//! Reads their configuration by their own rules: which directory wins over which, and which file is the first to match. Must not
//! ask the programs, which may answer with what they read at their start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::operator::check::finding::{Area, Finding};
use crate::process::foreign_file;
use model::desired::Uplink;

/// Longest file that is read, 1 MiB.
const FILE_MAX: u64 = 1 << 20;

/// Where networkd looks, best first.
const NETWORKD: [&str; 5] = [
    "etc/systemd/network",
    "run/systemd/network",
    "usr/local/lib/systemd/network",
    "usr/lib/systemd/network",
    "lib/systemd/network",
];

/// Where NetworkManager looks for parts of its configuration, best first.
const NETWORK_MANAGER: [&str; 3] =
    ["etc/NetworkManager/conf.d", "run/NetworkManager/conf.d", "usr/lib/NetworkManager/conf.d"];

/// Where systemd keeps a link for each unit that is up.
const UNITS: &str = "run/systemd/units";

/// NetworkManager's own file, which is read before the best of these directories and behind the others.
const NETWORK_MANAGER_CONF: &str = "etc/NetworkManager/NetworkManager.conf";

/// What networkd takes for a yes.
const YES: [&str; 6] = ["1", "yes", "true", "on", "y", "t"];

/// The file that keeps networkd away from pods' links.
const OWN: &str = "05-flock.network";

/// What keeps NetworkManager away from them: a section of its own, since a later file's unmanaged-devices= would take its place.
const UNMANAGED: &str = "printf '[device-flock]\\nmatch-device=interface-name:flock*\\nmanaged=0\\n' > /etc/NetworkManager/conf.d/flock.conf\n\
                         systemctl reload NetworkManager";

/// What the programs that run on the host below `root` would do with the links of these names.
pub fn look(root: &Path, links: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    if runs(root, "systemd-networkd", "run/systemd/netif/state") {
        found.push(networkd(root, links));
    }
    if runs(root, "NetworkManager", "run/NetworkManager") {
        found.push(network_manager(root, links));
    }
    if found.is_empty() {
        found.push(Finding::ok(Area::Managers, "neither systemd-networkd nor NetworkManager runs here"));
    }
    found
}

/// Uplinks of a host that forwards whose advertised default route networkd keeps by itself without being told to: its later
/// versions take no advertisements on such a host unless they are told.
pub fn advertised(root: &Path, uplinks: &[Uplink]) -> Vec<Finding> {
    if !runs(root, "systemd-networkd", "run/systemd/netif/state") {
        return Vec::new();
    }
    let files = by_name(root, &NETWORKD, ".network");
    let networks: Vec<Network> = files.iter().map(|(name, path)| Network::read(root, path, name)).collect();
    // The kernel takes no advertisements there, and the route is there all the same.
    let by_itself = |uplink: &&Uplink| uplink.has_advertised_route && uplink.accept_ra == Some(0);
    let told = |uplink: &Uplink| networks.iter().any(|network| network.takes_advertisements(&uplink.name));
    let said = |uplink: &Uplink| {
        let name = &uplink.name;
        let what = format!(
            "systemd-networkd keeps the advertised default route of {name} without being told to: from version 258 on it does not, on \
             a host that forwards"
        );
        let remedy = format!("IPv6AcceptRA=yes in [Network] of the .network file of {name}, and networkctl reload");
        Finding::warn(Area::Managers, what).cured_by(remedy)
    };
    uplinks.iter().filter(by_itself).filter(|uplink| !told(uplink)).map(said).collect()
}

/// Whether a program runs: by the link that systemd keeps for each unit that is up, or where there is no systemd by what the
/// program keeps itself, which one that has stopped leaves behind.
fn runs(root: &Path, unit: &str, own: &str) -> bool {
    let is_there = |path: &str| fs::symlink_metadata(root.join(path)).is_ok();
    match is_there(UNITS) {
        true => is_there(&format!("{UNITS}/invocation:{unit}.service")),
        false => is_there(own),
    }
}

fn networkd(root: &Path, links: &[String]) -> Finding {
    let files = by_name(root, &NETWORKD, ".network");
    for link in links {
        for (name, path) in &files {
            let network = Network::read(root, path, name);
            if !network.matches(link) {
                continue;
            }
            if network.unmanaged {
                break;
            }
            let shown = format!("/{}", path.strip_prefix(root).unwrap_or(path).display());
            let what = format!(
                "systemd-networkd takes pods' links, such as {link}, for its own by {shown}: it gives them addresses and removes routes"
            );
            let remedy = if name.to_string_lossy().as_ref() > OWN {
                format!(
                    "printf '[Match]\\nName=flock*\\n[Link]\\nUnmanaged=yes\\n' > /etc/systemd/network/{OWN}\nnetworkctl reload"
                )
            } else {
                format!("put Name=!flock* into [Match] of {shown}, or let its name sort behind {OWN}")
            };
            return Finding::warn(Area::Managers, what).cured_by(remedy);
        }
    }
    Finding::ok(Area::Managers, "systemd-networkd leaves pods' links alone")
}

/// Files of these directories by their names, in the order of the names. One that is in several counts in the first.
fn by_name(root: &Path, dirs: &[&str], ending: &str) -> BTreeMap<OsString, PathBuf> {
    let mut files = BTreeMap::new();
    for dir in dirs {
        for entry in fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with(ending) {
                files.entry(entry.file_name()).or_insert_with(|| entry.path());
            }
        }
    }
    files
}

/// What a `.network` file says, as far as it is about which links it is for.
#[derive(Debug, Default)]
struct Network {
    /// The conditions by their key, each with its patterns.
    conditions: BTreeMap<String, Vec<String>>,
    unmanaged: bool,
    accepts_advertisements: bool,
}

impl Network {
    /// Reads a file and what is dropped beside it. One that leads nowhere, or to nothing, matches no link.
    fn read(root: &Path, path: &Path, name: &OsString) -> Network {
        let mut network = Network::default();
        let Some(text) = text_of(root, path) else { return network };
        network.add(&text);
        let mut dropped = name.clone();
        dropped.push(".d");
        let dirs: Vec<String> =
            NETWORKD.iter().map(|dir| Path::new(dir).join(&dropped).to_string_lossy().into_owned()).collect();
        let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
        for path in by_name(root, &dirs, ".conf").values() {
            network.add(&text_of(root, path).unwrap_or_default());
        }
        network
    }

    fn add(&mut self, text: &str) {
        for (section, key, value) in assignments(text) {
            match (section.as_str(), key.as_str()) {
                // An empty value takes back what was said before.
                ("Match", key) if value.is_empty() => drop(self.conditions.remove(key)),
                ("Match", key) => {
                    let patterns = self.conditions.entry(key.to_owned()).or_default();
                    patterns.extend(value.split_whitespace().map(|word| word.trim_matches('"').to_owned()));
                }
                ("Link", "Unmanaged") => self.unmanaged = YES.contains(&value.as_str()),
                ("Network", "IPv6AcceptRA") => self.accepts_advertisements = YES.contains(&value.as_str()),
                _ => {}
            }
        }
    }

    /// It is for the uplink of this name, as far as the name tells, and has it take advertisements.
    fn takes_advertisements(&self, uplink: &str) -> bool {
        let named = self.conditions.get("Name").is_none_or(|patterns| fits(patterns, uplink));
        self.accepts_advertisements && named && !self.conditions.is_empty()
    }

    /// Whether it is for the veth link of this name. A condition about the host as a whole is taken to hold.
    fn matches(&self, link: &str) -> bool {
        let holds = |(key, patterns): (&String, &Vec<String>)| match key.as_str() {
            "Name" => fits(patterns, link),
            "Kind" | "Driver" => fits(patterns, "veth"),
            "Type" => fits(patterns, "ether"),
            // A veth link has none of these.
            "Path" | "PermanentMACAddress" | "WLANInterfaceType" | "SSID" | "BSSID" => fits(patterns, ""),
            // Of pods' links each has its own.
            "MACAddress" => patterns.first().is_some_and(|first| first.starts_with('!')),
            _ => true,
        };
        !self.conditions.is_empty() && self.conditions.iter().all(holds)
    }
}

/// One of the patterns fits; or none does, if the first begins with `!`.
fn fits(patterns: &[String], text: &str) -> bool {
    let first = patterns.first().map(String::as_str).unwrap_or_default();
    let inverted = first.starts_with('!');
    let patterns = patterns.iter().map(|pattern| pattern.strip_prefix('!').unwrap_or(pattern));
    patterns.into_iter().any(|pattern| is_like(pattern.as_bytes(), text.as_bytes())) != inverted
}

/// Whether `text` is what a pattern of a shell means: `*`, `?`, `[...]`.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            is_like(rest, text) || text.split_first().is_some_and(|(_, text)| is_like(pattern, text))
        }
        (Some((b'?', rest)), Some((_, text))) => is_like(rest, text),
        (Some((b'[', rest)), Some((byte, text))) => match rest.iter().skip(1).position(|end| *end == b']') {
            Some(end) => {
                let (class, rest) = rest.split_at(end + 1);
                in_class(class, *byte) && is_like(rest.get(1..).unwrap_or_default(), text)
            }
            None => *byte == b'[' && is_like(rest, text),
        },
        (Some((one, rest)), Some((other, text))) => one == other && is_like(rest, text),
        _ => false,
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let inverted = class.first().is_some_and(|first| matches!(first, b'!' | b'^'));
    let mut rest = class.get(usize::from(inverted)..).unwrap_or_default();
    let mut found = false;
    while let Some((first, behind)) = rest.split_first() {
        match behind {
            [b'-', last, behind @ ..] => {
                found |= (*first..=*last).contains(&byte);
                rest = behind;
            }
            _ => {
                found |= *first == byte;
                rest = behind;
            }
        }
    }
    found != inverted
}

fn network_manager(root: &Path, links: &[String]) -> Finding {
    let parts = by_name(root, &NETWORK_MANAGER, ".conf");
    let of = |dir: &str| {
        let dir = root.join(dir);
        parts.values().filter(move |path| path.starts_with(&dir)).cloned()
    };
    let [etc, run, lib] = NETWORK_MANAGER;
    let files = of(lib).chain(of(run)).chain([root.join(NETWORK_MANAGER_CONF)]).chain(of(etc));
    let texts: Vec<String> = files.filter_map(|path| text_of(root, &path)).collect();
    // A key with `+` adds to what was said before it.
    let mut unmanaged: Vec<String> = Vec::new();
    let mut devices: BTreeMap<String, (Vec<String>, bool)> = BTreeMap::new();
    for (section, key, value) in texts.iter().flat_map(|text| assignments(text)) {
        let words = || value.split([';', ',']).map(|word| word.trim().to_owned()).filter(|word| !word.is_empty());
        match (section.as_str(), key.as_str()) {
            ("keyfile", "unmanaged-devices") => unmanaged = words().collect(),
            ("keyfile", "unmanaged-devices+") => unmanaged.extend(words()),
            (device, "match-device") if device.starts_with("device") => {
                devices.entry(device.to_owned()).or_default().0 = words().collect();
            }
            (device, "managed") if device.starts_with("device") => {
                devices.entry(device.to_owned()).or_default().1 = ["0", "false", "no", "off"].contains(&value.as_str());
            }
            _ => {}
        }
    }
    let left_alone = |link: &String| {
        means(&unmanaged, link) || devices.values().any(|(matched, unmanaged)| *unmanaged && means(matched, link))
    };
    match links.iter().find(|link| !left_alone(link)) {
        None => Finding::ok(Area::Managers, "NetworkManager leaves pods' links alone"),
        Some(link) => Finding::warn(
            Area::Managers,
            format!(
                "NetworkManager may take pods' links, such as {link}, for its own: no unmanaged-devices covers them"
            ),
        )
        .cured_by(UNMANAGED),
    }
}

/// Whether a list of devices, as NetworkManager reads it, means this veth link.
fn means(list: &[String], link: &str) -> bool {
    let is_meant = |spec: &str| match spec.split_once(':') {
        None => spec == "*" || is_like(spec.as_bytes(), link.as_bytes()),
        Some(("interface-name", name)) => match name.strip_prefix('=') {
            Some(exact) => exact == link,
            None => is_like(name.trim_start_matches('~').as_bytes(), link.as_bytes()),
        },
        Some(("type" | "driver", what)) => what == "veth",
        Some(_) => false,
    };
    let (excepted, meant): (Vec<&str>, Vec<&str>) =
        list.iter().map(String::as_str).partition(|spec| spec.starts_with("except:"));
    let is_excepted = excepted.iter().filter_map(|spec| spec.strip_prefix("except:")).any(is_meant);
    !is_excepted && meant.into_iter().any(is_meant)
}

/// What a file has to say. A link that leads out of `root` by an absolute path is followed below it.
fn text_of(root: &Path, path: &Path) -> Option<String> {
    let leads_to = fs::read_link(path).ok().filter(|to| to.is_absolute());
    let path = leads_to.map_or_else(|| path.to_owned(), |to| root.join(to.strip_prefix("/").unwrap_or(&to)));
    let bytes = foreign_file::read(&path, FILE_MAX).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.trim().is_empty())
}

/// The assignments of a file of sections, in their order: section, key and value.
fn assignments(text: &str) -> Vec<(String, String, String)> {
    let joined = text.replace("\\\n", " ");
    let mut section = String::new();
    let mut found = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            found.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files, each with its text.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Root {
            let root = std::env::temp_dir().join(format!("flock-managers-{name}-{}", std::process::id()));
            fs::remove_dir_all(&root).ok();
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("a directory")).expect("made");
                fs::write(path, text).expect("written");
            }
            Root(root)
        }

        fn find(&self) -> Vec<Finding> {
            look(&self.0, &["flock1a2b3c4d".into()])
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    const NETWORKD_RUNS: (&str, &str) = ("run/systemd/netif/state", "");
    const NM_RUNS: (&str, &str) = ("run/NetworkManager/devices/2", "");

    /// Whether networkd, with these files, takes pods' links, and by which.
    #[track_caller]
    fn taken(name: &str, files: &[(&str, &str)], by: Option<&str>) {
        let files: Vec<(&str, &str)> = files.iter().copied().chain([NETWORKD_RUNS]).collect();
        let found = Root::new(name, &files).find();
        let expected = by.map(|by| format!("by /{by}:"));
        match expected {
            None => assert_eq!(found, [Finding::ok(Area::Managers, "systemd-networkd leaves pods' links alone")]),
            Some(by) => assert!(found.len() == 1 && found[0].what.contains(&by), "{by}: {found:?}"),
        }
    }

    #[test]
    fn networkd_takes_a_link_by_the_first_file_that_matches_it() {
        let all = "[Match]\nName=*\n[Network]\nDHCP=yes\n";
        let (etc, run, lib) = ("etc/systemd/network", "run/systemd/network", "usr/lib/systemd/network");
        let file = |dir: &str, name: &str| format!("{dir}/{name}.network");
        taken("none", &[], None);
        taken("all", &[(&file(etc, "20-all"), all)], Some("etc/systemd/network/20-all.network"));
        let own = "[Match]\nName=flock*\n[Link]\nUnmanaged=yes\n";
        taken("own", &[(&file(etc, "20-all"), all), (&file(lib, "05-flock"), own)], None);
        taken(
            "late",
            &[(&file(etc, "00-all"), all), (&file(lib, "05-flock"), own)],
            Some("etc/systemd/network/00-all.network"),
        );
        // A file of the same name in a better place, an empty one too.
        taken("better", &[(&file(etc, "20-all"), ""), (&file(lib, "20-all"), all)], None);
        taken(
            "run",
            &[(&file(run, "20-all"), all), (&file(lib, "20-all"), own)],
            Some("run/systemd/network/20-all.network"),
        );
        taken("up", &[(&file(etc, "20-up"), "[Match]\nName=up0 en*\n")], None);
        taken("not", &[(&file(etc, "20-not"), "[Match]\nName=!en* flock*\n")], None);
        taken("not-en", &[(&file(etc, "20-not"), "[Match]\nName=!en*\n")], Some("etc/systemd/network/20-not.network"));
        taken("type", &[(&file(etc, "20-t"), "[Match]\nType=ether\n")], Some("etc/systemd/network/20-t.network"));
        taken("kind", &[(&file(etc, "20-t"), "[Match]\nType=ether\nKind=!*\n")], None);
        taken("mac", &[(&file(etc, "20-m"), "[Match]\nMACAddress=02:00:00:00:00:01\n")], None);
        taken("nothing", &[(&file(etc, "20-n"), "[Network]\nDHCP=yes\n")], None);
        let dropped = "etc/systemd/network/20-all.network.d/flock.conf";
        taken("dropped", &[(&file(lib, "20-all"), all), (dropped, "[Match]\nName=\nName=!flock*\n")], None);
        taken("unmanaged", &[(&file(lib, "20-all"), all), (dropped, "[Link]\nUnmanaged=yes\n")], None);
    }

    #[test]
    fn a_file_of_networkd_that_leads_to_nothing_masks_others() {
        let root = Root::new("mask", &[NETWORKD_RUNS, ("usr/lib/systemd/network/20-all.network", "[Match]\nName=*\n")]);
        assert_eq!(root.find()[0].level, crate::operator::check::finding::Level::Warn);
        let etc = root.0.join("etc/systemd/network");
        fs::create_dir_all(&etc).expect("made");
        std::os::unix::fs::symlink("/dev/null", etc.join("20-all.network")).expect("linked");
        assert_eq!(root.find()[0].level, crate::operator::check::finding::Level::Ok);
    }

    #[test]
    fn network_manager_has_to_be_told_to_leave_pods_links_alone() {
        for (name, conf, alone) in [
            ("no", "[main]\nplugins=keyfile\n", false),
            ("ours", "[keyfile]\nunmanaged-devices=interface-name:flock*\n", true),
            (
                "more",
                "[keyfile]\nunmanaged-devices=mac:02:00:00:00:00:01;interface-name:cali*,interface-name:flock*\n",
                true,
            ),
            ("others", "[keyfile]\nunmanaged-devices=interface-name:cali*;interface-name:=flock\n", false),
            ("veth", "[keyfile]\nunmanaged-devices=type:veth\n", true),
            ("except", "[keyfile]\nunmanaged-devices=*;except:interface-name:flock*\n", false),
            ("device", "[device-flock]\nmatch-device=interface-name:flock*\nmanaged=0\n", true),
            ("managed", "[device-flock]\nmatch-device=interface-name:flock*\nmanaged=1\n", false),
        ] {
            let found = Root::new(name, &[NM_RUNS, ("etc/NetworkManager/conf.d/x.conf", conf)]).find();
            let says = if alone { "leaves pods' links alone" } else { "may take pods' links" };
            assert!(found.len() == 1 && found[0].what.contains(says), "{name}: {found:?}");
        }
        let added = [
            NM_RUNS,
            ("etc/NetworkManager/NetworkManager.conf", "[keyfile]\nunmanaged-devices=interface-name:flock*\n"),
            ("usr/lib/NetworkManager/conf.d/y.conf", "[keyfile]\nunmanaged-devices+=interface-name:cali*\n"),
        ];
        assert!(Root::new("added", &added).find()[0].what.contains("leaves pods' links alone"));
    }

    #[test]
    fn an_uplink_whose_advertisements_networkd_takes_unasked_is_named() {
        let uplink = |accept_ra, has_advertised_route| Uplink {
            name: "up0".into(),
            accept_ra: Some(accept_ra),
            has_advertised_route,
            ..Uplink::default()
        };
        let found = |name, network, uplink| {
            let root = Root::new(name, &[NETWORKD_RUNS, ("etc/systemd/network/20-up.network", network)]);
            advertised(&root.0, &[uplink])
        };
        let silent = "[Match]\nName=up*\n[Network]\nDHCP=yes\n";
        let told = "[Match]\nName=up*\n[Network]\nIPv6AcceptRA=yes\n";
        let other = "[Match]\nName=up1\n[Network]\nIPv6AcceptRA=yes\n";
        let named = found("ra-silent", silent, uplink(0, true));
        assert!(matches!(&named[..], [warn] if warn.what.contains("of up0")), "{named:?}");
        assert_eq!(found("ra-other", other, uplink(0, true)), named);
        assert_eq!(found("ra-told", told, uplink(0, true)), []);
        assert_eq!(found("ra-kernel", silent, uplink(2, true)), []);
        assert_eq!(found("ra-static", silent, uplink(0, false)), []);
        assert_eq!(advertised(&Root::new("ra-away", &[]).0, &[uplink(0, true)]), []);
    }

    #[test]
    fn who_does_not_run_takes_nothing() {
        let found = Root::new("idle", &[("etc/systemd/network/20-all.network", "[Match]\nName=*\n")]).find();
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("neither"), "{found:?}");
        let taken = ("etc/systemd/network/20-all.network", "[Match]\nName=*\n");
        for (name, unit, runs) in [("stopped", "sshd", false), ("started", "systemd-networkd", true)] {
            let unit = format!("run/systemd/units/invocation:{unit}.service");
            let found = Root::new(name, &[taken, NETWORKD_RUNS, (&unit, "")]).find();
            assert_eq!(found[0].what.contains("systemd-networkd takes"), runs, "{found:?}");
        }
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, text, like) in [
            ("flock*", "flock1", true),
            ("*", "", true),
            ("f?ock[0-9]*", "flock1a", true),
            ("flock[!0-9]", "flock1", false),
            ("flock[^a]", "flock1", true),
            ("[", "[", true),
            ("flock", "flock1", false),
            ("**k1", "flock1", true),
        ] {
            assert_eq!(is_like(pattern.as_bytes(), text.as_bytes()), like, "{pattern} {text}");
        }
    }
}
